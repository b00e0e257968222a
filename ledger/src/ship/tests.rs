//! Copies that are brought up to date: beside a writer, cut short, damaged, ahead and behind.

use super::*;
use crate::codec::tests::{plain_record, test_price};
use crate::faults::{copy_dir, open, options};
use crate::retention::tests::{LATER, SetClock, THEN, open_at, prune};
use crate::{Ledger, Options, StoreCheck, Wait, restore, verify};
use bursar_domain::SystemClock;
use std::sync::Arc;

fn put(ledger: &Ledger, n: u64) {
    let _ = ledger.append(Box::new(plain_record(n)), Wait::Acknowledged).unwrap().wait().unwrap();
}

fn ship(shipper: &mut Shipper) -> Shipped {
    shipper.ship().unwrap().unwrap()
}

/// Restores a copy elsewhere and counts its records, all of which must be whole.
fn restored(copy: &Path) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let (made, verified) = restore(copy, &dir.path().join("again")).unwrap();
    let (ledger, report) = open(&made.path);
    assert_eq!(report.last_sequence, made.last_sequence);
    put(&ledger, 1_000_000);
    ledger.close().unwrap();
    assert_eq!(verify(&made.path).unwrap().store, StoreCheck::Agrees);
    verified.totals.requests
}

fn files(copy: &Path) -> Vec<(PathBuf, u64)> {
    let mut files: Vec<_> = std::fs::read_dir(copy.join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.path(), entry.metadata().unwrap().len()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_ledger_that_is_written_is_shipped_round_by_round_and_each_copy_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (path, to) = (dir.path().join("data"), dir.path().join("to"));
    let mut shipper = Shipper::new(&path, &to);
    assert_eq!(shipper.ship().unwrap(), None, "there is no ledger yet");
    let small = Options { segment_bytes: 8 << 10, ..options(&path) };
    let (ledger, _) = Ledger::open(small, Arc::new(SystemClock), Arc::new(test_price)).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (0..200).for_each(|n| put(&ledger, n)));
        for _ in 0..8 {
            let acknowledged = ledger.stats().last_sequence;
            let shipped = ship(&mut shipper);
            assert_eq!(shipped.set_aside, None);
            assert!(shipped.last_sequence >= acknowledged);
            let verified = verify(&shipped.path).unwrap();
            assert_eq!((verified.records, verified.torn_tail), (shipped.last_sequence, None));
        }
        writer.join().unwrap();
    });
    let last = ship(&mut shipper);
    assert_eq!(last.last_sequence, 200);
    let idle = ship(&mut shipper);
    assert_eq!((idle.bytes, idle.last_sequence), (0, 200), "what is there is not copied again");
    let before = files(&last.path);
    put(&ledger, 200);
    let more = ship(&mut shipper);
    assert!((1..2_048).contains(&more.bytes), "{more:?}");
    assert_eq!(before.len(), files(&last.path).len());
    // Another process goes on where this one was.
    ledger.close().unwrap();
    let (ledger, _) = open(&path);
    put(&ledger, 201);
    ledger.close().unwrap();
    let again = ship(&mut Shipper::new(&path, &to));
    assert_eq!((again.last_sequence, &again.set_aside), (202, &None));
    assert!(again.bytes < 2_048, "{again:?}");
    assert_eq!(restored(&again.path), 202);
}

#[test]
fn a_round_that_ends_at_any_byte_leaves_a_copy_that_restores_and_is_continued() {
    let dir = tempfile::tempdir().unwrap();
    let (path, to) = (dir.path().join("data"), dir.path().join("to"));
    let (ledger, _) = open(&path);
    (0..5).for_each(|n| put(&ledger, n));
    let first = ship(&mut Shipper::new(&path, &to));
    let before = files(&first.path).pop().unwrap();
    put(&ledger, 5);
    put(&ledger, 6);
    let second = ship(&mut Shipper::new(&path, &to));
    let after = files(&second.path).pop().unwrap();
    assert_eq!(before.0, after.0);
    for cut in (before.1..after.1).step_by(37) {
        let partial = dir.path().join(format!("cut-{cut}"));
        copy_dir(&to, &partial);
        let copy = partial.join(first.path.file_name().unwrap());
        let grown = copy.join("journal").join(before.0.file_name().unwrap());
        File::options().write(true).open(&grown).unwrap().set_len(cut).unwrap();
        assert!((5..7).contains(&restored(&copy)), "cut at {cut}");
        let next = ship(&mut Shipper::new(&path, &partial));
        assert_eq!((next.last_sequence, next.set_aside), (7, None));
        assert_eq!(files(&copy).pop().unwrap().1, after.1);
    }
    ledger.close().unwrap();
}

#[test]
fn a_copy_that_is_not_the_ledgers_beginning_is_set_aside_and_nothing_of_it_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (path, to) = (dir.path().join("data"), dir.path().join("to"));
    let (ledger, _) = open(&path);
    (0..5).for_each(|n| put(&ledger, n));
    ledger.close().unwrap();
    let earlier = dir.path().join("earlier");
    copy_dir(&path, &earlier);
    let (ledger, _) = open(&path);
    (5..9).for_each(|n| put(&ledger, n));
    ledger.close().unwrap();
    assert_eq!(ship(&mut Shipper::new(&path, &to)).last_sequence, 9);

    // The ledger was put back to an earlier state: first it is shorter, then another.
    let mut shipper = Shipper::new(&earlier, &to);
    let shorter = ship(&mut shipper);
    let (aside, why) = shorter.set_aside.clone().unwrap();
    assert_eq!(why, "it has records that the ledger has not");
    assert_eq!((restored(&aside), restored(&shorter.path)), (9, 5));
    let (ledger, _) = open(&earlier);
    (20..30).for_each(|n| put(&ledger, n));
    ledger.close().unwrap();
    assert_eq!(ship(&mut shipper).set_aside, None);
    let other = ship(&mut Shipper::new(&path, &to));
    assert!(other.set_aside.is_some());
    assert_eq!(restored(&other.path), 9);
    assert_eq!(std::fs::read_dir(&to).unwrap().count(), 3);
}

#[test]
fn damage_within_a_copy_is_found_by_the_next_process_and_the_ledger_copied_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (path, to) = (dir.path().join("data"), dir.path().join("to"));
    let (ledger, _) = open(&path);
    (0..40).for_each(|n| put(&ledger, n));
    let shipped = ship(&mut Shipper::new(&path, &to));
    let first = files(&shipped.path).remove(0).0;
    let mut bytes = std::fs::read(&first).unwrap();
    bytes[300] ^= 1;
    std::fs::write(&first, bytes).unwrap();
    let again = ship(&mut Shipper::new(&path, &to));
    assert!(again.set_aside.is_some_and(|(_, why)| why.contains("damaged")));
    assert_eq!(restored(&again.path), 40);
    ledger.close().unwrap();
}

#[test]
fn another_ledger_in_the_same_place_has_a_copy_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("to");
    for name in ["one", "two"] {
        let path = dir.path().join(name);
        let (ledger, _) = open(&path);
        put(&ledger, 1);
        ledger.close().unwrap();
        let shipped = ship(&mut Shipper::new(&path, &to));
        assert_eq!((shipped.set_aside.clone(), restored(&shipped.path)), (None, 1));
    }
    assert_eq!(std::fs::read_dir(&to).unwrap().count(), 2);
}

#[test]
fn what_was_rolled_up_is_rolled_up_in_the_copy_too() {
    let dir = tempfile::tempdir().unwrap();
    let (path, to) = (dir.path().join("data"), dir.path().join("to"));
    let clock = SetClock::at(THEN);
    let ledger = open_at(&path, &clock);
    let mut shipper = Shipper::new(&path, &to);
    (0..60).for_each(|n| put(&ledger, n));
    assert_eq!(ship(&mut shipper).last_sequence, 60);
    clock.set(LATER);
    put(&ledger, 60);
    assert!(prune(&ledger, &clock).segments > 1);
    let shipped = ship(&mut shipper);
    assert_eq!(shipped.set_aside, None);
    let names = |copy: &Path| -> Vec<_> {
        files(copy).into_iter().filter_map(|(path, _)| Some(path.file_name()?.to_owned())).collect()
    };
    let journal: Vec<_> = names(&path).into_iter().filter(|name| name != "waypoint").collect();
    assert_eq!(names(&shipped.path), journal);
    assert_eq!(restored(&shipped.path), 61);

    // One that was away for so long that what it lacks is gone begins anew, and keeps what it had.
    let late = dir.path().join("late");
    let other = dir.path().join("other");
    let clock = SetClock::at(THEN);
    let ledger = open_at(&other, &clock);
    put(&ledger, 0);
    assert_eq!(ship(&mut Shipper::new(&other, &late)).last_sequence, 1);
    (1..60).for_each(|n| put(&ledger, n));
    clock.set(LATER);
    put(&ledger, 60);
    prune(&ledger, &clock);
    let anew = ship(&mut Shipper::new(&other, &late));
    assert!(anew.set_aside.is_some_and(|(_, why)| why.contains("rolled up")));
    assert_eq!(restored(&anew.path), 61);
}

#[test]
fn a_copy_that_is_in_use_or_is_the_ledger_itself_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (path, to) = (dir.path().join("data"), dir.path().join("to"));
    let (ledger, _) = open(&path);
    put(&ledger, 1);
    let copy = ship(&mut Shipper::new(&path, &to)).path;
    // Served from the copy: neither is it written to nor does it lose its name.
    let (served, _) = open(&copy);
    put(&served, 2);
    put(&ledger, 3);
    let before = files(&copy);
    let in_use = Shipper::new(&path, &to).ship().unwrap_err();
    assert!(
        matches!(&in_use, CopyError::Source(OpenError::Directory(DirectoryError::InUse { .. }))),
        "{in_use:?}"
    );
    // And what is served is itself shipped to where it lies.
    let itself = Shipper::new(&copy, &to).ship().unwrap_err();
    assert!(
        matches!(&itself, CopyError::Copy { source, .. } if source.kind() == io::ErrorKind::InvalidInput)
    );
    assert_eq!(files(&copy), before);
    put(&served, 4);
    served.close().unwrap();
    assert_eq!(verify(&copy).unwrap().records, 3);
    ledger.close().unwrap();
}

#[cfg(unix)]
#[test]
fn a_link_in_the_place_of_a_copy_or_of_its_file_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, to) = (dir.path().join("data"), dir.path().join("to"));
    let (ledger, _) = open(&path);
    put(&ledger, 1);
    let refused = |shipper: &mut Shipper| match shipper.ship().unwrap_err() {
        CopyError::Copy { source, .. } => assert_eq!(source.kind(), io::ErrorKind::InvalidInput),
        other => panic!("{other:?}"),
    };
    let copy = ship(&mut Shipper::new(&path, &to)).path;
    let segment = files(&copy).pop().unwrap().0;
    let original = path.join("journal").join(segment.file_name().unwrap());
    std::fs::remove_file(&segment).unwrap();
    std::os::unix::fs::symlink(&original, &segment).unwrap();
    refused(&mut Shipper::new(&path, &to));
    std::fs::remove_dir_all(&copy).unwrap();
    std::os::unix::fs::symlink(&path, &copy).unwrap();
    refused(&mut Shipper::new(&path, &to));
    put(&ledger, 2);
    ledger.close().unwrap();
    assert_eq!(verify(&path).unwrap().records, 2);
}
