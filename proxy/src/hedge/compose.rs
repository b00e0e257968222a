//! `market compose`: a token price index from volumes, the ledger's own or a file's, as fixings to enter.
//!
//! Invariants
//! - Nothing is written here: the answer holds the rows to import, and each value what it is made of.
//! - Days that are not over, and days on which the index is not fixed, get no value.
//! - What cannot enter is told: usage by its reason, rows of a file by their lines.
//!
//! Not here: weights and values (`policies::hedge::compose`), own volumes (`ledger::hedge`).

use super::AskError;
use super::report::units;
use super::rows::{self, FileRow};
use crate::report::rfc3339;
use bursar_domain::{Currency, Label, Timestamp};
use bursar_ledger::hedge::{
    Constituents, ERRORS_MAX, HedgeSource, SpotCost, State, Volumes, VolumesAsk, VolumesError, state, volumes,
};
use bursar_policies::exact::Decimal;
use bursar_policies::hedge::calendar::{Calendar, Window, parse_day};
use bursar_policies::hedge::compose::{Composed, Method, Observed, compose};
use bursar_policies::hedge::market::IndexKey;
use bursar_policies::hedge::profile::Unit;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Longest period of values, and most days of usage in one.
const DAYS_MAX: u32 = 366;
/// Most decimals of a value.
const PLACES_MAX: u32 = 12;
/// What made a value, as its source says.
const SOURCE: &str = "composed";

/// The options of the question, as they are written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Options {
    /// Currency of the values.
    pub(crate) currency: Option<String>,
    /// First day.
    pub(crate) from: Option<String>,
    /// First day outside.
    pub(crate) to: Option<String>,
    /// Version of the method; one when absent.
    pub(crate) version: Option<u32>,
    /// `provider` (when absent) or `model`.
    pub(crate) by: Option<String>,
    /// Largest weight in percent; 30 when absent.
    pub(crate) cap: Option<String>,
    /// Days of usage in a value; 30 when absent.
    pub(crate) days: Option<u32>,
    /// Decimals of a value; six when absent.
    pub(crate) places: Option<u32>,
    /// `Mtok` (when absent) or `MSIT`.
    pub(crate) unit: Option<String>,
    /// `list`, `contracted` or `billed` (when absent).
    pub(crate) spot: Option<String>,
    /// When it is fixed, where it is new; `weekdays` when absent.
    pub(crate) calendar: Option<String>,
}

/// The question.
struct Ask {
    key: IndexKey,
    currency: Currency,
    /// Days of values.
    days: Window,
    method: Method,
    cap: Decimal,
    by: Constituents,
    unit: Unit,
    spot: SpotCost,
}

fn wrong(text: String) -> AskError {
    AskError::Wrong(text)
}

impl From<VolumesError> for AskError {
    fn from(error: VolumesError) -> Self {
        match error {
            VolumesError::Days => Self::Wrong(error.to_string()),
            VolumesError::Read(_) | VolumesError::Exact(_) => Self::Ledger(error.to_string()),
        }
    }
}

impl Options {
    fn ask(&self, index: &str) -> Result<Ask, AskError> {
        let id = Label::new(index).map_err(|error| wrong(format!("index {index:?}: {error}")))?;
        let version = self.version.unwrap_or(1);
        if version == 0 {
            return Err(wrong("index_version counts from 1".to_owned()));
        }
        let code = self.currency.as_deref().ok_or_else(|| wrong("currency is missing".to_owned()))?;
        let currency =
            Currency::parse(code).map_err(|_| wrong(format!("currency {code:?} is no currency code")))?;
        let day = |option: &str, text: &Option<String>| {
            let text = text.as_deref().ok_or_else(|| wrong(format!("{option} is missing")))?;
            parse_day(text).map_err(|error| wrong(format!("{option}: {error}")))
        };
        let (from, to) = (day("from", &self.from)?, day("to", &self.to)?);
        let days = Window::new(from, to).map_err(|error| wrong(error.to_string()))?;
        if days.days() > DAYS_MAX {
            return Err(wrong(format!("from {from} to {to} is more than {DAYS_MAX} days")));
        }
        let cap_text = self.cap.as_deref().unwrap_or("30");
        let cap = Decimal::parse(cap_text).ok();
        let cap = cap.filter(|cap| cap.is_positive() && *cap <= Decimal::whole(100));
        let cap =
            cap.ok_or_else(|| wrong(format!("cap {cap_text:?} is no percentage above 0 and up to 100")))?;
        let span = self.days.unwrap_or(30);
        if !(1..=DAYS_MAX).contains(&span) {
            return Err(wrong(format!("days {span}: a value has 1 to {DAYS_MAX} days of usage")));
        }
        let places = self.places.unwrap_or(6);
        if places > PLACES_MAX {
            return Err(wrong(format!("places {places}: a value has at most {PLACES_MAX} decimals")));
        }
        let part = cap.over(Decimal::whole(100))?;
        Ok(Ask {
            key: IndexKey { id, version },
            currency,
            days,
            method: Method { cap: part, days: span, places },
            cap,
            by: match self.by.as_deref() {
                None | Some("provider") => Constituents::Providers,
                Some("model") => Constituents::Models,
                Some(other) => return Err(wrong(format!("by {other:?}: use provider or model"))),
            },
            unit: match self.unit.as_deref() {
                None | Some("Mtok") => Unit::Mtok,
                Some("MSIT") => Unit::Msit,
                Some(other) => return Err(wrong(format!("unit {other:?}: use Mtok or MSIT"))),
            },
            spot: match self.spot.as_deref() {
                None | Some("billed") => SpotCost::Billed,
                Some("contracted") => SpotCost::Contracted,
                Some("list") => SpotCost::List,
                Some(other) => return Err(wrong(format!("spot {other:?}: use list, contracted or billed"))),
            },
        })
    }
}

impl Ask {
    fn by(&self) -> &'static str {
        match self.by {
            Constituents::Providers => "provider",
            Constituents::Models => "model",
        }
    }

    /// How the values are made, in words that stay with the index.
    fn words(&self, is_own: bool) -> String {
        let what = if is_own {
            let spot = match self.spot {
                SpotCost::List => "list",
                SpotCost::Contracted => "contracted",
                SpotCost::Billed => "billed",
            };
            format!("{spot} cost of own usage per {}", self.unit)
        } else {
            "volumes and prices of a file".to_owned()
        };
        format!(
            "{what}, weighted by volume per {}, each at most {} %, over {} days up to each",
            self.by(),
            self.cap,
            self.method.days
        )
    }
}

/// What was seen, and the rows that were not read.
#[derive(Default)]
struct Seen {
    volumes: Volumes,
    errors: Vec<(u64, String)>,
}

/// Values of an index, and the rows that would enter them.
pub(crate) fn document(
    source: &dyn HedgeSource,
    (index, options): (&str, &Options),
    file: Option<&str>,
    now: Timestamp,
) -> Result<Value, AskError> {
    let ask = options.ask(index)?;
    let state = state(&source.finance_facts()?);
    let method = ask.words(file.is_none());
    let (calendar, declared) = calendar(&state, &ask, options, &method)?;
    let since = ask.days.from().checked_sub(jiff::Span::new().days(i64::from(ask.method.days)));
    let since = since.map_err(|_| wrong("the days are out of any calendar".to_owned()))?;
    let seen = match file {
        Some(text) => read_file(text, &ask),
        None => {
            let days = Window::new(since, ask.days.until()).map_err(|error| wrong(error.to_string()))?;
            let (by, unit, currency, spot) = (ask.by, ask.unit, ask.currency, ask.spot);
            let wanted = VolumesAsk { days, by, unit, currency, spot, as_of: now };
            Seen { volumes: volumes(source, &state, &wanted)?, ..Seen::default() }
        }
    };
    let errors: Vec<Value> =
        seen.errors.iter().map(|(line, problem)| json!({ "line": line, "problem": problem })).collect();
    let (mut made, mut skipped) = (Vec::new(), Vec::new());
    let today = today(now)?;
    for day in ask.days.each_day().filter(|day| calendar.is_business_day(*day)) {
        if day >= today {
            skipped.push(json!({ "date": day.to_string(), "reason": "the day is not over" }));
            continue;
        }
        match compose(&seen.volumes.seen, day, ask.method).map_err(|error| wrong(error.to_string()))? {
            Some(composed) => made.push(composed),
            None => {
                skipped.push(json!({ "date": day.to_string(), "reason": "nothing was used in its days" }))
            }
        }
    }
    let mut entries = Vec::new();
    if errors.is_empty() && !made.is_empty() {
        entries.extend(declared);
        for composed in &made {
            entries.push(entry(&ask, composed, &method, seen.volumes.records, now)?);
        }
    }
    let gaps = seen.volumes.gaps.iter();
    let left_out: Vec<Value> =
        gaps.map(|(gap, requests)| json!({ "requests": requests, "reason": gap.to_string() })).collect();
    Ok(json!({
        "index": ask.key.id.as_str(),
        "version": ask.key.version,
        "currency": ask.currency.code(),
        "method": method,
        "as_of": rfc3339(now),
        "rows": made.iter().map(row).collect::<Result<Vec<_>, _>>()?,
        "skipped": skipped,
        "left_out": left_out,
        "errors": errors,
        "entries": entries,
    }))
}

fn today(now: Timestamp) -> Result<Date, AskError> {
    let at = jiff::Timestamp::from_microsecond(now.micros());
    let at = at.map_err(|_| wrong("the clock is out of range".to_owned()))?;
    Ok(at.to_zoned(TimeZone::UTC).date())
}

/// When the index is fixed, and the row that declares it as it is made here, if there has to be one.
fn calendar(
    state: &State,
    ask: &Ask,
    options: &Options,
    method: &str,
) -> Result<(Calendar, Option<Value>), AskError> {
    let (intake, key) = (&state.intake, &ask.key);
    let another = "write another --index-version";
    let mut entry = json!({
        "index": key.id.as_str(), "version": key.version, "currency": ask.currency.code(), "method": method,
    });
    let mut set = |name: &str, value: String| {
        if let Some(entry) = entry.as_object_mut() {
            entry.insert(name.to_owned(), value.into());
        }
    };
    let Some((index, calendar)) = intake.indices().find(|(index, _)| index.key == *key) else {
        let name = options.calendar.as_deref().unwrap_or("weekdays");
        let calendar = intake.calendar_of(name).map_err(|error| wrong(error.to_string()))?;
        set("calendar", name.to_owned());
        return Ok((calendar, Some(entry)));
    };
    if index.currency != ask.currency {
        return Err(wrong(format!("{key} is in {}, not in {}: {another}", index.currency, ask.currency)));
    }
    if options.calendar.as_ref().is_some_and(|asked| asked != calendar.as_str()) {
        return Err(wrong(format!("{key} is fixed by the calendar {calendar}: leave --calendar out")));
    }
    match intake.method_of(key) {
        Some(there) if there == method => Ok((index.calendar.clone(), None)),
        Some(there) => Err(wrong(format!("{key} is made otherwise ({there}): {another}"))),
        None if intake.market.has_fixings(key) => {
            Err(wrong(format!("{key} has fixings that were not made here: {another}, or another name")))
        }
        None => {
            set("calendar", calendar.to_string());
            if let Some(last) = index.last {
                set("last", last.to_string());
            }
            Ok((index.calendar.clone(), Some(entry)))
        }
    }
}

fn row(composed: &Composed) -> Result<Value, AskError> {
    let parts = composed.constituents.iter().map(|(name, part)| {
        Ok(json!({
            "name": name.as_str(),
            "volume": units(part.volume.ratio())?,
            "price": units(part.price.ratio())?,
            "weight": units(part.weight.ratio())?,
            "capped": part.is_capped,
        }))
    });
    Ok(json!({
        "date": composed.date.to_string(),
        "since": composed.since.to_string(),
        "value": composed.value.to_string(),
        "constituents": composed.constituents.len(),
        "capped": composed.constituents.values().filter(|part| part.is_capped).count(),
        "parts": parts.collect::<Result<Vec<_>, AskError>>()?,
    }))
}

/// The row of a fixing, with what it is made of.
fn entry(
    ask: &Ask,
    composed: &Composed,
    method: &str,
    records: u64,
    now: Timestamp,
) -> Result<Value, AskError> {
    let parts: Map<String, Value> = composed
        .constituents
        .iter()
        .map(|(name, part)| {
            let told = json!({
                "volume": part.volume.to_string(), "price": part.price.to_string(),
                "weight": part.weight.to_string(),
            });
            (name.to_string(), told)
        })
        .collect();
    Ok(json!({
        "index": ask.key.id.as_str(),
        "version": ask.key.version,
        "date": composed.date.to_string(),
        "value": composed.value.to_string(),
        "currency": ask.currency.code(),
        "source": SOURCE,
        "provenance": {
            "method": method, "since": composed.since.to_string(), "made_at": rfc3339(now),
            "records": records, "constituents": parts,
        },
    }))
}

// === volumes of a file ===

const FIELDS: [&str; 6] = ["date", "provider", "model", "volume", "price", "cost"];

fn read_file(text: &str, ask: &Ask) -> Seen {
    let mut seen = Seen::default();
    let mut lines: BTreeMap<(Date, Label), u64> = BTreeMap::new();
    let rows = rows::read(text);
    if rows.is_empty() {
        seen.errors.push((1, "there is no row in it".to_owned()));
    }
    for FileRow { line, fields } in rows {
        let read = fields.and_then(|fields| observed(&fields, ask));
        let result = read.and_then(|(key, observed)| match lines.insert(key.clone(), line) {
            Some(first) => Err(format!("{} on {} is on line {first} too", key.1, key.0)),
            None => {
                seen.volumes.seen.insert(key, observed);
                seen.volumes.records = seen.volumes.records.saturating_add(1);
                Ok(())
            }
        });
        if let Err(problem) = result
            && seen.errors.len() < ERRORS_MAX
        {
            seen.errors.push((line, problem));
        }
    }
    seen
}

fn observed(fields: &Map<String, Value>, ask: &Ask) -> Result<((Date, Label), Observed), String> {
    if let Some(unknown) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        return Err(format!("unknown field {unknown:?}: rows have {}", FIELDS.join(", ")));
    }
    let text = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(other) => Some(other.to_string()),
    };
    let needed = |name: &str| text(name).ok_or_else(|| format!("{name} is missing"));
    let number = |name: &str| {
        let Some(text) = text(name) else { return Ok(None) };
        match Decimal::parse(&text) {
            Ok(value) if !value.is_negative() => Ok(Some(value)),
            Ok(_) => Err(format!("{name} {text} is below zero")),
            Err(_) => Err(format!("{name} {text:?} is no decimal such as 21000.5")),
        }
    };
    let date = parse_day(&needed("date")?).map_err(|error| format!("date: {error}"))?;
    let name = needed(ask.by())?;
    let key = Label::new(&name).map_err(|error| format!("{} {name:?}: {error}", ask.by()))?;
    let volume = number("volume")?.ok_or("volume is missing: write million tokens")?;
    let cost = match (number("price")?, number("cost")?) {
        (Some(price), None) => {
            let cost = price.times(volume).and_then(|cost| cost.decimal_half_even(PLACES_MAX));
            cost.map_err(|error| format!("price times volume: {error}"))?
        }
        (None, Some(cost)) => cost,
        (None, None) => {
            return Err(format!("write the price of {name}, or its cost: weights alone make no value"));
        }
        (Some(_), Some(_)) => return Err("price and cost: write one of them".to_owned()),
    };
    if volume.is_positive() || cost == Decimal::ZERO {
        Ok(((date, key), Observed { volume, cost }))
    } else {
        Err(format!("volume is zero and the cost of {name} is {cost}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> Ask {
        let options = Options {
            currency: Some("USD".to_owned()),
            from: Some("2026-09-01".to_owned()),
            to: Some("2026-10-01".to_owned()),
            ..Options::default()
        };
        options.ask("TPI").unwrap()
    }

    fn problems(text: &str) -> Vec<(u64, String)> {
        read_file(text, &ask()).errors
    }

    #[test]
    fn every_bad_row_of_a_file_is_told_with_its_line() {
        let text = "date,provider,volume,price\n2026-09-01,a,10,2\n2026-09-01,a,11,2\n2026-09-31,b,1,1\n\
                    2026-09-01,c,-1,2\n2026-09-01,d,1,\n2026-09-01,,1,2\n2026-09-01,e,x,2\n";
        let told = problems(text);
        let expected = [
            (3, "is on line 2 too"),
            (4, "date:"),
            (5, "volume -1 is below zero"),
            (6, "write the price of d"),
            (7, "provider is missing"),
            (8, "volume \"x\" is no decimal"),
        ];
        assert_eq!(told.len(), expected.len(), "{told:?}");
        for ((line, problem), (at, part)) in told.iter().zip(expected) {
            assert!(*line == at && problem.contains(part), "{line}: {problem}");
        }
        assert!(problems("").len() == 1 && problems("date,provider,tokens\n2026-09-01,a,1\n").len() == 1);
    }

    #[test]
    fn options_that_cannot_be_are_told_with_what_may_be() {
        let good = Options {
            currency: Some("USD".to_owned()),
            from: Some("2026-09-01".to_owned()),
            to: Some("2026-10-01".to_owned()),
            ..Options::default()
        };
        let check = |options: Options, part: &str| {
            let Err(error) = options.ask("TPI") else { panic!("{part}") };
            assert!(error.to_string().contains(part), "{error}");
        };
        check(Options { cap: Some("0".to_owned()), ..good.clone() }, "cap \"0\"");
        check(Options { cap: Some("101".to_owned()), ..good.clone() }, "cap \"101\"");
        check(Options { days: Some(0), ..good.clone() }, "days 0");
        check(Options { places: Some(13), ..good.clone() }, "places 13");
        check(Options { by: Some("team".to_owned()), ..good.clone() }, "use provider or model");
        check(Options { to: Some("2026-09-01".to_owned()), ..good.clone() }, "2026-09-01");
        check(Options { currency: Some("dollar".to_owned()), ..good.clone() }, "no currency code");
        check(Options { version: Some(0), ..good.clone() }, "counts from 1");
        check(Options { from: None, ..good }, "from is missing");
    }
}
