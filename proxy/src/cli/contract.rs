//! `bursar contract`: positions and what happens to them.
//!
//! Not here: their rules (`policies::hedge`), what they do to cost (`cli::hedge`).

use super::TableFormat;
use super::grid::{self, column};
use super::place::{self, PlaceArgs};
use crate::hedge::import::{File, What};
use crate::hedge::report::Options;
use crate::hedge::rows;
use crate::hedge::{documents, exact_json};
use anyhow::{Context, anyhow, bail};
use bursar_domain::{Clock, SystemClock};
use bursar_ledger::hedge::Mode;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum ContractCommand {
    /// Enter a position, or a new version of one.
    Add(AddArgs),
    /// List the positions in force.
    List(ListArgs),
    /// Show a position: its terms, versions and events, and what is left of it.
    Show(ShowArgs),
    /// List the presets, what each fixes and what is to be filled in.
    Presets(PresetsArgs),
    /// Record a fixing that the counterparty sent, as evidence.
    Fix(FixArgs),
    /// Record the settlement of a month.
    Settle(SettleArgs),
    /// Close a position, or a part of it, before its end.
    Close(CloseArgs),
    /// Record that a position is rolled into another one, with its fee; close the old one and add the new.
    Roll(RollArgs),
    /// Withdraw a position.
    Cancel(CancelArgs),
}

/// `bursar contract add`
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Fields as KEY=VALUE, such as `quantity=36000 designation.teams=a;b`; names as in the guide.
    #[arg(value_name = "KEY=VALUE")]
    fields: Vec<String>,
    /// Name of the position.
    #[arg(long)]
    id: Option<String>,
    /// Begin with this preset; see `bursar contract presets`.
    #[arg(long)]
    preset: Option<String>,
    /// Begin with the JSON object in this file.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Check it and say what would be done, and write nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

/// `bursar contract list`
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Status on this day [default: yesterday].
    #[arg(long)]
    on: Option<String>,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
    #[command(flatten)]
    place: PlaceArgs,
}

/// `bursar contract show`
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The position.
    id: String,
    /// What is left after this day [default: yesterday].
    #[arg(long)]
    on: Option<String>,
    /// Hedge unit in which what is left of units is counted: Mtok or MSIT.
    #[arg(long)]
    unit: Option<String>,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
    #[command(flatten)]
    place: PlaceArgs,
}

/// `bursar contract presets`
#[derive(Debug, Args)]
pub(crate) struct PresetsArgs {
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
}

/// What every event has.
#[derive(Debug, Args)]
pub(crate) struct EventArgs {
    /// The position.
    id: String,
    /// The day on which it counts.
    #[arg(long)]
    date: String,
    /// Name of the event [default: what happened and its day or month].
    #[arg(long)]
    event_id: Option<String>,
    /// Check it and say what would be done, and write nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

/// `bursar contract fix`
#[derive(Debug, Args)]
pub(crate) struct FixArgs {
    #[command(flatten)]
    event: EventArgs,
    /// The fixing.
    #[arg(long, allow_hyphen_values = true)]
    value: String,
}

/// `bursar contract settle`
#[derive(Debug, Args)]
pub(crate) struct SettleArgs {
    #[command(flatten)]
    event: EventArgs,
    /// The month, such as 2026-09.
    #[arg(long)]
    month: String,
    /// Received, or paid when below zero.
    #[arg(long, allow_hyphen_values = true)]
    amount: String,
    /// Its currency [default: the position's settlement currency].
    #[arg(long)]
    currency: Option<String>,
}

/// `bursar contract close`
#[derive(Debug, Args)]
pub(crate) struct CloseArgs {
    #[command(flatten)]
    event: EventArgs,
    /// Price of the closing trade per unit; of an option, its premium.
    #[arg(long, allow_hyphen_values = true)]
    price: String,
    /// The part that is closed, above 0 and at most 1 [default: 1].
    #[arg(long, allow_hyphen_values = true)]
    part: Option<String>,
    /// Whether the hedged purchases still come: expected or gone [default: expected].
    #[arg(long)]
    purchases: Option<String>,
}

/// `bursar contract roll`
#[derive(Debug, Args)]
pub(crate) struct RollArgs {
    #[command(flatten)]
    event: EventArgs,
    /// The position it is rolled into.
    #[arg(long)]
    into: String,
}

/// `bursar contract cancel`
#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    event: EventArgs,
}

/// Runs the command.
pub(super) fn run(command: &ContractCommand) -> anyhow::Result<ExitCode> {
    match command {
        ContractCommand::Add(args) => add(args),
        ContractCommand::List(args) => list(args),
        ContractCommand::Show(args) => show(args),
        ContractCommand::Presets(args) => presets(args),
        ContractCommand::Fix(args) => event(&args.event, "fix", &[("value", Some(&args.value))]),
        ContractCommand::Settle(args) => event(
            &args.event,
            "settle",
            &[
                ("month", Some(&args.month)),
                ("amount", Some(&args.amount)),
                ("currency", args.currency.as_ref()),
            ],
        ),
        ContractCommand::Close(args) => event(
            &args.event,
            "close",
            &[
                ("price", Some(&args.price)),
                ("part", args.part.as_ref()),
                ("purchases", args.purchases.as_ref()),
            ],
        ),
        ContractCommand::Roll(args) => event(&args.event, "roll", &[("into", Some(&args.into))]),
        ContractCommand::Cancel(args) => event(&args.event, "cancel", &[]),
    }
}

fn add(args: &AddArgs) -> anyhow::Result<ExitCode> {
    let mut fields = match &args.file {
        None => Map::new(),
        Some(path) => {
            let file = place::file(What::Contracts, path)?;
            match exact_json::read(&file.text) {
                Ok(Value::Object(fields)) => fields,
                Ok(_) => bail!("{} is no JSON object", path.display()),
                Err(error) => {
                    return Err(error).with_context(|| format!("{} is no JSON object", path.display()));
                }
            }
        }
    };
    let given = [("position_id", &args.id), ("preset", &args.preset)];
    for (name, value) in given {
        if let Some(value) = value {
            fields.insert(name.to_owned(), value.as_str().into());
        }
    }
    for pair in &args.fields {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| anyhow!("{pair:?} is no field: write KEY=VALUE"))?;
        let value = rows::cell_value(name, value).map_err(anyhow::Error::msg)?;
        rows::set(&mut fields, name, value).map_err(anyhow::Error::msg)?;
    }
    enter(What::Contracts, fields, args.dry_run, &args.place)
}

fn event(args: &EventArgs, what: &str, own: &[(&str, Option<&String>)]) -> anyhow::Result<ExitCode> {
    let mut fields = Map::new();
    let (id, date) = (args.id.as_str(), args.date.as_str());
    for (name, value) in [
        ("position_id", Some(id)),
        ("event", Some(what)),
        ("date", Some(date)),
        ("event_id", args.event_id.as_deref()),
    ] {
        if let Some(value) = value {
            fields.insert(name.to_owned(), value.into());
        }
    }
    for (name, value) in own {
        if let Some(value) = value {
            fields.insert((*name).to_owned(), value.as_str().into());
        }
    }
    enter(What::Events, fields, args.dry_run, &args.place)
}

/// Enters one row.
fn enter(
    what: What,
    fields: Map<String, Value>,
    dry_run: bool,
    place: &PlaceArgs,
) -> anyhow::Result<ExitCode> {
    let mode = if dry_run { Mode::DryRun } else { Mode::Apply };
    let file = File { what, name: None, text: Value::Object(fields).to_string() };
    place::tell(&place::import_file(place, file, mode)?, mode)
}

fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let path = format!("/api/v1/contracts{}", place::query(&[("on", args.on.as_deref())]));
    let options = Options { on: args.on.clone(), ..Options::default() };
    let document =
        place::read(&args.place, &path, |source| documents::contracts(source, &options, SystemClock.now()))?;
    let columns = [
        column("Position", "position_id"),
        column("Version", "version"),
        column("Kind", "kind"),
        column("Status", "status"),
        column("Quantity", "quantity"),
        column("Unit", "unit"),
        column("Price", "fixed_price"),
        column("Currency", "price_currency"),
        column("Index", "index"),
        column("From", "effective_from"),
        column("Until", "effective_until"),
        column("Designated", "designated"),
    ];
    let rows = grid::rows(&document, "rows");
    grid::write(&document, (&rows, &columns), args.format, &mut std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

fn show(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let query = place::query(&[("on", args.on.as_deref()), ("unit", args.unit.as_deref())]);
    let path = format!("/api/v1/contracts/{}{query}", place::part(&args.id));
    let options = Options { on: args.on.clone(), unit: args.unit.clone(), ..Options::default() };
    let document = place::read(&args.place, &path, |source| {
        documents::contract(source, &args.id, &options, SystemClock.now())
    })?;
    let mut out = std::io::stdout().lock();
    if args.format != TableFormat::Table {
        let flat = [json!({ "document": document })];
        let columns = [
            column("Position", "document.position_id"),
            column("Status", "document.status"),
            column("Left", "document.remaining.left"),
        ];
        return grid::write(&document, (&flat.iter().collect::<Vec<_>>(), &columns), args.format, &mut out)
            .map(|()| ExitCode::SUCCESS);
    }
    for (name, value) in document.as_object().into_iter().flatten() {
        match value {
            Value::Array(_) | Value::Object(_) | Value::Null => {}
            value => writeln!(out, "{name}: {}", grid::text(Some(value)))?,
        }
    }
    for (name, value) in document.get("remaining").and_then(Value::as_object).into_iter().flatten() {
        writeln!(out, "remaining.{name}: {}", grid::text(Some(value)))?;
    }
    for (title, list) in [("versions", "versions"), ("events", "events")] {
        for row in grid::rows(&document, list) {
            writeln!(
                out,
                "{title} {} (sequence {}, known {}): {}",
                grid::text(row.get("name")),
                grid::text(row.get("sequence")),
                grid::text(row.get("known_at")),
                grid::text(row.get("entered"))
            )?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn presets(args: &PresetsArgs) -> anyhow::Result<ExitCode> {
    let document = documents::preset_list()?;
    let columns = [
        column("Preset", "name"),
        column("What", "title"),
        column("Source", "source"),
        column("Date", "date"),
        column("Fill in", "fill_in"),
        column("Notes", "notes"),
    ];
    let rows = grid::rows(&document, "rows");
    grid::write(&document, (&rows, &columns), args.format, &mut std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}
