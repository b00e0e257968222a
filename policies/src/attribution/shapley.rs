//! Shapley values: the mean marginal value of a workload over all orders in which workloads could
//! have come, exact for up to ten.
//!
//! Invariants
//! - The values sum to the value of all together.
//!
//! Not here: who gets what of one event (`model`).

use super::markov::Journey;
use crate::exact::{ExactError, Ratio};
use bursar_domain::{Label, Money};
use std::collections::{BTreeMap, BTreeSet};

/// Most workloads for which every coalition is looked at.
pub const PLAYERS_MAX: usize = 10;

/// Why there are no Shapley values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapleyError {
    /// Too many workloads.
    #[error(
        "{0} workloads: exact Shapley values are for up to {PLAYERS_MAX}; use another model or group them"
    )]
    TooMany(usize),
    /// Arithmetic.
    #[error(transparent)]
    Exact(#[from] ExactError),
}

/// Shapley values of `players` for the value of each coalition; a coalition that is not named is
/// worth nothing.
pub fn shapley(
    players: &BTreeSet<Label>,
    value: &BTreeMap<BTreeSet<Label>, Ratio>,
) -> Result<BTreeMap<Label, Ratio>, ShapleyError> {
    let count = players.len();
    if count > PLAYERS_MAX {
        return Err(ShapleyError::TooMany(count));
    }
    let players: Vec<&Label> = players.iter().collect();
    let mut by_mask = BTreeMap::new();
    for (coalition, worth) in value {
        if let Some(mask) = mask_of(&players, coalition) {
            by_mask.insert(mask, *worth);
        }
    }
    let worth = |mask: u32| by_mask.get(&mask).copied().unwrap_or(Ratio::ZERO);
    let coalitions = 1_u32.checked_shl(u32::try_from(count).unwrap_or(u32::MAX)).unwrap_or(0);
    let mut values = BTreeMap::new();
    for (index, player) in players.iter().enumerate() {
        let bit = 1_u32 << index;
        let mut sum = Ratio::ZERO;
        for mask in (0..coalitions).filter(|mask| mask & bit == 0) {
            let marginal = worth(mask | bit).minus(worth(mask))?;
            sum = sum.plus(marginal.times(order_share(mask.count_ones(), count)?)?)?;
        }
        values.insert((*player).clone(), sum);
    }
    Ok(values)
}

/// `|S|!(n−|S|−1)!/n!`: the share of orders in which exactly a coalition comes before a player.
fn order_share(before: u32, count: usize) -> Result<Ratio, ExactError> {
    let count = u32::try_from(count).map_err(|_| ExactError::Overflow)?;
    let after = count.saturating_sub(before).saturating_sub(1);
    let orders = factorial(before).checked_mul(factorial(after)).ok_or(ExactError::Overflow)?;
    Ratio::new(orders, factorial(count))
}

fn factorial(number: u32) -> i128 {
    (1..=i128::from(number)).fold(1, i128::saturating_mul)
}

fn mask_of(players: &[&Label], coalition: &BTreeSet<Label>) -> Option<u32> {
    let mut mask = 0_u32;
    for member in coalition {
        let index = players.iter().position(|player| *player == member)?;
        mask |= 1_u32.checked_shl(u32::try_from(index).ok()?)?;
    }
    Some(mask)
}

/// The value of every coalition from journeys: what the journeys brought that it could have made
/// alone, because it has all their workloads.
pub fn coalition_values(
    players: &BTreeSet<Label>,
    journeys: &[(Journey, Money)],
) -> Result<BTreeMap<BTreeSet<Label>, Ratio>, ShapleyError> {
    if players.len() > PLAYERS_MAX {
        return Err(ShapleyError::TooMany(players.len()));
    }
    let mut own: BTreeMap<BTreeSet<Label>, Ratio> = BTreeMap::new();
    for (journey, amount) in journeys.iter().filter(|(journey, _)| journey.converted) {
        let members: BTreeSet<Label> = journey.touches.iter().cloned().collect();
        let sum = own.entry(members).or_insert(Ratio::ZERO);
        *sum = sum.plus(Ratio::of(*amount))?;
    }
    let mut values = BTreeMap::new();
    for coalition in subsets(players) {
        let inside = own.iter().filter(|(members, _)| members.is_subset(&coalition));
        let worth = Ratio::sum(inside.map(|(_, worth)| *worth))?;
        values.insert(coalition, worth);
    }
    Ok(values)
}

fn subsets(players: &BTreeSet<Label>) -> Vec<BTreeSet<Label>> {
    let mut all = vec![BTreeSet::new()];
    for player in players {
        let mut with: Vec<BTreeSet<Label>> = all.clone();
        for coalition in &mut with {
            coalition.insert(player.clone());
        }
        all.append(&mut with);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use bursar_domain::Currency;

    fn set(names: &[&'static str]) -> BTreeSet<Label> {
        names.iter().map(|name| Label::fixed(name)).collect()
    }

    #[test]
    fn values_from_journeys_sum_to_what_all_brought() {
        let journey = |touches: &[&'static str], cents: i128| {
            let touches = touches.iter().map(|name| Label::fixed(name)).collect();
            let amount = Money::from_pico(Currency::USD, cents * 10_000_000_000);
            (Journey { touches, converted: true }, amount)
        };
        let players = set(&["a", "b", "c"]);
        let journeys = [journey(&["a"], 4_000), journey(&["a", "b"], 3_000), journey(&["b", "c", "a"], 900)];
        let values = coalition_values(&players, &journeys).unwrap();
        assert_eq!(values[&set(&["a", "b"])], Ratio::whole(70));
        let phi = shapley(&players, &values).unwrap();
        assert_eq!(phi[&Label::fixed("a")], Ratio::whole(58));
        assert_eq!(phi[&Label::fixed("b")], Ratio::whole(18));
        assert_eq!(phi[&Label::fixed("c")], Ratio::whole(3));
    }

    #[test]
    fn ten_workloads_are_exact_and_eleven_are_refused() {
        let names: Vec<Label> = (0..11).map(|n| Label::new(&format!("w{n:02}")).unwrap()).collect();
        let all: BTreeSet<Label> = names.iter().cloned().collect();
        let ten: BTreeSet<Label> = names.iter().take(10).cloned().collect();
        let value = BTreeMap::from([(ten.clone(), Ratio::whole(1))]);
        let phi = shapley(&ten, &value).unwrap();
        assert!(phi.values().all(|value| *value == Ratio::new(1, 10).unwrap()));
        assert_eq!(shapley(&all, &value), Err(ShapleyError::TooMany(11)));
    }
}
