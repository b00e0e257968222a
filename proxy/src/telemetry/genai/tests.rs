//! Tests of metrics by the GenAI conventions.

use super::*;
use crate::telemetry::tests::record;

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn page_of(records: &[UsageRecord], counted: bool, series_max: usize, pieces: u32) -> String {
    let mut meters = Meters::new(series_max);
    let caller = Caller { pieces, ..Caller::default() };
    records.iter().for_each(|record| meters.count(record, counted, caller));
    page(&meters.snapshot())
}

const LABELS: &str = "gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"openai\",\
                      gen_ai_request_model=\"gpt-4o-mini\",gen_ai_response_model=\"gpt-4o-mini-2024-07-18\"";

#[test]
fn tokens_are_totals_with_their_subsets_beside_them() {
    let mut audio = record();
    audio.usage.set(TokenClass::InputAudio, 30);
    let page = page_of(&[audio], true, 10, 3);
    for (name, modality, count) in [
        ("input_tokens", "unknown", 1000),
        ("input_tokens", "audio", 30),
        ("output_tokens", "unknown", 500),
        ("cache_read_input_tokens", "unknown", 200),
        ("reasoning_output_tokens", "unknown", 100),
    ] {
        let line = format!(
            "gen_ai_client_inference_usage_{name}_total{{{LABELS},gen_ai_token_modality=\"{modality}\"}} {count}\n"
        );
        assert!(page.contains(&line), "{line}{page}");
    }
    assert!(!page.contains("cache_write_input_tokens_total{"), "nobody reported any: {page}");
}

#[test]
fn durations_are_in_seconds_with_the_conventions_bounds() {
    let page = page_of(&[record()], true, 10, 5);
    let name = "gen_ai_client_operation_duration_seconds";
    for line in [
        format!("{name}_bucket{{{LABELS},le=\"1.28\"}} 0"),
        format!("{name}_bucket{{{LABELS},le=\"2.56\"}} 1"),
        format!("{name}_bucket{{{LABELS},le=\"+Inf\"}} 1"),
        format!("{name}_sum{{{LABELS}}} 1.5005"),
        format!("{name}_count{{{LABELS}}} 1"),
        format!("gen_ai_client_operation_time_to_first_chunk_seconds_sum{{{LABELS}}} 0.5005"),
        // A second for four gaps between five pieces.
        format!("gen_ai_client_operation_time_per_output_chunk_seconds_sum{{{LABELS}}} 1.0"),
        format!("gen_ai_client_operation_time_per_output_chunk_seconds_count{{{LABELS}}} 4"),
        format!("gen_ai_client_operation_time_per_output_chunk_seconds_bucket{{{LABELS},le=\"0.16\"}} 0"),
        format!("gen_ai_client_operation_time_per_output_chunk_seconds_bucket{{{LABELS},le=\"0.32\"}} 4"),
    ] {
        assert!(page.contains(&format!("{line}\n")), "{line}\n{page}");
    }
}

#[test]
fn chunks_are_of_streams_alone() {
    let whole = UsageRecord { stream: false, ..record() };
    let page = page_of(&[whole], true, 10, 5);
    assert!(!page.contains("chunk_seconds_count"), "{page}");
}

#[test]
fn what_does_not_count_in_the_ledger_adds_no_tokens() {
    let page = page_of(&[record()], false, 10, 3);
    assert!(!page.contains("tokens_total{"), "{page}");
    assert!(page.contains("duration_seconds_count{"), "{page}");
}

#[test]
fn a_refused_request_was_no_call() {
    let refused = UsageRecord { outcome: Outcome::Refused, ..record() };
    assert!(!page_of(&[refused], true, 10, 0).contains('{'));
}

#[test]
fn an_error_has_its_type() {
    let failed = UsageRecord { outcome: Outcome::ErrorMidstream, ..record() };
    let page = page_of(&[record(), failed], true, 10, 0);
    let name = "gen_ai_client_operation_duration_seconds_count";
    assert!(page.contains(&format!("{name}{{{LABELS},error_type=\"error_midstream\"}} 1\n")), "{page}");
    assert!(page.contains(&format!("{name}{{{LABELS}}} 1\n")), "{page}");
}

#[test]
fn beyond_the_cap_models_count_as_other_and_nothing_is_lost() {
    let records: Vec<_> = (0..50)
        .map(|n| UsageRecord {
            model_requested: Some(label(&format!("m{n}"))),
            model_served: Some(label(&format!("m{n}"))),
            ..record()
        })
        .collect();
    let mut meters = Meters::new(5);
    records.iter().for_each(|record| meters.count(record, true, Caller::default()));
    let series = meters.snapshot();
    assert_eq!(series.len(), 6, "five of their own and `other`");
    let total: u64 =
        series.iter().flat_map(|(_, series)| series.tokens(Tokens::Input)).map(|(_, count)| count).sum();
    assert_eq!(total, 50 * 1000);
    let other = series.iter().find(|(set, _)| set.requested == Some(label(OTHER))).unwrap();
    assert_eq!(other.1.tokens(Tokens::Input).next(), Some((Modality::Unknown, 45_000)));
    assert_eq!(other.0.served, Some(label(OTHER)));
}

#[test]
fn names_that_only_fail_take_no_room_and_known_ones_keep_theirs() {
    let failing = |model: &str| UsageRecord {
        model_requested: Some(label(model)),
        model_served: None,
        http_status: Some(404),
        outcome: Outcome::Error,
        metering: Metering::Never,
        ..record()
    };
    let mut meters = Meters::new(3);
    for n in 0..100 {
        meters.count(&failing(&format!("junk-{n}")), false, Caller::default());
    }
    assert_eq!(meters.snapshot().len(), 1);
    meters.count(&record(), true, Caller::default());
    meters.count(&failing("gpt-4o-mini"), false, Caller::default());
    let requested: Vec<_> = meters.snapshot().into_iter().map(|(set, _)| set.requested.unwrap()).collect();
    assert_eq!(requested, [label("gpt-4o-mini"), label("gpt-4o-mini"), label(OTHER)]);
}

#[test]
fn every_api_of_a_model_has_an_operation() {
    for (api, expected) in [
        ("openai-chat", Some("chat")),
        ("messages", Some("chat")),
        ("generate-content", Some("generate_content")),
        ("legacy-completions", Some("text_completion")),
        ("cohere-embed", Some("embeddings")),
        ("responses-get", Some("fetch_response")),
        ("unmetered", None),
        ("batch-create", None),
        ("count-tokens", None),
    ] {
        assert_eq!(operation(api), expected, "{api}");
    }
}

#[test]
fn labels_cannot_break_the_page() {
    let strange = UsageRecord { model_requested: Some(label("a\"b\\c}")), ..record() };
    let page = page_of(&[strange], true, 10, 0);
    assert!(page.contains("gen_ai_request_model=\"a\\\"b\\\\c}\""), "{page}");
}
