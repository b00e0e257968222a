//! What this program was built from: version, commit, toolchain, formats, prices.
//!
//! Invariants
//! - Everything here was fixed when the program was compiled; nothing says when or on which machine that was.
//! - What is not known (the commit of a debug build, or of sources without a checkout) is absent.
//!
//! Not here: how the facts are gathered (`build.rs`).

use bursar_ledger::FORMATS;
use bursar_policies::price::builtin_edition;
use serde_json::{Map, Value, json};

/// Version and, where it is known, commit: the line of `--version`.
pub(crate) const LINE: &str = env!("BURSAR_BUILD_LINE");
/// The version alone.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

const COMMIT: &str = env!("BURSAR_BUILD_COMMIT");
const DIRTY: &str = env!("BURSAR_BUILD_DIRTY");
const SOURCE_DATE: &str = env!("BURSAR_BUILD_SOURCE_DATE");
const RUSTC: &str = env!("BURSAR_BUILD_RUSTC");
const TARGET: &str = env!("BURSAR_BUILD_TARGET");
const PROFILE: &str = env!("BURSAR_BUILD_PROFILE");

/// Hexadecimal digits of the checksum of the price book.
const DIGEST_DIGITS: usize = 16;

/// The optional parts that are compiled in.
fn features() -> Vec<&'static str> {
    let features = [("parquet", cfg!(feature = "parquet")), ("sigv4", cfg!(feature = "sigv4"))];
    features.into_iter().filter_map(|(name, on)| on.then_some(name)).collect()
}

/// All of it, as `bursar version --format json` and the admin API tell it.
pub(crate) fn document() -> Value {
    let mut told = Map::new();
    told.insert("version".to_owned(), VERSION.into());
    for (name, value) in [("commit", known(COMMIT)), ("dirty", dirty()), ("source_date", source_date())] {
        if let Some(value) = value {
            told.insert(name.to_owned(), value);
        }
    }
    for (name, value) in [("rustc", RUSTC), ("target", TARGET), ("profile", PROFILE)] {
        if let Some(value) = known(value) {
            told.insert(name.to_owned(), value);
        }
    }
    told.insert("features".to_owned(), features().into());
    let formats = json!({ "segment": FORMATS.segment, "payload": FORMATS.payload, "store": FORMATS.store });
    told.insert("ledger_formats".to_owned(), formats);
    told.insert("prices".to_owned(), prices());
    Value::Object(told)
}

/// The same for a metric whose value is always 1: few labels, and those that tell two builds apart.
pub(crate) fn labels() -> Vec<(&'static str, String)> {
    let mut labels = vec![("version", VERSION.to_owned())];
    let facts = [("commit", COMMIT), ("dirty", DIRTY), ("rustc", RUSTC), ("target", TARGET)];
    labels.extend(
        facts
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name, value.to_owned())),
    );
    labels.push(("features", features().join(",")));
    labels
}

fn known(text: &'static str) -> Option<Value> {
    (!text.is_empty()).then(|| text.into())
}

fn dirty() -> Option<Value> {
    DIRTY.parse::<bool>().ok().map(Value::from)
}

fn source_date() -> Option<Value> {
    let seconds = SOURCE_DATE.parse().ok()?;
    jiff::Timestamp::from_second(seconds).ok().map(|time| time.to_string().into())
}

fn prices() -> Value {
    let edition = builtin_edition();
    let digest: String = blake3::hash(edition.text.as_bytes()).to_hex().chars().take(DIGEST_DIGITS).collect();
    let mut told = json!({ "sources": edition.sources, "digest": format!("b3:{digest}") });
    if let (Some(told), Some(day)) = (told.as_object_mut(), edition.latest_from) {
        told.insert("latest_from".to_owned(), day.into());
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_always_known_is_told_and_nothing_is_empty_or_null() {
        let told = document();
        for path in ["/version", "/rustc", "/target", "/profile", "/prices/digest", "/prices/latest_from"] {
            assert!(
                told.pointer(path).and_then(Value::as_str).is_some_and(|text| !text.is_empty()),
                "{path}"
            );
        }
        for part in ["segment", "payload", "store"] {
            assert!(told["ledger_formats"][part].as_u64().is_some_and(|version| version > 0), "{part}");
        }
        assert!(told["features"].as_array().is_some());
        assert!(told.as_object().unwrap().values().all(|value| !value.is_null() && value != ""));
    }

    #[test]
    fn the_line_begins_with_the_version_and_names_the_commit_if_that_is_known() {
        let rest = LINE.strip_prefix(VERSION).unwrap();
        match COMMIT.get(..12) {
            Some(short) => assert!(rest.starts_with(&format!(" ({short}")), "{LINE}"),
            None => assert_eq!(rest, ""),
        }
        assert_eq!(document().get("commit").is_some(), !COMMIT.is_empty());
    }

    #[test]
    fn labels_are_there_once_each_and_say_something() {
        let labels = labels();
        let names: std::collections::BTreeSet<&str> = labels.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), labels.len());
        assert!(labels.iter().all(|(name, value)| *name == "features" || !value.is_empty()), "{labels:?}");
    }
}
