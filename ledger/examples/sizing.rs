//! How many bytes a ledger takes for a request, for the guide of sizing: quiet and busy, with few tags and many,
//! before and after old records are rolled up.
//!
//! `cargo run -p bursar-ledger --example sizing [REQUESTS] [DIR]`
//!
//! Bytes do not depend on the machine or on how the program was built; grouping varies them by a few in a hundred.
#![expect(clippy::unwrap_used, reason = "a measuring program, not a product")]

use bursar_domain::{
    Anomalies, Clock, Cost, CostStatus, Currency, Identity, IdentitySource, Label, Metering, Outcome,
    RequestId, Tags, Timestamp, TokenClass, TraceId, Usage, UsageRecord, UsageSource,
};
use bursar_ledger::{Durability, Ledger, Opening, Options, PruneAsk, Receipt, Retention, Wait};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Days that the requests are spread over.
const DAYS: u64 = 10;
const DAY_MICROS: i64 = 86_400_000_000;
const BEGIN: i64 = 1_767_225_600_000_000;
/// What OpenAI tells of a chat completion.
const USAGE_OBJECT: &str = r#"{"prompt_tokens":1204,"completion_tokens":388,"total_tokens":1592,"prompt_tokens_details":{"cached_tokens":1024,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":128,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#;

/// Who asks, and how often at once.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    teams: u64,
    workloads: u64,
    models: u64,
    at_once: u64,
    tags: Tagging,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tagging {
    /// Team and workload.
    Few,
    /// Also customer, session, three tags and a trace.
    Many,
}

const SHAPES: [Shape; 4] = [
    Shape {
        name: "quiet sidecar, team and workload",
        teams: 1,
        workloads: 1,
        models: 3,
        at_once: 1,
        tags: Tagging::Few,
    },
    Shape {
        name: "quiet sidecar, tagged",
        teams: 1,
        workloads: 1,
        models: 3,
        at_once: 1,
        tags: Tagging::Many,
    },
    Shape {
        name: "busy gateway, team and workload",
        teams: 20,
        workloads: 10,
        models: 10,
        at_once: 256,
        tags: Tagging::Few,
    },
    Shape {
        name: "busy gateway, tagged",
        teams: 20,
        workloads: 10,
        models: 10,
        at_once: 256,
        tags: Tagging::Many,
    },
];

/// A clock that is set to the time of the requests.
#[derive(Debug)]
struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let requests: u64 = arguments.next().map_or(20_000, |text| text.parse().unwrap());
    let dir = arguments.next().unwrap_or_else(|| std::env::temp_dir().display().to_string());
    let dir = Path::new(&dir).join(format!("bursar-sizing-{}", std::process::id()));
    println!("{requests} requests over {DAYS} days");
    println!(
        "| requests of a | journal, bytes each | database of a day, kB | rolled up: journal of a day, kB | database of a day, kB |"
    );
    println!("|---|---|---|---|---|");
    for shape in SHAPES {
        measure(&dir, shape, requests);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

fn measure(dir: &Path, shape: Shape, requests: u64) {
    let clock = Arc::new(SetClock(AtomicI64::new(BEGIN)));
    let ledger = open(dir, &clock);
    fill(&ledger, &clock, shape, requests);
    ledger.checkpoint().unwrap();
    let journal = ledger.stats().journal_bytes;
    ledger.close().unwrap();
    let store = bytes_of(&dir.join("store"));

    clock.0.store(BEGIN + 200 * DAY_MICROS, Ordering::SeqCst);
    let ledger = open(dir, &clock);
    let before = Timestamp::from_micros(BEGIN + 100 * DAY_MICROS);
    let report = ledger.prune(&PruneAsk { before, dry_run: false }).unwrap();
    ledger.close().unwrap();
    let rolled = report.rolled_bytes.unwrap_or(0);
    // A database that is made anew has no room of rows that are gone.
    std::fs::remove_dir_all(dir.join("store")).unwrap();
    open(dir, &clock).close().unwrap();
    let store_after = bytes_of(&dir.join("store"));
    let per = |bytes: u64, count: u64| bytes as f64 / count.max(1) as f64;
    println!(
        "| {} | {:.0} | {:.0} | {:.0} | {:.0} |",
        shape.name,
        per(journal, requests),
        per(store, DAYS) / 1_000.0,
        per(rolled, report.segments) / 1_000.0,
        per(store_after, DAYS) / 1_000.0,
    );
    eprintln!(
        "    rolled up: {} segments with {} records, {} bytes; kept: {:?}",
        report.segments, report.records, report.bytes, report.kept
    );
}

fn open(dir: &Path, clock: &Arc<SetClock>) -> Ledger {
    let options = Options {
        // The same frames as `group`, without waiting for the disk.
        durability: Durability::Relaxed,
        group_delay: Duration::ZERO,
        // Segments are ended after a day, as with `ledger.retention.detail`; nothing is old enough to go by itself.
        retention: Some(Retention::of(Duration::from_secs(400 * 86_400))),
        ..Options::new(dir)
    };
    Ledger::open(options, clock.clone(), Arc::new(price)).unwrap().0
}

/// Sends the requests: so many begin together, then these end together.
fn fill(ledger: &Ledger, clock: &SetClock, shape: Shape, requests: u64) {
    let step = DAYS as i64 * DAY_MICROS / requests as i64;
    for first in (0..requests).step_by(shape.at_once as usize) {
        let now = BEGIN + first as i64 * step;
        clock.0.store(now, Ordering::SeqCst);
        let records: Vec<UsageRecord> = (first..(first + shape.at_once).min(requests))
            .map(|n| record(n, now + n as i64 % 1_000, shape))
            .collect();
        let opened: Vec<_> =
            records.iter().map(|record| ledger.opening(opening(record), Wait::Acknowledged)).collect();
        let (slots, receipts): (Vec<_>, Vec<_>) = opened.into_iter().unzip();
        wait_for(receipts);
        let settle = |(record, slot)| {
            ledger.closing(slot);
            ledger.append(Box::new(record), Wait::Acknowledged).unwrap()
        };
        let settled: Vec<_> = records.into_iter().zip(slots).map(settle).collect();
        wait_for(settled);
    }
}

fn wait_for(receipts: Vec<Receipt>) {
    for receipt in receipts {
        let _ = receipt.wait().unwrap();
    }
}

/// What the files of a directory take on the disk.
fn bytes_of(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            let about = entry.metadata().unwrap();
            if about.is_dir() { bytes_of(&entry.path()) } else { about.blocks() * 512 }
        })
        .sum()
}

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

/// An id as providers make them.
fn random(n: u64, seed: u64) -> u128 {
    let mixed = |n: u64| {
        let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        n ^ (n >> 31)
    };
    let start = n.wrapping_add(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    u128::from(mixed(start)) << 64 | u128::from(mixed(start.wrapping_add(1)))
}

fn identity(n: u64, shape: Shape) -> Arc<Identity> {
    let mut identity = Identity {
        team: Some(label(&format!("team-{}", n % shape.teams))),
        workload: Some(label(&format!("support-bot-{}", n / shape.teams % shape.workloads))),
        source: IdentitySource::Header,
        ..Identity::unallocated()
    };
    if shape.tags == Tagging::Many {
        identity.customer = Some(label(&format!("customer-{}", n % 1_000)));
        identity.session = Some(label(&format!("ticket-{}", n / 5)));
        let mut tags = Tags::default();
        for (name, value) in [
            ("feature", format!("feature-{}", n % 8)),
            ("env", "production".to_owned()),
            ("version", format!("2026.11.{}", n % 3)),
        ] {
            tags.insert(label(name), label(&value));
        }
        identity.tags = tags;
    }
    Arc::new(identity)
}

fn opening(record: &UsageRecord) -> Opening {
    Opening {
        id: record.id,
        started_at: record.started_at,
        identity: Arc::clone(&record.identity),
        route: record.route.clone(),
        provider: record.provider.clone(),
        api: record.api.clone(),
        model: record.model_requested.clone(),
        region: None,
        stream: record.stream,
        metering: Metering::Count,
        held_tokens: None,
        held_cost: None,
    }
}

fn price(record: &UsageRecord) -> Cost {
    let pico = i128::from(record.usage.input_total().unwrap_or(0)) * 1_250_000;
    Cost {
        status: CostStatus::Priced,
        currency: Currency::USD,
        list_pico: Some(pico),
        contracted_pico: Some(pico),
        billed_pico: Some(pico),
        price_rows: vec![
            Arc::from("openai/gpt-5/cached_read=0.125"),
            Arc::from("openai/gpt-5/input=1.25"),
            Arc::from("openai/gpt-5/output=10"),
        ],
    }
}

fn record(n: u64, started: i64, shape: Shape) -> UsageRecord {
    let started_at = Timestamp::from_micros(started);
    let model = format!("gpt-5-{}", n % shape.models);
    let mut usage = Usage::unknown();
    usage.set(TokenClass::InputFresh, 100 + n % 400);
    usage.set(TokenClass::CachedRead, 1_024);
    usage.set(TokenClass::OutputText, 200 + n % 100);
    usage.set(TokenClass::OutputReasoning, 128);
    UsageRecord {
        id: RequestId::new(started_at, random(n, 1)),
        started_at,
        ended_at: started_at.plus_micros(2_000_000 + n % 1_000_000),
        identity: identity(n, shape),
        route: label("/openai"),
        provider: label("openai"),
        api: label("openai-chat"),
        model_served: Some(label(&format!("{model}-2025-08-07"))),
        model_requested: Some(label(&model)),
        tier: Some(label("default")),
        region: None,
        stream: true,
        http_status: Some(200),
        outcome: Outcome::Ok,
        metering: Metering::Count,
        usage,
        usage_source: UsageSource::Provider,
        counted_by: None,
        by_model: Vec::new(),
        usage_raw: Some(Arc::from(USAGE_OBJECT)),
        provider_cost: None,
        cost: None,
        upstream_request_id: Some(label(&format!("req_{:032x}", random(n, 2)))),
        meter_id: Some(label(&format!("chatcmpl-{}", &format!("{:032x}", random(n, 3))[..29]))),
        trace_id: (shape.tags == Tagging::Many).then(|| TraceId::from_bits(random(n, 4))).flatten(),
        latency_us: 2_000_000 + n % 1_000_000,
        ttft_us: Some(300_000 + n % 100_000),
        bytes_in: 5_000 + n % 1_000,
        bytes_out: 9_000 + n % 1_000,
        anomalies: Anomalies::default(),
    }
}
