//! Revenue between the ledger and its users: events as files and requests say them, reports as
//! documents. The admin API and the commands share all of it.
//!
//! Invariants
//! - Answers are JSON documents of one shape, whoever asks; amounts are exact decimal text.
//! - An import is checked whole; its answer names every bad row by its line.
//!
//! Not here: rules (`bursar-policies`), joins (`ledger::roi`), tables (`cli`).

pub(crate) mod cloudevents;
pub(crate) mod events;
pub(crate) mod period;
pub(crate) mod reconciliation;
pub(crate) mod report;
pub(crate) mod workbook;
