//! Lists and details of positions and market data, as documents.
//!
//! Invariants
//! - What was entered is shown as it was entered, with its sequence and the time it became known.
//!
//! Not here: what it does to cost (`report`), what is left of it (`draw`).

use super::AskError;
use super::draw::remaining;
use super::report::Options;
use crate::report::rfc3339;
use bursar_domain::{FactKind, Label, StoredFact, Timestamp};
use bursar_ledger::hedge::{HedgeSource, State, state};
use bursar_policies::hedge::lifecycle::Drawn;
use bursar_policies::hedge::market::Added;
use bursar_policies::hedge::position::{Group, Position, presets};
use jiff::civil::Date;
use serde_json::{Value, json};
use std::sync::Arc;

/// What of the market is listed.
pub(crate) const MARKET_LISTS: [(&str, FactKind); 5] = [
    ("fixings", FactKind::Fixing),
    ("fx", FactKind::Fx),
    ("indices", FactKind::Index),
    ("calendars", FactKind::Calendar),
    ("profiles", FactKind::Profile),
];

/// Every fact of a list, oldest first, or those whose fields say `pick`.
pub(crate) fn market(source: &dyn HedgeSource, list: &str, pick: Option<&str>) -> Result<Value, AskError> {
    let kind = MARKET_LISTS.iter().find(|(name, _)| *name == list).map(|(_, kind)| *kind);
    let kind = kind.ok_or_else(|| {
        let names: Vec<&str> = MARKET_LISTS.iter().map(|(name, _)| *name).collect();
        AskError::Missing(format!("there is no list {list:?}; the lists are {}", names.join(", ")))
    })?;
    let facts = source.finance_facts()?;
    let mut intake = bursar_policies::hedge::intake::Intake::default();
    let mut rows = Vec::new();
    for stored in &facts {
        let admitted = intake.admit(stored.fact.kind, &stored.fact.body, stored.fact.at);
        if stored.fact.kind != kind {
            continue;
        }
        let mut row = fields(stored);
        let about = ["index", "pair", "calendar", "profile"].iter().find_map(|name| row.get(name));
        if pick.is_some_and(|pick| about.and_then(Value::as_str) != Some(pick)) {
            continue;
        }
        if let Value::Object(row) = &mut row {
            let added = match &admitted {
                Ok(admitted) if admitted.added == Added::Restated => "restated",
                Ok(_) => "new",
                Err(_) => "unusable",
            };
            row.insert("change".to_owned(), added.into());
            row.insert("known_at".to_owned(), rfc3339(stored.fact.at).into());
            row.insert("sequence".to_owned(), stored.sequence.into());
        }
        rows.push(row);
    }
    Ok(json!({ "list": list, "rows": rows }))
}

fn fields(stored: &StoredFact) -> Value {
    serde_json::from_str(&stored.fact.body).unwrap_or(Value::Null)
}

fn yesterday(options: &Options, now: Timestamp) -> Result<Date, AskError> {
    Ok(options.ask(now)?.today)
}

/// Every position in force.
pub(crate) fn contracts(
    source: &dyn HedgeSource,
    options: &Options,
    now: Timestamp,
) -> Result<Value, AskError> {
    let facts = source.finance_facts()?;
    let state = state(&facts);
    let on = yesterday(options, now)?;
    let rows = state.intake.portfolio.in_force().map(|(position, _)| line(&state, position, on, now));
    Ok(json!({ "on": on.to_string(), "rows": rows.collect::<Vec<_>>() }))
}

fn line(state: &State, position: &Position, on: Date, now: Timestamp) -> Value {
    let terms = position.terms();
    let economics = &terms.economics;
    let window = terms.timing.effective;
    let index = terms.underlying.as_ref().map(|underlying| underlying.index.to_string());
    json!({
        "position_id": position.id().as_str(),
        "version": terms.identity.version,
        "book": terms.identity.book.as_str(),
        "kind": terms.kind.name(),
        "status": state.intake.portfolio.status(position, on, Drawn::Open, now).name(),
        "counterparty": terms.identity.counterparty.as_ref().map(Label::as_str),
        "quantity": economics.quantity.to_string(),
        "unit": economics.unit.to_string(),
        "fixed_price": economics.fixed_price.map(|price| price.to_string()),
        "price_currency": economics.price_currency.code(),
        "index": index,
        "effective_from": window.from().to_string(),
        "effective_until": window.until().to_string(),
        "rank": position.rank(),
        "designated": terms.designation.is_some(),
    })
}

/// One position: its versions, its events, and what is left of it.
pub(crate) fn contract(
    source: &dyn HedgeSource,
    id: &str,
    options: &Options,
    now: Timestamp,
) -> Result<Value, AskError> {
    let facts = source.finance_facts()?;
    let state = state(&facts);
    let missing = || AskError::Missing(format!("there is no position {id:?}: see `bursar contract list`"));
    let label = Label::new(id).map_err(|_| missing())?;
    let position = state.intake.portfolio.versions(&label).last().ok_or_else(missing)?;
    let on = yesterday(options, now)?;
    let mut document = line(&state, position, on, now);
    let of = |kind| of_position(&facts, kind, id);
    if let Value::Object(object) = &mut document {
        object.insert("versions".to_owned(), of(FactKind::Contract).into());
        object.insert("events".to_owned(), of(FactKind::ContractEvent).into());
        let left = remaining(source, position, on, options, now);
        let left = left.unwrap_or_else(|error| json!({ "reason": error.to_string() }));
        // What is there anew in the next month is not exhausted.
        let stands = position.terms().kind.group() == Group::Pool || position.carries_over();
        let drawn = stands && left.get("left").and_then(Value::as_str) == Some("0");
        let drawn = if drawn { Drawn::Out } else { Drawn::Open };
        let status = state.intake.portfolio.status(position, on, drawn, now);
        object.insert("status".to_owned(), status.name().into());
        object.insert("remaining".to_owned(), left);
    }
    Ok(document)
}

fn of_position(facts: &[Arc<StoredFact>], kind: FactKind, id: &str) -> Vec<Value> {
    let ours = facts.iter().filter(|stored| stored.fact.kind == kind).filter_map(|stored| {
        let entered = fields(stored);
        let same = entered.get("position_id").and_then(Value::as_str) == Some(id);
        same.then(|| {
            json!({
                "sequence": stored.sequence, "known_at": rfc3339(stored.fact.at), "name": stored.fact.name.as_str(),
                "entered": entered,
            })
        })
    });
    ours.collect()
}

/// The presets: what each fixes, and what is to be filled in.
pub(crate) fn preset_list() -> Result<Value, AskError> {
    let all = presets().map_err(|error| AskError::Ledger(error.to_string()))?;
    let rows = all.iter().map(|preset| {
        json!({
            "name": preset.name, "title": preset.title, "source": preset.source, "date": preset.date,
            "notes": preset.notes, "fill_in": preset.fill_in, "entry": preset.entry,
        })
    });
    Ok(json!({ "rows": rows.collect::<Vec<_>>() }))
}
