//! Imports of revenue: once, whole, and whatever the order.

use super::*;
use crate::Options;
use bursar_domain::{Cost, Currency, SystemClock, UsageRecord};
use bursar_policies::attribution::Kind;
use serde_json::{Value, json};

fn open(dir: &std::path::Path) -> Ledger {
    let pricer = Arc::new(|_: &UsageRecord| Cost::unpriced(Currency::USD));
    Ledger::open(Options::new(dir), Arc::new(SystemClock), pricer).unwrap().0
}

fn event(id: &str, amount: &str, more: &Value) -> Revenue {
    let mut fields = json!({
        "id": id, "amount": amount, "currency": "USD", "time": "2026-09-05T10:00:00Z", "workload": "w"
    });
    for (name, value) in more.as_object().unwrap() {
        fields[name] = value.clone();
    }
    RevenueEntry::read(&fields.to_string()).unwrap().check().unwrap()
}

fn sale(id: &str, amount: &str) -> Revenue {
    event(id, amount, &json!({}))
}

fn refund(id: &str, amount: &str, of: &str) -> Revenue {
    event(id, amount, &json!({"kind": "refund", "refers_to": of}))
}

fn import(ledger: &Ledger, events: &[Revenue], mode: Mode) -> RevenueImported {
    let events = (1..).zip(events.iter().cloned()).collect();
    ledger.import_revenue(events, &ImportHead::default(), mode, &SystemClock).unwrap()
}

#[test]
fn events_are_there_once_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let events = [refund("r", "-4", "s"), sale("s", "10")];
    let first = import(&ledger, &events, Mode::Apply);
    assert_eq!((first.imported.errors.len(), first.imported.writes.len()), (0, 2), "{first:?}");
    let again = import(&ledger, &events, Mode::Apply);
    assert_eq!((again.imported.same, again.imported.written), (2, None));
    ledger.close().unwrap();
    let ledger = open(dir.path());
    let again = import(&ledger, &events, Mode::Apply);
    assert_eq!((again.imported.same, again.imported.written), (2, None));
    let too_much = import(&ledger, &[refund("r2", "-6.01", "s")], Mode::Apply);
    assert_eq!(too_much.imported.errors[0].problem, "event r2 takes back -6.01, but only 6 is left of s");
    let (found, unusable) = revenue_events(&ledger.facts());
    assert_eq!((found.len(), unusable.len()), (2, 0));
    assert_eq!(found[1].1.event.kind, Kind::Refund);
    ledger.close().unwrap();
}

#[test]
fn a_bad_row_or_a_dry_run_writes_nothing_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    import(&ledger, &[sale("s", "10")], Mode::Apply);
    let before = ledger.facts().len();
    let bad = import(&ledger, &[refund("r", "-10", "s"), sale("s", "11"), sale("t", "1")], Mode::Apply);
    assert!(bad.conflict && bad.imported.written.is_none());
    assert_eq!(bad.imported.errors.iter().map(|error| error.line).collect::<Vec<_>>(), [2]);
    let dry = import(&ledger, &[refund("r", "-10", "s"), sale("t", "1")], Mode::DryRun);
    assert_eq!((dry.imported.writes.len(), dry.imported.written), (2, None));
    assert_eq!(ledger.facts().len(), before);
    // Nothing of the two is remembered: the refund takes what is there, and `t` may be another event.
    let good = import(&ledger, &[refund("r", "-10", "s"), sale("t", "2")], Mode::Apply);
    assert_eq!((good.imported.errors.len(), good.imported.writes.len()), (0, 2), "{good:?}");
    let none = import(&ledger, &[refund("r3", "-1", "nothing")], Mode::Apply);
    assert!(!none.conflict && none.imported.errors[0].problem.contains("which is not there"));
    ledger.close().unwrap();
}
