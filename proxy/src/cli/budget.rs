//! `bursar budget` and `bursar why`: what the running sidecar knows of its budgets, and temporary changes of
//! their limits.
//!
//! Not here: the figures (`budgets`), what a change is (`overrides`).

use super::grid::{self, Column, column};
use super::place::{self, PlaceArgs};
use super::{AdminArgs, TableFormat, WhyArgs, source};
use crate::overrides::{self, Asked};
use crate::tasks;
use bursar_domain::{Clock, SystemClock};
use clap::{Args, Subcommand};
use comfy_table::{Cell, CellAlignment, Table, presets};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::io::Write;
use std::process::ExitCode;

/// `bursar budget`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BudgetArgs {
    #[command(subcommand)]
    command: Option<BudgetCommand>,
    #[command(flatten)]
    ask: AdminArgs,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
}

#[derive(Debug, Subcommand)]
enum BudgetCommand {
    /// Give a budget another limit for a time; it is in force at once, and in the ledger.
    Override(OverrideArgs),
    /// List temporary changes of budgets, also those that are over.
    Overrides(OverridesArgs),
    /// Take a temporary change back.
    Revoke(RevokeArgs),
}

/// `bursar budget override`
#[derive(Debug, Args)]
struct OverrideArgs {
    /// The budget's name.
    name: String,
    /// So much more than its limit, such as 500USD or 1000000tokens.
    #[arg(long, value_name = "AMOUNT", required_unless_present = "limit", conflicts_with = "limit")]
    add: Option<String>,
    /// So much in all.
    #[arg(long, value_name = "AMOUNT")]
    limit: Option<String>,
    /// Until when: a date (UTC), a time (RFC 3339), or 24h or 7d from now.
    #[arg(long, value_name = "TIME")]
    until: String,
    /// Why; it is kept in the ledger.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    place: PlaceArgs,
}

/// `bursar budget overrides`
#[derive(Debug, Args)]
struct OverridesArgs {
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
    #[command(flatten)]
    place: PlaceArgs,
}

/// `bursar budget revoke`
#[derive(Debug, Args)]
struct RevokeArgs {
    /// The override's id, from `bursar budget overrides`.
    id: String,
    /// Why; it is kept in the ledger.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Runs the command.
pub(super) fn run(args: &BudgetArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        None => list(args),
        Some(BudgetCommand::Override(args)) => make(args),
        Some(BudgetCommand::Overrides(args)) => list_overrides(args),
        Some(BudgetCommand::Revoke(args)) => revoke(args),
    }
}

fn make(args: &OverrideArgs) -> anyhow::Result<ExitCode> {
    let asked = Asked {
        budget: args.name.clone(),
        add: args.add.clone(),
        limit: args.limit.clone(),
        until: args.until.clone(),
        reason: args.reason.clone(),
    };
    let query = place::query(&[
        ("budget", Some(&asked.budget)),
        ("add", asked.add.as_deref()),
        ("limit", asked.limit.as_deref()),
        ("until", Some(&asked.until)),
        ("reason", Some(&asked.reason)),
    ]);
    let done = place::write(&args.place, &format!("/api/v1/budget-overrides{query}"), |ledger, _| {
        eprintln!(
            "bursar: no sidecar runs on this ledger: whether it has this budget is seen when one starts"
        );
        Ok(overrides::make(ledger, None, &asked, &SystemClock)?)
    })?;
    tell(&done)
}

fn revoke(args: &RevokeArgs) -> anyhow::Result<ExitCode> {
    let query = place::query(&[("reason", Some(&args.reason))]);
    let path = format!("/api/v1/budget-overrides/{}/revoke{query}", place::part(&args.id));
    let done = place::write(&args.place, &path, |ledger, _| {
        Ok(overrides::revoke(ledger, None, &args.id, &args.reason, &SystemClock)?)
    })?;
    tell(&done)
}

/// Says what a change is now.
fn tell(document: &Value) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    for one in grid::rows(document, "overrides") {
        let at = |name: &str| text(one.get(name));
        let change = match one.get("add").and_then(Value::as_str) {
            Some(more) => format!("{more} more"),
            None => format!("a limit of {}", at("limit")),
        };
        writeln!(
            out,
            "{}: the budget {} has {change} until {} ({})",
            at("id"),
            at("budget"),
            at("until"),
            at("state")
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn list_overrides(args: &OverridesArgs) -> anyhow::Result<ExitCode> {
    let document = place::read(&args.place, "/api/v1/budget-overrides", |source| {
        let all = bursar_ledger::overrides(&source.finance_facts()?).0;
        Ok(overrides::list(&all, None, SystemClock.now()))
    })?;
    let columns: Vec<Column> = [
        ("Id", "id"),
        ("Budget", "budget"),
        ("Add", "add"),
        ("Limit", "limit"),
        ("From", "from"),
        ("Until", "until"),
        ("State", "state"),
        ("Reason", "reason"),
    ]
    .map(|(title, path)| column(title, path))
    .into();
    let rows = grid::rows(&document, "overrides");
    grid::write(&document, (&rows, &columns), args.format, &mut std::io::stdout().lock())?;
    if rows.is_empty() {
        eprintln!("bursar: no budget was changed for a time");
    }
    Ok(ExitCode::SUCCESS)
}

const COLUMNS: [(&str, &str); 14] = [
    ("Budget", "budget"),
    ("Contract", "contract"),
    ("State", "contract_state"),
    ("Mode", "mode"),
    ("Window", "window"),
    ("Unit", "unit"),
    ("Limit", "limit"),
    ("Configured", "configured_limit"),
    ("Spent", "spent"),
    ("Estimated", "estimated"),
    ("Reserved", "reserved"),
    ("Left", "left"),
    ("Ends", "window_end"),
    ("Runs out", "run_out_at"),
];

/// Prints all budgets.
fn list(args: &BudgetArgs) -> anyhow::Result<ExitCode> {
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
                    let is_figure = matches!(
                        name,
                        "limit" | "configured_limit" | "spent" | "estimated" | "reserved" | "left"
                    );
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
    local.block_on(&tasks::runtime()?, client.document(path))
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "–".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
