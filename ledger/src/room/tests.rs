//! The bound itself, and a whole ledger at it.

use super::*;
use crate::codec::tests::{plain_record, test_price};
use crate::faults::options;
use crate::retention::tests::{LATER, SetClock, THEN, prune};
use crate::{
    Durability, Health, Ledger, Options, RecordRange, RejectReason, Retention, StoreCheck, UsageQuery, Wait,
    verify,
};
use bursar_domain::SystemClock;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn bounded(dir: &Path, bytes_max: Option<u64>) -> Options {
    // Few records at a time, so that the queue fits into the reserve of a small bound.
    let few = Options { queue_entries_max: 64, group_records_max: 16, ..options(dir) };
    let segment_bytes = 64 * KIB;
    Options { durability: Durability::Relaxed, group_delay: Duration::ZERO, bytes_max, segment_bytes, ..few }
}

fn open(dir: &Path, bytes_max: Option<u64>) -> Ledger {
    Ledger::open(bounded(dir, bytes_max), Arc::new(SystemClock), Arc::new(test_price)).unwrap().0
}

/// Writes records from number `from` on until the bound is reached; returns the number after the last that
/// was taken.
fn fill(ledger: &Ledger, from: u64) -> u64 {
    let mut n = from;
    while !ledger.is_troubled() {
        match ledger.append(Box::new(plain_record(n)), Wait::No) {
            Ok(_) => n += 1,
            Err(rejected) => {
                assert_eq!(rejected.reason, RejectReason::QueueFull);
                std::thread::yield_now();
            }
        }
    }
    n
}

/// Lets `more` bytes be written to a ledger, beside a reserve of some megabytes, for which much must lie there.
fn leave(ledger: &Ledger, dir: &Path, more: u64) -> u64 {
    let ballast = std::fs::File::create(dir.join("ballast")).unwrap();
    ballast.set_len(64 * MIB).unwrap();
    // The writer looks at the files.
    ledger.checkpoint().unwrap();
    let bound = (bytes_below(dir).unwrap() + more) * RESERVE_PART / (RESERVE_PART - 1) + RESERVE_PART;
    ledger.limit_bytes(Some(bound));
    bound
}

fn reason(ledger: &Ledger) -> String {
    match ledger.stats().health {
        Health::Healthy => String::new(),
        Health::Degraded(reason) => reason,
    }
}

/// What must be true of a ledger that was closed: it has all of `records`, once, and its books agree.
fn check(dir: &Path, records: u64) {
    let verified = verify(dir).unwrap();
    assert_eq!((verified.records, verified.store), (records, StoreCheck::Agrees));
    let ledger = open(dir, None);
    assert_eq!(ledger.usage(&UsageQuery::default()).unwrap().totals.requests, records);
    ledger.close().unwrap();
}

fn check_left(bytes: u64, bytes_max: Option<u64>, ordinary: u64, with_reserve: u64) {
    let dir = tempfile::tempdir().unwrap();
    let room = Room::new(dir.path(), bytes_max);
    room.changed(0, bytes);
    assert_eq!((room.left(Purse::Ordinary), room.left(Purse::Reserve)), (ordinary, with_reserve), "{bytes}");
}

#[test]
fn a_part_of_the_bound_is_kept_for_who_ends_what_was_begun() {
    check_left(0, None, u64::MAX, u64::MAX);
    check_left(5, Some(1_000), 955, 995);
    check_left(960, Some(1_000), 0, 40);
    check_left(1_001, Some(1_000), 0, 0);
    check_left(0, Some(100 << 30), (100 << 30) - (32 << 20), 100 << 30);
}

#[test]
fn every_file_below_the_directory_counts_and_a_look_corrects_what_was_added_up() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
    std::fs::write(dir.path().join("one"), [0; 100]).unwrap();
    std::fs::write(dir.path().join("a/b/two"), [0; 23]).unwrap();
    let room = Room::new(dir.path(), None);
    assert_eq!(room.bytes(), 123);
    room.changed(10, 60);
    room.changed(60, 20);
    assert_eq!(room.bytes(), 133);
    room.measure();
    assert_eq!(room.bytes(), 123);
    std::fs::remove_file(dir.path().join("one")).unwrap();
    room.limit(Some(100));
    assert!(room.check(70, Purse::Ordinary).is_ok(), "it looks before it says no");
    let full = room.check(80, Purse::Ordinary).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    let text = full.to_string();
    assert!(text.contains("takes 23 of the 100 bytes that ledger.bytes_max allows"), "{text}");
}

#[test]
fn each_share_is_told_of_once_until_it_was_left() {
    let dir = tempfile::tempdir().unwrap();
    let room = Room::new(dir.path(), Some(1_000));
    let mut told = Vec::new();
    let mut bytes = 0;
    for now in [790, 800, 900, 799, 801, 960, 940, 955, 700, 850, 990] {
        room.changed(bytes, now);
        bytes = now;
        told.push(room.warned_percent.load(Ordering::Relaxed));
    }
    assert_eq!(told, [0, 80, 80, 80, 80, 95, 95, 95, 0, 80, 95]);
    room.limit(None);
    assert_eq!(room.warned_percent.load(Ordering::Relaxed), 0);
}

#[test]
fn at_the_bound_records_wait_and_go_on_when_it_is_raised() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), None);
    let bound = leave(&ledger, dir.path(), 512 * KIB);
    let taken = fill(&ledger, 0);
    let told = reason(&ledger);
    assert!(told.contains("ledger.bytes_max") && told.contains("bursar ledger prune"), "{told}");
    let stats = ledger.stats();
    assert_eq!(stats.bytes_max, Some(bound));
    assert!(stats.data_bytes <= bound && bytes_below(dir.path()).unwrap() <= bound, "{stats:?}");
    assert!(stats.last_sequence < taken, "some wait");
    assert!(ledger.records(RecordRange::default()).all(|record| record.is_ok()), "what is there can be read");

    ledger.limit_bytes(Some(bound + 4 * MIB));
    ledger.checkpoint().unwrap();
    assert_eq!((reason(&ledger), ledger.stats().last_sequence), (String::new(), taken));
    ledger.close().unwrap();
    check(dir.path(), taken);
}

#[test]
fn at_the_bound_a_ledger_that_is_closed_writes_what_it_took() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), None);
    let bound = leave(&ledger, dir.path(), 512 * KIB);
    let taken = fill(&ledger, 0);
    assert!(ledger.stats().last_sequence < taken);
    ledger.close().unwrap();
    check(dir.path(), taken);

    // Another run at the bound: nothing is lost either, and what is too much comes back.
    let ledger = open(dir.path(), Some(bound + 256 * KIB));
    let more = fill(&ledger, taken);
    ledger.close().unwrap();
    check(dir.path(), more);
}

#[test]
fn however_far_above_its_bound_a_ledger_that_is_closed_writes_what_it_took() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), None);
    let _ = ledger.append(Box::new(plain_record(0)), Wait::Acknowledged).unwrap().wait().unwrap();
    ledger.limit_bytes(Some(1));
    let taken = fill(&ledger, 1);
    assert!(ledger.stats().last_sequence < taken);
    ledger.close().unwrap();
    check(dir.path(), taken);
}

#[test]
fn room_that_somebody_gives_back_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), None);
    leave(&ledger, dir.path(), 256 * KIB);
    // The ballast is found at the latest when the room seems to be used up.
    let taken = fill(&ledger, 0);
    std::fs::remove_file(dir.path().join("ballast")).unwrap();
    ledger.checkpoint().unwrap();
    assert_eq!((reason(&ledger), ledger.stats().last_sequence), (String::new(), taken));
    ledger.close().unwrap();
    check(dir.path(), taken);
}

#[test]
fn the_zeros_of_a_segment_that_grew_old_are_room_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let clock = SetClock::at(THEN);
    // Where old records are given up, segments grow old.
    let retention = Some(Retention::of(Duration::from_secs(40 * 86_400)));
    let options = Options { retention, ..bounded(dir.path(), None) };
    let ledger = Ledger::open(options, clock.clone(), Arc::new(test_price)).unwrap().0;
    let put = |n| drop(ledger.append(Box::new(plain_record(n)), Wait::No).unwrap());
    put(0);
    // No byte is left, but for zeros.
    leave(&ledger, dir.path(), 0);
    clock.set(LATER);
    put(1);
    let is_over = || ledger.is_troubled() || ledger.stats().last_sequence == 2;
    while !is_over() {
        std::thread::yield_now();
    }
    assert_eq!(reason(&ledger), "");
    ledger.close().unwrap();
    check(dir.path(), 2);
}

#[test]
fn at_the_bound_old_records_can_be_rolled_up_and_writing_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let clock = SetClock::at(THEN);
    let open = |bytes_max| {
        Ledger::open(bounded(dir.path(), bytes_max), clock.clone(), Arc::new(test_price)).unwrap().0
    };
    let ledger = open(None);
    leave(&ledger, dir.path(), 512 * KIB);
    let taken = fill(&ledger, 0);
    clock.set(LATER);
    let report = prune(&ledger, &clock);
    assert!(report.segments > 2, "{report:?}");
    ledger.checkpoint().unwrap();
    assert_eq!(reason(&ledger), "");
    let usage = ledger.usage(&UsageQuery::default()).unwrap();
    assert_eq!(usage.totals.requests, taken, "every record counts, rolled up or not");
    let more = fill(&ledger, taken);
    assert!(more > taken);
    ledger.close().unwrap();
    let verified = verify(dir.path()).unwrap();
    assert_eq!((verified.totals.requests, verified.store), (more, StoreCheck::Agrees));
    assert!(verified.rolled > 0);
}

/// What a test does to a ledger.
#[derive(Clone, Debug)]
enum Act {
    Fill,
    Write(u64),
    Raise(u64),
    Reopen,
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        Just(Act::Fill),
        (1_u64..60).prop_map(Act::Write),
        (1_u64..256).prop_map(|kib| Act::Raise(kib * KIB)),
        Just(Act::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    /// However often it comes to its bound, is raised, closed and opened: what it took is there once, and the
    /// books agree.
    #[test]
    fn what_was_taken_is_there_once_whatever_the_bound_does(acts in prop::collection::vec(any_act(), 1..8)) {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = open(dir.path(), None);
        let mut bound = leave(&ledger, dir.path(), 256 * KIB);
        let mut taken = 0;
        for act in acts {
            match act {
                Act::Fill => taken = fill(&ledger, taken),
                Act::Write(count) => for _ in 0..count {
                    taken += u64::from(ledger.append(Box::new(plain_record(taken)), Wait::No).is_ok());
                },
                Act::Raise(more) => {
                    bound += more;
                    ledger.limit_bytes(Some(bound));
                }
                Act::Reopen => {
                    prop_assert!(ledger.close().is_ok());
                    ledger = open(dir.path(), Some(bound));
                }
            }
        }
        let shared = ledger.inner.shared.clone();
        let closed = ledger.close();
        let (error, room) = (shared.last_error(), shared.room.clone());
        drop(shared);
        prop_assert!(closed.is_ok(), "{closed:?}: {error:?} {room:?}");
        check(dir.path(), taken);
    }
}
