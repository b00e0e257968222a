//! What can be read in two ways is refused, or held at its costlier reading.
//!
//! Not here: which requests are asked at all (`gates`), other figures that are held (`budgets`).

use crate::transcripts::{CHAT_PATH, MESSAGES_PATH};
use bursar_tests::{Client, System, run};

const BUDGET: &str =
    "budgets: [{ name: b, window: day, limit: 90000000 tokens }]\nreserve: { max_output: 5000 }\n";

/// What becomes of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// It passes, and so many output tokens are held beside the bytes of the body.
    Output(u64),
    /// It is refused before the upstream sees it, and the reason says this.
    Refused(&'static str),
}
use Held::{Output, Refused};

const TWICE: &str = "is told twice and differs";
const UNREAD: &str = "cannot be read";

async fn check(system: &System, path: &str, headers: &[(&str, &str)], body: &str, expected: Held) {
    system.provider.start_anew();
    system.provider.json(200, "{}");
    let before = held(system);
    let mut client = system.client();
    client.post(path, headers, body).await;
    let reply = client.reply().await;
    let found = held(system) - before;
    match expected {
        Output(output) => {
            assert_eq!(reply.status(), 200, "{path} {body}: {}", reply.text());
            assert_eq!(found, i128::from(output) + body.len() as i128, "{path} {body}");
        }
        Refused(words) => {
            assert_eq!(reply.status(), 429, "{path} {body}");
            assert!(reply.text().contains(words), "{path} {body}: {}", reply.text());
            assert_eq!((found, system.provider.received().len()), (0, 0), "{path} {body}");
        }
    }
}

fn held(system: &System) -> i128 {
    system.app.budgets.standing(0, system.app.now()).unwrap().held
}

/// All these bodies on one path.
fn check_all(path: &'static str, cases: &'static [(&'static str, Held)]) {
    run(BUDGET, move |system| async move {
        // Nothing is settled, so that what is held stays to be seen.
        system.hold_ledger();
        for (body, expected) in cases {
            check(&system, path, &[], body, *expected).await;
        }
        system.release_ledger();
    });
}

#[test]
fn of_several_bounds_the_highest_is_held_under_whichever_name_it_stands() {
    check_all(
        CHAT_PATH,
        &[
            (r#"{"model":"m"}"#, Output(5_000)),
            (r#"{"model":"m","max_tokens":70}"#, Output(70)),
            (r#"{"model":"m","max_completion_tokens":71}"#, Output(71)),
            (r#"{"model":"m","max_output_tokens":72}"#, Output(72)),
            (r#"{"model":"m","max_new_tokens":73}"#, Output(73)),
            (r#"{"model":"m","n_predict":74}"#, Output(74)),
            (r#"{"model":"m","maxTokens":75}"#, Output(75)),
            (r#"{"model":"m","max_tokens":1,"max_completion_tokens":900}"#, Output(900)),
            (r#"{"model":"m","max_completion_tokens":1,"max_tokens":900}"#, Output(900)),
            (r#"{"model":"m","max_tokens":900,"max_tokens":1}"#, Output(900)),
            (r#"{"model":"m","max_tokens":1,"max_tokens":900}"#, Output(900)),
            (r#"{"model":"m","max_tokens":1,"max_tok\u0065ns":900}"#, Output(900)),
            (r#"{"model":"m","max_tokens":1,"generationConfig":{"maxOutputTokens":901}}"#, Output(901)),
            (r#"{"model":"m","max_tokens":1,"generation_config":{"max_output_tokens":902}}"#, Output(902)),
            (r#"{"model":"m","max_tokens":1,"inferenceConfig":{"maxTokens":903}}"#, Output(903)),
            (r#"{"model":"m","max_tokens":1,"options":{"num_predict":904}}"#, Output(904)),
            (r#"{"model":"m","max_tokens":1,"parameters":{"max_new_tokens":905}}"#, Output(905)),
            (
                r#"{"model":"m","max_tokens":1,"additionalModelRequestFields":{"max_tokens":906}}"#,
                Output(906),
            ),
            // The same in numbers that are written in other ways.
            (r#"{"model":"m","max_tokens":9e2}"#, Output(900)),
            (r#"{"model":"m","max_tokens":900.0}"#, Output(900)),
            (r#"{"model":"m","max_tokens":null,"max_completion_tokens":3}"#, Output(3)),
            // What bounds nothing is no bound.
            (r#"{"model":"m","max_tokens":-1}"#, Output(5_000)),
            (r#"{"model":"m","max_tokens":7,"max_completion_tokens":-1}"#, Output(5_000)),
            (r#"{"model":"m","max_tokens":"9"}"#, Output(5_000)),
            (r#"{"model":"m","max_tokens":7000,"n_predict":-1}"#, Output(7_000)),
            // Keys in other cases of their letters mean something to some servers.
            (r#"{"model":"m","max_tokens":1,"Max_Tokens":900}"#, Refused(TWICE)),
            (r#"{"model":"m","MAXTOKENS":900}"#, Refused(TWICE)),
            (r#"{"model":"m","options":{"Num_Predict":900}}"#, Refused(TWICE)),
        ],
    );
}

#[test]
fn every_choice_and_every_prompt_is_held() {
    check_all(
        CHAT_PATH,
        &[
            (r#"{"model":"m","max_tokens":10,"n":3}"#, Output(30)),
            (r#"{"model":"m","max_tokens":10,"n":3,"best_of":5}"#, Output(50)),
            (r#"{"model":"m","max_tokens":10,"n":5,"n":1}"#, Output(50)),
            (r#"{"model":"m","max_tokens":10,"n":1,"generationConfig":{"candidateCount":4}}"#, Output(40)),
            (r#"{"model":"m","max_tokens":10,"num_generations":6}"#, Output(60)),
            (r#"{"model":"m","max_tokens":10,"n":0}"#, Output(10)),
            (r#"{"model":"m","max_tokens":10,"N":4}"#, Refused(TWICE)),
        ],
    );
    check_all(
        "/openai/v1/completions",
        &[
            (r#"{"model":"m","max_tokens":10,"prompt":"a"}"#, Output(10)),
            (r#"{"model":"m","max_tokens":10,"prompt":["a","b","c"],"n":2}"#, Output(60)),
            (r#"{"model":"m","max_tokens":10,"prompt":[[1,2],[3]],"best_of":4}"#, Output(80)),
            (r#"{"model":"m","max_tokens":10,"prompt":[1,2,3]}"#, Output(10)),
        ],
    );
}

#[test]
fn what_decides_the_price_is_told_once_or_not_let_through() {
    check_all(
        CHAT_PATH,
        &[
            (r#"{"max_tokens":1,"model":"cheap","model":"dear"}"#, Refused(TWICE)),
            (r#"{"max_tokens":1,"model":"cheap","mod\u0065l":"dear"}"#, Refused(TWICE)),
            (r#"{"max_tokens":1,"model":"cheap","Model":"dear"}"#, Refused(TWICE)),
            (
                r#"{"max_tokens":1,"model":"m","service_tier":"flex","service_tier":"priority"}"#,
                Refused(TWICE),
            ),
            (
                r#"{"max_tokens":1,"model":"m","service_tier":"flex","serviceTier":"priority"}"#,
                Refused(TWICE),
            ),
            (r#"{"max_tokens":1,"model":"m","model":"m"}"#, Output(1)),
            ("{\"model\":\"m\",\"max_tokens\":1", Refused(UNREAD)),
            ("{\"model\":\"m\",\"max_tokens\":1}{}", Refused(UNREAD)),
            ("\u{feff}{\"model\":\"m\",\"max_tokens\":1}", Refused(UNREAD)),
        ],
    );
    check_all(
        MESSAGES_PATH,
        &[
            (r#"{"max_tokens":1,"model":"m","speed":"standard","speed":"fast"}"#, Refused(TWICE)),
            (r#"{"max_tokens":1,"model":"m","inference_geo":"us","inference_geo":"global"}"#, Refused(TWICE)),
            (r#"{"max_tokens":1,"model":"m","speed":"fast"}"#, Output(1)),
        ],
    );
}

#[test]
fn heads_that_say_otherwise_than_the_body_are_not_let_through() {
    let bedrock = format!("{BUDGET}builtin_routes: false\n");
    let routes = "routes: [{ prefix: /b, upstream: 'http://provider.test', provider: bedrock }]";
    let setup = bursar_tests::Setup { routes: routes.to_owned(), ..bursar_tests::Setup::new(&bedrock) };
    setup.run(|system| async move {
        system.hold_ledger();
        let name = "x-amzn-bedrock-service-tier";
        let plain = r#"{"max_tokens":1}"#;
        let flex = r#"{"max_tokens":1,"service_tier":"flex"}"#;
        let path = "/b/model/dear/invoke";
        check(&system, path, &[(name, "priority")], plain, Output(1)).await;
        check(&system, path, &[(name, "flex")], flex, Output(1)).await;
        check(&system, path, &[(name, "priority")], flex, Refused(TWICE)).await;
        check(&system, path, &[(name, "flex"), (name, "priority")], plain, Refused(TWICE)).await;
        check(&system, path, &[("content-encoding", "lzw")], plain, Refused(UNREAD)).await;
        system.release_ledger();
    });
}

#[test]
fn a_form_names_one_model() {
    run(BUDGET, |system| async move {
        let field = |name: &str, value: &str| {
            format!("--b\r\ncontent-disposition: form-data; {name}\r\n\r\n{value}\r\n")
        };
        let model = || field("name=\"model\"", "whisper-1");
        for (fields, status) in [
            (vec![model()], 200),
            (vec![model(), model()], 200),
            (vec![model(), field("name=\"model\"", "dear")], 429),
            (vec![field("NAME=\"model\"", "dear"), model()], 429),
        ] {
            let body = fields.concat() + "--b--\r\n";
            system.provider.start_anew();
            system.provider.json(200, "{}");
            let mut client = system.client();
            let head = format!(
                "POST /openai/v1/audio/transcriptions HTTP/1.1\r\nhost: a\r\n\
                 content-type: multipart/form-data; boundary=b\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            client.send(head.as_bytes()).await;
            assert_eq!(client.reply().await.status(), status, "{body}");
        }
    });
}

#[test]
fn a_session_that_names_two_models_is_not_opened() {
    run(BUDGET, |system| async move {
        for (query, status) in [
            ("model=gpt-realtime", 200),
            ("model=gpt-realtime&model=gpt-realtime", 200),
            ("model=gpt-realtime-mini&model=gpt-realtime", 429),
            ("model=gpt-realtime-mini&MODEL=gpt-realtime", 429),
            ("model=gpt-realtime-mini&%6Dodel=gpt-realtime", 429),
            ("deployment=a&model=b", 429),
        ] {
            system.provider.start_anew();
            system.provider.json(200, "{}");
            let mut client: Client = system.client();
            let handshake = [
                ("connection", "Upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ("sec-websocket-version", "13"),
            ];
            client.ask("GET", &format!("/openai/v1/realtime?{query}"), &handshake).await;
            let reply = client.reply().await;
            assert_eq!(reply.status(), status, "{query}");
            assert_eq!(system.provider.received().len(), usize::from(status == 200), "{query}");
        }
    });
}

#[test]
fn without_a_budget_it_passes_as_it_came() {
    run("", |system| async move {
        let body = r#"{"model":"cheap","model":"dear","Max_Tokens":9}"#;
        system.provider.json(200, "{}");
        let mut client = system.client();
        client.post(CHAT_PATH, &[], body).await;
        assert_eq!(client.reply().await.status(), 200);
        assert_eq!(system.provider.request().body, body.as_bytes());
    });
}
