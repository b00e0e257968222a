//! Langfuse's observations: the answer of `GET /api/public/observations`, or an export of observations or
//! generations as JSON, JSON Lines or CSV.
//!
//! Source: its public API reference (observations, versions 1 and 2) and its documentation of token and cost
//! tracking (usage types), as of version 3.
//!
//! Invariants
//! - Only observations that are calls of a model count: generations and embeddings. Spans repeat them.
//! - Usage types are parts beside each other, unless the total says that input and output hold them.
//! - It knows no team and mostly no provider: metadata may name both, options of the import stand in.
//!
//! Not here: what marks imported records (`peer`).

use super::fields::{Row, amount, count, counted, filled, first, instant, name, object, peer_id, tag, text};
use super::peer::Draft;
use super::{Peer, Usual};
use bursar_domain::{Anomaly, Currency, Label, TokenClass};
use serde_json::Value;

/// Whether a row is one of Langfuse's.
pub(super) fn fits(row: &Row) -> bool {
    let any = |names: &[&str]| names.iter().any(|name| row.contains_key(*name));
    row.contains_key("id")
        && any(&["traceId", "trace_id"])
        && any(&["startTime", "start_time"])
        && !row.contains_key("request_id")
}

/// The record of a row.
pub(super) fn record(row: &Row, usual: &Usual) -> Result<Peer, String> {
    let id = filled(row, "id")?.ok_or("id is missing: it names the observation")?;
    let kind = filled(row, "type")?.unwrap_or_else(|| "GENERATION".to_owned());
    if !["GENERATION", "EMBEDDING"].contains(&kind.to_uppercase().as_str()) {
        return Ok(Peer::Left("no call of a model (spans, events and the like)"));
    }
    let started = instant(row, "startTime")?.or(instant(row, "start_time")?);
    let started = started.ok_or("startTime is missing: when did the observation begin?")?;
    let mut draft = Draft::new("langfuse", id.clone(), peer_id("langfuse", &id, started), started);
    draft.ended_at = instant(row, "endTime")?.or(instant(row, "end_time")?);
    let first_byte = instant(row, "completionStartTime")?.or(instant(row, "completion_start_time")?);
    draft.first_byte_at = first_byte.filter(|at| *at >= started);
    let metadata = object(row, "metadata");
    let said = |names: &[&str]| -> Option<String> {
        names.iter().find_map(|name| metadata.get(*name).and_then(Value::as_str).map(str::to_owned))
    };
    draft.team = name(said(&["team", "bursar_team"]));
    draft.workload =
        name(said(&["workload", "bursar_workload"]).or(first(row, &["traceName", "trace_name"])?));
    draft.customer =
        name(first(row, &["userId", "user_id"])?.or_else(|| said(&["customer", "bursar_customer"])));
    draft.session = name(first(row, &["sessionId", "session_id"])?.or(first(row, &["traceId", "trace_id"])?));
    for (field, as_tag) in [("environment", "environment"), ("name", "langfuse_name")] {
        if let Some(value) = filled(row, field)? {
            tag(&mut draft.tags, as_tag, &value);
        }
    }
    draft.provider = first(row, &["provider"])?.or_else(|| said(&["provider", "ls_provider"]));
    draft.api = Label::lossy(&format!("langfuse-{}", kind.to_lowercase()));
    draft.model_served = first(row, &["model", "providedModelName", "provided_model_name", "modelId"])?;
    draft.has_failed = filled(row, "level")?.is_some_and(|level| level == "ERROR");
    draft.cost = cost(row)?.map(|pico| (Currency::USD, pico));
    usage(row, &mut draft)?;
    Ok(draft.finish(usual))
}

fn cost(row: &Row) -> Result<Option<i128>, String> {
    let details = object(row, "costDetails");
    let of_details = filled(&details, "total")?;
    let plain = first(
        row,
        &["totalCost", "total_cost", "calculatedTotalCost", "calculated_total_cost", "totalPrice"],
    )?;
    let Some(text) = of_details.or(plain) else { return Ok(None) };
    amount(&text).map(Some).ok_or_else(|| format!("totalCost: {text:?} is no amount"))
}

/// The class of a usage type.
fn class_of(kind: &str) -> Option<TokenClass> {
    use TokenClass as C;
    Some(match kind {
        "input" | "prompt" | "input_tokens" | "prompt_tokens" | "input_text" => C::InputFresh,
        "input_cached_tokens"
        | "cache_read_input_tokens"
        | "input_cache_read"
        | "input_cached"
        | "cached_tokens" => C::CachedRead,
        "cache_creation_input_tokens" | "input_cache_creation" | "input_cache_write" => C::CacheWrite,
        "input_cache_creation_5m" => C::CacheWrite5m,
        "input_cache_creation_1h" => C::CacheWrite1h,
        "input_audio" | "input_audio_tokens" => C::InputAudio,
        "input_image" | "input_image_tokens" => C::InputImage,
        "output" | "completion" | "output_tokens" | "completion_tokens" | "output_text" => C::OutputText,
        "output_reasoning" | "output_reasoning_tokens" | "reasoning_tokens" => C::OutputReasoning,
        "output_audio" | "output_audio_tokens" => C::OutputAudio,
        "output_image" | "output_image_tokens" => C::OutputImage,
        _ => return None,
    })
}

fn usage(row: &Row, draft: &mut Draft) -> Result<(), String> {
    let details = ["usageDetails", "usage_details"].map(|field| object(row, field));
    if let Some(details) = details.into_iter().find(|details| !details.is_empty()) {
        return of_details(&details, draft);
    }
    let plain = object(row, "usage");
    let unit = first(&plain, &["unit"])?.or(first(row, &["unit"])?);
    if unit.as_deref().is_some_and(|unit| unit != "TOKENS") {
        // Characters, seconds or pictures are no tokens.
        draft.counts.insert("unit".to_owned(), unit.into());
        return Ok(());
    }
    let input = count(&plain, &["input", "promptTokens"])?;
    let input = input
        .or(count(row, &["promptTokens", "inputTokens", "inputUsage", "prompt_tokens", "input_tokens"])?);
    let output = count(&plain, &["output", "completionTokens"])?;
    let output = output.or(count(
        row,
        &["completionTokens", "outputTokens", "outputUsage", "completion_tokens", "output_tokens"],
    )?);
    // It writes zeros where an application told nothing.
    if input.unwrap_or(0) == 0 && output.unwrap_or(0) == 0 {
        return Ok(());
    }
    for (name, count) in [("input", input), ("output", output)] {
        if let Some(count) = count {
            draft.counts.insert(name.to_owned(), count.into());
        }
    }
    draft.take_input(input, &[]);
    draft.take_output(output, &[]);
    Ok(())
}

fn of_details(details: &Row, draft: &mut Draft) -> Result<(), String> {
    let mut counts: Vec<(TokenClass, u64)> = Vec::new();
    let (mut total, mut sum) = (None, 0_u64);
    for kind in details.keys() {
        let Some(text) = text(details, kind)?.filter(|text| !text.is_empty()) else { continue };
        let count = counted(&format!("usageDetails.{kind}"), &text)?;
        draft.counts.insert(kind.chars().take(60).collect(), count.into());
        if kind == "total" {
            total = Some(count);
            continue;
        }
        match class_of(kind) {
            Some(class) => counts.push((class, count)),
            // Which tokens these are nobody here knows: they stay in the total, and the record says so.
            None => {
                draft.anomalies.insert(Anomaly::CountsDisagree);
                continue;
            }
        }
        sum = sum.saturating_add(count);
    }
    if sum == 0 && total.unwrap_or(0) == 0 {
        return Ok(());
    }
    let of = |wanted: TokenClass| {
        let found = counts.iter().filter(|(class, _)| *class == wanted).map(|(_, count)| *count);
        found.reduce(u64::saturating_add)
    };
    let (input, output) = (of(TokenClass::InputFresh), of(TokenClass::OutputText));
    let outer = input.unwrap_or(0).saturating_add(output.unwrap_or(0));
    let are_inside = total.is_some_and(|total| total == outer && sum > outer);
    if total.is_some_and(|total| total != outer && total != sum) {
        draft.anomalies.insert(Anomaly::TotalMismatch);
    }
    use TokenClass as C;
    let parts_in =
        [C::CachedRead, C::CacheWrite, C::CacheWrite5m, C::CacheWrite1h, C::InputAudio, C::InputImage];
    let parts_out = [C::OutputReasoning, C::OutputAudio, C::OutputImage];
    let told = |classes: &[TokenClass]| classes.iter().map(|class| (*class, of(*class))).collect::<Vec<_>>();
    let whole = |outer: Option<u64>, parts: &[(TokenClass, Option<u64>)]| {
        let parts = parts.iter().filter_map(|(_, count)| *count).fold(0, u64::saturating_add);
        outer.map(|outer| if are_inside { outer } else { outer.saturating_add(parts) })
    };
    let (parts_in, parts_out) = (told(&parts_in), told(&parts_out));
    draft.take_input(whole(input, &parts_in), &parts_in);
    draft.take_output(whole(output, &parts_out), &parts_out);
    Ok(())
}
