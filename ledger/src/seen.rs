//! Which request ids were recorded lately: the first answer to "is this a repeat?".
//!
//! Invariants
//! - `Yes` and `No` are exact; `Unsure` asks the journal.
//! - Memory is bounded: at most 2 × 16,384 ids exactly (about 1.2 MiB), and 16 × 16,384 more in Bloom
//!   filters (0.5 MiB, one false *unsure* in some two hundred). Both grow only as ids come.
//! - Ids have time locality (UUIDv7): an id above everything that was forgotten is new.
//!
//! Not here: reading the journal (`journal::read::find_ids`).

use bursar_domain::RequestId;
use foldhash::fast::RandomState;
use std::collections::{HashSet, VecDeque};

const GENERATION: usize = 16_384;
const FILTERS_MAX: usize = 16;
const FILTER_WORDS: usize = GENERATION * 16 / 64;
const FILTER_PROBES: u64 = 8;

/// Whether an id was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Yes,
    No,
    Unsure,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct RecentIds {
    young: HashSet<RequestId, RandomState>,
    old: HashSet<RequestId, RandomState>,
    filters: VecDeque<Filter>,
    /// The greatest id that nothing here remembers.
    forgotten: Option<RequestId>,
}

impl RecentIds {
    /// How many ids are remembered exactly, at least, once that many came.
    pub(crate) const EXACT: usize = GENERATION;

    /// States that ids up to `id` exist that were never inserted.
    pub(crate) fn forget_up_to(&mut self, id: RequestId) {
        self.forgotten = self.forgotten.max(Some(id));
    }

    pub(crate) fn insert(&mut self, id: RequestId) {
        if self.young.len() >= GENERATION {
            self.age();
        }
        self.young.insert(id);
    }

    pub(crate) fn check(&self, id: RequestId) -> Seen {
        if self.young.contains(&id) || self.old.contains(&id) {
            return Seen::Yes;
        }
        let forgotten = self.forgotten.is_some_and(|forgotten| id <= forgotten);
        if forgotten || self.filters.iter().any(|filter| filter.may_contain(id)) {
            return Seen::Unsure;
        }
        Seen::No
    }

    fn age(&mut self) {
        let out = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        if out.is_empty() {
            return;
        }
        if self.filters.len() >= FILTERS_MAX
            && let Some(filter) = self.filters.pop_front()
        {
            self.forget_up_to(filter.greatest);
        }
        self.filters.extend(Filter::new(&out));
    }
}

/// A Bloom filter over one generation of ids.
#[derive(Debug)]
struct Filter {
    words: Vec<u64>,
    greatest: RequestId,
}

impl Filter {
    fn new(ids: &HashSet<RequestId, RandomState>) -> Option<Self> {
        let greatest = *ids.iter().max()?;
        let mut filter = Self { words: vec![0; FILTER_WORDS], greatest };
        for id in ids {
            for (word, bit) in probes(*id) {
                if let Some(slot) = filter.words.get_mut(word) {
                    *slot |= bit;
                }
            }
        }
        Some(filter)
    }

    fn may_contain(&self, id: RequestId) -> bool {
        id <= self.greatest
            && probes(id).all(|(word, bit)| self.words.get(word).is_some_and(|slot| slot & bit != 0))
    }
}

/// Word and bit of each probe of an id (double hashing).
fn probes(id: RequestId) -> impl Iterator<Item = (usize, u64)> {
    let first = mix(id.bits() as u64);
    let step = mix((id.bits() >> 64) as u64 ^ first) | 1;
    (0..FILTER_PROBES).map(move |n| {
        let hash = first.wrapping_add(step.wrapping_mul(n));
        ((hash >> 6) as usize % FILTER_WORDS, 1_u64 << (hash & 63))
    })
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> RequestId {
        RequestId::from_bits((n << 64) | n.wrapping_mul(0x9E37_79B9_7F4A_7C15) & u128::from(u64::MAX))
    }

    #[test]
    fn no_id_that_came_is_ever_called_new() {
        let mut ids = RecentIds::default();
        let all = (GENERATION * (FILTERS_MAX + 4)) as u128;
        for n in 0..all {
            ids.insert(id(n));
        }
        for n in (0..all).step_by(101) {
            assert_ne!(ids.check(id(n)), Seen::No, "{n}");
        }
        assert_eq!(ids.check(id(all - 1)), Seen::Yes);
        assert_eq!(ids.check(id(0)), Seen::Unsure);
        assert_eq!(ids.check(id(all)), Seen::No);
        assert_eq!(ids.filters.len(), FILTERS_MAX);
    }

    #[test]
    fn a_late_id_among_remembered_ones_is_mostly_known_to_be_new() {
        let mut ids = RecentIds::default();
        let all = (GENERATION * 8) as u128;
        for n in 0..all {
            ids.insert(id(n * 2));
        }
        let unsure = (0..10_000).filter(|n| ids.check(id(n * 100 + 1)) == Seen::Unsure).count();
        assert!(unsure < 200, "{unsure}");
    }

    #[test]
    fn below_what_was_forgotten_only_the_journal_knows() {
        let mut ids = RecentIds::default();
        ids.forget_up_to(id(50));
        assert_eq!(ids.check(id(50)), Seen::Unsure);
        assert_eq!(ids.check(id(51)), Seen::No);
    }
}
