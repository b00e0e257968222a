//! The table against the code behind it: parameters, schemas, and the published document.

use super::*;
use crate::admin::openapi;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use serde_json::Value;
use std::collections::BTreeSet;

/// Tells which fields a structure has, by asking it to be read.
struct Fields(std::cell::Cell<&'static [&'static str]>);

#[derive(Debug)]
struct Told;

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("told")
    }
}

impl std::error::Error for Told {}

impl de::Error for Told {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Self
    }
}

impl<'de> Deserializer<'de> for &Fields {
    type Error = Told;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Told> {
        Err(Told)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Told> {
        self.0.set(fields);
        Err(Told)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn fields<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    let fields = Fields(std::cell::Cell::new(&[]));
    let _ = T::deserialize(&fields);
    fields.0.get()
}

/// What the handler of an operation reads its query into; `None` where it reads none.
fn read_by_handler(id: &str) -> &'static [&'static str] {
    match id {
        "usage" => fields::<reports::UsageQuery>(),
        "usageRecords" => fields::<reports::RecordsQuery>(),
        "trialBalance" => fields::<crate::trial::Options>(),
        "prune" => fields::<crate::prune::Options>(),
        "import" | "addContracts" | "addContractEvents" => fields::<hedge::ImportQuery>(),
        "contracts" | "contract" | "hedgeReport" | "hedgeReportBeside" | "hedgeEffectiveness"
        | "hedgeRisk" => fields::<crate::hedge::report::Options>(),
        "market" => fields::<hedge::MarketQuery>(),
        "composeIndex" | "composeIndexOfVolumes" => fields::<crate::hedge::compose::Options>(),
        "hedgeSimulate" => fields::<crate::hedge::simulate::Query>(),
        "revenueEvents" => fields::<crate::roi::events::ListOptions>(),
        "focus" => fields::<crate::focus::Options>(),
        "roi" => fields::<crate::roi::report::Options>(),
        "closePeriod" => fields::<crate::roi::period::CloseOptions>(),
        "addBudgetOverride" => fields::<crate::overrides::Asked>(),
        "revokeBudgetOverride" => fields::<budgets::RevokeQuery>(),
        "reconcile" => fields::<reconcile::ReconcileQuery>(),
        "audit" => fields::<crate::audit::Options>(),
        "prices" => fields::<prices::ListQuery>(),
        "priceSheet" => fields::<prices::SheetQuery>(),
        "priceDiff" => fields::<prices::DiffQuery>(),
        "priceReplay" | "priceReplayBeside" => fields::<prices::ReplayQuery>(),
        "testWebhooks" => fields::<webhooks::TestQuery>(),
        "why" => fields::<budgets::WhyQuery>(),
        _ => &[],
    }
}

#[test]
fn every_parameter_of_the_table_is_one_that_the_handler_reads() {
    for operation in OPERATIONS {
        let known = read_by_handler(operation.id);
        let told: BTreeSet<&str> =
            operation.query.iter().copied().flatten().map(|param| param.name).collect();
        for name in &told {
            assert!(known.contains(name), "{}: {name} is not among {known:?}", operation.id);
        }
        // Of what several questions share, each names its own part.
        let shared =
            ["contracts", "contract", "hedgeReport", "hedgeReportBeside", "hedgeEffectiveness", "hedgeRisk"];
        let shared =
            shared.contains(&operation.id) || matches!(operation.id, "addContracts" | "addContractEvents");
        if !shared {
            let missing: Vec<_> = known.iter().filter(|name| !told.contains(*name)).collect();
            assert!(missing.is_empty(), "{}: the document lacks {missing:?}", operation.id);
        }
    }
}

#[test]
fn operations_have_names_of_their_own_and_a_place_for_what_is_in_braces() {
    let mut ids = BTreeSet::new();
    for operation in OPERATIONS {
        assert!(ids.insert(operation.id), "{}", operation.id);
        assert!(operation.about.ends_with('.'), "{}", operation.id);
        let braces = operation.path.split(['{', '}']).nth(1);
        assert_eq!(braces, operation.place.map(|place| place.name), "{}", operation.id);
        let writes = operation.method == Method::Post;
        assert!(writes || !matches!(operation.needs, Needs::Ingest | Needs::Admin), "{}", operation.id);
    }
    let import = OPERATIONS.iter().find(|operation| operation.id == "import").unwrap();
    let Some(Param { kind: Kind::OneOf(names), .. }) = import.place else { panic!("{import:?}") };
    assert_eq!(*names, crate::hedge::import::What::ALL.map(crate::hedge::import::What::name));
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(name)) = object.get("$ref") {
                found.insert(name.clone());
            }
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_schema_is_there_and_is_used() {
    let document: Value = serde_json::from_str(&openapi::text()).unwrap();
    let mut used = BTreeSet::new();
    references(&document, &mut used);
    for name in &used {
        assert!(document.pointer(name.trim_start_matches('#')).is_some(), "{name}");
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(used.contains(&format!("#/components/schemas/{name}")), "{name} is not used");
    }
}

#[test]
fn the_published_document_is_what_the_program_serves() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/openapi.json");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(file, openapi::text()).unwrap();
    }
    let published = std::fs::read_to_string(file).unwrap_or_default();
    assert!(published == openapi::text(), "write it anew: BLESS=1 cargo test -p bursar admin::table");
}
