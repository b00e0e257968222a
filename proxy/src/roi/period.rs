//! Closed months: closing one, what was reported then, and what came late.
//!
//! Invariants
//! - A closed month is reported from the ledger as it was at the close; nothing later changes it.
//! - What came late about a closed month is a correction in the first open one: the month as it is now
//!   less the month as it was when the last month was closed. Months as reported, corrections included,
//!   sum to months as restated.
//! - All months are closed in the same terms, so their reports can be added.
//!
//! Not here: keeping reports (`ledger::periods`), the figures (`roi::report`).

use super::report::{self, Options, keys};
use crate::app::Prices;
use crate::hedge::AskError;
use crate::hedge::priced::Priced;
use crate::hedge::report::money;
use crate::report::rfc3339;
use bursar_domain::{Clock, FactKind, Money, Timestamp};
use bursar_ledger::hedge::HedgeSource;
use bursar_ledger::periods::{CloseError, Closed, Manifest, UpTo, closed, periods};
use bursar_ledger::roi::{RoiReport, RoiRow, has_contracts, report as compute, revenue_months, tokens};
use bursar_ledger::{KeyValue, Ledger, RecordRange};
use bursar_policies::hedge::calendar::Month;
use bursar_policies::hedge::cost::Line;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// In which terms a month is closed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Terms {
    /// Whose days.
    pub(crate) tz: Option<String>,
    /// Reporting currency.
    pub(crate) currency: Option<String>,
    /// Hedge unit.
    pub(crate) unit: Option<String>,
    /// Group keys of the rows; `team,workload` when absent.
    pub(crate) by: Option<String>,
    /// Attribution model.
    pub(crate) model: Option<String>,
    /// How old a touch may be.
    pub(crate) look_back: Option<String>,
    /// Half-life of `time_decay`.
    pub(crate) half_life: Option<String>,
}

/// How a month is closed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CloseOptions {
    /// Whose days.
    pub(crate) tz: Option<String>,
    /// Reporting currency.
    pub(crate) currency: Option<String>,
    /// Hedge unit.
    pub(crate) unit: Option<String>,
    /// Group keys of the rows.
    pub(crate) by: Option<String>,
    /// Attribution model.
    pub(crate) model: Option<String>,
    /// How old a touch may be.
    pub(crate) look_back: Option<String>,
    /// Half-life of `time_decay`.
    pub(crate) half_life: Option<String>,
    /// The last day that is valued; yesterday when absent.
    pub(crate) on: Option<String>,
    /// Close although something is missing or provisional.
    pub(crate) accept_gaps: Option<bool>,
}

impl CloseOptions {
    /// The terms that are asked; what is absent is as in the last close.
    fn terms(&self) -> Terms {
        Terms {
            tz: self.tz.clone(),
            currency: self.currency.clone(),
            unit: self.unit.clone(),
            by: self.by.clone(),
            model: self.model.clone(),
            look_back: self.look_back.clone(),
            half_life: self.half_life.clone(),
        }
    }
}

impl From<CloseError> for AskError {
    fn from(error: CloseError) -> Self {
        match error {
            CloseError::Period(_) | CloseError::Calendar(_) => Self::Wrong(error.to_string()),
            CloseError::Facts(_) | CloseError::Unreadable { .. } | CloseError::Parts { .. } => {
                Self::Ledger(error.to_string())
            }
        }
    }
}

fn wrong(text: String) -> AskError {
    AskError::Wrong(text)
}

fn month_of(text: &str) -> Result<Month, AskError> {
    Month::parse(text).map_err(|error| wrong(error.to_string()))
}

fn after(month: Month) -> Result<Month, AskError> {
    month.next().map_err(|error| wrong(error.to_string()))
}

/// A state of the ledger, and when it was looked at.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    /// The last sequence that counts.
    pub(crate) sequence: u64,
    /// The last day that is valued; as usual when absent.
    pub(crate) on: Option<String>,
    /// When it was looked at (RFC 3339).
    pub(crate) as_of: String,
}

impl Cut {
    fn of(closed: &Closed) -> Self {
        let Manifest { sequence, on, closed_at, .. } = &closed.manifest;
        Self { sequence: *sequence, on: Some(on.clone()), as_of: closed_at.clone() }
    }
}

impl Terms {
    /// These terms, and those of `base` where these say nothing.
    fn or(&self, base: Self) -> Self {
        let pick = |asked: &Option<String>, base: Option<String>| asked.clone().or(base);
        Self {
            tz: pick(&self.tz, base.tz),
            currency: pick(&self.currency, base.currency),
            unit: pick(&self.unit, base.unit),
            by: pick(&self.by, base.by),
            model: pick(&self.model, base.model),
            look_back: pick(&self.look_back, base.look_back),
            half_life: pick(&self.half_life, base.half_life),
        }
    }

    /// The terms of the last close, with what is asked instead; they cannot change.
    fn settle(asked: &Self, last: Option<&Closed>) -> Result<Self, AskError> {
        let usual = Self {
            tz: Some("UTC".to_owned()),
            currency: Some("USD".to_owned()),
            unit: Some("Mtok".to_owned()),
            by: Some("team,workload".to_owned()),
            model: Some("linear".to_owned()),
            look_back: Some("30d".to_owned()),
            half_life: Some("7d".to_owned()),
        };
        let there = last.map(|last| serde_json::from_value::<Self>(last.manifest.options.clone()));
        let there = there.transpose().map_err(|error| AskError::Ledger(error.to_string()))?;
        let settled = asked.or(there.clone().unwrap_or(usual));
        match there {
            Some(there) if there != settled => Err(wrong(format!(
                "earlier months were closed in other terms ({}): months are closed in the same, so that they add up",
                json!(there)
            ))),
            _ => Ok(settled),
        }
    }

    fn options(&self, month: Month, cut: &Cut) -> Result<Options, AskError> {
        Ok(Options {
            from: Some(month.first().to_string()),
            to: Some(after(month)?.first().to_string()),
            tz: self.tz.clone(),
            by: self.by.clone(),
            unit: self.unit.clone(),
            currency: self.currency.clone(),
            on: cut.on.clone(),
            as_of: Some(cut.as_of.clone()),
            model: self.model.clone(),
            look_back: self.look_back.clone(),
            half_life: self.half_life.clone(),
            ..Options::default()
        })
    }

    fn zone(&self) -> Result<TimeZone, AskError> {
        let name = self.tz.as_deref().unwrap_or("UTC");
        TimeZone::get(name).map_err(|_| wrong(format!("tz {name:?} is no IANA time zone")))
    }
}

/// The figures of a month at a cut.
fn figures(
    source: &dyn HedgeSource,
    terms: &Terms,
    month: Month,
    cut: &Cut,
    now: Timestamp,
) -> Result<(RoiReport, Options), AskError> {
    let source = UpTo::new(source, cut.sequence);
    let options = terms.options(month, cut)?;
    let ask = options.ask(now, has_contracts(&source.finance_facts()?))?;
    Ok((compute(&source, &ask)?, options))
}

/// A month as it is reported at a cut: its own figures, and corrections of closed months since `last`; of
/// `wanted`, what is shown only where it is asked for.
fn document_at(
    source: &dyn HedgeSource,
    terms: &Terms,
    (month, wanted): (Month, &Options),
    (cut, earlier): (&Cut, &[Closed]),
    now: Timestamp,
) -> Result<Value, AskError> {
    let (found, options) = figures(source, terms, month, cut, now)?;
    let ask = options.ask(now, true)?;
    let mut document = report::render(&found, &ask)?;
    report::add_more(&UpTo::new(source, cut.sequence), wanted, (&ask, &found), &mut document)?;
    let mut sums =
        [found.hedge.cost.book.effective()?, found.earned.total.revenue, found.earned.total.savings];
    let mut corrections = Vec::new();
    if let Some((since, months)) = touched(source, terms, month, (cut, earlier))? {
        for origin in months {
            let (was, _) = figures(source, terms, origin, &since, now)?;
            let (is, _) = figures(source, terms, origin, cut, now)?;
            if let Some(correction) = correction(origin, &was, &is, &ask.hedge.by, &mut sums)? {
                corrections.push(correction);
            }
        }
    }
    let [book, revenue, savings] = sums.map(money);
    if let Some(object) = document.as_object_mut() {
        object.insert("view".to_owned(), "reported".into());
        object.insert("month".to_owned(), month.to_string().into());
        object.insert("sequence".to_owned(), cut.sequence.into());
        object.insert("corrections".to_owned(), corrections.into());
        let sums = json!({ "book_total": book, "revenue": revenue, "savings": savings });
        object.insert("reported".to_owned(), sums);
    }
    Ok(document)
}

/// Of the month after the last closed one: the state at that close, and the closed months about which
/// something may have come since.
fn touched(
    source: &dyn HedgeSource,
    terms: &Terms,
    month: Month,
    (cut, earlier): (&Cut, &[Closed]),
) -> Result<Option<(Cut, Vec<Month>)>, AskError> {
    let Some(last) = earlier.last() else { return Ok(None) };
    if after(last.month)? != month {
        return Ok(None);
    }
    let since = Cut::of(last);
    let first = first_touched(source, terms, &since, cut, month)?;
    let months = earlier.iter().map(|closed| closed.month);
    let months = months.filter(|month| first.is_some_and(|first| first <= *month)).collect();
    Ok(Some((since, months)))
}

/// The earliest month that something recorded between two cuts is about.
fn first_touched(
    source: &dyn HedgeSource,
    terms: &Terms,
    since: &Cut,
    until: &Cut,
    month: Month,
) -> Result<Option<Month>, AskError> {
    let zone = terms.zone()?;
    let mut facts = UpTo::new(source, until.sequence).finance_facts()?;
    facts.retain(|fact| fact.sequence > since.sequence);
    let elsewhere = |kind: FactKind| {
        use FactKind::{BudgetOverride, Checkpoint, ImportBatch, PeriodClose, Revenue};
        !matches!(kind, Revenue | PeriodClose | ImportBatch | Checkpoint | BudgetOverride)
    };
    if facts.iter().any(|stored| elsewhere(stored.fact.kind)) {
        // A price, a rate or a contract may be about any month.
        return Ok(Some(month_of("0001-01")?));
    }
    let mut first = revenue_months(&facts, &zone).into_iter().next();
    let to = month.first().to_zoned(zone.clone()).map_err(|error| wrong(error.to_string()))?;
    let to = Some(Timestamp::from_micros(to.timestamp().as_microsecond()));
    let late = RecordRange { from: None, to, after_sequence: since.sequence };
    for stored in UpTo::new(source, until.sequence).read_records(late) {
        let at = stored?.record.started_at;
        let at = jiff::Timestamp::from_microsecond(at.micros()).unwrap_or_default();
        let about = Month::of(at.to_zoned(zone.clone()).date());
        first = Some(first.map_or(about, |first| first.min(about)));
    }
    Ok(first.filter(|first| *first < month))
}

/// What rows add up to, signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Figures {
    requests: i128,
    tokens: i128,
    money: [Money; 5],
}

const MONEY: [&str; 5] = ["billed", "effective", "hedged", "revenue", "savings"];

impl Figures {
    fn of(row: &RoiRow) -> Result<Self, AskError> {
        let lines = &row.lines;
        let effective = lines.get(Line::Spot).checked_sub(lines.get(Line::Displaced))?;
        let effective =
            effective.checked_add(lines.get(Line::Contract))?.checked_add(lines.get(Line::Unused))?;
        Ok(Self {
            requests: row.totals.requests.into(),
            tokens: tokens(&row.totals.usage).unwrap_or(0).into(),
            money: [
                lines.get(Line::Spot),
                effective,
                lines.effective()?,
                row.value.revenue,
                row.value.savings,
            ],
        })
    }

    fn less(self, other: Self) -> Result<Self, AskError> {
        let mut money = self.money;
        for (mine, theirs) in money.iter_mut().zip(other.money) {
            *mine = mine.checked_sub(theirs)?;
        }
        Ok(Self { requests: self.requests - other.requests, tokens: self.tokens - other.tokens, money })
    }

    fn is_nothing(&self) -> bool {
        self.requests == 0 && self.tokens == 0 && self.money.iter().all(|amount| amount.pico() == 0)
    }
}

/// What became different about a closed month; `None` when nothing did. Adds to `sums`.
fn correction(
    origin: Month,
    was: &RoiReport,
    is: &RoiReport,
    by: &[bursar_ledger::GroupKey],
    sums: &mut [Money; 3],
) -> Result<Option<Value>, AskError> {
    let zero = Money::zero(is.hedge.cost.currency);
    let nothing = Figures { requests: 0, tokens: 0, money: [zero; 5] };
    let mut both: BTreeMap<&Vec<KeyValue>, (Figures, Figures)> = BTreeMap::new();
    for (key, row) in &was.rows {
        both.entry(key).or_insert((nothing, nothing)).0 = Figures::of(row)?;
    }
    for (key, row) in &is.rows {
        both.entry(key).or_insert((nothing, nothing)).1 = Figures::of(row)?;
    }
    let mut rows = Vec::new();
    for (key, (was, is)) in both {
        let change = is.less(was)?;
        if change.is_nothing() {
            continue;
        }
        let mut row: Map<String, Value> = keys(by, key);
        row.insert("requests".to_owned(), i64::try_from(change.requests).unwrap_or(i64::MAX).into());
        row.insert("total_tokens".to_owned(), i64::try_from(change.tokens).unwrap_or(i64::MAX).into());
        for (name, amount) in MONEY.into_iter().zip(change.money) {
            row.insert(name.to_owned(), money(amount).into());
        }
        rows.push(Value::Object(row));
    }
    let book = |report: &RoiReport| report.hedge.cost.book.effective();
    let residual = |report: &RoiReport| report.hedge.cost.residual.effective();
    let changes = [
        book(is)?.checked_sub(book(was)?)?,
        is.earned.total.revenue.checked_sub(was.earned.total.revenue)?,
        is.earned.total.savings.checked_sub(was.earned.total.savings)?,
    ];
    let residual = residual(is)?.checked_sub(residual(was)?)?;
    if rows.is_empty() && residual.pico() == 0 && changes.iter().all(|change| change.pico() == 0) {
        return Ok(None);
    }
    for (sum, change) in sums.iter_mut().zip(changes) {
        *sum = sum.checked_add(change)?;
    }
    let [book, revenue, savings] = changes.map(money);
    Ok(Some(json!({
        "origin": origin.to_string(), "rows": rows, "residual": money(residual), "book": book,
        "revenue": revenue, "savings": savings,
    })))
}

/// The calendar month between two days.
fn month_between(from: Option<&str>, to: Option<&str>) -> Result<Month, AskError> {
    let remedy = "as reported is asked of one calendar month: write --from 2026-09-01 --to 2026-10-01";
    let of = |text: Option<&str>| text.map(bursar_policies::hedge::calendar::parse_day);
    let (Some(Ok(from)), Some(Ok(to))) = (of(from), of(to)) else {
        return Err(wrong(remedy.to_owned()));
    };
    let month = Month::of(from);
    if month.first() != from || after(month)?.first() != to {
        return Err(wrong(remedy.to_owned()));
    }
    Ok(month)
}

/// The state in which a month is reported, and the closed months before it: its own close, or now.
fn cut_of<'c>(closed: &'c [Closed], month: Month, on: Option<&str>, now: Timestamp) -> (Cut, &'c [Closed]) {
    let place = closed.iter().position(|closed| closed.month == month);
    match place.and_then(|place| Some((closed.get(place)?, closed.get(..place)?))) {
        Some((closed, earlier)) => (Cut::of(closed), earlier),
        None => {
            let cut = Cut { sequence: u64::MAX, on: on.map(str::to_owned), as_of: rfc3339(now) };
            (cut, closed)
        }
    }
}

/// Which state of the ledger a month as reported rests on, for exports of what it is made of.
#[derive(Clone, Debug)]
pub(crate) struct Basis {
    /// The month.
    pub(crate) month: Month,
    /// The month after it.
    pub(crate) next: Month,
    /// In which terms months are closed.
    pub(crate) terms: Terms,
    /// The state.
    pub(crate) cut: Cut,
    /// In the month after the last closed one: the state at that close, and the months that may differ.
    pub(crate) since: Option<(Cut, Vec<Month>)>,
    /// The first month that was ever closed.
    first: Option<Month>,
}

/// What the calendar month between two days rests on as it is reported.
pub(crate) fn basis(
    source: &dyn HedgeSource,
    (from, to): (Option<&str>, Option<&str>),
    on: Option<&str>,
    now: Timestamp,
) -> Result<Basis, AskError> {
    let month = month_between(from, to)?;
    let closed = closed(&source.finance_facts()?)?;
    let terms = Terms::settle(&Terms::default(), closed.last())?;
    let (cut, earlier) = cut_of(&closed, month, on, now);
    let since = touched(source, &terms, month, (&cut, earlier))?;
    let first = closed.first().map(|closed| closed.month);
    Ok(Basis { month, next: after(month)?, terms, cut, since, first })
}

/// The records that a month as reported rests on: its own, and in the month after a close those of closed
/// months that came since. Each range with the last sequence that counts.
pub(crate) fn reported_records(
    source: &dyn HedgeSource,
    days: (Option<&str>, Option<&str>),
    now: Timestamp,
) -> Result<Vec<(RecordRange, u64)>, AskError> {
    let basis = basis(source, days, None, now)?;
    let zone = basis.terms.zone()?;
    let start = |month: Month| -> Result<Option<Timestamp>, AskError> {
        let at = month.first().to_zoned(zone.clone()).map_err(|error| wrong(error.to_string()))?;
        Ok(Some(Timestamp::from_micros(at.timestamp().as_microsecond())))
    };
    let last = basis.cut.sequence;
    let own = RecordRange { from: start(basis.month)?, to: start(basis.next)?, after_sequence: 0 };
    let mut ranges = vec![(own, last)];
    if let (Some((since, _)), Some(first)) = (&basis.since, basis.first) {
        let (from, to) = (start(first)?, start(basis.month)?);
        ranges.push((RecordRange { from, to, after_sequence: since.sequence }, last));
    }
    Ok(ranges)
}

/// A report of one month as it was, or now would be, closed.
pub(super) fn reported(
    source: &dyn HedgeSource,
    options: &Options,
    now: Timestamp,
) -> Result<Value, AskError> {
    let month = month_between(options.from.as_deref(), options.to.as_deref())?;
    let closed = closed(&source.finance_facts()?)?;
    let asked = Terms {
        tz: options.tz.clone(),
        currency: options.currency.clone(),
        unit: options.unit.clone(),
        by: options.by.clone(),
        model: options.model.clone(),
        look_back: options.look_back.clone(),
        half_life: options.half_life.clone(),
    };
    let terms = asked.or(Terms::settle(&Terms::default(), closed.last())?);
    let (cut, earlier) = cut_of(&closed, month, options.on.as_deref(), now);
    document_at(source, &terms, (month, options), (&cut, earlier), now)
}

/// Closes a month, by the prices that tell what each token class costs; its manifest.
pub(crate) fn close(
    ledger: &Ledger,
    prices: &Prices,
    (month, options): (&str, &CloseOptions),
    clock: &dyn Clock,
) -> Result<Value, AskError> {
    let now = clock.now();
    let month = month_of(month)?;
    let closed = closed(&ledger.facts())?;
    periods(&closed)
        .and_then(|mut periods| periods.close(month, now))
        .map_err(|error| wrong(error.to_string()))?;
    let terms = Terms::settle(&options.terms(), closed.last())?;
    let zone = terms.zone()?;
    let at = jiff::Timestamp::from_microsecond(now.micros()).unwrap_or_default();
    let today = at.to_zoned(zone).date();
    let next = after(month)?.first();
    if today < next {
        return Err(wrong(format!("{month} is not over: it can be closed on {next}")));
    }
    let on = match &options.on {
        Some(on) => on.clone(),
        None => today.yesterday().unwrap_or(today).to_string(),
    };
    let cut = Cut { sequence: ledger.stats().last_sequence, on: Some(on.clone()), as_of: rfc3339(now) };
    let plain = Options::default();
    let document = document_at(&Priced { ledger, prices }, &terms, (month, &plain), (&cut, &closed), now)?;
    refuse_gaps(&document, options)?;
    let text = format!("{document:#}\n");
    let count = |name: &str| document.get(name).and_then(Value::as_array).map_or(0, Vec::len) as u64;
    let manifest = Manifest {
        month: month.to_string(),
        closed_at: cut.as_of,
        sequence: cut.sequence,
        on,
        options: json!(terms),
        rows: count("rows"),
        corrections: count("corrections"),
        totals: document.get("reported").cloned().unwrap_or_default(),
        bytes: 0,
        sha256: String::new(),
        parts: 0,
    };
    Ok(json!(ledger.close_period(manifest, &text, clock)?))
}

fn refuse_gaps(document: &Value, options: &CloseOptions) -> Result<(), AskError> {
    let says = |name: &str| document.get(name).and_then(Value::as_bool).unwrap_or(false);
    if options.accept_gaps == Some(true) || (says("complete") && !says("provisional")) {
        return Ok(());
    }
    let gaps = document.get("unpriced").and_then(Value::as_array).into_iter().flatten();
    let mut reasons: Vec<String> =
        gaps.filter_map(|gap| gap.get("reason")?.as_str().map(str::to_owned)).take(10).collect();
    if says("provisional") {
        reasons.push("a settlement price is still an average to date".to_owned());
    }
    let reasons = reasons.join("; ");
    Err(wrong(format!(
        "the month is incomplete: {reasons}: import what is missing, or close with --accept-gaps"
    )))
}

/// The closed months.
pub(crate) fn list(source: &dyn HedgeSource) -> Result<Value, AskError> {
    let closed = closed(&source.finance_facts()?)?;
    let rows: Vec<Value> = closed
        .iter()
        .map(|closed| {
            let mut row = json!(closed.manifest);
            if let Some(row) = row.as_object_mut() {
                row.insert("whole".to_owned(), closed.is_whole().into());
            }
            row
        })
        .collect();
    Ok(json!({ "rows": rows }))
}

/// A closed month: its manifest and the bytes that were reported.
pub(crate) fn show(source: &dyn HedgeSource, month: &str) -> Result<Value, AskError> {
    let month = month_of(month)?;
    let closed = closed(&source.finance_facts()?)?;
    let found = closed.iter().find(|closed| closed.month == month);
    let found = found.ok_or_else(|| AskError::Missing(format!("{month} is not closed")))?;
    Ok(json!({ "manifest": found.manifest, "whole": found.is_whole(), "text": found.text }))
}
