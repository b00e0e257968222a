//! Upstream connections: one pool per worker, kept alive, HTTP/1.1 or HTTP/2 as the server agrees.
//!
//! Invariants
//! - A request is sent twice only if nothing of it was sent the first time; one that the upstream turned
//!   away unprocessed is an error of its own, and its client's to send again.
//! - A connection goes back to the pool only after its reply ended whole.
//! - Idle connections per origin and their age have named maxima.
//!
//! Not here: which origin a request goes to (`config::routes`), timeouts of a reply (`reply`).

pub(crate) mod address;
mod connect;
mod errand;
mod line;
mod patience;
mod request_body;

pub use connect::{ConnectError, Connector, OpenMemory, TlsSetup, TlsSetupError, UpstreamIo};
pub(crate) use errand::deliver;
pub use errand::{ErrandError, errand};
pub use patience::Patience;
pub use request_body::{BodyFault, RequestBody, RequestProgress, Window, passing_trailers};

use crate::config::{Protocol, RouteTimeouts};
use crate::http::LocalFuture;
use crate::idle_timer::IdleTimer;
use crate::tasks;
use bytes::Bytes;
use http::uri::{Authority, Scheme, Uri};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::TokioTimer;
use line::Line;
use pin_project_lite::pin_project;
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// Where connections go: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// TLS or plain.
    pub secure: bool,
    /// Host name or address, with the port where it is not the scheme's own.
    pub authority: Authority,
    /// Which protocol to speak.
    pub protocol: Protocol,
}

impl Origin {
    /// The port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(if self.secure { 443 } else { 80 })
    }
}

/// How often a shared HTTP/2 connection with requests under way is asked for a sign of life, and how
/// long that may take.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bounds of the pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Idle connections kept per origin and worker.
    pub idle_per_origin_max: usize,
    /// How long an idle connection is kept.
    pub idle_for_max: Duration,
}

/// Why no reply head came.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection could be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke before the reply's head was complete.
    #[error("the upstream closed the connection or sent no valid HTTP reply")]
    Broken(#[source] hyper::Error),
    /// It turned the request away before processing it, as HTTP/2 lets it (RFC 9113 §8.7).
    #[error(
        "the upstream turned the request away without looking at it, so it was not billed: send it again"
    )]
    Refused(#[source] hyper::Error),
    /// It switched protocols unasked, or to another one than was asked for.
    #[error("the upstream switched protocols, which nobody asked for")]
    Switched,
}

/// The connections of one worker.
#[derive(Debug)]
pub struct Pool {
    connector: Connector,
    limits: PoolLimits,
    /// By origin; a list, since there are few and hashing a name costs more than comparing some.
    idle: RefCell<Vec<(Arc<Origin>, Vec<Idle>)>>,
    shared: RefCell<HashMap<Origin, Shared>>,
    /// Timers of exchanges that have ended, still armed.
    timers: RefCell<Vec<IdleTimer>>,
}

#[derive(Debug)]
struct Idle {
    line: Line,
    since: Instant,
}

/// A connection that carries any number of exchanges. Once it is off the list it ends with the last of
/// them.
#[derive(Debug)]
struct Shared {
    sender: http2::SendRequest<RequestBody>,
    used_at: Instant,
}

/// A connection that carries one exchange; give it back when the reply has ended whole.
#[derive(Debug)]
pub struct Lease {
    pool: Rc<Pool>,
    origin: Arc<Origin>,
    line: Line,
    is_trusted: bool,
}

impl Lease {
    /// The next piece of the reply's body.
    pub fn poll_body(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<http_body::Frame<Bytes>>>> {
        self.line.drive(cx, |cx| Pin::new(&mut *body).poll_frame(cx))
    }

    /// Lets the connection go on by itself while the request is still being sent.
    pub fn detach(&mut self) {
        self.line.detach();
    }

    /// The connection's framing is doubtful: it must not carry another request.
    pub fn distrust(&mut self) {
        self.is_trusted = false;
    }

    /// Returns the connection to the pool.
    pub fn give_back(self, timer: IdleTimer) {
        let Self { pool, origin, mut line, is_trusted } = self;
        pool.park(timer);
        if !is_trusted || !line.is_idle() {
            return;
        }
        let mut idle = pool.idle.borrow_mut();
        let new = Idle { line, since: Instant::now() };
        match idle.iter_mut().find(|(known, _)| is_same(known, &origin)) {
            Some((_, list)) if list.len() < pool.limits.idle_per_origin_max => list.push(new),
            Some(_) => {}
            None => idle.push((origin, vec![new])),
        }
    }
}

/// The head of a reply with its body to come, and the connection, where nobody else uses it.
pub type Sent = (http::Response<Incoming>, Option<Lease>);

pin_project! {
    /// A request under way. Written out, since an `async fn` would hold its parts twice.
    struct Sending<F> {
        // On the connection that was idle.
        #[pin]
        first: Option<F>,
        lease: Option<Lease>,
        // On any other.
        slow: Option<LocalFuture<Result<Sent, SendError>>>,
        pool: Rc<Pool>,
        origin: Arc<Origin>,
        connect_timeout: Duration,
    }
}

type TrySent = Result<http::Response<Incoming>, TrySendError<http::Request<RequestBody>>>;

impl<F: Future<Output = TrySent>> Future for Sending<F> {
    type Output = Result<Sent, SendError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(first) = this.first.as_mut().as_pin_mut() {
            let answer = match this.lease.as_mut() {
                Some(lease) => {
                    let mut first = first;
                    lease.line.drive(cx, |cx| first.as_mut().poll(cx))
                }
                None => first.poll(cx),
            };
            match std::task::ready!(answer) {
                Ok(response) => return Poll::Ready(Ok((response, this.lease.take()))),
                Err(mut error) => {
                    let Some(back) = error.take_message() else {
                        return Poll::Ready(Err(SendError::Broken(error.into_error())));
                    };
                    *this.lease = None;
                    *this.slow = Some(Rc::clone(this.pool).boxed(this.origin, back, *this.connect_timeout));
                }
            }
            this.first.set(None);
        }
        this.slow.as_mut().map_or(Poll::Pending, |slow| slow.as_mut().poll(cx))
    }
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(connector: Connector, limits: PoolLimits) -> Rc<Self> {
        Rc::new(Self {
            connector,
            limits,
            idle: RefCell::default(),
            shared: RefCell::default(),
            timers: RefCell::default(),
        })
    }

    /// A timer for the head of a reply and later for its body.
    pub fn timer(&self, timeouts: &RouteTimeouts) -> IdleTimer {
        let tick = timeouts.idle.min(timeouts.response_head);
        match self.timers.borrow_mut().pop() {
            Some(timer) => timer.taken_over(timeouts.response_head, tick),
            None => IdleTimer::start(timeouts.response_head, tick),
        }
    }

    fn park(&self, timer: IdleTimer) {
        let mut timers = self.timers.borrow_mut();
        if timers.len() < self.limits.idle_per_origin_max {
            timers.push(timer);
        }
    }

    /// How connections are made.
    #[must_use]
    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Sends `request` to `origin` and waits for the head of the reply. The lease is absent for
    /// HTTP/2, where connections are shared.
    ///
    /// What takes more than an idle connection is boxed, so that not every request carries room for it.
    pub fn send(
        self: &Rc<Self>,
        origin: Arc<Origin>,
        request: http::Request<RequestBody>,
        connect_timeout: Duration,
    ) -> impl Future<Output = Result<Sent, SendError>> + use<> {
        let idle = if self.shared.borrow().is_empty() { self.take_idle(&origin) } else { None };
        let mut sending =
            Sending { first: None, lease: None, slow: None, pool: Rc::clone(self), origin, connect_timeout };
        match idle {
            Some(mut line) => {
                sending.first = Some(line.sender.try_send_request(for_http1(request)));
                sending.lease = Some(self.lease(&sending.origin, line));
            }
            None => {
                sending.slow = Some(sending.pool.clone().boxed(&sending.origin, request, connect_timeout))
            }
        }
        sending
    }

    fn boxed(
        self: Rc<Self>,
        origin: &Arc<Origin>,
        request: http::Request<RequestBody>,
        connect_timeout: Duration,
    ) -> LocalFuture<Result<Sent, SendError>> {
        Box::pin(self.send_slowly(Arc::clone(origin), request, connect_timeout))
    }

    /// Tries every connection that is there, then a new one.
    async fn send_slowly(
        self: Rc<Self>,
        origin: Arc<Origin>,
        request: http::Request<RequestBody>,
        connect_timeout: Duration,
    ) -> Result<Sent, SendError> {
        let mut request = request;
        loop {
            if let Some(sender) = self.shared_connection(&origin) {
                match send_shared(sender, &origin, request).await {
                    Ok(response) => return Ok((response, None)),
                    Err(Unsent::Retry(back)) => {
                        self.shared.borrow_mut().remove(origin.as_ref());
                        request = *back;
                        continue;
                    }
                    Err(Unsent::Final(error)) => return Err(final_error(error)),
                }
            }
            let Some(mut line) = self.take_idle(&origin) else { break };
            match send_alone(&mut line, request).await {
                Ok(response) => return Ok((response, Some(self.lease(&origin, line)))),
                Err(mut error) => match error.take_message() {
                    Some(back) => request = back,
                    None => return Err(SendError::Broken(error.into_error())),
                },
            }
        }
        self.send_on_new(&origin, request, connect_timeout).await
    }

    /// Sends `request`, which asks to switch protocols, on a connection of its own that never comes to
    /// the pool, and waits for the head of the reply.
    pub async fn switch(
        &self,
        origin: &Origin,
        request: http::Request<RequestBody>,
        connect_timeout: Duration,
    ) -> Result<http::Response<Incoming>, SendError> {
        // HTTP/2 has other means to switch, which providers do not offer.
        let origin = Origin { protocol: Protocol::Http1, ..origin.clone() };
        let (io, _) = self.connector.connect(&origin, connect_timeout).await?;
        let io = hyper_util::rt::TokioIo::new(io);
        let (mut sender, connection) =
            http1::Builder::new().handshake(io).await.map_err(SendError::Broken)?;
        tasks::start(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        sender.send_request(for_http1(request)).await.map_err(SendError::Broken)
    }

    /// Drops connections that have been idle for too long; an HTTP/2 one counts as idle when it was given
    /// no new request, and still finishes those that it has.
    pub fn evict_idle(&self) {
        let now = Instant::now();
        let oldest = self.limits.idle_for_max;
        self.idle.borrow_mut().retain_mut(|(_, list)| {
            list.retain_mut(|idle| now.duration_since(idle.since) < oldest && idle.line.is_idle());
            !list.is_empty()
        });
        self.shared
            .borrow_mut()
            .retain(|_, shared| !shared.sender.is_closed() && now.duration_since(shared.used_at) < oldest);
    }

    fn lease(self: &Rc<Self>, origin: &Arc<Origin>, line: Line) -> Lease {
        Lease { pool: Rc::clone(self), origin: Arc::clone(origin), line, is_trusted: true }
    }

    /// The youngest idle connection.
    fn take_idle(&self, origin: &Arc<Origin>) -> Option<Line> {
        let mut idle = self.idle.borrow_mut();
        let (_, list) = idle.iter_mut().find(|(known, _)| is_same(known, origin))?;
        list.pop().map(|idle| idle.line)
    }

    fn shared_connection(&self, origin: &Origin) -> Option<http2::SendRequest<RequestBody>> {
        let mut shared = self.shared.borrow_mut();
        if shared.is_empty() {
            return None;
        }
        let shared = shared.get_mut(origin).filter(|shared| !shared.sender.is_closed())?;
        shared.used_at = Instant::now();
        Some(shared.sender.clone())
    }

    async fn send_on_new(
        self: &Rc<Self>,
        origin: &Arc<Origin>,
        request: http::Request<RequestBody>,
        connect_timeout: Duration,
    ) -> Result<Sent, SendError> {
        let (io, is_http2) = self.connector.connect(origin, connect_timeout).await?;
        if is_http2 {
            let io = hyper_util::rt::TokioIo::new(io);
            let (sender, connection) = http2::Builder::new(tasks::WorkerExecutor)
                // A connection that a middlebox dropped in silence must not keep swallowing requests.
                .timer(TokioTimer::new())
                .keep_alive_interval(KEEP_ALIVE_INTERVAL)
                .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
                .initial_stream_window_size(256 * 1024)
                .initial_connection_window_size(1024 * 1024)
                .handshake(io)
                .await
                .map_err(SendError::Broken)?;
            tasks::start(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "upstream connection ended");
                }
            });
            let shared = Shared { sender: sender.clone(), used_at: Instant::now() };
            self.shared.borrow_mut().insert(Origin::clone(origin), shared);
            return match send_shared(sender, origin, request).await {
                Ok(response) => Ok((response, None)),
                Err(Unsent::Retry(_)) => Err(SendError::Connect(ConnectError::ClosedAtOnce)),
                Err(Unsent::Final(error)) => Err(final_error(error)),
            };
        }
        let mut line = Line::over(io).await.map_err(SendError::Broken)?;
        let sent = send_alone(&mut line, request).await;
        let response = sent.map_err(|error| SendError::Broken(error.into_error()))?;
        Ok((response, Some(self.lease(origin, line))))
    }
}

/// Sends `request` on a connection that carries nothing else.
async fn send_alone(line: &mut Line, request: http::Request<RequestBody>) -> TrySent {
    let mut answer = pin!(line.sender.try_send_request(for_http1(request)));
    poll_fn(|cx| line.drive(cx, |cx| answer.as_mut().poll(cx))).await
}

/// Requests of one route share their origin, so that its address nearly always tells.
fn is_same(known: &Arc<Origin>, wanted: &Arc<Origin>) -> bool {
    Arc::ptr_eq(known, wanted) || known == wanted
}

/// In HTTP/1.1 an origin is asked for a path; only proxies are asked for URLs (RFC 9112 §3.2.1).
fn for_http1(mut request: http::Request<RequestBody>) -> http::Request<RequestBody> {
    *request.version_mut() = http::Version::HTTP_11;
    if request.uri().authority().is_some() {
        *request.uri_mut() = request.uri().path_and_query().cloned().map(Uri::from).unwrap_or_default();
    }
    request
}

/// HTTP/2 takes scheme and authority from the URI (RFC 9113 §8.3.1).
fn for_http2(mut request: http::Request<RequestBody>, origin: &Origin) -> http::Request<RequestBody> {
    *request.version_mut() = http::Version::HTTP_2;
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(if origin.secure { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(origin.authority.clone());
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    request
}

/// Why a request on a shared connection has no reply.
enum Unsent {
    /// Nothing of it was sent; it may go out on another connection.
    Retry(Box<http::Request<RequestBody>>),
    /// It may have been sent.
    Final(hyper::Error),
}

/// Whether the upstream says that it did not process the request: the stream was refused, or is above
/// the last one of an orderly good-bye. After any other end of a connection nobody knows.
fn final_error(error: hyper::Error) -> SendError {
    let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    let refused = cause.filter(|cause| cause.is_remote()).is_some_and(|cause| match cause.reason() {
        Some(h2::Reason::REFUSED_STREAM) => cause.is_reset(),
        Some(h2::Reason::NO_ERROR) => cause.is_go_away(),
        _ => false,
    });
    if refused { SendError::Refused(error) } else { SendError::Broken(error) }
}

async fn send_shared(
    mut sender: http2::SendRequest<RequestBody>,
    origin: &Origin,
    request: http::Request<RequestBody>,
) -> Result<http::Response<Incoming>, Unsent> {
    if sender.ready().await.is_err() {
        return Err(Unsent::Retry(Box::new(request)));
    }
    match sender.try_send_request(for_http2(request, origin)).await {
        Ok(response) => Ok(response),
        Err(mut error) => match error.take_message() {
            Some(back) => Err(Unsent::Retry(Box::new(back))),
            None => Err(Unsent::Final(error.into_error())),
        },
    }
}
