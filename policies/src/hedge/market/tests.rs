//! Tests of market data: refusals with precise reasons, restatements, fallbacks, conversions.

use super::*;
use crate::hedge::calendar::{Month, Weekends, parse_day};

const NOW: Timestamp = Timestamp::from_micros(2_000_000_000_000_000);

fn day(text: &str) -> Date {
    parse_day(text).unwrap()
}

fn usd() -> Currency {
    Currency::USD
}

fn currency(code: &str) -> Currency {
    Currency::parse(code).unwrap()
}

fn key() -> IndexKey {
    IndexKey { id: Label::fixed("TPI"), version: 1 }
}

fn market() -> Market {
    let mut market = Market::default();
    let holidays = [day("2026-09-07")].into();
    market.declare(Index {
        key: key(),
        currency: usd(),
        calendar: Calendar::new(Label::fixed("us"), Weekends::Closed, holidays),
        last: Some(day("2026-12-31")),
    });
    market
}

fn fixing(date: &str, value: &str) -> Fixing {
    Fixing {
        index: key(),
        date: day(date),
        value: Decimal::parse(value).unwrap(),
        currency: usd(),
        source: Label::fixed("exchange"),
        known_at: Timestamp::from_micros(1),
    }
}

fn rate(pair: &str, date: &str, rate: &str) -> FxRate {
    FxRate {
        pair: Pair::parse(pair).unwrap(),
        date: day(date),
        rate: Decimal::parse(rate).unwrap(),
        source: Label::fixed("bank"),
        known_at: Timestamp::from_micros(1),
    }
}

fn averaging(days: AverageDays, fallback: Fallback) -> Averaging {
    Averaging { days, fallback, rounding_places: None }
}

#[track_caller]
fn check_refused(fixing: Fixing, text: &str) {
    let error = market().add_fixing(fixing).unwrap_err();
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn fixings_that_cannot_be_are_refused_with_the_reason() {
    check_refused(fixing("2026-09-07", "2"), "no business day of calendar us");
    check_refused(fixing("2026-09-05", "2"), "no business day");
    check_refused(fixing("2027-01-04", "2"), "ended on 2026-12-31");
    check_refused(fixing("2026-09-08", "0"), "above zero");
    check_refused(fixing("2026-09-08", "-1"), "above zero");
    check_refused(Fixing { currency: currency("CNY"), ..fixing("2026-09-08", "2") }, "TPI v1 is in USD");
    let other = IndexKey { version: 2, ..key() };
    check_refused(Fixing { index: other, ..fixing("2026-09-08", "2") }, "unknown index TPI v2");
}

#[test]
fn adding_again_is_nothing_and_a_later_word_restates_without_erasing() {
    let mut market = market();
    let first = fixing("2026-09-08", "2.1");
    assert_eq!(market.add_fixing(first.clone()).unwrap(), Added::New);
    let before = market.clone();
    assert_eq!(market.add_fixing(first.clone()).unwrap(), Added::Same);
    assert_eq!(market, before);
    let later = Timestamp::from_micros(10);
    let restated = Fixing { value: Decimal::parse("2.2").unwrap(), known_at: later, ..first.clone() };
    assert_eq!(market.add_fixing(restated).unwrap(), Added::Restated);
    let value = |as_of| market.fixing(&key(), day("2026-09-08"), as_of).unwrap().to_string();
    assert_eq!((value(Timestamp::from_micros(9)), value(later)), ("2.1".into(), "2.2".into()));
    let conflict = Fixing { value: Decimal::parse("9").unwrap(), ..first };
    assert!(matches!(market.add_fixing(conflict), Err(MarketError::Conflict { .. })));
}

/// The first week of September 2026 without Thursday.
fn week_with_a_gap() -> Market {
    let mut market = market();
    for (date, value) in
        [("2026-09-01", "2.0"), ("2026-09-02", "2.1"), ("2026-09-04", "2.5"), ("2026-09-08", "2.6")]
    {
        let _ = market.add_fixing(fixing(date, value)).unwrap();
    }
    market
}

#[test]
fn a_missing_day_is_filled_by_the_rule_of_the_contract_or_named() {
    let market = week_with_a_gap();
    let window = Window::new(day("2026-09-01"), day("2026-09-08")).unwrap();
    let mean =
        |days, fallback| market.average(&key(), window, averaging(days, fallback), day("2026-09-30"), NOW);
    let text = |average: &Average| average.value.text_half_even(6).unwrap();
    let last = mean(AverageDays::Business, Fallback::LastPublished).unwrap();
    assert_eq!((text(&last).as_str(), last.days), ("2.175000", 4), "the holiday is no business day");
    assert_eq!(last.filled, [day("2026-09-03")]);
    let line = mean(AverageDays::Business, Fallback::Interpolate).unwrap();
    assert_eq!(text(&line), "2.225000", "half way between 2.1 and 2.5");
    let error = mean(AverageDays::Business, Fallback::Fail).unwrap_err();
    assert_eq!(
        error.to_string(),
        "TPI v1 has no fixing for 1 of 4 days, first 2026-09-03, and the contract has no usable fallback"
    );
    let all = mean(AverageDays::Calendar, Fallback::LastPublished).unwrap();
    assert_eq!((text(&all).as_str(), all.days), ("2.314286", 7));
}

#[test]
fn an_average_to_date_is_provisional_and_does_not_look_ahead() {
    let market = week_with_a_gap();
    let window = Month::parse("2026-09").unwrap().window().unwrap();
    let rule = averaging(AverageDays::Business, Fallback::Fail);
    let average = market.average(&key(), window, rule, day("2026-09-02"), NOW).unwrap();
    assert!(average.provisional);
    assert_eq!(average.value.text_half_even(4).unwrap(), "2.0500");
    let rounded = Averaging { rounding_places: Some(1), ..rule };
    let average = market.average(&key(), window, rounded, day("2026-09-02"), NOW).unwrap();
    assert_eq!(average.value.text_half_even(4).unwrap(), "2.0000", "2.05 goes to the even tenth");
}

#[test]
fn money_is_divided_by_the_published_rate_and_never_by_another_currency() {
    let mut market = market();
    let _ = market.add_rate(rate("USD/CNY", "2026-09-30", "7.1")).unwrap();
    let date = day("2026-10-02");
    let convert =
        |from, to, date| market.convert(Ratio::whole(71), (currency(from), currency(to)), date, None, NOW);
    assert_eq!(convert("CNY", "USD", date).unwrap(), Ratio::whole(10));
    assert_eq!(convert("USD", "CNY", date).unwrap(), Ratio::new(5041, 10).unwrap());
    assert_eq!(convert("CNY", "CNY", date).unwrap(), Ratio::whole(71));
    assert!(matches!(convert("CNH", "USD", date), Err(MarketError::NoRate { .. })), "CNH is not CNY");
    assert!(convert("CNY", "USD", day("2026-10-08")).is_err(), "older than a week");
    assert!(convert("CNY", "USD", day("2026-09-29")).is_err(), "not yet published");
    assert!(Pair::parse("USD/USD").is_err());
    assert!(Pair::parse("usdcny").is_err());
}

#[test]
fn missing_late_and_restated_days_are_listed() {
    let mut market = market();
    let micros = |text: &str| Timestamp::from_micros(i64::from(day_number(day(text))) * 86_400_000_000);
    for (date, known, value) in [
        ("2026-09-01", "2026-09-01", "2"),
        ("2026-09-02", "2026-09-06", "2"),
        ("2026-09-01", "2026-09-09", "3"),
    ] {
        let fixing = Fixing { known_at: micros(known), ..fixing(date, value) };
        let _ = market.add_fixing(fixing).unwrap();
    }
    let window = Window::new(day("2026-09-01"), day("2026-09-04")).unwrap();
    let found = market.irregular(&key(), window, day("2026-09-30"), NOW).unwrap();
    assert_eq!(found.missing, [day("2026-09-03")].into());
    assert_eq!(found.late, [day("2026-09-02")].into());
    assert_eq!(found.restated, [day("2026-09-01")].into());
}
