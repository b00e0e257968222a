//! A small OpenTelemetry collector for tests: it speaks OTLP over gRPC and HTTP, keeps what came, and can
//! misbehave.
//!
//! Invariant: it reads Protocol Buffers by itself, so that a mistake in how they are written shows.
//!
//! Not here: what must arrive (the tests).

use bursar::tasks;
use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// After this a test that hangs fails. Nothing is expected to take so long.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

/// How it is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Grpc,
    Http,
}

/// What it does with what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Takes it.
    Good,
    /// Reads it and never answers.
    Silent,
    /// Answers with what means nothing.
    Garbage,
    /// Answers that it is overloaded.
    Overloaded,
    /// Sends the caller somewhere else.
    Elsewhere(SocketAddr),
}

/// What it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// The message, uncompressed and without gRPC's prefix.
    pub(crate) message: Vec<u8>,
}

/// A running collector; it ends with the test's process.
#[derive(Debug)]
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    sent: Receiver<Sent>,
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

impl Collector {
    pub(crate) fn start(speaks: Speaks, manner: Manner) -> Self {
        let (sender, sent) = channel();
        let (ready, address) = channel();
        let main = move || async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            ready.send(listener.local_addr().unwrap()).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                tasks::start(serve(TokioIo::new(socket), speaks, manner, sender.clone()));
            }
        };
        tasks::thread("collector".to_owned(), main).unwrap();
        Self { address: address.recv_timeout(WATCHDOG).unwrap(), sent }
    }

    /// What comes next.
    pub(crate) fn next(&self) -> Sent {
        self.sent.recv_timeout(WATCHDOG).expect("something is sent")
    }

    /// Everything that has come.
    pub(crate) fn all(&self) -> Vec<Sent> {
        self.sent.try_iter().collect()
    }
}

async fn serve(io: TokioIo<tokio::net::TcpStream>, speaks: Speaks, manner: Manner, sent: Sender<Sent>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let sent = sent.clone();
        async move {
            // The test may have ended.
            let _ = sent.send(read(request, speaks).await);
            if manner == Manner::Silent {
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(answer(speaks, manner))
        }
    });
    match speaks {
        Speaks::Http => drop(http1::Builder::new().serve_connection(io, service).await),
        Speaks::Grpc => {
            drop(http2::Builder::new(tasks::WorkerExecutor).serve_connection(io, service).await);
        }
    }
}

async fn read(request: Request<Incoming>, speaks: Speaks) -> Sent {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let gzip = |name: &str| head.headers.get(name).is_some_and(|value| value == "gzip");
    let (message, compressed) = match speaks {
        Speaks::Http => (body.to_vec(), gzip("content-encoding")),
        Speaks::Grpc => {
            let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
            assert_eq!(length, body.len() - 5, "one whole message");
            assert_eq!(body[0] == 1, gzip("grpc-encoding"));
            (body[5..].to_vec(), body[0] == 1)
        }
    };
    let message = if compressed {
        let mut plain = Vec::new();
        GzDecoder::new(message.as_slice()).read_to_end(&mut plain).unwrap();
        plain
    } else {
        message
    };
    Sent { path: head.uri.path().to_owned(), headers: head.headers, message }
}

fn answer(speaks: Speaks, manner: Manner) -> Response<Body> {
    let grpc = speaks == Speaks::Grpc;
    let kind = if grpc { "application/grpc" } else { "application/x-protobuf" };
    let answer = Response::builder().header("content-type", kind);
    let full = |bytes: &'static [u8]| Full::new(Bytes::from_static(bytes)).boxed();
    let trailers = |bytes: &'static [u8], status: &'static str| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(status));
        let frames =
            [Ok::<_, Infallible>(Frame::data(Bytes::from_static(bytes))), Ok(Frame::trailers(trailers))];
        StreamBody::new(futures_util::stream::iter(frames)).boxed()
    };
    let answer = match (manner, grpc) {
        (Manner::Good | Manner::Silent, true) => answer.body(trailers(&[0; 5], "0")),
        (Manner::Good | Manner::Silent, false) => answer.body(full(b"")),
        (Manner::Garbage, true) => answer.body(trailers(b"\xff\xff<html>", "banana")),
        (Manner::Garbage, false) => answer.body(full(b"\xff\x0a\xff<html>")),
        (Manner::Overloaded, true) => answer.body(trailers(b"", "14")),
        (Manner::Overloaded, false) => answer.status(503).body(full(b"slow down")),
        (Manner::Elsewhere(to), _) => {
            answer.status(302).header("location", format!("http://{to}/")).body(full(b""))
        }
    };
    answer.unwrap()
}

// === Protocol Buffers

/// A field's value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

/// A message's fields in their order.
#[derive(Clone, Debug)]
pub(crate) struct Message(Vec<(u64, Value)>);

impl Message {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let mut at = 0;
        let mut fields = Vec::new();
        while at < bytes.len() {
            let tag = varint(bytes, &mut at);
            let value = match tag & 7 {
                0 => Value::Number(varint(bytes, &mut at)),
                1 => Value::Number(fixed::<8>(bytes, &mut at)),
                5 => Value::Number(fixed::<4>(bytes, &mut at)),
                2 => {
                    let length = varint(bytes, &mut at) as usize;
                    at += length;
                    Value::Bytes(bytes[at - length..at].to_vec())
                }
                kind => panic!("no such kind of field: {kind}"),
            };
            fields.push((tag >> 3, value));
        }
        Self(fields)
    }

    pub(crate) fn bytes(&self, field: u64) -> Vec<Vec<u8>> {
        let bytes = |value: &Value| match value {
            Value::Bytes(bytes) => bytes.clone(),
            Value::Number(number) => panic!("field {field} is the number {number}"),
        };
        self.0.iter().filter(|(known, _)| *known == field).map(|(_, value)| bytes(value)).collect()
    }

    pub(crate) fn messages(&self, field: u64) -> Vec<Self> {
        self.bytes(field).iter().map(|bytes| Self::read(bytes)).collect()
    }

    pub(crate) fn message(&self, field: u64) -> Self {
        self.messages(field).into_iter().next().unwrap_or_else(|| panic!("no field {field}: {self:?}"))
    }

    pub(crate) fn text(&self, field: u64) -> String {
        let bytes = self.bytes(field).into_iter().next().unwrap_or_default();
        String::from_utf8(bytes).unwrap()
    }

    pub(crate) fn hex(&self, field: u64) -> String {
        let bytes = self.bytes(field).into_iter().next().unwrap_or_default();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn number(&self, field: u64) -> Option<u64> {
        self.0.iter().find_map(|(known, value)| match value {
            Value::Number(number) if *known == field => Some(*number),
            _ => None,
        })
    }

    /// The attribute called `name` among those in `field`, as text.
    pub(crate) fn attribute(&self, field: u64, name: &str) -> Option<String> {
        let pair = self.messages(field).into_iter().find(|pair| pair.text(1) == name)?;
        let value = pair.message(2);
        Some(match value.0.first()? {
            (1, Value::Bytes(text)) => String::from_utf8(text.clone()).unwrap(),
            (4, Value::Number(bits)) => f64::from_bits(*bits).to_string(),
            (_, Value::Number(number)) => number.to_string(),
            other => panic!("no such value: {other:?}"),
        })
    }
}

fn varint(bytes: &[u8], at: &mut usize) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes[*at];
        *at += 1;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    panic!("a number without an end");
}

fn fixed<const SIZE: usize>(bytes: &[u8], at: &mut usize) -> u64 {
    let mut whole = [0; 8];
    whole[..SIZE].copy_from_slice(&bytes[*at..*at + SIZE]);
    *at += SIZE;
    u64::from_le_bytes(whole)
}
