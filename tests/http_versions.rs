//! HTTP/2 on either side of the sidecar.

use crate::transcripts::{
    CHAT, CHAT_PATH, CHAT_REPLY, CHAT_STREAM, EVENT_DONE, EVENT_ONE, EVENT_TWO, EVENTS,
};
use bursar_domain::{Outcome, UsageSource};
use bursar_tests::http2::{Answer, post};
use bursar_tests::provider::SSE_HEAD;
use bursar_tests::{Step, chunk, run, until};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Frame;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;

const H2_PATH: &str = "/h2/v1/chat/completions";

fn data(text: &str) -> Frame<Bytes> {
    Frame::data(Bytes::from(text.to_owned()))
}

fn answer(content_type: &str, frames: Vec<Frame<Bytes>>) -> Answer {
    let head = Response::builder().header("content-type", content_type).body(()).unwrap();
    Answer { head, frames, breaks: false }
}

fn trailers(name: &'static str, value: &'static str) -> Frame<Bytes> {
    let mut map = HeaderMap::new();
    map.insert(name, HeaderValue::from_static(value));
    Frame::trailers(map)
}

#[test]
fn a_client_may_speak_http2() {
    run("", |system| async move {
        system.provider.json(200, CHAT_REPLY);
        let mut client = system.http2_client().await;
        let reply = client.send(post(CHAT_PATH, &[("x-bursar-team", "a")], CHAT)).await;
        assert_eq!((reply.head.status().as_u16(), reply.whole), (200, true));
        assert_eq!(reply.body, CHAT_REPLY.as_bytes());
        let id = reply.head.headers()["x-bursar-request-id"].to_str().unwrap().to_owned();
        let request = system.provider.request();
        assert_eq!(request.line(), "POST /v1/chat/completions HTTP/1.1");
        assert_eq!(request.header("host"), Some("provider.test"));
        assert_eq!(request.body, CHAT.as_bytes());
        let record = system.record().await;
        assert_eq!((record.id.to_string(), record.usage.output_total()), (id, Some(500)));
    });
}

#[test]
fn streams_of_one_http2_connection_do_not_wait_for_each_other() {
    run("", |system| async move {
        let go_on = Rc::new(Notify::new());
        system.provider.script([
            Step::Send(SSE_HEAD.to_vec()),
            Step::Send(chunk(EVENT_ONE.as_bytes())),
            Step::Until(go_on.clone()),
            Step::Send(chunk(EVENT_DONE.as_bytes())),
            Step::Send(b"0\r\n\r\n".to_vec()),
        ]);
        let client = system.http2_client().await;
        let mut slow = client.clone();
        let slow =
            tokio::task::spawn_local(async move { slow.send(post(CHAT_PATH, &[], CHAT_STREAM)).await });
        let provider = system.provider.clone();
        until("the slow one is under way", || provider.received().len() == 1).await;
        let mut quick = client.clone();
        for _ in 0..3 {
            system.provider.json(200, CHAT_REPLY);
            assert_eq!(quick.send(post(CHAT_PATH, &[], CHAT)).await.body, CHAT_REPLY.as_bytes());
        }
        go_on.notify_one();
        assert_eq!(slow.await.unwrap().body, [EVENT_ONE, EVENT_DONE].concat().as_bytes());
        assert_eq!(system.records().await.len(), 4);
    });
}

#[test]
fn a_cancelled_http2_stream_cancels_its_upstream_and_leaves_a_record() {
    run("", |system| async move {
        system.provider.script([
            Step::Send(SSE_HEAD.to_vec()),
            Step::Send(chunk(EVENT_ONE.as_bytes())),
            Step::Stall,
        ]);
        let mut client = system.http2_client().await;
        let response = client.open(post(CHAT_PATH, &[], CHAT_STREAM)).await.unwrap();
        assert_eq!(response.status(), 200);
        drop(response);
        let provider = system.provider.clone();
        until("the upstream connection is closed", || provider.open() == 0).await;
        system.provider.json(200, CHAT_REPLY);
        assert_eq!(
            client.send(post(CHAT_PATH, &[], CHAT)).await.head.status(),
            200,
            "the connection lives on"
        );
        let records = system.records().await;
        assert_eq!(records.len(), 2);
        let outcomes: Vec<_> = records.iter().map(|r| (r.record.outcome, r.record.http_status)).collect();
        assert!(outcomes.contains(&(Outcome::Aborted, Some(200))), "{outcomes:?}");
    });
}

#[test]
fn an_upstream_cut_resets_the_http2_stream_alone() {
    run("", |system| async move {
        system.provider.script([
            Step::Send(SSE_HEAD.to_vec()),
            Step::Send(chunk(EVENT_ONE.as_bytes())),
            Step::Close,
        ]);
        let mut client = system.http2_client().await;
        let reply = client.send(post(CHAT_PATH, &[], CHAT_STREAM)).await;
        assert!(!reply.whole, "the client must not take it for the whole");
        system.provider.refuse();
        let reply = client.send(post(CHAT_PATH, &[], CHAT)).await;
        assert_eq!(reply.head.status(), 502);
        let error: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(error["error"]["code"], "upstream_unreachable");
        let records = system.records().await;
        // The cut stream's tokens are counted first, so its record may come second.
        let mut outcomes: Vec<_> = records.iter().map(|r| r.record.outcome.name()).collect();
        outcomes.sort_unstable();
        assert_eq!(outcomes, ["error", "error_midstream"]);
    });
}

#[test]
fn http2_requests_meet_the_same_strict_rules() {
    run("", |system| async move {
        let mut client = system.http2_client().await;
        for (path, name, value, status) in [
            ("/openai/../x", "a", "b", 400),
            ("/openai//x", "a", "b", 400),
            ("/openai/v1/%2e%2e/x", "a", "b", 400),
            ("/openai/v1/x", "x_bursar_team", "a", 400),
            ("/openai/v1/x", "host", "other.test", 400),
            ("/nowhere", "a", "b", 404),
        ] {
            let reply = client.send(post(path, &[(name, value)], "{}")).await;
            assert_eq!(reply.head.status().as_u16(), status, "{path} {name}: {value}");
        }
        assert_eq!(system.provider.connections(), 0);
        assert!(system.records().await.is_empty());
    });
}

#[test]
fn an_upstream_may_speak_http2_and_its_connection_is_shared() {
    run("", |system| async move {
        let mut client = system.client();
        for _ in 0..3 {
            system.http2_provider.answer(answer("application/json", vec![data(CHAT_REPLY)]));
            client.post(H2_PATH, &[("connection", "keep-alive"), ("keep-alive", "timeout=5")], CHAT).await;
            assert_eq!(client.reply().await.text(), CHAT_REPLY);
        }
        let received = system.http2_provider.received();
        assert_eq!((received.len(), system.http2_provider.connections()), (3, 1));
        let request = &received[0];
        assert_eq!(request.head.version(), Version::HTTP_2);
        assert_eq!(request.head.uri().to_string(), "http://h2.test/v1/chat/completions");
        assert_eq!(request.body, CHAT.as_bytes());
        let records = system.records().await;
        assert_eq!(records.len(), 3);
        assert!(records.iter().all(|r| r.record.usage.output_total() == Some(500)));
    });
}

#[test]
fn a_stream_of_an_http2_upstream_is_metered_and_its_usage_chunk_hidden() {
    run("", |system| async move {
        let frames = EVENTS.iter().map(|event| data(event)).collect();
        system.http2_provider.answer(answer("text/event-stream", frames));
        let mut client = system.client();
        client.post(H2_PATH, &[], CHAT_STREAM).await;
        let reply = client.reply().await;
        assert_eq!(reply.text(), [EVENT_ONE, EVENT_TWO, EVENT_DONE].concat());
        assert!(reply.whole);
        let record = system.record().await;
        assert_eq!((record.outcome, record.usage_source), (Outcome::Ok, UsageSource::Provider));
    });
}

#[test]
fn a_stream_that_an_http2_upstream_resets_is_cut_for_the_client() {
    run("", |system| async move {
        let mut broken = answer("text/event-stream", vec![data(EVENT_ONE)]);
        broken.breaks = true;
        system.http2_provider.answer(broken);
        let mut client = system.client();
        client.post(H2_PATH, &[], CHAT_STREAM).await;
        let reply = client.reply().await;
        assert_eq!((reply.text().as_str(), reply.whole), (EVENT_ONE, false));
        assert_eq!(system.record().await.outcome, Outcome::ErrorMidstream);
    });
}

#[test]
fn trailers_pass_from_http2_to_http2() {
    run("", |system| async move {
        let frames = vec![data("reply"), trailers("x-checksum", "def")];
        system.http2_provider.answer(answer("text/plain", frames));
        let mut client = system.http2_client().await;
        let request = Request::post("http://sidecar/h2/v1/other")
            .header("te", "trailers")
            .body(vec![data("request"), trailers("x-digest", "abc")])
            .unwrap();
        let reply = client.send(request).await;
        assert_eq!(reply.body, b"reply");
        assert_eq!(reply.trailers.unwrap()["x-checksum"], "def");
        let received = system.http2_provider.received();
        assert_eq!(received[0].body, b"request");
        assert_eq!(received[0].trailers.as_ref().unwrap()["x-digest"], "abc");
    });
}

#[test]
fn trailers_that_an_http1_upstream_did_not_announce_reach_http2_clients_and_cost_http1_ones_nothing() {
    let mut answered =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    answered.extend(bursar_tests::chunk(CHAT_REPLY.as_bytes()));
    answered.extend(b"0\r\nx-checksum: def\r\n\r\n");
    run("", |system| async move {
        system.provider.script([Step::Send(answered.clone())]);
        let mut client = system.http2_client().await;
        let reply = client.send(post(CHAT_PATH, &[("te", "trailers")], CHAT)).await;
        assert_eq!(reply.body, CHAT_REPLY.as_bytes());
        assert_eq!(reply.trailers.unwrap()["x-checksum"], "def");

        let mut client = system.client();
        for _ in 0..2 {
            system.provider.script([Step::Send(answered.clone())]);
            client.post(CHAT_PATH, &[("te", "trailers")], CHAT).await;
            let reply = client.reply().await;
            assert_eq!((reply.text().as_str(), reply.trailers.as_str(), reply.whole), (CHAT_REPLY, "", true));
        }
        let records = system.records().await;
        assert!(records.iter().all(|r| r.record.usage.output_total() == Some(500)));
    });
}

#[test]
fn an_http2_client_that_does_not_read_stops_the_upstream() {
    run("", |system| async move {
        let total = 32 << 20;
        system.provider.reply(200, &[], &vec![b'x'; total]);
        let mut client = system.http2_client().await;
        let response = client.open(post("/other/v1/big", &[], "{}")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let ahead = system.provider.sent();
        // The client's own window (2 MiB by hyper's default), and what the sidecar holds.
        assert!(ahead < 4 << 20, "{ahead} bytes were taken from the upstream for nobody");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), total);
        assert_eq!(system.record().await.outcome, Outcome::Ok);
    });
}

/// A request with a body in two pieces and a trailer that its head does not announce.
fn with_trailers(path: &str, body: &str) -> Request<Vec<Frame<Bytes>>> {
    let (first, rest) = body.split_at(body.len() / 2);
    Request::post(format!("http://sidecar{path}"))
        .header("te", "trailers")
        .body(vec![data(first), data(rest), trailers("x-digest", "abc")])
        .unwrap()
}

#[test]
fn trailers_of_a_metered_request_pass_from_http2_to_either_version() {
    run("", |system| async move {
        let mut client = system.http2_client().await;
        system.http2_provider.answer(answer("application/json", vec![data(CHAT_REPLY)]));
        assert_eq!(client.send(with_trailers(H2_PATH, CHAT)).await.head.status(), 200);
        let received = system.http2_provider.received();
        assert_eq!(received[0].body, CHAT.as_bytes());
        assert_eq!(received[0].trailers.as_ref().unwrap()["x-digest"], "abc");

        system.provider.json(200, CHAT_REPLY);
        assert_eq!(client.send(with_trailers(CHAT_PATH, CHAT)).await.head.status(), 200);
        let request = system.provider.request();
        assert_eq!(
            (request.body.as_slice(), request.trailers.as_str()),
            (CHAT.as_bytes(), "x-digest: abc\r\n")
        );
        assert_eq!(request.header("trailer"), Some("x-digest"));
        let records = system.records().await;
        assert!(records.iter().all(|r| r.record.usage.output_total() == Some(500)));
    });
}

#[test]
fn trailers_follow_a_metered_stream_request_of_any_size_whole_and_rewritten() {
    let large = format!(r#"{{"model":"gpt-4o-mini","stream":true,"user":"{}"}}"#, "x".repeat(100 * 1024));
    for body in [CHAT_STREAM, &large] {
        run("", |system| async move {
            system.provider.sse(&EVENTS);
            let mut client = system.client();
            client.begin(CHAT_PATH, &[("trailer", "x-digest")]).await;
            for piece in body.as_bytes().chunks(30_000) {
                client.chunk(piece).await;
            }
            client.send(b"0\r\nx-digest: abc\r\n\r\n").await;
            assert_eq!(client.reply().await.text(), [EVENT_ONE, EVENT_TWO, EVENT_DONE].concat());
            let request = system.provider.request();
            assert_eq!(request.trailers, "x-digest: abc\r\n");
            let sent = request.json();
            assert_eq!(sent["stream_options"]["include_usage"], true);
            assert_eq!(system.record().await.usage_source, UsageSource::Provider);
        });
    }
}

#[test]
fn trailers_of_a_metered_request_carry_neither_identity_nor_credentials() {
    run("", |system| async move {
        system.provider.json(200, CHAT_REPLY);
        let mut client = system.client();
        client.begin(CHAT_PATH, &[("trailer", "x-digest")]).await;
        client.chunk(CHAT.as_bytes()).await;
        client.send(b"0\r\nx-bursar-team: a\r\n\r\n").await;
        assert_eq!(client.reply().await.status(), 400, "the guard refuses them in HTTP/1.1");
        let mut client = system.http2_client().await;
        let mut map = HeaderMap::new();
        map.insert("x-bursar-team", HeaderValue::from_static("a"));
        map.insert("authorization", HeaderValue::from_static("Bearer x"));
        let request = Request::post(format!("http://sidecar{CHAT_PATH}"));
        let request = request.body(vec![data(CHAT), Frame::trailers(map)]).unwrap();
        assert_eq!(client.send(request).await.head.status(), 200);
        let request = system.provider.request();
        assert_eq!((request.trailers.as_str(), request.header("trailer")), ("", None));
    });
}

#[test]
fn trailers_of_a_metered_reply_pass_with_and_without_its_cost_in_the_head() {
    for prefix in ["/openai", "/costly"] {
        run("", |system| async move {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\ntrailer: x-checksum\r\n\r\n";
            let reply =
                [head.as_bytes(), &chunk(CHAT_REPLY.as_bytes()), b"0\r\nx-checksum: def\r\n\r\n"].concat();
            let path = format!("{prefix}/v1/chat/completions");
            system.provider.script([Step::Send(reply.clone())]);
            let mut client = system.client();
            client.post(&path, &[("te", "trailers")], CHAT).await;
            let got = client.reply().await;
            assert_eq!((got.text().as_str(), got.trailers.as_str()), (CHAT_REPLY, "x-checksum: def\r\n"));
            assert_eq!(got.header("x-bursar-cost").is_some(), prefix == "/costly");

            system.provider.script([Step::Send(reply)]);
            let mut client = system.http2_client().await;
            let got = client.send(post(&path, &[("te", "trailers")], CHAT)).await;
            assert_eq!((got.body.as_slice(), got.whole), (CHAT_REPLY.as_bytes(), true));
            assert_eq!(got.trailers.unwrap()["x-checksum"], "def");
            assert_eq!(system.records().await.len(), 2);
        });
    }
}
