//! One HTTP/1 connection to an upstream, driven by whoever waits for its reply.
//!
//! A connection on a task of its own costs two switches for every piece of a reply, and pieces that
//! arrived together go on one by one, each with its own write to the client. Here the waiting side drives
//! the connection itself, and takes all that is there before it waits.
//!
//! Invariants
//! - The connection wakes the task that drove it last; while it is idle it wakes nobody.
//! - What the connection and its reply tell each other while they are being driven wakes no task.
//!
//! Not here: which connection carries what (`upstream`), HTTP/2 (shared, on tasks of its own).

use super::connect::UpstreamIo;
use super::request_body::RequestBody;
use crate::tasks;
use futures_util::task::AtomicWaker;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Rounds after which others get their turn, however much there is to do.
const ROUNDS_MAX: usize = 16;

type Wire = Connection<TokioIo<UpstreamIo>, RequestBody>;

/// See the module.
pub(super) struct Line {
    pub(super) sender: SendRequest<RequestBody>,
    /// `None` once it has ended.
    connection: Option<Pin<Box<Wire>>>,
    bell: Arc<Bell>,
    waker: Waker,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("is_open", &self.connection.is_some()).finish_non_exhaustive()
    }
}

impl Line {
    /// Speaks HTTP/1 over `io`.
    pub(super) async fn over(io: UpstreamIo) -> hyper::Result<Self> {
        let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(io)).await?;
        let bell = Arc::new(Bell::default());
        // Nobody has asked the connection for anything yet.
        bell.ring();
        let waker = Waker::from(Arc::clone(&bell));
        Ok(Self { sender, connection: Some(Box::pin(connection)), bell, waker })
    }

    /// Polls `reply`, which waits for something from this connection, and drives the connection as long
    /// as that brings it on.
    pub(super) fn drive<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut reply: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if self.connection.is_none() {
            return reply(cx);
        }
        self.bell.is_driven_by(cx.waker());
        let mut result = Poll::Pending;
        for _ in 0..ROUNDS_MAX {
            // A connection that has not rung has nothing new to say.
            if self.bell.rings() {
                self.turn();
            }
            result = reply(&mut Context::from_waker(&self.waker));
            if result.is_ready() || !self.bell.has_rung() {
                break;
            }
        }
        // What is ready is asked for again at once by whoever takes it, which is another turn.
        self.bell.is_left(result.is_pending());
        result
    }

    /// Lets the connection go on by itself. For a request that is still being sent when its reply
    /// begins: a client that does not read yet must not keep the rest of its request from going out.
    pub(super) fn detach(&mut self) {
        if let Some(connection) = self.connection.take() {
            tasks::start(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "upstream connection ended");
                }
            });
        }
    }

    /// Whether the connection, of which nobody waits for anything, can carry another request.
    pub(super) fn is_idle(&mut self) -> bool {
        self.bell.is_driven();
        self.turn();
        self.bell.is_forgotten();
        self.connection.is_some() && self.sender.is_ready()
    }

    fn turn(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        if let Poll::Ready(ended) = connection.as_mut().poll(&mut Context::from_waker(&self.waker)) {
            if let Err(error) = ended {
                tracing::debug!(%error, "upstream connection ended");
            }
            // What it still held is answered by dropping it.
            self.connection = None;
            self.bell.ring();
        }
    }
}

/// Where the wakers of a connection and of its reply lead. Whoever leaves and whoever rings each write
/// their own flag before they read the other's, so that one of the two sees both.
#[derive(Debug, Default)]
struct Bell {
    /// Who drives the connection.
    task: AtomicWaker,
    /// It is being driven right now: no need to wake anybody.
    driven: AtomicBool,
    /// The connection or its reply can go on since they were last asked.
    rung: AtomicBool,
}

impl Bell {
    fn is_driven_by(&self, waker: &Waker) {
        self.task.register(waker);
        self.is_driven();
    }

    fn is_driven(&self) {
        self.driven.store(true, Ordering::SeqCst);
    }

    fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
    }

    fn has_rung(&self) -> bool {
        self.rung.load(Ordering::SeqCst)
    }

    /// Whether it was rung since the last time it was asked.
    fn rings(&self) -> bool {
        self.has_rung() && self.rung.swap(false, Ordering::SeqCst)
    }

    /// Nobody drives any more; if somebody waits, what rang last wakes the task.
    fn is_left(&self, waits: bool) {
        self.driven.store(false, Ordering::SeqCst);
        if waits && self.has_rung() {
            self.task.wake();
        }
    }

    fn is_forgotten(&self) {
        self.driven.store(false, Ordering::SeqCst);
        drop(self.task.take());
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
        if !self.driven.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}
