//! Taking finance facts in: from what was written to market data, positions and events, one fact after
//! the other, in the order of the ledger.
//!
//! Invariants
//! - The same facts in the same order give the same state: what is derived can be built anew.
//! - A fact that is there already changes nothing; one that contradicts is refused with the reason.
//! - A refused fact leaves the state as it was.
//!
//! Not here: files and lines (the caller), the rules of single fields (`position::check`, `market`,
//! `lifecycle`, `profile`).

mod entry;

pub use entry::{CalendarEntry, EventEntry, FixingEntry, IndexEntry, ProfileEntry, RateEntry};

use super::calendar::{Calendar, CalendarError, Month, Weekends, Window, parse_day};
use super::lifecycle::{Event, LifecycleError, Portfolio, Purchases, What};
use super::market::{Added, Fixing, FxRate, Index, IndexKey, Market, MarketError, Pair, UNLISTED};
use super::position::{Entry, EntryError, Group, Kind, Position};
use super::profile::{Conversion, Measured, Profile, ProfileError, Profiles, Quality};
use crate::exact::Decimal;
use crate::price::overlay::Decimal as Written;
use bursar_domain::{Currency, FactKind, Label, Money, Timestamp};
use jiff::civil::Date;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The source of what names none.
const UNNAMED: &str = "unnamed";

/// Everything that finance facts add up to.
#[derive(Clone, Debug, Default)]
pub struct Intake {
    /// Fixings, rates and indices.
    pub market: Market,
    /// Positions and their events.
    pub portfolio: Portfolio,
    /// Conversion profiles.
    pub profiles: Profiles,
    calendars: BTreeMap<Label, Calendar>,
    indices: BTreeMap<IndexKey, (Index, Label)>,
    /// How the values of an index are made, where that was said.
    methods: BTreeMap<IndexKey, String>,
    /// The last word on each day of each index and pair by each source.
    observed: BTreeMap<Label, Decimal>,
    /// Quality profiles by id, with the model they are for.
    qualities: BTreeMap<Label, Label>,
}

/// What taking a fact in did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Names what it is about.
    pub name: Label,
    /// Whether it is new.
    pub added: Added,
}

/// Why a fact cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The fields are not those of such a fact.
    #[error("{0}")]
    Fields(String),
    /// Mistakes of a position, all of them.
    #[error("{}", listed(.0))]
    Entry(Vec<EntryError>),
    /// Market data.
    #[error(transparent)]
    Market(#[from] MarketError),
    /// A version or event.
    #[error(transparent)]
    Lifecycle(#[from] LifecycleError),
    /// A profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// A day, month or window.
    #[error(transparent)]
    Calendar(#[from] CalendarError),
    /// A value that cannot be.
    #[error("{key}: {value:?} {remedy}")]
    Bad {
        /// The field.
        key: &'static str,
        /// What it says.
        value: String,
        /// What is wrong and what to write instead.
        remedy: String,
    },
    /// A field that is needed.
    #[error("{key} is missing: {remedy}")]
    Missing {
        /// The field.
        key: &'static str,
        /// What to write.
        remedy: &'static str,
    },
    /// No such position.
    #[error("there is no position {0}: add it first")]
    NoPosition(String),
    /// An event of contracts that settle in cash, of one that delivers or is drawn.
    #[error(
        "{id} is a {kind}, which is delivered or drawn and not settled or closed in cash: cancel it, or \
         enter a new version of it with other days or another quantity"
    )]
    NotCash {
        /// The position.
        id: Label,
        /// Its kind.
        kind: Kind,
    },
    /// Two values for one day in one file.
    #[error("{name} is given twice: line {line} says otherwise; keep one of the two")]
    SaidTwice {
        /// Index or pair, day and source.
        name: Label,
        /// The earlier line.
        line: u64,
    },
    /// No such calendar.
    #[error("there is no calendar {0}: import it first, or use weekdays or daily")]
    NoCalendar(String),
    /// Money of another currency than the position settles in.
    #[error("{id} settles in {expected}, the amount is in {found}; CNY and CNH are two currencies")]
    Currency {
        /// The position.
        id: Label,
        /// Its settlement currency.
        expected: Currency,
        /// The amount's.
        found: Currency,
    },
    /// An index that changes how its values are made.
    #[error("{index} is made otherwise ({before}): another method is another version of it")]
    MethodChanged {
        /// The index.
        index: IndexKey,
        /// Its method.
        before: String,
    },
    /// An index that changes what its values are.
    #[error("{index} has fixings in {before}: an index in {after} is another version of it")]
    IndexChanged {
        /// The index.
        index: IndexKey,
        /// Currency of its fixings.
        before: Currency,
        /// The new one.
        after: Currency,
    },
}

fn listed(errors: &[EntryError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Intake {
    /// Takes in what `body` says, as known since `known_at`.
    pub fn admit(
        &mut self,
        kind: FactKind,
        body: &str,
        known_at: Timestamp,
    ) -> Result<Admitted, IntakeError> {
        match kind {
            FactKind::Fixing => self.fixing(&read(body)?, known_at),
            FactKind::Fx => self.rate(&read(body)?, known_at),
            FactKind::Index => self.index(&read(body)?),
            FactKind::Calendar => self.calendar(&read(body)?),
            FactKind::Profile => self.profile(&read(body)?),
            FactKind::Contract => self.position(&read(body)?),
            FactKind::ContractEvent => self.event(&read(body)?, known_at),
            // Heads of imports, revenue, closed periods and the like are no market data and no contracts.
            FactKind::ImportBatch
            | FactKind::Revenue
            | FactKind::PeriodClose
            | FactKind::Checkpoint
            | FactKind::Audit
            | FactKind::BudgetOverride => Ok(Admitted { name: Label::fixed("other"), added: Added::New }),
        }
    }

    /// The indices with the names of their calendars.
    pub fn indices(&self) -> impl Iterator<Item = (&Index, &Label)> {
        self.indices.values().map(|(index, calendar)| (index, calendar))
    }

    /// The calendars that were entered.
    pub fn calendars(&self) -> impl Iterator<Item = &Calendar> {
        self.calendars.values()
    }

    /// How the values of an index are made, where that was said.
    #[must_use]
    pub fn method_of(&self, key: &IndexKey) -> Option<&str> {
        self.methods.get(key).map(String::as_str)
    }

    /// The calendar of this name.
    pub fn calendar_of(&self, name: &str) -> Result<Calendar, IntakeError> {
        self.calendar_named(name)
    }

    /// The quality profile for a model: the one whose model is the longest that fits.
    #[must_use]
    pub fn quality_of(&self, model: &Label) -> Option<&Label> {
        let fits = |pattern: &Label| match pattern.as_str().strip_suffix('*') {
            Some(beginning) => model.as_str().starts_with(beginning),
            None => pattern == model,
        };
        let fitting = self.qualities.iter().filter(|(_, pattern)| fits(pattern));
        let closeness = |pattern: &Label| (!pattern.as_str().ends_with('*'), pattern.as_str().len());
        fitting.max_by_key(|(_, pattern)| closeness(pattern)).map(|(id, _)| id)
    }

    // === market data ===

    fn fixing(&mut self, entry: &FixingEntry, known_at: Timestamp) -> Result<Admitted, IntakeError> {
        let key = index_key(&entry.index, entry.version)?;
        let date = day("date", &entry.date)?;
        let currency = match &entry.currency {
            Some(code) => currency("currency", code)?,
            None => self.market.index(&key)?.currency,
        };
        let source = source(entry.source.as_deref())?;
        let value = decimal("value", &entry.value)?;
        let name = label("index", &format!("{key} {date} {source}"))?;
        if self.observed.get(&name) == Some(&value) && self.market.index(&key)?.currency == currency {
            return Ok(Admitted { name, added: Added::Same });
        }
        let fixing = Fixing { index: key, date, value, currency, source, known_at };
        let added = self.market.add_fixing(fixing)?;
        self.observed.insert(name.clone(), value);
        Ok(Admitted { name, added })
    }

    fn rate(&mut self, entry: &RateEntry, known_at: Timestamp) -> Result<Admitted, IntakeError> {
        let pair = Pair::parse(&entry.pair)?;
        let date = day("date", &entry.date)?;
        let source = source(entry.source.as_deref())?;
        let rate = decimal("rate", &entry.rate)?;
        let name = label("pair", &format!("{pair} {date} {source}"))?;
        if self.observed.get(&name) == Some(&rate) {
            return Ok(Admitted { name, added: Added::Same });
        }
        let added = self.market.add_rate(FxRate { pair, date, rate, source, known_at })?;
        self.observed.insert(name.clone(), rate);
        Ok(Admitted { name, added })
    }

    fn index(&mut self, entry: &IndexEntry) -> Result<Admitted, IntakeError> {
        let key = index_key(&entry.index, entry.version)?;
        let calendar_name = entry.calendar.as_deref().unwrap_or("weekdays");
        let currency = currency("currency", &entry.currency)?;
        let last = entry.last.as_deref().map(|text| day("last", text)).transpose()?;
        let index = Index { key: key.clone(), currency, calendar: self.calendar_named(calendar_name)?, last };
        let name = label("index", &key.to_string())?;
        let before = self.indices.get(&key).map(|(index, _)| index.clone());
        let method = entry.method.as_ref().filter(|method| self.methods.get(&key) != Some(method));
        if let (Some(_), Some(before)) = (method, self.methods.get(&key)) {
            return Err(IntakeError::MethodChanged { index: key, before: before.clone() });
        }
        if before.as_ref() == Some(&index) && method.is_none() {
            return Ok(Admitted { name, added: Added::Same });
        }
        if let Some(before) = before.as_ref().filter(|before| before.currency != currency) {
            let (before, after) = (before.currency, currency);
            return Err(IntakeError::IndexChanged { index: key, before, after });
        }
        let calendar_name = label("calendar", calendar_name)?;
        if let Some(method) = method {
            self.methods.insert(key.clone(), method.clone());
        }
        self.market.declare(index.clone());
        self.indices.insert(key, (index, calendar_name));
        let added = if before.is_some() { Added::Restated } else { Added::New };
        Ok(Admitted { name, added })
    }

    fn calendar_named(&self, name: &str) -> Result<Calendar, IntakeError> {
        match name {
            "weekdays" => Ok(Calendar::weekdays()),
            "daily" => Ok(Calendar::daily()),
            other => {
                let named = Label::new(other).ok().and_then(|name| self.calendars.get(&name));
                named.cloned().ok_or_else(|| IntakeError::NoCalendar(other.chars().take(60).collect()))
            }
        }
    }

    fn calendar(&mut self, entry: &CalendarEntry) -> Result<Admitted, IntakeError> {
        let name = label("calendar", &entry.calendar)?;
        if matches!(name.as_str(), "weekdays" | "daily") {
            let remedy = "is a calendar of this program; give yours another name".to_owned();
            return Err(bad("calendar", name.as_str(), remedy));
        }
        let weekends = match entry.weekends.as_deref() {
            None | Some("closed") => Weekends::Closed,
            Some("open") => Weekends::Open,
            Some(other) => return Err(bad("weekends", other, "is unknown; use closed or open".to_owned())),
        };
        let holidays = entry.holidays.iter().map(|text| day("holidays", text)).collect::<Result<_, _>>()?;
        let calendar = Calendar::new(name.clone(), weekends, holidays);
        let added = match self.calendars.get(&name) {
            Some(there) if *there == calendar => return Ok(Admitted { name, added: Added::Same }),
            Some(_) => Added::Restated,
            None => Added::New,
        };
        for (index, by) in self.indices.values_mut().filter(|(_, by)| *by == name) {
            debug_assert_eq!(*by, name);
            index.calendar = calendar.clone();
            self.market.declare(index.clone());
        }
        self.calendars.insert(name.clone(), calendar);
        Ok(Admitted { name, added })
    }

    fn profile(&mut self, entry: &ProfileEntry) -> Result<Admitted, IntakeError> {
        let id = label("profile", &entry.profile)?;
        let from = day("from", &entry.from)?;
        let name = label("profile", &format!("{id} from {from}"))?;
        let profile =
            Profile { id: id.clone(), from, conversion: conversion(entry)?, measured: measured(entry)? };
        let quality = matches!(profile.conversion, Conversion::Quality(_));
        let model = profile.measured.model.clone();
        if quality && model.is_none() {
            let remedy = "a quality profile names the model whose tokens it weighs, such as claude-*";
            return Err(IntakeError::Missing { key: "model", remedy });
        }
        if let (true, Some(model)) = (quality, &model)
            && self.qualities.iter().any(|(other, of)| *other != id && of == model)
        {
            let remedy = "has a quality profile of another name; give that one a version from a later day";
            return Err(bad("model", model.as_str(), remedy.to_owned()));
        }
        let there = self.profiles.on(&id, from).is_ok_and(|there| *there == profile);
        self.profiles.add(profile)?;
        if let (true, Some(model)) = (quality, model) {
            self.qualities.insert(id, model);
        }
        Ok(Admitted { name, added: if there { Added::Same } else { Added::New } })
    }

    // === positions ===

    fn position(&mut self, entry: &Entry) -> Result<Admitted, IntakeError> {
        let position = entry.check().map_err(IntakeError::Entry)?;
        self.index_fits(&position)?;
        let identity = &position.terms().identity;
        let name = label("position_id", &format!("{} v{}", identity.id, identity.version))?;
        let added = self.portfolio.add(position)?;
        Ok(Admitted { name, added })
    }

    /// The index of a position, where it is known, has its values in the currency of its prices and is
    /// published until the position ends.
    fn index_fits(&self, position: &Position) -> Result<(), IntakeError> {
        let terms = position.terms();
        let Some(underlying) = &terms.underlying else { return Ok(()) };
        let settles = matches!(terms.kind.group(), Group::Cash | Group::Uncounted);
        if !settles || self.market.index(&underlying.index).is_err() {
            return Ok(());
        }
        let index = self.market.index_priced_in(&underlying.index, terms.economics.price_currency)?;
        let needed = terms.timing.effective.last();
        match index.last.filter(|last| *last < needed) {
            Some(last) => {
                let index = underlying.index.clone();
                Err(MarketError::Expired { index, last, date: needed }.into())
            }
            None => Ok(()),
        }
    }

    fn event(&mut self, entry: &EventEntry, known_at: Timestamp) -> Result<Admitted, IntakeError> {
        let id = label("position_id", &entry.position_id)?;
        let position = self.portfolio.versions(&id).last();
        let position = position.ok_or_else(|| IntakeError::NoPosition(id.to_string()))?;
        let date = day("date", &entry.date)?;
        let trade_date = position.terms().timing.trade_date;
        if date < trade_date {
            let remedy = format!("lies before the trade of {trade_date}");
            return Err(bad("date", &entry.date, remedy));
        }
        let what = what(entry, position)?;
        let last = position.terms().timing.effective.last();
        if date > last && what.closes() {
            let remedy = format!("lies after the last day of the position, {last}: nothing is left to close");
            return Err(bad("date", &entry.date, remedy));
        }
        // Its cost would not change, and whoever entered the event would believe that it had.
        if matches!(position.terms().kind.group(), Group::Units | Group::Pool) && is_of_cash(&what) {
            return Err(IntakeError::NotCash { id, kind: position.terms().kind });
        }
        if matches!(&what, What::Roll { into } if *into == id) {
            let remedy = "is the position itself: name the one that it is rolled into".to_owned();
            return Err(bad("into", id.as_str(), remedy));
        }
        let event_id = match &entry.event_id {
            Some(text) => label("event_id", text)?,
            None => label("event_id", &usual_id(entry, date))?,
        };
        let name = label("event_id", &format!("{id} {event_id}"))?;
        // Entered again, it keeps the time at which it became known.
        let there = self.portfolio.event(&id, &event_id);
        let known_at = there.map_or(known_at, |there| there.known_at);
        let event = Event { id: event_id, date, known_at, what };
        let added = self.portfolio.record(&id, event);
        let added = added.ok_or_else(|| IntakeError::NoPosition(id.to_string()))??;
        Ok(Admitted { name, added })
    }
}

/// Whether only a contract that settles in cash has such an event.
fn is_of_cash(what: &What) -> bool {
    match what {
        What::VariationMargin(_)
        | What::Funding(_)
        | What::Settlement { .. }
        | What::CloseOut { .. }
        | What::Roll { .. }
        | What::Fixing { .. } => true,
        What::Trade | What::Cancel => false,
        What::Correction { instead, .. } => instead.as_deref().is_some_and(is_of_cash),
    }
}

/// An id for an event that names none: the same words give the same id.
fn usual_id(entry: &EventEntry, date: Date) -> String {
    match &entry.month {
        Some(month) => format!("{}-{month}", entry.event),
        None => format!("{}-{date}", entry.event),
    }
}

fn what(entry: &EventEntry, position: &Position) -> Result<What, IntakeError> {
    const EVENTS: &str =
        "is unknown; use trade, fix, variation_margin, funding, settle, roll, close, cancel or correct";
    let value = |key: &'static str, written: &Option<Written>, remedy| match written {
        Some(written) => decimal(key, written),
        None => Err(IntakeError::Missing { key, remedy }),
    };
    let money = || {
        let settles = position.terms().economics.settlement_currency;
        let found = entry.currency.as_deref().map_or(Ok(settles), |code| currency("currency", code))?;
        if found != settles {
            let id = position.id().clone();
            return Err(IntakeError::Currency { id, expected: settles, found });
        }
        let amount = value("amount", &entry.amount, "write what was received, below zero what was paid")?;
        Ok(Money::from_pico(settles, amount.pico()))
    };
    Ok(match entry.event.as_str() {
        "trade" => What::Trade,
        "fix" => {
            What::Fixing { value: positive("value", value("value", &entry.value, "write the fixing")?)? }
        }
        "variation_margin" => What::VariationMargin(money()?),
        "funding" => What::Funding(money()?),
        "settle" => What::Settlement { month: settled_month(entry, position)?, amount: money()? },
        "roll" => {
            let into = entry.into.as_deref();
            let into = into.ok_or(IntakeError::Missing { key: "into", remedy: "name the next position" })?;
            What::Roll { into: label("into", into)? }
        }
        "close" => What::CloseOut {
            part: entry.part.as_ref().map_or(Ok(Decimal::ONE), |part| decimal("part", part))?,
            price: positive("price", value("price", &entry.price, "write the price of the closing trade")?)?,
            purchases: match entry.purchases.as_deref() {
                None | Some("expected") => Purchases::Expected,
                Some("gone") => Purchases::NoLongerExpected,
                Some(other) => {
                    return Err(bad("purchases", other, "is unknown; use expected or gone".to_owned()));
                }
            },
        },
        "cancel" => What::Cancel,
        "correct" => {
            let of = entry.of.as_deref();
            let of = of.ok_or(IntakeError::Missing { key: "of", remedy: "name the wrong event" })?;
            let instead = entry.instead.as_ref().map(|instead| replacement(instead, position).map(Box::new));
            What::Correction { of: label("of", of)?, instead: instead.transpose()? }
        }
        other => return Err(bad("event", other, EVENTS.to_owned())),
    })
}

/// What holds instead of a corrected event: it counts on the correction's day, and is no event of its own.
fn replacement(entry: &EventEntry, position: &Position) -> Result<What, IntakeError> {
    let remedy = || "is the correction's to say: leave it out of what holds instead".to_owned();
    for (key, text) in [("instead.position_id", &entry.position_id), ("instead.date", &entry.date)] {
        if !text.is_empty() {
            return Err(bad(key, text, remedy()));
        }
    }
    if let Some(text) = &entry.event_id {
        return Err(bad("instead.event_id", text, remedy()));
    }
    match what(entry, position)? {
        What::Correction { .. } => {
            let remedy = "is no event that can hold instead: correct the correction by an event of its own";
            Err(bad("instead.event", &entry.event, remedy.to_owned()))
        }
        what => Ok(what),
    }
}

fn settled_month(entry: &EventEntry, position: &Position) -> Result<Month, IntakeError> {
    let text = entry.month.as_deref();
    let text =
        text.ok_or(IntakeError::Missing { key: "month", remedy: "write the month, such as 2026-09" })?;
    let month = Month::parse(text)
        .map_err(|_| bad("month", text, "is not a month: write it as 2026-09".to_owned()))?;
    let effective: Window = position.terms().timing.effective;
    if month.window()?.overlap(effective).is_none() {
        let remedy =
            format!("lies outside the position's days, {} until {}", effective.from(), effective.until());
        return Err(bad("month", text, remedy));
    }
    Ok(month)
}

fn conversion(entry: &ProfileEntry) -> Result<Conversion, IntakeError> {
    let given =
        |key, written: &Option<Written>| written.as_ref().map(|value| decimal(key, value)).transpose();
    let throughput = given("tokens_per_second", &entry.tokens_per_second)?;
    let utilisation = given("utilisation", &entry.utilisation)?;
    let minute = given("tokens_per_minute", &entry.tokens_per_minute)?;
    let (score, reference) = (given("score", &entry.score)?, given("reference", &entry.reference)?);
    match (throughput, utilisation, minute, score, reference) {
        (Some(tokens_per_second), Some(utilisation), None, None, None) => {
            super::profile::mtok_per_gpu_hour(tokens_per_second, utilisation)?;
            Ok(Conversion::Throughput { tokens_per_second, utilisation })
        }
        (None, None, Some(tokens_per_minute), None, None) => {
            super::profile::mtok_per_unit_hour(tokens_per_minute)?;
            Ok(Conversion::Provisioned { tokens_per_minute })
        }
        (None, None, None, Some(score), Some(reference)) => {
            Ok(Conversion::Quality(Quality::new(score, reference)?))
        }
        _ => Err(IntakeError::Fields(
            "a profile has tokens_per_second and utilisation, or tokens_per_minute, or score and reference"
                .to_owned(),
        )),
    }
}

fn measured(entry: &ProfileEntry) -> Result<Measured, IntakeError> {
    let given = |key, text: &Option<String>| text.as_deref().map(|text| label(key, text)).transpose();
    Ok(Measured {
        model: given("model", &entry.model)?,
        version: given("model_version", &entry.model_version)?,
        gpu: given("gpu", &entry.gpu)?,
        precision: given("precision", &entry.precision)?,
        engine: given("engine", &entry.engine)?,
        length_mix: given("length_mix", &entry.length_mix)?,
        source: given("source", &entry.source)?,
    })
}

fn read<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, IntakeError> {
    serde_json::from_str(body).map_err(|error| {
        // Everything is on one line here; the caller knows the line of the file.
        let text = error.to_string();
        let text = text.split(" at line ").next().unwrap_or(&text).to_owned();
        IntakeError::Fields(text)
    })
}

fn bad(key: &'static str, value: &str, remedy: String) -> IntakeError {
    IntakeError::Bad { key, value: value.chars().take(60).collect(), remedy }
}

fn label(key: &'static str, text: &str) -> Result<Label, IntakeError> {
    Label::new(text).map_err(|error| bad(key, text, format!("is not usable as a name: {error}")))
}

fn source(text: Option<&str>) -> Result<Label, IntakeError> {
    label("source", text.unwrap_or(UNNAMED))
}

fn index_key(name: &str, version: Option<u32>) -> Result<IndexKey, IntakeError> {
    Ok(IndexKey { id: label("index", name)?, version: version.unwrap_or(1) })
}

fn day(key: &'static str, text: &str) -> Result<Date, IntakeError> {
    parse_day(text).map_err(|_| bad(key, text, "is not a day: write it as 2026-09-30".to_owned()))
}

fn currency(key: &'static str, code: &str) -> Result<Currency, IntakeError> {
    let remedy = || "is not a currency code of three capital letters".to_owned();
    let found = Currency::parse(code).map_err(|_| bad(key, code, remedy()))?;
    if found.is_listed() { Ok(found) } else { Err(bad(key, code, UNLISTED.to_owned())) }
}

fn decimal(key: &'static str, written: &Written) -> Result<Decimal, IntakeError> {
    let remedy = || "is not a plain decimal with at most 12 decimals".to_owned();
    Decimal::parse(written.text()).map_err(|_| bad(key, written.text(), remedy()))
}

fn positive(key: &'static str, value: Decimal) -> Result<Decimal, IntakeError> {
    if value.is_positive() {
        Ok(value)
    } else {
        Err(bad(key, &value.to_string(), "must be above zero".to_owned()))
    }
}

#[cfg(test)]
mod tests;
