//! One try to send an event: a signed POST on a connection of its own.
//!
//! Invariants
//! - Where it goes is checked on the resolved address; redirects are not followed; of the answer only its
//!   head is read, within [`TIME`].
//! - No error tells the URL's path or anything that the receiver said, but its status.
//!
//! Not here: trying again (`queue`).

use super::event::{Event, Teller};
use super::queue::Tried;
use super::sign::signatures;
use crate::config::Webhook;
use crate::ids::IdSource;
use crate::upstream::{Connector, ErrandError, deliver};
use bursar_domain::Timestamp;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use std::time::Duration;

/// Longest time for one try, connection and all.
pub(crate) const TIME: Duration = Duration::from_secs(15);

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/cloudevents+json; charset=utf-8");
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("bursar/", env!("CARGO_PKG_VERSION")));

/// Why a receiver does not have an event.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// What is to be sent cannot stand in a header.
    #[error("the event cannot be signed")]
    Unsignable(#[source] http::Error),
    /// Nobody could be reached, or there was no answer.
    #[error("it could not be delivered")]
    NoAnswer(#[from] ErrandError),
    /// The answer was another one than 2xx.
    #[error("the answer was {status}{}", note(*status))]
    Refused {
        /// What it was.
        status: StatusCode,
        /// How long to wait, where it said so.
        retry_after: Option<Duration>,
    },
}

/// What is to be said of some answers.
fn note(status: StatusCode) -> &'static str {
    if status.is_redirection() { ", and redirects are not followed" } else { "" }
}

impl SendError {
    /// What it means for whether the event is tried again.
    pub(super) fn tried(&self) -> Tried {
        match self {
            Self::Refused { status: StatusCode::GONE, .. } | Self::Unsignable(_) => Tried::Never,
            Self::Refused { retry_after, .. } => Tried::NotNow(*retry_after),
            Self::NoAnswer(_) => Tried::NotNow(None),
        }
    }
}

/// Sends an event that only says that somebody tries the webhook, once.
pub(crate) async fn try_once(
    connector: &Connector,
    webhook: &Webhook,
    now: Timestamp,
) -> Result<StatusCode, SendError> {
    let id = format!("evt_test_{}", IdSource::default().next(now));
    send(connector, webhook, &Teller::test(&webhook.name, &id, now), now).await
}

/// Sends `event` once.
pub(crate) async fn send(
    connector: &Connector,
    webhook: &Webhook,
    event: &Event,
    now: Timestamp,
) -> Result<StatusCode, SendError> {
    let seconds = now.millis().div_euclid(1_000);
    let signature = signatures(&webhook.secrets, &event.id, seconds, &event.body);
    let request = Request::builder()
        .method(Method::POST)
        .uri(webhook.url.expose().clone())
        .header(header::CONTENT_TYPE, CONTENT_TYPE)
        .header(header::USER_AGENT, USER_AGENT)
        .header("webhook-id", &event.id)
        .header("webhook-timestamp", seconds)
        .header("webhook-signature", signature)
        .body(Bytes::from(event.body.clone()))
        .map_err(SendError::Unsignable)?;
    let answer = deliver(connector, request, &webhook.permit, TIME).await?;
    if answer.status.is_success() {
        return Ok(answer.status);
    }
    Err(SendError::Refused { status: answer.status, retry_after: retry_after(&answer.headers) })
}

/// `retry-after` in seconds; a date is not read.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}
