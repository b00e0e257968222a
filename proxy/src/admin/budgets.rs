//! Budgets and refusals as the API tells them.
//!
//! Not here: the figures (`budgets`).

use super::{Admin, problem};
use crate::app::App;
use crate::overrides::{self, Asked, OverrideError};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bursar_domain::{RequestId, Timestamp};
use bursar_ledger::{Actor, RecordRange, StoredRecord};
use serde::Deserialize;
use serde_json::{Value, json};

/// Records of this long around an id's time are looked through.
const AROUND_MICROS: u64 = 60_000_000;

/// Which request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhyQuery {
    id: String,
}

/// `GET /api/v1/budgets`
pub(super) async fn budgets(State(admin): State<Admin>) -> Response {
    answer(&admin.app.budgets.json(admin.app.now()))
}

/// Why a change is taken back.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RevokeQuery {
    reason: String,
}

/// `GET /api/v1/budget-overrides`
pub(super) async fn overrides(State(admin): State<Admin>) -> Response {
    answer(&overrides::document(&admin.app.ledger, None, admin.app.now()))
}

/// `POST /api/v1/budget-overrides?budget=…&add=…&until=…&reason=…`
pub(super) async fn make_override(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let asked = match query {
        Ok(Query(asked)) => asked,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    change(move || {
        let App { ledger, budgets, .. } = &*admin.app;
        overrides::make(&ledger.on_behalf_of(actor), Some(budgets), &asked, admin.app.clock())
    })
    .await
}

/// `POST /api/v1/budget-overrides/{id}/revoke?reason=…`
pub(super) async fn revoke_override(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    Path(id): Path<String>,
    query: Result<Query<RevokeQuery>, QueryRejection>,
) -> Response {
    let reason = match query {
        Ok(Query(query)) => query.reason,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    change(move || {
        let App { ledger, budgets, .. } = &*admin.app;
        overrides::revoke(&ledger.on_behalf_of(actor), Some(budgets), &id, &reason, admin.app.clock())
    })
    .await
}

/// The ledger is waited for elsewhere.
async fn change(make: impl FnOnce() -> Result<Value, OverrideError> + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(make).await {
        Ok(Ok(document)) => answer(&document),
        Ok(Err(error @ OverrideError::Wrong(_))) => problem(StatusCode::BAD_REQUEST, &error.to_string()),
        Ok(Err(error @ OverrideError::Unknown(_))) => problem(StatusCode::NOT_FOUND, &error.to_string()),
        Ok(Err(error @ OverrideError::Ledger(_))) => {
            problem(StatusCode::SERVICE_UNAVAILABLE, &format!("the ledger did not take it: {error}"))
        }
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "the change failed; see the log"),
    }
}

/// `GET /api/v1/why?id=…`
pub(super) async fn why(state: State<Admin>, query: Result<Query<WhyQuery>, QueryRejection>) -> Response {
    match query {
        Ok(Query(query)) => why_of(state, Path(query.id)).await,
        Err(error) => problem(StatusCode::BAD_REQUEST, &error.body_text()),
    }
}

/// `GET /api/v1/why/{id}`
pub(super) async fn why_of(State(admin): State<Admin>, Path(id): Path<String>) -> Response {
    let Some(id) = RequestId::parse(&id) else {
        let detail = "the id is none: write what the reply\'s x-bursar-request-id says";
        return problem(StatusCode::BAD_REQUEST, detail);
    };
    if let Some(refusal) = admin.app.budgets.why(id) {
        return answer(&refusal.json());
    }
    if let Some(refusal) = admin.app.limits.why(id) {
        return answer(&refusal.json());
    }
    if let Some(refused) = admin.app.refusals.why(id) {
        return answer(&refused.json());
    }
    if let Some(refusal) = admin.app.rules().why(id) {
        return answer(&refusal.json());
    }
    let ledger = admin.app.ledger.clone();
    let found = tokio::task::spawn_blocking(move || find(&ledger, id)).await;
    match found {
        Ok(Ok(Some(stored))) => answer(&passed(&stored)),
        Ok(Ok(None)) => problem(
            StatusCode::NOT_FOUND,
            "no such request: it was not refused lately, and it left no record (yet)",
        ),
        Ok(Err(error)) => {
            problem(StatusCode::INTERNAL_SERVER_ERROR, &format!("cannot read the ledger: {error}"))
        }
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "the search failed; see the log"),
    }
}

/// Its record. An id tells when it was made, which is when the request began.
fn find(
    ledger: &bursar_ledger::Ledger,
    id: RequestId,
) -> Result<Option<StoredRecord>, bursar_ledger::ReadError> {
    let made = i64::try_from(id.millis()).unwrap_or(i64::MAX).saturating_mul(1_000);
    let around = i64::try_from(AROUND_MICROS).unwrap_or(i64::MAX);
    let range = RecordRange {
        from: Some(Timestamp::from_micros(made.saturating_sub(around))),
        to: Some(Timestamp::from_micros(made.saturating_add(around))),
        after_sequence: 0,
    };
    for stored in ledger.records(range) {
        let stored = stored?;
        if stored.record.id == id {
            return Ok(Some(stored));
        }
    }
    Ok(None)
}

fn passed(stored: &StoredRecord) -> Value {
    let tags = stored.record.identity.tags.iter();
    // What rules changed stands in tags of their own.
    let steered = tags.filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix("bursar.")?;
        Some((name.to_owned(), Value::String(value.as_str().to_owned())))
    });
    let steered: serde_json::Map<String, Value> = steered.collect();
    json!({
        "steered": if steered.is_empty() { Value::Null } else { Value::Object(steered) },
        "id": stored.record.id.to_string(),
        "outcome": stored.record.outcome.name(),
        "seq": stored.sequence,
        "http_status": stored.record.http_status,
        "message": "no rule refused it: it was sent upstream and has a record",
    })
}

fn answer(document: &Value) -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], document.to_string()).into_response()
}
