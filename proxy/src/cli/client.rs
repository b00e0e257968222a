//! A small client for a running sidecar's admin API.
//!
//! Not here: the answers' meaning (`report`).

use super::environment;
use super::fault::Fault;
use crate::config::Secret;
use anyhow::{Context, bail};
use bytes::Bytes;
use http::uri::{Authority, Uri};
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

/// Where the admin API is, and with which token to ask.
pub(crate) struct AdminClient {
    authority: Authority,
    token: Option<Secret>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// A connection, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl std::fmt::Debug for AdminClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminClient").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl AdminClient {
    /// A client for `base`, such as `http://127.0.0.1:4142`, which `said` named. For `https://` the
    /// environment tells what else is believed, and which certificate is shown.
    pub(crate) fn new(base: &str, said: &str, token_file: Option<&Path>) -> anyhow::Result<Self> {
        let Some((authority, is_tls)) = authority_of(base) else {
            let text = format!(
                "{said} {base:?} is no http:// or https:// URL of an admin API; write http://127.0.0.1:4142"
            );
            return Err(Fault::Usage(text).into());
        };
        let tls = if is_tls { Some(tls_to(&authority)?) } else { None };
        let token = match token_file {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path).map(Zeroizing::new);
                let text =
                    text.with_context(|| format!("cannot read the admin token in {}", path.display()))?;
                Some(Secret::new(text.trim()))
            }
        };
        Ok(Self { authority, token, tls })
    }

    /// Whether somebody listens there.
    pub(crate) async fn answers(&self) -> bool {
        matches!(tokio::time::timeout(Duration::from_millis(500), self.connect()).await, Ok(Ok(_)))
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let host = self.authority.host().trim_start_matches('[').trim_end_matches(']');
        let usual = if self.tls.is_some() { 443 } else { 80 };
        TcpStream::connect((host, self.authority.port_u16().unwrap_or(usual))).await
    }

    /// Agrees on TLS where the address says so.
    async fn secured(&self, socket: TcpStream) -> anyhow::Result<Box<dyn Stream>> {
        let Some((connector, name)) = &self.tls else { return Ok(Box::new(socket)) };
        let stream = connector.connect(name.clone(), socket).await.with_context(|| {
            format!(
                "cannot agree on TLS with {}: name the authority of its certificate in BURSAR_ADMIN_CA_FILE, \
                 and where it asks for one your certificate and key in BURSAR_ADMIN_CERT_FILE and \
                 BURSAR_ADMIN_KEY_FILE",
                self.authority
            )
        })?;
        Ok(Box::new(stream))
    }

    /// Asks for `path` and writes the body to `out` as it comes.
    pub(crate) async fn get(&self, path: &str, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut response = self.request(Method::GET, path, Bytes::new()).await?;
        let status = response.status();
        if !status.is_success() {
            let body = response.into_body().collect().await?.to_bytes();
            bail!("the sidecar at {} answered {status}: {}", self.authority, reason(&body));
        }
        while let Some(frame) = response.body_mut().frame().await {
            let frame = frame.context("the sidecar's answer broke off")?;
            if let Ok(data) = frame.into_data() {
                out.write_all(&data)?;
            }
        }
        Ok(())
    }

    /// Asks for the document at `path`; of a list all pages, as one document.
    pub(crate) async fn document(&self, path: &str) -> anyhow::Result<Value> {
        let mut whole: Option<Value> = None;
        let mut next = path.to_owned();
        loop {
            let mut body = Vec::new();
            self.get(&next, &mut body).await?;
            let mut page: Value =
                serde_json::from_slice(&body).context("the sidecar's answer is no document")?;
            let cursor = page.as_object_mut().and_then(|page| page.remove("next_cursor"));
            whole = Some(match whole {
                None => page,
                Some(whole) => with_rows_of(whole, page),
            });
            match cursor.as_ref().and_then(Value::as_str) {
                Some(cursor) => {
                    let joint = if path.contains('?') { '&' } else { '?' };
                    next = format!("{path}{joint}cursor={}", utf8_percent_encode(cursor, NON_ALPHANUMERIC));
                }
                None => return Ok(whole.unwrap_or_default()),
            }
        }
    }

    /// Sends `body` to `path` and returns the answer, whatever its status.
    pub(crate) async fn post(&self, path: &str, body: Bytes) -> anyhow::Result<(StatusCode, Bytes)> {
        let response = self.request(Method::POST, path, body).await?;
        let status = response.status();
        let body = response.into_body().collect().await.context("the sidecar's answer broke off")?;
        Ok((status, body.to_bytes()))
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<http::Response<hyper::body::Incoming>> {
        let socket = self.connect().await.with_context(|| {
            format!(
                "no sidecar answers at {}: start one with `bursar serve`, correct the address (--admin or \
                 BURSAR_ADMIN), or read a ledger directory with --data-dir DIR",
                self.authority
            )
        })?;
        let stream = self.secured(socket).await?;
        let (mut sender, connection) = http1::handshake(hyper_util::rt::TokioIo::new(stream)).await?;
        crate::tasks::start(async move {
            // The error, if any, also reaches the request below.
            let _ = connection.await;
        });
        let mut request = http::Request::builder().method(method).uri(path);
        request = request.header(http::header::HOST, self.authority.as_str());
        if let Some(token) = &self.token {
            request = request.header(http::header::AUTHORIZATION, token.in_header("Bearer ")?);
        }
        Ok(sender.send_request(request.body(Full::new(body))?).await?)
    }
}

/// Why the sidecar refused: the detail of its problem document (RFC 9457), or the text it sent.
///
/// A parameter that stands in this command as an option is named as the option.
pub(super) fn reason(body: &[u8]) -> String {
    let told = serde_json::from_slice::<Value>(body).ok();
    let detail = told.as_ref().and_then(|told| told.get("detail")?.as_str());
    let text = detail.map_or_else(|| String::from_utf8_lossy(body).trim().to_owned(), str::to_owned);
    in_words_of(&text, std::env::args_os().filter_map(|word| word.into_string().ok()))
}

fn in_words_of(text: &str, mut command: impl Iterator<Item = String>) -> String {
    let Some((name, rest)) = text.split_once(": ") else { return text.to_owned() };
    let option = format!("--{}", name.replace('_', "-"));
    let is_said = command.any(|word| word.split('=').next() == Some(&option));
    if is_said { format!("{option}: {rest}") } else { text.to_owned() }
}

/// A list with the rows of its next page.
fn with_rows_of(mut whole: Value, page: Value) -> Value {
    let Value::Object(page) = page else { return whole };
    for (name, rows) in page {
        let kept = whole.get_mut(&name);
        if let (Some(Value::Array(kept)), Value::Array(rows)) = (kept, rows) {
            kept.extend(rows);
        }
    }
    whole
}

/// Host and port of an `http://` or `https://` URL without a path, and whether it is the latter.
fn authority_of(base: &str) -> Option<(Authority, bool)> {
    let uri: Uri = base.parse().ok()?;
    let is_tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return None,
    };
    let is_base = uri.path() == "/" && uri.query().is_none();
    let authority = uri.authority().filter(|_| is_base)?;
    let has_port = authority.as_str() != authority.host();
    let is_whole = !authority.host().is_empty() && has_port == authority.port_u16().is_some();
    (is_whole && !authority.as_str().contains('@')).then(|| (authority.clone(), is_tls))
}

/// A PEM file that the environment names.
fn pem(variable: &str) -> anyhow::Result<Option<(PathBuf, Zeroizing<Vec<u8>>)>> {
    let Some(path) = environment::variable(variable).map(PathBuf::from) else { return Ok(None) };
    let bytes =
        std::fs::read(&path).with_context(|| format!("cannot read {} ({variable})", path.display()))?;
    Ok(Some((path, Zeroizing::new(bytes))))
}

fn tls_to(authority: &Authority) -> anyhow::Result<(TlsConnector, ServerName<'static>)> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some((path, bytes)) = pem("BURSAR_ADMIN_CA_FILE")? {
        for certificate in CertificateDer::pem_slice_iter(&bytes) {
            let bad = || format!("{} (BURSAR_ADMIN_CA_FILE) holds no certificate", path.display());
            roots.add(certificate.with_context(bad)?).with_context(bad)?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots);
    let config = match (pem("BURSAR_ADMIN_CERT_FILE")?, pem("BURSAR_ADMIN_KEY_FILE")?) {
        (Some((path, cert)), Some((_, key))) => {
            let bad = || format!("{} (BURSAR_ADMIN_CERT_FILE) and its key cannot be used", path.display());
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&cert).collect();
            let key = PrivateKeyDer::from_pem_slice(&key).with_context(bad)?;
            builder.with_client_auth_cert(chain.with_context(bad)?, key).with_context(bad)?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => bail!("BURSAR_ADMIN_CERT_FILE and BURSAR_ADMIN_KEY_FILE belong together: set both"),
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).context("the host is no name for TLS")?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_a_list_become_one() {
        let pages = [r#"{"on":"x","rows":[1,2]}"#, r#"{"on":"x","rows":[3]}"#];
        let [first, second] = pages.map(|page| serde_json::from_str::<Value>(page).unwrap());
        assert_eq!(with_rows_of(first, second).to_string(), r#"{"on":"x","rows":[1,2,3]}"#);
    }

    #[test]
    fn a_refusal_is_told_in_the_words_of_the_command() {
        let command = ["bursar", "budget", "--until=soon", "--on", "x"].map(str::to_owned);
        for (text, told) in [
            ("until: \"soon\" is not taken", "--until: \"soon\" is not taken"),
            ("on: no", "--on: no"),
            ("group_by: no", "group_by: no"),
            ("there is no budget: x", "there is no budget: x"),
            ("no", "no"),
        ] {
            assert_eq!(in_words_of(text, command.clone().into_iter()), told);
        }
        assert_eq!(
            reason(br#"{"type":"about:blank","status":400,"detail":"no such thing"}"#),
            "no such thing"
        );
        assert_eq!(reason(b" Bad Gateway\n"), "Bad Gateway");
    }

    #[test]
    fn only_urls_of_a_host_are_taken() {
        for (base, authority) in [
            ("http://127.0.0.1:4142", Some("127.0.0.1:4142")),
            ("http://127.0.0.1:4142/", Some("127.0.0.1:4142")),
            ("http://[::1]:4142", Some("[::1]:4142")),
            ("http://sidecar", Some("sidecar")),
            ("https://sidecar", Some("sidecar")),
            ("ftp://x", None),
            ("127.0.0.1:4142", None),
            ("http://", None),
            ("http://user@host", None),
            ("http://host/path", None),
            ("http://host:port", None),
            ("http://host?x", None),
        ] {
            let found = authority_of(base);
            assert_eq!(found.as_ref().map(|(found, _)| found.as_str()), authority, "{base}");
            assert!(found.is_none_or(|(_, is_tls)| is_tls == base.starts_with("https")), "{base}");
        }
    }
}
