//! A ledger that no process is using, opened for reading.
//!
//! Invariants
//! - Nothing in the journal is changed.
//! - The derived database answers only where it includes exactly what the journal holds, by sequence and
//!   chain hash, and every row of it was checked; else the records do.
//! - The database writes files of its own even when it is only read, so it is left alone where these would
//!   not belong to whoever runs the sidecar.
//!
//! Not here: what is answered (`query`), ledgers that are written (`Ledger`).

use crate::guard::DirectoryLock;
use crate::journal::View;
use crate::journal::find::TornTail;
use crate::journal::segment::Check;
use crate::query::{RollupSource, groupings_of_records};
use crate::rollup::{Hour, Totals};
use crate::store::{Store, StoreError};
use crate::{
    DirectoryError, GrainRow, GroupKey, Hourly, OpenError, QueryError, ReadFrom, RecordRange, Records,
    UsageQuery, UsageReport, open, query,
};
use bursar_domain::LedgerId;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A ledger that no process is using, opened for reading. Nothing in its journal is changed.
#[derive(Debug)]
pub struct OfflineLedger {
    view: View,
    torn_tail: Option<TornTail>,
    database: PathBuf,
    /// Opened when it is first of use; `None` inside where it is of none.
    store: OnceLock<Option<Store>>,
    _lock: DirectoryLock,
}

impl OfflineLedger {
    /// Opens the ledger in `dir` and keeps it locked. `DirectoryError::InUse` names the process that
    /// has it open: ask its admin API instead.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let (lock, found) = open::open_offline(dir)?;
        let torn_tail = found.tail.clone();
        let no_ledger = || DirectoryError::NoLedger { path: dir.to_owned() };
        let view = open::view_of(found).ok_or_else(no_ledger)?;
        let database = open::store_dir(dir);
        Ok(Self { view, torn_tail, database, store: OnceLock::new(), _lock: lock })
    }

    /// The same ledger, answering from its records alone.
    #[must_use]
    pub fn from_records(mut self) -> Self {
        self.close_store();
        self.store = OnceLock::from(None);
        self
    }

    /// The ledger's id.
    #[must_use]
    pub fn id(&self) -> LedgerId {
        self.view.ledger
    }

    /// The last sequence; 0 when there is none.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.view.last_sequence()
    }

    /// An end torn by a crash, which is not read and which the next start will cut.
    #[must_use]
    pub fn torn_tail(&self) -> Option<&TornTail> {
        self.torn_tail.as_ref()
    }

    /// Answers a question about usage.
    pub fn usage(&self, query: &UsageQuery) -> Result<UsageReport, QueryError> {
        query::usage(self, query)
    }

    /// Answers a question about usage with two lists of keys.
    pub(crate) fn usage_twice(
        &self,
        query: &UsageQuery,
        groupings: [Vec<GroupKey>; 2],
    ) -> Result<[UsageReport; 2], QueryError> {
        let [one, other] = &groupings;
        let one = query::from_rollups(self, &query.by(one.clone()))?;
        let other = query::from_rollups(self, &query.by(other.clone()))?;
        match (one, other) {
            (Some(one), Some(other)) => Ok([one, other]),
            _ => groupings_of_records(self.records(query.range()), query, groupings, self.last_sequence()),
        }
    }

    /// Usage by the query's keys and by day, or by hour where `hourly` says so of a row's values. Filters
    /// are not looked at.
    pub fn usage_by_grain(
        &self,
        query: &UsageQuery,
        hourly: &Hourly<'_>,
    ) -> Result<(Vec<GrainRow>, ReadFrom), QueryError> {
        query::by_grain(self, query, hourly)
    }

    /// The records in `range`, in sequence.
    #[must_use]
    pub fn records(&self, range: RecordRange) -> Records {
        Records::new(&self.view, range, Check::Checksums)
    }

    pub(crate) fn journal(&self) -> &View {
        &self.view
    }

    fn close_store(&mut self) {
        if let Some(store) = self.store.take().flatten() {
            store.discard();
        }
    }

    fn store(&self) -> Option<&Store> {
        self.store.get_or_init(|| current_store(&self.database, &self.view)).as_ref()
    }
}

impl Drop for OfflineLedger {
    fn drop(&mut self) {
        self.close_store();
    }
}

impl RollupSource for OfflineLedger {
    fn view(&self) -> View {
        self.view.clone()
    }

    fn scan_rollups(
        &self,
        from: Option<Hour>,
        to: Option<Hour>,
        each: &mut dyn FnMut(&[u8], &Totals),
    ) -> Option<Result<u64, StoreError>> {
        let store = self.store()?;
        Some(store.scan(from, to, each).map(|()| self.last_sequence()))
    }

    fn give_up(&self, error: &StoreError) {
        tracing::debug!(%error, "usage is read from records");
    }
}

/// The database in `dir` if it is ours and includes just what the journal holds.
fn current_store(dir: &Path, view: &View) -> Option<Store> {
    let owner = std::fs::metadata(dir).ok().filter(std::fs::Metadata::is_dir)?.uid();
    if owner != rustix::process::geteuid().as_raw() {
        return None;
    }
    match Store::open(dir, view.ledger) {
        Ok(store) if store.watermark() == (view.last_sequence(), view.hash()) => Some(store),
        Ok(store) => {
            store.discard();
            None
        }
        Err(error) => {
            tracing::debug!(%error, "usage is read from records");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::plain_record;
    use crate::{Ledger, Options, Wait};
    use bursar_domain::{Cost, Currency, SystemClock, UsageRecord};
    use std::sync::Arc;

    fn write(dir: &Path, records: std::ops::Range<u64>) {
        let pricer = Arc::new(|_: &UsageRecord| Cost::unpriced(Currency::USD));
        let (ledger, _) = Ledger::open(Options::new(dir), Arc::new(SystemClock), pricer).unwrap();
        for number in records {
            ledger.append(ledger.boxed(plain_record(number)), Wait::No).unwrap();
        }
        ledger.close().unwrap();
    }

    fn by_team() -> UsageQuery {
        UsageQuery { by: vec![GroupKey::Team], ..UsageQuery::default() }
    }

    #[test]
    fn a_database_that_includes_everything_answers_as_the_records_do() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 0..50);
        let from_rollups = OfflineLedger::open(dir.path()).unwrap().usage(&by_team()).unwrap();
        assert_eq!(from_rollups.read_from, ReadFrom::Rollups);
        let from_records = OfflineLedger::open(dir.path()).unwrap().from_records().usage(&by_team()).unwrap();
        assert_eq!(from_records.read_from, ReadFrom::Records);
        assert_eq!(from_rollups.rows, from_records.rows);
    }

    #[test]
    fn a_database_that_is_behind_damaged_or_missing_is_not_asked() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 0..50);
        let early = tempfile::tempdir().unwrap();
        copy(&dir.path().join("store"), early.path());
        write(dir.path(), 50..60);
        let answer = || {
            let report = OfflineLedger::open(dir.path()).unwrap().usage(&by_team()).unwrap();
            (report.read_from, report.totals.requests)
        };
        assert_eq!(answer(), (ReadFrom::Rollups, 60));
        let store = dir.path().join("store");
        std::fs::remove_dir_all(&store).unwrap();
        assert_eq!(answer(), (ReadFrom::Records, 60));
        assert!(!store.exists(), "it is not made by reading");
        std::fs::create_dir(&store).unwrap();
        copy(early.path(), &store);
        assert_eq!(answer(), (ReadFrom::Records, 60), "the database of 50 records");
        std::fs::write(store.join("db"), b"no database").unwrap();
        assert_eq!(answer(), (ReadFrom::Records, 60));
    }

    fn copy(from: &Path, to: &Path) {
        for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            let target = to.join(entry.file_name());
            if entry.path().is_dir() {
                std::fs::create_dir(&target).unwrap();
                copy(&entry.path(), &target);
            } else {
                std::fs::copy(entry.path(), target).unwrap();
            }
        }
    }
}
