//! What the demonstration books beside its traffic: two contracts with a price of the market, and revenue.
//!
//! Not here: the checks of imports (`hedge::import`).

use super::StoryClock;
use crate::hedge::import::{File, What, import};
use anyhow::bail;
use bursar_domain::{Clock, Timestamp};
use bursar_ledger::Ledger;
use bursar_ledger::hedge::Mode;

/// A price of a million tokens of the day.
const FIXINGS: &str = "index,date,value,currency,source\n\
    DEMONSTRATION-TOKENS,2026-03-03,1.5500,USD,demonstration\n";

/// A commitment that is not used up, and a swap that fixes the price of tokens.
const CONTRACTS: &str = r#"[
  { "position_id": "demonstration-commitment", "kind": "commit_spend", "quantity": "10.00", "unit": "USD",
    "price_currency": "USD", "trade_date": "2026-03-01", "effective_from": "2026-03-03", "effective_until": "2026-03-04",
    "commitment": { "fulfilment_interval": "term", "shortfall": "owner", "owner": "engineering" },
    "designation": { "teams": ["engineering"] } },
  { "position_id": "demonstration-swap", "kind": "swap_fixed_float", "side": "pay_fixed", "quantity": "5",
    "unit": "Mtok", "fixed_price": "1.40", "price_currency": "USD", "index_id": "DEMONSTRATION-TOKENS",
    "settlement_rule": "average_business", "fallback": "fail", "trade_date": "2026-03-01",
    "effective_from": "2026-03-03", "effective_until": "2026-03-04",
    "designation": { "objective": "demonstration: fix the token price of the day", "teams": ["support", "search"] } }
]"#;

/// Revenue, a refund and a saving, each matched in its own way; one finds nothing.
const REVENUE: &str = "id,source,kind,amount,currency,time,refers_to,customer,workload,tag\n\
    demo-1,demonstration,revenue,4.00,USD,2026-03-03T10:30:00Z,,acme,support-bot,\n\
    demo-2,demonstration,revenue,9.50,USD,2026-03-03T10:30:00Z,,,answer-search,\n\
    demo-3,demonstration,revenue,6.00,USD,2026-03-03T10:30:00Z,,globex,answer-search,\n\
    demo-4,demonstration,refund,-0.75,USD,2026-03-03T11:00:00Z,demo-1,,,\n\
    demo-5,demonstration,saving,12.00,USD,2026-03-03T10:30:00Z,,,,feature=review\n\
    demo-6,demonstration,revenue,1.25,USD,2026-03-03T10:30:00Z,,,no-such-workload,\n";

/// Books everything, after the hour.
pub(super) fn enter(ledger: &Ledger, clock: &StoryClock) -> anyhow::Result<()> {
    // The evening of the day: what happened in it is known.
    clock.set(Timestamp::from_micros(
        clock.now().micros().max(super::START_MICROS).saturating_add(8 * 3_600_000_000),
    ));
    for (what, text) in [(What::Fixings, FIXINGS), (What::Contracts, CONTRACTS), (What::Revenue, REVENUE)] {
        let file = File { what, name: Some("demonstration".to_owned()), text: text.to_owned() };
        let done = import(ledger, &file, Mode::Apply, clock)?;
        if let Some(error) = done.errors.first() {
            bail!(
                "{} of the demonstration, line {}: {}: this is a defect",
                what.name(),
                error.line,
                error.problem
            );
        }
    }
    // The morning after, when reports are made.
    clock.set(Timestamp::from_micros(clock.now().micros().saturating_add(16 * 3_600_000_000)));
    Ok(())
}
