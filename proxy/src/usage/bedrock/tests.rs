//! Readings of Bedrock's replies: one invented exchange per shape and quirk, read whole, in every slicing
//! and cut at every byte.

use super::base64::tests::encode;
use crate::usage::aws_events::tests::message;
use crate::usage::{Api, Ending, Reading, ReplyContext, ReplyMeter, RequestFacts, api_of, flavour_of};
use bursar_domain::event::{Anomaly, Metering, Outcome};
use bursar_domain::ids::Label;
use bursar_domain::usage::{Quantity, TokenClass as C, UsageSource};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;

const NOVA: &str = "/model/us.amazon.nova-lite-v1%3A0/";
const JSON: &str = "application/json";
const EVENTS: &str = "application/vnd.amazon.eventstream";

#[derive(Clone)]
struct Exchange {
    operation: &'static str,
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    /// Where each event ends, for streams.
    ends: Vec<usize>,
}

impl Exchange {
    fn plain(operation: &'static str, body: &str) -> Self {
        let body = body.as_bytes().to_vec();
        Self { operation, status: 200, headers: HeaderMap::new(), body, ends: Vec::new() }
            .header("content-type", JSON)
    }

    fn stream(operation: &'static str, events: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let (mut body, mut ends) = (Vec::new(), Vec::new());
        for event in events {
            body.extend(event);
            ends.push(body.len());
        }
        Self { operation, status: 200, headers: HeaderMap::new(), body, ends }.header("content-type", EVENTS)
    }

    /// A stream of the models' own events.
    fn chunks<'e>(events: impl IntoIterator<Item = &'e str>) -> Self {
        Self::stream("invoke-with-response-stream", events.into_iter().map(chunk))
    }

    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }

    fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    fn read<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>, ending: Ending) -> Reading {
        let mut meter = ReplyMeter::new(&ReplyContext {
            flavour: flavour_of("bedrock"),
            api: api_of(&Method::POST, &format!("{NOVA}{}", self.operation)),
            status: self.status,
            headers: &self.headers,
            stream_requested: false,
        });
        for piece in pieces {
            meter.feed(piece);
        }
        let model = Label::new("us.amazon.nova-lite-v1:0").ok();
        meter.finish(ending, &RequestFacts { model, ..RequestFacts::default() })
    }

    /// The reading, which must be the same in all slicings; and every cut must be told.
    fn reading(&self) -> Reading {
        let whole = self.read([self.body.as_slice()], Ending::Complete);
        for size in [1, 2, 3, 7, 17, 1_000] {
            assert_eq!(self.read(self.body.chunks(size), Ending::Complete), whole, "pieces of {size}");
        }
        for at in 0..self.body.len() {
            let (known, _) = self.body.split_at(at);
            for ending in [Ending::Complete, Ending::UpstreamCut, Ending::ClientAbort] {
                let cut = self.read([known], ending);
                assert!(cut.usage.input_total() <= whole.usage.input_total(), "{at}");
                assert!(cut.usage.output_total() <= whole.usage.output_total(), "{at}");
                let is_told = !matches!(cut.outcome, Outcome::Ok | Outcome::Filtered)
                    || cut.anomalies.contains(Anomaly::MalformedReply)
                    || (cut.outcome, cut.usage) == (whole.outcome, whole.usage);
                assert!(is_told, "{:?} when cut at {at} of {}", cut.outcome, self.body.len());
            }
        }
        whole
    }
}

fn event(name: &str, payload: &str) -> Vec<u8> {
    let headers = [(":event-type", name), (":content-type", JSON), (":message-type", "event")];
    message(&headers, payload.as_bytes())
}

fn exception(name: &str, text: &str) -> Vec<u8> {
    let headers = [(":exception-type", name), (":content-type", JSON), (":message-type", "exception")];
    message(&headers, format!(r#"{{"message":"{text}"}}"#).as_bytes())
}

fn chunk(event_of_the_model: &str) -> Vec<u8> {
    let text = encode(event_of_the_model.as_bytes());
    event("chunk", &format!(r#"{{"bytes":"{text}","p":"abcdefghijkl"}}"#))
}

/// An exchange that ends well with the provider's final count.
fn check(exchange: &Exchange, expected: &[(C, u64)], noted: &[Anomaly]) -> Reading {
    let reading = exchange.reading();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(reading.usage.tokens().collect::<Vec<_>>(), expected);
    assert_eq!((reading.outcome, reading.metering), (Outcome::Ok, Metering::Count));
    assert_eq!(reading.usage_source, UsageSource::Provider);
    assert_eq!(reading.stream, !exchange.ends.is_empty());
    assert_eq!(reading.anomalies.iter().collect::<Vec<_>>(), noted);
    reading
}

fn tool_calls(reading: &Reading) -> Option<u64> {
    reading.usage.quantity(Quantity::ToolCalls)
}

fn text(label: Option<&Label>) -> Option<&str> {
    label.map(Label::as_str)
}

// === Converse ===

fn converse(usage: &str, more: &str) -> Exchange {
    Exchange::plain(
        "converse",
        &format!(
            r#"{{"metrics":{{"latencyMs":700}},"output":{{"message":{{"content":[{{"text":"The \"usage\": {{}} tide."}},
            {{"toolUse":{{"input":{{"usage":{{"inputTokens":1}}}},"name":"tides","toolUseId":"tooluse_1"}}}}],
            "role":"assistant"}}}},"stopReason":"end_turn"{more},"usage":{usage}}}"#
        ),
    )
}

#[test]
fn the_cache_of_converse_adds_to_its_input_and_is_read_once_of_two_names() {
    let usage = r#"{"cacheReadInputTokenCount":300,"cacheReadInputTokens":300,"cacheWriteInputTokenCount":50,
        "cacheWriteInputTokens":50,"inputTokens":20,"outputTokens":9,"serverToolUsage":{},"totalTokens":379}"#;
    let classes = [(C::InputFresh, 20), (C::CachedRead, 300), (C::CacheWrite, 50), (C::OutputText, 9)];
    let reading = check(&converse(usage, ""), &classes, &[]);
    assert_eq!(reading.usage.input_total(), Some(370));
    assert_eq!(tool_calls(&reading), Some(1));
    assert_eq!(reading.usage_raw.as_deref(), Some(usage));
    assert_eq!((reading.model_served, reading.meter_id, reading.tier), (None, None, None));
    let usage =
        usage.replace(r#""cacheReadInputTokens":300,"#, "").replace(r#""cacheWriteInputTokens":50,"#, "");
    check(&converse(&usage, ""), &classes, &[]);
}

#[test]
fn cache_writes_are_split_by_their_lifetimes() {
    let usage = r#"{"cacheDetails":[{"inputTokens":30,"ttl":"1h"},{"ttl":"5m","inputTokens":15}],
        "cacheWriteInputTokens":50,"inputTokens":20,"outputTokens":9,"totalTokens":79}"#;
    let classes = [
        (C::InputFresh, 20),
        (C::CacheWrite, 5),
        (C::CacheWrite5m, 15),
        (C::CacheWrite1h, 30),
        (C::OutputText, 9),
    ];
    check(&converse(usage, ""), &classes, &[]);
    let usage = r#"{"cacheDetails":[{"inputTokens":30,"ttl":"1h"},{"ttl":"90d","inputTokens":20}],
        "cacheWriteInputTokens":50,"inputTokens":20,"outputTokens":9,"totalTokens":79}"#;
    let classes = [(C::InputFresh, 20), (C::CacheWrite, 20), (C::CacheWrite1h, 30), (C::OutputText, 9)];
    check(&converse(usage, ""), &classes, &[]);
}

#[test]
fn counts_that_contradict_themselves_are_noted() {
    let usage = r#"{"inputTokens":20,"outputTokens":9,"totalTokens":30}"#;
    let classes = [(C::InputFresh, 20), (C::OutputText, 9)];
    check(&converse(usage, ""), &classes, &[Anomaly::TotalMismatch]);
    let usage =
        r#"{"inputTokens":20,"outputTokens":9,"cacheReadInputTokens":3,"cacheReadInputTokenCount":4}"#;
    let classes = [(C::InputFresh, 20), (C::CachedRead, 3), (C::OutputText, 9)];
    check(&converse(usage, ""), &classes, &[Anomaly::CountsDisagree]);
}

#[test]
fn tier_latency_and_routed_model_are_those_of_the_reply() {
    let more = r#","performanceConfig":{"latency":"optimized"},"serviceTier":{"type":"flex"},
        "trace":{"guardrail":{"usage":{"inputTokens":99}},"promptRouter":{"invokedModelId":"arn:aws:bedrock:m"}}"#;
    let exchange = converse(r#"{"inputTokens":2,"outputTokens":1,"totalTokens":3}"#, more);
    let reading = check(&exchange, &[(C::InputFresh, 2), (C::OutputText, 1)], &[]);
    assert_eq!(text(reading.tier.as_ref()), Some("flex"));
    assert_eq!(text(reading.speed.as_ref()), Some("optimized"));
    assert_eq!(text(reading.model_served.as_ref()), Some("arn:aws:bedrock:m"));
}

#[test]
fn a_guardrail_that_lets_nothing_through_filters_and_one_that_masks_does_not() {
    let intervened = |usage: &str| {
        let exchange = converse(usage, "");
        let body = String::from_utf8(exchange.body.clone()).unwrap();
        Exchange { body: body.replace("end_turn", "guardrail_intervened").into_bytes(), ..exchange }
    };
    let reading = intervened(r#"{"inputTokens":0,"outputTokens":0,"totalTokens":0}"#).reading();
    assert_eq!((reading.outcome, reading.metering), (Outcome::Filtered, Metering::Count));
    let masked = intervened(r#"{"inputTokens":8,"outputTokens":2,"totalTokens":10}"#);
    check(&masked, &[(C::InputFresh, 8), (C::OutputText, 2)], &[]);
}

#[test]
fn an_error_of_bedrock_never_counts() {
    for (operation, status) in [("converse", 400), ("converse-stream", 429), ("invoke", 403), ("invoke", 500)]
    {
        let body = r#"{"message":"The provided model identifier is invalid."}"#;
        let reading = Exchange::plain(operation, body).status(status).reading();
        assert_eq!((reading.outcome, reading.metering), (Outcome::Error, Metering::Never));
        assert_eq!((reading.usage_source, reading.usage_raw), (UsageSource::Absent, None));
    }
}

#[test]
fn counting_tokens_is_free() {
    let reading = Exchange::plain("count-tokens", r#"{"inputTokens": 11}"#).reading();
    assert_eq!((reading.metering, reading.usage_source), (Metering::Never, UsageSource::Absent));
}

// === ConverseStream ===

const METADATA: &str = r#"{"metrics":{"latencyMs":700},"p":"abcd","serviceTier":{"type":"default"},"usage":
    {"cacheReadInputTokenCount":300,"cacheReadInputTokens":300,"inputTokens":20,"outputTokens":9,"totalTokens":329}}"#;

fn converse_events() -> Vec<Vec<u8>> {
    vec![
        event("messageStart", r#"{"p":"abcdefgh","role":"assistant"}"#),
        event("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"text":"{\"usage\":{}}"},"p":"abc"}"#),
        event("contentBlockStop", r#"{"contentBlockIndex":0,"p":"ab"}"#),
        event("contentBlockStart", r#"{"contentBlockIndex":1,"start":{"toolUse":{"name":"tides"}},"p":"a"}"#),
        event("contentBlockDelta", r#"{"contentBlockIndex":1,"delta":{"toolUse":{"input":"{}"}}}"#),
        event(
            "contentBlockStart",
            r#"{"contentBlockIndex":2,"start":{"toolUse":{"type":"server_tool_use"}}}"#,
        ),
        event("messageStop", r#"{"p":"abcdefghijkl","stopReason":"tool_use"}"#),
        event("metadata", METADATA),
    ]
}

const CONVERSE_CLASSES: [(C, u64); 3] = [(C::InputFresh, 20), (C::CachedRead, 300), (C::OutputText, 9)];

#[test]
fn the_usage_of_a_converse_stream_is_in_its_last_event() {
    let reading = check(&Exchange::stream("converse-stream", converse_events()), &CONVERSE_CLASSES, &[]);
    assert_eq!((tool_calls(&reading), text(reading.tier.as_ref())), (Some(1), Some("default")));
}

#[test]
fn a_reply_is_known_by_its_first_byte_where_its_type_is_not_told_or_wrong() {
    let mut exchange = Exchange::stream("converse-stream", converse_events());
    exchange.headers.remove(CONTENT_TYPE);
    check(&exchange, &CONVERSE_CLASSES, &[]);
    let mut exchange = converse(r#"{"inputTokens":20,"outputTokens":9,"cacheReadInputTokens":300}"#, "");
    exchange.headers.remove(CONTENT_TYPE);
    check(&exchange, &CONVERSE_CLASSES, &[]);
    // Or where it is told wrong.
    check(&exchange.header("content-type", EVENTS), &CONVERSE_CLASSES, &[]);
    let exchange = Exchange::stream("converse-stream", converse_events()).header("content-type", JSON);
    check(&exchange, &CONVERSE_CLASSES, &[]);
}

#[test]
fn a_stream_that_ends_after_any_event_but_the_last_was_cut() {
    let exchange = Exchange::stream("converse-stream", converse_events());
    for (index, end) in exchange.ends.iter().enumerate() {
        let reading = exchange.read([&exchange.body[..*end]], Ending::Complete);
        let is_last = index + 1 == exchange.ends.len();
        let expected = if is_last { Outcome::Ok } else { Outcome::ErrorMidstream };
        assert_eq!((reading.outcome, reading.metering), (expected, Metering::Count), "event {index}");
    }
}

#[test]
fn an_exception_in_a_stream_is_an_error_under_status_200() {
    for name in [
        "throttlingException",
        "modelStreamErrorException",
        "internalServerException",
        "serviceUnavailableException",
        "validationException",
    ] {
        let mut events = converse_events();
        events.truncate(2);
        events.push(exception(name, "Too many tokens"));
        let reading = Exchange::stream("converse-stream", events).reading();
        assert_eq!((reading.outcome, reading.metering), (Outcome::ErrorMidstream, Metering::Count));
        assert_eq!(reading.usage_source, UsageSource::Absent);
        assert!(reading.anomalies.is_empty());
    }
    let error = message(&[(":message-type", "error"), (":error-code", "500")], b"");
    let reading = Exchange::stream("converse-stream", [error]).reading();
    assert_eq!(reading.outcome, Outcome::ErrorMidstream);
}

#[test]
fn a_damaged_message_ends_the_reading_and_is_noted() {
    let exchange = Exchange::stream("converse-stream", converse_events());
    let whole = exchange.reading();
    for at in 0..exchange.body.len() {
        let mut damaged = exchange.clone();
        damaged.body[at] ^= 0x20;
        let reading = damaged.read(damaged.body.chunks(9), Ending::Complete);
        assert!(reading.anomalies.contains(Anomaly::MalformedReply), "{at}");
        assert_eq!((reading.outcome, reading.usage_source), (Outcome::ErrorMidstream, UsageSource::Absent));
        assert_ne!(reading.usage, whole.usage);
    }
}

#[test]
fn a_message_too_long_to_read_is_noted_and_the_usage_behind_it_is_read() {
    let mut events = converse_events();
    let long = format!(r#"{{"delta":{{"text":"{}"}}}}"#, "x".repeat(2 << 20));
    events.insert(2, event("contentBlockDelta", &long));
    let exchange = Exchange::stream("converse-stream", events);
    let reading = exchange.read(exchange.body.chunks(60_000), Ending::Complete);
    assert_eq!(reading.anomalies.iter().collect::<Vec<_>>(), [Anomaly::MeteringCapped]);
    assert_eq!((reading.outcome, reading.usage.output_total()), (Outcome::Ok, Some(9)));
}

#[test]
fn a_payload_that_is_no_json_is_noted() {
    let mut events = converse_events();
    events.insert(1, event("contentBlockDelta", r#"{"delta": "#));
    let exchange = Exchange::stream("converse-stream", events);
    check(&exchange, &CONVERSE_CLASSES, &[Anomaly::MalformedReply]);
}

// === InvokeModel ===

const CLAUDE: &str = r#"{"id":"msg_bdrk_1","type":"message","role":"assistant","model":"claude-haiku-4-5-20251001",
    "content":[{"type":"text","text":"Tides."},{"type":"tool_use","id":"t","name":"tides","input":{}}],
    "stop_reason":"tool_use","usage":{"input_tokens":4,"cache_creation_input_tokens":100,
    "cache_creation":{"ephemeral_5m_input_tokens":60,"ephemeral_1h_input_tokens":40},
    "cache_read_input_tokens":7,"output_tokens":50,"output_tokens_details":{"thinking_tokens":20},
    "service_tier":"standard"}}"#;

const CLAUDE_CLASSES: [(C, u64); 6] = [
    (C::InputFresh, 4),
    (C::CachedRead, 7),
    (C::CacheWrite5m, 60),
    (C::CacheWrite1h, 40),
    (C::OutputText, 30),
    (C::OutputReasoning, 20),
];

fn counted(exchange: Exchange, input: &'static str, output: &'static str) -> Exchange {
    exchange
        .header("x-amzn-bedrock-input-token-count", input)
        .header("x-amzn-bedrock-output-token-count", output)
}

#[test]
fn claudes_body_says_more_than_the_headers() {
    let bare = Exchange::plain("invoke", CLAUDE);
    check(&bare, &CLAUDE_CLASSES, &[]);
    let exchange = counted(bare, "4", "50")
        .header("x-amzn-bedrock-cache-read-input-token-count", "7")
        .header("x-amzn-bedrock-cache-write-input-token-count", "100")
        .header("x-amzn-bedrock-service-tier", "priority")
        .header("x-amzn-bedrock-performanceconfig-latency", "optimized");
    let reading = check(&exchange, &CLAUDE_CLASSES, &[]);
    assert_eq!(text(reading.model_served.as_ref()), Some("claude-haiku-4-5-20251001"));
    assert_eq!(text(reading.meter_id.as_ref()), Some("msg_bdrk_1"));
    assert_eq!(text(reading.tier.as_ref()), Some("priority"));
    assert_eq!(text(reading.speed.as_ref()), Some("optimized"));
    assert_eq!(tool_calls(&reading), Some(1));
    let raw = reading.usage_raw.unwrap();
    assert!(raw.contains("ephemeral_1h") && raw.contains("x-amzn-bedrock-input-token-count"), "{raw}");
}

#[test]
fn headers_that_say_another_number_than_claude_count_and_are_noted() {
    let exchange = counted(Exchange::plain("invoke", CLAUDE), "4", "49");
    let mut classes = CLAUDE_CLASSES;
    classes[4] = (C::OutputText, 29);
    check(&exchange, &classes, &[Anomaly::CountsDisagree]);
    // Of what was written they do not know for how long.
    let exchange = counted(Exchange::plain("invoke", CLAUDE), "5", "15")
        .header("x-amzn-bedrock-cache-read-input-token-count", "6")
        .header("x-amzn-bedrock-cache-write-input-token-count", "101");
    let classes = [
        (C::InputFresh, 5),
        (C::CachedRead, 6),
        (C::CacheWrite, 101),
        (C::OutputText, 0),
        (C::OutputReasoning, 15),
    ];
    check(&exchange, &classes, &[Anomaly::CountsDisagree]);
}

#[test]
fn headers_do_not_replace_passes_of_other_models() {
    let body = r#"{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[],
        "stop_reason":"end_turn","usage":{"input_tokens":9,"output_tokens":4,"iterations":[
        {"type":"compaction","input_tokens":70,"output_tokens":3},
        {"type":"message","input_tokens":9,"output_tokens":4}]}}"#;
    let exchange = counted(Exchange::plain("invoke", body), "9", "4");
    let classes = [(C::InputFresh, 79), (C::OutputText, 7)];
    let noted = [Anomaly::CountsDisagree, Anomaly::IterationsAdded];
    let reading = exchange.reading();
    assert_eq!(reading.usage.tokens().collect::<Vec<_>>(), classes);
    assert!(noted.iter().all(|anomaly| reading.anomalies.contains(*anomaly)), "{:?}", reading.anomalies);
}

#[test]
fn headers_count_for_families_whose_bodies_do_not() {
    let cohere = Exchange::plain("invoke", r#"{"generations":[{"text":"x"}],"id":"g","prompt":"y"}"#);
    let reading = check(&counted(cohere.clone(), "12", "5"), &[(C::InputFresh, 12), (C::OutputText, 5)], &[]);
    assert_eq!((tool_calls(&reading), reading.meter_id, reading.model_served), (None, None, None));
    assert_eq!(
        reading.usage_raw.as_deref(),
        Some(r#"{"x-amzn-bedrock-input-token-count":"12","x-amzn-bedrock-output-token-count":"5"}"#)
    );
    let unknown = cohere.reading();
    assert_eq!((unknown.outcome, unknown.usage_source), (Outcome::Ok, UsageSource::Absent));
}

#[test]
fn an_embedding_has_input_alone() {
    let exchange = Exchange::plain("invoke", r#"{"embedding":[0.1,-0.2],"inputTextTokenCount":8}"#);
    check(&exchange, &[(C::InputFresh, 8)], &[]);
    check(&exchange.header("x-amzn-bedrock-input-token-count", "8"), &[(C::InputFresh, 8)], &[]);
}

#[test]
fn bodies_of_other_families_are_read_where_headers_are_missing() {
    let plain = |body| Exchange::plain("invoke", body);
    check(
        &plain(
            r#"{"output":{"message":{"content":[{"text":"x"}]}},"stopReason":"end_turn","usage":{"inputTokens":5,
            "outputTokens":10,"totalTokens":15,"cacheReadInputTokenCount":0,"cacheWriteInputTokenCount":0}}"#,
        ),
        &[(C::InputFresh, 5), (C::CachedRead, 0), (C::CacheWrite, 0), (C::OutputText, 10)],
        &[],
    );
    check(
        &plain(
            r#"{"inputTextTokenCount":28.0,"results":[{"tokenCount":197.0,"outputText":"x","completionReason":"FINISH"}]}"#,
        ),
        &[(C::InputFresh, 28), (C::OutputText, 197)],
        &[],
    );
    check(
        &plain(
            r#"{"generation":"x","prompt_token_count":22,"generation_token_count":31,"stop_reason":"stop"}"#,
        ),
        &[(C::InputFresh, 22), (C::OutputText, 31)],
        &[],
    );
    let openai = plain(
        r#"{"id":"chatcmpl-1","object":"chat.completion","model":"openai.gpt-oss-20b","choices":[],"usage":
        {"prompt_tokens":70,"completion_tokens":30,"prompt_tokens_details":{"cached_tokens":6},
        "completion_tokens_details":{"reasoning_tokens":11}}}"#,
    );
    let classes = [(C::InputFresh, 64), (C::CachedRead, 6), (C::OutputText, 19), (C::OutputReasoning, 11)];
    let reading = check(&openai, &classes, &[]);
    assert_eq!(text(reading.model_served.as_ref()), Some("openai.gpt-oss-20b"));
    assert_eq!(text(reading.meter_id.as_ref()), Some("chatcmpl-1"));
}

#[test]
fn bedrocks_count_wins_over_that_of_other_families() {
    let llama =
        r#"{"generation":"x","prompt_token_count":22,"generation_token_count":31,"stop_reason":"stop"}"#;
    let exchange = counted(Exchange::plain("invoke", llama), "23", "31");
    check(&exchange, &[(C::InputFresh, 23), (C::OutputText, 31)], &[Anomaly::CountsDisagree]);
    let exchange = Exchange::plain("invoke", llama).header("x-amzn-bedrock-input-token-count", "23");
    check(&exchange, &[(C::InputFresh, 23), (C::OutputText, 31)], &[Anomaly::CountsDisagree]);
}

#[test]
fn headers_that_are_no_counts_are_noted_and_the_body_is_read() {
    let titan = r#"{"inputTextTokenCount":6,"results":[{"tokenCount":4,"completionReason":"FINISH"}]}"#;
    let exchange = counted(Exchange::plain("invoke", titan), "-6", "4");
    check(&exchange, &[(C::InputFresh, 6), (C::OutputText, 4)], &[Anomaly::InvalidCount]);
}

#[test]
fn a_blocked_prompt_of_titan_is_filtered() {
    let body = r#"{"inputTextTokenCount":6.0,"results":[{"tokenCount":0.0,"outputText":"Sorry.","completionReason":
        "CONTENT_FILTERED"}],"amazon-bedrock-guardrailAction":"INTERVENED"}"#;
    let reading = Exchange::plain("invoke", body).reading();
    assert_eq!((reading.outcome, reading.metering), (Outcome::Filtered, Metering::Count));
    assert_eq!(reading.usage.input_total(), Some(6));
}

// === InvokeModelWithResponseStream ===

const START: &str = r#"{"type":"message_start","message":{"id":"msg_bdrk_2","type":"message","role":"assistant",
    "model":"claude-3-5-sonnet-20240620","content":[],"usage":{"input_tokens":392,"output_tokens":4}}}"#;
const TOOL_BLOCK: &str =
    r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t"}}"#;
const TEXT_DELTA: &str =
    r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"{\"usage\":1}"}}"#;
const DELTA: &str =
    r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":134}}"#;

fn stop(output: u64) -> String {
    format!(
        r#"{{"type":"message_stop","amazon-bedrock-invocationMetrics":{{"inputTokenCount":392,"outputTokenCount":{output},
        "invocationLatency":3722,"firstByteLatency":779}}}}"#
    )
}

fn claude_stream(last: &str) -> Exchange {
    Exchange::chunks([START, TOOL_BLOCK, TEXT_DELTA, DELTA, last])
}

#[test]
fn a_stream_of_claude_is_read_by_its_own_events_with_bedrocks_metrics_beside() {
    let reading = check(&claude_stream(&stop(134)), &[(C::InputFresh, 392), (C::OutputText, 134)], &[]);
    assert_eq!(text(reading.model_served.as_ref()), Some("claude-3-5-sonnet-20240620"));
    assert_eq!((text(reading.meter_id.as_ref()), tool_calls(&reading)), (Some("msg_bdrk_2"), Some(1)));
    let raw = reading.usage_raw.unwrap();
    assert!(raw.contains("\"output_tokens\":134") && raw.contains("\"outputTokenCount\":134"), "{raw}");
}

#[test]
fn metrics_that_leave_tool_calls_out_are_noted_and_claudes_count_is_kept() {
    let classes = [(C::InputFresh, 392), (C::OutputText, 134)];
    let reading = check(&claude_stream(&stop(90)), &classes, &[Anomaly::CountsDisagree]);
    assert!(reading.usage_raw.unwrap().contains("\"outputTokenCount\":90"), "both are kept");
}

#[test]
fn a_stream_of_claude_without_metrics_is_complete_with_its_last_event() {
    let exchange = claude_stream(r#"{"type":"message_stop"}"#);
    check(&exchange, &[(C::InputFresh, 392), (C::OutputText, 134)], &[]);
    let cut = Exchange::chunks([START, TOOL_BLOCK, DELTA]).reading();
    assert_eq!((cut.outcome, cut.usage.output_total()), (Outcome::ErrorMidstream, Some(134)));
}

#[test]
fn errors_in_a_stream_of_claude_leave_no_placeholder_as_a_count() {
    let mut exchange = Exchange::chunks([START, TEXT_DELTA]);
    exchange.body.extend(exception("modelStreamErrorException", "the model broke"));
    let by_exception = exchange.read(exchange.body.chunks(7), Ending::Complete);
    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    let exchange = Exchange::chunks([START, TEXT_DELTA, error]);
    let by_event = exchange.read(exchange.body.chunks(7), Ending::Complete);
    for reading in [by_exception, by_event] {
        assert_eq!((reading.outcome, reading.metering), (Outcome::ErrorMidstream, Metering::Count));
        assert_eq!((reading.usage.input_total(), reading.usage.output_total()), (Some(392), None));
    }
}

#[test]
fn a_stream_of_nova_ends_with_its_metadata() {
    let usage = r#""usage":{"inputTokens":5,"outputTokens":10,"cacheReadInputTokenCount":0,"cacheWriteInputTokenCount":0}"#;
    let metrics = r#""amazon-bedrock-invocationMetrics":{"inputTokenCount":5,"outputTokenCount":10,
        "cacheReadInputTokenCount":0,"cacheWriteInputTokenCount":0}"#;
    let classes = [(C::InputFresh, 5), (C::CachedRead, 0), (C::CacheWrite, 0), (C::OutputText, 10)];
    for last in [
        format!(r#"{{"metadata":{{{usage},"metrics":{{}},"trace":{{}}}},{metrics}}}"#),
        format!(r#"{{"metadata":{{{usage}}}}}"#),
        format!("{{{metrics}}}"),
    ] {
        let events = [
            r#"{"messageStart":{"role":"assistant"}}"#,
            r#"{"contentBlockDelta":{"delta":{"text":"It"},"contentBlockIndex":0}}"#,
            r#"{"messageStop":{"stopReason":"max_tokens"}}"#,
            &last,
        ];
        check(&Exchange::chunks(events), &classes, &[]);
    }
}

#[test]
fn streams_of_titan_and_llama_are_read_with_and_without_metrics() {
    let metrics = r#","amazon-bedrock-invocationMetrics":{"inputTokenCount":6,"outputTokenCount":9}"#;
    for (metrics, noted) in [(metrics, true), ("", false)] {
        let titan = [
            r#"{"outputText":"Once","index":0.0,"inputTextTokenCount":6.0}"#.to_owned(),
            format!(
                r#"{{"outputText":".","index":0.0,"totalOutputTextTokenCount":9.0,"completionReason":"FINISH"{metrics}}}"#
            ),
        ];
        let llama = [
            r#"{"generation":"On","prompt_token_count":6,"generation_token_count":1,"stop_reason":null}"#
                .to_owned(),
            format!(
                r#"{{"generation":"","prompt_token_count":null,"generation_token_count":9,"stop_reason":"stop"{metrics}}}"#
            ),
        ];
        for events in [titan, llama] {
            let exchange = Exchange::chunks(events.iter().map(String::as_str));
            let reading = check_loosely(&exchange);
            assert_eq!((reading.usage.input_total(), reading.usage.output_total()), (Some(6), Some(9)));
            assert_eq!(reading.usage_raw.is_some(), noted);
        }
    }
}

/// Llama counts in every chunk, so a cut there leaves a part of the count.
fn check_loosely(exchange: &Exchange) -> Reading {
    let reading = exchange.read(exchange.body.chunks(5), Ending::Complete);
    assert_eq!(reading, exchange.read([exchange.body.as_slice()], Ending::Complete));
    assert_eq!((reading.outcome, reading.usage_source), (Outcome::Ok, UsageSource::Provider));
    for end in &exchange.ends[..exchange.ends.len() - 1] {
        let cut = exchange.read([&exchange.body[..*end]], Ending::UpstreamCut);
        assert_eq!(cut.outcome, Outcome::ErrorMidstream);
        assert_ne!(cut.usage_source, UsageSource::Provider);
    }
    reading
}

#[test]
fn a_chunk_longer_than_a_collected_value_is_read() {
    let trace = "x".repeat(200_000);
    let last = format!(
        r#"{{"outputText":".","totalOutputTextTokenCount":9,"completionReason":"FINISH","amazon-bedrock-trace":
        {{"guardrail":"{trace}"}},"amazon-bedrock-invocationMetrics":{{"inputTokenCount":6,"outputTokenCount":9}}}}"#
    );
    let exchange = Exchange::chunks([last.as_str()]);
    let reading = exchange.read(exchange.body.chunks(9_000), Ending::Complete);
    assert_eq!((reading.outcome, reading.usage.output_total()), (Outcome::Ok, Some(9)));
    assert!(reading.anomalies.is_empty());
}

#[test]
fn a_chunk_that_is_no_base64_or_no_json_is_noted() {
    for payload in [
        r#"{"bytes":"%%%%"}"#.to_owned(),
        r#"{"bytes":"e30"}"#.to_owned(),
        r#"{"bytes":12}"#.to_owned(),
        r#"{"p":"abc"}"#.to_owned(),
        format!(r#"{{"bytes":"{}"}}"#, encode(b"{\"a\":")),
    ] {
        let events = [chunk(START), event("chunk", &payload), chunk(DELTA), chunk(&stop(134))];
        let exchange = Exchange::stream("invoke-with-response-stream", events);
        let classes = [(C::InputFresh, 392), (C::OutputText, 134)];
        check(&exchange, &classes, &[Anomaly::MalformedReply]);
    }
    let spaced = format!(r#"{{ "p" : "\"bytes\":\"no\"" , "bytes" : "{}" }}"#, encode(stop(134).as_bytes()));
    let events = [chunk(START), event("later-kind", "x"), chunk(DELTA), event("chunk", &spaced)];
    let exchange = Exchange::stream("invoke-with-response-stream", events);
    check(&exchange, &[(C::InputFresh, 392), (C::OutputText, 134)], &[]);
}

// === any bytes ===

proptest! {
    #[test]
    fn any_slicing_of_a_damaged_stream_gives_the_same_reading(
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2),
        cut in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(1_usize..400, 1..20),
        converses in any::<bool>(),
    ) {
        let mut exchange = if converses {
            Exchange::stream("converse-stream", converse_events())
        } else {
            claude_stream(&stop(90))
        };
        for (at, byte) in noise {
            let at = at.index(exchange.body.len());
            exchange.body[at] = byte;
        }
        let end = cut.index(exchange.body.len() * 2).min(exchange.body.len());
        exchange.body.truncate(end);
        let (mut pieces, mut rest, mut sizes) = (Vec::new(), exchange.body.as_slice(), cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        let whole = exchange.read([exchange.body.as_slice()], Ending::Complete);
        prop_assert_eq!(exchange.read(pieces, Ending::Complete), whole);
    }

    #[test]
    fn any_bytes_as_a_reply_are_survived(
        body in prop::collection::vec(any::<u8>(), 0..400),
        operation in prop::sample::select(vec!["converse", "converse-stream", "invoke", "invoke-with-response-stream"]),
        content_type in prop::sample::select(vec![JSON, EVENTS, "text/plain"]),
    ) {
        let exchange = Exchange { operation, status: 200, headers: HeaderMap::new(), body, ends: Vec::new() };
        let exchange = exchange.header("content-type", content_type);
        let whole = exchange.read([exchange.body.as_slice()], Ending::Complete);
        prop_assert_eq!(exchange.read(exchange.body.chunks(1), Ending::Complete), whole);
    }
}

#[test]
fn mantle_speaks_openais_and_anthropics_apis() {
    for (path, api) in [
        ("/openai/v1/responses", Api::Responses),
        ("/v1/chat/completions", Api::OpenAiChat),
        ("/anthropic/v1/messages", Api::Messages),
    ] {
        assert_eq!(api_of(&Method::POST, path), api);
    }
}
