//! `bursar budget` and `bursar why`: what the running sidecar knows of its budgets.
//!
//! Not here: the figures (`budgets`).

use super::{AdminArgs, BudgetArgs, TableFormat, WhyArgs, source};
use crate::tasks;
use anyhow::Context;
use comfy_table::{Cell, CellAlignment, Table, presets};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::io::Write;
use std::process::ExitCode;

const COLUMNS: [(&str, &str); 13] = [
    ("Budget", "budget"),
    ("Contract", "contract"),
    ("State", "contract_state"),
    ("Mode", "mode"),
    ("Window", "window"),
    ("Unit", "unit"),
    ("Limit", "limit"),
    ("Spent", "spent"),
    ("Estimated", "estimated"),
    ("Reserved", "reserved"),
    ("Left", "left"),
    ("Ends", "window_end"),
    ("Runs out", "run_out_at"),
];

/// Prints all budgets.
pub(super) fn list(args: &BudgetArgs) -> anyhow::Result<ExitCode> {
    let document = ask(&args.ask, "/api/v1/budgets")?;
    let mut out = std::io::stdout().lock();
    let rows = document.get("budgets").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    match args.format {
        TableFormat::Json => writeln!(out, "{document:#}")?,
        TableFormat::Csv => {
            let mut csv = csv::Writer::from_writer(out);
            csv.write_record(COLUMNS.map(|(_, name)| name))?;
            for row in rows {
                let cells = COLUMNS.map(|(_, name)| text(row.get(name)));
                csv.write_record(
                    cells.map(|cell| bursar_ledger::export::cell_text(Some(&cell)).into_owned()),
                )?;
            }
            csv.flush()?;
        }
        TableFormat::Table if rows.is_empty() => writeln!(out, "no budgets are configured")?,
        TableFormat::Table => {
            let mut table = Table::new();
            table.load_style(presets::UTF8_HORIZONTAL_ONLY);
            table.set_header(COLUMNS.map(|(title, _)| title));
            for row in rows {
                table.add_row(COLUMNS.map(|(_, name)| {
                    let cell = Cell::new(text(row.get(name)));
                    let is_figure = matches!(name, "limit" | "spent" | "estimated" | "reserved" | "left");
                    if is_figure { cell.set_alignment(CellAlignment::Right) } else { cell }
                }));
            }
            writeln!(out, "{table}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints why a request was refused.
pub(super) fn why(args: &WhyArgs) -> anyhow::Result<ExitCode> {
    let id = utf8_percent_encode(&args.id, NON_ALPHANUMERIC);
    let document = ask(&args.ask, &format!("/api/v1/why?id={id}"))?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{document:#}")?;
    } else {
        writeln!(out, "{}", text(document.get("message")))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(args: &AdminArgs, path: &str) -> anyhow::Result<Value> {
    let client = source::sidecar(args)?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&tasks::runtime()?, async {
        let mut body = Vec::new();
        client.get(path, &mut body).await?;
        serde_json::from_slice(&body).context("the sidecar\'s answer is no JSON")
    })
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "–".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
