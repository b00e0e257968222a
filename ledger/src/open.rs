//! Opening a ledger: the journal's tail, the store's position, the gap between them.
//!
//! Invariants
//! - The journal decides. A store that is missing or behind is caught up; one that is ahead, disagrees
//!   or cannot be read is set aside and built anew.
//! - What was lost is reported, not passed over: a torn tail, and records the store had known.
//! - A damaged journal is refused with the range named.
//! - A store that cannot even be built anew does not keep the ledger from opening: reports then read
//!   the journal.
//! - Every byte of the open segment is checked before anything is written; the store's files are opened
//!   meanwhile.
//!
//! Not here: the running ledger (`lib`, `writer`), the check of all rows of the store (`checking`), full
//! recomputation (`verify`).

use crate::codec::{self, DecodeError, Fact, FrameDecoder, Mark};
use crate::disk::Disk;
use crate::guard::{self, DirectoryError, DirectoryLock};
use crate::journal::find::{self, FindError, Found, TornTail};
use crate::journal::read::{self, Frames, Pruned, ReadError, all_facts as read_facts};
use crate::journal::roll::Contents;
use crate::journal::segment::Check;
use crate::journal::waypoint::{Waypoint, recent_ids};
use crate::journal::{Damage, Journal, JournalError, Place, View};
use crate::opening::Opening;
use crate::rollup::Rollups;
use crate::seen::{RecentIds, Seen};
use crate::settle::{self, Counting};
use crate::store::{self, Database, Keys, Store, StoreError};
use bursar_domain::{Clock, LedgerId, Metering, RequestId, StoredFact};
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const REPLAY_RECORDS: u64 = 200_000;
const REPLAY_ROWS: usize = 8_192;

/// Called while a long opening goes on.
pub type ProgressFn = Arc<dyn Fn(Progress) + Send + Sync>;

/// How far an opening is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Records put into the store so far.
    pub records: u64,
    /// Records there are to put.
    pub records_total: u64,
}

/// Why a ledger could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Something about the directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The journal is damaged: opening would give wrong totals.
    #[error(
        "the journal is damaged: restore a backup of the data directory, or get out of it what is whole with `bursar ledger repair`"
    )]
    Damaged(#[source] Damage),
    /// A newer program wrote the journal.
    #[error(
        "journal segment {segment:08}.seg has format version {version}; this program reads version 1: use a newer one"
    )]
    Newer {
        /// Number of the segment.
        segment: u64,
        /// Its version.
        version: u16,
    },
    /// The bytes are right but not understood.
    #[error("cannot understand the journal from sequence {sequence} on")]
    Undecodable {
        /// The first sequence concerned.
        sequence: u64,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// Records that are not kept were asked for.
    #[error(transparent)]
    Pruned(Pruned),
    /// The journal could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The journal could not be made or continued.
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
    /// No thread, or no random numbers for the ledger's id.
    #[error("cannot {operation}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// What opening did with the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreState {
    /// It had every record.
    Current,
    /// It was behind by so many records, which were added.
    CaughtUp {
        /// Records added.
        records: u64,
    },
    /// It could not be used and was built anew.
    Rebuilt {
        /// Why.
        reason: String,
        /// Records added.
        records: u64,
    },
    /// It could not be used nor built. Reports read the journal.
    Unavailable {
        /// Why.
        reason: String,
    },
}

/// What opening found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenReport {
    /// The ledger's id.
    pub ledger: LedgerId,
    /// It was made just now.
    pub created: bool,
    /// The last sequence; 0 when there is none.
    pub last_sequence: u64,
    /// Segments in the journal.
    pub segments: u64,
    /// The journal's end was torn by a crash and was cut.
    pub torn_tail: Option<TornTail>,
    /// Records that the store had and the journal no longer has: acknowledged and lost.
    pub records_missing: u64,
    /// Exchanges that were under way when the ledger was last used, and never ended. They are settled as
    /// `interrupted` now.
    pub interrupted: u64,
    /// What was done with the store. Its rows are checked after this, before anybody reads them.
    pub store: StoreState,
}

/// An open ledger without its writer.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) lock: DirectoryLock,
    pub(crate) journal: Journal,
    pub(crate) store: Option<Store>,
    /// Whether all rows of the store are known to be right.
    pub(crate) is_checked: bool,
    pub(crate) recent: RecentIds,
    /// Exchanges that nobody will end.
    pub(crate) interrupted: Vec<Opening>,
    pub(crate) facts: Vec<Arc<StoredFact>>,
    pub(crate) report: OpenReport,
}

/// Where and how to open.
pub(crate) struct Request<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) segment_bytes: u64,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) progress: Option<&'a ProgressFn>,
}

/// Opens or makes the ledger.
pub(crate) fn open(request: &Request<'_>) -> Result<Opened, OpenError> {
    let lock = guard::claim(request.dir)?;
    let store_dir = store_dir(request.dir);
    // Reading the journal and opening the database take about as long as each other.
    let (database, looked) = std::thread::scope(|scope| {
        let opening = std::thread::Builder::new().spawn_scoped(scope, || Database::open(&store_dir));
        let looked = look_at_journal(request);
        let database = opening.ok().and_then(|opening| opening.join().ok());
        (database, looked)
    });
    let database = database.unwrap_or_else(|| Database::open(&store_dir));
    let Looked { journal, recent, is_new, tail, waypoint } = match looked {
        Ok(looked) => looked,
        Err(error) => {
            if let Ok(database) = database {
                database.discard();
            }
            return Err(error);
        }
    };
    let view = journal.view();
    let (store, state, records_missing) =
        bring_up_store(&store_dir, database, &view, waypoint.as_ref(), request.progress)?;
    let interrupted = open_exchanges(store.as_ref(), &view, &recent)?;
    let report = OpenReport {
        ledger: view.ledger,
        created: is_new,
        last_sequence: view.last_sequence(),
        segments: view.segments().count() as u64,
        torn_tail: tail,
        records_missing,
        interrupted: interrupted.len() as u64,
        store: state,
    };
    let facts = all_facts(store.as_ref(), &view)?;
    log(&report);
    // What was built from nothing needs no check.
    let is_checked = store.is_none() || matches!(report.store, StoreState::Rebuilt { .. });
    Ok(Opened { lock, journal, store, is_checked, recent, interrupted, facts, report })
}

/// The journal, ready to be written.
struct Looked {
    journal: Journal,
    recent: RecentIds,
    is_new: bool,
    tail: Option<TornTail>,
    /// Where the checking of the last segment began.
    waypoint: Option<Waypoint>,
}

fn look_at_journal(request: &Request<'_>) -> Result<Looked, OpenError> {
    let journal_dir = journal_dir(request.dir);
    crate::disk::create_private_dir(&journal_dir).map_err(|e| DirectoryError::from_io(request.dir, e))?;
    remove_leftovers(&journal_dir);
    let found = find::find_from(&journal_dir, Waypoint::read(&journal_dir))?;
    remove_superfluous(&journal_dir, found.as_ref());
    let place = Place { disk: request.disk.clone(), dir: journal_dir, segment_bytes: request.segment_bytes };
    let now = request.clock.now();
    let mut journal = match &found {
        Some(found) => Journal::resume(place, found, now),
        None => Journal::create(place, new_ledger_id(now)?, now),
    }
    .map_err(|error| from_journal(request.dir, error))?;
    let is_new = found.is_none();
    let (tail, waypoint) = found.map_or((None, None), |found| (found.tail, found.waypoint));
    let (recent, trail) = recent_ids(&journal.view(), waypoint.map(|waypoint| waypoint.recent))?;
    journal.follow(trail);
    Ok(Looked { journal, recent, is_new, tail, waypoint })
}

/// The finance facts, from the store, which is as far as the journal now, or from the journal.
fn all_facts(store: Option<&Store>, view: &View) -> Result<Vec<Arc<StoredFact>>, OpenError> {
    match store.map(Store::facts) {
        Some(Ok(facts)) => return Ok(facts),
        Some(Err(error)) => tracing::warn!(%error, "finance facts are read from the journal"),
        None => {}
    }
    let found = read_facts(view)?;
    Ok(found.into_iter().map(Arc::new).collect())
}

/// Looks at a ledger that no process uses, changing nothing.
pub(crate) fn open_offline(dir: &Path) -> Result<(DirectoryLock, Found), OpenError> {
    let no_ledger = || DirectoryError::NoLedger { path: dir.to_owned() };
    if !dir.exists() {
        return Err(no_ledger().into());
    }
    let lock = guard::claim_offline(dir)?;
    if !journal_dir(dir).is_dir() {
        return Err(no_ledger().into());
    }
    let found = find::find(&journal_dir(dir))?.ok_or_else(no_ledger)?;
    Ok((lock, found))
}

/// The journal as it was found, for reading.
pub(crate) fn view_of(found: Found) -> Option<View> {
    let mut segments = found.segments;
    let current = segments.pop()?;
    let rolled = Arc::new(found.rolled);
    Some(View { ledger: found.ledger, rolled, sealed: Arc::new(segments), current })
}

/// Where the derived database of the ledger in `dir` lies.
pub(crate) fn store_dir(dir: &Path) -> PathBuf {
    dir.join("store")
}

fn journal_dir(dir: &Path) -> PathBuf {
    dir.join("journal")
}

/// A segment that was never finished has no record.
fn remove_leftovers(journal_dir: &Path) {
    for entry in std::fs::read_dir(journal_dir).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "new") {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// What an interrupted pruning left: what takes its place is whole, so nothing is lost. Failing costs room.
fn remove_superfluous(journal_dir: &Path, found: Option<&Found>) {
    let files = found.map(|found| found.superfluous.as_slice()).unwrap_or_default();
    for path in files {
        if let Err(error) = std::fs::remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove what pruning left");
        }
    }
    if !files.is_empty() {
        let _ = crate::disk::sync_directory(journal_dir);
    }
}

pub(crate) fn new_ledger_id(now: bursar_domain::Timestamp) -> Result<LedgerId, OpenError> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(|error| OpenError::System {
        operation: "get random bits for the ledger's id",
        source: io::Error::other(error),
    })?;
    Ok(LedgerId::new(now, u128::from_le_bytes(random)))
}

/// The exchanges that were opened and have no record, in the order in which they began.
fn open_exchanges(store: Option<&Store>, view: &View, recent: &RecentIds) -> Result<Vec<Opening>, OpenError> {
    let known = store.and_then(|store| match store.open_exchanges() {
        Ok(open) => Some(open),
        Err(error) => {
            tracing::warn!(%error, "open exchanges are read from the journal");
            None
        }
    });
    let mut open = match known {
        Some(open) => open,
        None => read::open_exchanges(view)?,
    };
    open.retain(|opening| recent.check(opening.id) != Seen::Yes);
    open.sort_by_key(|opening| (opening.started_at, opening.id));
    Ok(open)
}

/// Takes the store in the opened database and makes it equal to the journal.
fn bring_up_store(
    dir: &Path,
    database: Result<Database, StoreError>,
    view: &View,
    waypoint: Option<&Waypoint>,
    progress: Option<&ProgressFn>,
) -> Result<(Option<Store>, StoreState, u64), OpenError> {
    let opened = database.and_then(|database| Store::open_unchecked(database, view.ledger));
    let (reason, missing) = match opened {
        Err(error) => (error.to_string(), 0),
        Ok(store) => match catch_up(&store, view, waypoint, progress)? {
            CatchUp::Done(0) => return Ok((Some(store), StoreState::Current, 0)),
            CatchUp::Done(records) => return Ok((Some(store), StoreState::CaughtUp { records }, 0)),
            CatchUp::Unusable { reason, missing } => {
                store.discard();
                (reason, missing)
            }
        },
    };
    rebuild(dir, view, progress, reason, missing)
}

/// Sets the store aside, of which nobody has the files open, and builds it anew.
pub(crate) fn rebuild(
    dir: &Path,
    view: &View,
    progress: Option<&ProgressFn>,
    reason: String,
    missing: u64,
) -> Result<(Option<Store>, StoreState, u64), OpenError> {
    tracing::warn!(reason, "the embedded database is built anew from the journal");
    if let Err(error) = store::set_aside(dir) {
        return Ok((None, StoreState::Unavailable { reason: format!("{reason}; then {error}") }, missing));
    }
    let rebuilt = match Store::open(dir, view.ledger) {
        Err(error) => Err(error.to_string()),
        Ok(store) => match catch_up(&store, view, None, progress)? {
            CatchUp::Done(records) => Ok((store, records)),
            CatchUp::Unusable { reason, .. } => {
                store.discard();
                Err(reason)
            }
        },
    };
    match rebuilt {
        Ok((store, records)) => Ok((Some(store), StoreState::Rebuilt { reason, records }, missing)),
        Err(again) => {
            let reason = format!("{reason}; then {again}");
            tracing::error!(reason, "the embedded database cannot be built; reports read the journal");
            Ok((None, StoreState::Unavailable { reason }, missing))
        }
    }
}

enum CatchUp {
    Done(u64),
    Unusable { reason: String, missing: u64 },
}

/// Adds to the store what the journal has beyond its watermark; reads the last segment from the waypoint on if
/// the store has what is before.
fn catch_up(
    store: &Store,
    view: &View,
    waypoint: Option<&Waypoint>,
    progress: Option<&ProgressFn>,
) -> Result<CatchUp, OpenError> {
    let (watermark, hash) = store.watermark();
    let last = view.last_sequence();
    let unusable = |reason: &str, missing| Ok(CatchUp::Unusable { reason: reason.to_owned(), missing });
    if watermark > last {
        return unusable("it has records that the journal does not have", watermark.saturating_sub(last));
    }
    if watermark == last {
        let same = hash == view.hash();
        return if same { Ok(CatchUp::Done(0)) } else { unusable("it follows another journal", 0) };
    }
    let roll_end = view.rolled.iter().find(|roll| roll.header.last_sequence == watermark);
    let segment_end = view.segments().rfind(|segment| segment.last_sequence == watermark);
    let at_end = roll_end.map(|roll| roll.header.hash).or(segment_end.map(|segment| segment.hash));
    if at_end.is_some_and(|there| there != hash) {
        return unusable("it follows another journal", 0);
    }
    let waypoint = waypoint.filter(|at| at.at.next_sequence <= watermark.saturating_add(1));
    let at_waypoint =
        waypoint.filter(|at| at.at.next_sequence == watermark.saturating_add(1)).map(|at| at.at.hash);
    if at_waypoint.is_some_and(|there| there != hash) {
        return unusable("it follows another journal", 0);
    }
    let mut agreed = watermark == 0 || at_end.is_some() || at_waypoint.is_some();
    let rolled: Vec<_> = view.rolled.iter().filter(|roll| roll.header.last_sequence > watermark).collect();
    if !rolled.is_empty() && !agreed {
        return unusable("it ends within a segment of which only totals are left", 0);
    }
    let segments = view.segments().filter(|segment| segment.last_sequence > watermark).cloned();
    let mut frames = match waypoint.filter(|waypoint| waypoint.segment == view.current.number) {
        Some(waypoint) => Frames::from_position(view.current.clone(), waypoint.at, Check::Chain)?,
        None => Frames::new(segments, Check::Chain),
    };
    let open = match store.open_exchanges() {
        Ok(open) => open.into_iter().map(|opening| opening.id).collect(),
        Err(error) => return unusable(&error.to_string(), 0),
    };
    let mut replay = Replay::new(store, open, last.saturating_sub(watermark), progress);
    for roll in rolled {
        let header = &roll.header;
        replay.add_roll(header.records.saturating_add(header.reservations), roll.read()?);
        if let Err(error) = replay.advance((header.last_sequence, header.hash), header.last_sequence == last)
        {
            return unusable(&error.to_string(), 0);
        }
    }
    let mut payload = Vec::new();
    while let Some(head) = frames.next(&mut payload) {
        let head = head?;
        if head.last_sequence() <= watermark {
            agreed = agreed || (head.last_sequence() == watermark && frames.hash() == Some(hash));
            continue;
        }
        if !agreed || head.first_sequence <= watermark {
            return unusable("it follows another journal", 0);
        }
        let undecodable = |source| OpenError::Undecodable { sequence: head.first_sequence, source };
        replay.add_facts(codec::facts(&head, &payload).map_err(undecodable)?);
        let mut decoder = FrameDecoder::new(&head, std::mem::take(&mut payload)).map_err(undecodable)?;
        replay.add_marks(decoder.take_marks());
        while let Some(fact) = decoder.next_fact() {
            match fact.map_err(undecodable)? {
                Fact::Usage(decoded) => replay.add(&decoded.record, decoded.counted),
                Fact::Reservation(opening) => replay.add_opening(&opening),
                // They were added with their frame.
                Fact::Finance { .. } => {}
            }
        }
        payload = decoder.into_buffer();
        let position = (head.last_sequence(), frames.hash().unwrap_or_default());
        if let Err(error) = replay.advance(position, head.last_sequence() == last) {
            return unusable(&error.to_string(), 0);
        }
    }
    if let Err(error) = store.flush() {
        return unusable(&error.to_string(), 0);
    }
    Ok(CatchUp::Done(replay.records))
}

/// Records on their way from the journal into the store.
struct Replay<'a> {
    store: &'a Store,
    progress: Option<&'a ProgressFn>,
    records: u64,
    records_total: u64,
    since_apply: u64,
    rollups: Rollups,
    keys: Keys,
    /// The exchanges that are open at this point of the journal.
    open: HashSet<RequestId>,
}

impl<'a> Replay<'a> {
    fn new(
        store: &'a Store,
        open: HashSet<RequestId>,
        records_total: u64,
        progress: Option<&'a ProgressFn>,
    ) -> Self {
        Self {
            store,
            progress,
            records: 0,
            records_total,
            since_apply: 0,
            rollups: Rollups::default(),
            keys: Keys::default(),
            open,
        }
    }

    /// Takes over what is left of a segment.
    fn add_roll(&mut self, records: u64, contents: Contents) {
        self.records = self.records.saturating_add(records);
        self.since_apply = self.since_apply.saturating_add(contents.rollups.len() as u64);
        self.add_marks(contents.marks().collect());
        self.add_facts(contents.facts);
        for (key, totals) in contents.rollups {
            self.rollups.merge_key(&key, &totals);
        }
        for id in contents.closed {
            if self.open.remove(&id) {
                self.keys.close(id);
            }
        }
        for opening in contents.opened {
            self.open.insert(opening.id);
            self.keys.open(&opening);
        }
    }

    fn add_opening(&mut self, opening: &Opening) {
        self.open.insert(opening.id);
        self.keys.open(opening);
        self.count();
    }

    fn count(&mut self) {
        self.records = self.records.saturating_add(1);
        self.since_apply = self.since_apply.saturating_add(1);
    }

    fn add(&mut self, record: &bursar_domain::UsageRecord, counted: bool) {
        self.rollups.add_record(record, counted);
        if counted
            && record.metering == Metering::OncePerId
            && let Counting::Once(key) = settle::counting(record)
        {
            self.keys.meter_ids.insert(key);
        }
        if !self.open.is_empty() && self.open.remove(&record.id) {
            self.keys.close(record.id);
        }
        self.count();
    }

    fn add_facts(&mut self, facts: Vec<StoredFact>) {
        let count = facts.len() as u64;
        self.records = self.records.saturating_add(count);
        self.since_apply = self.since_apply.saturating_add(count);
        self.keys.facts.extend(facts.into_iter().map(Arc::new));
    }

    fn add_marks(&mut self, marks: Vec<Mark>) {
        self.since_apply = self.since_apply.saturating_add(marks.len() as u64);
        for mark in marks {
            self.keys.add(mark);
        }
    }

    /// Applies at the end of a frame, when there is enough or nothing follows.
    fn advance(
        &mut self,
        (watermark, hash): (u64, crate::journal::format::Hash),
        is_last: bool,
    ) -> Result<(), store::StoreError> {
        if !is_last && self.since_apply < REPLAY_RECORDS && self.rollups.len() < REPLAY_ROWS {
            return Ok(());
        }
        self.store.apply(&self.rollups, &self.keys, watermark, hash)?;
        self.rollups.clear();
        self.keys.clear();
        self.since_apply = 0;
        if let Some(progress) = self.progress {
            progress(Progress { records: self.records, records_total: self.records_total });
        }
        Ok(())
    }
}

fn log(report: &OpenReport) {
    if let Some(tail) = &report.torn_tail {
        tracing::warn!(
            segment = tail.segment,
            offset = tail.offset,
            bytes = tail.bytes,
            records = tail.records,
            "the journal's last frame was not whole and was cut"
        );
    }
    if report.records_missing > 0 {
        tracing::error!(
            records = report.records_missing,
            "the journal has lost records that had been acknowledged: restore a backup if there is one"
        );
    }
    if report.interrupted > 0 {
        tracing::warn!(
            exchanges = report.interrupted,
            "exchanges were under way when the ledger was last used: they are settled as interrupted"
        );
    }
    if let StoreState::CaughtUp { records } | StoreState::Rebuilt { records, .. } = &report.store {
        tracing::info!(records, "the embedded database follows the journal again");
    }
}

fn from_journal(dir: &Path, error: JournalError) -> OpenError {
    let JournalError { operation, path, source, .. } = error;
    match DirectoryError::from_io(dir, source) {
        DirectoryError::Unusable { source, .. } => OpenError::Write { operation, path, source },
        named => named.into(),
    }
}

impl From<FindError> for OpenError {
    fn from(error: FindError) -> Self {
        match error {
            FindError::Io { path, source } => Self::Read { path, source },
            FindError::Damaged(damage) => Self::Damaged(damage),
            FindError::Newer { segment, version } => Self::Newer { segment, version },
            FindError::Undecodable { sequence, source } => Self::Undecodable { sequence, source },
        }
    }
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io { path, source } => Self::Read { path, source },
            ReadError::Damaged(damage) => Self::Damaged(damage),
            ReadError::Pruned(pruned) => Self::Pruned(pruned),
            ReadError::Undecodable { sequence, source } => Self::Undecodable { sequence, source },
        }
    }
}
