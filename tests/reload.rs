//! Other settings while requests are under way.

use crate::transcripts::CHAT_PATH;
use bursar::reload::{self, Newer};
use bursar_domain::Identity;
use bursar_policies::budget::Standing;
use bursar_policies::price::PriceBook;
use bursar_tests::{Client, Setup, Step, System, run, unhurried, until};

const ASK: &str = r#"{"model":"gpt-4o-mini","max_tokens":100,"messages":[{"role":"user","content":"hi"}]}"#;
/// Five tokens in, three out.
const REPLY: &str = r#"{"id":"c","object":"chat.completion","model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}"#;
/// The most that `ASK` can use: a token has a byte at least.
const BOUND: i128 = ASK.len() as i128 + 100;
const MINUTE: i64 = 60_000_000;

async fn ask(system: &System, client: &mut Client) -> u16 {
    system.provider.json(200, REPLY);
    client.post(CHAT_PATH, &[("x-bursar-team", "a")], ASK).await;
    client.reply().await.status()
}

async fn refused(client: &mut Client) -> String {
    client.post(CHAT_PATH, &[("x-bursar-team", "a")], ASK).await;
    let reply = client.reply().await;
    assert_eq!(reply.status(), 429);
    reply.header("x-bursar-budget").or(reply.header("x-bursar-limit")).unwrap().to_owned()
}

fn standing(system: &System, number: u32) -> Standing {
    system.app.budgets.standing(number, system.app.now()).unwrap()
}

fn budgets(rows: &[&str]) -> String {
    let rows: Vec<String> = rows.iter().map(|row| format!("  - {{ {row} }}\n")).collect();
    format!("budgets:\n{}", rows.concat())
}

#[test]
fn new_routes_and_identities_hold_for_the_next_request_and_not_for_one_under_way() {
    run("identity: { team: before }", |system| async move {
        let mut waiting = system.client();
        system.provider.script([Step::Stall]);
        waiting.post(CHAT_PATH, &[], ASK).await;
        until("it is under way", || system.provider.received().len() == 1).await;
        let mut client = system.client();
        system.clock.advance(MINUTE);
        assert_eq!(ask(&system, &mut client).await, 200);
        system.clock.advance(MINUTE);

        let routes = "builtin_routes: false\nroutes:\n  \
                      - { prefix: /moved, upstream: 'http://provider.test/deep', provider: groq }\n";
        system.reload(Some(routes), "identity: { team: after }").unwrap();
        client.post(CHAT_PATH, &[], ASK).await;
        assert_eq!(client.reply().await.status(), 404, "the old route is gone, also from caches");
        system.provider.json(200, REPLY);
        client.post("/moved/v1/chat/completions", &[], ASK).await;
        assert_eq!(client.reply().await.status(), 200);
        let received = system.provider.received();
        assert!(received[2].line().starts_with("POST /deep/v1/chat/completions"), "{}", received[2].line());
        drop((waiting, client));
        until("nothing is in flight", || system.metric("bursar_requests_in_flight") == 0).await;
        let records = system.records_by_start().await;
        let told: Vec<(&str, &str)> = records
            .iter()
            .map(|stored| {
                let Identity { team, .. } = &*stored.record.identity;
                (team.as_ref().unwrap().as_str(), stored.record.provider.as_str())
            })
            .collect();
        assert_eq!(told, [("before", "openai"), ("before", "openai"), ("after", "groq")]);
    });
}

#[test]
fn another_limit_of_a_budget_keeps_what_was_spent_and_what_is_held() {
    run(&budgets(&["name: b, window: day, limit: 1000 tokens"]), |system| async move {
        let mut client = system.client();
        assert_eq!(ask(&system, &mut client).await, 200);
        system.settled().await;
        let mut waiting = system.client();
        system.provider.script([Step::Stall]);
        waiting.post(CHAT_PATH, &[], ASK).await;
        until("it is under way", || system.provider.received().len() == 2).await;
        let before = standing(&system, 0);
        assert_eq!((before.settled, before.held), (8, BOUND));

        // Another one comes before it.
        let limit = 8 + BOUND * 2 - 1;
        let rows = [
            "name: a, window: month, limit: 9000 tokens",
            &format!("name: b, window: day, limit: {limit} tokens"),
        ];
        system.reload(None, &budgets(&rows)).unwrap();
        let after = standing(&system, 1);
        assert_eq!((after.settled, after.held, after.limit), (8, BOUND, limit));
        assert_eq!(standing(&system, 0).settled, 8, "what the new one would have spent");
        assert_eq!(refused(&mut client).await, "b");

        // What was held is released by its end.
        drop(waiting);
        until("nothing is in flight", || system.metric("bursar_requests_in_flight") == 0).await;
        system.settled().await;
        assert_eq!(standing(&system, 1).held, 0);
        assert_eq!(ask(&system, &mut client).await, 200);
        drop(client);
        drop(system.close().await);
    });
}

#[test]
fn another_window_counts_what_was_spent_in_it_and_holds_stay_held() {
    run(&budgets(&["name: b, window: hour, limit: 5000 tokens"]), |system| async move {
        let mut client = system.client();
        assert_eq!(ask(&system, &mut client).await, 200);
        system.clock.advance(90 * MINUTE);
        assert_eq!(ask(&system, &mut client).await, 200);
        system.settled().await;
        assert_eq!(standing(&system, 0).settled, 8, "this hour");
        let mut waiting = system.client();
        system.provider.script([Step::Stall]);
        waiting.post(CHAT_PATH, &[], ASK).await;
        until("it is under way", || system.provider.received().len() == 3).await;

        for window in ["day", "rolling 2h", "month", "hour"] {
            let row = format!("name: b, window: {window}, limit: 5000 tokens");
            system.reload(None, &budgets(&[&row])).unwrap();
            let expected = if window == "hour" { 8 } else { 16 };
            let now = standing(&system, 0);
            assert_eq!((now.settled, now.held), (expected, BOUND), "{window}");
        }
        drop((waiting, client));
        until("nothing is in flight", || system.metric("bursar_requests_in_flight") == 0).await;
        system.settled().await;
        assert_eq!(standing(&system, 0).held, 0);
        drop(system.close().await);
    });
}

#[test]
fn what_is_settled_while_the_ledger_is_asked_is_booked_once() {
    run(&budgets(&["name: old, window: day, limit: 1000000 tokens"]), |system| async move {
        let mut client = system.client();
        let mut asked = 0;
        for round in 0..20 {
            let app = std::sync::Arc::clone(&system.app);
            let window = ["day", "month", "rolling 24h", "rolling 30d", "rolling 3h"][round % 5];
            let row = format!("name: new-{round}, window: {window}, limit: 1000000 tokens");
            let newer = Newer {
                config: Setup::new(&budgets(&[&row])).config().unwrap(),
                prices: PriceBook::builtin().unwrap(),
            };
            let reloading = tokio::task::spawn_blocking(move || reload::apply(&app, newer).unwrap());
            for _ in 0..10 {
                assert_eq!(ask(&system, &mut client).await, 200);
                asked += 1;
            }
            unhurried(reloading).await.unwrap();
            system.settled().await;
            let now = standing(&system, 0);
            assert_eq!((now.settled, now.held), (asked * 8, 0), "round {round}, {window}");
        }
        drop(client);
        drop(system.close().await);
    });
}

#[test]
fn a_limit_goes_on_with_its_debt_and_a_new_one_begins_full() {
    let limit =
        |name: &str, rate: u32| format!("limits:\n  - {{ name: {name}, requests_per_minute: {rate} }}\n");
    run(&limit("l", 1), |system| async move {
        let mut client = system.client();
        assert_eq!(ask(&system, &mut client).await, 200);
        assert_eq!(refused(&mut client).await, "l");
        system.reload(None, &limit("l", 2)).unwrap();
        assert_eq!(refused(&mut client).await, "l", "a reload gives nothing away");
        system.reload(None, &limit("m", 1)).unwrap();
        assert_eq!(ask(&system, &mut client).await, 200);
        system.reload(None, "").unwrap();
        assert_eq!(ask(&system, &mut client).await, 200);
        drop(client);
        drop(system.close().await);
    });
}

#[test]
fn a_mistake_leaves_everything_as_it_was_and_restarts_are_named() {
    let settings = budgets(&["name: b, window: day, limit: 1000 tokens"]);
    let same = settings.clone();
    run(&settings, |system| async move {
        let mut client = system.client();
        let before = std::sync::Arc::clone(&system.app.config());
        for (wrong, part) in [
            ("budgets: [ { name: b } ]", "limit"),
            ("nonsense: 1", "nonsense"),
            ("identity: { team: x, trust_header: false }", "trust_header"),
        ] {
            let refused = system.reload(None, wrong).unwrap_err();
            assert!(refused.contains(part), "{refused}");
        }
        assert!(std::sync::Arc::ptr_eq(&before, &system.app.config()));
        assert_eq!(ask(&system, &mut client).await, 200);
        system.settled().await;
        assert_eq!(standing(&system, 0).settled, 8);

        let more = format!(
            "{same}\nserver: {{ limits: {{ headers: 50 }} }}\nledger: {{ durability: sync }}\nidentity: {{ team: t }}\n"
        );
        let applied = system.reload(None, &more).unwrap();
        assert_eq!(applied.needs_restart, ["ledger.durability", "server.limits.headers"]);
        let config = system.app.config();
        assert_eq!((config.server.limits.headers, config.identity.team.is_some()), (100, true));
        let again = system.reload(None, &more).unwrap();
        assert_eq!(again, applied, "it is still told");
        drop((config, client));
        drop(system.close().await);
    });
}

#[test]
fn fifty_reloads_of_which_half_are_invalid_cost_no_request() {
    run("", |system| async move {
        let mut clients: Vec<Client> = (0..8).map(|_| system.client()).collect();
        let mut passed = 0;
        for round in 0..50 {
            for client in &mut clients {
                system.provider.json(200, REPLY);
                client.post(CHAT_PATH, &[("x-bursar-team", "a")], ASK).await;
            }
            let settings = match round % 4 {
                0 => budgets(&["name: b, window: day, limit: 1000000 tokens"]),
                2 => "limits: [ { name: l, tokens_per_minute: 1000000 } ]".to_owned(),
                _ => format!("identity: {{ tem: t{round} }}"),
            };
            assert_eq!(system.reload(None, &settings).is_ok(), round % 2 == 0);
            for client in &mut clients {
                assert_eq!(client.reply().await.status(), 200);
                passed += 1;
            }
        }
        drop(clients);
        assert_eq!((passed, system.records().await.len()), (400, 400));
    });
}
