//! Checks the meter against a corpus of recorded exchanges beside the repository, when there is one.
//!
//! The corpus is no part of the project. Without it this test says that it was skipped; the project's
//! own transcripts (`src/usage/transcripts`) cover the same shapes.
//!
//! Not here: passing the bodies through the proxy.

use bursar::usage::{
    Api, Ending, Reading, ReplyContext, ReplyMeter, RequestScan, api_of, flavour_of, model_in_path,
};
use bursar_domain::ids::Label;
use bursar_domain::usage::{Quantity, TokenClass, Usage};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const KEYS: [&str; 12] = [
    "input_tokens",
    "input_cached_read",
    "input_cache_write",
    "input_cache_write_5m",
    "input_cache_write_1h",
    "input_audio",
    "output_tokens",
    "output_reasoning",
    "output_audio",
    "web_search_requests",
    "tool_calls",
    "provider_cost_usd",
];

struct Case {
    name: String,
    provider: String,
    method: Method,
    path: String,
    request_body: Option<Vec<u8>>,
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
        status: u16::try_from(meta.get("status")?.as_u64()?).ok()?,
        headers,
        body,
        expected,
    })
}

fn read(case: &Case, chunk: usize, ending: Ending) -> (Api, Reading) {
    let api = api_of(&case.method, &case.path);
    let mut scan = RequestScan::new(None);
    scan.feed(case.request_body.as_deref().unwrap_or_default());
    let mut facts = scan.facts();
    if facts.model.is_none() {
        facts.model = model_in_path(&case.path).and_then(|model| Label::lossy(&model));
    }
    // The corpus lacks some requests; the framing then is what the corpus says it was.
    let stream = facts.stream || case.request_body.is_none();
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
        let wanted = expected.and_then(|e| e.get(key)).and_then(Value::as_f64);
        let got = shown(&reading.usage, reading, key);
        let right = match (wanted, got) {
            (None, None) => true,
            (None, Some(got)) => got == 0.0,
            (Some(wanted), Some(got)) => (wanted - got).abs() < 1e-9,
            (Some(_), None) => false,
        };
        if !right {
            wrong.push(format!("{key}: wanted {wanted:?}, got {got:?}"));
        }
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
