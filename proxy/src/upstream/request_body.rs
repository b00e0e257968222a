//! The request's body on its way upstream: what was held for a look, then the rest as it comes.
//!
//! Invariants
//! - Bytes pass unchanged and in order, except for the one configured rewrite.
//! - At most the hold window is in memory; a slow upstream slows the client.
//! - A body over the limit ends in an error, so the upstream never takes it for complete.
//!
//! Not here: what the facts mean (`usage::request`).

use super::Patience;
use crate::count::Sample;
use crate::guard::{self, Rejection};
use crate::http::{BoxError, Frame};
use crate::layers::forward;
use crate::layers::room::Taken;
use crate::usage::{IncludeUsage, RequestFacts, RequestScan, include};
use bursar_domain::Label;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, SizeHint};
use hyper::body::Incoming;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// What has passed of a request's body, and what it says.
#[derive(Debug)]
pub struct RequestProgress {
    scan: RequestScan,
    reads: bool,
    sent: bool,
    bytes: u64,
    /// Windows of what passes after the held part, where its tokens may have to be counted.
    pub sample: Option<Box<Sample>>,
    /// Set when the body broke the limit or the client's framing.
    pub broken: Option<BodyFault>,
}

/// Why a request's body ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// Over the limit.
    TooLarge,
    /// The guard stopped the body: broken chunks, a stall, too much.
    Rejected(Rejection),
    /// The client's connection broke.
    Broken,
}

impl BodyFault {
    /// What an error of a client's body means.
    #[must_use]
    pub fn of(error: &hyper::Error) -> Self {
        guard::rejection_in(error).map_or(Self::Broken, Self::Rejected)
    }
}

impl RequestProgress {
    /// Nothing has passed yet. Without `reads` the body is only counted.
    #[must_use]
    pub fn new(scan: RequestScan, reads: bool) -> Self {
        Self { scan, reads, sent: false, bytes: 0, sample: None, broken: None }
    }

    /// Takes note of a piece of the body.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.reads {
            self.scan.feed(bytes);
        }
        if let Some(sample) = &mut self.sample {
            sample.feed(bytes);
        }
    }

    /// What the body has said so far.
    #[must_use]
    pub fn facts(&self) -> RequestFacts {
        self.scan.facts()
    }

    /// The model that the body has named so far.
    #[must_use]
    pub fn model(&self) -> Option<Label> {
        self.scan.model()
    }

    /// Whether the body is looked at, and not only counted.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        self.reads
    }

    /// Whether the body is with the upstream, or given up.
    #[must_use]
    pub const fn is_sent(&self) -> bool {
        self.sent
    }

    /// Whether a stream was asked for, so far.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.scan.is_stream()
    }

    /// Whether the client asked for usage in the stream, so far.
    #[must_use]
    pub const fn asks_for_usage(&self) -> bool {
        self.scan.asks_for_usage()
    }

    /// How much has passed.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// What is there of a request's body when it is sent on, and what is still to come.
#[derive(Debug, Default)]
pub struct Window {
    /// What was read so far, already noted in the progress.
    pub held: Vec<Bytes>,
    /// The rest, if the body has not ended.
    pub rest: Option<Incoming>,
    /// The trailers, if the body has ended and has some. They may pass as they are.
    pub trailers: Option<Box<HeaderMap>>,
    /// How long the rest may keep us waiting, where the connection does not say.
    pub patience: Option<Box<Patience>>,
    /// The room that a body takes which is held beyond the usual window.
    pub room: Option<Taken>,
}

/// A request's body for the upstream.
#[derive(Debug)]
pub struct RequestBody {
    ready: VecDeque<Bytes>,
    scratch: Vec<Bytes>,
    rest: Option<Incoming>,
    /// Boxed like the next two: they are rarely there, and requests are moved often.
    trailers: Option<Box<HeaderMap>>,
    patience: Option<Box<Patience>>,
    /// Free again when the body has been sent.
    _room: Option<Box<Taken>>,
    rewrite: Option<Box<IncludeUsage>>,
    progress: Rc<RefCell<RequestProgress>>,
    size: SizeHint,
    limit: u64,
}

impl RequestBody {
    /// A body of what is there and what will come.
    #[must_use]
    pub fn new(
        window: Window,
        rewrite: Option<Box<IncludeUsage>>,
        progress: Rc<RefCell<RequestProgress>>,
        limit: u64,
    ) -> Self {
        let Window { held, rest, trailers, patience, room } = window;
        let _room = room.map(Box::new);
        let held_len: u64 = held.iter().map(|b| b.len() as u64).sum();
        let extra = if rewrite.is_some() { include::BUDGET as u64 } else { 0 };
        let size = match rest.as_ref().map(Body::size_hint).map(|hint| hint.exact()) {
            // A body with a length has no trailers (RFC 9112 §6.5).
            None if trailers.is_some() => SizeHint::default(),
            None => SizeHint::with_exact(held_len + extra),
            Some(Some(rest)) => SizeHint::with_exact(held_len + rest + extra),
            Some(None) => SizeHint::default(),
        };
        let (ready, held) = if rewrite.is_some() { (Vec::new(), held) } else { (held, Vec::new()) };
        let (ready, scratch) = (VecDeque::from(ready), Vec::new());
        let mut body =
            Self { ready, scratch, rest, trailers, patience, _room, rewrite, progress, size, limit };
        for piece in held {
            body.push(piece);
        }
        if body.rest.is_none() {
            body.end();
        }
        body
    }

    /// What has passed of the body and what it says.
    #[must_use]
    pub const fn progress(&self) -> &Rc<RefCell<RequestProgress>> {
        &self.progress
    }

    fn push(&mut self, piece: Bytes) {
        match &mut self.rewrite {
            None => self.ready.push_back(piece),
            Some(rewrite) => {
                rewrite.push(piece, &mut self.scratch);
                self.ready.extend(self.scratch.drain(..));
            }
        }
    }

    fn end(&mut self) {
        self.rest = None;
        if let Some(rewrite) = &mut self.rewrite {
            rewrite.finish(&mut self.scratch);
            self.ready.extend(self.scratch.drain(..));
        }
    }

    fn fault(&mut self, fault: BodyFault, error: BoxError) -> Poll<Option<Result<Frame, BoxError>>> {
        self.rest = None;
        self.progress.borrow_mut().broken = Some(fault);
        Poll::Ready(Some(Err(error)))
    }

    /// Waits for the client, for as long as that may take.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BoxError>>> {
        let Some(patience) = &mut self.patience else { return Poll::Pending };
        if patience.poll_over(cx).is_pending() {
            return Poll::Pending;
        }
        let stall = Rejection::BodyTimeout;
        self.fault(BodyFault::Rejected(stall), stall.into())
    }

    /// Takes note of a piece; `false` when it is one too many.
    fn take(&mut self, data: Bytes) -> bool {
        if let Some(patience) = &mut self.patience {
            patience.received(data.len());
        }
        let mut progress = self.progress.borrow_mut();
        progress.feed(&data);
        if progress.bytes() > self.limit {
            return false;
        }
        drop(progress);
        let last = self.rest.as_ref().is_some_and(Body::is_end_stream);
        self.push(data);
        if last {
            self.end();
        }
        true
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Ok(mut progress) = self.progress.try_borrow_mut() {
            progress.sent = true;
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BoxError>>> {
        let this = self.get_mut();
        loop {
            if let Some(bytes) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            let Some(rest) = &mut this.rest else {
                return Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(*trailers))));
            };
            match Pin::new(rest).poll_frame(cx) {
                Poll::Pending => return this.poll_wait(cx),
                Poll::Ready(None) => this.end(),
                Poll::Ready(Some(Err(error))) => return this.fault(BodyFault::of(&error), error.into()),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    // Behind them nothing comes, but the rewrite may still hold back a piece.
                    Err(other) => {
                        this.trailers = other.into_trailers().ok().map(passing_trailers);
                        this.end();
                    }
                    Ok(data) => {
                        if !this.take(data) {
                            let error = "the request body is over the limit".into();
                            return this.fault(BodyFault::TooLarge, error);
                        }
                    }
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_read = self.rest.as_ref().is_none_or(Body::is_end_stream);
        is_read && self.ready.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}

/// Trailers without what may not pass in the head either.
#[must_use]
pub fn passing_trailers(mut trailers: HeaderMap) -> Box<HeaderMap> {
    forward::strip_trailers(&mut trailers);
    Box::new(trailers)
}
