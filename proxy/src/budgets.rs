//! Budgets at work: what was spent, kept beside the ledger; the decision about a request.
//!
//! Invariants
//! - One lock holds all accounts, for a few microseconds at a time; without budgets no request takes it.
//! - What is spent is what the ledger recorded: the ledger's writer tells of each record as it is settled,
//!   and a start reads the records of the windows in force. A hold ends with its record.
//! - A record that the ledger did not take is booked all the same, until a restart; one that a crash
//!   interrupted is booked at what was held for it.
//! - Both ways, and the decision, ask for the same models: the one asked for, the one that answered, or
//!   any, where nobody knows either.
//! - Refusals are remembered for `why`, the last few thousand.
//!
//! Not here: other budgets at run time (`reload`), what contracts have left (`contracts`), where budgets
//! stand for who tells of it (`looks`), the rules (`bursar_policies::budget`), how much a request may use (`exchange::admission`).

mod contracts;
mod looks;
mod reload;

pub(crate) use looks::{Look, Turns};
pub use reload::ReloadError;

use crate::app::Prices;
use crate::hedge::AskError;
use crate::hedge::priced::Priced;
use crate::overrides;
use arc_swap::{ArcSwap, Guard};
use bursar_domain::money::format_pico;
use bursar_domain::{Clock, Identity, Label, Metering, Outcome, RequestId, Timestamp, UsageRecord};
use bursar_ledger::{
    Filter, GroupKey, InterruptedRequest, Ledger, Observer, QueryError, ReadError, RecordRange,
    StoredOverride, UsageQuery, UsageReport, UsageRow,
};
use bursar_policies::budget::contract::{Absent, ContractBudget};
use bursar_policies::budget::window::{Span, Window};
use bursar_policies::budget::{
    Accounts, Admission, Asked, Book, Budget, Denial, Facts, Measure, Mode, Moment, Scope, Standing, Unknown,
    Warning, Why, tag_of,
};
use contracts::Contracts;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// Refusals that are remembered.
const REFUSALS_MAX: usize = 4_096;
/// Shorter rolling windows are read record by record at a start.
const HOURLY_FROM_MICROS: i64 = 24 * HOUR;
const HOUR: i64 = 3_600_000_000;

/// All budgets with what was spent of them.
#[derive(Debug)]
pub struct Budgets {
    /// Changes under the lock of the state alone, so who has the lock finds numbers and accounts together.
    book: ArcSwap<Book>,
    state: Mutex<State>,
    contracts: Contracts,
    began: Instant,
}

#[derive(Debug, Default)]
struct State {
    accounts: Accounts,
    refused: VecDeque<Refusal>,
    /// The refusals that somebody waits to tell of, if anybody does.
    untold: Option<looks::Untold>,
    numbers: Vec<u32>,
    /// Temporary changes that the ledger has.
    overrides: Vec<StoredOverride>,
    /// What the ledger had at the start was read. Before, records are those that a crash left open, which
    /// will be read too.
    is_loaded: bool,
    /// The budgets of a new configuration, while what was spent of them is read.
    incoming: Option<reload::Incoming>,
}

/// Budgets on contracts that are to come into force, if they are others than those in force.
#[derive(Debug)]
pub(crate) struct PreparedContracts(Option<contracts::Prepared>);

/// Why nobody can tell what contracts have left.
#[derive(Debug, thiserror::Error)]
#[error("cannot tell what contracts have left, so budgets on them cannot be kept")]
pub struct LookError(#[source] AskError);

impl State {
    /// Puts in force, for the budgets of `book`, what changes them for a time.
    fn enforce(&mut self, book: &Book) {
        let Self { accounts, overrides, .. } = self;
        for (number, budget) in (0_u32..).zip(book.budgets()) {
            let own = overrides.iter().filter(|one| overrides::fits(one, &budget.name, budget.measure));
            accounts.set_overrides(number, own.map(StoredOverride::change).collect());
        }
    }
}

/// A request that a budget refused, with its figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The request.
    pub id: RequestId,
    /// When it began.
    pub at: Timestamp,
    /// Its team.
    pub team: Option<Label>,
    /// The model it asked for.
    pub model: Option<Label>,
    /// The contract that the budget is on.
    pub contract: Option<Label>,
    /// What refused it and why.
    pub denial: Denial,
}

/// A request that asks to pass.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its id.
    pub id: RequestId,
    /// When it began.
    pub at: Timestamp,
    /// Who it is for.
    pub identity: &'a Identity,
    /// Who will answer.
    pub provider: &'a Label,
    /// The model, where it is known.
    pub model: Option<&'a Label>,
    /// Whether the model may be any: it is not known, or may still be named by what was not read.
    pub may_be_any_model: bool,
}

/// A request that passes.
#[derive(Debug, Default)]
pub struct Passed {
    /// What is held for it, if anything. The hold lasts while somebody has this, and ends with the record.
    pub held: Option<Arc<Asked>>,
    /// What to say about it.
    pub warnings: Vec<Warning>,
}

impl Budgets {
    /// These budgets, of which nothing was spent yet.
    #[must_use]
    pub fn new(budgets: Vec<Budget>) -> Self {
        let book = Book::new(budgets);
        let state = State { accounts: Accounts::new(&book), ..State::default() };
        let contracts = Contracts::new(Vec::new());
        let (book, state) = (ArcSwap::from_pointee(book), Mutex::new(state));
        Self { book, state, contracts, began: Instant::now() }
    }

    /// These budgets on contracts as well, of which nothing is known before [`Budgets::look_at_contracts`].
    #[must_use]
    pub fn with_contracts(self, rules: Vec<ContractBudget>) -> Self {
        Self { contracts: Contracts::new(rules), ..self }
    }

    /// Looks at the ledger: which contracts there are, and what was taken of them. Blocks. Returns what is
    /// to be said of contracts that have nothing now.
    pub fn look_at_contracts(
        &self,
        ledger: &Ledger,
        prices: &Prices,
        now: Timestamp,
    ) -> Result<Vec<String>, LookError> {
        self.contracts.look(ledger, &Priced { ledger, prices }, now).map_err(LookError)
    }

    /// Looks up what the contracts of other budgets have, before those take the place of these. Blocks.
    pub(crate) fn prepare_contracts(
        &self,
        rules: Vec<ContractBudget>,
        ledger: &Ledger,
        prices: &Prices,
        now: Timestamp,
    ) -> Result<PreparedContracts, LookError> {
        let prepared = self.contracts.prepare(rules, ledger, &Priced { ledger, prices }, now);
        prepared.map(PreparedContracts).map_err(LookError)
    }

    /// From now on the budgets that were prepared are in force; a look is to follow.
    pub(crate) fn replace_contracts(&self, prepared: PreparedContracts, now: Timestamp) {
        if let Some(prepared) = prepared.0 {
            self.contracts.replace(prepared, now);
        }
    }

    /// Whether a look at the ledger would tell more of contracts than is known.
    pub(crate) fn want_a_look(&self) -> bool {
        self.contracts.wants_a_look()
    }

    /// Whether any budget is on a contract.
    pub(crate) fn have_contracts(&self) -> bool {
        !self.contracts.is_empty()
    }

    /// Settled and held of the budget of this name on a contract, while that has anything.
    #[must_use]
    pub fn contract_standing(&self, name: &str, now: Timestamp) -> Option<Standing> {
        self.contracts.standing(name, now)
    }

    /// Whether there is no budget.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.book().is_empty() && self.contracts.is_empty()
    }

    fn book(&self) -> Guard<Arc<Book>> {
        self.book.load()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn steady(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Decides about a request, and holds what it may use where it passes. `asks` tells that; it is only
    /// called when a budget wants to know, with whether one is about money.
    pub fn admit(
        &self,
        request: &Request<'_>,
        clock: &dyn Clock,
        asks: impl Fn(bool) -> Asked,
    ) -> Result<Passed, Box<Refusal>> {
        let tag = tag_of(request.identity);
        let models = [request.model, None];
        let facts = facts(request.identity, request.provider, models, request.may_be_any_model, &tag);
        let mut numbers = Vec::new();
        let mut book = self.book();
        book.matching(&facts, &mut numbers);
        let on_contracts = self.contracts.matching(&facts);
        if numbers.is_empty() && on_contracts.is_empty() {
            return Ok(Passed::default());
        }
        let contract_in_money = self.contracts.any_in_money(&on_contracts);
        let mut asked = asks(contract_in_money || book.any_in_money(&numbers));
        let now = Moment { wall: clock.now(), steady: self.steady() };
        let admitted = self.contracts.admit(on_contracts, &facts, (request, &asked), now);
        let mut warnings = admitted
            .map_err(|(denial, contract)| refuse(&mut self.lock(), request, *denial, Some(contract)))?;
        let mut state = self.lock();
        let in_force = self.book();
        if !Arc::ptr_eq(&book, &in_force) {
            in_force.matching(&facts, &mut numbers);
            asked = asks(contract_in_money || in_force.any_in_money(&numbers));
            book = in_force;
        }
        match state.accounts.admit(&book, &numbers, request.id, &asked, request.at, now) {
            Admission::Pass { warnings: more } => {
                let held = Arc::new(asked);
                state.accounts.keep(request.id, Arc::downgrade(&held));
                drop(state);
                self.contracts.keep(request.id, Arc::downgrade(&held));
                warnings.extend(more);
                Ok(Passed { held: Some(held), warnings })
            }
            Admission::Deny(denial) => {
                let refusal = refuse(&mut state, request, *denial, None);
                drop(state);
                self.contracts.release(request.id);
                Err(refusal)
            }
        }
    }

    /// Whether a hard budget may refuse a request of this identity, whatever its model.
    #[must_use]
    pub fn may_refuse(&self, identity: &Identity, provider: &Label) -> bool {
        let tag = tag_of(identity);
        let mut numbers = Vec::new();
        let book = self.book();
        let facts = facts(identity, provider, [None, None], true, &tag);
        book.matching(&facts, &mut numbers);
        book.any_hard(&numbers) || self.contracts.any_hard(&self.contracts.matching(&facts))
    }

    /// Puts the temporary changes that the ledger has in force, and only those.
    pub fn set_overrides(&self, all: &[StoredOverride]) {
        let mut state = self.lock();
        state.overrides = all.to_vec();
        state.enforce(&self.book());
    }

    /// What the budget of this name limits.
    #[must_use]
    pub fn measure_of(&self, name: &Label) -> Option<Measure> {
        self.book().budgets().iter().find(|budget| budget.name == *name).map(|budget| budget.measure)
    }

    /// The contract that the budget of this name is on, where it is on one.
    #[must_use]
    pub fn contract_of(&self, name: &Label) -> Option<Label> {
        self.contracts.contract_of(name)
    }

    /// How far the fullest budget of a request is spent and reserved, in percent; `None` when it is under
    /// none. Those on contracts count too.
    #[must_use]
    pub fn used_percent(&self, request: &Request<'_>, now: Timestamp) -> Option<i64> {
        let tag = tag_of(request.identity);
        let models = [request.model, None];
        let facts = facts(request.identity, request.provider, models, request.may_be_any_model, &tag);
        let mut numbers = Vec::new();
        self.book().matching(&facts, &mut numbers);
        let own = numbers.into_iter().filter_map(|number| self.percent_of(number, now)).max();
        own.max(self.contracts.used_percent(&facts, now))
    }

    /// How far the budget of this name is spent and reserved, in percent; one whose contract has nothing is
    /// spent.
    #[must_use]
    pub fn used_of(&self, name: &str, now: Timestamp) -> Option<i64> {
        match self.book().budgets().iter().position(|budget| budget.name.as_str() == name) {
            Some(found) => self.percent_of(u32::try_from(found).ok()?, now),
            None => self.contracts.used_of(name, now),
        }
    }

    fn percent_of(&self, number: u32, now: Timestamp) -> Option<i64> {
        let mut state = self.lock();
        let standing = state.accounts.standing(&self.book(), number, now)?;
        Some(used_percent_of(&standing))
    }

    /// The hold of a request begins to last anew.
    pub fn renew(&self, id: RequestId) {
        let steady = self.steady();
        self.lock().accounts.renew(id, steady);
        self.contracts.renew(id, steady);
    }

    /// The hold `from` of a session becomes that of `record`, which is priced: no more than it used is held
    /// until it is booked.
    pub fn hold_for(&self, from: RequestId, record: &UsageRecord) {
        let counts = record.metering != Metering::Never;
        let used = if counts { used_by(record) } else { nothing(record) };
        let steady = self.steady();
        self.contracts.hold_for(from, record, counts, steady);
        let mut state = self.lock();
        state.accounts.rename(from, record.id);
        state.accounts.renew(record.id, steady);
        state.accounts.resize(&self.book(), record.id, &used);
    }

    /// Books a record, with its cost, that the ledger does not have and never will. A restart forgets it.
    pub fn book_lost(&self, record: &UsageRecord, counted: bool) {
        self.book_record(record, counted, None);
    }

    fn book_on_contracts(&self, record: &UsageRecord, counted: bool, is_lost: bool) {
        if !self.contracts.is_empty() {
            let tag = tag_of(&record.identity);
            self.contracts.settle(&record_facts(record, &tag), record, counted, is_lost);
        }
    }

    /// Books a record that the ledger has under this sequence, or does not have.
    fn book_record(&self, record: &UsageRecord, counted: bool, sequence: Option<u64>) {
        self.book_on_contracts(record, counted, sequence.is_none());
        let tag = tag_of(&record.identity);
        let facts = record_facts(record, &tag);
        let used = if counted { used_by(record) } else { Asked::default() };
        let mut state = self.lock();
        if sequence.is_some() && !state.is_loaded {
            return;
        }
        let State { accounts, numbers, incoming, .. } = &mut *state;
        if let Some(incoming) = incoming {
            incoming.hear(&facts, &used, record.started_at, sequence, numbers);
        }
        let book = self.book();
        book.matching(&facts, numbers);
        accounts.settle(&book, numbers, record.id, &used, record.started_at);
    }

    /// Gives up what is held for a request.
    pub fn release(&self, id: RequestId) {
        self.lock().accounts.release(id);
        self.contracts.release(id);
    }

    /// Settled and held of a budget by its place in the configuration.
    #[must_use]
    pub fn standing(&self, number: u32, now: Timestamp) -> Option<Standing> {
        let steady = self.steady();
        let mut state = self.lock();
        state.accounts.expire(steady);
        state.accounts.standing(&self.book(), number, now)
    }

    /// The refusal of this request, if it is remembered.
    #[must_use]
    pub fn why(&self, id: RequestId) -> Option<Refusal> {
        self.lock().refused.iter().rev().find(|refusal| refusal.id == id).cloned()
    }
}

impl Observer for Budgets {
    fn settled(&self, record: &UsageRecord, counted: bool, sequence: u64) {
        self.book_record(record, counted, Some(sequence));
    }

    fn lost(&self, record: &UsageRecord, counted: bool) {
        self.book_lost(record, counted);
    }
}

/// Remembers a refusal, and returns it.
fn refuse(state: &mut State, request: &Request<'_>, denial: Denial, contract: Option<Label>) -> Box<Refusal> {
    let refusal = Refusal {
        id: request.id,
        at: request.at,
        team: request.identity.team.clone(),
        model: request.model.cloned(),
        contract,
        denial,
    };
    if let Some(untold) = &mut state.untold {
        untold.note(&refusal);
    }
    if state.refused.len() >= REFUSALS_MAX {
        state.refused.pop_front();
    }
    state.refused.push_back(refusal.clone());
    Box::new(refusal)
}

/// What a record asks of budgets.
fn record_facts<'a>(record: &'a UsageRecord, has_tag: &'a (dyn Fn(&str, &str) -> bool + 'a)) -> Facts<'a> {
    let models = [record.model_requested.as_ref(), record.model_served.as_ref()];
    let may_be_any = record.metering != Metering::Never && models == [None, None];
    facts(&record.identity, &record.provider, models, may_be_any, has_tag)
}

fn facts<'a>(
    identity: &'a Identity,
    provider: &'a Label,
    [requested, served]: [Option<&'a Label>; 2],
    may_be_any_model: bool,
    has_tag: &'a (dyn Fn(&str, &str) -> bool + 'a),
) -> Facts<'a> {
    let text = |label: &'a Option<Label>| label.as_ref().map(Label::as_str);
    Facts {
        team: text(&identity.team),
        workload: text(&identity.workload),
        customer: text(&identity.customer),
        provider: provider.as_str(),
        model: requested.map(Label::as_str),
        model_served: served.map(Label::as_str),
        may_be_any_model,
        has_tag,
    }
}

/// What a record that does not count used.
fn nothing(record: &UsageRecord) -> Asked {
    let currency = record.cost.as_ref().map_or(bursar_domain::Currency::USD, |cost| cost.currency);
    let cost = Some(bursar_domain::Money::from_pico(currency, 0));
    Asked { tokens: Some(0), cost, ..Asked::default() }
}

/// What a record that counts used.
fn used_by(record: &UsageRecord) -> Asked {
    let tokens = [record.usage.input_total(), record.usage.output_total()];
    let cost = record
        .cost
        .as_ref()
        .and_then(|cost| Some(bursar_domain::Money::from_pico(cost.currency, cost.billed_pico?)));
    Asked { tokens: sum(tokens), cost, ..Asked::default() }
}

fn sum(tokens: [Option<u64>; 2]) -> Option<u64> {
    tokens.into_iter().flatten().reduce(u64::saturating_add)
}

// === what was spent before this start ===

/// One question to the ledger answers for all budgets that ask the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    from: i64,
    to: Option<i64>,
    by_hour: bool,
    /// Both models are told, which rollups do not know.
    by_model: bool,
    customer: Option<Label>,
    tags: Vec<(Label, Label)>,
}

impl Budgets {
    /// Reads what was spent in the windows in force and in those before them. Called before any request is
    /// served. Blocks.
    pub fn load(&self, ledger: &Ledger, now: Timestamp) -> Result<(), QueryError> {
        let (found, unreadable) = bursar_ledger::overrides(&ledger.facts());
        for sequence in unreadable {
            tracing::warn!(sequence, "an override of a budget cannot be read and is not in force");
        }
        self.set_overrides(&found);
        self.read(ledger, now).map(drop)
    }

    /// The same; tells what was read, and up to which record.
    fn read(&self, ledger: &Ledger, now: Timestamp) -> Result<Vec<reload::Read>, QueryError> {
        if self.book().is_empty() {
            self.lock().is_loaded = true;
            return Ok(Vec::new());
        }
        let mut read = Vec::new();
        // What a crash left open has a record from here on.
        if let Err(error) = ledger.checkpoint() {
            tracing::error!(%error, "budgets may lack requests that were interrupted");
        }
        let mut questions: HashMap<Question, Vec<u32>> = HashMap::new();
        for (number, budget) in (0_u32..).zip(self.book().budgets()) {
            for question in questions_of(budget, now) {
                questions.entry(question).or_default().push(number);
            }
            let before = match budget.window {
                Window::Calendar { .. } => previous(&budget.window, now).start,
                Window::Rolling { .. } | Window::Fixed(_) => continue,
            };
            self.lock().accounts.known_from(&self.book(), number, Timestamp::from_micros(before));
        }
        let earliest = questions.keys().map(|question| question.from).min();
        for (question, numbers) in questions {
            let through = if question.by_hour || question.to.is_some() {
                let report = match ledger.usage(&query(&question)) {
                    // A window that is over: only requests with an old time would look at it.
                    Err(QueryError::Read(ReadError::Pruned(_)))
                        if question.to.is_some_and(|to| to <= now.micros()) =>
                    {
                        let known = Timestamp::from_micros(question.to.unwrap_or_default());
                        for number in numbers {
                            self.lock().accounts.known_from(&self.book(), number, known);
                        }
                        continue;
                    }
                    report => report?,
                };
                self.charge_rows(&question, &numbers, &report, now);
                report.as_of_sequence
            } else {
                self.charge_records(&question, &numbers, ledger)?
            };
            read.push(reload::Read { numbers, from: question.from, to: question.to, through });
        }
        if let Some(from) = earliest {
            self.charge_interrupted(ledger, Timestamp::from_micros(from))?;
        }
        self.lock().is_loaded = true;
        Ok(read)
    }

    /// Books what was held for requests that a crash interrupted.
    fn charge_interrupted(&self, ledger: &Ledger, from: Timestamp) -> Result<(), QueryError> {
        let query = UsageQuery { from: Some(from), ..UsageQuery::default() };
        if ledger.usage(&query)?.totals.outcome(Outcome::Interrupted) == 0 {
            return Ok(());
        }
        let range = RecordRange { from: Some(from), ..RecordRange::default() };
        for InterruptedRequest { record, held_tokens, held_cost } in ledger.interrupted(range)? {
            let held = Asked { tokens: held_tokens, cost: held_cost, ..Asked::default() };
            let tag = tag_of(&record.identity);
            let mut state = self.lock();
            let State { accounts, numbers, .. } = &mut *state;
            self.book().matching(&record_facts(&record, &tag), numbers);
            for number in numbers.iter() {
                accounts.charge_bound(&self.book(), *number, &held, &used_by(&record), record.started_at);
            }
        }
        Ok(())
    }

    fn charge_rows(&self, question: &Question, numbers: &[u32], report: &UsageReport, now: Timestamp) {
        let mut state = self.lock();
        let book = self.book();
        for row in &report.rows {
            let Some((scope, requested, at)) = read_row(row, question, now) else { continue };
            let has_tag = |name: &str, value: &str| {
                question.tags.iter().any(|(n, v)| (n.as_str(), v.as_str()) == (name, value))
            };
            let served = scope.model.as_ref().map(|model| model.as_str());
            let requested = requested.as_ref().map(Label::as_str);
            let facts = Facts {
                team: scope.team.as_ref().map(Label::as_str),
                workload: scope.workload.as_ref().map(Label::as_str),
                customer: question.customer.as_ref().map(Label::as_str),
                provider: scope.provider.as_ref().map_or("", Label::as_str),
                model: requested,
                model_served: served,
                // Every row is of records that count.
                may_be_any_model: requested.is_none() && served.is_none(),
                has_tag: &has_tag,
            };
            for number in numbers {
                let Some(budget) = book.get(*number) else { continue };
                if budget.scope.matches(&facts) {
                    let used = used_in(row, budget.measure);
                    state.accounts.charge(&book, *number, &used, at);
                }
            }
        }
    }

    fn charge_records(
        &self,
        question: &Question,
        numbers: &[u32],
        ledger: &Ledger,
    ) -> Result<u64, QueryError> {
        let through = ledger.stats().last_sequence;
        let range =
            RecordRange { from: Some(Timestamp::from_micros(question.from)), ..RecordRange::default() };
        for stored in ledger.records(range) {
            let stored = stored?;
            if stored.sequence > through || !stored.counted || stored.record.metering == Metering::Never {
                continue;
            }
            let record = &stored.record;
            let tag = tag_of(&record.identity);
            let facts = record_facts(record, &tag);
            let mut state = self.lock();
            for number in numbers {
                if self.book().get(*number).is_some_and(|budget| budget.scope.matches(&facts)) {
                    state.accounts.charge(&self.book(), *number, &used_by(record), record.started_at);
                }
            }
        }
        Ok(through)
    }
}

fn previous(window: &Window, now: Timestamp) -> Span {
    window.span(Timestamp::from_micros(window.span(now).start.saturating_sub(1)))
}

fn questions_of(budget: &Budget, now: Timestamp) -> Vec<Question> {
    let ask = |from, to, by_hour| Question {
        from,
        to,
        by_hour,
        by_model: budget.scope.model.is_some(),
        customer: budget.scope.customer.clone(),
        tags: budget.scope.tags.clone(),
    };
    match &budget.window {
        Window::Calendar { .. } => {
            let (before, current) = (previous(&budget.window, now), budget.window.span(now));
            vec![
                ask(before.start, Some(before.end), false),
                ask(current.start, Some(current.end), false),
                // The clock may have been ahead.
                ask(current.end, None, true),
            ]
        }
        Window::Rolling { micros } => {
            let from = budget.window.since(now).micros();
            vec![ask(from, None, *micros >= HOURLY_FROM_MICROS)]
        }
        // Only contracts have such a window, and their reports tell what was taken.
        Window::Fixed(_) => Vec::new(),
    }
}

fn query(question: &Question) -> UsageQuery {
    let mut by = vec![GroupKey::Team, GroupKey::Workload, GroupKey::Provider, GroupKey::Model];
    if question.by_hour {
        by.push(GroupKey::Hour);
    }
    if question.by_model {
        by.push(GroupKey::ModelRequested);
    }
    let customer = question.customer.iter().map(|name| (GroupKey::Customer, name));
    let tags = question.tags.iter().map(|(name, value)| (GroupKey::Tag(name.as_str().to_owned()), value));
    let filter =
        customer.chain(tags).map(|(key, value)| Filter { key, value: Some(value.as_str().to_owned()) });
    UsageQuery {
        from: Some(Timestamp::from_micros(question.from)),
        to: question.to.map(Timestamp::from_micros),
        by,
        filter: filter.collect(),
        ..UsageQuery::default()
    }
}

/// Whose usage a row is, the model that was asked for, and when it is booked. An hour is booked at its end, or now: it then leaves a
/// rolling window late rather than early.
fn read_row(
    row: &UsageRow,
    question: &Question,
    now: Timestamp,
) -> Option<(Scope, Option<Label>, Timestamp)> {
    let mut keys = row.key.iter();
    let mut next = || keys.next().and_then(|value| value.text().map(str::to_owned));
    let mut label = || next().and_then(|text| Label::new(&text).ok());
    let (team, workload, provider, model) = (label(), label(), label(), label());
    let scope = Scope {
        team,
        workload,
        provider,
        model: model.map(bursar_policies::budget::ModelPattern::new),
        ..Scope::default()
    };
    let requested = if question.by_model {
        let text = row.key.last().and_then(|value| value.text());
        text.and_then(|text| Label::new(text).ok())
    } else {
        None
    };
    if !question.by_hour {
        return Some((scope, requested, Timestamp::from_micros(question.from)));
    }
    let bursar_ledger::KeyValue::Time { start, .. } = row.key.get(4)? else { return None };
    let end = start.micros().saturating_add(HOUR.saturating_sub(1));
    let at = if start.micros() > now.micros() { end } else { end.min(now.micros()) };
    Some((scope, requested, Timestamp::from_micros(at)))
}

fn used_in(row: &UsageRow, measure: Measure) -> Asked {
    let totals = &row.totals;
    let tokens = sum([totals.usage.input_total(), totals.usage.output_total()]);
    let cost = match measure {
        Measure::Tokens | Measure::StandardTokens => None,
        Measure::Money(currency) => {
            let money = totals.money().iter().find(|money| money.currency == currency);
            // A sum beyond 128 bits of pico-units is above any limit.
            money.map(|money| {
                let overflow = if money.billed.overflowed() { i128::MAX } else { 0 };
                bursar_domain::Money::from_pico(currency, money.billed.pico().unwrap_or(overflow))
            })
        }
    };
    Asked { tokens, cost, ..Asked::default() }
}

// === what people see ===

/// An amount in a budget's measure.
#[derive(Clone, Copy, Debug)]
pub struct Amount(pub Measure, pub i128);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Measure::Money(currency) => write!(f, "{} {currency}", format_pico(self.1)),
            Measure::Tokens => write!(f, "{} tokens", self.1),
            Measure::StandardTokens => write!(f, "{} SIT", self.1),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let standing = &self.denial.standing;
        let amount = |value| Amount(standing.measure, value);
        write!(f, "the budget {:?} refuses this request: ", standing.name.as_str())?;
        if let (Why::NoContract(absent), Some(contract)) = (self.denial.why, &self.contract) {
            let contract = contract.as_str();
            return write!(f, "nothing is left, since its contract {contract:?} {absent}{}", remedy(absent));
        }
        if let Some(contract) = &self.contract {
            write!(f, "of its contract {:?}, ", contract.as_str())?;
        }
        match self.denial.why {
            Why::Over { asked } => write!(
                f,
                "{} of {} spent, {} held, and it may use up to {}",
                amount(standing.settled),
                amount(standing.limit),
                amount(standing.held),
                amount(asked)
            )?,
            Why::Unbounded(unknown) => {
                let remedy = match unknown {
                    Unknown::Body => "send a smaller one, raise `reserve.body_bytes`",
                    Unknown::TwoReadings => "say it once, by the name that the provider documents",
                    Unknown::Price(_) => "price it in an overlay",
                    Unknown::Model => "name one model",
                    Unknown::Units => "import the profile or the rate",
                };
                write!(
                    f,
                    "nobody knows what it may use: {unknown}; {remedy}, or set `unpriced: allow` for the budget"
                )?;
            }
            Why::Forgotten => f.write_str("the clock stands before what the budget remembers")?,
            Why::NoContract(absent) => write!(f, "the contract {absent}")?,
        }
        if standing.limit != standing.base_limit {
            let configured = amount(standing.base_limit);
            write!(f, "; the limit is overridden for a time, {configured} is configured")?;
        }
        if standing.estimated > 0 {
            let estimated = amount(standing.estimated);
            write!(f, "; {estimated} of what is spent is the most that interrupted requests can have used")?;
        }
        match (self.denial.why, self.denial.retry_micros) {
            (Why::Over { .. }, None) => f.write_str("; it never fits: ask for less output"),
            (Why::Over { .. }, Some(_)) if self.contract.is_some() => {
                write!(f, "; what the contract has is to last until {}", instant(standing.span.end))
            }
            (Why::Over { .. }, Some(_)) => write!(f, "; the window ends at {}", instant(standing.span.end)),
            _ => Ok(()),
        }
    }
}

/// What to do about a contract that has nothing.
const fn remedy(absent: Absent) -> &'static str {
    match absent {
        Absent::Unknown | Absent::NothingToDraw | Absent::Untold => {
            ", or set `without: allow` for the budget"
        }
        Absent::NotBegun | Absent::Over | Absent::Canceled => {
            ": enter the next one, name another, or set `without: allow` for the budget"
        }
    }
}

/// How far a budget is spent and reserved, in percent, rounded down.
fn used_percent_of(standing: &Standing) -> i64 {
    let used = standing.settled.saturating_add(standing.held);
    let percent = used.saturating_mul(100).checked_div(standing.limit.max(1)).unwrap_or(0);
    i64::try_from(percent).unwrap_or(i64::MAX)
}

fn instant(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).map_or_else(|_| micros.to_string(), |at| at.to_string())
}

fn amount_json(measure: Measure, value: i128) -> Value {
    match measure {
        Measure::Money(_) => Value::String(format_pico(value)),
        Measure::Tokens | Measure::StandardTokens => i64::try_from(value).map_or(Value::Null, Value::from),
    }
}

fn standing_json(standing: &Standing) -> Value {
    let amount = |value| amount_json(standing.measure, value);
    let unit = match standing.measure {
        Measure::Money(currency) => currency.code().to_owned(),
        Measure::Tokens => "tokens".to_owned(),
        Measure::StandardTokens => "SIT".to_owned(),
    };
    json!({
        "budget": standing.name.as_str(),
        "unit": unit,
        "limit": amount(standing.limit),
        "configured_limit": amount(standing.base_limit),
        "spent": amount(standing.settled),
        "estimated": amount(standing.estimated),
        "reserved": amount(standing.held),
        "left": amount(standing.left()),
        "window_start": instant(standing.span.start),
        "window_end": instant(standing.span.end),
    })
}

impl Refusal {
    /// The refusal as the API tells it.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut told = standing_json(&self.denial.standing);
        let reason = self.reason();
        let asked = match self.denial.why {
            Why::Over { asked } => amount_json(self.denial.standing.measure, asked),
            Why::Unbounded(_) | Why::Forgotten | Why::NoContract(_) => Value::Null,
        };
        if let Some(object) = told.as_object_mut() {
            object.insert("id".to_owned(), json!(self.id.to_string()));
            object.insert("at".to_owned(), json!(instant(self.at.micros())));
            object.insert("outcome".to_owned(), json!("refused"));
            object.insert("rule".to_owned(), json!(self.denial.standing.name.as_str()));
            object.insert("reason".to_owned(), json!(reason));
            object.insert("asked".to_owned(), asked);
            if let Some(contract) = &self.contract {
                object.insert("contract".to_owned(), json!(contract.as_str()));
            }
            object.insert("team".to_owned(), json!(self.team.as_ref().map(Label::as_str)));
            object.insert("model".to_owned(), json!(self.model.as_ref().map(Label::as_str)));
            object.insert("retry_after_seconds".to_owned(), json!(self.retry_seconds()));
            object.insert("message".to_owned(), json!(self.to_string()));
        }
        told
    }

    /// Why it does not fit, in one word.
    pub(crate) const fn reason(&self) -> &'static str {
        match self.denial.why {
            Why::Over { .. } => "over_budget",
            Why::Unbounded(_) => "unbounded",
            Why::Forgotten => "clock_behind",
            Why::NoContract(_) => "no_contract",
        }
    }

    /// After how many seconds it may fit.
    #[must_use]
    pub fn retry_seconds(&self) -> Option<u64> {
        self.denial.retry_micros.map(|micros| micros.div_ceil(1_000_000).max(1))
    }
}

/// The value of the header that warns of budgets.
#[must_use]
pub fn warning_text(warnings: &[Warning]) -> Option<String> {
    let told = warnings.iter().filter(|warning| warning.mode != Mode::Shadow).map(|warning| {
        let standing = &warning.standing;
        let used = standing.settled.saturating_add(standing.held);
        let percent = warning.percent;
        let measure = standing.measure;
        format!(
            "{}; {percent}%; {} of {}",
            standing.name,
            Amount(measure, used),
            Amount(measure, standing.limit)
        )
    });
    let all: Vec<String> = told.collect();
    (!all.is_empty()).then(|| all.join(", "))
}

impl Budgets {
    /// All budgets as the API tells them.
    #[must_use]
    pub fn json(&self, now: Timestamp) -> Value {
        let mut all = Vec::new();
        for (number, budget) in (0_u32..).zip(self.book().budgets()) {
            let Some(standing) = self.standing(number, now) else { continue };
            let mut told = standing_json(&standing);
            if let Some(object) = told.as_object_mut() {
                object.insert("scope".to_owned(), scope_json(&budget.scope));
                object.insert("window".to_owned(), json!(budget.window.to_string()));
                object.insert("mode".to_owned(), json!(mode_name(budget.mode)));
                object.insert("overrides".to_owned(), self.overrides_json(budget, now));
                let used = standing.settled.saturating_add(standing.held);
                let percent = used.saturating_mul(100).checked_div(standing.limit.max(1));
                object.insert("used_percent".to_owned(), json!(percent.and_then(|p| i64::try_from(p).ok())));
                let run_out = standing.runs_out_at(now).map(|at| instant(at.micros()));
                object.insert("run_out_at".to_owned(), json!(run_out));
            }
            all.push(told);
        }
        all.extend(self.contracts.json(now, self.steady()));
        json!({ "as_of": instant(now.micros()), "budgets": all })
    }

    fn overrides_json(&self, budget: &Budget, now: Timestamp) -> Value {
        let state = self.lock();
        let in_force =
            |one: &&StoredOverride| overrides::fits(one, &budget.name, budget.measure) && now < one.until;
        state.overrides.iter().filter(in_force).map(|one| overrides::shown(one, now)).collect()
    }

    /// Lines of the metrics page: how much of each budget is used.
    #[must_use]
    pub fn metrics(&self, now: Timestamp) -> String {
        let mut page = String::new();
        if self.is_empty() {
            return page;
        }
        page.push_str("# HELP bursar_budget_used_percent Spent and reserved share of a budget's limit.\n");
        page.push_str("# TYPE bursar_budget_used_percent gauge\n");
        for (number, budget) in (0_u32..).zip(self.book().budgets()) {
            let Some(standing) = self.standing(number, now) else { continue };
            let used = standing.settled.saturating_add(standing.held);
            let percent = used.saturating_mul(100).checked_div(standing.limit.max(1)).unwrap_or(0);
            tell_percent(&mut page, &standing.name, budget.mode, percent);
        }
        for (name, mode, percent) in self.contracts.percents(now, self.steady()) {
            tell_percent(&mut page, &name, mode, percent.into());
        }
        page
    }
}

fn tell_percent(page: &mut String, name: &Label, mode: Mode, percent: i128) {
    let name = name.as_str().replace('\\', "\\\\").replace('"', "\\\"");
    let mode = mode_name(mode);
    page.push_str(&format!("bursar_budget_used_percent{{budget=\"{name}\",mode=\"{mode}\"}} {percent}\n"));
}

fn scope_json(scope: &Scope) -> Value {
    let Scope { team, workload, customer, provider, model, tags } = scope;
    let mut object = serde_json::Map::new();
    let texts = [("team", team), ("workload", workload), ("customer", customer), ("provider", provider)];
    for (key, value) in texts {
        if let Some(value) = value {
            object.insert(key.to_owned(), json!(value.as_str()));
        }
    }
    if let Some(model) = model {
        object.insert("model".to_owned(), json!(model.as_str()));
    }
    for (name, value) in tags {
        object.insert(format!("tag:{name}"), json!(value.as_str()));
    }
    Value::Object(object)
}

const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Hard => "hard",
        Mode::Soft => "soft",
        Mode::Shadow => "shadow",
    }
}
