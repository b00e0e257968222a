//! What only looks at the sidecar itself: who changed the ledger, the configuration in force, its keys, what
//! it was built from, and the presets of contracts.
//!
//! Invariants
//! - No secret is told, and no hash of one.
//!
//! Not here: the documents (`audit`, `config`, `credentials`, `hedge`).

use super::Admin;
use super::hedge::{Asked, answer, json};
use super::roi::Nothing;
use crate::audit::{self, Options};
use crate::credentials::listed::listed;
use crate::hedge::documents;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json as document};

/// `GET /api/v1/audit`
pub(super) async fn changes(State(admin): State<Admin>, query: Asked<Options>) -> Response {
    answer(admin, query, |admin, options| audit::document(&admin.app.ledger, options, admin.app.now())).await
}

/// `GET /api/v1/config`: every setting that is not of a list, as `bursar check --show` prints it.
pub(super) async fn config(State(admin): State<Admin>) -> Response {
    let config = admin.app.config();
    let rows = config
        .effective()
        .iter()
        .map(|one| document!({ "setting": one.path, "value": one.value, "origin": one.origin.to_string() }));
    let rows: Vec<Value> = rows.collect();
    json(StatusCode::OK, &document!({ "rows": rows, "warnings": config.warnings }))
}

/// `GET /api/v1/version`
pub(super) async fn version() -> Response {
    json(StatusCode::OK, &crate::built::document())
}

/// `GET /api/v1/keys`
pub(super) async fn keys(State(admin): State<Admin>) -> Response {
    let (config, now) = (admin.app.config(), admin.app.now());
    let keys: Vec<Value> = config.keys.iter().map(|key| listed(key, now)).collect();
    json(StatusCode::OK, &document!({ "keys": keys }))
}

/// `GET /api/v1/contract-presets`
pub(super) async fn presets(State(admin): State<Admin>, query: Asked<Nothing>) -> Response {
    answer(admin, query, |_, _| documents::preset_list()).await
}
