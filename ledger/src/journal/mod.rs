//! The journal: an append-only, checksummed, hash-chained row of segments. It is the truth; all else
//! is derived from it.
//!
//! Invariants
//! - Sequences start at 1 and have no gaps, within and across segments.
//! - A frame is acknowledged only after `write` succeeded and, if durability was asked for, after
//!   `fdatasync` did too.
//! - A file on which a write or sync failed is never written again. After a failed *write*, and after
//!   a sync that failed because the disk is full, the same frame goes into a new segment, whose header
//!   says where the old one's good part ends. Any other failed sync latches: nothing is acknowledged
//!   until a restart (promise P5).
//! - Space ahead is filled with zeros in pieces, so `fdatasync` rarely has metadata to write; a rest
//!   of zeros is the normal end. That filling is best effort: it can fail without harm.
//! - A frame that would take more than the ledger's room fails before a byte of it is written.
//! - Of the oldest segments only rolls may be left (`roll`); the chain goes through them.
//! - How far the open segment was found whole is kept beside it (`waypoint`), as a hint.
//!
//! Not here: groups, queue and acknowledgements (`writer`), payloads (`codec`).

pub(crate) mod find;
pub(crate) mod format;
pub(crate) mod read;
pub(crate) mod roll;
pub(crate) mod segment;
pub(crate) mod waypoint;

use crate::disk::{Disk, DiskFile, is_full};
use crate::room::{Purse, Room};
use bursar_domain::{LedgerId, Timestamp};
use format::{
    FOOTER_BYTES, FRAME_HEAD_BYTES, Footer, FrameHead, Hash, Ranges, SEGMENT_HEADER_BYTES, SegmentHeader,
    chain,
};
use segment::Position;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use waypoint::{Milestone, Trail, Waypoint};

/// Zeros are written ahead in pieces of this size.
const FILL_BYTES: u64 = 4 << 20;
/// Smallest segment that may be configured.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 4 << 10;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A place in the journal that is not what was written there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("journal segment {segment:08}.seg is damaged at byte {offset}: {what}; affected: {}", affected(.first_sequence, .last_sequence))]
pub struct Damage {
    /// Number of the segment.
    pub segment: u64,
    /// Byte offset in it.
    pub offset: u64,
    /// The first sequence that cannot be read.
    pub first_sequence: u64,
    /// The last sequence that cannot be read, when that is known.
    pub last_sequence: Option<u64>,
    /// What is wrong.
    pub what: String,
}

fn affected(first: &u64, last: &Option<u64>) -> String {
    match last {
        Some(last) => format!("sequences {first} to {last}"),
        None => format!("sequences from {first} on"),
    }
}

/// A segment as the running program knows it.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) path: Arc<Path>,
    pub(crate) first_sequence: u64,
    /// `first_sequence - 1` when there is none.
    pub(crate) last_sequence: u64,
    pub(crate) data_end: u64,
    pub(crate) ranges: Ranges,
    /// The chain hash after the last frame.
    pub(crate) hash: Hash,
    /// When the segment was made: all before it was written by then.
    pub(crate) made_at: Timestamp,
}

/// The journal at one moment: everything up to the last acknowledged frame.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) ledger: LedgerId,
    /// Segments of which only hourly totals are left, oldest first.
    pub(crate) rolled: Arc<Vec<roll::Rolled>>,
    pub(crate) sealed: Arc<Vec<Segment>>,
    pub(crate) current: Segment,
}

impl View {
    /// All segments that have their records, oldest first.
    pub(crate) fn segments(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        self.sealed.iter().chain(std::iter::once(&self.current))
    }

    /// The last sequence; 0 when there is none.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.current.last_sequence
    }

    /// The chain hash after the last frame.
    pub(crate) fn hash(&self) -> Hash {
        self.current.hash
    }

    /// Bytes of headers, frames and footers; zeros ahead are not counted.
    pub(crate) fn bytes(&self) -> u64 {
        let rolls = self.rolled.iter().fold(0_u64, |sum, roll| sum.saturating_add(roll.header.file_bytes()));
        self.segments().fold(rolls, |sum, segment| sum.saturating_add(segment.data_end))
    }
}

/// A failed operation on the journal's files.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}", path.display())]
pub(crate) struct JournalError {
    pub(crate) operation: &'static str,
    pub(crate) path: PathBuf,
    /// Whether nothing may be acknowledged any more until a restart.
    pub(crate) latches: bool,
    #[source]
    pub(crate) source: io::Error,
}

impl JournalError {
    fn write(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self { operation, path: path.to_owned(), latches: false, source }
    }

    /// A failed sync: what the kernel held may be gone, and asking again would falsely succeed.
    fn sync(path: &Path, source: io::Error) -> Self {
        let latches = !is_full(&source);
        Self { operation: "make durable", path: path.to_owned(), latches, source }
    }
}

/// A frame ready for the disk.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    bytes: Vec<u8>,
    head: Option<FrameHead>,
    ranges: Option<Ranges>,
    hash: Hash,
}

impl Frame {
    /// Empties the frame and gives the buffer into which the payload goes.
    pub(crate) fn begin(&mut self) -> &mut Vec<u8> {
        self.bytes.clear();
        self.bytes.resize(FRAME_HEAD_BYTES as usize, 0);
        self.head = None;
        &mut self.bytes
    }

    fn finish(&mut self, first_sequence: u64, synced_sequence: u64, previous: &Hash, about: &Payload) {
        let Some((head_bytes, payload)) = self.bytes.split_at_mut_checked(FRAME_HEAD_BYTES as usize) else {
            return;
        };
        let head = FrameHead {
            payload_bytes: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            first_sequence,
            count: about.count,
            payload_version: about.version,
            synced_sequence,
            payload_crc: crc32c::crc32c(payload),
        };
        head_bytes.copy_from_slice(&head.encode());
        self.hash = chain(previous, head_bytes, payload);
        self.bytes.extend_from_slice(&self.hash);
        self.head = Some(head);
        self.ranges = Some(about.ranges);
    }
}

/// What the journal must know about a payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payload {
    pub(crate) count: u32,
    pub(crate) version: u16,
    pub(crate) ranges: Ranges,
}

/// Whether a frame is acknowledged once written or once on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    Written,
    Durable,
}

/// The writing end of the journal.
#[derive(Debug)]
pub(crate) struct Journal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    ledger: LedgerId,
    rolled: Arc<Vec<roll::Rolled>>,
    sealed: Arc<Vec<Segment>>,
    current: Segment,
    file: Box<dyn DiskFile>,
    /// Up to here the file has blocks (zeros or frames).
    filled: u64,
    /// A write or sync on the file failed: its bytes after `data_end` mean nothing.
    doubtful: bool,
    synced_sequence: u64,
    /// A segment that is older gets no further frame, in microseconds.
    age_max: Option<u64>,
    /// CRC32C of the current segment up to its `data_end`.
    crc: u32,
    trail: Trail,
    waypoints: waypoint::Keeper,
    /// What the directory may take; none: all that there is.
    room: Option<Arc<Room>>,
    purse: Purse,
}

/// Where and how a journal is kept.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) segment_bytes: u64,
}

impl Journal {
    /// Begins a new, empty journal.
    pub(crate) fn create(place: Place, ledger: LedgerId, now: Timestamp) -> Result<Self, JournalError> {
        let header = SegmentHeader {
            ledger,
            number: 1,
            first_sequence: 1,
            previous_hash: format::GENESIS,
            made_at: now,
        };
        let made = create_segment(&place, &header, FILL_BYTES)?;
        Ok(Self::assemble(place, ledger, (Vec::new(), Vec::new()), made))
    }

    /// Begins a new journal whose first segments have rolls already.
    pub(crate) fn create_after(
        place: Place,
        ledger: LedgerId,
        rolled: Vec<roll::Rolled>,
        now: Timestamp,
    ) -> Result<Self, JournalError> {
        let Some(last) = rolled.last() else { return Self::create(place, ledger, now) };
        let header = SegmentHeader {
            ledger,
            number: last.header.number.saturating_add(1),
            first_sequence: last.header.last_sequence.saturating_add(1),
            previous_hash: last.header.hash,
            made_at: now,
        };
        let made = create_segment(&place, &header, FILL_BYTES)?;
        Ok(Self::assemble(place, ledger, (rolled, Vec::new()), made))
    }

    /// Continues the journal that `find` found, cutting a torn tail.
    pub(crate) fn resume(place: Place, found: &find::Found, now: Timestamp) -> Result<Self, JournalError> {
        let mut segments = found.segments.clone();
        let Some(last) = segments.pop() else {
            return Self::create(place, found.ledger, now);
        };
        if found.last_is_sealed {
            let header = SegmentHeader {
                ledger: found.ledger,
                number: last.number.saturating_add(1),
                first_sequence: last.last_sequence.saturating_add(1),
                previous_hash: last.hash,
                made_at: now,
            };
            let made = create_segment(&place, &header, FILL_BYTES)?;
            segments.push(last);
            let earlier = (found.rolled.clone(), segments);
            return Ok(Self::assemble(place, found.ledger, earlier, made));
        }
        let mut file = place.disk.open(&last.path).map_err(|e| JournalError::write("open", &last.path, e))?;
        if found.tail.is_some() {
            file.set_len(last.data_end).map_err(|e| JournalError::write("cut", &last.path, e))?;
        }
        // What an earlier run wrote without syncing must not be built upon unsynced.
        file.sync_data().map_err(|e| JournalError::sync(&last.path, e))?;
        let filled = file.len().map_err(|e| JournalError::write("measure", &last.path, e))?;
        let made = Made { segment: last, file, filled, crc: found.end.crc };
        Ok(Self::assemble(place, found.ledger, (found.rolled.clone(), segments), made))
    }

    fn assemble(
        place: Place,
        ledger: LedgerId,
        (rolled, sealed): (Vec<roll::Rolled>, Vec<Segment>),
        made: Made,
    ) -> Self {
        let Made { segment: current, file, filled, crc } = made;
        let synced_sequence = current.last_sequence;
        Self {
            disk: place.disk,
            dir: place.dir,
            segment_bytes: place.segment_bytes.max(SEGMENT_BYTES_MIN),
            ledger,
            rolled: Arc::new(rolled),
            sealed: Arc::new(sealed),
            current,
            file,
            filled,
            doubtful: false,
            synced_sequence,
            age_max: None,
            crc,
            trail: Trail::default(),
            waypoints: waypoint::Keeper::default(),
            room: None,
            purse: Purse::Ordinary,
        }
    }

    /// Where the ids of the last records are.
    pub(crate) fn follow(&mut self, trail: Trail) {
        self.trail = trail;
    }

    /// The end of the journal as a waypoint; `None` while not all of it is on the disk.
    pub(crate) fn waypoint(&self) -> Option<Waypoint> {
        if self.doubtful || self.synced_sequence != self.current.last_sequence {
            return None;
        }
        let Segment { number, last_sequence, data_end, ranges, hash, .. } = self.current;
        let next_sequence = last_sequence.saturating_add(1);
        Some(Waypoint {
            ledger: self.ledger,
            segment: number,
            at: Position { offset: data_end, next_sequence, hash, crc: self.crc },
            ranges,
            recent: self.trail.start().unwrap_or_else(|| self.here()),
        })
    }

    /// Keeps a waypoint for the next opening.
    pub(crate) fn keep(&mut self, waypoint: Waypoint) {
        self.waypoints.keep(self.disk.as_ref(), &self.dir, waypoint);
    }

    fn here(&self) -> Milestone {
        Milestone {
            segment: self.current.number,
            offset: self.current.data_end,
            next_sequence: self.current.last_sequence.saturating_add(1),
            id_max: self.current.ranges.id_max,
        }
    }

    /// A segment that is older than this gets no further frame.
    pub(crate) fn limit_age(&mut self, micros: u64) {
        self.age_max = Some(micros);
    }

    /// Writes no more than there is room for.
    pub(crate) fn keep_within(&mut self, room: Arc<Room>) {
        self.room = Some(room);
    }

    /// What the next frames may be written from.
    pub(crate) fn spend(&mut self, purse: Purse) {
        self.purse = purse;
    }

    /// The journal as readers may see it.
    pub(crate) fn view(&self) -> View {
        View {
            ledger: self.ledger,
            rolled: self.rolled.clone(),
            sealed: self.sealed.clone(),
            current: self.current.clone(),
        }
    }

    /// The last acknowledged sequence.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.current.last_sequence
    }

    /// The chain hash after the last acknowledged frame.
    pub(crate) fn hash(&self) -> Hash {
        self.current.hash
    }

    /// The last sequence known to be on the disk.
    pub(crate) fn synced_sequence(&self) -> u64 {
        self.synced_sequence
    }

    /// Closes the frame over its payload: it gets the next sequence and its place in the chain.
    pub(crate) fn finish(&self, frame: &mut Frame, about: &Payload) {
        let first = self.current.last_sequence.saturating_add(1);
        frame.finish(first, self.synced_sequence, &self.current.hash, about);
    }

    /// Writes a finished frame. Until this succeeds the frame does not exist; it may be tried again
    /// unless the error latches.
    pub(crate) fn commit(
        &mut self,
        frame: &Frame,
        promise: Promise,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        let (Some(head), Some(ranges)) = (frame.head, frame.ranges) else { return Ok(()) };
        let bytes = head.frame_bytes();
        let is_over = !self.doubtful && self.needs_new_segment(bytes, now);
        let end = self.current.data_end.saturating_add(bytes);
        let more = if self.doubtful || is_over {
            // The zeros ahead are given back before anything is written.
            let zeros = self.filled.saturating_sub(self.current.data_end);
            bytes.saturating_add(SEGMENT_HEADER_BYTES).saturating_add(FOOTER_BYTES).saturating_sub(zeros)
        } else {
            end.saturating_sub(self.filled)
        };
        self.check_room(more)?;
        if self.doubtful {
            self.abandon(now)?;
        } else if is_over {
            self.seal()?;
            self.roll(now)?;
        }
        let end = self.current.data_end.saturating_add(bytes);
        self.fill(end);
        let at = self.current.data_end;
        if let Err(source) = self.file.write_all_at(&frame.bytes, at) {
            self.doubtful = true;
            return Err(JournalError::write("write", &self.current.path, source));
        }
        if promise == Promise::Durable {
            self.sync_file()?;
            self.synced_sequence = head.last_sequence();
        }
        self.trail.pass(self.here());
        self.crc = crc32c::crc32c_append(self.crc, &frame.bytes);
        self.current.data_end = end;
        self.current.last_sequence = head.last_sequence();
        self.current.hash = frame.hash;
        self.current.ranges.extend(&ranges);
        Ok(())
    }

    /// Makes everything written durable. A failure here latches always: what it lost was acknowledged
    /// as written and is no longer in memory.
    pub(crate) fn sync(&mut self) -> Result<(), JournalError> {
        if self.synced_sequence == self.current.last_sequence {
            return Ok(());
        }
        self.sync_file().map_err(|error| JournalError { latches: true, ..error })?;
        self.synced_sequence = self.current.last_sequence;
        Ok(())
    }

    fn sync_file(&mut self) -> Result<(), JournalError> {
        self.file.sync_data().map_err(|source| {
            self.doubtful = true;
            JournalError::sync(&self.current.path, source)
        })
    }

    fn needs_new_segment(&self, frame_bytes: u64, now: Timestamp) -> bool {
        let has_frames = self.current.data_end > SEGMENT_HEADER_BYTES;
        if has_frames && self.age_max.is_some_and(|most| now.micros_since(self.current.made_at) > most) {
            return true;
        }
        let end = self.current.data_end.saturating_add(frame_bytes).saturating_add(FOOTER_BYTES);
        has_frames && end > self.segment_bytes
    }

    fn check_room(&self, bytes: u64) -> Result<(), JournalError> {
        let checked = self.room.as_ref().map_or(Ok(()), |room| room.check(bytes, self.purse));
        checked.map_err(|source| JournalError::write("write", &self.current.path, source))
    }

    /// How many zeros may be written ahead. The reserve is not for them.
    fn fill_bytes(&self) -> u64 {
        let left = self.room.as_ref().map_or(u64::MAX, |room| room.left(Purse::Ordinary));
        left.min(FILL_BYTES)
    }

    fn note_length(&self, before: u64, after: u64) {
        if let Some(room) = &self.room {
            room.changed(before, after);
        }
    }

    /// Writes zeros after `end`, a piece at a time. Failing costs speed, nothing else.
    fn fill(&mut self, end: u64) {
        if end <= self.filled {
            return;
        }
        let piece = self.filled.saturating_add(self.fill_bytes()).min(self.segment_bytes);
        let before = self.filled;
        self.filled = write_zeros(self.file.as_mut(), end, piece.max(end));
        self.note_length(before, self.filled);
    }

    /// Ends the current segment with a footer and gives back the zeros behind it.
    fn seal(&mut self) -> Result<(), JournalError> {
        let footer = Footer {
            data_end: self.current.data_end,
            first_sequence: self.current.first_sequence,
            last_sequence: self.current.last_sequence,
            ranges: self.current.ranges,
            hash: self.current.hash,
        };
        let at = self.current.data_end;
        // Without a footer the segment is read once at each open; nothing else is lost.
        if self.file.write_all_at(&footer.encode(), at).is_ok() {
            let len = at.saturating_add(FOOTER_BYTES);
            if self.file.set_len(len).is_ok() {
                self.note_length(self.filled, len);
                self.filled = len;
            }
        }
        let unsynced = self.synced_sequence != self.current.last_sequence;
        self.sync_file().map_err(|error| JournalError { latches: error.latches || unsynced, ..error })?;
        self.synced_sequence = self.current.last_sequence;
        Ok(())
    }

    /// Leaves a doubtful file at its last good frame. Cutting is best effort: the next header says
    /// where the good part ends.
    fn abandon(&mut self, now: Timestamp) -> Result<(), JournalError> {
        self.sync()?;
        if self.file.set_len(self.current.data_end).is_ok() {
            self.note_length(self.filled, self.current.data_end);
            self.filled = self.current.data_end;
        }
        self.roll(now)
    }

    /// The oldest sealed segments have rolls now. Those that do not follow are left out.
    pub(crate) fn give_up(&mut self, rolls: Vec<roll::Rolled>) {
        for roll in rolls {
            let is_next =
                |segment: &Segment| (segment.number, segment.hash) == (roll.header.number, roll.header.hash);
            if self.sealed.first().is_some_and(is_next) {
                Arc::make_mut(&mut self.sealed).remove(0);
                Arc::make_mut(&mut self.rolled).push(roll);
            }
        }
    }

    /// Goes on in a new segment.
    fn roll(&mut self, now: Timestamp) -> Result<(), JournalError> {
        self.doubtful = true;
        let header = SegmentHeader {
            ledger: self.ledger,
            number: self.current.number.saturating_add(1),
            first_sequence: self.current.last_sequence.saturating_add(1),
            previous_hash: self.current.hash,
            made_at: now,
        };
        let place =
            Place { disk: self.disk.clone(), dir: self.dir.clone(), segment_bytes: self.segment_bytes };
        let Made { segment, file, filled, crc } = create_segment(&place, &header, self.fill_bytes())?;
        self.note_length(0, filled);
        Arc::make_mut(&mut self.sealed).push(std::mem::replace(&mut self.current, segment));
        self.file = file;
        self.filled = filled;
        self.crc = crc;
        self.doubtful = false;
        Ok(())
    }
}

/// The name of a segment's file.
pub(crate) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.seg"))
}

/// A segment that can be written.
struct Made {
    segment: Segment,
    file: Box<dyn DiskFile>,
    filled: u64,
    /// CRC32C up to its `data_end`.
    crc: u32,
}

/// Makes a segment under a temporary name and renames it, so that a segment always has a whole
/// header; as many zeros are `ahead`.
fn create_segment(place: &Place, header: &SegmentHeader, ahead: u64) -> Result<Made, JournalError> {
    let path = segment_path(&place.dir, header.number);
    let new = path.with_extension("new");
    let mut file = place.disk.create(&new).map_err(|e| JournalError::write("make", &new, e))?;
    let bytes = header.encode();
    file.write_all_at(&bytes, 0).map_err(|e| JournalError::write("write", &new, e))?;
    let filled = write_zeros(file.as_mut(), SEGMENT_HEADER_BYTES, place.segment_bytes.min(ahead));
    file.sync_data().map_err(|e| JournalError::sync(&new, e))?;
    place.disk.rename(&new, &path).map_err(|e| JournalError::write("rename", &new, e))?;
    place.disk.sync_dir(&place.dir).map_err(|e| JournalError::sync(&place.dir, e))?;
    let segment = Segment {
        number: header.number,
        path: Arc::from(path),
        first_sequence: header.first_sequence,
        last_sequence: header.first_sequence.saturating_sub(1),
        data_end: SEGMENT_HEADER_BYTES,
        ranges: Ranges::EMPTY,
        hash: header.previous_hash,
        made_at: header.made_at,
    };
    Ok(Made { segment, file, filled, crc: crc32c::crc32c(&bytes) })
}

/// Writes zeros from `from` to `to`; returns how far it came.
fn write_zeros(file: &mut dyn DiskFile, from: u64, to: u64) -> u64 {
    let mut at = from;
    while at < to {
        let len = usize::try_from(to.saturating_sub(at)).unwrap_or(usize::MAX).min(ZEROS.len());
        let piece = ZEROS.get(..len).unwrap_or(&ZEROS);
        if file.write_all_at(piece, at).is_err() {
            return at;
        }
        at = at.saturating_add(piece.len() as u64);
    }
    at
}

#[cfg(test)]
mod tests;
