//! Documents with rows, shown as a table for people or as CSV.
//!
//! Invariants
//! - A cell that a spreadsheet would take for a formula gets an apostrophe in CSV.
//! - What is absent is a dash in a table and nothing in CSV; it is never a zero.
//!
//! Not here: what the rows say (`hedge`).

use super::TableFormat;
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::Value;
use std::io::Write;

/// A column: its title in a table, and where its value is in a row (also its name in CSV).
#[derive(Clone, Debug)]
pub(super) struct Column {
    title: String,
    path: Vec<String>,
}

/// A column whose value is at `path`, whose parts stand between points.
pub(super) fn column(title: &str, path: &str) -> Column {
    Column { title: title.to_owned(), path: path.split('.').map(str::to_owned).collect() }
}

impl Column {
    /// A column of one name, which may have points.
    pub(super) fn named(name: &str) -> Self {
        Self { title: name.to_owned(), path: vec![name.to_owned()] }
    }
}

/// The value at a path of names.
pub(super) fn value<'a>(row: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(row, |value, key| value.get(key))
}

/// A value as text; absent and null are empty, lists stand between semicolons.
pub(super) fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts.iter().map(|part| text(Some(part))).collect::<Vec<_>>().join("; "),
        Some(other) => other.to_string(),
    }
}

/// The rows of a document's list.
pub(super) fn rows<'a>(document: &'a Value, name: &str) -> Vec<&'a Value> {
    document.get(name).and_then(Value::as_array).into_iter().flatten().collect()
}

/// Writes rows as asked; JSON is the whole document.
pub(super) fn write(
    document: &Value,
    (rows, columns): (&[&Value], &[Column]),
    format: TableFormat,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    match format {
        TableFormat::Json => writeln!(out, "{document:#}")?,
        TableFormat::Csv => write_csv(rows, columns, out)?,
        TableFormat::Table => writeln!(out, "{}", table(rows, columns))?,
    }
    Ok(())
}

fn write_csv(rows: &[&Value], columns: &[Column], out: &mut dyn Write) -> anyhow::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(columns.iter().map(|column| column.path.join(".")))?;
    for row in rows {
        csv.write_record(columns.iter().map(|column| {
            let cell = value(row, &column.path);
            // Numbers below zero begin with a minus and are no formulas.
            let text = text(cell);
            let number = text.parse::<f64>().is_ok();
            if number { text } else { bursar_ledger::export::cell_text(Some(&text)).into_owned() }
        }))?;
    }
    csv.flush()?;
    Ok(())
}

/// A table; columns of numbers stand to the right.
pub(super) fn table(rows: &[&Value], columns: &[Column]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(columns.iter().map(|column| column.title.as_str()));
    for row in rows {
        table.add_row(columns.iter().map(|column| cell(&text(value(row, &column.path)))));
    }
    table
}

fn cell(text: &str) -> Cell {
    if text.is_empty() {
        return Cell::new("–").set_alignment(CellAlignment::Right);
    }
    let number = text.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if number { Cell::new(grouped(text)).set_alignment(CellAlignment::Right) } else { Cell::new(text) }
}

/// `-1234567.5` as `-1,234,567.5`.
pub(super) fn grouped(number: &str) -> String {
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, f)| (whole, Some(f)));
    let mut grouped = String::from(sign);
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && whole.len().saturating_sub(index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if let Some(fraction) = fraction {
        grouped.push('.');
        grouped.push_str(fraction);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_keep_their_sign_and_digits() {
        for (number, expected) in
            [("-630.00", "-630.00"), ("60999.15", "60,999.15"), ("-1234567", "-1,234,567"), ("12", "12")]
        {
            assert_eq!(grouped(number), expected);
        }
    }

    #[test]
    fn csv_is_harmless_and_absent_is_empty() {
        let rows = [json!({"a": "=cmd()", "b": {"c": "-5.00"}}), json!({"a": ["x", "y"]})];
        let mut out = Vec::new();
        write_csv(&rows.iter().collect::<Vec<_>>(), &[column("A", "a"), column("C", "b.c")], &mut out)
            .unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a,b.c\n'=cmd(),-5.00\nx; y,\n");
    }
}
