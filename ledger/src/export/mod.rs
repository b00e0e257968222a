//! Records on their way out: one row per record, the same field names in every format.
//!
//! Invariants
//! - Field names and their order are the published record's (`seq` and `ledger` included); a name
//!   that is absent was unknown.
//! - Token classes are disjoint inside; rows show totals: input with caches, output with reasoning.
//! - Money is printed from integers, never through a float.
//!
//! Not here: which records (`Ledger::records`), tables for people (the command line).

mod csv;
mod jsonl;
mod row;

pub use csv::{CsvWriter, cell_text};
pub use jsonl::{Classes, JsonlWriter, record_json};

use std::io;

/// Why a row could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The target said no.
    #[error("cannot write the export")]
    Write(#[source] io::Error),
    /// A row could not be put into JSON.
    #[error("cannot put record {sequence} into JSON")]
    Json {
        /// The record.
        sequence: u64,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

#[cfg(test)]
mod tests;
