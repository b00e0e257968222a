//! Finance facts in a running ledger: handing them to the writer, and having them at hand.
//!
//! Invariants
//! - What is handed in at once is one frame of the journal: all of it is there, or nothing.
//! - A fact is at hand only after it is as durable as the ledger promises.
//! - Facts are few (positions, fixings, rates), so all of them are in memory, a text each.
//!
//! Not here: what facts say (`hedge`), their bytes (`codec::facts`).

use crate::ack::{self, Ack, Appended, NotRecorded};
use crate::journal::read::{ReadError, all_facts};
use crate::writer::Shared;
use crate::{Ledger, OfflineLedger, RejectReason};
use bursar_domain::{Clock, Fact, FactKind, Label, RequestId, StoredFact};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most facts that can be handed in at once: one frame, far below what a frame may hold.
pub const FACTS_PER_IMPORT_MAX: usize = 50_000;
/// Most bytes of their texts.
const BYTES_PER_IMPORT_MAX: usize = 32 << 20;

/// Why facts were not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FactError {
    /// Too many at once.
    #[error(
        "at most {FACTS_PER_IMPORT_MAX} rows (and 32 MiB) can be recorded at once: split the file, which is safe as rows that are there already change nothing"
    )]
    TooMany,
    /// The ledger takes none.
    #[error(transparent)]
    Rejected(#[from] RejectReason),
    /// They were handed in and are not in the journal.
    #[error(transparent)]
    NotRecorded(#[from] NotRecorded),
    /// No random bits for ids.
    #[error("cannot get random bits for the ids of facts")]
    Random,
}

/// Facts that are one frame.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) facts: Vec<Fact>,
    pub(crate) ack: Ack,
}

/// What the writer and everybody else share about facts.
#[derive(Debug, Default)]
pub(crate) struct FactQueue {
    waiting: Mutex<Vec<Request>>,
    wanted: AtomicBool,
    kept: Mutex<Vec<Arc<StoredFact>>>,
    /// One import at a time: what it was checked against is still so when it is written.
    pub(crate) importing: Mutex<()>,
    /// Which revenue events are there; used while importing.
    pub(crate) revenue: Mutex<crate::revenue::KnownRevenue>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FactQueue {
    pub(crate) fn begin_with(&self, facts: Vec<Arc<StoredFact>>) {
        *lock(&self.kept) = facts;
    }

    pub(crate) fn wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    pub(crate) fn take(&self) -> Vec<Request> {
        if self.wanted.swap(false, Ordering::AcqRel) {
            std::mem::take(&mut *lock(&self.waiting))
        } else {
            Vec::new()
        }
    }

    /// Nobody writes any more: dropped requests answer `Closed`.
    pub(crate) fn close(&self) {
        lock(&self.waiting).clear();
    }

    /// Remembers facts that follow `last`.
    pub(crate) fn keep(&self, last: u64, facts: Vec<Fact>) -> Vec<Arc<StoredFact>> {
        let stored: Vec<Arc<StoredFact>> = (1_u64..)
            .zip(facts)
            .map(|(offset, fact)| Arc::new(StoredFact { sequence: last.saturating_add(offset), fact }))
            .collect();
        lock(&self.kept).extend(stored.iter().cloned());
        stored
    }

    fn all(&self) -> Vec<Arc<StoredFact>> {
        lock(&self.kept).clone()
    }

    /// The facts after the first `count`.
    pub(crate) fn since(&self, count: usize) -> Vec<Arc<StoredFact>> {
        lock(&self.kept).get(count..).unwrap_or_default().to_vec()
    }
}

/// A fact before it has an id and a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFact {
    /// What it is about.
    pub kind: FactKind,
    /// Names what it is about.
    pub name: Label,
    /// One JSON object on one line.
    pub body: Arc<str>,
}

/// Gives facts the ids and the time of now.
pub(crate) fn dated(new: Vec<NewFact>, clock: &dyn Clock) -> Result<Vec<Fact>, FactError> {
    let at = clock.now();
    let mut facts = Vec::with_capacity(new.len());
    for NewFact { kind, name, body } in new {
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random).map_err(|_| FactError::Random)?;
        let id = RequestId::new(at, u128::from_le_bytes(random));
        facts.push(Fact { id, at, kind, name, body });
    }
    Ok(facts)
}

impl Ledger {
    /// Every finance fact, in sequence.
    #[must_use]
    pub fn facts(&self) -> Vec<Arc<StoredFact>> {
        self.inner.shared.facts.all()
    }

    /// Records facts as one frame and waits until they are as durable as the ledger promises. Returns
    /// the last sequence. Blocks: not for an async thread.
    pub(crate) fn append_facts(&self, facts: Vec<Fact>) -> Result<u64, FactError> {
        if facts.len() > FACTS_PER_IMPORT_MAX {
            return Err(FactError::TooMany);
        }
        append_facts(&self.inner.shared, self.noted(facts)?)
    }

    /// Nobody else imports while the guard lives.
    pub(crate) fn importing(&self) -> MutexGuard<'_, ()> {
        lock(&self.inner.shared.facts.importing)
    }
}

/// Records facts as one frame and waits until they are as durable as the ledger promises. Returns the last
/// sequence. Blocks.
pub(crate) fn append_facts(shared: &Shared, facts: Vec<Fact>) -> Result<u64, FactError> {
    let bytes = facts.iter().fold(0_usize, |sum, fact| sum.saturating_add(fact.body.len()));
    // One more than an import may have is the note of who makes it.
    if facts.len() > FACTS_PER_IMPORT_MAX.saturating_add(1) || bytes > BYTES_PER_IMPORT_MAX {
        return Err(FactError::TooMany);
    }
    if facts.is_empty() {
        return Ok(shared.view().last_sequence());
    }
    let (ack, receipt) = ack::pair();
    // Under the lock: either the writer's last look finds them, or they are refused here.
    let mut waiting = lock(&shared.facts.waiting);
    if let Some(refusal) = shared.refusal() {
        return Err(FactError::Rejected(refusal.into()));
    }
    waiting.push(Request { facts, ack });
    shared.facts.wanted.store(true, Ordering::Release);
    drop(waiting);
    shared.wake();
    match receipt.wait()? {
        Appended::Recorded { sequence } => Ok(sequence),
        Appended::AlreadyThere | Appended::Queued => Ok(shared.view().last_sequence()),
    }
}

impl OfflineLedger {
    /// Every finance fact, in sequence, read from the journal.
    pub fn facts(&self) -> Result<Vec<StoredFact>, ReadError> {
        all_facts(self.journal())
    }
}
