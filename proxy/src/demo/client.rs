//! The clients of the demonstration: one connection, one call after another.
//!
//! Not here: which calls (`traffic`).

use super::TAG;
use super::provider::{Ending, REPLY};
use super::traffic::{Call, Dialect};
use crate::tasks;
use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use serde_json::json;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// A client.
pub(super) struct Client {
    proxy: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// One that calls `proxy`.
    pub(super) fn new(proxy: SocketAddr) -> Self {
        Self { proxy, sender: None }
    }

    /// Sends a call and hears its answer to the end.
    pub(super) async fn call(&mut self, call: &Call) -> anyhow::Result<()> {
        let request = request(call)?;
        let sender = self.sender().await?;
        let response = sender.send_request(request).await.context("the proxy did not answer")?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await;
        let expected = match call.reply.ending {
            Ending::Whole | Ending::Stream | Ending::Broken => 200,
            Ending::Busy => 429,
            Ending::Failed => 500,
        };
        if status != expected {
            let text = body.map(|body| body.to_bytes()).unwrap_or_default();
            bail!("the proxy answered {status} for {expected}: {}", String::from_utf8_lossy(&text));
        }
        match (call.reply.ending, body) {
            (Ending::Broken, _) => self.sender = None,
            (_, body) => drop(body.context("the answer broke off")?),
        }
        Ok(())
    }

    async fn sender(&mut self) -> anyhow::Result<&mut SendRequest<Full<Bytes>>> {
        if let Some(mut sender) = self.sender.take()
            && sender.ready().await.is_ok()
        {
            return Ok(self.sender.insert(sender));
        }
        let socket = TcpStream::connect(self.proxy).await.context("cannot reach the proxy")?;
        socket.set_nodelay(true)?;
        let (sender, connection) = handshake(hyper_util::rt::TokioIo::new(socket)).await?;
        tasks::start(async move {
            // Its error reaches the call that it cuts.
            let _ = connection.await;
        });
        Ok(self.sender.insert(sender))
    }
}

fn request(call: &Call) -> anyhow::Result<Request<Full<Bytes>>> {
    let (path, body) = match call.dialect {
        Dialect::Chat => (
            "/demonstration/openai/v1/chat/completions",
            json!({ "model": call.model, "stream": call.is_stream(), "max_tokens": 4096,
                    "messages": [{ "role": "user", "content": "demonstration" }] }),
        ),
        Dialect::Embeddings => {
            ("/demonstration/openai/v1/embeddings", json!({ "model": call.model, "input": "demonstration" }))
        }
        Dialect::Messages => (
            "/demonstration/anthropic/v1/messages",
            json!({ "model": call.model, "stream": call.is_stream(), "max_tokens": 4096,
                    "messages": [{ "role": "user", "content": "demonstration" }] }),
        ),
    };
    let mut request = Request::builder().method(Method::POST).uri(path).header("host", "demonstration");
    let named = [
        ("x-bursar-team", call.team),
        ("x-bursar-workload", call.workload),
        ("x-bursar-customer", call.customer),
        ("x-bursar-session", call.session.as_deref()),
        ("x-bursar-tag-feature", call.feature),
    ];
    for (name, value) in named {
        if let Some(value) = value {
            request = request.header(name, value);
        }
    }
    request = request
        .header(format!("x-bursar-tag-{}", TAG.0), TAG.1)
        .header("content-type", "application/json")
        .header("authorization", "Bearer demonstration")
        .header(REPLY, call.reply.header());
    Ok(request.body(Full::new(Bytes::from(body.to_string())))?)
}
