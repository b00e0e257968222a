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
use crate::failure::Failure;
use bursar_domain::Label;
use std::sync::Arc;

/// Why a request's credential is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// There is none, and the route asks for one.
    #[error(
        "the route {route} asks for a Bursar key, and the request carries none: send it as you would the \
         provider's (authorization: Bearer, x-api-key, api-key or x-goog-api-key), or in x-bursar-key"
    )]
    Missing {
        /// The route.
        route: Label,
    },
    /// It is presented in a way that is none.
    #[error(transparent)]
    Presented(#[from] PresentError),
    /// It is a key that does not hold.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl CredentialError {
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
        }
    }

    /// The key or issuer, where one was found.
    #[must_use]
    pub const fn rule(&self) -> Option<&Label> {
        match self {
            Self::Key(KeyError::NotYet { name, .. } | KeyError::Expired { name, .. }) => Some(name),
            _ => None,
        }
    }
}

/// Finds whose `call` is, where it carries a credential of ours.
pub fn authenticate(app: &App, call: &mut Call) -> Result<(), Failure> {
    let config = app.config();
    let found = if config.key_table.is_empty() { Ok(None) } else { credential_of(app, &config, call) };
    let outcome = found.and_then(|found| match found {
        None if call.route.require_key => Err(CredentialError::Missing { route: call.route.name.clone() }),
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

fn credential_of(
    app: &App,
    config: &Config,
    call: &mut Call,
) -> Result<Option<Arc<Credential>>, CredentialError> {
    // What the client asked for; of the target an injecting route has taken the query's credentials already.
    let asked = call.head.uri.path_and_query().unwrap_or(&call.target);
    let found = presented::find(&call.head.headers, asked, call.route.dialect)?;
    let Some(found) = found else { return Ok(None) };
    let key = found.key().ok_or(KeyError::Unknown)?;
    let credential = Arc::clone(config.key_table.verify(key, app.now())?);
    presented::take_out(&found, &mut call.head.headers, &mut call.target);
    Ok(Some(credential))
}
