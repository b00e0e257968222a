//! The reply's body on its way to the client: relayed frame by frame and metered in passing.
//!
//! Invariants
//! - Bytes pass unchanged and in order; only a usage chunk that we asked for may be left out.
//! - Nothing is read ahead: a slow client slows the upstream. At most one incomplete event is held.
//! - The exchange is settled before the end is reported; in `sync` durability it is also on disk.
//!
//! Not here: what the bytes mean (`usage`), who gets the record (`exchange`).

use crate::exchange::{Exchange, Figures, Settling};
use crate::http::{BoxError, Frame};
use crate::idle_timer::IdleTimer;
use crate::tasks;
use crate::tunnel::Tunnel;
use crate::upstream::Lease;
use crate::usage::{Ending, HideUsage};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, SizeHint};
use hyper::body::Incoming;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// The body of a reply.
#[derive(Debug)]
pub enum ReplyBody {
    /// Our own short reply.
    Full(Option<Bytes>),
    /// The upstream's reply.
    Relay(Relayed),
    /// No body: what follows the head is no HTTP.
    Tunnel(Box<Tunnel>),
}

impl ReplyBody {
    /// A body that is complete.
    #[must_use]
    pub fn full(bytes: Bytes) -> Self {
        Self::Full(Some(bytes).filter(|b| !b.is_empty()))
    }

    /// The upstream's reply.
    #[must_use]
    pub fn relay(relay: Box<Relay>) -> Self {
        Self::Relay(Relayed(Some(relay)))
    }
}

/// A relay as its client holds it: dropped before its end, it has lost the client.
#[derive(Debug)]
pub struct Relayed(Option<Box<Relay>>);

/// An upstream's body being relayed.
#[derive(Debug)]
pub struct Relay {
    inner: Incoming,
    exchange: Exchange,
    lease: Option<Lease>,
    hide: Option<HideUsage>,
    ready: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    scratch: Vec<Bytes>,
    /// Until the reply has ended.
    idle: Option<IdleTimer>,
    end: End,
    size: SizeHint,
}

#[derive(Debug)]
enum End {
    /// The upstream may still send.
    Open,
    /// Settled; waiting for the ledger's receipt before the last frames go out.
    Receipt(Settling),
    /// Nothing more to wait for; `ready` may hold last frames, and then there may be trailers.
    Done,
    /// The upstream broke; `ready` may hold last frames.
    Breaking(BoxError),
    /// All that came was handed over, and the server had its chance to send it: now the error.
    Broken(BoxError),
    /// All said.
    Over,
}

impl Relay {
    /// Relays `inner`; `idle` is the exchange's running timer, reused for the idle time.
    pub fn new(
        inner: Incoming,
        exchange: Exchange,
        lease: Option<Lease>,
        hide: Option<HideUsage>,
        idle: IdleTimer,
    ) -> Self {
        let size = if hide.is_some() { SizeHint::default() } else { inner.size_hint() };
        let mut relay = Self {
            inner,
            exchange,
            lease,
            hide,
            ready: VecDeque::new(),
            trailers: None,
            scratch: Vec::new(),
            idle: Some(idle),
            end: End::Open,
            size,
        };
        if relay.inner.is_end_stream() {
            relay.finish();
        }
        relay
    }

    /// Reads the reply to its end, if that comes within `limit` bytes, and settles it, so that its
    /// figures can go into its head. A longer or broken reply goes on as a relay, nothing lost.
    pub async fn read_whole(&mut self, limit: u64) -> Option<Figures> {
        let size = self.inner.size_hint();
        if size.upper().is_some_and(|upper| upper > limit) || !matches!(self.end, End::Open) {
            return None;
        }
        let mut room = limit;
        poll_fn(|cx| self.poll_whole(cx, &mut room)).await
    }

    fn poll_whole(&mut self, cx: &mut Context<'_>, room: &mut u64) -> Poll<Option<Figures>> {
        loop {
            match self.poll_upstream(cx) {
                Poll::Pending => {
                    let Some(silent_for) = self.silent_for(cx) else { return Poll::Pending };
                    self.fail(silent(silent_for));
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(error))) => {
                    self.fail(error.into());
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Ok(frame))) => {
                    self.progress();
                    match frame.into_data() {
                        Ok(data) => {
                            *room = room.saturating_sub(data.len() as u64);
                            self.exchange.body(&data);
                            self.ready.push_back(data);
                        }
                        Err(other) => self.trailers = other.into_trailers().ok(),
                    }
                    match (self.inner.is_end_stream(), *room) {
                        (true, _) => {}
                        (false, 0) => return Poll::Ready(None),
                        (false, _) => continue,
                    }
                }
                Poll::Ready(None) => {}
            }
            self.give_back();
            let (receipt, figures) = self.exchange.settle_with_figures();
            self.end = receipt.map_or(End::Done, End::Receipt);
            return Poll::Ready(Some(figures));
        }
    }

    fn poll_upstream(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame>>> {
        match &mut self.lease {
            Some(lease) => lease.poll_body(&mut self.inner, cx),
            None => Pin::new(&mut self.inner).poll_frame(cx),
        }
    }

    fn progress(&mut self) {
        if let Some(idle) = &mut self.idle {
            idle.progress();
        }
    }

    fn silent_for(&mut self, cx: &mut Context<'_>) -> Option<Duration> {
        self.idle.as_mut()?.poll_expired(cx)
    }

    /// The reply ended whole: its connection may carry the next one.
    fn give_back(&mut self) {
        if let (Some(lease), Some(idle)) = (self.lease.take(), self.idle.take()) {
            lease.give_back(idle);
        }
    }

    fn data(&mut self, data: Bytes) -> Option<Bytes> {
        self.exchange.body(&data);
        match &mut self.hide {
            None => Some(data),
            Some(hide) => {
                hide.push(data, &mut self.scratch);
                if self.scratch.len() == 1 {
                    // Nearly always: the frame held whole events and goes on as it came.
                    return self.scratch.pop();
                }
                self.ready.extend(self.scratch.drain(..));
                None
            }
        }
    }

    /// The upstream has said everything.
    fn finish(&mut self) {
        self.flush();
        self.give_back();
        self.end = match self.exchange.settle(Ending::Complete) {
            Some(receipt) => End::Receipt(receipt),
            None => End::Done,
        };
    }

    /// The upstream broke off or fell silent.
    fn fail(&mut self, error: BoxError) {
        self.flush();
        self.lease = None;
        // Waiting for a receipt would only delay the bad news.
        drop(self.exchange.settle(Ending::UpstreamCut));
        self.end = End::Breaking(error);
    }

    fn flush(&mut self) {
        if let Some(hide) = &mut self.hide {
            hide.finish(&mut self.scratch);
            self.ready.extend(self.scratch.drain(..));
        }
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BoxError>>> {
        loop {
            match &mut self.end {
                End::Open => {}
                End::Receipt(receipt) => {
                    std::task::ready!(Pin::new(receipt).poll(cx));
                    self.end = End::Done;
                    continue;
                }
                End::Done => {
                    let data = self.ready.pop_front().map(Frame::data);
                    let next = data.or_else(|| self.trailers.take().map(Frame::trailers));
                    if next.is_none() {
                        self.end = End::Over;
                    }
                    return Poll::Ready(next.map(Ok));
                }
                End::Breaking(_) | End::Broken(_) => return self.poll_broken(cx),
                End::Over => return Poll::Ready(None),
            }
            if let Some(bytes) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            match self.poll_upstream(cx) {
                Poll::Pending => {
                    let Some(silent_for) = self.silent_for(cx) else { return Poll::Pending };
                    self.fail(silent(silent_for));
                }
                Poll::Ready(None) => self.finish(),
                Poll::Ready(Some(Err(error))) => self.fail(error.into()),
                Poll::Ready(Some(Ok(frame))) => {
                    self.progress();
                    let data = match frame.into_data() {
                        Ok(data) => self.data(data),
                        Err(other) => {
                            // Nothing follows trailers, and the server will not ask again behind them.
                            self.trailers = other.into_trailers().ok();
                            self.finish();
                            continue;
                        }
                    };
                    if self.inner.is_end_stream() {
                        self.finish();
                        // With a receipt outstanding the last frame waits for it.
                        if matches!(self.end, End::Done) && self.ready.is_empty() && data.is_some() {
                            return Poll::Ready(data.map(|data| Ok(Frame::data(data))));
                        }
                        if let Some(data) = data {
                            self.ready.push_front(data);
                        }
                    } else if let Some(data) = data {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
            }
        }
    }

    /// Hands over what came before the break, then the error. The server drops what it has not sent
    /// when a body fails, so it gets one turn to send it.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BoxError>>> {
        if let Some(bytes) = self.ready.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match std::mem::replace(&mut self.end, End::Over) {
            End::Breaking(error) => {
                self.end = End::Broken(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            End::Broken(error) => Poll::Ready(Some(Err(error))),
            _ => Poll::Ready(None),
        }
    }
}

impl Relay {
    /// Whether the upstream still sends and is to be heard out without a client.
    fn is_to_drain(&self) -> bool {
        matches!(self.end, End::Open) && self.exchange.drains()
    }

    /// Reads on for the usage alone, within the configured bounds.
    async fn drain(mut self: Box<Self>) {
        let limits = self.exchange.begin_drain();
        self.ready.clear();
        self.hide = None;
        let mut room = limits.bytes;
        // What is not over in time is settled as it is, when the exchange is dropped.
        drop(tokio::time::timeout(limits.time, poll_fn(|cx| self.poll_drain(cx, &mut room))).await);
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>, room: &mut u64) -> Poll<()> {
        loop {
            match std::task::ready!(self.poll_upstream(cx)) {
                None => {
                    self.finish();
                    return Poll::Ready(());
                }
                Some(Err(error)) => {
                    self.fail(error.into());
                    return Poll::Ready(());
                }
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    self.exchange.body(&data);
                    *room = room.saturating_sub(data.len() as u64);
                    if *room == 0 {
                        return Poll::Ready(());
                    }
                }
            }
        }
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        if let Some(relay) = self.0.take_if(|relay| relay.is_to_drain()) {
            tasks::start(relay.drain());
        }
    }
}

fn silent(silent_for: Duration) -> BoxError {
    format!("the upstream sent nothing for {silent_for:?}").into()
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BoxError>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Relay(Relayed(relay)) => {
                relay.as_mut().map_or(Poll::Ready(None), |relay| relay.poll_inner(cx))
            }
            Self::Tunnel(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Tunnel(_) | Self::Relay(Relayed(None)) => true,
            Self::Relay(Relayed(Some(relay))) => match relay.end {
                End::Done => relay.ready.is_empty() && relay.trailers.is_none(),
                End::Over => true,
                End::Open | End::Receipt(_) | End::Breaking(_) | End::Broken(_) => false,
            },
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Relay(Relayed(relay)) => relay.as_ref().map_or_else(SizeHint::default, |relay| relay.size),
            Self::Tunnel(_) => SizeHint::with_exact(0),
        }
    }
}
