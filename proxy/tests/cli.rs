//! The whole binary, as its users run it: commands, files, signals, sockets, exit codes.
//!
//! Invariants
//! - Every test has a directory, ports and processes of its own; what it starts ends with it.
//! - Tests wait for events (a line, a reply, an exit), never for time; a watchdog ends what hangs.
//!
//! Not here: what happens on the wire (`tests/scenarios.rs` sees every byte, without sockets).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is a failed test"
)]

use serde_json::Value;
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// After this a test that hangs fails. Nothing is expected to take so long.
const WATCHDOG: Duration = Duration::from_secs(60);

const CHAT: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;
const CHAT_REPLY: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"Hello."},"finish_reason":"stop"}],"usage":{"prompt_tokens":1000,"completion_tokens":500,"total_tokens":1500,"prompt_tokens_details":{"cached_tokens":200}}}"#;
const FIRST_EVENT: &str = "data: {\"id\":\"c\",\"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"}}]}\n\n";

// === processes

/// `bursar` with these arguments, in a directory of its own, without the tester's environment.
fn bursar(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
    command.args(args).current_dir(dir).env_clear().stdin(Stdio::null());
    command
}

/// Runs a command to its end.
fn run(dir: &Path, args: &[&str]) -> Output {
    bursar(dir, args).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A running sidecar. Dropping it kills it.
struct Sidecar {
    child: Child,
    proxy: SocketAddr,
    admin: SocketAddr,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Sidecar {
    /// Starts one in `dir` with one route to `upstream` and further settings.
    fn start(dir: &Path, upstream: SocketAddr, settings: &str) -> Self {
        let config = format!(
            "listen: 127.0.0.1:0\nadmin:\n  listen: 127.0.0.1:0\n{settings}\nbuiltin_routes: false\nroutes:\n  - {{ prefix: /openai, upstream: 'http://{upstream}', provider: openai }}\n"
        );
        let file = dir.join("bursar.yaml");
        std::fs::write(&file, config).unwrap();
        let mut child = bursar(dir, &["serve", "--config", "bursar.yaml", "--data-dir", "data"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let errors = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                // The test may have ended.
                let _ = sender.send(line);
            }
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut sidecar = Self { child, proxy: nowhere, admin: nowhere, lines, seen: Vec::new() };
        let ready: Value = serde_json::from_str(&sidecar.line("bursar serves")).unwrap();
        sidecar.proxy = ready["proxy"].as_str().unwrap().parse().unwrap();
        sidecar.admin = ready["admin"].as_str().unwrap().parse().unwrap();
        sidecar
    }

    /// Waits for a line of the log that contains `text`.
    fn line(&mut self, text: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv_timeout(WATCHDOG) else {
                panic!("the log never said {text:?}: {:#?}", self.seen);
            };
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end.
    fn ended(mut self) -> i32 {
        let pid = self.pid().to_string();
        let (done, wait) = channel::<()>();
        let watchdog = std::thread::spawn(move || {
            if wait.recv_timeout(WATCHDOG) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                // The wait below then ends, and the test fails for the exit code.
                let _ = Command::new("kill").args(["-KILL", &pid]).status();
            }
        });
        let status = self.child.wait().unwrap();
        drop(done);
        watchdog.join().unwrap();
        status.code().unwrap_or(-1)
    }

    /// Stops it in the polite way.
    fn stop(self) {
        self.signal("-TERM");
        assert_eq!(self.ended(), 0);
    }

    fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }

    fn chat(&self, headers: &str) -> Reply {
        request(self.proxy, "POST", "/openai/v1/chat/completions", headers, CHAT)
    }

    fn get(&self, path: &str) -> Reply {
        request(self.admin, "GET", path, "", "")
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === sockets

/// A reply as it came over a connection that was then closed.
#[derive(Debug)]
struct Reply {
    head: String,
    body: String,
}

impl Reply {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn connect(to: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(to).unwrap();
    socket.set_read_timeout(Some(WATCHDOG)).unwrap();
    socket
}

/// Sends a request on a connection of its own.
fn send(to: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
    let mut socket = connect(to);
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(body.as_bytes()).unwrap();
    socket
}

fn request(to: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Reply {
    let mut text = String::new();
    send(to, method, path, headers, body).read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    Reply { head: head.to_owned(), body: body.to_owned() }
}

/// Reads until `text` has come.
fn read_until(socket: &mut TcpStream, text: &str) -> String {
    let mut all = Vec::new();
    let mut piece = [0_u8; 4096];
    while !String::from_utf8_lossy(&all).contains(text) {
        let count = socket.read(&mut piece).unwrap();
        assert!(count > 0, "the connection ended before {text:?}");
        all.extend_from_slice(&piece[..count]);
    }
    String::from_utf8(all).unwrap()
}

/// A listener that hands every request to `answer`, one thread per connection.
fn upstream(answer: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || serve(socket, answer.as_ref()));
        }
    });
    address
}

fn serve(mut socket: TcpStream, answer: &dyn Fn(&mut TcpStream)) {
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match reader.read_line(&mut head) {
                Ok(count) if count > 0 => {}
                _ => return,
            }
        }
        let length = header(&head, "content-length").map_or(0, |l| l.parse().unwrap());
        let mut body = vec![0_u8; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        answer(&mut socket);
    }
}

/// An upstream that answers every chat request.
fn chatty() -> SocketAddr {
    upstream(|socket| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
        // The sidecar may have gone.
        let _ = write!(socket, "{head}{}\r\n\r\n{CHAT_REPLY}", CHAT_REPLY.len());
    })
}

/// An upstream that streams one event, and the end when it is told.
fn streaming() -> (SocketAddr, Sender<()>) {
    let (go_on, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let address = upstream(move |socket| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let _ = write!(socket, "{head}{:x}\r\n{FIRST_EVENT}\r\n", FIRST_EVENT.len());
        if wait.lock().unwrap().recv().is_ok() {
            let _ = write!(socket, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
        }
    });
    (address, go_on)
}

fn usage_json(dir: &Path, source: &[&str]) -> Value {
    let mut args = vec!["usage", "--by", "team,model", "--format", "json"];
    args.extend(source);
    let mut document: Value = serde_json::from_str(&stdout(&run(dir, &args))).unwrap();
    document.as_object_mut().unwrap().remove("as_of");
    document
}

fn exported(dir: &Path, source: &[&str], format: &str) -> String {
    let mut args = vec!["export", "usage", "--format", format];
    args.extend(source);
    stdout(&run(dir, &args))
}

fn ids(jsonl: &str) -> Vec<String> {
    let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
    jsonl.lines().map(id).collect()
}

// === tests

#[test]
fn a_sidecar_answers_for_its_health_and_its_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(dir.path(), chatty(), "");
    assert_eq!((sidecar.get("/healthz").status(), sidecar.get("/readyz").status()), (200, 200));
    assert_eq!(sidecar.chat("").status(), 200);
    let page = sidecar.get("/metrics");
    assert_eq!(page.status(), 200);
    assert!(page.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    is_openmetrics(&page.body);
    let first = page.body.lines().nth(2).unwrap();
    assert!(first.starts_with("target_info{") && first.contains("service_name=\"bursar\""), "{first}");
    for name in ["start_time_seconds", "cpu_seconds_total", "resident_memory_bytes", "open_fds"] {
        assert!(page.body.contains(&format!("\nprocess_{name} ")), "{name}: {}", page.body);
    }
    let series = page.body.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series < 700, "{series} series after one request");
    assert!(
        page.body.contains("bursar_requests_total{provider=\"openai\",outcome=\"ok\"} 1\n"),
        "{}",
        page.body
    );
    let missing = sidecar.get("/nothing");
    assert_eq!((missing.status(), missing.header("content-type")), (404, Some("application/problem+json")));
    sidecar.stop();
}

/// Each sample belongs to a family declared before it, names are not declared twice, and it ends.
fn is_openmetrics(page: &str) {
    assert!(page.ends_with("# EOF\n"), "{page}");
    let mut families = Vec::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (family, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram", "info"].contains(&kind), "{line}");
            assert!(!families.iter().any(|(known, _)| *known == family), "{family} twice");
            families.push((family, kind));
        } else if !line.starts_with('#') {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let (family, kind) = families.last().unwrap();
            let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{name} is not of {family}"));
            let suffixes: &[&str] = match *kind {
                "counter" => &["_total", "_created"],
                "gauge" => &[""],
                "info" => &["_info"],
                _ => &["_bucket", "_sum", "_count", "_created"],
            };
            assert!(suffixes.contains(&suffix), "{line}");
        }
    }
}

#[test]
fn reports_and_exports_are_the_same_from_a_running_sidecar_and_from_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(dir.path(), chatty(), "");
    for team in ["a", "a", "=cmd()"] {
        assert_eq!(sidecar.chat(&format!("x-bursar-team: {team}\r\n")).status(), 200);
    }
    assert_eq!(sidecar.chat("").status(), 200);
    let url = sidecar.admin_url();
    let running = ["--admin", url.as_str()];
    let offline = ["--data-dir", "data"];
    wait_for_records(&sidecar, 4);

    let report = usage_json(dir.path(), &running);
    assert_eq!(report["total"]["requests"], 4);
    assert_eq!(report["total"]["tokens"]["input_tokens"], 4000);
    assert_eq!(report["total"]["cost"]["billed"], "0.00174");
    let teams: HashSet<&str> =
        report["rows"].as_array().unwrap().iter().map(|r| r["team"].as_str().unwrap()).collect();
    assert_eq!(teams, HashSet::from(["a", "=cmd()", "unallocated"]));
    let (jsonl, csv) = (exported(dir.path(), &running, "jsonl"), exported(dir.path(), &running, "csv"));
    let mut args = vec!["usage", "--by", "team", "--format", "csv"];
    args.extend(running);
    let usage_csv = stdout(&run(dir.path(), &args));
    assert!(usage_csv.starts_with("team,requests,"), "{usage_csv}");
    assert!(usage_csv.contains("\n'=cmd(),1,1000,"), "{usage_csv}");
    args[4] = "table";
    let table = stdout(&run(dir.path(), &args));
    assert!(
        table.contains("4,000") && table.contains("unallocated") && table.contains("coverage:"),
        "{table}"
    );
    sidecar.stop();

    assert_eq!(usage_json(dir.path(), &offline), report);
    assert_eq!(exported(dir.path(), &offline, "jsonl"), jsonl);
    assert_eq!(exported(dir.path(), &offline, "csv"), csv);
    assert_eq!((jsonl.lines().count(), csv.lines().count()), (4, 5));
    let first: Value = serde_json::from_str(jsonl.lines().next().unwrap()).unwrap();
    for (name, value) in
        [("team", "a"), ("provider", "openai"), ("outcome", "ok"), ("usage_source", "provider")]
    {
        assert_eq!(first[name], value);
    }
    // An exchange that takes longer than a group commit is written down before it, under a sequence too.
    assert!(first["seq"].as_u64().unwrap() >= 1);
    assert_eq!(first["usage"]["output_tokens"], 500);
    assert_eq!(first["cost"]["billed"], "0.000435");

    // To a file, which appears whole.
    let out = run(dir.path(), &["export", "usage", "--data-dir", "data", "--output", "all.jsonl"]);
    assert_eq!(stdout(&out), "");
    assert_eq!(std::fs::read_to_string(dir.path().join("all.jsonl")).unwrap(), jsonl);
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("partial")), "{names:?}");
}

/// Waits until the ledger has acknowledged `count` records.
fn wait_for_records(sidecar: &Sidecar, count: u64) {
    while sidecar.get("/api/v1/ledger/stats").json()["acknowledged"] != count {
        std::thread::yield_now();
    }
}

#[test]
fn periods_are_half_open_and_mistakes_in_them_are_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(dir.path(), chatty(), "");
    assert_eq!(sidecar.chat("").status(), 200);
    sidecar.stop();
    let total = |args: &[&str]| {
        let mut all = vec!["--data-dir", "data"];
        all.extend(args);
        usage_json(dir.path(), &all)["total"]["requests"].clone()
    };
    assert_eq!(total(&["--from", "1h"]), 1);
    assert_eq!(total(&["--from", "2020-01-01", "--to", "2020-01-02", "--tz", "Europe/Paris"]), 0);
    assert_eq!(total(&["--to", "2020-01-02"]), 0);
    for wrong in [
        &["--from", "tomorrow-ish"][..],
        &["--from", "2026-01-02", "--to", "2026-01-01"],
        &["--tz", "Mars/Olympus"],
        &["--by", "colour"],
        &["--format", "xml"],
        &["--nonsense"],
        &["--admin", "http://127.0.0.1:1"],
    ] {
        let mut args = vec!["usage", "--data-dir", "data"];
        args.extend(wrong);
        let output = run(dir.path(), &args);
        assert_eq!(code(&output), 2, "{wrong:?}: {}", stderr(&output));
        assert_eq!(output.stdout, b"", "results alone go to standard output");
    }
}

#[test]
fn exit_codes_tell_success_failure_and_wrong_usage_apart() {
    let dir = tempfile::tempdir().unwrap();
    for (args, expected) in [
        (&["--version"][..], 0),
        (&["--help"], 0),
        (&["usage", "--help"], 0),
        (&[], 2),
        (&["frobnicate"], 2),
        (&["usage", "--data-dir", "nowhere"], 1),
        (&["usage", "--admin", "http://127.0.0.1:1"], 1),
        (&["usage", "--admin", "ftp://x"], 2),
        (&["export", "usage", "--data-dir", "nowhere"], 1),
        (&["check"], 0),
        (&["check", "--config", "nowhere.yaml"], 3),
        (&["serve", "--config", "nowhere.yaml"], 3),
        (&["serve", "--listen", "not an address"], 2),
    ] {
        let output = run(dir.path(), args);
        assert_eq!(code(&output), expected, "{args:?}: {}", stderr(&output));
        if expected != 0 {
            assert!(!output.stderr.is_empty(), "{args:?} says nothing");
        }
    }
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing was left behind");
}

#[test]
fn check_lists_every_mistake_at_once_and_exits_with_3() {
    let dir = tempfile::tempdir().unwrap();
    let text = "listen: here\nledgr: {}\nserver:\n  timeouts: { head: 5 parsecs }\nroutes:\n  - { prefix: openai, upstream: 'ftp://x' }\n";
    std::fs::write(dir.path().join("bad.yaml"), text).unwrap();
    let output = run(dir.path(), &["check", "--config", "bad.yaml"]);
    assert_eq!(code(&output), 3);
    let said = stderr(&output);
    for expected in
        ["listen", "ledgr", "ledger", "server.timeouts.head", "routes[0].prefix", "routes[0].upstream"]
    {
        assert!(said.contains(expected), "{expected} is not in {said}");
    }
    let output = run(dir.path(), &["serve", "--config", "bad.yaml"]);
    assert_eq!(code(&output), 3);
    assert_eq!(stderr(&output), said, "serve says the same");
    assert!(!dir.path().join("bursar-data").exists(), "and touches nothing");

    std::fs::write(dir.path().join("good.yaml"), "identity: { team: a }\n").unwrap();
    let output = run(dir.path(), &["check", "--config", "good.yaml", "--show"]);
    assert!(stdout(&output).contains("identity.team: a"));
}

#[test]
fn check_shows_every_route_and_what_follows_from_other_settings_and_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let text = "admin: { token_file: token }\nroutes:\n  - { prefix: /own, upstream: 'https://own.test/v2', provider: openai, auth: inject, secret_file: key }\n";
    std::fs::write(dir.path().join("bursar.yaml"), text).unwrap();
    std::fs::write(dir.path().join("token"), "canary-of-the-admin-api\n").unwrap();
    std::fs::write(dir.path().join("key"), "canary-key\n").unwrap();
    let shown = stdout(&run(dir.path(), &["check", "--config", "bursar.yaml", "--show"]));
    let own = "routes[0]: { prefix: /own, upstream: https://own.test/v2, provider: openai, dialect: openai, include_usage: true, auth: inject, header: authorization, protocol: auto, ";
    assert!(shown.contains(own) && shown.contains("  # configured\n"), "{shown}");
    assert!(shown.contains("{ prefix: /anthropic, upstream: https://api.anthropic.com, "), "{shown}");
    assert!(shown.contains("admin.metrics_public: true  # default"), "{shown}");
    assert!(!shown.contains("canary"), "{shown}");
}

#[test]
fn an_explicit_option_wins_over_the_environment_and_an_empty_variable_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(dir.path(), chatty(), "");
    assert_eq!(sidecar.chat("").status(), 200);
    let url = sidecar.admin_url();
    let requests = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = bursar(dir.path(), &["usage", "--format", "json"]);
        let output = command.args(args).envs(variables.iter().copied()).output().unwrap();
        serde_json::from_str::<Value>(&stdout(&output)).unwrap()["total"]["requests"].clone()
    };
    wait_for_records(&sidecar, 1);
    for query in ["from=someday", "tz=Mars", "by=colour", "from=1h&to=2h"] {
        let reply = sidecar.get(&format!("/api/v1/usage?{query}"));
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        assert_eq!(reply.status(), 400, "{query}");
        assert!(detail.starts_with(query.split('=').next().unwrap()) && !detail.contains("--"), "{detail}");
    }
    let listens = sidecar.admin.to_string();
    for (name, value) in [("BURSAR_ADMIN", url.as_str()), ("BURSAR_ADMIN_LISTEN", &listens)] {
        assert_eq!(requests(&[], &[(name, value)]), 1, "{name}");
    }
    // The directory is in use: its sidecar is asked.
    let both = [("BURSAR_DATA_DIR", "data"), ("BURSAR_ADMIN_LISTEN", listens.as_str())];
    assert_eq!(requests(&[], &both), 1);
    sidecar.stop();
    let dead = ("BURSAR_ADMIN", "http://127.0.0.1:1");
    assert_eq!(requests(&["--data-dir", "data"], &[dead]), 1);
    assert_eq!(requests(&["--data-dir", "data"], &[("BURSAR_DATA_DIR", "elsewhere")]), 1);
    for name in ["BURSAR_DATA_DIR", "BURSAR_LEDGER_PATH"] {
        let empty = [("BURSAR_ADMIN", ""), ("BURSAR_ADMIN_TOKEN_FILE", ""), ("BURSAR_CONFIG", "")];
        assert_eq!(requests(&[], &[&[(name, "data")][..], &empty].concat()), 1, "{name}");
    }
    let config =
        "admin: { listen: '127.0.0.1:0' }\nledger: { path: data }\nroutes: [{ upstream: nonsense }]\n";
    std::fs::write(dir.path().join("elsewhere.yaml"), config).unwrap();
    assert_eq!(requests(&[], &[("BURSAR_CONFIG", "elsewhere.yaml")]), 1, "and nothing else of it matters");
    let mut command = bursar(dir.path(), &["price", "list", "--overlay", "none.yaml"]);
    let output = command.env("BURSAR_CONFIG", "elsewhere.yaml").output().unwrap();
    let said = stderr(&output);
    assert_eq!((code(&output), said.matches("none.yaml").count()), (1, 1), "{said}");
}

#[test]
fn a_dead_admin_address_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["usage", "--admin", "http://127.0.0.1:1"]);
    let said = stderr(&output);
    for part in ["127.0.0.1:1", "bursar serve", "--data-dir", "refused"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    let mut command = bursar(dir.path(), &["usage"]);
    let output = command.env("BURSAR_ADMIN", "somewhere").output().unwrap();
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("environment BURSAR_ADMIN: \"somewhere\""), "{}", stderr(&output));
}

#[test]
fn options_by_other_programs_names_are_answered_with_ours() {
    let dir = tempfile::tempdir().unwrap();
    for (args, meant) in [
        (&["serve", "--port", "4000"][..], "--listen"),
        (&["usage", "--groupby", "team"], "--by"),
        (&["usage", "--since=7d"], "--from"),
        (&["export", "usage", "--out", "x"], "--output"),
        (&["price", "list", "--json"], "--format"),
    ] {
        let output = run(dir.path(), args);
        assert_eq!(code(&output), 2, "{args:?}");
        assert!(stderr(&output).contains(&format!("'{meant}'")), "{args:?}: {}", stderr(&output));
    }
    assert!(!stderr(&run(dir.path(), &["check", "--port", "1"])).contains("--listen"), "it has none");
}

#[test]
fn a_group_with_nothing_to_price_has_no_cost_status() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(dir.path(), chatty(), "");
    sidecar.stop();
    let total = usage_json(dir.path(), &["--data-dir", "data"])["total"].clone();
    assert_eq!((&total["requests"], total.get("cost")), (&0.into(), None));
    let table = stdout(&run(dir.path(), &["usage", "--data-dir", "data"]));
    assert!(!table.contains(" priced "), "{table}");
}

#[test]
fn a_directory_in_use_is_refused_with_the_holders_pid() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(dir.path(), chatty(), "");
    let pid = sidecar.pid().to_string();
    let listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir", "data"];
    for args in [[&["serve"][..], &listen].concat(), vec!["usage", "--data-dir", "data"]] {
        let output = run(dir.path(), &args);
        assert_eq!(code(&output), 1, "{args:?}");
        assert!(stderr(&output).contains(&pid), "{pid} is not in {}", stderr(&output));
    }
    sidecar.stop();
    assert_eq!(code(&run(dir.path(), &["usage", "--data-dir", "data"])), 0, "the lock went with its holder");
}

#[test]
fn a_directory_that_cannot_be_is_a_clear_error_before_anything_listens() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "not a directory").unwrap();
    for data in ["file", "file/below"] {
        let output = run(
            dir.path(),
            &["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir", data],
        );
        assert_eq!(code(&output), 1);
        let said = stderr(&output);
        assert!(
            said.contains("bursar: ") && said.contains("file") && !said.contains("bursar serves"),
            "{said}"
        );
    }
    assert_eq!(std::fs::read_to_string(dir.path().join("file")).unwrap(), "not a directory");
}

#[test]
fn an_address_in_use_is_named_with_its_setting() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(
        dir.path(),
        &["serve", "--listen", &address, "--admin-listen", "127.0.0.1:0", "--data-dir", "data"],
    );
    assert_eq!(code(&output), 1);
    let said = stderr(&output);
    assert!(said.contains(&address) && said.contains("(listen)"), "{said}");
    assert!(!dir.path().join("data").exists(), "nothing is left of a start that failed");
}

#[test]
fn files_of_the_ledger_are_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(dir.path(), chatty(), "");
    assert_eq!(sidecar.chat("").status(), 200);
    sidecar.stop();
    let mut left = vec![dir.path().join("data")];
    while let Some(path) = left.pop() {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
        if path.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}

#[test]
fn a_signal_lets_a_stream_end_and_the_process_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (address, go_on) = streaming();
    let mut sidecar = Sidecar::start(dir.path(), address, "");
    let mut client = send(sidecar.proxy, "POST", "/openai/v1/chat/completions", "", CHAT);
    read_until(&mut client, "Hel");
    let mut idle = connect(sidecar.proxy);
    sidecar.signal("-TERM");
    sidecar.line("draining");
    assert_eq!(sidecar.get("/readyz").status(), 503);
    assert_eq!(sidecar.get("/healthz").status(), 200);
    let admin = sidecar.admin_url();
    let probe = |more: &[&str]| run(dir.path(), &[&["ledger", "stats", "--admin", &admin], more].concat());
    let ready = probe(&["--ready"]);
    let alive = probe(&["--alive"]);
    assert_eq!((code(&ready), code(&alive), &*stdout(&alive)), (1, 0, "ok\n"), "it is alive and not ready");
    assert!(stderr(&ready).contains("draining"), "{}", stderr(&ready));
    // One that was not even accepted yet is reset.
    let end = idle.read(&mut [0_u8; 1]);
    let is_reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
    assert!(matches!(end, Ok(0)) || end.is_err_and(|error| is_reset(&error)), "idle, so closed at once");
    go_on.send(()).unwrap();
    let rest = read_until(&mut client, "0\r\n\r\n");
    assert!(rest.contains("[DONE]"), "{rest}");
    assert_eq!(sidecar.ended(), 0);
    let records = exported(dir.path(), &["--data-dir", "data"], "jsonl");
    assert_eq!(serde_json::from_str::<Value>(&records).unwrap()["outcome"], "ok");
}

#[test]
fn a_second_signal_cuts_and_the_record_says_aborted() {
    let dir = tempfile::tempdir().unwrap();
    let (address, go_on) = streaming();
    let mut sidecar = Sidecar::start(dir.path(), address, "");
    let mut client = send(sidecar.proxy, "POST", "/openai/v1/chat/completions", "", CHAT);
    read_until(&mut client, "Hel");
    sidecar.signal("-TERM");
    sidecar.line("draining");
    sidecar.signal("-INT");
    assert_eq!(sidecar.ended(), 0);
    let mut rest = Vec::new();
    // A reset is as good an end as any.
    let _ = client.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the client must not take it for the whole");
    drop(go_on);
    let records = exported(dir.path(), &["--data-dir", "data"], "jsonl");
    assert_eq!(serde_json::from_str::<Value>(&records).unwrap()["outcome"], "aborted");
}

#[test]
fn nobody_on_the_admin_side_keeps_the_process_from_ending() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(dir.path(), chatty(), "");
    for _ in 0..50 {
        assert_eq!(sidecar.chat("").status(), 200);
    }
    wait_for_records(&sidecar, 50);
    let silent = connect(sidecar.admin);
    let mut half = connect(sidecar.admin);
    half.write_all(b"GET /metr").unwrap();
    // Asks for far more than the sockets' buffers hold, and reads none of it.
    let mut greedy = connect(sidecar.admin);
    let ask = "GET /api/v1/usage/records HTTP/1.1\r\nhost: x\r\n\r\n".repeat(500);
    greedy.write_all(ask.as_bytes()).unwrap();
    let mut first = [0_u8; 16];
    greedy.read_exact(&mut first).unwrap();
    sidecar.stop();
    drop((silent, half, greedy));
}

#[test]
fn a_token_guards_everything_but_health() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "a-token-of-some-length\n").unwrap();
    std::fs::write(dir.path().join("wrong"), "another-token-of-some-length\n").unwrap();
    let sidecar = Sidecar::start(dir.path(), chatty(), "  token_file: token\n  metrics_public: false");
    assert_eq!(sidecar.chat("").status(), 200, "the proxy asks for none");
    for path in ["/healthz", "/readyz"] {
        assert_eq!(sidecar.get(path).status(), 200, "{path}");
    }
    for path in ["/metrics", "/api/v1/usage", "/api/v1/usage/records", "/api/v1/ledger/stats"] {
        for (headers, expected) in [
            ("", 401),
            ("authorization: Bearer another-token-of-some-length\r\n", 401),
            ("authorization: Basic a-token-of-some-length\r\n", 401),
            ("authorization: Bearer a-token-of-some-length\r\n", 200),
        ] {
            let reply = request(sidecar.admin, "GET", path, headers, "");
            assert_eq!(reply.status(), expected, "{path} {headers}");
            if expected == 401 {
                let told = reply.header("www-authenticate");
                assert!(told.is_some_and(|told| told.starts_with("Bearer realm")), "{told:?}");
            }
        }
    }
    let url = sidecar.admin_url();
    for (token, expected) in [(None, 1), (Some("wrong"), 1), (Some("token"), 0)] {
        let mut args = vec!["usage", "--admin", url.as_str()];
        args.extend(token.iter().flat_map(|token| ["--admin-token-file", token]));
        let output = run(dir.path(), &args);
        assert_eq!(code(&output), expected, "{token:?}: {}", stderr(&output));
    }
    sidecar.stop();
}

#[test]
fn metrics_may_be_public_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "a-token-of-some-length\n").unwrap();
    let sidecar = Sidecar::start(dir.path(), chatty(), "  token_file: token\n  metrics_public: true");
    assert_eq!((sidecar.get("/metrics").status(), sidecar.get("/api/v1/usage").status()), (200, 401));
    sidecar.stop();
}

#[test]
fn what_was_acknowledged_is_there_once_after_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 1..=5_usize {
        let sidecar = Sidecar::start(dir.path(), chatty(), "ledger: { durability: sync }");
        for _ in 0..10 {
            let reply = sidecar.chat("x-bursar-team: a\r\n");
            assert_eq!((reply.status(), reply.body.as_str()), (200, CHAT_REPLY));
            acknowledged.push(reply.header("x-bursar-request-id").unwrap().to_owned());
        }
        sidecar.signal("-KILL");
        assert_eq!(sidecar.ended(), -1);
        assert_eq!(
            ids(&exported(dir.path(), &["--data-dir", "data"], "jsonl")),
            acknowledged,
            "round {round}"
        );
        assert_eq!(usage_json(dir.path(), &["--data-dir", "data"])["total"]["requests"], acknowledged.len());
    }
    let sidecar = Sidecar::start(dir.path(), chatty(), "");
    let url = sidecar.admin_url();
    assert_eq!(
        usage_json(dir.path(), &["--admin", &url])["total"]["requests"],
        acknowledged.len(),
        "and in the rollups"
    );
    sidecar.stop();
}

#[test]
fn exchanges_under_way_at_kill_9_are_interrupted_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let (address, _open) = streaming();
    for (round, durability) in [(1, "sync"), (2, "group")] {
        let settings = format!("ledger: {{ durability: {durability} }}");
        let sidecar = Sidecar::start(dir.path(), address, &settings);
        let mut streams: Vec<_> = (0..3)
            .map(|_| send(sidecar.proxy, "POST", "/openai/v1/chat/completions", "x-bursar-team: a\r\n", CHAT))
            .collect();
        for stream in &mut streams {
            read_until(stream, "Hel");
        }
        while sidecar.get("/api/v1/ledger/stats").json()["open"] != 3 {
            std::thread::yield_now();
        }
        sidecar.signal("-KILL");
        assert_eq!(sidecar.ended(), -1);

        // Whoever reads before the next start sees only what was settled.
        let before = exported(dir.path(), &["--data-dir", "data"], "jsonl");
        assert_eq!(before.lines().count(), 3 * (round - 1));
        for _restart in 0..2 {
            let sidecar = Sidecar::start(dir.path(), address, "");
            while sidecar.get("/api/v1/ledger/stats").json()["open"] != 0 {
                std::thread::yield_now();
            }
            sidecar.stop();
            let records = exported(dir.path(), &["--data-dir", "data"], "jsonl");
            assert_eq!(ids(&records).into_iter().collect::<HashSet<_>>().len(), 3 * round);
            for line in records.lines() {
                let record: Value = serde_json::from_str(line).unwrap();
                assert_eq!(record["outcome"], "interrupted");
                assert_eq!(
                    (&record["team"], &record["model_requested"]),
                    (&"a".into(), &"gpt-4o-mini".into())
                );
                assert_eq!(
                    (&record["usage_source"], &record["cost"]["status"]),
                    (&"absent".into(), &"unpriced".into())
                );
            }
        }
    }
}

#[test]
fn budgets_refuse_tell_why_and_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    // The bound of a request is its bytes and 16,384 tokens of output; it uses 1,500.
    let settings = "budgets:\n  - { name: all, window: year, limit: 18000 tokens }";
    let sidecar = Sidecar::start(dir.path(), chatty(), settings);
    assert_eq!(sidecar.chat("").status(), 200);
    wait_for_records(&sidecar, 1);
    assert_eq!(sidecar.chat("").status(), 200);
    wait_for_records(&sidecar, 2);
    sidecar.signal("-KILL");
    assert_eq!(sidecar.ended(), -1);

    let sidecar = Sidecar::start(dir.path(), chatty(), settings);
    let url = sidecar.admin_url();
    let refused = sidecar.chat("");
    assert_eq!((refused.status(), refused.header("x-bursar-budget")), (429, Some("all")));
    let id = refused.header("x-bursar-request-id").unwrap().to_owned();
    let why = stdout(&run(dir.path(), &["why", &id, "--admin", &url]));
    assert!(
        why.starts_with("the budget \"all\" refuses this request: 3000 tokens of 18000 tokens spent"),
        "{why}"
    );
    let listed = stdout(&run(dir.path(), &["budget", "--admin", &url, "--format", "json"]));
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let budget = &listed["budgets"][0];
    assert_eq!(
        (&budget["spent"], &budget["reserved"], &budget["left"]),
        (&3000.into(), &0.into(), &15000.into())
    );
    let table = stdout(&run(dir.path(), &["budget", "--admin", &url]));
    assert!(table.contains("all") && table.contains("18000"), "{table}");
    let unknown = run(dir.path(), &["why", "00000000-0000-7000-8000-000000000000", "--admin", &url]);
    assert_eq!(code(&unknown), 1);
    let page = sidecar.get("/metrics").body;
    is_openmetrics(&page);
    assert!(page.contains("bursar_budget_used_percent{budget=\"all\",mode=\"hard\"} 16"), "{page}");
    sidecar.stop();
}

#[test]
fn a_ledger_is_copied_while_in_use_verified_and_restored() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(dir.path(), chatty(), "ledger: { durability: sync }");
    for _ in 0..3 {
        assert_eq!(sidecar.chat("").status(), 200);
    }
    let copied = stdout(&run(dir.path(), &["ledger", "backup", "--data-dir", "data", "copy"]));
    assert!(copied.starts_with("copied up to sequence"), "{copied}");
    assert_eq!(
        code(&run(dir.path(), &["ledger", "backup", "--data-dir", "data", "copy"])),
        1,
        "never over another"
    );
    let stats = stdout(&run(dir.path(), &["ledger", "stats", "--admin", &sidecar.admin_url()]));
    assert!(stats.contains("\"acknowledged\": 3"), "{stats}");
    let ready = run(dir.path(), &["ledger", "stats", "--ready", "--admin", &sidecar.admin_url()]);
    assert_eq!(stdout(&ready), "ready\n");
    assert_eq!(code(&run(dir.path(), &["ledger", "verify", "--data-dir", "data"])), 1, "it is in use");
    sidecar.stop();

    let found = stdout(&run(dir.path(), &["ledger", "verify", "--data-dir", "data", "--json"]));
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!((&found["verified"], &found["records"]), (&true.into(), &3.into()));
    let restored = stdout(&run(dir.path(), &["ledger", "restore", "copy", "--data-dir", "again"]));
    assert_eq!(restored, "verified and restored 3 records to again\n");
    assert_eq!(
        exported(dir.path(), &["--data-dir", "again"], "jsonl"),
        exported(dir.path(), &["--data-dir", "data"], "jsonl")
    );

    let segment = dir.path().join("copy/journal/00000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[250] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let damaged = run(dir.path(), &["ledger", "verify", "--data-dir", "copy"]);
    assert_eq!(code(&damaged), 3, "{}", stderr(&damaged));
    assert_eq!(code(&run(dir.path(), &["ledger", "restore", "copy", "--data-dir", "never"])), 1);
    assert!(!dir.path().join("never").exists());
}

#[test]
fn a_reset_of_the_upstream_is_a_cut_for_the_client_and_one_record() {
    let dir = tempfile::tempdir().unwrap();
    let address = upstream(|socket| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let _ = write!(socket, "{head}{:x}\r\n{FIRST_EVENT}\r\n", FIRST_EVENT.len());
        // Closing with linger zero sends a reset.
        let socket = socket2::SockRef::from(&*socket);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        socket.shutdown(Shutdown::Read).unwrap();
    });
    let sidecar = Sidecar::start(dir.path(), address, "");
    let mut client = send(sidecar.proxy, "POST", "/openai/v1/chat/completions", "", CHAT);
    let mut all = Vec::new();
    let _ = client.read_to_end(&mut all);
    assert!(!all.ends_with(b"0\r\n\r\n"), "the client must not take it for the whole");
    sidecar.stop();
    let records = exported(dir.path(), &["--data-dir", "data"], "jsonl");
    let record: Value = serde_json::from_str(&records).unwrap();
    assert!(["error", "error_midstream"].contains(&record["outcome"].as_str().unwrap()), "{record}");
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(dir.path(), chatty(), "");
    for _ in 0..5 {
        assert_eq!(sidecar.chat("").status(), 200);
    }
    sidecar.stop();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = bursar(dir.path(), &["export", "usage", "--data-dir", "data"]);
    let output = command.stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
}

#[test]
fn a_fresh_sidecar_without_a_file_serves_the_built_in_routes() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["check", "--show"]);
    let shown = stdout(&output);
    for setting in ["listen: 127.0.0.1:4141", "admin.listen: 127.0.0.1:4142", "ledger.path: ./bursar-data"] {
        assert!(shown.contains(setting), "{setting} is not in {shown}");
    }
    let here: PathBuf = dir.path().join("bursar-data");
    assert!(!here.exists());
}

/// Totals of a replay, as (list before, list after, billed after, difference).
fn replayed(dir: &Path, source: &[&str], book: &[&str]) -> Value {
    let mut args = vec!["price", "replay", "--format", "json"];
    args.extend(source);
    args.extend(book);
    serde_json::from_str(&stdout(&run(dir, &args))).unwrap()
}

#[test]
fn a_replay_prices_past_usage_under_another_book_and_leaves_the_ledger_alone() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(dir.path(), chatty(), "");
    for _ in 0..3 {
        assert_eq!(sidecar.chat("").status(), 200);
    }
    wait_for_records(&sidecar, 3);
    let twice = "rows: [{provider: openai, model: gpt-4o-mini, per_million: {input: 0.30, cached_read: 0.15, output: 1.20}}]";
    std::fs::write(dir.path().join("twice.yaml"), twice).unwrap();
    let url = sidecar.admin_url();
    let (running, offline) = (["--admin", url.as_str()], ["--data-dir", "data"]);

    let same = replayed(dir.path(), &running, &[]);
    assert_eq!(same["totals"][0]["before"], same["totals"][0]["after"]);
    assert_eq!(same["totals"][0]["difference"], "0");
    let doubled = replayed(dir.path(), &running, &["--overlay", "twice.yaml"]);
    let row = &doubled["rows"][0];
    assert_eq!((&row["provider"], &row["model"]), (&"openai".into(), &"gpt-4o-mini-2024-07-18".into()));
    assert_eq!((&row["before"]["list"], &row["after"]["list"]), (&"0.001305".into(), &"0.00261".into()));
    assert_eq!((&row["difference"], &row["before"]["requests"]), (&"0.001305".into(), &3.into()));
    let before = exported(dir.path(), &running, "jsonl");
    sidecar.stop();

    assert_eq!(replayed(dir.path(), &offline, &["--overlay", "twice.yaml"]), doubled);
    assert_eq!(exported(dir.path(), &offline, "jsonl"), before);
    let table =
        stdout(&run(dir.path(), &["price", "replay", "--data-dir", "data", "--overlay", "twice.yaml"]));
    assert!(table.contains("0.00261") && table.contains("total"), "{table}");
    let wrong = run(dir.path(), &["price", "replay", "--data-dir", "data", "--at", "someday"]);
    assert_eq!(code(&wrong), 2, "{}", stderr(&wrong));
}

#[test]
fn anomalies_are_shown_by_provider_and_kind() {
    let odd = CHAT_REPLY.replace("\"total_tokens\":1500", "\"total_tokens\":1600");
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{odd}",
        odd.len()
    );
    let dir = tempfile::tempdir().unwrap();
    let upstream = upstream(move |socket| socket.write_all(answer.as_bytes()).unwrap());
    let sidecar = Sidecar::start(dir.path(), upstream, "");
    assert_eq!(sidecar.chat("").status(), 200);
    wait_for_records(&sidecar, 1);
    let url = sidecar.admin_url();
    let shown = |format| {
        let args = ["usage", "--anomalies", "--format", format, "--admin", url.as_str()];
        stdout(&run(dir.path(), &args))
    };
    assert_eq!(shown("csv"), "provider,anomaly,records,of\nopenai,total_mismatch,1,1\n");
    assert!(shown("table").contains("total_mismatch"));
    let document: Value = serde_json::from_str(&shown("json")).unwrap();
    assert_eq!(document["rows"][0]["anomalies"]["total_mismatch"], 1);
    assert_eq!(document["total"]["anomalous_requests"], 1);
    sidecar.stop();
}

#[test]
fn a_changed_file_and_a_hangup_reload_the_configuration_and_a_mistake_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bursar.yaml");
    let mut sidecar = Sidecar::start(dir.path(), chatty(), "identity: { team: one }");
    let text = std::fs::read_to_string(&file).unwrap();
    let write = |from: &str, to: &str| {
        // As editors and Kubernetes do: another file in its place.
        let other = dir.path().join("other.yaml");
        std::fs::write(&other, text.replace(from, to)).unwrap();
        std::fs::rename(&other, &file).unwrap();
    };
    assert_eq!(sidecar.chat("").status(), 200);
    write("team: one", "team: two");
    sidecar.line("the configuration was reloaded");
    assert_eq!(sidecar.chat("").status(), 200);

    write("team: one", "teem: three");
    let said = sidecar.line("the configuration was not reloaded");
    assert!(said.contains("identity.teem") && said.contains("did you mean"), "{said}");
    assert!(sidecar.get("/metrics").body.contains("bursar_config_last_reload_successful 0"));
    assert_eq!(sidecar.chat("").status(), 200);

    write("listen: 127.0.0.1:0\nadmin", "listen: 127.0.0.1:1\nadmin");
    sidecar.line("need a restart");
    sidecar.line("the configuration was reloaded");
    sidecar.signal("-HUP");
    let said = sidecar.line("the configuration was reloaded");
    assert!(said.contains("SIGHUP"), "{said}");
    assert!(sidecar.get("/metrics").body.contains("bursar_config_last_reload_successful 1"));
    sidecar.stop();
    let output = run(dir.path(), &["usage", "--by", "team", "--format", "json", "--data-dir", "data"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows: Vec<(String, u64)> = report["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["team"].as_str().unwrap().to_owned(), row["requests"].as_u64().unwrap()))
        .collect();
    assert_eq!(rows, [("one".to_owned(), 1), ("two".to_owned(), 2)]);
}
