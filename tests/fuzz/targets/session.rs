//! WebSocket sessions of any bytes: as frames, and as messages inside sound frames.
#![no_main]

use bursar_domain::time::Timestamp;
use bursar_fuzz::usage::{Api, Ending, Part, SessionMeter, flavour_of, number};

/// Each line as a whole message of the server, so that the shapes are reached.
fn framed(lines: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    for line in lines.split(|byte| *byte == b'\n') {
        stream.extend([0x81, 127]);
        stream.extend((line.len() as u64).to_be_bytes());
        stream.extend(line);
    }
    stream
}

fn read(choice: u8, stream: &[u8], size: usize) -> Vec<Part> {
    let (api, provider) = match choice & 3 {
        0 => (Api::Realtime, "openai"),
        1 => (Api::Realtime, "xai"),
        2 => (Api::Live, "gemini"),
        _ => (Api::Live, "vertex"),
    };
    let mut meter = SessionMeter::new(api, flavour_of(provider), None);
    let mut parts = Vec::new();
    for piece in stream.chunks(size) {
        meter.client_says(piece);
    }
    for piece in stream.chunks(size) {
        meter.server_says(piece, Timestamp::from_micros(1));
        parts.extend(std::iter::from_fn(|| meter.next_part()));
    }
    let ending = if choice & 4 == 0 { Ending::UpstreamCut } else { Ending::ClientAbort };
    parts.extend(meter.finish(ending));
    parts
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, body)) = data.split_first() else { return };
    let stream = if choice & 8 == 0 { framed(body) } else { body.to_vec() };
    let whole = read(*choice, &stream, usize::MAX);
    for size in [1, 7] {
        assert_eq!(read(*choice, &stream, size), whole);
    }
    assert!(!whole.is_empty(), "every session leaves a part");
    for part in &whole {
        for (_, count) in part.reading.usage.tokens() {
            assert!(count <= 1_000 * number::COUNT_MAX);
        }
    }
});
