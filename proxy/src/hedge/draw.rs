//! Draw-down: what is left of balances and commitments, how fast it goes, and when it is gone.
//!
//! Invariants
//! - Figures follow from usage and contracts alone, by the same waterfall as the report's.
//! - What cannot be told has a reason; it is never a zero.
//! - Of what must be used in its month, day or hour, that month or day is told: what lapsed before is not
//!   left.
//!
//! Not here: the waterfall (`policies::hedge::cost`), pages and tables.

use super::AskError;
use super::report::{Options, money, share, units};
use bursar_domain::{Money, StoredFact, Timestamp, UsageRecord};
use bursar_ledger::hedge::{HedgeAsk, HedgeReport, HedgeSource, report, state};
use bursar_ledger::{
    GrainRow, GroupKey, Hourly, QueryError, ReadError, ReadFrom, RecordRange, Records, UsageQuery,
    UsageReport,
};
use bursar_policies::exact::{ExactError, Ratio};
use bursar_policies::hedge::calendar::{Month, Window};
use bursar_policies::hedge::position::{Group, Interval, Position};
use bursar_policies::price::ClassCosts;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;

/// A run-out beyond this many days is none.
const DAYS_MAX: i64 = 36_500;

/// What is left of one position.
struct DrawDown {
    unit: String,
    committed: Ratio,
    used: Ratio,
    left: Ratio,
    per_day: Ratio,
    days: u32,
    since: Date,
    lapses_after: Date,
    runs_out: Option<Date>,
    unused: Money,
}

/// A draw-down, or why there is none yet.
type Told = Result<DrawDown, String>;

/// Whether there is anything to draw.
fn draws(position: &Position) -> bool {
    matches!(position.terms().kind.group(), Group::Pool | Group::Units)
}

/// The days of which the quantity of a position is told on the day `on`.
fn stretch(position: &Position, on: Date) -> Option<Window> {
    let terms = position.terms();
    let window = terms.timing.effective;
    let last = on.min(window.last());
    if terms.kind.group() == Group::Pool || position.carries_over() {
        return Window::new(window.from(), last.tomorrow().ok()?).ok();
    }
    let interval = terms.commitment.as_ref().map(|terms| terms.fulfilment);
    match interval {
        Some(Interval::Hour | Interval::Day) => Window::new(last, last.tomorrow().ok()?).ok(),
        _ => Month::of(last).window().ok()?.overlap(window),
    }
}

/// What is left of a balance or commitment after the day `on`; null for what has nothing to draw.
pub(crate) fn remaining(
    source: &dyn HedgeSource,
    position: &Position,
    on: Date,
    options: &Options,
    now: Timestamp,
) -> Result<Value, AskError> {
    if !draws(position) {
        return Ok(Value::Null);
    }
    let window = position.terms().timing.effective;
    if on < window.from() {
        return Ok(json!({ "reason": format!("it begins on {}", window.from()) }));
    }
    let drawn = match draw_down_on(source, position, on, options.ask(now)?)? {
        Ok(drawn) => drawn,
        Err(reason) => return Ok(json!({ "reason": reason })),
    };
    Ok(json!({
        "unit": drawn.unit,
        "committed": units(drawn.committed)?,
        "used": units(drawn.used)?,
        "left": units(drawn.left)?,
        "used_share": share(drawn.used, drawn.committed)?,
        "per_day": units(drawn.per_day)?,
        "days": drawn.days,
        "runs_out": drawn.runs_out.map(|date| date.to_string()),
        "since": drawn.since.to_string(),
        "lapses_after": drawn.lapses_after.to_string(),
        "unused_so_far": money(drawn.unused),
    }))
}

/// The draw-down of one position on the day `on`, which is not before it begins.
fn draw_down_on(
    source: &dyn HedgeSource,
    position: &Position,
    on: Date,
    mut ask: HedgeAsk,
) -> Result<Told, AskError> {
    let Some(days) = stretch(position, on) else { return Ok(Err("it is out of any calendar".to_owned())) };
    (ask.from, ask.until, ask.today) = (days.from(), days.until(), days.last());
    if position.terms().kind.group() == Group::Pool {
        // A balance is told in its own currency.
        ask.currency = position.terms().economics.price_currency;
    }
    // All of a month's quantity is there from its beginning; what was used is told up to the day.
    let outside = on.tomorrow().unwrap_or(on).to_zoned(ask.zone.clone());
    let outside = outside.map_or(i64::MAX, |at| at.timestamp().as_microsecond());
    let source = Before { source, outside: Timestamp::from_micros(outside) };
    let found = report(&source, &ask)?;
    draw_down(&found, position, &ask, on)
}

/// What a report that begins with the stretch of the position, or before, says of it on the day `on`.
fn draw_down(found: &HedgeReport, position: &Position, ask: &HedgeAsk, on: Date) -> Result<Told, AskError> {
    let terms = position.terms();
    let row = found.positions.iter().find(|row| row.position == *position.id());
    let Some(result) = row.and_then(|row| row.result.as_ref()) else {
        let gap = found.cost.unpriced.iter().find(|gap| gap.position == *position.id());
        return Ok(
            Err(gap.map_or_else(|| "nothing of it was used".to_owned(), |gap| gap.reason.to_string())),
        );
    };
    let last = on.min(terms.timing.effective.last());
    let stretch = stretch(position, on);
    let since = stretch.map_or(last, Window::from);
    let days = Window::new(since, last.tomorrow().unwrap_or(last)).map_or(1, |window| window.days());
    let carries = terms.kind.group() == Group::Pool || position.carries_over();
    let lapses_after = match stretch {
        Some(stretch) if !carries => stretch.last(),
        _ => {
            let expiry = terms.commitment.as_ref().and_then(|terms| terms.expiry);
            let end = terms.timing.effective.last();
            expiry.map_or(end, |expiry| expiry.min(end))
        }
    };
    let (unit, committed, used) = match terms.kind.group() {
        Group::Pool => (ask.currency.code().to_owned(), position.units()?, Ratio::of(result.used)),
        _ if position.carries_over() => {
            let used = result.covered;
            let legs = |month: &bursar_policies::hedge::cost::CostReport| {
                month.legs.iter().find(|leg| leg.position == *position.id()).map(|leg| leg.over)
            };
            let left = found.months.iter().rev().find_map(|(_, month)| legs(month));
            (ask.unit.to_string(), left.unwrap_or(Ratio::ZERO).plus_near(used)?, used)
        }
        _ => (ask.unit.to_string(), result.quantity, result.covered),
    };
    let left = committed.minus_near(used)?.or_zero();
    let per_day = used.over_near(Ratio::whole(i128::from(days)))?;
    let runs_out = if per_day.is_positive() { run_out(left, per_day, last)? } else { None };
    // What is there anew in the next month does not run out in it.
    let runs_out = runs_out.filter(|date| carries || *date <= lapses_after);
    let unused = result.unused;
    Ok(Ok(DrawDown { unit, committed, used, left, per_day, days, since, lapses_after, runs_out, unused }))
}

/// A ledger without the usage from an instant on.
struct Before<'a> {
    source: &'a dyn HedgeSource,
    outside: Timestamp,
}

impl Before<'_> {
    fn query(&self, query: &UsageQuery) -> UsageQuery {
        let to = query.to.map_or(self.outside, |to| to.min(self.outside));
        // Nothing lies between an instant and itself.
        UsageQuery { from: query.from.map(|from| from.min(to)), to: Some(to), ..query.clone() }
    }
}

impl HedgeSource for Before<'_> {
    fn finance_facts(&self) -> Result<Vec<Arc<StoredFact>>, ReadError> {
        self.source.finance_facts()
    }

    fn ask_usage(&self, query: &UsageQuery) -> Result<UsageReport, QueryError> {
        self.source.ask_usage(&self.query(query))
    }

    fn ask_twice(
        &self,
        query: &UsageQuery,
        groupings: [Vec<GroupKey>; 2],
    ) -> Result<[UsageReport; 2], QueryError> {
        self.source.ask_twice(&self.query(query), groupings)
    }

    fn ask_grains(
        &self,
        query: &UsageQuery,
        hourly: &Hourly<'_>,
    ) -> Result<(Vec<GrainRow>, ReadFrom), QueryError> {
        self.source.ask_grains(&self.query(query), hourly)
    }

    fn read_records(&self, range: RecordRange) -> Records {
        let to = range.to.map_or(self.outside, |to| to.min(self.outside));
        self.source.read_records(RecordRange { to: Some(to), ..range })
    }

    fn class_costs(&self, record: &UsageRecord) -> Option<ClassCosts> {
        self.source.class_costs(record)
    }
}

/// The day on which what is left is gone at this rate; `None` beyond any calendar.
fn run_out(left: Ratio, per_day: Ratio, last: Date) -> Result<Option<Date>, AskError> {
    let days = left.over_near(per_day)?.text_half_even(0)?;
    let days: i64 = days.parse().unwrap_or(i64::MAX);
    if days > DAYS_MAX {
        return Ok(None);
    }
    Ok(last.checked_add(jiff::Span::new().days(days)).ok())
}

/// Lines of the metrics page: what is left of every balance and commitment that is running, by the usage
/// until now. Reads the ledger: not for an async thread.
pub(crate) fn metrics(source: &dyn HedgeSource, now: Timestamp) -> Result<String, AskError> {
    let facts = source.finance_facts()?;
    let state = state(&facts);
    let mut ask = Options::default().ask(now)?;
    let Some(today) = day_of(now) else { return Ok(String::new()) };
    ask.today = today;
    let running: Vec<&Position> = state
        .intake
        .portfolio
        .in_force()
        .map(|(position, _)| position)
        .filter(|position| draws(position) && position.terms().timing.effective.contains(today))
        .collect();
    let mut lines = [String::new(), String::new(), String::new(), String::new()];
    let currency_of = |position: &&Position| match position.terms().kind.group() {
        Group::Pool => position.terms().economics.price_currency,
        _ => bursar_domain::Currency::USD,
    };
    // One report tells all that stand for their whole term; of the others, each its own month or day.
    let (standing, renewed): (Vec<&Position>, Vec<&Position>) = running
        .into_iter()
        .partition(|position| position.terms().kind.group() == Group::Pool || position.carries_over());
    for position in renewed {
        if let Ok(drawn) = draw_down_on(source, position, today, ask.clone())? {
            tell(position, &drawn, &mut lines)?;
        }
    }
    let currencies: std::collections::BTreeSet<_> = standing.iter().map(currency_of).collect();
    for currency in currencies {
        let mine = || standing.iter().filter(|position| currency_of(position) == currency);
        let first = mine().map(|position| position.terms().timing.effective.from()).min();
        ask.currency = currency;
        ask.from = first.unwrap_or(today);
        ask.until = today.tomorrow().unwrap_or(today);
        let found = report(source, &ask)?;
        for position in mine() {
            if let Ok(drawn) = draw_down(&found, position, &ask, today)? {
                tell(position, &drawn, &mut lines)?;
            }
        }
    }
    let mut page = String::new();
    for ((name, help), lines) in GAUGES.iter().zip(&lines) {
        if !lines.is_empty() {
            let _ = write!(page, "# HELP bursar_{name} {help}.\n# TYPE bursar_{name} gauge\n{lines}");
        }
    }
    Ok(page)
}

const GAUGES: [(&str, &str); 4] = [
    ("contract_committed", "Size of a balance or commitment that is running"),
    ("contract_left", "What is left of it, by the usage until now"),
    ("contract_used_per_day", "How fast it goes, on average since it began"),
    ("contract_runs_out_timestamp_seconds", "When it is gone at that rate; absent when it never is"),
];

fn tell(position: &Position, drawn: &DrawDown, lines: &mut [String; 4]) -> Result<(), ExactError> {
    let [committed, left, per_day, runs_out] = lines;
    let name = position.id().as_str().replace('\\', "\\\\").replace('"', "\\\"");
    let labels = format!("{{position=\"{name}\",unit=\"{}\"}}", drawn.unit);
    let at = drawn.runs_out.and_then(|day| day.to_zoned(TimeZone::UTC).ok());
    for (lines, (metric, _), value) in [
        (committed, GAUGES[0], Some(units(drawn.committed)?)),
        (left, GAUGES[1], Some(units(drawn.left)?)),
        (per_day, GAUGES[2], Some(units(drawn.per_day)?)),
        (runs_out, GAUGES[3], at.map(|at| at.timestamp().as_second().to_string())),
    ] {
        if let Some(value) = value {
            let _ = writeln!(lines, "bursar_{metric}{labels} {value}");
        }
    }
    Ok(())
}

fn day_of(now: Timestamp) -> Option<Date> {
    let at = jiff::Timestamp::from_microsecond(now.micros()).ok()?;
    Some(at.to_zoned(TimeZone::UTC).date())
}
