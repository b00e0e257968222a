//! A small client for a running sidecar's admin API.
//!
//! Not here: the answers' meaning (`report`).

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;

/// Where the admin API is, and with which token to ask.
#[derive(Debug)]
pub(crate) struct AdminClient {
    authority: String,
    token: Option<String>,
}

impl AdminClient {
    /// A client for `base`, such as `http://127.0.0.1:4142`.
    pub(crate) fn new(base: &str, token_file: Option<&Path>) -> anyhow::Result<Self> {
        let Some(authority) = base.strip_prefix("http://").map(|rest| rest.trim_end_matches('/')) else {
            bail!("--admin {base:?} is no http:// URL; write http://127.0.0.1:4142");
        };
        let token = match token_file {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the admin token in {}", path.display()))?;
                Some(text.trim().to_owned())
            }
        };
        Ok(Self { authority: authority.to_owned(), token })
    }

    /// Whether somebody listens there.
    pub(crate) async fn answers(&self) -> bool {
        let connect = TcpStream::connect(&self.authority);
        matches!(tokio::time::timeout(Duration::from_millis(500), connect).await, Ok(Ok(_)))
    }

    /// Asks for `path` and writes the body to `out` as it comes.
    pub(crate) async fn get(&self, path: &str, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut response = self.request(path).await?;
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

    async fn request(&self, path: &str) -> anyhow::Result<http::Response<hyper::body::Incoming>> {
        let socket = TcpStream::connect(&self.authority)
            .await
            .with_context(|| format!("no sidecar answers at {}", self.authority))?;
        let (mut sender, connection) = http1::handshake(hyper_util::rt::TokioIo::new(socket)).await?;
        crate::tasks::start(async move {
            // The error, if any, also reaches the request below.
            let _ = connection.await;
        });
        let mut request = http::Request::get(path).header(http::header::HOST, &self.authority);
        if let Some(token) = &self.token {
            request = request.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
        }
        Ok(sender.send_request(request.body(Empty::<Bytes>::new())?).await?)
    }
}
