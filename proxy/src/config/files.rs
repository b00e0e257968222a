//! Files that configuration reads, each with a limit, and why one cannot be used.
//!
//! Not here: what is in them.

use super::secret::Secret;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileTrouble {
    #[error("cannot be read: {}", reason(.0))]
    Io(#[source] io::Error),
    #[error("is a directory")]
    Directory,
    #[error("is larger than {0} bytes")]
    TooLarge(u64),
    #[error("is not UTF-8 text (byte {0})")]
    NotText(usize),
}

impl FileTrouble {
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Self::Io(error) => match error.kind() {
                io::ErrorKind::NotFound => "check the path, or create the file",
                io::ErrorKind::PermissionDenied => "give this user the right to read it",
                _ => "check the path",
            },
            Self::Directory => "name a file",
            Self::TooLarge(_) => "check that it is the right file",
            Self::NotText(_) => "save it as UTF-8",
        }
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => "permission is denied".to_owned(),
        _ => error.to_string(),
    }
}

fn open(path: &Path, bytes_max: u64) -> Result<File, FileTrouble> {
    let about = std::fs::metadata(path).map_err(FileTrouble::Io)?;
    if about.is_dir() {
        return Err(FileTrouble::Directory);
    }
    if about.len() > bytes_max {
        return Err(FileTrouble::TooLarge(bytes_max));
    }
    File::open(path).map_err(FileTrouble::Io)
}

/// Whether a file is there, may be read and is no larger than `bytes_max`.
pub(super) fn check_readable(path: &Path, bytes_max: u64) -> Result<(), FileTrouble> {
    open(path, bytes_max).map(drop)
}

/// Reads a text of at most `bytes_max`, also from a file that says it is short and is not, as devices do.
pub(super) fn read_text(path: &Path, bytes_max: u64) -> Result<String, FileTrouble> {
    let mut bytes = Vec::new();
    let file = open(path, bytes_max)?;
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(FileTrouble::Io)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > bytes_max {
        return Err(FileTrouble::TooLarge(bytes_max));
    }
    String::from_utf8(bytes).map_err(|error| FileTrouble::NotText(error.utf8_error().valid_up_to()))
}

/// Largest file with tokens or keys of AWS.
const AWS_FILE_BYTES_MAX: u64 = 256 << 10;

/// Reads a file with tokens or keys that is written anew while the program runs. The error is a
/// predicate: `cannot be read: …`.
pub fn read_secret_text(path: &Path) -> Result<Secret, String> {
    read_text(path, AWS_FILE_BYTES_MAX).map(|text| Secret::new(&text)).map_err(|trouble| trouble.to_string())
}
