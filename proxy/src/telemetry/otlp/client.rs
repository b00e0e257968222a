//! Speaking to a collector: one message per call, over gRPC or HTTP.
//!
//! Invariants
//! - Time and the size of an answer are bounded. Redirects are not followed.
//! - A connection is used again while it works. Nothing of a collector's answer is shown but its status.
//!
//! Source: OpenTelemetry's protocol specification ("OTLP/gRPC", "OTLP/HTTP") and gRPC's "over HTTP2".
//!
//! Not here: what is sent (`messages`), when (`super`).

use super::wire::{Field, Fields};
use crate::config::{Protocol, Target};
use crate::tasks;
use crate::upstream::{ConnectError, Connector, Origin};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use std::io::Write;
use std::time::Duration;

/// Largest answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Why an export did not arrive.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke, or what came was no HTTP.
    #[error("the collector sent no valid HTTP reply")]
    Broken(#[source] hyper::Error),
    /// The answer broke off or was too large.
    #[error("the collector's answer was cut or larger than {ANSWER_BYTES_MAX} bytes")]
    Answer,
    /// It took too long.
    #[error("the collector did not answer within {0:?}")]
    TimedOut(Duration),
    /// It was refused.
    #[error("the collector answered with HTTP status {0}")]
    Status(StatusCode),
    /// It was refused in gRPC.
    #[error("the collector answered with gRPC status {0}")]
    Grpc(u32),
    /// The answer has no gRPC status: it is no gRPC.
    #[error("the collector does not speak gRPC; set telemetry.otlp_protocol or OTEL_EXPORTER_OTLP_PROTOCOL")]
    NoGrpc,
    /// The request could not be made.
    #[error("the collector's address and headers make no HTTP request")]
    Request(#[source] http::Error),
}

impl ExportError {
    /// Whether the same may arrive when it is sent again, as the specification lists it.
    pub(super) fn may_pass_later(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Broken(_) | Self::TimedOut(_) => true,
            Self::Status(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            // Cancelled, deadline exceeded, resource exhausted, aborted, out of range, unavailable, data loss.
            Self::Grpc(status) => matches!(status, 1 | 4 | 8 | 10 | 11 | 14 | 15),
            Self::Answer | Self::NoGrpc | Self::Request(_) => false,
        }
    }
}

/// A collector, with a connection if there is one.
pub(super) struct Channel {
    target: Target,
    path: String,
    connector: Connector,
    sender: Option<Sender>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Channel {
    /// A channel to `target`; `method` is gRPC's path.
    pub(super) fn new(target: Target, method: &str, connector: Connector) -> Self {
        let path = match (target.grpc, target.url.path.as_str()) {
            (true, base) => format!("{base}{method}"),
            (false, "") => "/".to_owned(),
            (false, path) => path.to_owned(),
        };
        Self { target, path, connector, sender: None }
    }

    /// Where it leads, for people.
    pub(super) fn authority(&self) -> String {
        self.target.url.authority.to_string()
    }

    /// Sends `message`; returns how many of its items the collector says it did not take.
    pub(super) async fn export(&mut self, message: Vec<u8>) -> Result<usize, ExportError> {
        let time = self.target.timeout;
        let sent = match tokio::time::timeout(time, self.untimed(message)).await {
            Ok(sent) => sent,
            Err(_) => Err(ExportError::TimedOut(time)),
        };
        if sent.is_err() {
            self.sender = None;
        }
        sent
    }

    /// Gives the connection up: an export on it was left alone halfway.
    pub(super) fn disconnect(&mut self) {
        self.sender = None;
    }

    async fn untimed(&mut self, message: Vec<u8>) -> Result<usize, ExportError> {
        let request = self.request(message)?;
        let is_usable = match &self.sender {
            Some(Sender::Http1(sender)) => !sender.is_closed(),
            Some(Sender::Http2(sender)) => !sender.is_closed(),
            None => false,
        };
        if !is_usable {
            self.sender = None;
        }
        let sender = match &mut self.sender {
            Some(sender) => sender,
            none => none.insert(connect(&self.target, &self.connector).await?),
        };
        let answer = match sender {
            Sender::Http1(sender) => {
                sender.ready().await.map_err(ExportError::Broken)?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                sender.ready().await.map_err(ExportError::Broken)?;
                sender.send_request(request).await
            }
        };
        let answer = answer.map_err(ExportError::Broken)?;
        if self.target.grpc { grpc_answer(answer).await } else { http_answer(answer).await }
    }

    fn request(&self, message: Vec<u8>) -> Result<Request<Full<Bytes>>, ExportError> {
        let Target { url, grpc, headers, gzip, timeout, .. } = &self.target;
        let message = if *gzip { compressed(&message) } else { message };
        let mut request = Request::post(match grpc {
            true => format!("{}://{}{}", if url.secure { "https" } else { "http" }, url.authority, self.path),
            false => self.path.clone(),
        });
        let fixed = |name: &'static str, value: &'static str| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut fixed_headers = vec![fixed("user-agent", concat!("bursar/", env!("CARGO_PKG_VERSION")))];
        let body = if *grpc {
            fixed_headers.extend([fixed("content-type", "application/grpc"), fixed("te", "trailers")]);
            fixed_headers.extend(gzip.then(|| fixed("grpc-encoding", "gzip")));
            request = request.header("grpc-timeout", format!("{}m", timeout.as_millis()));
            // A flag whether it is compressed, and its length.
            let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
            [&[u8::from(*gzip)][..], &length.to_be_bytes(), &message].concat()
        } else {
            fixed_headers.push(fixed("content-type", "application/x-protobuf"));
            fixed_headers.extend(gzip.then(|| fixed("content-encoding", "gzip")));
            request = request.header(header::HOST, url.authority.as_str());
            message
        };
        for (name, value) in fixed_headers.into_iter().chain(headers.iter().cloned()) {
            request = request.header(name, value);
        }
        request.body(Full::new(Bytes::from(body))).map_err(ExportError::Request)
    }
}

async fn connect(target: &Target, connector: &Connector) -> Result<Sender, ExportError> {
    let origin = Origin {
        secure: target.url.secure,
        authority: target.url.authority.clone(),
        protocol: if target.grpc { Protocol::Http2 } else { Protocol::Http1 },
    };
    let (io, _) = connector.connect(&origin, target.timeout).await?;
    let io = TokioIo::new(io);
    if target.grpc {
        let (sender, connection) =
            http2::handshake(tasks::WorkerExecutor, io).await.map_err(ExportError::Broken)?;
        tasks::start(async move { drop(connection.await) });
        return Ok(Sender::Http2(sender));
    }
    let (sender, connection) = http1::handshake(io).await.map_err(ExportError::Broken)?;
    tasks::start(async move { drop(connection.await) });
    Ok(Sender::Http1(sender))
}

fn compressed(message: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory cannot fail.
    let _ = encoder.write_all(message);
    encoder.finish().unwrap_or_default()
}

async fn http_answer(answer: http::Response<Incoming>) -> Result<usize, ExportError> {
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|_| ExportError::Answer)?;
    if !head.status.is_success() {
        return Err(ExportError::Status(head.status));
    }
    Ok(rejected(&body.to_bytes()))
}

async fn grpc_answer(answer: http::Response<Incoming>) -> Result<usize, ExportError> {
    let (head, body) = answer.into_parts();
    if head.status != StatusCode::OK {
        return Err(ExportError::Status(head.status));
    }
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|_| ExportError::Answer)?;
    let status = |headers: &HeaderMap| headers.get("grpc-status")?.to_str().ok()?.parse::<u32>().ok();
    let status = body.trailers().and_then(status).or_else(|| status(&head.headers));
    match status {
        Some(0) => Ok(rejected(body.to_bytes().get(5..).unwrap_or_default())),
        Some(status) => Err(ExportError::Grpc(status)),
        None => Err(ExportError::NoGrpc),
    }
}

/// `partial_success: 1 {rejected: 1}` of an answer; what is no such message rejects nothing.
fn rejected(answer: &[u8]) -> usize {
    let partial = Fields(answer).find_map(|field| match field {
        (1, Field::Bytes(partial)) => Some(partial),
        _ => None,
    });
    let count = Fields(partial.unwrap_or_default()).find_map(|field| match field {
        (1, Field::Varint(count)) => usize::try_from(count).ok(),
        _ => None,
    });
    count.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::otlp::wire::Message;

    #[test]
    fn what_a_collector_did_not_take_is_read_and_garbage_takes_nothing_away() {
        let mut answer = Message::default();
        answer.message(1, |partial| {
            partial.varint(1, 3);
            partial.text(2, "too many");
        });
        assert_eq!(rejected(&answer.into_bytes()), 3);
        for garbage in [&b""[..], b"\xff\xff\xff", b"<html>", b"\x0a\xff", b"\x0a\x02\x08"] {
            assert_eq!(rejected(garbage), 0, "{garbage:?}");
        }
    }

    #[test]
    fn only_what_may_pass_later_is_sent_again() {
        let status = |code| ExportError::Status(StatusCode::from_u16(code).unwrap());
        for error in [status(429), status(503), ExportError::Grpc(14), ExportError::TimedOut(Duration::ZERO)]
        {
            assert!(error.may_pass_later(), "{error}");
        }
        for error in
            [status(302), status(400), status(401), status(500), ExportError::Grpc(16), ExportError::NoGrpc]
        {
            assert!(!error.may_pass_later(), "{error}");
        }
    }
}
