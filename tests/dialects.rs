//! Providers with an API of their own, from the wire to the record.

use bursar_domain::{Metering, Outcome, Quantity, UsageRecord, UsageSource};
use bursar_tests::{Setup, run};

const ROUTES: &str = "
builtin_routes: false
routes:
  - { prefix: /cohere, upstream: 'http://provider.test', provider: cohere }
  - { prefix: /ollama, upstream: 'http://provider.test', provider: ollama }
  - { prefix: /openai, upstream: 'http://provider.test', provider: openai }
";

/// One exchange: asks `path` with `body`, gets `reply`, and shows the record.
fn check(
    path: &'static str,
    (kind, body): (&'static str, &'static str),
    (reply_kind, reply): (&'static str, &'static str),
    expected: impl FnOnce(&UsageRecord),
) {
    let setup = Setup { routes: ROUTES.to_owned(), ..Setup::new("") };
    setup.run(|system| async move {
        system.provider.reply(200, &[("content-type", reply_kind)], reply.as_bytes());
        let mut client = system.client();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: h\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        client.send(head.as_bytes()).await;
        assert_eq!(client.reply().await.text(), reply);
        let record = system.record().await;
        assert_eq!((record.outcome, record.metering), (Outcome::Ok, Metering::Count));
        assert!(record.anomalies.is_empty(), "{:?}", record.anomalies);
        expected(&record);
    });
}

const JSON: &str = "application/json";

#[test]
fn cohere_is_billed_by_its_units() {
    let reply = r#"{"id":"c","message":{"role":"assistant","content":[]},"finish_reason":"COMPLETE","usage":{"billed_units":{"input_tokens":7,"output_tokens":2},"tokens":{"input_tokens":69,"output_tokens":3}}}"#;
    check("/cohere/v2/chat", (JSON, r#"{"model":"m"}"#), (JSON, reply), |record| {
        assert_eq!((record.api.as_str(), record.usage.input_total()), ("cohere-chat-v2", Some(69)));
        assert_eq!(record.usage.quantity(Quantity::BilledInputTokens), Some(7));
        assert_eq!(record.model_requested.as_ref().unwrap().as_str(), "m");
    });
}

#[test]
fn lines_of_ollama_pass_unchanged_and_are_read() {
    let reply = "{\"model\":\"m\",\"response\":\"a\",\"done\":false}\n{\"model\":\"m\",\"response\":\"\",\"done\":true,\"prompt_eval_count\":5,\"eval_count\":6}\n";
    check("/ollama/api/generate", (JSON, r#"{"model":"m"}"#), ("application/x-ndjson", reply), |record| {
        assert_eq!((record.api.as_str(), record.stream), ("ollama-generate", true));
        assert_eq!((record.usage.input_total(), record.usage.output_total()), (Some(5), Some(6)));
    });
}

#[test]
fn a_form_tells_its_model() {
    let form = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\r\n--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--b--\r\n";
    let reply = r#"{"text":"hi","usage":{"type":"duration","seconds":9}}"#;
    check(
        "/openai/v1/audio/transcriptions",
        ("multipart/form-data; boundary=b", form),
        (JSON, reply),
        |record| {
            assert_eq!(record.model_requested.as_ref().unwrap().as_str(), "whisper-1");
            assert_eq!(record.usage.quantity(Quantity::AudioMillis), Some(9_000));
            assert_eq!(record.usage_source, UsageSource::Provider);
        },
    );
}

#[test]
fn a_failure_has_the_shape_of_the_providers_own_errors() {
    for (path, field) in [("/cohere/v2/chat", "/message"), ("/ollama/api/chat", "/error")] {
        let setup = Setup { routes: ROUTES.to_owned(), ..Setup::new("") };
        setup.run(|system| async move {
            system.provider.refuse();
            let mut client = system.client();
            client.post(path, &[], r#"{"model":"m"}"#).await;
            let reply = client.reply().await;
            assert_eq!(reply.status(), 502);
            let message = reply.json().pointer(field).and_then(|m| m.as_str().map(ToOwned::to_owned));
            assert!(message.is_some_and(|text| text.starts_with("bursar: ")), "{}", reply.text());
        });
    }
}

#[test]
fn a_provider_that_is_not_openais_kind_is_not_asked_for_usage_in_streams() {
    run("", |system| async move {
        system.provider.json(200, r#"{"object":"list","data":[],"model":"m","usage":{"total_tokens":4}}"#);
        let mut client = system.client();
        client.post("/other/v1/rerank", &[], r#"{"model":"m","documents":["a"]}"#).await;
        assert_eq!(client.reply().await.status(), 200);
        let record = system.record().await;
        assert_eq!((record.provider.as_str(), record.usage.input_total()), ("voyage", Some(4)));
    });
}
