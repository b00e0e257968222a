//! Tests of pricing: known prices, the rules of the module header, the right figures of peers'
//! documented errors, and conservation of money.

use super::*;
use bursar_domain::{Label, Money};
use std::sync::OnceLock;

fn builtin() -> &'static PriceBook {
    static BOOK: OnceLock<PriceBook> = OnceLock::new();
    BOOK.get_or_init(|| PriceBook::builtin().unwrap())
}

fn overlay(json: &str) -> OverlayFile {
    serde_json::from_str(json).unwrap()
}

fn book(json: &str) -> PriceBook {
    PriceBook::empty().with_overlay(&overlay(json)).unwrap()
}

fn day(text: &str) -> Timestamp {
    row::parse_instant(text).unwrap()
}

fn usage(counts: &[(TokenClass, u64)]) -> Usage {
    let mut usage = Usage::unknown();
    for (class, count) in counts {
        usage.set(*class, *count);
    }
    usage
}

/// Usage with no output, said to be none.
fn input_only(counts: &[(TokenClass, u64)]) -> Usage {
    let mut usage = usage(counts);
    usage.set(C::OutputText, 0);
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
        at: day("2026-11-01"),
        usage,
        by_model: &[],
    }
}

/// Status and billed amount as text.
fn bill(book: &PriceBook, ask: &Ask<'_>) -> (CostStatus, Option<String>) {
    let cost = book.price(ask);
    let text = cost.billed_pico.map(|pico| Money::from_pico(cost.currency, pico).to_string());
    (cost.status, text)
}

#[track_caller]
fn check(book: &PriceBook, ask: &Ask<'_>, amount: &str) {
    assert_eq!(bill(book, ask), (CostStatus::Priced, Some(amount.to_owned())), "{ask:?}");
}

#[track_caller]
fn check_gap(book: &PriceBook, ask: &Ask<'_>, amount: Option<&str>, gap: Gap) {
    let status = if amount.is_some() { CostStatus::PartlyPriced } else { CostStatus::Unpriced };
    assert_eq!(bill(book, ask), (status, amount.map(str::to_owned)), "{ask:?}");
    assert_eq!(book.explain(ask).1, Some(gap));
}

use TokenClass as C;

// === known prices ===

/// Prices of a thousand tokens of each class, below every threshold, per million.
#[track_caller]
fn check_prices(provider: &str, model: &str, prices: &[(TokenClass, &str)]) {
    for (class, price) in prices {
        let mut usage = usage(&[(C::InputFresh, 0), (C::OutputText, 0)]);
        usage.set(*class, 1_000);
        let cost = builtin().price(&ask(provider, model, &usage));
        assert_eq!(cost.status, CostStatus::Priced, "{model} {class}");
        let per_million = Money::from_pico(cost.currency, cost.list_pico.unwrap() * 1_000);
        assert_eq!(per_million.to_string(), *price, "{model} {class}");
        assert_eq!(cost.contracted_pico, cost.list_pico);
        assert_eq!(cost.billed_pico, cost.list_pico);
    }
}

#[test]
fn well_known_prices_are_in_the_builtin_book() {
    let openai = |model, prices: &[_]| check_prices("openai", model, prices);
    let anthropic = |model, prices: &[_]| check_prices("anthropic", model, prices);
    openai("gpt-4o", &[(C::InputFresh, "2.5"), (C::CachedRead, "1.25"), (C::OutputText, "10")]);
    openai("gpt-4o-mini", &[(C::InputFresh, "0.15"), (C::CachedRead, "0.075"), (C::OutputReasoning, "0.6")]);
    openai("gpt-4o-2024-05-13", &[(C::InputFresh, "5"), (C::OutputText, "15")]);
    openai("gpt-5", &[(C::InputFresh, "1.25"), (C::CachedRead, "0.125"), (C::OutputText, "10")]);
    openai(
        "gpt-5.6-sol",
        &[(C::InputFresh, "4"), (C::CacheWrite, "5"), (C::CachedRead, "0.4"), (C::OutputText, "20")],
    );
    openai("o3", &[(C::InputFresh, "2"), (C::CachedRead, "0.5"), (C::OutputText, "8")]);
    openai("text-embedding-3-small", &[(C::InputFresh, "0.02")]);
    openai("gpt-audio", &[(C::InputFresh, "2.5"), (C::InputAudio, "32"), (C::OutputAudio, "64")]);
    openai("gpt-realtime-mini", &[(C::InputAudio, "10"), (C::CachedAudio, "0.3"), (C::CachedImage, "0.08")]);
    openai(
        "gpt-image-1",
        &[(C::InputFresh, "5"), (C::InputImage, "10"), (C::CachedImage, "2.5"), (C::OutputImage, "40")],
    );
    openai("gpt-4o-transcribe", &[(C::InputAudio, "6"), (C::OutputText, "10")]);
    let sonnet = [
        (C::InputFresh, "3"),
        (C::CachedRead, "0.3"),
        (C::CacheWrite, "3.75"),
        (C::CacheWrite5m, "3.75"),
        (C::CacheWrite1h, "6"),
        (C::OutputText, "15"),
    ];
    anthropic("claude-sonnet-4-5", &sonnet);
    anthropic("claude-haiku-4-5", &[(C::InputFresh, "1"), (C::CachedRead, "0.1"), (C::CacheWrite1h, "2")]);
    anthropic("claude-opus-4-1", &[(C::InputFresh, "15"), (C::CacheWrite5m, "18.75"), (C::OutputText, "75")]);
    anthropic("claude-fable-5-1", &[(C::InputFresh, "10"), (C::CachedRead, "0.25"), (C::OutputText, "50")]);
}

#[test]
fn dated_names_cost_what_their_model_costs() {
    for (provider, dated, plain) in [
        ("openai", "gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("openai", "gpt-5-2025-08-07", "gpt-5"),
        ("openai", "gpt-5.6-sol-2026-07-01", "gpt-5.6-sol"),
        ("openai", "gpt-5.6", "gpt-5.6-sol"),
        ("openai", "ft:gpt-4o-mini-2024-07-18:acme::abc123", "ft:gpt-4o-mini-2024-07-18"),
        ("anthropic", "claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("anthropic", "claude-opus-4-1-20250805", "claude-opus-4-1"),
        ("anthropic", "claude-sonnet-4-20250514", "claude-sonnet-4-0"),
        ("anthropic", "claude-3-5-haiku-20241022", "claude-3-5-haiku-latest"),
    ] {
        let usage = usage(&[(C::InputFresh, 1_000), (C::OutputText, 10)]);
        let cost = builtin().price(&ask(provider, dated, &usage));
        assert_eq!(cost.status, CostStatus::Priced, "{dated}");
        assert_eq!(cost, builtin().price(&ask(provider, plain, &usage)), "{dated}");
    }
}

#[test]
fn a_name_never_leads_to_another_version_or_provider() {
    let usage = usage(&[(C::InputFresh, 1_000), (C::OutputText, 10)]);
    for model in
        ["gpt-5.6-nova", "gpt-5.7", "gpt-4", "gpt-4o-mini-new", "claude-sonnet-4-5", "gpt-4oo", "gpt"]
    {
        let known = model == "gpt-4";
        assert_eq!(
            builtin().price(&ask("openai", model, &usage)).status == CostStatus::Priced,
            known,
            "{model}"
        );
    }
    for model in ["claude-opus-4-15", "claude-opus-4", "claude-opus-9", "claude"] {
        let known = model == "claude-opus-4";
        assert_eq!(
            builtin().price(&ask("anthropic", model, &usage)).status == CostStatus::Priced,
            known,
            "{model}"
        );
    }
    check_gap(builtin(), &ask("lmstudio", "gpt-4o", &usage), None, Gap::UnknownProvider);
}

#[test]
fn e13_gateway_style_names_are_unpriced_and_never_zero() {
    let usage = usage(&[(C::InputFresh, 1_000_000), (C::OutputText, 1_000_000)]);
    check_gap(builtin(), &ask("portkey", "anthropic/claude-sonnet-4.5", &usage), None, Gap::UnknownProvider);
    check_gap(builtin(), &ask("bifrost", "google/gemini-2.5-pro", &usage), None, Gap::UnknownProvider);
    check_gap(builtin(), &ask("anthropic", "anthropic/claude-sonnet-4.5", &usage), None, Gap::UnknownModel);
}

#[test]
fn the_served_model_prices_the_call_and_the_requested_one_only_when_it_is_all_there_is() {
    let usage = usage(&[(C::InputFresh, 1_000_000), (C::OutputText, 0)]);
    let requested = Ask { model_requested: Some("gpt-4o-mini"), ..ask("openai", "gpt-4.1", &usage) };
    check(builtin(), &requested, "2");
    check(builtin(), &Ask { model_served: None, ..requested }, "0.15");
    check_gap(builtin(), &Ask { model_served: Some("secret"), ..requested }, None, Gap::UnknownModel);
    check_gap(builtin(), &Ask { model_served: None, model_requested: None, ..requested }, None, Gap::NoModel);
}

// === the right figures of documented errors (PEERS §4) ===

const CLAUDE: &str = r#"{"rows": [{"provider": "p", "model": "m",
    "per_million": {"input": 3, "output": 15, "cached_read": 0.3, "cache_write": 3.75}}]}"#;

#[test]
fn e11_custom_prices_charge_each_class_once_litellm_40006() {
    let usage =
        usage(&[(C::InputFresh, 100), (C::CacheWrite, 700), (C::CachedRead, 200), (C::OutputText, 10)]);
    check(&book(CLAUDE), &ask("p", "m", &usage), "0.003135");
}

#[test]
fn e12_the_served_tier_wins_over_the_requested_one_litellm_31837() {
    let usage = usage(&[(C::InputFresh, 100_000), (C::OutputText, 10_000)]);
    let on = |tier| Ask { tier, ..ask("openai", "gpt-5", &usage) };
    for standard in [None, Some("default"), Some("auto"), Some("standard"), Some("not_available")] {
        check(builtin(), &on(standard), "0.225");
    }
}

#[test]
fn pain_8_flex_is_half_and_pain_9_priority_is_double_portkey_1511_langfuse_13780() {
    let usage = usage(&[(C::InputFresh, 100_000), (C::CachedRead, 100_000), (C::OutputText, 10_000)]);
    let on = |tier| Ask { tier: Some(tier), ..ask("openai", "gpt-5", &usage) };
    check(builtin(), &on("default"), "0.2375");
    check(builtin(), &on("flex"), "0.11875");
    check(builtin(), &on("batch"), "0.11875");
    check(builtin(), &on("priority"), "0.475");
}

#[test]
fn a_tier_the_book_does_not_know_is_unpriced_and_never_standard() {
    let usage = usage(&[(C::InputFresh, 1_000), (C::OutputText, 10)]);
    for (provider, model, tier) in [
        ("openai", "gpt-4o", "scale"),
        ("openai", "gpt-3.5-turbo-0613", "flex"),
        ("anthropic", "claude-sonnet-4-5", "priority"),
        ("anthropic", "claude-sonnet-4-5", "fast"),
    ] {
        check_gap(
            builtin(),
            &Ask { tier: Some(tier), ..ask(provider, model, &usage) },
            None,
            Gap::UnknownTier,
        );
    }
}

#[test]
fn a_tier_price_older_than_its_source_knows_is_unpriced() {
    let usage = usage(&[(C::InputFresh, 1_000_000), (C::OutputText, 0)]);
    let before = Ask { tier: Some("flex"), at: day("2026-08-20"), ..ask("openai", "gpt-5.6-sol", &usage) };
    check_gap(builtin(), &before, None, Gap::NoPriceThen);
    check(builtin(), &Ask { at: day("2026-08-21"), ..before }, "4");
}

const GEMINI: &str = r#"{"rows": [{"provider": "gemini", "model": "gemini-2.5-pro",
    "per_million": {"input": 1.25, "cached_read": 0.125, "output": 10},
    "above_context": {"tokens": 200000, "per_million": {"input": 2.5, "cached_read": 0.25, "output": 15}}},
    {"provider": "gemini", "model": "flash", "per_million": {"input": 0.30, "input_audio": 1.00, "output": 2.5}}]}"#;

#[test]
fn e14_cached_tokens_count_towards_the_threshold_litellm_14849() {
    let usage = usage(&[(C::InputFresh, 5_005), (C::CachedRead, 257_955), (C::OutputText, 1_744)]);
    check(&book(GEMINI), &ask("gemini", "gemini-2.5-pro", &usage), "0.10316125");
}

#[test]
fn e15_at_the_threshold_the_base_rate_holds_and_above_it_everything_is_repriced() {
    let at = usage(&[(C::InputFresh, 100_000), (C::CachedRead, 100_000), (C::OutputText, 1_000)]);
    let above = usage(&[(C::InputFresh, 100_001), (C::CachedRead, 100_000), (C::OutputText, 1_000)]);
    let gemini = book(GEMINI);
    check(&gemini, &ask("gemini", "gemini-2.5-pro", &at), "0.1475");
    check(&gemini, &ask("gemini", "gemini-2.5-pro", &above), "0.2900025");
    let at = usage(&[(C::InputFresh, 272_000), (C::OutputText, 1_000)]);
    let above = usage(&[(C::InputFresh, 272_001), (C::OutputText, 1_000)]);
    check(builtin(), &ask("openai", "gpt-5.4", &at), "0.695");
    check(builtin(), &ask("openai", "gpt-5.4", &above), "1.382505");
}

#[test]
fn e16_reads_and_writes_are_parts_of_the_input_agentgateway_2727() {
    let book = book(
        r#"{"rows": [{"provider": "p", "model": "m",
        "per_million": {"input": 1, "cached_read": 0.1, "cache_write": 1.25}}]}"#,
    );
    let usage = usage(&[(C::InputFresh, 500_000), (C::CachedRead, 300_000), (C::CacheWrite, 200_000)]);
    check(&book, &ask("p", "m", &usage), "0.78");
}

#[test]
fn e18_cache_reads_without_a_price_are_plain_input() {
    let book =
        book(r#"{"rows": [{"provider": "p", "model": "m", "per_million": {"input": "3", "output": "6"}}]}"#);
    let usage = input_only(&[(C::InputFresh, 100), (C::CachedRead, 900)]);
    check(&book, &ask("p", "m", &usage), "0.003");
}

#[test]
fn e19_four_images_cost_four_times_one() {
    let book = book(r#"{"rows": [{"provider": "p", "model": "dall-e-3", "per_unit": {"images": "0.04"}}]}"#);
    let mut usage = Usage::unknown();
    usage.set_quantity(Quantity::Images, 4);
    check(&book, &ask("p", "dall-e-3", &usage), "0.16");
}

#[test]
fn e20_whatever_usage_there_is_is_priced_however_the_exchange_ended() {
    let usage = usage(&[(C::InputFresh, 1_000), (C::OutputText, 1_000)]);
    check(builtin(), &ask("openai", "gpt-4o", &usage), "0.0125");
}

#[test]
fn e21_a_new_price_never_changes_what_older_calls_cost() {
    let book = book(
        r#"{"rows": [
        {"provider": "p", "model": "m", "per_million": {"input": 3}},
        {"provider": "p", "model": "m", "from": "2026-07-01", "per_million": {"input": 2}}]}"#,
    );
    let usage = usage(&[(C::InputFresh, 1_000_000)]);
    let on = |text| Ask { at: day(text), ..ask("p", "m", &usage) };
    check(&book, &on("2026-06-15"), "3");
    check(&book, &on("2026-06-30T23:59:59.999999Z"), "3");
    check(&book, &on("2026-07-01T00:00:00Z"), "2");
}

#[test]
fn e34_cached_audio_has_its_own_price_or_that_of_fresh_audio_langwatch_7048() {
    let usage = usage(&[(C::CachedAudio, 1_000_000), (C::OutputText, 0)]);
    check(builtin(), &ask("openai", "gpt-realtime-mini", &usage), "0.3");
    check(builtin(), &ask("openai", "gpt-audio", &usage), "32");
    check_gap(builtin(), &ask("openai", "gpt-4o", &usage), None, Gap::NoPrice(Item::Token(C::CachedAudio)));
}

// === charges that providers sent themselves (USAGE_SEMANTICS, marked [C]) ===

#[test]
fn confirmed_charges_of_gpt_5_6_sol_before_its_price_was_cut() {
    let at = day("2026-08-01");
    let write = input_only(&[(C::InputFresh, 8), (C::CacheWrite, 4_012)]);
    let read = input_only(&[(C::InputFresh, 8), (C::CachedRead, 4_012)]);
    check(builtin(), &Ask { at, ..ask("openai", "gpt-5.6-sol", &write) }, "0.025115");
    check(builtin(), &Ask { at, ..ask("openai", "gpt-5.6-sol", &read) }, "0.002046");
    check(builtin(), &ask("openai", "gpt-5.6-sol", &write), "0.020092");
}

#[test]
fn confirmed_charge_of_gemini_audio() {
    let usage = input_only(&[(C::InputFresh, 25), (C::InputAudio, 150)]);
    check(&book(GEMINI), &ask("gemini", "flash", &usage), "0.0001575");
}

#[test]
fn confirmed_charge_of_web_searches() {
    for (provider, model) in [("openai", "gpt-5"), ("openai", "gpt-4.1"), ("anthropic", "claude-sonnet-4-5")]
    {
        let mut usage = usage(&[(C::InputFresh, 0), (C::OutputText, 0)]);
        usage.set_quantity(Quantity::WebSearchRequests, 3);
        check(builtin(), &ask(provider, model, &usage), "0.03");
        check(builtin(), &Ask { tier: Some("batch"), ..ask(provider, model, &usage) }, "0.03");
    }
}

// === classes, quantities, unknowns ===

#[test]
fn writes_take_their_own_price_then_the_unsplit_one_then_plain_input() {
    let prices = |json: &str| {
        book(&format!(r#"{{"rows": [{{"provider": "p", "model": "m", "per_million": {json}}}]}}"#))
    };
    let million = |class| usage(&[(class, 1_000_000)]);
    let all = prices(r#"{"input": 1, "cache_write": 2, "cache_write_5m": 3, "cache_write_1h": 4}"#);
    let unsplit = prices(r#"{"input": 1, "cache_write": 2}"#);
    let plain = prices(r#"{"input": 1}"#);
    for (class, own, shared) in [
        (C::CacheWrite, "2", "2"),
        (C::CacheWrite5m, "3", "2"),
        (C::CacheWrite1h, "4", "2"),
        (C::CacheRewrite, "2", "2"),
    ] {
        let mut usage = million(class);
        usage.set(C::InputFresh, 0);
        check(&all, &ask("p", "m", &usage), own);
        check(&unsplit, &ask("p", "m", &usage), shared);
        check(&plain, &ask("p", "m", &usage), "1");
    }
    check(&prices(r#"{"input": 1, "cache_write_5m": 3}"#), &ask("p", "m", &million(C::CacheWrite)), "3");
}

#[test]
fn pictures_are_text_where_there_is_no_picture_price_and_audio_is_not() {
    let picture = input_only(&[(C::InputImage, 1_000), (C::CachedImage, 1_000)]);
    check(builtin(), &ask("openai", "gpt-4o", &picture), "0.00375");
    check(builtin(), &ask("openai", "gpt-image-1", &picture), "0.0125");
    for class in [C::InputAudio, C::OutputAudio, C::OutputImage] {
        let usage = usage(&[(C::InputFresh, 1_000), (C::OutputText, 100), (class, 5)]);
        let gap = Gap::NoPrice(Item::Token(class));
        check_gap(builtin(), &ask("openai", "gpt-4o", &usage), Some("0.0035"), gap);
    }
}

#[test]
fn reasoning_is_output_unless_it_has_a_price_of_its_own() {
    let book = book(
        r#"{"rows": [{"provider": "p", "model": "m",
        "per_million": {"input": 1, "output": 2, "output_reasoning": 5}}]}"#,
    );
    let usage = usage(&[(C::InputFresh, 0), (C::OutputText, 1_000_000), (C::OutputReasoning, 1_000_000)]);
    check(&book, &ask("p", "m", &usage), "7");
    check(builtin(), &ask("openai", "gpt-5", &usage), "20");
}

#[test]
fn unknown_usage_is_unpriced_and_known_zeros_cost_nothing() {
    check_gap(builtin(), &ask("openai", "gpt-4o", &Usage::unknown()), None, Gap::NoUsage);
    let zero = usage(&[(C::InputFresh, 0), (C::OutputText, 0)]);
    check(builtin(), &ask("openai", "gpt-4o", &zero), "0");
    check(builtin(), &ask("openai", "text-embedding-3-small", &usage(&[(C::InputFresh, 0)])), "0");
    check_gap(builtin(), &ask("openai", "gpt-9", &zero), None, Gap::UnknownModel);
}

#[test]
fn a_side_that_nobody_counted_leaves_the_cost_partly_priced() {
    let input = usage(&[(C::InputFresh, 1_000_000)]);
    check_gap(builtin(), &ask("openai", "gpt-4o", &input), Some("2.5"), Gap::OutputUnknown);
    let output = usage(&[(C::OutputText, 1_000_000)]);
    check_gap(builtin(), &ask("openai", "gpt-4o", &output), Some("10"), Gap::InputUnknown);
    check(builtin(), &ask("openai", "text-embedding-3-large", &input), "0.13");
}

#[test]
fn fees_without_a_price_are_a_gap_and_free_quantities_are_not() {
    let mut usage = usage(&[(C::InputFresh, 1_000), (C::OutputText, 0)]);
    for free in
        [Quantity::WebFetchRequests, Quantity::ToolCalls, Quantity::RejectedPrediction, Quantity::Images]
    {
        usage.set_quantity(free, 7);
    }
    check(builtin(), &ask("openai", "gpt-4.1-nano", &usage), "0.0001");
    usage.set_quantity(Quantity::WebSearchRequests, 2);
    let gap = Gap::NoPrice(Item::Quantity(Quantity::WebSearchRequests));
    check_gap(builtin(), &ask("openai", "gpt-4.1-nano", &usage), Some("0.0001"), gap);
}

#[test]
fn audio_by_the_hour_rounds_half_even_to_a_pico_unit() {
    let mut usage = Usage::unknown();
    usage.set_quantity(Quantity::AudioMillis, 90_000);
    check(builtin(), &ask("openai", "whisper-1", &usage), "0.009");
    usage.set_quantity(Quantity::AudioMillis, 1);
    check(builtin(), &ask("openai", "gpt-realtime-whisper", &usage), "0.000000283333");
    check_gap(builtin(), &ask("openai", "gpt-4o-transcribe", &usage), None, Gap::NoUsage);
}

#[test]
fn free_models_are_priced_at_zero_even_without_usage() {
    check(builtin(), &ask("openai", "omni-moderation-latest", &Usage::unknown()), "0");
}

#[test]
fn a_request_fee_is_added_once() {
    let book = book(
        r#"{"rows": [{"provider": "p", "model": "m", "per_request": "0.005",
        "per_web_search": "0.01", "per_million": {"input": 1, "output": 1}}]}"#,
    );
    let mut usage = usage(&[(C::InputFresh, 1_000), (C::OutputText, 1_000)]);
    usage.set_quantity(Quantity::WebSearchRequests, 2);
    check(&book, &ask("p", "m", &usage), "0.027");
    let part = ModelUsage { model: None, usage };
    let mut whole = usage;
    whole.add(&usage);
    whole.set_quantity(Quantity::WebSearchRequests, 2);
    let parts = [part.clone(), part];
    check(&book, &Ask { by_model: &parts, ..ask("p", "m", &whole) }, "0.029");
}

#[test]
fn billed_units_replace_the_tokens_they_stand_for() {
    let book = book(
        r#"{"rows": [{"provider": "cohere", "model": "command", "per_million": {"input": 2, "output": 8}}]}"#,
    );
    let mut usage = usage(&[(C::InputFresh, 69), (C::CachedRead, 10), (C::OutputText, 30)]);
    usage.set_quantity(Quantity::BilledInputTokens, 7);
    usage.set_quantity(Quantity::BilledOutputTokens, 25);
    check(&book, &ask("cohere", "command", &usage), "0.000214");
}

#[test]
fn counts_that_cannot_be_real_leave_the_call_unpriced() {
    let book =
        book(r#"{"rows": [{"provider": "p", "model": "m", "per_million": {"input": "18000000000000"}}]}"#);
    let usage = usage(&[(C::InputFresh, u64::MAX)]);
    check_gap(&book, &ask("p", "m", &usage), None, Gap::TooLarge);
}

// === several models ===

#[test]
fn each_part_is_priced_at_its_own_model_and_threshold() {
    let part =
        |model: Option<&str>, usage| ModelUsage { model: model.map(|m| Label::new(m).unwrap()), usage };
    let advisor = usage(&[(C::InputFresh, 150_000), (C::OutputText, 100)]);
    let main = usage(&[(C::InputFresh, 150_000), (C::OutputText, 200)]);
    let mut whole = advisor;
    whole.add(&main);
    let parts = [part(Some("claude-opus-4-5"), advisor), part(None, main)];
    let together = Ask { by_model: &parts, ..ask("anthropic", "claude-sonnet-4-5", &whole) };
    // 0.7525 + 0.453: no part is above 200,000, though the whole is.
    check(builtin(), &together, "1.2055");
    let unknown = [part(Some("claude-opus-9"), advisor), part(None, main)];
    check_gap(builtin(), &Ask { by_model: &unknown, ..together }, Some("0.453"), Gap::UnknownModel);
    check_gap(builtin(), &Ask { by_model: &unknown[1..], ..together }, Some("0.453"), Gap::PartsDoNotAddUp);
}

#[test]
fn parts_in_two_currencies_are_not_added() {
    let book = book(
        r#"{"rows": [
        {"provider": "p", "model": "a", "per_million": {"input": 1}},
        {"provider": "p", "model": "b", "currency": "CNY", "per_million": {"input": 7}}]}"#,
    );
    let million = usage(&[(C::InputFresh, 1_000_000)]);
    let part = |model| ModelUsage { model: Some(Label::new(model).unwrap()), usage: million };
    let whole = usage(&[(C::InputFresh, 2_000_000)]);
    let parts = [part("a"), part("b")];
    check_gap(&book, &Ask { by_model: &parts, ..ask("p", "a", &whole) }, Some("1"), Gap::TwoCurrencies);
    let cost = book.price(&ask("p", "b", &million));
    assert_eq!((cost.currency.code(), cost.billed_pico), ("CNY", Some(7_000_000_000_000)));
}

// === regions and fast mode ===

#[test]
fn a_region_factor_raises_token_prices_exactly_and_names_its_row() {
    let mut usage = usage(&[(C::InputFresh, 1_000_000), (C::CachedRead, 1_000_000), (C::OutputText, 0)]);
    usage.set_quantity(Quantity::WebSearchRequests, 1);
    let us = Ask { region: Some("us"), ..ask("anthropic", "claude-opus-4-6", &usage) };
    check(builtin(), &us, "6.06");
    let rows = builtin().price(&us).price_rows;
    assert!(rows.iter().any(|id| &**id == "anthropic/claude-opus-4-6[us]/uplift=1.1"), "{rows:?}");
    check(builtin(), &Ask { tier: Some("batch"), ..us }, "3.035");
    for neutral in [None, Some("global"), Some("not_available")] {
        check(builtin(), &Ask { region: neutral, ..us }, "5.51");
    }
}

#[test]
fn a_region_matters_only_where_the_price_depends_on_it() {
    let usage = usage(&[(C::InputFresh, 1_000_000), (C::OutputText, 0)]);
    check(builtin(), &Ask { region: Some("eu"), ..ask("openai", "gpt-4o", &usage) }, "2.5");
    check(builtin(), &Ask { region: Some("EU"), ..ask("openai", "gpt-5.4-mini", &usage) }, "0.825");
    let elsewhere = Ask { region: Some("mars"), ..ask("openai", "gpt-5.4-mini", &usage) };
    check_gap(builtin(), &elsewhere, Some("0.75"), Gap::UnknownRegion);
}

#[test]
fn fast_mode_has_its_own_prices_and_does_not_combine() {
    let usage = usage(&[(C::InputFresh, 1_000_000), (C::CachedRead, 1_000_000), (C::OutputText, 1_000_000)]);
    let fast = Ask { speed: Some("fast"), ..ask("anthropic", "claude-opus-5", &usage) };
    check(builtin(), &fast, "61");
    check(builtin(), &Ask { region: Some("us"), ..fast }, "67.1");
    check(builtin(), &Ask { speed: Some("standard"), ..fast }, "30.5");
    check_gap(builtin(), &Ask { tier: Some("batch"), ..fast }, None, Gap::UnknownTier);
    let old = Ask { model_served: Some("claude-sonnet-4-5"), ..fast };
    check_gap(builtin(), &old, None, Gap::UnknownTier);
}

// === overlays ===

#[test]
fn an_overlay_row_wins_from_its_start_for_the_classes_it_states() {
    let book = builtin()
        .with_overlay(&overlay(
            r#"{"rows": [{"provider": "openai", "model": "gpt-4o", "from": "2026-10-01", "until": "2026-12-01",
                "per_million": {"input": "2"}}]}"#,
        ))
        .unwrap();
    let usage = usage(&[(C::InputFresh, 1_000_000), (C::OutputText, 1_000_000)]);
    let on = |model, text| Ask { at: day(text), ..ask("openai", model, &usage) };
    check(&book, &on("gpt-4o", "2026-09-30"), "12.5");
    check(&book, &on("gpt-4o", "2026-10-01"), "12");
    check(&book, &on("gpt-4o-2024-08-06", "2026-10-01"), "12");
    check(&book, &on("gpt-4o-mini", "2026-10-01"), "0.75");
    check(&book, &on("gpt-4o", "2026-12-01"), "12.5");
    let cost = book.price(&on("gpt-4o", "2026-10-01"));
    assert_eq!(*cost.price_rows[0], *"overlay/openai/gpt-4o/input@2026-10-01..2026-12-01=2");
    let flex = Ask { tier: Some("priority"), ..on("gpt-4o", "2026-10-01") };
    assert_eq!(book.price(&flex).list_pico, builtin().price(&flex).list_pico);
}

#[test]
fn an_overlay_row_for_a_snapshot_covers_only_that_snapshot() {
    let rows = r#"{"rows": [{"provider": "openai", "model": "gpt-4o-2024-08-06", "per_million": {"input": 1}},
        {"provider": "openai", "model": "gpt-5-2025-12-31", "per_million": {"input": 1}}]}"#;
    let book = builtin().with_overlay(&overlay(rows)).unwrap();
    let usage = usage(&[(C::InputFresh, 1_000_000), (C::OutputText, 1_000_000)]);
    check(&book, &ask("openai", "gpt-4o-2024-08-06", &usage), "11");
    check(&book, &ask("openai", "gpt-4o", &usage), "12.5");
    check(&book, &ask("openai", "gpt-5-2025-12-31", &usage), "11");
    check(&book, &ask("openai", "gpt-5-2025-08-07", &usage), "11.25");
}

#[test]
fn an_overlay_row_for_another_name_of_a_model_covers_the_snapshots_of_that_name() {
    let rows =
        r#"{"rows": [{"provider": "anthropic", "model": "claude-opus-4", "per_million": {"input": 1}}]}"#;
    let book = builtin().with_overlay(&overlay(rows)).unwrap();
    let usage = usage(&[(C::InputFresh, 1_000_000), (C::OutputText, 1_000_000)]);
    for (model, price) in
        [("claude-opus-4", "76"), ("claude-opus-4-20250514", "76"), ("claude-opus-4-0", "90")]
    {
        check(&book, &ask("anthropic", model, &usage), price);
    }
}

#[test]
fn an_overlay_price_replaces_the_thresholds_of_its_class() {
    let row = |above: &str| {
        format!(
            r#"{{"rows": [{{"provider": "openai", "model": "gpt-5.4", "per_million": {{"input": 1}} {above}}}]}}"#
        )
    };
    let usage = usage(&[(C::InputFresh, 1_000_000), (C::OutputText, 1_000_000)]);
    let flat = builtin().with_overlay(&overlay(&row(""))).unwrap();
    check(&flat, &ask("openai", "gpt-5.4", &usage), "23.5");
    let two = r#", "above_context": [{"tokens": 100000, "per_million": {"input": 2}},
        {"tokens": 500000, "per_million": {"input": 3}}]"#;
    let stepped = builtin().with_overlay(&overlay(&row(two))).unwrap();
    check(&stepped, &ask("openai", "gpt-5.4", &usage), "25.5");
}

#[test]
fn a_contracted_price_leaves_the_list_price_alone() {
    let rows = r#"{"rows": [
        {"provider": "openai", "model": "gpt-4o", "kind": "contracted", "per_million": {"input": "2"}},
        {"provider": "openai", "model": "*", "kind": "contracted", "discount_percent": 10},
        {"provider": "openai", "model": "gpt-4.1*", "kind": "contracted", "discount_percent": "12.5"},
        {"provider": "openai", "model": "gpt-4.1", "tier": "batch", "kind": "contracted", "discount_percent": 0}]}"#;
    let book = builtin().with_overlay(&overlay(rows)).unwrap();
    let usage = usage(&[(C::InputFresh, 1_000_000), (C::OutputText, 1_000_000)]);
    let both = |model, tier| {
        let cost = book.price(&Ask { tier, ..ask("openai", model, &usage) });
        assert_eq!(cost.billed_pico, cost.contracted_pico);
        [cost.list_pico, cost.contracted_pico]
            .map(|pico| Money::from_pico(cost.currency, pico.unwrap()).to_string())
    };
    assert_eq!(both("gpt-4o", None), ["12.5", "11"]);
    assert_eq!(both("gpt-5", None), ["11.25", "10.125"]);
    assert_eq!(both("gpt-4.1", None), ["10", "8.75"]);
    assert_eq!(both("gpt-4.1", Some("batch")), ["5", "5"]);
    let ids = book.price(&ask("openai", "gpt-5", &usage)).price_rows;
    assert!(ids.iter().any(|id| &**id == "overlay/contracted/openai/*/discount=0.1"), "{ids:?}");
    let claude = book.price(&ask("anthropic", "claude-opus-5", &usage));
    assert_eq!(claude.list_pico, claude.contracted_pico);
}

#[test]
fn a_contracted_price_without_a_public_one_bills_and_has_no_list_cost() {
    let book = book(
        r#"{"rows": [{"provider": "p", "model": "m", "kind": "contracted", "per_million": {"input": 1}}]}"#,
    );
    let cost = book.price(&ask("p", "m", &usage(&[(C::InputFresh, 1_000_000)])));
    assert_eq!((cost.status, cost.list_pico), (CostStatus::Priced, None));
    assert_eq!(cost.billed_pico, Some(1_000_000_000_000));
}

#[test]
fn a_pattern_prices_the_names_that_nothing_else_names() {
    let book = book(
        r#"{"rows": [
        {"provider": "vllm", "model": "*", "per_million": {"input": 1}},
        {"provider": "vllm", "model": "llama*", "per_million": {"input": 2}},
        {"provider": "vllm", "model": "llama-9", "per_million": {"input": 3}}]}"#,
    );
    let usage = usage(&[(C::InputFresh, 1_000_000)]);
    for (model, price) in [("qwen", "1"), ("llama-8", "2"), ("llama-9", "3"), ("llama-9-20260101", "2")] {
        check(&book, &ask("vllm", model, &usage), price);
    }
}

#[test]
fn a_row_for_a_region_goes_before_one_without_and_takes_no_factor() {
    let rows = r#"{"rows": [{"provider": "anthropic", "model": "claude-opus-4-6", "region": "us", "per_million": {"input": 7}},
        {"provider": "openai", "model": "gpt-4o", "region": "eu", "per_million": {"input": 9}},
        {"provider": "only", "model": "m", "region": "eu", "per_million": {"input": 1}}]}"#;
    let book = builtin().with_overlay(&overlay(rows)).unwrap();
    let usage = usage(&[(C::InputFresh, 1_000_000), (C::OutputText, 1_000_000)]);
    check(&book, &Ask { region: Some("us"), ..ask("anthropic", "claude-opus-4-6", &usage) }, "34.5");
    check(&book, &ask("anthropic", "claude-opus-4-6", &usage), "30");
    check(&book, &Ask { region: Some("EU"), ..ask("openai", "gpt-4o", &usage) }, "19");
    check(&book, &Ask { region: Some("us"), ..ask("openai", "gpt-4o", &usage) }, "12.5");
    check_gap(&book, &ask("only", "m", &usage), None, Gap::UnknownRegion);
    let output = Gap::NoPrice(Item::Token(C::OutputText));
    check_gap(&book, &Ask { region: Some("eu"), ..ask("only", "m", &usage) }, Some("1"), output);
}

#[test]
fn calls_before_the_first_start_are_unpriced() {
    let book = book(
        r#"{"rows": [{"provider": "p", "model": "m", "from": "2026-07-01", "per_million": {"input": 2}}]}"#,
    );
    let usage = usage(&[(C::InputFresh, 1)]);
    check_gap(&book, &Ask { at: day("2026-06-30"), ..ask("p", "m", &usage) }, None, Gap::NoPriceThen);
}

#[test]
fn rows_in_two_currencies_for_one_model_make_no_book() {
    let rows = r#"{"rows": [{"provider": "openai", "model": "gpt-4o", "currency": "EUR", "per_million": {"input": 2}}]}"#;
    let errors = builtin().with_overlay(&overlay(rows)).unwrap_err();
    assert!(matches!(errors.0[..], [OverlayError::Book(BookError::MixedCurrency { .. })]), "{errors}");
}

// === properties ===

mod properties {
    use super::*;
    use proptest::prelude::*;

    /// Models of both providers with and without audio, thresholds, uplifts and tiers.
    const MODELS: &[(&str, &str)] = &[
        ("openai", "gpt-4o"),
        ("openai", "gpt-5.6-sol"),
        ("openai", "gpt-realtime"),
        ("openai", "gpt-image-1.5"),
        ("openai", "text-embedding-3-small"),
        ("anthropic", "claude-sonnet-4-5"),
        ("anthropic", "claude-haiku-5-5"),
        ("anthropic", "claude-opus-5"),
    ];

    fn small_usage() -> impl Strategy<Value = Usage> {
        prop::collection::vec(0_u64..2_000, TokenClass::ALL.len()).prop_map(|counts| {
            let counts: Vec<_> = TokenClass::ALL.iter().copied().zip(counts).collect();
            usage(&counts)
        })
    }

    fn call() -> impl Strategy<Value = (usize, Option<&'static str>, Option<&'static str>, i64)> {
        let tiers =
            prop::sample::select(vec![None, Some("default"), Some("batch"), Some("flex"), Some("fast")]);
        let regions = prop::sample::select(vec![None, Some("us"), Some("eu")]);
        (0..MODELS.len(), tiers, regions, 1_700_000_000_i64..1_800_000_000)
    }

    fn ask_for<'a>(
        (model, tier, region, seconds): (usize, Option<&'a str>, Option<&'a str>, i64),
        usage: &'a Usage,
    ) -> Ask<'a> {
        let (provider, model) = MODELS[model];
        Ask { tier, region, at: Timestamp::from_micros(seconds * 1_000_000), ..ask(provider, model, usage) }
    }

    fn billed(book: &PriceBook, ask: &Ask<'_>) -> i128 {
        book.price(ask).billed_pico.unwrap_or(0)
    }

    proptest! {
        #[test]
        fn cost_adds_up_over_parts_below_thresholds(call in call(), a in small_usage(), b in small_usage()) {
            let mut both = a;
            both.add(&b);
            let cost = |usage: &Usage| billed(builtin(), &ask_for(call, usage));
            prop_assert_eq!(cost(&both), cost(&a) + cost(&b));
        }

        #[test]
        fn parts_per_model_cost_what_they_cost_alone_in_any_order(call in call(), a in small_usage(), b in small_usage()) {
            let mut both = a;
            both.add(&b);
            let part = |usage| ModelUsage { model: None, usage };
            let (there, back) = ([part(a), part(b)], [part(b), part(a)]);
            let cost = |parts| billed(builtin(), &Ask { by_model: parts, ..ask_for(call, &both) });
            prop_assert_eq!(cost(&there), billed(builtin(), &ask_for(call, &both)));
            prop_assert_eq!(cost(&there), cost(&back));
        }

        #[test]
        fn cost_scales_with_usage_below_thresholds(call in call(), one in small_usage(), times in 1_u64..4) {
            let mut many = Usage::unknown();
            for (class, count) in one.tokens() {
                many.set(class, count * times);
            }
            let cost = |usage: &Usage| billed(builtin(), &ask_for(call, usage));
            prop_assert_eq!(cost(&many), cost(&one) * i128::from(times));
        }

        #[test]
        fn every_row_named_is_in_the_book_and_explains_the_amount(call in call(), usage in small_usage()) {
            let cost = builtin().price(&ask_for(call, &usage));
            for id in &cost.price_rows {
                let row = builtin().row(id).unwrap();
                prop_assert!(row.holds(Timestamp::from_micros(call.3 * 1_000_000)));
            }
            prop_assert_eq!(cost.status == CostStatus::Unpriced, cost.billed_pico.is_none());
            prop_assert!(cost.status == CostStatus::Unpriced || cost.billed_pico == Some(0) || !cost.price_rows.is_empty());
        }

        #[test]
        fn another_book_gives_another_price_and_leaves_the_first_alone(call in call(), usage in small_usage()) {
            let ask = ask_for(call, &usage);
            let before = builtin().price(&ask);
            let half = halved();
            let after = half.price(&ask);
            prop_assert_eq!(after.list_pico, before.list_pico);
            prop_assert_eq!(after.billed_pico.map(|pico| pico * 2), before.billed_pico);
            prop_assert!(after.price_rows.iter().all(|id| half.row(id).is_some()));
            prop_assert_eq!(builtin().price(&ask), before);
        }
    }

    /// The built-in book with half of everything taken off.
    fn halved() -> &'static PriceBook {
        static BOOK: OnceLock<PriceBook> = OnceLock::new();
        let rows = |provider| {
            format!(
                r#"{{"provider": "{provider}", "model": "*", "kind": "contracted", "discount_percent": 50}}"#
            )
        };
        let file = format!(r#"{{"rows": [{}, {}]}}"#, rows("openai"), rows("anthropic"));
        BOOK.get_or_init(|| builtin().with_overlay(&overlay(&file)).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn the_order_of_rows_does_not_matter(seed in any::<u64>(), call in call(), usage in small_usage()) {
            let mut rows: Vec<_> = builtin().rows().collect();
            rows.retain(|row| MODELS.iter().any(|(_, model)| *model == &*row.model));
            let sorted = PriceBook::from_rows(rows.clone()).unwrap();
            rows.sort_by_key(|row| row.id.bytes().fold(seed, |hash, b| hash.rotate_left(7) ^ u64::from(b)));
            let shuffled = PriceBook::from_rows(rows).unwrap();
            let ask = ask_for(call, &usage);
            prop_assert_eq!(shuffled.price(&ask), sorted.price(&ask));
        }
    }
}
