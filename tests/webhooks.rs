//! Events of budgets: who is told what, when, how often, and signed how.
//!
//! Not here: addresses that may be called (`upstream::address`), the whole binary (`proxy/tests/webhooks.rs`).

use crate::contract_budgets::{commitment, enter};
use crate::transcripts::CHAT_PATH;
use aws_lc_rs::digest::{SHA256, digest};
use bursar::upstream::Connector;
use bursar::webhooks::{self, FILE};
use bursar_domain::FactKind;
use bursar_tests::{Client, Provider, Received, Setup, Step, System};
use serde_json::Value;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const ASK: &str = r#"{"model":"gpt-4o-mini","max_tokens":100,"messages":[{"role":"user","content":"hi"}]}"#;
/// Five tokens in, three out.
const REPLY: &str = r#"{"id":"c","object":"chat.completion","model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}"#;
const BOUND: i128 = ASK.len() as i128 + 100;
const HOUR: i64 = 3_600_000_000;
/// The bytes 0, 1, … 23.
const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

const HOOK: &str =
    "webhooks:\n  - { name: hook, url: 'https://hooks.test/in/canary?key=canary', secret_env: HOOK }\n";

fn setup(settings: &str) -> Setup {
    Setup { env: vec![("HOOK".to_owned(), SECRET.to_owned())], ..Setup::new(settings) }
}

/// Receivers, and the part of the sidecar that tells them.
struct Told {
    receiver: Provider,
    /// Who was called.
    called: Rc<RefCell<Vec<String>>>,
    end: watch::Sender<bool>,
    task: JoinHandle<()>,
    dir: tempfile::TempDir,
}

impl Told {
    fn start(system: &System) -> Self {
        Self::start_in(system, tempfile::tempdir().unwrap(), Provider::default())
    }

    fn start_in(system: &System, dir: tempfile::TempDir, receiver: Provider) -> Self {
        let called = Rc::new(RefCell::new(Vec::new()));
        let (to, names) = (receiver.clone(), Rc::clone(&called));
        let connector = Connector::Memory(Rc::new(move |origin| {
            names.borrow_mut().push(origin.authority.to_string());
            to.connect()
        }));
        let (end, ends) = watch::channel(false);
        let app = std::sync::Arc::clone(&system.app);
        let task = tokio::task::spawn_local(webhooks::run(app, connector, dir.path().join(FILE), ends));
        Self { receiver, called, end, task, dir }
    }

    /// Ends, and starts again as after a restart.
    async fn restart(self, system: &System) -> Self {
        let receiver = self.receiver.clone();
        Self::start_in(system, self.stop().await, receiver)
    }

    async fn stop(self) -> tempfile::TempDir {
        self.end.send_replace(true);
        self.task.await.unwrap();
        self.dir
    }

    /// What arrived, after some rounds.
    async fn received(&self) -> Vec<Received> {
        rounds().await;
        self.receiver.received()
    }

    /// The share that each event is about.
    async fn shares(&self) -> Vec<u64> {
        let told = self.received().await;
        told.iter().map(|one| one.json()["data"]["threshold_percent"].as_u64().unwrap()).collect()
    }
}

/// Time for budgets to be looked at, and for what is due.
async fn rounds() {
    tokio::time::sleep(Duration::from_secs(3)).await;
}

async fn post(system: &System, client: &mut Client) -> u16 {
    client.post(CHAT_PATH, &[("x-bursar-team", "a")], ASK).await;
    let status = client.reply().await.status();
    system.settled().await;
    status
}

/// Spends eight tokens.
async fn spend(system: &System, client: &mut Client) {
    system.provider.json(200, REPLY);
    assert_eq!(post(system, client).await, 200);
}

fn metric(system: &System, result: &str) -> String {
    let page = system.app.webhooks.metrics();
    let sample = format!("bursar_webhook_deliveries_total{{result=\"{result}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&sample)).unwrap().to_owned()
}

// === the signature, computed by the definitions of HMAC (RFC 2104) and base64 (RFC 4648)

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    assert!(key.len() <= 64, "longer ones are hashed first");
    let padded = |with: u8| {
        let mut block = [with; 64];
        key.iter().zip(&mut block).for_each(|(byte, place)| *place ^= byte);
        block.to_vec()
    };
    let inner = digest(&SHA256, &[padded(0x36).as_slice(), message].concat());
    digest(&SHA256, &[padded(0x5c).as_slice(), inner.as_ref()].concat()).as_ref().to_vec()
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = (0..3).fold(0_u32, |sum, at| sum << 8 | u32::from(*three.get(at).unwrap_or(&0)));
        for at in 0..4 {
            let letter = LETTERS[(number >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= three.len() { letter as char } else { '=' });
        }
    }
    text
}

fn check_signature(received: &Received) {
    let [id, seconds, signature] =
        ["webhook-id", "webhook-timestamp", "webhook-signature"].map(|name| received.header(name).unwrap());
    let signed = [format!("{id}.{seconds}.").as_bytes(), &received.body].concat();
    let key: Vec<u8> = (0..24).collect();
    assert_eq!(signature, format!("v1,{}", base64(&hmac(&key, &signed))));
}

#[test]
fn a_share_is_told_once_signed_and_in_full_also_after_a_restart() {
    let settings = format!(
        "budgets:\n  - {{ name: b, scope: {{ team: a }}, window: day, limit: 16 tokens, mode: soft, thresholds: [50] }}\n  \
         - {{ name: tried, window: day, limit: 8 tokens, mode: shadow }}\n{HOOK}"
    );
    setup(&settings).run(|system| async move {
        let told = Told::start(&system);
        let mut client = system.client();
        assert!(told.received().await.is_empty());
        told.receiver.json(204, "");
        spend(&system, &mut client).await;
        assert_eq!(told.shares().await, [50]);

        let first = told.receiver.request();
        assert_eq!(first.line(), "POST /in/canary?key=canary HTTP/1.1");
        assert_eq!(first.header("host"), Some("hooks.test"));
        assert_eq!(first.header("content-type"), Some("application/cloudevents+json; charset=utf-8"));
        assert_eq!(first.header("webhook-timestamp"), Some("1795348800"));
        check_signature(&first);
        let event = first.json();
        assert_eq!((&event["specversion"], &event["type"]), (&"1.0".into(), &"dev.bursar.budget.threshold".into()));
        assert_eq!(event["id"], *first.header("webhook-id").unwrap());
        assert_eq!(event["source"], format!("/bursar/ledgers/{}", system.app.ledger.id()));
        assert_eq!((&event["subject"], &event["time"]), (&"b".into(), &"2026-11-22T12:00:00Z".into()));
        let expected = serde_json::json!({
            "budget": "b", "unit": "tokens", "limit": 16, "configured_limit": 16, "spent": 8, "estimated": 0,
            "reserved": 0, "left": 8, "window_start": "2026-11-22T00:00:00Z", "window_end": "2026-11-23T00:00:00Z",
            "window": "day", "mode": "soft", "scope": { "team": "a" }, "used_percent": 50,
            "run_out_at": Value::Null, "threshold_percent": 50,
        });
        let mut data = event["data"].clone();
        data["run_out_at"] = Value::Null;
        assert_eq!(data, expected);

        // Nothing more at the same share; the limit itself is told although nobody named it.
        let told = told.restart(&system).await;
        assert_eq!(told.shares().await, [50]);
        told.receiver.json(200, "");
        spend(&system, &mut client).await;
        spend(&system, &mut client).await;
        assert_eq!(told.shares().await, [50, 100]);
        let told = told.restart(&system).await;
        assert_eq!(told.shares().await, [50, 100]);
        assert_eq!((metric(&system, "delivered"), metric(&system, "failed")), ("2".into(), "0".into()));

        // Of another limit, what was not reached under it; in the next window, all of it.
        let raised = settings.replace("limit: 16 tokens", "limit: 32 tokens");
        system.reload(None, &raised).unwrap();
        assert_eq!(told.shares().await, [50, 100], "three quarters are spent");
        told.receiver.json(200, "");
        spend(&system, &mut client).await;
        assert_eq!(told.shares().await, [50, 100, 100]);
        let ids: std::collections::HashSet<String> = told
            .receiver
            .received()
            .iter()
            .map(|one| one.header("webhook-id").unwrap().to_owned())
            .collect();
        assert_eq!(ids.len(), 3);
        system.clock.advance(24 * HOUR);
        assert_eq!(told.shares().await, [50, 100, 100]);
        told.receiver.json(200, "");
        spend(&system, &mut client).await;
        spend(&system, &mut client).await;
        assert_eq!(told.shares().await, [50, 100, 100, 50]);
        drop((told.stop().await, client));
        drop(system.close().await);
    });
}

#[test]
fn what_a_receiver_does_not_take_is_sent_again_the_same_and_signed_anew() {
    let settings = format!("budgets:\n  - {{ name: b, window: day, limit: 8 tokens, mode: soft }}\n{HOOK}");
    setup(&settings).run(|system| async move {
        let told = Told::start(&system);
        let mut client = system.client();
        told.receiver.json(500, "canary");
        told.receiver.script([Step::Stall]);
        told.receiver.script([Step::Close]);
        told.receiver.reply(503, &[("retry-after", "100")], b"");
        told.receiver.json(200, "");
        spend(&system, &mut client).await;
        assert_eq!(told.received().await.len(), 1);
        assert_eq!(metric(&system, "failed"), "1");
        // Five seconds at most, then fifteen in which nothing comes, then ten at most.
        system.clock.advance(5_000_000);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!((told.receiver.received().len(), told.receiver.open()), (2, 1));
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert_eq!((metric(&system, "failed").as_str(), told.receiver.open()), ("2", 0));
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert_eq!(metric(&system, "failed"), "3");
        tokio::time::sleep(Duration::from_secs(21)).await;
        assert_eq!(metric(&system, "failed"), "4");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(metric(&system, "delivered"), "0", "it was asked for a hundred seconds");
        let told = told.restart(&system).await;
        let all = told.received().await;
        assert_eq!(all.len(), 5, "a restart tries at once");
        assert_eq!((metric(&system, "delivered").as_str(), metric(&system, "given_up").as_str()), ("1", "0"));
        assert!(system.app.webhooks.metrics().contains("bursar_webhook_waiting 0\n"));
        for one in &all {
            assert_eq!(one.header("webhook-id"), all[0].header("webhook-id"));
            assert_eq!(one.body, all[0].body);
            check_signature(one);
        }
        let times: Vec<&str> = all.iter().map(|one| one.header("webhook-timestamp").unwrap()).collect();
        assert_eq!(&times[..2], ["1795348800", "1795348805"]);
        drop((told.stop().await, client));
        drop(system.close().await);
    });
}

#[test]
fn redirects_are_not_followed_and_who_is_gone_is_not_asked_again() {
    let settings = format!("budgets:\n  - {{ name: b, window: day, limit: 8 tokens, mode: soft }}\n{HOOK}");
    setup(&settings).run(|system| async move {
        let told = Told::start(&system);
        let mut client = system.client();
        told.receiver.reply(307, &[("location", "https://elsewhere.test/")], b"");
        told.receiver.reply(410, &[], b"");
        spend(&system, &mut client).await;
        assert_eq!(told.received().await.len(), 1);
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!((metric(&system, "failed").as_str(), metric(&system, "given_up").as_str()), ("1", "1"));
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert_eq!(told.receiver.received().len(), 2);
        assert_eq!(*told.called.borrow(), ["hooks.test", "hooks.test"]);
        drop((told.stop().await, client));
        drop(system.close().await);
    });
}

#[test]
fn that_a_hard_budget_began_to_refuse_is_told_once_in_its_window() {
    let settings = format!("budgets:\n  - {{ name: b, window: day, limit: {BOUND} tokens }}\n{HOOK}");
    setup(&settings).run(|system| async move {
        let told = Told::start(&system);
        rounds().await;
        let mut client = system.client();
        spend(&system, &mut client).await;
        told.receiver.json(200, "");
        for _ in 0..3 {
            assert_eq!(post(&system, &mut client).await, 429);
        }
        assert_eq!(told.received().await.len(), 1);
        assert_eq!(post(&system, &mut client).await, 429);
        let told = told.restart(&system).await;
        assert_eq!(post(&system, &mut client).await, 429);
        assert_eq!(told.received().await.len(), 1);
        let event = told.receiver.request().json();
        assert_eq!(event["type"], "dev.bursar.budget.refusing");
        let data = &event["data"];
        assert_eq!((&data["budget"], &data["reason"]), (&"b".into(), &"over_budget".into()));
        assert_eq!((&data["spent"], &data["team"]), (&8.into(), &"a".into()));
        assert!(data["message"].as_str().unwrap().starts_with("the budget \"b\" refuses this request"));
        check_signature(&told.receiver.request());
        system.clock.advance(24 * HOUR);
        spend(&system, &mut client).await;
        told.receiver.json(200, "");
        assert_eq!(post(&system, &mut client).await, 429);
        assert_eq!(told.received().await.len(), 2);
        drop((told.stop().await, client));
        drop(system.close().await);
    });
}

#[test]
fn a_receiver_that_hangs_holds_up_no_request_and_no_other_receiver() {
    let settings = format!(
        "budgets:\n  - {{ name: b, window: day, limit: 8 tokens, mode: soft }}\n{HOOK}  \
         - {{ name: other, url: 'https://other.test/', secret_env: HOOK }}\n"
    );
    setup(&settings).run(|system| async move {
        let told = Told::start(&system);
        let mut client = system.client();
        told.receiver.script([Step::Stall]);
        told.receiver.json(200, "");
        spend(&system, &mut client).await;
        rounds().await;
        assert_eq!((told.receiver.open(), metric(&system, "delivered").as_str()), (1, "1"));
        let began = tokio::time::Instant::now();
        for _ in 0..20 {
            spend(&system, &mut client).await;
        }
        assert_eq!(
            (told.receiver.open(), metric(&system, "failed").as_str()),
            (1, "0"),
            "it hangs all the time"
        );
        assert!(began.elapsed() < Duration::from_secs(10), "no request waited for it");
        assert_eq!(*told.called.borrow(), ["hooks.test", "other.test"]);
        drop((told.stop().await, client));
        drop(system.close().await);
    });
}

#[test]
fn the_end_of_a_window_is_told_with_what_was_spent_in_it() {
    let settings = "budgets:\n  - { name: b, window: hour, limit: 1000 tokens, mode: soft }\nwebhooks:\n  \
                    - { name: hook, url: 'https://hooks.test/', secret_env: HOOK, events: [window] }\n";
    setup(settings).run(|system| async move {
        let told = Told::start(&system);
        let mut client = system.client();
        spend(&system, &mut client).await;
        assert!(told.received().await.is_empty());
        let told = told.restart(&system).await;
        system.clock.advance(HOUR);
        told.receiver.json(200, "");
        assert_eq!(told.received().await.len(), 1);
        let event = told.receiver.request().json();
        assert_eq!(event["type"], "dev.bursar.budget.window");
        let data = &event["data"];
        assert_eq!((&data["spent"], &data["left"]), (&8.into(), &992.into()));
        assert_eq!(data["window_start"], "2026-11-22T12:00:00Z");
        // Of windows that passed unseen nothing is known here.
        let told = told.restart(&system).await;
        assert_eq!(told.received().await.len(), 1);
        drop((told.stop().await, client));
        drop(system.close().await);
    });
}

#[test]
fn what_is_spent_in_a_window_after_its_end_is_told_of_that_window() {
    let settings = format!("budgets:\n  - {{ name: b, window: hour, limit: 8 tokens, mode: soft }}\n{HOOK}");
    setup(&settings).run(|system| async move {
        let told = Told::start(&system);
        let mut client = system.client();
        let go_on = Rc::new(tokio::sync::Notify::new());
        let reply = [
            format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                REPLY.len()
            ),
            REPLY.to_owned(),
        ];
        system.provider.script([Step::Until(Rc::clone(&go_on)), Step::Send(reply.concat().into_bytes())]);
        client.post(CHAT_PATH, &[], ASK).await;
        rounds().await;
        system.clock.advance(HOUR);
        go_on.notify_one();
        assert_eq!(client.reply().await.status(), 200);
        system.settled().await;
        told.receiver.json(200, "");
        assert_eq!(told.shares().await, [100]);
        let data = &told.receiver.request().json()["data"];
        assert_eq!(data["window_start"], "2026-11-22T12:00:00Z");
        drop((told.stop().await, client));
        drop(system.close().await);
    });
}

#[test]
fn a_reload_brings_webhooks_and_takes_them_away() {
    let budgets = "budgets:\n  - { name: b, window: day, limit: 8 tokens, mode: soft, thresholds: [50] }\n  \
                   - { name: s, window: day, limit: 8 tokens, mode: shadow }\n";
    setup(budgets).run(|system| async move {
        let told = Told::start(&system);
        let mut client = system.client();
        spend(&system, &mut client).await;
        assert!(told.received().await.is_empty());
        told.receiver.json(200, "");
        let named = "webhooks:\n  - { name: s, url: 'https://s.test/', secret_env: HOOK, budgets: [s] }\n";
        system.reload(None, &format!("{budgets}{named}")).unwrap();
        assert_eq!(told.shares().await, [100], "a shadow budget that is named");
        assert_eq!(*told.called.borrow(), ["s.test"]);
        system.reload(None, budgets).unwrap();
        system.clock.advance(24 * HOUR);
        spend(&system, &mut client).await;
        assert_eq!(told.shares().await, [100]);
        // What is so when a webhook comes is told, each share by itself.
        told.receiver.json(200, "");
        told.receiver.json(200, "");
        system.reload(None, &format!("{budgets}{HOOK}")).unwrap();
        assert_eq!(told.shares().await, [100, 50, 100]);
        drop((told.stop().await, client));
        drop(system.close().await);
    });
}

#[test]
fn budgets_on_contracts_tell_of_their_absence_and_of_their_shares() {
    let settings = format!("budgets:\n  - {{ name: b, contract: c, thresholds: [1] }}\n{HOOK}");
    setup(&settings).run(|system| async move {
        let told = Told::start(&system);
        rounds().await;
        let mut client = system.client();
        told.receiver.json(200, "");
        assert_eq!(post(&system, &mut client).await, 429);
        let data = told.received().await[0].json()["data"].clone();
        assert_eq!((&data["reason"], &data["contract"]), (&"no_contract".into(), &"c".into()));
        enter(&system, FactKind::Contract, commitment(800, &serde_json::json!({}))).await;
        spend(&system, &mut client).await;
        told.receiver.json(200, "");
        assert_eq!(told.received().await.len(), 2);
        let data = told.receiver.received()[1].json()["data"].clone();
        assert_eq!((&data["threshold_percent"], &data["spent"]), (&1.into(), &8.into()));
        assert_eq!((&data["contract"], &data["unit"]), (&"c".into(), &"tokens".into()));
        let told = told.restart(&system).await;
        assert_eq!(told.received().await.len(), 2);
        drop((told.stop().await, client));
        drop(system.close().await);
    });
}
