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
}

impl<W: Write> JsonlWriter<W> {
    /// Writes to `out`, a small piece at a time: give a buffered one.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Writes one record.
    pub fn write(&mut self, stored: &StoredRecord) -> Result<(), ExportError> {
        let mut line = record_json(stored)?;
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
    serde_json::to_string(&Row::new(stored))
        .map_err(|source| ExportError::Json { sequence: stored.sequence, source })
}
