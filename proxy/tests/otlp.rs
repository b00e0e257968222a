//! Telemetry of the whole binary: what arrives at a collector, what a bad one costs, and what is said
//! nowhere (T28).
//!
//! Invariants
//! - Every test has a directory, ports and processes of its own; what it starts ends with it.
//! - Tests wait for events (a line, a message, an exit), never for time; a watchdog ends what hangs.
//!
//! Not here: label sets and their cap (`telemetry::genai`), reading variables (`config::load::otlp`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is a failed test"
)]

mod collector;

use collector::{Collector, Manner, Message, Sent, Speaks, WATCHDOG};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

const CHAT: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"CANARY-prompt"}]}"#;
const CHAT_REPLY: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"CANARY-answer"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1000,"completion_tokens":500,"total_tokens":1500,"prompt_tokens_details":{"cached_tokens":200}}}"#;
const FAILURE: &str = r#"{"error":{"message":"bad key CANARY-error","type":"CANARY-type"}}"#;

// === the sidecar and its upstream

/// A running sidecar. Dropping it kills it.
struct Sidecar {
    child: Child,
    proxy: SocketAddr,
    admin: SocketAddr,
    log: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Sidecar {
    fn start(dir: &Path, env: &[(&str, String)]) -> Self {
        let upstream = upstream();
        let config = format!(
            "listen: 127.0.0.1:0\nadmin: {{ listen: 127.0.0.1:0 }}\nbuiltin_routes: false\nroutes:\n  \
             - {{ prefix: /openai, upstream: 'http://{upstream}', provider: openai }}\n  \
             - {{ prefix: /gemini, upstream: 'http://{upstream}', provider: gemini }}\n"
        );
        std::fs::write(dir.join("bursar.yaml"), config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
        command.args(["serve", "--config", "bursar.yaml", "--data-dir", "data"]).current_dir(dir).env_clear();
        command.envs(env.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let ready: Value = loop {
            let mut line = String::new();
            assert!(errors.read_line(&mut line).unwrap() > 0, "it ended: {}", log.lock().unwrap());
            log.lock().unwrap().push_str(&line);
            if line.contains("bursar serves") {
                break serde_json::from_str(&line).unwrap();
            }
        };
        let copy = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                let mut log = copy.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let address = |name: &str| ready[name].as_str().unwrap().parse().unwrap();
        Self { proxy: address("proxy"), admin: address("admin"), child, log, reader: Some(reader) }
    }

    fn chat(&self, headers: &str) -> u16 {
        let reply = request(self.proxy, "POST", "/openai/v1/chat/completions", headers, CHAT);
        reply.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn get(&self, path: &str) -> String {
        request(self.admin, "GET", path, "", "")
    }

    /// The value of a sample on the metrics page.
    fn metric(&self, sample: &str) -> u64 {
        let page = self.get("/metrics");
        let value = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// Stops it in the polite way; returns everything it logged.
    fn stop(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let watchdog = std::thread::spawn(move || {
            if wait.recv_timeout(WATCHDOG) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                // The wait below then ends, and the test fails for the exit code.
                let _ = Command::new("kill").args(["-KILL", &pid]).status();
            }
        });
        let status = self.child.wait().unwrap();
        drop(done);
        watchdog.join().unwrap();
        self.reader.take().unwrap().join().unwrap();
        let log = self.log.lock().unwrap().clone();
        assert_eq!(status.code(), Some(0), "{log}");
        log
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn request(to: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> String {
    let mut socket = TcpStream::connect(to).unwrap();
    socket.set_read_timeout(Some(WATCHDOG)).unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(body.as_bytes()).unwrap();
    let mut reply = String::new();
    socket.read_to_string(&mut reply).unwrap();
    reply
}

/// Answers chats well, and everything else with an error that quotes secrets.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || answer(socket));
        }
    });
    address
}

fn answer(mut socket: TcpStream) {
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match reader.read_line(&mut head) {
                Ok(count) if count > 0 => {}
                _ => return,
            }
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let (status, body) =
            if head.contains("chat/completions") { ("200 OK", CHAT_REPLY) } else { ("401 No", FAILURE) };
        // The sidecar may have gone.
        let _ = write!(
            socket,
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
    }
}

fn to(collector: &Collector, protocol: &str) -> Vec<(&'static str, String)> {
    vec![
        ("BURSAR_TELEMETRY_OTLP", format!("http://{}", collector.address)),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
    ]
}

// === what arrives

/// The items of every message of a kind: spans, log records or metrics.
fn items(sent: &[Sent], kind: &str) -> Vec<Message> {
    let of_kind = sent.iter().filter(|sent| sent.path.to_lowercase().contains(kind));
    of_kind
        .flat_map(|sent| Message::read(&sent.message).messages(1))
        .flat_map(|resource| resource.messages(2))
        .flat_map(|scope| scope.messages(2))
        .collect()
}

/// The sum of the points of counter `name` in the last message.
fn counter(metrics: &[Message], name: &str) -> u64 {
    let metric = metrics.iter().rev().find(|metric| metric.text(1) == name);
    let sum = metric.unwrap_or_else(|| panic!("no metric {name}")).message(7);
    assert_eq!((sum.number(2), sum.number(3)), (Some(2), Some(1)), "cumulative, monotonic");
    sum.messages(1).iter().map(|point| point.number(6).unwrap()).sum()
}

fn check_arrival(speaks: Speaks, protocol: &str, compression: &str) {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(speaks, Manner::Good);
    let mut env = to(&collector, protocol);
    env.extend([
        ("OTEL_EXPORTER_OTLP_COMPRESSION", compression.to_owned()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-key=a%20secret".to_owned()),
        ("OTEL_SERVICE_NAME", "shop".to_owned()),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test".to_owned()),
    ]);
    let sidecar = Sidecar::start(dir.path(), &env);
    let caller =
        |flags: &str| format!("traceparent: 00-{TRACE}-{PARENT}-{flags}\r\nx-bursar-team: search\r\n");
    assert_eq!(sidecar.chat(&caller("01")), 200);
    assert_eq!(sidecar.chat(&caller("00")), 200);
    assert_eq!(sidecar.chat(""), 200);
    let log = sidecar.stop();
    let sent = collector.all();
    assert!(sent.iter().all(|sent| sent.headers["x-collector-key"] == "a secret"));

    let spans = items(&sent, "trace");
    assert_eq!(spans.len(), 2, "not the one whose caller does not sample");
    let span = spans.iter().find(|span| span.hex(1) == TRACE).expect("the caller's trace");
    assert_eq!(span.hex(4), PARENT);
    assert_eq!((span.text(5).as_str(), span.number(6)), ("chat gpt-4o-mini", Some(3)));
    assert!(span.number(7).unwrap() <= span.number(8).unwrap());
    let attribute = |name: &str| span.attribute(9, name);
    for (name, value) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.model", "gpt-4o-mini"),
        ("gen_ai.response.model", "gpt-4o-mini-2024-07-18"),
        ("gen_ai.usage.input_tokens", "1000"),
        ("gen_ai.usage.output_tokens", "500"),
        ("gen_ai.usage.cache_read.input_tokens", "200"),
        ("http.response.status_code", "200"),
        ("bursar.team", "search"),
        ("bursar.cost.billed", "0.000435"),
        ("bursar.outcome", "ok"),
    ] {
        assert_eq!(attribute(name).as_deref(), Some(value), "{name}");
    }
    let root = spans.iter().find(|span| span.hex(1) != TRACE).unwrap();
    assert_eq!(
        (root.hex(4).as_str(), root.hex(1).len(), root.hex(2).len()),
        ("", 32, 16),
        "a trace of its own"
    );

    let records = items(&sent, "logs");
    assert_eq!(records.len(), 3);
    assert!(records.iter().all(|record| record.attribute(6, "gen_ai.usage.input_tokens").unwrap() == "1000"));
    let ids: Vec<_> =
        records.iter().map(|record| record.attribute(6, "bursar.request_id").unwrap()).collect();
    let lines: Vec<Value> = log
        .lines()
        .filter(|line| line.contains("bursar::request"))
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 3, "{log}");
    assert!(lines.iter().all(|line| ids.contains(&line["request_id"].as_str().unwrap().to_owned())));

    let metrics = items(&sent, "metrics");
    let usage = Command::new(env!("CARGO_BIN_EXE_bursar"))
        .args(["usage", "--data-dir", "data", "--format", "json"])
        .current_dir(dir.path())
        .env_clear()
        .output()
        .unwrap();
    let usage: Value = serde_json::from_slice(&usage.stdout).unwrap();
    let total = |name: &str| usage["total"]["tokens"][name].as_u64().unwrap_or_else(|| panic!("{usage:#}"));
    for (metric, name) in [("input_tokens", "input_tokens"), ("output_tokens", "output_tokens")] {
        let name = total(name);
        assert_eq!(counter(&metrics, &format!("gen_ai.client.inference.usage.{metric}")), name);
    }
    assert_eq!(counter(&metrics, "gen_ai.client.inference.usage.cache_read.input_tokens"), 600);
    assert_eq!(counter(&metrics, "bursar_requests"), 3);
    assert_eq!(counter(&metrics, "bursar_telemetry_dropped"), 0);
    assert_eq!(counter(&metrics, "bursar_requests_unpriced"), 0);
    assert_eq!(counter(&metrics, "bursar_tokens_estimated"), 0);
    let has = |name: &str| metrics.iter().any(|metric| metric.text(1) == name);
    assert!(has("process_start_time_seconds") && has("process_cpu_seconds"), "the process tells of itself");
    assert!(!has("target"), "that is the resource");
    let duration =
        metrics.iter().find(|metric| metric.text(1) == "gen_ai.client.operation.duration").unwrap();
    let point = duration.message(9).message(1);
    assert_eq!(
        (point.number(4), point.bytes(6)[0].len(), point.bytes(7)[0].len()),
        (Some(3), 15 * 8, 14 * 8)
    );
    let own = metrics.iter().find(|metric| metric.text(1) == "bursar_request_duration_seconds").unwrap();
    assert_eq!(own.message(9).message(1).number(4), Some(3), "our own histogram too");

    let resource = Message::read(&sent[0].message).message(1).message(1);
    assert_eq!(resource.attribute(1, "service.name").as_deref(), Some("shop"));
    assert_eq!(resource.attribute(1, "deployment.environment.name").as_deref(), Some("test"));
    assert!(resource.attribute(1, "service.instance.id").is_some());
}

#[test]
fn spans_logs_and_metrics_arrive_over_grpc_with_the_ledgers_figures() {
    check_arrival(Speaks::Grpc, "grpc", "none");
}

#[test]
fn spans_logs_and_metrics_arrive_over_http_compressed_with_the_ledgers_figures() {
    check_arrival(Speaks::Http, "http/protobuf", "gzip");
}

#[test]
fn spans_and_logs_arrive_while_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(Speaks::Grpc, Manner::Good);
    let sidecar = Sidecar::start(dir.path(), &to(&collector, "grpc"));
    for _ in 0..2 {
        assert_eq!(sidecar.chat(""), 200);
        let first = [collector.next(), collector.next()];
        assert_eq!((items(&first, "trace").len(), items(&first, "logs").len()), (1, 1));
    }
}

#[test]
fn a_message_has_as_many_items_as_its_variable_says_and_what_is_not_acted_on_is_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(Speaks::Grpc, Manner::Good);
    let mut env = to(&collector, "grpc");
    env.extend([
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1".to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
        ("OTEL_PROPAGATORS", "b3".to_owned()),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "1".to_owned()),
    ]);
    let sidecar = Sidecar::start(dir.path(), &env);
    for _ in 0..3 {
        assert_eq!(sidecar.chat(""), 200);
    }
    let log = sidecar.stop();
    let all = collector.all();
    let spans = all.iter().filter(|sent| sent.path.contains("trace"));
    let each: Vec<usize> = spans.map(|sent| items(std::slice::from_ref(sent), "trace").len()).collect();
    assert_eq!(each, [1, 1, 1]);
    for variable in ["OTEL_PROPAGATORS", "OTEL_SPAN_EVENT_COUNT_LIMIT"] {
        assert!(log.contains(&format!("environment {variable}: the value (not shown)")), "{log}");
    }
}

// === bad collectors

/// Requests pass and the end is clean whatever the collector does; what is lost is counted.
fn check_bad(address: SocketAddr, protocol: &str) {
    check_bad_within(address, protocol, &["OTEL_EXPORTER_OTLP_TIMEOUT"]);
}

/// The same, with these variables as what bounds an export.
fn check_bad_within(address: SocketAddr, protocol: &str, timeouts: &[&'static str]) {
    let dir = tempfile::tempdir().unwrap();
    let mut env = vec![
        ("BURSAR_TELEMETRY_OTLP", format!("http://{address}")),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "100".to_owned()),
    ];
    env.extend(timeouts.iter().map(|name| (*name, "100".to_owned())));
    let sidecar = Sidecar::start(dir.path(), &env);
    for _ in 0..20 {
        assert_eq!(sidecar.chat(""), 200);
    }
    let dropped = |signal: &str| format!("bursar_telemetry_dropped_total{{signal=\"{signal}\"}}");
    while sidecar.metric(&dropped("metrics")) == 0 || sidecar.metric(&dropped("traces")) == 0 {
        // Each look is a request, so this does not spin.
        assert_eq!(sidecar.chat(""), 200);
    }
    let log = sidecar.stop();
    assert!(log.contains("telemetry cannot be sent and is dropped"), "{log}");
    let told = log.lines().filter(|line| line.contains("telemetry cannot be sent")).count();
    assert!(told <= 3, "once per signal: {log}");
}

#[test]
fn a_collector_that_never_answers_costs_no_request() {
    check_bad(Collector::start(Speaks::Grpc, Manner::Silent).address, "grpc");
    check_bad(Collector::start(Speaks::Http, Manner::Silent).address, "http/protobuf");
}

#[test]
fn a_collector_that_never_answers_is_given_up_when_the_export_has_taken_too_long() {
    let timeouts = ["OTEL_BSP_EXPORT_TIMEOUT", "OTEL_BLRP_EXPORT_TIMEOUT", "OTEL_METRIC_EXPORT_TIMEOUT"];
    for (speaks, protocol) in [(Speaks::Grpc, "grpc"), (Speaks::Http, "http/protobuf")] {
        check_bad_within(Collector::start(speaks, Manner::Silent).address, protocol, &timeouts);
    }
}

#[test]
fn a_collector_that_is_gone_costs_no_request() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    check_bad(gone, "grpc");
}

#[test]
fn a_collector_that_is_overloaded_costs_no_request() {
    check_bad(Collector::start(Speaks::Http, Manner::Overloaded).address, "http/protobuf");
    check_bad(Collector::start(Speaks::Grpc, Manner::Overloaded).address, "grpc");
}

#[test]
fn a_collector_that_answers_garbage_costs_no_request() {
    check_bad(Collector::start(Speaks::Grpc, Manner::Garbage).address, "grpc");
    // Another protocol than what is spoken there.
    check_bad(Collector::start(Speaks::Http, Manner::Good).address, "grpc");
}

#[test]
fn a_redirect_of_a_collector_is_not_followed() {
    let elsewhere = Collector::start(Speaks::Http, Manner::Good);
    let collector = Collector::start(Speaks::Http, Manner::Elsewhere(elsewhere.address));
    check_bad(collector.address, "http/protobuf");
    assert!(!collector.all().is_empty());
    assert!(elsewhere.all().is_empty(), "nothing was sent where nobody configured");
}

// === what is said nowhere (T28)

/// Every file below `dir`, as text with its name.
fn files(dir: &Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            all.push((path.display().to_string(), text));
        }
    }
    all
}

fn check_secrets(level: &str) {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(Speaks::Grpc, Manner::Good);
    let mut env = to(&collector, "grpc");
    env.extend([
        ("BURSAR_LOG", level.to_owned()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-key=CANARY-collector".to_owned()),
    ]);
    let sidecar = Sidecar::start(dir.path(), &env);
    let long = "x".repeat(300);
    let headers = format!(
        "authorization: Bearer CANARY-key\r\nx-api-key: CANARY-key\r\nx-bursar-tag-bad: CANARY-tag-{long}\r\n\
         x-bursar-oops: CANARY-header\r\ncookie: a=CANARY-cookie\r\nbaggage: x-bursar-tag-b=CANARY-tag-{long}\r\n"
    );
    assert_eq!(sidecar.chat(&headers), 200);
    let good_tag = "x-bursar-tag-feature: MARK-tag\r\nx-bursar-customer: MARK-customer\r\nx-bursar-session: MARK-session\r\n";
    assert_eq!(sidecar.chat(good_tag), 200);
    // A key in the query, an error that quotes it, requests that are refused or broken.
    let path = "/gemini/v1beta/models/gemini-2.5-flash:generateContent?key=CANARY-query";
    assert!(request(sidecar.proxy, "POST", path, &headers, CHAT).contains("401"));
    assert!(request(sidecar.proxy, "GET", "/nowhere?key=CANARY-query", &headers, "").contains("404"));
    assert!(request(sidecar.proxy, "POST", "/openai/../x?k=CANARY-query", &headers, CHAT).contains("40"));
    request(sidecar.proxy, "POST", "/openai/v1/chat/completions", &headers, "{\"model\": CANARY-body");
    request(sidecar.proxy, "GET", "/openai/v1/models", &format!("host: CANARY-host\r\n{headers}"), "");
    request(
        sidecar.admin,
        "GET",
        "/api/v1/usage?from=CANARY-query",
        "authorization: Bearer CANARY-key\r\n",
        "",
    );
    let page = sidecar.get("/metrics");
    let log = sidecar.stop();
    let sent: String =
        collector.all().iter().map(|sent| String::from_utf8_lossy(&sent.message).into_owned()).collect();
    assert!(log.lines().filter(|line| line.contains("bursar::request")).count() >= 4, "{log}");
    assert!(sent.contains("gpt-4o-mini") && page.contains("gpt-4o-mini"), "there is something to look at");
    for (place, text) in [("the log", &log), ("metrics", &page), ("OTLP", &sent)] {
        for secret in ["CANARY", "MARK-"] {
            let found = text.lines().find(|line| line.contains(secret));
            assert!(found.is_none(), "{secret} in {place} at {level}: {found:?}");
        }
    }
    for (name, text) in files(&dir.path().join("data")) {
        let at = text.find("CANARY");
        assert!(
            at.is_none(),
            "in {name}: {:?}",
            at.map(|at| text[at..].chars().take(40).collect::<String>())
        );
    }
}

#[test]
fn no_secret_and_no_content_is_said_anywhere_even_at_debug() {
    check_secrets("debug");
}

#[test]
fn no_secret_and_no_content_is_said_anywhere_even_at_trace() {
    check_secrets("trace");
}

// === the request's line

#[test]
fn each_requests_line_can_be_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(dir.path(), &[("BURSAR_LOG", "info,bursar::request=off".to_owned())]);
    assert_eq!(sidecar.chat(""), 200);
    let log = sidecar.stop();
    assert!(log.contains("bursar has ended") && !log.contains("bursar::request"), "{log}");
}
