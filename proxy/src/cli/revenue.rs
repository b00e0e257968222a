//! `bursar revenue`: events that say what was earned.
//!
//! Invariants
//! - A table and a JSON document are bounded and say what they leave out; CSV, JSON Lines and Parquet have all.
//!
//! Not here: what an event may say (`policies::attribution`), files (`hedge::rows`).

use super::TableFormat;
use super::grid::{self, Column, column};
use super::import::{self, ImportArgs};
use super::place::{self, PlaceArgs};
use super::source::Source;
use super::whole;
use crate::hedge::import::What;
use crate::roi::events::{self, EventsAs, ListOptions};
use anyhow::bail;
use bursar_domain::{Clock, SystemClock};
use bursar_ledger::export::TableFormat as TypedFormat;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum RevenueCommand {
    /// Import events: id, amount, currency, time; source, kind, refers_to; request_id, trace_id, session,
    /// customer, workload or tag to match them by.
    Import(ImportArgs),
    /// List the events that are there.
    List(ListArgs),
}

/// `bursar revenue list`
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Start, inclusive: a date, a time (RFC 3339), or an age such as 24h or 7d.
    #[arg(long)]
    from: Option<String>,
    /// End, exclusive; written like --from.
    #[arg(long)]
    to: Option<String>,
    /// Time zone of dates (IANA name such as Europe/Paris) [default: UTC].
    #[arg(long)]
    tz: Option<String>,
    /// Only events of this kind: revenue, saving, refund, chargeback or adjustment.
    #[arg(long)]
    kind: Option<String>,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = ListFormat::Table)]
    format: ListFormat,
    /// With CSV, JSON Lines and Parquet: the file to write; it appears only when complete, with its checksum
    /// beside it (FILE.sha256). Without it, standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ListFormat {
    /// Columns for people, at most 10,000 events.
    Table,
    /// One JSON document, at most 10,000 events.
    Json,
    /// Comma-separated values with a header line: every event.
    Csv,
    /// One JSON object per line: every event.
    Jsonl,
    /// Parquet, typed columns and exact decimals, compressed with zstd: every event.
    Parquet,
}

impl ListFormat {
    /// How every event is written, and what the admin API calls it; `None` for a list.
    const fn export(self) -> Option<(EventsAs, &'static str)> {
        match self {
            Self::Table | Self::Json => None,
            Self::Csv => Some((EventsAs::Table(TypedFormat::Csv), "csv")),
            Self::Jsonl => Some((EventsAs::Jsonl, "jsonl")),
            Self::Parquet => Some((EventsAs::Table(TypedFormat::PARQUET), "parquet")),
        }
    }
}

const COLUMNS: [(&str, &str); 15] = [
    ("Time", "time"),
    ("Source", "source"),
    ("Id", "id"),
    ("Kind", "kind"),
    ("Amount", "amount"),
    ("Currency", "currency"),
    ("Refers to", "refers_to"),
    ("Request", "request_id"),
    ("Trace", "trace_id"),
    ("Session", "session"),
    ("Customer", "customer"),
    ("Workload", "workload"),
    ("Tag", "tag"),
    ("Received", "received_at"),
    ("Sequence", "sequence"),
];

/// Runs the command.
pub(super) fn run(command: &RevenueCommand) -> anyhow::Result<ExitCode> {
    match command {
        RevenueCommand::Import(args) => import::import(What::Revenue, args),
        RevenueCommand::List(args) => list(args),
    }
}

fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let export = args.format.export();
    let options = ListOptions {
        from: args.from.clone(),
        to: args.to.clone(),
        tz: args.tz.clone(),
        kind: args.kind.clone(),
        format: export.map(|(_, name)| name.to_owned()),
    };
    let query = place::query(&[
        ("from", options.from.as_deref()),
        ("to", options.to.as_deref()),
        ("tz", options.tz.as_deref()),
        ("kind", options.kind.as_deref()),
        ("format", options.format.as_deref()),
    ]);
    let path = format!("/api/v1/revenue-events{query}");
    if let Some((format, _)) = export {
        let binary = args.format == ListFormat::Parquet;
        return whole::export(args.output.as_deref(), binary, |out, progress| {
            write(&args.place, &path, (&options, format), &mut progress.of_bytes(out))
        });
    }
    if args.output.is_some() {
        bail!("--output is for exports: add --format csv, jsonl or parquet");
    }
    let mut document = place::read(&args.place, &path, |source| {
        events::list(source, (&options, events::LISTED_MAX), SystemClock.now())
    })?;
    if let Some(Value::Array(rows)) = document.get_mut("rows") {
        rows.truncate(events::LISTED_MAX);
        let shown = rows.len();
        if let Some(told) = document.get_mut("shown") {
            *told = shown.into();
        }
    }
    let rows = grid::rows(&document, "rows");
    let shown = |path: &str| rows.iter().any(|row| row.get(path).is_some());
    let columns: Vec<Column> =
        COLUMNS.iter().filter(|(_, path)| shown(path)).map(|(title, path)| column(title, path)).collect();
    let format = if args.format == ListFormat::Json { TableFormat::Json } else { TableFormat::Table };
    grid::write(&document, (&rows, &columns), format, &mut std::io::stdout().lock())?;
    let of = grid::text(document.get("of"));
    if of != rows.len().to_string() {
        eprintln!(
            "bursar: the first {} of {of} events; narrow the time, or export all with --format csv",
            rows.len()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes every event that is asked for.
fn write(
    place: &PlaceArgs,
    path: &str,
    (options, format): (&ListOptions, EventsAs),
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let local = tokio::task::LocalSet::new();
    local.block_on(&crate::tasks::runtime()?, async {
        match place::source(place).await? {
            Source::Running(client) => client.get(path, out).await,
            Source::Offline(ledger) => {
                events::write(ledger.as_ref(), options, format, SystemClock.now(), out)?;
                Ok(())
            }
        }
    })
}
