//! Both halves of a power-cut trial: one that writes until the power is gone, one that looks what is left.
//!
//! ```text
//! powercut write DIR             appends for ever; prints `D n` when the records up to n are acknowledged
//! powercut verify DIR ACK        exits 0 with `ok …` if the records up to ACK are there, each once
//! ```
//!
//! Not here: cutting the power (a write-back disk that loses what was not flushed), kills (`tests/crash.rs`).

use bursar_domain::{
    Anomalies, Cost, Currency, Identity, Label, Metering, Outcome, RequestId, SystemClock, Timestamp,
    TokenClass, Usage, UsageRecord, UsageSource,
};
use bursar_ledger::{Ledger, Options, RecordRange, UsageQuery, Wait, verify};
use std::collections::VecDeque;
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Small, so that a trial sees segments begin and end.
const SEGMENT_BYTES: u64 = 256 << 10;
/// Records that wait for their acknowledgement at a time.
const WINDOW: usize = 64;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["write", dir] => write(Path::new(dir)),
        ["verify", dir, acknowledged] => {
            println!("{}", examine(Path::new(dir), acknowledged.parse()?)?);
            Ok(())
        }
        _ => Err("usage: powercut write DIR | powercut verify DIR ACK".into()),
    }
}

fn open(dir: &Path) -> Result<Ledger> {
    let options = Options { segment_bytes: SEGMENT_BYTES, ..Options::new(dir) };
    let pricer = Arc::new(|_: &UsageRecord| Cost::unpriced(Currency::USD));
    Ok(Ledger::open(options, Arc::new(SystemClock), pricer)?.0)
}

fn write(dir: &Path) -> Result<()> {
    let ledger = open(dir)?;
    let mut out = std::io::stdout().lock();
    let mut waiting = VecDeque::new();
    for n in 0.. {
        waiting.push_back((n, ledger.append(Box::new(record(n)?), Wait::Acknowledged)?));
        if waiting.len() >= WINDOW
            && let Some((n, receipt)) = waiting.pop_front()
        {
            let _ = receipt.wait()?;
            writeln!(out, "D {n}")?;
            out.flush()?;
        }
    }
    Ok(())
}

/// What is there: every record from the first to some last one not below `acknowledged` (negative when
/// nothing was), in order, whole, and with the totals that they add up to.
fn examine(dir: &Path, acknowledged: i64) -> Result<String> {
    if acknowledged < 0 && !dir.exists() {
        return Ok("ok nothing was acknowledged".to_owned());
    }
    let ledger = open(dir)?;
    let mut next = 0;
    for stored in ledger.records(RecordRange::default()) {
        let stored = stored?.record;
        if stored.id != record(next)?.id || stored.usage != record(next)?.usage {
            return Ok(format!("lost or twice: another record in the place of {next}"));
        }
        next += 1;
    }
    if i64::try_from(next)? <= acknowledged {
        return Ok(format!("lost: {next} records are there and {acknowledged} was acknowledged"));
    }
    let totals = ledger.usage(&UsageQuery::default())?.totals;
    ledger.close()?;
    let verified = verify(dir)?;
    if (totals.requests, verified.records) != (next, next) || totals.usage != verified.totals.usage {
        return Ok(format!("lost: {next} records, and totals of {}", totals.requests));
    }
    Ok(format!("ok {next} records, {acknowledged} acknowledged"))
}

fn record(n: u64) -> Result<UsageRecord> {
    let label = |text: &str| Label::new(text).map_err(|error| error.to_string());
    let started_at = Timestamp::from_micros(1_767_225_600_000_000 + i64::try_from(n)? * 1_000);
    let mut usage = Usage::unknown();
    usage.set(TokenClass::InputFresh, n);
    usage.set(TokenClass::OutputText, 7);
    Ok(UsageRecord {
        id: RequestId::new(started_at, u128::from(n)),
        started_at,
        ended_at: started_at,
        identity: Arc::new(Identity { team: Some(label("team")?), ..Identity::unallocated() }),
        route: label("/openai")?,
        provider: label("openai")?,
        api: label("openai-chat")?,
        model_requested: None,
        model_served: Some(label("gpt-5")?),
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
    })
}
