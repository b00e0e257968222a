//! Conservation over random books: whatever was used and earned, and however it is asked, rows and
//! what is nobody's sum to the whole, and groupings agree.

use super::*;
use crate::codec::tests::plain_record;
use crate::hedge::{Draft, ImportHead, Mode, SpotCost};
use crate::{Ledger, OfflineLedger, Options, Wait};
use bursar_domain::{
    Cost, CostStatus, FactKind, Identity, Label, SystemClock, Tags, TokenClass, UsageRecord,
};
use bursar_policies::attribution::{Revenue, RevenueEntry};
use bursar_policies::hedge::profile::Unit;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::json;

const HOUR: i64 = 3_600_000_000;

fn open(dir: &std::path::Path) -> Ledger {
    let pricer = Arc::new(|_: &UsageRecord| Cost::unpriced(Currency::USD));
    Ledger::open(Options::new(dir), Arc::new(SystemClock), pricer).unwrap().0
}

fn start() -> i64 {
    "2026-08-20T00:00:00Z".parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

fn name(kind: &str, number: u8) -> Option<Label> {
    (number > 0).then(|| Label::new(&format!("{kind}{number}")).unwrap())
}

/// Hour, team, workload, session, customer, tag, cents of cost (none is unpriced).
type Used = (i64, u8, u8, u8, u8, u8, Option<u32>);

fn record(number: usize, used: Used) -> Box<UsageRecord> {
    let (hour, team, workload, session, customer, tag, cents) = used;
    let at = Timestamp::from_micros(start() + hour * HOUR);
    let mut tags = Tags::default();
    if let Some(value) = name("v", tag) {
        tags.insert(Label::fixed("t"), value);
    }
    let identity = Identity {
        team: name("team", team),
        workload: name("w", workload),
        session: name("s", session),
        customer: name("c", customer),
        tags,
        ..Identity::unallocated()
    };
    let pico = |cents: u32| i128::from(cents) * 1_234_567_890;
    let cost = match cents {
        Some(cents) => Cost {
            status: CostStatus::Priced,
            list_pico: Some(pico(cents) * 2),
            billed_pico: Some(pico(cents)),
            ..Cost::unpriced(Currency::USD)
        },
        None => Cost::unpriced(Currency::USD),
    };
    let mut usage = Usage::unknown();
    usage.set(TokenClass::InputFresh, 1_000 * u64::from(workload));
    Box::new(UsageRecord {
        started_at: at,
        ended_at: at,
        identity: Arc::new(identity),
        usage,
        cost: Some(cost),
        metering: bursar_domain::Metering::Count,
        ..plain_record(u64::try_from(number).unwrap() + 1)
    })
}

/// Hour, cents, session, customer, workload, tag, currency and class, refunds in percent with an hour.
type Sale = (i64, u32, u8, u8, u8, u8, u8, Vec<(u8, i64)>);

fn event(fields: &serde_json::Value) -> Revenue {
    RevenueEntry::read(&fields.to_string()).unwrap().check().unwrap()
}

fn time(hour: i64) -> String {
    jiff::Timestamp::from_microsecond(start() + hour * HOUR).unwrap().to_string()
}

fn decimal(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
}

fn events_of(sales: &[Sale]) -> Vec<Revenue> {
    let mut found = Vec::new();
    for (number, (hour, cents, session, customer, workload, tag, kind, refunds)) in sales.iter().enumerate() {
        let currency = if kind % 3 == 1 { "EUR" } else { "USD" };
        let text = |label: Option<Label>| label.map(|label| label.to_string());
        let id = format!("e{number}");
        found.push(event(&json!({
            "id": id, "amount": decimal(i64::from(*cents)), "currency": currency, "time": time(*hour),
            "kind": if kind % 4 == 3 { "saving" } else { "revenue" },
            "session": text(name("s", *session)), "customer": text(name("c", *customer)),
            "workload": text(name("w", *workload)),
            "tag": name("v", *tag).map(|value| format!("t={value}")),
        })));
        let mut left = i64::from(*cents);
        for (place, (percent, later)) in refunds.iter().enumerate() {
            let back = (i64::from(*cents) * i64::from(*percent) / 100).min(left);
            if back == 0 {
                continue;
            }
            left -= back;
            let kind = if place % 2 == 0 { "refund" } else { "adjustment" };
            found.push(event(&json!({
                "id": format!("{id}-{place}"), "kind": kind, "amount": decimal(-back), "currency": currency,
                "time": time(hour + later), "refers_to": id,
            })));
        }
    }
    found
}

fn ask(by: Vec<GroupKey>, model: ModelName) -> RoiAsk {
    RoiAsk {
        hedge: HedgeAsk {
            from: parse_day("2026-09-01").unwrap(),
            until: parse_day("2026-10-01").unwrap(),
            zone: TimeZone::UTC,
            by,
            unit: Unit::Mtok,
            currency: Currency::USD,
            spot: SpotCost::Billed,
            today: parse_day("2026-10-01").unwrap(),
            as_of: Timestamp::from_micros(i64::MAX),
            ratio: None,
        },
        model,
        look_back_micros: 30 * 24 * 3_600_000_000,
        half_life_micros: 7 * 24 * 3_600_000_000,
        compare: false,
    }
}

fn import(ledger: &Ledger, events: Vec<Revenue>) {
    let events = (1..).zip(events).collect();
    let done = ledger.import_revenue(events, &ImportHead::default(), Mode::Apply, &SystemClock).unwrap();
    assert_eq!(done.imported.errors, []);
}

fn rates(ledger: &Ledger) {
    let rate = |day: u32| Draft {
        line: day.into(),
        kind: FactKind::Fx,
        fields: json!({"pair": "EUR/USD", "date": format!("2026-09-{day:02}"), "rate": format!("1.0{day:02}7")}),
    };
    let rates: Vec<Draft> = (1..=30).step_by(5).map(rate).collect();
    assert_eq!(ledger.import(&rates, &ImportHead::default(), Mode::Apply, &SystemClock).unwrap().errors, []);
}

/// Revenue and savings of each value of one key.
fn by_key(report: &RoiReport, place: usize) -> BTreeMap<KeyValue, Value> {
    let mut found = BTreeMap::new();
    for (key, row) in &report.rows {
        let sum = found.entry(key[place].clone()).or_insert(Value::zero(Currency::USD));
        *sum = sum.plus(row.value).unwrap();
    }
    found.retain(|_, value| *value != Value::zero(Currency::USD));
    found
}

fn check_whole(report: &RoiReport) {
    let mut sum = RoiRow::empty(Currency::USD);
    let mut costs = Costs::default();
    for row in report.rows.values() {
        sum.lines.add_all(&row.lines).unwrap();
        sum.value = sum.value.plus(row.value).unwrap();
        sum.totals.merge(&row.totals);
        costs = costs.plus(row.costs).unwrap();
    }
    assert_eq!(sum.value.plus(report.earned.attributed.unattributed).unwrap(), report.earned.total);
    sum.lines.add_all(&report.hedge.cost.residual).unwrap();
    assert_eq!(sum.lines, report.hedge.cost.book);
    assert_eq!((costs, &sum.totals), (report.costs, &report.totals));
    let months = report.earned.months.values();
    let months = months.fold(Value::zero(Currency::USD), |sum, month| sum.plus(*month).unwrap());
    assert_eq!(months, report.earned.total);
}

/// Without contracts nothing else costs.
fn check_cost_is_where_usage_is(report: &RoiReport) {
    for (key, row) in &report.rows {
        assert!(row.totals.requests > 0 || row.lines.get(Line::Spot).pico() == 0, "{key:?}");
    }
}

fn used() -> impl Strategy<Value = Used> {
    // Three teams of three workloads: no more than Shapley values are for.
    (0_i64..960, 0_u8..3, 0_u8..3, 0_u8..5, 0_u8..3, 0_u8..3, proptest::option::of(0_u32..100_000))
}

fn sale() -> impl Strategy<Value = Sale> {
    let refunds = proptest::collection::vec((1_u8..80, 0_i64..300), 0..3);
    (0_i64..960, 0_u32..1_000_000, 0_u8..5, 0_u8..3, 0_u8..5, 0_u8..3, 0_u8..8, refunds)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn rows_and_what_is_nobodys_sum_to_the_whole_however_it_is_asked(
        used in proptest::collection::vec(used(), 0..24),
        sales in proptest::collection::vec(sale(), 0..10),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path());
        rates(&ledger);
        for (number, used) in used.into_iter().enumerate() {
            let _ = ledger.append(record(number, used), Wait::Acknowledged).unwrap().wait().unwrap();
        }
        let mut events = events_of(&sales);
        import(&ledger, events.clone());
        let coarse = vec![GroupKey::Team];
        let fine = vec![GroupKey::Team, GroupKey::Workload, GroupKey::Customer, GroupKey::Tag("t".to_owned()), GroupKey::Day];
        for model in ModelName::ALL {
            let whole = report(&ledger, &RoiAsk { compare: true, ..ask(coarse.clone(), *model) }).unwrap();
            check_whole(&whole);
            let parts = report(&ledger, &ask(fine.clone(), *model)).unwrap();
            check_whole(&parts);
            check_cost_is_where_usage_is(&parts);
            prop_assert_eq!(by_key(&whole, 0), by_key(&parts, 0), "teams are the sums of their rows");
            let compared = whole.earned.compared.iter().find(|(name, _)| name == model).unwrap();
            prop_assert_eq!(compared.1.as_ref().unwrap(), &whole.earned.attributed);
        }
        let before = report(&ledger, &ask(fine.clone(), ModelName::Linear)).unwrap();
        import(&ledger, events.clone());
        let again = report(&ledger, &ask(fine.clone(), ModelName::Linear)).unwrap();
        prop_assert_eq!(&before.earned, &again.earned, "what is imported again changes nothing");
        let coarse = ask(coarse, ModelName::Position);
        let open_one = report(&ledger, &coarse).unwrap();
        ledger.close().unwrap();
        for rollups in [true, false] {
            let offline = OfflineLedger::open(dir.path()).unwrap();
            let offline = if rollups { offline } else { offline.from_records() };
            let closed_one = report(&offline, &coarse).unwrap();
            prop_assert_eq!((&closed_one.rows, &closed_one.earned), (&open_one.rows, &open_one.earned));
            prop_assert_eq!((&closed_one.costs, &closed_one.coverage), (&open_one.costs, &open_one.coverage));
        }
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path());
        rates(&ledger);
        events.reverse();
        import(&ledger, events);
        let other = report(&ledger, &ask(fine, ModelName::Linear)).unwrap();
        prop_assert_eq!(&before.earned.total, &other.earned.total, "the order of events does not matter");
        ledger.close().unwrap();
    }
}

#[test]
fn cost_of_a_time_is_in_the_row_of_that_time() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    // The eighth hour of two days.
    for (number, hour) in [(1, 12 * 24 + 8), (2, 13 * 24 + 8)] {
        let record = record(number, (hour, 1, 1, 1, 0, 0, Some(100 * u32::try_from(number).unwrap())));
        let _ = ledger.append(record, Wait::Acknowledged).unwrap().wait().unwrap();
    }
    let check = |by: &[GroupKey], zone: &str, expected: &[(&str, i128)]| {
        let mut asked = ask(by.to_vec(), ModelName::Linear);
        asked.hedge.zone = TimeZone::get(zone).unwrap();
        let found = report(&ledger, &asked).unwrap();
        let rows: Vec<_> = found
            .rows
            .iter()
            .map(|(key, row)| {
                (key[0].text().unwrap_or("-"), row.lines.get(Line::Spot).pico() / 10_000_000_000)
            })
            .collect();
        assert_eq!(rows, expected, "{by:?} {zone}");
        check_cost_is_where_usage_is(&found);
    };
    check(&[GroupKey::Month], "UTC", &[("2026-09", 37)]);
    check(&[GroupKey::Day, GroupKey::Team], "UTC", &[("2026-09-01", 12), ("2026-09-02", 25)]);
    check(&[GroupKey::Hour], "UTC", &[("2026-09-01T08:00+00:00", 12), ("2026-09-02T08:00+00:00", 25)]);
    check(
        &[GroupKey::Hour],
        "Asia/Kolkata",
        &[("2026-09-01T13:00+05:30", 12), ("2026-09-02T13:00+05:30", 25)],
    );
    ledger.close().unwrap();
}

#[test]
fn models_that_learn_refuse_more_workloads_than_they_can_try() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    for number in 1..=65 {
        let record = record(number, (400, 1, u8::try_from(number).unwrap(), 1, 0, 0, Some(1)));
        let _ = ledger.append(record, Wait::Acknowledged).unwrap().wait().unwrap();
    }
    import(&ledger, events_of(&[(401, 6_500, 1, 0, 0, 0, 0, Vec::new())]));
    let by = vec![GroupKey::Workload];
    let refused = |model| report(&ledger, &ask(by.clone(), model)).unwrap_err().to_string();
    assert!(refused(ModelName::Markov).contains("65 workloads: removal effects are for up to 64"));
    assert!(refused(ModelName::Shapley).contains("65 workloads: exact Shapley values are for up to 10"));
    let linear = report(&ledger, &RoiAsk { compare: true, ..ask(by, ModelName::Linear) }).unwrap();
    check_whole(&linear);
    assert_eq!(linear.earned.compared.iter().filter(|(_, found)| found.is_err()).count(), 2);
    ledger.close().unwrap();
}
