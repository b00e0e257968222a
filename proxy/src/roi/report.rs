//! `roi`: the question as options say it, and the answer as a document.
//!
//! Invariants
//! - Amounts are rounded already; ratios are exact until they are printed with ten decimals, half-even.
//! - A figure that is undefined is null, and `reasons` says why; what is unknown is null, never a zero.
//! - A group's figures come from summed values, costs and tokens.
//!
//! Not here: the figures (`ledger::roi`, `policies::roi`), tables (`cli::roi`).

use crate::hedge::AskError;
use crate::hedge::report::{Options as HedgeOptions, missing, money, position, share};
use crate::report::{absent, rfc3339, tokens as token_counts};
use bursar_domain::{Currency, Money, Outcome, Timestamp};
use bursar_ledger::hedge::HedgeSource;
use bursar_ledger::roi::{
    Costs, RoiAsk, RoiError, RoiReport, RoiRow, Value as Earned, has_contracts, report, tokens,
};
use bursar_ledger::{GroupKey, KeyValue, Totals};
use bursar_policies::attribution::{CAVEAT, DEFAULT_HALF_LIFE_MICROS, ModelName};
use bursar_policies::exact::{ExactError, Ratio};
use bursar_policies::hedge::calendar::Month;
use bursar_policies::hedge::cost::{Line, Lines};
use bursar_policies::roi::{Basis, Cost, Figure, Value as Valued, per_outcome, roi};
use jiff::ToSpan;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Decimals of a ratio and of an amount per million tokens.
const PLACES: u32 = 10;
/// Decimals of an amount per thousand tokens.
const PLACES_PER_THOUSAND: u32 = 12;
const DAY_MICROS: u64 = 86_400_000_000;
/// How old a touch may be when nothing is said.
const LOOK_BACK_DAYS: u64 = 30;
/// Most days of a look-back or a half-life.
const DAYS_MAX: u64 = 3_660;
/// Most rows that moved.
const MOVERS_MAX: usize = 1_000;

/// Figures of a line of CSV or of a workbook, behind the group keys.
pub(crate) const COLUMNS: [&str; 39] = [
    "requests",
    "successes",
    "tokens.input_tokens",
    "tokens.input_cached_read",
    "tokens.input_cache_write",
    "tokens.output_tokens",
    "tokens.output_reasoning",
    "total_tokens",
    "unpriced_requests",
    "cost.list",
    "cost.contracted",
    "cost.billed",
    "cost.effective",
    "cost.hedged",
    "cost.status",
    "hedge.displaced",
    "hedge.contract",
    "hedge.payoff",
    "hedge.premium",
    "hedge.fees",
    "hedge.unused",
    "hedge.fx",
    "revenue",
    "savings",
    "net",
    "roi",
    "roi_with_savings",
    "roi_unhedged",
    "roi_unhedged_with_savings",
    "net_per_million_tokens",
    "net_per_million_tokens_with_savings",
    "net_per_thousand_tokens",
    "cost_per_million_tokens",
    "cost_per_million_tokens_unhedged",
    "revenue_per_million_tokens",
    "gross_margin",
    "cost_per_request",
    "cost_per_success",
    "hedge_uplift",
];

/// The options, as they are written.
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
    /// Hedge unit: `Mtok` (when absent) or `MSIT`.
    pub(crate) unit: Option<String>,
    /// Reporting currency; USD when absent.
    pub(crate) currency: Option<String>,
    /// The last day that is in the figures; today when absent, yesterday when there are contracts.
    pub(crate) on: Option<String>,
    /// With the fixings and rates that were known at this time; now when absent.
    pub(crate) as_of: Option<String>,
    /// How credit is shared out; `linear` when absent.
    pub(crate) model: Option<String>,
    /// How old a touch may be, such as `30d` (when absent).
    pub(crate) look_back: Option<String>,
    /// Half-life of `time_decay`, such as `7d` (when absent).
    pub(crate) half_life: Option<String>,
    /// Whether every model is shown beside the one asked for.
    pub(crate) compare: Option<bool>,
    /// How many rows that moved most against the period before are shown.
    pub(crate) movers: Option<usize>,
    /// Whether rows by team and by workload and the contracts come with it, as workbooks and pages show.
    pub(crate) sheets: Option<bool>,
    /// `restated` (when absent): with everything known; `reported`: as of the month's close.
    #[serde(rename = "as")]
    pub(crate) view: Option<String>,
}

fn days(name: &str, text: Option<&str>, usual: u64) -> Result<u64, AskError> {
    let Some(text) = text else { return Ok(usual) };
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok());
    let days = days.filter(|days| (1..=DAYS_MAX).contains(days));
    days.map(|days| days.saturating_mul(DAY_MICROS)).ok_or_else(|| {
        AskError::Wrong(format!("{name} {text:?}: write whole days such as 30d, at most {DAYS_MAX}d"))
    })
}

impl Options {
    /// The question; `contracts` tells whether prices of today may still be missing.
    pub(crate) fn ask(&self, now: Timestamp, contracts: bool) -> Result<RoiAsk, AskError> {
        let today = || {
            let zone = TimeZone::get(self.tz.as_deref().unwrap_or("UTC")).ok()?;
            let at = jiff::Timestamp::from_microsecond(now.micros()).ok()?;
            Some(at.to_zoned(zone).date().to_string())
        };
        let hedge = HedgeOptions {
            from: self.from.clone(),
            to: self.to.clone(),
            tz: self.tz.clone(),
            by: self.by.clone(),
            unit: self.unit.clone(),
            currency: self.currency.clone(),
            on: self.on.clone().or_else(|| if contracts { None } else { today() }),
            as_of: self.as_of.clone(),
            ..HedgeOptions::default()
        };
        let name = self.model.as_deref().unwrap_or("linear");
        let model = ModelName::from_name(name).ok_or_else(|| {
            let names: Vec<&str> = ModelName::ALL.iter().map(|model| model.name()).collect();
            AskError::Wrong(format!("model {name:?} is unknown: use {}", names.join(", ")))
        })?;
        let usual = LOOK_BACK_DAYS.saturating_mul(DAY_MICROS);
        Ok(RoiAsk {
            hedge: hedge.ask(now)?,
            model,
            look_back_micros: days("look_back", self.look_back.as_deref(), usual)?,
            half_life_micros: days("half_life", self.half_life.as_deref(), DEFAULT_HALF_LIFE_MICROS)?,
            compare: self.compare.unwrap_or(false),
        })
    }
}

impl From<RoiError> for AskError {
    fn from(error: RoiError) -> Self {
        match error {
            RoiError::Hedge(error) => error.into(),
            RoiError::Model(_)
            | RoiError::TooManyTouches
            | RoiError::TooMuchToLookAt
            | RoiError::TooManySessions
            | RoiError::TooManyRows
            | RoiError::Calendar(_) => Self::Wrong(error.to_string()),
            RoiError::Read(_) | RoiError::Query(_) | RoiError::Unbalanced(_) | RoiError::Exact(_) => {
                Self::Ledger(error.to_string())
            }
        }
    }
}

impl From<bursar_domain::MoneyError> for AskError {
    fn from(error: bursar_domain::MoneyError) -> Self {
        ExactError::Money(error).into()
    }
}

/// The report as a document.
pub(crate) fn document(
    source: &dyn HedgeSource,
    options: &Options,
    now: Timestamp,
) -> Result<Value, AskError> {
    match options.view.as_deref() {
        None | Some("restated") => restated(source, options, now),
        Some("reported") => super::period::reported(source, options, now),
        Some(other) => Err(AskError::Wrong(format!("as {other:?}: use reported or restated"))),
    }
}

/// The report with everything that is known.
fn restated(source: &dyn HedgeSource, options: &Options, now: Timestamp) -> Result<Value, AskError> {
    let contracts = has_contracts(&source.finance_facts()?);
    let ask = options.ask(now, contracts)?;
    let found = report(source, &ask)?;
    let mut document = render(&found, &ask)?;
    add_more(source, options, (&ask, &found), &mut document)?;
    Ok(document)
}

/// What is shown only where it is asked for: rows that moved, and what workbooks and pages have.
pub(super) fn add_more(
    source: &dyn HedgeSource,
    options: &Options,
    (ask, found): (&RoiAsk, &RoiReport),
    document: &mut Value,
) -> Result<(), AskError> {
    let Some(object) = document.as_object_mut() else { return Ok(()) };
    if let Some(count) = options.movers {
        let earlier = report(source, &before(ask, found)?)?;
        object.insert("movers".to_owned(), movers(found, &earlier, ask, count.min(MOVERS_MAX))?);
    }
    if options.sheets == Some(true) {
        object.insert("sheets".to_owned(), sheets(source, ask, found)?);
    }
    Ok(())
}

/// The same question by team and by workload, and what each contract did.
fn sheets(source: &dyn HedgeSource, ask: &RoiAsk, found: &RoiReport) -> Result<Value, AskError> {
    let mut sheets = Map::new();
    for (name, key) in [("team", GroupKey::Team), ("workload", GroupKey::Workload)] {
        let mut ask = ask.clone();
        ask.compare = false;
        ask.hedge.by = vec![key];
        let mut document = render(&report(source, &ask)?, &ask)?;
        if let Some(document) = document.as_object_mut() {
            document.retain(|name, _| {
                ["by", "rows", "unattributed", "residual", "book"].contains(&name.as_str())
            });
        }
        sheets.insert(name.to_owned(), document);
    }
    let contracts = found.hedge.positions.iter().map(position).collect::<Result<Vec<_>, _>>()?;
    sheets.insert("contracts".to_owned(), contracts.into());
    Ok(Value::Object(sheets))
}

/// The same question about as many days before.
fn before(ask: &RoiAsk, found: &RoiReport) -> Result<RoiAsk, AskError> {
    let out_of_range = |_| AskError::Wrong("the period before is out of the calendar's range".to_owned());
    let from = found.hedge.from;
    let length = found.hedge.until.since(from).map_err(out_of_range)?.get_days();
    let mut before = ask.clone();
    before.compare = false;
    before.hedge.from = from.checked_sub(length.days()).map_err(out_of_range)?;
    before.hedge.until = from;
    Ok(before)
}

/// The report as a document, without the period before.
pub(crate) fn render(found: &RoiReport, ask: &RoiAsk) -> Result<Value, AskError> {
    let currency = ask.hedge.currency;
    let names: Vec<String> = ask.hedge.by.iter().map(ToString::to_string).collect();
    let known = found.earned.known;
    let (mut rows, mut total, mut loose) = (Vec::new(), Sum::new(currency), Sum::new(currency));
    for (key, row) in &found.rows {
        let mut object = keys(&ask.hedge.by, key);
        let sum = Sum::of(row)?;
        total = total.plus(&sum)?;
        if is_loose(&ask.hedge.by, key) {
            loose = loose.plus(&sum)?;
        }
        sum.figures(known, &mut object)?;
        rows.push(Value::Object(object));
    }
    let mut whole = Map::new();
    total.figures(known, &mut whole)?;
    let mut unallocated = Map::new();
    loose.figures(known, &mut unallocated)?;
    let book = found.hedge.cost.book;
    let hedged = book.effective()?;
    let unattributed = found.earned.attributed.unattributed;
    Ok(json!({
        "period": {
            "from": found.hedge.from.to_string(),
            "to": found.hedge.until.to_string(),
            "tz": ask.hedge.zone.iana_name().unwrap_or("UTC"),
        },
        "on": ask.hedge.today.to_string(),
        "currency": currency.code(),
        "unit": ask.hedge.unit.to_string(),
        "by": names,
        "rows": rows,
        "total": whole,
        "residual": lines_only(&found.hedge.cost.residual)?,
        "unallocated": unallocated,
        "unattributed": value(unattributed, known),
        "book": book_of(found, currency)?,
        "book_total": money(hedged),
        "balance": balance(found, &total)?,
        "received": received(found),
        "bridge": bridge(found)?,
        "trend": trend(found, known)?,
        "compare": compare(found, ask)?,
        "coverage": coverage(found)?,
        "unpriced": gaps(found),
        "complete": found.complete(),
        "provisional": found.hedge.cost.provisional(),
        "method": method(ask),
        "as_of": rfc3339(ask.hedge.as_of),
    }))
}

pub(super) fn keys(by: &[GroupKey], key: &[KeyValue]) -> Map<String, Value> {
    let name = |(by, value): (&GroupKey, &KeyValue)| {
        (by.to_string(), Value::from(value.text().unwrap_or_else(|| absent(by))))
    };
    by.iter().zip(key).map(name).collect()
}

/// Whether a row lacks a name that says who it is for.
fn is_loose(by: &[GroupKey], key: &[KeyValue]) -> bool {
    let names_someone = |by: &GroupKey| {
        matches!(
            by,
            GroupKey::Team | GroupKey::Workload | GroupKey::Customer | GroupKey::Session | GroupKey::Tag(_)
        )
    };
    by.iter().zip(key).any(|(by, value)| names_someone(by) && *value == KeyValue::Unallocated)
}

/// What rows add up to.
struct Sum {
    totals: Totals,
    costs: Costs,
    lines: Lines,
    basis: Basis,
}

impl Sum {
    fn new(currency: Currency) -> Self {
        Self {
            totals: Totals::default(),
            costs: Costs::default(),
            lines: Lines::zero(currency),
            basis: Basis::zero(currency),
        }
    }

    fn of(row: &RoiRow) -> Result<Self, AskError> {
        Ok(Self { totals: row.totals.clone(), costs: row.costs, lines: row.lines, basis: row.basis()? })
    }

    fn plus(mut self, other: &Self) -> Result<Self, AskError> {
        self.totals.merge(&other.totals);
        self.costs = self.costs.plus(other.costs)?;
        self.lines.add_all(&other.lines)?;
        self.basis = self.basis.plus(other.basis)?;
        Ok(self)
    }

    /// Whether nothing of what was used has a price.
    fn unpriced(&self) -> bool {
        self.totals.unpriced > 0 && self.totals.priced == 0 && self.totals.partly_priced == 0
    }

    fn status(&self) -> Value {
        let Totals { priced, unpriced, partly_priced, .. } = self.totals;
        match (priced, unpriced, partly_priced) {
            (0, 0, 0) => Value::Null,
            (_, 0, 0) => "priced".into(),
            (0, _, 0) => "unpriced".into(),
            _ => "partly_priced".into(),
        }
    }

    fn figures(&self, known: bool, object: &mut Map<String, Value>) -> Result<(), AskError> {
        let unpriced = self.unpriced();
        let successes = self.totals.outcome(Outcome::Ok);
        object.insert("requests".to_owned(), self.totals.requests.into());
        object.insert("successes".to_owned(), successes.into());
        object.insert("tokens".to_owned(), Value::Object(token_counts(&self.totals)));
        object.insert("total_tokens".to_owned(), tokens(&self.totals.usage).into());
        object.insert("unpriced_requests".to_owned(), self.totals.unpriced.into());
        let mut cost = Map::new();
        cost.insert("list".to_owned(), self.costs.list.map(money).into());
        cost.insert("contracted".to_owned(), self.costs.contracted.map(money).into());
        cost.extend(cost_of(&self.lines)?);
        if unpriced {
            cost.values_mut().for_each(|amount| *amount = Value::Null);
        }
        cost.insert("status".to_owned(), self.status());
        object.insert("cost".to_owned(), Value::Object(cost));
        object.insert("hedge".to_owned(), hedge(&self.lines));
        let earned = Earned { revenue: self.basis.revenue, savings: self.basis.savings };
        if let Value::Object(earned) = value(earned, known) {
            object.extend(earned);
        }
        self.ratios((known, unpriced), successes, object)
    }

    fn ratios(
        &self,
        (known, unpriced): (bool, bool),
        successes: u64,
        object: &mut Map<String, Value>,
    ) -> Result<(), AskError> {
        use {Cost as C, Valued as V};
        let basis = &self.basis;
        let mut reasons = Map::new();
        let mut say = |name: &str, needs_value: bool, figure: Figure, places: u32| {
            let reason = match (needs_value && !known, unpriced) {
                (true, _) => "no_revenue_events",
                (_, true) => "unpriced",
                _ => figure.flag(),
            };
            let text = if reason.is_empty() { figure.text(places)? } else { None };
            if !reason.is_empty() {
                reasons.insert(name.to_owned(), reason.into());
            }
            object.insert(name.to_owned(), text.into());
            Ok::<_, AskError>(())
        };
        let plain = V::Revenue;
        say("roi", true, basis.roi(plain, C::Effective)?, PLACES)?;
        say("roi_with_savings", true, basis.roi(V::WithSavings, C::Effective)?, PLACES)?;
        say("roi_unhedged", true, basis.roi(plain, C::Spot)?, PLACES)?;
        say("roi_unhedged_with_savings", true, basis.roi(V::WithSavings, C::Spot)?, PLACES)?;
        say("net_per_million_tokens", true, basis.net_per_million(plain, C::Effective)?, PLACES)?;
        let both = basis.net_per_million(V::WithSavings, C::Effective)?;
        say("net_per_million_tokens_with_savings", true, both, PLACES)?;
        say("net_per_million_tokens_unhedged", true, basis.net_per_million(plain, C::Spot)?, PLACES)?;
        let both_unhedged = basis.net_per_million(V::WithSavings, C::Spot)?;
        say("net_per_million_tokens_unhedged_with_savings", true, both_unhedged, PLACES)?;
        let thousand = |figure: Figure| match figure {
            Figure::Of(ratio) => Ok::<_, AskError>(Figure::Of(ratio.over(Ratio::whole(1_000))?)),
            other => Ok(other),
        };
        let net = basis.net_per_million(plain, C::Effective)?;
        say("net_per_thousand_tokens", true, thousand(net)?, PLACES_PER_THOUSAND)?;
        say("net_per_thousand_tokens_with_savings", true, thousand(both)?, PLACES_PER_THOUSAND)?;
        say("cost_per_million_tokens", false, basis.cost_per_million(C::Effective)?, PLACES)?;
        say("cost_per_million_tokens_unhedged", false, basis.cost_per_million(C::Spot)?, PLACES)?;
        say("revenue_per_million_tokens", true, basis.revenue_per_million()?, PLACES)?;
        say("gross_margin", true, basis.gross_margin(C::Effective)?, PLACES)?;
        say("cost_per_request", false, per_outcome(basis.effective, self.totals.requests)?, PLACES)?;
        say("cost_per_success", false, per_outcome(basis.effective, successes)?, PLACES)?;
        let uplift = (!unpriced).then(|| basis.uplift()).transpose()?;
        object.insert("hedge_uplift".to_owned(), uplift.map(money).into());
        let net = (known && !unpriced).then(|| basis.net(plain, C::Effective)).transpose()?;
        object.insert("net".to_owned(), net.map(money).into());
        if !reasons.is_empty() {
            object.insert("reasons".to_owned(), Value::Object(reasons));
        }
        Ok(())
    }
}

/// Revenue and savings; null where nobody told of any event.
fn value(earned: Earned, known: bool) -> Value {
    let amount = |amount: Money| known.then(|| money(amount));
    json!({ "revenue": amount(earned.revenue), "savings": amount(earned.savings) })
}

/// Cost as billed, after commitments, and after hedges.
fn cost_of(lines: &Lines) -> Result<Map<String, Value>, AskError> {
    let parts =
        [("billed", lines.get(Line::Spot)), ("effective", effective(lines)?), ("hedged", lines.effective()?)];
    Ok(parts.into_iter().map(|(name, amount)| (name.to_owned(), money(amount).into())).collect())
}

/// After commitments, before cash hedges: spot − displaced + contract + unused.
fn effective(lines: &Lines) -> Result<Money, AskError> {
    let after = lines.get(Line::Spot).checked_sub(lines.get(Line::Displaced))?;
    Ok(after.checked_add(lines.get(Line::Contract))?.checked_add(lines.get(Line::Unused))?)
}

fn hedge(lines: &Lines) -> Value {
    let parts = Line::ALL.iter().filter(|line| **line != Line::Spot);
    parts
        .map(|line| (line.name().to_owned(), Value::from(money(lines.get(*line)))))
        .collect::<Map<_, _>>()
        .into()
}

/// The residual has no usage: only what contracts left to nobody.
fn lines_only(lines: &Lines) -> Result<Value, AskError> {
    Ok(json!({ "cost": cost_of(lines)?, "hedge": hedge(lines) }))
}

/// All cost against all that was received, the residual and what is nobody's included.
fn book_of(found: &RoiReport, currency: Currency) -> Result<Value, AskError> {
    let mut sum = Sum::new(currency);
    sum.totals = found.totals.clone();
    sum.costs = found.costs;
    sum.lines = found.hedge.cost.book;
    sum.basis = Basis {
        revenue: found.earned.total.revenue,
        savings: found.earned.total.savings,
        spot: sum.lines.get(Line::Spot),
        effective: sum.lines.effective()?,
        tokens: tokens(&found.totals.usage).unwrap_or(0).into(),
    };
    let mut object = Map::new();
    sum.figures(found.earned.known, &mut object)?;
    Ok(Value::Object(object))
}

/// Both invariants with their figures.
fn balance(found: &RoiReport, total: &Sum) -> Result<Value, AskError> {
    let rows = total.lines.effective()?;
    let residual = found.hedge.cost.residual.effective()?;
    let book = found.hedge.cost.book.effective()?;
    let costs = rows.checked_add(residual)? == book;
    let mut earned = Map::new();
    let nobody = found.earned.attributed.unattributed;
    let mut balanced = costs;
    for (name, attributed, nobody, received) in [
        ("revenue", total.basis.revenue, nobody.revenue, found.earned.total.revenue),
        ("savings", total.basis.savings, nobody.savings, found.earned.total.savings),
    ] {
        let equal = attributed.checked_add(nobody)? == received;
        balanced = balanced && equal;
        earned.insert(
            name.to_owned(),
            json!({ "attributed": money(attributed), "unattributed": money(nobody), "received": money(received), "balanced": equal }),
        );
    }
    Ok(json!({
        "rows": money(rows), "residual": money(residual), "book": money(book),
        "revenue": earned.remove("revenue"), "savings": earned.remove("savings"),
        "balanced": balanced,
    }))
}

/// What came in, by currency, before anything was shared out.
fn received(found: &RoiReport) -> Value {
    let currencies = found.earned.received.iter().map(|(currency, received)| {
        json!({
            "currency": currency.code(),
            "events": received.events,
            "revenue": money(received.amount.revenue),
            "savings": money(received.amount.savings),
            "revenue_converted": money(received.converted.revenue),
            "savings_converted": money(received.converted.savings),
        })
    });
    let levels =
        found.earned.by_level.iter().map(|(level, events)| (level.name().to_owned(), (*events).into()));
    json!({
        "events": found.earned.events,
        "by_currency": currencies.collect::<Vec<_>>(),
        "matched_by": levels.collect::<Map<_, _>>(),
        "refund_fx_difference": money(found.earned.fx_difference),
        "refunds_without_rate": found.earned.fx_unknown,
    })
}

/// From public prices to what it really cost, step by step.
fn bridge(found: &RoiReport) -> Result<Value, AskError> {
    let book = &found.hedge.cost.book;
    let steps = [
        ("list", found.costs.list),
        ("contracted", found.costs.contracted),
        ("billed", Some(book.get(Line::Spot))),
        ("effective", Some(effective(book)?)),
        ("hedged", Some(book.effective()?)),
    ];
    let mut last: Option<Money> = None;
    let mut rows = Vec::new();
    for (step, amount) in steps {
        let both = last.zip(amount);
        let change = both.map(|(before, amount)| amount.checked_sub(before)).transpose()?;
        rows.push(json!({ "step": step, "amount": amount.map(money), "change": change.map(money) }));
        last = amount;
    }
    Ok(rows.into())
}

/// Cost, value and return of each month of the period.
fn trend(found: &RoiReport, known: bool) -> Result<Value, AskError> {
    let mut rows = Vec::new();
    for (window, cost) in &found.hedge.months {
        let month = Month::of(window.from());
        let zero = Money::zero(found.hedge.cost.currency);
        let earned = found.earned.months.get(&month);
        let earned = earned.copied().unwrap_or(Earned { revenue: zero, savings: zero });
        let (spot, hedged) = (cost.book.get(Line::Spot), cost.book.effective()?);
        let count = found.tokens_by_month.get(&month.first()).copied().unwrap_or(0);
        let basis = Basis {
            revenue: earned.revenue,
            savings: earned.savings,
            spot,
            effective: hedged,
            tokens: count.into(),
        };
        let ratio = |figure: Figure| if known { figure.text(PLACES) } else { Ok(None) };
        rows.push(json!({
            "month": month.to_string(),
            "from": window.from().to_string(),
            "to": window.until().to_string(),
            "tokens": count,
            "billed": money(spot),
            "hedged": money(hedged),
            "revenue": known.then(|| money(earned.revenue)),
            "savings": known.then(|| money(earned.savings)),
            "roi": ratio(basis.roi(Valued::Revenue, Cost::Effective)?)?,
            "net_per_million_tokens": ratio(basis.net_per_million(Valued::Revenue, Cost::Effective)?)?,
            "cost_per_million_tokens": basis.cost_per_million(Cost::Effective)?.text(PLACES)?,
        }));
    }
    Ok(rows.into())
}

/// Every model side by side.
fn compare(found: &RoiReport, ask: &RoiAsk) -> Result<Value, AskError> {
    let mut models = Vec::new();
    for (model, attributed) in &found.earned.compared {
        let attributed = match attributed {
            Ok(attributed) => attributed,
            Err(problem) => {
                models.push(json!({ "model": model.name(), "error": problem }));
                continue;
            }
        };
        let mut rows = Vec::new();
        for (key, row) in &found.rows {
            let mut object = keys(&ask.hedge.by, key);
            let zero = Money::zero(ask.hedge.currency);
            let earned = attributed.rows.get(key).copied();
            let earned = earned.unwrap_or(Earned { revenue: zero, savings: zero });
            if let Value::Object(earned) = value(earned, found.earned.known) {
                object.extend(earned);
            }
            let unpriced = Sum::of(row)?.unpriced() || !found.earned.known;
            let figure = roi(earned.revenue, row.lines.effective()?)?;
            let text = if unpriced { None } else { figure.text(PLACES)? };
            object.insert("roi".to_owned(), text.into());
            rows.push(Value::Object(object));
        }
        let nobody = value(attributed.unattributed, found.earned.known);
        models.push(json!({ "model": model.name(), "rows": rows, "unattributed": nobody }));
    }
    Ok(models.into())
}

fn coverage(found: &RoiReport) -> Result<Value, AskError> {
    let text = |share: Option<Ratio>| share.map(|share| share.text_half_even(4)).transpose();
    let shares = &found.coverage;
    let rows = found.hedge.cost.rows.values();
    let volume = Ratio::sum_near(rows.clone().map(|row| row.volume))?;
    let covered = Ratio::sum_near(rows.map(|row| row.covered))?;
    Ok(json!({
        "attributed_revenue": text(shares.attributed)?,
        "tagged_cost": text(shares.tagged)?,
        "measured_tokens": text(shares.measured)?,
        "unpriced_requests": text(shares.unpriced)?,
        "hedged_volume": share(covered, volume)?,
    }))
}

/// Everything that is not in the figures, in words.
fn gaps(found: &RoiReport) -> Vec<Value> {
    let mut gaps = missing(&found.hedge);
    gaps.extend(found.earned.no_rate.iter().map(|gap| {
        let reason = format!(
            "in {} without an exchange rate on {}: import the rate; they are in no figure",
            gap.currency, gap.date
        );
        json!({ "what": "revenue", "events": gap.events, "reason": reason })
    }));
    let known = found.hedge.unusable.len();
    gaps.extend(found.unusable.iter().skip(known).map(
        |fact| json!({ "what": "fact", "id": fact.name, "sequence": fact.sequence, "reason": fact.reason }),
    ));
    gaps
}

fn method(ask: &RoiAsk) -> Value {
    let days = |micros: u64| format!("{}d", micros / DAY_MICROS);
    json!({
        "model": ask.model.name(),
        "look_back": days(ask.look_back_micros),
        "half_life": (ask.model == ModelName::TimeDecay || ask.compare).then(|| days(ask.half_life_micros)),
        "matching": "request, trace, session, customer and workload, workload, tag; the first that finds a touch",
        "value": "roi counts revenue, refunds taken off; roi_with_savings adds savings",
        "cost": "hedged cost: billed, after commitments and hedges; roi_unhedged is against billed",
        "tokens": "input with its caches, and output; raw",
        "success": "a request that ended ok",
        "note": CAVEAT,
    })
}

/// The rows whose net result changed most against the period before.
fn movers(found: &RoiReport, before: &RoiReport, ask: &RoiAsk, count: usize) -> Result<Value, AskError> {
    let mut all: BTreeMap<&Vec<KeyValue>, [Option<&RoiRow>; 2]> = BTreeMap::new();
    for (key, row) in &before.rows {
        all.entry(key).or_default()[0] = Some(row);
    }
    for (key, row) in &found.rows {
        all.entry(key).or_default()[1] = Some(row);
    }
    let mut rows = Vec::new();
    for (key, [was, is]) in all {
        let zero = Basis::zero(ask.hedge.currency);
        let basis = |row: Option<&RoiRow>| row.map_or(Ok(zero), RoiRow::basis);
        let (was, is) = (basis(was)?, basis(is)?);
        let (cost, revenue) =
            (is.effective.checked_sub(was.effective)?, is.revenue.checked_sub(was.revenue)?);
        let net = revenue.checked_sub(cost)?;
        if cost.pico() == 0 && revenue.pico() == 0 {
            continue;
        }
        let mut object = keys(&ask.hedge.by, key);
        for (name, amount) in [
            ("cost_before", was.effective),
            ("cost", is.effective),
            ("cost_change", cost),
            ("revenue_before", was.revenue),
            ("revenue", is.revenue),
            ("revenue_change", revenue),
            ("net_change", net),
        ] {
            object.insert(name.to_owned(), money(amount).into());
        }
        rows.push((net.pico().unsigned_abs(), cost.pico().unsigned_abs(), Value::Object(object)));
    }
    rows.sort_by_key(|(net, cost, _)| std::cmp::Reverse((*net, *cost)));
    let rows: Vec<Value> = rows.into_iter().take(count).map(|(_, _, row)| row).collect();
    let (from, to) = (before.hedge.from.to_string(), before.hedge.until.to_string());
    Ok(json!({ "before": { "from": from, "to": to }, "rows": rows }))
}

/// The lines of CSV and of a workbook: the rows, then what is nobody's, the residual and the book; of a month
/// as reported also what came late about each closed one, and the sum.
pub(crate) fn lines(document: &Value) -> Vec<Value> {
    let list = |name: &str| document.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut lines = list("rows");
    let first = list("by").first().and_then(Value::as_str).unwrap_or_default().to_owned();
    for name in ["unattributed", "residual", "book"] {
        let mut line = document.get(name).cloned().unwrap_or(json!({}));
        if let Some(line) = line.as_object_mut() {
            line.insert(first.clone(), format!("({name})").into());
        }
        lines.push(line);
    }
    let corrections = list("corrections");
    let sum = |name: String, from: &Value, cost: &str| {
        let of = |name: &str| from.get(name).cloned().unwrap_or(Value::Null);
        json!({ (first.as_str()): name, "cost": { "hedged": of(cost) }, "revenue": of("revenue"), "savings": of("savings") })
    };
    for correction in &corrections {
        let origin = correction.get("origin").and_then(Value::as_str).unwrap_or_default();
        lines.push(sum(format!("(correction of {origin})"), correction, "book"));
    }
    if let Some(reported) = document.get("reported").filter(|_| !corrections.is_empty()) {
        lines.push(sum("(as reported)".to_owned(), reported, "book_total"));
    }
    lines
}
