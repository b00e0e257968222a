//! One token: its signature, its claims, and what it stands for.
//!
//! Not here: which issuer's it is, and remembering it (`tokens`).

use super::{Issuer, IssuerRules, TokenError, Told};
use crate::credentials::claims::{self, ClaimPath, Claims, Times, Untimely, label_at};
use crate::credentials::jwks::{KeySet, VerifyKey};
use crate::credentials::{Credential, Kind, serial};
use bursar_domain::{Label, Timestamp};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// A token whose signature is right.
#[derive(Clone, Debug)]
pub(super) struct Verified {
    credential: Arc<Credential>,
    /// Its issuer's place, and the generation of the keys that it was verified with.
    by: (usize, u64),
    times: Times,
}

impl Verified {
    pub(super) const fn issuer(&self) -> usize {
        self.by.0
    }

    pub(super) fn is_by(&self, issuer: usize, generation: u64) -> bool {
        self.by == (issuer, generation)
    }

    /// Whether it will not hold any more, whatever the leeway.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.times.check(now, Duration::from_secs(600), None) == Err(Untimely::Expired)
    }

    /// Whose it is, if it is valid at `now`.
    pub(super) fn hold(&self, rules: &IssuerRules, now: Timestamp) -> Result<Arc<Credential>, TokenError> {
        let name = || rules.name.clone();
        match self.times.check(now, rules.leeway, rules.age_max) {
            Ok(()) => Ok(Arc::clone(&self.credential)),
            Err(Untimely::Expired) => Err(TokenError::Expired(name())),
            Err(Untimely::NotYet) => Err(TokenError::NotYet(name())),
            Err(Untimely::TooOld) => Err(TokenError::TooOld(name())),
        }
    }
}

/// What a text says that may be a token, or a part of one; nothing of it is verified.
pub(super) fn unverified(token: &str) -> Option<Claims> {
    let read = |token: &str| jsonwebtoken::dangerous::insecure_decode_claims(token).ok();
    match token.split('.').count() {
        // Without its signature.
        2 => read(&format!("{token}.")),
        3 => read(token),
        _ => None,
    }
}

/// Whether claims are meant for this entry: audience and what must be.
pub(super) fn fits(rules: &IssuerRules, claims: &Claims) -> Result<(), TokenError> {
    let issuer = || rules.name.clone();
    if !claims.get("aud").is_some_and(|aud| claims::is_among(aud, &rules.audience)) {
        return Err(TokenError::Audience(issuer()));
    }
    for (path, wanted) in &rules.require {
        let claim = || path.as_str().into();
        match path.find(claims) {
            None => return Err(TokenError::Claim { issuer: issuer(), claim: claim() }),
            Some(value) if !claims::is_among(value, wanted) => {
                return Err(TokenError::Unfit { issuer: issuer(), claim: claim() });
            }
            Some(_) => {}
        }
    }
    Ok(())
}

impl Issuer {
    /// What a token stands for whose signature is right.
    pub(super) fn verified(&self, place: usize, set: &KeySet, token: &str) -> Result<Verified, TokenError> {
        let rules = &self.rules;
        let claims = self.signed_claims(set, token)?;
        fits(rules, &claims)?;
        let lacks = |claim: &str| TokenError::Claim { issuer: rules.name.clone(), claim: claim.into() };
        let times = Times::read(&claims, rules.age_max.is_some()).map_err(lacks)?;
        if let Some(scope) = rules.scopes.iter().find(|scope| !claims::has_scope(&claims, scope.as_str())) {
            return Err(TokenError::Scope { issuer: rules.name.clone(), scope: scope.clone() });
        }
        let credential = Arc::new(credential_of(rules, &claims)?);
        Ok(Verified { credential, by: (place, set.generation), times })
    }

    fn signed_claims(&self, set: &KeySet, token: &str) -> Result<Claims, TokenError> {
        let rules = &self.rules;
        let name = || rules.name.clone();
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Algorithm(name()))?;
        // An extension that is critical is none that is understood here (RFC 7515 §4.1.11).
        if !rules.algorithms.contains(&header.alg) || header.crit.is_some() || !may_be_access(&header) {
            return Err(TokenError::Algorithm(name()));
        }
        let Some(key) = key_for(set, header.kid.as_deref(), header.alg) else {
            self.keys().ask();
            return Err(TokenError::UnknownKey(name()));
        };
        let decoded = jsonwebtoken::decode::<Claims>(token, &key.key, &validation(rules, header.alg));
        decoded.map(|token| token.claims).map_err(|error| match error.kind() {
            ErrorKind::InvalidAudience => TokenError::Audience(name()),
            ErrorKind::MissingRequiredClaim(claim) => {
                TokenError::Claim { issuer: name(), claim: claim.as_str().into() }
            }
            _ => TokenError::Signature(name()),
        })
    }
}

/// What the library checks beside the signature. The times are checked by our own clock, each time.
fn validation(rules: &IssuerRules, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.set_issuer(&[rules.issuer.as_str()]);
    let audience: Vec<&str> = rules.audience.iter().map(Label::as_str).collect();
    validation.set_audience(&audience);
    validation.set_required_spec_claims(&["iss", "aud"]);
    (validation.validate_exp, validation.validate_nbf) = (false, false);
    validation
}

/// Whether a token says that it is for access, or says nothing of it: others of the same issuer, such as those
/// that tell of a log-out, must not be taken for one (RFC 8725 §3.11).
fn may_be_access(header: &Header) -> bool {
    let Some(typ) = header.typ.as_deref() else { return true };
    let typ = typ.to_ascii_lowercase();
    let typ = typ.strip_prefix("application/").unwrap_or(&typ);
    !typ.contains('+') || typ.ends_with("at+jwt")
}

/// The key of this name; without a name the only one that is for the algorithm.
fn key_for<'s>(set: &'s KeySet, kid: Option<&str>, algorithm: Algorithm) -> Option<&'s VerifyKey> {
    let mut able = set.keys.iter().filter(|key| key.algorithms.contains(&algorithm));
    match kid {
        // A key that has no name is the only one that its issuer has.
        Some(kid) => able.find(|key| key.kid.as_deref() == Some(kid) || set.is_unnamed(key)),
        None => able.next().filter(|_| able.next().is_none()),
    }
}

impl KeySet {
    fn is_unnamed(&self, key: &VerifyKey) -> bool {
        key.kid.is_none() && self.keys.len() == 1
    }
}

fn credential_of(rules: &IssuerRules, claims: &Claims) -> Result<Credential, TokenError> {
    let told = |told: &Told| match told {
        Told::Fixed(label) => Ok(label.clone()),
        Told::Claim(path) => label_at(claims, path).ok_or_else(|| lacks(rules, path)),
    };
    // A workload or customer that should be there and is not would pass its budgets by.
    let workload = rules.workload.as_ref().map(told).transpose()?;
    let customer = rules.customer.as_ref().map(told).transpose()?;
    let mut tags = rules.tags.clone();
    for (tag, path) in &rules.tag_claims {
        match (path.find(claims), label_at(claims, path)) {
            (None | Some(Value::Null), _) => {}
            (Some(_), None) => return Err(lacks(rules, path)),
            (Some(_), Some(value)) => {
                tags.insert(tag.clone(), value);
            }
        }
    }
    Ok(Credential {
        serial: serial(),
        name: rules.name.clone(),
        kind: Kind::Token,
        team: told(&rules.team)?,
        workloads: workload.into_iter().collect(),
        customer,
        tags,
        routes: rules.grant.routes.clone(),
        access: rules.grant.rule(&rules.name),
    })
}

fn lacks(rules: &IssuerRules, path: &ClaimPath) -> TokenError {
    TokenError::Claim { issuer: rules.name.clone(), claim: path.as_str().into() }
}
