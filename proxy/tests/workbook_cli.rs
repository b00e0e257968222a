//! The workbook and the page as finance opens them: a sheet for each question, with a provider's
//! reconciliation beside the figures; every list as an export.
//!
//! Invariants
//! - Every test has a directory of its own; a sidecar that it starts ends with it.
//!
//! Not here: names that would do something (`exports_cli`), spreadsheets that others wrote (`.ci/exports.py`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is a failed test"
)]

mod sidecar;
mod workbook;

use serde_json::Value;
use sidecar::Sidecar;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use workbook::{Cell, Sheet, sheets};

/// `bursar` with these arguments on the ledger `data` in `dir`.
fn run(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
    command.args(args).current_dir(dir).env_clear();
    if !args.contains(&"--admin") {
        command.args(["--data-dir", "data"]);
    }
    command.stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn guide(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide").join(name)
}

fn file(name: &str) -> String {
    guide(name).display().to_string()
}

const MARCH: [&str; 6] = ["--from", "2026-03-01", "--to", "2026-04-01", "--on", "2026-03-31"];

/// The ledger of the guide on reconciliation, and its reconciliation in `reconciliation.json`.
fn reconciled(dir: &Path) -> Value {
    std::fs::create_dir_all(dir.join("data")).unwrap();
    stdout(&run(dir, &["import", "usage", &file("reconcile/usage.csv"), "--from-format", "bursar"]));
    let statements = [&*file("reconcile/openai-usage.json"), &file("reconcile/openai-costs.json")];
    let args = [&["reconcile"], &statements[..], &["--provider", "openai", "--format", "json"]].concat();
    let said = stdout(&run(dir, &args));
    std::fs::write(dir.join("reconciliation.json"), &said).unwrap();
    serde_json::from_str(&said).unwrap()
}

fn opened(dir: &Path, name: &str) -> Vec<(String, Sheet)> {
    sheets(&std::fs::read(dir.join(name)).unwrap())
}

fn sheet<'a>(book: &'a [(String, Sheet)], name: &str) -> &'a Sheet {
    let names: Vec<&String> = book.iter().map(|(name, _)| name).collect();
    &book
        .iter()
        .find(|(found, _)| found == name)
        .unwrap_or_else(|| panic!("no sheet {name} among {names:?}"))
        .1
}

fn number(value: &Value) -> Option<f64> {
    value.as_str().map(|text| text.parse().unwrap()).or_else(|| value.as_f64())
}

// === reconciliation

const MONEY: [&str; 8] =
    ["gap", "unpriced", "estimated", "aborted", "outside", "price", "rounding", "unexplained"];

#[test]
fn the_reconciliation_sheet_has_the_figures_of_the_reconciliation_and_their_sums() {
    let dir = tempfile::tempdir().unwrap();
    let found = reconciled(dir.path());
    let args = [&["roi", "--xlsx", "f.xlsx", "--reconciliation", "reconciliation.json"], &MARCH[..]].concat();
    stdout(&run(dir.path(), &args));
    let book = opened(dir.path(), "f.xlsx");
    let names: Vec<&str> = book.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "Summary",
            "By team",
            "By workload",
            "Trend",
            "Movers",
            "Revenue",
            "Reconciliation",
            "Method and coverage"
        ]
    );
    let sheet_of = sheet(&book, "Reconciliation");
    assert!(sheet_of.frozen, "its header stays");
    let rows = found["rows"].as_array().unwrap();
    let paths: Vec<String> = MONEY.iter().map(|part| format!("money.{part}")).collect();
    let mut titles: Vec<&str> = vec![
        "theirs.cost",
        "ours.billed",
        "theirs.tokens",
        "ours.tokens",
        "tokens.gap",
        "tokens.outside",
        "tokens.unexplained",
        "theirs.requests",
        "ours.requests",
    ];
    titles.extend(paths.iter().map(String::as_str));
    for title in titles {
        let path = format!("/{}", title.replace('.', "/"));
        let mut sum = 0.0;
        for (row, line) in (2..).zip(rows) {
            let here = sheet_of.number(row, title);
            assert_eq!(here, line.pointer(&path).and_then(number), "{title} of row {row}");
            sum += here.unwrap_or(0.0);
        }
        let total = 2 + u32::try_from(rows.len()).unwrap();
        let shown = sheet_of.number(total, title);
        assert_eq!(shown, found["total"].pointer(&path).and_then(number), "{title} of the total");
        assert!((shown.unwrap() - sum).abs() < 1e-9, "{title}: {shown:?} is the sum {sum}");
        assert_eq!(sheet_of.cell(total, "day"), Some(&Cell::Words("(total)".to_owned())));
    }
    assert_eq!(
        sheet_of.row(2)[..6],
        ["openai", "2026-03-02", "2026-03-04", "USD", "2026-03-02", "gpt-4o-mini-2024-07-18"]
    );
    let words = sheet_of.words();
    for text in [
        "0 USD, 0 tokens: within the tolerance of 1%",
        "openai-costs.json: 2 rows, read as openai-costs: OpenAI API 2.3, GET /v1/organization/costs (JSON pages)",
        "its days are 2026-03-02 to 2026-03-04 (UTC), the report's are 2026-03-01 to 2026-04-01 (UTC)",
        "reconciliation.json",
    ] {
        assert!(words.contains(&text), "{text} in {words:?}");
    }
    let said = "openai, 2026-03-02 to 2026-03-04 (UTC): 2.13 (theirs) − 1.396 (ours) = 0.734 USD, of which 0 unexplained, within the tolerance of 1%";
    for name in ["Summary", "Method and coverage"] {
        let words = sheet(&book, name).words();
        assert!(words.iter().any(|words| words.starts_with(said)), "{name}: {words:?}");
    }
}

#[test]
fn without_a_reconciliation_the_sheet_the_summary_and_the_page_say_that_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    reconciled(dir.path());
    stdout(&run(dir.path(), &[&["roi", "--xlsx", "f.xlsx"], &MARCH[..]].concat()));
    let book = opened(dir.path(), "f.xlsx");
    let none = "No reconciliation was given: the figures are what was metered and priced by the sidecar, and were not \
                compared with any provider's statement.";
    for name in ["Reconciliation", "Summary", "Method and coverage"] {
        assert!(sheet(&book, name).words().contains(&none), "{name}");
    }
    assert!(sheet(&book, "Reconciliation").row(3)[0].starts_with("bursar reconcile FILE --provider NAME"));
    stdout(&run(dir.path(), &[&["roi", "--html", "f.html"], &MARCH[..]].concat()));
    let page = std::fs::read_to_string(dir.path().join("f.html")).unwrap();
    assert!(
        page.contains("<h2>Reconciliation</h2>") && page.contains("No reconciliation was given"),
        "{page}"
    );
}

#[test]
fn a_reconciliation_is_in_the_page_in_the_document_and_below_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let found = reconciled(dir.path());
    let with = |more: &[&str]| {
        run(dir.path(), &[&["roi", "--reconciliation", "reconciliation.json"], more, &MARCH[..]].concat())
    };
    stdout(&with(&["--html", "f.html"]));
    let page = std::fs::read_to_string(dir.path().join("f.html")).unwrap();
    for text in ["2.13 (theirs) − 1.396 (ours) = 0.734 USD", "<td>0.1127</td>", "<td>0.734</td>"] {
        assert!(page.contains(text), "{text} in {page}");
    }
    let document: Value = serde_json::from_str(&stdout(&with(&["--format", "json"]))).unwrap();
    let beside = &document["reconciliation"][0];
    assert_eq!((&beside["total"], &beside["rows"]), (&found["total"], &found["rows"]));
    assert_eq!(beside["sha256"].as_str().unwrap().len(), 64);
    assert!(stdout(&with(&[])).contains("\nreconciliation: openai, 2026-03-02 to 2026-03-04"));
    let refused = with(&["--format", "csv"]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
}

#[test]
fn a_reconciliation_that_was_changed_is_refused_and_no_workbook_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let found = reconciled(dir.path()).to_string();
    for (text, said) in [
        (found.replace("\"0.734\"", "\"0.1\""), "the total: the parts do not sum to the gap, in money"),
        (found.replace("\"1.396\"", "\"1.4\""), "the total: the rows do not sum to it, in money"),
        ("{\"rows\":[]}".to_owned(), "is no answer of `bursar reconcile --format json`: provider"),
        (String::new(), "is no JSON"),
    ] {
        std::fs::write(dir.path().join("changed.json"), text).unwrap();
        for args in [["roi", "--xlsx", "f.xlsx"], ["roi", "--html", "f.html"]] {
            let refused =
                run(dir.path(), &[&args[..], &["--reconciliation", "changed.json"], &MARCH[..]].concat());
            assert_eq!(refused.status.code(), Some(3));
            assert!(stderr(&refused).contains(said), "{said} in {}", stderr(&refused));
        }
    }
    assert!(!dir.path().join("f.xlsx").exists() && !dir.path().join("f.html").exists());
}

/// Status and document of the reply to a POST.
fn post(admin: &str, path: &str, body: &str) -> (u16, Value) {
    let authority = admin.trim_start_matches("http://");
    let mut socket = std::net::TcpStream::connect(authority).unwrap();
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    socket.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    socket.read_to_string(&mut reply).unwrap();
    let status = reply.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(reply.split_once("\r\n\r\n").unwrap().1).unwrap_or(Value::Null))
}

#[test]
fn the_admin_api_reconciles_what_is_posted_as_the_command_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = reconciled(dir.path());
    let sidecar = Sidecar::start(dir.path());
    let files: Vec<Value> = ["openai-usage.json", "openai-costs.json"]
        .iter()
        .map(|name| {
            let text = std::fs::read_to_string(guide("reconcile").join(name)).unwrap();
            serde_json::json!({ "name": name, "text": text })
        })
        .collect();
    let body = |files: &[Value]| serde_json::json!({ "files": files }).to_string();
    let ask = |query: &str, body: &str| post(&sidecar.admin, &format!("/api/v1/reconcile{query}"), body);
    let (status, mut found) = ask("?provider=openai", &body(&files));
    assert_eq!(status, 200, "{found}");
    for document in [&mut expected, &mut found] {
        document.as_object_mut().unwrap().remove("as_of").unwrap();
    }
    assert_eq!(found, expected);
    // What stays unexplained is an answer, not an error.
    let (status, beyond) = ask("?provider=openai&tolerance=0.0001%25&by=day", &body(&files[1..]));
    assert_eq!((status, &beyond["within_tolerance"]), (200, &false.into()), "{beyond}");
    let twice = [files[1].clone(), serde_json::json!({ "name": "b", "text": files[1]["text"] })];
    for (query, body, code, said) in [
        ("?provider=openai", body(&twice), 422, "b is the same file as openai-costs.json"),
        ("?provider=anthropic", body(&files), 422, "openai-usage.json: is openai-usage, which is not of"),
        (
            "?provider=openai",
            body(&[serde_json::json!({ "name": "x", "text": "a,b\n1,2\n" })]),
            422,
            "x: is no file of a known kind",
        ),
        ("?provider=openai", "{}".to_owned(), 400, "the body is none such as"),
        ("?provider=openai", body(&[]), 400, "files is empty"),
        ("?provider=nobody", body(&files), 400, "provider \"nobody\" is unknown: use openai, anthropic"),
        ("", body(&files), 400, "parameter \"provider\" is missing: Whose statements"),
        ("?provider=openai&by=moon", body(&files), 400, "by: \"moon\" is not taken: write"),
        ("?provider=openai&from=May", body(&files), 400, "from: \"May\" is not taken: write"),
        ("?provider=openai&colour=red", body(&files), 400, "the parameter \"colour\" is unknown here"),
    ] {
        let (status, refused) = ask(query, &body);
        let detail = refused["detail"].as_str().unwrap_or_default();
        assert!(status == code && detail.contains(said), "{query}: {status} {detail}");
    }
}

// === every figure in every form

/// The example of the guides: usage, contracts and revenue of a September.
fn september(dir: &Path) {
    std::fs::create_dir_all(dir.join("data")).unwrap();
    for (what, name) in [
        ("usage", "hedging/usage.csv"),
        ("profiles", "hedging/profiles.jsonl"),
        ("fixings", "hedging/fixings.csv"),
        ("contracts", "hedging/contracts.json"),
        ("fx", "roi/fx.csv"),
        ("revenue", "roi/revenue.csv"),
    ] {
        stdout(&run(dir, &["import", what, &file(name)]));
    }
}

const SEPTEMBER: [&str; 8] =
    ["--from", "2026-09-01", "--to", "2026-10-01", "--on", "2026-10-01", "--unit", "MSIT"];

/// Digits as a page and a table show them: in groups, ratios with so many decimals.
fn shown(document: &Value, path: &str, places: Option<usize>) -> String {
    let text = document.pointer(path).unwrap().as_str().unwrap().to_owned();
    let text = places.map_or(text.clone(), |places| format!("{:.places$}", text.parse::<f64>().unwrap()));
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() { format!("{sign}{grouped}") } else { format!("{sign}{grouped}.{fraction}") }
}

#[test]
fn each_figure_of_return_is_in_the_document_the_table_the_workbook_and_the_page() {
    let dir = tempfile::tempdir().unwrap();
    september(dir.path());
    let with =
        |more: &[&str]| stdout(&run(dir.path(), &[&["roi", "--compare"], more, &SEPTEMBER[..]].concat()));
    let document: Value = serde_json::from_str(&with(&["--movers", "--format", "json"])).unwrap();
    let table = with(&["--movers"]);
    with(&["--xlsx", "f.xlsx"]);
    with(&["--html", "f.html"]);
    let page = std::fs::read_to_string(dir.path().join("f.html")).unwrap();
    let book = opened(dir.path(), "f.xlsx");
    let summary = sheet(&book, "Summary");
    assert!(summary.charts && summary.frozen);
    for (title, path, places) in [
        ("Billed cost", "/book/cost/billed", None),
        ("Effective cost", "/book/cost/effective", None),
        ("Hedged cost", "/book/cost/hedged", None),
        ("Net", "/book/net", None),
        ("ROI", "/book/roi", Some(4)),
        ("ROI with savings", "/book/roi_with_savings", Some(4)),
        ("ROI unhedged", "/book/roi_unhedged", Some(4)),
        ("Gross margin", "/book/gross_margin", Some(4)),
        ("Net per million tokens", "/book/net_per_million_tokens", Some(4)),
        ("Net per thousand tokens", "/book/net_per_thousand_tokens", Some(7)),
        ("Cost per million tokens", "/book/cost_per_million_tokens", Some(4)),
        ("Cost per success", "/book/cost_per_success", Some(4)),
        ("Coverage: revenue attributed", "/coverage/attributed_revenue", Some(4)),
        ("Coverage: cost tagged", "/coverage/tagged_cost", Some(4)),
        ("Coverage: tokens measured", "/coverage/measured_tokens", Some(4)),
        ("Coverage: requests unpriced", "/coverage/unpriced_requests", Some(4)),
        ("Coverage: volume hedged", "/coverage/hedged_volume", Some(4)),
    ] {
        let figure = shown(&document, path, places);
        assert!(table.contains(&figure), "{title} {figure} in {table}");
        assert!(page.contains(&figure), "{title} {figure} in {page}");
        let row = (1..=summary.len())
            .map(|row| summary.row(row))
            .find(|row| row.first().is_some_and(|cell| cell == title));
        let here: f64 = row.unwrap_or_else(|| panic!("{title} in the summary"))[1].parse().unwrap();
        assert_eq!(Some(here), document.pointer(path).and_then(number), "{title}");
    }
    // The bridge, step by step, and the months.
    for step in document["bridge"].as_array().unwrap().iter().skip(2) {
        let words = format!("{} {}", step["step"].as_str().unwrap(), shown(step, "/amount", None));
        assert!(table.contains(&words) && page.contains(&words), "{words}");
        assert!(
            (1..=summary.len())
                .any(|row| summary.row(row).first() == step["step"].as_str().map(str::to_owned).as_ref())
        );
    }
    let trend = sheet(&book, "Trend");
    for (title, path) in [
        ("hedged", "/trend/0/hedged"),
        ("roi", "/trend/0/roi"),
        ("net_per_million_tokens", "/trend/0/net_per_million_tokens"),
    ] {
        assert_eq!(trend.number(2, title), document.pointer(path).and_then(number));
    }
    assert!(page.contains("<td class=\"name\">2026-09</td>"));
    // What moved, and the other models.
    assert!(table.contains("moved most against 2026-08-02 to 2026-09-01"), "{table}");
    assert!(page.contains("<h2>Moved most against 2026-08-02 to 2026-09-01</h2>"));
    let moved = sheet(&book, "Movers");
    assert_eq!(moved.number(2, "net_change"), document.pointer("/movers/rows/0/net_change").and_then(number));
    let models = sheet(&book, "Models");
    for (number_of, model) in document["compare"].as_array().unwrap().iter().enumerate() {
        let name = model["model"].as_str().unwrap();
        assert!(
            table.contains(&format!("model {name} (")) && page.contains(&format!("<h2>Model {name} (")),
            "{name}"
        );
        // Three teams and what is nobody's, for each model.
        let row = 2 + 4 * u32::try_from(number_of).unwrap();
        assert_eq!(models.cell(row, "model of credit"), Some(&Cell::Words(name.to_owned())));
        let expected = model.pointer("/rows/0/revenue").and_then(number);
        assert_eq!(models.number(row, "revenue"), expected, "{name}");
    }
    // No table of figures without the coverage under it.
    for name in ["By team", "By workload", "Trend"] {
        let words = sheet(&book, name).words();
        assert!(
            words.iter().any(|text| text.starts_with("coverage: revenue attributed 0.9958")),
            "{name}: {words:?}"
        );
    }
    assert!(sheet(&book, "Contracts").frozen && sheet(&book, "By team").frozen);
}

// === revenue events as an export

#[test]
fn every_event_is_exported_also_beyond_what_a_list_shows() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("data")).unwrap();
    let mut events = String::from("id,kind,amount,currency,time,session,evidence\n");
    for number in 0..10_003 {
        events += &format!("e{number},,{number}.25,USD,2026-09-05T10:00:00.000001Z,s{number},=doc{number}\n");
    }
    std::fs::write(dir.path().join("rows"), events).unwrap();
    stdout(&run(dir.path(), &["revenue", "import", "rows"]));
    let list = run(dir.path(), &["revenue", "list", "--format", "json"]);
    let document: Value = serde_json::from_str(&stdout(&list)).unwrap();
    assert_eq!((&document["shown"], &document["of"]), (&10_000.into(), &10_003.into()));
    assert!(stderr(&list).contains("the first 10000 of 10003 events"), "{}", stderr(&list));
    let csv = stdout(&run(dir.path(), &["revenue", "list", "--format", "csv"]));
    assert_eq!(csv.lines().count(), 10_004);
    let head = "time,source,id,kind,amount,currency,refers_to,request_id,trace_id,session,customer,workload,tag,\
                refers_to_source,evidence,confidence,received_at,sequence";
    assert_eq!(csv.lines().next().unwrap(), head);
    let row = "2026-09-05T10:00:00.000001Z,import,e10002,revenue,10002.25,USD,,,,s10002,,,,,'=doc10002,,";
    assert!(csv.lines().any(|line| line.starts_with(row)), "{:?}", csv.lines().last());
    let lines = stdout(&run(dir.path(), &["revenue", "list", "--format", "jsonl"]));
    assert_eq!(lines.lines().count(), 10_003);
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first, document["rows"][0]);
    let wrong = run(dir.path(), &["revenue", "list", "--output", "f"]);
    assert!(!wrong.status.success() && stderr(&wrong).contains("--output is for exports"));

    let parquet = cfg!(feature = "parquet").then(|| {
        stdout(&run(dir.path(), &["revenue", "list", "--format", "parquet", "--output", "f.parquet"]));
        assert!(dir.path().join("f.parquet.sha256").exists());
        let bytes = std::fs::read(dir.path().join("f.parquet")).unwrap();
        assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
        bytes
    });
    let sidecar = Sidecar::start(dir.path());
    let there =
        |format: &str| run(dir.path(), &["revenue", "list", "--format", format, "--admin", &sidecar.admin]);
    assert_eq!(stdout(&there("csv")), csv);
    assert_eq!(stdout(&there("jsonl")), lines);
    if let Some(bytes) = parquet {
        assert_eq!(there("parquet").stdout, bytes);
    }
    let bad = ["revenue", "list", "--format", "csv", "--from", "yesterdayish", "--admin", &sidecar.admin];
    assert!(stderr(&run(dir.path(), &bad)).contains("400"));
}
