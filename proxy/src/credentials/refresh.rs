//! Reading the keys of issuers anew, in the background.
//!
//! Invariants
//! - Nobody on the request path waits for a fetch, and one that hangs holds up no other issuer's.
//! - Time and size of an answer are bounded (`upstream::errand`); redirects are not followed.
//! - A failure keeps the keys that are there; it is logged when it begins, and its end.
//!
//! Not here: what the keys are and when they are due (`jwks`), what only uses them (`tokens`).

use super::jwks::{self, JwksError};
use super::tokens::{Issuer, Remote};
use crate::app::App;
use crate::config::read_secret_text;
use crate::failure::chain;
use crate::listen::Shutdown;
use crate::tasks;
use crate::upstream::{Connector, ErrandError, TlsSetup, TlsSetupError, errand};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often it is looked for what is due.
const ROUND: Duration = Duration::from_secs(1);
/// Longest time of one fetch.
const FETCH_TIME: Duration = Duration::from_secs(10);

/// Why an issuer's keys could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The certificates to trust cannot be used.
    #[error("ca_file cannot be used")]
    Tls(#[from] TlsSetupError),
    /// The token to show cannot be read.
    #[error("token_file {0}")]
    TokenFile(String),
    /// No request can be made of the settings.
    #[error("no request can be made of jwks_url and token_file")]
    Request(#[from] http::Error),
    /// There was no answer.
    #[error("no answer came from jwks_url")]
    Errand(#[from] ErrandError),
    /// The answer was another one.
    #[error("jwks_url was answered with {0}; redirects are not followed")]
    Status(StatusCode),
    /// The answer holds no keys.
    #[error("the answer {0}")]
    Keys(#[from] JwksError),
}

/// Reads the keys of all issuers anew when they are due, until the process ends.
pub async fn tend(app: Arc<App>, connector: Connector, mut shutdown: watch::Receiver<Shutdown>) {
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = shutdown.wait_for(|state| *state != Shutdown::No) => return,
            _ = rounds.tick() => {}
        }
        let issuers = Arc::clone(&app.config().issuers);
        for issuer in issuers.all() {
            let Some(remote) = issuer.remote() else { continue };
            if issuer.keys().begin(issuer.rules.refresh) {
                tasks::start(read(issuer.clone(), remote.clone(), connector.clone()));
            }
        }
    }
}

async fn read(issuer: Issuer, remote: Remote, connector: Connector) {
    let (store, name) = (issuer.keys(), issuer.rules.name.as_str());
    let fetched = async {
        let text = fetch(&remote, connector).await?;
        Ok::<_, FetchError>((jwks::read_jwks(&text)?, text))
    };
    match fetched.await {
        Ok((keys, text)) => {
            let count = keys.len();
            if store.keep(keys, &text) {
                tracing::info!(issuer = name, keys = count, "the keys of an issuer of tokens are read again");
            } else {
                tracing::debug!(issuer = name, keys = count, "the keys of an issuer of tokens were read");
            }
        }
        Err(error) => {
            let why = chain(&error);
            if store.failed() {
                tracing::warn!(
                    issuer = name,
                    url = remote.shown(),
                    why,
                    "the keys of an issuer of tokens could not be read; those that are there are used on"
                );
            } else {
                tracing::debug!(issuer = name, why, "the keys of an issuer of tokens could not be read");
            }
        }
    }
}

async fn fetch(remote: &Remote, connector: Connector) -> Result<Bytes, FetchError> {
    let connector = match (&remote.ca_file, connector) {
        (Some(file), Connector::Network(_)) => Connector::Network(TlsSetup::load(Some(file))?),
        (_, connector) => connector,
    };
    let mut request = Request::get(remote.url.clone())
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::USER_AGENT, concat!("bursar/", env!("CARGO_PKG_VERSION")));
    if let Some(file) = &remote.token_file {
        let token = read_secret_text(file).map_err(FetchError::TokenFile)?;
        let value = token.in_header("Bearer ").map_err(http::Error::from)?;
        request = request.header(header::AUTHORIZATION, value);
    }
    match errand(&connector, request.body(Bytes::new())?, FETCH_TIME).await? {
        (StatusCode::OK, body) => Ok(body),
        (status, _) => Err(FetchError::Status(status)),
    }
}
