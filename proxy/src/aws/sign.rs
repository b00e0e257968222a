//! The signature of one request (AWS Signature Version 4, by the `aws-sigv4` crate).
//!
//! Rules
//! - Signed are the host, the content type and the headers of AWS, but for `x-amzn-trace-id`, which hops
//!   may change. Other headers may pass through more hands before they are sent.
//! - The path is signed as it is sent, escaped once more: a model's `%3A` becomes `%253A`.
//!
//! Not here: credentials, the headers of the client's own signature (`forward` takes them away).

use super::{Authorization, Unsigned};
use crate::config::{AwsKeys, SigV4};
use aws_credential_types::Credentials;
use aws_lc_rs::digest;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings};
use aws_sigv4::sign::v4;
use bursar_domain::Timestamp;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use std::fmt::Write;
use std::time::{Duration, SystemTime};

/// Headers of AWS that are made anew or not signed.
const LEFT_OUT: [&str; 4] = ["x-amz-date", "x-amz-security-token", "x-amz-content-sha256", "x-amzn-trace-id"];

/// Why a request has no form that can be signed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FormError {
    /// A header that is signed is no text.
    #[error("the header {0} is not ASCII text")]
    NotText(HeaderName),
    /// The time is before 1970.
    #[error("the clock shows a time before 1970")]
    Clock,
    /// The signer refused it.
    #[error("the signer refuses it")]
    Refused,
}

/// The headers that authorize `request` at `now`.
pub(super) fn sign(
    scope: &SigV4,
    keys: &AwsKeys,
    request: Unsigned<'_>,
    now: Timestamp,
) -> Result<Authorization, FormError> {
    let identity = identity(keys);
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(&scope.region)
        .name(scope.service)
        .time(time_of(now)?)
        .settings(SigningSettings::default())
        .build()
        .map_err(|_| FormError::Refused)?
        .into();
    let headers = signed_headers(request.head)?;
    let Unsigned { origin, target, head, body } = request;
    let url = format!("https://{}{target}", origin.authority);
    let host = ("host", origin.authority.as_str());
    let signable = SignableRequest::new(
        head.method.as_str(),
        url,
        std::iter::once(host).chain(headers),
        SignableBody::Precomputed(hash(body)),
    )
    .map_err(|_| FormError::Refused)?;
    let signed = aws_sigv4::http_request::sign(signable, &params).map_err(|_| FormError::Refused)?;
    let header = |(name, value): (&str, &str)| {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| FormError::Refused)?;
        let mut value = HeaderValue::from_str(value).map_err(|_| FormError::Refused)?;
        value.set_sensitive(true);
        Ok((name, value))
    };
    signed.output().headers().map(header).collect()
}

fn identity(keys: &AwsKeys) -> aws_smithy_runtime_api::client::identity::Identity {
    let session = keys.session.as_ref().map(|session| session.expose().to_owned());
    Credentials::new(keys.id.as_str(), keys.secret.expose(), session, None, "bursar").into()
}

fn time_of(now: Timestamp) -> Result<SystemTime, FormError> {
    let micros = u64::try_from(now.micros()).map_err(|_| FormError::Clock)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(micros)).ok_or(FormError::Clock)
}

fn signed_headers(head: &http::request::Parts) -> Result<Vec<(&str, &str)>, FormError> {
    let is_signed = |name: &HeaderName| {
        let text = name.as_str();
        name == CONTENT_TYPE || (text.starts_with("x-amz") && !LEFT_OUT.contains(&text))
    };
    let signed = head.headers.iter().filter(|(name, _)| is_signed(name));
    signed
        .map(|(name, value)| {
            let text = value.to_str().map_err(|_| FormError::NotText(name.clone()))?;
            Ok((name.as_str(), text))
        })
        .collect()
}

/// The SHA-256 of a body in hexadecimal digits.
fn hash(body: &[Bytes]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for piece in body {
        context.update(piece);
    }
    context.finish().as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AwsEnvironment, Protocol, Secret};
    use crate::upstream::Origin;
    use http::Request;
    use http::uri::PathAndQuery;
    use std::sync::Arc;

    /// 2015-08-30T12:36:00Z, the time of AWS's published examples.
    const EXAMPLE_TIME: Timestamp = Timestamp::from_micros(1_440_938_160_000_000);

    fn keys(session: Option<&str>) -> AwsKeys {
        AwsKeys {
            id: "AKIDEXAMPLE".to_owned(),
            secret: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            session: session.map(Secret::new),
        }
    }

    struct Case<'a> {
        service: &'static str,
        host: &'a str,
        target: &'a str,
        headers: &'a [(&'static str, &'static str)],
        body: Option<&'a str>,
        session: Option<&'static str>,
    }

    fn signed(case: &Case<'_>) -> Authorization {
        let scope = SigV4 {
            region: "us-east-1".into(),
            service: case.service,
            environment: Arc::new(AwsEnvironment::default()),
        };
        let mut request = Request::builder().method(if case.body.is_some() { "POST" } else { "GET" });
        for (name, value) in case.headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let origin = Origin { secure: true, authority: case.host.parse().unwrap(), protocol: Protocol::Auto };
        let target: PathAndQuery = case.target.parse().unwrap();
        // In two pieces, which make no difference.
        let body = case.body.unwrap_or_default();
        let (one, two) = body.split_at(body.len() / 2);
        let body = [Bytes::from(one.to_owned()), Bytes::from(two.to_owned())];
        let unsigned = Unsigned { origin: &origin, target: &target, head: &head, body: &body };
        sign(&scope, &keys(case.session), unsigned, EXAMPLE_TIME).unwrap()
    }

    fn value<'a>(made: &'a Authorization, name: &str) -> Option<&'a str> {
        made.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.to_str().ok())
    }

    fn check(case: &Case<'_>, signed_headers: &str, signature: &str) {
        let made = signed(case);
        let expected = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/{}/aws4_request, \
             SignedHeaders={signed_headers}, Signature={signature}",
            case.service
        );
        assert_eq!(value(&made, "authorization"), Some(expected.as_str()));
        assert_eq!(value(&made, "x-amz-date"), Some("20150830T123600Z"));
        assert_eq!(value(&made, "x-amz-security-token"), case.session);
        assert!(made.iter().all(|(_, value)| value.is_sensitive()), "{made:?}");
    }

    #[test]
    fn the_example_of_the_documentation_gets_its_published_signature() {
        check(
            &Case {
                service: "iam",
                host: "iam.amazonaws.com",
                target: "/?Action=ListUsers&Version=2010-05-08",
                headers: &[
                    ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
                    ("x-other", "not signed"),
                    ("x-amzn-trace-id", "not signed"),
                    ("x-amz-date", "the client's own"),
                ],
                body: None,
                session: None,
            },
            "content-type;host;x-amz-date",
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
        );
    }

    #[test]
    fn the_plainest_case_of_the_published_test_suite_gets_its_signature() {
        check(
            &Case {
                service: "service",
                host: "example.amazonaws.com",
                target: "/",
                headers: &[],
                body: None,
                session: None,
            },
            "host;x-amz-date",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        );
    }

    /// Signatures that botocore 1.44.5 makes of the same requests.
    #[test]
    fn requests_to_bedrock_are_signed_as_botocore_signs_them() {
        let json = ("content-type", "application/json");
        check(
            &Case {
                service: "bedrock",
                host: "bedrock-runtime.us-east-1.amazonaws.com",
                target: "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2F\
                         us.amazon.nova-lite-v1%3A0/converse",
                headers: &[
                    json,
                    ("x-amzn-bedrock-trace", "ENABLED"),
                    ("x-amz-security-token", "the client's"),
                ],
                body: Some(r#"{"messages":[]}"#),
                session: Some("session-token+/=="),
            },
            "content-type;host;x-amz-date;x-amz-security-token;x-amzn-bedrock-trace",
            "0b3d19efc373426a75bf0f728f29e5ac13ce42b98c6039fbda8eb9952a3ce689",
        );
        check(
            &Case {
                service: "bedrock-mantle",
                host: "bedrock-mantle.us-east-1.api.aws",
                target: "/v1/chat/completions",
                headers: &[json],
                body: Some("{}"),
                session: None,
            },
            "content-type;host;x-amz-date",
            "93a7705d1eea5d1c1ba5449e7d1389ed6c1bb764d66f68fe75eab0d45a877ee0",
        );
        check(
            &Case {
                service: "bedrock",
                host: "bedrock-runtime.us-east-1.amazonaws.com",
                target: "/model/us.amazon.nova-lite-v1:0/converse?b=2&a=%201",
                headers: &[json],
                body: Some("{}"),
                session: None,
            },
            "content-type;host;x-amz-date",
            "6d19cb15285a55745157beba5b2524dd067cc8b6b165d5b962ba22e687a99d8c",
        );
    }

    #[test]
    fn a_header_that_is_no_text_cannot_be_signed() {
        let (mut head, ()) = Request::new(()).into_parts();
        head.headers.insert("x-amzn-bedrock-trace", HeaderValue::from_bytes(b"\xe9").unwrap());
        assert!(matches!(signed_headers(&head), Err(FormError::NotText(_))));
    }
}
