//! Presets: the terms that every contract of one listing or programme shares, each with its source
//! and date, so that a position is one command to enter.
//!
//! Invariants
//! - A preset never decides what only the user knows; `fill_in` names what is missing.
//! - What the user says wins over the preset.
//!
//! Not here: whether a contract is listed today; the notes say what to check.

use super::entry::Entry;
use serde::Deserialize;
use serde_json::Value;

/// The terms that a listing or programme fixes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// Its name on the command line.
    pub name: String,
    /// What it is.
    pub title: String,
    /// Where the terms come from.
    pub source: String,
    /// When the source said so.
    pub date: String,
    /// What the user should know or check.
    pub notes: String,
    /// Fields that the user must give.
    pub fill_in: Vec<String>,
    /// The fixed fields.
    pub entry: Value,
}

/// Why a preset does not make an entry.
#[derive(Debug, thiserror::Error)]
pub enum PresetError {
    /// The built-in file cannot be read.
    #[error("the built-in presets cannot be read")]
    Builtin(#[source] serde_json::Error),
    /// No preset of that name.
    #[error("no preset {0:?}; the presets are: {1}")]
    Unknown(String, String),
    /// The user's fields do not fit.
    #[error("the fields do not make a position")]
    Fields(#[source] serde_json::Error),
}

/// All presets.
pub fn presets() -> Result<Vec<Preset>, PresetError> {
    serde_json::from_str(include_str!("../../../hedges/presets.json")).map_err(PresetError::Builtin)
}

impl Preset {
    /// The preset with this name.
    pub fn named(name: &str) -> Result<Self, PresetError> {
        let all = presets()?;
        let names: Vec<&str> = all.iter().map(|preset| preset.name.as_str()).collect();
        let unknown = || PresetError::Unknown(name.chars().take(60).collect(), names.join(", "));
        all.iter().find(|preset| preset.name == name).cloned().ok_or_else(unknown)
    }

    /// The preset's fields with the user's over them.
    #[must_use]
    pub fn filled(&self, fields: Value) -> Value {
        let mut merged = self.entry.clone();
        lay_over(&mut merged, fields);
        merged
    }

    /// The entry that the preset's fields make with the user's over them.
    pub fn with(&self, fields: Value) -> Result<Entry, PresetError> {
        serde_json::from_value(self.filled(fields)).map_err(PresetError::Fields)
    }
}

/// Objects are merged key by key; anything else is replaced.
fn lay_over(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                lay_over(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}
