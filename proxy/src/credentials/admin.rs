//! Tokens of the admin API: their scopes, and which one a caller has.
//!
//! A token is any text that can stand in a header. Of it only a hash is kept: BLAKE3 in its key derivation
//! mode, so that the hash of a token is no hash of anything else. `bursar key token` makes tokens of 256
//! random bits; a hash of a text that can be guessed can be guessed too.
//!
//! Invariants
//! - What is presented is compared with every token there is, each in constant time.
//! - Nothing here can show a token: none is kept.
//!
//! Not here: the list in the file (`config`), which operation needs which scope (`admin`).

use bursar_domain::Label;
use std::fmt;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// How a hash begins.
const PLAIN: &str = "b3:";

/// Separates this use of BLAKE3 from every other.
const CONTEXT: &str = "bursar 2026-11 admin token hash v1";

/// How a token that this program makes begins.
pub const PREFIX: &str = "bursar_admin_";

/// A token of 256 random bits.
///
/// # Errors
/// When the system has no random numbers.
pub fn new_token() -> Result<String, getrandom::Error> {
    let mut secret = [0_u8; 32];
    getrandom::fill(&mut secret)?;
    Ok(format!("{PREFIX}{}", blake3::Hash::from_bytes(secret).to_hex()))
}

/// What a token may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Reading.
    Read,
    /// Bringing in facts: usage, market data, contracts, revenue.
    Ingest,
    /// Everything.
    Admin,
}

impl Scope {
    /// The name used in configuration and headers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Ingest => "ingest",
            Self::Admin => "admin",
        }
    }
}

/// What is kept of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token.
    #[must_use]
    pub fn of(token: &[u8]) -> Self {
        Self(blake3::derive_key(CONTEXT, token))
    }

    /// Reads `b3:` and 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digest = blake3::Hash::from_hex(text.strip_prefix(PLAIN)?).ok()?;
        Some(Self(*digest.as_bytes()))
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PLAIN}{}", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(not shown)")
    }
}

/// A token as the configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its name, which logs and audit facts tell.
    pub name: Label,
    /// What it is for.
    pub scopes: Vec<Scope>,
    /// What is kept of it.
    pub hash: TokenHash,
}

impl Token {
    /// Whether it may be used for this.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|own| *own == scope || *own == Scope::Admin)
    }
}

/// All tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens(Vec<Token>);

impl Tokens {
    /// These tokens.
    #[must_use]
    pub const fn new(tokens: Vec<Token>) -> Self {
        Self(tokens)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Token> {
        self.0.iter()
    }

    /// The token that was presented. The time that takes depends on how many there are, and on the length
    /// of what was presented; not on how much of it is right.
    #[must_use]
    pub fn find(&self, presented: &[u8]) -> Option<&Token> {
        let hash = TokenHash::of(presented);
        let mut found = u32::MAX;
        for (place, token) in (0_u32..).zip(&self.0) {
            let is_it: Choice = token.hash.0.ct_eq(&hash.0);
            found.conditional_assign(&place, is_it);
        }
        usize::try_from(found).ok().and_then(|place| self.0.get(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str, scopes: &[Scope], text: &str) -> Token {
        let hash = TokenHash::of(text.as_bytes());
        Token { name: Label::new(name).unwrap(), scopes: scopes.to_vec(), hash }
    }

    #[test]
    fn a_token_is_found_whole_and_alone_and_its_hash_can_be_written_down() {
        let tokens = Tokens::new(vec![
            token("a", &[Scope::Read], "canary-a"),
            token("b", &[Scope::Admin], "canary-b"),
        ]);
        assert_eq!(tokens.find(b"canary-b").unwrap().name.as_str(), "b");
        for near in ["", "canary", "canary-bb", "Canary-b", "canary-c"] {
            assert!(tokens.find(near.as_bytes()).is_none(), "{near}");
        }
        assert!(Tokens::default().find(b"").is_none());
        let hash = TokenHash::of(b"canary-a");
        assert_eq!(TokenHash::parse(&hash.to_string()), Some(hash));
        assert!(TokenHash::parse("b3:12").is_none() && TokenHash::parse("canary").is_none());
        assert!(!format!("{tokens:?}").contains("canary") && !format!("{hash:?}").contains("b3:"));
    }

    #[test]
    fn admin_is_everything_and_the_others_are_themselves() {
        let has = |scopes: &[Scope], scope| token("a", scopes, "x").has(scope);
        assert!(has(&[Scope::Admin], Scope::Read) && has(&[Scope::Admin], Scope::Ingest));
        assert!(has(&[Scope::Read], Scope::Read) && !has(&[Scope::Read], Scope::Ingest));
        assert!(!has(&[Scope::Ingest], Scope::Read) && !has(&[Scope::Read, Scope::Ingest], Scope::Admin));
    }
}
