//! The admin API: health, metrics and what the commands ask for, on a listener of its own.
//!
//! Invariants
//! - Off loopback nothing but health (and metrics, if so configured) answers without a token.
//! - Errors are `application/problem+json` (RFC 9457).
//! - A slow reader or a large report never delays the proxy: this runs on a thread of its own.
//!
//! Not here: what the reports contain (`report`, `ledger::query`).

mod access;
mod audit;
mod books;
mod budgets;
mod contracts;
mod dashboard;
mod focus;
mod gate;
mod hedge;
mod ledger_metrics;
mod listener;
pub mod metrics;
mod openapi;
mod paging;
mod param;
mod prices;
mod rate;
mod reconcile;
mod reports;
mod roi;
mod strict;
mod table;
pub(crate) mod tls;
mod webhooks;

pub(crate) use contracts::look as look_at_contracts;

use crate::app::App;
use crate::listen::Shutdown;
use crate::process;
use crate::telemetry::target;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tower::ServiceExt;

/// What a handler needs.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) app: Arc<App>,
    shutdown: watch::Receiver<Shutdown>,
    contracts: hedge::ContractFigures,
    rates: Arc<rate::Rates>,
}

/// The address of whoever is on the other end of a connection.
#[derive(Clone, Copy, Debug)]
struct Peer(IpAddr);

impl Admin {
    fn new(app: Arc<App>, shutdown: watch::Receiver<Shutdown>) -> Self {
        Self { app, shutdown, contracts: hedge::ContractFigures::default(), rates: Arc::default() }
    }
}

/// Serves the admin API until the process ends.
pub async fn serve(
    app: Arc<App>,
    listener: std::net::TcpListener,
    shutdown: watch::Receiver<Shutdown>,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let looking = contracts::keep_looking(Arc::clone(&app));
    let router = router(Admin::new(Arc::clone(&app), shutdown.clone()));
    tokio::select! {
        () = listener::serve(&app, listener, router, shutdown) => {}
        () = looking => {}
    }
    Ok(())
}

/// What the admin API answers to a request without a body, as its listener would; 400 where it is none.
pub async fn answer(app: Arc<App>, method: &str, target: &str) -> (u16, String) {
    let (_, shutdown) = watch::channel(Shutdown::No);
    let router = router(Admin::new(app, shutdown));
    let request = axum::http::Request::builder().method(method).uri(target).body(axum::body::Body::empty());
    let Ok(request) = request else { return (400, String::new()) };
    let Ok(response) = router.oneshot(request).await;
    let status = response.status().as_u16();
    let body = http_body_util::BodyExt::collect(response.into_body()).await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// The OpenAPI document of the API.
#[must_use]
pub fn openapi() -> String {
    openapi::text()
}

fn router(admin: Admin) -> Router {
    let mut router = Router::new();
    for operation in table::OPERATIONS {
        router = router.route(operation.path, gate::route(operation));
    }
    // The last one is the first to see a request.
    router
        .fallback(async || problem(StatusCode::NOT_FOUND, "there is nothing here; the API is under /api/v1"))
        .layer(middleware::from_fn_with_state(admin.clone(), access::admit))
        .layer(middleware::from_fn(gate::catch_panic))
        .layer(middleware::map_response(gate::as_problem))
        .layer(middleware::map_response(async |response| sealed(response)))
        .with_state(admin)
}

/// The process runs.
async fn healthz() -> &'static str {
    "ok\n"
}

/// The process serves: it is not draining and its ledger takes records (or traffic may pass without).
async fn readyz(State(admin): State<Admin>) -> Response {
    if *admin.shutdown.borrow() != Shutdown::No {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "draining: the process is about to end");
    }
    let closed = admin.app.config().ledger.fail == crate::config::FailMode::Closed;
    match admin.app.ledger_trouble() {
        Some(reason) if closed => {
            problem(StatusCode::SERVICE_UNAVAILABLE, &format!("the ledger cannot record: {reason}"))
        }
        _ => "ready\n".into_response(),
    }
}

async fn metrics_page(State(admin): State<Admin>) -> Response {
    if !admin.app.config().telemetry.prometheus {
        return problem(StatusCode::NOT_FOUND, "metrics are off: set telemetry.prometheus to true");
    }
    let app = &admin.app;
    let contracts = admin.contracts.page(&admin).await;
    let more = [rule_metrics(app), app.telemetry.page(), process::page(app.started_at()), contracts].concat();
    let page = target::page(app) + &app.metrics.page_with(&app.ledger.stats(), &more);
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], page).into_response()
}

/// The lines of budgets, limits, rules, webhooks and issuers of tokens.
pub(crate) fn rule_metrics(app: &App) -> String {
    let (budgets, issuers) = (app.budgets.metrics(app.now()), app.config().issuers.metrics());
    [budgets, app.limits.metrics(), app.rules().metrics(), app.webhooks.metrics(), issuers].concat()
}

/// An answer with what keeps browsers from doing anything with it but what it is for.
fn sealed(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, &str); 3] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let closed = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(closed);
    response
}

/// An error as problem details.
pub(crate) fn problem(status: StatusCode, detail: &str) -> Response {
    let body = problem_document(status, detail).to_string();
    (status, [(header::CONTENT_TYPE, gate::PROBLEM)], body).into_response()
}

fn problem_document(status: StatusCode, detail: &str) -> serde_json::Value {
    serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("error"),
        "status": status.as_u16(),
        "detail": detail,
    })
}

#[cfg(test)]
mod tests;
