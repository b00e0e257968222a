//! The wire types of payload version 1. Order and type of every field are the format: a change here
//! is a new version.
//!
//! Invariants
//! - Fields that name a text hold its number in the frame's table; 0 is *absent*.
//!
//! Not here: framing and tables (`codec`).

use super::intern::Interner;
use super::{DecodeError, label, tags};
use bursar_domain::{
    Anomalies, Cost, CostStatus, Currency, Identity, IdentitySource, Label, Metering, ModelUsage, Money,
    Outcome, ProviderCost, Quantity, RequestId, Timestamp, TokenClass, TraceId, Usage, UsageRecord,
    UsageSource,
};
use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeSeq, Serializer};
use std::sync::Arc;

const STREAM: u8 = 1;
pub(super) const COUNTED: u8 = 2;
/// The body goes on with [`WireCountedBy`].
const COUNTED_BY: u8 = 4;
const COUNTS_MAX: usize = TokenClass::ALL.len();
/// Quantities are fewer; a new one that is one too many must not be cut off in silence.
const _: () = assert!(Quantity::ALL.len() <= COUNTS_MAX);

/// A settled exchange.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct WireUsage<'a> {
    id: [u8; 16],
    started: i64,
    took: i64,
    flags: u8,
    identity: u32,
    route: u32,
    provider: u32,
    api: u32,
    model_requested: u32,
    model_served: u32,
    tier: u32,
    region: u32,
    http_status: Option<u16>,
    outcome: u8,
    metering: u8,
    usage_source: u8,
    tokens: Counts,
    quantities: Counts,
    by_model: Vec<WireModelUsage>,
    #[serde(borrow)]
    usage_raw: Option<&'a str>,
    provider_cost: Option<WireMoney>,
    cost: Option<WireCost>,
    #[serde(borrow)]
    upstream_request_id: Option<&'a str>,
    #[serde(borrow)]
    meter_id: Option<&'a str>,
    trace_id: Option<[u8; 16]>,
    latency_us: u64,
    ttft_us: Option<u64>,
    bytes_in: u64,
    bytes_out: u64,
    anomalies: u32,
}

/// What follows the body of a record whose tokens were counted here.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct WireCountedBy {
    text: u32,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct WireIdentity {
    pub(crate) team: u32,
    pub(crate) workload: u32,
    pub(crate) customer: u32,
    pub(crate) session: u32,
    /// Names and values.
    pub(crate) tags: Vec<(u32, u32)>,
    source: u8,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct WireModelUsage {
    model: u32,
    tokens: Counts,
    quantities: Counts,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct WireMoney {
    currency: [u8; 3],
    pico: i128,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct WireCost {
    status: u8,
    currency: [u8; 3],
    list_pico: Option<i128>,
    contracted_pico: Option<i128>,
    billed_pico: Option<i128>,
    price_rows: Vec<u32>,
}

/// Pairs of a number (token class or quantity) and its count.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    len: usize,
    items: [(u8, u64); COUNTS_MAX],
}

/// The tables of a frame, as its records need them.
#[derive(Debug)]
pub(super) struct WireContext {
    pub(super) base_micros: i64,
    pub(super) strings: Vec<WireText>,
    pub(super) identities: Vec<Arc<Identity>>,
}

/// A text of a frame's table, made into what records need once per frame.
#[derive(Debug)]
pub(super) struct WireText {
    text: Arc<str>,
    label: Option<Label>,
}

impl WireText {
    pub(super) fn new(text: &str) -> Self {
        Self { text: Arc::from(text), label: Label::new(text).ok() }
    }
}

/// Whether the record's tokens and cost count.
pub(super) fn counted_flag(wire: &WireUsage<'_>) -> bool {
    wire.flags & COUNTED != 0
}

/// Whether a [`WireCountedBy`] follows.
pub(super) fn has_counted_by(wire: &WireUsage<'_>) -> bool {
    wire.flags & COUNTED_BY != 0
}

/// Lets postcard write to the end of a buffer.
pub(super) fn sink(buffer: &mut Vec<u8>) -> impl Extend<u8> {
    Sink(buffer)
}

struct Sink<'a>(&'a mut Vec<u8>);

impl Extend<u8> for Sink<'_> {
    fn extend<T: IntoIterator<Item = u8>>(&mut self, bytes: T) {
        self.0.extend(bytes);
    }
}

// === impl WireUsage ===

impl<'a> WireUsage<'a> {
    pub(super) fn new(
        record: &'a UsageRecord,
        counted: bool,
        base_micros: i64,
        identity: u32,
        strings: &mut Interner,
    ) -> Self {
        let mut number = |text: Option<&Label>| text.map_or(0, |t| strings.number_of_shared(t.shared()));
        let started = record.started_at.micros();
        Self {
            id: record.id.bits().to_be_bytes(),
            started: started.wrapping_sub(base_micros),
            took: record.ended_at.micros().wrapping_sub(started),
            flags: if record.stream { STREAM } else { 0 }
                | if counted { COUNTED } else { 0 }
                | if record.counted_by.is_some() { COUNTED_BY } else { 0 },
            identity,
            route: number(Some(&record.route)),
            provider: number(Some(&record.provider)),
            api: number(Some(&record.api)),
            model_requested: number(record.model_requested.as_ref()),
            model_served: number(record.model_served.as_ref()),
            tier: number(record.tier.as_ref()),
            region: number(record.region.as_ref()),
            http_status: record.http_status,
            outcome: record.outcome.number(),
            metering: record.metering.number(),
            usage_source: record.usage_source.number(),
            tokens: Counts::tokens(&record.usage),
            quantities: Counts::quantities(&record.usage),
            by_model: record
                .by_model
                .iter()
                .map(|part| WireModelUsage {
                    model: number(part.model.as_ref()),
                    tokens: Counts::tokens(&part.usage),
                    quantities: Counts::quantities(&part.usage),
                })
                .collect(),
            usage_raw: record.usage_raw.as_deref(),
            provider_cost: record
                .provider_cost
                .map(|cost| WireMoney { currency: code(cost.amount.currency()), pico: cost.amount.pico() }),
            cost: record.cost.as_ref().map(|cost| WireCost::new(cost, strings)),
            upstream_request_id: record.upstream_request_id.as_ref().map(Label::as_str),
            meter_id: record.meter_id.as_ref().map(Label::as_str),
            trace_id: record.trace_id.map(|id| id.bits().to_be_bytes()),
            latency_us: record.latency_us,
            ttft_us: record.ttft_us,
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            anomalies: record.anomalies.bits(),
        }
    }

    pub(super) fn into_record(self, context: &WireContext) -> Result<UsageRecord, DecodeError> {
        let started = context.base_micros.wrapping_add(self.started);
        let trace_id = self.trace_id.map(u128::from_be_bytes).map(TraceId::from_bits);
        Ok(UsageRecord {
            id: RequestId::from_bits(u128::from_be_bytes(self.id)),
            started_at: Timestamp::from_micros(started),
            ended_at: Timestamp::from_micros(started.wrapping_add(self.took)),
            identity: context.identity(self.identity)?,
            route: context.label(self.route)?,
            provider: context.label(self.provider)?,
            api: context.label(self.api)?,
            model_requested: context.optional(self.model_requested)?,
            model_served: context.optional(self.model_served)?,
            tier: context.optional(self.tier)?,
            region: context.optional(self.region)?,
            stream: self.flags & STREAM != 0,
            http_status: self.http_status,
            outcome: Outcome::from_number(self.outcome).ok_or(unknown("outcome", self.outcome))?,
            metering: Metering::from_number(self.metering).ok_or(unknown("metering", self.metering))?,
            usage: usage(&self.tokens, &self.quantities)?,
            usage_source: UsageSource::from_number(self.usage_source)
                .ok_or(unknown("usage source", self.usage_source))?,
            counted_by: None,
            by_model: self
                .by_model
                .into_iter()
                .map(|part| {
                    let usage = usage(&part.tokens, &part.quantities)?;
                    Ok(ModelUsage { model: context.optional(part.model)?, usage })
                })
                .collect::<Result<_, DecodeError>>()?,
            usage_raw: self.usage_raw.map(Arc::from),
            provider_cost: self.provider_cost.map(WireMoney::into_provider_cost).transpose()?,
            cost: self.cost.map(|cost| cost.into_cost(context)).transpose()?,
            upstream_request_id: self.upstream_request_id.map(label).transpose()?,
            meter_id: self.meter_id.map(label).transpose()?,
            trace_id: match trace_id {
                None => None,
                Some(Some(id)) => Some(id),
                Some(None) => return Err(DecodeError::Malformed("a trace id is zero")),
            },
            latency_us: self.latency_us,
            ttft_us: self.ttft_us,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            anomalies: Anomalies::from_bits(self.anomalies),
        })
    }
}

// === impl WireCountedBy ===

impl WireCountedBy {
    pub(super) fn new(text: &Label, strings: &mut Interner) -> Self {
        Self { text: strings.number_of(text.as_str().as_bytes()) }
    }

    pub(super) fn into_label(self, context: &WireContext) -> Result<Label, DecodeError> {
        context.label(self.text)
    }
}

// === impl WireIdentity ===

impl WireIdentity {
    pub(super) fn new(identity: &Identity, strings: &mut Interner) -> Self {
        let mut number = |text: Option<&Label>| text.map_or(0, |t| strings.number_of_shared(t.shared()));
        Self {
            team: number(identity.team.as_ref()),
            workload: number(identity.workload.as_ref()),
            customer: number(identity.customer.as_ref()),
            session: number(identity.session.as_ref()),
            tags: identity
                .tags
                .iter()
                .map(|(name, value)| (number(Some(name)), number(Some(value))))
                .collect(),
            source: identity.source.number(),
        }
    }

    pub(super) fn into_identity(self, context: &WireContext) -> Result<Identity, DecodeError> {
        Ok(Identity {
            team: context.optional(self.team)?,
            workload: context.optional(self.workload)?,
            customer: context.optional(self.customer)?,
            session: context.optional(self.session)?,
            tags: tags(
                self.tags.iter().map(|(name, value)| Ok((context.label(*name)?, context.label(*value)?))),
            )?,
            source: IdentitySource::from_number(self.source)
                .ok_or(unknown("identity source", self.source))?,
        })
    }
}

// === impl WireContext ===

impl WireContext {
    fn text(&self, number: u32) -> Result<&WireText, DecodeError> {
        usize::try_from(number)
            .ok()
            .and_then(|number| self.strings.get(number.checked_sub(1)?))
            .ok_or(DecodeError::Malformed("a text is not in the frame's table"))
    }

    pub(super) fn label(&self, number: u32) -> Result<Label, DecodeError> {
        let label = self.text(number)?.label.clone();
        label.ok_or(DecodeError::Malformed("a text is not a valid label"))
    }

    pub(super) fn optional(&self, number: u32) -> Result<Option<Label>, DecodeError> {
        if number == 0 { Ok(None) } else { self.label(number).map(Some) }
    }

    pub(super) fn identity(&self, number: u32) -> Result<Arc<Identity>, DecodeError> {
        usize::try_from(number)
            .ok()
            .and_then(|number| self.identities.get(number.checked_sub(1)?))
            .cloned()
            .ok_or(DecodeError::Malformed("an identity is not in the frame's table"))
    }
}

// === money ===

impl WireMoney {
    fn into_provider_cost(self) -> Result<ProviderCost, DecodeError> {
        Ok(ProviderCost { amount: Money::from_pico(currency(self.currency)?, self.pico) })
    }
}

impl WireCost {
    fn new(cost: &Cost, strings: &mut Interner) -> Self {
        Self {
            status: cost.status.number(),
            currency: code(cost.currency),
            list_pico: cost.list_pico,
            contracted_pico: cost.contracted_pico,
            billed_pico: cost.billed_pico,
            price_rows: cost.price_rows.iter().map(|row| strings.number_of_shared(row)).collect(),
        }
    }

    fn into_cost(self, context: &WireContext) -> Result<Cost, DecodeError> {
        Ok(Cost {
            status: CostStatus::from_number(self.status).ok_or(unknown("cost status", self.status))?,
            currency: currency(self.currency)?,
            list_pico: self.list_pico,
            contracted_pico: self.contracted_pico,
            billed_pico: self.billed_pico,
            price_rows: self
                .price_rows
                .iter()
                .map(|row| context.text(*row).map(|text| text.text.clone()))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// The three letters of a currency, as bytes.
pub(crate) fn code(currency: Currency) -> [u8; 3] {
    currency.code().as_bytes().first_chunk().copied().unwrap_or(*b"XXX")
}

/// The currency with these three letters.
pub(crate) fn currency(code: [u8; 3]) -> Result<Currency, DecodeError> {
    std::str::from_utf8(&code)
        .ok()
        .and_then(|code| Currency::parse(code).ok())
        .ok_or(DecodeError::Malformed("a currency is not three capital letters"))
}

fn unknown(what: &'static str, number: u8) -> DecodeError {
    DecodeError::UnknownNumber { what, number: u64::from(number) }
}

// === counts ===

impl Counts {
    fn tokens(usage: &Usage) -> Self {
        Self::gather(usage.tokens().map(|(class, count)| (class.number(), count)))
    }

    fn quantities(usage: &Usage) -> Self {
        Self::gather(usage.quantities().map(|(quantity, amount)| (quantity.number(), amount)))
    }

    fn gather(pairs: impl Iterator<Item = (u8, u64)>) -> Self {
        let mut counts = Self::default();
        for (slot, pair) in counts.items.iter_mut().zip(pairs) {
            *slot = pair;
            counts.len = counts.len.saturating_add(1);
        }
        counts
    }

    fn pairs(&self) -> &[(u8, u64)] {
        self.items.get(..self.len).unwrap_or_default()
    }
}

fn usage(tokens: &Counts, quantities: &Counts) -> Result<Usage, DecodeError> {
    let mut usage = Usage::unknown();
    for (number, count) in tokens.pairs() {
        usage.set(TokenClass::from_number(*number).ok_or(unknown("token class", *number))?, *count);
    }
    for (number, amount) in quantities.pairs() {
        usage.set_quantity(Quantity::from_number(*number).ok_or(unknown("quantity", *number))?, *amount);
    }
    Ok(usage)
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.len))?;
        for pair in self.pairs() {
            seq.serialize_element(pair)?;
        }
        seq.end()
    }
}

impl<'de> Deserialize<'de> for Counts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Counts;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "at most {COUNTS_MAX} counts")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Counts, A::Error> {
                let mut counts = Counts::default();
                while let Some(pair) = seq.next_element()? {
                    let slot = counts.items.get_mut(counts.len).ok_or(A::Error::custom("too many counts"))?;
                    *slot = pair;
                    counts.len = counts.len.saturating_add(1);
                }
                Ok(counts)
            }
        }

        deserializer.deserialize_seq(Pairs)
    }
}
