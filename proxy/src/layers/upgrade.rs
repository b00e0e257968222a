//! WebSocket sessions: which requests may open one, and their handshake with the upstream.
//!
//! Invariants
//! - Only a path that is a realtime API may leave HTTP; everything else is refused before it costs
//!   anything.
//! - A session has an upstream connection of its own, in HTTP/1.1, never from the pool.
//! - The handshake passes as it came, without `Sec-WebSocket-Extensions`: compressed messages could not
//!   be metered. An upstream that refuses answers for itself.
//!
//! Not here: moving the bytes (`tunnel`), what they mean (`session`).

use super::{forward, meter};
use crate::app::App;
use crate::call::Call;
use crate::config::Auth;
use crate::credentials::presented::KEY_PROTOCOL;
use crate::exchange::{BodyBytes, Exchange, Seen};
use crate::failure::{Failure, FailureKind, Handshake};
use crate::guard::Upgrade;
use crate::http::Response;
use crate::idle_timer::IdleTimer;
use crate::ids::IdSource;
use crate::reply::ReplyBody;
use crate::session::{Opening, Session};
use crate::tunnel::Tunnel;
use crate::upstream::{Pool, RequestBody, RequestProgress, SendError, Window};
use crate::usage::{Ending, RequestScan};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// Whether `call` asks to leave HTTP.
pub fn is_asked(call: &Call) -> bool {
    call.head.extensions.get::<Upgrade>() == Some(&Upgrade::WebSocket)
}

/// Lets `call` pass unless it asks for a WebSocket where none is served, or asks wrongly.
pub fn check(call: Box<Call>) -> Result<Box<Call>, Failure> {
    if !is_asked(&call) {
        return Ok(call);
    }
    // What the sidecar signs is one request; the upstream would refuse an unsigned handshake.
    let is_signed = matches!(call.route.auth, Auth::SigV4(_));
    let kind = if call.api.is_session() && !is_signed {
        handshake_fault(&call).map(FailureKind::Handshake)
    } else {
        Some(FailureKind::Upgrade)
    };
    match kind {
        None => Ok(call),
        Some(kind) => Err(Failure { kind, dialect: call.route.dialect, request: Some(call.id) }),
    }
}

/// What is wrong with a client's handshake (RFC 6455 §4.2.1), as far as a proxy must know.
fn handshake_fault(call: &Call) -> Option<Handshake> {
    let headers = &call.head.headers;
    let is_get = call.head.method == Method::GET && call.head.version == http::Version::HTTP_11;
    let names_upgrade = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
    let one = |name| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none())
    };
    // Sixteen bytes in base 64.
    let has_key = one(header::SEC_WEBSOCKET_KEY).is_some_and(|key| key.len() == 24);
    let version = one(header::SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    match (is_get && names_upgrade && has_key, version) {
        (true, Some(b"13")) => None,
        (true, _) => Some(Handshake::Version),
        (false, _) => Some(Handshake::Malformed),
    }
}

/// Takes `call` through its handshake: up to the tunnel, or to the upstream's refusal.
pub(crate) async fn upgrade(
    app: Arc<App>,
    pool: Rc<Pool>,
    ids: Rc<IdSource>,
    mut call: Box<Call>,
) -> Result<Response, Failure> {
    let (id, dialect) = (call.id, call.route.dialect);
    let fail = |kind| Failure { kind, dialect, request: Some(id) };
    let Some(client) = call.head.extensions.remove::<OnUpgrade>() else {
        return Err(fail(FailureKind::Handshake(Handshake::Malformed)));
    };
    let progress = Rc::new(RefCell::new(RequestProgress::new(RequestScan::new(None), false)));
    let mut exchange = Exchange::new(&app, &mut call, Rc::clone(&progress));
    let (method, headers) = (&call.head.method, &call.head.headers);
    let seen = Seen { method, headers, target: &call.target, held: &[], is_whole: true };
    exchange.check_access(seen).map_err(fail)?;
    exchange.follow_rules(&mut call, &mut Window::default(), BodyBytes::Read).map_err(fail)?;
    exchange.admit(&call.head.method, &call.head.headers, BodyBytes::Read).map_err(fail)?;
    let opening = Opening::of(&call);
    let Call { head, route, origin, host, target, .. } = *call;
    let request = request(head, &route, host, target, progress);
    if let Some(opened) = exchange.sent() {
        meter::opened(&app, &mut exchange, opened).await.map_err(fail)?;
    }
    let timeout = route.timeouts.response_head;
    let answer = tokio::time::timeout(timeout, pool.switch(&origin, request, route.timeouts.connect)).await;
    let response = match answer {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            drop(exchange.settle(Ending::UpstreamCut));
            return Err(fail(FailureKind::Upstream { route: route.name.clone(), error }));
        }
        Err(_) => {
            drop(exchange.settle(Ending::UpstreamCut));
            return Err(fail(FailureKind::UpstreamTimeout { route: route.name.clone(), timeout }));
        }
    };
    let reply_headers = route.response_headers;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let idle = route.timeouts.idle;
        let answer = (response, None, IdleTimer::start(idle, idle));
        let (head, relay) = meter::relay(exchange, answer, false, reply_headers, id);
        return Ok(http::Response::from_parts(head, ReplyBody::relay(relay)));
    }
    if !is_websocket(&response) {
        drop(exchange.settle(Ending::UpstreamCut));
        return Err(fail(FailureKind::Upstream { route: route.name.clone(), error: SendError::Switched }));
    }
    let kept = exchange.leave_to_session();
    let (mut head, upstream) = switched(response);
    let session = Session::new(&app, &ids, opening, kept, &head);
    prepare_answer(&mut head.headers);
    meter::tell_request_id(&mut head.headers, reply_headers, id);
    let tunnel = Tunnel::new(client, upstream, session, route.timeouts.idle);
    Ok(http::Response::from_parts(head, ReplyBody::Tunnel(Box::new(tunnel))))
}

/// The handshake for the upstream.
fn request(
    mut head: http::request::Parts,
    route: &crate::config::Route,
    host: HeaderValue,
    target: http::uri::PathAndQuery,
    progress: Rc<RefCell<RequestProgress>>,
) -> http::Request<RequestBody> {
    forward::prepare_headers(&mut head.headers, route, host);
    head.headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
    if matches!(route.auth, Auth::Inject(_)) {
        strip_key_protocols(&mut head.headers);
    }
    switch_headers(&mut head.headers);
    head.uri = http::Uri::from(target);
    head.extensions = http::Extensions::new();
    let body = RequestBody::new(Window::default(), None, progress, 0);
    http::Request::from_parts(head, body)
}

/// A route with a secret of its own must not send a client's key beside it.
fn strip_key_protocols(headers: &mut HeaderMap) {
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let kept: Vec<String> = offered
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty() && !name.starts_with(KEY_PROTOCOL))
        .map(str::to_owned)
        .collect();
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    if let Ok(value) = HeaderValue::try_from(kept.join(", "))
        && !value.is_empty()
    {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
}

fn is_websocket(response: &http::Response<Incoming>) -> bool {
    let upgrade = response.headers().get(header::UPGRADE).map(HeaderValue::as_bytes);
    upgrade.is_some_and(|name| name.eq_ignore_ascii_case(b"websocket"))
}

fn switched(mut response: http::Response<Incoming>) -> (http::response::Parts, OnUpgrade) {
    let upstream = hyper::upgrade::on(&mut response);
    let (mut head, _) = response.into_parts();
    head.extensions = http::Extensions::new();
    (head, upstream)
}

/// The upstream's answer for the client: its headers, with the hop-by-hop ones made anew.
fn prepare_answer(headers: &mut HeaderMap) {
    forward::strip_hop_by_hop(headers);
    forward::strip_own(headers);
    // A 101 has no body (RFC 9110 §8.6).
    headers.remove(header::CONTENT_LENGTH);
    switch_headers(headers);
}

fn switch_headers(headers: &mut HeaderMap) {
    let put = |headers: &mut HeaderMap, name: HeaderName, value| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    put(headers, header::CONNECTION, "Upgrade");
    put(headers, header::UPGRADE, "websocket");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(offered: &[&'static str], kept: Option<&str>) {
        let mut headers = HeaderMap::new();
        for value in offered {
            headers.append(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(value));
        }
        strip_key_protocols(&mut headers);
        let left = headers.get(header::SEC_WEBSOCKET_PROTOCOL).map(|value| value.to_str().unwrap());
        assert_eq!(left, kept, "{offered:?}");
    }

    #[test]
    fn a_key_among_the_subprotocols_is_taken_out() {
        check(&["realtime, openai-insecure-api-key.sk-1"], Some("realtime"));
        check(
            &["realtime", "openai-insecure-api-key.sk-1,openai-beta.realtime-v1"],
            Some("realtime, openai-beta.realtime-v1"),
        );
        check(&["openai-insecure-api-key.sk-1"], None);
        check(&[], None);
    }
}
