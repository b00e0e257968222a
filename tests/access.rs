//! Access rules as clients meet them: the same gate on every way that leads to a model.

use crate::transcripts::{CHAT, CHAT_PATH, CHAT_REPLY, MESSAGES, MESSAGES_PATH};
use bursar_domain::{Metering, Outcome, RequestId};
use bursar_tests::{System, run};

const RULES: &str = "access:
  - { name: cheap, scope: { team: a }, allow_models: ['gpt-4o-mini*', 'claude-haiku*', gemini-2.5-flash] }
  - { name: providers, scope: { team: b }, deny_providers: [anthropic] }
  - { name: told, scope: { team: c }, required: [workload, 'tag:cost-center'] }
  - { name: priced, scope: { team: d }, unpriced: refuse }
";

const TEAM: (&str, &str) = ("x-bursar-team", "a");

/// Path, headers, body; status, and why.
type Case = (&'static str, &'static [(&'static str, &'static str)], String, u16, &'static str);

/// Asks as team `a`; the answer's status and, of a refusal, what `why` says.
async fn ask(system: &System, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    system.provider.start_anew();
    system.provider.json(200, "{}");
    let mut client = system.client();
    client.post(path, &[&[TEAM], headers].concat(), body).await;
    let reply = client.reply().await;
    let id = reply.header("x-bursar-request-id").and_then(RequestId::parse);
    let why = id.and_then(|id| system.app.refusals.why(id));
    (
        reply.status(),
        why.map(|refused| refused.json()["reason"].as_str().unwrap().to_owned()).unwrap_or_default(),
    )
}

#[test]
fn every_way_to_a_model_has_the_same_gate() {
    run(RULES, |system| async move {
        let dear = CHAT.replace("gpt-4o-mini", "gpt-4o");
        let batch = |models: [&str; 2]| {
            let line = |model: &str| {
                format!(r#"{{"custom_id":"x","params":{{"model":"{model}","max_tokens":1,"messages":[]}}}}"#)
            };
            format!(r#"{{"requests":[{},{}]}}"#, line(models[0]), line(models[1]))
        };
        let cases: Vec<Case> = vec![
            (CHAT_PATH, &[], CHAT.to_owned(), 200, ""),
            (CHAT_PATH, &[], dear.clone(), 403, "model_not_allowed"),
            (CHAT_PATH, &[], dear.replace("gpt-4o", "GPT-4O"), 403, "model_not_allowed"),
            (CHAT_PATH, &[], dear.replace("\"model\"", "\"mod\\u0065l\""), 403, "model_not_allowed"),
            (
                CHAT_PATH,
                &[],
                r#"{"model":"gpt-4o-mini","model":"gpt-4o","messages":[]}"#.to_owned(),
                403,
                "model_not_seen",
            ),
            (
                CHAT_PATH,
                &[],
                r#"{"model":"gpt-4o-mini","MODEL":"gpt-4o","messages":[]}"#.to_owned(),
                403,
                "model_not_seen",
            ),
            (
                CHAT_PATH,
                &[],
                r#"{"model":"gpt-4o-mini","models":["gpt-4o"]}"#.to_owned(),
                403,
                "model_not_allowed",
            ),
            (CHAT_PATH, &[], "{".to_owned(), 403, "model_not_seen"),
            (CHAT_PATH, &[("content-encoding", "gzip")], CHAT.to_owned(), 403, "model_not_seen"),
            (
                "/openai/v1/responses",
                &[],
                r#"{"model":"gpt-4o","input":"x"}"#.to_owned(),
                403,
                "model_not_allowed",
            ),
            ("/openai/v1/responses", &[], r#"{"prompt":{"id":"p"}}"#.to_owned(), 403, "model_not_seen"),
            (
                "/openai/v1/embeddings",
                &[],
                r#"{"model":"text-embedding-3-large","input":"x"}"#.to_owned(),
                403,
                "model_not_allowed",
            ),
            ("/openai/v1/chat/completions/", &[], dear.clone(), 403, "model_not_allowed"),
            ("/openai/v1/chat/comple%74ions", &[], dear.clone(), 400, ""),
            (
                "/openai/openai/deployments/gpt-4o/chat/completions",
                &[],
                CHAT.to_owned(),
                403,
                "model_not_allowed",
            ),
            (MESSAGES_PATH, &[], MESSAGES.to_owned(), 403, "model_not_allowed"),
            (
                "/anthropic/v1/messages/batches",
                &[],
                batch(["claude-haiku-4", "claude-opus-4"]),
                403,
                "model_not_allowed",
            ),
            ("/anthropic/v1/messages/batches", &[], batch(["claude-haiku-4", "claude-haiku-3"]), 200, ""),
            (
                "/openai/v1/batches",
                &[],
                r#"{"input_file_id":"f","model":"gpt-4o-mini"}"#.to_owned(),
                403,
                "model_not_seen",
            ),
            ("/openai/v1/files", &[], "{}".to_owned(), 200, ""),
            (
                "/openai/v1/fine_tuning/jobs",
                &[],
                r#"{"model":"gpt-4o-mini"}"#.to_owned(),
                403,
                "model_not_seen",
            ),
            ("/openai/v1/realtime/client_secrets", &[], "{}".to_owned(), 403, "model_not_seen"),
            ("/other/v1/anything", &[], "{}".to_owned(), 403, "model_not_seen"),
            (
                "/gemini/v1beta/models/gemini-2.5-pro:generateContent",
                &[],
                "{}".to_owned(),
                403,
                "model_not_allowed",
            ),
            ("/gemini/v1beta/models/gemini-2.5-flash:generateContent", &[], "{}".to_owned(), 200, ""),
            (
                "/gemini/v1beta/models/gemini-2.5-flash:generateContent",
                &[],
                r#"{"model":"models/gemini-2.5-pro"}"#.to_owned(),
                403,
                "model_not_allowed",
            ),
        ];
        for (path, headers, body, status, reason) in cases {
            let (found, why) = ask(&system, path, headers, &body).await;
            assert_eq!((found, why.as_str()), (status, reason), "{path} {body}");
        }
    });
}

#[test]
fn a_form_has_the_gate_too() {
    run(RULES, |system| async move {
        let field = |name: &str, value: &str| {
            format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        for (fields, status) in [
            (vec![field("model", "gpt-4o-mini-transcribe")], 200),
            (vec![field("model", "whisper-1")], 403),
            (vec![field("model", "gpt-4o-mini-transcribe"), field("model", "whisper-1")], 403),
            (vec![field("file", "x")], 403),
        ] {
            let body = fields.concat() + "--b--\r\n";
            system.provider.start_anew();
            system.provider.json(200, "{}");
            let mut client = system.client();
            let head = format!(
                "POST /openai/v1/audio/transcriptions HTTP/1.1\r\nhost: a\r\nx-bursar-team: a\r\n\
                 content-type: multipart/form-data; boundary=b\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            client.send(head.as_bytes()).await;
            assert_eq!(client.reply().await.status(), status, "{body}");
        }
    });
}

#[test]
fn paths_that_have_two_readings_reach_no_model() {
    run(RULES, |system| async move {
        let dear = CHAT.replace("gpt-4o-mini", "gpt-4o");
        for path in [
            "/openai//v1/chat/completions",
            "/openai/v1/../v1/chat/completions",
            "/openai/v1/./chat/completions",
            "/openai/v1/%2e%2e/v1/chat/completions",
            "/openai/v1%2f..%2fchat/completions",
            "/openai/v1/chat;x/../completions",
            "/OPENAI/v1/chat/completions",
        ] {
            let (status, _) = ask(&system, path, &[], &dear).await;
            assert!(status == 400 || status == 404, "{path}: {status}");
        }
        // In another case of its letters what follows the prefix may be the same path.
        let (status, why) = ask(&system, "/openai/V1/Chat/Completions", &[], &dear).await;
        assert_eq!((status, why.as_str()), (403, "model_not_allowed"));
        assert_eq!(system.provider.connections(), 0);
    });
}

#[test]
fn a_long_body_is_read_to_its_end_where_a_rule_is_about_models() {
    run(RULES, |system| async move {
        let filler = "x".repeat(200_000);
        let body = |model: &str| {
            format!(r#"{{"messages":[{{"role":"user","content":"{filler}"}}],"model":"{model}"}}"#)
        };
        assert_eq!(ask(&system, CHAT_PATH, &[], &body("gpt-4o-mini")).await.0, 200);
        let (status, why) = ask(&system, CHAT_PATH, &[], &body("gpt-4o")).await;
        assert_eq!((status, why.as_str()), (403, "model_not_allowed"));
    });
    let small = format!("{RULES}reserve: {{ body_bytes: 100KiB }}\n");
    run(&small, |system| async move {
        let body = format!(r#"{{"model":"gpt-4o-mini","messages":["{}"]}}"#, "x".repeat(200_000));
        let (status, why) = ask(&system, CHAT_PATH, &[], &body).await;
        assert_eq!((status, why.as_str()), (403, "model_not_seen"));
    });
}

#[test]
fn providers_what_must_be_said_and_prices_are_ruled_too() {
    run(RULES, |system| async move {
        let mut client = system.client();
        let unknown = CHAT.replace("gpt-4o-mini", "nobody-knows-this");
        for (path, headers, body, status, words) in [
            (
                MESSAGES_PATH,
                &[("x-bursar-team", "b")][..],
                MESSAGES,
                403,
                "does not allow the provider anthropic",
            ),
            (CHAT_PATH, &[("x-bursar-team", "b")], CHAT, 200, ""),
            (
                CHAT_PATH,
                &[("x-bursar-team", "c")],
                CHAT,
                403,
                "requires workload: send the header x-bursar-workload",
            ),
            (
                CHAT_PATH,
                &[("x-bursar-team", "c"), ("x-bursar-workload", "w")],
                CHAT,
                403,
                "x-bursar-tag-cost-center",
            ),
            (
                CHAT_PATH,
                &[("x-bursar-team", "c"), ("x-bursar-workload", "w"), ("x-bursar-tag-cost-center", "7")],
                CHAT,
                200,
                "",
            ),
            (CHAT_PATH, &[("x-bursar-team", "d")], CHAT, 200, ""),
            (CHAT_PATH, &[("x-bursar-team", "d")], unknown.as_str(), 403, "nobody knows what they may cost"),
            (CHAT_PATH, &[("x-bursar-team", "e")], unknown.as_str(), 200, ""),
            (CHAT_PATH, &[], unknown.as_str(), 200, ""),
        ] {
            if status == 200 {
                system.provider.json(200, CHAT_REPLY);
            }
            client.post(path, headers, body).await;
            let reply = client.reply().await;
            assert_eq!(reply.status(), status, "{headers:?} {}", reply.text());
            assert!(reply.text().contains(words), "{}", reply.text());
        }
        assert_eq!(system.metric("bursar_requests_refused_total{reason=\"tag_missing\"}"), 2);
        drop(client);
        let records = system.records().await;
        let refused = records.iter().filter(|stored| stored.record.outcome == Outcome::Refused);
        assert!(refused.clone().all(|stored| stored.record.metering == Metering::Never));
        assert_eq!((records.len(), refused.count()), (9, 4));
    });
}

#[test]
fn calls_that_use_no_model_pass() {
    run(RULES, |system| async move {
        for (method, path) in [
            ("GET", "/openai/v1/models"),
            ("DELETE", "/openai/v1/files/f"),
            ("GET", "/openai/v1/responses/r"),
        ] {
            system.provider.json(200, "{}");
            let mut client = system.client();
            client.ask(method, path, &[TEAM]).await;
            assert_eq!(client.reply().await.status(), 200, "{method} {path}");
        }
    });
}
