//! Connections of the admin listener: accepting, TLS, deadlines, and the end.
//!
//! Invariants
//! - Connections are bounded; one that has not sent its head, or agreed on TLS, in time is closed.
//! - The HTTP library sees only what the guard let pass.
//! - TLS is as the configuration in force says when a connection comes, so that other certificates need no
//!   restart.
//! - At the end answers that are under way get a moment, and whoever reads no more keeps nothing.
//!
//! Not here: what is answered (`super::router`, `strict`), certificates (`tls`).

use super::{Peer, strict};
use crate::app::App;
use crate::guard::{ConnState, GuardedIo, Ticker};
use crate::listen::Shutdown;
use crate::tasks;
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_rustls::TlsAcceptor;

/// Most connections at a time.
const CONNECTIONS_MAX: u32 = 512;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often it is looked whether a client is too slow.
const SWEEP: Duration = Duration::from_secs(1);
/// The most that the HTTP library buffers of a connection: more than the guard lets pass as a head.
const BUFFER_MAX: usize = 128 * 1024;
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
    let ticker = Ticker::new(Instant::now());
    let state = ConnState::new(ticker.clone());
    let io = GuardedIo::http1(stream, strict::LIMITS, Arc::clone(&state));
    let of_service = Arc::clone(&state);
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        strict::answer(request, router.clone(), Peer(peer.ip()), Arc::clone(&of_service))
    });
    let mut builder = http1::Builder::new();
    // The guard has its own, stricter limits; hyper's must not be the ones that answer.
    builder.max_headers(strict::LIMITS.headers_max.saturating_add(8)).max_buf_size(BUFFER_MAX);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = false;
    let ended = loop {
        tokio::select! {
            ended = serving.as_mut() => break ended,
            _ = shutdown.wait_for(|state| *state == Shutdown::Now), if !told => {
                told = true;
                serving.as_mut().graceful_shutdown();
            }
            now = sweep.tick() => {
                ticker.advance(now);
                if !strict::look_at(&state) {
                    tracing::debug!(%peer, "an admin client takes nothing of its answer");
                    return;
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "an admin connection ended early");
    }
}

#[cfg(test)]
mod tests;
