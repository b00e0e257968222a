//! `bursar revenue`: events that say what was earned.
//!
//! Not here: what an event may say (`policies::attribution`), files (`hedge::rows`).

use super::TableFormat;
use super::grid::{self, Column, column};
use super::import::{self, ImportArgs};
use super::place::{self, PlaceArgs};
use crate::hedge::import::What;
use crate::roi::events::{self, ListOptions};
use bursar_domain::{Clock, SystemClock};
use clap::{Args, Subcommand};
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
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
    #[command(flatten)]
    place: PlaceArgs,
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
    let options = ListOptions {
        from: args.from.clone(),
        to: args.to.clone(),
        tz: args.tz.clone(),
        kind: args.kind.clone(),
    };
    let query = place::query(&[
        ("from", options.from.as_deref()),
        ("to", options.to.as_deref()),
        ("tz", options.tz.as_deref()),
        ("kind", options.kind.as_deref()),
    ]);
    let path = format!("/api/v1/revenue-events{query}");
    let document =
        place::read(&args.place, &path, |source| events::list(source, &options, SystemClock.now()))?;
    let rows = grid::rows(&document, "rows");
    let shown = |path: &str| rows.iter().any(|row| row.get(path).is_some());
    let all = args.format == TableFormat::Csv;
    let columns: Vec<Column> = COLUMNS
        .iter()
        .filter(|(_, path)| all || shown(path))
        .map(|(title, path)| column(title, path))
        .collect();
    grid::write(&document, (&rows, &columns), args.format, &mut std::io::stdout().lock())?;
    let of = grid::text(document.get("of"));
    if of != rows.len().to_string() {
        eprintln!("bursar: the first {} of {of} events; narrow the time for the others", rows.len());
    }
    Ok(ExitCode::SUCCESS)
}
