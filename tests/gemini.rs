//! Gemini and Vertex through the whole sidecar: what a record says, how refusals look, and that an
//! injected key goes alone.

use bursar_domain::{Metering, Outcome, TokenClass, UsageRecord, UsageSource};
use bursar_tests::{Reply, Setup, Step, System, chunk};

const ROUTES: &str = "
builtin_routes: false
routes:
  - { prefix: /gemini, upstream: 'http://provider.test', provider: gemini }
  - { prefix: /vertex, upstream: 'http://provider.test', provider: vertex }
  - { prefix: /gateway, upstream: 'http://provider.test', provider: our-gateway, dialect: gemini }
";

const ASK: &str = r#"{"contents":[{"parts":[{"text":"hi"}]}],"generationConfig":{"maxOutputTokens":64}}"#;

const CONTENT: &str = r#"{"candidates":[{"content":{"parts":[{"text":"Hello."}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":30,"candidatesTokenCount":7,"totalTokenCount":127,"thoughtsTokenCount":90,"trafficType":"ON_DEMAND"},"modelVersion":"gemini-2.5-flash","responseId":"r-1"}"#;

/// The same as a stream of two events, whose first counts otherwise.
const EVENTS: [&str; 2] = [
    "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Hel\"}]}}],\"usageMetadata\":{\"promptTokenCount\":29,\"totalTokenCount\":29},\"modelVersion\":\"gemini-2.5-flash\"}\r\n\r\n",
    "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"lo.\"}]},\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":30,\"candidatesTokenCount\":7,\"totalTokenCount\":127,\"thoughtsTokenCount\":90},\"modelVersion\":\"gemini-2.5-flash\"}\r\n\r\n",
];

const GENERATE: &str = "/gemini/v1beta/models/gemini-2.5-flash:generateContent";
const STREAM: &str =
    "/vertex/v1/projects/p/locations/global/publishers/google/models/gemini-2.5-flash:streamGenerateContent";

fn run<Fut: Future<Output = ()>>(test: impl FnOnce(System) -> Fut) {
    let mut setup = Setup::new("");
    setup.routes = ROUTES.to_owned();
    setup.run(test);
}

/// Sends a request to `path`, which is answered by `steps`.
fn exchange(path: &'static str, steps: Vec<Step>, check: impl FnOnce(Reply, UsageRecord)) {
    run(|system| async move {
        system.provider.script(steps);
        let mut client = system.client();
        client.post(path, &[("x-goog-api-key", "k")], ASK).await;
        let reply = client.reply().await;
        check(reply, system.record().await);
    });
}

fn whole(kind: &str, body: &str) -> Vec<Step> {
    vec![Step::Send(bursar_tests::provider::reply(200, &[("content-type", kind)], body.as_bytes()))]
}

fn is_read(record: &UsageRecord) {
    assert_eq!((record.outcome, record.metering), (Outcome::Ok, Metering::Count));
    assert_eq!(record.usage_source, UsageSource::Provider);
    assert_eq!((record.usage.input_total(), record.usage.output_total()), (Some(30), Some(97)));
    assert_eq!(record.usage.get(TokenClass::OutputReasoning), Some(90));
    assert_eq!(record.model_requested.as_ref().unwrap().as_str(), "gemini-2.5-flash");
    assert_eq!(record.model_served.as_ref().unwrap().as_str(), "gemini-2.5-flash");
    assert!(record.anomalies.is_empty(), "{:?}", record.anomalies);
}

#[test]
fn a_record_of_generated_content_names_the_model_of_the_path() {
    exchange(GENERATE, whole("application/json; charset=UTF-8", CONTENT), |reply, record| {
        assert_eq!(reply.text(), CONTENT);
        is_read(&record);
        assert_eq!((record.provider.as_str(), record.api.as_str()), ("gemini", "generate-content"));
        assert_eq!((record.stream, record.tier.unwrap().as_str()), (false, "ON_DEMAND"));
    });
    let gateway = "/gateway/v1/models/gemini-2.5-flash:generateContent?key=k";
    exchange(gateway, whole("application/json", CONTENT), |_, record| {
        is_read(&record);
        assert_eq!(record.provider.as_str(), "our-gateway");
    });
}

#[test]
fn a_stream_passes_unchanged_as_events_and_as_an_array() {
    let events = EVENTS.concat();
    let array = format!(
        "[{}\r\n,\r\n{}\r\n]",
        &EVENTS[0][6..EVENTS[0].len() - 4],
        &EVENTS[1][6..EVENTS[1].len() - 4]
    );
    for (path, kind, body) in [
        (
            "/vertex/v1/publishers/google/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
            "text/event-stream",
            events,
        ),
        (STREAM, "application/json", array),
    ] {
        exchange(path, whole(kind, &body), |reply, record| {
            assert_eq!(reply.text(), body);
            is_read(&record);
            assert_eq!((record.api.as_str(), record.stream), ("stream-generate-content", true));
        });
    }
}

#[test]
fn an_array_that_breaks_off_is_told_with_what_was_known() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let begun = format!("[{}\r\n,", &EVENTS[0][6..EVENTS[0].len() - 4]);
    run(|system| async move {
        system.provider.script([Step::Send(head.to_vec()), Step::Send(chunk(begun.as_bytes())), Step::Close]);
        let mut client = system.client();
        client.post(STREAM, &[], ASK).await;
        drop(client.rest().await);
        let record = system.record().await;
        assert_eq!((record.outcome, record.stream), (Outcome::ErrorMidstream, true));
        assert_eq!(
            (record.usage_source, record.usage.input_total()),
            (UsageSource::ProviderPartial, Some(29))
        );
    });
}

#[test]
fn a_refusal_has_the_shape_of_the_api_that_was_called() {
    for (path, field, value) in [
        (GENERATE, "/error/status", "UNAVAILABLE"),
        ("/gemini/v1beta/openai/chat/completions", "/error/type", "server_error"),
        ("/vertex/v1/p/publishers/anthropic/models/claude-sonnet-4-5:rawPredict", "/error/type", "api_error"),
    ] {
        run(|system| async move {
            system.provider.refuse();
            let mut client = system.client();
            client.post(path, &[], ASK).await;
            let reply = client.reply().await;
            let body = reply.json();
            assert_eq!(
                (reply.status(), body.pointer(field).and_then(|v| v.as_str())),
                (502, Some(value)),
                "{body}"
            );
            assert!(body["error"]["message"].as_str().unwrap().starts_with("bursar: "), "{body}");
            if value == "UNAVAILABLE" {
                assert_eq!(body["error"]["code"], 502);
                assert_eq!(body["error"]["details"][0]["reason"], "UPSTREAM_UNREACHABLE");
            }
        });
    }
    run(|system| async move {
        let mut client = system.client();
        client.post("/v1beta/models/g:generateContent", &[], ASK).await;
        assert_eq!(client.reply().await.json()["error"]["status"], "NOT_FOUND");
    });
}

#[test]
fn an_injected_key_goes_without_the_clients_in_header_or_query() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, "sidecars\n").unwrap();
    for (query, target) in [
        ("?alt=sse&key=mine", "?alt=sse"),
        ("?%6Bey=mine&alt=sse&access_token=t&$key=x&", "?alt=sse&"),
        ("?key=mine", ""),
        ("?monkey=1&keys=2", "?monkey=1&keys=2"),
        ("", ""),
    ] {
        let mut setup = Setup::new("");
        setup.routes = format!(
            "builtin_routes: false\nroutes:\n  - {{ prefix: /gemini, upstream: 'https://provider.test', provider: gemini, auth: inject, secret_file: '{}' }}\n",
            file.display()
        );
        setup.run(|system| async move {
            system.provider.json(200, CONTENT);
            let mut client = system.client();
            client.post(&format!("{GENERATE}{query}"), &[("x-goog-api-key", "mine")], ASK).await;
            assert_eq!(client.reply().await.status(), 200);
            let request = system.provider.request();
            let path = "/v1beta/models/gemini-2.5-flash:generateContent";
            assert_eq!(request.line(), format!("POST {path}{target} HTTP/1.1"), "{query}");
            assert_eq!(request.header("x-goog-api-key"), Some("sidecars"));
        });
    }
}

#[test]
fn a_client_that_brings_its_own_key_keeps_it_in_its_query() {
    run(|system| async move {
        system.provider.json(200, CONTENT);
        let mut client = system.client();
        client.post(&format!("{GENERATE}?key=mine"), &[], ASK).await;
        assert_eq!(client.reply().await.status(), 200);
        assert!(system.provider.request().line().contains("?key=mine "));
    });
}
