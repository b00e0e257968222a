//! Requests signed with the sidecar's own AWS credentials (`auth: sigv4`).
//!
//! | file | owns |
//! |---|---|
//! | `sign` | the signature of one request |
//! | `credentials` | keys with an end, kept and renewed |
//! | `sources` | where keys come from |
//! | `profile`, `answers` | the shared files; what endpoints answer |
//!
//! Without the feature `sigv4` there is only the answer that this build cannot sign, and the
//! configuration refuses such routes before anything starts.
//!
//! Invariants
//! - Nothing of a credential is logged or shown in an error.
//! - A signature covers the whole body, so the body is held until its hash is known.
//!
//! Not here: which routes sign (`config`), taking the client's own credentials away (`forward`).

#[cfg(feature = "sigv4")]
mod answers;
#[cfg(feature = "sigv4")]
mod credentials;
#[cfg(feature = "sigv4")]
mod profile;
#[cfg(feature = "sigv4")]
mod sign;
#[cfg(feature = "sigv4")]
mod sources;

use crate::config::SigV4;
use crate::upstream::Origin;
use bursar_domain::Timestamp;
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::uri::PathAndQuery;

/// The largest body that is held to be signed: Bedrock's own limit is 20 MB for InvokeModel and 25 MB
/// for Converse with documents.
pub const SIGNED_BODY_BYTES_MAX: u64 = 25 * 1024 * 1024;

/// Why a request was not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// No credentials could be had.
    #[error("no AWS credentials: {0}")]
    Credentials(String),
    /// The request cannot be put into the form that is signed.
    #[error("the request cannot be signed: {0}")]
    Form(String),
    /// The program was built without the feature.
    #[error("this build cannot sign requests for AWS")]
    NotBuilt,
}

/// A request as it will be sent.
#[derive(Clone, Copy, Debug)]
pub struct Unsigned<'a> {
    /// Where it goes.
    pub origin: &'a Origin,
    /// What it asks for.
    pub target: &'a PathAndQuery,
    /// Method and headers.
    pub head: &'a http::request::Parts,
    /// The whole body.
    pub body: &'a [Bytes],
}

/// The headers that authorize a request.
pub type Authorization = Vec<(HeaderName, HeaderValue)>;

/// Signs requests; one for each worker, with credentials of its own.
#[derive(Debug)]
pub struct Signer {
    #[cfg(feature = "sigv4")]
    credentials: credentials::Keeper,
}

#[cfg(feature = "sigv4")]
impl Signer {
    /// A signer that asks for credentials by `connector`.
    #[must_use]
    pub fn new(connector: crate::upstream::Connector) -> Self {
        Self { credentials: credentials::Keeper::new(connector) }
    }

    /// The headers that authorize `request`.
    pub async fn sign(
        &self,
        scope: &SigV4,
        request: Unsigned<'_>,
        now: Timestamp,
    ) -> Result<Authorization, SignError> {
        let keys = self.credentials.get(scope, now).await.map_err(SignError::Credentials)?;
        sign::sign(scope, &keys, request, now).map_err(|error| SignError::Form(error.to_string()))
    }
}

#[cfg(not(feature = "sigv4"))]
impl Signer {
    /// A signer that cannot sign.
    #[must_use]
    pub fn new(_: crate::upstream::Connector) -> Self {
        Self {}
    }

    /// Refuses.
    pub async fn sign(&self, _: &SigV4, _: Unsigned<'_>, _: Timestamp) -> Result<Authorization, SignError> {
        Err(SignError::NotBuilt)
    }
}
