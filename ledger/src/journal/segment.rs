//! Reading one segment, frame by frame.
//!
//! Invariants
//! - A frame is given out only after its checksums (and, when asked, its chain hash) were right.
//! - Nothing beyond the given limit is read: a reader beside the writer sees acknowledged bytes only.
//! - The checksum over the file goes on only where the chain is checked; elsewhere it means nothing.
//!
//! Not here: what a bad frame means (`journal::find`), what a payload holds (`codec`).

use super::format::{
    FOOTER_BYTES, FRAME_HEAD_BYTES, FRAME_MAGIC, Footer, FrameHead, HASH_BYTES, Hash, HeaderError,
    SEGMENT_HEADER_BYTES, SegmentHeader, chain, is_zero,
};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Whether the chain hash of each frame is recomputed, or only its checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    Checksums,
    Chain,
}

/// A place between two frames of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// Where the next frame begins.
    pub(crate) offset: u64,
    /// The sequence that it must begin with.
    pub(crate) next_sequence: u64,
    /// The chain hash before it.
    pub(crate) hash: Hash,
    /// CRC32C of the file up to here.
    pub(crate) crc: u32,
}

impl Position {
    /// Before the first frame of the segment with this header.
    pub(crate) fn first(header: &SegmentHeader, header_bytes: &[u8]) -> Self {
        Self {
            offset: SEGMENT_HEADER_BYTES,
            next_sequence: header.first_sequence,
            hash: header.previous_hash,
            crc: crc32c::crc32c(header_bytes),
        }
    }
}

/// What stands at the reader's position.
#[derive(Debug)]
pub(crate) enum Step {
    /// A good frame; its payload is in `SegmentReader::payload`.
    Frame(FrameHead),
    /// The limit, or nothing but zeros from here to it.
    End,
    /// Neither.
    Bad(&'static str),
}

/// Why a segment could not be opened.
#[derive(Debug)]
pub(crate) enum SegmentError {
    Io(io::Error),
    Header(HeaderError),
}

/// A position in one segment.
#[derive(Debug)]
pub(crate) struct SegmentReader {
    file: BufReader<File>,
    limit: u64,
    at: Position,
    check: Check,
    payload: Vec<u8>,
}

/// Reads the header of the segment at `path`.
pub(crate) fn read_header(path: &Path) -> Result<SegmentHeader, SegmentError> {
    let mut bytes = Vec::new();
    let mut file = File::open(path).map_err(SegmentError::Io)?;
    file.by_ref().take(SEGMENT_HEADER_BYTES).read_to_end(&mut bytes).map_err(SegmentError::Io)?;
    SegmentHeader::decode(&bytes).map_err(SegmentError::Header)
}

/// Reads the footer of the segment at `path`, if it has a good one.
pub(crate) fn read_footer(path: &Path) -> io::Result<Option<Footer>> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let Some(at) = len.checked_sub(FOOTER_BYTES) else { return Ok(None) };
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Footer::decode(&bytes).filter(|footer| footer.data_end == at))
}

impl SegmentReader {
    /// Opens the segment at `path` at its first frame; reads up to `limit` (the file's length when
    /// `None`).
    pub(crate) fn open(path: &Path, limit: Option<u64>, check: Check) -> Result<Self, SegmentError> {
        let file = File::open(path).map_err(SegmentError::Io)?;
        let len = file.metadata().map_err(SegmentError::Io)?.len();
        let mut file = BufReader::with_capacity(READ_BUFFER_BYTES, file);
        let mut bytes = Vec::new();
        file.by_ref().take(SEGMENT_HEADER_BYTES).read_to_end(&mut bytes).map_err(SegmentError::Io)?;
        let header = SegmentHeader::decode(&bytes).map_err(SegmentError::Header)?;
        let at = Position::first(&header, &bytes);
        Ok(Self { file, limit: limit.unwrap_or(len), at, check, payload: Vec::new() })
    }

    /// Opens the segment at `path` at a place that is known to lie between two frames.
    pub(crate) fn open_at(path: &Path, limit: Option<u64>, check: Check, at: Position) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(at.offset))?;
        let file = BufReader::with_capacity(READ_BUFFER_BYTES, file);
        Ok(Self { file, limit: limit.unwrap_or(len), at, check, payload: Vec::new() })
    }

    /// Where the reader is.
    pub(crate) fn position(&self) -> Position {
        self.at
    }

    /// Where the next frame begins.
    pub(crate) fn offset(&self) -> u64 {
        self.at.offset
    }

    /// The sequence that the next frame must begin with.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.at.next_sequence
    }

    /// The chain hash before the next frame.
    pub(crate) fn hash(&self) -> &Hash {
        &self.at.hash
    }

    /// The payload of the frame that `step` gave last.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Takes the payload of the last frame, leaving `spare` to be filled by the next one.
    pub(crate) fn swap_payload(&mut self, spare: &mut Vec<u8>) {
        std::mem::swap(&mut self.payload, spare);
    }

    /// Reads the next frame.
    pub(crate) fn step(&mut self) -> io::Result<Step> {
        let left = self.limit.saturating_sub(self.at.offset);
        if left < FRAME_HEAD_BYTES {
            let zero = self.is_zero_for(left)?;
            return Ok(if zero { Step::End } else { Step::Bad("the frame head is cut off") });
        }
        let mut head_bytes = [0_u8; FRAME_HEAD_BYTES as usize];
        self.file.read_exact(&mut head_bytes)?;
        let Some(head) = FrameHead::decode(&head_bytes) else {
            let zero = is_zero(&head_bytes) && self.is_zero_for(left.saturating_sub(FRAME_HEAD_BYTES))?;
            return Ok(if zero { Step::End } else { Step::Bad("the frame head's checksum does not match") });
        };
        if head.first_sequence != self.at.next_sequence {
            return Ok(Step::Bad("the frame does not follow in sequence"));
        }
        if head.frame_bytes() > left {
            return Ok(Step::Bad("the frame is cut off"));
        }
        let mut hash = [0_u8; HASH_BYTES as usize];
        self.payload.clear();
        self.file.by_ref().take(u64::from(head.payload_bytes)).read_to_end(&mut self.payload)?;
        self.file.read_exact(&mut hash)?;
        if crc32c::crc32c(&self.payload) != head.payload_crc {
            return Ok(Step::Bad("the frame's checksum does not match"));
        }
        if self.check == Check::Chain {
            if chain(&self.at.hash, &head_bytes, &self.payload) != hash {
                return Ok(Step::Bad("the frame's chain hash does not match"));
            }
            let parts = [head_bytes.as_slice(), &self.payload, &hash];
            self.at.crc = parts.into_iter().fold(self.at.crc, crc32c::crc32c_append);
        }
        self.at.hash = hash;
        self.at.offset = self.at.offset.saturating_add(head.frame_bytes());
        self.at.next_sequence = head.last_sequence().saturating_add(1);
        Ok(Step::Frame(head))
    }

    /// Whether the next `bytes` bytes are zeros.
    fn is_zero_for(&mut self, bytes: u64) -> io::Result<bool> {
        let mut buffer = [0_u8; 4096];
        let mut rest = self.file.by_ref().take(bytes);
        loop {
            let read = rest.read(&mut buffer)?;
            match buffer.get(..read) {
                None | Some([]) => return Ok(true),
                Some(bytes) if is_zero(bytes) => {}
                Some(_) => return Ok(false),
            }
        }
    }
}

/// The heads of all whole frames after `from` in the file whose checksums are right and that begin at
/// `sequence` or later: what a bad frame is judged by.
pub(crate) fn frames_after(path: &Path, from: u64, sequence: u64) -> io::Result<Vec<FrameHead>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut found = Vec::new();
    let mut rest: &[u8] = bytes.get(1..).unwrap_or_default();
    while let Some(at) = rest.windows(FRAME_MAGIC.len()).position(|w| w == FRAME_MAGIC) {
        rest = rest.get(at..).unwrap_or_default();
        let good = whole_frame(rest).filter(|head| head.first_sequence >= sequence);
        let skip = good.map_or(1, |head| usize::try_from(head.frame_bytes()).unwrap_or(1));
        found.extend(good);
        rest = rest.get(skip..).unwrap_or_default();
    }
    Ok(found)
}

fn whole_frame(bytes: &[u8]) -> Option<FrameHead> {
    let (head, rest) = bytes.split_at_checked(FRAME_HEAD_BYTES as usize)?;
    let head = FrameHead::decode(head)?;
    let payload = rest.get(..usize::try_from(head.payload_bytes).ok()?)?;
    (crc32c::crc32c(payload) == head.payload_crc).then_some(head)
}
