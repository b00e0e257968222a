//! `bursar market`: fixings, exchange rates, indices, calendars and conversion profiles.
//!
//! Not here: their rules (`policies::hedge::market`), files (`hedge::rows`).

use super::TableFormat;
use super::grid::{self, Column, column};
use super::import::{self, ImportArgs};
use super::place::{self, PlaceArgs};
use crate::hedge::documents;
use crate::hedge::import::{File, What};
use bursar_ledger::hedge::Mode;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum MarketCommand {
    /// Import market data of any kind from one file.
    Import(ImportArgs),
    /// Declare an index: its currency, the calendar on which it is fixed, and its end.
    Index(IndexArgs),
    /// List what was entered, with restatements.
    List(ListArgs),
    /// Show one index, pair, calendar or profile.
    Show(ShowArgs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MarketList {
    /// Fixings of indices.
    Fixings,
    /// Exchange rates.
    Fx,
    /// Indices.
    Indices,
    /// Calendars.
    Calendars,
    /// Conversion profiles.
    Profiles,
}

impl MarketList {
    const fn name(self) -> &'static str {
        match self {
            Self::Fixings => "fixings",
            Self::Fx => "fx",
            Self::Indices => "indices",
            Self::Calendars => "calendars",
            Self::Profiles => "profiles",
        }
    }

    fn columns(self) -> Vec<Column> {
        let own: &[(&str, &str)] = match self {
            Self::Fixings => &[
                ("Index", "index"),
                ("Version", "version"),
                ("Date", "date"),
                ("Value", "value"),
                ("Currency", "currency"),
                ("Source", "source"),
            ],
            Self::Fx => &[("Pair", "pair"), ("Date", "date"), ("Rate", "rate"), ("Source", "source")],
            Self::Indices => &[
                ("Index", "index"),
                ("Version", "version"),
                ("Currency", "currency"),
                ("Calendar", "calendar"),
                ("Last", "last"),
            ],
            Self::Calendars => {
                &[("Calendar", "calendar"), ("Weekends", "weekends"), ("Holidays", "holidays")]
            }
            Self::Profiles => &[
                ("Profile", "profile"),
                ("From", "from"),
                ("Tokens/s", "tokens_per_second"),
                ("Utilisation", "utilisation"),
                ("Tokens/min", "tokens_per_minute"),
                ("Score", "score"),
                ("Reference", "reference"),
                ("Model", "model"),
                ("Source", "source"),
            ],
        };
        let about = [("Change", "change"), ("Known at", "known_at"), ("Sequence", "sequence")];
        own.iter().chain(&about).map(|(title, path)| column(title, path)).collect()
    }
}

/// `bursar market index`
#[derive(Debug, Args)]
pub(crate) struct IndexArgs {
    /// Its name.
    name: String,
    /// Currency of its values.
    #[arg(long)]
    currency: String,
    /// Version of its method [default: 1].
    #[arg(long)]
    version: Option<u32>,
    /// When it is fixed: weekdays, daily, or an imported calendar [default: weekdays].
    #[arg(long)]
    calendar: Option<String>,
    /// The last day on which it is published.
    #[arg(long)]
    last: Option<String>,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

/// `bursar market list`
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Which list.
    #[arg(value_enum, default_value_t = MarketList::Fixings)]
    list: MarketList,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
    #[command(flatten)]
    place: PlaceArgs,
}

/// `bursar market show`
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Which list it is in.
    #[arg(value_enum)]
    list: MarketList,
    /// Its name: of the index, pair, calendar or profile.
    name: String,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Runs the command.
pub(super) fn run(command: &MarketCommand) -> anyhow::Result<ExitCode> {
    match command {
        MarketCommand::Import(args) => import::import(What::Market, args),
        MarketCommand::Index(args) => declare(args),
        MarketCommand::List(args) => list(args.list, None, args.format, &args.place),
        MarketCommand::Show(args) => list(args.list, Some(&args.name), args.format, &args.place),
    }
}

fn declare(args: &IndexArgs) -> anyhow::Result<ExitCode> {
    let mut fields = json!({ "index": args.name, "currency": args.currency });
    let given = [
        ("version", args.version.map(serde_json::Value::from)),
        ("calendar", args.calendar.clone().map(Into::into)),
        ("last", args.last.clone().map(Into::into)),
    ];
    for (name, value) in given {
        if let (Some(value), Some(fields)) = (value, fields.as_object_mut()) {
            fields.insert(name.to_owned(), value);
        }
    }
    let mode = if args.dry_run { Mode::DryRun } else { Mode::Apply };
    let file = File { what: What::Indices, name: None, text: fields.to_string() };
    place::tell(&place::import_file(&args.place, file, mode)?, mode)
}

fn list(
    list: MarketList,
    pick: Option<&str>,
    format: TableFormat,
    place: &PlaceArgs,
) -> anyhow::Result<ExitCode> {
    let path = format!("/api/v1/market/{}{}", list.name(), place::query(&[("name", pick)]));
    let document = place::read(place, &path, |source| documents::market(source, list.name(), pick))?;
    let rows = grid::rows(&document, "rows");
    grid::write(&document, (&rows, &list.columns()), format, &mut std::io::stdout().lock())?;
    if rows.is_empty() {
        eprintln!("bursar: nothing of this was entered");
    }
    Ok(ExitCode::SUCCESS)
}
