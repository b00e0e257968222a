//! One small request on a connection of its own, for the sidecar's own needs: AWS credentials.
//!
//! Invariants
//! - Time and the size of the answer are bounded. Redirects are not followed.
//!
//! Not here: clients' requests (`Pool`).

use super::{ConnectError, Connector, Origin};
use crate::config::Protocol;
use crate::tasks;
use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
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
    match tokio::time::timeout(time, untimed(connector, request, time)).await {
        Ok(answer) => answer,
        Err(_) => Err(ErrandError::TimedOut(time)),
    }
}

async fn untimed(
    connector: &Connector,
    mut request: Request<Bytes>,
    time: Duration,
) -> Result<(StatusCode, Bytes), ErrandError> {
    let origin = origin_of(request.uri()).ok_or(ErrandError::Address)?;
    let host = HeaderValue::from_str(origin.authority.as_str()).map_err(|_| ErrandError::Address)?;
    request.headers_mut().insert(header::HOST, host);
    let target = request.uri().path_and_query().cloned().ok_or(ErrandError::Address)?;
    *request.uri_mut() = Uri::from(target);
    let (io, _) = connector.connect(&origin, time).await?;
    let io = hyper_util::rt::TokioIo::new(io);
    let (mut sender, connection) = http1::handshake(io).await.map_err(ErrandError::Broken)?;
    tasks::start(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection for credentials ended");
        }
    });
    let reply = sender.send_request(request.map(Full::new)).await.map_err(ErrandError::Broken)?;
    let (head, body) = reply.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|_| ErrandError::Body)?;
    Ok((head.status, body.to_bytes()))
}

fn origin_of(uri: &Uri) -> Option<Origin> {
    let scheme = uri.scheme().filter(|scheme| **scheme == Scheme::HTTP || **scheme == Scheme::HTTPS)?;
    Some(Origin {
        secure: *scheme == Scheme::HTTPS,
        authority: uri.authority()?.clone(),
        protocol: Protocol::Http1,
    })
}
