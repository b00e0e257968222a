//! Stores whose rows are not what was written, behind openings that do not wait for their check.

use super::*;
use crate::codec::tests::plain_record;
use crate::faults::{open, options};
use crate::opening::tests::opening;
use crate::store::{METER_ID, RESERVATION, ROLLUP, Store};
use crate::{Appended, Health, Ledger, OpenReport, StoreCheck, UsageQuery, Wait, verify};
use bursar_domain::{Metering, TokenClass, UsageRecord};
use std::path::Path;

const RECORDS: u64 = 50;

fn poll(n: u64) -> UsageRecord {
    let mut record = plain_record(n);
    record.metering = Metering::OncePerId;
    record.meter_id = Some(crate::codec::tests::name("resp_1"));
    record.usage = bursar_domain::Usage::unknown();
    record.usage.set(TokenClass::OutputText, 50);
    record
}

fn put(ledger: &Ledger, record: UsageRecord) {
    let receipt = ledger.append(Box::new(record), Wait::Acknowledged).unwrap();
    assert!(matches!(receipt.wait(), Ok(Appended::Recorded { .. })));
}

/// A ledger whose store lost a row of this kind, and its id.
fn broken(dir: &Path, kind: u8) {
    let (ledger, _) = open(dir);
    let id = ledger.id();
    (0..RECORDS).for_each(|n| put(&ledger, plain_record(n)));
    put(&ledger, poll(RECORDS));
    let (_slot, receipt) = ledger.opening(opening(500), Wait::Acknowledged);
    let _ = receipt.wait().unwrap();
    ledger.close().unwrap();
    let store = Store::open(&open::store_dir(dir), id).unwrap();
    store.lose_row(kind);
    drop(store);
    assert!(Store::open(&open::store_dir(dir), id).is_err());
}

fn requests(ledger: &Ledger) -> u64 {
    ledger.usage(&UsageQuery::default()).unwrap().totals.requests
}

fn set_aside(dir: &Path) -> bool {
    dir.join("store.broken-1").is_dir()
}

fn check_after(dir: &Path, records: u64) {
    let (ledger, report) = open(dir);
    assert!(matches!(report.store, StoreState::Current | StoreState::CaughtUp { .. }), "{report:?}");
    assert_eq!((requests(&ledger), ledger.stats().health), (records, Health::Healthy));
    ledger.close().unwrap();
    assert_eq!(verify(dir).unwrap().store, StoreCheck::Agrees);
}

/// Opens a ledger that lost such a row, and uses it at once.
fn check(kind: u8, is_told: impl Fn(&OpenReport) -> bool) {
    let dir = tempfile::tempdir().unwrap();
    broken(dir.path(), kind);
    let (ledger, report) = open(dir.path());
    assert!(is_told(&report), "{report:?}");
    // The exchange that never ended is settled, once.
    assert_eq!(report.interrupted, 1);
    put(&ledger, plain_record(RECORDS + 1));
    // It was counted before: the store must say so, or nobody.
    put(&ledger, poll(RECORDS + 2));
    let totals = ledger.usage(&UsageQuery::default()).unwrap().totals;
    assert_eq!((totals.requests, totals.counted), (RECORDS + 4, RECORDS + 3));
    assert!(set_aside(dir.path()));
    assert_eq!(ledger.stats().health, Health::Healthy);
    ledger.close().unwrap();
    check_after(dir.path(), RECORDS + 4);
}

#[test]
fn a_lost_total_is_noticed_after_opening_and_before_anybody_reads_it() {
    check(ROLLUP, |report| report.store == StoreState::Current);
}

#[test]
fn a_lost_id_that_counts_once_is_noticed_before_it_is_asked_for() {
    check(METER_ID, |report| report.store == StoreState::Current);
}

#[test]
fn a_lost_open_exchange_is_noticed_at_opening() {
    check(RESERVATION, |report| matches!(report.store, StoreState::Rebuilt { .. }));
}

#[test]
fn closing_at_once_waits_for_what_is_built_anew() {
    let dir = tempfile::tempdir().unwrap();
    broken(dir.path(), ROLLUP);
    let (ledger, _) = open(dir.path());
    put(&ledger, plain_record(RECORDS + 1));
    ledger.close().unwrap();
    check_after(dir.path(), RECORDS + 3);
}

#[test]
fn a_row_that_was_lost_before_more_was_caught_up_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    broken(dir.path(), ROLLUP);
    let other = tempfile::tempdir().unwrap();
    crate::faults::copy_dir(&open::store_dir(dir.path()), other.path());
    let (ledger, _) = open(dir.path());
    (100..120).for_each(|n| put(&ledger, plain_record(n)));
    ledger.close().unwrap();
    let store = open::store_dir(dir.path());
    std::fs::remove_dir_all(&store).unwrap();
    std::fs::remove_dir_all(dir.path().join("store.broken-1")).unwrap();
    crate::faults::copy_dir(other.path(), &store);
    let (ledger, report) = open(dir.path());
    assert!(matches!(report.store, StoreState::CaughtUp { .. }), "{report:?}");
    assert_eq!(requests(&ledger), RECORDS + 22);
    assert!(set_aside(dir.path()));
    ledger.close().unwrap();
    check_after(dir.path(), RECORDS + 22);
}

#[test]
fn what_cannot_be_built_anew_leaves_reports_to_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    broken(dir.path(), ROLLUP);
    let (ledger, _) = Ledger::open(
        options(dir.path()),
        Arc::new(bursar_domain::SystemClock),
        Arc::new(crate::codec::tests::test_price),
    )
    .unwrap();
    ledger.inner.shared.checked.wait();
    ledger.inner.shared.take_store_out();
    ledger.inner.shared.do_without_store("on purpose");
    put(&ledger, plain_record(RECORDS + 1));
    assert_eq!(requests(&ledger), RECORDS + 3);
    assert!(matches!(ledger.stats().health, Health::Degraded(_)));
    ledger.close().unwrap();
    check_after(dir.path(), RECORDS + 3);
    assert!(set_aside(dir.path()));
}

#[test]
fn whoever_waits_is_told_however_the_check_ends() {
    let checked = Arc::new(Checked::default());
    assert!(checked.is_over());
    checked.begin();
    assert!(!checked.is_over());
    let waiting = {
        let checked = checked.clone();
        std::thread::spawn(move || checked.wait())
    };
    checked.end();
    waiting.join().unwrap();
    assert!(checked.is_over());
}
