//! Parquet: groups of rows, each column compressed with zstd, decimals as integers of 128 bits.
//!
//! Invariants
//! - Memory is bounded by one group: it is written when it has its rows or its bytes, and what the file
//!   remembers of it shares nothing with it.
//! - Amounts are decimal(38, scale) of the exact integer; one that needs more digits is refused.
//! - Counts are unsigned 64-bit integers, instants microseconds in UTC, text UTF-8.
//! - The same rows give the same bytes.
//!
//! Not here: which columns and rows (`table` and who uses it).

use super::ExportError;
use super::table::{Cell, Column, GROUP_ROWS_MAX, Kind, Presence, Values};
use bytes::Bytes;
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{ColumnPath, Type};
use std::io::Write;
use std::sync::Arc;

/// Digits of a decimal.
const PRECISION: i32 = 38;
/// Bytes of one.
const DECIMAL_BYTES: usize = 16;
/// 10³⁸: the first amount that has more digits.
const DECIMAL_END: u128 = 100_000_000_000_000_000_000_000_000_000_000_000_000;
/// zstd's level: more takes longer and saves little.
const LEVEL: i32 = 1;

/// Rows on their way into a Parquet file.
pub(super) struct ParquetRows {
    file: SerializedFileWriter<Vec<u8>>,
    columns: Vec<Buffer>,
    names: Vec<String>,
    rows: usize,
    group_bytes: usize,
}

impl std::fmt::Debug for ParquetRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetRows").field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// The values of one column in a group; what is null has a level and no value.
struct Buffer {
    values: Gathered,
    /// 1 for each value and 0 for each null; only where nulls may be.
    levels: Option<Vec<i16>>,
}

enum Gathered {
    Numbers(Vec<i64>),
    Flags(Vec<bool>),
    Texts(Pieces),
    Decimals(Vec<u8>),
}

/// Texts one after the other; equal ones that follow each other are kept once.
#[derive(Default)]
struct Pieces {
    text: Vec<u8>,
    places: Vec<(usize, usize)>,
}

impl ParquetRows {
    pub(super) fn new(name: &str, columns: &[Column], group_bytes: usize) -> Result<Self, ExportError> {
        let schema = Arc::new(schema(name, columns)?);
        let properties = Arc::new(properties(columns)?.build());
        Ok(Self {
            file: SerializedFileWriter::new(Vec::new(), schema, properties)?,
            columns: columns.iter().map(Buffer::new).collect(),
            names: columns.iter().map(|column| column.name.clone()).collect(),
            rows: 0,
            group_bytes,
        })
    }

    pub(super) fn push(&mut self, cells: &[Cell<'_>], out: &mut dyn Write) -> Result<(), ExportError> {
        for ((buffer, name), cell) in self.columns.iter_mut().zip(&self.names).zip(cells) {
            buffer.push(cell).map_err(|()| ExportError::TooLarge { column: name.clone() })?;
        }
        self.rows = self.rows.saturating_add(1);
        // Adding the sizes up takes longer than a row does, so not every row asks.
        let full = self.rows >= GROUP_ROWS_MAX;
        if full || (self.rows.is_multiple_of(1_024) && self.bytes() >= self.group_bytes) {
            self.group(out)?;
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.columns.iter().map(Buffer::bytes).fold(0, usize::saturating_add)
    }

    /// Writes the rows gathered so far.
    fn group(&mut self, out: &mut dyn Write) -> Result<(), ExportError> {
        let mut group = self.file.next_row_group()?;
        for buffer in &mut self.columns {
            let column = group.next_column()?;
            let column = column.ok_or_else(|| ExportError::Shape("the columns of the schema".to_owned()))?;
            buffer.write(column)?;
        }
        group.close()?;
        self.rows = 0;
        self.hand_over(out)
    }

    /// Gives `out` what the file has; its writer counts by itself where it is.
    fn hand_over(&mut self, out: &mut dyn Write) -> Result<(), ExportError> {
        self.file.flush().map_err(ExportError::Write)?;
        let bytes = std::mem::take(self.file.inner_mut());
        out.write_all(&bytes).map_err(ExportError::Write)
    }

    pub(super) fn finish(mut self, out: &mut dyn Write) -> Result<(), ExportError> {
        if self.rows > 0 {
            self.group(out)?;
        }
        self.file.finish()?;
        self.hand_over(out)
    }
}

impl Buffer {
    fn new(column: &Column) -> Self {
        let values = match column.kind {
            Kind::Text | Kind::Json => Gathered::Texts(Pieces::default()),
            Kind::Count | Kind::Instant => Gathered::Numbers(Vec::new()),
            Kind::Flag => Gathered::Flags(Vec::new()),
            Kind::Decimal(_) => Gathered::Decimals(Vec::new()),
        };
        Self { values, levels: (column.presence == Presence::Maybe).then(Vec::new) }
    }

    /// Takes a cell; `Err` when it does not fit. Types were checked.
    fn push(&mut self, cell: &Cell<'_>) -> Result<(), ()> {
        if let Some(levels) = &mut self.levels {
            levels.push(i16::from(*cell != Cell::Null));
        }
        match (&mut self.values, cell) {
            (Gathered::Texts(pieces), Cell::Text(text)) => pieces.push(text.as_bytes()),
            // The bits of an unsigned number, as Parquet keeps them.
            (Gathered::Numbers(numbers), Cell::Count(count)) => numbers.push(count.cast_signed()),
            (Gathered::Numbers(numbers), Cell::Instant(at)) => numbers.push(at.micros()),
            (Gathered::Flags(flags), Cell::Flag(flag)) => flags.push(*flag),
            (Gathered::Decimals(bytes), Cell::Decimal(value)) => {
                if value.unsigned_abs() >= DECIMAL_END {
                    return Err(());
                }
                bytes.extend_from_slice(&value.to_be_bytes());
            }
            _ => {}
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        let values = match &self.values {
            Gathered::Numbers(numbers) => numbers.len().saturating_mul(size_of::<i64>()),
            Gathered::Flags(flags) => flags.len(),
            Gathered::Texts(pieces) => {
                pieces.places.len().saturating_mul(size_of::<usize>()).saturating_add(pieces.text.len())
            }
            Gathered::Decimals(bytes) => bytes.len(),
        };
        let levels = self.levels.as_ref().map_or(0, |levels| levels.len().saturating_mul(2));
        values.saturating_add(levels)
    }

    /// Writes the values of a group and forgets them.
    fn write(&mut self, mut column: SerializedColumnWriter<'_>) -> Result<(), ExportError> {
        let levels = self.levels.as_deref();
        match (column.untyped(), &mut self.values) {
            (ColumnWriter::Int64ColumnWriter(writer), Gathered::Numbers(numbers)) => {
                writer.write_batch(numbers, levels, None)?;
                numbers.clear();
            }
            (ColumnWriter::BoolColumnWriter(writer), Gathered::Flags(flags)) => {
                writer.write_batch(flags, levels, None)?;
                flags.clear();
            }
            (ColumnWriter::ByteArrayColumnWriter(writer), Gathered::Texts(pieces)) => {
                let (least, most) = pieces.range().unzip();
                writer.write_batch_with_statistics(
                    &pieces.take(),
                    levels,
                    None,
                    least.as_ref(),
                    most.as_ref(),
                    None,
                )?;
            }
            (ColumnWriter::FixedLenByteArrayColumnWriter(writer), Gathered::Decimals(bytes)) => {
                let (least, most) = range_of(bytes).unzip();
                let values = decimals(std::mem::take(bytes));
                writer.write_batch_with_statistics(
                    &values,
                    levels,
                    None,
                    least.as_ref(),
                    most.as_ref(),
                    None,
                )?;
            }
            _ => return Err(ExportError::Shape("a column's type".to_owned())),
        }
        if let Some(levels) = &mut self.levels {
            levels.clear();
        }
        column.close()?;
        Ok(())
    }
}

impl Pieces {
    fn push(&mut self, text: &[u8]) {
        let same = self.places.last().filter(|(from, to)| self.text.get(*from..*to) == Some(text));
        let place = same.copied().unwrap_or_else(|| {
            let from = self.text.len();
            self.text.extend_from_slice(text);
            (from, self.text.len())
        });
        self.places.push(place);
    }

    /// The least and the greatest text. Copies: the file keeps them until its end, and a slice would keep
    /// all texts of the group.
    fn range(&self) -> Option<(ByteArray, ByteArray)> {
        let mut texts = self.places.iter().filter_map(|(from, to)| self.text.get(*from..*to));
        let first = texts.next()?;
        let (least, most) =
            texts.fold((first, first), |(least, most), text| (least.min(text), most.max(text)));
        Some((ByteArray::from(least.to_vec()), ByteArray::from(most.to_vec())))
    }

    fn take(&mut self) -> Vec<ByteArray> {
        let text = Bytes::from(std::mem::take(&mut self.text));
        let piece = |(from, to): (usize, usize)| ByteArray::from(text.slice(from..to));
        std::mem::take(&mut self.places).into_iter().map(piece).collect()
    }
}

/// The least and the greatest of decimals; copies, as for texts.
fn range_of(bytes: &[u8]) -> Option<(FixedLenByteArray, FixedLenByteArray)> {
    let (values, _) = bytes.as_chunks::<DECIMAL_BYTES>();
    let values = values.iter().map(|value| i128::from_be_bytes(*value));
    let (least, most) = values.fold(None, |range: Option<(i128, i128)>, value| {
        Some(range.map_or((value, value), |(least, most)| (least.min(value), most.max(value))))
    })?;
    let copy = |value: i128| ByteArray::from(value.to_be_bytes().to_vec()).into();
    Some((copy(least), copy(most)))
}

fn decimals(bytes: Vec<u8>) -> Vec<FixedLenByteArray> {
    let bytes = Bytes::from(bytes);
    let starts = (0..bytes.len()).step_by(DECIMAL_BYTES);
    starts.map(|from| ByteArray::from(bytes.slice(from..from.saturating_add(DECIMAL_BYTES))).into()).collect()
}

/// Columns by name; those whose names share what stands before a point are a group of that name.
fn schema(name: &str, columns: &[Column]) -> Result<Type, ParquetError> {
    let mut fields = Vec::new();
    let mut rest = columns;
    while let Some((first, others)) = rest.split_first() {
        let Some((group, _)) = first.name.split_once('.') else {
            fields.push(Arc::new(leaf(&first.name, first)?));
            rest = others;
            continue;
        };
        let count = rest.iter().take_while(|column| inside(column, group).is_some()).count();
        let (members, others) = rest.split_at(count);
        let members = members.iter().filter_map(|column| Some((inside(column, group)?, column)));
        let members: Result<Vec<_>, ParquetError> =
            members.map(|(name, column)| leaf(name, column).map(Arc::new)).collect();
        let group = Type::group_type_builder(group).with_repetition(Repetition::REQUIRED);
        fields.push(Arc::new(group.with_fields(members?).build()?));
        rest = others;
    }
    Type::group_type_builder(name).with_fields(fields).build()
}

/// The name of a column inside its group, when it is in this one.
fn inside<'a>(column: &'a Column, group: &str) -> Option<&'a str> {
    column.name.split_once('.').filter(|(of, _)| *of == group).map(|(_, name)| name)
}

fn leaf(name: &str, column: &Column) -> Result<Type, ParquetError> {
    let (physical, logical) = match column.kind {
        Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        Kind::Json => (Physical::BYTE_ARRAY, Some(LogicalType::Json)),
        Kind::Count => (Physical::INT64, Some(LogicalType::integer(64, false))),
        Kind::Flag => (Physical::BOOLEAN, None),
        Kind::Instant => (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS))),
        Kind::Decimal(places) => {
            let scale = i32::try_from(places).unwrap_or(PRECISION);
            (Physical::FIXED_LEN_BYTE_ARRAY, Some(LogicalType::decimal(scale, PRECISION)))
        }
    };
    let repetition = match column.presence {
        Presence::Always => Repetition::REQUIRED,
        Presence::Maybe => Repetition::OPTIONAL,
    };
    let mut leaf =
        Type::primitive_type_builder(name, physical).with_repetition(repetition).with_logical_type(logical);
    if let Kind::Decimal(places) = column.kind {
        let length = i32::try_from(DECIMAL_BYTES).unwrap_or(i32::MAX);
        let scale = i32::try_from(places).unwrap_or(PRECISION);
        leaf = leaf.with_length(length).with_precision(PRECISION).with_scale(scale);
    }
    leaf.build()
}

fn properties(columns: &[Column]) -> Result<WriterPropertiesBuilder, ParquetError> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(LEVEL)?))
        // Of pages nothing is told: without their places, which are left out too, nobody could use it.
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_created_by(concat!("bursar ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_offset_index_disabled(true);
    for column in columns {
        let path = ColumnPath::new(column.name.split('.').map(str::to_owned).collect());
        let text = matches!(column.kind, Kind::Text | Kind::Json);
        if column.values == Values::Differ {
            properties = properties.set_column_dictionary_enabled(path.clone(), false);
            if text {
                // Nobody looks for a range of ids.
                properties = properties.set_column_statistics_enabled(path, EnabledStatistics::None);
            }
        }
    }
    Ok(properties)
}

#[cfg(test)]
mod tests;
