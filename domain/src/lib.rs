//! The nouns of Bursar: what every other crate talks about.
//!
//! Invariants
//! - Money is integers; nothing here knows a float.
//! - Unknown is not zero: a count that nobody reported is absent.
//! - A value that exists is valid; checks happen in constructors.
//!
//! Not here: decisions (`bursar-policies`), disk (`bursar-ledger`), wire shapes (`bursar`).
#![cfg_attr(not(test), deny(clippy::float_arithmetic, clippy::arithmetic_side_effects))]

pub mod batch;
pub mod event;
pub mod fact;
pub mod ids;
pub mod money;
pub mod rate;
pub mod time;
pub mod usage;
pub mod wide;

pub use batch::{BatchFacts, BatchLine, BatchLines, BatchNames};
pub use event::{
    Anomalies, Anomaly, Cost, CostStatus, Identity, IdentitySource, Metering, ModelUsage, Outcome,
    ProviderCost, Tags, UsageRecord,
};
pub use fact::{Fact, FactKind, StoredFact};
pub use ids::{Label, LabelError, LedgerId, RequestId, TraceId};
pub use money::{Currency, Money, MoneyError};
pub use rate::{Rate, RateError};
pub use time::{Clock, SystemClock, Timestamp};
pub use usage::{Quantity, TokenClass, Usage, UsageSource};
