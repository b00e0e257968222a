//! One end of an HTTP/2 connection of which tests decide every frame, as client or as provider.
//!
//! Not here: well-behaved HTTP/2 (`http2`).

use bursar::upstream::Connector;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Notify;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types (RFC 9113 §6).
pub mod kind {
    /// A piece of a body.
    pub const DATA: u8 = 0;
    /// A head or trailers.
    pub const HEADERS: u8 = 1;
    /// The end of a stream.
    pub const RST_STREAM: u8 = 3;
    /// Settings.
    pub const SETTINGS: u8 = 4;
    /// A sign of life.
    pub const PING: u8 = 6;
    /// No further streams.
    pub const GOAWAY: u8 = 7;
    /// Room for more data.
    pub const WINDOW_UPDATE: u8 = 8;
}

/// So long (of paused time) nobody waits for a frame: in vain, then, and the test has failed.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// On `DATA` and `HEADERS`: the stream ends here.
pub const END_STREAM: u8 = 1;
/// On `SETTINGS` and `PING`: an answer.
pub const ACK: u8 = 1;
/// On `HEADERS`: nothing continues it.
pub const END_HEADERS: u8 = 4;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFrame {
    /// See [`kind`].
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// The stream; 0 for the connection.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// One end of a connection. Dropping it closes both directions.
#[derive(Debug)]
pub struct Frames {
    io: DuplexStream,
    buffer: Vec<u8>,
}

impl Frames {
    /// Says hello as a client, with these settings.
    pub async fn client(io: DuplexStream, settings: &[(u16, u32)]) -> Self {
        let mut frames = Self { io, buffer: Vec::new() };
        frames.io.write_all(PREFACE).await.unwrap();
        frames.settings(settings).await;
        frames
    }

    /// Says hello as a server, with these settings.
    pub async fn server(io: DuplexStream, settings: &[(u16, u32)]) -> Self {
        let mut frames = Self { io, buffer: Vec::new() };
        let mut preface = [0; PREFACE.len()];
        frames.io.read_exact(&mut preface).await.unwrap();
        assert_eq!(preface, PREFACE);
        frames.settings(settings).await;
        frames
    }

    async fn settings(&mut self, settings: &[(u16, u32)]) {
        let pairs = settings.iter().flat_map(|(id, value)| {
            let mut pair = id.to_be_bytes().to_vec();
            pair.extend(value.to_be_bytes());
            pair
        });
        let payload: Vec<u8> = pairs.collect();
        self.send(kind::SETTINGS, 0, 0, &payload).await;
    }

    /// Sends a frame.
    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        assert!(self.try_send(kind, flags, stream, payload).await, "the connection is closed");
    }

    /// Sends a frame; `false` when the sidecar has closed the connection.
    pub async fn try_send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags];
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        self.io.write_all(&bytes).await.is_ok()
    }

    /// Sends the head of a request, or of a reply.
    pub async fn head(&mut self, stream: u32, flags: u8, fields: &[(&str, &str)]) {
        self.send(kind::HEADERS, flags | END_HEADERS, stream, &block(fields)).await;
    }

    /// Sends the head of a request with a JSON body.
    pub async fn post(&mut self, stream: u32, path: &str) {
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "sidecar"),
            (":path", path),
            ("content-type", "application/json"),
        ];
        self.head(stream, 0, &fields).await;
    }

    /// The next frame; `None` when the connection has ended.
    pub async fn next(&mut self) -> Option<RawFrame> {
        while self.buffer.len() < 9 || self.buffer.len() < 9 + self.length() {
            let read = tokio::time::timeout(FOR_EVER, self.io.read_buf(&mut self.buffer)).await;
            if !matches!(read.expect("a frame or an end never came"), Ok(count) if count > 0) {
                return None;
            }
        }
        let length = self.length();
        let bytes: Vec<u8> = self.buffer.drain(..9 + length).collect();
        let stream = u32::from_be_bytes(bytes[5..9].try_into().unwrap()) & 0x7fff_ffff;
        Some(RawFrame { kind: bytes[3], flags: bytes[4], stream, payload: bytes[9..].to_vec() })
    }

    fn length(&self) -> usize {
        let [high, middle, low] = self.buffer[..3] else { unreachable!() };
        u32::from_be_bytes([0, high, middle, low]) as usize
    }

    /// Reads on to the next frame of this kind that is no answer; `None` when the connection ends before.
    pub async fn until(&mut self, wanted: u8) -> Option<RawFrame> {
        loop {
            let frame = self.next().await?;
            let is_answer = matches!(frame.kind, kind::SETTINGS | kind::PING) && frame.flags & ACK != 0;
            if frame.kind == wanted && !is_answer {
                return Some(frame);
            }
        }
    }

    /// The same, for at most `time` (of paused time): `None` when it does not come.
    pub async fn until_within(&mut self, wanted: u8, time: Duration) -> Option<RawFrame> {
        tokio::time::timeout(time, self.until(wanted)).await.ok().flatten()
    }

    /// Reads frames, answering none, until the connection has ended.
    pub async fn rest(&mut self) -> Vec<RawFrame> {
        let mut all = Vec::new();
        while let Some(frame) = self.next().await {
            all.push(frame);
        }
        all
    }

    /// Tells the other side that streams after `last` were not and will not be looked at.
    pub async fn go_away(&mut self, last: u32) {
        let payload = [last.to_be_bytes(), [0; 4]].concat();
        self.send(kind::GOAWAY, 0, 0, &payload).await;
    }
}

/// Fields in HPACK, each as a literal without indexing (RFC 7541 §6.2.2).
#[must_use]
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "needs a longer length");
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A provider whose connections are served by the test, frame by frame.
#[derive(Clone, Debug, Default)]
pub struct FrameProvider(Rc<(RefCell<VecDeque<DuplexStream>>, Notify)>);

impl FrameProvider {
    /// The next connection that the sidecar makes.
    pub async fn accept(&self) -> Frames {
        self.accept_with(&[]).await
    }

    /// The same, with settings of the provider's.
    pub async fn accept_with(&self, settings: &[(u16, u32)]) -> Frames {
        loop {
            let next = self.0.0.borrow_mut().pop_front();
            match next {
                Some(io) => return Frames::server(io, settings).await,
                None => self.0.1.notified().await,
            }
        }
    }

    /// Whether connections were made that nobody has accepted.
    #[must_use]
    pub fn has_unaccepted(&self) -> bool {
        !self.0.0.borrow().is_empty()
    }

    /// Reaches every upstream through this provider.
    #[must_use]
    pub fn connector(&self) -> Connector {
        let provider = self.clone();
        Connector::Memory(Rc::new(move |_| {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            provider.0.0.borrow_mut().push_back(ours);
            provider.0.1.notify_one();
            Ok(theirs)
        }))
    }
}
