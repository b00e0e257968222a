//! Pruning: totals before and after, crashes between any two operations on files, what can still be asked.

use super::*;
use crate::codec::tests::{any_record, plain_record, test_price};
use crate::disk::{DiskFile, RealDisk};
use crate::faults::{copy_dir, options};
use crate::opening::tests::opening;
use crate::{
    Filter, GroupKey, Health, KeyValue, Ledger, OfflineLedger, OpenError, Opening, Options, Pruned,
    QueryError, ReadFrom, RecordRange, StoreCheck, Totals, UsageQuery, UsageReport, VerifyError, Wait,
    backup, restore, verify,
};
use bursar_domain::{Metering, Money, RequestId, UsageRecord};
use proptest::prelude::*;
use std::sync::atomic::{AtomicI64, AtomicU64};

/// A clock that is set.
#[derive(Debug)]
pub(crate) struct SetClock(AtomicI64);

impl SetClock {
    pub(crate) fn at(micros: i64) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(micros)))
    }

    pub(crate) fn set(&self, micros: i64) {
        self.0.store(micros, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// When the plain records begin, and long after.
pub(crate) const THEN: i64 = 1_767_225_600_000_000;
pub(crate) const LATER: i64 = THEN + 100 * DAY_MICROS as i64;

pub(crate) fn open_at(dir: &Path, clock: &Arc<SetClock>) -> Ledger {
    open_on(Arc::new(RealDisk), dir, clock)
}

pub(crate) fn open_on(disk: Arc<dyn Disk>, dir: &Path, clock: &Arc<SetClock>) -> Ledger {
    Ledger::open_on(disk, options(dir), clock.clone(), Arc::new(test_price)).unwrap().0
}

fn put(ledger: &Ledger, record: UsageRecord) -> Appended {
    ledger.append(Box::new(record), Wait::Acknowledged).unwrap().wait().unwrap()
}

fn add(ledger: &Ledger, record: UsageRecord) {
    assert!(matches!(put(ledger, record), Appended::Recorded { .. } | Appended::AlreadyThere));
}

/// Gives up everything that was written 40 days before the clock.
pub(crate) fn prune(ledger: &Ledger, clock: &SetClock) -> PruneReport {
    let before = days_before(clock.now(), 40);
    ledger.prune(&PruneAsk { before, dry_run: false }).unwrap()
}

/// A ledger of `count` plain records, most of them in sealed segments, then 100 days later one more.
fn filled(dir: &Path, clock: &Arc<SetClock>, count: u64) -> Ledger {
    let ledger = open_at(dir, clock);
    (0..count).for_each(|n| add(&ledger, plain_record(n)));
    clock.set(LATER);
    ledger
}

fn ask(by: &[GroupKey]) -> UsageQuery {
    UsageQuery { by: by.to_vec(), ..UsageQuery::default() }
}

fn answers(ask_usage: impl Fn(&UsageQuery) -> Result<UsageReport, QueryError>) -> Vec<UsageReport> {
    let questions = [
        ask(&[]),
        ask(&[GroupKey::Team, GroupKey::Hour]),
        ask(&[GroupKey::Workload, GroupKey::Provider, GroupKey::Model, GroupKey::Day]),
        ask(&[
            GroupKey::Route,
            GroupKey::Api,
            GroupKey::Tier,
            GroupKey::Outcome,
            GroupKey::Source,
            GroupKey::Month,
        ]),
        UsageQuery {
            filter: vec![Filter { key: GroupKey::Team, value: Some("checkout".to_owned()) }],
            ..ask(&[GroupKey::Model])
        },
    ];
    questions.iter().map(|question| ask_usage(question).unwrap()).collect()
}

/// The figures alone: checkpoints are in the journal too.
fn figures(reports: &[UsageReport]) -> Vec<(Vec<crate::UsageRow>, Totals)> {
    reports.iter().map(|report| (report.rows.clone(), report.totals.clone())).collect()
}

fn seg_bytes(dir: &Path) -> u64 {
    std::fs::read_dir(dir.join("journal")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever was recorded: reports, facts and what counts once are the same before and after pruning,
    /// from the database, from the journal alone, and after the database is gone.
    #[test]
    fn totals_facts_and_ids_are_conserved(
        records in prop::collection::vec(any_record(), 60..120),
        repeats in prop::collection::vec(any::<prop::sample::Index>(), 1..8),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let clock = SetClock::at(THEN);
        let ledger = open_at(dir.path(), &clock);
        for (n, record) in (0_u64..).zip(&records) {
            add(&ledger, record.clone());
            if n % 16 == 0 {
                let (_slot, receipt) = ledger.opening(opening(900 + n), Wait::Acknowledged);
                let _ = receipt.wait().unwrap();
                ledger.append_facts(dated(vec![note(n)], clock.as_ref()).unwrap()).unwrap();
            }
        }
        clock.set(LATER);
        // What is written now keeps the segment before it from being the open one.
        (0..30).for_each(|n| add(&ledger, plain_record(100_000_000 + n)));
        let before = answers(|question| ledger.usage(question));
        let facts_before = facts_of(&ledger);
        let bytes_before = seg_bytes(dir.path());
        let report = prune(&ledger, &clock);
        prop_assert!(report.segments > 0 && report.left_for_later == 0, "{:?}", report);
        prop_assert!(seg_bytes(dir.path()) < bytes_before + 4096);
        prop_assert_eq!(figures(&answers(|question| ledger.usage(question))), figures(&before));
        prop_assert_eq!(facts_of(&ledger), facts_before.clone());
        ledger.close().unwrap();
        let verified = verify(dir.path()).unwrap();
        prop_assert_eq!((&verified.totals, verified.store), (&before[0].totals, StoreCheck::Agrees));
        prop_assert!(verified.rolled > 0);
        let offline = OfflineLedger::open(dir.path()).unwrap();
        prop_assert_eq!(figures(&answers(|question| offline.usage(question))), figures(&before));
        let offline = offline.from_records();
        prop_assert_eq!(figures(&answers(|question| offline.usage(question))), figures(&before));
        drop(offline);
        std::fs::remove_dir_all(dir.path().join("store")).unwrap();
        let ledger = open_at(dir.path(), &clock);
        ledger.checkpoint().unwrap();
        prop_assert_eq!(facts_of(&ledger), facts_before);
        let open = records.len().div_ceil(16) as u64;
        let after = ledger.usage(&ask(&[])).unwrap();
        prop_assert_eq!(after.totals.outcome(bursar_domain::Outcome::Interrupted), open + before[0].totals.outcome(bursar_domain::Outcome::Interrupted));
        // What counted once counts no second time, though its record is gone.
        let counted = after.totals.counted;
        for (n, index) in (0_u128..).zip(&repeats) {
            let record = index.get(&records);
            if record.metering == Metering::OncePerId && record.meter_id.is_some() {
                let id = RequestId::new(clock.now(), n);
                add(&ledger, UsageRecord { id, started_at: clock.now(), ..record.clone() });
            }
        }
        prop_assert_eq!(ledger.usage(&ask(&[])).unwrap().totals.counted, counted);
        ledger.close().unwrap();
        prop_assert_eq!(verify(dir.path()).unwrap().store, StoreCheck::Agrees);
    }
}

fn note(n: u64) -> NewFact {
    let name = Label::lossy(&format!("USD/EUR {n}")).unwrap();
    NewFact { kind: FactKind::Fx, name, body: format!("{{\"n\":{n}}}").into() }
}

fn facts_of(ledger: &Ledger) -> Vec<StoredFact> {
    let mut facts: Vec<StoredFact> = ledger.facts().iter().map(|stored| stored.as_ref().clone()).collect();
    facts.retain(|stored| stored.fact.kind != FactKind::Checkpoint);
    facts
}

// === crashes ===

/// A disk that dies at its n-th operation of any kind: that one is done by half, none after it at all.
#[derive(Debug)]
pub(crate) struct DyingDisk(pub(crate) Arc<AtomicU64>);

impl DyingDisk {
    fn live(left: &AtomicU64) -> io::Result<()> {
        match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(1) | Err(_) => Err(io::Error::other("dead")),
            Ok(_) => Ok(()),
        }
    }
}

impl Disk for DyingDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Self::live(&self.0)?;
        Ok(Box::new(DyingFile { real: RealDisk.create(path)?, left: self.0.clone() }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Self::live(&self.0)?;
        Ok(Box::new(DyingFile { real: RealDisk.open(path)?, left: self.0.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Self::live(&self.0)?;
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Self::live(&self.0)?;
        RealDisk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        Self::live(&self.0)?;
        RealDisk.sync_dir(dir)
    }
}

#[derive(Debug)]
struct DyingFile {
    real: Box<dyn DiskFile>,
    left: Arc<AtomicU64>,
}

impl DiskFile for DyingFile {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let was_alive = self.left.load(Ordering::SeqCst) > 0;
        if let Err(error) = DyingDisk::live(&self.left) {
            if was_alive {
                self.real.write_all_at(&bytes[..bytes.len() / 2], offset)?;
            }
            return Err(error);
        }
        self.real.write_all_at(bytes, offset)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        DyingDisk::live(&self.left)?;
        self.real.sync_data()
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        DyingDisk::live(&self.left)?;
        self.real.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.real.len()
    }
}

/// The machine stops before, in the middle of, or after any operation of pruning: the next opening finds
/// each segment or its roll, all totals, and a chain that verifies; and pruning can go on.
#[test]
fn an_end_at_any_operation_on_files_leaves_the_old_or_the_new() {
    let whole = tempfile::tempdir().unwrap();
    let clock = SetClock::at(THEN);
    filled(whole.path(), &clock, 50).close().unwrap();
    let expected = verify(whole.path()).unwrap().totals;
    let (mut detail_left, mut rolled_left, mut ends) = (0, 0, 0);
    for nth in 1.. {
        let dir = tempfile::tempdir().unwrap();
        copy_dir(whole.path(), dir.path());
        let left = Arc::new(AtomicU64::new(u64::MAX));
        let ledger = open_on(Arc::new(DyingDisk(left.clone())), dir.path(), &clock);
        left.store(nth, Ordering::SeqCst);
        let old = PruneAsk { before: days_before(clock.now(), 40), dry_run: false };
        let done = std::thread::scope(|scope| {
            let pruning = scope.spawn(|| ledger.prune(&old));
            while left.load(Ordering::SeqCst) > 0 && !pruning.is_finished() {
                std::thread::yield_now();
            }
            // The writer would try a dead disk again and again.
            let is_over = left.swap(0, Ordering::SeqCst) > 0;
            let _ = ledger.clone().close();
            (pruning.join().unwrap(), is_over)
        });
        let (done, is_over) = done;
        assert_eq!(done.is_ok(), is_over, "operation {nth}: {done:?}");
        drop(ledger);

        let found = verify(dir.path()).unwrap();
        assert_eq!(found.totals, expected, "operation {nth}");
        if found.rolled == 0 {
            detail_left += 1
        } else {
            rolled_left += 1
        }
        let ledger = open_at(dir.path(), &clock);
        assert_eq!(ledger.usage(&ask(&[])).unwrap().totals, expected);
        let again = prune(&ledger, &clock);
        assert_eq!(ledger.stats().rolled_segments, 3, "{again:?}");
        ledger.close().unwrap();
        let verified = verify(dir.path()).unwrap();
        assert_eq!((&verified.totals, verified.store), (&expected, StoreCheck::Agrees), "operation {nth}");
        let extensions = ["seg", "roll"].map(|e| crate::journal::find::list(&dir.path().join("journal"), e));
        let counts = extensions.map(|files| files.unwrap().len());
        assert_eq!(counts, [1, 3], "operation {nth}");
        if is_over {
            break;
        }
        ends += 1;
    }
    assert!(detail_left > 5 && rolled_left > 5, "{ends} ends: {detail_left} old, {rolled_left} new");
}

// === questions ===

fn is_pruned(error: &QueryError) -> bool {
    matches!(error, QueryError::Read(ReadError::Pruned(_)))
}

#[test]
fn detail_that_is_not_kept_is_refused_with_its_time_never_summed_in_part() {
    let dir = tempfile::tempdir().unwrap();
    let clock = SetClock::at(THEN);
    let ledger = filled(dir.path(), &clock, 120);
    let report = prune(&ledger, &clock);
    let until = report.until.unwrap();
    for ledger_or_not in [true, false] {
        let usage = |question: &UsageQuery| {
            if ledger_or_not {
                ledger.usage(question)
            } else {
                crate::query::from_records(&ledger.inner.shared.view(), question)
            }
        };
        for key in
            [GroupKey::Customer, GroupKey::Session, GroupKey::ModelRequested, GroupKey::Tag("x".to_owned())]
        {
            let error = usage(&ask(&[key])).unwrap_err();
            assert!(is_pruned(&error) && error.to_string().contains("2026-01-01T00:0"), "{error}");
        }
        let half = Some(Timestamp::from_micros(THEN + 5_000_000));
        assert!(is_pruned(&usage(&UsageQuery { from: half, ..ask(&[]) }).unwrap_err()));
        let zone = jiff::tz::TimeZone::get("Asia/Kolkata").unwrap();
        assert!(is_pruned(&usage(&UsageQuery { zone, ..ask(&[GroupKey::Hour]) }).unwrap_err()));
        let after = Some(until.plus_micros(1));
        let kept = usage(&UsageQuery { from: after, ..ask(&[GroupKey::Session]) }).unwrap();
        assert_eq!(kept.totals.requests + report.records, 120);
        assert_eq!(usage(&ask(&[GroupKey::Team])).unwrap().totals.requests, 120);
    }
    let error = ledger.records(RecordRange::default()).next().unwrap().unwrap_err();
    let ReadError::Pruned(Pruned { until: told, last_sequence }) = error else { panic!("{error}") };
    assert_eq!((told, Some(last_sequence)), (until, report.last_sequence));
    let kept = RecordRange { after_sequence: last_sequence, ..RecordRange::default() };
    assert_eq!(ledger.records(kept).count() as u64 + report.records, 120);
    let (grains, _) = ledger.usage_by_grain(&ask(&[GroupKey::Team]), &|_: &[KeyValue]| true).unwrap();
    let offline = crate::query::by_grain_of_records(
        &ledger.inner.shared.view(),
        &ask(&[GroupKey::Team]),
        &|_: &[KeyValue]| true,
    );
    assert_eq!(grains, offline.unwrap());
    assert_eq!(grains.iter().map(|row| row.totals.requests).sum::<u64>(), 120);
    ledger.close().unwrap();
}

#[test]
fn what_is_kept_and_why_is_told_and_ids_are_known_for_35_days() {
    let dir = tempfile::tempdir().unwrap();
    let clock = SetClock::at(THEN);
    let ledger = filled(dir.path(), &clock, 120);
    let now = clock.now();
    let too_recent = PruneAsk { before: days_before(now, DETAIL_DAYS_MIN).plus_micros(1), dry_run: true };
    let error = ledger.prune(&too_recent).unwrap_err();
    assert!(
        matches!(error, PruneError::TooRecent { .. }) && error.to_string().contains("35 days"),
        "{error}"
    );

    let before = days_before(now, DETAIL_DAYS_MIN);
    let dry = ledger.prune(&PruneAsk { before, dry_run: true }).unwrap();
    assert!(dry.segments > 2 && dry.rolled_bytes.is_none());
    assert!(matches!(dry.kept, Some(Kept::Open { .. })), "{dry:?}");
    assert_eq!(ledger.stats().rolled_segments, 0, "a dry run changes nothing");
    assert_eq!(put(&ledger, plain_record(0)), Appended::AlreadyThere);

    let done = ledger.prune(&PruneAsk { before, dry_run: false }).unwrap();
    assert_eq!(PruneReport { rolled_bytes: None, ..done.clone() }, dry);
    assert!(done.rolled_bytes.unwrap() < done.bytes);
    let again = ledger.prune(&PruneAsk { before, dry_run: false }).unwrap();
    assert_eq!(again.segments, 0);
    // Records that were written lately stay, however long ago they began.
    (200..260).for_each(|n| add(&ledger, plain_record(n)));
    let late = ledger.prune(&PruneAsk { before, dry_run: false }).unwrap();
    assert!(matches!(late.kept, Some(Kept::Written { at, .. }) if at == now), "{late:?}");
    ledger.close().unwrap();
}

#[test]
fn an_exchange_that_was_opened_in_a_segment_that_is_gone_is_settled_once() {
    let dir = tempfile::tempdir().unwrap();
    let clock = SetClock::at(THEN);
    let ledger = open_at(dir.path(), &clock);
    let held = Some(Money::from_pico(bursar_domain::Currency::USD, 7));
    let (_, receipt) = ledger.opening(Opening { held_cost: held, ..opening(500) }, Wait::Acknowledged);
    let _ = receipt.wait().unwrap();
    let (slot, receipt) = ledger.opening(opening(501), Wait::Acknowledged);
    let _ = receipt.wait().unwrap();
    (0..120).for_each(|n| add(&ledger, plain_record(n)));
    ledger.closing(slot);
    add(&ledger, plain_record(501));
    clock.set(LATER);
    assert!(prune(&ledger, &clock).segments >= 2);
    assert_eq!(ledger.stats().open, 1);
    ledger.close().unwrap();
    assert_eq!(verify(dir.path()).unwrap().open, 1);
    std::fs::remove_dir_all(dir.path().join("store")).unwrap();
    for (time, interrupted) in [(0, 1), (1, 0)] {
        let opened = Ledger::open(options(dir.path()), clock.clone(), Arc::new(test_price)).unwrap();
        assert_eq!(opened.1.interrupted, interrupted, "opening {time}");
        opened.0.checkpoint().unwrap();
        let found = opened.0.interrupted(RecordRange::default()).unwrap();
        assert_eq!(
            found.iter().map(|one| (one.record.id, one.held_cost)).collect::<Vec<_>>(),
            [(opening(500).id, held)]
        );
        opened.0.close().unwrap();
    }
    // Also when its record is gone in turn.
    let ledger = open_at(dir.path(), &clock);
    (1_000..1_060).for_each(|n| add(&ledger, plain_record(n)));
    clock.set(LATER + 100 * DAY_MICROS as i64);
    assert!(prune(&ledger, &clock).segments > 0);
    assert_eq!(ledger.interrupted(RecordRange::default()).unwrap().len(), 1);
    ledger.close().unwrap();
    assert_eq!(verify(dir.path()).unwrap().open, 0);
}

#[test]
fn a_reader_under_way_keeps_its_segments_until_it_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let clock = SetClock::at(THEN);
    let ledger = filled(dir.path(), &clock, 120);
    let mut reader = ledger.records(RecordRange::default());
    let first = reader.next().unwrap().unwrap();
    assert_eq!(first.sequence, 1);
    let report = prune(&ledger, &clock);
    assert!(report.left_for_later > 0);
    assert_eq!(reader.map(Result::unwrap).count(), 119);
    assert_eq!(prune(&ledger, &clock).left_for_later, 0);
    assert_eq!(ledger.stats().health, Health::Healthy);
    ledger.close().unwrap();
}

#[test]
fn with_a_retention_it_happens_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let clock = SetClock::at(THEN);
    filled(dir.path(), &clock, 120).close().unwrap();
    let detail = Duration::from_secs(90 * 86_400);
    let retention = Some(Retention { detail, look_every: Duration::from_millis(1) });
    let options = Options { retention, ..options(dir.path()) };
    let (ledger, _) = Ledger::open(options, clock.clone(), Arc::new(test_price)).unwrap();
    while ledger.stats().rolled_segments == 0 {
        std::thread::yield_now();
    }
    // A segment gets no frame after a day.
    let segments = ledger.stats().segments;
    add(&ledger, plain_record(500));
    clock.set(LATER + 2 * DAY_MICROS as i64);
    add(&ledger, plain_record(501));
    assert!(ledger.stats().segments > segments);
    ledger.close().unwrap();
    assert_eq!(verify(dir.path()).unwrap().records, 122);
}

#[test]
fn a_clock_that_jumped_ahead_removes_nothing() {
    let check = |wall: u64, passed: u64, jumped: bool| {
        let (wall, passed) = (Duration::from_secs(wall), Duration::from_secs(passed));
        assert_eq!(has_jumped(wall.as_micros() as u64, passed), jumped, "{wall:?} in {passed:?}");
    };
    check(600, 600, false);
    check(600 + 3_600, 600, false);
    check(600 + 3_601, 600, true);
    check(86_400 * 365, 600, true);
    check(86_400 * 365, 86_400 * 365, false);
}

// === damage ===

/// A segment's roll with any of its bits flipped, cut anywhere, emptied or gone: never another total.
#[test]
fn a_damaged_roll_is_refused_by_name() {
    let whole = tempfile::tempdir().unwrap();
    let clock = SetClock::at(THEN);
    let ledger = filled(whole.path(), &clock, 120);
    prune(&ledger, &clock);
    ledger.close().unwrap();
    let totals = verify(whole.path()).unwrap().totals;
    let dir = tempfile::tempdir().unwrap();
    copy_dir(whole.path(), dir.path());
    std::fs::remove_dir_all(dir.path().join("store")).unwrap();
    let path = roll_path(&dir.path().join("journal"), 2);
    let bytes = std::fs::read(&path).unwrap();
    let check = |what: &str, expect_refusal: bool| match verify(dir.path()) {
        Ok(verified) => {
            assert!(!expect_refusal, "{what}");
            assert_eq!(verified.totals, totals, "{what}");
        }
        Err(
            VerifyError::Open(OpenError::Damaged(damage)) | VerifyError::Read(ReadError::Damaged(damage)),
        ) => {
            assert!((1..=3).contains(&damage.segment), "{what}: {damage}");
        }
        Err(other) => panic!("{what}: {other}"),
    };
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bad).unwrap();
        check(&format!("byte {at}"), true);
    }
    for at in (0..bytes.len()).step_by(13) {
        std::fs::write(&path, &bytes[..at]).unwrap();
        check(&format!("cut at {at}"), true);
    }
    std::fs::write(&path, vec![0; bytes.len()]).unwrap();
    check("zeroed", true);
    std::fs::remove_file(&path).unwrap();
    check("gone", true);
    std::fs::write(&path, &bytes).unwrap();
    check("as it was", false);
    // The opening refuses too: there is no store that could answer.
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let opened = Ledger::open(options(dir.path()), clock.clone(), Arc::new(test_price));
    assert!(matches!(opened, Err(OpenError::Damaged(_))));
}

#[test]
fn another_roll_with_right_checksums_is_found_because_the_journal_does_not_vouch_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let clock = SetClock::at(THEN);
    let ledger = filled(dir.path(), &clock, 120);
    prune(&ledger, &clock);
    let roll = ledger.inner.shared.view().rolled[0].clone();
    ledger.close().unwrap();
    let mut contents = roll.read().unwrap();
    contents.rollups[0].1.bytes_in += 1;
    let forged = crate::journal::roll::assemble(roll.header, &contents).unwrap();
    std::fs::write(&roll.path, forged.bytes).unwrap();
    let error = verify(dir.path()).unwrap_err();
    assert!(error.to_string().contains("is not the one that was made"), "{error}");
}

#[test]
fn a_backup_of_a_pruned_ledger_restores_and_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let clock = SetClock::at(THEN);
    let ledger = filled(&path, &clock, 120);
    prune(&ledger, &clock);
    let copied = backup(&path, &dir.path().join("copy")).unwrap();
    let (restored, verified) = restore(&copied.path, &dir.path().join("again")).unwrap();
    assert_eq!(verified.totals, ledger.usage(&ask(&[])).unwrap().totals);
    let again = open_at(&restored.path, &clock);
    let report = again.usage(&ask(&[GroupKey::Team])).unwrap();
    assert_eq!((report.read_from, report.totals.requests), (ReadFrom::Rollups, 120));
    assert_eq!(put(&again, plain_record(119)), Appended::AlreadyThere);
    again.close().unwrap();
    ledger.close().unwrap();
}
