//! The innermost layer: sends the request to its upstream and waits for the head of the reply.
//!
//! Invariants
//! - Hop-by-hop headers and our own headers never pass; `Host` and the framing are rebuilt.
//! - A configured secret is attached only to the upstream of its route.
//!
//! Not here: connections (`upstream`), the body of the reply (`reply`).

use crate::aws::Authorization;
use crate::config::{Auth, CREDENTIAL_HEADERS, Route};
use crate::idle_timer::IdleTimer;
use crate::layers::identify::{BAGGAGE, OWN_PREFIX};
use crate::upstream::{Lease, Origin, Pool, RequestBody, RequestProgress, SendError};
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// A request ready to be sent.
#[derive(Debug)]
pub struct Outgoing {
    /// Where to.
    pub origin: Arc<Origin>,
    /// The authority as a header.
    pub host: HeaderValue,
    /// What for.
    pub target: PathAndQuery,
    /// Method and headers as the client sent them.
    pub head: http::request::Parts,
    /// The body.
    pub body: RequestBody,
    /// Headers that authorize it in place of the client's, where it was signed here.
    pub authorization: Authorization,
}

/// Why there is no head of a reply.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The connection failed.
    #[error(transparent)]
    Send(#[from] SendError),
    /// Nothing came in time.
    #[error("no reply within {0:?}")]
    TimedOut(Duration),
}

/// The head of a reply, with the connection it came on and the timer that goes on for its body.
pub type Answer = (http::Response<Incoming>, Option<Lease>, IdleTimer);

/// Sends `outgoing` by `pool` and waits for the head of the reply. What can be done at once is done
/// before the future is made, which keeps it small.
pub fn forward<'a>(
    pool: &'a Rc<Pool>,
    route: &'a Route,
    outgoing: Outgoing,
) -> impl Future<Output = Result<Answer, ForwardError>> + use<'a> {
    let Outgoing { origin, host, target, mut head, body, authorization } = outgoing;
    prepare_headers(&mut head.headers, route, host);
    head.headers.extend(authorization);
    head.uri = http::Uri::from(target);
    head.extensions = http::Extensions::new();
    let progress = Rc::clone(body.progress());
    let answer = pool.send(origin, http::Request::from_parts(head, body), route.timeouts.connect);
    let passed = progress.borrow().bytes();
    InTime { answer, timer: Some(pool.timer(&route.timeouts)), progress, passed, route }
}

pin_project! {
    /// An answer that must come in time. Written out, since an `async fn` would hold it twice.
    struct InTime<'a, F> {
        #[pin]
        answer: F,
        timer: Option<IdleTimer>,
        progress: Rc<RefCell<RequestProgress>>,
        passed: u64,
        route: &'a Route,
    }
}

impl<F> Future for InTime<'_, F>
where
    F: Future<Output = Result<(http::Response<Incoming>, Option<Lease>), SendError>>,
{
    type Output = Result<Answer, ForwardError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // Taken with the answer, after which nobody polls again.
        let Some(timer) = this.timer.as_mut() else { return Poll::Pending };
        if let Poll::Ready(result) = this.answer.poll(cx) {
            let (response, mut lease) = result?;
            if let Some(lease) = lease.as_mut().filter(|_| !this.progress.borrow().is_sent()) {
                lease.detach();
            }
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(Err(SendError::Switched.into()));
            }
            let idle = this.timer.take().map(|timer| timer.with_limit(this.route.timeouts.idle));
            return idle.map_or(Poll::Pending, |idle| Poll::Ready(Ok((response, lease, idle))));
        }
        // The upstream owes its answer from the end of the request: a long upload is no silence.
        let now = this.progress.borrow().bytes();
        if std::mem::replace(this.passed, now) != now {
            timer.progress();
        }
        match timer.poll_expired(cx) {
            None => Poll::Pending,
            Some(_) => Poll::Ready(Err(ForwardError::TimedOut(this.route.timeouts.response_head))),
        }
    }
}

/// Makes a client's headers those of our own request to `host`.
pub(crate) fn prepare_headers(headers: &mut HeaderMap, route: &Route, host: HeaderValue) {
    strip_hop_by_hop(headers);
    strip_own(headers);
    strip_own_baggage(headers);
    // The body was read on the client's `Expect` already; framing is rebuilt from the body.
    headers.remove(header::EXPECT);
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::HOST, host);
    match &route.auth {
        Auth::PassThrough => {}
        Auth::Inject(secret) => {
            strip_credentials(headers);
            headers.insert(secret.header.clone(), secret.value.clone());
        }
        Auth::SigV4(_) => {
            strip_credentials(headers);
            for name in SIGNATURE_HEADERS {
                headers.remove(name);
            }
        }
    }
}

/// Parts of a client's own signature beside its credentials.
const SIGNATURE_HEADERS: [&str; 2] = ["x-amz-date", "x-amz-content-sha256"];

fn strip_credentials(headers: &mut HeaderMap) {
    for name in CREDENTIAL_HEADERS {
        headers.remove(*name);
    }
}

/// Whether a header belongs to one hop. Most messages carry none, and then nothing is looked up.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    [
        &header::CONNECTION,
        &header::TRANSFER_ENCODING,
        &header::TE,
        &header::UPGRADE,
        &header::PROXY_AUTHENTICATE,
        &header::PROXY_AUTHORIZATION,
        &KEEP_ALIVE,
        &PROXY_CONNECTION,
    ]
    .contains(&name)
}

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes what belongs to one hop (RFC 9110 §7.6.1): the listed headers and all that
/// `Connection` names. `TE: trailers` may stay, since trailers do pass.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::try_from(name.trim()).ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    headers.remove(&KEEP_ALIVE);
    headers.remove(&PROXY_CONNECTION);
    headers.remove(header::PROXY_AUTHENTICATE);
    headers.remove(header::PROXY_AUTHORIZATION);
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::UPGRADE);
    if let Some(te) = headers.remove(header::TE)
        && te.as_bytes().eq_ignore_ascii_case(b"trailers")
    {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes from a request's trailers what its head may not carry upstream.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    strip_own(trailers);
    strip_credentials(trailers);
}

/// Removes our members from W3C baggage; others' pass as they are.
fn strip_own_baggage(headers: &mut HeaderMap) {
    let ours = |value: &HeaderValue| memchr::memmem::find(value.as_bytes(), OWN_PREFIX.as_bytes()).is_some();
    if !headers.get_all(&BAGGAGE).iter().any(ours) {
        return;
    }
    let kept: Vec<String> = headers
        .get_all("baggage")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter(|member| !member.trim_start().starts_with(OWN_PREFIX))
        .map(str::to_owned)
        .collect();
    headers.remove("baggage");
    if let Ok(value) = HeaderValue::try_from(kept.join(",").trim())
        && !value.is_empty()
    {
        headers.insert("baggage", value);
    }
}

/// Removes every `x-bursar-…` header.
pub fn strip_own(headers: &mut HeaderMap) {
    while let Some(own) = headers.keys().find(|name| name.as_str().starts_with(OWN_PREFIX)).cloned() {
        headers.remove(own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn hop_by_hop_headers_and_those_that_connection_names_are_removed() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Secret-Hop"),
            ("x-secret-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "Basic x"),
            ("te", "gzip"),
            ("accept", "*/*"),
            ("trailer", "x-end"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(names(&headers), ["accept", "trailer"]);
    }

    #[test]
    fn te_trailers_stays() {
        let mut headers = map(&[("te", "trailers"), ("connection", "te")]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(names(&headers), Vec::<&str>::new(), "named by connection: one hop only");
        let mut headers = map(&[("te", "Trailers")]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(names(&headers), ["te"]);
    }

    #[test]
    fn our_members_leave_the_baggage_and_others_stay() {
        let mut headers = map(&[("baggage", "a=1, x-bursar-customer=acme;p=1 ,b=2")]);
        strip_own_baggage(&mut headers);
        assert_eq!(headers["baggage"], "a=1,b=2");
        let mut headers = map(&[("baggage", "x-bursar-team=t")]);
        strip_own_baggage(&mut headers);
        assert!(headers.is_empty());
        let mut headers = map(&[("baggage", "a=1"), ("baggage", "b=2")]);
        strip_own_baggage(&mut headers);
        assert_eq!(headers.get_all("baggage").iter().count(), 2, "not ours: as it came");
    }

    #[test]
    fn trailers_carry_neither_identity_nor_credentials() {
        let mut trailers = map(&[("x-bursar-team", "a"), ("authorization", "Bearer x"), ("x-digest", "1")]);
        strip_trailers(&mut trailers);
        assert_eq!(names(&trailers), ["x-digest"]);
    }

    #[test]
    fn own_headers_never_pass() {
        let mut headers = map(&[("x-bursar-team", "a"), ("x-bursar-tag-k", "v"), ("x-other", "1")]);
        strip_own(&mut headers);
        assert_eq!(names(&headers), ["x-other"]);
    }
}
