//! Routes: which upstream a path goes to.
//!
//! Invariants
//! - An upstream is fixed by configuration. The only part a client can choose is one segment of a
//!   built-in template, of `[a-z0-9-]`, inside a provider's own domain.
//! - A path that could be read in two ways (dot segments, empty segments, encoded slashes that make
//!   one) is not routed at all.
//! - Prefixes match whole segments, the longest first, configured ones before built-in ones.
//! - Resolving allocates only for templates.
//!
//! Not here: reading routes from a file (`load`), forwarding.

use super::providers::{BUILT_IN, BuiltIn, Strip, find};
use super::{CountMode, OnAbort, Protocol, ResponseHeaders, SigV4};
use bursar_domain::Label;
use http::header::{HeaderName, HeaderValue};
use http::uri::{Authority, Scheme};
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

/// First segments that a configured prefix may not have: the listener answers them itself.
pub(super) const RESERVED: &[&str] = &["bursar", "healthz", "readyz"];

/// Longest prefix in bytes.
pub(super) const PREFIX_BYTES_MAX: usize = 128;

/// The API family of an upstream: how its requests and replies are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI's API, and those made like it.
    OpenAi,
    /// Anthropic's API.
    Anthropic,
    /// Google's APIs: Gemini and Vertex, and what they offer in OpenAI's and Anthropic's form.
    Gemini,
    /// Amazon Bedrock's APIs, and those of OpenAI and Anthropic that it offers beside them.
    Bedrock,
    /// Cohere's API, and OpenAI's beside it.
    Cohere,
    /// Ollama's API, and OpenAI's beside it.
    Ollama,
    /// Forwarded and recorded, but not metered.
    PassThrough,
}

/// What a route does about credentials.
#[derive(Clone, Debug)]
pub enum Auth {
    /// The client's own go through.
    PassThrough,
    /// A configured secret replaces them.
    Inject(Inject),
    /// A signature with AWS credentials of the sidecar replaces them.
    SigV4(SigV4),
}

/// A header with a secret in it. Its value is marked sensitive, so that formatting hides it.
#[derive(Clone, Debug)]
pub struct Inject {
    /// The header.
    pub header: HeaderName,
    /// Its value, complete.
    pub value: HeaderValue,
}

/// How long a route waits for its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteTimeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// From the end of the request to the head of the reply.
    pub response_head: Duration,
    /// Between two pieces of the reply's body.
    pub idle: Duration,
}

/// One route: everything the request path needs to know about an upstream.
#[derive(Clone, Debug)]
pub struct Route {
    /// The prefix, which is also the route's name in usage records.
    pub name: Label,
    /// Who answers.
    pub provider: Label,
    /// How it is metered.
    pub dialect: Dialect,
    /// Whether streams are asked for usage when the client did not ask.
    pub include_usage: bool,
    /// What happens to credentials.
    pub auth: Auth,
    /// Price region that the route itself fixes; see [`Matched::region`].
    pub region: Option<Label>,
    /// HTTP version towards the upstream.
    pub protocol: Protocol,
    /// How long to wait.
    pub timeouts: RouteTimeouts,
    /// Headers added to replies.
    pub response_headers: ResponseHeaders,
    /// Whether tokens are counted where the provider tells none.
    pub count: CountMode,
    /// What happens to a reply whose client has left.
    pub on_abort: OnAbort,
    /// Output tokens that budgets hold for a request that does not bound its output.
    pub max_output: u64,
    /// Whether a request must carry a credential of ours.
    pub require_key: bool,
    pub(super) pattern: Pattern,
    pub(super) upstream: Upstream,
}

/// Which paths a route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    /// Starts with `/`, does not end with one; empty for the route that takes everything.
    literal: Box<str>,
    capture: Capture,
    strip: Strip,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Capture {
    None,
    /// The segment after the literal goes into the host.
    Host,
    /// The same, and it is the price region.
    HostAndRegion,
}

/// An upstream's base URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upstream {
    pub(super) scheme: Scheme,
    host: Host,
    /// Empty, or starts with `/` and does not end with one.
    path: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Fixed(Authority),
    /// Text before and after the captured segment.
    Template {
        before: &'static str,
        after: &'static str,
    },
}

/// Why a path has no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// The path has dot segments, empty segments, bad escapes or characters that do not belong
    /// there: a client's fault (400).
    #[error("the path is not in canonical form")]
    NotCanonical,
    /// No prefix matches (404).
    #[error("no route has this prefix")]
    Unknown,
}

/// A path's route and where its request goes.
#[derive(Clone, Debug)]
pub struct Matched<'t, 'p> {
    /// The route.
    pub route: &'t Arc<Route>,
    /// Host and port to connect to. Borrowed unless the route is a template.
    pub authority: Cow<'t, Authority>,
    /// The path after the prefix (the whole path for a bare route): empty or starts with `/`.
    pub rest: &'p str,
    captured: Option<&'p str>,
}

/// All routes.
#[derive(Clone, Debug)]
pub struct RouteTable {
    configured: Tier,
    built_in: Tier,
}

// === impl Dialect ===

impl Dialect {
    /// The name in configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Bedrock => "bedrock",
            Self::Cohere => "cohere",
            Self::Ollama => "ollama",
            Self::PassThrough => "passthrough",
        }
    }
}

// === impl Route ===

impl Route {
    /// The upstream's base URL, for people.
    #[must_use]
    pub fn base_url(&self) -> String {
        self.upstream.to_string()
    }

    /// Whether the upstream is reached over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.upstream.is_tls()
    }

    /// Whether its host is in the configuration, and not in paths.
    #[must_use]
    pub fn has_fixed_host(&self) -> bool {
        self.upstream.host().is_some()
    }

    /// Where a request goes on this route that would have asked `from`'s upstream for `path`.
    #[must_use]
    pub fn take_over(&self, from: &Self, path: &str) -> Option<(Authority, String)> {
        let rest = path.strip_prefix(&*from.upstream.path)?;
        let Host::Fixed(authority) = &self.upstream.host else { return None };
        Some((authority.clone(), format!("{}{rest}", self.upstream.path)))
    }

    fn matches<'p>(&self, path: &'p str) -> Option<(Option<&'p str>, &'p str)> {
        let rest = path.strip_prefix(&*self.pattern.literal)?;
        if !(rest.is_empty() || rest.starts_with('/')) {
            return None;
        }
        if self.pattern.strip == Strip::Nothing {
            return Some((None, path));
        }
        if self.pattern.capture == Capture::None {
            return Some((None, rest));
        }
        let rest = rest.strip_prefix('/')?;
        let (segment, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if is_host_segment(segment) { Some((Some(segment), rest)) } else { None }
    }

    fn authority(&self, captured: Option<&str>) -> Option<Cow<'_, Authority>> {
        match &self.upstream.host {
            Host::Fixed(authority) => Some(Cow::Borrowed(authority)),
            Host::Template { before, after } => {
                Authority::try_from(format!("{before}{}{after}", captured?)).ok().map(Cow::Owned)
            }
        }
    }
}

/// The one thing a client may put into a host name.
fn is_host_segment(segment: &str) -> bool {
    let charset = segment.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let edges = segment.starts_with('-') || segment.ends_with('-');
    charset && !edges && (1..=63).contains(&segment.len())
}

// === impl Matched ===

impl Matched<'_, '_> {
    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &Scheme {
        &self.route.upstream.scheme
    }

    /// The price region: the path's, where its route takes it from there, or the route's.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        match self.route.pattern.capture {
            Capture::HostAndRegion => self.captured,
            Capture::None | Capture::Host => self.route.region.as_ref().map(Label::as_str),
        }
    }

    /// The path on the upstream: its base path and what follows the prefix. Which API a request
    /// belongs to is told from this path. Borrowed when the base URL has no path.
    #[must_use]
    pub fn path(&self) -> Cow<'_, str> {
        let base = &*self.route.upstream.path;
        match (base.is_empty(), self.rest.is_empty()) {
            (true, true) => Cow::Borrowed("/"),
            (true, false) => Cow::Borrowed(self.rest),
            (false, true) => Cow::Borrowed(base),
            (false, false) => Cow::Owned(format!("{base}{}", self.rest)),
        }
    }

    /// The request target for the upstream: [`Self::path`] and the client's query as it came.
    #[must_use]
    pub fn target(&self, query: Option<&str>) -> String {
        let path = self.path();
        match query {
            Some(query) => format!("{path}?{query}"),
            None => path.into_owned(),
        }
    }
}

// === impl RouteTable ===

impl RouteTable {
    /// Configured routes first, then the built-in ones that they do not replace.
    pub(super) fn new(configured: Vec<Route>, built_in: Vec<Route>) -> Self {
        let names: HashSet<Label> = configured.iter().map(|route| route.name.clone()).collect();
        let kept = built_in.into_iter().filter(|route| !names.contains(&route.name)).collect();
        Self { configured: Tier::new(configured), built_in: Tier::new(kept) }
    }

    /// The route for `path` (without query).
    pub fn resolve<'t, 'p>(&'t self, path: &'p str) -> Result<Matched<'t, 'p>, NoRoute> {
        if !is_canonical(path) {
            return Err(NoRoute::NotCanonical);
        }
        self.configured.find(path).or_else(|| self.built_in.find(path)).ok_or(NoRoute::Unknown)
    }

    /// All routes, configured ones first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.configured.iter().chain(self.built_in.iter())
    }

    /// Who answers on some route; again for each of theirs.
    pub fn providers(&self) -> impl Iterator<Item = &Label> {
        self.iter().map(|route| &route.provider)
    }

    /// How many of [`Self::iter`]'s routes were configured; the others are built in.
    #[must_use]
    pub fn configured_count(&self) -> usize {
        self.configured.iter().count()
    }

    /// Whether there is no route at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// Routes of one rank, found by their first segment.
#[derive(Clone, Debug)]
struct Tier {
    /// Sorted by first segment; within one, the longest prefix first.
    heads: Vec<(Box<str>, Vec<Arc<Route>>)>,
}

impl Tier {
    fn new(routes: Vec<Route>) -> Self {
        let mut heads: Vec<(Box<str>, Vec<Arc<Route>>)> = Vec::new();
        for route in routes {
            let head = head(&route.pattern.literal);
            match heads.iter_mut().find(|(known, _)| **known == *head) {
                Some((_, list)) => list.push(Arc::new(route)),
                None => heads.push((head.into(), vec![Arc::new(route)])),
            }
        }
        for (_, list) in &mut heads {
            list.sort_by_key(|route| std::cmp::Reverse(route.pattern.literal.len()));
        }
        heads.sort_by(|(a, _), (b, _)| a.cmp(b));
        Self { heads }
    }

    fn find<'t, 'p>(&'t self, path: &'p str) -> Option<Matched<'t, 'p>> {
        if self.heads.is_empty() {
            return None;
        }
        let everything = || self.find_below("", path);
        self.find_below(head(path), path).or_else(everything)
    }

    fn find_below<'t, 'p>(&'t self, head: &str, path: &'p str) -> Option<Matched<'t, 'p>> {
        let at = self.heads.binary_search_by(|(known, _)| (**known).cmp(head)).ok()?;
        let (_, routes) = self.heads.get(at)?;
        routes.iter().find_map(|route| {
            let (captured, rest) = route.matches(path)?;
            Some(Matched { route, authority: route.authority(captured)?, rest, captured })
        })
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.heads.iter().flat_map(|(_, routes)| routes)
    }
}

/// The first segment of a path; empty for `/` and for nothing.
fn head(path: &str) -> &str {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split('/').next().unwrap_or_default()
}

// === canonical paths ===

/// What the part of a segment that was read so far looks like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Segment {
    Empty,
    Dot,
    DotDot,
    Name,
}

/// Whether a path has exactly one reading: it starts with `/`, has no empty, `.` or `..` segment
/// (also not by way of `%2e`, `%2f`, `%5c` or path parameters), no bad escape, no control
/// character, and is ASCII. One slash at the end is fine, and so are escapes such as the `%3A` and
/// `%2F` in Bedrock's model ids.
#[must_use]
pub fn is_canonical(path: &str) -> bool {
    is_plain(path.as_bytes()) || has_one_reading(path)
}

/// Whether the path has none of the characters and pairs that need a closer look; most have none.
fn is_plain(path: &[u8]) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.' | b':');
    let pairs = path.iter().zip(path.iter().skip(1));
    path.first() == Some(&b'/')
        && path.iter().all(|b| plain(*b))
        && !pairs.into_iter().any(|(a, b)| *a == b'/' && matches!(b, b'/' | b'.'))
}

fn has_one_reading(path: &str) -> bool {
    let mut bytes = path.bytes();
    if bytes.next() != Some(b'/') {
        return false;
    }
    let mut segment = Segment::Empty;
    while let Some(raw) = bytes.next() {
        let byte = match raw {
            b'%' => match unescape(bytes.next(), bytes.next()) {
                Some(byte) => byte,
                None => return false,
            },
            b'\\' | b'#' | b'?' | b' ' | 0x80.. => return false,
            _ => raw,
        };
        segment = match (segment, byte) {
            (_, 0..=0x1f | 0x7f) => return false,
            (Segment::Name, b'/' | b'\\') => Segment::Empty,
            (_, b'/' | b'\\') => return false,
            (Segment::Dot | Segment::DotDot, b';') => return false,
            (Segment::Empty, b'.') => Segment::Dot,
            (Segment::Dot, b'.') => Segment::DotDot,
            _ => Segment::Name,
        };
    }
    !matches!(segment, Segment::Dot | Segment::DotDot)
}

fn unescape(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

// === impl Pattern ===

impl Pattern {
    /// A configured prefix. The error says what is wrong with it, to follow the prefix.
    pub(super) fn configured(prefix: &str) -> Result<Self, &'static str> {
        if prefix == "/" {
            return Ok(Self::stripped(""));
        }
        let Some(segments) = prefix.strip_prefix('/') else { return Err("does not start with `/`") };
        if prefix.len() > PREFIX_BYTES_MAX {
            return Err("is longer than 128 bytes");
        }
        if prefix.ends_with('/') {
            return Err("ends with `/`");
        }
        segments.split('/').try_for_each(check_segment)?;
        if RESERVED.contains(&head(prefix)) {
            return Err("is under a name that the listener keeps for itself (bursar, healthz, readyz)");
        }
        Ok(Self::stripped(prefix))
    }

    fn stripped(literal: &str) -> Self {
        Self { literal: literal.into(), capture: Capture::None, strip: Strip::Prefix }
    }

    fn built_in(built_in: &BuiltIn) -> Self {
        let (literal, capture) = match built_in.prefix.split_once("/{") {
            Some((literal, "region}")) => (literal, Capture::HostAndRegion),
            Some((literal, _)) => (literal, Capture::Host),
            None => (built_in.prefix, Capture::None),
        };
        Self { literal: literal.into(), capture, strip: built_in.strip }
    }
}

fn check_segment(segment: &str) -> Result<(), &'static str> {
    match segment {
        "" => Err("has an empty segment (`//`)"),
        "." | ".." => Err("has a dot segment"),
        _ if segment.contains(['{', '}']) => Err("has a template, which only built-in routes have"),
        _ if segment.contains('%') => Err("has a percent escape"),
        _ if segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b)) => Ok(()),
        _ => Err("has a character other than letters, digits, `-`, `.`, `_` and `~`"),
    }
}

// === impl Upstream ===

/// Why a text is not an upstream's base URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UpstreamError {
    /// The text may hold a secret and must not be shown.
    Secretive(&'static str),
    /// It may be shown.
    Malformed(&'static str),
}

impl Upstream {
    /// Parses `http[s]://host[:port][/path]`.
    pub(super) fn parse(text: &str) -> Result<Self, UpstreamError> {
        use UpstreamError::{Malformed, Secretive};
        if text.contains('@') {
            return Err(Secretive("carries a user name or password"));
        }
        if text.contains(['?', '#']) {
            return Err(Secretive("has a query or fragment"));
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::HTTPS, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::HTTP, rest),
            _ => return Err(Malformed("does not start with `https://` or `http://`")),
        };
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = host.to_ascii_lowercase();
        check_authority(&host).map_err(Malformed)?;
        let authority =
            Authority::try_from(host).map_err(|_| Malformed("has a host that cannot be parsed"))?;
        let path = path.strip_suffix('/').unwrap_or(path);
        if !path.is_empty() && (!is_canonical(path) || path.ends_with('/') || path.contains('%')) {
            return Err(Malformed("has a path with empty or dot segments or escapes"));
        }
        Ok(Self { scheme, host: Host::Fixed(authority), path: path.into() })
    }

    fn built_in(text: &'static str) -> Option<Self> {
        let Some((before, after)) = text.split_once("{}") else { return Self::parse(text).ok() };
        let before = before.strip_prefix("https://")?;
        Some(Self { scheme: Scheme::HTTPS, host: Host::Template { before, after }, path: "".into() })
    }

    pub(super) fn is_tls(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// The host, where it is fixed.
    pub(super) fn host(&self) -> Option<&str> {
        match &self.host {
            Host::Fixed(authority) => Some(authority.host()),
            Host::Template { .. } => None,
        }
    }

    /// Whether the host is this machine.
    pub(super) fn is_loopback(&self) -> bool {
        let Host::Fixed(authority) = &self.host else { return false };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        match host.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => host == "localhost" || host.ends_with(".localhost"),
        }
    }
}

fn check_authority(authority: &str) -> Result<(), &'static str> {
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            address.parse::<Ipv6Addr>().map_err(|_| "has a host that is not an IPv6 address")?;
            ("", port)
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port_fits = |port: &str| port.parse::<u16>().is_ok_and(|port| port != 0);
    match port.strip_prefix(':') {
        None if !port.is_empty() => return Err("has something between host and path"),
        Some(port) if !(port_fits(port) && port.bytes().all(|b| b.is_ascii_digit())) => {
            return Err("has a port that is not a number from 1 to 65535");
        }
        _ => {}
    }
    if authority.starts_with('[') { Ok(()) } else { check_host(host) }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    if host.is_empty() {
        return Err("has no host");
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
    };
    if host.len() > 253 || !host.split('.').all(label) {
        return Err("has a host that is not a domain name or address");
    }
    // A name whose last label is a number would be read as an address by some resolvers.
    let numeric = host.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    if numeric && host.parse::<Ipv4Addr>().is_err() {
        return Err("has a host that is not a complete IPv4 address");
    }
    Ok(())
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Fixed(authority) => write!(f, "{}://{authority}{}", self.scheme, self.path),
            Host::Template { before, after } => write!(f, "{}://{before}{{}}{after}", self.scheme),
        }
    }
}

// === built-in routes ===

/// What built-in routes take from the rest of the configuration.
#[derive(Clone, Copy)]
pub(super) struct RouteDefaults {
    pub(super) timeouts: RouteTimeouts,
    pub(super) response_headers: ResponseHeaders,
    pub(super) count: CountMode,
    pub(super) on_abort: OnAbort,
    pub(super) max_output: u64,
    pub(super) require_key: bool,
}

/// All built-in routes.
pub(super) fn built_in(defaults: RouteDefaults) -> Vec<Route> {
    BUILT_IN.iter().filter_map(|built_in| build(built_in, defaults)).collect()
}

fn build(built_in: &BuiltIn, defaults: RouteDefaults) -> Option<Route> {
    let provider = find(built_in.provider)?;
    Some(Route {
        name: Label::new(built_in.prefix).ok()?,
        provider: Label::new(provider.name).ok()?,
        dialect: provider.dialect,
        include_usage: provider.include_usage,
        auth: Auth::PassThrough,
        region: built_in.region.and_then(|region| Label::new(region).ok()),
        protocol: Protocol::Auto,
        timeouts: defaults.timeouts,
        response_headers: defaults.response_headers,
        count: defaults.count,
        on_abort: defaults.on_abort,
        max_output: defaults.max_output,
        require_key: defaults.require_key,
        pattern: Pattern::built_in(built_in),
        upstream: Upstream::built_in(built_in.upstream)?,
    })
}

#[cfg(test)]
mod tests;
