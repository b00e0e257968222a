//! Reports of OpenAI, Anthropic and OpenRouter as their APIs answer them.
//!
//! Sources: OpenAI's API reference (usage, costs), Anthropic's Admin API reference (usage report, cost report),
//! OpenRouter's API reference (user activity).
//!
//! Invariants
//! - OpenAI: `input_tokens` holds the cached ones, sound is beside it; costs are decimals of the currency.
//! - Anthropic: the counts are beside each other; amounts are decimals of the smallest unit, a hundred of which
//!   are a dollar.
//! - A bucket belongs to the UTC day in which it begins; one that is longer than a day is refused.
//!
//! Not here: reading rows (`imports::read`).

use super::{Kind, Line};
use crate::imports::fields::{Row, count, filled, object};
use bursar_domain::{TokenClass, Usage};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::Value;

const DAY_SECONDS: i64 = 86_400;

fn results(row: &Row) -> Option<&Vec<Value>> {
    row.get("results").or_else(|| row.get("result")).and_then(Value::as_array)
}

fn first(row: &Row) -> Option<&Row> {
    results(row)?.first()?.as_object()
}

/// A bucket of time in which nothing happened.
pub(super) fn is_empty_bucket(row: &Row) -> bool {
    results(row).is_some_and(Vec::is_empty)
        && (row.contains_key("start_time") || row.contains_key("starting_at"))
}

/// What the results of a bucket call themselves.
pub(super) fn named(row: &Row) -> Option<String> {
    let name = first(row)?.get("object")?.as_str()?;
    Some(format!(
        "{} of {}",
        row.keys().cloned().collect::<Vec<_>>().join(", "),
        name.chars().take(80).collect::<String>()
    ))
}

/// The kind of a bucket by its results.
pub(super) fn kind_of(row: &Row) -> Option<Kind> {
    let first = first(row)?;
    if row.contains_key("start_time") {
        return match first.get("object")?.as_str()? {
            "organization.usage.completions.result" | "organization.usage.embeddings.result" => {
                Some(Kind::OpenaiUsage)
            }
            "organization.costs.result" => Some(Kind::OpenaiCosts),
            _ => None,
        };
    }
    if !row.contains_key("starting_at") {
        return None;
    }
    if first.contains_key("uncached_input_tokens") {
        return Some(Kind::AnthropicUsage);
    }
    (first.contains_key("amount") && first.contains_key("currency")).then_some(Kind::AnthropicCost)
}

fn day_of(row: &Row) -> Result<Date, String> {
    let seconds = |name: &str| row.get(name).and_then(Value::as_i64);
    let instants = match (seconds("start_time"), seconds("end_time")) {
        (Some(start), end) => (
            jiff::Timestamp::from_second(start).ok(),
            end.and_then(|end| jiff::Timestamp::from_second(end).ok()),
        ),
        (None, _) => {
            let at = |name: &str| row.get(name).and_then(Value::as_str).and_then(|text| text.parse().ok());
            (at("starting_at"), at("ending_at"))
        }
    };
    let (Some(start), end) = instants else {
        return Err("the bucket has no time at which it starts".to_owned());
    };
    if end.is_some_and(|end: jiff::Timestamp| end.as_second().saturating_sub(start.as_second()) > DAY_SECONDS)
    {
        return Err("the bucket is longer than a day: ask for buckets of a day (bucket_width=1d)".to_owned());
    }
    Ok(start.to_zoned(TimeZone::UTC).date())
}

/// The lines of a bucket.
pub(super) fn bucket(kind: Kind, row: &Row) -> Result<Vec<Line>, String> {
    let day = day_of(row)?;
    let mut lines = Vec::new();
    for result in results(row).into_iter().flatten() {
        let result = result.as_object().ok_or("a result is an object")?;
        let mut line = Line::of(day);
        match kind {
            Kind::OpenaiUsage => openai_usage(result, &mut line)?,
            Kind::OpenaiCosts => openai_cost(result, &mut line)?,
            Kind::AnthropicUsage => anthropic_usage(result, &mut line)?,
            _ => anthropic_cost(result, &mut line)?,
        }
        lines.push(line);
    }
    Ok(lines)
}

fn openai_usage(result: &Row, line: &mut Line) -> Result<(), String> {
    line.model = filled(result, "model")?;
    line.project = filled(result, "project_id")?;
    let is_batch = result.get("batch").and_then(Value::as_bool) == Some(true);
    line.tier = if is_batch { Some("batch".to_owned()) } else { filled(result, "service_tier")? };
    line.requests = count(result, &["num_model_requests"])?;
    let told = |name: &str| count(result, &[name]);
    let input = told("input_tokens")?.ok_or("input_tokens is missing")?;
    let cached = told("input_cached_tokens")?.unwrap_or(0);
    let fresh = input.checked_sub(cached).ok_or("input_cached_tokens is more than input_tokens")?;
    let mut usage = Usage::unknown();
    usage.set(TokenClass::InputFresh, fresh);
    usage.set(TokenClass::CachedRead, cached);
    for (class, name) in [
        (TokenClass::OutputText, "output_tokens"),
        (TokenClass::InputAudio, "input_audio_tokens"),
        (TokenClass::OutputAudio, "output_audio_tokens"),
    ] {
        if let Some(count) = told(name)? {
            usage.set(class, count);
        }
    }
    line.usage = Some(usage);
    Ok(())
}

fn openai_cost(result: &Row, line: &mut Line) -> Result<(), String> {
    let amount = object(result, "amount");
    let value = filled(&amount, "value")?.ok_or("amount.value is missing")?;
    let currency = filled(&amount, "currency")?.ok_or("amount.currency is missing")?;
    line.set_cost("amount.value", &value, &currency, 1)?;
    line.project = filled(result, "project_id")?;
    // `gpt-4o-mini-2024-07-18, input`: the model stands before the comma. Other items have none.
    let item = filled(result, "line_item")?;
    line.model = item.and_then(|item| item.rsplit_once(", ").map(|(model, _)| model.trim().to_owned()));
    Ok(())
}

fn anthropic_usage(result: &Row, line: &mut Line) -> Result<(), String> {
    line.model = filled(result, "model")?;
    line.project = filled(result, "workspace_id")?;
    line.tier = filled(result, "service_tier")?;
    let mut usage = Usage::unknown();
    let written = object(result, "cache_creation");
    for (class, from, name) in [
        (TokenClass::InputFresh, result, "uncached_input_tokens"),
        (TokenClass::CachedRead, result, "cache_read_input_tokens"),
        (TokenClass::CacheWrite5m, &written, "ephemeral_5m_input_tokens"),
        (TokenClass::CacheWrite1h, &written, "ephemeral_1h_input_tokens"),
        (TokenClass::OutputText, result, "output_tokens"),
    ] {
        if let Some(count) = count(from, &[name])? {
            usage.set(class, count);
        }
    }
    line.usage = Some(usage);
    Ok(())
}

fn anthropic_cost(result: &Row, line: &mut Line) -> Result<(), String> {
    let amount = filled(result, "amount")?.ok_or("amount is missing")?;
    let currency = filled(result, "currency")?.ok_or("currency is missing")?;
    line.set_cost("amount", &amount, &currency, 100)?;
    line.model = filled(result, "model")?;
    line.project = filled(result, "workspace_id")?;
    line.tier = filled(result, "service_tier")?;
    Ok(())
}

/// Whether a row is one of OpenRouter's activity.
pub(super) fn is_activity(row: &Row) -> bool {
    ["date", "model", "usage", "requests", "prompt_tokens"].iter().all(|name| row.contains_key(*name))
}

/// A row of OpenRouter's activity: a day, a model and a provider behind it.
pub(super) fn activity(row: &Row) -> Result<Line, String> {
    let date = filled(row, "date")?.ok_or("date is missing")?;
    let day = date.get(..10).unwrap_or(&date);
    let mut line = Line::of(day.parse().map_err(|_| format!("date: {date:?} is no day such as 2026-09-30"))?);
    line.model = filled(row, "model_permaslug")?.or(filled(row, "model")?);
    line.requests = count(row, &["requests"])?;
    let cost = filled(row, "usage")?.ok_or("usage is missing: what was charged")?;
    line.set_cost("usage", &cost, "USD", 1)?;
    let mut usage = Usage::unknown();
    for (class, name) in
        [(TokenClass::InputFresh, "prompt_tokens"), (TokenClass::OutputText, "completion_tokens")]
    {
        if let Some(count) = count(row, &[name])? {
            usage.set(class, count);
        }
    }
    line.usage = Some(usage);
    Ok(line)
}
