//! Files of every system, written by hand after their documentation, and what becomes of them in a ledger.
//!
//! Not here: rows and lines (`read`), commands (`proxy/tests/import_cli.rs`).

use super::*;
use crate::app::Prices;
use bursar_domain::{IdentitySource, Metering, Outcome, SystemClock, TokenClass, UsageRecord, UsageSource};
use bursar_ledger::export::{Classes, CsvWriter, JsonlWriter};
use bursar_ledger::{GroupKey, Options, RecordRange, StoredRecord, UsageQuery};
use bursar_policies::price::PriceBook;
use std::sync::Arc;

fn ledger(dir: &Path) -> Ledger {
    let prices = Arc::new(Prices::new(PriceBook::builtin().unwrap()));
    Ledger::open(Options::new(dir), Arc::new(SystemClock), prices).unwrap().0
}

fn run(ledger: &Ledger, text: &str, asked: &Asked) -> Done {
    import(ledger, Input::Text(text), asked, Mode::Apply, &SystemClock).unwrap()
}

fn clean(ledger: &Ledger, text: &str, asked: &Asked) -> Done {
    let done = run(ledger, text, asked);
    assert_eq!(done.imported.errors, [], "{text}");
    done
}

fn records(ledger: &Ledger) -> Vec<StoredRecord> {
    ledger.records(RecordRange::default()).map(Result::unwrap).collect()
}

fn one(text: &str) -> (UsageRecord, Done) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path());
    let done = clean(&ledger, text, &Asked::default());
    let found = records(&ledger);
    assert_eq!(found.len(), 1, "{:?}", done.imported.left);
    (found[0].record.clone(), done)
}

const LITELLM: &str = r#"[{"request_id":"chatcmpl-A1","call_type":"acompletion","api_key":"88dc","spend":0.00135,
  "total_tokens":1500,"prompt_tokens":1000,"completion_tokens":500,"startTime":"2026-03-02T10:00:00.250000+00:00",
  "endTime":"2026-03-02T10:00:02.250000+00:00","completionStartTime":"2026-03-02T10:00:00.750000+00:00",
  "model":"gpt-4o-mini-2024-07-18","model_group":"fast","custom_llm_provider":"openai","user":"u-1",
  "metadata":{"user_api_key_alias":"support-bot","user_api_key_team_alias":"checkout","status":"success",
    "additional_usage_values":{"prompt_tokens_details":{"cached_tokens":200,"audio_tokens":null},
      "completion_tokens_details":{"reasoning_tokens":100}}},
  "cache_hit":"False","request_tags":["feature:search","vip","User-Agent: x/1"],"team_id":"t-9","end_user":"acme",
  "session_id":"s-1","status":"success"}]"#;

#[test]
fn a_litellm_row_keeps_its_time_is_marked_and_priced_by_our_book() {
    let (record, done) = one(LITELLM);
    assert_eq!((done.format, done.is_detected), (Format::Litellm, true));
    assert_eq!(done.their_cost, BTreeMap::from([("USD".to_owned(), 1_350_000_000)]));
    assert_eq!(record.started_at.micros(), 1_772_445_600_250_000);
    assert_eq!((record.latency_us, record.ttft_us, record.stream), (2_000_000, Some(500_000), true));
    assert_eq!(
        (record.usage_source, record.identity.source),
        (UsageSource::Imported, IdentitySource::Import)
    );
    assert_eq!((record.route.as_str(), record.api.as_str()), ("import/litellm", "litellm-acompletion"));
    let identity = &record.identity;
    let text = |label: &Option<Label>| label.as_ref().map(ToString::to_string);
    assert_eq!(text(&identity.team).as_deref(), Some("checkout"));
    assert_eq!(text(&identity.workload).as_deref(), Some("support-bot"));
    assert_eq!(
        (text(&identity.customer), text(&identity.session)),
        (Some("acme".into()), Some("s-1".into()))
    );
    let tags: Vec<_> = identity.tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(tags, ["feature=search", "litellm_user=u-1", "vip=true"]);
    assert_eq!(text(&record.model_requested).as_deref(), Some("fast"));
    assert_eq!(record.usage.get(TokenClass::CachedRead), Some(200));
    assert_eq!((record.usage.input_total(), record.usage.output_total()), (Some(1_000), Some(500)));
    assert_eq!(record.usage.output_reasoning_total(), Some(100));
    // 800 × 0.15 + 200 × 0.075 + 500 × 0.60 per million; LiteLLM said 0.00135.
    assert_eq!(record.cost.as_ref().unwrap().billed_pico, Some(435_000_000));
    assert_eq!(record.provider_cost, None);
    let raw: Value = serde_json::from_str(record.usage_raw.as_deref().unwrap()).unwrap();
    assert_eq!(
        (&raw["cost"], &raw["imported_from"], &raw["id"]),
        (&"0.00135".into(), &"litellm".into(), &"chatcmpl-A1".into())
    );
}

#[test]
fn litellms_table_as_csv_gives_the_same_ids_as_its_api() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path());
    clean(&ledger, LITELLM, &Asked::default());
    let csv = "request_id,call_type,spend,total_tokens,prompt_tokens,completion_tokens,startTime,endTime,model,\
               custom_llm_provider,metadata,cache_hit,status\n\
               chatcmpl-A1,acompletion,0.00135,1500,1000,500,2026-03-02 10:00:00.25,2026-03-02 10:00:02.25,\
               gpt-4o-mini-2024-07-18,openai,{},False,success\n";
    let again = run(&ledger, csv, &Asked::default());
    let problem = &again.imported.errors[0];
    assert!(problem.line == 2 && problem.problem.contains("other content"), "{problem:?}");
    assert_eq!(records(&ledger).len(), 1);
}

#[test]
fn litellms_cache_answers_are_left_out_and_failures_without_tokens_are_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path());
    let row = |id: &str, more: &str| {
        format!(
            "{{\"request_id\":\"{id}\",\"startTime\":\"2026-03-02T10:00:00Z\",\"spend\":0,\"total_tokens\":0,\
                 \"prompt_tokens\":0,\"completion_tokens\":0,\"model\":\"gpt-4o\"{more}}}\n"
        )
    };
    let text = row("a", ",\"cache_hit\":\"True\"") + &row("b", ",\"status\":\"failure\"") + &row("c", "");
    let done = clean(&ledger, &text, &Asked::default());
    assert_eq!(done.imported.left, BTreeMap::from([("answered from LiteLLM's own cache".to_owned(), 1)]));
    let found = records(&ledger);
    assert_eq!(found.len(), 2);
    assert_eq!(
        (found[0].record.outcome, found[0].record.metering, found[0].counted),
        (Outcome::Error, Metering::Never, false)
    );
    assert!(found.iter().all(|stored| stored.record.usage.is_unknown()));
    assert_eq!(found[1].record.usage_source, UsageSource::Absent);
}

#[test]
fn langfuse_parts_are_beside_each_other_unless_the_total_says_they_are_inside() {
    let row = |details: &str| {
        format!(
            "{{\"data\":[{{\"id\":\"o-1\",\"traceId\":\"t-1\",\"type\":\"GENERATION\",\"name\":\"answer\",\
                 \"startTime\":\"2026-03-02T10:00:00Z\",\"endTime\":\"2026-03-02T10:00:01Z\",\"model\":\"gpt-4o-mini\",\
                 \"usageDetails\":{details},\"costDetails\":{{\"total\":0.5}},\"level\":\"DEFAULT\"}}],\"meta\":{{\"page\":1}}}}"
        )
    };
    let totals = |details: &str| {
        let (record, done) = one(&row(details));
        assert_eq!(done.format, Format::Langfuse);
        assert_eq!(record.provider.as_str(), "openai");
        (
            record.usage.input_total(),
            record.usage.cached_read_total(),
            record.usage.output_total(),
            record.anomalies.is_empty(),
        )
    };
    let beside = r#"{"input":800,"input_cached_tokens":200,"output":500,"total":1500}"#;
    assert_eq!(totals(beside), (Some(1_000), Some(200), Some(500), true));
    let inside = r#"{"input":1000,"input_cached_tokens":200,"output":500,"total":1500}"#;
    assert_eq!(totals(inside), (Some(1_000), Some(200), Some(500), true));
    let odd = r#"{"input":1000,"input_cached_tokens":200,"output":500,"total":9}"#;
    assert_eq!(totals(odd), (Some(1_200), Some(200), Some(500), false));
}

#[test]
fn langfuse_spans_are_left_out_and_options_name_who_pays() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path());
    let csv = "id,traceId,type,startTime,endTime,providedModelName,inputUsage,outputUsage,totalCost,userId\n\
               s,t,SPAN,2026-03-02T09:00:00.000Z,,,,,,\n\
               g,t,GENERATION,2026-03-02T09:00:00.000Z,2026-03-02T09:00:03.000Z,mystery-1,10,20,1.5e-4,acme\n";
    let usual = Usual {
        team: Some(Label::fixed("research")),
        provider: Some(Label::fixed("groq")),
        ..Usual::default()
    };
    let done = clean(&ledger, csv, &Asked { usual, ..Asked::default() });
    assert_eq!(done.imported.left.values().sum::<u64>(), 1);
    assert_eq!(done.their_cost["USD"], 150_000_000);
    let record = &records(&ledger)[0].record;
    assert_eq!(
        (record.provider.as_str(), record.identity.team.as_ref().unwrap().as_str()),
        ("groq", "research")
    );
    assert_eq!(record.cost.as_ref().unwrap().billed_pico, None, "unknown is not zero");
}

#[test]
fn openmeter_events_are_read_bare_and_in_their_envelope_as_the_same_event() {
    let event = r#"{"specversion":"1.0","id":"e-1","source":"/bot","type":"tokens","subject":"acme",
                   "time":"2026-03-02T10:00:00Z","data":{"tokens":"1200","model":"gpt-4o-mini","type":"input"}}"#;
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path());
    let first = clean(&ledger, event, &Asked::default());
    assert_eq!((first.format, first.imported.new_records), (Format::Openmeter, 1));
    let listed =
        format!("[{{\"event\":{event},\"customerId\":\"c\",\"ingestedAt\":\"2026-03-02T10:00:01Z\"}}]");
    assert_eq!(clean(&ledger, &listed, &Asked::default()).imported.same, 1);
    let other = event
        .replace("\"data\":{\"tokens\":\"1200\",", "\"data\":{\"duration\":\"1200\",")
        .replace("e-1", "e-2");
    assert_eq!(clean(&ledger, &other, &Asked::default()).imported.left.len(), 1);
    let odd = event.replace("\"input\"", "\"smell\"").replace("e-1", "e-3");
    assert!(run(&ledger, &odd, &Asked::default()).imported.errors[0].problem.contains("no kind of token"));
    let record = &records(&ledger)[0].record;
    assert_eq!(record.identity.customer.as_ref().unwrap().as_str(), "acme");
    assert_eq!((record.usage.input_total(), record.usage.output_total()), (Some(1_200), None));
}

#[test]
fn a_file_of_nobody_is_refused_with_its_fields() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path());
    let failure = import(
        &ledger,
        Input::Text("colour,shape\nred,round\n"),
        &Asked::default(),
        Mode::Apply,
        &SystemClock,
    );
    let text = failure.unwrap_err().to_string();
    assert!(text.contains("colour, shape") && text.contains("--from-format"), "{text}");
    let failure = import(&ledger, Input::Text(" \n"), &Asked::default(), Mode::Apply, &SystemClock);
    assert!(matches!(failure, Err(UsageFailure::Empty)));
}

/// Records of our own with everything that an export can hold.
fn odd_records() -> String {
    let classes = r#""usage":{"input_tokens":60,"input_cached_read":40,"input_audio":35,"output_tokens":9},"usage_classes":{"input":10,"input_audio":5,"cached_read":10,"cached_audio":30,"cached_image":5,"output":4,"output_reasoning_audio":5}"#;
    let row = |id: u32, more: &str| {
        format!(
            "{{\"id\":\"01999999-0000-7000-8000-00000000000{id}\",\"started_at\":\"2026-03-02T10:0{id}:00.000001Z\",\
                 \"ended_at\":\"2026-03-02T10:0{id}:02.5Z\",\"team\":\"=cmd()\",\"workload\":\"bot\",\"provider\":\"openai\",\
                 \"model_served\":\"gpt-4o-mini\",\"identity_source\":\"header\",{more}}}\n"
        )
    };
    [
        row(1, &format!("{classes},\"usage_source\":\"provider\",\"anomalies\":[\"tag_dropped\",\"total_mismatch\"]")),
        row(2, r#""usage":{"input_tokens":3,"output_tokens":4},"usage_raw":{"a":1.50,"b":[1e3]},"provider_cost":{"amount":"9","currency":"USD"},"usage_source":"tokenizer","counted_by":"o200k""#),
        row(3, r#""usage":{"input_tokens":30},"by_model":[{"model":"gpt-4o","usage":{"input_tokens":10}},{"usage":{"input_tokens":20}}],"usage_raw":"no json""#),
        row(4, r#""usage":{"input_tokens":5},"metering":"once-per-id","meter_id":"run_1""#),
        row(5, r#""usage":{"input_tokens":5},"metering":"once-per-id","meter_id":"run_1""#),
        row(6, r#""outcome":"aborted","stream":true,"http_status":200,"latency_ms":12.5,"ttft_ms":0.25,"trace_id":"0123456789abcdef0123456789abcdef","tags":{"a":"+b"}"#),
    ]
    .concat()
}

fn exported(ledger: &Ledger, csv: bool) -> String {
    let mut jsonl = JsonlWriter::new(Vec::new()).classes(Classes::Omitted);
    let mut table = CsvWriter::new(Vec::new()).unwrap();
    for stored in records(ledger) {
        jsonl.write(&stored).unwrap();
        table.write(&stored).unwrap();
    }
    let bytes = if csv { table.finish().unwrap() } else { jsonl.finish().unwrap() };
    String::from_utf8(bytes).unwrap()
}

/// Everything but the place in the ledger.
fn facts(ledger: &Ledger) -> Vec<Value> {
    let facts = |line: &str| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        ["seq", "ledger"].iter().for_each(|name| drop(row.as_object_mut().unwrap().remove(*name)));
        row
    };
    exported(ledger, false).lines().map(facts).collect()
}

fn report(ledger: &Ledger) -> Vec<bursar_ledger::UsageRow> {
    let by = vec![GroupKey::Team, GroupKey::Model, GroupKey::Outcome, GroupKey::Source, GroupKey::Hour];
    ledger.usage(&UsageQuery { by, ..UsageQuery::default() }).unwrap().rows
}

#[test]
fn what_was_exported_imports_into_a_fresh_ledger_with_the_same_report_and_export() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let first = ledger(dirs[0].path());
    assert_eq!(clean(&first, &odd_records(), &Asked::default()).imported.new_records, 6);
    assert_eq!(records(&first).iter().filter(|stored| stored.counted).count(), 5);
    for (dir, csv) in [(&dirs[1], false), (&dirs[2], true)] {
        let text = exported(&first, csv);
        let other = ledger(dir.path());
        let done = clean(&other, &text, &Asked::default());
        assert_eq!((done.imported.new_records, done.format), (6, Format::Bursar));
        assert_eq!(report(&other), report(&first), "csv: {csv}");
        assert_eq!(facts(&other), facts(&first), "csv: {csv}");
        // Into either ledger again: nothing is new, across a restart too.
        assert_eq!(clean(&other, &text, &Asked::default()).imported.same, 6);
        assert_eq!(clean(&first, &text, &Asked::default()).imported.same, 6);
        other.close().unwrap();
        let other = ledger(dir.path());
        assert_eq!(clean(&other, &text, &Asked::default()).imported.same, 6);
        assert_eq!(records(&other).len(), 6);
    }
}

#[test]
fn one_bad_row_keeps_every_row_out_and_a_time_keeps_out_what_is_beyond() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path());
    let bad = odd_records()
        + "{\"started_at\":\"2026-03-02T10:00:00Z\",\"provider\":\"openai\",\"usage\":{\"input_tokens\":-1}}\n";
    let refused = run(&ledger, &bad, &Asked::default());
    assert_eq!((refused.imported.errors[0].line, refused.imported.written), (7, None));
    assert_eq!(records(&ledger).len(), 0);
    let to = Some(Timestamp::from_micros(1_772_445_780_000_001));
    let done = clean(&ledger, &odd_records(), &Asked { to, ..Asked::default() });
    assert_eq!((done.imported.new_records, &done.imported.left["outside the time asked for"]), (2, &4));
}

#[test]
fn each_import_is_a_fact_before_its_records_and_one_that_changes_nothing_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path());
    clean(&ledger, LITELLM, &Asked { name: Some("spend.json".to_owned()), ..Asked::default() });
    clean(&ledger, LITELLM, &Asked::default());
    let facts = ledger.facts();
    assert_eq!(facts.len(), 1);
    let body: Value = serde_json::from_str(&facts[0].fact.body).unwrap();
    assert_eq!(
        (&body["file"], &body["about"]["format"], &body["written"]),
        (&"spend.json".into(), &"litellm".into(), &1.into())
    );
    assert!(facts[0].sequence < records(&ledger)[0].sequence);
}
