//! Webhooks of the whole binary: over real connections, after a kill, and what is said of them nowhere.
//!
//! Invariants
//! - Every test has a directory, ports and processes of its own; what it starts ends with it.
//! - Tests wait for events (a request, an exit), never for time; a watchdog ends what hangs.
//!
//! Not here: what is told when, and signatures (`tests/webhooks.rs`).
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
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const WATCHDOG: Duration = Duration::from_secs(120);
const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
const ASK: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"CANARY"}]}"#;
/// Five tokens in, three out.
const REPLY: &str = r#"{"id":"c","object":"chat.completion","model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"CANARY"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}"#;

/// What came: head and body.
type Post = (String, String);

/// Answers every request with `reply`, and tells what came.
fn server(reply: String) -> (SocketAddr, Receiver<Post>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let (sender, reply) = (sender.clone(), reply.clone());
            std::thread::spawn(move || {
                while let Some(post) = read(&socket) {
                    // The test may have ended.
                    let _ = sender.send(post);
                    let _ = (&socket).write_all(reply.as_bytes());
                }
            });
        }
    });
    (address, receiver)
}

fn read(socket: &TcpStream) -> Option<Post> {
    let mut reader = BufReader::new(socket);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.to_lowercase();
    let length = length.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    let mut body = vec![0; length.trim().parse().unwrap()];
    reader.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).unwrap()))
}

fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// Writes the configuration: a soft budget of sixteen tokens, and what is given.
fn configure(dir: &Path, upstream: SocketAddr, webhooks: &str) {
    std::fs::write(dir.join("secret"), SECRET).unwrap();
    let text = format!(
        "builtin_routes: false\nledger: {{ durability: sync }}\nroutes:\n  \
         - {{ prefix: /openai, upstream: 'http://{upstream}', provider: openai }}\nbudgets:\n  \
         - {{ name: b, window: year, limit: 16 tokens, mode: soft, thresholds: [50] }}\nwebhooks:\n{webhooks}"
    );
    std::fs::write(dir.join("bursar.yaml"), text).unwrap();
}

fn chat(sidecar: &Sidecar) {
    let mut socket = TcpStream::connect(&sidecar.proxy).unwrap();
    socket.set_read_timeout(Some(WATCHDOG)).unwrap();
    let head = format!(
        "POST /openai/v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        ASK.len()
    );
    socket.write_all(format!("{head}{ASK}").as_bytes()).unwrap();
    let mut reply = String::new();
    socket.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
}

fn metrics(sidecar: &Sidecar) -> String {
    let address = sidecar.admin.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    socket.read_to_string(&mut page).unwrap();
    page
}

fn bursar(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bursar")).args(arguments).current_dir(dir).env_clear().output().unwrap()
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

fn local(address: SocketAddr) -> String {
    format!(
        "  - {{ name: hook, url: 'http://{address}/canary-path', secret_file: secret, allow_private: [127.0.0.1] }}\n"
    )
}

#[test]
fn after_a_kill_a_share_that_was_told_is_never_told_as_something_new() {
    let dir = tempfile::tempdir().unwrap();
    let (upstream, _) = server(ok(REPLY));
    let (receiver, told) = server(ok(""));
    configure(dir.path(), upstream, &local(receiver));
    let sidecar = Sidecar::start_with(dir.path(), &["--config", "bursar.yaml"]);
    chat(&sidecar);
    let (head, body) = told.recv_timeout(WATCHDOG).unwrap();
    assert!(head.starts_with("POST /canary-path HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("webhook-signature: v1,"), "{head}");
    assert!(!body.contains("CANARY"), "{body}");
    let event: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(event["data"]["threshold_percent"], 50);
    // It is killed, not asked to end.
    drop(sidecar);

    let sidecar = Sidecar::start_with(dir.path(), &["--config", "bursar.yaml"]);
    chat(&sidecar);
    let mut ids = HashSet::from([event["id"].as_str().unwrap().to_owned()]);
    loop {
        let (_, body) = told.recv_timeout(WATCHDOG).unwrap();
        let event: Value = serde_json::from_str(&body).unwrap();
        ids.insert(event["id"].as_str().unwrap().to_owned());
        if event["data"]["threshold_percent"] == 100 {
            break;
        }
    }
    assert_eq!(ids.len(), 2, "the first one may come again, under its own id");
    let kept = std::fs::read_to_string(dir.path().join("data/webhooks.json")).unwrap();
    assert!(!kept.contains("whsec_") && !kept.contains("canary-path"), "{kept}");
}

#[test]
fn a_receiver_on_this_machine_is_not_called_unless_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (upstream, _) = server(ok(REPLY));
    let (receiver, told) = server(ok(""));
    let port = receiver.port();
    // Another one is named, so plain http is taken, and only the resolved address tells.
    let webhooks = format!(
        "  - {{ name: hook, url: 'http://localhost:{port}/', secret_file: secret, allow_private: [10.0.0.0/8] }}\n"
    );
    configure(dir.path(), upstream, &webhooks);
    let sidecar = Sidecar::start_with(dir.path(), &["--config", "bursar.yaml"]);
    chat(&sidecar);
    let began = tokio::time::Instant::now();
    while !metrics(&sidecar).contains("bursar_webhook_deliveries_total{result=\"failed\"} 1") {
        assert!(began.elapsed() < WATCHDOG);
        std::thread::yield_now();
    }
    assert!(told.try_recv().is_err());
    drop(sidecar);

    let output = bursar(dir.path(), &["webhook", "test", "--config", "bursar.yaml"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("is no public address, and allow_private does not name it"), "{said}");
    assert!(told.try_recv().is_err());
}

#[test]
fn a_test_event_is_sent_by_a_command_and_nothing_shows_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let (receiver, told) = server(ok(""));
    configure(dir.path(), receiver, &local(receiver));
    let output = bursar(dir.path(), &["webhook", "test", "hook", "--config", "bursar.yaml"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains(&format!("hook (http://{receiver}): taken, 200 OK")), "{said}");
    let (head, body) = told.recv_timeout(WATCHDOG).unwrap();
    let event: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(event["type"], "dev.bursar.webhook.test");
    assert!(head.contains(&format!("webhook-id: {}\r\n", event["id"].as_str().unwrap())), "{head}");

    let output = bursar(dir.path(), &["webhook", "test", "hok", "--config", "bursar.yaml"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("there is no webhook \"hok\"; there are: hook"));

    let shown = bursar(dir.path(), &["check", "--show", "--config", "bursar.yaml"]);
    assert_eq!(shown.status.code(), Some(0), "{}", text(&shown));
    assert!(text(&shown).contains("webhooks: hook"), "{}", text(&shown));
    for secret in ["whsec", "AAECAw", "canary-path"] {
        assert!(!text(&shown).contains(secret) && !said.contains(secret), "{secret}");
    }
}
