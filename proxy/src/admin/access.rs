//! Who asks, whether they may, and whether too often.
//!
//! Invariants
//! - Where there are tokens, nothing but health (and metrics, if they are public) answers without one,
//!   whatever the path and the method; so is it off loopback, where there are always some.
//! - A token does only what its scopes say; what it lacks is told to it alone.
//! - A browser's page cannot write where nothing is asked, and one that has its own name resolve to loopback
//!   reads nothing but public metrics there, unless behind TLS, where it has no certificate.
//! - A name and password, which browsers send by themselves, only read, and only for pages of this origin.
//!
//! Not here: tokens (`credentials::admin`), which operation needs what (`table`), rates (`rate`).

use super::rate::Account;
use super::table::{Needs, OPERATIONS, Operation};
use super::{Admin, Peer, problem};
use crate::credentials::admin::{Scope, Token};
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bursar_ledger::Actor;
use std::borrow::Cow;
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

/// Where the dashboard is.
const DASHBOARD: &str = "/";
/// Where its files are.
const DASHBOARD_FILES: &str = "/dashboard/";
/// Whose page a browser asks for.
const FETCH_SITE: &str = "sec-fetch-site";

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
    let found = presented(&request).and_then(|sent| config.tokens.find(&sent).cloned());
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
        // Behind TLS its certificate tells a browser who it is.
        _ if config.tokens.is_empty() && config.tls.is_none() && !names_loopback(&request) => {
            return rebound();
        }
        _ if config.tokens.is_empty() => {}
        _ if caller.token.is_none() => return unknown(&request),
        Some(Needs::ReadOrPublic) if !reads_metrics => return forbidden(Scope::Read),
        _ => {}
    }
    if let Some(refusal) = refuse_web_page(&request) {
        return refusal;
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// The token of a request: behind `Bearer`, or as the password of a browser that shows the dashboard.
fn presented(request: &Request) -> Option<Cow<'_, [u8]>> {
    let value = request.headers().get(header::AUTHORIZATION)?.as_bytes();
    if let Some(token) = behind(value, b"bearer ") {
        return Some(Cow::Borrowed(token));
    }
    let pair = behind(value, b"basic ").filter(|_| takes_password(request))?;
    let pair = STANDARD.decode(pair).ok()?;
    let colon = memchr::memchr(b':', &pair)?;
    pair.get(colon.saturating_add(1)..).map(|password| Cow::Owned(password.to_vec()))
}

/// What follows `scheme`.
fn behind<'v>(value: &'v [u8], scheme: &[u8]) -> Option<&'v [u8]> {
    let (start, rest) = value.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// Whether a name and password may stand for a token. Browsers send them with whatever any page has them ask
/// for, so they never write, and pages of other origins get nothing by them but the dashboard's own page,
/// which holds no data. Browsers say which page asks; who says nothing is none.
fn takes_password(request: &Request) -> bool {
    let site = request.headers().get(FETCH_SITE).map(HeaderValue::as_bytes);
    let is_own = matches!(site, None | Some(b"same-origin" | b"none"));
    reads(request.method()) && (is_own || request.uri().path() == DASHBOARD)
}

fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// On loopback without a token, any page that somebody has open could send a form here: browsers name the
/// page, and then it is refused.
fn refuse_web_page(request: &Request) -> Option<Response> {
    let writes = !reads(request.method()) && request.method() != Method::OPTIONS;
    let is_page = writes && request.headers().contains_key(header::ORIGIN);
    is_page.then(|| problem(StatusCode::FORBIDDEN, "a web page cannot write here: use the command line"))
}

/// Whether the host that a request names, if any, is none that a stranger can own: an address, a name without a
/// dot, or one below `localhost`. A page whose name its owner has resolve to loopback (DNS rebinding) is of this
/// origin to a browser; only the name tells.
fn names_loopback(request: &Request) -> bool {
    let told = match request.uri().authority() {
        Some(authority) => Some(authority.as_str().as_bytes()),
        None => request.headers().get(header::HOST).map(HeaderValue::as_bytes),
    };
    let Some(told) = told.filter(|told| !told.is_empty()) else { return true };
    let Ok(authority) = Authority::try_from(told) else { return false };
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let is_local = match host.strip_suffix('.').unwrap_or(host).rsplit_once('.') {
        None => !host.is_empty(),
        // All of `localhost` is loopback's (RFC 6761 §6.3).
        Some((_, last)) => last.eq_ignore_ascii_case("localhost"),
    };
    is_local || address.parse::<IpAddr>().is_ok()
}

/// The name is not loopback's.
fn rebound() -> Response {
    let detail = "without a token the admin API answers only to `localhost`, to addresses and to names without \
                  a dot: ask it by one of them, or set a token (admin.tokens or admin.token_file)";
    problem(StatusCode::FORBIDDEN, detail)
}

fn unknown(request: &Request) -> Response {
    let headers = request.headers();
    let sent = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let (detail, told) = match sent {
        None => ("send a token of the admin API as `authorization: Bearer …`", "Bearer realm=\"bursar\""),
        Some(sent) if behind(sent, b"basic ").is_some() && !takes_password(request) => (
            "a name and password are for the dashboard, which only reads: send a token as `authorization: Bearer …`",
            "Bearer realm=\"bursar\"",
        ),
        Some(_) => (
            "no token of the admin API is this one: check that all of it was copied, and that it was not replaced",
            "Bearer realm=\"bursar\", error=\"invalid_token\"",
        ),
    };
    let mut response = challenge(StatusCode::UNAUTHORIZED, detail, HeaderValue::from_static(told));
    let accept = headers.get(header::ACCEPT).map(HeaderValue::as_bytes).unwrap_or_default();
    // Only a browser that opens a page asks for HTML; it can ask its user for a password, and not for a token.
    // One that opened it with a password in the address sends that to the page's files only when asked.
    let opens = memchr::memmem::find(accept, b"text/html").is_some();
    if reads(request.method()) && (opens || request.uri().path().starts_with(DASHBOARD_FILES)) {
        let basic = HeaderValue::from_static("Basic realm=\"bursar\", charset=\"UTF-8\"");
        response.headers_mut().append(header::WWW_AUTHENTICATE, basic);
    }
    response
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
