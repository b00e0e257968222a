//! Tables on their way out: typed columns and cells, whatever they are written as.
//!
//! Invariants
//! - A column has one type in every format; money and ratios are integers with a scale, never floats.
//! - What is unknown is `Null`, never a zero; a column that may not be null never is.
//! - Memory is bounded by one group of rows.
//!
//! Not here: which columns there are (`usage`, `focus`), how Parquet lays them out (`parquet`).

use super::ExportError;
use super::csv::cell_text;
#[cfg(feature = "parquet")]
use super::parquet::ParquetRows;
use bursar_domain::Timestamp;
use std::borrow::Cow;
use std::io::{self, Write};

/// Decimals of an amount of money: pico-units.
pub const MONEY_PLACES: u32 = 12;
/// Rows gathered before a group of Parquet is written, at most.
pub const GROUP_ROWS_MAX: usize = 131_072;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// JSON, as text.
    Json,
    /// A count.
    Count,
    /// Yes or no.
    Flag,
    /// An instant, to the microsecond, in UTC.
    Instant,
    /// An integer with this many decimals.
    Decimal(u32),
}

/// Whether a cell may be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Never.
    Always,
    /// When it is unknown or does not apply.
    Maybe,
}

/// How many different values a column has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Few, so that a dictionary of them is worth its place.
    Repeat,
    /// Nearly one for each row.
    Differ,
}

/// One column. Names with points stand for groups of columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// Whether a cell may be empty.
    pub presence: Presence,
    /// How many different values it has.
    pub values: Values,
}

impl Column {
    /// A column that may be empty, whose values repeat.
    #[must_use]
    pub fn maybe(name: &str, kind: Kind) -> Self {
        Self { name: name.to_owned(), kind, presence: Presence::Maybe, values: Values::Repeat }
    }

    /// A column that is never empty, whose values repeat.
    #[must_use]
    pub fn always(name: &str, kind: Kind) -> Self {
        Self { presence: Presence::Always, ..Self::maybe(name, kind) }
    }

    /// The same, with values that differ.
    #[must_use]
    pub fn differing(self) -> Self {
        Self { values: Values::Differ, ..self }
    }
}

/// One cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// Nothing is known, or nothing applies.
    Null,
    /// Text, or JSON.
    Text(Cow<'a, str>),
    /// A count.
    Count(u64),
    /// Yes or no.
    Flag(bool),
    /// An instant.
    Instant(Timestamp),
    /// An integer, to be read with the decimals of its column.
    Decimal(i128),
}

impl<'a> Cell<'a> {
    /// Text, or nothing.
    #[must_use]
    pub fn text(text: Option<&'a str>) -> Self {
        text.map_or(Self::Null, |text| Self::Text(Cow::Borrowed(text)))
    }

    /// Text that is made for the cell.
    #[must_use]
    pub fn owned(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }

    /// A count, or nothing.
    #[must_use]
    pub fn count(count: Option<u64>) -> Self {
        count.map_or(Self::Null, Self::Count)
    }

    /// A decimal, or nothing.
    #[must_use]
    pub fn decimal(value: Option<i128>) -> Self {
        value.map_or(Self::Null, Self::Decimal)
    }
}

/// What a table is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableFormat {
    /// Comma-separated values with a header.
    Csv,
    /// Parquet, compressed with zstd, of which groups of rows take about this many bytes in memory.
    Parquet {
        /// Bytes of a group before it is compressed.
        group_bytes: usize,
    },
}

impl TableFormat {
    /// Parquet as a command writes it.
    pub const PARQUET: Self = Self::Parquet { group_bytes: 32 << 20 };
    /// Parquet as a sidecar writes it beside its traffic.
    pub const PARQUET_SMALL: Self = Self::Parquet { group_bytes: 8 << 20 };
}

/// Writes a table, row by row.
#[derive(Debug)]
pub struct TableWriter<W: Write> {
    out: Form<W>,
    columns: Vec<Column>,
    rows: u64,
}

#[derive(Debug)]
enum Form<W: Write> {
    Csv(Box<csv::Writer<W>>),
    #[cfg(feature = "parquet")]
    Parquet(Box<ParquetRows>, W),
}

impl<W: Write> TableWriter<W> {
    /// Begins a table; `name` names what its rows are, in formats that keep it.
    pub fn new(out: W, name: &str, columns: Vec<Column>, format: TableFormat) -> Result<Self, ExportError> {
        let out = match format {
            TableFormat::Csv => {
                let mut out =
                    csv::WriterBuilder::new().terminator(csv::Terminator::Any(b'\n')).from_writer(out);
                out.write_record(columns.iter().map(|column| column.name.as_str())).map_err(write_error)?;
                Form::Csv(Box::new(out))
            }
            #[cfg(feature = "parquet")]
            TableFormat::Parquet { group_bytes } => {
                Form::Parquet(Box::new(ParquetRows::new(name, &columns, group_bytes)?), out)
            }
            #[cfg(not(feature = "parquet"))]
            TableFormat::Parquet { .. } => {
                let _ = (out, name);
                return Err(ExportError::NoParquet);
            }
        };
        Ok(Self { out, columns, rows: 0 })
    }

    /// Writes one row: a cell for each column, in their order.
    pub fn write(&mut self, cells: &[Cell<'_>]) -> Result<(), ExportError> {
        self.check(cells)?;
        match &mut self.out {
            Form::Csv(out) => {
                for (column, cell) in self.columns.iter().zip(cells) {
                    out.write_field(csv_text(column.kind, cell).as_bytes()).map_err(write_error)?;
                }
                out.write_record(None::<&[u8]>).map_err(write_error)?;
            }
            #[cfg(feature = "parquet")]
            Form::Parquet(rows, out) => rows.push(cells, out)?,
        }
        self.rows = self.rows.saturating_add(1);
        Ok(())
    }

    /// A cell for each column, and something in those that are never empty.
    fn check(&self, cells: &[Cell<'_>]) -> Result<(), ExportError> {
        if cells.len() != self.columns.len() {
            return Err(ExportError::Shape("the number of cells".to_owned()));
        }
        for (column, cell) in self.columns.iter().zip(cells) {
            let fits = match (column.kind, cell) {
                (_, Cell::Null) => column.presence == Presence::Maybe,
                (Kind::Text | Kind::Json, Cell::Text(_))
                | (Kind::Count, Cell::Count(_))
                | (Kind::Flag, Cell::Flag(_))
                | (Kind::Instant, Cell::Instant(_))
                | (Kind::Decimal(_), Cell::Decimal(_)) => true,
                _ => false,
            };
            if !fits {
                return Err(ExportError::Shape(column.name.clone()));
            }
        }
        Ok(())
    }

    /// Writes what is left, flushes, and gives back the target and the number of rows.
    pub fn finish(self) -> Result<(W, u64), ExportError> {
        let out = match self.out {
            Form::Csv(out) => {
                out.into_inner().map_err(|error| ExportError::Write(io::Error::other(error.to_string())))?
            }
            #[cfg(feature = "parquet")]
            Form::Parquet(rows, mut out) => {
                rows.finish(&mut out)?;
                out.flush().map_err(ExportError::Write)?;
                out
            }
        };
        Ok((out, self.rows))
    }
}

fn write_error(error: csv::Error) -> ExportError {
    ExportError::Write(error.into())
}

/// A cell as CSV has it: nothing for what is unknown, and no text that a spreadsheet takes for a formula.
fn csv_text<'a>(kind: Kind, cell: &'a Cell<'_>) -> Cow<'a, str> {
    match cell {
        Cell::Null => Cow::Borrowed(""),
        Cell::Text(text) => cell_text(Some(text)),
        Cell::Count(count) => Cow::Owned(count.to_string()),
        Cell::Flag(flag) => Cow::Borrowed(if *flag { "true" } else { "false" }),
        Cell::Instant(at) => Cow::Owned(instant_text(*at)),
        Cell::Decimal(value) => match kind {
            Kind::Decimal(places) => Cow::Owned(decimal_text(*value, places)),
            _ => Cow::Owned(value.to_string()),
        },
    }
}

/// RFC 3339 in UTC, with a fraction only where there is one.
#[must_use]
pub fn instant_text(at: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.micros())
        .map_or_else(|_| at.micros().to_string(), |at| at.to_string())
}

/// `value` with `places` decimals, without zeros at the end and without an exponent.
#[must_use]
pub fn decimal_text(value: i128, places: u32) -> String {
    let scale = 10_u128.saturating_pow(places);
    let magnitude = value.unsigned_abs();
    let whole = magnitude.checked_div(scale).unwrap_or(0);
    let fraction = magnitude.checked_rem(scale).unwrap_or(0);
    let sign = if value < 0 { "-" } else { "" };
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    let width = usize::try_from(places).unwrap_or(0);
    let digits = format!("{fraction:0width$}");
    format!("{sign}{whole}.{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_have_no_exponent_and_no_zeros_at_the_end() {
        for (value, places, text) in [
            (0, 12, "0"),
            (1, 12, "0.000000000001"),
            (-1_500_000_000_000, 12, "-1.5"),
            (42, 0, "42"),
            (-1, 3, "-0.001"),
            (i128::MIN, 12, "-170141183460469231731687303.715884105728"),
        ] {
            assert_eq!(decimal_text(value, places), text);
        }
    }

    #[test]
    fn csv_has_typed_cells_a_header_and_harmless_text() {
        let columns = vec![
            Column::maybe("name", Kind::Text),
            Column::maybe("cost", Kind::Decimal(12)),
            Column::always("at", Kind::Instant),
            Column::always("stream", Kind::Flag),
        ];
        let mut table = TableWriter::new(Vec::new(), "test", columns, TableFormat::Csv).unwrap();
        let at = Cell::Instant(Timestamp::from_micros(0));
        let first = [Cell::text(Some("=cmd()")), Cell::Decimal(-5), at.clone(), Cell::Flag(true)];
        table.write(&first).unwrap();
        table.write(&[Cell::Null, Cell::Null, at.clone(), Cell::Flag(false)]).unwrap();
        let (out, rows) = table.finish().unwrap();
        assert_eq!(rows, 2);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "name,cost,at,stream\n'=cmd(),-0.000000000005,1970-01-01T00:00:00Z,true\n,,1970-01-01T00:00:00Z,false\n"
        );
    }

    #[test]
    fn a_cell_of_another_type_or_a_missing_one_is_refused_by_name() {
        let columns = || vec![Column::always("count", Kind::Count)];
        for (cells, named) in [
            (vec![Cell::Null], "count"),
            (vec![Cell::Flag(true)], "count"),
            (Vec::new(), "the number of cells"),
        ] {
            let mut table = TableWriter::new(Vec::new(), "test", columns(), TableFormat::Csv).unwrap();
            let error = table.write(&cells).unwrap_err();
            assert!(matches!(&error, ExportError::Shape(name) if name == named), "{error}");
        }
    }

    #[cfg(not(feature = "parquet"))]
    #[test]
    fn a_build_without_parquet_says_so() {
        let refused = TableWriter::new(Vec::new(), "test", Vec::new(), TableFormat::PARQUET).map(drop);
        assert!(refused.unwrap_err().to_string().contains("feature parquet"));
    }
}
