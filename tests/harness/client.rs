//! A client that speaks raw HTTP/1.1, so that tests decide every byte.

use crate::provider::{chunk, header};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// One connection to the sidecar. Dropping it closes both directions.
#[derive(Debug)]
pub struct Client {
    io: DuplexStream,
    buffer: Vec<u8>,
}

/// A reply as it came.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status line and headers, as text.
    pub head: String,
    /// The body without its transfer coding.
    pub body: Vec<u8>,
    /// Trailers of a chunked body, as text.
    pub trailers: String,
    /// Whether the body ended as its framing promised.
    pub whole: bool,
}

impl Reply {
    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        status(&self.head)
    }

    /// The value of a header, if it is there.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.text()))
    }
}

/// The status code in the text of a head.
#[must_use]
pub fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status: {head:?}"))
}

impl Client {
    /// Speaks over `io`.
    #[must_use]
    pub fn new(io: DuplexStream) -> Self {
        Self { io, buffer: Vec::new() }
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.unwrap();
    }

    /// Sends bytes; `false` when the sidecar has closed the connection.
    pub async fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.io.write_all(bytes).await.is_ok()
    }

    /// Sends as much of `bytes` as is taken within a second (of paused time); says how much that was.
    pub async fn push(&mut self, bytes: &[u8]) -> usize {
        let mut sent = 0;
        while sent < bytes.len() {
            let write = self.io.write(&bytes[sent..]);
            match tokio::time::timeout(Duration::from_secs(1), write).await {
                Ok(Ok(count)) if count > 0 => sent += count,
                _ => break,
            }
        }
        sent
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&mut self) {
        self.io.shutdown().await.unwrap();
    }

    /// Sends a request without a body.
    pub async fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: sidecar\r\n{}\r\n", lines(headers));
        self.send(head.as_bytes()).await;
    }

    /// Sends a request with a JSON body.
    pub async fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &str) {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nhost: sidecar\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{}\r\n",
            body.len(),
            lines(headers)
        );
        request.push_str(body);
        self.send(request.as_bytes()).await;
    }

    /// Sends the head of a request whose body will come in chunks.
    pub async fn begin(&mut self, path: &str, headers: &[(&str, &str)]) {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: sidecar\r\ntransfer-encoding: chunked\r\n{}\r\n",
            lines(headers)
        );
        self.send(head.as_bytes()).await;
    }

    /// Sends a chunk.
    pub async fn chunk(&mut self, bytes: &[u8]) {
        self.send(&chunk(bytes)).await;
    }

    /// Reads up to the end of a head; `None` when the connection was closed before.
    pub async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                return Some(String::from_utf8(self.buffer.drain(..at + 4).collect()).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Reads one whole reply to a request that is not HEAD.
    pub async fn reply(&mut self) -> Reply {
        let head = self.head().await.expect("the connection was closed before a reply");
        self.body(head).await
    }

    /// Reads the body that belongs to `head`.
    pub async fn body(&mut self, head: String) -> Reply {
        if header(&head, "transfer-encoding").is_some() {
            let mut trailers = String::new();
            let (body, whole) = self.chunked(&mut trailers).await;
            return Reply { head, body, trailers, whole };
        }
        let length = header(&head, "content-length").map_or(0, |l| l.parse().unwrap());
        let (body, whole) = self.exactly(length).await;
        Reply { head, body, trailers: String::new(), whole }
    }

    /// Reads until at least `count` raw bytes have come or the connection ends; returns what is there.
    pub async fn raw(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            if !self.more().await {
                break;
            }
        }
        std::mem::take(&mut self.buffer)
    }

    /// Reads raw bytes until they contain `text`; `false` when the connection ended before.
    pub async fn sees(&mut self, text: &str) -> bool {
        loop {
            if self.buffer.windows(text.len()).any(|w| w == text.as_bytes()) {
                return true;
            }
            if !self.more().await {
                return false;
            }
        }
    }

    /// The same, for at most `time` (of paused time).
    pub async fn sees_within(&mut self, text: &str, time: Duration) -> bool {
        tokio::time::timeout(time, self.sees(text)).await.unwrap_or(false)
    }

    /// Everything until the connection ends.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Whether nothing at all comes for `time` (of paused time), not even the end.
    pub async fn hears_nothing_for(&mut self, time: Duration) -> bool {
        self.buffer.is_empty() && tokio::time::timeout(time, self.more()).await.is_err()
    }

    /// Whether the sidecar has closed the connection, having sent nothing more.
    pub async fn closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.more().await
    }

    async fn more(&mut self) -> bool {
        matches!(self.io.read_buf(&mut self.buffer).await, Ok(n) if n > 0)
    }

    async fn exactly(&mut self, length: usize) -> (Vec<u8>, bool) {
        while self.buffer.len() < length {
            if !self.more().await {
                return (std::mem::take(&mut self.buffer), false);
            }
        }
        (self.buffer.drain(..length).collect(), true)
    }

    async fn chunked(&mut self, trailers: &mut String) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            let Some(line) = self.line().await else { return (body, false) };
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            if size == 0 {
                while let Some(line) = self.line().await {
                    if line == "\r\n" {
                        return (body, true);
                    }
                    trailers.push_str(&line);
                }
                return (body, false);
            }
            let (data, whole) = self.exactly(size).await;
            body.extend(data);
            if !whole || self.line().await.is_none() {
                return (body, false);
            }
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                return Some(String::from_utf8(self.buffer.drain(..at + 2).collect()).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }
}

fn lines(headers: &[(&str, &str)]) -> String {
    headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}
