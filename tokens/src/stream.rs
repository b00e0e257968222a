//! Counting text that comes in pieces, to the same figure as the whole.
//!
//! Invariants
//! - Held are the text since the last place where it may be cut, at most [`TAIL_BYTES_MAX`], and the
//!   bytes of one incomplete character.
//! - Counting happens about once in a KiB, so a small piece costs a copy.
//! - A tail that grows to its limit (one word or one run of spaces of 64 KiB) is counted where it is,
//!   and the figure says that it is not exact any more.
//!
//! Not here: where the pieces come from.

use crate::encoding::Tokenizer;
use crate::split::last_cut;
use std::str;

/// Most bytes of text that are held.
pub const TAIL_BYTES_MAX: usize = 64 * 1024;

/// So many new bytes are gathered before any are counted.
const SETTLE_BYTES: usize = 1024;

/// A figure, and whether it is the count of the text or off by a few tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Tokens.
    pub tokens: u64,
    /// Whether the figure is what counting the whole text gives.
    pub exact: bool,
}

/// Counts one text as it comes.
#[derive(Clone, Debug)]
pub struct StreamCounter {
    tokenizer: &'static Tokenizer,
    tail: String,
    /// The first bytes of a character that is not complete.
    partial: Vec<u8>,
    /// No cut lies before this byte of the tail.
    searched: usize,
    /// The tail is looked at when it is this long.
    settle_at: usize,
    tail_max: usize,
    counted: u64,
    exact: bool,
}

impl StreamCounter {
    /// A counter for one text.
    #[must_use]
    pub fn new(tokenizer: &'static Tokenizer) -> Self {
        Self::with_tail(tokenizer, TAIL_BYTES_MAX)
    }

    /// A counter that holds up to `tail_max` bytes of text that cannot be cut.
    #[must_use]
    pub fn with_tail(tokenizer: &'static Tokenizer, tail_max: usize) -> Self {
        Self {
            tokenizer,
            tail: String::new(),
            partial: Vec::new(),
            searched: 0,
            settle_at: SETTLE_BYTES,
            tail_max,
            counted: 0,
            exact: true,
        }
    }

    /// Takes the next piece of the text.
    pub fn push(&mut self, text: &str) {
        if !self.partial.is_empty() && !text.is_empty() {
            self.partial.clear();
            self.take("\u{fffd}");
        }
        self.take(text);
    }

    /// Takes the next bytes of the text, cut anywhere. What is no UTF-8 counts as the replacement
    /// character, as a provider sees it.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        let joined;
        let mut rest = if self.partial.is_empty() {
            bytes
        } else {
            joined = [self.partial.as_slice(), bytes].concat();
            self.partial.clear();
            joined.as_slice()
        };
        loop {
            let error = match str::from_utf8(rest) {
                Ok(text) => return self.take(text),
                Err(error) => error,
            };
            let (valid, after) = rest.split_at_checked(error.valid_up_to()).unwrap_or_default();
            self.take(str::from_utf8(valid).unwrap_or_default());
            let Some(length) = error.error_len() else {
                self.partial.extend_from_slice(after);
                return;
            };
            self.take("\u{fffd}");
            rest = after.get(length..).unwrap_or_default();
        }
    }

    fn take(&mut self, mut text: &str) {
        // In steps, so that one large piece is held no longer than many small ones.
        while self.tail.len() + text.len() > self.settle_at {
            let room = self.settle_at.saturating_sub(self.tail.len()).max(4);
            let (now, later) = text.split_at_checked(text.floor_char_boundary(room)).unwrap_or((text, ""));
            self.tail.push_str(now);
            text = later;
            self.settle();
        }
        self.tail.push_str(text);
    }

    fn settle(&mut self) {
        match last_cut(&self.tail, self.searched) {
            Some(cut) => {
                self.counted += self.tokenizer.count(self.tail.get(..cut).unwrap_or_default());
                self.tail.drain(..cut);
                // What is left has no cut.
                self.searched = self.tail.len();
            }
            None if self.tail.len() >= self.tail_max => {
                self.counted += self.tokenizer.count(&self.tail);
                self.tail.clear();
                self.searched = 0;
                self.exact = false;
            }
            None => self.searched = self.tail.len(),
        }
        self.settle_at = (self.tail.len() + SETTLE_BYTES).min(self.tail_max.max(self.tail.len() + 4));
    }

    /// The count if the text ended here.
    #[must_use]
    pub fn so_far(&self) -> Counted {
        let open = u64::from(!self.partial.is_empty());
        let open = if open == 0 {
            self.tokenizer.count(&self.tail)
        } else {
            self.tokenizer.count(&[self.tail.as_str(), "\u{fffd}"].concat())
        };
        Counted { tokens: self.counted + open, exact: self.exact }
    }
}
