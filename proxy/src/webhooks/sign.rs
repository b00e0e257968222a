//! Signatures of webhooks, as Standard Webhooks has them: HMAC-SHA256 over id, time and body.
//!
//! Invariant: a secret is used here and shown nowhere.
//!
//! The scheme: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.
//!
//! Not here: when something is sent (`webhooks`).

use crate::config::Secret;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

/// How secrets begin that are written in base64.
const PREFIX: &str = "whsec_";

/// The bytes that sign: those that base64 behind `whsec_` means, or else the text itself. `None` where it
/// says base64 and is none.
pub(crate) fn key_of(secret: &Secret) -> Option<Zeroizing<Vec<u8>>> {
    match secret.expose().strip_prefix(PREFIX) {
        Some(text) => BASE64_STANDARD.decode(text).ok().filter(|key| !key.is_empty()).map(Zeroizing::new),
        None => Some(Zeroizing::new(secret.expose().as_bytes().to_vec())),
    }
}

/// The value of `webhook-signature`: one signature by each secret, of which a receiver knows one.
pub(super) fn signatures(secrets: &[Secret], id: &str, seconds: i64, body: &str) -> String {
    let signed = format!("{id}.{seconds}.{body}");
    let one = |key: Zeroizing<Vec<u8>>| {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed.as_bytes());
        format!("v1,{}", BASE64_STANDARD.encode(tag.as_ref()))
    };
    let all: Vec<String> = secrets.iter().filter_map(key_of).map(one).collect();
    all.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_standards_own_example() {
        // The test vector of https://github.com/standard-webhooks/standard-webhooks, in its libraries.
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let body = r#"{"test": 2432232314}"#;
        let told =
            |secrets: &[Secret]| signatures(secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(told(std::slice::from_ref(&secret)), expected);
        let both = told(&[Secret::new("another"), secret]);
        assert!(both.ends_with(&format!(" {expected}")) && both.matches("v1,").count() == 2, "{both}");
    }

    #[test]
    fn a_secret_may_be_plain_text_but_not_half_of_base64() {
        assert_eq!(**key_of(&Secret::new("plain")).unwrap(), *b"plain");
        assert_eq!(key_of(&Secret::new("whsec_%%")), None);
        assert_eq!(key_of(&Secret::new("whsec_")), None);
    }
}
