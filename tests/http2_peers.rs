//! HTTP/2 peers that stall, crumble, fall silent or leave, on either side of the sidecar.

use crate::transcripts::{CHAT, CHAT_PATH, CHAT_REPLY};
use bursar_domain::{Metering, Outcome};
use bursar_tests::frames::{ACK, END_STREAM, kind};
use bursar_tests::http2::Answer;
use bursar_tests::{FrameProvider, Frames, Setup, System, run, until};
use std::time::Duration;
use tokio::time::Instant;

const H2_PATH: &str = "/h2/v1/chat/completions";
const UPLOAD: &str = "/other/v1/upload";

fn about(time: Duration, seconds: u64) {
    let expected = Duration::from_secs(seconds);
    assert!(
        time >= expected && time <= expected + Duration::from_millis(1500),
        "{time:?} is not {seconds} s"
    );
}

// === a client's body

/// The status in the head of a reply: ours are literal or in HPACK's static table (RFC 7541, appendix A).
async fn status(client: &mut Frames) -> u16 {
    let head = client.until(kind::HEADERS).await.expect("no reply");
    match head.payload[0] {
        0x88 => 200,
        0x8c => 400,
        0x8e => 500,
        // `:status` with a value of three digits, plain or in Huffman's code.
        0x48 if head.payload[1] == 3 => std::str::from_utf8(&head.payload[2..5]).unwrap().parse().unwrap(),
        0x48 => [408, 413, 417, 502, 503, 504]
            .into_iter()
            .find(|code| head.payload[2..4] == huffman(*code)[..2])
            .expect("another status"),
        other => panic!("cannot read {other:#x}"),
    }
}

/// Three digits in HPACK's Huffman code: 0, 1 and 2 have five bits, the others six.
fn huffman(code: u16) -> Vec<u8> {
    let (mut bits, mut count) = (0_u32, 0);
    for digit in code.to_string().bytes().map(|digit| u32::from(digit - b'0')) {
        let (value, length) = if digit < 3 { (digit, 5) } else { (0x16 + digit, 6) };
        bits = bits << length | value;
        count += length;
    }
    bits = (bits << (32 - count)) | (u32::MAX >> count);
    bits.to_be_bytes().to_vec()
}

#[derive(Clone, Copy, Debug)]
enum Client {
    /// Says nothing more.
    Stalls,
    /// Sends a byte a second.
    Trickles,
    /// Sends an empty piece a second.
    SendsNothing,
}

/// Sends `first` of a body, goes on as `how`, and is refused after thirty seconds of that.
async fn stall(system: &System, path: &str, first: usize, how: Client) {
    let mut client = system.frames(&[]).await;
    client.post(1, path).await;
    let mut left = first;
    while left > 0 {
        let piece = left.min(16 * 1024);
        client.send(kind::DATA, 0, 1, &vec![b' '; piece]).await;
        left -= piece;
    }
    let start = Instant::now();
    let piece: &[u8] = match how {
        Client::Stalls => {
            assert_eq!(status(&mut client).await, 408, "{path} {how:?}");
            return about(start.elapsed(), 30);
        }
        Client::Trickles => b" ",
        Client::SendsNothing => b"",
    };
    for _ in 0..60 {
        if client.until_within(kind::HEADERS, Duration::from_secs(1)).await.is_some() {
            return about(start.elapsed(), 30);
        }
        client.send(kind::DATA, 0, 1, piece).await;
    }
    panic!("{path} {how:?}: still waiting after a minute");
}

#[test]
fn an_http2_body_that_stalls_or_trickles_while_it_is_held_is_408_after_thirty_seconds() {
    for how in [Client::Stalls, Client::Trickles, Client::SendsNothing] {
        run("", |system| async move {
            stall(&system, CHAT_PATH, 10, how).await;
            assert_eq!(system.provider.connections(), 0);
            assert!(system.records().await.is_empty(), "nothing was sent, nothing is recorded");
        });
    }
}

#[test]
fn an_http2_body_that_stalls_or_trickles_on_its_way_is_408_and_recorded() {
    for (path, first) in [(CHAT_PATH, 65 * 1024), (UPLOAD, 10)] {
        for how in [Client::Stalls, Client::Trickles, Client::SendsNothing] {
            run("", |system| async move {
                system.provider.json(200, CHAT_REPLY);
                // Windows of 64 KiB: the first pieces fit.
                stall(&system, path, first, how).await;
                let provider = system.provider.clone();
                until("the upstream connection is closed", || provider.open() == 0).await;
                assert!(system.provider.received().is_empty(), "the upstream never had it whole");
                let record = system.record().await;
                assert_eq!((record.outcome, record.metering), (Outcome::Aborted, Metering::Never));
            });
        }
    }
}

#[test]
fn an_http2_body_that_makes_progress_may_take_its_time() {
    run("", |system| async move {
        system.provider.json(200, CHAT_REPLY);
        let mut client = system.frames(&[]).await;
        client.post(1, UPLOAD).await;
        for _ in 0..20 {
            client.send(kind::DATA, 0, 1, &[b'x'; 1024]).await;
            tokio::time::sleep(Duration::from_secs(25)).await;
        }
        client.send(kind::DATA, END_STREAM, 1, b"").await;
        assert_eq!(status(&mut client).await, 200);
        assert_eq!(system.provider.request().body.len(), 20 * 1024);
    });
}

#[test]
fn other_streams_of_the_connection_go_on_while_one_stalls() {
    run("", |system| async move {
        let mut client = system.frames(&[]).await;
        client.post(1, CHAT_PATH).await;
        for stream in [3, 5] {
            system.provider.json(200, CHAT_REPLY);
            tokio::time::sleep(Duration::from_secs(20)).await;
            client.post(stream, CHAT_PATH).await;
            client.send(kind::DATA, END_STREAM, stream, CHAT.as_bytes()).await;
            let head = client.until(kind::HEADERS).await.unwrap();
            assert_eq!((head.stream, head.payload[0]), if stream == 3 { (3, 0x88) } else { (1, 0x48) });
        }
        assert_eq!(status(&mut client).await, 200);
        assert_eq!(system.records().await.len(), 2);
    });
}

// === idle clients

#[test]
fn an_idle_http2_client_is_told_to_go_and_one_that_does_not_answer_is_cut_two_seconds_later() {
    run("", |system| async move {
        system.provider.json(200, CHAT_REPLY);
        let mut client = system.frames(&[]).await;
        client.post(1, CHAT_PATH).await;
        client.send(kind::DATA, END_STREAM, 1, CHAT.as_bytes()).await;
        assert_eq!(status(&mut client).await, 200);
        let start = Instant::now();
        assert!(client.until(kind::GOAWAY).await.is_some(), "no word of good-bye");
        about(start.elapsed(), 60);
        // The sidecar asks for a sign of life, to know which streams were on their way. None comes.
        client.rest().await;
        about(start.elapsed(), 62);
        assert_eq!(system.metric("bursar_connections"), 0);
        assert_eq!(system.metric("bursar_connection_deadlines_total"), 1);
    });
}

#[test]
fn an_idle_http2_client_that_answers_is_closed_at_once() {
    run("", |system| async move {
        let mut client = system.frames(&[]).await;
        let start = Instant::now();
        assert!(client.until(kind::GOAWAY).await.is_some());
        let ping = client.until(kind::PING).await.unwrap();
        client.send(kind::PING, ACK, 0, &ping.payload).await;
        client.rest().await;
        about(start.elapsed(), 60);
        assert_eq!(system.metric("bursar_connections"), 0);
    });
}

#[test]
fn pings_and_settings_do_not_keep_an_idle_http2_client_alive() {
    run("", |system| async move {
        let mut client = system.frames(&[]).await;
        let start = Instant::now();
        while client.try_send(kind::PING, 0, 0, b"12345678").await {
            client.try_send(kind::SETTINGS, 0, 0, &[]).await;
            let _ = client.until_within(kind::GOAWAY, Duration::from_secs(1)).await;
            assert!(start.elapsed() < Duration::from_secs(70), "still there");
        }
    });
}

#[test]
fn a_request_that_crosses_the_good_bye_is_still_answered() {
    run("", |system| async move {
        system.provider.json(200, CHAT_REPLY);
        let mut client = system.frames(&[]).await;
        assert!(client.until(kind::GOAWAY).await.is_some());
        client.post(1, CHAT_PATH).await;
        client.send(kind::DATA, END_STREAM, 1, CHAT.as_bytes()).await;
        assert_eq!(status(&mut client).await, 200);
        assert_eq!(system.records().await.len(), 1);
    });
}

// === upstreams

fn frame_by_frame(settings: &str) -> (FrameProvider, Setup) {
    let provider = FrameProvider::default();
    let mut setup = Setup::new(settings);
    setup.connector = Some(provider.connector());
    (provider, setup)
}

/// Reads a request to its end and answers it.
async fn serve(upstream: &mut Frames) -> u32 {
    let head = upstream.until(kind::HEADERS).await.expect("no request");
    while upstream.until(kind::DATA).await.expect("no body").flags & END_STREAM == 0 {}
    let fields = [(":status", "200"), ("content-type", "application/json")];
    upstream.head(head.stream, 0, &fields).await;
    upstream.send(kind::DATA, END_STREAM, head.stream, CHAT_REPLY.as_bytes()).await;
    head.stream
}

#[test]
fn a_dead_http2_upstream_is_found_out_by_pings_while_a_request_is_under_way() {
    let (provider, setup) = frame_by_frame("");
    setup.run(|system| async move {
        let mut client = system.client();
        client.post(H2_PATH, &[], CHAT).await;
        let start = Instant::now();
        let mut upstream = provider.accept().await;
        assert!(upstream.until(kind::HEADERS).await.is_some());
        assert!(upstream.until_within(kind::PING, Duration::from_secs(31)).await.is_some(), "no ping");
        let reply = client.reply().await;
        about(start.elapsed(), 40);
        assert_eq!(reply.status(), 502, "not 504 after ten minutes");
        assert_eq!(reply.json()["error"]["code"], "upstream_unreachable");
        // The next request does not go into the same silence.
        client.post(H2_PATH, &[], CHAT).await;
        assert_eq!(serve(&mut provider.accept().await).await, 1);
        assert_eq!(client.reply().await.status(), 200);
        let records = system.records().await;
        let outcomes: Vec<_> = records.iter().map(|r| r.record.outcome).collect();
        assert_eq!(outcomes, [Outcome::Error, Outcome::Ok]);
    });
}

#[test]
fn an_http2_upstream_that_answers_pings_may_think_for_minutes() {
    let (provider, setup) = frame_by_frame("");
    setup.run(|system| async move {
        let mut client = system.client();
        client.post(H2_PATH, &[], CHAT).await;
        let mut upstream = provider.accept().await;
        let head = upstream.until(kind::HEADERS).await.unwrap();
        for _ in 0..10 {
            let ping = upstream.until(kind::PING).await.unwrap();
            upstream.send(kind::PING, ACK, 0, &ping.payload).await;
        }
        upstream.head(head.stream, END_STREAM, &[(":status", "204")]).await;
        assert_eq!(status_of(&client.head().await.unwrap()), 204);
        drop(system);
    });
}

fn status_of(head: &str) -> u16 {
    bursar_tests::client::status(head)
}

#[test]
fn after_a_good_bye_of_an_http2_upstream_requests_go_on_a_new_connection() {
    let (provider, setup) = frame_by_frame("");
    setup.run(|system| async move {
        let mut client = system.client();
        client.post(H2_PATH, &[], CHAT).await;
        let mut first = provider.accept().await;
        serve(&mut first).await;
        assert_eq!(client.reply().await.status(), 200);
        first.go_away(1).await;
        client.post(H2_PATH, &[], CHAT).await;
        let mut second = provider.accept().await;
        serve(&mut second).await;
        assert_eq!(client.reply().await.status(), 200);
        assert!(!first.rest().await.iter().any(|frame| frame.kind == kind::HEADERS), "sent twice");
        assert_eq!(system.records().await.len(), 2);
    });
}

#[test]
fn a_request_that_an_http2_upstream_finishes_before_it_leaves_is_answered() {
    let (provider, setup) = frame_by_frame("");
    setup.run(|system| async move {
        let mut client = system.client();
        client.post(H2_PATH, &[], CHAT).await;
        let mut upstream = provider.accept().await;
        upstream.go_away(1).await;
        serve(&mut upstream).await;
        assert_eq!(client.reply().await.text(), CHAT_REPLY);
        assert_eq!(system.record().await.outcome, Outcome::Ok);
    });
}

#[test]
fn a_request_that_an_http2_upstream_did_not_look_at_is_a_clear_error_and_is_not_sent_again() {
    for by_reset in [false, true] {
        let (provider, setup) = frame_by_frame("");
        setup.run(|system| async move {
            let mut client = system.client();
            client.post(H2_PATH, &[], CHAT).await;
            let mut upstream = provider.accept().await;
            let head = upstream.until(kind::HEADERS).await.unwrap();
            if by_reset {
                // REFUSED_STREAM
                upstream.send(kind::RST_STREAM, 0, head.stream, &7_u32.to_be_bytes()).await;
            } else {
                upstream.go_away(0).await;
            }
            let reply = client.reply().await;
            assert_eq!((reply.status(), reply.header("retry-after")), (503, Some("1")), "{}", reply.text());
            let body = reply.json();
            assert_eq!(body["error"]["code"], "upstream_refused");
            let message = body["error"]["message"].as_str().unwrap();
            assert!(message.contains("without looking at it"), "{message}");
            assert!(!provider.has_unaccepted(), "it was sent again");
            let record = system.record().await;
            assert_eq!((record.outcome, record.metering), (Outcome::Error, Metering::Never));
        });
    }
}

#[derive(Clone, Copy, Debug)]
enum End {
    Reset,
    GoodByeAndClose,
    ErrorAboveUs,
    ErrorAfterUs,
    Close,
}

#[test]
fn a_request_that_an_http2_upstream_may_have_looked_at_is_502() {
    const INTERNAL_ERROR: [u8; 4] = 2_u32.to_be_bytes();
    for end in [End::Reset, End::GoodByeAndClose, End::ErrorAboveUs, End::ErrorAfterUs, End::Close] {
        let (provider, setup) = frame_by_frame("");
        setup.run(|system| async move {
            let mut client = system.client();
            client.post(H2_PATH, &[], CHAT).await;
            let mut upstream = provider.accept().await;
            let head = upstream.until(kind::HEADERS).await.unwrap();
            let error_after = |last: u32| [last.to_be_bytes(), INTERNAL_ERROR].concat();
            match end {
                End::Reset => upstream.send(kind::RST_STREAM, 0, head.stream, &INTERNAL_ERROR).await,
                End::GoodByeAndClose => upstream.go_away(head.stream).await,
                End::ErrorAboveUs => upstream.send(kind::GOAWAY, 0, 0, &error_after(0)).await,
                End::ErrorAfterUs => upstream.send(kind::GOAWAY, 0, 0, &error_after(head.stream)).await,
                End::Close => {}
            }
            if !matches!(end, End::Reset) {
                drop(upstream);
            }
            let reply = client.reply().await;
            assert_eq!((reply.status(), reply.header("retry-after")), (502, None), "{end:?}");
            assert!(!provider.has_unaccepted(), "{end:?}: it was sent again");
            assert_eq!(system.record().await.outcome, Outcome::Error);
        });
    }
}

#[test]
fn an_http2_upstream_connection_that_is_not_used_is_closed_after_its_time() {
    run("upstream: { pool_idle: 10s }", |system| async move {
        let mut client = system.client();
        for connections in [1, 1, 2] {
            if connections == 2 {
                assert_eq!(system.http2_provider.open(), 1);
                tokio::time::sleep(Duration::from_secs(15)).await;
                assert_eq!(system.http2_provider.open(), 0);
            }
            let head = http::Response::builder().header("content-type", "application/json").body(()).unwrap();
            let frames = vec![hyper::body::Frame::data(bytes::Bytes::from(CHAT_REPLY))];
            system.http2_provider.answer(Answer { head, frames, breaks: false });
            client.post(H2_PATH, &[], CHAT).await;
            assert_eq!(client.reply().await.text(), CHAT_REPLY);
            assert_eq!(system.http2_provider.connections(), connections);
            tokio::time::sleep(Duration::from_secs(7)).await;
        }
    });
}

#[test]
fn a_long_stream_outlives_its_http2_connections_place_in_the_pool() {
    let (provider, setup) = frame_by_frame("upstream: { pool_idle: 10s }");
    setup.run(|system| async move {
        let mut client = system.client();
        client.post(H2_PATH, &[], CHAT).await;
        let mut upstream = provider.accept().await;
        let head = upstream.until(kind::HEADERS).await.unwrap();
        let fields = [(":status", "200"), ("content-type", "application/json")];
        upstream.head(head.stream, 0, &fields).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        upstream.send(kind::DATA, END_STREAM, head.stream, CHAT_REPLY.as_bytes()).await;
        assert_eq!(client.reply().await.text(), CHAT_REPLY);
        assert!(upstream.until(kind::GOAWAY).await.is_some(), "then it is closed");
        assert_eq!(system.record().await.outcome, Outcome::Ok);
    });
}

// === crumbs

#[test]
fn a_body_in_crumbs_reaches_the_upstream_whole() {
    run("", |system| async move {
        system.provider.json(200, CHAT_REPLY);
        let mut client = system.frames(&[]).await;
        client.post(1, CHAT_PATH).await;
        for byte in CHAT.as_bytes() {
            client.send(kind::DATA, 0, 1, &[*byte]).await;
        }
        client.send(kind::DATA, END_STREAM, 1, b"").await;
        assert_eq!(status(&mut client).await, 200);
        assert_eq!(system.provider.request().body, CHAT.as_bytes());
    });
}
