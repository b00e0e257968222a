//! Budgets: who may spend how much in which time, and what was spent of it.
//!
//! A [`Book`] is the set of rules and never changes. [`Accounts`] is what was spent and what is held, kept
//! in memory by one owner; it is made from the ledger's records at a start, and told of each new one.
//!
//! Invariants
//! - What a hard budget settled and holds is never above its limit after an admission; a request is held
//!   by all of its budgets or by none.
//! - A hold is released once: by its record, by whoever gave the request up, or when it expires.
//! - Spending belongs to the window in which the request began, whenever it is settled. A clock that goes
//!   back finds the windows that it left.
//! - Nothing here reads a clock: the wall clock chooses windows, a steady one lets holds expire.
//!
//! What a budget counts: the billed cost of records that count, or their tokens (input and output). A
//! record without a price or without counts adds nothing; it is told apart in reports. What a request
//! uses beyond its hold is booked all the same. What a crash interrupted counts as what was held for it.
//!
//! Which models a budget means is one rule wherever it is asked, before a request, with its record, and
//! when the books are made from the ledger: the model that was asked for or the one that answered
//! matches, or nobody knows either of a call that is metered.
//!
//! Not here: how much a request may use (`bursar`), where records come from (`bursar-ledger`).

mod accounts;
#[cfg(test)]
mod clock_tests;
pub mod contract;
#[cfg(test)]
mod model_tests;
pub mod overrides;
pub mod window;

pub use accounts::{Accounts, Admission, Asked, Denial, Moment, Standing, Unknown, Warning, Why};
pub use overrides::{Change, Override};

use bursar_domain::{Currency, Identity, Label};
use std::collections::HashMap;
use window::Window;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Measure {
    /// The billed cost, in pico-units of this currency.
    Money(Currency),
    /// Input and output tokens.
    Tokens,
    /// Tokens weighted by quality, which a contract sells.
    StandardTokens,
}

/// What happens to a request that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It is refused.
    Hard,
    /// It passes and the client is warned.
    Soft,
    /// It passes; only metrics tell.
    Shadow,
}

/// What happens to a request of which nobody knows what it may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unbounded {
    /// A hard budget refuses it.
    Refuse,
    /// It passes without a hold.
    Allow,
}

/// A model's name, or its beginning where it ends in `*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelPattern(Label);

impl ModelPattern {
    /// The pattern of this text.
    #[must_use]
    pub const fn new(text: Label) -> Self {
        Self(text)
    }

    /// Whether `model` is meant.
    #[must_use]
    pub fn matches(&self, model: &str) -> bool {
        match self.0.as_str().strip_suffix('*') {
            Some(start) => model.starts_with(start),
            None => self.0.as_str() == model,
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// Whose spending a budget limits. Everything that is named must hold; nothing named means everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The team.
    pub team: Option<Label>,
    /// The workload.
    pub workload: Option<Label>,
    /// The customer.
    pub customer: Option<Label>,
    /// The provider.
    pub provider: Option<Label>,
    /// The model that was asked for, or the one that answered.
    pub model: Option<ModelPattern>,
    /// Tags and their values.
    pub tags: Vec<(Label, Label)>,
}

impl Scope {
    /// Whether a request with these facts is in it.
    #[must_use]
    pub fn matches(&self, facts: &Facts<'_>) -> bool {
        let Self { team, workload, customer, provider, model, tags } = self;
        let is = |wanted: &Option<Label>, found: Option<&str>| {
            wanted.as_ref().is_none_or(|wanted| found == Some(wanted.as_str()))
        };
        is(team, facts.team)
            && is(workload, facts.workload)
            && is(customer, facts.customer)
            && is(provider, Some(facts.provider))
            && model.as_ref().is_none_or(|pattern| {
                let models = [facts.model, facts.model_served];
                facts.may_be_any_model || models.into_iter().flatten().any(|model| pattern.matches(model))
            })
            && tags.iter().all(|(name, value)| (facts.has_tag)(name.as_str(), value.as_str()))
    }
}

/// What a budget asks of a request or a record.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The team.
    pub team: Option<&'a str>,
    /// The workload.
    pub workload: Option<&'a str>,
    /// The customer.
    pub customer: Option<&'a str>,
    /// The provider.
    pub provider: &'a str,
    /// The model that was asked for.
    pub model: Option<&'a str>,
    /// The model that answered.
    pub model_served: Option<&'a str>,
    /// Whether the model may be any, since nobody knows it (for certain): then every one is meant.
    pub may_be_any_model: bool,
    /// Whether the tag of this name has this value.
    pub has_tag: &'a (dyn Fn(&str, &str) -> bool + 'a),
}

impl std::fmt::Debug for Facts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Facts").field("team", &self.team).field("model", &self.model).finish_non_exhaustive()
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Its name, unique in the book.
    pub name: Label,
    /// Whose spending.
    pub scope: Scope,
    /// In which time.
    pub window: Window,
    /// Of what.
    pub measure: Measure,
    /// How much: pico-units or tokens; not below zero.
    pub limit: i128,
    /// What happens above it.
    pub mode: Mode,
    /// What happens to what cannot be bounded.
    pub unbounded: Unbounded,
    /// Shares of the limit, in percent, from which the client is warned; rising.
    pub thresholds: Vec<u8>,
}

/// All budgets, findable by what they limit.
#[derive(Clone, Debug, Default)]
pub struct Book {
    budgets: Vec<Budget>,
    /// Budgets by the narrowest thing that they name; each is in one list.
    by_customer: HashMap<Label, Vec<u32>>,
    by_workload: HashMap<Label, Vec<u32>>,
    by_team: HashMap<Label, Vec<u32>>,
    /// The others.
    rest: Vec<u32>,
}

impl Book {
    /// A book of these budgets.
    #[must_use]
    pub fn new(budgets: Vec<Budget>) -> Self {
        let mut book = Self::default();
        for (number, budget) in (0_u32..).zip(&budgets) {
            let scope = &budget.scope;
            let list = match (&scope.customer, &scope.workload, &scope.team) {
                (Some(customer), _, _) => book.by_customer.entry(customer.clone()).or_default(),
                (None, Some(workload), _) => book.by_workload.entry(workload.clone()).or_default(),
                (None, None, Some(team)) => book.by_team.entry(team.clone()).or_default(),
                (None, None, None) => &mut book.rest,
            };
            list.push(number);
        }
        book.budgets = budgets;
        book
    }

    /// Whether there is no budget.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.budgets.is_empty()
    }

    /// All budgets in their order.
    #[must_use]
    pub fn budgets(&self) -> &[Budget] {
        &self.budgets
    }

    /// The budget with this number.
    #[must_use]
    pub fn get(&self, number: u32) -> Option<&Budget> {
        self.budgets.get(usize::try_from(number).ok()?)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Budget> {
        self.budgets.get_mut(usize::try_from(number).ok()?)
    }

    /// The numbers of the budgets that a request or record is under.
    pub fn matching(&self, facts: &Facts<'_>, out: &mut Vec<u32>) {
        out.clear();
        let lists = [
            facts.customer.and_then(|name| self.by_customer.get(name)),
            facts.workload.and_then(|name| self.by_workload.get(name)),
            facts.team.and_then(|name| self.by_team.get(name)),
            Some(&self.rest),
        ];
        for number in lists.into_iter().flatten().flatten() {
            if self.get(*number).is_some_and(|budget| budget.scope.matches(facts)) {
                out.push(*number);
            }
        }
    }

    /// Whether a hard budget is among these.
    #[must_use]
    pub fn any_hard(&self, numbers: &[u32]) -> bool {
        numbers.iter().any(|number| self.get(*number).is_some_and(|budget| budget.mode == Mode::Hard))
    }

    /// Whether any of these budgets is about money.
    #[must_use]
    pub fn any_in_money(&self, numbers: &[u32]) -> bool {
        let in_money = |budget: &Budget| matches!(budget.measure, Measure::Money(_));
        numbers.iter().any(|number| self.get(*number).is_some_and(in_money))
    }
}

/// Whether the tag of this name has this value in an identity.
pub fn tag_of(identity: &Identity) -> impl Fn(&str, &str) -> bool {
    move |name, value| identity.tags.get(name).is_some_and(|found| found.as_str() == value)
}
