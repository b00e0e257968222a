//! Settling a record: does it count, and what did it cost.
//!
//! Invariants
//! - A record that does not count has no cost of its own: summing costs over records gives the totals.
//! - Under one (provider, meter id), the first `once-per-id` record that knows tokens counts, and no
//!   other. What was decided is written with the record, so a replay cannot decide otherwise.
//! - A pricer that panics leaves the record unpriced; it does not stop the ledger.
//! - A record whose provider charged something else than the list cost says so.
//!
//! Not here: prices (`bursar-policies`, behind `Pricer`), when records are settled (`writer`).

use crate::store::meter_key;
use bursar_domain::event::Anomaly;
use bursar_domain::{Cost, CostStatus, Currency, Metering, UsageRecord};
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A charge differs from the list cost when they are more than one in so many parts of the charge
/// apart.
const DIFFERS_PART: u128 = 20;

/// Longest provider usage object that is kept with a record.
pub const USAGE_RAW_BYTES_MAX: usize = 64 << 10;

/// Knows what a record costs. Called by the writer's thread for each record that counts and comes
/// without a cost; for fetched results of a batch once for each result, in a record of its own.
pub trait Pricer: Send + Sync {
    /// The cost of `record` at the prices of its time.
    fn price(&self, record: &UsageRecord) -> Cost;
}

impl<F: Fn(&UsageRecord) -> Cost + Send + Sync> Pricer for F {
    fn price(&self, record: &UsageRecord) -> Cost {
        self(record)
    }
}

/// What came with the record of an exchange that this process has just relayed. The ledger keeps nothing
/// of it and hands it to the observer; a record that came otherwise (settled after a crash) has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The span that the exchange belongs to, in the record's trace.
    pub parent_span: Option<NonZeroU64>,
    /// Whether the caller's trace is sampled; `None` where it does not say.
    pub sampled: Option<bool>,
    /// Pieces in which the reply arrived.
    pub pieces: u32,
}

/// Is told of every record as the writer settles it.
pub trait Observer: Send + Sync {
    /// `record` was settled with its cost and will have this sequence. Called by the writer's thread, once
    /// for each id, before the record is acknowledged: must not block.
    fn settled(&self, record: &UsageRecord, counted: bool, sequence: u64);

    /// The same, with what came with the record. Instead of [`Self::settled`], not besides.
    fn settled_for(&self, record: &UsageRecord, counted: bool, sequence: u64, caller: Option<Caller>) {
        let _ = caller;
        self.settled(record, counted, sequence);
    }

    /// `record`, with its cost, was handed in and will not be in the ledger: it is too large, or the
    /// journal takes nothing any more. `counted` as far as the record alone tells. What it used was used
    /// all the same. Called by the writer's thread: must not block.
    fn lost(&self, record: &UsageRecord, counted: bool);
}

/// Tells the observer; a panic there does not stop the ledger.
pub(crate) fn tell(
    observer: &dyn Observer,
    record: &UsageRecord,
    counted: bool,
    sequence: u64,
    caller: Option<Caller>,
) {
    let told = catch_unwind(AssertUnwindSafe(|| observer.settled_for(record, counted, sequence, caller)));
    if told.is_err() {
        tracing::error!(id = %record.id, "who observes the ledger panicked");
    }
}

/// Tells the observer of a record that is lost.
pub(crate) fn tell_lost(observer: &dyn Observer, record: &UsageRecord, counted: bool) {
    if catch_unwind(AssertUnwindSafe(|| observer.lost(record, counted))).is_err() {
        tracing::error!(id = %record.id, "who observes the ledger panicked");
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

/// Marks a priced record of which the provider says that it charged something else than the list cost:
/// more than a twentieth apart, in the same currency. A cost that is not complete differs anyway and
/// has its own status. Returns whether it was marked.
pub(crate) fn compare(record: &mut UsageRecord) -> bool {
    let (Some(charge), Some(cost)) = (record.provider_cost, &record.cost) else { return false };
    let complete = cost.status == CostStatus::Priced && cost.currency == charge.amount.currency();
    let Some(list) = cost.list_pico.filter(|_| complete) else { return false };
    let charge = charge.amount.pico();
    let apart = list.abs_diff(charge).saturating_mul(DIFFERS_PART) > charge.unsigned_abs();
    if apart {
        record.anomalies.insert(Anomaly::ProviderCostDiffers);
    }
    apart
}

/// Whether `offered` is the record that was stored as `stored`, as far as its facts go: what settling
/// adds or drops is no difference.
pub(crate) fn says_the_same(stored: &UsageRecord, offered: &UsageRecord) -> bool {
    let mut offered = offered.clone();
    bound(&mut offered);
    if offered.cost.is_none() {
        offered.cost.clone_from(&stored.cost);
    }
    compare(&mut offered);
    *stored == offered
}

/// Drops a usage object that is too large to keep, and says so on the record.
pub(crate) fn bound(record: &mut UsageRecord) {
    if record.usage_raw.as_ref().is_some_and(|raw| raw.len() > USAGE_RAW_BYTES_MAX) {
        record.usage_raw = None;
        record.anomalies.insert(Anomaly::MeteringCapped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::plain_record;
    use bursar_domain::{Money, ProviderCost};

    fn check(charge: (&str, i128), list: Option<i128>, status: CostStatus, differs: bool) {
        let mut record = plain_record(1);
        let (currency, pico) = charge;
        let amount = Money::from_pico(Currency::parse(currency).unwrap(), pico);
        record.provider_cost = Some(ProviderCost { amount });
        let priced = Cost { status, list_pico: list, ..Cost::unpriced(Currency::USD) };
        record.cost = Some(priced);
        assert_eq!(compare(&mut record), differs, "{charge:?} {list:?} {status}");
        assert_eq!(record.anomalies.contains(Anomaly::ProviderCostDiffers), differs);
    }

    #[test]
    fn a_charge_more_than_five_per_cent_from_the_list_cost_is_marked() {
        let priced = CostStatus::Priced;
        check(("USD", 1_000), Some(1_050), priced, false);
        check(("USD", 1_000), Some(1_051), priced, true);
        check(("USD", 1_000), Some(950), priced, false);
        check(("USD", 1_000), Some(949), priced, true);
        check(("USD", 0), Some(0), priced, false);
        check(("USD", 0), Some(1), priced, true);
        check(("USD", i128::MIN), Some(i128::MAX), priced, true);
    }

    #[test]
    fn what_cannot_be_compared_is_not_marked() {
        check(("EUR", 1_000), Some(2_000), CostStatus::Priced, false);
        check(("USD", 1_000), None, CostStatus::Priced, false);
        check(("USD", 1_000), Some(10), CostStatus::PartlyPriced, false);
        check(("USD", 1_000), None, CostStatus::Unpriced, false);
        let mut record = plain_record(1);
        assert!(!compare(&mut record), "neither charge nor cost");
    }
}
