//! `bursar price diff`: what holds in one book at one time and not so in another.
//!
//! Not here: what differs (`crate::prices::diff`).

use super::{DiffArgs, TableFormat, book_with, builtin, instant, write_rows};
use crate::prices::diff::{Change, Price, Side, changes, document};
use crate::prices::pick;
use bursar_policies::price::PriceBook;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Prints the differences; exit code 0 also when there are some.
pub(super) fn run(args: &DiffArgs) -> anyhow::Result<ExitCode> {
    let at = instant(args.pick.at.as_deref(), "--at")?;
    let before_at = args.before_at.as_deref().map_or(Ok(at), |text| instant(Some(text), "--before-at"))?;
    let (old, new) = (side(&args.before)?, side(&args.after)?);
    let picked = pick::pick(&[&old, &new], args.pick.wanted())?;
    if let Some(remark) = &picked.remark {
        eprintln!("bursar: {remark}");
    }
    let before = Side { name: &args.before, book: &old, at: before_at };
    let after = Side { name: &args.after, book: &new, at };
    let changes = changes(before, after, &picked);
    let mut out = std::io::stdout().lock();
    if args.format == TableFormat::Json {
        writeln!(out, "{:#}", document(before, after, &changes))?;
        return Ok(ExitCode::SUCCESS);
    }
    let titles = [
        "change", "provider", "model", "tier", "region", "hours", "item", "above", "before", "after",
        "currency",
    ];
    write_rows(args.format, &titles, changes.iter().map(cells), &mut out)?;
    eprintln!("bursar: {} prices differ", changes.len());
    Ok(ExitCode::SUCCESS)
}

fn side(name: &str) -> anyhow::Result<PriceBook> {
    if name == "builtin" { builtin() } else { book_with(Path::new(name)) }
}

/// The list price, or the list and the negotiated price where they differ.
fn text(price: Option<&Price>) -> String {
    match price {
        None => String::new(),
        Some((Some(list), contracted, _)) if list == contracted => list.clone(),
        Some((list, contracted, _)) => {
            format!("{} (contracted {contracted})", list.as_deref().unwrap_or("no list price"))
        }
    }
}

fn cells(change: &Change) -> Vec<String> {
    let (old, new) = (change.before.as_ref(), change.after.as_ref());
    let currency = new.or(old).map_or_else(String::new, |(_, _, currency)| currency.to_string());
    let key = change.key.iter().map(|part| part.trim_start().to_owned());
    let ends = [text(old), text(new), currency];
    std::iter::once(change.name().to_owned()).chain(key).chain(ends).collect()
}
