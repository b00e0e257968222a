//! Budgets on contracts as clients meet them: a balance or commitment is never drawn beyond what it has.

use crate::transcripts::CHAT_PATH;
use bursar::budgets::Budgets;
use bursar_domain::{Clock, FactKind, RequestId};
use bursar_ledger::hedge::{Draft, ImportHead, Mode};
use bursar_ledger::{Ledger, Options};
use bursar_policies::budget::{Measure, Standing};
use bursar_policies::price::PriceBook;
use bursar_tests::{Client, Step, System, run, unhurried};
use serde_json::{Value, json};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

const ASK: &str = r#"{"model":"gpt-4o-mini","max_tokens":100,"messages":[{"role":"user","content":"hi"}]}"#;
/// Five tokens in, three out.
const REPLY: &str = r#"{"id":"c","object":"chat.completion","model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}"#;
/// The most that `ASK` can use.
const BOUND: i128 = ASK.len() as i128 + 100;
const DAY: i64 = 86_400_000_000;

fn budget(more: &str) -> String {
    format!("budgets:\n  - {{ name: b, contract: c{more} }}\n")
}

/// A commitment to so many tokens in November 2026, with other fields.
pub(crate) fn commitment(tokens: i128, more: &Value) -> Value {
    let mut fields = json!({
        "position_id": "c", "kind": "commit_usage", "quantity": format!("0.{tokens:06}"), "unit": "Mtok",
        "fixed_price": "2", "price_currency": "USD", "trade_date": "2026-11-01",
        "effective_from": "2026-11-01", "effective_until": "2026-12-01",
        "commitment": { "fulfilment_interval": "term" },
    });
    for (name, value) in more.as_object().unwrap() {
        fields[name] = value.clone();
    }
    fields
}

fn enter_facts(ledger: &Ledger, clock: &dyn Clock, kind: FactKind, fields: &Value) {
    let draft = Draft { line: 1, kind, fields: fields.clone() };
    let imported = ledger.import(&[draft], &ImportHead::default(), Mode::Apply, clock).unwrap();
    assert_eq!(imported.errors, []);
}

/// Enters a fact as the admin API does.
pub(crate) async fn enter(system: &System, kind: FactKind, fields: Value) {
    let app = Arc::clone(&system.app);
    let done = tokio::task::spawn_blocking(move || {
        enter_facts(&app.ledger, app.clock(), kind, &fields);
        app.budgets.look_at_contracts(&app.ledger, &app.prices, app.now()).unwrap();
    });
    unhurried(done).await.unwrap();
}

async fn look(system: &System) -> Vec<String> {
    let app = Arc::clone(&system.app);
    let done = tokio::task::spawn_blocking(move || {
        app.budgets.look_at_contracts(&app.ledger, &app.prices, app.now()).unwrap()
    });
    unhurried(done).await.unwrap()
}

fn standing(system: &System) -> Standing {
    system.app.budgets.contract_standing("b", system.app.now()).unwrap()
}

async fn ask(client: &mut Client, team: &str) -> u16 {
    client.post(CHAT_PATH, &[("x-bursar-team", team)], ASK).await;
    client.reply().await.status()
}

/// Asks, where the provider is to be asked.
async fn passes(system: &System, client: &mut Client, team: &str) {
    system.provider.json(200, REPLY);
    assert_eq!(ask(client, team).await, 200);
}

#[test]
fn of_concurrent_requests_those_pass_that_the_commitment_still_has_tokens_for() {
    run(&budget(""), |system| async move {
        enter(&system, FactKind::Contract, commitment(7 * BOUND + 20, &json!({}))).await;
        system.hold_ledger();
        let mut clients = Vec::new();
        for _ in 0..7 {
            system.provider.json(200, REPLY);
        }
        for _ in 0..50 {
            let mut client = system.client();
            client.post(CHAT_PATH, &[], ASK).await;
            clients.push(client);
        }
        let (mut passed, mut told) = (0, None);
        for client in &mut clients {
            let reply = client.reply().await;
            match reply.status() {
                200 => passed += 1,
                429 => told = Some(reply),
                other => panic!("{other}"),
            }
        }
        assert_eq!(passed, 7);
        assert_eq!((standing(&system).held, standing(&system).left()), (7 * BOUND, 20));
        let refused = told.unwrap();
        assert_eq!(refused.header("x-bursar-budget"), Some("b"));
        let id = RequestId::parse(refused.header("x-bursar-request-id").unwrap()).unwrap();
        let why = system.app.budgets.why(id).unwrap().json();
        assert_eq!((&why["contract"], &why["reason"]), (&json!("c"), &json!("over_budget")));
        let message = why["message"].as_str().unwrap();
        assert!(message.contains("of its contract \"c\""), "{message}");
        drop(clients);

        system.release_ledger();
        system.settled().await;
        assert_eq!((standing(&system).settled, standing(&system).held), (7 * 8, 0));
        // The waterfall says the same.
        look(&system).await;
        assert_eq!((standing(&system).settled, standing(&system).measure), (7 * 8, Measure::Tokens));
        let told = system.app.budgets.json(system.app.now());
        let told = &told["budgets"][0];
        assert_eq!((&told["contract"], &told["contract_state"]), (&json!("c"), &json!("running")));
        assert_eq!((&told["spent"], &told["window"]), (&json!(56), &json!("term")));
        drop(system.close().await);
    });
}

#[test]
fn a_look_while_requests_are_under_way_gives_nothing_free() {
    run(&budget(""), |system| async move {
        enter(&system, FactKind::Contract, commitment(2 * BOUND, &json!({}))).await;
        let mut client = system.client();
        passes(&system, &mut client, "t").await;
        system.settled().await;
        // One is held: its reply has not begun.
        let go_on = Rc::new(Notify::new());
        let reply = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{REPLY}",
            REPLY.len()
        );
        system.provider.script([Step::Until(go_on.clone()), Step::Send(reply.into_bytes())]);
        client.post(CHAT_PATH, &[("x-bursar-team", "t")], ASK).await;
        bursar_tests::until("it is held", || standing(&system).held == BOUND).await;
        look(&system).await;
        assert_eq!((standing(&system).settled, standing(&system).held), (8, BOUND));
        let mut other = system.client();
        assert_eq!(ask(&mut other, "t").await, 429, "8 are gone and the rest is held");
        go_on.notify_one();
        assert_eq!(client.reply().await.status(), 200);
        drop((client, other));
        system.settled().await;
        look(&system).await;
        assert_eq!((standing(&system).settled, standing(&system).held), (16, 0));
        drop(system.close().await);
    });
}

#[test]
fn a_balance_is_money_and_its_benefit_makes_it_last_longer() {
    let credit = |benefit: &str| {
        json!({
            "position_id": "c", "kind": "prepaid_credit", "quantity": "0.01", "unit": "USD",
            "price_currency": "USD", "trade_date": "2026-11-01", "effective_from": "2026-11-01",
            "effective_until": "2027-11-01", "commitment": { "benefit_percent": benefit },
        })
    };
    for (benefit, spent) in [("0", 2_550_000_i128), ("50", 1_275_000)] {
        let credit = credit(benefit);
        run(&budget(""), |system| async move {
            enter(&system, FactKind::Contract, credit).await;
            let mut client = system.client();
            passes(&system, &mut client, "t").await;
            system.settled().await;
            assert_eq!(standing(&system).settled, spent);
            look(&system).await;
            let standing = standing(&system);
            assert_eq!((standing.settled, standing.limit), (spent, 10_000_000_000));
            let large = ASK.replace("100", "60000");
            client.post(CHAT_PATH, &[], &large).await;
            assert_eq!(client.reply().await.status(), 429, "so many tokens out may cost more");
            drop(client);
            drop(system.close().await);
        });
    }
}

#[test]
fn a_contract_that_is_not_there_is_over_or_withdrawn_has_nothing_left() {
    run(&budget(", scope: { team: a }"), |system| async move {
        let mut client = system.client();
        client.post(CHAT_PATH, &[("x-bursar-team", "a")], ASK).await;
        let reply = client.reply().await;
        let body = reply.json();
        let message = body["error"]["message"].as_str().unwrap();
        assert!(reply.status() == 429 && message.contains("\"c\" is not in the ledger"), "{message}");
        passes(&system, &mut client, "b").await;
        let said = look(&system).await;
        assert!(said[0].contains("is not in the ledger"), "{said:?}");

        let later = json!({ "effective_from": "2026-11-24" });
        enter(&system, FactKind::Contract, commitment(2_000, &later)).await;
        assert_eq!(ask(&mut client, "a").await, 429, "it has not begun");
        system.clock.advance(2 * DAY);
        passes(&system, &mut client, "a").await;
        // A new version is smaller.
        let smaller = json!({ "version": 2, "supersedes": 1, "effective_from": "2026-11-24" });
        enter(&system, FactKind::Contract, commitment(100, &smaller)).await;
        assert_eq!((ask(&mut client, "a").await, standing(&system).limit), (429, 100));
        let larger = json!({ "version": 3, "supersedes": 2, "effective_from": "2026-11-24" });
        enter(&system, FactKind::Contract, commitment(900, &larger)).await;
        passes(&system, &mut client, "a").await;
        system.settled().await;
        assert_eq!((standing(&system).limit, standing(&system).settled), (900, 16));
        system.clock.advance(7 * DAY);
        assert_eq!(ask(&mut client, "a").await, 429, "it is over");
        assert_eq!(system.app.budgets.json(system.app.now())["budgets"][0]["contract_state"], "over");
        system.clock.advance(-7 * DAY);
        passes(&system, &mut client, "a").await;
        let cancel = json!({ "position_id": "c", "event": "cancel", "date": "2026-11-24" });
        enter(&system, FactKind::ContractEvent, cancel).await;
        assert_eq!(ask(&mut client, "a").await, 429, "it was withdrawn");
        drop(client);
        drop(system.close().await);
    });
}

#[test]
fn without_the_contract_a_budget_may_allow_warn_or_only_count() {
    for (more, warns, shadowed) in
        [(", without: allow", false, 0), (", mode: soft", true, 0), (", mode: shadow", false, 1)]
    {
        run(&budget(more), |system| async move {
            let mut client = system.client();
            system.provider.json(200, REPLY);
            client.post(CHAT_PATH, &[], ASK).await;
            let reply = client.reply().await;
            assert_eq!((reply.status(), reply.header("x-bursar-budget-warning").is_some()), (200, warns));
            assert_eq!(system.metric("bursar_budget_shadowed_total"), shadowed);
            drop(client);
            drop(system.close().await);
        });
    }
}

#[test]
fn only_what_the_contract_is_for_is_under_the_budget() {
    run(&budget(""), |system| async move {
        let held = json!({ "designation": { "teams": ["a"], "models": ["gpt-*"] } });
        enter(&system, FactKind::Contract, commitment(10, &held)).await;
        let mut client = system.client();
        assert_eq!(ask(&mut client, "a").await, 429);
        passes(&system, &mut client, "b").await;
        system.settled().await;
        look(&system).await;
        assert_eq!(standing(&system).settled, 0);
        drop(client);
        drop(system.close().await);
    });
}

#[test]
fn what_another_contract_delivers_first_does_not_draw_this_one() {
    run(&budget(""), |system| async move {
        let first = json!({ "position_id": "first", "kind": "forward_physical" });
        enter(&system, FactKind::Contract, commitment(500, &first)).await;
        enter(&system, FactKind::Contract, commitment(5 * BOUND, &json!({}))).await;
        let mut client = system.client();
        passes(&system, &mut client, "a").await;
        system.settled().await;
        assert_eq!(standing(&system).settled, 8, "until somebody looks, it is as if it had paid");
        look(&system).await;
        assert_eq!(standing(&system).settled, 0);
        drop(client);
        drop(system.close().await);
    });
}

#[test]
fn what_must_be_used_in_its_day_is_there_anew_the_next_day() {
    run(&budget(""), |system| async move {
        // Thirty days.
        let daily = json!({ "commitment": { "fulfilment_interval": "day" } });
        enter(&system, FactKind::Contract, commitment(30 * (BOUND + 4), &daily)).await;
        let mut client = system.client();
        passes(&system, &mut client, "a").await;
        system.settled().await;
        look(&system).await;
        assert_eq!((standing(&system).limit, standing(&system).settled), (BOUND + 4, 8));
        client.post(CHAT_PATH, &[], ASK).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.header("retry-after")), (429, Some("43200")));
        system.clock.advance(DAY);
        passes(&system, &mut client, "a").await;
        system.settled().await;
        assert_eq!(standing(&system).settled, 8);
        drop(client);
        drop(system.close().await);
    });
}

#[test]
fn other_settings_bring_other_budgets_on_contracts_without_a_restart() {
    run("", |system| async move {
        enter(&system, FactKind::Contract, commitment(1_000, &json!({}))).await;
        let mut client = system.client();
        passes(&system, &mut client, "a").await;
        system.settled().await;
        system.reload(None, &budget("")).unwrap();
        assert_eq!((standing(&system).limit, standing(&system).settled), (1_000, 8), "what was before");
        passes(&system, &mut client, "a").await;
        system.settled().await;
        // Another mode and a second budget keep what is known.
        let two = "budgets:\n  - { name: other, contract: none, without: allow }\n  - { name: b, contract: c, mode: soft }\n";
        system.reload(None, two).unwrap();
        assert_eq!(standing(&system).settled, 16);
        system.reload(None, &budget(", scope: { team: nobody }")).unwrap();
        assert_eq!(standing(&system).limit, 1_000);
        passes(&system, &mut client, "a").await;
        system.reload(None, "").unwrap();
        assert_eq!(system.app.budgets.contract_standing("b", system.app.now()), None);
        drop(client);
        drop(system.close().await);
    });
}

#[test]
fn after_a_restart_what_was_drawn_is_known() {
    run(&budget(""), |system| async move {
        enter(&system, FactKind::Contract, commitment(1_000, &json!({}))).await;
        let mut client = system.client();
        passes(&system, &mut client, "a").await;
        passes(&system, &mut client, "a").await;
        drop(client);
        let (clock, rules) = (system.clock.clone(), system.app.config().contract_budgets.clone());
        let dir = system.close().await;
        let prices = Arc::new(bursar::app::Prices::new(PriceBook::builtin().unwrap()));
        let budgets = Arc::new(Budgets::new(Vec::new()).with_contracts(rules));
        let options = Options { observer: Some(budgets.clone()), ..Options::new(&dir.path().join("ledger")) };
        let (ledger, _) = Ledger::open(options, clock.clone(), prices.clone()).unwrap();
        budgets.look_at_contracts(&ledger, &prices, clock.now()).unwrap();
        let standing = budgets.contract_standing("b", clock.now()).unwrap();
        assert_eq!((standing.limit, standing.settled), (1_000, 16));
        ledger.close().unwrap();
    });
}

#[test]
fn rules_name_a_budget_on_a_contract_and_one_without_its_contract_is_used_up() {
    let rules = "rules:
  - { name: named, when: 'budgets[\"b\"] >= 100 && team == \"named\"', deny: 'the credit is gone' }
  - { name: any, when: 'budget.used_percent >= 50 && team == \"any\"', deny: half }
  - { name: share, budget: b, when_used: 50%, when: 'team == \"share\"', deny: half }
";
    run(&format!("{}{rules}", budget(", mode: soft")), |system| async move {
        let mut client = system.client();
        for team in ["named", "any", "share"] {
            assert_eq!(ask(&mut client, team).await, 403, "{team}: nobody entered the contract");
        }
        enter(&system, FactKind::Contract, commitment(2 * BOUND, &json!({}))).await;
        for team in ["named", "any", "share"] {
            passes(&system, &mut client, team).await;
            system.settled().await;
        }
        // Another one is held: more than half of it.
        system.hold_ledger();
        passes(&system, &mut client, "other").await;
        passes(&system, &mut client, "other").await;
        for (team, status) in [("any", 403), ("share", 403), ("named", 403)] {
            assert_eq!(ask(&mut client, team).await, status, "{team}");
        }
        drop(client);
        system.release_ledger();
        drop(system.close().await);
    });
}

#[test]
fn a_budget_on_a_contract_has_no_limit_to_override_and_the_refusal_says_why() {
    run(&budget(""), |system| async move {
        enter(&system, FactKind::Contract, commitment(BOUND, &json!({}))).await;
        let path = "/api/v1/budget-overrides?budget=b&add=500tokens&until=7d&reason=launch";
        let (status, said) = unhurried(bursar::admin::answer(Arc::clone(&system.app), "POST", path)).await;
        assert_eq!(status, 400, "{said}");
        for part in ["budget", "what its contract", "`bursar contract`"] {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(standing(&system).limit, BOUND);
        drop(system.close().await);
    });
}
