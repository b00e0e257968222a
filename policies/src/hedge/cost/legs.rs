//! From a position to its leg of a period: settlement price, payoff, quantity in hedge units,
//! charges in the reporting currency.
//!
//! Invariants
//! - A period lies in one month. Part of a month has its part of the month's quantity by days, and
//!   its average is marked provisional.
//! - Only settled amounts and averages to date enter; a contract that settles on a later day is
//!   listed as unpriced until then.
//! - A settlement that was recorded goes before one that is computed.
//! - Usage counts on the days that the position covers, and up to its expiry.
//! - A designation counts for the days after it: a period that began before it is the treasury's.
//! - A missing fixing, rate, profile or term makes the position unpriced, with the reason.
//!
//! Not here: who gets what (`waterfall`), balances over several periods (`book`).

use super::{Allocation, Bucket, Cover, Leftover, Leg, UnusedTo};
use crate::exact::{Decimal, ExactError, Ratio, shares};
use crate::hedge::calendar::{CalendarError, Month, Window, day_number};
use crate::hedge::commitment::amortise;
use crate::hedge::lifecycle::{History, Purchases, What};
use crate::hedge::market::{Averaging, Market, MarketError};
use crate::hedge::payoff::Shape;
use crate::hedge::position::{
    AllocationRule, Commitment, Designation, FeeEvent, FxRule, Group, Interval, Kind, Overage, Position,
    Recognition, Selector, SettlementRule, Shortfall, Underlying,
};
use crate::hedge::profile::{ProfileError, Profiles, Unit};
use bursar_domain::{Currency, Label, Money, MoneyError, Timestamp};
use jiff::civil::Date;
use std::collections::BTreeMap;

const HOUR_MICROS: i64 = 3_600_000_000;
const DAY_HOURS: u32 = 24;

/// What a leg is asked for.
#[derive(Clone, Copy, Debug)]
pub struct LegAsk<'a> {
    /// Fixings and rates.
    pub market: &'a Market,
    /// Conversion profiles.
    pub profiles: &'a Profiles,
    /// Days inside one month.
    pub period: Window,
    /// Hedge unit of the book.
    pub unit: Unit,
    /// Reporting currency.
    pub currency: Currency,
    /// The last day that is over.
    pub today: Date,
    /// What was known when.
    pub as_of: Timestamp,
    /// What earlier periods took of the position: hedge units, or money of a pool in its own currency.
    pub consumed: Ratio,
}

/// A position that has no leg, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("position {position} is unpriced: {reason}")]
pub struct Unpriced {
    /// The position.
    pub position: Label,
    /// Why.
    pub reason: Gap,
}

/// Why a position cannot be priced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Gap {
    /// Market data.
    #[error(transparent)]
    Market(#[from] MarketError),
    /// Units.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// It settles later.
    #[error("it settles on {0}")]
    NotSettled(Date),
    /// The period has several months.
    #[error("the period from {0} spans months: ask for each month")]
    SeveralMonths(Date),
    /// The position lacks a term that its kind needs.
    #[error("it has no {0}")]
    NoTerm(&'static str),
    /// Dates.
    #[error(transparent)]
    Calendar(#[from] CalendarError),
    /// Arithmetic.
    #[error(transparent)]
    Exact(#[from] ExactError),
}

impl From<MoneyError> for Gap {
    fn from(error: MoneyError) -> Self {
        Self::Exact(ExactError::Money(error))
    }
}

/// The leg of a position in a period; `None` when the period has nothing of it.
pub fn leg(position: &Position, history: &History, ask: &LegAsk<'_>) -> Result<Option<Leg>, Unpriced> {
    let build = Builder { position, history, ask };
    build.leg().map_err(|reason| Unpriced { position: position.id().clone(), reason })
}

struct Builder<'a> {
    position: &'a Position,
    history: &'a History,
    ask: &'a LegAsk<'a>,
}

impl Builder<'_> {
    fn leg(&self) -> Result<Option<Leg>, Gap> {
        let ask = self.ask;
        let month = Month::of(ask.period.from());
        if Month::of(ask.period.last()) != month {
            return Err(Gap::SeveralMonths(ask.period.from()));
        }
        if self.history.counting(ask.as_of).any(|(_, what)| *what == What::Cancel) {
            return Ok(None);
        }
        let terms = self.position.terms();
        let covered = self.covered(month)?;
        let first = covered.unwrap_or(ask.period).from();
        let held = terms.designation.as_ref().filter(|held| held.designated_at <= first);
        let (cover, provisional) = match covered {
            Some(covered) => self.cover(month, covered, held)?,
            None => (Cover::Nothing, false),
        };
        let unused_to = terms.commitment.as_ref().map_or(UnusedTo::Residual, unused_to);
        let leg = Leg {
            position: self.position.id().clone(),
            rank: self.position.rank(),
            lapses: self.lapses(),
            selector: held.map_or_else(Selector::default, |held| held.selector.clone()),
            window: covered.and_then(|covered| self.window(covered)),
            allocation: held.map_or(Allocation::ProRata, allocation),
            cover,
            premium: self.premium(month)?,
            fees: self.fees(month, covered)?,
            unused: Money::zero(ask.currency),
            unused_to,
            provisional,
        };
        let silent = leg.cover == Cover::Nothing && leg.premium.pico() == 0 && leg.fees.pico() == 0;
        Ok((!silent).then_some(leg))
    }

    /// When usage counts, where the position covers only a part of the period.
    fn window(&self, covered: Window) -> Option<(Timestamp, Timestamp)> {
        let expiry = self.position.terms().commitment.as_ref().and_then(|terms| terms.expiry);
        let outside = expiry.and_then(|expiry| expiry.tomorrow().ok());
        let until = outside.map_or(covered.until(), |outside| outside.min(covered.until()));
        let whole = covered.from() == self.ask.period.from() && until == self.ask.period.until();
        (!whole).then(|| (midnight(covered.from()), midnight(until)))
    }

    /// The last day of what carries over; of what must be used in the period, its last day.
    fn lapses(&self) -> Option<Date> {
        let terms = self.position.terms();
        let last = terms.timing.effective.last();
        let commitment = terms.commitment.as_ref()?;
        let carries = terms.kind.group() == Group::Pool || self.position.carries_over();
        let last = if carries { last } else { last.min(self.ask.period.last()) };
        Some(commitment.expiry.map_or(last, |expiry| expiry.min(last)))
    }

    /// The days of the period that the position covers.
    fn covered(&self, month: Month) -> Result<Option<Window>, Gap> {
        let window = self.position.terms().timing.effective;
        let Some(window) = window.overlap(month.window()?) else { return Ok(None) };
        Ok(window.overlap(self.ask.period))
    }

    /// The part of the month's quantity that the covered days have, by days.
    fn part(&self, month: Month, covered: Window) -> Result<Ratio, Gap> {
        let whole = self.position.terms().timing.effective.overlap(month.window()?).unwrap_or(covered);
        Ok(Ratio::new(covered.days().into(), whole.days().into())?)
    }

    fn cover(&self, month: Month, covered: Window, held: Option<&Designation>) -> Result<(Cover, bool), Gap> {
        match self.position.terms().kind.group() {
            Group::Units => {
                let whole = self.part(month, covered)? == Ratio::ONE;
                Ok((self.units(month, covered)?, !whole && !self.position.carries_over()))
            }
            Group::Pool => Ok((self.pool(covered)?, false)),
            Group::Cash | Group::Uncounted | Group::Currency => self.cash(month, covered, held),
        }
    }

    // === contracts that settle in cash ===

    fn cash(&self, month: Month, covered: Window, held: Option<&Designation>) -> Result<(Cover, bool), Gap> {
        let quantity = self.position.units_in(month)?.times(self.part(month, covered)?)?;
        if quantity.is_zero() {
            return Ok((Cover::Nothing, false));
        }
        let whole = self.part(month, covered)? == Ratio::ONE;
        let recorded = self.history.settled(month, self.ask.as_of).filter(|_| whole);
        let settle_on = covered.last().min(self.ask.today);
        let (payoff, provisional) = match recorded {
            Some(amount) => (self.reported(amount, settle_on)?, false),
            None => self.payoff(month, quantity, covered)?,
        };
        let provisional = provisional || !whole;
        let payoff = payoff.checked_add(self.funding(covered)?)?;
        let kind = self.position.terms().kind;
        let cover = match (held, kind.group()) {
            (None, _) | (_, Group::Uncounted) => Cover::Uncounted { payoff },
            (Some(_), Group::Currency) => Cover::Currency { payoff },
            (Some(held), _) => {
                Cover::Cash { quantity: quantity.times(self.factor(held, covered.from())?)?, payoff }
            }
        };
        Ok((cover, provisional))
    }

    /// Hedge units per unit of the position.
    fn factor(&self, held: &Designation, date: Date) -> Result<Ratio, Gap> {
        let from = self.position.terms().economics.unit;
        Ok(self.ask.profiles.factor((from, self.ask.unit), held.profile.as_ref(), date)?)
    }

    /// Settlement price of the covered days, and whether it is still to change.
    fn price(&self, month: Month, covered: Window) -> Result<(Ratio, bool), Gap> {
        let terms = self.position.terms();
        if terms.kind == Kind::FxForward {
            return self.exchange_rate(covered);
        }
        let underlying = terms.underlying.as_ref().ok_or(Gap::NoTerm("index"))?;
        let ask = self.ask;
        ask.market.index_priced_in(&underlying.index, terms.economics.price_currency)?;
        if let Some(days) = self.position.average_days() {
            let Underlying { fallback, rounding_places, .. } = *underlying;
            let averaging = Averaging { days, fallback, rounding_places };
            let average = ask.market.average(&underlying.index, covered, averaging, ask.today, ask.as_of)?;
            return Ok((average.value, average.provisional));
        }
        if terms.timing.settlement == SettlementRule::ContinuousMtm {
            return self.marked(month, covered, underlying);
        }
        let date = self.settlement_date(month, covered);
        if date > ask.today {
            return Err(Gap::NotSettled(date));
        }
        let value = ask.market.fixing_or(&underlying.index, date, underlying.fallback, ask.as_of)?;
        Ok((value, false))
    }

    fn settlement_date(&self, month: Month, covered: Window) -> Date {
        let last_trade = self.position.terms().timing.last_trade;
        last_trade.filter(|day| Month::of(*day) == month).unwrap_or_else(|| covered.last())
    }

    fn exchange_rate(&self, covered: Window) -> Result<(Ratio, bool), Gap> {
        let date = covered.last();
        if date > self.ask.today {
            return Err(Gap::NotSettled(date));
        }
        let fx = self.position.terms().fx.as_ref().ok_or(Gap::NoTerm("fx pair"))?;
        let rate = self.ask.market.rate(fx.pair, date, fx.source.as_ref(), self.ask.as_of);
        let (from, to, source_name) = (fx.pair.base, fx.pair.quote, fx.source.clone());
        let missing = MarketError::NoRate { from, to, date, source_name };
        Ok((rate.ok_or(missing)?.ratio(), false))
    }

    /// The last mark of the period; a perpetual pays the change since the mark before it, which is
    /// its entry price in its first period.
    fn marked(&self, month: Month, covered: Window, underlying: &Underlying) -> Result<(Ratio, bool), Gap> {
        let ask = self.ask;
        let mark = |date| ask.market.fixing_or(&underlying.index, date, underlying.fallback, ask.as_of);
        let last = mark(covered.last().min(ask.today))?;
        let provisional = ask.today < covered.last();
        let terms = self.position.terms();
        let entered = Month::of(terms.timing.effective.from()) == month
            && covered.from() == terms.timing.effective.from();
        if terms.kind != Kind::Perpetual || entered {
            return Ok((last, provisional));
        }
        let before = mark(covered.from().yesterday().map_err(|_| CalendarError::OutOfRange)?)?;
        let fixed = terms.economics.fixed_price.ok_or(Gap::NoTerm("fixed price"))?;
        Ok((last.minus(before)?.plus(fixed.ratio())?, provisional))
    }

    /// The payoff of the period in the reporting currency: what is open by the settlement price,
    /// what was closed by its closing price; and whether the settlement price is still to change.
    fn payoff(&self, month: Month, quantity: Ratio, covered: Window) -> Result<(Money, bool), Gap> {
        let economics = &self.position.terms().economics;
        let shape = self.position.shape().ok_or(Gap::NoTerm("price terms"))?;
        let mut open = Ratio::ONE;
        let mut value = Ratio::ZERO;
        for (date, what) in self.history.counting(self.ask.as_of) {
            let What::CloseOut { part, price: closed_at, purchases } = what else { continue };
            if date > covered.last() {
                continue;
            }
            open = open.minus(part.ratio())?;
            if *purchases == Purchases::Expected {
                let per_unit = closed_per_unit(shape, *closed_at)?;
                let paid = economics.side.signed(quantity.times(part.ratio())?.times(per_unit)?)?;
                value = value.plus(paid)?;
            } else if Month::of(date) == month {
                value = value.plus(self.abandoned(month, *part, *closed_at, shape)?)?;
            }
        }
        let mut provisional = false;
        if open.is_positive() {
            let (price, to_date) = self.price(month, covered)?;
            value = value.plus(shape.payoff(economics.side, quantity.times(open)?, price)?)?;
            provisional = to_date;
        }
        let date = covered.last().min(self.ask.today);
        Ok((self.reported(self.settled(value, date)?, date)?, provisional))
    }

    /// The result of closing what hedged purchases that will not come: this month's and all later
    /// units at the closing price, when it is closed.
    fn abandoned(&self, from: Month, part: Decimal, price: Decimal, shape: Shape) -> Result<Ratio, Gap> {
        let months = self.position.terms().timing.effective.months().filter(|month| *month >= from);
        let mut units = Ratio::ZERO;
        for month in months {
            units = units.plus(self.position.units_in(month)?)?;
        }
        let side = self.position.terms().economics.side;
        Ok(side.signed(units.times(part.ratio())?.times(closed_per_unit(shape, price)?)?)?)
    }

    /// The exact value in the price currency as settled cash: converted, then rounded once.
    fn settled(&self, exact: Ratio, date: Date) -> Result<Money, Gap> {
        let terms = self.position.terms();
        let (from, to) = (terms.economics.price_currency, terms.economics.settlement_currency);
        let at = match terms.fx.as_ref().map(|fx| fx.rule) {
            Some(FxRule::TradeDate) => terms.timing.trade_date,
            _ => date,
        };
        let source = terms.fx.as_ref().and_then(|fx| fx.source.as_ref());
        let converted = self.ask.market.convert(exact, (from, to), at, source, self.ask.as_of)?;
        Ok(converted.money_half_even(to)?)
    }

    /// Cash in the reporting currency, at the rate of its day.
    fn reported(&self, cash: Money, date: Date) -> Result<Money, Gap> {
        if cash.currency() == self.ask.currency {
            return Ok(cash);
        }
        let source = self.position.terms().fx.as_ref().and_then(|fx| fx.source.as_ref());
        let pair = (cash.currency(), self.ask.currency);
        let exact = self.ask.market.convert(Ratio::of(cash), pair, date, source, self.ask.as_of)?;
        Ok(exact.money_half_even(self.ask.currency)?)
    }

    /// Funding of a perpetual on the covered days.
    fn funding(&self, covered: Window) -> Result<Money, Gap> {
        let mut sum = Money::zero(self.ask.currency);
        for (date, what) in self.history.counting(self.ask.as_of) {
            if let What::Funding(amount) = what
                && covered.contains(date)
            {
                sum = sum.checked_add(self.reported(*amount, date)?)?;
            }
        }
        Ok(sum)
    }

    // === contracts that deliver ===

    fn units(&self, month: Month, covered: Window) -> Result<Cover, Gap> {
        let terms = self.position.terms();
        let commitment = terms.commitment.as_ref().ok_or(Gap::NoTerm("commitment"))?;
        let factor = self.position.factor(self.ask.profiles, self.ask.unit, covered.from())?;
        let fixed = terms.economics.fixed_price.ok_or(Gap::NoTerm("fixed price"))?;
        let date = covered.last().min(self.ask.today);
        let pair = (terms.economics.price_currency, self.ask.currency);
        let source = terms.fx.as_ref().and_then(|fx| fx.source.as_ref());
        let fixed = self.ask.market.convert(fixed.ratio(), pair, date, source, self.ask.as_of)?;
        let price = fixed.over(factor)?;
        let last = commitment.expiry.unwrap_or_else(|| terms.timing.effective.last());
        let ends = covered.contains(last.min(terms.timing.effective.last()));
        let (quantity, leftover) = if commitment.fulfilment == Interval::Term {
            let left = self.position.units()?.times(factor)?.minus(self.ask.consumed)?.or_zero();
            let expired = last < covered.from();
            let there = if expired { Ratio::ZERO } else { left };
            (there, if ends { Leftover::Lapses } else { Leftover::Stays })
        } else {
            let units = self.position.units_in(month)?.times(self.part(month, covered)?)?;
            (units.times(factor)?, Leftover::Lapses)
        };
        let overage = (commitment.overage == Overage::ContractPrice).then_some(price);
        let buckets = buckets(commitment.fulfilment, covered, quantity)?;
        Ok(Cover::Units { buckets, price, overage, leftover })
    }

    fn pool(&self, covered: Window) -> Result<Cover, Gap> {
        let terms = self.position.terms();
        let commitment = terms.commitment.as_ref().ok_or(Gap::NoTerm("commitment"))?;
        let whole = self.position.units()?;
        let date = covered.last().min(self.ask.today);
        let pair = (terms.economics.price_currency, self.ask.currency);
        let source = terms.fx.as_ref().and_then(|fx| fx.source.as_ref());
        // A balance is kept in its own currency: rates move what it is worth, not what is left of it.
        let left = whole.minus_near(self.ask.consumed)?.or_zero();
        let left = self.ask.market.convert(left, pair, date, source, self.ask.as_of)?;
        let last = commitment.expiry.unwrap_or_else(|| terms.timing.effective.last());
        let expired = last < covered.from();
        let balance = if expired { Ratio::ZERO } else { left }.money_half_even(self.ask.currency)?;
        let ends = covered.contains(last.min(terms.timing.effective.last()));
        let leftover = if ends { Leftover::Lapses } else { Leftover::Stays };
        Ok(Cover::Pool { balance, benefit: commitment.benefit, leftover })
    }

    // === charges ===

    fn premium(&self, month: Month) -> Result<Money, Gap> {
        let zero = Money::zero(self.ask.currency);
        let terms = self.position.terms();
        let Some(premium) = terms.economics.premium else { return Ok(zero) };
        match premium.recognition {
            Recognition::Paid if self.ask.period.contains(premium.pay_date) => {
                self.reported(premium.amount, premium.pay_date)
            }
            Recognition::Paid => Ok(zero),
            Recognition::StraightLine => {
                let whole = self.reported(premium.amount, premium.pay_date)?;
                let schedule = amortise(whole, terms.timing.effective)?;
                let Some(of_month) = schedule.get(&month) else { return Ok(zero) };
                self.part_of_month(*of_month, month)
            }
        }
    }

    /// The part of a month's amount that the period has, by days.
    fn part_of_month(&self, amount: Money, month: Month) -> Result<Money, Gap> {
        let whole = self.position.terms().timing.effective.overlap(month.window()?);
        let inside = whole.and_then(|whole| whole.overlap(self.ask.period));
        let (Some(whole), Some(inside)) = (whole, inside) else {
            return Ok(Money::zero(self.ask.currency));
        };
        if whole == inside {
            return Ok(amount);
        }
        let outside = whole.days().saturating_sub(inside.days());
        let weights = BTreeMap::from([
            (true, Ratio::whole(inside.days().into())),
            (false, Ratio::whole(outside.into())),
        ]);
        let shared = shares(amount, &weights)?;
        Ok(shared.parts.get(&true).copied().unwrap_or(Money::zero(self.ask.currency)))
    }

    fn fees(&self, month: Month, covered: Option<Window>) -> Result<Money, Gap> {
        let terms = self.position.terms();
        let mut sum = Money::zero(self.ask.currency);
        for fee in &terms.economics.fees {
            for date in self.fee_dates(fee.event, month, covered)? {
                sum = sum.checked_add(self.reported(fee.amount, date)?)?;
            }
        }
        Ok(sum)
    }

    fn fee_dates(&self, event: FeeEvent, month: Month, covered: Option<Window>) -> Result<Vec<Date>, Gap> {
        let period = self.ask.period;
        let happened = |wanted: fn(&What) -> bool| {
            let events = self.history.counting(self.ask.as_of);
            events
                .filter(|(date, what)| period.contains(*date) && wanted(what))
                .map(|(date, _)| date)
                .collect()
        };
        Ok(match event {
            FeeEvent::Trade => {
                let date = self.position.terms().timing.trade_date;
                if period.contains(date) { vec![date] } else { Vec::new() }
            }
            FeeEvent::Settlement => {
                let whole = self.position.terms().timing.effective.overlap(month.window()?);
                let last = whole.map(Window::last);
                covered.and(last).filter(|last| period.contains(*last)).into_iter().collect()
            }
            FeeEvent::Roll => happened(|what| matches!(what, What::Roll { .. })),
            FeeEvent::CloseOut => happened(|what| matches!(what, What::CloseOut { .. })),
        })
    }
}

/// What closing one unit brought: the difference to the fixed price, or the premium of an option.
fn closed_per_unit(shape: Shape, price: Decimal) -> Result<Ratio, ExactError> {
    match shape {
        Shape::Linear { .. } => shape.per_unit(price.ratio()),
        Shape::Cap { .. } | Shape::Floor { .. } | Shape::Collar { .. } | Shape::Binary { .. } => {
            Ok(price.ratio())
        }
    }
}

fn unused_to(commitment: &Commitment) -> UnusedTo {
    match (commitment.shortfall, &commitment.owner) {
        (Shortfall::Owner, Some(owner)) => UnusedTo::Owner(owner.clone()),
        (Shortfall::ProRata, _) => UnusedTo::ProRata,
        (Shortfall::Residual | Shortfall::Owner, _) => UnusedTo::Residual,
    }
}

fn allocation(held: &Designation) -> Allocation {
    match held.allocation {
        AllocationRule::ProRata => Allocation::ProRata,
        AllocationRule::Fifo => Allocation::Fifo,
        AllocationRule::Designated => Allocation::Designated(held.shares.clone()),
    }
}

/// The first instant of a day, as usage tells time: by the clock on the wall.
fn midnight(day: Date) -> Timestamp {
    let day_micros = HOUR_MICROS.saturating_mul(DAY_HOURS.into());
    Timestamp::from_micros(i64::from(day_number(day)).saturating_mul(day_micros))
}

/// The stretches in which a commitment must be used: hours, days, or all at once.
fn buckets(interval: Interval, covered: Window, quantity: Ratio) -> Result<Vec<Bucket>, ExactError> {
    let (step, count) = match interval {
        Interval::Hour => (HOUR_MICROS, covered.days().saturating_mul(DAY_HOURS)),
        Interval::Day => (HOUR_MICROS.saturating_mul(DAY_HOURS.into()), covered.days()),
        Interval::Month | Interval::Term => {
            let (from, until) = (Timestamp::from_micros(i64::MIN), Timestamp::from_micros(i64::MAX));
            return Ok(vec![Bucket { from, until, quantity }]);
        }
    };
    let each = quantity.over(Ratio::whole(count.into()))?;
    let start = midnight(covered.from()).micros();
    let bucket = |index: u32| {
        let from = start.saturating_add(step.saturating_mul(index.into()));
        let until = Timestamp::from_micros(from.saturating_add(step));
        Bucket { from: Timestamp::from_micros(from), until, quantity: each }
    };
    Ok((0..count).map(bucket).collect())
}
