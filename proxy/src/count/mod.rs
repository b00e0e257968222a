//! Counting tokens where the provider told none: streams without usage, cut replies, own servers.
//!
//! | file | owns |
//! |---|---|
//! | `watch` | what is kept of an exchange in case its tokens must be counted |
//! | `pool` | the threads that count, and their bounded queues |
//! | `settle` | filling a record with what was counted, and handing it to the ledger |
//! | `request` | the tokens of a request's body |
//! | `texts`, `unescape` | the tokens of a reply's texts |
//! | `tally` | with what is counted |
//!
//! Invariants
//! - A provider's figure is never replaced; only a missing side is counted.
//! - Nothing is counted on a worker. When the queue is full, the figure is a rough estimate made in
//!   one pass and says so.
//! - Text is held as long as the exchange runs and in bounded amounts, and goes nowhere else.
//!
//! Not here: vocabularies (`bursar_tokens`), finding the text in a reply (`usage::text`).

mod pool;
mod request;
mod settle;
mod tally;
mod texts;
mod unescape;
mod watch;

pub use pool::Counting;
pub(crate) use settle::counted_here;
pub use settle::{Settlement, Work};
pub use watch::{BLOCK_BYTES, Sample, Watch};
