//! Settling a record: does it count, and what did it cost.
//!
//! Invariants
//! - A record that does not count has no cost of its own: summing costs over records gives the totals.
//! - Under one (provider, meter id), the first `once-per-id` record that knows tokens counts, and no
//!   other. What was decided is written with the record, so a replay cannot decide otherwise.
//! - A pricer that panics leaves the record unpriced; it does not stop the ledger.
//!
//! Not here: prices (`bursar-policies`, behind `Pricer`), when records are settled (`writer`).

use crate::store::meter_key;
use bursar_domain::event::Anomaly;
use bursar_domain::{Cost, Currency, Metering, UsageRecord};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Longest provider usage object that is kept with a record.
pub const USAGE_RAW_BYTES_MAX: usize = 64 << 10;

/// Knows what a record costs. Called by the writer's thread, once for each record that counts and
/// comes without a cost.
pub trait Pricer: Send + Sync {
    /// The cost of `record` at the prices of its time.
    fn price(&self, record: &UsageRecord) -> Cost;
}

impl<F: Fn(&UsageRecord) -> Cost + Send + Sync> Pricer for F {
    fn price(&self, record: &UsageRecord) -> Cost {
        self(record)
    }
}

/// Whether a record counts, as far as the record alone tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Counting {
    Yes,
    No,
    /// It counts if this key was not there yet.
    Once(Box<[u8]>),
}

/// Whether `record` counts.
pub(crate) fn counting(record: &UsageRecord) -> Counting {
    match (record.metering, &record.meter_id) {
        (Metering::Never, _) => Counting::No,
        (Metering::Count, _) | (Metering::OncePerId, None) => Counting::Yes,
        (Metering::OncePerId, Some(_)) if !record.usage.has_tokens() => Counting::No,
        (Metering::OncePerId, Some(id)) => Counting::Once(meter_key(record.provider.as_str(), id.as_str())),
    }
}

/// Prices the record if it counts and has no cost yet.
pub(crate) fn price(record: &mut UsageRecord, counted: bool, pricer: &dyn Pricer) {
    if counted && record.cost.is_none() {
        let cost = catch_unwind(AssertUnwindSafe(|| pricer.price(record)));
        record.cost = Some(cost.unwrap_or_else(|_| Cost::unpriced(Currency::USD)));
    }
}

/// Drops a usage object that is too large to keep, and says so on the record.
pub(crate) fn bound(record: &mut UsageRecord) {
    if record.usage_raw.as_ref().is_some_and(|raw| raw.len() > USAGE_RAW_BYTES_MAX) {
        record.usage_raw = None;
        record.anomalies.insert(Anomaly::MeteringCapped);
    }
}
