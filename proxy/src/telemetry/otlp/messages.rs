//! OTLP's three requests: spans, log records and metrics.
//!
//! Invariants
//! - Attributes are ids, names and figures. There is no content, and no message of an upstream.
//! - An unknown figure has no attribute.
//! - Metrics are cumulative since the start of the process, as on the page for Prometheus.
//!
//! Source: github.com/open-telemetry/opentelemetry-proto (`collector/*/v1`, `trace`, `logs`, `metrics`,
//! `common`, `resource`); field numbers stand beside the messages they belong to. Attributes by the GenAI
//! conventions; ours begin with `bursar.`.
//!
//! Not here: bytes (`wire`), sending (`client`).

use super::page::{Family, Kind, Sample};
use super::wire::Message;
use crate::telemetry::event::Event;
use crate::telemetry::genai::{self, BOUNDS_US, Durations, LabelSet, Series, Tokens};
use crate::telemetry::lines;
use bursar_domain::{Label, Timestamp};
use std::sync::Arc;

/// `SPAN_KIND_CLIENT`.
const CLIENT: u64 = 3;
/// `STATUS_CODE_ERROR`.
const FAILED: u64 = 2;
/// `SEVERITY_NUMBER_INFO`.
const INFO: u64 = 9;
/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u64 = 2;
/// Flag of a span whose trace is sampled.
const SAMPLED: u32 = 1;

/// The value of an attribute.
#[derive(Clone, Copy)]
enum Value<'v> {
    Text(&'v str),
    Number(u64),
    Seconds(u64),
    Flag(bool),
}

/// What is said of the process with every request.
#[derive(Debug)]
pub(super) struct About {
    pub(super) resource: Vec<(String, String)>,
    pub(super) started_at: Timestamp,
}

impl About {
    /// One request: `{Resource…: 1 = {Resource: 1, Scope…: 2 = {scope: 1, items: 2}}}`.
    fn request(&self, items: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut request = Message::default();
        request.message(1, |of_resource| {
            of_resource.message(1, |resource| {
                for (name, value) in &self.resource {
                    attribute(resource, 1, name, Value::Text(value));
                }
            });
            of_resource.message(2, |of_scope| {
                of_scope.message(1, |scope| {
                    scope.text(1, "bursar");
                    scope.text(2, env!("CARGO_PKG_VERSION"));
                });
                items(of_scope);
            });
        });
        request.into_bytes()
    }

    /// `ExportTraceServiceRequest`.
    pub(super) fn spans(&self, events: &[Arc<Event>]) -> Vec<u8> {
        self.request(|scope| events.iter().for_each(|event| scope.message(2, |m| span(m, event))))
    }

    /// `ExportLogsServiceRequest`.
    pub(super) fn logs(&self, events: &[Arc<Event>]) -> Vec<u8> {
        self.request(|scope| events.iter().for_each(|event| scope.message(2, |m| log_record(m, event))))
    }

    /// `ExportMetricsServiceRequest`.
    pub(super) fn metrics(
        &self,
        series: &[(LabelSet, Series)],
        own: &[Family<'_>],
        now: Timestamp,
    ) -> Vec<u8> {
        let span = Span { from: nanos(self.started_at), to: nanos(now) };
        self.request(|scope| {
            span.by_convention(scope, series);
            own.iter().filter(|family| !family.samples.is_empty()).for_each(|family| {
                span.own(scope, family);
            });
        })
    }
}

fn nanos(at: Timestamp) -> u64 {
    u64::try_from(at.micros()).unwrap_or(0).saturating_mul(1_000)
}

/// `KeyValue {key: 1, value: 2}` with `AnyValue {string: 1, bool: 2, int: 3, double: 4}`.
fn attribute(message: &mut Message, field: u32, name: &str, value: Value<'_>) {
    message.message(field, |pair| {
        pair.text(1, name);
        pair.message(2, |any| match value {
            Value::Text(text) => any.text(1, text),
            Value::Flag(flag) => any.varint(2, u64::from(flag)),
            Value::Number(number) => any.varint(3, number),
            Value::Seconds(micros) => any.double(4, seconds(micros)),
        });
    });
}

#[expect(clippy::cast_precision_loss, reason = "a duration of 2^53 µs is 285 years")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1_000_000.0
}

// === spans and log records ===

/// `Span`: trace_id 1, span_id 2, parent 4, name 5, kind 6, start 7, end 8, attributes 9, status 15, flags 16.
fn span(span: &mut Message, event: &Event) {
    let operation = event.operation().unwrap_or("call");
    let name = match &event.model_requested {
        Some(model) => format!("{operation} {model}"),
        None => operation.to_owned(),
    };
    span.bytes(1, &event.trace().to_be_bytes());
    span.bytes(2, &event.span().to_be_bytes());
    if let Some(parent) = event.caller.parent_span.filter(|_| event.trace_id.is_some()) {
        span.bytes(4, &parent.get().to_be_bytes());
    }
    span.text(5, &name);
    span.varint(6, CLIENT);
    span.fixed64(7, nanos(event.started_at));
    span.fixed64(8, nanos(event.ended_at));
    each_attribute(event, |name, value| attribute(span, 9, name, value));
    if event.error().is_some() {
        span.message(15, |status| status.varint(3, FAILED));
    }
    span.fixed32(16, SAMPLED);
}

/// `LogRecord`: time 1, severity 2 and 3, body 5, attributes 6, trace_id 9, span_id 10, observed 11, name 12.
fn log_record(record: &mut Message, event: &Event) {
    record.fixed64(1, nanos(event.ended_at));
    record.varint(2, INFO);
    record.text(3, "INFO");
    record.message(5, |body| body.text(1, "request"));
    each_attribute(event, |name, value| attribute(record, 6, name, value));
    if event.trace_id.is_some() {
        record.bytes(9, &event.trace().to_be_bytes());
        record.bytes(10, &event.span().to_be_bytes());
    }
    record.fixed64(11, nanos(event.ended_at));
    record.text(12, lines::TARGET);
}

fn each_attribute(event: &Event, mut put: impl FnMut(&str, Value<'_>)) {
    let text = |label: &'_ Option<Label>| label.as_ref().map(|label| label.as_str().to_owned());
    if let Some(operation) = event.operation() {
        put("gen_ai.operation.name", Value::Text(operation));
    }
    put("gen_ai.provider.name", Value::Text(genai::provider(event.provider.as_str())));
    let usage = event.usage;
    let id = event.id.to_string();
    let cost = event.cost.as_ref();
    let billed = cost.and_then(|cost| cost.billed());
    let currency = cost.filter(|_| billed.is_some()).map(|cost| cost.currency.to_string());
    for (name, value) in [
        ("gen_ai.request.model", text(&event.model_requested)),
        ("gen_ai.response.model", text(&event.model_served)),
        ("error.type", event.error().map(str::to_owned)),
        ("bursar.request_id", Some(id)),
        ("bursar.route", Some(event.route.to_string())),
        ("bursar.api", Some(event.api.to_string())),
        ("bursar.outcome", Some(event.outcome.name().to_owned())),
        ("bursar.team", text(&event.team)),
        ("bursar.workload", text(&event.workload)),
        ("bursar.usage.source", usage.map(|usage| usage.source.name().to_owned())),
        ("bursar.cost.billed", billed),
        ("bursar.cost.currency", currency),
        ("bursar.cost.status", cost.map(|cost| cost.status.name().to_owned())),
        ("bursar.upstream_request_id", text(&event.upstream_request_id)),
    ] {
        if let Some(value) = value {
            put(name, Value::Text(&value));
        }
    }
    for (name, value) in [
        ("http.response.status_code", event.http_status.map(u64::from)),
        ("gen_ai.usage.input_tokens", usage.and_then(|usage| usage.input)),
        ("gen_ai.usage.output_tokens", usage.and_then(|usage| usage.output)),
        ("gen_ai.usage.cache_read.input_tokens", usage.and_then(|usage| usage.cache_read)),
        ("gen_ai.usage.cache_write.input_tokens", usage.and_then(|usage| usage.cache_write)),
        ("gen_ai.usage.reasoning.output_tokens", usage.and_then(|usage| usage.reasoning)),
        ("bursar.ledger.seq", event.sequence),
    ] {
        if let Some(value) = value {
            put(name, Value::Number(value));
        }
    }
    put("gen_ai.request.stream", Value::Flag(event.stream));
    put("bursar.latency", Value::Seconds(event.latency_us));
    if let Some(ttft) = event.ttft_us.filter(|_| event.stream) {
        put("gen_ai.response.time_to_first_chunk", Value::Seconds(ttft));
    }
}

// === metrics ===

/// What figures are about, in nanoseconds since 1970.
#[derive(Clone, Copy)]
struct Span {
    from: u64,
    to: u64,
}

/// `Metric`: name 1, description 2, unit 3, gauge 5, sum 7, histogram 9.
fn metric(scope: &mut Message, [name, help, unit]: [&str; 3], data: impl FnOnce(&mut Message)) {
    scope.message(2, |metric| {
        metric.text(1, name);
        metric.text(2, help);
        if !unit.is_empty() {
            metric.text(3, unit);
        }
        data(metric);
    });
}

impl Span {
    /// `Sum {points: 1, temporality: 2, is_monotonic: 3}`.
    fn sum(metric: &mut Message, points: impl FnOnce(&mut Message)) {
        metric.message(7, |sum| {
            points(sum);
            sum.varint(2, CUMULATIVE);
            sum.varint(3, 1);
        });
    }

    /// `Histogram {points: 1, temporality: 2}`.
    fn histogram(metric: &mut Message, points: impl FnOnce(&mut Message)) {
        metric.message(9, |histogram| {
            points(histogram);
            histogram.varint(2, CUMULATIVE);
        });
    }

    /// `NumberDataPoint`: start 2, time 3, as_double 4, as_int 6, attributes 7.
    fn number(self, points: &mut Message, value: &str, attributes: impl FnOnce(&mut Message)) {
        points.message(1, |point| {
            point.fixed64(2, self.from);
            point.fixed64(3, self.to);
            match (value.parse::<i64>(), value.parse::<f64>()) {
                (Ok(whole), _) => point.fixed64(6, whole.cast_unsigned()),
                (Err(_), Ok(number)) => point.double(4, number),
                (Err(_), Err(_)) => {}
            }
            attributes(point);
        });
    }

    /// `HistogramDataPoint`: start 2, time 3, count 4, sum 5, buckets 6, bounds 7, attributes 9.
    fn buckets(
        self,
        points: &mut Message,
        counts: &[u64],
        bounds: &[f64],
        sum: f64,
        attributes: impl FnOnce(&mut Message),
    ) {
        points.message(1, |point| {
            point.fixed64(2, self.from);
            point.fixed64(3, self.to);
            point.fixed64(4, counts.iter().fold(0, |sum, count| sum.saturating_add(*count)));
            point.double(5, sum);
            point.packed64(6, counts.iter().copied());
            point.packed64(7, bounds.iter().map(|bound| bound.to_bits()));
            attributes(point);
        });
    }

    fn by_convention(self, scope: &mut Message, series: &[(LabelSet, Series)]) {
        for tokens in Tokens::ALL {
            if series.iter().all(|(_, series)| series.tokens(tokens).next().is_none()) {
                continue;
            }
            metric(scope, [tokens.name(), tokens.help(), "{token}"], |metric| {
                Self::sum(metric, |points| {
                    for (set, series) in series {
                        for (modality, count) in series.tokens(tokens) {
                            self.number(points, &count.to_string(), |point| {
                                labels(point, 7, set);
                                let name = Value::Text(modality.name());
                                attribute(point, 7, "gen_ai.token.modality", name);
                            });
                        }
                    }
                });
            });
        }
        let durations = series.iter().flat_map(|(set, series)| {
            series.durations.iter().map(move |(error, durations)| (set, *error, durations))
        });
        let help = ["gen_ai.client.operation.duration", "Head of the request to end of the reply", "s"];
        self.durations(scope, help, durations);
        let first = series.iter().map(|(set, series)| (set, None, &series.first_chunk));
        let help =
            ["gen_ai.client.operation.time_to_first_chunk", "Time to the first piece of a stream", "s"];
        self.durations(scope, help, first);
        let output = series.iter().map(|(set, series)| (set, None, &series.output_chunk));
        let help =
            ["gen_ai.client.operation.time_per_output_chunk", "Mean time between pieces of a stream", "s"];
        self.durations(scope, help, output);
    }

    fn durations<'s>(
        self,
        scope: &mut Message,
        names: [&str; 3],
        all: impl Iterator<Item = (&'s LabelSet, Option<&'static str>, &'s Durations)>,
    ) {
        let all: Vec<_> = all.filter(|(_, _, durations)| durations.count() > 0).collect();
        if all.is_empty() {
            return;
        }
        let bounds = BOUNDS_US.map(seconds);
        metric(scope, names, |metric| {
            Self::histogram(metric, |points| {
                for (set, error, durations) in all {
                    self.buckets(points, &durations.counts, &bounds, seconds(durations.sum_us), |point| {
                        labels(point, 9, set);
                        if let Some(error) = error {
                            attribute(point, 9, "error.type", Value::Text(error));
                        }
                    });
                }
            });
        });
    }

    /// A metric of our own page, under the name it has there (without `_total`).
    fn own(self, scope: &mut Message, family: &Family<'_>) {
        let names = [family.name, family.help, if family.name.ends_with("_seconds") { "s" } else { "" }];
        metric(scope, names, |metric| match family.kind {
            Kind::Counter => Self::sum(metric, |points| self.samples(points, &family.samples)),
            Kind::Gauge => metric.message(5, |points| self.samples(points, &family.samples)),
            Kind::Histogram => Self::histogram(metric, |points| self.own_histograms(points, &family.samples)),
        });
    }

    fn samples(self, points: &mut Message, samples: &[Sample<'_>]) {
        for sample in samples {
            self.number(points, sample.value, |point| {
                for (name, value) in &sample.labels {
                    attribute(point, 7, name, Value::Text(value));
                }
            });
        }
    }

    /// Each run of buckets is one point; its sum and count stand before or after it.
    fn own_histograms(self, points: &mut Message, samples: &[Sample<'_>]) {
        let is_bound = |(name, _): &&(&str, String)| *name == "le";
        let others = |sample: &Sample<'_>| -> Vec<(String, String)> {
            let rest = sample.labels.iter().filter(|label| !is_bound(label));
            rest.map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
        };
        for total in samples.iter().filter(|sample| sample.suffix == "_sum") {
            let labels = others(total);
            let (mut counts, mut bounds, mut below) = (Vec::new(), Vec::new(), 0_u64);
            for bucket in samples.iter().filter(|s| s.suffix == "_bucket" && others(s) == labels) {
                let count = bucket.value.parse().unwrap_or(below);
                counts.push(count.saturating_sub(below));
                below = count;
                let bound = bucket.labels.iter().find(is_bound).and_then(|(_, bound)| bound.parse().ok());
                bounds.extend(bound.filter(|bound: &f64| bound.is_finite()));
            }
            self.buckets(points, &counts, &bounds, total.value.parse().unwrap_or(0.0), |point| {
                for (name, value) in &labels {
                    attribute(point, 9, name, Value::Text(value));
                }
            });
        }
    }
}

fn labels(point: &mut Message, field: u32, set: &LabelSet) {
    for (name, value) in genai::attributes(set) {
        attribute(point, field, name, Value::Text(value));
    }
}
