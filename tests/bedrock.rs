//! Bedrock through the sidecar: what is recorded, what errors look like, what becomes of signatures.

use crate::aws_signature::{self, Request, Scope};
use bursar_domain::{Metering, Outcome, UsageSource};
use bursar_tests::provider::reply;
use bursar_tests::{Setup, Step};

const REPLY: &str = r#"{"metrics":{"latencyMs":7},"output":{"message":{"content":[{"text":"Tides."}],"role":"assistant"}},"stopReason":"end_turn","usage":{"cacheReadInputTokens":30,"inputTokens":10,"outputTokens":4,"totalTokens":44}}"#;
const ASK: &str = r#"{"messages":[{"role":"user","content":[{"text":"hi"}]}]}"#;
const MODEL: &str = "eu.amazon.nova-micro-v1%3A0";

fn routes(more: &str) -> Setup {
    let routes = format!(
        "builtin_routes: false\nroutes:\n  - {{ prefix: /, upstream: 'http://bedrock-runtime.eu-west-1.amazonaws.com', \
         provider: bedrock, allow_plaintext_upstream: true{more} }}"
    );
    Setup { routes, ..Setup::new("") }
}

#[test]
fn the_record_names_the_model_of_the_path_and_the_region_of_the_host() {
    routes("").run(|system| async move {
        system.provider.reply(
            200,
            &[("content-type", "application/json"), ("x-amzn-requestid", "req-1")],
            REPLY.as_bytes(),
        );
        let mut client = system.client();
        let body = ASK.replacen('{', r#"{"model":"not this one","#, 1);
        client.post(&format!("/model/{MODEL}/converse"), &[], &body).await;
        assert_eq!(client.reply().await.text(), REPLY);
        let received = system.provider.request();
        assert_eq!(received.line(), format!("POST /model/{MODEL}/converse HTTP/1.1"), "escapes stay");
        let record = system.record().await;
        assert_eq!((record.provider.as_str(), record.api.as_str()), ("bedrock", "converse"));
        assert_eq!(record.model_requested.unwrap().as_str(), "eu.amazon.nova-micro-v1:0");
        assert_eq!((record.model_served, record.region.unwrap().as_str()), (None, "eu-west-1"));
        assert_eq!((record.usage.input_total(), record.usage.output_total()), (Some(40), Some(4)));
        assert_eq!(record.upstream_request_id.unwrap().as_str(), "req-1");
        assert!(record.anomalies.is_empty());
    });
}

#[test]
fn a_binary_stream_is_not_held_back_for_its_cost() {
    routes(", response_headers: { cost: true }").run(|system| async move {
        // An empty message: enough to see that it passes before the next one is sent.
        let message = [0, 0, 0, 0x10, 0, 0, 0, 0, 0x05, 0xc2, 0x48, 0xeb, 0x7d, 0x98, 0xc8, 0xff];
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\n\
                    transfer-encoding: chunked\r\n\r\n";
        system.provider.script([
            Step::Send(head.as_bytes().to_vec()),
            Step::Send(bursar_tests::chunk(&message)),
            Step::Wait(std::time::Duration::from_secs(60)),
            Step::Send(b"0\r\n\r\n".to_vec()),
        ]);
        let mut client = system.client();
        client.post(&format!("/model/{MODEL}/converse-stream"), &[], ASK).await;
        let start = tokio::time::Instant::now();
        let head = client.head().await.unwrap();
        assert!(start.elapsed().as_secs() < 60 && !head.contains("x-bursar-cost"), "{head}");
        assert_eq!(client.body(head).await.body, message);
        let record = system.record().await;
        assert_eq!((record.api.as_str(), record.stream), ("converse-stream", true));
        assert_eq!((record.outcome, record.metering), (Outcome::ErrorMidstream, Metering::Count));
        assert_eq!(record.usage_source, UsageSource::Absent);
    });
}

#[test]
fn our_own_errors_have_the_shape_of_aws() {
    routes("").run(|system| async move {
        system.provider.refuse();
        let mut client = system.client();
        client.post(&format!("/model/{MODEL}/converse"), &[], ASK).await;
        let reply = client.reply().await;
        assert_eq!(
            (reply.status(), reply.header("x-amzn-errortype")),
            (502, Some("InternalServerException"))
        );
        let message = reply.json();
        assert!(message["message"].as_str().unwrap().starts_with("bursar: upstream: "), "{message}");
        assert_eq!(message.as_object().unwrap().len(), 1);
        assert_eq!(system.record().await.outcome, Outcome::Error);
    });
}

#[test]
fn a_signature_for_the_upstreams_host_and_path_stays_valid() {
    routes(", include_usage: true").run(|system| async move {
        let scope = Scope {
            id: "AKIDEXAMPLE",
            secret: "secret",
            region: "eu-west-1",
            service: "bedrock",
            time: "20261122T120000Z",
        };
        let mut client = system.client();
        for (target, body) in [
            (format!("/model/{MODEL}/converse?b=1&a=%20"), ASK),
            // Not even to ask for usage is a signed body changed.
            ("/openai/v1/chat/completions".to_owned(), r#"{"model":"m","stream":true}"#),
        ] {
            let signed = [
                ("content-type", "application/json"),
                ("host", "bedrock-runtime.eu-west-1.amazonaws.com"),
                ("x-amz-date", scope.time),
                ("x-amz-security-token", "session"),
                ("x-amzn-bedrock-trace", "ENABLED"),
            ];
            let request =
                Request { method: "POST", target: &target, headers: &signed, body: body.as_bytes() };
            let authorization = aws_signature::authorization(&scope, &request);
            let headers = [
                ("x-amz-date", scope.time),
                ("x-amz-security-token", "session"),
                ("x-amzn-bedrock-trace", "ENABLED"),
                ("x-bursar-team", "not signed, and not sent on"),
                ("authorization", authorization.as_str()),
            ];
            system.provider.script([Step::Send(reply(200, &[("content-type", "application/json")], b"{}"))]);
            client.post(&target, &headers, body).await;
            assert_eq!(client.reply().await.status(), 200);
            let received = system.provider.received().pop().unwrap();
            aws_signature::verify(&received, scope.id, scope.secret, scope.region, scope.service);
            assert_eq!(received.body, body.as_bytes());
        }
        system.close().await;
    });
}
