//! Measures what admission costs with 1,000 budgets: finding those of a request, deciding, holding and
//! settling; and what a rule costs.
//!
//! `cargo run --release -p bursar-policies --example admission_rate`
//!
//! Not here: assertions on time; no test may depend on it.

use bursar_domain::{Label, RequestId, Tags, Timestamp};
use bursar_policies::budget::window::{Unit, Window};
use bursar_policies::budget::{
    Accounts, Admission, Asked, Book, Budget, Facts, Measure, Mode, Moment, Scope, Unbounded,
};
use bursar_policies::rule::{Action, Condition, Estimate, Fail, Rule, RuleFacts, Rules};
use jiff::tz::TimeZone;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

const CALLS: u32 = 200_000;
const AT: Timestamp = Timestamp::from_micros(1_795_348_800_000_000);

fn label(text: &str) -> Label {
    Label::lossy(text).unwrap_or_else(|| Label::fixed("x"))
}

fn budget(name: &str, scope: Scope, window: Window) -> Budget {
    Budget {
        name: label(name),
        scope,
        window,
        measure: Measure::Tokens,
        limit: i128::from(u64::MAX),
        mode: Mode::Hard,
        unbounded: Unbounded::Refuse,
        thresholds: vec![50, 80],
    }
}

/// A thousand budgets, of which a request is under `own` and under five that mean everybody.
fn book(own: usize) -> Book {
    let zone = TimeZone::get("Europe/Paris").unwrap_or(TimeZone::UTC);
    let month = || Window::Calendar { unit: Unit::Month, zone: zone.clone(), first_month: 1 };
    let everybody = (0..5).map(|n| budget(&format!("all {n}"), Scope::default(), month()));
    let others = (0..995_usize.saturating_sub(own)).map(|n| {
        let scope = Scope { team: Some(label(&format!("team {n}"))), ..Scope::default() };
        budget(&format!("other {n}"), scope, month())
    });
    let own = (0..own).map(|n| {
        let scope = Scope { team: Some(label("checkout")), ..Scope::default() };
        let window = if n % 2 == 0 { month() } else { Window::Rolling { micros: 86_400_000_000 } };
        budget(&format!("own {n}"), scope, window)
    });
    Book::new(everybody.chain(others).chain(own).collect())
}

#[expect(clippy::disallowed_methods, reason = "a measurement of real time; there is no runtime to pause")]
fn main() {
    for own in [1, 10, 100, 995] {
        let book = book(own);
        let mut accounts = Accounts::new(&book);
        let mut numbers = Vec::new();
        let facts = Facts {
            team: Some("checkout"),
            workload: Some("support-bot"),
            customer: Some("acme"),
            provider: "openai",
            model: Some("gpt-4o-mini"),
            model_served: None,
            may_be_any_model: false,
            has_tag: &|_, _| false,
        };
        let asked = Asked { tokens: Some(1_000), ..Asked::default() };
        let (mut admitting, mut settling) = (Duration::ZERO, Duration::ZERO);
        let calls = if own > 100 { CALLS / 50 } else { CALLS };
        for n in 0..calls {
            let id = RequestId::new(AT, u128::from(n));
            let begin = Instant::now();
            book.matching(black_box(&facts), &mut numbers);
            let now = Moment { wall: AT, steady: u64::from(n) };
            let admission = accounts.admit(&book, &numbers, id, black_box(&asked), AT, now);
            admitting += begin.elapsed();
            assert!(matches!(admission, Admission::Pass { .. }));
            let begin = Instant::now();
            accounts.settle(&book, &numbers, id, &asked, AT);
            settling += begin.elapsed();
        }
        println!(
            "1,000 budgets, a request under {}: {:?} to admit, {:?} to settle",
            numbers.len(),
            admitting / calls,
            settling / calls
        );
    }
    rules();
}

#[expect(clippy::disallowed_methods, reason = "a measurement of real time; there is no runtime to pause")]
fn rules() {
    let tags = Tags::default();
    let facts = RuleFacts {
        model: Some("claude-opus-4"),
        provider: "anthropic",
        route: "/anthropic",
        api: "messages",
        method: "POST",
        path: "/v1/messages",
        stream: true,
        max_tokens: Some(100),
        choices: None,
        tier: None,
        background: false,
        searches: false,
        bytes: 100,
        body_is_known: true,
        team: Some("research"),
        workload: None,
        customer: None,
        session: None,
        tags: &tags,
        identity_source: "header",
        estimate: Estimate::default(),
        used_percent: None,
        used_of: &|_| None,
        now: AT,
    };
    for when in [
        "team == \"checkout\"",
        "request.model.startsWith(\"claude-opus\") && team != \"research\"",
        "time.hour >= 22 || time.weekday > 5",
    ] {
        let Ok(condition) = Condition::compile(when) else { continue };
        let rules = Rules::new(vec![Rule {
            name: label("r"),
            condition: Some(Arc::new(condition)),
            when_used: None,
            zone: TimeZone::UTC,
            action: Action::Deny("x".into()),
            shadow: false,
            fail: Fail::Open,
        }]);
        let begin = Instant::now();
        (0..CALLS).for_each(|_| drop(black_box(rules.evaluate(black_box(&facts)))));
        println!("{when}: {:?}", begin.elapsed() / CALLS);
    }
    let none = Rules::default();
    let begin = Instant::now();
    (0..CALLS).for_each(|_| drop(black_box(none.evaluate(black_box(&facts)))));
    println!("no rule: {:?}", begin.elapsed() / CALLS);
}
