//! Configuration end to end: defaults, precedence, every refusal with its exact words, secrets, and
//! the published files.

use super::settings::ALL;
use super::value::Shape;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// An environment for one load.
fn load_with(yaml: &str, env: &[(&str, &str)], overrides: Overrides) -> Result<Config, ConfigErrors> {
    let env: BTreeMap<String, String> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Config::load(Sources {
        file: Some(PathBuf::from("b.yaml")),
        text: Some(yaml.to_owned()),
        env: &|name| env.get(name).cloned(),
        env_names: env.keys().cloned().collect(),
        overrides,
    })
}

fn load(yaml: &str) -> Result<Config, ConfigErrors> {
    load_with(yaml, &[], Overrides::default())
}

fn good(yaml: &str) -> Config {
    load(yaml).unwrap_or_else(|errors| panic!("{yaml}\n{errors}"))
}

fn messages(result: Result<Config, ConfigErrors>) -> Vec<String> {
    match result {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// `yaml` has exactly these mistakes, in this order.
fn check(yaml: &str, want: &[&str]) {
    assert_eq!(messages(load(yaml)), want, "\n{yaml}");
}

/// One route that is right but for `more`.
fn route(more: &str) -> String {
    format!("routes:\n  - prefix: /a\n    upstream: https://h\n    provider: openai\n{more}")
}

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

// === defaults ===

#[test]
fn without_any_source_every_setting_has_its_default() {
    let config = Config::load(Sources::none()).unwrap();
    let seconds = Duration::from_secs;
    assert_eq!(config.file, None);
    assert_eq!(config.listen.to_string(), "127.0.0.1:4141");
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:4142");
    assert!(config.admin.tokens.is_empty() && config.admin.tls.is_none());
    assert_eq!(config.admin.requests_per_minute, 6_000);
    assert!(config.admin.metrics_public);
    assert_eq!(
        config.ledger,
        Ledger {
            path: PathBuf::from("./bursar-data"),
            durability: Durability::Group,
            group_delay: Duration::from_millis(5),
            fail: FailMode::Open,
            queue_entries_max: 65_536,
            bytes_max: None,
            detail_days: None,
        }
    );
    assert_eq!(
        config.identity,
        Identify {
            team: None,
            workload: None,
            customer: None,
            session: None,
            tags: Tags::default(),
            required: Vec::new(),
            trust_headers: true,
            on_bad_tag: BadTag::Drop,
            aliases: true,
            on_contradiction: BadTag::Drop,
            require_key: false,
        }
    );
    assert_eq!(config.currency, Currency::USD);
    assert_eq!(
        config.prices,
        Prices { book: PriceBook::BuiltIn, overlay: None, overlay_format: OverlayFormat::Auto }
    );
    assert!((1..=4).contains(&config.server.workers));
    assert_eq!(
        config.server.timeouts,
        ServerTimeouts {
            first_byte: seconds(5),
            head: seconds(5),
            body_idle: seconds(30),
            keep_alive: seconds(60),
            write_idle: seconds(600),
            drain: seconds(30),
        }
    );
    assert_eq!(
        config.server.limits,
        ServerLimits {
            head_bytes: 16 << 10,
            headers: 100,
            target_bytes: 8 << 10,
            body_bytes: 32 << 20,
            h2_streams: 100,
            connections_max: 10_000,
            connections_per_client_max: 1_000,
        }
    );
    let pool = UpstreamPool { pool_idle: seconds(50), pool_max_idle_per_host: 128, ca_file: None };
    assert_eq!(config.upstream, pool);
    assert_eq!(
        config.telemetry,
        Telemetry {
            prometheus: true,
            series_max: 100,
            resource: vec![("service.name".to_owned(), "bursar".to_owned())],
            otlp: None,
            log_level: LogFilter("info".to_owned()),
            log_format: LogFormat::Auto
        }
    );
    assert!(config.warnings.is_empty());
    for route in config.routes.iter() {
        let timeouts = RouteTimeouts { connect: seconds(5), response_head: seconds(600), idle: seconds(300) };
        assert_eq!(route.timeouts, timeouts, "{}", route.name);
        assert_eq!(route.response_headers, ResponseHeaders { request_id: true, cost: false });
        assert!(matches!(route.auth, Auth::PassThrough));
        assert_eq!(route.protocol, Protocol::Auto);
    }
}

#[test]
fn an_empty_file_and_empty_sections_mean_the_defaults() {
    let defaults: Vec<_> = Config::load(Sources::none()).unwrap().effective;
    let text =
        "admin:\nledger: ~\nroutes:\nidentity: { tags: , required: null }\nbudgets:\nlimits: []\nrules: []\n";
    for yaml in ["", "# nothing\n", "---\n", "{}", "\u{FEFF}", "null", text] {
        let effective = good(yaml).effective;
        let values = |list: &[Effective]| list.iter().map(|e| (e.path, e.value.clone())).collect::<Vec<_>>();
        assert_eq!(values(&effective), values(&defaults), "{yaml:?}");
    }
}

#[test]
fn writing_any_default_out_changes_nothing() {
    for setting in ALL.iter().filter(|s| s.default_is_value() && !s.path().contains("[]")) {
        let (path, text) = (setting.path(), setting.default_text());
        if text.is_empty() {
            continue;
        }
        let keys: Vec<&str> = path.split('.').collect();
        let yaml = keys.iter().rev().fold(text.clone(), |inner, key| match inner == text {
            true => format!("{{{key}: \"{inner}\"}}"),
            false => format!("{{{key}: {inner}}}"),
        });
        let config = good(&yaml);
        let found = config.effective.iter().find(|e| e.path == path).unwrap();
        assert_eq!(found.value, text, "{path}");
        assert!(matches!(found.origin, Origin::File { .. }), "{path}");
    }
}

#[test]
fn every_setting_is_documented_once_with_a_variable_of_its_own() {
    let mut paths = std::collections::BTreeSet::new();
    let mut variables = std::collections::BTreeSet::new();
    for setting in ALL {
        assert!(paths.insert(setting.path()), "{} is there twice", setting.path());
        assert!(setting.doc().ends_with('.'), "{}", setting.path());
        for variable in setting.variables() {
            assert!(variables.insert(variable.clone()), "{variable} sets two settings");
        }
    }
    let config = Config::load(Sources::none()).unwrap();
    let read: Vec<&str> = config.effective().iter().map(|e| e.path).collect();
    let want: Vec<&str> = ALL.iter().map(|s| s.path()).filter(|path| !path.contains("[]")).collect();
    assert_eq!(read, want, "settings that nobody reads, or reads twice");
}

// === what is accepted ===

#[test]
fn a_full_file_is_read_whole() {
    let config = good(
        "listen: 0.0.0.0:80
allow_plaintext: true
ledger: { path: /data, durability: sync, fail: closed, queue_entries_max: 1000, group_delay: 20ms, bytes_max: 900MiB, retention: { detail: 90d, rollup: forever } }
identity: { team: checkout, tags: { version: 1.10, on: true }, required: [team, 'tag:version', team], trust_headers: false, on_bad_tag: refuse, aliases: false }
server: { workers: 3, timeouts: { head: 1500ms, drain: 2m }, limits: { body_bytes: 1048576, head_bytes: 32KiB } }
upstream: { connect: 1s, idle: 1h, pool_max_idle_per_host: 0 }
response_headers: { cost: true }
telemetry: { prometheus: false, log: { level: 'warn,bursar=debug', format: json } }
routes:
  - { prefix: /local, upstream: 'http://127.0.0.1:8000/base', provider: vllm, timeouts: { connect: 2s }, protocol: http2 }
  - { prefix: /x, upstream: 'https://x.example', dialect: anthropic, response_headers: { cost: false }, region: eu }
",
    );
    assert_eq!(config.ledger.durability, Durability::Sync);
    assert_eq!(config.ledger.group_delay, Duration::from_millis(20));
    assert_eq!(config.ledger.detail_days, Some(90));
    assert_eq!(config.ledger.bytes_max, Some(900 << 20));
    assert_eq!(config.identity.tags.get("version").map(Label::as_str), Some("1.10"));
    let version = RequiredTag::Tag(Label::new("version").unwrap());
    assert_eq!(config.identity.required, [RequiredTag::Team, version]);
    assert_eq!(config.server.workers, 3);
    assert_eq!(config.server.timeouts.head, Duration::from_millis(1500));
    assert_eq!(config.server.limits.body_bytes, 1 << 20);
    assert_eq!(config.telemetry.log_level.as_str(), "warn,bursar=debug");
    let local = config.routes.resolve("/local/v1").unwrap();
    assert_eq!(local.target(None), "/base/v1");
    assert_eq!(local.route.timeouts.connect, Duration::from_secs(2));
    assert_eq!(local.route.timeouts.idle, Duration::from_secs(3600));
    assert!(local.route.include_usage && local.route.response_headers.cost);
    assert_eq!(local.route.protocol, Protocol::Http2);
    let x = config.routes.resolve("/x/v1/messages").unwrap();
    assert_eq!((x.route.provider.as_str(), x.route.dialect), ("anthropic", Dialect::Anthropic));
    assert!(!x.route.response_headers.cost);
    assert_eq!(x.region(), Some("eu"));
}

#[test]
fn json_is_yaml_and_any_provider_may_have_its_own_route() {
    let providers = super::providers::PROVIDERS.iter().map(|p| {
        format!(
            "{{\"prefix\": \"/{0}\", \"upstream\": \"http://127.0.0.1:9\", \"provider\": \"{0}\"}}",
            p.name
        )
    });
    let providers: Vec<String> = providers.collect();
    let json = format!(
        "{{\n \"listen\": \"127.0.0.1:1\",\n \"admin\": {{\n  \"listen\": \"127.0.0.1:2\"\n }},\n \"ledger\": {{\"path\":\
         \"/tmp/x\"}},\n \"routes\": [\n  {},\n  {{\n   \"prefix\": \"/homemade\",\n   \"upstream\": \"http://127.0.0.1:9\",\n   \
         \"provider\": \"homemade\",\n   \"dialect\": \"openai\"\n  }}\n ]\n}}",
        providers.join(",\n  ")
    );
    let config = good(&json);
    for provider in super::providers::PROVIDERS {
        let path = format!("/{}/v1/x", provider.name);
        let matched = config.routes.resolve(&path).unwrap();
        assert_eq!(matched.route.provider.as_str(), provider.name);
        assert_eq!(matched.authority.as_str(), "127.0.0.1:9");
        assert_eq!(matched.rest, "/v1/x");
    }
    let homemade = config.routes.resolve("/homemade/v1/chat/completions").unwrap();
    assert_eq!((homemade.route.dialect, homemade.route.include_usage), (Dialect::OpenAi, false));
}

#[test]
fn usage_is_asked_for_where_providers_need_it_unless_told_otherwise() {
    for (more, want) in [
        ("provider: openai", true),
        ("provider: azure", true),
        ("provider: vllm", true),
        ("provider: llama.cpp", true),
        ("dialect: openai", true),
        ("provider: groq", false),
        ("provider: anthropic", false),
        ("provider: other, dialect: openai", false),
        ("provider: openai, dialect: passthrough", false),
        ("provider: openai, include_usage: false", false),
        ("provider: groq, include_usage: true", true),
        ("provider: bedrock", false),
        ("provider: bedrock-mantle", true),
        ("provider: bedrock-mantle, dialect: openai", true),
    ] {
        let config = good(&format!("routes: [{{prefix: /a, upstream: 'https://h', {more}}}]"));
        assert_eq!(config.routes.resolve("/a").unwrap().route.include_usage, want, "{more}");
    }
}

#[test]
fn the_example_is_right_and_gives_no_warning() {
    let file = repository().join("deploy/examples/bursar.yaml");
    let config = Config::load(Sources { file: Some(file.clone()), ..Sources::none() }).unwrap();
    assert_eq!(config.file, Some(file));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!(config.identity.tags.get("release").map(Label::as_str), Some("1.10"));
}

// === precedence ===

#[test]
fn command_line_wins_over_environment_over_file_over_default() {
    let env =
        [("BURSAR_LISTEN", "127.0.0.1:2"), ("BURSAR_ADMIN_LISTEN", " 127.0.0.1:5 "), ("BURSAR_CURRENCY", "")];
    let line = Overrides { listen: Some("127.0.0.1:3".to_owned()), ..Overrides::default() };
    let config = load_with("listen: 127.0.0.1:1\nadmin: {listen: 127.0.0.1:4}", &env, line).unwrap();
    assert_eq!(config.listen.port(), 3);
    assert_eq!(config.admin.listen.port(), 5);
    let origin = |path: &str| config.effective().iter().find(|e| e.path == path).unwrap().origin.to_string();
    assert_eq!(origin("listen"), "option --listen");
    assert_eq!(origin("admin.listen"), "environment BURSAR_ADMIN_LISTEN");
    assert_eq!(origin("currency"), "default");
    let file = good("\nledger:\n  path: x\n");
    assert_eq!(
        file.effective().iter().find(|e| e.path == "ledger.path").unwrap().origin.to_string(),
        "b.yaml:3:9"
    );
}

#[test]
fn every_variable_sets_its_setting() {
    for setting in ALL.iter().filter(|s| s.default_is_value()) {
        let text = setting.default_text();
        for variable in setting.variables().iter().filter(|_| !text.is_empty()) {
            let config = load_with("", &[(variable, &text)], Overrides::default()).unwrap();
            let found = config.effective().iter().find(|e| e.path == setting.path()).unwrap();
            assert_eq!((&found.value, found.origin.to_string()), (&text, format!("environment {variable}")));
            assert!(config.warnings.is_empty());
        }
    }
}

#[test]
fn lists_and_maps_come_from_the_environment_too() {
    let env = [("BURSAR_IDENTITY_REQUIRED", "team, tag:x"), ("BURSAR_IDENTITY_TAGS", "a=1, b = two words")];
    let config = load_with("identity: { tags: { c: 3 } }", &env, Overrides::default()).unwrap();
    assert_eq!(config.identity.required.len(), 2);
    let tags: Vec<String> = config.identity.tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(tags, ["a=1", "b=two words"]);
}

#[test]
fn the_data_directory_has_three_names_and_they_must_agree() {
    let load = |env: &[(&str, &str)]| load_with("ledger: {path: f}", env, Overrides::default());
    assert_eq!(load(&[("BURSAR_DATA_DIR", "d")]).unwrap().ledger.path, Path::new("d"));
    assert_eq!(load(&[("BURSAR_LEDGER_PATH", "d")]).unwrap().ledger.path, Path::new("d"));
    assert!(load(&[("BURSAR_LEDGER_PATH", "d"), ("BURSAR_DATA_DIR", "d")]).is_ok());
    let line = Overrides { data_dir: Some(PathBuf::from("o")), ..Overrides::default() };
    assert_eq!(load_with("", &[("BURSAR_DATA_DIR", "d")], line).unwrap().ledger.path, Path::new("o"));
    assert_eq!(
        messages(load(&[("BURSAR_LEDGER_PATH", "d"), ("BURSAR_DATA_DIR", "e")])),
        [
            "environment BURSAR_DATA_DIR: ledger.path: two variables set this, environment BURSAR_LEDGER_PATH and \
          this one; unset one of them"
        ]
    );
}

#[test]
fn a_misspelt_variable_is_a_warning_and_others_are_not() {
    let env = [
        ("BURSAR_LISTN", "secret-value"),
        ("BURSAR_NOTHING_LIKE_IT", "x"),
        ("BURSAR_CONFIG", "x"),
        ("BURSAR_ADMIN", "x"),
        ("BURSAR_PORT", "tcp://10.0.0.1:1"),
        ("BURSAR_PORT_4141_TCP", "x"),
        ("BURSAR_SERVICE_HOST", "x"),
        ("BURSAR_MY_KEY", "k"),
        ("HOME", "x"),
    ];
    let config =
        load_with(&route("    auth: inject\n    secret_env: BURSAR_MY_KEY\n"), &env, Overrides::default())
            .unwrap();
    assert_eq!(
        config.warnings,
        [
            "routes[0].secret_env: other programs of the same user can read an environment; secret_file is safer",
            "environment BURSAR_LISTN: no setting has this name, it is ignored; did you mean BURSAR_LISTEN?",
            "environment BURSAR_NOTHING_LIKE_IT: no setting has this name, it is ignored",
        ]
    );
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let file = repository().join("deploy/examples/bursar.yaml");
    let name = file.display().to_string();
    let env = |variable: &str| (variable == "BURSAR_CONFIG").then(|| name.clone());
    let config = Config::load(Sources { env: &env, ..Sources::none() }).unwrap();
    assert_eq!(config.file, Some(file));
}

#[test]
fn only_settings_fixed_at_start_need_a_restart() {
    let old = good("ledger: {path: a}\nidentity: {team: x}");
    let new = good("ledger: {path: b}\nidentity: {team: y}\nserver: {workers: 2}");
    assert_eq!(old.needs_restart_for(&new), ["ledger.path", "server.workers"]);
    assert!(old.needs_restart_for(&old).is_empty());
}

// === refusals ===

#[test]
fn each_wrong_value_is_refused_with_its_place_and_remedy() {
    let duration = "write a whole number with ms, s, m or h, such as 250ms or 5s";
    for (yaml, want) in [
        (
            "listen: localhost",
            "b.yaml:1:9: listen: \"localhost\" is not an address to listen on; write an IP address and a port, \
             such as 127.0.0.1:4141 or [::1]:4141"
                .to_owned(),
        ),
        (
            "listen: 0.0.0.0:4141",
            "b.yaml:1:9: listen: \"0.0.0.0:4141\" is not a loopback address, and the listener has no TLS: keys and \
             prompts would cross the network readable; listen on 127.0.0.1, or set allow_plaintext: true"
                .to_owned(),
        ),
        (
            "listen: 127.0.0.1:4142",
            "default: admin.listen: \"127.0.0.1:4142\" is also the address of listen; give each a port of its own"
                .to_owned(),
        ),
        (
            "admin: {listen: 10.0.0.1:4142}",
            "b.yaml:1:17: admin.listen: \"10.0.0.1:4142\" is not a loopback address, so the admin API needs a \
             token; listen on 127.0.0.1, or set admin.tokens or admin.token_file"
                .to_owned(),
        ),
        (
            "allow_plaintext: yes",
            "b.yaml:1:18: allow_plaintext: \"yes\" is not a truth value; write true or false".to_owned(),
        ),
        (
            "ledger: {durability: grup}",
            "b.yaml:1:22: ledger.durability: \"grup\" is not one of sync, group, relaxed; did you mean \"group\"?"
                .to_owned(),
        ),
        (
            "ledger: {fail: maybe}",
            "b.yaml:1:16: ledger.fail: \"maybe\" is not one of open, closed; use one of these".to_owned(),
        ),
        (
            "ledger: {group_delay: 5}",
            format!("b.yaml:1:23: ledger.group_delay: \"5\" has no unit; {duration}"),
        ),
        (
            "ledger: {group_delay: 5 ms}",
            format!("b.yaml:1:23: ledger.group_delay: \"5 ms\" is not a duration; {duration}"),
        ),
        (
            "ledger: {group_delay: 0ms}",
            "b.yaml:1:23: ledger.group_delay: \"0ms\" is below the least, 1ms; use a value from 1ms to 1s".to_owned(),
        ),
        (
            "server: {timeouts: {head: 99999999999999999999h}}",
            "b.yaml:1:27: server.timeouts.head: \"99999999999999999999h\" is above the most, 10m; use a value from \
             100ms to 10m"
                .to_owned(),
        ),
        (
            "server: {limits: {body_bytes: 32MB}}",
            "b.yaml:1:31: server.limits.body_bytes: \"32MB\" is not a size; write bytes, or a number with KiB, MiB \
             or GiB"
                .to_owned(),
        ),
        (
            "server: {limits: {headers: -1}}",
            "b.yaml:1:28: server.limits.headers: \"-1\" is not a whole number; write digits only".to_owned(),
        ),
        (
            "server: {limits: {target_bytes: 32KiB}}",
            "b.yaml:1:33: server.limits.target_bytes: \"32KiB\" is more than server.limits.head_bytes (16KiB), of \
             which it is a part; lower this one or raise that one"
                .to_owned(),
        ),
        (
            "server: {workers: 0}",
            "b.yaml:1:19: server.workers: \"0\" is below the least, 1; use a value from 1 to 256".to_owned(),
        ),
        (
            "ledger: {retention: {detail: 34d}}",
            "b.yaml:1:30: ledger.retention.detail: \"34d\" is below the least, 35d; use a value from 35d to 36500d"
                .to_owned(),
        ),
        (
            "ledger: {retention: {detail: 5h}}",
            "b.yaml:1:30: ledger.retention.detail: \"5h\" is no retention; write whole days such as 90d, or \
             forever"
                .to_owned(),
        ),
        (
            "ledger: {retention: {detail: 90d}}\nbudgets: [{name: x, scope: {customer: acme}, window: year, limit: 5 USD}]",
            "b.yaml:1:30: ledger.retention.detail: \"90d\" is shorter than what budget x counts anew at a start \
             (366 days of single records); keep details longer, or shorten the window"
                .to_owned(),
        ),
        (
            "budgets: [{name: x, limit: 5000 USD}]",
            "b.yaml:1:11: budgets[0].window: the key is missing; every budget needs one".to_owned(),
        ),
        (
            "rules: [{name: x, when: team, deny: no}]",
            "b.yaml:1:25: rules[0].when: the expression of rule \"x\", line 1, column 1: it is a string and no truth \
             value; compare it with something, such as `… == \"x\"` or `… > 0`"
                .to_owned(),
        ),
        (
            "rules: 5",
            "b.yaml:1:8: rules: this is a single value; write a list, each item starting with `- `".to_owned(),
        ),
        (
            "telemetry: {otlp: '127.0.0.1:4317'}",
            "b.yaml:1:19: telemetry.otlp: the value (not shown) is not the address of a collector; write \
             http://HOST:PORT or https://HOST:PORT, without user, query and fragment"
                .to_owned(),
        ),
        (
            "telemetry: {log: {level: loud}}",
            "b.yaml:1:26: telemetry.log.level: \"loud\" is not a log level; write off, error, warn, info, debug or \
             trace, for one module as module=level, separated by commas"
                .to_owned(),
        ),
        (
            "currency: EUR",
            "b.yaml:1:11: currency: \"EUR\" is not supported: this version keeps its books in USD only; write USD \
             or remove the key"
                .to_owned(),
        ),
        (
            "identity: {team: \"\"}",
            "b.yaml:1:18: identity.team: \"\" is empty; write a name, or remove the key".to_owned(),
        ),
        (
            "identity: {team: \"a\\u202Eb\"}",
            "b.yaml:1:18: identity.team: \"a\\u{202e}b\" has a control or invisible character; use visible \
             characters only"
                .to_owned(),
        ),
        (
            "identity: {team: }",
            "b.yaml:1:12: identity.team: there is no value; give it one (text, up to 256 bytes), or remove the key"
                .to_owned(),
        ),
        (
            "identity: {team: [a]}",
            "b.yaml:1:18: identity.team: this is a list; write one value: text, up to 256 bytes".to_owned(),
        ),
        (
            "identity: {required: team}",
            "b.yaml:1:22: identity.required: this is a single value; write a list, such as [team, workload]"
                .to_owned(),
        ),
        (
            "identity: {required: [team, tema]}",
            "b.yaml:1:29: identity.required[1]: \"tema\" cannot be required; use team, workload, customer, session \
             or tag:<name>"
                .to_owned(),
        ),
        (
            "identity: {tags: {Bad Name: x}}",
            "b.yaml:1:19: identity.tags: \"Bad Name\" is not a tag's name; use up to 64 lower-case letters, digits, \
             `.`, `_` and `-`, a letter or digit first"
                .to_owned(),
        ),
        (
            "identity: {tags: {a: [1]}}",
            "b.yaml:1:22: identity.tags.a: this is a list; write one value: text, up to 256 bytes".to_owned(),
        ),
        (
            "identity: {tags: [a]}",
            "b.yaml:1:18: identity.tags: this is a list; write names and values, such as { environment: production \
             }"
            .to_owned(),
        ),
        (
            "prices: {overlay: /does/not/exist.yaml}",
            "b.yaml:1:19: prices.overlay: \"/does/not/exist.yaml\" cannot be read: it does not exist; check the \
             path, or create the file"
                .to_owned(),
        ),
        ("upstream: {ca_file: /}", "b.yaml:1:21: upstream.ca_file: \"/\" is a directory; name a file".to_owned()),
        (
            "builtin_routes: false",
            "b.yaml:1:17: builtin_routes: \"false\" leaves no route at all; add routes, or remove the key".to_owned(),
        ),
        ("- a", "b.yaml:1:1: this is a list; write keys and values, such as listen: …".to_owned()),
        (
            "ledger: ./data",
            "b.yaml:1:9: ledger: this is a single value; write keys below it".to_owned(),
        ),
        (
            "listen: 127.0.0.1:1\nlisten: 127.0.0.1:2",
            "b.yaml:2:1: the key \"listen\" is here twice (first on line 1); keep one of them".to_owned(),
        ),
        (
            "routes: {prefix: /a}",
            "b.yaml:1:9: routes: this is a map of keys; write a list, each item starting with `- `".to_owned(),
        ),
        (
            "routes: [openai]",
            "b.yaml:1:10: routes[0]: this is a single value; write keys: prefix, upstream and so on".to_owned(),
        ),
    ] {
        check(yaml, &[&want]);
    }
}

#[test]
fn each_wrong_route_is_refused_with_its_place_and_remedy() {
    let prefix_remedy = "write a path such as /openai or /team/local";
    let upstream_remedy = "write a base URL such as https://api.openai.com";
    let hidden_remedy = "write scheme, host, port and path only; a secret belongs into secret_file";
    let prefix =
        |text: &str| format!("routes:\n  - {{prefix: {text}, upstream: 'https://h', provider: openai}}");
    let upstream = |text: &str| format!("routes:\n  - {{prefix: /a, upstream: '{text}', provider: openai}}");
    for (text, what) in [
        ("openai", "does not start with `/`"),
        ("/a/", "ends with `/`"),
        ("/a//b", "has an empty segment (`//`)"),
        ("/a/../b", "has a dot segment"),
        ("/./b", "has a dot segment"),
        ("/a%2e", "has a percent escape"),
        ("'/azure/{resource}'", "has a template, which only built-in routes have"),
        ("/a b", "has a character other than letters, digits, `-`, `.`, `_` and `~`"),
        ("/é", "has a character other than letters, digits, `-`, `.`, `_` and `~`"),
        ("/healthz", "is under a name that the listener keeps for itself (bursar, healthz, readyz)"),
        ("/bursar/x", "is under a name that the listener keeps for itself (bursar, healthz, readyz)"),
    ] {
        let shown = text.trim_matches('\'');
        let want = format!("b.yaml:2:14: routes[0].prefix: {shown:?} {what}; {prefix_remedy}");
        check(&prefix(text), &[&want]);
    }
    for (text, what) in [
        ("api.openai.com", "does not start with `https://` or `http://`"),
        ("ftp://h", "does not start with `https://` or `http://`"),
        ("https://", "has no host"),
        ("https:///x", "has no host"),
        ("https://h:0", "has a port that is not a number from 1 to 65535"),
        ("https://h:99999", "has a port that is not a number from 1 to 65535"),
        ("https://h:+80", "has a port that is not a number from 1 to 65535"),
        ("https://h:", "has a port that is not a number from 1 to 65535"),
        ("https://a..b", "has a host that is not a domain name or address"),
        ("https://a b", "has a host that is not a domain name or address"),
        ("https://{x}.com", "has a host that is not a domain name or address"),
        ("https://1.2.3", "has a host that is not a complete IPv4 address"),
        ("https://2130706433", "has a host that is not a complete IPv4 address"),
        ("https://[::g]", "has a host that is not an IPv6 address"),
        ("https://[::1]x", "has something between host and path"),
        ("https://h/a//b", "has a path with empty or dot segments or escapes"),
        ("https://h/..", "has a path with empty or dot segments or escapes"),
        ("https://h/%41", "has a path with empty or dot segments or escapes"),
        ("https://h//", "has a path with empty or dot segments or escapes"),
    ] {
        let want = format!("b.yaml:2:28: routes[0].upstream: {text:?} {what}; {upstream_remedy}");
        check(&upstream(text), &[&want]);
    }
    for (text, what) in [
        ("https://user:canary@h", "carries a user name or password"),
        ("https://h?key=canary", "has a query or fragment"),
        ("https://h#canary", "has a query or fragment"),
    ] {
        let want = format!("b.yaml:2:28: routes[0].upstream: the value (not shown) {what}; {hidden_remedy}");
        check(&upstream(text), &[&want]);
    }
}

#[test]
fn rules_within_a_route_are_checked() {
    for (yaml, want) in [
        (
            "routes: [{}]".to_owned(),
            vec![
                "b.yaml:1:10: routes[0]: the route has no prefix; add prefix: …",
                "b.yaml:1:10: routes[0]: the route has no upstream; add upstream: …",
                "b.yaml:1:10: routes[0]: the route has neither provider nor dialect; add provider: openai, or \
                 dialect: openai",
            ],
        ),
        (
            "routes: [{prefix: /a, upstream: 'https://h', provider: opanai}]".to_owned(),
            vec![
                "b.yaml:1:56: routes[0].provider: \"opanai\" is not a known provider; did you mean \"openai\"? \
                 Otherwise add dialect: openai or anthropic",
            ],
        ),
        (
            "routes: [{prefix: /a, upstream: 'https://h', provider: Open AI}]".to_owned(),
            vec![
                "b.yaml:1:56: routes[0].provider: \"Open AI\" is not a provider's name; use lower-case letters, \
                 digits, `.`, `_` and `-`",
            ],
        ),
        (
            "routes: [{prefix: /a, upstream: 'https://h', provider: writer, dialect: coheer}]".to_owned(),
            vec![
                "b.yaml:1:73: routes[0].dialect: \"coheer\" is not one of openai, anthropic, gemini, bedrock, cohere, ollama, passthrough; did you \
                 mean \"cohere\"?",
            ],
        ),
        (
            "routes: [{prefix: /a, upstream: 'https://h', dialect: passthrough}]".to_owned(),
            vec!["b.yaml:1:10: routes[0]: a passthrough route has no provider; add provider: NAME"],
        ),
        (
            "routes:\n- {prefix: /a, upstream: 'https://h', provider: openai}\n- {prefix: /A, upstream: 'https://h', \
             provider: openai}"
                .to_owned(),
            vec![
                "b.yaml:3:4: routes[1].prefix: \"/A\" is also the prefix of the route on line 2; give each route a \
                 prefix of its own",
            ],
        ),
        (
            route("    auth: inject\n"),
            vec!["b.yaml:5:5: routes[0].auth: auth: inject has no secret; add secret_file: PATH"],
        ),
        (
            route("    auth: inject\n    secret_file: /x\n    secret_env: X\n"),
            vec!["b.yaml:5:5: routes[0].auth: there are both secret_file and secret_env; remove one of them"],
        ),
        (
            route("    secret_env: X\n    header: x-key\n"),
            vec![
                "b.yaml:5:5: routes[0].secret_env: this does nothing without auth: inject; add auth: inject or \
                 remove it",
                "b.yaml:6:5: routes[0].header: this does nothing without auth: inject; add auth: inject or remove \
                 it",
            ],
        ),
        (
            route("    auth: inject\n    secret_file: /does/not/exist\n    header: Host\n"),
            vec![
                "b.yaml:6:18: routes[0].secret_file: \"/does/not/exist\" cannot be read: it does not exist; check \
                 the path, or create the file",
                "b.yaml:7:13: routes[0].header: \"Host\" cannot carry a secret; write a header's name such as \
                 authorization or x-api-key",
            ],
        ),
        (
            route("    timeouts: {conect: 1s, idle: 0s}\n"),
            vec![
                "b.yaml:5:16: routes[0].timeouts.conect: this key is unknown; did you mean \"connect\"?",
                "b.yaml:5:34: routes[0].timeouts.idle: \"0s\" is below the least, 100ms; use a value from 100ms to \
                 24h",
            ],
        ),
    ] {
        check(&yaml, &want);
    }
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    for (yaml, want) in [
        ("lisen: x", "b.yaml:1:1: lisen: this key is unknown; did you mean \"listen\"?"),
        (
            "durability: sync",
            "b.yaml:1:1: durability: this key is unknown; did you mean \"ledger.durability\"?",
        ),
        ("data_dir: x", "b.yaml:1:1: data_dir: this key is unknown; use ledger.path"),
        ("admin: {token: hunter2}", "b.yaml:1:9: admin.token: this key is unknown; did you mean \"tokens\"?"),
        (
            "admin: {zzz: 1}",
            "b.yaml:1:9: admin.zzz: this key is unknown; remove it; known here: listen, token_file, tokens, requests_per_minute, tls, metrics_public",
        ),
        (
            "ledger.path: x",
            "b.yaml:1:1: ledger.path: keys with dots are not read; write it in its section: ledger: { path: … }",
        ),
        (
            "'routes[].prefix': /x",
            "b.yaml:1:1: routes[].prefix: keys with dots are not read; write it in its section: routes[]: { prefix: … }",
        ),
        (
            "ledger: {retention: {details: forever}}",
            "b.yaml:1:22: ledger.retention.details: this key is unknown; did you mean \"detail\"?",
        ),
    ] {
        check(yaml, &[want]);
    }
    let yaml = route("    api_key: hunter2\n");
    check(&yaml, &["b.yaml:5:5: routes[0].api_key: this key is unknown; use secret_file or secret_env"]);
}

#[test]
fn several_mistakes_are_all_reported_in_order_with_their_lines() {
    let yaml = "\
listen: nowhere
ledgr: {}
admin:
  listen: 0.0.0.0:1
ledger:
  durability: fast
  group_delay: 1h
identity:
  required: [team, nobody, nothing]
  tags: { A: 1, b: [] }
routes:
  - prefix: a
    upstream: h
    provider: nobody
  - upstream: https://h
    auth: inject
server:
  limits: { headers: 1, h2_streams: x }
";
    let result = load_with(
        yaml,
        &[("BURSAR_LEDGER_FAIL", "never")],
        Overrides { admin_listen: Some("x".to_owned()), ..Overrides::default() },
    );
    let errors = result.unwrap_err();
    let places: Vec<String> = errors.iter().map(|e| format!("{} {}", e.origin, e.key)).collect();
    assert_eq!(
        places,
        [
            "b.yaml:1:9 listen",
            "b.yaml:2:1 ledgr",
            "b.yaml:4:11 admin.listen",
            "b.yaml:6:15 ledger.durability",
            "b.yaml:7:16 ledger.group_delay",
            "b.yaml:9:20 identity.required[1]",
            "b.yaml:9:28 identity.required[2]",
            "b.yaml:10:11 identity.tags",
            "b.yaml:10:20 identity.tags.b",
            "b.yaml:12:13 routes[0].prefix",
            "b.yaml:13:15 routes[0].upstream",
            "b.yaml:14:15 routes[0].provider",
            "b.yaml:15:5 routes[1]",
            "b.yaml:15:5 routes[1]",
            "b.yaml:16:5 routes[1].auth",
            "b.yaml:18:22 server.limits.headers",
            "b.yaml:18:37 server.limits.h2_streams",
            "environment BURSAR_LEDGER_FAIL ledger.fail",
            "option --admin-listen admin.listen",
        ]
    );
    assert!(errors.to_string().starts_with("the configuration has 19 mistakes:\n  b.yaml:1:9: listen: "));
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let missing = Config::load(Sources { file: Some(PathBuf::from("/does/not/exist")), ..Sources::none() });
    assert_eq!(
        messages(missing),
        ["/does/not/exist: the file cannot be read: it does not exist; check the path, or create the file"]
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("b.yaml");
    fs::write(&file, b"a: \xff").unwrap();
    let wrong = messages(Config::load(Sources { file: Some(file.clone()), ..Sources::none() }));
    assert_eq!(wrong, [format!("{}: the file is not UTF-8 text (byte 3); save it as UTF-8", file.display())]);
    fs::write(&file, " ".repeat((1 << 20) + 1)).unwrap();
    let wrong = messages(Config::load(Sources { file: Some(file.clone()), ..Sources::none() }));
    assert!(wrong[0].contains("is larger than 1048576 bytes"), "{wrong:?}");
    let endless = Config::load(Sources { file: Some(PathBuf::from("/dev/zero")), ..Sources::none() });
    assert!(messages(endless)[0].contains("is larger than"));
}

#[test]
fn mistakes_in_the_environment_are_reported_beside_a_broken_file() {
    let result = load_with("a: [", &[("BURSAR_LISTEN", "x")], Overrides::default());
    let got = messages(result);
    assert_eq!(got.len(), 2, "{got:?}");
    assert!(got[0].starts_with("b.yaml:") && got[0].contains("this is not YAML"), "{got:?}");
    assert!(got[1].starts_with("environment BURSAR_LISTEN: listen:"), "{got:?}");
}

#[test]
fn a_line_of_the_file_counts_although_another_source_wins() {
    let line = Overrides { listen: Some("127.0.0.1:1".to_owned()), ..Overrides::default() };
    let got = messages(load_with("listen: nonsense", &[], line));
    assert_eq!(got.len(), 1, "{got:?}");
}

// === secrets ===

const CANARY: &str = "sk-canary-0123456789abcdef";

#[test]
fn secrets_are_read_trimmed_and_put_into_the_providers_header() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    fs::write(&file, format!("\n  {CANARY}\r\n")).unwrap();
    for (more, header, value) in [
        ("provider: openai", "authorization", format!("Bearer {CANARY}")),
        ("dialect: openai", "authorization", format!("Bearer {CANARY}")),
        ("provider: anthropic", "x-api-key", CANARY.to_owned()),
        ("dialect: anthropic", "x-api-key", CANARY.to_owned()),
        ("provider: azure", "api-key", CANARY.to_owned()),
        ("provider: gemini", "x-goog-api-key", CANARY.to_owned()),
        ("provider: anthropic, header: Authorization", "authorization", format!("Bearer {CANARY}")),
        ("provider: openai, header: X-My-Key", "x-my-key", CANARY.to_owned()),
    ] {
        let file = file.display();
        let yaml = format!(
            "routes: [{{prefix: /a, upstream: 'https://h', auth: inject, secret_file: '{file}', {more}}}]"
        );
        let config = good(&yaml);
        let Auth::Inject(inject) = &config.routes.resolve("/a").unwrap().route.auth else { panic!("{more}") };
        assert_eq!(
            (inject.header.as_str(), inject.value.to_str().unwrap()),
            (header, value.as_str()),
            "{more}"
        );
        assert!(inject.value.is_sensitive());
        assert!(!format!("{config:?} {:?}", config.effective()).contains("canary"), "{more}");
    }
}

/// A route to Bedrock that signs, at `host`.
fn signing(host: &str, more: &str) -> String {
    format!("routes: [{{prefix: /a, upstream: 'https://{host}', provider: bedrock, auth: sigv4{more}}}]")
}

#[test]
fn signing_is_for_bedrock_only() {
    check(
        &route("    auth: sigv4\n"),
        &["b.yaml:5:5: routes[0].auth: auth: sigv4 is for Bedrock; use auth: inject, or provider: bedrock"],
    );
}

#[cfg(not(feature = "sigv4"))]
#[test]
fn a_build_that_cannot_sign_says_so() {
    check(
        &signing("bedrock-runtime.eu-west-1.amazonaws.com", ""),
        &[
            "b.yaml:1:103: routes[0].auth: this build cannot sign requests for AWS; build with --features sigv4, \
           or use a Bedrock API key",
        ],
    );
}

#[cfg(feature = "sigv4")]
#[test]
fn signing_takes_region_and_service_from_the_route_the_host_or_the_environment() {
    let env = [("AWS_REGION", "ap-south-1")];
    let runtime = "bedrock-runtime.eu-west-1.amazonaws.com";
    for (host, more, region, price_region, service) in [
        (runtime, "", "eu-west-1", Some("eu-west-1"), "bedrock"),
        (runtime, ", region: us-east-1", "us-east-1", Some("us-east-1"), "bedrock"),
        ("h", "", "ap-south-1", None, "bedrock"),
        ("bedrock-mantle.us-east-1.api.aws", "", "us-east-1", Some("us-east-1"), "bedrock-mantle"),
    ] {
        let config = load_with(&signing(host, more), &env, Overrides::default()).unwrap();
        let matched = config.routes.resolve("/a").unwrap();
        let Auth::SigV4(scope) = &matched.route.auth else { panic!("{host}") };
        assert_eq!((&*scope.region, scope.service, matched.region()), (region, service, price_region));
    }
}

#[cfg(feature = "sigv4")]
#[test]
fn what_signing_lacks_is_said() {
    let faults = |yaml: &str, env: &[(&str, &str)]| messages(load_with(yaml, env, Overrides::default()));
    let auth = "b.yaml:1:65: routes[0].auth";
    assert_eq!(
        faults(&signing("h", ""), &[]),
        [format!("{auth}: auth: sigv4 has no region to sign for; add region: …")]
    );
    assert_eq!(
        faults(&signing("h", ", region: eu"), &[("AWS_SECRET_ACCESS_KEY", CANARY)]),
        [format!(
            "{auth}: environment: AWS_SECRET_ACCESS_KEY is set, but AWS_ACCESS_KEY_ID is not; correct the \
             variable, or unset it"
        )]
    );
    let env = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", CANARY)];
    let open = format!("listen: 0.0.0.0:1\nallow_plaintext: true\n{}", signing("h", ", region: eu"));
    let config = load_with(&open, &env, Overrides::default()).unwrap();
    assert_eq!(
        config.warnings,
        ["routes with auth: sigv4: whoever reaches `listen` spends with the sidecar's AWS credentials"]
    );
    assert!(!format!("{config:?}").contains(CANARY));
}

#[test]
fn a_secret_that_is_a_whole_authorization_value_is_sent_as_it_is() {
    let env = [("KEY", "Basic dXNlcjpwYXNz")];
    let config =
        load_with(&route("    auth: inject\n    secret_env: KEY\n"), &env, Overrides::default()).unwrap();
    let Auth::Inject(inject) = &config.routes.resolve("/a").unwrap().route.auth else { panic!("no secret") };
    assert_eq!(inject.value, "Basic dXNlcjpwYXNz");
}

#[test]
fn the_admin_token_is_read_and_hidden() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, format!("{CANARY}\n")).unwrap();
    let yaml = format!("admin: {{ listen: 0.0.0.0:4142, token_file: '{}' }}", file.display());
    let config = good(&yaml);
    assert_eq!(config.admin.tokens.find(CANARY.as_bytes()).unwrap().name.as_str(), "token_file");
    assert!(!config.admin.metrics_public);
    assert!(!format!("{config:?}").contains("canary"));
    assert_eq!(
        config.warnings,
        ["admin.listen is not loopback and has no TLS: the token crosses the network readable (set \
          admin.tls.cert_file and admin.tls.key_file)"]
    );
    fs::write(&file, "short").unwrap();
    assert!(good(&yaml).warnings[1].contains("fewer than 16 characters"));
    for (text, what) in
        [("", "nothing"), (" \n", "nothing"), ("a\nb", "characters that cannot stand in a header")]
    {
        fs::write(&file, text).unwrap();
        let got = messages(load(&yaml));
        assert_eq!(got.len(), 1, "{got:?}");
        assert!(got[0].contains(&format!("holds {what}; put the secret alone into the file")), "{got:?}");
    }
}

#[test]
fn no_message_or_warning_shows_what_may_be_a_secret() {
    let upper = "SK_CANARY_0123456789ABCDEF";
    let inject = |more: &str| route(&format!("    auth: inject\n    {more}\n"));
    for yaml in [
        format!("admin: {{token: {CANARY}}}"),
        format!("admin: {{token_file: {CANARY}}}"),
        inject(&format!("secret_file: {CANARY}")),
        inject(&format!("secret_env: {CANARY}")),
        inject(&format!("secret_env: {upper}")),
        inject(&format!("secret: {CANARY}")),
        inject(&format!("secret_file: [{CANARY}]")),
        inject(&format!("secret_file: {{a: {CANARY}}}")),
        format!("routes: [{{prefix: /a, upstream: 'https://u:{CANARY}@h', provider: openai}}]"),
        format!("routes: [{{prefix: /a, upstream: 'https://h/?k={CANARY}', provider: openai}}]"),
        format!("routes: [{{prefix: /a, upstream: 'u:{CANARY}@h', provider: openai}}]"),
        format!("telemetry: {{otlp: 'http://h/{CANARY}'}}"),
        format!("zzz: {CANARY}"),
        format!("zzz: {{a: [{CANARY}]}}"),
    ] {
        let env = [("BURSAR_TYPO", CANARY), ("BURSAR_TELEMETRY_OTLP", CANARY)];
        let errors = load_with(&yaml, &env, Overrides::default()).unwrap_err();
        let shown = format!("{errors} {errors:?}");
        assert!(!shown.to_lowercase().contains("canary"), "{yaml}\n{shown}");
    }
}

#[test]
fn an_injected_secret_does_not_cross_the_network_in_the_clear_unless_allowed() {
    let yaml = |host: &str, more: &str| {
        format!("routes:\n- {{prefix: /a, upstream: 'http://{host}', provider: openai, {more}}}")
    };
    let env = [("KEY", CANARY)];
    let inject = "auth: inject, secret_env: KEY";
    let load = |yaml: &str| load_with(yaml, &env, Overrides::default());
    assert_eq!(
        messages(load(&yaml("10.0.0.1", inject))),
        [
            "b.yaml:2:16: routes[0].upstream: the upstream is plain http on another machine: the injected secret would \
          cross the network readable; use https, or set allow_plaintext_upstream: true on this route"
        ]
    );
    assert!(load(&yaml("127.0.0.1:8000", inject)).is_ok());
    assert!(load(&yaml("10.0.0.1", &format!("{inject}, allow_plaintext_upstream: true"))).is_ok());
    let config = load(&yaml("vllm:8000", "auth: passthrough")).unwrap();
    assert!(config.warnings[0].starts_with("b.yaml:2:16: routes[0].upstream: the upstream is plain http"));
    assert!(load(&yaml("vllm:8000", "allow_plaintext_upstream: true")).unwrap().warnings.is_empty());
}

// === whatever the text ===

/// Pieces of configuration, right and wrong, for texts that are nearly files.
const PIECES: &[&str] = &[
    "listen",
    ": ",
    "127.0.0.1:1",
    "\n",
    "  ",
    "- ",
    "routes",
    "prefix",
    "/a",
    "upstream",
    "https://h",
    "{",
    "}",
    "[",
    "]",
    ", ",
    "\"",
    "'",
    "#",
    "&a ",
    "*a",
    "!t ",
    "? ",
    "| ",
    "> ",
    "---\n",
    "...\n",
    "ledger",
    "identity",
    "tags",
    "required",
    "team",
    "~",
    "\t",
    "\u{FEFF}",
    "é",
    "\\",
    "%",
    "5ms",
    "<<",
    "\r\n",
    "@",
    "`",
    "\u{0}",
    "budgets",
];

proptest! {
    #[test]
    fn any_text_loads_or_is_refused_without_a_panic(text in any::<String>()) {
        let _ = load(&text);
    }

    #[test]
    fn any_mixture_of_pieces_loads_or_is_refused_without_a_panic(
        picks in proptest::collection::vec(0..PIECES.len(), 0..60)
    ) {
        let text: String = picks.into_iter().map(|pick| PIECES[pick]).collect();
        let _ = load(&text);
    }

    #[test]
    fn a_cut_or_changed_example_loads_or_is_refused_without_a_panic(at in any::<prop::sample::Index>(), c in any::<char>()) {
        let text = fs::read_to_string(repository().join("deploy/examples/bursar.yaml")).unwrap();
        let at = at.index(text.chars().count());
        let cut: String = text.chars().take(at).collect();
        let changed: String = text.chars().enumerate().map(|(i, old)| if i == at { c } else { old }).collect();
        let _ = load(&cut);
        let _ = load(&changed);
    }

    #[test]
    fn any_variable_loads_or_is_refused_without_a_panic(setting in 0..ALL.len(), text in any::<String>()) {
        let variables = ALL[setting].variables();
        let env: Vec<(&str, &str)> = variables.iter().map(|name| (name.as_str(), text.as_str())).collect();
        let _ = load_with("", &env, Overrides::default());
    }

    #[test]
    fn any_path_resolves_or_is_refused_without_a_panic(path in "/?(openai|azure|v1|%2e|[a-z/.%;]{0,8}){0,6}") {
        let config = Config::load(Sources::none()).unwrap();
        if let Ok(matched) = config.routes.resolve(&path) {
            prop_assert!(is_canonical(&matched.target(None)), "{path}");
            prop_assert!(!matched.authority.as_str().contains(['/', '@', '%', ';']));
        }
    }
}

#[test]
fn deep_nesting_is_refused_not_followed() {
    for text in ["[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000)] {
        assert_eq!(messages(load(&text)).len(), 1);
    }
}

// === published files ===

/// The published file is what the table says. `BLESS=1 cargo test` writes it.
fn check_published(path: &str, want: &str) {
    let file = repository().join(path);
    if std::env::var_os("BLESS").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, want).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == want,
        "{path} is not what the table of settings says: run BLESS=1 cargo test -p bursar config"
    );
}

#[test]
fn the_published_schema_is_that_of_the_table() {
    check_published("docs/reference/config.schema.json", &json_schema());
}

#[test]
fn the_published_page_is_that_of_the_table() {
    check_published("docs/reference/configuration.md", &reference_page());
}

#[test]
fn the_schema_knows_every_setting() {
    let schema: serde_json::Value = serde_json::from_str(&json_schema()).unwrap();
    for setting in ALL {
        let pointer = setting.path().replace("[].", "/items/properties/").replace('.', "/properties/");
        let found = schema.pointer(&format!("/properties/{pointer}"));
        assert!(found.is_some_and(|s| s.get("description").is_some()), "{}", setting.path());
        assert!(setting.shape() != Shape::List || found.unwrap().get("type").is_some());
    }
}
