//! `bursar hedge`: what hedges did to cost.
//!
//! Not here: the figures (`hedge::report`, `ledger::hedge`).

use super::TableFormat;
use super::grid::{self, Column, column, grouped, text};
use super::place::{self, PlaceArgs};
use crate::hedge::report::{self, Options};
use bursar_domain::{Clock, SystemClock};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum HedgeCommand {
    /// Effective and hedged cost by team, workload or any other key, with the residual and the balance.
    Report(ReportArgs),
}

/// For which time, and in which terms.
#[derive(Debug, Args)]
pub(crate) struct TermsArgs {
    /// First day [default: the first of the month].
    #[arg(long)]
    from: Option<String>,
    /// First day outside [default: the day after --on].
    #[arg(long)]
    to: Option<String>,
    /// Time zone of the days (IANA name such as Europe/Paris) [default: UTC].
    #[arg(long)]
    tz: Option<String>,
    /// Hedge unit of the book: Mtok (million tokens) or MSIT (weighted by quality profiles) [default: Mtok].
    #[arg(long)]
    unit: Option<String>,
    /// Reporting currency [default: USD].
    #[arg(long)]
    currency: Option<String>,
    /// Which cost is spot: list, contracted or billed [default: billed].
    #[arg(long)]
    spot: Option<String>,
    /// Value the book after this day; later days are not over [default: yesterday].
    #[arg(long)]
    on: Option<String>,
    /// With the fixings and rates that were known at this time [default: now].
    #[arg(long)]
    as_of: Option<String>,
}

impl TermsArgs {
    fn options(&self) -> Options {
        Options {
            from: self.from.clone(),
            to: self.to.clone(),
            tz: self.tz.clone(),
            unit: self.unit.clone(),
            currency: self.currency.clone(),
            spot: self.spot.clone(),
            on: self.on.clone(),
            as_of: self.as_of.clone(),
            ..Options::default()
        }
    }
}

/// `bursar hedge report`
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    terms: TermsArgs,
    /// Group by these keys: team, workload, model, provider, customer, tag:NAME, month …
    #[arg(long, default_value = "team")]
    by: String,
    /// Also say what the period would have cost with every cash contract at this part of its size.
    #[arg(long)]
    hedge_ratio: Option<String>,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Runs the command.
pub(super) fn run(command: &HedgeCommand) -> anyhow::Result<ExitCode> {
    match command {
        HedgeCommand::Report(args) => show_report(args),
    }
}

/// The options as a query.
fn query(options: &Options) -> String {
    place::query(&[
        ("from", options.from.as_deref()),
        ("to", options.to.as_deref()),
        ("tz", options.tz.as_deref()),
        ("by", options.by.as_deref()),
        ("unit", options.unit.as_deref()),
        ("currency", options.currency.as_deref()),
        ("spot", options.spot.as_deref()),
        ("on", options.on.as_deref()),
        ("as_of", options.as_of.as_deref()),
        ("hedge_ratio", options.hedge_ratio.as_deref()),
        ("forecast", options.forecast.as_deref()),
    ])
}

const PARTS: [(&str, &str); 7] = [
    ("Displaced", "hedge.displaced"),
    ("Contract", "hedge.contract"),
    ("Payoff", "hedge.payoff"),
    ("Premium", "hedge.premium"),
    ("Fees", "hedge.fees"),
    ("Unused", "hedge.unused"),
    ("FX", "hedge.fx"),
];

fn show_report(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let options =
        Options { by: Some(args.by.clone()), hedge_ratio: args.hedge_ratio.clone(), ..args.terms.options() };
    let path = format!("/api/v1/hedge/report{}", query(&options));
    let document =
        place::read(&args.place, &path, |source| report::document(source, &options, SystemClock.now()))?;
    let lines = lines(&document);
    let rows: Vec<&Value> = lines.iter().collect();
    let keys = grid::rows(&document, "by");
    let mut columns: Vec<Column> =
        keys.iter().map(|key| text(Some(key))).map(|key| column(&key, &key)).collect();
    columns.push(column("Spot", "cost.spot"));
    for (title, path) in PARTS {
        let path_parts: Vec<String> = path.split('.').map(str::to_owned).collect();
        let any = rows
            .iter()
            .any(|row| text(grid::value(row, &path_parts)).bytes().any(|byte| (b'1'..=b'9').contains(&byte)));
        // People see what there is; programs see every column.
        if any || args.format == TableFormat::Csv {
            columns.push(column(title, path));
        }
    }
    columns.push(column("Effective", "cost.effective"));
    columns.push(column("Hedged", "cost.hedged"));
    columns.push(column("Coverage", "coverage"));
    let mut out = std::io::stdout().lock();
    grid::write(&document, (&rows, &columns), args.format, &mut out)?;
    if args.format == TableFormat::Table {
        tell(&document, &mut out)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The rows, then the residual and the book.
fn lines(document: &Value) -> Vec<Value> {
    let mut lines: Vec<Value> = grid::rows(document, "rows").into_iter().cloned().collect();
    let first = text(grid::rows(document, "by").first().copied());
    for name in ["residual", "book"] {
        let mut line = document.get(name).cloned().unwrap_or(json!({}));
        if let Some(line) = line.as_object_mut() {
            line.insert(first.clone(), name.into());
        }
        lines.push(line);
    }
    lines
}

/// What stands below the table: the balance, coverage, and everything that is not in the figures.
fn tell(document: &Value, out: &mut dyn Write) -> anyhow::Result<()> {
    let at = |path: &str| {
        let parts: Vec<String> = path.split('.').map(str::to_owned).collect();
        text(grid::value(document, &parts))
    };
    let figure = |path: &str| grouped(&at(path));
    writeln!(
        out,
        "balance: rows {} + residual {} = book {} {} ({})",
        figure("balance.rows"),
        figure("balance.residual"),
        figure("balance.book"),
        at("currency"),
        if at("balance.balanced") == "true" { "checked for every column" } else { "DOES NOT BALANCE" },
    )?;
    writeln!(
        out,
        "coverage: {} of {} {} hedged; without any position {} {}",
        figure("coverage.covered"),
        figure("coverage.volume"),
        at("unit"),
        figure("without_hedge"),
        at("currency"),
    )?;
    if document.get("at_hedge_ratio").is_some() {
        writeln!(
            out,
            "at hedge ratio {}: {} {}",
            at("at_hedge_ratio.hedge_ratio"),
            figure("at_hedge_ratio.book_total"),
            at("currency")
        )?;
    }
    if at("provisional") == "true" {
        writeln!(out, "provisional: a settlement price is an average to {}", at("on"))?;
    }
    for position in grid::rows(document, "positions") {
        if position.get("covers_nothing").and_then(Value::as_bool) == Some(true) {
            writeln!(out, "position {} covers no usage of this period", text(position.get("position_id")))?;
        }
        if let Some(mark) = position.get("mark_to_market").filter(|mark| !mark.is_null()) {
            writeln!(
                out,
                "beside cost: position {} is marked at {} {}",
                text(position.get("position_id")),
                grouped(&text(mark.get("amount"))),
                text(mark.get("currency"))
            )?;
        }
    }
    let missing = grid::rows(document, "unpriced");
    for gap in &missing {
        let what = match text(gap.get("what")).as_str() {
            "usage" => format!("{} requests", text(gap.get("requests"))),
            what => format!("{what} {}", text(gap.get("id"))),
        };
        writeln!(out, "unpriced: {what}: {}", text(gap.get("reason")))?;
    }
    if !missing.is_empty() {
        writeln!(out, "the report is incomplete: what is listed as unpriced is not in the figures")?;
    }
    writeln!(out, "{} to {}, as of {}", at("period.from"), at("period.to"), at("as_of"))?;
    Ok(())
}
