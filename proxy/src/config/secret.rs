//! Secrets: text that must not leave its request.
//!
//! Invariants
//! - Formatting a secret, in any way, shows nothing of it, not even its length.
//! - Comparing takes the same time wherever the first difference is.
//!
//! Not here: which settings name a secret (`settings`), reading their files (`load`).

use std::fmt;
use subtle::ConstantTimeEq;

/// A secret text: shown nowhere, compared in constant time.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.into())
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
}
