//! Imports of usage as their users meet them: the commands of `docs/guide/import.md` and its figures, a running
//! sidecar, budgets and periods afterwards.
//!
//! Not here: what each system's fields mean (`src/imports`).
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

fn run(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
    command.args(args).current_dir(dir).env_clear();
    command.stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn guide(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide").join(name)
}

fn json(dir: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&stdout(&run(dir, args))).unwrap()
}

#[test]
fn the_guides_commands_give_the_guides_figures() {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(guide("import.md")).unwrap();
    let files = guide("import");
    let mut said = String::new();
    for line in text.lines().filter(|line| line.starts_with("bursar import usage import/")) {
        let line = line.split('#').next().unwrap().replace("import/", &format!("{}/", files.display()));
        let args: Vec<&str> = line.split_whitespace().skip(1).collect();
        said += &stdout(&run(dir.path(), &args));
    }
    let shown = text.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(said, shown, "what the commands say is what the guide shows");
    let table = stdout(&run(dir.path(), &["usage", "--by", "route,provider,model", "--data-dir", "data"]));
    let lines = text.lines().skip_while(|line| !line.contains("| route | provider |")).skip(2);
    for line in lines.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect();
        let there = table
            .lines()
            .any(|row| cells.iter().all(|cell| row.split_whitespace().any(|word| word == *cell)));
        assert!(there, "{cells:?} in\n{table}");
    }
}

#[test]
fn an_export_imports_into_a_fresh_ledger_with_the_same_report() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| guide("import").join(name).display().to_string();
    stdout(&run(dir.path(), &["import", "usage", &file("litellm.json"), "--data-dir", "data"]));
    let report = |data: &str| {
        let mut report =
            json(dir.path(), &["usage", "--by", "team,model,day", "--format", "json", "--data-dir", data]);
        report.as_object_mut().unwrap().remove("as_of");
        report
    };
    for format in ["jsonl", "csv"] {
        let (out, data) = (format!("all.{format}"), format!("data-{format}"));
        let export = ["export", "usage", "--format", format, "--output", &out, "--data-dir", "data"];
        stdout(&run(dir.path(), &export));
        let said = stdout(&run(dir.path(), &["import", "usage", &out, "--data-dir", &data]));
        assert!(said.contains("format: bursar (detected"), "{said}");
        assert_eq!(report(&data), report("data"), "{format}");
        let again = stdout(&run(dir.path(), &["import", "usage", &out, "--data-dir", &data]));
        assert!(
            again.contains("0 new, 0 restated, 3 there already") && again.contains("nothing to write"),
            "{again}"
        );
    }
    assert!(stdout(&run(dir.path(), &["ledger", "verify", "--data-dir", "data-csv"])).len() > 10);
}

#[test]
fn a_bad_file_is_refused_by_line_and_a_dry_run_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let row = "{\"request_id\":\"r1\",\"startTime\":\"2026-03-02T10:00:00Z\",\"spend\":0.1,\"model\":\"gpt-4o\",\"prompt_tokens\":5}\n";
    let text = format!(
        "{row}{}\nnot json\n",
        row.trim_end().replace("r1", "r2").replace("2026-03-02T10", "yesterday")
    );
    std::fs::write(dir.path().join("rows"), text).unwrap();
    let refused = run(dir.path(), &["import", "usage", "rows", "--data-dir", "data"]);
    assert_eq!(refused.status.code(), Some(3));
    let errors = stderr(&refused);
    for text in
        ["line 2: startTime: \"yesterday", "line 3: this is no JSON", "2 bad rows of 3; nothing was imported"]
    {
        assert!(errors.contains(text), "{text} in {errors}");
    }
    std::fs::write(dir.path().join("rows"), row).unwrap();
    let said = stdout(&run(dir.path(), &["import", "usage", "rows", "--dry-run", "--data-dir", "data"]));
    assert!(said.contains("1 new") && said.contains("nothing was written: this was a dry run"), "{said}");
    let usage = json(dir.path(), &["usage", "--format", "json", "--data-dir", "data"]);
    assert_eq!(usage["total"]["requests"], 0);
    let wrong = run(dir.path(), &["import", "usage", "rows", "--from", "never", "--data-dir", "data"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", stderr(&wrong));
}

#[test]
fn a_running_sidecar_imports_and_its_budget_counts_only_its_open_window() {
    let dir = tempfile::tempdir().unwrap();
    let config = "budgets:\n  - { name: this-year, scope: { team: checkout }, window: year, limit: 5 USD, mode: soft }\n";
    std::fs::write(dir.path().join("bursar.yaml"), config).unwrap();
    let sidecar = Sidecar::start_with(dir.path(), &["--config", "bursar.yaml"]);
    let year = jiff::Zoned::now().year();
    let row = |id: &str, year: i16| {
        format!(
            "{{\"request_id\":\"{id}\",\"startTime\":\"{year}-01-02T10:00:00Z\",\"spend\":9,\"custom_llm_provider\":\"openai\",\
                 \"model\":\"gpt-4o-mini\",\"prompt_tokens\":1000000,\"completion_tokens\":0,\"total_tokens\":1000000,\
                 \"metadata\":{{\"user_api_key_team_alias\":\"checkout\"}}}}\n"
        )
    };
    std::fs::write(dir.path().join("rows"), row("now", year) + &row("before", year - 2)).unwrap();
    let import = ["import", "usage", "rows", "--admin", &sidecar.admin];
    let said = stdout(&run(dir.path(), &import));
    assert!(said.contains("format: litellm (detected") && said.contains("2 new"), "{said}");
    assert!(said.contains("cost by litellm: 18 USD, kept beside ours"), "{said}");
    let spent = || {
        let budgets = json(dir.path(), &["budget", "--format", "json", "--admin", &sidecar.admin]);
        budgets["budgets"][0]["spent"].as_str().unwrap().to_owned()
    };
    let first = spent();
    assert_eq!(first, "0.15", "a million tokens of this year");
    let again = stdout(&run(dir.path(), &import));
    assert!(again.contains("2 there already"), "{again}");
    assert_eq!(spent(), first, "what is there already is not counted again");
    let usage = json(dir.path(), &["usage", "--by", "route", "--format", "json", "--admin", &sidecar.admin]);
    assert_eq!(usage["rows"][0]["route"], "import/litellm");
}
