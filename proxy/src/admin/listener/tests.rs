//! The admin listener on real sockets: TLS, certificates of clients, and others after a reload.

use crate::admin::tests::Bench;
use crate::admin::{Admin, router};
use crate::config::{Config, Sources};
use crate::listen::Shutdown;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

/// A certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for `name`, and its key.
    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    fn write_server(&self, dir: &Path) {
        let (certificate, key) = self.issue("localhost");
        std::fs::write(dir.join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
    }

    /// A client that believes this authority, and shows a certificate of `own` if there is one.
    fn client(&self, own: Option<&Self>) -> TlsConnector {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let (certificate, key) = own.issue("client");
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
            }
        };
        TlsConnector::from(Arc::new(config))
    }
}

/// What is answered to a request for health; nothing where no TLS was agreed on.
async fn health(address: SocketAddr, client: &TlsConnector) -> Option<String> {
    let socket = TcpStream::connect(address).await.unwrap();
    let mut stream = client.connect(ServerName::try_from("localhost").unwrap(), socket).await.ok()?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

#[tokio::test]
async fn tls_asks_clients_for_certificates_and_a_reload_brings_others() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second, stranger) =
        (Authority::new("first"), Authority::new("second"), Authority::new("stranger"));
    let settings = |clients: bool| {
        let file = |name: &str| dir.path().join(name).display().to_string();
        let clients =
            if clients { format!(", client_ca_file: '{}'", file("clients.pem")) } else { String::new() };
        format!(
            "admin: {{ tls: {{ cert_file: '{}', key_file: '{}'{clients} }} }}\n",
            file("cert.pem"),
            file("key.pem")
        )
    };
    first.write_server(dir.path());
    std::fs::write(dir.path().join("clients.pem"), first.0.pem()).unwrap();
    let bench = Bench::new(&settings(true));
    let (app, (end, state)) = (Arc::clone(&bench.app), watch::channel(Shutdown::No));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = router(Admin::new(Arc::clone(&app), state.clone()));
    let serving = super::serve(&app, listener, router, state);
    let asking = async {
        assert!(health(address, &first.client(Some(&first))).await.unwrap().contains("200 OK"));
        for refused in [first.client(None), first.client(Some(&stranger)), second.client(Some(&first))] {
            assert_eq!(health(address, &refused).await, None);
        }
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer).await;
        assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));

        second.write_server(dir.path());
        app.set_config(Config::load(Sources::from_text(&settings(false))).unwrap());
        assert!(health(address, &second.client(None)).await.unwrap().contains("200 OK"));
        assert_eq!(health(address, &first.client(None)).await, None);
        app.set_config(Config::load(Sources::none()).unwrap());
        assert_eq!(health(address, &second.client(None)).await, None);
        end.send_replace(Shutdown::Now);
    };
    tokio::task::LocalSet::new().run_until(async { tokio::join!(serving, asking) }).await;
}

fn mistakes(settings: &str) -> String {
    Config::load(Sources::from_text(settings)).unwrap_err().to_string()
}

#[test]
fn files_that_do_not_belong_together_are_refused_and_off_loopback_tls_ends_the_warning() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let authority = Authority::new("a");
    authority.write_server(dir.path());
    let (_, other) = authority.issue("localhost");
    std::fs::write(dir.path().join("other.pem"), other.serialize_pem()).unwrap();
    let tls = |cert: &str, key: &str| {
        format!("admin: {{ tls: {{ cert_file: '{}', key_file: '{}' }} }}\n", file(cert), file(key))
    };
    assert!(
        mistakes(&tls("cert.pem", "other.pem")).contains("admin.tls.cert_file: cannot be used with the key")
    );
    assert!(mistakes(&tls("key.pem", "key.pem")).contains("admin.tls.cert_file: holds no certificate"));
    assert!(mistakes(&tls("cert.pem", "cert.pem")).contains("admin.tls.key_file: holds no private key"));
    assert!(mistakes(&tls("cert.pem", "nowhere.pem")).contains("admin.tls.key_file"));
    let alone = format!("admin: {{ tls: {{ cert_file: '{}' }} }}\n", file("cert.pem"));
    assert!(mistakes(&alone).contains("TLS needs a certificate and its key"));
    let clients = format!("admin: {{ tls: {{ client_ca_file: '{}' }} }}\n", file("cert.pem"));
    assert!(mistakes(&clients).contains("certificates of clients are checked in TLS only"));
    let hash = crate::credentials::admin::TokenHash::of(b"x");
    let open = format!(
        "admin:\n  listen: 10.0.0.1:4142\n  tokens: [{{ name: a, scopes: [read], hash: '{hash}' }}]\n  tls: {{ cert_file: '{}', key_file: '{}' }}\n",
        file("cert.pem"),
        file("key.pem")
    );
    let config = Config::load(Sources::from_text(&open)).unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
}

/// A ClientHello of at most this version, with nothing newer in a list of versions.
fn hello(version: [u8; 2]) -> Vec<u8> {
    // ECDHE with AES, as TLS 1.2 and as TLS 1.1 have it.
    let suites = [0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x09, 0xc0, 0x13, 0x00, 0x2f];
    let extensions = [
        // Groups: P-256. Points: uncompressed. Signatures: ECDSA with SHA-256.
        &[0, 10, 0, 4, 0, 2, 0, 23][..],
        &[0, 11, 0, 2, 1, 0],
        &[0, 13, 0, 4, 0, 2, 4, 3],
    ]
    .concat();
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_be_bytes();
    let body =
        [&version[..], &[7; 32], &[0], &length(&suites), &suites, &[1, 0], &length(&extensions), &extensions]
            .concat();
    let message = [&[1, 0][..], &length(&body), &body].concat();
    [&[22, 3, 1][..], &length(&message), &message].concat()
}

#[tokio::test]
async fn tls_older_than_1_2_is_refused() {
    const HANDSHAKE: u8 = 22;
    const ALERT: u8 = 21;
    const PROTOCOL_VERSION: u8 = 70;
    let dir = tempfile::tempdir().unwrap();
    Authority::new("first").write_server(dir.path());
    let file = |name: &str| dir.path().join(name).display().to_string();
    let settings = format!(
        "admin: {{ tls: {{ cert_file: '{}', key_file: '{}' }} }}\n",
        file("cert.pem"),
        file("key.pem")
    );
    let bench = Bench::new(&settings);
    let (app, (end, state)) = (Arc::clone(&bench.app), watch::channel(Shutdown::No));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = router(Admin::new(Arc::clone(&app), state.clone()));
    let serving = super::serve(&app, listener, router, state);
    let asking = async {
        let answer = async |version: [u8; 2]| {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(&hello(version)).await.unwrap();
            let mut head = [0; 7];
            socket.read_exact(&mut head).await.unwrap();
            head
        };
        assert_eq!(answer([3, 3]).await[0], HANDSHAKE, "TLS 1.2");
        for (version, name) in [([3, 2], "TLS 1.1"), ([3, 1], "TLS 1.0"), ([3, 0], "SSL 3")] {
            let head = answer(version).await;
            assert_eq!((head[0], head[6]), (ALERT, PROTOCOL_VERSION), "{name}: {head:?}");
        }
        end.send_replace(Shutdown::Now);
    };
    tokio::task::LocalSet::new().run_until(async { tokio::join!(serving, asking) }).await;
}
