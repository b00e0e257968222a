//! Marks: what a frame remembers besides its records, for batches. They stand in a table of their own
//! behind the identities, in payloads of version 2; a frame without one is of version 1.
//!
//! ```text
//! marks: count, then each: kind (u8), key (length, bytes), identity (its number; 0 without one)
//! ```
//!
//! Invariants
//! - A mark is in the frame of the record that caused it, so both are durable or neither.
//! - What was encoded is decoded to equal marks.
//!
//! Not here: what the keys are made of (`batch`).

use super::wire::{WireContext, sink};
use super::{DecodeError, EncodeError};
use bursar_domain::Identity;
use std::sync::Arc;

const COUNTED: u8 = 1;
const OWNER: u8 = 2;

/// Something to remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The result with this key was counted.
    Counted(Box<[u8]>),
    /// What has this key belongs to this identity.
    Owner(Box<[u8]>, Arc<Identity>),
}

/// The marks of a frame while it is gathered.
#[derive(Debug, Default)]
pub(super) struct Marks {
    bytes: Vec<u8>,
    count: usize,
}

impl Marks {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a mark whose identity, if it has one, has this number in the frame.
    pub(super) fn add(&mut self, mark: &Mark, identity: u32) -> Result<(), EncodeError> {
        let (kind, key) = match mark {
            Mark::Counted(key) => (COUNTED, key),
            Mark::Owner(key, _) => (OWNER, key),
        };
        postcard::to_extend(&(kind, &**key, identity), sink(&mut self.bytes)).map_err(|_| EncodeError)?;
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// Appends the table to `out`.
    pub(super) fn finish(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        postcard::to_extend(&self.count, sink(out)).map_err(|_| EncodeError)?;
        out.extend_from_slice(&self.bytes);
        Ok(())
    }
}

/// Reads the table.
pub(super) fn read(bytes: &[u8], context: &WireContext) -> Result<Vec<Mark>, DecodeError> {
    let short = |_| DecodeError::Malformed("the table of marks is too short");
    let (count, mut rest): (usize, _) = postcard::take_from_bytes(bytes).map_err(short)?;
    let mut marks = Vec::with_capacity(count.min(rest.len()));
    for _ in 0..count {
        let ((kind, key, identity), after): ((u8, &[u8], u32), _) =
            postcard::take_from_bytes(rest).map_err(short)?;
        marks.push(match kind {
            COUNTED => Mark::Counted(key.into()),
            OWNER => Mark::Owner(key.into(), context.identity(identity)?),
            other => return Err(DecodeError::UnknownNumber { what: "mark", number: u64::from(other) }),
        });
        rest = after;
    }
    if rest.is_empty() { Ok(marks) } else { Err(DecodeError::Malformed("bytes follow the frame's marks")) }
}
