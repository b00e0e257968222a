//! The replies of one HTTP/2 connection: which of them wait for a client that takes nothing.
//!
//! The HTTP server holds a reply's next frame until the client gives its stream room, and asks for no
//! other meanwhile; so a reply that was asked for a frame long ago, and not since, has no reader. Nothing
//! else notices that: the connection may be busy with other streams.
//!
//! Invariants
//! - A reply is on the list from its request's head until its task has ended.
//! - Cancelling one resets its stream alone; its exchange is dropped and so settled as aborted.
//!
//! Not here: clients that take nothing of a whole connection (`guard::conn`).

use crate::guard::{Tick, Ticker};
use crate::tasks;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// The replies of one connection. Clones share them. It is the executor that the HTTP server starts
/// each stream's task on, right after it has called the service for that stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streams(Rc<List>);

#[derive(Debug, Default)]
struct List {
    open: RefCell<HashMap<u64, Rc<Watch>>>,
    next: Cell<u64>,
    /// The reply whose task is about to be started.
    begun: RefCell<Option<Rc<Watch>>>,
}

/// One reply.
pub(crate) struct Reply {
    watch: Rc<Watch>,
    ticker: Ticker,
}

#[derive(Debug, Default)]
struct Watch {
    /// When the server was given a frame, if it has not asked for another yet.
    handed_over_at: Cell<Option<Tick>>,
    is_cancelled: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

// === impl Streams ===

impl Streams {
    /// The service is called for a stream: what it returns belongs into that reply's body.
    pub(crate) fn begin(&self, ticker: &Ticker) -> Reply {
        let watch = Rc::new(Watch::default());
        self.0.begun.replace(Some(Rc::clone(&watch)));
        Reply { watch, ticker: ticker.clone() }
    }

    /// Cancels the replies whose clients have taken nothing for `limit`; says how many.
    pub(crate) fn cancel_unread(&self, now: Tick, limit: Duration) -> u64 {
        let mut cancelled = 0;
        for watch in self.0.open.borrow().values() {
            let is_unread = watch.handed_over_at.get().is_some_and(|at| now.since(at) >= limit);
            if is_unread && !watch.is_cancelled.replace(true) {
                cancelled += 1;
                if let Some(waker) = watch.waker.take() {
                    waker.wake();
                }
            }
        }
        cancelled
    }

    fn open(&self, watch: &Rc<Watch>) -> Open {
        let number = self.0.next.get();
        self.0.next.set(number.wrapping_add(1));
        self.0.open.borrow_mut().insert(number, Rc::clone(watch));
        Open { streams: self.clone(), number }
    }
}

impl<F: Future + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, future: F) {
        let watch = self.0.begun.take().unwrap_or_default();
        let open = self.open(&watch);
        tasks::start(async move {
            let _open = open;
            let mut future = pin!(future);
            poll_fn(|cx| {
                watch.register(cx);
                if watch.is_cancelled.get() { Poll::Ready(()) } else { future.as_mut().poll(cx).map(drop) }
            })
            .await;
        });
    }
}

/// Takes a reply off the list when its task ends, however it ends.
struct Open {
    streams: Streams,
    number: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.streams.0.open.borrow_mut().remove(&self.number);
    }
}

// === impl Watch, Reply ===

impl Watch {
    fn register(&self, cx: &Context<'_>) {
        let mut slot = self.waker.borrow_mut();
        match &*slot {
            Some(known) if known.will_wake(cx.waker()) => {}
            _ => *slot = Some(cx.waker().clone()),
        }
    }
}

impl Reply {
    /// The server has asked for a frame, and got one or not.
    pub(crate) fn handed_over(&self, a_frame: bool) {
        self.watch.handed_over_at.set(a_frame.then(|| self.ticker.now()));
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}
