//! Other tools' price files as overlay rows: LiteLLM's `model_prices_and_context_window.json` and
//! models.dev's `api.json`.
//!
//! Invariants
//! - A number keeps the value that its digits say (`1e-07` too); no float is involved. Digits beyond
//!   what can be billed, such as those a division left over, are rounded half-even and named.
//! - A file with a row that cannot be read gives no rows, and every such row is named.
//! - What the book has no place for is counted by its name, never dropped in silence.
//!
//! Not here: checks of the rows themselves (`overlay::check`), reading and writing files (the caller).

mod json;
mod litellm;
mod models_dev;
mod number;
mod render;

pub use render::render;

use super::{Decimal, OverlayFile, OverlayRow};
use json::Pairs;
use number::Exact;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Another tool's way to write prices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportFormat {
    /// LiteLLM's map of models, prices per token.
    LiteLlm,
    /// The catalogue of models.dev, prices per million tokens.
    ModelsDev,
}

impl ImportFormat {
    /// The name in commands and settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LiteLlm => "litellm",
            Self::ModelsDev => "models.dev",
        }
    }

    /// The format of a text that is one of these; `None` for anything else.
    #[must_use]
    pub fn detect(text: &str) -> Option<Self> {
        let entries: Pairs<Pairs<json::Raw<'_>>> = serde_json::from_str(text).ok()?;
        let any = |key: &str| entries.0.iter().any(|(_, entry)| entry.0.iter().any(|(name, _)| name == key));
        if any("litellm_provider") {
            Some(Self::LiteLlm)
        } else if any("models") {
            Some(Self::ModelsDev)
        } else {
            None
        }
    }
}

/// The rows of another tool's file, and what did not become rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// The overlay.
    pub file: OverlayFile,
    /// What the book has no place for: what it is, and how often it came.
    pub left_out: BTreeMap<String, usize>,
    /// Prices with more digits than can be billed, as they were and as they are now.
    pub rounded: Vec<String>,
    /// How many models have no price above zero. Such a model costs nothing from now on.
    pub free_models: usize,
}

/// A row that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The text is no JSON of this shape.
    #[error("no {format} file: {reason}")]
    Shape {
        /// The format that was expected.
        format: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// An entry without what every entry has.
    #[error("{entry:?}: {key}: {problem}")]
    Entry {
        /// The entry's own name.
        entry: String,
        /// The key, with its path.
        key: String,
        /// What is wrong, with the remedy.
        problem: String,
    },
}

/// Every row that cannot be read, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportErrors(pub Vec<ImportError>);

impl fmt::Display for ImportErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, error) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ImportErrors {}

/// The overlay that `text` says, in the words of `source`.
pub fn import(text: &str, format: ImportFormat, source: &str) -> Result<Imported, ImportErrors> {
    let mut import = Import::new(source);
    let read = match format {
        ImportFormat::LiteLlm => litellm::read(text, &mut import),
        ImportFormat::ModelsDev => models_dev::read(text, &mut import),
    };
    if let Err(error) = read {
        let shape = ImportError::Shape { format: format.name(), reason: error.to_string() };
        return Err(ImportErrors(vec![shape]));
    }
    import.finish()
}

/// An import under way.
struct Import {
    made: Imported,
    errors: Vec<ImportError>,
    /// (provider, model, region) that have rows.
    taken: BTreeSet<(String, String, Option<String>)>,
}

/// Where a price stands, and in what it is counted.
#[derive(Clone, Copy)]
struct Place<'a> {
    entry: &'a str,
    key: &'a str,
    /// Powers of ten between the file's unit and ours: 6 from per token to per million.
    shift: i32,
    /// Decimals that can be billed in our unit.
    decimals: usize,
}

/// Decimals of a price per million tokens.
const TOKEN_DECIMALS: usize = 6;
/// Decimals of a price of anything else.
const UNIT_DECIMALS: usize = 12;

impl Import {
    fn new(source: &str) -> Self {
        let file = OverlayFile { source: Some(source.to_owned()), rows: Vec::new() };
        let made = Imported { file, ..Imported::default() };
        Self { made, errors: Vec::new(), taken: BTreeSet::new() }
    }

    fn finish(self) -> Result<Imported, ImportErrors> {
        if self.errors.is_empty() { Ok(self.made) } else { Err(ImportErrors(self.errors)) }
    }

    fn bad(&mut self, entry: &str, key: &str, problem: &str) {
        let (entry, key, problem) = (entry.to_owned(), key.to_owned(), problem.to_owned());
        self.errors.push(ImportError::Entry { entry, key, problem });
    }

    fn leave_out(&mut self, what: &str) {
        let count = self.made.left_out.entry(what.to_owned()).or_default();
        *count = count.saturating_add(1);
    }

    /// A price as the overlay writes it; `None` when it is not there or cannot be read.
    fn price(&mut self, place: Place<'_>, raw: &str) -> Option<Decimal> {
        let text = match json::scalar(raw) {
            Some(text) if text == "null" => return None,
            Some(text) => text,
            None => {
                self.bad(place.entry, place.key, "is no number");
                return None;
            }
        };
        let Some(exact) = Exact::parse(&text) else {
            self.bad(place.entry, place.key, &format!("{text:?} is no number; write it like 2.5e-06"));
            return None;
        };
        if exact.is_negative() {
            self.bad(place.entry, place.key, &format!("{text:?} is negative; a price is zero or more"));
            return None;
        }
        match exact.shifted(place.shift).to_decimals(place.decimals) {
            Some((plain, false)) => Some(Decimal::from(&*plain)),
            Some((plain, true)) => {
                self.made.rounded.push(format!("{} {} {text} → {plain}", place.entry, place.key));
                Some(Decimal::from(&*plain))
            }
            None => {
                let problem = format!("{text:?} is finer than can be billed exactly; check its unit");
                self.bad(place.entry, place.key, &problem);
                None
            }
        }
    }

    /// Whether rows for this model may be added: they may once.
    fn take(&mut self, provider: &str, model: &str, region: Option<&str>) -> bool {
        let new = self.taken.insert((provider.to_owned(), model.to_owned(), region.map(str::to_owned)));
        if !new {
            self.leave_out("another entry for the same model");
        }
        new
    }

    /// Adds the rows of one model.
    fn add(&mut self, rows: Vec<OverlayRow>) {
        let zero = |price: &Decimal| price.text().bytes().all(|b| matches!(b, b'0' | b'.'));
        let free = |row: &OverlayRow| {
            let above = row.above_context.iter().flat_map(|above| above.per_million.values());
            let fees = [&row.per_request, &row.per_web_search, &row.per_grounded_request];
            let fees = fees.into_iter().flatten();
            let units = row.per_million.values().chain(row.per_unit.values());
            units.chain(above).chain(fees).all(zero)
        };
        if !rows.is_empty() && rows.iter().all(free) {
            self.made.free_models = self.made.free_models.saturating_add(1);
        }
        self.made.file.rows.extend(rows);
    }
}

/// Whether a row says nothing.
fn is_empty(row: &OverlayRow) -> bool {
    row.per_million.is_empty()
        && row.per_unit.is_empty()
        && row.per_request.is_none()
        && row.per_web_search.is_none()
        && row.per_grounded_request.is_none()
}

#[cfg(test)]
mod tests;
