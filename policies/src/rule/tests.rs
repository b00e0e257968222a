//! Expressions that compile, those that do not, and what rules say of requests.

use super::*;
use bursar_domain::{Currency, Money, Tags, Timestamp};
use proptest::prelude::*;

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn rule(when: &str, action: Action) -> Rule {
    Rule {
        name: label("r"),
        condition: Some(Arc::new(Condition::compile(when).unwrap_or_else(|error| panic!("{when}: {error}")))),
        when_used: None,
        zone: TimeZone::UTC,
        action,
        shadow: false,
        fail: Fail::Open,
    }
}

fn tags() -> Tags {
    let mut tags = Tags::default();
    tags.insert(label("env"), label("prod"));
    tags.insert(label("feature"), label("search"));
    tags
}

fn with_facts<T>(look: impl FnOnce(&RuleFacts<'_>) -> T) -> T {
    let tags = tags();
    look(&RuleFacts {
        model: Some("claude-opus-4"),
        provider: "anthropic",
        route: "/anthropic",
        api: "messages",
        method: "POST",
        path: "/v1/messages",
        stream: true,
        max_tokens: None,
        choices: None,
        tier: None,
        background: false,
        searches: false,
        bytes: 120,
        body_is_known: true,
        team: Some("checkout"),
        workload: None,
        customer: None,
        session: None,
        tags: &tags,
        identity_source: "header",
        estimate: Estimate {
            input: Some(120),
            output: Some(4_096),
            cost: Some(Money::from_pico(Currency::USD, 1_500_001)),
        },
        used_percent: Some(81),
        used_of: &|name| (name == "month").then_some(40),
        // Sunday, 22 November 2026, 12:00 UTC.
        now: Timestamp::from_micros(1_795_348_800_000_000),
    })
}

fn holds_now(when: &str) -> Result<bool, String> {
    let rules = Rules::new(vec![rule(when, Action::Deny("no".into()))]);
    let verdict = with_facts(|facts| rules.evaluate(facts));
    match verdict.failed.first() {
        Some((_, fault)) => Err(fault.to_string()),
        None => Ok(verdict.denied.is_some()),
    }
}

fn check(when: &str, expected: bool) {
    assert_eq!(holds_now(when), Ok(expected), "{when}");
}

#[test]
fn the_example_of_the_design_holds_for_others_than_research() {
    check(r#"request.model.startsWith("claude-opus") && team != "research""#, true);
    check(r#"request.model.startsWith("claude-opus") && team == "research""#, false);
}

#[test]
fn every_variable_can_be_asked() {
    for (when, expected) in [
        (r#"request.provider == "anthropic" && request.route == "/anthropic""#, true),
        (r#"request.api in ["messages", "openai-chat"]"#, true),
        (r#"request.method == "POST" && request.path.endsWith("/messages")"#, true),
        (r#"request.stream && !request.background && !request.searches"#, true),
        ("has(request.max_tokens)", false),
        ("has(request.max_tokens) && request.max_tokens > 10", false),
        ("!has(request.max_tokens) || request.max_tokens > 10", true),
        ("request.choices == 1 && request.bytes == 120", true),
        (r#"request.tier == "" && workload == "" && customer == "" && session == """#, true),
        (r#"tags.env == "prod" && tags["feature"].contains("ear")"#, true),
        (r#""env" in tags && !("other" in tags) && has(tags.feature)"#, true),
        (r#"tags.exists(name, tags[name] == "prod") && tags.all(name, size(name) > 2)"#, true),
        (r#"["a", "b"].exists_one(x, x == "b")"#, true),
        (r#"identity_source == "header""#, true),
        ("estimated.input_tokens + estimated.output_tokens == estimated.tokens", true),
        ("estimated.cost_micros == 2", true),
        ("budget.used_percent >= 80", true),
        (r#"budgets["month"] == 40 && budgets.month < 50"#, true),
        ("time.hour == 12 && time.minute == 0 && time.weekday == 7", true),
        (r#"time.day == 22 && time.month == 11 && time.year == 2026 && time.date >= "2026-11-01""#, true),
        ("(time.hour < 8 || time.hour >= 18 ? 1 : -1) == -1", true),
        ("7 / 2 * 2 + 7 % 2 - 1 == 6", true),
        (r#"team.size() == 8"#, true),
    ] {
        check(when, expected);
    }
    let all: Vec<&str> = VARIABLES.iter().map(|variable| variable.name).collect();
    for variable in VARIABLES {
        let name = variable.name;
        let when = match variable.kind {
            Kind::Text => format!("{name} == \"x\""),
            Kind::Int => format!("{name} == 1"),
            Kind::MaybeInt => format!("has({name})"),
            Kind::Truth => name.to_owned(),
            Kind::Texts => format!("size({name}) == 2"),
            Kind::Percents => format!("{name}[\"month\"] == 1"),
        };
        assert!(holds_now(&when).is_ok(), "{when}");
        assert_eq!(all.iter().filter(|known| **known == name).count(), 1);
    }
}

#[test]
fn time_is_told_in_the_rules_zone() {
    let kolkata = Rule {
        zone: TimeZone::get("Asia/Kolkata").unwrap(),
        ..rule("time.hour == 17 && time.minute == 30", Action::Deny("x".into()))
    };
    assert!(with_facts(|facts| Rules::new(vec![kolkata]).evaluate(facts)).denied.is_some());
}

fn refused(when: &str, place: (usize, usize), expected: &str) {
    let error = Condition::compile(when).expect_err(when);
    let told = format!("{}; {}", error.message, error.remedy);
    assert!(told.contains(expected), "{when}: {told}");
    assert_eq!((error.line, error.column), place, "{when}: {told}");
}

#[test]
fn mistakes_are_found_when_compiling_with_place_and_remedy() {
    refused("teem == \"a\"", (1, 1), "unknown variable `teem`; known are request, team");
    refused("team == \"a\" &&\n  request.modle == \"b\"", (2, 10), "unknown variable `request.modle`");
    refused("lower(team) == \"a\"", (1, 6), "unknown function `lower`; use size");
    refused("team.matches(\"a+\")", (1, 13), "regular expressions are not offered");
    refused("team == 1", (1, 6), "`==` does not fit a string and an int");
    refused("request.max_tokens > \"9\"", (1, 20), "`>` does not fit");
    refused("team", (1, 1), "it is a string and no truth value");
    refused("request", (1, 1), "the group `request`");
    refused("1.5 > 1", (1, 1), "millionths");
    refused("team == null", (1, 9), "nothing is null here");
    refused("team + \"x\" == \"ax\"", (1, 6), "only ints can be added");
    refused("team in []", (1, 9), "an empty list");
    refused("team in [\"a\", 1]", (1, 15), "a list of several types");
    refused("size({\"a\": 1}) == 1", (1, 6), "maps cannot be written here");
    refused("tags.map(x, x) == [\"a\"]", (1, 9), "map and filter are not offered");
    refused("tags.exists(a, tags.exists(b, a == b))", (1, 27), "is in another");
    refused("budgets.exists(b, b == \"x\")", (1, 15), "the map `budgets` has no elements");
    refused("budgets[team] > 1", (1, 9), "a budget must be named");
    refused("\"x\" in budgets", (1, 5), "budgets are named in the configuration");
    refused("", (1, 1), "it is empty");
    assert!(Condition::compile("team ==").is_err());
    assert!(Condition::compile("team == \"a").is_err());
    assert!(Condition::compile("team = \"a\"").is_err());
    assert!(Condition::compile("request.?model == \"a\"").is_err());
}

#[test]
fn what_is_too_long_or_too_deep_is_refused_before_it_is_read() {
    let nested = format!("{}true{}", "(".repeat(9), ")".repeat(9));
    for (when, expected) in [
        (format!("team == \"{}\"", "x".repeat(SOURCE_BYTES_MAX)), "longer than 2048 bytes"),
        (nested, "nested deeper than 8"),
        (format!("{}true", "!".repeat(2_000)), "nested deeper"),
        (format!("{}true", "! ".repeat(1_000)), "nested deeper"),
        (format!("{}1 == 1", "-".repeat(2_000)), "nested deeper"),
        (format!("{}true", "true?false:".repeat(100)), "nested deeper"),
        (format!("{}1 == 41", "1+".repeat(40)), "more than 24 parts are within one another"),
        ((0..200).map(|_| "1==1").collect::<Vec<_>>().join("&&"), "more than 256 parts"),
    ] {
        let error = Condition::compile(&when).expect_err(&when);
        assert!(error.message.contains(expected), "{error}");
    }
    // What is taken needs less than half the stack of a worker, also without optimisation.
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(|| {
        for when in [
            (0..64).map(|_| "1==1").collect::<Vec<_>>().join("||"),
            (0..64).map(|_| "1==1").collect::<Vec<_>>().join("&&"),
            format!("{}true{}", "(".repeat(8), ")".repeat(8)),
            format!("{}[true{}[0]", "(".repeat(7), "]".to_owned() + &")".repeat(7)),
            format!("{}true", "!".repeat(8)),
            format!("{}1 == 1", "-".repeat(8)),
            format!("{}true", "true?true:".repeat(8)),
            format!("{}1 == 21", "1+".repeat(20)),
        ] {
            check(&when, true);
        }
    });
    thread.unwrap().join().unwrap();
}

#[test]
fn what_cannot_be_evaluated_follows_the_rules_own_fail() {
    let missing = r#"tags.nowhere == "x""#;
    assert!(holds_now(missing).is_err());
    check(r#"tags.nowhere == "x" || team == "checkout""#, true);
    for when in [missing, "1 / (request.choices - 1) == 1", "request.max_tokens > 1"] {
        for (fail, shadow, denied) in
            [(Fail::Open, false, false), (Fail::Closed, false, true), (Fail::Closed, true, false)]
        {
            let rule = Rule { fail, shadow, ..rule(when, Action::Deny("x".into())) };
            let verdict = with_facts(|facts| Rules::new(vec![rule]).evaluate(facts));
            assert_eq!(verdict.denied.is_some(), denied, "{when}");
            assert_eq!(verdict.failed.len(), 1);
        }
    }
}

#[test]
fn a_body_that_is_not_known_fails_only_rules_that_ask_for_it() {
    let rules = Rules::new(vec![
        Rule { fail: Fail::Closed, ..rule("team == \"nobody\"", Action::Deny("x".into())) },
        Rule { fail: Fail::Closed, ..rule("request.stream", Action::Deny("x".into())) },
    ]);
    let verdict = with_facts(|facts| {
        rules.evaluate(&RuleFacts {
            body_is_known: false,
            tags: facts.tags,
            used_of: facts.used_of,
            ..*facts
        })
    });
    assert_eq!(verdict.denied.map(|denied| denied.rule), Some(1));
    assert_eq!(verdict.failed.len(), 1);
}

#[test]
fn rules_ask_only_for_what_they_use() {
    let needs = |when: &str| Rules::new(vec![rule(when, Action::Deny("x".into()))]).needs();
    assert_eq!(needs("team == \"a\""), Needs::default());
    assert_eq!(needs("time.hour == 1"), Needs::default());
    assert_eq!(needs("request.model == \"a\""), Needs { body: true, ..Needs::default() });
    assert_eq!(needs("estimated.tokens > 1"), Needs { body: true, estimate: true, ..Needs::default() });
    assert_eq!(needs("estimated.cost_micros > 1"), Needs { body: true, cost: true, ..Needs::default() });
    assert_eq!(needs("budgets.month > 1"), Needs { budgets: true, ..Needs::default() });
    let steer = Action::Steer(Steer { max_output: Some(1), ..Steer::default() });
    assert!(Rules::new(vec![rule("true", steer)]).needs().body);
    assert!(Rules::default().is_empty());
}

#[test]
fn refusals_win_the_lowest_bound_wins_and_the_first_model() {
    let steer = |model: Option<&str>, max_output, route: Option<&str>| {
        Action::Steer(Steer { model: model.map(label), max_output, route: route.map(label) })
    };
    let mut rules = vec![
        rule("true", steer(None, Some(900), None)),
        rule("true", steer(Some("small"), Some(500), Some("/local"))),
        rule("true", steer(Some("other"), Some(700), None)),
        rule("true", Action::Warn("look".into())),
        Rule { shadow: true, ..rule("true", Action::Deny("x".into())) },
        rule("false", steer(None, Some(1), None)),
    ];
    let verdict = with_facts(|facts| Rules::new(rules.clone()).evaluate(facts));
    assert_eq!(verdict.changes.model, Some((1, label("small"))));
    assert_eq!(verdict.changes.route, Some((1, label("/local"))));
    assert_eq!(verdict.changes.max_output, Some((1, 500)));
    assert_eq!((verdict.warned.as_slice(), verdict.shadowed.as_slice()), (&[3][..], &[4][..]));
    assert_eq!((verdict.denied, verdict.changes.rules()), (None, vec![1]));
    rules.push(rule("true", Action::Deny("no".into())));
    let verdict = with_facts(|facts| Rules::new(rules).evaluate(facts));
    assert_eq!(verdict.denied, Some(Denied { rule: 6, fault: None }));
}

#[test]
fn a_rule_may_wait_for_a_budget_to_be_used() {
    let used = |budget: Option<&str>, percent| Rule {
        condition: None,
        when_used: Some(WhenUsed { budget: budget.map(label), percent }),
        ..rule("true", Action::Deny("x".into()))
    };
    for (rule, denied) in [
        (used(None, 81), true),
        (used(None, 82), false),
        (used(Some("month"), 40), true),
        (used(Some("month"), 41), false),
        (
            Rule { condition: rule("team == \"x\"", Action::Deny("x".into())).condition, ..used(None, 1) },
            false,
        ),
    ] {
        let verdict = with_facts(|facts| Rules::new(vec![rule.clone()]).evaluate(facts));
        assert_eq!(verdict.denied.is_some(), denied, "{rule:?}");
    }
}

#[test]
fn rules_can_be_asked_by_several_threads_at_once() {
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&Rules::default());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_compiler_or_a_rule_panic(
        parts in prop::collection::vec(prop::sample::select(vec![
            "team", "request", ".", "model", "==", "!=", "\"a\"", "'", "(", ")", "[", "]", "{", "}", "&&",
            "||", "!", "-", "1", "1.5", "9223372036854775807", "tags", ".exists(", "x", ",", "?", ":", "in",
            "has(", "size(", "budgets", "\\", "\u{e9}", "\n", "null", "b\"\"", "1u", "0x", "//", "estimated.tokens",
        ]), 0..24),
    ) {
        let text = parts.concat();
        if let Ok(condition) = Condition::compile(&text) {
            let rule = Rule { condition: Some(Arc::new(condition)), ..rule("true", Action::Deny("x".into())) };
            let _ = with_facts(|facts| Rules::new(vec![rule]).evaluate(facts));
        }
    }
}
