//! What can be imported, and how rows become drafts of facts.
//!
//! Invariants
//! - A row of a mixed file is told by its fields; one that fits nothing is an error with its line.
//! - A preset fills what the row leaves open, before anything is checked.
//! - However many rows are bad, a bounded number of them is told.
//!
//! Not here: reading rows (`rows`), usage (`imports`), the checks (`ledger::hedge`, `policies::hedge`).

use super::rows::{self, FileRow};
use crate::imports::{self, Asked, Input, UsageFailure};
use bursar_domain::{Clock, FactKind};
use bursar_ledger::Ledger;
use bursar_ledger::hedge::{Draft, ERRORS_MAX, ImportError, ImportHead, Imported, Mode, RowError};
use bursar_policies::hedge::calendar::parse_day;
use bursar_policies::hedge::market::Added;
use bursar_policies::hedge::position::Preset;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Usage records.
    Usage,
    /// Fixings.
    Fixings,
    /// Exchange rates.
    Fx,
    /// Calendars.
    Calendars,
    /// Indices.
    Indices,
    /// Conversion profiles.
    Profiles,
    /// Any market data, told apart by fields.
    Market,
    /// Positions.
    Contracts,
    /// Events of positions.
    Events,
    /// Revenue events.
    Revenue,
}

/// The names of everything that can be imported.
pub(crate) const NAMES: &[&str] = &[
    "usage",
    "fixings",
    "fx",
    "calendars",
    "indices",
    "profiles",
    "market",
    "contracts",
    "events",
    "revenue",
];

impl What {
    /// Everything that can be imported.
    pub(crate) const ALL: [Self; 10] = [
        Self::Usage,
        Self::Fixings,
        Self::Fx,
        Self::Calendars,
        Self::Indices,
        Self::Profiles,
        Self::Market,
        Self::Contracts,
        Self::Events,
        Self::Revenue,
    ];

    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Fixings => "fixings",
            Self::Fx => "fx",
            Self::Calendars => "calendars",
            Self::Indices => "indices",
            Self::Profiles => "profiles",
            Self::Market => "market",
            Self::Contracts => "contracts",
            Self::Events => "events",
            Self::Revenue => "revenue",
        }
    }

    /// The one with this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|what| what.name() == name)
    }

    /// The kind of fact of a row; `None` when a mixed file's row fits none.
    fn kind(self, fields: &Map<String, Value>) -> Option<FactKind> {
        let has = |name: &str| fields.contains_key(name);
        Some(match self {
            Self::Usage => return None,
            Self::Fixings => FactKind::Fixing,
            Self::Fx => FactKind::Fx,
            Self::Calendars => FactKind::Calendar,
            Self::Indices => FactKind::Index,
            Self::Profiles => FactKind::Profile,
            Self::Contracts => FactKind::Contract,
            Self::Events => FactKind::ContractEvent,
            Self::Revenue => FactKind::Revenue,
            Self::Market if has("pair") => FactKind::Fx,
            Self::Market if has("profile") => FactKind::Profile,
            Self::Market if has("index") && (has("value") || has("date")) => FactKind::Fixing,
            Self::Market if has("index") => FactKind::Index,
            Self::Market if has("calendar") => FactKind::Calendar,
            Self::Market => return None,
        })
    }
}

/// A file to import.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// What it holds.
    pub(crate) what: What,
    /// Its name, to remember it by.
    pub(crate) name: Option<String>,
    /// Its text.
    pub(crate) text: String,
}

/// Why an import cannot even be tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportFailure {
    /// There is nothing in it.
    #[error("there is no row in it")]
    Empty,
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] ImportError),
    /// Usage.
    #[error(transparent)]
    Usage(#[from] UsageFailure),
}

/// Imports a file, or shows what that would do.
pub(crate) fn import(
    ledger: &Ledger,
    file: &File,
    mode: Mode,
    clock: &dyn Clock,
) -> Result<Imported, ImportFailure> {
    if file.what == What::Usage {
        let asked = Asked { name: file.name.clone(), ..Asked::default() };
        return Ok(imports::import(ledger, Input::Text(&file.text), &asked, mode, clock)?.imported);
    }
    let rows = rows::read(&file.text);
    if rows.is_empty() {
        return Err(ImportFailure::Empty);
    }
    let checksum = blake3::hash(file.text.as_bytes()).to_hex().to_string();
    let head =
        ImportHead { what: file.what.name().to_owned(), file: file.name.clone(), checksum, about: None };
    if file.what == What::Revenue {
        return Ok(crate::roi::events::import(ledger, rows, &head, mode, clock)?.imported);
    }
    let count = rows.len() as u64;
    let (drafts, errors) = drafts(file.what, rows);
    let mode = if errors.is_empty() { mode } else { Mode::DryRun };
    let mut imported = ledger.import(&drafts, &head, mode, clock)?;
    imported.rows = count;
    imported.errors.extend(errors);
    imported.errors.sort_by_key(|error| error.line);
    imported.errors.truncate(ERRORS_MAX);
    Ok(imported)
}

fn drafts(what: What, rows: Vec<FileRow>) -> (Vec<Draft>, Vec<RowError>) {
    let (mut drafts, mut errors) = (Vec::new(), Vec::new());
    let rows = if what == What::Calendars { with_holidays_together(rows) } else { rows };
    for FileRow { line, fields } in rows {
        match fields.and_then(|fields| draft(what, line, fields)) {
            Ok(draft) => drafts.push(draft),
            Err(problem) => note(&mut errors, line, problem),
        }
    }
    (drafts, errors)
}

/// Keeps an error, unless there are enough.
fn note(errors: &mut Vec<RowError>, line: u64, problem: String) {
    if errors.len() < ERRORS_MAX {
        errors.push(RowError { line, problem });
    }
}

fn draft(what: What, line: u64, mut fields: Map<String, Value>) -> Result<Draft, String> {
    let kind = what.kind(&fields).ok_or(
        "this is neither a fixing (index, date, value), a rate (pair, date, rate), an index (index, currency), \
         a calendar (calendar, holidays) nor a profile (profile, from)",
    )?;
    if kind != FactKind::Contract {
        return Ok(Draft { line, kind, fields: Value::Object(fields) });
    }
    let preset = fields.remove("preset");
    let fields = match preset.as_ref().map(Value::as_str) {
        None => Value::Object(fields),
        Some(None) => return Err("preset: write the name of a preset".to_owned()),
        Some(Some(name)) => {
            let preset = Preset::named(name).map_err(|error| error.to_string())?;
            preset.filled(Value::Object(fields))
        }
    };
    Ok(Draft { line, kind, fields })
}

/// Rows with one `holiday` each become one calendar. Each is checked where it stands: once they are
/// together, nobody can tell the line of a bad one.
fn with_holidays_together(rows: Vec<FileRow>) -> Vec<FileRow> {
    let mut found: Vec<FileRow> = Vec::new();
    // Where each calendar is, and what its first row says besides its holiday.
    let mut places: BTreeMap<String, (usize, u64, Map<String, Value>)> = BTreeMap::new();
    for mut row in rows {
        let Ok(fields) = &mut row.fields else {
            found.push(row);
            continue;
        };
        let name = fields.get("calendar").and_then(Value::as_str).map(str::to_owned);
        let (Some(name), Some(holiday)) = (name, fields.remove("holiday")) else {
            found.push(row);
            continue;
        };
        let first = places.entry(name).or_insert_with(|| (found.len(), row.line, fields.clone()));
        if let Err(problem) = fits(fields, &holiday, first) {
            found.push(FileRow { line: row.line, fields: Err(problem) });
            continue;
        }
        let place = first.0;
        if first.1 == row.line {
            fields.insert("holidays".to_owned(), Value::Array(Vec::new()));
            found.push(row);
        }
        let fields = found.get_mut(place).and_then(|row| row.fields.as_mut().ok());
        let days = fields.and_then(|fields| fields.get_mut("holidays")).and_then(Value::as_array_mut);
        if let Some(days) = days {
            days.push(holiday);
        }
    }
    found
}

/// Whether a row is of the calendar that began on an earlier one.
fn fits(
    fields: &Map<String, Value>,
    holiday: &Value,
    (_, line, first): &(usize, u64, Map<String, Value>),
) -> Result<(), String> {
    let day = holiday.as_str().ok_or("holiday: write it as 2026-10-01")?;
    parse_day(day).map_err(|error| format!("holiday: {error}"))?;
    for (name, value) in fields {
        if first.get(name) != Some(value) {
            return Err(format!("{name}: {value} is not what line {line} says of the same calendar"));
        }
    }
    Ok(())
}

/// What an import did, or would do.
pub(crate) fn document(what: What, imported: &Imported) -> Value {
    let new = imported.writes.len().saturating_sub(imported.restated());
    let errors: Vec<Value> =
        imported.errors.iter().map(|error| json!({ "line": error.line, "problem": error.problem })).collect();
    let changes = imported.writes.iter().map(|row| {
        let added = if row.added == Added::Restated { "restated" } else { "new" };
        json!({ "line": row.line, "kind": row.kind.name(), "name": row.name.as_str(), "change": added })
    });
    json!({
        "what": what.name(),
        "rows": imported.rows,
        "new": (new as u64).saturating_add(imported.new_records),
        "restated": imported.restated(),
        "same": imported.same,
        "errors": errors,
        "changes": changes.collect::<Vec<_>>(),
        "applied": imported.written.is_some(),
        "sequence": imported.written,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn calendars(text: &str) -> (Vec<Value>, Vec<(u64, String)>) {
        let (found, errors) = drafts(What::Calendars, rows::read(text));
        let errors = errors.into_iter().map(|error| (error.line, error.problem));
        (found.into_iter().map(|draft| draft.fields).collect(), errors.collect())
    }

    #[test]
    fn holidays_of_a_calendar_are_one_and_a_bad_one_is_told_by_its_line() {
        let text =
            "calendar,holiday,weekends\nA,2026-10-01,open\nB,2026-12-25,\nA,2026-10-02,open\nA,2026-10-05,\n";
        let expected = [
            json!({"calendar": "A", "weekends": "open", "holidays": ["2026-10-01", "2026-10-02", "2026-10-05"]}),
            json!({"calendar": "B", "holidays": ["2026-12-25"]}),
        ];
        assert_eq!(calendars(text), (expected.to_vec(), vec![]));
        let (_, errors) = calendars("calendar,holiday\nA,2026-10-01\nA,2026-10-99\n");
        let problem = "holiday: \"2026-10-99\" is not a day: write it as 2026-09-30";
        assert_eq!(errors, [(3, problem.to_owned())]);
        for column in ["weekends", "wat"] {
            let (_, errors) =
                calendars(&format!("calendar,holiday,{column}\nA,2026-10-01,\nA,2026-10-02,open\n"));
            let problem = format!("{column}: \"open\" is not what line 2 says of the same calendar");
            assert_eq!(errors, [(3, problem)]);
        }
    }

    #[test]
    fn of_any_number_of_bad_rows_a_thousand_are_told() {
        let text = "{\"index\":\"x\"\n".repeat(ERRORS_MAX + 500);
        let text = format!("{{\"a\":1}}\n{text}");
        let (found, errors) = drafts(What::Market, rows::read(&text));
        assert_eq!((found.len(), errors.len()), (0, ERRORS_MAX));
        assert_eq!(errors.first().map(|error| error.line), Some(1));
    }
}
