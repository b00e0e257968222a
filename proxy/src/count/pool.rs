//! The threads that count, and their bounded queues.
//!
//! Invariants
//! - A thread starts with its first job; a sidecar that never counts has none.
//! - Jobs of one exchange are done in order: it has one queue.
//! - Sending never waits: a job that finds its queue full comes back.
//!
//! Not here: what jobs do (`settle`, `texts`).

use super::settle::Settlement;
use super::tally::Tally;
use super::texts::Texts;
use crate::tasks;
use crate::usage::text::PassedText;
use bursar_domain::RequestId;
use bursar_tokens::Model;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Something to do for an exchange.
#[derive(Debug)]
pub(super) enum Job {
    /// Count a block of a reply that goes on.
    Block { texts: Arc<Mutex<Texts>>, tally: Model, block: PassedText },
    /// Count what is left and write the record.
    Settle(Box<Settlement>),
}

/// The pool.
#[derive(Debug)]
pub struct Counting {
    shards: Vec<Mutex<Shard>>,
    queue_entries_max: usize,
}

#[derive(Debug)]
enum Shard {
    /// No job has come yet.
    Idle,
    Running(SyncSender<Job>, JoinHandle<()>),
    /// The program ends.
    Closed,
}

impl Counting {
    /// A pool of so many threads, each with a queue of so many jobs.
    #[must_use]
    pub fn new(threads: usize, queue_entries_max: usize) -> Self {
        let shards = (0..threads.max(1)).map(|_| Mutex::new(Shard::Idle)).collect();
        Self { shards, queue_entries_max: queue_entries_max.max(1) }
    }

    /// Puts `job` into the exchange's queue; it comes back when that is full or closed.
    pub(super) fn send(&self, id: RequestId, job: Job) -> Result<(), Job> {
        let count = self.shards.len().max(1) as u128;
        let at = usize::try_from(id.bits() % count).unwrap_or(0);
        let Some(shard) = self.shards.get(at) else { return Err(job) };
        let mut shard = lock(shard);
        if matches!(*shard, Shard::Idle) {
            *shard = self.start(at);
        }
        match &*shard {
            Shard::Running(queue, _) => queue.try_send(job).map_err(|refused| match refused {
                TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
            }),
            Shard::Idle | Shard::Closed => Err(job),
        }
    }

    /// Settles an exchange when its tokens have been counted; at once, and roughly, when there is no
    /// room. `true` when it was put off.
    pub fn settle(&self, settlement: Box<Settlement>) -> bool {
        match self.send(settlement.id(), Job::Settle(settlement)) {
            Ok(()) => true,
            Err(Job::Settle(settlement)) => {
                settlement.run_roughly();
                false
            }
            Err(Job::Block { .. }) => false,
        }
    }

    fn start(&self, at: usize) -> Shard {
        let (queue, jobs) = sync_channel(self.queue_entries_max);
        match tasks::plain_thread(format!("count-{at}"), move || work(&jobs)) {
            Ok(thread) => Shard::Running(queue, thread),
            Err(error) => {
                tracing::error!(%error, "cannot start a thread for counting: tokens are estimated");
                Shard::Closed
            }
        }
    }

    /// Does what is queued and ends. Blocks: not for an async thread that serves.
    pub fn finish(&self) {
        for shard in &self.shards {
            let ended = std::mem::replace(&mut *lock(shard), Shard::Closed);
            if let Shard::Running(queue, thread) = ended {
                drop(queue);
                if thread.join().is_err() {
                    tracing::error!("a counting thread ended in a panic");
                }
            }
        }
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(jobs: &Receiver<Job>) {
    for job in jobs {
        match job {
            Job::Settle(settlement) => settlement.run(),
            Job::Block { texts, tally, block } => {
                // A defect must cost a figure, not the thread.
                let done = catch_unwind(AssertUnwindSafe(|| {
                    // Nobody else holds it: the exchange is over and the provider told its figures.
                    if Arc::strong_count(&texts) > 1 {
                        let mut texts = texts.lock().unwrap_or_else(PoisonError::into_inner);
                        texts.push(&block, &Tally::full(tally));
                    }
                }));
                if done.is_err() {
                    tracing::error!("a defect in counting was caught");
                }
            }
        }
    }
}
