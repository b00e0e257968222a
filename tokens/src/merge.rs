//! Byte-pair merging: how many tokens a pre-token has.
//!
//! Invariants
//! - The pair of the lowest rank is merged first, the leftmost of equals; so the count is the
//!   reference implementation's.
//! - Short pieces need no memory; long ones take time n·log n.
//!
//! Not here: pre-tokens (`split`).

use crate::vocabulary::Vocabulary;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Pieces up to this length are merged on the stack.
const SHORT: usize = 48;
const NONE: u32 = u32::MAX;

/// The number of tokens of `piece`.
pub(crate) fn count(piece: &[u8], vocabulary: &Vocabulary) -> u64 {
    match piece.len() {
        0 => 0,
        1 => 1,
        _ if vocabulary.rank(piece).is_some() => 1,
        2..=SHORT => short(piece, vocabulary),
        _ => long(piece, vocabulary),
    }
}

/// Looks for the lowest pair again after every merge.
fn short(piece: &[u8], vocabulary: &Vocabulary) -> u64 {
    // Where parts begin, the end of the last one, and the rank of each part with the next.
    let mut starts = [0_u8; SHORT + 1];
    let mut ranks = [NONE; SHORT + 1];
    for ((start, rank), at) in starts.iter_mut().zip(&mut ranks).zip(0_u8..).take(piece.len() + 1) {
        *start = at;
        *rank = pair(piece, usize::from(at), usize::from(at) + 2, vocabulary);
    }
    let mut parts = piece.len();
    loop {
        let open = ranks.get(..parts.saturating_sub(1)).unwrap_or_default();
        let lowest = open.iter().enumerate().min_by_key(|(_, rank)| **rank);
        let Some((at, _)) = lowest.filter(|(_, rank)| **rank != NONE) else { return parts as u64 };
        starts.copy_within(at + 2..=parts, at + 1);
        ranks.copy_within(at + 2..=parts, at + 1);
        parts -= 1;
        let start = |part: usize| starts.get(part).copied().map_or(usize::MAX, usize::from);
        for part in [at.checked_sub(1), Some(at)].into_iter().flatten() {
            let rank =
                if part + 2 <= parts { pair(piece, start(part), start(part + 2), vocabulary) } else { NONE };
            if let Some(slot) = ranks.get_mut(part) {
                *slot = rank;
            }
        }
    }
}

fn pair(piece: &[u8], start: usize, end: usize, vocabulary: &Vocabulary) -> u32 {
    piece.get(start..end).and_then(|pair| vocabulary.rank(pair)).unwrap_or(NONE)
}

/// The parts of a long piece, as a list linked both ways.
struct Parts<'a> {
    piece: &'a [u8],
    vocabulary: &'a Vocabulary,
    next: Vec<u32>,
    previous: Vec<u32>,
    /// The rank of the part that begins here with the next one.
    ranks: Vec<u32>,
    /// Rank and place of every pair that was ever possible, lowest first.
    queue: BinaryHeap<Reverse<u64>>,
}

impl Parts<'_> {
    fn next(&self, at: u32) -> u32 {
        self.next.get(at as usize).copied().unwrap_or(NONE)
    }

    /// Ranks the part at `at` with the one after it.
    fn rank(&mut self, at: u32) {
        let end = match self.next(at) {
            NONE => NONE,
            next => self.next(next),
        };
        let rank =
            if end == NONE { NONE } else { pair(self.piece, at as usize, end as usize, self.vocabulary) };
        if let Some(slot) = self.ranks.get_mut(at as usize) {
            *slot = rank;
        }
        if rank != NONE {
            self.queue.push(Reverse((u64::from(rank) << 32) | u64::from(at)));
        }
    }

    /// Merges the part at `at` with the next one.
    fn merge(&mut self, at: u32) {
        let gone = self.next(at);
        let after = self.next(gone);
        if let Some(slot) = self.next.get_mut(at as usize) {
            *slot = after;
        }
        if let Some(slot) = self.previous.get_mut(after as usize) {
            *slot = at;
        }
        if let Some(slot) = self.ranks.get_mut(gone as usize) {
            *slot = NONE;
        }
        self.rank(at);
        let before = self.previous.get(at as usize).copied().unwrap_or(NONE);
        if before != NONE {
            self.rank(before);
        }
    }
}

fn long(piece: &[u8], vocabulary: &Vocabulary) -> u64 {
    let Ok(length) = u32::try_from(piece.len()) else {
        // Four GiB in one pre-token: no body is so large. One token per byte is the safe side.
        return piece.len() as u64;
    };
    let mut parts = Parts {
        piece,
        vocabulary,
        next: (1..=length).chain([NONE]).collect(),
        previous: std::iter::once(NONE).chain(0..length).collect(),
        ranks: vec![NONE; piece.len()],
        queue: BinaryHeap::new(),
    };
    for at in 0..length {
        parts.rank(at);
    }
    let mut count = u64::from(length);
    while let Some(Reverse(entry)) = parts.queue.pop() {
        let (rank, at) = ((entry >> 32) as u32, (entry & u64::from(NONE)) as u32);
        if parts.ranks.get(at as usize) == Some(&rank) {
            parts.merge(at);
            count -= 1;
        }
    }
    count
}
