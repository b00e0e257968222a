//! Configuration: what the program was told, checked whole before anything starts.
//!
//! Invariants
//! - A [`Config`] that exists is valid: every rule within and between settings holds.
//! - All mistakes are reported at once, each with place, key, value and remedy.
//! - Command line wins over environment, environment over file, file over default.
//! - Secrets are in redacting types and appear in no message.
//!
//! The way of a setting: `yaml` (text to tree) → `raw` (the file's shape) → `load` (values and
//! rules) → [`Config`]. `settings` is the one table of names, types, defaults and reasons, from
//! which `reference` also writes the reference page and the JSON Schema.
//!
//! Not here: watching the file and reloading, the contents of price files, command-line parsing.

mod access;
mod aws;
mod budgets;
mod document;
mod error;
mod files;
mod jwt;
mod keys;
mod limits;
mod load;
mod otlp;
mod overlay;
mod providers;
mod raw;
mod reference;
mod retention;
mod routes;
mod rules;
mod secret;
mod settings;
mod shown;
pub(crate) mod suggest;
mod tokens;
mod value;
mod webhooks;
mod yaml;

pub(crate) use budgets::read_amount;
pub(crate) use document::document;

pub use aws::{AwsEnvironment, AwsKeys, Container, Profile, SigV4, WebIdentity};
pub use error::{ConfigError, ConfigErrors, Origin, Shown};
pub use files::read_secret_text;
pub use load::{Overrides, Sources, Whereabouts};
pub use otlp::{Batches, CollectorUrl, Otlp, Root, Sampler, Target};
pub use overlay::{OverlayFileError, ReadOverlay, overlay_file, read_overlay};
pub use providers::CREDENTIAL_HEADERS;
pub use reference::{json_schema, reference_page};
pub use routes::{Auth, Dialect, Inject, Matched, NoRoute, Route, RouteTable, RouteTimeouts, is_canonical};
pub use secret::Secret;
pub use webhooks::{EventKind, Webhook, WebhookUrl};
pub use yaml::Position;

use crate::credentials::admin::Tokens;
use crate::credentials::keys::{Key, Keys};
use crate::credentials::tokens::Issuers;
use bursar_domain::{Currency, Label, Tags};
use bursar_policies::access::AccessRule;
use bursar_policies::budget::Budget;
use bursar_policies::budget::contract::ContractBudget;
use bursar_policies::limit::Limit;
use bursar_policies::rule::Rule;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Defines an enum whose values have one name each in configuration.
macro_rules! choices {
    ($(#[$doc:meta])* $visibility:vis $name:ident { $($(#[$each:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $visibility enum $name { $($(#[$each])* $variant,)* }

        impl value::Choice for $name {
            const CHOICES: &'static [(&'static str, Self)] = &[$(($text, Self::$variant)),*];
        }
    };
}

choices! {
    /// When a record counts as kept.
    pub Durability {
        /// On disk before the response ends.
        Sync = "sync",
        /// On disk a few milliseconds later.
        Group = "group",
        /// When the operating system gets to it.
        Relaxed = "relaxed",
    }
}

choices! {
    /// How a collector is spoken to.
    pub OtlpProtocol {
        /// By the port: gRPC on 4317, HTTP elsewhere.
        Auto = "auto",
        /// gRPC over HTTP/2.
        Grpc = "grpc",
        /// Protobuf in HTTP/1.1.
        Http = "http/protobuf",
    }
}

choices! {
    /// What happens to traffic when records cannot be kept.
    pub FailMode {
        /// It flows, and the gap is counted.
        Open = "open",
        /// It is refused.
        Closed = "closed",
    }
}

choices! {
    /// What happens to a header value that cannot be a tag.
    pub BadTag {
        /// It is left out and counted.
        Drop = "drop",
        /// The request is refused.
        Refuse = "refuse",
    }
}

choices! {
    /// HTTP version towards an upstream.
    pub Protocol {
        /// Negotiated over TLS, HTTP/1.1 otherwise.
        Auto = "auto",
        /// HTTP/1.1.
        Http1 = "http1",
        /// HTTP/2, also without TLS.
        Http2 = "http2",
    }
}

choices! {
    /// Whether tokens are counted where the provider tells none.
    pub CountMode {
        /// They are.
        Auto = "auto",
        /// They stay unknown.
        Off = "off",
    }
}

choices! {
    /// What happens to a reply whose client has left.
    pub OnAbort {
        /// The upstream is stopped.
        Cut = "cut",
        /// It is read on for its usage, within bounds.
        Drain = "drain",
    }
}

choices! {
    /// How log lines look.
    pub LogFormat {
        /// Pretty on a terminal, JSON elsewhere.
        Auto = "auto",
        /// One JSON object per line.
        Json = "json",
        /// For people.
        Pretty = "pretty",
    }
}

choices! {
    /// The price book that prices start from.
    pub PriceBook {
        /// The one in the program.
        BuiltIn = "builtin",
    }
}

choices! {
    /// How the file of `prices.overlay` is written.
    pub OverlayFormat {
        /// As its content says.
        Auto = "auto",
        /// Our own rows.
        Bursar = "bursar",
        /// LiteLLM's `model_prices_and_context_window.json`.
        LiteLlm = "litellm",
        /// The `api.json` of models.dev.
        ModelsDev = "models.dev",
    }
}

choices! {
    /// How a route's credentials are written in configuration; [`Auth`] is what comes of it.
    pub(crate) AuthMode {
        /// The client's.
        PassThrough = "passthrough",
        /// A secret of the sidecar.
        Inject = "inject",
        /// A signature with the sidecar's own AWS credentials.
        SigV4 = "sigv4",
    }
}

/// What to log: levels, for all modules or for single ones, as `info,hyper=warn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(pub(crate) String);

impl LogFilter {
    /// The directives.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Something that every request must say about itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RequiredTag {
    /// Its team.
    Team,
    /// Its workload.
    Workload,
    /// Its customer.
    Customer,
    /// Its session.
    Session,
    /// A free tag of this name.
    Tag(Label),
}

impl fmt::Display for RequiredTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Team => f.write_str("team"),
            Self::Workload => f.write_str("workload"),
            Self::Customer => f.write_str("customer"),
            Self::Session => f.write_str("session"),
            Self::Tag(name) => write!(f, "tag:{name}"),
        }
    }
}

/// Everything the program was told. Made by [`Config::load`] only.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The file it came from; what to watch for changes.
    pub file: Option<PathBuf>,
    /// Where applications send their requests.
    pub listen: SocketAddr,
    /// The admin listener.
    pub admin: Admin,
    /// The ledger.
    pub ledger: Ledger,
    /// Whose requests these are.
    pub identity: Identify,
    /// Currency of the books.
    pub currency: Currency,
    /// Where requests go.
    pub routes: RouteTable,
    /// Where prices come from.
    pub prices: Prices,
    /// Who may spend how much.
    pub budgets: Vec<Budget>,
    /// Who may use how much of which contract.
    pub contract_budgets: Vec<ContractBudget>,
    /// Who is told of budgets.
    pub webhooks: Vec<Webhook>,
    /// How much may pass at a time.
    pub limits: Vec<Limit>,
    /// What may be used, and what must be said.
    pub access: Vec<AccessRule>,
    /// Virtual keys.
    pub keys: Vec<Key>,
    /// The same, to be found by their ids. One with the rest, so that a reload changes both at once.
    pub key_table: Arc<Keys>,
    /// Issuers of tokens, with the keys that are known of them.
    pub issuers: Arc<Issuers>,
    /// What is asked of each request.
    pub rules: Vec<Rule>,
    /// Most bytes of a request's body that are held for a hard budget to know it.
    pub reserve_body_bytes: u64,
    /// Limits of the listener.
    pub server: Server,
    /// Connections to upstreams.
    pub upstream: UpstreamPool,
    /// The threads that count tokens.
    pub counting: Counting,
    /// How long a reply without a client is read on.
    pub drain: DrainLimits,
    /// Logs and metrics.
    pub telemetry: Telemetry,
    /// All files that it was read from, secrets among them: who watches them notices changes.
    pub watched: Vec<PathBuf>,
    /// What is allowed but deserves a look. To be logged at start and printed by `check`.
    pub warnings: Vec<String>,
    /// Every setting's value and where it came from.
    effective: Vec<Effective>,
}

/// The admin listener.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Its address.
    pub listen: SocketAddr,
    /// The bearer tokens it knows. There is one at least when the address is not loopback.
    pub tokens: Tokens,
    /// Whether metrics are answered without a token.
    pub metrics_public: bool,
    /// How often each token, or each address without one, may ask.
    pub requests_per_minute: u32,
    /// What it speaks TLS with, if it does.
    pub tls: Option<AdminTls>,
}

/// TLS of the admin listener.
#[derive(Clone, Debug)]
pub struct AdminTls {
    /// For handshakes.
    pub server: Arc<rustls::ServerConfig>,
    /// Whether clients must have a certificate.
    pub asks_clients: bool,
}

/// The ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// Its directory.
    pub path: PathBuf,
    /// When a record counts as kept.
    pub durability: Durability,
    /// Longest wait to write records together.
    pub group_delay: Duration,
    /// What happens to traffic when records cannot be kept.
    pub fail: FailMode,
    /// Most records that wait for the disk.
    pub queue_entries_max: usize,
    /// Most bytes that its directory may take, if that is bounded.
    pub bytes_max: Option<u64>,
    /// For how many days single records are kept; `None`: for ever.
    pub detail_days: Option<u32>,
}

/// Whose requests these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identify {
    /// The paying team of all requests.
    pub team: Option<Label>,
    /// Their workload.
    pub workload: Option<Label>,
    /// Their customer.
    pub customer: Option<Label>,
    /// Their session.
    pub session: Option<Label>,
    /// Tags they all carry.
    pub tags: Tags,
    /// What a request must say (the above counts) to be let through.
    pub required: Vec<RequiredTag>,
    /// Whether headers and baggage are believed.
    pub trust_headers: bool,
    /// What happens to malformed values.
    pub on_bad_tag: BadTag,
    /// Whether other gateways' headers are understood.
    pub aliases: bool,
    /// What happens to a header that contradicts the request's credential.
    pub on_contradiction: BadTag,
    /// Whether routes ask for a credential of ours, unless they say otherwise.
    pub require_key: bool,
}

/// Where prices come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prices {
    /// The book to start from.
    pub book: PriceBook,
    /// A file with rows that come before the book's. It existed when the configuration was read.
    pub overlay: Option<PathBuf>,
    /// How the overlay file is written.
    pub overlay_format: OverlayFormat,
}

/// Limits of the listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Worker threads, at least one.
    pub workers: usize,
    /// Whether other processes may listen on the same address.
    pub reuse_port: bool,
    /// Deadlines.
    pub timeouts: ServerTimeouts,
    /// Sizes and counts.
    pub limits: ServerLimits,
}

/// Deadlines of the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerTimeouts {
    /// For a new connection's first byte.
    pub first_byte: Duration,
    /// For a whole request head.
    pub head: Duration,
    /// Between two pieces of a request's body.
    pub body_idle: Duration,
    /// Between two requests of a connection.
    pub keep_alive: Duration,
    /// For a client to take some of a reply that waits for it.
    pub write_idle: Duration,
    /// For open requests to end after the signal to stop.
    pub drain: Duration,
}

/// Sizes and counts that the listener accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// Header lines of a request.
    pub headers: usize,
    /// Bytes of a request's path and query.
    pub target_bytes: usize,
    /// Bytes of a request's body, decoded.
    pub body_bytes: usize,
    /// Requests at a time on one HTTP/2 connection.
    pub h2_streams: u32,
    /// Connections at a time.
    pub connections_max: usize,
    /// Those of them that one client may have.
    pub connections_per_client_max: usize,
}

/// Connections to upstreams. How long requests wait is in each route's [`RouteTimeouts`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamPool {
    /// How long an unused connection is kept.
    pub pool_idle: Duration,
    /// Most unused connections per host.
    pub pool_max_idle_per_host: usize,
    /// PEM file with further certificate authorities. It was readable when the configuration was.
    pub ca_file: Option<PathBuf>,
}

/// The threads that count tokens where the provider tells none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counting {
    /// Threads, at least one.
    pub threads: usize,
    /// Texts that wait for each of them.
    pub queue_entries_max: usize,
}

/// How far a reply is read on for its usage when its client has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainLimits {
    /// Longest time.
    pub time: Duration,
    /// Most bytes.
    pub bytes: u64,
}

/// Headers that are added to replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHeaders {
    /// `x-bursar-request-id`.
    pub request_id: bool,
    /// `x-bursar-cost` and token counts, on replies that are not streamed.
    pub cost: bool,
}

/// Logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// Whether metrics are served.
    pub prometheus: bool,
    /// Most label sets of metrics by model.
    pub series_max: usize,
    /// What is said of this process with its metrics and to a collector; `service.name` is among it.
    pub resource: Vec<(String, String)>,
    /// What is sent to a collector.
    pub otlp: Option<Otlp>,
    /// What is logged.
    pub log_level: LogFilter,
    /// How.
    pub log_format: LogFormat,
}

/// A setting's value in force. Settings of routes are not among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The setting's path.
    pub path: &'static str,
    /// Its value as one would write it; empty for none.
    pub value: String,
    /// Who said so.
    pub origin: Origin,
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// All mistakes there are, of file, environment and command line together.
    pub fn load(sources: Sources<'_>) -> Result<Self, ConfigErrors> {
        load::load(sources)
    }

    /// Reads only where the sidecar and its ledger are.
    ///
    /// # Errors
    /// The mistakes in that, and a file that cannot be read at all.
    pub fn whereabouts(sources: Sources<'_>) -> Result<Whereabouts, ConfigErrors> {
        load::whereabouts(sources)
    }

    /// Every setting with its value and origin, in the order of the reference page.
    #[must_use]
    pub fn effective(&self) -> &[Effective] {
        &self.effective
    }

    /// These settings, as far as they can take effect while the program runs by `running`: whatever only a
    /// restart changes stays as it is there.
    #[must_use]
    pub fn without_restart(self, running: &Self) -> Self {
        let kept = |one: &Effective| running.effective.iter().find(|kept| kept.path == one.path).cloned();
        let stays = |one: &Effective| if load::is_for_restart(one.path) { kept(one) } else { None };
        let effective = self.effective.iter().map(|one| stays(one).unwrap_or_else(|| one.clone())).collect();
        Self {
            listen: running.listen,
            admin: Admin { listen: running.admin.listen, ..self.admin },
            ledger: Ledger {
                fail: self.ledger.fail,
                bytes_max: self.ledger.bytes_max,
                ..running.ledger.clone()
            },
            currency: running.currency,
            server: running.server.clone(),
            upstream: running.upstream.clone(),
            counting: running.counting,
            reserve_body_bytes: running.reserve_body_bytes,
            telemetry: Telemetry {
                prometheus: self.telemetry.prometheus,
                log_level: self.telemetry.log_level,
                ..running.telemetry.clone()
            },
            effective,
            ..self
        }
    }

    /// The same settings with the keys that `running` has fetched of issuers of tokens: a reload needs no
    /// others, and no token is refused meanwhile.
    #[must_use]
    pub fn with_keys_of(self, running: &Self) -> Self {
        Self { issuers: Arc::new(self.issuers.inheriting(&running.issuers)), ..self }
    }

    /// Settings whose values differ from those in `newer` and that only a restart changes.
    #[must_use]
    pub fn needs_restart_for(&self, newer: &Self) -> Vec<&'static str> {
        let differs = |(old, new): &(&Effective, &Effective)| old.value != new.value;
        let pairs = self.effective.iter().zip(&newer.effective).filter(differs);
        pairs.map(|(old, _)| old.path).filter(|path| load::is_for_restart(path)).collect()
    }
}

#[cfg(test)]
mod tests;
