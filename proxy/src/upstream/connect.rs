//! Making a connection: name, TCP, TLS, protocol.
//!
//! Invariants
//! - Certificates are always checked against the system's roots (and a configured file).
//! - The connect timeout covers the name look-up, TCP and TLS together.
//! - Where only some addresses may be called, the one that was checked is the one that is called.
//!
//! Not here: reuse (`upstream::Pool`).

use super::Origin;
use super::address::{NotPermitted, Permit};
use crate::config::Protocol;
use http::uri::Authority;
use rustls::pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
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
    /// None of its addresses may be called.
    #[error("{authority} must not be called")]
    NotPermitted {
        /// Where to.
        authority: Authority,
        /// Why one of them may not.
        #[source]
        source: Box<NotPermitted>,
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
        self.connect_within(origin, timeout, None).await
    }

    /// The same, to addresses that `permit` lets be called.
    pub(super) async fn connect_permitted(
        &self,
        origin: &Origin,
        timeout: Duration,
        permit: &Permit,
    ) -> Result<(UpstreamIo, bool), ConnectError> {
        self.connect_within(origin, timeout, Some(permit)).await
    }

    async fn connect_within(
        &self,
        origin: &Origin,
        timeout: Duration,
        permit: Option<&Permit>,
    ) -> Result<(UpstreamIo, bool), ConnectError> {
        match tokio::time::timeout(timeout, self.connect_untimed(origin, permit)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::TimedOut { authority: origin.authority.clone(), timeout }),
        }
    }

    async fn connect_untimed(
        &self,
        origin: &Origin,
        permit: Option<&Permit>,
    ) -> Result<(UpstreamIo, bool), ConnectError> {
        let wants_http2 = origin.protocol == Protocol::Http2;
        let tcp_error = |source| ConnectError::Tcp { authority: origin.authority.clone(), source };
        let tls = match self {
            Self::Memory(open) => {
                return Ok((UpstreamIo::Memory(open(origin).map_err(tcp_error)?), wants_http2));
            }
            Self::Network(tls) => tls,
        };
        let host = origin.authority.host().trim_start_matches('[').trim_end_matches(']');
        let socket = match permit {
            None => TcpStream::connect((host, origin.port())).await.map_err(tcp_error)?,
            Some(permit) => {
                let found = tokio::net::lookup_host((host, origin.port())).await.map_err(tcp_error)?;
                let refused = |refusal| ConnectError::NotPermitted {
                    authority: origin.authority.clone(),
                    source: Box::new(refusal),
                };
                let addresses = permitted(found, permit, origin.secure).map_err(refused)?;
                TcpStream::connect(addresses.as_slice()).await.map_err(tcp_error)?
            }
        };
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

/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;

/// Those of `found` that may be called.
fn permitted(
    found: impl Iterator<Item = SocketAddr>,
    permit: &Permit,
    is_secure: bool,
) -> Result<Vec<SocketAddr>, NotPermitted> {
    let mut refusal = NotPermitted::Nowhere;
    let may_be_called = |address: &SocketAddr| match permit.check(address.ip(), is_secure) {
        Ok(()) => true,
        Err(reason) => {
            refusal = reason;
            false
        }
    };
    let taken: Vec<SocketAddr> = found.filter(may_be_called).take(ADDRESSES_MAX).collect();
    if taken.is_empty() { Err(refusal) } else { Ok(taken) }
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

#[cfg(test)]
mod tests {
    use super::super::address::Network;
    use super::*;

    #[test]
    fn of_a_name_with_several_addresses_only_those_are_called_that_may_be() {
        let found = ["127.0.0.1:443", "93.184.215.14:443", "[::1]:443", "[2606:4700::1]:443"];
        let found = || found.iter().map(|text| text.parse::<SocketAddr>().unwrap());
        let told = |permit: &Permit, secure| {
            permitted(found(), permit, secure).map(|taken| taken.iter().map(SocketAddr::to_string).collect())
        };
        let nobody = Permit::default();
        let public: Vec<String> = vec!["93.184.215.14:443".to_owned(), "[2606:4700::1]:443".to_owned()];
        assert_eq!(told(&nobody, true), Ok(public));
        assert_eq!(told(&nobody, false), Err(NotPermitted::Plain("2606:4700::1".parse().unwrap())));
        let local = Permit::new(vec![Network::read("127.0.0.1").unwrap()]);
        assert_eq!(told(&local, false), Ok(vec!["127.0.0.1:443".to_owned()]));
        assert_eq!(permitted([].into_iter(), &local, true), Err(NotPermitted::Nowhere));
    }

    #[tokio::test]
    async fn nobody_is_connected_to_who_must_not_be_called() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connector = Connector::Network(TlsSetup::load(None).unwrap());
        // Other ways to write 127.0.0.1 are the resolver's business; what comes of them is checked.
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0.0.0.0"] {
            let authority: Authority = format!("{host}:{port}").parse().unwrap();
            let origin = Origin { secure: false, authority, protocol: Protocol::Http1 };
            let time = Duration::from_secs(5);
            let refused = connector.connect_permitted(&origin, time, &Permit::default()).await;
            let is_refused =
                matches!(refused, Err(ConnectError::NotPermitted { .. } | ConnectError::Tcp { .. }));
            assert!(is_refused, "{host}: {refused:?}");
        }
        let permit = Permit::new(vec![Network::read("127.0.0.1").unwrap()]);
        let authority: Authority = format!("localhost:{port}").parse().unwrap();
        let origin = Origin { secure: false, authority, protocol: Protocol::Http1 };
        drop(connector.connect_permitted(&origin, Duration::from_secs(5), &permit).await.unwrap());
        let (first, _) = listener.accept().await.unwrap();
        drop(first);
        let more =
            std::future::poll_fn(|cx| std::task::Poll::Ready(listener.poll_accept(cx).is_ready())).await;
        assert!(!more, "one connection was made, the permitted one");
    }
}
