//! The last question before a request is sent: do the budgets allow what it may use?
//!
//! The bound
//! - Input: a token has at least one byte, so the body's bytes are more than its tokens. What the body only
//!   refers to (pictures by address, files, earlier responses) is not in it: what it adds is booked beyond
//!   the hold.
//! - Output: what the request sets, times its choices; else what the route or the configuration says.
//! - Cost: the dearest of the classes that input can be (fresh, or written to a cache).
//! - A call that is not metered asks for next to nothing: it passes as long as anything is left. Calls that
//!   only read (GET) pass.
//!
//! Not here: the decision (`budgets`, `bursar_policies::budget`).

use super::{Exchange, State};
use crate::budgets::{Request, warning_text};
use crate::failure::FailureKind;
use crate::usage::{Api, Ending};
use bursar_domain::{Cost, CostStatus, Label, Metering, Money, Outcome, TokenClass, Usage};
use bursar_ledger::Wait;
use bursar_policies::budget::{Asked, Mode};
use bursar_policies::price::Ask;
use http::{HeaderValue, Method};

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
    /// Lets the request pass if the budgets allow it, and holds what it may use.
    pub(crate) fn admit(&mut self, method: &Method, body: BodyBytes) -> Result<(), FailureKind> {
        let app = &self.app;
        if app.budgets.is_empty() || !self.is_asked(method) {
            return Ok(());
        }
        let facts = self.request.borrow().facts();
        // What could not be read may say anything.
        let body = if facts.malformed || facts.capped { BodyBytes::Unknown } else { body };
        let model = self.api.requested_model(facts.model.clone(), self.model_in_path.clone());
        let request = Request {
            id: self.id,
            at: self.started_at,
            identity: &self.identity,
            provider: &self.route.provider,
            model: model.as_ref(),
            may_be_any_model: body != BodyBytes::Read,
        };
        let input = match body {
            BodyBytes::Read => Some(facts.decoded_bytes),
            BodyBytes::Told(bytes) => Some(bytes),
            BodyBytes::Unknown => None,
        };
        let output = if matches!(self.api, Api::Embeddings) {
            0
        } else {
            facts
                .max_output
                .unwrap_or(self.route.max_output)
                .saturating_mul(facts.choices.unwrap_or(1).max(1))
        };
        let bound = input.map(|input| (input, output));
        let asked = |in_money: bool| match bound {
            _ if !self.api.is_metered() => next_to_nothing(app.config.currency),
            None => Asked::default(),
            Some((input, output)) => Asked {
                tokens: Some(input.saturating_add(output)),
                cost: if in_money {
                    self.dearest(model.as_ref(), facts.service_tier.as_ref(), input, output)
                } else {
                    None
                },
            },
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
                self.kept.held = passed.held.map(Box::new);
                Ok(())
            }
            Err(refusal) => {
                self.record_refusal();
                Err(FailureKind::Budget(refusal))
            }
        }
    }

    /// Leaves a record that counts nothing. Losing it costs a line in a report, so nobody waits for it.
    fn record_refusal(&mut self) {
        let (mut record, _) = self.read_record(Ending::ClientAbort);
        record.outcome = Outcome::Refused;
        record.metering = Metering::Never;
        record.anomalies = self.anomalies;
        self.state = State::Settled;
        self.app.metrics.settled(&record);
        drop(self.app.ledger.append(record, Wait::No));
    }

    fn is_asked(&self, method: &Method) -> bool {
        let free = matches!(self.api, Api::Moderation | Api::CountTokens);
        !free
            && (self.api.is_session()
                || !matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS))
    }

    /// The most that so many tokens can cost; `None` where any of it has no price.
    fn dearest(&self, model: Option<&Label>, tier: Option<&Label>, input: u64, output: u64) -> Option<Money> {
        let cost = |class| {
            let mut usage = Usage::unknown();
            usage.set(class, input);
            usage.set(TokenClass::OutputText, output);
            self.app.prices.book().price(&Ask {
                provider: self.route.provider.as_str(),
                model_served: None,
                model_requested: model.map(Label::as_str),
                tier: tier.map(Label::as_str),
                region: self.region.as_ref().map(Label::as_str),
                speed: None,
                at: self.started_at,
                usage: &usage,
                by_model: &[],
            })
        };
        let priced = |cost: Cost| {
            let billed = cost.billed_pico.filter(|_| cost.status == CostStatus::Priced)?;
            Some(Money::from_pico(cost.currency, billed))
        };
        let fresh = priced(cost(TokenClass::InputFresh))?;
        let written =
            priced(cost(TokenClass::CacheWrite1h)).filter(|cost| cost.currency() == fresh.currency());
        Some(written.filter(|written| written.pico() > fresh.pico()).unwrap_or(fresh))
    }
}

fn next_to_nothing(currency: bursar_domain::Currency) -> Asked {
    Asked { tokens: Some(1), cost: Some(Money::from_pico(currency, 1)) }
}
