//! The end of a process and the beginning of the next: what live streams, their records and those who ask
//! meanwhile see of it (T32).
//!
//! Invariants
//! - Every test has a directory, ports and processes of its own; what it starts ends with it.
//! - Tests wait for events, never for time.
//!
//! Not here: the drain in paused time (`tests/drain.rs`), sockets that cannot be used (`activation`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is a failed test"
)]

mod live;

use live::{Load, Reader, Reads, Sidecar, Stage, Start, Upstream, Uses, command, open_streams, records, run};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How many, unless the environment says otherwise: the full sizes of docs/hardening.md.
fn at_size(variable: &str, otherwise: usize) -> usize {
    let found = std::env::vars().find(|(name, _)| name == variable);
    found.map_or(otherwise, |(_, value)| value.parse().unwrap())
}

// === live streams

/// Every record of the ledger has this outcome, and there are so many.
fn check_records(dir: &Path, count: usize, outcome: &str) -> BTreeMap<String, Value> {
    let records = records(dir, "data");
    assert_eq!(records.len(), count, "as many records as streams");
    for record in records.values() {
        assert_eq!(record["outcome"], outcome, "{record}");
    }
    records
}

#[test]
fn two_hundred_streams_end_by_themselves_after_a_signal_and_each_has_its_record() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::start().await;
        let mut sidecar = Start::new(dir.path(), "").sidecar(upstream.address).await;
        let streams = at_size("BURSAR_STREAMS", 200);
        let mut readers = open_streams(&sidecar, streams).await;
        assert_eq!(upstream.asked(), streams as u64);
        sidecar.signal("-TERM");
        sidecar.line("draining").await;
        assert_eq!(sidecar.get("/readyz").await.0, 503);
        assert_eq!(sidecar.get("/healthz").await.0, 200);
        sidecar.refuses().await;

        upstream.go_to(Stage::Second);
        for (number, reader) in readers.iter_mut().enumerate() {
            if reader.reads() == Reads::AtOnce {
                assert!(reader.sees("lo.").await, "stream {number} was cut");
            }
        }
        upstream.go_to(Stage::End);
        // Those who read slowly are last: the process waits for them.
        readers.sort_by_key(|reader| reader.reads() == Reads::Slowly);
        for (number, reader) in readers.into_iter().enumerate() {
            assert!(reader.comes_whole().await, "stream {number} was cut");
        }
        assert_eq!(sidecar.ended().await, 0);
        for record in check_records(dir.path(), streams, "ok").values() {
            assert_eq!(record["usage"]["output_tokens"], 500, "{record}");
        }
    });
}

/// Streams that nothing ends but `end`, of a sidecar with further settings: how it exits, and no client
/// takes what it got for the whole.
async fn cut(dir: &Path, settings: &str, end: impl AsyncFnOnce(&mut Sidecar)) -> i32 {
    let upstream = Upstream::start().await;
    let mut sidecar = Start::new(dir, settings).sidecar(upstream.address).await;
    let readers: Vec<Reader> = open_streams(&sidecar, 40).await;
    end(&mut sidecar).await;
    let code = sidecar.ended().await;
    for reader in readers {
        assert!(!reader.comes_whole().await, "a client must not take it for the whole");
    }
    code
}

#[test]
fn a_second_signal_cuts_every_stream_and_each_has_its_record() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let code = cut(dir.path(), "", async |sidecar| {
            sidecar.signal("-TERM");
            sidecar.line("draining").await;
            sidecar.signal("-TERM");
            sidecar.line("second signal").await;
        });
        assert_eq!(code.await, 0);
        check_records(dir.path(), 40, "aborted");
    });
}

#[test]
fn what_outlasts_the_drain_time_is_cut_and_recorded() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let code = cut(dir.path(), "server: { timeouts: { drain: 100ms } }", async |sidecar| {
            sidecar.signal("-TERM");
            sidecar.line("the drain time is over").await;
        });
        assert_eq!(code.await, 0);
        check_records(dir.path(), 40, "aborted");
    });
}

#[test]
fn streams_of_a_killed_process_are_interrupted_once_at_the_next_start() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let code = cut(dir.path(), "", async |sidecar| {
            sidecar.has_open(40).await;
            sidecar.signal("-KILL");
        });
        assert_eq!(code.await, -1);
        let upstream = Upstream::start().await;
        for _restart in 0..2 {
            let sidecar = Start::new(dir.path(), "").sidecar(upstream.address).await;
            sidecar.has_open(0).await;
            sidecar.stop().await;
            check_records(dir.path(), 40, "interrupted");
        }
    });
}

// === one process after another, under load

const CLIENTS: [Uses; 9] = [
    Uses::Fresh,
    Uses::KeptAlive,
    Uses::Http2,
    Uses::Fresh,
    Uses::KeptAlive,
    Uses::Http2,
    Uses::Fresh,
    Uses::KeptAlive,
    Uses::Fresh,
];

/// What clients saw is in these ledgers, each request once, and nothing else is.
fn check_seen(dir: &Path, ledgers: &[&str], seen: &live::Seen, upstream: &Upstream) {
    assert!(seen.failures.is_empty(), "{:#?}", seen.failures);
    assert!(seen.told_to_go > 0, "somebody kept a connection until it was told to go");
    let answered: BTreeSet<&String> = seen.ids.iter().collect();
    assert_eq!(answered.len(), seen.ids.len(), "no id was given twice");
    let held: Vec<BTreeMap<String, Value>> = ledgers.iter().map(|data| records(dir, data)).collect();
    let recorded: BTreeSet<&String> = held.iter().flat_map(BTreeMap::keys).collect();
    assert_eq!(recorded.len(), held.iter().map(BTreeMap::len).sum::<usize>(), "no id is in two ledgers");
    assert_eq!(recorded, answered);
    assert_eq!(upstream.asked(), seen.ids.len() as u64, "the provider was asked once for each");
}

#[test]
fn on_a_socket_that_was_handed_over_a_process_is_replaced_and_no_request_fails() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::start().await;
        let listen = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (proxy, admin) = (listen(), listen());
        let address = proxy.local_addr().unwrap();
        // What the configuration says of addresses is not heard.
        let start = Start::new(dir.path(), "");
        let mut sidecar = start.activated(upstream.address, [&proxy, &admin]).await;
        assert_eq!((sidecar.proxy, sidecar.admin), (address, admin.local_addr().unwrap()));
        let load = Load::begin(address, &CLIENTS);
        for _replacement in 0..3 {
            load.advances(10).await;
            sidecar.stop().await;
            // Whoever connects now waits in the socket.
            sidecar = start.activated(upstream.address, [&proxy, &admin]).await;
            assert_eq!(sidecar.get("/readyz").await.0, 200);
        }
        load.advances(10).await;
        let seen = load.end().await;
        sidecar.stop().await;
        check_seen(dir.path(), &["data"], &seen, &upstream);
    });
}

#[test]
fn processes_that_share_an_address_replace_each_other_and_no_request_fails() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::start().await;
        let mut start = Start::new(dir.path(), "server: { reuse_port: true }");
        start.data = "data-a";
        let mut sidecar = start.sidecar(upstream.address).await;
        let address = sidecar.proxy;
        start.addresses = format!("listen: {address}\nadmin: {{ listen: 127.0.0.1:0 }}");
        let load = Load::begin(address, &CLIENTS);
        for data in ["data-b", "data-a", "data-b"] {
            load.advances(10).await;
            start.data = data;
            let next = start.sidecar(upstream.address).await;
            load.advances(10).await;
            sidecar.stop().await;
            sidecar = next;
        }
        load.advances(10).await;
        let seen = load.end().await;
        sidecar.stop().await;
        check_seen(dir.path(), &["data-a", "data-b"], &seen, &upstream);
        for data in ["data-a", "data-b"] {
            assert!(!records(dir.path(), data).is_empty(), "{data} has had its part");
        }
    });
}

#[test]
fn reloads_under_load_of_which_half_are_invalid_fail_no_request() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::start().await;
        let start = Start::new(dir.path(), "identity: { team: t0 }");
        let mut sidecar = start.sidecar(upstream.address).await;
        let clients: Vec<Uses> = CLIENTS.into_iter().cycle().take(at_size("BURSAR_CLIENTS", 9)).collect();
        let began = tokio::time::Instant::now();
        let load = Load::begin(sidecar.proxy, &clients);
        let file = dir.path().join("data.yaml");
        let good = std::fs::read_to_string(&file).unwrap();
        for round in 1..=at_size("BURSAR_RELOADS", 50) {
            let is_good = round % 2 == 0;
            let other = if is_good { format!("team: t{round}") } else { format!("teem: t{round}") };
            let written = dir.path().join("other.yaml");
            std::fs::write(&written, good.replace("team: t0", &other)).unwrap();
            std::fs::rename(&written, &file).unwrap();
            sidecar.signal("-HUP");
            sidecar.line(if is_good { "was reloaded" } else { "was not reloaded" }).await;
            load.advances(2).await;
        }
        let mut seen = load.end().await;
        let (requests, took) = (seen.ids.len(), began.elapsed());
        eprintln!("{requests} requests, {:.0} a second", requests as f64 / took.as_secs_f64());
        sidecar.stop().await;
        // Nobody was told to go: nothing ended but the load.
        assert_eq!(std::mem::replace(&mut seen.told_to_go, 1), 0);
        check_seen(dir.path(), &["data"], &seen, &upstream);
    });
}

// === one version after another (T33)

/// CRC32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0_u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[test]
fn a_ledger_of_a_newer_version_is_refused_with_what_to_do_and_left_as_it_is() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::start().await;
        let sidecar = Start::new(dir.path(), "").sidecar(upstream.address).await;
        let (status, _, _) = live::ask(sidecar.proxy, live::CHAT_PATH, "", live::CHAT.as_bytes()).await;
        assert_eq!(status, 200);
        sidecar.stop().await;
        // The version stands behind the first eight bytes of a segment's header, a checksum at its end.
        let segment = dir.path().join("data/journal/00000001.seg");
        let mut bytes = std::fs::read(&segment).unwrap();
        assert_eq!(bytes[124..128], crc32c(&bytes[..124]).to_le_bytes(), "the header is as it was");
        bytes[8..10].copy_from_slice(&2_u16.to_le_bytes());
        let sum = crc32c(&bytes[..124]);
        bytes[124..128].copy_from_slice(&sum.to_le_bytes());
        std::fs::write(&segment, &bytes).unwrap();

        let serve =
            ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir", "data"];
        for args in
            [&serve[..], &["usage", "--data-dir", "data"], &["ledger", "verify", "--data-dir", "data"]]
        {
            let output = command(dir.path(), args);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_ne!(output.status.code(), Some(0), "{args:?}: {said}");
            assert!(said.contains("version 2") && said.contains("newer"), "{args:?}: {said}");
            assert!(!said.contains("damaged"), "{args:?}: {said}");
        }
        assert_eq!(std::fs::read(&segment).unwrap(), bytes);
    });
}

#[test]
fn a_ledger_of_an_older_version_is_served_on() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::start().await;
        let older = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../ledger/tests/previous-format/journal/00000001.seg");
        std::fs::create_dir_all(dir.path().join("data/journal")).unwrap();
        std::fs::copy(older, dir.path().join("data/journal/00000001.seg")).unwrap();
        let before = records(dir.path(), "data");
        assert_eq!(before.len(), 12);
        let sidecar = Start::new(dir.path(), "").sidecar(upstream.address).await;
        let (status, _, _) = live::ask(sidecar.proxy, live::CHAT_PATH, "", live::CHAT.as_bytes()).await;
        assert_eq!(status, 200);
        sidecar.stop().await;
        let after = records(dir.path(), "data");
        assert_eq!(after.len(), 13);
        for (id, record) in &before {
            assert_eq!(after[id], *record);
        }
    });
}

// === what is refused

#[test]
fn an_address_is_shared_only_by_those_who_all_say_so() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::start().await;
        let alone = Start::new(dir.path(), "").sidecar(upstream.address).await;
        let address = alone.proxy.to_string();
        std::fs::write(dir.path().join("shared.yaml"), "server: { reuse_port: true }\n").unwrap();
        let options = ["--listen", &address, "--admin-listen", "127.0.0.1:0", "--data-dir", "other"];
        let output = command(dir.path(), &[&["serve", "--config", "shared.yaml"][..], &options].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&address) && said.contains("(listen)"), "{said}");
        alone.stop().await;
    });
}

/// Starts the binary on one socket, handed over under `name`: exit code and what it says.
fn refused(dir: &Path, socket: impl Into<std::process::Stdio>, name: &str) -> (Option<i32>, String) {
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=\"$1\" \
                  exec \"$0\" serve --admin-listen 127.0.0.1:0 --data-dir data";
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_bursar"), name]).current_dir(dir).env_clear();
    let output = shell.stdin(socket).output().unwrap();
    assert!(!dir.join("data").exists(), "nothing is left of a start that failed");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_socket_that_was_handed_over_must_be_right_like_an_address_of_the_configuration() {
    use std::os::fd::OwnedFd;
    let dir = tempfile::tempdir().unwrap();
    let socket = || OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let (code, said) = refused(dir.path(), socket(), "bursar.socket");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("bursar.socket") && said.contains("FileDescriptorName=proxy"), "{said}");

    // Off loopback, where nobody allowed plaintext.
    let open = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let (code, said) = refused(dir.path(), OwnedFd::from(open), "proxy");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("0.0.0.0") && said.contains("allow_plaintext"), "{said}");

    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let connected = std::net::TcpStream::connect({
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || listener.accept());
        address
    });
    for useless in [OwnedFd::from(datagrams), OwnedFd::from(connected.unwrap())] {
        let (code, said) = refused(dir.path(), useless, "proxy");
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("must be a TCP socket that listens"), "{said}");
    }
}
