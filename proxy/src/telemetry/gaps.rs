//! What the ledger's figures lack: a price, or somebody who told the tokens.
//!
//! Invariants
//! - Only what counts in the ledger counts here.
//! - Every series is there from the start, at zero.
//!
//! Not here: what is counted without a provider's figures, and how (`count`); prices (`policies::price`).

use crate::count::counted_here;
use bursar_domain::{CostStatus, Metering, UsageRecord, UsageSource};
use std::sync::atomic::{AtomicU64, Ordering};

/// What a record's source may be where tokens of it were counted here.
const SOURCES: [UsageSource; 3] =
    [UsageSource::Estimate, UsageSource::Tokenizer, UsageSource::ProviderPartial];
/// What a cost may lack: everything, or a part.
const STATUSES: [CostStatus; 2] = [CostStatus::Unpriced, CostStatus::PartlyPriced];
const DIRECTIONS: [&str; 2] = ["input", "output"];

/// Counters of exchanges and tokens.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    unpriced: [AtomicU64; STATUSES.len()],
    /// Tokens by source and direction.
    estimated: [[AtomicU64; DIRECTIONS.len()]; SOURCES.len()],
}

impl Gaps {
    /// Counts a settled exchange; `counted` says whether the ledger counts its tokens.
    pub(super) fn count(&self, record: &UsageRecord, counted: bool) {
        if !counted || record.metering == Metering::Never {
            return;
        }
        // What the ledger did not take was not priced, which is no fault of the prices.
        let status = record.cost.as_ref().map(|cost| cost.status);
        for (counter, of) in self.unpriced.iter().zip(STATUSES) {
            if status == Some(of) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
        for (counters, of) in self.estimated.iter().zip(SOURCES) {
            if record.usage_source == of {
                for (counter, tokens) in counters.iter().zip(counted_here(record)) {
                    counter.fetch_add(tokens.unwrap_or(0), Ordering::Relaxed);
                }
            }
        }
    }

    /// The lines for Prometheus.
    pub(super) fn page(&self) -> String {
        let mut page = "# HELP bursar_requests_unpriced Settled exchanges that count and have no price, or \
                        none for a part.\n# TYPE bursar_requests_unpriced counter\n"
            .to_owned();
        for (counter, status) in self.unpriced.iter().zip(STATUSES) {
            let (status, count) = (status.name(), counter.load(Ordering::Relaxed));
            page.push_str(&format!("bursar_requests_unpriced_total{{status=\"{status}\"}} {count}\n"));
        }
        page.push_str(
            "# HELP bursar_tokens_estimated Tokens that Bursar counted itself, since no provider told them.\n\
             # TYPE bursar_tokens_estimated counter\n",
        );
        for (counters, source) in self.estimated.iter().zip(SOURCES) {
            for (counter, direction) in counters.iter().zip(DIRECTIONS) {
                let (source, count) = (source.name(), counter.load(Ordering::Relaxed));
                page.push_str(&format!(
                    "bursar_tokens_estimated_total{{source=\"{source}\",direction=\"{direction}\"}} {count}\n"
                ));
            }
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::tests::record;
    use bursar_domain::{Cost, Label};

    /// The series above zero after `records`, which count where `counted`.
    fn check(records: &[UsageRecord], counted: bool, expected: &[&str]) {
        let gaps = Gaps::default();
        for record in records {
            gaps.count(record, counted);
        }
        let page = gaps.page();
        let series = page.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(series.clone().count(), 8, "each is there from the start: {page}");
        let found: Vec<_> = series.filter(|line| !line.ends_with(" 0")).collect();
        assert_eq!(found, expected);
    }

    fn priced(status: CostStatus) -> UsageRecord {
        let cost = record().cost.map(|cost| Cost { status, ..cost });
        UsageRecord { cost, ..record() }
    }

    fn by(usage_source: UsageSource, counted_by: &str) -> UsageRecord {
        UsageRecord { usage_source, counted_by: Label::new(counted_by).ok(), ..record() }
    }

    #[test]
    fn what_has_no_price_counts_by_what_it_lacks() {
        let all = [CostStatus::Priced, CostStatus::Unpriced, CostStatus::PartlyPriced, CostStatus::Unpriced];
        let expected = [
            "bursar_requests_unpriced_total{status=\"unpriced\"} 2",
            "bursar_requests_unpriced_total{status=\"partly_priced\"} 1",
        ];
        check(&all.map(priced), true, &expected);
    }

    #[test]
    fn tokens_that_were_counted_here_count_and_those_that_a_provider_told_do_not() {
        let records = [
            record(),
            by(UsageSource::Estimate, "o200k_base, family"),
            by(UsageSource::Tokenizer, "o200k_base"),
            by(UsageSource::ProviderPartial, "output: o200k_base"),
            by(UsageSource::ProviderPartial, "input: o200k_base"),
            UsageRecord { usage_source: UsageSource::ProviderPartial, ..record() },
        ];
        let expected = [
            "bursar_tokens_estimated_total{source=\"estimate\",direction=\"input\"} 1000",
            "bursar_tokens_estimated_total{source=\"estimate\",direction=\"output\"} 500",
            "bursar_tokens_estimated_total{source=\"tokenizer\",direction=\"input\"} 1000",
            "bursar_tokens_estimated_total{source=\"tokenizer\",direction=\"output\"} 500",
            "bursar_tokens_estimated_total{source=\"provider_partial\",direction=\"input\"} 1000",
            "bursar_tokens_estimated_total{source=\"provider_partial\",direction=\"output\"} 500",
        ];
        check(&records, true, &expected);
    }

    #[test]
    fn what_does_not_count_or_was_lost_lacks_nothing() {
        let never = UsageRecord { metering: Metering::Never, ..priced(CostStatus::Unpriced) };
        check(&[never, UsageRecord { cost: None, ..record() }], true, &[]);
        check(&[priced(CostStatus::Unpriced), by(UsageSource::Estimate, "x")], false, &[]);
    }
}
