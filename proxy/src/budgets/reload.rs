//! Other budgets instead of those in force, without losing what was spent, what is held, or a request.
//!
//! A budget that counts what one of the same name counted before goes on with its account, also under
//! another limit or mode. What any other has spent in its window is read from the ledger first, while the old
//! budgets stay in force; what is settled meanwhile is remembered and booked where the ledger's answer came
//! too early to have it.
//!
//! Invariants
//! - Each record is booked once: by the ledger's answer, up to its sequence, or by what was heard since.
//! - Either all budgets change or none does.
//! - A request that is under way keeps what is held for it, under every budget that goes on.
//!
//! Not here: reading what was spent (`budgets`), reading the configuration (`crate::reload`).

use super::{Budgets, State};
use bursar_domain::Timestamp;
use bursar_ledger::{Ledger, QueryError};
use bursar_policies::budget::{Accounts, Asked, Book, Budget, Facts};
use std::sync::Arc;

/// Most records that may be settled while the ledger answers: some minutes of the busiest sidecar.
const LATER_MAX: usize = 1 << 20;

/// Why budgets could not be changed; the old ones are in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// What was spent is not known.
    #[error("cannot read from the ledger what the new budgets have spent")]
    Ledger(#[source] QueryError),
    /// Too much happened meanwhile.
    #[error(
        "more than {LATER_MAX} records came in while the ledger was read; reload again when it is quieter, or restart"
    )]
    TooBusy,
    /// What the contracts of new budgets have left is not known.
    #[error(transparent)]
    Contracts(#[from] super::LookError),
}

/// What of the ledger was read: for these budgets, the records that began in this time, up to a sequence.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) numbers: Vec<u32>,
    pub(super) from: i64,
    pub(super) to: Option<i64>,
    pub(super) through: u64,
}

impl Read {
    /// Whether the ledger's answer would have had this, had it come by then.
    fn is_about(&self, heard: &Heard) -> bool {
        let at = heard.at.micros();
        self.numbers.contains(&heard.number) && at >= self.from && self.to.is_none_or(|to| at < to)
    }
}

/// Budgets of which the ledger is being asked.
#[derive(Debug)]
pub(super) struct Incoming {
    book: Book,
    heard: Vec<Heard>,
    is_full: bool,
}

/// What was settled under one of them meanwhile.
#[derive(Debug)]
struct Heard {
    number: u32,
    used: Asked,
    at: Timestamp,
    /// `None`: the ledger will never have it.
    sequence: Option<u64>,
}

impl Incoming {
    /// A record was settled.
    pub(super) fn hear(
        &mut self,
        facts: &Facts<'_>,
        used: &Asked,
        at: Timestamp,
        sequence: Option<u64>,
        numbers: &mut Vec<u32>,
    ) {
        self.book.matching(facts, numbers);
        if self.heard.len().saturating_add(numbers.len()) > LATER_MAX {
            self.is_full = true;
            return;
        }
        let heard = numbers.iter().map(|number| Heard { number: *number, used: *used, at, sequence });
        self.heard.extend(heard);
    }
}

impl Budgets {
    /// From now on these budgets are in force. Blocks while the ledger is read, which only budgets need that
    /// are new or count something else than before.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn replace(&self, budgets: Vec<Budget>, ledger: &Ledger, now: Timestamp) -> Result<(), ReloadError> {
        let book = Book::new(budgets);
        let fresh: Vec<Budget> = {
            let (_, unknown) = Accounts::carry_over(&book, &self.book(), Accounts::new(&self.book()));
            unknown.iter().filter_map(|number| book.get(*number)).cloned().collect()
        };
        let spent = self.read_fresh(fresh, ledger, now)?;
        self.put_in_force(book, spent)
    }

    /// Changes over to `book`, of whose fresh budgets the ledger told what was spent.
    fn put_in_force(&self, book: Book, (mut read, reads): (State, Vec<Read>)) -> Result<(), ReloadError> {
        let mut state = self.lock();
        let heard = state.incoming.take();
        let State { accounts, .. } = &mut read;
        if let Some(Incoming { book: of, heard, is_full }) = heard {
            if is_full {
                return Err(ReloadError::TooBusy);
            }
            for one in heard {
                let through = reads.iter().filter(|read| read.is_about(&one)).map(|read| read.through).max();
                if one.sequence.is_none_or(|sequence| through.is_none_or(|through| sequence > through)) {
                    accounts.charge(&of, one.number, &one.used, one.at);
                }
            }
        }
        let old = std::mem::take(&mut state.accounts);
        let (mut accounts, unknown) = Accounts::carry_over(&book, &self.book(), old);
        for (from, number) in (0_u32..).zip(unknown) {
            accounts.adopt(number, &read.accounts, from);
        }
        state.accounts = accounts;
        state.enforce(&book);
        self.book.store(Arc::new(book));
        Ok(())
    }

    /// What the ledger knows of these budgets, while whatever is settled is remembered.
    fn read_fresh(
        &self,
        fresh: Vec<Budget>,
        ledger: &Ledger,
        now: Timestamp,
    ) -> Result<(State, Vec<Read>), ReloadError> {
        if fresh.is_empty() {
            return Ok((State::default(), Vec::new()));
        }
        let book = Book::new(fresh.clone());
        self.lock().incoming = Some(Incoming { book, heard: Vec::new(), is_full: false });
        let books = Self::new(fresh);
        // It begins with a checkpoint: what was settled before anybody listened is in the answers.
        match books.read(ledger, now) {
            Ok(reads) => Ok((std::mem::take(&mut *books.lock()), reads)),
            Err(error) => {
                self.lock().incoming = None;
                Err(ReloadError::Ledger(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bursar_domain::{
        Anomalies, Cost, Currency, Identity, Label, Metering, Outcome, RequestId, SystemClock, TokenClass,
        Usage, UsageRecord, UsageSource,
    };
    use bursar_ledger::{Options, Wait};
    use bursar_policies::budget::window::Window;
    use bursar_policies::budget::{Measure, Mode, Scope, Unbounded};

    const START: Timestamp = Timestamp::from_micros(1_795_348_800_000_000);

    fn budget(name: &str) -> Budget {
        Budget {
            name: Label::new(name).unwrap(),
            scope: Scope::default(),
            window: Window::Rolling { micros: 3_600_000_000 },
            measure: Measure::Tokens,
            limit: 1_000,
            mode: Mode::Hard,
            unbounded: Unbounded::Refuse,
            thresholds: Vec::new(),
        }
    }

    fn record(number: u128, tokens: u64) -> Box<UsageRecord> {
        let mut usage = Usage::unknown();
        usage.set(TokenClass::InputFresh, tokens);
        Box::new(UsageRecord {
            id: RequestId::new(START, number),
            started_at: START,
            ended_at: START,
            identity: Arc::new(Identity::unallocated()),
            route: Label::fixed("r"),
            provider: Label::fixed("openai"),
            api: Label::fixed("chat"),
            model_requested: None,
            model_served: None,
            tier: None,
            region: None,
            stream: false,
            http_status: Some(200),
            outcome: Outcome::Ok,
            metering: Metering::Count,
            usage,
            usage_source: UsageSource::Provider,
            counted_by: None,
            by_model: Vec::new(),
            usage_raw: None,
            provider_cost: None,
            cost: None,
            upstream_request_id: None,
            meter_id: None,
            trace_id: None,
            latency_us: 0,
            ttft_us: None,
            bytes_in: 0,
            bytes_out: 0,
            anomalies: Anomalies::default(),
        })
    }

    #[test]
    fn what_is_settled_before_the_answer_and_after_it_is_booked_once() {
        let dir = tempfile::tempdir().unwrap();
        let budgets = Arc::new(Budgets::new(vec![budget("old")]));
        let options = Options { observer: Some(budgets.clone()), ..Options::new(&dir.path().join("ledger")) };
        let pricer = Arc::new(|_: &UsageRecord| Cost::unpriced(Currency::USD));
        let (ledger, _) = Ledger::open(options, Arc::new(SystemClock), pricer).unwrap();
        budgets.load(&ledger, START).unwrap();
        drop(ledger.append(record(1, 1), Wait::No).unwrap());

        let fresh = vec![budget("new")];
        let spent = budgets.read_fresh(fresh.clone(), &ledger, START).unwrap();
        drop(ledger.append(record(2, 10), Wait::No).unwrap());
        ledger.checkpoint().unwrap();
        budgets.book_lost(&record(3, 100), true);
        budgets.put_in_force(Book::new(fresh), spent).unwrap();

        let standing = budgets.standing(0, START).unwrap();
        assert_eq!((standing.name.as_str(), standing.settled), ("new", 111));
        drop(ledger.append(record(4, 1_000), Wait::No).unwrap());
        ledger.checkpoint().unwrap();
        assert_eq!(budgets.standing(0, START).unwrap().settled, 1_111);
        ledger.close().unwrap();
    }

    #[test]
    fn when_too_much_happens_meanwhile_the_old_budgets_stay() {
        let budgets = Budgets::new(vec![budget("old")]);
        let book = Book::new(vec![budget("new")]);
        budgets.lock().incoming = Some(Incoming { book: book.clone(), heard: Vec::new(), is_full: true });
        let refused = budgets.put_in_force(book, (State::default(), Vec::new())).unwrap_err();
        assert!(refused.to_string().contains("reload again"), "{refused}");
        assert_eq!(budgets.standing(0, START).unwrap().name.as_str(), "old");
        assert!(budgets.lock().incoming.is_none());
    }
}
