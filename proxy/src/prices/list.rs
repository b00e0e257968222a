//! The prices that hold at a time, and every row about one model.
//!
//! Not here: which price holds (`bursar_policies::price::Holding`), tables (`cli::price`).

use super::pick;
use crate::hedge::AskError;
use crate::report::rfc3339;
use bursar_domain::Timestamp;
use bursar_policies::price::{Holding, ModelEntry, PriceBook, PriceKind, PriceRow, Term, instant_text};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// A price that holds, with its model and what its row says.
pub(crate) struct Line {
    pub(crate) provider: Arc<str>,
    pub(crate) model: Arc<str>,
    pub(crate) holding: Holding,
    pub(crate) from: Option<Timestamp>,
    pub(crate) source: Arc<str>,
}

/// What holds for the models that were picked.
pub(crate) fn lines(book: &PriceBook, models: &[ModelEntry], at: Timestamp) -> Vec<Line> {
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

/// The prices that hold as a document.
pub(crate) fn document(lines: &[Line], at: Timestamp) -> Value {
    let prices: Vec<Value> = lines.iter().map(line_json).collect();
    json!({ "at": rfc3339(at), "prices": prices })
}

/// A name that a price has for itself among those that hold at a time.
pub(crate) fn name(line: &Line) -> String {
    let Line { provider, model, holding, .. } = line;
    let region = holding.region.as_deref().unwrap_or_default();
    let hours = holding.hours.map(|hours| hours.to_string()).unwrap_or_default();
    let above = if holding.above > 0 { holding.above.to_string() } else { String::new() };
    [provider, model, &*holding.tier, region, &hours, holding.item.name(), &above].join("|")
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
fn only_provider(book: &PriceBook, model: &str) -> Result<String, AskError> {
    let mut providers = pick::providers_of(book, model);
    match providers.len() {
        0 => {
            // Whoever names a provider alone means its models.
            if book.models().any(|entry| *entry.provider == *model) {
                return Err(AskError::Missing(format!(
                    "{model:?} is a provider: name a model of it too, or see `bursar price list --provider {model}`"
                )));
            }
            Err(AskError::Missing(format!(
                "the price book has no model {model:?}{}; all whose names have it: `bursar price list --model '*{model}*'`",
                pick::near_anywhere(book, model)
            )))
        }
        1 => Ok(providers.remove(0)),
        // No one model is meant, as with a name that nobody has.
        _ => Err(AskError::Missing(format!(
            "several providers have {model:?}: name one of {}, as in `bursar price show {} {model}`",
            providers.join(", "),
            providers.first().map_or("", String::as_str)
        ))),
    }
}

/// Every row about a model; by tier, region and time.
#[derive(Debug)]
pub(crate) struct Sheet {
    pub(crate) entry: ModelEntry,
    pub(crate) rows: Vec<PriceRow>,
}

/// Every row about `model` of `provider`, which may be left out where only one has the model.
pub(crate) fn sheet(book: &PriceBook, provider: Option<&str>, model: &str) -> Result<Sheet, AskError> {
    let provider = match provider {
        Some(provider) => provider.to_owned(),
        None => only_provider(book, model)?,
    };
    let Some((entry, mut rows)) = book.sheet(&provider, model) else {
        pick::known_provider(&[book], &provider)?;
        return Err(AskError::Missing(format!(
            "the price book has no model {model:?} of provider {provider:?}{}; all of them: `bursar price list \
             --provider {provider}`",
            pick::near_models(book, &provider, model),
        )));
    };
    let place = |row: &PriceRow| (row.tier != Arc::from("standard"), row.tier.clone(), row.region.clone());
    rows.sort_by(|a, b| {
        place(a).cmp(&place(b)).then_with(|| a.from.cmp(&b.from)).then_with(|| a.id.cmp(&b.id))
    });
    Ok(Sheet { entry, rows })
}

impl Sheet {
    /// It as a document.
    pub(crate) fn document(&self) -> Value {
        let Self { entry, rows } = self;
        let rows: Vec<Value> = rows.iter().map(row_json).collect();
        let names: Vec<&str> = entry.names.iter().map(|name| &**name).collect();
        json!({ "provider": &*entry.provider, "model": &*entry.model, "names": names, "rows": rows })
    }
}

/// The currency of a price; a factor has none.
pub(crate) fn currency(row: &PriceRow) -> String {
    match &row.term {
        Term::Price { price, .. } => price.rate.currency().to_string(),
        Term::Uplift(_) | Term::Discount(_) => String::new(),
    }
}

/// Whose price it is.
pub(crate) const fn kind(row: &PriceRow) -> &'static str {
    match row.kind {
        PriceKind::List => "list",
        PriceKind::Contracted => "contracted",
    }
}

/// Above how many tokens it holds.
pub(crate) fn above(row: &PriceRow) -> Option<u64> {
    row.price().map(|(_, above, _)| above).filter(|above| *above > 0)
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
