//! Endpoints about the ledger as a book: pruning, the trial balance.
//!
//! Not here: the work (`prune`, `trial`, `ledger`).

use super::Admin;
use super::hedge::{Asked, answer};
use crate::{prune, trial};
use axum::extract::{Extension, State};
use axum::response::Response;
use bursar_ledger::Actor;

/// `POST /api/v1/ledger/prune`
pub(super) async fn prune(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    query: Asked<prune::Options>,
) -> Response {
    answer(admin, query, |admin, options| {
        prune::prune(&admin.app.ledger.on_behalf_of(actor), options, admin.app.now())
    })
    .await
}

/// `GET /api/v1/ledger/trial-balance`
pub(super) async fn trial_balance(State(admin): State<Admin>, query: Asked<trial::Options>) -> Response {
    answer(admin, query, |admin, options| trial::document(&admin.app.priced(), options, admin.app.now()))
        .await
}
