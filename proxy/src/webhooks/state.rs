//! What was told and what is on its way, in a file beside the ledger.
//!
//! Invariants
//! - The file is replaced whole: a crash leaves the one before or the new one.
//! - It can be lost: events are then told again under the same ids (those of rolling windows under new ones).
//! - It is readable for its owner alone; there is no secret in it.
//!
//! Why not facts in the journal: those are kept for ever and all in memory, and budgets of hours would make
//! millions of them.

use super::queue::Queues;
use super::told::Told;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The file's name in the ledger's directory.
pub const FILE: &str = "webhooks.json";
/// Of other versions nothing is understood.
const VERSION: u32 = 1;
/// Largest file that is read: all queues full, with room to spare.
const BYTES_MAX: u64 = 256 << 20;

/// What is kept.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    pub(super) told: Told,
    pub(super) waiting: Queues,
}

/// Why what was told is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is no list of what was told", path.display())]
    Text {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{} is of version {version}, which this program does not know", path.display())]
    Version { path: PathBuf, version: u32 },
}

impl State {
    /// Reads the file; nothing was told where there is none.
    pub(super) fn load(path: &Path) -> Result<Self, LoadError> {
        let wrong = |source| LoadError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        match File::open(path) {
            Ok(file) => file.take(BYTES_MAX).read_to_string(&mut text).map_err(wrong)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(wrong(error)),
        };
        let read: Self = serde_json::from_str(&text)
            .map_err(|source| LoadError::Text { path: path.to_owned(), source })?;
        if read.version != VERSION {
            return Err(LoadError::Version { path: path.to_owned(), version: read.version });
        }
        Ok(read)
    }

    /// Replaces the file. Blocks for a flush of the disk.
    pub(super) fn save(&mut self, path: &Path) -> io::Result<()> {
        self.version = VERSION;
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        let partial = path.with_extension("json.partial");
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::Event;
    use super::*;
    use bursar_domain::Label;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_was_saved_is_read_again_and_only_its_owner_may() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let mut state = State::load(&path).unwrap();
        let event = Event { id: "e".to_owned(), body: "{\"a\":1}".to_owned() };
        state.waiting.push(&Label::new("hook").unwrap(), &event);
        state.save(&path).unwrap();
        state.save(&path).unwrap();
        assert_eq!(State::load(&path).unwrap().waiting.len(), 1);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_damaged_file_and_one_of_another_version_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        for (text, expected) in [
            ("{\"version\":1,\"told\":{", "is no list of what was told"),
            ("{\"version\":9,\"told\":{},\"waiting\":{}}", "is of version 9"),
        ] {
            fs::write(&path, text).unwrap();
            let error = State::load(&path).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(FILE), "{error}");
        }
    }
}
