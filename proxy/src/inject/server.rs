//! The webhook's listener: TLS, HTTP/1.1, its few paths, and the end.
//!
//! Invariants
//! - Connections, bodies and the memory of bodies under way are bounded, and each has a deadline.
//! - A certificate that changes needs no restart: each connection gets the one in force.
//! - At the end nothing is accepted any more, answers under way are finished, and idle connections closed.
//!
//! Not here: what is answered (`review`), reading certificates (`certificates`).

use super::certificates::{Certificates, Looked};
use super::decision::ByDefault;
use super::review::{self, Answer};
use super::settings::Settings;
use crate::tasks;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

/// Most connections at a time. API servers keep a few.
const CONNECTIONS_MAX: u32 = 256;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a head may take, or the pause before the next one.
const HEAD: Duration = Duration::from_secs(60);
/// How long a body may take. API servers give up after `timeoutSeconds`, at most 30.
const BODY: Duration = Duration::from_secs(10);
/// Largest body. An API server takes no object of more than 3 MiB.
const BODY_BYTES_MAX: u32 = 4 << 20;
/// Most bytes of bodies under way, all connections together.
const BODIES_BYTES_MAX: u32 = 32 << 20;
/// How long answers under way may take at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(10);
/// How often the certificate's files are looked at.
const ROUND: Duration = Duration::from_secs(1);

type Reply = Response<Full<Bytes>>;

/// What answers requests.
#[derive(Debug)]
pub(crate) struct Injector {
    settings: Settings,
    certificates: Option<Certificates>,
    /// One permit for each byte of bodies under way.
    bodies: Semaphore,
    ending: watch::Receiver<bool>,
}

impl Injector {
    /// Without certificates it speaks plain HTTP. It ends when `ending` becomes true.
    pub(crate) fn new(
        settings: Settings,
        certificates: Option<Certificates>,
        ending: watch::Receiver<bool>,
    ) -> Self {
        Self { settings, certificates, bodies: Semaphore::new(BODIES_BYTES_MAX as usize), ending }
    }

    /// Answers a request.
    async fn respond<B>(&self, request: Request<B>) -> Reply
    where
        B: Body<Data = Bytes>,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let by_default = match request.uri().path() {
            "/healthz" => return probe(request.method(), StatusCode::OK, "ok\n"),
            "/readyz" if *self.ending.borrow() => {
                return probe(request.method(), StatusCode::SERVICE_UNAVAILABLE, "ending\n");
            }
            "/readyz" => return probe(request.method(), StatusCode::OK, "ready\n"),
            "/mutate" => ByDefault::Without,
            "/mutate/namespace" => ByDefault::With,
            _ => {
                let detail = "there is nothing here; reviews are taken at /mutate and /mutate/namespace";
                return problem(StatusCode::NOT_FOUND, detail);
            }
        };
        if request.method() != Method::POST {
            return not_allowed("POST");
        }
        if let Some(refusal) = refuse_type(request.headers()) {
            return refusal;
        }
        let body = match tokio::time::timeout(BODY, self.body_of(request)).await {
            Ok(Ok(body)) => body,
            Ok(Err(refusal)) => return refusal,
            Err(_) => return problem(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
        };
        match review::answer(&body, by_default, &self.settings) {
            Ok(answer) => {
                log(&answer);
                reply(StatusCode::OK, "application/json", answer.body)
            }
            Err(error) => {
                tracing::warn!(%error, "a request was no admission review");
                problem(StatusCode::BAD_REQUEST, &error.to_string())
            }
        }
    }

    async fn body_of<B>(&self, request: Request<B>) -> Result<Bytes, Reply>
    where
        B: Body<Data = Bytes>,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let too_large = || {
            let detail = format!("the body is larger than {BODY_BYTES_MAX} bytes, which no pod is");
            problem(StatusCode::PAYLOAD_TOO_LARGE, &detail)
        };
        // A body that does not tell its length is held room for as if it were the largest.
        let told = request.body().size_hint().exact().unwrap_or(u64::from(BODY_BYTES_MAX));
        let bytes = u32::try_from(told).ok().filter(|bytes| *bytes <= BODY_BYTES_MAX);
        let Some(bytes) = bytes else { return Err(too_large()) };
        let Ok(_room) = self.bodies.acquire_many(bytes).await else {
            return Err(problem(StatusCode::SERVICE_UNAVAILABLE, "the process is about to end"));
        };
        match Limited::new(request.into_body(), BODY_BYTES_MAX as usize).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
            Err(_) => Err(problem(StatusCode::BAD_REQUEST, "the body broke off")),
        }
    }
}

/// Accepts connections until the process ends, then finishes what is under way.
pub(crate) async fn serve(injector: Injector, listener: TcpListener) {
    let injector = Rc::new(injector);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    let mut ending = injector.ending.clone();
    tasks::start(watch_certificates(Rc::clone(&injector)));
    loop {
        let accepted = tokio::select! {
            // A dropped sender means the process is ending too.
            _ = ending.wait_for(|ending| *ending) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                // Whoever finds no room is closed at once.
                let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
                tasks::start(connection(Rc::clone(&injector), socket, peer, permit));
            }
            Err(error) => {
                // Out of file descriptors, most likely: let some connections end first.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(LAST_ANSWERS, room.acquire_many(CONNECTIONS_MAX)).await.is_err() {
        tracing::warn!("answers under way were cut: they did not end in time");
    }
}

async fn watch_certificates(injector: Rc<Injector>) {
    let Some(certificates) = &injector.certificates else { return };
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        match certificates.look() {
            Looked::Same => {}
            Looked::Replaced => tracing::info!("the certificate was replaced"),
            Looked::Unusable(error) => {
                tracing::error!(error, "the certificate was not replaced: the one before stays in force");
            }
        }
    }
}

async fn connection(
    injector: Rc<Injector>,
    socket: TcpStream,
    peer: SocketAddr,
    _permit: OwnedSemaphorePermit,
) {
    if socket.set_nodelay(true).is_err() {
        return;
    }
    let Some(certificates) = &injector.certificates else {
        return talk(injector, socket, peer).await;
    };
    let acceptor = TlsAcceptor::from(certificates.current());
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(socket)).await {
        Ok(Ok(stream)) => talk(injector, stream, peer).await,
        Ok(Err(error)) => tracing::warn!(%peer, %error, "no TLS was agreed on"),
        Err(_) => tracing::debug!(%peer, "TLS was not agreed on in time"),
    }
}

async fn talk<S>(injector: Rc<Injector>, stream: S, peer: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut ending = injector.ending.clone();
    let service = hyper::service::service_fn(move |request| {
        let injector = Rc::clone(&injector);
        async move { Ok::<_, Infallible>(injector.respond(request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        _ = ending.wait_for(|ending| *ending) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

fn log(answer: &Answer) {
    let Answer { outcome, told, pod, dry_run, .. } = answer;
    let told = told.join("; ");
    match *outcome {
        "injected" => tracing::info!(pod, dry_run, told, "a sidecar was injected"),
        "not injected" | "refused" | "no pod" => {
            tracing::warn!(pod, dry_run, outcome, told, "a sidecar was not injected");
        }
        _ => tracing::debug!(pod, dry_run, outcome, "a pod was left as it is"),
    }
}

/// Why the type of a body is not taken.
fn refuse_type(headers: &http::HeaderMap) -> Option<Reply> {
    let told = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let kind = told.map(|told| told.split(';').next().unwrap_or_default().trim());
    if kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) {
        return None;
    }
    let told: String = told.unwrap_or_default().chars().take(80).collect();
    let detail = format!("content-type {told:?} is not taken: send application/json");
    Some(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, &detail))
}

fn probe(method: &Method, status: StatusCode, text: &'static str) -> Reply {
    if method == Method::GET || method == Method::HEAD {
        reply(status, "text/plain; charset=utf-8", text)
    } else {
        not_allowed("GET, HEAD")
    }
}

fn not_allowed(methods: &'static str) -> Reply {
    let mut made = problem(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path does not take this method: the header allow says which it takes",
    );
    made.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    made
}

/// An error as problem details (RFC 9457), as the admin API's.
fn problem(status: StatusCode, detail: &str) -> Reply {
    let document = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("error"),
        "status": status.as_u16(),
        "detail": detail,
    });
    reply(status, "application/problem+json", document.to_string())
}

fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut made = Response::new(Full::new(body.into()));
    *made.status_mut() = status;
    let headers = made.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    made
}

#[cfg(test)]
mod tests;
