//! `bursar period`: closing months, and what was reported when they were closed.
//!
//! Not here: reports (`roi::period`), keeping them (`ledger::periods`).

use super::TableFormat;
use super::fault::Fault;
use super::grid::{self, Column, column, text};
use super::place::{self, PlaceArgs};
use super::roi;
use crate::roi::period::{self, CloseOptions};
use crate::roi::reconciliation;
use anyhow::Context;
use bursar_domain::SystemClock;
use clap::{Args, Subcommand};
use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum PeriodCommand {
    /// Close a month: its report stays as it is, byte for byte, and what comes late is a correction in the
    /// first open month.
    Close(CloseArgs),
    /// List the closed months with the checksums of their reports.
    List(ListArgs),
    /// Show a closed month as it was reported: JSON is the very bytes.
    Show(ShowArgs),
}

/// `bursar period close`
#[derive(Debug, Args)]
pub(crate) struct CloseArgs {
    /// The month, such as 2026-09.
    month: String,
    /// Time zone of the days [default: that of the last close, or UTC].
    #[arg(long)]
    tz: Option<String>,
    /// Reporting currency [default: that of the last close, or USD].
    #[arg(long)]
    currency: Option<String>,
    /// Hedge unit: Mtok or MSIT [default: that of the last close, or Mtok].
    #[arg(long)]
    unit: Option<String>,
    /// Rows of the report [default: those of the last close, or team,workload].
    #[arg(long)]
    by: Option<String>,
    /// Attribution model [default: that of the last close, or linear].
    #[arg(long)]
    model: Option<String>,
    /// How old a touch may be [default: as in the last close, or 30d].
    #[arg(long, value_name = "DAYS")]
    look_back: Option<String>,
    /// Half-life of time_decay [default: as in the last close, or 7d].
    #[arg(long, value_name = "DAYS")]
    half_life: Option<String>,
    /// The last day that is valued [default: yesterday].
    #[arg(long)]
    on: Option<String>,
    /// Close although something is missing or provisional; the report says what.
    #[arg(long)]
    accept_gaps: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

/// `bursar period list`
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
    #[command(flatten)]
    place: PlaceArgs,
}

/// `bursar period show`
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The month, such as 2026-09.
    month: String,
    /// Form of the answer; JSON is the bytes of the close, the others are made from it.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
    /// Write a workbook (XLSX) to this file instead; it appears only when complete.
    #[arg(long, value_name = "FILE", conflicts_with = "format")]
    xlsx: Option<PathBuf>,
    /// Write a page (HTML) to this file instead; it appears only when complete.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["format", "xlsx"])]
    html: Option<PathBuf>,
    /// Write the lines of the CSV as Parquet to this file instead; it appears only when complete.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["format", "xlsx", "html"])]
    parquet: Option<PathBuf>,
    #[command(flatten)]
    beside: roi::BesideArgs,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Runs the command.
pub(super) fn run(command: &PeriodCommand) -> anyhow::Result<ExitCode> {
    match command {
        PeriodCommand::Close(args) => close(args),
        PeriodCommand::List(args) => list(args),
        PeriodCommand::Show(args) => show(args),
    }
}

fn close(args: &CloseArgs) -> anyhow::Result<ExitCode> {
    let options = CloseOptions {
        tz: args.tz.clone(),
        currency: args.currency.clone(),
        unit: args.unit.clone(),
        by: args.by.clone(),
        model: args.model.clone(),
        look_back: args.look_back.clone(),
        half_life: args.half_life.clone(),
        on: args.on.clone(),
        accept_gaps: args.accept_gaps.then_some(true),
    };
    let query = place::query(&[
        ("tz", options.tz.as_deref()),
        ("currency", options.currency.as_deref()),
        ("unit", options.unit.as_deref()),
        ("by", options.by.as_deref()),
        ("model", options.model.as_deref()),
        ("look_back", options.look_back.as_deref()),
        ("half_life", options.half_life.as_deref()),
        ("on", options.on.as_deref()),
        ("accept_gaps", options.accept_gaps.map(|_| "true")),
    ]);
    let path = format!("/api/v1/periods/{}/close{query}", place::part(&args.month));
    let manifest = place::write(&args.place, &path, |ledger, prices| {
        Ok(period::close(ledger, prices, (&args.month, &options), &SystemClock)?)
    })?;
    let at = |name: &str| text(manifest.get(name));
    writeln!(
        std::io::stdout().lock(),
        "{} is closed up to sequence {}: {} rows, {} corrections, SHA-256 {}",
        at("month"),
        at("sequence"),
        at("rows"),
        at("corrections"),
        at("sha256")
    )?;
    Ok(ExitCode::SUCCESS)
}

fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let document = place::read(&args.place, "/api/v1/periods", period::list)?;
    let columns: Vec<Column> = [
        ("Month", "month"),
        ("Closed at", "closed_at"),
        ("Sequence", "sequence"),
        ("Rows", "rows"),
        ("Corrections", "corrections"),
        ("Cost", "totals.book_total"),
        ("Revenue", "totals.revenue"),
        ("Savings", "totals.savings"),
        ("SHA-256", "sha256"),
        ("Whole", "whole"),
    ]
    .map(|(title, path)| column(title, path))
    .into();
    let rows = grid::rows(&document, "rows");
    grid::write(&document, (&rows, &columns), args.format, &mut std::io::stdout().lock())?;
    if rows.is_empty() {
        eprintln!("bursar: no month is closed");
    }
    let whole = rows.iter().all(|row| row.get("whole").and_then(Value::as_bool) == Some(true));
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

fn show(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    if !args.beside.is_empty() && args.xlsx.is_none() && args.html.is_none() {
        let text = "--reconciliation is shown in a workbook or a page: add --xlsx FILE or --html FILE";
        return Err(Fault::Usage(text.to_owned()).into());
    }
    let given = args.beside.read()?;
    let path = format!("/api/v1/periods/{}", place::part(&args.month));
    let document = place::read(&args.place, &path, |source| period::show(source, &args.month))?;
    let report = text(document.get("text"));
    let parsed = || -> anyhow::Result<Value> {
        let mut report = serde_json::from_str(&report).context("the closed report is no document")?;
        if !given.is_empty() {
            reconciliation::attach(&mut report, given);
        }
        Ok(report)
    };
    match (&args.xlsx, &args.html, &args.parquet) {
        (Some(path), _, _) => drop(roi::write_workbook(&parsed()?, path)?),
        (_, Some(path), _) => drop(roi::write_page(&parsed()?, path)?),
        (_, _, Some(path)) => drop(roi::write_parquet(&parsed()?, path)?),
        _ if args.format == TableFormat::Json => std::io::stdout().lock().write_all(report.as_bytes())?,
        _ => roi::write(&parsed()?, args.format, &mut std::io::stdout().lock())?,
    }
    if document.get("whole").and_then(Value::as_bool) != Some(true) {
        eprintln!("bursar: the report is not what was closed: its SHA-256 differs from the manifest's");
        return Ok(ExitCode::from(3));
    }
    Ok(ExitCode::SUCCESS)
}
