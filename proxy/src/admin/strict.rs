//! What the guard refuses on the admin listener, as problem documents; and when a client is too slow.
//!
//! Invariants
//! - The HTTP library sees only whole, strict heads, so that it never answers by itself, without a body.
//! - A head or a body that stalls is answered with 408; a client that takes nothing of its answer is cut off.
//!
//! Not here: what is refused (`guard`), what requests are answered (`super::router`).

use super::hedge::IMPORT_BYTES_MAX;
use super::{Peer, problem, sealed};
use crate::guard::deadlines::Deadlines;
use crate::guard::{self, ConnState, Exchange, Limits, Overdue, Rejection};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tower::ServiceExt;

/// How large a request may be. A target holds what the longest parameters take when each of their characters
/// is encoded, which is as long as an address may be; headers hold no more than elsewhere.
pub(super) const LIMITS: Limits = Limits {
    head_bytes_max: 80 * 1024,
    headers_max: 100,
    target_bytes_max: 65_534,
    // Nothing is passed on. Where GET is no method of a path, that is what is wrong.
    body_of_get: true,
    body_bytes_max: IMPORT_BYTES_MAX as u64,
    trailer_bytes_max: 8 * 1024,
    trailers_max: 16,
};

/// How long a head may take, or the pause before it.
const HEAD: Duration = Duration::from_secs(30);

/// How long a client may be silent.
pub(super) const DEADLINES: Deadlines = Deadlines {
    first_byte: HEAD,
    head: HEAD,
    body_idle: HEAD,
    keep_alive: HEAD,
    write_idle: Duration::from_secs(600),
    linger: Duration::from_secs(2),
};

/// Has a connection that is overdue end; `false` when it is of no use to wait for its end.
pub(super) fn look_at(state: &ConnState) -> bool {
    match state.overdue(&DEADLINES) {
        // Who does not read would not read a reason either.
        Some(Overdue::WriteIdle) => return false,
        Some(overdue) => state.expire(overdue),
        None => {}
    }
    true
}

/// The answer to a request that passed the guard, or to what stands for one that did not.
pub(super) async fn answer(
    request: http::Request<Incoming>,
    router: Router,
    peer: Peer,
    state: Arc<ConnState>,
) -> Result<http::Response<Answered>, Infallible> {
    // Until the answer has been sent.
    let exchange = state.exchange();
    if let Some(rejection) = guard::rejection_of(request.method(), request.uri(), request.version()) {
        return Ok(Answered::of(refused(rejection), exchange));
    }
    let broken = Arc::new(OnceLock::new());
    let mut request = request.map(|body| Body::new(Watched { body, broken: Arc::clone(&broken) }));
    request.extensions_mut().insert(peer);
    let Ok(response) = router.oneshot(request).await;
    let is_error = response.status().is_client_error() || response.status().is_server_error();
    let response = match broken.get() {
        Some(rejection) if is_error => refused(*rejection),
        _ => response,
    };
    Ok(Answered::of(response, exchange))
}

fn refused(rejection: Rejection) -> Response {
    let detail = match rejection {
        Rejection::BodyTooLarge => super::gate::TOO_LARGE.to_owned(),
        rejection => rejection.to_string(),
    };
    // No operation takes these methods.
    let is_forbidden = matches!(rejection, Rejection::ForbiddenMethod | Rejection::UnknownMethod);
    let status = if is_forbidden { StatusCode::METHOD_NOT_ALLOWED } else { rejection.status() };
    let mut response = sealed(problem(status, &detail));
    if is_forbidden {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET,HEAD,POST"));
    }
    // Nothing more is read from it.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A request's body that keeps why the guard broke it off.
#[derive(Debug)]
struct Watched {
    body: Incoming,
    broken: Arc<OnceLock<Rejection>>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Err(error))) = &frame
            && let Some(rejection) = guard::rejection_in(error)
        {
            self.broken.get_or_init(|| rejection);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body, with whose end the exchange ends.
#[derive(Debug)]
pub(super) struct Answered {
    body: Body,
    _exchange: Exchange,
}

impl Answered {
    fn of(response: Response, exchange: Exchange) -> http::Response<Self> {
        response.map(|body| Self { body, _exchange: exchange })
    }
}

impl http_body::Body for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
