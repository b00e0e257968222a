//! How fast records go through the whole ledger, and what one costs.
//!
//! `cargo run --release -p bursar-ledger --example append_rate [RECORDS] [DIR]`
//!
//! For each durability and group size: events per second from the first append to the last
//! acknowledgement, also against a plain file that gets as many writes of as many bytes with as many
//! `fdatasync`s, and CPU time per record (all threads of the process, Linux).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measuring program, not a product")]
#![expect(clippy::disallowed_methods, reason = "measures wall time on plain threads")]

use bursar_domain::{
    Anomalies, Cost, CostStatus, Currency, Identity, IdentitySource, Label, Metering, Outcome, RequestId,
    SystemClock, Timestamp, TokenClass, Usage, UsageRecord, UsageSource,
};
use bursar_ledger::{Durability, GroupKey, Ledger, Options, RecordRange, UsageQuery, Wait, verify};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const KEYS: usize = 1_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let records: u64 = arguments.next().map_or(200_000, |text| text.parse().unwrap());
    let dir = arguments.next().unwrap_or_else(|| std::env::temp_dir().display().to_string());
    let dir = Path::new(&dir).join(format!("bursar-append-rate-{}", std::process::id()));
    println!("{records} records, {KEYS} keys, in {}", dir.display());
    paced(&dir);
    if records == 0 {
        return;
    }
    for (durability, group) in [
        (Durability::Relaxed, 4_096),
        (Durability::Group, 4_096),
        (Durability::Group, 256),
        (Durability::Sync, 4_096),
        (Durability::Sync, 16),
    ] {
        let records = if group == 16 { records / 20 } else { records };
        run(&dir, durability, group, records);
    }
}

/// What a busy sidecar does: 2,000 records a second for five seconds.
fn paced(dir: &Path) {
    let identities = identities();
    let (ledger, _) = Ledger::open(Options::new(dir), Arc::new(SystemClock), Arc::new(price)).unwrap();
    let before = resident_kib();
    let begin = (cpu(), user_cpu());
    for n in 0..10_000 {
        drop(ledger.append(Box::new(record(n, &identities)), Wait::No).unwrap());
        if n % 20 == 19 {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    ledger.checkpoint().unwrap();
    let frames = ledger.stats().frames;
    println!(
        "paced 2,000/s: {:.2} us CPU per record ({:.2} in user space), {frames} frames, RSS {before} -> {} KiB",
        us(cpu() - begin.0, 10_000),
        us(user_cpu() - begin.1, 10_000),
        resident_kib(),
    );
    ledger.close().unwrap();
    std::fs::remove_dir_all(dir).unwrap();
}

fn run(dir: &Path, durability: Durability, group_records_max: usize, records: u64) {
    let identities = identities();
    let options = Options { durability, group_records_max, ..Options::new(dir) };
    let (ledger, _) = Ledger::open(options.clone(), Arc::new(SystemClock), Arc::new(price)).unwrap();
    let begin = (Instant::now(), cpu(), user_cpu());
    for n in 0..records {
        let mut record = Box::new(record(n, &identities));
        while let Err(rejected) = ledger.append(record, Wait::No) {
            record = rejected.record;
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    while ledger.stats().acknowledged < records {
        std::thread::sleep(Duration::from_micros(500));
    }
    let wall = begin.0.elapsed();
    let used = cpu() - begin.1;
    let used_user = user_cpu() - begin.2;
    ledger.checkpoint().unwrap();
    let stats = ledger.stats();
    let query = UsageQuery { by: vec![GroupKey::Team], ..UsageQuery::default() };
    let asked = Instant::now();
    let rows = ledger.usage(&query).unwrap().rows.len();
    let rollups = asked.elapsed();
    let asked = Instant::now();
    let read = ledger.records(RecordRange::default()).filter(Result::is_ok).count();
    let scan = asked.elapsed();
    ledger.close().unwrap();
    let opened = Instant::now();
    let (ledger, _) = Ledger::open(options.clone(), Arc::new(SystemClock), Arc::new(price)).unwrap();
    let reopen = opened.elapsed();
    drop(ledger);
    let asked = Instant::now();
    verify(dir).unwrap();
    let verified = asked.elapsed();
    std::fs::remove_dir_all(dir.join("store")).unwrap();
    let opened = Instant::now();
    let (ledger, _) = Ledger::open(options, Arc::new(SystemClock), Arc::new(price)).unwrap();
    let rebuilt = opened.elapsed();
    drop(ledger);
    let bare = make_only(records, &identities);
    println!(
        "{durability:?} {group_records_max:>5}: {:>8.0} events/s, {:>5.2} us CPU per record ({:.2} in user space; {:.2} for making the record), {} per frame, {} bytes per record, RSS {} KiB; {rows} rows in {rollups:?}; scan {:.2} M/s; reopen {reopen:?}, verify {verified:?}, rebuild {rebuilt:?}",
        records as f64 / wall.as_secs_f64(),
        us(used, records),
        us(used_user, records),
        us(bare, records),
        records / stats.frames.max(1),
        stats.journal_bytes / records.max(1),
        resident_kib(),
        read as f64 / scan.as_secs_f64() / 1e6,
    );
    std::fs::remove_dir_all(dir).unwrap();
    let plain = plain_file(dir, stats.frames, stats.journal_bytes, durability != Durability::Relaxed);
    println!(
        "    against a plain file with the same syncs: {:.2} x",
        plain.as_secs_f64() / wall.as_secs_f64()
    );
}

/// How long a plain append-only file takes for the same bytes in the same number of pieces.
fn plain_file(dir: &Path, pieces: u64, bytes: u64, synced: bool) -> Duration {
    use std::io::Write;
    std::fs::create_dir_all(dir).unwrap();
    let piece = vec![7; usize::try_from(bytes / pieces.max(1)).unwrap()];
    let mut file = std::fs::File::create(dir.join("plain")).unwrap();
    let begin = Instant::now();
    for _ in 0..pieces {
        file.write_all(&piece).unwrap();
        if synced {
            file.sync_data().unwrap();
        }
    }
    let took = begin.elapsed();
    std::fs::remove_dir_all(dir).unwrap();
    took
}

/// CPU time of making and dropping the records alone.
fn make_only(records: u64, identities: &[Arc<Identity>]) -> Duration {
    let begin = cpu();
    for n in 0..records {
        std::hint::black_box(Box::new(record(n, identities)));
    }
    cpu() - begin
}

fn us(time: Duration, records: u64) -> f64 {
    time.as_secs_f64() * 1e6 / records as f64
}

/// CPU time of all threads that are alive (sled starts and ends none while records come).
fn cpu() -> Duration {
    let mut nanos = 0;
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        nanos += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    Duration::from_nanos(nanos)
}

/// The part spent in user space, in steps of ten milliseconds.
fn user_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = text.split(' ').nth(13).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis(ticks * 10)
}

fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn identities() -> Vec<Arc<Identity>> {
    (0..KEYS)
        .map(|n| {
            Arc::new(Identity {
                team: Some(label(&format!("team-{}", n % 20))),
                workload: Some(label(&format!("workload-{n}"))),
                source: IdentitySource::Config,
                ..Identity::unallocated()
            })
        })
        .collect()
}

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn price(record: &UsageRecord) -> Cost {
    let pico = i128::from(record.usage.input_total().unwrap_or(0)) * 1_250_000;
    Cost {
        status: CostStatus::Priced,
        currency: Currency::USD,
        list_pico: Some(pico),
        contracted_pico: Some(pico),
        billed_pico: Some(pico),
        price_rows: vec![Arc::from("openai/gpt-5/input"), Arc::from("openai/gpt-5/output")],
    }
}

fn record(n: u64, identities: &[Arc<Identity>]) -> UsageRecord {
    thread_local!(static LABELS: [Label; 4] = ["/openai", "openai", "openai-chat", "gpt-5"].map(label));
    let started_at = Timestamp::from_micros(1_767_225_600_000_000 + n as i64 * 500);
    let mut usage = Usage::unknown();
    usage.set(TokenClass::InputFresh, 1_000 + n % 100);
    usage.set(TokenClass::CachedRead, 200);
    usage.set(TokenClass::OutputText, 300);
    usage.set(TokenClass::OutputReasoning, 100);
    let [route, provider, api, model] = LABELS.with(Clone::clone);
    UsageRecord {
        id: RequestId::new(started_at, u128::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_0C2A)),
        started_at,
        ended_at: started_at.plus_micros(2_000_000),
        identity: identities[n as usize % KEYS].clone(),
        route,
        provider,
        api,
        model_requested: Some(model),
        model_served: Label::lossy("gpt-5-2025-08-07"),
        tier: None,
        region: None,
        stream: true,
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
        upstream_request_id: Label::lossy("req_011CSHoEeqs5C35K2UUqR7Fy"),
        meter_id: None,
        trace_id: None,
        latency_us: 2_000_000,
        ttft_us: Some(300_000),
        bytes_in: 5_000,
        bytes_out: 9_000,
        anomalies: Anomalies::default(),
    }
}
