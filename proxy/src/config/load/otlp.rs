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
//! Not here: what the settings mean for whoever sends (`telemetry::otlp`).

use super::{Loader, s};
use crate::config::error::Origin;
use crate::config::otlp::{CollectorUrl, Otlp, Root, Sampler, Target};
use crate::config::value::Scalar;
use crate::config::{OtlpProtocol, Telemetry};
use http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use std::time::Duration;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const GRPC_PORT: u16 = 4317;
/// Longest time for an export, unless a variable says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
const METRIC_INTERVAL: Duration = Duration::from_secs(60);
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

/// Variables that change what would be sent, with the one value that is acted on.
const NOT_ACTED_ON: [(&str, &str); 5] = [
    ("OTEL_EXPORTER_OTLP_CLIENT_KEY", ""),
    ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", ""),
    ("OTEL_EXPORTER_OTLP_INSECURE", ""),
    ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "cumulative"),
    ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "explicit_bucket_histogram"),
];

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
        let [traces, metrics, logs] =
            [TRACES, METRICS, LOGS].map(|signal| self.target(&signal, base.as_ref(), protocol));
        if traces.is_none() && metrics.is_none() && logs.is_none() {
            return None;
        }
        for (variable, acted_on) in NOT_ACTED_ON {
            if self.variable(variable).is_some_and(|text| !text.eq_ignore_ascii_case(acted_on)) {
                self.warn_of(variable, "is not acted on by this version");
            }
        }
        Some(Otlp {
            traces,
            metrics,
            logs,
            sampler: self.sampler(),
            metric_interval: self.millis("OTEL_METRIC_EXPORT_INTERVAL").unwrap_or(METRIC_INTERVAL),
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

    fn target(
        &mut self,
        signal: &Signal,
        base: Option<&CollectorUrl>,
        protocol: OtlpProtocol,
    ) -> Option<Target> {
        match self.variable(signal.exporter).as_deref() {
            None | Some("otlp") => {}
            Some("none") => return None,
            Some(_) => {
                self.warn_of(signal.exporter, "is neither otlp nor none: nothing is sent");
                return None;
            }
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
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    fn config(yaml: &str, env: &[(&str, &str)]) -> Config {
        let env =
            |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Config::load(Sources { env: &env, ..Sources::from_text(yaml) }).unwrap()
    }

    fn otlp(yaml: &str, env: &[(&str, &str)]) -> Otlp {
        config(yaml, env).telemetry.otlp.unwrap()
    }

    const FILE: &str = "telemetry: {otlp: 'http://127.0.0.1:4317'}";

    fn shown(target: Option<&Target>) -> Option<String> {
        target.map(|target| format!("{} {}", Scalar::show(&target.url), target.grpc))
    }

    #[test]
    fn nothing_is_sent_unless_somebody_names_a_collector() {
        assert_eq!(config("", &[("OTEL_SERVICE_NAME", "x")]).telemetry.otlp, None);
        assert_eq!(config(FILE, &[("OTEL_SDK_DISABLED", "TRUE")]).telemetry.otlp, None);
    }

    #[test]
    fn the_port_tells_the_protocol_unless_somebody_else_does() {
        let check = |yaml: &str, env: &[(&str, &str)], expected: &str| {
            assert_eq!(shown(otlp(yaml, env).traces.as_ref()).unwrap(), expected);
        };
        check(FILE, &[], "http://127.0.0.1:4317 true");
        check("telemetry: {otlp: 'http://h:4318/'}", &[], "http://h:4318/v1/traces false");
        check("telemetry: {otlp: 'https://h/x'}", &[], "https://h/x/v1/traces false");
        let forced = "telemetry: {otlp: 'http://h:9', otlp_protocol: grpc}";
        check(forced, &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")], "http://h:9 true");
        check(
            FILE,
            &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")],
            "http://127.0.0.1:4317/v1/traces false",
        );
        check(
            FILE,
            &[("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")],
            "http://127.0.0.1:4317/v1/traces false",
        );
    }

    #[test]
    fn variables_come_before_the_file_and_a_signals_own_before_those_of_all() {
        let env = [
            (ENDPOINT, "http://all:4318"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://own/spans"),
            ("OTEL_LOGS_EXPORTER", "none"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1500"),
        ];
        let config = config(FILE, &env);
        let found = config.telemetry.otlp.as_ref().unwrap();
        assert_eq!(shown(found.traces.as_ref()).unwrap(), "https://own/spans false");
        assert_eq!(shown(found.metrics.as_ref()).unwrap(), "http://all:4318/v1/metrics false");
        assert_eq!(found.logs, None);
        let metrics = found.metrics.as_ref().unwrap();
        assert_eq!(metrics.headers[0].1.as_bytes(), b"a b");
        assert_eq!((metrics.gzip, metrics.timeout.as_millis()), (true, 2_500));
        assert_eq!(found.metric_interval.as_millis(), 1_500);
        assert!(!format!("{found:?}").contains("a b"), "headers are not shown");
        assert!(config.warnings.iter().any(|warning| warning.contains("readable")), "{:?}", config.warnings);
        let shown = config.effective().iter().find(|one| one.path == "telemetry.otlp").unwrap();
        assert_eq!(shown.origin.to_string(), format!("environment {ENDPOINT}"));
        let own = [("BURSAR_TELEMETRY_OTLP", "http://ours:4317"), (ENDPOINT, "http://all:4318")];
        assert_eq!(shown_traces(&own), "http://ours:4317 true", "ours is meant for this program");
    }

    fn shown_traces(env: &[(&str, &str)]) -> String {
        shown(otlp("", env).traces.as_ref()).unwrap()
    }

    #[test]
    fn the_resource_has_the_services_name_and_what_the_variable_adds() {
        let check = |env: &[(&str, &str)], expected: &[(&str, &str)]| {
            let found = config("", env).telemetry.resource;
            let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(found, expected);
        };
        check(&[], &[("service.name", "bursar")]);
        let more = ("OTEL_RESOURCE_ATTRIBUTES", "a=1,service.name=x,b=%C3%A9");
        check(&[more], &[("service.name", "x"), ("a", "1"), ("b", "é")]);
        check(&[more, ("OTEL_SERVICE_NAME", "y")], &[("service.name", "y"), ("a", "1"), ("b", "é")]);
        check(&[("OTEL_RESOURCE_ATTRIBUTES", "a=1,b")], &[("service.name", "bursar")]);
    }

    #[test]
    fn samplers_are_read_by_their_names() {
        let check = |name: &str, argument: &str, by_parent: bool, root: Root| {
            let env = [("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", argument)];
            assert_eq!(otlp(FILE, &env).sampler, Sampler { by_parent, root }, "{name} {argument}");
        };
        check("", "", true, Root::Always);
        check("always_on", "", false, Root::Always);
        check("parentbased_always_off", "", true, Root::Never);
        check("traceidratio", "0.25", false, Root::Ratio(250_000_000));
        check("parentbased_traceidratio", "1", true, Root::Ratio(1_000_000_000));
        check("traceidratio", ".5", false, Root::Ratio(500_000_000));
        check("traceidratio", "1.1", false, Root::Always);
        check("traceidratio", "-1", false, Root::Always);
        check("jaeger_remote", "", true, Root::Always);
    }

    #[test]
    fn what_is_wrong_in_others_variables_is_warned_of_without_its_value() {
        for (variable, value) in [
            (ENDPOINT, "canary"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "canary"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "canary"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "k=canary%0A"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "canary"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "canary"),
            ("OTEL_TRACES_EXPORTER", "canary"),
            ("OTEL_TRACES_SAMPLER", "canary"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1"),
            ("OTEL_RESOURCE_ATTRIBUTES", "canary"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "canary"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta"),
        ] {
            let warnings = config(FILE, &[(variable, value)]).warnings;
            assert_eq!(warnings.len(), 1, "{variable} {warnings:?}");
            assert!(warnings[0].contains(variable) && !warnings[0].contains("canary"), "{warnings:?}");
        }
    }
}
