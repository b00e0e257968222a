//! From usage to what the waterfall takes: volumes in hedge units and spot cost, by day, team, provider,
//! model and whatever else positions ask for.
//!
//! Invariants
//! - Rollups and records give the same figures: records are added up by the same keys first, and every
//!   rounding is of such a sum. Only `fifo` takes records one by one.
//! - Usage is taken apart by token class only where a position asks for a class of it. Where its cost by
//!   class matters and nobody knows it, the usage stays whole and is listed, and no class of it is hedged.
//! - Usage that cannot be priced, converted or counted in hedge units is listed, never a zero.
//!
//! Not here: the months and the book (`report`), prices by class (`policies::price`).

use super::report::{HedgeAsk, HedgeError, ReportRow, SpotCost, UsageGap, midnight};
use super::{HedgeSource, State};
use crate::query::{
    GrainRow, GroupKey, KeyValue, QueryError, ROWS_MAX, ReadFrom, UsageQuery, bucket, key_of_record,
};
use crate::rollup::{HOUR_MICROS, MoneySum, Totals};
use crate::{RecordRange, StoredRecord};
use bursar_domain::{Currency, Label, Money, Timestamp, Usage, UsageRecord};
use bursar_policies::exact::{Decimal, ExactError, Ratio};
use bursar_policies::hedge::calendar::CalendarError;
use bursar_policies::hedge::cost::Use;
use bursar_policies::hedge::lifecycle::History;
use bursar_policies::hedge::position::{
    AllocationRule, ContractClass, Facets, Group, Interval, Position, Selector,
};
use bursar_policies::hedge::profile::Unit;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Decimals of a volume in hedge units.
const VOLUME_PLACES: u32 = 12;
/// Most usage that is taken record by record.
pub(super) const RECORDS_MAX: usize = 2_000_000;
/// Usage without a team.
const UNALLOCATED: &str = "unallocated";

/// How finely positions look at usage.
#[derive(Debug, Default)]
struct Needs {
    /// By hours instead of days: the usage of which positions count hours.
    hours: Vec<Selector>,
    /// One by one: the position that asks for the order of requests.
    order: Option<Label>,
    /// By region.
    regions: bool,
    /// By token class: the usage of which positions ask for a class.
    classes: Vec<Selector>,
    /// With the cost of each class: something is delivered, so that spot cost is displaced unit by unit.
    class_costs: bool,
}

impl Needs {
    /// What positions ask for that have a part in the days from `start` to `until`.
    fn of(positions: &[(&Position, &History)], (start, until): (Date, Date)) -> Self {
        let mut needs = Self::default();
        let (mut units, mut class_pool) = (false, false);
        for (position, history) in positions {
            let (first, last) = span(position, history);
            if first >= until || last < start {
                continue;
            }
            let terms = position.terms();
            let group = terms.kind.group();
            units |= group == Group::Units;
            let held = terms.designation.as_ref();
            if terms.commitment.as_ref().is_some_and(|terms| terms.fulfilment == Interval::Hour) {
                // Before its designation a position looks at everything.
                let designated = held.filter(|held| held.designated_at <= start.max(first));
                let selector = designated.map(|held| held.selector.clone()).unwrap_or_default();
                needs.hours.push(Selector { classes: BTreeSet::new(), ..selector });
            }
            let Some(held) = held else { continue };
            needs.regions |= !held.selector.regions.is_empty();
            if held.allocation == AllocationRule::Fifo && needs.order.is_none() {
                needs.order = Some(position.id().clone());
            }
            if asks_for_class(&held.selector) {
                needs.classes.push(Selector { classes: BTreeSet::new(), ..held.selector.clone() });
                class_pool |= group == Group::Pool;
            }
        }
        needs.class_costs = !needs.classes.is_empty() && (units || class_pool);
        needs
    }

    const fn records(&self) -> bool {
        self.order.is_some() || self.regions || self.class_costs
    }

    fn hourly(&self, facets: &Facets) -> bool {
        self.hours.iter().any(|selector| selector.covers(facets))
    }

    fn by_class(&self, facets: &Facets) -> bool {
        self.classes.iter().any(|selector| selector.covers(facets))
    }
}

/// The days on which a position may have a part in cost: its window, its trade, its premium, its events.
fn span(position: &Position, history: &History) -> (Date, Date) {
    let terms = position.terms();
    let window = terms.timing.effective;
    let premium = terms.economics.premium.map(|premium| premium.pay_date);
    let events = history.events().map(|event| event.date);
    let days = [Some(window.from()), Some(window.last()), Some(terms.timing.trade_date), premium];
    let days = days.into_iter().flatten().chain(events);
    days.fold((window.from(), window.last()), |(first, last), day| (first.min(day), last.max(day)))
}

fn asks_for_class(selector: &Selector) -> bool {
    !selector.classes.is_empty() && !selector.classes.contains(&ContractClass::Blended)
}

/// Tokens by contract class, of the classes that are known and not zero.
fn tokens_by_class(usage: &Usage) -> BTreeMap<ContractClass, u64> {
    let mut tokens: BTreeMap<ContractClass, u64> = BTreeMap::new();
    for (class, count) in usage.tokens().filter(|(_, count)| *count > 0) {
        if let Some(class) = ContractClass::of(class) {
            let sum = tokens.entry(class).or_default();
            *sum = sum.saturating_add(count);
        }
    }
    tokens
}

fn tokens(usage: &Usage) -> Option<u64> {
    match (usage.input_total(), usage.output_total()) {
        (None, None) => None,
        (input, output) => Some(input.unwrap_or(0).saturating_add(output.unwrap_or(0))),
    }
}

/// Spot cost by currency and class; what is charged per call has no class.
type ClassMoney = BTreeMap<(Currency, Option<ContractClass>), MoneySum>;

/// How a piece of usage is handed to the waterfall.
enum Split<'a> {
    /// As it is.
    Whole,
    /// Its volumes by class. Where nothing is delivered, no cost has to be told apart.
    Volumes,
    /// Volumes and cost by class.
    Costs(&'a ClassMoney),
    /// As it is, because nobody knows its cost by class.
    Unknown,
}

/// Usage of one key before it is in hedge units.
struct Piece<'a> {
    key: Vec<KeyValue>,
    at: Timestamp,
    day: Date,
    id: u128,
    facets: Facets,
    totals: &'a Totals,
    split: Split<'a>,
}

/// How a record can be taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SplitOf {
    Whole,
    Volumes,
    Costs,
    Unknown,
}

/// What records are added up by.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct GroupOf {
    key: Vec<KeyValue>,
    at: Timestamp,
    day: Date,
    facets: Facets,
    split: SplitOf,
}

#[derive(Default)]
struct Grouped {
    totals: Totals,
    money: ClassMoney,
}

/// Usage on its way to the waterfall.
pub(super) struct Join<'a> {
    source: &'a dyn HedgeSource,
    state: &'a State,
    ask: &'a HedgeAsk,
    needs: Needs,
    uses: Vec<(Vec<KeyValue>, Use)>,
    rows: BTreeMap<Vec<KeyValue>, ReportRow>,
    gaps: BTreeMap<UsageGap, u64>,
}

/// Usage in order of time, the rows of the report, and what is missing.
pub(super) struct Joined {
    pub(super) uses: Vec<Use>,
    pub(super) rows: BTreeMap<Label, ReportRow>,
    pub(super) gaps: BTreeMap<UsageGap, u64>,
    pub(super) read_from: ReadFrom,
}

/// Reads the usage of the days from `start` to `until`.
pub(super) fn join(
    source: &dyn HedgeSource,
    state: &State,
    ask: &HedgeAsk,
    days: (Date, Date),
) -> Result<Joined, HedgeError> {
    let positions: Vec<(&Position, &History)> = state.intake.portfolio.in_force().collect();
    let needs = Needs::of(&positions, days);
    let (uses, rows, gaps) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    let mut join = Join { source, state, ask, needs, uses, rows, gaps };
    let read_from = join.read(days)?;
    Ok(join.finish(read_from))
}

impl Join<'_> {
    fn read(&mut self, (start, until): (Date, Date)) -> Result<ReadFrom, HedgeError> {
        let instant = |day: Date| {
            let at = day.to_zoned(self.ask.zone.clone()).map_err(|_| CalendarError::OutOfRange)?;
            Ok::<_, HedgeError>(Timestamp::from_micros(at.timestamp().as_microsecond()))
        };
        let (from, to) = (Some(instant(start)?), Some(instant(until)?));
        if self.needs.records() {
            let range = RecordRange { from, to, after_sequence: 0 };
            self.records(range)?;
            return Ok(ReadFrom::Records);
        }
        let mut by = vec![GroupKey::Team, GroupKey::Provider, GroupKey::Model];
        by.extend(self.ask.by.iter().cloned());
        let query = UsageQuery { from, to, zone: self.ask.zone.clone(), by, filter: Vec::new() };
        // A row of an hour is of that hour; days and months are made of days.
        let by_hour = self.ask.by.contains(&GroupKey::Hour);
        let hourly =
            |key: &[KeyValue]| by_hour || facets_of_key(key).is_some_and(|facets| self.needs.hourly(&facets));
        let (rows, read_from) = self.source.ask_grains(&query, &hourly)?;
        for GrainRow { start, key, totals } in &rows {
            let Some(facets) = facets_of_key(key) else { continue };
            let Some((at, day)) = civil(*start, &self.ask.zone) else { continue };
            let split = if self.needs.by_class(&facets) { Split::Volumes } else { Split::Whole };
            let mut key = key.get(FACET_KEYS..).unwrap_or_default().to_vec();
            for (slot, by) in key.iter_mut().zip(&self.ask.by).filter(|(_, by)| by.is_time()) {
                *slot = bucket(by, *start, &self.ask.zone);
            }
            self.add(Piece { key, at, day, id: 0, facets, totals, split })?;
        }
        Ok(read_from)
    }

    /// Adds records up by what positions and rows look at, or takes them one by one where their order
    /// matters.
    fn records(&mut self, range: RecordRange) -> Result<(), HedgeError> {
        let mut groups: BTreeMap<GroupOf, Grouped> = BTreeMap::new();
        for stored in self.source.read_records(range) {
            let StoredRecord { record, counted, .. } = stored?;
            let Some((wall, day)) = civil(record.started_at, &self.ask.zone) else { continue };
            let mut grouped = Grouped::default();
            let facets = self.facets_of(&record);
            let at = match &self.needs.order {
                Some(_) => wall,
                None if self.needs.hourly(&facets) => hour_of(wall),
                None => midnight(day),
            };
            let split = self.split_of(&facets, &record, counted, &mut grouped.money);
            let key = self.ask.by.iter().map(|key| key_of_record(key, &record, &self.ask.zone)).collect();
            let group = GroupOf { key, at, day, facets, split };
            if let Some(position) = &self.needs.order {
                if self.uses.len() > RECORDS_MAX {
                    return Err(HedgeError::TooManyRecords(position.clone()));
                }
                grouped.totals.add_record(&record, counted);
                self.group(group, record.id.bits(), &grouped)?;
                continue;
            }
            if groups.len() >= ROWS_MAX && !groups.contains_key(&group) {
                return Err(QueryError::TooManyRows.into());
            }
            let sum = groups.entry(group).or_default();
            sum.totals.add_record(&record, counted);
            for (key, money) in grouped.money {
                sum.money.entry(key).or_default().merge(&money);
            }
        }
        groups.into_iter().try_for_each(|(group, grouped)| self.group(group, 0, &grouped))
    }

    fn group(&mut self, group: GroupOf, id: u128, grouped: &Grouped) -> Result<(), HedgeError> {
        let GroupOf { key, at, day, facets, split } = group;
        let split = match split {
            SplitOf::Whole => Split::Whole,
            SplitOf::Volumes => Split::Volumes,
            SplitOf::Costs => Split::Costs(&grouped.money),
            SplitOf::Unknown => Split::Unknown,
        };
        self.add(Piece { key, at, day, id, facets, totals: &grouped.totals, split })
    }

    fn facets_of(&self, record: &UsageRecord) -> Facets {
        let model = record.model_served.as_ref().or(record.model_requested.as_ref());
        let team = record.identity.team.as_ref().map(Label::as_str);
        let region = record.region.as_ref().filter(|_| self.needs.regions);
        facets(team, Some(record.provider.as_str()), model.map(Label::as_str), region)
    }

    /// How a record can be taken apart; its cost by class goes into `money`.
    fn split_of(
        &self,
        facets: &Facets,
        record: &UsageRecord,
        counted: bool,
        money: &mut ClassMoney,
    ) -> SplitOf {
        if !counted || !self.needs.by_class(facets) {
            return SplitOf::Whole;
        }
        let Some(cost) = record.cost.as_ref().filter(|_| self.needs.class_costs) else {
            return SplitOf::Volumes;
        };
        let spot = |list: Option<i128>, contracted: Option<i128>, billed: Option<i128>| match self.ask.spot {
            SpotCost::List => list,
            SpotCost::Contracted => contracted,
            SpotCost::Billed => billed,
        };
        let Some(whole) = spot(cost.list_pico, cost.contracted_pico, cost.billed_pico) else {
            return SplitOf::Volumes;
        };
        let mut add = |class: Option<ContractClass>, pico: i128| {
            money.entry((cost.currency, class)).or_default().add(pico);
        };
        let mut classes = tokens_by_class(&record.usage).into_keys();
        if let (Some(only), None) = (classes.next(), classes.next()) {
            add(Some(only), whole);
            return SplitOf::Costs;
        }
        let Some(costs) = self.source.class_costs(record).filter(|costs| costs.whole == *cost) else {
            return SplitOf::Unknown;
        };
        for (class, part) in &costs.classes {
            if let Some(pico) = spot(part.list, Some(part.contracted), Some(part.contracted)) {
                add(ContractClass::of(*class), pico);
            }
        }
        if let Some(fees) = spot(costs.fees.list, Some(costs.fees.contracted), Some(costs.fees.contracted)) {
            add(None, fees);
        }
        SplitOf::Costs
    }

    fn add(&mut self, piece: Piece<'_>) -> Result<(), HedgeError> {
        let Piece { key, at, day, id, facets, totals, split } = piece;
        let tokens = tokens(&totals.usage);
        let unpriced = totals.unpriced.saturating_add(totals.partly_priced);
        if day >= self.ask.from {
            if !self.rows.contains_key(&key) {
                self.rows.insert(key.clone(), ReportRow::default());
            }
            if let Some(row) = self.rows.get_mut(&key) {
                row.requests = row.requests.saturating_add(totals.requests);
                row.tokens = row.tokens.saturating_add(tokens.unwrap_or(0));
                row.unpriced = row.unpriced.saturating_add(unpriced);
            }
            self.gap(UsageGap::Unpriced, unpriced);
            if matches!(split, Split::Unknown) {
                self.gap(UsageGap::NoClassCost, totals.counted);
            }
        }
        let (spot, missing) = self.spot_of(totals, day)?;
        if let Some(row) = self.rows.get_mut(&key).filter(|_| day >= self.ask.from) {
            row.unpriced = row.unpriced.saturating_add(missing);
        }
        let factor = self.factor(&facets, day, totals.counted, tokens);
        if totals.counted == 0 {
            return Ok(());
        }
        let by_class = match split {
            Split::Volumes | Split::Costs(_) => tokens_by_class(&totals.usage),
            Split::Whole | Split::Unknown => BTreeMap::new(),
        };
        let whole = |volume| Use { at, id, facets: facets.clone(), row: None, volume, spot };
        if by_class.is_empty() {
            let volume = volume(tokens.unwrap_or(0), factor)?;
            self.uses.push((key, whole(volume)));
            return Ok(());
        }
        let mut left = spot;
        for (class, tokens) in by_class {
            let facets = Facets { class: Some(class), ..facets.clone() };
            let part = match split {
                Split::Costs(money) => self.class_spot(money, class, day)?,
                // Nothing is displaced: only the sum of the row counts.
                _ => left,
            };
            left = left.checked_sub(part).map_err(ExactError::Money)?;
            let volume = volume(tokens, factor)?;
            self.uses.push((key.clone(), Use { at, id, facets, row: None, volume, spot: part }));
        }
        if left.pico() != 0 {
            self.uses.push((key, Use { spot: left, ..whole(Decimal::ZERO) }));
        }
        Ok(())
    }

    fn gap(&mut self, gap: UsageGap, requests: u64) {
        if requests > 0 {
            let sum = self.gaps.entry(gap).or_insert(0);
            *sum = sum.saturating_add(requests);
        }
    }

    /// The spot cost in the reporting currency, and of how many requests it is not; those are listed.
    fn spot_of(&mut self, totals: &Totals, day: Date) -> Result<(Money, u64), HedgeError> {
        let mut sum = Money::zero(self.ask.currency);
        let mut missing = 0_u64;
        for money in totals.money() {
            let chosen = match self.ask.spot {
                SpotCost::List => &money.list,
                SpotCost::Contracted => &money.contracted,
                SpotCost::Billed => &money.billed,
            };
            if chosen.overflowed() {
                self.gap(UsageGap::Overflow, chosen.terms());
                missing = missing.saturating_add(chosen.terms());
                continue;
            }
            let Some(pico) = chosen.pico() else { continue };
            match self.converted(money.currency, pico, day)? {
                Some(part) => sum = sum.checked_add(part).map_err(ExactError::Money)?,
                None => {
                    let gap = self.first_of(UsageGap::NoRate { currency: money.currency, date: day });
                    self.gap(gap, chosen.terms());
                    missing = missing.saturating_add(chosen.terms());
                }
            }
        }
        Ok((sum, missing))
    }

    /// The spot cost of one class; what has no rate is listed with the whole already.
    fn class_spot(&self, money: &ClassMoney, class: ContractClass, day: Date) -> Result<Money, HedgeError> {
        let mut sum = Money::zero(self.ask.currency);
        for ((currency, of), amount) in money {
            let Some(pico) = amount.pico().filter(|_| *of == Some(class)) else { continue };
            if let Some(part) = self.converted(*currency, pico, day)? {
                sum = sum.checked_add(part).map_err(ExactError::Money)?;
            }
        }
        Ok(sum)
    }

    /// An amount in the reporting currency at the rate of its day; `None` without a rate.
    fn converted(&self, from: Currency, pico: i128, day: Date) -> Result<Option<Money>, HedgeError> {
        let to = self.ask.currency;
        if from == to {
            return Ok(Some(Money::from_pico(to, pico)));
        }
        let exact = Ratio::of(Money::from_pico(from, pico));
        match self.state.intake.market.convert(exact, (from, to), day, None, self.ask.as_of) {
            Ok(converted) => {
                let exact = converted.decimal_half_even(VOLUME_PLACES)?;
                Ok(Some(Money::from_pico(to, exact.pico())))
            }
            Err(_) => Ok(None),
        }
    }

    /// One gap for each currency, with the first day.
    fn first_of(&self, gap: UsageGap) -> UsageGap {
        let UsageGap::NoRate { currency, .. } = gap else { return gap };
        let same =
            |other: &&UsageGap| matches!(other, UsageGap::NoRate { currency: c, .. } if *c == currency);
        self.gaps.keys().find(same).cloned().unwrap_or(gap)
    }

    /// Hedge units per million tokens; `None` for usage that has no volume, which is listed.
    fn factor(&mut self, facets: &Facets, day: Date, counted: u64, tokens: Option<u64>) -> Option<Ratio> {
        let Some(tokens) = tokens else {
            self.gap(UsageGap::Uncounted, counted);
            return None;
        };
        if self.ask.unit == Unit::Mtok || tokens == 0 {
            return Some(Ratio::ONE);
        }
        let intake = &self.state.intake;
        let profile = facets.model.as_ref().and_then(|model| intake.quality_of(model));
        let factor = profile
            .and_then(|profile| intake.profiles.factor((Unit::Mtok, self.ask.unit), Some(profile), day).ok());
        if factor.is_none() {
            self.gap(UsageGap::NoQuality { model: facets.model.clone() }, counted);
        }
        factor
    }

    fn finish(self, read_from: ReadFrom) -> Joined {
        let by_team = self.ask.by == [GroupKey::Team];
        let keys: BTreeSet<&Vec<KeyValue>> =
            self.uses.iter().map(|(key, _)| key).chain(self.rows.keys()).collect();
        let label_of = |(number, key): (usize, &Vec<KeyValue>)| {
            let label = match key.as_slice() {
                [team] if by_team => team_label(team.text()),
                _ => Label::lossy(&format!("row {number:08}")).unwrap_or_else(|| Label::fixed("row")),
            };
            (key.clone(), label)
        };
        let labels: HashMap<Vec<KeyValue>, Label> = keys.into_iter().enumerate().map(label_of).collect();
        let label = |key: &Vec<KeyValue>| labels.get(key).cloned().unwrap_or_else(|| Label::fixed("row"));
        let mut uses: Vec<Use> =
            self.uses.into_iter().map(|(key, used)| Use { row: Some(label(&key)), ..used }).collect();
        uses.sort_by_key(|used| (used.at, used.id));
        let rows = self.rows.into_iter();
        let rows = rows.map(|(key, row)| (label(&key), ReportRow { key, ..row })).collect();
        Joined { uses, rows, gaps: self.gaps, read_from }
    }
}

/// Tokens in hedge units.
fn volume(tokens: u64, factor: Option<Ratio>) -> Result<Decimal, ExactError> {
    match factor {
        Some(factor) => Ratio::new(tokens.into(), 1_000_000)?.times(factor)?.decimal_half_even(VOLUME_PLACES),
        None => Ok(Decimal::ZERO),
    }
}

/// The clock on the wall of `zone` at `at`, told as if it were UTC, and its day.
fn civil(at: Timestamp, zone: &TimeZone) -> Option<(Timestamp, Date)> {
    let zoned = jiff::Timestamp::from_microsecond(at.micros()).ok()?.to_zoned(zone.clone());
    let wall = zoned.datetime().to_zoned(TimeZone::UTC).ok()?.timestamp();
    Some((Timestamp::from_micros(wall.as_microsecond()), zoned.date()))
}

fn hour_of(wall: Timestamp) -> Timestamp {
    let into = wall.micros().rem_euclid(HOUR_MICROS);
    Timestamp::from_micros(wall.micros().saturating_sub(into))
}

pub(crate) fn team_label(team: Option<&str>) -> Label {
    team.and_then(Label::lossy).unwrap_or_else(|| Label::fixed(UNALLOCATED))
}

/// Keys of a question that make facets; those of the report's rows follow.
const FACET_KEYS: usize = 3;

fn facets_of_key(key: &[KeyValue]) -> Option<Facets> {
    let [team, provider, model, ..] = key else { return None };
    Some(facets(team.text(), provider.text(), model.text(), None))
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
