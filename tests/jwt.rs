//! Signed tokens as clients, issuers and providers meet them: whose they are, which are refused, what happens
//! while an issuer changes its keys or is gone, and that no token is seen anywhere again.

use crate::signers::{Signer, base64, jwks};
use crate::transcripts::{CHAT, CHAT_PATH, CHAT_REPLY, MESSAGES, MESSAGES_PATH, MESSAGES_REPLY};
use bursar::credentials::tokens::{Issuers, TokenCache};
use bursar_domain::{Anomaly, IdentitySource, Label, RequestId, Timestamp, UsageRecord};
use bursar_tests::system::START_MICROS;
use bursar_tests::{Client, Reply, Setup, Step, System, until};
use http::HeaderMap;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

const NOW: i64 = START_MICROS / 1_000_000;
const PROVIDER_KEY: &str = "sk-provider-canary-7f3a";

const ROUTES: &str = "
builtin_routes: false
routes:
  - { prefix: /openai, upstream: 'http://provider.test', provider: openai, auth: inject, secret_env: PROVIDER_KEY, allow_plaintext_upstream: true }
  - { prefix: /anthropic, upstream: 'http://provider.test', provider: anthropic, auth: inject, secret_env: PROVIDER_KEY, allow_plaintext_upstream: true }
  - { prefix: /gemini, upstream: 'http://provider.test', provider: gemini, auth: inject, secret_env: PROVIDER_KEY, allow_plaintext_upstream: true }
  - { prefix: /own, upstream: 'http://provider.test', provider: openai }
  - { prefix: /open, upstream: 'http://provider.test', provider: openai, require_key: false }
";

/// A cluster whose service accounts have tokens.
const CLUSTER: &str = "
    - name: cluster
      issuer: https://cluster.test
      audience: bursar
      jwks_url: https://issuer.test/jwks
      claims: { team: kubernetes.io.namespace, workload: /kubernetes.io/serviceaccount/name, tags: { pod: kubernetes.io.pod.name } }
";

static SIGNER: LazyLock<Signer> = LazyLock::new(|| Signer::ec("k1"));

fn settings(issuers: &str, more: &str) -> String {
    format!("identity:\n  jwt:{issuers}\n{more}")
}

fn setup(issuers: &str, more: &str) -> Setup {
    Setup {
        routes: ROUTES.to_owned(),
        env: vec![("PROVIDER_KEY".to_owned(), PROVIDER_KEY.to_owned())],
        ..Setup::new(&settings(issuers, more))
    }
}

/// Runs `test` against a sidecar that has read the cluster's keys.
fn with<Fut: Future<Output = ()>>(more: &str, test: impl FnOnce(System) -> Fut) {
    let setup = setup(CLUSTER, more);
    setup.issuer.json(200, &jwks(&[&SIGNER]));
    setup.run(async |system| {
        keys_are_read(&system).await;
        test(system).await;
    });
}

fn has_keys(system: &System) -> bool {
    let config = system.app.config();
    config.issuers.all().all(|issuer| issuer.keys().usable(Duration::MAX).is_some())
}

async fn keys_are_read(system: &System) {
    until("the keys are read", || has_keys(system)).await;
}

fn claims() -> Value {
    json!({
        "iss": "https://cluster.test", "aud": ["bursar", "other"], "sub": "system:serviceaccount:checkout:bot",
        "iat": NOW, "nbf": NOW, "exp": NOW + 3_600,
        "kubernetes.io": { "namespace": "checkout", "serviceaccount": { "name": "bot" }, "pod": { "name": "bot-1" } },
    })
}

fn but(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

async fn chat(system: &System, client: &mut Client, headers: &[(&str, &str)]) -> Reply {
    system.provider.json(200, CHAT_REPLY);
    client.post(CHAT_PATH, headers, CHAT).await;
    client.reply().await
}

/// The reply to a request that is refused, and the reason that metrics and `why` give.
async fn refused(system: &System, client: &mut Client, headers: &[(&str, &str)]) -> (Reply, String) {
    client.post(CHAT_PATH, headers, CHAT).await;
    let reply = client.reply().await;
    let id = RequestId::parse(reply.header("x-bursar-request-id").unwrap()).unwrap();
    let told = system.app.refusals.why(id).unwrap().json();
    (reply, told["reason"].as_str().unwrap().to_owned())
}

fn text(label: &Option<Label>) -> &str {
    label.as_ref().map_or("", Label::as_str)
}

fn who(record: &UsageRecord) -> (&str, &str, IdentitySource) {
    let identity = &record.identity;
    (text(&identity.team), text(&identity.workload), identity.source)
}

#[test]
fn a_token_says_who_pays_and_the_routes_own_secret_takes_its_place() {
    with("", |system| async move {
        let token = SIGNER.token(&claims());
        let mut client = system.client();
        let copy = ("x-forwarded-access-token", token.as_str());
        let headers = [("authorization", &*bearer(&token)), copy, ("accept", "application/json")];
        assert_eq!(chat(&system, &mut client, &headers).await.status(), 200);
        let received = system.provider.request();
        let sent = format!("Bearer {PROVIDER_KEY}");
        assert_eq!(received.header("authorization"), Some(sent.as_str()));
        assert_eq!(received.header("accept"), Some("application/json"));
        assert!(!system.provider.has_seen(&token));
        drop(client);
        let record = system.record().await;
        assert_eq!(who(&record), ("checkout", "bot", IdentitySource::Jwt));
        assert_eq!(record.identity.tags.get("pod").unwrap().as_str(), "bot-1");
        assert!(record.anomalies.is_empty());
    });
}

#[test]
fn every_way_of_presenting_a_token_works_and_none_reaches_the_provider() {
    with("", |system| async move {
        let token = SIGNER.token(&claims());
        let mut client = system.client();
        let gemini = "/gemini/v1beta/models/gemini-2.5-flash:generateContent";
        for (path, name, body, answer) in [
            (CHAT_PATH, "authorization", CHAT, CHAT_REPLY),
            (CHAT_PATH, "api-key", CHAT, CHAT_REPLY),
            (CHAT_PATH, "x-bursar-token", CHAT, CHAT_REPLY),
            (MESSAGES_PATH, "x-api-key", MESSAGES, MESSAGES_REPLY),
            (gemini, "x-goog-api-key", "{}", "{}"),
        ] {
            for value in [token.clone(), bearer(&token), format!("bearer  {token} ")] {
                system.provider.json(200, answer);
                client.post(path, &[(name, &value)], body).await;
                assert_eq!(client.reply().await.status(), 200, "{name}");
            }
        }
        assert!(!system.provider.has_seen(&token) && !system.provider.has_seen("bursar"));
        drop(client);
        let records = system.records().await;
        assert_eq!(records.len(), 15);
        for stored in records {
            assert_eq!(who(&stored.record), ("checkout", "bot", IdentitySource::Jwt));
        }
    });
}

#[test]
fn beside_a_token_in_its_own_header_the_clients_provider_key_passes() {
    with("", |system| async move {
        let token = SIGNER.token(&claims());
        system.provider.json(200, CHAT_REPLY);
        let mut client = system.client();
        // A token of an issuer that is none of ours is the provider's business.
        let theirs = bearer(&SIGNER.token(&but("iss", json!("https://sts.test"))));
        let headers = [("authorization", theirs.as_str()), ("x-bursar-token", token.as_str())];
        client.post("/own/v1/chat/completions", &headers, CHAT).await;
        assert_eq!(client.reply().await.status(), 200);
        let received = system.provider.request();
        assert_eq!(received.header("authorization"), Some(theirs.as_str()));
        assert_eq!(received.header("x-bursar-token"), None);
        system.provider.json(200, CHAT_REPLY);
        client.post("/open/v1/chat/completions", &[("authorization", &theirs)], CHAT).await;
        assert_eq!(client.reply().await.status(), 200);
        drop(client);
        let records = system.records().await;
        assert_eq!(who(&records[0].record).0, "checkout");
        assert_eq!(who(&records[1].record), ("", "", IdentitySource::None));
    });
}

#[test]
fn a_websocket_takes_tokens_as_header_and_as_subprotocol() {
    const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    with("", |system| async move {
        let token = SIGNER.token(&claims());
        let bearer = bearer(&token);
        let protocols = format!("realtime, openai-insecure-api-key.{token}");
        for (name, value) in
            [("authorization", bearer.as_str()), ("sec-websocket-protocol", protocols.as_str())]
        {
            system.provider.script([Step::Send(SWITCHING.as_bytes().to_vec())]);
            let mut client = system.client();
            let handshake = [
                ("connection", "Upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ("sec-websocket-version", "13"),
                (name, value),
            ];
            client.ask("GET", "/openai/v1/realtime?model=gpt-realtime", &handshake).await;
            let head = client.head().await.unwrap();
            assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        }
        assert!(!system.provider.has_seen(&token));
        for stored in system.records().await {
            assert_eq!(who(&stored.record), ("checkout", "bot", IdentitySource::Jwt));
        }
    });
}

/// What a text says that looks like a token: another head and payload before a signature.
fn forged(head: &Value, claims: &Value, signature: &str) -> String {
    let part = |value: &Value| base64(value.to_string().as_bytes());
    format!("{}.{}.{signature}", part(head), part(claims))
}

#[test]
fn bad_tokens_are_refused_with_their_reason_and_reach_nobody() {
    let good = SIGNER.token(&claims());
    let (head, rest) = good.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    let impostor = Signer::ec("k1");
    let ec = json!({ "alg": "ES256", "kid": "k1" });
    let shared = |secret: &[u8]| {
        let header = Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(secret)).unwrap()
    };
    let with_head = |change: fn(&mut Header)| {
        let mut header = SIGNER.header();
        change(&mut header);
        SIGNER.token_with(&header, &claims())
    };
    let own_key = {
        let header = Header {
            jwk: Some(serde_json::from_value(impostor.jwk()).unwrap()),
            jku: Some("https://evil.test".to_owned()),
            ..impostor.header()
        };
        impostor.token_with(&header, &claims())
    };
    let cases = [
        (forged(&json!({ "alg": "none" }), &claims(), ""), "token_algorithm"),
        (forged(&json!({ "alg": "None", "kid": "k1" }), &claims(), signature), "token_algorithm"),
        (forged(&json!({ "alg": "" }), &claims(), ""), "token_algorithm"),
        (shared(SIGNER.pem().as_bytes()), "token_algorithm"),
        (shared(SIGNER.jwk().to_string().as_bytes()), "token_algorithm"),
        (shared(b""), "token_algorithm"),
        (with_head(|header| header.crit = Some(vec!["exp".to_owned()])), "token_algorithm"),
        (with_head(|header| header.typ = Some("logout+jwt".to_owned())), "token_algorithm"),
        (with_head(|header| header.kid = Some("k2".to_owned())), "token_key_unknown"),
        (Signer::ed("k1").token(&claims()), "token_key_unknown"),
        (impostor.token(&claims()), "token_signature"),
        (own_key, "token_signature"),
        (forged(&ec, &but("kubernetes.io", json!({ "namespace": "rich" })), signature), "token_signature"),
        (good[..good.len() - 4].to_owned(), "token_signature"),
        (format!("{good}AAAA"), "token_signature"),
        (format!("{head}.{rest}.{rest}"), "token_malformed"),
        (good[..good.rfind('.').unwrap()].to_owned(), "token_malformed"),
        (SIGNER.token(&but("exp", json!(NOW - 31))), "token_expired"),
        (SIGNER.token(&but("nbf", json!(NOW + 60))), "token_not_yet_valid"),
        (SIGNER.token(&but("iat", json!(NOW + 60))), "token_not_yet_valid"),
        (SIGNER.token(&but("aud", json!("other"))), "token_audience"),
        (SIGNER.token(&but("aud", json!(["other", "bursa"]))), "token_audience"),
        (SIGNER.token(&without("aud")), "token_claim_missing"),
        (SIGNER.token(&without("exp")), "token_claim_missing"),
        (SIGNER.token(&but("exp", json!("2099-01-01"))), "token_claim_missing"),
        (SIGNER.token(&without("kubernetes.io")), "token_claim_missing"),
        (SIGNER.token(&but("kubernetes.io", json!({ "namespace": ["a", "b"] }))), "token_claim_missing"),
        (SIGNER.token(&but("kubernetes.io", json!({ "namespace": "a\nb" }))), "token_claim_missing"),
        (SIGNER.token(&but("iss", json!("https://cluster.test/"))), "token_issuer_unknown"),
        (SIGNER.token(&but("iss", json!(["https://cluster.test"]))), "token_issuer_unknown"),
        (SIGNER.token(&without("iss")), "token_issuer_unknown"),
        (good[..good.len() / 2].to_owned(), "token_malformed"),
        ("eyJ.eyJ.eyJ".to_owned(), "token_malformed"),
        ("hello".to_owned(), "token_malformed"),
        ("".to_owned(), "token_malformed"),
        (format!("{good} {good}"), "token_malformed"),
    ];
    with("", |system| async move {
        // Another key under an unknown name asks for the keys once more.
        system.issuer.json(200, &jwks(&[&SIGNER]));
        let mut client = system.client();
        for (token, expected) in &cases {
            let (reply, reason) = refused(&system, &mut client, &[("x-bursar-token", token)]).await;
            assert_eq!((reply.status(), reason.as_str()), (401, *expected), "{token}: {}", reply.text());
            assert_eq!(reply.json()["error"]["code"], "invalid_api_key");
            assert!(reply.header("www-authenticate").is_some());
            assert!(token.is_empty() || token == "hello" || !reply.text().contains(token.as_str()));
            let sample = format!("bursar_requests_refused_total{{reason=\"{expected}\"}}");
            assert!(system.metric(&sample) > 0, "{sample}");
            // Where providers' credentials stand, ours are refused and others' are not ours to judge.
            let (reply, reason) = refused(&system, &mut client, &[("authorization", &bearer(token))]).await;
            let theirs = ["token_issuer_unknown", "token_malformed"].contains(expected);
            let is_right = reason == *expected || theirs && reason == "key_missing";
            assert!(reply.status() == 401 && is_right, "{token}: {reason}");
        }
        assert_eq!(system.provider.connections(), 0);
        assert_eq!(chat(&system, &mut client, &[("x-bursar-token", &good)]).await.status(), 200);
    });
}

#[test]
fn a_token_that_is_ours_and_bad_is_refused_where_none_is_needed() {
    with("", |system| async move {
        let mut client = system.client();
        let expired = bearer(&SIGNER.token(&but("exp", json!(NOW - 60))));
        client.post("/open/v1/chat/completions", &[("authorization", &expired)], CHAT).await;
        assert_eq!(client.reply().await.status(), 401);
        assert_eq!(system.provider.connections(), 0);
    });
}

#[test]
fn two_credentials_are_one_too_many_and_the_same_one_twice_is_one() {
    let key = "bursar_00000000000000b1_c0ffee11c0ffee22c0ffee33c0ffee44c0ffee55c0ffee66c0ffee77c0ffee88";
    let hash = bursar::credentials::keys::PresentedKey::parse(key.as_bytes()).unwrap();
    let hash = hash.hash(&bursar::credentials::keys::Pepper::default());
    let keys = format!("keys: [ {{ name: bot, id: 00000000000000b1, hash: '{hash}', team: sales }} ]\n");
    with(&keys, |system| async move {
        let mut client = system.client();
        let (one, two) = (SIGNER.token(&claims()), SIGNER.token(&but("jti", json!("2"))));
        let one_bearer = bearer(&one);
        for headers in [
            [("authorization", one_bearer.as_str()), ("x-bursar-token", two.as_str())],
            [("api-key", one.as_str()), ("x-bursar-token", two.as_str())],
            [("x-bursar-key", key), ("x-bursar-token", one.as_str())],
        ] {
            let (reply, reason) = refused(&system, &mut client, &headers).await;
            assert_eq!((reply.status(), reason.as_str()), (401, "tokens_differ"), "{headers:?}");
        }
        // A header of ours that is there twice is refused before anything reads it.
        let twice = [("x-bursar-token", one.as_str()), ("x-bursar-token", two.as_str())];
        client.post(CHAT_PATH, &twice, CHAT).await;
        assert_eq!(client.reply().await.status(), 400);
        let mut client = system.client();
        let path = format!("{CHAT_PATH}?token={one}");
        client.post(&path, &[("x-bursar-token", &one)], CHAT).await;
        assert_eq!(client.reply().await.status(), 400);
        let twice = [("authorization", one_bearer.as_str()), ("x-bursar-token", one.as_str())];
        assert_eq!(chat(&system, &mut client, &twice).await.status(), 200);
        assert_eq!(chat(&system, &mut client, &[("x-bursar-key", key)]).await.status(), 200);
        drop(client);
        let records = system.records().await;
        let teams: Vec<&str> = records.iter().map(|stored| text(&stored.record.identity.team)).collect();
        assert_eq!(teams, ["checkout", "sales"]);
    });
}

#[test]
fn a_head_that_is_too_long_is_refused_before_anything_reads_it() {
    let large = "server: { limits: { head_bytes: 256KiB } }\n";
    for (settings, status) in [("", 431), (large, 401)] {
        with(settings, |system| async move {
            let mut client = system.client();
            let token = SIGNER.token(&but("pad", json!("x".repeat(75 * 1024))));
            assert!(token.len() > 100 * 1024);
            client.post(CHAT_PATH, &[("authorization", &bearer(&token))], CHAT).await;
            let reply = client.reply().await;
            assert_eq!(reply.status(), status);
            assert!(reply.text().len() < 1_000);
            assert_eq!(system.provider.connections(), 0);
        });
    }
}

#[test]
fn headers_that_contradict_a_token_cannot_spoof_a_budget() {
    let budget = "budgets:\n  - { name: b, scope: { team: checkout }, window: day, limit: 1 tokens }\n";
    with(budget, |system| async move {
        let mut client = system.client();
        let poor = bearer(&SIGNER.token(&claims()));
        let rich = but("kubernetes.io", json!({ "namespace": "sales", "serviceaccount": { "name": "crm" } }));
        let rich = bearer(&SIGNER.token(&rich));
        for header in [
            ("x-bursar-team", "sales"),
            ("baggage", "x-bursar-team=sales"),
            ("x-litellm-tags", "team:sales"),
            ("accept", "a"),
        ] {
            client.post(CHAT_PATH, &[("authorization", &poor), header], CHAT).await;
            let reply = client.reply().await;
            assert_eq!((reply.status(), reply.header("x-bursar-budget")), (429, Some("b")));
        }
        let headers =
            [("authorization", rich.as_str()), ("x-bursar-team", "checkout"), ("x-bursar-workload", "bot")];
        assert_eq!(chat(&system, &mut client, &headers).await.status(), 200);
        drop(client);
        let records = system.records().await;
        let last = &records.last().unwrap().record;
        assert_eq!(who(last), ("sales", "crm", IdentitySource::Jwt));
        assert!(last.anomalies.contains(Anomaly::IdentityContradicted));
    });
    let refuse = CLUSTER.to_owned() + "  on_contradiction: refuse";
    let setup = setup(&refuse, "");
    setup.issuer.json(200, &jwks(&[&SIGNER]));
    setup.run(async |system| {
        keys_are_read(&system).await;
        let token = bearer(&SIGNER.token(&claims()));
        let headers = [("authorization", token.as_str()), ("x-bursar-team", "rich")];
        let (reply, reason) = refused(&system, &mut system.client(), &headers).await;
        assert_eq!((reply.status(), reason.as_str()), (403, "identity_contradicted"));
        assert!(reply.text().contains("contradicts the token of \\\"cluster\\\""), "{}", reply.text());
    });
}

#[test]
fn scopes_required_claims_and_grants_hold() {
    let item = "
    - name: ci
      issuer: https://cluster.test
      audience: bursar
      jwks_url: https://issuer.test/jwks
      scopes: [llm.use]
      max_age: 10m
      require: { repository_owner: [acme, acme-labs], '/deep/er': 'true' }
      team: ci
      customer: internal
      tags: { env: ci }
      models: ['gpt-4o-mini*']
      routes: [/openai]
";
    let setup = setup(item, "");
    setup.issuer.json(200, &jwks(&[&SIGNER]));
    setup.run(async |system| {
        keys_are_read(&system).await;
        let mut client = system.client();
        let mut good = but("repository_owner", json!("acme-labs"));
        (good["scope"], good["deep"]) = (json!("a llm.use"), json!({ "er": true }));
        let with = |name: &str, value: Value| {
            let mut claims = good.clone();
            claims[name] = value;
            bearer(&SIGNER.token(&claims))
        };
        for (token, status, expected) in [
            (with("scope", json!("llm.user")), 403, "token_scope"),
            (with("repository_owner", json!("evil")), 401, "token_claim_refused"),
            (with("repository_owner", json!(null)), 401, "token_claim_refused"),
            (with("deep", json!({})), 401, "token_claim_missing"),
            (with("iat", json!(NOW - 631)), 401, "token_too_old"),
            (with("iat", json!("soon")), 401, "token_claim_missing"),
        ] {
            let (reply, reason) = refused(&system, &mut client, &[("authorization", &token)]).await;
            assert_eq!((reply.status(), reason.as_str()), (status, expected), "{}", reply.text());
            assert!(!reply.text().contains("acme"), "what would do is not told: {}", reply.text());
        }
        let token = with("x", json!(1));
        client.post(CHAT_PATH, &[("authorization", &token)], &CHAT.replace("gpt-4o-mini", "gpt-4o")).await;
        let reply = client.reply().await;
        assert_eq!(reply.status(), 403);
        assert!(
            reply.text().contains("the token of \\\"ci\\\" does not allow the model"),
            "{}",
            reply.text()
        );
        client.post(MESSAGES_PATH, &[("authorization", &token)], MESSAGES).await;
        assert_eq!(client.reply().await.status(), 403);
        assert_eq!(chat(&system, &mut client, &[("authorization", &token)]).await.status(), 200);
        drop(client);
        let records = system.records().await;
        let identity = &records.last().unwrap().record.identity;
        assert_eq!((text(&identity.team), text(&identity.customer)), ("ci", "internal"));
        assert_eq!(identity.source, IdentitySource::Jwt);
    });
}

#[test]
fn one_issuer_may_stand_for_several_teams_and_each_token_finds_its_own() {
    let item = |name: &str, more: &str| {
        format!(
            "\n    - {{ name: {name}, issuer: 'https://cluster.test', jwks_url: 'https://issuer.test/jwks', team: {name}, {more} }}"
        )
    };
    let items = item("one", "audience: one")
        + &item("two", "audience: two, require: { env: prod }")
        + &item("three", "audience: two")
        + &item("own", "audience: own, header: x-own-token");
    let setup = setup(&items, "");
    for _ in 0..4 {
        setup.issuer.json(200, &jwks(&[&SIGNER]));
    }
    setup.run(async |system| {
        keys_are_read(&system).await;
        let mut client = system.client();
        for (audience, env, header) in [
            ("one", "", "authorization"),
            ("two", "prod", "authorization"),
            ("two", "dev", "authorization"),
            ("own", "", "x-own-token"),
        ] {
            let mut claims = but("aud", json!(audience));
            claims["env"] = json!(env);
            assert_eq!(
                chat(&system, &mut client, &[(header, &bearer(&SIGNER.token(&claims)))]).await.status(),
                200
            );
        }
        let own = bearer(&SIGNER.token(&but("aud", json!("own"))));
        let (_, reason) = refused(&system, &mut client, &[("authorization", &own)]).await;
        assert_eq!(reason, "token_audience", "it is read in its own header only");
        let (_, reason) = refused(&system, &mut client, &[("x-own-token", "sk-other")]).await;
        assert_eq!(reason, "token_malformed");
        drop(client);
        let records = system.records().await;
        let teams: Vec<&str> = records.iter().map(|stored| text(&stored.record.identity.team)).collect();
        assert_eq!(teams, ["one", "two", "three", "own"]);
    });
}

#[test]
fn an_unknown_key_asks_for_new_keys_in_the_background_and_seldom() {
    with("", |system| async move {
        let next = Signer::ec("k2");
        let (old, new) = (bearer(&SIGNER.token(&claims())), bearer(&next.token(&claims())));
        let mut client = system.client();
        assert_eq!(chat(&system, &mut client, &[("authorization", &old)]).await.status(), 200);
        tokio::time::sleep(Duration::from_secs(31)).await;
        // The issuer publishes both; then the new one only.
        system.issuer.json(200, &jwks(&[&SIGNER, &next]));
        for _ in 0..50 {
            let (reply, reason) = refused(&system, &mut client, &[("authorization", &new)]).await;
            assert_eq!((reply.status(), reason.as_str()), (401, "token_key_unknown"));
        }
        assert_eq!(system.issuer.connections(), 1, "nobody waited for them");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(system.issuer.connections(), 2);
        assert_eq!(chat(&system, &mut client, &[("authorization", &new)]).await.status(), 200);
        assert_eq!(chat(&system, &mut client, &[("authorization", &old)]).await.status(), 200);
        let third = bearer(&Signer::ec("k3").token(&claims()));
        for _ in 0..50 {
            refused(&system, &mut client, &[("authorization", &third)]).await;
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(system.issuer.connections(), 2, "it is asked at most every half a minute");
        system.issuer.json(200, &jwks(&[&next]));
        tokio::time::sleep(Duration::from_secs(12)).await;
        assert_eq!(system.issuer.connections(), 3);
        let (_, reason) = refused(&system, &mut client, &[("authorization", &old)]).await;
        assert_eq!(reason, "token_key_unknown", "a token that was verified before falls with its key");
        assert_eq!(chat(&system, &mut client, &[("authorization", &new)]).await.status(), 200);
        let page = system.app.config().issuers.metrics();
        assert!(page.contains("bursar_jwks_fetches_total{issuer=\"cluster\"} 3\n"), "{page}");
        assert!(page.contains("bursar_jwks_fetch_failures_total{issuer=\"cluster\"} 0\n"), "{page}");
    });
}

#[test]
fn keys_of_an_issuer_that_is_gone_are_used_up_to_their_limit() {
    let item = CLUSTER.trim_end().to_owned() + "\n      refresh: 1m\n      stale: 10m\n";
    let setup = setup(&item, "");
    setup.issuer.json(200, &jwks(&[&SIGNER]));
    setup.run(async |system| {
        keys_are_read(&system).await;
        system.issuer.refuse();
        let token = bearer(&SIGNER.token(&claims()));
        tokio::time::sleep(Duration::from_secs(590)).await;
        assert_eq!(chat(&system, &mut system.client(), &[("authorization", &token)]).await.status(), 200);
        assert!(
            system
                .app
                .config()
                .issuers
                .metrics()
                .contains("bursar_jwks_age_seconds{issuer=\"cluster\"} 590\n")
        );
        tokio::time::sleep(Duration::from_secs(20)).await;
        let (reply, reason) = refused(&system, &mut system.client(), &[("authorization", &token)]).await;
        assert_eq!((reply.status(), reason.as_str()), (503, "token_keys_unavailable"), "{}", reply.text());
        assert_eq!(reply.header("retry-after"), Some("5"));
        assert_eq!(reply.json()["error"]["code"], "token_keys_unavailable");
        // An open route does not take whoever cannot be checked for nobody.
        let mut client = system.client();
        client.post("/open/v1/chat/completions", &[("authorization", &token)], CHAT).await;
        assert_eq!(client.reply().await.status(), 503);
    });
}

#[test]
fn an_issuer_that_hangs_or_answers_nonsense_holds_up_nobody() {
    let other = Signer::ed("e1");
    let dir = tempfile::tempdir().unwrap();
    let pem = dir.path().join("key.pem");
    std::fs::write(&pem, other.pem()).unwrap();
    let fixed = format!(
        "    - {{ name: fixed, issuer: 'https://fixed.test', audience: bursar, public_key_file: '{}', team: fixed }}",
        pem.display()
    );
    let setup = setup(&(CLUSTER.to_owned() + &fixed), "");
    setup.issuer.script([Step::Stall]);
    setup.issuer.reply(302, &[("location", "https://issuer.test/elsewhere")], b"");
    setup.issuer.json(200, "<html>");
    setup.issuer.json(200, &"[".repeat(70 * 1024));
    setup.issuer.json(500, &jwks(&[&SIGNER]));
    setup.issuer.json(200, &jwks(&[&SIGNER]));
    setup.run(async |system| {
        let token = bearer(&SIGNER.token(&claims()));
        let mut client = system.client();
        let begun = tokio::time::Instant::now();
        let (reply, _) = refused(&system, &mut client, &[("authorization", &token)]).await;
        assert_eq!(reply.status(), 503);
        let theirs = bearer(&other.token(&but("iss", json!("https://fixed.test"))));
        assert_eq!(chat(&system, &mut client, &[("authorization", &theirs)]).await.status(), 200);
        assert!(begun.elapsed() < Duration::from_secs(1), "nobody waits for the issuer");
        drop(client);
        tokio::time::sleep(Duration::from_secs(45)).await;
        let page = system.app.config().issuers.metrics();
        assert!(page.contains("bursar_jwks_fetch_failures_total{issuer=\"cluster\"} 5\n"), "{page}");
        let paths: Vec<String> =
            system.issuer.received().iter().map(|request| request.line().to_owned()).collect();
        assert_eq!(paths, vec!["GET /jwks HTTP/1.1"; 6], "redirects are not followed");
        assert_eq!(chat(&system, &mut system.client(), &[("authorization", &token)]).await.status(), 200);
    });
}

#[test]
fn the_issuer_is_shown_its_own_token_as_it_is_in_its_file_then() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "first\n").unwrap();
    let item =
        format!("{}\n      token_file: '{}'\n      refresh: 30s\n", CLUSTER.trim_end(), file.display());
    let setup = setup(&item, "");
    setup.issuer.json(200, &jwks(&[&SIGNER]));
    setup.issuer.json(200, &jwks(&[&SIGNER]));
    setup.run(async |system| {
        keys_are_read(&system).await;
        std::fs::write(&file, "second").unwrap();
        tokio::time::sleep(Duration::from_secs(32)).await;
        let received = system.issuer.received();
        let shown: Vec<_> = received.iter().map(|request| request.header("authorization").unwrap()).collect();
        assert_eq!(shown, ["Bearer first", "Bearer second"]);
        assert_eq!(received[0].header("host"), Some("issuer.test"));
    });
}

#[test]
fn every_algorithm_works_from_a_set_and_from_pem() {
    let signers = [
        Signer::rsa("rs", Algorithm::RS256),
        Signer::rsa("rs", Algorithm::RS512),
        Signer::rsa("rs", Algorithm::PS256),
        Signer::ec("es"),
        Signer::ec384("es384"),
        Signer::ed("ed"),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (number, signer) in signers.iter().enumerate() {
        for (key, text) in [("jwks_file", jwks(&[signer])), ("public_key_file", signer.pem())] {
            let file = dir.path().join(format!("{number}-{key}"));
            std::fs::write(&file, text).unwrap();
            let item = CLUSTER
                .replace("jwks_url: https://issuer.test/jwks", &format!("{key}: '{}'", file.display()));
            let issuers = issuers(&item);
            let mut cache = TokenCache::default();
            let found = hold(&issuers, &signer.token(&claims()), &mut cache);
            assert_eq!(found.unwrap().credential.team.as_str(), "checkout", "{number} {key}");
            let forged = Signer::ec("es").token(&claims());
            assert!(hold(&issuers, &forged, &mut cache).is_err());
        }
    }
}

fn issuers(item: &str) -> Arc<Issuers> {
    Arc::clone(&setup(item, "").config().unwrap_or_else(|errors| panic!("{errors}")).issuers)
}

fn hold(
    issuers: &Arc<Issuers>,
    token: &str,
    cache: &mut TokenCache,
) -> Result<bursar::credentials::tokens::Held, String> {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", bearer(token).parse().unwrap());
    let now = Timestamp::from_micros(START_MICROS);
    let found = issuers.verify(&headers, &"/v1".parse().unwrap(), cache, now);
    Ok(found.map_err(|error| error.to_string())?.expect("a token of ours"))
}

#[test]
fn verified_tokens_are_remembered_and_no_more_than_some() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    std::fs::write(&file, jwks(&[&SIGNER])).unwrap();
    let item =
        CLUSTER.replace("jwks_url: https://issuer.test/jwks", &format!("jwks_file: '{}'", file.display()));
    let issuers = issuers(&item);
    let mut cache = TokenCache::default();
    let token = SIGNER.token(&claims());
    let first = hold(&issuers, &token, &mut cache).unwrap();
    assert!(Arc::ptr_eq(&first.credential, &hold(&issuers, &token, &mut cache).unwrap().credential));
    assert_eq!(cache.len(), 1);
    let tampered = format!("{}A", &token[..token.len() - 1]);
    if tampered != token {
        assert!(hold(&issuers, &tampered, &mut cache).is_err());
    }
    assert_eq!(cache.len(), 1, "what does not hold is not remembered");
    for number in 0..1_100 {
        hold(&issuers, &SIGNER.token(&but("jti", json!(number))), &mut cache).unwrap();
        assert!(cache.len() <= 1_024);
    }
    let other = Arc::new(Issuers::clone(&issuers));
    assert!(!Arc::ptr_eq(&first.credential, &hold(&other, &token, &mut cache).unwrap().credential));
    assert_eq!(cache.len(), 1, "other settings begin anew");
    assert!(!format!("{first:?}{cache:?}{issuers:?}").contains(&token[..20]));
}

#[test]
fn a_token_ends_when_it_says_so_though_it_is_remembered() {
    with("", |system| async move {
        let mut client = system.client();
        let token = bearer(&SIGNER.token(&claims()));
        assert_eq!(chat(&system, &mut client, &[("authorization", &token)]).await.status(), 200);
        system.clock.advance(3_629_000_000);
        assert_eq!(chat(&system, &mut client, &[("authorization", &token)]).await.status(), 200);
        system.clock.advance(1_000_000);
        let (_, reason) = refused(&system, &mut client, &[("authorization", &token)]).await;
        assert_eq!(reason, "token_expired");
    });
}

#[test]
fn a_reload_keeps_the_keys_and_takes_issuers_away() {
    with("", |system| async move {
        system.issuer.refuse();
        let mut client = system.client();
        let token = bearer(&SIGNER.token(&claims()));
        let headers = [("authorization", token.as_str())];
        system.reload(None, &settings(&CLUSTER.replace("name: cluster", "name: renamed"), "")).unwrap();
        assert_eq!(chat(&system, &mut client, &headers).await.status(), 200, "its keys are there still");
        let error = system.reload(None, &settings(&CLUSTER.replace("https://issuer", "http://issuer"), ""));
        assert!(error.unwrap_err().contains("is not over TLS"));
        assert_eq!(chat(&system, &mut client, &headers).await.status(), 200);
        system.reload(None, &settings(&CLUSTER.replace("audience: bursar", "audience: new"), "")).unwrap();
        assert_eq!(refused(&system, &mut client, &headers).await.1, "token_audience");
        system.reload(None, &settings(&CLUSTER.replace("/jwks", "/other"), "")).unwrap();
        assert_eq!(refused(&system, &mut client, &headers).await.1, "token_keys_unavailable");
        system.reload(None, "").unwrap();
        assert_eq!(chat(&system, &mut client, &headers).await.status(), 200, "without issuers nobody looks");
    });
}

#[test]
fn without_a_token_a_route_that_asks_for_one_says_how_to_send_it() {
    with("", |system| async move {
        let (reply, reason) =
            refused(&system, &mut system.client(), &[("authorization", "Bearer sk-x")]).await;
        assert_eq!((reply.status(), reason.as_str()), (401, "key_missing"));
        assert!(
            reply.text().contains("or a token") && reply.text().contains("x-bursar-token"),
            "{}",
            reply.text()
        );
    });
}

#[test]
fn no_part_of_a_token_is_in_a_record_a_page_a_refusal_or_a_debug_print() {
    with("", |system| async move {
        let mut client = system.client();
        let (good, bad) = (SIGNER.token(&claims()), SIGNER.token(&but("aud", json!("canary-audience"))));
        chat(&system, &mut client, &[("authorization", &bearer(&good))]).await;
        let mut seen = Vec::new();
        for headers in [[("authorization", bearer(&bad))], [("x-bursar-token", good[..200].to_owned())]] {
            let headers: Vec<(&str, &str)> =
                headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let (reply, _) = refused(&system, &mut client, &headers).await;
            let id = RequestId::parse(reply.header("x-bursar-request-id").unwrap()).unwrap();
            seen.push(system.app.refusals.why(id).unwrap().json().to_string());
            seen.push(format!("{}{}", reply.head, reply.text()));
        }
        seen.push(
            system.app.metrics.page_with(&system.app.ledger.stats(), &system.app.config().issuers.metrics()),
        );
        seen.push(format!("{:?}", system.app));
        seen.extend(system.app.config().effective().iter().map(|one| format!("{one:?}")));
        drop(client);
        let dir = system.close().await;
        for file in crate::keys::files_below(dir.path()) {
            seen.push(String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned());
        }
        let parts: Vec<&str> = good.split('.').chain(bad.split('.')).map(|part| &part[..20]).collect();
        for text in seen {
            for part in parts.iter().chain(&["canary-audience"]) {
                assert!(!text.contains(part), "{part} is in {text}");
            }
        }
    });
}
