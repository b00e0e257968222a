//! Peers that mean harm, or only behave so, against the whole binary: what they cost in memory, descriptors
//! and records (T14, T17, T18, T19, T27, T29, T34).
//!
//! Invariants
//! - Every test has a directory, ports and processes of its own; what it starts ends with it.
//! - Tests wait for events, never for time. Memory is what the kernel says of the process.
//!
//! Not here: every byte on the wire (`tests/scenarios.rs`), attacks on HTTP itself (`tests/smuggling.rs`,
//! `.ci/http2_attacks.py`), crowds of connections (`.ci/crowd.py`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is a failed test"
)]

mod live;

use live::{
    CHAT, CHAT_PATH, CHAT_REPLY, Sidecar, Stage, Start, Upstream, ask, exactly, head, header, records, run,
};
use serde_json::Value;
use std::io::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

const MIB: usize = 1 << 20;

// === upstreams

/// An upstream that answers each request, told its body, as `answer` does.
async fn upstream<A>(answer: A) -> SocketAddr
where
    A: AsyncFn(&str, &mut TcpStream) -> std::io::Result<()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Rc::new(answer);
    spawn_local(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let answer = Rc::clone(&answer);
            spawn_local(async move {
                let mut buffer = Vec::new();
                while let Some(head) = head(&mut socket, &mut buffer).await {
                    let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
                    let Some(body) = exactly(&mut socket, &mut buffer, length).await else { return };
                    if answer(&String::from_utf8_lossy(&body), &mut socket).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

async fn reply(socket: &mut TcpStream, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(body).await
}

// === the process from outside

/// A figure of `/proc/PID/status`, in KiB.
fn kib(sidecar: &Sidecar, field: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sidecar.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

/// By how much the process grew at most while `what` was done.
async fn growth(sidecar: &Sidecar, what: impl AsyncFnOnce()) -> usize {
    // From now on the kernel looks for the most anew. It lets root alone say so of a process that is not
    // dumpable; for others, what goes beyond the most so far counts.
    let anew = std::fs::write(format!("/proc/{}/clear_refs", sidecar.pid()), "5").is_ok();
    let before = kib(sidecar, if anew { "VmRSS" } else { "VmHWM" });
    what().await;
    kib(sidecar, "VmHWM").saturating_sub(before) * 1024
}

/// How many descriptors it has open. Of a process that is not dumpable root alone can see them.
fn descriptors(sidecar: &Sidecar) -> Option<usize> {
    let open = std::fs::read_dir(format!("/proc/{}/fd", sidecar.pid()));
    let open = open.map(std::iter::Iterator::count).ok();
    if open.is_none() {
        eprintln!("SKIPPED: only root can count the descriptors of the process");
    }
    open
}

/// The value of a sample on the metrics page; of a family with labels, the sum.
async fn metric(sidecar: &Sidecar, name: &str) -> u64 {
    let (_, page) = sidecar.get("/metrics").await;
    let samples = page.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
    samples.map(|(_, value)| value.parse::<u64>().unwrap()).sum()
}

/// Waits until nothing is under way and every record is written.
async fn settled(sidecar: &Sidecar) {
    while metric(sidecar, "bursar_requests_in_flight").await != 0 {}
    sidecar.has_open(0).await;
}

// === memory, whatever an upstream sends (T17, T18)

/// How long each of them is: 12 MiB, or as `BURSAR_LONG_MIB` says.
fn long() -> usize {
    let told = std::env::vars().find(|(name, _)| name == "BURSAR_LONG_MIB");
    told.map_or(12, |(_, mib)| mib.parse().unwrap()) * MIB
}

/// What one stream may cost.
const STREAM_MAX: usize = 8 * MIB;

/// Sends `count` bytes of `piece` over and over as chunks, between `first` and `last`.
async fn endless(
    socket: &mut TcpStream,
    [first, piece, last]: [&str; 3],
    count: usize,
) -> std::io::Result<()> {
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    socket.write_all(format!("{head}{}", chunk(first)).as_bytes()).await?;
    let piece = chunk(&piece.repeat(64 * 1024 / piece.len()));
    for _ in 0..count.div_ceil(64 * 1024) {
        socket.write_all(piece.as_bytes()).await?;
    }
    socket.write_all(format!("{}0\r\n\r\n", chunk(last)).as_bytes()).await
}

const USAGE: &str = "\n\ndata: {\"id\":\"c\",\"model\":\"gpt-4o-mini\",\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":500,\"total_tokens\":1500}}\n\ndata: [DONE]\n\n";

#[test]
fn endless_lines_events_and_documents_pass_and_cost_a_bounded_piece_of_memory() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let upstream = upstream(async |body, socket| {
            if body.contains("a line") {
                endless(
                    socket,
                    ["data: {\"choices\":[{\"delta\":{\"content\":\"", "x", &format!("\"}}]}}{USAGE}")],
                    long(),
                )
                .await
            } else if body.contains("an event") {
                endless(socket, ["data: {\n", "data: \"a\": 1,\n", USAGE], long()).await
            } else if body.contains("nothing but names") {
                endless(socket, ["event: x\n", "id: 7\n: y\n", USAGE], long()).await
            } else {
                let text = "x".repeat(long());
                reply(socket, "", CHAT_REPLY.replace("Hello.", &text).as_bytes()).await
            }
        });
        let sidecar = Start::new(dir.path(), "").sidecar(upstream.await).await;
        // What a first request costs is not the question.
        let streams = ["warm", "a document", "a line", "an event", "nothing but names"];
        for stream in streams {
            let body = CHAT.replace("hi", stream);
            let grown = growth(&sidecar, async || {
                let (status, _, body) = ask(sidecar.proxy, CHAT_PATH, "", body.as_bytes()).await;
                assert_eq!(status, 200);
                assert!(body.len() >= long(), "{stream}: {} bytes came", body.len());
            });
            let grown = grown.await;
            assert!(stream == "warm" || grown <= STREAM_MAX, "{stream} of {} bytes took {grown}", long());
        }
        settled(&sidecar).await;
        sidecar.stop().await;
        let records = records(dir.path(), "data");
        assert_eq!(records.len(), streams.len());
        for record in records.values() {
            assert_eq!(record["outcome"], "ok", "{record}");
        }
    });
}

/// 32 MiB of spaces in brotli (`brotli -q 11 -w 22`).
const BROTLI_BOMB: &str = "cbffff3ff82540e2b14020f7fe8fffff7ff04b00c4611180eefd1fffffffe0970088c30200ddfb3ffeffffc12f0110870500baf77f03";

/// As many spaces, in each coding.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let spaces = vec![b' '; 32 * MIB];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&spaces).unwrap();
    let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    deflate.write_all(&spaces).unwrap();
    let digit = |at: usize| u8::from_str_radix(&BROTLI_BOMB[at..at + 2], 16).unwrap();
    vec![
        ("gzip", gzip.finish().unwrap()),
        ("deflate", deflate.finish().unwrap()),
        ("br", (0..BROTLI_BOMB.len()).step_by(2).map(digit).collect()),
        ("zstd", zstd::encode_all(spaces.as_slice(), 3).unwrap()),
    ]
}

/// What a bomb may cost.
const BOMB_MAX: usize = 16 * MIB;

#[test]
fn a_reply_that_inflates_passes_untouched_and_costs_a_bounded_piece_of_memory() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let bombs = Rc::new(bombs());
        let all = Rc::clone(&bombs);
        let upstream = upstream(async move |body, socket| {
            let (name, bomb) = all.iter().find(|(name, _)| body.contains(name)).unwrap();
            reply(socket, &format!("content-encoding: {name}\r\n"), bomb).await
        });
        let sidecar = Start::new(dir.path(), "").sidecar(upstream.await).await;
        for (name, bomb) in bombs.iter() {
            let body = CHAT.replace("hi", name);
            let grown = growth(&sidecar, async || {
                let (status, head, body) = ask(sidecar.proxy, CHAT_PATH, "", body.as_bytes()).await;
                assert_eq!((status, header(&head, "content-encoding")), (200, Some(*name)));
                assert!(body == *bomb, "{name}: the client gets what the upstream sent");
            });
            let grown = grown.await;
            assert!(grown <= BOMB_MAX, "{name}: {} bytes took {grown}", bomb.len());
        }
        settled(&sidecar).await;
        sidecar.stop().await;
        assert_eq!(records(dir.path(), "data").len(), bombs.len());
    });
}

#[test]
fn a_request_that_inflates_is_never_held_inflated_and_no_budget_is_fooled_by_its_size() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let upstream = upstream(async |_, socket| reply(socket, "", CHAT_REPLY.as_bytes()).await).await;
        let budget = "budgets: [{ name: hard, scope: { team: a }, window: day, limit: 1000000 tokens }]";
        let sidecar = Start::new(dir.path(), budget).sidecar(upstream).await;
        for (name, bomb) in bombs() {
            for team in ["a", "b"] {
                let headers = format!("content-encoding: {name}\r\nx-bursar-team: {team}\r\n");
                let grown = growth(&sidecar, async || {
                    let (status, _, body) = ask(sidecar.proxy, CHAT_PATH, &headers, &bomb).await;
                    let said = String::from_utf8_lossy(&body);
                    // Without a budget it is the upstream's to refuse.
                    assert_eq!(status, if team == "a" { 429 } else { 200 }, "{name} {team}: {said}");
                });
                let grown = grown.await;
                assert!(grown <= BOMB_MAX, "{name}, team {team}: {} bytes took {grown}", bomb.len());
            }
        }
        sidecar.stop().await;
    });
}

// === clients that leave, and what they leave open (T14)

#[test]
fn clients_that_leave_anywhere_leave_a_record_each_and_no_descriptor() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::start().await;
        let at = upstream.address;
        let patient = format!("prefix: /patient, upstream: 'http://{at}', provider: openai, on_abort: drain");
        let sidecar = Start::new(dir.path(), "").with_route(&patient).sidecar(at).await;
        upstream.go_to(Stage::End);
        let paths = [CHAT_PATH, "/patient/v1/chat/completions"];
        let mut sent = 0;
        for path in paths {
            // So that what stays open in good times is open already.
            assert_eq!(ask(sidecar.proxy, path, "", live::CHAT_STREAM.as_bytes()).await.0, 200);
            sent += 1;
        }
        settled(&sidecar).await;
        let at_first = descriptors(&sidecar);
        for read in (0..600).step_by(40) {
            for path in paths {
                for stage in [Stage::First, Stage::End] {
                    upstream.go_to(stage);
                    let before = upstream.asked();
                    let mut socket = TcpStream::connect(sidecar.proxy).await.unwrap();
                    let body = live::CHAT_STREAM;
                    let length = body.len();
                    let ask =
                        format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}");
                    socket.write_all(ask.as_bytes()).await.unwrap();
                    while upstream.asked() == before {
                        tokio::task::yield_now().await;
                    }
                    // The head and the first event are always there; the whole has not much more.
                    let most = if stage == Stage::First { read.min(200) } else { read };
                    let mut got = Vec::new();
                    while got.len() < most && !got.ends_with(b"\r\n0\r\n\r\n") {
                        assert_ne!(
                            socket.read_buf(&mut got).await.unwrap(),
                            0,
                            "{}",
                            String::from_utf8_lossy(&got)
                        );
                    }
                    drop(socket);
                    sent += 1;
                    upstream.go_to(Stage::End);
                }
            }
        }
        settled(&sidecar).await;
        // Connections that were read to their end may wait for the next request, one for each that ran at
        // once; none did here.
        while descriptors(&sidecar) > at_first {
            tokio::task::yield_now().await;
        }
        sidecar.stop().await;
        assert_eq!(records(dir.path(), "data").len() as u64, sent);
        assert_eq!(upstream.asked(), sent);
    });
}

// === keys that are guessed (T27)

#[test]
fn keys_that_are_guessed_cost_no_memory_and_reach_nobody() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::start().await;
        let key = new_key(dir.path());
        let settings = format!("keys:\n  - {{ name: k, id: {}, hash: '{}', team: a }}", key.id, key.hash);
        let sidecar = Start::new(dir.path(), &settings).sidecar(upstream.address).await;
        let mut socket = TcpStream::connect(sidecar.proxy).await.unwrap();
        assert_eq!(guess(&mut socket, &key.text).await, Some(200));
        // So many that everything bounded is full, and once more as many.
        let mut held = Vec::new();
        for half in 0..2 {
            for number in 0..2_000 {
                let wrong = near_miss(&key.text, half * 2_000 + number);
                assert_eq!(guess(&mut socket, &wrong).await, Some(401), "{number}");
            }
            held.push(kib(&sidecar, "VmRSS"));
        }
        assert!(held[1] <= held[0] + 1024, "2,000 guesses more took {} KiB", held[1] - held[0]);
        assert_eq!(guess(&mut socket, &key.text).await, Some(200), "the right one is good all the time");
        drop(socket);
        settled(&sidecar).await;
        sidecar.stop().await;
        assert_eq!((upstream.asked(), records(dir.path(), "data").len()), (2, 2));
    });
}

/// A key as `bursar key new` makes it.
struct Key {
    text: String,
    id: String,
    hash: String,
}

fn new_key(dir: &std::path::Path) -> Key {
    let output = live::command(dir, &["key", "new", "--json"]);
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    let [text, id, hash] = ["key", "id", "hash"].map(|name| made[name].as_str().unwrap().to_owned());
    Key { text, id, hash }
}

/// The key with one character replaced by another, each time elsewhere.
fn near_miss(key: &str, number: usize) -> String {
    let mut characters: Vec<char> = key.chars().collect();
    let from = key.rfind('_').unwrap() + 1;
    let at = from + number % (characters.len() - from);
    let digit = characters[at].to_digit(36).unwrap_or(0);
    let other = (digit + 1 + (number / characters.len()) as u32 % 8) % 10;
    let other = char::from_digit(if other == digit { (other + 1) % 10 } else { other }, 10).unwrap();
    characters[at] = if other == characters[at] { 'x' } else { other };
    characters.into_iter().collect()
}

/// The status that a request with this key gets, unless the connection is closed on it.
async fn guess(socket: &mut TcpStream, key: &str) -> Option<u16> {
    let length = CHAT.len();
    let ask = format!(
        "POST {CHAT_PATH} HTTP/1.1\r\nhost: x\r\nx-bursar-key: {key}\r\ncontent-length: {length}\r\n\r\n{CHAT}"
    );
    socket.write_all(ask.as_bytes()).await.ok()?;
    let mut buffer = Vec::new();
    let head = head(socket, &mut buffer).await?;
    exactly(socket, &mut buffer, header(&head, "content-length").unwrap().parse().unwrap()).await.unwrap();
    Some(head.split(' ').nth(1).unwrap().parse().unwrap())
}

// === what others on the machine see of it (T28)

#[test]
fn nothing_of_the_process_is_dumped_or_shown_to_others() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::start().await;
        std::fs::write(dir.path().join("secret"), "MARK-provider-key").unwrap();
        let injecting = format!(
            "prefix: /keyed, upstream: 'http://{}', provider: openai, auth: inject, secret_file: secret",
            upstream.address
        );
        let sidecar = Start::new(dir.path(), "").with_route(&injecting).sidecar(upstream.address).await;
        let body = CHAT.replace("hi", "MARK-prompt");
        let headers = "authorization: Bearer MARK-key\r\nx-bursar-tag-a: MARK-tag\r\n";
        for path in [CHAT_PATH, "/keyed/v1/chat/completions", "/nowhere?key=MARK-query"] {
            ask(sidecar.proxy, path, headers, body.as_bytes()).await;
        }
        let about = |name: &str| std::fs::read(format!("/proc/{}/{name}", sidecar.pid())).unwrap();
        let limits = String::from_utf8(about("limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "soft and hard: {core}");
        // What is not dumpable belongs to root, whoever started it.
        let owner = std::os::unix::fs::MetadataExt::uid(
            &std::fs::metadata(format!("/proc/{}/environ", sidecar.pid())).unwrap(),
        );
        assert_eq!(owner, 0);
        for name in ["cmdline", "comm"] {
            assert!(!String::from_utf8_lossy(&about(name)).contains("MARK"), "{name}");
        }
        for thread in std::fs::read_dir(format!("/proc/{}/task", sidecar.pid())).unwrap() {
            let name = std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap();
            assert!(!name.contains("MARK"), "{name}");
        }
        settled(&sidecar).await;
        sidecar.stop().await;
        // Exports tell tags, which are there for that, and nothing else of a request.
        for format in ["jsonl", "csv"] {
            let output =
                live::command(dir.path(), &["export", "usage", "--format", format, "--data-dir", "data"]);
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.contains("MARK-tag"), "there is something to look at: {text}");
            assert!(!text.replace("MARK-tag", "").contains("MARK"), "{text}");
        }
    });
}

// === names that mean something elsewhere (T29)

#[test]
fn names_that_are_markup_quotes_or_control_characters_break_neither_log_nor_metrics() {
    const HOSTILE: [&str; 6] = [
        "=cmd|' /C calc'!A1",
        "a\\\"} 1\\n# HELP bursar_fake x\\nbursar_fake{a=\\\"",
        "<script>alert(1)</script>",
        "\\u001b[31mred\\u001b[0m",
        "back\\\\slash\\\\",
        "\\u202eright-to-left\\u0000nul",
    ];
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let upstream = upstream(async |body, socket| {
            let asked: Value = serde_json::from_str(body).unwrap();
            let mut answer: Value = serde_json::from_str(CHAT_REPLY).unwrap();
            answer["model"] = asked["model"].clone();
            reply(socket, "", answer.to_string().as_bytes()).await
        });
        let sidecar = Start::new(dir.path(), "").sidecar(upstream.await).await;
        for (number, name) in HOSTILE.iter().enumerate() {
            let body = format!(r#"{{"model":"{name}","messages":[{{"role":"user","content":"hi"}}]}}"#);
            let headers = format!("x-bursar-team: =team{number}\"><b>\r\nx-bursar-tag-x: @sum(1)\r\n");
            assert_eq!(ask(sidecar.proxy, CHAT_PATH, &headers, body.as_bytes()).await.0, 200, "{name}");
        }
        settled(&sidecar).await;
        let (_, page) = sidecar.get("/metrics").await;
        sidecar.signal("-TERM");
        let (code, log) = sidecar.log().await;
        assert_eq!(code, 0);
        for line in page.lines() {
            // A sample has its name, then labels whose quotes are escaped, then a number, and nothing else.
            assert!(is_sample(line) || is_comment(line), "{line}");
            assert!(!line.starts_with("bursar_fake") && !line.starts_with("# HELP bursar_fake"), "{line}");
        }
        let requests = log.iter().filter(|line| line.contains("bursar::request")).count();
        assert_eq!(requests, HOSTILE.len(), "one line each: {log:#?}");
        for line in &log {
            assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
        assert_eq!(records(dir.path(), "data").len(), HOSTILE.len());
    });
}

fn is_comment(line: &str) -> bool {
    let about = ["# HELP ", "# TYPE ", "# UNIT "].iter().find_map(|begin| line.strip_prefix(begin));
    line == "# EOF" || about.is_some_and(is_named)
}

fn is_named(rest: &str) -> bool {
    let name = rest.split(' ').next().unwrap_or_default();
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

fn is_sample(line: &str) -> bool {
    let name: String = line.chars().take_while(|c| c.is_ascii_alphanumeric() || "_:".contains(*c)).collect();
    let mut rest = &line[name.len()..];
    if let Some(labels) = rest.strip_prefix('{') {
        let Some(end) = end_of_labels(labels) else { return false };
        rest = &labels[end..];
    }
    !name.is_empty() && rest.trim_start().split(' ').next().is_some_and(|value| value.parse::<f64>().is_ok())
}

/// Where `name="value",…}` ends, if it is well formed.
fn end_of_labels(labels: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in labels.char_indices() {
        match (quoted, escaped, c) {
            (true, true, '\\' | '"' | 'n') => escaped = false,
            (true, true, _) => return None,
            (true, false, '\\') => escaped = true,
            (_, false, '"') => quoted = !quoted,
            (false, _, '}') => return Some(at + 1),
            _ => {}
        }
    }
    None
}

// === a client that takes every place (T19)

/// An address of this machine that is not loopback. Nothing is sent for that: the kernel says from where it
/// would be.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let routed = socket.connect("198.51.100.1:9").and_then(|()| socket.local_addr());
    routed.ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

#[test]
fn a_client_that_takes_all_its_places_of_all_workers_takes_none_of_anybody_elses() {
    const PLACES: usize = 8;
    run(async {
        let Some(own) = own_address() else {
            eprintln!("SKIPPED: this machine has no address but loopback");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::start().await;
        let settings = format!(
            "allow_plaintext: true\nserver: {{ workers: 4, limits: {{ connections_per_client_max: {PLACES} }} }}"
        );
        let addresses = "listen: 0.0.0.0:0\nadmin: { listen: 127.0.0.1:0 }".to_owned();
        let start = Start { addresses, ..Start::new(dir.path(), &settings) };
        let sidecar = start.sidecar(upstream.address).await;
        let there = SocketAddr::new(own, sidecar.proxy.port());
        let here = SocketAddr::from(([127, 0, 0, 1], sidecar.proxy.port()));
        for round in 0..3 {
            let mut open = Vec::new();
            while open.len() < PLACES {
                // Those of the round before may not have left yet.
                let mut socket = TcpStream::connect(there).await.unwrap();
                if guess(&mut socket, "no key").await.is_some() {
                    open.push(socket);
                }
            }
            for _ in 0..PLACES {
                let mut refused = TcpStream::connect(there).await.unwrap();
                assert_eq!(guess(&mut refused, "no key").await, None, "round {round}");
            }
            for _ in 0..2 * PLACES {
                assert_eq!(ask(here, CHAT_PATH, "", CHAT.as_bytes()).await.0, 200, "round {round}");
            }
            for socket in &mut open {
                assert_eq!(guess(socket, "no key").await, Some(200), "who is there goes on");
            }
        }
        assert!(metric(&sidecar, "bursar_client_connections_refused_total").await >= 3 * PLACES as u64);
        assert_eq!(metric(&sidecar, "bursar_connections_refused_total").await, 0);
        settled(&sidecar).await;
        sidecar.stop().await;
        assert_eq!(records(dir.path(), "data").len() as u64, upstream.asked());
    });
}

// === a network that fails (T34)

#[test]
fn whatever_the_network_does_the_ledger_has_what_the_provider_was_asked() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let asked = Rc::new(std::cell::Cell::new(0_usize));
        let counter = Rc::clone(&asked);
        let good = upstream(async move |body, socket| {
            counter.set(counter.get() + 1);
            match counter.get() % 4 {
                // The request was taken, and then: nothing, half a head, half a body.
                1 => return Err(std::io::ErrorKind::ConnectionReset.into()),
                2 => socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await?,
                3 => {
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", CHAT_REPLY.len());
                    socket.write_all(head.as_bytes()).await?;
                    socket.write_all(&CHAT_REPLY.as_bytes()[..40]).await?;
                }
                _ => {
                    assert!(body.contains("gpt-4o-mini"));
                    return reply(socket, "", CHAT_REPLY.as_bytes()).await;
                }
            }
            Err(std::io::ErrorKind::ConnectionReset.into())
        });
        let good = good.await;
        // Nobody listens there any more.
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let collector = format!("telemetry: {{ otlp: 'http://{gone}' }}");
        let start = Start::new(dir.path(), &collector)
            .with_route(&format!("prefix: /gone, upstream: 'http://{gone}', provider: openai"))
            .with_route("prefix: /nameless, upstream: 'http://nowhere.invalid', provider: openai, allow_plaintext_upstream: true");
        let sidecar = start.sidecar(good).await;
        let mut statuses = Vec::new();
        for number in 0..40 {
            let prefix = ["/openai", "/gone", "/nameless", "/openai"][number % 4];
            let path = format!("{prefix}/v1/chat/completions");
            let (status, head, body) = ask(sidecar.proxy, &path, "", CHAT.as_bytes()).await;
            let whole = header(&head, "content-length").is_none_or(|length| length.parse() == Ok(body.len()));
            if prefix != "/openai" {
                assert_eq!((status, whole), (502, true), "{prefix}: {}", String::from_utf8_lossy(&body));
            }
            statuses.push((prefix, status, whole));
        }
        settled(&sidecar).await;
        sidecar.stop().await;
        assert_eq!(asked.get(), 20, "nothing was sent twice");
        let records = records(dir.path(), "data");
        let count = |route: &str, outcome: &str| {
            records.values().filter(|record| record["route"] == route && record["outcome"] == outcome).count()
        };
        assert_eq!(
            (count("/openai", "ok"), count("/openai", "error_midstream"), count("/openai", "error")),
            (5, 5, 10)
        );
        let good = statuses
            .iter()
            .filter(|(prefix, status, whole)| *prefix == "/openai" && *status == 200 && *whole);
        assert_eq!(good.count(), 5, "{statuses:?}");
        // What never left has no figures, and nothing of it is called used.
        for record in records.values().filter(|record| record["route"] != "/openai") {
            assert_eq!(
                (&record["outcome"], &record["usage_source"]),
                (&"error".into(), &"absent".into()),
                "{record}"
            );
        }
    });
}
