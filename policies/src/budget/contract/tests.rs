//! Tests of budgets on contracts: stretches, limits and what a request takes.

use super::*;
use bursar_domain::{Currency, FactKind};
use serde_json::{Value, json};

fn at(text: &str) -> Timestamp {
    Timestamp::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
}

fn drawable(more: &Value) -> Result<Drawable, Absent> {
    let mut intake = Intake::default();
    let quality = r#"{"profile":"q","from":"2026-01-01","score":"43","reference":"86","model":"small*"}"#;
    let _ = intake.admit(FactKind::Profile, quality, at("2026-01-01T00:00:00Z")).unwrap();
    let rate = r#"{"pair":"USD/CNY","date":"2026-11-20","rate":"7"}"#;
    let _ = intake.admit(FactKind::Fx, rate, at("2026-01-01T00:00:00Z")).unwrap();
    let mut fields = json!({
        "position_id": "c", "kind": "commit_usage", "quantity": "3", "unit": "Mtok", "fixed_price": "2",
        "price_currency": "USD", "trade_date": "2026-11-01", "effective_from": "2026-11-11",
        "effective_until": "2027-01-01", "volumes": "each_month",
    });
    for (name, value) in more.as_object().unwrap() {
        fields[name] = value.clone();
    }
    let fields = fields.to_string();
    let _ = intake.admit(FactKind::Contract, &fields, at("2026-11-01T00:00:00Z")).unwrap();
    Drawable::find(&Arc::new(intake), &Label::fixed("c"), at("2026-11-22T12:00:00Z"))
}

fn check(more: &Value, when: &str, expected: Result<(&str, &str, i128), Absent>) {
    let found = drawable(more).and_then(|found| found.stretch(at(when)));
    let show = |micros| jiff::Timestamp::from_microsecond(micros).unwrap().to_string();
    let told = found.map(|found| (show(found.span.start), show(found.span.end), found.limit));
    let expected = expected.map(|(start, end, limit)| (start.to_owned(), end.to_owned(), limit));
    assert_eq!(told, expected, "{more} at {when}");
}

#[test]
fn what_must_be_used_in_its_month_day_or_hour_is_there_in_each() {
    let by = |interval: &str| json!({ "commitment": { "fulfilment_interval": interval } });
    let noon = "2026-11-22T12:34:00Z";
    let month = ("2026-11-11T00:00:00Z", "2026-12-01T00:00:00Z", 3_000_000);
    check(&by("month"), noon, Ok(month));
    // Twenty days of November.
    check(&by("day"), noon, Ok(("2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z", 150_000)));
    check(&by("hour"), noon, Ok(("2026-11-22T12:00:00Z", "2026-11-22T13:00:00Z", 6_250)));
    check(&by("term"), noon, Ok(("2026-11-11T00:00:00Z", "2027-01-01T00:00:00Z", 6_000_000)));
    check(&by("month"), "2026-11-10T23:59:59Z", Err(Absent::NotBegun));
    check(&by("month"), "2027-01-01T00:00:00Z", Err(Absent::Over));
    let expires = json!({ "commitment": { "fulfilment_interval": "term", "expiry": "2026-11-22" } });
    check(&expires, noon, Ok(("2026-11-11T00:00:00Z", "2026-11-23T00:00:00Z", 6_000_000)));
    check(&expires, "2026-11-23T00:00:00Z", Err(Absent::Over));
    let units = json!({
        "kind": "provisioned_throughput", "unit": "PTU-h", "quantity": "2",
        "commitment": { "fulfilment_interval": "hour",
            "capacity": { "tokens_per_minute": "2500", "output_weight": "4" } },
    });
    check(&units, noon, Ok(("2026-11-22T12:00:00Z", "2026-11-22T13:00:00Z", 300_000)));
}

#[test]
fn what_settles_in_cash_or_cannot_be_converted_has_nothing_to_draw() {
    let swap = json!({ "kind": "swap_fixed_float", "index_id": "TPI" });
    assert_eq!(drawable(&swap).err(), Some(Absent::NothingToDraw));
    let hours = json!({ "unit": "GPU-h", "commitment": { "fulfilment_interval": "month" } });
    check(&hours, "2026-11-22T12:00:00Z", Err(Absent::Untold));
}

#[test]
fn what_a_request_takes_is_rounded_up_in_the_contracts_own_units() {
    let now = at("2026-11-22T12:00:00Z");
    let cost = Money::from_pico(Currency::USD, 101);
    let asked = Asked { tokens: Some(101), cost: Some(cost), ..Asked::default() };
    let (small, other) = (Label::fixed("small-1"), Label::fixed("large"));
    let sit = drawable(&json!({ "unit": "MSIT", "commitment": { "fulfilment_interval": "month" } })).unwrap();
    assert_eq!((sit.measure(), sit.asked(&asked, Some(&small), now)), (Measure::StandardTokens, Some(51)));
    assert_eq!(sit.asked(&asked, Some(&other), now), None, "a model without a quality");
    assert_eq!(sit.asked(&asked, None, now), None);
    let credit = json!({
        "kind": "prepaid_credit", "unit": "CNY", "price_currency": "CNY", "fixed_price": null,
        "volumes": null, "commitment": { "benefit_percent": "50" },
    });
    let credit = drawable(&credit).unwrap();
    // 101 × 7 × ½ = 353.5
    assert_eq!(credit.asked(&asked, Some(&small), now), Some(354));
    assert_eq!(credit.asked(&asked, None, at("2026-12-20T00:00:00Z")), None, "no rate for a month");
    assert_eq!(credit.measured(Ratio::new(1, 3).unwrap()), Ok(333_333_333_334));
}

#[test]
fn what_is_not_known_of_a_request_counts_as_if_it_were_meant() {
    let held = json!({
        "commitment": { "fulfilment_interval": "month" },
        "designation": { "teams": ["a"], "models": ["gpt-*"], "providers": ["openai"], "regions": ["eu"],
            "token_classes": ["output"] },
    });
    let found = drawable(&held).unwrap();
    let no_tags = |_: &str, _: &str| false;
    let facts = |team, model: Option<&'static str>, any| Facts {
        team,
        workload: None,
        customer: None,
        provider: "openai",
        model,
        model_served: None,
        may_be_any_model: any,
        has_tag: &no_tags,
    };
    let (eu, us) = (Label::fixed("eu"), Label::fixed("us"));
    assert!(found.covers(&facts(Some("a"), Some("gpt-4o"), false), None));
    assert!(found.covers(&facts(Some("a"), None, true), Some(&eu)));
    assert!(!found.covers(&facts(Some("a"), Some("gpt-4o"), false), Some(&us)));
    assert!(!found.covers(&facts(Some("a"), Some("claude"), false), None));
    assert!(!found.covers(&facts(Some("b"), Some("gpt-4o"), false), None));
    assert!(!found.covers(&facts(None, Some("gpt-4o"), false), None));
}
