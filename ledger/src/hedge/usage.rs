//! Imports of usage: records that something else metered, or that another ledger holds.
//!
//! Invariants
//! - Every row is checked, also against what is there, before one is written: a bad file writes nothing.
//! - A file is read twice and never held: memory grows by some 100 bytes for a row, not by its text.
//! - The import's own fact is written before its records: each record has its batch in the journal.
//! - An import that was cut short can be repeated: what is there already is left as it is.
//! - What may be among records of which only totals are kept is refused: it could count twice.
//!
//! Not here: what a file says (`bursar`), what a record costs (`settle`).

use super::import::{ERRORS_MAX, ImportError, ImportHead, Imported, Mode, RowError, USAGE_ROWS_MAX};
use crate::export::record_json;
use crate::journal::read::{StoredRecord, each_wanted_record};
use crate::settle::bound;
use crate::{Appended, Ledger, Receipt, RejectReason, Wait};
use bursar_domain::{Anomalies, Anomaly, Clock, LedgerId, RequestId, UsageRecord};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::io;

/// Most records that wait for the writer at once.
const WAITING_MAX: usize = 4_096;

/// A row of a file.
#[derive(Debug)]
pub struct UsageRow {
    /// The line on which it begins.
    pub line: u64,
    /// What it is.
    pub what: RowWhat,
}

/// What a row is.
#[derive(Debug)]
pub enum RowWhat {
    /// A record.
    Record(Box<UsageRecord>),
    /// Nothing to record, with the reason.
    Left(String),
    /// It cannot be taken, with the reason.
    Bad(String),
}

/// The rows of a file, from its beginning.
pub type UsageRows<'a> = Box<dyn Iterator<Item = Result<UsageRow, io::Error>> + 'a>;

/// What a row says, in few bytes: its facts without its price, and with the price that it brings.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Print([u8; 16]);

/// What is known of the id of a row.
struct Known {
    line: u32,
    print: Print,
    is_priced: bool,
    is_there: bool,
}

impl Ledger {
    /// Writes the usage records of a file if no row is bad and `mode` says so. `open` gives its rows from
    /// the beginning and is called twice. A record that is there with the same content is counted, one
    /// with other content is bad. Blocks: not for an async thread.
    pub fn import_usage<'a>(
        &self,
        open: &dyn Fn() -> io::Result<UsageRows<'a>>,
        head: &ImportHead,
        mode: Mode,
        clock: &dyn Clock,
    ) -> Result<Imported, ImportError> {
        let _guard = self.importing();
        let mut imported = Imported::default();
        let mut known = check_rows(open().map_err(ImportError::File)?, &mut imported)?;
        self.compare_with_records(&mut known, &mut imported)?;
        imported.errors.sort_by_key(|error| error.line);
        imported.errors.truncate(ERRORS_MAX);
        imported.same = known.values().filter(|row| row.is_there).count() as u64;
        imported.new_records = (known.len() as u64).saturating_sub(imported.same);
        if mode == Mode::Apply && imported.errors.is_empty() && imported.new_records > 0 {
            let noted = self.note_import(head, &imported, clock)?;
            let written = self.write_rows(open().map_err(ImportError::File)?, &known)?;
            imported.written = Some(noted.max(written));
        }
        Ok(imported)
    }

    /// Finds the records that are there already.
    fn compare_with_records(
        &self,
        known: &mut HashMap<RequestId, Known>,
        imported: &mut Imported,
    ) -> Result<(), ImportError> {
        let Some((least, greatest)) = known.keys().min().copied().zip(known.keys().max().copied()) else {
            return Ok(());
        };
        let mut found: Vec<(RequestId, Print)> = Vec::new();
        let view = self.inner.shared.view();
        // Where only totals are kept, nothing tells whether a record is there: it would count twice.
        for roll in view.rolled.iter().filter(|roll| roll.header.records > 0) {
            let ranges = &roll.header.ranges;
            for (id, row) in known.iter() {
                if (ranges.id_min..=ranges.id_max).contains(&id.bits()) {
                    note(&mut imported.errors, row.line.into(), || {
                        format!(
                            "of requests of that time only hourly totals are kept here, so nobody can tell whether \
                             record {id} is among them: leave it out (--from, --to)"
                        )
                    });
                }
            }
        }
        let wanted = |id: RequestId| known.contains_key(&id);
        each_wanted_record(&view, least..=greatest, wanted, |record| {
            let is_priced = known.get(&record.id).is_some_and(|row| row.is_priced);
            found.push((record.id, print(&record, is_priced)));
        })?;
        for (id, there) in found {
            let Some(row) = known.get_mut(&id) else { continue };
            row.is_there = true;
            if row.print != there {
                note(&mut imported.errors, row.line.into(), || {
                    format!(
                        "record {id} is in the ledger with other content: give the new one an id of its own"
                    )
                });
            }
        }
        Ok(())
    }

    /// Writes the rows that are not there. Returns the last sequence.
    fn write_rows(&self, rows: UsageRows<'_>, known: &HashMap<RequestId, Known>) -> Result<u64, ImportError> {
        let mut waiting: VecDeque<Receipt> = VecDeque::new();
        let mut last = 0;
        // Most of the queue stays free for traffic.
        let waiting_max = (self.inner.shared.queue.capacity() / 4).clamp(1, WAITING_MAX);
        for row in rows {
            let UsageRow { line, what } = row.map_err(ImportError::File)?;
            let record = match what {
                RowWhat::Record(record) => record,
                RowWhat::Left(_) => continue,
                RowWhat::Bad(_) => return Err(ImportError::Changed { line }),
            };
            match known.get(&record.id) {
                Some(row) if row.print != print(&record, row.is_priced) => {
                    return Err(ImportError::Changed { line });
                }
                None => return Err(ImportError::Changed { line }),
                Some(row) if row.is_there => continue,
                Some(_) => {}
            }
            let mut next = Some(record);
            while let Some(record) = next.take() {
                if waiting.len() >= waiting_max
                    && let Some(receipt) = waiting.pop_front()
                {
                    last = last.max(sequence(receipt)?);
                }
                match self.append(record, Wait::Acknowledged) {
                    Ok(receipt) => waiting.push_back(receipt),
                    // Traffic has filled the queue: wait for one of ours, or give way for good.
                    Err(rejected) if rejected.reason == RejectReason::QueueFull && !waiting.is_empty() => {
                        next = Some(rejected.record);
                        if let Some(receipt) = waiting.pop_front() {
                            last = last.max(sequence(receipt)?);
                        }
                    }
                    Err(rejected) => return Err(ImportError::Rejected(rejected.reason)),
                }
            }
        }
        for receipt in waiting {
            last = last.max(sequence(receipt)?);
        }
        Ok(last)
    }
}

/// The place of a record that was written; zero where it was there already.
fn sequence(receipt: Receipt) -> Result<u64, ImportError> {
    match receipt.wait()? {
        Appended::Recorded { sequence } => Ok(sequence),
        Appended::AlreadyThere | Appended::Queued => Ok(0),
    }
}

/// Keeps an error, unless there are enough.
fn note(errors: &mut Vec<RowError>, line: u64, problem: impl FnOnce() -> String) {
    if errors.len() < ERRORS_MAX {
        errors.push(RowError { line, problem: problem() });
    }
}

fn check_rows(
    rows: UsageRows<'_>,
    imported: &mut Imported,
) -> Result<HashMap<RequestId, Known>, ImportError> {
    let mut known: HashMap<RequestId, Known> = HashMap::new();
    for row in rows {
        let UsageRow { line, what } = row.map_err(ImportError::File)?;
        imported.rows = imported.rows.saturating_add(1);
        let record = match what {
            RowWhat::Record(record) => record,
            RowWhat::Left(reason) => {
                let count = imported.left.entry(reason).or_default();
                *count = count.saturating_add(1);
                continue;
            }
            RowWhat::Bad(problem) => {
                note(&mut imported.errors, line, || problem);
                continue;
            }
        };
        if known.len() >= USAGE_ROWS_MAX {
            return Err(ImportError::TooManyRows);
        }
        match known.entry(record.id) {
            Entry::Occupied(earlier) => note(&mut imported.errors, line, || {
                let earlier = earlier.get().line;
                format!("id {} is on line {earlier} too: an id names one request", record.id)
            }),
            Entry::Vacant(place) => {
                let is_priced = record.cost.is_some();
                let print = print(&record, is_priced);
                let line = u32::try_from(line).unwrap_or(u32::MAX);
                place.insert(Known { line, print, is_priced, is_there: false });
            }
        }
    }
    Ok(known)
}

/// What a record says, as it is exported: two that export the same say the same. What the ledger adds on
/// its own (a mark by comparing costs, and the cost of a row that brings none) is left out.
fn print(record: &UsageRecord, is_priced: bool) -> Print {
    let mut record = record.clone();
    bound(&mut record);
    if !is_priced {
        record.cost = None;
    }
    let mut kept = Anomalies::default();
    record
        .anomalies
        .iter()
        .filter(|anomaly| *anomaly != Anomaly::ProviderCostDiffers)
        .for_each(|a| kept.insert(a));
    record.anomalies = kept;
    if let Some(raw) = record.usage_raw.take() {
        let told = serde_json::from_str::<serde_json::Value>(&raw);
        record.usage_raw = Some(told.map_or(raw, |value| value.to_string().into()));
    }
    let stored = StoredRecord { ledger: LedgerId::from_bits(0), sequence: 0, record, counted: true };
    // A record that cannot be written as JSON is no two records' text.
    let text = record_json(&stored).unwrap_or_else(|_| format!("{stored:?}"));
    let hash = blake3::hash(text.as_bytes());
    Print(hash.as_bytes().first_chunk().copied().unwrap_or_default())
}
