//! AWS Signature Version 4, written down once more from its specification, to check what arrives at an
//! upstream ("Create a signed AWS API request", AWS IAM user guide).
//!
//! Not here: the sidecar's own signer.

use aws_lc_rs::{digest, hmac};
use bursar_tests::provider::Received;
use std::fmt::Write;

/// What a signature is made with and for.
pub(crate) struct Scope<'a> {
    pub(crate) id: &'a str,
    pub(crate) secret: &'a str,
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
    /// `YYYYMMDDTHHMMSSZ`.
    pub(crate) time: &'a str,
}

/// A request to be signed.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    /// Signed headers, sorted by name, names in lower case.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a [u8],
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

/// Escapes everything but unreserved characters and slashes: a second time, for a path that is escaped.
fn escape(path: &str) -> String {
    path.bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(char::from(byte));
            }
            _ => write!(text, "%{byte:02X}").unwrap(),
        }
        text
    })
}

/// The value of `authorization`.
pub(crate) fn authorization(scope: &Scope<'_>, request: &Request<'_>) -> String {
    let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
    let mut pairs: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty()).collect();
    pairs.sort_unstable();
    let names: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
    let lines: String = request.headers.iter().map(|(n, v)| format!("{n}:{}\n", v.trim())).collect();
    let names = names.join(";");
    let hash = hex(digest::digest(&digest::SHA256, request.body).as_ref());
    let canonical =
        format!("{}\n{}\n{}\n{lines}\n{names}\n{hash}", request.method, escape(path), pairs.join("&"));
    let Scope { id, secret, region, service, time } = scope;
    let day = &time[..8];
    let place = format!("{day}/{region}/{service}/aws4_request");
    let canonical_hash = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{place}\n{canonical_hash}");
    let key = [*region, *service, "aws4_request"]
        .iter()
        .fold(mac(format!("AWS4{secret}").as_bytes(), day), |key, part| mac(&key, part));
    let signature = hex(&mac(&key, &text));
    format!("AWS4-HMAC-SHA256 Credential={id}/{place}, SignedHeaders={names}, Signature={signature}")
}

/// Checks the signature of a request as its upstream would, for that region and service.
pub(crate) fn verify(received: &Received, id: &str, secret: &str, region: &str, service: &str) {
    let given = received.header("authorization").expect("no signature");
    let names = given.split("SignedHeaders=").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
    let headers: Vec<(&str, &str)> = names
        .split(';')
        .map(|name| (name, received.header(name).expect("a signed header is missing")))
        .collect();
    assert!(headers.is_sorted() && headers.iter().any(|(name, _)| *name == "host"), "{names}");
    let mut line = received.line().split(' ');
    let (method, target) = (line.next().unwrap(), line.next().unwrap());
    let time = received.header("x-amz-date").expect("no date");
    let scope = Scope { id, secret, region, service, time };
    let request = Request { method, target, headers: &headers, body: &received.body };
    assert_eq!(given, authorization(&scope, &request));
}

#[test]
fn the_published_example_has_its_published_signature() {
    let scope = Scope {
        id: "AKIDEXAMPLE",
        secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        region: "us-east-1",
        service: "iam",
        time: "20150830T123600Z",
    };
    let request = Request {
        method: "GET",
        target: "/?Version=2010-05-08&Action=ListUsers",
        headers: &[
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("host", "iam.amazonaws.com"),
            ("x-amz-date", "20150830T123600Z"),
        ],
        body: b"",
    };
    let made = authorization(&scope, &request);
    assert!(made.ends_with("5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"), "{made}");
}
