//! Imports of usage: records that something else metered.
//!
//! Invariants
//! - Records are compared with those that are there before one is written: a bad file writes nothing.
//! - An import that was cut short can be repeated: what is there already is left as it is.
//!
//! Not here: what a file says (`bursar`), what a record costs (`settle`).

use super::import::{ERRORS_MAX, ImportError, ImportHead, Imported, Mode, RowError};
use crate::journal::read::find_records;
use crate::settle::says_the_same;
use crate::{Appended, Ledger, NotRecorded, Receipt, RejectReason, Wait};
use bursar_domain::{Clock, RequestId, UsageRecord};
use std::collections::{HashMap, HashSet, VecDeque};

/// Most records that wait for the writer at once.
const WAITING_MAX: usize = 1_024;

impl Ledger {
    /// Writes usage records, each with the line it comes from, if none is bad and `mode` says so; one
    /// that is there with the same content is counted, with other content is bad. Blocks: not for an
    /// async thread.
    pub fn import_usage(
        &self,
        records: Vec<(u64, Box<UsageRecord>)>,
        head: &ImportHead,
        mode: Mode,
        clock: &dyn Clock,
    ) -> Result<Imported, ImportError> {
        let _guard = self.importing();
        let mut imported = Imported { rows: records.len() as u64, ..Imported::default() };
        let ids: HashSet<RequestId> = records.iter().map(|(_, record)| record.id).collect();
        let there = find_records(&self.inner.shared.view(), &ids)?;
        let mut first: HashMap<RequestId, u64> = HashMap::with_capacity(records.len());
        let mut fresh = Vec::new();
        for (line, record) in records {
            let mut bad = |problem: String| {
                if imported.errors.len() < ERRORS_MAX {
                    imported.errors.push(RowError { line, problem });
                }
            };
            if let Some(earlier) = first.insert(record.id, line) {
                bad(format!("id {} is on line {earlier} too: an id names one request", record.id));
                continue;
            }
            match there.get(&record.id) {
                Some(stored) if says_the_same(stored, &record) => {
                    imported.same = imported.same.saturating_add(1);
                }
                Some(_) => bad(format!(
                    "record {} is in the ledger with other content: give the new one an id of its own",
                    record.id
                )),
                None => fresh.push(record),
            }
        }
        imported.new_records = fresh.len() as u64;
        if mode == Mode::Apply && imported.errors.is_empty() && !fresh.is_empty() {
            self.write_all(fresh)?;
            imported.written = Some(self.note_import(head, &imported, clock)?);
        }
        Ok(imported)
    }

    fn write_all(&self, records: impl IntoIterator<Item = Box<UsageRecord>>) -> Result<(), ImportError> {
        let mut waiting: VecDeque<Receipt> = VecDeque::new();
        // Most of the queue stays free for traffic.
        let waiting_max = (self.inner.shared.queue.capacity() / 4).clamp(1, WAITING_MAX);
        let settle = |receipt: Receipt| receipt.wait().map(|_: Appended| ());
        for record in records {
            let mut next = Some(record);
            while let Some(record) = next.take() {
                if waiting.len() >= waiting_max
                    && let Some(receipt) = waiting.pop_front()
                {
                    settle(receipt)?;
                }
                match self.append(record, Wait::Acknowledged) {
                    Ok(receipt) => waiting.push_back(receipt),
                    // Traffic has filled the queue: wait for one of ours, or give way for good.
                    Err(rejected) if rejected.reason == RejectReason::QueueFull && !waiting.is_empty() => {
                        next = Some(rejected.record);
                        if let Some(receipt) = waiting.pop_front() {
                            settle(receipt)?;
                        }
                    }
                    Err(rejected) => return Err(ImportError::Rejected(rejected.reason)),
                }
            }
        }
        waiting.into_iter().try_for_each(settle).map_err(|error: NotRecorded| error.into())
    }
}
