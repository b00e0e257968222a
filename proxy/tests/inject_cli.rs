//! `bursar inject` as a process: what it refuses to start with, what it answers, and how it ends.
//!
//! Not here: TLS (`src/inject/server`), what becomes of which pod (`src/inject/decision`); `.ci/deploy.py` has
//! both together, with pods that are checked by Kubernetes' schemas.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is a failed test"
)]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn bursar(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
    command.arg("inject").args(args).current_dir(dir).env_clear().stdin(Stdio::null());
    command
}

/// Whether it ends with this code and says this.
#[track_caller]
fn check(args: &[&str], code: i32, want: &str) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("wrong.yaml"), "image: bursar:1\nimag: x\n").unwrap();
    std::fs::write(dir.path().join("empty.yaml"), "# nothing\n").unwrap();
    let output = bursar(dir.path(), args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    assert!(said.contains(want), "{args:?}: {said}");
}

#[test]
fn what_cannot_work_is_said_before_anything_listens() {
    check(&[], 2, "image: is not set: name the sidecar's image with --image");
    check(&["--config", "empty.yaml"], 3, "image: is not set");
    check(&["--config", "wrong.yaml"], 3, "unknown field `imag`");
    check(&["--config", "nowhere.yaml", "--image", "a"], 1, "cannot read nowhere.yaml (--config)");
    check(&["--image", "a"], 1, "/run/secrets/bursar-inject/tls.crt");
    check(&["--image", "a", "--insecure-http"], 2, "0.0.0.0:8443 is not a loopback address");
    check(&["--image", "a", "--insecure-http", "--tls-cert", "x"], 2, "cannot be used with");
    check(&["--image", "a", "--listen", "here"], 2, "--listen");
    check(&["--image", "a", "--metrics-listen", "8080"], 2, "--metrics-listen");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let args = ["--image", "a", "--insecure-http", "--listen", "127.0.0.1:0", "--metrics-listen", &address];
    check(&args, 1, &format!("cannot listen on {address} (--metrics-listen): is another process using it?"));
}

/// A webhook that runs. Dropping it kills it.
struct Webhook {
    child: Child,
    address: String,
    metrics: Option<String>,
    lines: Box<dyn Iterator<Item = String>>,
}

impl Webhook {
    fn start(dir: &Path, args: &[&str]) -> Self {
        let plain = ["--insecure-http", "--listen", "127.0.0.1:0", "--image", "bursar:1"];
        let mut child = bursar(dir, &[&plain, args].concat()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut webhook = Self { child, address: String::new(), metrics: None, lines: Box::new(lines) };
        let ready: Value = serde_json::from_str(&webhook.line("bursar injects")).unwrap();
        webhook.address = ready["listen"].as_str().unwrap().to_owned();
        webhook.metrics = ready.get("metrics").map(|address| address.as_str().unwrap().to_owned());
        webhook
    }

    /// The next line of the log that contains `text`.
    fn line(&mut self, text: &str) -> String {
        self.lines.find(|line| line.contains(text)).expect("the log says it")
    }

    fn ask(&self, request: &str) -> String {
        Self::ask_at(&self.address, request)
    }

    fn ask_at(address: &str, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_review_is_answered_and_logged_without_the_pod_and_a_signal_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let settings = "image_pull_secrets: [registry]\nenv: { BURSAR_LEDGER_FAIL: closed }\n";
    std::fs::write(dir.path().join("inject.yaml"), settings).unwrap();
    let mut webhook = Webhook::start(dir.path(), &["--config", "inject.yaml"]);
    let pod = json!({
        "metadata": {"name": "bot", "annotations": {"bursar.dev/inject": "true", "bursar.dev/team": "checkout"}},
        "spec": {"containers": [{"name": "app", "env": [{"name": "OPENAI_API_KEY", "value": "canary-key"}]}]},
    });
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u-1", "namespace": "shop", "operation": "CREATE", "dryRun": true,
            "kind": {"group": "", "version": "v1", "kind": "Pod"}, "object": pod,
        },
    })
    .to_string();
    let answer = webhook.ask(&format!(
        "POST /mutate?timeout=5s HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{review}",
        review.len()
    ));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    let answer: Value = serde_json::from_str(body).unwrap();
    assert_eq!(answer["response"]["uid"], json!("u-1"));
    assert_eq!(answer["response"]["patchType"], json!("JSONPatch"));
    assert!(webhook.ask("GET /readyz HTTP/1.0\r\n\r\n").contains("ready"));
    assert_eq!(webhook.metrics, None, "nobody asked for metrics");

    let status = Command::new("kill").args(["-TERM", &webhook.child.id().to_string()]).status().unwrap();
    assert!(status.success());
    assert_eq!(webhook.child.wait().unwrap().code(), Some(0));
    let log: Vec<String> = webhook.lines.by_ref().collect();
    assert!(
        log.iter().any(|line| line.contains("a sidecar was injected") && line.contains("shop/bot")),
        "{log:?}"
    );
    assert!(log.iter().any(|line| line.contains("bursar has ended")), "{log:?}");
    assert!(!log.iter().any(|line| line.contains("canary-key")), "{log:?}");
}

#[test]
fn metrics_have_a_listener_of_their_own_where_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let webhook = Webhook::start(dir.path(), &["--metrics-listen", "127.0.0.1:0"]);
    let address = webhook.metrics.as_deref().unwrap();
    assert_ne!(address, webhook.address);
    let request = "POST /mutate HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
                   content-length: 2\r\n\r\n{}";
    assert!(webhook.ask(request).starts_with("HTTP/1.1 400"));
    let page = Webhook::ask_at(address, "GET /metrics HTTP/1.0\r\n\r\n");
    assert!(page.contains("\nbursar_inject_reviews_total{outcome=\"error\"} 1\n"), "{page}");
    assert!(page.contains("\nbursar_build_info{version="), "{page}");
    assert!(page.ends_with("# EOF\n"), "{page}");
    assert!(webhook.ask("GET /metrics HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 404"));
}

#[test]
fn variables_that_a_sidecar_would_not_take_are_told_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("inject.yaml"), "env: { BURSAR_LEDGER_FAIL: ajar }\n").unwrap();
    let mut child = bursar(
        dir.path(),
        &["--insecure-http", "--listen", "127.0.0.1:0", "--image", "a", "-c", "inject.yaml"],
    )
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let doubt = lines.find(|line| line.contains("a sidecar would not start")).expect("it says so");
    assert!(doubt.contains("ledger.fail") && doubt.contains("ajar"), "{doubt}");
    child.kill().unwrap();
    child.wait().unwrap();
}
