//! Parameters of the admin API: what one may say, as a check and as a schema.
//!
//! Invariants
//! - What a schema refuses is refused here, by the parameter's name; a value that passes may still mean
//!   nothing, which the handler tells.
//! - A parameter that the table does not have is refused by name, and so is one that is said twice.
//!
//! Not here: which operation has which parameters (`table`), what they mean (the handlers).

use serde_json::{Value, json};
use std::borrow::Cow;

/// What a parameter may say.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A date, a time (RFC 3339), an age such as `24h` or `7d`, or `now`.
    Time,
    /// A day such as `2026-10-01`.
    Day,
    /// A month such as `2026-09`.
    Month,
    /// Whole days such as `30d`.
    Days,
    /// A name of the IANA time zone database.
    Zone,
    /// A currency's code.
    Currency,
    /// A decimal of zero or more.
    Decimal,
    /// `true` or `false`.
    Switch,
    /// A whole number between two.
    Whole(u64, u64),
    /// A number between two.
    Number(f64, f64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Words of these, separated by commas; with `tag:NAME` where the list has `tag:`.
    Keys(&'static [&'static str]),
    /// A request's id.
    Id,
    /// Text of at most so many bytes, and not empty.
    Text(usize),
    /// Text of at most so many bytes, which may be empty.
    Remark(usize),
}

/// A parameter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Param {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) required: bool,
    pub(super) doc: &'static str,
}

impl Param {
    pub(super) const fn new(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { name, kind, required: false, doc }
    }

    pub(super) const fn needed(mut self) -> Self {
        self.required = true;
        self
    }
}

/// Why a query is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum QueryProblem {
    #[error("the query is no list of name=value pairs in percent-encoded UTF-8")]
    Encoding,
    #[error("the parameter {name:?} is unknown here: {remedy}")]
    Unknown { name: String, remedy: String },
    #[error("the parameter {0:?} is there twice: say it once")]
    Twice(&'static str),
    #[error("the parameter {0:?} is missing: {1}")]
    Missing(&'static str, &'static str),
    #[error("{name}: {value:?} is not taken: write {wanted}")]
    Value { name: &'static str, value: String, wanted: Cow<'static, str> },
}

/// Longest part of a value that a message shows.
const SHOWN_CHARS_MAX: usize = 80;

/// The pairs of a query, each admitted by one of `params`.
pub(super) fn read(query: &str, params: &[Param]) -> Result<Vec<(&'static str, String)>, QueryProblem> {
    let mut found: Vec<(&'static str, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(name)?, decoded(value)?);
        let Some(param) = params.iter().find(|param| param.name == name) else {
            return Err(unknown(&name, params));
        };
        if found.iter().any(|(known, _)| *known == param.name) {
            return Err(QueryProblem::Twice(param.name));
        }
        if !param.kind.admits(&value) {
            let value = value.chars().take(SHOWN_CHARS_MAX).collect();
            return Err(QueryProblem::Value { name: param.name, value, wanted: param.kind.words() });
        }
        found.push((param.name, value));
    }
    let missing =
        params.iter().find(|param| param.required && found.iter().all(|(name, _)| *name != param.name));
    match missing {
        Some(param) => Err(QueryProblem::Missing(param.name, param.doc)),
        None => Ok(found),
    }
}

fn decoded(text: &str) -> Result<String, QueryProblem> {
    let plain = text.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&plain).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| QueryProblem::Encoding)
}

fn unknown(name: &str, params: &[Param]) -> QueryProblem {
    let names: Vec<&str> = params.iter().map(|param| param.name).collect();
    let remedy = match crate::config::suggest::nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean {near:?}?"),
        None if names.is_empty() => "there are none".to_owned(),
        None => format!("there are {}", names.join(", ")),
    };
    QueryProblem::Unknown { name: name.chars().take(SHOWN_CHARS_MAX).collect(), remedy }
}

/// A query of pairs.
pub(super) fn write(pairs: &[(&'static str, String)]) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    let pairs = pairs.iter();
    let pairs = pairs.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Whether `text` looks like `pattern`, where `9` is any digit and the rest is itself.
fn looks_like(text: &str, pattern: &str) -> bool {
    text.len() == pattern.len()
        && text.bytes().zip(pattern.bytes()).all(|(byte, wanted)| match wanted {
            b'9' => byte.is_ascii_digit(),
            _ => byte == wanted,
        })
}

fn is_digits(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_day(text: &str) -> bool {
    looks_like(text, "9999-99-99")
}

fn is_time(text: &str) -> bool {
    if text == "now" || is_day(text) {
        return true;
    }
    if let Some(count) = text.strip_suffix(['m', 'h', 'd', 'w']) {
        return is_digits(count, 9);
    }
    let Some((day, clock)) = text.split_at_checked(10) else { return false };
    let Some(clock) = clock.strip_prefix(['T', ' ']) else { return false };
    let clock = match clock.strip_suffix('Z') {
        Some(clock) => clock,
        None => match clock.len().checked_sub(6).and_then(|at| clock.split_at_checked(at)) {
            Some((clock, offset)) if looks_like(offset, "+99:99") || looks_like(offset, "-99:99") => clock,
            _ => clock,
        },
    };
    let is_clock = (1..=18).contains(&clock.len())
        && clock.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.'));
    is_day(day) && is_clock
}

fn is_decimal(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    is_digits(whole, 12) && is_digits(fraction, 12)
}

fn is_key(text: &str, words: &[&str]) -> bool {
    match text.strip_prefix("tag:") {
        Some(tag) => words.contains(&"tag:") && (1..=256).contains(&tag.len()) && !tag.contains('\0'),
        None => words.contains(&text) && text != "tag:",
    }
}

impl Kind {
    /// Whether a value may be asked about at all.
    pub(super) fn admits(self, text: &str) -> bool {
        match self {
            Self::Time => is_time(text),
            Self::Day => is_day(text),
            Self::Month => looks_like(text, "9999-99"),
            Self::Days => text.strip_suffix('d').is_some_and(|count| is_digits(count, 5)),
            Self::Zone => {
                let is_part =
                    |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'/' | b'-');
                (1..=64).contains(&text.len()) && text.bytes().all(is_part)
            }
            Self::Currency => text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase()),
            Self::Decimal => is_decimal(text),
            Self::Switch => matches!(text, "true" | "false"),
            Self::Whole(min, max) => {
                let is_canonical = text == "0" || (is_digits(text, 20) && !text.starts_with('0'));
                is_canonical && text.parse().is_ok_and(|number: u64| (min..=max).contains(&number))
            }
            Self::Number(min, max) => {
                let number = serde_json::from_str::<serde_json::Number>(text).ok();
                number.and_then(|number| number.as_f64()).is_some_and(|number| (min..=max).contains(&number))
            }
            Self::OneOf(words) => words.contains(&text),
            Self::Keys(words) => text.split(',').all(|key| is_key(key.trim_matches(' '), words)),
            Self::Id => bursar_domain::RequestId::parse(text).is_some(),
            Self::Text(max) => (1..=max).contains(&text.chars().count()) && !text.contains('\0'),
            Self::Remark(max) => text.chars().count() <= max && !text.contains('\0'),
        }
    }

    /// What is taken, for people.
    fn words(self) -> Cow<'static, str> {
        match self {
            Self::Time => "2026-11-01, 2026-11-01T09:00:00Z, or an age such as 24h or 7d".into(),
            Self::Day => "a day such as 2026-11-01".into(),
            Self::Month => "a month such as 2026-09".into(),
            Self::Days => "whole days such as 30d".into(),
            Self::Zone => "an IANA name such as Europe/Paris".into(),
            Self::Currency => "a code such as USD".into(),
            Self::Decimal => "a decimal such as 0.5".into(),
            Self::Switch => "true or false".into(),
            Self::Whole(min, max) => format!("a whole number from {min} to {max}").into(),
            Self::Number(min, max) => format!("a number from {min} to {max}").into(),
            Self::OneOf(words) => match words.split_last() {
                Some((last, [])) => (*last).into(),
                Some((last, first)) => format!("{} or {last}", first.join(", ")).into(),
                None => "".into(),
            },
            Self::Keys(words) => {
                let words: Vec<&str> =
                    words.iter().map(|word| if *word == "tag:" { "tag:NAME" } else { word }).collect();
                format!("some of {}, separated by commas", words.join(", ")).into()
            }
            Self::Id => "an id as x-bursar-request-id says it".into(),
            Self::Text(max) => format!("text of 1 to {max} characters").into(),
            Self::Remark(max) => format!("text of at most {max} characters").into(),
        }
    }

    /// The same as a JSON Schema.
    pub(super) fn schema(self) -> Value {
        let pattern = |pattern: &str, example: &str| json!({ "type": "string", "pattern": pattern, "examples": [example] });
        match self {
            Self::Time => json!({ "anyOf": [
                { "type": "string", "format": "date", "examples": ["2026-11-01"] },
                { "type": "string", "format": "date-time", "examples": ["2026-11-01T09:00:00Z"] },
                { "type": "string", "pattern": "^(now|[0-9]{1,9}[mhdw])$", "examples": ["7d"] },
                { "type": "string", "pattern": LOCAL_TIME, "examples": ["2026-11-01T09:00"] },
            ] }),
            Self::Day => json!({ "type": "string", "format": "date", "examples": ["2026-11-01"] }),
            Self::Month => pattern("^[0-9]{4}-(0[1-9]|1[0-2])$", "2026-09"),
            Self::Days => pattern("^[0-9]{1,5}d$", "30d"),
            Self::Zone => pattern("^[A-Za-z0-9_+/-]{1,64}$", "Europe/Paris"),
            Self::Currency => pattern("^[A-Z]{3}$", "USD"),
            Self::Decimal => pattern("^[0-9]{1,12}(\\.[0-9]{1,12})?$", "0.5"),
            Self::Switch => json!({ "type": "boolean" }),
            Self::Whole(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
            Self::Number(min, max) => json!({ "type": "number", "minimum": min, "maximum": max }),
            Self::OneOf(words) => json!({ "type": "string", "enum": words }),
            Self::Keys(words) => {
                let tag = "tag:[A-Za-z0-9_.-]{1,64}";
                let words: Vec<&str> =
                    words.iter().map(|word| if *word == "tag:" { tag } else { word }).collect();
                let (word, first) = (words.join("|"), words.first().copied().unwrap_or_default());
                pattern(&format!("^({word})(,({word}))*$"), first)
            }
            Self::Id => json!({ "type": "string", "format": "uuid" }),
            Self::Text(max) => {
                json!({ "type": "string", "minLength": 1, "maxLength": max, "pattern": "^[^\\u0000]+$" })
            }
            Self::Remark(max) => {
                json!({ "type": "string", "maxLength": max, "pattern": "^[^\\u0000]*$" })
            }
        }
    }
}

const LOCAL_TIME: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]{1,18}$";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Kind, taken: &[&str], refused: &[&str]) {
        for text in taken {
            assert!(kind.admits(text), "{kind:?} {text:?}");
        }
        for text in refused {
            assert!(!kind.admits(text), "{kind:?} {text:?}");
        }
    }

    #[test]
    fn each_kind_takes_what_its_schema_says_and_nothing_else() {
        let times = [
            "now",
            "24h",
            "7d",
            "2026-11-01",
            "2026-11-01T09:00",
            "2026-11-01T09:00:00.5Z",
            "2026-11-01T09:00:00+02:00",
        ];
        check(
            Kind::Time,
            &times,
            &["", "yesterday", " now", "-5d", "h", "2026-11-01T", "2026-11-01Z", "2026-1-01", "é026-11-01T1"],
        );
        check(Kind::Day, &["2026-11-01"], &["2026-11-01T09:00", "26-11-01", "2026-11-1"]);
        check(Kind::Month, &["2026-09"], &["2026-9", "2026-09-01", ""]);
        check(Kind::Days, &["30d", "0d"], &["30", "d", "-1d", "123456d"]);
        check(Kind::Zone, &["UTC", "Europe/Paris", "Etc/GMT+3"], &["", "Mars Base", "é"]);
        check(Kind::Currency, &["USD"], &["usd", "US", "USDT"]);
        check(Kind::Decimal, &["0", "0.5", "12"], &["", ".5", "1.", "-1", "1e3"]);
        check(Kind::Switch, &["true", "false"], &["", "1", "True"]);
        check(Kind::Whole(1, 10), &["1", "10"], &["0", "11", "01", "+1", "1.0", ""]);
        check(Kind::Number(0.0, 1.0), &["0", "0.25", "1e-3"], &["-0.1", "2", "NaN", "", "inf"]);
        check(Kind::OneOf(&["a", "b"]), &["a"], &["", "c", "A", "a,b"]);
        check(
            Kind::Keys(&["team", "tag:"]),
            &["team", "team, tag:env", "tag:a b"],
            &["", "team,", "tag:", "model"],
        );
        check(Kind::Keys(&["team"]), &["team"], &["tag:env"]);
        check(Kind::Id, &["0190f0a0-0000-7000-8000-000000000001"], &["", "x"]);
        check(Kind::Text(3), &["abc"], &["", "abcd", "a\0"]);
    }

    const PARAMS: &[Param] =
        &[Param::new("from", Kind::Time, "a time").needed(), Param::new("tz", Kind::Zone, "a zone")];

    fn problem(query: &str) -> String {
        read(query, PARAMS).unwrap_err().to_string()
    }

    #[test]
    fn a_query_is_refused_by_the_name_of_what_is_wrong_in_it() {
        assert!(problem("from=7d&tx=UTC").contains("\"tx\" is unknown here: did you mean \"tz\"?"));
        assert!(problem("from=7d&colour=red").contains("there are from, tz"));
        assert!(problem("from=7d&from=8d").contains("\"from\" is there twice"));
        assert!(problem("tz=UTC").contains("\"from\" is missing"));
        assert!(problem("from=soon").contains("from: \"soon\" is not taken: write 2026-11-01"));
        assert!(problem("from=%ff").contains("percent-encoded UTF-8"));
        assert!(problem(&format!("{}=1", "x".repeat(9_000))).len() < 200);
        let none = read("a=1", &[]).unwrap_err().to_string();
        assert!(none.contains("there are none"), "{none}");
    }

    #[test]
    fn what_is_read_is_written_as_the_same_query() {
        let pairs = read("from=2026-11-01T09%3A00%3A00%2B02:00&tz=Europe/Paris", PARAMS).unwrap();
        assert_eq!(
            pairs,
            vec![("from", "2026-11-01T09:00:00+02:00".to_owned()), ("tz", "Europe/Paris".to_owned())]
        );
        assert_eq!(read(&write(&pairs), PARAMS), Ok(pairs));
        assert_eq!(read("from=7d+", &[]).map(|_| ()), Err(unknown("from", &[])));
    }
}
