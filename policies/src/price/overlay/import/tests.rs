//! Tests of imports: exact numbers, every bad row named, nothing dropped in silence.

use super::*;
use crate::price::{Ask, PriceBook};
use bursar_domain::{Money, Timestamp, TokenClass, Usage};

const LITELLM: &str = r#"{
  "sample_spec": {"litellm_provider": "one of https://docs.litellm.ai", "input_cost_per_token": "x"},
  "gpt-x": {"litellm_provider": "openai", "mode": "chat",
    "input_cost_per_token": 1e-07, "output_cost_per_token": "4e-07", "cache_read_input_token_cost": 2.5e-08,
    "input_cost_per_token_above_200k_tokens": 2e-07, "input_cost_per_token_batches": 5e-08,
    "output_cost_per_token_batches": 2e-07, "cache_read_input_token_cost_above_200k_tokens_batches": 1e-08,
    "max_tokens": 8192, "supports_vision": true, "output_cost_per_pixel": 0.1,
    "search_context_cost_per_query": {"search_context_size_low": 0.01, "search_context_size_high": 0.01}},
  "xai/grok-x": {"litellm_provider": "xai", "input_cost_per_token": 3.0000000000000004e-07, "output_cost_per_token": null},
  "azure/eu/gpt-x": {"litellm_provider": "azure", "input_cost_per_token": 1.1e-07},
  "vertex_ai/claude-x@20260101": {"litellm_provider": "vertex_ai-anthropic_models", "input_cost_per_token": 5e-06},
  "1024-x-1024/dall-e-x": {"litellm_provider": "openai", "input_cost_per_pixel": 1e-08},
  "rerank-x": {"litellm_provider": "cohere", "mode": "rerank", "input_cost_per_token": 0.0, "input_cost_per_query": 0.002},
  "whisper-x": {"litellm_provider": "openai", "mode": "audio_transcription", "input_cost_per_second": 0.0001, "output_cost_per_second": 0.0},
  "dashscope/qwen-x": {"litellm_provider": "dashscope", "tiered_pricing": [
    {"range": [0, 32000.0], "input_cost_per_token": 1.2e-06}, {"range": [3.2e4, 128000.0], "input_cost_per_token": 2.4e-06}]},
  "free-x": {"litellm_provider": "zai", "input_cost_per_token": 0.0, "output_cost_per_token": 0},
  "zai/free-x": {"litellm_provider": "zai", "input_cost_per_token": 1e-06}
}"#;

const MODELS_DEV: &str = r#"{
  "google": {"id": "google", "name": "Google", "models": {
    "gemini-x": {"id": "gemini-x", "cost": {"input": 1.25, "output": 10, "cache_read": 0.31, "reasoning": 10,
      "context_over_200k": {"input": 2.5, "output": 15}, "video": 3}},
    "gemini-y": {"id": "gemini-y", "cost": {"input": 1, "tiers": [{"tier": {"type": "context", "size": 128000}, "input": 2}]}},
    "gemini-z": {"id": "gemini-z"}}},
  "acme": {"id": "acme", "models": {"m": {"cost": {"input": 0, "output": 0}}}}
}"#;

fn read(text: &str, format: ImportFormat) -> Imported {
    import(text, format, "test").unwrap()
}

fn row<'a>(imported: &'a Imported, provider: &str, model: &str, tier: Option<&str>) -> &'a OverlayRow {
    let wanted =
        |row: &&OverlayRow| row.provider == provider && row.model == model && row.tier.as_deref() == tier;
    imported.file.rows.iter().find(wanted).unwrap()
}

fn prices(row: &OverlayRow) -> Vec<(&str, &str)> {
    row.per_million.iter().map(|(class, price)| (&**class, price.text())).collect()
}

#[test]
fn litellm_entries_become_rows_by_provider_region_and_tier() {
    let made = read(LITELLM, ImportFormat::LiteLlm);
    let standard = row(&made, "openai", "gpt-x", None);
    assert_eq!(prices(standard), [("cached_read", "0.025"), ("input", "0.1"), ("output", "0.4")]);
    assert_eq!(standard.per_web_search.as_ref().unwrap().text(), "0.01");
    assert_eq!(standard.above_context[0].tokens.text(), "200000");
    assert_eq!(prices(row(&made, "openai", "gpt-x", Some("batch"))), [("input", "0.05"), ("output", "0.2")]);
    assert_eq!(prices(row(&made, "xai", "grok-x", None)), [("input", "0.3")]);
    assert_eq!(row(&made, "azure", "gpt-x", None).region.as_deref(), Some("eu"));
    assert_eq!(prices(row(&made, "vertex", "claude-x@20260101", None)), [("input", "5")]);
    assert!(row(&made, "cohere", "rerank-x", None).per_million.is_empty());
    assert_eq!(row(&made, "cohere", "rerank-x", None).per_unit["search_units"].text(), "0.002");
    assert_eq!(row(&made, "openai", "whisper-x", None).per_unit["audio_seconds"].text(), "0.0001");
    let steps = row(&made, "alibaba", "qwen-x", None);
    assert_eq!(prices(steps), [("input", "1.2")]);
    assert_eq!((steps.above_context[0].tokens.text(), steps.above_context.len()), ("32000", 1));
    assert_eq!(made.free_models, 1);
}

#[test]
fn what_litellm_says_and_the_book_cannot_is_counted_by_name() {
    let made = read(LITELLM, ImportFormat::LiteLlm);
    let left_out: Vec<(&str, usize)> = made.left_out.iter().map(|(what, n)| (&**what, *n)).collect();
    assert_eq!(
        left_out,
        [
            ("a threshold without a base price", 1),
            ("another entry for the same model", 1),
            ("names with a size, quality or commitment", 1),
            ("output_cost_per_pixel", 1),
            ("output_cost_per_second", 1),
        ]
    );
    assert_eq!(made.rounded, ["xai/grok-x input_cost_per_token 3.0000000000000004e-07 → 0.3"]);
}

#[test]
fn entries_that_are_no_objects_are_named_with_what_they_are() {
    let text = r#"{
      "gpt-x": {"litellm_provider": "openai", "input_cost_per_token": 1e-06,
        "search_context_cost_per_query": "0.01", "tiered_pricing": {"a": 1}},
      "aliases": ["gpt-x", {"litellm_provider": "openai", "input_cost_per_token": 1}], "version": "1.2",
      "made": 7, "rules": {"rules": []}, "nothing": null, "strict": true
    }"#;
    let made = read(text, ImportFormat::LiteLlm);
    let left_out: Vec<(&str, usize)> = made.left_out.iter().map(|(what, n)| (&**what, *n)).collect();
    assert_eq!(
        left_out,
        [
            ("\"aliases\", which is a list and no model", 1),
            ("\"made\", which is a number and no model", 1),
            ("\"nothing\", which is null and no model", 1),
            ("\"rules\", which has neither a provider nor a price", 1),
            ("\"strict\", which is a truth value and no model", 1),
            ("\"version\", which is a string and no model", 1),
            ("search_context_cost_per_query that is a string", 1),
            ("tiered_pricing that is an object", 1),
        ]
    );
    assert_eq!(made.file.rows.len(), 1);
    let made = read(r#"{"acme": {"models": {"m": "x"}}, "list": []}"#, ImportFormat::ModelsDev);
    let left_out: Vec<&str> = made.left_out.keys().map(|what| &**what).collect();
    assert_eq!(
        left_out,
        ["\"acme/m\", which is a string and no model", "\"list\", which is a list and no provider"]
    );
}

#[test]
fn models_dev_entries_become_rows() {
    let made = read(MODELS_DEV, ImportFormat::ModelsDev);
    let pro = row(&made, "gemini", "gemini-x", None);
    assert_eq!(
        prices(pro),
        [("cached_read", "0.31"), ("input", "1.25"), ("output", "10"), ("output_reasoning", "10")]
    );
    assert_eq!(pro.above_context[0].tokens.text(), "200000");
    assert_eq!(pro.above_context[0].per_million["output"].text(), "15");
    assert_eq!(row(&made, "gemini", "gemini-y", None).above_context[0].tokens.text(), "128000");
    assert_eq!(made.left_out["models without a cost"], 1);
    assert_eq!(made.left_out["cost.video"], 1);
    assert_eq!(made.free_models, 1);
}

#[test]
fn the_format_is_told_by_the_content() {
    assert_eq!(ImportFormat::detect(LITELLM), Some(ImportFormat::LiteLlm));
    assert_eq!(ImportFormat::detect(MODELS_DEV), Some(ImportFormat::ModelsDev));
    for other in
        ["", "{}", "[]", "rows: []", r#"{"rows": []}"#, r#"{"source": "x", "rows": [{"provider": "p"}]}"#]
    {
        assert_eq!(ImportFormat::detect(other), None, "{other}");
    }
}

#[test]
fn every_bad_row_is_named_and_none_is_imported() {
    let errors = |text, format| import(text, format, "test").unwrap_err().to_string();
    let litellm = r#"{
        "a": {"litellm_provider": "openai", "input_cost_per_token": -1e-06, "output_cost_per_token": "cheap"},
        "b": {"input_cost_per_token": 1e-06},
        "c": {"litellm_provider": "openai", "input_cost_per_token": 1e-14},
        "d": {"litellm_provider": "openai", "input_cost_per_token": true},
        "e": {"litellm_provider": "openai", "input_cost_per_token": 1e-06},
        "e": {"litellm_provider": "openai", "input_cost_per_token": 1e-06}}"#;
    assert_eq!(
        errors(litellm, ImportFormat::LiteLlm).lines().collect::<Vec<_>>(),
        [
            "\"a\": input_cost_per_token: \"-1e-06\" is negative; a price is zero or more",
            "\"a\": output_cost_per_token: \"cheap\" is no number; write it like 2.5e-06",
            "\"b\": litellm_provider: is missing; say whose model it is, such as \"openai\"",
            "\"c\": input_cost_per_token: \"1e-14\" is finer than can be billed exactly; check its unit",
            "\"d\": input_cost_per_token: is no number",
            "\"e\": litellm_provider: the entry is there twice: remove one",
        ]
    );
    let models_dev = r#"{"p": {"models": {"m": {"cost": {"input": "NaN"}}}}, "q": {"name": "Q"}}"#;
    assert_eq!(
        errors(models_dev, ImportFormat::ModelsDev).lines().collect::<Vec<_>>(),
        [
            "\"p/m\": cost.input: \"NaN\" is no number; write it like 2.5e-06",
            "\"q\": models: is missing; a provider without models has no place here",
        ]
    );
    assert!(errors("rows: []", ImportFormat::LiteLlm).starts_with("no litellm file: "));
}

#[test]
fn imported_rows_price_calls_exactly() {
    let made = read(LITELLM, ImportFormat::LiteLlm);
    let book = PriceBook::empty().with_overlay(&made.file).unwrap();
    let mut usage = Usage::unknown();
    usage.set(TokenClass::InputFresh, 3);
    usage.set(TokenClass::OutputText, 7);
    let cost = book.price(&Ask {
        provider: "openai",
        model_served: Some("gpt-x"),
        model_requested: None,
        tier: None,
        region: None,
        speed: None,
        at: Timestamp::from_micros(0),
        usage: &usage,
        by_model: &[],
    });
    assert_eq!(Money::from_pico(cost.currency, cost.list_pico.unwrap()).to_string(), "0.0000031");
    assert_eq!(*cost.price_rows[0], *"overlay/openai/gpt-x/input=0.1");
}

#[test]
fn an_overlay_is_written_in_the_shape_that_is_read() {
    let made = read(
        r#"{"a \"b\"": {"litellm_provider": "p", "input_cost_per_token": 1e-06, "input_cost_per_token_above_128k_tokens": 2e-06,
            "input_cost_per_request": 0.005}}"#,
        ImportFormat::LiteLlm,
    );
    assert_eq!(
        render(&made.file),
        "source: \"test\"\nrows:\n  - provider: \"p\"\n    model: \"a \\\"b\\\"\"\n    per_million: { input: 1 }\n    \
         per_request: 0.005\n    above_context: [{ tokens: 128000, per_million: { input: 2 } }]\n"
    );
    assert_eq!(render(&OverlayFile::default()), "rows: []\n");
}

/// The public files, when they lie beside the project.
#[test]
fn the_public_litellm_file_is_imported_whole() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/prices");
    let Ok(text) = std::fs::read_to_string(folder.join("litellm-1.109.1.json")) else {
        println!("SKIPPED: {} is not there", folder.display());
        return;
    };
    assert_eq!(ImportFormat::detect(&text), Some(ImportFormat::LiteLlm));
    let made =
        import(&text, ImportFormat::LiteLlm, "litellm-1.109.1").unwrap_or_else(|errors| panic!("{errors}"));
    let book =
        PriceBook::builtin().unwrap().with_overlay(&made.file).unwrap_or_else(|errors| panic!("{errors}"));
    println!("{} rows, {} rounded, left out: {:?}", made.file.rows.len(), made.rounded.len(), made.left_out);
    assert!(made.file.rows.len() > 4_000);
    assert!(book.sheet("deepinfra", "meta-llama/Llama-3.3-70B-Instruct-Turbo").is_some());
}
