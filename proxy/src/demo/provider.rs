//! A provider that is not real: it answers what a header of the request asks it to, as OpenAI and Anthropic would.
//!
//! Invariants
//! - Bodies of requests are read and forgotten; answers are made of words that mean nothing.
//! - It listens on loopback and ends with the demonstration.
//!
//! Not here: what is asked (`traffic`).

use crate::listen::Shutdown;
use crate::tasks;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::watch;

/// The header that says what to answer.
pub(super) const REPLY: &str = "x-demonstration-reply";
const WORDS: [&str; 8] = ["this ", "is ", "a ", "demonstration ", "of ", "metering ", "and ", "nothing "];

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// In full.
    Whole,
    /// In full, as a stream.
    Stream,
    /// In the middle of a stream.
    Broken,
    /// With 429.
    Busy,
    /// With 500.
    Failed,
}

/// What a call is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) ending: Ending,
    pub(super) model: String,
    /// All input, what of it came from a cache, what was written to one, all output, reasoning in it.
    pub(super) counts: [u64; 5],
}

impl Reply {
    /// As the header says it.
    pub(super) fn header(&self) -> String {
        let ending = match self.ending {
            Ending::Whole => "whole",
            Ending::Stream => "stream",
            Ending::Broken => "broken",
            Ending::Busy => "busy",
            Ending::Failed => "failed",
        };
        let counts = self.counts.map(|count| count.to_string()).join(" ");
        format!("{ending} {} {counts}", self.model)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let ending = match words.next()? {
            "whole" => Ending::Whole,
            "stream" => Ending::Stream,
            "broken" => Ending::Broken,
            "busy" => Ending::Busy,
            "failed" => Ending::Failed,
            _ => return None,
        };
        let model = words.next()?.to_owned();
        let mut counts = [0; 5];
        for count in &mut counts {
            *count = words.next()?.parse().ok()?;
        }
        Some(Self { ending, model, counts })
    }
}

type Piece = Result<Frame<Bytes>, std::io::Error>;
type Pieces = Pin<Box<dyn Stream<Item = Piece>>>;

/// How long a stream that breaks waits: what came before is on its way then, as it would be in life.
const BEFORE_BREAK: Duration = Duration::from_millis(20);

/// Serves until the demonstration is over.
pub(super) async fn serve(listener: std::net::TcpListener, mut state: watch::Receiver<Shutdown>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        tokio::select! {
            biased;
            _ = state.wait_for(|state| *state == Shutdown::Now) => return,
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                tasks::start(async move {
                    let service = service_fn(answer);
                    let io = hyper_util::rt::TokioIo::new(socket);
                    // A broken answer ends its connection: that is what it is for.
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                });
            }
        }
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<StreamBody<Pieces>>, Infallible> {
    let reply = request.headers().get(REPLY).and_then(|value| value.to_str().ok()).and_then(Reply::parse);
    let path = request.uri().path().to_owned();
    // Whoever is answered before it has been heard may close the connection.
    let _ = request.into_body().collect().await;
    let Some(reply) = reply else {
        return Ok(plain(StatusCode::BAD_REQUEST, &json!({ "error": { "message": "demonstration only" } })));
    };
    Ok(match (reply.ending, path.ends_with("/messages"), path.ends_with("/embeddings")) {
        (Ending::Busy, ..) => plain(StatusCode::TOO_MANY_REQUESTS, &error("rate_limit_error")),
        (Ending::Failed, ..) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error("server_error")),
        (_, _, true) => plain(StatusCode::OK, &embedding(&reply)),
        (Ending::Whole, false, _) => plain(StatusCode::OK, &chat(&reply)),
        (Ending::Whole, true, _) => plain(StatusCode::OK, &message(&reply)),
        (Ending::Stream | Ending::Broken, false, _) => stream(chat_events(&reply), reply.ending),
        (Ending::Stream | Ending::Broken, true, _) => stream(message_events(&reply), reply.ending),
    })
}

fn error(kind: &str) -> Value {
    json!({ "type": "error", "error": { "type": kind, "message": "demonstration: this call fails" } })
}

fn plain(status: StatusCode, body: &Value) -> Response<StreamBody<Pieces>> {
    respond(status, "application/json", vec![Ok(body.to_string())])
}

fn respond(
    status: StatusCode,
    kind: &'static str,
    pieces: Vec<Result<String, std::io::Error>>,
) -> Response<StreamBody<Pieces>> {
    let frames: Vec<_> =
        pieces.into_iter().map(|piece| piece.map(|text| Frame::data(Bytes::from(text)))).collect();
    let sent = futures_util::stream::iter(frames).then(|piece: Piece| async move {
        if piece.is_err() {
            tokio::time::sleep(BEFORE_BREAK).await;
        }
        piece
    });
    let pieces: Pieces = Box::pin(sent);
    let mut response = Response::new(StreamBody::new(pieces));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

/// Events as they are sent; a broken stream has no last ones.
fn stream(mut events: Vec<String>, ending: Ending) -> Response<StreamBody<Pieces>> {
    let mut pieces: Vec<_> = Vec::new();
    if ending == Ending::Broken {
        events.truncate(events.len() / 2);
        pieces.extend(events.into_iter().map(Ok));
        pieces.push(Err(std::io::Error::other("demonstration: this stream breaks")));
    } else {
        pieces.extend(events.into_iter().map(Ok));
    }
    respond(StatusCode::OK, "text/event-stream", pieces)
}

fn words(count: u64) -> impl Iterator<Item = &'static str> {
    WORDS.iter().copied().cycle().take(usize::try_from(count.min(64)).unwrap_or(64))
}

fn chat_usage(reply: &Reply) -> Value {
    let [input, cached, _, output, reasoning] = reply.counts;
    json!({
        "prompt_tokens": input, "completion_tokens": output, "total_tokens": input.saturating_add(output),
        "prompt_tokens_details": { "cached_tokens": cached },
        "completion_tokens_details": { "reasoning_tokens": reasoning },
    })
}

fn chat(reply: &Reply) -> Value {
    let text: String = words(16).collect();
    json!({
        "id": "chatcmpl-demonstration", "object": "chat.completion", "model": reply.model,
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" }],
        "usage": chat_usage(reply),
    })
}

fn embedding(reply: &Reply) -> Value {
    let [input, ..] = reply.counts;
    json!({
        "object": "list", "model": reply.model,
        "data": [{ "object": "embedding", "index": 0, "embedding": [0.25, -0.5] }],
        "usage": { "prompt_tokens": input, "total_tokens": input },
    })
}

fn chat_events(reply: &Reply) -> Vec<String> {
    let head = |choices: Value| json!({ "id": "chatcmpl-demonstration", "object": "chat.completion.chunk", "model": reply.model, "choices": choices });
    let said = words(24)
        .map(|word| head(json!([{ "index": 0, "delta": { "content": word }, "finish_reason": null }])));
    let mut chunks: Vec<Value> = said.collect();
    chunks.push(head(json!([{ "index": 0, "delta": {}, "finish_reason": "stop" }])));
    let mut last = head(json!([]));
    if let Some(last) = last.as_object_mut() {
        last.insert("usage".to_owned(), chat_usage(reply));
    }
    chunks.push(last);
    let mut events: Vec<String> = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn message_usage(reply: &Reply, output: u64) -> Value {
    let [input, cached, written, ..] = reply.counts;
    let fresh = input.saturating_sub(cached).saturating_sub(written);
    json!({
        "input_tokens": fresh, "cache_read_input_tokens": cached, "cache_creation_input_tokens": written,
        "cache_creation": { "ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0 },
        "output_tokens": output,
    })
}

fn message(reply: &Reply) -> Value {
    let [_, _, _, output, _] = reply.counts;
    let text: String = words(16).collect();
    json!({
        "id": "msg_demonstration", "type": "message", "role": "assistant", "model": reply.model,
        "content": [{ "type": "text", "text": text }], "stop_reason": "end_turn",
        "usage": message_usage(reply, output),
    })
}

fn message_events(reply: &Reply) -> Vec<String> {
    let [_, _, _, output, _] = reply.counts;
    let mut events = vec![json!({
        "type": "message_start",
        "message": {
            "id": "msg_demonstration", "type": "message", "role": "assistant", "model": reply.model,
            "content": [], "usage": message_usage(reply, 1),
        },
    })];
    events.push(
        json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
    );
    let said = |word| json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": word } });
    events.extend(words(24).map(said));
    events.push(json!({ "type": "content_block_stop", "index": 0 }));
    let usage = json!({ "output_tokens": output });
    events.push(json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" }, "usage": usage }));
    events.push(json!({ "type": "message_stop" }));
    let named = |event: &Value| {
        let name = event.get("type").and_then(Value::as_str).unwrap_or_default();
        format!("event: {name}\ndata: {event}\n\n")
    };
    events.iter().map(named).collect()
}
