//! What receivers are told: one CloudEvents 1.0 envelope in JSON per event.
//!
//! Invariants
//! - The id of an event follows from what happened: ledger, budget, window, what, and the limit in force.
//!   Whoever hears of it twice, after a crash say, can tell.
//! - Names and figures of budgets, and no content. A refusal is told with the request's id, team and model.
//!
//! Not here: which events there are (`told`), sending them (`send`).

use super::told::What;
use crate::budgets::{Look, Refusal};
use crate::config::EventKind;
use bursar_domain::{Label, LedgerId, Timestamp};
use serde_json::{Value, json};

/// Something that happened, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Names it wherever it is heard of: `webhook-id`.
    pub(crate) id: String,
    /// The envelope.
    pub(crate) body: String,
}

/// Who tells, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Teller {
    /// The ledger whose budgets these are.
    pub(crate) ledger: LedgerId,
    /// The time now.
    pub(crate) now: Timestamp,
}

impl Teller {
    /// A share of a budget is spent.
    pub(super) fn threshold(&self, look: &Look<'_>, percent: u8, window: i64) -> Event {
        let mut data = look.json(self.now);
        insert(&mut data, "threshold_percent", json!(percent));
        let id = self.id(&look.budget.name, &What::Threshold(percent), window, look.standing.limit);
        self.event(id, EventKind::Threshold, look.budget.name.as_str(), data)
    }

    /// A budget began to refuse.
    pub(super) fn refusing(&self, refusal: &Refusal, what: &What, window: i64) -> Event {
        let standing = &refusal.denial.standing;
        let id = self.id(&standing.name, what, window, standing.limit);
        self.event(id, EventKind::Refusing, standing.name.as_str(), refusal.json())
    }

    /// A window ended; `look` is of its end.
    pub(super) fn window(&self, look: &Look<'_>, window: i64) -> Event {
        // What will be spent in it when is over.
        let mut data = look.json(Timestamp::from_micros(look.standing.span.end));
        if let Some(object) = data.as_object_mut() {
            object.remove("run_out_at");
        }
        let id = self.id(&look.budget.name, &What::Window, window, look.standing.limit);
        self.event(id, EventKind::Window, look.budget.name.as_str(), data)
    }

    /// Nothing happened: somebody tries a webhook.
    pub(crate) fn test(webhook: &Label, id: &str, now: Timestamp) -> Event {
        let data = json!({ "webhook": webhook.as_str(), "message": "this is a test: no budget has changed" });
        let body = envelope(id, "/bursar", "dev.bursar.webhook.test", webhook.as_str(), now, data);
        Event { id: id.to_owned(), body }
    }

    fn event(&self, id: String, kind: EventKind, subject: &str, data: Value) -> Event {
        let kind = match kind {
            EventKind::Threshold => "dev.bursar.budget.threshold",
            EventKind::Refusing => "dev.bursar.budget.refusing",
            EventKind::Window => "dev.bursar.budget.window",
        };
        let body = envelope(&id, &source_of(self.ledger), kind, subject, self.now, data);
        Event { id, body }
    }

    fn id(&self, budget: &Label, what: &What, window: i64, limit: i128) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("bursar webhook event 1");
        let parts = [
            self.ledger.to_string(),
            budget.as_str().to_owned(),
            what.to_string(),
            window.to_string(),
            limit.to_string(),
        ];
        for part in &parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let hex = hasher.finalize().to_hex();
        format!("evt_{}", hex.get(..32).unwrap_or_default())
    }
}

fn source_of(ledger: LedgerId) -> String {
    format!("/bursar/ledgers/{ledger}")
}

fn envelope(id: &str, source: &str, kind: &str, subject: &str, now: Timestamp, data: Value) -> String {
    let time = jiff::Timestamp::from_microsecond(now.micros()).map(|at| at.to_string());
    let mut envelope = json!({
        "specversion": "1.0",
        "id": id,
        "source": source,
        "type": kind,
        "subject": subject,
        "datacontenttype": "application/json",
        "data": data,
    });
    if let Ok(time) = time {
        insert(&mut envelope, "time", json!(time));
    }
    envelope.to_string()
}

fn insert(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}
