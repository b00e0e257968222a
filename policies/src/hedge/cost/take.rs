//! Taking an amount from slots by an allocation rule: units from usage, or money from spot cost.
//!
//! Invariants
//! - What is taken is min(capacity, what is open), and from no slot more than it has.
//!
//! Not here: what taking means for a cost (`waterfall`).

use super::Allocation;
use crate::exact::{ExactError, Ratio};
use bursar_domain::{Label, Timestamp};
use std::collections::BTreeMap;

/// Decimals that are kept where an exact amount no longer fits.
pub(super) const NEAR_PLACES: u32 = 12;

/// What is open of one usage.
#[derive(Clone, Debug)]
pub(super) struct Slot<'a> {
    pub(super) team: &'a Label,
    pub(super) order: (Timestamp, u128),
    pub(super) open: Ratio,
}

/// What was taken.
pub(super) struct Taken {
    /// From each slot.
    pub(super) amounts: Vec<Ratio>,
    /// The part of each slot that is left, where it is the same for all. Keeping it as one factor
    /// keeps equal usage equal, so that later splits see the same proportions.
    pub(super) left: Option<Ratio>,
    /// In all.
    pub(super) total: Ratio,
}

pub(super) fn take(rule: &Allocation, slots: &[Slot<'_>], capacity: Ratio) -> Result<Taken, ExactError> {
    let open = Ratio::sum_near(slots.iter().map(|slot| slot.open))?;
    let total = capacity.min(open).or_zero();
    if total.is_zero() {
        return Ok(Taken { amounts: vec![Ratio::ZERO; slots.len()], left: None, total });
    }
    if total == open {
        let amounts = slots.iter().map(|slot| slot.open).collect();
        return Ok(Taken { amounts, left: Some(Ratio::ZERO), total });
    }
    match rule {
        Allocation::ProRata => {
            let part = total.over_near(open)?;
            let amounts: Result<_, _> =
                slots.iter().map(|slot| slot.open.times_near(part, NEAR_PLACES)).collect();
            Ok(Taken { amounts: amounts?, left: Some(Ratio::ONE.minus_near(part)?), total })
        }
        Allocation::Fifo => Ok(Taken { amounts: in_order(slots, total)?, left: None, total }),
        Allocation::Designated(shares) => {
            let shares = shares.iter().map(|(team, share)| (team, share.ratio())).collect();
            Ok(Taken { amounts: by_shares(slots, total, &shares)?, left: None, total })
        }
    }
}

fn in_order(slots: &[Slot<'_>], total: Ratio) -> Result<Vec<Ratio>, ExactError> {
    let mut order: Vec<usize> = (0..slots.len()).collect();
    order.sort_by_key(|index| slots.get(*index).map(|slot| (slot.order, slot.team)));
    let mut amounts = vec![Ratio::ZERO; slots.len()];
    let mut left = total;
    for index in order {
        if let (Some(slot), Some(amount)) = (slots.get(index), amounts.get_mut(index)) {
            *amount = slot.open.min(left);
            left = left.minus_near(*amount)?;
        }
    }
    Ok(amounts)
}

/// Each team its share of `total`, as far as it has it open; what the teams do not have open is
/// taken from everybody's rest by volume.
fn by_shares(
    slots: &[Slot<'_>],
    total: Ratio,
    shares: &BTreeMap<&Label, Ratio>,
) -> Result<Vec<Ratio>, ExactError> {
    let mut open: BTreeMap<&Label, Ratio> = BTreeMap::new();
    for slot in slots {
        let sum = open.entry(slot.team).or_insert(Ratio::ZERO);
        *sum = sum.plus_near(slot.open)?;
    }
    let all = Ratio::sum_near(shares.values().copied())?;
    let mut part: BTreeMap<&Label, Ratio> = BTreeMap::new();
    let mut given = Ratio::ZERO;
    for (team, share) in shares {
        let Some(open) = open.get(team).filter(|open| open.is_positive()) else { continue };
        let wanted = total.times_near(share.over_near(all)?, NEAR_PLACES)?.min(*open);
        given = given.plus_near(wanted)?;
        part.insert(team, wanted.over_near(*open)?);
    }
    let rest = total.minus_near(given)?.or_zero();
    let whole = Ratio::sum_near(open.values().copied())?;
    let unused = whole.minus_near(given)?;
    let more = if unused.is_positive() { rest.over_near(unused)?.min(Ratio::ONE) } else { Ratio::ZERO };
    slots
        .iter()
        .map(|slot| {
            let first = part.get(slot.team).copied().unwrap_or(Ratio::ZERO);
            let taken = slot.open.times_near(first, NEAR_PLACES)?;
            taken.plus_near(slot.open.minus_near(taken)?.or_zero().times_near(more, NEAR_PLACES)?)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exact::Decimal;

    fn taken(rule: &Allocation, open: &[(&'static str, i64, i128)], capacity: i128) -> Vec<String> {
        let teams: Vec<Label> = open.iter().map(|(team, ..)| Label::fixed(team)).collect();
        let slots: Vec<Slot<'_>> = open
            .iter()
            .zip(&teams)
            .map(|((_, at, open), team)| Slot {
                team,
                order: (Timestamp::from_micros(*at), 0),
                open: Ratio::whole(*open),
            })
            .collect();
        let taken = take(rule, &slots, Ratio::whole(capacity)).unwrap();
        assert_eq!(Ratio::sum(taken.amounts.iter().copied()).unwrap(), taken.total);
        taken.amounts.iter().map(|amount| amount.text_half_even(2).unwrap()).collect()
    }

    const OPEN: [(&str, i64, i128); 3] = [("a", 3, 10), ("b", 1, 20), ("c", 2, 30)];

    #[test]
    fn by_volume_everybody_gets_the_same_part() {
        assert_eq!(taken(&Allocation::ProRata, &OPEN, 30), ["5.00", "10.00", "15.00"]);
        assert_eq!(taken(&Allocation::ProRata, &OPEN, 100), ["10.00", "20.00", "30.00"]);
        assert_eq!(taken(&Allocation::ProRata, &OPEN, 0), ["0.00", "0.00", "0.00"]);
    }

    #[test]
    fn by_time_the_first_is_taken_first() {
        assert_eq!(taken(&Allocation::Fifo, &OPEN, 30), ["0.00", "20.00", "10.00"]);
    }

    #[test]
    fn by_shares_nobody_gives_more_than_it_has() {
        let shares = [("a", "0.5"), ("b", "0.5"), ("nobody", "1")];
        let shares = shares.map(|(team, share)| (Label::fixed(team), Decimal::parse(share).unwrap()));
        let rule = Allocation::Designated(shares.into());
        // A quarter of 44 each; a has only 10, and the rest comes from b and c by what they have left.
        assert_eq!(taken(&rule, &OPEN, 44), ["10.00", "16.31", "17.69"]);
    }
}
