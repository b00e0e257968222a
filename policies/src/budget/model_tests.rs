//! Budgets against a model that remembers everything and adds it up anew each time.

use super::window::{Unit, Window};
use super::*;
use bursar_domain::{Money, RequestId, Timestamp};
use jiff::tz::TimeZone;
use proptest::prelude::*;

const HOUR: i64 = 3_600_000_000;
/// A Sunday in Paris on which clocks are set back.
const START: i64 = 1_792_886_400_000_000;

fn name(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn calendar(unit: Unit, zone: &str) -> Window {
    Window::Calendar { unit, zone: TimeZone::get(zone).unwrap(), first_month: 1 }
}

pub(super) fn budget(text: &str, window: Window, limit: i128) -> Budget {
    Budget {
        name: name(text),
        scope: Scope::default(),
        window,
        measure: Measure::Tokens,
        limit,
        mode: Mode::Hard,
        unbounded: Unbounded::Refuse,
        thresholds: Vec::new(),
    }
}

fn book() -> Book {
    let team = |team: &str, budget: Budget| Budget {
        scope: Scope { team: Some(name(team)), ..Scope::default() },
        ..budget
    };
    Book::new(vec![
        budget("everyone", calendar(Unit::Day, "Europe/Paris"), 500),
        team("a", budget("a-hour", calendar(Unit::Hour, "Asia/Kolkata"), 120)),
        team("a", Budget { mode: Mode::Soft, ..budget("a-soft", calendar(Unit::Month, "UTC"), 50) }),
        team("b", budget("b-rolling", Window::Rolling { micros: 6 * HOUR }, 200)),
        Budget {
            scope: Scope { model: Some(ModelPattern::new(name("dear*"))), ..Scope::default() },
            measure: Measure::Money(bursar_domain::Currency::USD),
            ..budget("dear-week", calendar(Unit::Week, "America/New_York"), 1_000)
        },
    ])
}

#[derive(Clone, Debug)]
enum Step {
    /// Team, model, tokens asked for.
    Reserve(bool, bool, u64),
    /// Which of the requests so far, and how many tokens it used.
    Settle(prop::sample::Index, u64),
    Void(prop::sample::Index),
    /// The wall clock moves by so many minutes, the steady one by as many or by one.
    Clock(i64),
    Expire,
    /// Holds are gone; the accounts are made from what was settled.
    Crash,
    /// The same book in another order.
    Reload,
    /// A budget gets so much more, or so much in all, for so many minutes.
    Override(prop::sample::Index, bool, u64, i64),
    /// One of the overrides is taken back.
    Revoke(prop::sample::Index),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<bool>(), any::<bool>(), 0_u64..150).prop_map(|(t, m, n)| Step::Reserve(t, m, n)),
        4 => (any::<prop::sample::Index>(), 0_u64..180).prop_map(|(i, n)| Step::Settle(i, n)),
        2 => any::<prop::sample::Index>().prop_map(Step::Void),
        3 => (-3_000_i64..4_000).prop_map(Step::Clock),
        1 => Just(Step::Expire),
        1 => Just(Step::Crash),
        1 => Just(Step::Reload),
        1 => (any::<prop::sample::Index>(), any::<bool>(), 0_u64..300, 1_i64..5_000)
            .prop_map(|(i, adds, n, minutes)| Step::Override(i, adds, n, minutes)),
        1 => any::<prop::sample::Index>().prop_map(Step::Revoke),
    ]
}

#[derive(Clone, Debug)]
struct Request {
    id: RequestId,
    team: &'static str,
    model: &'static str,
    at: Timestamp,
    asked: u64,
    expires: u64,
    /// Held, settled with so much, or given up.
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Held,
    Settled(u64),
    Gone,
}

/// The reference: everything that ever happened.
#[derive(Default)]
struct Model {
    requests: Vec<Request>,
    /// Budget, what is changed, until when; in the order in which they were made.
    overrides: Vec<(Label, Override)>,
}

fn in_measure(measure: Measure, tokens: u64) -> i128 {
    // Each token costs two pico-units.
    if measure == Measure::Tokens { i128::from(tokens) } else { 2 * i128::from(tokens) }
}

fn amounts(tokens: u64) -> Asked {
    let cost = Money::from_pico(bursar_domain::Currency::USD, 2 * i128::from(tokens));
    Asked { tokens: Some(tokens), cost: Some(cost), ..Asked::default() }
}

fn numbers(book: &Book, team: &'static str, model: &'static str) -> Vec<u32> {
    let mut out = Vec::new();
    let facts = Facts {
        team: Some(team),
        workload: None,
        customer: None,
        provider: "openai",
        model: Some(model),
        model_served: None,
        may_be_any_model: false,
        has_tag: &|_, _| false,
    };
    book.matching(&facts, &mut out);
    out
}

impl Model {
    fn limit(&self, budget: &Budget, at: Timestamp) -> i128 {
        let of = |(name, over): &&(Label, Override)| *name == budget.name && over.until > at;
        let (mut limit, mut more) = (budget.limit, 0);
        for (_, over) in self.overrides.iter().filter(of) {
            match over.change {
                Change::Limit(new) => limit = new,
                Change::Add(new) => more += new,
            }
        }
        limit + more
    }

    fn standing(&self, book: &Book, number: u32, at: Timestamp) -> (i128, i128) {
        let budget = book.get(number).unwrap();
        let (mut settled, mut held) = (0, 0);
        for request in &self.requests {
            if !numbers(book, request.team, request.model).contains(&number) {
                continue;
            }
            let (begins, rolling) = match budget.window {
                Window::Calendar { .. } => (budget.window.span(at) == budget.window.span(request.at), false),
                Window::Fixed(_) => panic!("contracts are not in this model"),
                Window::Rolling { .. } => {
                    let step = budget.window.span(request.at).start;
                    (step >= budget.window.since(at).micros(), true)
                }
            };
            match request.state {
                State::Held if begins || rolling => held += in_measure(budget.measure, request.asked),
                State::Settled(used) if begins => settled += in_measure(budget.measure, used),
                _ => {}
            }
        }
        (settled, held)
    }
}

struct Run {
    book: Book,
    accounts: Accounts,
    model: Model,
    now: Moment,
}

impl Run {
    fn new() -> Self {
        let book = book();
        let accounts = Accounts::new(&book);
        let now = Moment { wall: Timestamp::from_micros(START), steady: 0 };
        Self { book, accounts, model: Model::default(), now }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Reserve(team, model, tokens) => {
                let team = if *team { "a" } else { "b" };
                self.reserve(team, if *model { "dear-1" } else { "cheap" }, *tokens);
            }
            Step::Settle(index, used) => self.settle(*index, *used),
            Step::Void(index) => {
                if let Some(request) = self.pick(*index) {
                    if request.state == State::Held {
                        request.state = State::Gone;
                    }
                    let id = request.id;
                    self.accounts.release(id);
                    self.accounts.release(id);
                }
            }
            Step::Clock(minutes) => {
                self.now.wall = Timestamp::from_micros(self.now.wall.micros() + minutes * 60_000_000);
                self.now.steady += 60_000_000 * minutes.unsigned_abs() % accounts::HOLD_MICROS;
            }
            Step::Expire => {
                self.now.steady += accounts::HOLD_MICROS;
                self.accounts.expire(self.now.steady);
            }
            Step::Crash => self.rebuild(),
            Step::Reload => {
                let mut budgets = self.book.budgets().to_vec();
                budgets.reverse();
                let new = Book::new(budgets);
                let old = std::mem::take(&mut self.accounts);
                let (accounts, unknown) = Accounts::carry_over(&new, &self.book, old);
                assert_eq!(unknown, Vec::<u32>::new());
                (self.book, self.accounts) = (new, accounts);
            }
            Step::Override(index, adds, amount, minutes) => {
                let name = self.book.budgets()[index.index(self.book.budgets().len())].name.clone();
                let amount = i128::from(*amount);
                let change = if *adds { Change::Add(amount) } else { Change::Limit(amount) };
                let until = Timestamp::from_micros(self.now.wall.micros() + minutes * 60_000_000);
                let id = RequestId::from_bits(self.model.overrides.len() as u128);
                self.model.overrides.push((name, Override { id, change, until }));
                self.tell_overrides();
            }
            Step::Revoke(index) => {
                if !self.model.overrides.is_empty() {
                    let at = index.index(self.model.overrides.len());
                    self.model.overrides.remove(at);
                    self.tell_overrides();
                }
            }
        }
        for request in &mut self.model.requests {
            if request.state == State::Held && request.expires <= self.now.steady {
                request.state = State::Gone;
            }
        }
        self.accounts.expire(self.now.steady);
        self.check();
    }

    fn tell_overrides(&mut self) {
        for (number, budget) in (0..).zip(self.book.budgets()) {
            let of = self.model.overrides.iter().filter(|(name, _)| *name == budget.name);
            self.accounts.set_overrides(number, of.map(|(_, over)| *over).collect());
        }
    }

    fn pick(&mut self, index: prop::sample::Index) -> Option<&mut Request> {
        let count = self.model.requests.len();
        (count > 0).then(|| &mut self.model.requests[index.index(count)])
    }

    fn reserve(&mut self, team: &'static str, model: &'static str, tokens: u64) {
        let id = RequestId::from_bits(self.model.requests.len() as u128 + 1);
        let numbers = numbers(&self.book, team, model);
        let at = self.now.wall;
        let fits = numbers.iter().all(|number| {
            let budget = self.book.get(*number).unwrap();
            let (settled, held) = self.model.standing(&self.book, *number, at);
            let after = settled + held + in_measure(budget.measure, tokens);
            budget.mode != Mode::Hard || after <= self.model.limit(budget, at)
        });
        let admission = self.accounts.admit(&self.book, &numbers, id, &amounts(tokens), at, self.now);
        assert_eq!(matches!(admission, Admission::Pass { .. }), fits, "{admission:?}");
        let state = if fits { State::Held } else { State::Gone };
        let expires = self.now.steady + accounts::HOLD_MICROS;
        self.model.requests.push(Request { id, team, model, at, asked: tokens, expires, state });
    }

    fn settle(&mut self, index: prop::sample::Index, used: u64) {
        let Some(request) = self.pick(index) else { return };
        // The ledger settles each id once; a record may come after its hold expired.
        if matches!(request.state, State::Settled(_)) {
            return;
        }
        request.state = State::Settled(used);
        let request = request.clone();
        let numbers = numbers(&self.book, request.team, request.model);
        self.accounts.settle(&self.book, &numbers, request.id, &amounts(used), request.at);
    }

    fn rebuild(&mut self) {
        self.accounts = Accounts::new(&self.book);
        // Overrides are in the ledger.
        self.tell_overrides();
        for request in &mut self.model.requests {
            match request.state {
                State::Held => request.state = State::Gone,
                State::Settled(used) => {
                    for number in numbers(&self.book, request.team, request.model) {
                        self.accounts.charge(&self.book, number, &amounts(used), request.at);
                    }
                }
                State::Gone => {}
            }
        }
    }

    fn check(&mut self) {
        for number in 0..self.book.budgets().len() as u32 {
            let standing = self.accounts.standing(&self.book, number, self.now.wall).unwrap();
            let expected = self.model.standing(&self.book, number, self.now.wall);
            assert_eq!((standing.settled, standing.held), expected, "{}", standing.name);
            let limit = self.model.limit(&self.book.budgets()[number as usize], self.now.wall);
            assert_eq!(standing.limit, limit, "{}", standing.name);
        }
        let held = self.model.requests.iter().filter(|request| request.state == State::Held).count();
        assert_eq!(self.accounts.holds(), held);
    }
}

/// Ten thousand sequences, or as many more as `PROPTEST_CASES` asks for.
fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    ProptestConfig { cases: asked.cases.max(10_000), ..asked }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn accounts_agree_with_a_model_that_adds_everything_up_anew(
        steps in prop::collection::vec(any_step(), 1..25),
    ) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step);
        }
    }
}

fn admit(accounts: &mut Accounts, book: &Book, id: u128, tokens: u64, at: i64) -> Admission {
    let now = Moment { wall: Timestamp::from_micros(at), steady: 0 };
    accounts.admit(book, &[0], RequestId::from_bits(id), &amounts(tokens), now.wall, now)
}

fn denied(admission: Admission) -> Denial {
    match admission {
        Admission::Deny(denial) => *denial,
        Admission::Pass { .. } => panic!("it passed"),
    }
}

#[test]
fn exactly_as_many_pass_as_fit_and_the_next_after_a_release() {
    let book = Book::new(vec![budget("b", calendar(Unit::Month, "UTC"), 137 * 30)]);
    let mut accounts = Accounts::new(&book);
    let passed =
        (0..1_000).filter(|id| matches!(admit(&mut accounts, &book, *id, 30, START), Admission::Pass { .. }));
    assert_eq!(passed.count(), 137);
    let denial = denied(admit(&mut accounts, &book, 2_000, 30, START));
    assert_eq!((denial.why, denial.standing.held), (Why::Over { asked: 30 }, 137 * 30));
    assert_eq!(denial.retry_micros, Some(5_000_000), "holds will be released");
    accounts.settle(&book, &[0], RequestId::from_bits(0), &amounts(1), Timestamp::from_micros(START));
    let _ = admit(&mut accounts, &book, 2_001, 29, START);
    assert_eq!(accounts.standing(&book, 0, Timestamp::from_micros(START)).unwrap().left(), 0);
}

#[test]
fn a_refusal_says_when_to_come_again() {
    let day = Book::new(vec![budget("day", calendar(Unit::Day, "UTC"), 10)]);
    let mut accounts = Accounts::new(&day);
    let at = Timestamp::from_micros(START + HOUR);
    accounts.charge(&day, 0, &amounts(8), at);
    let denial = denied(admit(&mut accounts, &day, 1, 5, at.micros()));
    assert_eq!(denial.retry_micros, Some(23 * HOUR as u64), "at midnight");
    assert_eq!(denied(admit(&mut accounts, &day, 1, 11, at.micros())).retry_micros, None, "never");

    let rolling = Book::new(vec![budget("r", Window::Rolling { micros: HOUR }, 10)]);
    let mut accounts = Accounts::new(&rolling);
    accounts.charge(&rolling, 0, &amounts(8), at);
    let later = at.micros() + HOUR / 2;
    let denial = denied(admit(&mut accounts, &rolling, 1, 5, later));
    let again = later + denial.retry_micros.unwrap() as i64;
    assert!(matches!(admit(&mut accounts, &rolling, 1, 5, again), Admission::Pass { .. }));
}

#[test]
fn what_cannot_be_bounded_is_refused_or_passes_without_a_hold() {
    let ask = |unbounded| {
        let book = Book::new(vec![Budget { unbounded, ..budget("b", calendar(Unit::Day, "UTC"), 10) }]);
        let now = Moment { wall: Timestamp::from_micros(START), steady: 0 };
        Accounts::new(&book).admit(&book, &[0], RequestId::from_bits(1), &Asked::default(), now.wall, now)
    };
    assert_eq!(denied(ask(Unbounded::Refuse)).why, Why::Unbounded(Unknown::Body));
    assert_eq!(ask(Unbounded::Allow), Admission::Pass { warnings: Vec::new() });
}

#[test]
fn soft_budgets_warn_above_their_limit_and_thresholds_warn_before() {
    let soft = Budget {
        mode: Mode::Soft,
        thresholds: vec![50, 80],
        ..budget("soft", calendar(Unit::Day, "UTC"), 100)
    };
    let book = Book::new(vec![soft]);
    let mut accounts = Accounts::new(&book);
    let mut percents = Vec::new();
    for (id, tokens) in [(1, 40), (2, 15), (3, 30), (4, 50)] {
        match admit(&mut accounts, &book, id, tokens, START) {
            Admission::Pass { warnings } => percents.push(warnings.first().map(|w| w.percent)),
            Admission::Deny(denial) => panic!("{denial:?}"),
        }
    }
    assert_eq!(percents, [None, Some(50), Some(80), Some(135)]);
}

#[test]
fn a_clock_before_all_that_is_known_is_refused_and_one_that_comes_back_finds_its_window() {
    let book = Book::new(vec![budget("day", calendar(Unit::Day, "UTC"), 10)]);
    let mut accounts = Accounts::new(&book);
    accounts.known_from(&book, 0, Timestamp::from_micros(START));
    accounts.charge(&book, 0, &amounts(10), Timestamp::from_micros(START));
    assert_eq!(denied(admit(&mut accounts, &book, 1, 1, START - 24 * HOUR)).why, Why::Forgotten);
    let _ = admit(&mut accounts, &book, 2, 5, START + 24 * HOUR);
    assert_eq!(denied(admit(&mut accounts, &book, 3, 1, START)).why, Why::Over { asked: 1 });
}

#[test]
fn run_out_is_told_when_it_comes_before_the_end_of_the_window() {
    let book = Book::new(vec![budget("day", calendar(Unit::Day, "UTC"), 100)]);
    let mut accounts = Accounts::new(&book);
    let start = book.budgets()[0].window.span(Timestamp::from_micros(START)).start;
    accounts.charge(&book, 0, &amounts(50), Timestamp::from_micros(start));
    let at = |hours: i64| Timestamp::from_micros(start + hours * HOUR);
    let standing = accounts.standing(&book, 0, at(6)).unwrap();
    assert_eq!(standing.runs_out_at(at(6)), Some(at(12)));
    assert_eq!(standing.runs_out_at(at(20)), None);
}

#[test]
fn a_hold_lasts_as_long_as_its_exchange_lives_and_an_hour_longer_than_nobody() {
    let book = Book::new(vec![budget("b", calendar(Unit::Month, "UTC"), 100)]);
    let mut accounts = Accounts::new(&book);
    let alive = std::sync::Arc::new(amounts(40));
    let _ = admit(&mut accounts, &book, 1, 40, START);
    let _ = admit(&mut accounts, &book, 2, 30, START);
    accounts.keep(RequestId::from_bits(1), std::sync::Arc::downgrade(&alive));
    let held =
        |accounts: &mut Accounts| accounts.standing(&book, 0, Timestamp::from_micros(START)).unwrap().held;
    for hours in 1..5 {
        accounts.expire(hours * accounts::HOLD_MICROS);
        assert_eq!(held(&mut accounts), 40, "only the one that nobody keeps is gone");
    }
    drop(alive);
    accounts.expire(5 * accounts::HOLD_MICROS - 1);
    assert_eq!(held(&mut accounts), 40);
    accounts.expire(5 * accounts::HOLD_MICROS);
    assert_eq!((held(&mut accounts), accounts.holds()), (0, 0));
}

#[test]
fn a_renewed_hold_lasts_anew_and_a_renamed_one_ends_with_the_other_id() {
    let book = Book::new(vec![budget("b", calendar(Unit::Month, "UTC"), 100)]);
    let mut accounts = Accounts::new(&book);
    let (one, two) = (RequestId::from_bits(1), RequestId::from_bits(2));
    let _ = admit(&mut accounts, &book, 1, 40, START);
    accounts.renew(one, accounts::HOLD_MICROS - 1);
    accounts.expire(accounts::HOLD_MICROS);
    assert_eq!(accounts.holds(), 1);
    accounts.rename(one, two);
    accounts.release(one);
    let at = Timestamp::from_micros(START);
    assert_eq!(accounts.standing(&book, 0, at).unwrap().held, 40);
    accounts.resize(&book, two, &Asked::default());
    assert_eq!(accounts.standing(&book, 0, at).unwrap().held, 40, "nothing is known");
    accounts.resize(&book, two, &amounts(7));
    assert_eq!(accounts.standing(&book, 0, at).unwrap().held, 7);
    accounts.settle(&book, &[0], two, &amounts(7), at);
    let standing = accounts.standing(&book, 0, at).unwrap();
    assert_eq!((standing.settled, standing.held, accounts.holds()), (7, 0, 0));
}

#[test]
fn what_was_interrupted_counts_as_its_bound_and_is_told_apart() {
    let book = Book::new(vec![budget("b", calendar(Unit::Month, "UTC"), 100)]);
    let mut accounts = Accounts::new(&book);
    let at = Timestamp::from_micros(START);
    accounts.charge(&book, 0, &amounts(3), at);
    accounts.charge_bound(&book, 0, &amounts(40), &amounts(3), at);
    accounts.charge_bound(&book, 0, &amounts(2), &amounts(3), at);
    accounts.charge_bound(&book, 0, &Asked::default(), &Asked::default(), at);
    let standing = accounts.standing(&book, 0, at).unwrap();
    assert_eq!((standing.settled, standing.estimated), (40, 37));
}

#[test]
fn a_model_is_meant_if_it_was_asked_for_or_answered_or_nobody_knows() {
    let scope = Scope { model: Some(ModelPattern::new(name("dear*"))), ..Scope::default() };
    let check = |model, model_served, may_be_any_model, expected| {
        let facts = Facts {
            team: None,
            workload: None,
            customer: None,
            provider: "p",
            model,
            model_served,
            may_be_any_model,
            has_tag: &|_, _| false,
        };
        assert_eq!(scope.matches(&facts), expected, "{model:?} {model_served:?} {may_be_any_model}");
    };
    check(Some("dear-1"), None, false, true);
    check(Some("alias"), Some("dear-1"), false, true);
    check(Some("dear"), Some("cheap"), false, true);
    check(Some("cheap"), Some("cheap-2"), false, false);
    check(Some("cheap"), None, true, true);
    check(None, None, false, false);
}
