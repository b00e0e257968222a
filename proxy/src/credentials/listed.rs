//! Virtual keys as lists tell them: what each is for, and whether it is valid now.
//!
//! Invariant: no hash of a secret is told.
//!
//! Not here: what a key is (`keys`), the command and the operation that list them (`cli`, `admin`).

use super::keys::{Key, time_text};
use bursar_domain::{Label, Timestamp};
use serde_json::{Value, json};

/// A key as lists tell it.
pub(crate) fn listed(key: &Key, now: Timestamp) -> Value {
    let state = match (key.not_before, key.expires) {
        (Some(from), _) if now < from => "not yet valid",
        (_, Some(to)) if now >= to => "expired",
        _ => "valid",
    };
    let names = |labels: &[Label]| labels.iter().map(Label::as_str).map(Value::from).collect::<Vec<_>>();
    let some = |labels: &Option<Vec<Label>>| labels.as_deref().map(names);
    let previous = key.secrets.get(1).and_then(|secret| secret.expires);
    json!({
        "name": key.name.as_str(),
        "id": key.id.as_str(),
        "state": state,
        "team": key.team.as_str(),
        "workload": names(&key.workloads),
        "customer": key.customer.as_ref().map(Label::as_str),
        "routes": some(&key.grant.routes),
        "models": some(&key.grant.models),
        "providers": some(&key.grant.providers),
        "not_before": key.not_before.map(time_text),
        "expires": key.expires.map(time_text),
        "previous_expires": previous.map(time_text),
    })
}
