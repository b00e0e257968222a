//! Readings of transcripts: one invented exchange per shape and quirk, read whole, in every slicing and
//! cut at every byte.

use super::*;
use bursar_domain::usage::{Quantity as Q, TokenClass as C};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::Write;
use text::TextKey;

const JSON: &str = "application/json";
const SSE: &str = "text/event-stream; charset=utf-8";
const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages?beta=true";

/// An exchange.
#[derive(Clone)]
struct Exchange {
    provider: &'static str,
    method: Method,
    path: &'static str,
    status: u16,
    headers: HeaderMap,
    request: &'static str,
    body: Vec<u8>,
}

impl Exchange {
    fn new(provider: &'static str, path: &'static str, content_type: &'static str, body: &[u8]) -> Self {
        let mut headers = HeaderMap::new();
        if !content_type.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        let request = if content_type.starts_with("text/event") { r#"{"stream":true}"# } else { "{}" };
        Self { provider, method: Method::POST, path, status: 200, headers, request, body: body.to_vec() }
    }

    fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }

    fn request(mut self, request: &'static str) -> Self {
        self.request = request;
        self
    }

    fn read<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>, ending: Ending) -> Reading {
        let (mut meter, facts) = self.meter();
        for piece in pieces {
            meter.feed(piece);
        }
        meter.finish(ending, &facts)
    }

    /// The texts that passed, each whole.
    fn texts<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>) -> BTreeMap<TextKey, Vec<u8>> {
        let (mut meter, _) = self.meter();
        let mut texts: BTreeMap<TextKey, Vec<u8>> = BTreeMap::new();
        if meter.keep_text(text::STREAM_BYTES_MAX) {
            for piece in pieces {
                meter.feed(piece);
            }
            let passed = meter.text().unwrap();
            assert_eq!(passed.lost_bytes(), 0);
            passed.pieces().for_each(|(key, raw)| texts.entry(key).or_default().extend(raw));
        }
        texts
    }

    fn meter(&self) -> (ReplyMeter, RequestFacts) {
        let mut scan = RequestScan::new(None);
        scan.feed(self.request.as_bytes());
        let mut facts = scan.facts();
        let api = match self.provider {
            "cohere" => cohere_api_of(&self.method, self.path),
            "ollama" => ollama_api_of(&self.method, self.path),
            "gemini" | "vertex" => google_api_of(&self.method, self.path),
            _ => api_of(&self.method, self.path),
        };
        let path = model_in_path(self.path).as_deref().and_then(Label::lossy);
        facts.model = api.requested_model(facts.model.take(), path);
        let meter = ReplyMeter::new(&ReplyContext {
            flavour: flavour_of(self.provider),
            api,
            status: self.status,
            headers: &self.headers,
            stream_requested: api.is_stream() || facts.stream,
        });
        (meter, facts)
    }

    fn whole(&self) -> Reading {
        self.read([self.body.as_slice()], Ending::Complete)
    }

    /// The reading, which must be the same in all slicings; and every cut must be told.
    fn reading(&self) -> Reading {
        let whole = self.sliced();
        self.cuts(&whole);
        whole
    }

    /// The reading, which must be the same in all slicings.
    fn sliced(&self) -> Reading {
        let whole = self.whole();
        let texts = self.texts([self.body.as_slice()]);
        for size in [1, 2, 3, 7, 17] {
            assert_eq!(self.read(self.body.chunks(size), Ending::Complete), whole, "pieces of {size}");
            assert_eq!(self.texts(self.body.chunks(size)), texts, "texts in pieces of {size}");
        }
        whole
    }

    fn cuts(&self, whole: &Reading) {
        for at in 0..self.body.len() {
            let (known, _) = self.body.split_at(at);
            for ending in [Ending::UpstreamCut, Ending::ClientAbort] {
                let cut = self.read([known], ending);
                let text = || String::from_utf8_lossy(known).into_owned();
                for (total, final_total) in [
                    (cut.usage.input_total(), whole.usage.input_total()),
                    (cut.usage.output_total(), whole.usage.output_total()),
                ] {
                    assert!(total.unwrap_or(0) <= final_total.unwrap_or(u64::MAX), "{}", text());
                }
                let marked = match ending {
                    Ending::ClientAbort => Outcome::Aborted,
                    _ => Outcome::ErrorMidstream,
                };
                let told = cut.outcome == marked
                    || matches!(cut.outcome, Outcome::Error | Outcome::ErrorMidstream)
                    || (cut.outcome, cut.usage) == (whole.outcome, whole.usage);
                assert!(told, "{:?} after {}", cut.outcome, text());
            }
        }
    }
}

fn tokens(reading: &Reading) -> Vec<(C, u64)> {
    reading.usage.tokens().collect()
}

fn quantity(reading: &Reading, quantity: Q) -> Option<u64> {
    reading.usage.quantity(quantity)
}

fn anomalies(reading: &Reading) -> Vec<Anomaly> {
    reading.anomalies.iter().collect()
}

fn text(label: Option<&Label>) -> Option<&str> {
    label.map(Label::as_str)
}

fn cost(reading: &Reading) -> Option<String> {
    reading.provider_cost.map(|cost| cost.amount.to_string())
}

/// An exchange that ends well with the provider's final count.
fn check(exchange: &Exchange, expected: &[(C, u64)]) -> Reading {
    let reading = exchange.reading();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(tokens(&reading), expected);
    assert_eq!((reading.outcome, reading.metering), (Outcome::Ok, Metering::Count));
    assert_eq!(reading.usage_source, UsageSource::Provider);
    assert!(reading.usage_raw.is_some());
    reading
}

macro_rules! transcript {
    ($provider:expr, $path:expr, $type:expr, $name:literal) => {
        Exchange::new(
            $provider,
            $path,
            $type,
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/usage/transcripts/", $name)),
        )
    };
}

// Below the macro, which it uses.
mod alike;
mod cut;
mod gemini;
mod others;
mod peers;
mod reference;
mod searches;

// === OpenAI ===

#[test]
fn a_chat_reply_is_read_into_disjoint_classes() {
    let exchange = transcript!("openai", CHAT, JSON, "openai-chat.json").request(r#"{"model":"gpt-4o"}"#);
    let reading = check(
        &exchange,
        &[
            (C::InputFresh, 500_000),
            (C::InputAudio, 0),
            (C::CachedRead, 300_000),
            (C::CacheWrite, 200_000),
            (C::OutputText, 60),
            (C::OutputReasoning, 40),
            (C::OutputAudio, 0),
        ],
    );
    assert_eq!(text(reading.model_served.as_ref()), Some("gpt-4o-2024-08-06"));
    assert_eq!(text(reading.tier.as_ref()), Some("priority"));
    assert_eq!(text(reading.meter_id.as_ref()), Some("chatcmpl-made-up-2"));
    assert_eq!(quantity(&reading, Q::ToolCalls), Some(2));
    assert_eq!(quantity(&reading, Q::AcceptedPrediction), Some(3));
    assert_eq!(quantity(&reading, Q::RejectedPrediction), Some(2));
    assert_eq!(anomalies(&reading), []);
    assert!(!reading.stream);
}

#[test]
fn the_last_usage_that_is_not_null_counts_wherever_it_is() {
    let reading = check(
        &transcript!("openai", CHAT, SSE, "openai-chat.sse"),
        &[
            (C::InputFresh, 21),
            (C::InputAudio, 0),
            (C::CachedRead, 0),
            (C::OutputText, 7),
            (C::OutputReasoning, 0),
            (C::OutputAudio, 0),
        ],
    );
    assert_eq!(text(reading.tier.as_ref()), Some("default"));
    assert!(reading.stream);
}

#[test]
fn a_stream_that_was_not_asked_has_no_usage_and_is_complete() {
    let reading = transcript!("openai", CHAT, SSE, "openai-chat-unasked.sse").reading();
    assert_eq!((reading.outcome, reading.metering), (Outcome::Ok, Metering::Count));
    assert_eq!((reading.usage_source, tokens(&reading)), (UsageSource::Absent, vec![]));
    assert_eq!(quantity(&reading, Q::ToolCalls), Some(0));
    assert_eq!(reading.usage_raw, None);
}

#[test]
fn an_explicit_zero_is_the_providers_word() {
    let exchange = transcript!("openai", CHAT, SSE, "openai-chat-zero.sse");
    check(&exchange, &[(C::InputFresh, 0), (C::OutputText, 0)]);
}

#[test]
fn tool_calls_are_counted_once_over_all_chunks_and_choices() {
    let exchange = transcript!("openai", CHAT, SSE, "openai-chat-two-choices-with-tools.sse");
    let reading = check(&exchange, &[(C::InputFresh, 30), (C::OutputText, 20)]);
    assert_eq!(quantity(&reading, Q::ToolCalls), Some(3));
}

#[test]
fn an_error_in_a_stream_ends_it_without_usage() {
    for exchange in [
        transcript!("openai", CHAT, SSE, "openai-chat-error.sse"),
        transcript!("groq", CHAT, SSE, "groq-chat-tool-failure.sse"),
        transcript!("gpustack", CHAT, SSE, "gpustack-chat-error.sse"),
    ] {
        let reading = exchange.reading();
        assert_eq!((reading.outcome, reading.metering), (Outcome::ErrorMidstream, Metering::Count));
        assert_eq!(reading.usage_source, UsageSource::Absent);
    }
}

#[test]
fn an_error_status_counts_only_what_was_billed() {
    let error = transcript!("openai", CHAT, JSON, "openai-chat-429.json").status(429).reading();
    assert_eq!((error.outcome, error.metering), (Outcome::Error, Metering::Never));
    let edge = transcript!("openai", CHAT, "text/html", "edge-503.html").status(503).reading();
    assert_eq!((edge.outcome, edge.metering), (Outcome::Error, Metering::Never));
    let billed = transcript!("openai", CHAT, JSON, "openai-chat-error-with-usage.json").status(500).reading();
    assert_eq!((billed.outcome, billed.metering), (Outcome::Error, Metering::Count));
    assert_eq!(tokens(&billed), [(C::InputFresh, 1_000), (C::OutputText, 1_000)]);
}

#[test]
fn completions_and_embeddings_are_read() {
    let exchange = transcript!("openai", "/v1/completions", JSON, "openai-completions.json");
    check(&exchange, &[(C::InputFresh, 5), (C::OutputText, 16)]);
    let exchange = transcript!("openai", "/v1/embeddings", JSON, "openai-embeddings.json");
    let reading = check(&exchange, &[(C::InputFresh, 7), (C::OutputText, 0)]);
    assert_eq!(quantity(&reading, Q::ToolCalls), None);
    let exchange = transcript!("voyage", "/v1/embeddings", JSON, "voyage-embeddings.json");
    check(&exchange, &[(C::InputFresh, 12), (C::OutputText, 0)]);
}

#[test]
fn reads_and_free_calls_never_count() {
    for (method, path) in [
        (Method::GET, "/v1/chat/completions/chatcmpl-made-up-2"),
        (Method::POST, "/v1/responses/input_tokens"),
        (Method::POST, "/v1/messages/count_tokens"),
        (Method::POST, "/v1/moderations"),
        (Method::GET, "/v1/models"),
    ] {
        let reading = transcript!("openai", path, JSON, "openai-chat.json").method(method).whole();
        assert_eq!((reading.outcome, reading.metering), (Outcome::Ok, Metering::Never), "{path}");
        assert!(reading.usage.is_unknown() && reading.meter_id.is_none(), "{path}");
    }
}

#[test]
fn an_odd_number_is_told_and_loses_no_other() {
    let reading = transcript!("openai", CHAT, JSON, "odd-numbers.json").reading();
    assert_eq!(tokens(&reading), [(C::InputFresh, 4), (C::InputAudio, 2)]);
    let told = anomalies(&reading);
    assert_eq!(told, [Anomaly::TotalMismatch, Anomaly::InvalidCount, Anomaly::ImplausibleCount]);
    // The evidence is kept as it came, although `NaN` is no JSON.
    assert!(reading.usage_raw.is_some_and(|raw| raw.contains("NaN")));
}

#[test]
fn another_model_than_requested_is_told() {
    for (provider, requested, expected) in [
        ("deepseek", r#"{"model":"deepseek-chat"}"#, vec![Anomaly::ServedModelDiffers]),
        ("deepseek", r#"{"model":"deepseek-v4-flash"}"#, vec![]),
        ("azure", r#"{"model":"our-deployment"}"#, vec![]),
        ("deepseek", "{}", vec![]),
    ] {
        let reading = transcript!(provider, CHAT, JSON, "deepseek-chat.json").request(requested).whole();
        assert_eq!(anomalies(&reading), expected, "{provider} {requested}");
    }
}

// === providers' deviations ===

#[test]
fn azure_sends_an_empty_model_first_and_more_cached_than_input() {
    let exchange = transcript!("azure", "/openai/deployments/d/chat/completions", SSE, "azure-chat.sse")
        .header("azureai-processed-tier", "default");
    let reading = check(&exchange, &[(C::InputFresh, 9), (C::OutputText, 3)]);
    assert_eq!(text(reading.model_served.as_ref()), Some("gpt-4.1-mini-2025-04-14"));
    assert_eq!(text(reading.meter_id.as_ref()), Some("chatcmpl-azure"));
    assert_eq!(text(reading.tier.as_ref()), Some("default"));

    let exchange = transcript!("azure", "/models/chat/completions", JSON, "azure-grok.json");
    let reading = check(&exchange, &[(C::InputFresh, 0), (C::CachedRead, 7), (C::OutputText, 4)]);
    assert_eq!(anomalies(&reading), [Anomaly::CachedExceedsInput]);

    let reading = transcript!("azure", CHAT, JSON, "azure-chat-filtered.json").reading();
    assert_eq!((reading.outcome, reading.metering), (Outcome::Error, Metering::Never));
}

#[test]
fn groq_repeats_its_usage_and_breaks_compound_models_down() {
    let exchange = transcript!("groq", CHAT, SSE, "groq-chat.sse");
    check(&exchange, &[(C::InputFresh, 20), (C::OutputText, 5)]);
    let exchange = transcript!("groq", CHAT, SSE, "groq-chat-unasked.sse");
    check(&exchange, &[(C::InputFresh, 12), (C::OutputText, 26)]);
    let exchange = transcript!("groq", CHAT, JSON, "groq-compound.json");
    let reading = check(&exchange, &[(C::InputFresh, 637), (C::OutputText, 81)]);
    let parts: Vec<_> = reading
        .by_model
        .iter()
        .map(|part| (text(part.model.as_ref()), part.usage.input_total(), part.usage.output_total()))
        .collect();
    assert_eq!(parts, [(Some("small"), Some(237), Some(11)), (Some("large"), Some(400), Some(70))]);
}

#[test]
fn a_usage_object_without_figures_takes_nothing_back() {
    for last in ["{}", r#"{"prompt_tokens":null,"completion_tokens":null,"total_tokens":null}"#] {
        let told = r#"{"prompt_tokens":1000,"completion_tokens":700,"total_tokens":1700}"#;
        let body = format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"stop\"}}],\"usage\":{told}}}\n\n\
             data: {{\"choices\":[],\"usage\":{last}}}\n\ndata: [DONE]\n\n"
        );
        let exchange = Exchange::new("openai", CHAT, SSE, body.as_bytes());
        let reading = check(&exchange, &[(C::InputFresh, 1_000), (C::OutputText, 700)]);
        assert_eq!(reading.usage_source, UsageSource::Provider);
    }
}

#[test]
fn moonshot_tells_a_streams_usage_in_its_choice() {
    let body = "data: {\"id\":\"m\",\"model\":\"kimi\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n\
        data: {\"id\":\"m\",\"model\":\"kimi\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\",\
        \"usage\":{\"prompt_tokens\":100,\"completion_tokens\":50,\"total_tokens\":150}}]}\n\ndata: [DONE]\n\n";
    let exchange = Exchange::new("moonshot", CHAT, SSE, body.as_bytes());
    let reading = check(&exchange, &[(C::InputFresh, 100), (C::OutputText, 50)]);
    assert_eq!(reading.usage_source, UsageSource::Provider);
}

#[test]
fn a_response_that_was_none_of_the_background_does_not_count_when_it_is_read_back() {
    let body = br#"{"id":"resp_a","object":"response","status":"completed","background":false,"model":"m",
        "usage":{"input_tokens":1000,"output_tokens":500,"total_tokens":1500}}"#;
    let made = Exchange::new("openai", RESPONSES, JSON, body).reading();
    assert_eq!((made.metering, made.usage.input_total()), (Metering::Count, Some(1_000)));
    let read = Exchange::new("openai", "/v1/responses/resp_a", JSON, body).method(Method::GET).reading();
    assert_eq!(read.metering, Metering::Never);
}

#[test]
fn a_message_stream_that_told_only_its_beginning_is_partly_told() {
    let body = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"c\",\
        \"usage\":{\"input_tokens\":7,\"output_tokens\":1}}}\n\n\
        event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"many words\"}}\n\n\
        event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n\
        event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let reading = Exchange::new("anthropic", "/v1/messages", SSE, body.as_bytes()).reading();
    assert_eq!((reading.outcome, reading.usage_source), (Outcome::Ok, UsageSource::ProviderPartial));
}

#[test]
fn cached_tokens_are_found_under_every_name() {
    let exchange = transcript!("deepseek", CHAT, JSON, "deepseek-chat.json");
    check(&exchange, &[(C::InputFresh, 112), (C::CachedRead, 384), (C::OutputText, 31)]);
    let exchange = transcript!("moonshot", CHAT, JSON, "moonshot-chat.json");
    let classes = [(C::InputFresh, 10), (C::CachedRead, 10), (C::OutputText, 8), (C::OutputReasoning, 22)];
    check(&exchange, &classes);
    let exchange = transcript!("fireworks", CHAT, JSON, "fireworks-chat.json")
        .header("fireworks-cached-prompt-tokens", "7500");
    check(&exchange, &[(C::InputFresh, 500), (C::CachedRead, 7_500), (C::OutputText, 2)]);
}

#[test]
fn reasoning_may_be_beside_hidden_or_too_much() {
    let reading = check(
        &transcript!("xai", CHAT, JSON, "xai-chat.json"),
        &[
            (C::InputFresh, 104),
            (C::InputAudio, 0),
            (C::InputImage, 0),
            (C::CachedRead, 100),
            (C::OutputText, 1),
            (C::OutputReasoning, 82),
        ],
    );
    assert_eq!((cost(&reading).as_deref(), anomalies(&reading)), (Some("0.00011765"), vec![]));
    let exchange = transcript!("gemini", "/v1beta/openai/chat/completions", JSON, "gemini-chat.json");
    let reading = check(&exchange, &[(C::InputFresh, 35), (C::OutputText, 12), (C::OutputReasoning, 62)]);
    assert_eq!(anomalies(&reading), []);
    let reading = check(
        &transcript!("doubleword", CHAT, JSON, "doubleword-chat.json"),
        &[
            (C::InputFresh, 20),
            (C::CachedRead, 0),
            (C::CacheWrite5m, 0),
            (C::CacheWrite1h, 0),
            (C::OutputText, 0),
            (C::OutputReasoning, 16),
        ],
    );
    assert_eq!(anomalies(&reading), [Anomaly::ReasoningExceedsOutput]);
}

#[test]
fn mistral_counts_audio_beside_the_prompt() {
    let reading = check(
        &transcript!("mistral", CHAT, SSE, "mistral-chat-audio.sse"),
        &[(C::InputFresh, 2), (C::InputAudio, 375), (C::CachedRead, 9), (C::OutputText, 15)],
    );
    assert_eq!(quantity(&reading, Q::AudioMillis), Some(5_000));
    assert_eq!(text(reading.tier.as_ref()), Some("standard"));
    assert_eq!(anomalies(&reading), []);
}

#[test]
fn running_totals_are_not_added_and_count_when_cut() {
    let exchange = transcript!("perplexity", CHAT, SSE, "perplexity-chat.sse");
    let reading = check(&exchange, &[(C::InputFresh, 8), (C::OutputText, 3)]);
    assert_eq!(cost(&reading).as_deref(), Some("0.00501"));
    let exchange = transcript!("vllm", CHAT, SSE, "vllm-chat-continuous.sse");
    check(&exchange, &[(C::InputFresh, 36), (C::OutputText, 2)]);
    let at = exchange.body.windows(13).position(|w| w == br#""content":"b""#).unwrap();
    let cut = exchange.read([exchange.body.split_at(at).0], Ending::UpstreamCut);
    assert_eq!((cut.outcome, cut.usage_source), (Outcome::ErrorMidstream, UsageSource::ProviderPartial));
    assert_eq!(tokens(&cut), [(C::InputFresh, 36), (C::OutputText, 1)]);
}

#[test]
fn openrouter_tells_its_charge_and_what_was_read_and_written() {
    let reading = check(
        &transcript!("openrouter", CHAT, SSE, "openrouter-chat.sse"),
        &[
            (C::InputFresh, 7),
            (C::InputAudio, 0),
            (C::InputVideo, 0),
            (C::CachedRead, 2_161),
            (C::CacheWrite, 0),
            (C::CacheRewrite, 2_161),
            (C::OutputText, 30),
            (C::OutputReasoning, 0),
            (C::OutputImage, 0),
        ],
    );
    assert_eq!(cost(&reading).as_deref(), Some("0.0076509169"));
    assert_eq!(quantity(&reading, Q::WebSearchRequests), Some(1));
    let own_key = transcript!("openrouter", CHAT, JSON, "openrouter-chat-own-key.json").reading();
    assert_eq!(cost(&own_key).as_deref(), Some("0.000009"));
    let failed = transcript!("openrouter", CHAT, SSE, "openrouter-chat-error.sse").reading();
    assert_eq!((failed.outcome, failed.usage_source), (Outcome::ErrorMidstream, UsageSource::Provider));
    assert_eq!(tokens(&failed), [(C::InputFresh, 50), (C::OutputText, 4)]);
}

#[test]
fn openrouter_tells_its_charge_in_anthropics_shape_too() {
    let usage = r#""usage":{"input_tokens":9,"output_tokens":4,"cost":0.00051,"is_byok":false}"#;
    let message = format!(r#"{{"id":"m","type":"message","model":"a/b","content":[],{usage}}}"#);
    let reading = Exchange::new("openrouter", MESSAGES, JSON, message.as_bytes()).reading();
    assert_eq!((cost(&reading).as_deref(), reading.usage.input_total()), (Some("0.00051"), Some(9)));
    let direct = Exchange::new("anthropic", MESSAGES, JSON, message.as_bytes()).reading();
    assert_eq!(cost(&direct), None);
    let events = format!(
        "data: {{\"type\":\"message_start\",\"message\":{{\"usage\":{{\"input_tokens\":0}}}}}}\n\n\
        data: {{\"type\":\"message_delta\",{usage}}}\n\ndata: {{\"type\":\"message_stop\"}}\n\n"
    );
    let streamed = Exchange::new("openrouter", MESSAGES, SSE, events.as_bytes()).reading();
    assert_eq!(cost(&streamed).as_deref(), Some("0.00051"));
}

#[test]
fn a_provider_without_done_ends_by_its_finish_and_its_body() {
    let exchange = transcript!("gpustack", CHAT, SSE, "gpustack-chat.sse");
    let classes = [(C::InputFresh, 15), (C::OutputText, 11), (C::OutputReasoning, 160)];
    check(&exchange, &classes);
    let cut = exchange.read([exchange.body.as_slice()], Ending::UpstreamCut);
    assert_eq!((cut.outcome, tokens(&cut)), (Outcome::ErrorMidstream, classes.to_vec()));
}

// === responses ===

#[test]
fn a_response_is_read_and_its_searches_and_calls_counted() {
    let reading = check(
        &transcript!("openai", RESPONSES, JSON, "responses.json"),
        &[
            (C::InputFresh, 6_099),
            (C::CachedRead, 2_048),
            (C::CacheWrite, 4_096),
            (C::OutputText, 40),
            (C::OutputReasoning, 100),
        ],
    );
    assert_eq!(quantity(&reading, Q::WebSearchRequests), Some(2));
    assert_eq!(quantity(&reading, Q::ToolCalls), Some(1));
    assert_eq!(text(reading.tier.as_ref()), Some("default"));
}

#[test]
fn a_responses_stream_is_read_at_its_terminal_event() {
    let exchange = transcript!("openai", RESPONSES, SSE, "responses.sse");
    let classes = [(C::InputFresh, 11), (C::CachedRead, 0), (C::OutputText, 8), (C::OutputReasoning, 0)];
    let reading = check(&exchange, &classes);
    assert_eq!(quantity(&reading, Q::WebSearchRequests), Some(2));
    assert_eq!(quantity(&reading, Q::ToolCalls), Some(1));
    assert_eq!(text(reading.tier.as_ref()), Some("default"));
}

#[test]
fn every_terminal_event_of_a_response_is_one() {
    for (exchange, outcome, output) in [
        (transcript!("openai", RESPONSES, SSE, "responses-incomplete.sse"), Outcome::Incomplete, Some(64)),
        (transcript!("openai", RESPONSES, SSE, "responses-failed.sse"), Outcome::Failed, None),
        (transcript!("openai", RESPONSES, SSE, "responses-error-only.sse"), Outcome::ErrorMidstream, None),
    ] {
        let reading = exchange.reading();
        assert_eq!((reading.outcome, reading.usage.output_total()), (outcome, output));
        assert_eq!(reading.metering, Metering::Count);
    }
}

#[test]
fn a_background_response_counts_once_per_id() {
    let queued = transcript!("openai", RESPONSES, JSON, "responses-queued.json").reading();
    assert_eq!((queued.outcome, queued.metering), (Outcome::Queued, Metering::OncePerId));
    assert_eq!(
        (text(queued.meter_id.as_ref()), queued.usage_source),
        (Some("resp_made_up"), UsageSource::Absent)
    );
    let get = |exchange: Exchange| exchange.method(Method::GET).reading();
    let done = get(transcript!("openai", "/v1/responses/resp_made_up", JSON, "responses-get.json"));
    assert_eq!((done.outcome, done.metering), (Outcome::Ok, Metering::OncePerId));
    assert_eq!((text(done.meter_id.as_ref()), done.usage.input_total()), (Some("resp_made_up"), Some(11)));
    let poll = get(transcript!("openai", "/v1/responses/resp_made_up", JSON, "responses-queued.json"));
    assert_eq!((poll.outcome, poll.metering), (Outcome::Queued, Metering::Never));
    let items =
        get(transcript!("openai", "/v1/responses/resp_made_up/input_items", JSON, "responses-items.json"));
    assert_eq!((items.outcome, items.metering, items.meter_id), (Outcome::Ok, Metering::Never, None));
    let stream = transcript!("openai", RESPONSES, SSE, "responses-background.sse").reading();
    assert_eq!((stream.outcome, stream.metering), (Outcome::Ok, Metering::OncePerId));
}

// === Anthropic ===

#[test]
fn a_message_is_read_with_its_cache_lifetimes_and_price_modifiers() {
    let reading = check(
        &transcript!("anthropic", MESSAGES, JSON, "messages.json"),
        &[
            (C::InputFresh, 100),
            (C::CachedRead, 200),
            (C::CacheWrite5m, 500),
            (C::CacheWrite1h, 200),
            (C::OutputText, 6),
            (C::OutputReasoning, 4),
        ],
    );
    assert_eq!(quantity(&reading, Q::WebSearchRequests), Some(1));
    assert_eq!(quantity(&reading, Q::WebFetchRequests), Some(2));
    assert_eq!(quantity(&reading, Q::ToolCalls), Some(1));
    assert_eq!(text(reading.tier.as_ref()), Some("priority"));
    assert_eq!(text(reading.inference_geo.as_ref()), Some("us"));
    assert_eq!(text(reading.speed.as_ref()), Some("fast"));
}

#[test]
fn cumulative_counts_of_a_message_stream_are_not_added() {
    let exchange = transcript!("anthropic", MESSAGES, SSE, "messages.sse");
    let reading = check(
        &exchange,
        &[
            (C::InputFresh, 9),
            (C::CachedRead, 1),
            (C::CacheWrite5m, 0),
            (C::CacheWrite1h, 0),
            (C::OutputText, 15),
        ],
    );
    let raw: serde_json::Value = serde_json::from_str(reading.usage_raw.as_deref().unwrap()).unwrap();
    assert_eq!(raw.as_array().map(Vec::len), Some(2));
    let exchange = transcript!("anthropic", MESSAGES, SSE, "messages-output-only.sse");
    let classes = [
        (C::InputFresh, 12),
        (C::CachedRead, 0),
        (C::CacheWrite5m, 10),
        (C::CacheWrite1h, 20),
        (C::OutputText, 15),
    ];
    check(&exchange, &classes);
}

#[test]
fn a_zero_in_the_delta_overwrites_nothing_it_leaves_out() {
    let exchange = transcript!("anthropic", MESSAGES, SSE, "messages-delta-zero-input.sse");
    check(&exchange, &[(C::InputFresh, 15), (C::CachedRead, 0), (C::OutputText, 40)]);
}

#[test]
fn the_delta_is_the_last_word_on_the_input() {
    let exchange = transcript!("anthropic", MESSAGES, SSE, "messages-delta-only.sse");
    let reading = check(&exchange, &[(C::InputFresh, 4_522), (C::CachedRead, 4_511), (C::OutputText, 5)]);
    assert_eq!(reading.usage.input_total(), Some(9_033));
    let exchange = transcript!("anthropic", MESSAGES, SSE, "messages-delta-splits.sse");
    check(&exchange, &[(C::InputFresh, 100), (C::CachedRead, 900), (C::CacheWrite, 0), (C::OutputText, 5)]);
    let exchange = transcript!("anthropic", MESSAGES, SSE, "messages-delta-fully-cached.sse");
    check(&exchange, &[(C::InputFresh, 0), (C::CachedRead, 1_000), (C::OutputText, 5)]);
    let exchange = transcript!("anthropic", MESSAGES, SSE, "messages-input-grows.sse");
    let reading = check(
        &exchange,
        &[
            (C::InputFresh, 404_500),
            (C::CachedRead, 6_289),
            (C::CacheWrite, 269),
            (C::CacheWrite5m, 3_068),
            (C::CacheWrite1h, 0),
            (C::OutputText, 198),
        ],
    );
    assert_eq!(quantity(&reading, Q::WebSearchRequests), Some(3));
}

#[test]
fn iterations_that_the_top_level_leaves_out_are_added_at_their_model() {
    let advisor = transcript!("anthropic", MESSAGES, SSE, "messages-advisor.sse").reading();
    assert_eq!((advisor.usage.input_total(), advisor.usage.output_total()), (Some(4_954), Some(163)));
    assert_eq!(advisor.usage.get(C::OutputReasoning), Some(47));
    let parts: Vec<_> = advisor
        .by_model
        .iter()
        .map(|part| (text(part.model.as_ref()), part.usage.input_total(), part.usage.output_total()))
        .collect();
    assert_eq!(parts, [(None, Some(2_411), Some(145)), (Some("claude-opus-4-8"), Some(2_543), Some(18)),]);
    assert_eq!(anomalies(&advisor), [Anomaly::IterationsAdded]);
    let compaction = transcript!("anthropic", MESSAGES, JSON, "messages-compaction.json").reading();
    assert_eq!((compaction.usage.input_total(), compaction.usage.output_total()), (Some(55_425), Some(136)));
    assert_eq!(compaction.usage.get(C::CacheWrite5m), Some(55_096));
    assert_eq!(anomalies(&compaction), [Anomaly::IterationsAdded]);
}

#[test]
fn an_overloaded_message_keeps_its_input_and_knows_no_output() {
    let reading = transcript!("anthropic", MESSAGES, SSE, "messages-overloaded.sse").reading();
    assert_eq!(
        (reading.outcome, reading.usage_source),
        (Outcome::ErrorMidstream, UsageSource::ProviderPartial)
    );
    assert_eq!((reading.usage.input_total(), reading.usage.output_total()), (Some(7_100), None));
    let refused = transcript!("anthropic", MESSAGES, JSON, "messages-529.json").status(529).reading();
    assert_eq!((refused.outcome, refused.metering), (Outcome::Error, Metering::Never));
}

#[test]
fn a_cut_message_keeps_what_its_start_knew() {
    let exchange = transcript!("anthropic", MESSAGES, SSE, "messages.sse");
    let at = exchange.body.windows(13).position(|w| w == b"message_delta").unwrap();
    let cut = exchange.read([exchange.body.split_at(at).0], Ending::UpstreamCut);
    assert_eq!((cut.outcome, cut.usage_source), (Outcome::ErrorMidstream, UsageSource::ProviderPartial));
    assert_eq!((cut.usage.input_total(), cut.usage.output_total()), (Some(10), Some(1)));
}

// === framing, encodings, hostility ===

#[test]
fn a_meter_may_move_between_threads() {
    fn check<T: Send>() {}
    check::<(ReplyMeter, RequestScan, IncludeUsage, HideUsage)>();
}

#[test]
fn framing_is_told_by_the_reply_and_else_by_its_first_byte() {
    let stream = transcript!("openai", CHAT, "", "openai-chat.sse").request(r#"{"stream":true}"#);
    let plain = transcript!("openai", CHAT, "", "openai-chat.json").request(r#"{"stream":true}"#);
    for (exchange, is_stream) in [(stream, true), (plain, false)] {
        let reading = exchange.reading();
        assert_eq!((reading.stream, reading.outcome), (is_stream, Outcome::Ok));
        assert!(reading.usage.has_tokens());
    }
}

#[test]
fn a_body_whose_type_is_told_wrong_reads_the_same() {
    const GEMINI: &str = "/v1beta/models/gemini-x:streamGenerateContent";
    for [right, wrong] in [
        [
            transcript!("openai", CHAT, SSE, "openai-chat.sse"),
            transcript!("openai", CHAT, JSON, "openai-chat.sse"),
        ],
        [
            transcript!("openai", CHAT, JSON, "openai-chat.json"),
            transcript!("openai", CHAT, SSE, "openai-chat.json"),
        ],
        [
            transcript!("anthropic", MESSAGES, SSE, "messages.sse"),
            transcript!("anthropic", MESSAGES, JSON, "messages.sse"),
        ],
        [
            transcript!("gemini", GEMINI, JSON, "gemini-content-array.json"),
            transcript!("gemini", GEMINI, SSE, "gemini-content-array.json"),
        ],
    ] {
        let expected = right.request(r#"{"stream":true}"#).whole();
        assert!(expected.usage.has_tokens());
        let wrong = wrong.request(r#"{"stream":true}"#);
        assert_eq!(wrong.reading(), expected);
        let marked = [b"\xEF\xBB\xBF\r\n".as_slice(), &wrong.body].concat();
        assert_eq!(Exchange { body: marked, ..wrong }.reading(), expected);
    }
}

#[test]
fn the_same_stream_with_other_line_ends_and_comments_reads_the_same() {
    let exchange = transcript!("anthropic", MESSAGES, SSE, "messages.sse");
    let body = String::from_utf8(exchange.body.clone()).unwrap();
    let expected = exchange.whole();
    for variant in [
        body.replace('\n', "\r\n"),
        body.replace('\n', "\r"),
        body.replace("data: ", "data:"),
        body.replace("\n\n", "\nid: 7\nretry: 3\n\n: ping\n\n"),
        format!("\u{feff}{body}"),
        body.replace(",\"usage\"", ",\ndata: \"usage\""),
        body.trim_end().to_owned(),
    ] {
        let reading = Exchange { body: variant.clone().into_bytes(), ..exchange.clone() }.reading();
        assert_eq!(
            Reading { usage_raw: None, ..reading },
            Reading { usage_raw: None, ..expected.clone() },
            "{variant}"
        );
    }
}

#[test]
fn an_encoded_reply_is_read_decoded_and_a_strange_encoding_is_told() {
    let exchange = transcript!("openai", CHAT, SSE, "openai-chat.sse");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&exchange.body).unwrap();
    let encoded =
        Exchange { body: encoder.finish().unwrap(), ..exchange.clone() }.header("content-encoding", "gzip");
    assert_eq!(encoded.reading(), exchange.whole());
    let strange = exchange.clone().header("content-encoding", "lzw").whole();
    assert_eq!(anomalies(&strange), [Anomaly::MeteringCapped]);
    assert_eq!(strange.usage_source, UsageSource::Absent);
    let damaged = exchange.header("content-encoding", "gzip").whole();
    assert_eq!(anomalies(&damaged), [Anomaly::MeteringCapped]);
}

#[test]
fn a_reply_that_is_no_json_ends_as_it_ended_and_is_told() {
    for body in [&b""[..], b"hello", b"{\"usage\":{\"prompt_tokens\":1}", b"\0\xFF{"] {
        let reading = Exchange::new("openai", CHAT, JSON, body).whole();
        assert_eq!((reading.outcome, reading.metering), (Outcome::Ok, Metering::Count));
        assert_eq!(anomalies(&reading), [Anomaly::MalformedReply]);
    }
    let reading = Exchange::new("openai", CHAT, SSE, b"data: {\"choices\":x\n\ndata: [DONE]\n\n").reading();
    assert_eq!((reading.outcome, anomalies(&reading)), (Outcome::Ok, vec![Anomaly::MalformedReply]));
}

#[test]
fn a_repeated_key_counts_last_and_is_told() {
    let body = br#"{"usage":{"prompt_tokens":1,"prompt_tokens":2,"completion_tokens":3}}"#;
    let reading = Exchange::new("openai", CHAT, JSON, body).reading();
    assert_eq!(tokens(&reading), [(C::InputFresh, 2), (C::OutputText, 3)]);
    assert_eq!(anomalies(&reading), [Anomaly::MalformedReply]);
}

#[test]
fn a_total_that_does_not_add_up_is_told() {
    let body = br#"{"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":4}}"#;
    let reading = Exchange::new("openai", CHAT, JSON, body).reading();
    assert_eq!(anomalies(&reading), [Anomaly::TotalMismatch]);
}

#[test]
fn usage_after_a_huge_body_and_in_a_huge_event_is_found() {
    let mut meter = ReplyMeter::new(&ReplyContext {
        flavour: flavour_of("openai"),
        api: Api::Embeddings,
        status: 200,
        headers: &HeaderMap::new(),
        stream_requested: false,
    });
    meter.feed(b"{\"data\":[{\"embedding\":[0");
    let numbers = b",0.123456789,-0.5".repeat(4_000);
    for _ in 0..200 {
        meter.feed(&numbers);
    }
    meter.feed(b"]}],\"usage\":{\"prompt_tokens\":8}}");
    let reading = meter.finish(Ending::Complete, &RequestFacts::default());
    assert_eq!((reading.usage.input_total(), anomalies(&reading)), (Some(8), vec![]));

    let picture = "A".repeat(2 * 1024 * 1024);
    let body = format!(
        "event: response.completed\ndata: {{\"type\":\"response.completed\",\"response\":{{\"id\":\"r\",\"output\":[{{\"type\":\"image_generation_call\",\"result\":\"{picture}\"}}],\"usage\":{{\"input_tokens\":5,\"output_tokens\":6}}}}}}\n\n"
    );
    let reading = Exchange::new("openai", RESPONSES, SSE, body.as_bytes()).whole();
    assert_eq!((reading.outcome, reading.usage.output_total()), (Outcome::Ok, Some(6)));
    assert_eq!(anomalies(&reading), [Anomaly::MeteringCapped]);
}

#[test]
fn a_usage_over_the_limits_is_not_kept() {
    let long = |bytes: usize| {
        let body = format!("{{\"usage\":{{\"prompt_tokens\":1,\"x\":\"{}\"}}}}", "y".repeat(bytes));
        Exchange::new("openai", CHAT, JSON, body.as_bytes()).whole()
    };
    let raw = long(RAW_BYTES_MAX);
    assert_eq!((raw.usage.input_total(), raw.usage_raw, raw.anomalies.is_empty()), (Some(1), None, true));
    let value = long(json::VALUE_BYTES_MAX);
    assert_eq!((value.usage_source, anomalies(&value)), (UsageSource::Absent, vec![Anomaly::MeteringCapped]));
}

fn streams() -> Vec<Exchange> {
    vec![
        transcript!("openai", CHAT, SSE, "openai-chat.sse"),
        transcript!("openai", CHAT, SSE, "openai-chat-two-choices-with-tools.sse"),
        transcript!("openrouter", CHAT, SSE, "openrouter-chat.sse"),
        transcript!("perplexity", CHAT, SSE, "perplexity-chat.sse"),
        transcript!("openai", RESPONSES, SSE, "responses.sse"),
        transcript!("anthropic", MESSAGES, SSE, "messages-advisor.sse"),
        transcript!("anthropic", MESSAGES, JSON, "messages.json"),
        transcript!("openai", RESPONSES, JSON, "responses.json"),
    ]
}

fn slices<'a>(bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let (mut rest, mut slices) = (bytes, Vec::new());
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (slice, after) = rest.split_at((*size).min(rest.len()));
        slices.push(slice);
        rest = after;
    }
    slices
}

proptest! {
    #[test]
    fn any_slicing_gives_the_same_reading(
        which in 0_usize..8, sizes in prop::collection::vec(1_usize..300, 1..12),
    ) {
        let exchange = streams().swap_remove(which);
        let pieces = slices(&exchange.body, &sizes);
        prop_assert_eq!(exchange.read(pieces, Ending::Complete), exchange.whole());
    }

    #[test]
    fn damaged_transcripts_are_survived_alike_in_any_slicing(
        which in 0_usize..8,
        damage in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![
            Just(b'"'), Just(b'\\'), Just(b'{'), Just(b'}'), Just(b'\n'), Just(b'9'), Just(b'-'), any::<u8>()]), 1..6),
        repeat in any::<prop::sample::Index>(),
        sizes in prop::collection::vec(1_usize..300, 1..12),
    ) {
        let mut exchange = streams().swap_remove(which);
        for (at, byte) in damage {
            let at = at.index(exchange.body.len());
            exchange.body[at] = byte;
        }
        let from = repeat.index(exchange.body.len());
        exchange.body.extend_from_within(from..);
        let whole = exchange.whole();
        prop_assert_eq!(exchange.read(slices(&exchange.body, &sizes), Ending::Complete), whole.clone());
        prop_assert_eq!(exchange.read(exchange.body.chunks(1), Ending::Complete), whole);
    }

    #[test]
    fn any_body_of_any_type_reads_alike_in_any_slicing(
        pieces in prop::collection::vec(prop::sample::select(vec![
            r#"{"model":"m","usage":{"prompt_tokens":3}}"#, r#"{"message":{"content":"a"}}"#,
            r#"{"done":true,"eval_count":2}"#, r#"{"usageMetadata":{"promptTokenCount":4}}"#, "[", "]", "{", "}", ",",
            "\0", "data: ", "event: x", "error", "[DONE]", ":", "\n", "\r\n", " ", "\u{c}", "\u{feff}",
        ]), 0..9),
        size in 1_usize..9,
    ) {
        let body = pieces.concat();
        for (provider, path) in [
            ("openai", CHAT),
            ("ollama", "/api/chat"),
            ("cohere", "/v1/chat"),
            ("gemini", "/v1beta/models/g:streamGenerateContent"),
            ("bedrock", "/model/m/invoke-with-response-stream"),
        ] {
            let lines = "application/x-ndjson";
            for kind in [JSON, SSE, lines, "application/vnd.amazon.eventstream", "text/plain", ""] {
                let exchange = Exchange::new(provider, path, kind, body.as_bytes());
                let sliced = exchange.read(exchange.body.chunks(size), Ending::Complete);
                prop_assert_eq!(sliced, exchange.whole(), "{} {}", path, kind);
            }
        }
    }
}
