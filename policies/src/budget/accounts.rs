//! What budgets have settled and hold, and the decision about a request.
//!
//! Not here: the rules (`budget`), windows (`window`).

use super::contract::Absent;
use super::overrides::{Override, limit_at};
use super::window::{Span, Window, step_of};
use super::{Book, Budget, Measure, Mode, Unbounded};
use crate::price::Gap;
use bursar_domain::{Label, Money, RequestId, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Weak;

/// Windows that a budget remembers; a rolling one has sixty steps.
const WINDOWS_MAX: usize = 1_024;
/// A hold that nobody released lasts so long, and again so long while its exchange lives.
pub(super) const HOLD_MICROS: u64 = 3_600_000_000;
/// How long to wait when only holds are in the way.
const SOON_MICROS: u64 = 5_000_000;

/// An instant by two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The wall clock, which may jump.
    pub wall: Timestamp,
    /// Microseconds of a clock that never goes back.
    pub steady: u64,
}

/// The most that a request can use; `None` when nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Input and output tokens.
    pub tokens: Option<u64>,
    /// Money.
    pub cost: Option<Money>,
    /// Why nobody knows, where nobody does.
    pub unknown: Unknown,
}

/// Why nobody knows what a request may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// Its body is not known whole, or cannot be read.
    #[default]
    Body,
    /// Its body or head says in two ways what decides the price.
    TwoReadings,
    /// A part of it has no price.
    Price(Gap),
    /// Which model answers is left to the provider.
    Model,
    /// It cannot be told in the units of the contract: a quality profile or an exchange rate is missing.
    Units,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body => f.write_str("its body is longer than is held, or cannot be read"),
            Self::TwoReadings => f.write_str(
                "its model, service tier, speed or region is told twice and differs, is too long to be read, or a \
                 key is written in another case of its letters",
            ),
            Self::Price(gap) => gap.fmt(f),
            Self::Model => f.write_str("it leaves the choice of the model to the provider"),
            Self::Units => {
                f.write_str("no quality profile or exchange rate tells it in the contract's units")
            }
        }
    }
}

impl Asked {
    /// In a budget's measure.
    fn amount(&self, measure: Measure) -> Option<i128> {
        match measure {
            Measure::Tokens => self.tokens.map(i128::from),
            // Only a contract's profiles tell.
            Measure::StandardTokens => None,
            Measure::Money(currency) => {
                self.cost.filter(|cost| cost.currency() == currency).map(|cost| cost.pico().max(0))
            }
        }
    }
}

/// Where a budget stands at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The budget's name.
    pub name: Label,
    /// Its measure.
    pub measure: Measure,
    /// Its limit, with what overrides make of it.
    pub limit: i128,
    /// Its limit as it is configured.
    pub base_limit: i128,
    /// Settled in the window.
    pub settled: i128,
    /// What of it is the bound of requests that a crash interrupted: they used that much at most.
    pub estimated: i128,
    /// Held in the window.
    pub held: i128,
    /// The window; of a rolling one, from its beginning until now.
    pub span: Span,
}

impl Standing {
    /// What is left; below zero when more was used than the limit.
    #[must_use]
    pub fn left(&self) -> i128 {
        self.limit.saturating_sub(self.settled).saturating_sub(self.held)
    }

    /// When the limit is reached if spending goes on as it did in this window so far; `None` when it is
    /// not before the window ends.
    #[must_use]
    pub fn runs_out_at(&self, now: Timestamp) -> Option<Timestamp> {
        let elapsed = i128::from(now.micros().checked_sub(self.span.start)?);
        if self.left() <= 0 {
            return Some(now);
        }
        let wait = self.left().checked_mul(elapsed)?.checked_div(self.settled)?;
        let at = now.micros().checked_add(i64::try_from(wait).ok()?)?;
        (at < self.span.end).then_some(Timestamp::from_micros(at))
    }
}

/// Why a request does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// What is settled and held leaves less than it may use.
    Over {
        /// What it may use.
        asked: i128,
    },
    /// Nobody knows what it may use.
    Unbounded(Unknown),
    /// The clock stands before anything that is remembered.
    Forgotten,
    /// The contract that it is on has nothing.
    NoContract(Absent),
}

/// A refusal with its figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Where the budget stands.
    pub standing: Standing,
    /// Why it refuses.
    pub why: Why,
    /// After how many microseconds it may fit; `None` when it never will.
    pub retry_micros: Option<u64>,
}

/// A request that passes and of which somebody should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where the budget stands, with the request.
    pub standing: Standing,
    /// The budget's mode.
    pub mode: Mode,
    /// The highest threshold that is reached, in percent; 100 and more when a soft budget is passed.
    pub percent: u32,
}

/// The answer about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// It passes.
    Pass {
        /// What to say about it.
        warnings: Vec<Warning>,
    },
    /// It does not.
    Deny(Box<Denial>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    settled: i128,
    estimated: i128,
    held: i128,
    /// What of it was booked since [`Accounts::mark`].
    young: i128,
}

/// What one budget settled and holds.
#[derive(Clone, Debug)]
struct Account {
    windows: BTreeMap<i64, Sums>,
    /// All that is held, in whatever window.
    held: i128,
    /// The window that was asked for last: finding one in a calendar is dear.
    last: Option<Span>,
    /// Windows that begin before this are not known.
    known_from: i64,
    /// Temporary changes of its limit, in the order in which they were made.
    overrides: Vec<Override>,
}

impl Default for Account {
    fn default() -> Self {
        Self { windows: BTreeMap::new(), held: 0, last: None, known_from: i64::MIN, overrides: Vec::new() }
    }
}

#[derive(Clone, Debug)]
struct Hold {
    /// Budget, window, amount.
    parts: Vec<(u32, i64, i128)>,
    expires: u64,
    /// Who is alive as long as the request is under way.
    alive: Weak<Asked>,
}

/// What all budgets of a book settled and hold.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    accounts: Vec<Account>,
    holds: HashMap<RequestId, Hold>,
    expiries: BTreeSet<(u64, RequestId)>,
}

impl Accounts {
    /// Nothing spent yet.
    #[must_use]
    pub fn new(book: &Book) -> Self {
        Self { accounts: vec![Account::default(); book.budgets().len()], ..Self::default() }
    }

    /// Decides about a request that began at `at`, and holds what it may use where it passes. `numbers` are
    /// the budgets it is under. An id that is held already keeps its hold.
    pub fn admit(
        &mut self,
        book: &Book,
        numbers: &[u32],
        id: RequestId,
        asked: &Asked,
        at: Timestamp,
        now: Moment,
    ) -> Admission {
        let amount = |_: u32, budget: &Budget| asked.amount(budget.measure).ok_or(asked.unknown);
        self.admit_amounts(book, numbers, id, amount, (at, now))
    }

    /// Like [`Accounts::admit`], with an amount, or why nobody knows it, for each budget by its number.
    pub fn admit_amounts(
        &mut self,
        book: &Book,
        numbers: &[u32],
        id: RequestId,
        amount_of: impl Fn(u32, &Budget) -> Result<i128, Unknown>,
        (at, now): (Timestamp, Moment),
    ) -> Admission {
        self.expire(now.steady);
        let mut warnings = Vec::new();
        if self.holds.contains_key(&id) {
            return Admission::Pass { warnings };
        }
        let mut parts = Vec::with_capacity(numbers.len());
        for number in numbers {
            let Some((budget, account)) = self.find(book, *number) else { continue };
            let span = account.span(&budget.window, at);
            let amount = amount_of(*number, budget);
            let standing = account.standing(budget, span, at);
            if let Some(denial) = refusal(budget, account, &standing, amount, at) {
                return Admission::Deny(Box::new(denial));
            }
            let amount = amount.unwrap_or(0);
            warnings.extend(warning(budget, standing, amount));
            parts.push((*number, span.start, amount));
        }
        for (number, window, amount) in &parts {
            self.add_held(*number, *window, *amount);
        }
        if !parts.is_empty() {
            let expires = now.steady.saturating_add(HOLD_MICROS);
            self.expiries.insert((expires, id));
            self.holds.insert(id, Hold { parts, expires, alive: Weak::new() });
        }
        Admission::Pass { warnings }
    }

    /// States who is alive as long as the request of a hold is under way: while it is, the hold does not
    /// expire.
    pub fn keep(&mut self, id: RequestId, alive: Weak<Asked>) {
        if let Some(hold) = self.holds.get_mut(&id) {
            hold.alive = alive;
        }
    }

    /// A hold begins to last anew.
    pub fn renew(&mut self, id: RequestId, steady: u64) {
        let Some(hold) = self.holds.get_mut(&id) else { return };
        self.expiries.remove(&(hold.expires, id));
        hold.expires = steady.saturating_add(HOLD_MICROS);
        self.expiries.insert((hold.expires, id));
    }

    /// A hold becomes that of another id, whose record will release it.
    pub fn rename(&mut self, from: RequestId, to: RequestId) {
        if from == to || self.holds.contains_key(&to) {
            return;
        }
        let Some(hold) = self.holds.remove(&from) else { return };
        self.expiries.remove(&(hold.expires, from));
        self.expiries.insert((hold.expires, to));
        self.holds.insert(to, hold);
    }

    /// What is held for an id becomes what is known of it by now.
    pub fn resize(&mut self, book: &Book, id: RequestId, used: &Asked) {
        self.resize_amounts(book, id, |_, budget| used.amount(budget.measure));
    }

    /// Like [`Accounts::resize`], with an amount for each budget by its number.
    pub fn resize_amounts(
        &mut self,
        book: &Book,
        id: RequestId,
        amount_of: impl Fn(u32, &Budget) -> Option<i128>,
    ) {
        let Some(mut parts) = self.holds.get_mut(&id).map(|hold| std::mem::take(&mut hold.parts)) else {
            return;
        };
        for (number, window, held) in &mut parts {
            let amount = book.get(*number).and_then(|budget| amount_of(*number, budget));
            let Some(amount) = amount else { continue };
            self.add_held(*number, *window, amount.saturating_sub(*held));
            *held = amount;
        }
        if let Some(hold) = self.holds.get_mut(&id) {
            hold.parts = parts;
        }
    }

    /// Books what a request that began at `at` used under these budgets, and releases what was held for it.
    pub fn settle(&mut self, book: &Book, numbers: &[u32], id: RequestId, used: &Asked, at: Timestamp) {
        self.release(id);
        for number in numbers {
            self.charge(book, *number, used, at);
        }
    }

    /// Books what was used at `at` under one budget, as when the books are made from the ledger.
    pub fn charge(&mut self, book: &Book, number: u32, used: &Asked, at: Timestamp) {
        let amount = book.get(number).and_then(|budget| used.amount(budget.measure));
        self.charge_amount(book, number, amount.unwrap_or(0), at);
    }

    /// Books an amount at `at` under one budget.
    pub fn charge_amount(&mut self, book: &Book, number: u32, amount: i128, at: Timestamp) {
        let Some((budget, account)) = self.find(book, number).filter(|_| amount != 0) else { return };
        account.book(&budget.window, at, |sums| {
            sums.settled = sums.settled.saturating_add(amount);
            sums.young = sums.young.saturating_add(amount);
        });
    }

    /// From here on, what is booked is remembered apart, until it is marked again.
    pub fn mark(&mut self) {
        for sums in self.accounts.iter_mut().flat_map(|account| account.windows.values_mut()) {
            sums.young = 0;
        }
    }

    /// States what was taken at the last mark in the window that begins at `start`, and what of it is the
    /// bound of interrupted requests. What was booked since comes on top; whether there is any is returned.
    pub fn rebase(&mut self, number: u32, start: i64, (settled, estimated): (i128, i128)) -> bool {
        let Some(account) = self.account(number) else { return false };
        let sums = account.windows.entry(start).or_default();
        sums.settled = settled.saturating_add(sums.young);
        sums.estimated = estimated;
        let young = sums.young != 0;
        account.prune();
        young
    }

    /// A budget of `book` gets other terms. Where it counts something else from now on, what was booked
    /// and held under it is forgotten; else that stays.
    pub fn revise(
        &mut self,
        book: &mut Book,
        number: u32,
        (measure, window, limit): (Measure, Window, i128),
    ) {
        let Some(budget) = book.get_mut(number) else { return };
        let counts_else = budget.measure != measure;
        (budget.measure, budget.window, budget.limit) = (measure, window, limit);
        if let Some(account) = self.account(number) {
            account.last = None;
            if counts_else {
                *account = Account::default();
            }
        }
        if counts_else {
            for hold in self.holds.values_mut() {
                hold.parts.retain(|(of, _, _)| *of != number);
            }
        }
    }

    /// Books, for a request that began at `at` and was interrupted, what it was `held` for, where that is
    /// more than what is booked of it as `used`.
    pub fn charge_bound(&mut self, book: &Book, number: u32, held: &Asked, used: &Asked, at: Timestamp) {
        let Some((budget, account)) = self.find(book, number) else { return };
        let used = used.amount(budget.measure).unwrap_or(0);
        let Some(held) = held.amount(budget.measure).filter(|held| *held > used) else { return };
        let more = held.saturating_sub(used);
        account.book(&budget.window, at, |sums| {
            sums.settled = sums.settled.saturating_add(more);
            sums.estimated = sums.estimated.saturating_add(more);
        });
    }

    /// Sets the temporary changes of a budget's limit, in the order in which they were made.
    pub fn set_overrides(&mut self, number: u32, overrides: Vec<Override>) {
        if let Some(account) = self.account(number) {
            account.overrides = overrides;
        }
    }

    /// Gives up what is held for a request. Doing so again changes nothing.
    pub fn release(&mut self, id: RequestId) {
        let Some(hold) = self.holds.remove(&id) else { return };
        self.expiries.remove(&(hold.expires, id));
        for (number, window, amount) in hold.parts {
            self.add_held(number, window, amount.saturating_neg());
        }
    }

    /// Gives up holds that nobody released in their time, unless their requests are under way.
    pub fn expire(&mut self, steady: u64) {
        while let Some((expires, id)) = self.expiries.first().copied()
            && expires <= steady
        {
            let lives = self.holds.get(&id).is_some_and(|hold| hold.alive.strong_count() > 0);
            if lives {
                self.renew(id, steady);
            } else {
                self.expiries.remove(&(expires, id));
                self.release(id);
            }
        }
    }

    /// Holds that are there.
    #[must_use]
    pub fn holds(&self) -> usize {
        self.holds.len()
    }

    /// Where a budget stands.
    #[must_use]
    pub fn standing(&mut self, book: &Book, number: u32, now: Timestamp) -> Option<Standing> {
        let (budget, account) = self.find(book, number)?;
        let span = account.span(&budget.window, now);
        Some(account.standing(budget, span, now))
    }

    /// States that nothing is known of a budget before `at`: requests that begin earlier are refused by a
    /// hard one.
    pub fn known_from(&mut self, book: &Book, number: u32, at: Timestamp) {
        if let Some((budget, account)) = self.find(book, number) {
            account.known_from = budget.window.span(at).start;
        }
    }

    /// Whether what was spent of a budget in the window of `at` is known.
    #[must_use]
    pub fn is_known(&self, book: &Book, number: u32, at: Timestamp) -> bool {
        let account = usize::try_from(number).ok().and_then(|number| self.accounts.get(number));
        let start = book.get(number).map(|budget| budget.window.span(at).start);
        account.zip(start).is_some_and(|(account, start)| start >= account.known_from)
    }

    /// Takes over, from the accounts of an older book, those of budgets that count the same: name, scope,
    /// window and measure. Returns the numbers of the others, which know nothing yet. Holds go with them;
    /// those of a budget of which only the window changed belong to the new window in which they began.
    pub fn carry_over(book: &Book, old_book: &Book, old: Self) -> (Self, Vec<u32>) {
        let mut new = Self::new(book);
        let (mut renumbered, mut unknown) = (HashMap::new(), Vec::new());
        let alike = |a: &Budget, b: &Budget| a.name == b.name && a.scope == b.scope && a.measure == b.measure;
        for (number, budget) in (0_u32..).zip(book.budgets()) {
            let found = (0_u32..).zip(old_book.budgets()).find(|(_, other)| alike(budget, other));
            let is_same = found.is_some_and(|(_, other)| other.window == budget.window);
            if let Some((from, _)) = found {
                renumbered.insert(from, (number, (!is_same).then_some(&budget.window)));
            }
            match found.filter(|_| is_same) {
                Some((from, _)) => new.adopt(number, &old, from),
                None => unknown.push(number),
            }
        }
        new.expiries = old.expiries;
        new.holds = old.holds;
        for (id, hold) in &mut new.holds {
            let began = i64::try_from(id.millis()).unwrap_or(i64::MAX).saturating_mul(1_000);
            hold.parts.retain_mut(|(number, start, _)| match renumbered.get(number) {
                Some((to, window)) => {
                    *number = *to;
                    if let Some(window) = window {
                        *start = window.span(Timestamp::from_micros(began)).start;
                    }
                    true
                }
                None => false,
            });
        }
        for number in 0..new.accounts.len() {
            new.recount_held(u32::try_from(number).unwrap_or(u32::MAX));
        }
        (new, unknown)
    }

    /// Takes over, from other books, what they settled of the budget `from`, as that of the budget `number`.
    /// What is held stays as it is here.
    pub fn adopt(&mut self, number: u32, other: &Self, from: u32) {
        let found = usize::try_from(from).ok().and_then(|from| other.accounts.get(from));
        if let (Some(account), Some(place)) = (found, self.account(number)) {
            *place = account.clone();
        }
        self.recount_held(number);
    }

    /// Makes what is held of a budget anew from the holds.
    fn recount_held(&mut self, number: u32) {
        let parts: Vec<(i64, i128)> = self
            .holds
            .values()
            .flat_map(|hold| &hold.parts)
            .filter(|(of, _, _)| *of == number)
            .map(|(_, window, amount)| (*window, *amount))
            .collect();
        let Some(account) = self.account(number) else { return };
        account.held = 0;
        for sums in account.windows.values_mut() {
            sums.held = 0;
        }
        for (window, amount) in parts {
            self.add_held(number, window, amount);
        }
    }

    fn account(&mut self, number: u32) -> Option<&mut Account> {
        self.accounts.get_mut(usize::try_from(number).ok()?)
    }

    fn find<'b>(&mut self, book: &'b Book, number: u32) -> Option<(&'b Budget, &mut Account)> {
        Some((book.get(number)?, self.account(number)?))
    }

    fn add_held(&mut self, number: u32, window: i64, amount: i128) {
        let Some(account) = self.account(number) else { return };
        account.held = account.held.saturating_add(amount);
        let sums = account.windows.entry(window).or_default();
        sums.held = sums.held.saturating_add(amount);
        account.prune();
    }
}

impl Account {
    /// Books something in the window of `at`, if that is one that is known.
    fn book(&mut self, window: &Window, at: Timestamp, add: impl FnOnce(&mut Sums)) {
        let span = self.span(window, at);
        if span.start < self.known_from {
            return;
        }
        add(self.windows.entry(span.start).or_default());
        self.prune();
    }

    fn span(&mut self, window: &Window, at: Timestamp) -> Span {
        match self.last {
            Some(span) if span.contains(at) => span,
            _ => {
                let span = window.span(at);
                self.last = Some(span);
                span
            }
        }
    }

    /// Settled and held at `at`, whose window or step is `span`.
    fn standing(&self, budget: &Budget, span: Span, at: Timestamp) -> Standing {
        let (sums, span) = match &budget.window {
            Window::Calendar { .. } => (self.windows.get(&span.start).copied().unwrap_or_default(), span),
            // What is held may go into this stretch of the contract, whenever it began.
            Window::Fixed(span) => {
                let sums = self.windows.get(&span.start).copied().unwrap_or_default();
                (Sums { held: self.held, ..sums }, *span)
            }
            Window::Rolling { micros } => {
                let since = budget.window.since(at).micros();
                let mut all = Sums { held: self.held, ..Sums::default() };
                for sums in self.windows.range(since..).map(|(_, sums)| sums) {
                    all.settled = all.settled.saturating_add(sums.settled);
                    all.estimated = all.estimated.saturating_add(sums.estimated);
                }
                let start = at.micros().saturating_sub(*micros);
                (all, Span { start, end: at.micros().saturating_add(1) })
            }
        };
        let Sums { settled, estimated, held, young: _ } = sums;
        let (name, measure, base_limit) = (budget.name.clone(), budget.measure, budget.limit);
        let limit = limit_at(base_limit, &self.overrides, at);
        Standing { name, measure, limit, base_limit, settled, estimated, held, span }
    }

    /// Forgets the oldest windows when there are too many.
    fn prune(&mut self) {
        while self.windows.len() > WINDOWS_MAX {
            let oldest = self.windows.iter().find(|(_, sums)| sums.held == 0).map(|(start, _)| *start);
            let Some(start) = oldest else { return };
            self.windows.remove(&start);
            self.known_from = self.known_from.max(start.saturating_add(1));
        }
    }

    /// When a rolling window will have room for `missing` more, by what leaves it.
    fn room_at(&self, micros: i64, since: i64, missing: i128) -> Option<i64> {
        let mut leaving = 0_i128;
        for (start, sums) in self.windows.range(since..) {
            leaving = leaving.saturating_add(sums.settled);
            if leaving >= missing {
                return start.checked_add(micros)?.checked_add(step_of(micros));
            }
        }
        None
    }
}

/// Why a hard budget refuses, if it does.
fn refusal(
    budget: &Budget,
    account: &Account,
    standing: &Standing,
    amount: Result<i128, Unknown>,
    at: Timestamp,
) -> Option<Denial> {
    if budget.mode != Mode::Hard {
        return None;
    }
    let denial = |why, retry_micros| Some(Denial { standing: standing.clone(), why, retry_micros });
    let window = budget.window.span(at);
    if window.start < account.known_from {
        return denial(Why::Forgotten, None);
    }
    let asked = match (amount, budget.unbounded) {
        (Ok(asked), _) => asked,
        (Err(unknown), Unbounded::Refuse) => return denial(Why::Unbounded(unknown), None),
        // As long as anything is left: what nobody can bound is no way around a budget that is used up.
        (Err(_), Unbounded::Allow) => 1,
    };
    let missing = asked.saturating_sub(standing.left());
    if missing <= 0 {
        return None;
    }
    let retry = if asked > standing.limit {
        None
    } else if missing <= standing.held {
        Some(SOON_MICROS)
    } else {
        let room = match &budget.window {
            Window::Calendar { .. } => Some(window.end),
            Window::Fixed(span) => Some(span.end),
            Window::Rolling { micros } => account.room_at(*micros, budget.window.since(at).micros(), missing),
        };
        room.map(|room| u64::try_from(room.saturating_sub(at.micros())).unwrap_or(0))
    };
    denial(Why::Over { asked }, retry)
}

fn warning(budget: &Budget, mut standing: Standing, amount: i128) -> Option<Warning> {
    standing.held = standing.held.saturating_add(amount);
    let used = standing.settled.saturating_add(standing.held);
    let percent = used.saturating_mul(100).checked_div(standing.limit.max(1)).unwrap_or(0);
    let reached = budget.thresholds.iter().rev().find(|threshold| percent >= i128::from(**threshold));
    let is_over = used > standing.limit && budget.mode != Mode::Hard;
    if !is_over && reached.is_none() {
        return None;
    }
    let percent = u32::try_from(percent.clamp(0, i128::from(u32::MAX))).unwrap_or(u32::MAX);
    let percent = if is_over { percent.max(100) } else { reached.map_or(percent, |t| u32::from(*t)) };
    Some(Warning { standing, mode: budget.mode, percent })
}
