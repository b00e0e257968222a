//! A token price index made of volumes and prices: each provider weighs what was used of it, capped.
//!
//! Rules
//! - The price of a constituent on a day is its cost over its volume in the days up to that day; its weight
//!   is its part of the volume in the same days, capped, the excess given to the uncapped pro rata
//!   ([`capped_weights`], FINANCE §3).
//! - The value is the sum of weights times prices, rounded half-even once.
//! - A day without any volume in its days has no value: nothing is carried forward.
//! - A constituent without cost is one that costs nothing; where the cost is not known, its volume does not
//!   enter either (the caller leaves both out and says so).
//!
//! Not here: where volumes come from (`ledger`), what a fixing is (`market`).

use super::profile::capped_weights;
use crate::exact::{Decimal, ExactError, Ratio};
use bursar_domain::Label;
use jiff::civil::Date;
use std::collections::BTreeMap;

/// Most constituents of an index.
pub const CONSTITUENTS_MAX: usize = 200;
/// Decimals of weights and prices as they are told.
const PLACES: u32 = 12;

/// What was used of one constituent on one day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Million tokens, or standard ones.
    pub volume: Decimal,
    /// What they cost in the currency of the index.
    pub cost: Decimal,
}

/// All that was used, by day and constituent.
pub type Observations = BTreeMap<(Date, Label), Observed>;

/// How an index is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// Largest weight of one constituent.
    pub cap: Ratio,
    /// Days up to and including the day of a value.
    pub days: u32,
    /// Decimals of a value.
    pub places: u32,
}

/// One constituent on one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constituent {
    /// Its volume.
    pub volume: Decimal,
    /// Its price per unit.
    pub price: Decimal,
    /// Its weight, rounded to twelve decimals; the value is made of the exact one.
    pub weight: Decimal,
    /// Whether the cap (or, with too few constituents, the same weight for all) holds it down.
    pub is_capped: bool,
}

/// The value of a day and what it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composed {
    /// The day.
    pub date: Date,
    /// The first day whose usage is in it.
    pub since: Date,
    /// The value.
    pub value: Decimal,
    /// Its constituents.
    pub constituents: BTreeMap<Label, Constituent>,
}

/// Why there is no index.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// Too many constituents.
    #[error("{0} constituents on {1}: an index has at most {CONSTITUENTS_MAX}; group by provider")]
    TooMany(usize, Date),
    /// All of them are free.
    #[error("the value of {0} is zero: nothing that was used has a price above zero")]
    Zero(Date),
    /// Dates out of range.
    #[error("{0} days before {1} are out of any calendar")]
    Dates(u32, Date),
    /// Arithmetic.
    #[error(transparent)]
    Exact(#[from] ExactError),
}

/// The value of `date`; `None` when nothing was used in its days.
pub fn compose(seen: &Observations, date: Date, method: Method) -> Result<Option<Composed>, ComposeError> {
    let back = jiff::Span::new().days(i64::from(method.days.saturating_sub(1)));
    let since = date.checked_sub(back).map_err(|_| ComposeError::Dates(method.days, date))?;
    let mut sums: BTreeMap<Label, Observed> = BTreeMap::new();
    for ((day, key), observed) in seen.iter().skip_while(|((day, _), _)| *day < since) {
        if *day > date {
            break;
        }
        let sum = sums.entry(key.clone()).or_default();
        sum.volume = sum.volume.plus(observed.volume)?;
        sum.cost = sum.cost.plus(observed.cost)?;
    }
    sums.retain(|_, sum| sum.volume.is_positive());
    if sums.len() > CONSTITUENTS_MAX {
        return Err(ComposeError::TooMany(sums.len(), date));
    }
    let volumes: BTreeMap<Label, Decimal> = sums.iter().map(|(key, sum)| (key.clone(), sum.volume)).collect();
    let Some(weights) = capped_weights(&volumes, method.cap)? else { return Ok(None) };
    let total = volumes.values().try_fold(Decimal::ZERO, |sum, volume| sum.plus(*volume))?;
    let (mut value, mut constituents) = (Ratio::ZERO, BTreeMap::new());
    for (key, weight) in weights {
        let Some(sum) = sums.get(&key) else { continue };
        let price = sum.cost.over(sum.volume)?.decimal_half_even(PLACES)?;
        value = value.plus_near(weight.times_near(price.ratio(), PLACES)?)?;
        let is_capped = weight < sum.volume.over(total)?;
        let weight = weight.decimal_half_even(PLACES)?;
        constituents.insert(key, Constituent { volume: sum.volume, price, weight, is_capped });
    }
    let value = value.decimal_half_even(method.places)?;
    if !value.is_positive() {
        return Err(ComposeError::Zero(date));
    }
    Ok(Some(Composed { date, since, value, constituents }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hedge::calendar::parse_day;
    use proptest::prelude::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    fn seen(rows: &[(&str, &'static str, &str, &str)]) -> Observations {
        let row = |(day, key, volume, cost): &(&str, &'static str, &str, &str)| {
            let observed = Observed { volume: decimal(volume), cost: decimal(cost) };
            ((parse_day(day).unwrap(), Label::fixed(key)), observed)
        };
        rows.iter().map(row).collect()
    }

    fn method(days: u32) -> Method {
        Method { cap: Ratio::new(30, 100).unwrap(), days, places: 6 }
    }

    fn value(rows: &[(&str, &'static str, &str, &str)], date: &str, days: u32) -> Option<String> {
        let found = compose(&seen(rows), parse_day(date).unwrap(), method(days)).unwrap();
        found.map(|found| found.value.to_string())
    }

    #[test]
    fn a_dominant_provider_is_capped_and_the_value_is_made_of_the_capped_weights() {
        let rows = [
            ("2026-09-01", "a", "70", "70"),
            ("2026-09-01", "b", "20", "40"),
            ("2026-09-01", "c", "6", "24"),
            ("2026-09-01", "d", "4", "32"),
        ];
        let found = compose(&seen(&rows), parse_day("2026-09-01").unwrap(), method(1)).unwrap().unwrap();
        let told: Vec<(String, bool)> =
            found.constituents.values().map(|part| (part.weight.to_string(), part.is_capped)).collect();
        let expected = [("0.3", true), ("0.3", false), ("0.24", false), ("0.16", false)];
        assert_eq!(told, expected.map(|(weight, capped)| (weight.to_owned(), capped)));
        // 0.3·1 + 0.3·2 + 0.24·4 + 0.16·8
        assert_eq!(found.value.to_string(), "3.14");
    }

    #[test]
    fn only_the_days_up_to_a_day_are_in_its_value() {
        let rows = [
            ("2026-08-31", "a", "1", "9"),
            ("2026-09-01", "a", "1", "2"),
            ("2026-09-02", "a", "3", "12"),
            ("2026-09-03", "a", "1", "100"),
        ];
        assert_eq!(value(&rows, "2026-09-02", 1).as_deref(), Some("4"));
        assert_eq!(value(&rows, "2026-09-02", 2).as_deref(), Some("3.5"), "by volume, not by day");
        assert_eq!(value(&rows, "2026-09-10", 3), None);
        let free =
            compose(&seen(&[("2026-09-01", "a", "1", "0")]), parse_day("2026-09-01").unwrap(), method(1));
        assert!(matches!(free, Err(ComposeError::Zero(_))));
    }

    proptest! {
        #[test]
        fn weights_sum_to_one_stay_under_the_cap_and_the_value_between_the_prices(
            parts in prop::collection::vec((1_u32..1_000_000, 1_u32..1_000_000), 4..12),
        ) {
            let date = parse_day("2026-09-01").unwrap();
            let row = |(n, (volume, price)): (usize, &(u32, u32))| {
                let volume = Decimal::whole(*volume);
                let cost = volume.times(Decimal::whole(*price)).unwrap().decimal_half_even(0).unwrap();
                ((date, Label::new(&format!("p{n}")).unwrap()), Observed { volume, cost })
            };
            let seen: Observations = parts.iter().enumerate().map(row).collect();
            let found = compose(&seen, date, method(1)).unwrap().unwrap();
            let weights = found.constituents.values().map(|part| part.weight);
            let sum = weights.clone().try_fold(Decimal::ZERO, Decimal::plus).unwrap();
            let off = sum.minus(Decimal::ONE).unwrap().pico().unsigned_abs();
            prop_assert!(off <= parts.len() as u128, "{sum}");
            prop_assert!(weights.into_iter().all(|weight| weight <= decimal("0.3")));
            let prices: Vec<Decimal> = parts.iter().map(|(_, price)| Decimal::whole(*price)).collect();
            prop_assert!(found.value >= *prices.iter().min().unwrap());
            prop_assert!(found.value <= *prices.iter().max().unwrap());
        }
    }
}
