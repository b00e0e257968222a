//! The single writer: it takes records from the queue in groups, settles them, writes each group as
//! one frame, makes it durable, acknowledges, and keeps the rollups up to date.
//!
//! Invariants
//! - A producer never blocks: it pushes, and wakes the writer only if that is asleep.
//! - A record is acknowledged after its frame is as durable as promised, and is in every later query.
//! - Records of one frame are settled in the order of the queue; sequences have no gaps.
//! - A failed write (a full disk, or no room within the bound) is tried again, in a new segment, until it succeeds: the frame and
//!   the queue keep what came. After a failed sync nothing is acknowledged until a restart.
//! - The store receives only what the journal has made durable, every two seconds (or 100,000
//!   records, or 4,096 rows), and is flushed every five seconds and at the end.
//! - An exchange that is older than one group is written as a reservation, before any record of the group
//!   it is found in. One that was found open is settled as interrupted before anything else, once.
//! - Memory: `queue_entries_max` records (a record with its texts is about 1 KiB, so 64 MiB when the
//!   default queue is full, next to nothing when it is not), one frame of about 1 MiB twice over, and
//!   65,536 rollup rows at most.
//!
//! Not here: files (`journal`), rows (`store`), opening and closing (`lib`, `open`).

use crate::ack::{Ack, Appended, NotRecorded, Receipt};
use crate::batch::{self, Memory};
use crate::checking::Checked;
use crate::codec::{self, Encoder, Mark};
use crate::facts::FactQueue;
use crate::journal::read::{Frames, ReadError, each_fact, each_mark, find_ids, find_records};
use crate::journal::roll::Rolled;
use crate::journal::segment::Check;
use crate::journal::waypoint::Waypoint;
use crate::journal::{Frame, Journal, JournalError, Promise, View};
use crate::opening::{Opening, Openings, Take};
use crate::query::RollupSource;
use crate::queue::Queue;
use crate::rollup::{Dimensions, Hour, Rollups, Totals};
use crate::room::{Purse, Room};
use crate::seen::{RecentIds, Seen};
use crate::settle::{self, Caller, Counting, Observer, Pricer};
use crate::store::{Keys, Store, StoreError};
use bursar_domain::{BatchFacts, Clock, Identity, Metering, RequestId, UsageRecord};
use crossbeam_queue::ArrayQueue;
use foldhash::fast::RandomState;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::Thread;
use std::time::{Duration, Instant};

const FRAME_BYTES: usize = 1 << 20;
/// Reports add what is pending, so applying rarely costs nothing but a longer replay after a crash.
const APPLY_EVERY: Duration = Duration::from_secs(2);
const APPLY_RECORDS: u64 = 100_000;
const APPLY_ROWS: usize = 4_096;
/// More rows than this are never held back, whoever is reading the store.
const PENDING_ROWS_MAX: usize = 65_536;
const FLUSH_EVERY: Duration = Duration::from_secs(5);
/// Written records that are kept for producers, about 1 KiB each.
const SPENT_MAX: usize = 1_024;
/// Most exchanges that are written down as under way; some 50 bytes each. More are counted as shed.
const OPEN_MAX: usize = 1 << 20;
const SYNC_EVERY: Duration = Duration::from_secs(1);
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// When a record is acknowledged, and so what a crash can lose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// After its `fdatasync`, which begins as soon as the writer is free. Loses nothing acknowledged.
    Sync,
    /// The same, after waiting a few milliseconds for others to share the `fdatasync`. Loses nothing
    /// acknowledged; a producer that does not wait can lose the last few milliseconds.
    #[default]
    Group,
    /// After it was written. Survives `kill -9`; a power cut can lose the last second.
    Relaxed,
}

/// Whether the ledger does what it promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Healthy,
    /// It does not, for this reason.
    Degraded(String),
}

/// A record on its way to the writer.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) record: Box<UsageRecord>,
    /// What it says of a batch.
    pub(crate) batch: Option<Box<BatchFacts>>,
    /// What its observer is told besides.
    pub(crate) caller: Option<Caller>,
    pub(crate) ack: Option<Ack>,
}

/// How the writer works.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) durability: Durability,
    pub(crate) group_delay: Duration,
    pub(crate) group_records_max: usize,
    pub(crate) queue_entries_max: usize,
}

/// Counters that anybody may read.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) appended: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) repeated: AtomicU64,
    pub(crate) conflicting: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) frames: AtomicU64,
    pub(crate) provider_cost_differs: AtomicU64,
    pub(crate) last_commit_us: AtomicU64,
}

/// What the writer and everybody else share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) queue: Queue<Entry>,
    /// Exchanges that have no record yet and are not in the journal.
    pub(crate) openings: Openings,
    /// Exchanges that are in the journal and have no record yet.
    pub(crate) open_in_journal: AtomicUsize,
    /// Records that were written. Producers use their memory again, since memory that one thread
    /// takes and another frees is dear.
    pub(crate) spent: ArrayQueue<Box<UsageRecord>>,
    /// Places in the queue that are kept for records to come.
    pub(crate) reserved: AtomicUsize,
    pub(crate) counters: Counters,
    idle: AtomicBool,
    closing: AtomicBool,
    failed: AtomicBool,
    /// Whether there is `journal_trouble`, without its lock.
    troubled: AtomicBool,
    thread: OnceLock<Thread>,
    checkpoints: Mutex<Vec<Ack>>,
    checkpoint_wanted: AtomicBool,
    /// Finance facts on their way to the journal, and those that are there.
    pub(crate) facts: FactQueue,
    /// Rolls that are to take the place of their segments.
    rolls: Mutex<Vec<(Vec<Rolled>, Ack)>>,
    view: Mutex<View>,
    /// Acknowledged and not yet in the store.
    pending: Mutex<Rollups>,
    /// Held while the store is written or read, so that a reader sees every record once.
    store_gate: Mutex<()>,
    store: Mutex<Option<Arc<Store>>>,
    /// Whether the store's rows may be used.
    pub(crate) checked: Checked,
    /// What the directory takes and may take.
    pub(crate) room: Arc<Room>,
    journal_trouble: Mutex<Option<String>>,
    store_trouble: Mutex<Option<String>>,
    last_error: Mutex<Option<String>>,
}

/// Why a record was not taken into the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Full,
    Failed,
    Closed,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Shared ===

impl Shared {
    pub(crate) fn new(queue_entries_max: usize, view: View, store: Option<Store>, room: Arc<Room>) -> Self {
        Self {
            queue: Queue::new(queue_entries_max),
            openings: Openings::new(queue_entries_max),
            open_in_journal: AtomicUsize::new(0),
            spent: ArrayQueue::new(SPENT_MAX),
            reserved: AtomicUsize::new(0),
            counters: Counters::default(),
            idle: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            troubled: AtomicBool::new(false),
            thread: OnceLock::new(),
            checkpoints: Mutex::default(),
            checkpoint_wanted: AtomicBool::new(false),
            facts: FactQueue::default(),
            rolls: Mutex::default(),
            view: Mutex::new(view),
            pending: Mutex::default(),
            store_gate: Mutex::default(),
            store: Mutex::new(store.map(Arc::new)),
            checked: Checked::default(),
            room,
            journal_trouble: Mutex::default(),
            store_trouble: Mutex::default(),
            last_error: Mutex::default(),
        }
    }

    /// Why nothing is taken at all now, if nothing is.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        if self.failed.load(Ordering::Acquire) {
            Some(Refusal::Failed)
        } else if self.closing.load(Ordering::Acquire) {
            Some(Refusal::Closed)
        } else {
            None
        }
    }

    /// Whether the journal cannot be written now.
    pub(crate) fn is_troubled(&self) -> bool {
        self.troubled.load(Ordering::Acquire)
    }

    /// Why the journal cannot be written now.
    pub(crate) fn trouble(&self) -> Option<String> {
        lock(&self.journal_trouble).clone()
    }

    /// Puts a record into the queue. Never blocks.
    pub(crate) fn push(&self, entry: Entry) -> Result<(), (Refusal, Entry)> {
        let pushed = match self.refusal() {
            Some(refusal) => Err((refusal, entry)),
            None => self.queue.push(entry).map_err(|entry| (Refusal::Full, entry)),
        };
        if pushed.is_err() {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
            return pushed;
        }
        self.counters.appended.fetch_add(1, Ordering::Relaxed);
        self.call_writer();
        Ok(())
    }

    /// Wakes the writer if it sleeps. Called after there is something to do.
    pub(crate) fn call_writer(&self) {
        // Pairs with the fence in `Writer::rest`: either the writer sees what there is or we see it idle.
        fence(Ordering::SeqCst);
        if self.idle.load(Ordering::Relaxed) && self.idle.swap(false, Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Asks the writer to make everything queued so far durable, applied and flushed.
    pub(crate) fn ask_checkpoint(&self) -> Receipt {
        let (ack, receipt) = crate::ack::pair();
        // Under the lock: either the writer's last look finds it, or it is answered here.
        let mut checkpoints = lock(&self.checkpoints);
        if self.closing.load(Ordering::Acquire) {
            return receipt;
        }
        checkpoints.push(ack);
        drop(checkpoints);
        self.checkpoint_wanted.store(true, Ordering::Release);
        self.wake();
        receipt
    }

    /// Asks the writer to show readers the rolls instead of their segments. Whoever has the answer may
    /// remove those.
    pub(crate) fn ask_give_up(&self, rolled: Vec<Rolled>) -> Receipt {
        let (ack, receipt) = crate::ack::pair();
        let mut rolls = lock(&self.rolls);
        if self.closing.load(Ordering::Acquire) {
            return receipt;
        }
        rolls.push((rolled, ack));
        drop(rolls);
        // Looked at with the checkpoints, which are asked for as rarely.
        self.checkpoint_wanted.store(true, Ordering::Release);
        self.wake();
        receipt
    }

    /// Tells the writer, on its thread, to finish.
    pub(crate) fn ask_close(&self, thread: &Thread) {
        self.closing.store(true, Ordering::Release);
        thread.unpark();
    }

    /// There is no store from the beginning.
    pub(crate) fn note_store_trouble(&self, reason: &str) {
        *lock(&self.last_error) = Some(reason.to_owned());
        *lock(&self.store_trouble) = Some(format!("reports read the journal, slowly: {reason}"));
    }

    pub(crate) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    pub(crate) fn view(&self) -> View {
        lock(&self.view).clone()
    }

    /// Compares the store's rows with their checksum, while nobody else uses them.
    pub(crate) fn check_store(&self) -> Result<(), StoreError> {
        let store = lock(&self.store).clone();
        store.map_or(Ok(()), |store| store.check())
    }

    /// Closes the store. Another one is put in its place, or [`Shared::do_without_store`] follows.
    pub(crate) fn take_store_out(&self) {
        let taken = lock(&self.store).take();
        if let Some(store) = taken.and_then(Arc::into_inner) {
            store.discard();
        }
    }

    /// The store from now on.
    pub(crate) fn put_store_in(&self, store: Store) {
        *lock(&self.store) = Some(Arc::new(store));
    }

    /// There is no store until the next open.
    pub(crate) fn do_without_store(&self, reason: &str) {
        self.note_store_trouble(reason);
        lock(&self.pending).clear();
    }

    pub(crate) fn health(&self) -> Health {
        let journal = lock(&self.journal_trouble).clone();
        let reasons: Vec<String> = journal.into_iter().chain(lock(&self.store_trouble).clone()).collect();
        if reasons.is_empty() { Health::Healthy } else { Health::Degraded(reasons.join("; ")) }
    }

    pub(crate) fn last_error(&self) -> Option<String> {
        lock(&self.last_error).clone()
    }

    /// Whether nothing is acknowledged any more.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    fn latch(&self, reason: &str) {
        self.failed.store(true, Ordering::Release);
        self.troubled.store(true, Ordering::Release);
        *lock(&self.last_error) = Some(reason.to_owned());
        *lock(&self.journal_trouble) = Some(format!("nothing is acknowledged until a restart: {reason}"));
        tracing::error!(reason, "the journal acknowledges nothing until a restart");
    }

    fn degrade(&self, reason: &str) {
        let mut trouble = lock(&self.journal_trouble);
        if trouble.is_none() {
            tracing::error!(reason, "the journal cannot be written; trying again");
        }
        *trouble = Some(format!("records wait in memory: {reason}"));
        self.troubled.store(true, Ordering::Release);
        *lock(&self.last_error) = Some(reason.to_owned());
    }

    fn recover(&self) {
        if !self.has_failed() && self.is_troubled() && lock(&self.journal_trouble).take().is_some() {
            self.troubled.store(false, Ordering::Release);
            tracing::info!("the journal is written again");
        }
    }
}

/// The writer's own state. It lives on its thread.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    settings: Settings,
    journal: Journal,
    clock: Arc<dyn Clock>,
    pricer: Arc<dyn Pricer>,
    recent: RecentIds,
    /// Ids that count once and owners of batches, settled and not yet in the store.
    keys: Keys,
    /// All of them, read from the journal; only after the store was given up.
    all_keys: Option<Keys>,
    batch: Vec<Entry>,
    encoder: Encoder,
    frame: Frame,
    deltas: HashMap<DeltaKey, Totals, RandomState>,
    answers: Vec<(Ack, Appended)>,
    /// Records of this group whose ids are there already.
    repeats: Vec<Entry>,
    timers: Timers,
    /// Exchanges in the journal that have no record yet.
    open: HashSet<RequestId, RandomState>,
    /// Usage records of this frame.
    usage_records: u32,
    take: Take,
    /// Exchanges of an earlier run are being settled.
    is_recovering: bool,
    observer: Option<Arc<dyn Observer>>,
    /// Where the journal was when the store was last made equal to it.
    applied: Option<Waypoint>,
}

/// What a writer needs besides its settings.
pub(crate) struct Parts {
    pub(crate) journal: Journal,
    pub(crate) recent: RecentIds,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) pricer: Arc<dyn Pricer>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

#[derive(Debug, Default)]
struct Timers {
    pending_records: u64,
    pending_since: Option<Instant>,
    unsynced_since: Option<Instant>,
    unflushed_since: Option<Instant>,
}

/// A rollup's key by the numbers of its texts in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct DeltaKey {
    hour: Hour,
    texts: [u32; 7],
    outcome: u8,
    source: u8,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[expect(clippy::disallowed_methods, reason = "a plain thread: there is no tokio clock to ask")]
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}

/// Runs the writer to its end, beginning with the exchanges that were interrupted. Whatever happens,
/// nobody waits for ever.
pub(crate) fn run(mut writer: Writer, interrupted: Vec<Opening>) -> Result<(), NotRecorded> {
    let shared = writer.shared.clone();
    let _ = shared.thread.set(std::thread::current());
    let ended = catch_unwind(AssertUnwindSafe(|| {
        writer.settle_interrupted(interrupted);
        writer.work();
    }));
    if ended.is_err() {
        shared.latch("the ledger's writer panicked");
    }
    shared.closing.store(true, Ordering::Release);
    while let Some(mut entry) = shared.queue.pop() {
        shared.counters.dropped.fetch_add(1, Ordering::Relaxed);
        writer.lose(&mut entry.record);
    }
    // Dropped entries, openings and checkpoints answer `Closed`.
    drop(writer);
    shared.openings.take(Take::All, &mut |_, _| {});
    lock(&shared.checkpoints).clear();
    lock(&shared.rolls).clear();
    shared.facts.close();
    if shared.has_failed() { Err(NotRecorded::JournalFailed) } else { Ok(()) }
}

// === impl Writer ===

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, settings: Settings, parts: Parts) -> Self {
        let Parts { journal, recent, clock, pricer, observer } = parts;
        Self {
            shared,
            settings,
            journal,
            clock,
            pricer,
            recent,
            observer,
            open: HashSet::default(),
            usage_records: 0,
            take: Take::Seen,
            is_recovering: false,
            keys: Keys::default(),
            all_keys: None,
            batch: Vec::new(),
            encoder: Encoder::default(),
            frame: Frame::default(),
            deltas: HashMap::default(),
            answers: Vec::new(),
            repeats: Vec::new(),
            timers: Timers::default(),
            applied: None,
        }
    }

    fn work(&mut self) {
        loop {
            if self.shared.checkpoint_wanted.swap(false, Ordering::AcqRel) {
                self.give_up();
                if !lock(&self.shared.checkpoints).is_empty() {
                    self.checkpoint();
                }
            }
            self.write_facts();
            if self.has_nothing_to_do() {
                self.upkeep();
                if self.is_closing() && self.has_nothing_to_do() {
                    break;
                }
                self.rest();
            } else {
                self.gather();
                self.write_group();
                self.upkeep();
            }
        }
        self.shared.checked.wait();
        self.checkpoint();
    }

    /// Lets readers see rolls instead of the segments that they stand for.
    fn give_up(&mut self) {
        for (rolled, ack) in std::mem::take(&mut *lock(&self.shared.rolls)) {
            self.journal.give_up(rolled);
            *lock(&self.shared.view) = self.journal.view();
            ack.answer(Ok(Appended::Queued));
        }
    }

    fn has_nothing_to_do(&self) -> bool {
        self.shared.queue.is_empty() && self.shared.openings.is_empty()
    }

    /// Settles exchanges that an earlier run left open.
    fn settle_interrupted(&mut self, interrupted: Vec<Opening>) {
        self.open.extend(interrupted.iter().map(|opening| opening.id));
        self.is_recovering = true;
        let mut rest = interrupted.into_iter();
        loop {
            let group = rest.by_ref().take(self.settings.group_records_max.max(1));
            let batch: Vec<Entry> = group
                .map(|opening| Entry {
                    record: Box::new(opening.interrupted()),
                    batch: None,
                    caller: None,
                    ack: None,
                })
                .collect();
            if batch.is_empty() {
                self.is_recovering = false;
                return;
            }
            self.shared.counters.appended.fetch_add(batch.len() as u64, Ordering::Relaxed);
            self.batch = batch;
            self.write_batch();
        }
    }

    fn is_closing(&self) -> bool {
        self.shared.closing.load(Ordering::Acquire)
    }

    /// Sleeps until a record, a request or a timer.
    fn rest(&self) {
        self.shared.idle.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let wanted = self.is_closing()
            || self.shared.checkpoint_wanted.load(Ordering::Acquire)
            || self.shared.facts.wanted();
        if self.has_nothing_to_do() && !wanted {
            match self.timers.next() {
                Some(wait) => std::thread::park_timeout(wait),
                None => std::thread::park(),
            }
        }
        self.shared.idle.store(false, Ordering::Relaxed);
    }

    /// In `group`, waits a moment for more records to share the sync.
    fn gather(&self) {
        let waits = self.settings.durability != Durability::Sync
            && self.shared.queue.len() < self.settings.group_records_max
            && !self.is_closing()
            && !self.shared.checkpoint_wanted.load(Ordering::Acquire);
        if waits && !self.settings.group_delay.is_zero() {
            std::thread::park_timeout(self.settings.group_delay);
        }
    }

    /// Settles and writes what is in the queue, up to one group, and the exchanges that are under way.
    fn write_group(&mut self) {
        while self.batch.len() < self.settings.group_records_max.max(1)
            && let Some(entry) = self.shared.queue.pop()
        {
            self.batch.push(entry);
        }
        // After the queue: an exchange that is still there then has no record in the batch.
        if !self.shared.openings.is_empty() {
            self.write_openings();
        }
        self.write_batch();
    }

    fn write_openings(&mut self) {
        let at_once = self.is_closing() || self.settings.durability == Durability::Sync;
        let take = if at_once { Take::All } else { self.take };
        let mut taken = Vec::new();
        self.shared.openings.take(take, &mut |opening, ack| taken.push((opening, ack)));
        for (opening, ack) in taken {
            if self.shared.has_failed() {
                if let Some(ack) = ack {
                    ack.answer(Err(NotRecorded::JournalFailed));
                }
                continue;
            }
            if self.open.len() >= OPEN_MAX {
                self.shared.openings.count_shed();
                continue;
            }
            if self.encoder.add_reservation(&opening).is_err() {
                tracing::error!(id = %opening.id, "the reservation is too large for the journal");
                if let Some(ack) = ack {
                    ack.answer(Err(NotRecorded::TooLarge));
                }
                continue;
            }
            self.open.insert(opening.id);
            self.keys.open(&opening);
            let sequence = self.journal.last_sequence().saturating_add(u64::from(self.encoder.count()));
            self.answers.extend(ack.map(|ack| (ack, Appended::Recorded { sequence })));
            if self.encoder.bytes() >= FRAME_BYTES {
                self.commit();
            }
        }
    }

    /// Settles and writes the batch.
    fn write_batch(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        if self.shared.has_failed() {
            self.refuse(batch.drain(..));
        }
        let older = self.find_older(&batch);
        for entry in batch.drain(..) {
            self.settle(entry, &older);
            if self.encoder.bytes() >= FRAME_BYTES {
                self.commit();
            }
        }
        self.commit();
        self.batch = batch;
        if !self.repeats.is_empty() {
            self.answer_repeats();
        }
    }

    /// Compares repeated records with those that are there. Reads the journal: repeats are rare.
    fn answer_repeats(&mut self) {
        let repeats = std::mem::take(&mut self.repeats);
        let ids: HashSet<RequestId> = repeats.iter().map(|entry| entry.record.id).collect();
        let there = find_records(&self.journal.view(), &ids).unwrap_or_else(|error| {
            tracing::error!(%error, "cannot compare repeated records with those that are there");
            *lock(&self.shared.last_error) = Some(error.to_string());
            HashMap::new()
        });
        let (mut conflicts, mut example) = (0_u64, None);
        for Entry { record, batch, ack, .. } in repeats {
            let outcome = match there.get(&record.id) {
                // The results of a batch were changed when they were settled.
                Some(stored) if batch.is_none() && !settle::says_the_same(stored, &record) => {
                    conflicts = conflicts.saturating_add(1);
                    example = Some(record.id);
                    // Before the answer: whoever has that finds the count true.
                    self.shared.counters.conflicting.fetch_add(1, Ordering::Relaxed);
                    Err(NotRecorded::Conflict)
                }
                None if self.shared.has_failed() => Err(NotRecorded::JournalFailed),
                _ => Ok(Appended::AlreadyThere),
            };
            if let Some(ack) = ack {
                ack.answer(outcome);
            }
        }
        if let Some(id) = example {
            tracing::error!(conflicts, %id, "records repeat ids with other content; those that were there stay");
        }
    }

    /// The ids of the batch that only the journal can tell about, and that it has.
    fn find_older(&self, batch: &[Entry]) -> HashSet<RequestId> {
        let unsure: HashSet<RequestId> = batch
            .iter()
            .map(|entry| entry.record.id)
            .filter(|id| self.recent.check(*id) == Seen::Unsure)
            .collect();
        if unsure.is_empty() {
            return unsure;
        }
        find_ids(&self.journal.view(), &unsure).unwrap_or_else(|error| {
            tracing::error!(%error, "cannot look up earlier ids; a repeat would be recorded again");
            *lock(&self.shared.last_error) = Some(error.to_string());
            HashSet::new()
        })
    }

    fn settle(&mut self, entry: Entry, older: &HashSet<RequestId>) {
        if self.recent.check(entry.record.id) == Seen::Yes || older.contains(&entry.record.id) {
            self.shared.counters.repeated.fetch_add(1, Ordering::Relaxed);
            self.repeats.push(entry);
            return;
        }
        let Entry { mut record, batch: facts, caller, ack } = entry;
        let pricer = Arc::clone(&self.pricer);
        let marks = facts.map(|facts| batch::settle(&mut record, &facts, self, pricer.as_ref()));
        let marks = marks.unwrap_or_default();
        let once = settle::counting(&record);
        let counted = match &once {
            Counting::Yes => true,
            Counting::No => false,
            Counting::Once(key) => !self.has_meter_id(key),
        };
        settle::bound(&mut record);
        settle::price(&mut record, counted, pricer.as_ref());
        if counted && settle::compare(&mut record) {
            self.shared.counters.provider_cost_differs.fetch_add(1, Ordering::Relaxed);
        }
        if self.encoder.add_usage(&record, counted).is_err() {
            self.shared.counters.dropped.fetch_add(1, Ordering::Relaxed);
            tracing::error!(id = %record.id, "the record is too large for the journal");
            if let Some(observer) = &self.observer {
                settle::tell_lost(observer.as_ref(), &record, counted);
            }
            if let Some(ack) = ack {
                ack.answer(Err(NotRecorded::TooLarge));
            }
            return;
        }
        self.usage_records = self.usage_records.saturating_add(1);
        self.recent.insert(record.id);
        if !self.open.is_empty() && self.open.remove(&record.id) {
            self.keys.close(record.id);
        }
        if let (Counting::Once(key), true) = (once, counted) {
            self.remember(Mark::Counted(key));
        }
        self.mark(marks);
        let key = self.delta_key(&record);
        self.deltas.entry(key).or_default().add_record(&record, counted);
        let sequence = self.journal.last_sequence().saturating_add(u64::from(self.encoder.count()));
        if let Some(observer) = &self.observer {
            settle::tell(observer.as_ref(), &record, counted, sequence, caller);
        }
        self.answers.extend(ack.map(|ack| (ack, Appended::Recorded { sequence })));
        drop(self.shared.spent.push(record));
    }

    /// Writes marks into the frame and remembers them.
    fn mark(&mut self, marks: Vec<Mark>) {
        self.timers.pending_records = self.timers.pending_records.saturating_add(marks.len() as u64);
        for mark in marks {
            if self.encoder.add_mark(&mark).is_err() {
                tracing::error!("what a batch needs to be remembered by cannot be written");
                return;
            }
            self.remember(mark);
        }
    }

    /// Writes the facts that were handed in, each request as one frame.
    fn write_facts(&mut self) {
        for request in self.shared.facts.take() {
            let last = self.journal.last_sequence();
            let sequence = last.saturating_add(request.facts.len() as u64);
            if request.facts.iter().any(|fact| self.encoder.add_fact(fact).is_err()) {
                self.encoder.clear();
                request.ack.answer(Err(NotRecorded::TooLarge));
                continue;
            }
            self.commit();
            let written = self.journal.last_sequence() == sequence;
            if written {
                self.keys.facts.extend(self.shared.facts.keep(last, request.facts));
            }
            // After they are at hand: whoever has the answer finds them.
            let answer =
                if written { Ok(Appended::Recorded { sequence }) } else { Err(NotRecorded::JournalFailed) };
            request.ack.answer(answer);
        }
    }

    fn remember(&mut self, mark: Mark) {
        if let Some(all) = &mut self.all_keys {
            all.add(mark.clone());
        }
        self.keys.add(mark);
    }

    fn delta_key(&mut self, record: &UsageRecord) -> DeltaKey {
        let texts =
            Dimensions::labels(record).map(|label| label.map_or(0, |label| self.encoder.number_of(label)));
        let (outcome, source) = (record.outcome.number(), record.usage_source.number());
        DeltaKey { hour: Hour::of(record.started_at), texts, outcome, source }
    }

    fn has_meter_id(&mut self, key: &[u8]) -> bool {
        if self.keys.meter_ids.contains(key) {
            return true;
        }
        match self.ask_store(|store| store.has_meter_id(key)) {
            Some(there) => there,
            None => self.all_keys().meter_ids.contains(key),
        }
    }

    /// The store's answer; `None` when there is no usable store.
    fn ask_store<T>(&self, ask: impl FnOnce(&Store) -> Result<T, StoreError>) -> Option<T> {
        if self.all_keys.is_some() {
            return None;
        }
        self.shared.checked.wait();
        let store = lock(&self.shared.store).clone()?;
        let answer = ask(&store);
        drop(store);
        answer.map_err(|error| self.shared.give_up(&error)).ok()
    }

    /// All keys, from the journal and from what is not yet there.
    fn all_keys(&mut self) -> &Keys {
        if self.all_keys.is_none() {
            let keys = self.read_keys();
            self.all_keys = Some(keys);
        }
        self.all_keys.get_or_insert_default()
    }

    fn read_keys(&self) -> Keys {
        let mut all = self.keys.clone();
        if let Err(error) = self.add_all_keys(&mut all) {
            tracing::error!(%error, "cannot read all ids that count once and all marks of batches");
        }
        all
    }

    fn add_all_keys(&self, all: &mut Keys) -> Result<(), ReadError> {
        let view = self.journal.view();
        for roll in view.rolled.iter() {
            roll.read()?.marks().for_each(|mark| all.add(mark));
        }
        let frames = || Frames::new(view.segments().cloned(), Check::Checksums);
        each_fact(frames(), |_, fact| -> Result<(), ReadError> {
            if let codec::Fact::Usage(decoded) = fact
                && decoded.counted
                && decoded.record.metering == Metering::OncePerId
                && let Counting::Once(key) = settle::counting(&decoded.record)
            {
                all.meter_ids.insert(key);
            }
            Ok(())
        })?;
        each_mark(frames(), |mark| all.add(mark))
    }

    /// Writes what was settled as one frame, and acknowledges it.
    fn commit(&mut self) {
        let count = self.encoder.count();
        let usage_records = u64::from(std::mem::take(&mut self.usage_records));
        if count > 0 && !self.write_frame() {
            for (ack, _) in self.answers.drain(..) {
                ack.answer(Err(NotRecorded::JournalFailed));
            }
            self.shared.counters.dropped.fetch_add(usage_records, Ordering::Relaxed);
            self.deltas.clear();
            self.encoder.clear();
            return;
        }
        if count > 0 {
            self.publish(u64::from(count), usage_records);
        }
        for (ack, appended) in self.answers.drain(..) {
            ack.answer(Ok(appended));
        }
        self.encoder.clear();
    }

    /// Writes the frame, again and again if need be; `false` when that can no longer succeed.
    fn write_frame(&mut self) -> bool {
        if self.shared.has_failed() {
            return false;
        }
        let began = monotonic();
        let Ok(payload) = self.encoder.finish(self.frame.begin()) else { return false };
        self.journal.finish(&mut self.frame, &payload);
        let promise = match self.settings.durability {
            Durability::Sync | Durability::Group => Promise::Durable,
            Durability::Relaxed => Promise::Written,
        };
        let mut wait = RETRY_FIRST;
        loop {
            let is_last = self.is_closing();
            let Err(error) = self.try_frame(promise, is_last) else { break };
            if error.latches || is_last {
                self.shared.latch(&chain_text(&error));
                return false;
            }
            self.shared.degrade(&chain_text(&error));
            // Whoever gives room back must not wait for it, nor what was written for what could not be.
            self.give_up();
            if due(self.timers.unsynced_since, SYNC_EVERY, monotonic()) {
                self.sync();
                if self.shared.has_failed() {
                    return false;
                }
            }
            std::thread::park_timeout(wait);
            wait = wait.saturating_mul(2).min(RETRY_MAX);
        }
        self.shared.recover();
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.shared.counters.last_commit_us.store(took, Ordering::Relaxed);
        true
    }

    /// What was begun is ended, and room given back, from the reserve; at the end all that waits is written.
    fn try_frame(&mut self, promise: Promise, is_last: bool) -> Result<(), JournalError> {
        self.journal.spend(match is_last {
            true => Purse::Last,
            false if self.is_recovering || self.shared.room.is_relieved() => Purse::Reserve,
            false => Purse::Ordinary,
        });
        self.journal.commit(&self.frame, promise, self.clock.now())
    }

    /// Lets readers see the frame that was just written.
    fn publish(&mut self, count: u64, usage_records: u64) {
        self.shared.open_in_journal.store(self.open.len(), Ordering::Relaxed);
        let mut pending = lock(&self.shared.pending);
        // One that is being built anew has none of it. In this order: it is in its place before that is over.
        let has_store = !self.shared.checked.is_over() || lock(&self.shared.store).is_some();
        for (key, totals) in self.deltas.drain() {
            let [team, workload, provider, model, route, api, tier] =
                key.texts.map(|number| self.encoder.text(number));
            let dimensions = Dimensions {
                team,
                workload,
                provider: provider.unwrap_or_default(),
                model,
                route: route.unwrap_or_default(),
                api: api.unwrap_or_default(),
                tier,
                outcome: key.outcome,
                source: key.source,
            };
            if has_store {
                pending.merge(key.hour, &dimensions, &totals);
            }
        }
        *lock(&self.shared.view) = self.journal.view();
        drop(pending);
        self.shared.counters.acknowledged.fetch_add(usage_records, Ordering::Relaxed);
        self.shared.counters.frames.fetch_add(1, Ordering::Relaxed);
        let now = monotonic();
        self.timers.pending_records = self.timers.pending_records.saturating_add(count);
        self.timers.pending_since.get_or_insert(now);
        if self.journal.synced_sequence() < self.journal.last_sequence() {
            self.timers.unsynced_since.get_or_insert(now);
        }
    }

    fn refuse(&self, entries: impl Iterator<Item = Entry>) {
        for mut entry in entries {
            self.shared.counters.dropped.fetch_add(1, Ordering::Relaxed);
            self.lose(&mut entry.record);
            if let Some(ack) = entry.ack {
                ack.answer(Err(NotRecorded::JournalFailed));
            }
        }
    }

    /// Tells the observer of a record that will not be written.
    fn lose(&self, record: &mut UsageRecord) {
        let Some(observer) = &self.observer else { return };
        if self.recent.check(record.id) == Seen::Yes {
            return;
        }
        let counted = settle::counting(record) != Counting::No;
        settle::price(record, counted, self.pricer.as_ref());
        settle::tell_lost(observer.as_ref(), record, counted);
    }

    /// What is due: sync (in `relaxed`), apply, flush.
    fn upkeep(&mut self) {
        let now = monotonic();
        let rows = lock(&self.shared.pending).len();
        if due(self.timers.unsynced_since, SYNC_EVERY, now) || rows >= PENDING_ROWS_MAX {
            self.sync();
        }
        let full = self.timers.pending_records >= APPLY_RECORDS || rows >= APPLY_ROWS;
        let synced = self.timers.unsynced_since.is_none();
        if synced && (due(self.timers.pending_since, APPLY_EVERY, now) || full) {
            self.apply(rows >= PENDING_ROWS_MAX);
        }
        if due(self.timers.unflushed_since, FLUSH_EVERY, now) && self.shared.checked.is_over() {
            self.flush();
        }
    }

    fn sync(&mut self) {
        self.timers.unsynced_since = None;
        if self.shared.has_failed() {
            return;
        }
        if let Err(error) = self.journal.sync() {
            self.shared.latch(&chain_text(&error));
        }
    }

    /// Moves the pending totals into the store. Gives way to a reader unless `at_once`.
    fn apply(&mut self, at_once: bool) {
        // A frame that could not be written left its ids among the keys. The store must not know what the
        // journal does not: it stays behind, and the next start adds what is there.
        if self.shared.has_failed() {
            self.timers.pending_since = None;
            return;
        }
        let waypoint = self.journal.waypoint();
        let durable = self.journal.synced_sequence() == self.journal.last_sequence();
        if self.timers.pending_records == 0 || !durable {
            self.timers.pending_since = None;
            if durable {
                self.applied = waypoint;
            }
            return;
        }
        if !at_once && !self.shared.checked.is_over() {
            self.timers.pending_since = Some(monotonic());
            return;
        }
        self.shared.checked.wait();
        let gate = match self.shared.store_gate.try_lock() {
            Ok(gate) => gate,
            Err(TryLockError::Poisoned(gate)) => gate.into_inner(),
            Err(TryLockError::WouldBlock) if at_once => lock(&self.shared.store_gate),
            Err(TryLockError::WouldBlock) => {
                self.timers.pending_since = Some(monotonic());
                return;
            }
        };
        self.timers.pending_records = 0;
        self.timers.pending_since = None;
        let Some(store) = lock(&self.shared.store).clone() else {
            self.keys.clear();
            return;
        };
        let pending = std::mem::take(&mut *lock(&self.shared.pending));
        let (watermark, hash) = (self.journal.last_sequence(), self.journal.hash());
        let applied = store.apply(&pending, &self.keys, watermark, hash);
        drop(gate);
        drop(store);
        match applied {
            Ok(()) => {
                self.keys.clear();
                self.applied = waypoint;
                self.timers.unflushed_since.get_or_insert(monotonic());
            }
            // The ids stay in memory; the rows are read from the journal.
            Err(error) => self.shared.give_up(&error),
        }
    }

    fn flush(&mut self) {
        self.timers.unflushed_since = None;
        let store = lock(&self.shared.store).clone();
        if let Some(Err(error)) = store.map(|store| store.flush()) {
            self.shared.give_up(&error);
        }
        // After the store: it is as far, or opening begins at the one before.
        if let Some(waypoint) = self.applied.take() {
            self.journal.keep(waypoint);
        }
        self.shared.room.measure();
    }

    /// Writes and syncs everything that is there; applies and flushes it if the store may be changed.
    fn checkpoint(&mut self) {
        let asked = std::mem::take(&mut *lock(&self.shared.checkpoints));
        self.write_facts();
        let mut left = self.shared.queue.len();
        self.take = Take::All;
        while left > 0 || !self.shared.openings.is_empty() {
            self.write_group();
            if left == 0 {
                break;
            }
            left = left.saturating_sub(self.settings.group_records_max.max(1));
        }
        self.take = Take::Seen;
        self.sync();
        // While the rows are checked, what is pending is added to answers from memory.
        if self.shared.checked.is_over() {
            self.apply(true);
            self.flush();
        } else {
            self.shared.room.measure();
        }
        let outcome = if self.shared.has_failed() {
            Err(NotRecorded::JournalFailed)
        } else {
            Ok(Appended::Recorded { sequence: self.journal.last_sequence() })
        };
        for ack in asked {
            ack.answer(outcome);
        }
    }
}

impl Memory for Writer {
    fn is_counted(&mut self, key: &[u8]) -> bool {
        self.has_meter_id(key)
    }

    fn owner(&mut self, key: &[u8]) -> Option<Arc<Identity>> {
        if let Some(owner) = self.keys.owners.get(key) {
            return Some(Arc::clone(owner));
        }
        match self.ask_store(|store| store.owner(key)) {
            Some(owner) => owner.map(Arc::new),
            None => self.all_keys().owners.get(key).cloned(),
        }
    }
}

// === impl Timers ===

impl Timers {
    /// How long nothing is due.
    fn next(&self) -> Option<Duration> {
        // What is not synced yet is not applied either.
        let applies = self.pending_since.filter(|_| self.unsynced_since.is_none());
        let now = monotonic();
        [(applies, APPLY_EVERY), (self.unsynced_since, SYNC_EVERY), (self.unflushed_since, FLUSH_EVERY)]
            .into_iter()
            .filter_map(|(since, every)| Some(every.saturating_sub(now.saturating_duration_since(since?))))
            .min()
            .map(|wait| wait.max(Duration::from_millis(1)))
    }
}

fn due(since: Option<Instant>, every: Duration, now: Instant) -> bool {
    since.is_some_and(|since| now.saturating_duration_since(since) >= every)
}

fn chain_text(error: &JournalError) -> String {
    format!("{error}: {}", error.source)
}

impl RollupSource for Shared {
    fn view(&self) -> View {
        Self::view(self)
    }

    /// Calls `each` with every rollup of the hours `[from, to)`, each acknowledged record being in
    /// exactly one; returns the last such sequence. `None` when there is no usable store.
    fn scan_rollups(
        &self,
        from: Option<Hour>,
        to: Option<Hour>,
        each: &mut dyn FnMut(&[u8], &Totals),
    ) -> Option<Result<u64, StoreError>> {
        self.checked.wait();
        let gate = lock(&self.store_gate);
        let store = lock(&self.store).clone()?;
        if let Err(error) = store.scan(from, to, &mut *each) {
            return Some(Err(error));
        }
        let pending = lock(&self.pending);
        for (key, totals) in pending.iter() {
            let hour = Hour::from_key(key);
            if from.is_none_or(|from| hour >= Some(from)) && to.is_none_or(|to| hour < Some(to)) {
                each(key, totals);
            }
        }
        // The view is published under the lock of the pending rollups.
        let sequence = lock(&self.view).last_sequence();
        drop(pending);
        drop(gate);
        Some(Ok(sequence))
    }

    /// Gives the store up until the next open. Queries read the journal instead.
    fn give_up(&self, error: &StoreError) {
        let taken = lock(&self.store).take();
        if taken.is_some() {
            tracing::error!(%error, "the embedded database is given up until the next start");
        }
        let text = format!("reports read the journal, slowly: {error}");
        *lock(&self.last_error) = Some(error.to_string());
        *lock(&self.store_trouble) = Some(text);
        lock(&self.pending).clear();
        if let Some(store) = taken.and_then(Arc::into_inner) {
            store.discard();
        }
    }
}

#[cfg(test)]
mod tests;
