//! The ledger: what was used, written once, kept safe, and added up.
//!
//! An append-only, checksummed, hash-chained journal is the truth; an embedded database derived from
//! it answers reports. One writer thread owns both; producers push records into a bounded queue and
//! never block.
//!
//! ```
//! # use bursar_domain::{SystemClock, UsageRecord, Cost, Currency};
//! # use bursar_ledger::{Ledger, Options, UsageQuery};
//! # use std::sync::Arc;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let pricer = Arc::new(|_: &UsageRecord| Cost::unpriced(Currency::USD));
//! let (ledger, report) = Ledger::open(Options::new(dir.path()), Arc::new(SystemClock), pricer)?;
//! assert!(report.created);
//! assert_eq!(ledger.usage(&UsageQuery::default())?.totals.requests, 0);
//! ledger.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! Invariants
//! - What was acknowledged survives as its `Durability` says, exactly once.
//! - Only `store` names the embedded database.
//!
//! Not here: prices and rules (`bursar-policies`), the network (`bursar`).

mod ack;
mod audit;
mod backup;
mod batch;
mod checking;
mod codec;
mod disk;
pub mod export;
mod facts;
pub mod focus;
mod formats;
mod guard;
pub mod hedge;
mod journal;
mod offline;
mod open;
mod opening;
mod overrides;
pub mod periods;
mod place;
pub mod postings;
mod query;
mod queue;
mod repair;
mod retention;
mod revenue;
pub mod roi;
mod rollup;
mod room;
mod seen;
mod settle;
mod ship;
#[cfg(any(test, feature = "simulated-disk"))]
mod simulated;
mod store;
mod verify;
mod writer;

pub use ack::{Appended, NotRecorded, Receipt};
pub use audit::{Actor, Audited, audited};
pub use backup::{Copied, CopyError, backup, restore};
pub use codec::{DecodeError, RecordKind};
pub use facts::{FACTS_PER_IMPORT_MAX, FactError, NewFact};
pub use formats::{FORMATS, Formats};
pub use guard::DirectoryError;
pub use journal::Damage;
pub use journal::find::TornTail;
pub use journal::read::{InterruptedRequest, Pruned, ReadError, RecordRange, Records, StoredRecord};
pub use offline::OfflineLedger;
pub use open::{OpenError, OpenReport, Progress, ProgressFn, StoreState};
pub use opening::{OpenSlot, Opening};
pub use overrides::{NewOverride, REASON_BYTES_MAX, StoredOverride, overrides};
pub use place::{NoPlace, Place};
pub use query::{
    Filter, GrainRow, GroupKey, Hourly, KeyValue, QueryError, ROWS_MAX, ReadFrom, UsageQuery, UsageReport,
    UsageRow,
};
pub use repair::{Break, Gap, RepairError, Repaired, repair};
pub use retention::{DETAIL_DAYS_MIN, Kept, PruneAsk, PruneError, PruneReport, Retention};
pub use revenue::{RevenueImported, revenue_events};
pub use rollup::{MoneySum, MoneyTotals, Totals};
pub use settle::{Caller, Observer, Pricer, USAGE_RAW_BYTES_MAX};
pub use ship::{Shipped, Shipper};
#[cfg(feature = "simulated-disk")]
pub use simulated::SimulatedDisk;
pub use verify::{StoreCheck, Verified, VerifyError, verify};
pub use writer::{Durability, Health};

use bursar_domain::{BatchFacts, Clock, LedgerId, UsageRecord};
use disk::{Disk, RealDisk};
use guard::DirectoryLock;
use journal::segment::Check;
use retention::{Keeper, Pruner};
use room::Room;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use writer::{Entry, Parts, Refusal, Settings, Shared, Writer};

/// How a ledger is opened.
#[derive(Clone)]
pub struct Options {
    /// The data directory; made when it is not there.
    pub dir: PathBuf,
    /// When a record is acknowledged.
    pub durability: Durability,
    /// Most records that wait for the writer. A full queue refuses.
    pub queue_entries_max: usize,
    /// How long a group waits for more records (in `group` and `relaxed`).
    pub group_delay: Duration,
    /// Most records of one group.
    pub group_records_max: usize,
    /// Size of a journal segment; at least 4 KiB.
    pub segment_bytes: u64,
    /// Called while a long opening goes on.
    pub on_progress: Option<ProgressFn>,
    /// Told of every record as it is settled, or lost.
    pub observer: Option<Arc<dyn Observer>>,
    /// How long single records are kept. `None`: for ever.
    pub retention: Option<Retention>,
    /// Most bytes that all files in the data directory may take. `None`: all that there is.
    pub bytes_max: Option<u64>,
}

impl Options {
    /// The defaults, for `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            durability: Durability::Group,
            queue_entries_max: 65_536,
            group_delay: Duration::from_millis(5),
            group_records_max: 4_096,
            segment_bytes: 64 << 20,
            on_progress: None,
            observer: None,
            retention: None,
            bytes_max: None,
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            durability: self.durability,
            group_delay: self.group_delay,
            group_records_max: self.group_records_max.clamp(1, 65_536),
            queue_entries_max: self.queue_entries_max,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("dir", &self.dir)
            .field("durability", &self.durability)
            .field("segment_bytes", &self.segment_bytes)
            .finish_non_exhaustive()
    }
}

/// Whether the producer wants to know when its record is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// No: the receipt is ready at once, with `Appended::Queued`.
    No,
    /// Yes: the receipt is ready when the record is as durable as the ledger promises.
    Acknowledged,
}

/// A record that was not taken, with the reason.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Rejected {
    /// The record.
    pub record: Box<UsageRecord>,
    /// Why.
    pub reason: RejectReason,
}

/// Why a record was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RejectReason {
    /// The queue is full.
    #[error("the ledger's queue is full")]
    QueueFull,
    /// The journal failed; nothing is acknowledged until a restart.
    #[error("the journal failed and takes no record until a restart")]
    JournalFailed,
    /// The ledger is being closed.
    #[error("the ledger is closed")]
    Closed,
}

impl From<Refusal> for RejectReason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full => Self::QueueFull,
            Refusal::Failed => Self::JournalFailed,
            Refusal::Closed => Self::Closed,
        }
    }
}

/// Why closing was not clean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseError {
    /// Records in the queue could not be written.
    #[error("the journal failed: {records} records were not written")]
    NotWritten {
        /// Records that the ledger did not take or could not write, since it was opened.
        records: u64,
    },
}

/// Figures about a running ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// The ledger's id.
    pub ledger: LedgerId,
    /// The last acknowledged sequence.
    pub last_sequence: u64,
    /// Records waiting for the writer.
    pub queue_entries: usize,
    /// Most that may wait.
    pub queue_entries_max: usize,
    /// Records taken into the queue since the ledger was opened.
    pub appended: u64,
    /// Records acknowledged since then.
    pub acknowledged: u64,
    /// Records that were there already.
    pub repeated: u64,
    /// Of these, records that said something else than the one with their id.
    pub conflicting: u64,
    /// Records refused or lost.
    pub dropped: u64,
    /// Exchanges that are in the journal and have no record yet.
    pub open: u64,
    /// Exchanges that were not written down before they were sent, for want of room.
    pub openings_shed: u64,
    /// Frames written.
    pub frames: u64,
    /// Records whose provider charged something else than their list cost, since it was opened.
    pub provider_cost_differs: u64,
    /// How long the last frame took to be as durable as promised, in microseconds.
    pub last_commit_us: u64,
    /// Bytes of the journal, without zeros ahead.
    pub journal_bytes: u64,
    /// Bytes of all files in the data directory, as of the last look and what the journal wrote since.
    pub data_bytes: u64,
    /// Most that they may be, if that is bounded.
    pub bytes_max: Option<u64>,
    /// Segments of the journal that have their records.
    pub segments: u64,
    /// Segments of which only hourly totals are left.
    pub rolled_segments: u64,
    /// Their records.
    pub rolled_records: u64,
    /// The last error, if any since the ledger was opened.
    pub last_error: Option<String>,
    /// Whether the ledger does what it promises.
    pub health: Health,
}

/// An open ledger. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Ledger {
    inner: Arc<Inner>,
    /// On whose behalf it is changed through this handle.
    actor: Option<Arc<Actor>>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<Result<(), NotRecorded>>>>,
    pruner: Arc<Pruner>,
    keeper: Mutex<Option<Keeper>>,
    /// Checks the store's rows.
    checker: Mutex<Option<JoinHandle<()>>>,
    _lock: DirectoryLock,
}

impl Ledger {
    /// Opens the ledger in `options.dir`, making it when there is none, and starts its writer.
    pub fn open(
        options: Options,
        clock: Arc<dyn Clock>,
        pricer: Arc<dyn Pricer>,
    ) -> Result<(Self, OpenReport), OpenError> {
        Self::open_on(Arc::new(RealDisk), options, clock, pricer)
    }

    pub(crate) fn open_on(
        disk: Arc<dyn Disk>,
        options: Options,
        clock: Arc<dyn Clock>,
        pricer: Arc<dyn Pricer>,
    ) -> Result<(Self, OpenReport), OpenError> {
        let settings = options.settings();
        let observer = options.observer.clone();
        let retention = options.retention;
        let opened = open::open(&open::Request {
            dir: &options.dir,
            segment_bytes: options.segment_bytes,
            disk: disk.clone(),
            clock: clock.as_ref(),
            progress: options.on_progress.as_ref(),
        })?;
        let open::Opened { lock, mut journal, store, is_checked, recent, interrupted, facts, report } =
            opened;
        let room = Arc::new(Room::new(&options.dir, options.bytes_max));
        journal.keep_within(room.clone());
        let shared = Arc::new(Shared::new(settings.queue_entries_max, journal.view(), store, room));
        shared.facts.begin_with(facts);
        if let StoreState::Unavailable { reason } = &report.store {
            shared.note_store_trouble(reason);
        }
        if retention.is_some() {
            journal.limit_age(retention::SEGMENT_AGE_MICROS_MAX);
        }
        let checker = if is_checked {
            None
        } else {
            let checker = checking::start(&shared, open::store_dir(&options.dir), journal.view());
            Some(
                checker
                    .map_err(|source| OpenError::System { operation: "start the checking thread", source })?,
            )
        };
        let pruner = Arc::new(Pruner::new(shared.clone(), disk, &options.dir, clock.clone()));
        let parts = Parts { journal, recent, clock, pricer, observer };
        let writer = Writer::new(shared.clone(), settings, parts);
        let thread = std::thread::Builder::new()
            .name("bursar-ledger".to_owned())
            .spawn(move || writer::run(writer, interrupted))
            .map_err(|source| OpenError::System { operation: "start the ledger's thread", source })?;
        let thread = Mutex::new(Some(thread));
        let (keeper, checker) = (Mutex::new(None), Mutex::new(checker));
        let inner = Inner { shared, thread, pruner, keeper, checker, _lock: lock };
        if let Some(retention) = retention {
            let keeper = Keeper::start(inner.pruner.clone(), retention);
            let keeper = keeper
                .map_err(|source| OpenError::System { operation: "start the pruning thread", source })?;
            *inner.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
        }
        Ok((Self { inner: Arc::new(inner), actor: None }, report))
    }

    /// Puts a record where `append` takes it from, in memory that was used before if there is some.
    #[must_use]
    pub fn boxed(&self, record: UsageRecord) -> Box<UsageRecord> {
        match self.inner.shared.spent.pop() {
            Some(mut spent) => {
                *spent = record;
                spent
            }
            None => Box::new(record),
        }
    }

    /// Gives a record to the writer. Never blocks; a record that is not taken comes back.
    ///
    /// Idempotent by id: a record whose id is there already changes nothing, and is an error
    /// ([`NotRecorded::Conflict`]) if it says anything else than the one that is there.
    pub fn append(&self, record: Box<UsageRecord>, wait: Wait) -> Result<Receipt, Rejected> {
        self.append_entry(record, None, None, wait)
    }

    /// The same for a call about a batch. The writer leaves in the record what was not counted by an
    /// earlier one, and gives it to whoever made the batch.
    pub fn append_batch(
        &self,
        record: Box<UsageRecord>,
        facts: Box<BatchFacts>,
        wait: Wait,
    ) -> Result<Receipt, Rejected> {
        self.append_entry(record, Some(facts), None, wait)
    }

    /// The same for a record of this process's own traffic, with what its observer is told besides.
    pub fn append_for(
        &self,
        record: Box<UsageRecord>,
        facts: Option<Box<BatchFacts>>,
        caller: Caller,
        wait: Wait,
    ) -> Result<Receipt, Rejected> {
        self.append_entry(record, facts, Some(caller), wait)
    }

    fn append_entry(
        &self,
        record: Box<UsageRecord>,
        batch: Option<Box<BatchFacts>>,
        caller: Option<Caller>,
        wait: Wait,
    ) -> Result<Receipt, Rejected> {
        let (ack, receipt) = match wait {
            Wait::No => (None, Receipt::queued()),
            Wait::Acknowledged if cfg!(feature = "break-acknowledge-early") => (None, Receipt::queued()),
            Wait::Acknowledged => {
                let (ack, receipt) = ack::pair();
                (Some(ack), receipt)
            }
        };
        match self.inner.shared.push(Entry { record, batch, caller, ack }) {
            Ok(()) => Ok(receipt),
            Err((refusal, entry)) => Err(Rejected { record: entry.record, reason: refusal.into() }),
        }
    }

    /// States that the request of an exchange is about to be sent. If the process then ends in any way
    /// before the exchange has its record, the next open settles it as interrupted, once.
    ///
    /// Never blocks. The opening is written with the second group after it, some milliseconds later (in
    /// `sync`, at once); one that has ended by then is not written at all. A receipt that is waited for is
    /// ready when the opening is as durable as the ledger promises.
    pub fn opening(&self, opening: Opening, wait: Wait) -> (OpenSlot, Receipt) {
        let (ack, receipt) = match wait {
            Wait::No => (None, Receipt::queued()),
            Wait::Acknowledged => {
                let (ack, receipt) = ack::pair();
                (Some(ack), receipt)
            }
        };
        let shared = &self.inner.shared;
        if shared.refusal().is_some() {
            // The receipt says so: its other end is dropped.
            return (OpenSlot::none(opening.id), receipt);
        }
        let slot = shared.openings.put(opening, ack);
        shared.call_writer();
        (slot, receipt)
    }

    /// The exchange has ended: call this just before its record is appended, and not without doing that.
    pub fn closing(&self, slot: OpenSlot) {
        self.inner.shared.openings.close(slot);
    }

    /// Keeps a place in the queue for a record that is still to come: as long as all producers do so, none
    /// of their records is refused for a full queue.
    pub fn reserve(&self) -> Result<Place, NoPlace> {
        Place::reserve(&self.inner.shared)
    }

    /// Whether the journal cannot be written now: records wait in memory, or are refused. Costs a load.
    #[must_use]
    pub fn is_troubled(&self) -> bool {
        self.inner.shared.is_troubled()
    }

    /// Another bound of the bytes in the data directory, from now on. Writing goes on by itself where it waited
    /// for room and there is some now.
    pub fn limit_bytes(&self, bytes_max: Option<u64>) {
        self.inner.shared.room.limit(bytes_max);
        self.inner.shared.wake();
    }

    /// Answers a question about usage. Every record acknowledged before the call is in the answer.
    /// Reads files: not for an async thread.
    pub fn usage(&self, query: &UsageQuery) -> Result<UsageReport, QueryError> {
        query::usage(&*self.inner.shared, query)
    }

    /// Usage by the query's keys and by day, or by hour where `hourly` says so of a row's values. Filters
    /// are not looked at.
    pub fn usage_by_grain(
        &self,
        query: &UsageQuery,
        hourly: &Hourly<'_>,
    ) -> Result<(Vec<GrainRow>, ReadFrom), QueryError> {
        query::by_grain(&*self.inner.shared, query, hourly)
    }

    /// The acknowledged records in `range`, in sequence, while writing goes on. Reads files: not for
    /// an async thread.
    #[must_use]
    pub fn records(&self, range: RecordRange) -> Records {
        Records::new(&self.inner.shared.view(), range, Check::Checksums)
    }

    /// The interrupted requests that began in `range` and for which budgets held something: what they used
    /// is not known, only that it was no more. Reads the reservations beside the records: not for an async
    /// thread.
    pub fn interrupted(&self, range: RecordRange) -> Result<Vec<InterruptedRequest>, ReadError> {
        journal::read::interrupted(&self.inner.shared.view(), range)
    }

    /// Waits until everything that was queued before the call is durable and in what usage is answered from:
    /// the embedded database or, while its rows are still checked, memory. Blocks: not for an async thread.
    pub fn checkpoint(&self) -> Result<(), NotRecorded> {
        self.inner.shared.ask_checkpoint().wait().map(|_| ())
    }

    /// Rolls up and removes whole segments whose records all began, and were written, before `ask` says.
    /// Blocks, and reads files: not for an async thread.
    pub fn prune(&self, ask: &PruneAsk) -> Result<PruneReport, PruneError> {
        self.inner.pruner.prune(ask, |clock| self.note_of_beginning(clock))
    }

    /// The ledger's id.
    #[must_use]
    pub fn id(&self) -> LedgerId {
        self.inner.shared.view().ledger
    }

    /// Figures for metrics and health checks.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &self.inner.shared;
        let view = shared.view();
        let counters = &shared.counters;
        Stats {
            ledger: view.ledger,
            last_sequence: view.last_sequence(),
            queue_entries: shared.queue.len(),
            queue_entries_max: shared.queue.capacity(),
            appended: counters.appended.load(Ordering::Relaxed),
            acknowledged: counters.acknowledged.load(Ordering::Relaxed),
            repeated: counters.repeated.load(Ordering::Relaxed),
            conflicting: counters.conflicting.load(Ordering::Relaxed),
            dropped: counters.dropped.load(Ordering::Relaxed),
            open: shared.open_in_journal.load(Ordering::Relaxed) as u64,
            openings_shed: shared.openings.shed(),
            frames: counters.frames.load(Ordering::Relaxed),
            provider_cost_differs: counters.provider_cost_differs.load(Ordering::Relaxed),
            last_commit_us: counters.last_commit_us.load(Ordering::Relaxed),
            journal_bytes: view.bytes(),
            data_bytes: shared.room.bytes(),
            bytes_max: shared.room.bytes_max(),
            segments: view.segments().count() as u64,
            rolled_segments: view.rolled.len() as u64,
            rolled_records: view.rolled.iter().fold(0, |sum, roll| sum.saturating_add(roll.header.records)),
            last_error: shared.last_error(),
            health: shared.health(),
        }
    }

    /// Writes what is queued, makes all of it durable and stops the writer. Other clones refuse from
    /// now on; the directory is free once all are gone. Blocks: not for an async thread.
    pub fn close(self) -> Result<(), CloseError> {
        self.inner.stop()
    }
}

impl Inner {
    fn stop(&self) -> Result<(), CloseError> {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        let stopped = self.stop_writer();
        // It may be waiting for the writer, which has answered now.
        drop(keeper);
        let checker = self.checker.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It holds the store's files. A panic in it was told of.
        let _ = checker.map(JoinHandle::join);
        stopped
    }

    fn stop_writer(&self) -> Result<(), CloseError> {
        self.pruner.stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return Ok(()) };
        self.shared.ask_close(thread.thread());
        match thread.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                Err(CloseError::NotWritten { records: self.shared.counters.dropped.load(Ordering::Relaxed) })
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Nobody is left to be told; `close` is for those who want to know.
        let _ = self.stop();
    }
}

#[cfg(test)]
mod ends;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod recovery;
