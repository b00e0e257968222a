//! LiteLLM's spend logs: the answer of `/spend/logs` (JSON), or the table `LiteLLM_SpendLogs` as JSON Lines or
//! CSV.
//!
//! Source: the proxy's schema (`schema.prisma`, model `LiteLLM_SpendLogs`) and its documentation of spend
//! tracking, as of version 1.80.
//!
//! Invariants
//! - An answer from LiteLLM's own cache is no call of a provider and is left out.
//! - `prompt_tokens` holds the tokens that were read from and written to the provider's cache; where they are
//!   more than it, an old version left them out.
//! - A failure with zero tokens is one whose tokens nobody knows.
//!
//! Not here: what marks imported records (`peer`).

use super::fields::{Row, amount, count, filled, first, instant, list, name, object, peer_id, tag};
use super::peer::Draft;
use super::{Peer, Usual};
use bursar_domain::{Currency, Label, Quantity, TokenClass};
use serde_json::Value;

/// Whether a row is one of LiteLLM's.
pub(super) fn fits(row: &Row) -> bool {
    let has = |name: &str| row.contains_key(name);
    has("request_id") && (has("startTime") || has("start_time")) && (has("spend") || has("total_tokens"))
}

/// The record of a row.
pub(super) fn record(row: &Row, usual: &Usual) -> Result<Peer, String> {
    let id = filled(row, "request_id")?.ok_or("request_id is missing: it names the row")?;
    if filled_text(row, "cache_hit").is_some_and(|hit| hit.eq_ignore_ascii_case("true")) {
        return Ok(Peer::Left("answered from LiteLLM's own cache"));
    }
    let started = instant(row, "startTime")?.or(instant(row, "start_time")?);
    let started = started.ok_or("startTime is missing: when did the call begin?")?;
    let mut draft = Draft::new("litellm", id.clone(), peer_id("litellm", &id, started), started);
    draft.ended_at = instant(row, "endTime")?.or(instant(row, "end_time")?);
    draft.first_byte_at = instant(row, "completionStartTime")?.filter(|at| *at >= started);
    let metadata = object(row, "metadata");
    let said = |field: &str| metadata.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    draft.team = name(said("user_api_key_team_alias").map(str::to_owned).or(filled(row, "team_id")?));
    draft.workload = name(said("user_api_key_alias").map(str::to_owned));
    draft.customer = name(filled(row, "end_user")?);
    draft.session = name(filled(row, "session_id")?);
    tags(row, &mut draft);
    draft.provider = filled(row, "custom_llm_provider")?;
    draft.api = filled(row, "call_type")?.and_then(|kind| Label::lossy(&format!("litellm-{kind}")));
    draft.model_served = filled(row, "model")?;
    draft.model_requested = first(row, &["model_group", "model"])?;
    let status = filled(row, "status")?.or_else(|| said("status").map(str::to_owned));
    draft.has_failed = status.is_some_and(|status| status == "failure");
    let spend = filled(row, "spend")?;
    draft.cost = spend
        .map(|text| {
            amount(&text).map(|pico| (Currency::USD, pico)).ok_or(format!("spend: {text:?} is no amount"))
        })
        .transpose()?;
    usage(row, &metadata, &mut draft)?;
    Ok(draft.finish(usual))
}

fn filled_text(row: &Row, name: &str) -> Option<String> {
    match row.get(name) {
        Some(Value::Bool(flag)) => Some(flag.to_string()),
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    }
}

/// Tags are names with values where they have a colon; else they are names alone, as in its header.
fn tags(row: &Row, draft: &mut Draft) {
    for item in list(row, "request_tags") {
        // LiteLLM itself adds which client called; that is no tag of the caller's.
        let Some(item) = item.as_str().filter(|item| !item.starts_with("User-Agent:")) else { continue };
        let (name, value) = item.split_once(':').unwrap_or((item, "true"));
        tag(&mut draft.tags, name, value);
    }
    for (field, name) in [("organization_id", "litellm_organization"), ("user", "litellm_user")] {
        if let Some(value) = row.get(field).and_then(Value::as_str).filter(|text| !text.is_empty()) {
            tag(&mut draft.tags, name, value);
        }
    }
}

fn usage(row: &Row, metadata: &Row, draft: &mut Draft) -> Result<(), String> {
    let (prompt, completion) = (count(row, &["prompt_tokens"])?, count(row, &["completion_tokens"])?);
    let total = count(row, &["total_tokens"])?;
    let nothing = [prompt, completion, total].iter().flatten().all(|count| *count == 0);
    for (name, value) in
        [("prompt_tokens", prompt), ("completion_tokens", completion), ("total_tokens", total)]
    {
        if let Some(value) = value {
            draft.counts.insert(name.to_owned(), value.into());
        }
    }
    let more = object(metadata, "additional_usage_values");
    let whole = object(metadata, "usage_object");
    if let Some(tier) = whole.get("service_tier").and_then(Value::as_str) {
        draft.tier = Label::lossy(tier);
    }
    if let Some(pages) = count(&more, &["pages_processed"])? {
        draft.usage.set_quantity(Quantity::Pages, pages);
    }
    // Zero everywhere is what it writes when it knows nothing: of a failure, of pictures, of sound.
    if nothing {
        return Ok(());
    }
    let told = |group: &str, names: &[&str]| -> Result<Option<u64>, String> {
        for from in [&more, &whole] {
            let group = if group.is_empty() { from.clone() } else { object(from, group) };
            if let Some(count) = count(&group, names)? {
                return Ok(Some(count));
            }
        }
        Ok(None)
    };
    let read = told("", &["cache_read_input_tokens"])?.or(told("prompt_tokens_details", &["cached_tokens"])?);
    let written = told("", &["cache_creation_input_tokens"])?;
    let audio = told("prompt_tokens_details", &["audio_tokens"])?;
    draft.take_input(
        prompt,
        &[(TokenClass::CachedRead, read), (TokenClass::CacheWrite, written), (TokenClass::InputAudio, audio)],
    );
    let reasoning = told("completion_tokens_details", &["reasoning_tokens"])?;
    let spoken = told("completion_tokens_details", &["audio_tokens"])?;
    draft.take_output(
        completion,
        &[(TokenClass::OutputReasoning, reasoning), (TokenClass::OutputAudio, spoken)],
    );
    Ok(())
}
