//! A table of byte strings, each stored once and known by its number, from 1.
//!
//! Invariants
//! - Equal strings have equal numbers; numbers are given in order of appearance.
//! - Clearing keeps the memory for the next frame.
//!
//! Not here: what the strings mean (`codec`).

use std::sync::Arc;

const SLOTS_MIN: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Interner {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    /// Open addressing: numbers, 0 is free. The length is a power of two.
    slots: Vec<u32>,
    /// Texts that many records share, by address: nothing needs hashing to know them again. Holding
    /// them keeps another text from getting their address.
    shared: [Option<(Arc<str>, u32)>; SHARED],
}

/// Places for shared texts.
const SHARED: usize = 32;

impl Interner {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.slots.fill(0);
        self.shared.fill(None);
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len().saturating_add(self.ends.len())
    }

    pub(super) fn get(&self, number: u32) -> Option<&[u8]> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.bytes.get(start as usize..end as usize)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (1..=self.ends.len()).filter_map(|number| self.get(u32::try_from(number).ok()?))
    }

    pub(super) fn number_of_shared(&mut self, text: &Arc<str>) -> u32 {
        let address = Arc::as_ptr(text).addr();
        let place = (address >> 4 ^ address >> 9) % SHARED;
        if let Some(Some((known, number))) = self.shared.get(place)
            && Arc::ptr_eq(known, text)
        {
            return *number;
        }
        let number = self.number_of(text.as_bytes());
        if let Some(slot) = self.shared.get_mut(place) {
            *slot = Some((Arc::clone(text), number));
        }
        number
    }

    pub(super) fn number_of(&mut self, text: &[u8]) -> u32 {
        if self.slots.len() < self.ends.len().saturating_mul(2).saturating_add(SLOTS_MIN) {
            self.grow();
        }
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = hash(text) & mask;
        loop {
            match self.slots.get(at).copied() {
                Some(0) | None => break,
                Some(number) if self.get(number) == Some(text) => return number,
                Some(_) => at = at.wrapping_add(1) & mask,
            }
        }
        self.bytes.extend_from_slice(text);
        self.ends.push(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
        let number = u32::try_from(self.ends.len()).unwrap_or(u32::MAX);
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = number;
        }
        number
    }

    fn grow(&mut self) {
        let len = self.slots.len().saturating_mul(2).max(SLOTS_MIN * 2);
        let mut slots = vec![0_u32; len];
        let mask = len.wrapping_sub(1);
        for number in 1..=u32::try_from(self.ends.len()).unwrap_or(u32::MAX) {
            let mut at = self.get(number).map_or(0, hash) & mask;
            while slots.get(at).is_some_and(|slot| *slot != 0) {
                at = at.wrapping_add(1) & mask;
            }
            if let Some(slot) = slots.get_mut(at) {
                *slot = number;
            }
        }
        self.slots = slots;
    }
}

/// A quick hash; the table lives for one frame, so nobody can grow it far.
fn hash(text: &[u8]) -> usize {
    const K: u64 = 0x517c_c1b7_2722_0a95;
    let mut state = text.len() as u64;
    let (words, tail) = text.as_chunks::<8>();
    for word in words {
        state = (state.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(K);
    }
    for byte in tail {
        state = (state.rotate_left(5) ^ u64::from(*byte)).wrapping_mul(K);
    }
    (state ^ (state >> 32)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_a_number_and_numbers_name_their_text() {
        let mut table = Interner::default();
        for round in 0..2 {
            for n in 0..1_000_u32 {
                assert_eq!(table.number_of(format!("text {n}").as_bytes()), n + 1, "round {round}");
            }
        }
        assert_eq!(table.get(1), Some(&b"text 0"[..]));
        assert_eq!(table.get(1_000), Some(&b"text 999"[..]));
        assert_eq!((table.get(0), table.get(1_001), table.len()), (None, None, 1_000));
        table.clear();
        assert_eq!((table.number_of(b""), table.get(1)), (1, Some(&b""[..])));
    }

    #[test]
    fn shared_texts_have_the_numbers_of_equal_texts() {
        let mut table = Interner::default();
        let texts: Vec<Arc<str>> = (0..200).map(|n| Arc::from(format!("text {}", n % 50))).collect();
        for _ in 0..3 {
            for (n, text) in texts.iter().enumerate() {
                assert_eq!(table.number_of_shared(text) as usize, n % 50 + 1);
            }
        }
        assert_eq!((table.number_of(b"text 7"), table.len()), (8, 50));
        table.clear();
        assert_eq!(texts.get(9).map(|text| table.number_of_shared(text)), Some(1));
    }
}
