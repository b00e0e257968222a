//! Attribution of many events over many touches: the same credits as `attribute` gives, from touches
//! that are kept small and sorted once.
//!
//! Invariants
//! - An event's amount is shared out among workloads first, to the minor unit, and each workload's part
//!   among the rows of a report after that: by workload and team, every grouping gives the same figures.
//! - An amount that goes to one alone is not split, so it is theirs below a minor unit too.
//! - What is taken back is taken by what each still has; after a full refund all are zero.
//!
//! Not here: where touches come from (the ledger), the reference for a single event (`model`).

use super::half_life::decay_weight;
use crate::exact::{ExactError, Ratio};
use bursar_domain::{Currency, Money, Timestamp};
use std::collections::{BTreeMap, HashMap};

/// No touch.
const NONE: u32 = u32::MAX;

/// One touch of a workload, by numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact {
    /// When, in microseconds.
    pub at: Timestamp,
    /// Breaks ties of `at`: an id in two halves.
    pub id: (u64, u64),
    /// The workload; numbers are in the order of names when credit is shared out.
    pub player: u32,
    /// The row of the report.
    pub leaf: u32,
    /// The session; zero is none.
    pub session: u32,
    /// The touch before, of the same workload in the same session.
    earlier: u32,
}

impl Contact {
    /// A touch.
    #[must_use]
    pub const fn new(at: Timestamp, id: u128, player: u32, leaf: u32, session: u32) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the halves of an id")]
        let id = ((id >> 64) as u64, id as u64);
        Self { at, id, player, leaf, session, earlier: NONE }
    }
}

/// The touches that one key finds, in order of time.
#[derive(Clone, Debug, Default)]
pub struct Contacts {
    all: Vec<Contact>,
}

impl Contacts {
    /// Sorts touches.
    #[must_use]
    pub fn new(mut all: Vec<Contact>) -> Self {
        all.sort_unstable_by_key(|contact| (contact.at, contact.id));
        if all.len() < 2 {
            return Self { all };
        }
        let mut last: HashMap<(u32, u32), u32> = HashMap::new();
        for (index, contact) in all.iter_mut().enumerate() {
            if contact.session != 0 {
                let index = u32::try_from(index).unwrap_or(NONE);
                contact.earlier = last.insert((contact.session, contact.player), index).unwrap_or(NONE);
            }
        }
        Self { all }
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The numbers of workloads and rows become others: `players[old]`, `leaves[old]`.
    pub fn renumber(&mut self, players: &[u32], leaves: &[u32]) {
        let new = |table: &[u32], old: u32| {
            usize::try_from(old).ok().and_then(|old| table.get(old)).copied().unwrap_or(NONE)
        };
        for contact in &mut self.all {
            contact.player = new(players, contact.player);
            contact.leaf = new(leaves, contact.leaf);
        }
    }

    /// Those at most `window_micros` before `at`, and none after it.
    #[must_use]
    pub fn window(&self, at: Timestamp, window_micros: u64) -> Window<'_> {
        let until = self.all.partition_point(|contact| contact.at <= at);
        let old = |contact: &Contact| contact.at <= at && at.micros_since(contact.at) > window_micros;
        let from = self.all.partition_point(old);
        Window { contacts: self.all.get(from..until).unwrap_or_default(), from }
    }
}

/// Touches within a look-back window.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    contacts: &'a [Contact],
    from: usize,
}

impl<'a> Window<'a> {
    /// How many there are, repeats in a session included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.contacts.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.contacts.is_empty()
    }

    /// The first touch of each workload in each session, and every touch without a session.
    pub fn kept(self) -> impl DoubleEndedIterator<Item = &'a Contact> + Clone {
        let from = self.from;
        let repeats = move |contact: &&Contact| {
            contact.earlier != NONE && usize::try_from(contact.earlier).is_ok_and(|at| at >= from)
        };
        self.contacts.iter().filter(move |contact| !repeats(contact))
    }
}

/// How touches weigh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The earliest has everything.
    First,
    /// The latest has everything.
    Last,
    /// All the same.
    Linear,
    /// Half as much for each half-life of age.
    TimeDecay {
        /// Microseconds.
        half_life_micros: u64,
    },
    /// 40 to the first, 40 to the last, 20 between.
    Position,
    /// By workload, whatever its touches.
    ByPlayer(Vec<u128>),
}

/// What a workload weighs, and how its part is divided among rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Weight {
    total: u128,
    leaves: BTreeMap<u32, u128>,
}

/// Who gets what of an event: by workload, then by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// By workload, and within it by row.
    pub by_player: BTreeMap<u32, BTreeMap<u32, Money>>,
    /// Nobody's.
    pub unattributed: Money,
}

fn weigh(rule: &Rule, window: Window<'_>, at: Timestamp) -> Result<BTreeMap<u32, Weight>, ExactError> {
    let mut weights: BTreeMap<u32, Weight> = BTreeMap::new();
    let mut add = |contact: &Contact, weight: u128| -> Result<(), ExactError> {
        let entry = weights.entry(contact.player).or_default();
        entry.total = entry.total.checked_add(weight).ok_or(ExactError::Overflow)?;
        let leaf = entry.leaves.entry(contact.leaf).or_insert(0);
        *leaf = leaf.checked_add(weight).ok_or(ExactError::Overflow)?;
        Ok(())
    };
    match rule {
        Rule::First => window.kept().next().map_or(Ok(()), |contact| add(contact, 1))?,
        Rule::Last => window.kept().next_back().map_or(Ok(()), |contact| add(contact, 1))?,
        Rule::Linear | Rule::ByPlayer(_) => window.kept().try_for_each(|contact| add(contact, 1))?,
        Rule::TimeDecay { half_life_micros } => window.kept().try_for_each(|contact| {
            add(contact, decay_weight(at.micros_since(contact.at), *half_life_micros).into())
        })?,
        Rule::Position => {
            let count = window.kept().count();
            let between = u128::try_from(count.saturating_sub(2)).unwrap_or(1);
            for (index, contact) in window.kept().enumerate() {
                let end = index == 0 || index.checked_add(1) == Some(count);
                let weight = match (count, end) {
                    (0..=2, _) => 1,
                    (_, true) => between.saturating_mul(40),
                    (_, false) => 20,
                };
                add(contact, weight)?;
            }
        }
    }
    if let Rule::ByPlayer(values) = rule {
        for (player, weight) in &mut weights {
            let value = usize::try_from(*player).ok().and_then(|player| values.get(player));
            weight.total = value.copied().unwrap_or(0);
        }
    }
    Ok(weights)
}

/// Shares `amount` out by `rule` over the touches of a window that ends at `at`.
pub fn credit(amount: Money, rule: &Rule, window: Window<'_>, at: Timestamp) -> Result<Parts, ExactError> {
    let weights = weigh(rule, window, at)?;
    let totals: Vec<u128> = weights.values().map(|weight| weight.total).collect();
    let (shares, unattributed) = split_or_whole(amount, &totals)?;
    let mut by_player = BTreeMap::new();
    for ((player, weight), share) in weights.iter().zip(shares) {
        let leaves: Vec<u128> = weight.leaves.values().copied().collect();
        let parts = split_all(share, &leaves)?;
        by_player.insert(*player, weight.leaves.keys().copied().zip(parts).collect());
    }
    Ok(Parts { by_player, unattributed })
}

/// A split; one alone gets the whole.
fn split_or_whole(amount: Money, weights: &[u128]) -> Result<(Vec<Money>, Money), ExactError> {
    let zero = Money::zero(amount.currency());
    if weights.iter().filter(|weight| **weight > 0).count() == 1 {
        let parts = weights.iter().map(|weight| if *weight > 0 { amount } else { zero });
        return Ok((parts.collect(), zero));
    }
    Ok(amount.split_wide(weights)?)
}

/// A split without rest: what is below a minor unit goes to the first that weighs anything.
fn split_all(amount: Money, weights: &[u128]) -> Result<Vec<Money>, ExactError> {
    let (mut parts, rest) = split_or_whole(amount, weights)?;
    let heir = weights.iter().position(|weight| *weight > 0).unwrap_or(0);
    if let Some(part) = parts.get_mut(heir) {
        *part = part.checked_add(rest)?;
    }
    Ok(parts)
}

/// What an event gave, while others may take it back.
#[derive(Clone, Debug)]
pub struct Given {
    /// Reporting currency per unit of the event's currency, on its day.
    rate: Ratio,
    /// What has not been taken back, in the event's currency.
    left: Money,
    parts: Parts,
}

/// What was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// In the reporting currency, at the rate of the event that gave it.
    pub amount: Money,
    /// From whom, below zero.
    pub parts: Parts,
    /// What the rate of the day makes different; `None` when nobody knows that rate.
    pub fx_difference: Option<Money>,
}

/// An amount in the reporting currency: as it is, or rounded half-even to the minor unit.
pub fn in_currency(amount: Money, rate: Ratio, currency: Currency) -> Result<Money, ExactError> {
    if amount.currency() == currency {
        return Ok(amount);
    }
    Ratio::of(amount).times(rate)?.money_half_even(currency)
}

impl Given {
    /// What was given: `amount` in the event's currency, shared out as `parts`.
    #[must_use]
    pub const fn new(amount: Money, rate: Ratio, parts: Parts) -> Self {
        Self { rate, left: amount, parts }
    }

    /// Takes `amount` back, which is below zero and in the event's currency; `rate_now` is the rate of
    /// its own day.
    pub fn take_back(&mut self, amount: Money, rate_now: Option<Ratio>) -> Result<Taken, ExactError> {
        let currency = self.parts.unattributed.currency();
        let left = self.left.checked_add(amount)?;
        let given = self.parts.total()?;
        let taken = if left.pico() <= 0 {
            // The last refund takes what is left, so that rounding of earlier ones leaves nothing.
            self.parts.negated()?
        } else {
            let converted = in_currency(amount, self.rate, currency)?;
            let bounded = converted.pico().max(given.pico().saturating_neg());
            self.parts.share_by_rest(Money::from_pico(currency, bounded))?
        };
        self.left = left;
        self.parts.add(&taken)?;
        let amount_taken = taken.total()?;
        let now = rate_now.map(|rate| in_currency(amount, rate, currency)).transpose()?;
        let fx_difference = now.map(|now| now.checked_sub(amount_taken)).transpose()?;
        Ok(Taken { amount: amount_taken, parts: taken, fx_difference })
    }
}

fn positive(money: Money) -> u128 {
    money.pico().max(0).unsigned_abs()
}

impl Parts {
    /// Everything to nobody.
    #[must_use]
    pub const fn nobody(amount: Money) -> Self {
        Self { by_player: BTreeMap::new(), unattributed: amount }
    }

    /// All parts.
    pub fn total(&self) -> Result<Money, ExactError> {
        let parts = self.by_player.values().flat_map(BTreeMap::values);
        parts.copied().try_fold(self.unattributed, |sum, part| Ok(sum.checked_add(part)?))
    }

    fn negated(&self) -> Result<Self, ExactError> {
        let zero = Money::zero(self.unattributed.currency());
        let mut negated = self.clone();
        for part in negated.by_player.values_mut().flat_map(BTreeMap::values_mut) {
            *part = zero.checked_sub(*part)?;
        }
        negated.unattributed = zero.checked_sub(self.unattributed)?;
        Ok(negated)
    }

    /// Shares `amount` out by what each has; nobody's part comes first among equals.
    fn share_by_rest(&self, amount: Money) -> Result<Self, ExactError> {
        let mut weights = vec![positive(self.unattributed)];
        for leaves in self.by_player.values() {
            let sum = leaves.values().try_fold(0_u128, |sum, part| sum.checked_add(positive(*part)));
            weights.push(sum.ok_or(ExactError::Overflow)?);
        }
        let (shares, rest) = split_or_whole(amount, &weights)?;
        let mut shares = shares.into_iter();
        let zero = Money::zero(amount.currency());
        let unattributed = shares.next().unwrap_or(zero).checked_add(rest)?;
        let mut by_player = BTreeMap::new();
        for ((player, leaves), share) in self.by_player.iter().zip(shares) {
            let weights: Vec<u128> = leaves.values().map(|part| positive(*part)).collect();
            let parts = split_all(share, &weights)?;
            by_player.insert(*player, leaves.keys().copied().zip(parts).collect());
        }
        Ok(Self { by_player, unattributed })
    }

    fn add(&mut self, other: &Self) -> Result<(), ExactError> {
        self.unattributed = self.unattributed.checked_add(other.unattributed)?;
        for (player, leaves) in &other.by_player {
            let mine = self.by_player.entry(*player).or_default();
            for (leaf, part) in leaves {
                let sum = mine.entry(*leaf).or_insert(Money::zero(part.currency()));
                *sum = sum.checked_add(*part)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
