//! `bursar reconcile`: what a provider says it charged, beside what was booked, and why they differ.
//!
//! Invariants
//! - The ledger is only read. Exit code 3 when more stays unexplained than `--tolerance` allows.
//! - Every file says which documented version was expected; one that is something else is refused.
//!
//! Not here: files (`reconcile`), the parts of a gap (`bursar_policies::reconcile`).

use super::TableFormat;
use super::fault::Fault;
use super::grid::{self, column, grouped, rows, text};
use super::place::PlaceArgs;
use super::price::{BookArgs, book};
use super::source::{self, Source};
use crate::imports::{self, Input};
use crate::reconcile::{AskError, BY, Books, Kind, PROJECT_TAG, Provider, Question, TOLERANCE, Words};
use crate::tasks;
use anyhow::Context;
use bursar_domain::{Clock, SystemClock, Timestamp};
use bursar_ledger::RecordRange;
use clap::{Args, ValueEnum};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// `bursar reconcile FILE…`
#[derive(Debug, Args)]
pub(crate) struct ReconcileArgs {
    /// The provider's files: usage and costs together explain most.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Whose files they are.
    #[arg(long, value_enum)]
    provider: Provider,
    /// The kind of the files. Without it that is detected, file by file.
    #[arg(long, value_enum)]
    from_format: Option<Kind>,
    /// First day (UTC), such as 2026-09-01 [default: the first in the files].
    #[arg(long)]
    from: Option<String>,
    /// Day after the last [default: the one after the last in the files].
    #[arg(long)]
    to: Option<String>,
    /// What stands together: day, model, project (the tag that --project-tag names).
    #[arg(long, default_value = BY)]
    by: String,
    /// How much may stay unexplained: a share of the provider's figure, or an amount such as 1.50.
    #[arg(long, default_value = TOLERANCE)]
    tolerance: String,
    /// A name of the file and the model that it means: --map 'gpt 4o Inp glbl=gpt-4o'. May be repeated.
    #[arg(long, value_name = "NAME=MODEL")]
    map: Vec<String>,
    /// The tag of our records that names the provider's project.
    #[arg(long, default_value = PROJECT_TAG)]
    project_tag: String,
    #[command(flatten)]
    book: BookArgs,
    #[command(flatten)]
    place: PlaceArgs,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
}

/// Reconciles and prints.
pub(super) fn run(args: &ReconcileArgs) -> anyhow::Result<ExitCode> {
    let fault = |error: AskError| match error {
        AskError::Wrong(text) => Fault::Usage(text),
        AskError::Refused(text) => Fault::Violation(text),
    };
    let question = question(args).map_err(fault)?;
    let mut means = Vec::new();
    for pair in &args.map {
        let pair = pair.split_once('=');
        means.push(pair.ok_or_else(|| Fault::Usage("--map: write NAME=MODEL".to_owned()))?);
    }
    for path in &args.files {
        std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    }
    let files: Vec<(String, Input<'_>)> =
        args.files.iter().map(|path| (path.display().to_string(), Input::Path(path))).collect();
    let statements = question.statements(&files).map_err(fault)?;
    let prices = book(&args.book)?;
    let mut books = question.books(&statements, means, &prices).map_err(fault)?;
    take_records(&args.place, &mut books)?;
    let document = books
        .document(&question.tolerance, SystemClock.now())
        .map_err(|error| Fault::Violation(error.to_string()))?;
    let mut out = std::io::stdout().lock();
    write(&document, args.format, &mut out)?;
    let passes = document.get("within_tolerance").and_then(Value::as_bool).unwrap_or(false);
    Ok(if passes { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

fn question(args: &ReconcileArgs) -> Result<Question, AskError> {
    let name = |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
    let provider = name(args.provider.to_possible_value());
    let kind = name(args.from_format.and_then(|kind| kind.to_possible_value()));
    let words = Words {
        provider: provider.as_deref(),
        from_format: kind.as_deref(),
        from: args.from.as_deref(),
        to: args.to.as_deref(),
        by: Some(&args.by),
        tolerance: Some(&args.tolerance),
        project_tag: Some(&args.project_tag),
    };
    Question::parse(&words, "--")
}

/// Our records of the days in question.
fn take_records(place: &PlaceArgs, books: &mut Books<'_>) -> anyhow::Result<()> {
    let (from, to) = books.days();
    let instant = |day: Option<Date>| -> anyhow::Result<Option<Timestamp>> {
        let start = day.map(|day| day.to_zoned(TimeZone::UTC)).transpose()?;
        Ok(start.map(|start| Timestamp::from_micros(start.timestamp().as_microsecond())))
    };
    let range = RecordRange { from: instant(from)?, to: instant(to)?, after_sequence: 0 };
    let local = tokio::task::LocalSet::new();
    local.block_on(&tasks::runtime()?, async {
        match source::read(place.told()).await? {
            Source::Running(client) => {
                let day = |day: Option<Date>| day.map(|day| day.to_string());
                let (from, to) = (day(from), day(to));
                let query = super::place::query(&[
                    ("format", Some("jsonl")),
                    ("classes", Some("true")),
                    ("from", from.as_deref()),
                    ("to", to.as_deref()),
                ]);
                let mut lines = Lines { books, rest: Vec::new() };
                client.get(&format!("/api/v1/usage/records{query}"), &mut lines).await?;
                let rest = std::mem::take(&mut lines.rest);
                lines.line(&rest)
            }
            Source::Offline(ledger) => {
                for stored in ledger.records(range) {
                    let stored = stored?;
                    if stored.counted {
                        books.record(&stored.record).map_err(|error| Fault::Violation(error.to_string()))?;
                    }
                }
                Ok(())
            }
        }
    })
}

/// Takes the sidecar's records as they come.
struct Lines<'r, 'b> {
    books: &'r mut Books<'b>,
    rest: Vec<u8>,
}

impl Lines<'_, '_> {
    fn line(&mut self, line: &[u8]) -> anyhow::Result<()> {
        if line.is_empty() {
            return Ok(());
        }
        let written = std::str::from_utf8(line).context("the sidecar's answer is no text")?;
        let row: Value = serde_json::from_str(written).context("the sidecar's answer is no record")?;
        // A record that does not count has no cost.
        if let (Some(fields), true) = (row.as_object(), row.get("cost").is_some()) {
            let record = imports::own_record(fields, written).map_err(anyhow::Error::msg)?;
            self.books.record(&record).map_err(|error| Fault::Violation(error.to_string()))?;
        }
        Ok(())
    }
}

impl Write for Lines<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let mut line: Vec<u8> = self.rest.drain(..=end).collect();
            line.pop();
            self.line(&line).map_err(std::io::Error::other)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const PARTS: [(&str, &str); 7] = [
    ("Unpriced", "unpriced"),
    ("Estimated", "estimated"),
    ("Aborted", "aborted"),
    ("Outside", "outside"),
    ("Price", "price"),
    ("Rounding", "rounding"),
    ("Unexplained", "unexplained"),
];

fn write(document: &Value, format: TableFormat, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut columns: Vec<grid::Column> =
        rows(document, "by").iter().map(|by| column(&text(Some(by)), &text(Some(by)))).collect();
    let money = document.pointer("/total/money").is_some_and(|money| !money.is_null());
    columns.extend(match money {
        true => [column("Theirs", "theirs.cost"), column("Ours", "ours.billed"), column("Gap", "money.gap")],
        false => {
            [column("Theirs", "theirs.tokens"), column("Ours", "ours.tokens"), column("Gap", "tokens.gap")]
        }
    });
    let unit = if money { "money" } else { "tokens" };
    let parts = PARTS.iter().filter(|(_, name)| {
        // A part that no row has would be a column of zeros; for programs every column is there.
        format != TableFormat::Table
            || rows(document, "rows").iter().any(|row| !is_nothing(row.pointer(&format!("/{unit}/{name}"))))
    });
    columns.extend(parts.map(|(title, name)| column(title, &format!("{unit}.{name}"))));
    if format == TableFormat::Csv {
        for (title, path) in [
            ("Their tokens", "theirs.tokens"),
            ("Our tokens", "ours.tokens"),
            ("Tokens", "tokens.gap"),
            ("Their requests", "theirs.requests"),
            ("Our requests", "ours.requests"),
        ] {
            columns.push(column(title, path));
        }
    }
    let mut shown = rows(document, "rows");
    let mut total = document.get("total").cloned().unwrap_or_default();
    if let (Some(first), Some(total)) =
        (rows(document, "by").first().map(|by| text(Some(by))), total.as_object_mut())
    {
        total.insert(first, "(total)".into());
    }
    if format == TableFormat::Table {
        shown.push(&total);
    }
    grid::write(document, (&shown, &columns), format, out)?;
    if format == TableFormat::Table {
        tell(document, money, out)?;
    }
    Ok(())
}

fn is_nothing(value: Option<&Value>) -> bool {
    matches!(text(value).as_str(), "" | "0")
}

fn tell(document: &Value, money: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    for file in rows(document, "files") {
        writeln!(
            out,
            "{}: {} rows, read as {}: {}",
            text(file.get("file")),
            text(file.get("rows")),
            text(file.get("format")),
            text(file.get("expects"))
        )?;
    }
    for note in rows(document, "notes") {
        writeln!(out, "note: {}", text(Some(note)))?;
    }
    let left = document.get("lines_outside_period").and_then(Value::as_u64).unwrap_or(0);
    if left > 0 {
        writeln!(out, "note: {left} lines of the files are outside the days asked for")?;
    }
    let at = |path: &str| grouped(&text(document.pointer(path)));
    let (unit, theirs, ours, code) = match money {
        true => ("money", "/total/theirs/cost", "/total/ours/billed", text(document.get("currency"))),
        false => ("tokens", "/total/theirs/tokens", "/total/ours/tokens", "tokens".to_owned()),
    };
    let parts = PARTS.iter().map(|(_, name)| (name, document.pointer(&format!("/total/{unit}/{name}"))));
    let parts: Vec<String> = parts
        .filter(|(_, part)| !is_nothing(*part))
        .map(|(name, part)| format!("{name} {}", grouped(&text(part))))
        .collect();
    let sum = if parts.is_empty() { "nothing".to_owned() } else { parts.join(" + ") };
    writeln!(
        out,
        "{} ({}) − {} (ours) = {} {code} = {sum} (checked)",
        at(theirs),
        text(document.get("provider")),
        at(ours),
        at(&format!("/total/{unit}/gap"))
    )?;
    let passes = document.get("within_tolerance").and_then(Value::as_bool).unwrap_or(false);
    writeln!(
        out,
        "unexplained, day by day without signs: {} {code}, {} the tolerance of {}",
        at(&format!("/unexplained/{unit}")),
        if passes { "within" } else { "beyond" },
        text(document.get("tolerance"))
    )?;
    Ok(())
}
