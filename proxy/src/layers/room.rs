//! Room in memory for bodies that are held whole because a hard budget must know all of them.
//!
//! Invariants
//! - One body takes at most what the configuration says, all of them together eight times that.
//! - What a body took is free again when its room is dropped, which is when it has been sent.
//!
//! Not here: reading bodies (`meter`), what they say (`usage`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// So many of the largest bodies are held at once.
const BODIES: u64 = 8;

/// The room of the whole process.
#[derive(Clone, Debug)]
pub struct BodyRoom {
    taken: Arc<AtomicU64>,
    each_max: u64,
}

/// What one body has taken of it.
#[derive(Debug)]
pub struct Taken {
    room: BodyRoom,
    bytes: u64,
}

impl BodyRoom {
    /// Room for bodies of at most `each_max` bytes.
    #[must_use]
    pub fn new(each_max: u64) -> Self {
        Self { taken: Arc::default(), each_max }
    }

    /// Room for one body, of which nothing is there yet.
    #[must_use]
    pub fn begin(&self) -> Taken {
        Taken { room: self.clone(), bytes: 0 }
    }
}

impl Taken {
    /// Takes room for `bytes` in all; `false` where there is none.
    pub fn grow_to(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if bytes > self.room.each_max {
            return false;
        }
        let most = self.room.each_max.saturating_mul(BODIES);
        let before = self.room.taken.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) > most {
            self.room.taken.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.bytes = self.bytes.saturating_add(more);
        true
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_body_and_all_together_have_a_limit_and_what_was_taken_comes_back() {
        let room = BodyRoom::new(100);
        let mut first = room.begin();
        assert!(first.grow_to(60) && first.grow_to(100) && !first.grow_to(101));
        let mut others: Vec<Taken> = (0..7).map(|_| room.begin()).collect();
        assert!(others.iter_mut().all(|taken| taken.grow_to(100)));
        let mut last = room.begin();
        assert!(!last.grow_to(1));
        drop(first);
        assert!(last.grow_to(100) && !room.begin().grow_to(1));
        drop((others, last));
        assert_eq!(room.taken.load(Ordering::Relaxed), 0);
    }
}
