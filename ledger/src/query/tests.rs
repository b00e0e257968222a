//! Rollups and records give the same answers; zones, edges, unallocated.

use super::*;
use crate::codec::tests::{any_record, name, plain_record};
use crate::faults::open;
use crate::{Ledger, Wait};
use bursar_domain::{Anomaly, Identity, Metering, Tags, Usage, UsageRecord, UsageSource};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn zone(text: &str) -> TimeZone {
    TimeZone::get(text).unwrap()
}

fn at(text: &str) -> Timestamp {
    Timestamp::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
}

fn ledger_with(records: impl IntoIterator<Item = UsageRecord>) -> (tempfile::TempDir, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    for record in records {
        drop(ledger.append(Box::new(record), Wait::No).unwrap());
    }
    ledger.checkpoint().unwrap();
    (dir, ledger)
}

fn record_at(n: u64, text: &str) -> UsageRecord {
    UsageRecord { started_at: at(text), ..plain_record(n) }
}

fn labels(report: &UsageReport) -> Vec<(Vec<&str>, u64)> {
    let row = |row: &'_ UsageRow| row.totals.requests;
    report
        .rows
        .iter()
        .map(|r| (r.key.iter().map(|key| key.text().unwrap_or("-")).collect(), row(r)))
        .collect()
}

fn any_key() -> impl Strategy<Value = GroupKey> {
    let mut keys = GroupKey::ALL.to_vec();
    keys.push(GroupKey::Tag("a".to_owned()));
    prop::sample::select(keys)
}

fn any_edge() -> impl Strategy<Value = Option<Timestamp>> {
    let hours = (1_743_120_000_i64 / 3_600..1_743_379_200 / 3_600)
        .prop_map(|hour| Timestamp::from_micros(hour * HOUR_MICROS));
    let any = (1_743_120_000_000_000_i64..1_743_379_200_000_000).prop_map(Timestamp::from_micros);
    prop::option::of(prop_oneof![4 => hours, 1 => any])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn rollups_and_records_give_the_same_answer(
        records in prop::collection::vec(any_record(), 1..40),
        queries in prop::collection::vec(
            (any_edge(), any_edge(), prop::collection::vec(any_key(), 0..4), prop::option::of((any_key(), prop::option::of("[abc]"))),
             prop::sample::select(vec!["UTC", "Europe/Paris", "Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns"])),
            20,
        ),
    ) {
        let (_dir, ledger) = ledger_with(records);
        for (from, to, by, filter, zone_name) in queries {
            let filter = filter.into_iter().map(|(key, value)| Filter { key, value }).collect();
            let query = UsageQuery { from, to, zone: zone(zone_name), by, filter };
            let answer = ledger.usage(&query).unwrap();
            let scanned = from_records(&ledger.inner.shared.view(), &query).unwrap();
            prop_assert_eq!(&answer.rows, &scanned.rows);
            prop_assert_eq!(&answer.totals, &scanned.totals);
            prop_assert!(answer.rows.is_sorted_by(|a, b| a.key < b.key));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// By every key, of records in frames of every size.
    #[test]
    fn records_are_added_up_by_key_as_one_would_by_hand(
        records in prop::collection::vec(any_record(), 1..60),
        frame in 1_usize..20,
        by in prop::collection::vec(any_key(), 0..5),
        wanted in prop::option::of((any_key(), prop::option::of("[abc]"))),
        zone_name in prop::sample::select(vec!["UTC", "Asia/Kolkata"]),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _) = open(dir.path());
        for part in records.chunks(frame) {
            for record in part {
                drop(ledger.append(Box::new(record.clone()), Wait::No).unwrap());
            }
            ledger.checkpoint().unwrap();
        }
        let filter = wanted.map(|(key, value)| Filter { key, value });
        let query = UsageQuery { zone: zone(zone_name), by, filter: filter.into_iter().collect(), ..UsageQuery::default() };
        let found = from_records(&ledger.inner.shared.view(), &query).unwrap();
        let mut expected: BTreeMap<Vec<KeyValue>, Totals> = BTreeMap::new();
        for stored in ledger.records(RecordRange::default()).map(Result::unwrap) {
            let value = |key: &GroupKey| key_of_record(key, &stored.record, &query.zone);
            if query.filter.iter().all(|filter| value(&filter.key).text() == filter.value.as_deref()) {
                let key = query.by.iter().map(value).collect();
                expected.entry(key).or_default().add_record(&stored.record, stored.counted);
            }
        }
        let rows: Vec<_> = found.rows.into_iter().map(|row| (row.key, row.totals)).collect();
        prop_assert_eq!(rows, expected.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn what_rollups_can_tell_is_read_from_them() {
    let (_dir, ledger) = ledger_with((0..50).map(plain_record));
    let check = |by: &[&str], zone_name: &str, expected: ReadFrom| {
        let by = by.iter().map(|name| GroupKey::from_name(name).unwrap()).collect();
        let query = UsageQuery { zone: zone(zone_name), by, ..UsageQuery::default() };
        assert_eq!(ledger.usage(&query).unwrap().read_from, expected);
    };
    for key in [
        "team", "workload", "provider", "model", "route", "api", "tier", "outcome", "source", "hour", "day",
        "month",
    ] {
        check(&[key], "UTC", ReadFrom::Rollups);
        check(&[key], "Europe/Paris", ReadFrom::Rollups);
    }
    for key in ["customer", "session", "tag:case", "model_requested"] {
        check(&[key], "UTC", ReadFrom::Records);
    }
    // Half past five: an hour of UTC is in two hours of that zone, but in one day.
    check(&["team", "hour"], "Asia/Kolkata", ReadFrom::Records);
    check(&["team", "day"], "Asia/Kolkata", ReadFrom::Rollups);
}

#[test]
fn only_counted_records_count_towards_where_counts_come_from() {
    let polled = |n: u64| UsageRecord {
        metering: Metering::OncePerId,
        meter_id: Some(name("resp_1")),
        ..plain_record(n)
    };
    let never = |n: u64| UsageRecord { metering: Metering::Never, ..plain_record(n) };
    let absent =
        UsageRecord { usage: Usage::unknown(), usage_source: UsageSource::Absent, ..plain_record(9) };
    let (dir, ledger) = ledger_with([plain_record(1), polled(2), polled(3), polled(4), never(5), absent]);
    let check = |totals: &Totals| {
        assert_eq!((totals.requests, totals.counted), (6, 3));
        let sources = [UsageSource::Provider, UsageSource::Absent].map(|source| totals.source(source));
        assert_eq!(sources, [2, 1], "no more sources than counted records");
    };
    check(&ledger.usage(&UsageQuery::default()).unwrap().totals);
    let by_customer = UsageQuery { by: vec![GroupKey::Customer], ..UsageQuery::default() };
    let from_records = ledger.usage(&by_customer).unwrap();
    assert_eq!(from_records.read_from, ReadFrom::Records);
    check(&from_records.totals);
    ledger.close().unwrap();
    check(&open(dir.path()).0.usage(&UsageQuery::default()).unwrap().totals);
}

#[test]
fn an_edge_within_an_hour_is_exact() {
    let records = ["2026-03-01T10:15:00Z", "2026-03-01T10:45:00Z", "2026-03-01T11:00:00Z"];
    let (_dir, ledger) = ledger_with(records.iter().enumerate().map(|(n, at)| record_at(n as u64, at)));
    let check = |from: &str, to: &str, requests: u64, read_from: ReadFrom| {
        let query = UsageQuery { from: Some(at(from)), to: Some(at(to)), ..UsageQuery::default() };
        let report = ledger.usage(&query).unwrap();
        assert_eq!((report.totals.requests, report.read_from), (requests, read_from), "{from} {to}");
    };
    check("2026-03-01T10:00:00Z", "2026-03-01T11:00:00Z", 2, ReadFrom::Rollups);
    check("2026-03-01T10:15:00Z", "2026-03-01T10:45:00Z", 1, ReadFrom::Records);
    check("2026-03-01T10:15:00.000001Z", "2026-03-01T11:00:00Z", 1, ReadFrom::Records);
    // Edges beyond every record cut no rollup.
    check("2026-03-01T10:01:00Z", "2026-03-01T11:07:00Z", 3, ReadFrom::Rollups);
    check("2026-03-01T12:00:00Z", "2026-03-01T11:00:00Z", 0, ReadFrom::Rollups);
}

/// LiteLLM #27780: a day outside UTC showed eight times its cost.
#[test]
fn a_local_day_has_its_own_hours_and_no_others() {
    let hours = (0..72).map(|n| {
        let start = at("2026-03-28T00:00:00Z").micros() + n * HOUR_MICROS;
        UsageRecord { started_at: Timestamp::from_micros(start), ..plain_record(n as u64) }
    });
    let (_dir, ledger) = ledger_with(hours);
    let query = |zone_name: &str| UsageQuery {
        zone: zone(zone_name),
        by: vec![GroupKey::Day],
        ..UsageQuery::default()
    };
    let paris = ledger.usage(&query("Europe/Paris")).unwrap();
    // The clocks go forward on the 29th: 23 hours.
    let days = [("2026-03-28", 23), ("2026-03-29", 23), ("2026-03-30", 24), ("2026-03-31", 2)];
    assert_eq!(labels(&paris), days.map(|(day, n)| (vec![day], n)));
    let new_york = ledger.usage(&query("America/New_York")).unwrap();
    let days = [("2026-03-27", 4), ("2026-03-28", 24), ("2026-03-29", 24), ("2026-03-30", 20)];
    assert_eq!(labels(&new_york), days.map(|(day, n)| (vec![day], n)));
    assert_eq!(paris.totals, new_york.totals);
}

#[test]
fn an_hour_that_comes_twice_is_two_hours() {
    let records = ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"];
    let (_dir, ledger) = ledger_with(records.iter().enumerate().map(|(n, at)| record_at(n as u64, at)));
    let query = UsageQuery { zone: zone("Europe/Paris"), by: vec![GroupKey::Hour], ..UsageQuery::default() };
    let report = ledger.usage(&query).unwrap();
    assert_eq!(
        labels(&report),
        vec![(vec!["2026-10-25T02:00+02:00"], 1), (vec!["2026-10-25T02:00+01:00"], 1)]
    );
}

#[test]
fn what_nobody_said_is_unallocated_and_can_be_asked_for() {
    let mut records: Vec<_> = (0..4).map(plain_record).collect();
    let mut tags = Tags::default();
    tags.insert(name("case"), name("x"));
    records[0].identity = Arc::new(Identity { tags, ..Identity::unallocated() });
    let (_dir, ledger) = ledger_with(records);
    let by = |key: &str| UsageQuery { by: vec![GroupKey::from_name(key).unwrap()], ..UsageQuery::default() };
    let report = ledger.usage(&by("team")).unwrap();
    assert_eq!(labels(&report), vec![(vec!["checkout"], 1), (vec!["search"], 2), (vec!["-"], 1)]);
    let report = ledger.usage(&by("tag:case")).unwrap();
    assert_eq!(labels(&report), vec![(vec!["x"], 1), (vec!["-"], 3)]);
    for (value, requests) in [(None, 1), (Some("search".to_owned()), 2), (Some("nobody".to_owned()), 0)] {
        let query =
            UsageQuery { filter: vec![Filter { key: GroupKey::Team, value }], ..UsageQuery::default() };
        assert_eq!(ledger.usage(&query).unwrap().totals.requests, requests);
    }
}

#[test]
fn names_of_keys_are_inverse() {
    for key in GroupKey::ALL {
        assert_eq!(GroupKey::from_name(&key.to_string()).as_ref(), Some(key));
    }
    assert_eq!(GroupKey::from_name("tag:env"), Some(GroupKey::Tag("env".to_owned())));
    assert_eq!((GroupKey::from_name("tag:"), GroupKey::from_name("nonsense")), (None, None));
}

#[test]
fn what_was_acknowledged_is_in_the_next_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    for n in 0..200 {
        let _ = ledger.append(Box::new(plain_record(n)), Wait::Acknowledged).unwrap().wait().unwrap();
        let report = ledger.usage(&UsageQuery::default()).unwrap();
        assert_eq!((report.totals.requests, report.as_of_sequence), (n + 1, n + 1));
    }
}

#[test]
fn anomalies_are_counted_by_kind_from_rollups_and_from_records_alike() {
    let charge = |n: u64, pico| {
        let amount = bursar_domain::Money::from_pico(bursar_domain::Currency::USD, pico);
        let provider_cost = Some(bursar_domain::ProviderCost { amount });
        let mut record = UsageRecord { provider_cost, ..plain_record(n) };
        record.anomalies.insert(Anomaly::ServedModelDiffers);
        record
    };
    // The list cost of `plain_record(n)` is 150 + n tokens at 1,250,000.
    let records = [charge(0, 150 * 1_250_000), charge(1, 1), charge(2, 0), plain_record(3)];
    let (_dir, ledger) = ledger_with(records);
    for by in [vec![GroupKey::Provider], vec![GroupKey::Session]] {
        let report = ledger.usage(&UsageQuery { by, ..UsageQuery::default() }).unwrap();
        let totals = &report.totals;
        assert_eq!(totals.anomaly(Anomaly::ProviderCostDiffers), 2);
        assert_eq!(totals.anomaly(Anomaly::ServedModelDiffers), 3);
        assert_eq!(totals.anomaly(Anomaly::TotalMismatch), 0);
        assert_eq!(totals.anomalous, 3);
    }
    assert_eq!(ledger.stats().provider_cost_differs, 2);
}
