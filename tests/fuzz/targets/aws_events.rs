//! AWS event streams of any bytes, and Bedrock's replies in messages whose checksums are right: a fuzzer
//! does not find those by itself.
#![no_main]

use bursar_fuzz::Setup;
use bursar_fuzz::usage::Api;
use bursar_fuzz::usage::aws_events::{AwsEvents, Message, Messages};

#[derive(Default, PartialEq, Debug)]
struct Seen {
    messages: Vec<(Option<Vec<u8>>, bool, Vec<u8>)>,
    damaged: bool,
    passed_over: bool,
}

impl Messages for Seen {
    fn message(&mut self, message: &Message<'_>) {
        let name = message.text(b":event-type").map(<[u8]>::to_vec);
        self.messages.push((name, message.has_sound_headers(), message.payload.to_vec()));
    }
}

fn frame(data: &[u8], size: usize) -> Seen {
    let (mut events, mut seen) = (AwsEvents::default(), Seen::default());
    for piece in data.chunks(size) {
        events.feed(piece, &mut seen);
    }
    (seen.damaged, seen.passed_over) = (events.is_damaged(), events.passed_over());
    seen
}

/// Lines as messages: `NAME PAYLOAD`, or the payload of a chunk with the line as base64 in it.
fn messages(text: &[u8], api: Api) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in text.split(|byte| *byte == b'\n').filter(|line| line.len() < 10_000) {
        let at = line.iter().position(|byte| *byte == b' ').unwrap_or(0).min(255);
        let (name, rest) = line.split_at(at);
        let kind: &[u8] = if name == b"exception" { b"exception" } else { b"event" };
        match api {
            Api::InvokeStream if kind == b"event" => {
                let payload = [b"{\"bytes\":\"", base64(line).as_bytes(), b"\"}"].concat();
                message(b"chunk", kind, &payload, &mut bytes);
            }
            _ => message(name, kind, rest, &mut bytes),
        }
    }
    bytes
}

fn message(name: &[u8], kind: &[u8], payload: &[u8], out: &mut Vec<u8>) {
    let mut headers = Vec::new();
    for (key, value) in [(&b":event-type"[..], name), (b":message-type", kind)] {
        headers.push(key.len() as u8);
        headers.extend_from_slice(key);
        headers.push(7);
        headers.extend_from_slice(&(value.len() as u16).to_be_bytes());
        headers.extend_from_slice(value);
    }
    let start = out.len();
    out.extend_from_slice(&((headers.len() + payload.len() + 16) as u32).to_be_bytes());
    out.extend_from_slice(&(headers.len() as u32).to_be_bytes());
    out.extend_from_slice(&crc32fast::hash(&out[start..]).to_be_bytes());
    out.extend_from_slice(&headers);
    out.extend_from_slice(payload);
    out.extend_from_slice(&crc32fast::hash(&out[start..]).to_be_bytes());
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut bits = [0; 4];
        bits[1..=group.len()].copy_from_slice(group);
        for place in 0..4 {
            let digit = DIGITS[(u32::from_be_bytes(bits) >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let whole = frame(data, usize::MAX);
    for size in [1, 7, 12] {
        assert_eq!(frame(data, size), whole);
    }
    let Some(setup) = Setup::of(data) else { return };
    for api in [Api::ConverseStream, Api::InvokeStream] {
        setup.check(api);
        let body = messages(setup.body, api);
        let framed = Setup { stream: true, body: &body, ..setup };
        framed.check(api);
        let seen = frame(&body, usize::MAX);
        assert!(!seen.damaged && seen.messages.iter().all(|(_, sound, _)| *sound));
    }
});
