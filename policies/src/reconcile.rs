//! Reconciliation: why what a provider charged is not what was booked, part by part.
//!
//! ```text
//! gap    = theirs − ours
//! volume = worth of their tokens − worth of ours, both at the same list of prices
//! price  = gap − volume: the same tokens at other prices; rounding, where it is no more than the
//!          digits of their figures can hide
//! volume = unpriced + estimated + aborted + outside + unexplained, taken in this order, each no more
//!          than it can be
//! ```
//!
//! Invariants
//! - The parts sum to the gap, in money and in tokens, whatever the figures.
//! - Every part but `unexplained` has its own evidence: records without a price, records that were
//!   estimated, records whose usage nobody knows, calls that the provider counts and nobody here saw.
//! - What is unknown stays unknown: without their cost there is no gap of money, without their tokens
//!   none of tokens.
//!
//! Not here: files of providers and which lines belong together (`bursar`), prices (`price`).

use bursar_domain::wide::Wide;

/// What the provider says about one cell: a day and a model, or coarser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Theirs {
    /// What it charged, in pico-units.
    pub cost: Option<i128>,
    /// How many requests it counted.
    pub requests: Option<u64>,
    /// How many tokens it counted, input and output.
    pub tokens: Option<u64>,
    /// What its tokens are worth at the list of prices that `Ours` uses, too.
    pub worth: Option<i128>,
    /// The most by which its figures may be off for their number of digits.
    pub rounding: i128,
}

/// Some of our records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// How many.
    pub requests: u64,
    /// Their tokens, input and output.
    pub tokens: u64,
    /// What is booked for them, in pico-units.
    pub billed: i128,
}

/// What our records say about the same cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ours {
    /// All that count.
    pub all: Share,
    /// Of these, those whose tokens were counted or estimated here, or are only part of the provider's.
    pub estimated: Share,
    /// Of these, those without a complete price.
    pub unpriced: Share,
    /// Those of which nobody knows what they used: aborted, interrupted, failed late.
    pub unknown: u64,
    /// What the tokens of all that have a price are worth at the list of prices.
    pub worth: Option<i128>,
    /// What the tokens of those without one would be worth, if it can be told.
    pub worth_unpriced: Option<i128>,
}

/// The parts of a gap; positive where the provider has more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Calls that are here without a price.
    pub unpriced: i128,
    /// Counts that were estimated here.
    pub estimated: i128,
    /// Calls that are here without usage: aborted and the like, which providers may charge.
    pub aborted: i128,
    /// Calls that did not pass here.
    pub outside: i128,
    /// The same tokens at other prices.
    pub price: i128,
    /// Digits that their figures leave out.
    pub rounding: i128,
    /// The rest.
    pub unexplained: i128,
}

impl Parts {
    /// All parts, by name, in the order in which they are shown.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, i128); 7] {
        let Self { unpriced, estimated, aborted, outside, price, rounding, unexplained } = *self;
        [
            ("unpriced", unpriced),
            ("estimated", estimated),
            ("aborted", aborted),
            ("outside", outside),
            ("price", price),
            ("rounding", rounding),
            ("unexplained", unexplained),
        ]
    }

    /// Their sum: the gap.
    #[must_use]
    pub fn sum(&self) -> Option<i128> {
        self.named().iter().try_fold(0_i128, |sum, (_, part)| sum.checked_add(*part))
    }

    /// Both together, part by part.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Option<Self> {
        Some(Self {
            unpriced: self.unpriced.checked_add(other.unpriced)?,
            estimated: self.estimated.checked_add(other.estimated)?,
            aborted: self.aborted.checked_add(other.aborted)?,
            outside: self.outside.checked_add(other.outside)?,
            price: self.price.checked_add(other.price)?,
            rounding: self.rounding.checked_add(other.rounding)?,
            unexplained: self.unexplained.checked_add(other.unexplained)?,
        })
    }
}

/// An amount beyond 128 bits of pico-units: no real one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an amount is too large to be reconciled")]
pub struct TooLarge;

/// The parts of the gap in money; `None` where the provider's cost is not known.
pub fn money(theirs: &Theirs, ours: &Ours) -> Result<Option<Parts>, TooLarge> {
    let Some(cost) = theirs.cost else { return Ok(None) };
    parts_of_money(cost, theirs, ours).map(Some).ok_or(TooLarge)
}

fn parts_of_money(cost: i128, theirs: &Theirs, ours: &Ours) -> Option<Parts> {
    let gap = cost.checked_sub(ours.all.billed)?;
    let volume = match (theirs.worth, ours.worth) {
        // Of what nobody here saw, no price can differ.
        _ if ours.all == Share::default() => gap,
        (Some(theirs), Some(ours)) => theirs.checked_sub(ours)?,
        _ if theirs.tokens == Some(ours.all.tokens) && ours.unpriced.requests == 0 => 0,
        // Without worths, what the digits hide is told all the same.
        _ if gap.checked_abs()? <= theirs.rounding => 0,
        _ => gap,
    };
    let other = gap.checked_sub(volume)?;
    let mut parts = Parts::default();
    if other.checked_abs()? <= theirs.rounding {
        parts.rounding = other;
    } else {
        parts.price = other;
    }
    let requests = theirs.requests.unwrap_or(ours.all.requests);
    let limits = Limits {
        unpriced: worth_of_unpriced(cost, volume, theirs, ours),
        estimated: ours.estimated.billed.max(0),
        aborted: share(cost, ours.unknown, requests),
    };
    take_volume(volume, &limits, is_more_outside(theirs, ours), &mut parts)?;
    Some(parts)
}

/// The parts of the gap in tokens; `None` where the provider's tokens are not known.
pub fn tokens(theirs: &Theirs, ours: &Ours) -> Result<Option<Parts>, TooLarge> {
    let Some(count) = theirs.tokens.map(i128::from) else { return Ok(None) };
    let mut parts = Parts::default();
    let requests = theirs.requests.unwrap_or(ours.all.requests);
    let limits = Limits {
        // Their tokens are counted here, price or no price.
        unpriced: 0,
        estimated: ours.estimated.tokens.into(),
        aborted: share(count, ours.unknown, requests),
    };
    let gap = count.checked_sub(ours.all.tokens.into()).ok_or(TooLarge)?;
    take_volume(gap, &limits, is_more_outside(theirs, ours), &mut parts).ok_or(TooLarge)?;
    Ok(Some(parts))
}

/// The most that each reason can explain.
struct Limits {
    unpriced: i128,
    estimated: i128,
    aborted: i128,
}

/// Whether the provider counted calls that nobody here saw.
fn is_more_outside(theirs: &Theirs, ours: &Ours) -> bool {
    match (ours.all.requests, theirs.requests, theirs.tokens) {
        (0, _, _) => true,
        (seen, Some(counted), _) => counted > seen,
        (_, None, Some(tokens)) => tokens > ours.all.tokens,
        (_, None, None) => false,
    }
}

/// What the records without a price may have cost: by the list of prices, else by their share of the
/// provider's tokens, else all of it if there is nothing but them.
fn worth_of_unpriced(cost: i128, volume: i128, theirs: &Theirs, ours: &Ours) -> i128 {
    if ours.unpriced.requests == 0 {
        return 0;
    }
    match (ours.worth_unpriced, theirs.tokens) {
        (Some(worth), _) => worth.max(0),
        (None, Some(all)) => share(cost, ours.unpriced.tokens, all),
        (None, None) if ours.unpriced.requests == ours.all.requests => volume.max(0),
        (None, None) => 0,
    }
}

fn take_volume(volume: i128, limits: &Limits, is_more_outside: bool, parts: &mut Parts) -> Option<()> {
    if volume < 0 {
        // An estimate may be too high; nothing else makes ours more than theirs.
        parts.estimated = volume.max(limits.estimated.checked_neg()?);
        parts.unexplained = volume.checked_sub(parts.estimated)?;
        return Some(());
    }
    let mut rest = volume;
    let reasons = [
        (&mut parts.unpriced, limits.unpriced),
        (&mut parts.estimated, limits.estimated),
        (&mut parts.aborted, limits.aborted),
        (&mut parts.outside, if is_more_outside { rest } else { 0 }),
        (&mut parts.unexplained, rest),
    ];
    for (part, limit) in reasons {
        *part = rest.min(limit);
        rest = rest.checked_sub(*part)?;
    }
    Some(())
}

/// `whole · part / all`, rounded down, and no more than the whole; nothing of a whole below zero.
fn share(whole: i128, part: u64, all: u64) -> i128 {
    let Ok(positive) = u128::try_from(whole) else { return 0 };
    let product = Wide::product(positive, part.min(all).into());
    let found = product.div_rem(all.into()).and_then(|(quotient, _)| i128::try_from(quotient).ok());
    found.unwrap_or(0).min(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full(requests: u64, tokens: u64, billed: i128) -> Ours {
        let all = Share { requests, tokens, billed };
        Ours { all, worth: Some(billed), ..Ours::default() }
    }

    fn theirs(requests: u64, tokens: u64, cost: i128, worth: i128) -> Theirs {
        let (cost, requests, tokens, worth) = (Some(cost), Some(requests), Some(tokens), Some(worth));
        Theirs { cost, requests, tokens, worth, rounding: 0 }
    }

    fn check(theirs: &Theirs, ours: &Ours, expected: Parts) {
        assert_eq!(money(theirs, ours), Ok(Some(expected)));
    }

    #[test]
    fn the_same_on_both_sides_has_no_parts() {
        check(&theirs(3, 100, 50, 50), &full(3, 100, 50), Parts::default());
        assert_eq!(tokens(&theirs(3, 100, 50, 50), &full(3, 100, 50)), Ok(Some(Parts::default())));
    }

    #[test]
    fn the_same_tokens_for_more_money_are_a_price_unless_the_digits_hide_it() {
        check(&theirs(3, 100, 60, 50), &full(3, 100, 50), Parts { price: 10, ..Parts::default() });
        let rounded = Theirs { rounding: 10, ..theirs(3, 100, 60, 50) };
        check(&rounded, &full(3, 100, 50), Parts { rounding: 10, ..Parts::default() });
        let unknown_worth = Theirs { worth: None, ..theirs(3, 100, 40, 0) };
        check(&unknown_worth, &full(3, 100, 50), Parts { price: -10, ..Parts::default() });
    }

    #[test]
    fn more_calls_than_passed_here_are_outside_and_more_tokens_of_the_same_calls_are_unexplained() {
        check(&theirs(4, 120, 60, 60), &full(3, 100, 50), Parts { outside: 10, ..Parts::default() });
        check(&theirs(3, 120, 60, 60), &full(3, 100, 50), Parts { unexplained: 10, ..Parts::default() });
        check(&theirs(3, 80, 40, 40), &full(3, 100, 50), Parts { unexplained: -10, ..Parts::default() });
        let alone = Theirs { cost: Some(7), ..Theirs::default() };
        check(&Theirs { worth: Some(0), ..alone }, &full(0, 0, 0), Parts { outside: 7, ..Parts::default() });
        check(&alone, &Ours::default(), Parts { outside: 7, ..Parts::default() });
    }

    #[test]
    fn each_reason_explains_no_more_than_it_can() {
        let estimated = Share { requests: 1, tokens: 10, billed: 5 };
        let ours = Ours { estimated, ..full(10, 100, 50) };
        check(&theirs(10, 140, 70, 70), &ours, Parts { estimated: 5, unexplained: 15, ..Parts::default() });
        check(&theirs(10, 94, 47, 47), &ours, Parts { estimated: -3, ..Parts::default() });
        // One of ten calls has no usage: a tenth of their cost at most.
        let aborted = Ours { unknown: 1, ..full(10, 100, 50) };
        check(&theirs(10, 140, 70, 70), &aborted, Parts { aborted: 7, unexplained: 13, ..Parts::default() });
        let counted = tokens(&theirs(10, 140, 70, 70), &aborted).unwrap().unwrap();
        assert_eq!(counted, Parts { aborted: 14, unexplained: 26, ..Parts::default() });
    }

    #[test]
    fn calls_without_a_price_explain_their_share() {
        let unpriced = Share { requests: 2, tokens: 40, billed: 0 };
        let ours = Ours { unpriced, worth: None, ..full(5, 100, 30) };
        let all = Theirs { worth: None, ..theirs(5, 100, 50, 0) };
        check(&all, &ours, Parts { unpriced: 20, ..Parts::default() });
        let only =
            Ours { unpriced: Share { requests: 5, tokens: 100, billed: 0 }, worth: None, ..full(5, 100, 0) };
        let costs = Theirs { cost: Some(50), ..Theirs::default() };
        check(&costs, &only, Parts { unpriced: 50, ..Parts::default() });
    }

    #[test]
    fn what_they_do_not_tell_has_no_gap() {
        assert_eq!(money(&Theirs::default(), &full(1, 1, 1)), Ok(None));
        assert_eq!(tokens(&Theirs::default(), &full(1, 1, 1)), Ok(None));
    }

    fn amount() -> impl Strategy<Value = i128> {
        prop_oneof![-1_000_i128..1_000, -(1_i128 << 100)..(1_i128 << 100)]
    }

    prop_compose! {
        fn any_share()(requests in 0_u64..50, tokens in 0_u64..1_000, billed in amount()) -> Share {
            Share { requests, tokens, billed }
        }
    }

    prop_compose! {
        fn any_theirs()(
            cost in prop::option::of(amount()), requests in prop::option::of(0_u64..50),
            tokens in prop::option::of(0_u64..1_000), worth in prop::option::of(amount()), rounding in 0_i128..100
        ) -> Theirs {
            Theirs { cost, requests, tokens, worth, rounding }
        }
    }

    prop_compose! {
        fn any_ours()(
            all in any_share(), estimated in any_share(), unpriced in any_share(), unknown in 0_u64..50,
            worth in prop::option::of(amount()), worth_unpriced in prop::option::of(amount())
        ) -> Ours {
            Ours { all, estimated, unpriced, unknown, worth, worth_unpriced }
        }
    }

    proptest! {
        #[test]
        fn the_parts_sum_to_the_gap_in_money_and_in_tokens(theirs in any_theirs(), ours in any_ours()) {
            if let Some(parts) = money(&theirs, &ours).unwrap() {
                prop_assert_eq!(parts.sum(), Some(theirs.cost.unwrap() - ours.all.billed));
            }
            if let Some(parts) = tokens(&theirs, &ours).unwrap() {
                prop_assert_eq!(parts.sum(), Some(i128::from(theirs.tokens.unwrap()) - i128::from(ours.all.tokens)));
                prop_assert_eq!((parts.price, parts.rounding, parts.unpriced), (0, 0, 0));
            }
        }

        #[test]
        fn no_reason_without_evidence_explains_anything(theirs in any_theirs(), all in any_share(), worth in amount()) {
            let ours = Ours { all, worth: Some(worth), ..Ours::default() };
            if let Some(parts) = money(&theirs, &ours).unwrap() {
                prop_assert_eq!((parts.unpriced, parts.estimated, parts.aborted), (0, 0, 0));
                if all.requests > 0 && theirs.requests.is_some_and(|theirs| theirs <= all.requests) {
                    prop_assert_eq!(parts.outside, 0);
                }
            }
        }
    }
}
