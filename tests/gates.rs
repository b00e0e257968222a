//! Every way that leads to a model has the same gate: a generated table of each route × each API × each way to
//! say who asks, against a budget that is used up and a list of models that allows none of these.
//!
//! Invariants
//! - The table is made of the code's own lists (routes, APIs): what is new there is either in it or does not
//!   compile.
//! - What the gate turns away reaches no upstream, not even as a connection.
//!
//! Not here: what single budgets and rules do (`budgets`, `access`), how much is held (`costlier`).

use crate::transcripts::{CHAT, CHAT_PATH};
use bursar::layers::route::api_on;
use bursar::usage::Api;
use bursar_domain::{Label, Metering};
use bursar_tests::{Client, Http2Client, Setup, System, http2, run};
use http::Method;
use std::collections::BTreeSet;

/// What a call asks for, below the prefix of a route.
#[derive(Clone, Copy, Debug)]
struct Way {
    method: &'static str,
    path: &'static str,
    body: &'static str,
}

const fn post(path: &'static str, body: &'static str) -> Way {
    Way { method: "POST", path, body }
}

const fn get(path: &'static str) -> Way {
    Way { method: "GET", path, body: "" }
}

/// A body that names the model in its first place.
const NAMED: &str =
    r#"{"model":"dear","input":"x","messages":[],"prompt":"x","query":"x","documents":["x"]}"#;
/// A body of an API that names the model in the path.
const BARE: &str = r#"{"contents":[],"messages":[],"prompt":"x"}"#;

/// How each API is called. No wildcard: a new one needs its row.
fn ways(api: Api) -> Vec<Way> {
    match api {
        Api::OpenAiChat => vec![
            post("/v1/chat/completions", NAMED),
            post("/openai/deployments/dear/chat/completions?api-version=1", BARE),
            post("/v1/chat", NAMED),
            post("/v1/projects/p/locations/l/publishers/mistralai/models/dear:rawPredict", BARE),
        ],
        Api::Responses => vec![post("/v1/responses", NAMED)],
        Api::ResponsesCompact => vec![post("/v1/responses/compact", NAMED)],
        Api::ResponsesGet => vec![get("/v1/responses/r"), post("/v1/responses/r/cancel", "")],
        Api::ChatStoreGet => vec![
            get("/v1/chat/completions/c"),
            post("/v1/chat/completions/c", "{}"),
            get("/v1/chat/completions"),
        ],
        Api::LegacyCompletions => vec![post("/v1/completions", NAMED)],
        Api::Embeddings => vec![post("/v1/embeddings", NAMED), post("/v1/multimodalembeddings", NAMED)],
        Api::Moderation => vec![post("/v1/moderations", NAMED)],
        Api::Messages => vec![
            post("/v1/messages", NAMED),
            post("/v1/projects/p/locations/l/publishers/anthropic/models/dear:streamRawPredict", BARE),
        ],
        Api::Realtime => vec![get("/v1/realtime?model=dear")],
        Api::Live => {
            vec![get("/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent")]
        }
        Api::GenerateContent => vec![post("/v1beta/models/dear:generateContent", BARE)],
        Api::StreamGenerateContent => vec![post("/v1beta/models/dear:streamGenerateContent?alt=sse", BARE)],
        Api::EmbedContent => vec![
            post("/v1beta/models/dear:embedContent", BARE),
            post("/v1beta/models/dear:batchEmbedContents", BARE),
            post("/v1/projects/p/locations/l/publishers/google/models/text-embedding-005:predict", BARE),
        ],
        Api::Interactions => vec![post("/v1beta/interactions", NAMED)],
        Api::InteractionsGet => {
            vec![get("/v1beta/interactions/i"), post("/v1beta/interactions/i/cancel", "")]
        }
        Api::CountTokens => vec![
            post("/v1/messages/count_tokens", NAMED),
            post("/v1/responses/input_tokens", NAMED),
            post("/v1beta/models/dear:countTokens", BARE),
            post("/model/dear/count-tokens", BARE),
            post("/v1/tokenize", NAMED),
        ],
        Api::Converse => vec![post("/model/dear/converse", BARE)],
        Api::ConverseStream => vec![post("/model/dear/converse-stream", BARE)],
        Api::Invoke => vec![post("/model/dear/invoke", BARE)],
        Api::InvokeStream => vec![post("/model/dear/invoke-with-response-stream", BARE)],
        // A dialect of its own: elsewhere the same path is another API.
        Api::CohereChatV1 => vec![post("/v1/chat", NAMED)],
        Api::CohereChat => vec![post("/v2/chat", NAMED)],
        Api::CohereEmbed => vec![post("/v2/embed", NAMED)],
        Api::CohereClassify => vec![post("/v1/classify", NAMED)],
        Api::OllamaChat => vec![post("/api/chat", NAMED)],
        Api::OllamaGenerate => vec![post("/api/generate", NAMED)],
        Api::OllamaEmbed => vec![post("/api/embed", NAMED)],
        Api::Rerank => vec![post("/v1/rerank", NAMED)],
        Api::Images => vec![post("/v1/images/generations", NAMED), post("/v1/images/edits", NAMED)],
        Api::Transcription => vec![post("/v1/audio/transcriptions", NAMED)],
        Api::Speech => vec![post("/v1/audio/speech", NAMED)],
        Api::Ocr => vec![post("/v1/ocr", NAMED)],
        Api::AssistantsRun => vec![
            post("/v1/threads/t/runs", NAMED),
            post("/v1/threads/runs", NAMED),
            post("/v1/threads/t/runs/r/submit_tool_outputs", "{}"),
            get("/v1/threads/t/runs/r"),
            post("/v1/threads/t/runs/r/cancel", ""),
        ],
        Api::BatchCreate => vec![
            post("/v1/batches", r#"{"input_file_id":"f","model":"dear"}"#),
            post("/v1/messages/batches", r#"{"requests":[{"custom_id":"1","params":{"model":"dear"}}]}"#),
            post("/v1/batch/jobs", r#"{"input_files":["f"],"model":"dear"}"#),
        ],
        Api::Batch => {
            vec![get("/v1/batches/b"), post("/v1/batches/b/cancel", ""), post("/v1/batches/b", "{}")]
        }
        Api::BatchOutput => vec![get("/v1/files/f/content")],
        Api::MessagesBatchResults => vec![get("/v1/messages/batches/b/results")],
        Api::BatchResults => vec![get("/v1/batches/b/results")],
        Api::GeminiBatchCreate => vec![
            post("/v1beta/models/dear:batchGenerateContent", "{}"),
            post("/v1beta/models/dear:asyncBatchEmbedContent", "{}"),
        ],
        Api::GeminiBatch => vec![get("/v1beta/batches/b")],
        Api::Unmetered => vec![
            get("/v1/models"),
            post("/v1/fine_tuning/jobs", NAMED),
            post("/v1/videos", NAMED),
            post("/v1/files", "{}"),
            post("/anything/at/all", NAMED),
        ],
    }
}

/// Whether a call passes a budget of which nothing is left. No wildcard: a new API must be thought about.
fn is_let_through(api: Api, method: &str, path: &str) -> bool {
    let reads = method != "POST";
    let cancels = path.ends_with("/cancel");
    match api {
        // Free, or what was asked and paid for before.
        Api::Moderation
        | Api::CountTokens
        | Api::ResponsesGet
        | Api::InteractionsGet
        | Api::ChatStoreGet
        | Api::BatchOutput
        | Api::MessagesBatchResults
        | Api::BatchResults
        | Api::GeminiBatch => true,
        Api::AssistantsRun | Api::Batch => reads || cancels,
        // Nobody knows what it costs, so nobody can say that it fits.
        Api::Unmetered => reads,
        Api::OpenAiChat
        | Api::Responses
        | Api::ResponsesCompact
        | Api::LegacyCompletions
        | Api::Embeddings
        | Api::Messages
        | Api::Realtime
        | Api::Live
        | Api::GenerateContent
        | Api::StreamGenerateContent
        | Api::EmbedContent
        | Api::Interactions
        | Api::Converse
        | Api::ConverseStream
        | Api::Invoke
        | Api::InvokeStream
        | Api::CohereChatV1
        | Api::CohereChat
        | Api::CohereEmbed
        | Api::CohereClassify
        | Api::OllamaChat
        | Api::OllamaGenerate
        | Api::OllamaEmbed
        | Api::Rerank
        | Api::Images
        | Api::Transcription
        | Api::Speech
        | Api::Ocr
        | Api::BatchCreate
        | Api::GeminiBatchCreate => false,
    }
}

/// Whether a call passes a list of models on which the one that it names is not.
fn needs_no_model(api: Api, method: &str, path: &str) -> bool {
    match api {
        // Free, but it asks a model.
        Api::Moderation | Api::CountTokens => false,
        Api::Unmetered if path.ends_with("/files") => true,
        _ => is_let_through(api, method, path),
    }
}

const HANDSHAKE: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-version", "13"),
];

/// All built-in routes, and one that passes everything through.
const ROUTES: &str = "
routes:
  - { prefix: /plain, upstream: 'http://provider.test', dialect: passthrough, provider: something }
  - { prefix: /h2, upstream: 'http://h2.test', provider: openai, protocol: http2 }
";

/// One call of the table: a path that is asked for and the API that it is there.
#[derive(Clone, Debug)]
struct Call {
    way: Way,
    path: String,
    api: Api,
}

/// Each route × each way of each API; and which APIs were met.
fn table(system: &System) -> Vec<Call> {
    let config = system.app.config();
    let mut calls = Vec::new();
    for route in config.routes.iter().filter(|route| route.name.as_str() != "/h2") {
        let prefix = route.name.as_str().replace("{region}", "eu-west-1").replace("{resource}", "res");
        for way in Api::ALL.into_iter().flat_map(ways) {
            for path in [format!("{prefix}{}", way.path), way.path.to_owned()] {
                let bare = path.split('?').next().unwrap();
                let Ok(matched) = config.routes.resolve(bare) else { continue };
                if matched.route.name != route.name {
                    continue;
                }
                let method = Method::from_bytes(way.method.as_bytes()).unwrap();
                let api = api_on(route.dialect, &method, &matched.path());
                calls.push(Call { way, path, api });
            }
        }
    }
    let met: BTreeSet<usize> = calls.iter().map(|call| call.api as usize).collect();
    let missing: Vec<Api> = Api::ALL.into_iter().filter(|api| !met.contains(&(*api as usize))).collect();
    assert!(missing.is_empty(), "no route leads to {missing:?}");
    calls
}

/// Asks, and tells the status; 200 is what the provider says.
async fn ask(system: &System, call: &Call, headers: &[(&str, &str)]) -> u16 {
    let mut client = system.client();
    let headers = if call.api.is_session() { [&HANDSHAKE, headers].concat() } else { headers.to_vec() };
    match call.way.method {
        "POST" => client.post(&call.path, &headers, call.way.body).await,
        method => client.ask(method, &call.path, &headers).await,
    }
    client.reply().await.status()
}

/// Every call of the table passes or is turned away with `status`, as `passes` says.
async fn check_table(
    system: &System,
    headers: &[(&str, &str)],
    status: u16,
    passes: fn(Api, &str, &str) -> bool,
) {
    let mut counts = (0, 0);
    for call in table(system) {
        system.provider.start_anew();
        let expected = if passes(call.api, call.way.method, call.way.path) {
            system.provider.json(200, "{}");
            counts.0 += 1;
            200
        } else {
            counts.1 += 1;
            status
        };
        let connections = system.provider.connections();
        assert_eq!(ask(system, &call, headers).await, expected, "{call:?}");
        if expected != 200 {
            assert_eq!(system.provider.connections(), connections, "{call:?} reached its upstream");
            assert!(system.provider.received().is_empty(), "{call:?}");
        }
    }
    assert!(counts.0 > 100 && counts.1 > 500, "the table has {counts:?} calls that pass and that do not");
}

/// Uses up all that is left: one request that uses more than was held for it.
async fn use_up(system: &System, headers: &[(&str, &str)]) {
    let reply = r#"{"id":"c","object":"chat.completion","model":"gpt-4o-mini","choices":[],"usage":{"prompt_tokens":50000000,"completion_tokens":1,"total_tokens":50000001}}"#;
    system.provider.json(200, reply);
    let ask = CHAT.replace('{', r#"{"max_tokens":10,"#).replacen(
        r#","messages":[{"max_tokens":10,"#,
        r#","messages":[{"#,
        1,
    );
    let mut client = system.client();
    client.post(CHAT_PATH, headers, &ask).await;
    assert_eq!(client.reply().await.status(), 200);
    system.settled().await;
    for number in 0..u32::try_from(system.app.config().budgets.len()).unwrap() {
        assert!(system.app.budgets.standing(number, system.app.now()).unwrap().left() <= 0);
    }
}

fn with<Fut: Future<Output = ()>>(settings: &str, test: impl FnOnce(System) -> Fut) {
    Setup { routes: ROUTES.to_owned(), ..Setup::new(settings) }.run(test);
}

const TEAM: [(&str, &str); 1] = [("x-bursar-team", "a")];

#[test]
fn every_route_and_api_is_refused_by_a_token_budget_that_is_used_up() {
    with(
        "budgets: [{ name: b, scope: { team: a }, window: day, limit: 10000 tokens }]",
        |system| async move {
            use_up(&system, &TEAM).await;
            check_table(&system, &TEAM, 429, is_let_through).await;
        },
    );
}

#[test]
fn every_route_and_api_is_refused_by_a_money_budget_that_is_used_up() {
    with(
        "budgets: [{ name: b, scope: { team: a }, window: day, limit: 1 USD, unpriced: allow }]",
        |system| async move {
            use_up(&system, &TEAM).await;
            check_table(&system, &TEAM, 429, is_let_through).await;
        },
    );
}

#[test]
fn every_route_and_api_is_refused_by_a_list_of_other_models() {
    with("access: [{ name: few, scope: { team: a }, allow_models: [cheap] }]", |system| async move {
        check_table(&system, &TEAM, 403, needs_no_model).await;
    });
}

#[test]
fn other_methods_open_no_other_door() {
    with("budgets: [{ name: b, window: day, limit: 10000 tokens }]", |system| async move {
        use_up(&system, &[]).await;
        let config = system.app.config().clone();
        for call in table(&system).iter().filter(|call| call.path.starts_with("/openai/")) {
            for method in ["PUT", "PATCH"] {
                system.provider.start_anew();
                system.provider.json(200, "{}");
                let matched = config.routes.resolve(call.path.split('?').next().unwrap()).unwrap();
                let api = api_on(
                    matched.route.dialect,
                    &Method::from_bytes(method.as_bytes()).unwrap(),
                    &matched.path(),
                );
                let mut client = system.client();
                client.ask(method, &call.path, &[]).await;
                // Changing what is stored costs nothing; nothing else is known by these methods.
                let changes = matches!(api, Api::ChatStoreGet | Api::Batch)
                    && is_let_through(api, "POST", call.way.path);
                let expected = if changes { 200 } else { 429 };
                assert_eq!(client.reply().await.status(), expected, "{method} {}", call.path);
            }
            for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
                let mut client = system.client();
                client.ask("GET", &call.path, &[(name, "POST")]).await;
                assert_eq!(client.reply().await.status(), 400, "{name} {}", call.path);
            }
        }
    });
}

// === who asks ===

/// The ways that lead to spending, each by another part of the sidecar.
const LANES: [(&str, &str, &str, &str); 8] = [
    ("chat", "POST", CHAT_PATH, CHAT),
    ("pass-through", "POST", "/plain/v9/anything", "{}"),
    ("unmetered", "POST", "/openai/v1/videos", "{}"),
    ("batch", "POST", "/openai/v1/batches", r#"{"input_file_id":"f"}"#),
    ("messages batch", "POST", "/anthropic/v1/messages/batches", r#"{"requests":[]}"#),
    ("gemini batch", "POST", "/gemini/v1beta/models/gemini-2.5-flash:batchGenerateContent", "{}"),
    ("realtime", "GET", "/openai/v1/realtime?model=gpt-realtime", ""),
    (
        "live",
        "GET",
        "/gemini/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
        "",
    ),
];

/// How a request says who asks, or tries to: name, headers, query, and what goes into the body; whether the
/// gate knows it as one of the budgets' by that.
type Carrier = (&'static str, &'static [(&'static str, &'static str)], &'static str, &'static str, bool);

const CARRIERS: [Carrier; 17] = [
    ("header", &[("x-bursar-team", "a")], "", "", true),
    ("header in other cases", &[("X-Bursar-TEAM", "a")], "", "", true),
    ("baggage", &[("baggage", "x-bursar-team=a")], "", "", true),
    ("baggage, percent-encoded", &[("baggage", "k=v, x-bursar-team=%61")], "", "", true),
    ("a header goes before baggage", &[("x-bursar-team", "a"), ("baggage", "x-bursar-team=b")], "", "", true),
    ("customer", &[("x-bursar-customer", "acme")], "", "", true),
    ("customer by an alias", &[("x-litellm-end-user-id", "acme")], "", "", true),
    ("customer by another alias", &[("helicone-user-id", "acme")], "", "", true),
    ("customer in metadata", &[("x-portkey-metadata", r#"{"_user":"acme"}"#)], "", "", true),
    ("tag", &[("x-bursar-tag-env", "prod")], "", "", true),
    ("tag by an alias", &[("helicone-property-env", "prod")], "", "", true),
    ("tag in a list", &[("x-litellm-tags", "nightly,env:prod")], "", "", true),
    ("tag in baggage", &[("baggage", "x-bursar-tag-env=prod")], "", "", true),
    // What a query or a body says of its sender takes nobody out of a budget, and nobody in.
    (
        "header, and a query that says otherwise",
        &[("x-bursar-team", "a")],
        "x-bursar-team=b&team=b",
        "",
        true,
    ),
    (
        "header, and a body that says otherwise",
        &[("x-bursar-team", "a")],
        "",
        r#""user":"b","metadata":{"team":"b","tags":["team:b"],"x-bursar-team":"b"}"#,
        true,
    ),
    ("query alone", &[], "x-bursar-team=a", "", false),
    ("body alone", &[], "", r#""user":"acme","metadata":{"team":"a","env":"prod"}"#, false),
];

const BUDGETS: &str = "budgets:
  - { name: team, scope: { team: a }, window: day, limit: 10000 tokens }
  - { name: customer, scope: { customer: acme }, window: day, limit: 10000 tokens }
  - { name: tag, scope: { tags: { env: prod } }, window: day, limit: 10000 tokens }
";

const EVERYTHING: [(&str, &str); 3] =
    [("x-bursar-team", "a"), ("x-bursar-customer", "acme"), ("x-bursar-tag-env", "prod")];

/// A call of a lane with what a carrier adds to it.
fn carried(
    lane: (&'static str, &'static str, &'static str, &'static str),
    query: &str,
    member: &str,
) -> (String, String) {
    let (_, _, path, body) = lane;
    let path = match (query, path.contains('?')) {
        ("", _) => path.to_owned(),
        (query, true) => format!("{path}&{query}"),
        (query, false) => format!("{path}?{query}"),
    };
    let body = match (member, body) {
        ("", body) => body.to_owned(),
        (_, "") => String::new(),
        (member, "{}") => format!("{{{member}}}"),
        (member, body) => body.replacen('{', &format!("{{{member},"), 1),
    };
    (path, body)
}

#[test]
fn whoever_is_known_by_header_alias_or_baggage_meets_the_gate_on_every_lane_and_at_every_retry() {
    with(BUDGETS, |system| async move {
        use_up(&system, &EVERYTHING).await;
        for lane in LANES {
            for (name, headers, query, member, is_known) in CARRIERS {
                let (path, body) = carried(lane, query, member);
                // The first time, and twice again as SDKs do it.
                for retry in ["0", "1", "2"] {
                    let again = [("x-stainless-retry-count", retry), ("idempotency-key", "k")];
                    let headers = [headers, &again[..]].concat();
                    system.provider.start_anew();
                    if !is_known {
                        system.provider.json(200, "{}");
                    }
                    let mut client = system.client();
                    match lane.1 {
                        "POST" => client.post(&path, &headers, &body).await,
                        method => client.ask(method, &path, &[&HANDSHAKE, &headers[..]].concat()).await,
                    }
                    let expected = if is_known { 429 } else { 200 };
                    let case = format!("{} by {name}, try {retry}", lane.0);
                    assert_eq!(client.reply().await.status(), expected, "{case}");
                    assert_eq!(system.provider.received().is_empty(), is_known, "{case}");
                }
            }
        }
    });
}

#[test]
fn headers_in_two_readings_are_refused_on_every_lane() {
    run("", |system| async move {
        for (_, method, path, body) in LANES.into_iter().filter(|lane| !lane.2.starts_with("/plain")) {
            for lines in [
                "x-bursar-team: a\r\nx-bursar-team: b\r\n",
                "x-bursar-team: a\r\nX-Bursar-Team: a\r\n",
                "x_bursar_team: a\r\n",
                "X-Bursar_Team: a\r\n",
                "x-bursar-tag-env: prod\r\nX-BURSAR-TAG-ENV: dev\r\n",
                "x_bursar-tag-env: prod\r\n",
                "authorization: Bearer a\r\nAuthorization: Bearer b\r\n",
            ] {
                let mut client = system.client();
                let head = format!(
                    "{method} {path} HTTP/1.1\r\nhost: a\r\n{lines}content-length: {}\r\n\r\n{body}",
                    body.len()
                );
                client.send(head.as_bytes()).await;
                assert_eq!(client.reply().await.status(), 400, "{method} {path} {lines}");
            }
        }
        assert_eq!(system.provider.connections(), 0);
    });
}

#[test]
fn http2_has_the_same_gate() {
    with(BUDGETS, |system| async move {
        use_up(&system, &EVERYTHING).await;
        let mut client = system.http2_client().await;
        for (name, _, path, body) in LANES.into_iter().filter(|lane| lane.1 == "POST") {
            let connections = system.provider.connections();
            assert_eq!(over_http2(&mut client, path, body).await, 429, "{name}");
            assert_eq!(system.provider.connections(), connections, "{name}");
        }
    });
}

async fn over_http2(client: &mut Http2Client, path: &str, body: &str) -> u16 {
    client.send(http2::post(path, &TEAM, body)).await.head.status().as_u16()
}

// === other spellings of a path ===

/// Other ways to write a path that some server may read as the same one.
fn spellings(path: &str) -> Vec<String> {
    let (path, query) =
        path.split_once('?').map_or((path, String::new()), |(path, query)| (path, format!("?{query}")));
    let mut spelt = vec![
        format!("{path}/"),
        format!("{path}//"),
        format!("{path}/."),
        format!("{path};a=b"),
        format!("{path}%20"),
        format!("{path}%00"),
        format!("{path}#f"),
        format!("http://provider.test{path}"),
        format!("//provider.test{path}"),
        path.to_ascii_uppercase(),
        path.replace('/', "\\"),
    ];
    for (at, _) in path.match_indices('/') {
        let (before, after) = path.split_at(at);
        let segment = after[1..].split('/').next().unwrap();
        let rest = &after[1 + segment.len()..];
        let mut capital = segment.to_owned();
        capital[..1].make_ascii_uppercase();
        spelt.extend([
            format!("{before}/{after}"),
            format!("{before}/.{after}"),
            format!("{before}/x/..{after}"),
            format!("{before}/%2e{after}"),
            format!("{before}/x/%2E%2e{after}"),
            format!("{before}/..;{after}"),
            format!("{before}%2f{}", &after[1..]),
            format!("{before}%5C{}", &after[1..]),
            format!("{before}/{}{rest}", segment.to_ascii_uppercase()),
            format!("{before}/{capital}{rest}"),
            format!("{before}/{segment};v=1{rest}"),
            format!("{before}/%{:02x}{}{rest}", segment.as_bytes()[0], &segment[1..]),
            format!("{before}/%25{:02x}{}{rest}", segment.as_bytes()[0], &segment[1..]),
        ]);
    }
    spelt.retain(|other| other != path);
    spelt.into_iter().map(|spelt| spelt + &query).collect()
}

/// One call of each API that is metered, by the first route that has it.
fn metered(system: &System) -> Vec<Call> {
    let table = table(system);
    let spends = |call: &&Call| {
        call.way.method == "POST" && call.api.is_metered() && !is_let_through(call.api, "POST", call.way.path)
    };
    let mut calls: Vec<Call> = Vec::new();
    for call in table.iter().filter(spends) {
        if !calls.iter().any(|known| known.api == call.api && known.way.path == call.way.path) {
            calls.push(call.clone());
        }
    }
    calls
}

#[test]
fn whatever_its_path_looks_like_a_call_reaches_its_upstream_metered_or_not_at_all() {
    with("", |system| async move {
        let (mut tried, mut passed) = (0, 0);
        for call in metered(&system) {
            for path in spellings(&call.path) {
                system.provider.start_anew();
                system.provider.json(200, "{}");
                let mut client = system.client();
                let headers = [("x-bursar-workload", call.api.name()), ("x-bursar-session", path.as_str())];
                let sent = client_post(&mut client, &path, &headers, call.way.body).await;
                let status = client.reply().await.status();
                assert!(matches!(status, 200 | 400 | 404), "{path}: {status}");
                assert_eq!(system.provider.received().len(), usize::from(status == 200), "{path} {sent}");
                tried += 1;
                passed += usize::from(status == 200);
            }
        }
        assert!(tried > 1_500 && passed > 100, "{passed} of {tried}");
        for stored in system.records().await {
            let record = &stored.record;
            let expected = record.identity.workload.as_ref().map(Label::as_str);
            assert_eq!(Some(record.api.as_str()), expected, "{record:?}");
            assert_ne!(record.api.as_str(), "unmetered");
            let is_known = matches!(record.metering, Metering::Count | Metering::OncePerId);
            assert!(is_known || record.http_status.is_some(), "{record:?}");
        }
    });
}

#[test]
fn no_spelling_of_a_path_gets_around_a_budget_that_is_used_up() {
    with("budgets: [{ name: b, window: day, limit: 10000 tokens }]", |system| async move {
        use_up(&system, &[]).await;
        let connections = system.provider.connections();
        for call in metered(&system) {
            for path in spellings(&call.path) {
                let mut client = system.client();
                client_post(&mut client, &path, &[], call.way.body).await;
                let status = client.reply().await.status();
                assert!(matches!(status, 400 | 404 | 429), "{path}: {status}");
            }
        }
        assert_eq!(system.provider.connections(), connections);
    });
}

#[test]
fn no_spelling_of_a_path_hides_its_model_from_a_list_of_others() {
    with("access: [{ name: few, allow_models: [cheap] }]", |system| async move {
        for call in metered(&system) {
            // Where the path names the model, a body that names another one is no way around it.
            let cheap = r#"{"model":"cheap","messages":[]}"#;
            let body = if call.way.path.contains("dear") { cheap } else { NAMED };
            for path in spellings(&call.path) {
                let mut client = system.client();
                client_post(&mut client, &path, &[], body).await;
                let status = client.reply().await.status();
                assert!(matches!(status, 400 | 403 | 404), "{path}: {status}");
            }
        }
        assert_eq!(system.provider.connections(), 0);
    });
}

/// Sends a call whose path may be anything; a body follows only where the head is taken.
async fn client_post(client: &mut Client, path: &str, headers: &[(&str, &str)], body: &str) -> bool {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: provider.test\r\ncontent-type: application/json\r\n{lines}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    client.try_send(head.as_bytes()).await
}
