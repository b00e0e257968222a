//! The journal on its own: golden bytes of a segment, segments and their seams, torn tails, flips.

use super::find::find;
use super::read::{RecordRange, Records};
use super::segment::Check;
use super::*;
use crate::codec::Encoder;
use crate::codec::tests::plain_record;
use crate::disk::RealDisk;
use bursar_domain::UsageRecord;

const NOW: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

fn place(dir: &Path) -> Place {
    Place { disk: Arc::new(RealDisk), dir: dir.to_owned(), segment_bytes: SEGMENT_BYTES_MIN }
}

fn new_journal(dir: &Path) -> Journal {
    Journal::create(place(dir), LedgerId::from_bits(0xbeef), NOW).unwrap()
}

fn frame_of(journal: &Journal, numbers: std::ops::Range<u64>) -> Frame {
    let mut encoder = Encoder::default();
    numbers.for_each(|n| encoder.add_usage(&plain_record(n), true).unwrap());
    let mut frame = Frame::default();
    let about = encoder.finish(frame.begin()).unwrap();
    journal.finish(&mut frame, &about);
    frame
}

fn commit(journal: &mut Journal, numbers: std::ops::Range<u64>, promise: Promise) {
    let frame = frame_of(journal, numbers);
    journal.commit(&frame, promise, NOW).unwrap();
}

fn records(view: &View) -> Vec<UsageRecord> {
    Records::new(view, RecordRange::default(), Check::Chain).map(|stored| stored.unwrap().record).collect()
}

fn found_view(dir: &Path) -> View {
    crate::open::view_of(find(dir).unwrap().unwrap()).unwrap()
}

fn expected(count: u64) -> Vec<UsageRecord> {
    (0..count).map(plain_record).collect()
}

/// These bytes are on users' disks: a change needs a new format version.
#[test]
fn the_bytes_of_a_segment_do_not_change() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = new_journal(dir.path());
    commit(&mut journal, 0..2, Promise::Durable);
    commit(&mut journal, 2..3, Promise::Durable);
    journal.seal().unwrap();
    let bytes = std::fs::read(segment_path(dir.path(), 1)).unwrap();
    assert_eq!(bytes.len() as u64, journal.view().current.data_end + FOOTER_BYTES);
    assert_eq!(
        blake3::hash(&bytes).to_hex().as_str(),
        "ee55c65ff732cc9cbd294d1c9a6bbb7cb4ac1b814983ca86ac73e4ba655c2ba0"
    );
    let head: String = bytes[..48].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        head,
        "4255525341524a0a01000000000000000000000000000000000000000000beef01000000000000000100000000000000"
    );
}

#[test]
fn records_span_segments_and_the_chain_holds_across_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = new_journal(dir.path());
    for n in 0..300 {
        commit(&mut journal, n..n + 1, Promise::Durable);
    }
    assert!(journal.view().sealed.len() >= 3);
    assert_eq!(records(&journal.view()), expected(300));
    let view = found_view(dir.path());
    assert_eq!((view.last_sequence(), view.hash()), (300, journal.hash()));
    assert_eq!(records(&view), expected(300));
    let ranges: Vec<_> = view.segments().map(|segment| segment.ranges).collect();
    assert_eq!(ranges, journal.view().segments().map(|segment| segment.ranges).collect::<Vec<_>>());
}

#[test]
fn a_resumed_journal_goes_on_where_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = new_journal(dir.path());
    for n in 0..150 {
        commit(&mut journal, n..n + 1, Promise::Durable);
        if n % 10 == 0 {
            drop(journal);
            let found = find(dir.path()).unwrap().unwrap();
            assert_eq!(found.tail, None);
            journal = Journal::resume(place(dir.path()), &found, NOW).unwrap();
        }
    }
    assert_eq!(records(&found_view(dir.path())), expected(150));
}

#[test]
fn a_crash_between_sealing_and_the_next_segment_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = new_journal(dir.path());
    commit(&mut journal, 0..5, Promise::Durable);
    journal.seal().unwrap();
    drop(journal);
    let found = find(dir.path()).unwrap().unwrap();
    assert!(found.last_is_sealed && found.tail.is_none());
    let mut journal = Journal::resume(place(dir.path()), &found, NOW).unwrap();
    commit(&mut journal, 5..7, Promise::Durable);
    assert_eq!(records(&found_view(dir.path())), expected(7));
}

#[test]
fn a_sealed_segment_whose_footer_is_gone_is_read_instead() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = new_journal(dir.path());
    for n in 0..150 {
        commit(&mut journal, n..n + 1, Promise::Durable);
    }
    let first = segment_path(dir.path(), 1);
    let bytes = std::fs::read(&first).unwrap();
    std::fs::write(&first, &bytes[..bytes.len() - 10]).unwrap();
    assert_eq!(records(&found_view(dir.path())), expected(150));
}

/// Cuts or zeroes the last frame from every one of its bytes on.
#[test]
fn a_tail_torn_at_any_byte_is_cut_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = new_journal(dir.path());
    commit(&mut journal, 0..3, Promise::Durable);
    let start = journal.view().current.data_end as usize;
    commit(&mut journal, 3..5, Promise::Durable);
    let end = journal.view().current.data_end as usize;
    let path = segment_path(dir.path(), 1);
    let whole = std::fs::read(&path).unwrap();
    for at in start..end {
        for zero in [false, true] {
            let mut torn = whole.clone();
            if zero {
                torn[at..].fill(0)
            } else {
                torn.truncate(at)
            }
            std::fs::write(&path, &torn).unwrap();
            let found = find(dir.path()).unwrap().unwrap();
            let last_byte_was_zero = whole[at..end].iter().all(|b| *b == 0);
            if zero && last_byte_was_zero {
                assert_eq!(found.tail, None);
                continue;
            }
            // Nothing of the frame is left: that is a clean end.
            let nothing_left = torn.get(start..).unwrap_or_default().iter().all(|b| *b == 0);
            assert_eq!(found.tail.is_some(), !nothing_left, "byte {at}, zeroed {zero}");
            if let Some(tail) = &found.tail {
                assert_eq!((tail.segment, tail.offset, tail.first_sequence), (1, start as u64, 4));
                assert!(tail.records.is_none_or(|records| records == 2));
            }
            let mut resumed = Journal::resume(place(dir.path()), &found, NOW).unwrap();
            assert_eq!(records(&resumed.view()), expected(3));
            commit(&mut resumed, 3..4, Promise::Durable);
            assert_eq!(records(&found_view(dir.path())), expected(4));
        }
    }
}

#[test]
fn an_unsynced_hole_is_torn_and_a_synced_one_is_damage() {
    for (promise, is_damage) in [(Promise::Written, false), (Promise::Durable, true)] {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = new_journal(dir.path());
        commit(&mut journal, 0..3, Promise::Durable);
        let start = journal.view().current.data_end as usize;
        commit(&mut journal, 3..5, promise);
        let end = journal.view().current.data_end as usize;
        commit(&mut journal, 5..9, promise);
        let path = segment_path(dir.path(), 1);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[start..end].fill(0);
        std::fs::write(&path, &bytes).unwrap();
        match find(dir.path()) {
            Err(find::FindError::Damaged(damage)) => {
                assert!(is_damage);
                assert_eq!((damage.segment, damage.offset), (1, start as u64));
                assert_eq!((damage.first_sequence, damage.last_sequence), (4, Some(5)));
                assert!(damage.to_string().contains("sequences 4 to 5"), "{damage}");
            }
            Ok(Some(found)) => {
                assert!(!is_damage);
                assert_eq!(found.tail.unwrap().records, Some(6));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_missing_or_foreign_segment_is_damage() {
    let check = |change: &dyn Fn(&Path), text: &str| {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = new_journal(dir.path());
        for n in 0..300 {
            commit(&mut journal, n..n + 1, Promise::Durable);
        }
        change(dir.path());
        let error = find(dir.path()).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    };
    check(&|dir| std::fs::remove_file(segment_path(dir, 2)).unwrap(), "the segment is missing");
    check(&|dir| std::fs::remove_file(segment_path(dir, 1)).unwrap(), "earlier segments are missing");
    check(
        &|dir| {
            std::fs::copy(segment_path(dir, 1), segment_path(dir, 2)).unwrap();
        },
        "name is not its number",
    );
    check(
        &|dir| {
            let other = tempfile::tempdir().unwrap();
            let mut journal = Journal::create(place(other.path()), LedgerId::from_bits(1), NOW).unwrap();
            for n in 0..300 {
                commit(&mut journal, n..n + 1, Promise::Durable);
            }
            std::fs::copy(segment_path(other.path(), 2), segment_path(dir, 2)).unwrap();
        },
        "another ledger",
    );
}

/// Every byte of a journal of several segments, one flipped bit each: it is noticed, or it makes no
/// difference to any record.
#[test]
fn a_flipped_bit_anywhere_is_noticed_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = new_journal(dir.path());
    for n in 0..12 {
        commit(&mut journal, n * 3..n * 3 + 3, Promise::Durable);
    }
    assert!(!journal.view().sealed.is_empty());
    drop(journal);
    let numbers: Vec<u64> = find(dir.path()).unwrap().unwrap().segments.iter().map(|s| s.number).collect();
    for number in numbers {
        let path = segment_path(dir.path(), number);
        let whole = std::fs::read(&path).unwrap();
        let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for at in (0..used).chain((used..whole.len()).step_by(97)) {
            let mut bad = whole.clone();
            bad[at] ^= 1 << (at % 8);
            std::fs::write(&path, &bad).unwrap();
            let Ok(Some(found)) = find(dir.path()) else { continue };
            let is_cut = found.tail.is_some();
            let view = crate::open::view_of(found).unwrap();
            let read: Result<Vec<_>, _> = Records::new(&view, RecordRange::default(), Check::Chain)
                .map(|stored| stored.map(|stored| stored.record))
                .collect();
            let Ok(read) = read else { continue };
            let all = read == expected(36);
            let reported = is_cut && read == expected(read.len() as u64);
            assert!(all || reported, "segment {number}, byte {at}");
        }
        std::fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn files_are_for_their_owner_alone() {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let _journal = new_journal(dir.path());
        let mode = std::fs::metadata(segment_path(dir.path(), 1)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
