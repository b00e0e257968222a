//! Virtual keys: their form, their hashes at rest, and whether one that is presented is valid now.
//!
//! A key is `bursar_<id>_<secret>`: an id of 16 hexadecimal digits, which is public and found in a map, and a
//! secret of 64 (256 random bits). Of the secret only a keyed hash is kept: BLAKE3 in its keyed mode, under a
//! key derived from the id and, where there is one, the sidecar's pepper. So a hash proves nothing for another
//! id, and where there is a pepper a stolen configuration cannot even confirm a guess.
//!
//! Invariants
//! - A secret is compared in constant time, and an unknown id costs the same comparison.
//! - When a key begins and ends is only told to whoever presents its secret.
//! - Nothing here can show a secret: none is kept.
//!
//! Not here: where in a request a key stands (`presented`), the list in the file (`config`).

use super::{Credential, Grant, Kind, serial};
use bursar_domain::{Label, Tags, Timestamp};
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// How every key begins.
pub const PREFIX: &str = "bursar_";
/// Hexadecimal digits of an id.
pub const ID_CHARS: usize = 16;
/// Hexadecimal digits of a secret.
pub const SECRET_CHARS: usize = 64;

/// How a hash without a pepper begins, and one with.
const PLAIN: &str = "b3:";
const PEPPERED: &str = "b3p:";

/// Separates this use of BLAKE3 from every other (BLAKE3 paper, section 2.3: the key derivation mode).
const CONTEXT: &str = "bursar 2026-11 virtual key hash v1";

/// The public half of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; ID_CHARS]);

impl KeyId {
    /// An id from its digits, lower case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; ID_CHARS] = text.as_bytes().try_into().ok()?;
        bytes.iter().all(|b| is_hex(*b)).then_some(Self(bytes))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

/// A secret of the sidecar that hashes are keyed with, beside the id. Never shown.
#[derive(Clone, Default)]
pub struct Pepper(Zeroizing<Box<[u8]>>);

impl Pepper {
    /// A pepper from the text of its file.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.as_bytes().into()))
    }

    fn is_none(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(not shown)")
    }
}

/// What is kept of a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyHash {
    digest: [u8; 32],
    is_peppered: bool,
}

impl KeyHash {
    /// Reads `b3:` or `b3p:` and 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (digits, is_peppered) = match text.strip_prefix(PEPPERED) {
            Some(digits) => (digits, true),
            None => (text.strip_prefix(PLAIN)?, false),
        };
        let digest = blake3::Hash::from_hex(digits).ok()?;
        Some(Self { digest: *digest.as_bytes(), is_peppered })
    }

    /// Whether it needs the pepper.
    #[must_use]
    pub const fn is_peppered(&self) -> bool {
        self.is_peppered
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = if self.is_peppered { PEPPERED } else { PLAIN };
        write!(f, "{start}{}", blake3::Hash::from_bytes(self.digest).to_hex())
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(not shown)")
    }
}

/// What hashes of one id are keyed with.
fn hash_key(id: KeyId, pepper: &Pepper) -> Zeroizing<[u8; 32]> {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    // The id's length is fixed, so that nothing of it can be taken for pepper.
    hasher.update(&id.0);
    hasher.update(&pepper.0);
    Zeroizing::new(*hasher.finalize().as_bytes())
}

/// A key as it is presented: only what refers to it.
#[derive(Clone, Copy)]
pub struct PresentedKey<'a> {
    id: KeyId,
    secret: &'a [u8],
}

impl fmt::Debug for PresentedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PresentedKey({}, not shown)", self.id)
    }
}

impl<'a> PresentedKey<'a> {
    /// Reads `bursar_<id>_<secret>`, and nothing around it.
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let rest = text.strip_prefix(PREFIX.as_bytes())?;
        let (id, rest) = rest.split_at_checked(ID_CHARS)?;
        let secret = rest.strip_prefix(b"_")?;
        let id = KeyId::parse(std::str::from_utf8(id).ok()?)?;
        let is_secret = secret.len() == SECRET_CHARS && secret.iter().all(|b| is_hex(*b));
        is_secret.then_some(Self { id, secret })
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// What to keep of it.
    #[must_use]
    pub fn hash(&self, pepper: &Pepper) -> KeyHash {
        let digest = blake3::keyed_hash(&hash_key(self.id, pepper), self.secret);
        KeyHash { digest: *digest.as_bytes(), is_peppered: !pepper.is_none() }
    }
}

/// A key made anew. The text is shown to nobody but through [`Self::expose`].
pub struct NewKey(Zeroizing<String>);

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewKey(not shown)")
    }
}

impl NewKey {
    /// A key of 256 random bits; under `id`, or under a new id.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn make(id: Option<KeyId>) -> Result<Self, getrandom::Error> {
        let mut random_id = [0_u8; ID_CHARS / 2];
        let mut secret = Zeroizing::new([0_u8; SECRET_CHARS / 2]);
        getrandom::fill(&mut random_id)?;
        getrandom::fill(&mut *secret)?;
        // Room for all of it, so that no part is left behind where it did not fit.
        let mut key = Zeroizing::new(String::with_capacity(PREFIX.len() + ID_CHARS + 1 + SECRET_CHARS));
        key.push_str(PREFIX);
        match id {
            Some(id) => key.push_str(id.as_str()),
            None => push_hex(&mut key, &random_id),
        }
        key.push('_');
        push_hex(&mut key, &*secret);
        Ok(Self(key))
    }

    /// The key. Call it only where it is handed over.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Adds the hexadecimal digits of `bytes`.
fn push_hex(text: &mut String, bytes: &[u8]) {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    text.extend(digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)));
}

/// A hash, and until when it is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secret {
    /// What is kept.
    pub hash: KeyHash,
    /// From then on it is no good any more.
    pub expires: Option<Timestamp>,
}

/// A key as the configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: Label,
    /// Its public half.
    pub id: KeyId,
    /// Its secret, and the one before it while both are good.
    pub secrets: Vec<Secret>,
    /// Before then it is not good yet.
    pub not_before: Option<Timestamp>,
    /// From then on it is no good any more.
    pub expires: Option<Timestamp>,
    /// The team that pays.
    pub team: Label,
    /// Workloads that it is for; empty for any.
    pub workloads: Vec<Label>,
    /// The customer.
    pub customer: Option<Label>,
    /// Tags.
    pub tags: Tags,
    /// What it may be used for.
    pub grant: Grant,
}

/// Why a key does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No key has this id, or its secret is another one. Which of them is not told.
    #[error("no such Bursar key: check that all of it was copied, and that it was not replaced")]
    Unknown,
    /// It is not good yet.
    #[error("the key {name:?} is not valid before {from}")]
    NotYet {
        /// Its name.
        name: Label,
        /// When it begins.
        from: String,
    },
    /// It is no good any more.
    #[error("the key {name:?} expired at {at}: ask for a new one")]
    Expired {
        /// Its name.
        name: Label,
        /// When it ended.
        at: String,
    },
}

/// All keys, to be found by their ids.
#[derive(Debug, Default)]
pub struct Keys {
    known: HashMap<KeyId, Known, RandomState>,
}

struct Known {
    /// Made from the pepper, so it is as secret.
    hash_key: Zeroizing<[u8; 32]>,
    secrets: Vec<Secret>,
    not_before: Option<Timestamp>,
    expires: Option<Timestamp>,
    credential: Arc<Credential>,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").field("credential", &self.credential).finish_non_exhaustive()
    }
}

impl Keys {
    /// These keys. Ids are unique in a configuration that was checked.
    #[must_use]
    pub fn new(keys: &[Key], pepper: &Pepper) -> Self {
        let none = Pepper::default();
        let known = keys.iter().map(|key| {
            let is_peppered = key.secrets.iter().any(|secret| secret.hash.is_peppered);
            let credential = Arc::new(Credential {
                serial: serial(),
                name: key.name.clone(),
                kind: Kind::Key,
                team: key.team.clone(),
                workloads: key.workloads.clone(),
                customer: key.customer.clone(),
                tags: key.tags.clone(),
                routes: key.grant.routes.clone(),
                access: key.grant.rule(&key.name),
            });
            let known = Known {
                hash_key: hash_key(key.id, if is_peppered { pepper } else { &none }),
                secrets: key.secrets.clone(),
                not_before: key.not_before,
                expires: key.expires,
                credential,
            };
            (key.id, known)
        });
        Self { known: known.collect() }
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whose key this is, if it is good at `now`.
    ///
    /// # Errors
    /// Why it is not. The time that takes does not depend on how much of the secret is right, nor on
    /// whether the id is known.
    pub fn verify(&self, key: PresentedKey<'_>, now: Timestamp) -> Result<&Arc<Credential>, KeyError> {
        const NOBODY: [u8; 32] = [0; 32];
        let known = self.known.get(&key.id);
        let digest = blake3::keyed_hash(known.map_or(&NOBODY, |known| &*known.hash_key), key.secret);
        let secrets = known.map_or(&[][..], |known| known.secrets.as_slice());
        let mut right = None;
        // Always two comparisons, whatever there is to compare with.
        for place in 0..2 {
            let secret = secrets.get(place);
            let kept = secret.map_or(&NOBODY, |secret| &secret.hash.digest);
            if bool::from(kept.ct_eq(digest.as_bytes())) && secret.is_some() {
                right = secret;
            }
        }
        let (Some(known), Some(secret)) = (known, right) else { return Err(KeyError::Unknown) };
        let name = || known.credential.name.clone();
        if let Some(from) = known.not_before.filter(|from| now < *from) {
            return Err(KeyError::NotYet { name: name(), from: time_text(from) });
        }
        let ends = [known.expires, secret.expires];
        if let Some(at) = ends.into_iter().flatten().min().filter(|at| now >= *at) {
            return Err(KeyError::Expired { name: name(), at: time_text(at) });
        }
        Ok(&known.credential)
    }
}

/// A time for people.
pub(crate) fn time_text(at: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.micros())
        .map_or_else(|_| at.micros().to_string(), |at| at.to_string())
}

#[cfg(test)]
mod tests;
