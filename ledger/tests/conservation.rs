//! No cent of random revenue is lost or made, whatever the model: events of every kind against a month of
//! requests, added up apart from the program.
//!
//! `BURSAR_EVENTS=1000000 cargo test --release -p bursar-ledger --test conservation` does it with a million.
//!
//! Not here: which credit is right (`policies::attribution`), small random books (`roi`'s own tests).
#![allow(clippy::unwrap_used, reason = "test code: a failed expectation is a failed test")]

#[path = "../examples/month.rs"]
mod month;

use bursar_domain::{Currency, Money};
use bursar_ledger::roi::report;
use bursar_policies::attribution::ModelName;

/// Events unless the environment says how many.
const EVENTS: u64 = 3_000;
/// Requests.
const RECORDS: u64 = 2_000;

#[test]
fn attributed_and_unattributed_are_what_was_received_to_the_cent() {
    let told =
        std::env::var_os("BURSAR_EVENTS").and_then(|text| text.to_str().and_then(|text| text.parse().ok()));
    let events = told.unwrap_or(EVENTS);
    let dir = tempfile::tempdir().unwrap();
    let ledger = month::open(dir.path());
    let expected = month::fill(&ledger, RECORDS, events);
    let cents = |money: Money| i64::try_from(money.pico() / Currency::USD.minor_pico()).unwrap();
    for model in
        [ModelName::First, ModelName::Last, ModelName::Linear, ModelName::TimeDecay, ModelName::Position]
    {
        let found = report(&ledger, &month::ask(model)).unwrap();
        let mut attributed = (0_i64, 0_i64);
        for row in found.rows.values() {
            attributed.0 += cents(row.value.revenue);
            attributed.1 += cents(row.value.savings);
        }
        let nobody = found.earned.attributed.unattributed;
        assert!(attributed.0 > 0 && nobody.revenue.pico() > 0, "both are there");
        let all = (attributed.0 + cents(nobody.revenue), attributed.1 + cents(nobody.savings));
        assert_eq!(all, (expected.revenue, expected.savings), "{}", model.name());
    }
    ledger.close().unwrap();
}
