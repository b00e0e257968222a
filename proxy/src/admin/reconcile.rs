//! Reconciliation over the admin API: statements in the body, set against the sidecar's own records.
//!
//! Invariants
//! - The ledger is only read. Statements are bounded like imports; what is bad in them is answered 422.
//!
//! Not here: the question (`reconcile::ask`), the parts of a gap (`bursar_policies::reconcile`).

use super::hedge::{Asked, json};
use super::{Admin, problem};
use crate::imports::Input;
use crate::reconcile::{AskError, Question, Words};
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use bursar_domain::Timestamp;
use bursar_ledger::RecordRange;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The query of a reconciliation.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ReconcileQuery {
    provider: Option<String>,
    from_format: Option<String>,
    from: Option<String>,
    to: Option<String>,
    by: Option<String>,
    tolerance: Option<String>,
    project_tag: Option<String>,
}

/// The statements.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statements {
    files: Vec<File>,
    /// Names of the files, and the model of ours that each means.
    #[serde(default)]
    map: BTreeMap<String, String>,
}

/// One file of a provider, as it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    text: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("cannot read the ledger: {0}")]
    Ledger(String),
}

/// `POST /api/v1/reconcile`
pub(super) async fn reconcile(
    State(admin): State<Admin>,
    query: Asked<ReconcileQuery>,
    body: Bytes,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    match super::reports::blocking(move || answer(&admin, &query, &body)).await {
        Some(Ok(document)) => json(StatusCode::OK, &document),
        Some(Err(Failure::Ask(AskError::Wrong(text)))) => problem(StatusCode::BAD_REQUEST, &text),
        Some(Err(Failure::Ask(AskError::Refused(text)))) => problem(StatusCode::UNPROCESSABLE_ENTITY, &text),
        Some(Err(error @ Failure::Ledger(_))) => {
            problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
        }
        None => problem(StatusCode::INTERNAL_SERVER_ERROR, "the reconciliation failed; see the log"),
    }
}

fn answer(admin: &Admin, query: &ReconcileQuery, body: &[u8]) -> Result<Value, Failure> {
    let words = Words {
        provider: query.provider.as_deref(),
        from_format: query.from_format.as_deref(),
        from: query.from.as_deref(),
        to: query.to.as_deref(),
        by: query.by.as_deref(),
        tolerance: query.tolerance.as_deref(),
        project_tag: query.project_tag.as_deref(),
    };
    let question = Question::parse(&words, "")?;
    let statements: Statements = serde_json::from_slice(body).map_err(|error| {
        AskError::Wrong(format!(
            "the body is none such as {{\"files\":[{{\"name\":\"costs.json\",\"text\":\"…\"}}]}}: {error}"
        ))
    })?;
    if statements.files.is_empty() {
        return Err(AskError::Wrong("files is empty: give the provider's files".to_owned()).into());
    }
    let files: Vec<(String, Input<'_>)> =
        statements.files.iter().map(|file| (file.name.clone(), Input::Text(&file.text))).collect();
    let read = question.statements(&files)?;
    let means = statements.map.iter().map(|(theirs, ours)| (theirs.as_str(), ours.as_str()));
    let prices = admin.app.prices.book();
    let mut books = question.books(&read, means, &prices)?;
    let (from, to) = books.days();
    let refused = |error: &dyn std::fmt::Display| AskError::Refused(error.to_string());
    let range = RecordRange { from: from.and_then(midnight), to: to.and_then(midnight), after_sequence: 0 };
    let records = admin.app.ledger.records(range);
    if let Some(pruned) = records.pruned() {
        return Err(refused(&pruned).into());
    }
    for stored in records {
        let stored = stored.map_err(|error| Failure::Ledger(error.to_string()))?;
        if stored.counted {
            books.record(&stored.record).map_err(|error| refused(&error))?;
        }
    }
    Ok(books.document(&question.tolerance, admin.app.now()).map_err(|error| refused(&error))?)
}

fn midnight(day: Date) -> Option<Timestamp> {
    let start = day.to_zoned(TimeZone::UTC).ok()?;
    Some(Timestamp::from_micros(start.timestamp().as_microsecond()))
}
