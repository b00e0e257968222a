//! A vocabulary in memory: every token's rank, found by its bytes.
//!
//! Invariants
//! - The packed form is a length byte and the bytes of each token, in the order of ranks.
//! - Looking up costs one probe for nearly every text that is no token.
//!
//! Not here: where the data comes from (`vocabularies/README.md`), merging (`merge`).

use crate::encoding::LoadError;

/// Marks a free slot.
const FREE: u32 = u32::MAX;
/// Bits of a slot that hold the rank; the others hold a part of the hash.
const RANK_BITS: u32 = 18;

/// Ranks of tokens by their bytes.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    bytes: Vec<u8>,
    /// Where each token ends in `bytes`.
    ends: Vec<u32>,
    /// A table of open addressing, twice as large as needed.
    slots: Vec<u32>,
    longest: usize,
}

impl Vocabulary {
    /// Unpacks a vocabulary.
    pub(crate) fn unpack(compressed: &[u8]) -> Result<Self, LoadError> {
        let packed = zstd::decode_all(compressed).map_err(|_| LoadError::Damaged)?;
        let mut bytes = Vec::with_capacity(packed.len());
        let mut ends = Vec::new();
        let mut longest = 0;
        let mut rest = packed.as_slice();
        while let Some((length, after)) = rest.split_first() {
            let (token, after) = after.split_at_checked(usize::from(*length)).ok_or(LoadError::Damaged)?;
            bytes.extend_from_slice(token);
            ends.push(u32::try_from(bytes.len()).map_err(|_| LoadError::Damaged)?);
            longest = longest.max(token.len());
            rest = after;
        }
        if ends.len() >= (1 << RANK_BITS) || ends.is_empty() {
            return Err(LoadError::Damaged);
        }
        bytes.shrink_to_fit();
        let size = (ends.len() * 2).next_power_of_two();
        let mut vocabulary = Self { bytes, ends, slots: vec![FREE; size], longest };
        vocabulary.fill();
        Ok(vocabulary)
    }

    fn fill(&mut self) {
        for rank in 0..u32::try_from(self.ends.len()).unwrap_or(0) {
            let hash = hash(self.token(rank));
            let mask = self.slots.len() - 1;
            let mut at = place(hash) & mask;
            while self.slots.get(at).is_some_and(|slot| *slot != FREE) {
                at = (at + 1) & mask;
            }
            if let Some(slot) = self.slots.get_mut(at) {
                *slot = tag(hash) | rank;
            }
        }
    }

    /// How many tokens there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of the token with this rank; empty when there is none.
    pub(crate) fn token(&self, rank: u32) -> &[u8] {
        let at = rank as usize;
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(at).copied().unwrap_or(start);
        self.bytes.get(start as usize..end as usize).unwrap_or_default()
    }

    /// The rank of `bytes`, if they are a token.
    pub(crate) fn rank(&self, bytes: &[u8]) -> Option<u32> {
        if bytes.len() > self.longest {
            return None;
        }
        let hash = hash(bytes);
        let wanted = tag(hash);
        let mask = self.slots.len() - 1;
        let mut at = place(hash) & mask;
        loop {
            let slot = self.slots.get(at).copied().unwrap_or(FREE);
            if slot == FREE {
                return None;
            }
            let rank = slot & ((1 << RANK_BITS) - 1);
            if slot & !((1 << RANK_BITS) - 1) == wanted && self.token(rank) == bytes {
                return Some(rank);
            }
            at = (at + 1) & mask;
        }
    }
}

/// A multiplicative hash, eight bytes at a time; the tokens are fixed, so nobody can choose them.
fn hash(bytes: &[u8]) -> u64 {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = bytes.len() as u64;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = (state.rotate_left(23) ^ u64::from_le_bytes(*word)).wrapping_mul(MIX);
    }
    let mut last = 0_u64;
    for byte in rest {
        last = (last << 8) | u64::from(*byte);
    }
    state = (state.rotate_left(23) ^ last).wrapping_mul(MIX);
    state ^ (state >> 29)
}

const fn place(hash: u64) -> usize {
    (hash >> 20) as usize
}

/// The part of the hash that a slot keeps: never all ones, so a slot in use is never free.
const fn tag(hash: u64) -> u32 {
    let bits = ((hash & 0x3fff) as u32) << RANK_BITS;
    if bits == 0x3fff << RANK_BITS { 0 } else { bits }
}
