//! The rules that hold for a parsed request in HTTP/1 and HTTP/2 alike, before it is routed.
//!
//! HTTP/2 requests do not pass the byte guard; here they meet the same rules. HTTP/1 requests meet them
//! again, which costs little and keeps one list.
//!
//! Invariants
//! - An accepted request has one canonical path, one host and no header that two readers could take
//!   for different things.
//!
//! Not here: framing (`framing`; the HTTP/2 library checks lengths), routes, identity.

use super::grammar::{self, HeaderKind};
use super::limits::Limits;
use super::rejection::Rejection;
use super::target::{canonical_path, check_target};
use http::header::{HOST, UPGRADE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Version};
use std::borrow::Cow;

/// Whether a request has a body, as its reader knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyPresence {
    /// The message ends with its head.
    Empty,
    /// A body follows, even if it may turn out to be empty.
    Present,
}

/// What a request asks the connection to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// Nothing else.
    None,
    /// A WebSocket.
    WebSocket,
    /// Something else, such as `h2c`. May be ignored (RFC 9110 §7.8); some clients always send it.
    Other,
}

/// What the checks found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked<'a> {
    /// The decoded path, for routing only; what is forwarded is the target as it came.
    pub path: Cow<'a, str>,
    /// The upgrade asked for.
    pub upgrade: Upgrade,
}

/// Checks a request.
///
/// # Errors
/// Names the first rule that is broken.
pub fn check_request<'a>(
    parts: &'a Parts,
    body: BodyPresence,
    limits: &Limits,
) -> Result<Checked<'a>, Rejection> {
    check_method(&parts.method)?;
    let path = check_uri(parts, limits)?;
    check_headers(parts, limits)?;
    if matches!(parts.method, Method::GET | Method::HEAD) && body == BodyPresence::Present {
        return Err(Rejection::UnexpectedBody);
    }
    Ok(Checked { path, upgrade: upgrade(parts) })
}

fn check_method(method: &Method) -> Result<(), Rejection> {
    match *method {
        Method::GET
        | Method::HEAD
        | Method::POST
        | Method::PUT
        | Method::PATCH
        | Method::DELETE
        | Method::OPTIONS => Ok(()),
        Method::CONNECT | Method::TRACE => Err(Rejection::ForbiddenMethod),
        _ => Err(Rejection::UnknownMethod),
    }
}

fn check_uri<'a>(parts: &'a Parts, limits: &Limits) -> Result<Cow<'a, str>, Rejection> {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    if target.len() > limits.target_bytes_max {
        return Err(Rejection::TargetTooLong);
    }
    if parts.version != Version::HTTP_2 && parts.uri.authority().is_some() {
        return Err(Rejection::TargetForm);
    }
    check_host(parts)?;
    if target == "*" && parts.method == Method::OPTIONS {
        return Ok(Cow::Borrowed("*"));
    }
    check_target(target.as_bytes())?;
    canonical_path(parts.uri.path())
}

/// HTTP/2 names the host in `:authority`, in `Host`, or alike in both.
fn check_host(parts: &Parts) -> Result<(), Rejection> {
    let host = parts.headers.get(HOST).map(HeaderValue::as_bytes);
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            Err(Rejection::HostConflict)
        }
        (Some(host), _) | (None, Some(host)) => grammar::check_host(host),
        (None, None) if parts.version == Version::HTTP_10 => Ok(()),
        (None, None) => Err(Rejection::HostMissing),
    }
}

fn check_headers(parts: &Parts, limits: &Limits) -> Result<(), Rejection> {
    if parts.headers.len() > limits.headers_max {
        return Err(Rejection::TooManyHeaders);
    }
    let mut seen = 0_u32;
    // `:` and line ends, without the optional white space: never more than HTTP/1 counted.
    let mut head_bytes = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    for (name, value) in &parts.headers {
        head_bytes = head_bytes.saturating_add(name.as_str().len() + value.len() + 3);
        let kind = HeaderKind::of(name.as_str().as_bytes());
        if kind.is_single() && seen & kind.bit() != 0 {
            return Err(Rejection::RepeatedHeader);
        }
        seen |= kind.bit();
        grammar::check_value(value.as_bytes())?;
        if parts.version == Version::HTTP_2 && has_outer_space(value.as_bytes()) {
            return Err(Rejection::HeaderValue);
        }
        check_header(kind, name, value, parts, limits)?;
    }
    if head_bytes > limits.head_bytes_max {
        return Err(Rejection::HeadTooLarge);
    }
    Ok(())
}

/// RFC 9113 §8.2.1: in HTTP/1 such space is no part of the value, so it would not arrive as it was sent.
fn has_outer_space(value: &[u8]) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_space(value.first()) || is_space(value.last())
}

fn check_header(
    kind: HeaderKind,
    name: &HeaderName,
    value: &HeaderValue,
    parts: &Parts,
    limits: &Limits,
) -> Result<(), Rejection> {
    match kind {
        HeaderKind::Ours => {
            grammar::check_our_name(name.as_str().as_bytes())?;
            let is_repeated = parts.headers.get_all(name).iter().nth(1).is_some();
            if is_repeated { Err(Rejection::RepeatedHeader) } else { Ok(()) }
        }
        HeaderKind::ContentLength => check_length(value, parts, limits),
        // What the call is, and so what it may cost, is told by the method that was sent.
        HeaderKind::MethodOverride
            if !value.as_bytes().eq_ignore_ascii_case(parts.method.as_str().as_bytes()) =>
        {
            Err(Rejection::MethodOverride)
        }
        HeaderKind::Expect if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            Err(Rejection::Expectation)
        }
        _ if parts.version == Version::HTTP_2 => check_http2_header(kind, value),
        _ => Ok(()),
    }
}

fn check_length(value: &HeaderValue, parts: &Parts, limits: &Limits) -> Result<(), Rejection> {
    let length = grammar::content_length(value.as_bytes())?;
    if length > limits.body_bytes_max {
        return Err(Rejection::BodyTooLarge);
    }
    if length > 0 && matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(Rejection::UnexpectedBody);
    }
    Ok(())
}

/// RFC 9113 §8.2.2.
fn check_http2_header(kind: HeaderKind, value: &HeaderValue) -> Result<(), Rejection> {
    match kind {
        HeaderKind::Connection
        | HeaderKind::HopByHop
        | HeaderKind::Upgrade
        | HeaderKind::TransferEncoding => Err(Rejection::ConnectionHeader),
        HeaderKind::Te if value.as_bytes() != b"trailers" => Err(Rejection::TeHeader),
        _ => Ok(()),
    }
}

fn upgrade(parts: &Parts) -> Upgrade {
    match parts.headers.get(UPGRADE) {
        None => Upgrade::None,
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"websocket") => Upgrade::WebSocket,
        Some(_) => Upgrade::Other,
    }
}

#[cfg(test)]
mod tests;
