//! What tokens cost and earned: the hedge report's rows joined with usage and with attributed revenue.
//!
//! Invariants
//! - Rows + residual = book for cost, as the hedge report has it; attributed + unattributed = received.
//! - List, contracted and billed cost of rows sum to those of the book, to the minor unit.
//! - What is unknown is absent: a cost without a price, tokens that nobody counted, revenue where the
//!   ledger knows of no event.
//!
//! Not here: hedges (`hedge`), credit (`earned`), ratios and how they are shown (`bursar`).

mod earned;
mod touches;

pub use crate::revenue::revenue_months;
pub use earned::{Attributed, Earned, NoRate, Received, Value};

use crate::hedge::{HedgeAsk, HedgeError, HedgeReport, HedgeSource, State, Unusable, state};
use crate::journal::read::ReadError;
use crate::query::{GroupKey, KeyValue, QueryError, UsageQuery, UsageReport};
use crate::revenue::revenue_events;
use crate::rollup::{MoneyTotals, Totals};
use bursar_domain::{Currency, Label, Money, StoredFact, Timestamp, Usage, UsageSource};
use bursar_policies::attribution::ModelName;
use bursar_policies::exact::{Decimal, ExactError, Ratio, apportion};
use bursar_policies::hedge::calendar::{CalendarError, parse_day};
use bursar_policies::hedge::cost::{Line, Lines};
use bursar_policies::roi::{Basis, share};
use jiff::civil::Date;
use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::Arc;

/// What a report is asked for.
#[derive(Clone, Debug)]
pub struct RoiAsk {
    /// The time, the grouping and the terms of cost; spot is what is billed.
    pub hedge: HedgeAsk,
    /// How credit is shared out.
    pub model: ModelName,
    /// How old a touch may be.
    pub look_back_micros: u64,
    /// Of `time_decay`.
    pub half_life_micros: u64,
    /// Whether every model is computed beside the one that is asked for.
    pub compare: bool,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum RoiError {
    /// Cost.
    #[error(transparent)]
    Hedge(#[from] HedgeError),
    /// The journal cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Usage cannot be read.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A model that cannot be computed.
    #[error("{0}")]
    Model(String),
    /// More touches than are kept.
    #[error(
        "more than {} usage records touch revenue events of the period: shorten the period or the look-back, or match events by request, trace or session",
        touches::CONTACTS_MAX
    )]
    TooManyTouches,
    /// More touches than are looked at.
    #[error(
        "the revenue events of the period look at more than {} touches: shorten the period or the look-back, or match events by request, trace or session",
        earned::LOOKED_AT_MAX
    )]
    TooMuchToLookAt,
    /// More sessions than are kept.
    #[error(
        "too many sessions ended without revenue for removal effects: shorten the period, or use another model"
    )]
    TooManySessions,
    /// More rows than a report has.
    #[error("the report would have too many rows: group by fewer keys or narrow the time")]
    TooManyRows,
    /// Credit that does not add up: a defect.
    #[error("credits by {} do not sum to what was received: this is a defect", .0.name())]
    Unbalanced(ModelName),
    /// Arithmetic.
    #[error(transparent)]
    Exact(#[from] ExactError),
    /// A day.
    #[error(transparent)]
    Calendar(#[from] CalendarError),
}

impl From<bursar_domain::MoneyError> for RoiError {
    fn from(error: bursar_domain::MoneyError) -> Self {
        Self::Exact(ExactError::Money(error))
    }
}

/// Cost of usage before it is billed, in the reporting currency; `None` where no request has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// At public prices.
    pub list: Option<Money>,
    /// At negotiated prices.
    pub contracted: Option<Money>,
}

impl Costs {
    /// The sum of what is known.
    pub fn plus(self, other: Self) -> Result<Self, ExactError> {
        let plus = |a: Option<Money>, b: Option<Money>| match (a, b) {
            (Some(a), Some(b)) => Ok::<_, ExactError>(Some(a.checked_add(b)?)),
            (a, b) => Ok(a.or(b)),
        };
        Ok(Self { list: plus(self.list, other.list)?, contracted: plus(self.contracted, other.contracted)? })
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoiRow {
    /// What its requests add up to; nothing for a row that only earned.
    pub totals: Totals,
    /// Costs before contracts.
    pub costs: Costs,
    /// Cost by component; its spot is what is billed.
    pub lines: Lines,
    /// Attributed value.
    pub value: Value,
}

impl RoiRow {
    fn empty(currency: Currency) -> Self {
        Self {
            totals: Totals::default(),
            costs: Costs::default(),
            lines: Lines::zero(currency),
            value: Value::zero(currency),
        }
    }

    /// What its figures are made from.
    pub fn basis(&self) -> Result<Basis, ExactError> {
        Ok(Basis {
            revenue: self.value.revenue,
            savings: self.value.savings,
            spot: self.lines.get(Line::Spot),
            effective: self.lines.effective()?,
            tokens: tokens(&self.totals.usage).unwrap_or(0).into(),
        })
    }
}

/// Tokens of the denominator: input with its caches, and output.
#[must_use]
pub fn tokens(usage: &Usage) -> Option<u64> {
    match (usage.input_total(), usage.output_total()) {
        (None, None) => None,
        (input, output) => Some(input.unwrap_or(0).saturating_add(output.unwrap_or(0))),
    }
}

/// How much of the truth the figures rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Attributed share of revenue.
    pub attributed: Option<Ratio>,
    /// Share of billed cost whose requests name a team.
    pub tagged: Option<Ratio>,
    /// Share of tokens that were measured, and not estimated.
    pub measured: Option<Ratio>,
    /// Share of counted requests without a complete price, or without a rate into the reporting currency.
    pub unpriced: Option<Ratio>,
}

/// What tokens cost and earned.
#[derive(Clone, Debug)]
pub struct RoiReport {
    /// Cost.
    pub hedge: HedgeReport,
    /// By key.
    pub rows: BTreeMap<Vec<KeyValue>, RoiRow>,
    /// All usage.
    pub totals: Totals,
    /// Costs before contracts, of all usage.
    pub costs: Costs,
    /// What was earned.
    pub earned: Earned,
    /// Tokens by month.
    pub tokens_by_month: BTreeMap<Date, u64>,
    /// Coverage.
    pub coverage: Shares,
    /// Facts that the checks of this program refuse.
    pub unusable: Vec<Unusable>,
}

impl RoiReport {
    /// Whether everything that happened is in the figures.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.hedge.complete() && self.earned.no_rate.is_empty() && self.unusable.is_empty()
    }
}

/// Whether any contract is among the facts, so that prices of today may still be missing.
#[must_use]
pub fn has_contracts(facts: &[Arc<StoredFact>]) -> bool {
    facts.iter().any(|stored| stored.fact.kind == bursar_domain::FactKind::Contract)
}

/// Answers what tokens cost and earned. Cost is read on a thread of its own meanwhile.
pub fn report(source: &dyn HedgeSource, ask: &RoiAsk) -> Result<RoiReport, RoiError> {
    let facts = source.finance_facts()?;
    let state = state(&facts);
    let until = crate::hedge::end_of(&ask.hedge)?;
    let days = Days { state: &state, ask: &ask.hedge, from: ask.hedge.from, until };
    let cost = || -> Result<_, RoiError> {
        let hedge = crate::hedge::report_of(source, &state, &ask.hedge)?;
        let about = vec![GroupKey::Team, GroupKey::Source, GroupKey::Month];
        Ok((hedge, days.rated(source, [ask.hedge.by.clone(), about])?))
    };
    let instants = days.instants()?;
    let (cost, earned, mut unusable) = std::thread::scope(|threads| {
        let cost = threads.spawn(cost);
        let (events, unusable) = revenue_events(&facts);
        let earned = earned::earned(source, &state, &events, ask, instants);
        (cost.join().unwrap_or_else(|panic| resume_unwind(panic)), earned, unusable)
    });
    unusable.splice(0..0, state.unusable.iter().cloned());
    let (hedge, [usage, about]) = cost?;
    let earned = earned?;
    let list = days.costs(&usage, |money| money.list.pico())?;
    let contracted = days.costs(&usage, |money| money.contracted.pico())?;
    let usage = usage.plain;
    let mut rows: BTreeMap<Vec<KeyValue>, RoiRow> = BTreeMap::new();
    let currency = ask.hedge.currency;
    for row in &usage.rows {
        rows.entry(row.key.clone()).or_insert_with(|| RoiRow::empty(currency)).totals.merge(&row.totals);
    }
    for (key, amount) in list.parts {
        rows.entry(key).or_insert_with(|| RoiRow::empty(currency)).costs.list = Some(amount);
    }
    for (key, amount) in contracted.parts {
        rows.entry(key).or_insert_with(|| RoiRow::empty(currency)).costs.contracted = Some(amount);
    }
    for (label, row) in &hedge.cost.rows {
        let key = key_of(&hedge, label, &ask.hedge.by);
        rows.entry(key).or_insert_with(|| RoiRow::empty(currency)).lines.add_all(&row.lines)?;
    }
    for (key, value) in &earned.attributed.rows {
        let row = rows.entry(key.clone()).or_insert_with(|| RoiRow::empty(currency));
        row.value = row.value.plus(*value)?;
    }
    let costs = Costs { list: list.whole, contracted: contracted.whole };
    let coverage = coverage(&days, &about, &hedge, &earned)?;
    let tokens_by_month = tokens_by_month(&about.plain);
    let totals = usage.totals;
    Ok(RoiReport { hedge, rows, totals, costs, earned, tokens_by_month, coverage, unusable })
}

/// The key of a row of the hedge report.
fn key_of(hedge: &HedgeReport, label: &Label, by: &[GroupKey]) -> Vec<KeyValue> {
    match hedge.rows.get(label) {
        Some(row) => row.key.clone(),
        // A row without usage of its own is its owner's: the team that carries a commitment.
        None => by
            .iter()
            .map(|key| match key {
                GroupKey::Team => KeyValue::Text(label.to_string()),
                _ => KeyValue::Unallocated,
            })
            .collect(),
    }
}

/// A period, for questions about usage.
struct Days<'a> {
    state: &'a State,
    ask: &'a HedgeAsk,
    from: Date,
    until: Date,
}

/// Usage by key.
struct Rated {
    plain: UsageReport,
    /// The same with the day before each key, where amounts are in other currencies.
    by_day: Option<UsageReport>,
}

/// Amounts by key, and their sum.
struct Apportioned {
    parts: BTreeMap<Vec<KeyValue>, Money>,
    whole: Option<Money>,
}

impl Days<'_> {
    fn instants(&self) -> Result<(Timestamp, Timestamp), RoiError> {
        let instant = |day: Date| {
            let at = day.to_zoned(self.ask.zone.clone()).map_err(|_| CalendarError::OutOfRange)?;
            Ok::<_, RoiError>(Timestamp::from_micros(at.timestamp().as_microsecond()))
        };
        Ok((instant(self.from)?, instant(self.until)?))
    }

    fn query(&self, by: Vec<GroupKey>) -> Result<UsageQuery, RoiError> {
        let (from, to) = self.instants()?;
        let zone = self.ask.zone.clone();
        Ok(UsageQuery { from: Some(from), to: Some(to), zone, by, filter: Vec::new() })
    }

    /// Usage by two lists of keys, and by day as well where it takes exchange rates.
    fn rated(&self, source: &dyn HedgeSource, groupings: [Vec<GroupKey>; 2]) -> Result<[Rated; 2], RoiError> {
        let query = self.query(Vec::new())?;
        let [one, other] = source.ask_twice(&query, groupings.clone())?;
        let foreign = one.totals.money().iter().any(|money| money.currency != self.ask.currency);
        let [one_by_day, other_by_day] = if foreign {
            let by_day = groupings.map(|by| std::iter::once(GroupKey::Day).chain(by).collect());
            source.ask_twice(&query, by_day)?.map(Some)
        } else {
            [None, None]
        };
        Ok([Rated { plain: one, by_day: one_by_day }, Rated { plain: other, by_day: other_by_day }])
    }

    /// One meaning of cost by key, in the reporting currency, rounded once so that the parts sum to the
    /// whole.
    fn costs(
        &self,
        usage: &Rated,
        pick: impl Fn(&MoneyTotals) -> Option<i128>,
    ) -> Result<Apportioned, RoiError> {
        let exact = self.exact(usage, pick)?;
        let (parts, whole) = apportion(&exact, self.ask.currency)?;
        let whole = (!parts.is_empty()).then_some(whole);
        Ok(Apportioned { parts, whole })
    }

    fn exact(
        &self,
        usage: &Rated,
        pick: impl Fn(&MoneyTotals) -> Option<i128>,
    ) -> Result<BTreeMap<Vec<KeyValue>, Ratio>, RoiError> {
        let mut sums: BTreeMap<Vec<KeyValue>, Ratio> = BTreeMap::new();
        let found = usage.by_day.as_ref().unwrap_or(&usage.plain);
        for row in &found.rows {
            let (key, day) = match (&usage.by_day, row.key.split_first()) {
                (Some(_), Some((day, key))) => (key.to_vec(), day.text().and_then(|day| parse_day(day).ok())),
                _ => (row.key.clone(), None),
            };
            for money in row.totals.money() {
                let Some(pico) = pick(money) else { continue };
                let amount = Ratio::of(Money::from_pico(money.currency, pico));
                // What has no rate is named by the hedge report.
                let Some(amount) = self.convert(amount, money.currency, day)? else { continue };
                let sum = sums.entry(key.clone()).or_insert(Ratio::ZERO);
                *sum = sum.plus(amount)?;
            }
        }
        Ok(sums)
    }

    fn convert(&self, amount: Ratio, from: Currency, day: Option<Date>) -> Result<Option<Ratio>, RoiError> {
        let to = self.ask.currency;
        if from == to {
            return Ok(Some(amount));
        }
        let Some(day) = day else { return Ok(None) };
        let converted = self.state.intake.market.convert(amount, (from, to), day, None, self.ask.as_of);
        let near = converted.ok().map(|amount| amount.decimal_half_even(12)).transpose()?;
        Ok(near.map(Decimal::ratio))
    }
}

/// `about` is by team, source of counts and month.
fn coverage(
    days: &Days<'_>,
    about: &Rated,
    hedge: &HedgeReport,
    earned: &Earned,
) -> Result<Shares, RoiError> {
    let billed = days.exact(about, |money| money.billed.pico())?;
    let (mut tagged, mut cost) = (Ratio::ZERO, Ratio::ZERO);
    for (key, amount) in &billed {
        cost = cost.plus(*amount)?;
        if key.first().is_some_and(|team| *team != KeyValue::Unallocated) {
            tagged = tagged.plus(*amount)?;
        }
    }
    let (mut measured, mut counted) = (0_u128, 0_u128);
    for row in &about.plain.rows {
        let count = u128::from(tokens(&row.totals.usage).unwrap_or(0));
        counted = counted.saturating_add(count);
        // What another system's log says was not measured here.
        let unmeasured = [UsageSource::Estimate, UsageSource::Imported].map(UsageSource::name);
        if !row.key.get(1).and_then(KeyValue::text).is_some_and(|source| unmeasured.contains(&source)) {
            measured = measured.saturating_add(count);
        }
    }
    let total = earned.total.revenue;
    let attributed = total.checked_sub(earned.attributed.unattributed.revenue)?;
    let ratio = |part: Money, whole: Money| match whole.pico() > 0 {
        true => Ratio::of(part).over(Ratio::of(whole)).map(Some),
        false => Ok(None),
    };
    let totals = &about.plain.totals;
    let unpriced = hedge.rows.values().fold(0_u64, |sum, row| sum.saturating_add(row.unpriced));
    Ok(Shares {
        attributed: ratio(attributed, total)?,
        tagged: if cost.is_positive() { Some(tagged.over_near(cost)?) } else { None },
        measured: share(measured, counted)?,
        // Those without a rate too: their cost is missing just so.
        unpriced: share(unpriced.into(), totals.counted.into())?,
    })
}

fn tokens_by_month(about: &UsageReport) -> BTreeMap<Date, u64> {
    let mut months: BTreeMap<Date, u64> = BTreeMap::new();
    for row in &about.rows {
        let month = row.key.get(2).and_then(KeyValue::text);
        if let Some(first) = month.and_then(|month| parse_day(&format!("{month}-01")).ok()) {
            let sum = months.entry(first).or_insert(0);
            *sum = sum.saturating_add(tokens(&row.totals.usage).unwrap_or(0));
        }
    }
    months
}

#[cfg(test)]
mod tests;
