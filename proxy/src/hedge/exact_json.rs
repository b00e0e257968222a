//! JSON as it was written: a number keeps its digits, and a field that is there twice is an error.
//!
//! Invariants
//! - A number with more digits than a float keeps becomes text, which the readers of amounts take as well:
//!   nothing is rounded before it is checked.
//! - However deep the text is nested, the stack is bounded.
//!
//! Not here: rows and lines (`rows`), what fields mean (`import`).

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};
use std::fmt;

/// Digits that a float keeps, whatever they are.
const FLOAT_DIGITS: usize = 15;
/// Deepest value; what is read here nests three deep.
const DEPTH_MAX: usize = 64;

/// Reads one value.
pub(crate) fn read(text: &str) -> serde_json::Result<Value> {
    value(serde_json::from_str::<&RawValue>(text)?, 0)
}

fn value(raw: &RawValue, depth: usize) -> serde_json::Result<Value> {
    if depth > DEPTH_MAX {
        return Err(Error::custom(format!("it is nested deeper than {DEPTH_MAX}")));
    }
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'{') => {
            let Fields(fields) = serde_json::from_str(text)?;
            let read = |(name, raw)| Ok((name, value(raw, depth.saturating_add(1))?));
            fields
                .into_iter()
                .map(read)
                .collect::<serde_json::Result<Map<String, Value>>>()
                .map(Value::Object)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            let items = items.into_iter().map(|raw| value(raw, depth.saturating_add(1)));
            items.collect::<serde_json::Result<_>>().map(Value::Array)
        }
        Some(b'-' | b'0'..=b'9') => Ok(number(text)),
        _ => serde_json::from_str(text),
    }
}

/// The number, or its text where a float would not keep it.
fn number(text: &str) -> Value {
    if let Ok(whole) = text.parse::<i64>() {
        return whole.into();
    }
    if let Ok(whole) = text.parse::<u64>() {
        return whole.into();
    }
    let digits = text.bytes().take_while(|byte| !byte.eq_ignore_ascii_case(&b'e')).filter(u8::is_ascii_digit);
    let float = text.parse().ok().and_then(Number::from_f64).filter(|_| digits.count() <= FLOAT_DIGITS);
    float.map_or_else(|| Value::from(text), Value::Number)
}

/// The fields of an object, each once.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor).map(Self)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut fields, mut seen) = (Vec::new(), std::collections::BTreeSet::new());
        while let Some((name, raw)) = map.next_entry::<String, &'de RawValue>()? {
            if !seen.insert(name.clone()) {
                let name: String = name.chars().take(60).collect();
                return Err(Error::custom(format!("field {name:?} is there twice: write it once")));
            }
            fields.push((name, raw));
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_number_keeps_all_its_digits() {
        let text = r#"{"a":[12345678901234567.89,-0.1234567890123456],"b":2.50,"c":18446744073709551615,"d":1e400,"e":-3}"#;
        let expected = json!({
            "a": ["12345678901234567.89", "-0.1234567890123456"], "b": 2.5, "c": u64::MAX, "d": "1e400", "e": -3
        });
        assert_eq!(read(text).unwrap(), expected);
    }

    #[test]
    fn a_field_twice_is_an_error_at_any_depth() {
        for text in [r#"{"a":1,"b":2,"a":1}"#, r#"[{"x":{"a":1,"a":2}}]"#] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains("field \"a\" is there twice"), "{error}");
        }
        assert_eq!(
            read(r#"{"a":{"b":null},"b":[true,"x"]}"#).unwrap(),
            json!({"a": {"b": null}, "b": [true, "x"]})
        );
    }

    #[test]
    fn what_is_no_json_or_nested_without_end_is_an_error() {
        for text in ["", "{", "{\"a\":}", "[1,]", "NaN", "01", "\"\\q\"", "{\"a\":1} x"] {
            assert!(read(text).is_err(), "{text}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(&deep).unwrap_err().to_string().contains("nested deeper"));
    }
}
