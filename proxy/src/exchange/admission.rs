//! The last question before a request is sent: do limits and budgets allow what it may use?
//!
//! Rules
//! - What it may use is the most that its API allows (`most`), at the dearest that it can be served at
//!   (`PriceBook::bound`).
//! - A call that is not metered asks for next to nothing: it passes as long as anything is left. Calls that
//!   only read (GET) or cancel pass.
//! - Where a hard budget may refuse, the whole body is known before this is asked, or nothing is.
//! - A limit is asked before the budgets.
//! - A session asks its budgets anew after each of its responses, with the input of the last one.
//!
//! Not here: the decision (`budgets`, `limits`, `bursar_policies`), holding bodies (`layers::meter`).

use super::most::Most;
use super::{Exchange, State};
use crate::app::App;
use crate::budgets::{Request, warning_text};
use crate::config::Route;
use crate::failure::FailureKind;
use crate::usage::{Api, Ending, RequestFacts};
use bursar_domain::{Identity, Label, Metering, Money, Outcome, RequestId, Timestamp, UsageRecord};
use bursar_ledger::{Pricer, Wait};
use bursar_policies::budget::{Asked, Mode, Unknown};
use bursar_policies::price::BoundAsk;
use http::{HeaderMap, HeaderValue, Method};
use std::sync::Arc;

/// How long the request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyBytes {
    /// It was read to its end.
    Read,
    /// It goes on, up to so many bytes in all.
    Told(u64),
    /// It goes on, nobody knows how long.
    Unknown,
}

impl Exchange {
    /// Whether a hard budget, or a rule about its model or body, may refuse or change the request, so that
    /// all of it must be known.
    pub(crate) fn needs_whole_body(&self, method: &Method) -> bool {
        let budgets = &self.app.budgets;
        let by_rules = self.api.is_metered() && self.app.rules().rules().needs().body;
        let by_budgets = !budgets.is_empty()
            && self.api.is_metered()
            && self.is_asked(method)
            && budgets.may_refuse(&self.identity, &self.route.provider);
        by_rules || by_budgets || self.access_wants_body(method)
    }

    /// Lets the request pass if the budgets allow it, and holds what it may use.
    pub(crate) fn admit(
        &mut self,
        method: &Method,
        headers: &HeaderMap,
        body: BodyBytes,
    ) -> Result<(), FailureKind> {
        let app = &self.app;
        if (app.budgets.is_empty() && app.limits.is_empty()) || !self.is_asked(method) {
            return Ok(());
        }
        let (mut facts, has_body) = {
            let request = self.request.borrow();
            (request.facts(), request.bytes() > 0)
        };
        let mut model = self.api.requested_model(facts.model.clone(), self.model_in_path.clone());
        read_headers(&mut facts, headers);
        facts.two_readings |= self.two_models;
        // What could not be read may say anything, and so may what can be read in two ways.
        let is_unreadable = facts.capped || facts.two_readings || (facts.malformed && has_body);
        let body = if body == BodyBytes::Read && is_unreadable { BodyBytes::Unknown } else { body };
        if let Some(sent) = &self.sent {
            sent.on(&mut facts, &mut model);
        }
        // Most looks at a batch of Google's tell how far it is; what its results cost was spent already.
        let is_metered = self.api.is_metered() && self.api != Api::GeminiBatch;
        let request = Request {
            id: self.id,
            at: self.started_at,
            identity: &self.identity,
            provider: &self.route.provider,
            model: model.as_ref(),
            may_be_any_model: is_metered && (body != BodyBytes::Read || model.is_none()),
        };
        let bytes = match body {
            BodyBytes::Read => Some(facts.decoded_bytes),
            BodyBytes::Told(bytes) => Some(bytes),
            BodyBytes::Unknown => None,
        };
        let about = About {
            route: &self.route,
            api: self.api,
            model: model.as_ref(),
            region: self.region.as_ref(),
            at: self.started_at,
            facts: &facts,
        };
        let asked = |in_money| match bytes {
            _ if !is_metered => next_to_nothing(app.config().currency),
            None if facts.two_readings => Asked { unknown: Unknown::TwoReadings, ..Asked::default() },
            None => Asked::default(),
            Some(bytes) => about.asked(app, bytes, in_money),
        };
        // Before the budgets: what was taken of limits is given back where one of those refuses.
        let pass = if app.limits.is_empty() {
            None
        } else {
            match app.limits.admit(&request, asked(false).tokens) {
                Ok(pass) => pass,
                Err(refusal) => {
                    self.record_refusal();
                    return Err(FailureKind::Limit(refusal));
                }
            }
        };
        match app.budgets.admit(&request, app.clock(), asked) {
            Ok(passed) => {
                for warning in &passed.warnings {
                    match warning.mode {
                        Mode::Shadow => app.metrics.budget_shadowed.inc(),
                        Mode::Hard | Mode::Soft => app.metrics.budget_warned.inc(),
                    };
                }
                let warning =
                    warning_text(&passed.warnings).and_then(|text| HeaderValue::try_from(text).ok());
                self.warning = warning.map(Box::new);
                self.kept.held = passed.held;
                self.kept.pass = pass;
                Ok(())
            }
            Err(refusal) => {
                self.record_refusal();
                Err(FailureKind::Budget(refusal))
            }
        }
    }

    /// Leaves a record that counts nothing. Losing it costs a line in a report, so nobody waits for it.
    pub(super) fn record_refusal(&mut self) {
        let (mut record, _) = self.read_record(Ending::ClientAbort);
        record.outcome = Outcome::Refused;
        record.metering = Metering::Never;
        record.anomalies = self.anomalies;
        self.state = State::Settled;
        self.app.metrics.settled(&record);
        drop(self.app.ledger.append_for(record, None, self.kept.caller, Wait::No));
    }

    /// Whether the request asks for something that is charged for.
    pub(super) fn is_asked(&self, method: &Method) -> bool {
        // Free calls, and those that read or cancel what was asked for before.
        let free = matches!(
            self.api,
            Api::Moderation | Api::CountTokens | Api::ResponsesGet | Api::InteractionsGet | Api::ChatStoreGet
        );
        !free
            && !self.cancels
            && (self.api.is_session()
                || !matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS))
    }
}

/// What InvokeModel of Bedrock is told in its head.
pub(super) fn read_headers(facts: &mut RequestFacts, headers: &HeaderMap) {
    let RequestFacts { speed, service_tier, two_readings, .. } = facts;
    for (told, name) in
        [(speed, "x-amzn-bedrock-performanceconfig-latency"), (service_tier, "x-amzn-bedrock-service-tier")]
    {
        for value in headers.get_all(name) {
            let value = value.to_str().ok().and_then(Label::lossy);
            *two_readings |= told.is_some() && *told != value;
            *told = told.take().or(value);
        }
    }
}

/// What decides the price of a request.
pub(super) struct About<'a> {
    pub(super) route: &'a Route,
    pub(super) api: Api,
    pub(super) model: Option<&'a Label>,
    pub(super) region: Option<&'a Label>,
    pub(super) at: Timestamp,
    pub(super) facts: &'a RequestFacts,
}

impl About<'_> {
    /// The most that it can use with so many bytes of input.
    pub(super) fn asked(&self, app: &App, bytes: u64, in_money: bool) -> Asked {
        let most = Most::of(self.api, self.facts, bytes, self.route.max_output);
        let mut asked = Asked { tokens: Some(most.tokens()), ..Asked::default() };
        if in_money {
            match self.bound(app, &most) {
                Ok(cost) => asked.cost = Some(cost),
                Err(unknown) => asked.unknown = unknown,
            }
        }
        asked
    }

    fn bound(&self, app: &App, most: &Most) -> Result<Money, Unknown> {
        let provider = self.route.provider.as_str();
        if self.facts.has_fallbacks && provider == "openrouter" {
            return Err(Unknown::Model);
        }
        let text = Label::as_str;
        let ask = BoundAsk {
            provider,
            model: self.model.map(text),
            tier: self.facts.service_tier.as_ref().map(text),
            speed: self.facts.speed.as_ref().map(text),
            region: self.region.or(self.facts.geo.as_ref()).map(text),
            // An account at Anthropic may have a region that its requests do not tell.
            any_region: provider == "anthropic" && self.region.is_none() && self.facts.geo.is_none(),
            at: self.at,
            input: most.input,
            output: most.output,
            quantities: &most.quantities,
        };
        app.prices.book().bound(&ask).map_err(Unknown::Price)
    }
}

fn next_to_nothing(currency: bursar_domain::Currency) -> Asked {
    Asked { tokens: Some(1), cost: Some(Money::from_pico(currency, 1)), ..Asked::default() }
}

/// What a session needs to hold the next of its responses.
#[derive(Debug)]
pub(crate) struct NextResponse<'a> {
    /// The id of the hold.
    pub(crate) id: RequestId,
    /// When it may begin.
    pub(crate) at: Timestamp,
    /// Who it is for.
    pub(crate) identity: &'a Identity,
    /// Where it goes.
    pub(crate) route: &'a Route,
    /// The price region.
    pub(crate) region: Option<&'a Label>,
    /// How it is spoken.
    pub(crate) api: Api,
    /// The last response.
    pub(crate) last: &'a UsageRecord,
}

impl NextResponse<'_> {
    /// Holds it, if the budgets allow it. Its input is that of the last one: the talk so far.
    pub(crate) fn hold(&self, app: &App) -> Result<Option<Arc<Asked>>, FailureKind> {
        let model = self.last.model_requested.as_ref();
        let request = Request {
            id: self.id,
            at: self.at,
            identity: self.identity,
            provider: &self.route.provider,
            model,
            may_be_any_model: model.is_none(),
        };
        let facts = RequestFacts::default();
        let about = About {
            route: self.route,
            api: self.api,
            model,
            region: self.region,
            at: self.at,
            facts: &facts,
        };
        let input = self.last.usage.input_total().unwrap_or(0);
        let passed = app.budgets.admit(&request, app.clock(), |in_money| about.asked(app, input, in_money));
        passed.map(|passed| passed.held).map_err(FailureKind::Budget)
    }
}

/// What a record used, at the prices of the ledger, as far as the record alone tells.
pub(crate) fn used_by(app: &App, record: &UsageRecord) -> UsageRecord {
    let mut priced = record.clone();
    if priced.cost.is_none() && super::may_count(record) {
        priced.cost = Some(app.prices.price(record));
    }
    priced
}
