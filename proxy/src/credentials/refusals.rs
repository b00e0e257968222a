//! Requests that were refused for their credential, their identity or their access, remembered for `why`.
//!
//! Invariants
//! - Memory is bounded: the last few thousand, each with a text of a few hundred bytes.
//! - Those without a credential that holds are remembered apart, so that strangers cannot push others out.
//!
//! Not here: refusals of budgets and limits, which are remembered with their figures (`budgets`, `limits`).

use bursar_domain::{Label, RequestId, Timestamp};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Most that are remembered of requests without a credential that holds, and of others.
const STRANGERS_MAX: usize = 1_024;
const KNOWN_MAX: usize = 4_096;
/// Longest text that is kept of one.
const TEXT_BYTES_MAX: usize = 512;

/// A request that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The request.
    pub id: RequestId,
    /// When it was refused.
    pub at: Timestamp,
    /// The rule, key or issuer, where one was found.
    pub rule: Option<Label>,
    /// Why, as metrics name it.
    pub reason: &'static str,
    /// What the client was told.
    pub message: String,
}

/// The refused requests that are remembered.
#[derive(Debug, Default)]
pub struct Refusals {
    strangers: Mutex<VecDeque<Refused>>,
    known: Mutex<VecDeque<Refused>>,
}

/// Whether the credential of a refused request holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has none, or one that does not hold.
    Stranger,
    /// It holds, or none was asked for.
    Known,
}

impl Refusals {
    /// Remembers one.
    pub fn remember(&self, standing: Standing, mut refused: Refused) {
        let end = refused.message.floor_char_boundary(TEXT_BYTES_MAX);
        refused.message.truncate(end);
        let (list, max) = match standing {
            Standing::Stranger => (&self.strangers, STRANGERS_MAX),
            Standing::Known => (&self.known, KNOWN_MAX),
        };
        let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() >= max {
            list.pop_front();
        }
        list.push_back(refused);
    }

    /// The refusal of this request, if it is remembered.
    #[must_use]
    pub fn why(&self, id: RequestId) -> Option<Refused> {
        [&self.known, &self.strangers].into_iter().find_map(|list| {
            let list = list.lock().unwrap_or_else(PoisonError::into_inner);
            list.iter().rev().find(|refused| refused.id == id).cloned()
        })
    }
}

impl Refused {
    /// The refusal as the API tells it.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "id": self.id.to_string(),
            "at": super::keys::time_text(self.at),
            "outcome": "refused",
            "rule": self.rule.as_ref().map(Label::as_str),
            "reason": self.reason,
            "message": self.message,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(number: u128, message: &str) -> Refused {
        let id = RequestId::from_bits(number);
        Refused { id, at: Timestamp::from_micros(0), rule: None, reason: "r", message: message.to_owned() }
    }

    #[test]
    fn strangers_push_out_strangers_alone_and_texts_are_cut() {
        let refusals = Refusals::default();
        refusals.remember(Standing::Known, refused(1, &"é".repeat(600)));
        for number in 0..STRANGERS_MAX as u128 + 5 {
            refusals.remember(Standing::Stranger, refused(100 + number, "m"));
        }
        assert_eq!(refusals.why(RequestId::from_bits(1)).unwrap().message.len(), TEXT_BYTES_MAX);
        assert_eq!(refusals.why(RequestId::from_bits(104)), None);
        assert!(refusals.why(RequestId::from_bits(105)).is_some());
        assert_eq!(refusals.strangers.lock().unwrap().len(), STRANGERS_MAX);
    }
}
