//! One small request on a connection of its own, for the sidecar's own needs: AWS credentials, webhooks,
//! keys of issuers.
//!
//! Invariants
//! - Time and the size of the answer are bounded. Redirects are not followed.
//!
//! Not here: clients' requests (`Pool`).

use super::address::Permit;
use super::{ConnectError, Connector, Origin};
use crate::config::Protocol;
use crate::tasks;
use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderValue, Request, StatusCode, Uri, header, response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use std::future::Future;
use std::time::Duration;

/// Largest answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ErrandError {
    /// The address is no `http` or `https` URL.
    #[error("it has no usable address")]
    Address,
    /// No connection could be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke, or what came was no HTTP.
    #[error("it sent no valid HTTP reply")]
    Broken(#[source] hyper::Error),
    /// The answer broke off or was too large.
    #[error("its answer was cut or larger than {ANSWER_BYTES_MAX} bytes")]
    Body,
    /// It took too long.
    #[error("it did not answer within {0:?}")]
    TimedOut(Duration),
}

/// Sends `request` to the server its URL names, and reads the answer within `time`.
pub async fn errand(
    connector: &Connector,
    request: Request<Bytes>,
    time: Duration,
) -> Result<(StatusCode, Bytes), ErrandError> {
    within(time, async {
        let reply = send(connector, request, time, None).await?;
        let (head, body) = reply.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|_| ErrandError::Body)?;
        Ok((head.status, body.to_bytes()))
    })
    .await
}

/// Sends `request` to an address that `permit` lets be called, and reads the head of the answer within
/// `time`. What follows the head is not read.
pub(crate) async fn deliver(
    connector: &Connector,
    request: Request<Bytes>,
    permit: &Permit,
    time: Duration,
) -> Result<response::Parts, ErrandError> {
    within(time, async { Ok(send(connector, request, time, Some(permit)).await?.into_parts().0) }).await
}

async fn within<T>(
    time: Duration,
    work: impl Future<Output = Result<T, ErrandError>>,
) -> Result<T, ErrandError> {
    tokio::time::timeout(time, work).await.unwrap_or(Err(ErrandError::TimedOut(time)))
}

async fn send(
    connector: &Connector,
    mut request: Request<Bytes>,
    time: Duration,
    permit: Option<&Permit>,
) -> Result<http::Response<Incoming>, ErrandError> {
    let origin = origin_of(request.uri()).ok_or(ErrandError::Address)?;
    let host = HeaderValue::from_str(origin.authority.as_str()).map_err(|_| ErrandError::Address)?;
    request.headers_mut().insert(header::HOST, host);
    let target = request.uri().path_and_query().cloned().ok_or(ErrandError::Address)?;
    *request.uri_mut() = Uri::from(target);
    let (io, _) = match permit {
        None => connector.connect(&origin, time).await?,
        Some(permit) => connector.connect_permitted(&origin, time, permit).await?,
    };
    let io = hyper_util::rt::TokioIo::new(io);
    let mut client = http1::Builder::new();
    let handshake = client.max_buf_size(ANSWER_BYTES_MAX).handshake(io);
    let (mut sender, connection) = handshake.await.map_err(ErrandError::Broken)?;
    tasks::start(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection of an errand ended");
        }
    });
    sender.send_request(request.map(Full::new)).await.map_err(ErrandError::Broken)
}

fn origin_of(uri: &Uri) -> Option<Origin> {
    let scheme = uri.scheme().filter(|scheme| **scheme == Scheme::HTTP || **scheme == Scheme::HTTPS)?;
    Some(Origin {
        secure: *scheme == Scheme::HTTPS,
        authority: uri.authority()?.clone(),
        protocol: Protocol::Http1,
    })
}
