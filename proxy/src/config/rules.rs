//! `rules`: from the list in the file to rules that can be evaluated.
//!
//! Invariants
//! - A rule with any mistake is left out, and each of its mistakes is reported; those in an expression
//!   with line and column.
//! - Two rules never have one name, and each does one kind of thing.
//! - What can never be carried out is refused here: an unknown budget or route, a route of another kind,
//!   one that would get somebody else's key.
//!
//! Not here: what expressions may say (`bursar_policies::rule`), carrying rules out (`exchange::steering`).

use super::budgets::{Item, named_items};
use super::error::{Fault, Wrong};
use super::suggest::nearest;
use super::value::{Choice, Range, Scalar, Shape, Value};
use super::yaml::{Content, Entry, Node};
use super::{Auth, Dialect, RouteTable};
use bursar_domain::Label;
use bursar_policies::rule::{Action, Condition, Fail, Rule, SOURCE_BYTES_MAX, Steer, WhenUsed};
use jiff::tz::TimeZone;
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// Most rules in a file: each is evaluated for each request.
const RULES_MAX: usize = 256;
/// Longest text that a client is told.
const TEXT_BYTES_MAX: usize = 512;
const OUTPUT: Range<u32> = Range { min: 1, max: 10_000_000 };

const KEYS: &[&str] = &[
    "name",
    "when",
    "zone",
    "budget",
    "when_used",
    "deny",
    "warn",
    "model",
    "max_output",
    "route",
    "shadow",
    "fail",
];

/// The list of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RuleList(pub(super) Vec<Rule>);

impl Choice for Fail {
    const CHOICES: &'static [(&'static str, Self)] = &[("open", Self::Open), ("closed", Self::Closed)];
}

impl Value for RuleList {
    type Limits = ();
    const SHAPE: Shape = Shape::List;

    fn read(node: &Node, (): &()) -> Result<Self, Vec<Fault>> {
        named_items(node, "rule", RULES_MAX, rule, |rule| &rule.name).map(Self)
    }

    fn show(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|rule| rule.name.as_str()).collect();
        names.join(", ")
    }

    fn describe((): &()) -> String {
        "list of rules".to_owned()
    }

    fn schema((): &()) -> Json {
        let text = json!({ "type": "string", "minLength": 1, "maxLength": 256 });
        let told = json!({ "type": "string", "minLength": 1, "maxLength": TEXT_BYTES_MAX });
        json!({ "type": ["array", "null"], "maxItems": RULES_MAX, "items": {
            "type": "object",
            "additionalProperties": false,
            "required": ["name"],
            "anyOf": [{ "required": ["when"] }, { "required": ["when_used"] }],
            "properties": {
                "name": text,
                "when": { "type": "string", "minLength": 1, "maxLength": SOURCE_BYTES_MAX },
                "zone": { "type": "string", "examples": ["UTC", "Europe/Paris"] },
                "budget": text,
                "when_used": { "anyOf": [
                    { "type": "integer", "minimum": 1, "maximum": 1000 },
                    { "type": "string", "pattern": "^[0-9]+%$" },
                ] },
                "deny": told,
                "warn": told,
                "model": text,
                "max_output": <u32 as Scalar>::schema(&OUTPUT),
                "route": text,
                "shadow": { "type": "boolean" },
                "fail": <Fail as Scalar>::schema(&()),
            },
        } })
    }

    fn json(&self) -> Option<Json> {
        self.0.is_empty().then(|| json!([]))
    }
}

fn rule(item: &mut Item, node: &Node) -> Option<Rule> {
    let entries = item.entries(node, "", KEYS, "write keys: name, when, deny and so on");
    let find = |key: &str| value_of(entries, key);
    if matches!(node.content, Content::Map(_)) {
        if find("name").is_none() {
            item.wrong(node, ".name", Wrong::absent("the key is missing", "every rule needs one"));
        }
        if find("when").is_none() && find("when_used").is_none() {
            let remedy = "write an expression in `when`, or a share of a budget in `when_used`";
            item.wrong(node, "", Wrong::absent("it does not say when it holds", remedy));
        }
    }
    if let (Some(budget), None) = (find("budget"), find("when_used")) {
        let remedy = "say from which share, such as when_used: 80%";
        item.wrong(budget, ".budget", Wrong::absent("there is no `when_used` beside it", remedy));
    }
    let name = find("name").and_then(|node| item.scalar::<Label>(node, ".name", &()));
    let condition = find("when").map(|node| condition(item, node, name.as_ref()));
    let when_used = find("when_used").map(|node| {
        let budget = find("budget").map(|node| item.scalar::<Label>(node, ".budget", &()));
        let percent = percent(item, node);
        Some(WhenUsed { budget: transposed(budget)?, percent: percent? })
    });
    let zone = find("zone").map_or(Some(TimeZone::UTC), |node| item.zone(node));
    let action = action(item, node, entries);
    let shadow = find("shadow").map_or(Some(false), |node| item.scalar(node, ".shadow", &()));
    let fail = find("fail").map_or(Some(Fail::Open), |node| item.scalar(node, ".fail", &()));
    Some(Rule {
        name: name?,
        condition: transposed(condition)?,
        when_used: transposed(when_used)?,
        zone: zone?,
        action: action?,
        shadow: shadow?,
        fail: fail?,
    })
}

fn value_of<'n>(entries: &'n [Entry], key: &str) -> Option<&'n Node> {
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
}

/// Absent is nothing; what cannot be read is none.
fn transposed<T>(found: Option<Option<T>>) -> Option<Option<T>> {
    match found {
        None => Some(None),
        Some(None) => None,
        Some(value) => Some(value),
    }
}

fn condition(item: &mut Item, node: &Node, name: Option<&Label>) -> Option<Arc<Condition>> {
    let text = item.text(node, ".when")?;
    match Condition::compile(text) {
        Ok(condition) => Some(Arc::new(condition)),
        Err(error) => {
            let of = name.map(|name| format!("of rule {:?}, ", name.as_str())).unwrap_or_default();
            let what = format!("the expression {of}{error}");
            item.wrong(node, ".when", Wrong::absent(&what, &error.remedy));
            None
        }
    }
}

fn percent(item: &mut Item, node: &Node) -> Option<u32> {
    let text = item.text(node, ".when_used")?;
    let percent =
        text.trim_end_matches('%').parse::<u32>().ok().filter(|percent| (1..=1000).contains(percent));
    if percent.is_none() {
        let remedy = "write a share of a budget's limit, such as 80%";
        item.wrong(node, ".when_used", Wrong::value(text, "is no share", remedy));
    }
    percent
}

fn action(item: &mut Item, node: &Node, entries: &[Entry]) -> Option<Action> {
    let find = |key: &str| value_of(entries, key);
    let [deny, warn] = ["deny", "warn"].map(|key| find(key).map(|node| told(item, node, key)));
    let model = find("model").map(|node| item.scalar::<Label>(node, ".model", &()));
    let max_output = find("max_output").map(|node| item.scalar::<u32>(node, ".max_output", &OUTPUT));
    let route = find("route").map(|node| item.scalar::<Label>(node, ".route", &()));
    let steers = model.is_some() || max_output.is_some() || route.is_some();
    match (deny, warn, steers) {
        (Some(text), None, false) => text.map(Action::Deny),
        (None, Some(text), false) => text.map(Action::Warn),
        (None, None, true) => Some(Action::Steer(Steer {
            model: transposed(model)?,
            max_output: transposed(max_output)?.map(u64::from),
            route: transposed(route)?,
        })),
        (None, None, false) => {
            if matches!(node.content, Content::Map(_)) {
                let remedy = "write deny, warn, or what to change: model, max_output, route";
                item.wrong(node, "", Wrong::absent("it does nothing", remedy));
            }
            None
        }
        _ => {
            let remedy =
                "write one of deny, warn, and what to change (model, max_output, route) for each rule";
            item.wrong(node, "", Wrong::absent("it does several kinds of things", remedy));
            None
        }
    }
}

fn told(item: &mut Item, node: &Node, key: &str) -> Option<Box<str>> {
    let key = format!(".{key}");
    let text = item.text(node, &key)?;
    if text.is_empty() || text.len() > TEXT_BYTES_MAX || text.contains(char::is_control) {
        let remedy = format!("write up to {TEXT_BYTES_MAX} bytes on one line");
        item.wrong(node, &key, Wrong::value(text, "cannot be told to a client", &remedy));
        return None;
    }
    Some(text.into())
}

/// What is wrong between rules and the rest of the configuration: key and mistake.
///
/// `budgets` are the names of all budgets, those on contracts too.
pub(super) fn mistakes(rules: &[Rule], budgets: &[&str], routes: &RouteTable) -> Vec<(String, Wrong)> {
    let mut found = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let mut wrong = |key: &str, wrong| found.push((format!("rules[{index}].{key}"), wrong));
        let named = rule.condition.iter().flat_map(|condition| condition.budgets());
        let named = named.map(|name| ("when", name));
        let waits = rule.when_used.iter().filter_map(|used| used.budget.as_ref());
        for (key, name) in named.chain(waits.map(|name| ("budget", name.as_str()))) {
            if !budgets.contains(&name) {
                let remedy = match nearest(name, budgets.iter().copied()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => "name one of `budgets`".to_owned(),
                };
                wrong(key, Wrong::value(name, "is the name of no budget", &remedy));
            }
        }
        if rule.when_used.as_ref().is_some_and(|used| used.budget.is_none()) && budgets.is_empty() {
            wrong(
                "when_used",
                Wrong::absent("there is no budget that could be used", "add one under budgets"),
            );
        }
        if let Action::Steer(Steer { route: Some(name), .. }) = &rule.action
            && let Some((what, remedy)) = unfit(name, routes)
        {
            wrong("route", Wrong::value(name.as_str(), what, remedy));
        }
    }
    found
}

/// Why requests cannot be sent to another route.
fn unfit(name: &Label, routes: &RouteTable) -> Option<(&'static str, &'static str)> {
    let Some(route) = routes.iter().find(|route| route.name == *name) else {
        return Some(("is the prefix of no route", "write the prefix of a route under routes"));
    };
    if route.dialect == Dialect::PassThrough {
        return Some((
            "is a route whose API is not known",
            "name one with a provider or dialect that is metered",
        ));
    }
    if !route.has_fixed_host() {
        return Some(("is a route whose host is in the path", "add a route with an upstream of its own"));
    }
    match route.auth {
        Auth::Inject(_) => None,
        Auth::PassThrough => Some((
            "is a route that passes on the client's own key, which is another provider's",
            "give it auth: inject and a secret",
        )),
        Auth::SigV4(_) => Some((
            "is a route that signs whole bodies, which those of other routes need not be",
            "name one with auth: inject",
        )),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Sources};
    use bursar_policies::rule::{Action, Fail, Rule, Steer};

    fn load(text: &str) -> Result<Vec<Rule>, String> {
        let config = Config::load(Sources::from_text(text)).map_err(|errors| errors.to_string())?;
        Ok(config.rules)
    }

    #[test]
    fn the_example_of_the_design_is_read() {
        let text = "rules:\n  - { name: no-opus, when: 'request.model.startsWith(\"claude-opus\") && team != \"research\"', deny: \"use sonnet\" }\n";
        let rules = load(text).unwrap();
        assert_eq!(rules[0].name.as_str(), "no-opus");
        assert_eq!(rules[0].action, Action::Deny("use sonnet".into()));
        assert_eq!((rules[0].fail, rules[0].shadow), (Fail::Open, false));
    }

    #[test]
    fn every_key_is_read() {
        let text = "
budgets: [{ name: month, window: month, limit: 5 USD }]
rules:
  - name: x
    when: 'budgets[\"month\"] > 10'
    zone: Europe/Paris
    budget: month
    when_used: 80%
    model: gpt-4o-mini
    max_output: 500
    shadow: true
    fail: closed
";
        let rule = &load(text).unwrap()[0];
        let used = rule.when_used.as_ref().unwrap();
        assert_eq!((used.budget.as_ref().unwrap().as_str(), used.percent), ("month", 80));
        let Action::Steer(Steer { model, max_output, route }) = &rule.action else { panic!() };
        assert_eq!(model.as_ref().unwrap().as_str(), "gpt-4o-mini");
        assert_eq!((max_output, route, rule.shadow, rule.fail), (&Some(500), &None, true, Fail::Closed));
    }

    #[test]
    fn a_budget_on_a_contract_may_be_named() {
        let text = "
budgets: [{ name: credit, contract: c }]
rules:
  - { name: x, when_used: 80%, budget: credit, model: gpt-4o-mini }
  - { name: y, when: 'budgets[\"credit\"] > 90', deny: z }
  - { name: z, when_used: 80%, deny: z }
";
        assert_eq!(load(text).unwrap().len(), 3);
        let error = load(&text.replace("budget: credit", "budget: credt")).unwrap_err();
        assert!(error.contains("did you mean \"credit\"?"), "{error}");
    }

    fn check(item: &str, expected: &str) {
        let error = load(&format!("rules:\n  - {{ {item} }}\n")).unwrap_err();
        assert!(error.contains(expected), "{item}: {error}");
    }

    #[test]
    fn mistakes_name_key_value_and_remedy() {
        check("when: 'true', deny: x", "rules[0].name: the key is missing");
        check("name: x, deny: y", "rules[0]: it does not say when it holds; write an expression in `when`");
        check("name: x, when: 'true'", "rules[0]: it does nothing; write deny, warn");
        check("name: x, when: 'true', deny: y, model: z", "it does several kinds of things");
        check("name: x, when: 'true', deny: y, warn: z", "it does several kinds of things");
        check(
            "name: x, when: 'teem == \"a\"', deny: y",
            "rules[0].when: the expression of rule \"x\", line 1, column 1: unknown variable `teem`; known are request",
        );
        check(
            "name: x, when: 'team ==', deny: y",
            "rules[0].when: the expression of rule \"x\", line 1, column",
        );
        check("name: x, when: 'true', den: y", "did you mean \"deny\"?");
        check("name: x, when: 'true', deny: y, fail: opn", "did you mean \"open\"?");
        check("name: x, when: 'true', deny: y, zone: Mars/Base", "is no IANA time zone");
        check("name: x, when: 'true', max_output: 0", "\"0\" is below the least, 1");
        check("name: x, when_used: 0%, deny: y", "\"0%\" is no share");
        check("name: x, when: 'true', budget: b, deny: y", "there is no `when_used` beside it");
        check("name: x, when_used: 80%, deny: y", "there is no budget that could be used");
        check("name: x, when: 'budgets.b > 1', deny: y", "rules[0].when: \"b\" is the name of no budget");
        check(
            "name: x, when: 'true', route: /nowhere",
            "rules[0].route: \"/nowhere\" is the prefix of no route",
        );
        check("name: x, when: 'true', route: /openai", "give it auth: inject and a secret");
        check("name: x, when: 'true', route: '/azure/{resource}'", "is a route whose host is in the path");
        check(
            "name: x, when: 'true', deny: y }\n  - { name: x, when: 'true', deny: y",
            "rules[1].name: \"x\" is also the name of the rule on line 2",
        );
    }
}
