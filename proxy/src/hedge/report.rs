//! `hedge report`: the question as options say it, and the answer as a document.
//!
//! Invariants
//! - Every report carries its balance: rows + residual = book, and says whether anything is missing.
//! - Amounts are rounded already (the waterfall rounds once); they are printed in full.
//!
//! Not here: the figures (`ledger::hedge`, `policies::hedge::cost`), tables (`cli::hedge`).

use super::AskError;
use super::priced::OtherPrices;
use crate::report::rfc3339;
use bursar_domain::money::{format_pico, parse_pico};
use bursar_domain::{Currency, Money, Timestamp};
use bursar_ledger::hedge::{
    HedgeAsk, HedgeError, HedgeReport, HedgeSource, PositionRow, Repriced, SpotCost, report,
};
use bursar_ledger::{GroupKey, KeyValue, QueryError, ReadError, ReadFrom};
use bursar_policies::exact::{Decimal, ExactError, Ratio};
use bursar_policies::hedge::calendar::{Month, parse_day};
use bursar_policies::hedge::cost::{Line, Lines};
use bursar_policies::hedge::profile::Unit;
use bursar_policies::price::PriceBook;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The options of every question about hedges, as they are written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Options {
    /// First day; the first of the month of the valuation day when absent.
    pub(crate) from: Option<String>,
    /// First day outside; the day after the valuation day when absent.
    pub(crate) to: Option<String>,
    /// Whose days; UTC when absent.
    pub(crate) tz: Option<String>,
    /// Group keys, separated by commas; `team` when absent.
    pub(crate) by: Option<String>,
    /// `Mtok` (when absent) or `MSIT`.
    pub(crate) unit: Option<String>,
    /// Reporting currency; USD when absent.
    pub(crate) currency: Option<String>,
    /// `list`, `contracted` or `billed` (when absent).
    pub(crate) spot: Option<String>,
    /// The last day that is over; yesterday when absent.
    pub(crate) on: Option<String>,
    /// What was known at this time; now when absent.
    pub(crate) as_of: Option<String>,
    /// Also the cost with every cash contract at this part of its size.
    pub(crate) hedge_ratio: Option<String>,
    /// Of `risk`: forecast units by month, `2026-10=36000,2026-11=40000`.
    pub(crate) forecast: Option<String>,
    /// Of `risk`: a GPU-hour position and a token position to compare.
    pub(crate) compare: Option<String>,
    /// Of `effectiveness`: deviations to decompose, `common=0.20,provider=0.06`.
    pub(crate) basis: Option<String>,
    /// Of `effectiveness`: fewest changes on which a regression is judged; eight when absent.
    pub(crate) points: Option<usize>,
}

impl Options {
    /// The question.
    pub(crate) fn ask(&self, now: Timestamp) -> Result<HedgeAsk, AskError> {
        let wrong = |text: String| AskError::Wrong(text);
        let name = self.tz.as_deref().unwrap_or("UTC");
        let zone = TimeZone::get(name).map_err(|_| {
            wrong(format!("tz {name:?} is no IANA time zone: write a name such as Europe/Paris"))
        })?;
        let day = |option: &str, text: &Option<String>| {
            let parsed = text.as_deref().map(parse_day).transpose();
            parsed.map_err(|error| wrong(format!("{option}: {error}")))
        };
        let today = match day("on", &self.on)? {
            Some(day) => day,
            None => yesterday(now, &zone).ok_or_else(|| wrong("the clock is out of range".to_owned()))?,
        };
        let from = day("from", &self.from)?.unwrap_or_else(|| Month::of(today).first());
        let until = day("to", &self.to)?.unwrap_or_else(|| today.tomorrow().unwrap_or(today));
        if until <= from {
            return Err(wrong("from is not before to: the period is empty".to_owned()));
        }
        let by = crate::report::parse_by(self.by.as_deref().unwrap_or("team"), "by");
        let unit = match self.unit.as_deref() {
            None | Some("Mtok") => Unit::Mtok,
            Some("MSIT") => Unit::Msit,
            Some(other) => return Err(wrong(format!("unit {other:?}: a book counts in Mtok or MSIT"))),
        };
        let code = self.currency.as_deref().unwrap_or("USD");
        let ratio = self.hedge_ratio.as_deref().map(Decimal::parse).transpose();
        let ratio = ratio.map_err(|_| wrong("hedge_ratio is a decimal such as 0.5".to_owned()))?;
        if ratio.is_some_and(Decimal::is_negative) {
            return Err(wrong("hedge_ratio is zero or more".to_owned()));
        }
        Ok(HedgeAsk {
            from,
            until,
            zone,
            by: by.map_err(|error| wrong(error.to_string()))?,
            unit,
            currency: Currency::parse(code)
                .ok()
                .filter(|currency| currency.is_listed())
                .ok_or_else(|| wrong(format!("currency {code:?} is no currency code")))?,
            spot: match self.spot.as_deref() {
                None | Some("billed") => SpotCost::Billed,
                Some("contracted") => SpotCost::Contracted,
                Some("list") => SpotCost::List,
                Some(other) => {
                    return Err(wrong(format!("spot {other:?}: use list, contracted or billed")));
                }
            },
            today,
            as_of: self.known_at(now)?,
            ratio,
        })
    }

    fn known_at(&self, now: Timestamp) -> Result<Timestamp, AskError> {
        let Some(text) = &self.as_of else { return Ok(now) };
        let period = crate::period::parse(Some(text), None, "UTC", now, crate::period::PARAMETERS);
        let wrong = || AskError::Wrong(format!("as_of {text:?} is no time: write 2026-10-02T12:00:00Z"));
        period.ok().and_then(|period| period.from).ok_or_else(wrong)
    }
}

fn yesterday(now: Timestamp, zone: &TimeZone) -> Option<Date> {
    let at = jiff::Timestamp::from_microsecond(now.micros()).ok()?;
    at.to_zoned(zone.clone()).date().yesterday().ok()
}

impl From<HedgeError> for AskError {
    fn from(error: HedgeError) -> Self {
        match error {
            HedgeError::NothingYet { .. } | HedgeError::TooManyRecords(_) | HedgeError::Calendar(_) => {
                Self::Wrong(error.to_string())
            }
            HedgeError::Query(QueryError::Read(error @ ReadError::Pruned(_)))
            | HedgeError::Read(error @ ReadError::Pruned(_)) => error.into(),
            HedgeError::Query(_) | HedgeError::Read(_) | HedgeError::Cost(_) => {
                Self::Ledger(error.to_string())
            }
        }
    }
}

impl From<ExactError> for AskError {
    fn from(error: ExactError) -> Self {
        Self::Ledger(error.to_string())
    }
}

/// The report as a document, beside what the same usage and positions make at other prices.
pub(crate) fn document_beside(
    source: &dyn HedgeSource,
    options: &Options,
    other: Option<PriceBook>,
    now: Timestamp,
) -> Result<Value, AskError> {
    let mut document = document(source, options, now)?;
    let Some(book) = other else { return Ok(document) };
    let ask = options.ask(now)?;
    let prices = Arc::new(OtherPrices::new(book));
    let found = report(&Repriced::new(source, prices.clone()), &ask)?;
    let mut there = render(&found, &ask)?;
    differences(&document, &mut there, ask.currency)?;
    if let (Some(there), Some(document)) = (there.as_object_mut(), document.as_object_mut()) {
        for same in ["period", "on", "currency", "unit", "by", "method", "read_from"] {
            there.remove(same);
        }
        there.insert("kept_records".to_owned(), prices.kept().into());
        document.insert("at_other_prices".to_owned(), Value::Object(there.clone()));
    }
    Ok(document)
}

/// How much more each row, the residual and the book cost there: nothing where one of them is not here.
fn differences(here: &Value, there: &mut Value, currency: Currency) -> Result<(), AskError> {
    let keys = here.get("by").and_then(Value::as_array).cloned().unwrap_or_default();
    let names: Vec<&str> = keys.iter().filter_map(Value::as_str).collect();
    let key_of = |row: &Value| names.iter().map(|name| row.get(*name).cloned()).collect::<Vec<_>>();
    let rows = here.get("rows").and_then(Value::as_array).cloned().unwrap_or_default();
    for row in there.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten() {
        let same = rows.iter().find(|other| key_of(other) == key_of(row));
        tell_difference(same, row, currency)?;
    }
    for name in ["residual", "book"] {
        if let Some(row) = there.get_mut(name) {
            tell_difference(here.get(name), row, currency)?;
        }
    }
    Ok(())
}

fn tell_difference(here: Option<&Value>, there: &mut Value, currency: Currency) -> Result<(), AskError> {
    let mut told = Map::new();
    for name in ["spot", "effective", "hedged"] {
        let amount = |row: &Value| {
            let text = row.get("cost").and_then(|cost| cost.get(name)).and_then(Value::as_str);
            text.map(parse_pico).transpose().map_err(ExactError::Money)
        };
        let (before, after) = (here.map(amount).transpose()?.flatten(), amount(there)?);
        let change = before.zip(after).and_then(|(before, after)| after.checked_sub(before));
        told.insert(name.to_owned(), change.map(|pico| money(Money::from_pico(currency, pico))).into());
    }
    if let Some(row) = there.as_object_mut() {
        row.insert("difference".to_owned(), Value::Object(told));
    }
    Ok(())
}

/// The report as a document.
pub(crate) fn document(
    source: &dyn HedgeSource,
    options: &Options,
    now: Timestamp,
) -> Result<Value, AskError> {
    let ask = options.ask(now)?;
    let found = report(source, &ask)?;
    let mut document = render(&found, &ask)?;
    if let (Some(ratio), Some(scaled), Some(object)) = (ask.ratio, &found.at_ratio, document.as_object_mut())
    {
        let book = money(scaled.book.effective()?);
        object.insert(
            "at_hedge_ratio".to_owned(),
            json!({ "hedge_ratio": ratio.to_string(), "book_total": book }),
        );
    }
    if let Some(object) = document.as_object_mut() {
        object.insert("as_of".to_owned(), rfc3339(ask.as_of).into());
    }
    Ok(document)
}

fn render(found: &HedgeReport, ask: &HedgeAsk) -> Result<Value, AskError> {
    let names: Vec<String> = ask.by.iter().map(ToString::to_string).collect();
    let mut rows = Vec::new();
    for (label, row) in &found.cost.rows {
        let mut object = Map::new();
        let about = found.rows.get(label);
        for (index, (key, name)) in ask.by.iter().zip(&names).enumerate() {
            let value = about.and_then(|about| about.key.get(index)).and_then(KeyValue::text);
            // A row without usage of its own is its owner's: the team that carries a commitment.
            let owner = (about.is_none() && *key == GroupKey::Team).then(|| label.as_str());
            let value = value.or(owner).unwrap_or("unallocated");
            object.insert(name.clone(), value.into());
        }
        object.insert("requests".to_owned(), about.map_or(0, |about| about.requests).into());
        object.insert("tokens".to_owned(), about.map_or(0, |about| about.tokens).into());
        object.insert("unpriced_requests".to_owned(), about.map_or(0, |about| about.unpriced).into());
        object.insert("volume".to_owned(), units(row.volume)?.into());
        object.insert("covered".to_owned(), units(row.covered)?.into());
        object.insert("coverage".to_owned(), share(row.covered, row.volume)?.into());
        figures(&row.lines, &mut object)?;
        // What a row cost is unknown when nothing of it is priced; its parts of hedges stay.
        let unpriced = about.is_some_and(|about| about.requests > 0 && about.unpriced >= about.requests)
            && row.lines.get(Line::Spot).pico() == 0;
        if let Some(Value::Object(cost)) = object.get_mut("cost").filter(|_| unpriced) {
            cost.values_mut().for_each(|amount| *amount = Value::Null);
        }
        rows.push(Value::Object(object));
    }
    let mut residual = Map::new();
    figures(&found.cost.residual, &mut residual)?;
    let mut book = Map::new();
    figures(&found.cost.book, &mut book)?;
    let (volume, covered) = volumes(found)?;
    let missing = missing(found);
    Ok(json!({
        "period": { "from": found.from.to_string(), "to": found.until.to_string(), "tz": ask.zone.iana_name().unwrap_or("UTC") },
        "on": ask.today.to_string(),
        "currency": ask.currency.code(),
        "unit": ask.unit.to_string(),
        "by": names,
        "rows": rows,
        "residual": residual,
        "book": book,
        "book_total": money(found.cost.book.effective()?),
        "balance": balance(found)?,
        "coverage": { "volume": units(volume)?, "covered": units(covered)?, "share": share(covered, volume)? },
        "positions": found.positions.iter().map(position).collect::<Result<Vec<_>, _>>()?,
        "months": months(found)?,
        "unpriced": missing,
        "complete": found.complete(),
        "provisional": found.cost.provisional(),
        "without_hedge": money(found.cost.book.get(Line::Spot)),
        "method": "waterfall by rank then id; payoff, premium and fees by each position's allocation rule; \
                   over-hedge and what is unallocated to the residual; marks beside cost, never in it",
        "read_from": match found.read_from { ReadFrom::Rollups => "rollups", ReadFrom::Records => "records" },
    }))
}

/// Everything that is not in the figures, in words.
pub(crate) fn missing(found: &HedgeReport) -> Vec<Value> {
    let positions = found.cost.unpriced.iter().map(
        |gap| json!({ "what": "position", "id": gap.position.as_str(), "reason": gap.reason.to_string() }),
    );
    let usage = found
        .gaps
        .iter()
        .map(|(gap, requests)| json!({ "what": "usage", "requests": requests, "reason": gap.to_string() }));
    let facts = found.unusable.iter().map(
        |fact| json!({ "what": "fact", "id": fact.name, "sequence": fact.sequence, "reason": fact.reason }),
    );
    positions.chain(usage).chain(facts).collect()
}

/// The invariant, with its figures: it was checked, or there would be no report.
fn balance(found: &HedgeReport) -> Result<Value, AskError> {
    let mut rows = Money::zero(found.cost.currency);
    for row in found.cost.rows.values() {
        rows = rows.checked_add(row.lines.effective()?).map_err(ExactError::Money)?;
    }
    let residual = found.cost.residual.effective()?;
    let book = found.cost.book.effective()?;
    let sum = rows.checked_add(residual).map_err(ExactError::Money)?;
    Ok(json!({
        "rows": money(rows), "residual": money(residual), "book": money(book), "balanced": sum == book,
    }))
}

fn volumes(found: &HedgeReport) -> Result<(Ratio, Ratio), AskError> {
    let rows = found.cost.rows.values();
    let volume = Ratio::sum_near(rows.clone().map(|row| row.volume))?;
    Ok((volume, Ratio::sum_near(rows.map(|row| row.covered))?))
}

fn months(found: &HedgeReport) -> Result<Vec<Value>, AskError> {
    let mut months = Vec::new();
    for (window, report) in &found.months {
        let rows = report.rows.values();
        let volume = Ratio::sum_near(rows.clone().map(|row| row.volume))?;
        let covered = Ratio::sum_near(rows.map(|row| row.covered))?;
        months.push(json!({
            "from": window.from().to_string(),
            "to": window.until().to_string(),
            "spot": money(report.book.get(Line::Spot)),
            "hedged": money(report.book.effective()?),
            "payoff": money(report.book.get(Line::Payoff)),
            "coverage": share(covered, volume)?,
            "provisional": report.provisional(),
            "complete": report.complete(),
        }));
    }
    Ok(months)
}

/// A position over the period: what it did for cost, and beside it what it is worth.
pub(crate) fn position(row: &PositionRow) -> Result<Value, AskError> {
    let mut object = Map::new();
    object.insert("position_id".to_owned(), row.position.as_str().into());
    object.insert("kind".to_owned(), row.kind.name().into());
    object.insert("status".to_owned(), row.status.name().into());
    if let Some(result) = &row.result {
        for (name, value) in
            [("quantity", result.quantity), ("covered", result.covered), ("over", result.over)]
        {
            object.insert(name.to_owned(), units(value)?.into());
        }
        for (name, amount) in [
            ("payoff", result.payoff),
            ("effective_payoff", result.effective),
            ("over_hedge", result.over_hedge),
            ("used", result.used),
            ("displaced", result.displaced),
            ("unused", result.unused),
            ("premium", result.premium),
            ("fees", result.fees),
        ] {
            object.insert(name.to_owned(), money(amount).into());
        }
        object.insert("covers_nothing".to_owned(), result.covers_nothing.into());
        object.insert("provisional".to_owned(), result.provisional.into());
    }
    let mark = row.mark.map(|mark| json!({ "amount": money(mark), "currency": mark.currency().code() }));
    object.insert("mark_to_market".to_owned(), mark.unwrap_or(Value::Null));
    Ok(Value::Object(object))
}

/// Cost in its three meanings, and the components between them.
fn figures(lines: &Lines, object: &mut Map<String, Value>) -> Result<(), AskError> {
    let spot = lines.get(Line::Spot);
    let add = |sum: Money, part: Money| sum.checked_add(part).map_err(ExactError::Money);
    let take = |sum: Money, part: Money| sum.checked_sub(part).map_err(ExactError::Money);
    let effective = take(spot, lines.get(Line::Displaced))?;
    let effective = add(add(effective, lines.get(Line::Contract))?, lines.get(Line::Unused))?;
    object.insert(
        "cost".to_owned(),
        json!({ "spot": money(spot), "effective": money(effective), "hedged": money(lines.effective()?) }),
    );
    let parts = Line::ALL.iter().filter(|line| **line != Line::Spot);
    let parts: Map<String, Value> =
        parts.map(|line| (line.name().to_owned(), money(lines.get(*line)).into())).collect();
    object.insert("hedge".to_owned(), Value::Object(parts));
    Ok(())
}

/// An amount as text, with at least the decimals of its currency.
pub(crate) fn money(amount: Money) -> String {
    let text = format_pico(amount.pico());
    let decimals = amount.currency().minor_decimals() as usize;
    let have = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    if have >= decimals {
        return text;
    }
    let point = if have == 0 { "." } else { "" };
    format!("{text}{point}{}", "0".repeat(decimals.saturating_sub(have)))
}

/// Units as a decimal of at most six places.
pub(crate) fn units(value: Ratio) -> Result<String, ExactError> {
    let text = value.text_half_even(6)?;
    Ok(text.trim_end_matches('0').trim_end_matches('.').to_owned())
}

/// A part of a whole to four places; `None` of nothing.
pub(crate) fn share(part: Ratio, whole: Ratio) -> Result<Option<String>, ExactError> {
    if whole.is_positive() { part.over_near(whole)?.text_half_even(4).map(Some) } else { Ok(None) }
}
