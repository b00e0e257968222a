//! Finance facts: market data, contract positions and what happens to them, as the ledger keeps them.
//!
//! Invariants
//! - A fact is appended and never edited: a restatement, a new version and a correction are facts of
//!   their own.
//! - A fact keeps what was entered as JSON text, so a stricter check of a later program sees the same
//!   words; the envelope around it is typed.
//!
//! Not here: what the text may say (`policies::hedge::intake`), bytes on disk (`ledger::codec`).

use crate::ids::{Label, RequestId};
use crate::time::Timestamp;
use crate::usage::numbered;
use std::sync::Arc;

/// Longest text of one fact in bytes; far above any real contract.
pub const FACT_BYTES_MAX: usize = 64 << 10;

numbered!(
    /// What a fact is about. The numbers are those of records on disk and are never reused.
    FactKind {
        /// An exchange rate.
        Fx = 5 "fx",
        /// A fixing of an index.
        Fixing = 6 "fixing",
        /// One version of a contract position.
        Contract = 7 "contract",
        /// A revenue event.
        Revenue = 8 "revenue",
        /// The close of a period.
        PeriodClose = 9 "period_close",
        /// A temporary change of a budget, or the end of one.
        BudgetOverride = 11 "budget_override",
        /// The head of an import.
        ImportBatch = 12 "import_batch",
        /// What the ledger says of itself: a segment of which hourly totals are left, a salvage.
        Checkpoint = 13 "checkpoint",
        /// Who made a change, and by what.
        Audit = 14 "audit",
        /// Something that happened to a position.
        ContractEvent = 40 "contract_event",
        /// What is known about an index.
        Index = 41 "index",
        /// The holidays of a market.
        Calendar = 42 "calendar",
        /// A conversion profile: how units turn into one another.
        Profile = 43 "profile",
    }
);

/// One fact as it is recorded. Its sequence is given by the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Names the fact in the ledger.
    pub id: RequestId,
    /// When it became known here.
    pub at: Timestamp,
    /// What it is about.
    pub kind: FactKind,
    /// Names what it is about: a position with its version, an index with its day.
    pub name: Label,
    /// What was entered: one JSON object on one line.
    pub body: Arc<str>,
}

/// A fact with its place in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFact {
    /// The place, from 1; usage records and facts share one sequence.
    pub sequence: u64,
    /// What was recorded.
    pub fact: Fact,
}
