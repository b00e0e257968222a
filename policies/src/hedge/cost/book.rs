//! A book over several periods: legs of every position, balances carried from one to the next.
//!
//! Invariants
//! - Periods are run in order; what one took is not there for the next.
//!
//! Not here: where usage comes from and how it is added up (the ledger).

use super::{CostError, CostReport, Cover, Leg, LegAsk, Unpriced, Use, leg, waterfall};
use crate::exact::Ratio;
use crate::hedge::calendar::Window;
use crate::hedge::lifecycle::Portfolio;
use crate::hedge::market::Market;
use crate::hedge::position::{Group, Position};
use crate::hedge::profile::{Profiles, Unit};
use bursar_domain::{Currency, Label, Timestamp};
use jiff::civil::Date;
use std::collections::BTreeMap;

/// What earlier periods took of the balances: hedge units of deliveries, money of pools in their own
/// currency.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consumed {
    by_position: BTreeMap<Label, Ratio>,
}

impl Consumed {
    /// What was taken of a position.
    #[must_use]
    pub fn of(&self, position: &Label) -> Ratio {
        self.by_position.get(position).copied().unwrap_or(Ratio::ZERO)
    }
}

/// Everything that a cost rests on but usage.
#[derive(Clone, Copy, Debug)]
pub struct Book<'a> {
    /// Positions and their events.
    pub portfolio: &'a Portfolio,
    /// Fixings and rates.
    pub market: &'a Market,
    /// Conversion profiles.
    pub profiles: &'a Profiles,
    /// Hedge unit.
    pub unit: Unit,
    /// Reporting currency.
    pub currency: Currency,
    /// The last day that is over.
    pub today: Date,
    /// What was known when.
    pub as_of: Timestamp,
}

impl Book<'_> {
    /// Effective cost of a period inside one month; `consumed` is carried from the periods before.
    /// Of a period that is not over, the days up to `today` count: quantities, commitments and
    /// averages to date, marked provisional.
    pub fn cost(
        &self,
        period: Window,
        uses: &[Use],
        consumed: &mut Consumed,
    ) -> Result<CostReport, CostError> {
        let (legs, unpriced) = self.legs(period, consumed);
        let report = waterfall(uses, &legs, unpriced, (self.currency, self.unit))?;
        self.carry(period, &report, consumed)?;
        Ok(report)
    }

    /// What a period has of each position, and what cannot be priced.
    #[must_use]
    pub fn legs(&self, period: Window, consumed: &Consumed) -> (Vec<Leg>, Vec<Unpriced>) {
        let (mut legs, mut unpriced) = (Vec::new(), Vec::new());
        let tomorrow = self.today.tomorrow().unwrap_or(self.today);
        let Ok(period) = Window::new(period.from(), period.until().min(tomorrow)) else {
            return (legs, unpriced);
        };
        for (position, history) in self.portfolio.in_force() {
            match leg(position, history, &self.ask(period, consumed.of(position.id()))) {
                Ok(Some(found)) => legs.push(found),
                Ok(None) => {}
                Err(gap) => unpriced.push(gap),
            }
        }
        (legs, unpriced)
    }

    const fn ask(&self, period: Window, consumed: Ratio) -> LegAsk<'_> {
        LegAsk {
            market: self.market,
            profiles: self.profiles,
            period,
            unit: self.unit,
            currency: self.currency,
            today: self.today,
            as_of: self.as_of,
            consumed,
        }
    }

    fn carry(&self, period: Window, report: &CostReport, consumed: &mut Consumed) -> Result<(), CostError> {
        let positions: BTreeMap<&Label, &Position> =
            self.portfolio.in_force().map(|(position, _)| (position.id(), position)).collect();
        for result in &report.legs {
            let Some(position) = positions.get(&result.position) else { continue };
            let taken = match position.terms().kind.group() {
                Group::Pool => self.own_currency(position, Ratio::of(result.used), period.last()),
                Group::Units if position.carries_over() => result.covered,
                _ => continue,
            };
            let sum = consumed.by_position.entry(result.position.clone()).or_insert(Ratio::ZERO);
            *sum = sum.plus_near(taken)?;
        }
        Ok(())
    }

    /// An amount of the report in the currency of a pool, at the rate at which its balance was converted;
    /// there was one, or it had no leg.
    fn own_currency(&self, position: &Position, amount: Ratio, date: Date) -> Ratio {
        let terms = position.terms();
        let pair = (self.currency, terms.economics.price_currency);
        let source = terms.fx.as_ref().and_then(|fx| fx.source.as_ref());
        let own = self.market.convert(amount, pair, date.min(self.today), source, self.as_of);
        own.unwrap_or(amount)
    }

    /// The report without any position: what the same usage costs at spot.
    pub fn unhedged(&self, uses: &[Use]) -> Result<CostReport, CostError> {
        waterfall(uses, &[], Vec::new(), (self.currency, self.unit))
    }

    /// The report with every cash contract scaled to `ratio` of its size: the same hedge at another
    /// hedge ratio.
    pub fn scaled(
        &self,
        period: Window,
        uses: &[Use],
        consumed: &Consumed,
        ratio: Ratio,
    ) -> Result<CostReport, CostError> {
        let (mut legs, unpriced) = self.legs(period, consumed);
        for leg in &mut legs {
            if let Cover::Cash { quantity, payoff } = &mut leg.cover {
                *quantity = quantity.times(ratio)?;
                *payoff = Ratio::of(*payoff).times(ratio)?.money_half_even(self.currency)?;
            }
        }
        waterfall(uses, &legs, unpriced, (self.currency, self.unit))
    }
}
