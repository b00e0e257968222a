//! Openings that begin at a waypoint, beside those that read every frame.

use super::*;
use crate::codec::Encoder;
use crate::codec::tests::plain_record;
use crate::disk::RealDisk;
use crate::faults::{copy_dir, open};
use crate::journal::find::{Found, find, find_from};
use crate::journal::{Frame, Journal, Place, Promise, segment_path};
use crate::seen::Seen;
use crate::{Appended, RecordRange, StoreCheck, StoreState, UsageQuery, Wait, verify};
use bursar_domain::Timestamp;
use std::sync::Arc;

const NOW: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);
/// All frames of these tests are in one segment.
const SEGMENT_BYTES: u64 = 64 << 10;

fn new_journal(dir: &Path) -> Journal {
    let place = Place { disk: Arc::new(RealDisk), dir: dir.to_owned(), segment_bytes: SEGMENT_BYTES };
    Journal::create(place, LedgerId::from_bits(7), NOW).unwrap()
}

fn commit(journal: &mut Journal, numbers: std::ops::Range<u64>, promise: Promise) {
    let mut encoder = Encoder::default();
    numbers.for_each(|n| encoder.add_usage(&plain_record(n), true).unwrap());
    let mut frame = Frame::default();
    let about = encoder.finish(frame.begin()).unwrap();
    journal.finish(&mut frame, &about);
    journal.commit(&frame, promise, NOW).unwrap();
}

/// What was found, as far as it must not depend on the waypoint.
fn told(found: Result<Option<Found>, crate::journal::find::FindError>) -> String {
    format!("{:?}", found.map(|found| found.map(|found| Found { waypoint: None, ..found })))
}

/// Finds the journal with the waypoint and without; says whether the waypoint was used.
fn check_same(dir: &Path, waypoint: Waypoint, what: &str) -> bool {
    let with = find_from(dir, Some(waypoint));
    let is_used = matches!(&with, Ok(Some(found)) if found.waypoint.is_some());
    assert_eq!(told(with), told(find(dir)), "{what}");
    is_used
}

#[test]
fn a_waypoint_comes_back_as_it_was_and_any_flipped_bit_or_cut_makes_it_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = new_journal(dir.path());
    commit(&mut journal, 0..3, Promise::Durable);
    let waypoint = journal.waypoint().unwrap();
    assert_eq!(Waypoint::decode(&waypoint.encode()), Some(waypoint));
    journal.keep(waypoint);
    assert_eq!(Waypoint::read(dir.path()), Some(waypoint));
    let whole = waypoint.encode();
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 1 << (at % 8);
        assert_eq!(Waypoint::decode(&bad), None, "byte {at}");
        assert_eq!(Waypoint::decode(&whole[..at]), None, "cut to {at}");
    }
}

#[test]
fn any_earlier_waypoint_finds_what_reading_everything_finds() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = new_journal(dir.path());
    let mut waypoints = vec![journal.waypoint().unwrap()];
    for n in 0..20 {
        commit(&mut journal, n * 3..n * 3 + 3, Promise::Durable);
        waypoints.push(journal.waypoint().unwrap());
        for (number, waypoint) in waypoints.iter().enumerate() {
            assert!(check_same(dir.path(), *waypoint, &format!("waypoint {number} after frame {n}")));
        }
    }
}

#[test]
fn nothing_that_is_not_synced_is_before_a_waypoint() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = new_journal(dir.path());
    commit(&mut journal, 0..3, Promise::Written);
    assert_eq!(journal.waypoint(), None);
    journal.sync().unwrap();
    assert!(journal.waypoint().is_some());
}

/// Any flipped bit, before the waypoint or after it, is found as it is without one.
#[test]
fn a_flipped_bit_or_a_cut_before_or_after_a_waypoint_is_found_as_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = new_journal(dir.path());
    commit(&mut journal, 0..4, Promise::Durable);
    let waypoint = journal.waypoint().unwrap();
    commit(&mut journal, 4..6, Promise::Durable);
    drop(journal);
    let path = segment_path(dir.path(), 1);
    let whole = std::fs::read(&path).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for at in 0..used {
        let mut bad = whole.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bad).unwrap();
        let is_used = check_same(dir.path(), waypoint, &format!("byte {at}"));
        assert!(!is_used || at as u64 >= waypoint.at.offset, "byte {at}");
        std::fs::write(&path, &whole[..at]).unwrap();
        let is_used = check_same(dir.path(), waypoint, &format!("cut to {at}"));
        assert!(!is_used || at as u64 >= waypoint.at.offset, "cut to {at}");
    }
}

#[test]
fn a_waypoint_of_another_journal_or_segment_is_not_used() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut journal, mut longer) = (new_journal(dir.path()), new_journal(other.path()));
    commit(&mut journal, 0..4, Promise::Durable);
    let waypoint = journal.waypoint().unwrap();
    let check = |waypoint| assert!(!check_same(dir.path(), waypoint, "not its own"));
    check(Waypoint { ledger: LedgerId::from_bits(8), ..waypoint });
    check(Waypoint { segment: 2, ..waypoint });
    check(Waypoint { at: Position { crc: waypoint.at.crc ^ 1, ..waypoint.at }, ..waypoint });
    // The same ledger went on elsewhere, from an older copy.
    commit(&mut longer, 10..14, Promise::Durable);
    check(longer.waypoint().unwrap());
    commit(&mut longer, 14..30, Promise::Durable);
    check(longer.waypoint().unwrap());
    assert!(check_same(dir.path(), waypoint, "its own"));
}

#[test]
fn the_trail_begins_far_enough_back_and_has_few_milestones() {
    let mut trail = Trail::default();
    for n in 0..40_u64 {
        for step in 0..1_000 {
            let next_sequence = n * 10_000 + step * 10 + 1;
            trail.pass(Milestone { segment: n, offset: 128, next_sequence, id_max: 0 });
            let start = trail.start().unwrap();
            assert!(start.next_sequence == 1 || start.is_before(next_sequence, KEPT), "{next_sequence}");
            assert!(!start.is_before(next_sequence, KEPT + 2 * STEP), "{next_sequence}");
        }
    }
    assert!(trail.0.len() as u64 <= KEPT / STEP + 3, "{}", trail.0.len());
}

/// Ids that are read from a waypoint on, and from whole segments.
#[test]
fn ids_before_a_waypoint_are_known_or_asked_for_and_never_called_new() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place { disk: Arc::new(RealDisk), dir: dir.path().to_owned(), segment_bytes: 4 << 20 };
    let mut journal = Journal::create(place, LedgerId::from_bits(7), NOW).unwrap();
    let all = 2 * KEPT + 5_000;
    for from in (0..all).step_by(500) {
        commit(&mut journal, from..from + 500, Promise::Durable);
    }
    let (waypoint, view) = (journal.waypoint().unwrap(), journal.view());
    let last = view.last_sequence();
    for start in [Some(waypoint.recent), None] {
        let (recent, trail) = recent_ids(&view, start).unwrap();
        for n in 0..last {
            let seen = recent.check(plain_record(n).id);
            let is_recent = n + RecentIds::EXACT as u64 >= last;
            assert!(seen == Seen::Yes || (!is_recent && seen == Seen::Unsure), "{n}: {seen:?} {start:?}");
        }
        assert_eq!(recent.check(plain_record(last).id), Seen::No, "{start:?}");
        assert!(trail.start().is_some_and(|start| start.is_before(last + 1, KEPT)), "{start:?}");
    }
    assert!(waypoint.recent.is_before(last + 1, KEPT));
    // A milestone in a segment of which nothing is left: the segments after it are read from their beginning.
    let gone = Milestone { segment: 0, ..waypoint.recent };
    assert_eq!(recent_ids(&view, Some(gone)).unwrap().0.check(plain_record(last - 1).id), Seen::Yes);
}

// === whole ledgers ===

fn put(ledger: &crate::Ledger, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let receipt = ledger.append(Box::new(plain_record(n)), Wait::Acknowledged).unwrap();
        assert!(matches!(receipt.wait(), Ok(Appended::Recorded { .. })), "{n}");
    }
}

/// What any opening must say of a ledger with so many records.
fn check_whole(dir: &Path, records: u64, what: &str) -> crate::OpenReport {
    let (ledger, report) = open(dir);
    assert_eq!(report.last_sequence, records, "{what}");
    assert_eq!(ledger.usage(&UsageQuery::default()).unwrap().totals.requests, records, "{what}");
    assert_eq!(ledger.records(RecordRange::default()).map(Result::unwrap).count() as u64, records, "{what}");
    for n in 0..records {
        let receipt = ledger.append(Box::new(plain_record(n)), Wait::Acknowledged).unwrap();
        assert_eq!(receipt.wait(), Ok(Appended::AlreadyThere), "{what}: {n}");
    }
    ledger.close().unwrap();
    assert_eq!(verify(dir).unwrap().store, StoreCheck::Agrees, "{what}");
    report
}

fn used_waypoint(dir: &Path) -> Option<Waypoint> {
    let journal = dir.join("journal");
    find_from(&journal, Waypoint::read(&journal)).unwrap().unwrap().waypoint
}

#[test]
fn a_closed_ledger_is_opened_at_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    put(&ledger, 0..10);
    ledger.close().unwrap();
    assert_eq!(used_waypoint(dir.path()).unwrap().at.next_sequence, 11);
    assert_eq!(check_whole(dir.path(), 10, "closed").store, StoreState::Current);
}

#[test]
fn a_killed_ledger_is_opened_from_its_last_checkpoint_on() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    put(&ledger, 0..6);
    ledger.checkpoint().unwrap();
    let killed = tempfile::tempdir().unwrap();
    copy_dir(&dir.path().join("store"), &killed.path().join("store"));
    put(&ledger, 6..9);
    // What a process that is killed leaves: the journal has what it acknowledged, the store has not.
    copy_dir(&dir.path().join("journal"), &killed.path().join("journal"));
    ledger.close().unwrap();
    assert_eq!(used_waypoint(killed.path()).unwrap().at.next_sequence, 7);
    let report = check_whole(killed.path(), 9, "killed");
    assert_eq!(report.store, StoreState::CaughtUp { records: 3 });
}

#[test]
fn a_waypoint_that_is_stale_damaged_or_beyond_the_store_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    put(&ledger, 0..5);
    ledger.close().unwrap();
    let waypoint = dir.path().join("journal").join(NAME);
    let (stale, store) = (std::fs::read(&waypoint).unwrap(), tempfile::tempdir().unwrap());
    copy_dir(&dir.path().join("store"), store.path());
    let (ledger, _) = open(dir.path());
    put(&ledger, 5..12);
    ledger.close().unwrap();
    let check = |change: &dyn Fn(&Path), what: &str| {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        change(copy.path());
        check_whole(copy.path(), 12, what);
    };
    let place = |dir: &Path| dir.join("journal").join(NAME);
    check(&|dir| std::fs::write(place(dir), &stale).unwrap(), "stale");
    check(&|dir| std::fs::write(place(dir), &stale[..100]).unwrap(), "torn");
    check(&|dir| std::fs::remove_file(place(dir)).unwrap(), "gone");
    let older = |dir: &Path| {
        std::fs::remove_dir_all(dir.join("store")).unwrap();
        copy_dir(store.path(), &dir.join("store"));
    };
    check(&older, "beyond the store");
    check(&|dir| std::fs::remove_dir_all(dir.join("store")).unwrap(), "without a store");
    let both = |dir: &Path| {
        older(dir);
        std::fs::write(place(dir), &stale).unwrap();
    };
    check(&both, "as far as an older store");
}

#[test]
fn a_waypoint_of_a_ledger_that_went_on_in_another_segment_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    put(&ledger, 0..5);
    ledger.close().unwrap();
    let waypoint = dir.path().join("journal").join(NAME);
    let stale = std::fs::read(&waypoint).unwrap();
    let (ledger, _) = open(dir.path());
    put(&ledger, 5..150);
    assert!(ledger.stats().segments > 1);
    ledger.close().unwrap();
    std::fs::write(&waypoint, stale).unwrap();
    assert_eq!(used_waypoint(dir.path()), None);
    check_whole(dir.path(), 150, "an earlier segment's");
}
