//! `bursar import`: usage, contracts, market data and revenue from files.
//!
//! Not here: rows and checks (`imports`, `hedge::import`), prices (`price import`).

use super::fault::Fault;
use super::place::{self, PlaceArgs, UsageAsk};
use super::price::{BookArgs, book};
use crate::hedge::import::What;
use crate::imports::{Format, Words, WordsError};
use crate::period;
use bursar_domain::{Clock, SystemClock};
use bursar_ledger::hedge::Mode;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum ImportCommand {
    /// Usage: what `bursar export usage` wrote, or logs of LiteLLM, Langfuse and OpenMeter.
    Usage(UsageArgs),
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

/// `bursar import usage FILE`
#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    #[command(flatten)]
    import: ImportArgs,
    /// Which system wrote the file. Without it that is detected, and said.
    #[arg(long, value_enum)]
    from_format: Option<Format>,
    /// The team of rows of other systems that name none.
    #[arg(long)]
    team: Option<String>,
    /// The workload of rows of other systems that name none.
    #[arg(long)]
    workload: Option<String>,
    /// The provider of rows of other systems that name none.
    #[arg(long)]
    provider: Option<String>,
    /// Leave out what began before: a date, a time (RFC 3339), or an age such as 7d.
    #[arg(long)]
    from: Option<String>,
    /// Leave out what began then or later, such as the time from which the sidecar meters itself.
    #[arg(long)]
    to: Option<String>,
    /// Time zone for dates of --from and --to (IANA name).
    #[arg(long)]
    tz: Option<String>,
    /// What rows without a cost are priced by; a running sidecar takes its own book.
    #[command(flatten)]
    book: BookArgs,
}

impl UsageArgs {
    fn words(&self) -> Words<'_> {
        Words {
            from_format: self.from_format.map(Format::name),
            team: self.team.as_deref(),
            workload: self.workload.as_deref(),
            provider: self.provider.as_deref(),
            from: self.from.as_deref(),
            to: self.to.as_deref(),
            tz: self.tz.as_deref(),
        }
    }
}

fn usage(args: &UsageArgs) -> anyhow::Result<ExitCode> {
    let mode = if args.import.dry_run { Mode::DryRun } else { Mode::Apply };
    let words = args.words();
    let mut asked = words.asked(SystemClock.now(), period::OPTIONS).map_err(|error| match error {
        WordsError::Time(error) => anyhow::Error::new(error),
        error => Fault::Usage(format!("--{error}")).into(),
    })?;
    let path = &args.import.file;
    asked.name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let ask = UsageAsk { words: &words, asked: &asked, book: &|| book(&args.book) };
    place::tell(&place::import_usage(&args.import.place, path, &ask, mode)?, mode)
}

/// Imports the file: all rows, or none.
pub(super) fn run(command: &ImportCommand) -> anyhow::Result<ExitCode> {
    let (what, args) = match command {
        ImportCommand::Usage(args) => return usage(args),
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
