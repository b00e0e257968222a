//! `bursar price`: what things cost, where a price comes from, and what past usage would have cost.
//!
//! Invariants
//! - Nothing here changes a ledger, a book or a configuration; `import` writes one new file.
//!
//! Not here: what is told (`crate::prices`), which price holds (`bursar_policies::price`), which overlay is in force (`cli::serve`).

mod diff;
mod import;
mod list;
mod replay;

use super::fault::Fault;
use super::{ReadArgs, TableFormat, environment, serve};
use crate::config::{OverlayFormat, Overrides};
use crate::period::{self, Names};
use crate::prices::pick::Wanted;
use anyhow::Context;
use bursar_domain::{Clock, SystemClock, Timestamp};
use bursar_policies::price::PriceBook;
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum PriceCommand {
    /// List the prices that hold at a time.
    List(ListArgs),
    /// Show every row about one model: tiers, regions, hours, dates, sources.
    Show(ShowArgs),
    /// Compare two books, or one book at two times.
    Diff(DiffArgs),
    /// Price recorded usage under another book and compare the totals. The ledger stays as it is.
    Replay(ReplayArgs),
    /// Turn LiteLLM's or models.dev's price file into an overlay file.
    Import(ImportArgs),
}

/// Which prices.
#[derive(Debug, Args)]
pub(crate) struct BookArgs {
    /// Overlay file over the built-in book: our own rows, LiteLLM's map or models.dev's catalogue.
    #[arg(long)]
    overlay: Option<PathBuf>,
    /// Use the overlay that this configuration names [env: BURSAR_CONFIG].
    #[arg(long, short, conflicts_with = "overlay")]
    config: Option<PathBuf>,
}

/// Which models, and when.
#[derive(Debug, Args)]
pub(crate) struct PickArgs {
    /// Only this provider.
    #[arg(long)]
    provider: Option<String>,
    /// Only the model of this name, in any form that a call may use; `*` stands for any text. Where no
    /// model bears the name, those whose names begin with it, up to 20.
    #[arg(long)]
    model: Option<String>,
    /// The time: a date, a time (RFC 3339), or an age such as 30d [default: now].
    #[arg(long)]
    at: Option<String>,
}

impl PickArgs {
    fn wanted(&self) -> Wanted<'_> {
        Wanted { provider: self.provider.as_deref(), model: self.model.as_deref() }
    }
}

/// `bursar price list`
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    book: BookArgs,
    #[command(flatten)]
    pick: PickArgs,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
}

/// `bursar price show`
#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub(crate) struct ShowArgs {
    /// Provider, as in records; may be left out where only one has the model.
    provider: Option<String>,
    /// Model, in any form that a call may name it.
    model: String,
    #[command(flatten)]
    book: BookArgs,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
}

/// `bursar price diff`
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// What to compare with: `builtin`, or an overlay file.
    #[arg(default_value = "builtin")]
    before: String,
    /// What to compare: `builtin`, or an overlay file.
    #[arg(default_value = "builtin")]
    after: String,
    /// The time of the first book, written like --at [default: --at].
    #[arg(long)]
    before_at: Option<String>,
    #[command(flatten)]
    pick: PickArgs,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
}

/// `bursar price replay`
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    book: BookArgs,
    /// Prices of this time for all records, instead of those of each record's own time.
    #[arg(long)]
    at: Option<String>,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
}

/// `bursar price import`
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The price file of another tool.
    file: PathBuf,
    /// How it is written [default: as its content says].
    #[arg(long, value_parser = ["auto", "litellm", "models.dev"], default_value = "auto")]
    format: String,
    /// Overlay file to write. Without it nothing is written, and what would be is said.
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// Name of the source, kept with every row [default: the file's name].
    #[arg(long)]
    source: Option<String>,
}

/// Runs one of the commands.
pub(super) fn run(command: &PriceCommand) -> anyhow::Result<ExitCode> {
    match command {
        PriceCommand::List(args) => list::list(args),
        PriceCommand::Show(args) => list::show(args),
        PriceCommand::Diff(args) => diff::run(args),
        PriceCommand::Replay(args) => replay::run(args),
        PriceCommand::Import(args) => import::run(args),
    }
}

/// The built-in book with the overlay that was asked for.
pub(super) fn book(args: &BookArgs) -> anyhow::Result<PriceBook> {
    if let Some(path) = &args.overlay {
        return book_with(path);
    }
    match args.config.clone().or_else(|| environment::variable("BURSAR_CONFIG").map(PathBuf::from)) {
        None => builtin(),
        Some(path) => {
            let config = serve::load_config(Some(&path), Overrides::default()).map_err(Fault::from)?;
            serve::load_prices(&config)
        }
    }
}

fn builtin() -> anyhow::Result<PriceBook> {
    PriceBook::builtin().context("the built-in price book is damaged: this is a defect")
}

fn book_with(overlay: &Path) -> anyhow::Result<PriceBook> {
    serve::overlaid(&builtin()?, overlay, OverlayFormat::Auto).with_context(|| overlay.display().to_string())
}

/// The time that `option` asked for; now when it did not.
fn instant(text: Option<&str>, option: &'static str) -> anyhow::Result<Timestamp> {
    let now = SystemClock.now();
    // Read like the start of a period.
    let names = Names { from: option, ..period::OPTIONS };
    let period = period::parse(text, None, "UTC", now, names)?;
    Ok(period.from.unwrap_or(now))
}

/// A table for people, or CSV.
fn write_rows(
    format: TableFormat,
    titles: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    if format == TableFormat::Csv {
        let mut csv = csv::Writer::from_writer(out);
        csv.write_record(titles)?;
        for row in rows {
            // Text that a spreadsheet would take for a formula gets an apostrophe.
            csv.write_record(
                row.iter().map(|cell| bursar_ledger::export::cell_text(Some(cell)).into_owned()),
            )?;
        }
        csv.flush()?;
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(titles.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    writeln!(out, "{table}")?;
    Ok(())
}
