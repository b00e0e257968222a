//! What stands before every handler: the query and the body's type as the table has them, and errors as
//! problem documents whoever made them.
//!
//! Invariants
//! - A handler runs only for callers whose scopes it needs.
//! - A handler sees only parameters of its operation, each once and of its kind.
//! - Whatever answers with an error status, the body is `application/problem+json`.
//!
//! Not here: tokens and scopes (`access`), the table (`table`).

use super::access::{self, Caller};
use super::paging::Page;
use super::param::{self, Param};
use super::table::{Operation, Pages};
use super::{Admin, problem};
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::MethodRouter;
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;

pub(super) const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
/// What is said of a body that is too large.
pub(super) const TOO_LARGE: &str = "the body is larger than 64 MiB: send it in pieces";
/// Longest text of an error that somebody else wrote.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// An operation with what it takes.
#[derive(Debug)]
struct Gate {
    operation: &'static Operation,
    params: Vec<Param>,
}

/// The route of an operation, behind its gate.
pub(super) fn route(operation: &'static Operation) -> MethodRouter<Admin> {
    let gate = std::sync::Arc::new(Gate { operation, params: operation.params() });
    (operation.handler)(operation.method.filter()).route_layer(middleware::from_fn_with_state(gate, pass))
}

async fn pass(State(gate): State<std::sync::Arc<Gate>>, mut request: Request, next: Next) -> Response {
    if let Some(caller) = request.extensions().get::<Caller>().cloned() {
        if let Err(scope) = caller.may(gate.operation.needs) {
            return access::forbidden(scope);
        }
        let actor = caller.actor(gate.operation, request.uri().path());
        request.extensions_mut().insert(actor);
    }
    if let Some(refusal) = refuse_type(gate.operation, &request) {
        return refusal;
    }
    let query = request.uri().query().unwrap_or_default();
    let mut pairs = match param::read(query, &gate.params) {
        Ok(pairs) => pairs,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let page = gate.operation.pages.map(|pages| (pages, Page::taken_from(&mut pairs)));
    if let Some((_, page)) = &page {
        request.extensions_mut().insert(page.clone());
    }
    if let Some(uri) = with_query(request.uri(), &param::write(&pairs)) {
        *request.uri_mut() = uri;
    }
    let response = next.run(request).await;
    match page {
        Some((pages, page)) if is_document(&response) => cut(response, pages, page).await,
        _ => response,
    }
}

/// Whether a list is answered, not an export.
fn is_document(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    response.status() == StatusCode::OK && kind.is_some_and(|kind| kind == "application/json")
}

/// Leaves one page of a list. The list was made from what is in memory, so it fits there.
async fn cut(response: Response, pages: Pages, page: Page) -> Response {
    let Ok(bytes) = to_bytes(response.into_body(), usize::MAX).await else {
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "the list could not be made; see the log");
    };
    let done = super::reports::blocking(move || {
        let document = serde_json::from_slice(&bytes).ok()?;
        Some(page.cut(document, pages))
    });
    match done.await.flatten() {
        Some(Ok(document)) => super::hedge::json(StatusCode::OK, &document),
        Some(Err(error)) => problem(StatusCode::BAD_REQUEST, &error.to_string()),
        None => problem(StatusCode::INTERNAL_SERVER_ERROR, "the list could not be made; see the log"),
    }
}

/// The same address with another query.
fn with_query(uri: &Uri, query: &str) -> Option<Uri> {
    let target = if query.is_empty() { uri.path().to_owned() } else { format!("{}?{query}", uri.path()) };
    target.parse().ok()
}

/// A body of a type that the operation does not take.
fn refuse_type(operation: &Operation, request: &Request) -> Option<Response> {
    let types = operation.body.types();
    let value = request.headers().get(header::CONTENT_TYPE)?;
    if types.is_empty() {
        return None;
    }
    let told = value.to_str().unwrap_or_default();
    let kind = told.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_taken =
        types.iter().any(|(name, _)| *name == kind) || operation.body.other_types().contains(&kind.as_str());
    if is_taken {
        return None;
    }
    let names: Vec<&str> = types.iter().map(|(name, _)| *name).collect();
    let told: String = told.chars().take(80).collect();
    let detail = format!("content-type {told:?} is not taken: send {}", names.join(", "));
    Some(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, &detail))
}

/// Turns a panic of a handler into an answer.
pub(super) async fn catch_panic(request: Request, next: Next) -> Response {
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!("an admin request ended in a panic");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "this is a defect; see the log")
        }
    }
}

/// Turns every error into a problem document, with the headers that it has.
pub(super) async fn as_problem(response: Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || response.headers().get(header::CONTENT_TYPE) == Some(&PROBLEM) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, TEXT_BYTES_MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let detail = match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            "this path does not take this method: the header allow says which it takes"
        }
        StatusCode::PAYLOAD_TOO_LARGE => TOO_LARGE,
        _ if text.trim().is_empty() => "the request was refused",
        _ => text.trim(),
    };
    let mut made = problem(status, detail);
    for (name, value) in &parts.headers {
        if !matches!(*name, header::CONTENT_TYPE | header::CONTENT_LENGTH) {
            made.headers_mut().append(name, value.clone());
        }
    }
    made
}

/// A document of an error: a problem, and what more there is to say.
pub(super) fn problem_with(status: StatusCode, detail: &str, more: &serde_json::Value) -> Response {
    let mut told = super::problem_document(status, detail);
    if let (Some(told), Some(more)) = (told.as_object_mut(), more.as_object()) {
        for (name, value) in more {
            told.entry(name.as_str()).or_insert_with(|| value.clone());
        }
    }
    let mut response = Response::new(Body::from(told.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, PROBLEM);
    response
}
