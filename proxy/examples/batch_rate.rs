//! Measures the results of a large batch: reading them as they pass, and what they keep the ledger's writer from.
//!
//! `cargo run --release -p bursar --example batch_rate [LINES] [DIR]`
//!
//! Prints, for a file of so many results (100,000 by default, the most that are kept): time and memory of the meter,
//! then for how long the writer is busy with the record: the first time, when it is fetched again at once, and
//! when it is fetched again after its keys went to the store.
//!
//! Not here: assertions on time; no test may depend on it.
#![expect(clippy::unwrap_used, reason = "a measuring program, not a product")]
#![expect(clippy::disallowed_methods, reason = "measures wall time on plain threads")]

use bursar::usage::{Api, BatchReading, Ending, ReplyContext, ReplyMeter, RequestFacts, flavour_of};
use bursar_domain::batch::{BatchLines, LINES_MAX};
use bursar_domain::{
    Anomalies, BatchFacts, Identity, Label, Metering, Outcome, RequestId, SystemClock, Timestamp, Usage,
    UsageRecord, UsageSource,
};
use bursar_ledger::{Ledger, Options, Wait};
use bursar_policies::price::{Ask, PriceBook};
use http::HeaderMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let count: usize = arguments.next().map_or(LINES_MAX, |text| text.parse().unwrap());
    let dir = arguments.next().unwrap_or_else(|| std::env::temp_dir().display().to_string());
    let dir = Path::new(&dir).join(format!("bursar-batch-rate-{}", std::process::id()));

    let before = resident_kib();
    let began = Instant::now();
    let mut meter = meter();
    let mut bytes = 0;
    for n in 0..count {
        let line = line(n);
        bytes += line.len();
        meter.feed(line.as_bytes());
    }
    let reading = meter.finish(Ending::Complete, &RequestFacts::default());
    let took = began.elapsed();
    let Some(BatchReading::Results(lines)) = reading.batch else { return };
    println!(
        "meter: {} results, {} MB in {took:?} ({:?} each), {} KiB",
        lines.len(),
        bytes / 1_000_000,
        took / u32::try_from(count.max(1)).unwrap(),
        resident_kib().saturating_sub(before),
    );

    let book = Arc::new(PriceBook::builtin().unwrap());
    let pricer = move |record: &UsageRecord| {
        let text = |label: &Option<Label>| label.as_ref().map(|label| label.as_str().to_owned());
        let (served, tier) = (text(&record.model_served), text(&record.tier));
        let ask = Ask {
            provider: record.provider.as_str(),
            model_served: served.as_deref(),
            model_requested: None,
            tier: tier.as_deref(),
            region: None,
            speed: None,
            at: record.started_at,
            usage: &record.usage,
            by_model: &record.by_model,
        };
        book.explain(&ask).0
    };
    let (ledger, _) = Ledger::open(Options::new(&dir), Arc::new(SystemClock), Arc::new(pricer)).unwrap();
    let memory = resident_kib();
    let first = fetch(&ledger, 1, &reading.usage, &lines);
    let again = fetch(&ledger, 2, &reading.usage, &lines);
    let held = resident_kib().saturating_sub(memory);
    let began = Instant::now();
    ledger.checkpoint().unwrap();
    let applied = began.elapsed();
    let later = fetch(&ledger, 3, &reading.usage, &lines);
    println!("writer: first {first:?}, again {again:?}, from the store {later:?}");
    println!("ledger: {held} KiB more, keys to the store in {applied:?}");
    ledger.close().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
}

fn meter() -> ReplyMeter {
    ReplyMeter::new(&ReplyContext {
        flavour: flavour_of("openai"),
        api: Api::BatchOutput,
        status: 200,
        headers: &HeaderMap::new(),
        stream_requested: false,
    })
}

/// One result as OpenAI sends it, with an answer of some length.
fn line(n: usize) -> String {
    let text = "It costs what the invoice says and earns what the ledger shows. ".repeat(6);
    format!(
        r#"{{"id":"batch_req_6890abcdef{n:012}","custom_id":"request-{n}","response":{{"status_code":200,"request_id":"{n:032}","body":{{"id":"chatcmpl-Abcdefghijklmnop{n:012}","object":"chat.completion","created":1700000000,"model":"gpt-4o-mini-2024-07-18","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":{},"completion_tokens":90,"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":0,"audio_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}}}}}},"error":null}}
"#,
        100 + n % 1_000,
        190 + n % 1_000
    )
}

/// Gives the ledger a record of the results and waits until it is acknowledged.
fn fetch(ledger: &Ledger, n: u64, usage: &Usage, lines: &BatchLines) -> Duration {
    let facts = BatchFacts::Fetched { name: label("file-1"), lines: Box::new(lines.clone()) };
    let record = Box::new(record(n, *usage));
    let began = Instant::now();
    drop(ledger.append_batch(record, Box::new(facts), Wait::No).unwrap());
    while ledger.stats().acknowledged < n {
        std::thread::sleep(Duration::from_micros(100));
    }
    began.elapsed()
}

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn record(n: u64, usage: Usage) -> UsageRecord {
    let started_at = Timestamp::from_micros(1_767_225_600_000_000 + i64::try_from(n).unwrap());
    UsageRecord {
        id: RequestId::new(started_at, u128::from(n)),
        started_at,
        ended_at: started_at,
        identity: Arc::new(Identity::unallocated()),
        route: label("/openai"),
        provider: label("openai"),
        api: Api::BatchOutput.label(),
        model_requested: None,
        model_served: None,
        tier: Some(label("batch")),
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

fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}
