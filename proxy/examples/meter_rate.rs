//! Measures what metering costs: time per streamed chunk, bytes per second of large bodies.
//!
//! `cargo run --release -p bursar --example meter_rate`
//!
//! Not here: assertions on time; no test may depend on it.

use bursar::usage::{
    Api, Ending, HideUsage, ReplyContext, ReplyMeter, RequestFacts, RequestScan, flavour_of,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use std::hint::black_box;
use std::time::{Duration, Instant};

const CHUNKS: u32 = 1_000_000;
const BODIES: u32 = 2_000;

fn main() {
    short();
    if std::env::args().any(|arg| arg == "--short") {
        return;
    }
    let openai = "data: {\"id\":\"chatcmpl-Abcdefghijklmnopqrstuvwxyz12\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"gpt-4o-mini-2024-07-18\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_0123456789\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\"finish_reason\":null}]}\n\n";
    let asked = openai.replace("}]}\n\n", "}],\"usage\":null,\"obfuscation\":\"Zx8Tq\"}\n\n");
    let messages = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" some more words of an answer that goes on\"}}\n\n";
    let responses = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"item_id\":\"msg_0123456789abcdef0123456789abcdef\",\"output_index\":0,\"content_index\":0,\"delta\":\" word\",\"logprobs\":[],\"obfuscation\":\"Zx8Tq\",\"sequence_number\":17}\n\n";
    chunks("openai chat chunk", Api::OpenAiChat, openai);
    chunks("openai chat chunk, usage asked", Api::OpenAiChat, &asked);
    chunks("messages chunk", Api::Messages, messages);
    chunks("responses chunk", Api::Responses, responses);
    hide("hide usage, openai chat chunk", &asked);

    let prose = "It goes on about nothing in particular, \\\"quoted\\\" here and there.\\n".repeat(6_000);
    let reply = format!(
        "{{\"id\":\"chatcmpl-1\",\"model\":\"m\",\"choices\":[{{\"index\":0,\"message\":{{\"content\":\"{prose}\"}},\"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":1}}}}"
    );
    body("plain chat reply", Api::OpenAiChat, &reply);
    let vector = "-0.012345678,0.023456789,".repeat(16_000);
    let vector = vector.trim_end_matches(',');
    let embeddings = format!(
        "{{\"object\":\"list\",\"data\":[{{\"embedding\":[{vector}]}}],\"model\":\"m\",\"usage\":{{\"prompt_tokens\":1}}}}"
    );
    body("embeddings reply", Api::Embeddings, &embeddings);
    let message = "{\"role\":\"user\",\"content\":\"A message of some length, as they come in conversations.\\nSecond line.\"},";
    let messages = message.repeat(4_000);
    request(
        "request of many short messages",
        &format!("{{\"model\":\"m\",\"messages\":[{}],\"stream\":true}}", messages.trim_end_matches(',')),
    );
    request(
        "request of one long message",
        &format!("{{\"model\":\"m\",\"messages\":[{{\"content\":\"{prose}\"}}],\"stream\":true}}"),
    );
}

/// What most exchanges are: one small request, one small reply, read from head to record.
fn short() {
    const EXCHANGES: u32 = 200_000;
    let request = r#"{"model":"gpt-4o-mini","messages":[{"role":"system","content":"You answer briefly and politely."},{"role":"user","content":"What does a token cost, and what does it earn?"}],"temperature":0.2,"max_tokens":200}"#;
    let words = "It costs what the invoice says and earns what the ledger shows. ".repeat(8);
    let reply = format!(
        r#"{{"id":"chatcmpl-Abcdefghijklmnopqrstuvwxyz12","object":"chat.completion","created":1700000000,"model":"gpt-4o-mini-2024-07-18","choices":[{{"index":0,"message":{{"role":"assistant","content":"{words}","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":29,"completion_tokens":120,"total_tokens":149,"prompt_tokens_details":{{"cached_tokens":0,"audio_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}},"service_tier":"default","system_fingerprint":"fp_0123456789"}}"#
    );
    let time = timed(|| {
        for _ in 0..EXCHANGES {
            let mut scan = RequestScan::new(None);
            scan.feed(black_box(request.as_bytes()));
            let facts = scan.facts();
            let mut meter = meter(Api::OpenAiChat, "application/json");
            meter.feed(black_box(reply.as_bytes()));
            drop(black_box(meter.finish(Ending::Complete, &facts)));
        }
    });
    println!("short chat exchange: {:?} for {} + {} bytes", time / EXCHANGES, request.len(), reply.len());
}

fn meter(api: Api, content_type: &'static str) -> ReplyMeter {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    ReplyMeter::new(&ReplyContext {
        flavour: flavour_of("openai"),
        api,
        status: 200,
        headers: &headers,
        stream_requested: true,
    })
}

fn chunks(name: &str, api: Api, chunk: &str) {
    let mut meter = meter(api, "text/event-stream");
    let time = timed(|| {
        for _ in 0..CHUNKS {
            meter.feed(black_box(chunk.as_bytes()));
        }
    });
    drop(black_box(meter.finish(Ending::Complete, &RequestFacts::default())));
    println!("{name}: {:?} per chunk of {} bytes", time / CHUNKS, chunk.len());
}

fn hide(name: &str, chunk: &str) {
    let (mut hide, mut out) = (HideUsage::new(), Vec::new());
    let frame = Bytes::copy_from_slice(chunk.as_bytes());
    let time = timed(|| {
        for _ in 0..CHUNKS {
            hide.push(black_box(frame.clone()), &mut out);
            out.clear();
        }
    });
    println!("{name}: {:?} per chunk of {} bytes", time / CHUNKS, chunk.len());
}

fn body(name: &str, api: Api, body: &str) {
    let time = timed(|| {
        for _ in 0..BODIES {
            let mut meter = meter(api, "application/json");
            for frame in body.as_bytes().chunks(16_384) {
                meter.feed(black_box(frame));
            }
            drop(black_box(meter.finish(Ending::Complete, &RequestFacts::default())));
        }
    });
    rate(name, body.len(), time);
}

fn request(name: &str, body: &str) {
    let time = timed(|| {
        for _ in 0..BODIES {
            let mut scan = RequestScan::new(None);
            for frame in body.as_bytes().chunks(16_384) {
                scan.feed(black_box(frame));
            }
            drop(black_box(scan.facts()));
        }
    });
    rate(name, body.len(), time);
}

fn rate(name: &str, bytes: usize, time: Duration) {
    let per_body = time / BODIES;
    println!(
        "{name}: {per_body:?} for {bytes} bytes, {:.2} GB/s",
        bytes as f64 / per_body.as_secs_f64() / 1e9
    );
}

#[expect(clippy::disallowed_methods, reason = "a stopwatch is the point of this example")]
fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}
