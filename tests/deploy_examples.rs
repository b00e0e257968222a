//! The files in `deploy/examples` are what users copy: each must be right as it stands.

use bursar::config::{Config, Sources, json_schema, overlay_file, reference_page};
use bursar_domain::money::format_pico;
use bursar_domain::{Timestamp, TokenClass, Usage};
use bursar_policies::price::{Ask, PriceBook};
use bursar_tests::system::START_MICROS;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[test]
fn every_example_configuration_is_right() {
    let mut checked = 0;
    for entry in std::fs::read_dir(root().join("deploy/examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let config = Config::load(Sources::from_text(&text))
                .unwrap_or_else(|errors| panic!("{}: {errors}", path.display()));
            assert!(config.warnings.is_empty(), "{}: {:?}", path.display(), config.warnings);
            checked += 1;
        }
    }
    assert!(checked > 0, "there are no examples");
}

#[test]
fn the_example_overlay_prices_as_its_comments_say() {
    let path = root().join("deploy/examples/prices/overlay.yaml");
    let file = overlay_file(&std::fs::read_to_string(path).unwrap()).unwrap();
    let book = PriceBook::builtin().unwrap().with_overlay(&file).unwrap();
    let hundred_thousand = |provider, model| {
        let mut usage = Usage::unknown();
        // Below every context threshold.
        usage.set(TokenClass::InputFresh, 100_000);
        usage.set(TokenClass::OutputText, 0);
        let cost = book.price(&Ask {
            provider,
            model_served: Some(model),
            model_requested: None,
            tier: None,
            region: None,
            speed: None,
            at: Timestamp::from_micros(START_MICROS),
            usage: &usage,
            by_model: &[],
        });
        (cost.list_pico.map(format_pico), cost.billed_pico.map(format_pico))
    };
    let price = |list: &str, billed: &str| (Some(list.to_owned()), Some(billed.to_owned()));
    assert_eq!(hundred_thousand("vllm", "llama-3.3-70b"), price("0.02", "0.02"));
    assert_eq!(hundred_thousand("openai", "gpt-4o-mini"), price("0.015", "0.012"));
    assert_eq!(hundred_thousand("anthropic", "claude-sonnet-4-5"), price("0.3", "0.27"));
}

#[test]
fn the_reference_page_and_the_schema_are_those_of_this_version() {
    let reference = root().join("docs/reference");
    let page = std::fs::read_to_string(reference.join("configuration.md")).unwrap();
    assert!(page.trim_end() == reference_page().trim_end(), "write the page anew");
    let schema = std::fs::read_to_string(reference.join("config.schema.json")).unwrap();
    assert!(schema.trim_end() == json_schema().trim_end(), "write the schema anew");
}
