//! Rules at a request: what they are told of it, and what becomes of it then.
//!
//! Rules
//! - They are asked before limits and budgets, which then hold what is really sent: another model, a lower
//!   bound, another route.
//! - A change is made whole or not at all. What cannot be changed (a body that is encoded, signed by its
//!   client, too long to be held, or no JSON) follows the `fail` of the rules that ask for it.
//! - The record is of the request as it was sent; tags that begin with `bursar.` tell what was asked for.
//!
//! Not here: the rules (`rules`), changing JSON (`usage::steer`).

use super::admission::{About, read_headers};
use super::most::Most;
use super::{BodyBytes, Exchange};
use crate::budgets::Request;
use crate::call::Call;
use crate::config::{Auth, Dialect, Route};
use crate::failure::FailureKind;
use crate::layers::query_keys::without_credentials;
use crate::rules::{RuleBook, RuleRefusal, RuleWhy};
use crate::upstream::{Origin, Window};
use crate::usage::{RequestFacts, api, steer};
use bursar_domain::{Anomaly, Label};
use bursar_policies::rule::{Action, Changes, Estimate, Fail, RuleFacts, Verdict};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, header};
use std::fmt;
use std::sync::Arc;

/// What was changed of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// The model that is really asked for.
    pub(super) model: Option<Label>,
    /// The bound that is really set.
    pub(super) max_output: Option<u64>,
}

impl Sent {
    /// The facts of the request as it is sent.
    pub(super) fn on(&self, facts: &mut RequestFacts, model: &mut Option<Label>) {
        if let Some(sent) = &self.model {
            *model = Some(sent.clone());
        }
        if let Some(most) = self.max_output {
            facts.max_output = Some(facts.max_output.map_or(most, |asked| asked.min(most)));
            // Every bound that is not lower became this one.
            facts.is_unbounded = false;
        }
    }
}

/// Why a request cannot be changed as a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cannot {
    Session,
    Unmetered,
    TooLong,
    Encoded,
    Signed,
    NotJson,
    TwoReadings,
    NoBound,
    Fallbacks,
    Path,
    OtherApi,
    Gone,
}

impl fmt::Display for Cannot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session => "what a session asks for is not known when it opens",
            Self::Unmetered => "it is no call of a known API",
            Self::TooLong => "its body is longer than is held (reserve.body_bytes)",
            Self::Encoded => "its body is compressed",
            Self::Signed => "its client signed the body",
            Self::NotJson => "its body is no JSON object",
            Self::TwoReadings => "its body can be read in two ways",
            Self::NoBound => "nobody knows how this model is told a bound",
            Self::Fallbacks => "it names other models beside",
            Self::Path => "the model in its path cannot be changed",
            Self::OtherApi => "the other route speaks another API",
            Self::Gone => "the other route is not there",
        })
    }
}

/// A change that can be made.
#[derive(Debug, Default)]
struct Plan {
    sent: Sent,
    frames: Option<Vec<bytes::Bytes>>,
    target: Option<PathAndQuery>,
    route: Option<(Arc<Route>, Arc<Origin>, HeaderValue)>,
}

impl Exchange {
    /// Asks the rules about the request: it is refused, or changed, or passes as it is.
    pub(crate) fn follow_rules(
        &mut self,
        call: &mut Call,
        window: &mut Window,
        body: BodyBytes,
    ) -> Result<(), FailureKind> {
        let book = {
            let rules = self.app.rules();
            if rules.is_empty() {
                return Ok(());
            }
            // One set for all that is decided, whatever is reloaded meanwhile.
            Arc::clone(&rules)
        };
        let book = book.as_ref();
        let (mut facts, is_known) = {
            let request = self.request.borrow();
            let facts = request.facts();
            let is_readable =
                request.bytes() == 0 || (!facts.capped && !facts.malformed && !facts.two_readings);
            let is_read = request.is_read() || window.held.is_empty();
            (facts, body == BodyBytes::Read && is_readable && is_read)
        };
        read_headers(&mut facts, &call.head.headers);
        let model = self.api.requested_model(facts.model.clone(), self.model_in_path.clone());
        let verdict = self.judge(book, call, &facts, model.as_ref(), is_known);
        if let Some(denied) = &verdict.denied {
            return match book.words(denied) {
                Some((rule, why)) => Err(self.refuse(book, rule, why, model)),
                None => Ok(()),
            };
        }
        self.warn_of_rules(book, &verdict);
        if verdict.changes.is_empty() || !self.is_asked(&call.head.method) {
            return Ok(());
        }
        match self.plan(call, window, &facts, model.as_ref(), &verdict.changes) {
            Ok(plan) => {
                let named = |place| Some(book.get(place)?.name.as_str());
                let rules: Vec<&str> = verdict.changes.rules().into_iter().filter_map(named).collect();
                self.carry_out(call, window, plan, &facts, model, &rules.join(","));
                Ok(())
            }
            Err(cannot) => self.not_applied(book, &verdict.changes, cannot, model),
        }
    }

    fn judge(
        &self,
        book: &RuleBook,
        call: &Call,
        facts: &RequestFacts,
        model: Option<&Label>,
        is_known: bool,
    ) -> Verdict {
        let app = &self.app;
        let needs = book.rules().needs();
        let now = app.now();
        let request = Request {
            id: self.id,
            at: self.started_at,
            identity: &self.identity,
            provider: &self.route.provider,
            model,
            may_be_any_model: self.api.is_metered() && (!is_known || model.is_none()),
        };
        let text = Label::as_str;
        let api = self.api.label();
        let identity = &self.identity;
        let used_of = |name: &str| app.budgets.used_of(name, now);
        book.evaluate(&RuleFacts {
            model: model.map(text),
            provider: self.route.provider.as_str(),
            route: self.route.name.as_str(),
            api: api.as_str(),
            method: call.head.method.as_str(),
            path: call.target.path(),
            stream: facts.stream || self.api.is_stream(),
            max_tokens: facts.max_output.filter(|_| !facts.is_unbounded),
            choices: facts.choices,
            tier: facts.service_tier.as_ref().map(text),
            background: facts.background,
            searches: facts.searches.is_some(),
            bytes: facts.decoded_bytes,
            body_is_known: is_known,
            team: identity.team.as_ref().map(text),
            workload: identity.workload.as_ref().map(text),
            customer: identity.customer.as_ref().map(text),
            session: identity.session.as_ref().map(text),
            tags: &identity.tags,
            identity_source: identity.source.name(),
            estimate: if needs.estimate || needs.cost {
                self.estimate(facts, model, is_known, needs.cost)
            } else {
                Estimate::default()
            },
            used_percent: if needs.budgets { app.budgets.used_percent(&request, now) } else { None },
            used_of: &used_of,
            now,
        })
    }

    fn estimate(
        &self,
        facts: &RequestFacts,
        model: Option<&Label>,
        is_known: bool,
        in_money: bool,
    ) -> Estimate {
        if !is_known || !self.api.is_metered() {
            return Estimate::default();
        }
        let about = About {
            route: &self.route,
            api: self.api,
            model,
            region: self.region.as_ref(),
            at: self.started_at,
            facts,
        };
        let bytes = facts.decoded_bytes;
        let most = Most::of(self.api, facts, bytes, self.route.max_output);
        let cost = if in_money { about.asked(&self.app, bytes, true).cost } else { None };
        Estimate { input: Some(most.input), output: Some(most.output), cost }
    }

    fn refuse(&mut self, book: &RuleBook, rule: Label, why: RuleWhy, model: Option<Label>) -> FailureKind {
        let refusal = RuleRefusal {
            id: self.id,
            at: self.started_at,
            team: self.identity.team.clone(),
            model,
            rule,
            why,
        };
        book.remember(&refusal);
        self.record_refusal();
        FailureKind::Rule(Box::new(refusal))
    }

    fn warn_of_rules(&mut self, book: &RuleBook, verdict: &Verdict) {
        let told = verdict.warned.iter().filter_map(|place| {
            let rule = book.get(*place)?;
            match &rule.action {
                Action::Warn(text) => Some(format!("{}; {text}", rule.name)),
                Action::Deny(_) | Action::Steer(_) => None,
            }
        });
        let told: Vec<String> = told.collect();
        if !told.is_empty() {
            self.tell("x-bursar-rule-warning", &told.join(", "));
        }
    }

    fn tell(&mut self, name: &'static str, text: &str) {
        // A rule's text may have letters that a header cannot hold.
        let printable: String = text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
        if let Ok(value) = HeaderValue::try_from(printable) {
            self.told.push((HeaderName::from_static(name), value));
        }
    }

    fn not_applied(
        &mut self,
        book: &RuleBook,
        changes: &Changes,
        cannot: Cannot,
        model: Option<Label>,
    ) -> Result<(), FailureKind> {
        let mut closed = None;
        for place in changes.rules() {
            book.not_applied(place);
            let rule = book.get(place).filter(|rule| rule.fail == Fail::Closed);
            closed = closed.or_else(|| rule.map(|rule| rule.name.clone()));
        }
        match closed {
            Some(rule) => Err(self.refuse(book, rule, RuleWhy::Failed(cannot.to_string().into()), model)),
            None => Ok(()),
        }
    }

    /// How the changes can be made.
    fn plan(
        &self,
        call: &Call,
        window: &Window,
        facts: &RequestFacts,
        asked: Option<&Label>,
        changes: &Changes,
    ) -> Result<Plan, Cannot> {
        let mut plan = Plan::default();
        if let Some((_, name)) = changes.route.as_ref().filter(|(_, name)| *name != self.route.name) {
            if self.api.is_session() {
                return Err(Cannot::Session);
            }
            let (route, origin, host, target) = self.other_route(call, name)?;
            plan.target = Some(target);
            plan.route = Some((route, origin, host));
        }
        let model = changes.model.as_ref().map(|(_, model)| model).filter(|model| asked != Some(model));
        let bound = changes.max_output.map(|(_, most)| most);
        let is_lower = |most: &u64| facts.max_output.is_some_and(|asked| asked <= *most);
        let bound = bound.filter(|most| facts.is_unbounded || !is_lower(most));
        let bound = bound.filter(|_| self.api.is_session() || steer::has_output(self.api));
        if model.is_none() && bound.is_none() {
            return Ok(plan);
        }
        if self.api.is_session() {
            return Err(Cannot::Session);
        }
        if !self.api.is_metered() {
            return Err(Cannot::Unmetered);
        }
        if model.is_some() && facts.has_fallbacks {
            return Err(Cannot::Fallbacks);
        }
        if facts.two_readings {
            return Err(Cannot::TwoReadings);
        }
        let in_path = self.model_in_path.is_some();
        if let Some(model) = model.filter(|_| in_path) {
            let target = plan.target.as_ref().unwrap_or(&call.target);
            let changed = api::with_model(target, model.as_str()).ok_or(Cannot::Path)?;
            plan.target = Some(changed);
        }
        let in_body = model.filter(|_| !in_path || facts.model.is_some());
        if in_body.is_some() || bound.is_some() {
            let wanted = steer::Wanted {
                model: in_body.map(Label::as_str),
                max_output: bound,
                completion_tokens: takes_completion_tokens(plan.route.as_ref(), &self.route),
            };
            plan.frames = Some(self.changed_body(call, window, &wanted)?);
        }
        plan.sent = Sent { model: model.cloned(), max_output: bound };
        Ok(plan)
    }

    fn changed_body(
        &self,
        call: &Call,
        window: &Window,
        wanted: &steer::Wanted<'_>,
    ) -> Result<Vec<bytes::Bytes>, Cannot> {
        let headers = &call.head.headers;
        if window.rest.is_some() {
            return Err(Cannot::TooLong);
        }
        if headers.contains_key(header::CONTENT_ENCODING) {
            return Err(Cannot::Encoded);
        }
        if !matches!(self.route.auth, Auth::SigV4(_)) && super::is_client_signed(headers) {
            return Err(Cannot::Signed);
        }
        steer::steer(&window.held, self.api, wanted).map_err(|error| match error {
            steer::Unchangeable::NotJson => Cannot::NotJson,
            steer::Unchangeable::NoBound => Cannot::NoBound,
        })
    }

    /// Another route, and where the request goes on it.
    fn other_route(
        &self,
        call: &Call,
        name: &Label,
    ) -> Result<(Arc<Route>, Arc<Origin>, HeaderValue, PathAndQuery), Cannot> {
        let config = self.app.config();
        let found = config.routes.iter().find(|route| route.name == *name);
        let route = found.map(Arc::clone).ok_or(Cannot::Gone)?;
        let azure = |route: &Route| route.provider.as_str() == "azure";
        let google = self.route.dialect == Dialect::Gemini && self.route.provider != route.provider;
        if route.dialect != self.route.dialect || azure(&route) != azure(&self.route) || google {
            return Err(Cannot::OtherApi);
        }
        let (authority, path) = route.take_over(&self.route, call.target.path()).ok_or(Cannot::OtherApi)?;
        // The client's key, where it stands in the query, is not for this upstream.
        let query = call.target.query().and_then(without_credentials);
        let target = match query {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        let target = PathAndQuery::try_from(target).map_err(|_| Cannot::Path)?;
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Cannot::Gone)?;
        let origin = Origin { secure: route.is_tls(), authority, protocol: route.protocol };
        Ok((route, Arc::new(origin), host, target))
    }

    fn carry_out(
        &mut self,
        call: &mut Call,
        window: &mut Window,
        plan: Plan,
        facts: &RequestFacts,
        asked: Option<Label>,
        rules: &str,
    ) {
        let Plan { sent, frames, target, route } = plan;
        if sent == Sent::default() && route.is_none() {
            return;
        }
        let mut tags = vec![("bursar.rule", rules.to_owned())];
        let mut header = format!("rule={rules}");
        if let Some(model) = &sent.model {
            let before = asked.as_ref().map_or("none", Label::as_str);
            tags.push(("bursar.asked_model", before.to_owned()));
            header.push_str(&format!("; model={model}"));
        }
        if let Some(most) = sent.max_output {
            let before = facts.max_output.map_or_else(|| "none".to_owned(), |asked| asked.to_string());
            tags.push(("bursar.asked_max_output", before));
            tags.push(("bursar.max_output", most.to_string()));
            header.push_str(&format!("; max_output={most}"));
        }
        if let Some((route, origin, host)) = route {
            tags.push(("bursar.asked_route", self.route.name.to_string()));
            header.push_str(&format!("; route={}", route.name));
            self.region = route.region.clone();
            call.region = route.region.clone();
            self.route = Arc::clone(&route);
            (call.route, call.origin, call.host) = (route, origin, host);
        }
        if let Some(target) = target {
            call.target = target;
        }
        if let Some(frames) = frames {
            window.held = frames;
        }
        self.tag(&tags);
        self.tell("x-bursar-steered", &header);
        self.sent = Some(Box::new(sent));
    }

    fn tag(&mut self, tags: &[(&'static str, String)]) {
        let identity = Arc::make_mut(&mut self.identity);
        let mut is_full = false;
        for (name, value) in tags {
            if let Some(value) = Label::lossy(value) {
                is_full |= !identity.tags.insert(Label::fixed(name), value);
            }
        }
        if is_full {
            self.note(Anomaly::TagDropped);
        }
    }
}

/// OpenAI's newer models take their bound under a name that others do not know.
fn takes_completion_tokens(other: Option<&(Arc<Route>, Arc<Origin>, HeaderValue)>, route: &Route) -> bool {
    let provider = other.map_or(&route.provider, |(route, ..)| &route.provider);
    matches!(provider.as_str(), "openai" | "azure")
}
