//! What one connection is doing, for the sweeper that enforces deadlines and for the service.
//!
//! Invariants
//! - Time is charged to the client only while someone is waiting for its bytes: a service that does
//!   not read (backpressure) stops the clock of heads and bodies.
//! - A body is making progress only when [`BODY_PROGRESS_BYTES`] more of it arrived, so a trickle of
//!   single bytes is a stall.
//! - Reading the time costs one load: a [`Ticker`] is advanced elsewhere.
//!
//! Not here: the deadlines themselves (`deadlines`), reading and closing (`io`).

use super::deadlines::{Deadlines, Overdue, overdue};
use super::framing::Position;
use super::rejection::Rejection;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::time::Instant;

/// So many body bytes within [`Deadlines::body_idle`] count as progress (or the end of the body).
pub const BODY_PROGRESS_BYTES: usize = 1024;

/// A coarse point in time: milliseconds since the ticker was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u64);

/// A coarse clock: whoever runs the sweeper advances it, connections read it. Clones share it.
#[derive(Clone, Debug)]
pub struct Ticker {
    base: Instant,
    millis: Arc<AtomicU64>,
}

/// The HTTP version a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Accepted, nothing received.
    AwaitingFirstByte,
    /// A head (or the HTTP/2 preface) has begun.
    ReadingHead,
    /// A head is complete, its body is not.
    ReadingBody,
    /// No request is begun or unanswered.
    Idle,
    /// All requests received so far are complete and at least one is not answered yet.
    Busy,
    /// Closed by us after a refusal; discarding what the client still sends.
    Lingering,
}

/// The state shared by a connection's socket, its service and the sweeper.
#[derive(Debug)]
pub struct ConnState {
    ticker: Ticker,
    is_tunnel: AtomicBool,
    /// Since when the client has had no room for what we write: one more than the tick, or zero.
    blocked_since: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    protocol: Protocol,
    place: Place,
    /// Requests handed over and not answered.
    outstanding: u32,
    /// Since when the client has kept us waiting in this place.
    since: Tick,
    /// What it had kept us waiting before the service paused reading.
    waited: Duration,
    /// The last read found nothing.
    is_read_pending: bool,
    /// Body bytes since the last progress.
    trickle: usize,
    rejection: Option<Rejection>,
    expired: Option<Overdue>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    FirstByte,
    In(Position),
    Lingering,
}

/// One request being served. Dropping it says that its response has ended, one way or another.
#[derive(Debug)]
pub struct Exchange(Arc<ConnState>);

/// What a read brought.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    pub(super) heads: u32,
    pub(super) body: usize,
    pub(super) position: Position,
}

// === impl Tick, Ticker ===

impl Tick {
    /// This many milliseconds after the ticker was made.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// The time from `earlier` to `self`, zero if it was not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    fn before(self, waited: Duration) -> Self {
        Self(self.0.saturating_sub(millis(waited)))
    }
}

impl Ticker {
    /// A ticker that stands at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { base: now, millis: Arc::default() }
    }

    /// Advances it to `now`; never back.
    pub fn advance(&self, now: Instant) {
        self.millis.fetch_max(millis(now.saturating_duration_since(self.base)), Ordering::Relaxed);
    }

    /// The time of the last advance.
    #[must_use]
    pub fn now(&self) -> Tick {
        Tick(self.millis.load(Ordering::Relaxed))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

// === impl ConnState ===

impl ConnState {
    /// The state of a connection accepted now.
    #[must_use]
    pub fn new(ticker: Ticker) -> Arc<Self> {
        let inner = Inner {
            protocol: Protocol::Http1,
            place: Place::FirstByte,
            outstanding: 0,
            since: ticker.now(),
            waited: Duration::ZERO,
            is_read_pending: false,
            trickle: 0,
            rejection: None,
            expired: None,
            waker: None,
        };
        Arc::new(Self {
            ticker,
            is_tunnel: AtomicBool::new(false),
            blocked_since: AtomicU64::new(0),
            inner: Mutex::new(inner),
        })
    }

    /// What the connection is doing.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.lock().phase()
    }

    /// Why the guard stopped reading from this connection, if it did.
    #[must_use]
    pub fn rejection(&self) -> Option<Rejection> {
        self.lock().rejection
    }

    /// The clock it is timed by.
    #[must_use]
    pub const fn ticker(&self) -> &Ticker {
        &self.ticker
    }

    /// Which deadline the connection has passed by the ticker's time. Heads and bodies are overdue
    /// only while someone waits for them. A client that takes nothing of its reply is overdue whatever
    /// else goes on.
    #[must_use]
    pub fn overdue(&self, deadlines: &Deadlines) -> Option<Overdue> {
        let blocked = self.blocked_since.load(Ordering::Relaxed).checked_sub(1).map(Tick);
        if blocked.is_some_and(|since| self.ticker.now().since(since) >= deadlines.write_idle) {
            return Some(Overdue::WriteIdle);
        }
        let inner = self.lock();
        let phase = inner.phase();
        if matches!(phase, Phase::ReadingHead | Phase::ReadingBody) && !inner.is_read_pending {
            return None;
        }
        overdue(phase, inner.since, self.ticker.now(), deadlines)
    }

    /// Ends the connection for being overdue: its task is woken and its next read yields the end of
    /// the stream, or a refusal with status 408 where a request had begun. Data that arrives before
    /// that read and moves the connection on revokes it.
    pub fn expire(&self, overdue: Overdue) {
        let waker = {
            let mut inner = self.lock();
            inner.expired = Some(overdue);
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// From here on the client's bytes are no HTTP: the service is about to answer `101` to a request
    /// without a body. `false` when the guard has already refused what came after that request; a client
    /// may send nothing before it has the `101` (RFC 6455 §4.1), so the service answers 400 then.
    #[must_use]
    pub fn become_tunnel(&self) -> bool {
        let is_sound = self.rejection().is_none();
        self.is_tunnel.store(is_sound, Ordering::Relaxed);
        is_sound
    }

    /// Marks the request that the service was just called with as being served, until the value is
    /// dropped. Take exactly one per call, and keep it until the response body has ended.
    #[must_use = "dropping it at once says that the response has ended"]
    pub fn exchange(self: &Arc<Self>) -> Exchange {
        let mut inner = self.lock();
        if inner.protocol == Protocol::Http2 {
            // In HTTP/1 the guard has counted it already, when its head passed.
            inner.outstanding = inner.outstanding.saturating_add(1);
        }
        drop(inner);
        Exchange(Arc::clone(self))
    }

    /// The client speaks HTTP/2: only exchanges are observed from here on.
    pub(super) fn speaks_http2(&self) {
        let mut inner = self.lock();
        inner.protocol = Protocol::Http2;
        inner.enter(Place::In(Position::Between), self.ticker.now());
    }

    pub(super) fn is_tunnel(&self) -> bool {
        self.is_tunnel.load(Ordering::Relaxed)
    }

    /// The first bytes came, too few to know the protocol.
    pub(super) fn begins(&self) {
        self.received(Received { heads: 0, body: 0, position: Position::Head });
    }

    /// A read brought something.
    pub(super) fn received(&self, received: Received) {
        let now = self.ticker.now();
        let mut inner = self.lock();
        inner.stop_waiting(now);
        inner.outstanding = inner.outstanding.saturating_add(received.heads);
        let place = Place::In(received.position);
        if received.heads > 0 || place != inner.place {
            inner.enter(place, now);
        } else if received.position == Position::Body {
            inner.trickle = inner.trickle.saturating_add(received.body);
            if inner.trickle >= BODY_PROGRESS_BYTES {
                inner.enter(place, now);
            }
        }
    }

    /// A read brought bytes that nobody inspects.
    pub(super) fn stirred(&self) {
        let now = self.ticker.now();
        let mut inner = self.lock();
        inner.stop_waiting(now);
        inner.expired = None;
    }

    /// A read found nothing; `waker` wakes the reader. Answers which deadline has passed meanwhile.
    pub(super) fn read_pending(&self, waker: &Waker) -> Option<Overdue> {
        let now = self.ticker.now();
        let mut inner = self.lock();
        inner.start_waiting(now);
        match &mut inner.waker {
            Some(known) if known.will_wake(waker) => {}
            known => *known = Some(waker.clone()),
        }
        inner.expired
    }

    /// Something was to be written. Costs one load where the client takes what it is sent.
    pub(super) fn wrote(&self, written: &Poll<io::Result<usize>>) {
        let is_blocked = self.blocked_since.load(Ordering::Relaxed) != 0;
        match written {
            Poll::Pending if !is_blocked => {
                self.blocked_since.store(self.ticker.now().0.saturating_add(1), Ordering::Relaxed);
            }
            Poll::Ready(_) if is_blocked => self.blocked_since.store(0, Ordering::Relaxed),
            _ => {}
        }
    }

    /// We closed our side and wait for the client to close its own.
    pub(super) fn lingers(&self) {
        let now = self.ticker.now();
        let mut inner = self.lock();
        if inner.place != Place::Lingering {
            inner.enter(Place::Lingering, now);
        }
    }

    pub(super) fn reject(&self, rejection: Rejection) {
        self.lock().rejection = Some(rejection);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Inner ===

impl Inner {
    fn phase(&self) -> Phase {
        match self.place {
            Place::FirstByte => Phase::AwaitingFirstByte,
            Place::In(Position::Head) => Phase::ReadingHead,
            Place::In(Position::Body) => Phase::ReadingBody,
            Place::In(Position::Between) if self.outstanding > 0 => Phase::Busy,
            Place::In(Position::Between) => Phase::Idle,
            Place::Lingering => Phase::Lingering,
        }
    }

    fn enter(&mut self, place: Place, now: Tick) {
        self.place = place;
        self.since = now;
        self.waited = Duration::ZERO;
        self.trickle = 0;
        self.expired = None;
    }

    const fn is_timed_by_reads(&self) -> bool {
        matches!(self.place, Place::In(Position::Head | Position::Body))
    }

    fn start_waiting(&mut self, now: Tick) {
        if !self.is_read_pending && self.is_timed_by_reads() {
            self.since = now.before(self.waited);
        }
        self.is_read_pending = true;
    }

    fn stop_waiting(&mut self, now: Tick) {
        if self.is_read_pending && self.is_timed_by_reads() {
            self.waited = now.since(self.since);
        }
        self.is_read_pending = false;
    }

    fn end_exchange(&mut self, now: Tick) {
        self.outstanding = self.outstanding.saturating_sub(1);
        if self.phase() == Phase::Idle {
            self.since = now;
        }
    }
}

// === impl Exchange ===

impl Drop for Exchange {
    fn drop(&mut self) {
        let now = self.0.ticker.now();
        self.0.lock().end_exchange(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        start: Instant,
        ticker: Ticker,
        state: Arc<ConnState>,
    }

    impl Bench {
        fn new() -> Self {
            let start = Instant::now();
            let ticker = Ticker::new(start);
            let state = ConnState::new(ticker.clone());
            Self { start, ticker, state }
        }

        fn at(&self, seconds: u64) -> &Self {
            self.ticker.advance(self.start + Duration::from_secs(seconds));
            self
        }

        fn receives(&self, heads: u32, body: usize, position: Position) -> &Self {
            self.state.received(Received { heads, body, position });
            self
        }

        fn waits(&self) -> &Self {
            self.state.read_pending(Waker::noop());
            self
        }

        fn is(&self, phase: Phase, overdue: Option<Overdue>) -> &Self {
            assert_eq!(self.state.phase(), phase);
            assert_eq!(self.state.overdue(&Deadlines::default()), overdue);
            self
        }
    }

    use Position::{Between, Body, Head};

    #[test]
    fn a_silent_connection_is_overdue_after_the_first_byte_deadline() {
        let bench = Bench::new();
        bench.waits().at(4).is(Phase::AwaitingFirstByte, None);
        bench.at(5).is(Phase::AwaitingFirstByte, Some(Overdue::FirstByte));
    }

    #[test]
    fn a_head_is_timed_from_its_first_byte_however_often_it_trickles() {
        let bench = Bench::new();
        for second in 3..8 {
            bench.at(second).receives(0, 0, Head).waits().is(Phase::ReadingHead, None);
        }
        bench.at(8).receives(0, 0, Head).waits().is(Phase::ReadingHead, Some(Overdue::Head));
    }

    #[test]
    fn the_head_of_the_next_request_is_timed_anew() {
        let bench = Bench::new();
        bench.at(1).receives(0, 0, Head).waits();
        bench.at(5).receives(1, 0, Head).waits().at(9).is(Phase::ReadingHead, None);
        bench.at(10).is(Phase::ReadingHead, Some(Overdue::Head));
    }

    #[test]
    fn a_body_that_trickles_is_a_stall_and_one_that_flows_is_not() {
        let bench = Bench::new();
        bench.receives(1, 0, Body).waits();
        for second in 1..30 {
            bench.at(second).receives(0, 1, Body).waits().is(Phase::ReadingBody, None);
        }
        bench.at(30).is(Phase::ReadingBody, Some(Overdue::BodyIdle));
        bench.receives(0, BODY_PROGRESS_BYTES, Body).waits().is(Phase::ReadingBody, None);
        bench.at(59).is(Phase::ReadingBody, None).at(60).is(Phase::ReadingBody, Some(Overdue::BodyIdle));
    }

    #[test]
    fn a_service_that_does_not_read_stops_the_clock_of_the_body() {
        let bench = Bench::new();
        bench.receives(1, 0, Body).waits().at(20).receives(0, 10, Body);
        bench.at(500).is(Phase::ReadingBody, None);
        bench.waits().at(509).is(Phase::ReadingBody, None);
        bench.at(510).is(Phase::ReadingBody, Some(Overdue::BodyIdle));
    }

    #[test]
    fn keep_alive_counts_from_the_end_of_the_last_response() {
        let bench = Bench::new();
        bench.receives(2, 0, Between).waits().at(100).is(Phase::Busy, None);
        drop(bench.state.exchange());
        bench.is(Phase::Busy, None);
        drop(bench.state.exchange());
        bench.is(Phase::Idle, None).at(159).is(Phase::Idle, None);
        bench.at(160).is(Phase::Idle, Some(Overdue::KeepAlive));
    }

    #[test]
    fn http2_is_busy_while_any_exchange_lives() {
        let bench = Bench::new();
        bench.state.speaks_http2();
        let (one, two) = (bench.state.exchange(), bench.state.exchange());
        drop(one);
        bench.at(1_000).is(Phase::Busy, None);
        drop(two);
        bench.is(Phase::Idle, None).at(1_060).is(Phase::Idle, Some(Overdue::KeepAlive));
    }

    #[test]
    fn expiry_is_told_to_the_reader_and_revoked_by_the_next_request() {
        let bench = Bench::new();
        bench.receives(1, 0, Between);
        drop(bench.state.exchange());
        bench.state.expire(Overdue::KeepAlive);
        assert_eq!(bench.state.read_pending(Waker::noop()), Some(Overdue::KeepAlive));
        bench.receives(1, 0, Between);
        assert_eq!(bench.state.read_pending(Waker::noop()), None);
    }

    #[test]
    fn the_ticker_never_goes_back() {
        let bench = Bench::new();
        bench.at(7).at(3);
        assert_eq!(bench.ticker.now(), Tick::from_millis(7_000));
    }
}
