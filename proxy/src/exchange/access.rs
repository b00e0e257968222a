//! May this request use this route, this provider, these models? Asked of its credential and of the rules
//! under `access`, before limits and budgets.
//!
//! Rules
//! - Every model that a request names must be allowed, wherever it names one: in the path, the query, the
//!   body, among fallbacks and tools, in the lines of a batch that are in the body.
//! - Where a rule is about models, what cannot be read is refused: a body that is longer than is held,
//!   compressed, or names a model twice; a batch whose lines are in a file; a call that is not metered.
//! - Calls that only read, delete or upload files use no model.
//! - Without rules and credentials nothing is looked at.
//!
//! Not here: what a rule means (`bursar_policies::access`), what a budget does (`admission`).

use super::Exchange;
use super::admission::About;
use crate::config::Config;
use crate::credentials::Kind;
use crate::failure::FailureKind;
use crate::usage::Api;
use crate::usage::api::is_cancel;
use crate::usage::multipart::boundary_of;
use bursar_domain::Label;
use bursar_policies::access::{AccessRule, Broken, Models, Unpriced};
use bursar_policies::budget::{Facts, Unknown, tag_of};
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, header};
use named::Lines;
use percent_encoding::percent_decode_str;
use smallvec::SmallVec;
use std::fmt;

mod named;

/// Why a request may not use what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRefusal {
    /// The rule, or the key or issuer.
    pub rule: Label,
    /// Which of them it is.
    pub of: RuleOf,
    /// What breaks it.
    pub denied: Denied,
}

/// Whose rule it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleOf {
    /// One of `access`.
    Access,
    /// A credential's.
    Credential(Kind),
}

/// What breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The credential is not for this route.
    Route(Label),
    /// Anything that the rules know.
    Rule(Broken),
    /// Nobody can bound what it may cost.
    Unpriced(Unknown),
}

impl Denied {
    /// What [`Self::reason`] may say.
    pub const REASONS: [&'static str; 6] = [
        "route_not_allowed",
        "model_not_allowed",
        "model_not_seen",
        "provider_not_allowed",
        "tag_missing",
        "unpriced",
    ];

    /// As metrics and the API name it.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Route(_) => "route_not_allowed",
            Self::Rule(Broken::Model(_)) => "model_not_allowed",
            Self::Rule(Broken::ModelUnseen(_)) => "model_not_seen",
            Self::Rule(Broken::Provider(_)) => "provider_not_allowed",
            Self::Rule(Broken::Missing(_)) => "tag_missing",
            Self::Unpriced(_) => "unpriced",
        }
    }
}

impl fmt::Display for AccessRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, of, denied } = self;
        let of = match of {
            RuleOf::Access => "rule",
            RuleOf::Credential(kind) => kind.name(),
        };
        write!(f, "the {of} {:?} ", rule.as_str())?;
        match denied {
            Denied::Route(route) => write!(f, "is not for the route {route}"),
            Denied::Rule(Broken::Model(model)) => write!(f, "does not allow the model {:?}", model.as_str()),
            Denied::Rule(Broken::ModelUnseen(why)) => {
                write!(f, "allows some models only, and nobody can see which one this call uses: {why}")
            }
            Denied::Rule(Broken::Provider(provider)) => write!(f, "does not allow the provider {provider}"),
            Denied::Rule(Broken::Missing(part)) => {
                let header = part.to_string().replace(':', "-");
                write!(f, "requires {part}: send the header x-bursar-{header}")
            }
            Denied::Unpriced(unknown) => {
                write!(f, "refuses calls of which nobody knows what they may cost: {unknown}")
            }
        }
    }
}

/// What is known of a request before it is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    /// Its method.
    pub(crate) method: &'a Method,
    /// Its headers.
    pub(crate) headers: &'a HeaderMap,
    /// What it asks the upstream for.
    pub(crate) target: &'a PathAndQuery,
    /// What was read of its body.
    pub(crate) held: &'a [Bytes],
    /// Whether that is all of it.
    pub(crate) is_whole: bool,
}

impl Exchange {
    /// Whether a rule wants to know the models or the cost of a request, and so all of its body.
    pub(super) fn access_wants_body(&self, method: &Method) -> bool {
        let Some(config) = &self.access else { return false };
        names_models_in_body(self.api, method)
            && self.access_rules(config).iter().any(|(_, rule)| rule.wants_body())
    }

    /// The rules that the request is under, its credential's first.
    fn access_rules<'c>(&'c self, config: &'c Config) -> SmallVec<[(RuleOf, &'c AccessRule); 4]> {
        let tag = tag_of(&self.identity);
        let facts = Facts {
            team: self.identity.team.as_ref().map(Label::as_str),
            workload: self.identity.workload.as_ref().map(Label::as_str),
            customer: self.identity.customer.as_ref().map(Label::as_str),
            provider: self.route.provider.as_str(),
            model: None,
            model_served: None,
            may_be_any_model: false,
            has_tag: &tag,
        };
        let own = self.credential.iter().map(|one| (RuleOf::Credential(one.kind), &one.access));
        let general = config.access.iter().filter(|rule| rule.is_about(&facts));
        own.chain(general.map(|rule| (RuleOf::Access, rule))).collect()
    }

    /// Lets the request pass if its credential and the rules allow what it asks for.
    pub(crate) fn check_access(&mut self, seen: Seen<'_>) -> Result<(), FailureKind> {
        let Some(config) = self.access.take() else { return Ok(()) };
        let Some(refusal) = self.refused_access(&config, seen) else { return Ok(()) };
        self.record_refusal();
        Err(FailureKind::Access(Box::new(refusal)))
    }

    fn refused_access(&self, config: &Config, seen: Seen<'_>) -> Option<AccessRefusal> {
        if let Some(credential) = &self.credential
            && let Some(routes) = &credential.routes
            && !routes.contains(&self.route.name)
        {
            return Some(AccessRefusal {
                rule: credential.name.clone(),
                of: RuleOf::Credential(credential.kind),
                denied: Denied::Route(self.route.name.clone()),
            });
        }
        let rules = self.access_rules(config);
        let wants_body = rules.iter().any(|(_, rule)| rule.wants_body());
        let models = if wants_body { self.models(seen) } else { Models::Unseen("nobody looked") };
        rules.into_iter().find_map(|(of, rule)| {
            let broken = rule.check(&self.identity, &self.route.provider, &models).err().map(Denied::Rule);
            let unbounded = || match rule.unpriced {
                Unpriced::Refuse => self.unbounded(seen, &models).map(Denied::Unpriced),
                Unpriced::Allow => None,
            };
            let denied = broken.or_else(unbounded)?;
            Some(AccessRefusal { rule: rule.name.clone(), of, denied })
        })
    }

    /// The models that a request may use.
    fn models(&self, seen: Seen<'_>) -> Models {
        let mut found = Vec::new();
        if self.api.is_session() {
            // An encoding of letters that need none, or a second name, is another reading waiting to happen.
            found.extend(self.model_in_path.clone());
            found.extend(seen.target.query().into_iter().flat_map(models_in_query));
            return if found.is_empty() { Models::Unseen(LATER) } else { Models::Named(found) };
        }
        match what_it_does(self.api, seen.method, seen.target.path()) {
            Does::NothingWithModels => return Models::None,
            Does::Unknown(why) => return Models::Unseen(why),
            Does::Asks | Does::AsksForFree | Does::Batch => {}
        }
        let body = match self.models_in_body(seen) {
            Ok(body) => body,
            Err(why) => return Models::Unseen(why),
        };
        let does = what_it_does(self.api, seen.method, seen.target.path());
        if does == Does::Batch {
            return match body.lines {
                Lines::Named if !body.names.is_empty() => Models::Named(body.names),
                _ => Models::Unseen("the lines of its batch are not in the request"),
            };
        }
        found.extend(body.names);
        // Azure acts on the deployment in the path, whatever the body says; others on the body.
        found.extend(self.model_in_path.clone());
        match (found.is_empty(), does) {
            (false, _) => Models::Named(found),
            (true, Does::AsksForFree) => Models::None,
            (true, _) => Models::Unseen("it names none"),
        }
    }

    fn models_in_body(&self, seen: Seen<'_>) -> Result<named::Body, &'static str> {
        if !seen.is_whole {
            return Err("its body is longer than is held");
        }
        let text = |name| seen.headers.get(name).and_then(|value| value.to_str().ok());
        if seen.headers.contains_key(header::CONTENT_ENCODING) {
            return Err("its body is compressed");
        }
        match text(header::CONTENT_TYPE).and_then(boundary_of) {
            Some(boundary) => named::in_form(seen.held, boundary),
            None => named::in_json(seen.held),
        }
    }

    /// Why nobody knows what the request may cost; `None` where that is known, or nothing.
    fn unbounded(&self, seen: Seen<'_>, models: &Models) -> Option<Unknown> {
        if !self.api.is_metered() || *models == Models::None {
            return None;
        }
        if !seen.is_whole {
            return Some(Unknown::Body);
        }
        let (mut facts, bytes) = {
            let request = self.request.borrow();
            (request.facts(), request.bytes())
        };
        if facts.capped || (facts.malformed && bytes > 0) {
            return Some(Unknown::Body);
        }
        let model = self.api.requested_model(facts.model.clone(), self.model_in_path.clone());
        super::admission::read_headers(&mut facts, seen.headers);
        if facts.two_readings {
            return Some(Unknown::TwoReadings);
        }
        let about = About {
            route: &self.route,
            api: self.api,
            model: model.as_ref(),
            region: self.region.as_ref(),
            at: self.started_at,
            facts: &facts,
        };
        let asked = about.asked(&self.app, facts.decoded_bytes, true);
        if asked.cost.is_some() { None } else { Some(asked.unknown) }
    }
}

const LATER: &str = "the session names it later, or not at all";

/// What a call does, as far as models go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// It asks a model.
    Asks,
    /// It asks a model if it names one, and is free.
    AsksForFree,
    /// It makes a batch of calls.
    Batch,
    /// It reads, deletes, cancels, or uploads a file.
    NothingWithModels,
    /// Nobody knows; the text says why.
    Unknown(&'static str),
}

fn what_it_does(api: Api, method: &Method, path: &str) -> Does {
    if matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS) {
        return Does::NothingWithModels;
    }
    match api {
        Api::Moderation | Api::CountTokens => Does::AsksForFree,
        Api::ChatStoreGet | Api::ResponsesGet | Api::InteractionsGet => Does::NothingWithModels,
        Api::BatchCreate | Api::GeminiBatchCreate => Does::Batch,
        _ if cancels(api, path) => Does::NothingWithModels,
        Api::Unmetered if uploads(path) => Does::NothingWithModels,
        Api::Batch | Api::GeminiBatch | Api::Unmetered => Does::Unknown("it is a call that is not metered"),
        _ => Does::Asks,
    }
}

fn names_models_in_body(api: Api, method: &Method) -> bool {
    matches!(what_it_does(api, method, ""), Does::Asks | Does::AsksForFree | Does::Batch) && !api.is_session()
}

/// Whether a call cancels what was asked for before, which saves what it would have used.
pub(super) fn cancels(api: Api, path: &str) -> bool {
    matches!(api, Api::Batch | Api::AssistantsRun) && is_cancel(path)
}

/// Whether the query of a session names two models that differ.
pub(super) fn names_two_models(target: &PathAndQuery) -> bool {
    let mut names = target.query().into_iter().flat_map(models_in_query);
    names.next().is_some_and(|first| names.any(|other| other != first))
}

/// Files, whole or in parts: `…/files`, `…/uploads`, `…/uploads/{id}/parts|complete|cancel`.
fn uploads(path: &str) -> bool {
    let mut last = path.trim_end_matches('/').rsplit('/');
    let (last, _, before) = (last.next(), last.next(), last.next());
    matches!(last, Some("files" | "uploads"))
        || (before == Some("uploads") && matches!(last, Some("parts" | "complete" | "cancel")))
}

/// Every model that the query of a session names: the first and the last may both be the one that counts.
fn models_in_query(query: &str) -> impl Iterator<Item = Label> {
    query.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let name = percent_decode_str(name).decode_utf8_lossy();
        let is_model = ["model", "deployment"].iter().any(|known| name.eq_ignore_ascii_case(known));
        // In a query, `+` is a space.
        let value = value.replace('+', " ");
        Label::lossy(&percent_decode_str(&value).decode_utf8_lossy()).filter(|_| is_model)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(api: Api, method: &Method, path: &str, expected: Does) {
        assert_eq!(what_it_does(api, method, path), expected, "{api:?} {method} {path}");
    }

    #[test]
    fn what_a_call_does_is_told_by_method_and_path_and_the_unknown_is_not_harmless() {
        let unmetered = Does::Unknown("it is a call that is not metered");
        check(Api::OpenAiChat, &Method::POST, "/v1/chat/completions", Does::Asks);
        check(Api::Moderation, &Method::POST, "/v1/moderations", Does::AsksForFree);
        check(Api::Unmetered, &Method::GET, "/v1/models", Does::NothingWithModels);
        check(Api::Unmetered, &Method::POST, "/v1/files", Does::NothingWithModels);
        check(Api::Unmetered, &Method::POST, "/v1/uploads/u/parts", Does::NothingWithModels);
        check(Api::Unmetered, &Method::POST, "/v1/fine_tuning/jobs", unmetered);
        check(Api::Unmetered, &Method::POST, "/v1/videos", unmetered);
        check(Api::Unmetered, &Method::PUT, "/v1/anything", unmetered);
        check(Api::Batch, &Method::POST, "/v1/batches/b/cancel", Does::NothingWithModels);
        check(Api::Batch, &Method::POST, "/v1beta/batches/b:cancel", Does::NothingWithModels);
        check(Api::AssistantsRun, &Method::POST, "/v1/threads/t/runs/r/cancel", Does::NothingWithModels);
        check(Api::AssistantsRun, &Method::POST, "/v1/threads/t/runs", Does::Asks);
        check(Api::Batch, &Method::POST, "/v1/batches/b", unmetered);
        check(Api::BatchCreate, &Method::POST, "/v1/batches", Does::Batch);
        check(Api::GeminiBatchCreate, &Method::POST, "/v1beta/models/m:batchGenerateContent", Does::Batch);
    }

    #[test]
    fn every_model_in_a_query_counts_however_it_is_written() {
        for (query, expected) in [
            ("model=a", &["a"][..]),
            ("model=a&model=b", &["a", "b"]),
            ("%6dodel=a&MODEL=b&x=1", &["a", "b"]),
            ("deployment=d&model=gpt%2D4o", &["d", "gpt-4o"]),
            ("models=a&x=model", &[]),
        ] {
            let found: Vec<String> = models_in_query(query).map(|label| label.to_string()).collect();
            assert_eq!(found, expected, "{query}");
        }
    }
}
