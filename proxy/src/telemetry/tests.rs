//! Tests of telemetry, and a record for those of its parts.

use super::*;
use crate::config::{Config, Sources};
use bursar_domain::event::Anomalies;
use bursar_domain::{
    Cost, CostStatus, Currency, Identity, Label, Metering, RequestId, Timestamp, TokenClass, Usage,
    UsageSource,
};
use bursar_ledger::{Health, Stats};

/// A chat of a thousand input tokens and five hundred output tokens, streamed.
pub(crate) fn record() -> UsageRecord {
    let label = |text| Label::new(text).unwrap();
    let mut usage = Usage::unknown();
    usage.set(TokenClass::InputFresh, 800);
    usage.set(TokenClass::CachedRead, 200);
    usage.set(TokenClass::OutputText, 400);
    usage.set(TokenClass::OutputReasoning, 100);
    let started_at = Timestamp::from_micros(1_795_348_800_000_000);
    UsageRecord {
        id: RequestId::new(started_at, 7),
        started_at,
        ended_at: started_at.plus_micros(1_500_500),
        identity: Arc::new(Identity { team: Some(label("search")), ..Identity::unallocated() }),
        route: label("/openai"),
        provider: label("openai"),
        api: label("openai-chat"),
        model_requested: Some(label("gpt-4o-mini")),
        model_served: Some(label("gpt-4o-mini-2024-07-18")),
        tier: None,
        region: None,
        stream: true,
        http_status: Some(200),
        outcome: Outcome::Ok,
        metering: Metering::Count,
        usage,
        usage_source: UsageSource::Provider,
        counted_by: None,
        by_model: Vec::new(),
        usage_raw: None,
        provider_cost: None,
        cost: Some(Cost {
            status: CostStatus::Priced,
            currency: Currency::USD,
            list_pico: Some(435_000_000),
            contracted_pico: Some(435_000_000),
            billed_pico: Some(435_000_000),
            price_rows: Vec::new(),
        }),
        upstream_request_id: None,
        meter_id: None,
        trace_id: None,
        latency_us: 1_500_500,
        ttft_us: Some(500_500),
        bytes_in: 10,
        bytes_out: 20,
        anomalies: Anomalies::default(),
    }
}

/// A ledger's figures.
pub(crate) fn stats() -> Stats {
    Stats {
        ledger: bursar_domain::LedgerId::from_bits(1),
        last_sequence: 1,
        queue_entries: 0,
        queue_entries_max: 10,
        appended: 1,
        acknowledged: 1,
        repeated: 0,
        conflicting: 0,
        dropped: 0,
        open: 0,
        openings_shed: 0,
        frames: 1,
        provider_cost_differs: 0,
        last_commit_us: 5,
        journal_bytes: 100,
        data_bytes: 200,
        bytes_max: Some(1_000),
        segments: 1,
        rolled_segments: 0,
        rolled_records: 0,
        last_error: None,
        health: Health::Healthy,
    }
}

fn telemetry(yaml: &str) -> Arc<Telemetry> {
    Telemetry::new(&Config::load(Sources::from_text(yaml)).unwrap().telemetry)
}

#[test]
fn only_what_this_process_relayed_is_counted_and_told() {
    let telemetry = telemetry("");
    telemetry.logs.set_read(true);
    telemetry.tell(&record(), true, Some(1), None);
    assert_eq!((telemetry.snapshot().len(), telemetry.logs.len()), (0, 0), "imported, say");
    telemetry.tell(&record(), true, Some(1), Some(Caller::default()));
    assert_eq!((telemetry.snapshot().len(), telemetry.logs.len()), (1, 1));
    let interrupted = UsageRecord { outcome: Outcome::Interrupted, ..record() };
    telemetry.tell(&interrupted, true, Some(2), None);
    assert_eq!((telemetry.snapshot().len(), telemetry.logs.len()), (1, 2), "told, and not counted twice");
}

#[test]
fn spans_follow_the_sampler_and_are_of_model_calls_only() {
    let telemetry = telemetry("telemetry: {otlp: 'http://127.0.0.1:4317'}");
    telemetry.spans.set_read(true);
    assert!(telemetry.has_spans());
    let sampled = |sampled| Some(Caller { sampled, ..Caller::default() });
    telemetry.tell(&record(), true, Some(1), sampled(Some(false)));
    assert_eq!(telemetry.spans.len(), 0, "the caller's decision");
    telemetry.tell(&record(), true, Some(1), sampled(None));
    assert_eq!(telemetry.spans.len(), 1);
    let models = UsageRecord { api: Label::new("unmetered").unwrap(), ..record() };
    telemetry.tell(&models, true, Some(1), sampled(None));
    assert_eq!(telemetry.spans.len(), 1);
}

#[test]
fn the_page_says_what_was_dropped() {
    let telemetry = telemetry("");
    telemetry.metrics_lost();
    let page = telemetry.page();
    assert!(page.contains("bursar_telemetry_dropped_total{signal=\"metrics\"} 1\n"), "{page}");
    assert!(page.contains("bursar_telemetry_dropped_total{signal=\"traces\"} 0\n"), "{page}");
}
