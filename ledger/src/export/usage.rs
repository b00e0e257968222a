//! Usage records as a typed table: the columns of the published record, in its order.
//!
//! Invariants
//! - The columns have the names and the order of the CSV of records.
//! - Cells are made from the record itself; nothing is printed and read again.
//!
//! Not here: the shape of a row as text (`row`, `csv`, `jsonl`).

use super::ExportError;
use super::row::{ClassesRow, ModelRow, TagsRow, UsageRow};
use super::table::{Cell, Column, Kind, MONEY_PLACES, TableFormat, TableWriter};
use crate::journal::read::StoredRecord;
use bursar_domain::{Anomaly, Label, LedgerId};
use serde::Serialize;
use std::io::Write;

/// Decimals of a time in milliseconds and of audio in seconds.
const THOUSANDTHS: u32 = 3;

/// Writes records as a typed table.
#[derive(Debug)]
pub struct UsageTable<W: Write> {
    table: TableWriter<W>,
    /// The ledger of the last record, as text: it is that of nearly every record.
    ledger: (LedgerId, String),
}

impl<W: Write> UsageTable<W> {
    /// Begins the table.
    pub fn new(out: W, format: TableFormat) -> Result<Self, ExportError> {
        let none = LedgerId::from_bits(0);
        let table = TableWriter::new(out, "usage", columns(), format)?;
        Ok(Self { table, ledger: (none, none.to_string()) })
    }

    /// Writes one record.
    pub fn write(&mut self, stored: &StoredRecord) -> Result<(), ExportError> {
        if self.ledger.0 != stored.ledger {
            self.ledger = (stored.ledger, stored.ledger.to_string());
        }
        let cells = cells(stored, &self.ledger.1);
        let cells = cells.map_err(|source| ExportError::Json { sequence: stored.sequence, source })?;
        self.table.write(&cells)
    }

    /// Writes what is left and gives the target back.
    pub fn finish(self) -> Result<W, ExportError> {
        Ok(self.table.finish()?.0)
    }
}

/// The columns of a record.
pub(super) fn columns() -> Vec<Column> {
    use Kind as K;
    let (money, millis) = (K::Decimal(MONEY_PLACES), K::Decimal(THOUSANDTHS));
    let mut columns = vec![
        Column::always("id", K::Text).differing(),
        Column::always("seq", K::Count).differing(),
        Column::always("ledger", K::Text),
        Column::always("started_at", K::Instant).differing(),
        Column::always("ended_at", K::Instant).differing(),
        Column::maybe("team", K::Text),
        Column::maybe("workload", K::Text),
        Column::maybe("customer", K::Text),
        Column::maybe("session", K::Text),
        Column::maybe("tags", K::Json),
        Column::always("identity_source", K::Text),
        Column::always("route", K::Text),
        Column::always("provider", K::Text),
        Column::always("api", K::Text),
        Column::maybe("model_requested", K::Text),
        Column::maybe("model_served", K::Text),
        Column::maybe("tier", K::Text),
        Column::maybe("region", K::Text),
        Column::always("stream", K::Flag),
        Column::maybe("http_status", K::Count),
        Column::always("outcome", K::Text),
        Column::always("metering", K::Text),
    ];
    for (place, name) in UsageRow::NAMES.iter().enumerate() {
        let kind = if place == UsageRow::AUDIO { millis } else { K::Count };
        columns.push(Column::maybe(&format!("usage.{name}"), kind));
    }
    columns.extend([
        Column::always("usage_source", K::Text),
        Column::maybe("counted_by", K::Text),
        Column::maybe("by_model", K::Json),
        Column::maybe("usage_raw", K::Text).differing(),
        Column::maybe("provider_cost.amount", money),
        Column::maybe("provider_cost.currency", K::Text),
        Column::maybe("cost.currency", K::Text),
        Column::maybe("cost.list", money),
        Column::maybe("cost.contracted", money),
        Column::maybe("cost.billed", money),
        Column::maybe("cost.status", K::Text),
        Column::maybe("cost.price_rows", K::Json),
        Column::maybe("upstream_request_id", K::Text).differing(),
        Column::maybe("meter_id", K::Text).differing(),
        Column::maybe("trace_id", K::Text).differing(),
        Column::always("latency_ms", millis),
        Column::maybe("ttft_ms", millis),
        Column::always("bytes_in", K::Count),
        Column::always("bytes_out", K::Count),
        Column::maybe("anomalies", K::Json),
        Column::maybe("usage_classes", K::Json),
    ]);
    columns
}

fn label(label: Option<&Label>) -> Cell<'_> {
    Cell::text(label.map(Label::as_str))
}

fn name(name: &'static str) -> Cell<'static> {
    Cell::text(Some(name))
}

/// JSON, or nothing for what is empty.
fn json<'a>(value: &impl Serialize, is_empty: bool) -> Result<Cell<'a>, serde_json::Error> {
    if is_empty { Ok(Cell::Null) } else { serde_json::to_string(value).map(Cell::owned) }
}

fn cells<'a>(stored: &'a StoredRecord, ledger: &'a str) -> Result<Vec<Cell<'a>>, serde_json::Error> {
    let record = &stored.record;
    let identity = &record.identity;
    let tags = TagsRow(&identity.tags);
    let mut cells = Vec::with_capacity(70);
    cells.extend([
        Cell::owned(record.id.to_string()),
        Cell::Count(stored.sequence),
        Cell::text(Some(ledger)),
        Cell::Instant(record.started_at),
        Cell::Instant(record.ended_at),
        label(identity.team.as_ref()),
        label(identity.workload.as_ref()),
        label(identity.customer.as_ref()),
        label(identity.session.as_ref()),
        json(&tags, tags.is_empty())?,
        name(identity.source.name()),
        label(Some(&record.route)),
        label(Some(&record.provider)),
        label(Some(&record.api)),
        label(record.model_requested.as_ref()),
        label(record.model_served.as_ref()),
        label(record.tier.as_ref()),
        label(record.region.as_ref()),
        Cell::Flag(record.stream),
        Cell::count(record.http_status.map(u64::from)),
        name(record.outcome.name()),
        name(record.metering.name()),
    ]);
    for (place, count) in UsageRow::counts(&record.usage).into_iter().enumerate() {
        cells.push(match count {
            Some(millis) if place == UsageRow::AUDIO => Cell::Decimal(millis.into()),
            count => Cell::count(count),
        });
    }
    let parts: Vec<ModelRow<'_>> = record.by_model.iter().map(ModelRow::new).collect();
    let (charge, cost) = (record.provider_cost, record.cost.as_ref());
    let currency = charge.map(|charge| charge.amount.currency().code().to_owned());
    let anomalies: Vec<&str> = record.anomalies.iter().map(Anomaly::name).collect();
    cells.extend([
        name(record.usage_source.name()),
        label(record.counted_by.as_ref()),
        json(&parts, parts.is_empty())?,
        Cell::text(record.usage_raw.as_deref()),
        Cell::decimal(charge.map(|charge| charge.amount.pico())),
        currency.map_or(Cell::Null, Cell::owned),
        Cell::text(cost.map(|cost| cost.currency.code())),
        Cell::decimal(cost.and_then(|cost| cost.list_pico)),
        Cell::decimal(cost.and_then(|cost| cost.contracted_pico)),
        Cell::decimal(cost.and_then(|cost| cost.billed_pico)),
        cost.map_or(Cell::Null, |cost| name(cost.status.name())),
        match cost {
            Some(cost) if !cost.price_rows.is_empty() => {
                let rows: Vec<&str> = cost.price_rows.iter().map(AsRef::as_ref).collect();
                json(&rows, false)?
            }
            _ => Cell::Null,
        },
        Cell::text(record.upstream_request_id.as_ref().map(AsRef::as_ref)),
        Cell::text(record.meter_id.as_ref().map(AsRef::as_ref)),
        record.trace_id.map_or(Cell::Null, |id| Cell::owned(id.to_string())),
        Cell::Decimal(record.latency_us.into()),
        Cell::decimal(record.ttft_us.map(i128::from)),
        Cell::Count(record.bytes_in),
        Cell::Count(record.bytes_out),
        json(&anomalies, anomalies.is_empty())?,
        match ClassesRow::needed(&record.usage) {
            Some(classes) => json(&classes, false)?,
            None => Cell::Null,
        },
    ]);
    Ok(cells)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::{plain_record, test_price};
    use crate::export::CsvWriter;
    use bursar_domain::Quantity;

    /// A table's text and the published CSV's, of one record.
    fn both(stored: &StoredRecord) -> [String; 2] {
        let mut table = UsageTable::new(Vec::new(), TableFormat::Csv).unwrap();
        table.write(stored).unwrap();
        let mut published = CsvWriter::new(Vec::new()).unwrap();
        published.write(stored).unwrap();
        [table.finish().unwrap(), published.finish().unwrap()].map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn the_table_says_what_the_published_record_says() {
        let mut record = plain_record(1);
        record.cost = Some(test_price(&record));
        record.usage.set_quantity(Quantity::AudioMillis, 2_500);
        record.usage.set(bursar_domain::TokenClass::CachedAudio, 3);
        record.usage_raw = Some("{\"a\": 1}".into());
        let stored = StoredRecord { ledger: LedgerId::from_bits(5), sequence: 9, record, counted: true };
        let [table, published] = both(&stored);
        let cells = |text: &str| -> Vec<Vec<String>> {
            let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
            reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
        };
        let (table, published) = (cells(&table), cells(&published));
        assert_eq!(table[0], published[0], "the same columns in the same order");
        for ((name, here), there) in table[0].iter().zip(&table[1]).zip(&published[1]) {
            // Published instants always have six decimals.
            let same = here == there || there.replace(".000000Z", "Z") == *here;
            assert!(same, "{name}: {here} {there}");
        }
    }
}
