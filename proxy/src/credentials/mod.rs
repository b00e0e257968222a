//! Credentials of clients: virtual keys and signed tokens, and what each says about whoever presents it.
//!
//! | file | owns |
//! |---|---|
//! | `keys` | virtual keys: their form, their hashes, whether one is valid now |
//! | `presented` | where in a request a key stands, and taking it out |
//! | `tokens` | signed tokens (JWT): whose one is, whether it is valid now |
//! | `claims` | what the claims of a token say |
//! | `jwks` | the public keys of issuers of tokens |
//! | `refresh` | reading those anew, in the background |
//! | `refusals` | requests that were refused for their credential or their access, remembered for `why` |
//!
//! Invariants
//! - A credential that is presented and does not hold is an error, never nobody.
//! - No credential is in a record, a log line, a metric or an error.
//!
//! Not here: the layer that asks (`layers::authenticate`), what a credential may use (`exchange::access`).

pub mod admin;
pub mod claims;
pub mod jwks;
pub mod keys;
pub(crate) mod listed;
pub mod presented;
pub mod refresh;
pub mod refusals;
pub mod tokens;

use bursar_domain::{IdentitySource, Label, Tags};
use bursar_policies::access::{AccessRule, NameRule};
use std::sync::atomic::{AtomicU64, Ordering};

/// Who a request is from, by a credential that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Unique in this process; caches know a credential by it.
    pub serial: u64,
    /// The name of the key, or of the token's issuer.
    pub name: Label,
    /// Which of them it is.
    pub kind: Kind,
    /// The team that pays.
    pub team: Label,
    /// Workloads that it may be used for; none of them fixed where it is empty.
    pub workloads: Vec<Label>,
    /// The customer, if it is for one.
    pub customer: Option<Label>,
    /// Tags that all of its requests carry.
    pub tags: Tags,
    /// Routes that it is for, by prefix; `None` for all.
    pub routes: Option<Vec<Label>>,
    /// Models and providers that it is for.
    pub access: AccessRule,
}

/// A kind of credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A virtual key.
    Key,
    /// A signed token.
    Token,
}

impl Kind {
    /// What people call it, before its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Token => "token of",
        }
    }

    /// What an identity rests on that it says.
    #[must_use]
    pub const fn source(self) -> IdentitySource {
        match self {
            Self::Key => IdentitySource::Credential,
            Self::Token => IdentitySource::Jwt,
        }
    }
}

/// What a credential is good for, as a configuration says it of keys and of issuers alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Routes by prefix; `None` for all.
    pub routes: Option<Vec<Label>>,
    /// Models; `None` for all.
    pub models: Option<Vec<Label>>,
    /// Providers; `None` for all.
    pub providers: Option<Vec<Label>>,
}

impl Grant {
    /// As a rule called `name`.
    #[must_use]
    pub fn rule(&self, name: &Label) -> AccessRule {
        AccessRule {
            models: NameRule::only(self.models.clone()),
            providers: NameRule::only(self.providers.clone()),
            ..AccessRule::named(name.clone())
        }
    }
}

/// A number that no other credential of this process has.
pub(crate) fn serial() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
