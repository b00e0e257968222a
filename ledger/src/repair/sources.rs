//! What is whole in the files of a damaged journal: frames and rolls, in the order of their sequences.
//!
//! Invariants
//! - A frame is found wherever it lies: a damaged header, a hole or a cut before it does not hide it.
//! - A frame is given out only if its checksums are right and all of its records can be read.
//! - Memory: some fifty bytes for each frame, and one file at a time while they are looked for.
//!
//! Not here: what becomes of them (`repair`).

use super::{Break, RepairError, io_error};
use crate::codec::{self, DecodeError, FrameDecoder};
use crate::journal::find::{self, FindError};
use crate::journal::format::{
    FOOTER_BYTES, FRAME_HEAD_BYTES, FRAME_MAGIC, Footer, FrameHead, HASH_BYTES, Hash, HeaderError, Ranges,
    SEGMENT_HEADER_BYTES, SegmentHeader, chain, is_zero,
};
use crate::journal::roll::{Contents, ROLL_HEADER_BYTES, RollHeader, Salvaged, salvage};
use crate::store::Store;
use bursar_domain::{LedgerId, Timestamp};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Something that is whole, or for a roll what is whole of it.
pub(super) enum Piece {
    Frame { head: FrameHead, payload: Vec<u8> },
    Roll { header: Option<Box<RollHeader>>, contents: Box<Contents>, is_damaged: bool },
}

/// Where a whole frame lies.
#[derive(Clone, Copy, Debug)]
struct At {
    head: FrameHead,
    /// Which of the files.
    file: usize,
    offset: u64,
}

/// The files of a damaged journal.
pub(super) struct Sources {
    /// Rolls that are still to be given, last first.
    rolls: Vec<(u64, PathBuf)>,
    files: Vec<(u64, PathBuf)>,
    /// Whole frames that are still to be given, last first.
    frames: Vec<At>,
    open: Option<(usize, File)>,
    /// The chain hash after the frame that was given last, and its last sequence.
    link: Option<(u64, Hash)>,
    pub(super) ledger: Option<LedgerId>,
    /// The last sequence that anything tells of.
    pub(super) last_told: u64,
    pub(super) breaks: Vec<Break>,
}

impl Sources {
    /// Looks through all files in `dir`.
    pub(super) fn list(dir: &Path) -> Result<Self, RepairError> {
        let list = |extension| {
            find::list(dir, extension).map_err(|error| match error {
                FindError::Io { path, source } => io_error("read", &path, source),
                other => io_error("read", dir, std::io::Error::other(other.to_string())),
            })
        };
        let (files, mut rolls) = (list("seg")?, list("roll")?);
        // What an interrupted pruning left: the segment says more.
        rolls.retain(|(number, _)| files.binary_search_by_key(number, |(number, _)| *number).is_err());
        rolls.reverse();
        let (frames, open, link, ledger) = (Vec::new(), None, None, None);
        let mut found = Self { rolls, files, frames, open, link, ledger, last_told: 0, breaks: Vec::new() };
        found.note_missing();
        for file in 0..found.files.len() {
            found.look_through(file)?;
        }
        // The same frame may lie in two files: it was written again after a failed write.
        found.frames.sort_by_key(|at| std::cmp::Reverse((at.head.first_sequence, at.file)));
        Ok(found)
    }

    fn note_missing(&mut self) {
        let rolls = self.rolls.iter().map(|(number, _)| *number);
        let mut numbers: Vec<u64> = rolls.chain(self.files.iter().map(|(number, _)| *number)).collect();
        numbers.sort_unstable();
        let mut next = 1;
        for number in numbers {
            if number > next {
                self.broken(next, 0, None, "the segment is missing");
            }
            next = number.saturating_add(1);
        }
    }

    fn broken(&mut self, segment: u64, offset: u64, sequence: Option<u64>, what: &str) {
        self.breaks.push(Break { segment, offset, sequence, what: what.to_owned() });
    }

    fn look_through(&mut self, file: usize) -> Result<(), RepairError> {
        let Some((number, path)) = self.files.get(file).cloned() else { return Ok(()) };
        let bytes = std::fs::read(&path).map_err(|e| io_error("read", &path, e))?;
        match SegmentHeader::decode(bytes.get(..SEGMENT_HEADER_BYTES as usize).unwrap_or(&bytes)) {
            Ok(header) => {
                self.ledger.get_or_insert(header.ledger);
                self.last_told = self.last_told.max(header.first_sequence.saturating_sub(1));
            }
            Err(HeaderError::Newer(_)) => return Err(RepairError::Newer { path }),
            Err(HeaderError::Damaged) => self.broken(number, 0, None, "the segment header is damaged"),
        }
        let footer = bytes.len().checked_sub(FOOTER_BYTES as usize).and_then(|at| bytes.get(at..));
        let footer = footer.and_then(Footer::decode);
        let end = match &footer {
            Some(footer) => {
                self.last_told = self.last_told.max(footer.last_sequence);
                bytes.len().saturating_sub(FOOTER_BYTES as usize)
            }
            None => bytes.len(),
        };
        let mut at = (SEGMENT_HEADER_BYTES as usize).min(end);
        let mut is_bad = false;
        while at < end {
            let rest = bytes.get(at..end).unwrap_or_default();
            if let Some(head) = self.whole_frame(rest, &path)? {
                self.frames.push(At { head, file, offset: at as u64 });
                at = at.saturating_add(usize::try_from(head.frame_bytes()).unwrap_or(usize::MAX));
                is_bad = false;
                continue;
            }
            if !is_bad && is_zero(rest) {
                break;
            }
            if !is_bad {
                self.broken(number, at as u64, None, "there is no whole frame");
                is_bad = true;
            }
            let next = rest.get(1..).unwrap_or_default();
            let magic = next.windows(FRAME_MAGIC.len()).position(|window| window == FRAME_MAGIC);
            let Some(skip) = magic else { break };
            at = at.saturating_add(1).saturating_add(skip);
        }
        Ok(())
    }

    /// The head of the frame at the front of `bytes`, if all of it is whole.
    fn whole_frame(&mut self, bytes: &[u8], path: &Path) -> Result<Option<FrameHead>, RepairError> {
        let Some((head, rest)) = bytes.split_at_checked(FRAME_HEAD_BYTES as usize) else { return Ok(None) };
        let Some(head) = FrameHead::decode(head) else { return Ok(None) };
        // The head is right: that many records were there.
        self.last_told = self.last_told.max(head.last_sequence()).max(head.synced_sequence);
        let length = usize::try_from(head.payload_bytes).unwrap_or(usize::MAX);
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let hash_end = length.saturating_add(HASH_BYTES as usize);
        if rest.len() < hash_end || crc32c::crc32c(payload) != head.payload_crc {
            return Ok(None);
        }
        match readable(&head, payload) {
            Ok(()) => Ok(Some(head)),
            Err(DecodeError::Malformed(_)) => Ok(None),
            Err(_) => Err(RepairError::Newer { path: path.to_owned() }),
        }
    }

    /// The next piece, in the order of sequences.
    pub(super) fn next_piece(&mut self) -> Result<Option<Piece>, RepairError> {
        if let Some((number, path)) = self.rolls.pop() {
            let bytes = std::fs::read(&path).map_err(|e| io_error("read", &path, e))?;
            let head = bytes.get(..ROLL_HEADER_BYTES).unwrap_or(&bytes);
            if let Err(HeaderError::Newer(_)) = RollHeader::decode(head) {
                return Err(RepairError::Newer { path });
            }
            let Salvaged { header, contents, is_damaged } = salvage(&bytes);
            if is_damaged {
                let sequence = header.as_ref().map(|header| header.first_sequence);
                self.broken(number, 0, sequence, "the roll that stands for it is damaged");
            }
            if let Some(header) = &header {
                self.ledger.get_or_insert(header.ledger);
                self.last_told = self.last_told.max(header.last_sequence);
                self.link = Some((header.last_sequence, header.hash));
            }
            let (header, contents) = (header.map(Box::new), Box::new(contents));
            return Ok(Some(Piece::Roll { header, contents, is_damaged }));
        }
        let Some(at) = self.frames.pop() else { return Ok(None) };
        self.read(at).map(Some)
    }

    fn read(&mut self, at: At) -> Result<Piece, RepairError> {
        let Some((number, path)) = self.files.get(at.file).cloned() else {
            return Err(io_error("read", Path::new(""), std::io::ErrorKind::NotFound.into()));
        };
        let wrong = |source| io_error("read", &path, source);
        if self.open.as_ref().is_none_or(|(file, _)| *file != at.file) {
            self.open = Some((at.file, File::open(&path).map_err(wrong)?));
        }
        let mut bytes = vec![0; usize::try_from(at.head.frame_bytes()).unwrap_or(0)];
        if let Some((_, file)) = &mut self.open {
            file.seek(SeekFrom::Start(at.offset)).map_err(wrong)?;
            file.read_exact(&mut bytes).map_err(wrong)?;
        }
        let hash_at = bytes.len().saturating_sub(HASH_BYTES as usize);
        let hash: Hash =
            bytes.get(hash_at..).and_then(|hash| hash.first_chunk()).copied().unwrap_or_default();
        bytes.truncate(hash_at);
        let payload = bytes.split_off((FRAME_HEAD_BYTES as usize).min(bytes.len()));
        let first = at.head.first_sequence;
        let before = self.link.or((first == 1).then_some((0, crate::journal::format::GENESIS)));
        if let Some((last, previous)) = before
            && last.saturating_add(1) == first
            && chain(&previous, &bytes, &payload) != hash
        {
            self.broken(number, at.offset, Some(first), "the frame's chain hash does not match");
        }
        if self.link.is_none_or(|(last, _)| at.head.last_sequence() > last) {
            self.link = Some((at.head.last_sequence(), hash));
        }
        Ok(Piece::Frame { head: at.head, payload })
    }
}

/// Whether everything in a frame can be read.
fn readable(head: &FrameHead, payload: &[u8]) -> Result<(), DecodeError> {
    codec::facts(head, payload)?;
    codec::for_each_id(head, payload, |_| {})?;
    let mut decoder = FrameDecoder::new(head, payload.to_vec())?;
    while let Some(fact) = decoder.next_fact() {
        fact?;
    }
    Ok(())
}

/// When the first record of a frame began.
pub(super) fn began(head: &FrameHead, payload: &[u8]) -> Option<Timestamp> {
    let mut began = None;
    let _ = codec::for_each_id(head, payload, |listed| {
        began.get_or_insert(listed.started);
    });
    began
}

/// The last sequence that the embedded database knew of, which is looked at in a copy.
pub(super) fn known_to_store(dir: &Path, partial: &Path, ledger: Option<LedgerId>) -> u64 {
    let (Some(ledger), copy) = (ledger, partial.join("store-looked-at")) else { return 0 };
    let known = copy_files(&dir.join("store"), &copy).ok().and_then(|()| Store::open(&copy, ledger).ok());
    let last = known.map_or(0, |store| {
        let (last, _) = store.watermark();
        store.discard();
        last
    });
    let _ = std::fs::remove_dir_all(&copy);
    last
}

fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    crate::disk::create_private_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_files(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The ranges of a roll, or what its contents tell of them.
pub(super) fn ranges_of(header: Option<&RollHeader>, contents: &Contents) -> Ranges {
    if let Some(header) = header {
        return header.ranges;
    }
    let mut ranges = Ranges::EMPTY;
    for (key, _) in &contents.rollups {
        if let Some(hour) = crate::rollup::Hour::from_key(key) {
            let start = hour.start().micros();
            ranges.add(0, start);
            ranges.add(u128::MAX, start.saturating_add(crate::rollup::HOUR_MICROS).saturating_sub(1));
        }
    }
    ranges
}
