//! What was earned in a period, and by which rows: events converted, matched and shared out by a model.
//!
//! Invariants
//! - Attributed + unattributed = received, for revenue and for savings, or there is no answer.
//! - What is taken back is taken from whom it was given to, whenever that was.
//! - Values that are learned from journeys (`shapley`, `markov`) are learned from the calendar month of
//!   the event, so an event has the same credits in every report.
//! - An event without an exchange rate is named, never a zero.
//!
//! Not here: the touches (`touches`), the models (`policies::attribution`), costs (`roi`).

use super::touches::{Found, Search, find};
use super::{RoiAsk, RoiError};
use crate::RecordRange;
use crate::hedge::{HedgeSource, State};
use crate::query::{KeyValue, bucket};
use bursar_domain::{Currency, Label, Money, Timestamp};
use bursar_policies::attribution::{
    EventKey, Given, Journey, Kind, Level, MatchKeys, ModelName, Parts, Revenue, Rule, ValueClass,
    coalition_values, credit, in_currency, removal_effects_of, shapley,
};
use bursar_policies::exact::{ExactError, Ratio, integer_weights};
use bursar_policies::hedge::calendar::Month;
use foldhash::{HashMap, HashMapExt as _, HashSet};
use jiff::civil::Date;
use std::collections::{BTreeMap, BTreeSet};

/// Most touches that the events of a report may look at, all together.
pub(super) const LOOKED_AT_MAX: u64 = 1_000_000_000;
/// Most workloads whose removal is tried.
const REMOVALS_MAX: usize = 64;
/// Most steps of all journeys that a model learns from.
const STEPS_MAX: usize = 4_000_000;

/// Revenue and savings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// Revenue, less refunds.
    pub revenue: Money,
    /// Savings.
    pub savings: Money,
}

impl Value {
    pub(super) const fn zero(currency: Currency) -> Self {
        Self { revenue: Money::zero(currency), savings: Money::zero(currency) }
    }

    fn add(&mut self, class: ValueClass, amount: Money) -> Result<(), ExactError> {
        let slot = match class {
            ValueClass::Revenue => &mut self.revenue,
            ValueClass::Savings => &mut self.savings,
        };
        *slot = slot.checked_add(amount)?;
        Ok(())
    }

    pub(super) fn plus(self, other: Self) -> Result<Self, ExactError> {
        Ok(Self {
            revenue: self.revenue.checked_add(other.revenue)?,
            savings: self.savings.checked_add(other.savings)?,
        })
    }
}

/// What one model makes of the events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributed {
    /// The model.
    pub model: ModelName,
    /// By row.
    pub rows: BTreeMap<Vec<KeyValue>, Value>,
    /// Nobody's.
    pub unattributed: Value,
}

/// Events in one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// How many.
    pub events: u64,
    /// Their amounts, refunds taken off, in their own currency.
    pub amount: Value,
    /// The same in the reporting currency; what has no rate is not in it.
    pub converted: Value,
}

/// Events without an exchange rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoRate {
    /// Their currency.
    pub currency: Currency,
    /// The first day.
    pub date: Date,
    /// How many.
    pub events: u64,
}

/// What was earned in a period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earned {
    /// Whether the ledger knows of any event at all until the end of the period.
    pub known: bool,
    /// Events of the period.
    pub events: u64,
    /// Of them, those that gave something, by how they were matched.
    pub by_level: BTreeMap<Level, u64>,
    /// By currency.
    pub received: BTreeMap<Currency, Received>,
    /// All of it in the reporting currency.
    pub total: Value,
    /// The same by month.
    pub months: BTreeMap<Month, Value>,
    /// What refunds make different at the rate of their own day.
    pub fx_difference: Money,
    /// Refunds whose own day has no rate: they have no difference.
    pub fx_unknown: u64,
    /// Events that are not in the figures.
    pub no_rate: Vec<NoRate>,
    /// By the model that was asked for.
    pub attributed: Attributed,
    /// By every model, where that was asked; why one cannot be computed.
    pub compared: Vec<(ModelName, Result<Attributed, String>)>,
}

/// An event that gave something, with what others took from it.
struct Original<'a> {
    /// Its place among all events.
    place: usize,
    revenue: &'a Revenue,
    class: ValueClass,
    rate: Option<Ratio>,
    inside: bool,
    /// Part of the figures, and not only of what a model learns.
    booked: bool,
    /// By place.
    taken: Vec<(usize, &'a Revenue)>,
}

struct Events<'a> {
    state: &'a State,
    ask: &'a RoiAsk,
    from: Timestamp,
    until: Timestamp,
    rates: HashMap<(Currency, Date), Option<Ratio>>,
}

impl Events<'_> {
    fn inside(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.until
    }

    fn day(&self, at: Timestamp) -> Date {
        let at = jiff::Timestamp::from_microsecond(at.micros()).unwrap_or_default();
        at.to_zoned(self.ask.hedge.zone.clone()).date()
    }

    fn rate(&mut self, currency: Currency, day: Date) -> Option<Ratio> {
        let (market, hedge) = (&self.state.intake.market, &self.ask.hedge);
        *self.rates.entry((currency, day)).or_insert_with(|| {
            market.convert(Ratio::ONE, (currency, hedge.currency), day, None, hedge.as_of).ok()
        })
    }
}

/// Events that others refer to, with their places.
type Referred<'a> = HashMap<EventKey, (usize, &'a Revenue)>;

fn referred(all: &[(u64, Revenue)]) -> Referred<'_> {
    let keys: HashSet<EventKey> = all.iter().filter_map(|(_, revenue)| revenue.refers_to()).collect();
    let mut found = HashMap::new();
    for (place, (_, revenue)) in all.iter().enumerate() {
        let key = revenue.key();
        if keys.contains(&key) {
            found.insert(key, (place, revenue));
        }
    }
    found
}

fn class_of(revenue: &Revenue, referred: &Referred<'_>) -> ValueClass {
    let about = revenue.refers_to().and_then(|of| referred.get(&of).copied());
    let kind = about.map_or(revenue.event.kind, |(_, about)| about.event.kind);
    if kind == Kind::Saving { ValueClass::Savings } else { ValueClass::Revenue }
}

fn learns(model: ModelName) -> bool {
    matches!(model, ModelName::Shapley | ModelName::Markov)
}

/// Shares out what was earned from `from` until `until`.
pub(super) fn earned(
    source: &dyn HedgeSource,
    state: &State,
    all: &[(u64, Revenue)],
    ask: &RoiAsk,
    (from, until): (Timestamp, Timestamp),
) -> Result<Earned, RoiError> {
    let currency = ask.hedge.currency;
    let mut events = Events { state, ask, from, until, rates: HashMap::new() };
    let referred = referred(all);
    let originals = originals(&mut events, all, &referred);
    let mut found = Earned {
        known: all.iter().any(|(_, revenue)| revenue.event.at < until),
        events: 0,
        by_level: BTreeMap::new(),
        received: BTreeMap::new(),
        total: Value::zero(currency),
        months: BTreeMap::new(),
        fx_difference: Money::zero(currency),
        fx_unknown: 0,
        no_rate: Vec::new(),
        attributed: empty(ask.model, currency),
        compared: Vec::new(),
    };
    let keys: Vec<(Timestamp, &MatchKeys)> =
        originals.iter().map(|original| (original.revenue.event.at, &original.revenue.keys)).collect();
    let search = Search { by: &ask.hedge.by, look_back_micros: ask.look_back_micros };
    let markov = ask.compare || ask.model == ModelName::Markov;
    let idle = (markov && !originals.is_empty()).then(|| learning_range(&events, &originals));
    let touches = find(source, &keys, &search, idle)?;
    let windows = (0_usize..).zip(&originals).filter_map(|(number, original)| {
        touches.window(number, original.revenue.event.at, ask.look_back_micros)
    });
    let looked_at = windows.fold(0_u64, |sum, window| sum.saturating_add(window.len() as u64));
    if looked_at > LOOKED_AT_MAX {
        return Err(RoiError::TooMuchToLookAt);
    }
    let inside = originals.iter().enumerate().filter(|(_, original)| original.inside);
    for (number, _) in inside {
        let count = found.by_level.entry(touches.level(number)).or_insert(0);
        *count = count.saturating_add(1);
    }
    let model = Shared { events: &events, originals: &originals, touches: &touches };
    found.attributed = model.share(ask.model)?.map_err(RoiError::Model)?;
    if ask.compare {
        for other in ModelName::ALL {
            found.compared.push((*other, model.share(*other)?));
        }
    }
    receive(&mut events, all, &originals, &referred, &mut found)?;
    balanced(&found)?;
    Ok(found)
}

fn empty(model: ModelName, currency: Currency) -> Attributed {
    Attributed { model, rows: BTreeMap::new(), unattributed: Value::zero(currency) }
}

/// The events whose credits the period needs: its own, those that it takes back from, and for models
/// that learn, those of the same months.
fn originals<'a>(
    events: &mut Events<'_>,
    all: &'a [(u64, Revenue)],
    referred: &Referred<'a>,
) -> Vec<Original<'a>> {
    let mut taken: HashMap<usize, Vec<(usize, &'a Revenue)>> = HashMap::new();
    let mut needed = vec![false; all.len()];
    let mut need = |place: usize| {
        if let Some(needed) = needed.get_mut(place) {
            *needed = true;
        }
    };
    for (place, (_, revenue)) in all.iter().enumerate() {
        if revenue.event.at >= events.until {
            continue;
        }
        let inside = events.inside(revenue.event.at);
        match revenue.refers_to().filter(|_| revenue.takes_back()) {
            Some(of) => {
                let Some((of, _)) = referred.get(&of) else { continue };
                if inside {
                    need(*of);
                }
                taken.entry(*of).or_default().push((place, revenue));
            }
            None if inside => need(place),
            None => {}
        }
    }
    let mut months: BTreeSet<Month> = BTreeSet::new();
    if events.ask.compare || learns(events.ask.model) {
        let wanted = all.iter().zip(&needed).filter(|(_, needed)| **needed);
        months.extend(wanted.map(|((_, revenue), _)| Month::of(events.day(revenue.event.at))));
    }
    let mut found = Vec::new();
    for ((place, (_, revenue)), booked) in all.iter().enumerate().zip(needed) {
        if revenue.takes_back() {
            continue;
        }
        let at = revenue.event.at;
        let day = events.day(at);
        let learned = at < events.until && months.contains(&Month::of(day));
        if !booked && !learned {
            continue;
        }
        let mut taken = taken.remove(&place).unwrap_or_default();
        taken.sort_by_cached_key(|(_, taking)| (taking.event.at, taking.key()));
        let rate = events.rate(revenue.event.amount.currency(), day);
        let (class, inside) = (class_of(revenue, referred), events.inside(at));
        found.push(Original { place, revenue, class, rate, inside, booked, taken });
    }
    found
}

/// From the first day of the first month that is learned from.
fn learning_range(events: &Events<'_>, originals: &[Original<'_>]) -> RecordRange {
    let first = originals.iter().map(|original| original.revenue.event.at).min().unwrap_or(events.from);
    let month = Month::of(events.day(first)).first().to_zoned(events.ask.hedge.zone.clone());
    let from = month.map_or(first.micros(), |start| start.timestamp().as_microsecond());
    RecordRange { from: Some(Timestamp::from_micros(from)), to: Some(events.until), after_sequence: 0 }
}

/// Everything that a model needs.
struct Shared<'a> {
    events: &'a Events<'a>,
    originals: &'a [Original<'a>],
    touches: &'a Found,
}

impl Shared<'_> {
    /// Credits by one model, or why it cannot be used.
    fn share(&self, model: ModelName) -> Result<Result<Attributed, String>, RoiError> {
        let ask = self.events.ask;
        let fixed = match model {
            ModelName::First => Some(Rule::First),
            ModelName::Last => Some(Rule::Last),
            ModelName::Linear => Some(Rule::Linear),
            ModelName::TimeDecay => Some(Rule::TimeDecay { half_life_micros: ask.half_life_micros }),
            ModelName::Position => Some(Rule::Position),
            ModelName::Shapley | ModelName::Markov => None,
        };
        let learned = match fixed.is_some() {
            true => BTreeMap::new(),
            false => match self.learn(model) {
                Ok(learned) => learned,
                Err(problem) => return Ok(Err(problem)),
            },
        };
        let nothing = Rule::ByPlayer(Vec::new());
        let mut found = empty(model, ask.hedge.currency);
        let mut sums: HashMap<(u32, u32), Value> = HashMap::new();
        let mut times: Vec<Vec<KeyValue>> = Vec::new();
        for (number, original) in self.originals.iter().enumerate().filter(|(_, o)| o.booked) {
            let month = || Month::of(self.events.day(original.revenue.event.at));
            let rule = match &fixed {
                Some(rule) => rule,
                None => learned.get(&month()).unwrap_or(&nothing),
            };
            self.book(number, original, rule, &mut |at, class, parts| {
                let time = self.time_of(at, &mut times);
                for (leaf, part) in parts.by_player.values().flatten() {
                    let sum = sums.entry((*leaf, time)).or_insert(Value::zero(ask.hedge.currency));
                    sum.add(class, *part)?;
                }
                found.unattributed.add(class, parts.unattributed)
            })?;
        }
        for ((leaf, time), value) in sums {
            let key = self.key(leaf, times.get(usize::try_from(time).unwrap_or(0)));
            let sum = found.rows.entry(key).or_insert(Value::zero(ask.hedge.currency));
            *sum = sum.plus(value)?;
        }
        Ok(Ok(found))
    }

    /// Gives an event's credits, and takes back what others take, each at its time.
    fn book(
        &self,
        number: usize,
        original: &Original<'_>,
        rule: &Rule,
        add: &mut dyn FnMut(Timestamp, ValueClass, &Parts) -> Result<(), ExactError>,
    ) -> Result<(), RoiError> {
        let Some(rate) = original.rate else { return Ok(()) };
        let event = &original.revenue.event;
        let amount = in_currency(event.amount, rate, self.events.ask.hedge.currency)?;
        let window = self.touches.window(number, event.at, self.events.ask.look_back_micros);
        let parts = match window {
            Some(window) => credit(amount, rule, window, event.at)?,
            None => Parts::nobody(amount),
        };
        if original.inside {
            add(event.at, original.class, &parts)?;
        }
        if original.taken.is_empty() {
            return Ok(());
        }
        let mut given = Given::new(event.amount, rate, parts);
        for (_, taking) in &original.taken {
            let taken = given.take_back(taking.event.amount, None)?;
            if self.events.inside(taking.event.at) {
                add(taking.event.at, original.class, &taken.parts)?;
            }
        }
        Ok(())
    }

    /// The number of the times of `at`, as the grouping has them.
    fn time_of(&self, at: Timestamp, times: &mut Vec<Vec<KeyValue>>) -> u32 {
        let hedge = &self.events.ask.hedge;
        let by_time = hedge.by.iter().filter(|key| key.is_time());
        let key: Vec<KeyValue> = by_time.map(|key| bucket(key, at, &hedge.zone)).collect();
        let place = times.iter().rposition(|there| *there == key).unwrap_or_else(|| {
            times.push(key);
            times.len().saturating_sub(1)
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    fn key(&self, leaf: u32, times: Option<&Vec<KeyValue>>) -> Vec<KeyValue> {
        let leaf = usize::try_from(leaf).ok().and_then(|leaf| self.touches.keys.get(leaf));
        let mut key = leaf.cloned().unwrap_or_default();
        let by = self.events.ask.hedge.by.iter();
        let slots = key.iter_mut().zip(by).filter(|(_, by)| by.is_time()).map(|(slot, _)| slot);
        for (slot, time) in slots.zip(times.into_iter().flatten()) {
            *slot = time.clone();
        }
        key
    }

    /// Weights of workloads by month.
    fn learn(&self, model: ModelName) -> Result<BTreeMap<Month, Rule>, String> {
        let mut journeys: BTreeMap<Month, Journeys> = BTreeMap::new();
        let mut steps = 0_usize;
        let look_back = self.events.ask.look_back_micros;
        for (number, original) in self.originals.iter().enumerate() {
            let event = &original.revenue.event;
            let window = self.touches.window(number, event.at, look_back);
            let (Some(window), Some(rate)) = (window, original.rate) else { continue };
            let mut path: Vec<u32> = window.kept().map(|contact| contact.player).collect();
            // Who follows itself changes no removal effect.
            path.dedup();
            steps = steps.saturating_add(path.len());
            if steps > STEPS_MAX {
                return Err(format!(
                    "the journeys of the period have more than {STEPS_MAX} steps: match events by session, or shorten the look-back"
                ));
            }
            let amount = in_currency(event.amount, rate, self.events.ask.hedge.currency);
            let amount = amount.map_err(|error| error.to_string())?;
            let month = journeys.entry(Month::of(self.events.day(event.at))).or_default();
            month.add(path, Some(amount)).map_err(|error| error.to_string())?;
        }
        if model == ModelName::Markov {
            for (at, path) in &self.touches.idle {
                if let Some(month) = journeys.get_mut(&Month::of(self.events.day(*at))) {
                    month.add(path.clone(), None).map_err(|error| error.to_string())?;
                }
            }
        }
        let count = self.touches.players();
        let rule = |(month, journeys): (Month, Journeys)| {
            let values = match model {
                ModelName::Shapley => journeys.shapley(count).map_err(|e| format!("{month}: {e}"))?,
                _ => journeys.markov(count).map_err(|e| format!("{month}: {e}"))?,
            };
            Ok((month, Rule::ByPlayer(values)))
        };
        journeys.into_iter().map(rule).collect()
    }
}

/// Ways through workloads, with how often each was gone and what it brought.
#[derive(Default)]
struct Journeys {
    paths: BTreeMap<(Vec<u32>, bool), u64>,
    sets: BTreeMap<BTreeSet<u32>, Money>,
}

/// A name whose order is the order of numbers.
fn name(player: u32) -> Label {
    Label::lossy(&format!("{player:010}")).unwrap_or_else(|| Label::fixed("player"))
}

fn by_number<V: Copy + Default>(values: &BTreeMap<Label, V>, count: usize) -> Vec<V> {
    let number = |place| name(u32::try_from(place).unwrap_or(u32::MAX));
    (0..count).map(|place| values.get(&number(place)).copied().unwrap_or_default()).collect()
}

impl Journeys {
    fn add(&mut self, path: Vec<u32>, brought: Option<Money>) -> Result<(), ExactError> {
        if let Some(amount) = brought {
            let set: BTreeSet<u32> = path.iter().copied().collect();
            let sum = self.sets.entry(set).or_insert(Money::zero(amount.currency()));
            *sum = sum.checked_add(amount)?;
        }
        let times = self.paths.entry((path, brought.is_some())).or_insert(0);
        *times = times.saturating_add(1);
        Ok(())
    }

    fn markov(&self, count: usize) -> Result<Vec<u128>, String> {
        let players: BTreeSet<u32> = self.paths.keys().flat_map(|(path, _)| path).copied().collect();
        if players.len() > REMOVALS_MAX {
            let found = players.len();
            return Err(format!(
                "{found} workloads: removal effects are for up to {REMOVALS_MAX}; use another model"
            ));
        }
        let named: Vec<(Journey, u64)> = self
            .paths
            .iter()
            .map(|((path, converted), times)| {
                let touches = path.iter().map(|player| name(*player)).collect();
                (Journey { touches, converted: *converted }, *times)
            })
            .collect();
        let effects = removal_effects_of(named.iter().map(|(journey, times)| (journey, *times)));
        Ok(by_number(&effects, count).into_iter().map(u128::from).collect())
    }

    fn shapley(&self, count: usize) -> Result<Vec<u128>, String> {
        let players: BTreeSet<Label> = self.sets.keys().flatten().map(|player| name(*player)).collect();
        let journeys: Vec<(Journey, Money)> = self
            .sets
            .iter()
            .map(|(set, amount)| {
                let touches = set.iter().map(|player| name(*player)).collect();
                (Journey { touches, converted: true }, *amount)
            })
            .collect();
        let values = coalition_values(&players, &journeys).map_err(|error| error.to_string())?;
        let values = shapley(&players, &values).map_err(|error| error.to_string())?;
        let names: Vec<Ratio> = (0..count)
            .map(|place| name(u32::try_from(place).unwrap_or(u32::MAX)))
            .map(|name| values.get(&name).copied().unwrap_or(Ratio::ZERO).or_zero())
            .collect();
        integer_weights(&names).map_err(|error| error.to_string())
    }
}

/// Counts the events of the period and what they say, without any model.
fn receive(
    events: &mut Events<'_>,
    all: &[(u64, Revenue)],
    originals: &[Original<'_>],
    referred: &Referred<'_>,
    found: &mut Earned,
) -> Result<(), RoiError> {
    let currency = events.ask.hedge.currency;
    let mut no_rate: BTreeMap<Currency, NoRate> = BTreeMap::new();
    let mut converted: Vec<Option<Money>> = vec![None; all.len()];
    let mut convert = |place: usize, amount: Money| {
        if let Some(converted) = converted.get_mut(place) {
            *converted = Some(amount);
        }
    };
    for original in originals.iter().filter(|original| original.booked) {
        let Some(rate) = original.rate else { continue };
        let event = &original.revenue.event;
        let amount = in_currency(event.amount, rate, currency)?;
        convert(original.place, amount);
        let mut given = Given::new(event.amount, rate, Parts::nobody(amount));
        for (place, taking) in &original.taken {
            let now = events.rate(taking.event.amount.currency(), events.day(taking.event.at));
            let taken = given.take_back(taking.event.amount, now)?;
            convert(*place, taken.amount);
            if events.inside(taking.event.at) {
                match taken.fx_difference {
                    Some(more) => {
                        found.fx_difference =
                            found.fx_difference.checked_add(more).map_err(ExactError::from)?;
                    }
                    None => found.fx_unknown = found.fx_unknown.saturating_add(1),
                }
            }
        }
    }
    for ((_, revenue), converted) in all.iter().zip(converted) {
        let event = &revenue.event;
        if !events.inside(event.at) {
            continue;
        }
        let own = event.amount.currency();
        let class = class_of(revenue, referred);
        found.events = found.events.saturating_add(1);
        let received = found.received.entry(own).or_insert(Received {
            events: 0,
            amount: Value::zero(own),
            converted: Value::zero(currency),
        });
        received.events = received.events.saturating_add(1);
        received.amount.add(class, event.amount)?;
        let day = events.day(event.at);
        let Some(amount) = converted else {
            let gap = no_rate.entry(own).or_insert(NoRate { currency: own, date: day, events: 0 });
            gap.date = gap.date.min(day);
            gap.events = gap.events.saturating_add(1);
            continue;
        };
        received.converted.add(class, amount)?;
        found.total.add(class, amount)?;
        found.months.entry(Month::of(day)).or_insert(Value::zero(currency)).add(class, amount)?;
    }
    found.no_rate = no_rate.into_values().collect();
    Ok(())
}

/// Attributed + unattributed = received, for every model.
fn balanced(found: &Earned) -> Result<(), RoiError> {
    let others = found.compared.iter().filter_map(|(_, other)| other.as_ref().ok());
    for attributed in std::iter::once(&found.attributed).chain(others) {
        let mut sum = attributed.unattributed;
        for value in attributed.rows.values() {
            sum = sum.plus(*value)?;
        }
        if sum != found.total {
            return Err(RoiError::Unbalanced(attributed.model));
        }
    }
    Ok(())
}
