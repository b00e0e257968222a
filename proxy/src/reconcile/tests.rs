//! Statements of every kind, written by hand after their documentation, and what they come to beside records.
//!
//! Not here: the parts of a gap (`bursar_policies::reconcile`), the command (`proxy/tests/reconcile_cli.rs`).

use super::*;
use crate::imports::Input;
use bursar_domain::event::Anomalies;
use bursar_domain::{
    Cost, CostStatus, Identity, Label, Metering, Outcome, RequestId, Timestamp, TokenClass, UsageRecord,
    UsageSource,
};
use bursar_policies::price::{Ask, PriceBook};
use serde_json::Value;
use std::sync::Arc;

fn statement(text: &str, told: Option<Kind>, provider: Provider) -> Result<Statement, ReadError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, text).unwrap();
    let found = read(Input::Path(&path), told, provider);
    // A text in a request says what a file says.
    let told = read(Input::Text(text), told, provider);
    let lines = |found: &Result<Statement, ReadError>| match found {
        Ok(found) => (found.lines.clone(), String::new()),
        Err(error) => (Vec::new(), error.to_string()),
    };
    assert_eq!(lines(&found), lines(&told));
    found
}

fn lines(text: &str, kind: Kind, provider: Provider) -> Vec<Line> {
    let found = statement(text, None, provider).unwrap();
    assert_eq!(found.kind, kind);
    found.lines
}

fn refused(text: &str, provider: Provider) -> String {
    statement(text, None, provider).unwrap_err().to_string()
}

const OPENAI_USAGE: &str = r#"{"object":"page","data":[
 {"object":"bucket","start_time":1772409600,"end_time":1772496000,"results":[
  {"object":"organization.usage.completions.result","input_tokens":1000000,"output_tokens":200000,
   "input_cached_tokens":400000,"input_audio_tokens":0,"output_audio_tokens":0,"num_model_requests":10,
   "project_id":"proj_a","user_id":null,"api_key_id":null,"model":"gpt-4o-mini-2024-07-18","batch":null,
   "service_tier":null}]},
 {"object":"bucket","start_time":1772496000,"end_time":1772582400,"results":[]}],
 "has_more":false,"next_page":null}"#;

const OPENAI_COSTS: &str = r#"{"object":"page","data":[
 {"object":"bucket","start_time":1772409600,"end_time":1772496000,"results":[
  {"object":"organization.costs.result","amount":{"value":0.12,"currency":"usd"},
   "line_item":"gpt-4o-mini-2024-07-18, input","project_id":"proj_a"},
  {"object":"organization.costs.result","amount":{"value":0.12,"currency":"usd"},
   "line_item":"gpt-4o-mini-2024-07-18, output","project_id":"proj_a"},
  {"object":"organization.costs.result","amount":{"value":0.03,"currency":"usd"},
   "line_item":"web search tool calls","project_id":null}]}],
 "has_more":false,"next_page":null}"#;

fn tokens(line: &Line) -> (Option<u64>, Option<u64>, Option<u64>) {
    let usage = line.usage.unwrap();
    (usage.input_total(), usage.cached_read_total(), usage.output_total())
}

#[test]
fn openais_buckets_are_days_of_models_and_projects() {
    let usage = lines(OPENAI_USAGE, Kind::OpenaiUsage, Provider::Openai);
    assert_eq!(usage.len(), 1);
    assert_eq!((usage[0].day.to_string().as_str(), usage[0].requests), ("2026-03-02", Some(10)));
    assert_eq!(tokens(&usage[0]), (Some(1_000_000), Some(400_000), Some(200_000)));
    let costs = lines(OPENAI_COSTS, Kind::OpenaiCosts, Provider::Openai);
    assert_eq!(costs.iter().map(|line| line.cost.unwrap().1).sum::<i128>(), 270_000_000_000);
    assert_eq!(
        (costs[0].model.as_deref(), costs[2].model.as_deref()),
        (Some("gpt-4o-mini-2024-07-18"), None)
    );
    assert_eq!(costs[0].rounding, 5_000_000_000, "half a cent");
}

#[test]
fn anthropics_amounts_are_cents_and_its_counts_beside_each_other() {
    let usage = r#"{"data":[{"starting_at":"2026-03-02T00:00:00Z","ending_at":"2026-03-03T00:00:00Z","results":[
      {"uncached_input_tokens":1500,"cache_creation":{"ephemeral_1h_input_tokens":1000,"ephemeral_5m_input_tokens":500},
       "cache_read_input_tokens":200,"output_tokens":500,"server_tool_use":{"web_search_requests":10},
       "api_key_id":null,"workspace_id":"wrkspc_1","model":"claude-sonnet-4-5-20250929","service_tier":"standard",
       "context_window":"0-200k"}]}],"has_more":false,"next_page":null}"#;
    let found = lines(usage, Kind::AnthropicUsage, Provider::Anthropic);
    assert_eq!(tokens(&found[0]), (Some(3_200), Some(200), Some(500)));
    assert_eq!(found[0].usage.unwrap().get(TokenClass::CacheWrite1h), Some(1_000));
    let cost = r#"{"data":[{"starting_at":"2026-03-02T00:00:00Z","ending_at":"2026-03-03T00:00:00Z","results":[
      {"currency":"USD","amount":"123.78912","workspace_id":null,"description":"Claude Sonnet 4.5 Usage - Input Tokens",
       "cost_type":"tokens","context_window":"0-200k","model":"claude-sonnet-4-5-20250929","service_tier":"standard",
       "token_type":"uncached_input_tokens"}]}],"has_more":false}"#;
    let found = lines(cost, Kind::AnthropicCost, Provider::Anthropic);
    assert_eq!(found[0].cost.unwrap().1, 1_237_891_200_000);
}

#[test]
fn azures_meters_are_tokens_by_their_units_and_other_services_are_left_out() {
    let csv = "Date,MeterCategory,MeterSubCategory,MeterName,Quantity,UnitOfMeasure,CostInBillingCurrency,BillingCurrency,ResourceId\n\
               03/02/2026,Cognitive Services,Azure OpenAI,gpt 4o mini 0718 Inp glbl Tokens,1200.5,1K,0.18,USD,/subscriptions/x/accounts/bot\n\
               03/02/2026,Cognitive Services,Azure OpenAI,gpt 4o mini 0718 Outp glbl Tokens,100,1K,0.06,USD,/subscriptions/x/accounts/bot\n\
               03/02/2026,Storage,Blob,LRS Data Stored,1,1 GB,9,USD,/x\n";
    let found = lines(csv, Kind::AzureCost, Provider::Azure);
    assert_eq!(found.len(), 2);
    assert_eq!(tokens(&found[0]), (Some(1_200_500), None, None));
    assert_eq!((found[1].project.as_deref(), tokens(&found[1]).2), (Some("bot"), Some(100_000)));
}

#[test]
fn awss_report_tells_bedrock_alone_and_units_that_are_no_tokens_stay_unknown() {
    let csv = "line_item_product_code,line_item_usage_start_date,line_item_line_item_type,line_item_usage_type,line_item_usage_amount,pricing_unit,line_item_unblended_cost,line_item_currency_code,line_item_usage_account_id\n\
               AmazonBedrock,2026-03-02T00:00:00.000Z,Usage,USE1-NovaLite-input-tokens,12.5,1K tokens,0.00075,USD,1234\n\
               AmazonBedrock,2026-03-02T00:00:00.000Z,Usage,USE1-NovaLite-output-tokens,3,Units,0.00072,USD,1234\n\
               AmazonBedrock,2026-03-02T00:00:00.000Z,Tax,,,,0.1,USD,1234\n\
               AmazonEC2,2026-03-02T00:00:00.000Z,Usage,BoxUsage:t3.micro,1,Hrs,0.01,USD,1234\n";
    let found = lines(csv, Kind::AwsCur2, Provider::Aws);
    assert_eq!(found.len(), 2);
    assert_eq!((tokens(&found[0]).0, found[1].usage), (Some(12_500), None));
    assert_eq!(found[0].model.as_deref(), Some("NovaLite-input-tokens"));
}

#[test]
fn focus_is_read_for_whoever_is_asked_about() {
    let csv = "BilledCost,BillingCurrency,ChargePeriodStart,ChargeCategory,ServiceName,SkuMeter,ConsumedQuantity,ConsumedUnit,SkuPriceDetails\n\
               0.15,USD,2026-03-02T00:00:00Z,Usage,Amazon Bedrock,USE1-NovaLite-input-tokens,2500,1K Tokens,\"{\"\"x_ModelId\"\":\"\"amazon.nova-lite-v1:0\"\"}\"\n\
               9,USD,2026-03-02T00:00:00Z,Usage,Amazon EC2,Box,1,Hours,\n\
               100,USD,2026-03-02T00:00:00Z,Purchase,Amazon Bedrock,Commitment,1,Units,\n";
    let found = lines(csv, Kind::Focus, Provider::Aws);
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].model.as_deref(), tokens(&found[0]).0),
        (Some("amazon.nova-lite-v1:0"), Some(2_500_000))
    );
    assert_eq!(lines(csv, Kind::Focus, Provider::Openai), []);
}

#[test]
fn openrouters_activity_is_read_by_day_and_by_generation() {
    let json = r#"{"data":[{"date":"2026-03-02","model":"openai/gpt-4.1","model_permaslug":"openai/gpt-4.1-2025-04-14",
      "endpoint_id":"e","provider_name":"OpenAI","usage":0.015,"byok_usage_inference":0.012,"requests":5,
      "prompt_tokens":50,"completion_tokens":125,"reasoning_tokens":25}]}"#;
    let found = lines(json, Kind::OpenrouterActivity, Provider::Openrouter);
    assert_eq!((found[0].requests, tokens(&found[0])), (Some(5), (Some(50), None, Some(125))));
    let csv = "generation_id,created_at,cost_total,tokens_prompt,tokens_completion,tokens_reasoning,tokens_cached,model_permaslug,provider_name\n\
               gen-1,2026-03-02 03:46:57.713,0.0123,10389,137,0,389,openai/gpt-4.1-2025-04-14,OpenAI\n";
    let found = lines(csv, Kind::OpenrouterGenerations, Provider::Openrouter);
    assert_eq!(tokens(&found[0]), (Some(10_389), Some(389), Some(137)));
    assert_eq!(found[0].cost.unwrap().1, 12_300_000_000);
}

#[test]
fn what_is_something_else_is_refused_by_name() {
    let images = OPENAI_USAGE
        .replace("organization.usage.completions.result", "organization.usage.vector_stores.result");
    let text = refused(&images, Provider::Openai);
    assert!(
        text.contains("organization.usage.vector_stores.result") && text.contains("openai-costs"),
        "{text}"
    );
    let text = refused(OPENAI_COSTS, Provider::Anthropic);
    assert!(text.contains("openai-costs") && text.contains("Anthropic"), "{text}");
    let text = refused(&OPENAI_COSTS.replace("\"has_more\":false", "\"has_more\": true"), Provider::Openai);
    assert!(text.contains("more pages") || text.contains("there are more"), "{text}");
    let text = refused(&format!("{OPENAI_COSTS}\n{OPENAI_COSTS}"), Provider::Openai);
    assert!(text.contains("is a page in the file twice"), "{text}");
    let text = refused(&OPENAI_COSTS.replace("1772496000", "1779999999"), Provider::Openai);
    assert!(text.contains("longer than a day"), "{text}");
    let text =
        refused(&OPENAI_USAGE.replace("\"input_tokens\":1000000", "\"input_tokens\":1"), Provider::Openai);
    assert!(text.contains("line 2: input_cached_tokens is more than input_tokens"), "{text}");
    assert!(refused("a,b\n1,2\n", Provider::Azure).contains("fields a, b"));
    assert!(refused(" ", Provider::Azure).contains("no row"));
}

// === beside records

fn record(book: &PriceBook, model: &str, usage: &[(TokenClass, u64)], source: UsageSource) -> UsageRecord {
    let at = Timestamp::from_micros(1_772_445_600_000_000);
    let mut counts = bursar_domain::Usage::unknown();
    usage.iter().for_each(|(class, count)| counts.set(*class, *count));
    let mut record = UsageRecord {
        id: RequestId::new(at, 1),
        started_at: at,
        ended_at: at,
        identity: Arc::new(Identity::unallocated()),
        route: Label::fixed("/openai"),
        provider: Label::fixed("openai"),
        api: Label::fixed("openai-chat"),
        model_requested: None,
        model_served: Label::new(model).ok(),
        tier: None,
        region: None,
        stream: false,
        http_status: Some(200),
        outcome: Outcome::Ok,
        metering: Metering::Count,
        usage: counts,
        usage_source: source,
        counted_by: None,
        by_model: Vec::new(),
        usage_raw: None,
        provider_cost: None,
        cost: None,
        upstream_request_id: None,
        meter_id: None,
        trace_id: None,
        latency_us: 0,
        ttft_us: None,
        bytes_in: 0,
        bytes_out: 0,
        anomalies: Anomalies::default(),
    };
    let cost: Cost = book.price(&Ask {
        provider: "openai",
        model_served: Some(model),
        model_requested: None,
        tier: None,
        region: None,
        speed: None,
        at,
        usage: &record.usage,
        by_model: &[],
    });
    assert_eq!(cost.status == CostStatus::Priced, model.starts_with("gpt"), "{cost:?}");
    record.cost = Some(cost);
    record
}

fn document(statements: &[&str], records: &[UsageRecord], book: &PriceBook, tolerance: &str) -> Value {
    let statements: Vec<(String, Statement)> = statements
        .iter()
        .map(|text| ("file".to_owned(), statement(text, None, Provider::Openai).unwrap()))
        .collect();
    let mut books = Books::new(Provider::Openai, vec![Side::Day, Side::Model], (None, None), book);
    books.take(&statements).unwrap();
    records.iter().for_each(|record| books.record(record).unwrap());
    books.document(tolerance, Timestamp::from_micros(0)).unwrap()
}

use TokenClass::{CachedRead, InputFresh, OutputText};

#[test]
fn usage_and_costs_that_agree_leave_only_what_no_call_caused() {
    let book = PriceBook::builtin().unwrap();
    // 0.6 M × 0.15 + 0.4 M × 0.075 + 0.2 M × 0.60 = 0.24.
    let usage = [(InputFresh, 60_000), (CachedRead, 40_000), (OutputText, 20_000)];
    let records: Vec<UsageRecord> =
        (0..10).map(|_| record(&book, "gpt-4o-mini", &usage, UsageSource::Provider)).collect();
    let found = document(&[OPENAI_USAGE, OPENAI_COSTS], &records, &book, "0");
    let rows = found["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{found:#}");
    assert_eq!(found["total"]["theirs"]["cost"], "0.27");
    assert_eq!(found["total"]["ours"]["billed"], "0.24");
    assert_eq!(found["total"]["money"]["outside"], "0.03", "{found:#}");
    assert_eq!(found["total"]["tokens"]["gap"], 0);
    assert_eq!((&found["within_tolerance"], &found["unexplained"]["money"]), (&true.into(), &"0".into()));
}

#[test]
fn a_call_without_a_price_is_named_and_missing_ones_are_outside() {
    let book = PriceBook::builtin().unwrap();
    let usage = [(InputFresh, 60_000), (CachedRead, 40_000), (OutputText, 20_000)];
    let mut records: Vec<UsageRecord> =
        (0..8).map(|_| record(&book, "gpt-4o-mini", &usage, UsageSource::Provider)).collect();
    // One that had no price when it was recorded.
    let mut unpriced = record(&book, "gpt-4o-mini", &usage, UsageSource::Provider);
    unpriced.cost = Some(Cost::unpriced(bursar_domain::Currency::USD));
    records.push(unpriced);
    let found = document(&[OPENAI_USAGE, OPENAI_COSTS], &records, &book, "1%");
    let model =
        &found["rows"].as_array().unwrap().iter().find(|row| row["model"] == "gpt-4o-mini").unwrap()["money"];
    assert_eq!(
        (&model["gap"], &model["unpriced"], &model["outside"]),
        (&"0.048".into(), &"0.024".into(), &"0.024".into())
    );
    assert_eq!(
        found["rows"][0]["tokens"]["gap"].as_i64().unwrap()
            + found["rows"][1]["tokens"]["gap"].as_i64().unwrap(),
        120_000
    );
}

#[test]
fn costs_without_models_stand_against_whole_days_and_what_they_leave_out_is_unexplained() {
    let book = PriceBook::builtin().unwrap();
    let costs = OPENAI_COSTS
        .replace("\"gpt-4o-mini-2024-07-18, input\"", "null")
        .replace("\"gpt-4o-mini-2024-07-18, output\"", "null");
    let usage = [(InputFresh, 1_000_000), (OutputText, 0)];
    let records = [
        record(&book, "gpt-4o-mini", &usage, UsageSource::Provider),
        record(&book, "gpt-4o", &usage, UsageSource::Provider),
    ];
    let found = document(&[&costs], &records, &book, "1%");
    assert_eq!(found["rows"].as_array().unwrap().len(), 1);
    assert!(found["notes"][0].as_str().unwrap().contains("by model"), "{found:#}");
    assert_eq!(found["total"]["money"]["unexplained"], "-2.38");
    assert_eq!(found["within_tolerance"], false);
}
