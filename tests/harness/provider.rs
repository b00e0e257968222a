//! A fake provider: answers each request with a scripted list of steps, byte for byte.
//!
//! Not here: what real providers send; scenarios write that.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Notify;

/// One step of an answer.
#[derive(Clone, Debug)]
pub enum Step {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Waits (in paused time).
    Wait(Duration),
    /// Waits until the test says so.
    Until(Rc<Notify>),
    /// Reads, behind the request, up to these bytes.
    Hear(Vec<u8>),
    /// Closes the connection, whatever was promised.
    Close,
    /// Never says anything again, but keeps the connection open until the sidecar closes it.
    Stall,
}

/// What happens when a request arrives.
#[derive(Clone, Debug, Default)]
struct Script {
    /// When its head is there; its body is read afterwards.
    at_head: Vec<Step>,
    /// When all of it is there.
    at_end: Vec<Step>,
}

/// What the provider received.
#[derive(Clone, Debug)]
pub struct Received {
    /// Request line and headers, as text.
    pub head: String,
    /// The body without its transfer coding.
    pub body: Vec<u8>,
    /// Trailers of a chunked body, as text.
    pub trailers: String,
}

impl Received {
    /// The value of a header, if it is there.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// The request line.
    #[must_use]
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// The value of header `name` in the text of a head.
#[must_use]
pub fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .find(|(n, _)| n.trim().eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// The scripts still to be played and the requests received so far.
#[derive(Clone, Debug, Default)]
pub struct Provider(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    scripts: RefCell<VecDeque<Script>>,
    raw: RefCell<Vec<u8>>,
    received: RefCell<Vec<Received>>,
    connections: Cell<u32>,
    open: Cell<u32>,
    arrived: Cell<usize>,
    sent: Cell<usize>,
    unscripted: Cell<u32>,
    refuse: Cell<bool>,
}

/// Counts a connection while it is open.
struct Open(Provider);

impl Drop for Open {
    fn drop(&mut self) {
        let open = &self.0.0.open;
        open.set(open.get() - 1);
    }
}

impl Provider {
    /// Answers the next request with `steps`, when it has arrived whole.
    pub fn script(&self, steps: impl IntoIterator<Item = Step>) {
        let script = Script { at_end: steps.into_iter().collect(), ..Script::default() };
        self.0.scripts.borrow_mut().push_back(script);
    }

    /// Answers the next request with `steps` as soon as its head is there.
    pub fn script_early(&self, steps: impl IntoIterator<Item = Step>) {
        let script = Script { at_head: steps.into_iter().collect(), ..Script::default() };
        self.0.scripts.borrow_mut().push_back(script);
    }

    /// Reads the body of the next request only after `first`, and then answers with `steps`.
    pub fn script_late(&self, first: Step, steps: impl IntoIterator<Item = Step>) {
        let script = Script { at_head: vec![first], at_end: steps.into_iter().collect() };
        self.0.scripts.borrow_mut().push_back(script);
    }

    /// Answers the next request with a complete reply.
    pub fn reply(&self, status: u16, headers: &[(&str, &str)], body: &[u8]) {
        self.script([Step::Send(reply(status, headers, body))]);
    }

    /// Answers the next request with JSON.
    pub fn json(&self, status: u16, body: &str) {
        self.reply(status, &[("content-type", "application/json")], body.as_bytes());
    }

    /// Answers the next request with an event stream, one chunk per event, properly ended.
    pub fn sse(&self, events: &[&str]) {
        let mut steps = vec![Step::Send(SSE_HEAD.to_vec())];
        steps.extend(events.iter().map(|event| Step::Send(chunk(event.as_bytes()))));
        steps.push(Step::Send(b"0\r\n\r\n".to_vec()));
        self.script(steps);
    }

    /// From now on connections are refused.
    pub fn refuse(&self) {
        self.0.refuse.set(true);
    }

    /// Forgets the scripts that were not played and what was received.
    pub fn start_anew(&self) {
        self.0.scripts.borrow_mut().clear();
        self.0.received.borrow_mut().clear();
    }

    /// The requests received so far.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.0.received.borrow().clone()
    }

    /// The only request received so far.
    #[must_use]
    pub fn request(&self) -> Received {
        let mut received = self.received();
        assert_eq!(received.len(), 1, "one request was expected: {received:#?}");
        received.remove(0)
    }

    /// How many connections were made.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.0.connections.get()
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.0.open.get()
    }

    /// How many bytes have arrived, heads and framing included.
    #[must_use]
    pub fn arrived(&self) -> usize {
        self.0.arrived.get()
    }

    /// Whether `text` was among the first bytes that arrived.
    #[must_use]
    pub fn has_seen(&self, text: &str) -> bool {
        self.0.raw.borrow().windows(text.len()).any(|w| w == text.as_bytes())
    }

    /// How many bytes could be sent, heads and framing included.
    #[must_use]
    pub fn sent(&self) -> usize {
        self.0.sent.get()
    }

    /// How many requests came that no script was there for.
    #[must_use]
    pub fn unscripted(&self) -> u32 {
        self.0.unscripted.get()
    }

    /// A new connection to the provider.
    ///
    /// # Errors
    /// When the provider refuses connections.
    pub fn connect(&self) -> io::Result<DuplexStream> {
        let inner = &self.0;
        if inner.refuse.get() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        inner.connections.set(inner.connections.get() + 1);
        inner.open.set(inner.open.get() + 1);
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let open = Open(self.clone());
        bursar::tasks::start(async move {
            let serving = Connection { io: ours, buffer: Vec::new(), provider: open.0.clone() };
            // A broken pipe only means that the sidecar has left.
            let _ = serving.serve().await;
            drop(open);
        });
        Ok(theirs)
    }
}

/// So much of what arrives is kept as it came.
const RAW_KEPT: usize = 64 * 1024;

/// One connection.
struct Connection {
    io: DuplexStream,
    buffer: Vec<u8>,
    provider: Provider,
}

impl Connection {
    async fn serve(mut self) -> io::Result<()> {
        loop {
            let Some(end) = self.until(b"\r\n\r\n").await? else { return Ok(()) };
            let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
            let script = self.provider.0.scripts.borrow_mut().pop_front();
            let Some(Script { at_head, at_end }) = script else {
                self.provider.0.unscripted.set(self.provider.0.unscripted.get() + 1);
                return Ok(());
            };
            if !self.play(&at_head).await? {
                return Ok(());
            }
            let request = self.request(head).await?;
            self.provider.0.received.borrow_mut().push(request);
            if !self.play(&at_end).await? {
                return Ok(());
            }
        }
    }

    /// Plays a script; `false` when the connection is to be closed.
    async fn play(&mut self, steps: &[Step]) -> io::Result<bool> {
        for step in steps {
            match step {
                Step::Send(bytes) => self.send(bytes).await?,
                Step::Wait(time) => tokio::time::sleep(*time).await,
                Step::Until(signal) => signal.notified().await,
                Step::Hear(bytes) => match self.until(bytes).await? {
                    Some(end) => drop(self.buffer.drain(..end)),
                    None => return Ok(false),
                },
                Step::Close => return Ok(false),
                Step::Stall => {
                    let mut rest = [0_u8; 1024];
                    while self.io.read(&mut rest).await? > 0 {}
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    async fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.io.write(bytes).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.provider.0.sent.set(self.provider.0.sent.get() + count);
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Reads the rest of the request with this head.
    async fn request(&mut self, head: String) -> io::Result<Received> {
        let mut body = Vec::new();
        let mut trailers = String::new();
        if header(&head, "transfer-encoding").is_some() {
            loop {
                let line = self.line().await?;
                let size = usize::from_str_radix(line.trim(), 16).unwrap();
                if size == 0 {
                    break;
                }
                body.extend(self.exactly(size).await?);
                assert_eq!(self.line().await?, "\r\n");
            }
            loop {
                let line = self.line().await?;
                if line == "\r\n" {
                    break;
                }
                trailers.push_str(&line);
            }
        } else if let Some(length) = header(&head, "content-length") {
            body = self.exactly(length.parse().unwrap()).await?;
        }
        Ok(Received { head, body, trailers })
    }

    async fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..count).collect())
    }

    async fn line(&mut self) -> io::Result<String> {
        let end = self.until(b"\r\n").await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(String::from_utf8(self.buffer.drain(..end).collect()).unwrap())
    }

    /// Reads until `end` is in the buffer; the position after it, or `None` when the sidecar has closed.
    async fn until(&mut self, end: &[u8]) -> io::Result<Option<usize>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return Ok(Some(at + end.len()));
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    async fn more(&mut self) -> io::Result<bool> {
        let before = self.buffer.len();
        let count = self.io.read_buf(&mut self.buffer).await?;
        let mut raw = self.provider.0.raw.borrow_mut();
        if raw.len() < RAW_KEPT {
            raw.extend_from_slice(&self.buffer[before..]);
        }
        self.provider.0.arrived.set(self.provider.0.arrived.get() + count);
        Ok(count > 0)
    }
}

/// The head of an event stream in chunked coding.
pub const SSE_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// A complete reply with a length.
#[must_use]
pub fn reply(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} Scripted\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// `bytes` as one chunk of chunked coding.
#[must_use]
pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk
}
