//! Contracts and hedges as their users meet them: the worked example of `docs/guide/hedging.md` in
//! five commands, with the figures of the page, and what bad input is told.
//!
//! Invariants
//! - Every test has a directory of its own; a sidecar that it starts ends with it.
//!
//! Not here: the rules (`policies`), the joins (`ledger::hedge`).
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
use std::io::{Read, Write};
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
    if !args.contains(&"--data-dir") && !args.contains(&"--admin") {
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
fn the_cost_of_a_row_of_which_nothing_is_priced_is_unknown_and_not_zero() {
    let dir = tempfile::tempdir().unwrap();
    let usage = "id,started_at,team,provider,model,usage.input_tokens,usage.output_tokens\n\
        u1,2026-09-03T00:00:00Z,alpha,openai,no-such-model,1000,20\n\
        u2,2026-09-03T00:00:00Z,beta,openai,gpt-4o,1000000,0\n";
    std::fs::create_dir(dir.path().join("data")).unwrap();
    stdout(&import(dir.path(), "usage", usage));
    let report = report(dir.path(), &[]);
    let (alpha, beta) = (&report["rows"][0], &report["rows"][1]);
    for name in ["spot", "effective", "hedged"] {
        assert_eq!((&alpha["cost"][name], &beta["cost"][name]), (&Value::Null, &"2.50".into()), "{report}");
    }
    assert_eq!((&alpha["unpriced_requests"], &report["book_total"]), (&1.into(), &"2.50".into()));
    assert_eq!(report["complete"], false);
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
        "line 6: date: \"tomorrow\" is not a day",
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
        with("mixed", &[("index_id", "CNTPI".into())]),
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
    assert!(unpriced(&report, "mixed").contains("CNTPI v1 is in CNY and the contract is priced in USD"));
    assert!(unpriced(&report, "gpu").contains("GPU-h does not convert to MSIT"));
    let nobody =
        report["positions"].as_array().unwrap().iter().find(|row| row["position_id"] == "nobody").unwrap();
    assert_eq!(nobody["covers_nothing"], true);
    let table = stdout(&run(dir.path(), &[&["hedge", "report"], &SEPTEMBER[..]].concat()));
    assert!(table.contains("the report is incomplete"), "{table}");
    assert!(table.contains("position nobody covers no usage of this period"), "{table}");
}

#[test]
fn usage_without_a_rate_is_told_beside_each_row_whose_cost_lacks_it() {
    let dir = tempfile::tempdir().unwrap();
    worked_example(dir.path());
    let euros = report(dir.path(), &["--currency", "EUR"]);
    for row in euros["rows"].as_array().unwrap() {
        assert_eq!(row["unpriced_requests"], row["requests"], "{row}");
    }
    let asked = [&["hedge", "report", "--currency", "EUR"], &SEPTEMBER[..]].concat();
    assert!(stdout(&run(dir.path(), &asked)).contains(" Unpriced "));
    let csv = stdout(&run(dir.path(), &[&asked[..], &["--format", "csv"]].concat()));
    assert!(csv.lines().next().unwrap().ends_with(",coverage,unpriced_requests"), "{csv}");
    let wrong = run(dir.path(), &["hedge", "report", "--currency", "EUX"]);
    assert!(stderr(&wrong).contains("EUX"), "{}", stderr(&wrong));
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

// === a running sidecar

/// The metrics page.
fn metrics(admin: &str) -> String {
    let authority = admin.trim_start_matches("http://");
    let mut socket = std::net::TcpStream::connect(authority).unwrap();
    write!(socket, "GET /metrics HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n").unwrap();
    let mut reply = String::new();
    socket.read_to_string(&mut reply).unwrap();
    reply
}

/// The reply to a POST, head and body.
fn post(admin: &str, path: &str, headers: &str, body: &str) -> String {
    let authority = admin.trim_start_matches("http://");
    let mut socket = std::net::TcpStream::connect(authority).unwrap();
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    socket.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    socket.read_to_string(&mut reply).unwrap();
    reply
}

#[test]
fn a_running_sidecar_is_asked_and_gives_the_same_figures_also_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["usage.csv", "profiles.jsonl", "fixings.csv", "contracts.json"] {
        std::fs::copy(example(name), dir.path().join(name)).unwrap();
    }
    let sidecar = Sidecar::start(dir.path());
    let ask = |args: &[&str]| run(dir.path(), &[args, &["--admin", sidecar.admin.as_str()]].concat());
    for command in commands_of_the_guide() {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        stdout(&ask(&words[..words.len() - 2]));
    }
    let there = ask(&[&["hedge", "report", "--format", "json"], &SEPTEMBER[..]].concat());
    let mut there: Value = serde_json::from_str(&stdout(&there)).unwrap();
    assert_eq!(there["book_total"], "60999.15");
    let refused = ask(&["import", "fixings", "usage.csv"]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(stderr(&refused).contains("line 2: unknown field"), "{}", stderr(&refused));
    let busy = run(dir.path(), &["import", "fixings", "fixings.csv"]);
    assert!(stderr(&busy).contains("in use by process"), "{}", stderr(&busy));
    let show = ask(&["contract", "show", "swap-sep", "--format", "json"]);
    assert!(stdout(&show).contains("\"fix the token price of September\""));
    assert!(stderr(&ask(&["contract", "show", "none"])).contains("404"));
    assert!(stdout(&ask(&["market", "list", "profiles"])).contains("m-small-quality"));
    let page = post(&sidecar.admin, "/api/v1/import/fx", "origin: http://evil.example\r\n", "{}");
    assert!(page.starts_with("HTTP/1.1 403 "), "{page}");
    let bad = post(
        &sidecar.admin,
        "/api/v1/contracts/none/events",
        "",
        "{\"event\":\"cancel\",\"date\":\"2026-09-01\"}",
    );
    assert!(bad.starts_with("HTTP/1.1 422 ") && bad.contains("there is no position none"), "{bad}");
    let wrong = ask(&["hedge", "report", "--unit", "tons"]);
    assert!(stderr(&wrong).contains("Mtok or MSIT"), "{}", stderr(&wrong));
    drop(sidecar);
    let mut here = report(dir.path(), &[]);
    // A sidecar reads rollups, a directory records; when it was asked differs too.
    for document in [&mut here, &mut there] {
        for key in ["as_of", "read_from"] {
            document.as_object_mut().unwrap().remove(key).unwrap();
        }
    }
    assert_eq!(here, there, "what was acknowledged survives a kill, and records say what rollups say");
}

#[test]
fn the_simulation_says_both_reductions_and_draws_its_chart() {
    let dir = tempfile::tempdir().unwrap();
    let simulate = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
        command.args(["hedge", "simulate"]).args(args).current_dir(dir.path()).env_clear();
        command.stdin(Stdio::null()).output().unwrap()
    };
    let args =
        ["--paths", "2000", "--seed", "7", "--svg", "chart.svg", "--png", "chart.png", "--format", "json"];
    let once = simulate(&args);
    let document: Value = serde_json::from_str(&stdout(&once)).unwrap();
    assert_eq!(document["paths"], 2000);
    assert_eq!(stdout(&once), stdout(&simulate(&args)), "the same seed gives the same figures");
    assert!(stderr(&once).contains("the chart is in chart.svg") && !stderr(&once).contains("0/2000"));
    let number = |name: &str| document[name].as_str().unwrap().parse::<f64>().unwrap();
    assert!(number("variance_reduction") > number("volatility_reduction"));
    assert!(std::fs::read_to_string(dir.path().join("chart.svg")).unwrap().contains("<polyline"));
    assert!(std::fs::read(dir.path().join("chart.png")).unwrap().starts_with(b"\x89PNG\r\n"));
    let text = stdout(&simulate(&["--paths", "2000"]));
    assert!(text.contains("volatility reduction (1 − sd hedged / sd unhedged): 0.7"), "{text}");
    assert_eq!(simulate(&["--paths", "1"]).status.code(), Some(2));
}

/// Twelve months of one team, with an index that the own price follows at half a cent.
fn a_year(dir: &Path) {
    let months = 1..=12;
    let price = |month: usize| 200 + (month * 37) % 50;
    let (mut usage, mut fixings) = (
        "id,started_at,team,provider,model,usage.input_tokens,cost.billed\n".to_owned(),
        "index,date,value,currency\n".to_owned(),
    );
    for month in months {
        let cents = price(month);
        usage += &format!("u{month},2025-{month:02}-10T00:00:00Z,a,openai,m,1000000000,{}.5\n", cents * 10);
        for day in (1..=28).filter(|day| {
            let date = jiff::civil::date(2025, i8::try_from(month).unwrap(), i8::try_from(*day).unwrap());
            !matches!(date.weekday(), jiff::civil::Weekday::Saturday | jiff::civil::Weekday::Sunday)
        }) {
            fixings += &format!("TPI,2025-{month:02}-{day:02},{}.{:02},USD\n", cents / 100, cents % 100);
        }
    }
    let swap = serde_json::json!({
        "position_id": "year", "kind": "swap_fixed_float", "quantity": "1000", "unit": "Mtok", "fixed_price": "2.2",
        "index_id": "TPI", "trade_date": "2024-12-01", "effective_from": "2025-01-01", "effective_until": "2026-01-01",
        "volumes": "each_month", "fallback": "last_published", "margin": {"initial": "100", "maintenance_ratio": "0.75"},
        "limits": {"spot": "1050", "reportable": "25"}, "designation": {"objective": "fix the year"}
    });
    std::fs::create_dir(dir.join("data")).unwrap();
    stdout(&import(dir, "usage", &usage));
    stdout(&import(dir, "fixings", &fixings));
    stdout(&import(dir, "contracts", &swap.to_string()));
}

#[test]
fn effectiveness_and_risk_are_told_on_the_users_own_months() {
    let dir = tempfile::tempdir().unwrap();
    a_year(dir.path());
    let terms = ["--from", "2025-01-01", "--to", "2026-01-01", "--on", "2025-12-31"];
    let found = json(
        dir.path(),
        &[&["hedge", "effectiveness"], &terms[..], &["--basis", "common=0.2,provider=0.1"]].concat(),
    );
    assert_eq!(found["months"].as_array().unwrap().len(), 12);
    assert_eq!(found["dollar_offset"]["periods"].as_array().unwrap().len(), 11);
    assert_eq!(found["dollar_offset"]["periods"][3]["pass"], true);
    assert_eq!(found["regression"]["pass"], true, "{}", found["regression"]);
    let number = |text: &Value| text.as_str().unwrap().parse::<f64>().unwrap();
    let reduction = &found["reduction"];
    assert!(number(&reduction["volatility_reduction"]) > 0.99, "{reduction}");
    assert_eq!(found["basis"]["variance_reduction"], "0.8000");
    let year = &found["positions"][0];
    assert_eq!(
        (&year["position_id"], &year["method"], &year["pass"], &year["months"]),
        (&"year".into(), &"dollar_offset".into(), &true.into(), &12.into())
    );
    let few = json(
        dir.path(),
        &["hedge", "effectiveness", "--from", "2025-01-01", "--to", "2025-06-01", "--on", "2025-12-31"],
    );
    assert_eq!(few["regression"]["pass"], Value::Null, "four changes are not judged");
    assert!(few["regression"]["reason"].as_str().unwrap().contains("4 changes are fewer than 8"));
    let enough = json(
        dir.path(),
        &[
            "hedge",
            "effectiveness",
            "--from",
            "2025-01-01",
            "--to",
            "2025-06-01",
            "--on",
            "2025-12-31",
            "--points",
            "4",
        ],
    );
    assert_eq!(enough["regression"]["pass"], true, "{}", enough["regression"]);
    let risk = json(
        dir.path(),
        &[
            "hedge",
            "risk",
            "--from",
            "2025-06-01",
            "--to",
            "2025-07-01",
            "--on",
            "2025-06-30",
            "--forecast",
            "2025-07=2000",
        ],
    );
    assert_eq!(risk["coverage"]["months"][0]["ratio"], "0.5000");
    assert_eq!(
        (&risk["limits"][0]["status"], &risk["limits"][0]["reportable"]),
        (&"warn".into(), &true.into())
    );
    // A thousand lots in each of six months.
    assert_eq!(risk["margin"][0]["initial"], "600000.00");
    assert_eq!(risk["positions"][0]["stress"]["initial"], "600000.00");
    assert_eq!(risk["cash"][0]["calls"]["down_25"], risk["positions"][0]["stress"]["moves"][0]["call"]);
    assert_eq!(risk["positions"][0]["stress"]["moves"].as_array().unwrap().len(), 4);
    assert_eq!(risk["fixings"][0]["missing"], serde_json::json!(["2025-06-30"]));
    assert_eq!(risk["concentration"][0]["above_30_percent"], true);
    assert_eq!(risk["designations"][0]["objective"], "fix the year");
    assert!(risk["note"].as_str().unwrap().contains("does not decide"));
    let table = stdout(&run(dir.path(), &[&["hedge", "risk"], &terms[..]].concat()));
    assert!(
        table.contains("if a provider reprices") && table.contains("position year: marked at"),
        "{table}"
    );
    let table = stdout(&run(dir.path(), &[&["hedge", "effectiveness"], &terms[..]].concat()));
    assert!(table.contains("dollar offset, passes from 0.80 to 1.25"), "{table}");
}

// === token classes

/// Ten million tokens in and two million out of a model of the built-in book, and two million tokens
/// of one class with a cost of their own.
const CLASSES: &str = "id,started_at,team,provider,model,usage.input_tokens,usage.output_tokens,cost.billed\n\
     u1,2026-09-03T00:00:00Z,alpha,openai,gpt-4o,10000000,2000000,\n\
     u2,2026-09-04T00:00:00Z,beta,openai,own,,2000000,30.00\n";

fn position(id: &str, kind: &str, change: &[(&str, Value)]) -> String {
    let mut fields = serde_json::json!({
        "position_id": id, "kind": kind, "quantity": "1", "unit": "Mtok", "fixed_price": "8", "price_currency": "USD",
        "trade_date": "2026-08-11", "effective_from": "2026-09-01", "effective_until": "2026-10-01",
        "designation": {"token_classes": ["output"]}
    });
    for (key, value) in change {
        fields[*key] = value.clone();
    }
    format!("{fields}\n")
}

fn book(rows: &[String], usage: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    stdout(&import(dir.path(), "usage", usage));
    stdout(&import(dir.path(), "fixings", &std::fs::read_to_string(example("fixings.csv")).unwrap()));
    stdout(&import(dir.path(), "contracts", &rows.concat()));
    dir
}

const IN_MTOK: [&str; 6] = ["--from", "2026-09-01", "--to", "2026-10-01", "--on", "2026-10-01"];

fn by_position<'a>(report: &'a Value, id: &str) -> &'a Value {
    report["positions"].as_array().unwrap().iter().find(|row| row["position_id"] == id).unwrap()
}

#[test]
fn a_swap_on_output_tokens_covers_only_those() {
    let swap = [("quantity", "5".into()), ("fixed_price", "2".into()), ("index_id", "TPI".into())];
    let dir = book(&[position("out", "swap_fixed_float", &swap)], CLASSES);
    let report = json(dir.path(), &[&["hedge", "report"], &IN_MTOK[..]].concat());
    assert_eq!(report["complete"], true, "{}", report["unpriced"]);
    let out = by_position(&report, "out");
    // Five million hedged, two and two million used: 5 × 0.2575 = 1.29, 4/5 of it effective.
    assert_eq!((&out["covered"], &out["over"]), (&"4".into(), &"1".into()));
    assert_eq!((&out["payoff"], &out["effective_payoff"]), (&"1.29".into(), &"1.03".into()));
    assert_eq!(report["coverage"]["share"], "0.2857", "4 of 14 million tokens");
    assert_eq!(report["balance"]["balanced"], true);
    let other =
        [&swap[..], &[("designation", serde_json::json!({"token_classes": ["cached_read"]}))]].concat();
    let dir = book(&[position("cached", "swap_fixed_float", &other)], CLASSES);
    let report = json(dir.path(), &[&["hedge", "report"], &IN_MTOK[..]].concat());
    assert_eq!(
        (&by_position(&report, "cached")["covers_nothing"], &report["complete"]),
        (&true.into(), &true.into())
    );
}

#[test]
fn output_tokens_that_are_delivered_displace_the_price_of_output_tokens() {
    let forward = [("quantity", "3".into())];
    let dir = book(&[position("out", "forward_physical", &forward)], CLASSES);
    let report = json(dir.path(), &[&["hedge", "report"], &IN_MTOK[..]].concat());
    assert_eq!(report["complete"], true, "{}", report["unpriced"]);
    // alpha: 10 × 2.50 + 2 × 10.00; beta: 30.00 for two million. 3 of 4 million are delivered at 8.00.
    assert_eq!(report["without_hedge"], "75.00");
    let of = |team: &str| {
        let rows = report["rows"].as_array().unwrap();
        let row = rows.iter().find(|row| row["team"] == team).unwrap();
        [&row["cost"]["spot"], &row["hedge"]["displaced"], &row["hedge"]["contract"], &row["cost"]["hedged"]]
            .map(|text| text.as_str().unwrap().to_owned())
    };
    assert_eq!(of("alpha"), ["45.00", "15.00", "12.00", "42.00"]);
    assert_eq!(of("beta"), ["30.00", "22.50", "12.00", "19.50"]);
    assert_eq!(report["book_total"], "61.50");
}

#[test]
fn a_cost_that_is_not_known_by_class_stays_whole_and_is_listed() {
    let usage = "id,started_at,team,provider,model,usage.input_tokens,usage.output_tokens,cost.billed\n\
                 u1,2026-09-03T00:00:00Z,alpha,openai,gpt-4o,10000000,2000000,40.00\n";
    let dir = book(&[position("out", "forward_physical", &[])], usage);
    let report = json(dir.path(), &[&["hedge", "report"], &IN_MTOK[..]].concat());
    assert_eq!(report["complete"], false);
    let gaps = report["unpriced"].to_string();
    assert!(gaps.contains("whose cost is not known by token class"), "{gaps}");
    assert_eq!(by_position(&report, "out")["covers_nothing"], true);
    assert_eq!(report["book_total"], "48.00", "the spot cost, and eight for what was not taken");
    let swap = [("quantity", "5".into()), ("fixed_price", "2".into()), ("index_id", "TPI".into())];
    let dir = book(&[position("out", "swap_fixed_float", &swap)], usage);
    let report = json(dir.path(), &[&["hedge", "report"], &IN_MTOK[..]].concat());
    assert_eq!(report["complete"], true, "a swap delivers nothing: it asks for volumes alone");
    assert_eq!(by_position(&report, "out")["covered"], "2");
}

// === draw-down

#[test]
fn what_is_left_of_a_balance_is_told_by_command_api_and_metric() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(dir.path());
    let ask = |args: &[&str]| run(dir.path(), &[args, &["--admin", sidecar.admin.as_str()]].concat());
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let day = |back: i64| now.checked_sub(jiff::Span::new().days(back)).unwrap().to_string();
    let usage = format!(
        "id,started_at,team,provider,model,usage.input_tokens,cost.billed\n\
         u1,{0}T00:00:00Z,a,openai,m,1000000,10.00\nu2,{1}T00:00:00Z,b,openai,m,1000000,20.00\n",
        day(9),
        day(1)
    );
    let credit = serde_json::json!({
        "position_id": "credit", "kind": "prepaid_credit", "quantity": "90.00", "unit": "USD", "price_currency": "USD",
        "trade_date": day(9), "effective_from": day(9), "effective_until": day(-200), "designation": {}
    });
    for (what, text) in [("usage", usage), ("contracts", credit.to_string())] {
        std::fs::write(dir.path().join("rows"), text).unwrap();
        stdout(&ask(&["import", what, "rows"]));
    }
    let shown = ask(&["contract", "show", "credit", "--on", &day(0), "--format", "json"]);
    let shown: Value = serde_json::from_str(&stdout(&shown)).unwrap();
    let left = &shown["remaining"];
    // 30 of 90 in ten days: three a day, and twenty days more.
    for (name, value) in
        [("unit", "USD"), ("committed", "90"), ("used", "30"), ("left", "60"), ("per_day", "3")]
    {
        assert_eq!(left[name], value, "{left}");
    }
    assert_eq!((&left["days"], &left["runs_out"]), (&10.into(), &day(-20).into()), "{left}");
    let page = metrics(&sidecar.admin);
    for line in [
        "bursar_contract_committed{position=\"credit\",unit=\"USD\"} 90",
        "bursar_contract_left{position=\"credit\",unit=\"USD\"} 60",
        "bursar_contract_used_per_day{position=\"credit\",unit=\"USD\"} 3",
        "# TYPE bursar_contract_runs_out_timestamp_seconds gauge",
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
    assert!(page.trim_end().ends_with("# EOF"));
}

#[test]
fn a_balance_that_is_gone_is_exhausted() {
    let credit = [
        ("quantity", "20.00".into()),
        ("unit", "USD".into()),
        ("fixed_price", Value::Null),
        ("effective_until", "2027-09-01".into()),
        ("designation", serde_json::json!({})),
    ];
    let dir = book(&[position("credit", "prepaid_credit", &credit)], CLASSES);
    let shown = json(dir.path(), &["contract", "show", "credit", "--on", "2026-09-30"]);
    assert_eq!((&shown["status"], &shown["remaining"]["left"]), (&"Exhausted".into(), &"0".into()));
    let early = json(dir.path(), &["contract", "show", "credit", "--on", "2026-09-02"]);
    assert_eq!((&early["status"], &early["remaining"]["left"]), (&"Active".into(), &"20".into()));
}

// === bad input

#[test]
fn a_holiday_an_ended_index_and_negative_usage_are_refused_by_line() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let holidays = r#"{"calendar":"CN","holidays":["2026-10-01"]}"#;
    stdout(&import(dir.path(), "calendars", holidays));
    let indices = "{\"index\":\"CNX\",\"currency\":\"CNY\",\"calendar\":\"CN\",\"last\":\"2026-10-09\"}";
    stdout(&import(dir.path(), "indices", indices));
    let fixings =
        "index,date,value,currency\nCNX,2026-10-01,14,CNY\nCNX,2026-10-12,14,CNY\nCNX,2026-10-02,14,CNH\n";
    let refused = import(dir.path(), "fixings", fixings);
    assert_eq!(refused.status.code(), Some(3));
    let errors = stderr(&refused);
    for text in [
        "line 2: CNX v1 is not fixed on 2026-10-01: it is no business day of calendar CN",
        "line 3: CNX v1 ended on 2026-10-09",
        "line 4: CNX v1 is in CNY, the fixing is in CNH; CNY and CNH are two currencies",
        "3 bad rows of 3; nothing was imported",
    ] {
        assert!(errors.contains(text), "{text} in {errors}");
    }
    let usage = "id,started_at,provider,usage.input_tokens,cost.billed\nu1,2026-09-01T00:00:00Z,openai,-5,\n\
                 u2,2026-09-01T00:00:00Z,openai,5,-1\n";
    let refused = import(dir.path(), "usage", usage);
    assert_eq!(refused.status.code(), Some(3));
    let errors = stderr(&refused);
    assert!(
        errors.contains("line 2: input_tokens: \"-5\" is not a whole number of zero or more"),
        "{errors}"
    );
    assert!(errors.contains("line 3: cost.billed: \"-1\" is negative"), "{errors}");
}

#[test]
fn a_balance_in_another_currency_is_drawn_in_its_own() {
    let credit = [
        ("quantity", "700.00".into()),
        ("unit", "CNY".into()),
        ("price_currency", "CNY".into()),
        ("fixed_price", Value::Null),
        ("trade_date", "2026-08-01".into()),
        ("effective_from", "2026-08-01".into()),
        ("effective_until", "2026-12-01".into()),
        ("designation", serde_json::json!({})),
    ];
    let usage = "id,started_at,team,provider,model,usage.input_tokens,cost.billed\n\
                 u1,2026-08-31T00:00:00Z,a,openai,m,1000000,50.00\nu2,2026-09-30T00:00:00Z,a,openai,m,1000000,60.00\n";
    let dir = book(&[position("yuan", "prepaid_credit", &credit)], usage);
    let rates = "pair,date,rate,source\nUSD/CNY,2026-08-31,7.00,pboc\nUSD/CNY,2026-09-30,7.20,pboc\n";
    stdout(&import(dir.path(), "fx", rates));
    let ask = ["hedge", "report", "--from", "2026-08-01", "--to", "2026-10-01", "--on", "2026-09-30"];
    let report = json(dir.path(), &ask);
    assert_eq!(report["complete"], true, "{}", report["unpriced"]);
    // August takes 350 yuan at 7.00; the other 350 are 48.61 dollars at 7.20, whatever August's were worth.
    assert_eq!(by_position(&report, "yuan")["used"], "98.61");
    assert_eq!(report["book_total"], "110.00");
    let shown = json(dir.path(), &["contract", "show", "yuan", "--on", "2026-08-31"]);
    let left = &shown["remaining"];
    assert_eq!((&left["unit"], &left["used"], &left["left"]), (&"CNY".into(), &"350".into(), &"350".into()));
    let shown = json(dir.path(), &["contract", "show", "yuan", "--on", "2026-09-30"]);
    assert_eq!((&shown["status"], &shown["remaining"]["left"]), (&"Exhausted".into(), &"0".into()));
}

// === published examples

/// One book in four business days of September 2026, each with a fixing of `index`.
struct Example {
    fixings: [&'static str; 4],
    /// Million tokens and their spot cost.
    usage: &'static [(u64, &'static str)],
    kind: &'static str,
    change: &'static str,
    /// Figures of the position, and the residual's and the book's cost.
    position: &'static [(&'static str, &'static str)],
    residual: &'static str,
    book: &'static str,
}

#[track_caller]
fn check_example(example: &Example) {
    let mut usage = "id,started_at,team,provider,model,usage.input_tokens,cost.billed\n".to_owned();
    for (number, (mtok, cost)) in example.usage.iter().enumerate() {
        usage += &format!("u{number},2026-09-0{}T12:00:00Z,a,openai,m,{mtok}000000,{cost}\n", number + 7);
    }
    let mut change: serde_json::Map<String, Value> = serde_json::from_str(example.change).unwrap();
    for (name, value) in [
        ("fixed_price", Value::Null),
        ("effective_from", "2026-09-07".into()),
        ("effective_until", "2026-09-11".into()),
        ("designation", serde_json::json!({})),
    ] {
        change.entry(name).or_insert(value);
    }
    let change: Vec<(&str, Value)> =
        change.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let dir = book(&[position("p", example.kind, &change)], &usage);
    let mut fixings = "index,date,value,currency\n".to_owned();
    for (day, value) in (7..).zip(example.fixings) {
        fixings += &format!("X,2026-09-{day:02},{value},USD\n");
    }
    stdout(&import(dir.path(), "fixings", &fixings));
    let report = json(dir.path(), &[&["hedge", "report"], &IN_MTOK[..]].concat());
    assert_eq!(report["complete"], true, "{}", report["unpriced"]);
    assert_eq!(report["balance"]["balanced"], true);
    for (name, value) in example.position {
        assert_eq!(by_position(&report, "p")[*name], *value, "{name} of {}", example.kind);
    }
    let figures = [&report["residual"]["cost"]["hedged"], &report["book_total"]];
    assert_eq!(figures, [example.residual, example.book], "residual and book of {}", example.kind);
}

const SWAP_40: &str = r#"{"quantity":"40000","fixed_price":"2.10","index_id":"X"}"#;

#[test]
fn swaps_fix_the_price_whichever_way_it_goes() {
    check_example(&Example {
        fixings: ["2.18", "2.24", "2.31", "2.27"],
        usage: &[(40_000, "90000")],
        kind: "swap_fixed_float",
        change: SWAP_40,
        position: &[("payoff", "6000.00"), ("over_hedge", "0.00")],
        residual: "0.00",
        book: "84000.00",
    });
    check_example(&Example {
        fixings: ["1.98", "1.92", "1.87", "1.85"],
        usage: &[(40_000, "76200")],
        kind: "swap_fixed_float",
        change: SWAP_40,
        position: &[("payoff", "-7800.00")],
        residual: "0.00",
        book: "84000.00",
    });
    check_example(&Example {
        fixings: ["2.35"; 4],
        usage: &[(42_000, "98700")],
        kind: "swap_fixed_float",
        change: r#"{"quantity":"50000","fixed_price":"2.10","index_id":"X"}"#,
        position: &[
            ("payoff", "12500.00"),
            ("effective_payoff", "10500.00"),
            ("over_hedge", "2000.00"),
            ("over", "8000"),
        ],
        residual: "-2000.00",
        book: "86200.00",
    });
    check_example(&Example {
        fixings: ["2.35"; 4],
        usage: &[(20_000, "48000"), (22_000, "52800")],
        kind: "swap_fixed_float",
        change: r#"{"quantity":"30000","fixed_price":"2.10","index_id":"X"}"#,
        position: &[("payoff", "7500.00"), ("covered", "30000")],
        residual: "0.00",
        book: "93300.00",
    });
}

#[test]
fn options_bound_the_price_and_event_contracts_cover_nothing() {
    let collar = r#"{"quantity":"30000","strikes":{"cap":"2.20","floor":"1.80"},"index_id":"X"}"#;
    for (price, spot, payoff, book) in [
        ("2.75", "82500", "16500.00", "66000.00"),
        ("2.00", "60000", "0.00", "60000.00"),
        ("1.50", "45000", "-9000.00", "54000.00"),
    ] {
        let usage = [(30_000, spot)];
        check_example(&Example {
            fixings: [price; 4],
            usage: Box::leak(Box::new(usage)),
            kind: "collar",
            change: collar,
            position: Box::leak(Box::new([("payoff", payoff)])),
            residual: "0.00",
            book,
        });
    }
    check_example(&Example {
        fixings: ["2.75", "2.75", "2.75", "2.76"],
        usage: &[(30_000, "82500")],
        kind: "binary",
        change: r#"{"quantity":"20000","strikes":{"cap":"2.75"},"index_id":"X","premium":{"amount":"7000.00","pay_date":"2026-09-07"}}"#,
        position: &[
            ("payoff", "20000.00"),
            ("effective_payoff", "0.00"),
            ("covered", "0"),
            ("premium", "7000.00"),
        ],
        residual: "-13000.00",
        book: "69500.00",
    });
}

#[test]
fn deliveries_replace_spot_and_what_is_not_taken_is_lost() {
    let forward = r#"{"quantity":"10000","fixed_price":"1.20"}"#;
    check_example(&Example {
        fixings: ["1"; 4],
        usage: &[(8_700, "13485")],
        kind: "forward_physical",
        change: forward,
        position: &[("used", "10440.00"), ("unused", "1560.00"), ("displaced", "13485.00")],
        residual: "1560.00",
        book: "12000.00",
    });
    check_example(&Example {
        fixings: ["1"; 4],
        usage: &[(12_500, "19375")],
        kind: "forward_physical",
        change: forward,
        position: &[("used", "12000.00"), ("unused", "0.00"), ("displaced", "15500.00")],
        residual: "0.00",
        book: "15875.00",
    });
    check_example(&Example {
        fixings: ["1"; 4],
        usage: &[(150, "1500"), (300, "1800")],
        kind: "voucher",
        change: r#"{"quantity":"600","fixed_price":"8.00","commitment":{"fulfilment_interval":"term","expiry":"2026-09-10"}}"#,
        position: &[("used", "3600.00"), ("unused", "1200.00"), ("displaced", "3300.00")],
        residual: "1200.00",
        book: "4800.00",
    });
    check_example(&Example {
        fixings: ["1"; 4],
        usage: &[(4_200, "10000")],
        kind: "commit_usage",
        change: r#"{"quantity":"5000","fixed_price":"2.10"}"#,
        position: &[("used", "8820.00"), ("unused", "1680.00")],
        residual: "1680.00",
        book: "10500.00",
    });
    check_example(&Example {
        fixings: ["1"; 4],
        usage: &[(5, "25"), (2, "37.5")],
        kind: "prepaid_credit",
        change: r#"{"quantity":"500000","unit":"USD","effective_until":"2027-09-07","commitment":{"fulfilment_interval":"term","benefit_percent":"20"}}"#,
        position: &[("used", "50.00"), ("unused", "0.00"), ("displaced", "62.50")],
        residual: "0.00",
        book: "50.00",
    });
}

#[test]
fn of_two_balances_the_one_that_lapses_first_is_drawn_first_and_its_rest_is_lost() {
    let lot = |id: &str, amount: &str, until: &str| {
        let change = [
            ("quantity", amount.into()),
            ("unit", "USD".into()),
            ("fixed_price", Value::Null),
            ("trade_date", "2026-01-01".into()),
            ("effective_from", "2026-01-01".into()),
            ("effective_until", until.into()),
            ("designation", serde_json::json!({})),
        ];
        position(id, "prepaid_credit", &change)
    };
    let usage = "id,started_at,team,provider,model,usage.input_tokens,cost.billed\n\
                 u1,2026-02-01T00:00:00Z,a,openai,m,1000,400.00\nu2,2026-03-15T00:00:00Z,a,openai,m,1000,350.00\n\
                 u3,2026-05-01T00:00:00Z,a,openai,m,1000,900.00\n";
    let lots = [lot("a-late", "1500.00", "2027-01-01"), lot("z-early", "1000.00", "2026-04-01")];
    let dir = book(&lots, usage);
    let report = json(
        dir.path(),
        &["hedge", "report", "--from", "2026-01-01", "--to", "2026-06-01", "--on", "2026-06-01"],
    );
    let of = |id: &str| {
        let row = by_position(&report, id);
        (row["used"].as_str().unwrap().to_owned(), row["unused"].as_str().unwrap().to_owned())
    };
    assert_eq!(of("z-early"), ("750.00".to_owned(), "250.00".to_owned()));
    assert_eq!(of("a-late"), ("900.00".to_owned(), "0.00".to_owned()));
    assert_eq!(
        (&report["residual"]["cost"]["hedged"], &report["book_total"]),
        (&"250.00".into(), &"1900.00".into())
    );
    let left = json(dir.path(), &["contract", "show", "a-late", "--on", "2026-06-01"]);
    assert_eq!(left["remaining"]["left"], "600");
}

#[test]
fn usage_before_and_after_the_days_of_a_position_is_not_its_own() {
    let usage = "id,started_at,team,provider,model,usage.input_tokens,cost.billed\n\
                 u1,2026-09-03T00:00:00Z,a,openai,m,1000000,10.00\nu2,2026-09-15T00:00:00Z,b,openai,m,1000000,20.00\n\
                 u3,2026-09-28T00:00:00Z,c,openai,m,1000000,40.00\n";
    let days = [
        ("quantity", "5".into()),
        ("effective_from", "2026-09-14".into()),
        ("effective_until", "2026-09-21".into()),
        ("designation", serde_json::json!({})),
    ];
    let dir = book(&[position("days", "forward_physical", &days)], usage);
    let report = json(dir.path(), &[&["hedge", "report"], &IN_MTOK[..]].concat());
    assert_eq!(by_position(&report, "days")["covered"], "1");
    assert_eq!(by_position(&report, "days")["displaced"], "20.00", "what b used while it ran");
    assert_eq!(report["book_total"], "90.00", "70 − 20 + 5 × 8");
    let credit = [
        ("quantity", "100".into()),
        ("unit", "USD".into()),
        ("fixed_price", Value::Null),
        ("effective_from", "2026-09-14".into()),
        ("commitment", serde_json::json!({"fulfilment_interval": "term", "expiry": "2026-09-27"})),
        ("designation", serde_json::json!({})),
    ];
    let dir = book(&[position("credit", "prepaid_credit", &credit)], usage);
    let report = json(dir.path(), &[&["hedge", "report"], &IN_MTOK[..]].concat());
    let credit = by_position(&report, "credit");
    assert_eq!((&credit["used"], &credit["unused"]), (&"20.00".into(), &"80.00".into()));
}

#[test]
fn limits_count_a_contract_over_its_kinds_and_a_bilateral_one_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    a_year(dir.path());
    let position = |id: &str, more: serde_json::Value| {
        let mut fields = serde_json::json!({
            "position_id": id, "kind": "future", "quantity": "60", "unit": "Mtok", "fixed_price": "2.2",
            "index_id": "TPI", "trade_date": "2024-12-01", "effective_from": "2025-07-01",
            "effective_until": "2025-08-01", "fallback": "last_published",
        });
        for (name, value) in more.as_object().unwrap() {
            fields[name] = value.clone();
        }
        fields.to_string()
    };
    let listed = |kind: &str, limit: &str| serde_json::json!({"venue": "CMX", "symbol": "TPF", "kind": kind, "limits": {"spot": limit}});
    let mut option = listed("floor", "500");
    option["strikes"] = serde_json::json!({"floor": "2.0"});
    option["fixed_price"] = Value::Null;
    option["quantity"] = "20".into();
    let rows = [
        position("future-a", listed("future", "200")),
        position("future-b", listed("future", "110")),
        position("put", option),
        position("swap-a", serde_json::json!({"kind": "swap_fixed_float", "limits": {"spot": "61"}})),
        position("swap-b", serde_json::json!({"kind": "swap_fixed_float"})),
    ];
    stdout(&import(dir.path(), "contracts", &rows.join("\n")));
    let risk = json(
        dir.path(),
        &["hedge", "risk", "--from", "2025-06-01", "--to", "2025-07-01", "--on", "2025-06-30"],
    );
    let found = |position: &str| {
        let rows = risk["limits"].as_array().unwrap();
        let names = |row: &&Value| row["positions"].as_array().unwrap().iter().any(|name| name == position);
        rows.iter().find(names).unwrap_or_else(|| panic!("no {position} in {rows:?}"))
    };
    let exchange = found("put");
    assert_eq!(exchange["positions"], serde_json::json!(["future-a", "future-b", "put"]));
    // Sixty twice, less twenty that gain when the price falls; the lower limit holds.
    assert_eq!(
        (&exchange["lots"], &exchange["at"], &exchange["status"]),
        (&"100".into(), &"110".into(), &"warn".into())
    );
    let alone = found("swap-a");
    assert_eq!((&alone["positions"], &alone["lots"]), (&serde_json::json!(["swap-a"]), &"60".into()));
    assert!(
        risk["limits"]
            .as_array()
            .unwrap()
            .iter()
            .all(|row| row["positions"] != serde_json::json!(["swap-b"]))
    );
}
