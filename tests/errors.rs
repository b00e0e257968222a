//! Bad input from either side: the client gets what the upstream sent or a clear error in the
//! provider's shape, and there is one record that says what happened.

use crate::transcripts::{
    CHAT, CHAT_PATH, CHAT_REPLY, CHAT_STREAM, EVENT_DONE, EVENT_ONE, MESSAGES, MESSAGES_PATH,
};
use bursar_domain::{Anomaly, Metering, Outcome, UsageRecord, UsageSource};
use bursar_tests::{Reply, Step, run};
use std::time::Duration;

/// Sends `body` and returns the reply and the record; the upstream answers with `steps`.
fn exchange(
    path: &'static str,
    body: &'static str,
    steps: Vec<Step>,
    check: impl FnOnce(Reply, UsageRecord),
) {
    run("", |system| async move {
        system.provider.script(steps);
        let mut client = system.client();
        client.post(path, &[], body).await;
        let reply = client.reply().await;
        check(reply, system.record().await);
    });
}

fn json_reply(body: &str) -> Vec<Step> {
    let head = [("content-type", "application/json")];
    vec![Step::Send(bursar_tests::provider::reply(200, &head, body.as_bytes()))]
}

fn send(text: &str) -> Vec<Step> {
    vec![Step::Send(text.as_bytes().to_vec()), Step::Close]
}

fn is_openai_error(reply: &Reply, status: u16, code: &str) {
    assert_eq!(reply.status(), status, "{}", reply.head);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let error = &reply.json()["error"];
    assert_eq!(error["code"], code);
    let kind = if status >= 500 { "server_error" } else { "invalid_request_error" };
    assert_eq!(error["type"], kind);
    assert!(error["message"].as_str().unwrap().starts_with("bursar: "), "{error}");
}

fn is_anthropic_error(reply: &Reply, status: u16, kind: &str) {
    assert_eq!(reply.status(), status, "{}", reply.head);
    let body = reply.json();
    assert_eq!((&body["type"], &body["error"]["type"]), (&"error".into(), &kind.into()));
    assert!(body["error"]["message"].as_str().unwrap().starts_with("bursar: "), "{body}");
    assert_eq!(body["request_id"].as_str(), reply.header("x-bursar-request-id"));
}

#[test]
fn a_refused_connection_is_502_in_each_providers_shape() {
    for (path, body) in [(CHAT_PATH, CHAT), (MESSAGES_PATH, MESSAGES)] {
        run("", |system| async move {
            system.provider.refuse();
            let mut client = system.client();
            client.post(path, &[], body).await;
            let reply = client.reply().await;
            if path == CHAT_PATH {
                is_openai_error(&reply, 502, "upstream_unreachable");
            } else {
                is_anthropic_error(&reply, 502, "api_error");
            }
            let record = system.record().await;
            assert_eq!((record.outcome, record.http_status), (Outcome::Error, None));
            assert_eq!((record.metering, record.usage.output_total()), (Metering::Never, None));
            assert_eq!(Some(record.id.to_string().as_str()), reply.header("x-bursar-request-id"));
        });
    }
}

#[test]
fn garbage_instead_of_http_is_502() {
    for garbage in [
        "\x15\x03\x01\x00\x02\x02\x28",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "\r\n\r\n\r\n",
        "{}",
    ] {
        exchange(CHAT_PATH, CHAT, send(garbage), |reply, record| {
            is_openai_error(&reply, 502, "upstream_unreachable");
            assert_eq!((record.outcome, record.http_status), (Outcome::Error, None), "{garbage:?}");
        });
    }
    exchange(MESSAGES_PATH, MESSAGES, send("garbage\r\n\r\n"), |reply, _| {
        is_anthropic_error(&reply, 502, "api_error")
    });
}

#[test]
fn conflicting_lengths_from_the_upstream_are_502_and_the_connection_is_dropped() {
    let text = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 5\r\n\r\n{}abc";
    exchange(CHAT_PATH, CHAT, send(text), |reply, record| {
        is_openai_error(&reply, 502, "upstream_unreachable");
        assert_eq!(record.outcome, Outcome::Error);
    });
}

#[test]
fn ten_megabytes_of_headers_from_the_upstream_are_502_long_before_they_are_read() {
    run("", |system| async move {
        let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
        while head.len() < 10 << 20 {
            head.extend_from_slice(format!("x-header: {}\r\n", "y".repeat(1000)).as_bytes());
        }
        system.provider.script([Step::Send(head)]);
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT).await;
        is_openai_error(&client.reply().await, 502, "upstream_unreachable");
        assert!(system.provider.sent() < 1 << 20, "{} bytes of head were read", system.provider.sent());
        assert_eq!(system.record().await.outcome, Outcome::Error);
    });
}

#[test]
fn ten_megabytes_of_headers_from_the_client_are_431_long_before_they_are_read() {
    run("", |system| async move {
        let mut head = format!("POST {CHAT_PATH} HTTP/1.1\r\nhost: sidecar\r\n").into_bytes();
        while head.len() < 10 << 20 {
            head.extend_from_slice(format!("x-header: {}\r\n", "y".repeat(1000)).as_bytes());
        }
        let mut client = system.client();
        // What is sent before the answer is read is discarded, so that the answer is not destroyed.
        client.push(&head[..128 * 1024]).await;
        is_openai_error(&client.reply().await, 431, "request_rejected");
        assert_eq!(system.provider.connections(), 0);
        assert!(system.records().await.is_empty());
    });
}

#[test]
fn an_upstreams_own_error_passes_unchanged_and_costs_nothing() {
    let body = r#"{"error":{"message":"Rate limit reached","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#;
    run("", |system| async move {
        let headers = [("content-type", "application/json"), ("retry-after", "7"), ("x-request-id", "req_9")];
        system.provider.reply(429, &headers, body.as_bytes());
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT).await;
        let reply = client.reply().await;
        assert_eq!(
            (reply.status(), reply.text().as_str(), reply.header("retry-after")),
            (429, body, Some("7"))
        );
        let record = system.record().await;
        assert_eq!((record.outcome, record.metering), (Outcome::Error, Metering::Never));
        assert_eq!((record.http_status, record.cost), (Some(429), None));
        assert_eq!(record.upstream_request_id.unwrap().as_str(), "req_9");
    });
}

#[test]
fn garbage_instead_of_json_passes_unchanged_and_is_marked() {
    for garbage in ["<html>oops</html>", "", "{\"usage\":{\"prompt_tokens\":5", "[[[[[[", "null"] {
        exchange(CHAT_PATH, CHAT, json_reply(garbage), move |reply, record| {
            assert_eq!((reply.status(), reply.text().as_str()), (200, garbage));
            assert_eq!(
                (record.outcome, record.usage_source),
                (Outcome::Ok, UsageSource::Absent),
                "{garbage:?}"
            );
            assert!(
                record.anomalies.contains(Anomaly::MalformedReply),
                "{garbage:?}: {:?}",
                record.anomalies
            );
            assert_eq!(record.usage.output_total(), None);
        });
    }
}

#[test]
fn json_200000_levels_deep_passes_and_nothing_overflows() {
    run("", |system| async move {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        system.provider.json(200, &deep);
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT).await;
        assert_eq!(client.reply().await.text(), deep);
        assert_eq!(system.record().await.usage_source, UsageSource::Absent);
    });
}

#[test]
fn counts_that_cannot_be_are_not_used_and_marked() {
    let invalid = ["-1", "1.5", "\"12\"", "18446744073709551615", "18446744073709551616", "1e300"];
    let implausible = ["675947905000", "9007199254740993"];
    let invalid = invalid.map(|count| (count, Anomaly::InvalidCount));
    let implausible = implausible.map(|count| (count, Anomaly::ImplausibleCount));
    for (count, anomaly) in invalid.into_iter().chain(implausible) {
        run("", |system| async move {
            let body =
                CHAT_REPLY.replace("\"completion_tokens\":500", &format!("\"completion_tokens\":{count}"));
            system.provider.json(200, &body);
            let mut client = system.client();
            client.post(CHAT_PATH, &[], CHAT).await;
            assert_eq!(client.reply().await.text(), body, "the client gets what the upstream sent");
            let record = system.record().await;
            assert!(record.anomalies.contains(anomaly), "{count}: {:?}", record.anomalies);
            assert_eq!(record.usage.input_total(), Some(1000), "{count}");
            assert!(record.usage.output_total().is_none_or(|n| n <= 500), "{count}: {:?}", record.usage);
            let status = record.cost.unwrap().status;
            assert_ne!(status, bursar_domain::CostStatus::Priced, "{count}: a wrong total is no total");
        });
    }
}

#[test]
fn malformed_json_in_a_request_is_the_upstreams_to_refuse_and_is_marked() {
    for body in ["{\"model\":\"gpt-4o-mini\",", "not json", "", "[1,2", "{\"model\": 5}", "{}", "\u{feff}{}"]
    {
        run("", |system| async move {
            let error = r#"{"error":{"message":"We could not parse the JSON body of your request.","type":"invalid_request_error","param":null,"code":null}}"#;
            system.provider.json(400, error);
            let mut client = system.client();
            client.post(CHAT_PATH, &[], body).await;
            let reply = client.reply().await;
            assert_eq!((reply.status(), reply.text().as_str()), (400, error), "{body:?}");
            assert_eq!(system.provider.request().body, body.as_bytes(), "what was sent is what arrives");
            let record = system.record().await;
            assert_eq!((record.outcome, record.metering), (Outcome::Error, Metering::Never));
            let is_malformed = serde_json::from_str::<serde_json::Value>(body).is_err();
            assert_eq!(record.anomalies.contains(Anomaly::MalformedRequest), is_malformed, "{body:?}");
        });
    }
}

#[test]
fn a_body_shorter_than_it_says_is_400_and_reaches_no_upstream() {
    run("", |system| async move {
        let mut client = system.client();
        let head = format!("POST {CHAT_PATH} HTTP/1.1\r\nhost: sidecar\r\ncontent-length: 500\r\n\r\n{CHAT}");
        client.send(head.as_bytes()).await;
        client.finish().await;
        // A client that still listens is told; one that has gone is not waited for.
        let rest = client.rest().await;
        if !rest.is_empty() {
            assert!(rest.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&rest));
        }
        assert_eq!(system.provider.connections(), 0);
        assert!(system.records().await.is_empty());
    });
}

#[test]
fn a_body_longer_than_it_says_is_answered_and_its_rest_refused() {
    run("", |system| async move {
        system.provider.json(200, CHAT_REPLY);
        let mut client = system.client();
        let head = format!(
            "POST {CHAT_PATH} HTTP/1.1\r\nhost: sidecar\r\ncontent-length: {}\r\n\r\n{CHAT}",
            CHAT.len() - 1
        );
        client.send(head.as_bytes()).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.text().as_str()), (200, CHAT_REPLY));
        is_openai_error(&client.reply().await, 400, "request_rejected");
        assert_eq!(system.provider.request().body, &CHAT.as_bytes()[..CHAT.len() - 1]);
        assert!(system.record().await.anomalies.contains(Anomaly::MalformedRequest));
    });
}

#[test]
fn a_broken_chunk_in_a_long_body_is_400_and_the_upstream_never_sees_an_end() {
    run("", |system| async move {
        system.provider.script([Step::Stall]);
        let mut client = system.client();
        client.begin(CHAT_PATH, &[]).await;
        client.chunk(&[b' '; 100_000]).await;
        client.send(b"zz\r\n").await;
        is_openai_error(&client.reply().await, 400, "request_rejected");
        assert!(client.closed().await);
        assert!(system.provider.received().is_empty());
        let record = system.record().await;
        assert_eq!((record.http_status, record.metering), (None, Metering::Never));
    });
}

#[test]
fn a_body_over_the_limit_is_413_whether_it_says_so_or_not() {
    let limit = "server: { limits: { body_bytes: 100KiB } }";
    run(limit, |system| async move {
        let mut client = system.client();
        client
            .send(
                format!("POST {CHAT_PATH} HTTP/1.1\r\nhost: sidecar\r\ncontent-length: 102401\r\n\r\n")
                    .as_bytes(),
            )
            .await;
        is_openai_error(&client.reply().await, 413, "request_rejected");

        system.provider.script([Step::Stall]);
        let mut client = system.client();
        client.begin(CHAT_PATH, &[]).await;
        client.chunk(&[b' '; 70_000]).await;
        client.chunk(&[b' '; 40_000]).await;
        let reply = client.reply().await;
        assert_eq!(reply.status(), 413);
        assert!(system.provider.received().is_empty(), "the upstream never takes it for complete");
        assert_eq!(system.record().await.http_status, None);
    });
}

#[test]
fn an_error_event_within_a_stream_passes_and_is_recorded() {
    run("", |system| async move {
        let error =
            "data: {\"error\":{\"message\":\"The server had an error\",\"type\":\"server_error\"}}\n\n";
        system.provider.sse(&[EVENT_ONE, error, EVENT_DONE]);
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT_STREAM).await;
        assert_eq!(client.reply().await.text(), [EVENT_ONE, error, EVENT_DONE].concat());
        let record = system.record().await;
        assert_eq!((record.outcome, record.http_status), (Outcome::ErrorMidstream, Some(200)));
    });
}

#[test]
fn an_unknown_path_is_404_and_an_unmetered_call_passes() {
    run("", |system| async move {
        let mut client = system.client();
        client.ask("GET", "/nowhere/v1/models", &[]).await;
        is_openai_error(&client.reply().await, 404, "no_route");
        system.provider.json(200, r#"{"object":"list","data":[]}"#);
        client.ask("GET", "/openai/v1/models?limit=2", &[]).await;
        assert_eq!(client.reply().await.status(), 200);
        assert_eq!(system.provider.request().line(), "GET /v1/models?limit=2 HTTP/1.1");
        let record = system.record().await;
        assert_eq!((record.api.as_str(), record.metering), ("unmetered", Metering::Never));
        assert_eq!(record.outcome, Outcome::Ok);
    });
}

#[test]
fn an_early_reply_to_a_body_still_being_sent_reaches_the_client_and_blocks_nobody_else() {
    run("", |system| async move {
        let too_large =
            r#"{"error":{"message":"too large","type":"invalid_request_error","param":null,"code":null}}"#;
        let answer =
            bursar_tests::provider::reply(413, &[("content-type", "application/json")], too_large.as_bytes());
        system.provider.script_early([Step::Send(answer)]);
        let mut slow = system.client();
        slow.begin("/other/v1/upload", &[]).await;
        slow.chunk(b"some of it").await;
        let reply = slow.reply().await;
        assert_eq!((reply.status(), reply.text().as_str()), (413, too_large));

        // The upload is not over, so its upstream connection cannot serve this one.
        system.provider.json(200, CHAT_REPLY);
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT).await;
        let reply = tokio::time::timeout(Duration::from_secs(5), client.reply()).await;
        assert_eq!(reply.expect("the second request waits for the first").status(), 200);
        assert_eq!(system.records().await.len(), 2);
    });
}

#[test]
fn a_client_that_reads_nothing_yet_can_finish_its_upload() {
    run("", |system| async move {
        // More than the sidecar may hold for a client that does not read, less than it takes with all
        // pipes full, so that the provider goes on to read the upload.
        let long = vec![b'x'; 220 * 1024];
        let answer = bursar_tests::provider::reply(200, &[("content-type", "text/plain")], &long);
        system.provider.script_early([Step::Send(answer)]);
        let mut client = system.client();
        client.begin("/other/v1/upload", &[]).await;
        let upload = [b"100000\r\n".as_slice(), &vec![b'y'; 0x10_0000], b"\r\n0\r\n\r\n"].concat();
        assert_eq!(client.push(&upload).await, upload.len(), "the upload stands still");
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.body.len()), (200, long.len()));
    });
}
