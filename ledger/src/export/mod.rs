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
#[cfg(feature = "parquet")]
mod parquet;
mod row;
mod table;
mod usage;

pub use csv::{CsvWriter, cell_text};
pub use jsonl::{Classes, JsonlWriter, record_json};
pub use table::{
    Cell, Column, GROUP_ROWS_MAX, Kind, MONEY_PLACES, Presence, TableFormat, TableWriter, Values,
    decimal_text, instant_text,
};
pub use usage::UsageTable;

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
    /// A number that has more than 38 digits.
    #[error("{column}: a number has more than 38 digits, which Parquet cannot hold: write CSV")]
    TooLarge {
        /// Its column.
        column: String,
    },
    /// A row that does not fit its columns: a defect.
    #[error("a row does not fit its columns ({0}): this is a defect")]
    Shape(String),
    /// Parquet cannot be written.
    #[cfg(feature = "parquet")]
    #[error("cannot write Parquet")]
    Parquet(#[from] ::parquet::errors::ParquetError),
    /// This build has no Parquet.
    #[cfg(not(feature = "parquet"))]
    #[error("this build cannot write Parquet: build it with the feature parquet, or use --format csv")]
    NoParquet,
}

#[cfg(test)]
mod tests;
