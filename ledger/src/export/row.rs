//! The published shape of a usage record. The order of the fields here is the order in exports.
//!
//! Not here: formats (`jsonl`, `csv`).

use crate::journal::read::StoredRecord;
use bursar_domain::money::format_pico;
use bursar_domain::{Cost, ModelUsage, ProviderCost, Quantity, Tags, Timestamp, TokenClass, Usage};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;

/// One record as it is exported.
#[derive(Debug, Serialize)]
pub(super) struct Row<'a> {
    pub(super) id: String,
    pub(super) seq: u64,
    pub(super) ledger: String,
    pub(super) started_at: String,
    pub(super) ended_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) team: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) workload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) customer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<&'a str>,
    #[serde(skip_serializing_if = "TagsRow::is_empty")]
    pub(super) tags: TagsRow<'a>,
    pub(super) identity_source: &'static str,
    pub(super) route: &'a str,
    pub(super) provider: &'a str,
    pub(super) api: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) model_requested: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) model_served: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) region: Option<&'a str>,
    pub(super) stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) http_status: Option<u16>,
    pub(super) outcome: &'static str,
    pub(super) metering: &'static str,
    pub(super) usage: UsageRow,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage_classes: Option<ClassesRow>,
    pub(super) usage_source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) counted_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) by_model: Vec<ModelRow<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage_raw: Option<RawUsage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) provider_cost: Option<ProviderCostRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cost: Option<CostRow<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upstream_request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) meter_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trace_id: Option<String>,
    pub(super) latency_ms: Decimal,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ttft_ms: Option<Decimal>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) anomalies: Vec<&'static str>,
}

impl<'a> Row<'a> {
    pub(super) fn new(stored: &'a StoredRecord) -> Self {
        let record = &stored.record;
        let identity = &record.identity;
        Self {
            id: record.id.to_string(),
            seq: stored.sequence,
            ledger: stored.ledger.to_string(),
            started_at: rfc3339(record.started_at),
            ended_at: rfc3339(record.ended_at),
            team: identity.team.as_ref().map(AsRef::as_ref),
            workload: identity.workload.as_ref().map(AsRef::as_ref),
            customer: identity.customer.as_ref().map(AsRef::as_ref),
            session: identity.session.as_ref().map(AsRef::as_ref),
            tags: TagsRow(&identity.tags),
            identity_source: identity.source.name(),
            route: record.route.as_str(),
            provider: record.provider.as_str(),
            api: record.api.as_str(),
            model_requested: record.model_requested.as_ref().map(AsRef::as_ref),
            model_served: record.model_served.as_ref().map(AsRef::as_ref),
            tier: record.tier.as_ref().map(AsRef::as_ref),
            region: record.region.as_ref().map(AsRef::as_ref),
            stream: record.stream,
            http_status: record.http_status,
            outcome: record.outcome.name(),
            metering: record.metering.name(),
            usage: UsageRow::new(&record.usage),
            usage_classes: ClassesRow::needed(&record.usage),
            usage_source: record.usage_source.name(),
            counted_by: record.counted_by.as_ref().map(AsRef::as_ref),
            by_model: record.by_model.iter().map(ModelRow::new).collect(),
            usage_raw: record.usage_raw.as_deref().map(RawUsage::new),
            provider_cost: record.provider_cost.map(ProviderCostRow::new),
            cost: record.cost.as_ref().map(CostRow::new),
            upstream_request_id: record.upstream_request_id.as_ref().map(AsRef::as_ref),
            meter_id: record.meter_id.as_ref().map(AsRef::as_ref),
            trace_id: record.trace_id.map(|id| id.to_string()),
            latency_ms: Decimal::thousandths(record.latency_us),
            ttft_ms: record.ttft_us.map(Decimal::thousandths),
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            anomalies: record.anomalies.iter().map(bursar_domain::Anomaly::name).collect(),
        }
    }
}

impl Row<'_> {
    /// Adds the disjoint classes, of the whole and of each part.
    pub(super) fn tell_classes(&mut self, stored: &StoredRecord) {
        self.usage_classes = Some(ClassesRow(stored.record.usage));
        for (row, part) in self.by_model.iter_mut().zip(&stored.record.by_model) {
            row.usage_classes = Some(ClassesRow(part.usage));
        }
    }
}

/// The disjoint token classes and the quantities that are known, by their names in price books.
#[derive(Debug)]
pub(super) struct ClassesRow(Usage);

impl ClassesRow {
    /// The classes, where the published totals do not tell them: tokens that are in two totals at once.
    pub(super) fn needed(usage: &Usage) -> Option<Self> {
        use TokenClass as C;
        let shared = [C::CachedAudio, C::CachedImage, C::CacheRewrite, C::OutputReasoningAudio];
        shared.iter().any(|class| usage.get(*class).is_some()).then_some(Self(*usage))
    }
}

impl Serialize for ClassesRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (class, count) in self.0.tokens() {
            map.serialize_entry(class.name(), &count)?;
        }
        for (quantity, amount) in self.0.quantities() {
            map.serialize_entry(quantity.name(), &amount)?;
        }
        map.end()
    }
}

/// Tags as an object, by name.
#[derive(Debug)]
pub(super) struct TagsRow<'a>(pub(super) &'a Tags);

impl TagsRow<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for TagsRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.iter().len()))?;
        for (name, value) in self.0.iter() {
            map.serialize_entry(name.as_str(), value.as_str())?;
        }
        map.end()
    }
}

/// The published counts, as totals, by name. What is unknown has no value.
#[derive(Debug)]
pub(super) struct UsageRow {
    values: [Option<Decimal>; UsageRow::NAMES.len()],
}

impl UsageRow {
    pub(super) const NAMES: [&'static str; 27] = [
        "input_tokens",
        "input_cached_read",
        "input_cache_write",
        "input_cache_write_5m",
        "input_cache_write_1h",
        "input_audio",
        "input_image",
        "input_video",
        "input_tool_use",
        "output_tokens",
        "output_reasoning",
        "output_audio",
        "output_image",
        "billed_input_tokens",
        "billed_output_tokens",
        "web_search_requests",
        "web_fetch_requests",
        "search_units",
        "audio_seconds",
        "pages",
        "tool_calls",
        "images",
        "accepted_prediction",
        "rejected_prediction",
        "input_images",
        "medium_search_context",
        "high_search_context",
    ];

    /// Where the length of audio stands among the counts, in milliseconds.
    pub(super) const AUDIO: usize = 18;

    fn new(usage: &Usage) -> Self {
        let mut values = Self::counts(usage).map(|count| count.map(Decimal::whole));
        if let Some(audio) = values.get_mut(Self::AUDIO) {
            *audio = usage.quantity(Quantity::AudioMillis).map(Decimal::seconds);
        }
        Self { values }
    }

    /// The counts in the order of their names.
    pub(super) fn counts(usage: &Usage) -> [Option<u64>; Self::NAMES.len()] {
        use TokenClass as C;
        [
            usage.input_total(),
            usage.cached_read_total(),
            usage.cache_write_total(),
            usage.get(C::CacheWrite5m),
            usage.get(C::CacheWrite1h),
            usage.input_audio_total(),
            usage.input_image_total(),
            usage.input_video_total(),
            usage.get(C::InputToolUse),
            usage.output_total(),
            usage.output_reasoning_total(),
            usage.output_audio_total(),
            usage.get(C::OutputImage),
            usage.quantity(Quantity::BilledInputTokens),
            usage.quantity(Quantity::BilledOutputTokens),
            usage.quantity(Quantity::WebSearchRequests),
            usage.quantity(Quantity::WebFetchRequests),
            usage.quantity(Quantity::SearchUnits),
            usage.quantity(Quantity::AudioMillis),
            usage.quantity(Quantity::Pages),
            usage.quantity(Quantity::ToolCalls),
            usage.quantity(Quantity::Images),
            usage.quantity(Quantity::AcceptedPrediction),
            usage.quantity(Quantity::RejectedPrediction),
            usage.quantity(Quantity::InputImages),
            usage.quantity(Quantity::MediumSearchContext),
            usage.quantity(Quantity::HighSearchContext),
        ]
    }

    pub(super) fn values(&self) -> impl Iterator<Item = Option<&Decimal>> {
        self.values.iter().map(Option::as_ref)
    }
}

impl Serialize for UsageRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in Self::NAMES.iter().zip(&self.values) {
            if let Some(value) = value {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }
}

#[derive(Debug, Serialize)]
pub(super) struct ModelRow<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    usage: UsageRow,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_classes: Option<ClassesRow>,
}

impl<'a> ModelRow<'a> {
    pub(super) fn new(part: &'a ModelUsage) -> Self {
        Self {
            model: part.model.as_ref().map(AsRef::as_ref),
            usage: UsageRow::new(&part.usage),
            usage_classes: ClassesRow::needed(&part.usage),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct ProviderCostRow {
    pub(super) amount: Decimal,
    pub(super) currency: String,
}

impl ProviderCostRow {
    fn new(cost: ProviderCost) -> Self {
        let amount = Decimal(format_pico(cost.amount.pico()));
        Self { amount, currency: cost.amount.currency().code().to_owned() }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct CostRow<'a> {
    pub(super) currency: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) list: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) contracted: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) billed: Option<String>,
    pub(super) status: &'static str,
    pub(super) price_rows: Vec<&'a str>,
}

impl<'a> CostRow<'a> {
    fn new(cost: &'a Cost) -> Self {
        Self {
            currency: cost.currency.code().to_owned(),
            list: cost.list_pico.map(format_pico),
            contracted: cost.contracted_pico.map(format_pico),
            billed: cost.billed_pico.map(format_pico),
            status: cost.status.name(),
            price_rows: cost.price_rows.iter().map(AsRef::as_ref).collect(),
        }
    }
}

/// The provider's usage object: JSON as it is, or text when it is no JSON.
#[derive(Debug)]
pub(super) struct RawUsage<'a>(&'a str);

impl<'a> RawUsage<'a> {
    fn new(text: &'a str) -> Self {
        Self(text)
    }

    pub(super) fn text(&self) -> &'a str {
        self.0
    }
}

impl Serialize for RawUsage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // In JSON a line end can only stand between tokens, so a space may take its place: a row
        // stays one line.
        let one_line: String = self.0.replace(['\n', '\r'], " ");
        match serde_json::from_str::<&RawValue>(&one_line) {
            Ok(raw) => raw.serialize(serializer),
            Err(_) => serializer.serialize_str(self.0),
        }
    }
}

/// A number whose digits are exactly these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decimal(String);

impl Decimal {
    fn whole(n: u64) -> Self {
        Self(n.to_string())
    }

    /// `n` thousandths, with three decimals.
    fn thousandths(n: u64) -> Self {
        Self(format!("{}.{:03}", n / 1_000, n % 1_000))
    }

    /// `n` milliseconds as seconds, whole when they are.
    fn seconds(n: u64) -> Self {
        let Self(text) = Self::thousandths(n);
        Self(text.trim_end_matches('0').trim_end_matches('.').to_owned())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serde_json::from_str::<&RawValue>(&self.0) {
            Ok(raw) => raw.serialize(serializer),
            Err(_) => serializer.serialize_str(&self.0),
        }
    }
}

/// RFC 3339 in UTC with microseconds.
fn rfc3339(at: Timestamp) -> String {
    match jiff::Timestamp::from_microsecond(at.micros()) {
        Ok(at) => format!("{at:.6}"),
        Err(_) if at.micros() < 0 => format!("{:.6}", jiff::Timestamp::MIN),
        Err(_) => format!("{:.6}", jiff::Timestamp::MAX),
    }
}
