//! `bursar hedge`: what hedges did to cost.
//!
//! Not here: the figures (`hedge::report`, `ledger::hedge`).

use super::TableFormat;
use super::fault::Fault;
use super::grid::{self, Column, column, grouped, text};
use super::place::{self, PlaceArgs};
use crate::config::OverlayFormat;
use crate::hedge::png::png_chart;
use crate::hedge::priced::other_book;
use crate::hedge::report::{self, Options};
use crate::hedge::{effectiveness, risk, simulate};
use anyhow::Context;
use bursar_domain::{Clock, SystemClock};
use bursar_policies::hedge::analytics::Simulation;
use bursar_policies::price::PriceBook;
use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum HedgeCommand {
    /// Effective and hedged cost by team, workload or any other key, with the residual and the balance.
    Report(ReportArgs),
    /// Whether hedges did what they are held for: dollar offset, regression, variance and volatility
    /// reduction on your own months.
    Effectiveness(EffectivenessArgs),
    /// The published study of a hedged token price, seeded, with your basis and volume risk.
    Simulate(SimulateArgs),
    /// Margin, stress, limits, coverage, concentration, repricing, fixings and designations.
    Risk(RiskArgs),
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
    /// Also say, side by side, what the same usage and positions make at the prices of this overlay file
    /// over the built-in book: our own rows, LiteLLM's map or models.dev's catalogue.
    #[arg(long, value_name = "FILE")]
    overlay: Option<PathBuf>,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
    #[command(flatten)]
    place: PlaceArgs,
}

/// `bursar hedge effectiveness`
#[derive(Debug, Args)]
pub(crate) struct EffectivenessArgs {
    #[command(flatten)]
    terms: TermsArgs,
    /// Decompose a basis: deviations of the common price and of its legs (unit, quality,
    /// token_class_mix, geography, provider, timing, currency, index_break, volume).
    #[arg(long, value_name = "common=0.20,provider=0.06,…")]
    basis: Option<String>,
    /// Fewest changes from month to month on which a regression is judged [default: 8].
    #[arg(long)]
    points: Option<usize>,
    /// Form of the answer; CSV is the months.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
    #[command(flatten)]
    place: PlaceArgs,
}

/// `bursar hedge risk`
#[derive(Debug, Args)]
pub(crate) struct RiskArgs {
    #[command(flatten)]
    terms: TermsArgs,
    /// Forecast units by month [default: the last month's volume in each month].
    #[arg(long, value_name = "2026-10=36000,…")]
    forecast: Option<String>,
    /// Price the same work under a GPU-hour position and a token position.
    #[arg(long, value_name = "GPU,TOKEN")]
    compare: Option<String>,
    /// Form of the answer; CSV is coverage by month.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
    #[command(flatten)]
    place: PlaceArgs,
}

/// `bursar hedge simulate`
#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// Paths.
    #[arg(long, default_value_t = 10_000)]
    paths: usize,
    /// Seed; the same one gives the same figures.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Deviation of the provider's price around the index.
    #[arg(long, default_value_t = 0.10, allow_negative_numbers = true)]
    basis: f64,
    /// Deviation of the year's volume around what was hedged.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    volume: f64,
    /// Also draw the chart into this SVG file.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Also draw the chart into this PNG file.
    #[arg(long)]
    png: Option<PathBuf>,
    /// Form of the answer; CSV is the curve.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
}

/// Runs the command.
pub(super) fn run(command: &HedgeCommand) -> anyhow::Result<ExitCode> {
    match command {
        HedgeCommand::Report(args) => show_report(args),
        HedgeCommand::Effectiveness(args) => show_effectiveness(args),
        HedgeCommand::Simulate(args) => show_simulation(args),
        HedgeCommand::Risk(args) => show_risk(args),
    }
}

fn show_effectiveness(args: &EffectivenessArgs) -> anyhow::Result<ExitCode> {
    let options = Options { basis: args.basis.clone(), points: args.points, ..args.terms.options() };
    let path = format!("/api/v1/hedge/effectiveness{}", query(&options));
    let document = place::read(&args.place, &path, |source| {
        effectiveness::document(source, &options, SystemClock.now())
    })?;
    let months = [
        column("Month", "month"),
        column("Own price", "own_price"),
        column("Hedged price", "hedged_price"),
        column("Hedge result", "hedge_result"),
        column("Volume", "volume"),
        column("Coverage", "coverage"),
    ];
    let mut out = std::io::stdout().lock();
    grid::write(&document, (&grid::rows(&document, "months"), &months), args.format, &mut out)?;
    if args.format != TableFormat::Table {
        return Ok(ExitCode::SUCCESS);
    }
    let offset = document.get("dollar_offset").cloned().unwrap_or_default();
    let mut rows = grid::rows(&offset, "periods");
    rows.extend(offset.get("cumulative"));
    let offsets = [
        column("To month", "month"),
        column("Hedge change", "hedge_change"),
        column("Item change", "item_change"),
        column("Dollar offset", "ratio"),
        column("Pass", "pass"),
    ];
    writeln!(out, "dollar offset, passes from 0.80 to 1.25; the last line is cumulative")?;
    writeln!(out, "{}", grid::table(&rows, &offsets))?;
    let of_positions = [
        column("Position", "position_id"),
        column("Method", "method"),
        column("Months", "months"),
        column("Dollar offset", "dollar_offset.cumulative.ratio"),
        column("Slope", "regression.slope"),
        column("R squared", "regression.r_squared"),
        column("Range", "range"),
        column("Pass", "pass"),
    ];
    let rows = grid::rows(&document, "positions");
    if !rows.is_empty() {
        writeln!(out, "by position, with its own method and range; – is not judged")?;
        writeln!(out, "{}", grid::table(&rows, &of_positions))?;
    }
    tell_parts(&document, &["regression", "reduction", "basis"], &mut out)?;
    writeln!(out, "{}", text(document.get("note")))?;
    Ok(ExitCode::SUCCESS)
}

fn show_risk(args: &RiskArgs) -> anyhow::Result<ExitCode> {
    let options =
        Options { forecast: args.forecast.clone(), compare: args.compare.clone(), ..args.terms.options() };
    let path = format!("/api/v1/hedge/risk{}", query(&options));
    let document =
        place::read(&args.place, &path, |source| risk::document(source, &options, SystemClock.now()))?;
    let months = [
        column("Month", "month"),
        column("Hedged", "hedged"),
        column("Forecast", "forecast"),
        column("Ratio", "ratio"),
    ];
    let coverage = document.get("coverage").cloned().unwrap_or_default();
    let mut out = std::io::stdout().lock();
    grid::write(&document, (&grid::rows(&coverage, "months"), &months), args.format, &mut out)?;
    if args.format != TableFormat::Table {
        return Ok(ExitCode::SUCCESS);
    }
    let lists: [RiskList; 7] = [
        (
            "margin",
            "margin of open lots",
            &[("Currency", "currency"), ("Initial", "initial"), ("Maintenance", "maintenance")],
        ),
        (
            "cash",
            "cash by currency: initial margin, and the next day's calls if all prices move",
            &[
                ("Currency", "currency"),
                ("Initial", "initial"),
                ("-25 %", "calls.down_25"),
                ("-15 %", "calls.down_15"),
                ("+15 %", "calls.up_15"),
                ("+25 %", "calls.up_25"),
            ],
        ),
        (
            "limits",
            "limits",
            &[
                ("Index", "index"),
                ("Limit", "limit"),
                ("Lots", "lots"),
                ("At", "at"),
                ("Used", "used"),
                ("Status", "status"),
                ("Reportable", "reportable"),
            ],
        ),
        (
            "concentration",
            "volume by provider",
            &[("Provider", "provider"), ("Weight", "weight"), ("Above 30 %", "above_30_percent")],
        ),
        (
            "repricing",
            "if a provider reprices",
            &[
                ("Provider", "provider"),
                ("Change", "change"),
                ("Spot", "spot_change"),
                ("Margin", "margin_change"),
                ("Hedged", "hedged_share"),
            ],
        ),
        (
            "fixings",
            "fixings",
            &[
                ("Position", "position_id"),
                ("Missing", "missing"),
                ("Late", "late"),
                ("Restated", "restated"),
                ("Reason", "reason"),
            ],
        ),
        (
            "designations",
            "designations",
            &[
                ("Position", "position_id"),
                ("Version", "version"),
                ("Since", "designated_at"),
                ("Trade", "trade_date"),
                ("Late", "late"),
                ("Objective", "objective"),
            ],
        ),
    ];
    for (name, title, columns) in lists {
        let short: Vec<Value> = grid::rows(&document, name).into_iter().map(shortened).collect();
        let rows: Vec<&Value> = short.iter().collect();
        if !rows.is_empty() {
            let columns: Vec<Column> = columns.iter().map(|(title, path)| column(title, path)).collect();
            writeln!(out, "{title}\n{}", grid::table(&rows, &columns))?;
        }
    }
    for position in grid::rows(&coverage, "left_out") {
        let (id, reason) = (text(position.get("position_id")), text(position.get("reason")));
        writeln!(out, "not in the coverage by month: position {id}: {reason}")?;
    }
    for position in grid::rows(&document, "positions") {
        writeln!(out, "position {}: {}", text(position.get("position_id")), mark_and_stress(position))?;
    }
    tell_parts(&document, &["cross_border"], &mut out)?;
    writeln!(out, "{}", text(document.get("note")))?;
    Ok(ExitCode::SUCCESS)
}

/// The mark of a position and what its margin needs at each move, or why there is none.
fn mark_and_stress(position: &Value) -> String {
    let at = |path: &[&str]| path.iter().try_fold(position, |value, key| value.get(key));
    let mark = match at(&["mark_to_market", "reason"]) {
        Some(reason) => format!("not marked: {}", text(Some(reason))),
        None => {
            let amount = grouped(&text(at(&["mark_to_market", "amount"])));
            format!("marked at {amount} {}", text(at(&["mark_to_market", "currency"])))
        }
    };
    if let Some(reason) = at(&["stress", "reason"]) {
        return format!("{mark}; no stress: {}", text(Some(reason)));
    }
    let moves = at(&["stress", "moves"]).and_then(Value::as_array).into_iter().flatten();
    let calls = moves.map(|row| {
        let [change, flow, call] = ["change", "flow", "call"].map(|name| text(row.get(name)));
        format!("at {change} it pays {} and {} is called", grouped(&flow), grouped(&call))
    });
    format!("{mark}; {}", calls.collect::<Vec<_>>().join(", "))
}

/// A row whose long lists of days are told by their number and their ends.
fn shortened(row: &Value) -> Value {
    let Some(fields) = row.as_object() else { return row.clone() };
    let short = |value: &Value| match value.as_array().map(Vec::as_slice) {
        Some([first, .., last]) if value.as_array().is_some_and(|days| days.len() > DAYS_SHOWN) => {
            let count = value.as_array().map_or(0, Vec::len);
            format!("{count} days, {} to {}", text(Some(first)), text(Some(last))).into()
        }
        _ => value.clone(),
    };
    Value::Object(fields.iter().map(|(name, value)| (name.clone(), short(value))).collect())
}

/// Most days that a cell lists.
const DAYS_SHOWN: usize = 4;

/// A list of the risk report: its name, its title, its columns.
type RiskList = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// Parts of a document as `name: key value, …`.
fn tell_parts(document: &Value, names: &[&str], out: &mut dyn Write) -> anyhow::Result<()> {
    for name in names {
        let Some(part) = document.get(*name).and_then(Value::as_object) else { continue };
        let words: Vec<String> =
            part.iter().map(|(key, value)| format!("{key} {}", text(Some(value)))).collect();
        writeln!(out, "{name}: {}", words.join(", "))?;
    }
    Ok(())
}

fn show_simulation(args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let published = Simulation::published(args.seed, args.basis);
    let simulation = Simulation { paths: args.paths, volume_sd: args.volume, threads, ..published };
    // Drawn on a terminal only: in a pipe there is nothing.
    let bar = ProgressBar::new(args.paths as u64);
    let found = simulate::run(&simulation, &|paths| bar.set_position(paths as u64));
    bar.finish_and_clear();
    let found = found?;
    let svg = args.svg.as_ref().map(|path| (path, simulate::svg_chart(&simulation, &found).into_bytes()));
    let png = args.png.as_ref().map(|path| anyhow::Ok((path, png_chart(&simulation, &found)?)));
    for (path, chart) in svg.into_iter().chain(png.transpose()?) {
        std::fs::write(path, chart).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("bursar: the chart is in {}", path.display());
    }
    let document = simulate::document(&simulation, &found);
    let curve = [
        column("Month", "month"),
        column("Mean", "mean"),
        column("Future", "future"),
        column("5 %", "low"),
        column("Median", "median"),
        column("95 %", "high"),
    ];
    let mut out = std::io::stdout().lock();
    if args.format != TableFormat::Table {
        grid::write(&document, (&grid::rows(&document, "curve"), &curve), args.format, &mut out)?;
        return Ok(ExitCode::SUCCESS);
    }
    write!(out, "{}", simulate::text_chart(&found))?;
    for (name, title) in [
        ("volatility_reduction", "volatility reduction (1 − sd hedged / sd unhedged)"),
        ("variance_reduction", "variance reduction (1 − variance hedged / unhedged)"),
        ("inside_published_range", "inside the published 62–78 % (volatility)"),
        ("ever_above_double", "share of paths ever above twice the start"),
        ("unhedged_mean", "mean cost of the year, unhedged"),
        ("hedged_mean", "mean cost of the year, hedged"),
    ] {
        writeln!(out, "{title}: {}", text(document.get(name)))?;
    }
    writeln!(
        out,
        "{} paths, seed {}, basis {}, volume {}; published parameters, nothing here is booked",
        found.paths, args.seed, args.basis, args.volume
    )?;
    Ok(ExitCode::SUCCESS)
}

/// The options as a query.
fn query(options: &Options) -> String {
    let points = options.points.map(|points| points.to_string());
    place::query(&[
        ("points", points.as_deref()),
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
        ("compare", options.compare.as_deref()),
        ("basis", options.basis.as_deref()),
    ])
}

/// What other prices would have made of a line.
const BESIDE: [(&str, &str); 3] = [
    ("Spot there", "there.cost.spot"),
    ("Hedged there", "there.cost.hedged"),
    ("Difference", "there.difference.hedged"),
];

/// An overlay file: its text, and the book that it makes.
fn overlay(path: &Path) -> anyhow::Result<(String, PriceBook)> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let source = path.file_stem().map_or_else(|| "overlay".into(), |stem| stem.to_string_lossy());
    let book = other_book(&text, &source, OverlayFormat::Auto)
        .map_err(|error| Fault::Violation(format!("{}: {error}", path.display())))?;
    Ok((text, book))
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

/// How many requests of a row have no cost in it: shown wherever there are any, as the row's cost is too low
/// by them.
const UNPRICED: &str = "unpriced_requests";

fn show_report(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let options =
        Options { by: Some(args.by.clone()), hedge_ratio: args.hedge_ratio.clone(), ..args.terms.options() };
    let path = format!("/api/v1/hedge/report{}", query(&options));
    let other = args.overlay.as_deref().map(overlay).transpose()?;
    let body = other.as_ref().map(|(text, _)| bytes::Bytes::from(text.clone()));
    let document = place::read_with(&args.place, &path, body, |source| {
        report::document_beside(source, &options, other.map(|(_, book)| book), SystemClock.now())
    })?;
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
    if args.overlay.is_some() {
        for (title, path) in BESIDE {
            columns.push(column(title, path));
        }
    }
    columns.push(column("Coverage", "coverage"));
    let unpriced = |row: &&Value| row.get(UNPRICED).and_then(Value::as_u64).is_some_and(|count| count > 0);
    if args.format == TableFormat::Csv || rows.iter().any(unpriced) {
        columns.push(column("Unpriced", UNPRICED));
    }
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
    let Some(there) = document.get("at_other_prices") else { return lines };
    let keys: Vec<String> = grid::rows(document, "by").iter().map(|key| text(Some(key))).collect();
    let key_of = |row: &Value| keys.iter().map(|key| text(row.get(key))).collect::<Vec<_>>();
    let others = grid::rows(there, "rows");
    let (count, whole) = (lines.len(), ["residual", "book"]);
    for (place, line) in lines.iter_mut().enumerate() {
        let last = (place + whole.len()).checked_sub(count).and_then(|index| whole.get(index));
        let other = match last {
            Some(name) => there.get(*name),
            None => others.iter().find(|other| key_of(other) == key_of(line)).copied(),
        };
        if let (Some(other), Some(line)) = (other.cloned(), line.as_object_mut()) {
            line.insert("there".to_owned(), other);
        }
    }
    lines
}

/// What stands below the table: the balance, coverage, and everything that is not in the figures.
/// What is missing, in words.
fn told_gap(gap: &Value) -> String {
    let what = match text(gap.get("what")).as_str() {
        "usage" => format!("{} requests", text(gap.get("requests"))),
        what => format!("{what} {}", text(gap.get("id"))),
    };
    format!("{what}: {}", text(gap.get("reason")))
}

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
    if document.get("at_other_prices").is_some() {
        let whole = if at("at_other_prices.complete") == "true" { "complete" } else { "incomplete" };
        writeln!(
            out,
            "at the other prices ({whole}): rows {} + residual {} = book {} {}, {} more than here",
            figure("at_other_prices.balance.rows"),
            figure("at_other_prices.balance.residual"),
            figure("at_other_prices.balance.book"),
            at("currency"),
            figure("at_other_prices.book.difference.hedged"),
        )?;
        for gap in document.get("at_other_prices").iter().flat_map(|there| grid::rows(there, "unpriced")) {
            writeln!(out, "missing there: {}", told_gap(gap))?;
        }
        if at("at_other_prices.kept_records") != "0" {
            let kept = at("at_other_prices.kept_records");
            writeln!(out, "{kept} records of batch results keep their recorded cost: they hold sums")?;
        }
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
        writeln!(out, "unpriced: {}", told_gap(gap))?;
    }
    if !missing.is_empty() {
        writeln!(out, "the report is incomplete: what is listed as unpriced is not in the figures")?;
    }
    writeln!(out, "{} to {}, as of {}", at("period.from"), at("period.to"), at("as_of"))?;
    Ok(())
}
