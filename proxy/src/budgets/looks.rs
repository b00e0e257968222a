//! Where all budgets stand, and which began to refuse, for whoever tells others of it.
//!
//! Invariants
//! - Looking takes the lock of the accounts for one budget at a time.
//! - While nobody looks, refusals are not kept for it. One per budget and reason is kept until somebody does.
//!
//! Not here: what is told, and to whom (`crate::webhooks`).

use super::{Budgets, Refusal, mode_name, previous, scope_json, standing_json, used_percent_of};
use bursar_domain::{Label, Timestamp};
use bursar_policies::budget::window::Window;
use bursar_policies::budget::{Budget, Standing};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Most refusals that wait to be told.
const UNTOLD_MAX: usize = 10_000;

/// How a budget's window goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turns {
    /// It ends and another begins.
    At {
        /// When it began, in microseconds since the epoch.
        start: i64,
    },
    /// It moves along with the time.
    Rolling {
        /// How long it is.
        micros: i64,
    },
}

/// Where a budget stands.
#[derive(Debug)]
pub(crate) struct Look<'b> {
    /// The budget, on a contract with the terms that this gives it.
    pub(crate) budget: &'b Budget,
    /// The contract that it is on.
    pub(crate) contract: Option<&'b Label>,
    /// Its figures.
    pub(crate) standing: Standing,
    /// Its window.
    pub(crate) turns: Turns,
    /// The window's name.
    window: String,
    /// The budget's place in the configuration, if it is on no contract.
    number: Option<u32>,
}

/// The first refusal by each budget for each reason since the last look.
#[derive(Debug, Default)]
pub(super) struct Untold(HashMap<(Label, &'static str), Refusal>);

impl Untold {
    pub(super) fn note(&mut self, refusal: &Refusal) {
        let name = &refusal.denial.standing.name;
        if self.0.len() < UNTOLD_MAX {
            self.0.entry((name.clone(), refusal.reason())).or_insert_with(|| refusal.clone());
        }
    }
}

impl Look<'_> {
    /// The same of another window, which began at `start`.
    pub(crate) fn with(&self, standing: Standing, start: i64) -> Self {
        Self { standing, turns: Turns::At { start }, window: self.window.clone(), ..*self }
    }

    /// Whether this share of the limit is spent, whatever is held. Of nothing, anything is more than all.
    pub(crate) fn has_reached(&self, percent: u8) -> bool {
        let wanted = self.standing.limit.max(1).saturating_mul(i128::from(percent));
        self.standing.settled.saturating_mul(100) >= wanted
    }

    /// The figures as others are told them.
    pub(crate) fn json(&self, now: Timestamp) -> Value {
        let mut told = standing_json(&self.standing);
        if let Some(object) = told.as_object_mut() {
            object.insert("window".to_owned(), json!(self.window));
            object.insert("mode".to_owned(), json!(mode_name(self.budget.mode)));
            object.insert("scope".to_owned(), scope_json(&self.budget.scope));
            if let Some(contract) = self.contract {
                object.insert("contract".to_owned(), json!(contract.as_str()));
            }
            object.insert("used_percent".to_owned(), json!(used_percent_of(&self.standing)));
            let run_out = self.standing.runs_out_at(now).map(|at| super::instant(at.micros()));
            object.insert("run_out_at".to_owned(), json!(run_out));
        }
        told
    }
}

impl Budgets {
    /// Calls `see` with every budget as it stands at `now`.
    pub(crate) fn look(&self, now: Timestamp, see: &mut dyn FnMut(&Look<'_>)) {
        let book = self.book();
        for (number, budget) in (0_u32..).zip(book.budgets()) {
            // Another budget may have this number by now.
            let standing = self.standing(number, now).filter(|standing| standing.name == budget.name);
            let Some(standing) = standing else { continue };
            let turns = match budget.window {
                Window::Rolling { micros } => Turns::Rolling { micros },
                Window::Calendar { .. } | Window::Fixed(_) => Turns::At { start: standing.span.start },
            };
            let (window, number) = (budget.window.to_string(), Some(number));
            see(&Look { budget, contract: None, standing, turns, window, number });
        }
        for (budget, contract, standing, interval) in self.contracts.looks(now) {
            let turns = Turns::At { start: standing.span.start };
            let window = interval.name().to_owned();
            see(&Look { budget: &budget, contract: Some(&contract), standing, turns, window, number: None });
        }
    }

    /// When the window before that of `now` began, and where a budget stood at its end: where it has
    /// windows of the calendar, and what was spent in that one is known.
    pub(crate) fn look_back(&self, look: &Look<'_>, now: Timestamp) -> Option<(i64, Standing)> {
        let window = &look.budget.window;
        let (number, before) = (look.number?, previous(window, now));
        if !matches!(window, Window::Calendar { .. }) {
            return None;
        }
        let at = Timestamp::from_micros(before.end.saturating_sub(1));
        if !self.lock().accounts.is_known(&self.book(), number, at) {
            return None;
        }
        let standing = self.standing(number, at).filter(|standing| standing.name == look.budget.name)?;
        Some((before.start, standing))
    }

    /// From now on refusals are kept for [`Budgets::take_untold`], or no more.
    pub(crate) fn keep_untold(&self, are_kept: bool) {
        let mut state = self.lock();
        if state.untold.is_some() != are_kept {
            state.untold = are_kept.then(Untold::default);
        }
    }

    /// The first refusal by each budget, and for each reason, since this was asked the last time.
    pub(crate) fn take_untold(&self) -> Vec<Refusal> {
        let taken = self.lock().untold.as_mut().map(std::mem::take);
        let mut refusals: Vec<Refusal> = taken.unwrap_or_default().0.into_values().collect();
        refusals.sort_by_key(|refusal| refusal.at);
        refusals
    }
}
