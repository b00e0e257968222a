//! The dashboard: one page without any data, whose script asks the API of its own origin.
//!
//! Invariants
//! - Nothing of another origin is loaded, nothing in line is run, and no other page may frame it.
//! - The page is unpacked for each request; nothing of it is kept in memory.
//!
//! Not here: what the page shows (`dashboard/`), who may see it (`access`).

use super::problem;
use axum::extract::Path;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flate2::read::ZlibDecoder;
use std::io::Read;

/// The files behind the page.
pub(super) const FILES: &[&str] = &["page.css", "page.js"];

/// Their types, and that of the page.
pub(super) const HTML: &str = "text/html; charset=utf-8";
pub(super) const CSS: &str = "text/css; charset=utf-8";
pub(super) const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Packed by `build.rs`.
const PAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/page.html.z"));
const STYLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/page.css.z"));
const CODE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/page.js.z"));

/// What a browser may do for the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// `GET /`
pub(super) async fn page() -> Response {
    const HEADERS: [(HeaderName, &str); 4] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    let mut response = unpacked(PAGE, HTML);
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// `GET /dashboard/{file}`
pub(super) async fn file(Path(name): Path<String>) -> Response {
    match &*name {
        "page.css" => unpacked(STYLE, CSS),
        "page.js" => unpacked(CODE, SCRIPT),
        _ => problem(StatusCode::NOT_FOUND, "the dashboard has no such file"),
    }
}

fn unpacked(packed: &[u8], kind: &'static str) -> Response {
    let mut text = Vec::new();
    match ZlibDecoder::new(packed).read_to_end(&mut text) {
        Ok(_) => ([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], text).into_response(),
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "the page is damaged: this is a defect"),
    }
}

#[cfg(test)]
mod tests;
