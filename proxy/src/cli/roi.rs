//! `bursar roi`: what tokens cost and earned.
//!
//! Not here: the figures (`roi::report`, `ledger::roi`).

use super::TableFormat;
use super::fault::Fault;
use super::grid::{self, Column, column, grouped, text};
use super::place::{self, PlaceArgs};
use super::whole;
use crate::roi::reconciliation;
use crate::roi::report::{self, COLUMNS, Options, lines};
use crate::roi::workbook::workbook;
use anyhow::Context;
use bursar_domain::money::parse_pico;
use bursar_domain::{Clock, SystemClock};
use bursar_ledger::export::{
    Cell, Column as TypedColumn, Kind, MONEY_PLACES, TableFormat as TypedFormat, TableWriter,
};
use bursar_ledger::periods::sha256;
use bursar_policies::exact::Decimal;
use clap::Args;
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How many rows that moved a workbook and a page show when nothing is said.
const MOVERS: usize = 10;

/// `bursar roi`
#[derive(Debug, Args)]
pub(crate) struct RoiArgs {
    /// First day [default: the first of the month].
    #[arg(long)]
    from: Option<String>,
    /// First day outside [default: the day after --on].
    #[arg(long)]
    to: Option<String>,
    /// Time zone of the days (IANA name such as Europe/Paris) [default: UTC].
    #[arg(long)]
    tz: Option<String>,
    /// Group by these keys: team, workload, model, customer, session, tag:NAME, provider, day, month …
    #[arg(long, default_value = "team")]
    by: String,
    /// How credit is shared out among workloads: first, last, linear, time_decay, position, shapley or markov.
    #[arg(long, default_value = "linear")]
    model: String,
    /// Show every model beside the one asked for.
    #[arg(long)]
    compare: bool,
    /// How old a touch may be when revenue comes [default: 30d].
    #[arg(long, value_name = "DAYS")]
    look_back: Option<String>,
    /// Half-life of time_decay [default: 7d].
    #[arg(long, value_name = "DAYS")]
    half_life: Option<String>,
    /// Also show the rows that moved most against as many days before.
    #[arg(long, value_name = "COUNT", num_args = 0..=1, default_missing_value = "10")]
    movers: Option<usize>,
    /// Reporting currency [default: USD].
    #[arg(long)]
    currency: Option<String>,
    /// Hedge unit of the book: Mtok (million tokens) or MSIT (weighted by quality profiles) [default: Mtok].
    #[arg(long)]
    unit: Option<String>,
    /// The last day that counts [default: today, and yesterday when there are contracts].
    #[arg(long)]
    on: Option<String>,
    /// With the fixings and rates that were known at this time [default: now].
    #[arg(long)]
    as_of: Option<String>,
    /// Of one month: reported (as it was closed, late facts as corrections in the first open month) or
    /// restated (with everything that is known) [default: restated].
    #[arg(long = "as", value_name = "VIEW")]
    view: Option<String>,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
    /// Write a workbook (XLSX) to this file instead; it appears only when complete.
    #[arg(long, value_name = "FILE", conflicts_with = "format")]
    xlsx: Option<PathBuf>,
    /// Write a page (HTML, to print or to save as PDF) to this file instead; it appears only when complete.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["format", "xlsx"])]
    html: Option<PathBuf>,
    /// Write the lines of the CSV as Parquet to this file instead; it appears only when complete.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["format", "xlsx", "html"])]
    parquet: Option<PathBuf>,
    #[command(flatten)]
    beside: BesideArgs,
    #[command(flatten)]
    place: PlaceArgs,
}

/// What providers say, beside the figures.
#[derive(Debug, Args)]
pub(super) struct BesideArgs {
    /// Show this reconciliation with the report: what `bursar reconcile --format json` wrote. May be repeated.
    #[arg(long, value_name = "FILE")]
    reconciliation: Vec<PathBuf>,
}

impl BesideArgs {
    /// Whether there is nothing to show.
    pub(super) fn is_empty(&self) -> bool {
        self.reconciliation.is_empty()
    }

    /// The files, checked; before anything is computed.
    pub(super) fn read(&self) -> anyhow::Result<Vec<(String, String, Value)>> {
        let one = |path: &PathBuf| {
            let shown = path.display();
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
            let found =
                reconciliation::read(&text).map_err(|error| Fault::Violation(format!("{shown} {error}")))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok((name, sha256(text.as_bytes()), found))
        };
        self.reconciliation.iter().map(one).collect()
    }
}

impl RoiArgs {
    fn options(&self) -> Options {
        Options {
            from: self.from.clone(),
            to: self.to.clone(),
            tz: self.tz.clone(),
            by: Some(self.by.clone()),
            unit: self.unit.clone(),
            currency: self.currency.clone(),
            on: self.on.clone(),
            as_of: self.as_of.clone(),
            model: Some(self.model.clone()),
            look_back: self.look_back.clone(),
            half_life: self.half_life.clone(),
            compare: self.compare.then_some(true),
            movers: self.movers.or_else(|| self.is_whole().then_some(MOVERS)),
            sheets: self.is_whole().then_some(true),
            view: self.view.clone(),
        }
    }

    /// Whether the answer is a workbook or a page, which show everything.
    const fn is_whole(&self) -> bool {
        self.xlsx.is_some() || self.html.is_some()
    }
}

/// The options as a query.
fn query(options: &Options) -> String {
    let movers = options.movers.map(|count| count.to_string());
    place::query(&[
        ("from", options.from.as_deref()),
        ("to", options.to.as_deref()),
        ("tz", options.tz.as_deref()),
        ("by", options.by.as_deref()),
        ("unit", options.unit.as_deref()),
        ("currency", options.currency.as_deref()),
        ("on", options.on.as_deref()),
        ("as_of", options.as_of.as_deref()),
        ("model", options.model.as_deref()),
        ("look_back", options.look_back.as_deref()),
        ("half_life", options.half_life.as_deref()),
        ("compare", options.compare.map(|_| "true")),
        ("movers", movers.as_deref()),
        ("sheets", options.sheets.map(|_| "true")),
        ("as", options.view.as_deref()),
    ])
}

/// Prints the report.
pub(super) fn run(args: &RoiArgs) -> anyhow::Result<ExitCode> {
    let options = args.options();
    if !args.beside.is_empty() && (args.parquet.is_some() || args.format == TableFormat::Csv) {
        let text = "--reconciliation has no place among rows: use --xlsx, --html, --format json or table";
        return Err(Fault::Usage(text.to_owned()).into());
    }
    let given = args.beside.read()?;
    let path = format!("/api/v1/roi{}", query(&options));
    let mut document =
        place::read(&args.place, &path, |source| report::document(source, &options, SystemClock.now()))?;
    if !given.is_empty() {
        reconciliation::attach(&mut document, given);
    }
    if let Some(path) = &args.xlsx {
        return write_workbook(&document, path);
    }
    if let Some(path) = &args.html {
        return write_page(&document, path);
    }
    if let Some(path) = &args.parquet {
        return write_parquet(&document, path);
    }
    write(&document, args.format, &mut std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a report as a workbook, beside the file first, so that nobody opens half of one.
pub(super) fn write_workbook(document: &Value, path: &Path) -> anyhow::Result<ExitCode> {
    let bytes = workbook(document).context("cannot make the workbook")?;
    whole::export(Some(path), true, |out, _| Ok(out.write_all(&bytes)?))
}

/// Writes a report as a page, in the same way.
pub(super) fn write_page(document: &Value, path: &Path) -> anyhow::Result<ExitCode> {
    let page = super::page::page(document);
    whole::export(Some(path), false, |out, _| Ok(out.write_all(page.as_bytes())?))
}

/// Writes the lines of the CSV as Parquet, in the same way.
pub(super) fn write_parquet(document: &Value, path: &Path) -> anyhow::Result<ExitCode> {
    whole::export(Some(path), true, |out, _| write_table(document, out))
}

/// Figures that are words or counts; all others are decimals.
const WORDS: &str = "cost.status";
const COUNTS: [&str; 4] = ["requests", "successes", "total_tokens", "unpriced_requests"];

/// Writes the lines of the CSV as Parquet: exact decimals, counts and words. A point in the name of a
/// grouping would make a group of it and becomes an underscore.
fn write_table(document: &Value, out: &mut dyn Write) -> anyhow::Result<()> {
    let keys: Vec<String> = grid::rows(document, "by").into_iter().map(|key| text(Some(key))).collect();
    let kind = |path: &str| match path {
        WORDS => Kind::Text,
        path if COUNTS.contains(&path) || path.starts_with("tokens.") => Kind::Count,
        _ => Kind::Decimal(MONEY_PLACES),
    };
    let columns = keys.iter().map(|key| TypedColumn::maybe(&key.replace('.', "_"), Kind::Text));
    let columns = columns.chain(COLUMNS.iter().map(|path| TypedColumn::maybe(path, kind(path)))).collect();
    let mut table = TableWriter::new(out, "roi", columns, TypedFormat::PARQUET)?;
    for line in lines(document) {
        let mut cells: Vec<Cell<'_>> =
            keys.iter().map(|key| Cell::text(line.get(key).and_then(Value::as_str))).collect();
        for path in COLUMNS {
            let parts: Vec<String> = path.split('.').map(str::to_owned).collect();
            let value = text(grid::value(&line, &parts));
            cells.push(match kind(path) {
                _ if value.is_empty() => Cell::Null,
                Kind::Count => Cell::Count(value.parse().with_context(|| format!("{path}: {value}"))?),
                Kind::Decimal(_) => {
                    Cell::Decimal(parse_pico(&value).with_context(|| format!("{path}: {value}"))?)
                }
                _ => Cell::owned(value),
            });
        }
        table.write(&cells)?;
    }
    table.finish()?;
    Ok(())
}

/// Writes a report in any form.
pub(super) fn write(document: &Value, format: TableFormat, out: &mut dyn Write) -> anyhow::Result<()> {
    let keys: Vec<Column> = grid::rows(document, "by")
        .into_iter()
        .map(|key| text(Some(key)))
        .map(|key| key_column(&key))
        .collect();
    match format {
        TableFormat::Json => writeln!(out, "{document:#}")?,
        TableFormat::Csv => {
            let lines = lines(document);
            let columns: Vec<Column> =
                keys.into_iter().chain(COLUMNS.map(|path| column(path, path))).collect();
            grid::write(document, (&lines.iter().collect::<Vec<_>>(), &columns), format, out)?;
        }
        TableFormat::Table => {
            let lines: Vec<Value> = lines(document).into_iter().map(short).collect();
            let rows: Vec<&Value> = lines.iter().collect();
            let mut columns = keys;
            columns.extend(table_columns(&rows));
            writeln!(out, "{}", grid::table(&rows, &columns))?;
            tell(document, out)?;
        }
    }
    Ok(())
}

/// A grouping is one name, whatever points a tag has.
fn key_column(key: &str) -> Column {
    Column::named(key)
}

fn table_columns(rows: &[&Value]) -> Vec<Column> {
    let any = |path: &str| {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        rows.iter().any(|row| text(grid::value(row, &path)).bytes().any(|byte| (b'1'..=b'9').contains(&byte)))
    };
    let mut columns = vec![
        column("Requests", "requests"),
        column("Tokens", "total_tokens"),
        column("Billed", "cost.billed"),
    ];
    if any("hedge.displaced") || any("hedge.contract") || any("hedge.unused") {
        columns.push(column("Effective", "cost.effective"));
    }
    if any("hedge_uplift") {
        columns.push(column("Hedged", "cost.hedged"));
    }
    columns.push(column("Revenue", "revenue"));
    if any("savings") {
        columns.push(column("Savings", "savings"));
    }
    columns.push(column("ROI", "roi"));
    if any("savings") {
        columns.push(column("ROI with savings", "roi_with_savings"));
    }
    if any("hedge_uplift") {
        columns.push(column("ROI unhedged", "roi_unhedged"));
    }
    columns.push(column("Net/Mtok", "net_per_million_tokens"));
    columns.push(column("Cost/Mtok", "cost_per_million_tokens"));
    columns.push(column("Margin", "gross_margin"));
    columns
}

/// Ratios with four decimals, for people.
fn short(mut line: Value) -> Value {
    for name in [
        "roi",
        "roi_with_savings",
        "roi_unhedged",
        "net_per_million_tokens",
        "cost_per_million_tokens",
        "gross_margin",
    ] {
        let Some(value) = line.get_mut(name) else { continue };
        let short = value.as_str().and_then(|text| Decimal::parse(text).ok());
        if let Some(text) = short.and_then(|number| number.ratio().text_half_even(4).ok()) {
            *value = text.into();
        }
    }
    line
}

/// What stands below the table: both balances, coverage, and everything that is not in the figures.
fn tell(document: &Value, out: &mut dyn Write) -> anyhow::Result<()> {
    let at = |path: &str| {
        let parts: Vec<String> = path.split('.').map(str::to_owned).collect();
        text(grid::value(document, &parts))
    };
    let figure = |path: &str| grouped(&at(path));
    let checked = if at("balance.balanced") == "true" { "checked" } else { "DOES NOT BALANCE" };
    let currency = at("currency");
    writeln!(
        out,
        "cost: rows {} + residual {} = book {} {currency} ({checked})",
        figure("balance.rows"),
        figure("balance.residual"),
        figure("balance.book"),
    )?;
    for name in ["revenue", "savings"] {
        let part = |part: &str| figure(&format!("balance.{name}.{part}"));
        writeln!(
            out,
            "{name}: attributed {} + unattributed {} = received {} {currency} ({checked})",
            part("attributed"),
            part("unattributed"),
            part("received"),
        )?;
    }
    let share = |name: &str| match at(&format!("coverage.{name}")) {
        none if none.is_empty() => "–".to_owned(),
        share => share,
    };
    let hedged = match at("coverage.hedged_volume") {
        none if !none.bytes().any(|byte| (b'1'..=b'9').contains(&byte)) => String::new(),
        share => format!(", volume hedged {share}"),
    };
    writeln!(
        out,
        "coverage: revenue attributed {}, cost tagged {}, tokens measured {}, requests unpriced {}{hedged}",
        share("attributed_revenue"),
        share("tagged_cost"),
        share("measured_tokens"),
        share("unpriced_requests"),
    )?;
    let steps: Vec<String> = grid::rows(document, "bridge")
        .iter()
        .map(|step| (text(step.get("step")), text(step.get("amount"))))
        .map(|(step, amount)| match amount.as_str() {
            "" => format!("{step} –"),
            amount => format!("{step} {}", grouped(amount)),
        })
        .collect();
    writeln!(out, "bridge: {}", steps.join(" → "))?;
    let places = |path: &str, places: u32| match Decimal::parse(&at(path)) {
        Ok(number) => number.ratio().text_half_even(places).map_or("–".to_owned(), |text| grouped(&text)),
        Err(_) => "–".to_owned(),
    };
    writeln!(
        out,
        "book: net {}; per million tokens net {}, cost {}; per thousand net {}; cost per success {}; gross margin {}",
        match figure("book.net") {
            none if none.is_empty() => "–".to_owned(),
            net => net,
        },
        places("book.net_per_million_tokens", 4),
        places("book.cost_per_million_tokens", 4),
        places("book.net_per_thousand_tokens", 7),
        places("book.cost_per_success", 4),
        places("book.gross_margin", 4),
    )?;
    tell_lists(document, out)?;
    for correction in grid::rows(document, "corrections") {
        let part = |name: &str| grouped(&text(correction.get(name)));
        writeln!(
            out,
            "correction of {}: cost {}, revenue {}, savings {} {currency}",
            text(correction.get("origin")),
            part("book"),
            part("revenue"),
            part("savings")
        )?;
    }
    if document.get("reported").is_some() {
        writeln!(
            out,
            "as reported: cost {}, revenue {}, savings {} {currency}, corrections included",
            figure("reported.book_total"),
            figure("reported.revenue"),
            figure("reported.savings")
        )?;
    }
    if at("received.events") == "0" {
        writeln!(out, "no revenue event lies in the period: import some with `bursar revenue import FILE`")?;
    }
    for gap in grid::rows(document, "unpriced") {
        let what = match text(gap.get("what")).as_str() {
            "usage" => format!("{} requests", text(gap.get("requests"))),
            "revenue" => format!("{} revenue events", text(gap.get("events"))),
            what => format!("{what} {}", text(gap.get("id"))),
        };
        writeln!(out, "not in the figures: {what}: {}", text(gap.get("reason")))?;
    }
    writeln!(
        out,
        "model {}, look-back {}; {} to {}, as of {}",
        at("method.model"),
        at("method.look_back"),
        at("period.from"),
        at("period.to"),
        at("as_of")
    )?;
    writeln!(out, "{}", at("method.note"))?;
    if document.get("reconciliation").is_some() {
        for words in reconciliation::sentences(document) {
            writeln!(out, "reconciliation: {words}")?;
        }
    }
    Ok(())
}

/// The trend of several months, other models, and what moved.
fn tell_lists(document: &Value, out: &mut dyn Write) -> anyhow::Result<()> {
    let by = grid::rows(document, "by");
    let keys = || by.iter().map(|key| key_column(&text(Some(key)))).collect::<Vec<Column>>();
    let trend: Vec<Value> =
        grid::rows(document, "trend").into_iter().map(|line| short(line.clone())).collect();
    if trend.len() > 1 {
        let columns = [
            ("Month", "month"),
            ("Tokens", "tokens"),
            ("Billed", "billed"),
            ("Hedged", "hedged"),
            ("Revenue", "revenue"),
            ("ROI", "roi"),
            ("Net/Mtok", "net_per_million_tokens"),
        ];
        let columns: Vec<Column> = columns.iter().map(|(title, path)| column(title, path)).collect();
        writeln!(out, "trend\n{}", grid::table(&trend.iter().collect::<Vec<_>>(), &columns))?;
    }
    for model in grid::rows(document, "compare") {
        let name = text(model.get("model"));
        if let Some(problem) = model.get("error") {
            writeln!(out, "{name}: cannot be computed: {}", text(Some(problem)))?;
            continue;
        }
        let rows: Vec<Value> =
            grid::rows(model, "rows").into_iter().map(|line| short(line.clone())).collect();
        let mut columns = keys();
        columns.extend(
            [("Revenue", "revenue"), ("Savings", "savings"), ("ROI", "roi")].map(|(t, p)| column(t, p)),
        );
        let nobody = text(grid::value(model, &["unattributed".to_owned(), "revenue".to_owned()]));
        writeln!(
            out,
            "model {name} (unattributed {})\n{}",
            grouped(&nobody),
            grid::table(&rows.iter().collect::<Vec<_>>(), &columns)
        )?;
    }
    if let Some(movers) = document.get("movers") {
        let rows = grid::rows(movers, "rows");
        let mut columns = keys();
        columns.extend(
            [
                ("Cost", "cost"),
                ("Change", "cost_change"),
                ("Revenue", "revenue"),
                ("Change", "revenue_change"),
                ("Net", "net_change"),
            ]
            .map(|(t, p)| column(t, p)),
        );
        let before = movers.get("before").cloned().unwrap_or_default();
        writeln!(
            out,
            "moved most against {} to {}\n{}",
            text(before.get("from")),
            text(before.get("to")),
            grid::table(&rows, &columns)
        )?;
    }
    Ok(())
}
