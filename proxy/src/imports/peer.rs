//! What records of other systems have in common: who they are for, what marks them, what they cost there.
//!
//! Invariants
//! - A count of another system's log is `imported`, never `provider`; one that is missing stays unknown.
//! - Its cost stands in `usage_raw`, beside our own: it is no charge of the provider.
//!
//! Not here: the fields of each system.

use super::fields::{Row, provider_name, provider_of, without_provider};
use super::{Peer, Usual};
use bursar_domain::money::format_pico;
use bursar_domain::{
    Anomalies, Anomaly, Currency, Identity, IdentitySource, Label, Metering, Outcome, RequestId, Tags,
    Timestamp, TokenClass, Usage, UsageRecord, UsageSource,
};
use serde_json::{Map, Value};
use std::sync::Arc;

/// A record in the making.
pub(super) struct Draft {
    pub(super) system: &'static str,
    pub(super) id: RequestId,
    /// The id there, as the file has it.
    pub(super) their_id: String,
    pub(super) started_at: Timestamp,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) first_byte_at: Option<Timestamp>,
    pub(super) team: Option<Label>,
    pub(super) workload: Option<Label>,
    pub(super) customer: Option<Label>,
    pub(super) session: Option<Label>,
    pub(super) tags: Tags,
    /// As the system names it, if it does.
    pub(super) provider: Option<String>,
    pub(super) api: Option<Label>,
    pub(super) model_requested: Option<String>,
    pub(super) model_served: Option<String>,
    pub(super) tier: Option<Label>,
    pub(super) has_failed: bool,
    pub(super) usage: Usage,
    pub(super) anomalies: Anomalies,
    /// What the system says it cost.
    pub(super) cost: Option<(Currency, i128)>,
    /// Its counts as it writes them.
    pub(super) counts: Map<String, Value>,
}

impl Draft {
    pub(super) fn new(system: &'static str, their_id: String, id: RequestId, started_at: Timestamp) -> Self {
        Self {
            system,
            id,
            their_id,
            started_at,
            ended_at: None,
            first_byte_at: None,
            team: None,
            workload: None,
            customer: None,
            session: None,
            tags: Tags::default(),
            provider: None,
            api: None,
            model_requested: None,
            model_served: None,
            tier: None,
            has_failed: false,
            usage: Usage::unknown(),
            anomalies: Anomalies::default(),
            cost: None,
            counts: Map::new(),
        }
    }

    /// The record.
    pub(super) fn finish(self, usual: &Usual) -> Peer {
        let cost = self.cost;
        let guess = self.model_served.as_deref().or(self.model_requested.as_deref());
        let (in_name, bare) = guess.map_or((None, ""), without_provider);
        let (mut provider, mut is_guess) =
            (self.provider.as_deref().filter(|name| !name.is_empty()).and_then(provider_name), false);
        if provider.is_none() {
            provider =
                in_name.as_deref().and_then(|name| Label::new(name).ok()).or_else(|| usual.provider.clone());
        }
        if provider.is_none() {
            is_guess = true;
            provider = provider_of(bare).map(Label::fixed);
        }
        let provider = provider.unwrap_or_else(|| Label::fixed("unknown"));
        let model = |name: &Option<String>| {
            name.as_deref().map(|name| model_name(name, &provider)).and_then(Label::lossy)
        };
        let (model_requested, model_served) = (model(&self.model_requested), model(&self.model_served));
        let known = !self.usage.is_unknown();
        let ended_at = self.ended_at.filter(|ended| *ended >= self.started_at).unwrap_or(self.started_at);
        let since = |at: Timestamp| u64::try_from(at.micros().saturating_sub(self.started_at.micros())).ok();
        let team = self.team.or_else(|| usual.team.clone());
        let source = if team.is_some() { IdentitySource::Import } else { IdentitySource::None };
        let raw = raw(self.system, &self.their_id, cost, is_guess, self.counts);
        let record = UsageRecord {
            id: self.id,
            started_at: self.started_at,
            ended_at,
            identity: Arc::new(Identity {
                team,
                workload: self.workload.or_else(|| usual.workload.clone()),
                customer: self.customer,
                session: self.session,
                tags: self.tags,
                source,
            }),
            route: Label::lossy(&format!("import/{}", self.system)).unwrap_or_else(|| Label::fixed("import")),
            provider,
            api: self.api.unwrap_or_else(|| Label::fixed("import")),
            model_requested: model_requested.or_else(|| model_served.clone()),
            model_served,
            tier: self.tier,
            region: None,
            stream: self.first_byte_at.is_some_and(|at| at < ended_at),
            http_status: None,
            outcome: if self.has_failed { Outcome::Error } else { Outcome::Ok },
            // A failure without counts cost nothing that anybody knows of.
            metering: if self.has_failed && !known { Metering::Never } else { Metering::Count },
            usage: self.usage,
            usage_source: if known { UsageSource::Imported } else { UsageSource::Absent },
            counted_by: None,
            by_model: Vec::new(),
            usage_raw: Some(raw),
            provider_cost: None,
            cost: None,
            upstream_request_id: None,
            meter_id: None,
            trace_id: None,
            latency_us: since(ended_at).unwrap_or(0),
            ttft_us: self.first_byte_at.and_then(since),
            bytes_in: 0,
            bytes_out: 0,
            anomalies: self.anomalies,
        };
        Peer::Record(Box::new(record), cost)
    }

    /// States input as the system counts it: a total with parts, which may or may not be inside the total.
    /// Parts that are more than the total were beside it, and the record says that they did not fit.
    pub(super) fn take_input(&mut self, total: Option<u64>, parts: &[(TokenClass, Option<u64>)]) {
        self.take(total, TokenClass::InputFresh, parts, Anomaly::CachedExceedsInput);
    }

    /// The same for output.
    pub(super) fn take_output(&mut self, total: Option<u64>, parts: &[(TokenClass, Option<u64>)]) {
        self.take(total, TokenClass::OutputText, parts, Anomaly::ReasoningExceedsOutput);
    }

    fn take(
        &mut self,
        total: Option<u64>,
        rest: TokenClass,
        parts: &[(TokenClass, Option<u64>)],
        odd: Anomaly,
    ) {
        let mut sum = 0_u64;
        for (class, count) in parts {
            if let Some(count) = count {
                self.usage.set(*class, *count);
                sum = sum.saturating_add(*count);
            }
        }
        if let Some(total) = total {
            let left = total.checked_sub(sum);
            if left.is_none() {
                self.anomalies.insert(odd);
            }
            self.usage.set(rest, left.unwrap_or(total));
        }
    }
}

/// The model's name without the provider before it, where that is the record's.
fn model_name<'a>(name: &'a str, provider: &Label) -> &'a str {
    match without_provider(name) {
        (Some(theirs), bare) if *theirs == *provider.as_str() => bare,
        _ => name,
    }
}

fn raw(
    system: &str,
    id: &str,
    cost: Option<(Currency, i128)>,
    is_guess: bool,
    counts: Map<String, Value>,
) -> Arc<str> {
    let mut fields = Row::new();
    fields.insert("imported_from".to_owned(), system.into());
    let id: String = id.chars().take(256).collect();
    fields.insert("id".to_owned(), id.into());
    if let Some((currency, pico)) = cost {
        fields.insert("cost".to_owned(), format_pico(pico).into());
        fields.insert("currency".to_owned(), currency.code().into());
    }
    if is_guess {
        fields.insert("provider_guessed".to_owned(), true.into());
    }
    if !counts.is_empty() {
        fields.insert("counts".to_owned(), Value::Object(counts));
    }
    Value::Object(fields).to_string().into()
}
