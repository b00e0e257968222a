//! Facts: what the ledger can hold. Here the settled usage record; finance facts are in `fact`.
//!
//! Invariants
//! - A fact is never edited; a correction is another fact.
//! - No prompt, completion or credential can be in a fact: there is no field for one.
//!
//! Not here: bytes on disk (`ledger::codec`), names in exports (`ledger::export`).

use crate::ids::{Label, RequestId, TraceId};
use crate::money::{Currency, Money};
use crate::time::Timestamp;
use crate::usage::{Usage, UsageSource, numbered};
use std::sync::Arc;

/// Most tags on one record.
pub const TAGS_MAX: usize = 32;

numbered!(
    /// How an exchange ended.
    Outcome {
        /// The upstream answered in full.
        Ok = 0 "ok",
        /// The upstream answered with an error status, or could not be reached.
        Error = 1 "error",
        /// The reply began well and then failed: an error event, a reset, a missing end.
        ErrorMidstream = 2 "error_midstream",
        /// The provider says the reply is incomplete (`response.incomplete`).
        Incomplete = 3 "incomplete",
        /// The provider says the reply failed (`response.failed`).
        Failed = 4 "failed",
        /// A content filter withheld the reply.
        Filtered = 5 "filtered",
        /// Accepted for later; usage comes with a later call.
        Queued = 6 "queued",
        /// The client went away before the end.
        Aborted = 7 "aborted",
        /// The sidecar went away before the end; settled at the next start.
        Interrupted = 8 "interrupted",
        /// A policy refused the request; nothing reached the upstream.
        Refused = 9 "refused",
    }
);

numbered!(
    /// Whether the record's tokens count.
    Metering {
        /// They count.
        Count = 0 "count",
        /// They count once per `meter_id`: polls repeat them.
        OncePerId = 1 "once-per-id",
        /// They never count: an error without usage, a free call, a call we do not meter.
        Never = 2 "never",
    }
);

numbered!(
    /// What the identity of a request rests on; [`IdentitySource::weakness`] is their order.
    IdentitySource {
        /// A virtual key.
        Credential = 0 "credential",
        /// The sidecar's configuration.
        Config = 1 "config",
        /// Request headers.
        Header = 2 "header",
        /// W3C baggage.
        Baggage = 3 "baggage",
        /// Nothing: the request is unallocated.
        None = 4 "none",
        /// Another system's log.
        Import = 5 "import",
        /// The claims of a signed token.
        Jwt = 6 "jwt",
    }
);

impl IdentitySource {
    /// How little it vouches: what has more was said by less.
    #[must_use]
    pub const fn weakness(self) -> u8 {
        match self {
            Self::Credential | Self::Jwt => 0,
            Self::Config => 1,
            Self::Header => 2,
            Self::Baggage => 3,
            Self::None => 4,
            Self::Import => 5,
        }
    }
}

numbered!(
    /// Something about an exchange that finance or operations should look at.
    Anomaly {
        /// The reported total is not input + output.
        TotalMismatch = 0 "total_mismatch",
        /// More cached tokens than input: clamped.
        CachedExceedsInput = 1 "cached_exceeds_input",
        /// More reasoning than output: clamped.
        ReasoningExceedsOutput = 2 "reasoning_exceeds_output",
        /// A count was negative, fractional or no number: not used.
        InvalidCount = 3 "invalid_count",
        /// A count was larger than any real one: not used.
        ImplausibleCount = 4 "implausible_count",
        /// Another model was served than requested (beyond a dated version of the same name).
        ServedModelDiffers = 5 "served_model_differs",
        /// The top-level usage left out iterations; they were added.
        IterationsAdded = 6 "iterations_added",
        /// An event or body was larger than the meter reads, or could not be decoded.
        MeteringCapped = 7 "metering_capped",
        /// The reply was no valid JSON or no valid stream.
        MalformedReply = 8 "malformed_reply",
        /// The request body was no valid JSON.
        MalformedRequest = 9 "malformed_request",
        /// The usage chunk that was asked for could not be hidden from the client.
        UsageChunkShown = 10 "usage_chunk_shown",
        /// A tag or label was dropped because it was not valid, or its header's name is unknown.
        TagDropped = 11 "tag_dropped",
        /// The reply counts the same thing twice, and differently.
        CountsDisagree = 12 "counts_disagree",
        /// The provider charged something else than the list cost: more than 5 % apart.
        ProviderCostDiffers = 14 "provider_cost_differs",
        /// The client left and the rest of the reply was read for its usage.
        Drained = 16 "drained",
        /// A header or baggage contradicted the credential, and was dropped.
        IdentityContradicted = 17 "identity_contradicted",
    }
);

/// A set of anomalies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Anomalies(u32);

impl Anomalies {
    /// Adds `anomaly` to the set.
    pub fn insert(&mut self, anomaly: Anomaly) {
        self.0 |= 1_u32.wrapping_shl(u32::from(anomaly.number()));
    }

    /// Adds every member of `other`.
    pub fn extend(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether `anomaly` is in the set.
    #[must_use]
    pub const fn contains(self, anomaly: Anomaly) -> bool {
        self.0 & 1_u32.wrapping_shl(anomaly.number() as u32) != 0
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The members.
    pub fn iter(self) -> impl Iterator<Item = Anomaly> {
        Anomaly::ALL.iter().copied().filter(move |a| self.contains(*a))
    }

    /// The set as bits, for the disk.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The set from bits; unknown bits are kept.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

/// Tags of a request: unique names with values, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(Vec<(Label, Label)>);

impl Tags {
    /// Sets `name` to `value`. The first value of a name stays; `false` when the name was there
    /// already or the record is full.
    pub fn insert(&mut self, name: Label, value: Label) -> bool {
        match self.0.binary_search_by(|(n, _)| n.cmp(&name)) {
            Ok(_) => false,
            Err(_) if self.0.len() >= TAGS_MAX => false,
            Err(at) => {
                self.0.insert(at, (name, value));
                true
            }
        }
    }

    /// The value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Label> {
        let at = self.0.binary_search_by(|(n, _)| n.as_str().cmp(name)).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// All tags, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Label, &Label)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Who a request is for. Shared by all requests that carry the same identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The team that pays; absent means unallocated.
    pub team: Option<Label>,
    /// The workload (service, bot, job).
    pub workload: Option<Label>,
    /// The end customer.
    pub customer: Option<Label>,
    /// The conversation or session.
    pub session: Option<Label>,
    /// Free tags.
    pub tags: Tags,
    /// What the team rests on (the weakest source used for team and workload).
    pub source: IdentitySource,
}

impl Identity {
    /// Nobody: an unallocated request.
    #[must_use]
    pub fn unallocated() -> Self {
        Self {
            team: None,
            workload: None,
            customer: None,
            session: None,
            tags: Tags::default(),
            source: IdentitySource::None,
        }
    }
}

/// Usage of one of several models that served one request (compaction, advisor, compound models).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelUsage {
    /// The model; `None` is the record's served model.
    pub model: Option<Label>,
    /// Its part of the usage.
    pub usage: Usage,
}

/// What the provider itself says it charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProviderCost {
    /// The charge.
    pub amount: Money,
}

numbered!(
    /// Whether a cost is complete.
    CostStatus {
        /// Everything that was used has a price.
        Priced = 0 "priced",
        /// No price is known, or nobody knows what was used.
        Unpriced = 1 "unpriced",
        /// Some parts have a price, others not.
        PartlyPriced = 2 "partly_priced",
    }
);

/// What an exchange cost, with the price rows it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Whether the amounts are complete. `Unpriced` has no amounts.
    pub status: CostStatus,
    /// Currency of the amounts.
    pub currency: Currency,
    /// At public prices, in pico-units; `None` when unpriced.
    pub list_pico: Option<i128>,
    /// At negotiated prices.
    pub contracted_pico: Option<i128>,
    /// What the invoice will say.
    pub billed_pico: Option<i128>,
    /// Ids of the price rows used.
    pub price_rows: Vec<Arc<str>>,
}

impl Cost {
    /// No price known.
    #[must_use]
    pub const fn unpriced(currency: Currency) -> Self {
        Self {
            status: CostStatus::Unpriced,
            currency,
            list_pico: None,
            contracted_pico: None,
            billed_pico: None,
            price_rows: Vec::new(),
        }
    }
}

/// One exchange as it is settled: written once, never changed. Sequence and ledger id are given by
/// the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRecord {
    /// Names the record for ever.
    pub id: RequestId,
    /// When the request's head had arrived.
    pub started_at: Timestamp,
    /// When the reply had ended.
    pub ended_at: Timestamp,
    /// Who it was for.
    pub identity: Arc<Identity>,
    /// The route's prefix.
    pub route: Label,
    /// The provider's name.
    pub provider: Label,
    /// The API within the provider, such as `openai-chat`; `unmetered` for a pass-through call.
    pub api: Label,
    /// The model that was asked for.
    pub model_requested: Option<Label>,
    /// The model that answered.
    pub model_served: Option<Label>,
    /// The service tier that was charged.
    pub tier: Option<Label>,
    /// The price region.
    pub region: Option<Label>,
    /// Whether the reply was a stream.
    pub stream: bool,
    /// The upstream's status; `None` when it never answered.
    pub http_status: Option<u16>,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether it counts.
    pub metering: Metering,
    /// What was used.
    pub usage: Usage,
    /// Where the counts come from.
    pub usage_source: UsageSource,
    /// With what tokens were counted here, and the family factor of an estimate; `None` when every
    /// count is the provider's.
    pub counted_by: Option<Label>,
    /// Parts per model, when more than one model was involved.
    pub by_model: Vec<ModelUsage>,
    /// The provider's usage object(s) as sent, bounded; JSON text.
    pub usage_raw: Option<Arc<str>>,
    /// The provider's own charge.
    pub provider_cost: Option<ProviderCost>,
    /// What it cost; `None` until the ledger settles it.
    pub cost: Option<Cost>,
    /// The upstream's request id header.
    pub upstream_request_id: Option<Label>,
    /// The reply's own id, for the once-per-id rule.
    pub meter_id: Option<Label>,
    /// The caller's trace.
    pub trace_id: Option<TraceId>,
    /// Head of the request to end of the reply, in microseconds.
    pub latency_us: u64,
    /// Head of the request to the first byte of the reply's body, in microseconds.
    pub ttft_us: Option<u64>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the reply's body as sent by the upstream.
    pub bytes_out: u64,
    /// What to look at.
    pub anomalies: Anomalies,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_of_a_tag_stays() {
        let label = |text| Label::new(text).unwrap();
        let mut tags = Tags::default();
        assert!(tags.insert(label("b"), label("1")));
        assert!(tags.insert(label("a"), label("2")));
        assert!(!tags.insert(label("b"), label("3")));
        let all: Vec<_> = tags.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(all, [("a", "2"), ("b", "1")]);
        assert_eq!(tags.get("b").map(Label::as_str), Some("1"));
    }

    #[test]
    fn a_record_holds_at_most_32_tags() {
        let mut tags = Tags::default();
        for n in 0..40 {
            tags.insert(Label::new(&format!("t{n}")).unwrap(), Label::new("v").unwrap());
        }
        assert_eq!(tags.iter().len(), TAGS_MAX);
    }

    #[test]
    fn anomalies_form_a_set() {
        let mut set = Anomalies::default();
        set.insert(Anomaly::InvalidCount);
        set.insert(Anomaly::InvalidCount);
        set.insert(Anomaly::TagDropped);
        assert_eq!(set.iter().collect::<Vec<_>>(), [Anomaly::InvalidCount, Anomaly::TagDropped]);
    }
}
