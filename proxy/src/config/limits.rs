//! `limits`: from the list in the file to rules.
//!
//! Invariants
//! - A limit with any mistake is left out, and each of its mistakes is reported.
//! - Two limits never have one name, and each limits something.
//!
//! Not here: what limits do (`bursar_policies::limit`), scopes and lists of named items (`budgets`).

use super::budgets::{Item, named_items, scope_schema};
use super::error::{Fault, Wrong};
use super::value::{Shape, Value};
use super::yaml::{Content, Node};
use bursar_domain::Label;
use bursar_policies::limit::{Cap, Limit};
use serde_json::{Value as Json, json};

/// Most limits in a file: a request is compared with each.
const LIMITS_MAX: usize = 256;
/// Most that a limit can be.
const UNITS_MAX: u64 = 1_000_000_000_000;

const KEYS: &[&str] = &["name", "scope", "requests_per_minute", "tokens_per_minute", "concurrent_requests"];

/// The list of limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LimitList(pub(super) Vec<Limit>);

impl Value for LimitList {
    type Limits = ();
    const SHAPE: Shape = Shape::List;

    fn read(node: &Node, (): &()) -> Result<Self, Vec<Fault>> {
        named_items(node, "limit", LIMITS_MAX, limit, |limit| &limit.name).map(Self)
    }

    fn show(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|limit| limit.name.as_str()).collect();
        names.join(", ")
    }

    fn describe((): &()) -> String {
        "list of limits".to_owned()
    }

    fn schema((): &()) -> Json {
        let units = json!({ "type": "integer", "minimum": 1, "maximum": UNITS_MAX });
        let one_of = |cap: Cap| json!({ "required": [cap.name()] });
        json!({ "type": ["array", "null"], "maxItems": LIMITS_MAX, "items": {
            "type": "object",
            "additionalProperties": false,
            "required": ["name"],
            "anyOf": [one_of(Cap::Requests), one_of(Cap::Tokens), one_of(Cap::Concurrent)],
            "properties": {
                "name": { "type": "string", "minLength": 1, "maxLength": 256 },
                "scope": scope_schema(),
                "requests_per_minute": units,
                "tokens_per_minute": units,
                "concurrent_requests": units,
            },
        } })
    }

    fn json(&self) -> Option<Json> {
        self.0.is_empty().then(|| json!([]))
    }
}

fn limit(reader: &mut Item, node: &Node) -> Option<Limit> {
    let entries = reader.entries(node, "", KEYS, "write keys: name, scope, requests_per_minute and so on");
    let find = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
    let caps = [Cap::Requests, Cap::Tokens, Cap::Concurrent];
    if matches!(node.content, Content::Map(_)) {
        if find("name").is_none() {
            let wrong = Wrong::absent("the key is missing", "every limit needs one");
            reader.wrong(node, ".name", wrong);
        }
        if caps.iter().all(|cap| find(cap.name()).is_none()) {
            let remedy = "write requests_per_minute, tokens_per_minute or concurrent_requests";
            reader.wrong(node, "", Wrong::absent("this limits nothing", remedy));
        }
    }
    let name = find("name").and_then(|node| reader.scalar::<Label>(node, ".name", &()));
    let scope = find("scope").map_or_else(|| Some(Default::default()), |node| reader.scope(node));
    let [requests, tokens, concurrent] =
        caps.map(|cap| find(cap.name()).map(|node| units(reader, node, cap)));
    Some(Limit {
        name: name?,
        scope: scope?,
        requests_per_minute: transposed(requests)?,
        tokens_per_minute: transposed(tokens)?,
        concurrent_requests: transposed(concurrent)?,
    })
}

/// Absent is no limit; what cannot be read is none.
fn transposed(found: Option<Option<u64>>) -> Option<Option<u64>> {
    match found {
        None => Some(None),
        Some(None) => None,
        Some(units) => Some(units),
    }
}

fn units(reader: &mut Item, node: &Node, cap: Cap) -> Option<u64> {
    let key = format!(".{cap}");
    let text = reader.text(node, &key)?;
    let units = text.parse::<u64>().ok().filter(|units| (1..=UNITS_MAX).contains(units));
    if units.is_none() {
        let remedy = "write a whole number of at least 1, such as 200000";
        reader.wrong(node, &key, Wrong::value(text, "is not a limit", remedy));
    }
    units
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Sources};
    use bursar_policies::limit::Limit;

    fn load(text: &str) -> Result<Vec<Limit>, String> {
        let config = Config::load(Sources::from_text(text)).map_err(|errors| errors.to_string())?;
        Ok(config.limits)
    }

    #[test]
    fn the_example_of_the_design_is_read() {
        let text =
            "limits:\n  - { name: bot-tpm, scope: { workload: support-bot }, tokens_per_minute: 200000 }\n";
        let limits = load(text).unwrap();
        let limit = &limits[0];
        assert_eq!((limit.name.as_str(), limit.tokens_per_minute), ("bot-tpm", Some(200_000)));
        assert_eq!((limit.requests_per_minute, limit.concurrent_requests), (None, None));
        assert_eq!(limit.scope.workload.as_ref().unwrap().as_str(), "support-bot");
    }

    fn check(item: &str, expected: &str) {
        let error = load(&format!("limits:\n  - {{ {item} }}\n")).unwrap_err();
        assert!(error.contains(expected), "{item}: {error}");
    }

    #[test]
    fn mistakes_name_key_value_and_remedy() {
        check("name: x", "limits[0]: this limits nothing; write requests_per_minute");
        check("requests_per_minute: 1", "limits[0].name: the key is missing");
        check("name: x, requests_per_minute: 0", "limits[0].requests_per_minute: \"0\" is not a limit");
        check("name: x, tokens_per_minute: 1.5", "\"1.5\" is not a limit");
        check("name: x, concurrent_requests: many", "\"many\" is not a limit");
        check("name: x, token_per_minute: 3", "did you mean \"tokens_per_minute\"?");
        check(
            "name: x, tokens_per_minute: 3, scope: { teams: a }",
            "limits[0].scope.teams: this key is unknown",
        );
        check(
            "name: x, tokens_per_minute: 3 }\n  - { name: x, tokens_per_minute: 4",
            "limits[1].name: \"x\" is also the name of the limit on line 2",
        );
    }
}
