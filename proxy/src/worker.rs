//! One worker: a thread's connections, its upstream pool and its sweeper.
//!
//! Invariants
//! - A connection is in the list from its first moment until its task has ended.
//! - Deadlines are enforced by one sweep over the list, not by a timer per request.
//! - Draining lets every exchange end; only the end of the drain time cuts one. A request that was sent
//!   before its client could know of the drain is served.
//!
//! Not here: sockets (`listen`), the path of a request (`stack`).

use crate::app::App;
use crate::guard::{self, ConnState, Deadlines, GuardedIo, Limits, Overdue, Phase, Protocol, Ticker};
use crate::http::{BoxError, Frame, Request, Response};
use crate::ids::IdSource;
use crate::layers::respond;
use crate::reply::ReplyBody;
use crate::stack::{self, Stack};
use crate::streams::{Reply, Streams};
use crate::tasks;
use crate::tunnel::Tunnel;
use crate::upstream::{Connector, Pool, PoolLimits};
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http_body::{Body, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::Instant;

/// How often deadlines are checked. Idle connections of the pool are looked at every tenth time.
const SWEEP: Duration = Duration::from_millis(250);

/// HTTP/2 windows: small per stream, so that one slow stream holds little; larger per connection.
const H2_STREAM_WINDOW: u32 = 64 * 1024;
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;

/// What the last reply on a connection says of it.
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// The most that hyper buffers of one HTTP/1 connection.
const H1_BUFFER_MAX: usize = 128 * 1024;

/// A worker's state; everything here belongs to one thread.
pub struct Worker {
    app: Arc<App>,
    stack: Stack,
    pool: Rc<Pool>,
    ticker: Ticker,
    limits: Limits,
    deadlines: Deadlines,
    connections: RefCell<HashMap<u64, Rc<Connection>>>,
    next_connection: Cell<u64>,
    stop: Cell<Stop>,
    ended: Notify,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("connections", &self.connections.borrow().len())
            .finish_non_exhaustive()
    }
}

/// Whether a connection may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    /// It may.
    No,
    /// It may finish what it has begun, and soon begin one thing more, whose reply says that it is the last:
    /// a client may have sent a request before it could know that the process ends.
    Soon,
    /// It may finish what it has begun.
    AfterExchanges,
    /// It may not.
    Now,
}

#[derive(Debug)]
struct Connection {
    app: Arc<App>,
    state: Arc<ConnState>,
    stop: Cell<Stop>,
    /// Its replies, if it speaks HTTP/2.
    streams: Streams,
    /// Sweeps since it was asked to end for idling.
    asked_to_end: Cell<u8>,
    waker: RefCell<Option<Waker>>,
    /// What the connection becomes when its HTTP has ended.
    tunnel: RefCell<Option<Switched>>,
}

/// A connection that has left HTTP; for the guard its exchange is not over.
#[derive(Debug)]
struct Switched {
    tunnel: Box<Tunnel>,
    _serving: Option<guard::Exchange>,
}

/// How long a connection may be silent while the worker drains. Requests that were sent before their client
/// could know of the end arrive well within it; a connection that is used less often than that would as
/// well be used in the moment of any other end.
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// So many sweeps (two seconds) an idle connection has to end when asked; HTTP/2 waits for an answer.
const ENDING_SWEEPS_MAX: u8 = 8;

impl Connection {
    fn tell(&self, stop: Stop) {
        self.stop.set(stop.max(self.stop.get()));
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Keeps the tunnel of `response` until its head has been sent.
    fn switch(&self, response: Response, serving: Option<guard::Exchange>) -> http::Response<ServedBody> {
        let (head, body) = response.into_parts();
        let ReplyBody::Tunnel(tunnel) = body else {
            return http::Response::from_parts(head, ServedBody { body, watched: None, _serving: serving });
        };
        if !self.state.become_tunnel() {
            let failure = respond::too_early();
            if let Some(reason) = failure.kind.refusal() {
                self.app.metrics.refused(reason);
            }
            let response = respond::respond(&failure);
            return response.map(|body| ServedBody { body, watched: None, _serving: serving });
        }
        self.tunnel.replace(Some(Switched { tunnel, _serving: serving }));
        http::Response::from_parts(
            head,
            ServedBody { body: ReplyBody::Full(None), watched: None, _serving: None },
        )
    }

    fn register(&self, cx: &Context<'_>) {
        let mut slot = self.waker.borrow_mut();
        match &*slot {
            Some(known) if known.will_wake(cx.waker()) => {}
            _ => *slot = Some(cx.waker().clone()),
        }
    }
}

impl Worker {
    /// A worker that sends by `connector`.
    #[must_use]
    pub fn new(app: &Arc<App>, connector: Connector) -> Rc<Self> {
        let upstream = &app.config().upstream;
        let timeouts = &app.config().server.timeouts;
        let limits = PoolLimits {
            idle_per_origin_max: upstream.pool_max_idle_per_host,
            idle_for_max: upstream.pool_idle,
        };
        let pool = Pool::new(connector, limits);
        let ids = Rc::new(IdSource::default());
        Rc::new(Self {
            app: Arc::clone(app),
            stack: stack::stack(app, &pool, &ids),
            pool,
            ticker: Ticker::new(Instant::now()),
            limits: app.guard_limits,
            deadlines: Deadlines {
                first_byte: timeouts.first_byte,
                head: timeouts.head,
                body_idle: timeouts.body_idle,
                keep_alive: timeouts.keep_alive,
                write_idle: timeouts.write_idle,
                ..Deadlines::default()
            },
            connections: RefCell::default(),
            next_connection: Cell::new(0),
            stop: Cell::new(Stop::No),
            ended: Notify::new(),
        })
    }

    /// Starts the task that enforces deadlines and evicts idle upstream connections.
    pub fn start_sweeper(self: &Rc<Self>) {
        let worker = Rc::downgrade(self);
        tasks::start(async move {
            let mut round = 0_u32;
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(worker) = worker.upgrade() else { return };
                worker.sweep();
                round = round.wrapping_add(1);
                if round.is_multiple_of(10) {
                    worker.pool.evict_idle();
                }
            }
        });
    }

    fn sweep(&self) {
        self.ticker.advance(Instant::now());
        let write_idle = self.deadlines.write_idle;
        let deadlines = self.deadlines_now();
        for connection in self.connections.borrow().values() {
            let unread = connection.streams.cancel_unread(self.ticker.now(), write_idle);
            if unread > 0 {
                tracing::debug!(unread, "an HTTP/2 client takes nothing of its replies");
                self.app.metrics.deadlines.inc_by(unread);
            }
            if let Some(overdue) = connection.state.overdue(&deadlines) {
                let sweeps = connection.asked_to_end.get();
                connection.asked_to_end.set(sweeps.saturating_add(1));
                if sweeps == 0 && self.stop.get() == Stop::No {
                    tracing::debug!(deadline = overdue.name(), "a client connection is overdue");
                    self.app.metrics.deadlines.inc();
                }
                match (overdue, sweeps) {
                    // A polite end first: HTTP/2 clients learn which streams were taken.
                    (Overdue::KeepAlive, 0) => connection.tell(Stop::AfterExchanges),
                    (Overdue::KeepAlive, ENDING_SWEEPS_MAX..) => connection.tell(Stop::Now),
                    (Overdue::KeepAlive, _) => {}
                    // Who does not read would not read a good-bye either.
                    (Overdue::WriteIdle, _) => connection.tell(Stop::Now),
                    (overdue, _) => connection.state.expire(overdue),
                }
            } else {
                connection.asked_to_end.set(0);
            }
        }
    }

    /// How long connections may be silent, at this time of the worker's life.
    fn deadlines_now(&self) -> Deadlines {
        if self.stop.get() == Stop::No {
            return self.deadlines;
        }
        Deadlines {
            first_byte: self.deadlines.first_byte.min(LAST_REQUEST),
            keep_alive: self.deadlines.keep_alive.min(LAST_REQUEST),
            ..self.deadlines
        }
    }

    /// From now on replies say that their connections end, HTTP/2 clients are told so, and connections that
    /// have been silent for a while are closed.
    pub fn announce_end(&self) {
        self.stop_all(Stop::Soon);
        self.sweep();
    }

    /// How long a drain may take.
    #[must_use]
    pub fn drain_time(&self) -> Duration {
        self.app.config().server.timeouts.drain
    }

    /// Lets every connection finish its exchanges, for at most `time`; then ends the rest.
    pub async fn drain(&self, time: Duration) {
        self.announce_end();
        if tokio::time::timeout(time, self.settled()).await.is_err() {
            let left = self.connections.borrow().len();
            tracing::warn!(connections = left, "the drain time is over: ending what still runs");
            self.end_all();
        }
    }

    /// Ends every connection now; their exchanges are settled as aborted.
    pub fn end_all(&self) {
        self.stop_all(Stop::Now);
    }

    /// Waits until no connection is left.
    pub async fn settled(&self) {
        loop {
            let mut ended = pin!(self.ended.notified());
            ended.as_mut().enable();
            if self.connections.borrow().is_empty() {
                return;
            }
            ended.await;
        }
    }

    fn stop_all(&self, stop: Stop) {
        self.stop.set(stop);
        let all: Vec<_> = self.connections.borrow().values().cloned().collect();
        for connection in all {
            connection.tell(stop);
        }
    }

    /// Serves one client connection, which comes from the address `client`, until it ends.
    pub async fn connection<IO>(self: Rc<Self>, io: IO, client: IpAddr)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = self.app.config().server.limits;
        // Dropped last: the connection has its place for as long as it is there.
        let Some(_place) = self.app.clients.place(client, limits.connections_per_client_max) else {
            tracing::debug!(%client, "a client has as many connections as it may have");
            self.app.metrics.client_connections_refused.inc();
            return;
        };
        let open = self.app.metrics.connections.inc();
        let guard = Registered { worker: Rc::clone(&self), number: self.register() };
        if u64::try_from(open).is_ok_and(|open| open >= limits.connections_max as u64) {
            self.app.metrics.connections_refused.inc();
            return;
        }
        let Some(connection) = guard.connection() else { return };
        let served = self.serve(io, &connection);
        let mut served = pin!(served);
        poll_fn(|cx| {
            connection.register(cx);
            if connection.stop.get() == Stop::Now || served.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            // Nobody serves it yet, so nobody else could tell it to stop.
            let is_silent = connection.state.phase() == Phase::AwaitingFirstByte;
            if is_silent && connection.stop.get() >= Stop::AfterExchanges {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    fn register(&self) -> u64 {
        let number = self.next_connection.get();
        self.next_connection.set(number.wrapping_add(1));
        let connection = Connection {
            app: Arc::clone(&self.app),
            state: ConnState::new(self.ticker.clone()),
            stop: Cell::new(self.stop.get()),
            streams: Streams::default(),
            asked_to_end: Cell::new(0),
            waker: RefCell::default(),
            tunnel: RefCell::default(),
        };
        self.connections.borrow_mut().insert(number, Rc::new(connection));
        number
    }

    async fn serve<IO>(&self, io: IO, connection: &Rc<Connection>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let state = Arc::clone(&connection.state);
        let detected = GuardedIo::detect(io, self.limits, state).await;
        let (protocol, io) = match detected {
            Ok(Some(detected)) => detected,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "a client connection broke");
                return;
            }
        };
        let streams = (protocol == Protocol::Http2).then(|| connection.streams.clone());
        let service = Serve { stack: self.stack.clone(), connection: Rc::clone(connection), streams };
        let ended = match protocol {
            Protocol::Http1 => {
                let http = http1_builder(self.limits).serve_connection(TokioIo::new(io), service);
                let http = http.with_upgrades();
                // Until then its replies say so: HTTP/1 has no other way to say it before a request comes.
                let when = Stop::AfterExchanges;
                run(pin!(http), connection, when, http1::UpgradeableConnection::graceful_shutdown).await
            }
            Protocol::Http2 => {
                let http = http2_builder(&self.app, connection.streams.clone())
                    .serve_connection(TokioIo::new(io), service);
                run(pin!(http), connection, Stop::Soon, http2::Connection::graceful_shutdown).await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a client connection ended early");
        }
        let switched = connection.tunnel.take();
        if let Some(Switched { tunnel, _serving }) = switched {
            tunnel.run().await;
        }
    }
}

fn http1_builder(limits: Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // The guard has its own, stricter limits; hyper's must not be the ones that answer.
    builder.max_headers(limits.headers_max.saturating_add(8)).max_buf_size(H1_BUFFER_MAX);
    // One buffer costs less to send than three slices (size, chunk, line end) cost to gather.
    builder.writev(false);
    // The upstream's own `Date` passes; ours would be a second opinion.
    builder.auto_date_header(false);
    builder
}

fn http2_builder(app: &App, streams: Streams) -> http2::Builder<Streams> {
    let limits = &app.config().server.limits;
    let mut builder = http2::Builder::new(streams);
    builder
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(H1_BUFFER_MAX)
        .auto_date_header(false);
    builder
}

/// Drives a connection, telling it once to finish when it may go on no longer than `when` says.
async fn run<C>(
    mut http: Pin<&mut C>,
    connection: &Connection,
    when: Stop,
    finish: impl Fn(Pin<&mut C>),
) -> Result<(), hyper::Error>
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let mut told = false;
    poll_fn(|cx| {
        if !told && connection.stop.get() >= when {
            told = true;
            finish(http.as_mut());
        }
        http.as_mut().poll(cx)
    })
    .await
}

/// Takes a connection off the list when its task ends, however it ends.
struct Registered {
    worker: Rc<Worker>,
    number: u64,
}

impl Registered {
    fn connection(&self) -> Option<Rc<Connection>> {
        self.worker.connections.borrow().get(&self.number).cloned()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.worker.connections.borrow_mut().remove(&self.number);
        self.worker.app.metrics.connections.dec();
        self.worker.ended.notify_waiters();
    }
}

/// The stack as hyper calls it, with the connection's state.
struct Serve {
    stack: Stack,
    connection: Rc<Connection>,
    streams: Option<Streams>,
}

impl hyper::service::Service<Request> for Serve {
    type Response = http::Response<ServedBody>;
    type Error = Infallible;
    type Future = Served;

    fn call(&self, request: Request) -> Served {
        let state = &self.connection.state;
        let watched = self.streams.as_ref().map(|streams| streams.begin(state.ticker()));
        let serving = Some((state.exchange(), watched));
        Served { reply: (self.stack)(request), connection: Rc::clone(&self.connection), serving }
    }
}

/// A reply being made.
struct Served {
    reply: crate::http::LocalFuture<Result<Response, Infallible>>,
    connection: Rc<Connection>,
    serving: Option<(guard::Exchange, Option<Reply>)>,
}

impl Future for Served {
    type Output = Result<http::Response<ServedBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.reply.as_mut().poll(cx).map(|reply| {
            let (serving, watched) = this.serving.take().unzip();
            let watched = watched.flatten();
            let is_last = watched.is_none() && this.connection.stop.get() != Stop::No;
            reply.map(|mut response| match response.body() {
                ReplyBody::Tunnel(_) => this.connection.switch(response, serving),
                _ => {
                    if is_last {
                        response.headers_mut().insert(header::CONNECTION, CLOSE);
                    }
                    response.map(|body| ServedBody { body, watched, _serving: serving })
                }
            })
        })
    }
}

/// A reply's body, which also tells the connection when the exchange has ended.
#[derive(Debug)]
struct ServedBody {
    body: ReplyBody,
    watched: Option<Reply>,
    _serving: Option<guard::Exchange>,
}

impl Body for ServedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Some(watched) = &self.watched {
            watched.handed_over(matches!(frame, Poll::Ready(Some(Ok(_)))));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
