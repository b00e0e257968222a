//! Salvage of ledgers that were damaged in every way: what is whole comes back, and nothing else.

use super::*;
use crate::codec::tests::{any_record, plain_record, test_price};
use crate::faults::{copy_dir, open};
use crate::opening::tests::opening;
use crate::retention::tests::{LATER, SetClock, THEN, open_at, prune};
use crate::{Appended, Durability, Ledger, Options, RecordRange, StoreCheck, UsageQuery, Wait};
use bursar_domain::{SystemClock, UsageRecord};
use proptest::prelude::*;
use std::collections::HashMap;

fn add(ledger: &Ledger, record: UsageRecord) {
    let _ = ledger.append(Box::new(record), Wait::Acknowledged).unwrap().wait().unwrap();
}

/// A ledger of several segments: records one by one, an open exchange, and finance facts.
fn filled(dir: &Path, count: u64) {
    let (ledger, _) = open(dir);
    for n in 0..count {
        add(&ledger, plain_record(n));
        if n % 20 == 7 {
            let fact = crate::NewFact {
                kind: FactKind::Fx,
                name: Label::fixed("USD/EUR"),
                body: format!("{{\"n\":{n}}}").into(),
            };
            ledger.append_facts(crate::facts::dated(vec![fact], &SystemClock).unwrap()).unwrap();
        }
    }
    let (_slot, receipt) = ledger.opening(opening(900), Wait::Acknowledged);
    let _ = receipt.wait().unwrap();
    ledger.close().unwrap();
}

fn records(dir: &Path) -> Vec<UsageRecord> {
    let ledger = crate::OfflineLedger::open(dir).unwrap();
    ledger.records(RecordRange::default()).map(|stored| stored.unwrap().record).collect()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    crate::journal::find::list(&dir.join("journal"), "seg")
        .unwrap()
        .into_iter()
        .map(|(_, path)| path)
        .collect()
}

/// Repairs a copy of `whole` after `damage`; what came back, and that the damaged one was not touched.
fn repaired(whole: &Path, damage: impl FnOnce(&Path)) -> (tempfile::TempDir, Repaired) {
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("broken");
    copy_dir(whole, &broken);
    damage(&broken);
    let before = contents(&broken);
    let found = repair(&broken, &dir.path().join("new"), &SystemClock).unwrap();
    assert_eq!(contents(&broken), before, "the damaged ledger was changed");
    (dir, found)
}

fn contents(dir: &Path) -> HashMap<PathBuf, Vec<u8>> {
    let mut files = HashMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.insert(path.clone(), std::fs::read(path).unwrap());
        }
    }
    files
}

/// What is there is a part of what was there, in its order, and goes with what is said to be gone.
fn check(whole: &Path, found: &Repaired, gone: &[(u64, Option<u64>)]) {
    let (before, after) = (records(whole), records(&found.path));
    let known: HashMap<RequestId, &UsageRecord> = before.iter().map(|record| (record.id, record)).collect();
    for record in &after {
        assert_eq!(known.get(&record.id), Some(&record), "a record that was never there");
    }
    let told: Vec<_> = found.gaps.iter().map(|gap| (gap.first_sequence, gap.last_sequence)).collect();
    assert_eq!(told, gone, "{:?}", found.breaks);
    assert_eq!(found.has_lost(), !gone.is_empty());
    assert_eq!(found.records, after.len() as u64);
    let verified = verify(&found.path).unwrap();
    assert_ne!(Some(verified.ledger), found.from);
    assert_eq!(verified, found.verified);
    let (ledger, _) = open(&found.path);
    ledger.checkpoint().unwrap();
    // An exchange that was open is settled.
    assert!(ledger.usage(&UsageQuery::default()).unwrap().totals.requests >= found.records);
    ledger.close().unwrap();
    assert_eq!(verify(&found.path).unwrap().store, StoreCheck::Agrees);
}

#[test]
fn a_whole_ledger_comes_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 60);
    let (_keep, found) = repaired(dir.path(), |_| {});
    assert_eq!(records(&found.path), records(dir.path()));
    assert_eq!((found.breaks.len(), found.repeated, found.count_now), (0, 0, 0));
    assert_eq!((found.verified.facts, found.verified.open), (3 + 1, 1));
    check(dir.path(), &found, &[]);
    let again = repair(dir.path(), &found.path, &SystemClock);
    assert!(matches!(again, Err(RepairError::TargetExists { .. })));
}

#[test]
fn a_flipped_bit_costs_its_frame_and_its_place_is_named() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 60);
    let (_keep, found) = repaired(dir.path(), |broken| {
        let path = segments(broken)[1].clone();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[128 + 60] ^= 4;
        std::fs::write(path, bytes).unwrap();
    });
    let first = found.gaps[0].first_sequence;
    check(dir.path(), &found, &[(first, Some(first))]);
    let gap = &found.gaps[0];
    assert!(gap.after.unwrap() < gap.before.unwrap());
    assert_eq!((found.breaks[0].segment, found.breaks[0].offset), (2, 128));
    // One frame: one record, or one fact. The new ledger has one of its own about the repair.
    let before = verify(dir.path()).unwrap();
    let after = &found.verified;
    assert_eq!(before.records + before.facts, after.records + after.facts);
}

#[test]
fn a_deleted_a_zeroed_and_a_cut_segment_cost_what_was_in_them() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 60);
    let view =
        crate::open::view_of(crate::journal::find::find(&dir.path().join("journal")).unwrap().unwrap());
    let second = view.unwrap().sealed[1].clone();
    let gone = [(second.first_sequence, Some(second.last_sequence))];
    let (_keep, found) = repaired(dir.path(), |broken| std::fs::remove_file(&segments(broken)[1]).unwrap());
    check(dir.path(), &found, &gone);
    assert_eq!((found.breaks[0].segment, found.breaks[0].what.as_str()), (2, "the segment is missing"));

    let (_keep, found) = repaired(dir.path(), |broken| {
        let path = &segments(broken)[1];
        let bytes = std::fs::read(path).unwrap().len();
        std::fs::write(path, vec![0; bytes]).unwrap();
    });
    check(dir.path(), &found, &gone);

    let (_keep, found) = repaired(dir.path(), |broken| {
        let path = &segments(broken)[1];
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    });
    let first = found.gaps[0].first_sequence;
    assert!(first > second.first_sequence);
    check(dir.path(), &found, &[(first, Some(second.last_sequence))]);

    // Only the header: every frame comes back.
    let (_keep, found) = repaired(dir.path(), |broken| {
        let path = &segments(broken)[1];
        let mut bytes = std::fs::read(path).unwrap();
        bytes[..128].fill(0xAA);
        std::fs::write(path, bytes).unwrap();
    });
    check(dir.path(), &found, &[]);
    assert_eq!(found.breaks.len(), 1);
}

#[test]
fn an_end_that_is_cut_off_is_told_by_what_the_database_knew() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 60);
    let last = verify(dir.path()).unwrap();
    let last = last.records + last.facts + last.reservations;
    let (_keep, found) = repaired(dir.path(), |broken| {
        let path = segments(broken).pop().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(path, &bytes[..128]).unwrap();
    });
    let first = found.gaps[0].first_sequence;
    check(dir.path(), &found, &[(first, Some(last))]);
}

#[test]
fn a_record_that_counts_once_counts_again_when_the_first_one_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    for n in 0..2 {
        let mut record = plain_record(n);
        record.metering = bursar_domain::Metering::OncePerId;
        record.meter_id = Label::new("resp_1").ok();
        add(&ledger, record);
    }
    ledger.close().unwrap();
    let (_keep, found) = repaired(dir.path(), |broken| {
        let path = &segments(broken)[0];
        let mut bytes = std::fs::read(path).unwrap();
        bytes[128 + 60] ^= 4;
        std::fs::write(path, bytes).unwrap();
    });
    check(dir.path(), &found, &[(1, Some(1))]);
    let totals = &found.verified.totals;
    assert_eq!((totals.requests, totals.counted, totals.unpriced, found.count_now), (1, 1, 1, 1));
}

#[test]
fn a_pruned_ledger_is_salvaged_with_what_is_whole_of_its_rolls() {
    let dir = tempfile::tempdir().unwrap();
    let clock = SetClock::at(THEN);
    let ledger = open_at(dir.path(), &clock);
    (0..120).for_each(|n| add(&ledger, plain_record(n)));
    clock.set(LATER);
    let pruned = prune(&ledger, &clock);
    ledger.close().unwrap();
    let totals = verify(dir.path()).unwrap().totals;

    let new = tempfile::tempdir().unwrap();
    let found = repair(dir.path(), &new.path().join("new"), clock.as_ref()).unwrap();
    assert!(!found.has_lost() && found.breaks.is_empty(), "{found:?}");
    assert_eq!((&found.verified.totals, found.verified.rolled), (&totals, pruned.records));

    let path = roll_path(&dir.path().join("journal"), 2);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let found = repair(dir.path(), &new.path().join("other"), clock.as_ref()).unwrap();
    assert_eq!((found.gaps.len(), found.breaks[0].segment), (1, 2));
    let left = verify(&found.path).unwrap().totals.requests;
    assert!(left < totals.requests && left >= totals.requests - 20);
    // The new ledger can be used and pruned in turn.
    let ledger = open_at(&found.path, &clock);
    add(&ledger, plain_record(500));
    assert_eq!(ledger.usage(&UsageQuery::default()).unwrap().totals.requests, left + 1);
    ledger.close().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Any damage to any bytes: every frame that it did not touch comes back as it was, none is made up,
    /// and what is missing is said to be missing.
    #[test]
    fn every_intact_frame_is_kept_and_no_record_is_made_up(
        records in prop::collection::vec(any_record(), 20..60),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1_usize..200, any::<u8>()), 1..5),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { durability: Durability::Sync, ..crate::faults::options(dir.path()) };
        let (ledger, _) = Ledger::open(options, Arc::new(SystemClock), Arc::new(test_price)).unwrap();
        let mut acknowledged = Vec::new();
        for record in &records {
            let receipt = ledger.append(Box::new(record.clone()), Wait::Acknowledged).unwrap();
            if let Ok(Appended::Recorded { .. }) = receipt.wait() {
                acknowledged.push(record.id);
            }
        }
        ledger.close().unwrap();
        let before: HashMap<RequestId, UsageRecord> =
            super::tests::records(dir.path()).into_iter().map(|record| (record.id, record)).collect();
        let (_keep, found) = repaired(dir.path(), |broken| {
            for (file, at, length, byte) in &damage {
                let files = segments(broken);
                let path = file.get(&files);
                let mut bytes = std::fs::read(path).unwrap();
                let from = at.index(bytes.len());
                let to = (from + length).min(bytes.len());
                bytes[from..to].fill(*byte);
                std::fs::write(path, bytes).unwrap();
            }
        });
        let after = super::tests::records(&found.path);
        for record in &after {
            let mut was = before.get(&record.id).cloned().unwrap();
            if was.cost.is_none() || record.cost.is_none() {
                was.cost.clone_from(&record.cost);
            }
            prop_assert_eq!(&was, record);
        }
        // One record a frame: each that is not there lies in a gap, and each gap has only such.
        let gone: u64 = found.gaps.iter().map(|gap| gap.last_sequence.unwrap() - gap.first_sequence + 1).sum();
        prop_assert_eq!(gone, acknowledged.len() as u64 - after.len() as u64);
        prop_assert_eq!(found.verified.records, after.len() as u64);
    }
}
