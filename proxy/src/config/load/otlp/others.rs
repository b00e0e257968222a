//! OpenTelemetry's variables that change nothing here, or less than they say: each is warned of.
//!
//! Invariants
//! - A variable whose name begins with `OTEL_` is read (`super`), or has the one value that is done anyway, or is
//!   warned of. None is ignored in silence.
//!
//! Not here: what the variables that are read mean (`super`).

use super::{Loader, SIGNALS, Signal, Target, variable};

/// How the names of all of OpenTelemetry's variables begin.
const START: &str = "OTEL_";

/// Variables that are read, beside those of exporters.
const READ: &[&str] = &[
    "OTEL_SDK_DISABLED",
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_METRIC_EXPORT_INTERVAL",
    "OTEL_METRIC_EXPORT_TIMEOUT",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BLRP_SCHEDULE_DELAY",
    "OTEL_BLRP_EXPORT_TIMEOUT",
    "OTEL_BLRP_MAX_QUEUE_SIZE",
    "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE",
];

/// What is read of all signals' exporters, and of each signal's own.
const READ_OF_EXPORTERS: &[&str] =
    &["ENDPOINT", "PROTOCOL", "HEADERS", "TIMEOUT", "COMPRESSION", "CERTIFICATE"];

/// Variables that are not acted on, with the value that says what is done anyway.
const ONE_VALUE: &[(&str, &str)] = &[
    ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "cumulative"),
    ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "explicit_bucket_histogram"),
    ("OTEL_METRICS_EXEMPLAR_FILTER", "always_off"),
];

/// What is not acted on of exporters, whichever signal it names.
const CLIENT: &[&str] = &["CLIENT_KEY", "CLIENT_CERTIFICATE"];

impl Loader<'_> {
    /// Warns of what is set and not acted on. `targets` are those of [`SIGNALS`], as far as they are sent.
    pub(super) fn warn_of_others(&mut self, targets: [Option<&Target>; 3]) {
        let sent = SIGNALS.into_iter().zip(targets).filter_map(|(signal, target)| Some((signal, target?)));
        let mut known: Vec<String> = READ.iter().map(|name| (*name).to_owned()).collect();
        known.push(self.propagators());
        known.push(self.log_level());
        for (name, value) in ONE_VALUE {
            known.push((*name).to_owned());
            if self.variable(name).is_some_and(|text| !text.eq_ignore_ascii_case(value)) {
                self.warn_of(name, "is not acted on by this version");
            }
        }
        for (signal, target) in sent {
            self.insecure(&signal, target);
        }
        for signal in &SIGNALS {
            known.push(signal.exporter.to_owned());
            let own = READ_OF_EXPORTERS.iter().chain(&["INSECURE"]).map(|what| variable(signal, what));
            known.extend(own);
        }
        known.extend(READ_OF_EXPORTERS.iter().chain(&["INSECURE"]).map(|what| of_all(what)));
        self.client_certificates(&mut known);
        self.unknown(&known);
    }

    /// Callers' spans are known by `traceparent` alone.
    fn propagators(&mut self) -> String {
        const PROPAGATORS: &str = "OTEL_PROPAGATORS";
        if let Some(text) = self.variable(PROPAGATORS) {
            let mut names = text.split(',').map(|name| name.trim().to_ascii_lowercase());
            // Baggage is not passed on in spans: with it or without it, the same is sent.
            let (has_others, has_own) = names.by_ref().fold((false, false), |(others, own), name| {
                let is_own = name == "tracecontext";
                (others || !(is_own || name == "baggage" || name.is_empty()), own || is_own)
            });
            if !has_own || has_others {
                self.warn_of(PROPAGATORS, "names other forms: a caller's span is known by traceparent alone");
            }
        }
        PROPAGATORS.to_owned()
    }

    fn log_level(&mut self) -> String {
        const LOG_LEVEL: &str = "OTEL_LOG_LEVEL";
        if self.variable(LOG_LEVEL).is_some() {
            self.warn_of(LOG_LEVEL, "is not acted on: use telemetry.log.level or BURSAR_LOG");
        }
        LOG_LEVEL.to_owned()
    }

    /// An address says itself whether it is spoken to over TLS; only where the variable says otherwise there is
    /// something to warn of.
    fn insecure(&mut self, signal: &Signal, target: &Target) {
        let told = [variable(signal, "INSECURE"), of_all("INSECURE")].into_iter();
        let Some((name, text)) = told.filter_map(|name| Some((name.clone(), self.variable(&name)?))).next()
        else {
            return;
        };
        let fits = match text.to_ascii_lowercase().as_str() {
            // So it is without the variable, and http is what the address asks for.
            "false" => true,
            "true" => !target.url.secure,
            _ => false,
        };
        if !fits {
            self.warn_of(&name, "is not acted on: the address begins with http or with https");
        }
    }

    fn client_certificates(&mut self, known: &mut Vec<String>) {
        for what in CLIENT {
            for name in SIGNALS.iter().map(|signal| variable(signal, what)).chain([of_all(what)]) {
                if self.variable(&name).is_some() {
                    self.warn_of(&name, "is not acted on by this version");
                }
                known.push(name);
            }
        }
    }

    fn unknown(&mut self, known: &[String]) {
        let is_unknown = |name: &&String| name.starts_with(START) && !known.contains(*name);
        let unknown: Vec<String> = self.env_names.iter().filter(is_unknown).cloned().collect();
        for name in unknown {
            if self.variable(&name).is_some() {
                self.warn_of(&name, "is not read by this version");
            }
        }
    }
}

/// The variable of all signals.
fn of_all(what: &str) -> String {
    format!("OTEL_EXPORTER_OTLP_{what}")
}
