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

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

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

/// A sidecar on the ledger `data` in a directory. Dropping it ends it.
struct Sidecar {
    child: Child,
    admin: String,
}

impl Sidecar {
    fn start(dir: &Path) -> Self {
        let listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir", "data"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
        command.arg("serve").args(listen).current_dir(dir).env_clear().stdin(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let ready = lines.find(|line| line.contains("bursar serves")).expect("it serves");
        let ready: Value = serde_json::from_str(&ready).unwrap();
        let admin = format!("http://{}", ready["admin"].as_str().unwrap());
        // Whoever writes to a pipe that nobody reads would stop.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, admin }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

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
