//! What Bursar itself turns away is counted by reason, and what the upstream did not do is no refusal.

use crate::ledger_modes::{nearly_full, small_queue};
use crate::transcripts::{CHAT, CHAT_PATH, CHAT_REPLY};
use bursar_domain::{Anomaly, Identity};
use bursar_tests::{System, run};

fn refused(system: &System, reason: &str) -> u64 {
    system.metric(&format!("bursar_requests_refused_total{{reason=\"{reason}\"}}"))
}

/// How many refusals there were, whatever their reasons.
fn refused_in_all(system: &System) -> u64 {
    let page = system.app.metrics.page(&system.app.ledger.stats());
    let counts = page.lines().filter_map(|line| line.strip_prefix("bursar_requests_refused_total{"));
    counts.map(|rest| rest.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

/// Sends `bytes` as a client, and expects `status` and one refusal for `reason`.
fn check(settings: &str, bytes: &str, status: u16, reason: &str) {
    run(settings, |system| async move {
        let mut client = system.client();
        client.send(bytes.as_bytes()).await;
        assert_eq!(client.reply().await.status(), status, "{bytes:?}");
        assert_eq!((refused(&system, reason), refused_in_all(&system)), (1, 1), "{bytes:?}");
        assert_eq!(system.provider.connections(), 0);
        assert!(system.records().await.is_empty());
    });
}

fn post(path: &str, headers: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: sidecar\r\n{headers}content-length: {}\r\n\r\n{CHAT}", CHAT.len())
}

#[test]
fn each_refusal_is_counted_by_its_reason() {
    check("", "BREW / HTTP/1.1\r\nhost: a\r\n\r\n", 501, "unknown_method");
    check("", "POST / HTTP/1.1\r\n\r\n", 400, "host_missing");
    check("", &post("/nowhere/v1/chat/completions", ""), 404, "no_route");
    check("identity: { required: [team] }", &post(CHAT_PATH, ""), 400, "identity_missing");
    check("identity: { on_bad_tag: refuse }", &post(CHAT_PATH, "x-bursar-team: \r\n"), 400, "bad_tag");
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\n";
    let asks = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\n{upgrade}{more}\r\n");
    check("", &asks("/openai/v1/models", ""), 501, "upgrade_not_supported");
    check("", &asks("/openai/v1/realtime", "sec-websocket-version: 13\r\n"), 400, "bad_handshake");
    let long = format!("POST {CHAT_PATH} HTTP/1.1\r\nhost: a\r\ncontent-length: 102401\r\n\r\n");
    check("server: { limits: { body_bytes: 100KiB } }", &long, 413, "body_too_large");
}

#[test]
fn a_request_for_which_the_ledger_has_no_room_is_a_refusal() {
    small_queue("closed").run(|system| async move {
        nearly_full(&system, 0).await;
        let mut client = system.client();
        client.post(CHAT_PATH, &[], CHAT).await;
        assert_eq!(client.reply().await.status(), 503);
        assert_eq!((refused(&system, "ledger_unavailable"), refused_in_all(&system)), (1, 1));
    });
}

#[test]
fn an_upstream_that_is_down_or_says_no_is_no_refusal_and_the_client_is_told_which_and_what_to_do() {
    run("", |system| async move {
        let mut client = system.client();
        let headers = [("content-type", "application/json"), ("connection", "close")];
        system.provider.reply(429, &headers, b"{}");
        client.post(CHAT_PATH, &[], CHAT).await;
        assert_eq!(client.reply().await.status(), 429);
        system.provider.refuse();
        client.post(CHAT_PATH, &[], CHAT).await;
        let reply = client.reply().await;
        assert_eq!(reply.status(), 502);
        let json = reply.json();
        let message = json["error"]["message"].as_str().unwrap();
        for part in ["provider.test", "start it, or correct the `upstream`", "(route /openai)"] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(refused_in_all(&system), 0);
    });
}

#[test]
fn a_misspelt_header_of_ours_leaves_a_mark_or_is_refused_with_what_was_meant() {
    let headers = [("x-bursar-teem", "checkout"), ("x-bursar-workload", "bot")];
    run("", |system| async move {
        let mut client = system.client();
        for _ in 0..2 {
            system.provider.json(200, CHAT_REPLY);
            client.post(CHAT_PATH, &headers, CHAT).await;
            assert_eq!(client.reply().await.status(), 200);
        }
        assert_eq!(system.metric("bursar_anomalies_total{kind=\"tag_dropped\"}"), 2);
        for stored in system.records().await {
            assert!(stored.record.anomalies.contains(Anomaly::TagDropped));
            let Identity { team, workload, .. } = &*stored.record.identity;
            assert_eq!((team.is_some(), workload.is_some()), (false, true));
        }
    });
    run("identity: { on_bad_tag: refuse }", |system| async move {
        let mut client = system.client();
        client.post(CHAT_PATH, &headers, CHAT).await;
        let reply = client.reply().await;
        assert_eq!(reply.status(), 400);
        let text = reply.text();
        assert!(text.contains("x-bursar-teem") && text.contains("did you mean x-bursar-team?"), "{text}");
        assert_eq!(refused(&system, "bad_tag"), 1);
        assert_eq!(system.provider.connections(), 0);
    });
}
