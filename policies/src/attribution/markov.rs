//! Removal effects of a first-order Markov chain: how much less often journeys would end in revenue
//! without a workload.
//!
//! Invariants
//! - Integer arithmetic only: probabilities are counts of 10⁻¹⁵, states are eliminated with sums,
//!   products and quotients of numbers that are not negative, so no digits cancel.
//!
//! Not here: who gets what of one event (`model`).

use bursar_domain::Label;
use bursar_domain::wide::mul_div_rem;
use std::collections::BTreeMap;

/// One way through workloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journey {
    /// Workloads in order of time.
    pub touches: Vec<Label>,
    /// Whether it ended in revenue.
    pub converted: bool,
}

/// A probability of one.
const ONE: u128 = 1_000_000_000_000_000;
/// Effects are given in parts of this.
const EFFECT_UNIT: u128 = 1_000_000_000;

/// Where a step leads: a workload by its number, or one of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Start,
    Workload(usize),
    Revenue,
    Nothing,
}

type Steps = BTreeMap<State, BTreeMap<State, u128>>;

/// For each workload, `1 − P(revenue without it)/P(revenue)` in parts of 10⁹, rounded half-up. Empty
/// when no journey ended in revenue.
#[must_use]
pub fn removal_effects(journeys: &[Journey]) -> BTreeMap<Label, u64> {
    removal_effects_of(journeys.iter().map(|journey| (journey, 1)))
}

/// The same, of journeys that were made several times each.
#[must_use]
pub fn removal_effects_of<'a>(
    journeys: impl Iterator<Item = (&'a Journey, u64)> + Clone,
) -> BTreeMap<Label, u64> {
    let mut numbers: BTreeMap<&Label, usize> = BTreeMap::new();
    for touch in journeys.clone().flat_map(|(journey, _)| &journey.touches) {
        let next = numbers.len();
        numbers.entry(touch).or_insert(next);
    }
    let counts = transitions(journeys, &numbers);
    let whole = revenue_probability(&counts, None);
    if whole == 0 {
        return BTreeMap::new();
    }
    let mut effects = BTreeMap::new();
    for (workload, number) in numbers {
        let without = revenue_probability(&counts, Some(number)).min(whole);
        let lost = whole.saturating_sub(without);
        let scaled = mul_div_rem(lost, EFFECT_UNIT, whole).map_or(0, |(quotient, remainder)| {
            let up = remainder >= whole.saturating_sub(remainder);
            quotient.saturating_add(u128::from(up))
        });
        effects.insert(workload.clone(), u64::try_from(scaled).unwrap_or(u64::MAX));
    }
    effects
}

fn transitions<'a>(
    journeys: impl Iterator<Item = (&'a Journey, u64)>,
    numbers: &BTreeMap<&Label, usize>,
) -> Steps {
    let mut counts: Steps = BTreeMap::new();
    for (journey, times) in journeys.filter(|(journey, _)| !journey.touches.is_empty()) {
        let states = journey.touches.iter().filter_map(|touch| numbers.get(touch)).copied();
        let end = if journey.converted { State::Revenue } else { State::Nothing };
        let mut from = State::Start;
        for to in states.map(State::Workload).chain([end]) {
            let count = counts.entry(from).or_default().entry(to).or_insert(0);
            *count = count.saturating_add(times.into());
            from = to;
        }
    }
    counts
}

/// The probability of ending in revenue, with `removed` leading to nothing.
fn revenue_probability(counts: &Steps, removed: Option<usize>) -> u128 {
    let gone = |state: State| removed.is_some_and(|number| state == State::Workload(number));
    let mut steps: Steps = BTreeMap::new();
    for (from, outgoing) in counts.iter().filter(|(from, _)| !gone(**from)) {
        let total = outgoing.values().fold(0_u128, |sum, count| sum.saturating_add(*count));
        let row = steps.entry(*from).or_default();
        for (to, count) in outgoing {
            let target = if gone(*to) { State::Nothing } else { *to };
            let probability = mul_div_rem(*count, ONE, total).map_or(0, |(quotient, _)| quotient);
            let sum = row.entry(target).or_insert(0);
            *sum = sum.saturating_add(probability);
        }
    }
    let inner: Vec<State> =
        steps.keys().copied().filter(|state| matches!(state, State::Workload(_))).collect();
    for state in inner {
        eliminate(&mut steps, state);
    }
    let row = steps.get(&State::Start);
    let to = |end| row.and_then(|row| row.get(&end)).copied().unwrap_or(0);
    let (revenue, nothing) = (to(State::Revenue), to(State::Nothing));
    // The two ends are all that is left; dividing takes out what rounding lost on the way.
    mul_div_rem(revenue, ONE, revenue.saturating_add(nothing)).map_or(0, |(quotient, _)| quotient)
}

/// Takes a state out: whoever led to it leads to where it led, in proportion, its loops aside.
fn eliminate(steps: &mut Steps, state: State) {
    let Some(row) = steps.remove(&state) else { return };
    let leaving: Vec<(State, u128)> = row.into_iter().filter(|(to, _)| *to != state).collect();
    let total = leaving.iter().fold(0_u128, |sum, (_, part)| sum.saturating_add(*part));
    for outgoing in steps.values_mut() {
        let Some(arriving) = outgoing.remove(&state) else { continue };
        for (to, part) in &leaving {
            let more = mul_div_rem(arriving, *part, total).map_or(0, |(quotient, _)| quotient);
            let sum = outgoing.entry(*to).or_insert(0);
            *sum = sum.saturating_add(more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journey(touches: &[&'static str], converted: bool) -> Journey {
        Journey { touches: touches.iter().map(|name| Label::fixed(name)).collect(), converted }
    }

    fn effects(journeys: &[Journey]) -> Vec<(String, u64)> {
        removal_effects(journeys).into_iter().map(|(label, effect)| (label.to_string(), effect)).collect()
    }

    #[test]
    fn the_textbook_chain_has_its_known_effects() {
        // start → c1 → c2 → c3 → revenue; start → c1 → nothing; start → c2 → c3 → nothing.
        // P = 1/3; without c1: 1/3 · 1/2 = 1/6; without c2 or c3: 0.
        let journeys =
            [journey(&["c1", "c2", "c3"], true), journey(&["c1"], false), journey(&["c2", "c3"], false)];
        let expected = [("c1", 500_000_000), ("c2", 1_000_000_000), ("c3", 1_000_000_000)]
            .map(|(w, e)| (w.to_owned(), e));
        assert_eq!(effects(&journeys), expected);
    }

    #[test]
    fn loops_and_the_order_of_journeys_do_not_disturb() {
        let mut journeys = vec![
            journey(&["a", "a", "b", "a"], true),
            journey(&["b", "b"], false),
            journey(&["c"], true),
            journey(&[], true),
        ];
        let found = effects(&journeys);
        journeys.reverse();
        assert_eq!(effects(&journeys), found);
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|(_, effect)| *effect > 0 && *effect < 1_000_000_000));
    }

    #[test]
    fn without_revenue_there_are_no_effects() {
        assert!(effects(&[journey(&["a"], false)]).is_empty());
        assert!(effects(&[]).is_empty());
    }
}
