//! Contracts and hedges as their users meet them: the worked example of `docs/guide/hedging.md` in
//! five commands, with the figures of the page, and what bad input is told.
//!
//! Invariants
//! - Every test has a directory of its own and no sidecar; `hedge_api.rs` asks a running one.
//!
//! Not here: the rules (`policies`), the joins (`ledger::hedge`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is a failed test"
)]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The files beside the guide.
fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/hedging").join(name)
}

fn guide() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/hedging.md")).unwrap()
}

/// `bursar` with these arguments on the ledger `data` in `dir`.
fn run(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
    command.args(args).current_dir(dir).env_clear();
    if !args.contains(&"--data-dir") {
        command.args(["--data-dir", "data"]);
    }
    command.stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(dir: &Path, args: &[&str]) -> Value {
    let mut args = args.to_vec();
    args.extend(["--format", "json"]);
    serde_json::from_str(&stdout(&run(dir, &args))).unwrap()
}

/// The commands of the guide's first block of them, without the word `bursar`.
fn commands_of_the_guide() -> Vec<Vec<String>> {
    let page = guide();
    let block = page.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let words = |line: &str| line.split_whitespace().skip(1).map(str::to_owned).collect();
    block.lines().filter(|line| line.starts_with("bursar ")).map(words).collect()
}

/// A ledger with the example's files in it; returns what the last command, the report, said.
fn worked_example(dir: &Path) -> String {
    for name in ["usage.csv", "profiles.jsonl", "fixings.csv", "contracts.json"] {
        std::fs::copy(example(name), dir.join(name)).unwrap();
    }
    let commands = commands_of_the_guide();
    assert_eq!(commands.len(), 5, "the example is five commands");
    let mut said = String::new();
    for command in commands {
        said = stdout(&run(dir, &command.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    said
}

const SEPTEMBER: [&str; 8] =
    ["--from", "2026-09-01", "--to", "2026-10-01", "--on", "2026-10-01", "--unit", "MSIT"];

fn report(dir: &Path, more: &[&str]) -> Value {
    json(dir, &[&["hedge", "report"], &SEPTEMBER[..], more].concat())
}

fn import(dir: &Path, what: &str, text: &str) -> Output {
    std::fs::write(dir.join("rows"), text).unwrap();
    run(dir, &["import", what, "rows"])
}

#[test]
fn the_worked_example_gives_the_full_book_in_five_commands() {
    let dir = tempfile::tempdir().unwrap();
    let said = worked_example(dir.path());
    for figure in ["38,938.63", "19,544.70", "3,145.82", "-630.00", "60,999.15"] {
        assert!(said.contains(figure), "{figure} in {said}");
    }
    assert!(
        said.contains(
            "balance: rows 61,629.15 + residual -630.00 = book 60,999.15 USD (checked for every column)"
        ),
        "{said}"
    );
    let report = report(dir.path(), &[]);
    let row = |team: &str| {
        let rows = report["rows"].as_array().unwrap();
        rows.iter().find(|row| row["team"] == team).unwrap().clone()
    };
    for (team, spot, payoff, premium, fees, unused, hedged) in [
        ("alpha", "41237.18", "3307.50", "820.31", "188.64", "0.00", "38938.63"),
        ("beta", "18904.51", "1496.25", "371.10", "85.34", "1680.00", "19544.70"),
        ("gamma", "3310.01", "236.25", "58.59", "13.47", "0.00", "3145.82"),
    ] {
        let row = row(team);
        let found = [
            &row["cost"]["spot"],
            &row["hedge"]["payoff"],
            &row["hedge"]["premium"],
            &row["hedge"]["fees"],
            &row["hedge"]["unused"],
            &row["cost"]["hedged"],
        ];
        assert_eq!(
            found.map(|text| text.as_str().unwrap()),
            [spot, payoff, premium, fees, unused, hedged],
            "{team}"
        );
    }
    assert_eq!(report["residual"]["cost"]["hedged"], "-630.00");
    assert_eq!((&report["book_total"], &report["without_hedge"]), (&"60999.15".into(), &"63451.70".into()));
    assert_eq!((&report["complete"], &report["provisional"]), (&true.into(), &false.into()));
    assert_eq!(report["balance"]["balanced"], true);
    assert_eq!(report["coverage"]["share"], "1.0000");
}

#[test]
fn rows_by_workload_add_up_to_the_same_book_and_every_form_says_so() {
    let dir = tempfile::tempdir().unwrap();
    worked_example(dir.path());
    let fine = report(dir.path(), &["--by", "team,workload,model"]);
    assert_eq!(fine["book_total"], "60999.15");
    let cents = |text: &Value| text.as_str().unwrap().replace('.', "").parse::<i64>().unwrap();
    let rows = fine["rows"].as_array().unwrap();
    let sum: i64 = rows.iter().map(|row| cents(&row["cost"]["hedged"])).sum();
    assert_eq!(sum + cents(&fine["residual"]["cost"]["hedged"]), 6_099_915);
    assert!(rows.iter().any(|row| row["workload"] == "support-bot" && row["model"] == "m-ref"));
    let csv = stdout(&run(dir.path(), &[&["hedge", "report", "--format", "csv"], &SEPTEMBER[..]].concat()));
    assert!(csv.starts_with("team,cost.spot,hedge.displaced,"), "{csv}");
    assert!(csv.contains("\nresidual,0.00,0.00,0.00,630.00,") && csv.contains(",60999.15,"), "{csv}");
    let half = report(dir.path(), &["--hedge-ratio", "0.5"]);
    assert_eq!(half["at_hedge_ratio"]["book_total"], "63834.15");
}

#[test]
fn importing_again_changes_nothing_and_a_dry_run_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    worked_example(dir.path());
    for (what, file, rows) in
        [("usage", "usage.csv", 5), ("fixings", "fixings.csv", 22), ("contracts", "contracts.json", 2)]
    {
        let said = stdout(&run(dir.path(), &["import", what, file]));
        assert!(said.contains(&format!("{rows} rows, 0 new, 0 restated, {rows} there already")), "{said}");
        assert!(said.contains("nothing to write"), "{said}");
    }
    let other = "index,date,value,currency,source\nTPI,2026-09-01,2.9,USD,exchange\n";
    std::fs::write(dir.path().join("rows"), other).unwrap();
    let dry = stdout(&run(dir.path(), &["import", "fixings", "rows", "--dry-run"]));
    assert!(dry.contains("1 restated") && dry.contains("this was a dry run"), "{dry}");
    assert_eq!(report(dir.path(), &[])["book_total"], "60999.15");
    stdout(&run(dir.path(), &["import", "fixings", "rows"]));
    assert_ne!(report(dir.path(), &[])["book_total"], "60999.15", "a restatement counts");
    let list = json(dir.path(), &["market", "show", "fixings", "TPI"]);
    assert_eq!(list["rows"].as_array().unwrap().len(), 23, "what was said before is still there");
}

#[test]
fn a_bad_file_names_every_bad_line_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    worked_example(dir.path());
    let fixings = "index,date,value,currency\nTPI,2026-10-03,2.1,USD\nTPI,2026-10-01,2.1,USD\nTPI,2026-10-02,-1,USD\n\
                   TPI,2026-10-05,2.1,CNY\nTPI,tomorrow,2.1,USD\n";
    let refused = import(dir.path(), "fixings", fixings);
    assert_eq!(refused.status.code(), Some(3));
    let errors = stderr(&refused);
    for text in [
        "line 2: TPI v1 is not fixed on 2026-10-03: it is no business day of calendar weekdays",
        "line 4: the fixing of TPI v1 of 2026-10-02 is -1: it must be above zero",
        "line 5: TPI v1 is in USD, the fixing is in CNY; CNY and CNH are two currencies",
        "line 6: \"tomorrow\" is not a day",
        "4 bad rows of 5; nothing was imported",
    ] {
        assert!(errors.contains(text), "{text} in {errors}");
    }
    let list = json(dir.path(), &["market", "show", "fixings", "TPI"]);
    assert_eq!(list["rows"].as_array().unwrap().len(), 22);
}

const SWAP: &str = r#"{"position_id":"s2","kind":"swap_fixed_float","quantity":"10","unit":"MSIT","fixed_price":"2","index_id":"TPI","trade_date":"2026-08-11","effective_from":"2026-09-01","effective_until":"2026-10-01","designation":{}}"#;

#[track_caller]
fn check_refused(change: impl Fn(&mut Value), text: &str) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let ending = "{\"index\":\"OLD\",\"currency\":\"USD\",\"last\":\"2026-09-10\"}";
    stdout(&import(dir.path(), "indices", ending));
    stdout(&import(dir.path(), "contracts", SWAP));
    let mut fields: Value = serde_json::from_str(SWAP).unwrap();
    fields["position_id"] = "bad".into();
    change(&mut fields);
    let refused = import(dir.path(), "contracts", &fields.to_string());
    assert_eq!(refused.status.code(), Some(3), "{}", String::from_utf8_lossy(&refused.stdout));
    assert!(stderr(&refused).contains(text), "{text:?} in {}", stderr(&refused));
}

#[test]
fn positions_that_cannot_be_are_refused_with_the_reason() {
    check_refused(|p| p["quantity"] = "-10".into(), "quantity: \"-10\" must be above zero");
    check_refused(|p| p["index_id"] = "OLD".into(), "OLD v1 ended on 2026-09-10");
    check_refused(|p| p["unit"] = "tokens".into(), "unit: \"tokens\" is unknown");
    check_refused(
        |p| {
            p["price_currency"] = "CNH".into();
            p["settlement_currency"] = "USD".into();
            p["fx"] = serde_json::json!({"pair": "USD/CNY"});
        },
        "CNY and CNH are two currencies",
    );
    check_refused(
        |p| {
            p["position_id"] = "s2".into();
            p["version"] = 2.into();
        },
        "version 2 overlaps it: write supersedes: 1",
    );
    check_refused(|p| p["position_id"] = Value::Null, "position_id is missing");
}

/// The report's entry for what is not in the figures about this position.
fn unpriced(report: &Value, id: &str) -> String {
    let all = report["unpriced"].as_array().unwrap();
    let found = all.iter().find(|gap| gap["id"] == id);
    found.unwrap_or_else(|| panic!("{id} in {all:?}"))["reason"].as_str().unwrap().to_owned()
}

#[test]
fn what_cannot_be_priced_is_listed_and_never_a_zero() {
    let dir = tempfile::tempdir().unwrap();
    worked_example(dir.path());
    let with = |id: &str, change: &[(&str, Value)]| {
        let mut fields: Value = serde_json::from_str(SWAP).unwrap();
        fields["position_id"] = id.into();
        for (key, value) in change {
            fields[*key] = value.clone();
        }
        format!("{fields}\n")
    };
    let rows = [
        with("no-index", &[("index_id", "NONE".into())]),
        with("no-rate", &[("price_currency", "CNY".into()), ("index_id", "CNTPI".into())]),
        with("gpu", &[("unit", "GPU-h".into())]),
        with("nobody", &[("designation", serde_json::json!({"teams": ["zeta"]}))]),
    ];
    stdout(&import(dir.path(), "contracts", &rows.concat()));
    let yuan = std::fs::read_to_string(example("fixings.csv")).unwrap();
    stdout(&import(dir.path(), "fixings", &yuan.replace("TPI", "CNTPI").replace("USD", "CNY")));
    let report = report(dir.path(), &[]);
    assert_eq!(report["complete"], false);
    assert!(unpriced(&report, "no-index").contains("unknown index NONE v1"));
    assert!(unpriced(&report, "no-rate").contains("no rate between CNY and USD"));
    assert!(unpriced(&report, "gpu").contains("GPU-h does not convert to MSIT"));
    let nobody =
        report["positions"].as_array().unwrap().iter().find(|row| row["position_id"] == "nobody").unwrap();
    assert_eq!(nobody["covers_nothing"], true);
    let table = stdout(&run(dir.path(), &[&["hedge", "report"], &SEPTEMBER[..]].concat()));
    assert!(table.contains("the report is incomplete"), "{table}");
    assert!(table.contains("position nobody covers no usage of this period"), "{table}");
}

#[test]
fn contracts_are_entered_from_presets_followed_and_closed_by_command() {
    let dir = tempfile::tempdir().unwrap();
    worked_example(dir.path());
    let add = [
        "contract",
        "add",
        "--preset",
        "gpu-hour-future-h100",
        "--id",
        "h100-dec",
        "quantity=12",
        "fixed_price=2.63",
        "contract_month=2026-12",
        "trade_date=2026-08-12",
        "index_id=H100",
    ];
    let said = stdout(&run(dir.path(), &add));
    assert!(said.contains("1 rows, 1 new"), "{said}");
    let shown = json(dir.path(), &["contract", "show", "h100-dec", "--on", "2026-10-01"]);
    assert_eq!((&shown["unit"], &shown["status"]), (&"GPU-h".into(), &"Pending".into()));
    assert_eq!(shown["versions"][0]["entered"]["multiplier"], "730");
    let off_tick = run(dir.path(), &[&add[..4], &["--id", "x"], &add[6..], &["fixed_price=2.635"]].concat());
    assert!(stderr(&off_tick).contains("no multiple of the tick 0.01"), "{}", stderr(&off_tick));
    let event = |args: &[&str]| run(dir.path(), &[&["contract"], args].concat());
    stdout(&event(&[
        "settle",
        "swap-sep",
        "--date",
        "2026-10-02",
        "--month",
        "2026-09",
        "--amount",
        "5670.00",
    ]));
    assert_eq!(report(dir.path(), &[])["book_total"], "60999.15", "it settled for what was computed");
    let again = event(&["settle", "swap-sep", "--date", "2026-10-02", "--month", "2026-09", "--amount", "1"]);
    assert!(stderr(&again).contains("says something else"), "{}", stderr(&again));
    stdout(&event(&["close", "h100-dec", "--date", "2026-09-15", "--price", "2.70"]));
    stdout(&event(&["roll", "h100-dec", "--date", "2026-09-15", "--into", "h100-mar"]));
    let listed = json(dir.path(), &["contract", "list", "--on", "2026-10-02"]);
    let status = |id: &str| {
        let rows = listed["rows"].as_array().unwrap();
        rows.iter().find(|row| row["position_id"] == id).unwrap()["status"].clone()
    };
    assert_eq!((status("h100-dec"), status("swap-sep")), ("ClosedOut".into(), "Settled".into()));
    let beta = json(dir.path(), &["contract", "show", "commit-beta", "--on", "2026-09-30"]);
    assert_eq!(
        (&beta["remaining"]["left"], &beta["remaining"]["used"]),
        (&"1680".into(), &"18904.51".into())
    );
    let missing = event(&["show", "nothing"]);
    assert!(stderr(&missing).contains("there is no position"), "{}", stderr(&missing));
    assert!(
        stdout(&Command::new(env!("CARGO_BIN_EXE_bursar")).args(["contract", "presets"]).output().unwrap())
            .contains("azure-ptu")
    );
}

#[test]
fn usage_that_cannot_be_is_refused_by_line() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let rows = "{\"id\":\"1\",\"started_at\":\"2026-09-01T00:00:00Z\",\"provider\":\"openai\",\"usage\":{\"input_tokens\":5}}\n\
                {\"id\":\"2\",\"started_at\":\"then\",\"provider\":\"openai\"}\n\
                {\"id\":\"1\",\"started_at\":\"2026-09-01T00:00:00Z\",\"provider\":\"openai\"}\n\
                not json\n";
    let refused = import(dir.path(), "usage", rows);
    assert_eq!(refused.status.code(), Some(3));
    let errors = stderr(&refused);
    for text in ["line 2: started_at", "line 3: id", "line 4: this is no JSON"] {
        assert!(errors.contains(text), "{text} in {errors}");
    }
    let usage = json(dir.path(), &["usage", "--from", "2026-01-01"]);
    assert_eq!(usage["total"]["requests"], 0);
}
