//! Temporary changes of budgets: reading what people ask for, recording it, and putting it in force.
//!
//! Invariants
//! - A change is in the ledger before it is in force, so a restart finds it.
//! - Only a budget that is there, in its own measure, can be changed where a sidecar runs.
//!
//! Not here: what a change does (`bursar_policies::budget`), its form in the ledger.

use crate::budgets::{Amount, Budgets};
use crate::config::read_amount;
use crate::period::moment;
use bursar_domain::{Clock, Label, RequestId, Timestamp};
use bursar_ledger::{FactError, Ledger, NewOverride, REASON_BYTES_MAX, StoredOverride, overrides};
use bursar_policies::budget::{Change, Measure};
use serde::Deserialize;
use serde_json::{Value, json};

/// What is asked for, as it was written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Asked {
    /// The budget's name.
    pub(crate) budget: String,
    /// So much more: `500 USD`.
    pub(crate) add: Option<String>,
    /// So much in all.
    pub(crate) limit: Option<String>,
    /// Until when: a date, a time, or how long from now.
    pub(crate) until: String,
    /// Why.
    pub(crate) reason: String,
}

/// Why a change is not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OverrideError {
    /// It cannot be understood.
    #[error("{0}")]
    Wrong(String),
    /// There is nothing of that name.
    #[error("{0}")]
    Unknown(String),
    /// The ledger does not take it.
    #[error(transparent)]
    Ledger(#[from] FactError),
}

/// What `asked` means at `now`.
pub(crate) fn read(asked: &Asked, now: Timestamp) -> Result<NewOverride, OverrideError> {
    let wrong = |text: String| OverrideError::Wrong(text);
    let amount = |name: &str, text: &str| {
        let found = read_amount(text.trim());
        found.ok_or_else(|| wrong(format!("{name} {text:?} is no amount: write 500USD or 2000000tokens")))
    };
    let (figure, measure, is_added) = match (&asked.add, &asked.limit) {
        (Some(text), None) => {
            let (figure, measure) = amount("--add", text)?;
            (figure, measure, true)
        }
        (None, Some(text)) => {
            let (figure, measure) = amount("--limit", text)?;
            (figure, measure, false)
        }
        _ => return Err(wrong("write one of --add and --limit".to_owned())),
    };
    let until = moment(asked.until.trim(), now).ok_or_else(|| {
        wrong(format!(
            "--until {:?} is no time: write 2026-12-01, 2026-12-01T09:00:00Z, or 24h or 7d from now",
            asked.until
        ))
    })?;
    if until <= now {
        return Err(wrong(format!(
            "--until {:?} is over already: write a later time, such as 7d",
            asked.until
        )));
    }
    let reason = asked.reason.trim();
    if reason.is_empty() || reason.len() > REASON_BYTES_MAX {
        return Err(wrong(format!("--reason must say why, in up to {REASON_BYTES_MAX} bytes")));
    }
    let budget = Label::new(asked.budget.trim())
        .map_err(|_| wrong(format!("{:?} is no name of a budget: see `bursar budget`", asked.budget)))?;
    let change = if is_added { Change::Add(figure) } else { Change::Limit(figure) };
    Ok(NewOverride { budget, measure, change, until, reason: reason.to_owned() })
}

/// Makes a change in a ledger, and in the budgets that are kept from it where there are some. Blocks.
pub(crate) fn make(
    ledger: &Ledger,
    budgets: Option<&Budgets>,
    asked: &Asked,
    clock: &dyn Clock,
) -> Result<Value, OverrideError> {
    let new = read(asked, clock.now())?;
    if let Some(budgets) = budgets {
        match budgets.measure_of(&new.budget) {
            None if let Some(contract) = budgets.contract_of(&new.budget) => {
                let text = format!(
                    "the budget {:?} has no limit of its own, but what its contract {:?} has: change that with \
                     `bursar contract`, or override a budget with a `limit`",
                    new.budget.as_str(),
                    contract.as_str()
                );
                return Err(OverrideError::Wrong(text));
            }
            None => {
                let text = format!("there is no budget {:?}: see `bursar budget`", new.budget.as_str());
                return Err(OverrideError::Unknown(text));
            }
            Some(measure) if measure != new.measure => {
                let text = format!(
                    "the budget {:?} is not in this unit, but in {}: write the amount in that",
                    new.budget.as_str(),
                    unit(measure)
                );
                return Err(OverrideError::Wrong(text));
            }
            Some(_) => {}
        }
    }
    let id = ledger.record_override(&new, clock)?;
    enforce(ledger, budgets);
    Ok(document(ledger, Some(id), clock.now()))
}

/// A measure as amounts in it are written.
fn unit(measure: Measure) -> String {
    match measure {
        Measure::Money(currency) => currency.to_string(),
        Measure::Tokens => "tokens".to_owned(),
        Measure::StandardTokens => "SIT".to_owned(),
    }
}

/// Takes a change back. Blocks.
pub(crate) fn revoke(
    ledger: &Ledger,
    budgets: Option<&Budgets>,
    id: &str,
    reason: &str,
    clock: &dyn Clock,
) -> Result<Value, OverrideError> {
    let (all, _) = overrides(&ledger.facts());
    let wanted = RequestId::parse(id);
    let Some(found) = all.iter().find(|one| Some(one.id) == wanted) else {
        return Err(OverrideError::Unknown(format!(
            "there is no override {id:?}: see `bursar budget overrides`"
        )));
    };
    if found.revoked.is_none() {
        if reason.len() > REASON_BYTES_MAX {
            return Err(OverrideError::Wrong(format!("--reason is longer than {REASON_BYTES_MAX} bytes")));
        }
        ledger.revoke_override(found, reason.trim(), clock)?;
        enforce(ledger, budgets);
    }
    Ok(document(ledger, Some(found.id), clock.now()))
}

/// Puts what the ledger has in force.
fn enforce(ledger: &Ledger, budgets: Option<&Budgets>) {
    if let Some(budgets) = budgets {
        budgets.set_overrides(&overrides(&ledger.facts()).0);
    }
}

/// All changes, or one of them, as the API tells them.
pub(crate) fn document(ledger: &Ledger, only: Option<RequestId>, now: Timestamp) -> Value {
    list(&overrides(&ledger.facts()).0, only, now)
}

/// The same of changes that were read.
pub(crate) fn list(all: &[StoredOverride], only: Option<RequestId>, now: Timestamp) -> Value {
    let chosen = all.iter().filter(|one| only.is_none_or(|id| one.id == id));
    json!({ "overrides": chosen.map(|one| shown(one, now)).collect::<Vec<Value>>() })
}

/// A change as the API tells it.
pub(crate) fn shown(one: &StoredOverride, now: Timestamp) -> Value {
    let instant = |at: Timestamp| {
        jiff::Timestamp::from_microsecond(at.micros())
            .map_or_else(|_| at.micros().to_string(), |at| at.to_string())
    };
    let figure = |value: i128| Amount(one.measure, value).to_string();
    let (add, limit) = match one.change {
        Change::Add(more) => (Some(figure(more)), None),
        Change::Limit(limit) => (None, Some(figure(limit))),
    };
    let state = match &one.revoked {
        Some(_) => "revoked",
        None if one.until <= now => "expired",
        None => "active",
    };
    json!({
        "id": one.id.to_string(),
        "budget": one.budget.as_str(),
        "add": add,
        "limit": limit,
        "from": instant(one.at),
        "until": instant(one.until),
        "reason": one.reason,
        "state": state,
        "revoked_at": one.revoked.as_ref().map(|(at, _)| instant(*at)),
        "revoked_because": one.revoked.as_ref().map(|(_, why)| why.as_str()),
    })
}

/// Whether a change may be of a budget with this measure.
pub(crate) fn fits(one: &StoredOverride, name: &Label, measure: Measure) -> bool {
    one.revoked.is_none() && one.budget == *name && one.measure == measure
}
