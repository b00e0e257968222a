//! The report that joins usage with the book: effective and hedged cost, month by month, by any rows.
//!
//! Invariants
//! - Rows + residual = book for every component, checked by the waterfall for each month and their sum.
//! - Usage comes from rollups by the day (by the hour where a commitment must be used in its hour), and
//!   from records where rollups are too coarse: a position that asks for a region, or for the order of
//!   requests. Both give the same figures.
//! - Balances (prepaid, commitments for a term) are followed from their first day, whatever the period.
//! - Usage that cannot be priced, converted or counted in hedge units is listed, never a zero.
//!
//! Not here: the rules (`policies::hedge::cost`), how it is shown (`bursar`).

use super::{HedgeSource, State, Unusable, state};
use crate::journal::read::ReadError;
use crate::query::{GroupKey, KeyValue, QueryError, ReadFrom, UsageQuery, key_of_record};
use crate::rollup::{MoneySum, Totals};
use crate::{RecordRange, StoredRecord};
use bursar_domain::{Currency, Label, Money, Timestamp, Usage};
use bursar_policies::exact::{Decimal, ExactError, Ratio};
use bursar_policies::hedge::calendar::{CalendarError, Window};
use bursar_policies::hedge::cost::{Book, Consumed, CostError, CostReport, LegResult, Use};
use bursar_policies::hedge::lifecycle::{Drawn, Status};
use bursar_policies::hedge::position::{
    AllocationRule, ContractClass, Facets, Group, Interval, Kind, Position,
};
use bursar_policies::hedge::profile::Unit;
use bursar_policies::hedge::risk::mark_to_market;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};

/// Decimals of a volume in hedge units.
const VOLUME_PLACES: u32 = 12;
/// Most usage that is taken record by record.
const RECORDS_MAX: usize = 2_000_000;
/// Usage without a team.
const UNALLOCATED: &str = "unallocated";

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
    /// Every cash contract at this part of its size, instead of its own.
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
    /// Requests without a complete price.
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
    /// Positions that ask for a token class: costs are not kept by class, so they cover nothing.
    pub by_class: Vec<Label>,
    /// What balances were taken of, until the end of the period.
    pub consumed: Consumed,
    /// Where usage was read.
    pub read_from: ReadFrom,
}

impl HedgeReport {
    /// Whether everything that happened is in the figures.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.cost.complete() && self.gaps.is_empty() && self.unusable.is_empty() && self.by_class.is_empty()
    }
}

/// Joins usage with the book.
pub fn report(source: &dyn HedgeSource, ask: &HedgeAsk) -> Result<HedgeReport, HedgeError> {
    let facts = source.finance_facts()?;
    let state = state(&facts);
    report_of(source, &state, ask)
}

pub(crate) fn report_of(
    source: &dyn HedgeSource,
    state: &State,
    ask: &HedgeAsk,
) -> Result<HedgeReport, HedgeError> {
    let tomorrow = ask.today.tomorrow().unwrap_or(ask.today);
    let until = ask.until.min(tomorrow);
    if until <= ask.from {
        return Err(HedgeError::NothingYet { from: ask.from, today: ask.today });
    }
    let positions: Vec<&Position> = state.intake.portfolio.in_force().map(|(position, _)| position).collect();
    let start = positions.iter().filter(|position| carries(position)).fold(ask.from, |start, position| {
        let window = position.terms().timing.effective;
        if window.until() > ask.from { start.min(window.from()) } else { start }
    });
    let mut join = Join::new(state, ask);
    let read_from = join.read(source, &positions, (start, until))?;
    let book = Book {
        portfolio: &state.intake.portfolio,
        market: &state.intake.market,
        profiles: &state.intake.profiles,
        unit: ask.unit,
        currency: ask.currency,
        today: ask.today,
        as_of: ask.as_of,
    };
    let (uses, rows, gaps) = join.finish();
    let mut consumed = Consumed::default();
    let mut cost = CostReport::empty(ask.currency, ask.unit);
    let mut months = Vec::new();
    for period in pieces(start, ask.from, until)? {
        let slice = uses_in(&uses, period);
        let before = period.from() < ask.from;
        let found = match ask.ratio {
            Some(ratio) if !before => {
                let found = book.scaled(period, &slice, &consumed, ratio.ratio())?;
                book.cost(period, &slice, &mut consumed)?;
                found
            }
            _ => book.cost(period, &slice, &mut consumed)?,
        };
        if !before {
            months.push((period, found.clone()));
            cost.merge(found)?;
        }
    }
    let positions = position_rows(state, ask, &cost, until)?;
    let by_class = state.intake.portfolio.in_force().filter(|(position, _)| asks_for_class(position));
    let by_class = by_class.map(|(position, _)| position.id().clone()).collect();
    Ok(HedgeReport {
        from: ask.from,
        until,
        cost,
        months,
        rows,
        positions,
        gaps,
        unusable: state.unusable.clone(),
        by_class,
        consumed,
        read_from,
    })
}

fn carries(position: &Position) -> bool {
    position.terms().kind.group() == Group::Pool || position.carries_over()
}

fn asks_for_class(position: &Position) -> bool {
    let held = position.terms().designation.as_ref();
    held.is_some_and(|held| {
        let classes = &held.selector.classes;
        !classes.is_empty() && !classes.contains(&ContractClass::Blended)
    })
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
fn uses_in(uses: &[Use], period: Window) -> Vec<Use> {
    let (from, until) = (midnight(period.from()), midnight(period.until()));
    let first = uses.partition_point(|used| used.at < from);
    let last = uses.partition_point(|used| used.at < until);
    uses.get(first..last).unwrap_or_default().to_vec()
}

/// Midnight of a civil day, as contracts count: days of the asked zone, told as if they were UTC.
fn midnight(day: Date) -> Timestamp {
    let at = day.to_zoned(TimeZone::UTC).map(|at| at.timestamp().as_microsecond());
    Timestamp::from_micros(at.unwrap_or(0))
}

/// The clock on the wall of `zone` at `at`, told as if it were UTC, and its day.
fn civil(at: Timestamp, zone: &TimeZone) -> Option<(Timestamp, Date)> {
    let zoned = jiff::Timestamp::from_microsecond(at.micros()).ok()?.to_zoned(zone.clone());
    let wall = zoned.datetime().to_zoned(TimeZone::UTC).ok()?.timestamp();
    Some((Timestamp::from_micros(wall.as_microsecond()), zoned.date()))
}

/// Whether the position needs every record, and not sums.
fn needs_records(position: &Position) -> bool {
    let held = position.terms().designation.as_ref();
    held.is_some_and(|held| held.allocation == AllocationRule::Fifo || !held.selector.regions.is_empty())
}

fn needs_hours(position: &Position) -> bool {
    position.terms().commitment.as_ref().is_some_and(|terms| terms.fulfilment == Interval::Hour)
}

/// Usage on its way to the waterfall.
struct Join<'a> {
    state: &'a State,
    ask: &'a HedgeAsk,
    uses: Vec<(Vec<KeyValue>, Use)>,
    rows: BTreeMap<Vec<KeyValue>, ReportRow>,
    gaps: BTreeMap<UsageGap, u64>,
}

/// One usage before it is in hedge units.
struct Piece<'a> {
    key: Vec<KeyValue>,
    at: Timestamp,
    day: Date,
    id: u128,
    facets: Facets,
    totals: &'a Totals,
}

impl<'a> Join<'a> {
    fn new(state: &'a State, ask: &'a HedgeAsk) -> Self {
        Self { state, ask, uses: Vec::new(), rows: BTreeMap::new(), gaps: BTreeMap::new() }
    }

    fn read(
        &mut self,
        source: &dyn HedgeSource,
        positions: &[&Position],
        (start, until): (Date, Date),
    ) -> Result<ReadFrom, HedgeError> {
        let instant = |day: Date| {
            let at = day.to_zoned(self.ask.zone.clone()).map_err(|_| CalendarError::OutOfRange)?;
            Ok::<_, HedgeError>(Timestamp::from_micros(at.timestamp().as_microsecond()))
        };
        let (from, to) = (Some(instant(start)?), Some(instant(until)?));
        if let Some(position) = positions.iter().find(|position| needs_records(position)) {
            let range = RecordRange { from, to, after_sequence: 0 };
            for stored in source.read_records(range) {
                self.record(&stored?)?;
                if self.uses.len() > RECORDS_MAX {
                    return Err(HedgeError::TooManyRecords(position.id().clone()));
                }
            }
            return Ok(ReadFrom::Records);
        }
        let hours = positions.iter().any(|position| needs_hours(position));
        let grain = if hours { GroupKey::Hour } else { GroupKey::Day };
        let mut by = vec![grain, GroupKey::Team, GroupKey::Provider, GroupKey::Model];
        by.extend(self.ask.by.iter().cloned());
        let query = UsageQuery { from, to, zone: self.ask.zone.clone(), by, filter: Vec::new() };
        let found = source.ask_usage(&query)?;
        for row in &found.rows {
            let [time, team, provider, model, key @ ..] = row.key.as_slice() else { continue };
            let KeyValue::Time { start, .. } = time else { continue };
            let Some((at, day)) = civil(*start, &self.ask.zone) else { continue };
            let facets = facets(team.text(), provider.text(), model.text(), None);
            self.add(Piece { key: key.to_vec(), at, day, id: 0, facets, totals: &row.totals })?;
        }
        Ok(found.read_from)
    }

    fn record(&mut self, stored: &StoredRecord) -> Result<(), HedgeError> {
        let record = &stored.record;
        let Some((at, day)) = civil(record.started_at, &self.ask.zone) else { return Ok(()) };
        let mut totals = Totals::default();
        totals.add_record(record, stored.counted);
        let text = |label: Option<&'_ Label>| label.map(ToString::to_string);
        let model = record.model_served.as_ref().or(record.model_requested.as_ref());
        let facets = facets(
            text(record.identity.team.as_ref()).as_deref(),
            Some(record.provider.as_str()),
            text(model).as_deref(),
            record.region.as_ref(),
        );
        let key = self.ask.by.iter().map(|key| key_of_record(key, record, &self.ask.zone)).collect();
        self.add(Piece { key, at, day, id: record.id.bits(), facets, totals: &totals })
    }

    fn add(&mut self, piece: Piece<'_>) -> Result<(), HedgeError> {
        let totals = piece.totals;
        let tokens = tokens(&totals.usage);
        let unpriced = totals.unpriced.saturating_add(totals.partly_priced);
        if piece.day >= self.ask.from {
            let row = self.rows.entry(piece.key.clone()).or_default();
            row.requests = row.requests.saturating_add(totals.requests);
            row.tokens = row.tokens.saturating_add(tokens.unwrap_or(0));
            row.unpriced = row.unpriced.saturating_add(unpriced);
            self.gap(UsageGap::Unpriced, unpriced);
        }
        let spot = self.spot(totals, piece.day)?;
        let volume = self.volume(&piece, tokens)?;
        if totals.counted > 0 {
            let Piece { key, at, id, facets, .. } = piece;
            self.uses.push((key, Use { at, id, facets, row: None, volume, spot }));
        }
        Ok(())
    }

    fn gap(&mut self, gap: UsageGap, requests: u64) {
        if requests > 0 {
            let sum = self.gaps.entry(gap).or_insert(0);
            *sum = sum.saturating_add(requests);
        }
    }

    /// The spot cost in the reporting currency.
    fn spot(&mut self, totals: &Totals, day: Date) -> Result<Money, HedgeError> {
        let mut sum = Money::zero(self.ask.currency);
        for money in totals.money() {
            let chosen: &MoneySum = match self.ask.spot {
                SpotCost::List => &money.list,
                SpotCost::Contracted => &money.contracted,
                SpotCost::Billed => &money.billed,
            };
            if chosen.overflowed() {
                self.gap(UsageGap::Overflow, chosen.terms());
                continue;
            }
            let Some(pico) = chosen.pico() else { continue };
            let amount = Ratio::of(Money::from_pico(money.currency, pico));
            let pair = (money.currency, self.ask.currency);
            match self.state.intake.market.convert(amount, pair, day, None, self.ask.as_of) {
                Ok(converted) => {
                    let exact = converted.decimal_half_even(VOLUME_PLACES)?;
                    let part = Money::from_pico(self.ask.currency, exact.pico());
                    sum = sum.checked_add(part).map_err(ExactError::Money)?;
                }
                Err(_) => {
                    let gap = UsageGap::NoRate { currency: money.currency, date: day };
                    let gap = self.first_of(gap);
                    self.gap(gap, chosen.terms());
                }
            }
        }
        Ok(sum)
    }

    /// One gap for each currency, with the first day.
    fn first_of(&self, gap: UsageGap) -> UsageGap {
        let UsageGap::NoRate { currency, .. } = gap else { return gap };
        let same =
            |other: &&UsageGap| matches!(other, UsageGap::NoRate { currency: c, .. } if *c == currency);
        self.gaps.keys().find(same).cloned().unwrap_or(gap)
    }

    /// Tokens in hedge units.
    fn volume(&mut self, piece: &Piece<'_>, tokens: Option<u64>) -> Result<Decimal, HedgeError> {
        let counted = piece.totals.counted;
        let Some(tokens) = tokens else {
            self.gap(UsageGap::Uncounted, counted);
            return Ok(Decimal::ZERO);
        };
        let mtok = Ratio::new(tokens.into(), 1_000_000)?;
        if self.ask.unit == Unit::Mtok || tokens == 0 {
            return Ok(mtok.decimal_half_even(VOLUME_PLACES)?);
        }
        let model = piece.facets.model.clone();
        let intake = &self.state.intake;
        let profile = model.as_ref().and_then(|model| intake.quality_of(model));
        let factor = profile.and_then(|profile| {
            intake.profiles.factor((Unit::Mtok, self.ask.unit), Some(profile), piece.day).ok()
        });
        match factor {
            Some(factor) => Ok(mtok.times(factor)?.decimal_half_even(VOLUME_PLACES)?),
            None => {
                self.gap(UsageGap::NoQuality { model }, counted);
                Ok(Decimal::ZERO)
            }
        }
    }

    /// Usage in order of time, each with the label of its row.
    fn finish(self) -> (Vec<Use>, BTreeMap<Label, ReportRow>, BTreeMap<UsageGap, u64>) {
        let by_team = self.ask.by == [GroupKey::Team];
        let keys: BTreeSet<Vec<KeyValue>> =
            self.uses.iter().map(|(key, _)| key.clone()).chain(self.rows.keys().cloned()).collect();
        let label_of = |(number, key): (usize, Vec<KeyValue>)| {
            let label = match key.as_slice() {
                [team] if by_team => team_label(team.text()),
                _ => Label::lossy(&format!("row {number:08}")).unwrap_or_else(|| Label::fixed("row")),
            };
            (key, label)
        };
        let labels: BTreeMap<Vec<KeyValue>, Label> = keys.into_iter().enumerate().map(label_of).collect();
        let label = |key: &Vec<KeyValue>| labels.get(key).cloned().unwrap_or_else(|| Label::fixed("row"));
        let mut uses: Vec<Use> =
            self.uses.into_iter().map(|(key, used)| Use { row: Some(label(&key)), ..used }).collect();
        uses.sort_by_key(|used| (used.at, used.id));
        let rows = self.rows.into_iter();
        let rows = rows.map(|(key, row)| (label(&key), ReportRow { key, ..row })).collect();
        (uses, rows, self.gaps)
    }
}

fn tokens(usage: &Usage) -> Option<u64> {
    match (usage.input_total(), usage.output_total()) {
        (None, None) => None,
        (input, output) => Some(input.unwrap_or(0).saturating_add(output.unwrap_or(0))),
    }
}

fn team_label(team: Option<&str>) -> Label {
    team.and_then(Label::lossy).unwrap_or_else(|| Label::fixed(UNALLOCATED))
}

fn facets(team: Option<&str>, provider: Option<&str>, model: Option<&str>, region: Option<&Label>) -> Facets {
    Facets {
        team: team_label(team),
        model: model.and_then(Label::lossy),
        provider: provider.and_then(Label::lossy),
        region: region.cloned(),
        class: None,
    }
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
    for (mine, more) in
        [(&mut sum.quantity, leg.quantity), (&mut sum.covered, leg.covered), (&mut sum.over, leg.over)]
    {
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
    for (team, share) in &leg.shares {
        let mine = sum.shares.entry(team.clone()).or_insert(Money::zero(share.currency()));
        *mine = mine.checked_add(*share)?;
    }
    Ok(())
}
