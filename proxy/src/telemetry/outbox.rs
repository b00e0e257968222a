//! A bounded queue from those who must not wait to one who may.
//!
//! Invariants
//! - Putting something in never waits for the reader; what finds no room is dropped and counted.
//! - While nobody reads, nothing is kept.
//!
//! Not here: what is in it (`event`), who reads it (`lines`, `otlp`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The queue.
#[derive(Debug)]
pub(crate) struct Outbox<T> {
    queue: Mutex<VecDeque<T>>,
    entries_max: usize,
    dropped: AtomicU64,
    is_read: AtomicBool,
    wake: Notify,
}

impl<T> Outbox<T> {
    /// Keeps at most `entries_max`.
    pub(crate) fn new(entries_max: usize) -> Self {
        Self {
            queue: Mutex::default(),
            entries_max,
            dropped: AtomicU64::new(0),
            is_read: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on somebody reads, or nobody any more. What is there then stays for whoever takes it.
    pub(crate) fn set_read(&self, is_read: bool) {
        self.is_read.store(is_read, Ordering::Release);
    }

    /// Whether somebody reads.
    pub(crate) fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Acquire)
    }

    /// Puts `item` in, if somebody reads and there is room.
    pub(crate) fn push(&self, item: T) {
        if !self.is_read() {
            return;
        }
        let mut queue = self.lock();
        if queue.len() >= self.entries_max {
            drop(queue);
            self.drop_entries(1);
            return;
        }
        let is_first = queue.is_empty();
        queue.push_back(item);
        drop(queue);
        if is_first {
            self.wake.notify_one();
        }
    }

    /// Takes up to `most`, the oldest first.
    pub(crate) fn take(&self, most: usize) -> Vec<T> {
        let mut queue = self.lock();
        let count = queue.len().min(most);
        queue.drain(..count).collect()
    }

    /// How much waits.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Waits until something was put in. May be ready although everything has been taken since.
    pub(crate) async fn filled(&self) {
        self.wake.notified().await;
    }

    /// Counts what was lost.
    pub(crate) fn drop_entries(&self, count: usize) {
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// What was lost so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_dropped_and_counted() {
        let outbox = Outbox::new(2);
        outbox.push(0);
        assert_eq!((outbox.len(), outbox.dropped()), (0, 0), "nobody reads");
        outbox.set_read(true);
        (1..=4).for_each(|n| outbox.push(n));
        assert_eq!((outbox.len(), outbox.dropped()), (2, 2));
        assert_eq!(outbox.take(1), [1]);
        outbox.push(5);
        assert_eq!(outbox.take(9), [2, 5]);
    }

    #[tokio::test]
    async fn a_reader_that_comes_late_is_woken() {
        let outbox = Outbox::new(2);
        outbox.set_read(true);
        outbox.push(1);
        outbox.filled().await;
        assert_eq!(outbox.take(1), [1]);
    }
}
