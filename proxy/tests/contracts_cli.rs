//! Contracts beyond the guide's example: budgets on them, other prices, an index of one's own, and months
//! that are closed by the prices in force.
//!
//! Invariants
//! - Every test has a directory of its own; a sidecar that it starts ends with it.
//!
//! Not here: the worked example (`hedge_cli`), return and periods (`roi_cli`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is a failed test"
)]

mod sidecar;

use serde_json::{Value, json};
use sidecar::Sidecar;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn run(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
    command.args(args).current_dir(dir).env_clear();
    if !args.contains(&"--data-dir") && !args.contains(&"--admin") && args.first() != Some(&"check") {
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

fn as_json(dir: &Path, args: &[&str]) -> Value {
    let mut args = args.to_vec();
    args.extend(["--format", "json"]);
    serde_json::from_str(&stdout(&run(dir, &args))).unwrap()
}

fn import(dir: &Path, what: &str, text: &str, place: &[&str]) -> Output {
    std::fs::write(dir.join("rows"), text).unwrap();
    run(dir, &[&["import", what, "rows"], place].concat())
}

fn empty() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    dir
}

/// Ten million tokens in and two million out of a model of the built-in book, and two million of a model
/// that only an overlay prices, with a cost of their own.
const USAGE: &str = "id,started_at,team,workload,provider,model,usage.input_tokens,usage.output_tokens,cost.billed\n\
     u1,2026-09-03T00:00:00Z,alpha,w,openai,gpt-4o,10000000,2000000,\n\
     u2,2026-09-04T00:00:00Z,beta,w,openai,own,0,2000000,30.00\n";
const OVERLAY: &str = "rows:
  - { provider: openai, model: gpt-4o, per_million: { input: 5, output: 20 } }
  - { provider: openai, model: own, per_million: { input: 5, output: 20 } }
";
const SEPTEMBER: [&str; 6] = ["--from", "2026-09-01", "--to", "2026-10-01", "--on", "2026-10-01"];

/// Three million output tokens delivered at eight.
fn delivery() -> String {
    json!({
        "position_id": "out", "kind": "forward_physical", "quantity": "3", "unit": "Mtok", "fixed_price": "8",
        "price_currency": "USD", "trade_date": "2026-08-11", "effective_from": "2026-09-01",
        "effective_until": "2026-10-01", "designation": { "token_classes": ["output"] },
    })
    .to_string()
}

fn row<'a>(report: &'a Value, team: &str) -> &'a Value {
    report["rows"].as_array().unwrap().iter().find(|row| row["team"] == team).unwrap()
}

// === another price book ===

#[test]
fn the_same_usage_and_positions_at_other_prices_stand_beside_the_actual_and_balance() {
    let dir = empty();
    stdout(&import(dir.path(), "usage", USAGE, &[]));
    stdout(&import(dir.path(), "contracts", &delivery(), &[]));
    std::fs::write(dir.path().join("other.yaml"), OVERLAY).unwrap();
    let ask = [&["hedge", "report", "--overlay", "other.yaml"], &SEPTEMBER[..]].concat();
    let report = as_json(dir.path(), &ask);
    assert_eq!(report["book_total"], "61.50", "what it did cost is as it was");
    let there = &report["at_other_prices"];
    // alpha: 10 × 5 + 2 × 20; beta: 2 × 20. Half of the output of each is delivered at 8 instead of 20.
    for (team, spot, hedged, more) in
        [("alpha", "90.00", "72.00", "30.00"), ("beta", "40.00", "22.00", "2.50")]
    {
        let row = row(there, team);
        assert_eq!(
            [&row["cost"]["spot"], &row["cost"]["hedged"], &row["difference"]["hedged"]],
            [spot, hedged, more],
            "{team}"
        );
    }
    assert_eq!(
        (&there["book_total"], &there["book"]["difference"]["hedged"]),
        (&"94.00".into(), &"32.50".into())
    );
    assert_eq!(
        there["balance"],
        json!({ "rows": "94.00", "residual": "0.00", "book": "94.00", "balanced": true })
    );
    assert_eq!(
        (&there["complete"], &there["kept_records"]),
        (&true.into(), &0.into()),
        "{}",
        there["unpriced"]
    );
    let table = stdout(&run(dir.path(), &ask));
    assert!(
        table.contains("Hedged there") && table.contains("= book 94.00 USD, 32.50 more than here"),
        "{table}"
    );

    // A sidecar answers the same, whatever book it has itself.
    let sidecar = Sidecar::start(dir.path());
    let asked = as_json(dir.path(), &[&ask[..], &["--admin", &sidecar.admin]].concat());
    assert_eq!(asked["at_other_prices"], *there);
}

#[test]
fn what_other_prices_do_not_know_is_unpriced_there_and_a_bad_overlay_is_refused() {
    let dir = empty();
    stdout(&import(dir.path(), "usage", USAGE, &[]));
    let write = |text: &str| std::fs::write(dir.path().join("other.yaml"), text).unwrap();
    let ask = [&["hedge", "report", "--overlay", "other.yaml"], &SEPTEMBER[..]].concat();
    write("rows:\n  - { provider: openai, model: gpt-4o, per_million: { input: 5, output: 20 } }\n");
    let report = as_json(dir.path(), &ask);
    let there = &report["at_other_prices"];
    assert_eq!((&report["complete"], &there["complete"]), (&true.into(), &false.into()));
    assert!(there["unpriced"][0]["reason"].as_str().unwrap().contains("without a complete price"));
    write("rows:\n  - { provider: openai, model: gpt-4o, per_million: { input: -5 } }\n");
    let refused = run(dir.path(), &ask);
    assert_eq!(refused.status.code(), Some(3));
    assert!(stderr(&refused).contains("other.yaml: row 1"), "{}", stderr(&refused));
    let missing = run(dir.path(), &["hedge", "report", "--overlay", "nowhere.yaml"]);
    assert!(stderr(&missing).contains("cannot read nowhere.yaml"), "{}", stderr(&missing));
}

// === an index of one's own ===

/// Four providers on one day: 70, 20, 6 and 4 million tokens at 1, 2, 4 and 8 dollars.
const VOLUMES: &str = "date,provider,volume,price\n2026-09-01,a,70,1\n2026-09-01,b,20,2\n\
     2026-09-01,c,6,4\n2026-09-01,d,4,8\n";
const COMPOSE: [&str; 9] =
    ["market", "compose", "MINE", "--currency", "USD", "--from", "2026-09-01", "--to", "2026-09-08"];

#[test]
fn an_index_is_shown_first_written_once_and_says_what_it_is_made_of() {
    let dir = empty();
    stdout(&import(dir.path(), "fx", "pair,date,rate\nUSD/CNY,2026-09-01,7.1\n", &[]));
    std::fs::write(dir.path().join("volumes.csv"), VOLUMES).unwrap();
    let ask = [&COMPOSE[..], &["--volumes", "volumes.csv", "--days", "3"]].concat();
    let said = stdout(&run(dir.path(), &ask));
    assert!(
        said.contains("3.14") && said.contains("nothing was written") && said.contains("--apply"),
        "{said}"
    );
    assert!(said.contains("no value on 2026-09-04: nothing was used in its days"), "{said}");
    let list = as_json(dir.path(), &["market", "list", "fixings"]);
    assert_eq!(list["rows"], json!([]), "a dry run");
    let apply = [&ask[..], &["--apply"]].concat();
    assert!(stdout(&run(dir.path(), &apply)).contains("4 rows, 4 new"), "the index, and three days");
    assert!(stdout(&run(dir.path(), &apply)).contains("0 new"), "it is there already");
    let list = as_json(dir.path(), &["market", "show", "fixings", "MINE"]);
    let first = &list["rows"][0];
    assert_eq!((&first["value"], &first["source"]), (&"3.14".into(), &"composed".into()));
    let made = &first["provenance"];
    assert_eq!(made["constituents"]["a"], json!({ "volume": "70", "price": "1", "weight": "0.3" }));
    assert_eq!(made["constituents"]["c"]["weight"], "0.24");
    assert!(made["method"].as_str().unwrap().contains("each at most 30 %"), "{made}");

    // Another method is another version.
    let other = run(dir.path(), &[&apply[..], &["--cap", "40"]].concat());
    assert!(stderr(&other).contains("MINE v1 is made otherwise"), "{}", stderr(&other));
    let other = run(dir.path(), &[&apply[..], &["--cap", "40", "--index-version", "2"]].concat());
    // a 0.4, and the rest by volume: 0.6 × (20·2 + 6·4 + 4·8)/30 = 1.92
    assert!(stdout(&other).contains("2.32"), "{}", stdout(&other));
    // A restatement of the volumes restates the fixings.
    std::fs::write(dir.path().join("volumes.csv"), VOLUMES.replace("b,20,2", "b,20,3")).unwrap();
    assert!(stdout(&run(dir.path(), &apply)).contains("3 restated"));
}

#[test]
fn own_usage_makes_an_index_and_what_has_no_price_is_left_out() {
    let dir = empty();
    let usage = "id,started_at,team,provider,model,usage.input_tokens,cost.billed,cost.list\n\
         1,2026-09-01T10:00:00Z,t,a,m,2000000,4.00,6.00\n2,2026-09-01T11:00:00Z,t,b,m,1000000,8.00,8.00\n\
         3,2026-09-01T12:00:00Z,t,c,nobody-knows,5000000,,\n4,2026-09-02T10:00:00Z,t,a,n,1000000,5.00,5.00\n";
    stdout(&import(dir.path(), "usage", usage, &[]));
    let of = |more: &[&str]| {
        let report = as_json(dir.path(), &[&COMPOSE[..], &["--days", "1"], more].concat());
        let values =
            report["rows"].as_array().unwrap().iter().map(|row| row["value"].as_str().unwrap().to_owned());
        (values.collect::<Vec<_>>(), report)
    };
    // Two of them cannot be held under 30 %: both weigh a half.
    let (values, report) = of(&[]);
    assert_eq!(values, ["5", "5"], "(2 + 8)/2, and 5");
    assert_eq!(report["left_out"][0]["requests"], 1);
    assert_eq!(of(&["--cap", "60"]).0, ["4.4", "5"], "0.6 × 2 + 0.4 × 8");
    assert_eq!(of(&["--cap", "100", "--spot", "list"]).0, ["4.666667", "5"], "14/3");
    assert_eq!(of(&["--cap", "100", "--by", "model"]).1["rows"][0]["parts"][0]["name"], "a/m");
    let said = stdout(&run(dir.path(), &[&COMPOSE[..], &["--days", "1", "--apply"]].concat()));
    assert!(said.contains("left out: 1 requests without a complete price"), "{said}");
    let report = as_json(
        dir.path(),
        &["hedge", "report", "--from", "2026-09-01", "--to", "2026-10-01", "--on", "2026-10-01"],
    );
    assert_eq!(report["without_hedge"], "17.00");
}

#[test]
fn a_bad_file_of_volumes_or_an_index_of_another_kind_is_refused() {
    let dir = empty();
    let bad = "date,provider,volume,price\n2026-09-01,a,-1,2\n2026-09-01,b,1,2\n";
    stdout(&import(dir.path(), "fx", "pair,date,rate\nUSD/CNY,2026-09-01,7.1\n", &[]));
    std::fs::write(dir.path().join("bad.csv"), bad).unwrap();
    let refused = run(dir.path(), &[&COMPOSE[..], &["--volumes", "bad.csv", "--apply"]].concat());
    assert_eq!(refused.status.code(), Some(3));
    assert!(stderr(&refused).contains("line 2: volume -1 is below zero"), "{}", stderr(&refused));
    let exchange = "index,date,value,currency,source\nMINE,2026-09-01,2.9,USD,exchange\n";
    stdout(&import(dir.path(), "fixings", exchange, &[]));
    std::fs::write(dir.path().join("volumes.csv"), VOLUMES).unwrap();
    let ask = [&COMPOSE[..], &["--volumes", "volumes.csv"]].concat();
    let refused = run(dir.path(), &ask);
    assert!(stderr(&refused).contains("MINE v1 has fixings that were not made here"), "{}", stderr(&refused));
    let refused = run(dir.path(), &[&ask[..], &["--index-version", "2", "--calendar", "moon"]].concat());
    assert!(stderr(&refused).contains("there is no calendar moon"), "{}", stderr(&refused));
}

// === months that are closed ===

#[test]
fn a_month_is_closed_by_the_prices_of_the_sidecar_as_roi_reports_it() {
    let dir = empty();
    std::fs::write(dir.path().join("prices.yaml"), OVERLAY).unwrap();
    std::fs::write(dir.path().join("b.yaml"), "prices: { overlay: prices.yaml }\n").unwrap();
    let sidecar = Sidecar::start_with(dir.path(), &["--config", "b.yaml"]);
    let place = ["--admin", sidecar.admin.as_str()];
    // The model has no price in the built-in book, and no cost of its own here: only the overlay tells.
    let usage = "id,started_at,team,workload,provider,model,usage.input_tokens,usage.output_tokens\n\
         1,2026-09-03T00:00:00Z,alpha,w,openai,own,1000000,2000000\n\
         2,2026-09-04T00:00:00Z,beta,w,openai,gpt-4o,1000000,2000000\n";
    stdout(&import(dir.path(), "usage", usage, &place));
    stdout(&import(dir.path(), "contracts", &delivery(), &place));
    let ask = [&["roi", "--by", "team,workload"], &SEPTEMBER[..], &place].concat();
    let roi = as_json(dir.path(), &ask);
    // 2 × 5 + 4 × 20, of which three million tokens cost 8 instead of 20.
    assert_eq!((&roi["book_total"], &roi["complete"]), (&"54.00".into(), &true.into()));
    let close = [&["period", "close", "2026-09", "--on", "2026-10-01"], &place[..]].concat();
    stdout(&run(dir.path(), &close));
    let closed = as_json(dir.path(), &[&["period", "show", "2026-09"], &place[..]].concat());
    assert_eq!((&closed["book_total"], &closed["complete"]), (&roi["book_total"], &true.into()));
    assert_eq!(closed["rows"], roi["rows"]);
    assert_eq!(closed["reported"]["book_total"], "54.00");
}

// === budgets on contracts ===

fn send(proxy: &str) -> String {
    let mut socket = std::net::TcpStream::connect(proxy).unwrap();
    let body = r#"{"model":"gpt-4o","max_tokens":100,"messages":[{"role":"user","content":"hi"}]}"#;
    let request = format!(
        "POST /openai/v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    socket.read_to_string(&mut reply).unwrap();
    reply
}

#[test]
fn a_budget_on_a_contract_is_checked_kept_shown_and_explained() {
    let dir = empty();
    let config =
        "ledger: { path: data }\nbudgets:\n  - { name: credit, contract: prepaid, thresholds: [80] }\n";
    std::fs::write(dir.path().join("b.yaml"), config).unwrap();
    let checked = run(dir.path(), &["check", "--config", "b.yaml"]);
    assert!(checked.status.success(), "it is a warning: {}", stderr(&checked));
    assert!(stderr(&checked).contains("cannot be looked up"), "{}", stderr(&checked));

    let sidecar = Sidecar::start_with(dir.path(), &["--config", "b.yaml"]);
    let place = ["--admin", sidecar.admin.as_str()];
    let ask = |args: &[&str]| run(dir.path(), &[args, &place].concat());
    let refused = send(&sidecar.proxy);
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    let id = refused.lines().find_map(|line| line.strip_prefix("x-bursar-request-id: ")).unwrap();
    let why = stdout(&ask(&["why", id.trim()]));
    assert!(why.contains("its contract \"prepaid\" is not in the ledger"), "{why}");

    let day = |days: i64| {
        let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        now.checked_add(jiff::Span::new().days(days)).unwrap().to_string()
    };
    let usage = format!(
        "id,started_at,team,provider,model,usage.input_tokens,cost.billed\nu,{}T00:00:00Z,a,openai,m,1,2.5\n",
        day(-1)
    );
    stdout(&import(dir.path(), "usage", &usage, &place));
    let credit = json!({
        "position_id": "prepaid", "kind": "prepaid_credit", "quantity": "2.5", "unit": "USD",
        "price_currency": "USD", "trade_date": day(-2), "effective_from": day(-2), "effective_until": day(30),
    });
    stdout(&import(dir.path(), "contracts", &credit.to_string(), &place));
    let shown: Value = serde_json::from_str(&stdout(&ask(&["budget", "--format", "json"]))).unwrap();
    let shown = &shown["budgets"][0];
    assert_eq!(
        (&shown["contract"], &shown["limit"], &shown["spent"], &shown["left"]),
        (&"prepaid".into(), &"2.5".into(), &"2.5".into(), &"0".into())
    );
    let show = stdout(&ask(&["contract", "show", "prepaid", "--on", &day(0), "--format", "json"]));
    let show: Value = serde_json::from_str(&show).unwrap();
    assert_eq!((&show["remaining"]["used"], &show["remaining"]["left"]), (&"2.5".into(), &"0".into()));
    let refused = send(&sidecar.proxy);
    assert!(refused.contains("of its contract \\\"prepaid\\\", 2.5 USD of 2.5 USD spent"), "{refused}");
    assert!(stdout(&ask(&["budget"])).contains("running"));
    let cancel = ask(&["contract", "cancel", "prepaid", "--date", &day(0)]);
    stdout(&cancel);
    assert!(stdout(&ask(&["budget"])).contains("canceled"));
    drop(sidecar);
    let checked = run(dir.path(), &["check", "--config", "b.yaml"]);
    assert!(stderr(&checked).contains("the contract \"prepaid\" was withdrawn"), "{}", stderr(&checked));
}

// === draw-down ===

#[test]
fn of_a_monthly_commitment_only_this_month_is_left() {
    let dir = empty();
    let usage = "id,started_at,team,provider,model,usage.input_tokens,cost.billed\n\
         1,2026-09-10T00:00:00Z,a,openai,m,1000000,10.00\n2,2026-10-02T00:00:00Z,a,openai,m,2000000,20.00\n\
         3,2026-10-20T00:00:00Z,a,openai,m,1000000,10.00\n";
    stdout(&import(dir.path(), "usage", usage, &[]));
    let monthly = json!({
        "position_id": "m", "kind": "commit_usage", "quantity": "3", "unit": "Mtok", "fixed_price": "8",
        "price_currency": "USD", "trade_date": "2026-08-11", "effective_from": "2026-09-01",
        "effective_until": "2026-12-01", "volumes": "each_month",
        "commitment": { "fulfilment_interval": "month" },
    });
    stdout(&import(dir.path(), "contracts", &monthly.to_string(), &[]));
    let left = |on: &str| as_json(dir.path(), &["contract", "show", "m", "--on", on]);
    for (on, used, left_then, status) in [
        ("2026-09-30", "1", "2", "Active"),
        ("2026-10-01", "0", "3", "Active"),
        ("2026-10-10", "2", "1", "Active"),
        ("2026-10-31", "3", "0", "Active"),
    ] {
        let shown = left(on);
        let told = &shown["remaining"];
        assert_eq!(
            [&told["committed"], &told["used"], &told["left"], &shown["status"]],
            ["3", used, left_then, status],
            "{on}: {told}"
        );
    }
    let told = &left("2026-10-10")["remaining"];
    assert_eq!((&told["since"], &told["lapses_after"]), (&"2026-10-01".into(), &"2026-10-31".into()));
    assert_eq!((&told["days"], &told["runs_out"]), (&10.into(), &"2026-10-15".into()));
}
