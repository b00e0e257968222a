//! Overlay prices: the user's own rows, which win over the built-in book.
//!
//! Invariants
//! - All mistakes of a file are reported together, each with its row, key, value and remedy.
//! - A file with a mistake gives no rows.
//!
//! How rows read
//! - A row holds for its provider, model, region and tier from `from` (a day is its midnight UTC)
//!   to `until`, or to the next row for the same thing. No `region` means everywhere, no `tier`
//!   means standard (for a discount: every tier), no `currency` means USD.
//! - With `hours` it holds only in that part of each day, and goes before a row without that begins
//!   at the same instant.
//! - A row whose region is `*` holds in any region that a call names.
//! - `model` is the name that the provider serves. A name of the book covers its dated snapshots;
//!   a snapshot's own name covers only that. `beginning*` covers the names that nothing else names.
//! - Only the classes that a row states are replaced; with `per_million` also all context
//!   thresholds of those classes, unless `above_context` gives new ones.
//! - `kind: contracted` leaves the list price alone. `discount_percent` takes its part off every
//!   list price of the models that `model` matches; a contracted price goes before a discount, and
//!   of several discounts the one with the most exact model name holds alone.
//! - A regional factor of the built-in book still applies, unless the row names a region itself.
//!
//! Not here: reading the file (the caller, with serde), which row holds (`compile`).

mod check;
mod decimal;
pub mod import;

pub use decimal::Decimal;

use super::BookError;
use super::row::PriceRow;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor, value};
use std::collections::BTreeMap;
use std::fmt;

/// The file as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverlayFile {
    /// Who says so; kept with each row. `overlay` when absent.
    pub source: Option<String>,
    /// The rows.
    #[serde(default)]
    pub rows: Vec<OverlayRow>,
}

/// Prices of one model, region and tier over one stretch of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverlayRow {
    /// Provider, as on the record.
    pub provider: String,
    /// Model as served; may end in `*`.
    pub model: String,
    /// Price region; absent: everywhere.
    pub region: Option<String>,
    /// Tier; absent: standard.
    pub tier: Option<String>,
    /// First day or instant; absent: always.
    pub from: Option<String>,
    /// First day or instant at which it holds no more.
    pub until: Option<String>,
    /// Part of each day in UTC, such as `16:30-00:30`; absent: all day.
    pub hours: Option<String>,
    /// ISO 4217 code; absent: USD.
    pub currency: Option<String>,
    /// Prices per million tokens by class: `input`, `cached_read`, `cache_write`, `output` …
    #[serde(default)]
    pub per_million: BTreeMap<String, Decimal>,
    /// Price of each request.
    pub per_request: Option<Decimal>,
    /// Price of each web search.
    pub per_web_search: Option<Decimal>,
    /// Price of each request for which the provider searched the web, in place of each search.
    pub per_grounded_request: Option<Decimal>,
    /// Prices of other units: `images`, `pages`, `search_units`, `audio_seconds`, `audio_minutes`.
    #[serde(default)]
    pub per_unit: BTreeMap<String, Decimal>,
    /// Other prices for requests with more input than so many tokens; one entry or a list.
    #[serde(default, deserialize_with = "one_or_many")]
    pub above_context: Vec<AboveContext>,
    /// `list` (default) or `contracted`.
    pub kind: Option<String>,
    /// Taken off every list price; only with `kind: contracted` and without prices.
    pub discount_percent: Option<Decimal>,
}

/// Prices above a context threshold.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AboveContext {
    /// Holds for requests with more input tokens than this, cached included.
    pub tokens: Decimal,
    /// Prices per million tokens by class; each class must have a base price in the same row.
    pub per_million: BTreeMap<String, Decimal>,
}

/// What is wrong with an overlay file. Rows are counted from one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverlayError {
    /// A provider, model, region or tier that cannot be one.
    #[error("row {row}: {key}: {value:?} is not usable as a name: {reason}")]
    BadName {
        /// The row.
        row: usize,
        /// The key.
        key: &'static str,
        /// What it says.
        value: String,
        /// Why not.
        reason: String,
    },
    /// A price that is no exact, non-negative decimal.
    #[error("row {row}: {key}: {value:?} {reason}")]
    BadPrice {
        /// The row.
        row: usize,
        /// The key, with its path.
        key: String,
        /// What it says.
        value: String,
        /// What is wrong and what to write instead.
        reason: String,
    },
    /// A class or unit that the book does not know.
    #[error("row {row}: {key}: unknown {what}; use one of: {known}")]
    UnknownClass {
        /// The row.
        row: usize,
        /// The key, with its path.
        key: String,
        /// Token class or unit.
        what: &'static str,
        /// All that there are.
        known: String,
    },
    /// A currency that does not exist.
    #[error("row {row}: currency: {value:?} is no ISO 4217 code; write one such as USD, EUR or CNY")]
    UnknownCurrency {
        /// The row.
        row: usize,
        /// What it says.
        value: String,
    },
    /// A kind that does not exist.
    #[error("row {row}: kind: {value:?} is neither `list` nor `contracted`")]
    UnknownKind {
        /// The row.
        row: usize,
        /// What it says.
        value: String,
    },
    /// A date that cannot be read.
    #[error(
        "row {row}: {key}: {value:?} is no date; write a day such as 2026-01-31, or 2026-01-31T12:00:00Z"
    )]
    BadTime {
        /// The row.
        row: usize,
        /// The key.
        key: &'static str,
        /// What it says.
        value: String,
    },
    /// Hours that cannot be read.
    #[error("row {row}: hours: {value:?} is no part of a day; write it in UTC such as 16:30-00:30")]
    BadHours {
        /// The row.
        row: usize,
        /// What it says.
        value: String,
    },
    /// The end is not after the beginning.
    #[error("row {row}: until: {until:?} is not after from {from:?}: the row would never hold")]
    EmptyWindow {
        /// The row.
        row: usize,
        /// The beginning.
        from: String,
        /// The end.
        until: String,
    },
    /// A row that says nothing.
    #[error(
        "row {row}: it has no price; give per_million, per_request, per_web_search, per_grounded_request, per_unit or discount_percent"
    )]
    NoPrice {
        /// The row.
        row: usize,
    },
    /// A threshold price for a class without a base price in the row.
    #[error("row {row}: {key}: the class has no price up to the threshold; give per_million.{class} as well")]
    NoBasePrice {
        /// The row.
        row: usize,
        /// The key, with its path.
        key: String,
        /// The class.
        class: String,
    },
    /// The same threshold twice in one row.
    #[error("row {row}: above_context: {tokens} tokens are given twice: merge the two entries")]
    TwiceAbove {
        /// The row.
        row: usize,
        /// The threshold.
        tokens: u64,
    },
    /// A discount that is not between 0 and 100 with at most 4 decimals.
    #[error("row {row}: discount_percent: {value:?} is no percentage from 0 to 100 with at most 4 decimals")]
    BadDiscount {
        /// The row.
        row: usize,
        /// What it says.
        value: String,
    },
    /// A discount with something that does not go with it.
    #[error("row {row}: discount_percent: it does not go with {with}: {remedy}")]
    MixedDiscount {
        /// The row.
        row: usize,
        /// What it is given with.
        with: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// Two rows for the same thing from the same instant.
    #[error(
        "row {row}: {what} is also in row {other} from the same instant: remove one, or give it another `from`"
    )]
    Duplicate {
        /// The later row.
        row: usize,
        /// The earlier row.
        other: usize,
        /// What both price.
        what: String,
    },
    /// A row begins before the one before it ends by its own `until`.
    #[error(
        "row {row}: {what} begins at {from} but row {other} holds until {until}: end that row earlier, or begin later"
    )]
    Overlap {
        /// The later row.
        row: usize,
        /// The earlier row.
        other: usize,
        /// What both price.
        what: String,
        /// Where the later row begins.
        from: String,
        /// Where the earlier row ends.
        until: String,
    },
    /// The rows do not go together with the book.
    #[error(transparent)]
    Book(#[from] BookError),
}

/// Everything that is wrong with an overlay file, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayErrors(pub Vec<OverlayError>);

impl fmt::Display for OverlayErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, error) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for OverlayErrors {}

impl From<BookError> for OverlayErrors {
    fn from(error: BookError) -> Self {
        Self(vec![OverlayError::Book(error)])
    }
}

/// The rows of `file`, or everything that is wrong with it.
pub(super) fn rows(file: &OverlayFile) -> Result<Vec<PriceRow>, OverlayErrors> {
    check::rows(file)
}

/// One threshold or a list of them.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<AboveContext>, D::Error> {
    deserializer.deserialize_any(OneOrMany)
}

struct OneOrMany;

impl<'de> Visitor<'de> for OneOrMany {
    type Value = Vec<AboveContext>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`tokens` and `per_million`, or a list of them")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        AboveContext::deserialize(value::MapAccessDeserializer::new(map)).map(|one| vec![one])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        Vec::deserialize(value::SeqAccessDeserializer::new(seq))
    }
}

#[cfg(test)]
mod tests;
