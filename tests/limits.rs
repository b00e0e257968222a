//! Limits as clients meet them.

use crate::transcripts::{CHAT_PATH, MESSAGES_PATH};
use bursar_domain::{Metering, Outcome, RequestId};
use bursar_tests::{Client, Step, System, run, until};
use std::time::Duration;

const ASK: &str = r#"{"model":"gpt-4o-mini","max_tokens":100,"messages":[{"role":"user","content":"hi"}]}"#;
/// Five tokens in, three out.
const REPLY: &str = r#"{"id":"c","object":"chat.completion","model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}"#;
const BOUND: usize = ASK.len() + 100;

fn limit(caps: &str) -> String {
    format!("limits:\n  - {{ name: l, scope: {{ team: a }}, {caps} }}\n")
}

async fn ask(system: &System, client: &mut Client, reply: &str) -> u16 {
    system.provider.json(200, reply);
    client.post(CHAT_PATH, &[("x-bursar-team", "a")], ASK).await;
    client.reply().await.status()
}

#[test]
fn a_refusal_has_the_providers_shape_the_rules_name_and_its_figures() {
    run(&limit("requests_per_minute: 2"), |system| async move {
        let mut client = system.client();
        for _ in 0..2 {
            assert_eq!(ask(&system, &mut client, REPLY).await, 200);
        }
        client.post(CHAT_PATH, &[("x-bursar-team", "a")], ASK).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.header("x-bursar-limit")), (429, Some("l")));
        assert_eq!((reply.header("retry-after"), reply.header("x-should-retry")), (Some("30"), None));
        let error = &reply.json()["error"];
        assert_eq!((&error["type"], &error["code"]), (&"requests".into(), &"rate_limit_exceeded".into()));
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("requests_per_minute is 2, and 0 may pass now"), "{message}");
        let id = RequestId::parse(reply.header("x-bursar-request-id").unwrap()).unwrap();
        let told = system.app.limits.why(id).unwrap().json();
        assert_eq!((&told["rule"], &told["cap"]), (&"l".into(), &"requests_per_minute".into()));

        client.post(MESSAGES_PATH, &[("x-bursar-team", "a")], ASK).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), &reply.json()["error"]["type"]), (429, &"rate_limit_error".into()));
        system.provider.json(200, REPLY);
        client.post(CHAT_PATH, &[("x-bursar-team", "b")], ASK).await;
        assert_eq!(client.reply().await.status(), 200, "another team");
        assert_eq!(system.metric("bursar_requests_refused_total{reason=\"rate_limited\"}"), 2);
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(ask(&system, &mut client, REPLY).await, 200, "half a minute later");
        drop(client);
        let records = system.records().await;
        let refused = records.iter().filter(|stored| stored.record.outcome == Outcome::Refused);
        assert!(refused.clone().all(|stored| stored.record.metering == Metering::Never));
        assert_eq!((records.len(), refused.count()), (6, 2));
    });
}

#[test]
fn tokens_that_were_not_used_are_free_again_and_those_beyond_are_a_debt() {
    let limit = limit(&format!("tokens_per_minute: {}", 2 * BOUND));
    run(&limit, |system| async move {
        let mut client = system.client();
        for _ in 0..4 {
            assert_eq!(ask(&system, &mut client, REPLY).await, 200, "each uses eight alone");
        }
        let left = |system: &System| {
            let page = system.app.limits.metrics();
            let line = page.lines().find(|line| line.contains("cap=\"tokens_per_minute\"")).unwrap();
            line.rsplit(' ').next().unwrap().parse::<i64>().unwrap()
        };
        assert_eq!(left(&system), 2 * BOUND as i64 - 4 * 8);
        let much = REPLY.replace("\"completion_tokens\":3", "\"completion_tokens\":3000");
        assert_eq!(ask(&system, &mut client, &much).await, 200);
        assert_eq!(left(&system), 2 * BOUND as i64 - 4 * 8 - 3_005);
        client.post(CHAT_PATH, &[("x-bursar-team", "a")], ASK).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.header("x-should-retry")), (429, Some("false")));
        assert_eq!(reply.json()["error"]["type"], "tokens");
        let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        drop(client);
        tokio::time::advance(Duration::from_secs(wait)).await;
        let mut client = system.client();
        assert_eq!(ask(&system, &mut client, REPLY).await, 200);
        drop(client);
        drop(system.close().await);
    });
}

#[test]
fn so_many_run_at_once_and_whatever_ends_one_makes_room() {
    run(&limit("concurrent_requests: 1"), |system| async move {
        let mut waiting = system.client();
        system.provider.script([Step::Stall]);
        waiting.post(CHAT_PATH, &[("x-bursar-team", "a")], ASK).await;
        until("it is under way", || system.provider.received().len() == 1).await;
        let mut client = system.client();
        client.post(CHAT_PATH, &[("x-bursar-team", "a")], ASK).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.header("retry-after")), (429, Some("1")));
        // The client leaves.
        drop(waiting);
        until("nothing is in flight", || system.metric("bursar_requests_in_flight") == 0).await;
        for _ in 0..3 {
            assert_eq!(ask(&system, &mut client, REPLY).await, 200);
        }
        system.provider.script([Step::Close]);
        client.post(CHAT_PATH, &[("x-bursar-team", "a")], ASK).await;
        assert_eq!(client.reply().await.status(), 502);
        assert_eq!(ask(&system, &mut client, REPLY).await, 200);
        drop(client);
        drop(system.close().await);
    });
}

#[test]
fn what_a_budget_refuses_takes_nothing_of_a_limit() {
    let settings = [
        limit("requests_per_minute: 1, tokens_per_minute: 100000, concurrent_requests: 1"),
        "budgets:\n  - { name: b, window: day, limit: 300 tokens }\n".to_owned(),
    ]
    .concat();
    run(&settings, |system| async move {
        let mut client = system.client();
        let large = ASK.replace("\"max_tokens\":100", "\"max_tokens\":1000");
        for _ in 0..3 {
            client.post(CHAT_PATH, &[("x-bursar-team", "a")], &large).await;
            assert_eq!(client.reply().await.header("x-bursar-budget"), Some("b"));
        }
        assert_eq!(ask(&system, &mut client, REPLY).await, 200);
        drop(client);
        drop(system.close().await);
    });
}
