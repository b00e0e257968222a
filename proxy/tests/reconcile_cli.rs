//! Reconciliation as its users meet it: the commands of `docs/guide/reconcile.md` and its figures, exit codes,
//! a running sidecar, statements that are refused.
//!
//! Not here: kinds of files (`src/reconcile`), the parts (`policies::reconcile`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is a failed test"
)]

mod sidecar;

use serde_json::Value;
use sidecar::Sidecar;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn guide() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide").canonicalize().unwrap()
}

fn run(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
    command.args(args).current_dir(dir).env_clear();
    command.stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn file(name: &str) -> String {
    guide().join("reconcile").join(name).display().to_string()
}

fn imported(dir: &Path, place: [&str; 2]) {
    stdout(&run(
        dir,
        &["import", "usage", &file("usage.csv"), "--from-format", "bursar", place[0], place[1]],
    ));
}

#[test]
fn the_guides_commands_give_the_guides_figures() {
    let dir = tempfile::tempdir().unwrap();
    let data = ["--data-dir", "data"];
    imported(dir.path(), data);
    let (usage, costs) = (file("openai-usage.json"), file("openai-costs.json"));
    let base = ["reconcile", &usage, &costs, "--provider", "openai", data[0], data[1]];
    let text = std::fs::read_to_string(guide().join("reconcile.md")).unwrap();
    let told = stdout(&run(dir.path(), &base));
    let shown = text.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    for line in shown.lines() {
        assert!(told.lines().any(|said| said == line), "{line}\nin\n{told}");
    }
    let found: Value =
        serde_json::from_str(&stdout(&run(dir.path(), &[&base[..], &["--format", "json"]].concat())))
            .unwrap();
    let titles = [
        "theirs/cost",
        "ours/billed",
        "money/gap",
        "money/unpriced",
        "money/estimated",
        "money/aborted",
        "money/outside",
        "money/price",
        "money/rounding",
    ];
    let lines = text.lines().skip_while(|line| !line.contains("| day | model | Theirs")).skip(2);
    let mut rows = 0;
    for line in lines.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect();
        let row = &found["rows"][rows];
        assert_eq!(row["day"], cells[0]);
        assert_eq!(row["model"].as_str().unwrap_or("(none)"), cells[1], "{row:#}");
        for (title, cell) in titles.iter().zip(&cells[2..]) {
            assert_eq!(row.pointer(&format!("/{title}")).unwrap(), cell, "{title} of {row:#}");
        }
        rows += 1;
    }
    assert_eq!(rows, found["rows"].as_array().unwrap().len());
    let gap = &found["total"]["tokens"];
    let parts: i64 = gap
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| *name != "gap")
        .map(|(_, n)| n.as_i64().unwrap())
        .sum();
    assert_eq!(Some(parts), gap["gap"].as_i64());
}

#[test]
fn what_stays_unexplained_beyond_the_tolerance_is_exit_code_3() {
    let dir = tempfile::tempdir().unwrap();
    imported(dir.path(), ["--data-dir", "data"]);
    let costs = file("openai-costs.json");
    let code = |tolerance: &str| {
        let args =
            ["reconcile", &costs, "--provider", "openai", "--tolerance", tolerance, "--data-dir", "data"];
        let output = run(dir.path(), &args);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    // Without the usage file nothing says whose the calls were.
    let (found, said) = code("1%");
    assert!(found == Some(3) && said.contains("beyond the tolerance of 1%"), "{said}");
    assert_eq!(code("100%").0, Some(0));
    assert_eq!(code("5").0, Some(0));
    assert_eq!(code("a lot").0, Some(3));
}

#[test]
fn statements_that_cannot_be_right_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    imported(dir.path(), ["--data-dir", "data"]);
    let (usage, costs) = (file("openai-usage.json"), file("openai-costs.json"));
    for (files, provider, text) in [
        (vec![&*costs, &*costs], "openai", "it would count twice"),
        (vec![&*costs], "anthropic", "not of --provider Anthropic"),
        (vec![&*usage, "nowhere"], "openai", "nowhere"),
    ] {
        let args = [&["reconcile"][..], &files, &["--provider", provider, "--data-dir", "data"]].concat();
        let output = run(dir.path(), &args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(text), "{text} in {said}");
    }
    let output =
        run(dir.path(), &["reconcile", &costs, "--provider", "openai", "--by", "moon", "--data-dir", "data"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_running_sidecar_gives_the_same_as_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (usage, costs) = (file("openai-usage.json"), file("openai-costs.json"));
    let of = |place: [&str; 2]| {
        let args =
            ["reconcile", &usage, &costs, "--provider", "openai", "--format", "json", place[0], place[1]];
        let mut found: Value = serde_json::from_str(&stdout(&run(dir.path(), &args))).unwrap();
        found.as_object_mut().unwrap().remove("as_of");
        found
    };
    let asked = {
        let sidecar = Sidecar::start(dir.path());
        let place = ["--admin", &*sidecar.admin];
        imported(dir.path(), place);
        of(place)
    };
    assert_eq!(asked, of(["--data-dir", "data"]));
}
