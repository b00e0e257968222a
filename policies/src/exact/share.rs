//! Sharing money out by key: FINANCE §1's split with exact weights, and its sister for amounts that
//! are already shared but not yet rounded.
//!
//! Invariants
//! - Shares + residual = whole, always; ties go to the smaller key.
//!
//! Not here: the split itself (`bursar_domain::Money::split_wide`).

use super::{ExactError, Ratio, integer_weights};
use bursar_domain::money::PICO;
use bursar_domain::{Currency, Money};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// An amount shared out by key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shares<K> {
    /// Who gets what.
    pub parts: BTreeMap<K, Money>,
    /// What nobody got: everything when all weights are zero, else what is below a minor unit.
    pub residual: Money,
}

/// Shares `total` out by `weights`: largest remainder in minor units, ties to the smaller key.
pub fn shares<K: Ord + Clone>(total: Money, weights: &BTreeMap<K, Ratio>) -> Result<Shares<K>, ExactError> {
    let fractions: Vec<Ratio> = weights.values().copied().collect();
    let (parts, residual) = total.split_wide(&integer_weights(&fractions)?)?;
    Ok(Shares { parts: weights.keys().cloned().zip(parts).collect(), residual })
}

/// Rounds exact amounts to minor units so that they sum to their exact sum rounded half-even: floors,
/// and what is missing to the largest remainders, ties to the smaller key.
pub fn apportion<K: Ord + Clone>(
    exact: &BTreeMap<K, Ratio>,
    currency: Currency,
) -> Result<(BTreeMap<K, Money>, Money), ExactError> {
    let whole = Ratio::sum_near(exact.values().copied())?.money_half_even(currency)?;
    let minor = currency.minor_pico();
    let per_unit = PICO.checked_div(minor).ok_or(ExactError::Overflow)?.unsigned_abs();
    let mut left = whole.pico().checked_div(minor).ok_or(ExactError::Overflow)?;
    let mut floors = Vec::with_capacity(exact.len());
    for (key, amount) in exact {
        let (floor, remainder) = amount.scaled_floor(per_unit)?;
        left = left.checked_sub(floor).ok_or(ExactError::Overflow)?;
        floors.push((Reverse(remainder), key, floor));
    }
    floors.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    let mut parts = BTreeMap::new();
    for (_, key, floor) in floors {
        let extra = i128::from(left > 0);
        left = left.checked_sub(extra).ok_or(ExactError::Overflow)?;
        let units = floor.checked_add(extra).ok_or(ExactError::Overflow)?;
        let pico = units.checked_mul(minor).ok_or(ExactError::Overflow)?;
        parts.insert(key.clone(), Money::from_pico(currency, pico));
    }
    Ok((parts, whole))
}

/// The sum of `amounts`, all of one currency.
pub fn sum(currency: Currency, amounts: impl IntoIterator<Item = Money>) -> Result<Money, ExactError> {
    let zero = Money::zero(currency);
    Ok(amounts.into_iter().try_fold(zero, Money::checked_add)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exact::Decimal;
    use proptest::prelude::*;

    fn usd(text: &str) -> Money {
        Money::parse(Currency::USD, text).unwrap()
    }

    fn exact(amounts: &[(&'static str, &str)]) -> BTreeMap<&'static str, Ratio> {
        amounts.iter().map(|(key, text)| (*key, Decimal::parse(text).unwrap().ratio())).collect()
    }

    #[test]
    fn rounded_parts_sum_to_the_rounded_whole() {
        let amounts = [("alpha", "41237.184512"), ("beta", "18904.50733"), ("gamma", "3310.008158")];
        let (parts, whole) = apportion(&exact(&amounts), Currency::USD).unwrap();
        assert_eq!(whole, usd("63451.70"));
        assert_eq!(parts["alpha"], usd("41237.18"));
        assert_eq!(parts["beta"], usd("18904.51"));
        assert_eq!(parts["gamma"], usd("3310.01"));
    }

    #[test]
    fn a_credit_is_rounded_towards_the_same_whole() {
        let (parts, whole) =
            apportion(&exact(&[("a", "-0.005"), ("b", "-0.005"), ("c", "0.004")]), Currency::USD).unwrap();
        assert_eq!(whole, usd("-0.01"));
        assert_eq!(sum(Currency::USD, parts.into_values()).unwrap(), whole);
    }

    proptest! {
        #[test]
        fn apportioning_conserves_and_moves_nobody_by_a_minor_unit(
            amounts in prop::collection::btree_map(0_u8..20, -10_i128.pow(18)..10_i128.pow(18), 0..12)
        ) {
            let exact: BTreeMap<u8, Ratio> = amounts.iter().map(|(k, p)| (*k, Ratio::from_pico(*p))).collect();
            let (parts, whole) = apportion(&exact, Currency::USD).unwrap();
            prop_assert_eq!(sum(Currency::USD, parts.values().copied()).unwrap(), whole);
            let pico: i128 = amounts.values().sum();
            prop_assert_eq!(whole, Money::from_pico(Currency::USD, pico).round_to_minor().unwrap());
            for (key, part) in parts {
                prop_assert!((part.pico() - amounts[&key]).abs() < Currency::USD.minor_pico());
            }
        }
    }
}
