//! The admin API: health, metrics and what the commands ask for, on a listener of its own.
//!
//! Invariants
//! - Off loopback nothing but health (and metrics, if so configured) answers without the token.
//! - Errors are `application/problem+json` (RFC 9457).
//! - A slow reader or a large report never delays the proxy: this runs on a thread of its own.
//!
//! Not here: what the reports contain (`report`, `ledger::query`).

mod books;
mod budgets;
mod contracts;
mod focus;
mod hedge;
mod ledger_metrics;
pub mod metrics;
mod reconcile;
mod reports;
mod roi;

pub(crate) use contracts::look as look_at_contracts;

use crate::app::App;
use crate::listen::Shutdown;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tower::ServiceExt;

/// What a handler needs.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) app: Arc<App>,
    shutdown: watch::Receiver<Shutdown>,
    contracts: hedge::ContractFigures,
}

/// Serves the admin API until the process ends.
pub async fn serve(
    app: Arc<App>,
    listener: std::net::TcpListener,
    shutdown: watch::Receiver<Shutdown>,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (mut end, mut last) = (shutdown.clone(), shutdown.clone());
    let looking = contracts::keep_looking(Arc::clone(&app));
    let router = router(Admin { app, shutdown, contracts: hedge::ContractFigures::default() });
    // A dropped sender means the process is ending too.
    let served = axum::serve(listener, router).with_graceful_shutdown(async move {
        let _ = end.wait_for(|state| *state == Shutdown::Now).await;
    });
    let out_of_time = async move {
        let _ = last.wait_for(|state| *state == Shutdown::Now).await;
        tokio::time::sleep(LAST_ANSWERS).await;
    };
    tokio::select! {
        result = served => result,
        () = out_of_time => Ok(()),
        () = looking => Ok(()),
    }
}

/// What the admin API answers to a request without a body, as its listener would; 400 where it is none.
pub async fn answer(app: Arc<App>, method: &str, target: &str) -> (u16, String) {
    let (_, shutdown) = watch::channel(Shutdown::No);
    let router = router(Admin { app, shutdown, contracts: hedge::ContractFigures::default() });
    let request = axum::http::Request::builder().method(method).uri(target).body(axum::body::Body::empty());
    let Ok(request) = request else { return (400, String::new()) };
    let Ok(response) = router.oneshot(request).await;
    let status = response.status().as_u16();
    let body = http_body_util::BodyExt::collect(response.into_body()).await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// How long answers that are under way may take when the process ends. A reader that has stopped
/// reading must not keep it.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

fn router(admin: Admin) -> Router {
    let guarded = Router::new()
        .route("/metrics", get(metrics_page))
        .route("/api/v1/usage", get(reports::usage))
        .route("/api/v1/usage/records", get(reports::records))
        .route("/api/v1/ledger/stats", get(reports::ledger_stats))
        .route("/api/v1/ledger/prune", post(books::prune))
        .route("/api/v1/ledger/trial-balance", get(books::trial_balance))
        .route("/api/v1/import/{what}", post(hedge::import_rows))
        .route("/api/v1/contracts", get(hedge::contracts).post(hedge::add_contracts))
        .route("/api/v1/contracts/{id}", get(hedge::contract))
        .route("/api/v1/contracts/{id}/events", post(hedge::add_events))
        .route("/api/v1/market/{list}", get(hedge::market))
        .route("/api/v1/market/compose/{index}", get(hedge::compose).post(hedge::compose))
        .route("/api/v1/hedge/report", get(hedge::hedge_report).post(hedge::hedge_report_beside))
        .route("/api/v1/hedge/effectiveness", get(hedge::hedge_effectiveness))
        .route("/api/v1/hedge/risk", get(hedge::hedge_risk))
        .route("/api/v1/hedge/simulate", get(hedge::hedge_simulate))
        .route("/api/v1/revenue-events", get(roi::list_events).post(roi::take_events))
        .route("/api/v1/focus/{dataset}", get(focus::dataset))
        .route("/api/v1/reconcile", post(reconcile::reconcile))
        .route("/api/v1/roi", get(roi::roi_report))
        .route("/api/v1/periods", get(roi::periods))
        .route("/api/v1/periods/{month}", get(roi::period))
        .route("/api/v1/periods/{month}/close", post(roi::close_period))
        .route("/api/v1/budgets", get(budgets::budgets))
        .route("/api/v1/budget-overrides", get(budgets::overrides).post(budgets::make_override))
        .route("/api/v1/budget-overrides/{id}/revoke", post(budgets::revoke_override))
        .route("/api/v1/why", get(budgets::why))
        .route("/api/v1/why/{id}", get(budgets::why_of))
        .layer(DefaultBodyLimit::max(hedge::IMPORT_BYTES_MAX))
        .layer(middleware::from_fn(hedge::refuse_web_pages))
        .layer(middleware::from_fn_with_state(admin.clone(), authorise));
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .merge(guarded)
        .fallback(async || problem(StatusCode::NOT_FOUND, "there is nothing here; the API is under /api/v1"))
        .layer(middleware::map_response(no_sniff))
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
    let more =
        [rule_metrics(&admin.app), admin.app.telemetry.page(), admin.contracts.page(&admin).await].concat();
    let page = admin.app.metrics.page_with(&admin.app.ledger.stats(), &more);
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], page).into_response()
}

/// The lines of budgets, limits, rules, webhooks and issuers of tokens.
pub(crate) fn rule_metrics(app: &App) -> String {
    let (budgets, issuers) = (app.budgets.metrics(app.now()), app.config().issuers.metrics());
    [budgets, app.limits.metrics(), app.rules().metrics(), app.webhooks.metrics(), issuers].concat()
}

/// Asks for the bearer token where one is configured.
async fn authorise(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let config = &admin.app.config().admin;
    let Some(token) = &config.token else { return next.run(request).await };
    if config.metrics_public && request.uri().path() == "/metrics" {
        return next.run(request).await;
    }
    let sent = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if sent.is_some_and(|sent| token.matches(sent)) {
        return next.run(request).await;
    }
    let mut response = problem(StatusCode::UNAUTHORIZED, "send the admin token as `authorization: Bearer …`");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

async fn no_sniff(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An error as problem details.
pub(crate) fn problem(status: StatusCode, detail: &str) -> Response {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("error"),
        "status": status.as_u16(),
        "detail": detail,
    });
    let kind = HeaderValue::from_static("application/problem+json");
    (status, [(header::CONTENT_TYPE, kind)], body.to_string()).into_response()
}
