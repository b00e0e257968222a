//! Imports of usage: files of Bursar's own, of LiteLLM, Langfuse and OpenMeter, read row by row.
//!
//! Invariants
//! - Which system wrote a file is told or detected, and the answer says which; a file of none is refused.
//! - What another system says is marked (`usage_source: imported`, `identity_source: import`, route
//!   `import/SYSTEM`), priced by our book at its own time, and its own cost is kept beside (`usage_raw`).
//! - A file is read in pieces, as often as needed (what it is, whether it is right, to write it), and never
//!   held.
//!
//! Not here: writing (`ledger::hedge`), files of contracts, market data and revenue (`hedge::import`).

pub(crate) mod fields;
mod langfuse;
mod litellm;
mod openmeter;
mod own;
mod peer;
pub(crate) mod read;
#[cfg(test)]
mod tests;

use crate::period::{self, PeriodError};
use bursar_domain::money::format_pico;
use bursar_domain::{Clock, Currency, Label, Timestamp};
use bursar_ledger::Ledger;
use bursar_ledger::hedge::{ImportError, ImportHead, Imported, Mode, RowWhat, UsageRow, UsageRows};
use fields::Row;
use read::{Cells, FileRow};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Rows that are looked at to tell which system wrote a file.
const DETECT_ROWS: usize = 100;

/// Who wrote a file of usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Bursar: `bursar export usage`.
    Bursar,
    /// LiteLLM: the spend logs, as `/spend/logs` answers them or as the table `LiteLLM_SpendLogs` is copied.
    Litellm,
    /// Langfuse: observations, from its API or its exports.
    Langfuse,
    /// OpenMeter: events (CloudEvents 1.0).
    Openmeter,
}

impl Format {
    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bursar => "bursar",
            Self::Litellm => "litellm",
            Self::Langfuse => "langfuse",
            Self::Openmeter => "openmeter",
        }
    }

    /// The one with this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Bursar, Self::Litellm, Self::Langfuse, Self::Openmeter]
            .into_iter()
            .find(|it| it.name() == name)
    }

    const fn cells(self) -> Cells {
        match self {
            Self::Bursar => Cells::Own,
            _ => Cells::Text,
        }
    }

    fn fits(self, row: &Row) -> bool {
        match self {
            Self::Bursar => row.contains_key("started_at"),
            Self::Litellm => litellm::fits(row),
            Self::Langfuse => langfuse::fits(row),
            Self::Openmeter => openmeter::fits(row),
        }
    }
}

/// The file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Input<'a> {
    /// A text in memory.
    Text(&'a str),
    /// A file on disk.
    Path(&'a Path),
}

impl<'a> Input<'a> {
    /// The file from its beginning.
    pub(crate) fn open(self) -> io::Result<Box<dyn BufRead + 'a>> {
        Ok(match self {
            Self::Text(text) => Box::new(text.as_bytes()),
            Self::Path(path) => Box::new(BufReader::with_capacity(1 << 18, File::open(path)?)),
        })
    }

    /// Its BLAKE3 checksum, hexadecimal.
    pub(crate) fn checksum(self) -> io::Result<String> {
        let mut hasher = blake3::Hasher::new();
        let mut reader = self.open()?;
        let mut piece = vec![0; 1 << 18];
        loop {
            match reader.read(&mut piece)? {
                0 => return Ok(hasher.finalize().to_hex().to_string()),
                read => hasher.update(piece.get(..read).unwrap_or_default()),
            };
        }
    }
}

/// What is to be imported, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    /// Who wrote it; detected where this is absent.
    pub(crate) format: Option<Format>,
    /// The file's name, to remember it by.
    pub(crate) name: Option<String>,
    /// What rows of other systems are for where they do not say.
    pub(crate) usual: Usual,
    /// Only what began at or after this.
    pub(crate) from: Option<Timestamp>,
    /// Only what began before this.
    pub(crate) to: Option<Timestamp>,
}

/// What stands in where a row of another system says nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usual {
    /// The team.
    pub(crate) team: Option<Label>,
    /// The workload.
    pub(crate) workload: Option<Label>,
    /// The provider, also in place of one that would be guessed by the model's name.
    pub(crate) provider: Option<Label>,
}

/// What is asked, in words of the command line or of a query.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Words<'a> {
    pub(crate) from_format: Option<&'a str>,
    pub(crate) team: Option<&'a str>,
    pub(crate) workload: Option<&'a str>,
    pub(crate) provider: Option<&'a str>,
    pub(crate) from: Option<&'a str>,
    pub(crate) to: Option<&'a str>,
    pub(crate) tz: Option<&'a str>,
}

/// Words that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WordsError {
    /// No system.
    #[error("{0:?} is no format of usage: bursar, litellm, langfuse or openmeter")]
    Format(String),
    /// No name.
    #[error("{option} {text:?}: {source}")]
    Name {
        option: &'static str,
        text: String,
        #[source]
        source: bursar_domain::ids::LabelError,
    },
    /// No time.
    #[error(transparent)]
    Time(#[from] PeriodError),
}

impl Words<'_> {
    /// Nothing is asked.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { from_format, team, workload, provider, from, to, tz } = *self;
        [from_format, team, workload, provider, from, to, tz].iter().all(Option::is_none)
    }

    /// What is meant.
    pub(crate) fn asked(&self, now: Timestamp, names: period::Names) -> Result<Asked, WordsError> {
        let format = self.from_format.map(|name| {
            Format::from_name(name).ok_or_else(|| WordsError::Format(name.chars().take(40).collect()))
        });
        let label = |option: &'static str, text: Option<&str>| {
            let made = |text: &str| {
                let text = text.trim();
                Label::new(text).map_err(|source| WordsError::Name { option, text: text.to_owned(), source })
            };
            text.map(made).transpose()
        };
        let period = period::parse(self.from, self.to, self.tz.unwrap_or("UTC"), now, names)?;
        Ok(Asked {
            format: format.transpose()?,
            name: None,
            usual: Usual {
                team: label("team", self.team)?,
                workload: label("workload", self.workload)?,
                provider: label("provider", self.provider)?,
            },
            from: period.from,
            to: period.to,
        })
    }
}

/// Why usage could not be imported at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageFailure {
    /// There is nothing in it.
    #[error("there is no row in it")]
    Empty,
    /// Nobody knows who wrote it.
    #[error(
        "cannot tell which system wrote this: a row has the fields {fields}; name the system with --from-format \
         (bursar, litellm, langfuse or openmeter)"
    )]
    Unknown {
        /// The first fields of the first row.
        fields: String,
    },
    /// It cannot be read.
    #[error("cannot read the file")]
    Read(#[source] io::Error),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] ImportError),
}

/// What an import of usage did, or would do.
#[derive(Debug)]
pub(crate) struct Done {
    /// As for every import.
    pub(crate) imported: Imported,
    /// Who wrote the file.
    pub(crate) format: Format,
    /// Nobody said so: it was detected.
    pub(crate) is_detected: bool,
    /// What the other system says that its rows cost, by currency.
    pub(crate) their_cost: BTreeMap<String, i128>,
}

/// What one row of another system is.
pub(super) enum Peer {
    /// A record, and what the system says it cost.
    Record(Box<bursar_domain::UsageRecord>, Option<(Currency, i128)>),
    /// No call of a provider.
    Left(&'static str),
}

/// Imports a file of usage, or shows what that would do. Blocks.
pub(crate) fn import(
    ledger: &Ledger,
    input: Input<'_>,
    asked: &Asked,
    mode: Mode,
    clock: &dyn Clock,
) -> Result<Done, UsageFailure> {
    let (format, is_detected) = match asked.format {
        Some(format) => (format, false),
        None => (detect(input)?, true),
    };
    let about = (format != Format::Bursar).then(|| json!({ "format": format.name() }));
    let checksum = input.checksum().map_err(UsageFailure::Read)?;
    let head = ImportHead { what: "usage".to_owned(), file: asked.name.clone(), checksum, about };
    let their_cost = RefCell::new(BTreeMap::new());
    let open = || {
        their_cost.borrow_mut().clear();
        let rows = read::rows(input.open()?, format.cells())?;
        let reading = Reading { format, asked, their_cost: &their_cost };
        Ok(Box::new(rows.map(move |row| row.map(|row| reading.row(row)))) as UsageRows<'_>)
    };
    let imported = ledger.import_usage(&open, &head, mode, clock)?;
    if imported.rows == 0 {
        return Err(UsageFailure::Empty);
    }
    Ok(Done { imported, format, is_detected, their_cost: their_cost.take() })
}

/// Who wrote a file, by the fields of its first rows.
fn detect(input: Input<'_>) -> Result<Format, UsageFailure> {
    let mut first = None;
    let rows =
        read::rows(input.open().map_err(UsageFailure::Read)?, Cells::Text).map_err(UsageFailure::Read)?;
    for row in rows.take(DETECT_ROWS) {
        let Ok(fields) = row.map_err(UsageFailure::Read)?.fields else { continue };
        for format in [Format::Openmeter, Format::Litellm, Format::Langfuse, Format::Bursar] {
            if format.fits(&fields) {
                return Ok(format);
            }
        }
        first.get_or_insert(fields);
    }
    // A file whose rows cannot be read is told of row by row, as one of ours.
    let Some(first) = first else { return Ok(Format::Bursar) };
    // A row of ours that lacks the one field that tells us is still told of by line.
    if own::is_like(&first) {
        return Ok(Format::Bursar);
    }
    let names: Vec<String> = first.keys().take(12).map(|name| name.chars().take(40).collect()).collect();
    Err(UsageFailure::Unknown { fields: names.join(", ") })
}

/// How rows become records.
struct Reading<'a> {
    format: Format,
    asked: &'a Asked,
    their_cost: &'a RefCell<BTreeMap<String, i128>>,
}

impl Reading<'_> {
    fn row(&self, row: FileRow) -> UsageRow {
        let FileRow { line, fields, written } = row;
        let what = match fields.and_then(|fields| self.record(&fields, written.as_deref())) {
            Ok(Peer::Record(record, _)) if !self.is_asked(record.started_at) => {
                RowWhat::Left("outside the time asked for".to_owned())
            }
            Ok(Peer::Record(record, cost)) => {
                if let Some((currency, pico)) = cost {
                    let mut sums = self.their_cost.borrow_mut();
                    let sum = sums.entry(currency.code().to_owned()).or_default();
                    *sum = sum.saturating_add(pico);
                }
                RowWhat::Record(record)
            }
            Ok(Peer::Left(reason)) => RowWhat::Left(reason.to_owned()),
            Err(problem) => RowWhat::Bad(problem),
        };
        UsageRow { line, what }
    }

    fn is_asked(&self, at: Timestamp) -> bool {
        self.asked.from.is_none_or(|from| from <= at) && self.asked.to.is_none_or(|to| at < to)
    }

    fn record(&self, fields: &Row, written: Option<&str>) -> Result<Peer, String> {
        match self.format {
            Format::Bursar => Ok(Peer::Record(own::record(fields, written)?, None)),
            Format::Litellm => litellm::record(fields, &self.asked.usual),
            Format::Langfuse => langfuse::record(fields, &self.asked.usual),
            Format::Openmeter => openmeter::record(fields, &self.asked.usual),
        }
    }
}

/// The record of a row that Bursar wrote; `written` is the row as it came.
pub(crate) fn own_record(fields: &Row, written: &str) -> Result<Box<bursar_domain::UsageRecord>, String> {
    own::record(fields, Some(written))
}

/// What an import of usage did, or would do, as a document: that of every import, and who wrote the file.
pub(crate) fn document(done: &Done) -> Value {
    let mut document = crate::hedge::import::document(crate::hedge::import::What::Usage, &done.imported);
    if let Some(fields) = document.as_object_mut() {
        fields.insert("format".to_owned(), done.format.name().into());
        fields.insert("format_detected".to_owned(), done.is_detected.into());
        fields.insert("left".to_owned(), json!(done.imported.left));
        let costs = done.their_cost.iter().map(|(code, pico)| (code.clone(), format_pico(*pico).into()));
        fields.insert("their_cost".to_owned(), Value::Object(costs.collect()));
    }
    document
}
