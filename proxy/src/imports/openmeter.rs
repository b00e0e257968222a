//! OpenMeter's events: CloudEvents 1.0 as they were sent, or as its API lists them (`event` inside an
//! envelope), as JSON, JSON Lines or CSV.
//!
//! Source: CloudEvents 1.0.2 (`id` and `source` together name an event) and OpenMeter's API reference
//! (events) and its guide to metering language models (`tokens`, `model`, `type` in `data`).
//!
//! Invariants
//! - An event without tokens is no usage of a model and is left out.
//! - Events that count one kind of token each stay records of their own: they are not joined, so requests
//!   are counted as events.
//!
//! Not here: what marks imported records (`peer`).

use super::fields::{Row, count, filled, first, instant, name, object, peer_id, tag};
use super::peer::Draft;
use super::{Peer, Usual};
use bursar_domain::{Label, TokenClass};
use serde_json::Value;
use std::borrow::Cow;

/// Whether a row is one of OpenMeter's.
pub(super) fn fits(row: &Row) -> bool {
    let event = event_of(row);
    let has = |name: &str| event.contains_key(name);
    has("specversion") && has("id") && has("source") && has("type")
}

/// The event, from the envelope around it or from cells such as `event.id`.
fn event_of(row: &Row) -> Cow<'_, Row> {
    match row.get("event") {
        Some(Value::Object(event)) => return Cow::Borrowed(event),
        Some(Value::String(text)) => return Cow::Owned(serde_json::from_str(text).unwrap_or_default()),
        _ => {}
    }
    if !row.contains_key("event.id") {
        return Cow::Borrowed(row);
    }
    let inner =
        row.iter().filter_map(|(name, value)| Some((name.strip_prefix("event.")?.to_owned(), value.clone())));
    Cow::Owned(inner.collect())
}

/// The record of a row.
pub(super) fn record(row: &Row, usual: &Usual) -> Result<Peer, String> {
    let event = event_of(row);
    let event = event.as_ref();
    if filled(row, "validationError")?.is_some() {
        return Ok(Peer::Left("OpenMeter itself found the event invalid"));
    }
    if let Some(version) = filled(event, "specversion")?.filter(|version| version != "1.0") {
        return Err(format!("specversion: {version:?} is unknown: events of CloudEvents 1.0 are read"));
    }
    let id = filled(event, "id")?.ok_or("id is missing: with source it names the event")?;
    let source = filled(event, "source")?.ok_or("source is missing: with id it names the event")?;
    let at = instant(event, "time")?.or(instant(row, "ingestedAt")?);
    let at = at.ok_or("time is missing: when was it used?")?;
    let data = object(event, "data");
    let whole_id = format!("{source} {id}");
    let mut draft = Draft::new("openmeter", whole_id.clone(), peer_id("openmeter", &whole_id, at), at);
    if !usage(&data, &mut draft)? {
        return Ok(Peer::Left("no tokens in the event"));
    }
    draft.customer = name(filled(event, "subject")?);
    draft.team = name(first(&data, &["team", "group", "department"])?);
    draft.workload = name(first(&data, &["workload", "service", "feature"])?);
    draft.session = name(first(&data, &["session", "session_id", "sessionId"])?);
    draft.provider = first(&data, &["provider", "model_provider", "vendor"])?;
    draft.model_served = first(&data, &["model", "model_name", "modelName"])?;
    draft.api = filled(event, "type")?.and_then(|kind| Label::lossy(&format!("openmeter-{kind}")));
    for known in ["environment", "region", "route", "app"] {
        if let Some(value) = filled(&data, known)? {
            tag(&mut draft.tags, known, &value);
        }
    }
    Ok(draft.finish(usual))
}

/// States the tokens of an event; `false` when it has none.
fn usage(data: &Row, draft: &mut Draft) -> Result<bool, String> {
    let input = count(data, &["input_tokens", "prompt_tokens", "inputTokens", "promptTokens"])?;
    let output = count(data, &["output_tokens", "completion_tokens", "outputTokens", "completionTokens"])?;
    let told = |names: &[&str]| count(data, names);
    let cached =
        told(&["cached_tokens", "input_cached_tokens", "cache_read_input_tokens", "cachedInputTokens"])?;
    let written = told(&["cache_creation_input_tokens"])?;
    let reasoning = told(&["reasoning_tokens", "output_reasoning_tokens", "reasoningTokens"])?;
    if input.is_some() || output.is_some() {
        for (name, count) in
            [("input", input), ("output", output), ("cached", cached), ("reasoning", reasoning)]
        {
            if let Some(count) = count {
                draft.counts.insert(name.to_owned(), count.into());
            }
        }
        draft.take_input(input, &[(TokenClass::CachedRead, cached), (TokenClass::CacheWrite, written)]);
        draft.take_output(output, &[(TokenClass::OutputReasoning, reasoning)]);
        return Ok(true);
    }
    let Some(tokens) = count(data, &["tokens", "total_tokens", "totalTokens", "token_count"])? else {
        return Ok(false);
    };
    draft.counts.insert("tokens".to_owned(), tokens.into());
    let kind = first(data, &["type", "token_type", "tokenType"])?;
    let kind = kind.ok_or("data.type is missing: are these tokens input or output?")?;
    let class = match kind.to_lowercase().as_str() {
        "input" | "prompt" | "system" => TokenClass::InputFresh,
        "output" | "completion" => TokenClass::OutputText,
        "cached" | "input_cached" | "cached_input" | "cache_read" => TokenClass::CachedRead,
        "cache_write" | "cache_creation" => TokenClass::CacheWrite,
        "reasoning" | "output_reasoning" => TokenClass::OutputReasoning,
        _ => {
            return Err(format!(
                "data.type: {kind:?} is no kind of token: input, output, cached, cache_write or reasoning"
            ));
        }
    };
    draft.counts.insert("type".to_owned(), kind.into());
    draft.usage.set(class, tokens);
    Ok(true)
}
