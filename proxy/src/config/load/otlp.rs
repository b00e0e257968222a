//! OpenTelemetry's own variables, as far as this program acts on them.
//!
//! Invariants
//! - Nothing is sent anywhere unless a setting or a variable names a collector.
//! - A mistake in these variables, which others set for everything in a pod, is a warning and never keeps the
//!   sidecar from starting; what follows from it is said. Values, which may be secrets, are not shown.
//! - One that this version does not act on is warned of, not ignored.
//!
//! Source: OpenTelemetry's specification, "OpenTelemetry Protocol Exporter" and "Environment Variable
//! Specification".
//!
//! Not here: what the settings mean for whoever sends (`telemetry::otlp`), variables that are not acted on
//! (`others`).

mod others;
#[cfg(test)]
mod tests;

use super::{Loader, s};
use crate::config::error::Origin;
use crate::config::otlp::{Batches, CollectorUrl, Otlp, Root, Sampler, Target};
use crate::config::secret::wiped_header;
use crate::config::value::Scalar;
use crate::config::{OtlpProtocol, Telemetry};
use http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use std::time::Duration;
use zeroize::Zeroizing;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const GRPC_PORT: u16 = 4317;
/// Longest time for an export, unless a variable says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
const METRIC_INTERVAL: Duration = Duration::from_secs(60);
/// Longest time for an export of metrics, beside that of its collector.
const METRIC_EXPORT_TIME: Duration = Duration::from_secs(30);
const INTERVALS_MS: std::ops::RangeInclusive<u64> = 100..=86_400_000;

/// One kind of telemetry: its part of variables' names, its path in HTTP.
struct Signal {
    name: &'static str,
    exporter: &'static str,
    path: &'static str,
}

const TRACES: Signal = Signal { name: "TRACES", exporter: "OTEL_TRACES_EXPORTER", path: "/v1/traces" };
const METRICS: Signal = Signal { name: "METRICS", exporter: "OTEL_METRICS_EXPORTER", path: "/v1/metrics" };
const LOGS: Signal = Signal { name: "LOGS", exporter: "OTEL_LOGS_EXPORTER", path: "/v1/logs" };

const SIGNALS: [Signal; 3] = [TRACES, METRICS, LOGS];

/// Most items that may wait, and most in one message: some 500 bytes each.
const WAITING_MAX: usize = 65_536;
const BATCH_MAX: usize = 4_096;

impl Loader<'_> {
    pub(super) fn telemetry(&mut self) -> Telemetry {
        Telemetry {
            prometheus: self.get(&s::TELEMETRY_PROMETHEUS).value,
            series_max: super::count(self.get(&s::TELEMETRY_SERIES_MAX).value),
            resource: self.resource(),
            otlp: self.otlp(),
            log_level: self.get(&s::TELEMETRY_LOG_LEVEL).value,
            log_format: self.get(&s::TELEMETRY_LOG_FORMAT).value,
        }
    }

    fn otlp(&mut self) -> Option<Otlp> {
        let base = self.collector();
        let protocol = self.get(&s::TELEMETRY_OTLP_PROTOCOL).value;
        if self.variable("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            return None;
        }
        let [traces, mut metrics, logs] = SIGNALS.map(|signal| self.target(&signal, base.as_ref(), protocol));
        if traces.is_none() && metrics.is_none() && logs.is_none() {
            return None;
        }
        self.warn_of_others([traces.as_ref(), metrics.as_ref(), logs.as_ref()]);
        if let Some(metrics) = &mut metrics {
            // Metrics are sent once, so the shorter time is that of the export.
            let time = self.millis("OTEL_METRIC_EXPORT_TIMEOUT").unwrap_or(METRIC_EXPORT_TIME);
            metrics.timeout = metrics.timeout.min(time);
        }
        Some(Otlp {
            traces,
            metrics,
            logs,
            sampler: self.sampler(),
            metric_interval: self.millis("OTEL_METRIC_EXPORT_INTERVAL").unwrap_or(METRIC_INTERVAL),
            spans: self.batches("OTEL_BSP"),
            log_records: self.batches("OTEL_BLRP"),
        })
    }

    /// The setting, or OpenTelemetry's variable, which comes before a file as variables do.
    fn collector(&mut self) -> Option<CollectorUrl> {
        let chosen = self.get(&s::TELEMETRY_OTLP);
        if matches!(chosen.origin, Origin::Environment(_) | Origin::CommandLine(_)) {
            return chosen.value;
        }
        let Some(url) = self.url(ENDPOINT) else { return chosen.value };
        let effective = self.effective.iter_mut().find(|one| one.path == s::TELEMETRY_OTLP.path);
        if let Some(effective) = effective {
            effective.value = Scalar::show(&url);
            effective.origin = Origin::Environment(ENDPOINT.to_owned());
        }
        Some(url)
    }

    /// Whether a signal is sent by OTLP: unless its list of exporters is without it.
    fn exports(&mut self, signal: &Signal) -> bool {
        let Some(text) = self.variable(signal.exporter) else { return true };
        let mut names: Vec<&str> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let count = names.len();
        names.retain(|name| *name != "otlp");
        let has_it = names.len() < count;
        if has_it && !names.is_empty() {
            self.warn_of(signal.exporter, "names more than otlp: to the others nothing is sent");
        } else if !has_it && names != ["none"] {
            self.warn_of(signal.exporter, "is neither otlp nor none: nothing is sent");
        }
        has_it
    }

    /// How spans or log records are gathered, by the variables that begin so.
    fn batches(&mut self, start: &str) -> Batches {
        let usual = Batches::default();
        let delay = self.millis(&format!("{start}_SCHEDULE_DELAY"));
        let export_time = self.millis(&format!("{start}_EXPORT_TIMEOUT"));
        let waiting_max = self.count(&format!("{start}_MAX_QUEUE_SIZE"), WAITING_MAX);
        let waiting_max = waiting_max.unwrap_or(usual.waiting_max);
        let items_max = self.count(&format!("{start}_MAX_EXPORT_BATCH_SIZE"), BATCH_MAX);
        Batches {
            delay: delay.unwrap_or(usual.delay),
            export_time: export_time.unwrap_or(usual.export_time),
            waiting_max,
            items_max: items_max.unwrap_or(usual.items_max).min(waiting_max),
        }
    }

    fn target(
        &mut self,
        signal: &Signal,
        base: Option<&CollectorUrl>,
        protocol: OtlpProtocol,
    ) -> Option<Target> {
        if !self.exports(signal) {
            return None;
        }
        let own = self.url(&variable(signal, "ENDPOINT"));
        let (url, is_base) = own.map(|url| (url, false)).or_else(|| base.map(|url| (url.clone(), true)))?;
        let told = self.of_signal(signal, "PROTOCOL", |text| match text {
            "grpc" => Some(true),
            "http/protobuf" => Some(false),
            _ => None,
        });
        let grpc = match (protocol, told) {
            (OtlpProtocol::Grpc, _) => true,
            (OtlpProtocol::Http, _) => false,
            (OtlpProtocol::Auto, Some(grpc)) => grpc,
            (OtlpProtocol::Auto, None) => url.authority.port_u16() == Some(GRPC_PORT),
        };
        let headers = self.of_signal(signal, "HEADERS", headers).unwrap_or_default();
        if !headers.is_empty() && !url.secure && !url.is_local() {
            self.warnings.push(format!(
                "{}: headers for the collector cross the network readable; use https",
                variable(signal, "HEADERS")
            ));
        }
        let gzip = self.of_signal(signal, "COMPRESSION", |text| match text {
            "gzip" => Some(true),
            "none" => Some(false),
            _ => None,
        });
        let certificate = self.of_signal(signal, "CERTIFICATE", |text| Some(text.into()));
        Some(Target {
            url: if is_base && !grpc { url.below(signal.path) } else { url },
            grpc,
            headers,
            gzip: gzip.unwrap_or(false),
            timeout: self.of_signal(signal, "TIMEOUT", read_millis).unwrap_or(TIMEOUT),
            certificate,
        })
    }

    fn sampler(&mut self) -> Sampler {
        let name = self.variable("OTEL_TRACES_SAMPLER");
        let name = name.as_deref().unwrap_or("parentbased_always_on");
        let (by_parent, root) = name.strip_prefix("parentbased_").map_or((false, name), |root| (true, root));
        let root = match root {
            "always_on" => Root::Always,
            "always_off" => Root::Never,
            "traceidratio" => self.ratio(),
            _ => {
                self.warn_of("OTEL_TRACES_SAMPLER", "is no sampler known here: the caller decides, else all");
                return Sampler { by_parent: true, root: Root::Always };
            }
        };
        Sampler { by_parent, root }
    }

    fn ratio(&mut self) -> Root {
        const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
        let Some(text) = self.variable(ARGUMENT) else { return Root::Always };
        match billionths(&text) {
            Some(billionths) => Root::Ratio(billionths),
            None => {
                self.warn_of(ARGUMENT, "is no ratio between 0 and 1: all are taken");
                Root::Always
            }
        }
    }

    /// What is said of this process; `service.name` comes first.
    fn resource(&mut self) -> Vec<(String, String)> {
        const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
        let read = self.variable(ATTRIBUTES).map(|text| pairs(&text));
        let mut resource = match read {
            Some(Some(pairs)) => pairs,
            Some(None) => {
                self.warn_of(ATTRIBUTES, "is no list of NAME=VALUE separated by commas: left out");
                Vec::new()
            }
            None => Vec::new(),
        };
        let named = resource.iter().position(|(name, _)| name == "service.name");
        let named = named.map(|at| resource.remove(at).1);
        let name = self.variable("OTEL_SERVICE_NAME").or(named).unwrap_or_else(|| "bursar".to_owned());
        resource.insert(0, ("service.name".to_owned(), name));
        resource
    }

    /// A variable that is there and not empty.
    fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    fn url(&mut self, variable: &str) -> Option<CollectorUrl> {
        let text = self.variable(variable)?;
        let url = CollectorUrl::read(&text);
        if url.is_none() {
            self.warn_of(variable, "is not the address of a collector, such as http://127.0.0.1:4317");
        }
        url
    }

    fn millis(&mut self, variable: &str) -> Option<Duration> {
        let text = self.variable(variable)?;
        let read = read_millis(&text);
        if read.is_none() {
            self.warn_of(variable, "is no number of milliseconds between 100 and 86400000");
        }
        read
    }

    fn count(&mut self, variable: &str, most: usize) -> Option<usize> {
        let text = self.variable(variable)?;
        let read = text.parse().ok().filter(|count| (1..=most).contains(count));
        if read.is_none() {
            self.warn_of(variable, &format!("is no number between 1 and {most}"));
        }
        read
    }

    /// The signal's own variable, or that of all signals.
    fn of_signal<T>(&mut self, signal: &Signal, what: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        for name in [variable(signal, what), format!("OTEL_EXPORTER_OTLP_{what}")] {
            let Some(text) = self.variable(&name) else { continue };
            match read(&text) {
                Some(value) => return Some(value),
                None => self.warn_of(&name, "is no value known here"),
            }
        }
        None
    }

    fn warn_of(&mut self, variable: &str, what: &str) {
        let warning = format!("environment {variable}: the value (not shown) {what}");
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }
}

fn variable(signal: &Signal, what: &str) -> String {
    format!("OTEL_EXPORTER_OTLP_{}_{what}", signal.name)
}

fn read_millis(text: &str) -> Option<Duration> {
    text.parse().ok().filter(|millis| INTERVALS_MS.contains(millis)).map(Duration::from_millis)
}

/// `name=value,…`, values percent-encoded.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let pair = |part: &str| {
        let (name, value) = part.split_once('=')?;
        let decoded = |text: &str| Some(percent_decode_str(text.trim()).decode_utf8().ok()?.into_owned());
        Some((decoded(name).filter(|name| !name.is_empty())?, decoded(value)?))
    };
    text.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect()
}

fn headers(text: &str) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let header = |(name, value): (String, String)| {
        let value = wiped_header(Zeroizing::new(value)).ok()?;
        Some((HeaderName::try_from(name.to_ascii_lowercase()).ok()?, value))
    };
    pairs(text)?.into_iter().map(header).collect()
}

/// A decimal between 0 and 1 in billionths, further digits left out.
fn billionths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || (whole.is_empty() && part.is_empty()) {
        return None;
    }
    let whole: u32 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: String = part.chars().chain("000000000".chars()).take(9).collect();
    whole.checked_mul(1_000_000_000)?.checked_add(part.parse().ok()?).filter(|all| *all <= 1_000_000_000)
}
