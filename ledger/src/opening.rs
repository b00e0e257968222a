//! Exchanges under way: what a request says before it is sent, so that a crash cannot make it unseen.
//!
//! An exchange is opened before its request goes upstream and closed when its record is handed over. The
//! writer puts an opening into the journal when it is older than one group; what ends sooner never
//! reaches it, and costs the writer nothing.
//!
//! Invariants
//! - An opening is taken out of here once: by whoever hands its record over, or by the writer.
//! - It is taken out before its record is queued. So an opening that is still here when the writer has
//!   emptied the queue has no record, and in the journal no record stands before its reservation.
//! - Memory: as many openings in each shard as the queue has entries, some 200 bytes each; more are not
//!   kept, and counted. Places are given out again.
//!
//! Not here: their bytes (`codec::reservation`), settling those of a crash (`open`, `writer`).

use crate::ack::Ack;
use bursar_domain::{
    Anomalies, Identity, Label, Metering, Money, Outcome, RequestId, Timestamp, Usage, UsageRecord,
    UsageSource,
};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is known of an exchange before its request is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The id that its record will have.
    pub id: RequestId,
    /// When the request's head had arrived.
    pub started_at: Timestamp,
    /// Who it is for.
    pub identity: Arc<Identity>,
    /// The route's prefix.
    pub route: Label,
    /// The provider's name.
    pub provider: Label,
    /// The API within the provider.
    pub api: Label,
    /// The model that is asked for, as far as that is known.
    pub model: Option<Label>,
    /// The price region.
    pub region: Option<Label>,
    /// Whether a stream is asked for.
    pub stream: bool,
    /// Whether its record will count.
    pub metering: Metering,
    /// Tokens that budgets hold for it.
    pub held_tokens: Option<u64>,
    /// Money that budgets hold for it.
    pub held_cost: Option<Money>,
}

impl Opening {
    /// The record of an exchange of which no more is known. When it ended is not known either, so it
    /// takes no time.
    pub(crate) fn interrupted(self) -> UsageRecord {
        UsageRecord {
            id: self.id,
            started_at: self.started_at,
            ended_at: self.started_at,
            identity: self.identity,
            route: self.route,
            provider: self.provider,
            api: self.api,
            model_requested: self.model,
            model_served: None,
            tier: None,
            region: self.region,
            stream: self.stream,
            http_status: None,
            outcome: Outcome::Interrupted,
            metering: self.metering,
            usage: Usage::unknown(),
            usage_source: UsageSource::Absent,
            counted_by: None,
            by_model: Vec::new(),
            usage_raw: None,
            provider_cost: None,
            cost: None,
            upstream_request_id: None,
            meter_id: None,
            trace_id: None,
            latency_us: 0,
            ttft_us: None,
            bytes_in: 0,
            bytes_out: 0,
            anomalies: Anomalies::default(),
        }
    }
}

/// Where an opening waits. Give it back with [`crate::Ledger::closing`] just before the record is handed
/// over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an opening that nobody takes back is settled as interrupted after a restart"]
pub struct OpenSlot {
    id: RequestId,
    /// `None` when there was no room.
    place: Option<(u16, u32)>,
}

impl OpenSlot {
    /// Nowhere.
    pub(crate) const fn none(id: RequestId) -> Self {
        Self { id, place: None }
    }
}

/// So many, so that workers rarely meet.
const SHARDS: usize = 16;

/// All exchanges that the writer has not taken note of.
#[derive(Debug)]
pub(crate) struct Openings {
    shards: Box<[Shard]>,
    per_shard_max: usize,
    shed: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    /// Openings in `slots`, readable without its lock.
    live: AtomicUsize,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Option<Fresh>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Fresh {
    opening: Opening,
    /// The writer has passed by once.
    seen: bool,
    ack: Option<Ack>,
}

/// Which openings the writer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    /// Those that it has seen before, and those that somebody waits for.
    Seen,
    All,
}

thread_local! {
    /// The shard of this thread.
    static SHARD: Cell<Option<u16>> = const { Cell::new(None) };
}

fn shard_of_thread() -> u16 {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    SHARD.with(|shard| match shard.get() {
        Some(number) => number,
        None => {
            let next = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
            let number = u16::try_from(next).unwrap_or(0);
            shard.set(Some(number));
            number
        }
    })
}

impl Openings {
    pub(crate) fn new(per_shard_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            per_shard_max: per_shard_max.max(1),
            shed: AtomicU64::new(0),
        }
    }

    /// Openings that were not kept for want of room.
    pub(crate) fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }

    /// Counts one that is not kept.
    pub(crate) fn count_shed(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether there is any. Exact after a fence for what was put before it.
    pub(crate) fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.live.load(Ordering::Relaxed) == 0)
    }

    /// Keeps an opening until it is closed or taken. An `ack` without room is dropped, and answers so.
    pub(crate) fn put(&self, opening: Opening, ack: Option<Ack>) -> OpenSlot {
        let (id, number) = (opening.id, shard_of_thread());
        let none = OpenSlot::none(id);
        let Some(shard) = self.shards.get(usize::from(number)) else { return none };
        let mut slots = shard.lock();
        let fresh = Some(Fresh { opening, seen: false, ack });
        let at = match slots.free.pop() {
            Some(at) => {
                if let Some(slot) = slots.slots.get_mut(at as usize) {
                    *slot = fresh;
                }
                at
            }
            None if slots.slots.len() < self.per_shard_max => {
                slots.slots.push(fresh);
                u32::try_from(slots.slots.len().saturating_sub(1)).unwrap_or(u32::MAX)
            }
            None => {
                drop(slots);
                self.count_shed();
                return none;
            }
        };
        shard.live.fetch_add(1, Ordering::Relaxed);
        OpenSlot { id, place: Some((number, at)) }
    }

    /// Takes an opening out, unless the writer did.
    pub(crate) fn close(&self, slot: OpenSlot) {
        let Some((number, at)) = slot.place else { return };
        let Some(shard) = self.shards.get(usize::from(number)) else { return };
        let mut slots = shard.lock();
        let Some(place) = slots.slots.get_mut(at as usize) else { return };
        // The place may be another exchange's by now.
        if place.as_ref().is_some_and(|fresh| fresh.opening.id == slot.id) {
            let taken = place.take();
            slots.free.push(at);
            shard.live.fetch_sub(1, Ordering::Relaxed);
            drop(slots);
            drop(taken);
        }
    }

    /// Gives `each` the openings that the writer is to write, and marks the others as seen.
    pub(crate) fn take(&self, which: Take, each: &mut dyn FnMut(Opening, Option<Ack>)) {
        for shard in &self.shards {
            if shard.live.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut slots = shard.lock();
            let Slots { slots, free } = &mut *slots;
            for (at, slot) in (0_u32..).zip(slots.iter_mut()) {
                let Some(fresh) = slot else { continue };
                if which == Take::Seen && !fresh.seen && fresh.ack.is_none() {
                    fresh.seen = true;
                    continue;
                }
                if let Some(Fresh { opening, ack, .. }) = slot.take() {
                    free.push(at);
                    shard.live.fetch_sub(1, Ordering::Relaxed);
                    each(opening, ack);
                }
            }
        }
    }
}

impl Shard {
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::codec::tests::plain_record;

    /// What was known of the `n`-th plain record before it was sent.
    pub(crate) fn opening(n: u64) -> Opening {
        let record = plain_record(n);
        Opening {
            id: record.id,
            started_at: record.started_at,
            identity: record.identity,
            route: record.route,
            provider: record.provider,
            api: record.api,
            model: record.model_requested,
            region: record.region,
            stream: record.stream,
            metering: record.metering,
            held_tokens: None,
            held_cost: None,
        }
    }

    fn taken(openings: &Openings, which: Take) -> Vec<RequestId> {
        let mut ids = Vec::new();
        openings.take(which, &mut |opening, _| ids.push(opening.id));
        ids.sort();
        ids
    }

    #[test]
    fn the_writer_takes_an_opening_when_it_passes_for_the_second_time() {
        let openings = Openings::new(8);
        let _slot = openings.put(opening(1), None);
        assert_eq!(taken(&openings, Take::Seen), []);
        let _late = openings.put(opening(2), None);
        assert_eq!(taken(&openings, Take::Seen), [opening(1).id]);
        assert!(!openings.is_empty());
        assert_eq!(taken(&openings, Take::All), [opening(2).id]);
        assert!(openings.is_empty());
    }

    #[test]
    fn one_that_somebody_waits_for_is_taken_at_once() {
        let openings = Openings::new(8);
        let (ack, _receipt) = crate::ack::pair();
        let _slot = openings.put(opening(1), Some(ack));
        assert_eq!(taken(&openings, Take::Seen), [opening(1).id]);
    }

    #[test]
    fn a_closed_opening_is_never_taken_and_an_old_slot_closes_nobody_elses() {
        let openings = Openings::new(1);
        let first = openings.put(opening(1), None);
        openings.close(first);
        let _second = openings.put(opening(2), None);
        openings.close(first);
        assert_eq!(taken(&openings, Take::All), [opening(2).id]);
        let third = openings.put(opening(3), None);
        let _shed = openings.put(opening(4), None);
        assert_eq!(openings.shed(), 1);
        openings.close(third);
        assert!(openings.is_empty());
    }
}
