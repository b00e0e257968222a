//! `hedge effectiveness`: whether the hedges of past months did what they are held for, on the user's
//! own series.
//!
//! The own price of a month is its spot cost per unit; the hedge's result is its effective payoff per
//! covered unit. From one month to the next, on the units covered in the later one, the item changes by
//! −Δprice·units (dearer usage is a loss) and the hedge by Δresult·units.
//!
//! Invariants
//! - Dollar offset and regression are shown with the range in which they pass; what is undefined is
//!   absent, with the reason.
//! - Variance reduction and volatility reduction stand side by side under their own names.
//!
//! Not here: the tests themselves (`policies::hedge::effectiveness`, `analytics`).

use super::AskError;
use super::report::{Options, money, share, units};
use crate::report::rfc3339;
use bursar_domain::{Currency, Label, Money, Timestamp};
use bursar_ledger::hedge::{HedgeReport, HedgeSource, report, state};
use bursar_policies::exact::{Decimal, ExactError, Ratio};
use bursar_policies::hedge::analytics::{Series, pass_fit, reduction, regression};
use bursar_policies::hedge::cost::Line;
use bursar_policies::hedge::effectiveness::{BasisLeg, DollarOffset, PassRange, basis, dollar_offset};
use bursar_policies::hedge::position::Group;
use bursar_policies::hedge::risk::DISCLAIMER;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Fewest changes from month to month on which a regression is judged, unless the question says.
const POINTS_MIN: usize = 8;
/// Fewest points of which a line can be told at all.
const POINTS_LEAST: usize = 3;

/// One month per unit.
struct Month {
    name: String,
    own: Ratio,
    hedged: Ratio,
    result: Ratio,
    covered: Ratio,
    volume: Ratio,
}

/// The answer as a document.
pub(crate) fn document(
    source: &dyn HedgeSource,
    options: &Options,
    now: Timestamp,
) -> Result<Value, AskError> {
    let ask = options.ask(now)?;
    let found = report(source, &ask)?;
    let (months, left_out) = months(&found)?;
    let range = PassRange::usual()?;
    let points_min = options.points.unwrap_or(POINTS_MIN);
    if points_min < POINTS_LEAST {
        return Err(AskError::Wrong(format!(
            "points {points_min}: a regression needs {POINTS_LEAST} or more"
        )));
    }
    let (offsets, cumulative) = offsets(&months, ask.currency, range)?;
    let own = Series::of_ratios(&months.iter().map(|month| month.own).collect::<Vec<_>>());
    let hedged = Series::of_ratios(&months.iter().map(|month| month.hedged).collect::<Vec<_>>());
    let reduction = match reduction(&own, &hedged) {
        Ok(found) => json!({
            "variance_reduction": figure(found.variance),
            "volatility_reduction": figure(found.volatility),
            "unhedged_variance": figure(found.unhedged_variance),
            "hedged_variance": figure(found.hedged_variance),
        }),
        Err(error) => json!({ "reason": error.to_string() }),
    };
    Ok(json!({
        "period": { "from": found.from.to_string(), "to": found.until.to_string() },
        "currency": ask.currency.code(),
        "unit": ask.unit.to_string(),
        "months": months.iter().map(month_row).collect::<Result<Vec<_>, ExactError>>()?,
        "left_out": left_out,
        "dollar_offset": { "range": ["0.80", "1.25"], "periods": offsets, "cumulative": cumulative },
        "regression": line(&months, points_min, range)?,
        "positions": positions(source, &found, (ask.currency, points_min))?,
        "reduction": reduction,
        "basis": basis_of(options)?,
        "complete": found.complete(),
        "as_of": rfc3339(ask.as_of),
        "note": DISCLAIMER,
    }))
}

/// Months with usage, and the names of those without, which have no price of their own.
fn months(found: &HedgeReport) -> Result<(Vec<Month>, Vec<String>), ExactError> {
    let (mut months, mut left_out) = (Vec::new(), Vec::new());
    for (window, cost) in &found.months {
        let name = window.from().strftime("%Y-%m").to_string();
        let volume = Ratio::sum_near(cost.rows.values().map(|row| row.volume))?;
        if !volume.is_positive() {
            left_out.push(name);
            continue;
        }
        let cash = cost.legs.iter().filter(|leg| leg.effective.pico() != 0 || leg.payoff.pico() != 0);
        let covered = Ratio::sum_near(cash.clone().map(|leg| leg.covered))?;
        let mut result = Ratio::ZERO;
        for leg in cash {
            result = result.plus_near(Ratio::of(leg.effective))?;
        }
        let rows = cost.rows.values().map(|row| row.lines.effective().map(Ratio::of));
        let hedged = Ratio::sum_near(rows.collect::<Result<Vec<_>, _>>()?)?;
        months.push(Month {
            name,
            own: Ratio::of(cost.book.get(Line::Spot)).over_near(volume)?,
            hedged: hedged.over_near(volume)?,
            result: if covered.is_positive() { result.over_near(covered)? } else { Ratio::ZERO },
            covered,
            volume,
        });
    }
    Ok((months, left_out))
}

fn month_row(month: &Month) -> Result<Value, ExactError> {
    Ok(json!({
        "month": month.name,
        "own_price": units(month.own)?,
        "hedged_price": units(month.hedged)?,
        "hedge_result": units(month.result)?,
        "volume": units(month.volume)?,
        "coverage": share(month.covered, month.volume)?,
    }))
}

/// Dollar offsets from month to month and over all of them.
fn offsets(months: &[Month], currency: Currency, range: PassRange) -> Result<(Vec<Value>, Value), AskError> {
    let (mut rows, mut hedge_sum, mut item_sum) = (Vec::new(), Money::zero(currency), Money::zero(currency));
    for (before, month) in months.iter().zip(months.iter().skip(1)) {
        let changed = |from: Ratio, to: Ratio| to.minus_near(from)?.times_near(month.covered, 12);
        let hedge = changed(before.result, month.result)?.money_half_even(currency)?;
        let item = changed(before.own, month.own)?.negated()?.money_half_even(currency)?;
        hedge_sum = hedge_sum.checked_add(hedge).map_err(ExactError::Money)?;
        item_sum = item_sum.checked_add(item).map_err(ExactError::Money)?;
        rows.push(offset_row(Some(&month.name), hedge, item, range)?);
    }
    Ok((rows, offset_row(None, hedge_sum, item_sum, range)?))
}

fn offset_row(month: Option<&str>, hedge: Money, item: Money, range: PassRange) -> Result<Value, ExactError> {
    let (ratio, pass) = match dollar_offset(hedge, item, range)? {
        DollarOffset::Ratio { ratio, pass } => (Some(ratio.text_half_even(4)?), Some(pass)),
        DollarOffset::ItemUnchanged => (None, None),
    };
    let reason = ratio.is_none().then_some("the item did not change: the ratio is undefined");
    Ok(json!({
        "month": month, "hedge_change": money(hedge), "item_change": money(item), "ratio": ratio, "pass": pass,
        "reason": reason,
    }))
}

fn line(months: &[Month], points_min: usize, range: PassRange) -> Result<Value, ExactError> {
    let changes = |of: fn(&Month) -> Ratio| -> Result<Vec<Ratio>, ExactError> {
        months
            .iter()
            .zip(months.iter().skip(1))
            .map(|(before, month)| of(month).minus_near(of(before)))
            .collect()
    };
    let x = Series::of_ratios(&changes(|month| month.result)?);
    let y = Series::of_ratios(&changes(|month| month.own)?);
    Ok(match regression(&x, &y) {
        Ok(line) => {
            let few = line.points < points_min;
            let slope = Decimal::parse(&figure(line.slope)).is_ok_and(|slope| range.holds(slope.ratio()));
            let pass = (!few).then(|| slope && pass_fit(&line));
            let reason =
                few.then(|| format!("{} changes are fewer than {points_min}: not judged", line.points));
            json!({
                "points": line.points,
                "points_min": points_min,
                "slope": figure(line.slope),
                "intercept": figure(line.intercept),
                "r_squared": figure(line.r_squared),
                "t": line.t.map(figure),
                "pass": pass,
                "reason": reason,
                "rule": format!(
                    "slope {}-{}, R squared at least 0.80, |t| at least 2", range.lowest, range.highest
                ),
            })
        }
        Err(error) => json!({ "reason": error.to_string(), "points_min": points_min }),
    })
}

/// Each designated position that settles in cash, by its own months, method and thresholds.
fn positions(
    source: &dyn HedgeSource,
    found: &HedgeReport,
    (currency, points_min): (Currency, usize),
) -> Result<Vec<Value>, AskError> {
    let state = state(&source.finance_facts()?);
    let mut rows = Vec::new();
    for (position, _) in state.intake.portfolio.in_force() {
        let Some(held) = &position.terms().designation else { continue };
        if position.terms().kind.group() != Group::Cash {
            continue;
        }
        let months = months_of(found, position.id())?;
        if months.is_empty() {
            continue;
        }
        let terms = held.effectiveness.as_ref();
        let range = match terms {
            Some(terms) => PassRange { lowest: terms.lowest, highest: terms.highest },
            None => PassRange::usual()?,
        };
        let method = terms.map_or("dollar_offset", |terms| terms.method.as_str());
        let (periods, cumulative) = offsets(&months, currency, range)?;
        let line = line(&months, points_min, range)?;
        let judged = if method == "regression" { &line } else { &cumulative };
        rows.push(json!({
            "position_id": position.id().as_str(),
            "method": method,
            "range": [range.lowest.to_string(), range.highest.to_string()],
            "months": months.len(),
            "pass": judged.get("pass").cloned().unwrap_or(Value::Null),
            "dollar_offset": { "periods": periods, "cumulative": cumulative },
            "regression": line,
        }));
    }
    Ok(rows)
}

/// The months in which a position covered usage.
fn months_of(found: &HedgeReport, position: &Label) -> Result<Vec<Month>, ExactError> {
    let mut months = Vec::new();
    for (window, cost) in &found.months {
        let volume = Ratio::sum_near(cost.rows.values().map(|row| row.volume))?;
        let leg = cost.legs.iter().find(|leg| leg.position == *position && leg.covered.is_positive());
        let Some(leg) = leg.filter(|_| volume.is_positive()) else { continue };
        let own = Ratio::of(cost.book.get(Line::Spot)).over_near(volume)?;
        let result = Ratio::of(leg.effective).over_near(leg.covered)?;
        months.push(Month {
            name: window.from().strftime("%Y-%m").to_string(),
            own,
            hedged: own.minus_near(result)?,
            result,
            covered: leg.covered,
            volume,
        });
    }
    Ok(months)
}

/// What the basis is made of, from the deviations that the user states: `common=0.20,provider=0.06`.
fn basis_of(options: &Options) -> Result<Value, AskError> {
    let Some(text) = &options.basis else { return Ok(Value::Null) };
    let wrong = |part: &str| {
        let names: Vec<&str> = BasisLeg::ALL.iter().map(|leg| leg.name()).collect();
        AskError::Wrong(format!(
            "basis {part:?}: write common=0.20 and legs such as {}=0.06",
            names.join(", ")
        ))
    };
    let (mut common, mut legs) = (None, BTreeMap::new());
    for part in text.split(',').map(str::trim) {
        let (name, sigma) = part.split_once('=').ok_or_else(|| wrong(part))?;
        let sigma =
            Decimal::parse(sigma).ok().filter(|sigma| !sigma.is_negative()).ok_or_else(|| wrong(part))?;
        match BasisLeg::from_name(name) {
            Some(leg) => drop(legs.insert(leg, sigma)),
            None if name == "common" => common = Some(sigma),
            None => return Err(wrong(part)),
        }
    }
    let common = common.ok_or_else(|| wrong(text))?;
    let Some(found) = basis(common, &legs)? else { return Ok(json!({ "reason": "nothing moves" })) };
    let mut parts = Map::new();
    for (leg, part) in &found.parts {
        parts.insert(leg.name().to_owned(), part.text_half_even(4)?.into());
    }
    Ok(json!({
        "variance_reduction": found.variance_reduction.text_half_even(4)?,
        "volatility_reduction": found.volatility_reduction.text_half_even(4)?,
        "parts_of_basis_variance": parts,
    }))
}

/// A statistic to six places.
pub(super) fn figure(value: f64) -> String {
    format!("{value:.6}")
}
