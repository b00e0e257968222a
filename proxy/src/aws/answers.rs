//! What credential endpoints answer: JSON of container and instance, XML of the token service.
//!
//! Invariants
//! - An answer has all parts of a key or is none; no message repeats any of it.
//!
//! Not here: asking (`sources`).

use super::credentials::Credentials;
use crate::config::{AwsKeys, Secret};
use bursar_domain::Timestamp;
use serde::Deserialize;
use std::rc::Rc;
use zeroize::Zeroize;

/// An answer without usable credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its answer has no credentials")]
pub(super) struct NoCredentials;

/// The answer of a container's or an instance's endpoint.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    code: Option<String>,
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.secret_access_key.zeroize();
        self.token.zeroize();
    }
}

/// Reads the JSON of a container's or an instance's endpoint.
pub(super) fn from_json(text: &[u8]) -> Result<Credentials, NoCredentials> {
    let answer: Answer = serde_json::from_slice(text).map_err(|_| NoCredentials)?;
    if answer.code.as_deref().is_some_and(|code| code != "Success") {
        return Err(NoCredentials);
    }
    let end = answer.expiration.as_deref();
    credentials(&answer.access_key_id, &answer.secret_access_key, answer.token.as_deref(), end)
}

/// Reads the XML of `AssumeRoleWithWebIdentity`. Its values have no characters that XML escapes.
pub(super) fn from_xml(text: &[u8]) -> Result<Credentials, NoCredentials> {
    let text = std::str::from_utf8(text).map_err(|_| NoCredentials)?;
    let value = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(value, _)| value.trim())
    };
    let (id, secret) = (value("AccessKeyId"), value("SecretAccessKey"));
    credentials(
        id.unwrap_or_default(),
        secret.unwrap_or_default(),
        value("SessionToken"),
        value("Expiration"),
    )
}

fn credentials(
    id: &str,
    secret: &str,
    session: Option<&str>,
    end: Option<&str>,
) -> Result<Credentials, NoCredentials> {
    if id.is_empty() || secret.is_empty() {
        return Err(NoCredentials);
    }
    let end: Option<jiff::Timestamp> = end.map(str::parse).transpose().map_err(|_| NoCredentials)?;
    let session = session.filter(|session| !session.is_empty()).map(Secret::new);
    Ok(Credentials {
        keys: Rc::new(AwsKeys { id: id.to_owned(), secret: Secret::new(secret), session }),
        expires_at: end.map(|end| Timestamp::from_micros(end.as_microsecond())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(
        credentials: Result<Credentials, NoCredentials>,
    ) -> Option<(String, String, Option<String>, i64)> {
        let Credentials { keys, expires_at } = credentials.ok()?;
        let session = keys.session.as_ref().map(|session| session.expose().to_owned());
        let end = expires_at.map_or(0, Timestamp::micros);
        Some((keys.id.clone(), keys.secret.expose().to_owned(), session, end))
    }

    fn expected() -> Option<(String, String, Option<String>, i64)> {
        Some(("ASIA1".to_owned(), "a/b+c".to_owned(), Some("t==".to_owned()), 1_795_352_400_000_000))
    }

    #[test]
    fn the_answers_of_endpoints_are_read() {
        let json = br#"{"Code":"Success","LastUpdated":"x","Type":"AWS-HMAC","AccessKeyId":"ASIA1",
            "SecretAccessKey":"a/b+c","Token":"t==","Expiration":"2026-11-22T13:00:00Z"}"#;
        assert_eq!(shown(from_json(json)), expected());
        let xml = b"<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>
            <SessionToken>t==</SessionToken><SecretAccessKey>a/b+c</SecretAccessKey>
            <Expiration>2026-11-22T13:00:00Z</Expiration><AccessKeyId>ASIA1</AccessKeyId></Credentials>
            </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
        assert_eq!(shown(from_xml(xml)), expected());
        let endless = from_json(br#"{"AccessKeyId":"a","SecretAccessKey":"b"}"#).unwrap();
        assert!(endless.expires_at.is_none() && endless.keys.session.is_none());
    }

    #[test]
    fn answers_without_credentials_are_refused() {
        for json in [
            "",
            "{}",
            r#"{"Code":"Failed","AccessKeyId":"a","SecretAccessKey":"b"}"#,
            r#"{"AccessKeyId":"a"}"#,
            r#"{"AccessKeyId":"","SecretAccessKey":"b"}"#,
            r#"{"AccessKeyId":"a","SecretAccessKey":"b","Expiration":"soon"}"#,
        ] {
            assert!(from_json(json.as_bytes()).is_err(), "{json}");
        }
        for xml in ["", "<Error><Code>AccessDenied</Code></Error>", "<AccessKeyId>a</AccessKeyId>", "\u{e9}"]
        {
            assert!(from_xml(xml.as_bytes()).is_err(), "{xml}");
        }
    }
}
