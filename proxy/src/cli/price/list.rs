//! `bursar price list` and `bursar price show`.
//!
//! Not here: which price holds (`bursar_policies::price::Holding`).

use super::{ListArgs, ShowArgs, TableFormat, book, instant, pick, write_rows};
use anyhow::bail;
use bursar_domain::Timestamp;
use bursar_policies::price::{Holding, ModelEntry, PriceBook, PriceKind, PriceRow, Term, instant_text};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

/// A price that holds, with its model and what its row says.
pub(super) struct Line {
    pub(super) provider: Arc<str>,
    pub(super) model: Arc<str>,
    pub(super) holding: Holding,
    from: Option<Timestamp>,
    source: Arc<str>,
}

/// What holds for the models that were picked.
pub(super) fn lines(book: &PriceBook, models: &[ModelEntry], at: Timestamp) -> Vec<Line> {
    let mut lines = Vec::new();
    for entry in models {
        let holding = book.holding(&entry.provider, &entry.model, at);
        if holding.is_empty() {
            continue;
        }
        let rows = book.sheet(&entry.provider, &entry.model).map(|(_, rows)| rows).unwrap_or_default();
        let rows: HashMap<&str, &PriceRow> = rows.iter().map(|row| (&*row.id, row)).collect();
        for holding in holding {
            let row = holding.rows.first().and_then(|id| rows.get(&**id));
            lines.push(Line {
                provider: Arc::clone(&entry.provider),
                model: Arc::clone(&entry.model),
                from: row.and_then(|row| row.from),
                source: row.map_or_else(|| Arc::from(""), |row| Arc::clone(&row.source)),
                holding,
            });
        }
    }
    lines
}

/// Prints the prices that hold.
pub(super) fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let book = book(&args.book)?;
    let at = instant(args.pick.at.as_deref(), "--at")?;
    let picked = pick::pick(&[&book], &args.pick)?;
    let lines = lines(&book, &picked.models, at);
    if let Some(remark) = &picked.remark {
        eprintln!("bursar: {remark}");
    }
    let mut out = std::io::stdout().lock();
    if args.format == TableFormat::Json {
        let prices: Vec<Value> = lines.iter().map(line_json).collect();
        writeln!(out, "{:#}", json!({ "at": crate::report::rfc3339(at), "prices": prices }))?;
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

/// What is absent holds always, or everywhere.
fn line_json(line: &Line) -> Value {
    let Line { provider, model, holding, from, source } = line;
    let mut object = json!({
        "provider": &**provider,
        "model": &**model,
        "tier": &*holding.tier,
        "region": holding.region.as_deref(),
        "hours": holding.hours.map(|hours| hours.to_string()),
        "item": holding.item.name(),
        "above": (holding.above > 0).then_some(holding.above),
        "list": holding.list.as_deref(),
        "contracted": &holding.contracted,
        "per": holding.per,
        "currency": holding.currency.code(),
        "from": from.map(instant_text),
        "source": &**source,
        "rows": holding.rows.iter().map(|id| &**id).collect::<Vec<_>>(),
    });
    without_nulls(&mut object);
    object
}

fn without_nulls(value: &mut Value) {
    if let Value::Object(object) = value {
        object.retain(|_, value| !value.is_null());
    }
}

/// The one provider that has `model`.
fn only_provider(book: &PriceBook, model: &str) -> anyhow::Result<String> {
    let mut providers = pick::providers_of(book, model);
    match providers.len() {
        0 => {
            // Whoever names a provider alone means its models.
            if book.models().any(|entry| *entry.provider == *model) {
                bail!(
                    "{model:?} is a provider: name a model of it too, or see `bursar price list --provider {model}`"
                );
            }
            bail!(
                "the price book has no model {model:?}{}; all whose names have it: `bursar price list --model '*{model}*'`",
                pick::near_anywhere(book, model)
            );
        }
        1 => Ok(providers.remove(0)),
        _ => bail!(
            "several providers have {model:?}: name one of {}, as in `bursar price show {} {model}`",
            providers.join(", "),
            providers.first().map_or("", String::as_str)
        ),
    }
}

/// Prints every row about one model.
pub(super) fn show(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let book = book(&args.book)?;
    let provider = match &args.provider {
        Some(provider) => provider.clone(),
        None => only_provider(&book, &args.model)?,
    };
    let Some((entry, mut rows)) = book.sheet(&provider, &args.model) else {
        pick::known_provider(&[&book], &provider)?;
        bail!(
            "the price book has no model {:?} of provider {provider:?}{}; all of them: `bursar price list \
             --provider {provider}`",
            args.model,
            pick::near_models(&book, &provider, &args.model),
        );
    };
    let place = |row: &PriceRow| (row.tier != Arc::from("standard"), row.tier.clone(), row.region.clone());
    rows.sort_by(|a, b| {
        place(a).cmp(&place(b)).then_with(|| a.from.cmp(&b.from)).then_with(|| a.id.cmp(&b.id))
    });
    let mut out = std::io::stdout().lock();
    if args.format == TableFormat::Json {
        let rows: Vec<Value> = rows.iter().map(row_json).collect();
        let names: Vec<&str> = entry.names.iter().map(|name| &**name).collect();
        let document =
            json!({ "provider": &*entry.provider, "model": &*entry.model, "names": names, "rows": rows });
        writeln!(out, "{document:#}")?;
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

/// The currency of a price; a factor has none.
fn currency(row: &PriceRow) -> String {
    match &row.term {
        Term::Price { price, .. } => price.rate.currency().to_string(),
        Term::Uplift(_) | Term::Discount(_) => String::new(),
    }
}

const fn kind(row: &PriceRow) -> &'static str {
    match row.kind {
        PriceKind::List => "list",
        PriceKind::Contracted => "contracted",
    }
}

fn above(row: &PriceRow) -> Option<u64> {
    row.price().map(|(_, above, _)| above).filter(|above| *above > 0)
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

fn row_json(row: &PriceRow) -> Value {
    let mut object = json!({
        "row": &*row.id,
        "tier": &*row.tier,
        "region": row.region.as_deref(),
        "hours": row.hours.map(|hours| hours.to_string()),
        "item": row.term_name(),
        "above": above(row),
        "value": row.value_text(),
        "unit": row.unit_text(),
        "currency": Some(currency(row)).filter(|code| !code.is_empty()),
        "kind": kind(row),
        "from": row.from.map(instant_text),
        "until": row.until.map(instant_text),
        "source": &*row.source,
    });
    without_nulls(&mut object);
    object
}
