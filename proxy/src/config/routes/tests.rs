//! Paths and where they go: one table for matching, one for what is not routed at all.

use super::*;
use crate::config::{Config, Sources};
use proptest::prelude::*;

fn table(yaml: &str) -> RouteTable {
    Config::load(Sources::from_text(yaml)).unwrap().routes
}

/// `path` goes to `want`: route's name and URL.
fn check(routes: &RouteTable, path: &str, want: Result<(&str, &str), NoRoute>) {
    let got = routes.resolve(path).map(|matched| {
        let url = format!("{}://{}{}", matched.scheme(), matched.authority, matched.target(None));
        (matched.route.name.to_string(), url)
    });
    let want = want.map(|(name, url)| (name.to_owned(), url.to_owned()));
    assert_eq!(got, want, "{path}");
}

#[test]
fn every_built_in_route_exists() {
    assert_eq!(table("").iter().count(), BUILT_IN.len());
    for built_in in BUILT_IN {
        assert!(find(built_in.provider).is_some(), "{}", built_in.provider);
    }
}

#[test]
fn built_in_prefixes_are_taken_off_and_bare_paths_are_not() {
    let routes = table("");
    for (path, name, url) in [
        ("/openai/v1/chat/completions", "/openai", "https://api.openai.com/v1/chat/completions"),
        ("/openai", "/openai", "https://api.openai.com/"),
        ("/openai/", "/openai", "https://api.openai.com/"),
        ("/anthropic/v1/messages", "/anthropic", "https://api.anthropic.com/v1/messages"),
        ("/groq/openai/v1/chat/completions", "/groq", "https://api.groq.com/openai/v1/chat/completions"),
        (
            "/openrouter/api/v1/chat/completions",
            "/openrouter",
            "https://openrouter.ai/api/v1/chat/completions",
        ),
        ("/ollama/api/chat", "/ollama", "http://127.0.0.1:11434/api/chat"),
        ("/llama.cpp/v1/completions", "/llama.cpp", "http://127.0.0.1:8080/v1/completions"),
        ("/lmstudio/v1/models", "/lmstudio", "http://127.0.0.1:1234/v1/models"),
        ("/v1/chat/completions", "/v1/chat/completions", "https://api.openai.com/v1/chat/completions"),
        ("/v1/responses/resp_1/cancel", "/v1/responses", "https://api.openai.com/v1/responses/resp_1/cancel"),
        ("/v1/embeddings", "/v1/embeddings", "https://api.openai.com/v1/embeddings"),
        ("/v1/messages", "/v1/messages", "https://api.anthropic.com/v1/messages"),
        ("/v1/messages/count_tokens", "/v1/messages", "https://api.anthropic.com/v1/messages/count_tokens"),
        ("/v1/complete", "/v1/complete", "https://api.anthropic.com/v1/complete"),
        ("/v1/completions", "/v1/completions", "https://api.openai.com/v1/completions"),
        (
            "/gemini/v1beta/models/gemini-2.5-pro:streamGenerateContent",
            "/gemini",
            "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-pro:streamGenerateContent",
        ),
    ] {
        check(&routes, path, Ok((name, url)));
    }
}

#[test]
fn prefixes_match_whole_segments_in_their_case_only() {
    let routes = table("");
    for path in [
        "/",
        "/openaix",
        "/openai;x/v1",
        "/OpenAI/v1/models",
        "/openai%2Fv1",
        "/%6fpenai/v1",
        "/open",
        "/v1",
        "/v1/messagesx",
        "/v1/chat",
        "/v1/chat/completionsx",
        "/v1beta1/models",
        "/azure",
        "/azure/",
        "/bedrock",
    ] {
        check(&routes, path, Err(NoRoute::Unknown));
    }
}

#[test]
fn a_template_takes_one_strict_segment_into_the_host() {
    let routes = table("");
    for (path, name, url) in [
        (
            "/azure/my-resource/openai/deployments/x/chat/completions",
            "/azure/{resource}",
            "https://my-resource.openai.azure.com/openai/deployments/x/chat/completions",
        ),
        (
            "/bedrock/us-east-1/model/anthropic.claude-3%3A0/invoke",
            "/bedrock/{region}",
            "https://bedrock-runtime.us-east-1.amazonaws.com/model/anthropic.claude-3%3A0/invoke",
        ),
        ("/vertex/us-central1", "/vertex/{region}", "https://us-central1-aiplatform.googleapis.com/"),
        ("/vertex/global/v1/projects", "/vertex/global", "https://aiplatform.googleapis.com/v1/projects"),
        ("/vertex/eu/v1/projects", "/vertex/eu", "https://aiplatform.eu.rep.googleapis.com/v1/projects"),
        ("/vertex/us/v1/projects", "/vertex/us", "https://aiplatform.us.rep.googleapis.com/v1/projects"),
    ] {
        check(&routes, path, Ok((name, url)));
    }
    let long = format!("/azure/{}/x", "a".repeat(64));
    for path in [
        "/azure/evil.com/x",
        "/azure/evil.com%23/x",
        "/azure/a%2Eb/x",
        "/azure/UPPER/x",
        "/azure/-a/x",
        "/azure/a-/x",
        "/azure/a_b/x",
        "/azure/a:80/x",
        "/azure/a@b/x",
        "/bedrock/us-east-1.evil/x",
        &long,
    ] {
        check(&routes, path, Err(NoRoute::Unknown));
    }
}

#[test]
fn the_region_comes_from_the_path_or_from_the_route() {
    let routes = table("routes: [{prefix: /eu, upstream: 'https://h', provider: openai, region: eu}]");
    for (path, want) in [
        ("/bedrock/eu-west-1/x", Some("eu-west-1")),
        ("/vertex/global/x", Some("global")),
        ("/vertex/eu/x", Some("eu")),
        ("/azure/eu-west-1/x", None),
        ("/eu/x", Some("eu")),
        ("/openai/x", None),
    ] {
        assert_eq!(routes.resolve(path).unwrap().region(), want, "{path}");
    }
}

#[test]
fn configured_routes_come_first_the_longest_prefix_wins() {
    let routes = table(
        "routes:
  - { prefix: /openai, upstream: 'http://127.0.0.1:9000', provider: openai }
  - { prefix: /openai/v1/audio, upstream: 'https://audio.example/base/', provider: openai }
  - { prefix: /azure, upstream: 'http://127.0.0.1:9001', provider: azure }
  - { prefix: /v1, upstream: 'https://one.example', provider: openai }",
    );
    for (path, name, url) in [
        ("/openai/v1/models", "/openai", "http://127.0.0.1:9000/v1/models"),
        ("/openai/v1/audio/speech", "/openai/v1/audio", "https://audio.example/base/speech"),
        ("/openai/v1/audio", "/openai/v1/audio", "https://audio.example/base"),
        ("/openai/v1/audiox", "/openai", "http://127.0.0.1:9000/v1/audiox"),
        ("/azure/openai/deployments/x", "/azure", "http://127.0.0.1:9001/openai/deployments/x"),
        ("/v1/messages", "/v1", "https://one.example/messages"),
        ("/anthropic/v1/messages", "/anthropic", "https://api.anthropic.com/v1/messages"),
    ] {
        check(&routes, path, Ok((name, url)));
    }
    assert_eq!(routes.iter().filter(|route| route.name.as_str() == "/openai").count(), 1);
}

#[test]
fn without_built_in_routes_only_configured_ones_exist() {
    let routes =
        table("builtin_routes: false\nroutes: [{prefix: /a, upstream: 'https://h', provider: openai}]");
    check(&routes, "/a/b", Ok(("/a", "https://h/b")));
    check(&routes, "/openai/v1/models", Err(NoRoute::Unknown));
    check(&routes, "/v1/messages", Err(NoRoute::Unknown));
}

#[test]
fn a_route_for_everything_takes_what_no_other_configured_route_takes() {
    let routes = table(
        "routes:
  - { prefix: /, upstream: 'https://all.example/base', provider: openai }
  - { prefix: /a/b, upstream: 'https://ab.example', provider: openai }",
    );
    check(&routes, "/", Ok(("/", "https://all.example/base/")));
    check(&routes, "/x/y", Ok(("/", "https://all.example/base/x/y")));
    check(&routes, "/a", Ok(("/", "https://all.example/base/a")));
    check(&routes, "/a/b/c", Ok(("/a/b", "https://ab.example/c")));
    check(&routes, "/openai/v1", Ok(("/", "https://all.example/base/openai/v1")));
}

#[test]
fn the_query_is_passed_on_as_it_came() {
    let routes = table("");
    let matched = routes.resolve("/gemini/v1/models").unwrap();
    assert_eq!(matched.target(Some("alt=sse&x=%2F")), "/v1/models?alt=sse&x=%2F");
    assert_eq!(matched.target(Some("")), "/v1/models?");
}

#[test]
fn plain_routes_resolve_without_copying() {
    let routes = table("");
    let matched = routes.resolve("/openai/v1/models").unwrap();
    assert!(matches!(matched.authority, Cow::Borrowed(_)));
    assert!(matches!(matched.path(), Cow::Borrowed("/v1/models")));
}

#[test]
fn a_path_with_two_readings_is_not_routed() {
    let routes = table("");
    for path in [
        "",
        "*",
        "openai/v1",
        "//openai/v1",
        "/openai//v1",
        "/openai/./v1",
        "/openai/../anthropic/v1/messages",
        "/openai/v1/..",
        "/openai/v1/.",
        "/openai/%2e%2e/x",
        "/openai/%2E./x",
        "/openai/.%2e",
        "/openai/..;/x",
        "/openai/..;a=b/x",
        "/openai/x%2f..%2fy",
        "/openai/x%2F%2Fy",
        "/openai/x%5c..%5cy",
        "/openai/%2fx",
        "/openai\\v1",
        "/openai/a%00b",
        "/openai/a%0d%0ab",
        "/openai/%",
        "/openai/%2",
        "/openai/%zz",
        "/openai/a b",
        "/openai/é",
        "/openai/a#b",
        "/openai/a?b",
        "/openai/\u{7f}",
        "http://h/openai",
    ] {
        check(&routes, path, Err(NoRoute::NotCanonical));
    }
}

#[test]
fn odd_paths_with_one_reading_are_canonical() {
    for path in [
        "/",
        "/a/",
        "/a/...",
        "/a/..b",
        "/a/.b",
        "/a/b.",
        "/a/b;c=d",
        "/a/b%20c",
        "/a/%C3%A9",
        "/a/x:y",
        "/a/~b",
        "/model/arn%3Aaws%3Abedrock%3Aeu%3A1%3Ainference-profile%2Feu.anthropic/invoke",
        "/a/%25",
        "/a/b,c@d!$&'()*+=",
    ] {
        assert!(is_canonical(path), "{path}");
    }
}

proptest! {
    #[test]
    fn the_short_look_at_a_path_never_contradicts_the_long_one(path in "[/a.:%2e;-]{0,12}") {
        prop_assert!(!is_plain(path.as_bytes()) || has_one_reading(&path), "{path}");
    }
}

#[test]
fn credentials_in_the_clear_are_told_from_those_on_this_machine() {
    for (url, loopback) in [
        ("http://127.0.0.1:1", true),
        ("http://127.9.9.9", true),
        ("http://[::1]:8000", true),
        ("http://[::ffff:127.0.0.1]", true),
        ("http://localhost:8000/v1", true),
        ("http://LOCALHOST", true),
        ("http://x.localhost", true),
        ("http://localhost.evil.com", false),
        ("http://10.0.0.1", false),
        ("http://[fe80::1]", false),
    ] {
        assert_eq!(Upstream::parse(url).unwrap().is_loopback(), loopback, "{url}");
    }
}

#[test]
fn upstreams_are_normalised_and_shown_whole() {
    for (text, want) in [
        ("https://API.OpenAI.com/", "https://api.openai.com"),
        ("HTTPS://h/v1/", "https://h/v1"),
        ("https://h:8443/A/b", "https://h:8443/A/b"),
        ("http://[2001:DB8::1]:80/x", "http://[2001:db8::1]:80/x"),
        ("http://my_service:8000", "http://my_service:8000"),
    ] {
        assert_eq!(Upstream::parse(text).unwrap().to_string(), want);
    }
}
