//! Tokens that no provider told: counted from what passed, marked as such, and late by no request.

use crate::transcripts::{
    CHAT, CHAT_PATH, CHAT_STREAM, EVENT_DONE, EVENT_ONE, EVENT_TWO, EVENT_USAGE, EVENTS,
};
use bursar_domain::{Anomaly, CostStatus, Label, Outcome, UsageRecord, UsageSource};
use bursar_tests::provider::{SSE_HEAD, reply};
use bursar_tests::{Setup, Step, System, chunk, run, until};

/// A route to a server of one's own, and one that reads on.
const ROUTES: &str = "
builtin_routes: false
routes:
  - { prefix: /openai, upstream: 'http://provider.test', provider: openai }
  - { prefix: /own, upstream: 'http://provider.test', provider: vllm, include_usage: false }
  - { prefix: /anthropic, upstream: 'http://provider.test', provider: anthropic }
  - { prefix: /uncounted, upstream: 'http://provider.test', provider: openai, count: off }
  - { prefix: /patient, upstream: 'http://provider.test', provider: openai, on_abort: drain }
";

fn with_routes(settings: &str) -> Setup {
    Setup { routes: ROUTES.to_owned(), ..Setup::new(settings) }
}

fn stream(events: &[&str]) -> Vec<u8> {
    let mut all = SSE_HEAD.to_vec();
    for event in events {
        all.extend(chunk(event.as_bytes()));
    }
    all
}

/// Sends `body` to `path`, answers with `events`, and leaves when `seen` has arrived.
async fn abort(system: &System, path: &str, body: &str, events: &[&str], seen: &str) {
    system.provider.script([Step::Send(stream(events)), Step::Stall]);
    let mut client = system.client();
    client.post(path, &[], body).await;
    assert!(client.sees(seen).await);
    drop(client);
    let provider = system.provider.clone();
    until("the upstream connection is closed", || provider.open() == 0).await;
}

fn told(record: &UsageRecord) -> (Option<u64>, Option<u64>, UsageSource, &str) {
    let by = record.counted_by.as_ref().map(Label::as_str).unwrap_or_default();
    (record.usage.input_total(), record.usage.output_total(), record.usage_source, by)
}

#[test]
fn what_passed_before_the_client_left_is_counted_with_the_models_vocabulary() {
    run("", |system| async move {
        abort(&system, CHAT_PATH, CHAT_STREAM, &[EVENT_ONE, EVENT_TWO], "lo.").await;
        let record = system.record().await;
        assert_eq!(record.outcome, Outcome::Aborted);
        // `hi` with what surrounds it, and `Hello.`
        assert_eq!(told(&record), (Some(8), Some(2), UsageSource::Tokenizer, "o200k_base"));
        assert_eq!(record.cost.unwrap().status, CostStatus::Priced);
        assert!(record.anomalies.is_empty(), "{:?}", record.anomalies);
    });
}

#[test]
fn e7_text_without_spaces_is_counted_exactly_in_prompt_and_reply_where_nobody_tells() {
    let compact = r#"{"id":17,"name":"bolt","sizes":[3,4,5],"ok":true}"#.repeat(14) + "[3,4,5]";
    let japanese = "請求書の金額は必ず合っていなければならない。".repeat(24) + "請求書の金額は正しい。は";
    for (text, tokens) in [(compact, 300), (japanese, 640)] {
        with_routes("").run(|system| async move {
            let content = serde_json::Value::from(text);
            let event = format!(
                "data: {{\"id\":\"c\",\"model\":\"gpt-4-0613\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{content}}},\"finish_reason\":\"stop\"}}]}}\n\n"
            );
            system.provider.sse(&[&event, EVENT_DONE]);
            let mut client = system.client();
            let ask = format!(
                r#"{{"model":"gpt-4","stream":true,"messages":[{{"role":"user","content":{content}}}]}}"#
            );
            client.post(CHAT_PATH, &[], &ask).await;
            assert_eq!(client.reply().await.status(), 200);
            // With the seven tokens that surround one message.
            let expected = (Some(tokens + 7), Some(tokens), UsageSource::Tokenizer, "cl100k_base");
            assert_eq!(told(&system.record().await), expected);
        });
    }
}

#[test]
fn a_stream_of_ones_own_server_is_estimated_with_its_familys_factor() {
    with_routes("").run(|system| async move {
        let event = EVENT_ONE.replace("gpt-4o-mini-2024-07-18", "Qwen/Qwen3-8B");
        system.provider.sse(&[&event, EVENT_DONE]);
        let mut client = system.client();
        let body = CHAT_STREAM.replace("gpt-4o-mini", "Qwen/Qwen3-8B");
        client.post("/own/v1/chat/completions", &[], &body).await;
        assert_eq!(client.reply().await.status(), 200);
        let record = system.record().await;
        assert_eq!(record.outcome, Outcome::Ok);
        let by = "o200k_base x1.12 qwen-3 (up to x2.76)";
        assert_eq!(told(&record), (Some(9), Some(1), UsageSource::Estimate, by));
    });
}

#[test]
fn a_document_without_usage_is_counted() {
    with_routes("").run(|system| async move {
        system.provider.json(
            200,
            r#"{"id":"c","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello \u00e9\ud83d\ude00"}}]}"#,
        );
        let mut client = system.client();
        client.post("/own/v1/chat/completions", &[], CHAT).await;
        assert_eq!(client.reply().await.status(), 200);
        let record = system.record().await;
        let (input, output, source, _) = told(&record);
        assert_eq!((input, source), (Some(9), UsageSource::Estimate));
        assert!(output.is_some_and(|output| (3..=5).contains(&output)), "{output:?}");
    });
}

#[test]
fn a_cut_document_counts_the_half_sentence_that_came() {
    with_routes("").run(|system| async move {
        let whole = reply(
            200,
            &[("content-type", "application/json")],
            br#"{"id":"c","model":"gpt-4o","choices":[{"index":0,"message":{"content":"Hello, world and more"}}]}"#,
        );
        let cut = whole.windows(4).position(|w| w == b" and").unwrap();
        system.provider.script([Step::Send(whole[..cut].to_vec()), Step::Close]);
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT).await;
        assert!(!client.reply().await.whole);
        let record = system.record().await;
        assert_eq!(record.outcome, Outcome::ErrorMidstream);
        assert_eq!(told(&record), (Some(8), Some(3), UsageSource::Tokenizer, "o200k_base"));
    });
}

#[test]
fn what_a_provider_told_of_a_cut_stream_stays_and_only_the_rest_is_counted() {
    with_routes("").run(|system| async move {
        let events = [
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"claude-sonnet-4-5\",\"usage\":{\"input_tokens\":12,\"output_tokens\":1}}}\n\n",
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"The quick brown fox jumps over the lazy\"}}\n\n",
        ];
        abort(&system, "/anthropic/v1/messages", r#"{"model":"claude-sonnet-4-5"}"#, &events, "lazy").await;
        let record = system.record().await;
        let by = "output: o200k_base x1.10 claude (up to x4.04)";
        assert_eq!(told(&record), (Some(12), Some(9), UsageSource::ProviderPartial, by));
    });
}

#[test]
fn what_the_provider_tells_is_never_counted_again() {
    run("", |system| async move {
        system.provider.sse(&EVENTS);
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT_STREAM).await;
        assert_eq!(client.reply().await.status(), 200);
        let record = system.record().await;
        assert_eq!(told(&record), (Some(1_000), Some(500), UsageSource::Provider, ""));
    });
}

#[test]
fn a_route_that_does_not_count_leaves_the_unknown_unknown() {
    with_routes("").run(|system| async move {
        abort(&system, "/uncounted/v1/chat/completions", CHAT_STREAM, &[EVENT_ONE], "Hel").await;
        assert_eq!(told(&system.record().await), (None, None, UsageSource::Absent, ""));
    });
}

#[test]
fn a_long_stream_is_counted_in_blocks_to_the_same_figure() {
    run("", |system| async move {
        let delta =
            EVENT_ONE.replace("Hel", " money is right, traffic keeps flowing: \\\"a stranger\\\" reads\\n");
        let events = vec![delta.as_str(); 2_000];
        let mut all = events.clone();
        all.push(EVENT_TWO);
        abort(&system, CHAT_PATH, CHAT_STREAM, &all, "lo.").await;
        let text = [
            " money is right, traffic keeps flowing: \"a stranger\" reads\n".repeat(2_000),
            "lo.".to_owned(),
        ];
        let expected = bursar_tokens::Encoding::O200kBase.count(&text.concat()).unwrap();
        let record = system.record().await;
        assert_eq!(told(&record), (Some(8), Some(expected), UsageSource::Tokenizer, "o200k_base"));
    });
}

#[test]
fn a_full_queue_costs_precision_and_no_record() {
    Setup::new("counting: { queue_entries_max: 1 }").run(|system| async move {
        system.hold_ledger();
        for _ in 0..20 {
            abort(&system, CHAT_PATH, CHAT_STREAM, &[EVENT_ONE, EVENT_TWO], "lo.").await;
        }
        system.release_ledger();
        let records = system.records().await;
        assert_eq!(records.len(), 20);
        for stored in records {
            let (_, output, source, by) = told(&stored.record);
            assert!(output.is_some_and(|output| (1..=4).contains(&output)), "{output:?} by {by}");
            let is_rough = by.starts_with("rough");
            assert_eq!(source, if is_rough { UsageSource::Estimate } else { UsageSource::Tokenizer });
        }
    });
}

#[test]
fn a_record_that_waits_for_its_count_is_on_disk_before_the_reply_ends_where_that_is_promised() {
    Setup { routes: ROUTES.to_owned(), ..Setup::new("ledger: { durability: sync }") }.run(
        |system| async move {
            system.provider.sse(&[EVENT_ONE, EVENT_TWO, EVENT_DONE]);
            let mut client = system.client();
            client.post("/own/v1/chat/completions", &[], CHAT_STREAM).await;
            assert_eq!(client.reply().await.status(), 200);
            assert_eq!(system.app.ledger.stats().acknowledged, 1);
            assert_eq!(system.record().await.usage_source, UsageSource::Estimate);
        },
    );
}

#[test]
fn a_patient_route_reads_on_to_the_usage_when_its_client_has_left() {
    with_routes("").run(|system| async move {
        let go_on = std::rc::Rc::new(tokio::sync::Notify::new());
        let rest = [EVENT_TWO, EVENT_USAGE, EVENT_DONE].map(|event| chunk(event.as_bytes())).concat();
        system.provider.script([
            Step::Send(stream(&[EVENT_ONE])),
            Step::Until(go_on.clone()),
            Step::Send([rest, b"0\r\n\r\n".to_vec()].concat()),
        ]);
        let mut client = system.client();
        client.post("/patient/v1/chat/completions", &[], CHAT_STREAM).await;
        assert!(client.sees("Hel").await);
        drop(client);
        until("the client's connection is gone", || system.metric("bursar_connections") == 0).await;
        assert_eq!(system.provider.open(), 1, "the upstream is still heard");
        go_on.notify_one();
        until("the exchange is over", || system.metric("bursar_requests_in_flight") == 0).await;
        let record = system.record().await;
        assert_eq!((record.outcome, record.anomalies.contains(Anomaly::Drained)), (Outcome::Aborted, true));
        assert_eq!(told(&record), (Some(1_000), Some(500), UsageSource::Provider, ""));
    });
}

#[test]
fn patience_ends_after_its_time_and_what_passed_is_counted() {
    with_routes("abort: { drain_time: 500ms }").run(|system| async move {
        system.provider.script([Step::Send(stream(&[EVENT_ONE])), Step::Stall]);
        let mut client = system.client();
        client.post("/patient/v1/chat/completions", &[], CHAT_STREAM).await;
        assert!(client.sees("Hel").await);
        drop(client);
        let provider = system.provider.clone();
        let started = tokio::time::Instant::now();
        until("the upstream connection is closed", || provider.open() == 0).await;
        assert!(started.elapsed() >= std::time::Duration::from_millis(450), "{:?}", started.elapsed());
        let record = system.record().await;
        assert_eq!((record.outcome, record.anomalies.contains(Anomaly::Drained)), (Outcome::Aborted, true));
        assert_eq!(told(&record), (Some(8), Some(1), UsageSource::Tokenizer, "o200k_base"));
    });
}

#[test]
fn patience_ends_after_its_bytes() {
    with_routes("abort: { drain_bytes: 1KiB }").run(|system| async move {
        let go_on = std::rc::Rc::new(tokio::sync::Notify::new());
        let mut steps = vec![Step::Send(stream(&[EVENT_ONE])), Step::Until(go_on.clone())];
        steps.extend((0..50).map(|_| Step::Send(chunk(EVENT_ONE.as_bytes()))));
        steps.push(Step::Stall);
        system.provider.script(steps);
        let mut client = system.client();
        client.post("/patient/v1/chat/completions", &[], CHAT_STREAM).await;
        assert!(client.sees("Hel").await);
        drop(client);
        until("the client's connection is gone", || system.metric("bursar_connections") == 0).await;
        go_on.notify_one();
        let provider = system.provider.clone();
        until("the upstream connection is closed", || provider.open() == 0).await;
        let record = system.record().await;
        assert_eq!(record.usage_source, UsageSource::Tokenizer);
        assert!(record.anomalies.contains(Anomaly::Drained));
    });
}
