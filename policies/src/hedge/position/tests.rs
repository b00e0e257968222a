//! Tests of positions: every kind can be entered, every mistake is named, presets need only what
//! they ask for.

use super::*;
use serde_json::{Value, json};

fn read(fields: Value) -> Result<Position, Vec<EntryError>> {
    serde_json::from_value::<Entry>(fields).unwrap().check()
}

fn swap() -> Value {
    json!({
        "position_id": "swap-1", "kind": "swap_fixed_float", "side": "pay_fixed", "quantity": 36000,
        "unit": "MSIT", "fixed_price": "2.10", "index_id": "TPI", "trade_date": "2026-08-11",
        "effective_from": "2026-09-01", "effective_until": "2026-10-01", "designation": {}
    })
}

fn with(mut fields: Value, key: &str, value: Value) -> Value {
    fields[key] = value;
    fields
}

#[track_caller]
fn check_refused(fields: Value, texts: &[&str]) {
    let errors: Vec<String> = read(fields).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), texts.len(), "{errors:#?}");
    for text in texts {
        assert!(errors.iter().any(|error| error.contains(text)), "{text:?} in {errors:#?}");
    }
}

#[test]
fn a_swap_is_entered_with_few_words() {
    let position = read(swap()).unwrap();
    let terms = position.terms();
    assert_eq!(terms.timing.settlement, SettlementRule::AverageBusiness);
    assert_eq!(terms.identity.version, 1);
    assert_eq!(position.units().unwrap(), Ratio::whole(36_000));
    assert_eq!(position.rank(), 300);
    assert!(position.shape().is_some());
}

#[test]
fn all_fourteen_kinds_can_be_entered() {
    let window = |kind: &str, unit: &str| {
        json!({
            "position_id": kind, "kind": kind, "quantity": "10", "unit": unit, "trade_date": "2026-08-11",
            "effective_from": "2026-09-01", "effective_until": "2026-10-01", "designation": {}
        })
    };
    let priced = |kind, unit| with(window(kind, unit), "fixed_price", json!("2"));
    let indexed = |fields| with(fields, "index_id", json!("TPI"));
    let strikes = |kind, strikes| indexed(with(window(kind, "Mtok"), "strikes", strikes));
    let capacity = json!({"capacity": {"tokens_per_minute": 4750, "output_weight": 8}});
    let entries = [
        indexed(priced("swap_fixed_float", "Mtok")),
        indexed(priced("future", "GPU-h")),
        indexed(priced("perpetual", "GPU-h")),
        strikes("cap", json!({"cap": "2.2"})),
        strikes("floor", json!({"floor": "1.8"})),
        strikes("collar", json!({"cap": "2.2", "floor": "1.8"})),
        strikes("binary", json!({"cap": "2.75"})),
        priced("forward_physical", "Mtok"),
        priced("commit_usage", "GPU-h"),
        window("commit_spend", "USD"),
        window("prepaid_credit", "USD"),
        with(priced("provisioned_throughput", "PTU-h"), "commitment", capacity),
        with(priced("voucher", "Mtok"), "commitment", json!({"expiry": "2026-09-30"})),
        with(
            with(priced("fx_forward", "USD"), "price_currency", json!("CNY")),
            "fx",
            json!({"pair": "USD/CNY"}),
        ),
    ];
    assert_eq!(entries.len(), Kind::ALL.len());
    for (fields, kind) in entries.into_iter().zip(Kind::ALL) {
        let position = read(fields).unwrap_or_else(|errors| panic!("{kind}: {errors:#?}"));
        assert_eq!(position.terms().kind, *kind);
        let cash = matches!(kind.group(), Group::Cash | Group::Uncounted | Group::Currency);
        assert_eq!(position.shape().is_some(), cash, "{kind}");
    }
}

#[test]
fn every_mistake_is_reported_at_once() {
    let fields = json!({
        "position_id": "x", "kind": "swap_fixed_float", "quantity": "-5", "unit": "tok",
        "trade_date": "yesterday", "effective_from": "2026-09-01", "effective_until": "2026-09-01"
    });
    check_refused(
        fields,
        &[
            "quantity: \"-5\" must be above zero",
            "unit: \"tok\" is unknown",
            "trade_date: \"yesterday\" is not a day",
            "is empty",
            "fixed_price is missing: a swap_fixed_float has one",
            "index_id is missing",
        ],
    );
}

#[test]
fn terms_that_contradict_each_other_are_refused() {
    check_refused(with(swap(), "strikes", json!({"cap": 2})), &["a swap_fixed_float has none"]);
    check_refused(with(swap(), "unit", json!("USD")), &["counts Mtok"]);
    check_refused(with(swap(), "tick", json!("0.04")), &["no multiple of the tick 0.04"]);
    check_refused(with(swap(), "settlement_rule", json!("physical")), &["settles in cash"]);
    check_refused(with(swap(), "commitment", json!({})), &["commits to nothing"]);
    check_refused(with(swap(), "settlement_currency", json!("CNH")), &["CNY and CNH are two"]);
    let wrong = with(
        with(with(swap(), "price_currency", json!("CNH")), "settlement_currency", json!("USD")),
        "fx",
        json!({"pair": "USD/CNY"}),
    );
    check_refused(wrong, &["CNY and CNH are two currencies"]);
    check_refused(with(swap(), "designation", json!({"allocation": "designated"})), &["needs at least one"]);
    check_refused(with(swap(), "effective_until", json!("2026-11-01")), &["volumes is missing"]);
    check_refused(with(swap(), "volumes", json!({"2026-11": "5"})), &["outside the effective window"]);
    check_refused(with(swap(), "volumes", json!({"2026-09": "-5"})), &["must not be negative"]);
    check_refused(with(swap(), "supersedes", json!(1)), &["supersedes an earlier one"]);
}

#[test]
fn a_position_that_covers_nothing_is_refused() {
    for volumes in [json!({}), json!({"2026-09": "0"})] {
        check_refused(with(swap(), "volumes", volumes), &["volumes: no month has any lots"]);
    }
    assert!(read(with(swap(), "volumes", json!({"2026-09": "1"}))).is_ok());
}

#[test]
fn days_that_contradict_the_days_covered_are_refused() {
    check_refused(with(swap(), "trade_date", json!("2026-10-01")), &["trade_date: \"2026-10-01\" is after"]);
    assert!(read(with(swap(), "trade_date", json!("2026-09-30"))).is_ok());
    check_refused(with(swap(), "last_trade", json!("2026-08-10")), &["before the trade of 2026-08-11"]);
    check_refused(with(swap(), "contract_month", json!("2026-12")), &["the contract month lies outside"]);
    assert!(read(with(swap(), "contract_month", json!("2026-09"))).is_ok());
    let credit = |expiry| {
        json!({
            "position_id": "p", "kind": "prepaid_credit", "quantity": "10", "unit": "USD",
            "trade_date": "2026-08-11", "effective_from": "2026-09-01", "effective_until": "2026-10-01",
            "commitment": {"expiry": expiry}
        })
    };
    // Before the first day it would never lapse, after the last it would lapse before it.
    for expiry in ["2025-01-01", "2026-08-31", "2026-10-01"] {
        check_refused(credit(expiry), &["lies outside the days from 2026-09-01 until 2026-10-01"]);
    }
    assert!(read(credit("2026-09-30")).is_ok());
}

#[test]
fn a_currency_that_nobody_knows_is_refused() {
    check_refused(
        with(swap(), "price_currency", json!("USB")),
        &["price_currency: \"USB\" is no known currency"],
    );
    check_refused(with(swap(), "unit", json!("MTK")), &["unit: \"MTK\" is unknown"]);
    check_refused(with(swap(), "fx", json!({"pair": "USD/CNX"})), &["fx.pair"]);
}

#[test]
fn terms_without_a_meaning_are_refused() {
    let commitment = json!({
        "position_id": "c", "kind": "commit_usage", "side": "short", "quantity": "10", "unit": "Mtok",
        "fixed_price": "2", "trade_date": "2026-08-11", "effective_from": "2026-09-01",
        "effective_until": "2026-10-01"
    });
    check_refused(commitment, &["side: \"short\" is not the side of a commit_usage"]);
    let margin = json!({"initial": "5", "maintenance_ratio": "0.75", "threshold": "-1"});
    check_refused(with(swap(), "margin", margin), &["margin.threshold: \"-1\" must not be negative"]);
    let range = json!({"effectiveness": {"method": "regression", "lowest": "1.3"}});
    check_refused(with(swap(), "designation", range), &["nothing lies from 1.3 to 1.25"]);
}

#[test]
fn unknown_fields_are_errors_of_the_reader() {
    assert!(serde_json::from_value::<Entry>(with(swap(), "quantitty", json!(1))).is_err());
    assert!(serde_json::from_value::<Entry>(with(swap(), "designation", json!({"team": "a"}))).is_err());
}

#[test]
fn quantities_lie_over_months_as_written() {
    let long = with(swap(), "effective_until", json!("2026-11-01"));
    let month = |text| Month::parse(text).unwrap();
    let units = |volumes: Value, at| {
        let position = read(with(long.clone(), "volumes", volumes)).unwrap();
        position.units_in(month(at)).unwrap().text_half_even(4).unwrap()
    };
    assert_eq!(units(json!("each_month"), "2026-10"), "36000.0000");
    assert_eq!(units(json!("spread"), "2026-09"), "17704.9180", "30 of 61 days");
    assert_eq!(units(json!({"2026-10": "7"}), "2026-10"), "7.0000");
    assert_eq!(units(json!({"2026-10": "7"}), "2026-09"), "0.0000");
    assert_eq!(units(json!("each_month"), "2026-11"), "0.0000");
}

#[test]
fn provisioned_units_count_every_hour_of_the_month() {
    let fields = json!({
        "position_id": "ptu", "quantity": "50", "fixed_price": "1.00", "trade_date": "2026-08-11",
        "effective_from": "2026-09-01", "effective_until": "2027-09-01",
        "commitment": {"capacity": {"tokens_per_minute": "4750", "output_weight": "8"}}
    });
    let position = Preset::named("azure-ptu").unwrap().with(fields).unwrap().check().unwrap();
    let units = position.units_in(Month::parse("2026-09").unwrap()).unwrap();
    assert_eq!(units, Ratio::whole(50 * 24 * 30));
}

/// Something plausible for each field that a preset leaves to the user.
fn filling(name: &str) -> Value {
    match name {
        "position_id" => json!("p"),
        "kind" => json!("future"),
        "quantity" | "multiplier" => json!("12"),
        "unit" => json!("MSIT"),
        "fixed_price" => json!("2.63"),
        "tick" => json!("0.01"),
        "index_id" => json!("INDEX"),
        "fallback" => json!("fail"),
        "settlement_rule" => json!("average_business"),
        "contract_month" => json!("2026-12"),
        "last_trade" => json!("2026-12-16"),
        "trade_date" => json!("2026-08-12"),
        "effective_from" => json!("2026-12-01"),
        "effective_until" => json!("2027-01-01"),
        "fx" => json!({"pair": "USD/CNY"}),
        "commitment.capacity" => json!({"tokens_per_minute": "4750"}),
        "designation.conversion_profile" => json!("profile"),
        other => panic!("a preset asks for {other}"),
    }
}

#[test]
fn every_preset_is_a_position_once_its_gaps_are_filled_and_not_before() {
    let all = presets().unwrap();
    assert_eq!(all.len(), 10);
    for preset in all {
        assert!(!preset.source.is_empty() && !preset.date.is_empty() && !preset.notes.is_empty());
        let mut fields = json!({});
        for name in &preset.fill_in {
            match name.split_once('.') {
                Some((group, field)) => fields[group][field] = filling(name),
                None => fields[name] = filling(name),
            }
        }
        let position = preset.with(fields).unwrap().check();
        assert!(position.is_ok(), "{}: {:#?}", preset.name, position.err());
        assert!(preset.with(json!({})).unwrap().check().is_err(), "{} alone is no position", preset.name);
    }
    assert!(Preset::named("nothing").unwrap_err().to_string().contains("azure-ptu"));
}

#[test]
fn selectors_ask_only_for_what_they_name() {
    let label = Label::fixed;
    let facets = Facets {
        team: label("alpha"),
        model: Some(label("claude-opus-5")),
        provider: None,
        region: Some(label("eu")),
        class: Some(ContractClass::Output),
    };
    let covers = |written: Value| {
        let position = read(with(swap(), "designation", written)).unwrap();
        position.terms().designation.as_ref().unwrap().selector.covers(&facets)
    };
    assert!(covers(json!({})));
    assert!(covers(json!({"teams": ["alpha", "beta"], "models": ["claude-*"], "regions": ["eu"]})));
    assert!(covers(json!({"token_classes": ["blended"]})));
    assert!(!covers(json!({"token_classes": ["input"]})));
    assert!(!covers(json!({"models": ["claude-opus"]})));
    assert!(!covers(json!({"providers": ["anthropic"]})), "a provider that is not known is not covered");
}
