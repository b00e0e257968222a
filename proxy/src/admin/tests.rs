//! The admin API as its callers see it: every operation against every kind of mistake.

use super::table::{Body as Takes, Method, Needs, OPERATIONS, Operation};
use super::*;
use crate::app::Prices;
use crate::budgets::Budgets;
use crate::config::{Config, Sources};
use crate::telemetry::Telemetry;
use axum::body::Body;
use axum::http::HeaderMap;
use bursar_domain::SystemClock;
use bursar_ledger::{Ledger, Options};
use bursar_policies::price::PriceBook;
use serde_json::Value;

/// An application with a ledger of its own.
pub(super) struct Bench {
    pub(super) app: Arc<App>,
    _dir: tempfile::TempDir,
    // Dropped, it would mean that the process ends.
    _shutdown: watch::Sender<Shutdown>,
    router: Router,
}

pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Bench {
    pub(super) fn new(settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::load(Sources::from_text(settings)).unwrap();
        let prices = Arc::new(Prices::new(PriceBook::builtin().unwrap()));
        let budgets = Arc::new(Budgets::new(config.budgets.clone()));
        let telemetry = Telemetry::new(&config.telemetry);
        let options = Options::new(&dir.path().join("ledger"));
        let pricer: Arc<dyn bursar_ledger::Pricer> = prices.clone();
        let (ledger, _) = Ledger::open(options, Arc::new(SystemClock), pricer).unwrap();
        let app = App::new(config, ledger, prices, budgets, telemetry, Arc::new(SystemClock));
        let (shutdown, state) = watch::channel(Shutdown::No);
        let router = router(Admin::new(Arc::clone(&app), state));
        Self { app, _dir: dir, _shutdown: shutdown, router }
    }

    pub(super) async fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Reply {
        let mut request = axum::http::Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).unwrap();
        let Ok(response) = self.router.clone().oneshot(request).await;
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let body = String::from_utf8_lossy(&body).into_owned();
        Reply { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub(super) async fn get(&self, target: &str) -> Reply {
        self.ask("GET", target, &[], Vec::new()).await
    }
}

/// The path of an operation with something in the place of braces.
pub(super) fn path_of(operation: &Operation) -> String {
    let Some(place) = operation.place else { return operation.path.to_owned() };
    let value = match place.kind {
        param::Kind::OneOf(words) => words[0],
        param::Kind::Month => "2026-09",
        param::Kind::Id => "0190f0a0-0000-7000-8000-000000000001",
        _ => "x",
    };
    operation.path.replace(&format!("{{{}}}", place.name), value)
}

pub(super) fn verb(operation: &Operation) -> &'static str {
    match operation.method {
        Method::Get => "GET",
        Method::Post => "POST",
    }
}

/// The reply is a problem with this status, and says this.
pub(super) fn check_problem(reply: &Reply, status: u16, detail: &str, about: &str) {
    assert_eq!(reply.status, status, "{about}: {}", reply.body);
    assert_eq!(reply.header("content-type"), "application/problem+json", "{about}");
    let problem = reply.json();
    assert_eq!(problem["status"], status, "{about}");
    assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()), "{about}: {problem}");
    assert!(problem["detail"].as_str().unwrap().contains(detail), "{about}: {problem} lacks {detail:?}");
}

/// A page of another origin can read nothing, and no preflight lets it write.
#[tokio::test]
async fn no_other_origin_is_let_in() {
    let bench = Bench::new("");
    let origin = ("origin", "https://page.example");
    let preflight =
        [origin, ("access-control-request-method", "POST"), ("access-control-request-headers", "x")];
    let paths = OPERATIONS.iter().map(path_of).chain(["/metrics", "/healthz", "/"].map(str::to_owned));
    for path in paths {
        for (method, headers) in
            [("OPTIONS", &preflight[..]), ("GET", &preflight[..1]), ("POST", &preflight[..1])]
        {
            let reply = bench.ask(method, &path, headers, Vec::new()).await;
            let lets_in = reply.headers.keys().any(|name| name.as_str().starts_with("access-control-"));
            assert!(!lets_in, "{method} {path}: {:?}", reply.headers);
        }
    }
}

#[tokio::test]
async fn every_operation_refuses_every_kind_of_mistake_with_a_problem_that_names_it() {
    let bench = Bench::new("");
    for operation in OPERATIONS {
        let (path, method) = (path_of(operation), verb(operation));
        let other = bench.ask("DELETE", &path, &[], Vec::new()).await;
        check_problem(&other, 405, "does not take this method", &path);
        assert!(other.header("allow").contains(method), "{path}: {}", other.header("allow"));
        let unknown = bench.ask(method, &format!("{path}?colour=red"), &[], Vec::new()).await;
        check_problem(&unknown, 400, "\"colour\" is unknown here", &path);
        for param in operation.params() {
            let about = format!("{path} {}", param.name);
            let mut target = format!("{path}?{}=%00", param.name);
            let bad = bench.ask(method, &target, &[], Vec::new()).await;
            check_problem(&bad, 400, &format!("{}: \"\\0\" is not taken", param.name), &about);
            target = format!("{path}?{0}=%ff", param.name);
            check_problem(&bench.ask(method, &target, &[], Vec::new()).await, 400, "UTF-8", &about);
        }
        if operation.body != Takes::Nothing {
            let typed = [("content-type", "image/png")];
            check_problem(
                &bench.ask(method, &path, &typed, vec![1]).await,
                415,
                "\"image/png\" is not taken",
                &path,
            );
        }
        if operation.place.is_some() {
            let broken = operation.path.split('{').next().unwrap().to_owned() + "%ff";
            let broken = format!("{broken}{}", operation.path.split('}').nth(1).unwrap());
            let reply = bench.ask(method, &broken, &[], Vec::new()).await;
            assert!((400..500).contains(&reply.status), "{broken}: {} {}", reply.status, reply.body);
            check_problem(&reply, reply.status, "", &broken);
        }
    }
    for path in
        ["/api", "/api/v1", "/api/v1/", "/api/v1/usage/", "/api/v2/usage", "/api/v1/why/a/b", "//healthz"]
    {
        check_problem(&bench.get(path).await, 404, "there is nothing here", path);
    }
    check_problem(
        &bench.get("/api/v1/usage?from=2026-11-02&from=7d").await,
        400,
        "\"from\" is there twice",
        "twice",
    );
    let page =
        bench.ask("POST", "/api/v1/revenue-events", &[("origin", "http://evil.test")], Vec::new()).await;
    check_problem(&page, 403, "a web page cannot write here", "a web page");
}

/// A page whose name resolves to loopback asks, to a browser, its own origin: only the name tells.
#[tokio::test]
async fn without_a_token_only_loopbacks_own_names_are_answered() {
    let bench = Bench::new("");
    let own = [
        "localhost",
        "LOCALHOST:9464",
        "localhost.:80",
        "a.localhost",
        "sidecar:9464",
        "127.0.0.1:9464",
        "[::1]:9464",
        "",
    ];
    for host in own {
        assert_eq!(
            bench.ask("GET", "/api/v1/usage", &[("host", host)], Vec::new()).await.status,
            200,
            "{host}"
        );
    }
    assert_eq!(bench.get("http://localhost:9464/api/v1/usage").await.status, 200, "as HTTP/2 names it");
    let told = "without a token the admin API answers only to `localhost`";
    for host in [
        "evil.test",
        "evil.test:9464",
        "localhost.evil.test",
        "127.0.0.1.evil.test",
        "notlocalhost.test",
        ":",
    ] {
        for path in ["/api/v1/usage", "/", "/dashboard/page.js", "/nothing"] {
            let reply = bench.ask("GET", path, &[("host", host)], Vec::new()).await;
            check_problem(&reply, 403, told, &format!("{host} {path}"));
        }
        assert_eq!(bench.ask("GET", "/healthz", &[("host", host)], Vec::new()).await.status, 200, "{host}");
        assert_eq!(bench.ask("GET", "/metrics", &[("host", host)], Vec::new()).await.status, 200, "{host}");
    }
    check_problem(&bench.get("http://evil.test/api/v1/usage").await, 403, told, "as HTTP/2 names it");
    let hidden = Bench::new("admin: { metrics_public: false }");
    let reply = hidden.ask("GET", "/metrics", &[("host", "evil.test")], Vec::new()).await;
    check_problem(&reply, 403, told, "metrics that are not public");
}

#[tokio::test]
async fn bodies_that_are_no_rows_are_refused_with_a_problem() {
    let bench = Bench::new("");
    let batch = [("content-type", "application/cloudevents-batch+json")];
    let events = "/api/v1/revenue-events";
    check_problem(&bench.ask("POST", events, &batch, b"[{".to_vec()).await, 400, "no JSON array", "bad JSON");
    check_problem(&bench.ask("POST", events, &[], vec![0xff]).await, 400, "UTF-8", "bytes");
    let bad = bench.ask("POST", "/api/v1/import/fixings", &[], b"[{\"index\":1}]".to_vec()).await;
    check_problem(&bad, 422, "rows are bad", "a bad row");
    assert_eq!((bad.json()["rows"].clone(), bad.json()["errors"][0]["line"].clone()), (1.into(), 1.into()));
    let large = vec![b' '; hedge::IMPORT_BYTES_MAX + 1];
    check_problem(
        &bench.ask("POST", "/api/v1/contracts", &[], large).await,
        413,
        "in pieces",
        "a large body",
    );
    check_problem(
        &bench.ask("POST", "/api/v1/import/nothing", &[], vec![b'1']).await,
        404,
        "cannot be imported",
        "what",
    );
}

#[tokio::test]
async fn a_panic_of_a_handler_is_an_answer_without_details() {
    let router: Router = Router::new()
        .route("/", axum::routing::get(async || if true { panic!("canary") } else { "" }))
        .layer(middleware::from_fn(gate::catch_panic));
    let request = axum::http::Request::builder().uri("/").body(Body::empty()).unwrap();
    let Ok(response) = router.oneshot(request).await;
    assert_eq!(response.status(), 500);
    let body = axum::body::to_bytes(response.into_body(), 1_000).await.unwrap();
    assert!(!String::from_utf8_lossy(&body).contains("canary"));
}

#[tokio::test]
async fn what_cannot_be_exported_is_refused_before_the_answer_begins() {
    let bench = Bench::new("");
    for (query, said) in [
        ("cost-and-usage?as=reported", "as reported is asked of one calendar month"),
        ("contract-commitment?as=reported", "as reported is asked of one calendar month"),
        ("cost-and-usage?as=of+old", "as"),
        (
            "cost-and-usage?by=source&to=2027-01-01&from=2026-11-01&on=2026-11-30",
            "source is no custom column",
        ),
    ] {
        let refused = bench.get(&format!("/api/v1/focus/{query}")).await;
        check_problem(&refused, 400, said, query);
    }
}

#[tokio::test]
async fn lists_are_told_in_pages_and_the_document_is_served() {
    let bench = Bench::new(
        "budgets:\n  - { name: a, window: month, limit: 1 USD }\n  - { name: b, window: month, limit: 1 USD }\n",
    );
    let first = bench.get("/api/v1/budgets?limit=1").await.json();
    assert_eq!((&first["budgets"][0]["budget"], &first["next_cursor"]), (&"a".into(), &"a".into()));
    let last = bench.get("/api/v1/budgets?limit=1&cursor=a").await.json();
    assert_eq!((&last["budgets"][0]["budget"], &last["next_cursor"]), (&"b".into(), &Value::Null));
    check_problem(&bench.get("/api/v1/budgets?cursor=z").await, 400, "cursor: no row", "cursor");
    check_problem(&bench.get("/api/v1/budgets?limit=0").await, 400, "limit: \"0\" is not taken", "limit");
    for operation in OPERATIONS.iter().filter(|operation| operation.pages.is_some()) {
        let path = path_of(operation);
        let reply = bench.get(&path).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        assert!(reply.json().get("next_cursor").is_some(), "{path}");
    }
    for path in ["/openapi.json", "/api/v1/openapi.json"] {
        assert_eq!(bench.get(path).await.body, openapi());
    }
    assert_eq!(OPERATIONS.iter().filter(|operation| operation.needs == Needs::Nothing).count(), 2);
}

// === who may ask ===

pub(super) const TOKENS: [(&str, &str); 3] =
    [("read", "canary-reads"), ("ingest", "canary-ingests"), ("admin", "canary-all")];

/// Off loopback, with a token for each scope.
pub(super) fn guarded(more: &str) -> String {
    let token = |(scope, text): (&str, &str)| {
        let hash = crate::credentials::admin::TokenHash::of(text.as_bytes());
        format!("    - {{ name: the-{scope}, scopes: [{scope}], hash: '{hash}' }}\n")
    };
    let tokens: String = TOKENS.map(token).concat();
    format!(
        "admin:\n  listen: 10.0.0.1:4142\n{more}  tokens:\n{tokens}budgets:\n  - {{ name: b, window: month, limit: 5 USD }}\n"
    )
}

async fn asked_as(bench: &Bench, operation: &Operation, token: Option<&str>) -> Reply {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
    bench.ask(verb(operation), &path_of(operation), &headers, Vec::new()).await
}

#[tokio::test]
async fn off_loopback_nothing_but_health_answers_without_a_token_of_the_right_scope() {
    let bench = Bench::new(&guarded(""));
    for operation in OPERATIONS {
        let about = format!("{} {}", verb(operation), operation.path);
        for token in [None, Some("canary"), Some("canary-readsx"), Some("")] {
            let reply = asked_as(&bench, operation, token).await;
            if operation.needs == Needs::Nothing {
                assert_eq!(reply.status, 200, "{about}");
                continue;
            }
            check_problem(&reply, 401, "token", &about);
            assert!(reply.header("www-authenticate").starts_with("Bearer realm"), "{about}");
            assert!(!reply.body.contains("canary"), "{about}");
        }
        for (scope, text) in TOKENS {
            let may = match operation.needs {
                Needs::Nothing | Needs::AnyToken => true,
                Needs::Read | Needs::ReadOrPublic => scope != "ingest",
                Needs::Ingest => scope != "read",
                Needs::Admin => scope == "admin",
            };
            let reply = asked_as(&bench, operation, Some(text)).await;
            if may {
                assert!(
                    !matches!(reply.status, 401 | 403 | 405 | 500),
                    "{about} {scope}: {} {}",
                    reply.status,
                    reply.body
                );
            } else {
                check_problem(&reply, 403, "it needs the scope", &about);
                assert!(reply.header("www-authenticate").contains("insufficient_scope"), "{about}");
            }
        }
    }
    for path in ["/", "/nothing", "/api/v1/usage/", "/metrics/"] {
        check_problem(&bench.get(path).await, 401, "send a token", path);
    }
    check_problem(
        &bench.ask("DELETE", "/api/v1/usage", &[], Vec::new()).await,
        401,
        "send a token",
        "DELETE",
    );
    let basic = [("authorization", "Basic canary-all")];
    check_problem(&bench.ask("GET", "/api/v1/usage", &basic, Vec::new()).await, 401, "no token", "Basic");
    let public = Bench::new(&guarded("  metrics_public: true\n"));
    assert_eq!(public.get("/metrics").await.status, 200);
    assert_eq!(public.get("/api/v1/usage").await.status, 401);
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back_and_nobody_else_is() {
    let bench = Bench::new(&guarded("  requests_per_minute: 3\n"));
    let usage = OPERATIONS.iter().find(|operation| operation.id == "usage").unwrap();
    for _ in 0..3 {
        check_problem(&asked_as(&bench, usage, Some("guess")).await, 401, "no token", "a guess");
    }
    let refused = asked_as(&bench, usage, Some("another guess")).await;
    check_problem(&refused, 429, "more than 3 requests in a minute", "a fourth guess");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 20);
    assert_eq!(bench.get("/healthz").await.status, 200);
    for _ in 0..3 {
        assert_eq!(asked_as(&bench, usage, Some("canary-reads")).await.status, 200);
    }
    assert_eq!(asked_as(&bench, usage, Some("canary-reads")).await.status, 429);
    assert_eq!(asked_as(&bench, usage, Some("canary-all")).await.status, 200);
}

#[tokio::test]
async fn every_write_leaves_who_made_it_and_what_changed_nothing_leaves_nothing() {
    let bench = Bench::new(&guarded(""));
    let ask = async |token: &str, method: &str, target: &str, body: &str| {
        let bearer = format!("Bearer {token}");
        bench.ask(method, target, &[("authorization", &bearer)], body.as_bytes().to_vec()).await
    };
    let fixing = "index,date,value,currency\nTPI,2026-09-01,2.25,USD\n";
    let event = r#"[{"id":"i1","source":"billing","kind":"revenue","amount":"5","currency":"USD","time":"2026-09-01T00:00:00Z","workload":"w"}]"#;
    let contract = r#"{"position_id":"c1","kind":"prepaid_credit","quantity":"300","unit":"USD","price_currency":"USD","trade_date":"2026-08-01","effective_from":"2026-09-01","effective_until":"2026-12-01","designation":{"providers":["openai"]}}"#;
    let usage = r#"{"id":"r1","started_at":"2026-09-02T00:00:00Z","provider":"openai","model":"gpt-5","usage":{"input_tokens":5,"output_tokens":6},"outcome":"ok"}"#;
    for (token, target, body) in [
        ("canary-ingests", "/api/v1/import/fixings", fixing),
        ("canary-ingests", "/api/v1/revenue-events", event),
        ("canary-all", "/api/v1/contracts", contract),
        ("canary-ingests", "/api/v1/contracts/c1/events", r#"{"event":"cancel","date":"2026-10-01"}"#),
        ("canary-all", "/api/v1/import/usage", usage),
        ("canary-all", "/api/v1/budget-overrides?budget=b&add=1USD&until=7d&reason=launch", ""),
        ("canary-all", "/api/v1/periods/2026-09/close?accept_gaps=true", ""),
    ] {
        let reply = ask(token, "POST", target, body).await;
        assert_eq!(reply.status, 200, "{target}: {}", reply.body);
    }
    let made = ask("canary-reads", "GET", "/api/v1/budget-overrides", "").await.json();
    let id = made["overrides"][0]["id"].as_str().unwrap().to_owned();
    let reply = ask("canary-all", "POST", &format!("/api/v1/budget-overrides/{id}/revoke"), "").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    // Nothing is changed by what is there already, is only tried, or is refused.
    for (target, body) in [
        ("/api/v1/import/fixings", fixing),
        ("/api/v1/import/fixings?dry_run=true", "index,date,value,currency\nTPI,2026-09-02,2.25,USD\n"),
        ("/api/v1/import/fixings", "index,date,value,currency\nTPI,2026-09-02,x,USD\n"),
        ("/api/v1/ledger/prune?detail=40d", ""),
    ] {
        ask("canary-all", "POST", target, body).await;
    }
    assert_eq!(ask("canary-reads", "POST", "/api/v1/contracts", contract).await.status, 403);

    let reply = ask("canary-reads", "GET", "/api/v1/audit", "").await;
    assert!(!reply.body.contains("canary"), "{}", reply.body);
    let told: Vec<String> = reply.json()["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            assert!(row["via"] == "127.0.0.1" && row["at"].is_string());
            format!("{} {} {}", row["who"].as_str().unwrap(), row["what"].as_str().unwrap(), row["recorded"])
        })
        .collect();
    let expected = [
        r#"the-ingest POST /api/v1/import/{what} {"fixing":1,"import_batch":1,"index":1}"#,
        r#"the-ingest POST /api/v1/revenue-events {"import_batch":1,"revenue":1}"#,
        r#"the-admin POST /api/v1/contracts {"contract":1,"import_batch":1}"#,
        r#"the-ingest POST /api/v1/contracts/{id}/events {"contract_event":1,"import_batch":1}"#,
        r#"the-admin POST /api/v1/import/{what} {"import_batch":1}"#,
        r#"the-admin POST /api/v1/budget-overrides {"budget_override":1}"#,
        r#"the-admin POST /api/v1/periods/{month}/close {"period_close":2}"#,
        r#"the-admin POST /api/v1/budget-overrides/{id}/revoke {"budget_override":1}"#,
    ];
    assert_eq!(told, expected);
    let row = &reply.json()["rows"][3];
    assert_eq!(row["about"], "/api/v1/contracts/c1/events");
    let page = ask("canary-reads", "GET", "/api/v1/audit?who=the-ingest&limit=1", "").await.json();
    assert_eq!((page["rows"].as_array().unwrap().len(), page["next_cursor"].is_string()), (1, true));
}
