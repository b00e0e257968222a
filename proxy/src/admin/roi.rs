//! Revenue and return over the admin API: ingestion of events, lists and reports.
//!
//! Invariants
//! - Events are taken all or none: 200 when they are there (now, or before), 409 when one is there and
//!   says something else, 422 when one is bad; the document is the same.
//!
//! Not here: envelopes and documents (`roi`), state (`ledger::revenue`, `ledger::roi`).

use super::gate::problem_with;
use super::hedge::{AppClock, Asked, answer, bad_rows, json};
use super::reports::{CSV, NO_PARQUET, PARQUET, streamed};
use super::{Admin, problem};
use crate::hedge::import::{ImportFailure, What, document};
use crate::roi::cloudevents::{self, EnvelopeError};
use crate::roi::events::{self, EventsAs, ListOptions};
use crate::roi::period::{self, CloseOptions};
use crate::roi::report::{self, Options};
use axum::body::Bytes;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bursar_ledger::export::TableFormat;
use bursar_ledger::hedge::{ImportError, ImportHead, Mode};
use bursar_ledger::{Actor, FactError};

/// `POST /api/v1/revenue-events`: CloudEvents 1.0, or rows.
pub(super) async fn take_events(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let done = super::reports::blocking(move || {
        let rows = cloudevents::rows(&headers, &body)?;
        let checksum = blake3::hash(&body).to_hex().to_string();
        let head = ImportHead { what: "revenue".to_owned(), file: None, checksum, about: None };
        let clock = AppClock(&admin);
        let ledger = admin.app.ledger.on_behalf_of(actor);
        Ok(events::import(&ledger, rows, &head, Mode::Apply, &clock))
    });
    match done.await {
        None => problem(StatusCode::INTERNAL_SERVER_ERROR, "the import failed; see the log"),
        Some(Err(error @ EnvelopeError::ContentType(_))) => {
            problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, &error.to_string())
        }
        Some(Err(error @ (EnvelopeError::NotText | EnvelopeError::NotBatch(_)))) => {
            problem(StatusCode::BAD_REQUEST, &error.to_string())
        }
        Some(Ok(Ok(found))) => {
            let document = document(What::Revenue, &found.imported);
            match (found.conflict, found.imported.errors.is_empty()) {
                (true, _) => {
                    let detail = "an event is there already and says something else: errors says which";
                    problem_with(StatusCode::CONFLICT, detail, &document)
                }
                (false, false) => bad_rows(&document),
                (false, true) => json(StatusCode::OK, &document),
            }
        }
        Some(Ok(Err(error @ ImportFailure::Empty))) => problem(StatusCode::BAD_REQUEST, &error.to_string()),
        Some(Ok(Err(ImportFailure::Ledger(error @ ImportError::Facts(FactError::TooMany))))) => {
            problem(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string())
        }
        Some(Ok(Err(error))) => problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

/// `GET /api/v1/revenue-events`: a list, or all of them as CSV, JSON Lines or Parquet.
pub(super) async fn list_events(State(admin): State<Admin>, query: Asked<ListOptions>) -> Response {
    let asked = query.as_ref().ok().and_then(|query| query.format.clone());
    let (kind, format) = match asked.as_deref() {
        Some("csv") => (CSV, EventsAs::Table(TableFormat::Csv)),
        Some("jsonl") => ("application/x-ndjson", EventsAs::Jsonl),
        Some("parquet") if cfg!(feature = "parquet") => {
            (PARQUET, EventsAs::Table(TableFormat::PARQUET_SMALL))
        }
        Some("parquet") => return problem(StatusCode::NOT_IMPLEMENTED, NO_PARQUET),
        Some("json") | None => return list_of(admin, query).await,
        Some(_) => return problem(StatusCode::BAD_REQUEST, "format: use json, csv, jsonl or parquet"),
    };
    let Ok(Query(options)) = query else { return list_of(admin, query).await };
    let now = admin.app.now();
    // What is streamed cannot be refused any more.
    if let Err(error) = options.check(now) {
        return problem(StatusCode::BAD_REQUEST, &error.to_string());
    }
    streamed(kind, move |out| Ok(events::write(&admin.app.ledger, &options, format, now, out).map(drop)?))
        .await
}

async fn list_of(admin: Admin, query: Asked<ListOptions>) -> Response {
    answer(admin, query, |admin, options| {
        events::list(&admin.app.ledger, (options, usize::MAX), admin.app.now())
    })
    .await
}

/// `GET /api/v1/roi`
pub(super) async fn roi_report(State(admin): State<Admin>, query: Asked<Options>) -> Response {
    answer(admin, query, |admin, options| report::document(&admin.app.priced(), options, admin.app.now()))
        .await
}

/// What a question without parameters is asked with.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// `GET /api/v1/periods`
pub(super) async fn periods(State(admin): State<Admin>, query: Asked<Nothing>) -> Response {
    answer(admin, query, |admin, _| period::list(&admin.app.ledger)).await
}

/// `GET /api/v1/periods/{month}`
pub(super) async fn period(
    State(admin): State<Admin>,
    Path(month): Path<String>,
    query: Asked<Nothing>,
) -> Response {
    answer(admin, query, move |admin, _| period::show(&admin.app.ledger, &month)).await
}

/// `POST /api/v1/periods/{month}/close`
pub(super) async fn close_period(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    Path(month): Path<String>,
    query: Asked<CloseOptions>,
) -> Response {
    answer(admin, query, move |admin, options| {
        let ledger = admin.app.ledger.on_behalf_of(actor);
        period::close(&ledger, &admin.app.prices, (&month, options), &AppClock(admin))
    })
    .await
}
