//! Reconciliations beside a report of return: what `bursar reconcile --format json` wrote, checked before it
//! is shown.
//!
//! Invariants
//! - Nothing is shown that does not add up: in every row theirs − ours is the gap and the parts sum to it, in
//!   money and in tokens, and the rows sum to the total.
//! - What is unknown stays null. The report's own figures do not change.
//! - Where the days or the currency are not those of the report, the words say so.
//!
//! Not here: the parts of a gap (`bursar_policies::reconcile`), where they are shown (`workbook`, `cli::page`).

use bursar_domain::money::parse_pico;
use serde_json::{Value, json};

/// The parts of a gap, as documents name them.
pub(crate) const PARTS: [&str; 7] =
    ["unpriced", "estimated", "aborted", "outside", "price", "rounding", "unexplained"];
/// What is said where no reconciliation was given.
pub(crate) const NONE: &str = "No reconciliation was given: the figures are what was metered and priced by \
    the sidecar, and were not compared with any provider's statement.";
/// How to come by one.
pub(crate) const REMEDY: &str = "bursar reconcile FILE --provider NAME --format json > reconciliation.json, \
    then bursar roi with --reconciliation reconciliation.json";

/// Why a file cannot stand beside a report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReconciliationError {
    /// It is no JSON.
    #[error("is no JSON: {0}")]
    NotJson(String),
    /// It is something else.
    #[error("is no answer of `bursar reconcile --format json`: {0} is missing or of another kind")]
    Shape(String),
    /// It was changed, or was never right.
    #[error(
        "{place}: {what}, in {unit}: the file is not as `bursar reconcile` writes it, so nothing is shown of it"
    )]
    Sum {
        /// Which row.
        place: String,
        /// Money or tokens.
        unit: &'static str,
        /// What does not add up.
        what: &'static str,
    },
}

/// In what a gap is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Money,
    Tokens,
}

impl Unit {
    const fn name(self) -> &'static str {
        match self {
            Self::Money => "money",
            Self::Tokens => "tokens",
        }
    }

    /// Where both sides have it.
    const fn sides(self) -> [&'static str; 2] {
        match self {
            Self::Money => ["/theirs/cost", "/ours/billed"],
            Self::Tokens => ["/theirs/tokens", "/ours/tokens"],
        }
    }

    /// Pico-units, or a count.
    fn amount(self, value: &Value) -> Option<i128> {
        match (self, value) {
            (Self::Money, Value::String(text)) => parse_pico(text).ok(),
            (Self::Tokens, Value::String(text)) => text.parse().ok(),
            (Self::Tokens, Value::Number(number)) => number.as_i64().map(i128::from),
            _ => None,
        }
    }
}

/// One row in one unit: theirs and ours, and the parts with the gap after them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Figures {
    theirs: Option<i128>,
    ours: i128,
    parts: Option<[i128; PARTS.len()]>,
    gap: i128,
}

impl Figures {
    fn of(row: &Value, unit: Unit, place: &str) -> Result<Self, ReconciliationError> {
        let shape = |what: String| ReconciliationError::Shape(format!("{what} of {place}"));
        let known = |path: &str| -> Result<Option<i128>, ReconciliationError> {
            let value = row.pointer(path).ok_or_else(|| shape(path.to_owned()))?;
            if value.is_null() {
                return Ok(None);
            }
            unit.amount(value).map(Some).ok_or_else(|| shape(path.to_owned()))
        };
        let must = |path: &str| known(path)?.ok_or_else(|| shape(path.to_owned()));
        let [theirs, ours] = unit.sides();
        let (theirs, ours) = (known(theirs)?, must(ours)?);
        let told = row.get(unit.name()).ok_or_else(|| shape(unit.name().to_owned()))?;
        let mut found = Self { theirs, ours, parts: None, gap: 0 };
        if told.is_null() {
            return Ok(found);
        }
        let mut parts = [0; PARTS.len()];
        for (part, name) in parts.iter_mut().zip(PARTS) {
            *part = must(&format!("/{}/{name}", unit.name()))?;
        }
        found.parts = Some(parts);
        found.gap = must(&format!("/{}/gap", unit.name()))?;
        let sum = parts.iter().try_fold(0_i128, |sum, part| sum.checked_add(*part));
        if sum != Some(found.gap) {
            return Err(wrong(place, unit, "the parts do not sum to the gap"));
        }
        Ok(found)
    }

    fn plus(self, other: Self) -> Option<Self> {
        let theirs = match (self.theirs, other.theirs) {
            (Some(one), Some(two)) => Some(one.checked_add(two)?),
            (one, two) => one.or(two),
        };
        let parts = match (self.parts, other.parts) {
            (Some(mut one), Some(two)) => {
                for (one, two) in one.iter_mut().zip(two) {
                    *one = one.checked_add(two)?;
                }
                Some(one)
            }
            (one, two) => one.or(two),
        };
        Some(Self {
            theirs,
            ours: self.ours.checked_add(other.ours)?,
            parts,
            gap: self.gap.checked_add(other.gap)?,
        })
    }
}

fn wrong(place: &str, unit: Unit, what: &'static str) -> ReconciliationError {
    ReconciliationError::Sum { place: place.to_owned(), unit: unit.name(), what }
}

/// A field; null where there is none.
fn at<'a>(value: &'a Value, name: &str) -> &'a Value {
    value.get(name).unwrap_or(&Value::Null)
}

/// Understands what `bursar reconcile --format json` wrote.
pub(crate) fn read(text: &str) -> Result<Value, ReconciliationError> {
    let document: Value =
        serde_json::from_str(text).map_err(|error| ReconciliationError::NotJson(error.to_string()))?;
    for (name, good) in [
        ("provider", at(&document, "provider").is_string()),
        ("currency", at(&document, "currency").is_string()),
        ("period", at(&document, "period").is_object()),
        ("by", at(&document, "by").is_array()),
        ("files", at(&document, "files").is_array()),
        ("rows", at(&document, "rows").is_array()),
        ("total", at(&document, "total").is_object()),
        ("unexplained", at(&document, "unexplained").is_object()),
        ("tolerance", at(&document, "tolerance").is_string()),
        ("within_tolerance", at(&document, "within_tolerance").is_boolean()),
        ("as_of", at(&document, "as_of").is_string()),
    ] {
        if !good {
            return Err(ReconciliationError::Shape(name.to_owned()));
        }
    }
    for unit in [Unit::Money, Unit::Tokens] {
        check(&document, unit)?;
    }
    Ok(document)
}

fn check(document: &Value, unit: Unit) -> Result<(), ReconciliationError> {
    let mut sum = Figures::default();
    let mut unexplained = 0_i128;
    let too_large = || wrong("the total", unit, "the rows are too large to be summed");
    for (number, row) in at(document, "rows").as_array().into_iter().flatten().enumerate() {
        let place = format!("row {}", number.saturating_add(1));
        let found = Figures::of(row, unit, &place)?;
        let gap = found.theirs.and_then(|theirs| theirs.checked_sub(found.ours));
        if gap != found.parts.map(|_| found.gap) {
            return Err(wrong(&place, unit, "theirs less ours is not the gap"));
        }
        let left = found.parts.and_then(|parts| parts.last().copied()).unwrap_or(0);
        unexplained =
            left.checked_abs().and_then(|left| unexplained.checked_add(left)).ok_or_else(too_large)?;
        sum = sum.plus(found).ok_or_else(too_large)?;
    }
    let total = Figures::of(at(document, "total"), unit, "the total")?;
    // A total of nothing has no side.
    if total != sum {
        return Err(wrong("the total", unit, "the rows do not sum to it"));
    }
    let told = at(document, "unexplained").get(unit.name()).unwrap_or(&Value::Null);
    if unit.amount(told) != total.parts.map(|_| unexplained) {
        return Err(wrong("unexplained", unit, "it is not the sum over the rows"));
    }
    Ok(())
}

/// Puts reconciliations beside the figures of a report: each with its file's name and checksum, and with
/// what is different about it.
pub(crate) fn attach(report: &mut Value, found: Vec<(String, String, Value)>) {
    let period = at(report, "period").clone();
    let currency = at(report, "currency").clone();
    let documents = found.into_iter().map(|(file, sha256, mut document)| {
        let mut remarks = Vec::new();
        let same = ["from", "to"].iter().all(|name| at(at(&document, "period"), name) == at(&period, name));
        if !same || at(&period, "tz") != at(at(&document, "period"), "tz") {
            remarks.push(format!(
                "its days are {}, the report's are {}",
                days(at(&document, "period")),
                days(&period)
            ));
        }
        if *at(&document, "currency") != currency {
            remarks.push(format!(
                "it is in {}, the report in {}",
                word(at(&document, "currency")),
                word(&currency)
            ));
        }
        if let Some(object) = document.as_object_mut() {
            object.insert("file".to_owned(), file.into());
            object.insert("sha256".to_owned(), sha256.into());
            object.insert("remarks".to_owned(), json!(remarks));
        }
        document
    });
    let documents = Value::Array(documents.collect());
    if let Some(report) = report.as_object_mut() {
        report.insert("reconciliation".to_owned(), documents);
    }
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("unknown")
}

fn days(period: &Value) -> String {
    let zone = at(period, "tz").as_str().unwrap_or("UTC");
    format!("{} to {} ({zone})", word(at(period, "from")), word(at(period, "to")))
}

/// The reconciliations of a report.
pub(crate) fn given(report: &Value) -> &[Value] {
    report.get("reconciliation").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Each reconciliation of a report in a sentence; what is said where there is none.
pub(crate) fn sentences(report: &Value) -> Vec<String> {
    let given = given(report);
    if given.is_empty() {
        return vec![NONE.to_owned()];
    }
    given.iter().map(sentence).collect()
}

fn sentence(document: &Value) -> String {
    let text = |path: &str| match document.pointer(path) {
        None | Some(Value::Null) => "unknown".to_owned(),
        Some(Value::String(found)) => found.clone(),
        Some(other) => other.to_string(),
    };
    let money = document.pointer("/total/money").is_some_and(|money| !money.is_null());
    let (unit, [theirs, ours], code) = match money {
        true => ("money", Unit::Money.sides(), text("/currency")),
        false => ("tokens", Unit::Tokens.sides(), "tokens".to_owned()),
    };
    let side = |side: &str| text(&format!("/total{side}"));
    let verdict = if at(document, "within_tolerance") == true { "within" } else { "BEYOND" };
    let remarks = at(document, "remarks").as_array().into_iter().flatten();
    let remarks: String = remarks.map(|remark| format!("; {}", word(remark))).collect();
    format!(
        "{}, {}: {} (theirs) − {} (ours) = {} {code}, of which {} unexplained, {verdict} the tolerance of {}{remarks}",
        text("/provider"),
        days(at(document, "period")),
        side(theirs),
        side(ours),
        text(&format!("/total/{unit}/gap")),
        text(&format!("/unexplained/{unit}")),
        text("/tolerance"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(unexplained: &str) -> Value {
        json!({ "unpriced": "0", "estimated": "0.5", "aborted": "0", "outside": "0", "price": "0", "rounding": "0",
                "unexplained": unexplained, "gap": "0.7" })
    }

    fn document() -> Value {
        let row = json!({
            "day": "2026-03-02", "model": "=cmd()",
            "theirs": { "cost": "1.7", "requests": 2, "tokens": 5 },
            "ours": { "billed": "1", "requests": 2, "tokens": 5, "estimated": 1, "unpriced": 0, "unknown": 0 },
            "money": parts("0.2"),
            "tokens": { "unpriced": 0, "estimated": 0, "aborted": 0, "outside": 0, "price": 0, "rounding": 0,
                        "unexplained": 0, "gap": 0 }
        });
        json!({
            "provider": "openai", "period": { "from": "2026-03-02", "to": "2026-03-03", "tz": "UTC" },
            "currency": "USD", "by": ["day", "model"], "files": [], "rows": [row], "total": row,
            "unexplained": { "money": "0.2", "tokens": "0" }, "tolerance": "1%", "within_tolerance": false,
            "as_of": "2026-03-04T00:00:00Z"
        })
    }

    #[track_caller]
    fn refused(path: &str, value: Value, text: &str) {
        let mut changed = document();
        *changed.pointer_mut(path).unwrap() = value;
        let error = read(&changed.to_string()).unwrap_err().to_string();
        assert!(error.contains(text), "{text} in {error}");
    }

    #[test]
    fn a_document_that_adds_up_is_taken_as_it_is() {
        assert_eq!(read(&document().to_string()).unwrap(), document());
        // Without costs there is no gap of money, on either side.
        let mut counts = document();
        for place in ["/rows/0", "/total"] {
            *counts.pointer_mut(&format!("{place}/theirs/cost")).unwrap() = Value::Null;
            *counts.pointer_mut(&format!("{place}/money")).unwrap() = Value::Null;
        }
        counts["unexplained"]["money"] = Value::Null;
        assert_eq!(read(&counts.to_string()).unwrap(), counts);
    }

    #[test]
    fn what_was_changed_by_hand_is_refused_with_the_place() {
        refused("/rows/0/money/unexplained", "0".into(), "row 1: the parts do not sum to the gap, in money");
        refused("/rows/0/theirs/cost", "1.8".into(), "row 1: theirs less ours is not the gap");
        refused("/total/ours/billed", "2".into(), "the total: the rows do not sum to it");
        refused("/rows", json!([]), "the rows do not sum to it");
        refused("/unexplained/money", "0.1".into(), "unexplained: it is not the sum over the rows");
        refused("/rows/0/ours/billed", 7.into(), "/ours/billed of row 1 is missing or of another kind");
        refused("/within_tolerance", "yes".into(), "within_tolerance is missing");
        assert!(read("{}").unwrap_err().to_string().contains("provider is missing"));
        assert!(read("day,model").unwrap_err().to_string().contains("is no JSON"));
    }

    #[test]
    fn what_is_different_about_it_is_said() {
        let mut report =
            json!({ "period": { "from": "2026-03-01", "to": "2026-04-01", "tz": "UTC" }, "currency": "EUR" });
        assert_eq!(sentences(&report), [NONE]);
        attach(&mut report, vec![("r.json".to_owned(), "ab".to_owned(), document())]);
        assert_eq!(
            sentences(&report),
            [
                "openai, 2026-03-02 to 2026-03-03 (UTC): 1.7 (theirs) − 1 (ours) = 0.7 USD, of which 0.2 unexplained, \
              BEYOND the tolerance of 1%; its days are 2026-03-02 to 2026-03-03 (UTC), the report's are 2026-03-01 to \
              2026-04-01 (UTC); it is in USD, the report in EUR"
            ]
        );
    }
}
