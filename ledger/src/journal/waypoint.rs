//! The waypoint: a place in the open segment up to which the journal was found whole and made durable, kept in
//! a small file, so that the next opening checks the bytes before it with one checksum instead of frame by
//! frame. And the trail: where the ids of the last records begin.
//!
//! Invariants
//! - A waypoint is only a hint. Whoever uses it compares the checksum of all bytes before it; one that is
//!   missing, torn, of another journal or not that of the bytes costs a slower opening, nothing else. So it
//!   need not be synced, and a stale one is as good as a new one.
//! - It names only what is on the disk: its writer syncs the journal before.
//! - It is never beyond what the store had when it was written, so that the gap is read from it on.
//!
//! Not here: when it is written (`writer`), what a bad frame means (`journal::find`).

use super::format::{Hash, Ranges, checked, seal_with_crc};
use super::read::{Frames, ReadError};
use super::segment::{Check, Position};
use super::{Segment, View};
use crate::codec;
use crate::disk::{Disk, DiskFile};
use crate::seen::RecentIds;
use bursar_domain::{LedgerId, RequestId};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

const MAGIC: [u8; 8] = *b"BURSARW\x0a";
const VERSION: u16 = 1;
const BYTES: usize = 256;
const NAME: &str = "waypoint";
/// The journal is read in pieces of this size when its checksum is compared.
const PIECE_BYTES: usize = 256 << 10;
/// Sequences between two milestones, and how far back the first one is kept.
const STEP: u64 = 4_096;
const KEPT: u64 = 2 * RecentIds::EXACT as u64;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waypoint {
    pub(crate) ledger: LedgerId,
    /// The number of the segment.
    pub(crate) segment: u64,
    pub(crate) at: Position,
    /// What is in the segment before it.
    pub(crate) ranges: Ranges,
    /// Where the ids of the last records begin.
    pub(crate) recent: Milestone,
}

/// A place between two frames from which ids are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Milestone {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) next_sequence: u64,
    /// The greatest id in the segment before it.
    pub(crate) id_max: u128,
}

impl Milestone {
    fn is_before(&self, sequence: u64, by: u64) -> bool {
        sequence.saturating_sub(self.next_sequence) >= by
    }
}

/// Milestones of the last records.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trail(VecDeque<Milestone>);

impl Trail {
    /// Says where a frame begins.
    pub(crate) fn pass(&mut self, here: Milestone) {
        let now = here.next_sequence;
        if self.0.back().is_none_or(|last| last.is_before(now, STEP)) {
            self.0.push_back(here);
        }
        while self.0.get(1).is_some_and(|second| second.is_before(now, KEPT)) {
            self.0.pop_front();
        }
    }

    /// The earliest milestone that is kept.
    pub(crate) fn start(&self) -> Option<Milestone> {
        self.0.front().copied()
    }
}

impl Waypoint {
    fn encode(&self) -> Vec<u8> {
        let Self { ledger, segment, at, ranges, recent } = self;
        let mut out = Vec::with_capacity(BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&ledger.bits().to_be_bytes());
        out.extend_from_slice(&segment.to_le_bytes());
        out.extend_from_slice(&at.offset.to_le_bytes());
        out.extend_from_slice(&at.next_sequence.to_le_bytes());
        out.extend_from_slice(&at.hash);
        out.extend_from_slice(&at.crc.to_le_bytes());
        out.extend_from_slice(&ranges.id_min.to_le_bytes());
        out.extend_from_slice(&ranges.id_max.to_le_bytes());
        out.extend_from_slice(&ranges.started_min.to_le_bytes());
        out.extend_from_slice(&ranges.started_max.to_le_bytes());
        out.extend_from_slice(&recent.segment.to_le_bytes());
        out.extend_from_slice(&recent.offset.to_le_bytes());
        out.extend_from_slice(&recent.next_sequence.to_le_bytes());
        out.extend_from_slice(&recent.id_max.to_le_bytes());
        seal_with_crc(out, BYTES)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut take = checked(bytes, BYTES)?;
        if take.array::<8>()? != MAGIC || take.u16()? != VERSION {
            return None;
        }
        take.array::<6>()?;
        Some(Self {
            ledger: LedgerId::from_bits(u128::from_be_bytes(take.array()?)),
            segment: take.u64()?,
            at: Position {
                offset: take.u64()?,
                next_sequence: take.u64()?,
                hash: take.array::<{ size_of::<Hash>() }>()?,
                crc: take.u32()?,
            },
            ranges: Ranges {
                id_min: u128::from_le_bytes(take.array()?),
                id_max: u128::from_le_bytes(take.array()?),
                started_min: i64::from_le_bytes(take.array()?),
                started_max: i64::from_le_bytes(take.array()?),
            },
            recent: Milestone {
                segment: take.u64()?,
                offset: take.u64()?,
                next_sequence: take.u64()?,
                id_max: u128::from_le_bytes(take.array()?),
            },
        })
    }

    /// The waypoint of the journal in `dir`, if there is one that can be read.
    pub(crate) fn read(dir: &Path) -> Option<Self> {
        let mut bytes = Vec::new();
        let file = File::open(dir.join(NAME)).ok()?;
        file.take(BYTES as u64 + 1).read_to_end(&mut bytes).ok()?;
        Self::decode(&bytes)
    }

    /// Whether the bytes of the segment before the waypoint are those that were there when it was written.
    pub(crate) fn holds(&self, path: &Path) -> io::Result<bool> {
        let mut file = File::open(path)?;
        if file.metadata()?.len() < self.at.offset {
            return Ok(false);
        }
        let mut piece = vec![0_u8; PIECE_BYTES];
        let (mut left, mut crc) = (self.at.offset, 0);
        while left > 0 {
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
            let Some(part) = piece.get_mut(..len) else { return Ok(false) };
            file.read_exact(part)?;
            crc = crc32c::crc32c_append(crc, part);
            left = left.saturating_sub(len as u64);
        }
        Ok(crc == self.at.crc)
    }
}

/// The file of the waypoint while the journal is written.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    file: Option<Box<dyn DiskFile>>,
    last: Option<Waypoint>,
}

impl Keeper {
    /// Puts the waypoint in the place of the one before. Failing costs a slower opening.
    pub(crate) fn keep(&mut self, disk: &dyn Disk, dir: &Path, waypoint: Waypoint) {
        if self.last == Some(waypoint) {
            return;
        }
        self.last = None;
        if self.file.is_none() {
            self.file = disk.create(&dir.join(NAME)).ok();
        }
        let written = self.file.as_mut().map(|file| file.write_all_at(&waypoint.encode(), 0));
        if matches!(written, Some(Ok(()))) {
            self.last = Some(waypoint);
        }
    }
}

/// The ids of the last records, so that a repeat of one is known at once, and the trail to them. Begins at
/// `start` if that is far enough back, otherwise with a whole segment.
pub(crate) fn recent_ids(view: &View, start: Option<Milestone>) -> Result<(RecentIds, Trail), ReadError> {
    let (mut recent, mut trail) = (RecentIds::default(), Trail::default());
    let end = view.last_sequence().saturating_add(1);
    let start = start.filter(|start| start.is_before(end, KEPT));
    let mut chosen: VecDeque<Segment> = VecDeque::new();
    let mut ids = 0_u64;
    for segment in view.segments().rev() {
        let is_wanted = match start {
            Some(start) => segment.number >= start.segment,
            None => ids < KEPT,
        };
        if is_wanted {
            let count = segment.last_sequence.saturating_add(1).saturating_sub(segment.first_sequence);
            ids = ids.saturating_add(count);
            chosen.push_front(segment.clone());
        } else if segment.last_sequence >= segment.first_sequence {
            recent.forget_up_to(RequestId::from_bits(segment.ranges.id_max));
        }
    }
    for segment in chosen {
        let begins = start.filter(|start| start.segment == segment.number && start.fits(&segment));
        let mut at = begins.unwrap_or_else(|| Milestone::beginning(&segment));
        let mut frames = match begins {
            Some(start) => {
                recent.forget_up_to(RequestId::from_bits(start.id_max));
                start.frames(segment)?
            }
            None => Frames::new(std::iter::once(segment), Check::Checksums),
        };
        let mut payload = Vec::new();
        while let Some(head) = frames.next(&mut payload) {
            let head = head?;
            trail.pass(at);
            codec::for_each_id(&head, &payload, |listed| {
                at.id_max = at.id_max.max(listed.id.bits());
                if listed.is_usage() {
                    recent.insert(listed.id);
                }
            })
            .map_err(|source| ReadError::Undecodable { sequence: head.first_sequence, source })?;
            at.offset = at.offset.saturating_add(head.frame_bytes());
            at.next_sequence = head.last_sequence().saturating_add(1);
        }
    }
    Ok((recent, trail))
}

impl Milestone {
    /// Before the first frame.
    fn beginning(segment: &Segment) -> Self {
        Self {
            segment: segment.number,
            offset: super::format::SEGMENT_HEADER_BYTES,
            next_sequence: segment.first_sequence,
            id_max: 0,
        }
    }

    fn fits(&self, segment: &Segment) -> bool {
        (segment.first_sequence..=segment.last_sequence.saturating_add(1)).contains(&self.next_sequence)
            && self.offset <= segment.data_end
    }

    /// The frames of `segment` from here on.
    fn frames(&self, segment: Segment) -> Result<Frames, ReadError> {
        // The chain is not checked, so neither hash nor checksum of what is before matters.
        let at = Position {
            offset: self.offset,
            next_sequence: self.next_sequence,
            hash: super::format::GENESIS,
            crc: 0,
        };
        Frames::from_position(segment, at, Check::Checksums)
    }
}

#[cfg(test)]
mod tests;
