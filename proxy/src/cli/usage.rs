//! `bursar usage`: what each group used and what it cost.
//!
//! Not here: the figures (`report`, `ledger::query`).

use super::source::{self, Source};
use super::{ReadArgs, TableFormat, UsageArgs};
use crate::report::{self, UsageAsk};
use crate::{period, tasks};
use anyhow::Context;
use bursar_domain::{Clock, SystemClock};
use comfy_table::{Cell, CellAlignment, Table, presets};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::io::Write;
use std::process::ExitCode;

/// Prints the report.
pub(super) fn run(args: &UsageArgs) -> anyhow::Result<ExitCode> {
    let document = ask(args)?;
    let mut out = std::io::stdout().lock();
    match args.format {
        TableFormat::Table | TableFormat::Csv if args.anomalies => {
            write_anomalies(&document, args.format, &mut out)?;
        }
        TableFormat::Json => writeln!(out, "{document:#}")?,
        TableFormat::Csv => write_csv(&document, &mut out)?,
        TableFormat::Table => write_table(&document, &mut out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(args: &UsageArgs) -> anyhow::Result<Value> {
    let read = &args.read;
    let now = SystemClock.now();
    let period = period::parse(read.from.as_deref(), read.to.as_deref(), &read.tz, now, period::OPTIONS)?;
    let keys = if args.anomalies { "provider" } else { &*args.by };
    let by = report::parse_by(keys, "--by")?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&tasks::runtime()?, async {
        match source::find(read).await? {
            Source::Running(client) => {
                let by = utf8_percent_encode(keys, NON_ALPHANUMERIC);
                let path = format!("/api/v1/usage?by={by}{}", period_query(read));
                let mut body = Vec::new();
                client.get(&path, &mut body).await?;
                serde_json::from_slice(&body).context("the sidecar's answer is no report")
            }
            Source::Offline(ledger) => {
                let ask = UsageAsk { period, by };
                Ok(report::usage(|query| ledger.usage(query), &ask, now)?)
            }
        }
    })
}

/// The period's options as a query that follows others.
pub(super) fn period_query(read: &ReadArgs) -> String {
    let mut query = String::new();
    let options =
        [("from", read.from.as_deref()), ("to", read.to.as_deref()), ("tz", Some(read.tz.as_str()))];
    for (name, value) in options {
        if let Some(value) = value {
            query.push_str(&format!("&{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
        }
    }
    query
}

/// A column: its title, and where its value is in a row.
struct Column {
    title: &'static str,
    name: &'static str,
    path: &'static [&'static str],
}

const fn column(title: &'static str, name: &'static str, path: &'static [&'static str]) -> Column {
    Column { title, name, path }
}

/// The columns behind the group keys; `title` is for the table, `name` for CSV.
const COLUMNS: [Column; 11] = [
    column("Requests", "requests", &["requests"]),
    column("Input", "input_tokens", &["tokens", "input_tokens"]),
    column("Cached", "input_cached_read", &["tokens", "input_cached_read"]),
    column("Written", "input_cache_write", &["tokens", "input_cache_write"]),
    column("Output", "output_tokens", &["tokens", "output_tokens"]),
    column("Reasoning", "output_reasoning", &["tokens", "output_reasoning"]),
    column("List", "cost.list", &["cost", "list"]),
    column("Billed", "cost.billed", &["cost", "billed"]),
    column("Currency", "cost.currency", &["cost", "currency"]),
    column("Cost status", "cost.status", &["cost", "status"]),
    column("Unpriced", "unpriced_requests", &["unpriced_requests"]),
];

fn value<'a>(row: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(row, |value, key| value.get(key))
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn keys(document: &Value) -> Vec<String> {
    document["by"].as_array().into_iter().flatten().map(|key| text(Some(key))).collect()
}

fn rows(document: &Value) -> impl Iterator<Item = &Value> {
    document["rows"].as_array().into_iter().flatten()
}

fn write_table(document: &Value, out: &mut dyn Write) -> anyhow::Result<()> {
    let keys = keys(document);
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(keys.iter().map(String::as_str).chain(COLUMNS.iter().map(|c| c.title)));
    for row in rows(document) {
        let groups = keys.iter().map(|key| Cell::new(text(row.get(key))));
        table.add_row(groups.chain(COLUMNS.iter().map(|c| figure(row, c))).collect::<Vec<_>>());
    }
    let total = &document["total"];
    let mut groups = vec![Cell::new("total")];
    groups.resize_with(keys.len().max(1), || Cell::new(""));
    groups.truncate(keys.len());
    table.add_row(groups.into_iter().chain(COLUMNS.iter().map(|c| figure(total, c))).collect::<Vec<_>>());
    writeln!(out, "{table}")?;
    let share = |name: &str| match text(value(document, &["coverage", name])) {
        share if share.is_empty() => "none".to_owned(),
        share => share,
    };
    writeln!(
        out,
        "coverage: {} of the counted requests reported by the provider, {} priced; as of {}",
        share("provider_reported"),
        share("priced"),
        text(document.get("as_of"))
    )?;
    Ok(())
}

/// Provider, anomaly and how many records have it; a record may have several.
fn write_anomalies(document: &Value, format: TableFormat, out: &mut dyn Write) -> anyhow::Result<()> {
    let titles = ["provider", "anomaly", "records", "of"];
    let found = rows(document).flat_map(|row| {
        let anomalies = row.get("anomalies").and_then(Value::as_object);
        anomalies.into_iter().flatten().map(move |(kind, count)| {
            [text(row.get("provider")), kind.clone(), text(Some(count)), text(row.get("requests"))]
        })
    });
    if format == TableFormat::Csv {
        let mut csv = csv::Writer::from_writer(out);
        csv.write_record(titles)?;
        for cells in found {
            csv.write_record(cells.map(harmless))?;
        }
        csv.flush()?;
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(titles);
    for [provider, kind, records, of] in found {
        let number = |text: &str| Cell::new(grouped(text)).set_alignment(CellAlignment::Right);
        table.add_row([Cell::new(provider), Cell::new(kind), number(&records), number(&of)]);
    }
    writeln!(out, "{table}")?;
    Ok(())
}

fn figure(row: &Value, column: &Column) -> Cell {
    let text = match text(value(row, column.path)) {
        text if text.is_empty() => "–".to_owned(),
        text => grouped(&text),
    };
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// `1234567` as `1,234,567`; anything but digits before a point stays as it is.
fn grouped(number: &str) -> String {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || !whole.bytes().all(|b| b.is_ascii_digit()) {
        return number.to_owned();
    }
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if !fraction.is_empty() {
        grouped.push('.');
        grouped.push_str(fraction);
    }
    grouped
}

fn write_csv(document: &Value, out: &mut dyn Write) -> anyhow::Result<()> {
    let keys = keys(document);
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(keys.iter().map(String::as_str).chain(COLUMNS.iter().map(|c| c.name)))?;
    for row in rows(document) {
        let groups = keys.iter().map(|key| harmless(text(row.get(key))));
        csv.write_record(groups.chain(COLUMNS.iter().map(|c| text(value(row, c.path)))))?;
    }
    csv.flush()?;
    Ok(())
}

/// Text that a spreadsheet would take for a formula gets an apostrophe.
fn harmless(text: String) -> String {
    bursar_ledger::export::cell_text(Some(&text)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_and_other_text_is_left_alone() {
        for (number, expected) in [
            ("0", "0"),
            ("999", "999"),
            ("1000", "1,000"),
            ("1234567.000015", "1,234,567.000015"),
            ("USD", "USD"),
            ("-5", "-5"),
            ("", ""),
        ] {
            assert_eq!(grouped(number), expected);
        }
    }

    #[test]
    fn csv_rows_are_harmless_and_complete() {
        let document = serde_json::json!({
            "by": ["team"],
            "rows": [{ "team": "=cmd()", "requests": 2, "tokens": { "input_tokens": 5 },
                       "cost": { "billed": "0.5", "currency": "USD", "status": "priced" } }],
        });
        let mut out = Vec::new();
        write_csv(&document, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0].split(',').count(), 1 + COLUMNS.len());
        assert_eq!(lines[1], "'=cmd(),2,5,,,,,,0.5,USD,priced,");
    }
}
