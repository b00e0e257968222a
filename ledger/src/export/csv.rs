//! CSV by RFC 4180: a header always, LF line ends, empty cells for what is unknown.
//!
//! Invariants
//! - A text that a spreadsheet would take for a formula is led by an apostrophe; numbers stay numbers.
//! - Every line has the same number of cells; nested values have dotted names, lists and tags are JSON.
//!
//! Not here: the fields (`row`).

use super::ExportError;
use super::row::{Row, UsageRow};
use crate::journal::read::StoredRecord;
use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, Write};

/// Writes records as CSV.
#[derive(Debug)]
pub struct CsvWriter<W: Write> {
    out: csv::Writer<W>,
}

impl<W: Write> CsvWriter<W> {
    /// Writes the header to `out`.
    pub fn new(out: W) -> Result<Self, ExportError> {
        let mut out = csv::WriterBuilder::new().terminator(csv::Terminator::Any(b'\n')).from_writer(out);
        out.write_record(header()).map_err(write_error)?;
        Ok(Self { out })
    }

    /// Writes one record.
    pub fn write(&mut self, stored: &StoredRecord) -> Result<(), ExportError> {
        let row = Row::new(stored);
        let cells = cells(&row).map_err(|source| ExportError::Json { sequence: stored.sequence, source })?;
        self.out.write_record(cells.iter().map(|cell| cell.as_bytes())).map_err(write_error)
    }

    /// Flushes and gives the target back.
    pub fn finish(self) -> Result<W, ExportError> {
        self.out.into_inner().map_err(|error| ExportError::Write(io::Error::other(error.to_string())))
    }
}

fn write_error(error: csv::Error) -> ExportError {
    ExportError::Write(error.into())
}

fn header() -> Vec<String> {
    let plain = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut names = plain(&[
        "id",
        "seq",
        "ledger",
        "started_at",
        "ended_at",
        "team",
        "workload",
        "customer",
        "session",
        "tags",
        "identity_source",
        "route",
        "provider",
        "api",
        "model_requested",
        "model_served",
        "tier",
        "region",
        "stream",
        "http_status",
        "outcome",
        "metering",
    ]);
    names.extend(UsageRow::NAMES.iter().map(|name| format!("usage.{name}")));
    names.extend(plain(&[
        "usage_source",
        "counted_by",
        "by_model",
        "usage_raw",
        "provider_cost.amount",
        "provider_cost.currency",
        "cost.currency",
        "cost.list",
        "cost.contracted",
        "cost.billed",
        "cost.status",
        "cost.price_rows",
        "upstream_request_id",
        "meter_id",
        "trace_id",
        "latency_ms",
        "ttft_ms",
        "bytes_in",
        "bytes_out",
        "anomalies",
        "usage_classes",
    ]));
    names
}

/// The cells of a row, in the order of the header.
fn cells<'a>(row: &'a Row<'_>) -> Result<Vec<Cow<'a, str>>, serde_json::Error> {
    let number = |n: u64| Cow::Owned(n.to_string());
    let mut cells = vec![
        cell_text(Some(&row.id)),
        number(row.seq),
        cell_text(Some(&row.ledger)),
        cell_text(Some(&row.started_at)),
        cell_text(Some(&row.ended_at)),
        cell_text(row.team),
        cell_text(row.workload),
        cell_text(row.customer),
        cell_text(row.session),
        json(&row.tags, row.tags.is_empty())?,
        cell_text(Some(row.identity_source)),
        cell_text(Some(row.route)),
        cell_text(Some(row.provider)),
        cell_text(Some(row.api)),
        cell_text(row.model_requested),
        cell_text(row.model_served),
        cell_text(row.tier),
        cell_text(row.region),
        Cow::Borrowed(if row.stream { "true" } else { "false" }),
        row.http_status.map_or(Cow::Borrowed(""), |status| number(status.into())),
        cell_text(Some(row.outcome)),
        cell_text(Some(row.metering)),
    ];
    cells.extend(row.usage.values().map(|value| Cow::Borrowed(value.map_or("", |n| n.as_str()))));
    let charge = row.provider_cost.as_ref();
    let cost = row.cost.as_ref();
    let amount = |amount: Option<&'a String>| Cow::Borrowed(amount.map_or("", String::as_str));
    cells.extend([
        cell_text(Some(row.usage_source)),
        cell_text(row.counted_by),
        json(&row.by_model, row.by_model.is_empty())?,
        cell_text(row.usage_raw.as_ref().map(super::row::RawUsage::text)),
        Cow::Borrowed(charge.map_or("", |charge| charge.amount.as_str())),
        cell_text(charge.map(|charge| charge.currency.as_str())),
        cell_text(cost.map(|cost| cost.currency.as_str())),
        amount(cost.and_then(|cost| cost.list.as_ref())),
        amount(cost.and_then(|cost| cost.contracted.as_ref())),
        amount(cost.and_then(|cost| cost.billed.as_ref())),
        cell_text(cost.map(|cost| cost.status)),
        match cost {
            Some(cost) => json(&cost.price_rows, cost.price_rows.is_empty())?,
            None => Cow::Borrowed(""),
        },
        cell_text(row.upstream_request_id),
        cell_text(row.meter_id),
        cell_text(row.trace_id.as_deref()),
        Cow::Borrowed(row.latency_ms.as_str()),
        Cow::Borrowed(row.ttft_ms.as_ref().map_or("", |ms| ms.as_str())),
        number(row.bytes_in),
        number(row.bytes_out),
        json(&row.anomalies, row.anomalies.is_empty())?,
        match &row.usage_classes {
            Some(classes) => json(classes, false)?,
            None => Cow::Borrowed(""),
        },
    ]);
    Ok(cells)
}

fn json<'a>(value: &impl Serialize, is_empty: bool) -> Result<Cow<'a, str>, serde_json::Error> {
    if is_empty { Ok(Cow::Borrowed("")) } else { serde_json::to_string(value).map(Cow::Owned) }
}

/// A text as a CSV cell that is safe to open in a spreadsheet.
#[must_use]
pub fn cell_text(text: Option<&str>) -> Cow<'_, str> {
    let text = text.unwrap_or_default();
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '＝', '＋', '－', '＠']) {
        Cow::Owned(format!("'{text}"))
    } else {
        Cow::Borrowed(text)
    }
}
