//! Shipping: a copy of the journal elsewhere that is brought up to date again and again, while the ledger is in
//! use. Only what is new is copied.
//!
//! Invariants
//! - At every moment the copy is a ledger that can be restored, up to some frame: segments grow at their end and
//!   get their names when they are whole, and a roll is there before its segment goes.
//! - Each ledger has a directory of its own below the target, named by its id. What is there is continued only
//!   if it is whole and is the beginning of the ledger (the chain hash at its end is the ledger's there);
//!   otherwise it is set aside under another name and the ledger copied anew. No copy is written over.
//! - The ledger is only read. A copy is left alone while a process has it open, and where it is the ledger
//!   itself, or a link to something else.
//! - What cannot be read now is no reason to begin anew: the next round tries again.
//!
//! Not here: a copy of one moment (`backup`), when to ship (the program).

use crate::backup::{CopyError, LOOKS_MAX, backup, copy_file, look, sync_dir};
use crate::guard::{DirectoryError, claim_offline};
use crate::journal::Segment;
use crate::journal::find::{self, FindError, Found};
use crate::journal::format::{HASH_BYTES, Hash, SEGMENT_HEADER_BYTES};
use crate::journal::read::ReadError;
use crate::journal::segment::{Check, SegmentError, SegmentReader, Step, read_header};
use crate::open::OpenError;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Most copies of one ledger that are set aside.
const ASIDE_MAX: u32 = 1_000;

/// What one round did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipped {
    /// The copy: what `restore` takes.
    pub path: PathBuf,
    /// Its last sequence.
    pub last_sequence: u64,
    /// Bytes that were copied in this round.
    pub bytes: u64,
    /// The copy that was there, if it could not be continued, and why.
    pub set_aside: Option<(PathBuf, String)>,
}

/// Copies one ledger to one place, round by round. One process at a time for each.
#[derive(Debug)]
pub struct Shipper {
    dir: PathBuf,
    to: PathBuf,
    /// Every frame of the copy was checked, or written by this shipper.
    is_sure: bool,
}

/// Why a copy is not continued.
enum Stop {
    /// It cannot be.
    Unfit(String),
    /// A file could not be read or written.
    Copy(CopyError),
}

impl From<CopyError> for Stop {
    fn from(error: CopyError) -> Self {
        Self::Copy(error)
    }
}

fn unfit<T>(what: &str) -> Result<T, Stop> {
    Err(Stop::Unfit(what.to_owned()))
}

// === impl Shipper ===

impl Shipper {
    /// Ships the ledger in `dir`, which need not be there yet, to a directory below `to`.
    #[must_use]
    pub fn new(dir: &Path, to: &Path) -> Self {
        Self { dir: dir.to_owned(), to: to.to_owned(), is_sure: false }
    }

    /// Brings the copy up to date; `None` while there is no ledger.
    ///
    /// # Errors
    /// When the ledger cannot be read or the copy not be written. The next round goes on from there.
    pub fn ship(&mut self) -> Result<Option<Shipped>, CopyError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.ship_once() {
                Err(CopyError::Source(OpenError::Directory(DirectoryError::NoLedger { .. }))) => {
                    return Ok(None);
                }
                // A segment was rolled up since the journal was looked at.
                Err(CopyError::Copy { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && tries < LOOKS_MAX => {}
                done => return done.map(Some),
            }
        }
    }

    fn ship_once(&mut self) -> Result<Shipped, CopyError> {
        let ours = look(&self.dir.join("journal"), &self.dir)?;
        let path = self.to.join(ours.ledger.to_string());
        let mut set_aside = None;
        if path.symlink_metadata().is_ok() {
            refuse_ledger_itself(&self.dir, &path)?;
            // Whoever serves from the copy has it for itself.
            let _lock = claim_offline(&path).map_err(OpenError::from)?;
            match self.go_on(&ours, &path) {
                Ok((last_sequence, bytes)) => {
                    self.is_sure = true;
                    return Ok(Shipped { path, last_sequence, bytes, set_aside });
                }
                Err(Stop::Copy(error)) => return Err(error),
                Err(Stop::Unfit(why)) => {
                    let aside = free_name(&path);
                    std::fs::rename(&path, &aside).map_err(|source| wrong(&path, &aside, source))?;
                    set_aside = Some((aside, why));
                }
            }
        }
        crate::disk::create_private_dir(&self.to).map_err(|source| wrong(&self.dir, &self.to, source))?;
        let copied = backup(&self.dir, &path)?;
        // Read back before the next round builds on it.
        self.is_sure = false;
        Ok(Shipped { path, last_sequence: copied.last_sequence, bytes: copied.bytes, set_aside })
    }

    /// Adds to the copy what `ours` has beyond it; returns its last sequence and the bytes that were copied.
    fn go_on(&self, ours: &Found, path: &Path) -> Result<(u64, u64), Stop> {
        let journal = path.join("journal");
        let theirs = match find::find(&journal) {
            Ok(Some(theirs)) => theirs,
            Ok(None) => return unfit("it has no journal"),
            Err(FindError::Io { path, source }) => return Err(unread(&path, source)),
            Err(error) => return Err(Stop::Unfit(error.to_string())),
        };
        refuse_links(&theirs)?;
        if !self.is_sure {
            check_all(&theirs)?;
        }
        for left in &theirs.superfluous {
            remove(left)?;
        }
        let begin = Begin::of(ours, &theirs)?;
        let mut bytes = 0_u64;
        let mut add = |more: u64| bytes = bytes.saturating_add(more);
        let current = ours.segments.last().map(|segment| segment.number);
        // Of the last one only the frames, unless it is sealed.
        let limit = |segment: &Segment| {
            let is_open = Some(segment.number) == current && !ours.last_is_sealed;
            if is_open { segment.data_end } else { u64::MAX }
        };
        if let Some((segment, at)) = begin.grows {
            let to = journal.join(segment.path.file_name().unwrap_or_default());
            add(append(&segment.path, &to, at, limit(segment)).map_err(|e| wrong(&segment.path, &to, e))?);
        }
        for segment in begin.new {
            add(place(&segment.path, &journal, limit(segment))?);
        }
        let known = theirs.rolled.last().map_or(0, |roll| roll.header.number);
        for roll in ours.rolled.iter().filter(|roll| roll.header.number > known) {
            add(place(&roll.path, &journal, u64::MAX)?);
        }
        let rolled = ours.rolled.last().map_or(0, |roll| roll.header.number);
        for segment in theirs.segments.iter().filter(|segment| segment.number <= rolled) {
            remove(&segment.path)?;
        }
        Ok((ours.segments.last().map_or(0, |segment| segment.last_sequence), bytes))
    }
}

/// What of a ledger a copy has not.
struct Begin<'a> {
    /// The segment that its last one is the beginning of, and the byte at which that goes on.
    grows: Option<(&'a Segment, u64)>,
    /// Segments after it.
    new: Vec<&'a Segment>,
}

impl<'a> Begin<'a> {
    /// Compares a copy with the ledger, segment by segment.
    fn of(ours: &'a Found, theirs: &Found) -> Result<Self, Stop> {
        let hash_of = |number: u64| -> Option<Hash> {
            let rolled = ours.rolled.iter().map(|roll| (roll.header.number, roll.header.hash));
            let sealed = ours.segments.iter().map(|segment| (segment.number, segment.hash));
            rolled.chain(sealed).find(|(found, _)| *found == number).map(|(_, hash)| hash)
        };
        let Some((last, sealed)) = theirs.segments.split_last() else { return unfit("it has no segment") };
        if ours.ledger != theirs.ledger {
            return unfit("it is of another ledger");
        }
        if sealed.iter().any(|segment| hash_of(segment.number) != Some(segment.hash)) {
            return unfit("a segment of it is not the ledger's");
        }
        let same = ours.segments.iter().find(|segment| segment.number == last.number);
        let grows = match same {
            Some(segment) => {
                let hash = |at| hash_at(segment, at).map_err(|e| wrong(&segment.path, &segment.path, e));
                if segment.data_end < last.data_end || hash(last.data_end)? != last.hash {
                    return unfit("it has records that the ledger has not");
                }
                let is_whole = theirs.last_is_sealed && theirs.tail.is_none();
                (!is_whole).then_some((segment, last.data_end))
            }
            None if hash_of(last.number) == Some(last.hash) => None,
            None => return unfit("the ledger has rolled up what it lacks"),
        };
        let new: Vec<&Segment> =
            ours.segments.iter().filter(|segment| segment.number > last.number).collect();
        let next = last.number.saturating_add(1);
        if new.first().is_some_and(|first| first.number != next) {
            return unfit("the ledger has rolled up what it lacks");
        }
        Ok(Self { grows, new })
    }
}

/// The chain hash of the segment before this byte, where a frame must end.
fn hash_at(segment: &Segment, at: u64) -> io::Result<Hash> {
    if at <= SEGMENT_HEADER_BYTES {
        let header = read_header(&segment.path).map_err(|_| io::Error::other("its header cannot be read"))?;
        return Ok(header.previous_hash);
    }
    let mut file = File::open(&segment.path)?;
    file.seek(SeekFrom::Start(at.saturating_sub(HASH_BYTES)))?;
    let mut hash = Hash::default();
    file.read_exact(&mut hash)?;
    Ok(hash)
}

/// A file of a copy that cannot be read: it is gone, or there is trouble that passes.
fn unread(path: &Path, source: io::Error) -> Stop {
    match source.kind() {
        io::ErrorKind::NotFound => Stop::Unfit(format!("{} is gone", path.display())),
        _ => Stop::Copy(wrong(path, path, source)),
    }
}

/// The place of the copy is the ledger's own, or a link, which may lead there.
fn refuse_ledger_itself(dir: &Path, path: &Path) -> Result<(), CopyError> {
    let refuse = |what| Err(wrong(dir, path, io::Error::new(io::ErrorKind::InvalidInput, what)));
    if path.is_symlink() {
        return refuse("it is a link: ship to a directory");
    }
    let same = |a: &Path| a.canonicalize().map_err(|source| wrong(dir, path, source));
    if same(dir)? == same(path)? {
        return refuse("it is the ledger that is to be shipped: ship to another directory");
    }
    Ok(())
}

/// Files that are appended to or removed must be the copy's own.
fn refuse_links(theirs: &Found) -> Result<(), CopyError> {
    let segments = theirs.segments.iter().map(|segment| &*segment.path);
    let rolls = theirs.rolled.iter().map(|roll| &*roll.path);
    let mut files = segments.chain(rolls);
    let Some(link) = files.find(|file| file.is_symlink() || file.parent().is_some_and(Path::is_symlink))
    else {
        return Ok(());
    };
    let what = io::Error::new(io::ErrorKind::InvalidInput, "a copy is made of files, and this is a link");
    Err(wrong(link, link, what))
}

/// Reads everything in a copy.
fn check_all(found: &Found) -> Result<(), Stop> {
    for roll in &found.rolled {
        roll.read().map_err(|error| match error {
            ReadError::Io { path, source } => unread(&path, source),
            other => Stop::Unfit(other.to_string()),
        })?;
    }
    for segment in &found.segments {
        let is_whole = walks_to_end(segment).map_err(|source| unread(&segment.path, source))?;
        if !is_whole {
            return unfit("a frame of it is damaged");
        }
    }
    Ok(())
}

fn walks_to_end(segment: &Segment) -> io::Result<bool> {
    let opened = SegmentReader::open(&segment.path, Some(segment.data_end), Check::Chain);
    let mut reader = match opened {
        Ok(reader) => reader,
        Err(SegmentError::Io(error)) => return Err(error),
        Err(SegmentError::Header(_)) => return Ok(false),
    };
    loop {
        match reader.step()? {
            Step::Frame(_) => {}
            Step::End => return Ok(*reader.hash() == segment.hash),
            Step::Bad(_) => return Ok(false),
        }
    }
}

/// Makes `to` as long as `from` is up to `limit`; the bytes before `at` are there.
fn append(from: &Path, to: &Path, at: u64, limit: u64) -> io::Result<u64> {
    let mut source = File::open(from)?;
    source.seek(SeekFrom::Start(at))?;
    let mut copy = File::options().write(true).open(to)?;
    copy.set_len(at)?;
    copy.seek(SeekFrom::Start(at))?;
    let bytes = io::copy(&mut source.take(limit.saturating_sub(at)), &mut copy)?;
    copy.sync_all()?;
    Ok(bytes)
}

/// Copies a file into the journal of a copy, where it gets its name when it is whole.
fn place(from: &Path, journal: &Path, limit: u64) -> Result<u64, CopyError> {
    let to = journal.join(from.file_name().unwrap_or_default());
    let mut name = to.clone().into_os_string();
    name.push(".new");
    let new = PathBuf::from(name);
    if new.exists() {
        std::fs::remove_file(&new).map_err(|source| wrong(from, &new, source))?;
    }
    let bytes = copy_file(from, &new, limit).map_err(|source| wrong(from, &new, source))?;
    std::fs::rename(&new, &to).and_then(|()| sync_dir(journal)).map_err(|source| wrong(&new, &to, source))?;
    Ok(bytes)
}

fn remove(path: &Path) -> Result<(), CopyError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(wrong(path, path, source)),
        _ => Ok(()),
    }
}

/// A name beside `path` that is free.
fn free_name(path: &Path) -> PathBuf {
    let name = |n: u32| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{n}"));
        path.with_file_name(name)
    };
    (1..ASIDE_MAX).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(ASIDE_MAX))
}

fn wrong(from: &Path, to: &Path, source: io::Error) -> CopyError {
    CopyError::Copy { from: from.to_owned(), to: to.to_owned(), source }
}

#[cfg(test)]
mod tests;
