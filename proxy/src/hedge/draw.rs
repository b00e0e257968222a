//! Draw-down: what is left of balances and commitments, how fast it goes, and when it is gone.
//!
//! Invariants
//! - Figures follow from usage and contracts alone, by the same waterfall as the report's.
//! - What cannot be told has a reason; it is never a zero.
//!
//! Not here: the waterfall (`policies::hedge::cost`), pages and tables.

use super::AskError;
use super::report::{Options, money, share, units};
use bursar_domain::{Money, Timestamp};
use bursar_ledger::hedge::{HedgeAsk, HedgeReport, HedgeSource, report, state};
use bursar_policies::exact::{ExactError, Ratio};
use bursar_policies::hedge::calendar::Window;
use bursar_policies::hedge::position::{Group, Position};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::fmt::Write as _;

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
    runs_out: Option<Date>,
    unused: Money,
}

/// A draw-down, or why there is none yet.
type Told = Result<DrawDown, String>;

/// Whether there is anything to draw.
fn draws(position: &Position) -> bool {
    matches!(position.terms().kind.group(), Group::Pool | Group::Units)
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
    let last = on.min(window.last());
    let mut ask = options.ask(now)?;
    (ask.from, ask.until, ask.today) = (window.from(), last.tomorrow().unwrap_or(last), last);
    if position.terms().kind.group() == Group::Pool {
        // A balance is told in its own currency.
        ask.currency = position.terms().economics.price_currency;
    }
    let found = report(source, &ask)?;
    let drawn = match draw_down(&found, position, &ask)? {
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
        "lapses_after": window.last().to_string(),
        "unused_so_far": money(drawn.unused),
    }))
}

/// What a report that begins with the position, or before, says of it.
fn draw_down(found: &HedgeReport, position: &Position, ask: &HedgeAsk) -> Result<Told, AskError> {
    let terms = position.terms();
    let row = found.positions.iter().find(|row| row.position == *position.id());
    let Some(result) = row.and_then(|row| row.result.as_ref()) else {
        let gap = found.cost.unpriced.iter().find(|gap| gap.position == *position.id());
        return Ok(
            Err(gap.map_or_else(|| "nothing of it was used".to_owned(), |gap| gap.reason.to_string())),
        );
    };
    let last = ask.today.min(terms.timing.effective.last());
    let window = Window::new(terms.timing.effective.from(), last.tomorrow().unwrap_or(last));
    let days = window.map_or(1, |window| window.days());
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
    let unused = result.unused;
    Ok(Ok(DrawDown { unit, committed, used, left, per_day, days, runs_out, unused }))
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
    let currencies: std::collections::BTreeSet<_> = running.iter().map(currency_of).collect();
    for currency in currencies {
        let mine = || running.iter().filter(|position| currency_of(position) == currency);
        let first = mine().map(|position| position.terms().timing.effective.from()).min();
        ask.currency = currency;
        ask.from = first.unwrap_or(today);
        ask.until = today.tomorrow().unwrap_or(today);
        let found = report(source, &ask)?;
        for position in mine() {
            if let Ok(drawn) = draw_down(&found, position, &ask)? {
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
