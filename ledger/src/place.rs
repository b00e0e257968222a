//! Places in the writer's queue, for producers whose records must not be lost.
//!
//! Invariants
//! - Places and queued records together never exceed the queue, as long as every producer has a place:
//!   a record that is appended under one finds room.
//! - A place is counted before the queue is looked at, and given up after its record is queued; so a
//!   record on its way is counted twice for a moment, and never not at all.
//!
//! Not here: the queue (`writer`), who must have a place (the caller's policy).

use crate::writer::{Refusal, Shared};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Room for one record in the ledger's queue, kept until it is dropped. Append the record first.
#[must_use = "dropping it gives the place up"]
pub struct Place(Arc<Shared>);

/// Why no place is to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// All of the queue is taken or spoken for.
    #[error("its queue is full")]
    QueueFull,
    /// The journal cannot be written now.
    #[error("{0}")]
    Trouble(String),
    /// The ledger is being closed.
    #[error("it is closed")]
    Closed,
}

impl Place {
    pub(crate) fn reserve(shared: &Arc<Shared>) -> Result<Self, NoPlace> {
        match shared.refusal() {
            Some(Refusal::Closed) => return Err(NoPlace::Closed),
            _ if shared.is_troubled() => {
                return Err(NoPlace::Trouble(shared.trouble().unwrap_or_default()));
            }
            _ => {}
        }
        let before = shared.reserved.fetch_add(1, Ordering::SeqCst);
        // From here on, dropping it takes it back.
        let place = Self(Arc::clone(shared));
        let taken = before.saturating_add(shared.queue.len());
        if taken < shared.queue.capacity() { Ok(place) } else { Err(NoPlace::QueueFull) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.reserved.fetch_sub(1, Ordering::SeqCst);
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place")
    }
}
