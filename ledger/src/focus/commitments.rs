//! Contracts with providers as FOCUS's Contract Commitment dataset tells them.
//!
//! Invariants
//! - Every position in force that delivers units or pays for usage is a row; derivatives are none, since
//!   no provider is committed by them.
//! - A term that a position does not have is null where the specification lets it be, else the value
//!   that the specification has for it.
//!
//! Not here: what contracts did to cost (`cover`).

use super::cover::provider;
use super::{FocusError, FocusNotes, Sink, midnight};
use crate::export::Cell;
use crate::hedge::{HedgeSource, state};
use bursar_domain::{FactKind, Label, StoredFact, Timestamp, TokenClass};
use bursar_policies::exact::{ExactError, Ratio};
use bursar_policies::hedge::calendar::Window;
use bursar_policies::hedge::lifecycle::{Drawn, Status};
use bursar_policies::hedge::position::ContractClass;
use bursar_policies::hedge::position::{Commitment, Group, Interval, Kind, Position, Selector};
use jiff::civil::Date;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Writes the Contract Commitment dataset as of a day: contracts whose time reaches into `days`.
pub fn contract_commitments(
    source: &dyn HedgeSource,
    days: Window,
    (on, as_of): (Date, Timestamp),
    sink: &mut Sink<'_>,
) -> Result<FocusNotes, FocusError> {
    let facts = source.finance_facts()?;
    let state = state(&facts);
    let mut notes = FocusNotes::default();
    for (position, _) in state.intake.portfolio.in_force() {
        let terms = position.terms();
        let committed = matches!(terms.kind.group(), Group::Units | Group::Pool);
        if !committed || terms.timing.effective.overlap(days).is_none() {
            continue;
        }
        let status = state.intake.portfolio.status(position, on, Drawn::Open, as_of);
        sink(&cells(position, status, times(&facts, position.id()))?)?;
        notes.rows = notes.rows.saturating_add(1);
    }
    Ok(notes)
}

/// When the first and the last fact about a position became known.
fn times(facts: &[Arc<StoredFact>], id: &Label) -> (Timestamp, Timestamp) {
    let about = |stored: &&Arc<StoredFact>| {
        let kind = matches!(stored.fact.kind, FactKind::Contract | FactKind::ContractEvent);
        let body = || serde_json::from_str::<Value>(&stored.fact.body).ok();
        kind && body().is_some_and(|body| {
            ["position_id", "position"]
                .iter()
                .any(|name| body.get(name).and_then(Value::as_str) == Some(id.as_str()))
        })
    };
    let known = facts.iter().filter(about).map(|stored| stored.fact.at);
    let span = known.fold(None, |span: Option<(Timestamp, Timestamp)>, at| {
        Some(span.map_or((at, at), |(first, last)| (first.min(at), last.max(at))))
    });
    span.unwrap_or((Timestamp::from_micros(0), Timestamp::from_micros(0)))
}

fn cells<'a>(
    position: &'a Position,
    status: Status,
    (created, updated): (Timestamp, Timestamp),
) -> Result<Vec<Cell<'a>>, FocusError> {
    let terms = position.terms();
    let text = |text: &'static str| Cell::text(Some(text));
    let pico = |exact: Ratio| -> Result<i128, ExactError> { Ok(exact.decimal_half_even(12)?.pico()) };
    let pool = terms.kind.group() == Group::Pool;
    let units = position.units()?;
    let price = terms.economics.fixed_price;
    let cost = match (pool, price) {
        (true, _) => Some(pico(units)?),
        (false, Some(price)) => Some(pico(units.times_near(price.ratio(), 12)?)?),
        (false, None) => None,
    };
    let commitment = terms.commitment.as_ref();
    let benefit = commitment.map_or(Ratio::ZERO, |commitment| commitment.benefit);
    let discount = (benefit.is_positive()).then(|| pico(benefit)).transpose()?;
    let interval = interval(pool, commitment);
    let upfront = commitment.map_or(0, |commitment| commitment.upfront_percent.pico()) / 100;
    let (model, payment) = payment(pool, upfront, commitment);
    let upfront = if model == "All Upfront" { bursar_domain::money::PICO } else { upfront };
    let window = terms.timing.effective;
    let (from, until) = (Cell::Instant(midnight(window.from())), Cell::Instant(midnight(window.until())));
    let currency = || Cell::text(Some(terms.economics.price_currency.code()));
    let id = || Cell::text(Some(position.id().as_str()));
    let selector = terms.designation.as_ref().map(|held| held.selector.clone()).unwrap_or_default();
    Ok(vec![
        currency(),
        Cell::owned(applicability(&selector).to_string()),
        text(match (terms.kind, discount) {
            (_, Some(_)) => "Discount",
            (Kind::ProvisionedThroughput, None) => "Availability",
            _ => "Entitlement",
        }),
        text(if pool { "Spend" } else { "Usage" }),
        Cell::decimal(cost),
        Cell::Instant(created),
        Cell::owned(describe(position)),
        Cell::decimal(discount),
        Cell::owned(duration(window)),
        text(interval),
        id(),
        Cell::Instant(updated),
        text(lifecycle(status)),
        text(if matches!(interval, "Hourly" | "Daily") { "Continuous" } else { "Discontinuous" }),
        text(match terms.kind {
            Kind::ProvisionedThroughput | Kind::PrepaidCredit | Kind::Voucher => "Public",
            _ => "Negotiated",
        }),
        text(payment),
        text(model),
        Cell::Decimal(upfront),
        until.clone(),
        from.clone(),
        if pool { Cell::Null } else { Cell::Decimal(pico(units)?) },
        Cell::owned(terms.kind.name().replace('_', " ")),
        if pool { Cell::Null } else { Cell::owned(terms.economics.unit.to_string()) },
        id(),
        until,
        from,
        Cell::text(Some(provider(position))),
        currency(),
        Cell::decimal(cost),
        Cell::text(Some(provider(position))),
        text(terms.kind.name()),
        Cell::decimal(price.map(|price| price.pico())),
    ])
}

/// The stretch in which a commitment must be used, in the specification's words.
fn interval(pool: bool, commitment: Option<&Commitment>) -> &'static str {
    match commitment.map(|commitment| commitment.fulfilment) {
        _ if pool => "Full Period",
        Some(Interval::Hour) => "Hourly",
        Some(Interval::Day) => "Daily",
        Some(Interval::Month) | None => "Monthly",
        Some(Interval::Term) => "Full Period",
    }
}

/// Payment model and interval. What is paid ahead by its nature is paid upfront unless terms say when.
fn payment(pool: bool, upfront: i128, commitment: Option<&Commitment>) -> (&'static str, &'static str) {
    let told = commitment.and_then(|commitment| commitment.payment_interval);
    let ahead = pool && upfront == 0 && told.is_none();
    if ahead || upfront >= bursar_domain::money::PICO {
        return ("All Upfront", "One-Time");
    }
    let interval = match told {
        Some(Interval::Month) => "Monthly",
        Some(Interval::Term) => "One-Time",
        Some(Interval::Hour | Interval::Day) | None => "Custom",
    };
    (if upfront == 0 { "No Upfront" } else { "Partial Upfront" }, interval)
}

const fn lifecycle(status: Status) -> &'static str {
    match status {
        Status::Proposed => "Proposed",
        Status::Pending => "Pending",
        Status::Active => "Active",
        Status::Exhausted => "Exhausted",
        Status::Expired | Status::Settled => "Expired",
        Status::Canceled | Status::ClosedOut => "Canceled",
        Status::Superseded => "Superseded",
    }
}

/// Whole months where there are, else days.
fn duration(window: Window) -> String {
    let mut months = 0_u32;
    let mut at = window.from();
    while at < window.until() && months < 1_200 {
        months = months.saturating_add(1);
        let next = window.from().checked_add(jiff::Span::new().months(i64::from(months)));
        at = next.unwrap_or(window.until());
    }
    let plural = |count: u32| if count == 1 { "" } else { "s" };
    if at == window.until() {
        return format!("{months} Month{}", plural(months));
    }
    format!("{} Day{}", window.days(), plural(window.days()))
}

fn describe(position: &Position) -> String {
    let terms = position.terms();
    let economics = &terms.economics;
    let price = economics.fixed_price.map_or(String::new(), |price| format!(" at {price}"));
    let kind = terms.kind.name().replace('_', " ");
    let window = terms.timing.effective;
    format!(
        "{kind}: {} {}{price} {}, {} to {}",
        economics.quantity,
        economics.unit,
        economics.price_currency,
        window.from(),
        window.until()
    )
}

/// What a contract applies to, as rules over columns of Cost and Usage.
fn applicability(selector: &Selector) -> Value {
    let names = |set: &BTreeSet<Label>| set.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
    let mut rules: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    let mut add = |column: &'static str, operator: &'static str, values: Vec<String>| {
        if !values.is_empty() {
            rules.insert((column, operator), values);
        }
    };
    add("SubAccountId", "In", names(&selector.teams));
    add("ServiceProviderName", "In", names(&selector.providers));
    add("RegionId", "In", names(&selector.regions));
    let blended = selector.classes.iter().any(|class| class.name() == "blended");
    let named =
        |class: &&TokenClass| ContractClass::of(**class).is_some_and(|of| selector.classes.contains(&of));
    let classes = TokenClass::ALL.iter().filter(named).map(|class| class.name().to_owned());
    add("x_TokenClass", "In", if blended { Vec::new() } else { classes.collect() });
    let (patterns, exact): (Vec<String>, Vec<String>) =
        names(&selector.models).into_iter().partition(|name| name.ends_with('*'));
    // Names and beginnings of names of one column are alternatives, which rules that all must hold
    // cannot say.
    let complex = !patterns.is_empty() && !exact.is_empty();
    let beginnings = patterns.into_iter().map(|name| name.trim_end_matches('*').to_owned());
    add("x_Model", "StartsWith", beginnings.collect());
    add("x_Model", "In", exact);
    if complex {
        return json!({ "IsComplexScope": true });
    }
    if rules.is_empty() {
        return json!({ "IsGlobalScope": true });
    }
    let rules: Vec<Value> = rules
        .into_iter()
        .map(|((column, operator), values)| {
            json!({ "Dimension": column, "Operator": operator, "Values": values })
        })
        .collect();
    json!({ "InclusionOperator": "And", "Inclusions": rules })
}
