//! `GuardedIo`: the guard around a socket, as the HTTP server sees it.
//!
//! Invariants
//! - The server reads only bytes that passed; a head reaches it whole.
//! - A head that arrives whole is not copied: it is inspected where the server's buffer has it.
//! - A refused head reaches the server as one synthetic request (the *poison*), so that earlier
//!   requests are answered first and in order; a broken body reaches it as an I/O error.
//! - After a refusal the socket is not closed under the client's feet: our side is shut down, and what
//!   the client still sends is discarded until it closes or the linger deadline passes. Otherwise the
//!   kernel's reset could destroy the answer.
//!
//! Not here: what is refused (`framing`, `head`), when it is too late (`deadlines`), the answer.

use super::conn::{ConnState, Protocol, Received};
use super::deadlines::Overdue;
use super::framing::{Http1Guard, Position, Step, Verdict};
use super::limits::Limits;
use super::rejection::Rejection;
use http::{Method, Uri, Version};
use std::error::Error;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The poison's method. No client can send it: the guard knows no such method.
const POISON_METHOD: &str = "X-BURSAR-REJECTED";
/// Read at a time where the server gave no buffer.
const SCRATCH_BYTES: usize = 4096;

/// A socket whose client is held to strict HTTP/1.1, or left alone in HTTP/2 and tunnels.
#[derive(Debug)]
pub struct GuardedIo<IO> {
    io: IO,
    mode: Mode,
    backlog: Backlog,
    state: Arc<ConnState>,
    linger_bytes_left: u64,
    is_at_eof: bool,
    is_shut_down: bool,
}

#[derive(Debug)]
enum Mode {
    Http1(Http1Guard),
    /// Nothing is inspected.
    Open,
    /// The poison is in the backlog or was read: nothing follows.
    Poisoned,
    /// A body is broken.
    Broken(Rejection),
}

/// Received bytes that the server does not have yet.
#[derive(Debug, Default)]
struct Backlog {
    bytes: Vec<u8>,
    /// How many of `bytes` the server has.
    sent: usize,
    /// How many of `bytes` it may have.
    ready: usize,
    /// Something was added that the guard has not seen.
    is_fresh: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> GuardedIo<IO> {
    /// Guards an HTTP/1 connection.
    #[must_use]
    pub fn http1(io: IO, limits: Limits, state: Arc<ConnState>) -> Self {
        Self::new(io, Mode::Http1(Http1Guard::new(limits)), limits, state)
    }

    /// Wraps an HTTP/2 connection: bytes pass as they are, exchanges are counted.
    #[must_use]
    pub fn http2(io: IO, limits: Limits, state: Arc<ConnState>) -> Self {
        state.speaks_http2();
        Self::new(io, Mode::Open, limits, state)
    }

    /// Reads until it is known whether the client begins with the HTTP/2 preface. The bytes read are
    /// put back. `None` when the client closed, or was [expired](ConnState::expire), before that.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn detect(
        mut io: IO,
        limits: Limits,
        state: Arc<ConnState>,
    ) -> io::Result<Option<(Protocol, Self)>> {
        let mut bytes = Vec::new();
        let protocol = loop {
            if poll_fn(|cx| poll_fill(&mut io, cx, &mut bytes, &state)).await? == 0 {
                return Ok(None);
            }
            if bytes.starts_with(HTTP2_PREFACE) {
                break Protocol::Http2;
            }
            if !HTTP2_PREFACE.starts_with(&bytes) {
                break Protocol::Http1;
            }
            state.begins();
        };
        let mut guarded = match protocol {
            Protocol::Http1 => {
                state.begins();
                Self::http1(io, limits, state)
            }
            Protocol::Http2 => Self::http2(io, limits, state),
        };
        guarded.backlog.hold(&bytes);
        Ok(Some((protocol, guarded)))
    }

    /// What the connection is doing.
    #[must_use]
    pub const fn state(&self) -> &Arc<ConnState> {
        &self.state
    }

    fn new(io: IO, mode: Mode, limits: Limits, state: Arc<ConnState>) -> Self {
        Self {
            io,
            mode,
            backlog: Backlog::default(),
            state,
            linger_bytes_left: limits.body_bytes_max,
            is_at_eof: false,
            is_shut_down: false,
        }
    }

    /// Takes in what was read into `buf` after its first `before` bytes.
    fn take_in(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let received = buf.filled().get(before..).unwrap_or_default();
        if !self.backlog.is_empty() {
            self.backlog.hold(received);
            buf.set_filled(before);
            return self.inspect_backlog();
        }
        let Some(step) = self.inspect(received) else { return };
        if step.verdict == Verdict::Continue {
            self.backlog.hold(received.get(step.pass..).unwrap_or_default());
            self.backlog.is_fresh = false;
        }
        buf.set_filled(before + step.pass);
        self.conclude(&step);
    }

    fn inspect_backlog(&mut self) {
        let held = self.backlog.take_held();
        let step = self.inspect(&held);
        let pass = step.map_or(held.len(), |step| step.pass);
        self.backlog.put_back(held, pass);
        if let Some(step) = step {
            self.conclude(&step);
        }
    }

    /// Shows the guard a window; `None` when nothing is inspected any more.
    fn inspect(&mut self, window: &[u8]) -> Option<Step> {
        if self.tunnels_from_here() {
            self.mode = Mode::Open;
        }
        let Mode::Http1(guard) = &mut self.mode else {
            self.state.stirred();
            return None;
        };
        let step = guard.inspect(window);
        let position = guard.position();
        self.state.received(Received { heads: step.heads, body: step.body, position });
        Some(step)
    }

    /// Whether the service has just made this connection a tunnel.
    fn tunnels_from_here(&self) -> bool {
        match &self.mode {
            Mode::Http1(guard) => self.state.is_tunnel() && guard.position() != Position::Body,
            Mode::Open | Mode::Poisoned | Mode::Broken(_) => false,
        }
    }

    fn conclude(&mut self, step: &Step) {
        match step.verdict {
            Verdict::Continue => {}
            Verdict::RejectHead(rejection) => self.poison(rejection),
            Verdict::RejectBody(rejection) => self.break_body(rejection),
        }
    }

    /// Drops what is held back and lets the poison follow what may still pass.
    fn poison(&mut self, rejection: Rejection) {
        self.backlog.drop_held();
        self.backlog.hold(poison(rejection).as_bytes());
        self.backlog.release();
        self.mode = Mode::Poisoned;
        self.state.reject(rejection);
        self.state.received(Received { heads: 1, body: 0, position: Position::Between });
    }

    fn break_body(&mut self, rejection: Rejection) {
        self.backlog.drop_held();
        self.mode = Mode::Broken(rejection);
        self.state.reject(rejection);
        self.state.received(Received { heads: 0, body: 0, position: Position::Between });
    }

    fn expire(&mut self, overdue: Overdue) {
        match overdue {
            Overdue::Head => self.poison(Rejection::HeadTimeout),
            Overdue::BodyIdle => self.break_body(Rejection::BodyTimeout),
            Overdue::FirstByte | Overdue::KeepAlive | Overdue::WriteIdle | Overdue::Linger => {
                self.is_at_eof = true;
            }
        }
    }

    /// Whether the client may still be sending a message that nobody will read.
    fn must_linger(&self) -> bool {
        let is_unread = match &self.mode {
            Mode::Http1(guard) => guard.position() == Position::Body,
            Mode::Poisoned | Mode::Broken(_) => true,
            Mode::Open => false,
        };
        is_unread && !self.is_at_eof
    }

    /// Reads and discards until the client closes.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [const { MaybeUninit::uninit() }; SCRATCH_BYTES];
        self.state.lingers();
        while self.linger_bytes_left > 0 {
            let mut buf = ReadBuf::uninit(&mut scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    self.linger_bytes_left = self.linger_bytes_left.saturating_sub(buf.filled().len() as u64);
                }
                Poll::Ready(_) => break,
                Poll::Pending => match self.state.read_pending(cx.waker()) {
                    Some(_) => break,
                    None => return Poll::Pending,
                },
            }
        }
        Poll::Ready(())
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for GuardedIo<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.backlog.is_fresh || (this.backlog.has_only_held() && this.tunnels_from_here()) {
                this.inspect_backlog();
            }
            if buf.remaining() == 0 || this.backlog.send(buf) || this.is_at_eof {
                return Poll::Ready(Ok(()));
            }
            match this.mode {
                Mode::Poisoned => return Poll::Pending,
                Mode::Broken(rejection) => return Poll::Ready(Err(broken(rejection))),
                Mode::Http1(_) | Mode::Open => {}
            }
            let before = buf.filled().len();
            match Pin::new(&mut this.io).poll_read(cx, buf)? {
                Poll::Pending => match this.state.read_pending(cx.waker()) {
                    Some(overdue) => this.expire(overdue),
                    None => return Poll::Pending,
                },
                Poll::Ready(()) if buf.filled().len() == before => this.is_at_eof = true,
                Poll::Ready(()) => {
                    this.take_in(buf, before);
                    if buf.filled().len() > before {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for GuardedIo<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.state.wrote(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, slices);
        this.state.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_shut_down {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            this.is_shut_down = true;
        }
        if this.must_linger() {
            ready!(this.poll_discard(cx));
            this.is_at_eof = true;
        }
        Poll::Ready(Ok(()))
    }
}

// === impl Backlog ===

impl Backlog {
    /// Adds bytes that may not pass yet.
    fn hold(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.is_fresh = !self.bytes.is_empty();
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether there is something and none of it may pass.
    fn has_only_held(&self) -> bool {
        self.ready == 0 && !self.is_empty()
    }

    /// Lets everything pass.
    fn release(&mut self) {
        self.ready = self.bytes.len();
        self.is_fresh = false;
    }

    fn drop_held(&mut self) {
        self.bytes.truncate(self.ready);
        self.is_fresh = false;
    }

    /// Takes all bytes out for an inspection. To be called only when none of them may pass yet.
    fn take_held(&mut self) -> Vec<u8> {
        debug_assert_eq!(self.ready, 0);
        std::mem::take(&mut self.bytes)
    }

    /// Puts them back, the first `pass` of them ready.
    fn put_back(&mut self, bytes: Vec<u8>, pass: usize) {
        *self = Self { bytes, sent: 0, ready: pass, is_fresh: false };
    }

    /// Copies what is ready into `buf`; `false` when nothing is.
    fn send(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let ready = self.bytes.get(self.sent..self.ready).unwrap_or_default();
        let count = ready.len().min(buf.remaining());
        if count == 0 {
            return false;
        }
        buf.put_slice(ready.get(..count).unwrap_or_default());
        self.sent += count;
        if self.sent == self.bytes.len() {
            *self = Self::default();
        } else if self.sent == self.ready {
            self.bytes.drain(..self.ready);
            (self.sent, self.ready) = (0, 0);
        }
        true
    }
}

/// Reads more into `bytes`; zero at the end of the stream or past the deadline.
fn poll_fill<IO: AsyncRead + Unpin>(
    io: &mut IO,
    cx: &mut Context<'_>,
    bytes: &mut Vec<u8>,
    state: &ConnState,
) -> Poll<io::Result<usize>> {
    let mut scratch = [const { MaybeUninit::uninit() }; SCRATCH_BYTES];
    let mut buf = ReadBuf::uninit(&mut scratch);
    match Pin::new(io).poll_read(cx, &mut buf)? {
        Poll::Pending => match state.read_pending(cx.waker()) {
            Some(_) => Poll::Ready(Ok(0)),
            None => Poll::Pending,
        },
        Poll::Ready(()) => {
            bytes.extend_from_slice(buf.filled());
            Poll::Ready(Ok(buf.filled().len()))
        }
    }
}

fn poison(rejection: Rejection) -> String {
    let number = rejection.number();
    format!(
        "{POISON_METHOD} /{number} HTTP/1.1\r\nhost: rejected\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    )
}

fn broken(rejection: Rejection) -> io::Error {
    let kind = match rejection {
        Rejection::BodyTimeout => io::ErrorKind::TimedOut,
        _ => io::ErrorKind::InvalidData,
    };
    io::Error::new(kind, rejection)
}

/// The reason a request was refused with, if it is the guard's poison. The service answers it with
/// that reason's status; the connection closes after the answer.
#[must_use]
pub fn rejection_of(method: &Method, uri: &Uri, version: Version) -> Option<Rejection> {
    // An HTTP/2 client may send any method; only the guard can send this one in HTTP/1.1.
    if method.as_str() != POISON_METHOD || version != Version::HTTP_11 {
        return None;
    }
    uri.path().strip_prefix('/')?.parse().ok().and_then(Rejection::from_number)
}

/// The reason a request body broke off with, if the guard broke it: looks through `error` and its
/// sources. The service answers with that reason's status; the connection closes after the answer.
#[must_use]
pub fn rejection_in(error: &(dyn Error + 'static)) -> Option<Rejection> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rejection) = error.downcast_ref::<Rejection>() {
            return Some(*rejection);
        }
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            return rejection_in(inner);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests;
