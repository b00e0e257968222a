//! A ledger that an earlier version wrote, before records were rolled up and postings were made, is read,
//! continued and verified by this one.
//!
//! `previous-format` was written by the program itself: twelve records, two revenue events, two rates and a
//! closed month; the zeros behind its last frame are cut off. It is never written again: a change that
//! cannot read it needs a migration.
#![expect(clippy::unwrap_used, reason = "a test: any failure must end it")]

use bursar_domain::{Cost, Currency, FactKind, SystemClock, UsageRecord};
use bursar_ledger::periods::closed;
use bursar_ledger::{
    GroupKey, Ledger, OfflineLedger, Options, RecordRange, StoreCheck, StoreState, UsageQuery, Wait, verify,
};
use std::path::Path;
use std::sync::Arc;

fn copied() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    std::fs::create_dir(&journal).unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/previous-format/journal/00000001.seg");
    std::fs::copy(from, journal.join("00000001.seg")).unwrap();
    dir
}

#[test]
fn a_ledger_of_the_previous_format_is_read_continued_and_verified() {
    let dir = copied();
    let verified = verify(dir.path()).unwrap();
    assert_eq!((verified.records, verified.facts, verified.rolled), (12, 9, 0));
    assert_eq!((verified.store, verified.torn_tail), (StoreCheck::Missing, None));

    let offline = OfflineLedger::open(dir.path()).unwrap();
    let records: Vec<UsageRecord> =
        offline.records(RecordRange::default()).map(|stored| stored.unwrap().record).collect();
    assert_eq!(records.len(), 12);
    drop(offline);

    let pricer = Arc::new(|_: &UsageRecord| Cost::unpriced(Currency::USD));
    let open = || Ledger::open(Options::new(dir.path()), Arc::new(SystemClock), pricer.clone()).unwrap();
    let (ledger, report) = open();
    assert_eq!((report.created, report.last_sequence), (false, 21));
    assert_eq!(report.store, StoreState::CaughtUp { records: 21 });
    let query = UsageQuery { by: vec![GroupKey::Team], ..UsageQuery::default() };
    let found = ledger.usage(&query).unwrap();
    let rows: Vec<_> = found
        .rows
        .iter()
        .map(|row| {
            let billed = row.totals.money().first().and_then(|money| money.billed.pico());
            (row.key.first().and_then(|key| key.text()), row.totals.usage.input_total(), billed)
        })
        .collect();
    // As that version said: 0.0108375 and 0.010905 USD.
    assert_eq!(
        rows,
        [
            (Some("checkout"), Some(6_030), Some(10_837_500_000)),
            (Some("search"), Some(6_036), Some(10_905_000_000))
        ]
    );
    let facts = ledger.facts();
    let of = |kind| facts.iter().filter(|stored| stored.fact.kind == kind).count();
    assert_eq!((of(FactKind::Revenue), of(FactKind::Fx), of(FactKind::ImportBatch)), (2, 2, 3));
    let months = closed(&facts).unwrap();
    assert!(months.len() == 1 && months.iter().all(|month| month.is_whole()));

    // What it knows is known, and what comes goes on behind it.
    let again = ledger.append(Box::new(records[0].clone()), Wait::Acknowledged).unwrap().wait();
    assert_eq!(again, Ok(bursar_ledger::Appended::AlreadyThere));
    let new = UsageRecord { id: bursar_domain::RequestId::from_bits(7), ..records[0].clone() };
    let added = ledger.append(Box::new(new), Wait::Acknowledged).unwrap().wait();
    assert_eq!(added, Ok(bursar_ledger::Appended::Recorded { sequence: 22 }));
    ledger.close().unwrap();
    let verified = verify(dir.path()).unwrap();
    assert_eq!((verified.records, verified.store), (13, StoreCheck::Agrees));
}
