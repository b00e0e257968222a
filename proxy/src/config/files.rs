//! Files that configuration reads, each with a limit, and why one cannot be used.
//!
//! Not here: what is in them.

use super::secret::Secret;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use zeroize::{Zeroize, Zeroizing};

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

/// The file, and how long it says that it is.
fn open(path: &Path, bytes_max: u64) -> Result<(File, u64), FileTrouble> {
    let about = std::fs::metadata(path).map_err(FileTrouble::Io)?;
    if about.is_dir() {
        return Err(FileTrouble::Directory);
    }
    if about.len() > bytes_max {
        return Err(FileTrouble::TooLarge(bytes_max));
    }
    Ok((File::open(path).map_err(FileTrouble::Io)?, about.len()))
}

/// Whether a file is there, may be read and is no larger than `bytes_max`.
pub(super) fn check_readable(path: &Path, bytes_max: u64) -> Result<(), FileTrouble> {
    open(path, bytes_max).map(drop)
}

/// Reads a text of at most `bytes_max`, also from a file that says it is short and is not, as devices do.
pub(super) fn read_text(path: &Path, bytes_max: u64) -> Result<String, FileTrouble> {
    read_secret(path, bytes_max).map(|mut text| std::mem::take(&mut *text))
}

/// More room than a file needs, so that its end is seen without a look beyond the room.
const ROOM_TO_SEE_THE_END: usize = 64;

/// The same of a text that is a secret: it is wiped at its end, and no part of it is left elsewhere unless the
/// file is longer than it says.
pub(super) fn read_secret(path: &Path, bytes_max: u64) -> Result<Zeroizing<String>, FileTrouble> {
    let (file, length) = open(path, bytes_max)?;
    let room = usize::try_from(length).unwrap_or_default().saturating_add(ROOM_TO_SEE_THE_END);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(FileTrouble::Io)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > bytes_max {
        return Err(FileTrouble::TooLarge(bytes_max));
    }
    String::from_utf8(std::mem::take(&mut *bytes)).map(Zeroizing::new).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        error.into_bytes().zeroize();
        FileTrouble::NotText(place)
    })
}

/// Largest file with tokens or keys of AWS.
const AWS_FILE_BYTES_MAX: u64 = 256 << 10;

/// Reads a file with tokens or keys that is written anew while the program runs. The error is a
/// predicate: `cannot be read: …`.
pub fn read_secret_text(path: &Path) -> Result<Secret, String> {
    read_secret(path, AWS_FILE_BYTES_MAX)
        .map(|text| Secret::new(&text))
        .map_err(|trouble| trouble.to_string())
}
