//! What the process tells about itself while it runs: logs, metrics of settled exchanges, and what is sent
//! to an OpenTelemetry collector.
//!
//! Invariants
//! - The request path does nothing for it: exchanges are told by the ledger's writer when they are settled,
//!   so figures are the ledger's.
//! - Nobody waits for a reader or a collector. Every queue is bounded; what finds no room is counted in
//!   `bursar_telemetry_dropped_total`.
//! - Nothing here has a field for content or a credential.
//!
//! Not here: counters of the request path (`admin::metrics`).

pub(crate) mod event;
mod gaps;
pub(crate) mod genai;
pub(crate) mod lines;
pub(crate) mod logging;
pub mod otlp;
mod outbox;
mod request_line;
mod sample;
pub(crate) mod target;

use crate::budgets::Budgets;
use crate::config;
use bursar_domain::{Outcome, UsageRecord};
use bursar_ledger::{Caller, Observer};
use event::Event;
use gaps::Gaps;
use genai::Meters;
use lines::{Line, Lines};
pub(crate) use logging::set_level;
use outbox::Outbox;
use sample::Sampling;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Everything that is told of settled exchanges.
#[derive(Debug)]
pub struct Telemetry {
    meters: Mutex<Meters>,
    gaps: Gaps,
    pub(crate) lines: Arc<Lines>,
    pub(crate) spans: Outbox<Arc<Event>>,
    pub(crate) logs: Outbox<Arc<Event>>,
    sampling: Option<Sampling>,
    /// Exports of metrics that failed.
    metrics_dropped: AtomicU64,
}

impl Telemetry {
    /// Nothing told yet. Nobody reads until threads are started.
    #[must_use]
    pub fn new(config: &config::Telemetry) -> Arc<Self> {
        let otlp = config.otlp.as_ref();
        let waiting_max =
            |of: fn(&config::Otlp) -> config::Batches| otlp.map(of).unwrap_or_default().waiting_max;
        Arc::new(Self {
            meters: Mutex::new(Meters::new(config.series_max)),
            gaps: Gaps::default(),
            lines: Arc::new(Lines::new(lines::LINES_MAX)),
            spans: Outbox::new(waiting_max(|otlp| otlp.spans)),
            logs: Outbox::new(waiting_max(|otlp| otlp.log_records)),
            sampling: otlp.filter(|otlp| otlp.traces.is_some()).map(|otlp| Sampling::new(otlp.sampler)),
            metrics_dropped: AtomicU64::new(0),
        })
    }

    /// Whether spans are sent, and so the caller's span is worth knowing.
    #[must_use]
    pub(crate) fn has_spans(&self) -> bool {
        self.sampling.is_some()
    }

    /// The lines for Prometheus.
    #[must_use]
    pub fn page(&self) -> String {
        let series = self.meters.lock().unwrap_or_else(PoisonError::into_inner).snapshot();
        [genai::page(&series), self.own_page()].concat()
    }

    /// The lines about what the ledger's figures lack, and about telemetry itself.
    pub(crate) fn own_page(&self) -> String {
        let mut page =
            "# HELP bursar_telemetry_dropped What could not be logged or sent to a collector: lines, \
                        spans, log records, exports of metrics.\n# TYPE bursar_telemetry_dropped counter\n"
                .to_owned();
        let dropped = [
            ("log_lines", self.lines.dropped()),
            ("traces", self.spans.dropped()),
            ("logs", self.logs.dropped()),
            ("metrics", self.metrics_dropped.load(Ordering::Relaxed)),
        ];
        for (signal, count) in dropped {
            page.push_str(&format!("bursar_telemetry_dropped_total{{signal=\"{signal}\"}} {count}\n"));
        }
        [self.gaps.page(), page].concat()
    }

    pub(crate) fn snapshot(&self) -> Vec<(genai::LabelSet, genai::Series)> {
        self.meters.lock().unwrap_or_else(PoisonError::into_inner).snapshot()
    }

    pub(crate) fn metrics_lost(&self) {
        self.metrics_dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells of a settled exchange.
    fn tell(&self, record: &UsageRecord, counted: bool, sequence: Option<u64>, caller: Option<Caller>) {
        // What was settled after a crash belongs to an earlier run, but its end is news.
        if caller.is_none() && record.outcome != Outcome::Interrupted {
            return;
        }
        let is_live = caller.is_some();
        let caller = caller.unwrap_or_default();
        if is_live {
            self.gaps.count(record, counted);
            self.meters.lock().unwrap_or_else(PoisonError::into_inner).count(record, counted, caller);
        }
        let line = self.lines.is_read() && tracing::enabled!(target: lines::TARGET, tracing::Level::INFO);
        let has_span = is_live
            && self.spans.is_read()
            && genai::operation(record.api.as_str()).is_some()
            && self.sampling.is_some_and(|sampling| sampling.takes(record, caller));
        let log = self.logs.is_read();
        if !(line || has_span || log) {
            return;
        }
        let event = Arc::new(Event::of(record, counted, sequence, caller));
        if has_span {
            self.spans.push(Arc::clone(&event));
        }
        if log {
            self.logs.push(Arc::clone(&event));
        }
        if line {
            self.lines.push(Line::Request(event));
        }
    }

    /// Tells of an exchange whose record the ledger did not take.
    pub(crate) fn lost(&self, record: &UsageRecord, counted: bool, caller: Caller) {
        self.tell(record, counted, None, Some(caller));
    }
}

/// Whoever is told of settled records: budgets, then telemetry.
#[derive(Debug)]
pub struct Observers {
    budgets: Arc<Budgets>,
    telemetry: Arc<Telemetry>,
}

impl Observers {
    /// Both of them.
    #[must_use]
    pub fn new(budgets: &Arc<Budgets>, telemetry: &Arc<Telemetry>) -> Arc<Self> {
        Arc::new(Self { budgets: Arc::clone(budgets), telemetry: Arc::clone(telemetry) })
    }
}

impl Observer for Observers {
    fn settled(&self, record: &UsageRecord, counted: bool, sequence: u64) {
        self.settled_for(record, counted, sequence, None);
    }

    fn settled_for(&self, record: &UsageRecord, counted: bool, sequence: u64, caller: Option<Caller>) {
        self.budgets.settled(record, counted, sequence);
        self.telemetry.tell(record, counted, Some(sequence), caller);
    }

    fn lost(&self, record: &UsageRecord, counted: bool) {
        self.budgets.lost(record, counted);
        self.telemetry.lost(record, counted, Caller::default());
    }
}

#[cfg(test)]
pub(crate) mod tests;
