//! Limits at work: the buckets, the decision about a request, and what a request takes until it ends.
//!
//! Invariants
//! - One lock holds all buckets, for a microsecond at a time; without limits it is never taken.
//! - What a request took ends with it, however it ends: whoever drops its [`Pass`] gives it back.
//! - Buckets are in memory alone: a restart begins with full ones.
//!
//! Not here: the rules (`bursar_policies::limit`), how much a request may use (`exchange::admission`).

use crate::budgets::Request;
use bursar_domain::{Identity, Label, Metering, RequestId, Timestamp, UsageRecord};
use bursar_policies::budget::{Facts, tag_of};
use bursar_policies::limit::{Cap, Exceeded, Limit, Limits, Ticket};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// Refusals that are remembered.
const REFUSALS_MAX: usize = 4_096;

/// All limits and where they stand.
#[derive(Debug)]
pub struct Limiter {
    is_empty: AtomicBool,
    state: Mutex<State>,
    began: Instant,
}

#[derive(Debug, Default)]
struct State {
    limits: Limits,
    refused: VecDeque<LimitRefusal>,
}

/// A request that a limit refused, with its figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitRefusal {
    /// The request.
    pub id: RequestId,
    /// When it began.
    pub at: Timestamp,
    /// Its team.
    pub team: Option<Label>,
    /// The model it asked for.
    pub model: Option<Label>,
    /// What refused it and why.
    pub exceeded: Exceeded,
}

/// What a request that passes has taken of its limits.
#[derive(Debug)]
pub struct Pass {
    limiter: Arc<Limiter>,
    ticket: Ticket,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was sent: all of it will be given back.
    Held,
    /// It is under way.
    Sent,
    /// It has ended; what it used may not be told yet.
    Ended,
}

impl Limiter {
    /// These limits, with full buckets.
    #[must_use]
    pub fn new(rules: Vec<Limit>) -> Self {
        let is_empty = AtomicBool::new(rules.is_empty());
        let state = State { limits: Limits::new(rules, 0), ..State::default() };
        Self { is_empty, state: Mutex::new(state), began: Instant::now() }
    }

    /// Whether there is no limit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_empty.load(Ordering::Relaxed)
    }

    /// From now on these limits are in force. One of the same name and scope goes on where it stood.
    pub fn replace(&self, rules: Vec<Limit>) {
        let now = self.now();
        let mut state = self.lock();
        self.is_empty.store(rules.is_empty(), Ordering::Relaxed);
        state.limits.replace(rules, now);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Decides about a request, and takes from its limits the `tokens` that it may use where it passes.
    /// `None` where it is under no limit.
    pub fn admit(
        self: &Arc<Self>,
        request: &Request<'_>,
        tokens: Option<u64>,
    ) -> Result<Option<Box<Pass>>, Box<LimitRefusal>> {
        let tag = tag_of(request.identity);
        let facts = facts(request, &tag);
        let now = self.now();
        let mut state = self.lock();
        match state.limits.admit(&facts, tokens, now) {
            Ok(ticket) if ticket.is_empty() => Ok(None),
            Ok(ticket) => {
                drop(state);
                Ok(Some(Box::new(Pass { limiter: Arc::clone(self), ticket, stage: Stage::Held })))
            }
            Err(exceeded) => {
                let refusal = LimitRefusal {
                    id: request.id,
                    at: request.at,
                    team: request.identity.team.clone(),
                    model: request.model.cloned(),
                    exceeded: *exceeded,
                };
                if state.refused.len() >= REFUSALS_MAX {
                    state.refused.pop_front();
                }
                state.refused.push_back(refusal.clone());
                Err(Box::new(refusal))
            }
        }
    }

    /// The refusal of this request, if it is remembered.
    #[must_use]
    pub fn why(&self, id: RequestId) -> Option<LimitRefusal> {
        self.lock().refused.iter().rev().find(|refusal| refusal.id == id).cloned()
    }

    /// Lines of the metrics page: what is left of each limit.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut page = String::new();
        if self.is_empty() {
            return page;
        }
        let now = self.now();
        let mut state = self.lock();
        let names: Vec<String> = state
            .limits
            .rules()
            .iter()
            .map(|rule| rule.name.as_str().replace('\\', "\\\\").replace('"', "\\\""))
            .collect();
        let (mut left, mut running) = (String::new(), String::new());
        for (number, name) in names.iter().enumerate() {
            let Some(level) = state.limits.level(number, now) else { continue };
            for (cap, units) in [(Cap::Requests, level.requests), (Cap::Tokens, level.tokens)] {
                if let Some(units) = units {
                    left.push_str(&format!("bursar_limit_left{{limit=\"{name}\",cap=\"{cap}\"}} {units}\n"));
                }
            }
            running.push_str(&format!("bursar_limit_running{{limit=\"{name}\"}} {}\n", level.running));
        }
        page.push_str(
            "# HELP bursar_limit_left What a limit lets pass now; below zero while it carries a debt.\n",
        );
        page.push_str("# TYPE bursar_limit_left gauge\n");
        page.push_str(&left);
        page.push_str("# HELP bursar_limit_running Requests under way under a limit.\n");
        page.push_str("# TYPE bursar_limit_running gauge\n");
        page.push_str(&running);
        page
    }
}

fn facts<'a>(request: &Request<'a>, has_tag: &'a (dyn Fn(&str, &str) -> bool + 'a)) -> Facts<'a> {
    let Identity { team, workload, customer, .. } = request.identity;
    let text = |label: &'a Option<Label>| label.as_ref().map(Label::as_str);
    Facts {
        team: text(team),
        workload: text(workload),
        customer: text(customer),
        provider: request.provider.as_str(),
        model: request.model.map(Label::as_str),
        model_served: None,
        may_be_any_model: request.may_be_any_model,
        has_tag,
    }
}

impl Pass {
    /// The request is about to be sent.
    pub fn sent(&mut self) {
        self.stage = Stage::Sent;
    }

    /// It was not sent after all.
    pub fn withdraw(&mut self) {
        self.stage = Stage::Held;
    }

    /// The request has ended.
    pub fn ended(&mut self) {
        if self.stage == Stage::Sent {
            self.stage = Stage::Ended;
            self.limiter.lock().limits.end(&self.ticket);
        }
    }

    /// States what the request used by its record, or one more record of the same session.
    pub fn used(&mut self, record: &UsageRecord) {
        let counts = [record.usage.input_total(), record.usage.output_total()];
        let told = counts.into_iter().flatten().reduce(u64::saturating_add);
        let used = if record.metering == Metering::Never { Some(0) } else { told };
        let now = self.limiter.now();
        self.limiter.lock().limits.settle(&mut self.ticket, used, now);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let now = self.limiter.now();
        let mut state = self.limiter.lock();
        match self.stage {
            Stage::Held => state.limits.cancel(&self.ticket, now),
            Stage::Sent => state.limits.end(&self.ticket),
            Stage::Ended => {}
        }
    }
}

// === what people see ===

impl fmt::Display for LimitRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exceeded { name, cap, limit, asked, left, .. } = &self.exceeded;
        write!(f, "the limit {:?} refuses this request: ", name.as_str())?;
        match cap {
            Cap::Concurrent => write!(f, "{limit} are under way, which is all that {cap} allows"),
            Cap::Requests => write!(f, "{cap} is {limit}, and {left} may pass now"),
            Cap::Tokens => {
                write!(f, "{cap} is {limit}, of which {left} are left, and it may use up to {asked}")
            }
        }?;
        write!(f, "; come again in {} s", self.retry_seconds())
    }
}

impl LimitRefusal {
    /// After how many seconds it may fit.
    #[must_use]
    pub fn retry_seconds(&self) -> u64 {
        self.exceeded.retry_nanos.div_ceil(1_000_000_000).max(1)
    }

    /// The refusal as the API tells it.
    #[must_use]
    pub fn json(&self) -> Value {
        let Exceeded { name, cap, limit, asked, left, .. } = &self.exceeded;
        let at = jiff::Timestamp::from_microsecond(self.at.micros());
        json!({
            "id": self.id.to_string(),
            "at": at.map_or_else(|_| self.at.micros().to_string(), |at| at.to_string()),
            "outcome": "refused",
            "rule": name.as_str(),
            "reason": "rate_limited",
            "cap": cap.name(),
            "limit": limit,
            "asked": asked,
            "left": left,
            "team": self.team.as_ref().map(Label::as_str),
            "model": self.model.as_ref().map(Label::as_str),
            "retry_after_seconds": self.retry_seconds(),
            "message": self.to_string(),
        })
    }
}
