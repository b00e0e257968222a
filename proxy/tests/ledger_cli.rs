//! The ledger's and the budgets' commands through the binary: temporary limits, pruning, the trial balance,
//! salvage, and disks that are full or cannot be written; what each says to bad input.
//!
//! Invariants
//! - Every test has a directory of its own; what it starts or mounts ends with it.
//! - A test that needs to mount says so where it cannot, and passes.
//!
//! Not here: what these do (`bursar_ledger`, `bursar_policies`), other commands (`cli`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is a failed test"
)]

mod sidecar;

use serde_json::{Value, json};
use sidecar::Sidecar;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn run(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
    command.args(args).current_dir(dir).env_clear().stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The command ends with `code` and says all of `parts`.
fn check_refused(dir: &Path, args: &[&str], code: i32, parts: &[&str]) {
    let output = run(dir, args);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{args:?} says no {part:?}: {said}");
    }
}

fn json_of(dir: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&stdout(&run(dir, args))).unwrap()
}

/// A directory with a ledger of usage and revenue in `data`.
fn filled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let usage = "id,started_at,team,workload,provider,model,usage.input_tokens,usage.output_tokens,cost.billed\n\
        u1,2026-09-03T00:00:00Z,alpha,w,openai,gpt-4o,10000000,2000000,\n\
        u2,2026-09-04T00:00:00Z,beta,w,openai,own,0,2000000,30.00\n";
    let revenue = "id,source,kind,amount,currency,time,customer\n\
        s1,shop,revenue,10.00,USD,2026-09-05T10:00:00Z,acme\n\
        s2,shop,revenue,7.00,EUR,2026-09-05T10:00:00Z,acme\n";
    for (what, text) in [("usage", usage), ("revenue", revenue)] {
        std::fs::write(dir.path().join("rows"), text).unwrap();
        stdout(&run(dir.path(), &["import", what, "rows", "--data-dir", "data"]));
    }
    dir
}

// === budgets for a time ===

const BUDGETS: &str = "
budgets:
  - { name: all, window: year, limit: 1000 tokens }
  - { name: money, window: year, limit: 5 USD }
  - { name: credit, contract: prepaid-1 }
";

#[test]
fn an_override_is_made_listed_and_taken_back_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("bursar.yaml"), BUDGETS).unwrap();
    let sidecar = Sidecar::start_with(dir.path(), &["--config", "bursar.yaml"]);
    let admin = sidecar.admin.clone();
    let limit = |admin: &str| {
        let all = json_of(dir.path(), &["budget", "--format", "json", "--admin", admin]);
        (all["budgets"][0]["limit"].clone(), all["budgets"][0]["configured_limit"].clone())
    };
    let make = |more: &[&str]| {
        let args = ["budget", "override", "all", "--until", "7d", "--reason", "launch", "--admin", &admin];
        stdout(&run(dir.path(), &[&args[..], more].concat()))
    };
    let made = make(&["--add", "500tokens"]);
    assert!(
        made.contains("the budget all has 500 tokens more until 20") && made.contains("(active)"),
        "{made}"
    );
    assert_eq!(limit(&admin), (1500.into(), 1000.into()));
    make(&["--limit", "2000tokens"]);
    assert_eq!(limit(&admin).0, 2500, "what is added comes on top");
    let listed = json_of(dir.path(), &["budget", "overrides", "--format", "json", "--admin", &admin]);
    let ids: Vec<&str> =
        listed["overrides"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 2);
    let revoke = ["budget", "revoke", ids[0], "--reason", "over", "--admin", &admin];
    assert!(stdout(&run(dir.path(), &revoke)).contains("(revoked)"));
    assert!(stdout(&run(dir.path(), &revoke)).contains("(revoked)"), "again is no error");
    assert_eq!(limit(&admin).0, 2000);
    drop(sidecar);

    let sidecar = Sidecar::start_with(dir.path(), &["--config", "bursar.yaml"]);
    assert_eq!(limit(&sidecar.admin), (2000.into(), 1000.into()));
    drop(sidecar);
    let table = stdout(&run(dir.path(), &["budget", "overrides", "--data-dir", "data"]));
    for part in ["all", "500 tokens", "2000 tokens", "revoked", "active", "launch"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let csv = stdout(&run(dir.path(), &["budget", "overrides", "--data-dir", "data", "--format", "csv"]));
    assert!(csv.starts_with("id,budget,add,limit,from,until,state,reason\n"), "{csv}");
}

#[test]
fn bad_overrides_name_what_is_wrong_and_what_to_write() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("bursar.yaml"), BUDGETS).unwrap();
    let sidecar = Sidecar::start_with(dir.path(), &["--config", "bursar.yaml"]);
    let admin = sidecar.admin.as_str();
    let check = |name: &str, change: &[&str], until: &str, reason: &str, parts: &[&str]| {
        let args = ["budget", "override", name, "--until", until, "--reason", reason, "--admin", admin];
        check_refused(dir.path(), &[&args[..], change].concat(), 1, parts);
    };
    check("al", &["--add", "5tokens"], "7d", "x", &["there is no budget", "al", "see `bursar budget`"]);
    check("all", &["--add", "5USD"], "7d", "x", &["all", "is not in this unit, but in tokens"]);
    check("money", &["--limit", "5tokens"], "7d", "x", &["money", "but in USD"]);
    check("all", &["--add", "much"], "7d", "x", &["--add", "much", "write 500USD or 2000000tokens"]);
    check("all", &["--limit=-5tokens"], "7d", "x", &["--limit", "-5tokens", "is no amount"]);
    check("all", &["--add", "5tokens"], "soon", "x", &["--until: \"soon\"", "24h or 7d"]);
    check("all", &["--add", "5tokens"], "2020-01-01", "x", &["2020-01-01", "is over already", "later time"]);
    check("all", &["--add", "5tokens"], "7d", " ", &["--reason must say why"]);
    check(
        "",
        &["--add", "5tokens"],
        "7d",
        "x",
        &["budget: \"\" is not taken: write text of 1 to 256 characters"],
    );
    check(
        "credit",
        &["--add", "5USD"],
        "7d",
        "x",
        &["credit", "what its contract", "prepaid-1", "`bursar contract`"],
    );
    let both = ["budget", "override", "all", "--until", "7d", "--reason", "x"];
    check_refused(
        dir.path(),
        &[&both[..], &["--add", "1tokens", "--limit", "2tokens"]].concat(),
        2,
        &["--limit"],
    );
    check_refused(dir.path(), &both, 2, &["--add"]);
    check_refused(
        dir.path(),
        &["budget", "revoke", "nothing", "--admin", admin],
        1,
        &["there is no override", "nothing", "see `bursar budget overrides`"],
    );
    drop(sidecar);
    let offline = ["budget", "override", "all", "--add", "5tokens", "--until", "7d", "--reason", "x"];
    check_refused(
        dir.path(),
        &[&offline[..], &["--data-dir", "nowhere"]].concat(),
        1,
        &["there is no ledger in nowhere", "check the data directory"],
    );
    let made = run(dir.path(), &[&offline[..], &["--data-dir", "data"]].concat());
    assert!(made.status.success() && stderr(&made).contains("seen when one starts"), "{}", stderr(&made));
}

// === pruning ===

#[test]
fn pruning_says_what_it_would_do_and_refuses_what_it_must_not() {
    let dir = filled();
    let at = ["--data-dir", "data"];
    let prune = |more: &[&'static str]| [&["ledger", "prune"][..], more, &at[..]].concat();
    let dry = stdout(&run(dir.path(), &prune(&["--detail", "90d", "--dry-run"])));
    assert!(dry.starts_with("nothing to roll up before 20"), "{dry}");
    let done = json_of(dir.path(), &prune(&["--before", "90d", "--json"]));
    assert_eq!((&done["segments"], &done["dry_run"]), (&0.into(), &false.into()), "{done}");
    let stays = stdout(&run(dir.path(), &["usage", "--data-dir", "data", "--from", "2026-09-01"]));
    assert!(stays.contains('2'), "{stays}");
    check_refused(dir.path(), &prune(&["--before", "1d"]), 2, &["last 35 days are kept", "is later than"]);
    check_refused(dir.path(), &prune(&["--detail", "90"]), 2, &["detail \"90\"", "90d"]);
    check_refused(dir.path(), &prune(&["--before", "soon"]), 2, &["before", "soon"]);
    check_refused(dir.path(), &prune(&["--before", "90d", "--detail", "90d"]), 2, &["--detail"]);
    check_refused(dir.path(), &prune(&[]), 2, &["--before", "--detail"]);
    check_refused(
        dir.path(),
        &["ledger", "prune", "--detail", "90d", "--data-dir", "nowhere"],
        1,
        &["there is no ledger in nowhere"],
    );
}

// === trial balance ===

#[test]
fn the_trial_balance_is_zero_in_every_currency_here_and_from_a_sidecar() {
    let dir = filled();
    let at = ["--data-dir", "data"];
    let trial = |more: &[&str], place: &[&str]| {
        let args = [&["ledger", "trial-balance", "--format", "json"][..], more, place].concat();
        json_of(dir.path(), &args)
    };
    let of = |document: &Value, account: &str, currency: &str| {
        let rows = document["rows"].as_array().unwrap();
        let found = rows.iter().find(|row| row["account"] == account && row["currency"] == currency);
        found.map(|row| (row["debit"].clone(), row["credit"].clone()))
    };
    let all = trial(&[], &at);
    assert_eq!(all["balanced"], true);
    assert_eq!(of(&all, "receivable:shop", "EUR"), Some((json!("7"), Value::Null)));
    assert_eq!(of(&all, "revenue:shop", "USD"), Some((Value::Null, json!("10"))));
    for total in all["totals"].as_array().unwrap() {
        assert_eq!(total["debit"], total["credit"], "{total}");
    }
    let early = trial(&["--to", "2026-09-01"], &at);
    assert_eq!(early["rows"], json!([]));
    let swap = json!({
        "position_id": "out", "kind": "forward_physical", "quantity": "3", "unit": "Mtok", "fixed_price": "8",
        "price_currency": "USD", "trade_date": "2026-08-11", "effective_from": "2026-09-01",
        "effective_until": "2026-10-01", "premium": {"amount": "2", "recognition": "straight_line"},
    });
    std::fs::write(dir.path().join("rows"), swap.to_string()).unwrap();
    stdout(&run(dir.path(), &["import", "contracts", "rows", "--data-dir", "data"]));
    assert!(trial(&[], &at)["contracts_left_out"].as_str().unwrap().contains("name the first day"));
    let month = ["--from", "2026-09-01", "--to", "2026-10-01"];
    let with = trial(&month, &at);
    assert_eq!((&with["balanced"], &with["contracts_left_out"]), (&true.into(), &Value::Null));
    assert_eq!(of(&with, "premium:out", "USD"), Some((json!("2"), Value::Null)));
    assert!(of(&with, "balance:out", "USD").is_some(), "{with}");
    let sidecar = Sidecar::start(dir.path());
    assert_eq!(trial(&month, &["--admin", &sidecar.admin])["rows"], with["rows"]);
    drop(sidecar);
    let table = stdout(&run(dir.path(), &[&["ledger", "trial-balance"], &month[..], &at].concat()));
    assert!(table.contains("payable:openai") && table.contains("USD: debit "), "{table}");
    let bad = |more: &[&'static str], parts: &[&str]| {
        let args = [&["ledger", "trial-balance"][..], more, &at[..]].concat();
        check_refused(dir.path(), &args, 2, parts);
    };
    bad(&["--tz", "Mars/Base"], &["Mars/Base", "no IANA time zone", "Europe/Paris"]);
    bad(&["--from", "soon"], &["soon"]);
    bad(&["--from", "2026-10-01", "--to", "2026-09-01"], &["is not before", "the period is empty"]);
    bad(&["--from", "2026-09-01", "--to", "2026-10-01", "--currency", "dollars"], &["dollars"]);
}

// === salvage ===

/// The only segment of a ledger.
fn segment(dir: &Path) -> PathBuf {
    dir.join("journal/00000001.seg")
}

#[test]
fn repair_makes_a_new_ledger_and_says_what_is_gone() {
    let dir = filled();
    let repair = |from: &'static str, to: &'static str| ["ledger", "repair", "--data-dir", from, to];
    let whole = stdout(&run(dir.path(), &repair("data", "whole")));
    assert!(whole.contains("which verifies") && whole.contains("nothing is gone"), "{whole}");
    stdout(&run(dir.path(), &["ledger", "verify", "--data-dir", "whole"]));
    check_refused(
        dir.path(),
        &repair("data", "whole"),
        1,
        &["whole", "is there already: name a directory that is not"],
    );
    check_refused(dir.path(), &repair("nowhere", "new"), 1, &["nowhere"]);
    assert!(!dir.path().join("new").exists());
    check_refused(dir.path(), &["ledger", "repair"], 2, &["TARGET"]);

    let path = segment(&dir.path().join("data"));
    let mut bytes = std::fs::read(&path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[used / 2] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let damaged = run(dir.path(), &[&repair("data", "new")[..], &["--json"]].concat());
    assert_eq!(damaged.status.code(), Some(3), "{}", stderr(&damaged));
    let found: Value = serde_json::from_slice(&damaged.stdout).unwrap();
    assert_eq!(found["lost"], true);
    assert!(!found["gone"].as_array().unwrap().is_empty() && !found["breaks"].as_array().unwrap().is_empty());
    stdout(&run(dir.path(), &["ledger", "verify", "--data-dir", "new"]));
    let told = run(dir.path(), &repair("data", "other"));
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(
        told.contains("the chain broke in segment 00000001 at byte") && told.contains("gone: sequences"),
        "{told}"
    );
}

// === disks ===

/// A small file system in memory. Unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// Mounts one, or says why it cannot.
    fn new(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={size},mode=0700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "bursar-test"]).arg(at).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            Ok(output) => {
                eprintln!("SKIPPED: no file system can be mounted here: {}", stderr(&output).trim());
                None
            }
            Err(error) => {
                eprintln!("SKIPPED: there is no `mount` here: {error}");
                None
            }
        }
    }

    fn remount(&self, option: &str) {
        let done =
            Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(&self.0).output().unwrap();
        assert!(done.status.success(), "{}", stderr(&done));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily, so that whatever still has a file open keeps nothing mounted.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

const REPLY: &str = r#"{"id":"c","object":"chat.completion","model":"gpt-4o-mini","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}"#;

/// A provider that answers everything.
fn provider() -> SocketAddr {
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
        let (mut line, mut length) = (String::new(), 0);
        loop {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0_u8; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
        if write!(socket, "{head}{}\r\n\r\n{REPLY}", REPLY.len()).is_err() {
            return;
        }
    }
}

fn request(to: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(to).unwrap();
    let length = body.len();
    write!(
        socket,
        "{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn chat(sidecar: &Sidecar) -> u16 {
    let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;
    request(&sidecar.proxy, "POST", "/openai/v1/chat/completions", body).0
}

/// A figure of the metrics page.
fn metric(sidecar: &Sidecar, name: &str) -> u64 {
    let (_, page) = request(sidecar.admin.strip_prefix("http://").unwrap(), "GET", "/metrics", "");
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// Takes all room of a file system.
fn fill(at: &Path) -> PathBuf {
    let path = at.join("filler");
    let mut file = std::fs::File::create(&path).unwrap();
    for size in [1 << 16, 1 << 12, 1 << 8, 1] {
        let piece = vec![7_u8; size];
        while file.write_all(&piece).is_ok() {}
    }
    path
}

fn settings(fail: &str) -> String {
    let provider = provider();
    format!(
        "ledger: {{ fail: {fail}, durability: sync, queue_entries_max: 64 }}\nbuiltin_routes: false\nroutes:\n  \
         - {{ prefix: /openai, upstream: 'http://{provider}', provider: openai }}\n"
    )
}

/// Waits until `holds` does; a test that waits for ever is ended by whoever runs it.
fn until(holds: impl Fn() -> bool) {
    while !holds() {
        std::thread::yield_now();
    }
}

#[test]
fn on_a_full_disk_traffic_follows_the_setting_and_all_resumes_when_there_is_room() {
    for fail in ["open", "closed"] {
        let dir = tempfile::tempdir().unwrap();
        let Some(mounted) = Mounted::new(&dir.path().join("data"), "24m") else { return };
        std::fs::write(dir.path().join("bursar.yaml"), settings(fail)).unwrap();
        let sidecar = Sidecar::start_with(dir.path(), &["--config", "bursar.yaml"]);
        assert_eq!(chat(&sidecar), 200);
        let filler = fill(&mounted.0);
        // What finds no room waits; in the end nobody is let in, or all pass unmetered.
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let asked: Vec<_> = (0..200).map(|_| scope.spawn(|| chat(&sidecar))).collect();
            if fail == "open" {
                until(|| {
                    metric(&sidecar, "bursar_records_lost_total") > 0
                        || asked.iter().all(|one| one.is_finished())
                });
            } else {
                until(|| asked.iter().any(|one| one.is_finished()));
            }
            std::fs::remove_file(&filler).unwrap();
            asked.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let expected: &[u16] = if fail == "open" { &[200] } else { &[200, 503] };
        assert!(statuses.iter().all(|status| expected.contains(status)), "{fail}: {statuses:?}");
        until(|| chat(&sidecar) == 200);
        let lost = metric(&sidecar, "bursar_records_lost_total");
        let passed = statuses.iter().filter(|status| **status == 200).count() as u64;
        drop(sidecar);
        stdout(&run(dir.path(), &["ledger", "verify", "--data-dir", "data"]));
        let export =
            stdout(&run(dir.path(), &["export", "usage", "--format", "jsonl", "--data-dir", "data"]));
        let ok = export.lines().filter(|line| line.contains("\"outcome\":\"ok\"")).count() as u64;
        if fail == "closed" {
            assert_eq!(lost, 0, "what is let in is metered");
        }
        assert!(ok + lost >= passed + 2, "{fail}: {ok} records and {lost} lost of {passed} and two");
    }
}

/// The only copy of a ledger below `copies`.
fn copy_in(dir: &Path) -> Option<PathBuf> {
    let found = std::fs::read_dir(dir.join("copies")).ok()?.map(|entry| entry.unwrap().path());
    let mut whole = found.filter(|path| path.extension().is_none());
    let first = whole.next();
    assert_eq!(whole.next(), None, "one ledger has one copy");
    first
}

/// Restores the copy to `name`, and counts its records that are verified.
fn restored(dir: &Path, name: &str) -> u64 {
    let copy = copy_in(dir).unwrap();
    let said = stdout(&run(dir, &["ledger", "restore", copy.to_str().unwrap(), "--data-dir", name]));
    assert!(said.starts_with("verified and restored"), "{said}");
    json_of(dir, &["ledger", "verify", "--json", "--data-dir", name])["records"].as_u64().unwrap()
}

#[test]
fn copies_of_a_ledger_in_use_are_shipped_and_the_last_one_has_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    std::fs::write(path.join("bursar.yaml"), settings("open")).unwrap();
    // As in a pod: the shipper is there first and ends last.
    let args = ["ledger", "backup", "--data-dir", "data", "--to", "copies", "--every", "1s"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
    command.args(args).current_dir(path).env_clear().stdin(Stdio::null()).stderr(Stdio::null());
    let mut shipper = command.spawn().unwrap();
    let shipped = || -> u64 {
        let Some(copy) = copy_in(path) else { return 0 };
        let found = run(path, &["ledger", "verify", "--json", "--data-dir", copy.to_str().unwrap()]);
        // It may be growing just now.
        let found: Option<Value> = serde_json::from_slice(&found.stdout).ok();
        found.and_then(|found| found["records"].as_u64()).unwrap_or(0)
    };

    let sidecar = Sidecar::start_with(path, &["--config", "bursar.yaml"]);
    let mut asked = 0;
    until(|| {
        assert_eq!(chat(&sidecar), 200);
        shipped() >= 3
    });
    // It is killed at any moment: what was shipped can be restored.
    drop(sidecar);
    assert!(restored(path, "after-kill") >= 3);

    let sidecar = Sidecar::start_with(path, &["--config", "bursar.yaml"]);
    for _ in 0..20 {
        assert_eq!(chat(&sidecar), 200);
        asked += 1;
    }
    sidecar.end();
    assert_eq!(sidecar::end(&mut shipper), Some(0));
    let there = json_of(path, &["ledger", "verify", "--json", "--data-dir", "data"]);
    let records = there["records"].as_u64().unwrap();
    assert!(records >= asked + 3);
    assert_eq!(restored(path, "after-end"), records);
    let again = json_of(path, &["ledger", "verify", "--json", "--data-dir", "after-end"]);
    assert_eq!(again["hash"], there["hash"], "the whole chain is there");
    let said = stdout(&run(path, &["ledger", "backup", "--data-dir", "data", "--to", "copies"]));
    assert!(said.ends_with("(0 bytes)\n"), "nothing is left to copy: {said}");
}

#[test]
fn what_cannot_be_shipped_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let none = ["ledger", "backup", "--data-dir", "data", "--to", "copies"];
    check_refused(dir.path(), &none, 1, &["there is no ledger in data"]);
    check_refused(dir.path(), &["ledger", "backup"], 2, &["<TARGET>", "required"]);
    check_refused(dir.path(), &["ledger", "backup", "x", "--to", "y"], 2, &["cannot be used with"]);
    let often = ["ledger", "backup", "--to", "y", "--every", "5"];
    check_refused(dir.path(), &often, 2, &["--every", "write a whole number with s, m or h"]);
    let filled = filled();
    std::fs::write(filled.path().join("copies"), b"a file").unwrap();
    let ship = ["ledger", "backup", "--data-dir", "data", "--to", "copies"];
    check_refused(filled.path(), &ship, 1, &["copies"]);
}

#[test]
fn a_bound_that_cannot_hold_a_ledger_is_refused_with_key_value_and_remedy() {
    let dir = tempfile::tempdir().unwrap();
    for (value, parts) in [
        ("1MiB", ["ledger.bytes_max", "1MiB", "64MiB"]),
        ("lots", ["ledger.bytes_max", "lots", "KiB, MiB or GiB"]),
    ] {
        std::fs::write(dir.path().join("bursar.yaml"), format!("ledger: {{ bytes_max: {value} }}\n"))
            .unwrap();
        check_refused(dir.path(), &["check", "--config", "bursar.yaml"], 3, &parts);
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_named_at_the_start_and_nothing_listens() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let Some(mounted) = Mounted::new(&data, "24m") else { return };
    std::fs::write(dir.path().join("bursar.yaml"), settings("open")).unwrap();
    let sidecar = Sidecar::start_with(dir.path(), &["--config", "bursar.yaml"]);
    assert_eq!(chat(&sidecar), 200);
    drop(sidecar);
    mounted.remount("ro");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir", "data"];
    check_refused(dir.path(), &serve, 1, &["data", "ead-only"]);
    mounted.remount("rw");
    stdout(&run(dir.path(), &["ledger", "verify", "--data-dir", "data"]));
}

#[test]
fn a_directory_that_is_removed_under_a_sidecar_stops_no_traffic() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("bursar.yaml"), settings("open")).unwrap();
    let sidecar = Sidecar::start_with(dir.path(), &["--config", "bursar.yaml"]);
    assert_eq!(chat(&sidecar), 200);
    std::fs::remove_dir_all(dir.path().join("data")).unwrap();
    for _ in 0..20 {
        assert_eq!(chat(&sidecar), 200);
    }
    drop(sidecar);
    let sidecar = Sidecar::start_with(dir.path(), &["--config", "bursar.yaml"]);
    assert_eq!(chat(&sidecar), 200, "a new one begins");
    drop(sidecar);
    stdout(&run(dir.path(), &["ledger", "verify", "--data-dir", "data"]));
}
