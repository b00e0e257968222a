//! The webhook's certificate: read from its files, and again when they change.
//!
//! Invariants
//! - There is always a certificate that belongs to its key: files that do not fit together, or cannot be read,
//!   change nothing and are told once.
//!
//! Not here: making TLS of PEM texts (`admin::tls`), reading when one expires (`expiry`).

use super::expiry::expiry_seconds;
use crate::admin::tls::{self, TlsError};
use crate::config::{Secret, read_secret_text};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("{} {what}: name a PEM file with --{option}", .path.display())]
    Unreadable { path: PathBuf, option: &'static str, what: String },
    #[error("{}: {source}", .path.display())]
    Unusable {
        path: PathBuf,
        #[source]
        source: TlsError,
    },
}

/// What a look at the files found.
#[derive(Debug)]
pub(super) enum Looked {
    /// What was there before.
    Same,
    /// Another certificate, which is in force now.
    Replaced,
    /// Something else that cannot be used; the one before stays in force.
    Unusable(String),
}

/// A certificate with its key, and where they are from.
#[derive(Debug)]
pub(crate) struct Certificates {
    cert: PathBuf,
    key: PathBuf,
    current: RefCell<InForce>,
    /// What was found the last time.
    found: RefCell<Found>,
}

/// What connections are answered with.
#[derive(Clone, Debug)]
struct InForce {
    server: Arc<ServerConfig>,
    expiry_seconds: Option<i64>,
}

/// The texts of both files, or why there are none.
#[derive(Debug)]
enum Found {
    Texts(String, Secret),
    Trouble(String),
}

impl Found {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Texts(cert, key), Self::Texts(cert_now, key_now)) => {
                cert == cert_now && key.matches(key_now.expose().as_bytes())
            }
            (Self::Trouble(before), Self::Trouble(now)) => before == now,
            (Self::Texts(..), Self::Trouble(_)) | (Self::Trouble(_), Self::Texts(..)) => false,
        }
    }
}

impl Certificates {
    /// Reads both files.
    ///
    /// # Errors
    /// Says which cannot be used, and why.
    pub(crate) fn open(cert: &Path, key: &Path) -> Result<Self, CertificateError> {
        let (text, secret) = texts(cert, key)?;
        let made = usable(cert, key, &text, &secret)?;
        Ok(Self {
            cert: cert.to_owned(),
            key: key.to_owned(),
            current: RefCell::new(made),
            found: RefCell::new(Found::Texts(text, secret)),
        })
    }

    /// What a new connection is answered with.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.borrow().server)
    }

    /// Seconds since 1970 at which the certificate in force expires: that of the webhook, not of those that
    /// vouch for it. `None` where that cannot be read.
    pub(super) fn expiry_seconds(&self) -> Option<i64> {
        self.current.borrow().expiry_seconds
    }

    /// Looks at the files, and takes what is new in them if it can be used.
    pub(super) fn look(&self) -> Looked {
        let (now, made) = match texts(&self.cert, &self.key) {
            Ok((text, secret)) => {
                let made = usable(&self.cert, &self.key, &text, &secret);
                (Found::Texts(text, secret), made)
            }
            Err(error) => (Found::Trouble(error.to_string()), Err(error)),
        };
        if self.found.replace(now).is(&self.found.borrow()) {
            return Looked::Same;
        }
        match made {
            Ok(made) => {
                self.current.replace(made);
                Looked::Replaced
            }
            Err(error) => Looked::Unusable(error.to_string()),
        }
    }
}

fn texts(cert: &Path, key: &Path) -> Result<(String, Secret), CertificateError> {
    let read = |path: &Path, option| {
        read_secret_text(path).map_err(|what| CertificateError::Unreadable {
            path: path.to_owned(),
            option,
            what,
        })
    };
    Ok((read(cert, "tls-cert")?.expose().to_owned(), read(key, "tls-key")?))
}

fn usable(cert: &Path, key: &Path, text: &str, secret: &Secret) -> Result<InForce, CertificateError> {
    let server = tls::server(text, secret.expose(), None).map_err(|source| {
        let path = if matches!(source, TlsError::Key(_)) { key } else { cert };
        CertificateError::Unusable { path: path.to_owned(), source }
    })?;
    let first = CertificateDer::from_pem_slice(text.as_bytes()).ok();
    Ok(InForce { server, expiry_seconds: first.and_then(|certificate| expiry_seconds(&certificate)) })
}
