//! Checks the meter against a corpus of recorded exchanges beside the repository, when there is one.
//!
//! The corpus is no part of the project. Without it this test says that it was skipped; the project's
//! own transcripts (`src/usage/transcripts`) cover the same shapes.
//!
//! Not here: passing the bodies through the proxy.

use bursar::usage::{
    Api, Ending, Part, Reading, ReplyContext, ReplyMeter, RequestScan, SessionMeter, api_of, cohere_api_of,
    flavour_of, google_api_of, model_in_path, ollama_api_of,
};
use bursar_domain::ids::Label;
use bursar_domain::time::Timestamp;
use bursar_domain::usage::{Quantity, TokenClass, Usage};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const KEYS: [&str; 25] = [
    "input_tokens",
    "input_cached_read",
    "input_cache_write",
    "input_cache_write_5m",
    "input_cache_write_1h",
    "input_audio",
    "input_image",
    "input_video",
    "input_tool_use",
    "output_tokens",
    "output_reasoning",
    "output_audio",
    "output_image",
    "billed_input_tokens",
    "billed_output_tokens",
    "search_units",
    "images",
    "pages",
    "accepted_prediction",
    "rejected_prediction",
    "web_fetch_requests",
    "audio_seconds",
    "web_search_requests",
    "tool_calls",
    "provider_cost_usd",
];

/// What the corpus itself has wrong, or leaves out though the reply says it: the beginning of a case's name, keys,
/// and why our reading stands. `.ci/grade.py` reads the same list.
fn is_wrong_in_corpus(case: &str, key: &str) -> bool {
    // A list that cannot be read excuses nothing.
    static LIST: LazyLock<Value> =
        LazyLock::new(|| serde_json::from_str(include_str!("wrong_in_corpus.json")).unwrap_or_default());
    let begins = |one: &Value| one["cases"].as_str().is_some_and(|begin| case.starts_with(begin));
    let names = |one: &Value| one["keys"].as_array().into_iter().flatten().any(|named| named == key);
    LIST.as_array().into_iter().flatten().any(|one| begins(one) && names(one))
}

struct Case {
    name: String,
    provider: String,
    method: Method,
    path: String,
    request_body: Option<Vec<u8>>,
    request_type: Option<String>,
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    expected: Value,
}

fn corpus(part: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases/wire").join(part);
    folder.is_dir().then_some(folder)
}

fn json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn cases(folder: &Path) -> Vec<Case> {
    let mut cases: Vec<Case> =
        fs::read_dir(folder).into_iter().flatten().filter_map(|entry| case(&entry.ok()?.path())).collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

fn case(folder: &Path) -> Option<Case> {
    let expected = json(&folder.join("expected.json"))?;
    let request = json(&folder.join("request.json"));
    let meta = json(&folder.join("response.meta.json"))?;
    let body = fs::read(folder.join("response.raw")).ok()?;
    let request = request.unwrap_or_default();
    let mut headers = HeaderMap::new();
    for (name, value) in meta.get("headers").and_then(Value::as_object)? {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_str(value.as_str().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.insert(name, value);
        }
    }
    headers.remove(http::header::CONTENT_ENCODING);
    let request_body = match request.get("body") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone().into_bytes()),
        Some(value) => serde_json::to_vec(value).ok(),
    };
    let default_path = match expected.get("api").and_then(Value::as_str) {
        Some("messages") => "/v1/messages",
        _ => "/v1/chat/completions",
    };
    Some(Case {
        name: folder.file_name()?.to_str()?.to_owned(),
        provider: expected.get("provider")?.as_str()?.to_owned(),
        method: request
            .get("method")
            .and_then(Value::as_str)
            .unwrap_or("POST")
            .parse()
            .unwrap_or(Method::POST),
        path: request.get("path").and_then(Value::as_str).unwrap_or(default_path).to_owned(),
        request_body,
        request_type: request.pointer("/headers/content-type").and_then(Value::as_str).map(ToOwned::to_owned),
        status: u16::try_from(meta.get("status")?.as_u64()?).ok()?,
        headers,
        body,
        expected,
    })
}

/// The API by the dialect of the provider, as a route chooses it.
fn api(case: &Case) -> Api {
    match case.provider.as_str() {
        "cohere" => cohere_api_of(&case.method, &case.path),
        "ollama" => ollama_api_of(&case.method, &case.path),
        "gemini" | "vertex" => google_api_of(&case.method, &case.path),
        _ => api_of(&case.method, &case.path),
    }
}

fn read(case: &Case, chunk: usize, ending: Ending) -> (Api, Reading) {
    let api = api(case);
    let content_type = case.request_type.as_deref();
    let mut scan = RequestScan::new(None).with_type(content_type);
    scan.feed(case.request_body.as_deref().unwrap_or_default());
    let mut facts = scan.facts();
    let path = model_in_path(&case.path).and_then(|model| Label::lossy(&model));
    facts.model = api.requested_model(facts.model.take(), path);
    // The corpus lacks some requests; the framing then is what the corpus says it was.
    let stream = api.is_stream() || facts.stream || case.request_body.is_none();
    let mut meter = ReplyMeter::new(&ReplyContext {
        flavour: flavour_of(&case.provider),
        api,
        status: case.status,
        headers: &case.headers,
        stream_requested: stream,
    });
    for piece in case.body.chunks(chunk.max(1)) {
        meter.feed(piece);
    }
    (api, meter.finish(ending, &facts))
}

fn shown(usage: &Usage, reading: &Reading, key: &str) -> Option<f64> {
    let class = |class| usage.get(class);
    let count = match key {
        "input_tokens" => usage.input_total(),
        "input_cached_read" => usage.cached_read_total(),
        "input_cache_write" => usage.cache_write_total(),
        "input_cache_write_5m" => class(TokenClass::CacheWrite5m),
        "input_cache_write_1h" => class(TokenClass::CacheWrite1h),
        "input_audio" => usage.input_audio_total(),
        "output_tokens" => usage.output_total(),
        "output_reasoning" => usage.output_reasoning_total(),
        "output_audio" => usage.output_audio_total(),
        "web_search_requests" => usage.quantity(Quantity::WebSearchRequests),
        "tool_calls" => usage.quantity(Quantity::ToolCalls),
        "input_image" => usage.input_image_total(),
        "output_image" => class(TokenClass::OutputImage),
        "billed_input_tokens" => usage.quantity(Quantity::BilledInputTokens),
        "billed_output_tokens" => usage.quantity(Quantity::BilledOutputTokens),
        "search_units" => usage.quantity(Quantity::SearchUnits),
        "images" => usage.quantity(Quantity::Images),
        "pages" => usage.quantity(Quantity::Pages),
        "accepted_prediction" => usage.quantity(Quantity::AcceptedPrediction),
        "rejected_prediction" => usage.quantity(Quantity::RejectedPrediction),
        "web_fetch_requests" => usage.quantity(Quantity::WebFetchRequests),
        "input_video" => usage.input_video_total(),
        "input_tool_use" => class(TokenClass::InputToolUse),
        "audio_seconds" => return usage.quantity(Quantity::AudioMillis).map(|ms| ms as f64 / 1e3),
        "provider_cost_usd" => {
            return reading.provider_cost.map(|cost| cost.amount.pico() as f64 / 1e12);
        }
        _ => None,
    };
    count.map(|count| count as f64)
}

/// What is wrong with `reading`, as the corpus grades it.
fn wrong(case: &Case, reading: &Reading, normalized: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let expected = case.expected.get(normalized);
    for key in KEYS {
        // A key that is not there is not stated; `null` says that the provider did not tell, zero that it did.
        let Some(stated) = expected.and_then(|e| e.get(key)).filter(|_| !is_wrong_in_corpus(&case.name, key))
        else {
            continue;
        };
        let wanted = stated.as_f64();
        let got = shown(&reading.usage, reading, key);
        let right = match (wanted, got) {
            (None, None) => true,
            (None, Some(_)) => false,
            (Some(wanted), Some(got)) => (wanted - got).abs() < 1e-9,
            (Some(_), None) => false,
        };
        if !right {
            wrong.push(format!("{key}: wanted {wanted:?}, got {got:?}"));
        }
    }
    let tier = expected.and_then(|e| e.get("service_tier"));
    let read = reading.tier.as_ref().map(Label::as_str);
    let is_right = tier.is_none_or(|tier| tier.as_str() == read);
    if !is_right && !is_wrong_in_corpus(&case.name, "service_tier") {
        wrong.push(format!("service_tier: wanted {tier:?}, got {read:?}"));
    }
    let mut text = |key: &str, got: Option<&str>| {
        let Some(wanted) = case.expected.get(key) else { return };
        if wanted.as_str() != got {
            wrong.push(format!("{key}: wanted {wanted}, got {got:?}"));
        }
    };
    if case.expected.get("outcome").and_then(Value::as_str) != Some("truncated") {
        text("outcome", Some(reading.outcome.name()));
    }
    text("metering", Some(reading.metering.name()));
    if normalized == "normalized" && case.expected.get("meter_id").is_some_and(|id| !id.is_null()) {
        text("meter_id", reading.meter_id.as_ref().map(Label::as_str));
    }
    text("model_served", reading.model_served.as_ref().map(Label::as_str));
    wrong
}

/// Prints a table of what is in scope and returns the cases that are wrong.
fn check(part: &str, normalized: &str, ending: Ending, others: &[Ending]) -> Vec<String> {
    let Some(folder) = corpus(part) else {
        println!("SKIPPED: no recorded corpus beside the repository ({part})");
        return Vec::new();
    };
    let mut table: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let (mut failures, mut outside) = (Vec::new(), 0);
    for case in cases(&folder) {
        let (api, whole) = read(&case, usize::MAX, ending);
        if api == Api::Unmetered {
            outside += 1;
            continue;
        }
        let mut problems = wrong(&case, &whole, normalized);
        for chunk in [1, 2, 3, 17, 700] {
            if read(&case, chunk, ending).1 != whole {
                problems.push(format!("another reading in pieces of {chunk}"));
            }
        }
        for ending in [ending].iter().chain(others) {
            let reading = read(&case, usize::MAX, *ending).1;
            let cut = reading.outcome.name() == "error_midstream";
            if case.expected.get("outcome").and_then(Value::as_str) == Some("truncated") && !cut {
                problems.push(format!("{ending:?}: not marked as cut but {}", reading.outcome));
            }
        }
        let row = table.entry(format!("{} {}", case.provider, api.name())).or_default();
        row.0 += usize::from(problems.is_empty());
        row.1 += usize::from(!problems.is_empty());
        for problem in problems {
            failures.push(format!(
                "{}: {problem} {:?}",
                case.name,
                whole.anomalies.iter().collect::<Vec<_>>()
            ));
        }
    }
    println!("{part}: right, wrong ({outside} cases of other APIs left out)");
    for (row, (right, wrong)) in table {
        println!("{row:44} {right:4} {wrong:4}");
    }
    failures
}

#[test]
fn recorded_exchanges_are_read_as_the_corpus_says() {
    let failures = check("recorded", "normalized", Ending::Complete, &[]);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn cut_streams_give_what_was_known_and_are_marked() {
    let failures = check("cut", "normalized_known_so_far", Ending::Complete, &[Ending::UpstreamCut]);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn authored_exchanges_are_read_as_the_corpus_says() {
    let failures = check("authored", "normalized", Ending::Complete, &[]);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

// === sessions ===

/// `text` as one message, masked with nothing where a client sends it.
fn message(is_client: bool, text: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x81, if is_client { 0xff } else { 0x7f }];
    bytes.extend((text.len() as u64).to_be_bytes());
    bytes.extend(if is_client { &[0; 4][..] } else { &[] });
    bytes.extend(text);
    bytes
}

fn session_parts(case: &Case, chunk: usize) -> Option<Vec<Part>> {
    let api = api_of(&Method::GET, &case.path);
    let request: Value = serde_json::from_slice(case.request_body.as_deref()?).ok()?;
    let mut meter = SessionMeter::new(api, flavour_of(&case.provider), None);
    for sent in request.get("sent_frames")?.as_array()? {
        meter.client_says(&message(true, sent.to_string().as_bytes()));
    }
    let lines = case.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let stream: Vec<u8> = lines.flat_map(|line| message(false, line)).collect();
    let mut parts = Vec::new();
    for piece in stream.chunks(chunk) {
        meter.server_says(piece, Timestamp::from_micros(1));
        parts.extend(std::iter::from_fn(|| meter.next_part()));
    }
    parts.extend(meter.finish(Ending::Complete));
    Some(parts)
}

/// The responses of a session: what has a beginning. Transcriptions have none.
fn responses(parts: &[Part]) -> impl Iterator<Item = &Part> {
    parts.iter().filter(|part| part.started_at.is_some())
}

fn wrong_session(case: &Case, parts: &[Part]) -> Vec<String> {
    let Some(last) = responses(parts).last() else { return vec!["no response".to_owned()] };
    let mut whole = last.reading.clone();
    whole.usage = Usage::unknown();
    responses(parts).for_each(|part| whole.usage.add(&part.reading.usage));
    let mut wrong = wrong(case, &whole, "normalized");
    let seconds = case.expected.pointer("/normalized/audio_seconds").and_then(Value::as_u64);
    let read = whole.usage.quantity(Quantity::AudioMillis).map(|millis| millis / 1_000);
    if seconds != read {
        wrong.push(format!("audio_seconds: wanted {seconds:?}, got {read:?}"));
    }
    let lines = case.expected.get("lines").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let read: Vec<_> = responses(parts)
        .map(|part| (part.reading.usage.input_total(), part.reading.usage.output_total()))
        .collect();
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            let count = |key: &str| line.get("normalized").and_then(|n| n.get(key)).and_then(Value::as_u64);
            (count("input_tokens"), count("output_tokens"))
        })
        .collect();
    if read != told {
        wrong.push(format!("responses: wanted {told:?}, got {read:?}"));
    }
    let heard = case.expected.pointer("/server_tool_items/input_transcriptions").and_then(Value::as_u64);
    if heard.unwrap_or(0) != (parts.len() - read.len()) as u64 {
        wrong.push(format!("transcriptions: wanted {heard:?}"));
    }
    wrong
}

#[test]
fn recorded_sessions_are_read_as_the_corpus_says() {
    let Some(folder) = corpus("recorded") else {
        println!("SKIPPED: no recorded corpus beside the repository (sessions)");
        return;
    };
    let is_session = |case: &Case| case.expected.get("framing").and_then(Value::as_str) == Some("ws-frames");
    let sessions: Vec<Case> = cases(&folder).into_iter().filter(is_session).collect();
    assert!(!sessions.is_empty(), "the corpus has sessions");
    let mut failures = Vec::new();
    for case in &sessions {
        let Some(parts) = session_parts(case, usize::MAX) else {
            failures.push(format!("{}: not readable", case.name));
            continue;
        };
        let mut problems = wrong_session(case, &parts);
        for chunk in [1, 2, 17, 700] {
            if session_parts(case, chunk).as_ref() != Some(&parts) {
                problems.push(format!("another reading in pieces of {chunk}"));
            }
        }
        failures.extend(problems.iter().map(|problem| format!("{}: {problem}", case.name)));
    }
    println!("sessions: {} read", sessions.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
