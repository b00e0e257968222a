//! The answer to one `append`: a future that needs no runtime, and can be waited for by a thread.
//!
//! Invariants
//! - Every receipt is answered: a sender that is dropped answers `NotRecorded`.
//!
//! Not here: who answers and when (`writer`).

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Appended {
    /// It is in the journal, as the durability promises.
    Recorded {
        /// Its sequence.
        sequence: u64,
    },
    /// A record with this id is there already; nothing was changed.
    AlreadyThere,
    /// It is in the queue; nobody waits for the writer.
    Queued,
}

/// A record that had been queued and will not be in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRecorded {
    /// The journal failed; nothing is acknowledged until a restart.
    #[error("the journal failed and acknowledges nothing until a restart")]
    JournalFailed,
    /// The record is larger than any frame may be.
    #[error("the record is too large for the journal")]
    TooLarge,
    /// A record with this id is there already and says something else; it was left as it is.
    #[error("a record with this id and other content is there already, and was left as it is")]
    Conflict,
    /// The ledger was closed, or its writer ended, before the record's turn.
    #[error("the ledger was closed before the record was written")]
    Closed,
}

type Outcome = Result<Appended, NotRecorded>;

#[derive(Debug, Default)]
struct Slot {
    outcome: Option<Outcome>,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct Shared {
    slot: Mutex<Slot>,
    answered: Condvar,
}

/// The sending end.
#[derive(Debug)]
pub(crate) struct Ack(Option<Arc<Shared>>);

/// The receiving end: a future of what became of the record.
#[derive(Debug)]
pub struct Receipt(Inner);

#[derive(Debug)]
enum Inner {
    Ready(Outcome),
    Waiting(Arc<Shared>),
}

/// A connected pair.
pub(crate) fn pair() -> (Ack, Receipt) {
    let shared = Arc::new(Shared::default());
    (Ack(Some(shared.clone())), Receipt(Inner::Waiting(shared)))
}

impl Receipt {
    pub(crate) fn queued() -> Self {
        Self(Inner::Ready(Ok(Appended::Queued)))
    }

    /// Blocks the thread until the record's fate is known.
    pub fn wait(self) -> Result<Appended, NotRecorded> {
        let shared = match self.0 {
            Inner::Ready(outcome) => return outcome,
            Inner::Waiting(shared) => shared,
        };
        let mut slot = shared.slot.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(outcome) = slot.outcome {
                return outcome;
            }
            slot = shared.answered.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Future for Receipt {
    type Output = Result<Appended, NotRecorded>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let shared = match &self.0 {
            Inner::Ready(outcome) => return Poll::Ready(*outcome),
            Inner::Waiting(shared) => shared,
        };
        let mut slot = shared.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = slot.outcome {
            return Poll::Ready(outcome);
        }
        slot.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Ack {
    pub(crate) fn answer(mut self, outcome: Outcome) {
        self.send(outcome);
    }

    fn send(&mut self, outcome: Outcome) {
        let Some(shared) = self.0.take() else { return };
        let waker = {
            let mut slot = shared.slot.lock().unwrap_or_else(PoisonError::into_inner);
            slot.outcome = Some(outcome);
            slot.waker.take()
        };
        shared.answered.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        self.send(Err(NotRecorded::Closed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_polled_receipt_is_woken_once_and_then_ready() {
        let (ack, mut receipt) = pair();
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut context = Context::from_waker(&waker);
        assert_eq!(Pin::new(&mut receipt).poll(&mut context), Poll::Pending);
        ack.answer(Ok(Appended::Recorded { sequence: 3 }));
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        let ready = Pin::new(&mut receipt).poll(&mut context);
        assert_eq!(ready, Poll::Ready(Ok(Appended::Recorded { sequence: 3 })));
    }

    #[test]
    fn a_dropped_sender_answers_closed() {
        let (ack, receipt) = pair();
        drop(ack);
        assert_eq!(receipt.wait(), Err(NotRecorded::Closed));
    }
}
