//! Usage records as Bursar exports them: the published names, read back into disjoint token classes.
//!
//! Invariants
//! - An unknown field, a count that is no whole number, or parts larger than their whole are errors.
//! - What a row does not say stays unknown; a row without a cost is priced by the ledger.
//! - The same row gives the same id, so importing twice is importing once; what was exported exports the
//!   same again.
//!
//! Not here: writing records (`ledger`), the names in exports (`ledger::export`).

use super::fields::{Row, choice, group, label, millis, text, thousandths, time, trace_id, whole};
use bursar_domain::event::Anomalies;
use bursar_domain::money::parse_pico;
use bursar_domain::{
    Anomaly, Cost, CostStatus, Currency, Identity, IdentitySource, Label, Metering, ModelUsage, Money,
    Outcome, ProviderCost, Quantity, RequestId, Tags, Timestamp, TokenClass, Usage, UsageRecord, UsageSource,
};
use serde_json::Value;
use std::sync::Arc;

/// Most parts of one record by model.
const PARTS_MAX: usize = 1_000;

/// Every name a row may have. Those of the ledger's own (`seq` …) are read and left.
const FIELDS: [&str; 39] = [
    "id",
    "seq",
    "ledger",
    "started_at",
    "ended_at",
    "team",
    "workload",
    "customer",
    "session",
    "tags",
    "identity_source",
    "route",
    "provider",
    "api",
    "model",
    "model_requested",
    "model_served",
    "tier",
    "region",
    "stream",
    "http_status",
    "outcome",
    "metering",
    "usage",
    "usage_classes",
    "usage_source",
    "counted_by",
    "by_model",
    "usage_raw",
    "provider_cost",
    "cost",
    "upstream_request_id",
    "meter_id",
    "trace_id",
    "latency_ms",
    "ttft_ms",
    "bytes_in",
    "bytes_out",
    "anomalies",
];

/// Whether most fields of a row are named as ours are.
pub(super) fn is_like(row: &Row) -> bool {
    let is_ours = |name: &&String| FIELDS.contains(&name.split('.').next().unwrap_or_default());
    row.keys().filter(is_ours).count().saturating_mul(2) >= row.len()
}

/// The record that a row says. `written` is the row as the file has it, where that is JSON: the provider's
/// usage object is kept in its own digits.
pub(super) fn record(row: &Row, written: Option<&str>) -> Result<Box<UsageRecord>, String> {
    if let Some(unknown) = row.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        return Err(format!("unknown field {unknown:?}: rows have the names of `bursar export usage`"));
    }
    let started_at = time(row, "started_at")?.ok_or("started_at is missing: write when the request began")?;
    let ended_at = time(row, "ended_at")?.unwrap_or(started_at);
    let usage = usage(row)?;
    let known = !usage.is_unknown();
    let default_source = if known { UsageSource::Provider } else { UsageSource::Absent };
    let model = label(row, "model")?;
    Ok(Box::new(UsageRecord {
        id: id(row, started_at)?,
        started_at,
        ended_at,
        identity: Arc::new(identity(row)?),
        route: label(row, "route")?.unwrap_or_else(|| Label::fixed("import")),
        provider: label(row, "provider")?.ok_or("provider is missing: name it, such as openai")?,
        api: label(row, "api")?.unwrap_or_else(|| Label::fixed("import")),
        model_requested: label(row, "model_requested")?.or_else(|| model.clone()),
        model_served: label(row, "model_served")?.or(model),
        tier: label(row, "tier")?,
        region: label(row, "region")?,
        stream: row.get("stream").and_then(Value::as_bool).unwrap_or(false),
        http_status: whole(row, "http_status")?
            .map(u16::try_from)
            .transpose()
            .map_err(|_| "http_status is too large")?,
        outcome: choice(row, "outcome", Outcome::from_name)?.unwrap_or(Outcome::Ok),
        metering: choice(row, "metering", Metering::from_name)?.unwrap_or(Metering::Count),
        usage,
        usage_source: choice(row, "usage_source", UsageSource::from_name)?.unwrap_or(default_source),
        counted_by: label(row, "counted_by")?,
        by_model: by_model(row)?,
        usage_raw: usage_raw(row, written)?,
        provider_cost: provider_cost(row)?,
        cost: cost(row)?,
        upstream_request_id: label(row, "upstream_request_id")?,
        meter_id: label(row, "meter_id")?,
        trace_id: trace_id(row)?,
        latency_us: millis(row, "latency_ms")?.unwrap_or(0),
        ttft_us: millis(row, "ttft_ms")?,
        bytes_in: whole(row, "bytes_in")?.unwrap_or(0),
        bytes_out: whole(row, "bytes_out")?.unwrap_or(0),
        anomalies: anomalies(row)?,
    }))
}

/// A UUID is taken as it is; any other id, and a row without one, gives the UUID of its text.
fn id(row: &Row, started_at: Timestamp) -> Result<RequestId, String> {
    let text = text(row, "id")?;
    if let Some(id) = text.as_deref().and_then(RequestId::parse) {
        return Ok(id);
    }
    let whole = || Value::Object(row.clone()).to_string();
    let hash = blake3::hash(text.unwrap_or_else(whole).as_bytes());
    let half = hash.as_bytes().first_chunk::<16>().map_or(0, |half| u128::from_be_bytes(*half));
    Ok(RequestId::new(started_at, half))
}

fn identity(row: &Row) -> Result<Identity, String> {
    let mut tags = Tags::default();
    if let Some(written) = row.get("tags") {
        let written = written.as_object().ok_or("tags: write an object of names and values")?;
        for (name, value) in written {
            let value = value.as_str().ok_or_else(|| format!("tags.{name}: write text"))?;
            let made = |text: &str| Label::new(text).map_err(|error| format!("tags.{name}: {error}"));
            if !tags.insert(made(name)?, made(value)?) {
                return Err(format!("tags.{name}: a record has at most 32 tags, each once"));
            }
        }
    }
    let team = label(row, "team")?;
    let usual = if team.is_some() { IdentitySource::Import } else { IdentitySource::None };
    Ok(Identity {
        team,
        workload: label(row, "workload")?,
        customer: label(row, "customer")?,
        session: label(row, "session")?,
        tags,
        source: choice(row, "identity_source", IdentitySource::from_name)?.unwrap_or(usual),
    })
}

/// What stood out about the exchange, by name.
fn anomalies(row: &Row) -> Result<Anomalies, String> {
    let mut found = Anomalies::default();
    let written = match row.get("anomalies") {
        None | Some(Value::Null) => return Ok(found),
        Some(Value::Array(names)) => names,
        Some(_) => return Err("anomalies: write a list of names".to_owned()),
    };
    for name in written {
        let name = name.as_str().unwrap_or_default();
        let anomaly = Anomaly::from_name(name).ok_or_else(|| format!("anomalies: {name:?} is unknown"))?;
        found.insert(anomaly);
    }
    Ok(found)
}

// === usage ===

fn by_model(row: &Row) -> Result<Vec<ModelUsage>, String> {
    let parts = match row.get("by_model") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(parts)) => parts,
        Some(_) => return Err("by_model: write a list of parts".to_owned()),
    };
    if parts.len() > PARTS_MAX {
        return Err(format!("by_model: a record has at most {PARTS_MAX} parts"));
    }
    let part = |part: &Value| {
        let part = part.as_object().ok_or("by_model: a part is an object of names and values")?;
        if let Some(unknown) =
            part.keys().find(|name| !["model", "usage", "usage_classes"].contains(&name.as_str()))
        {
            return Err(format!("unknown field by_model.{unknown}: use model and usage"));
        }
        Ok(ModelUsage { model: label(part, "model")?, usage: usage(part)? })
    };
    parts.iter().map(part).collect()
}

/// The provider's usage object. As JSON it keeps its own digits and spaces; text that is no JSON stays text.
fn usage_raw(row: &Row, written: Option<&str>) -> Result<Option<Arc<str>>, String> {
    #[derive(serde::Deserialize)]
    struct Raw<'a> {
        #[serde(borrow)]
        usage_raw: Option<&'a serde_json::value::RawValue>,
    }
    match (row.get("usage_raw"), written) {
        (None | Some(Value::Null), _) => Ok(None),
        (Some(Value::String(text)), _) => Ok(Some(text.as_str().into())),
        (Some(value), None) => Ok(Some(value.to_string().into())),
        (Some(_), Some(written)) => {
            let raw: Raw<'_> =
                serde_json::from_str(written).map_err(|error| format!("usage_raw: {error}"))?;
            Ok(raw.usage_raw.map(|raw| raw.get().into()))
        }
    }
}

fn usage(row: &Row) -> Result<Usage, String> {
    if let Some(classes) = group(row, "usage_classes")? {
        return from_classes(classes);
    }
    let Some(counts) = group(row, "usage")? else { return Ok(Usage::unknown()) };
    from_totals(counts)
}

fn from_classes(classes: &Row) -> Result<Usage, String> {
    let mut usage = Usage::unknown();
    for name in classes.keys() {
        let count = whole(classes, name)?.unwrap_or(0);
        match (TokenClass::from_name(name), Quantity::from_name(name)) {
            (Some(class), _) => usage.set(class, count),
            (None, Some(quantity)) => usage.set_quantity(quantity, count),
            (None, None) => return Err(format!("usage_classes.{name} is no token class and no quantity")),
        }
    }
    Ok(usage)
}

/// Totals with their parts, taken apart again.
fn from_totals(counts: &Row) -> Result<Usage, String> {
    use TokenClass as C;
    let mut usage = Usage::unknown();
    let input = [
        ("input_cached_read", C::CachedRead),
        ("input_cache_write", C::CacheWrite),
        ("input_audio", C::InputAudio),
        ("input_image", C::InputImage),
        ("input_video", C::InputVideo),
        ("input_tool_use", C::InputToolUse),
    ];
    let writes = [("input_cache_write_5m", C::CacheWrite5m), ("input_cache_write_1h", C::CacheWrite1h)];
    let output = [
        ("output_reasoning", C::OutputReasoning),
        ("output_audio", C::OutputAudio),
        ("output_image", C::OutputImage),
    ];
    let totals = ["input_tokens", "output_tokens", "audio_seconds"];
    for name in counts.keys() {
        let known = totals.contains(&name.as_str())
            || input.iter().chain(&writes).chain(&output).any(|(part, _)| part == name)
            || Quantity::from_name(name).is_some();
        if !known {
            return Err(format!("unknown field usage.{name}: rows have the names of `bursar export usage`"));
        }
    }
    take_apart(counts, &mut usage, ("input_tokens", C::InputFresh), &input)?;
    take_apart(counts, &mut usage, ("input_cache_write", C::CacheWrite), &writes)?;
    take_apart(counts, &mut usage, ("output_tokens", C::OutputText), &output)?;
    for quantity in Quantity::ALL {
        if let Some(amount) = whole(counts, quantity.name())? {
            usage.set_quantity(*quantity, amount);
        }
    }
    if let Some(seconds) = text(counts, "audio_seconds")? {
        usage.set_quantity(Quantity::AudioMillis, thousandths("audio_seconds", &seconds)?);
    }
    Ok(usage)
}

/// States the parts, and as `rest` what the whole has beyond them.
fn take_apart(
    counts: &Row,
    usage: &mut Usage,
    (whole_name, rest): (&str, TokenClass),
    parts: &[(&str, TokenClass)],
) -> Result<(), String> {
    let mut sum = 0_u64;
    for (name, class) in parts {
        if let Some(count) = whole(counts, name)? {
            usage.set(*class, count);
            sum = sum.saturating_add(count);
        }
    }
    if let Some(total) = whole(counts, whole_name)? {
        sum = sum.saturating_sub(move_cached(usage, sum.saturating_sub(total)));
        let left = total.checked_sub(sum);
        let left =
            left.ok_or_else(|| format!("usage.{whole_name} is {total}, its parts are {sum} together"))?;
        usage.set(rest, left);
    } else if sum > 0 && whole_name == "input_cache_write" {
        usage.set(rest, 0);
    }
    Ok(())
}

/// The parts have `over` tokens more than the whole: sound and pictures that were read from a cache are in two
/// of them. Takes them out of one, and says how many there were.
fn move_cached(usage: &mut Usage, over: u64) -> u64 {
    use TokenClass as C;
    let mut left = over;
    for (fresh, cached) in
        [(C::InputVideo, C::CachedVideo), (C::InputImage, C::CachedImage), (C::InputAudio, C::CachedAudio)]
    {
        let (Some(all), Some(read)) = (usage.get(fresh), usage.get(C::CachedRead)) else { continue };
        let moved = left.min(all).min(read);
        if moved > 0 {
            usage.set(fresh, all.saturating_sub(moved));
            usage.set(C::CachedRead, read.saturating_sub(moved));
            usage.set(cached, moved);
            left = left.saturating_sub(moved);
        }
    }
    over.saturating_sub(left)
}

// === money ===

fn cost(row: &Row) -> Result<Option<Cost>, String> {
    let Some(written) = group(row, "cost")? else { return Ok(None) };
    if let Some(unknown) = written.keys().find(|name| {
        !["currency", "list", "contracted", "billed", "status", "price_rows"].contains(&name.as_str())
    }) {
        return Err(format!("unknown field cost.{unknown}: use currency, list, contracted, billed, status"));
    }
    let amount = |name: &str| {
        let text = text(written, name)?;
        text.map(|text| pico(&format!("cost.{name}"), &text)).transpose()
    };
    let (list, contracted, billed) = (amount("list")?, amount("contracted")?, amount("billed")?);
    let some = list.is_some() || contracted.is_some() || billed.is_some();
    let usual = if some { CostStatus::Priced } else { CostStatus::Unpriced };
    let status = choice(written, "status", CostStatus::from_name)?.unwrap_or(usual);
    if some == (status == CostStatus::Unpriced) {
        return Err("cost: an unpriced cost has no amounts, and a priced one has some".to_owned());
    }
    let rows = written.get("price_rows").and_then(Value::as_array);
    let price_rows = rows.into_iter().flatten().filter_map(Value::as_str).map(Arc::from).collect();
    Ok(Some(Cost {
        status,
        currency: currency(written)?,
        list_pico: list,
        contracted_pico: contracted,
        billed_pico: billed,
        price_rows,
    }))
}

fn provider_cost(row: &Row) -> Result<Option<ProviderCost>, String> {
    let Some(written) = group(row, "provider_cost")? else { return Ok(None) };
    let amount = text(written, "amount")?.ok_or("provider_cost.amount is missing")?;
    let amount = Money::from_pico(currency(written)?, pico("provider_cost.amount", &amount)?);
    Ok(Some(ProviderCost { amount }))
}

fn currency(row: &Row) -> Result<Currency, String> {
    match text(row, "currency")? {
        None => Ok(Currency::USD),
        Some(code) => {
            let parsed = Currency::parse(&code);
            let parsed =
                parsed.map_err(|_| format!("currency: {code:?} is not a code of three capital letters"))?;
            let listed = Some(parsed).filter(|parsed| parsed.is_listed());
            listed.ok_or_else(|| {
                format!("currency: {code:?} is no currency that ISO 4217 lists: write its code, such as USD")
            })
        }
    }
}

fn pico(name: &str, text: &str) -> Result<i128, String> {
    let amount = parse_pico(text).map_err(|error| format!("{name}: {text:?}: {error}"))?;
    if amount < 0 {
        Err(format!("{name}: {text:?} is negative: a request costs nothing or more"))
    } else {
        Ok(amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(fields: Value) -> Result<Box<UsageRecord>, String> {
        record(fields.as_object().unwrap(), None)
    }

    fn plain() -> Value {
        json!({"id": "r-1", "started_at": "2026-09-01T00:00:00Z", "provider": "openai", "model": "m"})
    }

    fn with(name: &str, value: Value) -> Value {
        let mut fields = plain();
        fields[name] = value;
        fields
    }

    #[test]
    fn totals_are_taken_apart_and_come_out_as_they_went_in() {
        let counts = json!({
            "input_tokens": 100, "input_cached_read": 40, "input_cache_write": 20, "input_cache_write_5m": 5,
            "output_tokens": 30, "output_reasoning": 10, "tool_calls": 2, "audio_seconds": "1.5"
        });
        let usage = read(with("usage", counts)).unwrap().usage;
        assert_eq!(usage.get(TokenClass::InputFresh), Some(40));
        assert_eq!(usage.get(TokenClass::CacheWrite), Some(15));
        assert_eq!(usage.get(TokenClass::OutputText), Some(20));
        assert_eq!((usage.input_total(), usage.output_total()), (Some(100), Some(30)));
        assert_eq!(usage.quantity(Quantity::AudioMillis), Some(1_500));
        // What lies in two of the parts was read from a cache: 8 beside it, 992 in it.
        let counts = json!({"input_tokens": 3_000, "input_cached_read": 2_000, "input_video": 1_992});
        let video = read(with("usage", counts)).unwrap().usage;
        assert_eq!(video.get(TokenClass::CachedVideo), Some(992));
        let totals = (video.input_total(), video.cached_read_total(), video.input_video_total());
        assert_eq!(totals, (Some(3_000), Some(2_000), Some(1_992)));
        let none = read(plain()).unwrap();
        assert!(none.usage.is_unknown() && none.usage_source == UsageSource::Absent && none.cost.is_none());
    }

    #[test]
    fn the_same_row_has_the_same_id_and_a_uuid_is_kept() {
        assert_eq!(read(plain()).unwrap().id, read(with("team", json!("a"))).unwrap().id);
        assert_ne!(read(plain()).unwrap().id, read(with("id", json!("r-2"))).unwrap().id);
        let uuid = "01999999-0000-7000-8000-000000000001";
        assert_eq!(read(with("id", json!(uuid))).unwrap().id.to_string(), uuid);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (name, value, text) in [
            ("usage", json!({"input_tokens": -5}), "input_tokens"),
            ("usage", json!({"input_tokens": 5, "input_cached_read": 6}), "its parts are 6"),
            ("usage", json!({"tokens": 5}), "unknown field usage.tokens"),
            ("cost", json!({"billed": "-1"}), "is negative"),
            ("cost", json!({"status": "priced"}), "has no amounts"),
            ("cost", json!({"billed": "1", "currency": "usd"}), "three capital letters"),
            ("cost", json!({"billed": "1", "currency": "XXQ"}), "no currency that ISO 4217 lists"),
            ("started_at", json!("yesterday"), "is not a time"),
            ("outcome", json!("fine"), "is unknown"),
            ("teem", json!("a"), "unknown field"),
            ("trace_id", json!("zz"), "32 hexadecimal"),
        ] {
            let error = read(with(name, value)).unwrap_err();
            assert!(error.contains(text), "{name}: {error}");
        }
    }
}
