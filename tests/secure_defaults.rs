//! The secure defaults, each asserted: here where it is a setting, a version or a line of a file, and
//! otherwise by a test elsewhere, which must exist.
//!
//! Not here: how the sidecar is confined by what it is rolled out with (`.ci/deploy.py` checks the image, the
//! chart and the unit).

use bursar::config::{Config, FailMode, Sources};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

const CLI: &str = "proxy/tests/cli.rs";
const CONFIG: &str = "proxy/src/config/tests.rs";
const HTTP: &str = "tests/http_rules.rs";
const KEYS: &str = "tests/keys.rs";
const SMUGGLING: &str = "tests/smuggling.rs";
const TIDY: &str = "tests/tidy.rs";
const TIMEOUTS: &str = "tests/timeouts.rs";
const WIRE: &str = "tests/wire_defaults.rs";

/// What is safe unless somebody says otherwise, and the test that holds it.
const DEFAULTS: &[(&str, &str, &str)] = &[
    // Listener.
    ("every default", CONFIG, "without_any_source_every_setting_has_its_default"),
    (
        "off loopback only where plaintext is allowed",
        CONFIG,
        "each_wrong_value_is_refused_with_its_place_and_remedy",
    ),
    (
        "also of a socket that was handed over",
        "proxy/tests/restarts.rs",
        "a_socket_that_was_handed_over_must_be_right_like_an_address_of_the_configuration",
    ),
    ("first byte", TIMEOUTS, "a_client_that_says_nothing_is_closed_after_five_seconds"),
    ("preface", TIMEOUTS, "half_an_http2_preface_is_closed_after_five_seconds"),
    ("head", TIMEOUTS, "a_head_that_trickles_is_408_after_five_seconds"),
    ("body", TIMEOUTS, "a_body_that_stalls_or_trickles_is_408_after_thirty_seconds"),
    ("keep-alive", TIMEOUTS, "an_idle_connection_is_closed_after_a_minute_and_not_during_an_exchange"),
    ("no total limit of a stream", TIMEOUTS, "a_slow_reply_that_goes_on_is_never_cut"),
    ("sizes of heads", HTTP, "limits_of_a_head_hold_at_their_edges"),
    ("size of a body", "tests/errors.rs", "a_body_over_the_limit_is_413_whether_it_says_so_or_not"),
    ("windows of HTTP/2", WIRE, "http2_windows_are_64_kib_for_a_stream_and_1_mib_for_a_connection"),
    ("connections", HTTP, "more_connections_than_allowed_are_closed_at_once"),
    (
        "connections of one client",
        "tests/client_connections.rs",
        "a_client_with_all_its_places_gets_no_more_and_others_are_served",
    ),
    // Strict heads.
    ("one reading of a head", SMUGGLING, "the_sidecar_refuses_each_shape_or_forwards_it_in_canonical_form"),
    (
        "one reading of fields of HTTP/2",
        SMUGGLING,
        "http2_fields_that_http1_would_read_otherwise_are_refused",
    ),
    (
        "upgrades only where they are named",
        HTTP,
        "a_websocket_where_none_is_served_is_refused_with_501_in_each_providers_shape",
    ),
    (
        "what belongs to one hop is removed",
        HTTP,
        "a_request_arrives_as_it_was_sent_but_for_what_belongs_to_one_hop",
    ),
    (
        "a connection in doubt is dropped",
        "tests/errors.rs",
        "conflicting_lengths_from_the_upstream_are_502_and_the_connection_is_dropped",
    ),
    // Identity.
    ("a key says who pays", KEYS, "a_key_says_who_pays_and_the_routes_own_secret_takes_its_place"),
    (
        "a bad credential is an error",
        KEYS,
        "a_key_that_does_not_hold_is_401_in_each_providers_shape_and_never_nobody",
    ),
    ("a header never overrides", KEYS, "a_budget_is_the_keys_whatever_its_headers_say"),
    (
        "virtual keys are kept as a hash, keyed with the id and the pepper",
        "proxy/src/credentials/keys/tests.rs",
        "a_hash_is_good_for_its_own_id_and_pepper_alone",
    ),
    (
        "no virtual key is in the ledger, a page or a print",
        KEYS,
        "no_secret_is_in_a_record_a_page_a_refusal_or_a_debug_print",
    ),
    (
        "addresses come from the configuration",
        "proxy/src/config/routes/tests.rs",
        "a_template_takes_one_strict_segment_into_the_host",
    ),
    (
        "a secret goes to its host alone",
        "tests/rules.rs",
        "another_route_gets_its_own_secret_and_never_the_clients",
    ),
    // Admin, metrics, health.
    (
        "a token off loopback",
        "proxy/src/admin/tests.rs",
        "off_loopback_nothing_but_health_answers_without_a_token_of_the_right_scope",
    ),
    ("metrics ask too", CLI, "metrics_may_be_public_and_nothing_else"),
    (
        "every change is in the audit",
        "proxy/src/admin/tests.rs",
        "every_write_leaves_who_made_it_and_what_changed_nothing_leaves_nothing",
    ),
    ("no other origin is let in: admin", "proxy/src/admin/tests.rs", "no_other_origin_is_let_in"),
    ("no other origin is let in: proxy", WIRE, "no_other_origin_is_let_in_by_the_proxy"),
    // TLS.
    (
        "nothing older than TLS 1.2: admin",
        "proxy/src/admin/listener/tests.rs",
        "tls_older_than_1_2_is_refused",
    ),
    (
        "nothing older than TLS 1.2: upstreams",
        "tests/tls.rs",
        "tls_1_2_and_1_3_and_nothing_older_are_offered_to_upstreams",
    ),
    ("certificates are verified: authority", "tests/tls.rs", "a_certificate_of_an_unknown_authority_is_502"),
    ("certificates are verified: name", "tests/tls.rs", "a_certificate_for_another_name_is_502"),
    ("certificates are verified: time", "tests/tls.rs", "a_certificate_that_has_expired_is_502"),
    // Secrets.
    (
        "nothing is said of them",
        "proxy/tests/otlp.rs",
        "no_secret_and_no_content_is_said_anywhere_even_at_trace",
    ),
    (
        "nothing of them is dumped",
        "proxy/tests/hostile_peers.rs",
        "nothing_of_the_process_is_dumped_or_shown_to_others",
    ),
    (
        "nothing of them stays in memory",
        "tests/secrets_in_memory.rs",
        "of_a_secret_that_a_reload_replaced_no_copy_is_left_in_memory",
    ),
    (
        "their text is asked for in few places",
        TIDY,
        "the_text_of_a_secret_is_asked_for_where_it_is_used_and_said_nowhere",
    ),
    (
        "what holds them cannot be shown",
        TIDY,
        "what_holds_a_secrets_bytes_derives_nothing_that_shows_or_copies_them_out",
    ),
    (
        "they cross no network in the clear",
        CONFIG,
        "an_injected_secret_does_not_cross_the_network_in_the_clear_unless_allowed",
    ),
    // Data.
    ("no content is stored", "tests/metering.rs", "nothing_of_prompts_completions_and_keys_is_in_the_ledger"),
    ("files are their owner's", CLI, "files_of_the_ledger_are_its_owners_alone"),
    ("one writer", CLI, "a_directory_in_use_is_refused_with_the_holders_pid"),
    // Exports.
    (
        "no cell is a formula",
        "proxy/tests/exports_cli.rs",
        "names_that_are_formulas_or_markup_are_harmless_in_every_export",
    ),
    (
        "a checksum beside a file",
        "proxy/tests/exports_cli.rs",
        "parquet_is_whole_repeatable_and_has_its_checksum_beside_it",
    ),
    (
        "sums reconcile",
        "proxy/tests/exports_cli.rs",
        "focus_of_the_guide_sums_to_the_report_column_by_column",
    ),
];

#[test]
fn every_secure_default_names_a_test_that_exists() {
    for (item, file, test) in DEFAULTS {
        let text = read(file);
        let exists = ["fn ", "async fn "].iter().any(|kind| text.contains(&format!("{kind}{test}()")));
        assert!(exists, "{item}: {test} is not in {file}");
    }
}

#[test]
fn without_a_configuration_nothing_is_open_that_need_not_be() {
    let config = Config::load(Sources::none()).unwrap();
    assert!(config.listen.ip().is_loopback() && config.admin.listen.ip().is_loopback());
    let (timeouts, limits) = (config.server.timeouts, config.server.limits);
    assert_eq!((timeouts.first_byte, timeouts.head), (Duration::from_secs(5), Duration::from_secs(5)));
    assert_eq!((timeouts.body_idle, timeouts.keep_alive), (Duration::from_secs(30), Duration::from_secs(60)));
    assert_eq!((limits.head_bytes, limits.headers, limits.target_bytes), (16 << 10, 100, 8 << 10));
    assert_eq!((limits.body_bytes, limits.h2_streams, limits.connections_max), (32 << 20, 100, 10_000));
    assert_eq!(limits.connections_per_client_max, 1_000);
    assert!(!config.server.reuse_port, "nobody shares the address");
    assert_eq!(config.ledger.fail, FailMode::Open);
    assert_eq!(config.ledger.detail_days, None, "nothing is given up unasked");
    assert!(config.telemetry.prometheus && config.warnings.is_empty());
}

/// The version of a package in the lock file, as numbers.
fn locked(lock: &str, name: &str) -> Option<Vec<u64>> {
    let rest = lock.split(&format!("name = \"{name}\"\nversion = \"")).nth(1)?;
    rest.split('"').next()?.split('.').map(|part| part.parse().ok()).collect()
}

#[test]
fn no_dependency_is_below_the_version_that_mended_it() {
    let lock = read("Cargo.lock");
    for (name, floor) in [
        ("h2", [0, 4, 16]),
        ("bytes", [1, 11, 1]),
        ("tracing-subscriber", [0, 3, 20]),
        ("rustls-webpki", [0, 103, 13]),
        ("aws-lc-sys", [0, 39, 0]),
        ("time", [0, 3, 47]),
    ] {
        let version = locked(&lock, name).unwrap_or_else(|| panic!("{name} is not in the lock file"));
        assert!(version.as_slice() >= floor.as_slice(), "{name} {version:?} is below {floor:?}");
    }
    assert_eq!(locked(&lock, "nobody-has-this-name"), None);
    // One TLS, of one maker.
    assert_eq!(locked(&lock, "openssl-sys"), None);
}

#[test]
fn the_rules_for_dependencies_are_strict() {
    let rules = read("deny.toml");
    for line in [
        "unknown-registry = \"deny\"",
        "unknown-git = \"deny\"",
        "wildcards = \"deny\"",
        "yanked = \"deny\"",
        "{ crate = \"ring\"",
        "{ crate = \"openssl-sys\"",
    ] {
        assert!(rules.contains(line), "deny.toml lacks {line}");
    }
    let ignored: Vec<&str> = rules.lines().filter(|line| line.contains("id = \"RUSTSEC")).collect();
    for line in &ignored {
        // A year and a month, then why.
        assert!(line.contains("reason = \"20"), "an advisory is ignored without reason and date: {line}");
    }
    assert!(!ignored.is_empty(), "the reader of deny.toml works");
    let build = [read(".ci/run"), read("deploy/docker/Dockerfile")].concat();
    assert!(build.contains("cargo build --release --locked"));
}

#[test]
fn secrets_are_compared_in_constant_time() {
    // Where a presented secret meets a kept one there is no other comparison.
    for (file, compared) in [
        ("proxy/src/credentials/keys.rs", "kept.ct_eq("),
        ("proxy/src/credentials/admin.rs", "token.hash.0.ct_eq("),
        ("proxy/src/config/secret.rs", ".ct_eq(candidate)"),
    ] {
        let text = read(file);
        let code = text.split("#[cfg(test)]").next().unwrap();
        assert!(code.contains(compared), "{file} compares otherwise");
        for other in ["digest ==", "== digest", "hash.0 ==", "== hash.0", "starts_with(candidate"] {
            assert!(!code.contains(other), "{file} has {other}");
        }
    }
}

#[test]
fn no_setting_switches_the_verification_of_upstreams_off() {
    let reference = read("docs/reference/configuration.md").to_lowercase();
    for word in ["insecure", "skip_verify", "verify: false", "no_verify", "danger"] {
        assert!(!reference.contains(word), "{word}");
    }
    for text in [read("proxy/src/upstream/connect.rs"), read("proxy/src/upstream/mod.rs")] {
        assert!(!text.contains("dangerous()"));
    }
}
