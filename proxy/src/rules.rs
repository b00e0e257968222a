//! Rules at work: what they said of requests, counted; the refusals, remembered.
//!
//! Invariants
//! - Evaluating takes no lock; only a refusal does, to be remembered for `why`. Without rules nothing is
//!   asked at all.
//! - Metrics are by rule, of which there are few; never by anything that a client chooses.
//! - Other rules go on with the counts and refusals of those before.
//!
//! Not here: expressions (`bursar_policies::rule`), what requests are told and changed to
//! (`exchange::steering`).

use bursar_domain::{Label, RequestId, Timestamp};
use bursar_policies::rule::{Action, Denied, Rule, RuleFacts, Rules, Verdict};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Refusals that are remembered.
const REFUSALS_MAX: usize = 4_096;

/// All rules with what they did.
#[derive(Debug)]
pub struct RuleBook {
    rules: Rules,
    /// Those of one name go on when the rules change.
    counts: Vec<Arc<Counts>>,
    refused: Mutex<VecDeque<RuleRefusal>>,
}

#[derive(Debug, Default)]
struct Counts {
    matched: AtomicU64,
    shadowed: AtomicU64,
    failed: AtomicU64,
    unapplied: AtomicU64,
}

/// A request that a rule refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRefusal {
    /// The request.
    pub id: RequestId,
    /// When it began.
    pub at: Timestamp,
    /// Its team.
    pub team: Option<Label>,
    /// The model it asked for.
    pub model: Option<Label>,
    /// The rule.
    pub rule: Label,
    /// What the rule says, or why it could not be evaluated or carried out.
    pub why: RuleWhy,
}

/// Why a rule refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleWhy {
    /// It holds, and says this.
    Holds(Box<str>),
    /// It could not be evaluated or carried out, and fails closed.
    Failed(Box<str>),
}

impl RuleBook {
    /// These rules.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        let counts = rules.iter().map(|_| Arc::default()).collect();
        Self { rules: Rules::new(rules), counts, refused: Mutex::default() }
    }

    /// Other rules, which go on with what was counted of those of the same name, and with the refusals.
    #[must_use]
    pub fn followed_by(&self, rules: Vec<Rule>) -> Self {
        let before = || self.rules.rules().iter().zip(&self.counts);
        let counts = rules.iter().map(|rule| {
            let found = before().find(|(old, _)| old.name == rule.name);
            found.map(|(_, counts)| Arc::clone(counts)).unwrap_or_default()
        });
        let counts = counts.collect();
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self { rules: Rules::new(rules), counts, refused: Mutex::new(refused) }
    }

    /// The rules.
    #[must_use]
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rule at a place.
    #[must_use]
    pub fn get(&self, rule: usize) -> Option<&Rule> {
        self.rules.get(rule)
    }

    /// What the rules say of a request, counted.
    #[must_use]
    pub fn evaluate(&self, facts: &RuleFacts<'_>) -> Verdict {
        let verdict = self.rules.evaluate(facts);
        let Verdict { denied, changes, warned, shadowed, failed } = &verdict;
        let count = |rule: usize, of: fn(&Counts) -> &AtomicU64| {
            if let Some(counts) = self.counts.get(rule) {
                of(counts).fetch_add(1, Ordering::Relaxed);
            }
        };
        for rule in denied.iter().filter(|denied| denied.fault.is_none()).map(|denied| denied.rule) {
            count(rule, |counts| &counts.matched);
        }
        changes.rules().into_iter().chain(warned.iter().copied()).for_each(|rule| {
            count(rule, |counts| &counts.matched);
        });
        shadowed.iter().for_each(|rule| count(*rule, |counts| &counts.shadowed));
        for (rule, fault) in failed {
            count(*rule, |counts| &counts.failed);
            let name = self.get(*rule).map_or("", |rule| rule.name.as_str());
            tracing::debug!(rule = name, %fault, "a rule could not be evaluated");
        }
        verdict
    }

    /// Counts a change that could not be made.
    pub fn not_applied(&self, rule: usize) {
        if let Some(counts) = self.counts.get(rule) {
            counts.unapplied.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What refuses a request, in words.
    #[must_use]
    pub fn words(&self, denied: &Denied) -> Option<(Label, RuleWhy)> {
        let rule = self.get(denied.rule)?;
        let why = match (&denied.fault, &rule.action) {
            (Some(fault), _) => RuleWhy::Failed(fault.clone()),
            (None, Action::Deny(text)) => RuleWhy::Holds(text.clone()),
            (None, _) => RuleWhy::Holds("".into()),
        };
        Some((rule.name.clone(), why))
    }

    /// Remembers a refusal.
    pub fn remember(&self, refusal: &RuleRefusal) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() >= REFUSALS_MAX {
            refused.pop_front();
        }
        refused.push_back(refusal.clone());
    }

    /// The refusal of this request, if it is remembered.
    #[must_use]
    pub fn why(&self, id: RequestId) -> Option<RuleRefusal> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.iter().rev().find(|refusal| refusal.id == id).cloned()
    }

    /// Lines of the metrics page: what each rule did.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut page = String::new();
        if self.is_empty() {
            return page;
        }
        let families: [Family; 4] = [
            ("rule_matched", "Requests that a rule refused, changed or warned of", |counts| &counts.matched),
            ("rule_shadowed", "Requests for which a shadow rule held", |counts| &counts.shadowed),
            ("rule_failed", "Requests for which a rule could not be evaluated", |counts| &counts.failed),
            ("rule_not_applied", "Requests that could not be changed as a rule says", |counts| {
                &counts.unapplied
            }),
        ];
        for (name, about, of) in families {
            page.push_str(&format!("# HELP bursar_{name} {about}.\n# TYPE bursar_{name} counter\n"));
            for (rule, counts) in self.rules.rules().iter().zip(&self.counts) {
                let label = rule.name.as_str().replace('\\', "\\\\").replace('"', "\\\"");
                let count = of(counts).load(Ordering::Relaxed);
                page.push_str(&format!("bursar_{name}_total{{rule=\"{label}\"}} {count}\n"));
            }
        }
        page
    }
}

/// A metric's name, what it tells, and where it is counted.
type Family = (&'static str, &'static str, fn(&Counts) -> &AtomicU64);

impl fmt::Display for RuleRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.rule.as_str();
        match &self.why {
            RuleWhy::Holds(text) => write!(f, "the rule {rule:?} refuses this request: {text}"),
            RuleWhy::Failed(fault) => {
                write!(f, "the rule {rule:?} has fail: closed and could not be followed: {fault}")
            }
        }
    }
}

impl RuleRefusal {
    /// The refusal as the API tells it.
    #[must_use]
    pub fn json(&self) -> Value {
        let at = jiff::Timestamp::from_microsecond(self.at.micros());
        let reason = match self.why {
            RuleWhy::Holds(_) => "rule_denied",
            RuleWhy::Failed(_) => "rule_failed",
        };
        json!({
            "id": self.id.to_string(),
            "at": at.map_or_else(|_| self.at.micros().to_string(), |at| at.to_string()),
            "outcome": "refused",
            "rule": self.rule.as_str(),
            "reason": reason,
            "team": self.team.as_ref().map(Label::as_str),
            "model": self.model.as_ref().map(Label::as_str),
            "message": self.to_string(),
        })
    }
}
