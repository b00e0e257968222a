//! JSON Lines: one object per record and line, absent values left out.
//!
//! Not here: the fields (`row`).

use super::ExportError;
use super::row::Row;
use crate::journal::read::StoredRecord;
use std::io::Write;

/// Writes records as JSON Lines.
#[derive(Debug)]
pub struct JsonlWriter<W: Write> {
    out: W,
    classes: Classes,
}

/// Whether rows also tell the disjoint token classes and quantities (`usage_classes`), from which the
/// published totals are made. Needed to price a row anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Classes {
    /// The published record.
    Omitted,
    /// With the classes.
    Told,
}

impl<W: Write> JsonlWriter<W> {
    /// Writes to `out`, a small piece at a time: give a buffered one.
    pub fn new(out: W) -> Self {
        Self { out, classes: Classes::Omitted }
    }

    /// The same, with or without the classes.
    #[must_use]
    pub fn classes(mut self, classes: Classes) -> Self {
        self.classes = classes;
        self
    }

    /// Writes one record.
    pub fn write(&mut self, stored: &StoredRecord) -> Result<(), ExportError> {
        let mut row = Row::new(stored);
        if self.classes == Classes::Told {
            row.tell_classes(stored);
        }
        let mut line = json(&row, stored)?;
        line.push('\n');
        self.out.write_all(line.as_bytes()).map_err(ExportError::Write)
    }

    /// Flushes and gives the target back.
    pub fn finish(mut self) -> Result<W, ExportError> {
        self.out.flush().map_err(ExportError::Write)?;
        Ok(self.out)
    }
}

/// One record as a JSON object on one line, as in JSON Lines and the admin API.
pub fn record_json(stored: &StoredRecord) -> Result<String, ExportError> {
    json(&Row::new(stored), stored)
}

fn json(row: &Row<'_>, stored: &StoredRecord) -> Result<String, ExportError> {
    serde_json::to_string(row).map_err(|source| ExportError::Json { sequence: stored.sequence, source })
}
