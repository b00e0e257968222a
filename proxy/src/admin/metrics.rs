//! Counters and gauges of our own for Prometheus; names start with `bursar_`.
//!
//! Invariants
//! - No label carries a team, a model or anything else a client can choose: cardinality is bounded.
//! - Counting costs an atomic addition and never waits.
//! - A series whose labels are known is there from the start, at zero: what is first seen above zero has
//!   no increase, and an alert would miss the first burst.
//!
//! Not here: the ledger's own figures, which are read from it when scraped; metrics by model
//! (`telemetry::genai`).

use crate::failure;
use bursar_domain::{Anomaly, Label, Metering, Outcome, UsageRecord, UsageSource};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text::encode};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};
use prometheus_client::registry::Registry;
use std::collections::HashSet;

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Exchanges that have been sent upstream or are about to be.
    pub in_flight: Gauge,
    /// Open client connections.
    pub connections: Gauge,
    /// Client connections closed because a deadline passed.
    pub deadlines: Counter,
    /// Client connections refused because there were too many.
    pub connections_refused: Counter,
    /// Client connections refused because their client had too many.
    pub client_connections_refused: Counter,
    /// Defects in a scanner that were caught.
    pub meter_panics: Counter,
    /// Exchanges whose tokens were estimated roughly because the queue for counting was full.
    pub counts_shed: Counter,
    refused: Family<RefusalLabels, Counter>,
    /// Times that a soft budget, or a threshold, was passed.
    pub budget_warned: Counter,
    /// Times that a shadow budget would have refused.
    pub budget_shadowed: Counter,
    reloads: Family<ReloadLabels, Counter>,
    /// Whether the settings in force are those of the last reload: 1 if they are.
    reload_worked: Gauge,
    requests: Family<RequestLabels, Counter>,
    /// One counter per member of its enum, by number: found without a look-up.
    tokens: [Counter; 2],
    sources: Vec<Counter>,
    anomalies: Family<AnomalyLabels, Counter>,
    records_lost: Counter,
    latency: Histogram,
    ttft: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    provider: Provider,
    outcome: &'static str,
}

/// A provider's name, shared with its route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Provider(Label);

impl EncodeLabelValue for Provider {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnomalyLabels {
    kind: &'static str,
}

/// Upper bounds of the latency buckets in seconds: the boundaries that OpenTelemetry's GenAI
/// conventions recommend for operation durations.
const SECONDS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

/// Results of reloads: one that worked, one that did not.
const RELOADS: [&str; 2] = ["applied", "refused"];

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("bursar"),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            deadlines: Counter::default(),
            connections_refused: Counter::default(),
            client_connections_refused: Counter::default(),
            meter_panics: Counter::default(),
            refused: Family::default(),
            budget_warned: Counter::default(),
            budget_shadowed: Counter::default(),
            counts_shed: Counter::default(),
            reloads: Family::default(),
            reload_worked: Gauge::default(),
            requests: Family::default(),
            tokens: [Counter::default(), Counter::default()],
            sources: UsageSource::ALL.iter().map(|_| Counter::default()).collect(),
            anomalies: Family::default(),
            records_lost: Counter::default(),
            latency: Histogram::new(SECONDS),
            ttft: Histogram::new(SECONDS),
        };
        metrics.register();
        metrics.begin();
        metrics
    }

    /// Puts what may be refused, anomalies and reloads at zero.
    fn begin(&self) {
        for reason in failure::refusals() {
            drop(self.refused.get_or_create(&RefusalLabels { reason }));
        }
        for kind in Anomaly::ALL.iter().map(|anomaly| anomaly.name()) {
            drop(self.anomalies.get_or_create(&AnomalyLabels { kind }));
        }
        for result in RELOADS {
            drop(self.reloads.get_or_create(&ReloadLabels { result }));
        }
    }

    /// Puts the outcomes of these providers at zero, where nothing was counted yet. There are as many
    /// series as routes name providers, nine for each.
    pub fn expect_providers<'p>(&self, providers: impl Iterator<Item = &'p Label>) {
        // What a crash interrupted is told by the ledger and was no exchange of this process.
        let outcomes = Outcome::ALL.iter().filter(|outcome| **outcome != Outcome::Interrupted);
        let known: HashSet<&Label> = providers.collect();
        for (provider, outcome) in known.into_iter().flat_map(|one| outcomes.clone().map(move |o| (one, o))) {
            let labels = RequestLabels { provider: Provider(provider.clone()), outcome: outcome.name() };
            drop(self.requests.get_or_create(&labels));
        }
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        let build = Family::<Vec<(&'static str, String)>, Gauge>::default();
        build.get_or_create(&crate::built::labels()).set(1);
        r.register("build_info", "Always 1; its labels say what the program was built from", build);
        r.register("requests", "Settled exchanges by provider and outcome", self.requests.clone());
        let tokens = Family::<TokenLabels, Counter>::default();
        self.tokens =
            ["input", "output"].map(|direction| tokens.get_or_create_owned(&TokenLabels { direction }));
        r.register("tokens", "Metered tokens by direction", tokens);
        let sources = Family::<SourceLabels, Counter>::default();
        let labels = UsageSource::ALL.iter().map(|source| SourceLabels { source: source.name() });
        self.sources = labels.map(|labels| sources.get_or_create_owned(&labels)).collect();
        r.register("usage_source", "Settled exchanges by where their token counts come from", sources);
        r.register("anomalies", "Exchanges that someone should look at, by kind", self.anomalies.clone());
        r.register("requests_in_flight", "Exchanges under way", self.in_flight.clone());
        r.register(
            "counts_shed",
            "Exchanges whose tokens were estimated roughly because the queue for counting was full",
            self.counts_shed.clone(),
        );
        r.register(
            "requests_refused",
            "Requests that Bursar itself refused, by reason",
            self.refused.clone(),
        );
        r.register(
            "budget_warned",
            "Requests above a soft budget or at a threshold of one",
            self.budget_warned.clone(),
        );
        r.register(
            "budget_shadowed",
            "Requests above a shadow budget or at a threshold of one",
            self.budget_shadowed.clone(),
        );
        r.register(
            "records_lost",
            "Usage records that the ledger could not take: traffic passed unmetered",
            self.records_lost.clone(),
        );
        r.register("config_reloads", "Reloads of the configuration by result", self.reloads.clone());
        self.reload_worked.inc();
        r.register(
            "config_last_reload_successful",
            "Whether the last configuration that was read is in force (1) or was refused (0)",
            self.reload_worked.clone(),
        );
        r.register("meter_panics", "Defects in the meter that were caught", self.meter_panics.clone());
        r.register("connections", "Open client connections", self.connections.clone());
        r.register(
            "connection_deadlines",
            "Client connections closed because a deadline passed",
            self.deadlines.clone(),
        );
        r.register(
            "connections_refused",
            "Client connections refused because there were too many",
            self.connections_refused.clone(),
        );
        r.register(
            "client_connections_refused",
            "Client connections refused because their client's address had too many",
            self.client_connections_refused.clone(),
        );
        r.register(
            "request_duration_seconds",
            "Head of the request to end of the reply",
            self.latency.clone(),
        );
        r.register(
            "time_to_first_byte_seconds",
            "Head of the request to the first byte of the reply's body",
            self.ttft.clone(),
        );
    }

    /// Counts a settled exchange.
    pub fn settled(&self, record: &UsageRecord) {
        let labels =
            RequestLabels { provider: Provider(record.provider.clone()), outcome: record.outcome.name() };
        self.requests.get_or_create(&labels).inc();
        if record.metering != Metering::Never {
            let counts = [record.usage.input_total(), record.usage.output_total()];
            for (counter, count) in self.tokens.iter().zip(counts) {
                counter.inc_by(count.unwrap_or(0));
            }
            if let Some(counter) = self.sources.get(usize::from(record.usage_source.number())) {
                counter.inc();
            }
        }
        for anomaly in record.anomalies.iter() {
            self.anomalies.get_or_create(&AnomalyLabels { kind: anomaly.name() }).inc();
        }
        self.latency.observe(seconds(record.latency_us));
        if let Some(ttft) = record.ttft_us {
            self.ttft.observe(seconds(ttft));
        }
    }

    /// Counts a reload of the configuration.
    pub fn reloaded(&self, worked: bool) {
        let [applied, refused] = RELOADS;
        let result = if worked { applied } else { refused };
        self.reloads.get_or_create(&ReloadLabels { result }).inc();
        self.reload_worked.set(i64::from(worked));
    }

    /// Counts a request that Bursar itself refused; `reason` is one of a fixed set.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&RefusalLabels { reason }).inc();
    }

    /// Counts a record that the ledger could not take, and says so.
    pub fn record_lost(&self, why: &str) {
        if self.records_lost.inc().is_multiple_of(1000) {
            tracing::error!(why, "a usage record was lost: traffic passes unmetered (ledger.fail is open)");
        }
    }

    /// Records lost so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.records_lost.get()
    }

    /// The Prometheus text page, with the ledger's own figures.
    #[must_use]
    pub fn page(&self, ledger: &bursar_ledger::Stats) -> String {
        self.page_with(ledger, "")
    }

    /// The same with further lines.
    #[must_use]
    pub fn page_with(&self, ledger: &bursar_ledger::Stats, more: &str) -> String {
        let mut page = String::new();
        if encode(&mut page, &self.registry).is_err() {
            tracing::error!("cannot write the metrics page");
        }
        let end = page.rfind("# EOF").unwrap_or(page.len());
        page.truncate(end);
        page.push_str(&super::ledger_metrics::render(ledger));
        page.push_str(more);
        page.push_str("# EOF\n");
        page
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Seconds for a histogram: a display value, not money.
#[expect(clippy::cast_precision_loss, reason = "a duration of 2^53 µs is 285 years")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1_000_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::tests::{record, stats};

    fn page(metrics: &Metrics) -> String {
        metrics.page(&stats())
    }

    fn series(page: &str) -> usize {
        page.lines().filter(|line| !line.starts_with('#')).count()
    }

    fn label(text: &str) -> Label {
        Label::new(text).unwrap()
    }

    #[test]
    fn what_may_be_refused_and_every_anomaly_are_at_zero_before_the_first() {
        let metrics = Metrics::new();
        let before = page(&metrics);
        for series in [
            "requests_refused_total{reason=\"budget_exceeded\"}",
            "requests_refused_total{reason=\"ledger_unavailable\"}",
            "requests_refused_total{reason=\"token_expired\"}",
            "anomalies_total{kind=\"total_mismatch\"}",
            "config_reloads_total{result=\"refused\"}",
        ] {
            assert!(before.contains(&format!("bursar_{series} 0\n")), "{series}: {before}");
        }
        for reason in failure::refusals() {
            metrics.refused(reason);
        }
        assert_eq!(series(&before), series(&page(&metrics)), "no series is new");
    }

    #[test]
    fn each_provider_of_a_route_has_each_outcome_at_zero_and_keeps_what_was_counted() {
        let metrics = Metrics::new();
        let without = series(&page(&metrics));
        metrics.settled(&record());
        let providers = ["openai", "vllm", "openai"].map(label);
        metrics.expect_providers(providers.iter());
        let page = page(&metrics);
        assert_eq!(series(&page), without + 18, "{page}");
        for line in
            ["openai\",outcome=\"ok\"} 1", "openai\",outcome=\"error\"} 0", "vllm\",outcome=\"failed\"} 0"]
        {
            assert!(page.contains(&format!("bursar_requests_total{{provider=\"{line}\n")), "{line}: {page}");
        }
    }
}
