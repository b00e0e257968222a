//! Bytes pass as they come, in both directions, and whoever is slow slows the other side.

use crate::transcripts::{
    CHAT, CHAT_PATH, CHAT_STREAM, EVENT_DONE, EVENT_ONE, EVENT_TWO, EVENT_USAGE, EVENTS,
};
use bursar_domain::{Anomaly, Outcome, UsageSource};
use bursar_tests::provider::SSE_HEAD;
use bursar_tests::{Step, chunk, run, until};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;

/// Twice the in-memory pipes (64 KiB each side), hyper's buffers on both sides and some room. What a
/// slow peer can make the sidecar hold must be below this, however much is to come.
const AHEAD_MAX: usize = 1024 * 1024;

#[test]
fn an_event_reaches_the_client_before_the_upstream_has_sent_the_next() {
    run("", |system| async move {
        let go_on = Rc::new(Notify::new());
        system.provider.script([
            Step::Send(SSE_HEAD.to_vec()),
            Step::Send(chunk(EVENT_ONE.as_bytes())),
            Step::Until(go_on.clone()),
            Step::Send(chunk(EVENT_TWO.as_bytes())),
            Step::Until(go_on.clone()),
            Step::Send(chunk(EVENT_USAGE.as_bytes())),
            Step::Send(chunk(EVENT_DONE.as_bytes())),
            Step::Send(b"0\r\n\r\n".to_vec()),
        ]);
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT_STREAM).await;
        assert!(client.sees("Hel").await);
        go_on.notify_one();
        assert!(client.sees("lo.").await);
        go_on.notify_one();
        assert!(client.sees("[DONE]").await);
        let record = system.record().await;
        assert_eq!((record.outcome, record.usage_source), (Outcome::Ok, UsageSource::Provider));
        assert!(record.stream);
    });
}

#[test]
fn a_reply_without_a_length_passes_as_it_comes() {
    run("", |system| async move {
        let go_on = Rc::new(Notify::new());
        system.provider.script([
            Step::Send(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\none\n".to_vec()),
            Step::Until(go_on.clone()),
            Step::Send(b"two\n".to_vec()),
            Step::Close,
        ]);
        let mut client = system.client();
        client.post("/other/v1/anything", &[], "{}").await;
        assert!(client.sees("one").await);
        go_on.notify_one();
        assert!(client.sees("two").await);
        assert!(client.sees("0\r\n\r\n").await);
        let record = system.record().await;
        assert_eq!((record.outcome, record.bytes_out), (Outcome::Ok, 8));
    });
}

#[test]
fn a_request_body_reaches_the_upstream_before_the_client_has_sent_its_end() {
    run("", |system| async move {
        system.provider.json(200, "{}");
        let mut client = system.client();
        client.begin("/openai/v1/files", &[]).await;
        client.chunk(b"first piece").await;
        let provider = system.provider.clone();
        until("the first piece arrives", || provider.has_seen("first piece")).await;
        assert!(system.provider.received().is_empty());
        client.chunk(b", second piece").await;
        client.chunk(b"").await;
        assert_eq!(client.reply().await.status(), 200);
        assert_eq!(system.provider.request().body, b"first piece, second piece");
        assert_eq!(system.record().await.bytes_in, 25);
    });
}

#[test]
fn a_metered_request_streams_behind_its_first_64_kib() {
    run("", |system| async move {
        system.provider.json(200, "{}");
        let mut client = system.client();
        client.begin("/silent/v1/chat/completions", &[]).await;
        let piece = vec![b' '; 16 * 1024];
        for _ in 0..3 {
            client.chunk(&piece).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(system.provider.arrived(), 0, "48 KiB are held for a look");
        client.chunk(&piece).await;
        let provider = system.provider.clone();
        until("all of the 64 KiB pass", || provider.arrived() > 64 * 1024).await;
        client.chunk(CHAT.as_bytes()).await;
        client.chunk(b"").await;
        assert_eq!(client.reply().await.status(), 200);
        let record = system.record().await;
        assert_eq!(record.model_requested.unwrap().as_str(), "gpt-4o-mini");
        assert_eq!(record.bytes_in, 64 * 1024 + CHAT.len() as u64);
    });
}

#[test]
fn a_client_that_does_not_read_stops_the_upstream() {
    run("server: { timeouts: { write_idle: 2h } }", |system| async move {
        let total = 16 * 1024 * 1024;
        let mut reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {total}\r\n\r\n").into_bytes();
        reply.resize(reply.len() + total, b'x');
        let length = reply.len();
        system.provider.script([Step::Send(reply)]);
        let mut client = system.client();
        client.post("/other/v1/big", &[], "{}").await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let ahead = system.provider.sent();
        assert!(ahead < AHEAD_MAX, "{ahead} bytes were taken from the upstream for nobody");
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(system.provider.sent(), ahead, "and it stays so");

        let reply = client.reply().await;
        assert!(reply.whole);
        assert_eq!((reply.body.len(), system.provider.sent()), (total, length));
        assert_eq!(system.record().await.outcome, Outcome::Ok);
    });
}

#[test]
fn an_upstream_that_does_not_read_stops_the_client() {
    run("", |system| async move {
        let go_on = Rc::new(Notify::new());
        let answer = bursar_tests::provider::reply(200, &[], b"{}");
        system.provider.script_late(Step::Until(go_on.clone()), [Step::Send(answer)]);
        let total = 16 * 1024 * 1024;
        let mut client = system.client();
        let head =
            format!("POST /other/v1/upload HTTP/1.1\r\nhost: sidecar\r\ncontent-length: {total}\r\n\r\n");
        client.send(head.as_bytes()).await;
        let body = vec![b'x'; total];
        let taken = client.push(&body).await;
        assert!(taken < AHEAD_MAX, "{taken} bytes were taken from the client for nobody");
        go_on.notify_one();
        assert!(client.try_send(&body[taken..]).await);
        assert_eq!(client.reply().await.status(), 200);
        assert_eq!(system.record().await.bytes_in, total as u64);
    });
}

#[test]
fn a_line_without_an_end_passes_as_it_comes_and_is_not_held() {
    run("", |system| async move {
        const PIECES: usize = 32;
        let piece = vec![b'x'; 256 * 1024];
        let mut steps =
            vec![Step::Send(SSE_HEAD.to_vec()), Step::Send(chunk(b"data: {\"choices\":[{\"delta\":\""))];
        steps.extend((0..PIECES).map(|_| Step::Send(chunk(&piece))));
        steps.push(Step::Send(chunk(b"\"}}],\"usage\":null}\n\n")));
        steps.push(Step::Send(chunk(EVENT_USAGE.as_bytes())));
        steps.push(Step::Send(chunk(EVENT_DONE.as_bytes())));
        steps.push(Step::Send(b"0\r\n\r\n".to_vec()));
        system.provider.script(steps);
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT_STREAM).await;
        let mut received = 0;
        while received < PIECES * piece.len() {
            let bytes = client.raw(64 * 1024).await;
            assert!(!bytes.is_empty(), "the stream ended early");
            received += bytes.len();
            let ahead = system.provider.sent().saturating_sub(received);
            assert!(ahead < AHEAD_MAX, "{ahead} bytes are held");
        }
        assert!(client.sees("[DONE]").await);
        let record = system.record().await;
        assert_eq!((record.outcome, record.usage.output_total()), (Outcome::Ok, Some(500)));
        assert!(record.anomalies.contains(Anomaly::MeteringCapped), "{:?}", record.anomalies);
    });
}

#[test]
fn a_stream_in_one_write_is_one_whole_reply() {
    run("", |system| async move {
        let mut all = SSE_HEAD.to_vec();
        for event in EVENTS {
            all.extend(chunk(event.as_bytes()));
        }
        all.extend(b"0\r\n\r\n");
        system.provider.script([Step::Send(all)]);
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT_STREAM).await;
        let reply = client.reply().await;
        assert_eq!(reply.text(), [EVENT_ONE, EVENT_TWO, EVENT_DONE].concat());
        assert!(reply.whole);
        assert_eq!(system.record().await.usage.output_total(), Some(500));
    });
}
