//! Exports: names, order, exact numbers, safe cells.

use super::*;
use crate::codec::tests::{name, plain_record, test_price};
use crate::journal::read::StoredRecord;
use bursar_domain::{
    Anomaly, Currency, Identity, LedgerId, Metering, ModelUsage, Money, ProviderCost, Quantity, Tags,
    TokenClass, Usage,
};
use std::sync::Arc;

fn stored() -> StoredRecord {
    let mut record = plain_record(1);
    record.cost = Some(test_price(&record));
    StoredRecord { ledger: LedgerId::from_bits(5), sequence: 9, record, counted: true }
}

fn json(stored: &StoredRecord) -> serde_json::Value {
    serde_json::from_str(&record_json(stored).unwrap()).unwrap()
}

#[test]
fn a_json_row_has_the_published_names_in_their_order() {
    let expected = concat!(
        r#"{"id":"019b76da-abe8-7004-9e37-79b97f4a7c15","seq":9,"ledger":"00000000-0000-0000-0000-000000000005","#,
        r#""started_at":"2026-01-01T00:00:01.000000Z","ended_at":"2026-01-01T00:00:02.234567Z","#,
        r#""team":"search","workload":"bot","identity_source":"config","route":"/openai","provider":"openai","#,
        r#""api":"openai-chat","model_requested":"gpt-5","model_served":"gpt-5-2025-08-07","stream":false,"#,
        r#""http_status":200,"outcome":"ok","metering":"count","#,
        r#""usage":{"input_tokens":121,"input_cached_read":20,"output_tokens":30},"usage_source":"provider","#,
        r#""cost":{"currency":"USD","list":"0.00018875","contracted":"0.000094375","billed":"0.000094375","#,
        r#""status":"priced","price_rows":["openai/gpt-5/2025"]},"upstream_request_id":"req_abc","#,
        r#""latency_ms":1234.567,"ttft_ms":234.567,"bytes_in":1000,"bytes_out":2000}"#,
    );
    let line = record_json(&stored()).unwrap();
    assert_eq!(line.split_once("\"seq\"").unwrap().1, expected.split_once("\"seq\"").unwrap().1);
    assert_eq!(json(&stored())["id"], stored().record.id.to_string());
}

#[test]
fn totals_hold_every_class_that_belongs_to_them() {
    let mut row = stored();
    row.record.usage = Usage::unknown();
    for (index, class) in TokenClass::ALL.iter().enumerate() {
        row.record.usage.set(*class, 1 << index);
    }
    for (index, quantity) in Quantity::ALL.iter().enumerate() {
        row.record.usage.set_quantity(*quantity, 10 + index as u64);
    }
    row.record.usage.set_quantity(Quantity::AudioMillis, 2_500);
    let usage = &json(&row)["usage"];
    let check = |key: &str, expected: serde_json::Value| assert_eq!(usage[key], expected, "{key}");
    check("input_tokens", (0b0000_0111_1111_1111 + (1 << 17)).into());
    check("input_cached_read", (0b1110_0000 + (1 << 17)).into());
    check("input_cache_write", 0b1111_0000_0000.into());
    check("input_cache_write_5m", (1 << 9).into());
    check("input_cache_write_1h", (1 << 10).into());
    check("input_audio", (2 + 64).into());
    check("input_image", (4 + 128).into());
    check("input_video", (8 + (1 << 17)).into());
    check("input_tool_use", 16.into());
    check("output_tokens", 0b1_1111_0000_0000_0000.into());
    check("output_reasoning", ((1 << 13) + (1 << 16)).into());
    check("output_audio", ((1 << 14) + (1 << 16)).into());
    check("audio_seconds", serde_json::json!(2.5));
    check("web_search_requests", 12.into());
    check("rejected_prediction", 20.into());
    check("input_images", 21.into());
    check("high_search_context", 23.into());
    row.record.usage.set_quantity(Quantity::AudioMillis, 61_000);
    assert_eq!(json(&row)["usage"]["audio_seconds"], 61);
    row.record.usage.set_quantity(Quantity::AudioMillis, 0);
    assert_eq!(json(&row)["usage"]["audio_seconds"], 0);
}

#[test]
fn a_raw_usage_object_stays_json_on_one_line_and_other_text_stays_text() {
    let mut row = stored();
    row.record.usage_raw =
        Some(Arc::from("{\n  \"big\": 123456789012345678901234567890,\r\n \"s\":\"a\\nb\"}"));
    let line = record_json(&row).unwrap();
    assert!(!line.contains(['\n', '\r']));
    assert!(line.contains("123456789012345678901234567890"));
    assert_eq!(json(&row)["usage_raw"]["s"], "a\nb");
    row.record.usage_raw = Some(Arc::from("{not json\n"));
    assert_eq!(json(&row)["usage_raw"], "{not json\n");
    row.record.usage_raw = Some(Arc::from("[".repeat(100_000)));
    assert_eq!(json(&row)["usage_raw"], "[".repeat(100_000));
}

#[test]
fn a_provider_charge_is_an_exact_json_number() {
    let mut row = stored();
    row.record.provider_cost =
        Some(ProviderCost { amount: Money::parse(Currency::USD, "0.000000000001").unwrap() });
    assert!(
        record_json(&row).unwrap().contains(r#""provider_cost":{"amount":0.000000000001,"currency":"USD"}"#)
    );
}

fn csv_of(rows: &[StoredRecord]) -> (String, Vec<::csv::StringRecord>) {
    let mut writer = CsvWriter::new(Vec::new()).unwrap();
    rows.iter().for_each(|row| writer.write(row).unwrap());
    let text = String::from_utf8(writer.finish().unwrap()).unwrap();
    let mut reader = ::csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    let records = reader.records().map(Result::unwrap).collect();
    (text, records)
}

#[test]
fn a_csv_has_its_header_even_without_rows_and_cells_under_their_names() {
    let (text, rows) = csv_of(&[]);
    assert_eq!(rows.len(), 1);
    assert!(text.starts_with("id,seq,ledger,started_at,") && text.ends_with("anomalies,usage_classes\n"));
    let mut row = stored();
    row.record.anomalies.insert(Anomaly::TotalMismatch);
    row.record.by_model = vec![ModelUsage { model: Some(name("m")), usage: row.record.usage }];
    let (text, rows) = csv_of(&[row]);
    assert!(!text.contains('\r'));
    let cell = |wanted: &str| {
        let at = rows[0].iter().position(|title| title == wanted).unwrap();
        rows[1].get(at).unwrap().to_owned()
    };
    assert_eq!(cell("usage.input_tokens"), "121");
    assert_eq!(cell("usage.pages"), "");
    assert_eq!(cell("cost.list"), "0.00018875");
    assert_eq!(cell("cost.price_rows"), r#"["openai/gpt-5/2025"]"#);
    assert_eq!(cell("latency_ms"), "1234.567");
    assert_eq!(cell("stream"), "false");
    assert_eq!(cell("anomalies"), r#"["total_mismatch"]"#);
    assert_eq!(
        cell("by_model"),
        r#"[{"model":"m","usage":{"input_tokens":121,"input_cached_read":20,"output_tokens":30}}]"#
    );
    assert_eq!(cell("customer"), "");
}

#[test]
fn no_text_becomes_a_formula_and_negative_numbers_stay_numbers() {
    for bad in ["=1+1", "+x", "-x", "@sum", "＝a", "＋a", "－a", "＠a", "a,\"b\""] {
        let mut row = stored();
        let mut tags = Tags::default();
        tags.insert(name("k"), name(bad));
        row.record.identity = Arc::new(Identity { team: Some(name(bad)), tags, ..Identity::unallocated() });
        row.record.usage_raw = Some(Arc::from("\t=1"));
        row.record.provider_cost = Some(ProviderCost { amount: Money::from_pico(Currency::USD, -1) });
        let (_, rows) = csv_of(&[row]);
        let cells: Vec<&str> = rows[1].iter().collect();
        let formulas = cells
            .iter()
            .filter(|cell| cell.starts_with(['=', '+', '-', '@', '\t', '\r', '＝', '＋', '－', '＠']));
        assert_eq!(formulas.collect::<Vec<_>>(), vec![&"-0.000000000001"]);
        let expected = if bad.starts_with('a') { bad.to_owned() } else { format!("'{bad}") };
        assert_eq!(cells[5], expected);
    }
}

#[test]
fn what_does_not_count_still_is_a_row() {
    let mut row = stored();
    row.record.metering = Metering::Never;
    row.record.cost = None;
    row.record.usage = Usage::unknown();
    let value = json(&row);
    assert_eq!(value["metering"], "never");
    assert_eq!(value["usage"], serde_json::json!({}));
    assert!(value.get("cost").is_none());
}
