//! The queue and its edges.

use super::*;
use crate::codec::tests::plain_record;
use crate::faults::{open, options};
use crate::{Ledger, RecordRange, RejectReason, UsageQuery, Wait};
use bursar_domain::{Cost, Currency, SystemClock};

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

#[test]
fn records_that_have_a_place_are_never_refused_however_many_producers_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let options = crate::Options { queue_entries_max: 16, group_records_max: 3, ..options(dir.path()) };
    let (ledger, _) =
        Ledger::open(options, Arc::new(SystemClock), Arc::new(crate::codec::tests::test_price)).unwrap();
    let recorded: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8_u64)
            .map(|thread| {
                let ledger = &ledger;
                scope.spawn(move || {
                    let mut recorded = 0;
                    for n in 0..1_000 {
                        // As bursts do: several are admitted before any of them ends.
                        let places: Vec<_> = (0..4).map_while(|_| ledger.reserve().ok()).collect();
                        for (place, slot) in places.into_iter().zip(0..) {
                            let record = plain_record(thread * 100_000 + n * 10 + slot);
                            drop(ledger.append(Box::new(record), Wait::No).unwrap());
                            drop(place);
                            recorded += 1;
                        }
                    }
                    recorded
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    ledger.checkpoint().unwrap();
    assert_eq!((ledger.stats().last_sequence, ledger.stats().dropped), (recorded, 0));
    assert_eq!(ledger.inner.shared.reserved.load(Ordering::SeqCst), 0);
    ledger.close().unwrap();
}

#[test]
fn no_more_places_are_given_than_the_queue_has_and_each_can_be_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let options = crate::Options { queue_entries_max: 4, ..options(dir.path()) };
    let (ledger, _) =
        Ledger::open(options, Arc::new(SystemClock), Arc::new(crate::codec::tests::test_price)).unwrap();
    let mut places: Vec<_> = (0..4).map(|_| ledger.reserve().unwrap()).collect();
    assert_eq!(ledger.reserve().unwrap_err(), crate::NoPlace::QueueFull);
    places.pop();
    places.push(ledger.reserve().unwrap());
    let other = ledger.clone();
    ledger.close().unwrap();
    drop(places);
    assert_eq!(other.reserve().unwrap_err(), crate::NoPlace::Closed);
}

fn answer(ledger: &Ledger, record: &UsageRecord) -> Result<Appended, NotRecorded> {
    ledger.append(Box::new(record.clone()), Wait::Acknowledged).unwrap().wait()
}

#[test]
fn a_repeated_id_with_other_content_is_a_conflict_and_the_first_record_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let first = plain_record(1);
    let mut other = first.clone();
    other.bytes_out += 1;
    assert_eq!(answer(&ledger, &first), Ok(Appended::Recorded { sequence: 1 }));
    for _ in 0..2 {
        assert_eq!(answer(&ledger, &first), Ok(Appended::AlreadyThere));
        assert_eq!(answer(&ledger, &other), Err(NotRecorded::Conflict));
    }
    let stats = ledger.stats();
    assert_eq!((stats.repeated, stats.conflicting, stats.dropped, stats.last_sequence), (4, 2, 0, 1));
    ledger.close().unwrap();

    // An id that only the journal remembers.
    let (ledger, _) = open(dir.path());
    assert_eq!(answer(&ledger, &first), Ok(Appended::AlreadyThere));
    assert_eq!(answer(&ledger, &other), Err(NotRecorded::Conflict));
    let stored = ledger.records(RecordRange::default()).next().unwrap().unwrap().record;
    assert_eq!((stored.bytes_out, ledger.stats().last_sequence), (first.bytes_out, 1));
    ledger.close().unwrap();
}

#[test]
fn repeats_within_one_group_are_compared_with_its_first() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let first = plain_record(1);
    let mut other = first.clone();
    other.outcome = bursar_domain::Outcome::Aborted;
    let receipts: Vec<_> = [&first, &other, &first]
        .map(|record| ledger.append(Box::new(record.clone()), Wait::Acknowledged).unwrap())
        .into_iter()
        .map(crate::Receipt::wait)
        .collect();
    let expected =
        [Ok(Appended::Recorded { sequence: 1 }), Err(NotRecorded::Conflict), Ok(Appended::AlreadyThere)];
    assert_eq!(receipts, expected);
    ledger.close().unwrap();
}

#[test]
fn what_settling_adds_or_drops_is_no_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let mut large = plain_record(1);
    large.usage_raw = Some("1".repeat(crate::USAGE_RAW_BYTES_MAX + 1).into());
    assert!(matches!(answer(&ledger, &large), Ok(Appended::Recorded { .. })));
    assert_eq!(answer(&ledger, &large), Ok(Appended::AlreadyThere));
    let stored = ledger.records(RecordRange::default()).next().unwrap().unwrap().record;
    assert!(stored.cost.is_some() && stored.usage_raw.is_none());
    assert_eq!(answer(&ledger, &stored), Ok(Appended::AlreadyThere), "with the cost that it was given");
    let mut cheaper = stored;
    cheaper.cost = Some(Cost::unpriced(Currency::USD));
    assert_eq!(answer(&ledger, &cheaper), Err(NotRecorded::Conflict));
    ledger.close().unwrap();
}
