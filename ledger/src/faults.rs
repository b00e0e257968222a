//! The whole ledger over a disk that fails on purpose, and over stores that were tampered with.

use crate::codec::tests::{any_record, name, plain_record, test_price};
use crate::disk::{Disk, DiskFile, RealDisk};
use crate::journal::SEGMENT_BYTES_MIN;
use crate::*;
use bursar_domain::{Metering, RequestId, SystemClock, TokenClass};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The n-th write fails, after half of it was written.
    Write(io::ErrorKind),
    /// The n-th sync fails.
    Sync(io::ErrorKind),
}

/// A disk whose n-th operation of one kind fails; from then on all of them, until it is repaired.
#[derive(Debug)]
struct FaultyDisk {
    real: RealDisk,
    state: Arc<FaultState>,
}

#[derive(Debug)]
struct FaultState {
    fault: Fault,
    left: AtomicU64,
    lasting: bool,
    tripped: AtomicBool,
    repaired: AtomicBool,
    syncs_after_failure: AtomicU64,
}

impl FaultState {
    fn new(fault: Fault, nth: u64, lasting: bool) -> Arc<Self> {
        Arc::new(Self {
            fault,
            left: AtomicU64::new(nth),
            lasting,
            tripped: AtomicBool::new(false),
            repaired: AtomicBool::new(false),
            syncs_after_failure: AtomicU64::new(0),
        })
    }

    fn check(&self, is_write: bool) -> io::Result<()> {
        let kind = match (self.fault, is_write) {
            (Fault::Write(kind), true) | (Fault::Sync(kind), false) => kind,
            (_, true) => return Ok(()),
            (_, false) => {
                if self.tripped.load(Ordering::SeqCst) {
                    self.syncs_after_failure.fetch_add(1, Ordering::SeqCst);
                }
                return Ok(());
            }
        };
        if self.repaired.load(Ordering::SeqCst) {
            return Ok(());
        }
        if self.tripped.load(Ordering::SeqCst) {
            return if self.lasting { Err(kind.into()) } else { Ok(()) };
        }
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.tripped.store(true, Ordering::SeqCst);
            return Err(kind.into());
        }
        Ok(())
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(FaultyFile { real: self.real.create(path)?, state: self.state.clone() }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(FaultyFile { real: self.real.open(path)?, state: self.state.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.real.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.real.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.state.check(false)?;
        self.real.sync_dir(dir)
    }
}

#[derive(Debug)]
struct FaultyFile {
    real: Box<dyn DiskFile>,
    state: Arc<FaultState>,
}

impl DiskFile for FaultyFile {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Err(error) = self.state.check(true) {
            self.real.write_all_at(&bytes[..bytes.len() / 2], offset)?;
            return Err(error);
        }
        self.real.write_all_at(bytes, offset)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.state.check(false)?;
        self.real.sync_data()
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.real.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.real.len()
    }
}

pub(crate) fn options(dir: &Path) -> Options {
    Options {
        durability: Durability::Sync,
        segment_bytes: SEGMENT_BYTES_MIN,
        queue_entries_max: 4_096,
        ..Options::new(dir)
    }
}

fn open_with(disk: Arc<dyn Disk>, options: Options) -> Result<(Ledger, OpenReport), OpenError> {
    Ledger::open_on(disk, options, Arc::new(SystemClock), Arc::new(test_price))
}

pub(crate) fn open(dir: &Path) -> (Ledger, OpenReport) {
    open_with(Arc::new(RealDisk), options(dir)).unwrap()
}

fn put(ledger: &Ledger, record: UsageRecord) -> Result<Appended, NotRecorded> {
    ledger.append(Box::new(record), Wait::Acknowledged).unwrap().wait()
}

fn ids(ledger: &Ledger) -> Vec<RequestId> {
    ledger.records(RecordRange::default()).map(|stored| stored.unwrap().record.id).collect()
}

fn id(n: u64) -> RequestId {
    plain_record(n).id
}

/// What is true whatever failed: what was acknowledged is there once, in order, and totals are right.
fn check_after_restart(dir: &Path, acknowledged: &[u64]) {
    let (ledger, _) = open(dir);
    let there = ids(&ledger);
    let unique: HashSet<_> = there.iter().collect();
    assert_eq!(unique.len(), there.len(), "a record is there twice");
    for n in acknowledged {
        assert!(unique.contains(&id(*n)), "record {n} was acknowledged and is lost");
    }
    assert_eq!(ledger.usage(&UsageQuery::default()).unwrap().totals.requests, there.len() as u64);
    ledger.close().unwrap();
    let verified = verify(dir).unwrap();
    assert_eq!((verified.records, verified.store), (there.len() as u64, StoreCheck::Agrees));
}

/// Every n-th sync fails with an input/output error: from then on nothing is acknowledged.
#[test]
fn after_a_failed_sync_nothing_is_acknowledged_until_a_restart() {
    for nth in 1..=50 {
        for lasting in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let state = FaultState::new(Fault::Sync(io::ErrorKind::Other), nth, lasting);
            let disk = Arc::new(FaultyDisk { real: RealDisk, state: state.clone() });
            let Ok((ledger, _)) = open_with(disk, options(dir.path())) else {
                assert!(nth <= 2, "only the first syncs belong to opening");
                check_after_restart(dir.path(), &[]);
                continue;
            };
            let mut acknowledged = Vec::new();
            for n in 0..50 {
                let before = state.tripped.load(Ordering::SeqCst);
                match ledger.append(Box::new(plain_record(n)), Wait::Acknowledged) {
                    Ok(receipt) => match receipt.wait() {
                        Ok(_) => {
                            assert!(!before, "acknowledged after the failed sync");
                            acknowledged.push(n);
                        }
                        Err(reason) => assert_eq!(reason, NotRecorded::JournalFailed),
                    },
                    Err(rejected) => {
                        assert_eq!(rejected.reason, RejectReason::JournalFailed);
                        assert_eq!(rejected.record.id, id(n));
                    }
                }
            }
            assert!(matches!(ledger.stats().health, Health::Degraded(_)));
            assert!(acknowledged.len() < 50);
            assert_eq!(
                ledger.usage(&UsageQuery::default()).unwrap().totals.requests,
                acknowledged.len() as u64
            );
            assert!(ledger.close().is_err());
            check_after_restart(dir.path(), &acknowledged);
        }
    }
}

/// Every n-th write fails, once: the ledger goes on in a new segment by itself.
#[test]
fn after_a_failed_write_the_frame_goes_into_a_new_segment() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        for nth in 1..=50 {
            let dir = tempfile::tempdir().unwrap();
            let state = FaultState::new(Fault::Write(kind), nth, false);
            let disk = Arc::new(FaultyDisk { real: RealDisk, state: state.clone() });
            let Ok((ledger, _)) = open_with(disk, options(dir.path())) else {
                assert_eq!(nth, 1, "only the first header's write is not tried again");
                continue;
            };
            for n in 0..45 {
                assert_eq!(put(&ledger, plain_record(n)), Ok(Appended::Recorded { sequence: n + 1 }));
            }
            assert_eq!(ledger.stats().health, Health::Healthy);
            ledger.close().unwrap();
            check_after_restart(dir.path(), &(0..45).collect::<Vec<_>>());
        }
    }
}

/// A sync that says that the disk is full is like a write that does.
#[test]
fn a_full_disk_at_sync_is_survived() {
    for nth in 3..=30 {
        let dir = tempfile::tempdir().unwrap();
        let state = FaultState::new(Fault::Sync(io::ErrorKind::StorageFull), nth, false);
        let disk = Arc::new(FaultyDisk { real: RealDisk, state });
        let (ledger, _) = open_with(disk, options(dir.path())).unwrap();
        for n in 0..40 {
            assert_eq!(put(&ledger, plain_record(n)), Ok(Appended::Recorded { sequence: n + 1 }));
        }
        ledger.close().unwrap();
        check_after_restart(dir.path(), &(0..40).collect::<Vec<_>>());
    }
}

#[test]
fn a_disk_that_is_full_or_read_only_keeps_records_waiting_refuses_above_the_queue_and_resumes_alone() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::ReadOnlyFilesystem] {
        check_unwritable(kind);
    }
}

fn check_unwritable(kind: io::ErrorKind) {
    let dir = tempfile::tempdir().unwrap();
    let state = FaultState::new(Fault::Write(kind), 300, true);
    let disk = Arc::new(FaultyDisk { real: RealDisk, state: state.clone() });
    let small = Options { queue_entries_max: 8, group_records_max: 4, ..options(dir.path()) };
    let (ledger, _) = open_with(disk, small).unwrap();
    let mut receipts = Vec::new();
    let mut refused = 0;
    for n in 0.. {
        match ledger.append(Box::new(plain_record(n)), Wait::Acknowledged) {
            Ok(receipt) => receipts.push((n, receipt)),
            Err(rejected) => {
                assert_eq!(rejected.reason, RejectReason::QueueFull);
                refused += 1;
                std::thread::yield_now();
            }
        }
        let is_full = matches!(ledger.stats().health, Health::Degraded(_));
        if is_full && refused > 0 && ledger.stats().queue_entries == 8 {
            break;
        }
    }
    assert_eq!(ledger.stats().dropped, refused);
    state.repaired.store(true, Ordering::SeqCst);
    let mut acknowledged = Vec::new();
    for (n, receipt) in receipts {
        assert!(matches!(receipt.wait(), Ok(Appended::Recorded { .. })));
        acknowledged.push(n);
    }
    assert_eq!(ledger.stats().health, Health::Healthy);
    ledger.close().unwrap();
    check_after_restart(dir.path(), &acknowledged);
}

#[test]
fn a_ledger_closed_while_the_disk_is_full_says_what_was_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let state = FaultState::new(Fault::Write(io::ErrorKind::StorageFull), 3, true);
    let disk = Arc::new(FaultyDisk { real: RealDisk, state });
    let (ledger, _) = open_with(disk, options(dir.path())).unwrap();
    let receipt = ledger.append(Box::new(plain_record(1)), Wait::Acknowledged).unwrap();
    assert_eq!(ledger.close(), Err(CloseError::NotWritten { records: 1 }));
    assert_eq!(receipt.wait(), Err(NotRecorded::JournalFailed));
    check_after_restart(dir.path(), &[]);
}

#[test]
fn in_relaxed_a_failed_sync_is_not_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let state = FaultState::new(Fault::Sync(io::ErrorKind::Other), 3, false);
    let disk = Arc::new(FaultyDisk { real: RealDisk, state });
    let relaxed = Options { durability: Durability::Relaxed, ..options(dir.path()) };
    let (ledger, _) = open_with(disk, relaxed).unwrap();
    assert!(put(&ledger, plain_record(1)).is_ok());
    assert_eq!(ledger.checkpoint(), Err(NotRecorded::JournalFailed));
    assert!(matches!(ledger.stats().health, Health::Degraded(_)));
    assert!(ledger.append(Box::new(plain_record(2)), Wait::No).is_err());
}

// === the store ===

fn fill(dir: &Path, count: u64) -> UsageReport {
    let (ledger, _) = open(dir);
    for n in 0..count {
        drop(ledger.append(Box::new(plain_record(n)), Wait::No).unwrap());
    }
    ledger.checkpoint().unwrap();
    let report = by_team(&ledger);
    ledger.close().unwrap();
    report
}

fn by_team(ledger: &Ledger) -> UsageReport {
    let query = UsageQuery { by: vec![GroupKey::Team, GroupKey::Hour], ..UsageQuery::default() };
    ledger.usage(&query).unwrap()
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target)
        } else {
            std::fs::copy(entry.path(), target).map(|_| ()).unwrap()
        }
    }
}

#[test]
fn a_store_that_is_gone_or_behind_is_caught_up() {
    let dir = tempfile::tempdir().unwrap();
    let older = tempfile::tempdir().unwrap();
    fill(dir.path(), 100);
    copy_dir(&dir.path().join("store"), &older.path().join("store"));
    let whole = fill(dir.path(), 500);
    let store = dir.path().join("store");

    std::fs::remove_dir_all(&store).unwrap();
    copy_dir(&older.path().join("store"), &store);
    let (ledger, report) = open(dir.path());
    assert_eq!(report.store, StoreState::CaughtUp { records: 400 });
    assert_eq!(by_team(&ledger), whole);
    ledger.close().unwrap();

    std::fs::remove_dir_all(&store).unwrap();
    let (ledger, report) = open(dir.path());
    assert_eq!(report.store, StoreState::CaughtUp { records: 500 });
    assert_eq!(by_team(&ledger), whole);
    ledger.close().unwrap();

    let (ledger, report) = open(dir.path());
    assert_eq!(report.store, StoreState::Current);
    assert_eq!(by_team(&ledger), whole);
}

#[test]
fn a_store_ahead_or_of_another_ledger_is_built_anew() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let whole = fill(dir.path(), 100);
    fill(other.path(), 50);
    for (case, expected_missing) in [("another ledger", 0), ("ahead", 400)] {
        let store = dir.path().join("store");
        if case == "ahead" {
            let ahead = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), ahead.path());
            fill(ahead.path(), 500);
            std::fs::remove_dir_all(&store).unwrap();
            copy_dir(&ahead.path().join("store"), &store);
        } else {
            std::fs::remove_dir_all(&store).unwrap();
            copy_dir(&other.path().join("store"), &store);
        }
        let (ledger, report) = open(dir.path());
        assert!(matches!(report.store, StoreState::Rebuilt { records: 100, .. }), "{case}: {report:?}");
        assert_eq!(report.records_missing, expected_missing, "{case}");
        assert_eq!(by_team(&ledger), whole, "{case}");
        ledger.close().unwrap();
        assert_eq!(verify(dir.path()).unwrap().store, StoreCheck::Agrees);
    }
    let broken: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("store.broken-"))
        .collect();
    assert_eq!(broken.len(), 1, "one store is kept aside");
}

/// Random bytes over sled's files: whatever sled does, the figures are right.
#[test]
fn a_store_full_of_noise_never_changes_a_figure() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fill(dir.path(), 300);
    let saved = tempfile::tempdir().unwrap();
    copy_dir(&dir.path().join("store"), &saved.path().join("store"));
    let mut seed = 1_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    for round in 0..24 {
        let store = dir.path().join("store");
        std::fs::remove_dir_all(&store).unwrap();
        copy_dir(&saved.path().join("store"), &store);
        for entry in std::fs::read_dir(&store).unwrap() {
            let path = entry.unwrap().path();
            if !path.is_file() {
                continue;
            }
            let mut bytes = std::fs::read(&path).unwrap();
            if bytes.is_empty() {
                continue;
            }
            for _ in 0..=round {
                let at = random() % bytes.len().min(20_000);
                let end = (at + random() % 64 + 1).min(bytes.len());
                bytes[at..end].iter_mut().for_each(|byte| *byte = random() as u8);
            }
            std::fs::write(&path, &bytes).unwrap();
        }
        let (ledger, report) = open(dir.path());
        assert_eq!(by_team(&ledger), whole, "round {round}: {report:?}");
        ledger.close().unwrap();
    }
}

#[test]
fn a_store_path_that_cannot_be_a_directory_leaves_reports_to_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fill(dir.path(), 50);
    std::fs::remove_dir_all(dir.path().join("store")).unwrap();
    std::fs::write(dir.path().join("store"), b"a file").unwrap();
    let (ledger, report) = open(dir.path());
    assert!(matches!(report.store, StoreState::Rebuilt { records: 50, .. }), "{report:?}");
    assert_eq!(by_team(&ledger).totals, whole.totals);
}

/// Flips one bit in the middle of the record with this sequence.
fn damage_record(dir: &Path, sequence: u64) {
    let found = crate::journal::find::find(&dir.join("journal")).unwrap().unwrap();
    let segment = found
        .segments
        .iter()
        .find(|segment| (segment.first_sequence..=segment.last_sequence).contains(&sequence))
        .unwrap();
    let mut bytes = std::fs::read(&segment.path).unwrap();
    let magic = crate::journal::format::FRAME_MAGIC;
    let frames: Vec<usize> = (0..bytes.len() - 4).filter(|at| bytes[*at..at + 4] == magic).collect();
    let frame = frames[(sequence - segment.first_sequence) as usize];
    bytes[frame + 60] ^= 4;
    std::fs::write(&segment.path, bytes).unwrap();
}

fn fill_one_by_one(dir: &Path, count: u64) {
    let (ledger, _) = open(dir);
    for n in 0..count {
        let _ = put(&ledger, plain_record(n));
    }
    ledger.close().unwrap();
}

#[test]
fn a_lost_last_record_that_had_been_acknowledged_is_reported_as_missing() {
    let dir = tempfile::tempdir().unwrap();
    fill_one_by_one(dir.path(), 10);
    damage_record(dir.path(), 10);
    let (ledger, report) = open(dir.path());
    let tail = report.torn_tail.unwrap();
    assert_eq!((tail.first_sequence, tail.records), (10, Some(1)));
    assert_eq!((report.records_missing, report.last_sequence), (1, 9));
    assert_eq!(ledger.usage(&UsageQuery::default()).unwrap().totals.requests, 9);
}

#[test]
fn damage_within_the_open_segment_is_refused_with_its_range() {
    let dir = tempfile::tempdir().unwrap();
    fill_one_by_one(dir.path(), 10);
    damage_record(dir.path(), 4);
    match open_with(Arc::new(RealDisk), options(dir.path())).unwrap_err() {
        OpenError::Damaged(damage) => {
            assert_eq!((damage.segment, damage.first_sequence, damage.last_sequence), (1, 4, Some(4)));
        }
        other => panic!("{other}"),
    }
    assert!(OfflineLedger::open(dir.path()).is_err());
}

#[test]
fn damage_in_a_sealed_segment_never_reaches_a_figure() {
    let dir = tempfile::tempdir().unwrap();
    fill_one_by_one(dir.path(), 100);
    damage_record(dir.path(), 4);
    assert!(matches!(verify(dir.path()), Err(VerifyError::Read(ReadError::Damaged(_)))));
    match open_with(Arc::new(RealDisk), options(dir.path())) {
        Err(OpenError::Damaged(damage)) => assert_eq!((damage.segment, damage.first_sequence), (1, 4)),
        Err(other) => panic!("{other}"),
        // Opening need not read every old segment; the rollups are right, and a scan refuses.
        Ok((ledger, _)) => {
            assert_eq!(by_team(&ledger).totals.requests, 100);
            let query = UsageQuery { by: vec![GroupKey::Session], ..UsageQuery::default() };
            assert!(matches!(ledger.usage(&query), Err(QueryError::Read(ReadError::Damaged(_)))));
        }
    }
}

// === settling ===

#[test]
fn a_repeat_is_a_no_op_at_any_age_and_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    for n in 0..400 {
        assert_eq!(put(&ledger, plain_record(n)), Ok(Appended::Recorded { sequence: n + 1 }));
    }
    assert_eq!(put(&ledger, plain_record(399)), Ok(Appended::AlreadyThere));
    assert_eq!(put(&ledger, plain_record(0)), Ok(Appended::AlreadyThere));
    ledger.close().unwrap();
    let (ledger, _) = open(dir.path());
    for n in (0..400).step_by(7) {
        assert_eq!(put(&ledger, plain_record(n)), Ok(Appended::AlreadyThere));
    }
    assert_eq!(put(&ledger, plain_record(400)), Ok(Appended::Recorded { sequence: 401 }));
    let stats = ledger.stats();
    assert_eq!((stats.last_sequence, stats.repeated, stats.dropped), (401, 58, 0));
}

#[test]
fn repeats_within_one_group_count_once() {
    let dir = tempfile::tempdir().unwrap();
    let group = Options { durability: Durability::Group, ..options(dir.path()) };
    let (ledger, _) = open_with(Arc::new(RealDisk), group).unwrap();
    let receipts: Vec<_> = (0..100)
        .map(|n| ledger.append(Box::new(plain_record(n % 10)), Wait::Acknowledged).unwrap())
        .collect();
    let recorded = receipts.into_iter().filter_map(|receipt| match receipt.wait().unwrap() {
        Appended::Recorded { sequence } => Some(sequence),
        _ => None,
    });
    assert_eq!(recorded.collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    ledger.close().unwrap();
    assert_eq!(verify(dir.path()).unwrap().records, 10);
}

fn poll(n: u64, meter_id: &str, tokens: Option<u64>) -> UsageRecord {
    let mut record = plain_record(n);
    record.metering = Metering::OncePerId;
    record.meter_id = Some(name(meter_id));
    record.usage = bursar_domain::Usage::unknown();
    if let Some(tokens) = tokens {
        record.usage.set(TokenClass::OutputText, tokens);
    }
    record
}

#[test]
fn polls_of_one_reply_count_their_tokens_once_also_across_restarts_and_rebuilds() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let _ = put(&ledger, poll(1, "resp_1", None));
    let _ = put(&ledger, poll(2, "resp_1", Some(50)));
    let _ = put(&ledger, poll(3, "resp_1", Some(50)));
    ledger.close().unwrap();
    let (ledger, _) = open(dir.path());
    let _ = put(&ledger, poll(4, "resp_1", Some(50)));
    let _ = put(&ledger, poll(5, "resp_2", Some(7)));
    ledger.close().unwrap();
    std::fs::remove_dir_all(dir.path().join("store")).unwrap();
    let (ledger, _) = open(dir.path());
    let _ = put(&ledger, poll(6, "resp_2", Some(7)));
    let totals = ledger.usage(&UsageQuery::default()).unwrap().totals;
    assert_eq!((totals.requests, totals.counted), (6, 2));
    assert_eq!(totals.usage.output_total(), Some(57));
    assert_eq!(totals.money()[0].list.pico(), Some(57 * 1_250_000));
    let counted: Vec<_> = ledger
        .records(RecordRange::default())
        .map(|s| s.unwrap())
        .filter(|s| s.counted)
        .map(|s| s.sequence)
        .collect();
    assert_eq!(counted, vec![2, 5]);
    let costs =
        ledger.records(RecordRange::default()).filter(|s| s.as_ref().unwrap().record.cost.is_some()).count();
    assert_eq!(costs, 2, "what does not count has no cost");
    ledger.close().unwrap();
    assert_eq!(verify(dir.path()).unwrap().store, StoreCheck::Agrees);
}

#[test]
fn once_per_id_holds_when_the_store_is_given_up_midway() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let _ = put(&ledger, poll(1, "resp_1", Some(50)));
    ledger.checkpoint().unwrap();
    let _ = put(&ledger, poll(2, "resp_2", Some(5)));
    crate::query::RollupSource::give_up(
        &*ledger.inner.shared,
        &crate::store::StoreError::Damaged("on purpose"),
    );
    let _ = put(&ledger, poll(3, "resp_1", Some(50)));
    let _ = put(&ledger, poll(4, "resp_2", Some(5)));
    let _ = put(&ledger, poll(5, "resp_3", Some(1)));
    let report = ledger.usage(&UsageQuery::default()).unwrap();
    assert_eq!((report.read_from, report.totals.usage.output_total()), (ReadFrom::Records, Some(56)));
    assert!(matches!(ledger.stats().health, Health::Degraded(_)));
    ledger.close().unwrap();
    let (ledger, report) = open(dir.path());
    assert!(matches!(report.store, StoreState::CaughtUp { .. }), "{report:?}");
    assert_eq!(ledger.usage(&UsageQuery::default()).unwrap().totals.usage.output_total(), Some(56));
}

#[test]
fn a_panicking_pricer_leaves_a_record_unpriced() {
    let dir = tempfile::tempdir().unwrap();
    let pricer = Arc::new(|_: &UsageRecord| -> bursar_domain::Cost { panic!("on purpose") });
    let (ledger, _) = Ledger::open(options(dir.path()), Arc::new(SystemClock), pricer).unwrap();
    assert!(put(&ledger, plain_record(1)).is_ok());
    assert_eq!(ledger.usage(&UsageQuery::default()).unwrap().totals.unpriced, 1);
}

#[test]
fn a_usage_object_beyond_its_bound_is_dropped_and_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let mut record = plain_record(1);
    record.usage_raw = Some(Arc::from(" ".repeat(USAGE_RAW_BYTES_MAX + 1)));
    let _ = put(&ledger, record);
    let stored = ledger.records(RecordRange::default()).next().unwrap().unwrap();
    assert_eq!(stored.record.usage_raw, None);
    assert!(stored.record.anomalies.contains(bursar_domain::event::Anomaly::MeteringCapped));
}

// === opening ===

#[test]
fn a_second_open_names_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let check = |error: OpenError| match error {
        OpenError::Directory(DirectoryError::InUse { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other}"),
    };
    check(open_with(Arc::new(RealDisk), options(dir.path())).unwrap_err());
    check(OfflineLedger::open(dir.path()).unwrap_err());
    ledger.close().unwrap();
    assert!(OfflineLedger::open(dir.path()).is_ok());
    open(dir.path()).0.close().unwrap();
}

#[test]
fn directories_that_cannot_be_used_are_named_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = open_with(Arc::new(RealDisk), options(&path)).unwrap_err();
        assert!(matches!(error, OpenError::Directory(DirectoryError::NotADirectory { .. })), "{error}");
        assert!(error.to_string().contains("choose another data directory"), "{error}");
    }
    for path in [dir.path().join("nothing"), dir.path().to_owned()] {
        let error = OfflineLedger::open(&path).unwrap_err();
        assert!(matches!(error, OpenError::Directory(DirectoryError::NoLedger { .. })), "{error}");
    }
}

#[test]
fn a_full_disk_at_the_first_open_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let state = FaultState::new(Fault::Write(io::ErrorKind::StorageFull), 1, true);
    let disk = Arc::new(FaultyDisk { real: RealDisk, state });
    let error = open_with(disk, options(dir.path())).unwrap_err();
    assert!(matches!(error, OpenError::Directory(DirectoryError::NoSpace { .. })), "{error}");
    open(dir.path()).0.close().unwrap();
}

#[cfg(unix)]
#[test]
fn everything_is_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    fn check(path: &Path) {
        let about = std::fs::metadata(path).unwrap();
        assert_eq!(about.permissions().mode() & 0o077, 0, "{}", path.display());
        if about.is_dir() {
            std::fs::read_dir(path).unwrap().for_each(|entry| check(&entry.unwrap().path()));
        }
    }
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a/b");
    fill(&dir, 100);
    check(&dir);
}

#[test]
fn reading_offline_changes_nothing_and_agrees() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fill(dir.path(), 200);
    let before = std::fs::read(crate::journal::segment_path(&dir.path().join("journal"), 1)).unwrap();
    let offline = OfflineLedger::open(dir.path()).unwrap();
    let query = UsageQuery { by: vec![GroupKey::Team, GroupKey::Hour], ..UsageQuery::default() };
    assert_eq!(offline.usage(&query).unwrap().rows, whole.rows);
    assert_eq!(offline.records(RecordRange::default()).count(), 200);
    assert_eq!(offline.last_sequence(), 200);
    let after = std::fs::read(crate::journal::segment_path(&dir.path().join("journal"), 1)).unwrap();
    assert_eq!(before, after);
}

#[test]
fn records_can_be_read_in_parts_and_by_time() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 300);
    let (ledger, _) = open(dir.path());
    let sequences = |range| ledger.records(range).map(|s| s.unwrap().sequence).collect::<Vec<_>>();
    let after = RecordRange { after_sequence: 290, ..RecordRange::default() };
    assert_eq!(sequences(after), (291..=300).collect::<Vec<_>>());
    let from = Some(plain_record(100).started_at);
    let to = Some(plain_record(103).started_at);
    assert_eq!(sequences(RecordRange { from, to, after_sequence: 0 }), vec![101, 102, 103]);
}

#[test]
fn a_reader_beside_the_writer_sees_whole_frames_in_sequence() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let reader = ledger.clone();
    let thread = std::thread::spawn(move || {
        let mut last = 0;
        while last < 500 {
            let before = last;
            last = reader.records(RecordRange { after_sequence: before, ..RecordRange::default() }).fold(
                before,
                |last, stored| {
                    let stored = stored.unwrap();
                    assert_eq!(stored.sequence, last + 1);
                    stored.sequence
                },
            );
            assert!(reader.usage(&UsageQuery::default()).unwrap().totals.requests >= last);
        }
    });
    for n in 0..500 {
        drop(ledger.append(Box::new(plain_record(n)), Wait::No).unwrap());
    }
    thread.join().unwrap();
}

// === any sequence of records ===

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever comes, in whatever order and however often, with restarts in between: totals are
    /// those of a naive recount, from rollups and from records, before and after a rebuild.
    #[test]
    fn totals_equal_a_naive_recount(
        records in prop::collection::vec(any_record(), 1..12),
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..40),
        restart_at in any::<prop::sample::Index>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (mut ledger, _) = open(dir.path());
        let restart_at = restart_at.index(order.len());
        let mut naive: BTreeMap<(RequestId, usize), Totals> = BTreeMap::new();
        let mut seen = HashSet::new();
        let mut meters = HashSet::new();
        let mut expected = Totals::default();
        for (step, index) in order.iter().enumerate() {
            let record = index.get(&records);
            drop(ledger.append(Box::new(record.clone()), Wait::No).unwrap());
            if step == restart_at {
                ledger.close().unwrap();
                ledger = open(dir.path()).0;
            }
            if !seen.insert(record.id) {
                continue;
            }
            let counted = match (record.metering, &record.meter_id) {
                (Metering::Never, _) => false,
                (Metering::OncePerId, Some(id)) => {
                    record.usage.has_tokens() && meters.insert((record.provider.clone(), id.clone()))
                }
                _ => true,
            };
            let mut settled = record.clone();
            if counted && settled.cost.is_none() {
                settled.cost = Some(test_price(&settled));
            }
            if counted {
                crate::settle::compare(&mut settled);
            }
            naive.entry((record.id, step)).or_default().add_record(&settled, counted);
            expected.add_record(&settled, counted);
        }
        ledger.checkpoint().unwrap();
        let all = UsageQuery::default();
        let live = ledger.usage(&all).unwrap();
        prop_assert_eq!(live.read_from, ReadFrom::Rollups);
        prop_assert_eq!(&live.totals, &expected);
        prop_assert_eq!(live.totals.requests, naive.len() as u64);
        let session = UsageQuery { by: vec![GroupKey::Session], ..UsageQuery::default() };
        let scanned = ledger.usage(&session).unwrap();
        prop_assert_eq!(scanned.read_from, ReadFrom::Records);
        prop_assert_eq!(&scanned.totals, &expected);
        ledger.close().unwrap();
        let verified = verify(dir.path()).unwrap();
        prop_assert_eq!((&verified.totals, &verified.store), (&expected, &StoreCheck::Agrees));
        std::fs::remove_dir_all(dir.path().join("store")).unwrap();
        let (ledger, _) = open(dir.path());
        prop_assert_eq!(&ledger.usage(&all).unwrap().totals, &expected);
        ledger.close().unwrap();
        prop_assert_eq!(verify(dir.path()).unwrap().hash, verified.hash);
    }
}
