//! `hedge risk`: margin, stress, limits, coverage, concentration, repricing, fixings that are missing or
//! changed, and the log of designations.
//!
//! Invariants
//! - Marks and margins stand beside cost; nothing of this enters it.
//! - What cannot be computed says why; it is never a zero.
//!
//! Not here: the formulas (`policies::hedge::risk`, `margin`).

use super::AskError;
use super::report::{Options, money, units};
use crate::report::rfc3339;
use bursar_domain::{Currency, Label, Money, Timestamp};
use bursar_ledger::hedge::{HedgeAsk, HedgeReport, HedgeSource, State, report, state};
use bursar_policies::exact::{Decimal, ExactError, Ratio};
use bursar_policies::hedge::calendar::{Month, Window};
use bursar_policies::hedge::effectiveness::{cross_border, repricing};
use bursar_policies::hedge::margin::LimitKind;
use bursar_policies::hedge::market::Fallback;
use bursar_policies::hedge::payoff::Side;
use bursar_policies::hedge::position::{Identity, Kind, Limits, Position, Terms};
use bursar_policies::hedge::profile::Unit;
use bursar_policies::hedge::risk::{
    DISCLAIMER, NetLots, Open, concentration, coverage, designation_log, irregular_fixings, limits,
    margin_by_currency, mark_to_market, stress,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Months for which coverage is shown.
const MONTHS_AHEAD: usize = 12;

/// The answer as a document.
pub(crate) fn document(
    source: &dyn HedgeSource,
    options: &Options,
    now: Timestamp,
) -> Result<Value, AskError> {
    let ask = options.ask(now)?;
    let found = report(source, &ask)?;
    let facts = source.finance_facts()?;
    let state = state(&facts);
    let open = state
        .intake
        .portfolio
        .in_force()
        .map(|(position, history)| Open::after(position, history, ask.today, ask.as_of))
        .collect::<Result<Vec<Open<'_>>, ExactError>>()?;
    let (positions, cash) = position_rows(&state, &ask, &open)?;
    Ok(json!({
        "on": ask.today.to_string(),
        "period": { "from": found.from.to_string(), "to": found.until.to_string() },
        "currency": ask.currency.code(),
        "unit": ask.unit.to_string(),
        "margin": margins(&open)?,
        "cash": cash,
        "positions": positions,
        "limits": limit_rows(&open)?,
        "coverage": coverage_rows(&state, &open, options, &ask, &found)?,
        "concentration": concentration_rows(&found)?,
        "repricing": repricing_rows(&found)?,
        "fixings": fixing_rows(&state, &ask),
        "designations": designations(&state),
        "cross_border": cross(&state, options, &ask)?,
        "complete": found.complete(),
        "as_of": rfc3339(ask.as_of),
        "note": DISCLAIMER,
    }))
}

fn margins(open: &[Open<'_>]) -> Result<Vec<Value>, ExactError> {
    let sums = margin_by_currency(open)?;
    let rows = sums.iter().map(|(currency, margins)| {
        json!({
            "currency": currency.code(),
            "initial": money(margins.initial), "maintenance": money(margins.maintenance),
        })
    });
    Ok(rows.collect())
}

/// Moves of the published contract's halt and stop, with their names.
const MOVES: [(&str, &str); 4] =
    [("down_25", "-0.25"), ("down_15", "-0.15"), ("up_15", "0.15"), ("up_25", "0.25")];

/// Initial margin and calls at each move, by currency: as if all prices moved together.
type Cash = BTreeMap<Currency, (Money, BTreeMap<&'static str, Money>)>;

/// Marks and next-day calls of each position that settles against an index, and the cash that they need.
fn position_rows(
    state: &State,
    ask: &HedgeAsk,
    open: &[Open<'_>],
) -> Result<(Vec<Value>, Vec<Value>), AskError> {
    let (mut rows, mut cash) = (Vec::new(), Cash::new());
    for ((position, history), open) in state.intake.portfolio.in_force().zip(open) {
        let mark = match mark_to_market(position, history, &state.intake.market, ask.today, ask.as_of) {
            Ok(None) => continue,
            Ok(Some(mark)) => json!({ "amount": money(mark), "currency": mark.currency().code() }),
            Err(error) => json!({ "reason": error.to_string() }),
        };
        rows.push(json!({
            "position_id": position.id().as_str(),
            "mark_to_market": mark,
            "stress": stress_rows(state, ask, open, &mut cash)?,
        }));
    }
    let told = cash.iter().map(|(currency, (initial, calls))| {
        let calls: serde_json::Map<String, Value> =
            calls.iter().map(|(name, call)| ((*name).to_owned(), money(*call).into())).collect();
        json!({ "currency": currency.code(), "initial": money(*initial), "calls": calls })
    });
    Ok((rows, told.collect()))
}

fn stress_rows(state: &State, ask: &HedgeAsk, open: &Open<'_>, cash: &mut Cash) -> Result<Value, AskError> {
    let terms = open.position.terms();
    let Some(margins) = open.margins()? else { return Ok(json!({ "reason": "it has no margin terms" })) };
    let Some(underlying) = &terms.underlying else {
        return Ok(json!({ "reason": "its price is an exchange rate: the moves are of index prices" }));
    };
    let currency = margins.initial.currency();
    if currency != terms.economics.price_currency {
        return Ok(json!({ "reason": "its margin is in another currency than its prices" }));
    }
    let market = &state.intake.market;
    let fixing = market
        .index_priced_in(&underlying.index, currency)
        .and_then(|_| market.fixing_or(&underlying.index, ask.today, Fallback::LastPublished, ask.as_of));
    let price = match fixing {
        Ok(price) => price.decimal_half_even(12)?,
        Err(error) => return Ok(json!({ "reason": error.to_string() })),
    };
    let units_open = open.units()?;
    let changes =
        MOVES.map(|(_, change)| Decimal::parse(change)).into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut found = stress((terms.economics.side, units_open, price), margins, margins.initial, &changes)?;
    for (row, margin) in found.iter_mut().zip(std::iter::repeat(terms.margin)) {
        row.call = margin.map_or(row.call, |margin| margin.called(row.call));
    }
    let zero = Money::zero(currency);
    let (initial, calls) = cash.entry(currency).or_insert_with(|| (zero, BTreeMap::new()));
    *initial = initial.checked_add(margins.initial)?;
    for ((name, _), row) in MOVES.into_iter().zip(&found) {
        let sum = calls.entry(name).or_insert(zero);
        *sum = sum.checked_add(row.call)?;
    }
    let rows = found.iter().map(
        |row| json!({ "change": row.change.to_string(), "flow": money(row.flow), "call": money(row.call) }),
    );
    Ok(json!({
        "price": price.to_string(), "units": units(units_open)?, "initial": money(margins.initial),
        "currency": currency.code(), "moves": rows.collect::<Vec<_>>(),
    }))
}

/// Net lots of each contract against its limits.
///
/// A venue's limits are of a contract of its own: what is held of one venue, symbol and index counts
/// together, whatever its kind, so that an option counts with the future that it is on. A position without a
/// venue and a symbol is a contract between two and stands for itself. Where positions of one contract were
/// entered with different limits, the lowest of each holds.
fn limit_rows(all: &[Open<'_>]) -> Result<Vec<Value>, AskError> {
    type Key = (Option<Label>, Option<Label>, Option<String>, Option<Label>);
    let mut groups: BTreeMap<Key, Vec<&Open<'_>>> = BTreeMap::new();
    for open in all {
        let terms = open.position.terms();
        let index = terms.underlying.as_ref().map(|underlying| underlying.index.to_string());
        let Identity { venue, symbol, id, .. } = &terms.identity;
        let is_listed = venue.is_some() || symbol.is_some();
        let itself = (!is_listed).then(|| id.clone());
        groups.entry((venue.clone(), symbol.clone(), index, itself)).or_default().push(open);
    }
    let mut rows = Vec::new();
    for ((venue, symbol, index, _), members) in groups {
        let Some(lowest) = lowest_limits(&members) else { continue };
        let mut by_month: BTreeMap<Month, Ratio> = BTreeMap::new();
        for open in &members {
            for month in &open.months {
                let lots = futures_side(open.position).signed(open.lots_in(*month)?)?;
                let sum = by_month.entry(*month).or_insert(Ratio::ZERO);
                *sum = sum.plus(lots)?;
            }
        }
        let spot = by_month.values().next().copied().unwrap_or(Ratio::ZERO);
        let mut single = Ratio::ZERO;
        for lots in by_month.values() {
            if lots.abs()? > single.abs()? {
                single = *lots;
            }
        }
        let net = NetLots {
            spot: spot.decimal_half_even(6)?,
            single_month: single.decimal_half_even(6)?,
            all_months: Ratio::sum(by_month.values().copied())?.decimal_half_even(6)?,
        };
        let (found, reportable) = limits(net, &lowest)?;
        let positions: Vec<&str> =
            members.iter().map(|open| open.position.terms().identity.id.as_str()).collect();
        for row in found {
            rows.push(json!({
                "venue": venue.as_ref().map(Label::as_str), "symbol": symbol.as_ref().map(Label::as_str),
                "index": index, "positions": positions, "limit": row.name, "lots": row.lots.to_string(), "at": row.limit.to_string(),
                "used": row.used.text_half_even(4)?, "status": row.status.name(), "reportable": reportable,
            }));
        }
    }
    Ok(rows)
}

/// The lowest of each limit that positions of one contract have; `None` where none has any. Of two alike, the
/// one that may not be exceeded.
fn lowest_limits(members: &[&Open<'_>]) -> Option<Limits> {
    type Limit = Option<(Decimal, LimitKind)>;
    let lower = |one: Limit, other: Limit| match (one, other) {
        (Some(one), Some(other)) => {
            let rank = |(at, kind): (Decimal, LimitKind)| (at.pico(), kind == LimitKind::Accountability);
            Some(if rank(other) < rank(one) { other } else { one })
        }
        (one, other) => one.or(other),
    };
    let mut lowest = Limits::default();
    for open in members {
        let Limits { spot, single_month, all_months, reportable } = open.position.terms().limits;
        lowest.spot = lower(lowest.spot, spot);
        lowest.single_month = lower(lowest.single_month, single_month);
        lowest.all_months = lower(lowest.all_months, all_months);
        let level = [lowest.reportable, reportable].into_iter().flatten();
        lowest.reportable = level.min_by_key(|level| level.pico());
    }
    (lowest != Limits::default()).then_some(lowest)
}

/// The side of the future that a position counts as: who bought a floor gains when the price falls.
fn futures_side(position: &Position) -> Side {
    let Terms { kind, economics, .. } = position.terms();
    match (kind, economics.side) {
        (Kind::Floor, Side::Long) => Side::Short,
        (Kind::Floor, Side::Short) => Side::Long,
        (_, side) => side,
    }
}

/// Hedged ÷ forecast by month; the forecast is the user's, else the last whole month's volume.
fn coverage_rows(
    state: &State,
    open: &[Open<'_>],
    options: &Options,
    ask: &HedgeAsk,
    found: &HedgeReport,
) -> Result<Value, AskError> {
    let mut forecast: BTreeMap<Month, Decimal> = BTreeMap::new();
    let mut method = "as forecast".to_owned();
    for part in options.forecast.iter().flat_map(|text| text.split(',')).map(str::trim) {
        let wrong = || AskError::Wrong(format!("forecast {part:?}: write 2026-10=36000,2026-11=40000"));
        let (month, volume) = part.split_once('=').ok_or_else(wrong)?;
        let month = Month::parse(month).map_err(|_| wrong())?;
        let volume = Decimal::parse(volume).ok().filter(|volume| !volume.is_negative()).ok_or_else(wrong)?;
        if forecast.insert(month, volume).is_some() {
            return Err(AskError::Wrong(format!("forecast {part:?}: {month} is there twice")));
        }
    }
    if forecast.is_empty() {
        let Some((window, month)) = found.months.last() else { return Ok(json!({ "reason": "no month" })) };
        let volume = Ratio::sum_near(month.rows.values().map(|row| row.volume))?.decimal_half_even(6)?;
        method = format!("as in the period from {}; a forecast of yours replaces it", window.from());
        let months = std::iter::successors(Month::of(ask.today).next().ok(), |month| month.next().ok());
        forecast.extend(months.take(MONTHS_AHEAD).map(|month| (month, volume)));
    }
    let (rows, problems) = coverage(open, &state.intake.profiles, ask.unit, &forecast)?;
    let rows = rows.iter().map(|(month, row)| {
        let ratio = row.ratio.map(|ratio| ratio.text_half_even(4)).transpose()?;
        Ok(json!({
            "month": month.to_string(), "hedged": units(row.hedged)?, "forecast": units(row.forecast)?,
            "ratio": ratio,
        }))
    });
    let left_out = problems
        .iter()
        .map(|(position, error)| json!({ "position_id": position.as_str(), "reason": error.to_string() }));
    Ok(json!({
        "forecast": method,
        "months": rows.collect::<Result<Vec<_>, ExactError>>()?,
        "left_out": left_out.collect::<Vec<_>>(),
    }))
}

fn concentration_rows(found: &HedgeReport) -> Result<Vec<Value>, AskError> {
    let mut volumes = BTreeMap::new();
    for (provider, coverage) in &found.cost.providers {
        volumes.insert(provider.clone(), coverage.volume.decimal_half_even(6)?);
    }
    let weights = concentration(&volumes)?;
    let mut rows = Vec::new();
    for (provider, (weight, above)) in weights {
        rows.push(json!({
            "provider": provider.as_str(), "weight": weight.text_half_even(4)?, "above_30_percent": above,
        }));
    }
    Ok(rows)
}

fn repricing_rows(found: &HedgeReport) -> Result<Vec<Value>, AskError> {
    let mut rows = Vec::new();
    for provider in found.cost.providers.keys() {
        for change in ["0.20", "-0.20"] {
            let Some(row) = repricing(&found.cost, provider, Decimal::parse(change)?)? else { continue };
            let hedged = row.hedged_share.map(|part| part.text_half_even(4)).transpose()?;
            rows.push(json!({
                "provider": provider.as_str(), "change": change, "spot_change": money(row.spot_change),
                "margin_change": money(row.margin_change), "hedged_share": hedged,
            }));
        }
    }
    Ok(rows)
}

fn fixing_rows(state: &State, ask: &HedgeAsk) -> Vec<Value> {
    let mut rows = Vec::new();
    let Ok(asked) = Window::new(ask.from, ask.until) else { return rows };
    for (position, _) in state.intake.portfolio.in_force() {
        let Some(window) = asked.overlap(position.terms().timing.effective) else { continue };
        let days = |days: &std::collections::BTreeSet<jiff::civil::Date>| -> Vec<String> {
            days.iter().map(ToString::to_string).collect()
        };
        match irregular_fixings(position, &state.intake.market, window, ask.today, ask.as_of) {
            Ok(None) => {}
            Ok(Some(found)) => rows.push(json!({
                "position_id": position.id().as_str(), "missing": days(&found.missing),
                "late": days(&found.late), "restated": days(&found.restated),
            })),
            Err(error) => {
                rows.push(json!({ "position_id": position.id().as_str(), "reason": error.to_string() }));
            }
        }
    }
    rows
}

/// Every version of every position that was designated, so that nothing is lost when one is superseded.
fn designations(state: &State) -> Vec<Value> {
    let portfolio = &state.intake.portfolio;
    let lines = designation_log(portfolio.ids().flat_map(|id| portfolio.versions(id)));
    let rows = lines.iter().map(|line| {
        json!({
            "position_id": line.position.as_str(), "version": line.version,
            "designated_at": line.designated_at.to_string(), "trade_date": line.trade_date.to_string(),
            "late": line.designated_at > line.trade_date, "hedge_ratio": line.hedge_ratio.to_string(),
            "method": line.method.as_ref().map(Label::as_str), "objective": line.objective,
        })
    });
    rows.collect()
}

/// The same work under a GPU-hour contract and under a token contract in another currency.
fn cross(state: &State, options: &Options, ask: &HedgeAsk) -> Result<Value, AskError> {
    let Some(text) = &options.compare else { return Ok(Value::Null) };
    let wrong = |why: &str| AskError::Wrong(format!("compare {text:?}: {why}"));
    let (gpu, token) = text
        .split_once(',')
        .ok_or_else(|| wrong("write the GPU-hour position, a comma, the token position"))?;
    let find = |id: &str| {
        let mut all = state.intake.portfolio.in_force();
        all.find(|(position, _)| position.id().as_str() == id.trim()).map(|(position, _)| position)
    };
    let (Some(gpu), Some(token)) = (find(gpu), find(token)) else {
        return Err(wrong("there is no such position in force"));
    };
    let (hour, tokens) = (&gpu.terms().economics, &token.terms().economics);
    let held = gpu.terms().designation.as_ref().and_then(|held| held.profile.as_ref());
    if hour.unit != Unit::GpuHour || tokens.unit != Unit::Mtok {
        return Err(wrong("the first counts GPU-h and the second Mtok"));
    }
    let factor = state.intake.profiles.factor((Unit::GpuHour, Unit::Mtok), held, ask.today);
    let (Some(hour_price), Some(token_price)) = (hour.fixed_price, tokens.fixed_price) else {
        return Err(wrong("both have a fixed price"));
    };
    let factor = match factor {
        Ok(factor) => factor,
        Err(error) => return Ok(json!({ "reason": error.to_string() })),
    };
    let pair =
        bursar_policies::hedge::market::Pair { base: hour.price_currency, quote: tokens.price_currency };
    let rate = if pair.base == pair.quote {
        Some(Decimal::ONE)
    } else {
        state.intake.market.rate(pair, ask.today, None, ask.as_of)
    };
    let Some(rate) = rate else {
        return Ok(json!({ "reason": format!("no rate {pair} on {}: import it", ask.today) }));
    };
    let view = cross_border(hour_price, factor, token_price, rate)?;
    Ok(json!({
        "currency": hour.price_currency.code(), "unit": "Mtok", "rate": rate.to_string(),
        "gpu_hour_contract": view.gpu_hour.text_half_even(6)?, "token_contract": view.token.text_half_even(6)?,
        "basis": view.basis.text_half_even(6)?, "relative": view.relative.text_half_even(4)?,
    }))
}
