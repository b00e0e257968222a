//! Reports as people and programs receive them: one shape for the API, the commands and the files.
//!
//! Invariants
//! - Amounts are exact decimal text; shares are decimals of four places, or absent with nothing to share.
//! - A row without a team says `unallocated`; nothing is left out.
//!
//! Not here: the figures (`ledger::query`), how a table is drawn (`cli::usage`).

use crate::hedge::AskError;
use crate::period::Period;
use bursar_domain::money::format_pico;
use bursar_domain::{Anomaly, Outcome, Quantity, Timestamp, TokenClass, UsageSource};
use bursar_ledger::export::{Classes, CsvWriter, ExportError, JsonlWriter, TableFormat, UsageTable};
use bursar_ledger::hedge::HedgeSource;
use bursar_ledger::{
    GroupKey, Health, QueryError, ReadError, RecordRange, Stats, StoredRecord, Totals, UsageQuery,
    UsageReport,
};
use serde_json::{Map, Value, json};
use std::io::Write;

/// What a usage report is asked for.
#[derive(Clone, Debug)]
pub struct UsageAsk {
    /// The time.
    pub period: Period,
    /// The grouping.
    pub by: Vec<GroupKey>,
}

/// A grouping that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{option} {name:?} is no grouping: use team, workload, customer, session, tag:NAME, provider, model, \
     model_requested, route, api, tier, outcome, source, hour, day or month, separated by commas"
)]
pub struct ByError {
    /// What the caller called it.
    pub option: &'static str,
    /// What was written.
    pub name: String,
}

/// Understands a grouping that the caller wrote as `option`.
pub fn parse_by(text: &str, option: &'static str) -> Result<Vec<GroupKey>, ByError> {
    let mut keys = Vec::new();
    for name in text.split(',').map(str::trim) {
        let unknown = || ByError { option, name: name.chars().take(40).collect() };
        let key = GroupKey::from_name(name).ok_or_else(unknown)?;
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    Ok(keys)
}

/// What stands for a key that a record does not have.
pub(crate) fn absent(key: &GroupKey) -> &'static str {
    match key {
        GroupKey::Team | GroupKey::Workload | GroupKey::Customer | GroupKey::Session | GroupKey::Tag(_) => {
            "unallocated"
        }
        _ => "unknown",
    }
}

/// The usage report as a JSON document.
pub fn usage(
    read: impl Fn(&UsageQuery) -> Result<UsageReport, QueryError>,
    ask: &UsageAsk,
    as_of: Timestamp,
) -> Result<Value, QueryError> {
    let query = UsageQuery {
        from: ask.period.from,
        to: ask.period.to,
        zone: ask.period.zone.clone(),
        by: ask.by.clone(),
        ..UsageQuery::default()
    };
    let found = read(&query)?;
    let names: Vec<String> = ask.by.iter().map(ToString::to_string).collect();
    let rows: Vec<Value> = found
        .rows
        .iter()
        .map(|row| {
            let mut object = Map::new();
            for ((key, name), value) in ask.by.iter().zip(&names).zip(&row.key) {
                let value = value.text().unwrap_or_else(|| absent(key));
                object.insert(name.clone(), Value::from(value));
            }
            figures(&row.totals, &mut object);
            Value::Object(object)
        })
        .collect();
    let mut total = Map::new();
    figures(&found.totals, &mut total);
    Ok(json!({
        "period": {
            "from": ask.period.from.map(rfc3339),
            "to": ask.period.to.map(rfc3339),
            "tz": ask.period.zone.iana_name().unwrap_or("UTC"),
        },
        "by": names,
        "rows": rows,
        "total": total,
        "coverage": coverage(&found.totals),
        "as_of": rfc3339(as_of),
    }))
}

/// An instant as RFC 3339 in UTC.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.micros())
        .map_or_else(|_| at.micros().to_string(), |at| at.to_string())
}

fn figures(totals: &Totals, object: &mut Map<String, Value>) {
    object.insert("requests".to_owned(), totals.requests.into());
    object.insert("counted_requests".to_owned(), totals.counted.into());
    object.insert("tokens".to_owned(), Value::Object(tokens(totals)));
    if let Some(cost) = cost(totals) {
        object.insert("cost".to_owned(), cost);
    }
    object.insert("unpriced_requests".to_owned(), totals.unpriced.into());
    object.insert("partly_priced_requests".to_owned(), totals.partly_priced.into());
    let outcomes = Outcome::ALL.iter().map(|o| (o.name(), totals.outcome(*o)));
    object.insert("outcomes".to_owned(), counts(outcomes));
    let sources = UsageSource::ALL.iter().map(|s| (s.name(), totals.source(*s)));
    object.insert("usage_source".to_owned(), counts(sources));
    object.insert("anomalous_requests".to_owned(), totals.anomalous.into());
    let anomalies = Anomaly::ALL.iter().map(|a| (a.name(), totals.anomaly(*a)));
    object.insert("anomalies".to_owned(), counts(anomalies));
    object.insert("bytes_in".to_owned(), totals.bytes_in.into());
    object.insert("bytes_out".to_owned(), totals.bytes_out.into());
}

fn counts(all: impl Iterator<Item = (&'static str, u64)>) -> Value {
    let some = all.filter(|(_, count)| *count > 0);
    Value::Object(some.map(|(name, count)| (name.to_owned(), count.into())).collect())
}

/// Totals under the record's names; what nobody reported is left out.
pub(crate) fn tokens(totals: &Totals) -> Map<String, Value> {
    let usage = &totals.usage;
    let all = [
        ("input_tokens", usage.input_total()),
        ("input_cached_read", usage.cached_read_total()),
        ("input_cache_write", usage.cache_write_total()),
        ("input_cache_write_5m", usage.get(TokenClass::CacheWrite5m)),
        ("input_cache_write_1h", usage.get(TokenClass::CacheWrite1h)),
        ("input_audio", usage.input_audio_total()),
        ("input_image", usage.input_image_total()),
        ("input_video", usage.input_video_total()),
        ("input_tool_use", usage.get(TokenClass::InputToolUse)),
        ("output_tokens", usage.output_total()),
        ("output_reasoning", usage.output_reasoning_total()),
        ("output_audio", usage.output_audio_total()),
        ("output_image", usage.get(TokenClass::OutputImage)),
        ("web_search_requests", usage.quantity(Quantity::WebSearchRequests)),
        ("tool_calls", usage.quantity(Quantity::ToolCalls)),
    ];
    all.into_iter().filter_map(|(name, count)| Some((name.to_owned(), Value::from(count?)))).collect()
}

/// The sums of money; `None` where nothing was to be priced, as in a record. Amounts of another currency than the first stand in a list of their own:
/// without exchange rates they cannot be added.
fn cost(totals: &Totals) -> Option<Value> {
    let status = match (totals.priced, totals.unpriced, totals.partly_priced) {
        (0, 0, 0) => return None,
        (_, 0, 0) => "priced",
        (0, _, 0) => "unpriced",
        _ => "partly_priced",
    };
    let mut amounts = totals.money().iter().map(|money| {
        json!({
            "currency": money.currency.code(),
            "list": money.list.pico().map(format_pico),
            "contracted": money.contracted.pico().map(format_pico),
            "billed": money.billed.pico().map(format_pico),
            "provider": (money.provider.terms() > 0).then(|| money.provider.pico().map(format_pico)),
        })
    });
    let mut cost = amounts.next().unwrap_or_else(|| json!({ "currency": "USD" }));
    if let Value::Object(cost) = &mut cost {
        cost.retain(|_, value| !value.is_null());
        cost.insert("status".to_owned(), status.into());
        let others: Vec<Value> = amounts.collect();
        if !others.is_empty() {
            cost.insert("other_currencies".to_owned(), others.into());
        }
    }
    Some(cost)
}

/// How much of the figures rests on what: shares of the counted requests.
fn coverage(totals: &Totals) -> Value {
    json!({
        "provider_reported": share(totals.source(UsageSource::Provider), totals.counted),
        "priced": share(totals.priced, totals.counted),
    })
}

/// `part / whole` to four places, rounded down, as decimal text; `None` of nothing.
fn share(part: u64, whole: u64) -> Option<String> {
    let scaled = u128::from(part).checked_mul(10_000)?.checked_div(u128::from(whole))?;
    Some(format!("{}.{:04}", scaled / 10_000, scaled % 10_000))
}

/// The form of a record export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordsAs {
    /// One JSON object per line.
    Jsonl,
    /// The same, with the disjoint token classes that a price needs.
    JsonlWithClasses,
    /// Comma-separated values.
    Csv,
    /// A typed table.
    Table(TableFormat),
}

/// Records that are decoded ahead of those that are written.
const AHEAD: usize = 2_048;

/// Why records could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The ledger could not be read.
    #[error("cannot read the ledger")]
    Read(#[from] ReadError),
    /// The output could not be written.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The output could not be written.
    #[error("cannot write the export")]
    Write(#[from] std::io::Error),
    /// The thread that reads records panicked: a defect.
    #[error("reading the records failed: this is a defect")]
    Reader,
}

/// The records of `period`, for reading.
#[must_use]
pub fn range(period: &Period) -> RecordRange {
    RecordRange { from: period.from, to: period.to, after_sequence: 0 }
}

/// The records of `period`, each range with the last sequence that counts: all that are there, or, as
/// `reported`, those on which the calendar month between `days` rests.
pub(crate) fn ranges(
    source: &dyn HedgeSource,
    view: Option<&str>,
    days: (Option<&str>, Option<&str>),
    period: &Period,
    now: Timestamp,
) -> Result<Vec<(RecordRange, u64)>, AskError> {
    match view {
        None | Some("restated") => Ok(vec![(range(period), u64::MAX)]),
        Some("reported") => crate::roi::period::reported_records(source, days, now),
        Some(other) => Err(AskError::Wrong(format!("as {other:?}: use reported or restated"))),
    }
}

/// Writes `records` to `out`, and tells `seen` how many there were as they pass; returns their number.
pub fn write_records(
    records: impl Iterator<Item = Result<StoredRecord, ReadError>> + Send,
    format: RecordsAs,
    out: &mut dyn Write,
    seen: &mut dyn FnMut(u64),
) -> Result<u64, RecordsError> {
    let mut count = 0_u64;
    let mut passed = || {
        count = count.saturating_add(1);
        seen(count);
    };
    match format {
        RecordsAs::Jsonl | RecordsAs::JsonlWithClasses => {
            let told = format == RecordsAs::JsonlWithClasses;
            let classes = if told { Classes::Told } else { Classes::Omitted };
            let mut writer = JsonlWriter::new(out).classes(classes);
            for record in records {
                writer.write(&record?)?;
                passed();
            }
            writer.finish()?;
        }
        RecordsAs::Csv => {
            let mut writer = CsvWriter::new(out)?;
            for record in records {
                writer.write(&record?)?;
                passed();
            }
            writer.finish()?;
        }
        RecordsAs::Table(format) => {
            let mut writer = UsageTable::new(out, format)?;
            read_ahead(records, |record| {
                writer.write(&record)?;
                passed();
                Ok(())
            })?;
            writer.finish()?;
        }
    }
    Ok(count)
}

/// Reads on a thread of its own, so that decoding and encoding take a core each; at most a few pieces
/// wait between them.
fn read_ahead(
    records: impl Iterator<Item = Result<StoredRecord, ReadError>> + Send,
    mut write: impl FnMut(StoredRecord) -> Result<(), RecordsError>,
) -> Result<(), RecordsError> {
    std::thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::sync_channel::<Vec<Result<StoredRecord, ReadError>>>(2);
        let reader = scope.spawn(move || {
            let mut records = records;
            loop {
                let piece: Vec<_> = records.by_ref().take(AHEAD).collect();
                // Nobody takes it when writing has failed.
                if piece.is_empty() || sender.send(piece).is_err() {
                    return;
                }
            }
        });
        let mut done = Ok(());
        'pieces: for piece in &receiver {
            for record in piece {
                if let Err(error) = record.map_err(RecordsError::from).and_then(&mut write) {
                    done = Err(error);
                    break 'pieces;
                }
            }
        }
        drop(receiver);
        reader.join().map_err(|_| RecordsError::Reader)?;
        done
    })
}

/// The ledger's own figures as JSON.
#[must_use]
pub fn stats_json(stats: &Stats) -> Value {
    let (healthy, reason) = match &stats.health {
        Health::Healthy => (true, None),
        Health::Degraded(reason) => (false, Some(reason)),
    };
    json!({
        "ledger": stats.ledger.to_string(),
        "last_sequence": stats.last_sequence,
        "queue_entries": stats.queue_entries,
        "queue_entries_max": stats.queue_entries_max,
        "appended": stats.appended,
        "open": stats.open,
        "openings_shed": stats.openings_shed,
        "acknowledged": stats.acknowledged,
        "repeated": stats.repeated,
        "dropped": stats.dropped,
        "frames": stats.frames,
        "provider_cost_differs": stats.provider_cost_differs,
        "last_commit_us": stats.last_commit_us,
        "journal_bytes": stats.journal_bytes,
        "data_bytes": stats.data_bytes,
        "bytes_max": stats.bytes_max,
        "segments": stats.segments,
        "rolled_segments": stats.rolled_segments,
        "rolled_records": stats.rolled_records,
        "healthy": healthy,
        "reason": reason,
        "last_error": stats.last_error,
    })
}
