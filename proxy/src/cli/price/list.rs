//! `bursar price list` and `bursar price show`.
//!
//! Not here: which prices these are (`crate::prices`).

use super::{ListArgs, ShowArgs, TableFormat, book, instant, write_rows};
use crate::prices::list::{Line, above, currency, document, kind, lines, sheet};
use crate::prices::pick;
use bursar_policies::price::{PriceRow, instant_text};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

/// Prints the prices that hold.
pub(super) fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let book = book(&args.book)?;
    let at = instant(args.pick.at.as_deref(), "--at")?;
    let picked = pick::pick(&[&book], args.pick.wanted())?;
    let lines = lines(&book, &picked.models, at);
    if let Some(remark) = &picked.remark {
        eprintln!("bursar: {remark}");
    }
    let mut out = std::io::stdout().lock();
    if args.format == TableFormat::Json {
        writeln!(out, "{:#}", document(&lines, at))?;
        return Ok(ExitCode::SUCCESS);
    }
    let titles = [
        "provider",
        "model",
        "tier",
        "region",
        "hours",
        "item",
        "above",
        "list",
        "contracted",
        "per",
        "currency",
        "from",
        "source",
    ];
    write_rows(args.format, &titles, lines.iter().map(line_cells), &mut out)?;
    if lines.is_empty() {
        eprintln!("bursar: no price holds for that");
    }
    Ok(ExitCode::SUCCESS)
}

fn line_cells(line: &Line) -> Vec<String> {
    let Line { provider, model, holding, from, source } = line;
    let text = |text: &Option<Arc<str>>| text.as_deref().unwrap_or("").to_owned();
    vec![
        provider.to_string(),
        model.to_string(),
        holding.tier.to_string(),
        text(&holding.region),
        holding.hours.map(|hours| hours.to_string()).unwrap_or_default(),
        holding.item.name().to_owned(),
        if holding.above > 0 { holding.above.to_string() } else { String::new() },
        holding.list.clone().unwrap_or_default(),
        holding.contracted.clone(),
        holding.per.to_string(),
        holding.currency.code().to_owned(),
        from.map(instant_text).unwrap_or_default(),
        source.to_string(),
    ]
}

/// Prints every row about one model.
pub(super) fn show(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let book = book(&args.book)?;
    let sheet = sheet(&book, args.provider.as_deref(), &args.model)?;
    let (entry, rows) = (&sheet.entry, &sheet.rows);
    let mut out = std::io::stdout().lock();
    if args.format == TableFormat::Json {
        writeln!(out, "{:#}", sheet.document())?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.format == TableFormat::Table {
        let names = entry.names.iter().map(|name| &**name).collect::<Vec<_>>().join(", ");
        let also = if names.is_empty() { String::new() } else { format!(" (also {names})") };
        writeln!(out, "{}/{}{also}", entry.provider, entry.model)?;
    }
    let titles = [
        "tier", "region", "hours", "item", "above", "value", "unit", "currency", "kind", "from", "until",
        "source", "row",
    ];
    write_rows(args.format, &titles, rows.iter().map(row_cells), &mut out)?;
    Ok(ExitCode::SUCCESS)
}

fn row_cells(row: &PriceRow) -> Vec<String> {
    vec![
        row.tier.to_string(),
        row.region.as_deref().unwrap_or("").to_owned(),
        row.hours.map(|hours| hours.to_string()).unwrap_or_default(),
        row.term_name().to_owned(),
        above(row).map(|above| above.to_string()).unwrap_or_default(),
        row.value_text(),
        row.unit_text(),
        currency(row),
        kind(row).to_owned(),
        row.from.map(instant_text).unwrap_or_default(),
        row.until.map(instant_text).unwrap_or_default(),
        row.source.to_string(),
        row.id.to_string(),
    ]
}
