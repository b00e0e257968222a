//! Finding a journal on disk: which segments there are, where each one ends, and whether the end is
//! clean, torn or damaged.
//!
//! Invariants
//! - Nothing is changed here; cutting a torn tail is `Journal::resume`'s work.
//! - A bad frame is *torn* only in the last segment and only when no later frame vouches that it had
//!   been made durable. Everything else is damage and is named by segment, offset and sequences.
//! - A sealed segment is taken at its footer's word; `verify` and replays read its frames.
//! - The last segment is read frame by frame, but for what is before a waypoint whose checksum is that of the
//!   bytes there.
//!
//! Not here: writing (`journal`), reading records (`journal::read`).

use super::format::{HeaderError, Ranges, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::roll::{Rolled, read_roll_header};
use super::segment::{
    Check, Position, SegmentError, SegmentReader, Step, frames_after, read_footer, read_header,
};
use super::waypoint::Waypoint;
use super::{Damage, Segment};
use crate::codec::{self, DecodeError};
use bursar_domain::LedgerId;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The end of a journal that was cut because its last frame was not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// Number of the segment.
    pub segment: u64,
    /// Where the torn frame began.
    pub offset: u64,
    /// Bytes that were cut, without the zeros behind them.
    pub bytes: u64,
    /// The first sequence that is gone.
    pub first_sequence: u64,
    /// Records known to be gone; `None` when even their number is unreadable.
    pub records: Option<u64>,
    /// What was wrong with the frame.
    pub what: String,
}

/// A journal as it lies on disk.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) ledger: LedgerId,
    /// Segments of which only rolls are left, oldest first.
    pub(crate) rolled: Vec<Rolled>,
    /// Files whose place another one has taken: the next opening removes them.
    pub(crate) superfluous: Vec<PathBuf>,
    /// All segments that have their records, oldest first; never empty.
    pub(crate) segments: Vec<Segment>,
    /// The last segment has its footer: writing goes on in a new one.
    pub(crate) last_is_sealed: bool,
    pub(crate) tail: Option<TornTail>,
    /// Where the last segment's frames end.
    pub(crate) end: Position,
    /// The waypoint that its checking began at.
    pub(crate) waypoint: Option<Waypoint>,
}

/// Why a journal cannot be used as it lies there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FindError {
    #[error("cannot read {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Damaged(#[from] Damage),
    #[error("journal segment {segment:08}.seg has format version {version}")]
    Newer { segment: u64, version: u16 },
    #[error("cannot decode the frame at sequence {sequence}")]
    Undecodable {
        sequence: u64,
        #[source]
        source: DecodeError,
    },
}

/// Looks at the journal in `dir`, every frame of its last segment; `None` when there is no segment.
pub(crate) fn find(dir: &Path) -> Result<Option<Found>, FindError> {
    find_from(dir, None)
}

/// The same, beginning at the waypoint where that holds.
pub(crate) fn find_from(dir: &Path, waypoint: Option<Waypoint>) -> Result<Option<Found>, FindError> {
    let Listed { rolled, superfluous, segments: files } = sort_out(dir)?;
    let mut headers = Vec::new();
    for (number, path) in files {
        headers.push((path.clone(), header_of(number, &path)?));
    }
    let Some((_, first)) = headers.first() else {
        return match rolled.last() {
            None => Ok(None),
            Some(last) => Err(after_roll(last, "the segments after it are missing").into()),
        };
    };
    let ledger = first.ledger;
    match rolled.last() {
        None => check_first(first)?,
        Some(last) => check_after_roll(last, first)?,
    }
    let mut segments: Vec<Segment> = Vec::with_capacity(headers.len());
    let mut rest = headers.iter().peekable();
    while let Some((path, header)) = rest.next() {
        match rest.peek() {
            Some((_, next)) => {
                check_next(header, next)?;
                segments.push(inner_segment(path, header, next)?);
            }
            None => {
                let waypoint = waypoint_in(path, header, waypoint)?;
                let Last { segment, is_sealed, tail, end } = last_segment(path, header, waypoint.as_ref())?;
                segments.push(segment);
                let last_is_sealed = is_sealed;
                return Ok(Some(Found {
                    ledger,
                    rolled,
                    superfluous,
                    segments,
                    last_is_sealed,
                    tail,
                    end,
                    waypoint,
                }));
            }
        }
    }
    Ok(None)
}

/// The files in `dir` with this extension, by number.
pub(crate) fn list(dir: &Path, extension: &str) -> Result<Vec<(u64, PathBuf)>, FindError> {
    let io = |source| FindError::Io { path: dir.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let Some(number) = number
            && path.extension().and_then(|e| e.to_str()) == Some(extension)
        {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files)
}

/// The files of a journal: rolls at its beginning, segments after them.
struct Listed {
    rolled: Vec<Rolled>,
    segments: Vec<(u64, PathBuf)>,
    superfluous: Vec<PathBuf>,
}

/// Tells rolls that stand for a segment from what an interrupted pruning left. Rolls are put in place in
/// order, and a segment is removed only after that.
fn sort_out(dir: &Path) -> Result<Listed, FindError> {
    let mut segments = list(dir, "seg")?;
    let (mut rolled, mut superfluous): (Vec<Rolled>, Vec<PathBuf>) = (Vec::new(), Vec::new());
    let mut is_over = false;
    for (number, path) in list(dir, "roll")? {
        let at = segments.binary_search_by_key(&number, |(number, _)| *number).ok();
        let segment_before = segments.first().is_some_and(|(first, _)| *first < number);
        is_over = is_over || segment_before;
        match whole_roll(number, &path, at.is_some()) {
            Ok(roll) if !is_over => {
                if let Some(at) = at {
                    superfluous.push(segments.remove(at).1);
                }
                check_roll(rolled.last(), &roll)?;
                rolled.push(roll);
            }
            // The segment is there: what is not needed or not whole is made again.
            Ok(_) | Err(FindError::Damaged(_)) if at.is_some() => {
                is_over = true;
                superfluous.push(path);
            }
            Ok(roll) => return Err(roll.damage("a segment before its roll is not rolled up").into()),
            Err(error) => return Err(error),
        }
    }
    Ok(Listed { rolled, segments, superfluous })
}

/// The roll at `path`; with `entire`, everything in it was checked.
fn whole_roll(number: u64, path: &Path, entire: bool) -> Result<Rolled, FindError> {
    let header = read_roll_header(path).map_err(|error| match error {
        SegmentError::Header(HeaderError::Damaged) => {
            header_damage(number, "the roll that stands for it is damaged").into()
        }
        other => unreadable(number, path, other),
    })?;
    if header.number != number {
        return Err(header_damage(number, "the name of the roll that stands for it is not its number").into());
    }
    let roll = Rolled { header, path: Arc::from(path) };
    if entire && let Err(error) = roll.read() {
        return Err(match error {
            super::read::ReadError::Damaged(damage) => damage.into(),
            super::read::ReadError::Io { path, source } => FindError::Io { path, source },
            other => roll.damage(&other.to_string()).into(),
        });
    }
    Ok(roll)
}

/// Whether a roll follows the one before it.
fn check_roll(before: Option<&Rolled>, roll: &Rolled) -> Result<(), FindError> {
    let header = &roll.header;
    let (first, hash) = match before {
        None => (1, super::format::GENESIS),
        Some(before) if before.header.ledger != header.ledger => {
            return Err(roll.damage("the roll that stands for it belongs to another ledger").into());
        }
        Some(before) => (before.header.last_sequence.saturating_add(1), before.header.hash),
    };
    if (header.first_sequence, header.previous_hash) == (first, hash) {
        return Ok(());
    }
    let last_sequence = Some(header.first_sequence.saturating_sub(1));
    let what = "a segment before it is missing".to_owned();
    Err(Damage { segment: header.number, offset: 0, first_sequence: first, last_sequence, what }.into())
}

fn after_roll(last: &Rolled, what: &str) -> Damage {
    Damage {
        segment: last.header.number.saturating_add(1),
        offset: 0,
        first_sequence: last.header.last_sequence.saturating_add(1),
        last_sequence: None,
        what: what.to_owned(),
    }
}

fn check_after_roll(last: &Rolled, first: &SegmentHeader) -> Result<(), FindError> {
    let (header, next) = (&last.header, last.header.number.saturating_add(1));
    if first.ledger != header.ledger {
        return Err(after_roll(last, "the segment belongs to another ledger").into());
    }
    let follows = (first.number, first.first_sequence, first.previous_hash)
        == (next, header.last_sequence.saturating_add(1), header.hash);
    if follows {
        return Ok(());
    }
    let last_sequence = Some(first.first_sequence.saturating_sub(1));
    Err(Damage { last_sequence, ..after_roll(last, "the segment is missing") }.into())
}

fn header_of(number: u64, path: &Path) -> Result<SegmentHeader, FindError> {
    let header = read_header(path).map_err(|error| unreadable(number, path, error))?;
    if header.number == number {
        return Ok(header);
    }
    Err(header_damage(number, "the file's name is not its number").into())
}

fn unreadable(number: u64, path: &Path, error: SegmentError) -> FindError {
    match error {
        SegmentError::Header(HeaderError::Damaged) => {
            header_damage(number, "the segment header's checksum does not match").into()
        }
        SegmentError::Header(HeaderError::Newer(version)) => FindError::Newer { segment: number, version },
        SegmentError::Io(source) => FindError::Io { path: path.to_owned(), source },
    }
}

fn header_damage(segment: u64, what: &str) -> Damage {
    Damage { segment, offset: 0, first_sequence: 1, last_sequence: None, what: what.to_owned() }
}

fn check_first(first: &SegmentHeader) -> Result<(), FindError> {
    if first.first_sequence == 1 {
        return Ok(());
    }
    Err(Damage {
        segment: first.number.saturating_sub(1),
        offset: 0,
        first_sequence: 1,
        last_sequence: Some(first.first_sequence.saturating_sub(1)),
        what: "earlier segments are missing".to_owned(),
    }
    .into())
}

fn check_next(header: &SegmentHeader, next: &SegmentHeader) -> Result<(), FindError> {
    let damage = |what: &str| Damage {
        segment: header.number.saturating_add(1),
        offset: 0,
        first_sequence: header.first_sequence,
        last_sequence: Some(next.first_sequence.saturating_sub(1)),
        what: what.to_owned(),
    };
    if next.number != header.number.saturating_add(1) {
        return Err(damage("the segment is missing").into());
    }
    if next.ledger != header.ledger {
        return Err(damage("the segment belongs to another ledger").into());
    }
    Ok(())
}

/// A segment that has a successor: it ends where the successor says.
fn inner_segment(path: &Path, header: &SegmentHeader, next: &SegmentHeader) -> Result<Segment, FindError> {
    let io = |source| FindError::Io { path: path.to_owned(), source };
    if let Some(footer) = read_footer(path).map_err(io)?
        && footer.first_sequence == header.first_sequence
        && footer.last_sequence.saturating_add(1) == next.first_sequence
        && footer.hash == next.previous_hash
    {
        return Ok(Segment {
            number: header.number,
            path: Arc::from(path),
            first_sequence: footer.first_sequence,
            last_sequence: footer.last_sequence,
            data_end: footer.data_end,
            ranges: footer.ranges,
            hash: footer.hash,
            made_at: header.made_at,
        });
    }
    let mut scan = Scan::open(path, header)?;
    loop {
        if scan.reader.next_sequence() == next.first_sequence && *scan.reader.hash() == next.previous_hash {
            return Ok(scan.segment());
        }
        let what = match scan.step()? {
            Step::Frame(_) => continue,
            Step::End => "the segment ends before its successor begins",
            Step::Bad(what) => what,
        };
        return Err(scan.damage(what, Some(next.first_sequence.saturating_sub(1))).into());
    }
}

/// The waypoint, if it is one in this segment and what is before it is what was there.
fn waypoint_in(
    path: &Path,
    header: &SegmentHeader,
    waypoint: Option<Waypoint>,
) -> Result<Option<Waypoint>, FindError> {
    let is_here = |waypoint: &Waypoint| {
        (waypoint.ledger, waypoint.segment) == (header.ledger, header.number)
            && waypoint.at.next_sequence >= header.first_sequence
            && waypoint.at.offset >= SEGMENT_HEADER_BYTES
    };
    let Some(waypoint) = waypoint.filter(is_here) else { return Ok(None) };
    let holds = waypoint.holds(path).map_err(|source| FindError::Io { path: path.to_owned(), source })?;
    Ok(holds.then_some(waypoint))
}

/// The last segment.
struct Last {
    segment: Segment,
    is_sealed: bool,
    tail: Option<TornTail>,
    end: Position,
}

fn last_segment(path: &Path, header: &SegmentHeader, from: Option<&Waypoint>) -> Result<Last, FindError> {
    let io = |source| FindError::Io { path: path.to_owned(), source };
    let footer = read_footer(path).map_err(io)?;
    let mut scan = match from {
        Some(waypoint) => Scan::open_at(path, header, waypoint)?,
        None => Scan::open(path, header)?,
    };
    loop {
        if let Some(footer) = &footer
            && footer.data_end == scan.reader.offset()
            && footer.hash == *scan.reader.hash()
        {
            return Ok(scan.last(true, None));
        }
        match scan.step()? {
            Step::Frame(_) => {}
            Step::End => return Ok(scan.last(false, None)),
            Step::Bad(what) => {
                let tail = scan.judge(what)?;
                return Ok(scan.last(false, Some(tail)));
            }
        }
    }
}

/// A walk over one segment that gathers what its footer would say.
struct Scan<'a> {
    path: &'a Path,
    header: &'a SegmentHeader,
    reader: SegmentReader,
    ranges: Ranges,
}

impl<'a> Scan<'a> {
    fn open(path: &'a Path, header: &'a SegmentHeader) -> Result<Self, FindError> {
        let reader = SegmentReader::open(path, None, Check::Chain)
            .map_err(|error| unreadable(header.number, path, error))?;
        Ok(Self { path, header, reader, ranges: Ranges::EMPTY })
    }

    /// Goes on where a waypoint is that holds.
    fn open_at(path: &'a Path, header: &'a SegmentHeader, from: &Waypoint) -> Result<Self, FindError> {
        let reader = SegmentReader::open_at(path, None, Check::Chain, from.at)
            .map_err(|source| FindError::Io { path: path.to_owned(), source })?;
        Ok(Self { path, header, reader, ranges: from.ranges })
    }

    fn last(&self, is_sealed: bool, tail: Option<TornTail>) -> Last {
        Last { segment: self.segment(), is_sealed, tail, end: self.reader.position() }
    }

    fn step(&mut self) -> Result<Step, FindError> {
        let step =
            self.reader.step().map_err(|source| FindError::Io { path: self.path.to_owned(), source })?;
        if let Step::Frame(head) = &step {
            let ranges = &mut self.ranges;
            codec::for_each_id(head, self.reader.payload(), |listed| {
                ranges.add(listed.id.bits(), listed.started.micros())
            })
            .map_err(|source| FindError::Undecodable { sequence: head.first_sequence, source })?;
        }
        Ok(step)
    }

    fn segment(&self) -> Segment {
        Segment {
            number: self.header.number,
            path: Arc::from(self.path),
            first_sequence: self.header.first_sequence,
            last_sequence: self.reader.next_sequence().saturating_sub(1),
            data_end: self.reader.offset().max(SEGMENT_HEADER_BYTES),
            ranges: self.ranges,
            hash: *self.reader.hash(),
            made_at: self.header.made_at,
        }
    }

    fn damage(&self, what: &str, last_sequence: Option<u64>) -> Damage {
        Damage {
            segment: self.header.number,
            offset: self.reader.offset(),
            first_sequence: self.reader.next_sequence(),
            last_sequence,
            what: what.to_owned(),
        }
    }

    /// Whether the bad frame at the reader's position is a torn tail; if not, it is damage.
    fn judge(&self, what: &str) -> Result<TornTail, FindError> {
        let io = |source| FindError::Io { path: self.path.to_owned(), source };
        let (offset, sequence) = (self.reader.offset(), self.reader.next_sequence());
        let later = frames_after(self.path, offset, sequence).map_err(io)?;
        if let Some(witness) = later.iter().find(|head| head.synced_sequence >= sequence) {
            let last = witness.first_sequence.saturating_sub(1).max(sequence);
            return Err(self.damage(what, Some(last)).into());
        }
        let bytes = std::fs::read(self.path).map_err(io)?;
        let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        let used = rest.iter().rposition(|b| *b != 0).map_or(0, |last| last.saturating_add(1));
        let head = rest.get(..super::FRAME_HEAD_BYTES as usize).and_then(super::FrameHead::decode);
        let last = later.last().or(head.as_ref()).map(super::FrameHead::last_sequence);
        let records = last.and_then(|last| last.checked_sub(sequence)).map(|n| n.saturating_add(1));
        Ok(TornTail {
            segment: self.header.number,
            offset,
            bytes: used as u64,
            first_sequence: sequence,
            records,
            what: what.to_owned(),
        })
    }
}
