//! What is promised of metering, named item by named item, and the test that holds it. Each must exist
//! where it is said to be; what it asserts is its own affair.
//!
//! Not here: the errors of other meters (`proxy/tests/peer_errors.rs`), which have a test per number.

use std::fs;
use std::path::Path;

const READINGS: &str = "proxy/src/usage/tests.rs";
const OTHERS: &str = "proxy/src/usage/tests/others.rs";
const GEMINI: &str = "proxy/src/usage/tests/gemini.rs";
const BEDROCK: &str = "proxy/src/usage/bedrock/tests.rs";
const SESSIONS: &str = "proxy/src/usage/session/tests.rs";
const PRICES: &str = "policies/src/price/tests.rs";
const PROVIDERS: &str = "policies/src/price/provider_tests.rs";
const SILENT: &str = "tests/silent_dialects.rs";
const COUNTING: &str = "tests/counting.rs";

/// Item, file, test.
const PROMISES: &[(&str, &str, &str)] = &[
    // Dialects.
    (
        "Azure: prompt-filter chunk, more cached than input",
        READINGS,
        "azure_sends_an_empty_model_first_and_more_cached_than_input",
    ),
    (
        "Azure: model router and served model",
        OTHERS,
        "azure_tells_the_served_model_in_a_header_when_the_body_does_not",
    ),
    ("Gemini: plain", GEMINI, "generated_content_is_read_into_disjoint_classes"),
    (
        "Gemini: events that go down",
        GEMINI,
        "the_last_usage_of_a_stream_counts_as_a_whole_although_it_went_down",
    ),
    ("Gemini: one JSON array", GEMINI, "a_stream_may_be_one_array_and_its_end_is_the_arrays"),
    ("Gemini: Interactions", GEMINI, "an_interactions_stream_is_read_at_its_last_event"),
    ("Gemini: embeddings and batch embeddings", GEMINI, "embeddings_have_input_alone_where_they_say_any"),
    ("Gemini: OpenAI-compatible, hidden thoughts", READINGS, "reasoning_may_be_beside_hidden_or_too_much"),
    (
        "Vertex: other companies' models",
        GEMINI,
        "other_companies_models_on_vertex_are_read_in_their_own_shape",
    ),
    (
        "Vertex: traffic type alone",
        GEMINI,
        "a_chunk_with_a_traffic_type_alone_tells_the_tier_and_counts_nothing",
    ),
    ("Vertex: Imagen", OTHERS, "imagens_predictions_are_counted_but_for_what_a_filter_kept_back"),
    (
        "Bedrock: Converse, cache beside input, two names",
        BEDROCK,
        "the_cache_of_converse_adds_to_its_input_and_is_read_once_of_two_names",
    ),
    ("Bedrock: ConverseStream", BEDROCK, "the_usage_of_a_converse_stream_is_in_its_last_event"),
    ("Bedrock: headers before body", BEDROCK, "headers_count_for_families_whose_bodies_do_not"),
    (
        "Bedrock: invocation metrics",
        BEDROCK,
        "a_stream_of_claude_is_read_by_its_own_events_with_bedrocks_metrics_beside",
    ),
    ("Bedrock: CRC", BEDROCK, "a_damaged_message_ends_the_reading_and_is_noted"),
    ("Bedrock: exception frames", BEDROCK, "an_exception_in_a_stream_is_an_error_under_status_200"),
    ("Bedrock: Mantle", BEDROCK, "mantle_speaks_openais_and_anthropics_apis"),
    ("Mistral: audio beside the prompt", READINGS, "mistral_counts_audio_beside_the_prompt"),
    ("Mistral: OCR by the page", OTHERS, "documents_are_billed_by_the_page"),
    ("Cohere: billed units", OTHERS, "cohere_tells_tokens_and_what_is_billed_of_them"),
    ("Cohere: streams of both versions", OTHERS, "a_cohere_stream_is_read_at_its_end_in_both_framings"),
    ("xAI: chat adds reasoning; cost ticks", READINGS, "reasoning_may_be_beside_hidden_or_too_much"),
    ("xAI: charges reproduced", PROVIDERS, "charges_of_xai_by_the_served_model_with_searches_and_in_batches"),
    (
        "Groq: three copies, compound breakdown",
        READINGS,
        "groq_repeats_its_usage_and_breaks_compound_models_down",
    ),
    ("Perplexity: running totals", READINGS, "running_totals_are_not_added_and_count_when_cut"),
    ("Perplexity: request fee", PROVIDERS, "charges_of_perplexity_hold_the_fee_of_a_request"),
    (
        "OpenRouter: cost, own key, both cache numbers",
        READINGS,
        "openrouter_tells_its_charge_and_what_was_read_and_written",
    ),
    (
        "OpenRouter: both cache numbers are charged",
        PROVIDERS,
        "a_cache_that_is_read_and_written_at_once_is_charged_twice_openrouter_with_gemini",
    ),
    (
        "DeepSeek, Moonshot, Together: other names of the cache",
        READINGS,
        "cached_tokens_are_found_under_every_name",
    ),
    ("Fireworks: headers", OTHERS, "fireworks_tells_its_prompt_in_a_header_when_nothing_else_does"),
    ("Venice: a copy of the cache", OTHERS, "a_copy_of_the_cached_tokens_is_no_second_cache"),
    (
        "Streams without [DONE] (LM Studio, Perplexity, others)",
        READINGS,
        "a_provider_without_done_ends_by_its_finish_and_its_body",
    ),
    ("Ollama: native", OTHERS, "ollama_counts_are_on_the_object_that_is_done"),
    ("Ollama: OpenAI-shaped", OTHERS, "ollama_speaks_openai_on_openais_paths"),
    (
        "Ollama: cached prompt",
        SILENT,
        "a_prompt_that_ollama_had_cached_is_estimated_beside_what_ollama_counted",
    ),
    ("vLLM: continuous usage", READINGS, "running_totals_are_not_added_and_count_when_cut"),
    ("Rerank", OTHERS, "ranking_is_billed_by_tokens_or_by_search_units"),
    ("Images", OTHERS, "images_are_counted_and_their_tokens_are_image_tokens"),
    ("Moderation, stored completions, count-token endpoints", READINGS, "reads_and_free_calls_never_count"),
    ("Transcription", OTHERS, "a_transcription_is_billed_by_tokens_or_by_seconds"),
    ("Speech", OTHERS, "sound_and_subtitles_are_made_and_tell_nothing"),
    (
        "Batches: each line once, to its maker",
        "tests/batches.rs",
        "e30_polls_and_downloads_of_others_are_paid_by_the_maker_once",
    ),
    ("Anthropic batch results", OTHERS, "the_results_of_an_anthropic_batch_are_messages"),
    ("Assistants runs", OTHERS, "a_run_counts_once_per_id_and_holds_its_steps"),
    ("Background responses, once per id", READINGS, "a_background_response_counts_once_per_id"),
    (
        "Anthropic: passes of other models",
        READINGS,
        "iterations_that_the_top_level_leaves_out_are_added_at_their_model",
    ),
    (
        "Responses over WebSocket are refused",
        "tests/http_rules.rs",
        "a_websocket_where_none_is_served_is_refused_with_501_in_each_providers_shape",
    ),
    // Realtime.
    (
        "Realtime: a record per response, cached modalities",
        SESSIONS,
        "each_response_and_each_transcription_is_a_part",
    ),
    (
        "Realtime: byte for byte",
        "tests/realtime.rs",
        "a_session_is_tunnelled_byte_for_byte_and_each_response_has_its_record",
    ),
    ("Realtime: xAI", SESSIONS, "xai_bills_beside_the_response_and_tells_the_type_last"),
    ("Gemini Live", SESSIONS, "a_turn_on_the_gemini_api_adds_its_thoughts"),
    // Counting.
    (
        "Counting: the model's vocabulary",
        COUNTING,
        "what_passed_before_the_client_left_is_counted_with_the_models_vocabulary",
    ),
    ("Counting: Gemini and Vertex", SILENT, "events_of_gemini_and_vertex_are_counted_by_part"),
    ("Counting: Interactions", SILENT, "steps_of_an_interaction_are_counted_from_their_deltas"),
    ("Counting: Cohere", SILENT, "both_versions_of_coheres_stream_are_counted"),
    ("Counting: Ollama", SILENT, "lines_of_ollama_are_counted_as_an_estimate_for_a_model_nobody_knows"),
    ("Counting: Converse", SILENT, "frames_of_converse_are_counted_by_block"),
    ("Counting: InvokeModel", SILENT, "chunks_of_invoked_models_are_counted_whatever_family_they_are_of"),
    (
        "Counting: a running total stands",
        SILENT,
        "a_running_total_of_gemini_stands_and_its_text_is_not_counted_over_it",
    ),
    ("Counting: never over a provider's figure", COUNTING, "what_the_provider_tells_is_never_counted_again"),
    // Aborts.
    ("cut: recorded", COUNTING, "what_passed_before_the_client_left_is_counted_with_the_models_vocabulary"),
    ("drain: recorded", COUNTING, "a_patient_route_reads_on_to_the_usage_when_its_client_has_left"),
    ("drain: bounded in time", COUNTING, "patience_ends_after_its_time_and_what_passed_is_counted"),
    ("drain: bounded in bytes", COUNTING, "patience_ends_after_its_bytes"),
    // Alarms.
    ("Alarm: total", READINGS, "a_total_that_does_not_add_up_is_told"),
    ("Alarm: cached over input", READINGS, "azure_sends_an_empty_model_first_and_more_cached_than_input"),
    ("Alarm: another model", READINGS, "another_model_than_requested_is_told"),
    (
        "Alarm: the provider's cost",
        "ledger/src/settle.rs",
        "a_charge_more_than_five_per_cent_from_the_list_cost_is_marked",
    ),
    ("Alarms by provider", "proxy/tests/cli.rs", "anomalies_are_shown_by_provider_and_kind"),
    ("Raw usage is bounded", READINGS, "a_usage_over_the_limits_is_not_kept"),
    // Prices.
    (
        "Prices: batch, flex, priority",
        PRICES,
        "pain_8_flex_is_half_and_pain_9_priority_is_double_portkey_1511_langfuse_13780",
    ),
    ("Prices: fast", PRICES, "fast_mode_has_its_own_prices_and_does_not_combine"),
    (
        "Prices: context thresholds",
        PRICES,
        "e15_at_the_threshold_the_base_rate_holds_and_above_it_everything_is_repriced",
    ),
    (
        "Prices: cache writes of 5 minutes and an hour",
        PRICES,
        "writes_take_their_own_price_then_the_unsplit_one_then_plain_input",
    ),
    ("Prices: modalities", PROVIDERS, "e34_each_modality_has_its_own_cache_price"),
    ("Prices: request fees", PRICES, "a_request_fee_is_added_once"),
    ("Prices: searches", PROVIDERS, "gemini_charges_a_grounded_prompt_once_or_each_search_by_generation"),
    ("Prices: regional factors", PRICES, "a_region_factor_raises_token_prices_exactly_and_names_its_row"),
    ("Prices: off-peak hours", PROVIDERS, "deepseek_costs_more_at_its_peak_hours_since_it_has_them"),
    ("Prices: effective dates", PRICES, "e21_a_new_price_never_changes_what_older_calls_cost"),
    (
        "Prices: LiteLLM's and models.dev's files",
        "policies/src/price/overlay/import/tests.rs",
        "imported_rows_price_calls_exactly",
    ),
];

#[test]
fn every_promise_of_metering_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (item, file, test) in PROMISES {
        let text = fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(
            text.contains(&format!("#[test]\nfn {test}()"))
                || text.contains(&format!("#[test]\n    fn {test}()")),
            "{item}: {test} is not in {file}"
        );
    }
}
