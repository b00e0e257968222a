//! Which exchanges get a span: `OTEL_TRACES_SAMPLER`.
//!
//! Invariants
//! - Unless told otherwise, the caller's decision stands: its trace is not half there.
//! - The same trace id always gives the same answer, here and at whoever samples by the same rule.
//!
//! Source: OpenTelemetry's specification of the trace SDK, "Built-in samplers"; the rule for ratios is that
//! of its `TraceIdRatioBased` for random trace ids (the lower 56 bits).
//!
//! Not here: reading the variables (`config`).

use crate::config::{Root, Sampler};
use bursar_domain::UsageRecord;
use bursar_ledger::Caller;

const RANDOM_BITS: u32 = 56;

/// A sampler with its threshold worked out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampling {
    /// Whether a caller that says something decides.
    by_parent: bool,
    /// Traces whose random bits are below this are left out; 2⁵⁶ leaves out all.
    threshold: u64,
}

impl Sampling {
    pub(super) fn new(sampler: Sampler) -> Self {
        let all = 1_u64 << RANDOM_BITS;
        let threshold = match sampler.root {
            Root::Always => 0,
            Root::Never => all,
            // The share that is taken, in billionths.
            Root::Ratio(billionths) => {
                let taken = u128::from(all) * u128::from(billionths) / 1_000_000_000;
                all.saturating_sub(u64::try_from(taken).unwrap_or(all))
            }
        };
        Self { by_parent: sampler.by_parent, threshold }
    }

    /// Whether the exchange of `record` gets a span.
    pub(super) fn takes(self, record: &UsageRecord, caller: Caller) -> bool {
        let trace = record.trace_id.map_or_else(|| record.id.bits(), |trace| trace.bits());
        match caller.sampled.filter(|_| self.by_parent) {
            Some(sampled) => sampled,
            None => {
                let random = trace & ((1 << RANDOM_BITS) - 1);
                random >= u128::from(self.threshold)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::tests::record;
    use bursar_domain::TraceId;

    fn check(sampler: Sampler, trace: u128, sampled: Option<bool>, expected: bool) {
        let record = UsageRecord { trace_id: TraceId::from_bits(trace), ..record() };
        let caller = Caller { sampled, ..Caller::default() };
        assert_eq!(
            Sampling::new(sampler).takes(&record, caller),
            expected,
            "{sampler:?} {trace:x} {sampled:?}"
        );
    }

    #[test]
    fn the_callers_decision_stands_where_the_sampler_is_parent_based() {
        for root in [Root::Always, Root::Never, Root::Ratio(500_000_000)] {
            for sampled in [true, false] {
                check(Sampler { by_parent: true, root }, 1, Some(sampled), sampled);
            }
        }
        check(Sampler { by_parent: false, root: Root::Always }, 1, Some(false), true);
        check(Sampler { by_parent: false, root: Root::Never }, 1, Some(true), false);
        check(Sampler { by_parent: true, root: Root::Always }, 1, None, true);
        check(Sampler { by_parent: true, root: Root::Never }, 1, None, false);
    }

    #[test]
    fn a_ratio_takes_the_upper_part_of_random_trace_ids() {
        let quarter = Sampler { by_parent: false, root: Root::Ratio(250_000_000) };
        check(quarter, 0xC0_0000_0000_0000, None, true);
        check(quarter, 0xBF_FFFF_FFFF_FFFF, None, false);
        check(quarter, 0xFF00_0000_0000_0001, None, false);
        check(Sampler { by_parent: false, root: Root::Ratio(1_000_000_000) }, 1, None, true);
        check(Sampler { by_parent: false, root: Root::Ratio(0) }, 0xFF_FFFF_FFFF_FFFF, None, false);
    }
}
