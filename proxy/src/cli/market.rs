//! `bursar market`: fixings, exchange rates, indices, calendars and conversion profiles.
//!
//! Not here: their rules (`policies::hedge::market`), files (`hedge::rows`).

use super::TableFormat;
use super::grid::{self, Column, column, text};
use super::import::{self, ImportArgs};
use super::place::{self, PlaceArgs};
use crate::hedge::import::{File, What};
use crate::hedge::{compose, documents};
use bursar_domain::{Clock, SystemClock};
use bursar_ledger::hedge::Mode;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum MarketCommand {
    /// Import market data of any kind from one file.
    Import(ImportArgs),
    /// Declare an index: its currency, the calendar on which it is fixed, and its end.
    // Its `--version`, which was there first, is the index's.
    #[command(disable_version_flag = true)]
    Index(IndexArgs),
    /// Make a token price index from volumes, your own or a file's: weighted by volume, capped per provider.
    Compose(ComposeArgs),
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
                ("Method", "method"),
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
    #[arg(long, alias = "version")]
    index_version: Option<u32>,
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

/// `bursar market compose`
#[derive(Debug, Args)]
pub(crate) struct ComposeArgs {
    /// Name of the index.
    name: String,
    /// Currency of its values.
    #[arg(long)]
    currency: String,
    /// First day of values.
    #[arg(long)]
    from: String,
    /// First day outside; days that are not over get no value.
    #[arg(long)]
    to: String,
    /// Version of its method [default: 1].
    #[arg(long)]
    index_version: Option<u32>,
    /// Volumes instead of the ledger's own usage: rows of date, provider (or model), volume, and price or
    /// cost, in JSON or CSV; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    volumes: Option<PathBuf>,
    /// What constituents are: provider or model [default: provider].
    #[arg(long)]
    by: Option<String>,
    /// Largest weight of one of them, in percent [default: 30].
    #[arg(long)]
    cap: Option<String>,
    /// Days of usage in a value, up to and including its day [default: 30].
    #[arg(long)]
    days: Option<u32>,
    /// Decimals of a value [default: 6].
    #[arg(long)]
    places: Option<u32>,
    /// Of own usage: Mtok, or MSIT by quality profiles [default: Mtok].
    #[arg(long)]
    unit: Option<String>,
    /// Of own usage: list, contracted or billed [default: billed].
    #[arg(long)]
    spot: Option<String>,
    /// When it is fixed, where it is new: weekdays, daily, or an imported calendar [default: weekdays].
    #[arg(long)]
    calendar: Option<String>,
    /// Write the values as fixings, with what each is made of. Without this nothing is written.
    #[arg(long)]
    apply: bool,
    /// Form of the answer; CSV is the values.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
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
        MarketCommand::Compose(args) => make(args),
        MarketCommand::List(args) => list(args.list, None, args.format, &args.place),
        MarketCommand::Show(args) => list(args.list, Some(&args.name), args.format, &args.place),
    }
}

fn declare(args: &IndexArgs) -> anyhow::Result<ExitCode> {
    let mut fields = json!({ "index": args.name, "currency": args.currency });
    let given = [
        ("version", args.index_version.map(serde_json::Value::from)),
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

fn make(args: &ComposeArgs) -> anyhow::Result<ExitCode> {
    let options = compose::Options {
        currency: Some(args.currency.clone()),
        from: Some(args.from.clone()),
        to: Some(args.to.clone()),
        version: args.index_version,
        by: args.by.clone(),
        cap: args.cap.clone(),
        days: args.days,
        places: args.places,
        unit: args.unit.clone(),
        spot: args.spot.clone(),
        calendar: args.calendar.clone(),
    };
    let number = |value: Option<u32>| value.map(|value| value.to_string());
    let (version, days, places) = (number(options.version), number(options.days), number(options.places));
    let query = place::query(&[
        ("currency", options.currency.as_deref()),
        ("from", options.from.as_deref()),
        ("to", options.to.as_deref()),
        ("version", version.as_deref()),
        ("by", options.by.as_deref()),
        ("cap", options.cap.as_deref()),
        ("days", days.as_deref()),
        ("places", places.as_deref()),
        ("unit", options.unit.as_deref()),
        ("spot", options.spot.as_deref()),
        ("calendar", options.calendar.as_deref()),
    ]);
    let path = format!("/api/v1/market/compose/{}{query}", place::part(&args.name));
    let file = args.volumes.as_deref().map(|path| place::file(What::Market, path)).transpose()?;
    let body = file.as_ref().map(|file| bytes::Bytes::from(file.text.clone()));
    let document = place::read_with(&args.place, &path, body, |source| {
        let text = file.as_ref().map(|file| file.text.as_str());
        compose::document(source, (&args.name, &options), text, SystemClock.now())
    })?;
    let errors = grid::rows(&document, "errors");
    for error in &errors {
        eprintln!("line {}: {}", text(error.get("line")), text(error.get("problem")));
    }
    if !errors.is_empty() {
        eprintln!("bursar: {} bad rows; no value was made", errors.len());
        return Ok(ExitCode::from(3));
    }
    let columns = [
        column("Date", "date"),
        column("Value", "value"),
        column("Usage since", "since"),
        column("Constituents", "constituents"),
        column("Capped", "capped"),
    ];
    let rows = grid::rows(&document, "rows");
    let mut out = std::io::stdout().lock();
    grid::write(&document, (&rows, &columns), args.format, &mut out)?;
    if args.format == TableFormat::Table {
        tell_composed(&document, &mut out)?;
    }
    drop(out);
    if rows.is_empty() {
        eprintln!("bursar: no day has a value: nothing was used in the days asked for");
        return Ok(ExitCode::SUCCESS);
    }
    let mode = if args.apply { Mode::Apply } else { Mode::DryRun };
    let entries: Vec<String> = grid::rows(&document, "entries").iter().map(ToString::to_string).collect();
    let name = Some(format!("composed {}", args.name));
    let imported =
        place::import_file(&args.place, File { what: What::Market, name, text: entries.join("\n") }, mode)?;
    if args.format == TableFormat::Table {
        let code = place::tell(&imported, mode)?;
        if mode == Mode::DryRun {
            println!("--apply writes these fixings");
        }
        return Ok(code);
    }
    // What was asked for is on standard output already.
    let errors = grid::rows(&imported, "errors");
    for error in &errors {
        eprintln!("bursar: {}", text(error.get("problem")));
    }
    Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

/// What the last value is made of, and what is not in any.
fn tell_composed(document: &Value, out: &mut dyn Write) -> anyhow::Result<()> {
    if let Some(last) = grid::rows(document, "rows").last() {
        writeln!(out, "made of, on {}:", text(last.get("date")))?;
        let columns = [
            column("Constituent", "name"),
            column("Volume", "volume"),
            column("Price", "price"),
            column("Weight", "weight"),
            column("Capped", "capped"),
        ];
        writeln!(out, "{}", grid::table(&grid::rows(last, "parts"), &columns))?;
    }
    for gap in grid::rows(document, "left_out") {
        writeln!(out, "left out: {} requests {}", text(gap.get("requests")), text(gap.get("reason")))?;
    }
    for day in grid::rows(document, "skipped") {
        writeln!(out, "no value on {}: {}", text(day.get("date")), text(day.get("reason")))?;
    }
    writeln!(out, "method: {}", text(document.get("method")))?;
    Ok(())
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
