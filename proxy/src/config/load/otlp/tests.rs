//! OpenTelemetry's variables: what is read, what is warned of, and that no value is shown.

use super::*;
use crate::config::{Config, Sources};

fn config(yaml: &str, env: &[(&str, &str)]) -> Config {
    let lookup =
        |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let env_names = env.iter().map(|(name, _)| (*name).to_owned()).collect();
    Config::load(Sources { env: &lookup, env_names, ..Sources::from_text(yaml) }).unwrap()
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
    check(FILE, &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")], "http://127.0.0.1:4317/v1/traces false");
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
        ("OTEL_TRACES_EXPORTER", "otlp,canary"),
        ("OTEL_LOGS_EXPORTER", "none,canary"),
        ("OTEL_TRACES_SAMPLER", "canary"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1"),
        ("OTEL_RESOURCE_ATTRIBUTES", "canary"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "canary"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "canary"),
        ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE", "canary"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "trace_based"),
        ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "canary"),
        ("OTEL_PROPAGATORS", "b3"),
        ("OTEL_PROPAGATORS", "tracecontext,b3"),
        ("OTEL_PROPAGATORS", "none"),
        ("OTEL_LOG_LEVEL", "debug"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "canary"),
        ("OTEL_BSP_SCHEDULE_DELAY", "canary"),
        ("OTEL_BLRP_EXPORT_TIMEOUT", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "1000000"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "canary"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "canary"),
        ("OTEL_CONFIG_FILE", "canary"),
        ("OTEL_EXPORTER_OTLP_TRACE_ENDPOINT", "canary"),
    ] {
        let warnings = config(FILE, &[(variable, value)]).warnings;
        assert_eq!(warnings.len(), 1, "{variable} {warnings:?}");
        assert!(warnings[0].contains(variable) && !warnings[0].contains("canary"), "{warnings:?}");
    }
}

#[test]
fn what_changes_nothing_is_not_warned_of() {
    for (variable, value) in [
        ("OTEL_EXPORTER_OTLP_INSECURE", "false"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "true"),
        ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "TRUE"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Cumulative"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "always_off"),
        ("OTEL_PROPAGATORS", "tracecontext, baggage"),
        ("OTEL_PROPAGATORS", ""),
        ("OTEL_TRACES_EXPORTER", "otlp"),
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", " "),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "2048"),
        ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "1000"),
        ("OTELCOL_HOME", "/x"),
    ] {
        assert_eq!(config(FILE, &[(variable, value)]).warnings, Vec::<String>::new(), "{variable} {value}");
    }
    // The address says https, and the variable another thing.
    let secure = "telemetry: {otlp: 'https://h:4317'}";
    assert_eq!(config(secure, &[("OTEL_EXPORTER_OTLP_INSECURE", "true")]).warnings.len(), 1);
    assert_eq!(config(secure, &[("OTEL_EXPORTER_OTLP_LOGS_INSECURE", "true")]).warnings.len(), 1);
    // A signal's own variable comes before that of all.
    let env = ["TRACES_", "METRICS_", "LOGS_", ""].map(|one| format!("OTEL_EXPORTER_OTLP_{one}INSECURE"));
    let env = [(&*env[0], "false"), (&*env[1], "false"), (&*env[2], "false"), (&*env[3], "true")];
    assert!(config(secure, &env).warnings.is_empty());
}

#[test]
fn nothing_is_warned_of_where_nothing_is_sent() {
    let env = [("OTEL_PROPAGATORS", "b3"), ("OTEL_LOG_LEVEL", "debug"), ("OTEL_X", "y")];
    assert!(config("", &env).warnings.is_empty());
}

#[test]
fn a_list_of_exporters_with_otlp_in_it_sends() {
    for (list, sends) in [
        ("otlp", true),
        ("otlp,console", true),
        ("console, otlp", true),
        ("otlp,", true),
        ("console", false),
        ("none", false),
        ("OTLP", false),
    ] {
        let found = otlp(FILE, &[("OTEL_TRACES_EXPORTER", list)]);
        assert_eq!((found.traces.is_some(), found.metrics.is_some()), (sends, true), "{list}");
    }
}

#[test]
fn how_items_are_gathered_is_read_of_each_kind() {
    let found = otlp(FILE, &[]);
    assert_eq!((found.spans, found.log_records), (Batches::default(), Batches::default()));
    let env = [
        ("OTEL_BSP_SCHEDULE_DELAY", "5000"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "2000"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "64"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "1500"),
    ];
    let found = otlp(FILE, &env);
    let (delay, export_time) = (Duration::from_secs(5), Duration::from_secs(2));
    // A message has no more than may wait.
    assert_eq!(found.spans, Batches { delay, export_time, waiting_max: 100, items_max: 100 });
    assert_eq!(found.log_records, Batches { items_max: 64, ..Batches::default() });
    let timeouts =
        [found.traces, found.metrics, found.logs].map(|target| target.unwrap().timeout.as_millis());
    assert_eq!(timeouts, [10_000, 1_500, 10_000], "metrics have the shorter of both");
}
