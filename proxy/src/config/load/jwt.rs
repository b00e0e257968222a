//! Files that issuers of tokens name, and rules between issuers and the rest of a configuration.
//!
//! Not here: reading the list (`config::jwt`).

use super::Loader;
use crate::config::error::Wrong;
use crate::config::files::{check_readable, read_text};
use crate::config::settings as s;
use crate::config::value::{PathKind, wrong_path};
use crate::credentials::jwks::{VerifyKey, read_jwks, read_pem};
use crate::credentials::tokens::{Issuer, IssuerRules, Issuers, Remote, Source};
use std::path::Path;
use std::sync::Arc;

/// Largest file with keys, certificates or a token.
const FILE_BYTES_MAX: u64 = 256 << 10;

impl Loader<'_> {
    /// The issuers, with their keys where these are in files.
    pub(super) fn token_issuers(&mut self) -> Arc<Issuers> {
        let issuers = std::mem::take(&mut self.issuers);
        let all = issuers.into_iter().map(|rules| {
            let keys = match &rules.source {
                Source::JwksFile(file) => self.keys_in(&rules, "jwks_file", file),
                Source::PublicKeyFile(file) => self.keys_in(&rules, "public_key_file", file),
                Source::Remote(remote) => {
                    self.is_readable(&rules, remote);
                    None
                }
            };
            Issuer::new(rules, keys)
        });
        Arc::new(Issuers::new(all.collect()))
    }

    /// The keys in a file. It is watched: who replaces it needs no signal.
    fn keys_in(&mut self, rules: &IssuerRules, key: &str, file: &Path) -> Option<Vec<VerifyKey>> {
        self.watched.push(file.to_path_buf());
        let shown = file.display().to_string();
        let keys = match read_text(file, FILE_BYTES_MAX) {
            Err(trouble) => Err(Wrong::value(&shown, &trouble.to_string(), trouble.remedy())),
            Ok(text) => {
                let read =
                    if key == "jwks_file" { read_jwks(text.as_bytes()) } else { read_pem(text.as_bytes()) };
                read.map_err(|error| {
                    Wrong::value(&shown, &error.to_string(), "check that it is the right file")
                })
            }
        };
        let fits = |key: &VerifyKey| key.algorithms.iter().any(|one| rules.algorithms.contains(one));
        let wrong = match keys {
            Ok(keys) if keys.iter().any(fits) => return Some(keys),
            Ok(_) => {
                let what = "has no key for any of `algorithms`";
                Wrong::value(&shown, what, "name an algorithm that is for its keys, or remove `algorithms`")
            }
            Err(wrong) => wrong,
        };
        self.issuer_wrong(rules, key, wrong);
        None
    }

    /// What is read with each fetch is only looked for: it changes too often to count as a change.
    fn is_readable(&mut self, rules: &IssuerRules, remote: &Remote) {
        let files = [("ca_file", &remote.ca_file), ("token_file", &remote.token_file)];
        for (key, file) in files {
            let Some(file) = file else { continue };
            if let Err(trouble) = check_readable(file, FILE_BYTES_MAX) {
                let kind = if key == "token_file" { PathKind::OfSecret } else { PathKind::Ordinary };
                let shown = file.display().to_string();
                let wrong = wrong_path(&shown, kind, &trouble.to_string(), trouble.remedy());
                self.issuer_wrong(rules, key, wrong);
            }
        }
    }

    fn issuer_wrong(&mut self, rules: &IssuerRules, key: &str, wrong: Wrong) {
        let origin = self.place_of(s::IDENTITY_JWT.path);
        let path = format!("{} (issuer {:?}).{key}", s::IDENTITY_JWT.path, rules.name.as_str());
        self.wrong(&origin, &path, wrong);
    }
}
