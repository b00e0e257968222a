//! The documented errors of other meters, E1 to E35 of the project's list, as tests: the body as the
//! provider sends it, read by our meter, priced to the pico-unit. Each test begins with its number.
//!
//! Every entry about usage or price is here, whatever tests it has beside the code. Those about
//! something else are with what they concern:
//!
//! | entry | case | where |
//! |---|---|---|
//! | E17 | money and quantities of a FOCUS row | its price is here; columns: `bursar_ledger::export` |
//! | E24, E25, E27 | windows of budgets and limits | budgets |
//! | E26, E28, E33 | admission against a budget or limit | budgets |
//! | E30 | polls of a batch, and who pays for it | what a poll is, is here; once: `tests/batches.rs`, `bursar_ledger::batch` |
//! | E35 | a local day over hourly sums | `a_local_day_has_its_own_hours_and_no_others` in `bursar_ledger::query` |
//!
//! Not here: any other quirk of a reply (`usage::tests`), any other price (`policies::price`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is a failed test"
)]

use bursar::usage::{
    BatchReading, Ending, Reading, ReplyContext, ReplyMeter, RequestScan, SessionMeter, api_of, flavour_of,
    model_in_path,
};
use bursar_domain::event::{Metering, Outcome};
use bursar_domain::ids::Label;
use bursar_domain::usage::{TokenClass, UsageSource};
use bursar_domain::{Cost, CostStatus, Timestamp, Usage};
use bursar_policies::price::{Ask, Gap, PriceBook};
use bursar_tokens::Encoding;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use std::sync::OnceLock;

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const GEMINI_PRO: &str = "/v1beta/models/gemini-2.5-pro:generateContent";

fn builtin() -> &'static PriceBook {
    static BOOK: OnceLock<PriceBook> = OnceLock::new();
    BOOK.get_or_init(|| PriceBook::builtin().unwrap())
}

/// A book of these rows alone.
fn book(rows: &str) -> PriceBook {
    PriceBook::empty()
        .with_overlay(&serde_json::from_str(&format!(r#"{{"rows": [{rows}]}}"#)).unwrap())
        .unwrap()
}

/// 3 and 15 dollars a million; a tenth for reads of the cache, a quarter more for writes.
fn claude() -> PriceBook {
    book(
        r#"{"provider": "anthropic", "model": "claude-sonnet-4-5",
        "per_million": {"input": 3, "output": 15, "cached_read": 0.3, "cache_write": 3.75}}"#,
    )
}

fn at(day: &str) -> Timestamp {
    let instant: jiff::Timestamp = format!("{day}T00:00:00Z").parse().unwrap();
    Timestamp::from_micros(instant.as_microsecond())
}

/// A reply as its provider sends it.
#[derive(Clone)]
struct Call {
    provider: &'static str,
    path: &'static str,
    status: u16,
    headers: HeaderMap,
    request: String,
    body: Vec<u8>,
    day: &'static str,
}

fn call(provider: &'static str, path: &'static str, body: impl AsRef<[u8]>) -> Call {
    let body = body.as_ref().to_vec();
    let is_document = matches!(body.first(), Some(b'{' | b'['));
    let (kind, request) =
        if is_document { ("application/json", "{}") } else { ("text/event-stream", r#"{"stream":true}"#) };
    let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
    Call { provider, path, status: 200, headers, request: request.to_owned(), body, day: "2026-11-01" }
}

/// A stream of Anthropic's events.
fn messages(events: &[&str]) -> Call {
    let body: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    call("anthropic", MESSAGES, body)
}

impl Call {
    fn asked(mut self, request: &str) -> Self {
        request.clone_into(&mut self.request);
        self
    }

    fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }

    fn on(mut self, day: &'static str) -> Self {
        self.day = day;
        self
    }

    fn requested(&self) -> Option<Label> {
        let mut scan = RequestScan::new(None);
        scan.feed(self.request.as_bytes());
        scan.facts().model.or_else(|| model_in_path(self.path).as_deref().and_then(Label::lossy))
    }

    /// The reading, which must be the same however the body comes.
    fn reading(&self) -> Reading {
        let whole = self.read_in(usize::MAX);
        for size in [1, 2, 7, 64] {
            assert_eq!(self.read_in(size), whole, "pieces of {size}");
        }
        whole
    }

    fn read_in(&self, size: usize) -> Reading {
        let mut scan = RequestScan::new(None);
        scan.feed(self.request.as_bytes());
        let api = api_of(if self.request.is_empty() { &Method::GET } else { &Method::POST }, self.path);
        let facts = scan.facts();
        let mut meter = ReplyMeter::new(&ReplyContext {
            flavour: flavour_of(self.provider),
            api,
            status: self.status,
            headers: &self.headers,
            stream_requested: api.is_stream() || facts.stream,
        });
        self.body.chunks(size).for_each(|piece| meter.feed(piece));
        meter.finish(Ending::Complete, &facts)
    }

    fn explain(&self, book: &PriceBook) -> (Cost, Option<Gap>) {
        let (reading, requested) = (self.reading(), self.requested());
        book.explain(&Ask {
            provider: self.provider,
            model_served: reading.model_served.as_ref().map(Label::as_str),
            model_requested: requested.as_ref().map(Label::as_str),
            tier: reading.tier.as_ref().map(Label::as_str),
            region: None,
            speed: reading.speed.as_ref().map(Label::as_str),
            at: at(self.day),
            usage: &reading.usage,
            by_model: &reading.by_model,
        })
    }

    /// Checks the totals of input and output.
    #[track_caller]
    fn uses(&self, input: u64, output: u64) -> &Self {
        let usage = self.reading().usage;
        assert_eq!((usage.input_total(), usage.output_total()), (Some(input), Some(output)));
        self
    }

    #[track_caller]
    fn has(&self, class: TokenClass, tokens: u64) -> &Self {
        assert_eq!(self.reading().usage.get(class), Some(tokens), "{class}");
        self
    }

    /// Checks the cost, which is complete.
    #[track_caller]
    fn costs(&self, book: &PriceBook, pico: i128) -> &Self {
        let (cost, gap) = self.explain(book);
        assert_eq!((cost.status, cost.list_pico, gap), (CostStatus::Priced, Some(pico), None));
        self
    }

    /// Checks that there is no cost at all, not even zero.
    #[track_caller]
    fn is_unpriced(&self, book: &PriceBook, reason: Gap) -> &Self {
        let (cost, gap) = self.explain(book);
        assert_eq!((cost.status, cost.list_pico, cost.billed_pico), (CostStatus::Unpriced, None, None));
        assert_eq!(gap, Some(reason));
        self
    }
}

const STOP: &str = r#"{"type":"message_stop"}"#;

fn start(usage: &str) -> String {
    format!(
        r#"{{"type":"message_start","message":{{"id":"msg_1","model":"claude-sonnet-4-5","usage":{usage}}}}}"#
    )
}

fn delta(usage: &str) -> String {
    format!(r#"{{"type":"message_delta","delta":{{"stop_reason":"end_turn"}},"usage":{usage}}}"#)
}

fn streamed(start_usage: &str, delta_usages: &[&str]) -> Call {
    let mut events = vec![start(start_usage)];
    events.extend(delta_usages.iter().map(|usage| delta(usage)));
    events.push(STOP.to_owned());
    messages(&events.iter().map(String::as_str).collect::<Vec<_>>())
}

// === streams of messages ===

#[test]
fn e1_cumulative_usage_in_a_delta_is_not_added_to_that_of_the_start() {
    let usage = r#"{"input_tokens":9,"cache_read_input_tokens":1,"output_tokens":5}"#;
    streamed(r#"{"input_tokens":9,"cache_read_input_tokens":1,"output_tokens":1}"#, &[usage])
        .uses(10, 5)
        .has(TokenClass::CachedRead, 1)
        .costs(&claude(), 9 * 3_000_000 + 300_000 + 5 * 15_000_000);
}

#[test]
fn e2_a_zero_or_nothing_in_a_delta_overwrites_no_input() {
    for usage in [r#"{"input_tokens":0,"output_tokens":7}"#, r#"{"output_tokens":7}"#] {
        streamed(r#"{"input_tokens":15,"output_tokens":1}"#, &[usage])
            .uses(15, 7)
            .costs(&claude(), 150_000_000);
    }
}

#[test]
fn e3_a_delta_may_be_the_first_to_know_the_input() {
    let usage = r#"{"input_tokens":4522,"cache_read_input_tokens":4511,"output_tokens":5}"#;
    let call = streamed(r#"{"output_tokens":0}"#, &[usage]);
    call.uses(9_033, 5).costs(&claude(), 14_994_300_000);
    assert_eq!(call.reading().usage.tokens().map(|(_, count)| count).sum::<u64>(), 9_038);
}

#[test]
fn e4_a_delta_that_splits_the_prompt_replaces_what_the_start_said() {
    let usage = r#"{"input_tokens":100,"cache_read_input_tokens":200,"cache_creation_input_tokens":700,"output_tokens":10}"#;
    streamed(r#"{"input_tokens":1000,"output_tokens":1}"#, &[usage])
        .uses(1_000, 10)
        .has(TokenClass::InputFresh, 100)
        .costs(&claude(), 3_135_000_000);
}

#[test]
fn e5_the_total_of_a_stream_has_the_input_of_its_start() {
    let call = streamed(r#"{"input_tokens":42,"output_tokens":1}"#, &[r#"{"output_tokens":15}"#]);
    call.uses(42, 15).costs(&claude(), 351_000_000);
    assert_eq!(call.reading().usage.tokens().map(|(_, count)| count).sum::<u64>(), 57);
}

#[test]
fn e6_neither_a_placeholder_nor_an_earlier_delta_is_added_to_the_output() {
    let deltas = [r#"{"output_tokens":10}"#, r#"{"output_tokens":15}"#];
    streamed(r#"{"input_tokens":42,"output_tokens":1}"#, &deltas).uses(42, 15).costs(&claude(), 351_000_000);
}

// === other streams ===

fn chat_stream(text: &str, usage: Option<&str>) -> Call {
    let text = serde_json::Value::from(text);
    let mut body = format!(
        "data: {{\"id\":\"c\",\"model\":\"gpt-4-0613\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{text}}},\"finish_reason\":\"stop\"}}]}}\n\n"
    );
    if let Some(usage) = usage {
        body.push_str(&format!(
            "data: {{\"id\":\"c\",\"model\":\"gpt-4-0613\",\"choices\":[],\"usage\":{usage}}}\n\n"
        ));
    }
    body.push_str("data: [DONE]\n\n");
    call("openai", CHAT, body)
}

#[test]
fn e7_the_providers_usage_counts_whatever_the_text_looks_like_and_else_the_vocabulary() {
    // The peer's own texts are not published. These are of their kinds and exactly of their lengths, in the
    // model's vocabulary; that the sidecar counts them so when nobody tells is in `tests/counting.rs`.
    let compact = r#"{"id":17,"name":"bolt","sizes":[3,4,5],"ok":true}"#.repeat(14) + "[3,4,5]";
    let japanese = "請求書の金額は必ず合っていなければならない。".repeat(24) + "請求書の金額は正しい。は";
    for (text, tokens) in [(compact, 300), (japanese, 640)] {
        let usage =
            format!(r#"{{"prompt_tokens":{tokens},"completion_tokens":2,"total_tokens":{}}}"#, tokens + 2);
        chat_stream("ok", Some(&usage))
            .uses(tokens, 2)
            .costs(builtin(), i128::from(tokens) * 30_000_000 + 2 * 60_000_000);
        // One "word" to a meter that splits at spaces, and hundreds of tokens.
        assert!(!text.contains(' '));
        assert_eq!(Encoding::Cl100kBase.count(&text), Ok(tokens));
        let silent = chat_stream(&text, None).reading();
        assert_eq!((silent.usage_source, silent.usage.has_tokens()), (UsageSource::Absent, false));
    }
}

#[test]
fn e8_the_usage_chunk_of_a_stream_is_read() {
    let usage = r#"{"prompt_tokens":21,"completion_tokens":7,"total_tokens":28}"#;
    chat_stream("ok", Some(usage)).uses(21, 7).costs(builtin(), 21 * 30_000_000 + 7 * 60_000_000);
}

#[test]
fn e9_usage_inside_cloud_codes_wrapper_is_read_plain_and_streamed() {
    let reply = r#"{"response":{"candidates":[{"content":{"role":"model","parts":[{"text":"ok"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":30460,"candidatesTokenCount":3,"thoughtsTokenCount":87,"totalTokenCount":30550},"modelVersion":"gemini-2.5-pro","responseId":"r"},"traceId":"t"}"#;
    let ask = r#"{"model":"gemini-2.5-pro","request":{"contents":[]}}"#;
    let plain = call("gemini", "/v1internal:generateContent", reply).asked(ask);
    let events =
        call("gemini", "/v1internal:streamGenerateContent?alt=sse", format!("data: {reply}\r\n\r\n"));
    let array = call("gemini", "/v1internal:streamGenerateContent", format!("[{reply}]"));
    for call in [plain, events.asked(ask), array.asked(ask)] {
        call.uses(30_460, 90).has(TokenClass::OutputReasoning, 87).costs(builtin(), 38_975_000_000);
        let reading = call.reading();
        assert_eq!((reading.outcome, reading.anomalies.is_empty()), (Outcome::Ok, true));
        assert_eq!(reading.model_served.as_ref().map(Label::as_str), Some("gemini-2.5-pro"));
    }
}

#[test]
fn e10_every_terminal_event_of_a_response_carries_its_usage() {
    for (event, status, outcome) in [
        ("response.completed", "completed", Outcome::Ok),
        ("response.incomplete", "incomplete", Outcome::Incomplete),
        ("response.failed", "failed", Outcome::Failed),
    ] {
        let body = format!(
            "event: {event}\ndata: {{\"type\":\"{event}\",\"response\":{{\"id\":\"r\",\"model\":\"gpt-5\",\"status\":\"{status}\",\"service_tier\":\"default\",\"usage\":{{\"input_tokens\":300,\"output_tokens\":100,\"total_tokens\":400}}}}}}\n\n"
        );
        let call = call("openai", "/v1/responses", body);
        call.uses(300, 100).costs(builtin(), 300 * 1_250_000 + 100 * 10_000_000);
        assert_eq!(call.reading().outcome, outcome);
    }
}

// === prices ===

/// A reply of chat completions with this usage.
fn chat(provider: &'static str, model: &str, usage: &str) -> Call {
    let body = format!(r#"{{"id":"c","model":"{model}","choices":[],"usage":{{{usage}}}}}"#);
    call(provider, CHAT, body)
}

#[test]
fn e11_each_class_of_the_cache_is_charged_once() {
    let body = r#"{"id":"msg_1","type":"message","model":"claude-sonnet-4-5","content":[],"stop_reason":"end_turn","usage":{"input_tokens":100,"cache_creation_input_tokens":700,"cache_read_input_tokens":200,"output_tokens":10}}"#;
    call("anthropic", MESSAGES, body).uses(1_000, 10).costs(&claude(), 3_135_000_000);
}

#[test]
fn e12_the_tier_that_served_prices_the_call_and_not_the_one_that_was_asked_for() {
    let served = |tier: &str| {
        let body = format!(
            r#"{{"id":"c","model":"gpt-5","choices":[],"service_tier":"{tier}","usage":{{"prompt_tokens":100000,"completion_tokens":10000,"total_tokens":110000}}}}"#
        );
        call("openai", CHAT, body)
    };
    for asked in ["priority", "flex", "auto"] {
        let request = format!(r#"{{"model":"gpt-5","service_tier":"{asked}"}}"#);
        served("default").asked(&request).costs(builtin(), 225_000_000_000);
        served("priority").asked(&request).costs(builtin(), 450_000_000_000);
        served("flex").asked(&request).costs(builtin(), 112_500_000_000);
    }
}

#[test]
fn e13_names_of_gateways_that_nobody_prices_are_unpriced_and_never_zero() {
    let usage = r#""prompt_tokens":1000000,"completion_tokens":1000000,"total_tokens":2000000"#;
    chat("portkey", "anthropic/claude-sonnet-4.5", usage).is_unpriced(builtin(), Gap::UnknownProvider);
    chat("bifrost", "google/gemini-2.5-pro", usage).is_unpriced(builtin(), Gap::UnknownProvider);
    chat("openai", "anthropic/claude-sonnet-4.5", usage).is_unpriced(builtin(), Gap::UnknownModel);
}

fn gemini_pro(prompt: u64, cached: u64, output: u64) -> Call {
    let total = prompt + output;
    let body = format!(
        r#"{{"candidates":[{{"finishReason":"STOP"}}],"usageMetadata":{{"promptTokenCount":{prompt},"cachedContentTokenCount":{cached},"candidatesTokenCount":{output},"totalTokenCount":{total}}},"modelVersion":"gemini-2.5-pro"}}"#
    );
    call("gemini", GEMINI_PRO, body)
}

#[test]
fn e14_cached_tokens_count_towards_the_threshold_and_are_charged_above_it() {
    gemini_pro(262_960, 257_955, 1_744).uses(262_960, 1_744).costs(builtin(), 103_161_250_000);
}

#[test]
fn e15_at_the_threshold_the_base_rate_holds_and_one_token_more_reprices_the_request() {
    gemini_pro(200_000, 0, 0).costs(builtin(), 250_000_000_000);
    gemini_pro(200_001, 0, 0).costs(builtin(), 500_002_500_000);
    let gpt = |prompt: u64| {
        chat("openai", "gpt-5.4", &format!(r#""prompt_tokens":{prompt},"completion_tokens":1000"#))
    };
    gpt(272_000).costs(builtin(), 695_000_000_000);
    gpt(272_001).costs(builtin(), 1_382_505_000_000);
}

#[test]
fn e16_reads_and_writes_of_the_cache_are_parts_of_openais_prompt() {
    let prices = book(
        r#"{"provider": "openai", "model": "m",
        "per_million": {"input": 1, "cached_read": 0.1, "cache_write": 1.25, "output": 4}}"#,
    );
    let usage = r#""prompt_tokens":1000000,"completion_tokens":0,"total_tokens":1000000,"prompt_tokens_details":{"cached_tokens":300000,"cache_write_tokens":200000}"#;
    chat("openai", "m", usage).uses(1_000_000, 0).costs(&prices, 780_000_000_000);
}

#[test]
fn e17_a_single_token_costs_its_exact_fraction_and_a_million_their_price() {
    let body = r#"{"output":{"message":{"content":[]}},"stopReason":"end_turn","usage":{"inputTokens":0,"outputTokens":1,"totalTokens":1}}"#;
    let nova = call("bedrock", "/model/amazon.nova-lite-v1:0/converse", body);
    nova.uses(0, 1).costs(builtin(), 240_000);
    chat("openai", "gpt-5", r#""prompt_tokens":1000000,"completion_tokens":0"#)
        .costs(builtin(), 1_250_000_000_000);
}

#[test]
fn e18_reads_of_a_cache_without_a_price_cost_what_input_costs() {
    let prices = book(r#"{"provider": "openai", "model": "m", "per_million": {"input": 3, "output": 6}}"#);
    let usage = r#""prompt_tokens":1000,"completion_tokens":0,"prompt_tokens_details":{"cached_tokens":900}"#;
    chat("openai", "m", usage).has(TokenClass::CachedRead, 900).costs(&prices, 3_000_000_000);
}

#[test]
fn e19_four_images_cost_four_times_one() {
    let prices = book(r#"{"provider": "openai", "model": "dall-e-3", "per_unit": {"images": "0.04"}}"#);
    for (count, pico) in [(1, 40_000_000_000), (4, 160_000_000_000)] {
        let images = vec![r#"{"url":"https://a/b.png"}"#; count].join(",");
        call("openai", "/v1/images/generations", format!(r#"{{"created":1,"data":[{images}]}}"#))
            .asked(&format!(r#"{{"model":"dall-e-3","n":{count}}}"#))
            .costs(&prices, pico);
    }
}

#[test]
fn e20_usage_that_comes_with_an_error_is_counted_and_priced() {
    let call = chat("openai", "gpt-4o", r#""prompt_tokens":1000,"completion_tokens":1000"#).status(500);
    call.uses(1_000, 1_000).costs(builtin(), 12_500_000_000);
    let reading = call.reading();
    assert_eq!((reading.outcome, reading.metering), (Outcome::Error, Metering::Count));
}

#[test]
fn e21_a_new_price_leaves_calls_before_it_alone() {
    let prices = book(
        r#"{"provider": "openai", "model": "m", "per_million": {"input": 3, "output": 0}},
        {"provider": "openai", "model": "m", "from": "2026-07-01", "per_million": {"input": 2, "output": 0}}"#,
    );
    let june = chat("openai", "m", r#""prompt_tokens":1000000,"completion_tokens":0"#).on("2026-06-30");
    june.costs(&prices, 3_000_000_000_000);
    june.clone().on("2026-07-01").costs(&prices, 2_000_000_000_000);
}

#[test]
fn e22_two_prices_of_one_call_are_never_averaged_and_the_one_that_holds_is_named() {
    let own = r#"{"rows": [{"provider": "openai", "model": "gpt-4o", "per_million": {"input": "2.52"}}]}"#;
    let both = builtin().with_overlay(&serde_json::from_str(own).unwrap()).unwrap();
    let call = chat("openai", "gpt-4o", r#""prompt_tokens":1000000,"completion_tokens":0"#);
    call.costs(builtin(), 2_500_000_000_000).costs(&both, 2_520_000_000_000);
    let (before, after) = (call.explain(builtin()).0.price_rows, call.explain(&both).0.price_rows);
    let row = after.iter().find(|id| !before.contains(id)).expect("another row holds");
    assert_eq!(both.row(row).map(|row| row.id), Some(row.clone()));
}

#[test]
fn e23_a_provider_without_prices_costs_nothing_known_and_no_flat_dollar() {
    chat("of-our-own", "m", r#""prompt_tokens":3,"completion_tokens":1"#)
        .uses(3, 1)
        .is_unpriced(builtin(), Gap::UnknownProvider);
}

// === what was told ===

#[test]
fn e29_an_explicit_zero_is_the_providers_word_and_costs_nothing() {
    let call =
        chat_stream("half of a sent", Some(r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#));
    call.uses(0, 0).costs(builtin(), 0);
    assert_eq!(call.reading().usage_source, UsageSource::Provider);
}

#[test]
fn e30_a_poll_of_a_batch_never_counts_and_its_results_are_told_one_by_one() {
    let polled = call(
        "openai",
        "/v1/batches/batch_1",
        r#"{"id":"batch_1","object":"batch","status":"completed","output_file_id":"file-1","usage":{"input_tokens":30,"output_tokens":3,"total_tokens":33}}"#,
    )
    .asked("");
    let reading = polled.reading();
    assert_eq!((reading.metering, reading.usage), (Metering::Never, Usage::unknown()));
    let line = |id: u32, input: u32| {
        format!(
            r#"{{"id":"q{id}","custom_id":"{id}","response":{{"status_code":200,"body":{{"id":"c{id}","object":"chat.completion","model":"gpt-4o-mini-2024-07-18","choices":[],"usage":{{"prompt_tokens":{input},"completion_tokens":1}}}}}}}}"#
        )
    };
    let file = [line(1, 10), line(2, 20)].join("\n");
    let reading = call("openai", "/v1/files/file-1/content", file).asked("").reading();
    let Some(BatchReading::Results(results)) = reading.batch else { panic!("{:?}", reading.batch) };
    let told: Vec<_> = results.iter().map(|line| line.usage.input_total()).collect();
    assert_eq!(told, [Some(10), Some(20)]);
}

#[test]
fn e31_reserved_capacity_is_no_call_at_list_price_and_spill_over_is() {
    let vertex = |traffic: &str| {
        let body = format!(
            r#"{{"candidates":[{{"finishReason":"STOP","groundingMetadata":{{"webSearchQueries":["a","b","c","d","e"]}}}}],"usageMetadata":{{"promptTokenCount":1000,"candidatesTokenCount":100,"totalTokenCount":1100,"trafficType":"{traffic}"}},"modelVersion":"gemini-2.5-pro"}}"#
        );
        call("vertex", GEMINI_PRO, body)
    };
    vertex("PROVISIONED_THROUGHPUT").is_unpriced(builtin(), Gap::UnknownTier);
    let flat = r#"{"rows": [{"provider": "vertex", "model": "gemini-2.5-pro", "tier": "provisioned_throughput",
        "per_web_search": 0, "per_grounded_request": 0, "per_million": {"input": 0, "output": 0}}]}"#;
    let with_flat_fee = builtin().with_overlay(&serde_json::from_str(flat).unwrap()).unwrap();
    vertex("PROVISIONED_THROUGHPUT").costs(&with_flat_fee, 0);
    let on_demand = vertex("ON_DEMAND");
    assert_eq!(on_demand.explain(&with_flat_fee).0, on_demand.explain(builtin()).0);

    // Azure says which call left the reservation.
    let azure = chat("azure", "gpt-4o", r#""prompt_tokens":1000000,"completion_tokens":0"#)
        .header("azureai-processed-tier", "provisioned");
    azure.is_unpriced(builtin(), Gap::UnknownTier);
    azure.clone().header("x-ms-is-spilled-over", "false").is_unpriced(builtin(), Gap::UnknownTier);
    azure.clone().header("x-ms-is-spilled-over", "true").costs(builtin(), 2_500_000_000_000);
}

#[test]
fn e32_the_text_of_special_tokens_is_text() {
    for encoding in [Encoding::Cl100kBase, Encoding::O200kBase, Encoding::O200kHarmony] {
        assert_eq!(encoding.count("<|endoftext|>").unwrap(), 7, "{encoding:?}");
    }
}

#[test]
fn e34_each_modality_of_a_session_has_its_own_cache_and_price() {
    let done = r#"{"type":"response.done","response":{"id":"r","status":"completed","usage":{"total_tokens":1100000,"input_tokens":1100000,"output_tokens":0,"input_token_details":{"text_tokens":100000,"audio_tokens":1000000,"cached_tokens":900000,"cached_tokens_details":{"text_tokens":0,"audio_tokens":900000}},"output_token_details":{"text_tokens":0,"audio_tokens":0}}}}"#;
    let mut frame = vec![0x81, 0x7e];
    frame.extend(u16::try_from(done.len()).unwrap().to_be_bytes());
    frame.extend(done.as_bytes());
    let mini = Label::new("gpt-realtime-mini").ok();
    let mut meter =
        SessionMeter::new(api_of(&Method::GET, "/v1/realtime"), flavour_of("openai"), mini.clone());
    meter.server_says(&frame, at("2026-11-01"));
    let reading = meter.next_part().unwrap().reading;
    assert_eq!(reading.usage.get(TokenClass::CachedAudio), Some(900_000));
    let cost = builtin().price(&Ask {
        provider: "openai",
        model_served: None,
        model_requested: mini.as_ref().map(Label::as_str),
        tier: None,
        region: None,
        speed: None,
        at: at("2026-11-01"),
        usage: &reading.usage,
        by_model: &[],
    });
    // 100,000 × 0.60 of text, 100,000 × 10 of new and 900,000 × 0.30 of cached audio, per million.
    assert_eq!((cost.status, cost.list_pico), (CostStatus::Priced, Some(1_330_000_000_000)));
}
