//! Reads what a request asks for, sends it on, and attaches the meter to its reply.
//!
//! Invariants
//! - At most the hold window of a request is in memory; larger bodies stream through. A body that is
//!   signed here is held whole, up to a limit of its own; so is one that a hard budget must know, as far
//!   as there is room.
//! - A request that is sent has an exchange, so it will have a record whatever happens next.
//!
//! Not here: what usage means (`usage`), sending (`forward`).

use crate::app::App;
use crate::aws::{Authorization, SIGNED_BODY_BYTES_MAX, Signer, Unsigned};
use crate::call::Call;
use crate::config::{Auth, FailMode, ResponseHeaders};
use crate::exchange::{BodyBytes, Exchange, Figures, Seen, is_client_signed};
use crate::failure::{Failure, FailureKind};
use crate::guard::Rejection;
use crate::http::{Frame, Response};
use crate::layers::forward::{self, Answer, ForwardError, Outgoing};
use crate::layers::room::Taken;
use crate::reply::{Relay, ReplyBody};
use crate::upstream::{BodyFault, Patience, Pool, RequestBody, RequestProgress, Window, passing_trailers};
use crate::usage::{Api, Ending, HideUsage, IncludeUsage, RequestScan, include};
use bursar_domain::{Anomaly, RequestId};
use bursar_ledger::Receipt;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body::Body;
use hyper::body::Incoming;
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

/// How much of a metered request is looked at before it goes out. Most requests are smaller, and
/// then their rewrite is exact; larger ones are rewritten as they pass.
const HOLD_BYTES: usize = 64 * 1024;

/// The longest reply that is held back so that its cost can stand in its head, where a route says so.
const COST_REPLY_BYTES_MAX: u64 = 1024 * 1024;

/// Takes `call` through its whole exchange up to the head of the reply.
pub async fn meter(
    app: Arc<App>,
    pool: Rc<Pool>,
    signer: Rc<Signer>,
    mut call: Box<Call>,
) -> Result<Response, Failure> {
    let signs = matches!(call.route.auth, Auth::SigV4(_));
    let until = if signs { Until::End } else { Until::Full };
    let limit = match until {
        Until::Full => app.guard_limits.body_bytes_max,
        Until::End => app.guard_limits.body_bytes_max.min(SIGNED_BODY_BYTES_MAX),
    };
    let reads = call.api != Api::Unmetered;
    let content_type = call.head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let scan = RequestScan::new(encoding_of(&call.head.headers)).with_type(content_type);
    let progress = Rc::new(RefCell::new(RequestProgress::new(scan, reads)));
    let mut exchange = Exchange::new(&app, &mut call, Rc::clone(&progress));
    let fail = Failing { dialect: call.error_dialect(), id: call.id, signs };

    let body = call.body.take().filter(|body| !body.is_end_stream());
    // In HTTP/1 the connection has its own deadline for bodies.
    let is_shared = call.head.version == http::Version::HTTP_2 && body.is_some();
    let patience = is_shared.then(|| Box::new(Patience::new(app.config().server.timeouts.body_idle)));
    let mut window = match body {
        Some(body) if reads || signs => {
            let more = || exchange.needs_whole_body(&call.head.method).then(|| app.body_room.begin());
            let held = hold(body, &progress, limit, patience, until, more).await;
            held.map_err(|fault| fail.body(fault, limit))?
        }
        rest => Window { rest, patience, ..Window::default() },
    };
    exchange.watch(&window.held, window.rest.is_none(), encoding_of(&call.head.headers));
    // Before anything is sent, and after as much of the body as tells what it may use.
    let seen = Seen {
        method: &call.head.method,
        headers: &call.head.headers,
        target: &call.target,
        held: &window.held,
        is_whole: window.rest.is_none(),
    };
    exchange.check_access(seen).map_err(|kind| fail.kind(kind))?;
    let body = body_bytes(&window, &call.head.headers);
    exchange.follow_rules(&mut call, &mut window, body).map_err(|kind| fail.kind(kind))?;
    exchange.admit(&call.head.method, &call.head.headers, body).map_err(|kind| fail.kind(kind))?;
    let Call { id, mut head, route, origin, host, target, api, .. } = *call;
    if let Some(trailers) = &window.trailers {
        announce_trailers(&mut head.headers, trailers);
    }
    // A client that signed its body itself would see the signature fail.
    let wanted =
        route.include_usage && api.has_include_usage() && (signs || !is_client_signed(&head.headers));
    let rewrite = if wanted && !head.headers.contains_key(header::CONTENT_ENCODING) {
        rewrite(&mut window, progress.borrow().is_stream())
    } else {
        Rewrite::None
    };
    let may_inject = !matches!(rewrite, Rewrite::None);
    if may_inject {
        // A compressed stream could not be read in time to hide the chunk that we ask for.
        head.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    let streaming = match rewrite {
        Rewrite::Streaming(rewriter) => Some(rewriter),
        Rewrite::None | Rewrite::Done => None,
    };
    let authorization = match &route.auth {
        Auth::SigV4(scope) => {
            let request = Unsigned { origin: &origin, target: &target, head: &head, body: &window.held };
            // Boxed: few requests are signed, and every one would carry room for it.
            let signed = Box::pin(signer.sign(scope, request, app.now())).await;
            signed.map_err(|error| fail.kind(FailureKind::Unsigned(error)))?
        }
        Auth::PassThrough | Auth::Inject(_) => Authorization::new(),
    };
    let body = RequestBody::new(window, streaming, Rc::clone(&progress), limit);
    let outgoing = Outgoing { origin, host, target, head, body, authorization };
    if let Some(receipt) = exchange.sent() {
        opened(&app, &mut exchange, receipt).await.map_err(|kind| fail.kind(kind))?;
    }
    match forward::forward(&pool, &route, outgoing).await {
        Ok(answer) => {
            let (mut head, mut relay) = relay(exchange, answer, may_inject, route.response_headers, id);
            if route.response_headers.cost
                && !is_stream(&head.headers)
                && let Some(figures) = relay.read_whole(COST_REPLY_BYTES_MAX).await
            {
                tell_figures(&mut head.headers, &figures);
            }
            Ok(http::Response::from_parts(head, ReplyBody::relay(relay)))
        }
        Err(error) => {
            let fault = progress.borrow().broken;
            // A request that its client did not finish is no failure of the upstream.
            drop(exchange.settle(if fault.is_some() { Ending::ClientAbort } else { Ending::UpstreamCut }));
            Err(match (fault, error) {
                (Some(fault), _) => fail.body(fault, limit),
                (None, ForwardError::Send(error)) => {
                    fail.kind(FailureKind::Upstream { route: route.name.clone(), error })
                }
                (None, ForwardError::TimedOut(timeout)) => {
                    fail.kind(FailureKind::UpstreamTimeout { route: route.name.clone(), timeout })
                }
            })
        }
    }
}

fn body_bytes(window: &Window, headers: &HeaderMap) -> BodyBytes {
    if window.rest.is_none() {
        return BodyBytes::Read;
    }
    if window.room.is_some() {
        // There was no room for the rest, which may say what changes everything.
        return BodyBytes::Unknown;
    }
    let told = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    match told {
        Some(bytes) if !headers.contains_key(header::CONTENT_ENCODING) => BodyBytes::Told(bytes),
        _ => BodyBytes::Unknown,
    }
}

/// Waits until the ledger has noted that the exchange is under way. What it cannot note only passes where
/// the configuration says so.
pub(super) async fn opened(app: &App, exchange: &mut Exchange, receipt: Receipt) -> Result<(), FailureKind> {
    match receipt.await {
        Err(reason) if app.config().ledger.fail == FailMode::Closed => {
            exchange.withdraw();
            Err(FailureKind::LedgerClosed { reason: reason.to_string() })
        }
        _ => Ok(()),
    }
}

fn encoding_of(headers: &http::HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok())
}

/// What a failure needs to know about its request.
struct Failing {
    dialect: crate::config::Dialect,
    id: RequestId,
    signs: bool,
}

impl Failing {
    fn kind(&self, kind: FailureKind) -> Failure {
        Failure { kind, dialect: self.dialect, request: Some(self.id) }
    }

    fn body(&self, fault: BodyFault, limit: u64) -> Failure {
        self.kind(match fault {
            BodyFault::TooLarge if self.signs && limit == SIGNED_BODY_BYTES_MAX => {
                FailureKind::BodyTooLargeToSign { limit }
            }
            BodyFault::TooLarge => FailureKind::BodyTooLarge { limit },
            BodyFault::Rejected(rejection) => FailureKind::Rejected(rejection),
            BodyFault::Broken => FailureKind::BodyBroken,
        })
    }
}

/// How much of a body is held before it goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// As much as is looked at.
    Full,
    /// All of it: its hash must be known before its first byte is sent.
    End,
}

impl Until {
    fn is_reached(self, bytes: usize) -> bool {
        self == Self::Full && bytes >= HOLD_BYTES
    }
}

/// Reads the body until its end or the hold window is full; then `more` may give room for the rest.
async fn hold(
    mut body: Incoming,
    progress: &Rc<RefCell<RequestProgress>>,
    limit: u64,
    mut patience: Option<Box<Patience>>,
    until: Until,
    more: impl FnOnce() -> Option<Taken>,
) -> Result<Window, BodyFault> {
    if until == Until::End && body.size_hint().lower() > limit {
        return Err(BodyFault::TooLarge);
    }
    let (mut held, mut trailers) = (Held::default(), None);
    let (mut more, mut room) = (Some(more), None);
    let mut is_ended = false;
    while !is_ended && !body.is_end_stream() {
        if until.is_reached(held.bytes) {
            if let Some(more) = more.take() {
                room = more();
            }
            // What is known to be too long is not begun.
            let known = (held.bytes as u64).saturating_add(body.size_hint().lower());
            if !room.as_mut().is_some_and(|room| room.grow_to(known)) {
                break;
            }
        }
        let Some(frame) = poll_fn(|cx| poll_frame(&mut body, &mut patience, cx)).await? else {
            is_ended = true;
            continue;
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(other) => {
                trailers = other.into_trailers().ok().map(passing_trailers);
                continue;
            }
        };
        if let Some(patience) = &mut patience {
            patience.received(data.len());
        }
        let mut progress = progress.borrow_mut();
        progress.feed(&data);
        if progress.bytes() > limit {
            return Err(BodyFault::TooLarge);
        }
        held.push(data);
    }
    let rest = if is_ended || body.is_end_stream() { None } else { Some(body) };
    Ok(Window { held: held.into_pieces(), rest, trailers, patience, room })
}

/// The next frame of `body`, waited for only as long as `patience` says, where it says anything.
fn poll_frame(
    body: &mut Incoming,
    patience: &mut Option<Box<Patience>>,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Frame>, BodyFault>> {
    match Pin::new(body).poll_frame(cx) {
        Poll::Ready(frame) => Poll::Ready(frame.transpose().map_err(|error| BodyFault::of(&error))),
        Poll::Pending => {
            let Some(patience) = patience else { return Poll::Pending };
            patience.poll_over(cx).map(|()| Err(BodyFault::Rejected(Rejection::BodyTimeout)))
        }
    }
}

/// Names the trailers in the head, where the client did not (HTTP/2 clients rarely do): in HTTP/1.1 only
/// announced ones pass.
fn announce_trailers(headers: &mut HeaderMap, trailers: &HeaderMap) {
    if headers.contains_key(header::TRAILER) {
        return;
    }
    let names: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
    if let Ok(names) = HeaderValue::try_from(names.join(", "))
        && !names.is_empty()
    {
        headers.insert(header::TRAILER, names);
    }
}

/// What is held of a body. A body that comes in crumbs is gathered, so that what is kept is never
/// much more than its bytes.
#[derive(Debug, Default)]
struct Held {
    pieces: Vec<Bytes>,
    crumbs: BytesMut,
    bytes: usize,
}

/// So many pieces are kept as they came, and smaller ones after that are gathered.
const PIECES_AS_THEY_CAME: usize = 8;
const CRUMB_BYTES_MAX: usize = 1024;

impl Held {
    fn push(&mut self, piece: Bytes) {
        self.bytes = self.bytes.saturating_add(piece.len());
        if self.pieces.len() >= PIECES_AS_THEY_CAME && piece.len() <= CRUMB_BYTES_MAX {
            self.crumbs.extend_from_slice(&piece);
            return;
        }
        self.gather();
        self.pieces.push(piece);
    }

    fn gather(&mut self) {
        if !self.crumbs.is_empty() {
            self.pieces.push(self.crumbs.split().freeze());
        }
    }

    fn into_pieces(mut self) -> Vec<Bytes> {
        self.gather();
        self.pieces
    }
}

/// How the request for usage gets into the body.
enum Rewrite {
    None,
    /// The held body, which is the whole, has been changed.
    Done,
    /// It will be changed as it passes.
    Streaming(Box<IncludeUsage>),
}

/// Asks the upstream for usage in a stream, where the client did not.
fn rewrite(window: &mut Window, stream: bool) -> Rewrite {
    if window.rest.is_some() {
        return Rewrite::Streaming(Box::default());
    }
    if !stream {
        return Rewrite::None;
    }
    match include::include_usage(&window.held) {
        Some(changed) => {
            window.held = changed.frames;
            Rewrite::Done
        }
        None => Rewrite::None,
    }
}

/// The reply for the client: the upstream's head, and its body with the meter in it.
pub(super) fn relay(
    mut exchange: Exchange,
    answer: Answer,
    may_inject: bool,
    reply_headers: ResponseHeaders,
    id: RequestId,
) -> (http::response::Parts, Box<Relay>) {
    let (response, mut lease, idle) = answer;
    let (mut head, body) = response.into_parts();
    if head.headers.contains_key(header::TRANSFER_ENCODING)
        && head.headers.contains_key(header::CONTENT_LENGTH)
    {
        // The coding wins and the length must go; the connection is not to be trusted (RFC 9112 §6.3).
        head.headers.remove(header::CONTENT_LENGTH);
        if let Some(lease) = &mut lease {
            lease.distrust();
        }
    }
    exchange.head(head.status.as_u16(), &head.headers);
    forward::strip_hop_by_hop(&mut head.headers);
    // Only this sidecar speaks under these names.
    forward::strip_own(&mut head.headers);
    let hide = hide_usage(&mut exchange, &head.headers, may_inject);
    if hide.is_some() {
        head.headers.remove(header::CONTENT_LENGTH);
    }
    tell_request_id(&mut head.headers, reply_headers, id);
    if let Some(warning) = exchange.take_warning() {
        head.headers.insert("x-bursar-budget-warning", warning);
    }
    head.headers.extend(exchange.take_told());
    (head, Box::new(Relay::new(body, exchange, lease, hide, idle)))
}

/// Adds the request's id to the head of its reply, where the route says so.
pub(super) fn tell_request_id(headers: &mut http::HeaderMap, wanted: ResponseHeaders, id: RequestId) {
    if wanted.request_id
        && let Ok(value) = HeaderValue::from_bytes(&id.to_ascii())
    {
        headers.insert("x-bursar-request-id", value);
    }
}

/// The filter for a stream that was asked for usage on the client's behalf.
fn hide_usage(exchange: &mut Exchange, headers: &HeaderMap, may_inject: bool) -> Option<HideUsage> {
    if !may_inject || exchange.request.borrow().asks_for_usage() || !is_stream(headers) {
        return None;
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        // The upstream compressed although it was told not to: the chunk cannot be cut out.
        exchange.note(Anomaly::UsageChunkShown);
        return None;
    }
    Some(HideUsage::new())
}

/// Adds what the exchange used and cost to the head of its reply.
fn tell_figures(headers: &mut HeaderMap, figures: &Figures) {
    let mut tell = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    let Figures { input, output, source, cost } = figures;
    if let Some(input) = input {
        tell("x-bursar-input-tokens", input.to_string());
    }
    if let Some(output) = output {
        tell("x-bursar-output-tokens", output.to_string());
    }
    tell("x-bursar-usage-source", source.name().to_owned());
    let Some(cost) = cost else { return };
    if let Some(billed) = cost.billed_pico {
        tell("x-bursar-cost", bursar_domain::money::format_pico(billed));
        tell("x-bursar-cost-currency", cost.currency.to_string());
    }
    tell("x-bursar-cost-status", cost.status.name().to_owned());
}

fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    [&b"text/event-stream"[..], b"application/vnd.amazon.eventstream"]
        .iter()
        .any(|events| kind.get(..events.len()).is_some_and(|start| start.eq_ignore_ascii_case(events)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes pieces of `sizes`; what is kept must be the same bytes in few pieces.
    fn check(sizes: impl IntoIterator<Item = usize>, pieces_max: usize) {
        let mut held = Held::default();
        let mut sent = Vec::new();
        for (n, size) in sizes.into_iter().enumerate() {
            let piece = vec![n as u8; size];
            sent.extend_from_slice(&piece);
            held.push(Bytes::from(piece));
            assert!(held.crumbs.capacity() <= 2 * HOLD_BYTES, "{} bytes for crumbs", held.crumbs.capacity());
            if held.bytes >= HOLD_BYTES {
                break;
            }
        }
        let pieces = held.into_pieces();
        assert!(pieces.len() <= pieces_max, "{} pieces", pieces.len());
        assert!(pieces.concat() == sent, "other bytes, or in another order");
    }

    #[test]
    fn a_body_in_crumbs_is_gathered_into_few_pieces() {
        check(std::iter::repeat_n(1, HOLD_BYTES), PIECES_AS_THEY_CAME + 1);
        check(std::iter::repeat_n(CRUMB_BYTES_MAX, 1000), PIECES_AS_THEY_CAME + 1);
        check([0; 1000], PIECES_AS_THEY_CAME);
    }

    #[test]
    fn crumbs_between_larger_pieces_keep_their_place_and_cost_one_piece_each() {
        let larger = CRUMB_BYTES_MAX + 1;
        let runs = HOLD_BYTES.div_ceil(larger);
        check([1, larger].into_iter().cycle(), PIECES_AS_THEY_CAME + 2 * runs);
        check([1, 1, 1, 1, 1, 1, larger].into_iter().cycle(), PIECES_AS_THEY_CAME + 2 * runs);
    }

    #[test]
    fn a_body_in_a_few_pieces_is_not_copied() {
        let pieces: Vec<Bytes> = (0..PIECES_AS_THEY_CAME).map(|n| Bytes::from(vec![n as u8; 10])).collect();
        let mut held = Held::default();
        pieces.iter().cloned().for_each(|piece| held.push(piece));
        let at: Vec<_> = held.into_pieces().iter().map(|piece| piece.as_ptr()).collect();
        assert_eq!(at, pieces.iter().map(|piece| piece.as_ptr()).collect::<Vec<_>>());
    }
}
