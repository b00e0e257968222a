//! Making a connection: name, TCP, TLS, protocol.
//!
//! Invariants
//! - Certificates are always checked against the system's roots (and a configured file).
//! - The connect timeout covers the name look-up, TCP and TLS together.
//!
//! Not here: reuse (`upstream::Pool`).

use super::Origin;
use crate::config::Protocol;
use http::uri::Authority;
use rustls::pki_types::ServerName;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Why no connection could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It took longer than the connect timeout.
    #[error("no connection to {authority} within {timeout:?}")]
    TimedOut {
        /// Where to.
        authority: Authority,
        /// The configured timeout.
        timeout: Duration,
    },
    /// The name is unknown, or nobody listens.
    #[error("cannot connect to {authority}")]
    Tcp {
        /// Where to.
        authority: Authority,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The TLS handshake failed, for example an unknown certificate.
    #[error("cannot agree on TLS with {authority}")]
    Tls {
        /// Where to.
        authority: Authority,
        /// What rustls said.
        #[source]
        source: io::Error,
    },
    /// The host is no valid server name.
    #[error("{0:?} is no valid server name for TLS")]
    ServerName(Authority),
    /// The route insists on HTTP/2, and the server did not agree on it in the TLS handshake (ALPN).
    #[error("no HTTP/2 was agreed on over TLS with {0}, and this route has protocol: http2")]
    NoHttp2(Authority),
    /// A fresh HTTP/2 connection was closed before the request was sent.
    #[error("the upstream closed a new connection at once")]
    ClosedAtOnce,
}

/// TLS settings shared by all workers.
#[derive(Clone)]
pub struct TlsSetup {
    negotiate: Arc<rustls::ClientConfig>,
    http1_only: Arc<rustls::ClientConfig>,
    http2_only: Arc<rustls::ClientConfig>,
}

impl std::fmt::Debug for TlsSetup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsSetup")
    }
}

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// The file of extra roots cannot be read.
    #[error("cannot read the certificates in {path}: check upstream.ca_file")]
    CaFile {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// rustls refused its own defaults.
    #[error("cannot set up TLS")]
    Rustls(#[from] rustls::Error),
}

impl TlsSetup {
    /// Loads the system's roots and, if given, those of a PEM file. A machine without roots is no
    /// error here: plain upstreams still work, and a TLS connection then says what is wrong.
    pub fn load(ca_file: Option<&Path>) -> Result<Self, TlsSetupError> {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let mut roots = rustls::RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "cannot read a part of the system's root certificates");
        }
        roots.add_parsable_certificates(found.certs);
        if let Some(path) = ca_file {
            let read = |source| TlsSetupError::CaFile { path: path.display().to_string(), source };
            for certificate in CertificateDer::pem_file_iter(path).map_err(read)? {
                roots.add_parsable_certificates([certificate.map_err(read)?]);
            }
        }
        if roots.is_empty() {
            tracing::warn!("no root certificates found: https upstreams will fail; install ca-certificates");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let base = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let with_alpn = |protocols: &[&[u8]]| {
            let mut config = base.clone();
            config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
            Arc::new(config)
        };
        Ok(Self {
            negotiate: with_alpn(&[b"h2", b"http/1.1"]),
            http1_only: with_alpn(&[b"http/1.1"]),
            http2_only: with_alpn(&[b"h2"]),
        })
    }
}

/// Opens an in-memory connection to an origin.
pub type OpenMemory = Rc<dyn Fn(&Origin) -> io::Result<DuplexStream>>;

/// Makes connections; in tests from memory.
#[derive(Clone)]
pub enum Connector {
    /// TCP, and TLS above it.
    Network(TlsSetup),
    /// Hands out in-memory streams: for tests with a paused clock.
    Memory(OpenMemory),
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Network(_) => "Network",
            Self::Memory(_) => "Memory",
        })
    }
}

impl Connector {
    /// Connects to `origin`; the flag tells whether HTTP/2 was agreed.
    pub(crate) async fn connect(
        &self,
        origin: &Origin,
        timeout: Duration,
    ) -> Result<(UpstreamIo, bool), ConnectError> {
        match tokio::time::timeout(timeout, self.connect_untimed(origin)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::TimedOut { authority: origin.authority.clone(), timeout }),
        }
    }

    async fn connect_untimed(&self, origin: &Origin) -> Result<(UpstreamIo, bool), ConnectError> {
        let wants_http2 = origin.protocol == Protocol::Http2;
        let tcp_error = |source| ConnectError::Tcp { authority: origin.authority.clone(), source };
        let tls = match self {
            Self::Memory(open) => {
                return Ok((UpstreamIo::Memory(open(origin).map_err(tcp_error)?), wants_http2));
            }
            Self::Network(tls) => tls,
        };
        let host = origin.authority.host().trim_start_matches('[').trim_end_matches(']');
        let socket = TcpStream::connect((host, origin.port())).await.map_err(tcp_error)?;
        socket.set_nodelay(true).map_err(tcp_error)?;
        if !origin.secure {
            return Ok((UpstreamIo::Plain(socket), wants_http2));
        }
        let config = match origin.protocol {
            Protocol::Auto => &tls.negotiate,
            Protocol::Http1 => &tls.http1_only,
            Protocol::Http2 => &tls.http2_only,
        };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| ConnectError::ServerName(origin.authority.clone()))?;
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(name, socket)
            .await
            .map_err(|source| ConnectError::Tls { authority: origin.authority.clone(), source })?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        if wants_http2 && !is_http2 {
            return Err(ConnectError::NoHttp2(origin.authority.clone()));
        }
        Ok((UpstreamIo::Secure(Box::new(stream)), is_http2))
    }
}

/// A byte stream to an upstream.
#[derive(Debug)]
pub enum UpstreamIo {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Secure(Box<TlsStream<TcpStream>>),
    /// In memory, for tests.
    Memory(DuplexStream),
}

macro_rules! each_io {
    ($self:ident, $io:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Plain($io) => $call,
            Self::Secure($io) => $call,
            Self::Memory($io) => $call,
        }
    };
}

impl AsyncRead for UpstreamIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each_io!(self, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each_io!(self, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each_io!(self, io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Secure(io) => io.is_write_vectored(),
            Self::Memory(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_io!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_io!(self, io => Pin::new(io).poll_shutdown(cx))
    }
}
