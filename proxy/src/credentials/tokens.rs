//! Signed tokens (JWT, RFC 7519): whose they are, whether one is valid now, and what it says.
//!
//! Invariants
//! - A token of an issuer that is configured is valid or an error, never nobody. Others pass, where a provider
//!   may want them.
//! - The algorithm is one that the configuration and the issuer's key both name; none of them is symmetric.
//!   Keys that a token brings along (`jwk`, `jku`, `x5c`, `x5u`) are not looked at.
//! - Issuer, audience and end are always checked; the end also of a token that was verified before.
//! - A token that was verified is remembered by its hash: bounded, until the issuer's keys or the settings are
//!   others. Nothing of a token is kept, logged or in an error.
//!
//! Not here: the issuer's keys (`jwks`), reading claims (`claims`), who asks (`layers::authenticate`).

mod verify;

use super::claims::ClaimPath;
use super::jwks::{KeyStore, VerifyKey};
use super::presented::{KEY_PROTOCOL, take_out_of_protocols, without_scheme};
use super::{Credential, Grant};
use crate::config::CREDENTIAL_HEADERS;
use bursar_domain::{Label, Tags, Timestamp};
use foldhash::fast::RandomState;
use http::Uri;
use http::header::{HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use http::uri::PathAndQuery;
use jsonwebtoken::Algorithm;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use verify::Verified;

/// Our own header for a token; like all of ours it is never passed on.
pub static TOKEN_HEADER: HeaderName = HeaderName::from_static("x-bursar-token");
/// Longest token that is read; no usual one is longer than a usual head may be.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Most verified tokens that one worker remembers.
const CACHE_MAX: usize = 1_024;

/// An issuer as the configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerRules {
    /// Its name here.
    pub name: Label,
    /// What its tokens call it (`iss`).
    pub issuer: Label,
    /// What they must be meant for (`aud`), one of these.
    pub audience: Vec<Label>,
    /// How they may be signed.
    pub algorithms: Vec<Algorithm>,
    /// Where its keys are.
    pub source: Source,
    /// The one header with the token; otherwise wherever a key may stand, and our own.
    pub header: Option<HeaderName>,
    /// How far its clock and ours may differ.
    pub leeway: Duration,
    /// How long ago a token may have been issued.
    pub age_max: Option<Duration>,
    /// How often its keys are read anew.
    pub refresh: Duration,
    /// How old keys may be that are still used.
    pub stale: Duration,
    /// Scopes that a token must carry, all of them.
    pub scopes: Vec<Label>,
    /// Claims that must have one of these values.
    pub require: Vec<(ClaimPath, Vec<Label>)>,
    /// Who pays.
    pub team: Told,
    /// For what, if it is told.
    pub workload: Option<Told>,
    /// The customer, if it is told.
    pub customer: Option<Told>,
    /// Tags of all its tokens.
    pub tags: Tags,
    /// Claims that become tags where they are there, by the tags' names.
    pub tag_claims: Vec<(Label, ClaimPath)>,
    /// What its tokens may be used for.
    pub grant: Grant,
}

/// Who says a part of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The configuration, the same for all tokens.
    Fixed(Label),
    /// A claim.
    Claim(ClaimPath),
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A set of keys (JWKS) in a file, read with the configuration.
    JwksFile(PathBuf),
    /// One public key in PEM, read with the configuration.
    PublicKeyFile(PathBuf),
    /// A set of keys behind a URL, read in the background.
    Remote(Remote),
}

/// A set of keys behind a URL.
#[derive(Clone, PartialEq, Eq)]
pub struct Remote {
    /// Its address: `https`, or `http` on this machine.
    pub url: Uri,
    /// PEM file of authorities to trust there, beside the system's.
    pub ca_file: Option<PathBuf>,
    /// File with the bearer token to show there; read each time.
    pub token_file: Option<PathBuf>,
}

impl Remote {
    /// The address as it may be shown: without a query, in which there could be a secret.
    #[must_use]
    pub fn shown(&self) -> String {
        let scheme = self.url.scheme_str().unwrap_or_default();
        let authority = self.url.authority().map_or("", |authority| authority.as_str());
        format!("{scheme}://{authority}{}", self.url.path())
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("url", &self.shown()).finish_non_exhaustive()
    }
}

/// Why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is none.
    #[error("the header {0} holds no signed token (JWT): check that all of it was copied")]
    Malformed(HeaderName),
    /// It is longer than any that is read.
    #[error("the token in the header {0} is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong(HeaderName),
    /// There are several, and they differ.
    #[error("the request carries two different tokens: send one")]
    Several,
    /// A key of ours is there too.
    #[error("the request carries a Bursar key and a token: send one of them")]
    BesideKey,
    /// It stands in the path or query.
    #[error("a token stands in the URL, where none is read: send it in a header")]
    InUrl,
    /// Nobody here knows its issuer.
    #[error("the token in the header {0} is of an issuer that this sidecar does not know")]
    UnknownIssuer(HeaderName),
    /// The issuer's keys are not there, or too old.
    #[error("the keys of the issuer {0:?} could not be fetched, so none of its tokens can be checked now")]
    NoKeys(Label),
    /// Its header cannot be read, or names an algorithm that is not allowed, or is no access token's.
    #[error("the token of {0:?} is signed in a way that is not allowed here, or is no access token")]
    Algorithm(Label),
    /// No key of its issuer has its name.
    #[error(
        "the token of {0:?} is signed with a key that its issuer does not publish, or not yet: try again"
    )]
    UnknownKey(Label),
    /// Its signature is wrong.
    #[error("the token of {0:?} does not have the right signature: check that all of it was copied")]
    Signature(Label),
    /// It is for somebody else.
    #[error("the token of {0:?} is meant for another audience")]
    Audience(Label),
    /// It has ended.
    #[error("the token of {0:?} has expired: ask for a new one")]
    Expired(Label),
    /// It has not begun.
    #[error("the token of {0:?} is not valid yet: check the clocks")]
    NotYet(Label),
    /// It was issued too long ago.
    #[error("the token of {0:?} was issued too long ago: ask for a new one")]
    TooOld(Label),
    /// A claim that must be there is not, or cannot be used.
    #[error("the token of {issuer:?} has no usable claim {claim:?}")]
    Claim {
        /// The issuer.
        issuer: Label,
        /// The claim.
        claim: Box<str>,
    },
    /// A claim has another value than it must have.
    #[error("the token of {issuer:?} is not accepted here for what its claim {claim:?} says")]
    Unfit {
        /// The issuer.
        issuer: Label,
        /// The claim.
        claim: Box<str>,
    },
    /// It lacks a scope.
    #[error("the token of {issuer:?} lacks the scope {scope:?}")]
    Scope {
        /// The issuer.
        issuer: Label,
        /// The scope.
        scope: Label,
    },
}

impl TokenError {
    /// What [`Self::reason`] may say.
    pub const REASONS: [&'static str; 15] = [
        "token_malformed",
        "tokens_differ",
        "token_misplaced",
        "token_issuer_unknown",
        "token_keys_unavailable",
        "token_algorithm",
        "token_key_unknown",
        "token_signature",
        "token_audience",
        "token_expired",
        "token_not_yet_valid",
        "token_too_old",
        "token_claim_missing",
        "token_claim_refused",
        "token_scope",
    ];

    /// Why, as metrics name it.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::TooLong(_) => "token_malformed",
            Self::Several | Self::BesideKey => "tokens_differ",
            Self::InUrl => "token_misplaced",
            Self::UnknownIssuer(_) => "token_issuer_unknown",
            Self::NoKeys(_) => "token_keys_unavailable",
            Self::Algorithm(_) => "token_algorithm",
            Self::UnknownKey(_) => "token_key_unknown",
            Self::Signature(_) => "token_signature",
            Self::Audience(_) => "token_audience",
            Self::Expired(_) => "token_expired",
            Self::NotYet(_) => "token_not_yet_valid",
            Self::TooOld(_) => "token_too_old",
            Self::Claim { .. } => "token_claim_missing",
            Self::Unfit { .. } => "token_claim_refused",
            Self::Scope { .. } => "token_scope",
        }
    }

    /// The issuer, where one was found.
    #[must_use]
    pub const fn rule(&self) -> Option<&Label> {
        match self {
            Self::Malformed(_)
            | Self::TooLong(_)
            | Self::Several
            | Self::BesideKey
            | Self::InUrl
            | Self::UnknownIssuer(_) => None,
            Self::NoKeys(name)
            | Self::Algorithm(name)
            | Self::UnknownKey(name)
            | Self::Signature(name)
            | Self::Audience(name)
            | Self::Expired(name)
            | Self::NotYet(name)
            | Self::TooOld(name)
            | Self::Claim { issuer: name, .. }
            | Self::Unfit { issuer: name, .. }
            | Self::Scope { issuer: name, .. } => Some(name),
        }
    }
}

/// An issuer with its keys.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// What is configured.
    pub rules: IssuerRules,
    keys: Arc<KeyStore>,
}

impl Issuer {
    /// An issuer whose keys were read with the configuration, or are still to be fetched.
    #[must_use]
    pub fn new(rules: IssuerRules, keys: Option<Vec<VerifyKey>>) -> Self {
        Self { rules, keys: Arc::new(keys.map_or_else(KeyStore::default, KeyStore::fixed)) }
    }

    /// Its keys.
    #[must_use]
    pub fn keys(&self) -> &KeyStore {
        &self.keys
    }

    /// Where its keys are to be fetched, if they are.
    #[must_use]
    pub const fn remote(&self) -> Option<&Remote> {
        match &self.rules.source {
            Source::Remote(remote) => Some(remote),
            Source::JwksFile(_) | Source::PublicKeyFile(_) => None,
        }
    }

    /// Whether it reads its tokens in this header.
    fn reads(&self, header: &HeaderName) -> bool {
        match &self.rules.header {
            Some(own) => own == header,
            None => is_shared(header) || *header == TOKEN_HEADER || *header == SEC_WEBSOCKET_PROTOCOL,
        }
    }
}

/// Whether a header is one in which providers read credentials: what is none of ours there is theirs.
fn is_shared(header: &HeaderName) -> bool {
    CREDENTIAL_HEADERS.contains(&header.as_str())
}

/// All issuers.
#[derive(Clone, Debug, Default)]
pub struct Issuers {
    all: Vec<Issuer>,
    /// Headers in which any of them reads tokens.
    headers: Vec<HeaderName>,
    /// Whether any of them reads them wherever a key may stand.
    reads_protocols: bool,
}

/// A token that holds, and where it stands.
#[derive(Clone)]
pub struct Held {
    /// Whose it is.
    pub credential: Arc<Credential>,
    /// The headers that it is in.
    headers: SmallVec<[HeaderName; 2]>,
    /// The token, where it is offered as a subprotocol.
    protocol: Option<Box<str>>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held(not shown, in {:?})", self.headers)
    }
}

impl Held {
    /// Takes the token out of its request; the client's other credentials stay.
    pub fn take_out(&self, headers: &mut HeaderMap) {
        for name in &self.headers {
            headers.remove(name);
        }
        if let Some(token) = &self.protocol {
            take_out_of_protocols(headers, |found| found == &**token);
        }
    }
}

/// Tokens that one worker has verified.
#[derive(Debug, Default)]
pub struct TokenCache {
    /// The issuers that they were verified for.
    by: Option<Arc<Issuers>>,
    known: HashMap<[u8; 32], Verified, RandomState>,
}

impl TokenCache {
    /// How many it remembers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether it remembers none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn belong_to(&mut self, issuers: &Arc<Issuers>) {
        if self.by.as_ref().is_none_or(|by| !Arc::ptr_eq(by, issuers)) {
            self.known.clear();
            self.by = Some(Arc::clone(issuers));
        }
    }

    fn remember(&mut self, hash: [u8; 32], verified: Verified, now: Timestamp) {
        if self.known.len() >= CACHE_MAX {
            self.known.retain(|_, known| !known.is_over(now));
        }
        if self.known.len() >= CACHE_MAX {
            self.known.clear();
        }
        self.known.insert(hash, verified);
    }
}

/// A text that looks like a token of one of our issuers.
#[derive(Clone, Copy)]
struct Candidate<'h> {
    token: &'h str,
    hash: [u8; 32],
    issuer: usize,
    is_protocol: bool,
}

impl Issuers {
    /// These issuers, in the order in which they are tried.
    #[must_use]
    pub fn new(all: Vec<Issuer>) -> Self {
        let reads_protocols = all.iter().any(|issuer| issuer.rules.header.is_none());
        let mut headers = Vec::new();
        if reads_protocols {
            headers.extend(CREDENTIAL_HEADERS.iter().map(|name| HeaderName::from_static(name)));
            headers.push(TOKEN_HEADER.clone());
        }
        for own in all.iter().filter_map(|issuer| issuer.rules.header.as_ref()) {
            if !headers.contains(own) {
                headers.push(own.clone());
            }
        }
        Self { all, headers, reads_protocols }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Issuer> {
        self.all.iter()
    }

    /// The same with the keys that `running` has of issuers whose keys come from the same place, so that a
    /// reload needs no new ones.
    #[must_use]
    pub fn inheriting(&self, running: &Self) -> Self {
        let mut issuers = self.clone();
        for issuer in issuers.all.iter_mut().filter(|issuer| issuer.remote().is_some()) {
            if let Some(same) = running.all.iter().find(|one| one.rules.source == issuer.rules.source) {
                issuer.keys = Arc::clone(&same.keys);
            }
        }
        issuers
    }

    /// The token of a request, if it carries one of ours and it is valid at `now`.
    ///
    /// # Errors
    /// Why one that is there is not accepted.
    pub fn verify(
        self: &Arc<Self>,
        headers: &HeaderMap,
        target: &PathAndQuery,
        cache: &mut TokenCache,
        now: Timestamp,
    ) -> Result<Option<Held>, TokenError> {
        cache.belong_to(self);
        let Some(found) = self.find(headers, cache)? else { return Ok(None) };
        if memchr::memmem::find(target.as_str().as_bytes(), found.token.as_bytes()).is_some() {
            return Err(TokenError::InUrl);
        }
        let credential = self.hold(&found, cache, now)?;
        let token = memchr::memmem::Finder::new(found.token);
        let is_in =
            |value: &HeaderValue| value.len() >= found.token.len() && token.find(value.as_bytes()).is_some();
        let mut places: SmallVec<[HeaderName; 2]> = SmallVec::new();
        for (name, value) in headers {
            if is_in(value) && *name != SEC_WEBSOCKET_PROTOCOL && !places.contains(name) {
                places.push(name.clone());
            }
        }
        let protocol = found.is_protocol.then(|| found.token.into());
        Ok(Some(Held { credential, headers: places, protocol }))
    }

    /// Looks where tokens may stand for one of an issuer that reads it there.
    fn find<'h>(
        &self,
        headers: &'h HeaderMap,
        cache: &TokenCache,
    ) -> Result<Option<Candidate<'h>>, TokenError> {
        let mut found: Option<Candidate<'h>> = None;
        let mut take = |one: Candidate<'h>| {
            let first = found.get_or_insert(one);
            first.is_protocol |= one.is_protocol;
            if first.token == one.token { Ok(()) } else { Err(TokenError::Several) }
        };
        for name in &self.headers {
            for value in headers.get_all(name) {
                match self.look(name, without_scheme(value.as_bytes()), cache)? {
                    Some(one) => take(one)?,
                    None if is_shared(name) => {}
                    None => return Err(TokenError::UnknownIssuer(name.clone())),
                }
            }
        }
        if self.reads_protocols {
            for value in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
                for offered in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    let Some(text) = offered.strip_prefix(KEY_PROTOCOL.as_bytes()) else { continue };
                    if let Some(one) = self.look(&SEC_WEBSOCKET_PROTOCOL, text, cache)? {
                        take(Candidate { is_protocol: true, ..one })?;
                    }
                }
            }
        }
        Ok(found)
    }

    /// Whether `text` is a token of an issuer that reads its tokens in this header. What is none at all is an
    /// error where nothing else may stand.
    fn look<'h>(
        &self,
        header: &HeaderName,
        text: &'h [u8],
        cache: &TokenCache,
    ) -> Result<Option<Candidate<'h>>, TokenError> {
        let is_theirs = is_shared(header) || *header == SEC_WEBSOCKET_PROTOCOL;
        let malformed = || TokenError::Malformed(header.clone());
        let Some(token) = token_like(text) else {
            return if is_theirs { Ok(None) } else { Err(malformed()) };
        };
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong(header.clone()));
        }
        let hash = *blake3::hash(token.as_bytes()).as_bytes();
        let candidate = |issuer| Some(Candidate { token, hash, issuer, is_protocol: false });
        let known = cache.known.get(&hash).map(Verified::issuer);
        if let Some(issuer) = known.filter(|at| self.all.get(*at).is_some_and(|one| one.reads(header))) {
            return Ok(candidate(issuer));
        }
        let Some(claims) = verify::unverified(token) else {
            return if is_theirs { Ok(None) } else { Err(malformed()) };
        };
        let mut ours = self.all.iter().enumerate().filter(|(_, issuer)| {
            issuer.reads(header) && claims.get("iss").is_some_and(|iss| iss == issuer.rules.issuer.as_str())
        });
        // Several may have one issuer, for different audiences, say. What fits is looked for in claims that
        // nobody has verified yet; whichever it is verifies them.
        let fitting = ours.clone().find(|(_, issuer)| verify::fits(&issuer.rules, &claims).is_ok());
        match fitting.or_else(|| ours.next()) {
            Some(_) if token.bytes().filter(|byte| *byte == b'.').count() != 2 => Err(malformed()),
            Some((issuer, _)) => Ok(candidate(issuer)),
            None => Ok(None),
        }
    }

    /// Whose token this is, if it is valid at `now`.
    fn hold(
        &self,
        found: &Candidate<'_>,
        cache: &mut TokenCache,
        now: Timestamp,
    ) -> Result<Arc<Credential>, TokenError> {
        let unknown = || TokenError::UnknownIssuer(TOKEN_HEADER.clone());
        let issuer = self.all.get(found.issuer).ok_or_else(unknown)?;
        let set = issuer.keys.usable(issuer.rules.stale);
        let set = set.ok_or_else(|| TokenError::NoKeys(issuer.rules.name.clone()))?;
        if let Some(known) = cache.known.get(&found.hash)
            && known.is_by(found.issuer, set.generation)
        {
            return known.hold(&issuer.rules, now);
        }
        let verified = issuer.verified(found.issuer, &set, found.token)?;
        let credential = verified.hold(&issuer.rules, now)?;
        cache.remember(found.hash, verified, now);
        Ok(credential)
    }

    /// Lines of the metrics page: how old keys are, and how their fetches went.
    #[must_use]
    pub fn metrics(&self) -> String {
        let (mut ages, mut fetches, mut failures) = (String::new(), String::new(), String::new());
        for issuer in self.all.iter().filter(|issuer| issuer.remote().is_some()) {
            let name = issuer.rules.name.as_str().replace('\\', "\\\\").replace('"', "\\\"");
            let (age, all, failed) = issuer.keys.figures();
            if let Some(age) = age {
                ages.push_str(&format!("bursar_jwks_age_seconds{{issuer=\"{name}\"}} {}\n", age.as_secs()));
            }
            fetches.push_str(&format!("bursar_jwks_fetches_total{{issuer=\"{name}\"}} {all}\n"));
            failures.push_str(&format!("bursar_jwks_fetch_failures_total{{issuer=\"{name}\"}} {failed}\n"));
        }
        if fetches.is_empty() {
            return fetches;
        }
        format!(
            "# HELP bursar_jwks_age_seconds Age of the keys of an issuer of tokens.\n\
             # TYPE bursar_jwks_age_seconds gauge\n{ages}\
             # HELP bursar_jwks_fetches Times that the keys of an issuer of tokens were asked for.\n\
             # TYPE bursar_jwks_fetches counter\n{fetches}\
             # HELP bursar_jwks_fetch_failures Times that they could not be read.\n\
             # TYPE bursar_jwks_fetch_failures counter\n{failures}"
        )
    }
}

/// A text that is written as tokens are: parts in base 64 with points between them, the first of which is a
/// JSON object, and so begins with `e`. A part of a token is also one; so it is told from other secrets.
fn token_like(text: &[u8]) -> Option<&str> {
    let is_base64 = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let is_like = text.first() == Some(&b'e') && text.contains(&b'.') && text.iter().all(is_base64);
    std::str::from_utf8(text).ok().filter(|_| is_like)
}
