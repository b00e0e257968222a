//! models.dev's catalogue: providers, their models, `cost` per million tokens.
//!
//! Not here: numbers (`number`), checks of the rows (`check`).

use super::json::{self, Pairs, Raw};
use super::{Import, OverlayRow, Place, TOKEN_DECIMALS};
use crate::price::overlay::{AboveContext, Decimal};
use std::collections::BTreeMap;

/// Their field for each token class.
const CLASSES: &[(&str, &str)] = &[
    ("input", "input"),
    ("output", "output"),
    ("reasoning", "output_reasoning"),
    ("cache_read", "cached_read"),
    ("cache_write", "cache_write"),
    ("input_audio", "input_audio"),
    ("output_audio", "output_audio"),
];

/// Their name of a provider, and ours.
const PROVIDERS: &[(&str, &str)] = &[
    ("amazon-bedrock", "bedrock"),
    ("azure-cognitive-services", "azure"),
    ("fireworks-ai", "fireworks"),
    ("google", "gemini"),
    ("google-vertex", "vertex"),
    ("google-vertex-anthropic", "vertex"),
    ("moonshotai", "moonshot"),
    ("togetherai", "together"),
];

/// The threshold that `context_over_200k` names.
const OVER_200K: u64 = 200_000;

/// Reads the catalogue into `import`.
pub(super) fn read(text: &str, import: &mut Import) -> serde_json::Result<()> {
    let providers: Pairs<Raw<'_>> = serde_json::from_str(text)?;
    for (name, raw) in &providers.0 {
        if json::kind(raw.get()) != "an object" {
            import.leave_out(&format!("{name:?}, which is {} and no provider", json::kind(raw.get())));
            continue;
        }
        let fields = json::pairs(raw.get());
        let provider = PROVIDERS.iter().find(|(theirs, _)| theirs == name).map_or(&**name, |(_, ours)| *ours);
        let Some(models) = fields.get("models") else {
            import.bad(name, "models", "is missing; a provider without models has no place here");
            continue;
        };
        for (model, raw) in &json::pairs(models.get()).0 {
            let entry = format!("{name}/{model}");
            if json::kind(raw.get()) != "an object" {
                import.leave_out(&format!("{entry:?}, which is {} and no model", json::kind(raw.get())));
                continue;
            }
            match json::pairs(raw.get()).get("cost") {
                None => import.leave_out("models without a cost"),
                Some(cost) => {
                    if let Some(row) = row(&entry, provider, model, cost.get(), import)
                        && import.take(provider, model, None)
                    {
                        import.add(vec![row]);
                    }
                }
            }
        }
    }
    Ok(())
}

fn row(entry: &str, provider: &str, model: &str, cost: &str, import: &mut Import) -> Option<OverlayRow> {
    let mut row =
        OverlayRow { provider: provider.to_owned(), model: model.to_owned(), ..OverlayRow::default() };
    let fields = json::pairs(cost);
    row.per_million = prices(entry, "cost", &fields, import);
    let mut above: BTreeMap<u64, BTreeMap<String, Decimal>> = BTreeMap::new();
    if let Some(over) = fields.get("context_over_200k") {
        above.insert(OVER_200K, prices(entry, "cost.context_over_200k", &json::pairs(over.get()), import));
    }
    for tier in fields.get("tiers").map(|raw| json::elements(raw.get())).unwrap_or_default() {
        let fields = json::pairs(tier.get());
        match fields.get("tier").and_then(|raw| context_size(raw.get())) {
            None => import.leave_out("cost.tiers by something else than context"),
            Some(size) => {
                above.insert(size, prices(entry, "cost.tiers", &fields, import));
            }
        }
    }
    for (tokens, mut per_million) in above {
        per_million.retain(|class, _| row.per_million.contains_key(class));
        if !per_million.is_empty() {
            row.above_context.push(AboveContext { tokens: Decimal::from(&*tokens.to_string()), per_million });
        }
    }
    (!super::is_empty(&row)).then_some(row)
}

/// `{"type": "context", "size": 200000}`.
fn context_size(raw: &str) -> Option<u64> {
    let fields = json::pairs(raw);
    let kind = fields.get("type").and_then(|raw| json::text(raw.get()));
    if kind.is_some_and(|kind| kind != "context") {
        return None;
    }
    fields.get("size")?.get().parse().ok().filter(|size| *size > 0)
}

fn prices(
    entry: &str,
    path: &str,
    fields: &Pairs<Raw<'_>>,
    import: &mut Import,
) -> BTreeMap<String, Decimal> {
    let mut prices = BTreeMap::new();
    for (field, raw) in &fields.0 {
        let key = format!("{path}.{field}");
        match CLASSES.iter().find(|(name, _)| name == field) {
            Some((_, class)) => {
                let place = Place { entry, key: &key, shift: 0, decimals: TOKEN_DECIMALS };
                if let Some(price) = import.price(place, raw.get()) {
                    prices.insert((*class).to_owned(), price);
                }
            }
            None if matches!(&**field, "context_over_200k" | "tiers" | "tier") => {}
            None => import.leave_out(&key),
        }
    }
    prices
}
