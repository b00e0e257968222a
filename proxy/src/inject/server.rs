//! The webhook's listeners: TLS, HTTP/1.1, their few paths, and the end.
//!
//! Invariants
//! - Reviews and metrics have a listener each, and neither answers what the other is for.
//! - Connections, bodies and the memory of bodies under way are bounded, and each has a deadline.
//! - A certificate that changes needs no restart: each connection gets the one in force.
//! - At the end nothing is accepted any more, answers under way are finished, and idle connections closed.
//!
//! Not here: what is answered (`review`, `metrics`), reading certificates (`certificates`).

use super::certificates::{Certificates, Looked};
use super::decision::ByDefault;
use super::metrics::{Metrics, Reload};
use super::review::{self, Answer, Conclusion};
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
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

/// Most connections at a time. API servers keep a few.
const CONNECTIONS_MAX: u32 = 256;
/// Most connections to the metrics at a time.
const SCRAPERS_MAX: u32 = 32;
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

/// Of the page of metrics, as the admin API's.
const PAGE_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Reply = Response<Full<Bytes>>;

/// What answers requests.
#[derive(Debug)]
pub(crate) struct Injector {
    settings: Settings,
    certificates: Option<Certificates>,
    metrics: Metrics,
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
        let metrics = Metrics::new();
        metrics.certificate_expires(certificates.as_ref().and_then(Certificates::expiry_seconds));
        Self { settings, certificates, metrics, bodies: Semaphore::new(BODIES_BYTES_MAX as usize), ending }
    }

    /// Answers a probe.
    fn probe(&self, method: &Method, path: &str) -> Reply {
        if method != Method::GET && method != Method::HEAD {
            return not_allowed("GET, HEAD");
        }
        let (status, text) = match path {
            "/readyz" if *self.ending.borrow() => (StatusCode::SERVICE_UNAVAILABLE, "ending\n"),
            "/readyz" => (StatusCode::OK, "ready\n"),
            _ => (StatusCode::OK, "ok\n"),
        };
        reply(status, "text/plain; charset=utf-8", text)
    }

    /// Answers a request to the listener of metrics.
    fn tell(&self, method: &Method, path: &str) -> Reply {
        match path {
            "/healthz" | "/readyz" => self.probe(method, path),
            "/metrics" if method == Method::GET || method == Method::HEAD => {
                reply(StatusCode::OK, PAGE_TYPE, self.metrics.page())
            }
            "/metrics" => not_allowed("GET, HEAD"),
            _ => problem(StatusCode::NOT_FOUND, "there is nothing here; metrics are at /metrics"),
        }
    }

    /// Looks at the certificate's files, and tells what came of it.
    fn look(&self, certificates: &Certificates) {
        match certificates.look() {
            Looked::Same => {}
            Looked::Replaced => {
                self.metrics.certificate_reloaded(Reload::Applied);
                self.metrics.certificate_expires(certificates.expiry_seconds());
                tracing::info!("the certificate was replaced");
            }
            Looked::Unusable(error) => {
                self.metrics.certificate_reloaded(Reload::Refused);
                tracing::error!(error, "the certificate was not replaced: the one before stays in force");
            }
        }
    }

    /// Answers a request to the listener of reviews.
    async fn respond<B>(&self, request: Request<B>) -> Reply
    where
        B: Body<Data = Bytes>,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let by_default = match request.uri().path() {
            path @ ("/healthz" | "/readyz") => return self.probe(request.method(), path),
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
        let began = Instant::now();
        let answer = self.review(request, by_default).await;
        self.metrics.reviewed(answer.as_ref().ok().map(|answer| answer.conclusion), began.elapsed());
        match answer {
            Ok(answer) => {
                log(&answer);
                reply(StatusCode::OK, "application/json", answer.body)
            }
            Err(Refusal(status, detail)) => {
                tracing::warn!(status = status.as_u16(), detail, "a request was no admission review");
                problem(status, &detail)
            }
        }
    }

    async fn review<B>(&self, request: Request<B>, by_default: ByDefault) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes>,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        check_type(request.headers())?;
        let late = |_| Refusal(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time".to_owned());
        let body = tokio::time::timeout(BODY, self.body_of(request)).await.map_err(late)??;
        let unlike = |error: review::ReviewError| Refusal(StatusCode::BAD_REQUEST, error.to_string());
        review::answer(&body, by_default, &self.settings).map_err(unlike)
    }

    async fn body_of<B>(&self, request: Request<B>) -> Result<Bytes, Refusal>
    where
        B: Body<Data = Bytes>,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let too_large = || {
            let detail = format!("the body is larger than {BODY_BYTES_MAX} bytes, which no pod is");
            Refusal(StatusCode::PAYLOAD_TOO_LARGE, detail)
        };
        // A body that does not tell its length is held room for as if it were the largest.
        let told = request.body().size_hint().exact().unwrap_or(u64::from(BODY_BYTES_MAX));
        let bytes = u32::try_from(told).ok().filter(|bytes| *bytes <= BODY_BYTES_MAX);
        let Some(bytes) = bytes else { return Err(too_large()) };
        let Ok(_room) = self.bodies.acquire_many(bytes).await else {
            return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, "the process is about to end".to_owned()));
        };
        match Limited::new(request.into_body(), BODY_BYTES_MAX as usize).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
            Err(_) => Err(Refusal(StatusCode::BAD_REQUEST, "the body broke off".to_owned())),
        }
    }
}

/// Where the webhook listens.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// For reviews, and for probes.
    pub(crate) reviews: TcpListener,
    /// For metrics, in plain HTTP.
    pub(crate) metrics: Option<TcpListener>,
}

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Reviews,
    Metrics,
}

/// Accepts connections until the process ends, then finishes what is under way.
pub(crate) async fn serve(injector: Injector, listeners: Listeners) {
    let injector = Rc::new(injector);
    tasks::start(watch_certificates(Rc::clone(&injector)));
    let metrics = async {
        if let Some(listener) = listeners.metrics {
            accept(&injector, listener, Purpose::Metrics, SCRAPERS_MAX).await;
        }
    };
    tokio::join!(accept(&injector, listeners.reviews, Purpose::Reviews, CONNECTIONS_MAX), metrics);
}

async fn accept(injector: &Rc<Injector>, listener: TcpListener, purpose: Purpose, connections_max: u32) {
    let room = Arc::new(Semaphore::new(connections_max as usize));
    let mut ending = injector.ending.clone();
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
                tasks::start(connection(Rc::clone(injector), socket, peer, purpose, permit));
            }
            Err(error) => {
                // Out of file descriptors, most likely: let some connections end first.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(LAST_ANSWERS, room.acquire_many(connections_max)).await.is_err() {
        tracing::warn!("answers under way were cut: they did not end in time");
    }
}

async fn watch_certificates(injector: Rc<Injector>) {
    let Some(certificates) = &injector.certificates else { return };
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        injector.look(certificates);
    }
}

async fn connection(
    injector: Rc<Injector>,
    socket: TcpStream,
    peer: SocketAddr,
    purpose: Purpose,
    _permit: OwnedSemaphorePermit,
) {
    if socket.set_nodelay(true).is_err() {
        return;
    }
    let certificates = injector.certificates.as_ref().filter(|_| purpose == Purpose::Reviews);
    let Some(certificates) = certificates else {
        return talk(injector, socket, peer, purpose).await;
    };
    let acceptor = TlsAcceptor::from(certificates.current());
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(socket)).await {
        Ok(Ok(stream)) => talk(injector, stream, peer, purpose).await,
        Ok(Err(error)) => {
            injector.metrics.handshake_failed();
            tracing::warn!(%peer, %error, "no TLS was agreed on");
        }
        Err(_) => {
            injector.metrics.handshake_failed();
            tracing::debug!(%peer, "TLS was not agreed on in time");
        }
    }
}

async fn talk<S>(injector: Rc<Injector>, stream: S, peer: SocketAddr, purpose: Purpose)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut ending = injector.ending.clone();
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let injector = Rc::clone(&injector);
        async move {
            Ok::<_, Infallible>(match purpose {
                Purpose::Reviews => injector.respond(request).await,
                Purpose::Metrics => injector.tell(request.method(), request.uri().path()),
            })
        }
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
    let Answer { conclusion, told, pod, dry_run, .. } = answer;
    let (outcome, told) = (conclusion.word(), told.join("; "));
    match conclusion {
        Conclusion::Injected => tracing::info!(pod, dry_run, told, "a sidecar was injected"),
        Conclusion::NotInjected | Conclusion::Refused | Conclusion::NoPod => {
            tracing::warn!(pod, dry_run, outcome, told, "a sidecar was not injected");
        }
        Conclusion::NoCreation | Conclusion::Left(_) => {
            tracing::debug!(pod, dry_run, outcome, "a pod was left as it is");
        }
    }
}

/// Why a request to a path of reviews is answered with an error: a status, and what to do about it.
#[derive(Debug)]
struct Refusal(StatusCode, String);

/// Refuses other types of bodies.
fn check_type(headers: &http::HeaderMap) -> Result<(), Refusal> {
    let told = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let kind = told.map(|told| told.split(';').next().unwrap_or_default().trim());
    if kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    let told: String = told.unwrap_or_default().chars().take(80).collect();
    let detail = format!("content-type {told:?} is not taken: send application/json");
    Err(Refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
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
