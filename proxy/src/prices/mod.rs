//! What things cost, for commands and the API: the prices that hold, every row about a model, what differs
//! between two books, and past usage at other prices.
//!
//! Invariants
//! - Nothing here changes a ledger or a book.
//!
//! | File | Owns |
//! |---|---|
//! | `pick.rs` | which models are meant |
//! | `list.rs` | the prices that hold, and the rows of one model |
//! | `diff.rs` | what differs between two books |
//! | `replay.rs` | recorded usage under another book |
//!
//! Not here: which price holds (`bursar_policies::price`), which overlay is in force (`cli::serve`), tables
//! (`cli::price`).

pub(crate) mod diff;
pub(crate) mod list;
pub(crate) mod pick;
pub(crate) mod replay;
