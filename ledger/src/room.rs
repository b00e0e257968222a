//! How many bytes the ledger's directory takes, and how many it may take.
//!
//! Counted is every file below the directory: the journal with the zeros ahead of it, rolls, the embedded
//! database and what else lies there. Between two looks the journal adds what it writes, so that a write costs
//! an addition; the rest is found at the next look.
//!
//! Invariants
//! - Whoever writes records stops [`reserve`] bytes below the bound. What is below that is for who ends what
//!   was begun (exchanges that were interrupted) and for who gives room back (the checkpoints of rolls).
//! - Records that wait when the ledger is closed are written past the bound: they would be lost otherwise.
//! - One look at most in a failed write, and one with each flush of the embedded database: none with a record.
//! - 80 % and 95 % are told of once each time that they are passed.
//!
//! Not here: what happens when nothing is left (`writer`), what may be removed (`retention`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// Shares of the bound, in percent, that the log tells of.
const WARN_PERCENT: [u8; 2] = [80, 95];
/// So far below such a share it must fall to be told of again, in percent of the bound.
const WARN_AGAIN_PERCENT: u8 = 2;
/// The reserve is this part of the bound.
const RESERVE_PART: u64 = 25;
const RESERVE_BYTES_MAX: u64 = 32 << 20;
const UNBOUNDED: u64 = u64::MAX;

/// What may be written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Purse {
    /// All but the reserve.
    #[default]
    Ordinary,
    /// All.
    Reserve,
    /// Whatever the disk has: what waits when the process ends has a bound of its own, that of the queue.
    Last,
}

/// The bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the ledger's directory takes {bytes} of the {bytes_max} bytes that ledger.bytes_max allows (a reserve is \
     kept): raise it, or give room back with ledger.retention.detail or `bursar ledger prune`"
)]
pub(crate) struct Full {
    bytes: u64,
    bytes_max: u64,
}

/// The bytes of one ledger's directory.
#[derive(Debug)]
pub(crate) struct Room {
    dir: PathBuf,
    bytes: AtomicU64,
    bytes_max: AtomicU64,
    /// The highest share that was told of.
    warned_percent: AtomicU8,
    /// How many are about to give room back and need a little for it.
    relieving: AtomicUsize,
}

/// While it lives, the reserve may be used.
#[derive(Debug)]
pub(crate) struct Relief<'a>(&'a Room);

impl Room {
    /// The room of the ledger in `dir`, as it is now.
    pub(crate) fn new(dir: &Path, bytes_max: Option<u64>) -> Self {
        let room = Self {
            dir: dir.to_owned(),
            bytes: AtomicU64::new(0),
            bytes_max: AtomicU64::new(bytes_max.unwrap_or(UNBOUNDED)),
            warned_percent: AtomicU8::new(0),
            relieving: AtomicUsize::new(0),
        };
        room.measure();
        room
    }

    /// Another bound from now on.
    pub(crate) fn limit(&self, bytes_max: Option<u64>) {
        self.bytes_max.store(bytes_max.unwrap_or(UNBOUNDED), Ordering::Relaxed);
        self.warn();
    }

    /// Bytes that count.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The bound, if there is one.
    pub(crate) fn bytes_max(&self) -> Option<u64> {
        Some(self.bytes_max.load(Ordering::Relaxed)).filter(|most| *most != UNBOUNDED)
    }

    /// Looks at all files. Called by the writer's thread, which adds what it writes.
    pub(crate) fn measure(&self) {
        if let Ok(bytes) = bytes_below(&self.dir) {
            self.bytes.store(bytes, Ordering::Relaxed);
        }
        self.warn();
    }

    /// A file grew by what it has now beyond what it had, or shrank.
    pub(crate) fn changed(&self, before: u64, after: u64) {
        if after >= before {
            self.bytes.fetch_add(after.saturating_sub(before), Ordering::Relaxed);
        } else {
            let less = before.saturating_sub(after);
            // The closure always has an answer.
            let _ = self
                .bytes
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bytes| Some(bytes.saturating_sub(less)));
        }
        self.warn();
    }

    /// Bytes that may still be written.
    pub(crate) fn left(&self, purse: Purse) -> u64 {
        let Some(bytes_max) = self.bytes_max() else { return UNBOUNDED };
        let kept = match purse {
            Purse::Ordinary => reserve(bytes_max),
            Purse::Reserve => 0,
            Purse::Last => return UNBOUNDED,
        };
        bytes_max.saturating_sub(kept).saturating_sub(self.bytes())
    }

    /// Whether `bytes` more may be written; looks at the files before it says no.
    pub(crate) fn check(&self, bytes: u64, purse: Purse) -> Result<(), io::Error> {
        if bytes <= self.left(purse) {
            return Ok(());
        }
        self.measure();
        if bytes <= self.left(purse) {
            return Ok(());
        }
        let full = Full { bytes: self.bytes(), bytes_max: self.bytes_max().unwrap_or(UNBOUNDED) };
        Err(io::Error::new(io::ErrorKind::StorageFull, full))
    }

    /// Opens the reserve to whoever gives room back.
    pub(crate) fn relieve(&self) -> Relief<'_> {
        self.relieving.fetch_add(1, Ordering::AcqRel);
        Relief(self)
    }

    /// Whether somebody is about to give room back.
    pub(crate) fn is_relieved(&self) -> bool {
        self.relieving.load(Ordering::Acquire) > 0
    }

    /// Tells of a share that was passed.
    fn warn(&self) {
        let Some(bytes_max) = self.bytes_max() else {
            self.warned_percent.store(0, Ordering::Relaxed);
            return;
        };
        let bytes = self.bytes();
        let is_at = |percent: u8| {
            u128::from(bytes).saturating_mul(100) >= u128::from(bytes_max).saturating_mul(u128::from(percent))
        };
        let warned = self.warned_percent.load(Ordering::Relaxed);
        let passed = WARN_PERCENT.into_iter().filter(|percent| is_at(*percent)).max().unwrap_or(0);
        if passed > warned {
            tracing::warn!(
                bytes,
                bytes_max,
                "the ledger takes {passed} % of ledger.bytes_max: at the bound records wait, then ledger.fail decides"
            );
            self.warned_percent.store(passed, Ordering::Relaxed);
        } else if passed < warned && !is_at(warned.saturating_sub(WARN_AGAIN_PERCENT)) {
            self.warned_percent.store(passed, Ordering::Relaxed);
        }
    }
}

impl Drop for Relief<'_> {
    fn drop(&mut self) {
        self.0.relieving.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What is kept of a bound for who ends what was begun.
fn reserve(bytes_max: u64) -> u64 {
    (bytes_max / RESERVE_PART).min(RESERVE_BYTES_MAX)
}

/// The lengths of all files below `dir`. A file that goes meanwhile is not there.
fn bytes_below(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0_u64;
    for entry in std::fs::read_dir(dir)? {
        let Ok(entry) = entry else { continue };
        let Ok(about) = entry.metadata() else { continue };
        let more = if about.is_dir() { bytes_below(&entry.path()).unwrap_or(0) } else { about.len() };
        bytes = bytes.saturating_add(more);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
