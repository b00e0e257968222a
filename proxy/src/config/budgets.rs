//! `budgets`: from the list in the file to rules.
//!
//! Invariants
//! - A budget with any mistake is left out, and each of its mistakes is reported.
//! - Two budgets never have one name.
//! - A budget on a contract has no window and no limit of its own: the contract's are meant.
//!
//! Not here: what budgets do (`bursar_policies::budget`).

use super::error::{Fault, Wrong};
use super::suggest::nearest;
use super::value::{Choice, Scalar, Shape, Value, tag_name};
use super::yaml::{Content, Entry, Node};
use bursar_domain::{Currency, Label, Money};
use bursar_policies::budget::contract::{ContractBudget, Without};
use bursar_policies::budget::window::{Unit, Window};
use bursar_policies::budget::{Budget, Measure, Mode, ModelPattern, Scope, Unbounded};
use jiff::tz::TimeZone;
use serde_json::{Value as Json, json};
use std::collections::HashMap;

/// Most budgets in a file.
const BUDGETS_MAX: usize = 10_000;
/// Most thresholds of a budget.
const THRESHOLDS_MAX: usize = 10;
/// Shortest and longest rolling window, in seconds.
const ROLLING_SECONDS: std::ops::RangeInclusive<i64> = 60..=366 * 86_400;

const KEYS: &[&str] = &[
    "name",
    "scope",
    "window",
    "zone",
    "fiscal_start",
    "limit",
    "mode",
    "thresholds",
    "unpriced",
    "contract",
    "without",
];
/// Keys of a budget that a contract says instead.
const CONTRACT_SAYS: &[&str] = &["window", "zone", "fiscal_start", "limit"];
const SCOPE_KEYS: &[&str] = &["team", "workload", "customer", "provider", "model", "tags"];

/// The list of budgets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BudgetList {
    /// Those with a limit of their own.
    pub(super) own: Vec<Budget>,
    /// Those on contracts.
    pub(super) on_contracts: Vec<ContractBudget>,
}

/// One of the list.
enum Read {
    Own(Budget),
    OnContract(ContractBudget),
}

impl Read {
    const fn name(&self) -> &Label {
        match self {
            Self::Own(budget) => &budget.name,
            Self::OnContract(budget) => &budget.name,
        }
    }
}

impl Choice for Without {
    const CHOICES: &'static [(&'static str, Self)] = &[("refuse", Self::Refuse), ("allow", Self::Allow)];
}

impl Choice for Mode {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("hard", Self::Hard), ("soft", Self::Soft), ("shadow", Self::Shadow)];
}

impl Choice for Unbounded {
    const CHOICES: &'static [(&'static str, Self)] = &[("refuse", Self::Refuse), ("allow", Self::Allow)];
}

impl Value for BudgetList {
    type Limits = ();
    const SHAPE: Shape = Shape::List;

    fn read(node: &Node, (): &()) -> Result<Self, Vec<Fault>> {
        let mut list = Self::default();
        for read in named_items(node, "budget", BUDGETS_MAX, Item::any_budget, Read::name)? {
            match read {
                Read::Own(budget) => list.own.push(budget),
                Read::OnContract(budget) => list.on_contracts.push(budget),
            }
        }
        Ok(list)
    }

    fn show(&self) -> String {
        let own = self.own.iter().map(|budget| budget.name.as_str());
        let names: Vec<&str> =
            own.chain(self.on_contracts.iter().map(|budget| budget.name.as_str())).collect();
        names.join(", ")
    }

    fn describe((): &()) -> String {
        "list of budgets".to_owned()
    }

    fn schema((): &()) -> Json {
        let text = json!({ "type": "string", "minLength": 1, "maxLength": 256 });
        let windows: Vec<&str> = Unit::NAMES.iter().map(|(name, _)| *name).collect();
        json!({ "type": ["array", "null"], "maxItems": BUDGETS_MAX, "items": {
            "type": "object",
            "additionalProperties": false,
            "required": ["name"],
            "oneOf": [
                { "required": ["window", "limit"], "not": { "anyOf": [
                    { "required": ["contract"] }, { "required": ["without"] },
                ] } },
                { "required": ["contract"], "not": { "anyOf": [
                    { "required": ["window"] }, { "required": ["limit"] },
                    { "required": ["zone"] }, { "required": ["fiscal_start"] },
                ] } },
            ],
            "properties": {
                "name": text,
                "scope": scope_schema(),
                "window": { "anyOf": [
                    { "enum": windows },
                    { "type": "string", "pattern": "^rolling [0-9]+[mhdw]$" },
                ] },
                "zone": { "type": "string", "examples": ["UTC", "Europe/Paris"] },
                "fiscal_start": { "type": "integer", "minimum": 1, "maximum": 12 },
                "limit": { "type": "string", "pattern": "^[0-9]+(\\.[0-9]{1,12})? ?([A-Z]{3}|tokens)$" },
                "mode": <Mode as Scalar>::schema(&()),
                "thresholds": {
                    "type": ["array", "null"],
                    "items": { "type": "integer", "minimum": 1, "maximum": 100 },
                    "maxItems": THRESHOLDS_MAX,
                },
                "unpriced": <Unbounded as Scalar>::schema(&()),
                "contract": text,
                "without": <Without as Scalar>::schema(&()),
            },
        } })
    }

    fn json(&self) -> Option<Json> {
        (self.own.is_empty() && self.on_contracts.is_empty()).then(|| json!([]))
    }
}

/// The items of a list. At most `max` are read, and no two have one name; `kind` says what one is.
pub(super) fn named_items<T>(
    node: &Node,
    kind: &str,
    max: usize,
    read: impl Fn(&mut Item, &Node) -> Option<T>,
    name: impl Fn(&T) -> &Label,
) -> Result<Vec<T>, Vec<Fault>> {
    let items = match &node.content {
        Content::List(items) => items.as_slice(),
        Content::Scalar { .. } if node.is_null() => &[],
        Content::Scalar { .. } | Content::Map(_) => {
            let wrong = format!("this is {}", node.kind());
            let remedy = "write a list, each item starting with `- `";
            return Err(vec![Fault::at(node.at, Wrong::absent(&wrong, remedy))]);
        }
    };
    let mut faults = Vec::new();
    if let Some(extra) = items.get(max) {
        let wrong = format!("there are more than {max} {kind}s");
        faults.push(Fault::at(extra.at, Wrong::absent(&wrong, "remove some")));
    }
    let (mut found, mut lines) = (Vec::new(), HashMap::new());
    for (index, node) in items.iter().enumerate().take(max) {
        let mut item = Item::new(format!("[{index}]"));
        let value = read(&mut item, node);
        faults.append(&mut item.faults);
        let Some(value) = value else { continue };
        if let Some(first) = lines.insert(name(&value).clone(), node.at.line) {
            let what = format!("is also the name of the {kind} on line {first}");
            let remedy = format!("give each {kind} a name of its own");
            let wrong = Wrong::value(name(&value).as_str(), &what, &remedy);
            faults.push(Fault { at: node.at, below: format!("[{index}].name"), wrong });
        }
        found.push(value);
    }
    if faults.is_empty() { Ok(found) } else { Err(faults) }
}

/// One item while it is read.
pub(super) struct Item {
    below: String,
    faults: Vec<Fault>,
}

/// The schema of a scope.
pub(super) fn scope_schema() -> Json {
    let text = json!({ "type": "string", "minLength": 1, "maxLength": 256 });
    json!({ "type": ["object", "null"], "additionalProperties": false, "properties": {
        "team": text, "workload": text, "customer": text, "provider": text, "model": text,
        "tags": { "type": ["object", "null"], "additionalProperties": text },
    } })
}

impl Item {
    const fn new(below: String) -> Self {
        Self { below, faults: Vec::new() }
    }

    /// How many mistakes it has so far.
    pub(super) const fn faults(&self) -> usize {
        self.faults.len()
    }

    pub(super) fn wrong(&mut self, node: &Node, key: &str, wrong: Wrong) {
        self.faults.push(Fault { at: node.at, below: format!("{}{key}", self.below), wrong });
    }

    /// The keys of a map, each known.
    pub(super) fn entries<'n>(
        &mut self,
        node: &'n Node,
        key: &str,
        known: &[&str],
        remedy: &str,
    ) -> &'n [Entry] {
        let Content::Map(entries) = &node.content else {
            if !node.is_null() || key.is_empty() {
                self.wrong(node, key, Wrong::absent(&format!("this is {}", node.kind()), remedy));
            }
            return &[];
        };
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let remedy = match nearest(&entry.key, known.iter().copied()) {
                Some(name) => format!("did you mean {name:?}?"),
                None => format!("remove it; known here: {}", known.join(", ")),
            };
            let below = format!("{}{key}.{}", self.below, entry.key);
            self.faults.push(Fault {
                at: entry.at,
                below,
                wrong: Wrong::absent("this key is unknown", &remedy),
            });
        }
        entries
    }

    pub(super) fn scalar<T: Scalar>(&mut self, node: &Node, key: &str, limits: &T::Limits) -> Option<T> {
        self.read(<T as Value>::read(node, limits), key)
    }

    /// A value in any shape.
    pub(super) fn value<T: Value<Limits = ()>>(&mut self, node: &Node, key: &str) -> Option<T> {
        self.read(T::read(node, &()), key)
    }

    fn read<T>(&mut self, read: Result<T, Vec<Fault>>, key: &str) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(faults) => {
                for fault in faults {
                    let below = format!("{}{key}{}", self.below, fault.below);
                    self.faults.push(Fault { below, ..fault });
                }
                None
            }
        }
    }

    /// The text of a node.
    pub(super) fn text<'n>(&mut self, node: &'n Node, key: &str) -> Option<&'n str> {
        match &node.content {
            Content::Scalar { text, .. } if !node.is_null() => Some(text),
            _ => {
                let wrong = format!("this is {}", node.kind());
                self.wrong(node, key, Wrong::absent(&wrong, "write one value"));
                None
            }
        }
    }

    fn any_budget(&mut self, node: &Node) -> Option<Read> {
        let entries = self.entries(node, "", KEYS, "write keys: name, scope, window, limit and so on");
        if entries.iter().any(|entry| entry.key == "contract") {
            return self.contract_budget(entries, node).map(Read::OnContract);
        }
        if let Some(entry) = entries.iter().find(|entry| entry.key == "without") {
            let remedy = "remove it, or name the contract of which the budget is what is left";
            let wrong = Wrong::absent("only a budget on a contract can be without it", remedy);
            self.wrong(&entry.value, ".without", wrong);
        }
        self.budget(entries, node).map(Read::Own)
    }

    /// A budget whose limit is what a contract has left.
    fn contract_budget(&mut self, entries: &[Entry], node: &Node) -> Option<ContractBudget> {
        let find = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
        let before = self.faults.len();
        for entry in entries.iter().filter(|entry| CONTRACT_SAYS.contains(&entry.key.as_str())) {
            let wrong = "a budget on a contract has the contract's days and what it has left";
            let wrong = Wrong::absent(wrong, "remove this key, or `contract`");
            self.wrong(&entry.value, &format!(".{}", entry.key), wrong);
        }
        if find("name").is_none() {
            self.wrong(node, ".name", Wrong::absent("the key is missing", "every budget needs one"));
        }
        let name = find("name").and_then(|node| self.scalar::<Label>(node, ".name", &()));
        let contract = find("contract").and_then(|node| self.scalar::<Label>(node, ".contract", &()));
        let scope = find("scope").map_or_else(|| Some(Scope::default()), |node| self.scope(node));
        let mode = find("mode").map_or(Some(Mode::Hard), |node| self.scalar(node, ".mode", &()));
        let thresholds = find("thresholds").map_or(Some(Vec::new()), |node| self.thresholds(node));
        let unbounded =
            find("unpriced").map_or(Some(Unbounded::Refuse), |node| self.scalar(node, ".unpriced", &()));
        let without =
            find("without").map_or(Some(Without::Refuse), |node| self.scalar(node, ".without", &()));
        if self.faults.len() > before {
            return None;
        }
        Some(ContractBudget {
            name: name?,
            contract: contract?,
            scope: scope?,
            mode: mode?,
            unbounded: unbounded?,
            without: without?,
            thresholds: thresholds?,
        })
    }

    fn budget(&mut self, entries: &[Entry], node: &Node) -> Option<Budget> {
        let find = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
        if matches!(node.content, Content::Map(_)) {
            for key in ["name", "window", "limit"] {
                if find(key).is_none() {
                    let wrong = Wrong::absent("the key is missing", "every budget needs one");
                    self.wrong(node, &format!(".{key}"), wrong);
                }
            }
        }
        let name = find("name").and_then(|node| self.scalar::<Label>(node, ".name", &()));
        let scope = find("scope").map_or_else(|| Some(Scope::default()), |node| self.scope(node));
        let zone = find("zone").map_or(Some(TimeZone::UTC), |node| self.zone(node));
        let first_month = find("fiscal_start").map_or(Some(1), |node| self.month(node));
        let window = find("window").and_then(|node| self.window(node, zone, first_month));
        if let (Some(Window::Rolling { .. }), Some(node)) = (&window, find("zone").or(find("fiscal_start"))) {
            let wrong = Wrong::absent("a rolling window has no calendar", "remove zone and fiscal_start");
            self.wrong(node, "", wrong);
        }
        let limit = find("limit").and_then(|node| self.limit(node));
        let mode = find("mode").map_or(Some(Mode::Hard), |node| self.scalar(node, ".mode", &()));
        let thresholds = find("thresholds").map_or(Some(Vec::new()), |node| self.thresholds(node));
        let unbounded =
            find("unpriced").map_or(Some(Unbounded::Refuse), |node| self.scalar(node, ".unpriced", &()));
        let (limit, measure) = limit?;
        Some(Budget {
            name: name?,
            scope: scope?,
            window: window?,
            measure,
            limit,
            mode: mode?,
            unbounded: unbounded?,
            thresholds: thresholds?,
        })
    }

    /// A scope, if all of it is right.
    pub(super) fn scope(&mut self, node: &Node) -> Option<Scope> {
        let before = self.faults.len();
        let entries = self.entries(node, ".scope", SCOPE_KEYS, "write keys such as team: checkout");
        let mut scope = Scope::default();
        for entry in entries {
            let key = format!(".scope.{}", entry.key);
            if entry.key == "tags" {
                scope.tags = self.tags(&entry.value, &key);
                continue;
            }
            let place = match entry.key.as_str() {
                "team" => &mut scope.team,
                "workload" => &mut scope.workload,
                "customer" => &mut scope.customer,
                "provider" => &mut scope.provider,
                "model" => {
                    scope.model = self.scalar::<Label>(&entry.value, &key, &()).map(ModelPattern::new);
                    continue;
                }
                _ => continue,
            };
            *place = self.scalar::<Label>(&entry.value, &key, &());
        }
        (self.faults.len() == before).then_some(scope)
    }

    pub(super) fn tags(&mut self, node: &Node, key: &str) -> Vec<(Label, Label)> {
        let Content::Map(entries) = &node.content else {
            let wrong = format!("this is {}", node.kind());
            self.wrong(node, key, Wrong::absent(&wrong, "write names and values, such as { env: prod }"));
            return Vec::new();
        };
        let mut tags = Vec::new();
        for entry in entries {
            let value = self.scalar::<Label>(&entry.value, &format!("{key}.{}", entry.key), &());
            match tag_name(&entry.key) {
                Ok(name) => tags.extend(value.map(|value| (name, value))),
                Err(wrong) => self.wrong(&entry.value, &format!("{key}.{}", entry.key), wrong),
            }
        }
        tags
    }

    pub(super) fn zone(&mut self, node: &Node) -> Option<TimeZone> {
        let text = self.text(node, ".zone")?;
        let zone = TimeZone::get(text).ok();
        if zone.is_none() {
            let remedy = "write a name such as Europe/Paris or UTC";
            self.wrong(node, ".zone", Wrong::value(text, "is no IANA time zone", remedy));
        }
        zone
    }

    fn month(&mut self, node: &Node) -> Option<i8> {
        let text = self.text(node, ".fiscal_start")?;
        let month = text.parse::<i8>().ok().filter(|month| (1..=12).contains(month));
        if month.is_none() {
            let remedy = "write the number of the first month of the fiscal year, 1 to 12";
            self.wrong(node, ".fiscal_start", Wrong::value(text, "is no month", remedy));
        }
        month
    }

    fn window(&mut self, node: &Node, zone: Option<TimeZone>, first_month: Option<i8>) -> Option<Window> {
        let text = self.text(node, ".window")?;
        if let Some((_, unit)) = Unit::NAMES.iter().find(|(name, _)| *name == text) {
            return Some(Window::Calendar { unit: *unit, zone: zone?, first_month: first_month? });
        }
        let seconds = text.strip_prefix("rolling ").and_then(rolling_seconds);
        if let Some(seconds) = seconds.filter(|seconds| ROLLING_SECONDS.contains(seconds)) {
            return Some(Window::Rolling { micros: seconds.saturating_mul(1_000_000) });
        }
        let remedy = "write hour, day, week, month, quarter or year, or a rolling window of a minute to a \
                      year such as `rolling 24h` or `rolling 30d` (which is no month)";
        self.wrong(node, ".window", Wrong::value(text, "is not a window", remedy));
        None
    }

    fn limit(&mut self, node: &Node) -> Option<(i128, Measure)> {
        let text = self.text(node, ".limit")?;
        let read = read_amount(text);
        if read.is_none() {
            let remedy = "write an amount in the currency of the books, such as 5000 USD, or 2000000 tokens";
            self.wrong(node, ".limit", Wrong::value(text, "is not a limit", remedy));
        }
        read
    }

    fn thresholds(&mut self, node: &Node) -> Option<Vec<u8>> {
        let Content::List(items) = &node.content else {
            let wrong = format!("this is {}", node.kind());
            self.wrong(node, ".thresholds", Wrong::absent(&wrong, "write a list, such as [50, 80]"));
            return None;
        };
        let mut thresholds = Vec::new();
        for item in items.iter().take(THRESHOLDS_MAX) {
            let text = self.text(item, ".thresholds")?;
            match text.trim_end_matches('%').parse::<u8>() {
                Ok(percent) if (1..=100).contains(&percent) => thresholds.push(percent),
                _ => {
                    let remedy = "write a share of the limit in percent, 1 to 100";
                    self.wrong(item, ".thresholds", Wrong::value(text, "is no threshold", remedy));
                    return None;
                }
            }
        }
        thresholds.sort_unstable();
        thresholds.dedup();
        Some(thresholds)
    }
}

/// An amount and its unit: `5000 USD`, `2000000 tokens`.
pub(crate) fn read_amount(text: &str) -> Option<(i128, Measure)> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    match unit.trim() {
        "tokens" => number.parse::<u64>().ok().map(|tokens| (i128::from(tokens), Measure::Tokens)),
        "USD" => {
            let money = Money::parse(Currency::USD, number).ok();
            money.map(|money| (money.pico(), Measure::Money(Currency::USD)))
        }
        _ => None,
    }
}

/// A whole number with m, h, d or w.
fn rolling_seconds(text: &str) -> Option<i64> {
    let unit = match text.chars().last()? {
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return None,
    };
    let digits = text.get(..text.len().saturating_sub(1))?;
    digits.parse::<i64>().ok().filter(|count| *count > 0)?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Sources};
    use bursar_policies::budget::contract::Without;
    use bursar_policies::budget::{Budget, Measure, Mode, Unbounded};

    fn load(text: &str) -> Result<Vec<Budget>, String> {
        let config = Config::load(Sources::from_text(text)).map_err(|errors| errors.to_string())?;
        Ok(config.budgets)
    }

    #[test]
    fn the_example_of_the_design_is_read() {
        let text = "budgets:\n  - { name: checkout-month, scope: { team: checkout }, window: month, zone: Europe/Paris, limit: 5000 USD, mode: hard }\n";
        let budgets = load(text).unwrap();
        let budget = &budgets[0];
        assert_eq!((budget.name.as_str(), budget.mode), ("checkout-month", Mode::Hard));
        assert_eq!(budget.limit, 5_000_000_000_000_000);
        assert_eq!(budget.scope.team.as_ref().unwrap().as_str(), "checkout");
        assert_eq!((budget.window.to_string().as_str(), budget.unbounded), ("month", Unbounded::Refuse));
    }

    #[test]
    fn every_key_is_read() {
        let text = "budgets:
  - name: x
    scope: { workload: w, customer: c, provider: openai, model: 'gpt-4o*', tags: { env: prod } }
    window: rolling 30d
    limit: 2000000 tokens
    mode: soft
    thresholds: [80, 50%, 80]
    unpriced: allow
";
        let budgets = load(text).unwrap();
        let budget = &budgets[0];
        assert_eq!((budget.measure, budget.limit), (Measure::Tokens, 2_000_000));
        assert_eq!((budget.thresholds.as_slice(), budget.unbounded), (&[50, 80][..], Unbounded::Allow));
        assert_eq!(budget.window.to_string(), "rolling 30d");
        assert_eq!(budget.scope.tags.len(), 1);
    }

    fn check(item: &str, expected: &str) {
        let error = load(&format!("budgets:\n  - {{ {item} }}\n")).unwrap_err();
        assert!(error.contains(expected), "{item}: {error}");
    }

    #[test]
    fn mistakes_name_key_value_and_remedy() {
        check("name: x, window: month", "budgets[0].limit: the key is missing");
        check("name: x, window: 30d, limit: 1 USD", "budgets[0].window: \"30d\" is not a window; write hour");
        check("name: x, window: rolling 1s, limit: 1 USD", "is not a window");
        check("name: x, window: day, limit: 5 EUR", "budgets[0].limit: \"5 EUR\" is not a limit");
        check("name: x, window: day, limit: -5 USD", "is not a limit");
        check("name: x, window: day, limit: 1.5 tokens", "is not a limit");
        check("name: x, window: day, limit: 1 USD, zone: Mars/Base", "\"Mars/Base\" is no IANA time zone");
        check("name: x, window: year, limit: 1 USD, fiscal_start: 13", "is no month");
        check("name: x, window: rolling 1d, limit: 1 USD, zone: UTC", "a rolling window has no calendar");
        check("name: x, window: day, limit: 1 USD, mode: hardd", "did you mean \"hard\"?");
        check("name: x, window: day, limit: 1 USD, thresholds: [0]", "\"0\" is no threshold");
        check(
            "name: x, window: day, limit: 1 USD, scope: { teams: a }",
            "budgets[0].scope.teams: this key is unknown; did you mean \"team\"?",
        );
        check("name: x, window: day, limit: 1 USD, scop: {}", "did you mean \"scope\"?");
        check(
            "name: x, window: day, limit: 1 USD }\n  - { name: x, window: day, limit: 2 USD",
            "budgets[1].name: \"x\" is also the name of the budget on line 2",
        );
    }

    #[test]
    fn a_budget_on_a_contract_has_no_window_and_no_limit_of_its_own() {
        let text = "budgets:
  - { name: x, contract: commit-beta, scope: { team: beta }, mode: soft, thresholds: [80], without: allow }
  - { name: y, contract: commit-beta }
";
        let config = Config::load(Sources::from_text(text)).unwrap();
        let [x, y] = config.contract_budgets.as_slice() else { panic!("{config:?}") };
        assert_eq!((x.contract.as_str(), x.mode, x.without), ("commit-beta", Mode::Soft, Without::Allow));
        assert_eq!((y.mode, y.without, y.unbounded), (Mode::Hard, Without::Refuse, Unbounded::Refuse));
        assert!(config.budgets.is_empty());
        check("name: x, contract: c, limit: 1 USD", "budgets[0].limit: a budget on a contract has");
        check("name: x, contract: c, window: day", "budgets[0].window: a budget on a contract has");
        check("name: x, contract: ''", "budgets[0].contract");
        check("contract: c", "budgets[0].name: the key is missing");
        check("name: x, contract: c, without: nothing", "budgets[0].without");
        check("name: x, window: day, limit: 1 USD, without: allow", "only a budget on a contract");
        check(
            "name: x, window: day, limit: 1 USD }\n  - { name: x, contract: c",
            "budgets[1].name: \"x\" is also the name of the budget on line 2",
        );
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let error = load("budgets:\n  - { name: '', window: x, limit: y }\n  - 3\n").unwrap_err();
        assert!(error.starts_with("the configuration has 4 mistakes:"), "{error}");
    }
}
