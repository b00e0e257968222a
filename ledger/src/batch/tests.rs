//! Batches through a whole ledger: polls, races, restarts and a lost store.

use super::*;
use crate::codec::tests::{name, plain_record, test_price};
use crate::{Ledger, Options, RecordRange, Wait};
use bursar_domain::batch::Kept;
use bursar_domain::{BatchNames, Cost, CostStatus, Currency, ModelUsage, Money, SystemClock, TokenClass};
use std::path::Path;

fn usage(input: u64) -> Usage {
    let mut usage = Usage::unknown();
    usage.set(TokenClass::InputFresh, input);
    usage.set(TokenClass::OutputText, 1);
    usage
}

fn batch_line<'a>(id: &'a str, model: Option<&'a Label>, input: u64) -> BatchLine<'a> {
    BatchLine { id, model, region: None, usage: usage(input), by_model: Vec::new(), charge: None }
}

fn lines(ids: &[&str]) -> BatchLines {
    let mut lines = BatchLines::default();
    let model = name("gpt-5");
    for (n, id) in ids.iter().enumerate() {
        let charge = Some(Money::from_pico(Currency::USD, 1));
        let line = BatchLine { charge, ..batch_line(id, Some(&model), 10 + n as u64) };
        assert_eq!(lines.push(&line), Kept::Yes);
    }
    lines
}

fn identity(team: &str) -> Arc<Identity> {
    let mut tags = Tags::default();
    tags.insert(name("tag"), name(team));
    Arc::new(Identity { team: Some(name(team)), tags, ..Identity::unallocated() })
}

/// The `n`-th record, of `team`, about a batch.
fn record(n: u64, team: &str) -> UsageRecord {
    let cost = None;
    UsageRecord {
        identity: identity(team),
        metering: Metering::Never,
        usage: Usage::unknown(),
        cost,
        ..plain_record(n)
    }
}

fn fetch(n: u64, team: &str, file: &str, ids: &[&str]) -> (UsageRecord, BatchFacts) {
    let lines = lines(ids);
    let sum = sum(lines.iter());
    let record = UsageRecord {
        metering: Metering::Count,
        usage: sum.usage,
        provider_cost: sum.charge.map(|amount| ProviderCost { amount }),
        ..record(n, team)
    };
    (record, BatchFacts::Fetched { name: name(file), lines: Box::new(lines) })
}

fn made(n: u64, team: &str) -> (UsageRecord, BatchFacts) {
    (record(n, team), BatchFacts::Made { batch: name("batch_1") })
}

fn seen(n: u64, team: &str, file: &str) -> (UsageRecord, BatchFacts) {
    let names = BatchNames { batch: name("batch_1"), files: vec![name(file)] };
    (record(n, team), BatchFacts::Seen(vec![names]))
}

/// Appends, in a ledger that is opened and closed for it.
fn append(dir: &Path, all: Vec<(UsageRecord, BatchFacts)>) {
    let (ledger, _) = Ledger::open(Options::new(dir), Arc::new(SystemClock), Arc::new(test_price)).unwrap();
    for (record, facts) in all {
        drop(ledger.append_batch(Box::new(record), Box::new(facts), Wait::No).unwrap());
    }
    ledger.close().unwrap();
    crate::verify(dir).unwrap();
}

/// Team, metering, input and charge of each record.
fn records(dir: &Path) -> Vec<(String, Metering, Option<u64>, Option<i128>)> {
    let ledger = crate::OfflineLedger::open(dir).unwrap();
    ledger
        .records(RecordRange::default())
        .map(|stored| {
            let stored = stored.unwrap();
            let record = stored.record;
            assert_eq!(stored.counted, record.metering == Metering::Count);
            assert_eq!(record.cost.is_some(), stored.counted);
            let charge = record.provider_cost.map(|cost| cost.amount.pico());
            (
                record.identity.team.clone().unwrap().as_str().to_owned(),
                record.metering,
                record.usage.input_total(),
                charge,
            )
        })
        .collect()
}

/// Metering, input and charge of a record.
type Counted = (Metering, Option<u64>, Option<i128>);

const NOT: Counted = (Metering::Never, None, None);

fn check(dir: &Path, expected: &[(&str, Counted)]) {
    let expected: Vec<_> =
        expected.iter().map(|(team, (m, i, c))| ((*team).to_owned(), *m, *i, *c)).collect();
    assert_eq!(records(dir), expected);
}

#[test]
fn e30_a_batch_fetched_five_times_counts_once_and_for_its_maker() {
    let dir = tempfile::tempdir().unwrap();
    let ids = ["r1", "r2"];
    let mut all = vec![made(0, "maker"), seen(1, "poller", "file-1")];
    all.extend((2..7).map(|n| fetch(n, "poller", "file-1", &ids)));
    append(dir.path(), all);
    let once = (Metering::Count, Some(21), Some(2));
    check(
        dir.path(),
        &[
            ("maker", NOT),
            ("poller", NOT),
            ("maker", once),
            ("poller", NOT),
            ("poller", NOT),
            ("poller", NOT),
            ("poller", NOT),
        ],
    );
}

#[test]
fn e30_every_step_may_be_in_another_run_and_the_store_may_be_lost_between() {
    let dir = tempfile::tempdir().unwrap();
    let steps = [
        made(0, "maker"),
        seen(1, "poller", "file-1"),
        fetch(2, "poller", "file-1", &["r1", "r2"]),
        fetch(3, "poller", "file-1", &["r1", "r2"]),
    ];
    for step in steps {
        append(dir.path(), vec![step]);
        std::fs::remove_dir_all(dir.path().join("store")).unwrap();
    }
    let once = (Metering::Count, Some(21), Some(2));
    check(dir.path(), &[("maker", NOT), ("poller", NOT), ("maker", once), ("poller", NOT)]);
}

#[test]
fn what_a_broken_download_left_is_counted_by_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    append(
        dir.path(),
        vec![
            fetch(0, "a", "file-1", &["r1"]),
            fetch(1, "b", "file-1", &["r1", "r2", "r3"]),
            // A page of a list that overlaps the last one, with a line twice.
            fetch(2, "c", "batch_1", &["r3", "r4", "r4"]),
        ],
    );
    check(
        dir.path(),
        &[
            ("a", (Metering::Count, Some(10), Some(1))),
            ("b", (Metering::Count, Some(11 + 12), Some(2))),
            ("c", (Metering::Count, Some(11), Some(1))),
        ],
    );
}

#[test]
fn ids_that_the_client_chose_are_told_apart_by_their_batch() {
    let dir = tempfile::tempdir().unwrap();
    append(
        dir.path(),
        vec![
            fetch(0, "a", "batch_1", &["#0"]),
            fetch(1, "a", "batch_2", &["#0"]),
            fetch(2, "a", "batch_2", &["#0"]),
            fetch(3, "a", "batch_3", &["", ""]),
        ],
    );
    let one = (Metering::Count, Some(10), Some(1));
    check(dir.path(), &[("a", one), ("a", one), ("a", NOT), ("a", (Metering::Count, Some(21), Some(2)))]);
}

#[test]
fn the_first_maker_stays_and_a_batch_of_nobody_belongs_to_who_fetches_it() {
    let dir = tempfile::tempdir().unwrap();
    append(
        dir.path(),
        vec![
            fetch(0, "x", "file-9", &["r9"]),
            made(1, "maker"),
            made(2, "thief"),
            seen(3, "thief", "file-1"),
            fetch(4, "thief", "file-1", &["r1"]),
        ],
    );
    let one = (Metering::Count, Some(10), Some(1));
    check(dir.path(), &[("x", one), ("maker", NOT), ("thief", NOT), ("thief", NOT), ("maker", one)]);
}

#[test]
fn an_identity_comes_back_from_the_store_as_it_was() {
    for identity in [identity("a"), Arc::new(Identity::unallocated()), plain_record(1).identity] {
        assert_eq!(decode_identity(&encode_identity(&identity)), Some((*identity).clone()));
    }
    assert_eq!(decode_identity(&[9, 9, 9]), None);
}

/// A price with a threshold and a fee for the request.
fn banded(record: &UsageRecord) -> Cost {
    let input = record.usage.input_total().unwrap();
    let rate = if input > 20 { 2 } else { 1 };
    let pico = Some(i128::from(input) * rate + 1_000);
    Cost { list_pico: pico, contracted_pico: pico, billed_pico: pico, ..test_price(record) }
}

#[test]
fn each_result_is_priced_as_a_request_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) =
        Ledger::open(Options::new(dir.path()), Arc::new(SystemClock), Arc::new(banded)).unwrap();
    // Inputs of 10, 11 and 12; then one that is left, of 13.
    for (record, facts) in [
        fetch(0, "a", "file-1", &["r1", "r2", "r3"]),
        fetch(1, "a", "file-1", &["r1", "r2", "r3", "r4"]),
        fetch(2, "a", "file-1", &["r1", "r4"]),
    ] {
        drop(ledger.append_batch(Box::new(record), Box::new(facts), Wait::No).unwrap());
    }
    ledger.close().unwrap();
    let ledger = crate::OfflineLedger::open(dir.path()).unwrap();
    let billed = |stored: crate::StoredRecord| stored.record.cost.map(|cost| cost.billed_pico);
    let costs: Vec<_> = ledger.records(RecordRange::default()).map(|r| billed(r.unwrap())).collect();
    assert_eq!(costs, [Some(Some(3_033)), Some(Some(1_013)), None]);
}

#[test]
fn a_result_of_an_unknown_model_leaves_the_fetch_partly_priced() {
    let mut lines = BatchLines::default();
    let known = name("gpt-5");
    for (id, model) in [("r1", None), ("r2", Some(&known))] {
        let line = batch_line(id, model, 10);
        assert_eq!(lines.push(&line), Kept::Yes);
    }
    let priced = |record: &UsageRecord| match record.model_served {
        Some(_) => test_price(record),
        None => Cost::unpriced(Currency::USD),
    };
    let (record, _) = fetch(0, "a", "f", &["r1"]);
    let cost = price::price(&record, lines.iter(), &priced);
    assert_eq!((cost.status, cost.list_pico), (CostStatus::PartlyPriced, Some(11 * 1_250_000)));
}

#[test]
fn a_result_is_priced_in_its_region_and_by_its_parts() {
    let (us, other) = (name("us"), name("other"));
    let by_model = vec![ModelUsage { model: Some(other.clone()), usage: usage(4) }];
    let model = name("gpt-5");
    let mut lines = BatchLines::default();
    for line in [
        BatchLine { region: Some(&us), ..batch_line("r1", Some(&model), 1) },
        BatchLine { by_model, ..batch_line("r2", Some(&model), 2) },
        batch_line("r3", Some(&model), 3),
    ] {
        assert_eq!(lines.push(&line), Kept::Yes);
    }
    let (mut record, _) = fetch(0, "a", "f", &["r1"]);
    record.region = Some(name("route"));
    let asked = std::sync::Mutex::new(Vec::new());
    let pricer = |record: &UsageRecord| {
        let region = record.region.clone().unwrap();
        let part = record.by_model.first().and_then(|part| part.model.clone());
        asked.lock().unwrap().push((region, part));
        test_price(record)
    };
    price::price(&record, lines.iter(), &pricer);
    let route = name("route");
    assert_eq!(asked.into_inner().unwrap(), [(us, None), (route.clone(), Some(other)), (route, None)]);
}

// === replies that are read back ===

/// A reply with this id, which is told to be one that can be read back where it counts.
fn reply(n: u64, id: &str, metering: Metering, usage: Usage) -> (UsageRecord, BatchFacts) {
    (UsageRecord { meter_id: Some(name(id)), metering, usage, ..record(n, "a") }, BatchFacts::ReadBack)
}

/// Which of the records count.
fn counted(dir: &Path) -> Vec<bool> {
    let ledger = crate::OfflineLedger::open(dir).unwrap();
    ledger
        .records(RecordRange::default())
        .map(|stored| {
            let stored = stored.unwrap();
            assert_eq!(stored.record.cost.is_some(), stored.counted);
            stored.counted
        })
        .collect()
}

#[test]
fn a_reply_that_counted_when_it_was_made_does_not_count_when_it_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let made = || reply(0, "i-1", Metering::Count, usage(10));
    let read = |n| reply(n, "i-1", Metering::OncePerId, usage(10));
    append(dir.path(), vec![made(), read(1), reply(2, "i-2", Metering::OncePerId, usage(10))]);
    append(dir.path(), vec![read(3)]);
    std::fs::remove_dir_all(dir.path().join("store")).unwrap();
    append(dir.path(), vec![read(4)]);
    assert_eq!(counted(dir.path()), [true, false, true, false, false]);
}

#[test]
fn every_reply_that_is_made_counts_though_its_id_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let made = |n| reply(n, "same", Metering::Count, usage(10));
    append(dir.path(), vec![made(0), made(1)]);
    assert_eq!(counted(dir.path()), [true, true]);
}

#[test]
fn a_reply_that_told_nothing_when_it_was_made_counts_when_it_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let silent = reply(0, "i-1", Metering::Count, Usage::unknown());
    let read = |n| reply(n, "i-1", Metering::OncePerId, usage(10));
    append(dir.path(), vec![silent, read(1), read(2)]);
    assert_eq!(counted(dir.path()), [true, true, false]);
}
