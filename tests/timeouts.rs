//! Deadlines on both sides, in paused time.

use crate::transcripts::{CHAT, CHAT_PATH, CHAT_REPLY, CHAT_STREAM, EVENT_ONE, MESSAGES, MESSAGES_PATH};
use bursar::upstream::{Connector, TlsSetup};
use bursar_domain::{Metering, Outcome, UsageSource};
use bursar_tests::frames::{END_STREAM, kind};
use bursar_tests::provider::{SSE_HEAD, reply};
use bursar_tests::{Client, Setup, Step, System, chunk, run, until};
use std::time::Duration;
use tokio::time::Instant;

const UPSTREAM: &str = "upstream: { response_head: 20s, idle: 10s, connect: 3s }";

/// How long, in paused time, it takes until the sidecar closes the connection.
async fn closes_after(client: &mut Client) -> Duration {
    let start = Instant::now();
    client.rest().await;
    start.elapsed()
}

fn about(time: Duration, seconds: u64) {
    // The sweeper looks four times a second.
    let expected = Duration::from_secs(seconds);
    assert!(time >= expected && time <= expected + Duration::from_millis(500), "{time:?} is not {seconds} s");
}

#[test]
fn an_upstream_that_never_answers_is_504_in_each_providers_shape() {
    for (path, body) in [(CHAT_PATH, CHAT), (MESSAGES_PATH, MESSAGES)] {
        run(UPSTREAM, |system| async move {
            system.provider.script([Step::Stall]);
            let mut client = system.client();
            let start = Instant::now();
            client.post(path, &[], body).await;
            let reply = client.reply().await;
            about(start.elapsed(), 20);
            assert_eq!(reply.status(), 504);
            let body = reply.json();
            if path == CHAT_PATH {
                assert_eq!(
                    (&body["error"]["code"], &body["error"]["type"]),
                    (&"upstream_timeout".into(), &"server_error".into())
                );
            } else {
                assert_eq!(
                    (&body["type"], &body["error"]["type"]),
                    (&"error".into(), &"timeout_error".into())
                );
            }
            let message = body["error"]["message"].as_str().unwrap();
            assert!(message.contains("20s") && message.contains("response_head"), "{message}");
            let provider = system.provider.clone();
            until("the upstream connection is closed", || provider.open() == 0).await;
            let record = system.record().await;
            assert_eq!((record.outcome, record.http_status), (Outcome::Error, None));
            assert_eq!((record.metering, record.usage_source), (Metering::Never, UsageSource::Absent));
        });
    }
}

#[test]
fn the_wait_for_the_head_begins_when_the_request_has_been_sent() {
    run(UPSTREAM, |system| async move {
        system.provider.script([
            Step::Wait(Duration::from_secs(15)),
            Step::Send(reply(200, &[], CHAT_REPLY.as_bytes())),
        ]);
        let mut client = system.client();
        client.begin("/other/v1/upload", &[]).await;
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(15)).await;
            client.chunk(&[b'x'; 2048]).await;
        }
        client.chunk(b"").await;
        assert_eq!(client.reply().await.status(), 200, "45 s of upload are no silence of the upstream");
    });
}

#[test]
fn a_reply_that_falls_silent_is_cut_after_the_idle_time() {
    run(UPSTREAM, |system| async move {
        system.provider.script([
            Step::Send(SSE_HEAD.to_vec()),
            Step::Wait(Duration::from_secs(9)),
            Step::Send(chunk(EVENT_ONE.as_bytes())),
            Step::Stall,
        ]);
        let mut client = system.client();
        let start = Instant::now();
        client.post(CHAT_PATH, &[], CHAT_STREAM).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.whole, reply.text().as_str()), (200, false, EVENT_ONE));
        // The timer is re-armed lazily: between one and two times the idle time after the last byte.
        let elapsed = start.elapsed();
        assert!(elapsed >= Duration::from_secs(19) && elapsed <= Duration::from_secs(30), "{elapsed:?}");
        let provider = system.provider.clone();
        until("the upstream connection is closed", || provider.open() == 0).await;
        assert_eq!(system.record().await.outcome, Outcome::ErrorMidstream);
    });
}

#[test]
fn a_slow_reply_that_goes_on_is_never_cut() {
    run(UPSTREAM, |system| async move {
        let mut steps = vec![Step::Send(SSE_HEAD.to_vec())];
        for _ in 0..100 {
            steps.push(Step::Wait(Duration::from_secs(9)));
            steps.push(Step::Send(chunk(b": keep-alive\n\n")));
        }
        steps.push(Step::Send(chunk(b"data: [DONE]\n\n")));
        steps.push(Step::Send(b"0\r\n\r\n".to_vec()));
        system.provider.script(steps);
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT_STREAM).await;
        let reply = client.reply().await;
        assert!(reply.whole);
        assert_eq!(system.record().await.outcome, Outcome::Ok);
    });
}

#[test]
fn a_client_that_reads_slowly_is_no_silence_of_the_upstream() {
    run(UPSTREAM, |system| async move {
        let body = vec![b'x'; 4 << 20];
        system.provider.reply(200, &[], &body);
        let mut client = system.client();
        client.post("/other/v1/big", &[], "{}").await;
        tokio::time::sleep(Duration::from_secs(300)).await;
        let reply = client.reply().await;
        assert_eq!((reply.whole, reply.body.len()), (true, body.len()));
    });
}

#[test]
fn a_connection_that_takes_too_long_is_504() {
    // A TCP listener that never speaks TLS.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = format!("https://{}", listener.local_addr().unwrap());
    let mut setup = Setup::new(UPSTREAM);
    setup.routes = format!(
        "builtin_routes: false\nroutes:\n  - {{ prefix: /openai, upstream: '{upstream}', provider: openai }}\n"
    );
    setup.connector = Some(Connector::Network(TlsSetup::load(None).unwrap()));
    setup.run(|system| async move {
        let mut client = system.client();
        let start = Instant::now();
        client.post(CHAT_PATH, &[], CHAT).await;
        let reply = client.reply().await;
        about(start.elapsed(), 3);
        assert_eq!(reply.status(), 504);
        assert!(reply.text().contains("no connection to 127.0.0.1"), "{}", reply.text());
        let record = system.record().await;
        assert_eq!((record.outcome, record.http_status), (Outcome::Error, None));
    });
    drop(listener);
}

#[test]
fn a_client_that_says_nothing_is_closed_after_five_seconds() {
    run("", |system| async move {
        about(closes_after(&mut system.client()).await, 5);
        assert_eq!(system.metric("bursar_connection_deadlines_total"), 1);
    });
}

#[test]
fn a_head_that_trickles_is_408_after_five_seconds() {
    run("", |system| async move {
        let mut client = system.client();
        let start = Instant::now();
        for byte in "POST /openai/v1/chat".bytes() {
            if !client.try_send(&[byte]).await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        let reply = client.reply().await;
        assert!(start.elapsed() < Duration::from_secs(9));
        assert_eq!((reply.status(), reply.header("connection")), (408, Some("close")));
        assert!(client.closed().await);
    });
}

#[test]
fn half_an_http2_preface_is_closed_after_five_seconds() {
    run("", |system| async move {
        let mut client = system.client();
        client.send(b"PRI * HTTP/2.0\r\n").await;
        about(closes_after(&mut client).await, 5);
    });
}

#[test]
fn a_body_that_stalls_or_trickles_is_408_after_thirty_seconds() {
    for trickles in [false, true] {
        run("", |system| async move {
            let mut client = system.client();
            client
                .send(
                    format!("POST {CHAT_PATH} HTTP/1.1\r\nhost: sidecar\r\ncontent-length: 1000\r\n\r\n{{")
                        .as_bytes(),
                )
                .await;
            let start = Instant::now();
            let reply = if trickles {
                loop {
                    if !client.hears_nothing_for(Duration::from_secs(1)).await {
                        break client.reply().await;
                    }
                    client.try_send(b" ").await;
                }
            } else {
                client.reply().await
            };
            about(start.elapsed(), 30);
            assert_eq!(reply.status(), 408);
            assert_eq!(system.provider.connections(), 0);
            assert!(system.records().await.is_empty());
        });
    }
}

#[test]
fn an_idle_connection_is_closed_after_a_minute_and_not_during_an_exchange() {
    run("", |system| async move {
        system.provider.script([
            Step::Wait(Duration::from_secs(300)),
            Step::Send(reply(200, &[], CHAT_REPLY.as_bytes())),
        ]);
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT).await;
        assert_eq!(client.reply().await.status(), 200, "five minutes of thought are no idling");
        about(closes_after(&mut client).await, 60);
    });
}

#[test]
fn an_idle_http2_connection_is_closed_after_a_minute() {
    run("", |system| async move {
        system.provider.json(200, CHAT_REPLY);
        let mut client = system.http2_client().await;
        assert_eq!(client.send(bursar_tests::http2::post(CHAT_PATH, &[], CHAT)).await.head.status(), 200);
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert_eq!(system.metric("bursar_connections"), 1);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(system.metric("bursar_connections"), 0);
    });
}

/// A reply that never fits into what a client takes without reading.
fn endless(system: &System) {
    system.provider.reply(200, &[], &vec![b'x'; 8 << 20]);
}

#[test]
fn a_client_that_stops_reading_is_cut_after_ten_minutes_and_recorded_as_aborted() {
    run("", |system| async move {
        endless(&system);
        let mut client = system.client();
        client.post("/other/v1/big", &[], "{}").await;
        assert!(client.head().await.is_some());
        let provider = system.provider.clone();
        tokio::time::sleep(Duration::from_secs(595)).await;
        assert_eq!((system.metric("bursar_connections"), provider.open()), (1, 1));
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(system.metric("bursar_connections"), 0);
        until("the upstream connection is closed", || provider.open() == 0).await;
        assert!(!client.rest().await.is_empty(), "what it had not read yet is still there");
        assert_eq!(system.metric("bursar_connection_deadlines_total"), 1);
        assert_eq!(system.record().await.outcome, Outcome::Aborted);
    });
}

#[test]
fn a_client_that_reads_a_little_now_and_then_is_not_cut() {
    run("server: { timeouts: { write_idle: 10s } }", |system| async move {
        endless(&system);
        let mut client = system.client();
        client.post("/other/v1/big", &[], "{}").await;
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(9)).await;
            assert!(client.raw(32 * 1024).await.len() >= 32 * 1024, "it was cut");
        }
        assert_eq!(system.metric("bursar_connections"), 1);
    });
}

#[test]
fn an_upstream_that_thinks_is_no_client_that_stops_reading() {
    run("server: { timeouts: { write_idle: 10s } }", |system| async move {
        for frame_by_frame in [false, true] {
            system.provider.script([
                Step::Send(SSE_HEAD.to_vec()),
                Step::Send(chunk(EVENT_ONE.as_bytes())),
                Step::Wait(Duration::from_secs(200)),
                Step::Send(chunk(b"data: [DONE]\n\n")),
                Step::Send(b"0\r\n\r\n".to_vec()),
            ]);
            if frame_by_frame {
                let mut client = system.http2_client().await;
                let reply = client.send(bursar_tests::http2::post(CHAT_PATH, &[], CHAT_STREAM)).await;
                assert!(reply.whole);
            } else {
                let mut client = system.client();
                client.post(CHAT_PATH, &[], CHAT_STREAM).await;
                assert!(client.reply().await.whole);
            }
        }
        assert_eq!(system.records().await.len(), 2);
    });
}

#[test]
fn an_http2_stream_that_is_not_read_is_reset_and_the_others_go_on() {
    run("server: { timeouts: { write_idle: 10s } }", |system| async move {
        endless(&system);
        // Windows of 64 KiB for each stream, and room for more on the connection.
        let mut client = system.frames(&[]).await;
        client.send(kind::WINDOW_UPDATE, 0, 0, &(1_u32 << 20).to_be_bytes()).await;
        client.post(1, "/other/v1/big").await;
        client.send(kind::DATA, END_STREAM, 1, b"{}").await;
        let start = Instant::now();
        for stream in [3, 5, 7] {
            system.provider.json(200, CHAT_REPLY);
            client.post(stream, CHAT_PATH).await;
            client.send(kind::DATA, END_STREAM, stream, CHAT.as_bytes()).await;
            while client.until(kind::DATA).await.unwrap().stream != stream {}
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let reset = client.until(kind::RST_STREAM).await.expect("the connection has ended");
        // CANCEL
        assert_eq!((reset.stream, reset.payload.as_slice()), (1, [0, 0, 0, 8].as_slice()));
        about(start.elapsed(), 10);
        let provider = system.provider.clone();
        until("the stream's upstream connection is closed", || provider.open() == 1).await;
        assert_eq!(system.metric("bursar_connection_deadlines_total"), 1);
        system.provider.json(200, CHAT_REPLY);
        client.post(9, CHAT_PATH).await;
        client.send(kind::DATA, END_STREAM, 9, CHAT.as_bytes()).await;
        assert_eq!(client.until(kind::HEADERS).await.unwrap().stream, 9);
        while client.until(kind::DATA).await.unwrap().flags & END_STREAM == 0 {}
        let mut outcomes: Vec<_> = system.records().await.iter().map(|r| r.record.outcome).collect();
        outcomes.sort_by_key(|outcome| *outcome == Outcome::Aborted);
        assert_eq!(outcomes, [Outcome::Ok, Outcome::Ok, Outcome::Ok, Outcome::Ok, Outcome::Aborted]);
    });
}

#[test]
fn an_http2_client_that_reads_nothing_at_all_is_cut_and_leaves_a_record_for_each_stream() {
    run("server: { timeouts: { write_idle: 10s } }", |system| async move {
        // No window at all, as a client says that wants to hold many replies open.
        let mut client = system.frames(&[(4, 0)]).await;
        for stream in [1, 3, 5] {
            endless(&system);
            client.post(stream, "/other/v1/big").await;
            client.send(kind::DATA, END_STREAM, stream, b"{}").await;
        }
        tokio::time::sleep(Duration::from_secs(12)).await;
        let provider = system.provider.clone();
        until("the upstream connections are closed", || provider.open() == 0).await;
        let resets = async {
            for _ in 0..3 {
                client.until(kind::RST_STREAM).await.unwrap();
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(1), resets).await.is_ok());
        let records = system.records().await;
        assert!(records.len() == 3 && records.iter().all(|r| r.record.outcome == Outcome::Aborted));
    });
}
