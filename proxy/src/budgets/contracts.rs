//! Budgets on contracts at work: what a balance or commitment has left, kept beside the ledger.
//!
//! Invariants
//! - What was taken is what the report on hedges says of the position at the last look at the ledger, and
//!   since then everything that the position may have paid for, as if it paid for all of it: never less
//!   than what it paid for.
//! - A look marks before it reads, and reads after the ledger's writer has settled what came before the
//!   mark: no record is left out; one that comes while it reads may be counted twice until the next look.
//! - A look that fails leaves what was known. Other rules take effect when their contracts are known.
//! - What a crash interrupted counts as what was held for it; what the ledger lost is kept until a restart.
//!
//! Not here: the rules (`bursar_policies::budget::contract`), the waterfall (`ledger::hedge`).

use super::{Request, instant, mode_name, scope_json, standing_json};
use crate::hedge::AskError;
use crate::hedge::report::Options;
use bursar_domain::{Label, Outcome, RequestId, Timestamp, UsageRecord};
use bursar_ledger::hedge::{HedgeAsk, HedgeSource, State as Facts, UsageGap, report_of, state as state_of};
use bursar_ledger::{InterruptedRequest, Ledger, RecordRange, UsageQuery};
use bursar_policies::budget::contract::{Absent, ContractBudget, Drawable, Stretch, Without, day_of};
use bursar_policies::budget::window::{Span, Window};
use bursar_policies::budget::{
    Accounts, Admission, Asked, Book, Budget, Denial, Facts as RequestFacts, Measure, Mode, Moment, Standing,
    Unknown, Warning, Why, tag_of,
};
use bursar_policies::exact::Ratio;
use bursar_policies::hedge::intake::Intake;
use bursar_policies::hedge::position::{Group, Interval};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Windows of which the ledger's losses are remembered.
const LOST_MAX: usize = 1_024;

/// All budgets on contracts with what was taken.
#[derive(Debug)]
pub(super) struct Contracts {
    /// Whether there is any, so that who has none takes no lock.
    are_there: AtomicBool,
    state: Mutex<State>,
    /// What the last look read; held while somebody looks.
    looking: Mutex<Option<Read>>,
}

/// Facts as they were read, by how many there were: facts are only added.
#[derive(Debug)]
struct Read {
    facts: usize,
    state: Facts,
    intake: Arc<Intake>,
}

#[derive(Debug)]
struct State {
    rules: Vec<ContractBudget>,
    /// Counts how often other rules were put in the place of these: numbers are of one generation.
    generation: u64,
    book: Book,
    accounts: Accounts,
    known: Vec<Known>,
    /// What the ledger lost, by budget and beginning of its window.
    lost: BTreeMap<(u32, i64), i128>,
    is_loaded: bool,
    /// Something was booked since the last look.
    is_dirty: bool,
}

/// What is known of a contract.
#[derive(Clone, Debug)]
enum Known {
    Drawable(Arc<Drawable>),
    /// It has nothing, and whatever else is to be said of that.
    Absent(Absent, Option<String>),
}

impl Known {
    fn stretch(&self, at: Timestamp) -> Result<(&Drawable, Stretch), Absent> {
        match self {
            Self::Drawable(drawable) => Ok((drawable, drawable.stretch(at)?)),
            Self::Absent(absent, _) => Err(*absent),
        }
    }

    fn covers(&self, facts: &RequestFacts<'_>, region: Option<&Label>) -> bool {
        match self {
            Self::Drawable(drawable) => drawable.covers(facts, region),
            // Nobody knows what it is for.
            Self::Absent(..) => true,
        }
    }
}

/// The budget of a rule before its contract is known.
fn unknown(rule: &ContractBudget) -> Budget {
    Budget {
        name: rule.name.clone(),
        scope: rule.scope.clone(),
        window: Window::Fixed(Span { start: i64::MIN, end: i64::MAX }),
        measure: Measure::Tokens,
        limit: 0,
        mode: rule.mode,
        unbounded: rule.unbounded,
        thresholds: rule.thresholds.clone(),
    }
}

/// The numbers of the budgets that a request or record is under, in one generation.
#[derive(Debug, Default)]
pub(super) struct Under {
    generation: u64,
    numbers: Vec<u32>,
}

impl Under {
    pub(super) const fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
}

/// A refusal, and the contract that it is about.
pub(super) type Refused = (Box<Denial>, Label);

/// Other rules, and what their contracts have.
#[derive(Debug)]
pub(super) struct Prepared {
    rules: Vec<ContractBudget>,
    found: Vec<Found>,
}

/// What a look found of one contract.
#[derive(Debug)]
struct Found {
    known: Known,
    /// The stretch of now, what was taken in it, and what of that is a bound.
    taken: Option<(Stretch, Measure, i128, i128)>,
}

impl Contracts {
    /// These budgets, of whose contracts nothing is known yet.
    pub(super) fn new(rules: Vec<ContractBudget>) -> Self {
        let are_there = AtomicBool::new(!rules.is_empty());
        let book = Book::new(rules.iter().map(unknown).collect());
        let state = State {
            accounts: Accounts::new(&book),
            book,
            known: vec![Known::Absent(Absent::Unknown, None); rules.len()],
            rules,
            generation: 0,
            lost: BTreeMap::new(),
            is_loaded: false,
            is_dirty: false,
        };
        Self { are_there, state: Mutex::new(state), looking: Mutex::new(None) }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.are_there.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The budgets that a request is under.
    pub(super) fn matching(&self, facts: &RequestFacts<'_>) -> Under {
        if self.is_empty() { Under::default() } else { self.lock().matching(facts, None) }
    }

    /// Whether any of these may refuse.
    pub(super) fn any_hard(&self, under: &Under) -> bool {
        if under.is_empty() {
            return false;
        }
        let state = self.lock();
        under.numbers.iter().filter_map(|number| state.rule(*number)).any(|rule| rule.mode == Mode::Hard)
    }

    /// Whether any of these is a balance of money.
    pub(super) fn any_in_money(&self, under: &Under) -> bool {
        if under.is_empty() {
            return false;
        }
        let state = self.lock();
        let in_money = |known: &Known| matches!(known, Known::Drawable(drawable) if matches!(drawable.measure(), Measure::Money(_)));
        under.numbers.iter().any(|number| state.known(*number).is_some_and(in_money))
    }

    /// Decides about a request under these budgets, and holds what it may take where it passes.
    pub(super) fn admit(
        &self,
        under: Under,
        facts: &RequestFacts<'_>,
        (request, asked): (&Request<'_>, &Asked),
        now: Moment,
    ) -> Result<Vec<Warning>, Refused> {
        let mut warnings = Vec::new();
        if under.is_empty() {
            return Ok(warnings);
        }
        let mut state = self.lock();
        let is_of_now = under.generation == state.generation;
        let Under { numbers, .. } = if is_of_now { under } else { state.matching(facts, None) };
        let mut there = Vec::with_capacity(numbers.len());
        for number in &numbers {
            let settled = state.settle_terms(*number, request.at);
            let Some(rule) = state.rule(*number) else { continue };
            match settled {
                Ok(()) => there.push(*number),
                Err(_) if rule.without == Without::Allow => {}
                Err(absent) => {
                    let standing = nothing_left(rule, request.at);
                    if rule.mode == Mode::Hard {
                        let why = Why::NoContract(absent);
                        let denial = Denial { standing, why, retry_micros: None };
                        return Err((Box::new(denial), rule.contract.clone()));
                    }
                    warnings.push(Warning { standing, mode: rule.mode, percent: 100 });
                }
            }
        }
        let State { book, accounts, known, rules, .. } = &mut *state;
        let amount = |number: u32, _: &Budget| {
            let Some(Known::Drawable(drawable)) = usize::try_from(number).ok().and_then(|at| known.get(at))
            else {
                return Err(Unknown::Units);
            };
            let is_told =
                if drawable.measure() == Measure::Tokens || drawable.measure() == Measure::StandardTokens {
                    asked.tokens.is_some()
                } else {
                    asked.cost.is_some()
                };
            let unknown = if is_told { Unknown::Units } else { asked.unknown };
            drawable.asked(asked, request.model, request.at).ok_or(unknown)
        };
        match accounts.admit_amounts(book, &there, request.id, amount, (request.at, now)) {
            Admission::Pass { warnings: more } => {
                warnings.extend(more);
                Ok(warnings)
            }
            Admission::Deny(denial) => {
                let name = &denial.standing.name;
                let contract = rules.iter().find(|rule| rule.name == *name);
                let contract = contract.map_or_else(|| name.clone(), |rule| rule.contract.clone());
                Err((denial, contract))
            }
        }
    }

    /// States who is alive as long as the request of a hold is under way.
    pub(super) fn keep(&self, id: RequestId, alive: Weak<Asked>) {
        self.unless_empty(|state| state.accounts.keep(id, alive));
    }

    /// The hold of a request begins to last anew.
    pub(super) fn renew(&self, id: RequestId, steady: u64) {
        self.unless_empty(|state| state.accounts.renew(id, steady));
    }

    /// Gives up what is held for a request.
    pub(super) fn release(&self, id: RequestId) {
        self.unless_empty(|state| state.accounts.release(id));
    }

    fn unless_empty(&self, act: impl FnOnce(&mut State)) {
        if !self.is_empty() {
            act(&mut self.lock());
        }
    }

    /// The hold `from` becomes that of `record`, and no more than it used; `None` where it does not count.
    pub(super) fn hold_for(&self, from: RequestId, record: &UsageRecord, counts: bool, steady: u64) {
        self.unless_empty(|state| {
            let State { book, accounts, known, .. } = state;
            accounts.rename(from, record.id);
            accounts.renew(record.id, steady);
            accounts.resize_amounts(book, record.id, |number, _| {
                if !counts {
                    return Some(0);
                }
                match usize::try_from(number).ok().and_then(|at| known.get(at))? {
                    Known::Drawable(drawable) => drawable.used(record),
                    Known::Absent(..) => None,
                }
            });
        });
    }

    /// Books a record and releases what was held for it. What is `lost` is in no ledger.
    pub(super) fn settle(
        &self,
        facts: &RequestFacts<'_>,
        record: &UsageRecord,
        counted: bool,
        is_lost: bool,
    ) {
        if self.is_empty() {
            return;
        }
        let mut state = self.lock();
        let Under { numbers, .. } = state.matching(facts, record.region.as_ref());
        state.accounts.release(record.id);
        if !counted || !(state.is_loaded || is_lost) {
            return;
        }
        for number in numbers {
            let at = record.started_at;
            let Some(Known::Drawable(drawable)) = state.known(number) else { continue };
            let (used, stretch) = (drawable.used(record).unwrap_or(0), drawable.stretch(at));
            let (Ok(stretch), true) = (stretch, used != 0) else { continue };
            let State { book, accounts, lost, is_dirty, .. } = &mut *state;
            accounts.charge_amount(book, number, used, at);
            *is_dirty = true;
            if is_lost {
                let sum = lost.entry((number, stretch.span.start)).or_insert(0);
                *sum = sum.saturating_add(used);
                while lost.len() > LOST_MAX {
                    lost.pop_first();
                }
            }
        }
    }

    /// Whether a look at the ledger would tell more than is known.
    pub(super) fn wants_a_look(&self) -> bool {
        !self.is_empty() && self.lock().is_dirty
    }

    /// Looks at the ledger: which contracts there are, and what was taken of them. Blocks. Returns what is
    /// to be said of contracts that have nothing.
    pub(super) fn look(
        &self,
        ledger: &Ledger,
        source: &dyn HedgeSource,
        now: Timestamp,
    ) -> Result<Vec<String>, AskError> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let mut read = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut state = self.lock();
            state.accounts.mark();
            state.is_dirty = false;
        }
        let failed = |error: AskError| {
            self.lock().is_dirty = true;
            error
        };
        if let Err(error) = ledger.checkpoint() {
            return Err(failed(AskError::Ledger(error.to_string())));
        }
        let rules = self.lock().rules.clone();
        let found = find_all(&rules, &mut read, ledger, source, now).map_err(failed)?;
        Ok(self.lock().take_over(found, now))
    }

    /// Looks up what the contracts of other rules have; `None` where the rules are these. Blocks.
    pub(super) fn prepare(
        &self,
        rules: Vec<ContractBudget>,
        ledger: &Ledger,
        source: &dyn HedgeSource,
        now: Timestamp,
    ) -> Result<Option<Prepared>, AskError> {
        if self.lock().rules == rules {
            return Ok(None);
        }
        let mut read = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.checkpoint().map_err(|error| AskError::Ledger(error.to_string()))?;
        let found = find_all(&rules, &mut read, ledger, source, now)?;
        Ok(Some(Prepared { rules, found }))
    }

    /// Puts other rules in the place of these. What was taken and held under a rule of the same name,
    /// contract and scope stays. A look is to follow: it finds what was booked since they were prepared.
    pub(super) fn replace(&self, prepared: Prepared, now: Timestamp) {
        let mut state = self.lock();
        state.put(prepared.rules);
        self.are_there.store(!state.rules.is_empty(), Ordering::Release);
        drop(state.take_over(prepared.found, now));
        state.is_dirty = true;
    }

    /// Every budget as the API tells it.
    pub(super) fn json(&self, now: Timestamp, steady: u64) -> Vec<Value> {
        self.lock().json(now, steady)
    }

    /// Every budget whose contract has something, with its terms, its contract and where it stands.
    pub(super) fn looks(&self, now: Timestamp) -> Vec<(Budget, Label, Standing, Interval)> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut state = self.lock();
        let contracts: Vec<Label> = state.rules.iter().map(|rule| rule.contract.clone()).collect();
        let told = (0_u32..).zip(contracts).filter_map(|(number, contract)| {
            let (standing, interval) = state.standing(number, now).ok()?;
            Some((state.book.get(number)?.clone(), contract, standing, interval))
        });
        told.collect()
    }

    /// How much of each budget is used, in percent, with its name and mode.
    pub(super) fn percents(&self, now: Timestamp, steady: u64) -> Vec<(Label, Mode, i64)> {
        let mut state = self.lock();
        state.accounts.expire(steady);
        let rules: Vec<_> = state.rules.iter().map(|rule| (rule.name.clone(), rule.mode)).collect();
        let told = (0_u32..).zip(rules).filter_map(|(number, (name, mode))| {
            let (standing, _) = state.standing(number, now).ok()?;
            Some((name, mode, percent(&standing)?))
        });
        told.collect()
    }

    /// The contract of the budget of this name.
    pub(super) fn contract_of(&self, name: &Label) -> Option<Label> {
        let state = self.lock();
        state.rules.iter().find(|rule| rule.name == *name).map(|rule| rule.contract.clone())
    }

    /// How much of the budget of this name is used, in percent: all, where its contract has nothing.
    pub(super) fn used_of(&self, name: &str, now: Timestamp) -> Option<i64> {
        let mut state = self.lock();
        let number = state.rules.iter().position(|rule| rule.name.as_str() == name)?;
        match state.standing(u32::try_from(number).ok()?, now) {
            Ok((standing, _)) => percent(&standing),
            Err(_) => Some(100),
        }
    }

    /// How much of the fullest budget of a request is used, in percent. One that lets pass what its contract
    /// has nothing for is none then.
    pub(super) fn used_percent(&self, facts: &RequestFacts<'_>, now: Timestamp) -> Option<i64> {
        if self.is_empty() {
            return None;
        }
        let mut state = self.lock();
        let Under { numbers, .. } = state.matching(facts, None);
        let used = |number| match state.standing(number, now) {
            Ok((standing, _)) => percent(&standing),
            Err(_) => state.rule(number).filter(|rule| rule.without == Without::Refuse).map(|_| 100),
        };
        numbers.into_iter().filter_map(used).max()
    }

    /// Where the budget of this name stands.
    pub(super) fn standing(&self, name: &str, now: Timestamp) -> Option<Standing> {
        let mut state = self.lock();
        let number = state.rules.iter().position(|rule| rule.name.as_str() == name)?;
        let found = state.standing(u32::try_from(number).ok()?, now);
        found.ok().map(|(standing, _)| standing)
    }
}

/// What the ledger says of the contracts of these budgets.
fn find_all(
    rules: &[ContractBudget],
    read: &mut Option<Read>,
    ledger: &Ledger,
    source: &dyn HedgeSource,
    now: Timestamp,
) -> Result<Vec<Found>, AskError> {
    let facts = source.finance_facts()?;
    let kept = read.take().filter(|read| read.facts == facts.len());
    let read = read.insert(kept.unwrap_or_else(|| {
        let state = state_of(&facts);
        let intake = Arc::new(state.intake.clone());
        Read { facts: facts.len(), state, intake }
    }));
    rules.iter().map(|rule| find(rule, read, ledger, source, now)).collect()
}

impl State {
    fn matching(&self, facts: &RequestFacts<'_>, region: Option<&Label>) -> Under {
        let found = (0_u32..).zip(self.rules.iter().zip(&self.known));
        let under =
            found.filter(|(_, (rule, known))| rule.scope.matches(facts) && known.covers(facts, region));
        Under { generation: self.generation, numbers: under.map(|(number, _)| number).collect() }
    }

    fn rule(&self, number: u32) -> Option<&ContractBudget> {
        self.rules.get(usize::try_from(number).ok()?)
    }

    /// Puts other rules in the place of these; nothing is known of their contracts yet.
    fn put(&mut self, rules: Vec<ContractBudget>) {
        let mut budgets: Vec<Budget> = rules.iter().map(unknown).collect();
        let mut lost = BTreeMap::new();
        for ((number, rule), budget) in (0_u32..).zip(&rules).zip(&mut budgets) {
            let same = |old: &&ContractBudget| {
                old.name == rule.name && old.contract == rule.contract && old.scope == rule.scope
            };
            let found = (0_u32..).zip(&self.rules).find(|(_, old)| same(old));
            let Some((from, old)) = found.and_then(|(from, _)| Some((from, self.book.get(from)?))) else {
                continue;
            };
            (budget.measure, budget.limit) = (old.measure, old.limit);
            budget.window = old.window.clone();
            let kept = self.lost.iter().filter(|((of, _), _)| *of == from);
            lost.extend(kept.map(|((_, start), sum)| ((number, *start), *sum)));
        }
        let book = Book::new(budgets);
        let accounts = std::mem::take(&mut self.accounts);
        let (accounts, _) = Accounts::carry_over(&book, &self.book, accounts);
        self.known = vec![Known::Absent(Absent::Unknown, None); rules.len()];
        (self.rules, self.book, self.accounts, self.lost) = (rules, book, accounts, lost);
        self.generation = self.generation.saturating_add(1);
    }

    /// Takes over what a look found; what is to be said of contracts that have nothing.
    fn take_over(&mut self, looked: Vec<Found>, now: Timestamp) -> Vec<String> {
        let mut said = Vec::new();
        let Self { rules, book, accounts, known, lost, is_dirty, is_loaded, generation: _ } = self;
        for ((number, rule), found) in (0_u32..).zip(rules.iter()).zip(looked) {
            if let Some((stretch, measure, taken, estimated)) = found.taken {
                let Stretch { span, limit } = stretch;
                accounts.revise(book, number, (measure, Window::Fixed(span), limit));
                let taken = taken.saturating_add(lost.get(&(number, span.start)).copied().unwrap_or(0));
                *is_dirty |= accounts.rebase(number, span.start, (taken, estimated));
            }
            if let Err(absent) = found.known.stretch(now) {
                let (name, contract) = (rule.name.as_str(), rule.contract.as_str());
                let more = match &found.known {
                    Known::Absent(_, Some(reason)) => format!(" ({reason})"),
                    _ => String::new(),
                };
                let what = if rule.without == Without::Allow {
                    "until then the budget does not apply"
                } else {
                    "until then nothing is left"
                };
                said.push(format!("budget {name:?}: the contract {contract:?} {absent}{more}; {what}"));
            }
            if let Some(place) = usize::try_from(number).ok().and_then(|at| known.get_mut(at)) {
                *place = found.known;
            }
        }
        *is_loaded = true;
        said
    }

    /// Every budget as the API tells it.
    fn json(&mut self, now: Timestamp, steady: u64) -> Vec<Value> {
        self.accounts.expire(steady);
        let rules = self.rules.clone();
        let mut all = Vec::new();
        for (number, rule) in (0_u32..).zip(&rules) {
            let standing = self.standing(number, now);
            let mut told = match &standing {
                Ok((standing, _)) => standing_json(standing),
                Err(_) => json!({ "budget": rule.name.as_str() }),
            };
            let Some(object) = told.as_object_mut() else { continue };
            object.insert("contract".to_owned(), json!(rule.contract.as_str()));
            object.insert("scope".to_owned(), scope_json(&rule.scope));
            object.insert("mode".to_owned(), json!(mode_name(rule.mode)));
            match &standing {
                Ok((standing, interval)) => {
                    object.insert("contract_state".to_owned(), json!("running"));
                    object.insert("window".to_owned(), json!(interval.name()));
                    object.insert("used_percent".to_owned(), json!(percent(standing)));
                    let run_out = standing.runs_out_at(now).map(|at| instant(at.micros()));
                    object.insert("run_out_at".to_owned(), json!(run_out));
                }
                Err(absent) => {
                    object.insert("contract_state".to_owned(), json!(absent.name()));
                    let reason = match self.known(number) {
                        Some(Known::Absent(_, Some(reason))) => reason.clone(),
                        _ => format!("the contract {absent}"),
                    };
                    object.insert("reason".to_owned(), json!(reason));
                }
            }
            all.push(told);
        }
        all
    }

    fn known(&self, number: u32) -> Option<&Known> {
        self.known.get(usize::try_from(number).ok()?)
    }

    /// Gives a budget the terms that its contract has at `at`.
    fn settle_terms(&mut self, number: u32, at: Timestamp) -> Result<(), Absent> {
        let Self { book, accounts, known, .. } = self;
        let known = usize::try_from(number).ok().and_then(|at| known.get(at)).ok_or(Absent::Unknown)?;
        let (drawable, Stretch { span, limit }) = known.stretch(at)?;
        let (measure, window) = (drawable.measure(), Window::Fixed(span));
        let is_same =
            |budget: &Budget| budget.limit == limit && budget.window == window && budget.measure == measure;
        if !book.get(number).is_some_and(is_same) {
            accounts.revise(book, number, (measure, window, limit));
        }
        Ok(())
    }

    fn standing(&mut self, number: u32, now: Timestamp) -> Result<(Standing, Interval), Absent> {
        self.settle_terms(number, now)?;
        let Self { book, accounts, known, .. } = self;
        let standing = accounts.standing(book, number, now).ok_or(Absent::Unknown)?;
        match usize::try_from(number).ok().and_then(|at| known.get(at)) {
            Some(Known::Drawable(drawable)) => Ok((standing, drawable.interval())),
            _ => Err(Absent::Unknown),
        }
    }
}

fn percent(standing: &Standing) -> Option<i64> {
    let used = standing.settled.saturating_add(standing.held);
    let percent = used.saturating_mul(100).checked_div(standing.limit.max(1))?;
    i64::try_from(percent).ok()
}

/// The standing of a budget whose contract has nothing.
fn nothing_left(rule: &ContractBudget, at: Timestamp) -> Standing {
    Standing {
        name: rule.name.clone(),
        measure: Measure::Tokens,
        limit: 0,
        base_limit: 0,
        settled: 0,
        estimated: 0,
        held: 0,
        span: Span { start: at.micros(), end: at.micros() },
    }
}

/// What the ledger says of the contract of a budget.
fn find(
    rule: &ContractBudget,
    read: &Read,
    ledger: &Ledger,
    source: &dyn HedgeSource,
    now: Timestamp,
) -> Result<Found, AskError> {
    let absent = |absent, reason| Ok(Found { known: Known::Absent(absent, reason), taken: None });
    let drawable = match Drawable::find(&read.intake, &rule.contract, now) {
        Ok(drawable) => Arc::new(drawable),
        Err(found) => return absent(found, None),
    };
    let stretch = match drawable.stretch(now) {
        Ok(stretch) => stretch,
        Err(Absent::Untold) => {
            return absent(Absent::Untold, Some("a conversion profile or capacity is missing".to_owned()));
        }
        Err(_) => return Ok(Found { known: Known::Drawable(drawable), taken: None }),
    };
    let taken = match drawable.interval() {
        Interval::Hour => Ok(taken_in(rule, &drawable, stretch.span, ledger)?),
        Interval::Day | Interval::Month | Interval::Term => drawn(&drawable, stretch, read, source, now)?,
    };
    let taken = match taken {
        Ok(taken) => taken,
        Err(reason) => return absent(Absent::Untold, Some(reason)),
    };
    let estimated = interrupted(rule, &drawable, stretch.span, ledger)?;
    let taken = taken.saturating_add(estimated);
    let measure = drawable.measure();
    Ok(Found { known: Known::Drawable(drawable), taken: Some((stretch, measure, taken, estimated)) })
}

/// What the report says was taken in this stretch, or why it does not.
fn drawn(
    drawable: &Drawable,
    stretch: Stretch,
    read: &Read,
    source: &dyn HedgeSource,
    now: Timestamp,
) -> Result<Result<i128, String>, AskError> {
    let position = drawable.position();
    let first = day_of(Timestamp::from_micros(stretch.span.start));
    let outside = day_of(Timestamp::from_micros(stretch.span.end));
    let (Some(from), Some(until), Some(today)) = (first, outside, day_of(now)) else {
        return Ok(Err("the clock is out of range".to_owned()));
    };
    // Of a month or a day all of its quantity is there from its beginning; a term is told up to now.
    let last = match drawable.interval() {
        Interval::Term => today,
        _ => until.yesterday().unwrap_or(until),
    };
    let usual = Options::default().ask(now)?;
    let currency = match position.terms().kind.group() {
        Group::Pool => position.terms().economics.price_currency,
        _ => usual.currency,
    };
    let until = last.tomorrow().unwrap_or(last);
    let ask = HedgeAsk { from, until, today: last, unit: drawable.unit(), currency, as_of: now, ..usual };
    let found = report_of(source, &read.state, &ask)?;
    let gap = found.gaps.keys().find(|gap| matches!(gap, UsageGap::NoRate { .. } | UsageGap::Overflow));
    if let Some(gap) = gap.filter(|_| position.terms().kind.group() == Group::Pool) {
        return Ok(Err(format!("there is usage {gap}")));
    }
    if let Some(gap) = found.cost.unpriced.iter().find(|gap| gap.position == *position.id()) {
        return Ok(Err(gap.reason.to_string()));
    }
    let row = found.positions.iter().find(|row| row.position == *position.id());
    let taken = row.and_then(|row| row.result.as_ref()).map_or(Ratio::ZERO, |result| {
        if position.terms().kind.group() == Group::Pool { result.drawn } else { result.covered }
    });
    Ok(drawable.measured(taken).map_err(|error| error.to_string()))
}

/// All usage in the scope of a budget and of its contract, as if the contract delivered all of it.
fn taken_in(
    rule: &ContractBudget,
    drawable: &Drawable,
    span: Span,
    ledger: &Ledger,
) -> Result<i128, AskError> {
    let (from, to) = (Some(Timestamp::from_micros(span.start)), Some(Timestamp::from_micros(span.end)));
    let mut sum = 0_i128;
    for stored in ledger.records(RecordRange { from, to, after_sequence: 0 }) {
        let stored = stored?;
        if stored.counted && is_under(rule, drawable, &stored.record) {
            sum = sum.saturating_add(drawable.used(&stored.record).unwrap_or(0));
        }
    }
    Ok(sum)
}

/// What was held, beyond what is booked, for requests that a crash interrupted.
fn interrupted(
    rule: &ContractBudget,
    drawable: &Drawable,
    span: Span,
    ledger: &Ledger,
) -> Result<i128, AskError> {
    let (from, to) = (Some(Timestamp::from_micros(span.start)), Some(Timestamp::from_micros(span.end)));
    let query = UsageQuery { from, to, ..UsageQuery::default() };
    let usage = ledger.usage(&query).map_err(|error| AskError::Ledger(error.to_string()))?;
    if usage.totals.outcome(Outcome::Interrupted) == 0 {
        return Ok(0);
    }
    let range = RecordRange { from, to, after_sequence: 0 };
    let all = ledger.interrupted(range).map_err(|error| AskError::Ledger(error.to_string()))?;
    let mut sum = 0_i128;
    for InterruptedRequest { record, held_tokens, held_cost } in all {
        if !is_under(rule, drawable, &record) {
            continue;
        }
        let held = Asked { tokens: held_tokens, cost: held_cost, ..Asked::default() };
        let model = record.model_served.as_ref().or(record.model_requested.as_ref());
        let held = drawable.asked(&held, model, record.started_at).unwrap_or(0);
        let used = drawable.used(&record).unwrap_or(0);
        sum = sum.saturating_add(held.saturating_sub(used).max(0));
    }
    Ok(sum)
}

fn is_under(rule: &ContractBudget, drawable: &Drawable, record: &UsageRecord) -> bool {
    let tag = tag_of(&record.identity);
    let facts = super::record_facts(record, &tag);
    rule.scope.matches(&facts) && drawable.covers(&facts, record.region.as_ref())
}
