//! Streams of several APIs that break at any byte: on the upstream's side by an end or by silence, on the
//! client's side where the route reads on (T13, T14). One record each, never a wrong figure.
//!
//! Not here: OpenAI's stream in detail, and clients that leave where the upstream is stopped (`cuts.rs`);
//! resets of a socket (`proxy/tests/cli.rs`); what is counted of broken streams (`silent_dialects.rs`).

use crate::transcripts::{CHAT_STREAM, EVENTS};
use bursar_domain::{Anomaly, Outcome, UsageRecord, UsageSource};
use bursar_tests::client::status;
use bursar_tests::{Setup, Step, System, chunk, until};
use std::rc::Rc;
use tokio::sync::Notify;

const ROUTES: &str = "
builtin_routes: false
routes:
  - { prefix: /anthropic, upstream: 'http://provider.test', provider: anthropic }
  - { prefix: /openai, upstream: 'http://provider.test', provider: openai }
  - { prefix: /gemini, upstream: 'http://provider.test', provider: gemini }
  - { prefix: /cohere, upstream: 'http://provider.test', provider: cohere }
  - { prefix: /ollama, upstream: 'http://provider.test', provider: ollama }
  - { prefix: /patient, upstream: 'http://provider.test', provider: openai, on_abort: drain }
";

/// A stream of one API.
struct Stream {
    path: &'static str,
    ask: &'static str,
    kind: &'static str,
    /// What the provider sends, one chunk each.
    pieces: &'static [&'static str],
}

const ANTHROPIC: Stream = Stream {
    path: "/anthropic/v1/messages",
    ask: r#"{"model":"claude-sonnet-4-5","max_tokens":64,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#,
    kind: "text/event-stream",
    pieces: &[
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-sonnet-4-5-20250929\",\"content\":[],\"usage\":{\"input_tokens\":12,\"output_tokens\":1}}}\n\n",
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello.\"}}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":75}}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    ],
};

const RESPONSES: Stream = Stream {
    path: "/openai/v1/responses",
    ask: r#"{"model":"gpt-4o-mini","stream":true,"input":"hi"}"#,
    kind: "text/event-stream",
    pieces: &[
        "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"object\":\"response\",\"status\":\"in_progress\",\"model\":\"gpt-4o-mini-2024-07-18\",\"usage\":null}}\n\n",
        "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"item_id\":\"m\",\"output_index\":0,\"content_index\":0,\"delta\":\"Hello.\"}\n\n",
        "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\",\"object\":\"response\",\"status\":\"completed\",\"model\":\"gpt-4o-mini-2024-07-18\",\"usage\":{\"input_tokens\":36,\"input_tokens_details\":{\"cached_tokens\":0},\"output_tokens\":87,\"output_tokens_details\":{\"reasoning_tokens\":0},\"total_tokens\":123}}}\n\n",
    ],
};

const GEMINI: Stream = Stream {
    path: "/gemini/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
    ask: r#"{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}"#,
    kind: "text/event-stream",
    pieces: &[
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Hel\"}],\"role\":\"model\"},\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":4,\"totalTokenCount\":4},\"modelVersion\":\"gemini-2.5-flash\"}\r\n\r\n",
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"lo.\"}],\"role\":\"model\"},\"finishReason\":\"STOP\",\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":4,\"candidatesTokenCount\":50,\"totalTokenCount\":54},\"modelVersion\":\"gemini-2.5-flash\"}\r\n\r\n",
    ],
};

const COHERE: Stream = Stream {
    path: "/cohere/v2/chat",
    ask: r#"{"model":"command-a-03-2025","stream":true,"messages":[{"role":"user","content":"hi"}]}"#,
    kind: "text/event-stream",
    pieces: &[
        "event: message-start\ndata: {\"id\":\"c\",\"type\":\"message-start\",\"delta\":{\"message\":{\"role\":\"assistant\",\"content\":[]}}}\n\n",
        "event: content-delta\ndata: {\"type\":\"content-delta\",\"index\":0,\"delta\":{\"message\":{\"content\":{\"text\":\"Hello.\"}}}}\n\n",
        "event: message-end\ndata: {\"type\":\"message-end\",\"delta\":{\"finish_reason\":\"COMPLETE\",\"usage\":{\"billed_units\":{\"input_tokens\":3,\"output_tokens\":40},\"tokens\":{\"input_tokens\":60,\"output_tokens\":41}}}}\n\n",
    ],
};

const OLLAMA: Stream = Stream {
    path: "/ollama/api/chat",
    ask: r#"{"model":"llama3.2","messages":[{"role":"user","content":"hi"}]}"#,
    kind: "application/x-ndjson",
    pieces: &[
        "{\"model\":\"llama3.2\",\"created_at\":\"2026-11-22T12:00:00Z\",\"message\":{\"role\":\"assistant\",\"content\":\"Hello.\"},\"done\":false}\n",
        "{\"model\":\"llama3.2\",\"created_at\":\"2026-11-22T12:00:01Z\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":26,\"eval_count\":90}\n",
    ],
};

/// A stream as it is on the wire.
fn wire(kind: &str, pieces: &[&str]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunks = pieces.iter().map(|piece| chunk(piece.as_bytes()));
    [head.into_bytes(), chunks.collect::<Vec<_>>().concat(), b"0\r\n\r\n".to_vec()].concat()
}

fn head_end(bytes: &[u8]) -> usize {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4
}

/// One record for each request, in their order.
async fn records_of(system: System, count: usize) -> Vec<UsageRecord> {
    assert_eq!(system.metric("bursar_requests_in_flight"), 0, "an exchange is still under way");
    let records = system.records_by_start().await;
    assert_eq!(records.len(), count, "as many records as requests");
    records.into_iter().map(|stored| stored.record).collect()
}

/// Plays the stream up to every byte and lets `ending` follow, and once to its end.
fn check(stream: &'static Stream, ending: Step, status_without_head: u16) {
    let settings = "upstream: { response_head: 20s, idle: 10s }";
    let setup = Setup { routes: ROUTES.to_owned(), ..Setup::new(settings) };
    setup.run(|system| async move {
        let all = wire(stream.kind, stream.pieces);
        let head = head_end(&all);
        for cut in 0..=all.len() {
            system.clock.advance(1);
            let mut steps = vec![Step::Send(all[..cut].to_vec())];
            if cut < all.len() {
                steps.push(ending.clone());
            }
            system.provider.script(steps);
            let mut client = system.client();
            client.post(stream.path, &[], stream.ask).await;
            let reply = client.reply().await;
            let expected = if cut < head { status_without_head } else { 200 };
            assert_eq!(reply.status(), expected, "cut at {cut}");
            let is_cut = (head..all.len()).contains(&cut);
            assert_eq!(reply.whole, !is_cut, "cut at {cut}: the client must see it");
        }
        let mut records = records_of(system, all.len() + 1).await;
        let whole = records.pop().unwrap();
        assert_eq!((whole.outcome, whole.usage_source), (Outcome::Ok, UsageSource::Provider));
        let mut has_ended = false;
        for (cut, record) in records.iter().enumerate() {
            if cut < head {
                assert_eq!(record.outcome, Outcome::Error, "cut at {cut}");
                assert_eq!(record.usage_source, UsageSource::Absent, "cut at {cut}");
                continue;
            }
            // From some byte on the provider has said that it is over; before that nobody may think so.
            has_ended |= record.outcome == Outcome::Ok;
            let outcome = if has_ended { Outcome::Ok } else { Outcome::ErrorMidstream };
            assert_eq!(record.outcome, outcome, "cut at {cut}");
            let output = record.usage.output_total();
            if has_ended || record.usage_source == UsageSource::Provider {
                assert_eq!(record.usage, whole.usage, "cut at {cut}");
            }
            if record.usage_source == UsageSource::Absent {
                assert_eq!((record.usage.input_total(), output), (None, None), "cut at {cut}: {record:#?}");
            }
            assert_ne!(output, Some(0), "cut at {cut}: {record:#?}");
            assert!(output <= whole.usage.output_total(), "cut at {cut}: {record:#?}");
        }
        // Gemini's stream has no event that says so: its end is that of the body.
        let says_so = !stream.path.starts_with("/gemini");
        assert_eq!(
            has_ended, says_so,
            "the last bytes of the framing add nothing where an event has said it"
        );
    });
}

#[test]
fn a_stream_of_anthropic_that_breaks_at_any_byte_is_seen_to_be_cut_and_leaves_one_record() {
    check(&ANTHROPIC, Step::Close, 502);
}

#[test]
fn a_stream_of_responses_that_breaks_at_any_byte_is_seen_to_be_cut_and_leaves_one_record() {
    check(&RESPONSES, Step::Close, 502);
}

#[test]
fn a_stream_of_gemini_that_breaks_at_any_byte_is_seen_to_be_cut_and_leaves_one_record() {
    check(&GEMINI, Step::Close, 502);
}

#[test]
fn a_stream_of_cohere_that_breaks_at_any_byte_is_seen_to_be_cut_and_leaves_one_record() {
    check(&COHERE, Step::Close, 502);
}

#[test]
fn a_stream_of_ollama_that_breaks_at_any_byte_is_seen_to_be_cut_and_leaves_one_record() {
    check(&OLLAMA, Step::Close, 502);
}

#[test]
fn an_upstream_that_falls_silent_at_any_byte_is_given_up_and_leaves_one_record() {
    for stream in [&ANTHROPIC, &RESPONSES, &GEMINI, &COHERE, &OLLAMA] {
        check(stream, Step::Stall, 504);
    }
}

#[test]
fn a_client_that_leaves_at_any_byte_of_a_patient_route_leaves_one_record_with_the_providers_figures() {
    let setup = Setup { routes: ROUTES.to_owned(), ..Setup::new("") };
    setup.run(|system| async move {
        let all = wire("text/event-stream", &EVENTS);
        let head = head_end(&all);
        for cut in head..all.len() {
            system.clock.advance(1);
            let go_on = Rc::new(Notify::new());
            system.provider.script([
                Step::Send(all[..cut].to_vec()),
                Step::Until(go_on.clone()),
                Step::Send(all[cut..].to_vec()),
            ]);
            let mut client = system.client();
            client.post("/patient/v1/chat/completions", &[], CHAT_STREAM).await;
            assert_eq!(status(&client.head().await.unwrap()), 200);
            drop(client);
            until("the client is gone", || system.metric("bursar_connections") == 0).await;
            go_on.notify_one();
            until("the exchange is over", || system.metric("bursar_requests_in_flight") == 0).await;
            assert!(system.provider.open() <= 1, "cut at {cut}: what was read to its end may be used again");
        }
        let records = records_of(system, all.len() - head).await;
        for (record, cut) in records.iter().zip(head..) {
            let usage = (record.usage.output_total(), record.usage_source);
            assert_eq!(usage, (Some(500), UsageSource::Provider), "cut at {cut}");
            let is_aborted = record.outcome == Outcome::Aborted;
            assert!(is_aborted || record.outcome == Outcome::Ok, "cut at {cut}: {record:#?}");
            assert_eq!(record.anomalies.contains(Anomaly::Drained), is_aborted, "cut at {cut}");
        }
        assert!(records.iter().filter(|record| record.outcome == Outcome::Aborted).count() > 500);
    });
}
