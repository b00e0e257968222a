//! Tests of overlay files: what is accepted, and that every mistake is named with its remedy.

use super::*;

/// The rows of a file with one row, or its errors.
fn one(json: &str) -> Result<Vec<PriceRow>, Vec<String>> {
    file(&format!(r#"{{"rows": [{json}]}}"#))
}

fn file(json: &str) -> Result<Vec<PriceRow>, Vec<String>> {
    let file: OverlayFile = serde_json::from_str(json).unwrap();
    rows(&file).map_err(|errors| errors.0.iter().map(ToString::to_string).collect())
}

#[track_caller]
fn refused(json: &str, message: &str) {
    assert_eq!(one(json).unwrap_err(), [message]);
}

/// A row of model `m` with `rest`.
fn row(rest: &str) -> String {
    format!(r#"{{"provider": "p", "model": "m", {rest}}}"#)
}

#[test]
fn a_full_row_becomes_one_row_per_price() {
    let rows = one(
        r#"{"provider": "azure", "model": "gpt-4o", "region": "EU", "tier": "Priority", "from": "2026-01-01",
            "until": "2026-07-01T12:00:00Z", "currency": "EUR",
            "per_million": {"input": 2.5, "cached_read": "1.25", "output": 10},
            "per_request": 0.001, "per_web_search": "0.01", "per_unit": {"pages": 0.002, "audio_minutes": "0.006"},
            "above_context": {"tokens": 200000, "per_million": {"input": 5}}}"#,
    )
    .unwrap();
    let mut ids: Vec<&str> = rows.iter().map(|row| &*row.id).collect();
    ids.sort_unstable();
    let id = |item: &str, price: &str| {
        format!("overlay/azure/gpt-4o[eu]/priority/{item}@2026-01-01..2026-07-01T12:00:00Z={price}EUR")
    };
    let mut expected = vec![
        id("input", "2.5"),
        id("cached_read", "1.25"),
        id("output", "10"),
        id("input>200000", "5"),
        id("request", "0.001"),
        id("web_search_requests", "0.01"),
        id("pages", "0.002"),
        id("audio_millis", "0.006/60000"),
    ];
    expected.sort_unstable();
    assert_eq!(ids, expected);
}

#[test]
fn no_tier_is_standard_and_no_tier_of_a_discount_is_every_tier() {
    let price = one(&row(r#""per_million": {"input": 1}"#)).unwrap();
    assert_eq!(*price[0].tier, *"standard");
    assert_eq!(*price[0].source, *"overlay");
    let discount = one(&row(r#""kind": "contracted", "discount_percent": 7.5"#)).unwrap();
    assert_eq!(*discount[0].tier, *"*");
    let synonym = one(&row(r#""tier": "default", "region": "global", "per_million": {"input": 1}"#)).unwrap();
    assert_eq!((&*synonym[0].tier, &synonym[0].region), ("standard", &None));
}

#[test]
fn prices_that_are_not_exact_are_refused_with_a_remedy() {
    for (value, reason) in [
        ("-1", "is negative; a price is zero or more"),
        ("\"NaN\"", "is no plain decimal; write it like 2.5, without exponent or unit"),
        ("\"2.50 USD\"", "is no plain decimal; write it like 2.5, without exponent or unit"),
        ("\"1e-3\"", "is no plain decimal; write it like 2.5, without exponent or unit"),
        ("true", "is no plain decimal; write it like 2.5, without exponent or unit"),
        ("0.0000001", "is finer than can be billed exactly; round it to 6 decimals per million tokens"),
        ("1e300", "is no plain decimal; write it like 2.5, without exponent or unit"),
        ("\"0.0000000000001\"", "is not a decimal with at most 6 decimals per million tokens; round it"),
        ("20000000000000", "is too large to be a price; check its unit"),
    ] {
        let errors = one(&row(&format!(r#""per_million": {{"input": {value}}}"#))).unwrap_err();
        assert_eq!(errors.len(), 1, "{value}");
        assert!(errors[0].starts_with("row 1: per_million.input: \""), "{}", errors[0]);
        if value != "1e300" {
            assert!(errors[0].ends_with(reason), "{}", errors[0]);
        }
    }
}

#[test]
fn classes_units_kinds_and_currencies_that_do_not_exist_are_refused() {
    let errors = one(&row(r#""per_million": {"inputs": 1}, "per_unit": {"seconds": 1}"#)).unwrap_err();
    assert!(
        errors[0]
            .starts_with("row 1: per_million.inputs: unknown token class; use one of: input, input_audio,")
    );
    assert_eq!(
        errors[1],
        "row 1: per_unit.seconds: unknown unit; use one of: images, input_images, \
         medium_search_context, high_search_context, pages, search_units, audio_seconds, audio_minutes"
    );
    refused(
        &row(r#""currency": "USB", "per_million": {"input": 1}"#),
        "row 1: currency: \"USB\" is no ISO 4217 code; write one such as USD, EUR or CNY",
    );
    refused(
        &row(r#""kind": "net", "per_million": {"input": 1}"#),
        "row 1: kind: \"net\" is neither `list` nor `contracted`",
    );
}

#[test]
fn unknown_keys_are_refused_by_name() {
    let error =
        serde_json::from_str::<OverlayFile>(r#"{"rows": [{"provider": "p", "modell": "m"}]}"#).unwrap_err();
    assert!(error.to_string().contains("unknown field `modell`"), "{error}");
}

#[test]
fn names_dates_and_windows_are_checked() {
    let errors =
        one(r#"{"provider": "", "model": "a*b", "region": " eu", "from": "yesterday", "until": "2026-02-30",
            "per_million": {"input": 1}}"#)
        .unwrap_err();
    assert_eq!(
        errors,
        [
            "row 1: provider: \"\" is not usable as a name: it is empty",
            "row 1: model: \"a*b\" is not usable as a name: only a model may have a `*`, and only at its end",
            "row 1: region: \" eu\" is not usable as a name: it begins or ends with a space",
            "row 1: from: \"yesterday\" is no date; write a day such as 2026-01-31, or 2026-01-31T12:00:00Z",
            "row 1: until: \"2026-02-30\" is no date; write a day such as 2026-01-31, or 2026-01-31T12:00:00Z",
        ]
    );
    refused(
        &row(r#""from": "2026-07-01", "until": "2026-07-01", "per_million": {"input": 1}"#),
        "row 1: until: \"2026-07-01\" is not after from \"2026-07-01\": the row would never hold",
    );
}

#[test]
fn a_row_without_a_price_is_refused() {
    refused(
        &row(r#""tier": "flex""#),
        "row 1: it has no price; give per_million, per_request, per_web_search, per_grounded_request, per_unit or discount_percent",
    );
}

#[test]
fn thresholds_need_a_base_price_and_a_number_of_tokens() {
    let errors = one(&row(r#""per_million": {"input": 1}, "above_context": [
            {"tokens": 0, "per_million": {"input": 2}},
            {"tokens": 1000, "per_million": {"input": 2, "output": 3}},
            {"tokens": "1000", "per_million": {"input": 4}}]"#))
    .unwrap_err();
    assert_eq!(
        errors[..2],
        [
            "row 1: above_context.tokens: \"0\" is no whole number of tokens above zero",
            "row 1: above_context.per_million.output: the class has no price up to the threshold; \
             give per_million.output as well",
        ]
    );
    assert_eq!(errors[2], "row 1: above_context: 1000 tokens are given twice: merge the two entries");
}

#[test]
fn discounts_are_percentages_of_contracted_rows_without_prices() {
    for (value, fine) in
        [("0", true), ("100", true), ("12.3456", true), ("-1", false), ("101", false), ("1.23456", false)]
    {
        let made = one(&row(&format!(r#""kind": "contracted", "discount_percent": {value}"#)));
        assert_eq!(made.is_ok(), fine, "{value}");
    }
    let errors = one(&row(r#""discount_percent": 5, "per_request": 1"#)).unwrap_err();
    assert_eq!(
        errors,
        [
            "row 1: discount_percent: it does not go with a list price: \
             a discount makes the contracted price; write kind: contracted",
            "row 1: discount_percent: it does not go with prices in one row: put the prices into a row of their own",
        ]
    );
}

#[test]
fn rows_for_the_same_thing_may_follow_but_not_coincide_or_overlap() {
    let rows = |windows: &[&str]| {
        let rows: Vec<String> = windows
            .iter()
            .map(|w| row(&format!(r#"{w} "per_million": {{"input": 1, "output": 2}}"#)))
            .collect();
        file(&format!(r#"{{"rows": [{}]}}"#, rows.join(",")))
    };
    assert!(rows(&["", r#""from": "2026-01-01","#, r#""from": "2026-02-01","#]).is_ok());
    assert!(rows(&[r#""until": "2026-01-01","#, r#""from": "2026-01-01","#]).is_ok());
    assert!(rows(&["", r#""tier": "batch","#, r#""region": "eu","#, r#""kind": "contracted","#]).is_ok());
    assert_eq!(
        rows(&[r#""from": "2026-01-01","#, "", r#""from": "2026-01-01T00:00:00Z","#]).unwrap_err(),
        [
            "row 3: overlay/p/m/input is also in row 1 from the same instant: remove one, or give it another `from`"
        ]
    );
    assert_eq!(
        rows(&[r#""until": "2026-03-01","#, r#""from": "2026-02-01","#]).unwrap_err(),
        ["row 2: overlay/p/m/input begins at 2026-02-01 but row 1 holds until 2026-03-01: \
          end that row earlier, or begin later"]
    );
}

#[test]
fn all_mistakes_of_all_rows_are_reported_together() {
    let errors = file(
        r#"{"source": "contract 7", "rows": [
            {"provider": "p", "model": "m", "per_million": {"input": -1, "x": 1}},
            {"provider": "p", "model": "n", "currency": "XXQ", "per_request": 1},
            {"provider": "p", "model": "o"}]}"#,
    )
    .unwrap_err();
    let rows: Vec<&str> = errors.iter().map(|error| &error[..5]).collect();
    assert_eq!(rows, ["row 1", "row 1", "row 2", "row 3"]);
}
