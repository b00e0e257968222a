//! Virtual keys as clients and providers meet them: whose they are, what they are for, and that none of them
//! is seen anywhere again.

use crate::transcripts::{
    CHAT, CHAT_PATH, CHAT_REPLY, CHAT_STREAM, EVENTS, MESSAGES, MESSAGES_PATH, MESSAGES_REPLY,
};
use bursar::credentials::keys::{Pepper, PresentedKey};
use bursar_domain::{Anomaly, IdentitySource, Label, Metering, Outcome, RequestId, UsageRecord};
use bursar_tests::{Client, Reply, Setup, Step, System, until};
use http::Version;

/// Digits that stand in no other place.
const SECRET: &str = "c0ffee11c0ffee22c0ffee33c0ffee44c0ffee55c0ffee66c0ffee77c0ffee88";
const CANARY: &str = "c0ffee";
const PROVIDER_KEY: &str = "sk-provider-canary-7f3a";

fn key(id: &str) -> String {
    format!("bursar_{id}_{SECRET}")
}

fn hash(id: &str) -> String {
    PresentedKey::parse(key(id).as_bytes()).unwrap().hash(&Pepper::default()).to_string()
}

const BOT: &str = "00000000000000b1";
const SALES: &str = "00000000000000b2";
const OLD: &str = "00000000000000b3";
const EARLY: &str = "00000000000000b4";
const NARROW: &str = "00000000000000b5";
const SEVERAL: &str = "00000000000000b6";

const ROUTES: &str = "
builtin_routes: false
routes:
  - { prefix: /openai, upstream: 'http://provider.test', provider: openai, auth: inject, secret_env: PROVIDER_KEY, allow_plaintext_upstream: true }
  - { prefix: /anthropic, upstream: 'http://provider.test', provider: anthropic, auth: inject, secret_env: PROVIDER_KEY, allow_plaintext_upstream: true }
  - { prefix: /gemini, upstream: 'http://provider.test', provider: gemini, auth: inject, secret_env: PROVIDER_KEY, allow_plaintext_upstream: true }
  - { prefix: /own, upstream: 'http://provider.test', provider: openai }
  - { prefix: /open, upstream: 'http://provider.test', provider: openai, require_key: false }
  - { prefix: /h2, upstream: 'http://h2.test', provider: openai, protocol: http2, auth: inject, secret_env: PROVIDER_KEY, allow_plaintext_upstream: true }
";

fn settings(more: &str) -> String {
    let item = |name: &str, id: &str, rest: &str| {
        format!("  - {{ name: {name}, id: '{id}', hash: '{}', {rest} }}\n", hash(id))
    };
    [
        "keys:\n".to_owned(),
        item("bot", BOT, "team: checkout, workload: support-bot, customer: acme, tags: { env: prod }"),
        item("sales", SALES, "team: sales"),
        item("old", OLD, "team: checkout, expires: 2026-11-22T11:59:59Z"),
        item("early", EARLY, "team: checkout, not_before: 2026-11-22T12:00:01Z"),
        item(
            "narrow",
            NARROW,
            "team: checkout, routes: [/openai, /gemini], models: ['gpt-4o-mini*', gemini-2.5-flash]",
        ),
        item("several", SEVERAL, "team: checkout, workload: [a, b]"),
        more.to_owned(),
    ]
    .concat()
}

fn with<Fut: Future<Output = ()>>(more: &str, test: impl FnOnce(System) -> Fut) {
    let setup = Setup {
        routes: ROUTES.to_owned(),
        env: vec![("PROVIDER_KEY".to_owned(), PROVIDER_KEY.to_owned())],
        ..Setup::new(&settings(more))
    };
    setup.run(test);
}

fn bearer(id: &str) -> String {
    format!("Bearer {}", key(id))
}

async fn chat(system: &System, client: &mut Client, headers: &[(&str, &str)]) -> Reply {
    system.provider.json(200, CHAT_REPLY);
    client.post(CHAT_PATH, headers, CHAT).await;
    client.reply().await
}

async fn refused(client: &mut Client, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    client.post(path, headers, body).await;
    let reply = client.reply().await;
    assert!(!reply.text().contains(CANARY) && !reply.head.contains(CANARY), "{}", reply.text());
    reply
}

fn text(label: &Option<Label>) -> &str {
    label.as_ref().map_or("", Label::as_str)
}

fn who(record: &UsageRecord) -> (&str, &str, &str, IdentitySource) {
    let identity = &record.identity;
    (text(&identity.team), text(&identity.workload), text(&identity.customer), identity.source)
}

#[test]
fn a_key_says_who_pays_and_the_routes_own_secret_takes_its_place() {
    with("", |system| async move {
        let mut client = system.client();
        let reply = chat(&system, &mut client, &[("authorization", &bearer(BOT))]).await;
        assert_eq!(reply.status(), 200);
        let received = system.provider.request();
        let sent = format!("Bearer {PROVIDER_KEY}");
        assert_eq!(received.header("authorization"), Some(sent.as_str()));
        assert!(!system.provider.has_seen(CANARY));
        drop(client);
        let record = system.record().await;
        assert_eq!(who(&record), ("checkout", "support-bot", "acme", IdentitySource::Credential));
        assert_eq!(record.identity.tags.get("env").unwrap().as_str(), "prod");
        assert!(record.anomalies.is_empty());
    });
}

#[test]
fn every_way_of_presenting_a_key_works_and_none_reaches_the_provider() {
    with("", |system| async move {
        let mut client = system.client();
        let (key, bearer) = (key(SALES), bearer(SALES));
        for (path, name, value, body, answer) in [
            (CHAT_PATH, "authorization", bearer.as_str(), CHAT, CHAT_REPLY),
            (CHAT_PATH, "authorization", key.as_str(), CHAT, CHAT_REPLY),
            (CHAT_PATH, "api-key", key.as_str(), CHAT, CHAT_REPLY),
            (CHAT_PATH, "x-bursar-key", key.as_str(), CHAT, CHAT_REPLY),
            (MESSAGES_PATH, "x-api-key", key.as_str(), MESSAGES, MESSAGES_REPLY),
            (
                "/gemini/v1beta/models/gemini-2.5-flash:generateContent",
                "x-goog-api-key",
                key.as_str(),
                "{}",
                "{}",
            ),
        ] {
            system.provider.json(200, answer);
            client.post(path, &[(name, value)], body).await;
            assert_eq!(client.reply().await.status(), 200, "{path} {name}");
        }
        system.provider.json(200, "{}");
        let path = format!("/gemini/v1beta/models/gemini-2.5-flash:generateContent?alt=json&key={key}");
        client.post(&path, &[], "{}").await;
        assert_eq!(client.reply().await.status(), 200);
        let last = system.provider.received().pop().unwrap();
        assert_eq!(last.line(), "POST /v1beta/models/gemini-2.5-flash:generateContent?alt=json HTTP/1.1");
        assert_eq!(last.header("x-goog-api-key"), Some(PROVIDER_KEY));
        assert!(!system.provider.has_seen(CANARY) && !system.provider.has_seen("bursar"));
        drop(client);
        for stored in system.records().await {
            assert_eq!(text(&stored.record.identity.team), "sales");
        }
    });
}

#[test]
fn a_stream_and_both_versions_of_http_take_keys() {
    with("", |system| async move {
        system.provider.sse(&EVENTS);
        let mut client = system.client();
        client.post(CHAT_PATH, &[("authorization", &bearer(BOT))], CHAT_STREAM).await;
        assert_eq!(client.reply().await.status(), 200);
        drop(client);
        system.http2_provider.answer(bursar_tests::http2::Answer {
            head: http::Response::builder()
                .status(200)
                .header("content-type", "application/json")
                .body(())
                .unwrap(),
            frames: vec![hyper::body::Frame::data(CHAT_REPLY.into())],
            breaks: false,
        });
        let mut http2 = system.http2_client().await;
        let request =
            |key: &str| bursar_tests::http2::post("/h2/v1/chat/completions", &[("authorization", key)], CHAT);
        let reply = http2.send(request(&bearer(BOT))).await;
        assert_eq!((reply.head.status().as_u16(), reply.head.version()), (200, Version::HTTP_2));
        let received = system.http2_provider.received();
        assert_eq!(received[0].head.headers()["authorization"], format!("Bearer {PROVIDER_KEY}"));
        assert!(!format!("{received:?}").contains(CANARY));
        let reply = http2.send(request("Bearer sk-none")).await;
        assert_eq!(reply.head.status().as_u16(), 401);
        drop(http2);
        let records = system.records().await;
        assert_eq!(records.len(), 2);
        for stored in records {
            assert_eq!(who(&stored.record), ("checkout", "support-bot", "acme", IdentitySource::Credential));
        }
    });
}

const HANDSHAKE: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-version", "13"),
];
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
    sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nsec-websocket-protocol: realtime\r\n\r\n";
const SESSION: &str = "/openai/v1/realtime?model=gpt-4o-mini-realtime";

#[test]
fn a_realtime_session_takes_its_key_from_the_header_or_the_subprotocol() {
    let protocols = format!("realtime, openai-insecure-api-key.{}, openai-beta.realtime-v1", key(NARROW));
    for header in [("authorization", bearer(NARROW)), ("sec-websocket-protocol", protocols)] {
        with("", |system| async move {
            system.provider.script([Step::Send(SWITCHING.as_bytes().to_vec()), Step::Close]);
            let mut client = system.client();
            let own = [(header.0, header.1.as_str())];
            client.ask("GET", SESSION, &[HANDSHAKE.as_slice(), own.as_slice()].concat()).await;
            let head = client.head().await.unwrap();
            assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
            let received = system.provider.request();
            assert_eq!(received.header("authorization"), Some(format!("Bearer {PROVIDER_KEY}").as_str()));
            if header.0 == "sec-websocket-protocol" {
                assert_eq!(received.header(header.0), Some("realtime, openai-beta.realtime-v1"));
            }
            assert!(!system.provider.has_seen(CANARY));
            let provider = system.provider.clone();
            until("the session is over", || provider.open() == 0).await;
            drop(client);
            assert_eq!(text(&system.record().await.identity.team), "checkout");
        });
    }
}

#[test]
fn a_session_without_a_key_or_for_another_model_is_refused_before_the_upgrade() {
    with("", |system| async move {
        let narrow = bearer(NARROW);
        for (path, headers, status) in [
            (SESSION, &[][..], 401),
            ("/openai/v1/realtime?model=gpt-realtime", &[("authorization", narrow.as_str())][..], 403),
            (
                "/openai/v1/realtime?model=gpt-4o-mini&model=gpt-realtime",
                &[("authorization", narrow.as_str())],
                403,
            ),
            (
                "/openai/v1/realtime?model=gpt-4o-mini&%6dodel=gpt-realtime",
                &[("authorization", narrow.as_str())],
                403,
            ),
            ("/openai/v1/realtime?intent=transcription", &[("authorization", narrow.as_str())], 403),
        ] {
            let mut client = system.client();
            client.ask("GET", path, &[HANDSHAKE.as_slice(), headers].concat()).await;
            assert_eq!(client.reply().await.status(), status, "{path}");
        }
        assert_eq!(system.provider.connections(), 0);
    });
}

#[test]
fn a_key_that_does_not_hold_is_401_in_each_providers_shape_and_never_nobody() {
    with("", |system| async move {
        let mut client = system.client();
        let stranger = format!("bursar_{}_{}", "0123456789abcdef", SECRET);
        let wrong = key(BOT).replace("c0ffee88", "c0ffee89");
        for (value, code) in [
            (key(OLD), "key_expired"),
            (key(EARLY), "key_not_yet_valid"),
            (stranger, "key_unknown"),
            (wrong, "key_unknown"),
            ("bursar_".to_owned(), "key_malformed"),
            (format!("{}0", key(BOT)), "key_malformed"),
        ] {
            // Also where none is asked for: what is presented must hold.
            for path in [CHAT_PATH, "/open/v1/chat/completions"] {
                let reply =
                    refused(&mut client, path, &[("authorization", &format!("Bearer {value}"))], CHAT).await;
                assert_eq!(reply.status(), 401, "{code}");
                assert_eq!(reply.json()["error"]["code"], "invalid_api_key");
                assert_eq!(reply.header("www-authenticate"), Some("Bearer realm=\"bursar\""));
                let id = RequestId::parse(reply.header("x-bursar-request-id").unwrap()).unwrap();
                assert_eq!(system.app.refusals.why(id).unwrap().json()["reason"], code);
            }
        }
        let reply = refused(&mut client, MESSAGES_PATH, &[("x-api-key", &key(OLD))], MESSAGES).await;
        assert_eq!((reply.status(), &reply.json()["error"]["type"]), (401, &"authentication_error".into()));
        assert!(
            reply.text().contains("the key \\\"old\\\" expired at 2026-11-22T11:59:59Z"),
            "{}",
            reply.text()
        );
        let path = "/gemini/v1beta/models/gemini-2.5-flash:generateContent";
        let reply = refused(&mut client, path, &[("x-goog-api-key", &key(OLD))], "{}").await;
        assert_eq!((reply.status(), &reply.json()["error"]["status"]), (401, &"UNAUTHENTICATED".into()));
        assert_eq!(system.provider.connections(), 0);
        assert_eq!(system.metric("bursar_requests_refused_total{reason=\"key_expired\"}"), 4);
        drop(client);
        assert!(system.records().await.is_empty(), "strangers write nothing into the ledger");
    });
}

#[test]
fn a_route_that_asks_for_a_key_is_closed_without_one_and_another_is_open() {
    with("", |system| async move {
        let mut client = system.client();
        for headers in [&[][..], &[("authorization", "Bearer sk-mine")], &[("x-bursar-team", "checkout")]] {
            for path in [CHAT_PATH, "/own/v1/chat/completions", "/openai/v1/models", "/openai/v1/files"] {
                let reply = refused(&mut client, path, headers, CHAT).await;
                assert_eq!(reply.status(), 401, "{path}");
                assert!(reply.text().contains("asks for a Bursar key"), "{}", reply.text());
            }
        }
        assert_eq!(system.provider.connections(), 0);
        system.provider.json(200, CHAT_REPLY);
        let headers = [("authorization", "Bearer sk-mine"), ("x-bursar-team", "guest")];
        client.post("/open/v1/chat/completions", &headers, CHAT).await;
        assert_eq!(client.reply().await.status(), 200);
        assert_eq!(system.provider.request().header("authorization"), Some("Bearer sk-mine"));
        drop(client);
        let record = system.record().await;
        assert_eq!(who(&record), ("guest", "", "", IdentitySource::None.min(IdentitySource::Header)));
    });
}

#[test]
fn beside_a_key_in_its_own_header_the_clients_provider_key_passes() {
    with("", |system| async move {
        system.provider.json(200, CHAT_REPLY);
        let mut client = system.client();
        let headers = [("authorization", "Bearer sk-mine"), ("x-bursar-key", &*key(BOT))];
        client.post("/own/v1/chat/completions", &headers, CHAT).await;
        assert_eq!(client.reply().await.status(), 200);
        let received = system.provider.request();
        assert_eq!(
            (received.header("authorization"), received.header("x-bursar-key")),
            (Some("Bearer sk-mine"), None)
        );
        // A key where the provider's would be is taken out and nothing takes its place.
        system.provider.json(401, "{}");
        client.post("/own/v1/chat/completions", &[("authorization", &bearer(BOT))], CHAT).await;
        assert_eq!(client.reply().await.status(), 401);
        assert_eq!(system.provider.received()[1].header("authorization"), None);
        assert!(!system.provider.has_seen(CANARY));
    });
}

#[test]
fn headers_that_contradict_a_key_are_dropped_and_marked_and_those_that_agree_or_refine_stay() {
    with("", |system| async move {
        let mut client = system.client();
        let bot = bearer(BOT);
        for header in [
            ("x-bursar-team", "rich"),
            ("x-bursar-workload", "other"),
            ("x-bursar-customer", "other"),
            ("x-bursar-tag-env", "dev"),
            ("baggage", "x-bursar-team=rich"),
            ("x-litellm-end-user-id", "other"),
        ] {
            assert_eq!(chat(&system, &mut client, &[("authorization", &bot), header]).await.status(), 200);
        }
        let agreeing = [
            ("authorization", bot.as_str()),
            ("x-bursar-team", "checkout"),
            ("x-bursar-session", "s"),
            ("x-bursar-tag-feature", "f"),
        ];
        assert_eq!(chat(&system, &mut client, &agreeing).await.status(), 200);
        let sales = bearer(SALES);
        let refining = [("authorization", sales.as_str()), ("x-bursar-workload", "crm")];
        assert_eq!(chat(&system, &mut client, &refining).await.status(), 200);
        drop(client);
        let records = system.records().await;
        for stored in &records[..6] {
            assert_eq!(who(&stored.record), ("checkout", "support-bot", "acme", IdentitySource::Credential));
            assert_eq!(stored.record.identity.tags.get("env").unwrap().as_str(), "prod");
            assert!(stored.record.anomalies.contains(Anomaly::IdentityContradicted));
        }
        assert!(records[6].record.anomalies.is_empty());
        assert_eq!(records[6].record.identity.tags.get("feature").unwrap().as_str(), "f");
        assert_eq!(who(&records[7].record), ("sales", "crm", "", IdentitySource::Header));
    });
}

#[test]
fn what_contradicts_a_key_is_refused_where_configured() {
    with("identity: { on_contradiction: refuse }\n", |system| async move {
        let mut client = system.client();
        let bot = bearer(BOT);
        let reply =
            refused(&mut client, CHAT_PATH, &[("authorization", &bot), ("x-bursar-team", "rich")], CHAT)
                .await;
        assert_eq!((reply.status(), &reply.json()["error"]["code"]), (403, &"identity_contradicted".into()));
        assert!(reply.text().contains("x-bursar-team contradicts the key \\\"bot\\\""), "{}", reply.text());
        assert!(!reply.text().contains("rich"));
        let id = RequestId::parse(reply.header("x-bursar-request-id").unwrap()).unwrap();
        assert_eq!(system.app.refusals.why(id).unwrap().json()["rule"], "bot");
        assert_eq!(chat(&system, &mut client, &[("authorization", &bot)]).await.status(), 200);
    });
}

#[test]
fn a_key_for_several_workloads_is_used_for_one_of_them() {
    with("", |system| async move {
        let mut client = system.client();
        let several = bearer(SEVERAL);
        for workload in [None, Some("c")] {
            let mut headers = vec![("authorization", several.as_str())];
            headers.extend(workload.map(|name| ("x-bursar-workload", name)));
            let reply = refused(&mut client, CHAT_PATH, &headers, CHAT).await;
            assert_eq!(reply.status(), 403, "{workload:?}");
            assert!(reply.text().contains("one of a, b"), "{}", reply.text());
        }
        let headers = [("authorization", several.as_str()), ("x-bursar-workload", "b")];
        assert_eq!(chat(&system, &mut client, &headers).await.status(), 200);
        drop(client);
        assert_eq!(who(&system.record().await), ("checkout", "b", "", IdentitySource::Header));
    });
}

#[test]
fn a_key_is_for_its_routes_and_models_and_a_refusal_names_it() {
    with("", |system| async move {
        let mut client = system.client();
        let narrow = bearer(NARROW);
        let dear = CHAT.replace("gpt-4o-mini", "gpt-4o");
        for (path, body, reason, words) in [
            (
                MESSAGES_PATH,
                MESSAGES,
                "route_not_allowed",
                "the key \\\"narrow\\\" is not for the route /anthropic",
            ),
            (
                CHAT_PATH,
                dear.as_str(),
                "model_not_allowed",
                "does not allow the model \\\\\\\"gpt-4o\\\\\\\"",
            ),
            (CHAT_PATH, r#"{"messages":[]}"#, "model_not_seen", "it names none"),
        ] {
            let reply = refused(&mut client, path, &[("authorization", &narrow)], body).await;
            assert_eq!(reply.status(), 403, "{reason}");
            let expected = words.replace("\\\\\\\"", "\\\"");
            assert!(reply.text().contains(&expected), "{}", reply.text());
            let id = RequestId::parse(reply.header("x-bursar-request-id").unwrap()).unwrap();
            let told = system.app.refusals.why(id).unwrap().json();
            assert_eq!((&told["reason"], &told["rule"]), (&reason.into(), &"narrow".into()));
        }
        assert_eq!(chat(&system, &mut client, &[("authorization", &narrow)]).await.status(), 200);
        drop(client);
        let records = system.records().await;
        let refused: Vec<_> =
            records.iter().filter(|stored| stored.record.outcome == Outcome::Refused).collect();
        assert_eq!((records.len(), refused.len()), (4, 3));
        assert!(refused.iter().all(|stored| stored.record.metering == Metering::Never));
    });
}

#[test]
fn a_budget_is_the_keys_whatever_its_headers_say() {
    let budget = "budgets:\n  - { name: b, scope: { team: checkout }, window: day, limit: 1 tokens }\n";
    with(budget, |system| async move {
        let mut client = system.client();
        let bot = bearer(BOT);
        for header in [("x-bursar-team", "sales"), ("baggage", "x-bursar-team=sales"), ("accept", "a")] {
            let reply = refused(&mut client, CHAT_PATH, &[("authorization", &bot), header], CHAT).await;
            assert_eq!((reply.status(), reply.header("x-bursar-budget")), (429, Some("b")));
        }
        let headers = [("authorization", &*bearer(SALES)), ("x-bursar-team", "checkout")];
        assert_eq!(chat(&system, &mut client, &headers).await.status(), 200);
    });
}

#[test]
fn a_key_in_the_wrong_place_is_refused_before_it_can_be_recorded_or_passed_on() {
    with("", |system| async move {
        let mut client = system.client();
        let key = key(BOT);
        let good = bearer(BOT);
        for (path, headers) in [
            (CHAT_PATH.to_owned(), vec![("authorization", good.as_str()), ("x-bursar-team", key.as_str())]),
            (CHAT_PATH.to_owned(), vec![("authorization", good.as_str()), ("user-agent", key.as_str())]),
            ("/open/v1/chat/completions".to_owned(), vec![("x-bursar-tag-key", key.as_str())]),
            (format!("{CHAT_PATH}?key={key}"), vec![]),
            (format!("/openai/v1/{key}"), vec![]),
        ] {
            let reply = refused(&mut client, &path, &headers, CHAT).await;
            assert_eq!(reply.status(), 400, "{headers:?}");
        }
        let two = [("authorization", good.as_str()), ("x-api-key", &*self::key(SALES))];
        assert_eq!(refused(&mut client, CHAT_PATH, &two, CHAT).await.status(), 401);
        assert_eq!(system.provider.connections(), 0);
    });
}

#[test]
fn no_secret_is_in_a_record_a_page_a_refusal_or_a_debug_print() {
    with("", |system| async move {
        let mut client = system.client();
        chat(&system, &mut client, &[("authorization", &bearer(BOT))]).await;
        let mut seen = Vec::new();
        for headers in
            [[("authorization", bearer(OLD))], [("x-bursar-tag-x", key(BOT))], [("cookie", key(BOT))]]
        {
            let headers: Vec<(&str, &str)> =
                headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let reply = refused(&mut client, CHAT_PATH, &headers, CHAT).await;
            let id = RequestId::parse(reply.header("x-bursar-request-id").unwrap()).unwrap();
            seen.push(system.app.refusals.why(id).unwrap().json().to_string());
        }
        seen.push(system.app.metrics.page(&system.app.ledger.stats()));
        seen.push(format!("{:?}", system.app));
        seen.extend(system.app.config().effective().iter().map(|one| format!("{one:?}")));
        seen.extend(system.app.config().routes.iter().map(|route| route.shown()));
        drop(client);
        let dir = system.close().await;
        for file in files_below(dir.path()) {
            seen.push(String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned());
        }
        let hash = hash(BOT);
        for text in seen {
            for canary in [CANARY, "provider-canary", &hash[3..]] {
                assert!(!text.contains(canary), "{text}");
            }
        }
    });
}

pub(crate) fn files_below(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn a_reload_takes_keys_back_and_gives_others() {
    with("", |system| async move {
        let mut client = system.client();
        let (bot, sales) = (bearer(BOT), bearer(SALES));
        assert_eq!(chat(&system, &mut client, &[("authorization", &bot)]).await.status(), 200);
        let item = format!("keys:\n  - {{ name: bot, id: '{SALES}', hash: '{}', team: new }}\n", hash(SALES));
        system.reload(None, &item).unwrap();
        assert_eq!(refused(&mut client, CHAT_PATH, &[("authorization", &bot)], CHAT).await.status(), 401);
        assert_eq!(chat(&system, &mut client, &[("authorization", &sales)]).await.status(), 200);
        let error = system.reload(None, &item.replace("b3:", "b4:")).unwrap_err();
        assert!(error.contains("is not a hash"), "{error}");
        assert_eq!(chat(&system, &mut client, &[("authorization", &sales)]).await.status(), 200);
        system.reload(None, "").unwrap();
        assert_eq!(chat(&system, &mut client, &[]).await.status(), 200, "without keys nobody needs one");
        drop(client);
        let records = system.records().await;
        let teams: Vec<&str> = records.iter().map(|stored| text(&stored.record.identity.team)).collect();
        assert_eq!(teams, ["checkout", "new", "new", ""]);
    });
}
