//! The report that joins usage with the book: effective and hedged cost, month by month, by any rows.
//!
//! Invariants
//! - Rows + residual = book for every component, checked by the waterfall for each month and their sum.
//! - Usage comes from rollups by the day (by the hour where a commitment must be used in its hour), and
//!   from records where rollups are too coarse: a position that asks for a region or for the order of
//!   requests, or one that delivers a token class. Both give the same figures (`join`).
//! - Balances (prepaid, commitments for a term) are followed from their first day, whatever the period.
//! - Usage that cannot be priced, converted or counted in hedge units is listed, never a zero.
//!
//! Not here: usage in hedge units (`join`), the rules (`policies::hedge::cost`), how it is shown (`bursar`).

use super::join::{Joined, RECORDS_MAX, join};
use super::{HedgeSource, State, Unusable, state};
use crate::journal::read::ReadError;
use crate::query::{GroupKey, KeyValue, QueryError, ReadFrom};
use bursar_domain::{Currency, Label, Money, Timestamp};
use bursar_policies::exact::{Decimal, ExactError};
use bursar_policies::hedge::calendar::{CalendarError, Window};
use bursar_policies::hedge::cost::{Book, Consumed, CostError, CostReport, LegResult, Use};
use bursar_policies::hedge::lifecycle::{Drawn, Status};
use bursar_policies::hedge::position::{Group, Kind, Position};
use bursar_policies::hedge::profile::Unit;
use bursar_policies::hedge::risk::mark_to_market;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;

/// Which cost is the spot cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpotCost {
    /// At public prices.
    List,
    /// At negotiated prices.
    Contracted,
    /// What the invoice will say.
    #[default]
    Billed,
}

/// What a report is asked for.
#[derive(Clone, Debug)]
pub struct HedgeAsk {
    /// First day.
    pub from: Date,
    /// First day outside; cut to the day after `today`.
    pub until: Date,
    /// Whose days.
    pub zone: TimeZone,
    /// One row for each combination of these.
    pub by: Vec<GroupKey>,
    /// Hedge unit.
    pub unit: Unit,
    /// Reporting currency.
    pub currency: Currency,
    /// Which cost is spot.
    pub spot: SpotCost,
    /// The last day that is over.
    pub today: Date,
    /// What was known when.
    pub as_of: Timestamp,
    /// Also the cost with every cash contract at this part of its size.
    pub ratio: Option<Decimal>,
}

/// Usage that is not, or not wholly, in the figures.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UsageGap {
    /// Requests without a complete price: their spot cost is not, or only in part, in the figures.
    Unpriced,
    /// Requests of which nobody knows the tokens: they have a cost and no volume.
    Uncounted,
    /// A model without a quality profile: its usage has a cost and no volume in standard tokens.
    NoQuality {
        /// The model, when it is known.
        model: Option<Label>,
    },
    /// Requests whose cost nobody can tell by token class, while a position that delivers asks for a class
    /// of them: they stay whole, and no position on a class covers them.
    NoClassCost,
    /// A cost in a currency that has no rate to the reporting currency: it is not in the figures.
    NoRate {
        /// Its currency.
        currency: Currency,
        /// The first day.
        date: Date,
    },
    /// A sum of money that does not fit.
    Overflow,
}

impl std::fmt::Display for UsageGap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unpriced => f.write_str("without a complete price: their cost is missing from spot"),
            Self::Uncounted => f.write_str("without token counts: they stay at spot, no hedge covers them"),
            Self::NoQuality { model } => write!(
                f,
                "of model {} without a quality profile: they stay at spot; import a profile with score, reference and model",
                model.as_ref().map_or("(unknown)", Label::as_str)
            ),
            Self::NoClassCost => f.write_str(
                "whose cost is not known by token class: no position on a class covers them; import them without a cost, so that the price book prices them, and ask where the same prices are configured",
            ),
            Self::NoRate { currency, date } => {
                write!(
                    f,
                    "in {currency}, which has no rate on {date}: import the rate; their cost is missing"
                )
            }
            Self::Overflow => f.write_str("whose cost does not fit"),
        }
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum HedgeError {
    /// Usage cannot be read.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The journal cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The figures do not add up, or do not fit.
    #[error(transparent)]
    Cost(#[from] CostError),
    /// The period.
    #[error(transparent)]
    Calendar(#[from] CalendarError),
    /// The period begins after the last day that is over.
    #[error(
        "the period begins on {from}, after {today}, the last day that is over: there is nothing to report"
    )]
    NothingYet {
        /// Its first day.
        from: Date,
        /// The last day that is over.
        today: Date,
    },
    /// Too many records for a position that asks for the order of requests.
    #[error(
        "position {0} needs every record of the period (fifo, or a region), and there are more than {RECORDS_MAX}: shorten the period"
    )]
    TooManyRecords(Label),
}

impl From<ExactError> for HedgeError {
    fn from(error: ExactError) -> Self {
        Self::Cost(error.into())
    }
}

/// What a row stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportRow {
    /// The values of `by`, in its order.
    pub key: Vec<KeyValue>,
    /// Requests.
    pub requests: u64,
    /// Tokens, input and output, of those that are known.
    pub tokens: u64,
    /// Requests without a complete price, or without a rate into the currency of the report.
    pub unpriced: u64,
}

/// One position over the period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PositionRow {
    /// The position.
    pub position: Label,
    /// Its kind.
    pub kind: Kind,
    /// Where it stands at the end of the period.
    pub status: Status,
    /// Its months together; `None` when nothing of it lies in the period, or it is unpriced.
    pub result: Option<LegResult>,
    /// What its open months are worth at the last fixing, in its price currency: beside cost, never
    /// in it. `None` when it has none or there is no fixing.
    pub mark: Option<Money>,
}

/// Effective cost of a period.
#[derive(Clone, Debug)]
pub struct HedgeReport {
    /// First day.
    pub from: Date,
    /// First day outside.
    pub until: Date,
    /// The months together.
    pub cost: CostReport,
    /// Each month.
    pub months: Vec<(Window, CostReport)>,
    /// The rows of `cost`, by their labels.
    pub rows: BTreeMap<Label, ReportRow>,
    /// Positions in force.
    pub positions: Vec<PositionRow>,
    /// Usage that is not in the figures, with the number of requests.
    pub gaps: BTreeMap<UsageGap, u64>,
    /// Facts that the checks of this program refuse.
    pub unusable: Vec<Unusable>,
    /// What balances were taken of, until the end of the period.
    pub consumed: Consumed,
    /// Where usage was read.
    pub read_from: ReadFrom,
    /// The same period with every cash contract at the asked part of its size.
    pub at_ratio: Option<CostReport>,
}

impl HedgeReport {
    /// Whether everything that happened is in the figures.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.cost.complete() && self.gaps.is_empty() && self.unusable.is_empty()
    }
}

/// Joins usage with the book.
pub fn report(source: &dyn HedgeSource, ask: &HedgeAsk) -> Result<HedgeReport, HedgeError> {
    let facts = source.finance_facts()?;
    let state = state(&facts);
    report_of(source, &state, ask)
}

/// Joins usage with the book that `state` is.
pub fn report_of(source: &dyn HedgeSource, state: &State, ask: &HedgeAsk) -> Result<HedgeReport, HedgeError> {
    let until = end_of(ask)?;
    let positions: Vec<&Position> = state.intake.portfolio.in_force().map(|(position, _)| position).collect();
    let start = positions.iter().filter(|position| carries(position)).fold(ask.from, |start, position| {
        let window = position.terms().timing.effective;
        if window.until() > ask.from { start.min(window.from()) } else { start }
    });
    let Joined { uses, rows, gaps, read_from } = join(source, state, ask, (start, until))?;
    let book = Book {
        portfolio: &state.intake.portfolio,
        market: &state.intake.market,
        profiles: &state.intake.profiles,
        unit: ask.unit,
        currency: ask.currency,
        today: ask.today,
        as_of: ask.as_of,
    };
    let mut consumed = Consumed::default();
    let mut cost = CostReport::empty(ask.currency, ask.unit);
    let mut at_ratio = ask.ratio.map(|_| cost.clone());
    let mut months = Vec::new();
    for period in pieces(start, ask.from, until)? {
        let slice = uses_in(&uses, period);
        let before = period.from() < ask.from;
        if let (Some(ratio), Some(sum)) = (ask.ratio.filter(|_| !before), &mut at_ratio) {
            sum.merge(book.scaled(period, slice, &consumed, ratio.ratio())?)?;
        }
        let found = book.cost(period, slice, &mut consumed)?;
        if !before {
            months.push((period, found.clone()));
            cost.merge(found)?;
        }
    }
    let positions = position_rows(state, ask, &cost, until)?;
    Ok(HedgeReport {
        from: ask.from,
        until,
        cost,
        months,
        rows,
        positions,
        gaps,
        unusable: state.unusable.clone(),
        consumed,
        at_ratio,
        read_from,
    })
}

/// The first day that is not in the period, or not over.
pub(crate) fn end_of(ask: &HedgeAsk) -> Result<Date, HedgeError> {
    let tomorrow = ask.today.tomorrow().unwrap_or(ask.today);
    let until = ask.until.min(tomorrow);
    if until <= ask.from {
        return Err(HedgeError::NothingYet { from: ask.from, today: ask.today });
    }
    Ok(until)
}

fn carries(position: &Position) -> bool {
    position.terms().kind.group() == Group::Pool || position.carries_over()
}

/// The days from `start` to `until`, cut at months and at `from`.
fn pieces(start: Date, from: Date, until: Date) -> Result<Vec<Window>, CalendarError> {
    let whole = Window::new(start, until)?;
    let mut found = Vec::new();
    for month in whole.months() {
        let Some(inside) = month.window()?.overlap(whole) else { continue };
        if inside.contains(from) && inside.from() < from {
            found.push(Window::new(inside.from(), from)?);
            found.push(Window::new(from, inside.until())?);
        } else {
            found.push(inside);
        }
    }
    Ok(found)
}

/// The usage of a period; `uses` are in order of time.
fn uses_in(uses: &[Use], period: Window) -> &[Use] {
    let (from, until) = (midnight(period.from()), midnight(period.until()));
    let first = uses.partition_point(|used| used.at < from);
    let last = uses.partition_point(|used| used.at < until);
    uses.get(first..last).unwrap_or_default()
}

/// Midnight of a civil day, as contracts count: days of the asked zone, told as if they were UTC.
pub(super) fn midnight(day: Date) -> Timestamp {
    let at = day.to_zoned(TimeZone::UTC).map(|at| at.timestamp().as_microsecond());
    Timestamp::from_micros(at.unwrap_or(0))
}

fn position_rows(
    state: &State,
    ask: &HedgeAsk,
    cost: &CostReport,
    until: Date,
) -> Result<Vec<PositionRow>, HedgeError> {
    let mut rows = Vec::new();
    let last = until.yesterday().unwrap_or(until);
    for (position, history) in state.intake.portfolio.in_force() {
        let legs = cost.legs.iter().filter(|leg| leg.position == *position.id());
        let mut result: Option<LegResult> = None;
        for leg in legs {
            match &mut result {
                None => result = Some(leg.clone()),
                Some(sum) => add_leg(sum, leg)?,
            }
        }
        let mark = mark_to_market(position, history, &state.intake.market, ask.today, ask.as_of);
        rows.push(PositionRow {
            position: position.id().clone(),
            kind: position.terms().kind,
            status: state.intake.portfolio.status(position, last, Drawn::Open, ask.as_of),
            result,
            mark: mark.ok().flatten().filter(|_| is_open(position, ask.today)),
        });
    }
    Ok(rows)
}

/// Whether months of the position are still to come.
fn is_open(position: &Position, today: Date) -> bool {
    position.terms().timing.effective.last() > today.last_of_month()
}

fn add_leg(sum: &mut LegResult, leg: &LegResult) -> Result<(), ExactError> {
    for (mine, more) in [
        (&mut sum.quantity, leg.quantity),
        (&mut sum.covered, leg.covered),
        (&mut sum.over, leg.over),
        (&mut sum.drawn, leg.drawn),
    ] {
        *mine = mine.plus_near(more)?;
    }
    for (mine, more) in [
        (&mut sum.payoff, leg.payoff),
        (&mut sum.effective, leg.effective),
        (&mut sum.over_hedge, leg.over_hedge),
        (&mut sum.used, leg.used),
        (&mut sum.unused, leg.unused),
        (&mut sum.displaced, leg.displaced),
        (&mut sum.premium, leg.premium),
        (&mut sum.fees, leg.fees),
    ] {
        *mine = mine.checked_add(more)?;
    }
    sum.covers_nothing = sum.covers_nothing && leg.covers_nothing;
    sum.provisional = sum.provisional || leg.provisional;
    sum.posted.extend_from_slice(&leg.posted);
    for (team, share) in &leg.shares {
        let mine = sum.shares.entry(team.clone()).or_insert(Money::zero(share.currency()));
        *mine = mine.checked_add(*share)?;
    }
    Ok(())
}
