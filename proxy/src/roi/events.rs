//! Revenue events from rows, and the list of those that are there.
//!
//! Not here: envelopes (`cloudevents`), what an event may say (`policies::attribution`).

use crate::hedge::AskError;
use crate::hedge::import::ImportFailure;
use crate::hedge::rows::FileRow;
use crate::period::{self, Period};
use crate::report::rfc3339;
use bursar_domain::{Clock, FactKind, Timestamp};
use bursar_ledger::hedge::{HedgeSource, ImportHead, Mode, RowError};
use bursar_ledger::{Ledger, RevenueImported};
use bursar_policies::attribution::{Revenue, RevenueEntry};
use serde::Deserialize;
use serde_json::{Value, json};

/// Most events of one list.
const LISTED_MAX: usize = 10_000;

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
}

impl ListOptions {
    fn period(&self, now: Timestamp) -> Result<Period, AskError> {
        let zone = self.tz.as_deref().unwrap_or("UTC");
        period::parse(self.from.as_deref(), self.to.as_deref(), zone, now, period::PARAMETERS)
            .map_err(|error| AskError::Wrong(error.to_string()))
    }
}

/// The events that are there, in the order of the ledger.
pub(crate) fn list(
    source: &dyn HedgeSource,
    options: &ListOptions,
    now: Timestamp,
) -> Result<Value, AskError> {
    let period = options.period(now)?;
    let (mut rows, mut of) = (Vec::new(), 0_u64);
    for stored in source.finance_facts()?.iter().filter(|stored| stored.fact.kind == FactKind::Revenue) {
        let Ok(revenue) = RevenueEntry::read(&stored.fact.body).and_then(|entry| entry.check()) else {
            continue;
        };
        let at = revenue.event.at;
        let inside = period.from.is_none_or(|from| from <= at) && period.to.is_none_or(|to| at < to);
        if !inside || options.kind.as_deref().is_some_and(|kind| kind != revenue.event.kind.name()) {
            continue;
        }
        of = of.saturating_add(1);
        if rows.len() < LISTED_MAX {
            let mut row: Value = serde_json::from_str(&revenue.body()).unwrap_or(Value::Null);
            if let Value::Object(row) = &mut row {
                row.insert("received_at".to_owned(), rfc3339(stored.fact.at).into());
                row.insert("sequence".to_owned(), stored.sequence.into());
            }
            rows.push(row);
        }
    }
    Ok(json!({ "shown": rows.len(), "of": of, "rows": rows }))
}
