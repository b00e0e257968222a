//! Revenue and return as their users meet them: events from files and requests, and what bad ones
//! are told.
//!
//! Invariants
//! - Every test has a directory of its own; a sidecar that it starts ends with it.
//!
//! Not here: the rules (`policies::attribution`), the joins (`ledger::roi`).
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
use std::path::Path;
use std::process::{Command, Output, Stdio};

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

fn import(dir: &Path, what: &str, text: &str) -> Output {
    std::fs::create_dir_all(dir.join("data")).unwrap();
    std::fs::write(dir.join("rows"), text).unwrap();
    run(dir, &["import", what, "rows"])
}

// === events

const EVENTS: &str = "id,source,kind,amount,currency,time,refers_to,session,customer,workload,tag\n\
    r1,shop,refund,-4.00,USD,2026-09-06T00:00:00Z,s1,,,,\n\
    s1,shop,,10.00,USD,2026-09-05T10:00:00Z,,sess-1,,,\n\
    s2,shop,,7,EUR,2026-09-05,,,acme,bot,\n\
    v1,ops,saving,3,USD,2026-09-05T10:00:00Z,,,,,campaign=autumn\n";

#[test]
fn events_are_imported_once_in_any_order_and_listed() {
    let dir = tempfile::tempdir().unwrap();
    let said = stdout(&import(dir.path(), "revenue", EVENTS));
    assert!(said.contains("revenue: 4 rows, 4 new, 0 restated, 0 there already"), "{said}");
    let again = stdout(&run(dir.path(), &["revenue", "import", "rows"]));
    assert!(again.contains("0 new, 0 restated, 4 there already") && again.contains("nothing to write"));
    let list = json(dir.path(), &["revenue", "list"]);
    assert_eq!((&list["of"], &list["shown"]), (&4.into(), &4.into()));
    let first = &list["rows"][0];
    assert_eq!(
        (&first["id"], &first["session"], &first["amount"]),
        (&"s1".into(), &"sess-1".into(), &"10".into())
    );
    let refunds = json(dir.path(), &["revenue", "list", "--kind", "refund", "--from", "2026-09-06"]);
    assert_eq!((&refunds["of"], &refunds["rows"][0]["refers_to"]), (&1.into(), &"s1".into()));
    let table = stdout(&run(dir.path(), &["revenue", "list"]));
    assert!(table.contains("campaign=autumn") && !table.contains("Trace"), "{table}");
    let csv = stdout(&run(dir.path(), &["revenue", "list", "--format", "csv"]));
    assert!(csv.starts_with("time,source,id,kind,amount,currency,refers_to,request_id,"), "{csv}");
    assert!(csv.contains("2026-09-05T23:59:59.999999Z,shop,s2,revenue,7,EUR"), "{csv}");
}

#[test]
fn a_bad_file_of_events_names_every_bad_line_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    stdout(&import(dir.path(), "revenue", EVENTS));
    let rows = "{\"id\":\"s1\",\"source\":\"shop\",\"amount\":\"11\",\"currency\":\"USD\",\"time\":\"2026-09-05T10:00:00Z\"}\n\
                {\"id\":\"n1\",\"amount\":5,\"currency\":\"USD\",\"time\":\"2026-09-05T10:00:00Z\"}\n\
                {\"id\":\"n2\",\"amount\":\"x\",\"currency\":\"USD\",\"time\":\"2026-09-05T10:00:00Z\"}\n\
                not json\n\
                {\"id\":\"n3\",\"kind\":\"refund\",\"source\":\"shop\",\"amount\":-7,\"currency\":\"USD\",\"refers_to\":\"s1\",\"time\":\"2026-09-07T10:00:00Z\"}\n\
                {\"id\":\"n4\",\"amont\":5,\"currency\":\"USD\",\"time\":\"2026-09-05T10:00:00Z\"}\n";
    let refused = import(dir.path(), "revenue", rows);
    assert_eq!(refused.status.code(), Some(3));
    let errors = stderr(&refused);
    for text in [
        "line 1: event s1 is there already and says something else; send the change as an adjustment",
        "line 3: amount: \"x\" is not a plain decimal",
        "line 4: this is no JSON",
        "line 5: event n3 takes back -7, but only 6 is left of s1",
        "line 6: unknown field `amont`",
        "5 bad rows of 6; nothing was imported",
    ] {
        assert!(errors.contains(text), "{text} in {errors}");
    }
    assert_eq!(json(dir.path(), &["revenue", "list"])["of"], 4);
}

// === a running sidecar

/// Status and document of the reply to a POST.
fn post(admin: &str, path: &str, headers: &str, body: &str) -> (u16, Value) {
    let authority = admin.trim_start_matches("http://");
    let mut socket = std::net::TcpStream::connect(authority).unwrap();
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    socket.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    socket.read_to_string(&mut reply).unwrap();
    let status = reply.split(' ').nth(1).unwrap().parse().unwrap();
    let document = reply.split_once("\r\n\r\n").unwrap().1;
    (status, serde_json::from_str(document).unwrap_or(Value::Null))
}

fn cloud_event(id: &str, amount: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/shop","type":"com.example.revenue","time":"2026-09-05T10:00:00Z","data":{{"amount":"{amount}","currency":"USD","session":"s"}}}}"#
    )
}

#[test]
fn cloud_events_of_every_mode_are_taken_once_all_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(dir.path());
    let send = |headers: &str, body: &str| post(&sidecar.admin, "/api/v1/revenue-events", headers, body);
    let structured = "content-type: application/cloudevents+json\r\n";
    let batch = "content-type: application/cloudevents-batch+json\r\n";
    let (status, done) = send(structured, &cloud_event("e-1", "5"));
    assert_eq!((status, &done["new"]), (200, &1.into()), "{done}");
    let binary = "content-type: application/json\r\nce-specversion: 1.0\r\nce-id: e-1\r\nce-source: /shop\r\n\
                  ce-type: com.example.revenue\r\nce-time: 2026-09-05T10:00:00Z\r\n";
    let (status, same) = send(binary, r#"{"amount":5.00,"currency":"USD","session":"s"}"#);
    assert_eq!((status, &same["new"], &same["same"]), (200, &0.into(), &1.into()), "{same}");
    let (status, other) = send(structured, &cloud_event("e-1", "6"));
    assert_eq!((status, &other["errors"][0]["line"]), (409, &1.into()), "{other}");
    let two = format!("[{},{}]", cloud_event("e-2", "1"), cloud_event("e-3", "x"));
    let (status, bad) = send(batch, &two);
    assert_eq!(
        (status, &bad["errors"][0]["line"], &bad["applied"]),
        (422, &2.into(), &false.into()),
        "{bad}"
    );
    let two = format!("[{},{}]", cloud_event("e-2", "1"), cloud_event("e-1", "5"));
    let (status, good) = send(batch, &two);
    assert_eq!((status, &good["new"], &good["same"]), (200, &1.into(), &1.into()), "{good}");
    assert_eq!(send("content-type: text/html\r\n", "x").0, 415);
    assert_eq!(send(batch, "[]").0, 400);
    assert_eq!(send("origin: http://evil.example\r\ncontent-type: application/json\r\n", "{}").0, 403);
    let list = run(dir.path(), &["revenue", "list", "--format", "json", "--admin", &sidecar.admin]);
    let list: Value = serde_json::from_str(&stdout(&list)).unwrap();
    assert_eq!(list["of"], 2);
    drop(sidecar);
    assert_eq!(json(dir.path(), &["revenue", "list"])["of"], 2, "what was acknowledged survives a kill");
}

// === return

/// The worked examples of `cases/finance.json`, which lie beside the project or not.
fn worked_examples() -> Option<Vec<Value>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases/finance.json");
    let Ok(file) = std::fs::read_to_string(&path) else {
        println!("skipped: {} is not there; figures were checked against constants", path.display());
        return None;
    };
    let file: Value = serde_json::from_str(&file).unwrap();
    Some(file["vectors"].as_array().unwrap().clone())
}

/// What no command tells, with the reason; everything else of an example must come out of one.
const UNTOLD: [(&str, &str); 5] = [
    ("G5/int_weights", "weights are inside the model; credit is what they make"),
    ("G7/phi", "values of the game, whose shares are the credit"),
    ("G7/sum", "values of the game, whose shares are the credit"),
    ("G9/in_window", "who has credit"),
    ("G12/refund_settlement_rate", "the policy that is not ours; the difference is told"),
];

/// Every figure below a value, by its path.
fn figures_of(value: &Value, path: &str, found: &mut Vec<(String, String)>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| figures_of(value, &below(name), found))
        }
        Value::Array(all) => {
            all.iter()
                .enumerate()
                .for_each(|(place, value)| figures_of(value, &below(&place.to_string()), found));
        }
        Value::String(text) => found.push((path.to_owned(), text.clone())),
        other => found.push((path.to_owned(), other.to_string())),
    }
}

/// All figures of a worked example: those that this test found, or what no command tells. The same figures
/// are constants in the tests, so nothing is lost where the examples are not there.
fn check_vector(id: &str, figures: &[(&str, &str)]) {
    let Some(vectors) = worked_examples() else { return };
    let vector = vectors.iter().find(|vector| vector["id"] == id).unwrap();
    let mut all = Vec::new();
    figures_of(&vector["expected"], "", &mut all);
    for (path, figure) in all {
        let whole = format!("{id}/{path}");
        if UNTOLD.iter().any(|(untold, _)| whole == *untold || whole.starts_with(&format!("{untold}/"))) {
            continue;
        }
        let here = figures.iter().find(|(found, _)| *found == path);
        let here = here.unwrap_or_else(|| panic!("{whole} ({figure}) came out of no command here")).1;
        assert_eq!(here, figure, "{whole}");
    }
    assert!(figures.iter().all(|(path, _)| {
        path.split('/')
            .try_fold(&vector["expected"], |value, name| match value {
                Value::Array(all) => all.get(name.parse::<usize>().ok()?),
                value => value.get(name),
            })
            .is_some()
    }));
}

#[test]
fn no_example_of_attribution_refunds_or_return_is_left_out() {
    let Some(vectors) = worked_examples() else { return };
    let here = ["G1", "G2", "G3", "G5", "G6", "G7", "G9", "G10", "G12", "H1", "H2", "H4"];
    let ids = vectors.iter().map(|vector| vector["id"].as_str().unwrap());
    let ids: Vec<&str> = ids.filter(|id| id.starts_with(['G', 'H'])).collect();
    assert_eq!(ids, here, "each has a test in this file, `…_through_the_command`");
}

const USAGE: &str =
    "id,started_at,team,workload,session,provider,model,usage.input_tokens,cost.billed,outcome\n";

/// One request of each of these workloads at these times, all in session `s`.
fn touches(dir: &Path, touches: &[(&str, &str)]) {
    let rows = touches
        .iter()
        .enumerate()
        .map(|(number, (workload, at))| format!("t{number},{at},t,{workload},s,openai,m,1000000,1.00,ok\n"));
    stdout(&import(dir, "usage", &(USAGE.to_owned() + &rows.collect::<String>())));
}

const REVENUE: &str = "id,kind,amount,currency,time,refers_to,session\n";

fn sale(dir: &Path, amount: &str, at: &str) {
    stdout(&import(dir, "revenue", &format!("{REVENUE}sale,,{amount},USD,{at},,s\n")));
}

const SEPTEMBER: [&str; 6] = ["--from", "2026-09-01", "--to", "2026-10-01", "--on", "2026-10-31"];

fn roi(dir: &Path, more: &[&str]) -> Value {
    let report = json(dir, &[&["roi"], &SEPTEMBER[..], more].concat());
    assert_eq!(report["balance"]["balanced"], true, "{}", report["balance"]);
    report
}

/// The revenue of each row, by the name of `key`.
fn revenues(report: &Value, key: &str) -> Vec<(String, String)> {
    let rows = report["rows"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rows.iter().map(|row| (text(&row[key]), text(&row["revenue"]))).collect()
}

#[track_caller]
fn check_credit(dir: &Path, model: &[&str], expected: &[(&str, &str)]) {
    let found = revenues(&roi(dir, &[&["--by", "workload"], model].concat()), "workload");
    let expected: Vec<(String, String)> =
        expected.iter().map(|(name, amount)| ((*name).to_owned(), (*amount).to_owned())).collect();
    assert_eq!(found, expected, "{model:?}");
}

const FOUR: [(&str, &str); 4] = [
    ("w1", "2026-09-01T12:00:00Z"),
    ("w2", "2026-09-08T12:00:00Z"),
    ("w3", "2026-09-15T12:00:00Z"),
    ("w4", "2026-09-22T12:00:00Z"),
];

#[test]
fn g1_g2_first_and_last_and_position_through_the_command() {
    let dir = tempfile::tempdir().unwrap();
    touches(dir.path(), &FOUR);
    sale(dir.path(), "1000.00", "2026-09-22T12:00:00Z");
    let nothing = "0.00";
    check_credit(
        dir.path(),
        &["--model", "first"],
        &[("w1", "1000.00"), ("w2", nothing), ("w3", nothing), ("w4", nothing)],
    );
    check_credit(
        dir.path(),
        &["--model", "last"],
        &[("w1", nothing), ("w2", nothing), ("w3", nothing), ("w4", "1000.00")],
    );
    check_credit(
        dir.path(),
        &["--model", "position"],
        &[("w1", "400.00"), ("w2", "100.00"), ("w3", "100.00"), ("w4", "400.00")],
    );
    check_vector("G1", &[("w1", "1000.00"), ("w2", nothing), ("w3", nothing), ("w4", nothing)]);
    check_vector("G2", &[("w1", nothing), ("w2", nothing), ("w3", nothing), ("w4", "1000.00")]);
}

#[test]
fn g6_position_with_one_to_five_touches_through_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let (mut usage, mut events) = (USAGE.to_owned(), REVENUE.to_owned());
    for count in 1..=5 {
        for touch in 1..=count {
            usage += &format!(
                "{count}-{touch},2026-09-0{touch}T12:00:00Z,t,w{touch},{count},openai,m,10,1.00,ok\n"
            );
        }
        events += &format!("sale-{count},,1000.00,USD,2026-09-22T12:00:00Z,,{count}\n");
    }
    stdout(&import(dir.path(), "usage", &usage));
    stdout(&import(dir.path(), "revenue", &events));
    let report = roi(dir.path(), &["--by", "session,workload", "--model", "position"]);
    let rows = report["rows"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let found: Vec<(String, String)> = rows
        .map(|row| (format!("{}/{}", text(&row["session"]), text(&row["workload"])), text(&row["revenue"])))
        .collect();
    let found: Vec<(&str, &str)> =
        found.iter().map(|(path, amount)| (path.as_str(), amount.as_str())).collect();
    let expected = [
        ("1/w1", "1000.00"),
        ("2/w1", "500.00"),
        ("2/w2", "500.00"),
        ("3/w1", "400.00"),
        ("3/w2", "200.00"),
        ("3/w3", "400.00"),
        ("4/w1", "400.00"),
        ("4/w2", "100.00"),
        ("4/w3", "100.00"),
        ("4/w4", "400.00"),
        ("5/w1", "400.00"),
        ("5/w2", "66.67"),
        ("5/w3", "66.67"),
        ("5/w4", "66.66"),
        ("5/w5", "400.00"),
    ];
    assert_eq!(found, expected);
    check_vector("G6", &expected);
}

#[test]
fn g3_g5_linear_and_time_decay_through_the_command() {
    let dir = tempfile::tempdir().unwrap();
    touches(dir.path(), &FOUR[..3]);
    sale(dir.path(), "1000.00", "2026-09-22T12:00:00Z");
    check_credit(dir.path(), &[], &[("w1", "333.34"), ("w2", "333.33"), ("w3", "333.33")]);
    check_vector("G3", &[("w1", "333.34"), ("w2", "333.33"), ("w3", "333.33")]);
    let dir = tempfile::tempdir().unwrap();
    let ages =
        [("w1", "2026-09-10T12:00:00Z"), ("w2", "2026-09-17T00:00:00Z"), ("w3", "2026-09-20T12:00:00Z")];
    touches(dir.path(), &ages);
    sale(dir.path(), "1000.00", "2026-09-20T12:00:00Z");
    let expected = [("w1", "178.73"), ("w2", "340.18"), ("w3", "481.09")];
    check_credit(dir.path(), &["--model", "time_decay"], &expected);
    check_vector("G5", &[("credit/w1", "178.73"), ("credit/w2", "340.18"), ("credit/w3", "481.09")]);
}

#[test]
fn g7_shapley_and_every_model_side_by_side_through_the_command() {
    // Savings of `a` and `b` alone make their values those of the example: 3 to 2 to 1.
    let dir = tempfile::tempdir().unwrap();
    let usage = USAGE.to_owned()
        + "1,2026-09-01T00:00:00Z,t,a,s,openai,m,1,1.00,ok\n2,2026-09-02T00:00:00Z,t,b,s,openai,m,1,1.00,ok\n\
           3,2026-09-03T00:00:00Z,t,c,s,openai,m,1,1.00,ok\n4,2026-09-03T00:00:00Z,t,a,a,openai,m,1,1.00,ok\n\
           5,2026-09-03T00:00:00Z,t,b,b,openai,m,1,1.00,ok\n6,2026-09-03T00:00:00Z,t,c,idle,openai,m,1,1.00,ok\n";
    stdout(&import(dir.path(), "usage", &usage));
    let at = "2026-09-04T00:00:00Z";
    let events = format!(
        "{REVENUE}x,,1000.00,USD,{at},,s\ny,saving,666.666666666667,USD,{at},,a\nz,saving,333.333333333333,USD,{at},,b\n"
    );
    stdout(&import(dir.path(), "revenue", &events));
    let expected = [("a", "500.00"), ("b", "333.33"), ("c", "166.67")];
    check_credit(dir.path(), &["--model", "shapley"], &expected);
    let theirs =
        [("credit_of_1000/a", "500.00"), ("credit_of_1000/b", "333.33"), ("credit_of_1000/c", "166.67")];
    check_vector("G7", &theirs);
    let report = roi(dir.path(), &["--by", "workload", "--compare"]);
    let models = report["compare"].as_array().unwrap();
    assert_eq!(models.len(), 7);
    for model in models {
        let of = |name: &str| {
            let rows = model["rows"].as_array().unwrap().iter().filter(|_| true);
            rows.map(|row| cents(&row[name])).sum::<i64>() + cents(&model["unattributed"][name])
        };
        assert_eq!(of("revenue"), 100_000, "{model}");
    }
    assert_eq!(revenues(&models[5], "workload")[0].1, "500.00");
    // Without `c`, half of the journeys that pass it still would end in revenue; `a` and `b` lose more.
    let markov = revenues(&models[6], "workload");
    assert!(cents(&markov[2].1.clone().into()) < cents(&markov[0].1.clone().into()), "{markov:?}");
    let table = stdout(&run(dir.path(), &[&["roi", "--compare"], &SEPTEMBER[..]].concat()));
    assert!(table.contains("model markov (unattributed 0.00)"), "{table}");
}

fn cents(text: &Value) -> i64 {
    let text = text.as_str().unwrap();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{:0<2}", fraction.get(..2).unwrap_or(fraction)).parse().unwrap()
}

#[test]
fn g9_the_look_back_is_inclusive_at_both_ends_through_the_command() {
    let dir = tempfile::tempdir().unwrap();
    touches(
        dir.path(),
        &[
            ("w1", "2026-08-16T12:00:00Z"),
            ("w2", "2026-09-01T12:00:00Z"),
            ("w3", "2026-08-31T12:00:00Z"),
            ("w4", "2026-09-30T12:00:00Z"),
            ("w5", "2026-09-30T12:00:00.000001Z"),
        ],
    );
    sale(dir.path(), "1000.00", "2026-09-30T12:00:00Z");
    let expected = [("w2", "333.34"), ("w3", "333.33"), ("w4", "333.33"), ("w5", "0.00")];
    check_credit(dir.path(), &[], &expected);
    check_credit(dir.path(), &["--look-back", "1d"], &[("w2", "0.00"), ("w4", "1000.00"), ("w5", "0.00")]);
    check_vector("G9", &[("credit/w2", "333.34"), ("credit/w3", "333.33"), ("credit/w4", "333.33")]);
}

#[test]
fn g10_a_refund_of_a_later_month_reverses_the_credits_through_the_command() {
    let dir = tempfile::tempdir().unwrap();
    touches(dir.path(), &FOUR);
    sale(dir.path(), "1000.00", "2026-09-22T12:00:00Z");
    let refund = format!("{REVENUE}r,refund,-250.03,USD,2026-10-02T00:00:00Z,sale,\n");
    stdout(&import(dir.path(), "revenue", &refund));
    let by = ["roi", "--by", "workload", "--model", "position", "--on", "2026-10-31"];
    let october = json(dir.path(), &[&by[..], &["--from", "2026-10-01", "--to", "2026-11-01"]].concat());
    let amounts =
        |report: &Value| revenues(report, "workload").into_iter().map(|(_, a)| a).collect::<Vec<_>>();
    assert_eq!(amounts(&october), ["-100.01", "-25.01", "-25.00", "-100.01"]);
    let both = json(dir.path(), &[&by[..], &["--from", "2026-09-01", "--to", "2026-11-01"]].concat());
    assert_eq!(amounts(&both), ["299.99", "74.99", "75.00", "299.99"]);
    assert_eq!(
        (&both["trend"][0]["revenue"], &both["trend"][1]["revenue"]),
        (&"1000.00".into(), &"-250.03".into())
    );
    let september = json(dir.path(), &[&by[..], &["--from", "2026-09-01", "--to", "2026-10-01"]].concat());
    assert_eq!(amounts(&september), ["400.00", "100.00", "100.00", "400.00"]);
    let all = [("original", september), ("reversal", october), ("net", both)];
    let figures: Vec<(String, String)> = all
        .iter()
        .flat_map(|(name, report)| {
            revenues(report, "workload")
                .into_iter()
                .map(move |(workload, amount)| (format!("{name}/{workload}"), amount))
        })
        .collect();
    check_vector(
        "G10",
        &figures.iter().map(|(path, amount)| (path.as_str(), amount.as_str())).collect::<Vec<_>>(),
    );
}

#[test]
fn g12_revenue_in_another_currency_through_the_command() {
    let dir = tempfile::tempdir().unwrap();
    touches(dir.path(), &FOUR);
    let events = "id,kind,amount,currency,time,refers_to,session\n\
                  sale,,820.00,EUR,2026-09-22T12:00:00Z,,s\nback,refund,-410,EUR,2026-09-25T00:00:00Z,sale,\n";
    stdout(&import(dir.path(), "revenue", events));
    let unknown = roi(dir.path(), &[]);
    assert_eq!((&unknown["complete"], &unknown["rows"][0]["revenue"]), (&false.into(), &"0.00".into()));
    assert!(
        unknown["unpriced"][0]["reason"]
            .as_str()
            .unwrap()
            .contains("in EUR without an exchange rate on 2026-09-22")
    );
    let rates = "pair,date,rate,source\nEUR/USD,2026-09-22,1.0874,ecb\nEUR/USD,2026-09-25,1.1010,ecb\n";
    stdout(&import(dir.path(), "fx", rates));
    let report = roi(dir.path(), &[]);
    assert_eq!(report["complete"], true, "{}", report["unpriced"]);
    assert_eq!(report["rows"][0]["revenue"], "445.84", "891.67 less 445.83");
    assert_eq!(report["trend"][0]["revenue"], "445.84");
    let before = ["roi", "--from", "2026-09-01", "--to", "2026-09-25", "--on", "2026-10-31"];
    assert_eq!(json(dir.path(), &before)["rows"][0]["revenue"], "891.67", "before the refund");
    let after = ["roi", "--from", "2026-09-25", "--to", "2026-10-01", "--on", "2026-10-31"];
    assert_eq!(json(dir.path(), &after)["rows"][0]["revenue"], "-445.83", "the refund alone");
    assert_eq!(report["received"]["refund_fx_difference"], "-5.58");
    let euros = &report["received"]["by_currency"][0];
    assert_eq!((&euros["revenue"], &euros["revenue_converted"]), (&"410.00".into(), &"445.84".into()));
    check_vector(
        "G12",
        &[("usd", "891.67"), ("refund_original_rate", "-445.83"), ("fx_difference", "-5.58")],
    );
}

#[test]
fn h1_return_per_token_with_and_without_hedge_through_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let usage = USAGE.to_owned() + "1,2026-09-10T00:00:00Z,t,w,s,openai,m,32400000000,63451.70,ok\n";
    stdout(&import(dir.path(), "usage", &usage));
    let events = format!(
        "{REVENUE}v,,96500.00,USD,2026-09-20T00:00:00Z,,s\nx,saving,12000.00,USD,2026-09-20T00:00:00Z,,s\n"
    );
    stdout(&import(dir.path(), "revenue", &events));
    let swap = r#"{"position_id":"s","kind":"swap_fixed_float","quantity":"1000","unit":"Mtok","fixed_price":"2","index_id":"TPI","settlement_rule":"point","fallback":"last_published","trade_date":"2026-08-11","effective_from":"2026-09-01","effective_until":"2026-10-01","designation":{}}"#;
    stdout(&import(dir.path(), "fixings", "index,date,value,currency\nTPI,2026-09-30,6.7517,USD\n"));
    stdout(&import(dir.path(), "contracts", swap));
    let report = roi(dir.path(), &[]);
    let row = &report["rows"][0];
    for (name, figure) in [
        ("roi", "0.6439522998"),
        ("roi_with_savings", "0.8483816014"),
        ("roi_unhedged_with_savings", "0.7099620656"),
        ("net_per_million_tokens_with_savings", "1.5370370370"),
        ("net_per_thousand_tokens_with_savings", "0.001537037037"),
        ("cost_per_million_tokens", "1.8117283951"),
        ("cost_per_million_tokens_unhedged", "1.9583858025"),
        ("net_per_million_tokens_unhedged_with_savings", "1.3903796296"),
        ("gross_margin", "0.3917098446"),
        ("hedge_uplift", "4751.70"),
    ] {
        assert_eq!(row[name], figure, "{name} in {row:#}");
    }
    assert_eq!((&row["cost"]["hedged"], &report["book_total"]), (&"58700.00".into(), &"58700.00".into()));
    check_vector(
        "H1",
        &[
            ("roi_revenue_only", "0.6439522998"),
            ("cost_per_M_spot", "1.9583858025"),
            ("net_per_M_spot", "1.3903796296"),
            ("gross_margin_effective_revenue_only", "0.3917098446"),
            ("roi_effective", "0.8483816014"),
            ("roi_spot", "0.7099620656"),
            ("net_per_M_effective", "1.5370370370"),
            ("net_per_1k_effective", "0.001537037037"),
            ("cost_per_M_effective", "1.8117283951"),
            ("hedge_uplift_usd", "4751.70"),
        ],
    );
}

#[test]
fn h2_what_is_undefined_is_null_with_its_reason_through_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let usage = "id,started_at,team,workload,session,provider,model,usage.input_tokens,cost.billed\n\
        1,2026-09-10T00:00:00Z,free,w,s1,openai,m,10,0\n2,2026-09-10T00:00:00Z,poor,w,s2,openai,m,10,50.00\n\
        3,2026-09-10T00:00:00Z,still,w,s3,openai,m,,50.00\n4,2026-09-10T00:00:00Z,unknown,w,s4,nobody,m,10,\n";
    stdout(&import(dir.path(), "usage", usage));
    let before = roi(dir.path(), &[]);
    assert_eq!((&before["rows"][1]["roi"], &before["rows"][1]["revenue"]), (&Value::Null, &Value::Null));
    assert_eq!(before["rows"][1]["reasons"]["roi"], "no_revenue_events");
    let at = "2026-09-20T00:00:00Z";
    let events = format!("{REVENUE}a,,100.00,USD,{at},,s1\nb,,100.00,USD,{at},,s3\n");
    stdout(&import(dir.path(), "revenue", &events));
    let report = roi(dir.path(), &[]);
    let row = |team: &str| report["rows"].as_array().unwrap().iter().find(|row| row["team"] == team).unwrap();
    assert_eq!((&row("free")["roi"], &row("free")["reasons"]["roi"]), (&Value::Null, &"zero_cost".into()));
    assert_eq!(row("poor")["roi"], "-1.0000000000");
    assert_eq!(
        (&row("still")["roi"], &row("still")["reasons"]["net_per_million_tokens"]),
        (&"1.0000000000".into(), &"zero_tokens".into())
    );
    assert_eq!(row("still")["total_tokens"], Value::Null);
    let unknown = row("unknown");
    assert_eq!((&unknown["cost"]["billed"], &unknown["reasons"]["roi"]), (&Value::Null, &"unpriced".into()));
    assert_eq!(unknown["cost"]["status"], "unpriced");
    // A hedge that brings more than was spent: the cost is below zero.
    let gain = tempfile::tempdir().unwrap();
    stdout(&import(
        gain.path(),
        "usage",
        &(USAGE.to_owned() + "1,2026-09-10T00:00:00Z,t,w,s,openai,m,1000000,10.00,ok\n"),
    ));
    stdout(&import(gain.path(), "fixings", "index,date,value,currency\nTPI,2026-09-30,17,USD\n"));
    let swap = r#"{"position_id":"s","kind":"swap_fixed_float","quantity":"1","unit":"Mtok","fixed_price":"2","index_id":"TPI","settlement_rule":"point","fallback":"last_published","trade_date":"2026-08-11","effective_from":"2026-09-01","effective_until":"2026-10-01","designation":{}}"#;
    stdout(&import(gain.path(), "contracts", swap));
    sale(gain.path(), "10.00", "2026-09-20T00:00:00Z");
    let gained = roi(gain.path(), &[]);
    let gained = &gained["rows"][0];
    assert_eq!((&gained["cost"]["hedged"], &gained["roi"]), (&"-5.00".into(), &Value::Null));
    let flag = |row: &Value, figure: &str| row["reasons"][figure].as_str().unwrap_or_default().to_owned();
    let flags = [
        flag(row("free"), "roi"),
        flag(row("poor"), "roi"),
        flag(gained, "roi"),
        flag(row("still"), "net_per_million_tokens"),
    ];
    assert_eq!(flags, ["zero_cost", "", "negative_cost", "zero_tokens"]);
    let mut figures = vec![("roi/0", "null"), ("roi/1", "-1"), ("roi/2", "null"), ("roi/3", "1")];
    let names = ["flags/0", "flags/1", "flags/2", "flags/3"];
    figures.extend(names.into_iter().zip(flags.iter().map(String::as_str)));
    check_vector("H2", &figures);
}

#[test]
fn h4_failed_attempts_stay_in_the_cost_per_success_through_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let mut usage = USAGE.to_owned();
    for number in 0..410 {
        let outcome = if number < 369 { "ok" } else { "error" };
        let cost = if number == 0 { "587.00" } else { "0" };
        usage += &format!("{number},2026-09-10T00:00:00Z,t,w,s,openai,m,10,{cost},{outcome}\n");
    }
    stdout(&import(dir.path(), "usage", &usage));
    let row = &roi(dir.path(), &[])["rows"][0];
    assert_eq!((&row["requests"], &row["successes"]), (&410.into(), &369.into()));
    assert_eq!(
        (&row["cost_per_request"], &row["cost_per_success"]),
        (&"1.4317073171".into(), &"1.5907859079".into())
    );
    check_vector("H4", &[("cost_per_attempt", "1.4317073171"), ("cost_per_success", "1.5907859079")]);
}

#[test]
fn names_that_look_like_formulas_or_markup_are_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let usage = "id,started_at,team,workload,session,provider,model,usage.input_tokens,cost.billed\n\
        1,2026-09-10T00:00:00Z,=cmd(),<script>,s1,openai,m,10,1.00\n2,2026-09-10T00:00:00Z,@x,+w,s2,openai,m,10,1.00\n";
    stdout(&import(dir.path(), "usage", usage));
    sale(dir.path(), "5", "2026-09-20T00:00:00Z");
    let args = [&["roi", "--by", "team,workload", "--format", "csv"], &SEPTEMBER[..]].concat();
    let csv = stdout(&run(dir.path(), &args));
    assert!(csv.contains("\n'=cmd(),<script>,") && csv.contains("\n'@x,'+w,"), "{csv}");
    assert!(!csv.contains("\n=") && !csv.contains(",="), "{csv}");
    let table = stdout(&run(dir.path(), &[&["roi"], &SEPTEMBER[..]].concat()));
    assert!(
        table.contains("revenue: attributed 0.00 + unattributed 5.00 = received 5.00 USD (checked)"),
        "{table}"
    );
}

#[test]
fn questions_that_cannot_be_answered_say_why() {
    let dir = tempfile::tempdir().unwrap();
    touches(dir.path(), &FOUR);
    let check = |args: &[&str], text: &str| {
        let refused = run(dir.path(), &[&["roi"], args].concat());
        assert!(!refused.status.success());
        assert!(stderr(&refused).contains(text), "{}", stderr(&refused));
    };
    check(&["--model", "magic"], "use first, last, linear, time_decay, position, shapley, markov");
    check(&["--look-back", "30"], "write whole days such as 30d");
    check(&["--by", "colour"], "is no grouping");
    check(&["--from", "2026-09-01", "--to", "2026-08-01"], "the period is empty");
    check(&["--currency", "usd"], "is no currency code");
}

#[test]
fn a_running_sidecar_gives_the_same_report() {
    let dir = tempfile::tempdir().unwrap();
    touches(dir.path(), &FOUR);
    sale(dir.path(), "1000.00", "2026-09-22T12:00:00Z");
    let mut here = roi(dir.path(), &["--by", "team,workload", "--movers", "--compare"]);
    let sidecar = Sidecar::start(dir.path());
    let args = [
        "roi",
        "--by",
        "team,workload",
        "--movers",
        "--compare",
        "--format",
        "json",
        "--admin",
        &sidecar.admin,
    ];
    let there = run(dir.path(), &[&args[..], &SEPTEMBER[..]].concat());
    let mut there: Value = serde_json::from_str(&stdout(&there)).unwrap();
    for document in [&mut here, &mut there] {
        document.as_object_mut().unwrap().remove("as_of").unwrap();
    }
    assert_eq!(here, there);
    assert_eq!(here["movers"]["rows"][0]["net_change"], "249.00");
    let wrong = run(dir.path(), &["roi", "--model", "magic", "--admin", &sidecar.admin]);
    assert!(stderr(&wrong).contains("400"), "{}", stderr(&wrong));
}

// === the guide

fn docs(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide").join(name)
}

#[test]
fn the_guide_goes_from_nothing_to_a_report_with_its_figures() {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["hedging", "roi"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
        for file in std::fs::read_dir(docs(folder)).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), dir.path().join(folder).join(file.file_name())).unwrap();
        }
    }
    let page = std::fs::read_to_string(docs("roi.md")).unwrap();
    let block = page.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let commands: Vec<Vec<&str>> =
        block.lines().map(|line| line.split_whitespace().skip(1).collect()).collect();
    assert_eq!(commands.len(), 7);
    let mut said = String::new();
    for command in &commands {
        said = stdout(&run(dir.path(), command));
    }
    let lines = page.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(said.contains(lines), "{lines} in {said}");
    // The table of the page: each of its cells, in order, in the line of its team.
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ") && line.contains("0.")).collect();
    let rows: Vec<Vec<&str>> =
        rows.iter().map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect();
    let mut seen = 0;
    for row in rows.iter().filter(|row| ["alpha", "beta", "gamma", "(book)"].contains(&row[0])) {
        let line = said.lines().find(|line| line.trim_start().starts_with(row[0])).unwrap();
        let mut words = line.split_whitespace();
        for cell in row {
            assert!(words.any(|word| word == *cell), "{cell} in {line}");
        }
        seen += 1;
    }
    assert_eq!(seen, 4);
    // To the workbook that can be signed.
    let block = page.split("```sh\n").nth(2).unwrap().split("```").next().unwrap();
    let mut said = Vec::new();
    for line in block.lines() {
        let command: Vec<&str> = line.split_whitespace().skip(1).collect();
        said.push(stdout(&run(dir.path(), &command)));
    }
    assert!(said[0].starts_with("2026-09 is closed up to sequence "), "{said:?}");
    let sum = said[0].trim_end().rsplit(' ').next().unwrap();
    assert!(sum.len() == 64 && said[3].contains(sum) && said[3].contains("true"), "{said:?}");
    let frozen = json(dir.path(), &["period", "show", "2026-09"]);
    assert_eq!((&frozen["book_total"], &frozen["book"]["roi"]), (&"60999.15".into(), &"0.5636022797".into()));
    for file in ["2026-09.xlsx", "2026-09.html", "2026-09.xlsx.sha256"] {
        assert!(dir.path().join(file).exists(), "{file}");
    }
}

// === periods

const SWAP: &str = r#"{"position_id":"aug","kind":"swap_fixed_float","quantity":"1","unit":"Mtok","fixed_price":"2","index_id":"TPI","settlement_rule":"point","fallback":"last_published","trade_date":"2026-07-11","effective_from":"2026-08-01","effective_until":"2026-09-01","designation":{}}"#;

/// What is known when August is closed.
fn until_the_close(dir: &Path) {
    let usage = USAGE.to_owned()
        + "1,2026-08-10T00:00:00Z,a,w1,s1,openai,m,4000000,40.00,ok\n2,2026-08-11T00:00:00Z,b,w2,s1,openai,m,2000000,20.00,ok\n\
           3,2026-09-10T00:00:00Z,a,w1,s2,openai,m,1000000,10.00,ok\n";
    stdout(&import(dir, "usage", &usage));
    stdout(&import(dir, "fixings", "index,date,value,currency\nTPI,2026-08-31,5,USD\n"));
    stdout(&import(dir, "contracts", SWAP));
    let sales = "sale,,300.00,USD,2026-08-20T00:00:00Z,,s1\nlater,,90.00,USD,2026-09-20T00:00:00Z,,s2\n";
    stdout(&import(dir, "revenue", &(REVENUE.to_owned() + sales)));
}

/// What becomes known after it: usage, a restated fixing, revenue of August, and a refund in September.
fn after_the_close(dir: &Path) {
    let usage = USAGE.to_owned() + "4,2026-08-12T00:00:00Z,c,w3,s1,openai,m,2000000,7.77,ok\n";
    stdout(&import(dir, "usage", &usage));
    stdout(&import(dir, "fixings", "index,date,value,currency\nTPI,2026-08-31,4.5,USD\n"));
    let events = "r,refund,-30.00,USD,2026-09-02T00:00:00Z,sale,\nlate,,60.00,USD,2026-08-21T00:00:00Z,,s1\n";
    stdout(&import(dir, "revenue", &(REVENUE.to_owned() + events)));
}

fn of_month(dir: &Path, month: u8, more: &[&str]) -> Value {
    let (from, to) = (format!("2026-{month:02}-01"), format!("2026-{:02}-01", month + 1));
    let by = ["roi", "--by", "team,workload", "--from", &from, "--to", &to];
    json(dir, &[&by[..], more].concat())
}

#[test]
fn a_closed_month_keeps_its_bytes_and_what_comes_late_is_a_correction() {
    let dir = tempfile::tempdir().unwrap();
    until_the_close(dir.path());
    let close = |month: &str, more: &[&str]| run(dir.path(), &[&["period", "close", month], more].concat());
    let said = stdout(&close("2026-08", &[]));
    assert!(
        said.starts_with("2026-08 is closed up to sequence ") && said.contains("2 rows, 0 corrections"),
        "{said}"
    );
    let shown = || stdout(&run(dir.path(), &["period", "show", "2026-08", "--format", "json"]));
    let first = shown();
    let frozen: Value = serde_json::from_str(&first).unwrap();
    assert_eq!((&frozen["book_total"], &frozen["reported"]["revenue"]), (&"57.00".into(), &"300.00".into()));
    after_the_close(dir.path());
    assert_eq!(shown(), first, "the same bytes");
    let mut again = of_month(dir.path(), 8, &["--as", "reported"]);
    assert_eq!(again, frozen, "and the same figures, computed from the ledger as it was");
    let restated = |month: u8| of_month(dir.path(), month, &["--as", "restated"]);
    let (august, september) = (restated(8), restated(9));
    assert_eq!(
        (&august["book_total"], &august["balance"]["revenue"]["received"]),
        (&"65.27".into(), &"360.00".into())
    );

    // Everything imported into an empty ledger says the same as the restated view.
    let fresh = tempfile::tempdir().unwrap();
    until_the_close(fresh.path());
    after_the_close(fresh.path());
    for (month, found) in [(8, &august), (9, &september)] {
        let scratch = of_month(fresh.path(), month, &[]);
        assert_eq!((&scratch["rows"], &scratch["book"]), (&found["rows"], &found["book"]));
    }

    // The open month carries the corrections with their origin, and months as reported sum to restated.
    let open = of_month(dir.path(), 9, &["--as", "reported"]);
    let correction = &open["corrections"][0];
    assert_eq!(
        (&correction["origin"], &correction["book"], &correction["revenue"]),
        (&"2026-08".into(), &"8.27".into(), &"60.00".into())
    );
    let late = correction["rows"].as_array().unwrap().iter().find(|row| row["team"] == "c").unwrap();
    assert_eq!(
        (&late["requests"], &late["billed"], &late["revenue"]),
        (&1.into(), &"7.77".into(), &"120.00".into())
    );
    for (name, path) in [("book_total", "book"), ("revenue", "revenue")] {
        let sum = cents(&frozen["reported"][name]) + cents(&open["reported"][name]);
        let of = |report: &Value| match path {
            "book" => cents(&report["book_total"]),
            _ => cents(&report["balance"]["revenue"]["received"]),
        };
        assert_eq!(sum, of(&august) + of(&september), "{name}");
    }
    let table =
        stdout(&run(dir.path(), &["roi", "--as", "reported", "--from", "2026-09-01", "--to", "2026-10-01"]));
    assert!(table.contains("correction of 2026-08: cost 8.27, revenue 60.00, savings 0.00 USD"), "{table}");

    // September is closed with them; October then has none.
    assert!(stdout(&close("2026-09", &[])).contains("1 corrections"));
    assert_eq!(of_month(dir.path(), 10, &["--as", "reported"])["corrections"], serde_json::json!([]));
    again = of_month(dir.path(), 9, &["--as", "reported"]);
    assert_eq!(again["reported"], open["reported"]);
    assert_eq!(shown(), first);
    let list = json(dir.path(), &["period", "list"]);
    let rows = list["rows"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| &row["whole"]).collect::<Vec<_>>(), [&Value::from(true), &true.into()]);
    assert_eq!(rows[0]["bytes"], first.len());
    assert_eq!(rows[0]["sha256"].as_str().unwrap().len(), 64);
    for name in ["one.xlsx", "two.xlsx"] {
        stdout(&run(dir.path(), &["period", "show", "2026-08", "--xlsx", name]));
    }
    let book = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    assert!(book("one.xlsx").starts_with(b"PK") && book("one.xlsx") == book("two.xlsx"));
    let csv = stdout(&run(dir.path(), &["period", "show", "2026-08", "--format", "csv"]));
    assert!(csv.starts_with("team,workload,requests,"), "{csv}");
}

#[test]
fn months_that_cannot_be_closed_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    until_the_close(dir.path());
    let refuse = |args: &[&str], text: &str| {
        let refused = run(dir.path(), &[&["period", "close"], args].concat());
        assert!(!refused.status.success());
        assert!(stderr(&refused).contains(text), "{text} in {}", stderr(&refused));
    };
    refuse(&["August"], "is not a month: write it as 2026-09");
    refuse(&["9999-01"], "is not over");
    let missing = "{\"id\":\"5\",\"started_at\":\"2026-08-13T00:00:00Z\",\"provider\":\"nobody\",\"model\":\"m\",\"usage\":{\"input_tokens\":1}}";
    stdout(&import(dir.path(), "usage", missing));
    refuse(&["2026-08"], "the month is incomplete");
    stdout(&run(dir.path(), &["period", "close", "2026-08", "--accept-gaps"]));
    refuse(&["2026-08"], "2026-08 is closed already");
    refuse(&["2026-10"], "2026-09 is still open: close it before 2026-10");
    refuse(&["2026-09", "--model", "first"], "earlier months were closed in other terms");
    assert!(stderr(&run(dir.path(), &["period", "show", "2026-09"])).contains("2026-09 is not closed"));
    let open = run(dir.path(), &["roi", "--as", "reported"]);
    assert!(stderr(&open).contains("one calendar month"), "{}", stderr(&open));
    let sidecar = Sidecar::start(dir.path());
    let (status, refused) = post(&sidecar.admin, "/api/v1/periods/2026-08/close", "", "");
    assert_eq!((status, refused["detail"].as_str()), (400, Some("2026-08 is closed already")));
    let done = run(dir.path(), &["period", "close", "2026-09", "--admin", &sidecar.admin]);
    assert!(stdout(&done).starts_with("2026-09 is closed"));
}
