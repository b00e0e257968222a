//! Which upstream a path belongs to, and which API of it.
//!
//! Invariants
//! - The path that chose the route, the budget and the upstream's target are one and the same.
//! - A client can't name a host: upstreams come from the configuration only.
//!
//! Not here: the table (`config::routes`), the strict checks of the head (`guard`).

use crate::app::App;
use crate::call::Call;
use crate::config::{Auth, Config, Dialect, Matched, NoRoute, Route};
use crate::failure::{Failure, FailureKind};
use crate::guard::Rejection;
use crate::http::Request;
use crate::layers::query_keys::without_credentials;
use crate::upstream::Origin;
use crate::usage::{self, Api};
use bursar_domain::{Anomalies, Label, RequestId};
use foldhash::fast::RandomState;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// Where the requests to one path go.
#[derive(Clone, Debug)]
struct Resolved {
    route: Arc<Route>,
    origin: Arc<Origin>,
    host: HeaderValue,
    target: PathAndQuery,
    region: Option<Label>,
    api: Api,
    model: Option<Label>,
}

/// Paths resolved before: clients call a handful. Only `POST` without a query is kept, which is what
/// every metered call looks like.
#[derive(Debug, Default)]
pub struct RouteCache {
    /// The settings that resolved them.
    by: Option<Arc<Config>>,
    known: HashMap<Box<str>, Resolved, RandomState>,
}

impl RouteCache {
    /// Forgets what other settings resolved.
    fn obey(&mut self, config: &Arc<Config>) {
        if self.by.as_ref().is_none_or(|by| !Arc::ptr_eq(by, config)) {
            self.known.clear();
            self.by = Some(Arc::clone(config));
        }
    }
}

/// Most paths that one worker remembers, and the longest.
const CACHE_MAX: usize = 256;
const CACHE_PATH_MAX: usize = 256;

/// Gives `request` its route.
pub fn route(
    app: &App,
    cache: &mut RouteCache,
    id: RequestId,
    request: Request,
) -> Result<Box<Call>, Failure> {
    let started_at = app.now();
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let config = app.config();
    cache.obey(&config);
    let usable = head.method == Method::POST && head.uri.query().is_none() && path.len() <= CACHE_PATH_MAX;
    let known = if usable { cache.known.get(path) } else { None };
    let resolved = match known {
        Some(resolved) => resolved.clone(),
        None => {
            let resolved = resolve(&config, id, &head)?;
            if usable {
                if cache.known.len() >= CACHE_MAX {
                    cache.known.clear();
                }
                cache.known.insert(path.into(), resolved.clone());
            }
            resolved
        }
    };
    let Resolved { route, origin, host, target, region, api, model } = resolved;
    Ok(Box::new(Call {
        id,
        started_at,
        head,
        body: Some(body),
        route,
        origin,
        host,
        target,
        region,
        api,
        model,
        identity: None,
        credential: None,
        place: None,
        trace: None,
        caller: bursar_ledger::Caller::default(),
        anomalies: Anomalies::default(),
    }))
}

fn resolve(config: &Config, id: RequestId, head: &http::request::Parts) -> Result<Resolved, Failure> {
    let path = head.uri.path();
    let matched = match config.routes.resolve(path) {
        Ok(matched) => matched,
        Err(reason) => {
            let kind = match reason {
                NoRoute::NotCanonical => FailureKind::Rejected(Rejection::PathEncoding),
                NoRoute::Unknown => FailureKind::NoRoute { path: path.chars().take(80).collect() },
            };
            return Err(Failure { kind, dialect: guess_dialect(path), request: Some(id) });
        }
    };
    let Some(target) = target_of(&matched, &head.uri) else {
        let kind = FailureKind::Rejected(Rejection::PathEncoding);
        return Err(Failure { kind, dialect: matched.route.dialect, request: Some(id) });
    };
    let api = api_on(matched.route.dialect, &head.method, target.path());
    let origin = Origin {
        secure: matched.route.is_tls(),
        authority: matched.authority.clone().into_owned(),
        protocol: matched.route.protocol,
    };
    let in_path = || location_in(target.path()).filter(|_| matched.route.provider.as_str() == "vertex");
    let region = matched.region().or_else(in_path).and_then(Label::lossy);
    let model = usage::model_in_target(api, &target).as_deref().and_then(Label::lossy);
    let Ok(host) = HeaderValue::from_str(origin.authority.as_str()) else {
        let kind = FailureKind::NoRoute { path: path.chars().take(80).collect() };
        return Err(Failure { kind, dialect: matched.route.dialect, request: Some(id) });
    };
    let origin = Arc::new(origin);
    Ok(Resolved { route: Arc::clone(matched.route), origin, host, target, region, api, model })
}

/// The API that a request calls on a route of this dialect, by its method and its path on the upstream.
#[must_use]
pub fn api_on(dialect: Dialect, method: &Method, path: &str) -> Api {
    match dialect {
        // Providers whose own APIs are not metered yet may offer OpenAI's beside them.
        Dialect::PassThrough => match usage::api_of(method, path) {
            api @ (Api::OpenAiChat | Api::Realtime | Api::Live) => api,
            _ => Api::Unmetered,
        },
        Dialect::Cohere => usage::cohere_api_of(method, path),
        Dialect::Ollama => usage::ollama_api_of(method, path),
        Dialect::Gemini => usage::google_api_of(method, path),
        Dialect::OpenAi | Dialect::Anthropic | Dialect::Bedrock => usage::api_of(method, path),
    }
}

/// What to ask the upstream for. A bare route asks for just what the client did; a client's key goes
/// nowhere beside an injected one.
fn target_of(matched: &Matched<'_, '_>, uri: &http::Uri) -> Option<PathAndQuery> {
    if let (Dialect::Gemini, Auth::Inject(_), Some(query)) =
        (matched.route.dialect, &matched.route.auth, uri.query())
    {
        return PathAndQuery::try_from(matched.target(without_credentials(query).as_deref())).ok();
    }
    if matched.rest.len() == uri.path().len() && matches!(matched.path(), Cow::Borrowed(_)) {
        return uri.path_and_query().cloned();
    }
    PathAndQuery::try_from(matched.target(uri.query())).ok()
}

/// The error shape for a request that has no route.
pub fn guess_dialect(path: &str) -> Dialect {
    let google = ["/gemini", "/vertex", "/v1beta"].iter().any(|prefix| path.starts_with(prefix));
    if path.contains("/messages") || path.starts_with("/anthropic") {
        Dialect::Anthropic
    } else if google || path.contains("enerateContent") {
        Dialect::Gemini
    } else if path.contains("/model/") || path.starts_with("/bedrock") {
        Dialect::Bedrock
    } else {
        Dialect::OpenAi
    }
}

/// The region that a path of Vertex names: `…/projects/P/locations/REGION/…`.
fn location_in(path: &str) -> Option<&str> {
    let (_, rest) = path.split_once("/projects/")?;
    let (_, rest) = rest.split_once("/locations/")?;
    rest.split('/').next().filter(|region| !region.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_vertex_names_its_region() {
        let path = "/v1/projects/p/locations/us-east5/publishers/anthropic/models/m:rawPredict";
        assert_eq!(location_in(path), Some("us-east5"));
        for other in ["/v1/models/m:generateContent", "/locations/x", "/v1/projects/p/locations/"] {
            assert_eq!(location_in(other), None, "{other}");
        }
    }
}
