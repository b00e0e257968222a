//! Budgets on a contract: what a balance or commitment has left is the limit.
//!
//! Rules
//! - The limit is what the position has in the stretch in which it must be used: its whole term (balances,
//!   and commitments for a term), the month, the day or the hour.
//! - Under the budget is what is in its scope and what the position may pay for or deliver. What is not
//!   known yet of a request (its region, the class of its tokens) counts as if it were meant.
//! - What a request may take is never too little: money is converted and rounded up, tokens of every class
//!   count, standard tokens are rounded up.
//! - Where a position that sells tokens by quality knows no quality of a model, nobody knows what a request
//!   takes.
//! - A contract that is not there, has not begun, is over or was withdrawn has nothing left.
//!
//! Not here: what was taken (`accounts`; where it comes from, `bursar`), configuration.

use super::window::Span;
use super::{Asked, Facts, Measure, Mode, Scope, Unbounded};
use crate::exact::{ExactError, Ratio};
use crate::hedge::calendar::{Month, Window};
use crate::hedge::intake::Intake;
use crate::hedge::lifecycle::What;
use crate::hedge::position::{ContractClass, Group, Interval, Position, Selector};
use crate::hedge::profile::Unit;
use bursar_domain::{Label, Money, Timestamp, TokenClass, UsageRecord};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

const HOUR_MICROS: i64 = 3_600_000_000;
const DAY_MICROS: i64 = 24 * HOUR_MICROS;
const HOURS_PER_DAY: i128 = 24;
const TOKENS_PER_UNIT: i128 = 1_000_000;
/// Usage without a team.
const UNALLOCATED: &str = "unallocated";

/// A rule: a budget whose limit is a contract's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContractBudget {
    /// Its name, unique among all budgets.
    pub name: Label,
    /// The position.
    pub contract: Label,
    /// Whose use of it.
    pub scope: Scope,
    /// What happens above what is left.
    pub mode: Mode,
    /// What happens to what cannot be bounded.
    pub unbounded: Unbounded,
    /// What happens while the contract has nothing.
    pub without: Without,
    /// Shares of the limit, in percent, from which the client is warned; rising.
    pub thresholds: Vec<u8>,
}

/// What happens to requests while the contract is not there, has not begun or is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Without {
    /// Nothing is left: a hard budget refuses.
    Refuse,
    /// The budget does not apply: they pass at spot.
    Allow,
}

/// Why a contract has nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Absent {
    /// Nobody entered it.
    Unknown,
    /// It settles in cash: there is nothing to draw.
    NothingToDraw,
    /// It begins later.
    NotBegun,
    /// Its days are over.
    Over,
    /// It was withdrawn.
    Canceled,
    /// What is left cannot be told: a profile, rate or term is missing.
    Untold,
}

impl Absent {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::NothingToDraw => "nothing_to_draw",
            Self::NotBegun => "not_begun",
            Self::Over => "over",
            Self::Canceled => "canceled",
            Self::Untold => "untold",
        }
    }
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "is not in the ledger: enter it with `bursar contract add`",
            Self::NothingToDraw => {
                "settles in cash, so there is nothing to draw: name a balance, a commitment or a delivery"
            }
            Self::NotBegun => "has not begun",
            Self::Over => "is over",
            Self::Canceled => "was withdrawn",
            Self::Untold => "cannot be told: see `bursar contract show`",
        })
    }
}

/// A stretch of time in which a contract must be used, and what it has in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// When.
    pub span: Span,
    /// All that it has, in the budget's measure, rounded down.
    pub limit: i128,
}

/// A position that can be drawn, with what its units are worth.
#[derive(Clone, Debug)]
pub struct Drawable {
    position: Position,
    intake: Arc<Intake>,
    /// Units in which it is counted; `None` counts money.
    unit: Option<Unit>,
    selector: Selector,
    days: Window,
    is_canceled: bool,
}

impl Drawable {
    /// The position of this name as it is at `now`.
    pub fn find(intake: &Arc<Intake>, contract: &Label, now: Timestamp) -> Result<Self, Absent> {
        let mut positions = intake.portfolio.in_force();
        let (position, history) =
            positions.find(|(position, _)| position.id() == contract).ok_or(Absent::Unknown)?;
        let terms = position.terms();
        let unit = match terms.kind.group() {
            Group::Pool => None,
            Group::Units if matches!(terms.economics.unit, Unit::Msit | Unit::Sit) => Some(Unit::Msit),
            Group::Units => Some(Unit::Mtok),
            Group::Cash | Group::Uncounted | Group::Currency => return Err(Absent::NothingToDraw),
        };
        let today = day_of(now).ok_or(Absent::Untold)?;
        // As in the report: before its designation a position looks at everything.
        let first = terms.timing.effective.from().max(today.first_of_month());
        let held = terms.designation.as_ref().filter(|held| held.designated_at <= first);
        let expiry = terms.commitment.as_ref().and_then(|commitment| commitment.expiry);
        let outside = expiry.and_then(|expiry| expiry.tomorrow().ok());
        let effective = terms.timing.effective;
        let until = outside.map_or(effective.until(), |outside| outside.min(effective.until()));
        Ok(Self {
            selector: held.map(|held| held.selector.clone()).unwrap_or_default(),
            days: Window::new(effective.from(), until).map_err(|_| Absent::Over)?,
            position: position.clone(),
            intake: Arc::clone(intake),
            unit,
            is_canceled: history.counting(now).any(|(_, what)| *what == What::Cancel),
        })
    }

    /// The position.
    #[must_use]
    pub const fn position(&self) -> &Position {
        &self.position
    }

    /// The days on which it can be used.
    #[must_use]
    pub const fn days(&self) -> Window {
        self.days
    }

    /// The hedge unit in which reports count what was taken; balances take money, in whatever unit.
    #[must_use]
    pub fn unit(&self) -> Unit {
        self.unit.unwrap_or(Unit::Mtok)
    }

    /// What is limited.
    #[must_use]
    pub fn measure(&self) -> Measure {
        match self.unit {
            None => Measure::Money(self.position.terms().economics.price_currency),
            Some(Unit::Msit) => Measure::StandardTokens,
            Some(_) => Measure::Tokens,
        }
    }

    /// How long what it has can be used.
    #[must_use]
    pub fn interval(&self) -> Interval {
        let commitment = self.position.terms().commitment.as_ref();
        match commitment.map(|commitment| commitment.fulfilment) {
            Some(interval) if self.unit.is_some() => interval,
            _ => Interval::Term,
        }
    }

    /// The stretch that `at` is in.
    pub fn stretch(&self, at: Timestamp) -> Result<Stretch, Absent> {
        if self.is_canceled {
            return Err(Absent::Canceled);
        }
        let day = day_of(at).ok_or(Absent::Untold)?;
        if day < self.days.from() {
            return Err(Absent::NotBegun);
        }
        if day >= self.days.until() {
            return Err(Absent::Over);
        }
        let span = self.span(at, day).ok_or(Absent::Untold)?;
        let limit = self.limit(day).map_err(|_| Absent::Untold)?;
        Ok(Stretch { span, limit })
    }

    fn span(&self, at: Timestamp, day: Date) -> Option<Span> {
        let days = |first: Date, next: Date| Some(Span { start: midnight(first)?, end: midnight(next)? });
        match self.interval() {
            Interval::Hour => {
                let start = at.micros().checked_sub(at.micros().rem_euclid(HOUR_MICROS))?;
                Some(Span { start, end: start.checked_add(HOUR_MICROS)? })
            }
            Interval::Day => {
                let start = midnight(day)?;
                Some(Span { start, end: start.checked_add(DAY_MICROS)? })
            }
            Interval::Month => {
                let month = Month::of(day).window().ok()?.overlap(self.days)?;
                days(month.from(), month.until())
            }
            Interval::Term => days(self.days.from(), self.days.until()),
        }
    }

    /// All that the stretch of `day` has.
    fn limit(&self, day: Date) -> Result<i128, ExactError> {
        if self.unit.is_none() {
            // As the report counts a balance: to the minor unit.
            let currency = self.position.terms().economics.price_currency;
            return Ok(self.position.units()?.money_half_even(currency)?.pico());
        }
        let units = match self.interval() {
            Interval::Term => self.position.units()?,
            interval => {
                let month = Month::of(day);
                let whole = self.position.units_in(month)?;
                let window = month.window().ok();
                let days = window.and_then(|window| window.overlap(self.position.terms().timing.effective));
                let days = Ratio::whole(days.map_or(1, Window::days).into());
                match interval {
                    Interval::Day => whole.over(days)?,
                    Interval::Hour => whole.over(days)?.over(Ratio::whole(HOURS_PER_DAY))?,
                    Interval::Month | Interval::Term => whole,
                }
            }
        };
        let factor = self.position.factor(&self.intake.profiles, self.unit(), day);
        let factor = factor.map_err(|_| ExactError::Overflow)?;
        floor(units.times(factor)?.times(Ratio::whole(TOKENS_PER_UNIT))?)
    }

    /// Whether the position may pay for or deliver what these facts tell; `region` where it is known.
    #[must_use]
    pub fn covers(&self, facts: &Facts<'_>, region: Option<&Label>) -> bool {
        let Selector { teams, models, providers, regions, classes: _ } = &self.selector;
        let holds = |set: &BTreeSet<Label>, value: &str| {
            set.is_empty() || set.iter().any(|wanted| wanted.as_str() == value)
        };
        let mut named = [facts.model, facts.model_served].into_iter().flatten();
        let model = models.is_empty()
            || facts.may_be_any_model
            || named.any(|name| models.iter().any(|pattern| matches(pattern, name)));
        model
            && holds(teams, facts.team.unwrap_or(UNALLOCATED))
            && holds(providers, facts.provider)
            && region.is_none_or(|region| holds(regions, region.as_str()))
    }

    /// The most that a request takes; `None` when nobody knows.
    #[must_use]
    pub fn asked(&self, asked: &Asked, model: Option<&Label>, at: Timestamp) -> Option<i128> {
        match self.unit {
            None => self.money(asked.cost?, at),
            Some(_) => self.tokens(asked.tokens?, model, at),
        }
    }

    /// What a record took, as if the position paid for all of it; `None` when nobody knows.
    #[must_use]
    pub fn used(&self, record: &UsageRecord) -> Option<i128> {
        let at = record.started_at;
        if self.unit.is_none() {
            let cost = record.cost.as_ref()?;
            return self.money(Money::from_pico(cost.currency, cost.billed_pico?), at);
        }
        let counted = |class: TokenClass| {
            let class = ContractClass::of(class);
            let asks =
                !self.selector.classes.is_empty() && !self.selector.classes.contains(&ContractClass::Blended);
            class.is_some_and(|class| !asks || self.selector.classes.contains(&class))
        };
        if !record.usage.has_tokens() {
            return None;
        }
        let tokens = record.usage.tokens().filter(|(class, _)| counted(*class));
        let tokens = tokens.fold(0_u64, |sum, (_, count)| sum.saturating_add(count));
        let model = record.model_served.as_ref().or(record.model_requested.as_ref());
        self.tokens(tokens, model, at)
    }

    /// What a balance pays for this cost, in its own currency.
    fn money(&self, cost: Money, at: Timestamp) -> Option<i128> {
        let terms = self.position.terms();
        let benefit = terms.commitment.as_ref().map_or(Ratio::ZERO, |commitment| commitment.benefit);
        let own = terms.economics.price_currency;
        if cost.currency() == own && benefit.is_zero() {
            return Some(cost.pico().max(0));
        }
        let source = terms.fx.as_ref().and_then(|fx| fx.source.as_ref());
        let known = Timestamp::from_micros(i64::MAX);
        let pair = (cost.currency(), own);
        let exact = Ratio::whole(cost.pico().max(0)).times(Ratio::ONE.minus(benefit).ok()?).ok()?;
        ceil(self.intake.market.convert(exact, pair, day_of(at)?, source, known).ok()?).ok()
    }

    fn tokens(&self, tokens: u64, model: Option<&Label>, at: Timestamp) -> Option<i128> {
        if self.unit != Some(Unit::Msit) {
            return Some(tokens.into());
        }
        let profile = self.intake.quality_of(model?)?;
        let pair = (Unit::Mtok, Unit::Msit);
        let factor = self.intake.profiles.factor(pair, Some(profile), day_of(at)?).ok()?;
        ceil(Ratio::whole(tokens.into()).times(factor).ok()?).ok()
    }

    /// An amount of a report in the budget's measure: money exactly, hedge units as tokens, rounded up.
    pub fn measured(&self, taken: Ratio) -> Result<i128, ExactError> {
        let scale = if self.unit.is_none() { 1_000_000_000_000 } else { TOKENS_PER_UNIT };
        ceil(taken.times_near(Ratio::whole(scale), 0)?)
    }
}

/// Whether a selector's model, which may end in `*`, is this one.
fn matches(pattern: &Label, name: &str) -> bool {
    match pattern.as_str().strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern.as_str() == name,
    }
}

fn floor(value: Ratio) -> Result<i128, ExactError> {
    value.numerator().checked_div_euclid(value.denominator()).ok_or(ExactError::Overflow)
}

fn ceil(value: Ratio) -> Result<i128, ExactError> {
    let whole = floor(value)?;
    let part = value.minus(Ratio::whole(whole))?.is_positive();
    whole.checked_add(part.into()).ok_or(ExactError::Overflow)
}

/// The day of an instant, as contracts count days.
#[must_use]
pub fn day_of(at: Timestamp) -> Option<Date> {
    let at = jiff::Timestamp::from_microsecond(at.micros()).ok()?;
    Some(at.to_zoned(TimeZone::UTC).date())
}

fn midnight(day: Date) -> Option<i64> {
    Some(day.to_zoned(TimeZone::UTC).ok()?.timestamp().as_microsecond())
}

#[cfg(test)]
mod tests;
