//! A small client for a running sidecar's admin API.
//!
//! Not here: the answers' meaning (`report`).

use super::fault::Fault;
use anyhow::{Context, bail};
use bytes::Bytes;
use http::uri::{Authority, Uri};
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;

/// Where the admin API is, and with which token to ask.
#[derive(Debug)]
pub(crate) struct AdminClient {
    authority: Authority,
    token: Option<String>,
}

impl AdminClient {
    /// A client for `base`, such as `http://127.0.0.1:4142`, which `said` named.
    pub(crate) fn new(base: &str, said: &str, token_file: Option<&Path>) -> anyhow::Result<Self> {
        let Some(authority) = authority_of(base) else {
            let text =
                format!("{said} {base:?} is no http:// URL of an admin API; write http://127.0.0.1:4142");
            return Err(Fault::Usage(text).into());
        };
        let token = match token_file {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the admin token in {}", path.display()))?;
                Some(text.trim().to_owned())
            }
        };
        Ok(Self { authority, token })
    }

    /// Whether somebody listens there.
    pub(crate) async fn answers(&self) -> bool {
        matches!(tokio::time::timeout(Duration::from_millis(500), self.connect()).await, Ok(Ok(_)))
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let host = self.authority.host().trim_start_matches('[').trim_end_matches(']');
        TcpStream::connect((host, self.authority.port_u16().unwrap_or(80))).await
    }

    /// Asks for `path` and writes the body to `out` as it comes.
    pub(crate) async fn get(&self, path: &str, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut response = self.request(Method::GET, path, Bytes::new()).await?;
        let status = response.status();
        if !status.is_success() {
            let body = response.into_body().collect().await?.to_bytes();
            let text = String::from_utf8_lossy(&body);
            bail!("the sidecar at {} answered {status}: {}", self.authority, text.trim());
        }
        while let Some(frame) = response.body_mut().frame().await {
            let frame = frame.context("the sidecar's answer broke off")?;
            if let Ok(data) = frame.into_data() {
                out.write_all(&data)?;
            }
        }
        Ok(())
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
        let (mut sender, connection) = http1::handshake(hyper_util::rt::TokioIo::new(socket)).await?;
        crate::tasks::start(async move {
            // The error, if any, also reaches the request below.
            let _ = connection.await;
        });
        let mut request = http::Request::builder().method(method).uri(path);
        request = request.header(http::header::HOST, self.authority.as_str());
        if let Some(token) = &self.token {
            request = request.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
        }
        Ok(sender.send_request(request.body(Full::new(body))?).await?)
    }
}

/// Host and port of an `http://` URL without a path.
fn authority_of(base: &str) -> Option<Authority> {
    let uri: Uri = base.parse().ok()?;
    let is_base = uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none();
    let authority = uri.authority().filter(|_| is_base)?;
    let has_port = authority.as_str() != authority.host();
    let is_whole = !authority.host().is_empty() && has_port == authority.port_u16().is_some();
    (is_whole && !authority.as_str().contains('@')).then(|| authority.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_urls_of_a_host_are_taken() {
        for (base, authority) in [
            ("http://127.0.0.1:4142", Some("127.0.0.1:4142")),
            ("http://127.0.0.1:4142/", Some("127.0.0.1:4142")),
            ("http://[::1]:4142", Some("[::1]:4142")),
            ("http://sidecar", Some("sidecar")),
            ("https://sidecar", None),
            ("ftp://x", None),
            ("127.0.0.1:4142", None),
            ("http://", None),
            ("http://user@host", None),
            ("http://host/path", None),
            ("http://host:port", None),
            ("http://host?x", None),
        ] {
            assert_eq!(authority_of(base).as_ref().map(Authority::as_str), authority, "{base}");
        }
    }
}
