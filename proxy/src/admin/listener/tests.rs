//! The admin listener on real sockets: TLS, certificates of clients, and others after a reload; and what it
//! answers to bytes that are no request.

use crate::admin::tests::Bench;
use crate::admin::{Admin, router};
use crate::config::{Config, Sources};
use crate::listen::Shutdown;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
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

    /// The settings of a server with a certificate of this authority.
    fn settings(&self, dir: &Path) -> String {
        self.write_server(dir);
        let file = |name: &str| dir.join(name).display().to_string();
        format!(
            "admin: {{ tls: {{ cert_file: '{}', key_file: '{}' }} }}\n",
            file("cert.pem"),
            file("key.pem")
        )
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

// === what is no request ===

/// What is sent, the status of the answer, and what its detail says.
fn refused() -> Vec<(Vec<u8>, u16, &'static str)> {
    const HOST: &str = "host: localhost\r\n";
    let head = |line: &str, more: &str| format!("{line}\r\n{HOST}{more}\r\n");
    let get = |more: &str| head("GET /api/v1/usage HTTP/1.1", more);
    let post = |more: &str| head("POST /api/v1/contracts HTTP/1.1", more);
    let large = "x".repeat(100_000);
    let many: String = (0..101).map(|number| format!("x-{number}: 1\r\n")).collect();
    let chunk = |chunk: &str| post("transfer-encoding: chunked\r\n") + chunk;
    [
        ("\x16\x03\x01\x02\x00\x01".to_owned(), 400, "request line"),
        ("garbage\r\n\r\n".to_owned(), 400, "request line"),
        ("GET /\r\n\r\n".to_owned(), 400, "request line"),
        (head("GET / HTTP/9.9", ""), 505, "HTTP version"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505, "HTTP version"),
        (head("BREW / HTTP/1.1", ""), 405, "unknown method"),
        (head("QUERY /api/v1/keys HTTP/1.1", ""), 405, "unknown method"),
        (head("get / HTTP/1.1", ""), 405, "unknown method"),
        (head("CONNECT localhost:80 HTTP/1.1", ""), 405, "CONNECT and TRACE"),
        (head("TRACE / HTTP/1.1", ""), 405, "CONNECT and TRACE"),
        (head("GET http://localhost/healthz HTTP/1.1", ""), 400, "must be a path"),
        (head("GET /api/v1/usage?from=\u{e9} HTTP/1.1", ""), 400, "forbidden character"),
        (head("GET /%zz HTTP/1.1", ""), 400, "percent-encoding"),
        (head(&format!("GET /{} HTTP/1.1", "a".repeat(70_000)), ""), 414, "too long"),
        (get(&format!("x-large: {large}\r\n")), 431, "too large"),
        (get(&many), 431, "too many headers"),
        (get(" folded: 1\r\n"), 400, "white space"),
        (get("na me: 1\r\n"), 400, "white space before the colon"),
        (get("name\r\n"), 400, "malformed header name"),
        (get("name: a\x01b\r\n"), 400, "control character"),
        (get("host: other\r\n"), 400, "more than once"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, "Host header is missing"),
        ("GET / HTTP/1.1\nhost: a\n\n".to_owned(), 400, "CRLF"),
        (post("content-length: five\r\n"), 400, "malformed Content-Length"),
        (post("content-length: -1\r\n"), 400, "malformed Content-Length"),
        (post("content-length: 1\r\ncontent-length: 2\r\n"), 400, "more than once"),
        (post("content-length: 99999999999\r\n"), 413, "larger than 64 MiB"),
        (post("transfer-encoding: gzip\r\n"), 400, "Transfer-Encoding"),
        (post("transfer-encoding: chunked\r\ncontent-length: 3\r\n"), 400, "both Transfer-Encoding"),
        (post("expect: nothing\r\n"), 417, "expectation"),
        (chunk("zz\r\n"), 400, "malformed chunk size"),
        (chunk("3;a=b\r\nabc\r\n0\r\n\r\n"), 400, "chunk extensions"),
        (chunk("3\r\nabcd\r\n"), 400, "chunk data"),
        (head("POST /api/v1/contracts HTTP/1.0", "transfer-encoding: chunked\r\n"), 400, "needs HTTP/1.1"),
    ]
    .map(|(text, status, detail)| (text.into_bytes(), status, detail))
    .into()
}

/// All that is answered until the other side ends.
async fn talked<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, sent: &[u8]) -> String {
    // What is refused early is not read to its end.
    let _ = stream.write_all(sent).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// The answer is a problem of this status that says this, with every header that answers have.
fn check_refused(answer: &str, status: u16, detail: &str, about: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{about}: {answer:?}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{about}: {head}");
    for header in
        ["content-type: application/problem+json", "x-content-type-options: nosniff", "connection: close"]
    {
        assert!(head.contains(header), "{about}: {header}: {head}");
    }
    let problem: serde_json::Value =
        serde_json::from_str(body).unwrap_or_else(|_| panic!("{about}: {body:?}"));
    assert_eq!(problem["status"], status, "{about}");
    assert!(problem["detail"].as_str().unwrap().contains(detail), "{about}: {problem}");
}

#[tokio::test]
async fn what_is_no_request_is_answered_with_a_problem_with_and_without_tls() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("first");
    let tls = authority.settings(dir.path());
    let bench = Bench::new("");
    let (app, (end, state)) = (Arc::clone(&bench.app), watch::channel(Shutdown::No));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = router(Admin::new(Arc::clone(&app), state.clone()));
    let serving = super::serve(&app, listener, router, state);
    let asking = async {
        for (sent, status, detail) in refused() {
            let about: String = String::from_utf8_lossy(&sent).chars().take(90).collect();
            let answer = talked(TcpStream::connect(address).await.unwrap(), &sent).await;
            check_refused(&answer, status, detail, &about);
        }
        // What came before is answered first, and HTTP/1.0 is served.
        let two = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/9.9\r\n\r\n";
        let answer = talked(TcpStream::connect(address).await.unwrap(), two).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        check_refused(&answer[answer.find("HTTP/1.1 505").unwrap()..], 505, "HTTP version", "the second");
        let body = b"GET /api/v1/import/usage HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc";
        let answer = talked(TcpStream::connect(address).await.unwrap(), body).await;
        check_refused(&answer, 405, "does not take this method", "a body that is nobody's");
        let old = talked(TcpStream::connect(address).await.unwrap(), b"GET /healthz HTTP/1.0\r\n\r\n").await;
        assert!(old.starts_with("HTTP/1.0 200 OK") && old.ends_with("ok\n"), "{old}");
        let nothing = b"GET /nothing HTTP/1.0\r\n\r\n";
        let old = talked(TcpStream::connect(address).await.unwrap(), nothing).await;
        assert!(old.contains(" 404 ") && old.contains("application/problem+json"), "{old}");

        app.set_config(Config::load(Sources::from_text(&tls)).unwrap());
        let client = authority.client(None);
        for (sent, status, detail) in refused() {
            let socket = TcpStream::connect(address).await.unwrap();
            let stream = client.connect(ServerName::try_from("localhost").unwrap(), socket).await.unwrap();
            let answer = talked(stream, &sent).await;
            check_refused(&answer, status, detail, &format!("TLS, {detail}"));
        }
        end.send_replace(Shutdown::Now);
    };
    tokio::task::LocalSet::new().run_until(async { tokio::join!(serving, asking) }).await;
}

#[tokio::test(start_paused = true)]
async fn a_head_or_a_body_that_stalls_is_answered_with_408_and_silence_with_nothing() {
    let bench = Bench::new("");
    let (_end, state) = watch::channel(Shutdown::No);
    let router = router(Admin::new(Arc::clone(&bench.app), state.clone()));
    for (sent, status) in [
        ("GET /healthz HTTP/1.1\r\nhost:", Some((408, "head did not arrive"))),
        (
            "POST /api/v1/contracts HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n[",
            Some((408, "body stalled")),
        ),
        ("", None),
    ] {
        let (client, server) = tokio::io::duplex(1 << 16);
        let peer = "127.0.0.1:1".parse().unwrap();
        let serving = super::talk(server, peer, router.clone(), state.clone());
        let (answer, ()) = tokio::join!(talked(client, sent.as_bytes()), serving);
        match status {
            Some((status, detail)) => check_refused(&answer, status, detail, sent),
            None => assert_eq!(answer, ""),
        }
    }
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

/// A page under a name that a stranger has resolve to loopback has no certificate that a browser takes.
#[tokio::test]
async fn behind_tls_every_name_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::new(&Authority::new("first").settings(dir.path()));
    let named = bench.ask("GET", "/api/v1/usage", &[("host", "bursar.example.com")], Vec::new()).await;
    assert_eq!(named.status, 200, "{}", named.body);
}

#[tokio::test]
async fn tls_older_than_1_2_is_refused() {
    const HANDSHAKE: u8 = 22;
    const ALERT: u8 = 21;
    const PROTOCOL_VERSION: u8 = 70;
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::new(&Authority::new("first").settings(dir.path()));
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
