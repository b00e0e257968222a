//! A tunnel: the bytes of an upgraded connection, both ways, unchanged, until either side is done.
//!
//! Invariants
//! - Each way holds at most one buffer; a slow reader slows its writer.
//! - Bytes are read by the meter before they pass; in `sync` durability the record of a response is on
//!   disk before the client sees the response's end.
//! - The session is settled before the tunnel ends, however it ends.
//!
//! Not here: the handshake (`layers::upgrade`), what the bytes mean (`session`).

use crate::idle_timer::IdleTimer;
use crate::session::Session;
use crate::usage::Ending;
use bursar_ledger::Receipt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Sleep, sleep};

/// One way's buffer.
const BUFFER_BYTES: usize = 16 * 1024;

/// How long the other way may go on when one has ended: the answer to a close is on its way.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// Two connections that are about to become one tunnel.
#[derive(Debug)]
pub struct Tunnel {
    client: OnUpgrade,
    upstream: OnUpgrade,
    session: Session,
    idle: Duration,
}

/// How one way broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    /// Where the bytes come from.
    Source,
    /// Where they go.
    Sink,
}

/// How one way ended.
type Ended = Result<(), Broken>;

impl Tunnel {
    /// A tunnel between two connections that have been switched, or will be in a moment. It ends when
    /// nothing passes for the time `idle`.
    pub(crate) fn new(client: OnUpgrade, upstream: OnUpgrade, session: Session, idle: Duration) -> Self {
        Self { client, upstream, session, idle }
    }

    /// Moves bytes until the tunnel is over.
    pub async fn run(self) {
        let Self { client, upstream, mut session, idle } = self;
        let client = match client.await {
            Ok(client) => TokioIo::new(client),
            Err(_) => return session.end(Ending::ClientAbort),
        };
        let upstream = match upstream.await {
            Ok(upstream) => TokioIo::new(upstream),
            Err(_) => return session.end(Ending::UpstreamCut),
        };
        let (from_client, to_client) = tokio::io::split(client);
        let (from_upstream, to_upstream) = tokio::io::split(upstream);
        let (session, stirred) = (RefCell::new(session), Cell::new(false));
        let ending = {
            let up = pass(from_client, to_upstream, &stirred, |bytes| {
                session.borrow_mut().client_says(bytes);
                Vec::new()
            });
            let down =
                pass(from_upstream, to_client, &stirred, |bytes| session.borrow_mut().server_says(bytes));
            Both { up: pin!(up), down: pin!(down), session: &session, ended: None, over: None }
                .run(IdleTimer::start(idle, idle), &stirred)
                .await
        };
        session.borrow_mut().end(ending);
    }
}

/// Passes on what comes, after `watch` has seen it and its receipts are there.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    stirred: &Cell<bool>,
    mut watch: impl FnMut(&[u8]) -> Vec<Receipt>,
) -> Ended {
    let mut buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
    loop {
        let count = from.read(&mut buffer).await.map_err(|_| Broken::Source)?;
        stirred.set(true);
        let mut bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            return to.shutdown().await.map_err(|_| Broken::Sink);
        }
        for receipt in watch(bytes) {
            // What became of the record is counted by the ledger; here only the wait matters.
            let _ = receipt.await;
        }
        while !bytes.is_empty() {
            let sent = to.write(bytes).await.map_err(|_| Broken::Sink)?;
            if sent == 0 {
                return Err(Broken::Sink);
            }
            stirred.set(true);
            bytes = bytes.get(sent..).unwrap_or_default();
        }
        to.flush().await.map_err(|_| Broken::Sink)?;
    }
}

/// Both ways of a tunnel.
struct Both<'t, U, D> {
    up: Pin<&'t mut U>,
    down: Pin<&'t mut D>,
    session: &'t RefCell<Session>,
    /// How the tunnel will have ended, and the way that has, once one has.
    ended: Option<(Ending, Way, Pin<Box<Sleep>>)>,
    over: Option<Ending>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

impl<U: Future<Output = Ended>, D: Future<Output = Ended>> Both<'_, U, D> {
    async fn run(mut self, mut idle: IdleTimer, stirred: &Cell<bool>) -> Ending {
        poll_fn(|cx| {
            self.poll_ways(cx);
            if stirred.take() {
                idle.progress();
            }
            if self.over.is_none() && self.session.borrow().must_end() {
                self.over = Some(Ending::ClientAbort);
            }
            if let Some((ending, _, time)) = &mut self.ended
                && time.as_mut().poll(cx).is_ready()
            {
                self.over.get_or_insert(*ending);
            }
            match (self.over, idle.poll_expired(cx)) {
                (Some(ending), _) => Poll::Ready(ending),
                (None, Some(_)) => Poll::Ready(Ending::UpstreamCut),
                (None, None) => Poll::Pending,
            }
        })
        .await
    }

    fn poll_ways(&mut self, cx: &mut Context<'_>) {
        let ended = self.ended.as_ref().map(|(_, way, _)| *way);
        if ended != Some(Way::Up)
            && let Poll::Ready(result) = self.up.as_mut().poll(cx)
        {
            match result {
                Ok(()) => self.end(Ending::ClientAbort, Way::Up),
                // What it has sent before may still come, such as the end of a response.
                Err(Broken::Sink) => self.end(Ending::UpstreamCut, Way::Up),
                Err(Broken::Source) => self.over = Some(Ending::ClientAbort),
            }
        }
        let ended = self.ended.as_ref().map(|(_, way, _)| *way);
        if ended != Some(Way::Down)
            && self.over.is_none()
            && let Poll::Ready(result) = self.down.as_mut().poll(cx)
        {
            match result {
                Ok(()) => self.end(Ending::UpstreamCut, Way::Down),
                Err(Broken::Sink) => self.over = Some(self.first(Ending::ClientAbort)),
                Err(Broken::Source) => self.over = Some(self.first(Ending::UpstreamCut)),
            }
        }
    }

    /// One way has ended; the other may go on for a moment.
    fn end(&mut self, ending: Ending, way: Way) {
        if let Some((first, ..)) = &self.ended {
            self.over = Some(*first);
            return;
        }
        if way == Way::Down {
            // Nothing more can be billed.
            self.session.borrow_mut().end(ending);
        }
        self.ended = Some((ending, way, Box::pin(sleep(CLOSE_TIME))));
    }

    /// How the tunnel ended, if the other way has not told before.
    fn first(&self, ending: Ending) -> Ending {
        self.ended.as_ref().map_or(ending, |(first, ..)| *first)
    }
}
