//! Ends and damage at every place: a process that ends at any operation on files of a whole life of a ledger,
//! and any bit or end of any of its files.
//!
//! Sizes: `BURSAR_ENDS_STEP` (every operation when 1) and `BURSAR_DAMAGES` (flips per kind of file; half as
//! many cuts) make the small runs of the tests large; `docs/hardening.md` has the commands.
//!
//! Not here: single faults and what is done about each (`faults`), an end while pruning alone (`retention`).

use crate::codec::tests::{plain_record, test_price};
use crate::faults::{copy_dir, options};
use crate::opening::tests::opening;
use crate::retention::tests::{DyingDisk, LATER, SetClock, THEN, open_at, prune};
use crate::{
    Ledger, Options, PruneAsk, RecordRange, StoreCheck, Totals, UsageQuery, UsageReport, Wait, verify,
};
use bursar_domain::{Outcome, RequestId, Timestamp, UsageRecord};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const RECORDS: u64 = 40;

/// The size that whoever runs the test asks for, or the small one of every day.
fn size(variable: &str, small: u64) -> u64 {
    let asked = std::env::var_os(variable).and_then(|text| text.to_str().and_then(|text| text.parse().ok()));
    asked.unwrap_or(small)
}

/// What was acknowledged before the end.
#[derive(Debug, Default)]
struct Acknowledged {
    records: Vec<u64>,
    openings: Vec<u64>,
}

/// Opens exchanges, settles most of them, grows old, prunes and closes.
fn live(ledger: &Ledger, clock: &SetClock, said: &Mutex<Acknowledged>) -> Option<()> {
    for n in 0..RECORDS {
        let slot = (n % 4 == 0).then(|| ledger.opening(opening(n), Wait::Acknowledged));
        let slot = match slot {
            Some((slot, receipt)) => {
                let _ = receipt.wait().ok()?;
                said.lock().unwrap().openings.push(n);
                Some(slot)
            }
            None => None,
        };
        // Some never end.
        if n % 16 == 0 {
            continue;
        }
        if let Some(slot) = slot {
            ledger.closing(slot);
        }
        let receipt = ledger.append(Box::new(plain_record(n)), Wait::Acknowledged).ok()?;
        let _ = receipt.wait().ok()?;
        said.lock().unwrap().records.push(n);
    }
    clock.set(LATER);
    let before = Timestamp::from_micros(LATER - 40 * 86_400_000_000);
    ledger.prune(&PruneAsk { before, dry_run: false }).ok()?;
    ledger.checkpoint().ok()
}

/// A life that ends at the `nth` operation; whether it was over before.
fn end_at(nth: u64, dir: &Path) -> (bool, Acknowledged) {
    let clock = SetClock::at(THEN);
    let left = Arc::new(AtomicU64::new(nth));
    let said = Mutex::new(Acknowledged::default());
    let disk = Arc::new(DyingDisk(left.clone()));
    let opened = Ledger::open_on(disk, options(dir), clock.clone(), Arc::new(test_price));
    let Ok((ledger, _)) = opened else { return (false, Acknowledged::default()) };
    let is_over = std::thread::scope(|scope| {
        let life = scope.spawn(|| live(&ledger, &clock, &said));
        while left.load(Ordering::SeqCst) > 0 && !life.is_finished() {
            std::thread::yield_now();
        }
        // The writer would try a dead disk again and again.
        let is_over = left.swap(0, Ordering::SeqCst) > 0;
        let _ = ledger.clone().close();
        let done = life.join().unwrap();
        assert!(!is_over || done.is_some(), "the disk lived, and something failed");
        is_over
    });
    drop(ledger);
    (is_over, said.into_inner().unwrap())
}

/// Every record once, all that was acknowledged, and what was under way as interrupted.
fn check_records(nth: u64, ledger: &Ledger, said: &Acknowledged, requests: u64) {
    let stored: Vec<UsageRecord> =
        ledger.records(RecordRange::default()).map(|stored| stored.unwrap().record).collect();
    let unique: HashSet<RequestId> = stored.iter().map(|record| record.id).collect();
    assert_eq!(unique.len(), stored.len(), "operation {nth}: a record is there twice");
    assert_eq!(requests, stored.len() as u64, "operation {nth}");
    let is_missing = |n: &&u64| !unique.contains(&plain_record(**n).id);
    let missing: Vec<&u64> = said.records.iter().filter(is_missing).collect();
    assert_eq!(missing, Vec::<&u64>::new(), "operation {nth}: acknowledged and lost");
    let interrupted = |n: u64| {
        let id = opening(n).id;
        stored.iter().any(|record| record.id == id && record.outcome == Outcome::Interrupted)
    };
    for n in said.openings.iter().filter(|n| !said.records.contains(n)) {
        let is_there = stored.iter().any(|record| record.id == opening(*n).id);
        assert!(interrupted(*n) || (n % 16 != 0 && is_there), "operation {nth}: exchange {n} is gone");
    }
}

/// What must hold after any end: what was acknowledged is there once, totals are a recount, what was under
/// way is interrupted once, and the chain verifies.
fn check_after(nth: u64, dir: &Path, said: &Acknowledged) {
    let clock = SetClock::at(LATER);
    for time in 0..2 {
        let ledger = open_at(dir, &clock);
        ledger.checkpoint().unwrap();
        let totals = ledger.usage(&UsageQuery::default()).unwrap().totals;
        assert!(totals.requests >= said.records.len() as u64, "operation {nth}: {totals:?} {said:?}");
        // Of what was rolled up there are no records, and the totals are those of its segments.
        if ledger.stats().rolled_segments == 0 {
            check_records(nth, &ledger, said, totals.requests);
        }
        ledger.close().unwrap();
        assert_eq!(verify(dir).unwrap().store, StoreCheck::Agrees, "operation {nth}, open {time}");
    }
    // What was there once is there once, also when it comes again; ids that were rolled up are too old for that.
    let ledger = open_at(dir, &clock);
    let before = ledger.usage(&UsageQuery::default()).unwrap().totals.requests;
    let is_rolled = ledger.stats().rolled_segments > 0;
    for n in said.records.iter().filter(|_| !is_rolled) {
        let _ = ledger.append(Box::new(plain_record(*n)), Wait::Acknowledged).unwrap().wait().unwrap();
    }
    ledger.checkpoint().unwrap();
    assert_eq!(ledger.usage(&UsageQuery::default()).unwrap().totals.requests, before, "operation {nth}");
    ledger.close().unwrap();
}

#[test]
fn an_end_at_any_operation_of_a_life_loses_nothing_acknowledged_and_doubles_nothing() {
    let step = size("BURSAR_ENDS_STEP", 5);
    let mut ends = 0;
    for nth in (1..).step_by(usize::try_from(step).unwrap()) {
        let dir = tempfile::tempdir().unwrap();
        let (is_over, said) = end_at(nth, dir.path());
        check_after(nth, dir.path(), &said);
        if is_over {
            break;
        }
        ends += 1;
    }
    eprintln!("{ends} ends, at every operation number {step}");
    assert!(ends > 100 / step, "{ends}");
}

// === damage ===

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end.max(1)
    }
}

/// A ledger with every kind of file: rolls, sealed segments, an open one, a store.
fn whole(dir: &Path) -> UsageReport {
    let clock = SetClock::at(THEN);
    let ledger = open_at(dir, &clock);
    let add = |from: u64, to: u64| {
        for n in from..to {
            let _ = ledger.append(Box::new(plain_record(n)), Wait::Acknowledged).unwrap().wait().unwrap();
        }
    };
    add(0, 50);
    clock.set(LATER);
    prune(&ledger, &clock);
    add(50, 90);
    ledger.checkpoint().unwrap();
    let whole = ledger.usage(&UsageQuery::default()).unwrap();
    ledger.close().unwrap();
    whole
}

/// Every file below `dir` that has anything in it, by its kind.
fn files(dir: &Path) -> BTreeMap<String, Vec<PathBuf>> {
    let (mut kinds, mut left) = (BTreeMap::<String, Vec<PathBuf>>::new(), vec![dir.to_owned()]);
    let mut last_segment = None;
    while let Some(at) = left.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
                continue;
            }
            if std::fs::metadata(&path).unwrap().len() == 0 {
                continue;
            }
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let kind = match name.rsplit_once('.') {
                Some((_, "seg")) => {
                    last_segment = last_segment.max(Some(path.clone()));
                    "sealed segment".to_owned()
                }
                Some((_, "roll")) => "roll".to_owned(),
                _ => name,
            };
            kinds.entry(kind).or_default().push(path.strip_prefix(dir).unwrap().to_owned());
        }
    }
    let open = last_segment.unwrap().strip_prefix(dir).unwrap().to_owned();
    if let Some(sealed) = kinds.get_mut("sealed segment") {
        sealed.retain(|path| *path != open);
    }
    kinds.insert("open segment".to_owned(), vec![open]);
    kinds
}

/// Opens a damaged ledger: it is refused with a reason, or says the same, or says what is gone.
fn check_damage(dir: &Path, expected: &Totals, what: &str) {
    let refused = verify(dir).err();
    let clock = SetClock::at(LATER);
    let opened = Ledger::open_on(
        Arc::new(crate::disk::RealDisk),
        Options { durability: crate::Durability::Sync, ..options(dir) },
        clock.clone(),
        Arc::new(test_price),
    );
    match opened {
        Err(error) => {
            assert!(!error.to_string().is_empty(), "{what}");
            assert!(refused.is_some(), "{what}: opening refuses what verify does not see: {error}");
        }
        Ok((ledger, report)) => {
            if let Ok(found) = ledger.usage(&UsageQuery::default()) {
                let is_told = report.torn_tail.is_some() || report.records_missing > 0;
                let is_less = found.totals.requests < expected.requests;
                assert!(
                    found.totals == *expected || (is_told && is_less),
                    "{what}: a wrong total, unsaid: {report:?}"
                );
            }
            let _ = ledger.close();
        }
    }
}

#[test]
fn no_damage_of_any_kind_of_file_makes_a_wrong_total() {
    let flips = size("BURSAR_DAMAGES", 16);
    let saved = tempfile::tempdir().unwrap();
    let expected = whole(saved.path()).totals;
    let kinds = files(saved.path());
    for kind in ["open segment", "sealed segment", "roll"] {
        assert!(kinds.get(kind).is_some_and(|files| !files.is_empty()), "there is no {kind}: {kinds:?}");
    }
    let mut random = Numbers(7);
    for (kind, paths) in &kinds {
        for number in 0..flips + flips / 2 {
            let dir = tempfile::tempdir().unwrap();
            copy_dir(saved.path(), dir.path());
            let path = dir.path().join(&paths[random.below(paths.len())]);
            let mut bytes = std::fs::read(&path).unwrap();
            let at = random.below(bytes.len());
            let what = if number < flips {
                bytes[at] ^= 1 << random.below(8);
                format!("{kind} {number}: a bit of byte {at} of {}", path.display())
            } else {
                bytes.truncate(at);
                format!("{kind} {number}: {} cut to {at} bytes", path.display())
            };
            std::fs::write(&path, bytes).unwrap();
            check_damage(dir.path(), &expected, &what);
        }
    }
    eprintln!("{flips} flips and {} cuts in each of {:?}", flips / 2, kinds.keys().collect::<Vec<_>>());
}
