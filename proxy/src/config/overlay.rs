//! The price overlay: YAML (or JSON, which is YAML) into the shape that the price book takes, or the
//! price file of another tool.
//!
//! Invariants
//! - Scalars reach the price book as the text that was written, so a price is exact.
//!
//! Not here: what the rows mean (`policies::price::overlay`).

use super::OverlayFormat;
use super::yaml::{self, Content, Node};
use bursar_policies::price::OverlayFile;
use bursar_policies::price::overlay::import::{self, ImportFormat, Imported};
use serde_json::{Map, Value};

/// Why a text is no overlay file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OverlayFileError(String);

/// An overlay file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadOverlay {
    /// Rows of our own.
    Own(OverlayFile),
    /// Another tool's prices.
    Imported(ImportFormat, Imported),
}

impl ReadOverlay {
    /// The rows.
    #[must_use]
    pub fn file(&self) -> &OverlayFile {
        match self {
            Self::Own(file) => file,
            Self::Imported(_, imported) => &imported.file,
        }
    }
}

/// Reads an overlay in any of the formats; `source` names it where the file does not.
///
/// # Errors
/// Names everything in another tool's file that cannot be read, or the first thing in one of ours.
pub fn read_overlay(
    text: &str,
    format: OverlayFormat,
    source: &str,
) -> Result<ReadOverlay, OverlayFileError> {
    let format = match format {
        OverlayFormat::Auto => ImportFormat::detect(text),
        OverlayFormat::Bursar => None,
        OverlayFormat::LiteLlm => Some(ImportFormat::LiteLlm),
        OverlayFormat::ModelsDev => Some(ImportFormat::ModelsDev),
    };
    let Some(format) = format else { return overlay_file(text).map(ReadOverlay::Own) };
    match import::import(text, format, source) {
        Ok(imported) => Ok(ReadOverlay::Imported(format, imported)),
        Err(errors) => Err(OverlayFileError(errors.to_string())),
    }
}

/// Reads an overlay file.
///
/// # Errors
/// Names the first thing that is no YAML, or no part of an overlay file.
pub fn overlay_file(text: &str) -> Result<OverlayFile, OverlayFileError> {
    let parsed = yaml::parse(text);
    if let Some(fault) = parsed.faults.first() {
        return Err(OverlayFileError(format!(
            "line {}: {}; {}",
            fault.at.line, fault.wrong.what, fault.wrong.remedy
        )));
    }
    let value = parsed.root.as_ref().map_or(Value::Object(Map::new()), value_of);
    serde_json::from_value(value).map_err(|error| OverlayFileError(error.to_string()))
}

fn value_of(node: &Node) -> Value {
    match &node.content {
        _ if node.is_null() => Value::Null,
        Content::Scalar { text, .. } => Value::String(text.clone()),
        Content::List(items) => Value::Array(items.iter().map(value_of).collect()),
        Content::Map(entries) => {
            Value::Object(entries.iter().map(|entry| (entry.key.clone(), value_of(&entry.value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_rows_become_an_overlay_with_their_exact_text() {
        let text = "source: contract 7\nrows:\n  - provider: openai\n    model: gpt-4o\n    per_million: { input: 2.10, output: 8.000001 }\n";
        let file = overlay_file(text).unwrap();
        assert_eq!(file.rows.len(), 1);
        let row = &file.rows[0];
        assert_eq!((row.provider.as_str(), row.model.as_str()), ("openai", "gpt-4o"));
        assert_eq!(format!("{:?}", row.per_million["output"]), "Decimal(\"8.000001\")");
    }

    #[test]
    fn other_tools_files_are_told_by_their_content_or_by_name() {
        let litellm = r#"{"gpt-x": {"litellm_provider": "openai", "input_cost_per_token": 1e-07}}"#;
        let read = |text, format| read_overlay(text, format, "mine").unwrap();
        let imported = read(litellm, OverlayFormat::Auto);
        assert!(matches!(imported, ReadOverlay::Imported(ImportFormat::LiteLlm, _)));
        assert_eq!(imported.file().source.as_deref(), Some("mine"));
        assert_eq!(read(litellm, OverlayFormat::LiteLlm), imported);
        // What an import makes is an overlay of our own again.
        let text = import::render(imported.file());
        assert_eq!(read(&text, OverlayFormat::Auto), ReadOverlay::Own(imported.file().clone()));
        assert!(read_overlay(litellm, OverlayFormat::Bursar, "mine").is_err());
        assert!(read_overlay("rows: []", OverlayFormat::ModelsDev, "mine").is_err());
    }

    #[test]
    fn what_is_no_overlay_is_refused_with_the_reason() {
        let error = overlay_file("rows:\n  - provider: openai\n    modell: x\n").unwrap_err();
        assert!(error.to_string().contains("modell"), "{error}");
        assert!(overlay_file("rows: [").is_err());
    }
}
