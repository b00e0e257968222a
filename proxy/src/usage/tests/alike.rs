//! Streams whose events are alike: what is skipped changes no reading and no text.

use super::*;
use crate::usage::text::{STREAM_BYTES_MAX, TextKind};

/// Events as providers send them, and as nobody should: texts with escapes and quotes, several choices,
/// tools, usage that changes or comes again, types that contradict the event's name.
fn chat_event() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        Just(String::new()),
        Just(r#"\"},{"#.to_owned()),
        Just(r"\\".to_owned()),
        Just(r"a\n\u00e9".to_owned()),
        "[a-z ]{1,6}",
        "[a-z]{1,3}",
    ];
    let outline = prop_oneof![
        4 => Just(r#"{"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"@"},"finish_reason":null}]}"#),
        2 => Just(r#"{"id":"c","model":"m","choices":[{"delta":{"reasoning_content":"@"},"index":1}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#),
        1 => Just(r#"{"id":"c","model":"m","choices":[{"delta":{"content":"@"},"index":1}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#),
        1 => Just(r#"{"id":"c","model":"n","choices":[{"index":0,"delta":{"content":"@"}},{"index":1,"delta":{}}]}"#),
        1 => Just(r#"{"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"x","reasoning":"@"}}]}"#),
        1 => Just(r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"function":{"name":"f","arguments":"@"}}]}}]}"#),
        1 => Just(r#"{"choices":[{"index":0,"delta":{"content":"@","function_call":{"name":"f","arguments":""}}}]}"#),
        1 => Just(r#"{"id":"c","choices":[{"index":0,"delta":{"content":"@"},"finish_reason":"stop"}]} "#),
        1 => Just(r#"{"id":"c","choices":[{"index":0,"delta":{"content":"@"}}]} trailing"#),
        1 => Just(r#"{"id":"c","choices":[{"index":0,"delta":{"content":"@"#),
        1 => Just("[DONE]"),
    ];
    (outline, text).prop_map(|(outline, text)| outline.replace('@', &text))
}

fn messages_event() -> impl Strategy<Value = String> {
    let outline = prop_oneof![
        4 => Just(r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"@"}}"#),
        2 => Just(r#"{"type":"content_block_delta","index":1,"delta":{"type":"thinking_delta","thinking":"@"}}"#),
        2 => Just(r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"@"}}"#),
        1 => Just(r#"{"type":"content_block_delta","delta":{"text":"@"},"usage":{"output_tokens":7}}"#),
        1 => Just(r#"{"type":"content_block_start","content_block":{"type":"tool_use"},"delta":{"text":"@"}}"#),
        1 => Just(r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","text":"@"},"usage":{"output_tokens":9}}"#),
        1 => Just(r#"{"type":"message_stop"}"#),
        1 => Just(r#"{"type":"error","error":{"message":"@"}}"#),
    ];
    (outline, "[a-z]{0,3}").prop_map(|(outline, text)| outline.replace('@', &text))
}

fn stream(events: &[(u8, String)]) -> Vec<u8> {
    const NAMES: [&str; 4] = ["", "event: content_block_delta\n", "event: message_stop\n", "event: error\n"];
    let event =
        |(name, data): &(u8, String)| format!("{}data: {data}\n\n", NAMES[usize::from(*name) % NAMES.len()]);
    events.iter().map(event).collect::<String>().into_bytes()
}

/// A reading, and the text that passed, in one string for each of its parts.
fn read(path: &'static str, body: &[u8], piece: usize) -> (Reading, Vec<(u16, TextKind, Vec<u8>)>) {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(SSE))]);
    let mut meter = ReplyMeter::new(&ReplyContext {
        flavour: flavour_of(""),
        api: api_of(&Method::POST, path),
        status: 200,
        headers: &headers,
        stream_requested: true,
    });
    assert!(meter.keep_text(STREAM_BYTES_MAX));
    body.chunks(piece).for_each(|piece| meter.feed(piece));
    let text = meter.text().unwrap();
    let mut parts: Vec<(u16, TextKind, Vec<u8>)> = Vec::new();
    for (key, raw) in text.pieces() {
        match parts.last_mut() {
            Some(last) if (last.0, last.1) == (key.choice, key.kind) => last.2.extend_from_slice(raw),
            _ => parts.push((key.choice, key.kind, raw.to_vec())),
        }
    }
    (meter.finish(Ending::Complete, &RequestFacts::default()), parts)
}

/// Slices of one byte are never compared with the last event.
fn check(path: &'static str, events: &[(u8, String)]) {
    let body = stream(events);
    let walked = read(path, &body, 1);
    for piece in [usize::MAX, 7, 40, 200] {
        assert_eq!(read(path, &body, piece), walked, "in pieces of {piece}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn chat_events_that_are_alike_tell_the_same_as_when_walked(
        events in proptest::collection::vec((0..2_u8, chat_event()), 1..24)
    ) {
        check(CHAT, &events);
    }

    #[test]
    fn messages_events_that_are_alike_tell_the_same_as_when_walked(
        events in proptest::collection::vec((0..4_u8, messages_event()), 1..24)
    ) {
        check(MESSAGES, &events);
    }
}

#[test]
fn the_text_of_alike_events_is_kept_in_full() {
    let event = |text: &str| {
        (
            0,
            format!(
                r#"{{"id":"c","choices":[{{"index":2,"delta":{{"content":"{text}"}},"finish_reason":null}}]}}"#
            ),
        )
    };
    let events = ["Hel", "lo \\\", ", "", "wor", "ld"].map(event);
    let (_, text) = read(CHAT, &stream(&events), usize::MAX);
    assert_eq!(text, [(2, TextKind::Content, b"Hello \\\", world".to_vec())]);
}
