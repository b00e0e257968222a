//! What holds in one book at one time and not so in another.
//!
//! Not here: what holds (`list`), tables (`cli::price`).

use super::list::{self, Line};
use super::pick::Picked;
use crate::report::rfc3339;
use bursar_domain::{Currency, Timestamp};
use bursar_policies::price::PriceBook;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Where a price stands: provider, model, tier, region, hours, item, threshold.
pub(crate) type Key = [String; 7];

/// A price: list, contracted, currency.
pub(crate) type Price = (Option<String>, String, Currency);

/// A book as it is at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side<'b> {
    /// What it is called.
    pub(crate) name: &'b str,
    pub(crate) book: &'b PriceBook,
    pub(crate) at: Timestamp,
}

/// A price that differs, is new, or is gone.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) key: Key,
    pub(crate) before: Option<Price>,
    pub(crate) after: Option<Price>,
}

/// What differs for the models that were picked, by place.
pub(crate) fn changes(before: Side<'_>, after: Side<'_>, picked: &Picked) -> Vec<Change> {
    let held = |side: Side<'_>| by_key(list::lines(side.book, &picked.models, side.at));
    let (old, mut new) = (held(before), held(after));
    let mut changes = Vec::new();
    for (key, price) in old {
        let other = new.remove(&key);
        if other.as_ref() != Some(&price) {
            changes.push(Change { key, before: Some(price), after: other });
        }
    }
    changes.extend(new.into_iter().map(|(key, price)| Change { key, before: None, after: Some(price) }));
    changes.sort_by(|a, b| a.key.cmp(&b.key));
    changes
}

/// The same as a document.
pub(crate) fn document(before: Side<'_>, after: Side<'_>, changes: &[Change]) -> Value {
    let changes: Vec<Value> = changes.iter().map(Change::json).collect();
    let told = |side: Side<'_>| json!({ "book": side.name, "at": rfc3339(side.at) });
    json!({ "before": told(before), "after": told(after), "changes": changes })
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

impl Change {
    /// What happened to the price.
    pub(crate) const fn name(&self) -> &'static str {
        match (&self.before, &self.after) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        }
    }

    fn json(&self) -> Value {
        let [provider, model, tier, region, hours, item, above] = &self.key;
        let some = |text: &String| (!text.is_empty()).then(|| text.trim_start().to_owned());
        let side = |price: &Option<Price>| {
            price.as_ref().map(|(list, contracted, currency)| {
                json!({ "list": list, "contracted": contracted, "currency": currency.code() })
            })
        };
        json!({
            "change": self.name(),
            "provider": provider,
            "model": model,
            "tier": tier,
            "region": some(region),
            "hours": some(hours),
            "item": item,
            "above": some(above).and_then(|above| above.parse::<u64>().ok()),
            "before": side(&self.before),
            "after": side(&self.after),
        })
    }
}
