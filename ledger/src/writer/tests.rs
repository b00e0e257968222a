//! The queue and its edges.

use super::*;
use crate::codec::tests::plain_record;
use crate::faults::{open, options};
use crate::{Ledger, RejectReason, UsageQuery, Wait};
use bursar_domain::SystemClock;

#[test]
fn many_producers_get_every_record_in_once() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let threads: Vec<_> = (0..8_u64)
        .map(|thread| {
            let ledger = ledger.clone();
            std::thread::spawn(move || {
                for n in 0..200 {
                    let mut record = Box::new(plain_record(thread * 1_000 + n));
                    while let Err(rejected) = ledger.append(record, Wait::No) {
                        assert_eq!(rejected.reason, RejectReason::QueueFull);
                        record = rejected.record;
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    ledger.checkpoint().unwrap();
    assert_eq!(ledger.stats().last_sequence, 1_600);
    assert_eq!(ledger.usage(&UsageQuery::default()).unwrap().totals.requests, 1_600);
    ledger.close().unwrap();
}

#[test]
fn every_durability_records_and_closes_clean() {
    for durability in [Durability::Sync, Durability::Group, Durability::Relaxed] {
        let dir = tempfile::tempdir().unwrap();
        let options = crate::Options { durability, ..options(dir.path()) };
        let (ledger, _) =
            Ledger::open(options, Arc::new(SystemClock), Arc::new(crate::codec::tests::test_price)).unwrap();
        for n in 0..300 {
            drop(ledger.append(Box::new(plain_record(n)), Wait::No).unwrap());
        }
        let last = ledger.append(Box::new(plain_record(300)), Wait::Acknowledged).unwrap();
        assert_eq!(last.wait(), Ok(Appended::Recorded { sequence: 301 }));
        ledger.close().unwrap();
        let (ledger, report) = open(dir.path());
        assert_eq!(
            (report.last_sequence, report.store, report.torn_tail),
            (301, crate::StoreState::Current, None)
        );
        drop(ledger);
    }
}

#[test]
fn a_closed_ledger_refuses_and_gives_the_record_back() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let other = ledger.clone();
    ledger.close().unwrap();
    let rejected = other.append(Box::new(plain_record(1)), Wait::No).unwrap_err();
    assert_eq!((rejected.reason, rejected.record.id), (RejectReason::Closed, plain_record(1).id));
    assert_eq!(other.checkpoint(), Err(NotRecorded::Closed));
}

#[test]
fn a_dropped_ledger_writes_what_was_queued() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    for n in 0..100 {
        drop(ledger.append(Box::new(plain_record(n)), Wait::No).unwrap());
    }
    drop(ledger);
    assert_eq!(open(dir.path()).1.last_sequence, 100);
}
