//! Whose requests they are, from the wire to the record.

use crate::transcripts::{CHAT, CHAT_PATH, CHAT_REPLY, MESSAGES, MESSAGES_PATH};
use bursar_domain::{Anomaly, Identity, IdentitySource, Label};
use bursar_ledger::{GroupKey, UsageQuery};
use bursar_tests::{run, unhurried};

/// Sends a chat request with `headers` to a sidecar with `settings` and shows the identity recorded.
fn check(settings: &str, headers: &'static [(&'static str, &'static str)], expected: impl FnOnce(&Identity)) {
    run(settings, |system| async move {
        system.provider.json(200, CHAT_REPLY);
        let mut client = system.client();
        client.post(CHAT_PATH, headers, CHAT).await;
        assert_eq!(client.reply().await.status(), 200);
        expected(&system.record().await.identity);
    });
}

fn text(label: &Option<Label>) -> &str {
    label.as_ref().map_or("", Label::as_str)
}

#[test]
fn headers_name_everything() {
    let headers = &[
        ("x-bursar-team", "search"),
        ("x-bursar-workload", "ranker"),
        ("x-bursar-customer", "acme"),
        ("x-bursar-session", "s-1"),
        ("x-bursar-tag-feature", "rerank"),
    ];
    check("", headers, |identity| {
        let all = (
            text(&identity.team),
            text(&identity.workload),
            text(&identity.customer),
            text(&identity.session),
        );
        assert_eq!(all, ("search", "ranker", "acme", "s-1"));
        assert_eq!(identity.tags.get("feature").unwrap().as_str(), "rerank");
        assert_eq!(identity.source, IdentitySource::Header);
    });
}

#[test]
fn configuration_beats_headers_and_headers_beat_baggage() {
    let headers = &[
        ("x-bursar-team", "evil"),
        ("x-bursar-workload", "from-header"),
        ("baggage", "x-bursar-workload=from-baggage,x-bursar-customer=from%2Dbaggage,other=1"),
    ];
    check("identity: { team: checkout }", headers, |identity| {
        assert_eq!(text(&identity.team), "checkout");
        assert_eq!(text(&identity.workload), "from-header");
        assert_eq!(text(&identity.customer), "from-baggage");
        assert_eq!(identity.source, IdentitySource::Header, "the weakest of team's and workload's");
    });
}

#[test]
fn headers_that_are_not_trusted_say_nothing() {
    let settings = "identity: { team: checkout, trust_headers: false }";
    check(settings, &[("x-bursar-workload", "w"), ("x-bursar-tag-a", "b")], |identity| {
        assert_eq!((text(&identity.team), text(&identity.workload)), ("checkout", ""));
        assert!(identity.tags.is_empty());
        assert_eq!(identity.source, IdentitySource::Config);
    });
}

#[test]
fn a_missing_team_that_is_required_is_400_with_the_remedy_in_each_providers_shape() {
    for (path, body) in [(CHAT_PATH, CHAT), (MESSAGES_PATH, MESSAGES)] {
        run("identity: { required: [team] }", |system| async move {
            let mut client = system.client();
            client.post(path, &[("x-bursar-workload", "w")], body).await;
            let reply = client.reply().await;
            assert_eq!(reply.status(), 400);
            let body = reply.json();
            assert_eq!(body["error"]["type"], "invalid_request_error");
            let message = body["error"]["message"].as_str().unwrap();
            assert!(message.contains("requires team") && message.contains("x-bursar-team"), "{message}");
            assert_eq!(
                (path == MESSAGES_PATH).then_some(&body["type"]),
                (path == MESSAGES_PATH).then_some(&"error".into())
            );

            system.provider.json(200, CHAT_REPLY);
            client.post(path, &[("x-bursar-team", "a")], CHAT).await;
            assert_eq!(client.reply().await.status(), 200, "the connection goes on");
            assert_eq!(system.records().await.len(), 1, "what was refused cost nothing");
        });
    }
}

#[test]
fn a_bad_tag_is_dropped_and_marked_or_refused() {
    let long = "x".repeat(257);
    run("", |system| async move {
        system.provider.json(200, CHAT_REPLY);
        let mut client = system.client();
        let headers =
            [("x-bursar-team", long.as_str()), ("x-bursar-tag-ok", "fine"), ("x-bursar-tag-empty", "")];
        client.post(CHAT_PATH, &headers, CHAT).await;
        assert_eq!(client.reply().await.status(), 200);
        let record = system.record().await;
        assert!(record.anomalies.contains(Anomaly::TagDropped));
        assert_eq!((text(&record.identity.team), record.identity.tags.iter().len()), ("", 1));
    });
    run("identity: { on_bad_tag: refuse }", |system| async move {
        let mut client = system.client();
        client.post(CHAT_PATH, &[("x-bursar-tag-empty", "")], CHAT).await;
        let reply = client.reply().await;
        assert_eq!(reply.status(), 400);
        assert!(reply.text().contains("x-bursar-tag-empty"), "{}", reply.text());
        assert_eq!(system.provider.connections(), 0);
    });
}

#[test]
fn spend_that_nobody_owns_is_in_the_totals_without_a_team() {
    run("", |system| async move {
        let mut client = system.client();
        for headers in [&[][..], &[("x-bursar-team", "a")], &[]] {
            system.provider.json(200, CHAT_REPLY);
            client.post(CHAT_PATH, headers, CHAT).await;
            assert_eq!(client.reply().await.status(), 200);
        }
        let ledger = system.app.ledger.clone();
        let report = unhurried(tokio::task::spawn_blocking(move || {
            ledger.checkpoint().unwrap();
            let query = UsageQuery { by: vec![GroupKey::Team], ..UsageQuery::default() };
            ledger.usage(&query).unwrap()
        }))
        .await
        .unwrap();
        let rows: Vec<_> = report.rows.iter().map(|row| (row.key[0].text(), row.totals.requests)).collect();
        assert_eq!(rows.len(), 2, "{rows:?}");
        assert!(rows.contains(&(None, 2)) && rows.contains(&(Some("a"), 1)), "{rows:?}");
        assert_eq!(report.totals.requests, 3);
    });
}
