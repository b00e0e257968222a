//! Rules: expressions over what is known of a request, and what follows when one holds.
//!
//! Expressions are CEL (the `cel` crate parses and evaluates them); what they may use is checked here
//! when they are compiled, so that a rule that is in force can be evaluated.
//!
//! Invariants
//! - Every name, function and type in an expression was checked when it was compiled; an expression is a
//!   truth value.
//! - Evaluation is bounded by the expression alone: at most [`NODES_MAX`] parts, of which those in one
//!   `exists`, `all` or `exists_one` are evaluated once for each tag or element, and none is in another.
//!   There are no regular expressions and nothing that makes a text longer.
//! - Rules see the request as it was asked for, not as another rule changes it. A refusal wins over
//!   everything; of several bounds the lowest wins, of several models or routes the first.
//! - What cannot be evaluated follows the rule's own `fail`, and is told.
//!
//! Not here: where facts come from and what carries changes out (`bursar`), budgets (`budget`).

mod check;
mod facts;
#[cfg(test)]
mod tests;

pub use check::{CompileError, NODES_MAX, SOURCE_BYTES_MAX};
pub use facts::{Estimate, Kind, RuleFacts, VARIABLES, Variable};

use bursar_domain::Label;
use cel::{Context, Env, Program, Value};
use facts::Uses;
use jiff::tz::TimeZone;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A compiled expression.
pub struct Condition {
    text: Box<str>,
    program: Program,
    uses: Uses,
}

impl Condition {
    /// Compiles an expression and checks it.
    pub fn compile(text: &str) -> Result<Self, CompileError> {
        let (program, uses) = check::compile(text)?;
        Ok(Self { text: text.into(), program, uses })
    }

    /// The expression as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The budgets that it names.
    pub fn budgets(&self) -> impl Iterator<Item = &str> {
        self.uses.budgets.iter().map(|name| &**name)
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.text).finish()
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Condition {}

/// What happens when a rule cannot be evaluated, or what it asks for cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fail {
    /// The request passes as if the rule did not hold.
    Open,
    /// The request is refused.
    Closed,
}

/// A budget that is used up to a share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhenUsed {
    /// Which; without one, any that the request is under.
    pub budget: Option<Label>,
    /// From which share of its limit, in percent.
    pub percent: u32,
}

/// What becomes of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steer {
    /// It asks for this model instead.
    pub model: Option<Label>,
    /// It may make at most so many output tokens.
    pub max_output: Option<u64>,
    /// It takes this route instead.
    pub route: Option<Label>,
}

/// What follows when a rule holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The request is refused, with this text.
    Deny(Box<str>),
    /// The client is told this text.
    Warn(Box<str>),
    /// The request is changed.
    Steer(Steer),
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, unique among rules.
    pub name: Label,
    /// What must hold.
    pub condition: Option<Arc<Condition>>,
    /// How far a budget must be used as well.
    pub when_used: Option<WhenUsed>,
    /// Whose clock `time` tells.
    pub zone: TimeZone,
    /// What follows.
    pub action: Action,
    /// Whether it is only counted.
    pub shadow: bool,
    /// What happens when it cannot be evaluated or carried out.
    pub fail: Fail,
}

/// What the rules of a set ask to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// What the request's body says.
    pub body: bool,
    /// The most tokens that it may use.
    pub estimate: bool,
    /// The most that it may cost.
    pub cost: bool,
    /// How far budgets are used.
    pub budgets: bool,
}

/// All rules, in their order.
#[derive(Clone, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    needs: Needs,
    env: Option<Arc<Env>>,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.rules).finish()
    }
}

/// A rule that refuses a request, by its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Which.
    pub rule: usize,
    /// Why it could not be evaluated, where it refuses for that.
    pub fault: Option<Box<str>>,
}

/// What to change of a request, each with the place of the rule that says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The model to ask for.
    pub model: Option<(usize, Label)>,
    /// The most output tokens.
    pub max_output: Option<(usize, u64)>,
    /// The route to take.
    pub route: Option<(usize, Label)>,
}

impl Changes {
    /// Whether there is nothing to change.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.model.is_none() && self.max_output.is_none() && self.route.is_none()
    }

    /// The rules that change something, each once.
    #[must_use]
    pub fn rules(&self) -> Vec<usize> {
        let Self { model, max_output, route } = self;
        let all = [
            model.as_ref().map(|(rule, _)| *rule),
            max_output.map(|(rule, _)| rule),
            route.as_ref().map(|(rule, _)| *rule),
        ];
        let mut rules: Vec<usize> = all.into_iter().flatten().collect();
        rules.sort_unstable();
        rules.dedup();
        rules
    }
}

/// What the rules say of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The first rule that refuses it.
    pub denied: Option<Denied>,
    /// What to change.
    pub changes: Changes,
    /// Rules that warn.
    pub warned: Vec<usize>,
    /// Rules that hold and are only counted.
    pub shadowed: Vec<usize>,
    /// Rules that could not be evaluated, and why.
    pub failed: Vec<(usize, Box<str>)>,
}

/// What a rule is to a request.
enum Holds {
    Yes,
    No,
    Unknown(Box<str>),
}

impl Rules {
    /// These rules.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        let mut needs = Needs::default();
        for rule in &rules {
            needs.budgets |= rule.when_used.is_some();
            if let Action::Steer(steer) = &rule.action {
                needs.body |= steer.model.is_some() || steer.max_output.is_some();
            }
            if let Some(condition) = &rule.condition {
                let Needs { body, estimate, cost, budgets } = condition.uses.needs;
                needs.body |= body;
                needs.estimate |= estimate;
                needs.cost |= cost;
                needs.budgets |= budgets;
            }
        }
        let env = (!rules.is_empty()).then(|| Arc::new(check::environment()));
        Self { rules, needs, env }
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules in their order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rule at a place.
    #[must_use]
    pub fn get(&self, rule: usize) -> Option<&Rule> {
        self.rules.get(rule)
    }

    /// What they ask to be told.
    #[must_use]
    pub const fn needs(&self) -> Needs {
        self.needs
    }

    /// What they say of a request.
    #[must_use]
    pub fn evaluate(&self, facts: &RuleFacts<'_>) -> Verdict {
        let mut verdict = Verdict::default();
        let Some(env) = &self.env else { return verdict };
        for (place, rule) in self.rules.iter().enumerate() {
            match holds(env, rule, facts) {
                Holds::No => {}
                Holds::Yes if rule.shadow => verdict.shadowed.push(place),
                Holds::Yes => follow(&mut verdict, place, &rule.action),
                Holds::Unknown(fault) => {
                    if rule.fail == Fail::Closed && !rule.shadow && verdict.denied.is_none() {
                        verdict.denied = Some(Denied { rule: place, fault: Some(fault.clone()) });
                    }
                    verdict.failed.push((place, fault));
                }
            }
        }
        verdict
    }
}

fn follow(verdict: &mut Verdict, place: usize, action: &Action) {
    match action {
        Action::Deny(_) => {
            verdict.denied.get_or_insert(Denied { rule: place, fault: None });
        }
        Action::Warn(_) => verdict.warned.push(place),
        Action::Steer(Steer { model, max_output, route }) => {
            let changes = &mut verdict.changes;
            // A model and a route of one rule belong together.
            if changes.model.is_none() && changes.route.is_none() {
                changes.model = model.clone().map(|model| (place, model));
                changes.route = route.clone().map(|route| (place, route));
            }
            if let Some(bound) = max_output
                && changes.max_output.is_none_or(|(_, lowest)| *bound < lowest)
            {
                changes.max_output = Some((place, *bound));
            }
        }
    }
}

fn holds(env: &Arc<Env>, rule: &Rule, facts: &RuleFacts<'_>) -> Holds {
    if let Some(WhenUsed { budget, percent }) = &rule.when_used {
        let used = match budget {
            Some(name) => (facts.used_of)(name.as_str()),
            None => facts.used_percent,
        };
        match used {
            Some(used) if used >= i64::from(*percent) => {}
            Some(_) => return Holds::No,
            None if budget.is_none() => return Holds::No,
            None => return Holds::Unknown("nobody knows how far the budget is used".into()),
        }
    }
    let Some(condition) = &rule.condition else { return Holds::Yes };
    if condition.uses.needs.body && !facts.body_is_known {
        return Holds::Unknown("the body is longer than is held, or cannot be read".into());
    }
    let evaluate = || {
        let mut context = Context::with_env(Arc::clone(env));
        facts::bind(&mut context, &condition.uses, facts, &rule.zone);
        condition.program.execute(&context)
    };
    // A defect of the interpreter must cost a rule, not the client's connection.
    match catch_unwind(AssertUnwindSafe(evaluate)) {
        Ok(Ok(Value::Bool(true))) => Holds::Yes,
        Ok(Ok(Value::Bool(false))) => Holds::No,
        Ok(Ok(_)) => Holds::Unknown("it is no truth value".into()),
        Ok(Err(error)) => Holds::Unknown(error.to_string().into()),
        Err(_) => Holds::Unknown("the interpreter failed".into()),
    }
}
