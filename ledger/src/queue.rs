//! The queue to the writer: bounded, without locks, and as large in memory as what waits in it.
//!
//! Invariants
//! - First in, first out; each entry is taken once.
//! - It refuses what comes while it is full. Producers that meet at its last place may all be let in: it then holds
//!   one more for each of them, and never loses one.
//!
//! Not here: what is put into it (`writer`), who may count on room (`place`).

use crossbeam_queue::SegQueue;

/// A queue of at most about `capacity` entries.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    // Its blocks come and go with the entries: an array for the most that may wait would lie in memory always.
    entries: SegQueue<T>,
    capacity: usize,
}

impl<T> Queue<T> {
    /// Room for so many entries, at least one.
    pub(crate) const fn new(capacity: usize) -> Self {
        Self { entries: SegQueue::new(), capacity: if capacity == 0 { 1 } else { capacity } }
    }

    /// Puts an entry at the end, or hands it back when there is no room.
    pub(crate) fn push(&self, entry: T) -> Result<(), T> {
        if self.entries.len() >= self.capacity {
            return Err(entry);
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Takes the entry that has waited longest.
    pub(crate) fn pop(&self) -> Option<T> {
        self.entries.pop()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) const fn capacity(&self) -> usize {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::Queue;

    #[test]
    fn a_full_queue_hands_back_what_comes_until_something_is_taken() {
        let queue = Queue::new(2);
        assert_eq!((queue.push(1), queue.push(2), queue.push(3)), (Ok(()), Ok(()), Err(3)));
        assert_eq!((queue.len(), queue.capacity(), queue.pop()), (2, 2, Some(1)));
        assert_eq!((queue.push(4), queue.pop(), queue.pop(), queue.pop()), (Ok(()), Some(2), Some(4), None));
        assert!(queue.is_empty());
        assert_eq!(Queue::<u8>::new(0).capacity(), 1);
    }

    #[test]
    fn producers_that_meet_lose_nothing_and_exceed_the_capacity_by_their_number_at_most() {
        const PRODUCERS: usize = 4;
        const EACH: usize = 5_000;
        const CAPACITY: usize = 64;
        let queue = Queue::new(CAPACITY);
        let mut taken: Vec<(usize, usize)> = Vec::new();
        std::thread::scope(|scope| {
            for producer in 0..PRODUCERS {
                let queue = &queue;
                scope.spawn(move || {
                    for number in 0..EACH {
                        let mut entry = (producer, number);
                        while let Err(back) = queue.push(entry) {
                            entry = back;
                            std::thread::yield_now();
                        }
                    }
                });
            }
            while taken.len() < PRODUCERS * EACH {
                assert!(queue.len() <= CAPACITY + PRODUCERS, "{}", queue.len());
                match queue.pop() {
                    Some(entry) => taken.push(entry),
                    None => std::thread::yield_now(),
                }
            }
        });
        for producer in 0..PRODUCERS {
            let numbers = taken.iter().filter(|(from, _)| *from == producer).map(|(_, number)| *number);
            assert!(numbers.eq(0..EACH), "in the order of producer {producer}");
        }
    }
}
