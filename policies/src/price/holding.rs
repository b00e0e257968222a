//! What holds: the prices of a model at one time, in every dimension, for people to read.
//!
//! Invariants
//! - A price shown here is the one that a call of that time, tier, region and context pays.
//!
//! Not here: every row with its dates (`PriceBook::sheet`), what a call costs (`mod`).

use super::book::PriceBook;
use super::compile::{Band, Slot, Table, Variant};
use super::row::{Hours, Item, MILLION};
use bursar_domain::money::format_pico;
use bursar_domain::{Currency, Timestamp};
use std::sync::Arc;

/// One price that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The tier.
    pub tier: Arc<str>,
    /// The region; `None` where no particular one is named.
    pub region: Option<Arc<str>>,
    /// The part of the day; `None` all day.
    pub hours: Option<Hours>,
    /// What is priced.
    pub item: Item,
    /// For requests with more input than this; 0 for all.
    pub above: u64,
    /// The public price, per million tokens or per unit, as a plain decimal.
    pub list: Option<String>,
    /// The negotiated price; that of the list where there is no other.
    pub contracted: String,
    /// How many units the prices are for; a million for tokens.
    pub per: u32,
    /// The currency of both.
    pub currency: Currency,
    /// The rows that say so: of the public price, of the negotiated one, of a regional factor.
    pub rows: Vec<Arc<str>>,
}

impl PriceBook {
    /// The prices that hold for a model at `at`, by region, tier, part of the day, item and context.
    /// Empty when nothing holds then, or the book does not know the name.
    #[must_use]
    pub fn holding(&self, provider: &str, model: &str, at: Timestamp) -> Vec<Holding> {
        let Some(table) = self.table(provider, model) else { return Vec::new() };
        let mut found = Vec::new();
        for variant in &table.variants {
            of_variant(table, variant, at, &mut found);
        }
        found
    }
}

fn of_variant(table: &Table, variant: &Variant, at: Timestamp, found: &mut Vec<Holding>) {
    let Some(period) = variant.period(at) else { return };
    for (from, until, bands) in period.faces() {
        let hours = Hours::between(from, until);
        let slots = bands.first().map_or(&[][..], |band| &band.slots);
        for item in slots.iter().map(|slot| slot.item).chain(only_above(bands)) {
            let mut last: Option<&Slot> = None;
            for band in bands {
                let Some(slot) = band.slot(item).filter(|slot| Some(*slot) != last) else { continue };
                last = Some(slot);
                found.push(holding(table, variant, hours, band.above, period.currency, slot));
            }
        }
    }
}

/// Items that have a price only above some threshold.
fn only_above(bands: &[Band]) -> Vec<Item> {
    let (first, rest) = match bands.split_first() {
        Some((first, rest)) => (first, rest),
        None => return Vec::new(),
    };
    let mut items: Vec<Item> = rest.iter().flat_map(|band| band.slots.iter().map(|slot| slot.item)).collect();
    items.retain(|item| first.slot(*item).is_none());
    items.sort_unstable();
    items.dedup();
    items
}

fn holding(
    table: &Table,
    variant: &Variant,
    hours: Option<Hours>,
    above: u64,
    currency: Currency,
    slot: &Slot,
) -> Holding {
    let rows = [slot.list_row, slot.contracted_row, slot.uplift_row].into_iter().flatten();
    let mut rows: Vec<Arc<str>> = rows.filter_map(|row| table.id(row).cloned()).collect();
    rows.dedup();
    let scale = if slot.item.is_token() { MILLION } else { 1 };
    let text = |pico: u64| format_pico(i128::from(pico).saturating_mul(i128::from(scale)));
    Holding {
        tier: Arc::clone(&variant.tier),
        region: variant.region.clone(),
        hours,
        item: slot.item,
        above,
        list: slot.list_row.map(|_| text(slot.list)),
        contracted: text(slot.contracted),
        per: if slot.item.is_token() { MILLION } else { slot.list_per.max(slot.contracted_per) },
        currency,
        rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::row::parse_instant;

    fn lines(provider: &str, model: &str, at: &str) -> Vec<String> {
        let book = PriceBook::builtin().unwrap();
        let line = |holding: Holding| {
            let Holding { tier, region, hours, item, above, list, .. } = holding;
            let region = region.map(|region| format!("[{region}]")).unwrap_or_default();
            let hours = hours.map(|hours| format!("#{hours}")).unwrap_or_default();
            let above = if above > 0 { format!(">{above}") } else { String::new() };
            format!("{tier}{region}{hours} {}{above}={}", item.name(), list.unwrap_or_default())
        };
        book.holding(provider, model, parse_instant(at).unwrap()).into_iter().map(line).collect()
    }

    #[test]
    fn thresholds_tiers_and_items_are_shown_once_each() {
        let shown = lines("gemini", "gemini-2.5-pro", "2026-11-01");
        assert_eq!(
            shown[..7],
            [
                "batch input=0.625",
                "batch input>200000=1.25",
                "batch cached_read=0.125",
                "batch cached_read>200000=0.25",
                "batch output=5",
                "batch output>200000=7.5",
                "batch grounded_request=0.035",
            ]
        );
    }

    #[test]
    fn parts_of_the_day_are_shown_with_their_hours() {
        let shown = lines("deepseek", "deepseek-v4-pro", "2026-11-01");
        let inputs: Vec<&String> = shown.iter().filter(|line| line.contains(" input=")).collect();
        assert_eq!(
            inputs,
            [
                "standard#00:00-01:00 input=0.66",
                "standard#01:00-04:00 input=1.32",
                "standard#04:00-06:00 input=0.66",
                "standard#06:00-10:00 input=1.32",
                "standard#10:00-00:00 input=0.66",
            ]
        );
        assert_eq!(lines("deepseek", "deepseek-v4-pro", "2026-01-01").len(), 3);
    }

    #[test]
    fn regions_are_shown_with_their_factor_and_an_unknown_model_with_nothing() {
        let shown = lines("anthropic", "claude-opus-4-6", "2026-11-01");
        assert!(shown.contains(&"standard[us] input=5.5".to_owned()), "{shown:?}");
        assert!(lines("anthropic", "claude-opus-99", "2026-11-01").is_empty());
    }
}
