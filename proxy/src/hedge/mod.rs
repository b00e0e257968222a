//! Hedges between the ledger and its users: what files say, and what questions are answered with. The
//! admin API and the commands share all of it.
//!
//! Invariants
//! - Answers are JSON documents of one shape, whoever asks; amounts are exact decimal text.
//! - An import is checked whole; its answer names every bad row by its line.
//!
//! Not here: rules (`bursar-policies`), state and joins (`ledger::hedge`), tables (`cli`).

pub(crate) mod compose;
pub(crate) mod documents;
pub(crate) mod draw;
pub(crate) mod effectiveness;
pub(crate) mod exact_json;
pub(crate) mod import;
pub(crate) mod png;
pub(crate) mod priced;
pub(crate) mod report;
pub(crate) mod risk;
pub(crate) mod rows;
pub(crate) mod simulate;

/// Why a question cannot be answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The question is wrong.
    #[error("{0}")]
    Wrong(String),
    /// There is no such thing.
    #[error("{0}")]
    Missing(String),
    /// The ledger cannot answer.
    #[error("cannot read the ledger: {0}")]
    Ledger(String),
}

impl From<bursar_ledger::ReadError> for AskError {
    fn from(error: bursar_ledger::ReadError) -> Self {
        match error {
            // The question can be asked otherwise.
            bursar_ledger::ReadError::Pruned(pruned) => Self::Wrong(pruned.to_string()),
            error => Self::Ledger(error.to_string()),
        }
    }
}
