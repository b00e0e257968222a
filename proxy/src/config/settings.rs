//! The table of settings: one definition each, from which come parsing, the environment variable,
//! the reference page and the JSON Schema. Defaults stand here, each with its reason.
//!
//! Invariants
//! - `ALL` lists every setting once, in the order of the reference page.
//! - A path with `[]` is a key of a list's items and has no environment variable.
//!
//! Not here: how types are read (`value`), rules between settings (`load`).

use super::access::AccessList;
use super::budgets::BudgetList;
use super::jwt::IssuerList;
use super::keys::KeyList;
use super::limits::LimitList;
use super::otlp::CollectorUrl;
use super::providers::PROVIDERS;
use super::routes::{Dialect, Upstream};
use super::rules::RuleList;
use super::tokens::TokenList;
use super::value::{
    Forever, KeptDays, PathKind, Prefix, ProviderName, Range, SecretVariable, Shape, Size, Value, Workers,
};
use super::webhooks::WebhookList;
use super::{
    AuthMode, BadTag, CountMode, Durability, FailMode, LogFilter, LogFormat, OnAbort, OtlpProtocol,
    OverlayFormat, PriceBook, Protocol, RequiredTag,
};
use bursar_domain::{Currency, Label, Tags};
use http::header::HeaderName;
use serde_json::Value as Json;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

/// When a changed value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applies {
    /// At the next reload.
    Reload,
    /// When the program starts again.
    Restart,
}

/// One setting of type `T`.
pub(super) struct Setting<T: Value> {
    pub(super) path: &'static str,
    pub(super) limits: T::Limits,
    pub(super) default: fn() -> T,
    /// Says what the default is where it is not one value; empty otherwise.
    default_words: &'static str,
    doc: &'static str,
    because: &'static str,
    applies: Applies,
    alias: Option<&'static str>,
}

impl<T: Value> Setting<T> {
    const fn new(path: &'static str, limits: T::Limits, default: fn() -> T) -> Self {
        Self {
            path,
            limits,
            default,
            default_words: "",
            doc: "",
            because: "",
            applies: Applies::Reload,
            alias: None,
        }
    }

    const fn doc(mut self, doc: &'static str) -> Self {
        self.doc = doc;
        self
    }

    const fn because(mut self, because: &'static str) -> Self {
        self.because = because;
        self
    }

    const fn default_words(mut self, words: &'static str) -> Self {
        self.default_words = words;
        self
    }

    const fn at_restart(mut self) -> Self {
        self.applies = Applies::Restart;
        self
    }

    const fn alias(mut self, variable: &'static str) -> Self {
        self.alias = Some(variable);
        self
    }
}

/// A setting, whatever its type.
pub(super) trait Described: Sync {
    fn path(&self) -> &'static str;
    fn shape(&self) -> Shape;
    fn describe(&self) -> String;
    /// The default as one would write it, or in words; empty for none.
    fn default_text(&self) -> String;
    fn default_is_value(&self) -> bool;
    fn default_json(&self) -> Option<Json>;
    fn doc(&self) -> &'static str;
    fn because(&self) -> &'static str;
    fn applies(&self) -> Applies;
    fn schema(&self) -> Json;
    /// The environment variables that set it, the usual one first.
    fn variables(&self) -> Vec<String>;
}

impl<T: Value> Described for Setting<T> {
    fn path(&self) -> &'static str {
        self.path
    }

    fn shape(&self) -> Shape {
        T::SHAPE
    }

    fn describe(&self) -> String {
        T::describe(&self.limits)
    }

    fn default_text(&self) -> String {
        match self.default_words {
            "" => (self.default)().show(),
            words => words.to_owned(),
        }
    }

    fn default_is_value(&self) -> bool {
        self.default_words.is_empty()
    }

    fn default_json(&self) -> Option<Json> {
        if self.default_is_value() { (self.default)().json() } else { None }
    }

    fn doc(&self) -> &'static str {
        self.doc
    }

    fn because(&self) -> &'static str {
        self.because
    }

    fn applies(&self) -> Applies {
        self.applies
    }

    fn schema(&self) -> Json {
        T::schema(&self.limits)
    }

    fn variables(&self) -> Vec<String> {
        if self.path.contains("[]") {
            return Vec::new();
        }
        let usual = format!("BURSAR_{}", self.path.replace('.', "_").to_uppercase());
        std::iter::once(usual).chain(self.alias.map(str::to_owned)).collect()
    }
}

macro_rules! settings {
    ($($name:ident: $type:ty = $setting:expr;)*) => {
        $(pub(super) static $name: Setting<$type> = $setting;)*

        /// Every setting.
        pub(super) static ALL: &[&dyn Described] = &[$(&$name),*];
    };
}

const fn local(port: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

const fn kept_days() -> Range<u32> {
    Range { min: 35, max: 36_500 }
}

const fn from_millis(min: u64, max: u64) -> Range<Duration> {
    Range { min: Duration::from_millis(min), max: Duration::from_millis(max) }
}

const fn sizes(min: usize, max: usize) -> Range<Size> {
    Range { min: Size(min), max: Size(max) }
}

const fn counts(min: u32, max: u32) -> Range<u32> {
    Range { min, max }
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Largest bound of a ledger: 16 TiB.
const LEDGER_BYTES: usize = (1_usize << 30).saturating_mul(16_384);
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// What a deadline on the listener may be.
const DEADLINE: Range<Duration> = from_millis(100, 10 * MINUTE);
/// What a deadline towards an upstream may be.
const PATIENCE: Range<Duration> = from_millis(100, 24 * HOUR);

settings! {
    LISTEN: SocketAddr = Setting::new("listen", (), || local(4141))
        .doc("Where applications send their requests.")
        .because("A sidecar serves its own pod or machine; anything wider is a decision.")
        .at_restart();
    ALLOW_PLAINTEXT: bool = Setting::new("allow_plaintext", (), || false)
        .doc("Allows `listen` to be an address other than loopback. The listener has no TLS, so keys and \
              prompts then cross the network readable.")
        .because("Credentials must not cross a network in the clear by accident.")
        .at_restart();

    ADMIN_LISTEN: SocketAddr = Setting::new("admin.listen", (), || local(4142))
        .doc("Where reports, metrics and health checks are served.")
        .because("It shows what everyone spends, so it is not on the applications' listener.")
        .at_restart();
    ADMIN_TOKEN_FILE: Option<PathBuf> = Setting::new("admin.token_file", PathKind::OfSecret, || None)
        .doc("File with the bearer token that the admin API asks for. Needed when `admin.listen` is not \
              loopback. Space around the token is ignored.")
        .because("There is no default credential; on loopback the machine's own users are trusted.");
    ADMIN_TOKENS: TokenList = Setting::new("admin.tokens", (), TokenList::default)
        .doc("Tokens of the admin API. Keys of each: `name`, which audit facts tell; `scopes` (`read`; `ingest`: \
              usage, market data, contracts and revenue; `admin`: everything); and one of `hash`, as `bursar key \
              token` prints it, and `file` with the token. The token of `admin.token_file` has the scope `admin`. \
              See docs/guide/admin.md.")
        .because("On loopback nobody is asked for one unless there are some.");
    ADMIN_REQUESTS_PER_MINUTE: u32 = Setting::new("admin.requests_per_minute", counts(1, 10_000_000), || 6_000)
        .doc("How often each token, or each address without one, may ask the admin API in a minute. More is \
              refused with 429 and `retry-after`. Health is not counted.")
        .because("Dashboards, scrapers and scripts are far below it; somebody who tries tokens is not.");
    ADMIN_TLS_CERT_FILE: Option<PathBuf> = Setting::new("admin.tls.cert_file", PathKind::Ordinary, || None)
        .doc("PEM file with the certificate of the admin listener, and those that vouch for it, in this order. \
              With `admin.tls.key_file` the listener speaks TLS (1.2 and 1.3). Files that change are read again.")
        .because("Most sidecars are asked on loopback, where TLS protects nothing.");
    ADMIN_TLS_KEY_FILE: Option<PathBuf> = Setting::new("admin.tls.key_file", PathKind::OfSecret, || None)
        .doc("PEM file with the key of that certificate.");
    ADMIN_TLS_CLIENT_CA_FILE: Option<PathBuf> = Setting::new("admin.tls.client_ca_file", PathKind::Ordinary, || None)
        .doc("PEM file with authorities. Clients must then have a certificate that one of them vouches for, also \
              for health and metrics; tokens are asked for besides.");
    ADMIN_METRICS_PUBLIC: Option<bool> = Setting::new("admin.metrics_public", (), || None)
        .default_words("`true` on loopback, `false` elsewhere")
        .doc("Whether `/metrics` is answered without a token.")
        .because("Scrapers on the same machine need no ceremony; what a network can reach asks for the token.");

    LEDGER_PATH: PathBuf = Setting::new("ledger.path", PathKind::Ordinary, || PathBuf::from("./bursar-data"))
        .doc("Directory of the ledger. Made with mode 0700 when it is not there.")
        .because("A first start needs no preparation.")
        .at_restart().alias("BURSAR_DATA_DIR");
    LEDGER_DURABILITY: Durability = Setting::new("ledger.durability", (), || Durability::Group)
        .doc("When a record counts as kept. `sync`: it is on disk before the response ends. `group`: it is \
              on disk at most `ledger.group_delay` later. `relaxed`: the operating system writes it when it \
              likes; a power cut can lose seconds.")
        .because("A few milliseconds at risk cost no request any waiting.")
        .at_restart();
    LEDGER_GROUP_DELAY: Duration = Setting::new("ledger.group_delay", from_millis(1, 1_000), || Duration::from_millis(5))
        .doc("Longest time that records wait to be written together.")
        .because("Long enough to share one disk flush among many records, short enough to lose little.")
        .at_restart();
    LEDGER_FAIL: FailMode = Setting::new("ledger.fail", (), || FailMode::Open)
        .doc("What happens to traffic when records cannot be kept. `open`: it flows, and the gap is counted. \
              `closed`: requests are refused.")
        .because("Metering must not break what it measures unless someone decided so.");
    LEDGER_QUEUE_ENTRIES_MAX: u32 = Setting::new("ledger.queue_entries_max", counts(64, 10_000_000), || 65_536)
        .doc("Most records that wait for the disk. When more come, `ledger.fail` decides.")
        .because("Holds several seconds of a busy sidecar in some tens of MiB.")
        .at_restart();
    LEDGER_BYTES_MAX: Option<Size> = Setting::new("ledger.bytes_max", sizes(64 * MIB, LEDGER_BYTES), || None)
        .default_words("none: all that the volume has")
        .doc("Most bytes that all files below `ledger.path` may take: journal, embedded database, totals of old \
              records and whatever else lies there. A twenty-fifth of it, 32 MiB at most, is kept for who ends \
              what was begun and gives room back. At the bound it is as on a full disk: records wait in the \
              queue, and `ledger.fail` decides; writing goes on by itself when there is room. The log tells of \
              80 % and 95 %. Nothing is removed because of it. See docs/guide/sizing.md.")
        .because("Set it below the size of a volume that is shared or evicts, such as 90 % of an emptyDir's \
                  `sizeLimit`.");
    LEDGER_RETENTION_DETAIL: KeptDays = Setting::new("ledger.retention.detail", kept_days(), || KeptDays(None))
        .doc("How long single records are kept. Older ones are rolled up, a whole journal segment at a time, \
              into hourly totals by team, workload, provider, model, route, API, tier, outcome and source; \
              totals, contracts, revenue and closed months stay. Questions about single requests, customers, \
              sessions or tags of that time are then refused. An id is known for as long as its record is \
              kept, so 35 days are the least. `bursar ledger prune` does the same once.")
        .because("What is given up does not come back, so somebody must decide it.")
        .at_restart();
    LEDGER_RETENTION_ROLLUP: Forever = Setting::new("ledger.retention.rollup", (), || Forever)
        .doc("How long totals are kept.")
        .because("Totals are small, and a total that is gone cannot be explained.");

    IDENTITY_TEAM: Option<Label> = Setting::new("identity.team", (), || None)
        .doc("Team that pays for requests through this sidecar. It wins over headers.");
    IDENTITY_WORKLOAD: Option<Label> = Setting::new("identity.workload", (), || None)
        .doc("Workload (service, bot, job) behind this sidecar. It wins over headers.");
    IDENTITY_CUSTOMER: Option<Label> = Setting::new("identity.customer", (), || None)
        .doc("Customer on whose behalf all requests are made. It wins over headers.");
    IDENTITY_SESSION: Option<Label> = Setting::new("identity.session", (), || None)
        .doc("Session that all requests belong to. It wins over headers.");
    IDENTITY_TAGS: Tags = Setting::new("identity.tags", (), Tags::default)
        .doc("Tags that all requests carry. They win over headers of the same name.");
    IDENTITY_REQUIRED: Vec<RequiredTag> = Setting::new("identity.required", (), Vec::new)
        .doc("What a request must say about itself; one that lacks any of it is refused with 400. The values \
              above count.")
        .because("Untagged spend is reported as unallocated rather than refused.");
    IDENTITY_TRUST_HEADERS: bool = Setting::new("identity.trust_headers", (), || true)
        .doc("Whether team, workload, customer, session and tags are taken from request headers and baggage.")
        .because("A sidecar's clients are its own application.");
    IDENTITY_ON_BAD_TAG: BadTag = Setting::new("identity.on_bad_tag", (), || BadTag::Drop)
        .doc("What happens to a header of ours whose value is too long or has forbidden characters, or whose \
              name is unknown (`x-bursar-teem`). `drop`: it is left out, counted and, for an unknown name, logged. \
              `refuse`: the request is refused with 400.")
        .because("A malformed tag should not cost an answer.");
    IDENTITY_ALIASES: bool = Setting::new("identity.aliases", (), || true)
        .doc("Whether other gateways' headers are understood: `x-litellm-tags`, `x-litellm-end-user-id`, \
              `helicone-property-*`, `helicone-user-id`, `helicone-session-id`, `x-portkey-metadata`, \
              `x-portkey-trace-id`, `openai-organization`, `openai-project`.")
        .because("Applications that come from them keep their tags without a change.");

    IDENTITY_ON_CONTRADICTION: BadTag = Setting::new("identity.on_contradiction", (), || BadTag::Drop)
        .doc("What happens to a header or baggage member that says something else than the request's key or \
              token. `drop`: it is left out and the record is marked `identity_contradicted`. `refuse`: the \
              request is refused with 403.")
        .because("A client that always sends its headers keeps working, and spends as its credential says.");
    IDENTITY_REQUIRE_KEY: Option<bool> = Setting::new("identity.require_key", (), || None)
        .default_words("`true` where there are keys or issuers of tokens, `false` elsewhere")
        .doc("Whether a request must carry a Bursar key (see `keys`) or a token (see `identity.jwt`), unless its \
              route says otherwise.")
        .because("Where some have keys, whoever has none could say any team in a header.");
    IDENTITY_KEY_PEPPER_FILE: Option<PathBuf> = Setting::new("identity.key_pepper_file", PathKind::OfSecret, || None)
        .doc("File with a secret that the hashes of keys are made with, beside the key's id. Hashes that begin \
              with `b3p:` need it. Space around it is ignored.");
    IDENTITY_JWT: IssuerList = Setting::new("identity.jwt", (), IssuerList::default)
        .doc("Issuers whose signed tokens (JWT) say who a request is from. Keys of each: `name`; `issuer` and \
              `audience` (one or several) as its tokens have them in `iss` and `aud`; one of `jwks_url` (fetched \
              in the background every `refresh`, default 15m, and used up to the age `stale`, default 24h; with \
              `ca_file` and `token_file` where it asks for them), `jwks_file` and `public_key_file` (PEM); \
              `algorithms` (default: RS, PS, ES and EdDSA; never a shared secret); `header` (the only one that is \
              read; otherwise wherever a key may stand, and `x-bursar-token`); `leeway` (default 30s), `max_age`; \
              `scopes` and `require` (claims and their values) that a token must have; `team`, `workload`, \
              `customer` and `tags` for all its tokens, or the claims that name them under `claims`; `routes`, \
              `models` and `providers` as of `keys`. See docs/guide/jwt.md.");

    CURRENCY: Currency = Setting::new("currency", (), || Currency::USD)
        .doc("Currency of the books.")
        .because("Providers publish their prices in it.")
        .at_restart();

    BUILTIN_ROUTES: bool = Setting::new("builtin_routes", (), || true)
        .doc("Whether the built-in routes exist beside those under `routes`. A configured route replaces the \
              built-in one of the same prefix, and configured ones are tried first.")
        .because("Every public provider works without configuration.");
    ROUTE_PREFIX: Option<Prefix> = Setting::new("routes[].prefix", (), || None)
        .default_words("required")
        .doc("Paths that the route takes: this one and all below it. The longest prefix wins. What follows \
              the prefix is what the upstream sees. It is also the route's name in records.");
    ROUTE_UPSTREAM: Option<Upstream> = Setting::new("routes[].upstream", (), || None)
        .default_words("required")
        .doc("Where requests go. A path in it is put before what follows the prefix.");
    ROUTE_PROVIDER: Option<ProviderName> = Setting::new("routes[].provider", (), || None)
        .default_words("the name of `dialect`")
        .doc("Who answers; prices and records use this name. It implies the dialect.");
    ROUTE_DIALECT: Option<Dialect> = Setting::new("routes[].dialect", (), || None)
        .default_words("the provider's own")
        .doc("API that the upstream speaks. `passthrough` forwards and records without metering.");
    ROUTE_INCLUDE_USAGE: Option<bool> = Setting::new("routes[].include_usage", (), || None)
        .default_words("`true` for `openai`, `azure`, `bedrock-mantle`, `vllm` and `llama.cpp`, `false` for others")
        .doc("Whether streams are asked to report usage (`stream_options.include_usage`) when the client did \
              not ask. The extra chunk is then kept from the client.")
        .because("Those providers report usage in streams only when asked.");
    ROUTE_AUTH: AuthMode = Setting::new("routes[].auth", (), || AuthMode::PassThrough)
        .doc("`passthrough`: the client's credentials go to the upstream. `inject`: a configured secret \
              replaces them. `sigv4`: the request is signed with AWS credentials of the sidecar, for Bedrock \
              only and in builds with the feature `sigv4` only; see docs/bedrock.md.")
        .because("A sidecar that holds no keys cannot lose them.");
    ROUTE_SECRET_FILE: Option<PathBuf> = Setting::new("routes[].secret_file", PathKind::OfSecret, || None)
        .doc("File with the secret to inject. Space around it is ignored.");
    ROUTE_SECRET_ENV: Option<SecretVariable> = Setting::new("routes[].secret_env", (), || None)
        .doc("Environment variable with the secret to inject. A file is safer: other programs can read an \
              environment.");
    ROUTE_HEADER: Option<HeaderName> = Setting::new("routes[].header", (), || None)
        .default_words("the provider's own: `authorization`, `x-api-key`, `api-key` or `x-goog-api-key`")
        .doc("Header that carries the injected secret. In `authorization` it is sent as `Bearer SECRET` \
              (unless it has a space in it), elsewhere as it is.");
    ROUTE_ALLOW_PLAINTEXT_UPSTREAM: bool = Setting::new("routes[].allow_plaintext_upstream", (), || false)
        .doc("Allows credentials to cross the network to an `http://` upstream that is not this machine.")
        .because("Credentials must not cross a network in the clear by accident.");
    ROUTE_REQUIRE_KEY: Option<bool> = Setting::new("routes[].require_key", (), || None)
        .default_words("`identity.require_key`")
        .doc("Whether a request must carry a Bursar key or a token.");
    ROUTE_REGION: Option<Label> = Setting::new("routes[].region", (), || None)
        .default_words("the one in the path or in Bedrock's host name, if any")
        .doc("Region whose prices apply, and which `auth: sigv4` signs for.");
    ROUTE_PROTOCOL: Protocol = Setting::new("routes[].protocol", (), || Protocol::Auto)
        .doc("HTTP version towards the upstream. `auto` negotiates over TLS and is HTTP/1.1 otherwise.")
        .because("It works everywhere.");
    ROUTE_COUNT: Option<CountMode> = Setting::new("routes[].count", (), || None)
        .default_words("`counting.mode`")
        .doc("Whether tokens are counted where the provider tells none.");
    ROUTE_ON_ABORT: Option<OnAbort> = Setting::new("routes[].on_abort", (), || None)
        .default_words("`abort.action`")
        .doc("What happens to a reply whose client has left.");
    ROUTE_TIMEOUTS_CONNECT: Option<Duration> = Setting::new("routes[].timeouts.connect", PATIENCE, || None)
        .default_words("`upstream.connect`")
        .doc("Longest wait for a connection, TLS included.");
    ROUTE_TIMEOUTS_RESPONSE_HEAD: Option<Duration> = Setting::new("routes[].timeouts.response_head", PATIENCE, || None)
        .default_words("`upstream.response_head`")
        .doc("Longest wait for the head of a reply.");
    ROUTE_TIMEOUTS_IDLE: Option<Duration> = Setting::new("routes[].timeouts.idle", PATIENCE, || None)
        .default_words("`upstream.idle`")
        .doc("Longest pause within a reply, or within a WebSocket session, where neither side sends anything.");
    ROUTE_MAX_OUTPUT: Option<u32> = Setting::new("routes[].max_output", counts(1, 10_000_000), || None)
        .default_words("`reserve.max_output`")
        .doc("Output tokens that budgets hold for a request that does not bound its output itself.");
    ROUTE_RESPONSE_HEADERS_REQUEST_ID: Option<bool> = Setting::new("routes[].response_headers.request_id", (), || None)
        .default_words("`response_headers.request_id`")
        .doc("Whether replies carry `x-bursar-request-id`.");
    ROUTE_RESPONSE_HEADERS_COST: Option<bool> = Setting::new("routes[].response_headers.cost", (), || None)
        .default_words("`response_headers.cost`")
        .doc("Whether replies that are not streamed carry `x-bursar-cost` and token counts.");

    RESPONSE_HEADERS_REQUEST_ID: bool = Setting::new("response_headers.request_id", (), || true)
        .doc("Whether replies carry `x-bursar-request-id`, the id of their usage record.")
        .because("It joins an application's log with the ledger and changes nothing for SDKs.");
    RESPONSE_HEADERS_COST: bool = Setting::new("response_headers.cost", (), || false)
        .doc("Whether replies that are not streamed carry `x-bursar-cost` and token counts.")
        .because("The head of such a reply then waits for its end, and costs go to whoever calls.");

    PRICES_BOOK: PriceBook = Setting::new("prices.book", (), || PriceBook::BuiltIn)
        .doc("Price book to start from.")
        .because("It ships with the program, so no start depends on the network.");
    PRICES_OVERLAY: Option<PathBuf> = Setting::new("prices.overlay", PathKind::Ordinary, || None)
        .doc("File with price rows of your own, which come before those of the book.");
    PRICES_OVERLAY_FORMAT: OverlayFormat = Setting::new("prices.overlay_format", (), || OverlayFormat::Auto)
        .doc("How that file is written: rows of our own, LiteLLM's map, or the catalogue of models.dev.")
        .because("The three tell themselves apart by their content.");

    BUDGETS: BudgetList = Setting::new("budgets", (), BudgetList::default)
        .doc("Who may spend how much in which time. Keys of each: `name`; `scope` (any of `team`, `workload`, \
              `customer`, `provider`, `model`, which may end in `*`, and `tags`; all that are named must hold, \
              none means everybody); `window` (`hour`, `day`, `week`, `month`, `quarter`, `year`, or \
              `rolling 24h`) in `zone` (IANA, default UTC), years and quarters from month `fiscal_start` \
              (default 1); `limit` (`5000 USD` or `2000000 tokens`); `mode` (`hard`, the default: a request \
              that may not fit is refused with 429; `soft`: it passes with a warning header; `shadow`: only \
              metrics tell); `thresholds` in percent, from which replies carry the warning header; `unpriced` \
              (`refuse`, the default, or `allow`): what a hard budget does with a request of which nobody knows \
              what it may use. Instead of `window` and `limit`: `contract`, the position whose remaining balance \
              or units are the limit, and `without` (`refuse`, the default, or `allow`): what happens while that \
              contract is not there or is over. See docs/guide/budgets.md.");
    RESERVE_MAX_OUTPUT: u32 = Setting::new("reserve.max_output", counts(1, 10_000_000), || 16_384)
        .doc("Output tokens that budgets hold for a request that does not bound its output itself.")
        .because("More than nearly all answers; a longer one is booked beyond its hold.");
    RESERVE_BODY_BYTES: Size = Setting::new("reserve.body_bytes", sizes(64 * KIB, 1 << 30), || Size(32 * MIB))
        .doc("Most bytes of a request's body that are held in memory where a hard budget may refuse it; all such \
              bodies together take at most eight times that. A longer one counts as one of which nobody knows \
              what it may use.")
        .because("The model and the output bound may stand at a body's end, behind its pictures.")
        .at_restart();
    WEBHOOKS: WebhookList = Setting::new("webhooks", (), WebhookList::default)
        .doc("Who is told when budgets fill: signed POSTs (Standard Webhooks, CloudEvents 1.0). Keys of each: \
              `name`; `url`; `secret_file` or `secret_env` (base64 behind `whsec_`, or a text), and \
              `previous_secret_file` or `previous_secret_env` while the secret is changed; `events` (any of \
              `threshold`, `refusing` and `window`; the first two unless said otherwise); `budgets` (names; \
              without, all but those in `shadow` mode); `allow_private`: addresses and networks that the \
              receiver may have although they are not public, also over plain http. \
              See docs/guide/budgets.md.")
        .because("Nothing is sent to anybody unless somebody asked for it.");
    LIMITS: LimitList = Setting::new("limits", (), LimitList::default)
        .doc("How much may pass at a time. Keys of each: `name`; `scope` (as that of budgets); at least one of \
              `requests_per_minute`, `tokens_per_minute` (input and output; what a request used beyond what it \
              was admitted for is carried as a debt) and `concurrent_requests`. A request that does not fit is \
              refused with 429 and `retry-after`. See docs/guide/limits.md.");
    ACCESS: AccessList = Setting::new("access", (), AccessList::default)
        .doc("What may be used. Keys of each rule: `name`; `scope` (as that of budgets, without `model`) and \
              `except_teams`; at least one of `allow_models`, `deny_models`, `allow_providers`, \
              `deny_providers` (lists; a model may end in `*`), `required` (as `identity.required`) and \
              `unpriced: refuse` (calls of which nobody knows what they may cost). A request must keep every \
              rule that it is under, and is refused with 403 otherwise. See docs/guide/keys.md.");
    KEYS: KeyList = Setting::new("keys", (), KeyList::default)
        .doc("Virtual keys. Keys of each: `name`; `id` and `hash` as `bursar key new` prints them; `previous` \
              (`hash` and `expires`: the secret before, while both are good); `team`; `workload` (one, or a \
              list of which a request names one), `customer` and `tags`; `routes` (prefixes), `models` (which \
              may end in `*`) and `providers` that it is for, all without a list; `not_before` and `expires`. \
              See docs/guide/keys.md.");
    RULES: RuleList = Setting::new("rules", (), RuleList::default)
        .doc("What is asked of each request, and what follows. Keys of each: `name`; `when` (an expression of \
              CEL over the request, such as `request.model.startsWith(\"claude-opus\") && team != \"research\"`) \
              with `time` in `zone` (IANA, default UTC); `when_used` (a share such as `80%` of `budget`, or of \
              any budget of the request); one of `deny` (a text: refused with 403), `warn` (a text in a header \
              of the reply) and what to change (`model`, `max_output`, `route`); `shadow: true` (only metrics \
              tell); `fail` (`open`, the default, or `closed`): what happens where a rule cannot be evaluated or \
              carried out. See docs/guide/rules.md.");

    SERVER_WORKERS: Workers = Setting::new("server.workers", counts(1, 256), || Workers::Auto)
        .doc("Worker threads. `auto` is one per core, at most four.")
        .because("A sidecar shares its machine with the application it serves.")
        .at_restart();
    SERVER_REUSE_PORT: bool = Setting::new("server.reuse_port", (), || false)
        .doc("Whether other processes of the same user may listen on `listen` too (`SO_REUSEPORT`), each with a \
              ledger and an admin listener of its own. The kernel shares connections out among them, so one can \
              be replaced while another serves. A socket that systemd hands over is as its unit says. See \
              docs/guide/upgrades.md.")
        .because("Two sidecars on one address by mistake would split the books between them.")
        .at_restart();
    SERVER_TIMEOUTS_FIRST_BYTE: Duration = Setting::new("server.timeouts.first_byte", DEADLINE, || Duration::from_secs(5))
        .doc("Longest wait for the first byte on a new connection.")
        .because("A connection that says nothing must not hold a slot.")
        .at_restart();
    SERVER_TIMEOUTS_HEAD: Duration = Setting::new("server.timeouts.head", DEADLINE, || Duration::from_secs(5))
        .doc("Longest time for a request's head to arrive whole.")
        .because("Ends clients that trickle headers; honest heads fit into one packet or two.")
        .at_restart();
    SERVER_TIMEOUTS_BODY_IDLE: Duration = Setting::new("server.timeouts.body_idle", DEADLINE, || Duration::from_secs(30))
        .doc("Longest pause within a request's body.")
        .because("Ends clients that trickle bodies, spares slow uploads.")
        .at_restart();
    SERVER_TIMEOUTS_KEEP_ALIVE: Duration = Setting::new("server.timeouts.keep_alive", DEADLINE, || Duration::from_secs(60))
        .doc("How long a connection may wait for its next request.")
        .because("SDKs reuse connections within seconds.")
        .at_restart();
    SERVER_TIMEOUTS_WRITE_IDLE: Duration = Setting::new("server.timeouts.write_idle", PATIENCE, || Duration::from_secs(600))
        .doc("How long a client may take nothing of a reply that is waiting for it. The reply is then cut and \
              its request recorded as aborted.")
        .because("A reader that pauses for longer has left; until then a slow one only slows its upstream.")
        .at_restart();
    SERVER_TIMEOUTS_DRAIN: Duration = Setting::new("server.timeouts.drain", DEADLINE, || Duration::from_secs(30))
        .doc("How long open requests may take to end after the signal to stop.")
        .because("Kubernetes sends its second signal after 30 seconds.")
        .at_restart();
    SERVER_LIMITS_HEAD_BYTES: Size = Setting::new("server.limits.head_bytes", sizes(KIB, MIB), || Size(16 * KIB))
        .doc("Largest head of a request.")
        .because("Long tokens and baggage fit; floods do not.")
        .at_restart();
    SERVER_LIMITS_HEADERS: u32 = Setting::new("server.limits.headers", counts(10, 1_000), || 100)
        .doc("Most header lines of a request.")
        .because("SDKs send about twenty.")
        .at_restart();
    SERVER_LIMITS_TARGET_BYTES: Size = Setting::new("server.limits.target_bytes", sizes(256, 64 * KIB), || Size(8 * KIB))
        .doc("Longest path and query of a request.")
        .because("The length that servers are expected to accept (RFC 9110, section 4.1).")
        .at_restart();
    SERVER_LIMITS_BODY_BYTES: Size = Setting::new("server.limits.body_bytes", sizes(KIB, 1 << 30), || Size(32 * MIB))
        .doc("Largest body of a request, decoded.")
        .because("The largest that the big providers accept inline.")
        .at_restart();
    SERVER_LIMITS_H2_STREAMS: u32 = Setting::new("server.limits.h2_streams", counts(1, 10_000), || 100)
        .doc("Most requests at a time on one HTTP/2 connection.")
        .because("The least that RFC 9113 recommends.")
        .at_restart();
    SERVER_LIMITS_CONNECTIONS_MAX: u32 = Setting::new("server.limits.connections_max", counts(1, 1_000_000), || 10_000)
        .doc("Most connections at a time.")
        .because("Bounds memory; one pod's application is far below it.")
        .at_restart();
    SERVER_LIMITS_CONNECTIONS_PER_CLIENT_MAX: u32 = Setting::new("server.limits.connections_per_client_max", counts(1, 1_000_000), || 1_000)
        .doc("Most connections at a time from one IPv4 address or IPv6 network of 64 bits. Further ones are \
              closed at once. Clients on the same machine (loopback) are not counted. Behind a load balancer, \
              or NAT, one address stands for many clients: set it as high as `connections_max` there, which \
              switches it off.")
        .because("A tenth of all places, so that one client cannot take them from the others; more requests at \
                  a time fit into fewer connections by HTTP/2.")
        .at_restart();

    UPSTREAM_CONNECT: Duration = Setting::new("upstream.connect", PATIENCE, || Duration::from_secs(5))
        .doc("Longest wait for a connection, TLS included.")
        .because("A host that does not answer in five seconds is away.");
    UPSTREAM_RESPONSE_HEAD: Duration = Setting::new("upstream.response_head", PATIENCE, || Duration::from_secs(600))
        .doc("Longest wait for the head of a reply, from the end of the request.")
        .because("A long answer that is not streamed takes minutes; SDKs give up after ten.");
    UPSTREAM_IDLE: Duration = Setting::new("upstream.idle", PATIENCE, || Duration::from_secs(300))
        .doc("Longest pause within a reply, or within a WebSocket session, where neither side sends anything.")
        .because("Models that think are silent for minutes.");
    UPSTREAM_POOL_IDLE: Duration = Setting::new("upstream.pool_idle", from_millis(1_000, HOUR), || Duration::from_secs(50))
        .doc("How long an unused connection is kept.")
        .because("Common load balancers close theirs after 60 seconds; whoever is first avoids a failed request.")
        .at_restart();
    UPSTREAM_POOL_MAX_IDLE_PER_HOST: u32 = Setting::new("upstream.pool_max_idle_per_host", counts(0, 100_000), || 128)
        .doc("Most unused connections that are kept per host.")
        .because("Covers a burst without holding sockets for ever.")
        .at_restart();
    UPSTREAM_CA_FILE: Option<PathBuf> = Setting::new("upstream.ca_file", PathKind::Ordinary, || None)
        .doc("PEM file with certificate authorities to trust beside the system's.")
        .at_restart();

    COUNTING_MODE: CountMode = Setting::new("counting.mode", (), || CountMode::Auto)
        .doc("What happens when a reply tells no usage: a stream without it, a cut, a server of your own. \
              `auto`: tokens are counted from the text that passed, and marked `tokenizer` or `estimate`. \
              `off`: they stay unknown.")
        .because("A marked estimate is nearer to the bill than nothing.");
    COUNTING_THREADS: u32 = Setting::new("counting.threads", counts(1, 16), || 1)
        .doc("Threads that count. They start when there is something to count.")
        .because("One counts several megabytes of text in a second.")
        .at_restart();
    COUNTING_QUEUE_ENTRIES_MAX: u32 = Setting::new("counting.queue_entries_max", counts(1, 1_000_000), || 1_024)
        .doc("Most texts that wait for each of those threads. When more come, tokens are estimated roughly.")
        .because("Bounds memory; a figure is late by at most some seconds.")
        .at_restart();
    ABORT_ACTION: OnAbort = Setting::new("abort.action", (), || OnAbort::Cut)
        .doc("What happens to a reply whose client has left. `cut`: the upstream is stopped and what passed is \
              counted. `drain`: the reply is read on until it tells its usage, within the bounds below; the \
              record is marked `drained`.")
        .because("Most providers stop generating, and charging, when nobody listens.");
    ABORT_DRAIN_TIME: Duration = Setting::new("abort.drain_time", from_millis(100, HOUR), || Duration::from_secs(30))
        .doc("Longest time that a reply without a client is read on.")
        .because("Most answers end within it; one that does not is counted.");
    ABORT_DRAIN_BYTES: Size = Setting::new("abort.drain_bytes", sizes(KIB, 1 << 30), || Size(4 * MIB))
        .doc("Most bytes of a reply that are read on without a client.")
        .because("A long answer in small events; not a file.");

    TELEMETRY_PROMETHEUS: bool = Setting::new("telemetry.prometheus", (), || true)
        .doc("Whether `/metrics` is served on the admin listener.")
        .because("It costs nothing until someone asks.");
    TELEMETRY_SERIES_MAX: u32 = Setting::new("telemetry.series_max", counts(1, 10_000), || 100)
        .doc("Most sets of provider, operation, requested and served model that have metrics of their own; \
              further models count as `other`.")
        .because("Clients choose model names; a set costs some kilobytes, here and wherever it is kept.")
        .at_restart();
    TELEMETRY_OTLP: Option<CollectorUrl> = Setting::new("telemetry.otlp", (), || None)
        .doc("OpenTelemetry collector that is sent metrics, spans and the log line of each request. The variable \
              `OTEL_EXPORTER_OTLP_ENDPOINT` comes before the file too; OpenTelemetry's other variables say the \
              rest. See docs/guide/telemetry.md.")
        .because("Nothing leaves the machine unless someone decided so.")
        .at_restart();
    TELEMETRY_OTLP_PROTOCOL: OtlpProtocol = Setting::new("telemetry.otlp_protocol", (), || OtlpProtocol::Auto)
        .doc("How it is spoken to. `auto`: as `OTEL_EXPORTER_OTLP_PROTOCOL` says, else gRPC on port 4317 and \
              HTTP on others.")
        .because("Collectors listen for each on a port of its own.")
        .at_restart();
    TELEMETRY_LOG_LEVEL: LogFilter = Setting::new("telemetry.log.level", (), || LogFilter("info".to_owned()))
        .doc("What is logged.")
        .because("Starts, stops, trouble, and a line per request (`bursar::request=off` leaves that out).")
        .alias("BURSAR_LOG");
    TELEMETRY_LOG_FORMAT: LogFormat = Setting::new("telemetry.log.format", (), || LogFormat::Auto)
        .doc("How log lines look. `auto` is `pretty` on a terminal and `json` elsewhere.")
        .because("People read terminals, machines read the rest.")
        .at_restart();
}

/// The setting at `path`.
pub(super) fn find(path: &str) -> Option<&'static dyn Described> {
    ALL.iter().find(|setting| setting.path() == path).copied()
}

/// Whether keys exist below `path`, as in a section or a list's items.
pub(super) fn is_section(path: &str) -> bool {
    let below = |rest: &str| rest.starts_with('.');
    ALL.iter().any(|setting| setting.path().strip_prefix(path).is_some_and(below))
}

/// Whether `path` is a list whose items have keys.
pub(super) fn is_list_of_sections(path: &str) -> bool {
    ALL.iter().any(|setting| setting.path().strip_prefix(path).is_some_and(|rest| rest.starts_with("[].")))
}

/// Names of providers, for a suggestion.
pub(super) fn provider_names() -> impl Iterator<Item = &'static str> {
    PROVIDERS.iter().map(|provider| provider.name)
}
