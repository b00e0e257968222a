//! Secrets and other files that a configuration names.
//!
//! Invariants
//! - No message shows a secret, nor a text that may be one written into the wrong place.
//! - A secret can stand in a header: visible ASCII, without the space around it.
//!
//! Not here: the type (`secret`), reading with limits (`files`).

use super::{Chosen, Loader};
use crate::config::error::{Origin, Wrong};
use crate::config::files::{check_readable, read_secret};
use crate::config::secret::Secret;
use crate::config::value::{PathKind, SecretVariable, wrong_path};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Largest file with a secret.
const SECRET_BYTES_MAX: u64 = 16 << 10;
/// Largest price overlay or file of certificates.
const OTHER_FILE_BYTES_MAX: u64 = 64 << 20;

impl Loader<'_> {
    /// Reports a file that cannot be read; its contents are somebody else's business.
    pub(super) fn readable(&mut self, path: &Chosen<Option<PathBuf>>, key: &str) {
        let Some(file) = &path.value else { return };
        self.watched.push(file.clone());
        if let Err(trouble) = check_readable(file, OTHER_FILE_BYTES_MAX) {
            let wrong = Wrong::value(&file.display().to_string(), &trouble.to_string(), trouble.remedy());
            self.wrong(&path.origin, key, wrong);
        }
    }

    pub(super) fn secret_file(&mut self, origin: &Origin, key: &str, path: &Path) -> Option<Secret> {
        self.watched.push(path.to_path_buf());
        let shown = path.display().to_string();
        let secret = match read_secret(path, SECRET_BYTES_MAX) {
            Ok(text) => check_secret(&text),
            Err(trouble) => {
                let wrong = wrong_path(&shown, PathKind::OfSecret, &trouble.to_string(), trouble.remedy());
                self.wrong(origin, key, wrong);
                return None;
            }
        };
        match secret {
            Ok(secret) => Some(secret),
            Err(what) => {
                let remedy = "put the secret alone into the file, on one line";
                let wrong = wrong_path(&shown, PathKind::OfSecret, &format!("holds {what}"), remedy);
                self.wrong(origin, key, wrong);
                None
            }
        }
    }

    pub(super) fn secret_variable(
        &mut self,
        origin: &Origin,
        key: &str,
        name: &SecretVariable,
    ) -> Option<Secret> {
        let text = Zeroizing::new((self.env)(&name.0).unwrap_or_default());
        match check_secret(&text) {
            Ok(secret) => {
                self.warnings.push(format!(
                    "{key}: other programs of the same user can read an environment; secret_file is safer"
                ));
                Some(secret)
            }
            // The name is hidden too: it may be the secret itself, written in capital letters.
            Err(what) => {
                let what = format!("names a variable that holds {what}");
                self.wrong(origin, key, Wrong::hidden(&what, "set the variable, or name another one"));
                None
            }
        }
    }
}

/// What is wrong with a secret, without showing it.
fn check_secret(text: &str) -> Result<Secret, &'static str> {
    match text.trim() {
        "" => Err("nothing"),
        secret if secret.bytes().all(|b| b.is_ascii_graphic() || b == b' ') => Ok(Secret::new(secret)),
        _ => Err("characters that cannot stand in a header"),
    }
}
