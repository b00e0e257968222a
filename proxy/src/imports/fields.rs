//! Fields of rows: JSON objects, or cells of CSV, read by name.
//!
//! Invariants
//! - What is absent or null is `None`; what cannot be understood is an error that names the field.
//! - Amounts are exact: binary floats never stand between a file's digits and ours.
//!
//! Not here: which fields a system writes (`own`, `litellm`, `langfuse`, `openmeter`).

use bursar_domain::money::{div_half_even, parse_pico};
use bursar_domain::{Label, RequestId, Tags, Timestamp, TraceId};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// A row.
pub(crate) type Row = Map<String, Value>;

/// A group of fields.
pub(crate) fn group<'a>(row: &'a Row, name: &str) -> Result<Option<&'a Row>, String> {
    match row.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(group)) => Ok(Some(group)),
        Some(_) => Err(format!("{name} is an object of names and values")),
    }
}

/// Text, or a number as it was written.
pub(crate) fn text(row: &Row, name: &str) -> Result<Option<String>, String> {
    match row.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(_) => Err(format!("{name} is text")),
    }
}

/// A name.
pub(crate) fn label(row: &Row, name: &str) -> Result<Option<Label>, String> {
    let text = text(row, name)?;
    text.map(|text| Label::new(&text).map_err(|error| format!("{name}: {text:?}: {error}"))).transpose()
}

/// One of the names that `find` knows.
pub(crate) fn choice<T>(
    row: &Row,
    name: &str,
    find: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, String> {
    let text = text(row, name)?;
    text.map(|text| find(&text).ok_or_else(|| format!("{name}: {text:?} is unknown"))).transpose()
}

/// A whole number of zero or more.
pub(crate) fn whole(row: &Row, name: &str) -> Result<Option<u64>, String> {
    let text = text(row, name)?;
    text.map(|text| {
        text.parse().map_err(|_| format!("{name}: {text:?} is not a whole number of zero or more"))
    })
    .transpose()
}

/// Milliseconds with decimals, in microseconds.
pub(crate) fn millis(row: &Row, name: &str) -> Result<Option<u64>, String> {
    text(row, name)?.map(|text| thousandths(name, &text)).transpose()
}

/// A decimal in thousandths.
pub(crate) fn thousandths(name: &str, text: &str) -> Result<u64, String> {
    let pico = parse_pico(text).ok().and_then(|pico| pico.checked_div(1_000_000_000));
    let amount = pico.and_then(|amount| u64::try_from(amount).ok());
    amount.ok_or_else(|| format!("{name}: {text:?} is not a number of zero or more"))
}

/// An instant.
pub(crate) fn time(row: &Row, name: &str) -> Result<Option<Timestamp>, String> {
    let text = text(row, name)?;
    text.map(|text| {
        let at = text.parse::<jiff::Timestamp>();
        at.map(|at| Timestamp::from_micros(at.as_microsecond()))
            .map_err(|_| format!("{name}: {text:?} is not a time such as 2026-09-30T12:00:00Z"))
    })
    .transpose()
}

/// A W3C trace id.
pub(crate) fn trace_id(row: &Row) -> Result<Option<TraceId>, String> {
    let text = text(row, "trace_id")?;
    text.map(|text| {
        let bits = u128::from_str_radix(&text, 16).ok().filter(|_| text.len() == 32);
        bits.and_then(TraceId::from_bits)
            .ok_or_else(|| format!("trace_id: {text:?} is not 32 hexadecimal digits"))
    })
    .transpose()
}

// === what other systems write ===

/// An instant as other systems write one: RFC 3339, or with a space, or without a zone, which is UTC.
pub(crate) fn instant(row: &Row, name: &str) -> Result<Option<Timestamp>, String> {
    let Some(text) = filled(row, name)? else { return Ok(None) };
    let text = text.trim();
    let text = text.strip_suffix(" UTC").unwrap_or(text);
    let at = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let at = text.parse::<jiff::civil::DateTime>().ok()?;
        Some(at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    });
    at.map(|at| Some(Timestamp::from_micros(at.as_microsecond())))
        .ok_or_else(|| format!("{name}: {text:?} is not a time such as 2026-09-30T12:00:00Z"))
}

/// Text that is not empty.
pub(crate) fn filled(row: &Row, name: &str) -> Result<Option<String>, String> {
    Ok(text(row, name)?.filter(|text| !text.trim().is_empty()))
}

/// The first of these fields that has text.
pub(crate) fn first(row: &Row, names: &[&str]) -> Result<Option<String>, String> {
    for name in names {
        if let Some(text) = filled(row, name)? {
            return Ok(Some(text));
        }
    }
    Ok(None)
}

/// The first of these fields that counts something.
pub(crate) fn count(row: &Row, names: &[&str]) -> Result<Option<u64>, String> {
    for name in names {
        if let Some(text) = filled(row, name)? {
            return counted(name, &text).map(Some);
        }
    }
    Ok(None)
}

/// A count that may be written with decimals, all of them zeros, as databases do.
pub(crate) fn counted(name: &str, text: &str) -> Result<u64, String> {
    let digits = text.split_once('.').filter(|(_, zeros)| zeros.bytes().all(|b| b == b'0'));
    let digits = digits.map_or(text, |(whole, _)| whole);
    digits.parse().map_err(|_| format!("{name}: {text:?} is not a whole number of zero or more"))
}

/// An object, also one that is written as text.
pub(crate) fn object(row: &Row, name: &str) -> Row {
    match row.get(name) {
        Some(Value::Object(object)) => object.clone(),
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_default(),
        _ => Row::new(),
    }
}

/// A list, also one that is written as text.
pub(crate) fn list(row: &Row, name: &str) -> Vec<Value> {
    match row.get(name) {
        Some(Value::Array(list)) => list.clone(),
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// A name as another system has it: what cannot stand in a name is replaced.
pub(crate) fn name(text: Option<String>) -> Option<Label> {
    text.and_then(|text| Label::lossy(text.trim()))
}

/// Sets a tag where both name and value can be one, and there is room.
pub(crate) fn tag(tags: &mut Tags, name: &str, value: &str) {
    if let (Some(name), Some(value)) = (Label::lossy(name.trim()), Label::lossy(value.trim())) {
        tags.insert(name, value);
    }
}

/// An amount such as `0.5`, `1.35e-05`, in pico-units, half-even at the last.
pub(crate) fn amount(text: &str) -> Option<i128> {
    let text = text.trim();
    if text.len() > 60 {
        return None;
    }
    if let Ok(pico) = parse_pico(text) {
        return Some(pico);
    }
    let (mantissa, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let power: i32 = power.strip_prefix('+').unwrap_or(power).parse().ok()?;
    let (negative, digits) = mantissa.strip_prefix('-').map_or((false, mantissa), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    // Beyond 30 decimals nothing is left of a pico.
    let fraction = fraction.get(..30).unwrap_or(fraction);
    let digits = format!("{whole}{fraction}");
    if whole.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: i128 = digits.parse().ok()?;
    let shift = power.checked_add(12)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let factor = |by: u32| 10_i128.checked_pow(by);
    let pico = match u32::try_from(shift) {
        Ok(up) => digits.checked_mul(factor(up)?)?,
        Err(_) => match factor(shift.unsigned_abs()) {
            Some(down) => div_half_even(digits, down).ok()?,
            None => 0,
        },
    };
    Some(if negative { pico.checked_neg()? } else { pico })
}

/// The id of a record that `system` calls `id` and that began at `at`: the same for ever. The second is in
/// it, not its fraction, which some exports of the same record cut.
pub(crate) fn peer_id(system: &str, id: &str, at: Timestamp) -> RequestId {
    let hash = blake3::hash(format!("{system}\n{id}").as_bytes());
    let half = hash.as_bytes().first_chunk::<16>().map_or(0, |half| u128::from_be_bytes(*half));
    let second = at.micros().div_euclid(1_000_000).saturating_mul(1_000_000);
    RequestId::new(Timestamp::from_micros(second), half)
}

/// The provider of a model, by the beginning of its name: what other systems leave out.
pub(crate) fn provider_of(model: &str) -> Option<&'static str> {
    const KNOWN: [(&str, &str); 19] = [
        ("gpt-oss", ""),
        ("gpt", "openai"),
        ("chatgpt", "openai"),
        ("o1", "openai"),
        ("o3", "openai"),
        ("o4", "openai"),
        ("text-embedding-3", "openai"),
        ("text-embedding-ada", "openai"),
        ("claude", "anthropic"),
        ("gemini", "gemini"),
        ("mistral", "mistral"),
        ("codestral", "mistral"),
        ("magistral", "mistral"),
        ("command", "cohere"),
        ("deepseek-chat", "deepseek"),
        ("deepseek-reasoner", "deepseek"),
        ("grok", "xai"),
        ("sonar", "perplexity"),
        ("voyage", "voyage"),
    ];
    let known = KNOWN.iter().find(|(start, _)| model.starts_with(start));
    known.map(|(_, provider)| *provider).filter(|provider| !provider.is_empty())
}

/// `model` without the provider that stands before it, and that provider.
pub(crate) fn without_provider(model: &str) -> (Option<Cow<'static, str>>, &str) {
    const PROVIDERS: [(&str, &str); 21] = [
        ("openai", "openai"),
        ("anthropic", "anthropic"),
        ("azure", "azure"),
        ("azure_ai", "azure"),
        ("bedrock", "bedrock"),
        ("bedrock_converse", "bedrock"),
        ("vertex_ai", "vertex"),
        ("vertex_ai_beta", "vertex"),
        ("gemini", "gemini"),
        ("mistral", "mistral"),
        ("cohere", "cohere"),
        ("cohere_chat", "cohere"),
        ("deepseek", "deepseek"),
        ("xai", "xai"),
        ("groq", "groq"),
        ("openrouter", "openrouter"),
        ("perplexity", "perplexity"),
        ("together_ai", "together"),
        ("fireworks_ai", "fireworks"),
        ("ollama", "ollama"),
        ("voyage", "voyage"),
    ];
    let Some((first, rest)) = model.split_once('/') else { return (None, model) };
    match PROVIDERS.iter().find(|(theirs, _)| *theirs == first) {
        Some((_, ours)) => (Some(Cow::Borrowed(*ours)), rest),
        None => (None, model),
    }
}

/// Our name of a provider that LiteLLM, Langfuse or OpenMeter name.
pub(crate) fn provider_name(theirs: &str) -> Option<Label> {
    let lower = theirs.trim().to_lowercase();
    let lower = if lower.starts_with("vertex_ai") { "vertex".to_owned() } else { lower };
    let (known, _) = without_provider(&format!("{lower}/x"));
    Label::lossy(known.as_deref().unwrap_or(&lower))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn amounts_are_exact_in_any_notation_and_rounded_half_even_at_a_pico() {
        for (text, pico) in [
            ("0.5", Some(500_000_000_000)),
            ("1.35e-05", Some(13_500_000)),
            ("-2E+1", Some(-20_000_000_000_000)),
            ("0.0000000000005", Some(0)),
            ("0.0000000000015", Some(2)),
            ("1e-40", Some(0)),
            ("1e40", None),
            ("x", None),
            ("", None),
            ("1.2.3", None),
        ] {
            assert_eq!(amount(text), pico, "{text}");
        }
    }

    #[test]
    fn instants_without_a_zone_are_utc() {
        let at =
            |text: &str| instant(json!({ "t": text }).as_object().unwrap(), "t").unwrap().unwrap().micros();
        let expected = at("2026-09-30T12:00:00.25Z");
        for text in [
            "2026-09-30 12:00:00.25",
            "2026-09-30T12:00:00.250000",
            "2026-09-30 14:00:00.25+02:00",
            "2026-09-30 12:00:00.25 UTC",
            "2026-09-30 12:00:00.25+00",
        ] {
            assert_eq!(at(text), expected, "{text}");
        }
    }

    #[test]
    fn the_id_of_a_peers_record_does_not_depend_on_the_precision_of_its_time() {
        let id = |micros| peer_id("litellm", "chatcmpl-1", Timestamp::from_micros(micros));
        assert_eq!(id(1_700_000_000_123_456), id(1_700_000_000_000_000));
        assert_ne!(
            id(1_700_000_000_123_456),
            peer_id("langfuse", "chatcmpl-1", Timestamp::from_micros(1_700_000_000_123_456))
        );
    }

    #[test]
    fn providers_are_named_as_ours_are() {
        assert_eq!(provider_name("bedrock_converse").unwrap().as_str(), "bedrock");
        assert_eq!(provider_name("vertex_ai-anthropic_models").unwrap().as_str(), "vertex");
        assert_eq!(provider_name("My Host").unwrap().as_str(), "my host");
        assert_eq!(without_provider("openai/gpt-4o"), (Some("openai".into()), "gpt-4o"));
        assert_eq!(without_provider("meta/llama"), (None, "meta/llama"));
        assert_eq!(provider_of("gpt-oss-120b"), None);
    }
}
