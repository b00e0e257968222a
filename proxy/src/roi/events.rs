//! Revenue events from rows, and those that are there: as a list, or as an export of all of them.
//!
//! Invariants
//! - A list is bounded and says how many there are; an export has every event, row by row.
//!
//! Not here: envelopes (`cloudevents`), what an event may say (`policies::attribution`).

use crate::hedge::AskError;
use crate::hedge::import::ImportFailure;
use crate::hedge::rows::FileRow;
use crate::period::{self, Period};
use crate::report::rfc3339;
use bursar_domain::money::parse_pico;
use bursar_domain::{Clock, FactKind, StoredFact, Timestamp};
use bursar_ledger::export::{Cell, Column, ExportError, Kind, MONEY_PLACES, TableFormat, TableWriter};
use bursar_ledger::hedge::{HedgeSource, ImportHead, Mode, RowError};
use bursar_ledger::{Ledger, RevenueImported};
use bursar_policies::attribution::{Revenue, RevenueEntry};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::Write;

/// Most events that a command lists.
pub(crate) const LISTED_MAX: usize = 10_000;

/// Events of rows, and the rows that are none.
fn events(rows: Vec<FileRow>) -> (Vec<(u64, Revenue)>, Vec<RowError>) {
    let (mut events, mut errors) = (Vec::new(), Vec::new());
    for FileRow { line, fields } in rows {
        let event = fields.and_then(|fields| {
            let entry = RevenueEntry::read(&Value::Object(fields).to_string());
            entry.and_then(|entry| entry.check()).map_err(|error| error.to_string())
        });
        match event {
            Ok(event) => events.push((line, event)),
            Err(problem) => errors.push(RowError { line, problem }),
        }
    }
    (events, errors)
}

/// Imports rows: all of them, or none.
pub(crate) fn import(
    ledger: &Ledger,
    rows: Vec<FileRow>,
    head: &ImportHead,
    mode: Mode,
    clock: &dyn Clock,
) -> Result<RevenueImported, ImportFailure> {
    if rows.is_empty() {
        return Err(ImportFailure::Empty);
    }
    let count = rows.len() as u64;
    let (events, unreadable) = events(rows);
    let mode = if unreadable.is_empty() { mode } else { Mode::DryRun };
    let mut found = ledger.import_revenue(events, head, mode, clock)?;
    found.imported.rows = count;
    found.imported.errors.extend(unreadable);
    found.imported.errors.sort_by_key(|error| error.line);
    Ok(found)
}

/// Which events are listed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ListOptions {
    /// Events at or after this.
    pub(crate) from: Option<String>,
    /// Events before this.
    pub(crate) to: Option<String>,
    /// Whose days; UTC when absent.
    pub(crate) tz: Option<String>,
    /// Only those of this kind.
    pub(crate) kind: Option<String>,
    /// Over the admin API: `json` (when absent) lists, `csv`, `jsonl` and `parquet` export all.
    pub(crate) format: Option<String>,
}

impl ListOptions {
    /// Whether the time is one.
    pub(crate) fn check(&self, now: Timestamp) -> Result<(), AskError> {
        self.period(now).map(drop)
    }

    fn period(&self, now: Timestamp) -> Result<Period, AskError> {
        let zone = self.tz.as_deref().unwrap_or("UTC");
        period::parse(self.from.as_deref(), self.to.as_deref(), zone, now, period::PARAMETERS)
            .map_err(|error| AskError::Wrong(error.to_string()))
    }
}

/// The events that are there, in the order of the ledger, and at most so many.
pub(crate) fn list(
    source: &dyn HedgeSource,
    (options, rows_max): (&ListOptions, usize),
    now: Timestamp,
) -> Result<Value, AskError> {
    let period = options.period(now)?;
    let (mut rows, mut of) = (Vec::new(), 0_u64);
    each(source, options, &period, &mut |stored, revenue| {
        of = of.saturating_add(1);
        if rows.len() < rows_max {
            rows.push(document(stored, revenue));
        }
        Ok::<_, AskError>(())
    })?;
    Ok(json!({ "shown": rows.len(), "of": of, "rows": rows }))
}

/// Tells of each event that is asked for, in the order of the ledger.
fn each<E: From<AskError>>(
    source: &dyn HedgeSource,
    options: &ListOptions,
    period: &Period,
    take: &mut dyn FnMut(&StoredFact, &Revenue) -> Result<(), E>,
) -> Result<(), E> {
    let facts = source.finance_facts().map_err(AskError::from)?;
    for stored in facts.iter().filter(|stored| stored.fact.kind == FactKind::Revenue) {
        let Ok(revenue) = RevenueEntry::read(&stored.fact.body).and_then(|entry| entry.check()) else {
            continue;
        };
        let at = revenue.event.at;
        let inside = period.from.is_none_or(|from| from <= at) && period.to.is_none_or(|to| at < to);
        if inside && options.kind.as_deref().is_none_or(|kind| kind == revenue.event.kind.name()) {
            take(stored, &revenue)?;
        }
    }
    Ok(())
}

/// An event as a document.
fn document(stored: &StoredFact, revenue: &Revenue) -> Value {
    let mut row: Value = serde_json::from_str(&revenue.body()).unwrap_or(Value::Null);
    if let Value::Object(row) = &mut row {
        row.insert("received_at".to_owned(), rfc3339(stored.fact.at).into());
        row.insert("sequence".to_owned(), stored.sequence.into());
    }
    row
}

/// As what all events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventsAs {
    /// A document on each line.
    Jsonl,
    /// Rows of typed columns.
    Table(TableFormat),
}

/// Why an export of events ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportFailure {
    /// The question, or the ledger.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// A row.
    #[error(transparent)]
    Write(#[from] ExportError),
}

/// Columns of text between the instant and the amount, and after the currency; names are those of documents.
const NAMES: [&str; 3] = ["source", "id", "kind"];
const KEYS: [&str; 9] = [
    "refers_to",
    "request_id",
    "trace_id",
    "session",
    "customer",
    "workload",
    "tag",
    "refers_to_source",
    "evidence",
];

fn columns() -> Vec<Column> {
    let text = |name: &&str| Column::maybe(name, Kind::Text);
    let mut columns = vec![Column::always("time", Kind::Instant).differing()];
    columns.extend(NAMES.iter().map(text));
    columns.push(Column::always("amount", Kind::Decimal(MONEY_PLACES)));
    columns.push(Column::always("currency", Kind::Text));
    columns.extend(KEYS.iter().map(text));
    columns.push(Column::maybe("confidence", Kind::Decimal(MONEY_PLACES)));
    columns.push(Column::always("received_at", Kind::Instant));
    columns.push(Column::always("sequence", Kind::Count).differing());
    columns
}

/// Writes every event that is asked for; returns how many.
pub(crate) fn write(
    source: &dyn HedgeSource,
    options: &ListOptions,
    format: EventsAs,
    now: Timestamp,
    out: &mut dyn Write,
) -> Result<u64, ExportFailure> {
    let period = options.period(now)?;
    match format {
        EventsAs::Jsonl => {
            let mut count = 0_u64;
            each(source, options, &period, &mut |stored, revenue| {
                count = count.saturating_add(1);
                writeln!(out, "{}", document(stored, revenue))
                    .map_err(|error| ExportFailure::Write(ExportError::Write(error)))
            })?;
            Ok(count)
        }
        EventsAs::Table(format) => {
            let mut table = TableWriter::new(out, "revenue", columns(), format)?;
            each(source, options, &period, &mut |stored, revenue| {
                Ok::<_, ExportFailure>(table.write(&cells(stored, revenue))?)
            })?;
            Ok(table.finish()?.1)
        }
    }
}

/// The cells of an event, in the order of the columns.
fn cells(stored: &StoredFact, revenue: &Revenue) -> Vec<Cell<'static>> {
    let row = document(stored, revenue);
    let text = |name: &&str| {
        let text = row.get(*name).and_then(Value::as_str);
        text.map_or(Cell::Null, |text| Cell::owned(text.to_owned()))
    };
    let decimal = |name: &str| {
        let text = row.get(name).and_then(Value::as_str);
        Cell::decimal(text.and_then(|text| parse_pico(text).ok()))
    };
    let mut cells = vec![Cell::Instant(revenue.event.at)];
    cells.extend(NAMES.iter().map(text));
    cells.push(Cell::Decimal(revenue.event.amount.pico()));
    cells.push(text(&"currency"));
    cells.extend(KEYS.iter().map(text));
    cells.push(decimal("confidence"));
    cells.push(Cell::Instant(stored.fact.at));
    cells.push(Cell::Count(stored.sequence));
    cells
}
