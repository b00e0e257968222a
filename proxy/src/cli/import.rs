//! `bursar import`: usage, contracts, market data and revenue from files.
//!
//! Not here: rows and checks (`hedge::import`), prices (`price import`).

use super::place::{self, PlaceArgs};
use crate::hedge::import::What;
use bursar_ledger::hedge::Mode;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum ImportCommand {
    /// Usage records, named as `bursar export usage` names them.
    Usage(ImportArgs),
    /// Fixings: index, date, value, currency; version, source.
    Fixings(ImportArgs),
    /// Exchange rates: pair (USD/CNY is CNY per USD), date, rate, source.
    Fx(ImportArgs),
    /// Holidays: calendar, weekends, holidays (or one `holiday` per row).
    Calendars(ImportArgs),
    /// Indices: index, version, currency, calendar, last.
    Indices(ImportArgs),
    /// Conversion profiles between GPU-hours, provisioned units, tokens and standard tokens.
    Profiles(ImportArgs),
    /// Market data of any of these kinds, told apart by its fields.
    Market(ImportArgs),
    /// Contract positions, with `preset` to begin from one.
    Contracts(ImportArgs),
    /// Events of positions: settle, close, roll, variation_margin, correct …
    Events(ImportArgs),
    /// Revenue events: id, amount, currency, time; kind, refers_to; what they are matched by.
    Revenue(ImportArgs),
}

/// `bursar import … FILE`
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The file: JSON Lines, a JSON array or CSV with a header; `-` is standard input.
    pub(super) file: PathBuf,
    /// Check every row and say what would be done, and write nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Write the rows if none is bad. This is what is done without --dry-run.
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) apply: bool,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
}

/// Imports the file: all rows, or none.
pub(super) fn run(command: &ImportCommand) -> anyhow::Result<ExitCode> {
    let (what, args) = match command {
        ImportCommand::Usage(args) => (What::Usage, args),
        ImportCommand::Fixings(args) => (What::Fixings, args),
        ImportCommand::Fx(args) => (What::Fx, args),
        ImportCommand::Calendars(args) => (What::Calendars, args),
        ImportCommand::Indices(args) => (What::Indices, args),
        ImportCommand::Profiles(args) => (What::Profiles, args),
        ImportCommand::Market(args) => (What::Market, args),
        ImportCommand::Contracts(args) => (What::Contracts, args),
        ImportCommand::Events(args) => (What::Events, args),
        ImportCommand::Revenue(args) => (What::Revenue, args),
    };
    import(what, args)
}

/// Imports one file.
pub(super) fn import(what: What, args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let mode = if args.dry_run { Mode::DryRun } else { Mode::Apply };
    let file = place::file(what, &args.file)?;
    place::tell(&place::import_file(&args.place, file, mode)?, mode)
}
