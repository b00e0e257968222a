//! Budgets as clients meet them, and as they are after a restart.

use crate::ledger_modes::{nearly_full, small_queue};
use crate::transcripts::{CHAT_PATH, MESSAGES_PATH};
use bursar::budgets::{Budgets, Passed, Request};
use bursar_domain::{
    Clock, Cost, Currency, Identity, Label, Metering, Money, Outcome, RequestId, SystemClock, Timestamp,
    UsageRecord,
};
use bursar_ledger::{Ledger, NewOverride, Opening, Options, StoredRecord, Wait};
use bursar_policies::budget::{Asked as BudgetAsked, Change, Measure, Standing};
use bursar_tests::{Client, ManualClock, Step, System, run, unhurried};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

const ASK: &str = r#"{"model":"gpt-4o-mini","max_tokens":100,"messages":[{"role":"user","content":"hi"}]}"#;
/// Five tokens in, three out.
const REPLY: &str = r#"{"id":"c","object":"chat.completion","model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}"#;
/// The most that `ASK` can use: a token has a byte at least.
const BOUND: usize = ASK.len() + 100;
const DAY: i64 = 86_400_000_000;

fn budget(limit: &str, more: &str) -> String {
    format!("budgets:\n  - {{ name: b, window: day, limit: {limit}{more} }}\n")
}

async fn ask(system: &System, client: &mut Client) -> u16 {
    system.provider.json(200, REPLY);
    client.post(CHAT_PATH, &[], ASK).await;
    client.reply().await.status()
}

fn standing(system: &System) -> Standing {
    system.app.budgets.standing(0, system.app.now()).unwrap()
}

#[test]
fn of_a_thousand_concurrent_requests_exactly_those_pass_that_fit() {
    let limit = 137 * BOUND;
    run(&budget(&format!("{limit} tokens"), ""), |system| async move {
        let stop = Arc::new(AtomicBool::new(false));
        let observer = {
            let (budgets, stop, now) = (Arc::clone(&system.app.budgets), Arc::clone(&stop), system.app.now());
            let (begin, begun) = std::sync::mpsc::channel();
            let observer = std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let standing = budgets.standing(0, now).unwrap();
                    assert!(standing.left() >= 0, "{standing:?}");
                    let _ = begin.send(());
                }
            });
            begun.recv().unwrap();
            observer
        };
        // Nothing is settled, so nothing is released.
        system.hold_ledger();
        for _ in 0..137 {
            system.provider.json(200, REPLY);
        }
        let mut clients = Vec::new();
        for _ in 0..1_000 {
            let mut client = system.client();
            client.post(CHAT_PATH, &[], ASK).await;
            clients.push(client);
        }
        let (mut passed, mut refused) = (0, 0);
        for client in &mut clients {
            match client.reply().await.status() {
                200 => passed += 1,
                429 => refused += 1,
                other => panic!("{other}"),
            }
        }
        assert_eq!((passed, refused), (137, 863));
        assert_eq!(standing(&system).left(), 0);
        assert_eq!(system.metric("bursar_requests_refused_total{reason=\"budget_exceeded\"}"), 863);
        drop(clients);

        system.release_ledger();
        system.settled().await;
        let after = standing(&system);
        assert_eq!((after.settled, after.held), (137 * 8, 0), "what was not used is free again");
        let mut client = system.client();
        assert_eq!(ask(&system, &mut client).await, 200, "the next one that fits");
        stop.store(true, Ordering::Relaxed);
        observer.join().unwrap();
        let records = system.records().await;
        let refused = |stored: &&StoredRecord| stored.record.outcome == Outcome::Refused;
        assert_eq!((records.len(), records.iter().filter(refused).count()), (1_001, 863));
    });
}

#[test]
fn a_refusal_has_the_providers_shape_the_rules_name_and_its_figures() {
    run(&budget("10 tokens", ""), |system| async move {
        let mut client = system.client();
        client.post(CHAT_PATH, &[], ASK).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.header("x-bursar-budget")), (429, Some("b")));
        assert_eq!((reply.header("retry-after"), reply.header("x-should-retry")), (None, Some("false")));
        let body = reply.json();
        assert_eq!(
            (&body["error"]["type"], &body["error"]["code"]),
            (&"insufficient_quota".into(), &"budget_exceeded".into())
        );
        let message = body["error"]["message"].as_str().unwrap().to_owned();
        for part in
            ["\"b\"", "0 tokens of 10 tokens spent", "0 tokens held", &format!("up to {BOUND} tokens")]
        {
            assert!(message.contains(part), "{message}");
        }
        let id = RequestId::parse(reply.header("x-bursar-request-id").unwrap()).unwrap();
        let told = system.app.budgets.why(id).unwrap().json();
        assert_eq!(
            (&told["rule"], &told["reason"], &told["asked"]),
            (&"b".into(), &"over_budget".into(), &BOUND.into())
        );

        client.post(MESSAGES_PATH, &[], ASK).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), &reply.json()["error"]["type"]), (429, &"rate_limit_error".into()));
        assert_eq!(system.provider.received().len(), 0, "nothing reached the upstream");
        let records = system.records().await;
        assert_eq!(records.len(), 2);
        let record = &records[0].record;
        assert_eq!(
            (record.outcome, record.metering, record.http_status),
            (Outcome::Refused, Metering::Never, None)
        );
        assert_eq!((record.usage.has_tokens(), &record.cost), (false, &None));
    });
}

#[test]
fn a_budget_that_is_only_held_may_be_asked_again_soon_and_a_used_one_when_its_window_ends() {
    let limit = BOUND + 5;
    run(&budget(&format!("{limit} tokens"), ""), |system| async move {
        system.hold_ledger();
        let mut client = system.client();
        assert_eq!(ask(&system, &mut client).await, 200);
        client.post(CHAT_PATH, &[], ASK).await;
        assert_eq!(client.reply().await.header("retry-after"), Some("5"));
        system.release_ledger();
        system.settled().await;
        client.post(CHAT_PATH, &[], ASK).await;
        let reply = client.reply().await;
        // Eight tokens are used: it is twelve hours to midnight.
        assert_eq!((reply.status(), reply.header("retry-after")), (429, Some("43200")));
        system.clock.advance(DAY);
        assert_eq!(ask(&system, &mut client).await, 200, "another day");
        system.settled().await;
        system.clock.advance(-DAY);
        client.post(CHAT_PATH, &[], ASK).await;
        assert_eq!(client.reply().await.status(), 429, "a clock that goes back finds what was used");
        drop(client);
        drop(system.close().await);
    });
}

#[test]
fn a_soft_budget_warns_and_a_shadow_budget_only_counts() {
    run(&budget("10 tokens", ", mode: soft"), |system| async move {
        system.provider.json(200, REPLY);
        let mut client = system.client();
        client.post(CHAT_PATH, &[], ASK).await;
        let reply = client.reply().await;
        let warning = reply.header("x-bursar-budget-warning").unwrap().to_owned();
        assert!(reply.status() == 200 && warning.starts_with("b; "), "{warning}");
        assert_eq!(system.metric("bursar_budget_warned_total"), 1);
        drop(client);
        assert_eq!(system.records().await.len(), 1);
    });
    run(&budget("10 tokens", ", mode: shadow"), |system| async move {
        system.provider.json(200, REPLY);
        let mut client = system.client();
        client.post(CHAT_PATH, &[], ASK).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.header("x-bursar-budget-warning")), (200, None));
        assert_eq!(system.metric("bursar_budget_shadowed_total"), 1);
        drop(client);
        assert_eq!(system.records().await.len(), 1);
    });
}

#[test]
fn whatever_ends_an_exchange_its_hold_ends_with_it() {
    run(&budget("100000 tokens", ""), |system| async move {
        // Refused by the upstream, cut off, and left by the client.
        system.provider.json(500, r#"{"error":{"message":"no"}}"#);
        let mut client = system.client();
        client.post(CHAT_PATH, &[], ASK).await;
        assert_eq!(client.reply().await.status(), 500);
        system.provider.script([Step::Close]);
        client.post(CHAT_PATH, &[], ASK).await;
        assert_eq!(client.reply().await.status(), 502);
        system.provider.json(200, REPLY);
        client.post(CHAT_PATH, &[], ASK).await;
        drop(client);
        bursar_tests::until("nothing is in flight", || system.metric("bursar_requests_in_flight") == 0).await;
        system.settled().await;
        assert_eq!(standing(&system).held, 0);
        drop(system.close().await);
    });
}

#[test]
fn what_has_no_price_is_refused_by_a_budget_in_money_unless_it_says_otherwise() {
    let ask = ASK.replace("gpt-4o-mini", "nobody-knows");
    for (more, status) in [("", 429), (", unpriced: allow", 200), (", mode: soft", 200)] {
        let ask = ask.clone();
        run(&budget("100 USD", more), |system| async move {
            if status == 200 {
                system.provider.json(200, REPLY);
            }
            let mut client = system.client();
            client.post(CHAT_PATH, &[], &ask).await;
            let reply = client.reply().await;
            assert_eq!(reply.status(), status, "{more}");
            if status == 429 {
                assert!(reply.json()["error"]["message"].as_str().unwrap().contains("unpriced: allow"));
            }
            drop(client);
            drop(system.close().await);
        });
    }
}

#[test]
fn a_hold_in_money_is_the_dearest_that_the_request_can_be() {
    // 0.25 USD per million in, 1.00 out at the tier `priority`, which the project may have chosen.
    let pico = ASK.len() as i128 * 250_000 + 100 * 1_000_000;
    run(&budget("1 USD", ""), |system| async move {
        system.hold_ledger();
        let mut client = system.client();
        assert_eq!(ask(&system, &mut client).await, 200);
        assert_eq!(standing(&system).held, pico);
        system.release_ledger();
        system.settled().await;
        let after = standing(&system);
        assert_eq!((after.settled, after.held), (5 * 150_000 + 3 * 600_000, 0));
        drop(client);
        drop(system.close().await);
    });
}

const MANY: &str = "budgets:
  - { name: day, window: day, limit: 1 USD }
  - { name: kolkata, window: day, zone: Asia/Kolkata, limit: 100000 tokens }
  - { name: hour, window: hour, zone: Asia/Kathmandu, limit: 100000 tokens }
  - { name: team, scope: { team: a }, window: month, limit: 100000 tokens }
  - { name: other, scope: { team: b }, window: month, limit: 100000 tokens }
  - { name: customer, scope: { team: a, customer: c }, window: year, fiscal_start: 4, limit: 100000 tokens }
  - { name: tag, scope: { tags: { env: prod } }, window: week, limit: 100000 tokens }
  - { name: model, scope: { model: 'gpt-4o-mini*' }, window: quarter, limit: 100000 tokens }
  - { name: rolling-day, window: rolling 24h, limit: 100000 tokens }
  - { name: rolling-hour, window: rolling 1h, limit: 100000 tokens }
  - { name: asked, scope: { model: gpt-4o-mini }, window: quarter, limit: 100000 tokens }
  - { name: answered, scope: { model: gpt-4o-mini-2024-07-18 }, window: rolling 30h, limit: 100000 tokens }
  - { name: asked-lately, scope: { model: gpt-4o-mini }, window: rolling 1h, limit: 100000 tokens }
  - { name: neither, scope: { model: gpt-4o }, window: quarter, limit: 100000 tokens }
";

#[test]
fn a_body_that_cannot_be_read_may_be_of_any_model_and_of_any_size() {
    let budget = "budgets:\n  - { name: b, scope: { model: 'gpt-4o*' }, window: day, limit: 5000 tokens }\n";
    run(budget, |system| async move {
        let mut client = system.client();
        assert_eq!(ask(&system, &mut client).await, 200);
        client.post(CHAT_PATH, &[], &format!("\u{feff}{ASK}")).await;
        assert_eq!(client.reply().await.status(), 429);
    });
}

#[test]
fn after_a_restart_budgets_know_what_was_spent() {
    run(MANY, |system| async move {
        let mut client = system.client();
        let headers = [("x-bursar-team", "a"), ("x-bursar-customer", "c"), ("x-bursar-tag-env", "prod")];
        // Over two days, and over an hour's edge in zones of half and quarter hours.
        for (minutes, headers) in [(0, &headers[..]), (1_400, &headers[..1]), (40, &headers[..]), (20, &[])] {
            system.clock.advance(minutes * 60_000_000);
            system.provider.json(200, REPLY);
            client.post(CHAT_PATH, headers, ASK).await;
            assert_eq!(client.reply().await.status(), 200);
        }
        system.settled().await;
        let now = system.app.now();
        let before: Vec<Standing> =
            (0..14).map(|number| system.app.budgets.standing(number, now).unwrap()).collect();
        let used: Vec<(&str, i128)> =
            before.iter().skip(1).map(|standing| (standing.name.as_str(), standing.settled)).collect();
        let expected = [
            ("kolkata", 3 * 8),
            ("hour", 8),
            ("team", 3 * 8),
            ("other", 0),
            ("customer", 2 * 8),
            ("tag", 8),
            ("model", 4 * 8),
            ("rolling-day", 4 * 8),
            ("rolling-hour", 3 * 8),
            ("asked", 4 * 8),
            ("answered", 4 * 8),
            ("asked-lately", 3 * 8),
            ("neither", 0),
        ];
        assert_eq!(used, expected);
        let budgets = system.app.config().budgets.clone();
        drop(client);
        let dir = system.close().await;
        let again = Arc::new(Budgets::new(budgets));
        let options = Options { observer: Some(again.clone()), ..Options::new(&dir.path().join("ledger")) };
        let pricer = Arc::new(|_: &UsageRecord| Cost::unpriced(Currency::USD));
        let (ledger, _) = Ledger::open(options, Arc::new(SystemClock), pricer).unwrap();
        again.load(&ledger, now).unwrap();
        for (number, before) in (0..).zip(&before) {
            let after = again.standing(number, now).unwrap();
            assert_eq!((after.settled, after.span), (before.settled, before.span), "{}", before.name);
        }
        ledger.close().unwrap();
    });
}

/// A request of so many bytes whose model and bound stand at its end.
fn long_ask(bytes: usize, max_tokens: usize) -> String {
    let end = format!(r#""}}],"model":"gpt-4o-mini","max_tokens":{max_tokens}}}"#);
    let mut body = r#"{"messages":[{"role":"user","content":""#.to_owned();
    body.extend(std::iter::repeat_n('x', bytes - body.len() - end.len()));
    body + &end
}

#[test]
fn a_hard_budget_knows_a_long_body_to_its_end() {
    let limit = "limit: 1000000 tokens";
    let budget = format!(
        "budgets:\n  - {{ name: b, scope: {{ team: a, model: 'gpt-4o*' }}, window: day, {limit} }}\n  \
         - {{ name: money, scope: {{ team: a }}, window: day, limit: 1 USD }}\n"
    );
    run(&budget, |system| async move {
        system.hold_ledger();
        let mut client = system.client();
        let body = long_ask(300_000, 50_000);
        system.provider.json(200, REPLY);
        client.post(CHAT_PATH, &[("x-bursar-team", "a")], &body).await;
        assert_eq!(client.reply().await.status(), 200);
        assert_eq!(standing(&system).held, 350_000);
        assert_eq!(system.provider.received()[0].body, body.as_bytes(), "it passes as it came");
        client.post(CHAT_PATH, &[("x-bursar-team", "a")], &long_ask(300_000, 400_000)).await;
        let reply = client.reply().await;
        assert_eq!(reply.status(), 429, "what stands at the end is held too");
        assert!(reply.text().contains("up to 700000 tokens"), "{}", reply.text());
        system.provider.json(200, REPLY);
        client.post(CHAT_PATH, &[("x-bursar-team", "b")], &long_ask(300_000, 9_000_000)).await;
        assert_eq!(client.reply().await.status(), 200, "nobody limits this team");
        system.release_ledger();
        system.settled().await;
        assert_eq!((standing(&system).settled, standing(&system).held), (8, 0));
        drop(client);
        drop(system.close().await);
    });
}

#[test]
fn a_body_longer_than_is_held_is_refused_by_a_hard_budget_and_passes_a_soft_one() {
    for (mode, status) in [("hard", 429), ("soft", 200)] {
        let settings = format!(
            "reserve: {{ body_bytes: 64KiB }}\nbudgets:\n  - {{ name: b, window: day, limit: 9000000 tokens, mode: {mode} }}\n"
        );
        run(&settings, |system| async move {
            let mut client = system.client();
            let body = long_ask(300_000, 10);
            let head = format!(
                "POST {CHAT_PATH} HTTP/1.1\r\nhost: sidecar\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\n\r\n",
                body.len()
            );
            let (first, rest) = body.split_at(100_000);
            client.send(head.as_bytes()).await;
            client.send(first.as_bytes()).await;
            if status == 200 {
                system.provider.json(200, REPLY);
                client.send(rest.as_bytes()).await;
            }
            let reply = client.reply().await;
            assert_eq!(reply.status(), status, "{mode}");
            assert_eq!(reply.text().contains("reserve.body_bytes"), status == 429);
            drop(client);
            drop(system.close().await);
        });
    }
}

#[test]
fn a_record_that_the_ledger_does_not_take_is_booked_all_the_same() {
    let mut setup = small_queue("open");
    setup.settings.push_str("\nbudgets:\n  - { name: b, window: day, limit: 100 USD }\n");
    setup.run(|system| async move {
        nearly_full(&system, 0).await;
        let before = standing(&system);
        assert_eq!(before.settled, 0);
        let mut client = system.client();
        assert_eq!(ask(&system, &mut client).await, 200);
        assert_eq!(system.metric("bursar_records_lost_total"), 1);
        let after = standing(&system);
        assert_eq!((after.settled, after.held), (5 * 150_000 + 3 * 600_000, before.held));
        drop(client);
        system.release_ledger();
        system.settled().await;
        assert_eq!(standing(&system).held, 0);
        drop(system.close().await);
    });
}

#[test]
fn what_has_no_output_needs_no_price_for_it() {
    let body = r#"{"model":"voyage-3.5","input":["a","b"]}"#;
    let rank = r#"{"model":"rerank-2.5","query":"a","documents":["a","b"]}"#;
    let reply = r#"{"object":"list","data":[],"model":"voyage-3.5","usage":{"total_tokens":4}}"#;
    run(&budget("1 USD", ""), |system| async move {
        let mut client = system.client();
        for (path, body) in [("/other/v1/embeddings", body), ("/other/v1/rerank", rank)] {
            system.provider.json(200, reply);
            client.post(path, &[], body).await;
            let reply = client.reply().await;
            assert_eq!(reply.status(), 200, "{}", reply.text());
        }
        client.post("/other/v1/chat/completions", &[], body).await;
        let reply = client.reply().await;
        assert_eq!(reply.status(), 429);
        assert!(reply.text().contains("no price for output"), "{}", reply.text());
        drop(client);
        drop(system.close().await);
    });
}

#[test]
fn after_a_crash_budgets_count_what_was_held_for_requests_under_way() {
    let at = Timestamp::from_micros(bursar_tests::system::START_MICROS);
    let label = |text: &str| Label::new(text).unwrap();
    let opening = |n: u128, team: &str| Opening {
        id: RequestId::new(at, n),
        started_at: at,
        identity: Arc::new(Identity { team: Some(label(team)), ..Identity::unallocated() }),
        route: label("openai"),
        provider: label("openai"),
        api: label("openai-chat"),
        model: Some(label("gpt-4o-mini")),
        region: None,
        stream: false,
        metering: Metering::Count,
        held_tokens: Some(400),
        held_cost: Some(Money::from_pico(Currency::USD, 7_000)),
    };
    let text = "
budgets:
  - { name: tokens, scope: { team: a, model: gpt-4o-mini }, window: day, limit: 1000 tokens }
  - { name: money, window: rolling 1h, limit: 1 USD }
  - { name: other, scope: { model: gpt-5 }, window: day, limit: 1000 tokens }
";
    let config = bursar::config::Config::load(bursar::config::Sources::from_text(text)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let start = |budgets: &Arc<Budgets>| {
        let options = Options { observer: Some(budgets.clone()), ..Options::new(&dir.path().join("ledger")) };
        let pricer = Arc::new(|_: &UsageRecord| Cost::unpriced(Currency::USD));
        let (ledger, _) = Ledger::open(options, Arc::new(SystemClock), pricer).unwrap();
        budgets.load(&ledger, at).unwrap();
        ledger
    };
    let ledger = start(&Arc::new(Budgets::new(config.budgets.clone())));
    for (n, team) in [(1, "a"), (2, "a"), (3, "b")] {
        let (_slot, receipt) = ledger.opening(opening(n, team), Wait::Acknowledged);
        let _ = receipt.wait().unwrap();
    }
    // Nothing of them is settled: this is what a crash leaves.
    ledger.close().unwrap();
    for _ in 0..2 {
        let budgets = Arc::new(Budgets::new(config.budgets.clone()));
        let ledger = start(&budgets);
        let standing = |number| budgets.standing(number, at).unwrap();
        assert_eq!((standing(0).settled, standing(0).estimated, standing(0).held), (800, 800, 0));
        assert_eq!((standing(1).settled, standing(1).estimated), (3 * 7_000, 3 * 7_000));
        assert_eq!(standing(2).settled, 0);
        assert_eq!(budgets.json(at)["budgets"][0]["estimated"], 800);
        ledger.close().unwrap();
    }
}

fn asked(change: (&str, &str), until: &str) -> String {
    format!("budget=b&{}={}&until={until}&reason=launch", change.0, change.1)
}

#[test]
fn an_override_lets_more_pass_at_once_until_its_time_is_over_and_survives_a_restart() {
    let limit = BOUND;
    run(&budget(&format!("{limit} tokens"), ""), |system| async move {
        system.hold_ledger();
        let mut client = system.client();
        assert_eq!(ask(&system, &mut client).await, 200);
        client.post(CHAT_PATH, &[], ASK).await;
        assert_eq!(client.reply().await.status(), 429);
        system.release_ledger();
        system.settled().await;
        // Eight tokens are used, so that the next one does not fit.
        client.post(CHAT_PATH, &[], ASK).await;
        assert_eq!(client.reply().await.status(), 429);
        let ledger = system.app.ledger.clone();
        let (app, until) = (Arc::clone(&system.app), system.app.now().micros() + 3_600_000_000);
        let new = NewOverride {
            budget: Label::new("b").unwrap(),
            measure: Measure::Tokens,
            change: Change::Add(8),
            until: Timestamp::from_micros(until),
            reason: "launch".to_owned(),
        };
        let made = unhurried(tokio::task::spawn_blocking(move || {
            let id = ledger.record_override(&new, app.clock()).unwrap();
            app.budgets.set_overrides(&bursar_ledger::overrides(&ledger.facts()).0);
            id
        }));
        let id = made.await.unwrap();
        assert_eq!(standing(&system).limit, limit as i128 + 8);
        let told = &system.app.budgets.json(system.app.now())["budgets"][0];
        assert_eq!((&told["limit"], &told["configured_limit"]), (&(limit + 8).into(), &limit.into()));
        assert_eq!(told["overrides"][0]["id"], id.to_string());
        assert_eq!(told["overrides"][0]["add"], "8 tokens");
        assert_eq!(ask(&system, &mut client).await, 200, "it fits now");
        system.settled().await;
        client.post(CHAT_PATH, &[], ASK).await;
        let reply = client.reply().await;
        assert!(reply.text().contains(&format!("{limit} tokens is configured")), "{}", reply.text());
        system.clock.advance(3_600_000_000);
        assert_eq!(standing(&system).limit, limit as i128, "its time is over");
        let (now, budgets) = (system.app.now(), system.app.config().budgets.clone());
        drop(client);
        let dir = system.close().await;
        let again = Arc::new(Budgets::new(budgets));
        let pricer = Arc::new(|_: &UsageRecord| Cost::unpriced(Currency::USD));
        let options = Options::new(&dir.path().join("ledger"));
        let (ledger, _) = Ledger::open(options, Arc::new(SystemClock), pricer).unwrap();
        again.load(&ledger, now).unwrap();
        let before = Timestamp::from_micros(now.micros() - 1);
        assert_eq!(again.standing(0, before).unwrap().limit, limit as i128 + 8);
        assert_eq!(again.standing(0, now).unwrap().limit, limit as i128);
        ledger.close().unwrap();
    });
}

#[test]
fn overrides_are_made_listed_and_taken_back_by_the_admin_api() {
    run(&budget("100 tokens", ""), |system| async move {
        let api = |method: &'static str, path: String| {
            let app = Arc::clone(&system.app);
            async move { unhurried(bursar::admin::answer(app, method, &path)).await }
        };
        let make = |query: String| api("POST", format!("/api/v1/budget-overrides?{query}"));
        for (query, status, text) in [
            (asked(("add", "500USD"), "7d"), 400, "not in this unit"),
            (asked(("add", "many"), "7d"), 400, "is no amount"),
            (asked(("add", "5tokens"), "soon"), 400, "is not taken: write 2026-11-01"),
            (asked(("add", "5tokens"), "2020-01-01"), 400, "is over already"),
            (asked(("plus", "5tokens"), "7d"), 400, "is unknown here"),
            (asked(("add", "5tokens"), "7d").replace("launch", ""), 400, "is not taken: write text"),
            (asked(("add", "5tokens"), "7d").replace("budget=b", "budget=c"), 404, "there is no budget"),
        ] {
            let (found, body) = make(query.clone()).await;
            assert_eq!(found, status, "{query}: {body}");
            assert!(body.contains(text), "{query}: {body}");
        }
        let (status, body) = make(asked(("limit", "7tokens"), "7d")).await;
        assert_eq!(status, 200, "{body}");
        let made: serde_json::Value = serde_json::from_str(&body).unwrap();
        let id = made["overrides"][0]["id"].as_str().unwrap().to_owned();
        assert_eq!(
            (&made["overrides"][0]["limit"], &made["overrides"][0]["state"]),
            (&"7 tokens".into(), &"active".into())
        );
        assert_eq!(standing(&system).limit, 7);
        let (status, body) = api("POST", format!("/api/v1/budget-overrides/{id}/revoke?reason=done")).await;
        assert!(status == 200 && body.contains("revoked"), "{body}");
        assert_eq!(standing(&system).limit, 100);
        let (status, _) = api("POST", "/api/v1/budget-overrides/x/revoke".to_owned()).await;
        assert_eq!(status, 404);
        let (_, body) = api("GET", "/api/v1/budget-overrides".to_owned()).await;
        assert!(body.contains("\"revoked_because\":\"done\""), "{body}");
        drop(system.close().await);
    });
}

const EACH: u64 = 30;

/// Asks a thousand times at once, on eight threads; what is held is kept by whoever gets this.
fn thousand_at_once(budgets: &Budgets, clock: &ManualClock, first: u128) -> Vec<(RequestId, Passed)> {
    let (identity, provider) = (Identity::unallocated(), Label::new("openai").unwrap());
    let at = clock.now();
    let passed = Mutex::new(Vec::new());
    let stop = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let observe = || {
            let standing = budgets.standing(0, at).unwrap();
            assert!(standing.left() >= 0, "{standing:?}");
        };
        let observer = scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                observe();
            }
        });
        let threads: Vec<_> = (0..8_u128)
            .map(|thread| {
                let (identity, provider, passed) = (&identity, &provider, &passed);
                scope.spawn(move || {
                    for n in 0..125 {
                        let id = RequestId::new(at, first + thread * 125 + n);
                        let request =
                            Request { id, at, identity, provider, model: None, may_be_any_model: false };
                        let asked = |_| BudgetAsked { tokens: Some(EACH), ..BudgetAsked::default() };
                        if let Ok(one) = budgets.admit(&request, clock, asked) {
                            passed.lock().unwrap().push((id, one));
                        }
                        observe();
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        stop.store(true, Ordering::Relaxed);
        observer.join().unwrap();
    });
    passed.into_inner().unwrap()
}

#[test]
fn as_many_pass_as_fit_whatever_crashes_and_wherever_the_clock_jumps() {
    let text = format!("budgets:\n  - {{ name: b, window: day, limit: {} tokens }}\n", 137 * EACH);
    let config = bursar::config::Config::load(bursar::config::Sources::from_text(&text)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(bursar_tests::system::START_MICROS);
    let start = || {
        let budgets = Arc::new(Budgets::new(config.budgets.clone()));
        let options = Options { observer: Some(budgets.clone()), ..Options::new(&dir.path().join("ledger")) };
        let pricer = Arc::new(|_: &UsageRecord| Cost::unpriced(Currency::USD));
        let (ledger, _) = Ledger::open(options, Arc::new(SystemClock), pricer).unwrap();
        budgets.load(&ledger, clock.now()).unwrap();
        (budgets, ledger)
    };
    let (budgets, ledger) = start();
    let passed = thousand_at_once(&budgets, &clock, 1);
    assert_eq!(passed.len(), 137);
    let opening = |id: RequestId| Opening {
        id,
        started_at: clock.now(),
        identity: Arc::new(Identity::unallocated()),
        route: Label::new("openai").unwrap(),
        provider: Label::new("openai").unwrap(),
        api: Label::new("openai-chat").unwrap(),
        model: None,
        region: None,
        stream: false,
        metering: Metering::Count,
        held_tokens: Some(EACH),
        held_cost: None,
    };
    let opened: Vec<_> =
        passed.iter().map(|(id, _)| ledger.opening(opening(*id), Wait::Acknowledged)).collect();
    for (_, receipt) in opened {
        let _ = receipt.wait().unwrap();
    }
    // Nothing of them is settled: this is what a crash in their midst leaves.
    drop(passed);
    ledger.close().unwrap();

    let (budgets, ledger) = start();
    let standing = budgets.standing(0, clock.now()).unwrap();
    assert_eq!((standing.settled, standing.estimated, standing.left()), (137 * 30, 137 * 30, 0));
    assert_eq!(thousand_at_once(&budgets, &clock, 2_000).len(), 0, "what was under way still counts");
    clock.advance(DAY);
    let passed = thousand_at_once(&budgets, &clock, 4_000);
    assert_eq!(passed.len(), 137, "another window");
    for jump in [-DAY, DAY, -3_600_000_000, 3_600_000_000] {
        clock.advance(jump);
        assert_eq!(thousand_at_once(&budgets, &clock, 6_000).len(), 0, "the clock jumped by {jump}");
    }
    // Of one that used less the rest is free, for one that fits.
    budgets.release(passed[0].0);
    assert_eq!(thousand_at_once(&budgets, &clock, 8_000).len(), 1);
    drop(passed);
    ledger.close().unwrap();
}
