//! The trial balance: every account with its debit or credit, as a document.
//!
//! Invariants
//! - Debits and credits of a currency are equal; the document says both.
//! - A sum that cannot be shown is null, never wrapped.
//!
//! Not here: what posts where (`ledger::postings`).

use crate::hedge::AskError;
use crate::hedge::report::Options as HedgeOptions;
use crate::period;
use bursar_domain::money::format_pico;
use bursar_domain::{Currency, FactKind, Timestamp};
use bursar_ledger::hedge::HedgeSource;
use bursar_ledger::postings::{Balances, TrialAsk, trial_balance};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Options {
    /// Usage and revenue at or after this.
    pub(crate) from: Option<String>,
    /// And before this.
    pub(crate) to: Option<String>,
    /// Whose days; UTC when absent.
    pub(crate) tz: Option<String>,
    /// The currency of contracts' amounts; USD when absent.
    pub(crate) currency: Option<String>,
}

impl Options {
    /// The question, and why contracts are left out if they are.
    fn ask(&self, has_contracts: bool, now: Timestamp) -> Result<(TrialAsk, Option<&'static str>), AskError> {
        let zone = self.tz.as_deref().unwrap_or("UTC");
        let names = period::PARAMETERS;
        let found = period::parse(self.from.as_deref(), self.to.as_deref(), zone, now, names);
        let found = found.map_err(|error| AskError::Wrong(error.to_string()))?;
        let (contracts, left_out) = match (has_contracts, &self.from, &self.to) {
            (false, _, _) => (None, None),
            (true, Some(_), Some(_)) => {
                let options = HedgeOptions {
                    from: self.from.clone(),
                    to: self.to.clone(),
                    tz: self.tz.clone(),
                    currency: self.currency.clone(),
                    ..HedgeOptions::default()
                };
                (Some(options.ask(now)?), None)
            }
            (true, _, _) => (None, Some("name the first day and the day after the last one")),
        };
        Ok((TrialAsk { from: found.from, to: found.to, contracts }, left_out))
    }
}

/// The document. Blocks.
pub(crate) fn document(
    source: &dyn HedgeSource,
    options: &Options,
    now: Timestamp,
) -> Result<Value, AskError> {
    let facts = source.finance_facts()?;
    let has_contracts = facts.iter().any(|stored| stored.fact.kind == FactKind::Contract);
    let (ask, left_out) = options.ask(has_contracts, now)?;
    let found = trial_balance(source, &ask)?;
    let unusable: Vec<Value> = found
        .unusable
        .iter()
        .map(|fact| json!({ "sequence": fact.sequence, "name": fact.name, "reason": fact.reason }))
        .collect();
    Ok(json!({
        "from": options.from,
        "to": options.to,
        "tz": options.tz.as_deref().unwrap_or("UTC"),
        "rows": rows(&found.balances),
        "totals": totals(&found.balances),
        "balanced": found.balances.is_balanced(),
        "unpriced_requests": found.unpriced,
        "contracts_left_out": left_out,
        "unusable": unusable,
        "as_of_sequence": found.as_of_sequence,
    }))
}

fn rows(balances: &Balances) -> Vec<Value> {
    let row = |(account, currency, sum): (&str, Currency, &bursar_ledger::MoneySum)| {
        let pico = sum.pico();
        let debit = pico.filter(|pico| *pico >= 0).map(format_pico);
        let credit = pico.filter(|pico| *pico < 0).and_then(i128::checked_neg).map(format_pico);
        json!({ "account": account, "currency": currency.code(), "debit": debit, "credit": credit })
    };
    balances.iter().map(row).collect()
}

/// Debits and credits of each currency.
fn totals(balances: &Balances) -> Vec<Value> {
    let mut sums: BTreeMap<Currency, Option<(i128, i128)>> = BTreeMap::new();
    for (_, currency, sum) in balances.iter() {
        let entry = sums.entry(currency).or_insert(Some((0, 0)));
        let added = entry.zip(sum.pico()).and_then(|((debit, credit), pico)| {
            if pico >= 0 {
                Some((debit.checked_add(pico)?, credit))
            } else {
                Some((debit, credit.checked_sub(pico)?))
            }
        });
        *entry = added;
    }
    let total = |(currency, sums): (Currency, Option<(i128, i128)>)| {
        let (debit, credit) = sums.unzip();
        json!({
            "currency": currency.code(),
            "debit": debit.map(format_pico),
            "credit": credit.map(format_pico),
        })
    };
    sums.into_iter().map(total).collect()
}
