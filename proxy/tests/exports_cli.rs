//! Exports as their readers meet them: files that are whole, sums that are the report's, names that
//! are harmless.
//!
//! Invariants
//! - Every test has a directory of its own; a sidecar that it starts ends with it.
//!
//! Not here: columns and cells (`ledger::export`, `ledger::focus`); readers written by others
//! (`.ci/exports.py`).
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
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use workbook::unzip;

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

fn import(dir: &Path, what: &str, text: &str) {
    std::fs::create_dir_all(dir.join("data")).unwrap();
    std::fs::write(dir.join("rows"), text).unwrap();
    stdout(&run(dir, &["import", what, "rows"]));
}

/// The example of the guides: usage, contracts and revenue of a September.
fn guide(dir: &Path) {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide");
    std::fs::create_dir_all(dir.join("data")).unwrap();
    for (what, file) in [
        ("usage", "hedging/usage.csv"),
        ("profiles", "hedging/profiles.jsonl"),
        ("fixings", "hedging/fixings.csv"),
        ("contracts", "hedging/contracts.json"),
        ("fx", "roi/fx.csv"),
        ("revenue", "roi/revenue.csv"),
    ] {
        stdout(&run(dir, &["import", what, guide.join(file).to_str().unwrap()]));
    }
}

const SEPTEMBER: [&str; 8] =
    ["--from", "2026-09-01", "--to", "2026-10-01", "--on", "2026-10-01", "--unit", "MSIT"];

fn with<'a>(args: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    args.iter().chain(more).copied().collect()
}

fn report(dir: &Path, by: &str) -> Value {
    let args = with(&["roi", "--by", by, "--format", "json"], &SEPTEMBER);
    serde_json::from_str(&stdout(&run(dir, &args))).unwrap()
}

/// Rows of CSV by the names of its columns.
fn rows(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    let mut rows = reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect::<Vec<_>>());
    let names = rows.next().unwrap();
    rows.map(|row| names.iter().cloned().zip(row).collect()).collect()
}

/// Pico-units of a plain decimal.
fn pico(text: &str) -> i128 {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    assert!(!digits.is_empty() && !digits.contains(['e', 'E']), "{text:?} is no plain decimal");
    sign * (whole.parse::<i128>().unwrap() * 1_000_000_000_000
        + format!("{fraction:0<12}").parse::<i128>().unwrap())
}

/// Rounded half-even to cents, as reports round once.
fn cents(pico: i128) -> i128 {
    let unit = 10_000_000_000;
    let (whole, rest) = (pico.div_euclid(unit), pico.rem_euclid(unit));
    whole + i128::from(rest * 2 > unit || (rest * 2 == unit && whole % 2 != 0))
}

fn sum(rows: &[BTreeMap<String, String>], column: &str) -> i128 {
    rows.iter().map(|row| pico(&row[column])).sum()
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

// === Parquet and checksums

#[cfg(feature = "parquet")]
#[test]
fn parquet_is_whole_repeatable_and_has_its_checksum_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    guide(dir.path());
    let args = ["export", "usage", "--format", "parquet", "--output"];
    let said = run(dir.path(), &with(&args, &["usage.parquet"]));
    assert!(stderr(&said).contains("SHA-256"), "{}", stderr(&said));
    let bytes = std::fs::read(dir.path().join("usage.parquet")).unwrap();
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
    let sums = std::fs::read_to_string(dir.path().join("usage.parquet.sha256")).unwrap();
    assert_eq!(sums, format!("{}  usage.parquet\n", sha256(&bytes)));
    stdout(&run(dir.path(), &with(&args, &["again.parquet"])));
    assert_eq!(std::fs::read(dir.path().join("again.parquet")).unwrap(), bytes);
    let piped = run(dir.path(), &["export", "usage", "--format", "parquet"]);
    assert_eq!(piped.stdout, bytes, "a pipe gets the same bytes");
    let focus = with(&["export", "focus", "--format", "parquet", "-o", "focus.parquet"], &SEPTEMBER);
    stdout(&run(dir.path(), &focus));
    assert!(std::fs::read(dir.path().join("focus.parquet")).unwrap().ends_with(b"PAR1"));
    let names: Vec<String> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|f| f.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(!names.iter().any(|name| name.contains("partial")), "{names:?}");
}

#[cfg(feature = "parquet")]
#[test]
fn a_running_sidecar_writes_what_its_directory_gives() {
    let dir = tempfile::tempdir().unwrap();
    guide(dir.path());
    let usage = run(dir.path(), &["export", "usage", "--format", "parquet"]).stdout;
    let focus = with(&["export", "focus", "--billing-account", "acc-1"], &SEPTEMBER);
    let offline = stdout(&run(dir.path(), &focus));
    let sidecar = Sidecar::start(dir.path());
    let there = |args: &[&str]| run(dir.path(), &with(args, &["--admin", &sidecar.admin]));
    assert_eq!(there(&["export", "usage", "--format", "parquet"]).stdout, usage);
    assert_eq!(stdout(&there(&focus)), offline);
    let bad = there(&["export", "focus", "--by", "model"]);
    assert!(!bad.status.success());
}

// === FOCUS

#[test]
fn focus_of_the_guide_sums_to_the_report_column_by_column() {
    let dir = tempfile::tempdir().unwrap();
    guide(dir.path());
    for by in ["team", "team,workload", "workload"] {
        let report = report(dir.path(), by);
        let args = with(&["export", "focus", "--by", by], &SEPTEMBER);
        let rows = rows(&stdout(&run(dir.path(), &args)));
        let book = &report["book"]["cost"];
        for (column, expected) in [
            ("x_SpotCost", &book["billed"]),
            ("EffectiveCost", &book["effective"]),
            ("x_HedgedCost", &report["book_total"]),
            ("x_HedgeResidual", &report["residual"]["cost"]["hedged"]),
            ("x_HedgePayoff", &report["book"]["hedge"]["payoff"]),
            ("x_HedgePremium", &report["book"]["hedge"]["premium"]),
            ("x_HedgeFees", &report["book"]["hedge"]["fees"]),
        ] {
            let expected = expected.as_str().unwrap();
            assert_eq!(cents(sum(&rows, column)), cents(pico(expected)), "{by} {column} {expected}");
        }
        let tokens: i128 = rows
            .iter()
            .filter(|row| row["ConsumedUnit"] == "Tokens")
            .map(|row| pico(&row["ConsumedQuantity"]) / 1_000_000_000_000)
            .sum();
        assert_eq!(tokens.to_string(), report["book"]["total_tokens"].to_string());
        let bought: Vec<_> = rows.iter().filter(|row| row["ChargeCategory"] == "Purchase").collect();
        assert_eq!(bought.len(), 1);
        assert_eq!(
            (bought[0]["BilledCost"].as_str(), bought[0]["EffectiveCost"].as_str()),
            ("20584.51", "0")
        );
        let of_purchase = |row: &&BTreeMap<String, String>| {
            row["ChargeCategory"] != "Purchase" && row["ContractApplied"].contains("commit-beta")
        };
        let applied: i128 = rows
            .iter()
            .filter(of_purchase)
            .map(|row| {
                let applied: Value = serde_json::from_str(&row["ContractApplied"]).unwrap();
                pico(&applied["Elements"][0]["ContractCommitmentAppliedCost"].to_string())
            })
            .sum();
        assert_eq!(cents(applied), 2_058_451, "what was used and what was lost are what was bought");
    }
}

/// Requests that the built-in price book prices by class, of two hours.
const PRICED: &str = "id,started_at,team,workload,provider,model,usage.input_tokens,usage.input_cached_read,usage.output_tokens,outcome\n\
    p1,2026-09-05T10:00:00Z,search,bot,openai,gpt-5,1201,200,30,ok\n\
    p2,2026-09-05T10:59:59Z,search,bot,openai,gpt-5,7,0,1,ok\n\
    p3,2026-09-05T11:00:00Z,search,bot,openai,gpt-5,1000000,0,3,ok\n\
    p4,2026-09-05T11:00:00Z,research,lab,anthropic,claude-sonnet-4-5,5000,100,77,ok\n\
    p5,2026-09-05T11:30:00Z,search,bot,openai,no-such-model,9,0,9,ok\n";

#[test]
fn an_hour_of_one_price_is_one_row_whose_cost_is_price_times_quantity() {
    let dir = tempfile::tempdir().unwrap();
    import(dir.path(), "usage", PRICED);
    let said = run(dir.path(), &with(&["export", "focus"], &SEPTEMBER[..6]));
    let rows = rows(&stdout(&said));
    assert!(stderr(&said).contains("1 requests have no complete price"), "{}", stderr(&said));
    let million = 1_000_000_000_000_i128;
    for row in &rows {
        for (price, cost) in [("ListUnitPrice", "ListCost"), ("ContractedUnitPrice", "ContractedCost")] {
            let product = pico(&row[price]) * pico(&row["PricingQuantity"]);
            assert_eq!((product / million, product % million), (pico(&row[cost]), 0), "{row:?}");
        }
    }
    let tokens = rows.iter().filter(|row| row["PricingUnit"] == "1000000 Tokens");
    assert_eq!(tokens.count(), 8, "three classes, two of them in both hours of gpt-5, three of the other");
    let first = &rows[0];
    assert_eq!(first["ChargePeriodStart"], "2026-09-05T10:00:00Z");
    assert_eq!(first["ChargePeriodEnd"], "2026-09-05T11:00:00Z");
    assert_eq!(first["BillingPeriodEnd"], "2026-10-01T00:00:00Z");
    let unpriced: Vec<_> = rows.iter().filter(|row| row["x_CostStatus"] == "unpriced").collect();
    assert_eq!((unpriced.len(), unpriced[0]["ConsumedQuantity"].as_str()), (1, "18"));
    let report: Value =
        serde_json::from_str(&stdout(&run(dir.path(), &with(&["roi", "--format", "json"], &SEPTEMBER[..6]))))
            .unwrap();
    for (column, of) in [
        ("ListCost", "list"),
        ("ContractedCost", "contracted"),
        ("BilledCost", "billed"),
        ("EffectiveCost", "effective"),
        ("x_HedgedCost", "hedged"),
    ] {
        let expected = report["book"]["cost"][of].as_str().unwrap();
        assert_eq!(cents(sum(&rows, column)), cents(pico(expected)), "{column}");
    }
}

#[test]
fn contracts_with_providers_are_commitments_and_swaps_are_not() {
    let dir = tempfile::tempdir().unwrap();
    guide(dir.path());
    let args = with(&["export", "focus", "--dataset", "contract-commitment"], &SEPTEMBER);
    let rows = rows(&stdout(&run(dir.path(), &args)));
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    for (column, value) in [
        ("ContractCommitmentId", "commit-beta"),
        ("ContractCommitmentCategory", "Spend"),
        ("ContractCommitmentCost", "20584.51"),
        ("ContractCommitmentQuantity", ""),
        ("ContractCommitmentUnit", ""),
        ("ContractCommitmentDurationType", "1 Month"),
        ("ContractCommitmentFulfillmentInterval", "Full Period"),
        ("ContractCommitmentModel", "Discontinuous"),
        ("ContractCommitmentPeriodEnd", "2026-10-01T00:00:00Z"),
        (
            "ContractCommitmentApplicability",
            r#"{"InclusionOperator":"And","Inclusions":[{"Dimension":"SubAccountId","Operator":"In","Values":["beta"]}]}"#,
        ),
    ] {
        assert_eq!(row[column], value, "{column}");
    }
}

#[test]
fn a_grouping_that_focus_has_no_column_for_is_refused_with_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    import(dir.path(), "usage", PRICED);
    let refused = run(dir.path(), &["export", "focus", "--by", "model", "--from", "2026-09-01"]);
    assert!(stderr(&refused).contains("group by team, workload, customer, session or tag:NAME"));
}

// === names that would do something

/// Names that are formulas, markup, or a break of the line in one format or another.
const HOSTILE: [&str; 13] = [
    "=cmd()",
    "+1",
    "-1+2",
    "@SUM(A1)",
    "＝1",
    "＋1",
    "－1",
    "＠x",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a,\"b\";c",
    "'\"&amp;",
    "{\"json\":[1]}",
];

/// How an export is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Csv,
    Json,
    Lines,
    Page,
    Workbook,
    /// A table for people, on a terminal perhaps.
    Terminal,
}

/// The name is there, and harmless in its form.
fn check_harmless(form: Form, export: &[u8], name: &str) {
    let text = String::from_utf8_lossy(export);
    match form {
        Form::Csv => {
            let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(export);
            let cells: Vec<String> = reader
                .records()
                .flat_map(|row| row.unwrap().iter().map(str::to_owned).collect::<Vec<_>>())
                .collect();
            let formula = |cell: &&String| {
                cell.starts_with(['=', '+', '-', '@', '\t', '\r', '＝', '＋', '－', '＠'])
                    && cell.parse::<f64>().is_err()
            };
            assert_eq!(cells.iter().find(formula), None, "{name}");
            let plain = cells.iter().any(|cell| cell == name || *cell == format!("'{name}"));
            assert!(plain, "{name} in {text}");
        }
        Form::Json | Form::Lines => {
            let found = |value: &Value| value.to_string().contains(&Value::from(name).to_string());
            let there = match form {
                Form::Json => found(&serde_json::from_str(&text).unwrap()),
                _ => text
                    .lines()
                    .map(|line| serde_json::from_str(line).unwrap())
                    .any(|line: Value| found(&line)),
            };
            assert!(there, "{name} in {text}");
        }
        Form::Page => {
            for bad in ["<script", "<img", "javascript:"] {
                assert!(!text.contains(bad), "{name}: {bad}");
            }
            let safe = name
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
                .replace('"', "&quot;")
                .replace('\'', "&#39;");
            assert!(text.contains(&safe), "{name} in {text}");
        }
        Form::Terminal => {
            let moves = |letter: char| letter.is_control() && letter != '\n';
            assert_eq!(text.chars().find(|letter| moves(*letter)), None, "{name}");
            assert!(text.contains(name), "{name} in {text}");
        }
        Form::Workbook => {
            let there = workbook::sheets(export).iter().any(|(_, sheet)| sheet.words().contains(&name));
            assert!(there, "{name} is in no cell");
            for (file, text) in unzip(export) {
                assert!(!text.contains("<f>") && !text.contains("<f "), "{name}: a formula in {file}");
                assert!(!text.contains("<script") && !text.contains("<img"), "{name}: {file}");
                assert!(!text.contains("hyperlink"), "{name}: a link in {file}");
            }
        }
    }
}

#[test]
fn names_that_are_formulas_or_markup_are_harmless_in_every_export() {
    let dir = tempfile::tempdir().unwrap();
    let mut usage = String::new();
    let mut revenue = String::new();
    let mut contracts = String::new();
    for (number, name) in HOSTILE.iter().enumerate() {
        let row = serde_json::json!({
            "id": format!("u{number}"), "started_at": "2026-09-05T10:00:00Z", "team": name, "workload": name,
            "customer": name, "session": name, "tags": {"campaign": name}, "provider": "openai", "model": name,
            "usage": {"input_tokens": 10, "output_tokens": 1},
            "cost": {"currency": "USD", "list": "1.00", "contracted": "1.00", "billed": "1.00"}, "outcome": "ok"
        });
        usage.push_str(&format!("{row}\n"));
        let event = serde_json::json!({
            "id": name, "source": "shop", "amount": "2.00", "currency": "USD", "time": "2026-09-06T00:00:00Z",
            "customer": name, "workload": name, "evidence": name
        });
        revenue.push_str(&format!("{event}\n"));
        let contract = serde_json::json!({
            "position_id": name, "kind": "commit_spend", "quantity": "20", "unit": "USD", "price_currency": "USD",
            "trade_date": "2026-08-01", "effective_from": "2026-09-01", "effective_until": "2026-10-01",
            "commitment": {"fulfilment_interval": "term", "shortfall": "owner", "owner": name},
            "designation": {"teams": [name], "objective": name}, "counterparty": name
        });
        contracts.push_str(&format!("{contract}\n"));
    }
    import(dir.path(), "usage", &usage);
    import(dir.path(), "revenue", &revenue);
    import(dir.path(), "contracts", &contracts);
    // A provider's statement with the same names for its projects, and a closed month.
    let costs = HOSTILE.iter().map(|name| {
        serde_json::json!({ "object": "organization.costs.result", "amount": { "value": 1.5, "currency": "usd" },
                            "line_item": "m, input", "project_id": name })
    });
    let day = serde_json::json!({ "start_time": 1_788_566_400, "end_time": 1_788_652_800, "results": costs.collect::<Vec<_>>() });
    let page = serde_json::json!({ "object": "page", "data": [day] });
    std::fs::write(dir.path().join("costs"), page.to_string()).unwrap();
    let reconcile =
        ["reconcile", "costs", "--provider", "openai", "--by", "day,project", "--tolerance", "100%"];
    let said = stdout(&run(dir.path(), &with(&reconcile, &["--format", "json"])));
    std::fs::write(dir.path().join("reconciliation"), said).unwrap();
    stdout(&run(dir.path(), &["period", "close", "2026-09"]));
    let show = ["period", "show", "2026-09"];
    let hedge = ["hedge", "report", "--from", "2026-09-01", "--to", "2026-10-01"];
    let commitments = with(&["export", "focus", "--dataset", "contract-commitment"], &SEPTEMBER[..6]);
    let roi = ["roi", "--by", "team,workload,tag:campaign"];
    let focus = ["export", "focus", "--by", "team,workload,customer,session,tag:campaign"];
    let period = &SEPTEMBER[..6];
    let beside = ["--reconciliation", "reconciliation"];
    let exports: [(&str, Vec<&str>, Form); 33] = [
        ("records as CSV", vec!["export", "usage", "--format", "csv"], Form::Csv),
        ("records as JSON Lines", vec!["export", "usage", "--format", "jsonl"], Form::Lines),
        ("usage as CSV", vec!["usage", "--format", "csv"], Form::Csv),
        ("usage as JSON", vec!["usage", "--format", "json"], Form::Json),
        ("return as CSV", with(&with(&roi, &["--format", "csv"]), period), Form::Csv),
        ("return as JSON", with(&with(&roi, &["--format", "json"]), period), Form::Json),
        ("return as a page", with(&with(&roi, &["--html", "file"]), period), Form::Page),
        ("return as a workbook", with(&with(&roi, &["--xlsx", "file"]), period), Form::Workbook),
        ("FOCUS", with(&focus, period), Form::Csv),
        ("revenue events as CSV", vec!["revenue", "list", "--format", "csv"], Form::Csv),
        ("revenue events as JSON Lines", vec!["revenue", "list", "--format", "jsonl"], Form::Lines),
        ("revenue events as JSON", vec!["revenue", "list", "--format", "json"], Form::Json),
        ("revenue events as a table", vec!["revenue", "list"], Form::Terminal),
        ("usage as a table", vec!["usage"], Form::Terminal),
        ("return as a table", with(&with(&roi, &["--compare", "--movers"]), period), Form::Terminal),
        ("a closed month as JSON", with(&show, &["--format", "json"]), Form::Json),
        ("a closed month as CSV", with(&show, &["--format", "csv"]), Form::Csv),
        ("a closed month as a table", show.to_vec(), Form::Terminal),
        ("a closed month as a page", with(&show, &["--html", "file"]), Form::Page),
        ("a closed month as a workbook", with(&show, &["--xlsx", "file"]), Form::Workbook),
        ("FOCUS of a closed month", with(&with(&focus, period), &["--as", "reported"]), Form::Csv),
        ("FOCUS contracts", commitments, Form::Csv),
        ("contracts as CSV", vec!["contract", "list", "--format", "csv"], Form::Csv),
        ("contracts as JSON", vec!["contract", "list", "--format", "json"], Form::Json),
        ("contracts as a table", vec!["contract", "list"], Form::Terminal),
        ("hedges as CSV", with(&hedge, &["--format", "csv"]), Form::Csv),
        ("hedges as JSON", with(&hedge, &["--format", "json"]), Form::Json),
        ("hedges as a table", hedge.to_vec(), Form::Terminal),
        ("a reconciliation as CSV", with(&reconcile, &["--format", "csv"]), Form::Csv),
        ("a reconciliation as JSON", with(&reconcile, &["--format", "json"]), Form::Json),
        ("a reconciliation as a table", reconcile.to_vec(), Form::Terminal),
        (
            "a reconciliation in a workbook",
            with(&with(&["roi", "--by", "month", "--xlsx", "file"], &beside), period),
            Form::Workbook,
        ),
        ("a reconciliation below a table", with(&with(&["roi"], &beside), period), Form::Terminal),
    ];
    for (what, args, form) in &exports {
        println!("{what}");
        let _ = std::fs::remove_file(dir.path().join("file"));
        let said = run(dir.path(), args);
        stdout(&said);
        let export = std::fs::read(dir.path().join("file")).unwrap_or(said.stdout);
        HOSTILE.iter().for_each(|name| check_harmless(*form, &export, name));
    }
}

// === golden files

/// The golden file `name`, or what was made becomes it.
fn check_golden(name: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, made).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(made, golden, "{name} changed: run with BLESS=1 and look at the difference");
}

#[test]
fn exports_of_the_guide_have_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    guide(dir.path());
    let text = |args: &[&str]| stdout(&run(dir.path(), args));
    let lines = text(&["export", "usage", "--format", "jsonl"]);
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let ledger = first["ledger"].as_str().unwrap();
    // Each ledger has an id of its own.
    let nameless = |text: String| text.replace(ledger, "00000000-0000-0000-0000-000000000000");
    check_golden("usage.jsonl", &nameless(lines.clone()));
    check_golden("usage.csv", &nameless(text(&["export", "usage", "--format", "csv"])));
    check_golden("focus.csv", &nameless(text(&with(&["export", "focus"], &SEPTEMBER))));
    check_golden("roi.csv", &text(&with(&["roi", "--format", "csv"], &SEPTEMBER)));
}
