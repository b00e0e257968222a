//! LiteLLM's map: one entry per name, prices per token in fields that say class, threshold and tier.
//!
//! How names read
//! - `litellm_provider` says the provider, by our names where we have one; the name loses the
//!   beginning that LiteLLM puts before it (`xai/grok-4`), and the data zone or region of Azure and
//!   Bedrock (`azure/eu/…`, `bedrock/eu-west-1/…`) becomes the row's region.
//! - Names that hold a size, a quality or a term of commitment are left out: no record tells those.
//!
//! Not here: numbers (`number`), checks of the rows (`check`).

use super::json::{self, Pairs, Raw};
use super::{Import, OverlayRow, Place, TOKEN_DECIMALS, UNIT_DECIMALS, is_empty};
use crate::price::overlay::{AboveContext, Decimal};
use std::collections::BTreeMap;

/// LiteLLM's field for each token class.
const CLASSES: &[(&str, &str)] = &[
    ("input_cost_per_token", "input"),
    ("output_cost_per_token", "output"),
    ("cache_read_input_token_cost", "cached_read"),
    ("cache_creation_input_token_cost", "cache_write"),
    ("cache_creation_input_token_cost_above_1hr", "cache_write_1h"),
    ("input_cost_per_audio_token", "input_audio"),
    ("cache_read_input_audio_token_cost", "cached_audio"),
    ("output_cost_per_audio_token", "output_audio"),
    ("input_cost_per_image_token", "input_image"),
    ("cache_read_input_image_token_cost", "cached_image"),
    ("output_cost_per_image_token", "output_image"),
    ("input_cost_per_video_token", "input_video"),
    ("output_cost_per_reasoning_token", "output_reasoning"),
];

const TIERS: &[(&str, &str)] = &[
    ("_batches", "batch"),
    ("_flex", "flex"),
    ("_priority", "priority"),
    ("_ultrafast", "ultrafast"),
    ("_balanced", "balanced"),
];

/// LiteLLM's provider, ours, and the beginnings that LiteLLM puts before names.
const PROVIDERS: &[(&str, &str, &[&str])] = &[
    ("text-completion-openai", "openai", &[]),
    ("azure", "azure", &["azure/"]),
    ("azure_ai", "azure", &["azure_ai/"]),
    ("azure_text", "azure", &["azure/", "azure_text/"]),
    ("bedrock", "bedrock", &["bedrock/"]),
    ("bedrock_converse", "bedrock", &["bedrock/", "bedrock_converse/"]),
    ("bedrock_mantle", "bedrock-mantle", &["bedrock_mantle/"]),
    ("cohere", "cohere", &["cohere/"]),
    ("cohere_chat", "cohere", &["cohere_chat/", "cohere/"]),
    ("dashscope", "alibaba", &["dashscope/"]),
    ("fireworks_ai", "fireworks", &["fireworks_ai/"]),
    ("fireworks_ai-embedding-models", "fireworks", &["fireworks_ai/"]),
    ("github_copilot", "github-copilot", &["github_copilot/"]),
    ("together_ai", "together", &["together_ai/"]),
    ("vertex_ai", "vertex", &["vertex_ai/"]),
];

/// Reads the map into `import`.
pub(super) fn read(text: &str, import: &mut Import) -> serde_json::Result<()> {
    let entries: Pairs<Raw<'_>> = serde_json::from_str(text)?;
    let mut seen = std::collections::BTreeSet::new();
    for (name, raw) in &entries.0 {
        if name == "sample_spec" {
            continue;
        }
        if !seen.insert(name) {
            import.bad(name, "litellm_provider", "the entry is there twice: remove one");
            continue;
        }
        match json::kind(raw.get()) {
            "an object" => entry(name, &json::pairs(raw.get()), import),
            kind => import.leave_out(&format!("{name:?}, which is {kind} and no model")),
        }
    }
    Ok(())
}

fn entry(name: &str, fields: &Pairs<Raw<'_>>, import: &mut Import) {
    let provider = fields.get("litellm_provider").and_then(|raw| json::text(raw.get()));
    if provider.is_none() && !fields.0.iter().any(|(field, _)| field.contains("cost")) {
        return import.leave_out(&format!("{name:?}, which has neither a provider nor a price"));
    }
    let Some(theirs) = provider.filter(|provider| !provider.is_empty()) else {
        return import.bad(name, "litellm_provider", "is missing; say whose model it is, such as \"openai\"");
    };
    let (provider, beginnings) = ours(&theirs);
    let Some((model, region)) = local_name(&provider, &theirs, beginnings, name) else {
        return import.leave_out("names with a size, quality or commitment");
    };
    let mut entry = Entry { name, provider, model, region, rows: BTreeMap::new() };
    let mode = fields.get("mode").and_then(|raw| json::text(raw.get())).unwrap_or_default();
    for (field, raw) in &fields.0 {
        entry.field(field, raw.get(), &mode, import);
    }
    entry.settle(&mode, import);
    let rows: Vec<OverlayRow> = entry.rows.into_values().filter(|row| !is_empty(row)).collect();
    if !rows.is_empty() && import.take(&entry.provider, &entry.model, entry.region.as_deref()) {
        import.add(rows);
    }
}

/// Our name of LiteLLM's provider, and what LiteLLM puts before its models' names.
fn ours(theirs: &str) -> (String, &'static [&'static str]) {
    let theirs = if theirs.starts_with("vertex_ai-") { "vertex_ai" } else { theirs };
    match PROVIDERS.iter().find(|(name, _, _)| *name == theirs) {
        Some((_, ours, beginnings)) => ((*ours).to_owned(), beginnings),
        None => (theirs.to_owned(), &[]),
    }
}

/// The model's own name and its region; `None` for names that no record tells apart.
fn local_name(
    provider: &str,
    theirs: &str,
    beginnings: &[&str],
    name: &str,
) -> Option<(String, Option<String>)> {
    let own = name.strip_prefix(theirs).and_then(|rest| rest.strip_prefix('/'));
    let stripped =
        beginnings.iter().find_map(|beginning| name.strip_prefix(beginning)).or(own).unwrap_or(name);
    let untold = |part: &str| {
        matches!(part, "low" | "medium" | "high" | "hd" | "standard" | "auto" | "max-x-max" | "*")
            || part.ends_with("-month-commitment")
            || part.ends_with("-steps")
            || part.split_once("-x-").is_some_and(|(width, _)| width.bytes().all(|b| b.is_ascii_digit()))
    };
    if stripped.split('/').any(untold) {
        return None;
    }
    let zoned = matches!(provider, "azure" | "bedrock" | "bedrock-mantle");
    match stripped.split_once('/').filter(|_| zoned) {
        Some((zone, model)) if is_region(zone) => Some((model.to_owned(), Some(zone.to_owned()))),
        Some(("global" | "global-standard", model)) => Some((model.to_owned(), None)),
        _ => Some((stripped.to_owned(), None)),
    }
}

/// `us`, `eu`, `us-gov`, `eu-west-1`, `us-gov-west-1`.
fn is_region(zone: &str) -> bool {
    let numbered = zone.rsplit_once('-').is_some_and(|(area, number)| {
        area.contains('-') && number.len() == 1 && number.bytes().all(|b| b.is_ascii_digit())
    });
    numbered || matches!(zone, "us" | "eu" | "us-gov")
}

/// One entry becoming rows, one for each tier.
struct Entry<'a> {
    name: &'a str,
    provider: String,
    model: String,
    region: Option<String>,
    rows: BTreeMap<&'static str, OverlayRow>,
}

impl Entry<'_> {
    fn row(&mut self, tier: &'static str) -> &mut OverlayRow {
        let (provider, model, region) = (&self.provider, &self.model, &self.region);
        self.rows.entry(tier).or_insert_with(|| OverlayRow {
            provider: provider.clone(),
            model: model.clone(),
            region: region.clone(),
            tier: (!tier.is_empty()).then(|| tier.to_owned()),
            ..OverlayRow::default()
        })
    }

    fn field(&mut self, field: &str, raw: &str, mode: &str, import: &mut Import) {
        if let Some((class, above, tier)) = token_field(field) {
            if let Some(price) = self.token_price(field, raw, import) {
                set(self.row(tier), class, above, price);
            }
            return;
        }
        match field {
            "tiered_pricing" => self.steps(raw, import),
            "search_context_cost_per_query" => self.searches(raw, import),
            "input_cost_per_request" => {
                let price = self.unit_price(field, raw, import);
                self.row("").per_request = price;
            }
            "input_cost_per_query" if mode == "rerank" => self.unit(field, raw, "search_units", import),
            "ocr_cost_per_page" => self.unit(field, raw, "pages", import),
            "input_cost_per_second" if mode == "audio_transcription" => {
                self.unit(field, raw, "audio_seconds", import);
            }
            "output_cost_per_image" | "input_cost_per_image"
                if matches!(mode, "image_generation" | "image_edit") =>
            {
                self.unit(field, raw, "images", import);
            }
            // A synonym of the cache's price, and settings that are no prices.
            "input_cost_per_token_cache_hit" => {}
            _ if field.contains("cost")
                || field.contains("multiplier")
                || field == "provider_specific_entry" =>
            {
                import.leave_out(field);
            }
            _ => {}
        }
    }

    fn token_price(&self, key: &str, raw: &str, import: &mut Import) -> Option<Decimal> {
        import.price(Place { entry: self.name, key, shift: 6, decimals: TOKEN_DECIMALS }, raw)
    }

    fn unit_price(&self, key: &str, raw: &str, import: &mut Import) -> Option<Decimal> {
        import.price(Place { entry: self.name, key, shift: 0, decimals: UNIT_DECIMALS }, raw)
    }

    fn unit(&mut self, field: &str, raw: &str, unit: &str, import: &mut Import) {
        if let Some(price) = self.unit_price(field, raw, import) {
            self.row("").per_unit.insert(unit.to_owned(), price);
        }
    }

    /// Prices by range of context: each range's beginning is a threshold.
    fn steps(&mut self, raw: &str, import: &mut Import) {
        if !matches!(json::kind(raw), "a list" | "null") {
            return import.leave_out(&format!("tiered_pricing that is {}", json::kind(raw)));
        }
        for step in json::elements(raw) {
            let fields = json::pairs(step.get());
            let range = fields.get("range").map(|raw| json::elements(raw.get())).unwrap_or_default();
            let from = range.first().and_then(|raw| super::number::Exact::parse(raw.get()));
            let from =
                from.and_then(|from| from.to_decimals(0)).and_then(|(text, _)| text.parse::<u64>().ok());
            let Some(from) = from else {
                import.leave_out("tiered_pricing without a range of tokens");
                continue;
            };
            for (field, raw) in &fields.0 {
                if let Some((class, 0, "")) = token_field(field)
                    && let Some(price) =
                        self.token_price(&format!("tiered_pricing.{field}"), raw.get(), import)
                {
                    set(self.row(""), class, from, price);
                }
            }
        }
    }

    /// One price whatever the size of the context; a price by size is left out.
    fn searches(&mut self, raw: &str, import: &mut Import) {
        if !matches!(json::kind(raw), "an object" | "null") {
            return import.leave_out(&format!("search_context_cost_per_query that is {}", json::kind(raw)));
        }
        let sizes = json::pairs(raw);
        let mut prices = Vec::new();
        for (size, raw) in &sizes.0 {
            let key = format!("search_context_cost_per_query.{size}");
            prices.extend(self.unit_price(&key, raw.get(), import));
        }
        match prices.first() {
            Some(first) if prices.iter().all(|price| price == first) => {
                self.row("").per_web_search = Some(first.clone());
            }
            Some(_) => import.leave_out("search_context_cost_per_query that depends on the size"),
            None => {}
        }
    }

    /// Takes away what an overlay row cannot say.
    fn settle(&mut self, mode: &str, import: &mut Import) {
        for row in self.rows.values_mut() {
            let zero = |price: &Decimal| price.text() == "0";
            let units = !row.per_unit.is_empty() && row.per_million.values().all(zero);
            if units || matches!(mode, "embedding" | "rerank") {
                // There are no such tokens, so nobody counts them.
                row.per_million.retain(|_, price| !zero(price));
            }
            let base = &row.per_million;
            for above in &mut row.above_context {
                let before = above.per_million.len();
                above.per_million.retain(|class, _| base.contains_key(class));
                for _ in above.per_million.len()..before {
                    import.leave_out("a threshold without a base price");
                }
            }
            row.above_context.retain(|above| !above.per_million.is_empty());
            // Tokens and seconds, or tokens and images, measure one thing twice.
            if !row.per_million.is_empty() {
                for unit in ["images", "audio_seconds"] {
                    if row.per_unit.remove(unit).is_some() {
                        import.leave_out("a price by image or second beside token prices");
                    }
                }
            }
        }
    }
}

/// Class, threshold (0 for none) and tier (empty for standard) of a token price's field.
fn token_field(field: &str) -> Option<(&'static str, u64, &'static str)> {
    let found = TIERS.iter().find_map(|(end, tier)| field.strip_suffix(end).map(|rest| (rest, *tier)));
    let (rest, tier) = found.unwrap_or((field, ""));
    let threshold = rest.strip_suffix("k_tokens").and_then(|rest| rest.rsplit_once("_above_"));
    let (rest, above) = match threshold {
        None => (rest, 0),
        Some((rest, thousands)) => (rest, thousands.parse::<u64>().ok()?.checked_mul(1_000)?),
    };
    let class = CLASSES.iter().find(|(name, _)| *name == rest)?;
    Some((class.1, above, tier))
}

fn set(row: &mut OverlayRow, class: &str, above: u64, price: Decimal) {
    if above == 0 {
        row.per_million.insert(class.to_owned(), price);
        return;
    }
    let tokens = Decimal::from(&*above.to_string());
    match row.above_context.iter_mut().find(|entry| entry.tokens == tokens) {
        Some(entry) => {
            entry.per_million.insert(class.to_owned(), price);
        }
        None => {
            let per_million = BTreeMap::from([(class.to_owned(), price)]);
            row.above_context.push(AboveContext { tokens, per_million });
        }
    }
}
