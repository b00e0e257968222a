//! The classes of characters that decide where text is cut into pre-tokens.
//!
//! Invariants
//! - Every character is in exactly one class; letters, numbers, marks and white space are disjoint
//!   in Unicode.
//! - The tables are those of the `regex` crates, which the reference implementation uses.
//!
//! Not here: the rules (`split`).

use regex_syntax::hir::{Class as HirClass, HirKind};
use std::sync::OnceLock;

/// What a character is to the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// `Lu`, `Lt`: letters that can only begin a word.
    Upper,
    /// `Ll`: letters that can only continue one.
    Lower,
    /// `Lm`, `Lo`: letters that can do both.
    Letter,
    /// `M`: marks on other characters.
    Mark,
    /// `N`: digits and other numbers.
    Number,
    /// Carriage return and line feed.
    Newline,
    /// White space other than those.
    Space,
    /// Everything else: punctuation, symbols, controls, unassigned.
    Other,
}

impl Class {
    pub(crate) const fn is_letter(self) -> bool {
        matches!(self, Self::Upper | Self::Lower | Self::Letter)
    }

    pub(crate) const fn is_white(self) -> bool {
        matches!(self, Self::Newline | Self::Space)
    }
}

const BLOCK: usize = 256;
const BLOCKS: usize = 0x11_0000 / BLOCK;

/// The class of every character: blocks of 256, equal ones shared.
#[derive(Debug)]
pub(crate) struct Classes {
    ascii: [Class; 128],
    block_of: Vec<u16>,
    blocks: Vec<[Class; BLOCK]>,
}

static CLASSES: OnceLock<Classes> = OnceLock::new();

impl Classes {
    /// The table; made at the first use, in about a millisecond.
    pub(crate) fn get() -> &'static Self {
        CLASSES.get_or_init(Self::build)
    }

    fn build() -> Self {
        let mut all = vec![Class::Other; BLOCKS * BLOCK];
        for (pattern, class) in [
            (r"[\p{Lu}\p{Lt}]", Class::Upper),
            (r"\p{Ll}", Class::Lower),
            (r"[\p{Lm}\p{Lo}]", Class::Letter),
            (r"\p{M}", Class::Mark),
            (r"\p{N}", Class::Number),
            (r"\s", Class::Space),
            (r"[\r\n]", Class::Newline),
        ] {
            for (first, last) in ranges(pattern) {
                if let Some(part) = all.get_mut(first as usize..=last as usize) {
                    part.fill(class);
                }
            }
        }
        let mut classes =
            Self { ascii: [Class::Other; 128], block_of: Vec::with_capacity(BLOCKS), blocks: Vec::new() };
        for (slot, class) in classes.ascii.iter_mut().zip(&all) {
            *slot = *class;
        }
        for block in all.as_chunks::<BLOCK>().0 {
            let known = classes.blocks.iter().position(|known| known == block);
            let index = known.unwrap_or_else(|| {
                classes.blocks.push(*block);
                classes.blocks.len() - 1
            });
            classes.block_of.push(u16::try_from(index).unwrap_or(0));
        }
        classes
    }

    /// The class of an ASCII byte; `None` for a part of a longer character.
    pub(crate) fn of_ascii(&self, byte: u8) -> Option<Class> {
        self.ascii.get(usize::from(byte)).copied()
    }

    /// The class of `c`.
    pub(crate) fn of(&self, c: char) -> Class {
        let code = c as usize;
        let block = self.block_of.get(code / BLOCK).and_then(|block| self.blocks.get(usize::from(*block)));
        block.and_then(|block| block.get(code % BLOCK)).copied().unwrap_or(Class::Other)
    }
}

/// The characters of a class in the syntax of regular expressions.
fn ranges(pattern: &str) -> Vec<(u32, u32)> {
    let Ok(parsed) = regex_syntax::Parser::new().parse(pattern) else { return Vec::new() };
    match parsed.kind() {
        HirKind::Class(HirClass::Unicode(class)) => {
            class.ranges().iter().map(|range| (range.start() as u32, range.end() as u32)).collect()
        }
        HirKind::Class(HirClass::Bytes(class)) => {
            class.ranges().iter().map(|range| (u32::from(range.start()), u32::from(range.end()))).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_in_their_class() {
        let classes = Classes::get();
        for (c, class) in [
            ('A', Class::Upper),
            ('ǅ', Class::Upper),
            ('z', Class::Lower),
            ('ſ', Class::Lower),
            ('中', Class::Letter),
            ('ʰ', Class::Letter),
            ('\u{301}', Class::Mark),
            ('7', Class::Number),
            ('²', Class::Number),
            ('Ⅷ', Class::Number),
            ('\n', Class::Newline),
            ('\r', Class::Newline),
            ('\t', Class::Space),
            ('\u{a0}', Class::Space),
            ('\u{3000}', Class::Space),
            ('\u{200b}', Class::Other),
            ('!', Class::Other),
            ('😀', Class::Other),
            ('\u{10ffff}', Class::Other),
        ] {
            assert_eq!(classes.of(c), class, "{c:?}");
            if c.is_ascii() {
                assert_eq!(classes.of_ascii(c as u8), Some(class), "{c:?}");
            }
        }
    }
}
