//! Batches through the sidecar: whoever made one pays for its results, once.

use bursar_domain::{CostStatus, Metering, TokenClass};
use bursar_ledger::StoredRecord;
use bursar_tests::{Step, run};

const OBJECT: &str = r#"{"id":"batch_1","object":"batch","status":"completed","output_file_id":"file-1","usage":{"input_tokens":30,"output_tokens":3}}"#;

const LINES: &str = concat!(
    r#"{"id":"q1","custom_id":"0","response":{"status_code":200,"body":{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-4o-mini-2024-07-18","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":1}}}}"#,
    "\n",
    r#"{"id":"q2","custom_id":"1","response":{"status_code":200,"body":{"id":"chatcmpl-2","object":"chat.completion","model":"gpt-4o-mini-2024-07-18","choices":[],"usage":{"prompt_tokens":20,"completion_tokens":2}}}}"#,
    "\n",
);

const FILE: &str = "/openai/v1/files/file-1/content";

fn shown(records: &[StoredRecord]) -> Vec<(&str, Metering, Option<u64>)> {
    let team = |stored: &'_ StoredRecord| -> &'static str {
        match stored.record.identity.team.as_ref().map(|team| team.as_str()) {
            Some("maker") => "maker",
            Some("poller") => "poller",
            _ => "nobody",
        }
    };
    records.iter().map(|r| (team(r), r.record.metering, r.record.usage.input_total())).collect()
}

#[test]
fn e30_polls_and_downloads_of_others_are_paid_by_the_maker_once() {
    run("", |system| async move {
        system.provider.json(200, &OBJECT.replace("\"file-1\"", "null"));
        system.provider.json(200, OBJECT);
        for _ in 0..3 {
            let head = [("content-type", "application/octet-stream")];
            system.provider.reply(200, &head, LINES.as_bytes());
        }
        let mut client = system.client();
        client.post("/openai/v1/batches", &[("x-bursar-team", "maker")], r#"{"input_file_id":"f"}"#).await;
        assert_eq!(client.reply().await.status(), 200);
        client.ask("GET", "/openai/v1/batches/batch_1", &[("x-bursar-team", "poller")]).await;
        assert_eq!(client.reply().await.text(), OBJECT);
        for _ in 0..3 {
            client.ask("GET", FILE, &[("x-bursar-team", "poller")]).await;
            assert_eq!(client.reply().await.text(), LINES);
        }
        let records = system.records().await;
        let nothing = |team| (team, Metering::Never, None);
        assert_eq!(
            shown(&records),
            [
                nothing("maker"),
                nothing("poller"),
                ("maker", Metering::Count, Some(30)),
                nothing("poller"),
                nothing("poller"),
            ]
        );
        let paid = &records[2].record;
        assert_eq!(paid.tier.as_ref().unwrap().as_str(), "batch");
        assert_eq!(paid.usage.get(TokenClass::OutputText), Some(3));
        assert!(paid.cost.is_some() && records[3].record.cost.is_none());
    });
}

#[test]
fn a_download_that_broke_leaves_the_rest_to_the_next_one() {
    run("", |system| async move {
        let whole = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", LINES.len());
        let half = LINES.split_at(LINES.len() / 2 + 20).0;
        system.provider.script([Step::Send([whole.as_bytes(), half.as_bytes()].concat()), Step::Close]);
        system.provider.reply(200, &[], LINES.as_bytes());
        let mut first = system.client();
        first.ask("GET", FILE, &[("x-bursar-team", "poller")]).await;
        first.rest().await;
        let mut second = system.client();
        second.ask("GET", FILE, &[("x-bursar-team", "poller")]).await;
        assert_eq!(second.reply().await.text(), LINES);
        let records = system.records().await;
        assert_eq!(
            shown(&records),
            [("poller", Metering::Count, Some(10)), ("poller", Metering::Count, Some(20))]
        );
    });
}

#[test]
fn two_who_fetch_at_once_count_it_once() {
    run("", |system| async move {
        for _ in 0..2 {
            system.provider.reply(200, &[], LINES.as_bytes());
        }
        let (mut a, mut b) = (system.client(), system.client());
        a.ask("GET", FILE, &[]).await;
        b.ask("GET", FILE, &[]).await;
        assert_eq!((a.reply().await.text(), b.reply().await.text()), (LINES.to_owned(), LINES.to_owned()));
        let records = system.records().await;
        let counted: Vec<_> = records.iter().filter_map(|r| r.record.usage.input_total()).collect();
        assert_eq!(counted, [30]);
    });
}

#[test]
fn the_results_of_an_anthropic_batch_belong_to_its_maker() {
    const RESULTS: &str = "{\"custom_id\":\"0\",\"result\":{\"type\":\"succeeded\",\"message\":{\"id\":\"msg_1\",\"model\":\"claude-sonnet-4-5-20250929\",\"usage\":{\"input_tokens\":12,\"output_tokens\":5,\"service_tier\":\"batch\"}}}}\n";
    run("", |system| async move {
        system
            .provider
            .json(200, r#"{"id":"msgbatch_1","type":"message_batch","processing_status":"in_progress"}"#);
        system.provider.reply(200, &[("content-type", "application/x-jsonl")], RESULTS.as_bytes());
        let mut client = system.client();
        client
            .post("/anthropic/v1/messages/batches", &[("x-bursar-team", "maker")], r#"{"requests":[]}"#)
            .await;
        assert_eq!(client.reply().await.status(), 200);
        let path = "/anthropic/v1/messages/batches/msgbatch_1/results";
        client.ask("GET", path, &[("x-bursar-team", "poller")]).await;
        assert_eq!(client.reply().await.text(), RESULTS);
        let records = system.records().await;
        assert_eq!(shown(&records), [("maker", Metering::Never, None), ("maker", Metering::Count, Some(12))]);
    });
}

/// Fetches results of a batch, and checks what they cost.
fn check_cost(path: &'static str, lines: &[String], pico: i128) {
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    run("", move |system| async move {
        system.provider.reply(200, &[("content-type", "application/octet-stream")], body.as_bytes());
        let mut client = system.client();
        client.ask("GET", path, &[]).await;
        assert_eq!(client.reply().await.text(), body);
        let cost = system.record().await.cost.unwrap();
        assert_eq!(
            (cost.status, cost.list_pico, cost.billed_pico),
            (CostStatus::Priced, Some(pico), Some(pico))
        );
    });
}

const RESULTS: &str = "/anthropic/v1/messages/batches/msgbatch_1/results";

fn message(n: usize, model: &str, usage: &str) -> String {
    let message = format!(r#"{{"id":"msg_{n}","model":"{model}","usage":{{{usage}}}}}"#);
    format!(r#"{{"custom_id":"{n}","result":{{"type":"succeeded","message":{message}}}}}"#)
}

#[test]
fn results_below_a_context_threshold_are_not_priced_above_it_for_being_many() {
    let line = |n| message(n, "claude-sonnet-4-5-20250929", r#""input_tokens":150000,"output_tokens":10"#);
    check_cost(RESULTS, &[line(0), line(1), line(2)], 675_225_000_000);
}

#[test]
fn results_made_in_a_dearer_region_are_priced_there_with_their_searches() {
    let usage = r#""input_tokens":1000,"output_tokens":100,"inference_geo":"us","server_tool_use":{"web_search_requests":1}"#;
    let line = |n| message(n, "claude-opus-4-6", usage);
    check_cost(RESULTS, &[line(0), line(1)], 28_250_000_000);
    // One of them elsewhere: 0.00375 instead of 0.004125.
    let elsewhere = message(2, "claude-opus-4-6", &usage.replace(r#""us""#, r#""global""#));
    check_cost(RESULTS, &[line(0), elsewhere], 27_875_000_000);
}

#[test]
fn passes_of_other_models_in_a_result_are_priced_at_those() {
    let usage = r#""input_tokens":1000,"output_tokens":100,"iterations":[{"type":"message","input_tokens":1000,"output_tokens":100},{"type":"advisor_message","model":"claude-opus-4-6","input_tokens":1000,"output_tokens":100}]"#;
    let line = |n| message(n, "claude-sonnet-4-5-20250929", usage);
    // Halves of 3 and 15 and of 5 and 25 dollars for a million.
    check_cost(RESULTS, &[line(0), line(1)], 2 * (2_250_000_000 + 3_750_000_000));
}

#[test]
fn searches_in_the_output_of_a_response_are_charged_per_line() {
    let line = |n| {
        let output = r#"[{"type":"web_search_call"},{"type":"message"},{"type":"web_search_call"}]"#;
        let body = format!(
            r#"{{"id":"resp_{n}","object":"response","model":"gpt-5-2025-08-07","output":{output},"usage":{{"input_tokens":1000,"output_tokens":100}}}}"#
        );
        format!(r#"{{"id":"q{n}","custom_id":"{n}","response":{{"status_code":200,"body":{body}}}}}"#)
    };
    // Halves of 1.25 and 10 dollars for a million, and a cent for each search.
    check_cost(FILE, &[line(0), line(1)], 2 * (1_125_000_000 + 20_000_000_000));
}

// === Gemini ===

const MAKE: &str = "/gemini/v1beta/models/gemini-2.5-flash:batchGenerateContent";
const OPERATION: &str = "/gemini/v1beta/batches/b-1";
const DOWNLOAD: &str = "/gemini/download/v1beta/files/batch-b-1:download?alt=media";

/// One of Google's replies.
fn content(n: usize, input: u64) -> String {
    format!(
        r#"{{"candidates":[{{"content":{{"parts":[{{"text":"x"}}]}},"finishReason":"STOP"}}],"usageMetadata":{{"promptTokenCount":{input},"candidatesTokenCount":100,"totalTokenCount":{}}},"modelVersion":"gemini-2.5-flash","responseId":"r-{n}"}}"#,
        input + 100
    )
}

/// An operation that holds the replies, twice.
fn inline(replies: &[String]) -> String {
    let items: Vec<_> = replies.iter().map(|reply| format!(r#"{{"response":{reply}}}"#)).collect();
    let list = format!(r#"{{"inlinedResponses":{{"inlinedResponses":[{}]}}}}"#, items.join(","));
    format!(r#"{{"name":"batches/b-1","metadata":{{"output":{list}}},"done":true,"response":{list}}}"#)
}

#[test]
fn results_that_a_gemini_batch_holds_are_paid_by_its_maker_once_at_the_price_of_batches() {
    run("", |system| async move {
        let replies = [content(1, 1_000), content(2, 2_000)];
        let pending = r#"{"name":"batches/b-1","metadata":{"state":"BATCH_STATE_PENDING"}}"#;
        system.provider.json(200, pending);
        system.provider.json(200, pending);
        for _ in 0..2 {
            system.provider.json(200, &inline(&replies));
        }
        let mut client = system.client();
        client.post(MAKE, &[("x-bursar-team", "maker")], r#"{"batch":{}}"#).await;
        assert_eq!(client.reply().await.text(), pending);
        for _ in 0..3 {
            client.ask("GET", OPERATION, &[("x-bursar-team", "poller")]).await;
            assert_eq!(client.reply().await.status(), 200);
        }
        let records = system.records().await;
        let nothing = |team| (team, Metering::Never, None);
        assert_eq!(
            shown(&records),
            [nothing("maker"), nothing("poller"), ("maker", Metering::Count, Some(3_000)), nothing("poller")]
        );
        let paid = &records[2].record;
        assert_eq!((paid.api.as_str(), paid.tier.as_ref().unwrap().as_str()), ("batch", "batch"));
        // Halves of 0.30 and 2.50 dollars for a million.
        let cost = paid.cost.as_ref().unwrap();
        assert_eq!((cost.status, cost.list_pico), (CostStatus::Priced, Some(450_000_000 + 250_000_000)));
    });
}

#[test]
fn the_results_file_of_a_gemini_batch_is_paid_by_its_maker_once() {
    run("", |system| async move {
        let done = r#"{"name":"batches/b-1","metadata":{"output":{"responsesFile":"files/batch-b-1"}},"done":true,"response":{"responsesFile":"files/batch-b-1"}}"#;
        let file: String =
            [1, 2].map(|n| format!("{{\"key\":\"k{n}\",\"response\":{}}}\n", content(n, 1_000))).concat();
        system.provider.json(200, r#"{"name":"batches/b-1"}"#);
        system.provider.json(200, done);
        for _ in 0..2 {
            system.provider.reply(200, &[("content-type", "application/octet-stream")], file.as_bytes());
        }
        let mut client = system.client();
        client.post(MAKE, &[("x-bursar-team", "maker")], r#"{"batch":{}}"#).await;
        client.reply().await;
        client.ask("GET", OPERATION, &[("x-bursar-team", "poller")]).await;
        assert_eq!(client.reply().await.text(), done);
        for _ in 0..2 {
            client.ask("GET", DOWNLOAD, &[("x-bursar-team", "poller")]).await;
            assert_eq!(client.reply().await.text(), file);
        }
        let records = system.records().await;
        let nothing = |team| (team, Metering::Never, None);
        assert_eq!(
            shown(&records),
            [nothing("maker"), nothing("poller"), ("maker", Metering::Count, Some(2_000)), nothing("poller")]
        );
        assert_eq!(records[2].record.api.as_str(), "batch-output");
    });
}
