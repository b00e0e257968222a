//! Rules as clients and providers meet them.

use crate::transcripts::{CHAT_PATH, MESSAGES_PATH};
use bursar_domain::{Metering, Outcome, RequestId};
use bursar_tests::{Client, Setup, System, run};

const ASK: &str = r#"{"model":"gpt-4o","max_tokens":900,"messages":[{"role":"user","content":"hi"}]}"#;
/// Five tokens in, three out.
const REPLY: &str = r#"{"id":"c","object":"chat.completion","model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}"#;
const GEMINI_REPLY: &str = r#"{"candidates":[{"content":{"parts":[{"text":"Hi"}],"role":"model"},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":3,"totalTokenCount":8},"modelVersion":"gemini-2.5-flash"}"#;

fn rules(items: &[&str]) -> String {
    let items: Vec<String> = items.iter().map(|item| format!("  - {{ {item} }}\n")).collect();
    format!("rules:\n{}", items.concat())
}

async fn ask(system: &System, client: &mut Client, headers: &[(&str, &str)]) -> u16 {
    system.provider.json(200, REPLY);
    client.post(CHAT_PATH, headers, ASK).await;
    client.reply().await.status()
}

fn count(system: &System, sample: &str) -> u64 {
    let page = system.app.rules().metrics();
    let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {sample} in {page}")).parse().unwrap()
}

const NO_OPUS: &str = r#"name: no-opus, when: 'request.model.startsWith("claude-opus") && team != "research"', deny: "use sonnet""#;
const OPUS: &str =
    r#"{"model":"claude-opus-4-1","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;

#[test]
fn a_refusal_has_the_providers_shape_the_rules_name_and_its_text() {
    run(&rules(&[NO_OPUS]), |system| async move {
        let mut client = system.client();
        client.post(MESSAGES_PATH, &[("x-bursar-team", "shop")], OPUS).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.header("x-bursar-rule")), (403, Some("no-opus")));
        assert_eq!((reply.header("x-should-retry"), reply.header("retry-after")), (Some("false"), None));
        let error = &reply.json()["error"];
        assert_eq!(error["type"], "permission_error");
        assert_eq!(error["message"], "bursar: the rule \"no-opus\" refuses this request: use sonnet");
        let id = RequestId::parse(reply.header("x-bursar-request-id").unwrap()).unwrap();
        let told = system.app.rules().why(id).unwrap().json();
        assert_eq!((&told["rule"], &told["reason"]), (&"no-opus".into(), &"rule_denied".into()));
        assert_eq!((&told["team"], &told["model"]), (&"shop".into(), &"claude-opus-4-1".into()));

        client.post(CHAT_PATH, &[], OPUS).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), &reply.json()["error"]["code"]), (403, &"rule_denied".into()));
        assert_eq!(system.provider.received().len(), 0, "nothing reached the upstream");
        assert_eq!(system.metric("bursar_requests_refused_total{reason=\"rule_denied\"}"), 2);
        assert_eq!(count(&system, "bursar_rule_matched_total{rule=\"no-opus\"}"), 2);

        system.provider.json(200, REPLY);
        client.post(CHAT_PATH, &[("x-bursar-team", "research")], OPUS).await;
        assert_eq!(client.reply().await.status(), 200);
        assert_eq!(system.provider.received()[0].body, OPUS.as_bytes(), "what passes is not touched");
        drop(client);
        let records = system.records().await;
        assert_eq!(records.len(), 3);
        let refused = &records[0].record;
        assert_eq!((refused.outcome, refused.metering), (Outcome::Refused, Metering::Never));
    });
}

#[test]
fn a_model_at_the_end_of_a_long_body_is_seen() {
    let long = format!(
        r#"{{"messages":[{{"role":"user","content":"{}"}}],"model":"claude-opus-4"}}"#,
        "x".repeat(300_000)
    );
    run(&rules(&[NO_OPUS]), |system| async move {
        let mut client = system.client();
        client.post(MESSAGES_PATH, &[], &long).await;
        assert_eq!(client.reply().await.status(), 403);
        drop(client);
        drop(system.close().await);
    });
}

#[test]
fn a_shadow_rule_only_counts_and_a_warning_is_a_header() {
    let items = [
        "name: maybe, when: 'true', deny: x, shadow: true",
        "name: look, when: 'request.max_tokens > 100', warn: ask for less",
        "name: never, when: 'request.max_tokens > 1000', warn: no",
    ];
    run(&rules(&items), |system| async move {
        let mut client = system.client();
        system.provider.json(200, REPLY);
        client.post(CHAT_PATH, &[], ASK).await;
        let reply = client.reply().await;
        assert_eq!(
            (reply.status(), reply.header("x-bursar-rule-warning")),
            (200, Some("look; ask for less"))
        );
        assert_eq!(count(&system, "bursar_rule_shadowed_total{rule=\"maybe\"}"), 1);
        assert_eq!(count(&system, "bursar_rule_matched_total{rule=\"never\"}"), 0);
        drop(client);
        assert_eq!(system.records().await.len(), 1);
    });
}

#[test]
fn a_steered_request_asks_for_another_model_and_less_and_is_held_and_recorded_as_sent() {
    let settings = rules(&[
        "name: cheap, when: 'request.model == \"gpt-4o\"', model: gpt-4o-mini, max_output: 100",
    ]) + "budgets:\n  - { name: b, window: day, limit: 100000 tokens }\n  - { name: dear, scope: { model: gpt-4o }, window: day, limit: 1 tokens }\n";
    run(&settings, |system| async move {
        system.hold_ledger();
        let mut client = system.client();
        system.provider.json(200, REPLY);
        client.post(CHAT_PATH, &[("x-bursar-tag-env", "prod")], ASK).await;
        let reply = client.reply().await;
        assert_eq!(reply.status(), 200, "{}", reply.text());
        assert_eq!(reply.header("x-bursar-steered"), Some("rule=cheap; model=gpt-4o-mini; max_output=100"));
        let sent = ASK.replace("gpt-4o", "gpt-4o-mini").replace("900", "100");
        let received = system.provider.received();
        assert_eq!(String::from_utf8_lossy(&received[0].body), sent);
        assert_eq!(received[0].header("content-length"), Some(sent.len().to_string().as_str()));
        let held = system.app.budgets.standing(0, system.app.now()).unwrap().held;
        assert_eq!(held, ASK.len() as i128 + 100, "what is sent is held");
        system.release_ledger();
        system.settled().await;
        drop(client);
        let record = system.record().await;
        assert_eq!(record.model_requested.unwrap().as_str(), "gpt-4o-mini");
        let tags: Vec<(&str, &str)> =
            record.identity.tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            tags,
            [
                ("bursar.asked_max_output", "900"),
                ("bursar.asked_model", "gpt-4o"),
                ("bursar.max_output", "100"),
                ("bursar.rule", "cheap"),
                ("env", "prod"),
            ]
        );
        assert_eq!(record.bytes_in, ASK.len() as u64);
    });
}

#[test]
fn what_is_as_wanted_already_is_left_alone() {
    run(&rules(&["name: r, when: 'true', model: gpt-4o, max_output: 900"]), |system| async move {
        let mut client = system.client();
        system.provider.json(200, REPLY);
        client.post(CHAT_PATH, &[], ASK).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.header("x-bursar-steered")), (200, None));
        assert_eq!(system.provider.received()[0].body, ASK.as_bytes());
        drop(client);
        assert!(system.record().await.identity.tags.is_empty());
    });
}

#[test]
fn a_stream_is_steered_and_asked_for_usage() {
    run(&rules(&["name: r, when: 'request.stream', max_output: 7"]), |system| async move {
        let mut client = system.client();
        system.provider.sse(&["data: [DONE]\n\n"]);
        client.post(CHAT_PATH, &[], r#"{"model":"m","stream":true}"#).await;
        assert_eq!(client.reply().await.status(), 200);
        let body = system.provider.received()[0].json();
        assert_eq!(
            (&body["max_completion_tokens"], &body["stream_options"]["include_usage"]),
            (&7.into(), &true.into())
        );
        drop(client);
        drop(system.close().await);
    });
}

#[test]
fn a_model_in_the_path_is_changed_there() {
    run(
        &rules(&[
            "name: flash, when: 'request.model.contains(\"pro\")', model: gemini-2.5-flash, max_output: 64",
        ]),
        |system| async move {
            let mut client = system.client();
            system.provider.json(200, GEMINI_REPLY);
            client
                .post(
                    "/gemini/v1beta/models/gemini-2.5-pro:generateContent?alt=json",
                    &[],
                    r#"{"contents":[]}"#,
                )
                .await;
            let reply = client.reply().await;
            assert_eq!(reply.status(), 200, "{}", reply.text());
            let received = system.provider.received();
            assert_eq!(
                received[0].line(),
                "POST /v1beta/models/gemini-2.5-flash:generateContent?alt=json HTTP/1.1"
            );
            assert_eq!(
                String::from_utf8_lossy(&received[0].body),
                r#"{"contents":[],"generationConfig":{"maxOutputTokens":64}}"#
            );
            drop(client);
            let record = system.record().await;
            assert_eq!(record.model_requested.unwrap().as_str(), "gemini-2.5-flash");
            assert_eq!(record.identity.tags.get("bursar.asked_model").unwrap().as_str(), "gemini-2.5-pro");
            assert_eq!(record.identity.tags.get("bursar.asked_max_output").unwrap().as_str(), "none");
        },
    );
}

#[test]
fn another_route_gets_its_own_secret_and_never_the_clients() {
    let mut setup = Setup::new(&rules(&[
        "name: local, when: 'request.route == \"/openai\"', route: /local, model: llama",
    ]));
    setup.routes.push_str(
        "  - { prefix: /local, upstream: 'http://provider.test/inner', provider: vllm, allow_plaintext_upstream: true, auth: inject, secret_env: LOCAL_KEY }\n",
    );
    setup.env.push(("LOCAL_KEY".to_owned(), "ours".to_owned()));
    setup.run(|system| async move {
        let mut client = system.client();
        for (path, sent, steered) in [
            (
                CHAT_PATH,
                "POST /inner/v1/chat/completions HTTP/1.1",
                Some("rule=local; model=llama; route=/local"),
            ),
            ("/silent/v1/chat/completions", "POST /v1/chat/completions HTTP/1.1", None),
        ] {
            system.provider.json(200, REPLY);
            client.post(path, &[("authorization", "Bearer theirs")], ASK).await;
            let reply = client.reply().await;
            assert_eq!(
                (reply.status(), reply.header("x-bursar-steered")),
                (200, steered),
                "{}",
                reply.text()
            );
            let received = system.provider.received();
            let last = received.last().unwrap();
            assert_eq!(last.line(), sent);
            let key = if steered.is_some() { "Bearer ours" } else { "Bearer theirs" };
            assert_eq!(last.header("authorization"), Some(key));
        }
        // Another API cannot be had there: the request goes where it was meant to.
        drop(client);
        let records = system.records_by_start().await;
        let record = &records[0].record;
        assert_eq!((record.route.as_str(), record.provider.as_str()), ("/local", "vllm"));
        assert_eq!(record.identity.tags.get("bursar.asked_route").unwrap().as_str(), "/openai");
    });
}

#[test]
fn what_cannot_be_changed_passes_or_is_refused_by_the_rules_own_fail() {
    let zipped = zstd::encode_all(ASK.as_bytes(), 1).unwrap();
    for (fail, status) in [("open", 200), ("closed", 403)] {
        let zipped = zipped.clone();
        run(&rules(&[&format!("name: r, when: 'true', model: small, fail: {fail}")]), |system| async move {
            let mut client = system.client();
            let head = format!(
                "POST {CHAT_PATH} HTTP/1.1\r\nhost: sidecar\r\ncontent-type: application/json\r\n\
                 content-encoding: zstd\r\ncontent-length: {}\r\n\r\n",
                zipped.len()
            );
            if status == 200 {
                system.provider.json(200, REPLY);
            }
            client.send(&[head.as_bytes(), &zipped].concat()).await;
            let reply = client.reply().await;
            assert_eq!(reply.status(), status, "{}", reply.text());
            assert_eq!(count(&system, "bursar_rule_not_applied_total{rule=\"r\"}"), 1);
            if status == 200 {
                assert_eq!(system.provider.received()[0].body, zipped);
            } else {
                assert!(reply.text().contains("its body is compressed"), "{}", reply.text());
            }
            // Reading is not asking: there is nothing to change.
            system.provider.json(200, "{}");
            client.send(b"GET /openai/v1/models HTTP/1.1\r\nhost: sidecar\r\n\r\n").await;
            assert_eq!(client.reply().await.status(), 200);
            drop(client);
            drop(system.close().await);
        });
    }
}

#[test]
fn a_body_that_cannot_be_known_fails_rules_that_look_at_it() {
    for (fail, status) in [("open", 200), ("closed", 403)] {
        let item = format!("name: r, when: 'request.model == \"x\"', deny: no, fail: {fail}");
        let settings = rules(&[&item]) + "reserve: { body_bytes: 64KiB }\n";
        run(&settings, |system| async move {
            let mut client = system.client();
            let body = format!(r#"{{"messages":"{}","model":"x"}}"#, "y".repeat(300_000));
            let head = format!(
                "POST {CHAT_PATH} HTTP/1.1\r\nhost: sidecar\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let (first, rest) = body.split_at(100_000);
            client.send(head.as_bytes()).await;
            client.send(first.as_bytes()).await;
            if status == 200 {
                system.provider.json(200, REPLY);
                client.send(rest.as_bytes()).await;
            }
            assert_eq!(client.reply().await.status(), status);
            assert_eq!(count(&system, "bursar_rule_failed_total{rule=\"r\"}"), 1);
            drop(client);
            drop(system.close().await);
        });
    }
}

#[test]
fn a_rule_steers_when_a_budget_nears_its_end() {
    let settings = rules(&["name: nearly, budget: b, when_used: 80%, model: gpt-4o-mini"])
        + "budgets:\n  - { name: b, window: day, limit: 10 tokens, mode: soft }\n";
    run(&settings, |system| async move {
        let mut client = system.client();
        assert_eq!(ask(&system, &mut client, &[]).await, 200);
        system.settled().await;
        assert_eq!(system.app.budgets.used_of("b", system.app.now()), Some(80));
        assert_eq!(ask(&system, &mut client, &[]).await, 200);
        let models: Vec<String> = system
            .provider
            .received()
            .iter()
            .map(|sent| sent.json()["model"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(models, ["gpt-4o", "gpt-4o-mini"]);
        drop(client);
        drop(system.close().await);
    });
}

#[test]
fn an_estimate_can_be_asked_and_a_clients_tag_cannot_pose_as_the_sidecars() {
    let item =
        "name: dear, when: 'estimated.cost_micros > 9000 && estimated.output_tokens == 900', deny: too dear";
    run(&rules(&[item]), |system| async move {
        let mut client = system.client();
        // 900 tokens at 10 USD per million at the dearest standing tier, and the input.
        client.post(CHAT_PATH, &[], ASK).await;
        assert_eq!(client.reply().await.status(), 403);
        system.provider.json(200, REPLY);
        let less = ASK.replace("900", "90");
        client
            .post(CHAT_PATH, &[("x-bursar-tag-bursar.rule", "mine"), ("x-bursar-steered", "x")], &less)
            .await;
        assert_eq!(client.reply().await.status(), 200);
        drop(client);
        let records = system.records().await;
        let passed = records.iter().find(|stored| stored.record.outcome != Outcome::Refused).unwrap();
        assert!(passed.record.identity.tags.is_empty(), "{:?}", passed.record.identity);
    });
}

#[test]
fn rules_are_asked_about_every_request() {
    let items = [
        "name: models, when: 'request.method == \"GET\" && request.path == \"/v1/models\"', deny: no list",
        "name: files, when: 'request.api == \"unmetered\" && request.path.startsWith(\"/v1/files\")', deny: no files",
        "name: talk, when: 'request.api == \"realtime\"', deny: no talk",
    ];
    run(&rules(&items), |system| async move {
        let mut client = system.client();
        client.send(b"GET /openai/v1/models HTTP/1.1\r\nhost: sidecar\r\n\r\n").await;
        assert_eq!(client.reply().await.status(), 403);
        client.post("/openai/v1/files", &[], "x").await;
        assert_eq!(client.reply().await.status(), 403);
        let mut client = system.client();
        client
            .send(
                b"GET /openai/v1/realtime?model=gpt-realtime HTTP/1.1\r\nhost: sidecar\r\nconnection: Upgrade\r\n\
                  upgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                  sec-websocket-version: 13\r\n\r\n",
            )
            .await;
        let reply = client.reply().await;
        assert_eq!(reply.header("x-bursar-rule"), Some("talk"), "{}", reply.text());
        assert_eq!(system.provider.received().len(), 0);
        drop(client);
        drop(system.close().await);
    });
}

#[test]
fn the_guide_names_every_variable_and_its_examples_are_right() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/rules.md");
    let guide = std::fs::read_to_string(path).unwrap();
    let mut rows = guide.lines().skip_while(|line| *line != "| variable | type | means |").skip(2);
    for variable in bursar_policies::rule::VARIABLES {
        let row = format!("| `{}` | {} | {} |", variable.name, variable.kind.name(), variable.about);
        assert_eq!(rows.next(), Some(row.as_str()));
    }
    assert_eq!(rows.next(), Some(""), "a variable that there is not");
    let examples: Vec<&str> =
        guide.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 2);
    for example in examples {
        let config = bursar::config::Config::load(bursar::config::Sources::from_text(example));
        assert_eq!(config.unwrap_or_else(|errors| panic!("{errors}")).rules.len(), 3);
    }
}
