//! Temporary changes of budgets in the ledger: facts that are appended, and what they say together.
//!
//! Invariants
//! - A change is never edited: taking it back is a fact of its own that names it.
//! - What cannot be read, or names nothing, changes no budget; it is told.
//!
//! Not here: what a change does (`bursar_policies::budget::overrides`), which budgets there are (`bursar`).

use crate::Ledger;
use crate::facts::{FactError, NewFact, dated};
use bursar_domain::money::format_pico;
use bursar_domain::{Clock, Currency, FactKind, Label, Money, RequestId, StoredFact, Timestamp};
use bursar_policies::budget::{Change, Measure, Override};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Longest reason.
pub const REASON_BYTES_MAX: usize = 1_024;

/// A change of a budget, as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOverride {
    /// Names it.
    pub id: RequestId,
    /// When it was made.
    pub at: Timestamp,
    /// Of which budget.
    pub budget: Label,
    /// In which measure.
    pub measure: Measure,
    /// What is changed.
    pub change: Change,
    /// From when on it no longer holds.
    pub until: Timestamp,
    /// Why.
    pub reason: String,
    /// When it was taken back, and why.
    pub revoked: Option<(Timestamp, String)>,
}

impl StoredOverride {
    /// What it is to a budget.
    #[must_use]
    pub const fn change(&self) -> Override {
        Override { id: self.id, change: self.change, until: self.until }
    }
}

/// A change of a budget before it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOverride {
    /// Of which budget.
    pub budget: Label,
    /// In which measure.
    pub measure: Measure,
    /// What is changed; not below zero.
    pub change: Change,
    /// From when on it no longer holds.
    pub until: Timestamp,
    /// Why.
    pub reason: String,
}

/// The text of a fact.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    add: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until_micros: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revokes: Option<String>,
    reason: String,
}

fn unit(measure: Measure) -> String {
    match measure {
        Measure::Money(currency) => currency.code().to_owned(),
        Measure::Tokens => "tokens".to_owned(),
        Measure::StandardTokens => "SIT".to_owned(),
    }
}

fn amount(measure: Measure, amount: i128) -> String {
    match measure {
        Measure::Money(_) => format_pico(amount),
        Measure::Tokens | Measure::StandardTokens => amount.to_string(),
    }
}

fn read_amount(text: &str, unit: &str) -> Option<(Measure, i128)> {
    if unit == "tokens" {
        return Some((Measure::Tokens, text.parse::<i128>().ok()?));
    }
    let currency = Currency::parse(unit).ok()?;
    Some((Measure::Money(currency), Money::parse(currency, text).ok()?.pico()))
}

impl Text {
    fn of(new: &NewOverride) -> Self {
        let NewOverride { budget, measure, change, until, reason } = new;
        let (add, limit) = match change {
            Change::Add(more) => (Some(amount(*measure, *more)), None),
            Change::Limit(limit) => (None, Some(amount(*measure, *limit))),
        };
        Self {
            budget: Some(budget.to_string()),
            add,
            limit,
            unit: Some(unit(*measure)),
            until_micros: Some(until.micros()),
            revokes: None,
            reason: reason.clone(),
        }
    }

    fn change(&self, stored: &StoredFact) -> Option<StoredOverride> {
        let unit = self.unit.as_deref()?;
        let (measure, change) = match (&self.add, &self.limit) {
            (Some(more), None) => {
                let (measure, more) = read_amount(more, unit)?;
                (measure, Change::Add(more))
            }
            (None, Some(limit)) => {
                let (measure, limit) = read_amount(limit, unit)?;
                (measure, Change::Limit(limit))
            }
            _ => return None,
        };
        let (Change::Add(figure) | Change::Limit(figure)) = change;
        (figure >= 0).then_some(StoredOverride {
            id: stored.fact.id,
            at: stored.fact.at,
            budget: Label::new(self.budget.as_deref()?).ok()?,
            measure,
            change,
            until: Timestamp::from_micros(self.until_micros?),
            reason: self.reason.clone(),
            revoked: None,
        })
    }
}

/// All changes of budgets among facts, in the order in which they were made, and the sequences of facts
/// that this program cannot read.
#[must_use]
pub fn overrides(facts: &[Arc<StoredFact>]) -> (Vec<StoredOverride>, Vec<u64>) {
    let (mut found, mut unreadable): (Vec<StoredOverride>, Vec<u64>) = (Vec::new(), Vec::new());
    for stored in facts.iter().filter(|stored| stored.fact.kind == FactKind::BudgetOverride) {
        let text = serde_json::from_str::<Text>(&stored.fact.body).ok();
        let taken = text.and_then(|text| {
            let Some(id) = &text.revokes else {
                found.push(text.change(stored)?);
                return Some(());
            };
            let id = RequestId::parse(id)?;
            let one = found.iter_mut().find(|one| one.id == id)?;
            one.revoked.get_or_insert((stored.fact.at, text.reason));
            Some(())
        });
        if taken.is_none() {
            unreadable.push(stored.sequence);
        }
    }
    (found, unreadable)
}

impl Ledger {
    /// Records a change of a budget and returns what names it. Blocks: not for an async thread.
    pub fn record_override(&self, new: &NewOverride, clock: &dyn Clock) -> Result<RequestId, FactError> {
        self.record_text(&new.budget, &Text::of(new), clock)
    }

    /// Records that a change is taken back. Blocks: not for an async thread.
    pub fn revoke_override(
        &self,
        which: &StoredOverride,
        reason: &str,
        clock: &dyn Clock,
    ) -> Result<RequestId, FactError> {
        let text = Text {
            budget: None,
            add: None,
            limit: None,
            unit: None,
            until_micros: None,
            revokes: Some(which.id.to_string()),
            reason: reason.to_owned(),
        };
        self.record_text(&which.budget, &text, clock)
    }

    fn record_text(&self, budget: &Label, text: &Text, clock: &dyn Clock) -> Result<RequestId, FactError> {
        let body = serde_json::to_string(text).unwrap_or_default();
        let new = NewFact { kind: FactKind::BudgetOverride, name: budget.clone(), body: body.into() };
        let facts = dated(vec![new], clock)?;
        let id = facts.first().map_or(RequestId::from_bits(0), |fact| fact.id);
        self.append_facts(facts)?;
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OfflineLedger, Options};
    use bursar_domain::{Cost, SystemClock, UsageRecord};

    fn new(change: Change, measure: Measure) -> NewOverride {
        NewOverride {
            budget: Label::new("b").unwrap(),
            measure,
            change,
            until: Timestamp::from_micros(1_800_000_000_000_000),
            reason: "launch \"week\"".to_owned(),
        }
    }

    #[test]
    fn changes_and_what_takes_them_back_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let pricer = || Arc::new(|_: &UsageRecord| Cost::unpriced(Currency::USD));
        let usd = Measure::Money(Currency::USD);
        let (ledger, _) = Ledger::open(Options::new(dir.path()), Arc::new(SystemClock), pricer()).unwrap();
        let first =
            ledger.record_override(&new(Change::Add(500_000_000_000_000), usd), &SystemClock).unwrap();
        ledger.record_override(&new(Change::Limit(7), Measure::Tokens), &SystemClock).unwrap();
        let (before, unreadable) = overrides(&ledger.facts());
        assert_eq!((before.len(), unreadable), (2, Vec::new()));
        ledger.revoke_override(&before[0], "over", &SystemClock).unwrap();
        ledger.close().unwrap();

        let (ledger, _) = Ledger::open(Options::new(dir.path()), Arc::new(SystemClock), pricer()).unwrap();
        let (after, unreadable) = overrides(&ledger.facts());
        assert_eq!((after.len(), unreadable), (2, Vec::new()));
        assert_eq!(after[0].id, first);
        assert_eq!((after[0].change, after[0].measure), (Change::Add(500_000_000_000_000), usd));
        assert_eq!(after[0].revoked.as_ref().unwrap().1, "over");
        assert_eq!((&after[1], after[1].revoked.is_some()), (&before[1], false));
        assert_eq!(after[1].reason, "launch \"week\"");
        ledger.close().unwrap();
        assert_eq!(OfflineLedger::open(dir.path()).unwrap().facts().unwrap().len(), 3);
    }

    #[test]
    fn what_cannot_be_read_changes_nothing_and_is_told() {
        let fact = |body: &str| {
            Arc::new(StoredFact {
                sequence: 4,
                fact: bursar_domain::Fact {
                    id: RequestId::from_bits(9),
                    at: Timestamp::from_micros(1),
                    kind: FactKind::BudgetOverride,
                    name: Label::new("b").unwrap(),
                    body: body.into(),
                },
            })
        };
        for body in [
            "{}",
            r#"{"reason":"r"}"#,
            r#"{"budget":"b","add":"-1","unit":"tokens","until_micros":1,"reason":"r"}"#,
            r#"{"budget":"b","add":"1","limit":"1","unit":"tokens","until_micros":1,"reason":"r"}"#,
            r#"{"budget":"b","add":"x","unit":"USD","until_micros":1,"reason":"r"}"#,
            r#"{"revokes":"00000000-0000-7000-8000-000000000001","reason":"r"}"#,
        ] {
            assert_eq!(overrides(&[fact(body)]), (Vec::new(), vec![4]), "{body}");
        }
        let body = r#"{"budget":"b","add":"1","unit":"tokens","until_micros":1,"reason":"r"}"#;
        assert_eq!(overrides(&[fact(body)]).0.len(), 1);
    }
}
