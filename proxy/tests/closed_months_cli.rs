//! Closed months through the binary: whatever comes late, every export of a closed month has the same bytes,
//! the open month carries the corrections, and the restated view is what a fresh ledger would say.
//!
//! Invariants
//! - Every test has a directory of its own; a sidecar that it starts ends with it.
//!
//! Not here: which months may be closed (`roi_cli`), how a correction is computed (`roi::period`,
//! `ledger::focus`).
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
use workbook::sheets;

/// `bursar` with these arguments on the ledger `data` in `dir`.
fn run(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
    command.args(args).current_dir(dir).env_clear();
    if !args.contains(&"--admin") {
        command.args(["--data-dir", "data"]);
    }
    command.stdin(Stdio::null()).output().unwrap()
}

fn done(output: Output) -> Vec<u8> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn text(dir: &Path, args: &[&str]) -> String {
    String::from_utf8(done(run(dir, args))).unwrap()
}

fn import(dir: &Path, what: &str, rows: &str) {
    std::fs::create_dir_all(dir.join("data")).unwrap();
    std::fs::write(dir.join("rows"), rows).unwrap();
    done(run(dir, &["import", what, "rows"]));
}

// === what is known, and what comes late

const USAGE: &str = "id,started_at,team,workload,session,provider,model,usage.input_tokens,usage.output_tokens,cost.billed,outcome\n";
const USAGE_IN_TIME: &str = "1,2026-08-10T00:00:00Z,a,w1,s1,openai,m,4000000,1000,40.00,ok\n\
    2,2026-08-11T00:10:00Z,b,w2,s1,openai,gpt-5,2000000,500,,ok\n\
    3,2026-08-11T00:20:00Z,=cmd(),w2,s3,openai,gpt-5,100,7,,ok\n\
    4,2026-09-10T00:00:00Z,a,w1,s2,openai,m,1000000,10,10.00,ok\n";
/// One in an hour of its own, and one that makes an hour's row larger.
const USAGE_LATE: &str = "5,2026-08-12T00:00:00Z,c,w3,s1,openai,m,2000000,0,7.77,ok\n\
    6,2026-08-11T00:40:00Z,b,w2,s1,openai,gpt-5,300000,9,,ok\n";
const FIXINGS: &str = "index,date,value,currency\n";
const FIXING_IN_TIME: &str = "TPI,2026-08-31,5,USD\n";
const FIXING_LATE: &str = "TPI,2026-08-31,4.5,USD\n";
const REVENUE: &str = "id,kind,amount,currency,time,refers_to,session\n";
const REVENUE_IN_TIME: &str =
    "sale,,300.00,USD,2026-08-20T00:00:00Z,,s1\nlater,,90.00,USD,2026-09-20T00:00:00Z,,s2\n";
const REFUND_LATE: &str = "r,refund,-30.00,USD,2026-09-02T00:00:00Z,sale,\n";
const SWAP: &str = r#"{"position_id":"aug","kind":"swap_fixed_float","quantity":"1","unit":"Mtok","fixed_price":"2","index_id":"TPI","settlement_rule":"point","fallback":"last_published","trade_date":"2026-07-11","effective_from":"2026-08-01","effective_until":"2026-09-01","designation":{}}"#;

fn in_time(dir: &Path) {
    import(dir, "usage", &(USAGE.to_owned() + USAGE_IN_TIME));
    import(dir, "fixings", &(FIXINGS.to_owned() + FIXING_IN_TIME));
    import(dir, "contracts", SWAP);
    import(dir, "revenue", &(REVENUE.to_owned() + REVENUE_IN_TIME));
}

/// Late usage, a late fixing and a refund.
fn late(dir: &Path) {
    import(dir, "usage", &(USAGE.to_owned() + USAGE_LATE));
    import(dir, "fixings", &(FIXINGS.to_owned() + FIXING_LATE));
    import(dir, "revenue", &(REVENUE.to_owned() + REFUND_LATE));
}

/// Everything at once, into an empty ledger that never knew less.
fn from_scratch(dir: &Path) {
    import(dir, "usage", &(USAGE.to_owned() + USAGE_LATE + USAGE_IN_TIME));
    import(dir, "fixings", &(FIXINGS.to_owned() + FIXING_LATE));
    import(dir, "contracts", SWAP);
    import(dir, "revenue", &(REVENUE.to_owned() + REFUND_LATE + REVENUE_IN_TIME));
}

const AUGUST: [&str; 4] = ["--from", "2026-08-01", "--to", "2026-09-01"];
const SEPTEMBER: [&str; 4] = ["--from", "2026-09-01", "--to", "2026-10-01"];
const ACCOUNT: [&str; 4] = ["export", "focus", "--billing-account", "acc"];

fn with<'a>(parts: &[&[&'a str]]) -> Vec<&'a str> {
    parts.concat()
}

/// Every export of August as it was closed, by name.
fn exports(dir: &Path, place: &[&str]) -> BTreeMap<&'static str, Vec<u8>> {
    let show = ["period", "show", "2026-08"];
    let records = with(&[&["export", "usage", "--as", "reported"], &AUGUST]);
    let focus = with(&[&ACCOUNT, &["--as", "reported"], &AUGUST]);
    let parquet = cfg!(feature = "parquet");
    let mut wanted: Vec<(&str, Vec<&str>)> = vec![
        ("report, JSON", with(&[&show, &["--format", "json"]])),
        ("report, CSV", with(&[&show, &["--format", "csv"]])),
        ("report, table", show.to_vec()),
        ("report, XLSX", with(&[&show, &["--xlsx", "file"]])),
        ("report, HTML", with(&[&show, &["--html", "file"]])),
        // With all sheets, from the ledger as it was.
        ("return, XLSX", with(&[&["roi", "--as", "reported", "--xlsx", "file"], &AUGUST])),
        ("return, HTML", with(&[&["roi", "--as", "reported", "--html", "file"], &AUGUST])),
        ("return, JSON", with(&[&["roi", "--as", "reported", "--format", "json"], &AUGUST])),
        ("records, JSON Lines", with(&[&records, &["--format", "jsonl"]])),
        ("records, CSV", with(&[&records, &["--format", "csv"]])),
        ("FOCUS, CSV", focus.clone()),
        ("FOCUS contracts, CSV", with(&[&focus, &["--dataset", "contract-commitment"]])),
    ];
    if parquet {
        wanted.push(("report, Parquet", with(&[&show, &["--parquet", "file"]])));
        wanted.push(("records, Parquet", with(&[&records, &["--format", "parquet"]])));
        wanted.push(("FOCUS, Parquet", with(&[&focus, &["--format", "parquet"]])));
    }
    let export = |args: &[&str]| {
        let _ = std::fs::remove_file(dir.join("file"));
        let said = done(run(dir, &with(&[args, place])));
        std::fs::read(dir.join("file")).unwrap_or(said)
    };
    wanted.into_iter().map(|(name, args)| (name, export(&args))).collect()
}

#[track_caller]
fn check_same(now: &BTreeMap<&str, Vec<u8>>, first: &BTreeMap<&str, Vec<u8>>, when: &str) {
    assert_eq!(now.len(), first.len());
    for (name, bytes) in first {
        assert!(bytes.len() > 10, "{name} is empty");
        assert!(now[name] == *bytes, "{name} changed {when}");
    }
}

/// Rows of CSV by the names of its columns.
fn rows(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names = reader.headers().unwrap().clone();
    let row =
        |row: csv::StringRecord| names.iter().map(str::to_owned).zip(row.iter().map(str::to_owned)).collect();
    reader.records().map(|found| row(found.unwrap())).collect()
}

/// Pico-units of a plain decimal; nothing is none.
fn pico(text: &str) -> i128 {
    if text.is_empty() {
        return 0;
    }
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    sign * (whole.parse::<i128>().unwrap() * 1_000_000_000_000
        + format!("{fraction:0<12}").parse::<i128>().unwrap())
}

const MEASURES: [&str; 12] = [
    "BilledCost",
    "EffectiveCost",
    "ListCost",
    "ContractedCost",
    "ConsumedQuantity",
    "PricingCurrencyEffectiveCost",
    "x_SpotCost",
    "x_HedgedCost",
    "x_HedgePayoff",
    "x_HedgePremium",
    "x_HedgeFees",
    "x_HedgeResidual",
];

fn sums(rows: &[BTreeMap<String, String>]) -> Vec<i128> {
    MEASURES.iter().map(|name| rows.iter().map(|row| pico(&row[*name])).sum()).collect()
}

#[test]
fn late_facts_leave_every_export_of_a_closed_month_as_it_was_also_from_a_running_sidecar() {
    let dir = tempfile::tempdir().unwrap();
    in_time(dir.path());
    done(run(dir.path(), &["period", "close", "2026-08"]));
    let first = exports(dir.path(), &[]);
    late(dir.path());
    check_same(&exports(dir.path(), &[]), &first, "after late facts");
    done(run(dir.path(), &["period", "close", "2026-09"]));
    check_same(&exports(dir.path(), &[]), &first, "after the next close");
    let sidecar = Sidecar::start(dir.path());
    check_same(&exports(dir.path(), &["--admin", &sidecar.admin]), &first, "in a running sidecar");
    let names: Vec<String> = sheets(&first["return, XLSX"]).into_iter().map(|(name, _)| name).collect();
    for wanted in ["By team", "By workload", "Contracts", "Movers", "Reconciliation"] {
        assert!(names.iter().any(|name| name == wanted), "{wanted} in {names:?}");
    }
    let lines = String::from_utf8(first["records, JSON Lines"].clone()).unwrap();
    assert_eq!(lines.lines().count(), 3, "{lines}");
}

#[test]
fn the_open_month_carries_the_corrections_in_every_form_and_reported_sums_to_restated() {
    let dir = tempfile::tempdir().unwrap();
    in_time(dir.path());
    done(run(dir.path(), &["period", "close", "2026-08"]));
    late(dir.path());
    // FOCUS: measure by measure, exactly.
    let focus =
        |month: &[&str], view: &str| rows(&text(dir.path(), &with(&[&ACCOUNT, month, &["--as", view]])));
    let (was, open) = (focus(&AUGUST, "reported"), focus(&SEPTEMBER, "reported"));
    let (is, september) = (focus(&AUGUST, "restated"), focus(&SEPTEMBER, "restated"));
    let plus =
        |one: Vec<i128>, two: Vec<i128>| one.iter().zip(two).map(|(one, two)| one + two).collect::<Vec<_>>();
    assert_eq!(plus(sums(&was), sums(&open)), plus(sums(&is), sums(&september)));
    assert_ne!(sums(&was), sums(&is));
    let corrections: Vec<_> = open.iter().filter(|row| row["ChargeClass"] == "Correction").collect();
    assert_eq!(open.len(), september.len() + corrections.len());
    assert!(was.iter().chain(&is).chain(&september).all(|row| row["ChargeClass"].is_empty()));
    for row in &corrections {
        assert_eq!(
            (&*row["BillingPeriodStart"], &*row["BillingPeriodEnd"]),
            ("2026-09-01T00:00:00Z", "2026-10-01T00:00:00Z")
        );
        assert!(row["ChargePeriodStart"].starts_with("2026-08-"), "{row:?}");
    }
    let late =
        corrections.iter().find(|row| row["x_Team"] == "c" && row["ChargeCategory"] == "Usage").unwrap();
    assert_eq!((&*late["x_SpotCost"], &*late["ConsumedQuantity"]), ("7.77", "2000000"));
    let grown =
        corrections.iter().find(|row| row["x_Team"] == "b" && row["ConsumedQuantity"] == "300000").unwrap();
    assert_eq!(grown["ChargePeriodStart"], "2026-08-11T00:00:00Z", "an hour that grew is its difference");
    // Quantity times price is still cost.
    assert_eq!(
        pico(&grown["ListUnitPrice"]) * pico(&grown["PricingQuantity"]) / 1_000_000_000_000,
        pico(&grown["ListCost"])
    );
    let payoff: i128 = corrections.iter().map(|row| pico(&row["x_HedgePayoff"])).sum();
    assert_eq!(payoff, pico("-0.50"), "the fixing fell by a half on one million tokens");

    // Records: what was there, then what came late with the open month's own; together all of them.
    let ids = |month: &[&str], view: &str| {
        let lines = text(dir.path(), &with(&[&["export", "usage", "--as", view], month]));
        let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap();
        lines.lines().map(id).collect::<Vec<_>>()
    };
    assert_eq!((ids(&AUGUST, "reported").len(), ids(&SEPTEMBER, "reported").len()), (3, 3));
    let mut reported = [ids(&AUGUST, "reported"), ids(&SEPTEMBER, "reported")].concat();
    let mut restated = [ids(&AUGUST, "restated"), ids(&SEPTEMBER, "restated")].concat();
    reported.sort_unstable();
    restated.sort_unstable();
    assert_eq!(reported, restated);

    // The report: document, CSV, workbook, page.
    let roi = with(&[&["roi", "--by", "team,workload", "--as", "reported"], &SEPTEMBER]);
    let document: Value =
        serde_json::from_str(&text(dir.path(), &with(&[&roi, &["--format", "json"]]))).unwrap();
    let correction = &document["corrections"][0];
    assert_eq!(
        (&correction["origin"], document["corrections"].as_array().unwrap().len()),
        (&"2026-08".into(), 1)
    );
    let book = correction["book"].as_str().unwrap();
    let csv = text(dir.path(), &with(&[&roi, &["--format", "csv"]]));
    let found = rows(&csv);
    let line = |name: &str| {
        found.iter().find(|row| row["team"] == name).unwrap_or_else(|| panic!("{name} in {csv}"))
    };
    assert_eq!(line("(correction of 2026-08)")["cost.hedged"], book);
    assert_eq!(line("(as reported)")["cost.hedged"], document["reported"]["book_total"].as_str().unwrap());
    assert_eq!(line("(as reported)")["revenue"], "60.00", "90 less the refund of 30 in September");
    done(run(dir.path(), &with(&[&roi, &["--xlsx", "f.xlsx"]])));
    let sheets = sheets(&std::fs::read(dir.path().join("f.xlsx")).unwrap());
    let sheet = &sheets.iter().find(|(name, _)| name == "Corrections").unwrap().1;
    let billed: f64 = (2..=sheet.len()).filter_map(|row| sheet.number(row, "billed")).sum();
    let expected: f64 = correction["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["billed"].as_str().unwrap().parse::<f64>().unwrap())
        .sum();
    assert!((billed - expected).abs() < 1e-9 && billed > 7.77, "{billed} {expected}");
    done(run(dir.path(), &with(&[&roi, &["--html", "f.html"]])));
    let page = std::fs::read_to_string(dir.path().join("f.html")).unwrap();
    assert!(page.contains(&format!("<h2>Correction of 2026-08: cost {book}, ")), "{book} in {page}");
}

#[test]
fn as_restated_equals_a_recomputation_from_scratch_in_every_form() {
    let (dir, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    in_time(dir.path());
    done(run(dir.path(), &["period", "close", "2026-08"]));
    late(dir.path());
    from_scratch(fresh.path());
    for month in [&AUGUST, &SEPTEMBER] {
        let roi = with(&[&["roi", "--by", "team,workload", "--as", "restated"], month]);
        let both = |args: &[&str]| [dir.path(), fresh.path()].map(|dir| text(dir, args));
        let [here, there] = both(&with(&[&roi, &["--format", "json"]])).map(|said| {
            let mut document: Value = serde_json::from_str(&said).unwrap();
            document.as_object_mut().unwrap().remove("as_of").unwrap();
            document
        });
        assert_eq!(here, there);
        let [here, there] = both(&with(&[&roi, &["--format", "csv"]]));
        assert_eq!(here, there);
        let [here, there] = both(&with(&[&ACCOUNT, &month[..]]));
        assert_eq!(here, there, "FOCUS");
        // Each ledger has an id of its own, and sequences in the order of its imports.
        let [here, there] = both(&with(&[&["export", "usage"], &month[..]])).map(|said| {
            let mut lines: Vec<Value> =
                said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            for line in &mut lines {
                for own in ["seq", "ledger"] {
                    line.as_object_mut().unwrap().remove(own).unwrap();
                }
            }
            lines.sort_by_key(Value::to_string);
            lines
        });
        assert_eq!(here, there, "records");
        let [here, there] = [dir.path(), fresh.path()].map(|dir| {
            done(run(dir, &with(&[&roi, &["--xlsx", "f.xlsx"]])));
            done(run(dir, &with(&[&roi, &["--html", "f.html"]])));
            let page = std::fs::read_to_string(dir.join("f.html")).unwrap();
            let page: Vec<String> =
                page.lines().filter(|line| !line.contains("; as of ")).map(str::to_owned).collect();
            let book = sheets(&std::fs::read(dir.join("f.xlsx")).unwrap());
            // The summary says when it was looked at.
            let book: Vec<String> =
                book.iter().filter(|(name, _)| name != "Summary").map(|sheet| format!("{sheet:?}")).collect();
            (page, book)
        });
        assert_eq!(here, there, "page and workbook");
        if cfg!(feature = "parquet") {
            let [here, there] = [dir.path(), fresh.path()].map(|dir| {
                done(run(dir, &with(&[&roi, &["--parquet", "f.parquet"]])));
                std::fs::read(dir.join("f.parquet")).unwrap()
            });
            assert!(here == there, "Parquet");
        }
    }
}

#[test]
fn a_view_that_cannot_be_is_refused_with_what_to_ask() {
    let dir = tempfile::tempdir().unwrap();
    in_time(dir.path());
    done(run(dir.path(), &["period", "close", "2026-08", "--tz", "Europe/Paris"]));
    for (args, said) in [
        (with(&[&ACCOUNT, &["--as", "yesterday"], &AUGUST]), "as \"yesterday\": use reported or restated"),
        (with(&[&ACCOUNT, &["--as", "reported"]]), "one calendar month"),
        (
            with(&[&ACCOUNT, &["--as", "reported"], &AUGUST]),
            "days of Europe/Paris, and FOCUS tells time in UTC",
        ),
        (with(&[&["export", "usage", "--as", "reported", "--from", "2026-08-02"]]), "one calendar month"),
        (with(&[&["export", "usage", "--as", "x"]]), "use reported or restated"),
    ] {
        let refused = run(dir.path(), &args);
        let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && errors.contains(said), "{said} in {errors}");
    }
}
