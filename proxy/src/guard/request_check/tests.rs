//! Requests as the server hands them over, good and bad, in HTTP/1 and HTTP/2.

use super::*;
use Rejection::*;
use http::HeaderValue as Value;

fn parts(version: Version, method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = http::Request::builder().version(version).method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, Value::from_bytes(value.as_bytes()).expect("value"));
    }
    request.body(()).expect("request").into_parts().0
}

fn verdict(parts: &Parts) -> Result<(), Rejection> {
    check_request(parts, BodyPresence::Empty, &Limits::default()).map(drop)
}

fn check_http1(method: &str, uri: &str, headers: &[(&str, &str)], expected: Result<(), Rejection>) {
    let headers = [&[("host", "a")], headers].concat();
    assert_eq!(
        verdict(&parts(Version::HTTP_11, method, uri, &headers)),
        expected,
        "{method} {uri} {headers:?}"
    );
}

fn check_http2(method: &str, path: &str, headers: &[(&str, &str)], expected: Result<(), Rejection>) {
    let uri = format!("https://a{path}");
    assert_eq!(
        verdict(&parts(Version::HTTP_2, method, &uri, headers)),
        expected,
        "{method} {path} {headers:?}"
    );
}

/// The same verdict in both versions.
fn check(method: &str, path: &str, headers: &[(&str, &str)], expected: Result<(), Rejection>) {
    check_http1(method, path, headers, expected);
    check_http2(method, path, headers, expected);
}

#[test]
fn ordinary_requests_pass_in_both_versions() {
    check("POST", "/v1/chat/completions", &[("authorization", "Bearer x"), ("content-length", "5")], Ok(()));
    check("GET", "/v1/models?limit=1&include[]=a", &[("accept", "a"), ("accept", "b")], Ok(()));
    check("POST", "/model/a%3A0/invoke", &[("x-bursar-team", "a"), ("x-bursar-tag-a_b", "c")], Ok(()));
    check("OPTIONS", "/v1", &[], Ok(()));
    check("POST", "/", &[("expect", "100-continue"), ("te", "trailers")], Ok(()));
    check_http1("OPTIONS", "*", &[], Ok(()));
    check_http1("POST", "/", &[("connection", "keep-alive"), ("transfer-encoding", "chunked")], Ok(()));
    check_http2("POST", "/", &[("host", "A")], Ok(()));
}

#[test]
fn space_around_a_value_is_refused_where_it_would_be_part_of_it() {
    for value in [" a", "a ", "\ta", "a\t", " "] {
        check_http2("GET", "/", &[("x", value)], Err(HeaderValue));
        check_http1("GET", "/", &[("x", value)], Ok(()));
    }
    check("GET", "/", &[("x", "a \tb"), ("y", "")], Ok(()));
}

#[test]
fn a_header_that_overrides_the_method_is_refused_unless_it_repeats_it() {
    for name in ["x-http-method-override", "X-HTTP-Method", "x-method-override"] {
        check_http1("GET", "/", &[(name, "POST")], Err(MethodOverride));
        check_http1("POST", "/", &[(name, "post")], Ok(()));
    }
    check_http2("GET", "/", &[("x-http-method-override", "POST")], Err(MethodOverride));
}

#[test]
fn the_same_rules_refuse_in_both_versions() {
    check("TRACE", "/", &[], Err(ForbiddenMethod));
    check("CONNECT", "/", &[], Err(ForbiddenMethod));
    check("X-BURSAR-REJECTED", "/1", &[], Err(UnknownMethod));
    check("get", "/", &[], Err(UnknownMethod));
    check("GET", "/v1/../x", &[], Err(DotSegment));
    check("GET", "/v1//x", &[], Err(EmptySegment));
    check("GET", "/v1/%2e%2e/x", &[], Err(NeedlessEncoding));
    check("GET", "/v1%2fx", &[], Err(EncodedDelimiter));
    check("GET", "/v1;a/x", &[], Err(MatrixParameter));
    check("GET", "/v1/%00", &[], Err(TargetPercent));
    check("GET", "/v1?%zz", &[], Err(TargetPercent));
    check("GET", "/v1?a\\b", &[], Err(TargetByte));
    check("GET", "/v1|x", &[], Err(TargetByte));
    check("GET", &format!("/{}", "a".repeat(8 * 1024)), &[], Err(TargetTooLong));
    check("POST", "/", &[("authorization", "a"), ("authorization", "b")], Err(RepeatedHeader));
    check("POST", "/", &[("x-bursar-team", "a"), ("x-bursar-team", "b")], Err(RepeatedHeader));
    check("POST", "/", &[("x-bursar-tag-a", "a"), ("x-bursar-tag-a", "b")], Err(RepeatedHeader));
    check("POST", "/", &[("x_bursar_team", "a")], Err(UnderscoreName));
    check("POST", "/", &[("x", "\u{e9}")], Err(ObsoleteText));
    check("POST", "/", &[("expect", "x")], Err(Expectation));
    check("POST", "/", &[("content-length", "05")], Err(ContentLength));
    check("POST", "/", &[("content-length", "33554433")], Err(BodyTooLarge));
    check("POST", "/", &[("content-length", "5"), ("content-length", "5")], Err(RepeatedHeader));
    check("GET", "/", &[("content-length", "5")], Err(UnexpectedBody));
    check("POST", "/", &[("x", "y"); 101], Err(TooManyHeaders));
    check("POST", "/", &[("x", &"y".repeat(16 * 1024))], Err(HeadTooLarge));
}

#[test]
fn hosts_must_be_named_once_and_agree() {
    let check = |version, uri: &str, headers: &[(&str, &str)], expected| {
        assert_eq!(verdict(&parts(version, "GET", uri, headers)), expected, "{uri} {headers:?}");
    };
    check(Version::HTTP_11, "/", &[], Err(HostMissing));
    check(Version::HTTP_10, "/", &[], Ok(()));
    check(Version::HTTP_11, "/", &[("host", "a b")], Err(HostInvalid));
    check(Version::HTTP_11, "/", &[("host", "a"), ("host", "a")], Err(RepeatedHeader));
    check(Version::HTTP_11, "http://a/", &[("host", "a")], Err(TargetForm));
    check(Version::HTTP_2, "/", &[("host", "a")], Ok(()));
    check(Version::HTTP_2, "/", &[], Err(HostMissing));
    check(Version::HTTP_2, "https://a/", &[("host", "b")], Err(HostConflict));
    check(Version::HTTP_2, "https://u@a/", &[], Err(HostInvalid));
}

#[test]
fn http2_refuses_what_belongs_to_an_http1_connection() {
    for name in ["connection", "keep-alive", "proxy-connection", "upgrade", "transfer-encoding"] {
        check_http2("POST", "/", &[(name, "x")], Err(ConnectionHeader));
    }
    check_http2("POST", "/", &[("te", "gzip")], Err(TeHeader));
    check_http2("POST", "/", &[("te", "trailers, gzip")], Err(TeHeader));
}

#[test]
fn a_body_on_get_is_refused_even_without_a_length() {
    let get = parts(Version::HTTP_2, "GET", "https://a/", &[]);
    let verdict = check_request(&get, BodyPresence::Present, &Limits::default());
    assert_eq!(verdict, Err(UnexpectedBody));
}

#[test]
fn the_result_names_the_decoded_path_and_the_upgrade() {
    let check = |upgrade: &[(&str, &str)], expected| {
        let headers = [&[("host", "a")], upgrade].concat();
        let parts = parts(Version::HTTP_11, "POST", "/m/a%3Ab?c=%3A", &headers);
        let checked = check_request(&parts, BodyPresence::Empty, &Limits::default());
        assert_eq!(checked, Ok(Checked { path: "/m/a:b".into(), upgrade: expected }));
    };
    check(&[], Upgrade::None);
    check(&[("upgrade", "WebSocket")], Upgrade::WebSocket);
    check(&[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c")], Upgrade::Other);
}
