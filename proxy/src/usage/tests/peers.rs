//! Cases in which other meters went wrong, by the numbers of the project's list of them, read from the
//! project's transcripts. All entries, with their prices: `proxy/tests/peer_errors.rs`.
//!
//! Not here: what concerns no reading of a reply.

use super::*;

fn totals(reading: &Reading) -> (Option<u64>, Option<u64>) {
    (reading.usage.input_total(), reading.usage.output_total())
}

#[test]
fn e1_cumulative_counts_in_a_delta_are_not_added_to_the_start() {
    let reading = transcript!("anthropic", MESSAGES, SSE, "messages.sse").whole();
    assert_eq!((reading.usage.input_total(), reading.usage.cached_read_total()), (Some(10), Some(1)));
}

#[test]
fn e2_a_zero_in_the_delta_does_not_overwrite_the_input() {
    let reading = transcript!("anthropic", MESSAGES, SSE, "messages-delta-zero-input.sse").whole();
    assert_eq!(reading.usage.input_total(), Some(15));
}

#[test]
fn e3_the_delta_alone_may_know_the_input() {
    let reading = transcript!("anthropic", MESSAGES, SSE, "messages-delta-only.sse").whole();
    assert_eq!(totals(&reading), (Some(9_033), Some(5)));
}

#[test]
fn e4_the_delta_is_authoritative_when_it_splits_the_prompt() {
    let reading = transcript!("anthropic", MESSAGES, SSE, "messages-delta-splits.sse").whole();
    assert_eq!((reading.usage.get(C::InputFresh), reading.usage.input_total()), (Some(100), Some(1_000)));
}

#[test]
fn e5_the_total_of_a_stream_has_its_input() {
    let reading = transcript!("anthropic", MESSAGES, SSE, "messages-output-only.sse").whole();
    assert_eq!(totals(&reading), (Some(42), Some(15)));
}

#[test]
fn e6_the_placeholder_of_the_start_is_not_added() {
    let reading = transcript!("anthropic", MESSAGES, SSE, "messages.sse").whole();
    assert_eq!(reading.usage.output_total(), Some(15));
}

#[test]
fn e7_the_providers_count_holds_whatever_the_text_looks_like() {
    let usage = "{\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":640,\"completion_tokens\":300}}";
    let body = format!(
        "data: {{\"id\":\"c\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"日本語の長い文\"}},\"finish_reason\":\"stop\"}}]}}\n\n\
         data: {usage}\n\ndata: [DONE]\n\n"
    );
    let reading = Exchange::new("openai", CHAT, SSE, body.as_bytes()).reading();
    assert_eq!((totals(&reading), reading.usage_source), ((Some(640), Some(300)), UsageSource::Provider));
}

#[test]
fn e8_the_usage_chunk_of_a_stream_is_read() {
    let reading = transcript!("openai", CHAT, SSE, "openai-chat.sse").whole();
    assert_eq!(totals(&reading), (Some(21), Some(7)));
}

#[test]
fn e10_every_terminal_event_of_a_response_carries_usage() {
    for (name, body, outcome) in [
        ("incomplete", &include_bytes!("../transcripts/responses-incomplete.sse")[..], Outcome::Incomplete),
        ("completed", &include_bytes!("../transcripts/responses.sse")[..], Outcome::Ok),
    ] {
        let reading = Exchange::new("openai", RESPONSES, SSE, body).whole();
        assert_eq!((reading.outcome, reading.usage.has_tokens()), (outcome, true), "{name}");
    }
    let failed = b"event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"id\":\"r\",\"status\":\"failed\",\"usage\":{\"input_tokens\":3,\"output_tokens\":1,\"total_tokens\":4}}}\n\n";
    let reading = Exchange::new("openai", RESPONSES, SSE, failed).reading();
    assert_eq!((reading.outcome, totals(&reading)), (Outcome::Failed, (Some(3), Some(1))));
}

#[test]
fn e12_the_tier_that_was_served_counts_and_not_the_one_asked_for() {
    let body = br#"{"id":"c","model":"gpt-5","choices":[],"service_tier":"default","usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
    let exchange =
        Exchange::new("openai", CHAT, JSON, body).request(r#"{"model":"gpt-5","service_tier":"priority"}"#);
    assert_eq!(text(exchange.reading().tier.as_ref()), Some("default"));
}

#[test]
fn e20_usage_of_an_error_status_counts() {
    let reading = transcript!("openai", CHAT, JSON, "openai-chat-error-with-usage.json").status(500).whole();
    assert_eq!((reading.metering, totals(&reading)), (Metering::Count, (Some(1_000), Some(1_000))));
}

#[test]
fn e29_an_explicit_zero_is_not_absent() {
    let reading = transcript!("openai", CHAT, SSE, "openai-chat-zero.sse").whole();
    assert_eq!((totals(&reading), reading.usage_source), ((Some(0), Some(0)), UsageSource::Provider));
}

#[test]
fn e34_cached_audio_is_a_class_of_its_own() {
    let body = br#"{"id":"c","model":"m","choices":[],"usage":{"prompt_tokens":96,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":64,"audio_tokens":60}}}"#;
    let reading = Exchange::new("openai", CHAT, JSON, body).reading();
    assert_eq!(reading.usage.get(C::CachedAudio), Some(28));
    assert_eq!(reading.usage.input_audio_total(), Some(60));
}
