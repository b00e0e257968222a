//! From sources to a [`Config`]: values by precedence, rules between settings, every mistake.
//!
//! Invariants
//! - Each source's values are checked even when another source wins, so that no mistake waits.
//! - Checking goes on after a mistake, with the default in its place.
//! - Every file is read with a limit.
//!
//! Not here: the table of settings (`settings`), types (`value`), the file's shape (`raw`).

mod admin;
mod jwt;
mod keys;
mod otlp;
mod routes;
mod secrets;
mod webhooks;

use super::error::{ConfigError, ConfigErrors, Fault, Origin, Wrong};
use super::files::read_text;
use super::raw::{self, Found, Raw};
use super::settings::{self as s, Applies, Described, Setting};
use super::suggest::nearest;
use super::value::{Value, Workers, node_from_text};
use super::{
    Config, Counting, DrainLimits, Effective, Identify, Ledger, Prices, Server, ServerLimits, ServerTimeouts,
    UpstreamPool, retention, rules, yaml,
};
use crate::credentials::keys::Key;
use crate::credentials::tokens::IssuerRules;
use bursar_domain::Label;
use routes::RouteAt;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Largest configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Fewest characters of a token that is not worth a warning.
const TOKEN_CHARS_MIN: usize = 16;
/// Most worker threads that `auto` starts.
const WORKERS_AUTO_MAX: usize = 4;

/// Variables of this prefix are settings, so an unknown one is probably a slip.
const OUR_VARIABLES: &str = "BURSAR_";
/// Variables that are no settings: the configuration file's name, and what client commands use.
const OTHER_VARIABLES: &[&str] = &[
    "BURSAR_CONFIG",
    "BURSAR_ADMIN",
    "BURSAR_ADMIN_TOKEN",
    "BURSAR_ADMIN_CA_FILE",
    "BURSAR_ADMIN_CERT_FILE",
    "BURSAR_ADMIN_KEY_FILE",
];

/// Where a configuration comes from.
pub struct Sources<'a> {
    /// The configuration file. When absent, `BURSAR_CONFIG` may name one.
    pub file: Option<PathBuf>,
    /// The file's text, when it was read already. The file is then only a name.
    pub text: Option<String>,
    /// Looks up an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The names of all environment variables, to find misspelt ones.
    pub env_names: Vec<String>,
    /// What the command line says.
    pub overrides: Overrides,
}

/// Settings from the command line.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--listen`.
    pub listen: Option<String>,
    /// `--admin-listen`.
    pub admin_listen: Option<String>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
}

impl fmt::Debug for Sources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Sources<'static> {
    /// Nothing but defaults.
    #[must_use]
    pub fn none() -> Self {
        Self {
            file: None,
            text: None,
            env: &|_| None,
            env_names: Vec::new(),
            overrides: Overrides::default(),
        }
    }

    /// A text as if it were a file, and no environment.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self { text: Some(text.to_owned()), ..Self::none() }
    }
}

/// Whether a setting's change waits for a restart.
pub(super) fn is_for_restart(path: &str) -> bool {
    s::find(path).is_some_and(|setting| setting.applies() == Applies::Restart)
}

/// Reads and checks everything.
pub(super) fn load(sources: Sources<'_>) -> Result<Config, ConfigErrors> {
    let mut loader = Loader::new(sources);
    let listen = loader.listen();
    let budgets = loader.get(&s::BUDGETS).value;
    // First, since what routes ask for depends on whether there are any.
    loader.keys = loader.get(&s::KEYS).value.0;
    loader.issuers = loader.get(&s::IDENTITY_JWT).value.0;
    let own = budgets.own.iter().map(|budget| budget.name.as_str());
    let named = own.chain(budgets.on_contracts.iter().map(|budget| budget.name.as_str()));
    let webhooks = loader.webhooks(&named.collect::<Vec<&str>>());
    let config = Config {
        webhooks,
        admin: loader.admin(listen),
        ledger: loader.ledger(),
        identity: loader.identity(),
        currency: loader.get(&s::CURRENCY).value,
        prices: loader.prices(),
        budgets: budgets.own,
        contract_budgets: budgets.on_contracts,
        limits: loader.get(&s::LIMITS).value.0,
        access: loader.get(&s::ACCESS).value.0,
        keys: loader.keys.clone(),
        key_table: loader.key_table(),
        issuers: loader.token_issuers(),
        rules: loader.get(&s::RULES).value.0,
        server: loader.server(),
        upstream: loader.upstream_pool(),
        counting: loader.counting(),
        reserve_body_bytes: loader.get(&s::RESERVE_BODY_BYTES).value.0 as u64,
        drain: loader.drain_limits(),
        telemetry: loader.telemetry(),
        routes: loader.routes(listen),
        watched: Vec::new(),
        file: loader.file.take(),
        listen,
        warnings: Vec::new(),
        effective: Vec::new(),
    };
    if let Some((days, what)) = retention::too_short(config.ledger.detail_days, &config.budgets) {
        let wrong = Wrong::value(&format!("{days}d"), &what, "keep details longer, or shorten the window");
        let origin = loader.retention_origin.clone();
        loader.wrong(&origin, s::LEDGER_RETENTION_DETAIL.path, wrong);
    }
    loader.keys_fit(&config);
    loader.rules_among(&config);
    loader.misspelt_variables();
    match ConfigErrors::of(loader.errors) {
        Some(errors) => Err(errors),
        None => Ok(Config {
            warnings: loader.warnings,
            watched: config.file.iter().cloned().chain(loader.watched).collect(),
            effective: in_order(loader.effective),
            ..config
        }),
    }
}

/// Where a sidecar is, and its ledger: what is needed to find one, and so is read although the rest of
/// the configuration may be wrong, or not readable for this user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// `admin.listen`.
    pub admin: SocketAddr,
    /// Whether anybody said so.
    pub admin_is_told: bool,
    /// `ledger.path`.
    pub ledger: PathBuf,
    /// Whether anybody said so.
    pub ledger_is_told: bool,
    /// `admin.token_file`; it was not opened.
    pub token_file: Option<PathBuf>,
    /// Whether the admin listener speaks TLS.
    pub admin_has_tls: bool,
}

/// Reads only what tells where the sidecar is.
pub(super) fn whereabouts(sources: Sources<'_>) -> Result<Whereabouts, ConfigErrors> {
    let mut loader = Loader::new(sources);
    let admin = loader.get(&s::ADMIN_LISTEN);
    let ledger = loader.get(&s::LEDGER_PATH);
    let token_file = loader.get(&s::ADMIN_TOKEN_FILE).value;
    let admin_has_tls = loader.get(&s::ADMIN_TLS_CERT_FILE).value.is_some();
    let read = ["", s::ADMIN_LISTEN.path, s::LEDGER_PATH.path, s::ADMIN_TOKEN_FILE.path];
    loader.errors.retain(|error| read.contains(&error.key.as_str()));
    match ConfigErrors::of(loader.errors) {
        Some(errors) => Err(errors),
        None => Ok(Whereabouts {
            admin_is_told: !admin.is_default(),
            admin: admin.value,
            ledger_is_told: !ledger.is_default(),
            ledger: ledger.value,
            token_file,
            admin_has_tls,
        }),
    }
}

fn in_order(effective: Vec<Effective>) -> Vec<Effective> {
    let rank = |path: &str| s::ALL.iter().position(|setting| setting.path() == path);
    let mut effective = effective;
    effective.sort_by_key(|one| rank(one.path));
    effective
}

/// A setting's value in force and who said so.
struct Chosen<T> {
    value: T,
    origin: Origin,
}

impl<T> Chosen<T> {
    fn is_default(&self) -> bool {
        self.origin == Origin::Default
    }
}

struct Loader<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    env_names: Vec<String>,
    overrides: Overrides,
    file: Option<PathBuf>,
    /// The file's name in messages.
    name: Arc<str>,
    raw: Raw,
    /// Variables that a route reads its secret from.
    secret_variables: Vec<String>,
    keys: Vec<Key>,
    issuers: Vec<IssuerRules>,
    /// Whether routes ask for a key unless they say otherwise.
    requires_key: bool,
    errors: Vec<ConfigError>,
    warnings: Vec<String>,
    /// Files that it was read from, beside the configuration itself.
    watched: Vec<PathBuf>,
    effective: Vec<Effective>,
    /// Who said how long details are kept.
    retention_origin: Origin,
}

// === reading ===

impl<'a> Loader<'a> {
    fn new(sources: Sources<'a>) -> Self {
        let Sources { file, text, env, env_names, overrides } = sources;
        let from_env = || env("BURSAR_CONFIG").filter(|name| !name.is_empty()).map(PathBuf::from);
        let file = if text.is_some() { file } else { file.or_else(from_env) };
        let name =
            file.as_ref().map_or_else(|| "configuration".to_owned(), |file| file.display().to_string());
        let mut loader = Self {
            env,
            env_names,
            overrides,
            file,
            name: name.into(),
            raw: Raw::default(),
            secret_variables: Vec::new(),
            keys: Vec::new(),
            issuers: Vec::new(),
            requires_key: false,
            errors: Vec::new(),
            warnings: Vec::new(),
            watched: Vec::new(),
            effective: Vec::new(),
            retention_origin: Origin::Default,
        };
        loader.read_file(text);
        loader
    }

    fn read_file(&mut self, text: Option<String>) {
        let text = match (text, &self.file) {
            (Some(text), _) => Ok(text),
            (None, Some(file)) => read_text(file, FILE_BYTES_MAX),
            (None, None) => return,
        };
        match text {
            Ok(text) => self.read_text(&text),
            Err(trouble) => {
                let wrong = Wrong::absent(&format!("the file {trouble}"), trouble.remedy());
                let origin = Origin::File { name: Arc::clone(&self.name), at: None };
                self.errors.push(ConfigError::new(origin, "", wrong));
            }
        }
    }

    fn read_text(&mut self, text: &str) {
        let parsed = yaml::parse(text);
        for fault in parsed.faults {
            self.fault_in_file("", fault);
        }
        let Some(root) = parsed.root else { return };
        let (raw, faults) = raw::sort(&root);
        self.raw = raw;
        for (key, fault) in faults {
            self.fault_in_file(&key, fault);
        }
    }

    fn fault_in_file(&mut self, key: &str, fault: Fault) {
        let origin = self.place(fault.at);
        self.errors.push(ConfigError::new(origin, format!("{key}{}", fault.below), fault.wrong));
    }

    fn place(&self, at: yaml::Position) -> Origin {
        Origin::File { name: Arc::clone(&self.name), at: Some(at) }
    }

    fn wrong(&mut self, origin: &Origin, key: &str, wrong: Wrong) {
        self.errors.push(ConfigError::new(origin.clone(), key, wrong));
    }
}

// === values ===

impl Loader<'_> {
    /// A setting's value: command line, else environment, else file, else default.
    fn get<T: Value>(&mut self, setting: &'static Setting<T>) -> Chosen<T> {
        let file = self.raw.values.get(setting.path).cloned();
        let file = file.and_then(|found| self.read_found(setting, setting.path, &found));
        let env = self.read_environment(setting);
        let line = self.read_command_line(setting);
        let chosen = line
            .or(env)
            .or(file)
            .unwrap_or_else(|| Chosen { value: (setting.default)(), origin: Origin::Default });
        let (path, value) = (setting.path, chosen.value.show());
        self.effective.push(Effective { path, value, origin: chosen.origin.clone() });
        chosen
    }

    /// The same for a key of a route, which stands in files only.
    fn get_in<T: Value>(&mut self, route: &RouteAt<'_>, setting: &'static Setting<T>) -> Chosen<T> {
        let default = || Chosen { value: (setting.default)(), origin: Origin::Default };
        let Some(found) = route.values.get(setting.path) else { return default() };
        self.read_found(setting, &route.key(setting.path), found).unwrap_or_else(default)
    }

    fn read_found<T: Value>(&mut self, setting: &Setting<T>, key: &str, found: &Found) -> Option<Chosen<T>> {
        match T::read(&found.node, &setting.limits) {
            Ok(value) => Some(Chosen { value, origin: self.place(found.node.at) }),
            Err(faults) => {
                faults.into_iter().for_each(|fault| self.fault_in_file(key, fault));
                None
            }
        }
    }

    fn read_environment<T: Value>(&mut self, setting: &Setting<T>) -> Option<Chosen<T>> {
        let mut chosen: Option<(Chosen<T>, String)> = None;
        for variable in setting.variables() {
            // An empty variable is how many tools write "not set".
            let Some(text) = (self.env)(&variable).filter(|text| !text.trim().is_empty()) else { continue };
            let origin = Origin::Environment(variable);
            match &chosen {
                Some((first, _)) if first.value.show() == text.trim() => {}
                Some((first, _)) => {
                    let what = format!("two variables set this, {} and this one", first.origin);
                    self.wrong(&origin, setting.path, Wrong::absent(&what, "unset one of them"));
                }
                None => chosen = self.read_value(setting, &text, origin).map(|value| (value, text)),
            }
        }
        chosen.map(|(chosen, _)| chosen)
    }

    fn read_command_line<T: Value>(&mut self, setting: &Setting<T>) -> Option<Chosen<T>> {
        let (option, text) = match setting.path {
            path if path == s::LISTEN.path => ("--listen", self.overrides.listen.clone()?),
            path if path == s::ADMIN_LISTEN.path => ("--admin-listen", self.overrides.admin_listen.clone()?),
            path if path == s::LEDGER_PATH.path => {
                ("--data-dir", self.overrides.data_dir.as_ref()?.display().to_string())
            }
            _ => return None,
        };
        self.read_value(setting, &text, Origin::CommandLine(option))
    }

    fn read_value<T: Value>(
        &mut self,
        setting: &Setting<T>,
        text: &str,
        origin: Origin,
    ) -> Option<Chosen<T>> {
        let node = match node_from_text(T::SHAPE, text) {
            Ok(node) => node,
            Err(wrong) => {
                self.wrong(&origin, setting.path, wrong);
                return None;
            }
        };
        match T::read(&node, &setting.limits) {
            Ok(value) => Some(Chosen { value, origin }),
            Err(faults) => {
                for fault in faults {
                    self.wrong(&origin, &format!("{}{}", setting.path, fault.below), fault.wrong);
                }
                None
            }
        }
    }
}

// === sections ===

impl Loader<'_> {
    fn listen(&mut self) -> SocketAddr {
        let listen = self.get(&s::LISTEN);
        let allowed = self.get(&s::ALLOW_PLAINTEXT).value;
        if !is_loopback(listen.value) && !allowed {
            let what = "is not a loopback address, and the listener has no TLS: keys and prompts would cross \
                        the network readable";
            let remedy = "listen on 127.0.0.1, or set allow_plaintext: true";
            self.wrong(&listen.origin, s::LISTEN.path, Wrong::value(&listen.value.to_string(), what, remedy));
        }
        listen.value
    }

    fn ledger(&mut self) -> Ledger {
        let bytes_max = self.get(&s::LEDGER_BYTES_MAX).value.map(|size| size.0 as u64);
        let detail = self.get(&s::LEDGER_RETENTION_DETAIL);
        self.retention_origin = detail.origin;
        self.get(&s::LEDGER_RETENTION_ROLLUP);
        let path = self.get(&s::LEDGER_PATH);
        // From the command line a path need not be text; take it as it is.
        let exact = match path.origin {
            Origin::CommandLine(_) => self.overrides.data_dir.clone(),
            _ => None,
        };
        Ledger {
            path: exact.unwrap_or(path.value),
            durability: self.get(&s::LEDGER_DURABILITY).value,
            group_delay: self.get(&s::LEDGER_GROUP_DELAY).value,
            fail: self.get(&s::LEDGER_FAIL).value,
            queue_entries_max: count(self.get(&s::LEDGER_QUEUE_ENTRIES_MAX).value),
            bytes_max,
            detail_days: detail.value.0,
        }
    }

    fn identity(&mut self) -> Identify {
        Identify {
            team: self.get(&s::IDENTITY_TEAM).value,
            workload: self.get(&s::IDENTITY_WORKLOAD).value,
            customer: self.get(&s::IDENTITY_CUSTOMER).value,
            session: self.get(&s::IDENTITY_SESSION).value,
            tags: self.get(&s::IDENTITY_TAGS).value,
            required: self.get(&s::IDENTITY_REQUIRED).value,
            trust_headers: self.get(&s::IDENTITY_TRUST_HEADERS).value,
            on_bad_tag: self.get(&s::IDENTITY_ON_BAD_TAG).value,
            aliases: self.get(&s::IDENTITY_ALIASES).value,
            on_contradiction: self.get(&s::IDENTITY_ON_CONTRADICTION).value,
            require_key: self.require_key(),
        }
    }

    fn prices(&mut self) -> Prices {
        let book = self.get(&s::PRICES_BOOK).value;
        let overlay = self.get(&s::PRICES_OVERLAY);
        self.readable(&overlay, s::PRICES_OVERLAY.path);
        let overlay_format = self.get(&s::PRICES_OVERLAY_FORMAT).value;
        Prices { book, overlay: overlay.value, overlay_format }
    }

    fn server(&mut self) -> Server {
        let workers = match self.get(&s::SERVER_WORKERS).value {
            Workers::Fixed(workers) => count(workers),
            Workers::Auto => {
                std::thread::available_parallelism().map_or(1, |n| n.get().min(WORKERS_AUTO_MAX))
            }
        };
        let timeouts = ServerTimeouts {
            first_byte: self.get(&s::SERVER_TIMEOUTS_FIRST_BYTE).value,
            head: self.get(&s::SERVER_TIMEOUTS_HEAD).value,
            body_idle: self.get(&s::SERVER_TIMEOUTS_BODY_IDLE).value,
            keep_alive: self.get(&s::SERVER_TIMEOUTS_KEEP_ALIVE).value,
            write_idle: self.get(&s::SERVER_TIMEOUTS_WRITE_IDLE).value,
            drain: self.get(&s::SERVER_TIMEOUTS_DRAIN).value,
        };
        let reuse_port = self.get(&s::SERVER_REUSE_PORT).value;
        Server { workers, reuse_port, timeouts, limits: self.server_limits() }
    }

    fn server_limits(&mut self) -> ServerLimits {
        let head = self.get(&s::SERVER_LIMITS_HEAD_BYTES).value;
        let target = self.get(&s::SERVER_LIMITS_TARGET_BYTES);
        if target.value > head {
            let what = format!("is more than server.limits.head_bytes ({head}), of which it is a part");
            let wrong = Wrong::value(&target.value.to_string(), &what, "lower this one or raise that one");
            self.wrong(&target.origin, s::SERVER_LIMITS_TARGET_BYTES.path, wrong);
        }
        ServerLimits {
            head_bytes: head.0,
            headers: count(self.get(&s::SERVER_LIMITS_HEADERS).value),
            target_bytes: target.value.0,
            body_bytes: self.get(&s::SERVER_LIMITS_BODY_BYTES).value.0,
            h2_streams: self.get(&s::SERVER_LIMITS_H2_STREAMS).value,
            connections_max: count(self.get(&s::SERVER_LIMITS_CONNECTIONS_MAX).value),
            connections_per_client_max: count(self.get(&s::SERVER_LIMITS_CONNECTIONS_PER_CLIENT_MAX).value),
        }
    }

    fn upstream_pool(&mut self) -> UpstreamPool {
        let ca_file = self.get(&s::UPSTREAM_CA_FILE);
        self.readable(&ca_file, s::UPSTREAM_CA_FILE.path);
        UpstreamPool {
            pool_idle: self.get(&s::UPSTREAM_POOL_IDLE).value,
            pool_max_idle_per_host: count(self.get(&s::UPSTREAM_POOL_MAX_IDLE_PER_HOST).value),
            ca_file: ca_file.value,
        }
    }

    fn counting(&mut self) -> Counting {
        Counting {
            threads: count(self.get(&s::COUNTING_THREADS).value),
            queue_entries_max: count(self.get(&s::COUNTING_QUEUE_ENTRIES_MAX).value),
        }
    }

    fn drain_limits(&mut self) -> DrainLimits {
        DrainLimits {
            time: self.get(&s::ABORT_DRAIN_TIME).value,
            bytes: self.get(&s::ABORT_DRAIN_BYTES).value.0 as u64,
        }
    }

    /// Mistakes between rules and what they name.
    fn rules_among(&mut self, config: &Config) {
        let found = self.raw.values.get(s::RULES.path).map(|found| found.node.at);
        let origin = found.map_or(Origin::Default, |at| self.place(at));
        let on_contracts = config.contract_budgets.iter().map(|budget| &budget.name);
        let budgets = config.budgets.iter().map(|budget| &budget.name).chain(on_contracts);
        let budgets: Vec<&str> = budgets.map(Label::as_str).collect();
        for (key, wrong) in rules::mistakes(&config.rules, &budgets, &config.routes) {
            self.wrong(&origin, &key, wrong);
        }
    }

    fn misspelt_variables(&mut self) {
        let known: Vec<String> = s::ALL.iter().flat_map(|setting| setting.variables()).collect();
        let is_known = |name: &String| {
            known.contains(name)
                || OTHER_VARIABLES.contains(&name.as_str())
                || self.secret_variables.contains(name)
                || is_service_link(name)
        };
        let mut strangers: Vec<&String> =
            self.env_names.iter().filter(|name| name.starts_with(OUR_VARIABLES) && !is_known(name)).collect();
        strangers.sort();
        let warnings = strangers.into_iter().map(|name| {
            let stem = |name: &str| name.strip_prefix(OUR_VARIABLES).unwrap_or(name).to_lowercase();
            let stems: Vec<String> = known.iter().map(|name| stem(name)).collect();
            match nearest(&stem(name), stems.iter().map(String::as_str)) {
                Some(near) => format!(
                    "environment {name}: no setting has this name, it is ignored; did you mean {OUR_VARIABLES}{}?",
                    near.to_uppercase()
                ),
                None => format!("environment {name}: no setting has this name, it is ignored"),
            }
        });
        let warnings: Vec<String> = warnings.collect();
        self.warnings.extend(warnings);
    }
}

/// Kubernetes gives every pod variables for each service of its namespace, also for one called
/// `bursar`.
fn is_service_link(name: &str) -> bool {
    let rest = name.strip_prefix(OUR_VARIABLES).unwrap_or(name);
    rest == "PORT" || rest.starts_with("PORT_") || rest.starts_with("SERVICE_") || rest.contains("_SERVICE_")
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
