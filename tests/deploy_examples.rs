//! The files in `deploy/examples` are what users copy: each must be right as it stands.

use bursar::config::{Config, Sources, json_schema, reference_page};
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
fn the_reference_page_and_the_schema_are_those_of_this_version() {
    let reference = root().join("docs/reference");
    let page = std::fs::read_to_string(reference.join("configuration.md")).unwrap();
    assert!(page.trim_end() == reference_page().trim_end(), "write the page anew");
    let schema = std::fs::read_to_string(reference.join("config.schema.json")).unwrap();
    assert!(schema.trim_end() == json_schema().trim_end(), "write the schema anew");
}
