//! Whose credential a request carries, if it is one of ours.
//!
//! Invariants
//! - A credential of ours that does not hold ends the request; it never becomes nobody.
//! - One that was read is taken out of the request, so that it reaches no upstream.
//! - Where no credentials are configured, nothing is looked at.
//!
//! Not here: what a credential says (`credentials`), what its holder may use (`exchange::access`).

use crate::app::App;
use crate::call::Call;
use crate::config::Config;
use crate::credentials::Credential;
use crate::credentials::keys::KeyError;
use crate::credentials::presented::{self, PresentError};
use crate::credentials::tokens::{TokenCache, TokenError};
use crate::failure::Failure;
use bursar_domain::Label;
use std::sync::Arc;

/// Why a request's credential is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// There is none, and the route asks for one.
    #[error(
        "the route {route} asks for a Bursar key{}, and the request carries none: send it as you would the \
         provider's (authorization: Bearer, x-api-key, api-key or x-goog-api-key), or in x-bursar-key{}",
        if *.takes_tokens { " or a token" } else { "" },
        if *.takes_tokens { " or x-bursar-token" } else { "" }
    )]
    Missing {
        /// The route.
        route: Label,
        /// Whether a token would do as well.
        takes_tokens: bool,
    },
    /// It is presented in a way that is none.
    #[error(transparent)]
    Presented(#[from] PresentError),
    /// It is a key that does not hold.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It is a token that does not hold.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl CredentialError {
    /// What [`Self::reason`] may say, tokens aside.
    pub const REASONS: [&'static str; 7] = [
        "key_missing",
        "key_malformed",
        "keys_differ",
        "key_misplaced",
        "key_unknown",
        "key_not_yet_valid",
        "key_expired",
    ];

    /// Why, as metrics name it.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "key_missing",
            Self::Presented(PresentError::Malformed(_)) => "key_malformed",
            Self::Presented(PresentError::Several) => "keys_differ",
            Self::Presented(PresentError::Misplaced(_)) => "key_misplaced",
            Self::Key(KeyError::Unknown) => "key_unknown",
            Self::Key(KeyError::NotYet { .. }) => "key_not_yet_valid",
            Self::Key(KeyError::Expired { .. }) => "key_expired",
            Self::Token(error) => error.reason(),
        }
    }

    /// The key or issuer, where one was found.
    #[must_use]
    pub const fn rule(&self) -> Option<&Label> {
        match self {
            Self::Key(KeyError::NotYet { name, .. } | KeyError::Expired { name, .. }) => Some(name),
            Self::Token(error) => error.rule(),
            _ => None,
        }
    }
}

/// Finds whose `call` is, where it carries a credential of ours. `cache` has tokens that were verified before.
pub fn authenticate(app: &App, cache: &mut TokenCache, call: &mut Call) -> Result<(), Failure> {
    let config = app.config();
    let found = credential_of(app, &config, cache, call);
    let outcome = found.and_then(|found| match found {
        None if call.route.require_key => {
            let takes_tokens = !config.issuers.is_empty();
            Err(CredentialError::Missing { route: call.route.name.clone(), takes_tokens })
        }
        found => Ok(found),
    });
    match outcome {
        Ok(credential) => {
            call.credential = credential;
            Ok(())
        }
        Err(error) => {
            Err(Failure { kind: error.into(), dialect: call.error_dialect(), request: Some(call.id) })
        }
    }
}

/// The credential of a request, of whichever kind; two of them are an error.
fn credential_of(
    app: &App,
    config: &Config,
    cache: &mut TokenCache,
    call: &mut Call,
) -> Result<Option<Arc<Credential>>, CredentialError> {
    let key = if config.key_table.is_empty() { None } else { key_of(app, config, call)? };
    if config.issuers.is_empty() {
        return Ok(key);
    }
    let asked = call.head.uri.path_and_query().unwrap_or(&call.target);
    match (config.issuers.verify(&call.head.headers, asked, cache, app.now())?, key) {
        (Some(_), Some(_)) => Err(TokenError::BesideKey.into()),
        (Some(held), None) => {
            held.take_out(&mut call.head.headers);
            Ok(Some(held.credential))
        }
        (None, key) => Ok(key),
    }
}

fn key_of(app: &App, config: &Config, call: &mut Call) -> Result<Option<Arc<Credential>>, CredentialError> {
    // What the client asked for; of the target an injecting route has taken the query's credentials already.
    let asked = call.head.uri.path_and_query().unwrap_or(&call.target);
    let found = presented::find(&call.head.headers, asked, call.route.dialect)?;
    let Some(found) = found else { return Ok(None) };
    let key = found.key().ok_or(KeyError::Unknown)?;
    let credential = Arc::clone(config.key_table.verify(key, app.now())?);
    presented::take_out(&found, &mut call.head.headers, &mut call.target);
    Ok(Some(credential))
}
