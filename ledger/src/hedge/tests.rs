//! Tests of hedges in a ledger: imports are all or nothing and survive, the state is rebuilt from any
//! of its homes, and the report from rollups is the report from records.

use super::*;
use crate::codec::tests::plain_record;
use crate::{GroupKey, Options, ReadFrom, Wait, verify};
use bursar_domain::{
    Cost, CostStatus, Currency, FactKind, Identity, Label, SystemClock, Timestamp, TokenClass, Usage,
    UsageRecord,
};
use bursar_policies::hedge::calendar::parse_day;
use bursar_policies::hedge::profile::Unit;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::path::Path;

mod books;
mod posted;

fn open(dir: &Path) -> Ledger {
    let pricer = Arc::new(|_: &UsageRecord| Cost::unpriced(Currency::USD));
    Ledger::open(Options::new(dir), Arc::new(SystemClock), pricer).unwrap().0
}

fn draft(line: u64, kind: FactKind, fields: Value) -> Draft {
    Draft { line, kind, fields }
}

fn fixing(day: u32, value: &str) -> Draft {
    let fields =
        json!({"index": "TPI", "date": format!("2026-09-{day:02}"), "value": value, "currency": "USD"});
    draft(day.into(), FactKind::Fixing, fields)
}

fn swap(extra: &Value) -> Draft {
    let mut fields = json!({
        "position_id": "swap", "kind": "swap_fixed_float", "quantity": "8", "unit": "Mtok", "fixed_price": "2",
        "index_id": "TPI", "trade_date": "2026-08-11", "effective_from": "2026-09-01",
        "effective_until": "2026-10-01", "designation": {}
    });
    for (key, value) in extra.as_object().unwrap() {
        fields[key] = value.clone();
    }
    draft(1, FactKind::Contract, fields)
}

/// The business days of September 2026.
fn fixings() -> Vec<Draft> {
    let days = (1..=30).filter(|day| ![5, 6, 12, 13, 19, 20, 26, 27].contains(day));
    days.map(|day| fixing(day, "2.5")).collect()
}

fn import(ledger: &Ledger, drafts: &[Draft], mode: Mode) -> Imported {
    let head = ImportHead { what: "test".to_owned(), file: None, checksum: "0".to_owned(), about: None };
    ledger.import(drafts, &head, mode, &SystemClock).unwrap()
}

fn record(number: u64, day: i64, team: &str, region: &str) -> Box<UsageRecord> {
    let start: jiff::Timestamp = "2026-09-01T06:00:00Z".parse().unwrap();
    let at = Timestamp::from_micros(start.as_microsecond() + (day - 1) * 86_400_000_000);
    let label = |text| Some(Label::new(text).unwrap());
    let mut usage = Usage::unknown();
    usage.set(TokenClass::InputFresh, 600_000);
    usage.set(TokenClass::OutputText, 400_000 * (number % 3));
    let cost = Cost {
        status: CostStatus::Priced,
        billed_pico: Some(3_123_456_789_012),
        ..Cost::unpriced(Currency::USD)
    };
    Box::new(UsageRecord {
        started_at: at,
        ended_at: at,
        identity: Arc::new(Identity { team: label(team), workload: label("bot"), ..Identity::unallocated() }),
        region: label(region),
        usage,
        cost: Some(cost),
        metering: bursar_domain::Metering::Count,
        ..plain_record(number)
    })
}

fn ask() -> HedgeAsk {
    HedgeAsk {
        from: parse_day("2026-09-01").unwrap(),
        until: parse_day("2026-10-01").unwrap(),
        zone: TimeZone::UTC,
        by: vec![GroupKey::Team],
        unit: Unit::Mtok,
        currency: Currency::USD,
        spot: SpotCost::Billed,
        today: parse_day("2026-10-01").unwrap(),
        as_of: Timestamp::from_micros(i64::MAX),
        ratio: None,
    }
}

#[test]
fn two_values_for_a_day_in_one_file_are_refused_whichever_is_known_already() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    import(&ledger, &[fixing(1, "2.5")], Mode::Apply);
    let said = |first: &str, second: &str| {
        let rows = [Draft { line: 2, ..fixing(1, first) }, Draft { line: 3, ..fixing(1, second) }];
        let found = import(&ledger, &rows, Mode::Apply);
        assert_eq!(found.written, None);
        let [error] = &found.errors[..] else { panic!("{:?}", found.errors) };
        assert_eq!(error.line, 3);
        error.problem.clone()
    };
    assert!(said("2.5", "2.6").contains("line 2 says otherwise"), "the first is there already");
    assert!(said("2.6", "2.5").contains("two values"), "the second is there already");
    assert!(said("2.6", "2.7").contains("two values"), "neither is");
    let again = import(&ledger, &[fixing(1, "2.5"), fixing(1, "2.5")], Mode::Apply);
    assert_eq!((again.same, again.written), (2, None));
}

#[test]
fn one_bad_row_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let mut rows = fixings();
    rows.insert(3, fixing(5, "2.5"));
    rows.push(fixing(31, "2.5"));
    let imported = import(&ledger, &rows, Mode::Apply);
    let lines: Vec<u64> = imported.errors.iter().map(|error| error.line).collect();
    assert_eq!((lines, imported.written), (vec![5, 31], None));
    assert!(imported.errors[0].problem.contains("no business day"), "{:?}", imported.errors);
    assert!(ledger.facts().is_empty());
    let dry = import(&ledger, &fixings(), Mode::DryRun);
    assert_eq!((dry.writes.len(), dry.written), (23, None), "22 fixings and the index they declare");
    assert!(ledger.facts().is_empty());
}

#[test]
fn facts_are_there_after_a_restart_without_the_store_and_offline_and_verify() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let done = import(&ledger, &fixings(), Mode::Apply);
    assert_eq!(done.written, Some(24), "the import, the index and 22 fixings");
    let _ = ledger.append(record(1, 1, "a", "eu"), Wait::Acknowledged).unwrap().wait().unwrap();
    import(&ledger, &[swap(&json!({}))], Mode::Apply);
    let again = import(&ledger, &fixings(), Mode::Apply);
    assert_eq!((again.same, again.writes.len(), again.written), (22, 0, None));
    let there = ledger.facts();
    assert_eq!(there.len(), 26);
    assert_eq!(there.last().unwrap().sequence, 27);
    ledger.close().unwrap();
    let found = verify(dir.path()).unwrap();
    assert_eq!((found.records, found.facts), (1, 26));
    assert_eq!(found.store, crate::StoreCheck::Agrees);
    let offline = OfflineLedger::open(dir.path()).unwrap();
    assert_eq!(offline.finance_facts().unwrap(), there);
    drop(offline);
    let reopened = open(dir.path());
    assert_eq!(reopened.facts(), there);
    assert_eq!(reopened.records(RecordRange::default()).count(), 1);
    reopened.close().unwrap();
    std::fs::remove_dir_all(dir.path().join("store")).unwrap();
    let rebuilt = open(dir.path());
    assert_eq!(rebuilt.facts(), there);
    assert!(state(&rebuilt.facts()).unusable.is_empty());
    rebuilt.close().unwrap();
    assert_eq!(verify(dir.path()).unwrap().store, crate::StoreCheck::Agrees);
}

#[test]
fn the_report_from_rollups_is_the_report_from_records_and_both_balance() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    import(&ledger, &fixings(), Mode::Apply);
    import(&ledger, &[swap(&json!({}))], Mode::Apply);
    for number in 1..40 {
        let team = if number % 4 == 0 { "b" } else { "a" };
        let day = i64::try_from(number % 30).unwrap() + 1;
        let _ = ledger.append(record(number, day, team, "eu"), Wait::Acknowledged).unwrap().wait().unwrap();
    }
    let coarse = report(&ledger, &ask()).unwrap();
    assert_eq!(coarse.read_from, ReadFrom::Rollups);
    assert!(coarse.complete(), "{:?} {:?}", coarse.gaps, coarse.cost.unpriced);
    let payoff = coarse.cost.book.get(bursar_policies::hedge::cost::Line::Payoff);
    assert_eq!(payoff.to_string(), "4", "8 Mtok at 2.5 − 2");
    let fine = report(&ledger, &HedgeAsk { by: vec![GroupKey::Team, GroupKey::Workload], ..ask() }).unwrap();
    assert_eq!(fine.cost.book, coarse.cost.book);
    // A region can only be asked of records: the same figures, read otherwise.
    let regional = swap(&json!({"version": 2, "supersedes": 1, "designation": {"regions": ["eu"]}}));
    assert_eq!(import(&ledger, &[regional], Mode::Apply).errors, []);
    let records = report(&ledger, &ask()).unwrap();
    assert_eq!(records.read_from, ReadFrom::Records);
    assert_eq!((&records.cost.rows, records.cost.book), (&coarse.cost.rows, coarse.cost.book));
    assert_eq!(records.rows, coarse.rows);
    let elsewhere = swap(&json!({"version": 3, "supersedes": 2, "designation": {"regions": ["us"]}}));
    import(&ledger, &[elsewhere], Mode::Apply);
    let nothing = report(&ledger, &ask()).unwrap();
    assert!(nothing.positions[0].result.as_ref().unwrap().covers_nothing);
    assert_eq!(nothing.cost.residual.get(bursar_policies::hedge::cost::Line::Payoff), payoff);
    let days = ["2026-10-01", "2026-11-01", "2026-10-31"].map(|day| parse_day(day).unwrap());
    let later = HedgeAsk { from: days[0], until: days[1], today: days[2], ..ask() };
    let later = report(&ledger, &later).unwrap();
    assert_eq!(later.read_from, ReadFrom::Rollups, "what is over no longer makes a report read records");
    ledger.close().unwrap();
}

#[test]
fn usage_that_cannot_be_counted_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let mut unknown = record(1, 1, "a", "eu");
    unknown.usage = Usage::unknown();
    unknown.cost = Some(Cost::unpriced(Currency::USD));
    let yuan = Currency::parse("CNY").unwrap();
    let mut foreign = record(2, 2, "a", "eu");
    foreign.cost = Some(Cost { currency: yuan, ..foreign.cost.clone().unwrap() });
    for record in [unknown, foreign, record(3, 3, "a", "eu")] {
        let _ = ledger.append(record, Wait::Acknowledged).unwrap().wait().unwrap();
    }
    let found = report(&ledger, &HedgeAsk { unit: Unit::Msit, ..ask() }).unwrap();
    let gaps: Vec<String> = found.gaps.iter().map(|(gap, requests)| format!("{requests} {gap}")).collect();
    assert_eq!(gaps.len(), 4, "{gaps:#?}");
    assert!(!found.complete());
    for text in ["1 without a complete price", "1 without token counts", "2 of model", "1 in CNY"] {
        assert!(gaps.iter().any(|gap| gap.starts_with(text)), "{text}: {gaps:#?}");
    }
    let early = HedgeAsk { today: parse_day("2026-08-01").unwrap(), ..ask() };
    assert!(matches!(report(&ledger, &early), Err(HedgeError::NothingYet { .. })));
    ledger.close().unwrap();
}
