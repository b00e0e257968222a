//! Where telemetry is sent: a collector's URL, and what it is sent by.
//!
//! Invariants
//! - Headers, which may be credentials, are not shown.
//! - Any host may be named: it is the operator's choice. Redirects are not followed by whoever sends.
//!
//! Not here: reading OpenTelemetry's variables (`load::otlp`), sending (`telemetry::otlp`).

use super::error::Wrong;
use super::value::Scalar;
use http::uri::{Authority, Scheme, Uri};
use http::{HeaderName, HeaderValue};
use serde_json::{Value as Json, json};
use std::path::PathBuf;
use std::time::Duration;

/// What is sent to collectors, and to which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    /// Where spans go.
    pub traces: Option<Target>,
    /// Where metrics go.
    pub metrics: Option<Target>,
    /// Where log records go.
    pub logs: Option<Target>,
    /// Which exchanges get a span.
    pub sampler: Sampler,
    /// How often metrics are sent.
    pub metric_interval: Duration,
    /// How spans are gathered.
    pub spans: Batches,
    /// How log records are gathered.
    pub log_records: Batches,
}

/// How spans or log records are gathered and sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batches {
    /// How long they are gathered.
    pub delay: Duration,
    /// Longest time until a message has arrived, with all further tries.
    pub export_time: Duration,
    /// Most that wait.
    pub waiting_max: usize,
    /// Most in one message.
    pub items_max: usize,
}

impl Default for Batches {
    fn default() -> Self {
        Self {
            delay: Duration::from_secs(1),
            export_time: Duration::from_secs(30),
            waiting_max: 8_192,
            items_max: 512,
        }
    }
}

/// One kind of telemetry's collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its address, with the path to send to.
    pub url: CollectorUrl,
    /// Whether it is gRPC.
    pub grpc: bool,
    /// What is sent besides, shown nowhere.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether bodies are compressed.
    pub gzip: bool,
    /// Longest time for one export.
    pub timeout: Duration,
    /// PEM file of the authorities to trust; the system's and `upstream.ca_file` otherwise.
    pub certificate: Option<PathBuf>,
}

/// Which exchanges get a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// Whether a caller that says something decides.
    pub by_parent: bool,
    /// What is done otherwise.
    pub root: Root,
}

/// What is done without a decision of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// All get one.
    Always,
    /// None does.
    Never,
    /// So many in a billion do.
    Ratio(u32),
}

/// A collector's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorUrl {
    /// Whether it is spoken to over TLS.
    pub secure: bool,
    /// Host and port.
    pub authority: Authority,
    /// The path, without a slash at its end.
    pub path: String,
}

impl CollectorUrl {
    /// Reads a URL; `None` for what is none, and for one with a user, a query or a fragment.
    pub(super) fn read(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok().filter(|_| !text.contains('#'))?;
        let scheme = uri.scheme().filter(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme))?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        if uri.query().is_some() || authority.host().is_empty() {
            return None;
        }
        Some(Self {
            secure: *scheme == Scheme::HTTPS,
            authority: authority.clone(),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// The same host with `path` below this one's.
    pub(super) fn below(&self, path: &str) -> Self {
        Self { path: format!("{}{path}", self.path), ..self.clone() }
    }

    /// Whether it is on this machine.
    pub(super) fn is_local(&self) -> bool {
        let host = self.authority.host().trim_start_matches('[').trim_end_matches(']');
        let is_loopback = |ip: std::net::IpAddr| ip.to_canonical().is_loopback();
        host == "localhost" || host.parse().is_ok_and(is_loopback)
    }
}

impl Scalar for CollectorUrl {
    type Limits = ();

    /// A wrong value is not shown: addresses of collectors can hold tokens.
    fn parse(text: &str, (): &()) -> Result<Self, Wrong> {
        Self::read(text).ok_or_else(|| {
            let remedy = "write http://HOST:PORT or https://HOST:PORT, without user, query and fragment";
            Wrong::hidden("is not the address of a collector", remedy)
        })
    }

    fn show(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority, self.path)
    }

    fn describe((): &()) -> String {
        "URL of an OpenTelemetry collector, `http://…` or `https://…`".to_owned()
    }

    fn schema((): &()) -> Json {
        json!({ "type": "string", "format": "uri", "pattern": "^https?://" })
    }
}
