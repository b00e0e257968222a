//! TLS of the admin listener: from PEM texts to what a handshake needs.
//!
//! Invariants
//! - A certificate that does not belong to the key is refused, so files that are renewed one after the other
//!   never meet.
//! - Where clients must have certificates, whoever has none is not heard.
//!
//! Not here: reading the files (`config::load`), connections (`listener`).

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::sync::Arc;

/// Why TLS cannot be set up. The messages are predicates about a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The certificates.
    #[error("holds no certificate that can be read: {0}")]
    Certificate(String),
    /// The key.
    #[error("holds no private key that can be read: {0}")]
    Key(String),
    /// The authorities of clients.
    #[error("holds no authority for certificates of clients: {0}")]
    Clients(String),
    /// They do not belong together, or rustls does not take them.
    #[error("cannot be used with the key: {0}")]
    Pair(#[from] rustls::Error),
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found.map_err(|error| error.to_string())? {
        found if found.is_empty() => Err("there is none in it".to_owned()),
        found => Ok(found),
    }
}

/// A server with this certificate, and with `clients` one that hears only clients whose certificates they
/// vouch for.
pub(crate) fn server(cert: &str, key: &str, clients: Option<&str>) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(cert).map_err(TlsError::Certificate)?;
    let key =
        PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| TlsError::Key(error.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(pem).map_err(TlsError::Clients)? {
                roots.add(certificate).map_err(|error| TlsError::Clients(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| TlsError::Clients(error.to_string()))?)
        }
    };
    let mut server = builder.with_single_cert(chain, key)?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(server))
}
