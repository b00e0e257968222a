//! What is told of a settled exchange, to logs and to a collector: ids, names and figures.
//!
//! Invariants
//! - There is no field for content, a credential, a tag, a customer or a session.
//! - An unknown figure is absent.
//!
//! Not here: how it is written (`lines`, `otlp::messages`).

use super::genai;
use bursar_domain::money::format_pico;
use bursar_domain::{
    Cost, CostStatus, Currency, Label, Metering, Outcome, RequestId, Timestamp, TraceId, UsageRecord,
    UsageSource,
};
use bursar_ledger::Caller;

/// A settled exchange.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) id: RequestId,
    /// Its number in the ledger; `None` when it was lost.
    pub(crate) sequence: Option<u64>,
    pub(crate) started_at: Timestamp,
    pub(crate) ended_at: Timestamp,
    pub(crate) route: Label,
    pub(crate) provider: Label,
    pub(crate) api: Label,
    pub(crate) team: Option<Label>,
    pub(crate) workload: Option<Label>,
    pub(crate) model_requested: Option<Label>,
    pub(crate) model_served: Option<Label>,
    pub(crate) stream: bool,
    pub(crate) http_status: Option<u16>,
    pub(crate) outcome: Outcome,
    pub(crate) usage: Option<Counts>,
    pub(crate) cost: Option<Amount>,
    pub(crate) upstream_request_id: Option<Label>,
    pub(crate) trace_id: Option<TraceId>,
    pub(crate) caller: Caller,
    pub(crate) latency_us: u64,
    pub(crate) ttft_us: Option<u64>,
}

/// Tokens that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) input: Option<u64>,
    pub(crate) output: Option<u64>,
    pub(crate) cache_read: Option<u64>,
    pub(crate) cache_write: Option<u64>,
    pub(crate) reasoning: Option<u64>,
    pub(crate) source: UsageSource,
}

/// What it cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) status: CostStatus,
    pub(crate) currency: Currency,
    pub(crate) billed_pico: Option<i128>,
}

impl Amount {
    fn of(cost: &Cost) -> Self {
        Self { status: cost.status, currency: cost.currency, billed_pico: cost.billed_pico }
    }

    /// The exact amount, if there is one.
    pub(crate) fn billed(&self) -> Option<String> {
        self.billed_pico.map(format_pico)
    }
}

impl Event {
    /// What is told of `record`; `counted` says whether the ledger counts its tokens.
    pub(crate) fn of(record: &UsageRecord, counted: bool, sequence: Option<u64>, caller: Caller) -> Self {
        let counts = || Counts {
            input: record.usage.input_total(),
            output: record.usage.output_total(),
            cache_read: record.usage.cached_read_total(),
            cache_write: record.usage.cache_write_total(),
            reasoning: record.usage.output_reasoning_total(),
            source: record.usage_source,
        };
        Self {
            id: record.id,
            sequence,
            started_at: record.started_at,
            ended_at: record.ended_at,
            route: record.route.clone(),
            provider: record.provider.clone(),
            api: record.api.clone(),
            team: record.identity.team.clone(),
            workload: record.identity.workload.clone(),
            model_requested: record.model_requested.clone(),
            model_served: record.model_served.clone(),
            stream: record.stream,
            http_status: record.http_status,
            outcome: record.outcome,
            usage: (counted && record.metering != Metering::Never).then(counts),
            cost: record.cost.as_ref().map(Amount::of),
            upstream_request_id: record.upstream_request_id.clone(),
            trace_id: record.trace_id,
            caller,
            latency_us: record.latency_us,
            ttft_us: record.ttft_us,
        }
    }

    /// Its operation by the GenAI conventions; `None` when it is no call of a model.
    pub(crate) fn operation(&self) -> Option<&'static str> {
        genai::operation(self.api.as_str())
    }

    /// The class of error that it ended with.
    pub(crate) fn error(&self) -> Option<&'static str> {
        genai::error(self.outcome)
    }

    /// The trace it belongs to: the caller's, or one of its own.
    pub(crate) fn trace(&self) -> u128 {
        self.trace_id.map_or_else(|| self.id.bits(), TraceId::bits)
    }

    /// Its span: the random part of its id, which is never zero (a UUID's variant).
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    pub(crate) fn span(&self) -> u64 {
        self.id.bits() as u64
    }
}
