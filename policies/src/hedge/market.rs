//! Market data: index fixings and exchange rates as facts, and the averages that contracts settle on.
//!
//! Invariants
//! - A fixing or rate is added, never changed. A restatement is a later observation of the same day;
//!   a question is asked as of an instant and sees what was known then.
//! - Adding the same observation again changes nothing.
//! - A missing day is filled only by the rule that the contract names; else it is missing, and named.
//! - A rate is used as it was published: multiplied or divided by, never inverted and rounded.
//! - No rate is crossed through a third currency, and CNY and CNH are two currencies.
//!
//! Not here: files and their columns (the caller), what a contract does with an average (`payoff`).

use super::calendar::{Calendar, Window, day_number};
use crate::exact::{Decimal, ExactError, Ratio};
use bursar_domain::{Currency, Label, Timestamp};
use jiff::civil::Date;
use std::collections::{BTreeMap, BTreeSet};

/// The oldest rate that may stand in for a day without one: a long weekend and a holiday.
pub const RATE_AGE_DAYS_MAX: u32 = 7;

/// What to say of a currency code that is well written and no currency.
pub(crate) const UNLISTED: &str = "is no known currency: write its code by ISO 4217, or CNH";

/// The oldest fixing that `last_published` carries forward.
pub const FIXING_AGE_DAYS_MAX: u32 = 31;

/// An index in one version of its method. Another version is another index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexKey {
    /// Its name.
    pub id: Label,
    /// The version of its method.
    pub version: u32,
}

impl std::fmt::Display for IndexKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} v{}", self.id, self.version)
    }
}

/// What is known about an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Name and version.
    pub key: IndexKey,
    /// Currency of its values.
    pub currency: Currency,
    /// When it is fixed.
    pub calendar: Calendar,
    /// The last day on which it is published, when it ends.
    pub last: Option<Date>,
}

/// One observation of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixing {
    /// The index.
    pub index: IndexKey,
    /// The day it is for.
    pub date: Date,
    /// Its value per unit of the index.
    pub value: Decimal,
    /// Currency of the value.
    pub currency: Currency,
    /// Who published it.
    pub source: Label,
    /// When it became known here; a later one for the same day restates it.
    pub known_at: Timestamp,
}

/// Two currencies, read as in the market: `USD/CNY` is CNY per USD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    /// One unit of this …
    pub base: Currency,
    /// … costs so many of this.
    pub quote: Currency,
}

impl Pair {
    /// Parses `USD/CNY` or `USDCNY`.
    pub fn parse(text: &str) -> Result<Self, MarketError> {
        let bad = || MarketError::NotPair(text.chars().take(40).collect());
        let (base, quote) = text.split_once('/').or_else(|| text.split_at_checked(3)).ok_or_else(bad)?;
        let known = |code| Currency::parse(code).ok().filter(|code| code.is_listed()).ok_or_else(bad);
        let (base, quote) = (known(base)?, known(quote)?);
        if base == quote { Err(bad()) } else { Ok(Self { base, quote }) }
    }
}

impl std::fmt::Display for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.quote)
    }
}

/// One observation of an exchange rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FxRate {
    /// The pair.
    pub pair: Pair,
    /// The fixing date.
    pub date: Date,
    /// Quote currency per unit of base currency.
    pub rate: Decimal,
    /// Who published it.
    pub source: Label,
    /// When it became known here.
    pub known_at: Timestamp,
}

/// What adding an observation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Added {
    /// The first for its day.
    New,
    /// A later word on a day that had one; the earlier one stays.
    Restated,
    /// Already there, word for word.
    Same,
}

/// What a contract does about a day without fixing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fallback {
    /// The value of the last day before, at most a month old.
    LastPublished,
    /// On the line between the days before and after.
    Interpolate,
    /// Nothing: the position is unpriced.
    Fail,
}

/// Why market data cannot be added or does not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MarketError {
    /// Nobody declared the index.
    #[error("unknown index {0}: declare it with its currency and calendar first")]
    UnknownIndex(IndexKey),
    /// A value that is zero or less.
    #[error("the {what} of {date} is {value}: it must be above zero")]
    NotPositive {
        /// Fixing or rate, with its name.
        what: String,
        /// Its day.
        date: Date,
        /// The value.
        value: Decimal,
    },
    /// A fixing for a day on which the index is not published.
    #[error("{index} is not fixed on {date}: it is no business day of calendar {calendar}")]
    Holiday {
        /// The index.
        index: IndexKey,
        /// The day.
        date: Date,
        /// The calendar.
        calendar: Label,
    },
    /// A fixing after the end of the index.
    #[error("{index} ended on {last}: there is no fixing for {date}")]
    Expired {
        /// The index.
        index: IndexKey,
        /// Its last day.
        last: Date,
        /// The day asked for.
        date: Date,
    },
    /// A fixing in another currency than its index.
    #[error("{index} is in {expected}, the fixing is in {found}; CNY and CNH are two currencies")]
    Currency {
        /// The index.
        index: IndexKey,
        /// Its currency.
        expected: Currency,
        /// The fixing's currency.
        found: Currency,
    },
    /// A contract that is priced in another currency than its index.
    #[error(
        "{index} is in {index_currency} and the contract is priced in {priced}: write price_currency: \
         {index_currency}, and a settlement currency with its pair where it is paid in another; CNY and CNH \
         are two currencies"
    )]
    PricedOtherwise {
        /// The index.
        index: IndexKey,
        /// Its currency.
        index_currency: Currency,
        /// The contract's.
        priced: Currency,
    },
    /// Two values for one day, known at the same instant.
    #[error("two values for {what} on {date} became known at the same instant: {first} and {second}")]
    Conflict {
        /// Index or pair.
        what: String,
        /// The day.
        date: Date,
        /// The one value.
        first: Decimal,
        /// The other value.
        second: Decimal,
    },
    /// Days without fixing, and no rule to fill them.
    #[error("{index} has no fixing for {} of {expected} days, first {first}, and the contract has no usable fallback", missing.len())]
    Missing {
        /// The index.
        index: IndexKey,
        /// The first missing day.
        first: Date,
        /// All missing days.
        missing: Vec<Date>,
        /// Days that the average needs.
        expected: usize,
    },
    /// No day of the window is a day of the average.
    #[error("{index} is fixed on no day from {from} to {until}")]
    NoDays {
        /// The index.
        index: IndexKey,
        /// First day.
        from: Date,
        /// First day outside.
        until: Date,
    },
    /// No rate between two currencies.
    #[error("no rate between {from} and {to} for {date}{}", source_text(source_name.as_ref()))]
    NoRate {
        /// From.
        from: Currency,
        /// To.
        to: Currency,
        /// The day.
        date: Date,
        /// The source that the contract names.
        source_name: Option<Label>,
    },
    /// The text is no currency pair.
    #[error("{0:?} is not a currency pair: write two known currencies as USD/CNY, meaning CNY per USD")]
    NotPair(String),
    /// Arithmetic.
    #[error(transparent)]
    Exact(#[from] ExactError),
}

fn source_text(source: Option<&Label>) -> String {
    source.map_or_else(String::new, |source| format!(" from {source}"))
}

/// Which days an average takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AverageDays {
    /// The business days of the index.
    Business,
    /// Every calendar day.
    Calendar,
}

/// How an average is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Averaging {
    /// Which days.
    pub days: AverageDays,
    /// What about missing ones.
    pub fallback: Fallback,
    /// Decimals of the average by the contract; `None` keeps it exact.
    pub rounding_places: Option<u32>,
}

/// An average of fixings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Average {
    /// Its value.
    pub value: Ratio,
    /// Days in it.
    pub days: usize,
    /// Days that the fallback filled.
    pub filled: Vec<Date>,
    /// Whether days of the window are still to come.
    pub provisional: bool,
}

/// Everything observed of a fixing or rate on one day, by the instant it became known.
type Observations = BTreeMap<(Timestamp, Label), Decimal>;

/// All market data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Market {
    indices: BTreeMap<IndexKey, Index>,
    fixings: BTreeMap<IndexKey, BTreeMap<Date, Observations>>,
    rates: BTreeMap<Pair, BTreeMap<Date, Observations>>,
}

impl Market {
    /// Declares an index, or replaces its description.
    pub fn declare(&mut self, index: Index) {
        self.indices.insert(index.key.clone(), index);
    }

    /// The index.
    pub fn index(&self, key: &IndexKey) -> Result<&Index, MarketError> {
        self.indices.get(key).ok_or_else(|| MarketError::UnknownIndex(key.clone()))
    }

    /// The index of a contract priced in `priced`, which is the currency of its values: a difference of two
    /// currencies is no amount of either.
    pub fn index_priced_in(&self, key: &IndexKey, priced: Currency) -> Result<&Index, MarketError> {
        let index = self.index(key)?;
        if index.currency == priced {
            return Ok(index);
        }
        let (index, index_currency) = (key.clone(), index.currency);
        Err(MarketError::PricedOtherwise { index, index_currency, priced })
    }

    /// Adds a fixing after checking it against its index.
    pub fn add_fixing(&mut self, fixing: Fixing) -> Result<Added, MarketError> {
        let index = self.index(&fixing.index)?;
        let date = fixing.date;
        if fixing.currency != index.currency {
            let (expected, found) = (index.currency, fixing.currency);
            return Err(MarketError::Currency { index: fixing.index, expected, found });
        }
        if let Some(last) = index.last.filter(|last| date > *last) {
            return Err(MarketError::Expired { index: fixing.index, last, date });
        }
        if !index.calendar.is_business_day(date) {
            let calendar = index.calendar.name().clone();
            return Err(MarketError::Holiday { index: fixing.index, date, calendar });
        }
        if !fixing.value.is_positive() {
            let what = format!("fixing of {}", fixing.index);
            return Err(MarketError::NotPositive { what, date, value: fixing.value });
        }
        let what = fixing.index.to_string();
        let days = self.fixings.entry(fixing.index).or_default();
        observe(days.entry(date).or_default(), &what, date, (fixing.known_at, fixing.source), fixing.value)
    }

    /// Adds an exchange rate.
    pub fn add_rate(&mut self, rate: FxRate) -> Result<Added, MarketError> {
        let date = rate.date;
        if !rate.rate.is_positive() {
            let what = format!("rate of {}", rate.pair);
            return Err(MarketError::NotPositive { what, date, value: rate.rate });
        }
        let what = rate.pair.to_string();
        let days = self.rates.entry(rate.pair).or_default();
        observe(days.entry(date).or_default(), &what, date, (rate.known_at, rate.source), rate.rate)
    }

    /// Whether any fixing of the index is there.
    #[must_use]
    pub fn has_fixings(&self, key: &IndexKey) -> bool {
        self.fixings.get(key).is_some_and(|days| !days.is_empty())
    }

    /// The fixing of a day, as known at `as_of`.
    #[must_use]
    pub fn fixing(&self, key: &IndexKey, date: Date, as_of: Timestamp) -> Option<Decimal> {
        known(self.fixings.get(key)?.get(&date)?, None, as_of)
    }

    /// The fixing of a day, filled by `fallback` where there is none.
    pub fn fixing_or(
        &self,
        key: &IndexKey,
        date: Date,
        fallback: Fallback,
        as_of: Timestamp,
    ) -> Result<Ratio, MarketError> {
        let index = self.index(key)?;
        self.on_day(index, date, fallback, as_of)?.map(|(value, _)| value).ok_or_else(|| {
            MarketError::Missing { index: key.clone(), first: date, missing: vec![date], expected: 1 }
        })
    }

    /// The arithmetic mean over `window`, up to and including `through` when that comes first.
    pub fn average(
        &self,
        key: &IndexKey,
        window: Window,
        averaging: Averaging,
        through: Date,
        as_of: Timestamp,
    ) -> Result<Average, MarketError> {
        let index = self.index(key)?;
        let (mut sum, mut days) = (Ratio::ZERO, 0_usize);
        let (mut filled, mut missing) = (Vec::new(), Vec::new());
        let wanted =
            |day: &Date| averaging.days == AverageDays::Calendar || index.calendar.is_business_day(*day);
        for day in window.each_day().take_while(|day| *day <= through).filter(wanted) {
            days = days.saturating_add(1);
            match self.on_day(index, day, averaging.fallback, as_of)? {
                Some((value, source)) => {
                    sum = sum.plus(value)?;
                    if source == Value::Filled {
                        filled.push(day);
                    }
                }
                None => missing.push(day),
            }
        }
        if let Some(first) = missing.first().copied() {
            return Err(MarketError::Missing { index: key.clone(), first, missing, expected: days });
        }
        if days == 0 {
            let (from, until) = (window.from(), window.until());
            return Err(MarketError::NoDays { index: key.clone(), from, until });
        }
        let count = i128::try_from(days).map_err(|_| ExactError::Overflow)?;
        let mean = sum.over(Ratio::whole(count))?;
        let value = match averaging.rounding_places {
            Some(places) => mean.decimal_half_even(places)?.ratio(),
            None => mean,
        };
        Ok(Average { value, days, filled, provisional: through < window.last() })
    }

    /// The value of a day: published, or by the fallback; `None` is missing. A day on which the
    /// index is never published, in a calendar-day average, takes the last published value.
    fn on_day(
        &self,
        index: &Index,
        day: Date,
        fallback: Fallback,
        as_of: Timestamp,
    ) -> Result<Option<(Ratio, Value)>, MarketError> {
        if let Some(value) = self.fixing(&index.key, day, as_of) {
            return Ok(Some((value.ratio(), Value::Published)));
        }
        let closed = !index.calendar.is_business_day(day);
        let rule = if closed { Fallback::LastPublished } else { fallback };
        let filled = match rule {
            Fallback::Fail => None,
            Fallback::LastPublished => self.before(&index.key, day, as_of).map(|(_, value)| value.ratio()),
            Fallback::Interpolate => self.between(&index.key, day, as_of)?,
        };
        Ok(filled.map(|value| (value, if closed { Value::Published } else { Value::Filled })))
    }

    fn before(&self, key: &IndexKey, day: Date, as_of: Timestamp) -> Option<(Date, Decimal)> {
        let earlier = self.fixings.get(key)?.range(..day).rev();
        earlier
            .take_while(|(date, _)| age_days(**date, day) <= FIXING_AGE_DAYS_MAX)
            .find_map(|(date, seen)| Some((*date, known(seen, None, as_of)?)))
    }

    fn after(&self, key: &IndexKey, day: Date, as_of: Timestamp) -> Option<(Date, Decimal)> {
        let later = self.fixings.get(key)?.range(day..);
        later
            .take_while(|(date, _)| age_days(day, **date) <= FIXING_AGE_DAYS_MAX)
            .find_map(|(date, seen)| Some((*date, known(seen, None, as_of)?)))
    }

    fn between(&self, key: &IndexKey, day: Date, as_of: Timestamp) -> Result<Option<Ratio>, ExactError> {
        let (Some(left), Some(right)) = (self.before(key, day, as_of), self.after(key, day, as_of)) else {
            return Ok(None);
        };
        let part = Ratio::new(age_days(left.0, day).into(), age_days(left.0, right.0).into())?;
        let rise = right.1.ratio().minus(left.1.ratio())?;
        Ok(Some(left.1.ratio().plus(rise.times(part)?)?))
    }

    /// `amount` of one currency in another, at the rate of `date` or the last one before, at most
    /// a week old: exact, not rounded.
    pub fn convert(
        &self,
        amount: Ratio,
        (from, to): (Currency, Currency),
        date: Date,
        source: Option<&Label>,
        as_of: Timestamp,
    ) -> Result<Ratio, MarketError> {
        if from == to {
            return Ok(amount);
        }
        if let Some(rate) = self.rate(Pair { base: to, quote: from }, date, source, as_of) {
            return Ok(amount.over(rate.ratio())?);
        }
        if let Some(rate) = self.rate(Pair { base: from, quote: to }, date, source, as_of) {
            return Ok(amount.times(rate.ratio())?);
        }
        Err(MarketError::NoRate { from, to, date, source_name: source.cloned() })
    }

    /// The rate of a day, or the last one before it that is at most a week old.
    #[must_use]
    pub fn rate(&self, pair: Pair, date: Date, source: Option<&Label>, as_of: Timestamp) -> Option<Decimal> {
        let earlier = self.rates.get(&pair)?.range(..=date).rev();
        earlier
            .take_while(|(day, _)| age_days(**day, date) <= RATE_AGE_DAYS_MAX)
            .find_map(|(_, seen)| known(seen, source, as_of))
    }

    /// The business days of `window` up to `through` without a fixing, and those that were restated
    /// or became known more than a day late, as known at `as_of`.
    pub fn irregular(
        &self,
        key: &IndexKey,
        window: Window,
        through: Date,
        as_of: Timestamp,
    ) -> Result<Irregular, MarketError> {
        let index = self.index(key)?;
        let mut found = Irregular::default();
        for day in window.each_day().take_while(|day| *day <= through) {
            if !index.calendar.is_business_day(day) {
                continue;
            }
            let seen = self.fixings.get(key).and_then(|days| days.get(&day));
            let seen: Vec<Timestamp> = seen
                .into_iter()
                .flat_map(BTreeMap::keys)
                .map(|(at, _)| *at)
                .filter(|at| *at <= as_of)
                .collect();
            match seen.first() {
                None => drop(found.missing.insert(day)),
                Some(first) if is_late(day, *first) => drop(found.late.insert(day)),
                Some(_) => {}
            }
            if seen.len() > 1 {
                found.restated.insert(day);
            }
        }
        Ok(found)
    }
}

/// Days whose fixing is not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Irregular {
    /// No fixing.
    pub missing: BTreeSet<Date>,
    /// First known after the day following it.
    pub late: BTreeSet<Date>,
    /// Restated at least once.
    pub restated: BTreeSet<Date>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Published,
    Filled,
}

fn is_late(day: Date, known_at: Timestamp) -> bool {
    const DAY_MICROS: i64 = 86_400_000_000;
    let known_day = known_at.micros().div_euclid(DAY_MICROS);
    known_day > i64::from(day_number(day)).saturating_add(1)
}

fn age_days(earlier: Date, later: Date) -> u32 {
    day_number(later).abs_diff(day_number(earlier))
}

/// The last word before `as_of`, from `source` where one is named.
fn known(seen: &Observations, source: Option<&Label>, as_of: Timestamp) -> Option<Decimal> {
    let wanted = |by: &Label| source.is_none_or(|source| source == by);
    let mut earlier = seen.iter().rev().filter(|((at, _), _)| *at <= as_of);
    earlier.find(|((_, by), _)| wanted(by)).map(|(_, value)| *value)
}

fn observe(
    seen: &mut Observations,
    what: &str,
    date: Date,
    (at, source): (Timestamp, Label),
    value: Decimal,
) -> Result<Added, MarketError> {
    let key = (at, source);
    match seen.get(&key) {
        Some(there) if *there == value => return Ok(Added::Same),
        Some(there) => {
            let (first, second) = (*there, value);
            return Err(MarketError::Conflict { what: what.to_owned(), date, first, second });
        }
        None => {}
    }
    let first = !seen.keys().any(|(_, source)| *source == key.1);
    seen.insert(key, value);
    Ok(if first { Added::New } else { Added::Restated })
}

#[cfg(test)]
mod tests;
