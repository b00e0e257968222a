//! Good and bad request streams, each fed whole, byte by byte and at every cut.

use super::super::fuzz::{Outcome, feed};
use super::*;
use Rejection::*;

/// Feeds `stream` in every way; all must agree.
fn outcome(stream: &[u8]) -> Outcome {
    let limits = Limits::default();
    let whole = feed(stream, &[], limits);
    assert_eq!(feed(stream, &[1], limits), whole, "byte by byte: {}", stream.escape_ascii());
    let step = stream.len() / 512 + 1;
    for cut in (1..stream.len()).step_by(step) {
        let cut_once = feed(stream, &[cut, stream.len()], limits);
        assert_eq!(cut_once, whole, "cut at {cut}: {}", stream.escape_ascii());
    }
    whole
}

fn passes(stream: impl AsRef<[u8]>, heads: u32) {
    let stream = stream.as_ref();
    let Outcome { passed, heads: found, verdict, .. } = outcome(stream);
    let text = stream.escape_ascii();
    assert_eq!((passed, found, verdict), (stream.len(), heads, Verdict::Continue), "{text}");
}

/// The head is refused and nothing of it passes.
fn refuses(stream: impl AsRef<[u8]>, reason: Rejection) {
    refuses_after(stream, 0, Verdict::RejectHead(reason));
}

fn refuses_after(stream: impl AsRef<[u8]>, passed: usize, verdict: Verdict) {
    let stream = stream.as_ref();
    let found = outcome(stream);
    assert_eq!((found.passed, found.verdict), (passed, verdict), "{}", stream.escape_ascii());
}

/// A POST with these header lines (each ending in CRLF) after `Host`.
fn post(headers: &str) -> String {
    format!("POST /v1/x HTTP/1.1\r\nHost: a\r\n{headers}\r\n")
}

/// A GET with this request line and one `Host`.
fn line(request_line: &str) -> String {
    format!("{request_line}\r\nHost: a\r\n\r\n")
}

#[test]
fn good_requests_pass_unchanged() {
    for stream in [
        line("GET / HTTP/1.1"),
        line("HEAD /v1/models HTTP/1.1"),
        line("DELETE /v1/files/file-1 HTTP/1.1"),
        line("OPTIONS * HTTP/1.1"),
        line("OPTIONS /v1 HTTP/1.1"),
        line("GET /v1/models?limit=1&after=a%20b HTTP/1.1"),
        line("GET /health HTTP/1.0"),
        "GET /health HTTP/1.0\r\n\r\n".into(),
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET / HTTP/1.1\r\nhOsT: [::1]:80\r\n\r\n".into(),
        "GET / HTTP/1.1\r\nHost:a\r\n\r\n".into(),
        post(""),
        post("Content-Length: 0\r\n"),
        post("X-Empty:\r\n"),
        post("X-Tab:\ta\tb \r\n"),
        post("X-Odd-Name!#$%&'*+.^_`|~: 1\r\n"),
        post("x-bursar-team: a\r\nX-Bursar-Tag-cost_center: b\r\nx_other: 1\r\n"),
        post("Accept: a\r\nAccept: b\r\nCookie: a\r\nCookie: b\r\n"),
        post("Connection: keep-alive\r\nUpgrade: h2c\r\nTE: trailers\r\nTrailer: x-sum\r\n"),
        post("Content-Length: 5\r\n") + "hello",
        post("Content-Length: 5\r\nExpect: 100-Continue\r\n") + "\r\n\r\n\0",
        post("Transfer-Encoding: chunked\r\n") + "0\r\n\r\n",
        post("transfer-encoding:CHUNKED\r\n") + "5\r\nhello\r\n00A\r\n0123456789\r\n00000000\r\n\r\n",
        post("Transfer-Encoding: chunked\r\n") + "1\r\n\n\r\n0\r\nx-sum: 1\r\nx-b: \r\n\r\n",
        "POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nab".into(),
    ] {
        passes(&stream, 1);
        passes(stream.repeat(3), 3);
    }
}

#[test]
fn request_lines_have_one_form() {
    for (text, reason) in [
        ("GET  / HTTP/1.1", RequestLine),
        ("GET /  HTTP/1.1", RequestLine),
        ("GET / HTTP/1.1 ", RequestLine),
        (" GET / HTTP/1.1", RequestLine),
        ("GET\t/ HTTP/1.1", RequestLine),
        ("GET /\tHTTP/1.1", RequestLine),
        ("GET / a HTTP/1.1", RequestLine),
        ("GET /", RequestLine),
        ("GET", RequestLine),
        ("GET HTTP/1.1", RequestLine),
        ("GET / http/1.1", RequestLine),
        ("GET / HTTP/1.1x", RequestLine),
        ("GET / HTTP/11", RequestLine),
        ("GET / HTTP/1.10", RequestLine),
        ("GET / HTTP /1.1", RequestLine),
        ("GET / HTTPS/1.1", RequestLine),
        ("G\0T / HTTP/1.1", RequestLine),
        ("G(T / HTTP/1.1", RequestLine),
        ("\u{16}\u{3}\u{1} / HTTP/1.1", RequestLine),
        ("\u{e9}ET / HTTP/1.1", RequestLine),
        ("GET / HTTP/1.2", HttpVersion),
        ("GET / HTTP/0.9", HttpVersion),
        ("GET / HTTP/2.0", HttpVersion),
        ("PRI * HTTP/2.0", HttpVersion),
        ("get / HTTP/1.1", UnknownMethod),
        ("PROPFIND / HTTP/1.1", UnknownMethod),
        ("PURGE / HTTP/1.1", UnknownMethod),
        ("X-BURSAR-REJECTED /1 HTTP/1.1", UnknownMethod),
        ("CONNECT a:443 HTTP/1.1", ForbiddenMethod),
        ("TRACE / HTTP/1.1", ForbiddenMethod),
        ("GET * HTTP/1.1", TargetForm),
        ("OPTIONS ** HTTP/1.1", TargetForm),
        ("GET http://a/ HTTP/1.1", TargetForm),
        ("GET https://a HTTP/1.1", TargetForm),
        ("GET a:80 HTTP/1.1", TargetForm),
        ("GET v1 HTTP/1.1", TargetForm),
        ("GET ! HTTP/1.1", TargetForm),
        ("GET ?a HTTP/1.1", TargetForm),
        ("GET /a#b HTTP/1.1", TargetByte),
        ("GET /a\\b HTTP/1.1", TargetByte),
        ("GET /a\u{1}b HTTP/1.1", TargetByte),
        ("GET /a\0b HTTP/1.1", TargetByte),
        ("GET /a\rb HTTP/1.1", TargetByte),
        ("GET /\u{e9} HTTP/1.1", TargetByte),
        ("GET /%00 HTTP/1.1", TargetPercent),
        ("GET /%zz HTTP/1.1", TargetPercent),
        ("GET /% HTTP/1.1", TargetPercent),
        ("GET /?a=%1 HTTP/1.1", TargetPercent),
    ] {
        refuses(line(text), reason);
    }
}

#[test]
fn line_ends_are_crlf() {
    for stream in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\rContent-Length: 5\r\n\r\n",
        "\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        refuses(stream, LineEnding);
    }
    refuses("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", RequestLine);
    refuses("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine);
    refuses("GET / HTTP/1.1\r\nHost: a\r\n\r\r\n", HeaderName);
    refuses("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", LeadingLines);
}

#[test]
fn header_lines_have_one_form() {
    for (headers, reason) in [
        ("X : 1\r\n", SpaceBeforeColon),
        ("X\t: 1\r\n", SpaceBeforeColon),
        ("X y: 1\r\n", SpaceBeforeColon),
        ("Content-Length : 5\r\n", SpaceBeforeColon),
        ("Transfer-Encoding : chunked\r\n", SpaceBeforeColon),
        (" X: 1\r\n", FoldedHeader),
        ("\tX: 1\r\n", FoldedHeader),
        ("X: 1\r\n 2\r\n", FoldedHeader),
        ("X: 1\r\n\t2\r\n", FoldedHeader),
        ("X:\r\n 1\r\n", FoldedHeader),
        ("Transfer-Encoding:\r\n chunked\r\n", TransferEncoding),
        ("Transfer-Encoding: chunked\r\n , identity\r\n", FoldedHeader),
        (" \r\n", FoldedHeader),
        (": 1\r\n", HeaderName),
        ("X\r\n", HeaderName),
        ("X\0: 1\r\n", HeaderName),
        ("X\0Y: 1\r\n", HeaderName),
        ("X(: 1\r\n", HeaderName),
        ("\"X\": 1\r\n", HeaderName),
        ("X\u{e9}: 1\r\n", HeaderName),
        ("X/Y: 1\r\n", HeaderName),
        ("\u{b}Transfer-Encoding: chunked\r\n", HeaderName),
        ("Transfer-Encoding\u{b}: chunked\r\n", HeaderName),
        ("GET / HTTP/1.1\r\n", SpaceBeforeColon),
        ("X: a\0b\r\n", HeaderValue),
        ("X: a\u{1}\r\n", HeaderValue),
        ("X: a\u{7f}\r\n", HeaderValue),
        ("X: a\u{b}b\r\n", HeaderValue),
        ("X: \u{1b}[31m\r\n", HeaderValue),
        ("X: \u{e9}\r\n", ObsoleteText),
        ("x_bursar_team: a\r\n", UnderscoreName),
        ("X_Bursar_Team: a\r\n", UnderscoreName),
        ("X-Bursar_Team: a\r\n", UnderscoreName),
        ("x_bursar-tag-a: a\r\n", UnderscoreName),
        ("Expect: 200-ok\r\n", Expectation),
        ("Expect:\r\n", Expectation),
        ("Expect: 100-continue, x\r\n", Expectation),
        ("Content-Type: a\r\nContent-Type: a\r\n", RepeatedHeader),
        ("Content-Encoding: gzip\r\ncontent-encoding: gzip\r\n", RepeatedHeader),
        ("Authorization: a\r\nAuthorization: b\r\n", RepeatedHeader),
        ("x-api-key: a\r\nX-Api-Key: b\r\n", RepeatedHeader),
        ("Expect: 100-continue\r\nExpect: 100-continue\r\n", RepeatedHeader),
        ("Host: a\r\n", RepeatedHeader),
        ("host: b\r\n", RepeatedHeader),
    ] {
        refuses(post(headers), reason);
    }
}

#[test]
fn one_valid_host_is_required() {
    refuses("GET / HTTP/1.1\r\n\r\n", HostMissing);
    refuses("GET / HTTP/1.1\r\nX-Host: a\r\n\r\n", HostMissing);
    for host in [
        "",
        " ",
        " a ",
        " a b",
        " a,b",
        " a/b",
        " u@a",
        " a:x",
        " a:70000",
        "  a",
        "\ta",
        " a\t",
        " http://a",
    ] {
        refuses(format!("GET / HTTP/1.1\r\nHost:{host}\r\n\r\n"), HostInvalid);
    }
}

#[test]
fn transfer_encoding_is_exactly_chunked_and_alone() {
    for value in [
        " xchunked",
        "  chunked",
        "\tchunked",
        " \tchunked",
        " chunked ",
        " chunked\t",
        " ,chunked",
        " chunked,",
        " chunked, identity",
        " identity, chunked",
        " chunked, chunked",
        " gzip, chunked",
        " identity",
        " gzip",
        "",
        " \"chunked\"",
        " chunked;q=1",
        " chunke",
        " chunkedd",
        " 'chunked'",
        " chunked;",
    ] {
        refuses(post(&format!("Transfer-Encoding:{value}\r\n")), TransferEncoding);
    }
    for value in [" \u{b}chunked", " \u{c}chunked", " chunked\0"] {
        refuses(post(&format!("Transfer-Encoding:{value}\r\n")), HeaderValue);
    }
    for (headers, reason) in [
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", RepeatedHeader),
        ("Transfer-Encoding: chunked\r\ntransfer-encoding: identity\r\n", RepeatedHeader),
        ("Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n", TransferEncoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", TransferEncodingWithLength),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", TransferEncodingWithLength),
        ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", TransferEncodingWithLength),
    ] {
        refuses(post(headers) + "0\r\n\r\n", reason);
    }
    refuses("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", TransferEncodingVersion);
}

#[test]
fn content_length_is_one_plain_number() {
    for value in [
        "",
        " +5",
        " -5",
        " -0",
        " 0x5",
        " 5, 5",
        " 5,5",
        " 5 5",
        " 010",
        " 00",
        " 5.0",
        " 5e1",
        " five",
        "  5",
        "\t5",
        " 5 ",
        " 5;",
        " \"5\"",
        " 9007199254740993",
        " 18446744073709551616",
        " 99999999999999999999999",
    ] {
        refuses(post(&format!("Content-Length:{value}\r\n")) + "hello", ContentLength);
    }
    refuses(post("Content-Length: 5\r\nContent-Length: 5\r\n") + "hello", RepeatedHeader);
    refuses(post("Content-Length: 5\r\ncontent-length: 6\r\n") + "hello!", RepeatedHeader);
    refuses(post("Content-Length: 33554433\r\n"), BodyTooLarge);
    passes(post("Content-Length: 33554432\r\n"), 1);
    for method in ["GET", "HEAD"] {
        let head = format!("{method} / HTTP/1.1\r\nHost: a\r\n");
        passes(format!("{head}Content-Length: 0\r\n\r\n"), 1);
        refuses(format!("{head}Content-Length: 1\r\n\r\nx"), UnexpectedBody);
        refuses(format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), UnexpectedBody);
    }
}

#[test]
fn chunks_have_one_form_and_pass_up_to_the_first_wrong_byte() {
    let head = post("Transfer-Encoding: chunked\r\n");
    for (good, bad, reason) in [
        ("", "\r\n", ChunkSize),
        ("", "g\r\n", ChunkSize),
        ("", " 5\r\n", ChunkSize),
        ("", "+5\r\n", ChunkSize),
        ("", "-1\r\n", ChunkSize),
        ("0", "x5\r\n", ChunkSize),
        ("5", "\nhello", ChunkSize),
        ("5\r", "hello", ChunkSize),
        ("5\r", "\rhello", ChunkSize),
        ("5", "_0\r\n", ChunkSize),
        ("00000000", "5\r\n", ChunkSize),
        ("ffffffff", "ffffffff1\r\n", ChunkSize),
        ("5", ";a=b\r\nhello", ChunkExtension),
        ("5", ";\r\nhello", ChunkExtension),
        ("5", " ;a\r\nhello", ChunkExtension),
        ("5", " \r\nhello", ChunkExtension),
        ("5", "\t\r\nhello", ChunkExtension),
        ("0", ";a\r\n\r\n", ChunkExtension),
        ("5\r\nhello", "0\r\n\r\n", ChunkEnd),
        ("5\r\nhello", "\n0\r\n\r\n", ChunkEnd),
        ("5\r\nhello\r", "X0\r\n\r\n", ChunkEnd),
        ("5\r\nhello", "world\r\n", ChunkEnd),
        ("2000001\r", "\n", BodyTooLarge),
        ("ffffffff\r", "\n", BodyTooLarge),
        ("1\r\na\r\n2000000\r", "\n", BodyTooLarge),
        ("0\r\n", "X : 1\r\n\r\n", SpaceBeforeColon),
        ("0\r\n", " X: 1\r\n\r\n", FoldedHeader),
        ("0\r\n", "X: a\n\r\n", LineEnding),
        ("0\r\n", "X: \u{e9}\r\n\r\n", ObsoleteText),
        ("0\r\n", "X\r\n\r\n", HeaderName),
        ("0\r\n", "\n", LineEnding),
        ("0\r\n", "Content-Length: 5\r\n\r\n", ForbiddenTrailer),
        ("0\r\n", "Transfer-Encoding: chunked\r\n\r\n", ForbiddenTrailer),
        ("0\r\n", "x-a: 1\r\nHost: b\r\n\r\n", ForbiddenTrailer),
        ("0\r\n", "Authorization: b\r\n\r\n", ForbiddenTrailer),
        ("0\r\n", "x-bursar-team: b\r\n\r\n", ForbiddenTrailer),
        ("0\r\n", "x_bursar_team: b\r\n\r\n", ForbiddenTrailer),
    ] {
        let passed = head.len() + good.len();
        refuses_after(format!("{head}{good}{bad}"), passed, Verdict::RejectBody(reason));
    }
    let trailers = "x: 1\r\n".repeat(17);
    let passed = head.len() + 3;
    refuses_after(format!("{head}0\r\n{trailers}\r\n"), passed, Verdict::RejectBody(TooManyTrailers));
    let long = format!("{head}0\r\nx: {}\r\n\r\n", "a".repeat(8 * 1024));
    refuses_after(long, passed, Verdict::RejectBody(TrailersTooLarge));
}

#[test]
fn a_request_smuggled_behind_a_body_is_judged_as_a_request() {
    let good = post("Content-Length: 5\r\n") + "hello";
    for bad in ["x", "hello", "0\r\n\r\n", "GET /admin HTTP/1.1\r\nX: y"] {
        let stream = good.clone() + bad;
        let Outcome { passed, heads, .. } = outcome(stream.as_bytes());
        assert_eq!((passed, heads), (good.len(), 1), "{bad}");
    }
    refuses_after(good.clone() + &line("GET /a#b HTTP/1.1"), good.len(), Verdict::RejectHead(TargetByte));
}

#[test]
fn sizes_are_exact() {
    let limits = Limits::default();
    let with_headers =
        |count| line("GET / HTTP/1.1").replace("\r\n\r\n", &format!("\r\n{}\r\n", "x: 1\r\n".repeat(count)));
    passes(with_headers(limits.headers_max - 1), 1);
    refuses(with_headers(limits.headers_max), TooManyHeaders);

    let of_size = |size: usize| {
        let start = "GET / HTTP/1.1\r\nHost: a\r\nx: ";
        format!("{start}{}\r\n\r\n", "a".repeat(size - start.len() - 4))
    };
    passes(of_size(limits.head_bytes_max), 1);
    refuses(of_size(limits.head_bytes_max + 1), HeadTooLarge);
    refuses(of_size(limits.head_bytes_max * 2), HeadTooLarge);

    let with_target = |size: usize| line(&format!("GET /{} HTTP/1.1", "a".repeat(size - 1)));
    passes(with_target(limits.target_bytes_max), 1);
    refuses(with_target(limits.target_bytes_max + 1), TargetTooLong);
    refuses(with_target(limits.head_bytes_max * 2), TargetTooLong);
    refuses("A".repeat(limits.head_bytes_max), TargetTooLong);
}

#[test]
fn incomplete_heads_wait() {
    for stream in [
        "G",
        "GET /",
        "GET / HTTP/1.1\r",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r",
        "\r\n",
    ] {
        let found = outcome(stream.as_bytes());
        assert_eq!((found.passed, found.heads, found.verdict), (0, 0, Verdict::Continue));
    }
}

#[test]
fn the_position_follows_the_stream() {
    let mut guard = Http1Guard::new(Limits::default());
    let stream = post("Content-Length: 2\r\nUpgrade: websocket\r\nExpect: 100-continue\r\n") + "ab";
    assert_eq!(guard.position(), Position::Between);
    guard.inspect(&stream.as_bytes()[..1]);
    assert_eq!(guard.position(), Position::Head);
    guard.inspect(&stream.as_bytes()[..stream.len() - 1]);
    assert_eq!(guard.position(), Position::Body);
    let head = HeadInfo { framing: Framing::Length(2), upgrade: true, expects_continue: true };
    assert_eq!(guard.last_head(), Some(head));
    guard.inspect(b"b");
    assert_eq!(guard.position(), Position::Between);
}
