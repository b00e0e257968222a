//! What becomes of exchanges that were under way when the process ended.

use crate::codec::tests::{plain_record, test_price};
use crate::faults::{open, options};
use crate::opening::tests::opening;
use crate::{
    Appended, Durability, Ledger, Observer, Opening, Options, Receipt, RecordRange, StoreCheck, StoredRecord,
    Wait, verify,
};
use bursar_domain::{Currency, Money, Outcome, RequestId, SystemClock, Timestamp, UsageRecord, UsageSource};
use std::path::Path;
use std::sync::{Arc, Mutex};

fn records(ledger: &Ledger) -> Vec<StoredRecord> {
    ledger.records(RecordRange::default()).map(Result::unwrap).collect()
}

fn begin(ledger: &Ledger, n: u64) -> crate::OpenSlot {
    let (slot, receipt) = ledger.opening(opening(n), Wait::Acknowledged);
    assert!(matches!(receipt.wait(), Ok(Appended::Recorded { .. })));
    slot
}

fn end(ledger: &Ledger, n: u64, slot: crate::OpenSlot) -> Receipt {
    ledger.closing(slot);
    ledger.append(Box::new(plain_record(n)), Wait::Acknowledged).unwrap()
}

/// Opens the ledger `times` times; the first must settle `interrupted`, the others nothing.
fn check_restarts(dir: &Path, interrupted: &[u64]) {
    for time in 0..3 {
        let (ledger, report) = open(dir);
        let expected = if time == 0 { interrupted.len() as u64 } else { 0 };
        assert_eq!(report.interrupted, expected, "open number {time}");
        ledger.checkpoint().unwrap();
        let found: Vec<_> =
            records(&ledger).into_iter().filter(|s| s.record.outcome == Outcome::Interrupted).collect();
        assert_eq!(found.len(), interrupted.len());
        for (stored, n) in found.iter().zip(interrupted) {
            let (record, known) = (&stored.record, opening(*n));
            assert_eq!((record.id, &record.identity), (known.id, &known.identity));
            assert_eq!((&record.model_requested, record.usage_source), (&known.model, UsageSource::Absent));
            assert_eq!((record.usage.has_tokens(), record.http_status), (false, None));
            assert_eq!(record.cost.as_ref().unwrap().price_rows.len(), 1, "it was priced like any other");
        }
        assert_eq!(ledger.stats().open, 0);
        ledger.close().unwrap();
        let verified = verify(dir).unwrap();
        assert_eq!((verified.open, verified.store), (0, StoreCheck::Agrees));
    }
}

#[test]
fn an_exchange_under_way_at_the_end_is_interrupted_once() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let _never_ends = begin(&ledger, 1);
    let ends = begin(&ledger, 2);
    assert_eq!(ledger.stats().open, 2);
    let _ = end(&ledger, 2, ends).wait().unwrap();
    ledger.close().unwrap();
    let verified = verify(dir.path()).unwrap();
    assert_eq!((verified.records, verified.reservations, verified.open), (1, 2, 1));
    check_restarts(dir.path(), &[1]);
}

#[test]
fn a_lost_store_changes_nothing_about_open_exchanges() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let (_a, b) = (begin(&ledger, 1), begin(&ledger, 2));
    ledger.checkpoint().unwrap();
    let _ = end(&ledger, 2, b).wait().unwrap();
    let _c = begin(&ledger, 3);
    ledger.close().unwrap();
    std::fs::remove_dir_all(dir.path().join("store")).unwrap();
    check_restarts(dir.path(), &[1, 3]);

    // A file in its place: there can be no store.
    let (ledger, _) = open(dir.path());
    let _d = begin(&ledger, 4);
    ledger.close().unwrap();
    std::fs::remove_dir_all(dir.path().join("store")).unwrap();
    let (_, report) = open(dir.path());
    assert_eq!(report.interrupted, 1);
}

#[test]
fn an_exchange_that_the_store_knows_as_open_is_closed_there_by_its_record() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let slot = begin(&ledger, 1);
    ledger.checkpoint().unwrap();
    let _ = end(&ledger, 1, slot).wait().unwrap();
    ledger.close().unwrap();
    check_restarts(dir.path(), &[]);
}

#[test]
fn what_ends_within_its_group_leaves_its_record_alone() {
    let dir = tempfile::tempdir().unwrap();
    // Nothing is taken while the writer gathers.
    let (durability, group_delay) = (Durability::Group, std::time::Duration::from_secs(3600));
    let options = Options { durability, group_delay, ..options(dir.path()) };
    let (ledger, _) = Ledger::open(options, Arc::new(SystemClock), Arc::new(test_price)).unwrap();
    let (slot, _) = ledger.opening(opening(1), Wait::No);
    ledger.closing(slot);
    drop(ledger.append(Box::new(plain_record(1)), Wait::No).unwrap());
    ledger.close().unwrap();
    let verified = verify(dir.path()).unwrap();
    assert_eq!((verified.records, verified.reservations), (1, 0));
}

#[test]
fn one_that_nobody_waits_for_is_written_some_groups_later() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let (_slot, receipt) = ledger.opening(opening(1), Wait::No);
    assert_eq!(receipt.wait(), Ok(Appended::Queued));
    while ledger.stats().open == 0 {
        std::thread::yield_now();
    }
    assert_eq!(records(&ledger), []);
    ledger.close().unwrap();
    check_restarts(dir.path(), &[1]);
}

#[test]
fn a_record_that_comes_twice_for_an_open_exchange_is_recorded_once() {
    for durability in [Durability::Sync, Durability::Group, Durability::Relaxed] {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { durability, ..options(dir.path()) };
        let (ledger, _) = Ledger::open(options, Arc::new(SystemClock), Arc::new(test_price)).unwrap();
        let slot = begin(&ledger, 1);
        let _ = end(&ledger, 1, slot).wait().unwrap();
        assert_eq!(end(&ledger, 1, slot).wait(), Ok(Appended::AlreadyThere));
        ledger.close().unwrap();
        check_restarts(dir.path(), &[]);
    }
}

#[test]
fn an_interrupted_request_is_found_with_what_was_held_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let held = Some(Money::from_pico(Currency::USD, 7));
    let holding = |n| Opening { held_tokens: Some(n), held_cost: held, ..opening(n) };
    for opening in [holding(1), holding(2), opening(3)] {
        let (_slot, receipt) = ledger.opening(opening, Wait::Acknowledged);
        let _ = receipt.wait().unwrap();
    }
    let _ = ledger.append(Box::new(plain_record(2)), Wait::Acknowledged).unwrap().wait().unwrap();
    ledger.close().unwrap();
    for _ in 0..2 {
        let (ledger, _) = open(dir.path());
        ledger.checkpoint().unwrap();
        let found = ledger.interrupted(RecordRange::default()).unwrap();
        let told: Vec<_> = found.iter().map(|one| (one.record.id, one.held_tokens, one.held_cost)).collect();
        assert_eq!(told, [(opening(1).id, Some(1), held)]);
        let at = opening(1).started_at.micros();
        let from =
            |micros| RecordRange { from: Some(Timestamp::from_micros(micros)), ..RecordRange::default() };
        assert_eq!(ledger.interrupted(from(at)).unwrap().len(), 1);
        assert_eq!(ledger.interrupted(from(at + 1)).unwrap(), []);
        ledger.close().unwrap();
    }
}

#[derive(Debug, Default)]
struct Losses(Mutex<Vec<(RequestId, bool, bool)>>);

impl Observer for Losses {
    fn settled(&self, _: &UsageRecord, _: bool, _: u64) {}

    fn lost(&self, record: &UsageRecord, counted: bool) {
        self.0.lock().unwrap().push((record.id, counted, record.cost.is_some()));
    }
}

#[test]
fn a_record_that_is_too_large_for_the_journal_is_told_as_lost_with_its_cost() {
    let dir = tempfile::tempdir().unwrap();
    let losses = Arc::new(Losses::default());
    let options = Options { observer: Some(losses.clone()), ..options(dir.path()) };
    let (ledger, _) = Ledger::open(options, Arc::new(SystemClock), Arc::new(test_price)).unwrap();
    let mut record = plain_record(1);
    let part = bursar_domain::ModelUsage { model: record.model_served.clone(), usage: record.usage };
    record.by_model = vec![part; 400_000];
    let id = record.id;
    let receipt = ledger.append(Box::new(record), Wait::Acknowledged).unwrap();
    assert_eq!(receipt.wait(), Err(crate::NotRecorded::TooLarge));
    assert_eq!(*losses.0.lock().unwrap(), [(id, true, true)]);
    ledger.close().unwrap();
}

#[test]
fn a_closed_ledger_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let other = ledger.clone();
    ledger.close().unwrap();
    let (_slot, receipt) = other.opening(opening(1), Wait::Acknowledged);
    assert_eq!(receipt.wait(), Err(crate::NotRecorded::Closed));
}
