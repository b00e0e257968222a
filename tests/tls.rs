//! Upstreams that speak TLS, on real sockets: which protocol is agreed, and which certificates are believed.

use crate::transcripts::{CHAT, CHAT_PATH, CHAT_REPLY, MESSAGES, MESSAGES_PATH};
use bursar::upstream::{Connector, TlsSetup};
use bursar_domain::{Metering, Outcome, UsageRecord};
use bursar_tests::{Client, Reply, Setup, System, unhurried};
use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::TcpListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// A certificate authority whose certificate lies in a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        Self::named("an authority of the test")
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, issuer.pem()).unwrap();
        Self { issuer, file, _dir: dir }
    }

    /// A server's settings with a certificate for `names`.
    fn server(&self, names: &[&str], protocols: &[&[u8]]) -> Arc<rustls::ServerConfig> {
        self.server_until(names, protocols, 2036)
    }

    /// The same, valid until the beginning of `year`.
    fn server_until(&self, names: &[&str], protocols: &[&[u8]], year: i32) -> Arc<rustls::ServerConfig> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }
}

/// What a server has seen.
#[derive(Clone, Default)]
struct Seen {
    connections: Rc<Cell<u32>>,
    requests: Rc<RefCell<Vec<Asked>>>,
}

/// A request: its version, host and body.
type Asked = (Version, Option<String>, Bytes);

impl Seen {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let host = head.headers.get("host").map(|host| host.to_str().unwrap().to_owned());
        let host = host.or_else(|| head.uri.authority().map(ToString::to_string));
        let body = body.collect().await.unwrap().to_bytes();
        self.requests.borrow_mut().push((head.version, host, body));
        let reply = Response::builder().header("content-type", "application/json");
        Ok(reply.body(Full::from(CHAT_REPLY)).unwrap())
    }

    /// Serves every connection to `listener`, over TLS where `tls` says how.
    async fn serve(self, listener: TcpListener, tls: Arc<rustls::ServerConfig>) {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        while let Ok((socket, _)) = listener.accept().await {
            self.connections.set(self.connections.get() + 1);
            let (seen, acceptor) = (self.clone(), TlsAcceptor::from(tls.clone()));
            bursar::tasks::start(async move {
                // A client that does not believe us only leaves.
                let Ok(stream) = acceptor.accept(socket).await else { return };
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(H2);
                let service = hyper::service::service_fn(move |request| seen.clone().answer(request));
                let io = TokioIo::new(stream);
                if is_http2 {
                    let http = http2::Builder::new(bursar::tasks::WorkerExecutor);
                    let _ = http.serve_connection(io, service).await;
                } else {
                    let _ = http1::Builder::new().serve_connection(io, service).await;
                }
            });
        }
    }
}

/// Runs `test` against a sidecar whose upstream is `https://host:port`, served with `tls`.
fn run<Fut: Future<Output = ()>>(
    host: &str,
    protocol: &str,
    authority: Option<&Authority>,
    tls: Arc<rustls::ServerConfig>,
    test: impl FnOnce(System, Seen) -> Fut,
) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut setup = Setup::new("");
    setup.routes = format!(
        "builtin_routes: false\nroutes:\n  - {{ prefix: /openai, upstream: 'https://{host}:{port}', provider: openai, protocol: {protocol} }}\n  - {{ prefix: /anthropic, upstream: 'https://{host}:{port}', provider: anthropic, protocol: {protocol} }}\n"
    );
    let ca_file = authority.map(|authority| authority.file.as_path());
    setup.connector = Some(Connector::Network(TlsSetup::load(ca_file).unwrap()));
    setup.run(|system| async move {
        let seen = Seen::default();
        let serving = tokio::task::spawn_local(seen.clone().serve(listener, tls));
        test(system, seen).await;
        serving.abort();
    });
}

async fn ask(client: &mut Client, path: &str, body: &str) -> Reply {
    client.post(path, &[], body).await;
    unhurried(client.reply()).await
}

fn agrees(protocol: &str, server: &[&[u8]], expected: Version) {
    let authority = Authority::new();
    let tls = authority.server(&["localhost"], server);
    run("localhost", protocol, Some(&authority), tls, |system, seen| async move {
        let mut client = system.client();
        for _ in 0..3 {
            let reply = ask(&mut client, CHAT_PATH, CHAT).await;
            assert_eq!((reply.status(), reply.text().as_str()), (200, CHAT_REPLY), "{}", reply.text());
        }
        assert_eq!(seen.connections.get(), 1, "the connection is used again");
        for (version, host, body) in seen.requests.borrow().iter() {
            assert_eq!((*version, body.as_ref()), (expected, CHAT.as_bytes()));
            assert!(host.as_ref().unwrap().starts_with("localhost:"));
        }
        let records = system.records().await;
        assert_eq!(records.len(), 3);
        assert!(records.iter().all(|r| r.record.usage.output_total() == Some(500)));
    });
}

#[test]
fn http2_is_spoken_where_both_sides_can() {
    agrees("auto", &[H2, HTTP1], Version::HTTP_2);
    agrees("auto", &[H2], Version::HTTP_2);
    agrees("http2", &[HTTP1, H2], Version::HTTP_2);
}

#[test]
fn http1_is_spoken_where_one_side_cannot_or_may_not_speak_http2() {
    agrees("auto", &[HTTP1], Version::HTTP_11);
    agrees("auto", &[], Version::HTTP_11);
    agrees("http1", &[H2, HTTP1], Version::HTTP_11);
}

/// No request is sent, and the client is told why in its provider's shape.
fn refuses(
    host: &str,
    protocol: &str,
    authority: Option<&Authority>,
    tls: Arc<rustls::ServerConfig>,
    cause: &str,
) {
    run(host, protocol, authority, tls, |system, seen| async move {
        let mut client = system.client();
        let reply = ask(&mut client, CHAT_PATH, CHAT).await;
        assert_eq!(reply.status(), 502);
        let error = &reply.json()["error"];
        assert_eq!(
            (&error["code"], &error["type"]),
            (&"upstream_unreachable".into(), &"server_error".into())
        );
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("TLS with") && message.contains(cause), "{message}");

        let reply = ask(&mut client, MESSAGES_PATH, MESSAGES).await;
        let body = reply.json();
        assert_eq!((reply.status(), &body["type"]), (502, &"error".into()));
        assert_eq!(body["error"]["type"], "api_error");
        assert!(body["error"]["message"].as_str().unwrap().contains(cause));

        assert!(seen.requests.borrow().is_empty(), "a request, and so a key, was sent");
        let of = |record: &UsageRecord| (record.outcome, record.metering, record.http_status);
        for stored in system.records().await {
            assert_eq!(of(&stored.record), (Outcome::Error, Metering::Never, None));
        }
    });
}

#[test]
fn a_certificate_of_an_unknown_authority_is_502() {
    let authority = Authority::new();
    let tls = authority.server(&["localhost"], &[H2, HTTP1]);
    refuses("localhost", "auto", None, tls.clone(), "UnknownIssuer");
    refuses("localhost", "auto", Some(&Authority::named("another")), tls.clone(), "UnknownIssuer");
    // One that only bears the trusted one's name.
    refuses("localhost", "auto", Some(&Authority::new()), tls, "BadSignature");
}

#[test]
fn a_certificate_for_another_name_is_502() {
    let authority = Authority::new();
    let tls = authority.server(&["other.test"], &[H2, HTTP1]);
    refuses("localhost", "auto", Some(&authority), tls.clone(), "not valid for name \"localhost\"");
    refuses("127.0.0.1", "auto", Some(&authority), tls, "not valid for name \"127.0.0.1\"");
    let by_name = authority.server(&["localhost"], &[H2, HTTP1]);
    refuses("127.0.0.1", "auto", Some(&authority), by_name, "not valid for name \"127.0.0.1\"");
}

#[test]
fn a_certificate_that_has_expired_is_502() {
    let authority = Authority::new();
    let tls = authority.server_until(&["localhost"], &[HTTP1], 2021);
    refuses("localhost", "auto", Some(&authority), tls, "expired");
}

#[test]
fn a_certificate_for_an_address_is_believed_for_that_address() {
    let authority = Authority::new();
    let tls = authority.server(&["127.0.0.1"], &[HTTP1]);
    run("127.0.0.1", "auto", Some(&authority), tls, |system, _| async move {
        assert_eq!(ask(&mut system.client(), CHAT_PATH, CHAT).await.status(), 200);
    });
}

#[test]
fn an_upstream_without_the_protocol_that_the_route_demands_is_502() {
    let authority = Authority::new();
    let tls = authority.server(&["localhost"], &[HTTP1]);
    refuses("localhost", "http2", Some(&authority), tls, "NoApplicationProtocol");
}

#[test]
fn an_upstream_that_agrees_on_no_protocol_where_the_route_demands_http2_is_502_with_the_remedy() {
    let authority = Authority::new();
    let tls = authority.server(&["localhost"], &[]);
    let told = "this route has protocol: http2: write protocol: auto or protocol: http1 there (route /";
    refuses("localhost", "http2", Some(&authority), tls, told);
}

#[test]
fn an_upstream_that_speaks_no_tls_is_502() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut setup = Setup::new("");
    setup.routes = format!(
        "builtin_routes: false\nroutes:\n  - {{ prefix: /openai, upstream: 'https://{}', provider: openai }}\n",
        listener.local_addr().unwrap()
    );
    setup.connector = Some(Connector::Network(TlsSetup::load(None).unwrap()));
    setup.run(|system| async move {
        let (done, closed) = std::sync::mpsc::channel::<()>();
        let plain = std::thread::spawn(move || {
            use std::io::Write;
            let (mut socket, _) = listener.accept().unwrap();
            socket.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").unwrap();
            // Closed only when the sidecar has answered: an early reset would hide what was said.
            let _ = closed.recv();
        });
        let reply = ask(&mut system.client(), CHAT_PATH, CHAT).await;
        drop(done);
        plain.join().unwrap();
        assert_eq!(reply.status(), 502);
        assert!(reply.text().contains("cannot agree on TLS with 127.0.0.1"), "{}", reply.text());
        assert_eq!(system.record().await.outcome, Outcome::Error);
    });
}

/// What a ClientHello says in its extension of this kind (RFC 8446, section 4.1.2).
fn extension(hello: &[u8], wanted: u16) -> Option<Vec<u8>> {
    let number = |at: usize| usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
    // The record's head, the message's head, version and random.
    let mut at = 5 + 4 + 2 + 32;
    at += 1 + usize::from(hello[at]);
    at += 2 + number(at);
    at += 1 + usize::from(hello[at]);
    let end = at + 2 + number(at);
    at += 2;
    while at < end {
        let (kind, length) = (number(at), number(at + 2));
        if kind == usize::from(wanted) {
            return Some(hello[at + 4..at + 4 + length].to_vec());
        }
        at += 4 + length;
    }
    None
}

#[test]
fn tls_1_2_and_1_3_and_nothing_older_are_offered_to_upstreams() {
    const SUPPORTED_VERSIONS: u16 = 43;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut setup = Setup::new("");
    setup.routes = format!(
        "builtin_routes: false\nroutes:\n  - {{ prefix: /openai, upstream: 'https://{}', provider: openai }}\n",
        listener.local_addr().unwrap()
    );
    setup.connector = Some(Connector::Network(TlsSetup::load(None).unwrap()));
    setup.run(|system| async move {
        let upstream = std::thread::spawn(move || {
            use std::io::Read;
            let (mut socket, _) = listener.accept().unwrap();
            let mut hello = vec![0; 5];
            socket.read_exact(&mut hello).unwrap();
            let length = usize::from(u16::from_be_bytes([hello[3], hello[4]]));
            hello.resize(5 + length, 0);
            socket.read_exact(&mut hello[5..]).unwrap();
            hello
        });
        assert_eq!(ask(&mut system.client(), CHAT_PATH, CHAT).await.status(), 502, "it leaves at once");
        let hello = upstream.join().unwrap();
        assert_eq!(hello[..1], [22], "a handshake");
        let offered = extension(&hello, SUPPORTED_VERSIONS).expect("no list of versions");
        let mut versions: Vec<&[u8]> = offered[1..].chunks(2).collect();
        versions.sort();
        assert_eq!(versions, [&[3, 3], &[3, 4]], "{offered:x?}");
    });
}
