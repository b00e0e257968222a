//! `bursar price diff`: what holds in one book at one time and not so in another.
//!
//! Not here: what holds (`list`).

use super::list::{self, Line};
use super::pick;
use super::{DiffArgs, TableFormat, book_with, builtin, instant, write_rows};
use bursar_domain::Currency;
use bursar_policies::price::PriceBook;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Where a price stands: provider, model, tier, region, hours, item, threshold.
type Key = [String; 7];

/// A price: list, contracted, currency.
type Price = (Option<String>, String, Currency);

/// Prints the differences; exit code 0 also when there are some.
pub(super) fn run(args: &DiffArgs) -> anyhow::Result<ExitCode> {
    let at = instant(args.pick.at.as_deref(), "--at")?;
    let before_at = args.before_at.as_deref().map_or(Ok(at), |text| instant(Some(text), "--before-at"))?;
    let (before, after) = (side(&args.before)?, side(&args.after)?);
    let picked = pick::pick(&[&before, &after], &args.pick)?;
    let old = by_key(list::lines(&before, &picked.models, before_at));
    let new = by_key(list::lines(&after, &picked.models, at));
    if let Some(remark) = &picked.remark {
        eprintln!("bursar: {remark}");
    }
    let mut changes: Vec<(&Key, Option<&Price>, Option<&Price>)> = Vec::new();
    for (key, price) in &old {
        if new.get(key) != Some(price) {
            changes.push((key, Some(price), new.get(key)));
        }
    }
    changes.extend(
        new.iter().filter(|(key, _)| !old.contains_key(*key)).map(|(key, price)| (key, None, Some(price))),
    );
    changes.sort_by_key(|(key, _, _)| *key);
    let mut out = std::io::stdout().lock();
    if args.format == TableFormat::Json {
        let changes: Vec<Value> =
            changes.iter().map(|(key, old, new)| change_json(key, *old, *new)).collect();
        let times = [before_at, at].map(crate::report::rfc3339);
        let document = json!({
            "before": { "book": args.before, "at": times[0] },
            "after": { "book": args.after, "at": times[1] },
            "changes": changes,
        });
        writeln!(out, "{document:#}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let titles = [
        "change", "provider", "model", "tier", "region", "hours", "item", "above", "before", "after",
        "currency",
    ];
    write_rows(args.format, &titles, changes.iter().map(|(key, old, new)| cells(key, *old, *new)), &mut out)?;
    eprintln!("bursar: {} prices differ", changes.len());
    Ok(ExitCode::SUCCESS)
}

fn side(name: &str) -> anyhow::Result<PriceBook> {
    if name == "builtin" { builtin() } else { book_with(Path::new(name)) }
}

fn by_key(lines: Vec<Line>) -> BTreeMap<Key, Price> {
    let entry = |line: Line| {
        let Line { provider, model, holding, .. } = line;
        let key = [
            provider.to_string(),
            model.to_string(),
            holding.tier.to_string(),
            holding.region.as_deref().unwrap_or("").to_owned(),
            holding.hours.map(|hours| hours.to_string()).unwrap_or_default(),
            holding.item.name().to_owned(),
            // Sorts as a number.
            if holding.above > 0 { format!("{:>12}", holding.above) } else { String::new() },
        ];
        (key, (holding.list, holding.contracted, holding.currency))
    };
    lines.into_iter().map(entry).collect()
}

const fn change(old: Option<&Price>, new: Option<&Price>) -> &'static str {
    match (old, new) {
        (None, _) => "added",
        (_, None) => "removed",
        _ => "changed",
    }
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

fn cells(key: &Key, old: Option<&Price>, new: Option<&Price>) -> Vec<String> {
    let currency = new.or(old).map_or_else(String::new, |(_, _, currency)| currency.to_string());
    let key = key.iter().map(|part| part.trim_start().to_owned());
    let ends = [text(old), text(new), currency];
    std::iter::once(change(old, new).to_owned()).chain(key).chain(ends).collect()
}

fn change_json(key: &Key, old: Option<&Price>, new: Option<&Price>) -> Value {
    let [provider, model, tier, region, hours, item, above] = key;
    let some = |text: &String| (!text.is_empty()).then(|| text.trim_start().to_owned());
    let side = |price: Option<&Price>| {
        price.map(|(list, contracted, currency)| {
            json!({ "list": list, "contracted": contracted, "currency": currency.code() })
        })
    };
    json!({
        "change": change(old, new),
        "provider": provider,
        "model": model,
        "tier": tier,
        "region": some(region),
        "hours": some(hours),
        "item": item,
        "above": some(above).and_then(|above| above.parse::<u64>().ok()),
        "before": side(old),
        "after": side(new),
    })
}
