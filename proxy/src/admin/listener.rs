//! Connections of the admin listener: accepting, TLS, deadlines, and the end.
//!
//! Invariants
//! - Connections are bounded; one that has not sent its head, or agreed on TLS, in time is closed.
//! - TLS is as the configuration in force says when a connection comes, so that other certificates need no
//!   restart.
//! - At the end answers that are under way get a moment, and whoever reads no more keeps nothing.
//!
//! Not here: what is answered (`super::router`), certificates (`tls`).

use super::Peer;
use crate::app::App;
use crate::listen::Shutdown;
use crate::tasks;
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// Most connections at a time.
const CONNECTIONS_MAX: u32 = 512;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a head may take, or the pause before the next one.
const HEAD: Duration = Duration::from_secs(30);
/// How long answers that are under way may take when the process ends. A reader that has stopped
/// reading must not keep it.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Accepts connections until the process ends.
pub(super) async fn serve(
    app: &Arc<App>,
    listener: TcpListener,
    router: Router,
    mut shutdown: watch::Receiver<Shutdown>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    let mut end = shutdown.clone();
    loop {
        let accepted = tokio::select! {
            // A dropped sender means the process is ending too.
            _ = end.wait_for(|state| *state == Shutdown::Now) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                // Whoever finds no room is closed at once.
                let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
                let told = (Arc::clone(app), router.clone(), shutdown.clone());
                tasks::start(connection(socket, peer, told, permit));
            }
            Err(error) => {
                // Out of file descriptors, most likely: let some connections end first.
                tracing::warn!(%error, "cannot accept an admin connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let _ = shutdown.wait_for(|state| *state == Shutdown::Now).await;
    let _ = tokio::time::timeout(LAST_ANSWERS, room.acquire_many(CONNECTIONS_MAX)).await;
}

async fn connection(
    socket: TcpStream,
    peer: SocketAddr,
    (app, router, shutdown): (Arc<App>, Router, watch::Receiver<Shutdown>),
    _permit: OwnedSemaphorePermit,
) {
    if socket.set_nodelay(true).is_err() {
        return;
    }
    let tls = app.config().admin.tls.clone();
    match tls {
        None => talk(socket, peer, router, shutdown).await,
        Some(tls) => {
            match tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(tls.server).accept(socket)).await {
                Ok(Ok(stream)) => talk(stream, peer, router, shutdown).await,
                Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS was agreed on with an admin client"),
                Err(_) => tracing::debug!(%peer, "an admin client did not agree on TLS in time"),
            }
        }
    }
}

async fn talk<S>(stream: S, peer: SocketAddr, router: Router, mut shutdown: watch::Receiver<Shutdown>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(Peer(peer.ip()));
        router.clone().oneshot(request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        _ = shutdown.wait_for(|state| *state == Shutdown::Now) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "an admin connection ended early");
    }
}

#[cfg(test)]
mod tests;
