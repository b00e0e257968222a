//! `access`: from the list in the file to rules.
//!
//! Invariants
//! - A rule with any mistake is left out, and each of its mistakes is reported.
//! - Two rules never have one name, and each rules something.
//!
//! Not here: what rules do (`bursar_policies::access`), lists of named items and scopes (`budgets`).

use super::RequiredTag;
use super::budgets::{Item, named_items, scope_schema};
use super::error::{Fault, Wrong};
use super::keys::list_schema;
use super::value::{Choice, Scalar, Shape, Value};
use super::yaml::{Content, Node};
use bursar_domain::Label;
use bursar_policies::access::{AccessRule, NameRule, Part, Unpriced};
use serde_json::{Value as Json, json};

/// Most rules in a file: a request is compared with each.
const RULES_MAX: usize = 256;

const KEYS: &[&str] = &[
    "name",
    "scope",
    "except_teams",
    "allow_models",
    "deny_models",
    "allow_providers",
    "deny_providers",
    "required",
    "unpriced",
];

/// The list of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AccessList(pub(super) Vec<AccessRule>);

impl Choice for Unpriced {
    const CHOICES: &'static [(&'static str, Self)] = &[("allow", Self::Allow), ("refuse", Self::Refuse)];
}

impl Value for AccessList {
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
        json!({ "type": ["array", "null"], "maxItems": RULES_MAX, "items": {
            "type": "object",
            "additionalProperties": false,
            "required": ["name"],
            "properties": {
                "name": { "type": "string", "minLength": 1, "maxLength": 256 },
                "scope": scope_schema(),
                "except_teams": list_schema(),
                "allow_models": list_schema(),
                "deny_models": list_schema(),
                "allow_providers": list_schema(),
                "deny_providers": list_schema(),
                "required": <Vec<RequiredTag> as Value>::schema(&()),
                "unpriced": <Unpriced as Scalar>::schema(&()),
            },
        } })
    }

    fn json(&self) -> Option<Json> {
        self.0.is_empty().then(|| json!([]))
    }
}

fn rule(reader: &mut Item, node: &Node) -> Option<AccessRule> {
    let before = reader.faults();
    let entries = reader.entries(node, "", KEYS, "write keys: name, scope, allow_models and so on");
    let find = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
    if matches!(node.content, Content::Map(_)) {
        if find("name").is_none() {
            reader.wrong(node, ".name", Wrong::absent("the key is missing", "every rule needs one"));
        }
        if KEYS.iter().skip(3).all(|key| find(key).is_none()) {
            let remedy =
                "write allow_models, deny_models, allow_providers, deny_providers, required or unpriced";
            reader.wrong(node, "", Wrong::absent("this rules nothing", remedy));
        }
    }
    let name = find("name").and_then(|node| reader.scalar::<Label>(node, ".name", &()));
    let scope = find("scope").map_or_else(|| Some(Default::default()), |node| reader.scope(node));
    if let (Some(node), Some(true)) = (find("scope"), scope.as_ref().map(|scope| scope.model.is_some())) {
        let remedy = "write the model under allow_models or deny_models";
        reader.wrong(
            node,
            ".scope.model",
            Wrong::absent("whom a rule is about does not depend on a model", remedy),
        );
    }
    let mut list = |key: &str| find(key).and_then(|node| reader.labels(node, &format!(".{key}")));
    let models = NameRule { allow: list("allow_models"), deny: list("deny_models").unwrap_or_default() };
    let providers =
        NameRule { allow: list("allow_providers"), deny: list("deny_providers").unwrap_or_default() };
    let except_teams = list("except_teams").unwrap_or_default();
    let required = find("required").map(|node| reader.value::<Vec<RequiredTag>>(node, ".required"));
    let unpriced =
        find("unpriced").map_or(Some(Unpriced::Allow), |node| reader.scalar(node, ".unpriced", &()));
    (reader.faults() == before).then_some(AccessRule {
        name: name?,
        scope: scope?,
        except_teams,
        models,
        providers,
        required: required.flatten().unwrap_or_default().into_iter().map(part).collect(),
        unpriced: unpriced?,
    })
}

fn part(required: RequiredTag) -> Part {
    match required {
        RequiredTag::Team => Part::Team,
        RequiredTag::Workload => Part::Workload,
        RequiredTag::Customer => Part::Customer,
        RequiredTag::Session => Part::Session,
        RequiredTag::Tag(name) => Part::Tag(name),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Sources};
    use bursar_policies::access::{AccessRule, Unpriced};

    fn load(text: &str) -> Result<Vec<AccessRule>, String> {
        let config = Config::load(Sources::from_text(text)).map_err(|errors| errors.to_string())?;
        Ok(config.access)
    }

    #[test]
    fn every_key_of_a_rule_is_read() {
        let rules = load(
            "access:
  - name: cheap
    scope: { tags: { env: dev } }
    except_teams: [research]
    allow_models: ['gpt-4o-mini', 'claude-haiku*']
    deny_models: claude-haiku-3
    allow_providers: [openai, anthropic]
    deny_providers: [xai]
    required: [team, 'tag:cost-center']
    unpriced: refuse
",
        )
        .unwrap();
        let rule = &rules[0];
        assert!(rule.models.allows("claude-haiku-4") && !rule.models.allows("claude-haiku-3"));
        assert!(rule.providers.allows("openai") && !rule.providers.allows("xai"));
        assert_eq!((rule.required.len(), rule.unpriced), (2, Unpriced::Refuse));
    }

    fn check(item: &str, expected: &str) {
        let error = load(&format!("access:\n  - {{ {item} }}\n")).unwrap_err();
        assert!(error.contains(expected), "{item}: {error}");
    }

    #[test]
    fn mistakes_name_key_value_and_remedy() {
        check("name: a, scope: { team: t }", "access[0]: this rules nothing; write allow_models");
        check("deny_models: [x]", "access[0].name: the key is missing");
        check("name: a, deny_model: [x]", "did you mean \"deny_models\"?");
        check("name: a, deny_models: [x], scope: { model: y }", "does not depend on a model");
        check("name: a, required: [teem]", "access[0].required[0]: \"teem\" cannot be required");
        check("name: a, unpriced: refused", "did you mean \"refuse\"?");
    }
}
