//! Limits on rates: requests and tokens per minute, requests at once.
//!
//! A rate is a bucket that holds one minute's worth and fills continuously. Admission takes what a request
//! may use, settlement gives back what it did not; what it used beyond that is a debt, which later requests
//! wait for. Debts are carried, never forgiven.
//!
//! Invariants
//! - Over any time, what passed is at most one minute's worth more than the rate, plus what single requests
//!   used beyond what they were admitted for.
//! - A request is taken from all of its limits or from none.
//! - A request that may use more than a minute's worth passes when its bucket is full, and leaves a debt: it
//!   would never pass otherwise.
//! - Whole numbers alone: a bucket counts in parts of which one unit has as many as a minute has
//!   nanoseconds. Nothing here reads a clock.
//!
//! Not here: what a request may use (`bursar`), what a budget spends (`budget`).

use crate::budget::{Facts, Scope};
use bursar_domain::Label;
use std::collections::HashMap;
use std::fmt;

/// Nanoseconds of a minute: parts of one unit.
const MINUTE: i128 = 60_000_000_000;
/// How long to wait when only running requests are in the way.
const SOON_NANOS: u64 = 1_000_000_000;

/// A rule: at least one of the three is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its name, unique among limits.
    pub name: Label,
    /// Whose requests.
    pub scope: Scope,
    /// Requests per minute; more than zero.
    pub requests_per_minute: Option<u64>,
    /// Input and output tokens per minute; more than zero.
    pub tokens_per_minute: Option<u64>,
    /// Requests at once; more than zero.
    pub concurrent_requests: Option<u64>,
}

/// What of a limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    /// Requests per minute.
    Requests,
    /// Tokens per minute.
    Tokens,
    /// Requests at once.
    Concurrent,
}

impl Cap {
    /// The key in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests_per_minute",
            Self::Tokens => "tokens_per_minute",
            Self::Concurrent => "concurrent_requests",
        }
    }
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A refusal with its figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// The limit's name.
    pub name: Label,
    /// What of it is reached.
    pub cap: Cap,
    /// Units per minute, or at once.
    pub limit: u64,
    /// What the request asks for, in the same units.
    pub asked: u64,
    /// What there is for it; below zero where a debt is carried.
    pub left: i64,
    /// After how many nanoseconds it may fit.
    pub retry_nanos: u64,
}

/// A request that passed, until it is settled or given up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ticket {
    /// Ids of its limits, which stay theirs when the rules change.
    numbers: Vec<u32>,
    /// Tokens that were taken for it, by limit.
    tokens: Vec<u64>,
}

impl Ticket {
    /// Whether the request is under no limit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
}

/// Where a limit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Requests that may pass now.
    pub requests: Option<i64>,
    /// Tokens that may be used now.
    pub tokens: Option<i64>,
    /// Requests that are under way.
    pub running: u64,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    per_minute: u64,
    /// In parts; below zero where a debt is carried.
    level: i128,
    /// Until when it was filled, in nanoseconds of the steady clock.
    filled_at: u64,
}

#[derive(Clone, Debug)]
struct State {
    id: u32,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    running: u64,
}

/// All limits and where they stand.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    rules: Vec<Limit>,
    states: Vec<State>,
    /// Where the state of an id is.
    places: HashMap<u32, usize>,
    next_id: u32,
}

impl Bucket {
    fn full(per_minute: u64, now: u64) -> Self {
        Self { per_minute, level: capacity(per_minute), filled_at: now }
    }

    /// The bucket, filled from now on at another rate. A debt stays.
    fn at(mut self, per_minute: u64, now: u64) -> Self {
        self.fill(now);
        let level = self.level.min(capacity(per_minute));
        Self { per_minute, level, filled_at: self.filled_at }
    }

    fn fill(&mut self, now: u64) {
        let nanos = now.saturating_sub(self.filled_at);
        self.filled_at = self.filled_at.max(now);
        let more = i128::from(nanos).saturating_mul(i128::from(self.per_minute));
        self.level = self.level.saturating_add(more).min(capacity(self.per_minute));
    }

    /// How long until `units` can be taken; `None` when they can be now.
    fn wait_for(&self, units: u64) -> Option<u64> {
        let need = parts(units).min(capacity(self.per_minute));
        let missing = need.saturating_sub(self.level);
        if missing <= 0 {
            return None;
        }
        let rate = i128::from(self.per_minute.max(1));
        let nanos = missing.saturating_add(rate.saturating_sub(1)).checked_div(rate).unwrap_or(missing);
        Some(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn take(&mut self, units: u64) {
        self.level = self.level.saturating_sub(parts(units));
    }

    fn give_back(&mut self, units: u64) {
        self.level = self.level.saturating_add(parts(units)).min(capacity(self.per_minute));
    }

    /// Whole units that are there, rounded down.
    fn units(&self) -> i64 {
        i64::try_from(self.level.div_euclid(MINUTE)).unwrap_or(i64::MIN)
    }
}

fn parts(units: u64) -> i128 {
    i128::from(units).saturating_mul(MINUTE)
}

fn capacity(per_minute: u64) -> i128 {
    parts(per_minute)
}

impl Limits {
    /// These limits, with full buckets at `now` of the steady clock, in nanoseconds.
    #[must_use]
    pub fn new(rules: Vec<Limit>, now: u64) -> Self {
        let mut limits = Self::default();
        limits.replace(rules, now);
        limits
    }

    /// These limits instead of those before. One of the same name and scope goes on where it stood, with
    /// what runs under it and what it owes; a new one begins full. A request that is under way under a
    /// limit that is gone owes nothing.
    pub fn replace(&mut self, rules: Vec<Limit>, now: u64) {
        let mut before: HashMap<Label, (Limit, State)> = std::mem::take(&mut self.rules)
            .into_iter()
            .zip(std::mem::take(&mut self.states))
            .map(|(rule, state)| (rule.name.clone(), (rule, state)))
            .collect();
        self.places.clear();
        for (place, rule) in rules.iter().enumerate() {
            let same = before.remove(&rule.name).filter(|(old, _)| old.scope == rule.scope);
            let state = match same {
                Some((_, state)) => state.under(rule, now),
                None => {
                    let id = self.next_id;
                    self.next_id = self.next_id.wrapping_add(1);
                    State { id, requests: None, tokens: None, running: 0 }.under(rule, now)
                }
            };
            self.places.insert(state.id, place);
            self.states.push(state);
        }
        self.rules = rules;
    }

    /// The rules in their order.
    #[must_use]
    pub fn rules(&self) -> &[Limit] {
        &self.rules
    }

    /// Decides about a request, and takes what it may use from all of its limits where it passes. `tokens`
    /// is the most that it may use; where nobody knows, it is taken for a whole minute's worth.
    pub fn admit(
        &mut self,
        facts: &Facts<'_>,
        tokens: Option<u64>,
        now: u64,
    ) -> Result<Ticket, Box<Exceeded>> {
        let mut ticket = Ticket::default();
        for (rule, state) in self.rules.iter().zip(&mut self.states) {
            if !rule.scope.matches(facts) {
                continue;
            }
            state.fill(now);
            let asked = state.tokens.as_ref().map_or(0, |bucket| tokens.unwrap_or(bucket.per_minute));
            if let Some(exceeded) = exceeded(rule, state, asked) {
                return Err(Box::new(exceeded));
            }
            ticket.numbers.push(state.id);
            ticket.tokens.push(asked);
        }
        for (number, asked) in ticket.numbers.iter().zip(&ticket.tokens) {
            let Some(state) = state_of(&self.places, &mut self.states, *number) else { continue };
            if let Some(bucket) = &mut state.requests {
                bucket.take(1);
            }
            if let Some(bucket) = &mut state.tokens {
                bucket.take(*asked);
            }
            state.running = state.running.saturating_add(1);
        }
        Ok(ticket)
    }

    /// States what a request used, as far as that is known; what is not known stays as it was taken. From
    /// now on more that it uses is a debt.
    pub fn settle(&mut self, ticket: &mut Ticket, used: Option<u64>, now: u64) {
        let Some(used) = used else { return };
        for (number, taken) in ticket.numbers.iter().zip(&mut ticket.tokens) {
            let bucket =
                state_of(&self.places, &mut self.states, *number).and_then(|state| state.tokens.as_mut());
            let Some(bucket) = bucket else { continue };
            bucket.fill(now);
            bucket.give_back_exactly(*taken, used);
            *taken = 0;
        }
    }

    /// The request has ended.
    pub fn end(&mut self, ticket: &Ticket) {
        for number in &ticket.numbers {
            if let Some(state) = state_of(&self.places, &mut self.states, *number) {
                state.running = state.running.saturating_sub(1);
            }
        }
    }

    /// The request was never made: everything that was taken for it is given back, and it has ended.
    pub fn cancel(&mut self, ticket: &Ticket, now: u64) {
        for (number, taken) in ticket.numbers.iter().zip(&ticket.tokens) {
            let Some(state) = state_of(&self.places, &mut self.states, *number) else { continue };
            state.fill(now);
            if let Some(bucket) = &mut state.requests {
                bucket.give_back(1);
            }
            if let Some(bucket) = &mut state.tokens {
                bucket.give_back(*taken);
            }
        }
        self.end(ticket);
    }

    /// Where a limit stands, by its place.
    pub fn level(&mut self, number: usize, now: u64) -> Option<Level> {
        let state = self.states.get_mut(number)?;
        state.fill(now);
        let units = |bucket: &Option<Bucket>| bucket.as_ref().map(Bucket::units);
        Some(Level { requests: units(&state.requests), tokens: units(&state.tokens), running: state.running })
    }
}

fn state_of<'s>(places: &HashMap<u32, usize>, states: &'s mut [State], id: u32) -> Option<&'s mut State> {
    states.get_mut(*places.get(&id)?)
}

impl State {
    /// This state, as it goes on under a rule.
    fn under(mut self, rule: &Limit, now: u64) -> Self {
        let go_on = |bucket: Option<Bucket>, rate: Option<u64>| {
            rate.map(|rate| bucket.map_or_else(|| Bucket::full(rate, now), |bucket| bucket.at(rate, now)))
        };
        self.requests = go_on(self.requests.take(), rule.requests_per_minute);
        self.tokens = go_on(self.tokens.take(), rule.tokens_per_minute);
        self
    }

    fn fill(&mut self, now: u64) {
        for bucket in [&mut self.requests, &mut self.tokens].into_iter().flatten() {
            bucket.fill(now);
        }
    }
}

impl Bucket {
    /// Gives back what was taken and takes what was used, of which only the sum is capped.
    fn give_back_exactly(&mut self, taken: u64, used: u64) {
        let level = self.level.saturating_add(parts(taken)).saturating_sub(parts(used));
        self.level = level.min(capacity(self.per_minute));
    }
}

/// What of a limit is in the way, if anything is.
fn exceeded(rule: &Limit, state: &State, tokens: u64) -> Option<Exceeded> {
    let refusal = |cap, limit, asked, left, retry_nanos| {
        Some(Exceeded { name: rule.name.clone(), cap, limit, asked, left, retry_nanos })
    };
    if let Some(most) = rule.concurrent_requests
        && state.running >= most
    {
        return refusal(Cap::Concurrent, most, 1, 0, SOON_NANOS);
    }
    let buckets = [(Cap::Requests, &state.requests, 1), (Cap::Tokens, &state.tokens, tokens)];
    for (cap, bucket, asked) in buckets {
        if let Some(bucket) = bucket
            && let Some(wait) = bucket.wait_for(asked)
        {
            return refusal(cap, bucket.per_minute, asked, bucket.units(), wait);
        }
    }
    None
}

#[cfg(test)]
mod tests;
