//! Backup and restore: a copy of the journal up to a frame's end, taken while it is written.
//!
//! Invariants
//! - The copy is the journal as it was at one moment: every acknowledged record up to a sequence, none cut.
//! - A target that exists is never written into; what is not complete never has the target's name.
//! - What is restored was verified first.
//!
//! The embedded database is not copied: it is made from the journal when the copy is opened.
//!
//! Not here: recomputing totals (`verify`), salvage of damage.

use crate::disk;
use crate::guard::DirectoryError;
use crate::journal::find::{self, Found};
use crate::open::{OpenError, view_of};
use crate::verify::{Verified, VerifyError, verify};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// So often the journal is looked at anew when its end was being written.
pub(crate) const LOOKS_MAX: u32 = 50;

/// What a copy holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Where it is.
    pub path: PathBuf,
    /// Its last sequence.
    pub last_sequence: u64,
    /// Segments, and rolls that stand for some, copied.
    pub segments: u64,
    /// Bytes copied.
    pub bytes: u64,
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Something is there already.
    #[error("{} is there already: name a directory that is not", path.display())]
    TargetExists {
        /// The target.
        path: PathBuf,
    },
    /// The ledger could not be read.
    #[error(transparent)]
    Source(#[from] OpenError),
    /// The copy is not a whole ledger.
    #[error("the copy in {} is not whole, and was not put in place", path.display())]
    NotWhole {
        /// The backup.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<VerifyError>,
    },
    /// A file could not be copied.
    #[error("cannot copy {} to {}", from.display(), to.display())]
    Copy {
        /// From here.
        from: PathBuf,
        /// To here.
        to: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// Copies the ledger in `dir`, which may be in use, to `target`.
pub fn backup(dir: &Path, target: &Path) -> Result<Copied, CopyError> {
    copy(dir, target)
}

/// Makes a ledger in `target` from the backup in `from`, which is verified as it is copied.
pub fn restore(from: &Path, target: &Path) -> Result<(Copied, Verified), CopyError> {
    let verified = verify(from)
        .map_err(|source| CopyError::NotWhole { path: from.to_owned(), source: Box::new(source) })?;
    Ok((copy(from, target)?, verified))
}

fn copy(dir: &Path, target: &Path) -> Result<Copied, CopyError> {
    if target.exists() {
        return Err(CopyError::TargetExists { path: target.to_owned() });
    }
    let mut tries = 0;
    loop {
        tries += 1;
        match copy_once(dir, target) {
            // A segment was rolled up since the journal was looked at.
            Err(CopyError::Copy { source, .. })
                if source.kind() == io::ErrorKind::NotFound && tries < LOOKS_MAX => {}
            done => return done,
        }
    }
}

fn copy_once(dir: &Path, target: &Path) -> Result<Copied, CopyError> {
    let found = look(&dir.join("journal"), dir)?;
    let no_ledger = || OpenError::from(DirectoryError::NoLedger { path: dir.to_owned() });
    let view = view_of(found).ok_or_else(no_ledger)?;
    let partial = partial_of(target);
    let wrong =
        |from: &Path, to: &Path, source| CopyError::Copy { from: from.to_owned(), to: to.to_owned(), source };
    let journal = partial.join("journal");
    let prepared = if partial.exists() { std::fs::remove_dir_all(&partial) } else { Ok(()) };
    prepared
        .and_then(|()| disk::create_private_dir(&partial))
        .and_then(|()| disk::create_private_dir(&journal))
        .map_err(|source| wrong(dir, &partial, source))?;
    let (mut segments, mut bytes) = (0_u64, 0_u64);
    // Of the last one only the frames; it has no footer yet, or not for the copy.
    let limit = |number| if number == view.current.number { view.current.data_end } else { u64::MAX };
    let rolls = view.rolled.iter().map(|roll| (&roll.path, u64::MAX));
    let files = rolls.chain(view.segments().map(|segment| (&segment.path, limit(segment.number))));
    for (path, limit) in files {
        let to = journal.join(path.file_name().unwrap_or_default());
        let copied = copy_file(path, &to, limit).map_err(|source| wrong(path, &to, source))?;
        bytes = bytes.saturating_add(copied);
        segments = segments.saturating_add(1);
    }
    let placed = sync_dir(&journal).and_then(|()| std::fs::rename(&partial, target)).and_then(|()| {
        sync_dir(target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")))
    });
    placed.map_err(|source| wrong(&partial, target, source))?;
    Ok(Copied { path: target.to_owned(), last_sequence: view.last_sequence(), segments, bytes })
}

/// The journal as it lies there. Its end may be in the middle of being written; then it is looked at again.
pub(crate) fn look(journal: &Path, dir: &Path) -> Result<Found, OpenError> {
    let no_ledger = || OpenError::from(DirectoryError::NoLedger { path: dir.to_owned() });
    if !journal.is_dir() {
        return Err(no_ledger());
    }
    let mut looks = 0;
    loop {
        looks += 1;
        match find::find(journal) {
            Ok(Some(found)) if found.tail.is_none() || looks >= LOOKS_MAX => return Ok(found),
            Ok(None) => return Err(no_ledger()),
            Err(error) if looks >= LOOKS_MAX => return Err(error.into()),
            Ok(Some(_)) | Err(_) => std::thread::yield_now(),
        }
    }
}

pub(crate) fn partial_of(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    target.with_file_name(name)
}

pub(crate) fn copy_file(from: &Path, to: &Path, limit: u64) -> io::Result<u64> {
    let mut options = File::options();
    options.write(true).create_new(true);
    let mut copy = disk::private(&mut options).open(to)?;
    let bytes = io::copy(&mut File::open(from)?.take(limit), &mut copy)?;
    copy.flush()?;
    copy.sync_all()?;
    Ok(bytes)
}

pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::{plain_record, test_price};
    use crate::faults::{open, options};
    use crate::{Ledger, Options, RecordRange, Wait};
    use bursar_domain::SystemClock;
    use std::sync::Arc;

    fn put(ledger: &Ledger, n: u64) {
        let _ = ledger.append(Box::new(plain_record(n)), Wait::Acknowledged).unwrap().wait().unwrap();
    }

    #[test]
    fn a_backup_of_a_ledger_in_use_is_a_whole_ledger_and_restores() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let options = Options { segment_bytes: 8 << 10, ..options(&path) };
        let (ledger, _) = Ledger::open(options, Arc::new(SystemClock), Arc::new(test_price)).unwrap();
        (0..40).for_each(|n| put(&ledger, n));
        // Copies while somebody writes: each is whole and has all that was acknowledged before.
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| (40..200).for_each(|n| put(&ledger, n)));
            for round in 0..5 {
                let acknowledged = ledger.stats().last_sequence;
                let copied = backup(&path, &dir.path().join(format!("copy-{round}"))).unwrap();
                let verified = verify(&copied.path).unwrap();
                assert_eq!((verified.records, verified.torn_tail), (copied.last_sequence, None));
                assert!(copied.last_sequence >= acknowledged);
            }
            writer.join().unwrap();
        });
        let copied = backup(&path, &dir.path().join("last")).unwrap();
        assert!(copied.segments > 1);
        let (restored, verified) = restore(&copied.path, &dir.path().join("again")).unwrap();
        assert_eq!((restored.last_sequence, verified.records), (200, 200));
        let (again, report) = open(&restored.path);
        assert_eq!(report.last_sequence, 200);
        let all = |ledger: &Ledger| -> Vec<_> {
            ledger.records(RecordRange::default()).map(Result::unwrap).collect()
        };
        assert_eq!(all(&again), all(&ledger));
        put(&again, 200);
        again.close().unwrap();
        ledger.close().unwrap();
    }

    #[test]
    fn nothing_is_written_over_and_a_damaged_backup_is_not_restored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let (ledger, _) = open(&path);
        (0..5).for_each(|n| put(&ledger, n));
        ledger.close().unwrap();
        assert!(matches!(backup(&path, dir.path()), Err(CopyError::TargetExists { .. })));
        let nowhere = dir.path().join("nowhere");
        assert!(matches!(backup(&nowhere, &dir.path().join("x")), Err(CopyError::Source(_))));

        let copied = backup(&path, &dir.path().join("copy")).unwrap();
        let segment = copied.path.join("journal/00000001.seg");
        let mut bytes = std::fs::read(&segment).unwrap();
        bytes[300] ^= 1;
        std::fs::write(&segment, bytes).unwrap();
        let target = dir.path().join("again");
        assert!(matches!(restore(&copied.path, &target), Err(CopyError::NotWhole { .. })));
        assert!(!target.exists());
    }
}
