//! What the webhook tells of itself to Prometheus; names start with `bursar_inject_`.
//!
//! Invariants
//! - No label carries anything of a pod or of a request: its values are those of `Conclusion`.
//! - Every outcome is there from the start, at zero, so the first of a kind is seen as an increase.
//! - What is not known is absent: without TLS there is no time at which a certificate expires.
//!
//! Not here: where it is served (`server`), the sidecar's metrics (`admin::metrics`).

use super::review::Conclusion;
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};
use prometheus_client::registry::Registry;
use std::time::Duration;

/// The outcome of what was no review, or did not arrive.
const ERROR: &str = "error";

/// Upper bounds of the buckets in seconds. A review takes about a millisecond; API servers give up after
/// `timeoutSeconds`, at most 30.
const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// All metrics of the webhook.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    reviews: Family<OutcomeLabels, Counter>,
    durations: Histogram,
    /// Without labels; a family only so that it can be absent.
    expiry: Family<Vec<(&'static str, &'static str)>, Gauge>,
    reloads: Family<ReloadLabels, Counter>,
    /// Whether the certificate in force is what its files hold: 1 if it is.
    reload_worked: Gauge,
    handshakes_failed: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    result: &'static str,
}

/// Whether a changed certificate was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reload {
    /// It is in force.
    Applied,
    /// It cannot be used; the one before stays in force.
    Refused,
}

impl Reload {
    const fn word(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
        }
    }
}

impl OutcomeLabels {
    fn of(conclusion: Option<Conclusion>) -> Self {
        Self { outcome: conclusion.map_or(ERROR, Conclusion::word).replace(' ', "_") }
    }
}

impl Metrics {
    /// All at zero.
    pub(super) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("bursar"),
            reviews: Family::default(),
            durations: Histogram::new(SECONDS),
            expiry: Family::default(),
            reloads: Family::default(),
            reload_worked: Gauge::default(),
            handshakes_failed: Counter::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let build = Family::<Vec<(&'static str, String)>, Gauge>::default();
        build.get_or_create(&crate::built::labels()).set(1);
        self.registry.register(
            "build_info",
            "Always 1; its labels say what the program was built from",
            build,
        );
        for conclusion in Conclusion::ALL.into_iter().map(Some).chain([None]) {
            drop(self.reviews.get_or_create(&OutcomeLabels::of(conclusion)));
        }
        for result in [Reload::Applied, Reload::Refused].map(Reload::word) {
            drop(self.reloads.get_or_create(&ReloadLabels { result }));
        }
        self.reload_worked.set(1);
        let r = self.registry.sub_registry_with_prefix("inject");
        r.register("reviews", "Admission reviews by what they came to", self.reviews.clone());
        r.register(
            "review_duration_seconds",
            "Head of a review to its answer, the wait for its body included",
            self.durations.clone(),
        );
        r.register(
            "certificate_expiry_timestamp_seconds",
            "Unix time at which the certificate in force expires",
            self.expiry.clone(),
        );
        r.register(
            "certificate_reloads",
            "Changes of the certificate's files by result",
            self.reloads.clone(),
        );
        r.register(
            "certificate_last_reload_successful",
            "Whether the certificate in force is what its files hold (1), or they cannot be used (0)",
            self.reload_worked.clone(),
        );
        r.register(
            "tls_handshakes_failed",
            "Connections on which no TLS was agreed on, as with an API server that does not trust the certificate",
            self.handshakes_failed.clone(),
        );
    }

    /// Counts a review that took so long; `None` is one that was answered with an error.
    pub(super) fn reviewed(&self, conclusion: Option<Conclusion>, took: Duration) {
        self.reviews.get_or_create(&OutcomeLabels::of(conclusion)).inc();
        self.durations.observe(took.as_secs_f64());
    }

    /// Says when the certificate in force expires, in seconds since 1970.
    pub(super) fn certificate_expires(&self, seconds: Option<i64>) {
        match seconds {
            Some(seconds) => {
                self.expiry.get_or_create(&Vec::new()).set(seconds);
            }
            None => self.expiry.clear(),
        }
    }

    /// Counts a change of the certificate's files.
    pub(super) fn certificate_reloaded(&self, reload: Reload) {
        self.reloads.get_or_create(&ReloadLabels { result: reload.word() }).inc();
        self.reload_worked.set(i64::from(reload == Reload::Applied));
    }

    /// Counts a connection on which no TLS was agreed on.
    pub(super) fn handshake_failed(&self) {
        self.handshakes_failed.inc();
    }

    /// The page, as OpenMetrics text.
    pub(super) fn page(&self) -> String {
        let mut page = String::new();
        if encode(&mut page, &self.registry).is_err() {
            tracing::error!("cannot write the metrics page");
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The values of lines that begin so.
    fn values<'p>(page: &'p str, start: &str) -> Vec<&'p str> {
        page.lines().filter_map(|line| line.strip_prefix(start)).collect()
    }

    #[test]
    fn every_outcome_is_there_at_zero_and_none_is_there_twice() {
        let page = Metrics::new().page();
        let reviews = values(&page, "bursar_inject_reviews_total{outcome=\"");
        assert_eq!(
            reviews.iter().collect::<BTreeSet<_>>(),
            BTreeSet::from([
                &"injected\"} 0",
                &"not_injected\"} 0",
                &"refused\"} 0",
                &"no_creation\"} 0",
                &"no_pod\"} 0",
                &"not_asked\"} 0",
                &"opted_out\"} 0",
                &"already_there\"} 0",
                &"mirror_pod\"} 0",
                &"host_network\"} 0",
                &"windows\"} 0",
                &"error\"} 0",
            ])
        );
        assert_eq!(reviews.len(), 12, "{reviews:?}");
        for result in ["applied", "refused"] {
            let name = format!("bursar_inject_certificate_reloads_total{{result=\"{result}\"}} ");
            assert_eq!(values(&page, &name), ["0"]);
        }
        assert_eq!(values(&page, "bursar_build_info{version=").len(), 1);
        assert!(page.ends_with("# EOF\n"), "{page}");
    }

    #[test]
    fn reviews_count_by_outcome_and_their_time_in_seconds() {
        let metrics = Metrics::new();
        metrics.reviewed(Some(Conclusion::Injected), Duration::from_millis(2));
        metrics.reviewed(Some(Conclusion::Injected), Duration::from_millis(700));
        metrics.reviewed(None, Duration::from_secs(10));
        let page = metrics.page();
        assert_eq!(values(&page, "bursar_inject_reviews_total{outcome=\"injected\"} "), ["2"]);
        assert_eq!(values(&page, "bursar_inject_reviews_total{outcome=\"error\"} "), ["1"]);
        assert_eq!(values(&page, "bursar_inject_review_duration_seconds_sum "), ["10.702"]);
        let bucket = "bursar_inject_review_duration_seconds_bucket{le=";
        assert_eq!(values(&page, &format!("{bucket}\"0.0025\"}} ")), ["1"]);
        assert_eq!(values(&page, &format!("{bucket}\"1.0\"}} ")), ["2"]);
        assert_eq!(values(&page, &format!("{bucket}\"10.0\"}} ")), ["3"]);
    }

    #[test]
    fn a_certificate_says_when_it_expires_and_whether_its_files_are_in_force() {
        let metrics = Metrics::new();
        let name = "bursar_inject_certificate_";
        let told = |what: &str| {
            let page = metrics.page();
            values(&page, &format!("{name}{what} ")).first().map(|value| (*value).to_owned())
        };
        assert_eq!(told("expiry_timestamp_seconds{}"), None);
        assert_eq!(told("last_reload_successful").as_deref(), Some("1"));
        metrics.certificate_expires(Some(1_803_859_200));
        metrics.certificate_reloaded(Reload::Refused);
        assert_eq!(told("expiry_timestamp_seconds{}").as_deref(), Some("1803859200"));
        assert_eq!(told("last_reload_successful").as_deref(), Some("0"));
        metrics.certificate_reloaded(Reload::Applied);
        assert_eq!(told("last_reload_successful").as_deref(), Some("1"));
        assert_eq!(told("reloads_total{result=\"refused\"}").as_deref(), Some("1"));
        metrics.certificate_expires(None);
        assert_eq!(told("expiry_timestamp_seconds{}"), None);
        metrics.handshake_failed();
        assert!(metrics.page().contains("bursar_inject_tls_handshakes_failed_total 1\n"));
    }
}
