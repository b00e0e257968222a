//! Who asks, whether they may, and whether too often.
//!
//! Invariants
//! - Where there are tokens, nothing but health (and metrics, if they are public) answers without one,
//!   whatever the path and the method; so is it off loopback, where there are always some.
//! - A token does only what its scopes say; what it lacks is told to it alone.
//! - A browser's page cannot write where nothing is asked.
//!
//! Not here: tokens (`credentials::admin`), which operation needs what (`table`), rates (`rate`).

use super::rate::Account;
use super::table::{Needs, OPERATIONS, Operation};
use super::{Admin, Peer, problem};
use crate::credentials::admin::{Scope, Token};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use bursar_ledger::Actor;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use tokio::time::Instant;

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The token; none where none is asked for.
    token: Option<Token>,
    address: IpAddr,
}

/// The name of whoever needs no token.
const NOBODY: &str = "loopback";

impl Caller {
    /// Whether it may ask for this.
    pub(super) fn may(&self, needs: Needs) -> Result<(), Scope> {
        let scope = match needs {
            Needs::Nothing | Needs::ReadOrPublic | Needs::AnyToken => return Ok(()),
            Needs::Read => Scope::Read,
            Needs::Ingest => Scope::Ingest,
            Needs::Admin => Scope::Admin,
        };
        match &self.token {
            Some(token) if !token.has(scope) => Err(scope),
            Some(_) | None => Ok(()),
        }
    }

    /// On whose behalf it changes the ledger by `operation`.
    pub(super) fn actor(&self, operation: &Operation, path: &str) -> Actor {
        let who = self.token.as_ref().map_or(NOBODY, |token| token.name.as_str());
        Actor {
            who: who.to_owned(),
            via: self.address.to_string(),
            what: format!("{} {}", operation.method.name().to_uppercase(), operation.path),
            about: Some(path.to_owned()),
        }
    }
}

/// Lets in whom the configuration in force knows.
pub(super) async fn admit(State(admin): State<Admin>, mut request: Request, next: Next) -> Response {
    let address = request.extensions().get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.0);
    let config = admin.app.config().admin.clone();
    let path = request.uri().path();
    let needs = OPERATIONS.iter().find(|operation| operation.path == path).map(|operation| operation.needs);
    if needs == Some(Needs::Nothing) {
        return next.run(request).await;
    }
    let found = presented(request.headers()).and_then(|sent| config.tokens.find(sent)).cloned();
    let account = match &found {
        Some(token) => Account::Token(token.name.clone()),
        None => Account::of(address),
    };
    if let Err(wait) = admin.rates.take(account, config.requests_per_minute, Instant::now()) {
        return too_often(wait, config.requests_per_minute);
    }
    let reads_metrics = found.as_ref().is_none_or(|token| token.has(Scope::Read));
    let caller = Caller { token: found, address };
    match needs {
        Some(Needs::ReadOrPublic) if config.metrics_public => {}
        _ if config.tokens.is_empty() => {}
        _ if caller.token.is_none() => return unknown(request.headers()),
        Some(Needs::ReadOrPublic) if !reads_metrics => return forbidden(Scope::Read),
        _ => {}
    }
    if let Some(refusal) = refuse_web_page(&request) {
        return refusal;
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// The bearer token of a request.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

/// On loopback without a token, any page that somebody has open could send a form here: browsers name the
/// page, and then it is refused.
fn refuse_web_page(request: &Request) -> Option<Response> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let is_page = !reads && request.headers().contains_key(header::ORIGIN);
    is_page.then(|| problem(StatusCode::FORBIDDEN, "a web page cannot write here: use the command line"))
}

fn unknown(headers: &HeaderMap) -> Response {
    let (detail, told) = match headers.get(header::AUTHORIZATION) {
        None => ("send a token of the admin API as `authorization: Bearer …`", "Bearer realm=\"bursar\""),
        Some(_) => (
            "no token of the admin API is this one: check that all of it was copied, and that it was not replaced",
            "Bearer realm=\"bursar\", error=\"invalid_token\"",
        ),
    };
    challenge(StatusCode::UNAUTHORIZED, detail, HeaderValue::from_static(told))
}

/// The token is for something else.
pub(super) fn forbidden(scope: Scope) -> Response {
    let detail = format!("this token is not for this: it needs the scope {} (or admin)", scope.name());
    let told = format!("Bearer realm=\"bursar\", error=\"insufficient_scope\", scope=\"{}\"", scope.name());
    let told = HeaderValue::from_str(&told).unwrap_or(HeaderValue::from_static("Bearer"));
    challenge(StatusCode::FORBIDDEN, &detail, told)
}

fn challenge(status: StatusCode, detail: &str, told: HeaderValue) -> Response {
    let mut response = problem(status, detail);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, told);
    response
}

fn too_often(wait: Duration, per_minute: u32) -> Response {
    let seconds = wait.as_secs().saturating_add(1);
    let detail = format!(
        "more than {per_minute} requests in a minute (admin.requests_per_minute): ask again in {seconds} s"
    );
    let mut response = problem(StatusCode::TOO_MANY_REQUESTS, &detail);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}
