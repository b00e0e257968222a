//! The guide of tagging as its readers follow it: its commands run in a shell against a sidecar and a provider
//! of the test's own, and must show what the guide says; its configurations must be right.
//!
//! Needs `sh` and `curl`, as a reader does.
//!
//! Not here: what the SDKs' examples send (`tests/sdk`), every rule of identities (`layers/identify`).
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
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

const REPLY: &str = r#"{"id":"c","object":"chat.completion","model":"gpt-4o-mini","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}"#;
/// Questions that are asked until a record is there; each takes some milliseconds.
const TRIES_MAX: usize = 500;

fn guide() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/tagging.md")).unwrap()
}

/// The blocks of the guide in one language.
fn blocks(language: &str) -> Vec<String> {
    let page = guide();
    let begin = format!("```{language}\n");
    let blocks = page.split(begin.as_str()).skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// A provider that answers every request and keeps the heads it heard.
fn provider() -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heard, hears) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = BufReader::new(stream);
            let (mut head, mut length) = (String::new(), 0);
            while stream.read_line(&mut head).is_ok_and(|count| count > 2) {
                let line = head.lines().last().unwrap().to_lowercase();
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.parse().unwrap();
                }
            }
            stream.read_exact(&mut vec![0; length]).unwrap();
            heard.send(head).unwrap();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
            write!(stream.get_mut(), "{head}content-length: {}\r\n\r\n{REPLY}", REPLY.len()).unwrap();
        }
    });
    (port, hears)
}

/// A sidecar in `dir` with this configuration and one route.
fn start(dir: &Path, config: &str) -> (Sidecar, Receiver<String>) {
    let (port, hears) = provider();
    let route = format!(
        "builtin_routes: false\nroutes:\n  - {{ prefix: /openai, upstream: 'http://127.0.0.1:{port}', provider: openai }}\n"
    );
    std::fs::write(dir.join("bursar.yaml"), format!("{config}{route}")).unwrap();
    (Sidecar::start_with(dir, &["--config", "bursar.yaml"]), hears)
}

/// Where the tester's programs are.
fn path_of_tester() -> String {
    std::env::var_os("PATH").unwrap().into_string().unwrap()
}

/// Runs a block of the guide against this sidecar.
fn shell(dir: &Path, sidecar: &Sidecar, block: &str) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_bursar")).parent().unwrap();
    let path = format!("{}:{}", program.display(), path_of_tester());
    let mut command = Command::new("sh");
    command
        .args(["-eu", "-c", &block.replace("127.0.0.1:4141", &sidecar.proxy)])
        .current_dir(dir)
        .env_clear();
    command.envs([("PATH", path.as_str()), ("BURSAR_ADMIN", &sidecar.admin), ("OPENAI_API_KEY", "sk-test")]);
    command.stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The rows of the guide's table whose head begins so.
fn rows(head: &str) -> Vec<Vec<String>> {
    let page = guide();
    let lines = page.lines().skip_while(|line| !line.starts_with(head)).skip(2);
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    lines.take_while(|line| line.starts_with('|')).map(cells).collect()
}

/// Waits until the ledger tells so many requests.
fn wait_for(dir: &Path, sidecar: &Sidecar, requests: u64) {
    let asked = || said(&shell(dir, sidecar, "bursar usage --format json"));
    let there = |text: String| serde_json::from_str::<Value>(&text).unwrap()["total"]["requests"] == requests;
    assert!((0..TRIES_MAX).any(|_| there(asked())), "the records never came");
}

#[test]
fn the_guides_requests_are_in_the_reports_as_the_guide_shows_them() {
    let dir = tempfile::tempdir().unwrap();
    let (sidecar, hears) = start(dir.path(), "");
    let commands = blocks("sh");
    for request in &commands[..2] {
        assert_eq!(said(&shell(dir.path(), &sidecar, request)), REPLY);
        let heard = hears.recv().unwrap();
        assert!(!heard.contains("x-bursar"), "our headers stay here: {heard}");
    }
    wait_for(dir.path(), &sidecar, 2);
    let shown = said(&shell(dir.path(), &sidecar, &commands[2]));
    let tables = [rows("| team | workload | Requests |"), rows("| tag:feature | Requests |")].concat();
    assert_eq!(tables.len(), 3, "the reader of the guide works");
    for cells in tables {
        let there = shown.lines().any(|line| {
            let (count, names) = cells.split_last().unwrap();
            let rest = names
                .iter()
                .try_fold(line, |rest, name| rest.split_once(name.as_str()).map(|(_, rest)| rest));
            rest.is_some_and(|rest| rest.split_whitespace().next() == Some(count))
        });
        assert!(there, "{cells:?} in\n{shown}");
    }
    assert!(shown.contains("checkout,search,1,") && shown.contains("research,search,1,"), "{shown}");
}

#[test]
fn a_request_that_lacks_what_the_guide_requires_is_refused_as_the_guide_says() {
    let dir = tempfile::tempdir().unwrap();
    let required = blocks("yaml").into_iter().find(|block| block.contains("required")).unwrap();
    let (sidecar, _hears) = start(dir.path(), &required);
    let commands = blocks("sh");
    let answer: Value = serde_json::from_str(&said(&shell(dir.path(), &sidecar, &commands[3]))).unwrap();
    assert_eq!(answer["error"]["code"], "identity_required", "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("x-bursar-team"), "{answer}");
    said(&shell(dir.path(), &sidecar, &commands[4]));
}

#[test]
fn every_configuration_of_the_guide_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = blocks("yaml");
    assert_eq!(blocks.len(), 4, "the reader of the guide works");
    for block in blocks {
        std::fs::write(dir.path().join("bursar.yaml"), &block).unwrap();
        let mut check = Command::new(env!("CARGO_BIN_EXE_bursar"));
        check.args(["check", "--config", "bursar.yaml"]).current_dir(dir.path()).env_clear();
        said(&check.output().unwrap());
    }
}
