//! The outermost layer: turns every failure into a reply in the provider's own error shape.
//!
//! Invariants
//! - Statuses of our own replies are chosen here and nowhere else.
//! - A message names what to do; it never repeats a credential or a prompt.
//!
//! Not here: errors of the upstream itself, which pass unchanged.

use crate::aws::SignError;
use crate::budgets::Refusal;
use crate::config::Dialect;
use crate::credentials::presented::PresentError;
use crate::credentials::tokens::TokenError;
use crate::failure::{Failure, FailureKind, Handshake};
use crate::http::Response;
use crate::layers::authenticate::CredentialError;
use crate::layers::identify::IdentityError;
use crate::limits::LimitRefusal;
use crate::reply::ReplyBody;
use crate::rules::RuleRefusal;
use crate::upstream::{ConnectError, SendError};
use bursar_policies::limit::Cap;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

/// The reply for a failure.
#[must_use]
pub fn respond(failure: &Failure) -> Response {
    let status = status_of(&failure.kind);
    let body = body_of(failure, status);
    let mut response = http::Response::new(ReplyBody::full(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if failure.dialect == Dialect::Bedrock {
        headers.insert("x-amzn-errortype", HeaderValue::from_static(aws_type(status)));
    }
    if let Some(id) = failure.request.and_then(|id| HeaderValue::try_from(id.to_string()).ok()) {
        headers.insert("x-bursar-request-id", id);
    }
    if status == StatusCode::UPGRADE_REQUIRED {
        // RFC 6455 §4.2.2.
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    if closes(&failure.kind) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(seconds) = retry_after(&failure.kind) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
    }
    if status == StatusCode::UNAUTHORIZED {
        // RFC 9110 §15.5.2.
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"bursar\""));
    }
    if let FailureKind::Budget(refusal) = &failure.kind {
        tell_of_budget(headers, refusal);
    }
    if let FailureKind::Limit(refusal) = &failure.kind {
        tell_of_limit(headers, refusal);
    }
    if let FailureKind::Rule(refusal) = &failure.kind {
        tell_of_rule(headers, refusal);
    }
    response
}

/// SDKs send a refused request again by themselves; where that is in vain for long they are told.
fn tell_of_budget(headers: &mut HeaderMap, refusal: &Refusal) {
    if let Ok(name) = HeaderValue::try_from(refusal.denial.standing.name.as_str()) {
        headers.insert("x-bursar-budget", name);
    }
    let seconds = refusal.retry_seconds();
    if let Some(seconds) = seconds {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if seconds.is_none_or(|seconds| seconds > RETRY_SECONDS_MAX) {
        headers.insert("x-should-retry", HeaderValue::from_static("false"));
    }
}

fn tell_of_limit(headers: &mut HeaderMap, refusal: &LimitRefusal) {
    if let Ok(name) = HeaderValue::try_from(refusal.exceeded.name.as_str()) {
        headers.insert("x-bursar-limit", name);
    }
    let seconds = refusal.retry_seconds();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    if seconds > RETRY_SECONDS_MAX {
        headers.insert("x-should-retry", HeaderValue::from_static("false"));
    }
}

fn tell_of_rule(headers: &mut HeaderMap, refusal: &RuleRefusal) {
    if let Ok(name) = HeaderValue::try_from(refusal.rule.as_str()) {
        headers.insert("x-bursar-rule", name);
    }
    headers.insert("x-should-retry", HeaderValue::from_static("false"));
}

/// Longest time that SDKs of OpenAI and Anthropic wait before they send a request again.
const RETRY_SECONDS_MAX: u64 = 60;

/// The failure of a client that sent something behind its handshake before that was answered, and
/// nothing that may follow one.
#[must_use]
pub const fn too_early() -> Failure {
    Failure { kind: FailureKind::Handshake(Handshake::Malformed), dialect: Dialect::OpenAi, request: None }
}

fn status_of(kind: &FailureKind) -> StatusCode {
    match kind {
        FailureKind::Rejected(rejection) => rejection.status(),
        FailureKind::NoRoute { .. } => StatusCode::NOT_FOUND,
        FailureKind::Upgrade => StatusCode::NOT_IMPLEMENTED,
        FailureKind::Credential(CredentialError::Presented(PresentError::Misplaced(_))) => {
            StatusCode::BAD_REQUEST
        }
        FailureKind::Credential(CredentialError::Token(error)) => status_of_token(error),
        FailureKind::Credential(_) => StatusCode::UNAUTHORIZED,
        FailureKind::Access(_)
        | FailureKind::Identity(IdentityError::Contradicts { .. } | IdentityError::WorkloadUnnamed { .. }) => {
            StatusCode::FORBIDDEN
        }
        FailureKind::Identity(_)
        | FailureKind::BodyBroken
        | FailureKind::Handshake(Handshake::Malformed)
        | FailureKind::Unsigned(SignError::Form(_)) => StatusCode::BAD_REQUEST,
        FailureKind::Handshake(Handshake::Version) => StatusCode::UPGRADE_REQUIRED,
        FailureKind::BodyTooLarge { .. } | FailureKind::BodyTooLargeToSign { .. } => {
            StatusCode::PAYLOAD_TOO_LARGE
        }
        FailureKind::LedgerClosed { .. }
        | FailureKind::Unsigned(_)
        | FailureKind::Upstream { error: SendError::Refused(_), .. } => StatusCode::SERVICE_UNAVAILABLE,
        FailureKind::Budget(_) | FailureKind::Limit(_) => StatusCode::TOO_MANY_REQUESTS,
        FailureKind::Rule(_) => StatusCode::FORBIDDEN,
        FailureKind::UpstreamTimeout { .. }
        | FailureKind::Upstream { error: SendError::Connect(ConnectError::TimedOut { .. }), .. } => {
            StatusCode::GATEWAY_TIMEOUT
        }
        FailureKind::Upstream { .. } => StatusCode::BAD_GATEWAY,
    }
}

/// When to send the request again, where that is worth it, in seconds.
/// A token that cannot be checked may be right, and one without a scope is right elsewhere.
const fn status_of_token(error: &TokenError) -> StatusCode {
    match error {
        TokenError::NoKeys(_) => StatusCode::SERVICE_UNAVAILABLE,
        TokenError::Scope { .. } => StatusCode::FORBIDDEN,
        TokenError::InUrl => StatusCode::BAD_REQUEST,
        _ => StatusCode::UNAUTHORIZED,
    }
}

fn retry_after(kind: &FailureKind) -> Option<&'static str> {
    match kind {
        FailureKind::LedgerClosed { .. }
        | FailureKind::Credential(CredentialError::Token(TokenError::NoKeys(_))) => Some("5"),
        FailureKind::Upstream { error: SendError::Refused(_), .. } => Some("1"),
        _ => None,
    }
}

/// Whether the connection's framing can no longer be trusted after this failure.
fn closes(kind: &FailureKind) -> bool {
    matches!(
        kind,
        FailureKind::Rejected(_)
            | FailureKind::BodyBroken
            | FailureKind::BodyTooLarge { .. }
            | FailureKind::BodyTooLargeToSign { .. }
            | FailureKind::Upgrade
            | FailureKind::Handshake(_)
    )
}

/// OpenAI: `{"error":{message,type,param,code}}`; Anthropic: `{"type":"error","error":{type,message}}`;
/// Google: `{"error":{code,message,status,details}}`; AWS: `{"message"}`, its type in a header; Cohere:
/// `{id,message}`; Ollama: `{"error":message}` (by the providers' published error formats; Google's is
/// <https://google.aip.dev/193>).
fn body_of(failure: &Failure, status: StatusCode) -> Vec<u8> {
    let message = format!("bursar: {}", failure.kind);
    let code = code_of(&failure.kind);
    let body = match failure.dialect {
        Dialect::Anthropic => serde_json::json!({
            "type": "error",
            "error": { "type": anthropic_type(status), "message": message },
            "request_id": failure.request.map(|id| id.to_string()),
        }),
        Dialect::Gemini => serde_json::json!({
            "error": {
                "code": status.as_u16(),
                "message": message,
                "status": google_status(status),
                "details": [{
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": code.to_ascii_uppercase(),
                    "domain": "bursar",
                }],
            },
        }),
        Dialect::Bedrock => serde_json::json!({ "message": message }),
        Dialect::Cohere => serde_json::json!({
            "id": failure.request.map(|id| id.to_string()),
            "message": message,
        }),
        Dialect::Ollama => serde_json::json!({ "error": message }),
        Dialect::OpenAi | Dialect::PassThrough => serde_json::json!({
            "error": { "message": message, "type": openai_type(&failure.kind, status), "param": null, "code": code },
        }),
    };
    body.to_string().into_bytes()
}

fn code_of(kind: &FailureKind) -> &'static str {
    match kind {
        FailureKind::Rejected(_) => "request_rejected",
        FailureKind::NoRoute { .. } => "no_route",
        FailureKind::Upgrade => "upgrade_not_supported",
        FailureKind::Handshake(_) => "bad_handshake",
        // As OpenAI has it.
        FailureKind::Credential(CredentialError::Token(
            error @ (TokenError::NoKeys(_) | TokenError::Scope { .. }),
        )) => error.reason(),
        FailureKind::Credential(_) => "invalid_api_key",
        FailureKind::Access(refusal) => refusal.denied.reason(),
        FailureKind::Identity(IdentityError::Contradicts { .. }) => "identity_contradicted",
        FailureKind::Identity(_) => "identity_required",
        FailureKind::BodyTooLarge { .. } | FailureKind::BodyTooLargeToSign { .. } => "body_too_large",
        FailureKind::Unsigned(_) => "not_signed",
        FailureKind::BodyBroken => "body_broken",
        FailureKind::LedgerClosed { .. } => "ledger_unavailable",
        FailureKind::Budget(_) => "budget_exceeded",
        // As OpenAI has it.
        FailureKind::Limit(_) => "rate_limit_exceeded",
        FailureKind::Rule(_) => "rule_denied",
        FailureKind::Upstream { error: SendError::Refused(_), .. } => "upstream_refused",
        FailureKind::Upstream { .. } => "upstream_unreachable",
        FailureKind::UpstreamTimeout { .. } => "upstream_timeout",
    }
}

fn openai_type(kind: &FailureKind, status: StatusCode) -> &'static str {
    if let FailureKind::Limit(refusal) = kind {
        return if refusal.exceeded.cap == Cap::Tokens { "tokens" } else { "requests" };
    }
    match status.as_u16() {
        429 => "insufficient_quota",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

fn anthropic_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        503 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

/// The canonical code of a status (`google.rpc.Code`).
fn google_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        408 | 504 => "DEADLINE_EXCEEDED",
        429 => "RESOURCE_EXHAUSTED",
        501 => "UNIMPLEMENTED",
        502 | 503 => "UNAVAILABLE",
        500.. => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    }
}

/// The exceptions that Bedrock's API reference lists for its runtime, and AWS's common one for credentials.
fn aws_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "UnrecognizedClientException",
        403 => "AccessDeniedException",
        404 => "ResourceNotFoundException",
        429 => "ThrottlingException",
        503 => "ServiceUnavailableException",
        504 => "ModelTimeoutException",
        500.. => "InternalServerException",
        _ => "ValidationException",
    }
}
