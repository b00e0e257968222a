//! The public keys of an issuer of tokens: reading them (JWKS, RFC 7517, or PEM) and keeping them.
//!
//! Invariants
//! - Only public keys of signatures are kept: RSA of 2048 to 8192 bits, P-256, P-384 and Ed25519. A symmetric
//!   key that is published is none.
//! - Reading keys takes no lock; whoever has them has all of one reading.
//! - Another generation means other keys: what was verified by the former ones is verified anew.
//! - Keys that could not be read anew are used up to a limit and not beyond it.
//!
//! Not here: fetching them (`refresh`), verifying a token (`tokens`).

use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Most keys of one issuer.
const KEYS_MAX: usize = 100;
/// Longest name of a key.
const KID_BYTES_MAX: usize = 512;
/// Shortest time between two fetches that tokens ask for, however many name keys that are not known.
const BETWEEN: Duration = Duration::from_secs(30);

/// Bytes of an RSA modulus: what the verifying library takes.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// All algorithms that a token may be signed with.
pub const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// A key that may verify a signature.
#[derive(Clone)]
pub struct VerifyKey {
    /// Its name.
    pub kid: Option<Box<str>>,
    /// Algorithms that it may be used with; never none.
    pub algorithms: Vec<Algorithm>,
    /// The key.
    pub key: DecodingKey,
}

impl fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Why a text holds no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// It is no JSON object with a list `keys`.
    #[error("is no JSON object with a list of keys")]
    Shape,
    /// There are too many.
    #[error("has more than {KEYS_MAX} keys")]
    TooMany,
    /// None of them can be used.
    #[error(
        "has no public key that can verify a signature (RSA of 2048 bits or more, P-256, P-384, Ed25519)"
    )]
    None,
    /// It is no public key in PEM.
    #[error("is no public key in PEM (BEGIN PUBLIC KEY)")]
    Pem,
}

/// Reads a set of keys. Those that cannot verify signatures are left out.
///
/// # Errors
/// Why there is none.
pub fn read_jwks(text: &[u8]) -> Result<Vec<VerifyKey>, JwksError> {
    let document: Value = serde_json::from_slice(text).map_err(|_| JwksError::Shape)?;
    let Some(Value::Array(items)) = document.get("keys") else { return Err(JwksError::Shape) };
    if items.len() > KEYS_MAX {
        return Err(JwksError::TooMany);
    }
    let keys: Vec<VerifyKey> = items.iter().filter_map(verify_key).collect();
    if keys.is_empty() { Err(JwksError::None) } else { Ok(keys) }
}

fn verify_key(item: &Value) -> Option<VerifyKey> {
    let jwk: Jwk = serde_json::from_value(item.clone()).ok()?;
    if !is_for_signatures(&jwk.common) {
        return None;
    }
    let able: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => RSA,
        AlgorithmParameters::EllipticCurve(of) => match of.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(of) if of.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
        _ => return None,
    };
    let named = jwk.common.key_algorithm.map(|named| Algorithm::from_str(&named.to_string()).ok());
    let algorithms: Vec<Algorithm> = match named {
        None => able.to_vec(),
        Some(only) => able.iter().copied().filter(|algorithm| Some(*algorithm) == only).collect(),
    };
    let kid = jwk.common.key_id.as_deref();
    let key = DecodingKey::from_jwk(&jwk).ok().filter(|key| has_right_size(key, &algorithms))?;
    let is_named = kid.is_none_or(|kid| kid.len() <= KID_BYTES_MAX);
    (is_named && !algorithms.is_empty()).then(|| VerifyKey { kid: kid.map(Into::into), algorithms, key })
}

fn is_for_signatures(common: &CommonParameters) -> bool {
    let is_used = common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
    let operations = common.key_operations.as_ref();
    is_used && operations.is_none_or(|all| all.contains(&KeyOperations::Verify))
}

/// Whether a key has the length that its algorithms need. That a point is on its curve is found when a
/// signature is verified, and none is right then.
fn has_right_size(key: &DecodingKey, algorithms: &[Algorithm]) -> bool {
    use jsonwebtoken::DecodingKeyKind::{RsaModulusExponent, SecretOrDer};
    match (key.kind(), algorithms.first()) {
        (RsaModulusExponent { n, .. }, _) => {
            MODULUS_BYTES.contains(&n.iter().skip_while(|byte| **byte == 0).count())
        }
        (SecretOrDer(point), Some(Algorithm::ES256)) => point.len() == 65,
        (SecretOrDer(point), Some(Algorithm::ES384)) => point.len() == 97,
        (SecretOrDer(point), Some(Algorithm::EdDSA)) => point.len() == 32,
        (SecretOrDer(_), _) => false,
    }
}

/// Reads one public key in PEM (`BEGIN PUBLIC KEY`, RFC 5280's `SubjectPublicKeyInfo`).
///
/// # Errors
/// Why there is none.
pub fn read_pem(text: &[u8]) -> Result<Vec<VerifyKey>, JwksError> {
    let info = SubjectPublicKeyInfoDer::from_pem_slice(text).map_err(|_| JwksError::Pem)?;
    let (key, algorithms) = key_of_info(info.as_ref()).ok_or(JwksError::None)?;
    Ok(vec![VerifyKey { kid: None, algorithms, key }])
}

/// What stands before the bits of a key on a curve: algorithm, curve and length are fixed
/// (RFC 5480 §2, RFC 8410 §4).
const P256_INFO: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const P384_INFO: &[u8] = &[
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81,
    0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
];
const ED25519_INFO: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// `rsaEncryption` with its parameters, which are null (RFC 3279 §2.3.1).
const RSA_ALGORITHM: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

fn key_of_info(info: &[u8]) -> Option<(DecodingKey, Vec<Algorithm>)> {
    let (key, algorithms) = if let Some(point) = info.strip_prefix(P256_INFO) {
        (DecodingKey::from_ec_der(point), vec![Algorithm::ES256])
    } else if let Some(point) = info.strip_prefix(P384_INFO) {
        (DecodingKey::from_ec_der(point), vec![Algorithm::ES384])
    } else if let Some(point) = info.strip_prefix(ED25519_INFO) {
        (DecodingKey::from_ed_der(point), vec![Algorithm::EdDSA])
    } else {
        (rsa_of_info(info)?, RSA.to_vec())
    };
    has_right_size(&key, &algorithms).then_some((key, algorithms))
}

fn rsa_of_info(info: &[u8]) -> Option<DecodingKey> {
    const SEQUENCE: u8 = 0x30;
    const BITS: u8 = 0x03;
    const INTEGER: u8 = 0x02;
    let (info, after) = der(info, SEQUENCE)?;
    let (algorithm, rest) = der(info, SEQUENCE)?;
    let (bits, end) = der(rest, BITS)?;
    if !after.is_empty() || !end.is_empty() || algorithm != RSA_ALGORITHM {
        return None;
    }
    // The first byte of a bit string tells how many bits of its last one are not used.
    let (numbers, end) = der(bits.strip_prefix(&[0])?, SEQUENCE)?;
    let (modulus, rest) = der(numbers, INTEGER)?;
    let (exponent, last) = der(rest, INTEGER)?;
    let unsigned =
        |number: &'_ [u8]| number.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<_>>();
    let is_whole = end.is_empty() && last.is_empty();
    is_whole.then(|| DecodingKey::from_rsa_raw_components(&unsigned(modulus), &unsigned(exponent)))
}

/// The contents of the DER element at the beginning, if it has this tag, and what follows it.
fn der(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = bytes.strip_prefix(&[tag])?.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => {
            rest.split_first_chunk().map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest))?
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// An issuer's keys as they are now.
#[derive(Debug)]
pub struct KeySet {
    /// Another number means other keys.
    pub generation: u64,
    /// The keys.
    pub keys: Vec<VerifyKey>,
    /// Of what was read.
    digest: blake3::Hash,
}

/// Keys with the time at which they were read; absent where they do not grow old.
#[derive(Clone, Debug)]
struct Kept {
    set: Arc<KeySet>,
    read_at: Option<Instant>,
}

/// An issuer's keys, and when they are to be read anew.
#[derive(Debug, Default)]
pub struct KeyStore {
    kept: ArcSwapOption<Kept>,
    /// A token named a key that is not among them.
    is_asked: AtomicBool,
    fetches: AtomicU64,
    failures: AtomicU64,
    tries: Mutex<Tries>,
}

#[derive(Debug, Default)]
struct Tries {
    last: Option<Instant>,
    is_running: bool,
    /// Failures since the keys were last read.
    failed: u32,
}

impl KeyStore {
    /// Keys that do not grow old: those of a file, which is watched like the configuration.
    #[must_use]
    pub fn fixed(keys: Vec<VerifyKey>) -> Self {
        let store = Self::default();
        let set = Arc::new(KeySet { generation: 1, keys, digest: blake3::hash(&[]) });
        store.kept.store(Some(Arc::new(Kept { set, read_at: None })));
        store
    }

    /// The keys, unless they are older than `age_max` or never came.
    #[must_use]
    pub fn usable(&self, age_max: Duration) -> Option<Arc<KeySet>> {
        let kept = self.kept.load();
        let kept = kept.as_ref()?;
        let is_fresh = kept.read_at.is_none_or(|read_at| read_at.elapsed() <= age_max);
        is_fresh.then(|| Arc::clone(&kept.set))
    }

    /// Asks for the keys to be read anew, when that may be.
    pub fn ask(&self) {
        self.is_asked.store(true, Ordering::Relaxed);
    }

    fn tries(&self) -> std::sync::MutexGuard<'_, Tries> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether they are to be read now; whoever is told so does it, and tells how it ended. Without a reason
    /// that is every `refresh`.
    #[must_use]
    pub fn begin(&self, refresh: Duration) -> bool {
        let mut tries = self.tries();
        let is_asked = self.is_asked.load(Ordering::Relaxed);
        let wait = match (tries.failed, is_asked) {
            (0, false) => refresh,
            (0, true) => BETWEEN.min(refresh),
            (failed, _) => Duration::from_secs(1_u64 << failed.saturating_sub(1).min(5)).min(BETWEEN),
        };
        let is_due = tries.last.is_none_or(|last| last.elapsed() >= wait);
        if tries.is_running || !is_due {
            return false;
        }
        (tries.last, tries.is_running) = (Some(Instant::now()), true);
        self.is_asked.store(false, Ordering::Relaxed);
        self.fetches.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Keeps keys that were read from `text`. Tells whether they were not to be had before.
    pub fn keep(&self, keys: Vec<VerifyKey>, text: &[u8]) -> bool {
        let digest = blake3::hash(text);
        let kept = self.kept.load();
        let set = match kept.as_ref().map(|kept| &kept.set) {
            Some(set) if set.digest == digest => Arc::clone(set),
            set => {
                let generation = set.map_or(1, |set| set.generation.saturating_add(1));
                Arc::new(KeySet { generation, keys, digest })
            }
        };
        self.kept.store(Some(Arc::new(Kept { set, read_at: Some(Instant::now()) })));
        let mut tries = self.tries();
        tries.is_running = false;
        std::mem::replace(&mut tries.failed, 0) > 0
    }

    /// They could not be read. Tells whether that is new.
    pub fn failed(&self) -> bool {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let mut tries = self.tries();
        tries.is_running = false;
        tries.failed = tries.failed.saturating_add(1);
        tries.failed == 1
    }

    /// Age of the keys, where they grow old; fetches, and those of them that failed.
    #[must_use]
    pub fn figures(&self) -> (Option<Duration>, u64, u64) {
        let kept = self.kept.load();
        let age = kept.as_ref().and_then(|kept| kept.read_at).map(|read_at| read_at.elapsed());
        (age, self.fetches.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests;
