//! The waterfall itself: legs in order over usage, and the lines that follow.
//!
//! Invariants
//! - Usage that no leg tells apart is added up first; its time only counts for the legs that ask for it.
//!
//! Not here: where legs come from (`legs`).

use super::take::{NEAR_PLACES, Slot, Taken, take};
use super::{
    Allocation, Bucket, CostError, CostReport, Cover, Coverage, Leftover, Leg, LegResult, Line, Posted,
    Unpriced, UnusedTo, Use,
};
use crate::exact::{ExactError, Ratio, Shares, apportion, shares};
use crate::hedge::position::Facets;
use crate::hedge::profile::Unit;
use bursar_domain::{Currency, Label, Money, Timestamp};
use jiff::civil::Date;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Usage of one kind, and how much of it is still open.
struct Cell {
    team: Label,
    provider: Option<Label>,
    row: Label,
    /// Which legs look at it, by their index.
    legs: Rc<[bool]>,
    at: Timestamp,
    id: u128,
    volume: Ratio,
    spot: Ratio,
    /// The part whose price no contract has fixed.
    open: Ratio,
    /// The part still charged at spot.
    unpaid: Ratio,
}

/// Runs `legs` over `uses` and returns the checked report.
pub fn waterfall(
    uses: &[Use],
    legs: &[Leg],
    unpriced: Vec<Unpriced>,
    (currency, unit): (Currency, Unit),
) -> Result<CostReport, CostError> {
    let mut run = Run {
        cells: cells(uses, legs, currency)?,
        report: CostReport { unpriced, ..CostReport::empty(currency, unit) },
        posted: Vec::new(),
        currency,
    };
    run.spot()?;
    run.posted.clear();
    let mut ordered: Vec<(usize, &Leg)> = legs.iter().enumerate().collect();
    ordered.sort_by(|(_, a), (_, b)| place(a).cmp(&place(b)));
    let mut seen = BTreeSet::new();
    for (index, leg) in ordered {
        if !seen.insert(&leg.position) {
            return Err(CostError::Twice(leg.position.clone()));
        }
        run.leg(index, leg)?;
    }
    run.report.check()?;
    Ok(run.report)
}

/// A leg's place: by rank, then what lapses first, then id.
fn place(leg: &Leg) -> (u8, u16, Date, &Label) {
    (pass(leg), leg.rank, leg.lapses.unwrap_or(Date::MAX), &leg.position)
}

/// Pools come after everything that takes units.
const fn pass(leg: &Leg) -> u8 {
    match leg.cover {
        Cover::Pool { .. } => 1,
        _ => 0,
    }
}

/// How closely the legs that look at some usage look at its time.
#[derive(Clone)]
struct Look {
    /// Which legs, in the order in which they were given.
    legs: Rc<[bool]>,
    clock: Clock,
}

#[derive(Clone)]
enum Clock {
    /// Not at all.
    Whole,
    /// By these edges of their windows and buckets, in order.
    Edges(Rc<[Timestamp]>),
    /// One by one.
    Each,
}

impl Look {
    fn of(facets: &Facets, legs: &[Leg]) -> Self {
        let covers: Rc<[bool]> = legs.iter().map(|leg| leg.selector.covers(facets)).collect();
        let looking = || legs.iter().zip(covers.iter()).filter(|(_, covers)| **covers).map(|(leg, _)| leg);
        let mut edges: Vec<Timestamp> = Vec::new();
        for leg in looking() {
            if let Cover::Units { buckets, .. } = &leg.cover
                && buckets.len() > 1
            {
                edges.extend(buckets.iter().flat_map(|bucket| [bucket.from, bucket.until]));
            }
            edges.extend(leg.window.into_iter().flat_map(|(from, until)| [from, until]));
        }
        edges.sort_unstable();
        edges.dedup();
        let clock = if looking().any(|leg| leg.allocation == Allocation::Fifo) {
            Clock::Each
        } else if edges.is_empty() {
            Clock::Whole
        } else {
            Clock::Edges(edges.into())
        };
        Self { legs: covers, clock }
    }

    /// What tells usage apart by time: nothing, the edge before it, or its time and id.
    fn order(&self, used: &Use) -> Option<(Timestamp, u128)> {
        match &self.clock {
            Clock::Whole => None,
            Clock::Edges(edges) => {
                let before = edges.partition_point(|edge| *edge <= used.at).checked_sub(1);
                let edge = before.and_then(|index| edges.get(index)).copied();
                Some((edge.unwrap_or(Timestamp::from_micros(i64::MIN)), 0))
            }
            Clock::Each => Some((used.at, used.id)),
        }
    }
}

/// Adds usage up by what can tell it apart: team, provider, the legs that look at it, and its time as
/// far as one of them asks for it. Usage that nothing tells apart is taken in equal parts anyway.
fn cells(uses: &[Use], legs: &[Leg], currency: Currency) -> Result<Vec<Cell>, CostError> {
    type Key<'a> = (&'a Label, &'a Label, Option<&'a Label>, bool, Rc<[bool]>, Option<(Timestamp, u128)>);
    let mut looks: BTreeMap<&Facets, Look> = BTreeMap::new();
    let mut sums: BTreeMap<Key<'_>, (&Use, i128, Money)> = BTreeMap::new();
    for used in uses {
        if used.volume.is_negative() {
            return Err(CostError::NegativeVolume(used.facets.team.clone()));
        }
        let look = looks.entry(&used.facets).or_insert_with(|| Look::of(&used.facets, legs));
        let order = look.order(used);
        let legs = Rc::clone(&look.legs);
        let team = &used.facets.team;
        let row = used.row.as_ref().unwrap_or(team);
        let key = (team, row, used.facets.provider.as_ref(), used.volume.is_positive(), legs, order);
        let (_, volume, spot) = sums.entry(key).or_insert((used, 0, Money::zero(currency)));
        *volume = volume.checked_add(used.volume.pico()).ok_or(ExactError::Overflow)?;
        *spot = spot.checked_add(used.spot)?;
    }
    let cell = |((_, row, .., legs, order), (used, volume, spot)): (Key<'_>, (&Use, i128, Money))| Cell {
        team: used.facets.team.clone(),
        provider: used.facets.provider.clone(),
        row: row.clone(),
        legs,
        at: order.map_or(used.at, |(at, _)| at),
        id: order.map_or(0, |(_, id)| id),
        volume: Ratio::from_pico(volume),
        spot: Ratio::of(spot),
        open: Ratio::ONE,
        unpaid: Ratio::ONE,
    };
    Ok(sums.into_iter().map(cell).collect())
}

struct Run {
    cells: Vec<Cell>,
    report: CostReport,
    /// What the leg under way has posted.
    posted: Vec<Posted>,
    currency: Currency,
}

/// Which usage a leg looks at.
struct Eligible {
    /// Indices of cells.
    cells: Vec<usize>,
    /// All their volume by team.
    volumes: BTreeMap<Label, Ratio>,
}

impl Run {
    fn spot(&mut self) -> Result<(), CostError> {
        let mut exact: BTreeMap<Label, Ratio> = BTreeMap::new();
        for cell in &self.cells {
            let sum = exact.entry(cell.row.clone()).or_insert(Ratio::ZERO);
            *sum = sum.plus(cell.spot)?;
            let row = self.report.row(cell.row.clone());
            row.volume = row.volume.plus(cell.volume)?;
            if let Some(provider) = &cell.provider {
                let coverage = Coverage { volume: cell.volume, covered: Ratio::ZERO, spot: cell.spot };
                self.report.cover(provider.clone(), &coverage)?;
            }
        }
        self.apportion(Line::Spot, &exact).map(drop)
    }

    /// Posts exact amounts to rows and their rounded sum to the book.
    fn apportion(&mut self, line: Line, exact: &BTreeMap<Label, Ratio>) -> Result<Money, CostError> {
        let (parts, whole) = apportion(exact, self.currency)?;
        self.report.book.add(line, whole)?;
        self.post(line, &Shares { parts, residual: Money::zero(self.currency) })?;
        Ok(whole)
    }

    /// Posts shares to rows and residual, and notes them.
    fn post(&mut self, line: Line, shares: &Shares<Label>) -> Result<(), CostError> {
        let parts = shares.parts.iter().map(|(row, amount)| (Some(row.clone()), *amount));
        let posted = parts.chain([(None, shares.residual)]).filter(|(_, amount)| amount.pico() != 0);
        self.posted.extend(posted.map(|(row, amount)| Posted { row, line, amount }));
        self.report.post(line, shares)
    }

    /// Posts an amount to the book and shares it out.
    fn share(
        &mut self,
        line: Line,
        amount: Money,
        weights: &BTreeMap<Label, Ratio>,
    ) -> Result<BTreeMap<Label, Money>, CostError> {
        self.report.book.add(line, amount)?;
        let shared = shares(amount, weights)?;
        self.post(line, &shared)?;
        Ok(shared.parts)
    }

    /// Posts an amount to the book and to nobody.
    fn keep(&mut self, line: Line, amount: Money) -> Result<(), CostError> {
        self.report.book.add(line, amount)?;
        self.post(line, &Shares { parts: BTreeMap::new(), residual: amount })
    }

    /// The usage that the leg with this index looks at.
    fn eligible(&self, index: usize, leg: &Leg) -> Result<Eligible, ExactError> {
        let inside = |cell: &Cell| leg.window.is_none_or(|(from, until)| from <= cell.at && cell.at < until);
        let mut found = Eligible { cells: Vec::new(), volumes: BTreeMap::new() };
        for (place, cell) in self.cells.iter().enumerate() {
            if cell.volume.is_positive() && cell.legs.get(index) == Some(&true) && inside(cell) {
                found.cells.push(place);
                let sum = found.volumes.entry(cell.row.clone()).or_insert(Ratio::ZERO);
                *sum = sum.plus(cell.volume)?;
            }
        }
        Ok(found)
    }

    fn leg(&mut self, index: usize, leg: &Leg) -> Result<(), CostError> {
        let eligible = self.eligible(index, leg)?;
        let zero = Money::zero(self.currency);
        let mut result = LegResult {
            position: leg.position.clone(),
            quantity: Ratio::ZERO,
            covered: Ratio::ZERO,
            over: Ratio::ZERO,
            payoff: zero,
            effective: zero,
            over_hedge: zero,
            used: zero,
            drawn: Ratio::ZERO,
            unused: leg.unused,
            displaced: zero,
            premium: leg.premium,
            fees: leg.fees,
            covers_nothing: eligible.cells.is_empty(),
            provisional: leg.provisional,
            shares: BTreeMap::new(),
            posted: Vec::new(),
        };
        let weights = match &leg.cover {
            Cover::Nothing => self.charge_weights(leg, &eligible)?,
            Cover::Uncounted { payoff } => {
                result.payoff = *payoff;
                result.over_hedge = *payoff;
                self.keep(Line::Payoff, *payoff)?;
                BTreeMap::new()
            }
            Cover::Currency { payoff } => self.currency_leg(leg, &eligible, *payoff, &mut result)?,
            Cover::Cash { quantity, payoff } => {
                self.cash_leg(leg, &eligible, (*quantity, *payoff), &mut result)?
            }
            Cover::Units { buckets, price, overage, leftover } => {
                let terms = UnitTerms { buckets, price: *price, overage: *overage, leftover: *leftover };
                self.units_leg(leg, &eligible, &terms, &mut result)?
            }
            Cover::Pool { balance, benefit, leftover } => {
                self.pool_leg(leg, &eligible, (*balance, *benefit, *leftover), &mut result)?
            }
        };
        self.share(Line::Premium, leg.premium, &weights)?;
        self.share(Line::Fees, leg.fees, &weights)?;
        self.unused(leg, result.unused, &eligible)?;
        result.posted = std::mem::take(&mut self.posted);
        self.report.legs.push(result);
        Ok(())
    }

    /// Who pays premium and fees, and gets the payoff: the designated shares, else by volume.
    fn charge_weights(&self, leg: &Leg, eligible: &Eligible) -> Result<BTreeMap<Label, Ratio>, ExactError> {
        let Allocation::Designated(shares) = &leg.allocation else { return Ok(eligible.volumes.clone()) };
        let mut weights = BTreeMap::new();
        for (team, share) in shares {
            weights.extend(self.rows_of(team, share.ratio())?);
        }
        Ok(weights)
    }

    /// What a team has, laid on its rows by volume; on a row of its own name when it used nothing.
    fn rows_of(&self, team: &Label, amount: Ratio) -> Result<BTreeMap<Label, Ratio>, ExactError> {
        let mut rows: BTreeMap<Label, Ratio> = BTreeMap::new();
        for cell in self.cells.iter().filter(|cell| cell.team == *team && cell.volume.is_positive()) {
            let sum = rows.entry(cell.row.clone()).or_insert(Ratio::ZERO);
            *sum = sum.plus_near(cell.volume)?;
        }
        if rows.len() < 2 {
            let row = rows.into_keys().next().unwrap_or_else(|| team.clone());
            return Ok(BTreeMap::from([(row, amount)]));
        }
        let whole = Ratio::sum_near(rows.values().copied())?;
        for volume in rows.values_mut() {
            *volume = amount.times_near(volume.over_near(whole)?, NEAR_PLACES)?;
        }
        Ok(rows)
    }

    fn unused(&mut self, leg: &Leg, unused: Money, eligible: &Eligible) -> Result<(), CostError> {
        let weights = match &leg.unused_to {
            UnusedTo::Residual => return self.keep(Line::Unused, unused),
            UnusedTo::Owner(team) => self.rows_of(team, Ratio::ONE)?,
            UnusedTo::ProRata => eligible.volumes.clone(),
        };
        self.share(Line::Unused, unused, &weights).map(drop)
    }

    fn currency_leg(
        &mut self,
        leg: &Leg,
        eligible: &Eligible,
        payoff: Money,
        result: &mut LegResult,
    ) -> Result<BTreeMap<Label, Ratio>, CostError> {
        let weights = self.charge_weights(leg, eligible)?;
        let cost = Money::zero(self.currency).checked_sub(payoff)?;
        self.share(Line::Fx, cost, &weights)?;
        result.payoff = payoff;
        result.effective = payoff;
        Ok(weights)
    }

    fn cash_leg(
        &mut self,
        leg: &Leg,
        eligible: &Eligible,
        (quantity, payoff): (Ratio, Money),
        result: &mut LegResult,
    ) -> Result<BTreeMap<Label, Ratio>, CostError> {
        let open = self.open_volumes(eligible)?;
        let taken = self.take_units(leg, &eligible.cells, quantity)?;
        let weights = match &leg.allocation {
            Allocation::ProRata if taken.total.is_positive() => open,
            Allocation::Fifo if taken.total.is_positive() => self.by_team(&eligible.cells, &taken.amounts)?,
            _ => self.charge_weights(leg, eligible)?,
        };
        // eff = payoff · He / H, rounded once; over is what is left, so the two are the payoff.
        let effective = if quantity.is_positive() {
            let part = taken.total.over_near(quantity)?;
            Ratio::of(payoff).times_near(part, NEAR_PLACES)?.money_half_even(self.currency)?
        } else {
            Money::zero(self.currency)
        };
        let over = payoff.checked_sub(effective)?;
        result.shares = self.share(Line::Payoff, effective, &weights)?;
        self.keep(Line::Payoff, over)?;
        result.quantity = quantity;
        result.covered = taken.total;
        result.over = quantity.minus_near(taken.total)?;
        result.payoff = payoff;
        result.effective = effective;
        result.over_hedge = over;
        Ok(weights)
    }

    fn units_leg(
        &mut self,
        leg: &Leg,
        eligible: &Eligible,
        terms: &UnitTerms<'_>,
        result: &mut LegResult,
    ) -> Result<BTreeMap<Label, Ratio>, CostError> {
        let mut charges = Charges::default();
        let one = terms.buckets.len() == 1;
        for bucket in terms.buckets {
            let inside =
                |index: &usize| one || self.cells.get(*index).is_some_and(|cell| bucket.has(cell.at));
            let cells: Vec<usize> = eligible.cells.iter().copied().filter(inside).collect();
            let taken = self.take_units(leg, &cells, bucket.quantity)?;
            charges.add(self.deliver(&cells, &taken)?)?;
            result.quantity = result.quantity.plus_near(bucket.quantity)?;
            result.covered = result.covered.plus_near(taken.total)?;
        }
        result.over = result.quantity.minus_near(result.covered)?.or_zero();
        result.used = result.covered.times_near(terms.price, NEAR_PLACES)?.money_half_even(self.currency)?;
        if terms.leftover == Leftover::Lapses {
            let billed = result.quantity.times_near(terms.price, NEAR_PLACES)?;
            let lost = billed.money_half_even(self.currency)?.checked_sub(result.used)?;
            result.unused = result.unused.checked_add(lost)?;
        }
        self.share(Line::Contract, result.used, &charges.units)?;
        if let Some(price) = terms.overage {
            let rest = Ratio::sum_near(self.open_volumes(eligible)?.into_values())?;
            let taken = self.take_units(leg, &eligible.cells, rest)?;
            let more = self.deliver(&eligible.cells, &taken)?;
            let charge = taken.total.times_near(price, NEAR_PLACES)?.money_half_even(self.currency)?;
            self.share(Line::Contract, charge, &more.units)?;
            result.used = result.used.checked_add(charge)?;
            charges.add(more)?;
        }
        result.displaced = self.apportion(Line::Displaced, &charges.displaced)?;
        Ok(self.charge_weights(leg, eligible)?)
    }

    fn pool_leg(
        &mut self,
        leg: &Leg,
        eligible: &Eligible,
        (balance, benefit, leftover): (Money, Ratio, Leftover),
        result: &mut LegResult,
    ) -> Result<BTreeMap<Label, Ratio>, CostError> {
        let pays = Ratio::ONE.minus(benefit)?;
        let slots = self.slots(&eligible.cells, |cell| cell.spot.times_near(cell.unpaid, NEAR_PLACES))?;
        let wanted = Ratio::sum_near(slots.iter().map(|slot| slot.open.or_zero()))?;
        let exact = wanted.times_near(pays, NEAR_PLACES)?;
        let cost = exact.money_half_even(self.currency)?;
        let drawn = if balance.pico() < cost.pico() { balance } else { cost };
        let enough = drawn == cost;
        let worth = if enough { wanted } else { Ratio::of(drawn).over_near(pays)?.min(wanted) };
        let taken = take(&leg.allocation, &slots, worth)?;
        let mut displaced: BTreeMap<Label, Ratio> = BTreeMap::new();
        for (index, amount) in eligible.cells.iter().zip(&taken.amounts) {
            let Some(cell) = self.cells.get_mut(*index) else { continue };
            if !cell.spot.is_positive() {
                continue;
            }
            let part = amount.over_near(cell.spot)?;
            cell.unpaid = cell.unpaid.minus_near(part)?.or_zero();
            let sum = displaced.entry(cell.row.clone()).or_insert(Ratio::ZERO);
            *sum = sum.plus_near(*amount)?;
        }
        self.share(Line::Contract, drawn, &displaced)?;
        result.displaced = self.apportion(Line::Displaced, &displaced)?;
        result.used = drawn;
        result.drawn = if enough { exact.min(Ratio::of(balance)) } else { Ratio::of(drawn) };
        if leftover == Leftover::Lapses {
            result.unused = result.unused.checked_add(balance.checked_sub(drawn)?)?;
        }
        Ok(self.charge_weights(leg, eligible)?)
    }

    /// Open units by team.
    fn open_volumes(&self, eligible: &Eligible) -> Result<BTreeMap<Label, Ratio>, ExactError> {
        let mut open: BTreeMap<Label, Ratio> = BTreeMap::new();
        for cell in eligible.cells.iter().filter_map(|index| self.cells.get(*index)) {
            let sum = open.entry(cell.row.clone()).or_insert(Ratio::ZERO);
            *sum = sum.plus_near(cell.volume.times_near(cell.open, NEAR_PLACES)?)?;
        }
        Ok(open)
    }

    fn slots(
        &self,
        cells: &[usize],
        open: impl Fn(&Cell) -> Result<Ratio, ExactError>,
    ) -> Result<Vec<Slot<'_>>, ExactError> {
        let found = cells.iter().filter_map(|index| self.cells.get(*index));
        found
            .map(|cell| {
                let open = open(cell)?;
                Ok(Slot { team: &cell.team, order: (cell.at, cell.id), open: open.or_zero() })
            })
            .collect()
    }

    /// Takes units and closes them for the legs that follow.
    fn take_units(&mut self, leg: &Leg, cells: &[usize], quantity: Ratio) -> Result<Taken, CostError> {
        let slots = self.slots(cells, |cell| cell.volume.times_near(cell.open, NEAR_PLACES))?;
        let taken = take(&leg.allocation, &slots, quantity)?;
        for (index, amount) in cells.iter().zip(&taken.amounts) {
            let Some(cell) = self.cells.get_mut(*index) else { continue };
            cell.open = match taken.left {
                Some(left) => cell.open.times_near(left, NEAR_PLACES)?,
                None => cell.open.minus_near(amount.over_near(cell.volume)?)?.or_zero(),
            };
            let row = self.report.row(cell.row.clone());
            row.covered = row.covered.plus_near(*amount)?;
            if let Some(provider) = &cell.provider {
                let coverage = Coverage { volume: Ratio::ZERO, covered: *amount, spot: Ratio::ZERO };
                self.report.cover(provider.clone(), &coverage)?;
            }
        }
        Ok(taken)
    }

    /// Displaces the spot cost of delivered units.
    fn deliver(&mut self, cells: &[usize], taken: &Taken) -> Result<Charges, CostError> {
        let mut charges = Charges { units: self.by_team(cells, &taken.amounts)?, ..Charges::default() };
        for (index, amount) in cells.iter().zip(&taken.amounts) {
            let Some(cell) = self.cells.get_mut(*index) else { continue };
            let part = amount.over_near(cell.volume)?.min(cell.unpaid);
            cell.unpaid = cell.unpaid.minus_near(part)?;
            let worth = cell.spot.times_near(part, NEAR_PLACES)?;
            let sum = charges.displaced.entry(cell.row.clone()).or_insert(Ratio::ZERO);
            *sum = sum.plus_near(worth)?;
        }
        Ok(charges)
    }

    fn by_team(&self, cells: &[usize], amounts: &[Ratio]) -> Result<BTreeMap<Label, Ratio>, ExactError> {
        let mut sums: BTreeMap<Label, Ratio> = BTreeMap::new();
        for (index, amount) in cells.iter().zip(amounts) {
            if let Some(cell) = self.cells.get(*index) {
                let sum = sums.entry(cell.row.clone()).or_insert(Ratio::ZERO);
                *sum = sum.plus_near(*amount)?;
            }
        }
        Ok(sums)
    }
}

struct UnitTerms<'a> {
    buckets: &'a [Bucket],
    price: Ratio,
    overage: Option<Ratio>,
    leftover: Leftover,
}

/// Delivered units and their spot cost, by team.
#[derive(Default)]
struct Charges {
    units: BTreeMap<Label, Ratio>,
    displaced: BTreeMap<Label, Ratio>,
}

impl Charges {
    fn add(&mut self, other: Self) -> Result<(), ExactError> {
        for (mine, theirs) in [(&mut self.units, other.units), (&mut self.displaced, other.displaced)] {
            for (team, amount) in theirs {
                let sum = mine.entry(team).or_insert(Ratio::ZERO);
                *sum = sum.plus_near(amount)?;
            }
        }
        Ok(())
    }
}

impl Bucket {
    fn has(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.until
    }
}
