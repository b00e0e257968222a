//! What the events of a stream have in common, so that the same bytes are not walked over again.
//!
//! Invariants
//! - What is skipped had no effect that it could have a second time: the shape says so, and the bytes
//!   are compared.
//! - Held bytes are bounded.
//!
//! Not here: walking (`json`), what the values mean (`openai`, `anthropic`).

use super::json::{Checkpoint, Passed, Scanner, text_ends_at};

/// Longest beginning, or longest event but for its text, that is remembered.
const BYTES_MAX: usize = 1024;

/// How the last event began: id, model and so on.
#[derive(Debug, Default)]
pub(super) struct Prefix {
    bytes: Vec<u8>,
    checkpoint: Option<Checkpoint>,
}

impl Prefix {
    /// Where to take `event` up, if it begins like the last one.
    pub(super) fn of(&self, event: &[u8]) -> Option<&Checkpoint> {
        self.checkpoint.as_ref().filter(|_| event.starts_with(&self.bytes))
    }

    /// Remembers how `event` begins.
    pub(super) fn learn(&mut self, event: &[u8], checkpoint: Option<Checkpoint>) {
        self.bytes.clear();
        self.checkpoint = checkpoint.filter(|at| at.length() <= BYTES_MAX);
        if let Some(checkpoint) = &self.checkpoint {
            self.bytes.extend_from_slice(event.get(..checkpoint.length()).unwrap_or_default());
        }
    }
}

/// An event whose one text alone differs from event to event.
#[derive(Debug, Default)]
pub(super) struct Frame {
    /// What stands before the text, then what stands behind it.
    around: Vec<u8>,
    before: usize,
    id: u8,
}

impl Frame {
    /// The text of `event`, and what the shape calls it, if all else is as it was.
    pub(super) fn of<'a>(&self, event: &'a [u8]) -> Option<(u8, &'a [u8])> {
        let (before, behind) = self.around.split_at_checked(self.before)?;
        if before.is_empty() {
            return None;
        }
        let text = event.strip_prefix(before)?.strip_suffix(behind)?;
        // The text must end where what stands behind it begins.
        let ends = text_ends_at(event, self.before)?;
        (ends == self.before + text.len()).then_some((self.id, text))
    }

    /// Remembers `event`, which `scanner` has walked over; `is_text_alone` as the shape says.
    pub(super) fn learn(&mut self, event: &[u8], scanner: &Scanner, is_text_alone: bool) {
        self.around.clear();
        self.before = 0;
        if !is_text_alone || !scanner.is_complete() {
            return;
        }
        let Some(Passed { id, from, until }) = scanner.only_text() else { return };
        let (Some(before), Some(behind)) = (event.get(..from), event.get(until..)) else { return };
        if before.len().saturating_add(behind.len()) <= BYTES_MAX {
            self.around.extend_from_slice(before);
            self.around.extend_from_slice(behind);
            (self.id, self.before) = (id, from);
        }
    }
}
