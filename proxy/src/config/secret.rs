//! Secrets: text that must not leave its request.
//!
//! Invariants
//! - Formatting a secret, in any way, shows nothing of it, not even its length.
//! - Comparing takes the same time wherever the first difference is.
//! - Its memory is wiped when the last copy ends, also of the value of a header that it stands in. What hyper, a
//!   TLS library or the system copy further is theirs (`docs/guide/security.md`).
//!
//! Not here: which settings name a secret (`settings`), reading their files (`files`).

use bytes::Bytes;
use http::HeaderValue;
use http::header::InvalidHeaderValue;
use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A secret text: shown nowhere, compared in constant time, wiped at its end.
#[derive(Clone)]
pub struct Secret(Zeroizing<Box<str>>);

impl Secret {
    pub(crate) fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself. Call it only where the secret is put to use.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `candidate` is the secret. The time taken depends on lengths only.
    #[must_use]
    pub fn matches(&self, candidate: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(candidate).into()
    }

    /// `start` and the secret, without the space around it, as the value of a header. It is marked sensitive, so
    /// that formatting hides it.
    pub(crate) fn in_header(&self, start: &str) -> Result<HeaderValue, InvalidHeaderValue> {
        let text = self.expose().trim();
        // Room for both, so that no part is left behind where they did not fit.
        let mut line = Zeroizing::new(String::with_capacity(start.len().saturating_add(text.len())));
        line.push_str(start);
        line.push_str(text);
        wiped_header(line)
    }
}

/// The value of a header that is wiped when the last copy of it ends. Marked sensitive.
pub(super) fn wiped_header(text: Zeroizing<String>) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text))?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown_and_matches_only_itself() {
        let secret = Secret::new("canary");
        assert!(!format!("{secret:?} {secret:#?}").contains("canary"));
        assert!(secret.matches(b"canary"));
        for other in ["", "canar", "canary2", "Canary", "canarz"] {
            assert!(!secret.matches(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_header_has_the_secret_and_does_not_show_it() {
        let value = Secret::new(" canary\n").in_header("Bearer ").unwrap();
        assert_eq!(value, "Bearer canary");
        assert!(value.is_sensitive() && !format!("{value:?}").contains("canary"));
        assert!(Secret::new("can\nary").in_header("").is_err());
    }
}
