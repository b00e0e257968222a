//! The webhook on real sockets: TLS, certificates that change, metrics, what it refuses, and its end.

use super::*;
use crate::inject::certificates::CertificateError;
use crate::inject::settings::Told;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use serde_json::Value;
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

/// A certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes a certificate for the webhook's Service that ends with this year, and its key.
    fn write_until(&self, dir: &Path, year: i32) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["bursar-inject.bursar.svc".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        std::fs::write(dir.join("tls.crt"), certificate.pem()).unwrap();
        std::fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
    }

    fn write(&self, dir: &Path) {
        self.write_until(dir, 4095);
    }

    fn client(&self) -> TlsConnector {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }
}

fn certificates(dir: &Path) -> Result<Certificates, CertificateError> {
    Certificates::open(&dir.join("tls.crt"), &dir.join("tls.key"))
}

fn settings() -> Settings {
    Settings::read(Told { image: Some("bursar:1".to_owned()), file: None }).unwrap()
}

fn injector() -> (watch::Sender<bool>, Injector) {
    let (end, ending) = watch::channel(false);
    (end, Injector::new(settings(), None, ending))
}

/// A message as it was sent, until the connection closes.
async fn exchange(address: SocketAddr, client: &TlsConnector, request: &str) -> Option<String> {
    let socket = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("bursar-inject.bursar.svc").unwrap();
    let mut stream = client.connect(name, socket).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

/// The same without TLS.
async fn plain(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// The value of a metric on a page; `None` where it is not there.
fn metric(page: &str, name: &str) -> Option<u64> {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

const METRICS: &str = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
const READY: &str = "GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn reviews_are_answered_over_tls_and_the_end_closes_idle_connections() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(dir.path());
    let (end, ending) = watch::channel(false);
    let listeners = Listeners {
        reviews: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        metrics: Some(TcpListener::bind("127.0.0.1:0").await.unwrap()),
    };
    let address = listeners.reviews.local_addr().unwrap();
    let metrics = listeners.metrics.as_ref().unwrap().local_addr().unwrap();
    let injector = Injector::new(settings(), Some(certificates(dir.path()).unwrap()), ending);
    let asking = async {
        let client = authority.client();
        assert!(exchange(address, &client, READY).await.unwrap().starts_with("HTTP/1.1 200 OK"));
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "u-1", "operation": "CREATE", "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "object": {"metadata": {}, "spec": {"containers": [{"name": "app"}]}},
            },
        })
        .to_string();
        // As API servers ask, with their patience in the query.
        let request = format!(
            "POST /mutate/namespace?timeout=5s HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n{review}",
            review.len()
        );
        let answer = exchange(address, &client, &request).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        let answer: Value = serde_json::from_str(body).unwrap();
        assert_eq!(answer["response"]["uid"], json!("u-1"));
        assert!(answer["response"]["patch"].is_string(), "{answer}");
        assert_eq!(exchange(address, &Authority::new().client(), READY).await, None);
        let failed = async || {
            metric(&plain(metrics, METRICS).await, "bursar_inject_tls_handshakes_failed_total").unwrap()
        };
        let before = failed().await;
        assert!(!plain(address, READY).await.contains("200 OK"));
        assert!(failed().await > before);

        let page = plain(metrics, METRICS).await;
        assert!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
        assert!(page.contains("content-type: application/openmetrics-text; version=1.0.0"), "{page}");
        assert_eq!(metric(&page, "bursar_inject_reviews_total{outcome=\"injected\"}"), Some(1));
        assert_eq!(metric(&page, "bursar_inject_review_duration_seconds_count"), Some(1));
        let expiry = metric(&page, "bursar_inject_certificate_expiry_timestamp_seconds{}");
        assert_eq!(expiry, Some(67_090_032_000));
        assert!(plain(metrics, READY).await.contains("ready"));
        // Neither listener answers what the other is for.
        assert!(plain(metrics, &request).await.starts_with("HTTP/1.1 404"));
        assert!(exchange(address, &client, METRICS).await.unwrap().starts_with("HTTP/1.1 404"));

        let socket = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("bursar-inject.bursar.svc").unwrap();
        let mut idle = client.connect(name, socket).await.unwrap();
        idle.write_all(READY.replace("connection: close\r\n", "").as_bytes()).await.unwrap();
        let mut first = [0; 15];
        idle.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200 OK");
        end.send_replace(true);
        let mut rest = Vec::new();
        let _ = idle.read_to_end(&mut rest).await;
    };
    tokio::task::LocalSet::new().run_until(async { tokio::join!(serve(injector, listeners), asking) }).await;
    assert!(TcpStream::connect(address).await.is_err());
    assert!(TcpStream::connect(metrics).await.is_err());
}

#[test]
fn another_certificate_is_taken_and_one_that_does_not_fit_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let error = certificates(path).unwrap_err().to_string();
    assert!(error.contains("tls.crt") && error.contains("--tls-cert"), "{error}");
    Authority::new().write(path);
    let held = certificates(path).unwrap();
    let first = held.current();
    assert!(matches!(held.look(), Looked::Same));
    let key = std::fs::read_to_string(path.join("tls.key")).unwrap();
    Authority::new().write(path);
    let right = std::fs::read_to_string(path.join("tls.key")).unwrap();

    std::fs::write(path.join("tls.key"), &key).unwrap();
    assert!(matches!(held.look(), Looked::Unusable(said) if said.contains("cannot be used with the key")));
    assert!(matches!(held.look(), Looked::Same));
    assert!(Arc::ptr_eq(&first, &held.current()));
    std::fs::remove_file(path.join("tls.key")).unwrap();
    assert!(matches!(held.look(), Looked::Unusable(said) if said.contains("tls.key")));
    assert!(matches!(held.look(), Looked::Same));
    assert!(certificates(path).unwrap_err().to_string().contains("--tls-key"));
    std::fs::write(path.join("tls.key"), right).unwrap();
    assert!(matches!(held.look(), Looked::Replaced));
    assert!(!Arc::ptr_eq(&first, &held.current()));
    std::fs::write(path.join("tls.key"), "nothing").unwrap();
    let error = certificates(path).unwrap_err().to_string();
    assert!(error.contains("tls.key: holds no private key"), "{error}");
}

#[test]
fn each_change_of_the_certificate_is_counted_and_the_time_is_that_of_the_one_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let authority = Authority::new();
    authority.write_until(path, 2030);
    let (_end, ending) = watch::channel(false);
    let injector = Injector::new(settings(), Some(certificates(path).unwrap()), ending);
    // What is told after a look: when it expires, whether it is in force, changes taken and refused.
    let look = || {
        injector.look(injector.certificates.as_ref().unwrap());
        let page = injector.metrics.page();
        [
            "expiry_timestamp_seconds{}",
            "last_reload_successful",
            "reloads_total{result=\"applied\"}",
            "reloads_total{result=\"refused\"}",
        ]
        .map(|name| metric(&page, &format!("bursar_inject_certificate_{name}")).unwrap())
    };
    let (in_2030, in_2031) = (1_924_905_600, 1_956_441_600);
    assert_eq!(look(), [in_2030, 1, 0, 0]);
    std::fs::remove_file(path.join("tls.key")).unwrap();
    assert_eq!(look(), [in_2030, 0, 0, 1]);
    assert_eq!(look(), [in_2030, 0, 0, 1]);
    authority.write_until(path, 2031);
    assert_eq!(look(), [in_2031, 1, 1, 1]);
    assert_eq!(look(), [in_2031, 1, 1, 1]);
}

#[tokio::test]
async fn what_is_answered_with_an_error_counts_as_one_and_probes_do_not() {
    let (_end, injector) = injector();
    let ask = async |request: http::request::Builder, body: &'static str| {
        let request = request.header("content-type", "application/json");
        injector.respond(request.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap()).await;
    };
    ask(Request::get("/healthz"), "").await;
    ask(Request::get("/mutate"), "").await;
    ask(Request::post("/elsewhere"), "{}").await;
    let count = |outcome: &str| {
        let name = format!("bursar_inject_reviews_total{{outcome=\"{outcome}\"}}");
        metric(&injector.metrics.page(), &name).unwrap()
    };
    assert_eq!((count("error"), count("no_pod")), (0, 0));
    ask(Request::post("/mutate"), "{}").await;
    ask(Request::post("/mutate/namespace"), "not json").await;
    assert_eq!((count("error"), count("no_pod")), (2, 0));
    let review =
        r#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u-1"}}"#;
    ask(Request::post("/mutate"), review).await;
    assert_eq!((count("error"), count("no_pod")), (2, 1));
    let page = injector.metrics.page();
    assert_eq!(metric(&page, "bursar_inject_review_duration_seconds_count"), Some(3));
    assert!(!page.contains("expiry_timestamp_seconds{}"), "there is no certificate");
}

#[tokio::test]
async fn the_listener_of_metrics_says_what_it_takes() {
    let (end, injector) = injector();
    for (method, path, want) in [
        (Method::GET, "/metrics", 200),
        (Method::HEAD, "/metrics", 200),
        (Method::POST, "/metrics", 405),
        (Method::GET, "/healthz", 200),
        (Method::GET, "/readyz", 200),
        (Method::POST, "/readyz", 405),
        (Method::POST, "/mutate", 404),
        (Method::GET, "/", 404),
    ] {
        assert_eq!(injector.tell(&method, path).status(), want, "{method} {path}");
    }
    end.send_replace(true);
    assert_eq!(injector.tell(&Method::GET, "/readyz").status(), 503);
    assert_eq!(injector.tell(&Method::GET, "/metrics").status(), 200);
}

/// Whether a request is answered with this status and a text that says this.
async fn check(method: &str, path: &str, kind: Option<&str>, body: &'static [u8], want: (u16, &str)) {
    let (_end, injector) = injector();
    let mut request = Request::builder().method(method).uri(path);
    if let Some(kind) = kind {
        request = request.header("content-type", kind);
    }
    let answer = injector.respond(request.body(Full::new(Bytes::from_static(body))).unwrap()).await;
    let status = answer.status().as_u16();
    let headers = answer.headers().clone();
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&text);
    assert_eq!(status, want.0, "{method} {path}: {text}");
    assert!(text.contains(want.1), "{method} {path}: {text}");
    let is_problem = headers["content-type"] == "application/problem+json";
    assert_eq!(is_problem, status >= 400, "{method} {path}");
    assert_eq!(headers.contains_key("allow"), status == 405);
}

#[tokio::test]
async fn what_is_no_review_is_answered_with_its_reason() {
    const LARGE: &[u8] = &[b' '; BODY_BYTES_MAX as usize + 1];
    let json = Some("application/json");
    check("GET", "/healthz", None, b"", (200, "ok")).await;
    check("HEAD", "/readyz", None, b"", (200, "ready")).await;
    check("POST", "/healthz", None, b"", (405, "the header allow")).await;
    check("GET", "/mutate", None, b"", (405, "the header allow")).await;
    check("POST", "/", json, b"", (404, "/mutate")).await;
    check("POST", "/mutate/", json, b"", (404, "/mutate")).await;
    check("POST", "/mutate", None, b"{}", (415, "send application/json")).await;
    check("POST", "/mutate", Some("text/plain"), b"{}", (415, "content-type \\\"text/plain\\\"")).await;
    check(
        "POST",
        "/mutate",
        Some("Application/JSON; charset=utf-8"),
        b"{}",
        (400, "apiVersion is not there"),
    )
    .await;
    check("POST", "/mutate", json, b"", (400, "no admission review")).await;
    check("POST", "/mutate?timeout=5s", json, b"not json", (400, "no admission review")).await;
    check("POST", "/mutate", json, LARGE, (413, "4194304 bytes")).await;
}

#[tokio::test]
async fn a_process_that_ends_is_not_ready() {
    let (end, injector) = injector();
    end.send_replace(true);
    let ask = |path: &str| injector.respond(Request::get(path).body(Full::<Bytes>::default()).unwrap());
    assert_eq!(ask("/readyz").await.status(), 503);
    assert_eq!(ask("/healthz").await.status(), 200);
}

/// A body that never comes, of a length that nobody knows.
struct Silence;

impl Body for Silence {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        std::task::Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up_and_gives_its_room_back() {
    let (_end, injector) = injector();
    let silent = || {
        let request = Request::post("/mutate").header("content-type", "application/json");
        injector.respond(request.body(Silence).unwrap())
    };
    // More than there is room for.
    let all = futures_util::future::join_all((0..20).map(|_| silent())).await;
    assert!(all.iter().all(|answer| answer.status() == 408));
    assert_eq!(injector.bodies.available_permits(), BODIES_BYTES_MAX as usize);
}
