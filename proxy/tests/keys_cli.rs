//! Virtual keys and signed tokens as their users meet them: the guides' examples from `bursar key new` or an
//! issuer's keys to a request, and what the log of that shows.
//!
//! Not here: what happens on the wire (`tests/keys.rs`, `tests/jwt.rs`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is a failed test"
)]

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

const SECRET_OF_PROVIDER: &str = "sk-provider-canary-4c1b";
const REPLY: &str = r#"{"id":"c","object":"chat.completion","model":"gpt-4o-mini","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}"#;

fn bursar(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
    command.args(args).current_dir(dir).env_clear().stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn run(dir: &Path, args: &[&str]) -> Output {
    let output = bursar(dir, args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    output
}

/// The YAML blocks of a guide.
fn blocks(guide: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide").join(guide);
    let page = std::fs::read_to_string(path).unwrap();
    let blocks = page.split("```yaml\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// The id and the hash that `key new` and `key hash` tell.
fn id_and_hash(told: &str) -> (String, String) {
    let after = |name: &str| told.split(name).nth(1).unwrap().trim_start_matches([' ', '\'']);
    let upto = |text: &str| text.split([',', '\n', '\'', ' ']).next().unwrap().to_owned();
    (upto(after("id:")), upto(after("hash:")))
}

#[test]
fn every_configuration_of_the_guide_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("openai");
    std::fs::write(&secret, SECRET_OF_PROVIDER).unwrap();
    let blocks = blocks("keys.md");
    assert!(blocks.len() >= 2, "the reader of the guide works");
    for block in blocks {
        let block = block.replace("/run/secrets/openai", secret.to_str().unwrap());
        std::fs::write(dir.path().join("bursar.yaml"), &block).unwrap();
        let checked = bursar(dir.path(), &["check", "--config", "bursar.yaml", "--show"]).output().unwrap();
        assert!(checked.status.success(), "{block}\n{}", text(&checked.stderr));
        let shown = text(&checked.stdout);
        assert!(!shown.contains("0e79bf2d") && !shown.contains("canary"), "{shown}");
    }
}

#[test]
fn a_key_is_printed_once_and_its_hash_again_from_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pepper"), "salt and more\n").unwrap();
    for more in [&[][..], &["--pepper-file", "pepper"]] {
        let made = run(dir.path(), &[&["key", "new"], more].concat());
        let (key, told) = (text(&made.stdout), text(&made.stderr));
        assert_eq!(key.lines().count(), 1);
        assert!(!told.contains(key.trim()), "on standard output alone");
        let mut hashing = bursar(dir.path(), &[&["key", "hash"], more].concat());
        let mut hashing = hashing.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        hashing.stdin.take().unwrap().write_all(key.as_bytes()).unwrap();
        let hashed = text(&hashing.wait_with_output().unwrap().stdout);
        assert_eq!(id_and_hash(&hashed), id_and_hash(&told));
        assert_eq!(id_and_hash(&told).1.starts_with("b3p:"), !more.is_empty());
        let rotated = run(dir.path(), &["key", "new", "--json", "--id", &id_and_hash(&told).0]);
        let rotated: Value = serde_json::from_slice(&rotated.stdout).unwrap();
        assert_eq!(rotated["id"], id_and_hash(&told).0);
        assert_ne!(rotated["key"], key.trim());
    }
    let wrong = bursar(dir.path(), &["key", "new", "--id", "x"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

/// A provider that answers every request and keeps what it heard.
fn provider() -> (u16, Receiver<String>) {
    server(REPLY.to_owned())
}

/// A server that answers every request with `reply`.
fn server(reply: String) -> (u16, Receiver<String>) {
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
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            heard.send(head + &text(&body)).unwrap();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
            write!(stream.get_mut(), "{head}content-length: {}\r\n\r\n{reply}", reply.len()).unwrap();
        }
    });
    (port, hears)
}

struct Sidecar {
    child: Child,
    lines: Receiver<String>,
    address: String,
}

impl Sidecar {
    fn start(dir: &Path) -> Self {
        let listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir", "data"];
        let mut command = bursar(dir, &[&["serve", "--config", "bursar.yaml"], &listen[..]].concat());
        let mut child = command.env("BURSAR_LOG", "trace").stderr(Stdio::piped()).spawn().unwrap();
        let mut all = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let ready = all.find(|line| line.contains("bursar serves")).expect("it serves");
        let ready: Value = serde_json::from_str(&ready).unwrap();
        let address = ready["proxy"].as_str().unwrap().to_owned();
        let (told, lines) = channel();
        std::thread::spawn(move || all.for_each(|line| drop(told.send(line))));
        Self { child, lines, address }
    }

    fn post(&self, key: &str) -> String {
        let body = r#"{"model":"gpt-4o-mini","messages":[]}"#;
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "POST /openai/v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    }

    /// Ends it; all that it logged.
    fn end(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
        self.lines.iter().collect::<Vec<_>>().join("\n")
    }
}

#[test]
fn the_guides_way_from_a_new_key_to_a_request_leaves_no_secret_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let made = run(dir.path(), &["key", "new"]);
    let (key, told) = (text(&made.stdout).trim().to_owned(), text(&made.stderr));
    let (id, hash) = id_and_hash(&told);
    std::fs::write(dir.path().join("openai"), SECRET_OF_PROVIDER).unwrap();
    let (port, hears) = provider();
    let config = blocks("keys.md")[0]
        .replace("/run/secrets/openai", dir.path().join("openai").to_str().unwrap())
        .replace("https://api.openai.com", &format!("http://127.0.0.1:{port}"))
        .replace("5b1f0a6e9c3d7284", &id)
        .replace("b3:0e79bf2d30edcce9c91e959c3ca7e3d1d0588b9f87a598b82e82d6bbb5d5db47", &hash);
    std::fs::write(dir.path().join("bursar.yaml"), config).unwrap();
    let listed = run(dir.path(), &["key", "list", "--config", "bursar.yaml", "--format", "json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let row = &listed["keys"][0];
    assert_eq!(
        (&row["name"], &row["id"], &row["state"]),
        (&"support-bot".into(), &id.as_str().into(), &"valid".into())
    );
    assert!(!listed.to_string().contains(&hash[3..]));

    let sidecar = Sidecar::start(dir.path());
    let reply = sidecar.post(&key);
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    let heard = hears.recv().unwrap();
    assert!(heard.contains(&format!("authorization: Bearer {SECRET_OF_PROVIDER}")), "{heard}");
    let near = key.replace(&key[key.len() - 1..], "g");
    for wrong in ["sk-mine", near.as_str(), "bursar_"] {
        let reply = sidecar.post(wrong);
        assert!(reply.starts_with("HTTP/1.1 401 "), "{reply}");
    }
    let log = sidecar.end();
    assert!(log.contains("request failed"), "{log}");
    let secret = key.rsplit('_').next().unwrap();
    for canary in [secret, &secret[..20], SECRET_OF_PROVIDER, &hash[3..]] {
        assert!(!log.contains(canary) && !heard.contains(secret), "a secret was logged or passed on");
    }
}

#[test]
fn every_configuration_of_the_guide_of_tokens_is_right() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["ca.crt", "token"] {
        std::fs::write(dir.path().join(name), "x").unwrap();
    }
    let mounted = dir.path().to_str().unwrap();
    let ours = |block: &String| !block.contains("serviceAccountToken");
    let blocks: Vec<String> = blocks("jwt.md").into_iter().filter(ours).collect();
    assert_eq!(blocks.len(), 3, "the reader of the guide works");
    for block in blocks {
        let block = block.replace("/var/run/secrets/kubernetes.io/serviceaccount", mounted);
        let head = if block.contains("identity:") { "" } else { "identity:\n  jwt:\n" };
        std::fs::write(dir.path().join("bursar.yaml"), format!("{head}{block}")).unwrap();
        let checked = bursar(dir.path(), &["check", "--config", "bursar.yaml"]).output().unwrap();
        assert!(checked.status.success(), "{block}\n{}", text(&checked.stderr));
    }
}

/// A private key that was published as an example, and its public half: RFC 8410 §10.3 and §10.1. Nobody's.
const EXAMPLE_KEY: [u8; 48] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20, 0xd4,
    0xee, 0x72, 0xdb, 0xf9, 0x13, 0x58, 0x4a, 0xd5, 0xb6, 0xd8, 0xf1, 0xf7, 0x69, 0xf8, 0xad, 0x3a, 0xfe,
    0x7c, 0x28, 0xcb, 0xf1, 0xd4, 0xfb, 0xe0, 0x97, 0xa8, 0x8f, 0x44, 0x75, 0x58, 0x42,
];
const EXAMPLE_JWKS: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE"}]}"#;

#[test]
fn a_token_is_verified_by_keys_that_were_fetched_and_leaves_no_trace_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let key = jsonwebtoken::EncodingKey::from_ed_der(&EXAMPLE_KEY);
    let (issuer, asks) = server(EXAMPLE_JWKS.to_owned());
    let (port, hears) = provider();
    std::fs::write(dir.path().join("openai"), SECRET_OF_PROVIDER).unwrap();
    std::fs::write(dir.path().join("shown"), "canary-shown-to-issuer").unwrap();
    let config = format!(
        "routes:\n  - {{ prefix: /openai, upstream: 'http://127.0.0.1:{port}', provider: openai, auth: inject, \
         secret_file: openai }}\nidentity:\n  jwt:\n    - {{ name: corp, issuer: 'https://corp.test', audience: bursar, \
         jwks_url: 'http://127.0.0.1:{issuer}/jwks?key=canary-query', token_file: shown, claims: {{ team: dept }} }}\n"
    );
    std::fs::write(dir.path().join("bursar.yaml"), config).unwrap();
    let sidecar = Sidecar::start(dir.path());
    let read = sidecar.lines.iter().find(|line| line.contains("the keys of an issuer of tokens were read"));
    assert!(read.is_some());
    let asked = asks.recv().unwrap();
    assert!(asked.contains("authorization: Bearer canary-shown-to-issuer"), "{asked}");

    let now = bursar_domain::Clock::now(&bursar_domain::SystemClock).micros() / 1_000_000;
    let token = |audience: &str| {
        let claims = serde_json::json!({
            "iss": "https://corp.test", "aud": audience, "exp": now + 600, "dept": "canary-team",
        });
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA);
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    };
    let (good, bad) = (token("bursar"), token("other"));
    let reply = sidecar.post(&good);
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    let heard = hears.recv().unwrap();
    assert!(heard.contains(&format!("authorization: Bearer {SECRET_OF_PROVIDER}")), "{heard}");
    let reply = sidecar.post(&bad);
    assert!(reply.starts_with("HTTP/1.1 401 ") && reply.contains("another audience"), "{reply}");
    for file in ["cmdline", "environ"] {
        let seen = std::fs::read(format!("/proc/{}/{file}", sidecar.child.id())).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&seen).contains("canary"), "{file}");
    }
    let log = sidecar.end();
    assert!(log.contains("request failed"), "{log}");
    let parts = good.split('.').chain(bad.split('.')).map(|part| &part[..20]);
    for canary in parts.chain(["canary-shown", "canary-query", SECRET_OF_PROVIDER]) {
        assert!(!log.contains(canary), "{canary} is in the log");
    }
}
