//! Limits against a model that remembers every event and counts in fractions of a unit.

use super::*;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

fn facts(team: &'static str) -> Facts<'static> {
    Facts {
        team: Some(team),
        workload: None,
        customer: None,
        provider: "openai",
        model: None,
        model_served: None,
        may_be_any_model: false,
        has_tag: &|_, _| false,
    }
}

fn limit(name: &str, team: Option<&str>, caps: [Option<u64>; 3]) -> Limit {
    let [requests_per_minute, tokens_per_minute, concurrent_requests] = caps;
    let label = |text: &str| Label::new(text).unwrap();
    Limit {
        name: label(name),
        scope: Scope { team: team.map(label), ..Scope::default() },
        requests_per_minute,
        tokens_per_minute,
        concurrent_requests,
    }
}

fn limits(caps: [Option<u64>; 3]) -> Limits {
    Limits::new(vec![limit("l", None, caps)], 0)
}

fn refused(limits: &mut Limits, tokens: u64, now: u64) -> Exceeded {
    *limits.admit(&facts("a"), Some(tokens), now).unwrap_err()
}

#[test]
fn a_minutes_worth_passes_at_once_and_then_one_in_each_share_of_a_minute() {
    let mut limits = limits([Some(60), None, None]);
    for _ in 0..60 {
        assert!(limits.admit(&facts("a"), None, 0).is_ok());
    }
    let exceeded = refused(&mut limits, 0, 0);
    assert_eq!((exceeded.cap, exceeded.limit, exceeded.left), (Cap::Requests, 60, 0));
    assert_eq!(exceeded.retry_nanos, SECOND);
    assert_eq!(refused(&mut limits, 0, SECOND - 1).retry_nanos, 1);
    assert!(limits.admit(&facts("a"), None, SECOND).is_ok());
    assert_eq!(
        limits.level(0, 3_600 * SECOND).unwrap().requests,
        Some(60),
        "never more than a minute's worth"
    );
}

#[test]
fn what_was_used_beyond_what_was_taken_is_a_debt_that_later_requests_wait_for() {
    let mut limits = limits([None, Some(600), None]);
    let mut ticket = limits.admit(&facts("a"), Some(100), 0).unwrap();
    limits.settle(&mut ticket, Some(1_500), 0);
    let exceeded = refused(&mut limits, 10, 0);
    assert_eq!((exceeded.left, exceeded.asked, exceeded.retry_nanos), (-900, 10, 91 * SECOND));
    assert!(limits.admit(&facts("a"), Some(10), 91 * SECOND).is_ok());
}

#[test]
fn what_was_not_used_is_given_back_and_what_nobody_knows_is_not() {
    let mut limits = limits([None, Some(600), None]);
    let mut ticket = limits.admit(&facts("a"), Some(500), 0).unwrap();
    limits.settle(&mut ticket, Some(20), 0);
    assert_eq!(limits.level(0, 0).unwrap().tokens, Some(580));
    let mut unknown = limits.admit(&facts("a"), Some(80), 0).unwrap();
    limits.settle(&mut unknown, None, 0);
    assert_eq!(limits.level(0, 0).unwrap().tokens, Some(500));
    limits.settle(&mut unknown, Some(50), 0);
    limits.settle(&mut unknown, Some(7), 0);
    assert_eq!(limits.level(0, 0).unwrap().tokens, Some(523), "the second figure is more");
}

#[test]
fn a_request_above_a_minutes_worth_passes_when_the_bucket_is_full_and_leaves_a_debt() {
    let mut limits = limits([None, Some(600), None]);
    assert!(limits.admit(&facts("a"), Some(2_000), 0).is_ok());
    assert_eq!(limits.level(0, 0).unwrap().tokens, Some(-1_400));
    assert_eq!(refused(&mut limits, 2_000, 0).retry_nanos, 200 * SECOND);
    assert!(limits.admit(&facts("a"), None, 200 * SECOND).is_ok(), "of unknown size, and full");
}

#[test]
fn so_many_run_at_once_and_one_that_was_never_made_leaves_nothing() {
    let mut limits = limits([Some(10), Some(100), Some(2)]);
    let first = limits.admit(&facts("a"), Some(10), 0).unwrap();
    let second = limits.admit(&facts("a"), Some(10), 0).unwrap();
    let exceeded = refused(&mut limits, 1, 0);
    assert_eq!((exceeded.cap, exceeded.limit), (Cap::Concurrent, 2));
    limits.cancel(&second, 0);
    let level = limits.level(0, 0).unwrap();
    assert_eq!((level.requests, level.tokens, level.running), (Some(9), Some(90), 1));
    limits.end(&first);
    assert_eq!(limits.level(0, 0).unwrap().running, 0);
}

#[test]
fn a_request_is_taken_from_all_of_its_limits_or_from_none() {
    let wide = limit("wide", None, [Some(10), None, None]);
    let narrow = limit("narrow", Some("a"), [None, Some(50), None]);
    let mut limits = Limits::new(vec![wide, narrow], 0);
    assert!(limits.admit(&facts("a"), Some(40), 0).is_ok());
    assert_eq!(refused(&mut limits, 40, 0).name.as_str(), "narrow");
    assert_eq!(limits.level(0, 0).unwrap().requests, Some(9), "the other one was not asked for it");
    assert!(limits.admit(&facts("b"), Some(40), 0).is_ok(), "another team");
    assert_eq!(limits.level(1, 0).unwrap().tokens, Some(10));
}

#[derive(Clone, Debug)]
enum Step {
    Admit(u64),
    Settle(prop::sample::Index, u64),
    Cancel(prop::sample::Index),
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0_u64..1_200).prop_map(Step::Admit),
        3 => (any::<prop::sample::Index>(), 0_u64..2_000).prop_map(|(i, n)| Step::Settle(i, n)),
        1 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        4 => (0_u64..90 * SECOND).prop_map(Step::Wait),
    ]
}

/// The reference: a level in parts, found anew from all that ever happened.
#[derive(Default)]
struct Model {
    /// When, and how many units came (or went, below zero).
    events: Vec<(u64, i128)>,
}

impl Model {
    fn level(&self, per_minute: u64, now: u64) -> i128 {
        let most = i128::from(per_minute) * MINUTE;
        let (mut level, mut at) = (most, 0);
        for (when, units) in self.events.iter().copied().chain([(now, 0)]) {
            level = (level + i128::from(when - at) * i128::from(per_minute)).min(most);
            level = (level + units * MINUTE).min(most);
            at = when;
        }
        level
    }
}

proptest! {
    #[test]
    fn limits_agree_with_a_model_that_remembers_everything(
        rate in 1_u64..1_000,
        tokens_rate in 1_u64..1_000,
        most in 1_u64..4,
        steps in prop::collection::vec(any_step(), 1..40),
    ) {
        let mut limits = limits([Some(rate), Some(tokens_rate), Some(most)]);
        let (mut requests, mut tokens) = (Model::default(), Model::default());
        let mut open: Vec<(Ticket, u64)> = Vec::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Wait(nanos) => now += nanos,
                Step::Admit(asked) => {
                    let need = i128::from(asked.min(tokens_rate)) * MINUTE;
                    let fits = (open.len() as u64) < most
                        && requests.level(rate, now) >= MINUTE.min(i128::from(rate) * MINUTE)
                        && tokens.level(tokens_rate, now) >= need;
                    match limits.admit(&facts("a"), Some(asked), now) {
                        Ok(ticket) => {
                            prop_assert!(fits);
                            requests.events.push((now, -1));
                            tokens.events.push((now, -i128::from(asked)));
                            open.push((ticket, asked));
                        }
                        Err(exceeded) => {
                            prop_assert!(!fits, "{exceeded:?}");
                            if exceeded.cap == Cap::Tokens {
                                let early = tokens.level(tokens_rate, now + exceeded.retry_nanos - 1);
                                let due = tokens.level(tokens_rate, now + exceeded.retry_nanos);
                                prop_assert!(early < need && need <= due);
                            }
                        }
                    }
                }
                Step::Settle(index, used) if !open.is_empty() => {
                    let (mut ticket, asked) = open.remove(index.index(open.len()));
                    limits.settle(&mut ticket, Some(used), now);
                    limits.end(&ticket);
                    tokens.events.push((now, i128::from(asked) - i128::from(used)));
                }
                Step::Cancel(index) if !open.is_empty() => {
                    let (ticket, asked) = open.remove(index.index(open.len()));
                    limits.cancel(&ticket, now);
                    requests.events.push((now, 1));
                    tokens.events.push((now, i128::from(asked)));
                }
                Step::Settle(..) | Step::Cancel(_) => {}
            }
            let level = limits.level(0, now).unwrap();
            prop_assert_eq!(level.running, open.len() as u64);
            let units = |parts: i128| i64::try_from(parts.div_euclid(MINUTE)).unwrap();
            prop_assert_eq!(level.requests, Some(units(requests.level(rate, now))));
            prop_assert_eq!(level.tokens, Some(units(tokens.level(tokens_rate, now))));
        }
    }
}

#[test]
fn a_changed_rule_goes_on_where_the_old_one_stood_with_its_debt_and_what_runs() {
    let mut limits = Limits::new(vec![limit("a", None, [None, Some(100), Some(2)])], 0);
    let mut first = limits.admit(&facts("a"), Some(50), 0).unwrap();
    limits.settle(&mut first, Some(400), 0);
    let second = limits.admit(&facts("a"), Some(0), 0);
    assert_eq!(second.unwrap_err().left, -300, "a debt of 300");
    let rules = vec![
        limit("new", Some("b"), [Some(1), None, None]),
        limit("a", None, [Some(60), Some(1_000), Some(1)]),
    ];
    limits.replace(rules, 0);
    let level = limits.level(1, 0).unwrap();
    assert_eq!((level.requests, level.tokens, level.running), (Some(60), Some(-300), 1));
    assert_eq!(refused(&mut limits, 0, 60 * SECOND).cap, Cap::Concurrent, "the first still runs");
    limits.end(&first);
    assert_eq!(limits.level(1, 0).unwrap().running, 0);
    assert!(limits.admit(&facts("a"), Some(700), 60 * SECOND).is_ok(), "at the new rate");
}

#[test]
fn what_runs_under_a_limit_that_is_gone_or_means_somebody_else_changes_nothing() {
    let mut limits = Limits::new(vec![limit("a", None, [Some(2), Some(100), Some(5)])], 0);
    let mut ticket = limits.admit(&facts("a"), Some(50), 0).unwrap();
    limits.replace(vec![limit("a", Some("a"), [Some(2), Some(100), Some(5)])], 0);
    limits.settle(&mut ticket, Some(1_000), 0);
    limits.end(&ticket);
    limits.cancel(&ticket, 0);
    let level = limits.level(0, 0).unwrap();
    assert_eq!((level.requests, level.tokens, level.running), (Some(2), Some(100), 0));
    limits.replace(Vec::new(), 0);
    assert!(limits.admit(&facts("a"), None, 0).unwrap().is_empty());
}
