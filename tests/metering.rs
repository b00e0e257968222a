//! What a record and the reply's headers say of an ordinary exchange.

use crate::transcripts::{
    CHAT, CHAT_COST_PICO, CHAT_PATH, CHAT_REPLY, CHAT_STREAM, EVENTS, MESSAGES, MESSAGES_PATH, MESSAGES_REPLY,
};
use bursar_domain::{CostStatus, Metering, Outcome, TokenClass, UsageSource};
use bursar_tests::provider::{SSE_HEAD, reply};
use bursar_tests::{Step, chunk, run, until};
use std::time::Duration;

#[test]
fn a_record_says_who_what_and_how_much() {
    run("", |system| async move {
        let answer = reply(
            200,
            &[("content-type", "application/json"), ("x-request-id", "req_1")],
            CHAT_REPLY.as_bytes(),
        );
        let (head, body) = answer.split_at(answer.len() - CHAT_REPLY.len());
        system.provider.script([
            Step::Wait(Duration::from_secs(1)),
            Step::Send(head.to_vec()),
            Step::Wait(Duration::from_secs(1)),
            Step::Send(body.to_vec()),
        ]);
        let mut client = system.client();
        client.post(CHAT_PATH, &[("x-bursar-team", "a")], CHAT).await;
        let provider = system.provider.clone();
        until("the request arrives", || provider.received().len() == 1).await;
        system.clock.advance(1_500_000);
        assert_eq!(client.reply().await.status(), 200);
        let record = system.record().await;
        assert_eq!(
            (record.route.as_str(), record.provider.as_str(), record.api.as_str()),
            ("/openai", "openai", "openai-chat")
        );
        assert_eq!(record.model_requested.unwrap().as_str(), "gpt-4o-mini");
        assert_eq!(record.model_served.unwrap().as_str(), "gpt-4o-mini-2024-07-18");
        assert_eq!(
            (record.outcome, record.metering, record.http_status),
            (Outcome::Ok, Metering::Count, Some(200))
        );
        assert_eq!((record.stream, record.usage_source), (false, UsageSource::Provider));
        let class = |class| record.usage.get(class).unwrap_or(0);
        assert_eq!((class(TokenClass::InputFresh), class(TokenClass::CachedRead)), (800, 200));
        assert_eq!((class(TokenClass::OutputText), class(TokenClass::OutputReasoning)), (400, 100));
        assert_eq!((record.bytes_in, record.bytes_out), (CHAT.len() as u64, CHAT_REPLY.len() as u64));
        assert_eq!((record.latency_us, record.ttft_us), (1_500_000, Some(1_500_000)));
        assert_eq!(record.started_at.micros() + 1_500_000, record.ended_at.micros());
        assert_eq!(record.upstream_request_id.unwrap().as_str(), "req_1");
        let cost = record.cost.unwrap();
        assert_eq!((cost.status, cost.billed_pico), (CostStatus::Priced, Some(CHAT_COST_PICO)));
        assert!(record.anomalies.is_empty(), "{:?}", record.anomalies);
    });
}

#[test]
fn a_messages_call_is_metered_by_its_own_rules() {
    run("", |system| async move {
        system.provider.json(200, MESSAGES_REPLY);
        let mut client = system.client();
        client.post(MESSAGES_PATH, &[("x-api-key", "k")], MESSAGES).await;
        assert_eq!(client.reply().await.text(), MESSAGES_REPLY);
        let record = system.record().await;
        assert_eq!((record.provider.as_str(), record.usage_source), ("anthropic", UsageSource::Provider));
        assert_eq!((record.usage.input_total(), record.usage.output_total()), (Some(12), Some(5)));
        assert_eq!(record.cost.unwrap().status, CostStatus::Priced);
    });
}

#[test]
fn a_reply_carries_its_exact_cost_where_the_route_says_so() {
    run("", |system| async move {
        system.provider.json(200, CHAT_REPLY);
        let mut client = system.client();
        client.post("/costly/v1/chat/completions", &[], CHAT).await;
        let reply = client.reply().await;
        assert_eq!(reply.text(), CHAT_REPLY);
        for (name, value) in [
            ("x-bursar-cost", "0.000435"),
            ("x-bursar-cost-currency", "USD"),
            ("x-bursar-cost-status", "priced"),
            ("x-bursar-input-tokens", "1000"),
            ("x-bursar-output-tokens", "500"),
            ("x-bursar-usage-source", "provider"),
        ] {
            assert_eq!(reply.header(name), Some(value), "{name}");
        }
        let cost = system.record().await.cost.unwrap();
        assert_eq!(cost.billed_pico, Some(CHAT_COST_PICO), "the header and the book agree");
    });
}

#[test]
fn a_reply_without_a_known_cost_says_so_and_names_no_amount() {
    run("", |system| async move {
        system.provider.json(200, &CHAT_REPLY.replace("gpt-4o-mini-2024-07-18", "made-up-model"));
        let mut client = system.client();
        client.post("/costly/v1/chat/completions", &[], CHAT).await;
        let reply = client.reply().await;
        assert_eq!(
            (reply.header("x-bursar-cost"), reply.header("x-bursar-cost-status")),
            (None, Some("unpriced"))
        );
        assert_eq!(system.record().await.cost.unwrap().status, CostStatus::Unpriced);
    });
}

#[test]
fn a_refused_call_has_no_cost_of_its_own_even_where_costs_are_shown() {
    run("", |system| async move {
        system.provider.json(429, r#"{"error":{"message":"slow down"}}"#);
        let mut client = system.client();
        client.post("/costly/v1/chat/completions", &[], CHAT).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.header("x-bursar-cost")), (429, None));
        assert_eq!(reply.header("x-bursar-cost-status"), None, "nothing is to be priced");
        let record = system.record().await;
        assert_eq!((record.metering, record.cost), (Metering::Never, None));
    });
}

#[test]
fn a_stream_is_not_held_back_for_its_cost() {
    run("", |system| async move {
        let mut steps = vec![Step::Send(SSE_HEAD.to_vec())];
        for event in EVENTS {
            steps.push(Step::Wait(Duration::from_secs(5)));
            steps.push(Step::Send(chunk(event.as_bytes())));
        }
        steps.push(Step::Send(b"0\r\n\r\n".to_vec()));
        system.provider.script(steps);
        let mut client = system.client();
        let start = tokio::time::Instant::now();
        client.post("/costly/v1/chat/completions", &[], CHAT_STREAM).await;
        let head = client.head().await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(5));
        assert!(!head.contains("x-bursar-cost"), "{head}");
        assert!(client.body(head).await.whole);
        assert_eq!(system.record().await.cost.unwrap().billed_pico, Some(CHAT_COST_PICO));
    });
}

#[test]
fn a_reply_too_large_to_hold_passes_without_its_cost() {
    run("", |system| async move {
        let body = format!("{}{}", " ".repeat(3 << 20), CHAT_REPLY);
        let mut steps = vec![Step::Send(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
                .to_vec(),
        )];
        steps.extend(body.as_bytes().chunks(100_000).map(|piece| Step::Send(chunk(piece))));
        steps.push(Step::Send(b"0\r\n\r\n".to_vec()));
        for steps in
            [steps, vec![Step::Send(reply(200, &[("content-type", "application/json")], body.as_bytes()))]]
        {
            system.provider.script(steps);
            let mut client = system.client();
            client.post("/costly/v1/chat/completions", &[], CHAT).await;
            let reply = client.reply().await;
            assert_eq!((reply.header("x-bursar-cost"), reply.whole), (None, true));
            assert_eq!(reply.text(), body);
        }
        let records = system.records().await;
        assert_eq!(records.len(), 2);
        for stored in records {
            assert_eq!(stored.record.cost.unwrap().billed_pico, Some(CHAT_COST_PICO));
        }
    });
}

#[test]
fn a_reply_held_for_its_cost_that_breaks_is_passed_on_as_it_came() {
    run("", |system| async move {
        let whole = reply(200, &[("content-type", "application/json")], CHAT_REPLY.as_bytes());
        let cut = whole.len() - 40;
        system.provider.script([Step::Send(whole[..cut].to_vec()), Step::Close]);
        let mut client = system.client();
        client.post("/costly/v1/chat/completions", &[], CHAT).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.whole), (200, false));
        assert_eq!(reply.body, &CHAT_REPLY.as_bytes()[..CHAT_REPLY.len() - 40]);
        assert_eq!(system.record().await.outcome, Outcome::ErrorMidstream);
    });
}

#[test]
fn ids_of_records_are_those_that_clients_saw_and_sequences_rise() {
    run("", |system| async move {
        let mut client = system.client();
        let mut seen = Vec::new();
        for _ in 0..50 {
            system.provider.json(200, CHAT_REPLY);
            client.post(CHAT_PATH, &[], CHAT).await;
            seen.push(client.reply().await.header("x-bursar-request-id").unwrap().to_owned());
        }
        let dir = system.close().await;
        let ledger = bursar_ledger::OfflineLedger::open(&dir.path().join("ledger")).unwrap();
        let records: Vec<_> =
            ledger.records(bursar_ledger::RecordRange::default()).map(Result::unwrap).collect();
        drop(ledger);
        let ids: Vec<_> = records.iter().map(|stored| stored.record.id.to_string()).collect();
        assert_eq!(ids, seen);
        // Reservations have sequences too.
        assert!(records.is_sorted_by(|one, next| one.sequence < next.sequence));
        let dir = dir.path().join("ledger");
        let verified = bursar_ledger::verify(&dir).unwrap();
        assert!(records.last().unwrap().sequence <= verified.records + verified.reservations);
        assert_eq!((verified.records, verified.open), (50, 0));
    });
}

#[test]
fn nothing_of_prompts_completions_and_keys_is_in_the_ledger() {
    run("", |system| async move {
        let secrets = ["sk-canary-1", "prompt-canary-2", "completion-canary-3", "query-canary-4"];
        let body = CHAT.replace("\"hi\"", "\"prompt-canary-2\"");
        system.provider.json(200, &CHAT_REPLY.replace("Hello.", "completion-canary-3"));
        let mut client = system.client();
        let headers = [("authorization", "Bearer sk-canary-1"), ("x-bursar-team", "findable")];
        client.post(&format!("{CHAT_PATH}?key=query-canary-4"), &headers, &body).await;
        assert_eq!(client.reply().await.status(), 200);
        let page = system.app.metrics.page(&system.app.ledger.stats());
        let directory = system.close().await;
        let mut files = Vec::new();
        collect(directory.path(), &mut files);
        assert!(files.iter().any(|bytes| contains(bytes, "findable")), "the search works");
        for secret in secrets {
            assert!(!page.contains(secret));
            assert!(!files.iter().any(|bytes| contains(bytes, secret)), "{secret} is on disk");
        }
    });
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

fn collect(dir: &std::path::Path, files: &mut Vec<Vec<u8>>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(std::fs::read(path).unwrap());
        }
    }
}
