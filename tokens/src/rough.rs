//! An estimate without a vocabulary, for when there is no time to unpack or to use one.
//!
//! Calibrated on the kinds of text in `tests/kinds.rs`: within a third of the `o200k_base` count for
//! prose, code and JSON; high for what is random.
//!
//! Not here: counts (`encoding`).

use crate::classes::{Class, Classes};

/// Roughly the number of tokens of `text`, in one pass.
#[must_use]
pub fn rough(text: &str) -> u64 {
    let classes = Classes::get();
    let mut tokens = 0_u64;
    let (mut last, mut length) = (Class::Space, 0_u64);
    for c in text.chars() {
        let class = kind(classes.of(c));
        if class == last {
            length += weight(c);
        } else {
            tokens += run(last, length);
            (last, length) = (class, weight(c));
        }
    }
    tokens + run(last, length)
}

/// A run of letters is one word whatever their case; marks belong to their letters.
const fn kind(class: Class) -> Class {
    match class {
        Class::Upper | Class::Lower | Class::Mark => Class::Letter,
        class => class,
    }
}

/// Letters of scripts with many of them weigh more: fewer fit into a token.
const fn weight(c: char) -> u64 {
    match c as u32 {
        0..0x80 => 2,
        0x80..0x2000 => 4,
        0x2000..0x1_0000 => 10,
        _ => 16,
    }
}

/// The tokens of a run, whose length is twice its ASCII characters.
const fn run(class: Class, length: u64) -> u64 {
    match class {
        Class::Letter => length.div_ceil(14),
        Class::Number => length.div_ceil(6),
        Class::Newline => 1,
        // A single space belongs to what follows; longer runs are few tokens.
        Class::Space => length / 20,
        _ => length.div_ceil(5),
    }
}
