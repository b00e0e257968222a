//! What the claims of a token say: where each is found, and which values are usable.
//!
//! Invariants
//! - A claim is named by a path that leads to one value. Where points could lead to two, there is none.
//! - A value is text, a number or a truth value, or a list of one of these; it is a valid label or unusable.
//! - Times are whole seconds; a token that is over in between is over.
//!
//! Not here: whether a token is genuine (`tokens`), which paths are configured (`config::jwt`).

use bursar_domain::{Label, Timestamp};
use serde_json::{Map, Value};
use std::fmt;
use std::time::Duration;

/// The claims of a token.
pub type Claims = Map<String, Value>;

/// Most points in a path, and most parts of a pointer.
const PARTS_MAX: usize = 16;
/// Latest time that is read: some thirty million years from now.
const SECONDS_MAX: f64 = 1e15;

/// Where a claim is found: a JSON pointer (RFC 6901) such as `/kubernetes.io/namespace`, or names with points
/// between them, such as `kubernetes.io.namespace`, where a name may have points itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimPath(Label);

impl ClaimPath {
    /// A path from its text; `None` for what is none, or leads too deep.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let parts = if text.starts_with('/') { text.split('/') } else { text.split('.') };
        let is_whole = text.starts_with('/') || parts.clone().all(|part| !part.is_empty());
        (is_whole && parts.count() <= PARTS_MAX).then(|| Label::new(text).ok().map(Self))?
    }

    /// The path as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The value there, if there is exactly one.
    #[must_use]
    pub fn find<'c>(&self, claims: &'c Claims) -> Option<&'c Value> {
        let text = self.as_str();
        if let Some(pointer) = text.strip_prefix('/') {
            let (first, rest) = pointer.split_once('/').map_or((pointer, None), |(a, b)| (a, Some(b)));
            let value = claims.get(&first.replace("~1", "/").replace("~0", "~"))?;
            return rest.map_or(Some(value), |rest| value.pointer(&format!("/{rest}")));
        }
        let mut found = None;
        dotted(claims, text, &mut found)?;
        found
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Looks for `path` in every way its points can be meant; `None` where there are two.
fn dotted<'c>(claims: &'c Claims, path: &str, found: &mut Option<&'c Value>) -> Option<()> {
    if let Some(value) = claims.get(path)
        && found.replace(value).is_some()
    {
        return None;
    }
    for (at, _) in path.match_indices('.') {
        let (first, rest) = path.split_at(at);
        if let Some(Value::Object(below)) = claims.get(first) {
            dotted(below, rest.strip_prefix('.')?, found)?;
        }
    }
    Some(())
}

/// The text of a value that can be one; a list counts as the one value in it.
#[must_use]
pub fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Array(items) => match items.as_slice() {
            [only] if !only.is_array() => text_of(only),
            _ => None,
        },
        Value::Null | Value::Object(_) => None,
    }
}

/// The claim there as a label.
#[must_use]
pub fn label_at(claims: &Claims, path: &ClaimPath) -> Option<Label> {
    Label::new(&text_of(path.find(claims)?)?).ok()
}

/// Whether a value is one of `wanted`, or a list with one of them in it.
#[must_use]
pub fn is_among(value: &Value, wanted: &[Label]) -> bool {
    let is_wanted =
        |text: Option<String>| text.is_some_and(|text| wanted.iter().any(|one| one.as_str() == text));
    match value {
        Value::Array(items) => items.iter().any(|item| !item.is_array() && is_wanted(text_of(item))),
        value => is_wanted(text_of(value)),
    }
}

/// Whether a token carries a scope: in `scope`, names with spaces between them (RFC 8693 §4.2), or in `scp`,
/// which some write as a list.
#[must_use]
pub fn has_scope(claims: &Claims, scope: &str) -> bool {
    [claims.get("scope"), claims.get("scp")].into_iter().flatten().any(|value| match value {
        Value::String(text) => text.split(' ').any(|one| one == scope),
        Value::Array(items) => items.iter().any(|item| item.as_str() == Some(scope)),
        _ => false,
    })
}

/// When a token is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    not_before: Option<i64>,
    expires: i64,
    issued: Option<i64>,
}

/// Why a token is not valid now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untimely {
    /// It is over.
    Expired,
    /// It has not begun.
    NotYet,
    /// It was issued too long ago.
    TooOld,
}

impl Times {
    /// The times of a token, `Err` with the name of a claim that is missing or no time.
    pub fn read(claims: &Claims, needs_issued: bool) -> Result<Self, &'static str> {
        let time = |name: &'static str| match claims.get(name) {
            None => Ok(None),
            Some(value) => seconds(value).map(Some).ok_or(name),
        };
        let (not_before, expires, issued) = (time("nbf")?, time("exp")?, time("iat")?);
        if needs_issued && issued.is_none() {
            return Err("iat");
        }
        Ok(Self { not_before, expires: expires.ok_or("exp")?, issued })
    }

    /// Whether the token is valid at `now`, by clocks that differ by at most `leeway`.
    pub fn check(&self, now: Timestamp, leeway: Duration, age_max: Option<Duration>) -> Result<(), Untimely> {
        let now = now.micros().div_euclid(1_000_000);
        let whole = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let leeway = whole(leeway);
        if now >= self.expires.saturating_add(leeway) {
            return Err(Untimely::Expired);
        }
        let begins = [self.not_before, self.issued].into_iter().flatten().max();
        if begins.is_some_and(|from| now.saturating_add(leeway) < from) {
            return Err(Untimely::NotYet);
        }
        let oldest = age_max.map(|age| now.saturating_sub(whole(age)).saturating_sub(leeway));
        match (oldest, self.issued) {
            (Some(oldest), Some(issued)) if issued < oldest => Err(Untimely::TooOld),
            _ => Ok(()),
        }
    }
}

/// A time as claims have it: seconds, which may have a fraction (RFC 7519 §2, NumericDate).
fn seconds(value: &Value) -> Option<i64> {
    let number = value.as_f64().filter(|number| number.is_finite() && number.abs() < SECONDS_MAX)?;
    #[expect(clippy::cast_possible_truncation, reason = "bounded above, and whole seconds are meant")]
    let whole = number.floor() as i64;
    Some(value.as_i64().unwrap_or(whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claims(value: Value) -> Claims {
        value.as_object().unwrap().clone()
    }

    fn check(path: &str, expected: Option<&str>) {
        let claims = claims(json!({
            "sub": "s", "a.b": "whole", "https://x.test/team": "url", "n": 7, "t": true, "null": null,
            "one": ["x"], "two": ["x", "y"], "deep": [["x"]], "object": { "a": 1 },
            "kubernetes.io": { "namespace": "prod", "serviceaccount": { "name": "bot" } },
            "x": { "y.z": "1" }, "x.y": { "z": "2" },
            "a/b": { "c~d": "escaped" }, "list": [{ "a": "first" }], "": { "": "empty" },
            "long": "l".repeat(300), "control": "a\nb",
        }));
        let path = ClaimPath::parse(path).unwrap();
        assert_eq!(label_at(&claims, &path).as_ref().map(Label::as_str), expected, "{path}");
    }

    #[test]
    fn paths_lead_to_one_value_and_ambiguous_ones_to_none() {
        check("sub", Some("s"));
        check("a.b", Some("whole"));
        check("https://x.test/team", Some("url"));
        check("kubernetes.io.namespace", Some("prod"));
        check("kubernetes.io.serviceaccount.name", Some("bot"));
        check("/kubernetes.io/serviceaccount/name", Some("bot"));
        check("/a~1b/c~0d", Some("escaped"));
        check("/list/0/a", Some("first"));
        check("//", Some("empty"));
        check("kubernetes.io.pod.name", None);
        check("x.y.z", None);
        check("/x/y.z", Some("1"));
    }

    #[test]
    fn values_that_are_no_label_are_unusable() {
        for (path, expected) in [("n", Some("7")), ("t", Some("true")), ("one", Some("x"))] {
            check(path, expected);
        }
        for path in ["null", "two", "deep", "object", "long", "control", "absent", "kubernetes.io"] {
            check(path, None);
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        let deep = ["a"; PARTS_MAX + 1].join(".");
        for text in ["", ".", "a.", ".a", "a..b", "a\u{7}b", &deep, &"/a".repeat(PARTS_MAX)] {
            assert_eq!(ClaimPath::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn scopes_are_found_whole_in_either_form() {
        for value in [
            json!({ "scope": "a llm.use b" }),
            json!({ "scp": ["a", "llm.use"] }),
            json!({ "scp": "llm.use" }),
            json!({ "scope": ["llm.use"] }),
        ] {
            assert!(has_scope(&claims(value.clone()), "llm.use"), "{value}");
        }
        for value in [json!({}), json!({ "scope": "llm.user xllm.use" }), json!({ "scp": { "llm.use": 1 } })]
        {
            assert!(!has_scope(&claims(value.clone()), "llm.use"), "{value}");
        }
    }

    const NOW: i64 = 1_000_000;

    fn time(value: Value, age_max: Option<u64>) -> Result<(), Untimely> {
        let times = Times::read(&claims(value), age_max.is_some()).unwrap();
        let now = Timestamp::from_micros(NOW * 1_000_000 + 999_999);
        times.check(now, Duration::from_secs(30), age_max.map(Duration::from_secs))
    }

    #[test]
    fn times_hold_to_the_second_within_the_leeway() {
        for (value, age_max, expected) in [
            (json!({ "exp": NOW - 29 }), None, Ok(())),
            (json!({ "exp": NOW - 30 }), None, Err(Untimely::Expired)),
            (json!({ "exp": NOW as f64 - 29.5 }), None, Err(Untimely::Expired)),
            (json!({ "exp": -5 }), None, Err(Untimely::Expired)),
            (json!({ "exp": NOW + 9, "nbf": NOW + 30 }), None, Ok(())),
            (json!({ "exp": NOW + 9, "nbf": NOW + 31 }), None, Err(Untimely::NotYet)),
            (json!({ "exp": NOW + 9, "iat": NOW + 31 }), None, Err(Untimely::NotYet)),
            (json!({ "exp": NOW + 9, "iat": NOW - 90 }), Some(60), Ok(())),
            (json!({ "exp": NOW + 9, "iat": NOW - 91 }), Some(60), Err(Untimely::TooOld)),
            (json!({ "exp": NOW + 9, "iat": NOW - 91 }), None, Ok(())),
        ] {
            assert_eq!(time(value.clone(), age_max), expected, "{value}");
        }
    }

    #[test]
    fn what_is_no_time_is_named() {
        for (value, needs_issued, expected) in [
            (json!({}), false, "exp"),
            (json!({ "exp": "2027-01-01" }), false, "exp"),
            (json!({ "exp": null }), false, "exp"),
            (json!({ "exp": 1e300 }), false, "exp"),
            (json!({ "exp": u64::MAX }), false, "exp"),
            (json!({ "exp": 1, "nbf": "1" }), false, "nbf"),
            (json!({ "exp": 1, "iat": {} }), false, "iat"),
            (json!({ "exp": 1 }), true, "iat"),
        ] {
            assert_eq!(Times::read(&claims(value.clone()), needs_issued), Err(expected), "{value}");
        }
    }
}
