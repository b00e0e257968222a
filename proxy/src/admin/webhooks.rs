//! Trying webhooks over the API.
//!
//! Invariants
//! - Only webhooks of the configuration in force are called, by the rules by which events are sent to them.
//! - Of a webhook's URL only scheme, host and port are told, of its secret and of what it answered nothing.
//!
//! Not here: the event, the signature and the try (`crate::webhooks`).

use super::hedge::{Asked, json};
use super::reports::blocking;
use super::{Admin, problem};
use crate::config::Webhook;
use crate::failure::chain;
use crate::tasks;
use crate::upstream::{Connector, TlsSetup};
use crate::webhooks::try_once;
use axum::extract::{Extension, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use bursar_domain::Timestamp;
use bursar_ledger::Actor;
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json as document};
use tokio::sync::oneshot;

/// Which webhook.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TestQuery {
    name: Option<String>,
}

/// `POST /api/v1/webhooks/test`: a signed test event to each, once, or to the one that is named.
pub(super) async fn test(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    query: Asked<TestQuery>,
) -> Response {
    let name = match query {
        Ok(Query(query)) => query.name,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    let config = admin.app.config();
    let is_meant = |one: &&Webhook| name.as_deref().is_none_or(|name| one.name.as_str() == name);
    let chosen: Vec<Webhook> = config.webhooks.iter().filter(is_meant).cloned().collect();
    if chosen.is_empty() {
        let known: Vec<&str> = config.webhooks.iter().map(|one| one.name.as_str()).collect();
        let detail = match name {
            Some(name) if !known.is_empty() => {
                format!("there is no webhook {name:?}; there are: {}", known.join(", "))
            }
            _ => "there is no webhook in the configuration: add one under webhooks".to_owned(),
        };
        return problem(StatusCode::NOT_FOUND, &detail);
    }
    tracing::info!(who = actor.who, via = actor.via, webhooks = chosen.len(), "test events are sent");
    let authorities = config.upstream.ca_file.clone();
    let Some(Ok(tls)) = blocking(move || TlsSetup::load(authorities.as_deref())).await else {
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "TLS cannot be set up: look at upstream.ca_file");
    };
    let (teller, told) = oneshot::channel();
    let now = admin.app.now();
    // Connections that we make belong to this thread.
    tasks::start(async move {
        let connector = Connector::Network(tls);
        let tries = chosen.iter().map(|webhook| tried(&connector, webhook, now));
        // Whoever asked may have gone.
        let _ = teller.send(join_all(tries).await);
    });
    match told.await {
        Ok(rows) => json(StatusCode::OK, &document!({ "webhooks": rows })),
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "the test failed; see the log"),
    }
}

/// What came of one try.
async fn tried(connector: &Connector, webhook: &Webhook, now: Timestamp) -> Value {
    let answer = try_once(connector, webhook, now).await;
    document!({
        "webhook": webhook.name.as_str(),
        "url": webhook.url.to_string(),
        "taken": answer.is_ok(),
        "status": answer.as_ref().ok().map(|status| status.as_u16()),
        "error": answer.err().map(|error| chain(&error)),
    })
}
