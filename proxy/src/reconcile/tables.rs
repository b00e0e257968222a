//! Tables of Azure, AWS, FOCUS and OpenRouter.
//!
//! Sources: Azure's cost details file schema (EA and MCA), AWS's dictionary of CUR 2.0, the FOCUS specification
//! 1.0 to 1.4, the header of OpenRouter's export.
//!
//! Invariants
//! - A header is known by its columns, whatever their case; one that lacks a needed column is refused by name.
//! - Rows about other services are left out; taxes, credits and the like too, since no call causes them.
//! - Tokens are a quantity times its unit, where the unit is one of tokens and the product is whole; else unknown.
//!
//! Not here: reading rows (`imports::read`).

use super::{Kind, Line, Provider};
use crate::imports::fields::{Row, amount, count, filled, instant};
use bursar_domain::{TokenClass, Usage};
use jiff::civil::Date;
use jiff::tz::TimeZone;

const PICO: i128 = 1_000_000_000_000;

/// The cell of a column, whatever its case.
fn cell<'a>(row: &'a Row, names: &[&str]) -> Option<&'a str> {
    let found = names.iter().find_map(|name| {
        row.iter().find(|(column, _)| column.eq_ignore_ascii_case(name)).and_then(|(_, value)| value.as_str())
    });
    found.map(str::trim).filter(|text| !text.is_empty())
}

fn needed<'a>(row: &'a Row, names: &[&str]) -> Result<&'a str, String> {
    cell(row, names).ok_or_else(|| format!("the column {} is missing or empty", names.join(" or ")))
}

/// Whether a row has the columns of a kind.
pub(super) fn fits(kind: Kind, row: &Row) -> bool {
    let has =
        |names: &[&str]| row.keys().any(|column| names.iter().any(|name| column.eq_ignore_ascii_case(name)));
    match kind {
        Kind::AwsCur2 => has(&["line_item_product_code"]) && has(&["line_item_usage_start_date"]),
        Kind::Focus => has(&["BilledCost"]) && has(&["ChargePeriodStart"]),
        Kind::AzureCost => {
            has(&["MeterName"]) && has(&["CostInBillingCurrency"]) && has(&["Date", "UsageDateTime"])
        }
        Kind::OpenrouterGenerations => {
            has(&["generation_id"]) && has(&["cost_total"]) && has(&["model_permaslug"])
        }
        _ => false,
    }
}

/// A day as tables write one: `2026-09-30`, the beginning of a time, or `09/30/2026`.
fn day(name: &str, text: &str) -> Result<Date, String> {
    let american = || {
        let mut parts = text.split('/');
        let (month, day, year) = (parts.next()?, parts.next()?, parts.next()?.get(..4)?);
        Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()
    };
    let found = text.get(..10).and_then(|day| day.parse().ok()).or_else(american);
    found.ok_or_else(|| format!("{name}: {text:?} is no day such as 2026-09-30"))
}

/// How many tokens one unit is; `None` where it is no unit of tokens.
fn tokens_of_unit(unit: &str) -> Option<i128> {
    let lower = unit.to_lowercase();
    let rest = lower.replace("tokens", "").replace("token", "");
    let is_tokens = rest.len() != lower.len();
    let rest = rest.trim().replace(',', "");
    Some(match rest.as_str() {
        "" | "1" if is_tokens => 1,
        "1k" | "k" | "1000" | "thousand" | "1 thousand" => 1_000,
        "1m" | "m" | "1000000" | "million" | "1 million" => 1_000_000,
        _ => return None,
    })
}

/// A quantity in units of tokens as tokens, if that is a whole number.
fn tokens(quantity: &str, unit: &str) -> Option<u64> {
    let pico = amount(quantity)?.checked_mul(tokens_of_unit(unit)?)?;
    // Quantities have so many decimals that a product may miss the whole number by a hair.
    let near = bursar_domain::money::div_half_even(pico, PICO).ok()?;
    let off = pico.checked_sub(near.checked_mul(PICO)?)?.checked_abs()?;
    if off > PICO / 1_000 { None } else { u64::try_from(near).ok() }
}

/// The class of tokens that a meter's name says.
fn class_of(name: &str) -> Option<TokenClass> {
    let lower = name.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if has(&["cache-write", "cachewrite", "cache write", "cache_write"]) {
        return Some(TokenClass::CacheWrite);
    }
    if has(&["cached", "cchd", "cache-read", "cacheread", "cache read", "cache_read", "cd inp"]) {
        return Some(TokenClass::CachedRead);
    }
    if has(&["outp", "output", "-out-", " out ", " opt ", "-opt-", "completion", "response"]) {
        return Some(TokenClass::OutputText);
    }
    has(&["inp", "input", "prompt", "-in-", " in "]).then_some(TokenClass::InputFresh)
}

fn usage(meter: &str, quantity: Option<&str>, unit: Option<&str>) -> Option<Usage> {
    let (class, count) = (class_of(meter)?, tokens(quantity?, unit?)?);
    let mut usage = Usage::unknown();
    usage.set(class, count);
    Some(usage)
}

fn tier(meter: &str) -> Option<String> {
    let lower = meter.to_lowercase();
    ["batch", "flex", "priority"].into_iter().find(|tier| lower.contains(tier)).map(str::to_owned)
}

/// Azure: a meter's use on a day.
pub(super) fn azure(row: &Row) -> Result<Option<Line>, String> {
    let meter = needed(row, &["MeterName"])?;
    let about =
        ["MeterSubCategory", "MeterCategory", "ServiceFamily", "ConsumedService", "ProductName", "Product"];
    let about: String =
        about.iter().filter_map(|name| cell(row, &[name])).collect::<Vec<_>>().join(" ").to_lowercase();
    if !["openai", "foundry", "ai services"].iter().any(|word| about.contains(word)) {
        return Ok(None);
    }
    if cell(row, &["ChargeType"]).is_some_and(|kind| !kind.eq_ignore_ascii_case("usage")) {
        return Ok(None);
    }
    let date = needed(row, &["Date", "UsageDateTime"])?;
    let mut line = Line::of(day("Date", date)?);
    let currency = needed(row, &["BillingCurrency", "BillingCurrencyCode"])?;
    line.set_cost("CostInBillingCurrency", needed(row, &["CostInBillingCurrency"])?, currency, 1)?;
    line.model = Some(meter.to_owned());
    line.project = cell(row, &["ResourceId", "InstanceName", "ResourceName"]).map(last_part);
    line.tier = tier(meter);
    line.usage = usage(meter, cell(row, &["Quantity"]), cell(row, &["UnitOfMeasure"]));
    Ok(Some(line))
}

fn last_part(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

/// AWS: a line of the cost and usage report.
pub(super) fn cur2(row: &Row) -> Result<Option<Line>, String> {
    let product = needed(row, &["line_item_product_code"])?;
    let names =
        ["product_product_name", "product", "line_item_line_item_description", "line_item_usage_type"];
    let is_marketplace =
        names.iter().filter_map(|name| cell(row, &[name])).any(|text| text.contains("Bedrock"));
    if product != "AmazonBedrock" && !is_marketplace {
        return Ok(None);
    }
    let kind = cell(row, &["line_item_line_item_type"]).unwrap_or("Usage");
    if !["Usage", "DiscountedUsage", "SavingsPlanCoveredUsage"].contains(&kind) {
        return Ok(None);
    }
    let start = needed(row, &["line_item_usage_start_date"])?;
    let mut line = Line::of(day("line_item_usage_start_date", start)?);
    let cost = needed(row, &["line_item_net_unblended_cost", "line_item_unblended_cost"])?;
    line.set_cost("line_item_unblended_cost", cost, needed(row, &["line_item_currency_code"])?, 1)?;
    let used = needed(row, &["line_item_usage_type"])?;
    let told = cell(row, &["product_model", "product_titanmodel"]);
    let described = cell(row, &["product_product_name"]).filter(|name| name.contains("Bedrock Edition"));
    line.model = Some(told.or(described).map_or_else(|| without_region(used), str::to_owned));
    line.project = cell(row, &["line_item_usage_account_id"]).map(str::to_owned);
    line.tier = tier(used);
    let meter = format!("{used} {}", cell(row, &["line_item_line_item_description"]).unwrap_or_default());
    line.usage = usage(&meter, cell(row, &["line_item_usage_amount"]), cell(row, &["pricing_unit"]));
    Ok(Some(line))
}

/// `USE1-Claude3Sonnet-input-tokens` without its region.
fn without_region(used: &str) -> String {
    match used.split_once('-') {
        Some((region, rest))
            if region.len() <= 5 && region.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()) =>
        {
            rest.to_owned()
        }
        _ => used.to_owned(),
    }
}

/// FOCUS: a row of cost and usage.
pub(super) fn focus(row: &Row, provider: Provider) -> Result<Option<Line>, String> {
    let about = [
        "ServiceName",
        "ServiceSubcategory",
        "ServiceCategory",
        "ProviderName",
        "ServiceProviderName",
        "PublisherName",
    ];
    let about: String =
        about.iter().filter_map(|name| cell(row, &[name])).collect::<Vec<_>>().join(" ").to_lowercase();
    let words: &[&str] = match provider {
        Provider::Openai => &["openai"],
        Provider::Anthropic => &["anthropic"],
        Provider::Azure => &["openai", "foundry", "cognitive", "ai services"],
        Provider::Aws => &["bedrock"],
        Provider::Openrouter => &["openrouter"],
    };
    let is_usage = cell(row, &["ChargeCategory"]).is_none_or(|kind| kind.eq_ignore_ascii_case("usage"));
    if !is_usage || !words.iter().any(|word| about.contains(word)) {
        return Ok(None);
    }
    let mut line = Line::of(day("ChargePeriodStart", needed(row, &["ChargePeriodStart"])?)?);
    line.set_cost("BilledCost", needed(row, &["BilledCost"])?, needed(row, &["BillingCurrency"])?, 1)?;
    let meter = cell(row, &["SkuMeter", "x_SkuMeterName", "x_UsageType", "ChargeDescription", "SkuId"]);
    let meter =
        meter.ok_or("none of SkuMeter, x_SkuMeterName, x_UsageType, ChargeDescription and SkuId is there")?;
    let details: Row =
        cell(row, &["SkuPriceDetails"]).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let model =
        details.iter().find(|(name, _)| name.trim_start_matches("x_").eq_ignore_ascii_case("ModelId"));
    let model = model.and_then(|(_, value)| value.as_str()).or_else(|| cell(row, &["x_Model", "x_ModelId"]));
    line.model = Some(model.map_or_else(|| without_region(meter), str::to_owned));
    line.project = cell(row, &["SubAccountId", "SubAccountName"]).map(str::to_owned);
    line.tier = tier(meter);
    line.usage = usage(meter, cell(row, &["ConsumedQuantity"]), cell(row, &["ConsumedUnit"]));
    Ok(Some(line))
}

/// OpenRouter: one generation.
pub(super) fn generations(row: &Row) -> Result<Line, String> {
    let at = instant(row, "created_at")?.ok_or("created_at is missing")?;
    let at =
        jiff::Timestamp::from_microsecond(at.micros()).map_err(|error| format!("created_at: {error}"))?;
    let mut line = Line::of(at.to_zoned(TimeZone::UTC).date());
    line.set_cost("cost_total", needed(row, &["cost_total"])?, "USD", 1)?;
    line.model = filled(row, "model_permaslug")?;
    line.requests = Some(1);
    line.project = filled(row, "api_key_name")?;
    let (prompt, completion) = (count(row, &["tokens_prompt"])?, count(row, &["tokens_completion"])?);
    let cached = count(row, &["tokens_cached"])?.unwrap_or(0);
    let mut usage = Usage::unknown();
    if let Some(prompt) = prompt {
        usage.set(TokenClass::CachedRead, cached.min(prompt));
        usage.set(TokenClass::InputFresh, prompt.saturating_sub(cached));
    }
    if let Some(completion) = completion {
        usage.set(TokenClass::OutputText, completion);
    }
    line.usage = Some(usage);
    Ok(line)
}
