//! An overlay file as YAML, in the shape that `prices.overlay` reads.
//!
//! Invariants
//! - Reading what is written gives the same rows.
//!
//! Not here: writing it anywhere.

use super::{Decimal, OverlayFile, OverlayRow};
use std::collections::BTreeMap;

/// The file as text.
#[must_use]
pub fn render(file: &OverlayFile) -> String {
    let mut text = String::new();
    if let Some(source) = &file.source {
        text.push_str(&format!("source: {}\n", quoted(source)));
    }
    text.push_str(if file.rows.is_empty() { "rows: []\n" } else { "rows:\n" });
    for row in &file.rows {
        render_row(row, &mut text);
    }
    text
}

fn render_row(row: &OverlayRow, text: &mut String) {
    let mut line = |first: bool, key: &str, value: &str| {
        let mark = if first { "  - " } else { "    " };
        text.push_str(&format!("{mark}{key}: {value}\n"));
    };
    line(true, "provider", &quoted(&row.provider));
    line(false, "model", &quoted(&row.model));
    let words = [
        ("region", &row.region),
        ("tier", &row.tier),
        ("from", &row.from),
        ("until", &row.until),
        ("hours", &row.hours),
        ("currency", &row.currency),
        ("kind", &row.kind),
    ];
    for (key, value) in words {
        if let Some(value) = value {
            line(false, key, &quoted(value));
        }
    }
    if !row.per_million.is_empty() {
        line(false, "per_million", &prices(&row.per_million));
    }
    let fees = [
        ("per_request", &row.per_request),
        ("per_web_search", &row.per_web_search),
        ("per_grounded_request", &row.per_grounded_request),
        ("discount_percent", &row.discount_percent),
    ];
    for (key, value) in fees {
        if let Some(value) = value {
            line(false, key, value.text());
        }
    }
    if !row.per_unit.is_empty() {
        line(false, "per_unit", &prices(&row.per_unit));
    }
    if !row.above_context.is_empty() {
        let one = |above: &super::super::AboveContext| {
            format!("{{ tokens: {}, per_million: {} }}", above.tokens.text(), prices(&above.per_million))
        };
        let all: Vec<String> = row.above_context.iter().map(one).collect();
        line(false, "above_context", &format!("[{}]", all.join(", ")));
    }
}

fn prices(prices: &BTreeMap<String, Decimal>) -> String {
    let all: Vec<String> = prices.iter().map(|(name, price)| format!("{name}: {}", price.text())).collect();
    format!("{{ {} }}", all.join(", "))
}

/// A JSON string is a YAML string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
