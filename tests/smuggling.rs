//! Request smuggling: every shape that the HTTP Garden project has found servers to disagree about (76 of
//! them, in words and values of our own), and those that recur in gateways.
//!
//! Each is shown to the guard in several cuts and sent to a whole sidecar. Either it is refused and the
//! connection closed, or what the upstream gets is one canonical request; nothing has two readings.

use bursar::guard::fuzz::feed;
use bursar::guard::{Limits, Verdict};
use bursar_tests::frames::{END_STREAM, kind};
use bursar_tests::provider::header;
use bursar_tests::{Frames, Step, System, run};

/// Request line and body of a request as the upstream gets it.
type Canonical = (&'static str, &'static str);

#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// Answered with this status after these were forwarded; then the connection is closed.
    Refused(&'static [Canonical], u16),
    /// Forwarded, and the connection goes on.
    Forwarded(&'static [Canonical]),
    /// Forwarded, and the connection closed as the client wished; what follows is not looked at.
    ForwardedLast(&'static [Canonical]),
}
use Outcome::{Forwarded, ForwardedLast, Refused};

const BAD: Outcome = Refused(&[], 400);
const GET: Canonical = ("GET /v1/x HTTP/1.1", "");
const POST: Canonical = ("POST /v1/x HTTP/1.1", "");

/// The shapes. `{G}`, `{P}` and `{C}` begin a GET, a POST and a POST in chunks.
const SHAPES: &[(&[u8], Outcome)] = &[
    // === chunk sizes
    (b"{C}\r\n0_2e\r\n\r\n{G}Content-Length: 5\r\n\r\n0\r\n\r\n", BAD),
    (b"{C}\r\n\r\n\r\n", BAD),
    (b"{C}\r\nINVALID!!!\r\n{G}\r\n", BAD),
    (b"{C}\r\nZ\r\nZZ\r\nZZZ\r\n\r\n", BAD),
    (b"{C}\r\n-0x0\r\n\r\n", BAD),
    (b"{C}\r\n-1\r\nZ\r\n0\r\n\r\n", BAD),
    (b"{C}\r\n+1\r\nZ\r\n0\r\n\r\n", BAD),
    (b"{C}\r\n0x1\r\nZ\r\n0\r\n\r\n", BAD),
    (b"{C}\r\n1 \r\nZ\r\n0\r\n\r\n", BAD),
    (b"{C}\r\n           0\r\n\r\n", BAD),
    (b"{C}\r\n1these-bytes-are-not-looked-at\r\nZ\r\n0\r\n\r\n", BAD),
    (b"{C}\r\n1;ext=1\r\nZ\r\n0\r\n\r\n", BAD),
    (b"{C}\r\n1;\r\nZ\r\n0\r\n\r\n", BAD),
    (b"{C}\r\n1\r0\n", BAD),
    (b"{C}\r\n1\nZ\n0\n\n", BAD),
    (b"{C}\r\n1\r\nZ\r\n0\n\r\n", BAD),
    (b"{C}\r\n5\r\r;ABCD\r\n34\r\nE\r\n0\r\n\r\n{G}Content-Length: 5\r\n\r\n0\r\n\r\n", BAD),
    (b"{C}\r\n2\r\r;a\r\n02\r\n41\r\n0\r\n\r\n{G}Content-Length: 430\r\n\r\n0\r\n\r\n{G}\r\n", BAD),
    (b"{C}\r\n3;a=b\r\rXXX\r\n0\r\n\r\n{G}Content-Length: 41\r\n\r\n0\r\n\r\n{G}\r\n", BAD),
    (b"{C}\r\n100000000\r\nZ\r\n0\r\n\r\n", BAD),
    (b"{C}\r\n10000000000000001\r\nZ\r\n0\r\n\r\n", BAD),
    (b"{C}\r\n000000001\r\nZ\r\n0\r\n\r\n", BAD),
    // === chunk ends and trailers
    (b"{C}\r\na\r\n0123456789\n0\r\n\r\n", BAD),
    (b"{C}\r\n1\r\nZZ\r\n0\r\n\r\n", BAD),
    (b"{C}\r\n1\r\nZ0\r\n\r\n", BAD),
    (b"{C}\r\n0\r\nX:POST / HTTP/1.1\nHost: a\r\n\r\n", BAD),
    (b"{C}\r\n0\r\nContent-Length: 5\r\n\r\n", BAD),
    (b"{C}\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", BAD),
    (b"{C}\r\n0\r\nHost: b\r\n\r\n", BAD),
    (b"{C}\r\n0\r\n x: folded\r\n\r\n", BAD),
    (b"{C}\r\n0\r\n\r\n\0", Refused(&[POST], 400)),
    (b"{C}\r\n1\r\nZ\r\n0\r\n\r\n", Forwarded(&[("POST /v1/x HTTP/1.1", "Z")])),
    (b"{C}\r\n17\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n\r\n\r\n0\r\n\r\n", BAD),
    (
        b"{C}\r\n17\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n\r\n0\r\n\r\n",
        Forwarded(&[("POST /v1/x HTTP/1.1", "0\r\n\r\nGET / HTTP/1.1\r\n\r\n")]),
    ),
    // === transfer codings
    (b"{C}Transfer-Encoding: chunked\r\n\r\n1\r\nZ\r\n0\r\n\r\n", BAD),
    (b"{C}Transfer-Encoding: identity\r\n\r\n1\r\nZ\r\n0\r\n\r\n", BAD),
    (b"{P}Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", BAD),
    (b"{P}Transfer-Encoding: ,chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", BAD),
    (b"{P}Transfer-Encoding: ,chunked\r\nContent-Length: 5\r\nConnection: close\r\n\r\n0r\n\r\n", BAD),
    (b"{P}Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", BAD),
    (b"{P}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", BAD),
    (b"{P}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", BAD),
    (b"{P}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", BAD),
    (b"{P}Transfer-Encoding: nonsense\r\n\r\n1\r\nZ\r\n0\r\n\r\n", BAD),
    (b"{P}Transfer-Encoding:\r\n\r\n1\r\nZ\r\n0\r\n\r\n", BAD),
    (b"{P}Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", BAD),
    (b"{P}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", BAD),
    (b"{P}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", BAD),
    (b"{P}Transfer-Encoding: chunked \r\n\r\n0\r\n\r\n", BAD),
    (b"{P}Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n", BAD),
    (b"{P}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", BAD),
    (b"{P}Transfer-Encoding: \xa0chunked\xa0\r\n\r\n0\r\n\r\n", BAD),
    (b"{P}Transfer-Encoding: \xffchunked\xff\r\n\r\n1\r\nZ\r\n0\r\n\r\n", BAD),
    (b"{P}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", BAD),
    (b"{P}Transfer\x00-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD),
    (b"{P}Transfer-\r\nEncoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", BAD),
    (b"{P}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", BAD),
    (b"{P}X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD),
    (b"{P}X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD),
    (b"{P}X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD),
    (b"{P}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD),
    (b"{C}Content-Length: 5\r\n\r\n0\r\n\r\n", BAD),
    (b"POST /openai/v1/x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD),
    (b"{G}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD),
    (b"GET /openai/v1/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", BAD),
    (b"GET /openai/v1/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX:POST / HTTP/1.1\r\n\r\n", BAD),
    (
        b"{P}Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        Forwarded(&[("POST /v1/x HTTP/1.1", "0\r\n\r\n")]),
    ),
    // === lengths
    (b"{P}Content-Length: +1_0\r\n\r\n0123456789", BAD),
    (b"{P}Content-Length: +1\r\n\r\nZ", BAD),
    (b"{P}Content-Length: -48\r\n\r\n", BAD),
    (b"{P}Content-Length: 010\r\n\r\n01234567", BAD),
    (b"{P}Content-Length: 0x10\r\n\r\nZ", BAD),
    (b"{P}Content-Length: 1Z\r\n\r\nZ", BAD),
    (b"{P}Content-Length: 1.0\r\n\r\nZ", BAD),
    (b"{P}Content-Length: 1e0\r\n\r\nZ", BAD),
    (b"{P}Content-Length: \r\n\r\n{G}\r\n", BAD),
    (b"{P}content-length:\r\n\r\n", BAD),
    (b"{P}Content-Length: 1, 1\r\n\r\nZ", BAD),
    (b"{P}Content-Length: 1\r\nContent-Length: 1\r\n\r\nZ", BAD),
    (b"{P}Content-Length: 1\r\nContent-Length: 0\r\n\r\nZ", BAD),
    (b"{P}Content-Length: 0\r\nContent-Length: 1\r\n\r\nZ", BAD),
    (b"{P}Content-Length: 0\r\nContent-Length: 31\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"{P}Content-Length: \r\nContent-Length: 43\r\n\r\nPOST /evil HTTP/1.1\r\n\r\n", BAD),
    (b"{P}content-length: \r\ncontent-length: 59\r\n\r\nPOST /evil HTTP/1.1\r\n\r\n", BAD),
    (b"{P}Content-Length : 34\r\n\r\n{G}\r\n", BAD),
    (b"{P}Content-Length 10\r\n\r\n0123456789", BAD),
    (b"{P}Content-Length\x85: 10\r\n\r\n0123456789", BAD),
    (b"{P}\tContent-Length: 1\r\n\r\nX", BAD),
    (b"POST /openai/v1/x HTTP/1.1\r\n\tContent-Length: 1\r\n\r\nX", BAD),
    (b"{P}Content-Length: 18446744073709551617\r\n\r\nZ", BAD),
    (b"{P}Content-Length: 99999999999999999999\r\n\r\nZ", BAD),
    (b"{P}Content-Length: 1\t\r\n\r\nZ", BAD),
    (b"{G}Content-Length: 10\r\n\r\n1234567890", BAD),
    (b"GET /openai/v1/x HTTP/1.1\r\nContent-Length: 10\r\n\r\n1234567890", BAD),
    (
        b"{P}Content-Length: 0\r\nConnection:keep-alive\r\nid: 0\r\n\r\n{P}id: 1\r\nContent-Length: 34\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nid: 2\r\n\r\n",
        Forwarded(&[POST, ("POST /v1/x HTTP/1.1", "GET / HTTP/1.1\r\nHost: a\r\nid: 2\r\n\r\n")]),
    ),
    // === header lines
    (b"{G}Header: v\x00\ralue\r\n\r\n", BAD),
    (b"{G}Header: va\rlue\r\n\r\n", BAD),
    (b"{G}Visible: :/\rSmuggled: :)\r\n\r\n", BAD),
    (b"{G}Invalid: this\rvalue\ris\rinvalid\r\n\r\n", BAD),
    (b"{G}Test: test\x00THESE BYTES GET DROPPED\r\nConnection: close\r\n\r\n", BAD),
    (b"{G}Evil: evil\x00\r\n\r\n", BAD),
    (b"{G}Useless:\n\n{G}\r\n", BAD),
    (b"{G}a:b\r\nc\x00\r\n\r\n", BAD),
    (b"{G}\xefoo: bar\r\n\r\n", BAD),
    (b"{G}Header\x85: value\r\n\r\n", BAD),
    (b"{G}User: \x85admin\xa0\r\n\r\n", BAD),
    (b"{G}Te\nst: test\r\nConnection: close\r\n\r\n", BAD),
    (b"{G}: ignored\r\n\r\n", BAD),
    (b"{G}:\r\nI: am cut off\r\n\r\n", BAD),
    (b"{G}no colon\r\n\r\n", BAD),
    (b"{G}X: a\r\n folded\r\n\r\n", BAD),
    (
        b"{G}\x01\x02\x03\x04\x05\x06\x07\x08\t\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f \"(),/;<=>?@[/]{}: x\r\n\r\n",
        BAD,
    ),
    (b"{G}\r\rZGET /evil: HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"{G}\rZGET /evil: HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"{G}\n{G}\r\n", BAD),
    // === hosts
    (b"GET /openai/v1/x HTTP/1.1\r\n\r\n", BAD),
    (b"{G}Host: b\r\n\r\n", BAD),
    (b"GET /openai/v1/x HTTP/1.1\r\nHost: a.test\x00.evil.test\r\n\r\n", BAD),
    (b"GET /openai/v1/x HTTP/1.1\r\nHost: a@b\r\n\r\n", BAD),
    (b"GET /openai/v1/x HTTP/1.1\r\nHost: \xffa\xff\r\n\r\n", BAD),
    (b"GET http://b/openai/v1/x HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    // === request lines
    (b"GET /openai/v1/x HTTP/1.32\r\nHost: a\r\n\r\n", BAD),
    (b"GET /openai/v1/x HTTP/4294967295.255\r\nHost: a\r\n\r\n", BAD),
    (b"GET /openai/v1/x HTTP/\r\r1.1\r\nHost: a\r\n\r\n", BAD),
    (b"\x00 /openai/v1/x HTTP/............0596.7407.\r\n\r\n", BAD),
    (b"GET /openai/v1/x HTTP/2.0\r\nHost: a\r\n\r\n", Refused(&[], 505)),
    (b"G=\":<>(e),[T];?\" /openai/v1/x HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET ! HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET /openai/v1/x\nHTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"POST /openai/v1/x  HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r0\n", BAD),
    (b"GET /openai/v1/x HTTP/1.1\nHost: a\nConnection: close\n\n", BAD),
    (b"GET /openai/v1/x\r\n\r\n", BAD),
    (b"\r\n\r\n{G}\r\n", BAD),
    (b"{G}\r\nGET /openai/v1/x", Forwarded(&[GET])),
    (b"{G}Connection: close\r\n\r\nInvalid\r\n\r\n", ForwardedLast(&[GET])),
    (b"{G}\r\nInvalid\r\n\r\n", Refused(&[GET], 400)),
    (b"{G}\r\n{G}\r\n", Forwarded(&[GET, GET])),
];

fn written(shape: &[u8]) -> Vec<u8> {
    let beginnings: [(&[u8], &[u8]); 3] = [
        (b"{G}", b"GET /openai/v1/x HTTP/1.1\r\nHost: a\r\n"),
        (b"{P}", b"POST /openai/v1/x HTTP/1.1\r\nHost: a\r\n"),
        (b"{C}", b"POST /openai/v1/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"),
    ];
    let mut bytes = Vec::new();
    let mut rest = shape;
    while let Some((first, after)) = rest.split_first() {
        match beginnings.iter().find(|(mark, _)| rest.starts_with(mark)) {
            Some((mark, text)) => {
                bytes.extend_from_slice(text);
                rest = &rest[mark.len()..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[test]
fn there_are_no_fewer_shapes_than_were_found() {
    assert!(SHAPES.len() >= 76, "{}", SHAPES.len());
}

#[test]
fn the_guard_refuses_each_shape_or_reads_it_in_one_way() {
    let mut wrong = Vec::new();
    for (shape, outcome) in SHAPES {
        let bytes = written(shape);
        let whole = feed(&bytes, &[], Limits::default());
        for cuts in [&[1][..], &[2], &[7, 1, 3], &[64, 5]] {
            assert_eq!(feed(&bytes, cuts, Limits::default()), whole, "{}", shape.escape_ascii());
        }
        let refused = whole.verdict != Verdict::Continue;
        if refused == matches!(outcome, Forwarded(_)) {
            wrong.push(format!("{}: {whole:?}", shape.escape_ascii()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Sends `bytes` in pieces to the sidecar and checks what becomes of them.
async fn check(system: &System, bytes: &[u8], piece: usize, outcome: Outcome) {
    let text = bytes.escape_ascii();
    let (forwarded, refusal) = match outcome {
        Refused(forwarded, status) => (forwarded, Some(status)),
        Forwarded(forwarded) | ForwardedLast(forwarded) => (forwarded, None),
    };
    system.provider.start_anew();
    for _ in forwarded {
        system.provider.json(200, "{}");
    }
    // For a request whose head was sound: it waits for the whole of the body.
    system.provider.script([Step::Stall]);
    let mut client = system.client();
    for piece in bytes.chunks(piece) {
        // What was refused is not read to its end.
        client.try_send(piece).await;
        tokio::task::yield_now().await;
    }
    let answers = String::from_utf8(client.rest().await).unwrap();
    let statuses = answers.split("HTTP/1.1 ").filter_map(|answer| answer.get(..3)?.parse::<u16>().ok());
    // A head that was begun and not finished is told so when its time is over.
    let statuses: Vec<u16> = statuses.filter(|status| *status != 408).collect();
    let expected: Vec<u16> = forwarded.iter().map(|_| 200).chain(refusal).collect();
    assert_eq!(statuses, expected, "{text}");
    assert!(refusal.is_none() || answers.contains("connection: close\r\n"), "{text}: {answers}");
    let received = system.provider.received();
    let read: Vec<(&str, &[u8])> = received.iter().map(|r| (r.line(), r.body.as_slice())).collect();
    let wanted: Vec<(&str, &[u8])> = forwarded.iter().map(|(line, body)| (*line, body.as_bytes())).collect();
    assert_eq!(read, wanted, "{text}");
    for request in &received {
        is_canonical(&request.head);
    }
}

/// One host, one framing, CRLF throughout.
fn is_canonical(head: &str) {
    let of = |name: &str| {
        let named = |line: &&str| line.to_ascii_lowercase().starts_with(&format!("{name}:"));
        head.split("\r\n").filter(named).count()
    };
    assert_eq!(of("host"), 1, "{head}");
    assert!(of("content-length") + of("transfer-encoding") <= 1, "{head}");
    assert!(header(head, "transfer-encoding").is_none_or(|coding| coding == "chunked"), "{head}");
    assert!(!head.replace("\r\n", "").contains(['\r', '\n', '\0']), "{head}");
}

#[test]
fn the_sidecar_refuses_each_shape_or_forwards_it_in_canonical_form() {
    run("", |system| async move {
        for (shape, outcome) in SHAPES {
            let bytes = written(shape);
            check(&system, &bytes, bytes.len(), *outcome).await;
            check(&system, &bytes, 1, *outcome).await;
        }
    });
}

#[test]
fn a_refused_body_never_reaches_the_upstream_as_a_whole_one_of_a_metered_call_either() {
    run("", |system| async move {
        for (shape, outcome) in SHAPES.iter().filter(|(shape, _)| shape.starts_with(b"{C}")) {
            if let Refused([], 400) = outcome {
                let text = String::from_utf8(written(shape)).unwrap();
                let text = text.replace("/v1/x", "/v1/chat/completions");
                check(&system, text.as_bytes(), text.len(), *outcome).await;
            }
        }
        assert_eq!(system.provider.connections(), 0, "nothing was sent before all of it was looked at");
        assert!(system.records().await.is_empty());
    });
}

/// The answer is 400, or the stream or the connection is ended as malformed.
async fn assert_refused(client: &mut Frames, fields: &[(&str, &str)]) {
    loop {
        let frame = client.next().await.expect("no answer");
        match frame.kind {
            kind::RST_STREAM | kind::GOAWAY => return,
            // 400 is in HPACK's static table.
            kind::HEADERS if frame.payload[0] == 0x8c => return,
            kind::HEADERS => panic!("{fields:?}: {frame:?}"),
            _ => {}
        }
    }
}

#[test]
fn http2_fields_that_http1_would_read_otherwise_are_refused() {
    let cases: [&[(&str, &str)]; 14] = [
        &[("test", "\ta\t")],
        &[("test", " a")],
        &[("test", "a ")],
        &[("", "")],
        &[("test", "a\r\nx: b")],
        &[("test", "a\nb")],
        &[("test", "a\0b")],
        &[("te\r\nst", "a")],
        &[("te st", "a")],
        &[("test:", "a")],
        &[("transfer-encoding", "chunked")],
        &[("connection", "close")],
        &[("content-length", "5")],
        &[("content-length", "2"), ("content-length", "3")],
    ];
    for fields in cases {
        run("", |system| async move {
            let mut client = system.frames(&[]).await;
            let head =
                [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/openai/v1/x")];
            client.head(1, 0, &[&head, fields].concat()).await;
            client.send(kind::DATA, END_STREAM, 1, b"{}").await;
            assert_refused(&mut client, fields).await;
            assert!(system.provider.received().is_empty(), "{fields:?} reached the upstream");
        });
    }
}

#[test]
fn http2_pseudo_headers_have_one_reading() {
    let cases: [&[(&str, &str)]; 8] = [
        &[(":path", "/openai/v1/x"), (":path", "/openai/v1/y")],
        &[(":path", "/openai/v1/x HTTP/1.1\r\nhost: b\r\n\r\nGET /evil")],
        &[(":path", "/openai/v1/x HTTP/1.1")],
        &[(":path", "openai/v1/x")],
        &[(":path", "http://b/openai/v1/x")],
        &[(":path", "")],
        &[(":path", "/openai/v1/x"), ("host", "b")],
        &[("x", "y"), (":path", "/openai/v1/x")],
    ];
    for fields in cases {
        run("", |system| async move {
            let mut client = system.frames(&[]).await;
            let head = [(":method", "GET"), (":scheme", "http"), (":authority", "a")];
            client.head(1, END_STREAM, &[&head, fields].concat()).await;
            assert_refused(&mut client, fields).await;
            assert_eq!(system.provider.connections(), 0, "{fields:?} reached the upstream");
        });
    }
}
