//! The items of `routes`: from keys to [`Route`]s, with the rules within and between them.
//!
//! Invariants
//! - A route with any mistake is left out, and each of its mistakes is reported.
//! - An injected secret goes over TLS or to this machine, unless the route says otherwise.
//!
//! Not here: matching paths (`routes`), what is known of providers (`providers`).

use super::{Chosen, Loader, is_loopback};
use crate::config::aws::{scope_of_host, service_of};
use crate::config::error::{Fault, Wrong};
use crate::config::providers::{self, KeyHeader};
use crate::config::raw::{RawRoute, Values};
use crate::config::routes::{self, RouteDefaults, Upstream};
use crate::config::secret::Secret;
use crate::config::settings::{self as s, Setting};
use crate::config::suggest::nearest;
use crate::config::value::{Prefix, Scalar, SecretVariable};
use crate::config::{
    Auth, AuthMode, AwsEnvironment, Dialect, Inject, ResponseHeaders, Route, RouteTable, RouteTimeouts,
    SigV4, yaml,
};
use bursar_domain::Label;
use http::header::{AUTHORIZATION, HeaderName};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Most routes in a file; a path is matched against those of its first segment only.
const ROUTES_MAX: usize = 1_000;

/// One item of `routes` while it is read.
pub(super) struct RouteAt<'r> {
    index: usize,
    at: yaml::Position,
    pub(super) values: &'r Values,
}

impl RouteAt<'_> {
    /// `routes[].prefix` with the number in.
    pub(super) fn key(&self, path: &str) -> String {
        path.replacen("[]", &format!("[{}]", self.index), 1)
    }

    /// Where to point when a rule about `path` is broken: its key, or else the route.
    fn place(&self, path: &str) -> yaml::Position {
        self.values.get(path).map_or(self.at, |found| found.key_at)
    }
}

/// A route's provider, and what follows from it.
struct Speaks {
    provider: Label,
    dialect: Dialect,
    include_usage: bool,
    key: KeyHeader,
}

impl Loader<'_> {
    pub(super) fn routes(&mut self, listen: SocketAddr) -> RouteTable {
        let defaults = self.route_defaults();
        let raw_routes = std::mem::take(&mut self.raw.routes);
        let built_in = self.get(&s::BUILTIN_ROUTES);
        if raw_routes.is_empty() && !built_in.value {
            let wrong = Wrong::value("false", "leaves no route at all", "add routes, or remove the key");
            self.wrong(&built_in.origin, s::BUILTIN_ROUTES.path, wrong);
        }
        if let Some(extra) = raw_routes.get(ROUTES_MAX) {
            let wrong = Wrong::absent(&format!("there are more than {ROUTES_MAX} routes"), "remove some");
            self.fault_in_file("routes", Fault::at(extra.at, wrong));
        }
        let configured = self.configured_routes(&raw_routes, defaults);
        for (auth, what) in [("inject", "secrets"), ("sigv4", "AWS credentials")] {
            let has = |route: &Route| match route.auth {
                Auth::PassThrough => false,
                Auth::Inject(_) => auth == "inject",
                Auth::SigV4(_) => auth == "sigv4",
            };
            if !is_loopback(listen) && configured.iter().any(|route| has(route) && !route.require_key) {
                self.warnings.push(format!(
                    "routes with auth: {auth}: whoever reaches `listen` spends with the sidecar's {what}"
                ));
            }
        }
        let built_in = if built_in.value { routes::built_in(defaults) } else { Vec::new() };
        RouteTable::new(configured, built_in)
    }

    fn route_defaults(&mut self) -> RouteDefaults {
        RouteDefaults {
            timeouts: RouteTimeouts {
                connect: self.get(&s::UPSTREAM_CONNECT).value,
                response_head: self.get(&s::UPSTREAM_RESPONSE_HEAD).value,
                idle: self.get(&s::UPSTREAM_IDLE).value,
            },
            response_headers: ResponseHeaders {
                request_id: self.get(&s::RESPONSE_HEADERS_REQUEST_ID).value,
                cost: self.get(&s::RESPONSE_HEADERS_COST).value,
            },
            count: self.get(&s::COUNTING_MODE).value,
            on_abort: self.get(&s::ABORT_ACTION).value,
            max_output: u64::from(self.get(&s::RESERVE_MAX_OUTPUT).value),
            require_key: self.requires_key,
        }
    }

    fn configured_routes(&mut self, raw_routes: &[RawRoute], defaults: RouteDefaults) -> Vec<Route> {
        let mut seen: HashMap<String, yaml::Position> = HashMap::new();
        let mut routes = Vec::new();
        for (index, RawRoute { at, values }) in raw_routes.iter().enumerate().take(ROUTES_MAX) {
            let at = RouteAt { index, at: *at, values };
            let prefix = self.required(&at, &s::ROUTE_PREFIX);
            if let Some(prefix) = &prefix {
                let place = at.place(s::ROUTE_PREFIX.path);
                // Prefixes that differ in case only would be one trap more for whoever reads reports.
                if let Some(first) = seen.insert(prefix.name.as_str().to_lowercase(), place) {
                    let what = format!("is also the prefix of the route on line {}", first.line);
                    let wrong =
                        Wrong::value(prefix.name.as_str(), &what, "give each route a prefix of its own");
                    self.fault_in_file(&at.key(s::ROUTE_PREFIX.path), Fault::at(place, wrong));
                }
            }
            routes.extend(self.route(&at, prefix, defaults));
        }
        routes
    }

    fn route(&mut self, at: &RouteAt<'_>, prefix: Option<Prefix>, defaults: RouteDefaults) -> Option<Route> {
        let upstream = self.upstream(at);
        let speaks = self.speaks(at);
        let region = self.get_in(at, &s::ROUTE_REGION).value;
        let auth = self.auth(at, speaks.as_ref(), upstream.as_ref(), region.as_ref());
        let timeouts = self.route_timeouts(at, defaults.timeouts);
        let response_headers = self.response_headers(at, defaults.response_headers);
        let protocol = self.get_in(at, &s::ROUTE_PROTOCOL).value;
        let include_usage = self.get_in(at, &s::ROUTE_INCLUDE_USAGE).value;
        let count = self.get_in(at, &s::ROUTE_COUNT).value.unwrap_or(defaults.count);
        let on_abort = self.get_in(at, &s::ROUTE_ON_ABORT).value.unwrap_or(defaults.on_abort);
        let max_output = self.get_in(at, &s::ROUTE_MAX_OUTPUT).value.map_or(defaults.max_output, u64::from);
        let require_key = self.route_requires_key(at, defaults.require_key);
        let (prefix, upstream, speaks) = (prefix?, upstream?, speaks?);
        let region = region.or_else(|| region_of(&speaks, &upstream));
        Some(Route {
            name: prefix.name,
            provider: speaks.provider,
            dialect: speaks.dialect,
            include_usage: include_usage.unwrap_or(speaks.include_usage),
            auth: auth?,
            region,
            protocol,
            timeouts,
            response_headers,
            count,
            on_abort,
            max_output,
            require_key,
            pattern: prefix.pattern,
            upstream,
        })
    }

    fn route_requires_key(&mut self, at: &RouteAt<'_>, default: bool) -> bool {
        let path = s::ROUTE_REQUIRE_KEY.path;
        let required = self.get_in(at, &s::ROUTE_REQUIRE_KEY).value;
        if required == Some(true) && !self.has_credentials() {
            let wrong = Wrong::value("true", "asks for a key, and there is none", "add keys, or remove this");
            self.fault_in_file(&at.key(path), Fault::at(at.place(path), wrong));
        }
        required.unwrap_or(default)
    }

    fn upstream(&mut self, at: &RouteAt<'_>) -> Option<Upstream> {
        let upstream = self.required(at, &s::ROUTE_UPSTREAM);
        let allowed = self.get_in(at, &s::ROUTE_ALLOW_PLAINTEXT_UPSTREAM).value;
        let exposed = |upstream: &Upstream| !upstream.is_tls() && !upstream.is_loopback();
        if !allowed && upstream.as_ref().is_some_and(exposed) {
            self.plaintext(at);
        }
        upstream
    }

    /// A secret of ours in the clear is a mistake; a client's may be none, or meant so.
    fn plaintext(&mut self, at: &RouteAt<'_>) {
        let path = s::ROUTE_UPSTREAM.path;
        let (key, place) = (at.key(path), at.place(path));
        let secrets = [s::ROUTE_SECRET_FILE.path, s::ROUTE_SECRET_ENV.path];
        if secrets.iter().any(|path| at.values.contains_key(path)) {
            let what = "the upstream is plain http on another machine: the injected secret would cross the \
                        network readable";
            let remedy = "use https, or set allow_plaintext_upstream: true on this route";
            self.fault_in_file(&key, Fault::at(place, Wrong::absent(what, remedy)));
            return;
        }
        let place = self.place(place);
        self.warnings.push(format!(
            "{place}: {key}: the upstream is plain http on another machine: clients' keys and prompts cross the \
             network readable; use https, or set allow_plaintext_upstream: true"
        ));
    }

    fn route_timeouts(&mut self, at: &RouteAt<'_>, defaults: RouteTimeouts) -> RouteTimeouts {
        let connect = self.get_in(at, &s::ROUTE_TIMEOUTS_CONNECT).value;
        let response_head = self.get_in(at, &s::ROUTE_TIMEOUTS_RESPONSE_HEAD).value;
        let idle = self.get_in(at, &s::ROUTE_TIMEOUTS_IDLE).value;
        RouteTimeouts {
            connect: connect.unwrap_or(defaults.connect),
            response_head: response_head.unwrap_or(defaults.response_head),
            idle: idle.unwrap_or(defaults.idle),
        }
    }

    fn response_headers(&mut self, at: &RouteAt<'_>, defaults: ResponseHeaders) -> ResponseHeaders {
        let request_id = self.get_in(at, &s::ROUTE_RESPONSE_HEADERS_REQUEST_ID).value;
        let cost = self.get_in(at, &s::ROUTE_RESPONSE_HEADERS_COST).value;
        ResponseHeaders {
            request_id: request_id.unwrap_or(defaults.request_id),
            cost: cost.unwrap_or(defaults.cost),
        }
    }

    /// A key that a route must have. When it is there but wrong, that has been said.
    fn required<T: Scalar>(&mut self, at: &RouteAt<'_>, setting: &'static Setting<Option<T>>) -> Option<T> {
        let value = self.get_in(at, setting).value;
        if value.is_none() && !at.values.contains_key(setting.path) {
            let key = setting.path.rsplit('.').next().unwrap_or_default();
            let wrong = Wrong::absent(&format!("the route has no {key}"), &format!("add {key}: …"));
            self.fault_in_file(&at.key("routes[]"), Fault::at(at.at, wrong));
        }
        value
    }

    fn speaks(&mut self, at: &RouteAt<'_>) -> Option<Speaks> {
        let provider = self.get_in(at, &s::ROUTE_PROVIDER).value.map(|provider| provider.0);
        let dialect = self.get_in(at, &s::ROUTE_DIALECT).value;
        let provider = match (provider, dialect) {
            (Some(provider), _) => provider,
            (None, Some(Dialect::PassThrough)) => {
                self.wrong_route(at, "a passthrough route has no provider", "add provider: NAME");
                return None;
            }
            (None, Some(dialect)) => Label::new(dialect.as_str()).ok()?,
            (None, None) => {
                let said = [s::ROUTE_PROVIDER.path, s::ROUTE_DIALECT.path];
                if !said.iter().any(|path| at.values.contains_key(path)) {
                    let remedy = "add provider: openai, or dialect: openai";
                    self.wrong_route(at, "the route has neither provider nor dialect", remedy);
                }
                return None;
            }
        };
        match (providers::find(provider.as_str()), dialect) {
            (Some(known), dialect) => {
                let dialect = dialect.unwrap_or(known.dialect);
                let speaks_openai = matches!(dialect, Dialect::OpenAi | Dialect::Bedrock);
                let include_usage = known.include_usage && speaks_openai;
                Some(Speaks { provider, dialect, include_usage, key: known.key })
            }
            (None, Some(dialect)) => {
                let key = KeyHeader::of_dialect(dialect);
                Some(Speaks { provider, dialect, include_usage: false, key })
            }
            (None, None) => {
                self.unknown_provider(at, &provider);
                None
            }
        }
    }

    fn wrong_route(&mut self, at: &RouteAt<'_>, what: &str, remedy: &str) {
        self.fault_in_file(&at.key("routes[]"), Fault::at(at.at, Wrong::absent(what, remedy)));
    }

    fn unknown_provider(&mut self, at: &RouteAt<'_>, name: &Label) {
        if at.values.contains_key(s::ROUTE_DIALECT.path) {
            return; // There is a dialect, and what is wrong with it has been said.
        }
        let remedy = match nearest(name.as_str(), s::provider_names()) {
            Some(known) => format!("did you mean {known:?}? Otherwise add dialect: openai or anthropic"),
            None => "add dialect: openai, anthropic or passthrough".to_owned(),
        };
        let wrong = Wrong::value(name.as_str(), "is not a known provider", &remedy);
        let path = s::ROUTE_PROVIDER.path;
        let place = at.values.get(path).map_or(at.at, |found| found.node.at);
        self.fault_in_file(&at.key(path), Fault::at(place, wrong));
    }

    fn auth(
        &mut self,
        at: &RouteAt<'_>,
        speaks: Option<&Speaks>,
        upstream: Option<&Upstream>,
        region: Option<&Label>,
    ) -> Option<Auth> {
        let mode = self.get_in(at, &s::ROUTE_AUTH).value;
        let file = self.get_in(at, &s::ROUTE_SECRET_FILE);
        let variable = self.get_in(at, &s::ROUTE_SECRET_ENV);
        let header = self.get_in(at, &s::ROUTE_HEADER).value;
        if let Some(SecretVariable(name)) = &variable.value {
            self.secret_variables.push(name.clone());
        }
        match mode {
            AuthMode::PassThrough => {
                self.useless_without_inject(at);
                Some(Auth::PassThrough)
            }
            AuthMode::Inject => {
                let secret = self.injected_secret(at, file, variable)?;
                let usual = || speaks.map(|speaks| HeaderName::from_static(speaks.key.name()));
                inject(header.or_else(usual)?, &secret).map(Auth::Inject)
            }
            AuthMode::SigV4 => {
                self.useless_without_inject(at);
                self.sigv4(at, speaks?, upstream?, region).map(Auth::SigV4)
            }
        }
    }

    /// What `auth: sigv4` signs for, and with what.
    fn sigv4(
        &mut self,
        at: &RouteAt<'_>,
        speaks: &Speaks,
        upstream: &Upstream,
        region: Option<&Label>,
    ) -> Option<SigV4> {
        let environment = AwsEnvironment::read(self.env);
        let scope = upstream.host().and_then(scope_of_host);
        let variable = environment.as_ref().ok().and_then(|environment| environment.region.clone());
        let named = region.map(Label::as_str).or(scope.map(|(region, _)| region)).map(str::to_owned);
        let wrong = if speaks.dialect != Dialect::Bedrock {
            Wrong::absent("auth: sigv4 is for Bedrock", "use auth: inject, or provider: bedrock")
        } else if !cfg!(feature = "sigv4") {
            let what = "this build cannot sign requests for AWS";
            Wrong::absent(what, "build with --features sigv4, or use a Bedrock API key")
        } else {
            match (environment, named.or(variable)) {
                (Err(wrong), _) => {
                    Wrong::absent(&format!("environment: {wrong}"), "correct the variable, or unset it")
                }
                (Ok(_), None) => Wrong::absent("auth: sigv4 has no region to sign for", "add region: …"),
                (Ok(environment), Some(region)) => {
                    let service =
                        scope.map_or_else(|| service_of(speaks.provider.as_str()), |(_, name)| name);
                    let (region, environment) = (region.into(), Arc::new(environment));
                    return Some(SigV4 { region, service, environment });
                }
            }
        };
        let path = s::ROUTE_AUTH.path;
        self.fault_in_file(&at.key(path), Fault::at(at.place(path), wrong));
        None
    }

    fn useless_without_inject(&mut self, at: &RouteAt<'_>) {
        let paths = [s::ROUTE_SECRET_FILE.path, s::ROUTE_SECRET_ENV.path, s::ROUTE_HEADER.path];
        for path in paths.into_iter().filter(|path| at.values.contains_key(path)) {
            let wrong =
                Wrong::absent("this does nothing without auth: inject", "add auth: inject or remove it");
            self.fault_in_file(&at.key(path), Fault::at(at.place(path), wrong));
        }
    }

    fn injected_secret(
        &mut self,
        at: &RouteAt<'_>,
        file: Chosen<Option<PathBuf>>,
        variable: Chosen<Option<SecretVariable>>,
    ) -> Option<Secret> {
        let paths = [s::ROUTE_SECRET_FILE.path, s::ROUTE_SECRET_ENV.path];
        let said = paths.iter().filter(|path| at.values.contains_key(*path)).count();
        let wrong = match (said, file.value, variable.value) {
            (1, Some(path), None) => {
                return self.secret_file(&file.origin, &at.key(s::ROUTE_SECRET_FILE.path), &path);
            }
            (1, None, Some(name)) => {
                return self.secret_variable(&variable.origin, &at.key(s::ROUTE_SECRET_ENV.path), &name);
            }
            (0, ..) => Wrong::absent("auth: inject has no secret", "add secret_file: PATH"),
            (2, ..) => Wrong::absent("there are both secret_file and secret_env", "remove one of them"),
            // The one that is there is wrong, which has been said.
            _ => return None,
        };
        let path = s::ROUTE_AUTH.path;
        self.fault_in_file(&at.key(path), Fault::at(at.place(path), wrong));
        None
    }
}

/// The price region that Bedrock's host names.
fn region_of(speaks: &Speaks, upstream: &Upstream) -> Option<Label> {
    let host = upstream.host().filter(|_| speaks.dialect == Dialect::Bedrock)?;
    scope_of_host(host).and_then(|(region, _)| Label::new(region).ok())
}

/// The header line that carries `secret`. In `authorization`, a secret with a space in it is the whole
/// value, scheme included, since keys have none.
fn inject(header: HeaderName, secret: &Secret) -> Option<Inject> {
    let is_key = header == AUTHORIZATION && !secret.expose().contains(' ');
    let value = secret.in_header(if is_key { "Bearer " } else { "" }).ok()?;
    Some(Inject { header, value })
}
