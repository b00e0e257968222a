//! `kill -9` at random points of progress: what was acknowledged is there, once, and the chain holds.
//!
//! The victim is this test binary itself, started again with the name of `victim` and an environment
//! variable that makes it more than an empty test.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: any failure must end it")]

use bursar_domain::{
    Anomalies, Cost, CostStatus, Currency, Identity, Label, Metering, Outcome, RequestId, SystemClock,
    Timestamp, TokenClass, Usage, UsageRecord, UsageSource,
};
use bursar_ledger::{
    Durability, GroupKey, Ledger, Options, RecordRange, StoreCheck, UsageQuery, Wait, verify,
};
use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

const DIR: &str = "BURSAR_CRASH_DIR";
const FIRST: &str = "BURSAR_CRASH_FIRST";
const DURABILITY: &str = "BURSAR_CRASH_DURABILITY";
const ACKNOWLEDGED: &str = "acknowledged ";

fn record(n: u64) -> UsageRecord {
    let label = |text: &str| Label::new(text).unwrap();
    let started_at = Timestamp::from_micros(1_767_225_600_000_000 + n as i64 * 1_000_000);
    let mut usage = Usage::unknown();
    usage.set(TokenClass::OutputText, n + 1);
    UsageRecord {
        id: RequestId::new(started_at, u128::from(n)),
        started_at,
        ended_at: started_at,
        identity: Arc::new(Identity { team: Some(label("team")), ..Identity::unallocated() }),
        route: label("/openai"),
        provider: label("openai"),
        api: label("openai-chat"),
        model_requested: None,
        model_served: Some(label(if n.is_multiple_of(3) { "small" } else { "large" })),
        tier: None,
        region: None,
        stream: false,
        http_status: Some(200),
        outcome: Outcome::Ok,
        metering: Metering::Count,
        usage,
        usage_source: UsageSource::Provider,
        counted_by: None,
        by_model: Vec::new(),
        usage_raw: None,
        provider_cost: None,
        cost: None,
        upstream_request_id: None,
        meter_id: None,
        trace_id: None,
        latency_us: 0,
        ttft_us: None,
        bytes_in: 0,
        bytes_out: 0,
        anomalies: Anomalies::default(),
    }
}

fn price(record: &UsageRecord) -> Cost {
    let pico = record.usage.output_total().map(i128::from);
    Cost {
        status: CostStatus::Priced,
        currency: Currency::USD,
        list_pico: pico,
        contracted_pico: pico,
        billed_pico: pico,
        price_rows: Vec::new(),
    }
}

fn open(dir: &Path, durability: Durability) -> Ledger {
    let options =
        Options { durability, segment_bytes: 32 << 10, queue_entries_max: 256, ..Options::new(dir) };
    Ledger::open(options, Arc::new(SystemClock), Arc::new(price)).unwrap().0
}

/// Appends until it is killed, printing each number when it is acknowledged. Does nothing unless it
/// was started by the test below.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test that starts it speaks through the environment")]
fn victim() {
    let (Ok(dir), Ok(first), Ok(durability)) =
        (std::env::var(DIR), std::env::var(FIRST), std::env::var(DURABILITY))
    else {
        return;
    };
    let durability = match durability.as_str() {
        "Sync" => Durability::Sync,
        "Relaxed" => Durability::Relaxed,
        _ => Durability::Group,
    };
    let ledger = open(Path::new(&dir), durability);
    let mut out = std::io::stdout().lock();
    let mut waiting = VecDeque::new();
    for n in first.parse::<u64>().unwrap().. {
        waiting.push_back((n, ledger.append(Box::new(record(n)), Wait::Acknowledged).unwrap()));
        if waiting.len() >= 64 {
            let (n, receipt) = waiting.pop_front().unwrap();
            let _ = receipt.wait().unwrap();
            writeln!(out, "{ACKNOWLEDGED}{n}").unwrap();
            out.flush().unwrap();
        }
    }
}

/// Starts the victim, kills it once it has acknowledged `kill_after` records, and returns the numbers
/// it had acknowledged.
fn kill_once(dir: &Path, durability: Durability, first: u64, kill_after: usize) -> Vec<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["victim", "--exact", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(FIRST, first.to_string())
        .env(DURABILITY, format!("{durability:?}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let mut acknowledged = Vec::new();
    // After the kill the rest of the pipe is read too: it was acknowledged as well.
    for line in out.lines() {
        let line = line.unwrap();
        // The test harness may have begun the line.
        if let Some((_, number)) = line.split_once(ACKNOWLEDGED) {
            acknowledged.push(number.parse().unwrap());
        }
        if acknowledged.len() == kill_after {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    acknowledged
}

fn check(durability: Durability, cycles: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    let mut first = 0;
    let mut random = 88_172_645_463_325_252_u64;
    for cycle in 0..cycles {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let kill_after = 1 + (random % 400) as usize;
        let new = kill_once(dir.path(), durability, first, kill_after);
        assert!(new.len() >= kill_after, "cycle {cycle}: the victim died of itself");
        acknowledged.extend(new);

        let verified = verify(dir.path()).unwrap();
        let ledger = open(dir.path(), durability);
        let mut times: HashMap<RequestId, u64> = HashMap::new();
        let mut tokens = 0;
        for stored in ledger.records(RecordRange::default()) {
            let stored = stored.unwrap();
            *times.entry(stored.record.id).or_default() += 1;
            tokens += stored.record.usage.output_total().unwrap();
        }
        assert!(times.values().all(|times| *times == 1), "cycle {cycle}: a record is there twice");
        for n in &acknowledged {
            assert!(times.contains_key(&record(*n).id), "cycle {cycle}: record {n} is lost");
        }
        assert_eq!(times.len() as u64, verified.records);
        let query = UsageQuery { by: vec![GroupKey::Model], ..UsageQuery::default() };
        let totals = ledger.usage(&query).unwrap().totals;
        assert_eq!((totals.requests, totals.usage.output_total()), (verified.records, Some(tokens)));
        assert_eq!(totals.money()[0].billed.pico(), Some(i128::from(tokens)));
        ledger.close().unwrap();
        assert_eq!(verify(dir.path()).unwrap().store, StoreCheck::Agrees);
        first = acknowledged.last().copied().unwrap_or(0) + 1;
    }
}

/// One after the other: a process that is being started holds copies of the starter's files, locks
/// included, for a moment.
#[test]
fn kills_lose_nothing_acknowledged_and_double_nothing() {
    check(Durability::Group, 20);
    check(Durability::Sync, 5);
    check(Durability::Relaxed, 5);
}
