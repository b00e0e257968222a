//! Imports: rows of finance facts, checked together and written together.
//!
//! Invariants
//! - Every row is checked against the state that the rows before it leave; every bad row is named.
//! - All rows that are new are one frame of the journal, or none is written.
//! - Rows that are there already are counted and change nothing, so an import can be repeated.
//!
//! Not here: files, lines and columns (`bursar`), the checks (`policies::hedge::intake`).

use super::state;
use crate::facts::{FACTS_PER_IMPORT_MAX, FactError, NewFact, dated};
use crate::journal::read::ReadError;
use crate::{Ledger, NotRecorded, RejectReason};
use bursar_domain::{Clock, FactKind, Label, Timestamp};
use bursar_policies::hedge::intake::{Admitted, Intake, IntakeError};
use bursar_policies::hedge::market::{Added, MarketError};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most errors of one import that are told.
pub const ERRORS_MAX: usize = 1_000;

/// Most usage records of one import: each takes some 100 bytes of memory while it is checked.
pub const USAGE_ROWS_MAX: usize = 2_000_000;

/// A row of an import.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// The line of the file on which it begins.
    pub line: u64,
    /// What it is about.
    pub kind: FactKind,
    /// Its fields.
    pub fields: Value,
}

/// A row that cannot be taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// The line of the file.
    pub line: u64,
    /// Why.
    pub problem: String,
}

/// A row that would be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowPlan {
    /// The line of the file; `None` when the row follows from another one.
    pub line: Option<u64>,
    /// What it is about.
    pub kind: FactKind,
    /// Its name.
    pub name: Label,
    /// `New` or `Restated`.
    pub added: Added,
    /// Its text.
    pub(crate) body: Arc<str>,
}

/// What an import would do, or did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Rows of the file.
    pub rows: u64,
    /// Rows that are there already.
    pub same: u64,
    /// Usage records to write.
    pub new_records: u64,
    /// Rows that are no usage of a provider, or outside the time that was asked for, by reason.
    pub left: BTreeMap<String, u64>,
    /// Facts to write, in order.
    pub writes: Vec<RowPlan>,
    /// Bad rows; with any, nothing is written.
    pub errors: Vec<RowError>,
    /// The last sequence, when something was written.
    pub written: Option<u64>,
}

/// Whether an import is only shown or also done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Shown.
    DryRun,
    /// Done, if no row is bad.
    Apply,
}

/// What the ledger keeps of an import besides its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportHead {
    /// What was imported, such as `fixings`.
    pub what: String,
    /// The name of the file.
    pub file: Option<String>,
    /// Its checksum (BLAKE3, hexadecimal).
    pub checksum: String,
    /// What else is known of it: one object, such as the system that wrote the file.
    pub about: Option<Value>,
}

/// Why an import failed altogether.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The facts were not recorded.
    #[error(transparent)]
    Facts(#[from] FactError),
    /// A usage record was not recorded; repeat the import when the cause is gone.
    #[error("the import was cut short and can be repeated: {0}")]
    Usage(#[from] NotRecorded),
    /// The ledger takes no record now; repeat the import when the cause is gone.
    #[error("the import was cut short and can be repeated: {0}")]
    Rejected(RejectReason),
    /// The journal cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file cannot be read.
    #[error("the file cannot be read")]
    File(#[source] std::io::Error),
    /// The file says something else than when it was checked.
    #[error("the file changed while it was imported (line {line}): import it again, which is safe")]
    Changed {
        /// The first line that differs.
        line: u64,
    },
    /// There are too many rows.
    #[error(
        "a file has at most {USAGE_ROWS_MAX} rows: split it, which is safe as rows that are there already change nothing"
    )]
    TooManyRows,
}

/// Checks rows against `intake`, which they change. With any bad row it is of no use any more.
#[must_use]
pub fn plan(intake: &mut Intake, drafts: &[Draft], now: Timestamp) -> Imported {
    let mut imported = Imported::default();
    // Observations that the file repeats, by name: another value further down is no restatement of it.
    let mut repeated: BTreeMap<Label, u64> = BTreeMap::new();
    for draft in drafts {
        imported.rows = imported.rows.saturating_add(1);
        let planned = plan_row(intake, draft, now).and_then(|planned| planned.beside(&repeated, draft));
        match planned {
            Ok(Planned { admitted, rows }) if rows.is_empty() => {
                imported.same = imported.same.saturating_add(1);
                if matches!(draft.kind, FactKind::Fixing | FactKind::Fx) {
                    repeated.entry(admitted.name).or_insert(draft.line);
                }
            }
            Ok(planned) => imported.writes.extend(planned.rows),
            Err(error) if imported.errors.len() < ERRORS_MAX => {
                imported.errors.push(RowError { line: draft.line, problem: error.to_string() });
            }
            Err(_) => {}
        }
    }
    imported
}

/// What a row comes to.
struct Planned {
    admitted: Admitted,
    /// The facts that it is; none when it is there already.
    rows: Vec<RowPlan>,
}

impl Planned {
    /// Refuses another value than an earlier row of the file says.
    fn beside(self, repeated: &BTreeMap<Label, u64>, draft: &Draft) -> Result<Self, IntakeError> {
        let Self { admitted, rows } = &self;
        match repeated.get(&admitted.name).filter(|_| admitted.added == Added::Restated && !rows.is_empty()) {
            Some(line) if matches!(draft.kind, FactKind::Fixing | FactKind::Fx) => {
                Err(IntakeError::SaidTwice { name: admitted.name.clone(), line: *line })
            }
            _ => Ok(self),
        }
    }
}

fn plan_row(intake: &mut Intake, draft: &Draft, now: Timestamp) -> Result<Planned, IntakeError> {
    let body = draft.fields.to_string();
    let mut rows = Vec::new();
    let admitted = match intake.admit(draft.kind, &body, now) {
        Err(IntakeError::Market(MarketError::UnknownIndex(key))) if draft.kind == FactKind::Fixing => {
            // The first fixing of an index declares it, in its currency, on weekdays; the plan shows it.
            let Some(currency) = draft.fields.get("currency").and_then(Value::as_str) else {
                return Err(MarketError::UnknownIndex(key).into());
            };
            let index = json!({ "index": key.id.as_str(), "version": key.version, "currency": currency });
            let index = index.to_string();
            let declared = intake.admit(FactKind::Index, &index, now)?;
            // A fixing that is bad leaves its index behind in `intake`, which no import with a bad row uses.
            let admitted = intake.admit(draft.kind, &body, now)?;
            let (name, added) = (declared.name, declared.added);
            rows.push(RowPlan { line: None, kind: FactKind::Index, name, added, body: index.into() });
            admitted
        }
        admitted => admitted?,
    };
    if admitted.added != Added::Same {
        let (name, added) = (admitted.name.clone(), admitted.added);
        rows.push(RowPlan { line: Some(draft.line), kind: draft.kind, name, added, body: body.into() });
    }
    Ok(Planned { admitted, rows })
}

impl Imported {
    /// How many rows say something else than was said before.
    #[must_use]
    pub fn restated(&self) -> usize {
        self.writes.iter().filter(|row| row.added == Added::Restated).count()
    }

    pub(crate) fn facts(&self, head: &ImportHead) -> Vec<NewFact> {
        let mut batch = json!({
            "what": head.what, "file": head.file, "checksum": head.checksum, "rows": self.rows,
            "written": (self.writes.len() as u64).saturating_add(self.new_records), "restated": self.restated(), "same": self.same,
        });
        if let (Some(about), Some(batch)) = (&head.about, batch.as_object_mut()) {
            batch.insert("about".to_owned(), about.clone());
            batch.insert("left".to_owned(), json!(self.left));
        }
        let name = Label::lossy(&format!("{} {}", head.what, head.checksum));
        let name = name.unwrap_or_else(|| Label::fixed("import"));
        let first = NewFact { kind: FactKind::ImportBatch, name, body: batch.to_string().into() };
        let rows = self.writes.iter();
        let rows = rows.map(|row| NewFact { kind: row.kind, name: row.name.clone(), body: row.body.clone() });
        std::iter::once(first).chain(rows).collect()
    }
}

impl Ledger {
    /// Checks rows, and writes those that are new if none is bad and `mode` says so. One import runs
    /// at a time. Blocks: not for an async thread.
    pub fn import(
        &self,
        drafts: &[Draft],
        head: &ImportHead,
        mode: Mode,
        clock: &dyn Clock,
    ) -> Result<Imported, ImportError> {
        let _guard = self.importing();
        if drafts.len() >= FACTS_PER_IMPORT_MAX {
            return Err(FactError::TooMany.into());
        }
        let mut state = state(&self.facts());
        let mut imported = plan(&mut state.intake, drafts, clock.now());
        if mode == Mode::Apply && imported.errors.is_empty() && !imported.writes.is_empty() {
            let facts = dated(imported.facts(head), clock)?;
            imported.written = Some(self.append_facts(facts)?);
        }
        Ok(imported)
    }

    /// Records that an import of usage is made, before its rows: each has its batch in the journal.
    pub(super) fn note_import(
        &self,
        head: &ImportHead,
        imported: &Imported,
        clock: &dyn Clock,
    ) -> Result<u64, ImportError> {
        Ok(self.append_facts(dated(imported.facts(head), clock)?)?)
    }
}
