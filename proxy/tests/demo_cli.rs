//! The demonstration, as a newcomer runs it: its figures add up, are the same again, and touch nothing else.
//!
//! Not here: what is played (`src/demo`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is a failed test"
)]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn run(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
    command.args(args).current_dir(dir).env_clear().env("TMPDIR", dir);
    command.stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(dir: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&stdout(&run(dir, args))).unwrap()
}

/// An amount in millionths.
fn micro(value: &Value) -> i64 {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no amount"));
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    sign * format!("{whole}{fraction:0<6}").parse::<i64>().unwrap()
}

#[test]
fn the_figures_of_a_demonstration_add_up_and_its_ledger_tells_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let demo = json(dir.path(), &["demo", "--keep", "--format", "json"]);
    assert!(demo["demonstration"].as_str().unwrap().starts_with("DEMONSTRATION"));
    let roi = &demo["roi"];
    let rows = roi["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4, "three teams and what is nobody's: {roi:#}");
    for cost in ["billed", "effective", "hedged"] {
        let sum: i64 = rows.iter().map(|row| micro(&row["cost"][cost])).sum();
        let residual = roi["residual"]["cost"].get(cost).map_or(0, micro);
        assert_eq!(sum + residual, micro(&roi["book"]["cost"][cost]), "{cost}: {roi:#}");
    }
    let revenue: i64 = rows.iter().map(|row| micro(&row["revenue"])).sum();
    assert_eq!(revenue, 18_750_000, "4.00 + 9.50 + 6.00 − 0.75: {roi:#}");
    assert_eq!(revenue + micro(&roi["unattributed"]["revenue"]), micro(&roi["book"]["revenue"]), "{roi:#}");
    assert!(
        stdout(&run(dir.path(), &["ledger", "verify", "--data-dir", "bursar-demonstration"]))
            .contains("record")
    );
    // The ledger that was kept tells the same, by the commands that the demonstration names.
    let days = ["--from", "2026-03-03", "--to", "2026-03-04", "--on", "2026-03-04"];
    let args = [&["roi", "--format", "json", "--data-dir", "bursar-demonstration"][..], &days].concat();
    assert_eq!(json(dir.path(), &args)["rows"], roi["rows"]);
    let export = stdout(&run(dir.path(), &["export", "usage", "--data-dir", "bursar-demonstration"]));
    let records: Vec<Value> = export.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len() as u64, demo["requests"].as_u64().unwrap(), "one request, one record");
    for record in &records {
        assert_eq!(record["tags"]["demonstration"], "true");
        assert!(record["started_at"].as_str().unwrap().starts_with("2026-03-03T09:"));
        assert!(record["route"].as_str().unwrap().contains("demonstration"));
    }
    let outcomes = |name: &str| records.iter().filter(|record| record["outcome"] == name).count();
    assert!(outcomes("ok") > 500 && outcomes("error") > 5 && outcomes("error_midstream") > 0);
    assert!(records.iter().any(|record| record["stream"] == true));
}

#[test]
fn a_seed_gives_the_same_figures_and_nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let rows = |args: &[&str]| {
        json(dir.path(), &[&["demo", "--format", "json"], args].concat())["roi"]["rows"].clone()
    };
    let first = rows(&[]);
    assert_eq!(rows(&["--seed", "1"]), first);
    assert_ne!(rows(&["--seed", "2"]), first);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "its ledger is removed");
}

#[test]
fn a_demonstration_says_what_it_is_and_never_opens_a_directory_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let said = stdout(&run(dir.path(), &["demo", "--dir", "here"]));
    assert!(
        said.starts_with("DEMONSTRATION")
            && said.contains("Where to look next")
            && said.contains("--data-dir here"),
        "{said}"
    );
    assert!(said.contains("(checked)") && said.contains("support"), "{said}");
    let again = run(dir.path(), &["demo", "--dir", "here"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("has something in it"));
}
