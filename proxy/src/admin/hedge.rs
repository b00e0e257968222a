//! Contracts, market data and hedges over the admin API: imports and questions.
//!
//! Invariants
//! - An import answers 200 when it was done (or could be), 422 with the same document when rows are bad.
//! - Bodies are bounded; work that reads or waits runs where it may block.
//!
//! Not here: documents (`hedge`), state (`ledger::hedge`).

use super::gate::problem_with;
use super::{Admin, problem};
use crate::config::OverlayFormat;
use crate::hedge::import::{self as rows, File, ImportFailure, What};
use crate::hedge::priced::other_book;
use crate::hedge::report::Options;
use crate::hedge::{AskError, compose, documents, draw, effectiveness, report, risk, simulate};
use crate::imports::{self, Input, UsageFailure, Words};
use crate::period;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bursar_domain::{Clock, Timestamp};
use bursar_ledger::Actor;
use bursar_ledger::hedge::{ImportError, Mode};
use bursar_policies::price::PriceBook;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Largest body of an import.
pub(super) const IMPORT_BYTES_MAX: usize = 64 << 20;

/// The query of an import.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ImportQuery {
    dry_run: bool,
    file: Option<String>,
    // What only usage can be asked.
    from_format: Option<String>,
    team: Option<String>,
    workload: Option<String>,
    provider: Option<String>,
    from: Option<String>,
    to: Option<String>,
    tz: Option<String>,
}

impl ImportQuery {
    fn words(&self) -> Words<'_> {
        Words {
            from_format: self.from_format.as_deref(),
            team: self.team.as_deref(),
            workload: self.workload.as_deref(),
            provider: self.provider.as_deref(),
            from: self.from.as_deref(),
            to: self.to.as_deref(),
            tz: self.tz.as_deref(),
        }
    }
}

/// The query of a market list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct MarketQuery {
    name: Option<String>,
}

pub(super) type Asked<T> = Result<Query<T>, QueryRejection>;

pub(super) fn json(status: StatusCode, document: &Value) -> Response {
    let kind = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, kind)], document.to_string()).into_response()
}

/// An import that was refused for its rows, which the document names.
pub(super) fn bad_rows(document: &Value) -> Response {
    let detail = "rows are bad, so nothing was imported: errors says which, and why";
    problem_with(StatusCode::UNPROCESSABLE_ENTITY, detail, document)
}

/// `POST /api/v1/import/{what}`: rows as JSON Lines, a JSON array or CSV.
pub(super) async fn import_rows(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    Path(what): Path<String>,
    query: Asked<ImportQuery>,
    body: Bytes,
) -> Response {
    let Some(what) = What::from_name(&what) else {
        let names = What::ALL.map(What::name).join(", ");
        return problem(StatusCode::NOT_FOUND, &format!("{what:?} cannot be imported; these can: {names}"));
    };
    run_import((admin, actor), what, query, body).await
}

/// `POST /api/v1/contracts`
pub(super) async fn add_contracts(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    query: Asked<ImportQuery>,
    body: Bytes,
) -> Response {
    run_import((admin, actor), What::Contracts, query, body).await
}

/// `POST /api/v1/contracts/{id}/events`: rows without `position_id`, which the path names.
pub(super) async fn add_events(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    Path(id): Path<String>,
    query: Asked<ImportQuery>,
    body: Bytes,
) -> Response {
    match super::reports::blocking(move || with_position(&id, &String::from_utf8_lossy(&body))).await {
        Some(Ok(rows)) => run_import((admin, actor), What::Events, query, Bytes::from(rows)).await,
        Some(Err(error)) => problem(StatusCode::UNPROCESSABLE_ENTITY, &error),
        None => problem(StatusCode::INTERNAL_SERVER_ERROR, "the import failed; see the log"),
    }
}

/// The rows of `text`, each with the position `id`.
fn with_position(id: &str, text: &str) -> Result<String, String> {
    let mut rows = String::new();
    for row in crate::hedge::rows::read(text) {
        let mut fields = row.fields.map_err(|error| format!("line {}: {error}", row.line))?;
        fields.insert("position_id".to_owned(), id.into());
        rows.push_str(&Value::Object(fields).to_string());
        rows.push('\n');
    }
    Ok(rows)
}

async fn run_import(
    (admin, actor): (Admin, Actor),
    what: What,
    query: Asked<ImportQuery>,
    body: Bytes,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    let Ok(text) = String::from_utf8(body.into()) else {
        return problem(StatusCode::BAD_REQUEST, "the body is no UTF-8 text");
    };
    let mode = if query.dry_run { Mode::DryRun } else { Mode::Apply };
    if what == What::Usage {
        return import_usage((admin, actor), query, text, mode).await;
    }
    if !query.words().is_empty() {
        let text = "from_format, team, workload, provider, from, to and tz are for imports of usage";
        return problem(StatusCode::BAD_REQUEST, text);
    }
    let file = File { what, name: query.file, text };
    let done = super::reports::blocking(move || {
        let ledger = admin.app.ledger.on_behalf_of(actor);
        let imported = rows::import(&ledger, &file, mode, &AppClock(&admin));
        if imported.as_ref().is_ok_and(|imported| imported.written.is_some()) {
            // Whoever reads the answer finds budgets on contracts as the import left them.
            super::contracts::look(&admin.app);
        }
        imported
    });
    match done.await {
        Some(Ok(imported)) => {
            let document = rows::document(what, &imported);
            if imported.errors.is_empty() { json(StatusCode::OK, &document) } else { bad_rows(&document) }
        }
        Some(Err(error @ ImportFailure::Empty)) => problem(StatusCode::BAD_REQUEST, &error.to_string()),
        Some(Err(ImportFailure::Ledger(error @ ImportError::Facts(bursar_ledger::FactError::TooMany)))) => {
            problem(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string())
        }
        Some(Err(error)) => problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        None => problem(StatusCode::INTERNAL_SERVER_ERROR, "the import failed; see the log"),
    }
}

/// Usage, of our own or of another system.
async fn import_usage(
    (admin, actor): (Admin, Actor),
    query: ImportQuery,
    text: String,
    mode: Mode,
) -> Response {
    let mut asked = match query.words().asked(admin.app.now(), period::PARAMETERS) {
        Ok(asked) => asked,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    asked.name = query.file;
    let done = super::reports::blocking(move || {
        let ledger = admin.app.ledger.on_behalf_of(actor);
        let done = imports::import(&ledger, Input::Text(&text), &asked, mode, &AppClock(&admin));
        if done.as_ref().is_ok_and(|done| done.imported.written.is_some()) {
            super::contracts::look(&admin.app);
        }
        done
    });
    match done.await {
        Some(Ok(done)) => {
            let document = imports::document(&done);
            if done.imported.errors.is_empty() {
                json(StatusCode::OK, &document)
            } else {
                bad_rows(&document)
            }
        }
        Some(Err(error @ (UsageFailure::Empty | UsageFailure::Unknown { .. }))) => {
            problem(StatusCode::BAD_REQUEST, &error.to_string())
        }
        Some(Err(error @ UsageFailure::Ledger(ImportError::TooManyRows))) => {
            problem(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string())
        }
        Some(Err(error)) => problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        None => problem(StatusCode::INTERNAL_SERVER_ERROR, "the import failed; see the log"),
    }
}

/// The application's clock, as the ledger takes one.
#[derive(Debug)]
pub(super) struct AppClock<'a>(pub(super) &'a Admin);

impl Clock for AppClock<'_> {
    fn now(&self) -> Timestamp {
        self.0.app.now()
    }
}

/// `GET /api/v1/contracts`
pub(super) async fn contracts(State(admin): State<Admin>, query: Asked<Options>) -> Response {
    answer(admin, query, |admin, options| documents::contracts(&admin.app.priced(), options, admin.app.now()))
        .await
}

/// `GET /api/v1/contracts/{id}`
pub(super) async fn contract(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    query: Asked<Options>,
) -> Response {
    answer(admin, query, move |admin, options| {
        documents::contract(&admin.app.priced(), &id, options, admin.app.now())
    })
    .await
}

/// `GET /api/v1/market/{list}`
pub(super) async fn market(
    State(admin): State<Admin>,
    Path(list): Path<String>,
    query: Asked<MarketQuery>,
) -> Response {
    answer(admin, query, move |admin, query| {
        documents::market(&admin.app.ledger, &list, query.name.as_deref())
    })
    .await
}

/// `GET /api/v1/market/compose/{index}`: from the ledger's own usage; `POST`: from the volumes in the body.
pub(super) async fn compose(
    State(admin): State<Admin>,
    Path(index): Path<String>,
    query: Asked<compose::Options>,
    method: Method,
    body: Bytes,
) -> Response {
    let body = (method == Method::POST).then(|| String::from_utf8_lossy(&body).into_owned());
    answer(admin, query, move |admin, options| {
        compose::document(&admin.app.priced(), (&index, options), body.as_deref(), admin.app.now())
    })
    .await
}

/// Read, an overlay takes some 170 times its bytes for a moment, whoever sends it.
const OVERLAY_BYTES_MAX: usize = 256 << 10;

/// The built-in prices with those of an overlay in a body.
pub(super) fn overlaid(body: Bytes) -> Result<PriceBook, String> {
    if body.len() > OVERLAY_BYTES_MAX {
        return Err(format!(
            "the overlay has {} bytes: at most {OVERLAY_BYTES_MAX} here; send the prices that differ alone, or use \
             the command on the machine of the ledger, which reads files of any length",
            body.len()
        ));
    }
    let text = String::from_utf8(body.into()).map_err(|_| "the overlay is no UTF-8 text".to_owned())?;
    other_book(&text, "overlay", OverlayFormat::Auto)
}

/// `GET /api/v1/hedge/report`
pub(super) async fn hedge_report(State(admin): State<Admin>, query: Asked<Options>) -> Response {
    answer(admin, query, |admin, options| report::document(&admin.app.priced(), options, admin.app.now()))
        .await
}

/// `POST /api/v1/hedge/report`: the report beside what it would be at the prices of the overlay in the body.
pub(super) async fn hedge_report_beside(
    State(admin): State<Admin>,
    query: Asked<Options>,
    body: Bytes,
) -> Response {
    let book = match super::reports::blocking(move || overlaid(body)).await {
        Some(Ok(book)) => book,
        Some(Err(error)) => return problem(StatusCode::UNPROCESSABLE_ENTITY, &error),
        None => return problem(StatusCode::INTERNAL_SERVER_ERROR, "the report failed; see the log"),
    };
    answer(admin, query, move |admin, options| {
        report::document_beside(&admin.app.priced(), options, Some(book), admin.app.now())
    })
    .await
}

/// `GET /api/v1/hedge/effectiveness`
pub(super) async fn hedge_effectiveness(State(admin): State<Admin>, query: Asked<Options>) -> Response {
    answer(admin, query, |admin, options| {
        effectiveness::document(&admin.app.priced(), options, admin.app.now())
    })
    .await
}

/// `GET /api/v1/hedge/risk`
pub(super) async fn hedge_risk(State(admin): State<Admin>, query: Asked<Options>) -> Response {
    answer(admin, query, |admin, options| risk::document(&admin.app.priced(), options, admin.app.now())).await
}

/// `GET /api/v1/hedge/simulate`: one thread, so that traffic keeps its cores.
pub(super) async fn hedge_simulate(State(admin): State<Admin>, query: Asked<simulate::Query>) -> Response {
    answer(admin, query, |_, query| {
        let simulation = query.simulation(1)?;
        let found = simulate::run(&simulation, &|_| {})?;
        Ok(simulate::document(&simulation, &found))
    })
    .await
}

/// Answers a question where it may block.
pub(super) async fn answer<Q: Send + 'static>(
    admin: Admin,
    query: Asked<Q>,
    ask: impl FnOnce(&Admin, &Q) -> Result<Value, AskError> + Send + 'static,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    match super::reports::blocking(move || ask(&admin, &query)).await {
        Some(Ok(document)) => json(StatusCode::OK, &document),
        Some(Err(error @ AskError::Wrong(_))) => problem(StatusCode::BAD_REQUEST, &error.to_string()),
        Some(Err(error @ AskError::Missing(_))) => problem(StatusCode::NOT_FOUND, &error.to_string()),
        Some(Err(error @ AskError::Ledger(_))) => {
            problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
        }
        None => problem(StatusCode::INTERNAL_SERVER_ERROR, "the report failed; see the log"),
    }
}

/// How long the figures of contracts on the metrics page may be old: they are made from the ledger.
const FIGURES_KEPT: Duration = Duration::from_secs(60);

/// Figures of contracts for the metrics page, made anew when they are a minute old; one scrape makes
/// them at a time, and the others wait for it.
#[derive(Clone, Debug, Default)]
pub(super) struct ContractFigures(Arc<tokio::sync::Mutex<Option<(tokio::time::Instant, String)>>>);

impl ContractFigures {
    pub(super) async fn page(&self, admin: &Admin) -> String {
        let mut kept = self.0.lock().await;
        if let Some((made, page)) = kept.as_ref()
            && made.elapsed() < FIGURES_KEPT
        {
            return page.clone();
        }
        let app = Arc::clone(&admin.app);
        let page = super::reports::blocking(move || draw::metrics(&app.priced(), app.now())).await;
        let page = match page {
            Some(Ok(page)) => page,
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot tell what is left of contracts");
                String::new()
            }
            None => String::new(),
        };
        *kept = Some((tokio::time::Instant::now(), page.clone()));
        page
    }
}
