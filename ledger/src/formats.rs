//! The versions of what a ledger is on disk.
//!
//! Invariants
//! - A program reads every version up to these and refuses newer ones; it never guesses.
//!
//! Not here: what the versions mean (`journal::format`, `codec`, `store`).

use crate::{codec, journal::format, store};

/// Versions of the parts of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats {
    /// Layout of a segment of the journal; another one is refused.
    pub segment: u16,
    /// Newest content of a frame of the journal that is read and written; a newer one is refused.
    pub payload: u16,
    /// Rows of the derived database; any other version is built anew from the journal.
    pub store: u16,
}

/// What this program reads and writes.
pub const FORMATS: Formats =
    Formats { segment: format::FORMAT_VERSION, payload: codec::PAYLOAD_VERSION_MAX, store: store::SCHEMA };
