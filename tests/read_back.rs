//! Replies that are made at once, kept by the provider and read back: they count when they are made.

use bursar_domain::Metering;
use bursar_ledger::StoredRecord;
use bursar_tests::{Setup, System};

const ROUTES: &str = "
builtin_routes: false
routes:
  - { prefix: /gemini, upstream: 'http://provider.test', provider: gemini }
  - { prefix: /xai, upstream: 'http://provider.test', provider: xai }
  - { prefix: /openai, upstream: 'http://provider.test', provider: openai }
";

const INTERACTION: &str = r#"{"id":"v1_a","status":"completed","model":"gemini-2.5-flash","steps":[],"usage":{"total_input_tokens":20,"total_output_tokens":5,"total_tokens":25}}"#;

const EVENTS: &str = concat!(
    "event: interaction.created\ndata: {\"event_type\":\"interaction.created\",\"interaction\":{\"id\":\"v1_a\",\"status\":\"in_progress\"}}\n\n",
    "event: interaction.completed\ndata: {\"event_type\":\"interaction.completed\",\"interaction\":{\"id\":\"v1_a\",\"status\":\"completed\",\"model\":\"gemini-2.5-flash\",\"usage\":{\"total_input_tokens\":20,\"total_output_tokens\":5,\"total_tokens\":25}}}\n\n",
);

/// A response; `background` is a field of it, or nothing.
fn response(background: &str) -> String {
    format!(
        r#"{{"id":"resp_a","object":"response",{background}"status":"completed","model":"grok-4.3","output":[],"usage":{{"input_tokens":20,"output_tokens":5,"total_tokens":25}}}}"#
    )
}

fn run<Fut: Future<Output = ()>>(test: impl FnOnce(System) -> Fut) {
    let mut setup = Setup::new("");
    setup.routes = ROUTES.to_owned();
    setup.run(test);
}

fn shown(records: &[StoredRecord]) -> Vec<(&str, Metering, bool)> {
    records.iter().map(|r| (r.record.api.as_str(), r.record.metering, r.counted)).collect()
}

/// Makes a reply at `path` with `body`, which is answered by `made`, and reads it back twice as `read`.
fn check(
    path: &'static str,
    body: &'static str,
    made: (&'static str, String),
    read: String,
    expected: [bool; 3],
) {
    run(|system| async move {
        let (kind, text) = made;
        system.provider.reply(200, &[("content-type", kind)], text.as_bytes());
        system.provider.json(200, &read);
        system.provider.json(200, &read);
        let mut client = system.client();
        client.post(path, &[], body).await;
        assert_eq!(client.reply().await.text(), text);
        let id = if path.contains("interactions") { "v1_a" } else { "resp_a" };
        for _ in 0..2 {
            client.ask("GET", &format!("{path}/{id}"), &[]).await;
            assert_eq!(client.reply().await.text(), read);
        }
        let records = system.records().await;
        let counted: Vec<_> = records.iter().map(|stored| stored.counted).collect();
        assert_eq!(counted, expected, "{path} {body} {:?}", shown(&records));
        assert_eq!(records[0].record.meter_id.as_ref().map(|id| id.as_str()), Some(id));
        let priced: Vec<_> = records.iter().map(|stored| stored.record.cost.is_some()).collect();
        assert_eq!(priced, counted);
    });
}

const JSON: &str = "application/json";
const ONCE: [bool; 3] = [true, false, false];

#[test]
fn an_interaction_counts_when_it_is_made_and_not_when_it_is_read_back() {
    let path = "/gemini/v1beta/interactions";
    let ask = r#"{"model":"gemini-2.5-flash","input":"hi"}"#;
    check(path, ask, (JSON, INTERACTION.to_owned()), INTERACTION.to_owned(), ONCE);
    let stream = r#"{"model":"gemini-2.5-flash","input":"hi","stream":true}"#;
    check(path, stream, ("text/event-stream", EVENTS.to_owned()), INTERACTION.to_owned(), ONCE);
}

#[test]
fn an_interaction_of_the_background_counts_when_it_is_first_read() {
    let queued = r#"{"id":"v1_a","status":"in_progress","model":"gemini-2.5-flash"}"#.to_owned();
    let ask = r#"{"model":"gemini-2.5-flash","input":"hi","background":true}"#;
    let path = "/gemini/v1beta/interactions";
    check(path, ask, (JSON, queued), INTERACTION.to_owned(), [false, true, false]);
}

#[test]
fn a_response_that_does_not_say_how_it_was_made_counts_when_it_is_made() {
    let ask = r#"{"model":"grok-4.3","input":"hi"}"#;
    check("/xai/v1/responses", ask, (JSON, response("")), response(""), ONCE);
    let told = response(r#""background":false,"#);
    check("/openai/v1/responses", ask, (JSON, told.clone()), told, ONCE);
}
