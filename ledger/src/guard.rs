//! The ledger's directory: making it, and making sure that one process uses it.
//!
//! Invariants
//! - A ledger is open in one process at a time; the second one is told the first one's pid.
//! - Directories that are made here are for their owner alone.
//!
//! Not here: what is in the directory (`journal`, `store`).

use crate::disk::{self, is_full};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LOCK_TRIES: u32 = 40;
const LOCK_WAIT: Duration = Duration::from_millis(5);

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// There is a file of that name.
    #[error("{} is a file, not a directory: choose another data directory", path.display())]
    NotADirectory {
        /// The directory.
        path: PathBuf,
    },
    /// It may not be written.
    #[error("{} is not writable: give it to the user that runs bursar, or choose another data directory", path.display())]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The disk is full.
    #[error("no space is left for {}: free some, or choose another data directory", path.display())]
    NoSpace {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Anything else the system says.
    #[error("cannot use {} as data directory", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Another process has it open.
    #[error("{} is in use by {}: stop that process, or ask its admin API", path.display(), holder(.pid))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process, if it said so.
        pid: Option<u32>,
    },
    /// There is no ledger.
    #[error("there is no ledger in {}: check the data directory", path.display())]
    NoLedger {
        /// The directory.
        path: PathBuf,
    },
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl DirectoryError {
    /// Names the trouble by the system's answer.
    pub(crate) fn from_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => Self::NotADirectory { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::NotWritable { path, source }
            }
            _ if is_full(&source) => Self::NoSpace { path, source },
            _ => Self::Unusable { path, source },
        }
    }
}

/// The lock on a directory; given back when dropped, or when the process ends in any way.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: Option<File>,
}

/// Makes `dir` if need be and locks it for this process.
pub(crate) fn claim(dir: &Path) -> Result<DirectoryLock, DirectoryError> {
    if std::fs::metadata(dir).is_ok_and(|about| !about.is_dir()) {
        return Err(DirectoryError::NotADirectory { path: dir.to_owned() });
    }
    disk::create_private_dir(dir).map_err(|e| DirectoryError::from_io(dir, e))?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file =
        disk::private(&mut options).open(lock_path(dir)).map_err(|e| DirectoryError::from_io(dir, e))?;
    take_lock(dir, &mut file)?;
    // The pid is a courtesy: a full disk must not keep a ledger from opening.
    let _ = file.set_len(0);
    let _ = file.rewind();
    let _ = writeln!(file, "{}", std::process::id());
    warn_if_open_to_others(dir);
    Ok(DirectoryLock { _file: Some(file) })
}

/// Locks the directory of an existing ledger for reading, without changing it.
pub(crate) fn claim_offline(dir: &Path) -> Result<DirectoryLock, DirectoryError> {
    if std::fs::metadata(dir).is_ok_and(|about| !about.is_dir()) {
        return Err(DirectoryError::NotADirectory { path: dir.to_owned() });
    }
    match File::open(lock_path(dir)) {
        Ok(mut file) => {
            take_lock(dir, &mut file)?;
            Ok(DirectoryLock { _file: Some(file) })
        }
        // A copy of a ledger need not have its lock file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(DirectoryLock { _file: None }),
        Err(source) => Err(DirectoryError::Unusable { path: dir.to_owned(), source }),
    }
}

/// Takes the lock. A holder that was killed, or a process that is being started by another thread of
/// this one, can hold it for a moment longer: that is waited for.
fn take_lock(dir: &Path, file: &mut File) -> Result<(), DirectoryError> {
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_WAIT),
            Err(TryLockError::Error(source)) => {
                return Err(DirectoryError::Unusable { path: dir.to_owned(), source });
            }
        }
    }
    let mut text = String::new();
    let _ = file.take(32).read_to_string(&mut text);
    Err(DirectoryError::InUse { path: dir.to_owned(), pid: text.trim().parse().ok() })
}

fn lock_path(dir: &Path) -> PathBuf {
    dir.join("LOCK")
}

fn warn_if_open_to_others(dir: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if let Ok(about) = std::fs::metadata(dir)
            && about.permissions().mode() & 0o007 != 0
        {
            tracing::warn!(dir = %dir.display(), "the data directory is open to other users: chmod 0700 it");
        }
    }
    #[cfg(not(unix))]
    let _ = dir;
}
