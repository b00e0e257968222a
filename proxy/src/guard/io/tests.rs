//! The guard under the real HTTP server, over an in-memory socket.

use super::super::conn::{Phase, Ticker};
use super::super::deadlines::Deadlines;
use super::*;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::convert::Infallible;

use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

/// One connection as a test sees it.
struct Bench {
    client: DuplexStream,
    server: DuplexStream,
    state: Arc<ConnState>,
    ticker: Ticker,
    start: Instant,
}

impl Bench {
    fn new() -> Self {
        let (client, server) = tokio::io::duplex(1 << 20);
        let start = Instant::now();
        let ticker = Ticker::new(start);
        Self { client, server, state: ConnState::new(ticker.clone()), ticker, start }
    }

    fn pass(ticker: &Ticker, start: Instant, seconds: u64) {
        ticker.advance(start + Duration::from_secs(seconds));
    }
}

/// Answers poison and broken bodies with their status, everything else with what it received.
async fn answer(
    request: Request<Incoming>,
    state: Arc<ConnState>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let _exchange = state.exchange();
    let refuse = |rejection: Rejection| {
        let mut response = Response::new(Full::from(rejection.name()));
        *response.status_mut() = rejection.status();
        Ok(response)
    };
    if let Some(rejection) = rejection_of(request.method(), request.uri(), request.version()) {
        return refuse(rejection);
    }
    let path = request.uri().path().to_owned();
    match request.into_body().collect().await {
        Ok(body) => Ok(Response::new(Full::from(format!("{path} {} bytes", body.to_bytes().len())))),
        Err(error) => match rejection_in(&error) {
            Some(rejection) => refuse(rejection),
            None => refuse(Rejection::RequestLine),
        },
    }
}

async fn serve(server: DuplexStream, state: Arc<ConnState>) {
    let guarded = GuardedIo::detect(server, Limits::default(), Arc::clone(&state)).await;
    let Ok(Some((Protocol::Http1, io))) = guarded else { return };
    let service = service_fn(|request| answer(request, Arc::clone(&state)));
    // An aborted connection is an error of the server; the client's view is what is tested.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service).await;
}

/// Sends `stream` cut into pieces of `size`, then reads all answers until the server closes.
async fn exchange(stream: &[u8], size: usize) -> String {
    let Bench { mut client, server, state, .. } = Bench::new();
    let client = async move {
        for piece in stream.chunks(size) {
            client.write_all(piece).await.expect("write");
            tokio::task::yield_now().await;
        }
        let mut answers = Vec::new();
        let mut one = [0; 4096];
        while let Ok(count @ 1..) = client.read(&mut one).await {
            answers.extend_from_slice(&one[..count]);
            if answers.ends_with(b"DONE 0 bytes") {
                break;
            }
        }
        String::from_utf8(answers).expect("text")
    };
    tokio::join!(client, serve(server, state)).0
}

/// The statuses and bodies of the answers, in order.
fn summary(answers: &str) -> Vec<(StatusCode, String)> {
    let mut summary = Vec::new();
    for answer in answers.split("HTTP/1.1 ").skip(1).filter(|answer| !answer.starts_with("100 ")) {
        let (head, body) = answer.split_once("\r\n\r\n").expect("head");
        summary.push((StatusCode::from_bytes(&head.as_bytes()[..3]).expect("status"), body.to_owned()));
    }
    summary
}

async fn check(stream: &str, expected: &[(u16, &str)]) {
    for size in [stream.len(), 1, 7, 100] {
        let answers = exchange(stream.as_bytes(), size).await;
        let found = summary(&answers);
        let found: Vec<_> = found.iter().map(|(status, body)| (status.as_u16(), body.as_str())).collect();
        assert_eq!(found, expected, "in pieces of {size}");
    }
}

const DONE: &str = "GET /DONE HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn good_requests_are_answered_however_they_are_cut() {
    let one = "POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let two = "POST /two HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\nx-sum: 1\r\n\r\n";
    let three = "POST /three HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab";
    let expected =
        [(200, "/one 5 bytes"), (200, "/two 4 bytes"), (200, "/three 2 bytes"), (200, "/DONE 0 bytes")];
    check(&[one, two, three, DONE].concat(), &expected).await;
}

#[tokio::test]
async fn what_the_guard_calls_the_largest_head_the_server_takes_too() {
    let limits = Limits::default();
    let headers = "x: 1\r\n".repeat(limits.headers_max - 2);
    let start = format!("GET /DONE HTTP/1.1\r\nHost: a\r\n{headers}y: ");
    let filler = "a".repeat(limits.head_bytes_max - start.len() - 4);
    check(&format!("{start}{filler}\r\n\r\n"), &[(200, "/DONE 0 bytes")]).await;
}

#[tokio::test]
async fn an_upgrade_that_is_ignored_leaves_the_connection_usable() {
    let upgrade = "GET /one HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n";
    check(&[upgrade, DONE].concat(), &[(200, "/one 0 bytes"), (200, "/DONE 0 bytes")]).await;
}

#[tokio::test]
async fn a_bad_head_is_refused_after_the_good_requests_before_it_are_answered() {
    let good = "POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let bad = "GET /two HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n";
    let expected = [(200, "/one 5 bytes"), (200, "/one 5 bytes"), (400, "space_before_colon")];
    check(&[good, good, bad, DONE].concat(), &expected).await;
}

#[tokio::test]
async fn each_kind_of_refusal_has_its_status() {
    let long = "a".repeat(9_000);
    let headers = "x: 1\r\n".repeat(101);
    let large = format!("x: {long}{long}");
    for (head, expected) in [
        ("GET / HTTP/1.1\n".to_owned(), (400, "line_ending")),
        ("\u{16}\u{3}\u{1}\u{2}".to_owned(), (400, "request_line")),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), (414, "target_too_long")),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n"), (431, "too_many_headers")),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{large}\r\n\r\n"), (431, "head_too_large")),
        ("BREW / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), (501, "unknown_method")),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n".to_owned(), (505, "http_version")),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n".to_owned(),
            (413, "body_too_large"),
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n".to_owned(), (417, "expectation")),
        ("X-BURSAR-REJECTED /9 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), (501, "unknown_method")),
    ] {
        check(&head, &[expected]).await;
    }
}

#[tokio::test]
async fn a_broken_body_is_refused_by_the_request_it_belongs_to() {
    let head = "POST /one HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    check(&[head, "5\r\nhello\r\n5;a=b\r\nhello\r\n0\r\n\r\n", DONE].concat(), &[(400, "chunk_extension")])
        .await;
    check(&[head, "5\r\nhello\r\n0\r\nHost: b\r\n\r\n", DONE].concat(), &[(400, "forbidden_trailer")]).await;
    check(&[head, "ffffffff\r\n"].concat(), &[(413, "body_too_large")]).await;
}

/// Serves one connection while `client` acts on it.
async fn with_server<F>(
    bench: Bench,
    client: impl FnOnce(DuplexStream, Arc<ConnState>, Ticker, Instant) -> F,
) -> F::Output
where
    F: Future,
{
    let Bench { client: socket, server, state, ticker, start } = bench;
    let serving = serve(server, Arc::clone(&state));
    tokio::join!(client(socket, state, ticker, start), serving).0
}

async fn read_to_close(client: &mut DuplexStream) -> String {
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("read");
    answer
}

/// Yields until the connection is in `phase`.
async fn until(state: &ConnState, phase: Phase) {
    while state.phase() != phase {
        tokio::task::yield_now().await;
    }
}

/// Sends `stream`, waits for `phase`, lets `seconds` pass, sweeps, and returns what the client reads.
async fn swept(stream: &'static str, phase: Phase, seconds: u64, expected: Overdue) -> String {
    with_server(Bench::new(), async move |mut client: DuplexStream, state: Arc<ConnState>, ticker, start| {
        client.write_all(stream.as_bytes()).await.expect("write");
        until(&state, phase).await;
        tokio::task::yield_now().await;
        assert_eq!(state.overdue(&Deadlines::default()), None);
        Bench::pass(&ticker, start, seconds);
        assert_eq!(state.overdue(&Deadlines::default()), Some(expected));
        state.expire(expected);
        // A refusal lingers until we close; end our side so that the answer ends.
        let mut answer = vec![0; 4096];
        let count = client.read(&mut answer).await.expect("read");
        String::from_utf8(answer[..count].to_vec()).expect("text")
    })
    .await
}

#[tokio::test]
async fn a_silent_connection_is_closed_without_a_word() {
    assert_eq!(swept("", Phase::AwaitingFirstByte, 5, Overdue::FirstByte).await, "");
}

#[tokio::test]
async fn part_of_an_http2_preface_is_closed_without_a_word() {
    assert_eq!(swept("PRI * HTTP", Phase::ReadingHead, 5, Overdue::Head).await, "");
}

#[tokio::test]
async fn an_unfinished_head_is_answered_408() {
    let answer = swept("GET / HTTP/1.1\r\nHost", Phase::ReadingHead, 5, Overdue::Head).await;
    assert_eq!(summary(&answer), [(StatusCode::REQUEST_TIMEOUT, "head_timeout".into())]);
}

#[tokio::test]
async fn a_stalled_body_is_answered_408() {
    let stream = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc";
    let answer = swept(stream, Phase::ReadingBody, 30, Overdue::BodyIdle).await;
    assert_eq!(summary(&answer), [(StatusCode::REQUEST_TIMEOUT, "body_timeout".into())]);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_last_answer() {
    let stream = "GET /one HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = swept(stream, Phase::Idle, 60, Overdue::KeepAlive).await;
    assert_eq!(summary(&answer), [(StatusCode::OK, "/one 0 bytes".into())]);
}

#[tokio::test]
async fn after_a_refusal_what_still_comes_is_discarded_until_the_client_closes() {
    with_server(Bench::new(), async |mut client: DuplexStream, state: Arc<ConnState>, _, _| {
        client
            .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n")
            .await
            .expect("write");
        let answer = read_to_close(&mut client).await;
        assert_eq!(summary(&answer), [(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large".into())]);
        until(&state, Phase::Lingering).await;
        assert_eq!(state.rejection(), Some(Rejection::BodyTooLarge));
        // More than the pipe holds: it only fits because the server reads it.
        client.write_all(&vec![b'x'; 3 << 20]).await.expect("write");
        drop(client);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_close_after_a_refusal_is_dropped_by_the_deadline() {
    with_server(Bench::new(), async |mut client: DuplexStream, state: Arc<ConnState>, ticker, start| {
        client.write_all(b"TRACE / HTTP/1.1\r\n").await.expect("write");
        read_to_close(&mut client).await;
        until(&state, Phase::Lingering).await;
        Bench::pass(&ticker, start, 2);
        let overdue = state.overdue(&Deadlines::default());
        assert_eq!(overdue, Some(Overdue::Linger));
        state.expire(Overdue::Linger);
        while client.write_all(b"x").await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_http2_preface_is_recognised_and_everything_passes() {
    for size in [1, 10, 64] {
        let Bench { mut client, server, state, .. } = Bench::new();
        let stream = [HTTP2_PREFACE, b"\0\0\0\x04\0\0\0\0\0 and \n anything"].concat();
        let sending = async {
            for piece in stream.chunks(size) {
                client.write_all(piece).await.expect("write");
                tokio::task::yield_now().await;
            }
            drop(client);
        };
        let reading = async {
            let (protocol, mut io) =
                GuardedIo::detect(server, Limits::default(), state).await.expect("io").expect("open");
            let mut received = Vec::new();
            io.read_to_end(&mut received).await.expect("read");
            (protocol, received)
        };
        let ((), (protocol, received)) = tokio::join!(sending, reading);
        assert_eq!((protocol, received), (Protocol::Http2, stream.clone()));
    }
}

#[tokio::test]
async fn a_tunnel_passes_everything_after_its_request() {
    let Bench { mut client, server, state, .. } = Bench::new();
    let mut io = GuardedIo::http1(server, Limits::default(), Arc::clone(&state));
    let request = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.write_all(request).await.expect("write");
    let mut received = vec![0; request.len()];
    io.read_exact(&mut received).await.expect("read");
    assert_eq!(received, request);
    // What came early waits for the decision.
    client.write_all(b"early").await.expect("write");
    let mut one = [0];
    assert!(futures_util::FutureExt::now_or_never(io.read(&mut one)).is_none());
    assert!(state.become_tunnel());
    client.write_all(b"\x81\x05hello\n").await.expect("write");
    drop(client);
    received.clear();
    io.read_to_end(&mut received).await.expect("read");
    assert_eq!(received, b"early\x81\x05hello\n");
}

#[tokio::test]
async fn a_connection_that_was_refused_becomes_no_tunnel() {
    let Bench { mut client, server, state, .. } = Bench::new();
    let mut io = GuardedIo::http1(server, Limits::default(), Arc::clone(&state));
    client
        .write_all(b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n\x81\x05")
        .await
        .expect("write");
    assert_ne!(io.read(&mut [0; 4096]).await.expect("read"), 0);
    assert_eq!(state.rejection(), Some(Rejection::RequestLine));
    assert!(!state.become_tunnel());
}

#[tokio::test]
async fn an_http2_connection_that_stirs_in_time_is_not_closed() {
    let Bench { mut client, server, state, .. } = Bench::new();
    let mut io = GuardedIo::http2(server, Limits::default(), Arc::clone(&state));
    state.expire(Overdue::KeepAlive);
    client.write_all(b"ping").await.expect("write");
    let mut received = [0; 8];
    assert_eq!(io.read(&mut received).await.expect("read"), 4);
    assert!(futures_util::FutureExt::now_or_never(io.read(&mut received)).is_none());
    state.expire(Overdue::KeepAlive);
    assert_eq!(io.read(&mut received).await.expect("read"), 0);
}

#[tokio::test]
async fn small_read_buffers_get_the_same_bytes() {
    let stream =
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".repeat(3);
    for (sent_by, read_by) in [(1, 1), (7, 3), (500, 5), (33, 1000)] {
        let Bench { mut client, server, state, .. } = Bench::new();
        let sending = async {
            for piece in stream.as_bytes().chunks(sent_by) {
                client.write_all(piece).await.expect("write");
                tokio::task::yield_now().await;
            }
            drop(client);
        };
        let received = RefCell::new(Vec::new());
        let reading = async {
            let mut io = GuardedIo::http1(server, Limits::default(), state);
            let mut buffer = vec![0; read_by];
            while let count @ 1.. = io.read(&mut buffer).await.expect("read") {
                received.borrow_mut().extend_from_slice(&buffer[..count]);
            }
        };
        tokio::join!(sending, reading);
        assert_eq!(received.into_inner(), stream.as_bytes());
    }
}

#[test]
fn only_the_guards_own_request_is_poison() {
    let of = |method: &str, uri: &'static str, version| {
        let method = Method::from_bytes(method.as_bytes()).expect("method");
        rejection_of(&method, &Uri::from_static(uri), version)
    };
    assert_eq!(of(POISON_METHOD, "/9", Version::HTTP_11), Some(Rejection::HeadTooLarge));
    assert_eq!(of(POISON_METHOD, "/9", Version::HTTP_2), None);
    assert_eq!(of(POISON_METHOD, "/0", Version::HTTP_11), None);
    assert_eq!(of("POST", "/9", Version::HTTP_11), None);
}
