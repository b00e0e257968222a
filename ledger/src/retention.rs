//! Retention: old segments are rolled up into hourly totals and removed, so that the disk is given back and
//! every total stays what it was.
//!
//! What is kept of a segment is in its roll (`journal::roll`). The journal vouches for each roll with a
//! checkpoint, so the chain from the first to the last record still verifies.
//!
//! Invariants
//! - Whole sealed segments, oldest first, and only those whose records all began, and were all written,
//!   before the given time. That time is at least [`DETAIL_DAYS_MIN`] days ago: ids are known that long.
//! - The order on disk: rolls under other names, the checkpoint, the rolls' own names one by one, then the
//!   segments are removed. An end at any point leaves a ledger with either the segment or its roll, whole.
//! - Nobody who reads is disturbed: a segment that a reader may still open is removed at a later look.
//! - A clock that jumped ahead removes nothing: the time since the last look must have passed.
//!
//! Not here: what a roll keeps (`journal::roll`), which question can still be answered (`query`).

use crate::disk::Disk;
use crate::facts::{FactError, NewFact, append_facts, dated};
use crate::journal::read::ReadError;
use crate::journal::roll::{NewRoll, Rolled, open_after, roll_path, roll_up};
use crate::journal::{Segment, View};
use crate::writer::{Shared, monotonic};
use crate::{Appended, NotRecorded};
use bursar_domain::{Clock, Fact, FactKind, Label, StoredFact, Timestamp};
use serde_json::{Value, json};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Records are kept for so many days at least, so that an id is known as long (promise P3).
pub const DETAIL_DAYS_MIN: u64 = 35;
const DAY_MICROS: u64 = 86_400_000_000;
/// With a retention, a segment gets no frame after a day, so that little is kept longer than asked for.
pub(crate) const SEGMENT_AGE_MICROS_MAX: u64 = DAY_MICROS;
/// Most segments that are rolled up at once: their rolls are in memory until they are written.
const SEGMENTS_PER_ROUND: usize = 16;
/// How much further than the monotonic clock the wall clock may go between two looks.
const CLOCK_STEP_MAX: Duration = Duration::from_secs(3_600);

/// How long records are kept, and how often that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Single records.
    pub detail: Duration,
    /// Time between two looks.
    pub look_every: Duration,
}

impl Retention {
    /// Keeps records for `detail` and looks every ten minutes.
    #[must_use]
    pub const fn of(detail: Duration) -> Self {
        Self { detail, look_every: Duration::from_secs(600) }
    }
}

/// What is to be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneAsk {
    /// Records that began before this.
    pub before: Timestamp,
    /// Only say what would be.
    pub dry_run: bool,
}

/// What was given up, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Segments.
    pub segments: u64,
    /// Their records of every kind.
    pub records: u64,
    /// Bytes of the segments.
    pub bytes: u64,
    /// Bytes of the rolls that stand for them; unknown in a dry run.
    pub rolled_bytes: Option<u64>,
    /// The last record among them began then.
    pub until: Option<Timestamp>,
    /// The last sequence among them.
    pub last_sequence: Option<u64>,
    /// Why the oldest segment that is kept is kept.
    pub kept: Option<Kept>,
    /// Files that a reader may still open: the next look, or the next start, removes them.
    pub left_for_later: u64,
}

/// Why a segment is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Kept {
    /// It is still written.
    #[error("segment {segment} is still being written")]
    Open {
        /// Its number.
        segment: u64,
    },
    /// A record in it began later.
    #[error("segment {segment} has a record that began at {}", text(.at))]
    Began {
        /// Its number.
        segment: u64,
        /// The time.
        at: Timestamp,
    },
    /// It was written later.
    #[error("segment {segment} was written until {}", text(.at))]
    Written {
        /// Its number.
        segment: u64,
        /// The time.
        at: Timestamp,
    },
}

fn text(at: &Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.micros()).unwrap_or_default().to_string()
}

/// Why nothing more was given up. What was done before stays done.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// Ids must be known longer.
    #[error(
        "records of the last {DETAIL_DAYS_MIN} days are kept, so that a record that comes again is known: {} is later than {}",
        text(.before),
        text(.latest)
    )]
    TooRecent {
        /// What was asked for.
        before: Timestamp,
        /// What is possible.
        latest: Timestamp,
    },
    /// A segment cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The checkpoint was not recorded.
    #[error("the checkpoint was not recorded")]
    Checkpoint(#[from] FactError),
    /// The writer ended meanwhile.
    #[error(transparent)]
    Writer(#[from] NotRecorded),
    /// A file could not be written, named or removed.
    #[error("cannot {operation} {}", path.display())]
    Write {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// Gives up segments of a running ledger.
#[derive(Debug)]
pub(crate) struct Pruner {
    shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    journal: PathBuf,
    clock: Arc<dyn Clock>,
    /// Segments that have a roll and could not be removed yet. Held while anything is pruned.
    doomed: Mutex<Vec<Arc<Path>>>,
    stopping: AtomicBool,
}

impl Pruner {
    pub(crate) fn new(shared: Arc<Shared>, disk: Arc<dyn Disk>, dir: &Path, clock: Arc<dyn Clock>) -> Self {
        let (doomed, stopping) = (Mutex::default(), AtomicBool::new(false));
        Self { shared, disk, journal: dir.join("journal"), clock, doomed, stopping }
    }

    /// Begins no further round.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Prunes. `note` tells who asked for it, if anybody did; it is recorded before anything is given up.
    pub(crate) fn prune(
        &self,
        ask: &PruneAsk,
        note: impl FnOnce(&dyn Clock) -> Result<Vec<Fact>, FactError>,
    ) -> Result<PruneReport, PruneError> {
        let now = self.clock.now();
        let latest = days_before(now, DETAIL_DAYS_MIN);
        if ask.before > latest {
            return Err(PruneError::TooRecent { before: ask.before, latest });
        }
        let mut doomed = self.doomed.lock().unwrap_or_else(PoisonError::into_inner);
        let (segments, kept) = choose(&self.shared.view(), ask.before);
        let mut report = PruneReport { kept, ..PruneReport::default() };
        if ask.dry_run {
            segments.iter().for_each(|segment| report.add(segment));
            return Ok(report);
        }
        report.rolled_bytes = Some(0);
        if !segments.is_empty() {
            let _relief = self.shared.room.relieve();
            append_facts(&self.shared, note(self.clock.as_ref())?)?;
        }
        for round in segments.chunks(SEGMENTS_PER_ROUND) {
            if self.stopping.load(Ordering::Acquire) {
                break;
            }
            let bytes = self.give_up(round, now, &mut doomed)?;
            round.iter().for_each(|segment| report.add(segment));
            report.rolled_bytes = report.rolled_bytes.map(|sum| sum.saturating_add(bytes));
        }
        drop(segments);
        self.remove(&mut doomed)?;
        report.left_for_later = doomed.len() as u64;
        Ok(report)
    }

    /// Rolls segments up and has readers see the rolls; returns the rolls' bytes.
    fn give_up(
        &self,
        segments: &[Segment],
        now: Timestamp,
        doomed: &mut Vec<Arc<Path>>,
    ) -> Result<u64, PruneError> {
        let view = self.shared.view();
        let mut open = open_after(&view.rolled)?;
        let mut rolls = Vec::with_capacity(segments.len());
        for segment in segments {
            rolls.push(roll_up(segment, view.ledger, &mut open, now)?);
        }
        drop(view);
        let bytes = rolls.iter().fold(0_u64, |sum, roll| sum.saturating_add(roll.header.file_bytes()));
        let rolled = self.put_in_place(rolls)?;
        let (Appended::Queued | Appended::Recorded { .. } | Appended::AlreadyThere) =
            self.shared.ask_give_up(rolled).wait()?;
        doomed.extend(segments.iter().map(|segment| segment.path.clone()));
        Ok(bytes)
    }

    /// Writes rolls, has the journal vouch for them and gives them their names, in this order.
    fn put_in_place(&self, rolls: Vec<NewRoll>) -> Result<Vec<Rolled>, PruneError> {
        let mut written = Vec::with_capacity(rolls.len());
        for NewRoll { header, bytes } in rolls {
            let path = roll_path(&self.journal, header.number);
            write_roll(self.disk.as_ref(), &new_path(&path), &bytes)?;
            written.push(Rolled { header, path: Arc::from(path) });
        }
        let facts = written.iter().map(|roll| checkpoint(roll, None)).collect();
        let relief = self.shared.room.relieve();
        append_facts(&self.shared, dated(facts, self.clock.as_ref())?)?;
        drop(relief);
        for roll in &written {
            let new = new_path(&roll.path);
            self.disk.rename(&new, &roll.path).map_err(|e| failed("rename", &new, e))?;
            // One after the other: rolls are at the journal's beginning without a gap.
            self.disk.sync_dir(&self.journal).map_err(|e| failed("make durable", &self.journal, e))?;
        }
        Ok(written)
    }

    /// Removes the segments that nobody can open any more.
    fn remove(&self, doomed: &mut Vec<Arc<Path>>) -> Result<(), PruneError> {
        let mut later = Vec::new();
        let mut failure = None;
        for path in doomed.drain(..) {
            if failure.is_some() || Arc::strong_count(&path) > 1 {
                later.push(path);
            } else if let Err(error) = self.disk.remove(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                failure = Some(failed("remove", &path, error));
                later.push(path);
            }
        }
        *doomed = later;
        if let Some(failure) = failure {
            return Err(failure);
        }
        self.disk.sync_dir(&self.journal).map_err(|e| failed("make durable", &self.journal, e))
    }
}

/// Writes a roll and makes it durable.
fn write_roll(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), PruneError> {
    let mut file = disk.create(path).map_err(|e| failed("make", path, e))?;
    file.write_all_at(bytes, 0).map_err(|e| failed("write", path, e))?;
    file.sync_data().map_err(|e| failed("make durable", path, e))
}

/// A name that the next opening removes.
fn new_path(path: &Path) -> PathBuf {
    path.with_extension("roll.new")
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> PruneError {
    PruneError::Write { operation, path: path.to_owned(), source }
}

fn days_before(now: Timestamp, days: u64) -> Timestamp {
    let micros = i64::try_from(days.saturating_mul(DAY_MICROS)).unwrap_or(i64::MAX);
    Timestamp::from_micros(now.micros().saturating_sub(micros))
}

/// The segments that may go, oldest first, and why the next one stays.
fn choose(view: &View, before: Timestamp) -> (Vec<Segment>, Option<Kept>) {
    let mut chosen = Vec::new();
    let mut rest = view.segments().peekable();
    while let Some(segment) = rest.next() {
        let number = segment.number;
        let Some(next) = rest.peek() else { return (chosen, Some(Kept::Open { segment: number })) };
        let began = Timestamp::from_micros(segment.ranges.started_max);
        let has_records = segment.last_sequence >= segment.first_sequence;
        if has_records && began >= before {
            return (chosen, Some(Kept::Began { segment: number, at: began }));
        }
        if next.made_at >= before {
            return (chosen, Some(Kept::Written { segment: number, at: next.made_at }));
        }
        chosen.push(segment.clone());
    }
    (chosen, None)
}

impl PruneReport {
    fn add(&mut self, segment: &Segment) {
        self.segments = self.segments.saturating_add(1);
        let sequences = segment.last_sequence.saturating_add(1).saturating_sub(segment.first_sequence);
        self.records = self.records.saturating_add(sequences);
        self.bytes = self.bytes.saturating_add(segment.data_end);
        if sequences > 0 {
            let began = Timestamp::from_micros(segment.ranges.started_max);
            self.until = self.until.max(Some(began));
        }
        self.last_sequence = Some(segment.last_sequence);
    }
}

/// The journal's word for a roll. `of` names the ledger that it comes from, when that is another one.
pub(crate) fn checkpoint(roll: &Rolled, of: Option<&str>) -> NewFact {
    let header = &roll.header;
    let mut body = json!({
        "segment": header.number,
        "first_sequence": header.first_sequence,
        "last_sequence": header.last_sequence,
        "records": header.records,
        "hash": header.hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        "roll": header.digest(),
    });
    if let (Some(of), Some(body)) = (of, body.as_object_mut()) {
        body.insert("from".to_owned(), Value::from(of));
    }
    let name = Label::lossy(&format!("segment {}", header.number)).unwrap_or_else(|| Label::fixed("segment"));
    NewFact { kind: FactKind::Checkpoint, name, body: body.to_string().into() }
}

/// Segment and digest of a checkpoint that vouches for a roll.
pub(crate) fn checkpoint_of(stored: &StoredFact) -> Option<(u64, String)> {
    if stored.fact.kind != FactKind::Checkpoint {
        return None;
    }
    let body: Value = serde_json::from_str(&stored.fact.body).ok()?;
    Some((body.get("segment")?.as_u64()?, body.get("roll")?.as_str()?.to_owned()))
}

// === automatic pruning ===

/// A thread that prunes from time to time. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Keeper {
    pruner: Arc<Pruner>,
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(crate) fn start(pruner: Arc<Pruner>, retention: Retention) -> io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (theirs, signal) = (pruner.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("bursar-prune".to_owned())
            .spawn(move || keep(&theirs, retention, &signal))?;
        Ok(Self { pruner, stop, thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.pruner.stop();
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether the wall clock went so much further than time that it cannot be trusted.
fn has_jumped(wall_micros: u64, passed: Duration) -> bool {
    u128::from(wall_micros) > passed.saturating_add(CLOCK_STEP_MAX).as_micros()
}

fn keep(pruner: &Pruner, retention: Retention, (stopped, signal): &(Mutex<bool>, Condvar)) {
    let detail = u64::try_from(retention.detail.as_micros()).unwrap_or(u64::MAX);
    let mut last = (pruner.clock.now(), monotonic());
    loop {
        let guard = stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, _) = signal
            .wait_timeout_while(guard, retention.look_every, |stopped| !*stopped)
            .unwrap_or_else(PoisonError::into_inner);
        if *guard {
            return;
        }
        drop(guard);
        let now = (pruner.clock.now(), monotonic());
        let passed = now.1.saturating_duration_since(last.1);
        let jumped = has_jumped(now.0.micros_since(last.0), passed);
        last = now;
        if jumped {
            tracing::warn!("the clock has jumped ahead: nothing is pruned at this look");
            continue;
        }
        let micros = i64::try_from(detail).unwrap_or(i64::MAX);
        let before = Timestamp::from_micros(now.0.micros().saturating_sub(micros));
        match pruner.prune(&PruneAsk { before, dry_run: false }, |_| Ok(Vec::new())) {
            Ok(report) if report.segments > 0 => {
                tracing::info!(
                    segments = report.segments,
                    records = report.records,
                    bytes = report.bytes,
                    rolled_bytes = report.rolled_bytes,
                    "old records were rolled up into hourly totals"
                );
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "old records could not be rolled up; tried again later"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
