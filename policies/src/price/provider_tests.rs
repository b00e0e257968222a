//! Tests of the built-in prices beyond OpenAI and Anthropic: names as each provider writes them,
//! regions, hours, fees; charges that providers sent; and the right figures of peers' documented
//! errors (PEERS §4) that concern prices.
//!
//! Not here: the rules themselves (`tests`), charges read from recorded replies
//! (`proxy/tests/provider_charges.rs`).

use super::*;
use TokenClass as C;
use bursar_domain::Money;

fn builtin() -> PriceBook {
    PriceBook::builtin().unwrap()
}

fn book(json: &str) -> PriceBook {
    PriceBook::empty().with_overlay(&serde_json::from_str(json).unwrap()).unwrap()
}

fn at(text: &str) -> Timestamp {
    row::parse_instant(text).unwrap()
}

fn usage(counts: &[(TokenClass, u64)]) -> Usage {
    let mut usage = Usage::unknown();
    usage.set(C::InputFresh, 0);
    usage.set(C::OutputText, 0);
    for (class, count) in counts {
        usage.set(*class, *count);
    }
    usage
}

/// A call of `input` and `output` tokens.
fn plain(input: u64, output: u64) -> Usage {
    usage(&[(C::InputFresh, input), (C::OutputText, output)])
}

fn quantity(quantity: Quantity, amount: u64) -> Usage {
    let mut usage = Usage::unknown();
    usage.set_quantity(quantity, amount);
    usage
}

fn ask<'a>(provider: &'a str, model: &'a str, usage: &'a Usage) -> Ask<'a> {
    Ask {
        provider,
        model_served: Some(model),
        model_requested: None,
        tier: None,
        region: None,
        speed: None,
        at: at("2026-11-01"),
        usage,
        by_model: &[],
    }
}

/// Checks that the call is priced, and at this.
#[track_caller]
fn check(ask: &Ask<'_>, amount: &str) {
    check_in(&builtin(), ask, amount);
}

#[track_caller]
fn check_in(book: &PriceBook, ask: &Ask<'_>, amount: &str) {
    let (cost, gap) = book.explain(ask);
    assert_eq!(gap, None, "{ask:?}");
    let text = Money::from_pico(cost.currency, cost.list_pico.unwrap()).to_string();
    assert_eq!(text, amount, "{ask:?} by {:?}", cost.price_rows);
}

#[track_caller]
fn check_gap(ask: &Ask<'_>, gap: Gap) {
    assert_eq!(builtin().explain(ask).1, Some(gap), "{ask:?}");
}

// === prices and names of each provider ===

#[test]
fn every_provider_of_the_book_has_a_known_price() {
    for (provider, model, input_and_output) in [
        ("alibaba", "qwen3-max", "7.2"),
        ("azure", "gpt-4o-mini", "0.75"),
        ("bedrock", "amazon.nova-lite-v1:0", "0.3"),
        ("bedrock-mantle", "openai.gpt-oss-20b", "0.37"),
        ("cerebras", "llama-3.3-70b", "2.05"),
        ("cohere", "command-a-03-2025", "12.5"),
        ("deepseek", "deepseek-v4-pro", "2.64"),
        ("doubleword", "Qwen/Qwen3.5-9B", "0.78"),
        ("fireworks", "accounts/fireworks/models/gpt-oss-120b", "0.75"),
        ("gemini", "gemini-2.5-flash", "2.8"),
        ("groq", "llama-3.3-70b-versatile", "1.38"),
        ("mistral", "mistral-small-latest", "0.75"),
        ("moonshot", "kimi-k2.6", "4.95"),
        ("openrouter", "anthropic/claude-haiku-4.5", "6"),
        ("perplexity", "sonar", "2.005"),
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo", "1.76"),
        ("vertex", "gemini-2.5-flash", "2.8"),
        ("xai", "grok-3-mini", "0.8"),
        ("zai", "glm-4.7", "2.8"),
    ] {
        // Above the thresholds of some; those are tested elsewhere.
        let usage = plain(20_000, 20_000);
        let cost = builtin().price(&ask(provider, model, &usage));
        assert_eq!(cost.status, CostStatus::Priced, "{provider}/{model}");
        let fee = if provider == "perplexity" { 5_000_000_000 } else { 0 };
        let million = Money::from_pico(cost.currency, (cost.list_pico.unwrap() - fee) * 50 + fee);
        assert_eq!(million.to_string(), input_and_output, "{provider}/{model}");
    }
}

#[test]
fn names_are_read_as_each_provider_writes_them() {
    let usage = plain(1_000_000, 0);
    for (provider, name, plain_name) in [
        ("gemini", "models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("vertex", "publishers/google/models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("vertex", "claude-haiku-4-5@20251001", "claude-haiku-4-5"),
        ("vertex", "claude-opus-4-6@default", "claude-opus-4-6"),
        (
            "bedrock",
            "global.anthropic.claude-haiku-4-5-20251001-v1:0",
            "anthropic.claude-haiku-4-5-20251001-v1:0",
        ),
        (
            "bedrock",
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-haiku-4-5-20251001-v1:0",
            "us.anthropic.claude-haiku-4-5-20251001-v1:0",
        ),
        ("openrouter", "anthropic/claude-4.5-haiku-20251001", "anthropic/claude-haiku-4.5"),
        ("openrouter", "openai/gpt-4o-mini:nitro", "openai/gpt-4o-mini"),
        ("azure", "gpt-4.1-mini-2025-04-14", "gpt-4.1-mini"),
        ("zai", "GLM-4.7", "glm-4.7"),
        ("together", "Salesforce/Llama-Rank-v1", "Salesforce/Llama-Rank-V1"),
    ] {
        let written = builtin().price(&ask(provider, name, &usage));
        assert_eq!(written.status, CostStatus::Priced, "{provider} {name}");
        assert_eq!(
            written.list_pico,
            builtin().price(&ask(provider, plain_name, &usage)).list_pico,
            "{name}"
        );
    }
}

#[test]
fn an_application_profile_is_unpriced_unless_the_reply_names_its_model() {
    let usage = plain(1_000_000, 0);
    let profile = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123";
    let call = Ask { model_served: None, model_requested: Some(profile), ..ask("bedrock", "", &usage) };
    check_gap(&call, Gap::UnknownModel);
    check(&Ask { model_served: Some("claude-3-5-haiku-20241022"), ..call }, "0.8");
}

#[test]
fn a_geography_of_bedrock_is_ten_per_cent_dearer_also_when_the_reply_leaves_it_out() {
    let usage = plain(100_000, 0);
    let call = |requested| Ask {
        model_served: Some("claude-haiku-4-5-20251001"),
        model_requested: Some(requested),
        ..ask("bedrock", "", &usage)
    };
    check(&call("us.anthropic.claude-haiku-4-5-20251001-v1:0"), "0.11");
    check(&call("global.anthropic.claude-haiku-4-5-20251001-v1:0"), "0.1");
}

#[test]
fn a_region_of_bedrock_has_its_own_price_and_the_others_the_general_one() {
    let usage = plain(1_000_000, 0);
    let call = |region| Ask { region, ..ask("bedrock", "anthropic.claude-sonnet-5", &usage) };
    check(&call(Some("us-gov-west-1")), "2.4");
    check(&call(Some("us-east-1")), "2");
    check(&call(None), "2");
}

#[test]
fn a_region_of_vertex_is_ten_per_cent_dearer_than_the_global_endpoint() {
    let usage = plain(100_000, 0);
    let call = |region| Ask { region, ..ask("vertex", "claude-haiku-4-5", &usage) };
    check(&call(Some("us-east5")), "0.11");
    check(&call(Some("europe-west1")), "0.11");
    check(&call(Some("global")), "0.1");
    check(&call(None), "0.1");
    let old = Ask { region: Some("us-east5"), ..ask("vertex", "claude-3-haiku", &usage) };
    check(&old, "0.025");
}

#[test]
fn a_data_zone_of_azure_has_its_own_price() {
    let usage = plain(1_000_000, 0);
    let call = |region| Ask { region, ..ask("azure", "codex-mini", &usage) };
    check(&call(Some("eu")), "1.65");
    check(&call(None), "1.5");
}

#[test]
fn tiers_of_gemini_are_those_of_its_traffic_types() {
    let usage = plain(100_000, 0);
    let call = |tier| Ask { tier, ..ask("gemini", "gemini-2.5-flash", &usage) };
    check(&call(None), "0.03");
    check(&call(Some("ON_DEMAND")), "0.03");
    check(&call(Some("ON_DEMAND_FLEX")), "0.015");
    check(&call(Some("batch")), "0.015");
    check(&call(Some("priority")), "0.054");
    check_gap(&call(Some("PROVISIONED_THROUGHPUT")), Gap::UnknownTier);
}

#[test]
fn deepseek_costs_more_at_its_peak_hours_since_it_has_them() {
    let usage = plain(1_000_000, 1_000_000);
    let call = |text: &str| Ask { at: at(text), ..ask("deepseek", "deepseek-v4-flash", &usage) };
    check(&call("2026-08-16T02:00:00Z"), "0.42");
    check(&call("2026-09-09T02:00:00Z"), "0.88");
    for (time, price) in [
        ("00:59:59.999999", "0.75"),
        ("01:00:00", "1.5"),
        ("03:59:59.999999", "1.5"),
        ("04:00:00", "0.75"),
        ("06:00:00", "1.5"),
        ("10:00:00", "0.75"),
        ("23:00:00", "0.75"),
    ] {
        check(&call(&format!("2026-10-01T{time}Z")), price);
    }
    let cost = builtin().price(&call("2026-10-01T02:00:00Z"));
    let row = "deepseek/deepseek-v4-flash/input@2026-09-10#01:00-04:00=0.3";
    assert!(cost.price_rows.iter().any(|id| &**id == row), "{:?}", cost.price_rows);
    assert!(builtin().row(row).is_some());
}

#[test]
fn gemini_charges_a_grounded_prompt_once_or_each_search_by_generation() {
    let mut searched = plain(0, 0);
    searched.set_quantity(Quantity::WebSearchRequests, 3);
    check(&ask("gemini", "gemini-2.5-flash", &searched), "0.035");
    check(&ask("gemini", "gemini-3-flash-preview", &searched), "0.042");
    searched.set_quantity(Quantity::WebSearchRequests, 0);
    check(&ask("gemini", "gemini-2.5-flash", &searched), "0");
}

#[test]
fn perplexitys_fee_grows_with_the_search_context() {
    let fee = |model, size: Option<Quantity>| {
        let mut used = plain(0, 0);
        if let Some(size) = size {
            used.set_quantity(size, 1);
        }
        check(
            &ask("perplexity", model, &used),
            match (model, size) {
                (_, None) => "0.006",
                (_, Some(Quantity::MediumSearchContext)) => "0.01",
                _ => "0.014",
            },
        );
    };
    fee("sonar-pro", None);
    fee("sonar-pro", Some(Quantity::MediumSearchContext));
    fee("sonar-pro", Some(Quantity::HighSearchContext));
}

#[test]
fn models_that_search_for_every_call_have_a_fee_for_it() {
    let mut searched = plain(0, 0);
    searched.set_quantity(Quantity::WebSearchRequests, 1);
    check(&ask("openai", "gpt-4o-search-preview", &searched), "0.025");
    check(&ask("openai", "gpt-4o-mini-search-preview-2025-03-11", &searched), "0.025");
    check(&ask("openai", "gpt-5-search-api", &searched), "0.01");
}

#[test]
fn an_image_made_of_two_costs_them_and_itself() {
    let mut used = Usage::unknown();
    used.set_quantity(Quantity::Images, 1);
    used.set_quantity(Quantity::InputImages, 2);
    check(&ask("xai", "grok-imagine-image-quality", &used), "0.07");
}

#[test]
fn pages_seconds_images_and_search_units_have_prices() {
    check(&ask("mistral", "mistral-ocr-latest", &quantity(Quantity::Pages, 250)), "1");
    check(&ask("groq", "whisper-large-v3", &quantity(Quantity::AudioMillis, 3_600_000)), "0.111");
    check(&ask("cohere", "rerank-v3.5", &quantity(Quantity::SearchUnits, 2)), "0.004");
    check(&ask("xai", "grok-imagine-image-quality", &quantity(Quantity::Images, 2)), "0.1");
}

#[test]
fn free_variants_of_openrouter_cost_nothing_and_unknown_ones_are_unpriced() {
    let usage = plain(1_000, 1_000);
    check(&ask("openrouter", "x-ai/grok-4.1-fast:free", &usage), "0");
    check_gap(&ask("openrouter", "openai/gpt-4o:free", &usage), Gap::UnknownModel);
}

#[test]
fn models_that_run_on_the_users_own_machine_are_unpriced() {
    let usage = plain(1_000, 1_000);
    for provider in ["ollama", "vllm", "llama.cpp", "lmstudio"] {
        check_gap(&ask(provider, "llama3", &usage), Gap::UnknownProvider);
    }
}

// === charges that providers sent (USAGE_SEMANTICS, marked [C]) ===

#[test]
fn charges_of_openrouter_for_tokens_of_every_kind() {
    let write = usage(&[(C::InputFresh, 8), (C::CacheWrite, 4_012)]);
    let read = usage(&[(C::InputFresh, 8), (C::CachedRead, 4_012)]);
    let sol = |usage| Ask { at: at("2026-08-01"), ..ask("openrouter", "openai/gpt-5.6-sol", usage) };
    check(&sol(&write), "0.025115");
    check(&sol(&read), "0.002046");
    let audio = usage(&[(C::InputFresh, 25), (C::InputAudio, 150)]);
    check(&ask("openrouter", "google/gemini-2.5-flash", &audio), "0.0001575");
    let image = usage(&[(C::InputFresh, 5), (C::OutputText, 417), (C::OutputImage, 1_120)]);
    check(&ask("openrouter", "google/gemini-3.1-flash-lite-image", &image), "0.03422675");
    let cached = usage(&[(C::InputFresh, 8), (C::CachedRead, 679), (C::OutputText, 187)]);
    let fallback = Ask {
        model_requested: Some("google/gemini-2.0-flash-exp:free"),
        ..ask("openrouter", "x-ai/grok-4", &cached)
    };
    check(&fallback, "0.00333825");
}

#[test]
fn charges_of_openrouter_for_other_units() {
    check(&ask("openrouter", "openai/whisper-1", &quantity(Quantity::AudioMillis, 6_000)), "0.0006");
    let embedding = usage(&[(C::InputFresh, 3)]);
    let call = Ask {
        model_requested: Some("openai/text-embedding-3-small"),
        ..ask("openrouter", "text-embedding-3-small", &embedding)
    };
    check(&call, "0.00000006");
    let rerank = usage(&[(C::InputFresh, 17)]);
    let call = Ask {
        model_requested: Some("voyageai/rerank-2.5-lite"),
        ..ask("openrouter", "rerank-2.5-lite", &rerank)
    };
    check(&call, "0.00000034");
}

#[test]
fn charges_of_openrouter_with_searches() {
    let mut native = plain(16_924, 485);
    native.set_quantity(Quantity::WebSearchRequests, 3);
    check(&Ask { at: at("2026-08-19"), ..ask("openrouter", "openai/gpt-5.2", &native) }, "0.066407");
    let mut brought = plain(2_317, 53);
    brought.set_quantity(Quantity::WebSearchRequests, 1);
    let call = Ask { at: at("2026-08-14"), ..ask("openrouter", "deepseek/deepseek-chat", &brought) };
    // The charge was 0.0076509169.
    check(&call, "0.0076509169");
}

#[test]
fn capacity_that_openrouter_bought_is_charged_at_the_plain_price() {
    let usage = plain(219, 21);
    let call = Ask { tier: Some("provisioned"), ..ask("openrouter", "google/gemini-2.5-flash", &usage) };
    check(&call, "0.0001182");
}

#[test]
fn charges_of_xai_by_the_served_model_with_searches_and_in_batches() {
    let mut searched = usage(&[(C::InputFresh, 3_865), (C::CachedRead, 2_048), (C::OutputText, 364)]);
    searched.set_quantity(Quantity::WebSearchRequests, 2);
    let call = Ask { model_requested: Some("grok-3-mini"), ..ask("xai", "grok-4.3", &searched) };
    check(&call, "0.01615085");
    let batch = usage(&[(C::InputFresh, 88), (C::CachedRead, 320), (C::OutputText, 147)]);
    let call = Ask { tier: Some("batch"), at: at("2026-08-10"), ..ask("xai", "grok-4.3", &batch) };
    check(&call, "0.0004332");
}

#[test]
fn charges_of_perplexity_hold_the_fee_of_a_request() {
    check(&ask("perplexity", "sonar-pro", &plain(17, 6)), "0.006141");
    check(&ask("perplexity", "sonar", &plain(8, 5)), "0.005013");
    check(&ask("perplexity", "pplx-embed-v1-0.6b", &usage(&[(C::InputFresh, 7)])), "0.000000028");
}

#[test]
fn a_cache_that_is_read_and_written_at_once_is_charged_twice_openrouter_with_gemini() {
    let both = usage(&[(C::InputFresh, 7), (C::CachedRead, 2_161), (C::CacheRewrite, 2_161)]);
    let call = ask("openrouter", "google/gemini-2.5-flash", &both);
    // 7 × 0.3 + 2,161 × 0.03 + 2,161 × 0.083333 per million.
    check(&call, "0.000247012613");
}

// === the right figures of documented errors (PEERS §4) ===

#[test]
fn e12_requested_flex_served_default_is_standard_on_gemini_too() {
    let usage = plain(100_000, 0);
    let served = Ask { tier: Some("default"), ..ask("gemini", "gemini-2.5-pro", &usage) };
    check(&served, "0.125");
}

#[test]
fn e14_and_e15_gemini_2_5_pro_by_the_builtin_book() {
    let cached = usage(&[(C::InputFresh, 5_005), (C::CachedRead, 257_955), (C::OutputText, 1_744)]);
    check(&ask("gemini", "gemini-2.5-pro", &cached), "0.10316125");
    check(&ask("vertex", "gemini-2.5-pro", &cached), "0.10316125");
    check(&ask("gemini", "gemini-2.5-pro", &plain(200_000, 0)), "0.25");
    check(&ask("gemini", "gemini-2.5-pro", &plain(200_001, 0)), "0.5000025");
}

#[test]
fn e16_reads_and_writes_of_bedrock_are_added_once() {
    let call = usage(&[(C::InputFresh, 500_000), (C::CachedRead, 300_000), (C::CacheWrite, 200_000)]);
    // 0.5 × 1 + 0.3 × 0.1 + 0.2 × 1.25.
    check(&ask("bedrock", "anthropic.claude-haiku-4-5-20251001-v1:0", &call), "0.78");
}

#[test]
fn e17_a_row_below_a_millionth_of_a_dollar_is_exact() {
    check(&ask("openai", "gpt-4o-mini", &plain(0, 0)), "0");
    check(&ask("mistral", "mistral-embed", &usage(&[(C::InputFresh, 1)])), "0.0000001");
    check(&ask("bedrock", "amazon.nova-lite-v1:0", &plain(0, 1)), "0.00000024");
    check(&ask("openai", "gpt-5", &plain(1_000_000, 0)), "1.25");
}

#[test]
fn e18_a_model_without_a_cache_price_folds_reads_into_input() {
    let call = usage(&[(C::InputFresh, 100), (C::CachedRead, 900)]);
    // deepseek-v3.2-exp has no cache price in the book: 1,000 × 0.27 per million.
    check(&ask("deepseek", "deepseek-v3.2-exp", &call), "0.00027");
}

#[test]
fn e19_four_images_of_the_builtin_book_cost_four_times_one() {
    let one = builtin().price(&ask("alibaba", "qwen-image-2.0", &quantity(Quantity::Images, 1)));
    let four = builtin().price(&ask("alibaba", "qwen-image-2.0", &quantity(Quantity::Images, 4)));
    assert_eq!(four.list_pico.unwrap(), one.list_pico.unwrap() * 4);
}

#[test]
fn e21_a_cut_of_the_price_leaves_older_months_alone() {
    let usage = plain(1_000_000, 0);
    let on = |text| Ask { at: at(text), ..ask("deepseek", "deepseek-v4-pro", &usage) };
    check(&on("2026-08-16T12:00:00Z"), "0.435");
    check(&on("2026-08-17T12:00:00Z"), "0.66");
}

#[test]
fn e22_two_sources_are_never_averaged_and_each_row_names_its_own() {
    for row in builtin().rows() {
        let named = row.source.contains('@') || row.source.contains('/');
        assert!(named, "{} from {}", row.id, row.source);
    }
}

#[test]
fn e31_reserved_capacity_has_no_price_per_token_unless_the_user_gives_one() {
    let mut searched = plain(1_000_000, 1_000);
    searched.set_quantity(Quantity::WebSearchRequests, 5);
    let call = Ask { tier: Some("provisioned"), ..ask("azure", "gpt-4o", &searched) };
    check_gap(&call, Gap::UnknownTier);
    let flat = r#"{"rows": [{"provider": "azure", "model": "gpt-4o", "tier": "provisioned", "per_web_search": 0,
        "per_million": {"input": 0, "output": 0}}]}"#;
    let with_flat_fee = builtin().with_overlay(&serde_json::from_str(flat).unwrap()).unwrap();
    check_in(&with_flat_fee, &call, "0");
    // Spill-over is served, and charged, as standard.
    let spill = plain(1_000_000, 0);
    check_in(&with_flat_fee, &Ask { tier: Some("default"), usage: &spill, ..call }, "2.5");
}

#[test]
fn e34_each_modality_has_its_own_cache_price() {
    let cached = usage(&[(C::CachedRead, 1_000_000), (C::CachedAudio, 1_000_000)]);
    check(&ask("gemini", "gemini-2.5-flash", &cached), "0.13");
}

// === rules that only such rows need ===

#[test]
fn a_row_for_a_part_of_the_day_goes_before_one_for_all_day_of_the_same_start() {
    let night = book(
        r#"{"rows": [
        {"provider": "p", "model": "m", "per_million": {"input": 4, "output": 0}},
        {"provider": "p", "model": "m", "hours": "22:00-06:00", "per_million": {"input": 1}},
        {"provider": "p", "model": "m", "from": "2026-07-01", "per_million": {"input": 3, "output": 0}}]}"#,
    );
    let usage = plain(1_000_000, 0);
    let on = |text| Ask { at: at(text), ..ask("p", "m", &usage) };
    check_in(&night, &on("2026-06-01T12:00:00Z"), "4");
    check_in(&night, &on("2026-06-01T22:00:00Z"), "1");
    check_in(&night, &on("2026-06-01T05:59:00Z"), "1");
    // A later price ends the night price with the day price it went with.
    check_in(&night, &on("2026-07-01T23:00:00Z"), "3");
}

#[test]
fn outside_its_hours_a_model_without_another_price_is_unpriced() {
    let night = book(
        r#"{"rows": [{"provider": "p", "model": "m", "hours": "22:00-06:00", "per_million": {"input": 1}}]}"#,
    );
    let usage = plain(1, 0);
    let noon = Ask { at: at("2026-06-01T12:00:00Z"), ..ask("p", "m", &usage) };
    assert_eq!(night.explain(&noon).1, Some(Gap::NoPriceThen));
}

#[test]
fn a_price_for_any_region_yields_to_one_for_this_region() {
    let zones = book(
        r#"{"rows": [
        {"provider": "p", "model": "m", "per_million": {"input": 1}},
        {"provider": "p", "model": "m", "region": "*", "per_million": {"input": 2}},
        {"provider": "p", "model": "m", "region": "eu", "per_million": {"input": 3}}]}"#,
    );
    let usage = usage(&[(C::InputFresh, 1_000_000)]);
    for (region, price) in [(None, "1"), (Some("global"), "1"), (Some("mars"), "2"), (Some("eu"), "3")] {
        let mut only_input = usage;
        only_input.set(C::OutputText, 0);
        check_in(&zones, &Ask { region, ..ask("p", "m", &only_input) }, price);
    }
}

#[test]
fn the_sheet_of_a_model_holds_every_row_that_can_price_it() {
    let (entry, rows) = builtin().sheet("deepseek", "deepseek-v4-pro").unwrap();
    assert_eq!((&*entry.provider, &*entry.model), ("deepseek", "deepseek-v4-pro"));
    assert_eq!(rows.len(), 12);
    assert!(rows.iter().all(|row| builtin().row(&row.id).as_ref() == Some(row)));
    let (entry, _) = builtin()
        .sheet("bedrock", "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0")
        .unwrap();
    assert_eq!(&*entry.model, "amazon.nova-lite-v1:0");
    assert!(builtin().sheet("openai", "gpt-99").is_none());
    let overlay =
        r#"{"rows": [{"provider": "deepseek", "model": "deepseek-v4-pro", "per_million": {"input": 9}}]}"#;
    let with_overlay = builtin().with_overlay(&serde_json::from_str(overlay).unwrap()).unwrap();
    assert_eq!(with_overlay.sheet("deepseek", "deepseek-v4-pro").unwrap().1.len(), 13);
    assert_eq!(with_overlay.models().count(), builtin().models().count());
}
