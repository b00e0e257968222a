//! A YAML file that is no configuration of the sidecar, as a JSON document.
//!
//! Invariant: plain scalars have the types of YAML's core schema (YAML 1.2.2, section 10.3); what only looks
//! like a number there, such as `0444`, stays text.
//!
//! Not here: what the document means.

use super::yaml::{self, Content, Node};
use serde_json::{Map, Number, Value};

/// Reads one document; nothing written is an empty object.
///
/// # Errors
/// Names the first thing that is no YAML, with its line.
pub(crate) fn document(text: &str) -> Result<Value, String> {
    let parsed = yaml::parse(text);
    if let Some(fault) = parsed.faults.first() {
        return Err(format!("line {}: {}; {}", fault.at.line, fault.wrong.what, fault.wrong.remedy));
    }
    let root = parsed.root.filter(|root| !root.is_null());
    Ok(root.as_ref().map_or_else(|| Value::Object(Map::new()), value_of))
}

fn value_of(node: &Node) -> Value {
    match &node.content {
        _ if node.is_null() => Value::Null,
        Content::Scalar { text, plain: true } => typed(text),
        Content::Scalar { text, plain: false } => Value::String(text.clone()),
        Content::List(items) => items.iter().map(value_of).collect(),
        Content::Map(entries) => {
            Value::Object(entries.iter().map(|entry| (entry.key.clone(), value_of(&entry.value))).collect())
        }
    }
}

fn typed(text: &str) -> Value {
    match text {
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => text.parse::<Number>().map_or_else(|_| Value::String(text.to_owned()), Value::Number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plain_scalars_have_types_and_quoted_ones_are_text() {
        let text = "a: 1\nb: '1'\nc: true\nd: [x, 1.5, ~, \"no\"]\ne: { f: 50m, g: 0444 }\n";
        let want =
            json!({"a": 1, "b": "1", "c": true, "d": ["x", 1.5, null, "no"], "e": {"f": "50m", "g": "0444"}});
        assert_eq!(document(text), Ok(want));
        assert_eq!(document("# nothing\n"), Ok(json!({})));
    }

    #[test]
    fn what_is_no_yaml_is_refused_with_its_line() {
        let error = document("a: 1\nb: [\n").unwrap_err();
        assert!(error.starts_with("line "), "{error}");
    }
}
