//! Reproduces the charges that providers sent with recorded replies: our reading of the usage, at the
//! prices of the built-in book, must give what OpenRouter and xAI say they charged.
//!
//! The recordings are no part of the project. Without them this test says that it was skipped; single
//! charges are asserted as constants in `bursar-policies` (`price/tests.rs`, `price/provider_tests.rs`).
//!
//! Not here: whether the usage is read as the corpus says (`recorded_cases.rs`).

use bursar::usage::{
    Api, Ending, Reading, ReplyContext, ReplyMeter, RequestScan, api_of, flavour_of, model_in_path,
};
use bursar_domain::ids::Label;
use bursar_domain::money::format_pico;
use bursar_domain::{Cost, Timestamp};
use bursar_policies::price::{Ask, Gap, PriceBook};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Charges that public prices do not explain, with the reason. Each must still differ, or leave this list. They are
/// part of the hundred of which 97 must be right.
const UNEXPLAINED: &[(&str, &str)] = &[];

/// For replies that do not say when they were made: a day before the price changes of that summer.
const UNDATED: &str = "2026-08-01T00:00:00Z";

struct Case {
    name: String,
    provider: String,
    expected: Value,
    at: Timestamp,
    requested: Option<String>,
    api: Api,
    reading: Reading,
}

fn corpus() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases/wire/recorded");
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
    let request = json(&folder.join("request.json")).unwrap_or_default();
    let meta = json(&folder.join("response.meta.json"))?;
    let body = fs::read(folder.join("response.raw")).ok()?;
    let headers = headers(&meta)?;
    let provider = expected.get("provider")?.as_str()?.to_owned();
    let request_body = match request.get("body") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone().into_bytes()),
        Some(value) => serde_json::to_vec(value).ok(),
    };
    let text = |key: &str| request.get(key).and_then(Value::as_str);
    let method: Method = text("method").unwrap_or("POST").parse().ok()?;
    let path = text("path").unwrap_or("/v1/chat/completions");
    let api = api_of(&method, path);
    let mut scan = RequestScan::new(None);
    scan.feed(request_body.as_deref().unwrap_or_default());
    let mut facts = scan.facts();
    if facts.model.is_none() {
        facts.model = model_in_path(path).and_then(|model| Label::lossy(&model));
    }
    let mut meter = ReplyMeter::new(&ReplyContext {
        flavour: flavour_of(&provider),
        api,
        status: u16::try_from(meta.get("status")?.as_u64()?).ok()?,
        headers: &headers,
        stream_requested: facts.stream || request_body.is_none(),
    });
    meter.feed(&body);
    let reading = meter.finish(Ending::Complete, &facts);
    Some(Case {
        name: folder.file_name()?.to_str()?.to_owned(),
        provider,
        at: made_at(&headers, &body),
        requested: facts.model.map(|model| model.as_str().to_owned()),
        expected,
        api,
        reading,
    })
}

fn headers(meta: &Value) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in meta.get("headers").and_then(Value::as_object)? {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_str(value.as_str().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.insert(name, value);
        }
    }
    headers.remove(http::header::CONTENT_ENCODING);
    Some(headers)
}

/// When the reply was made: by its body, else by its head.
fn made_at(headers: &HeaderMap, body: &[u8]) -> Timestamp {
    let text = String::from_utf8_lossy(body);
    let created = ["\"created\":", "\"created_at\":"].iter().find_map(|key| {
        let rest = text.split_once(key)?.1.trim_start();
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<i64>().ok().filter(|seconds| *seconds > 0)
    });
    let date = headers.get("date").and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
    let undated: jiff::Timestamp = UNDATED.parse().unwrap_or(jiff::Timestamp::MIN);
    let seconds = created.or_else(|| date.map(|date| date.timestamp().as_second()));
    Timestamp::from_micros(seconds.unwrap_or_else(|| undated.as_second()).saturating_mul(1_000_000))
}

fn priced(book: &PriceBook, case: &Case) -> (Cost, Option<Gap>) {
    let reading = &case.reading;
    book.explain(&Ask {
        provider: &case.provider,
        model_served: reading.model_served.as_ref().map(Label::as_str),
        model_requested: case.requested.as_deref(),
        tier: reading.tier.as_ref().map(Label::as_str),
        region: None,
        speed: None,
        at: case.at,
        usage: &reading.usage,
        by_model: &reading.by_model,
    })
}

/// Whether the two amounts are within two per cent of the charge.
fn within_two_per_cent(ours: i128, charge: i128) -> bool {
    (ours - charge).abs() * 50 <= charge.abs()
}

#[test]
fn charges_of_openrouter_and_xai_are_reproduced() {
    let Some(folder) = corpus() else {
        println!("SKIPPED: no recorded corpus beside the repository");
        return;
    };
    let book = PriceBook::builtin().unwrap();
    let (mut right, mut wrong, mut left_out) = (0_usize, Vec::new(), Vec::new());
    for case in cases(&folder) {
        let charged = case.expected["normalized"]["provider_cost_usd"].as_f64().is_some();
        if !charged || !["openrouter", "xai"].contains(&&*case.provider) {
            continue;
        }
        let Some(charge) = case.reading.provider_cost.filter(|_| case.api != Api::Unmetered) else {
            wrong.push(format!("{}: its charge is not read", case.name));
            continue;
        };
        let charge = charge.amount.pico();
        let (cost, gap) = priced(&book, &case);
        let same = cost.list_pico.is_some_and(|list| within_two_per_cent(list, charge));
        let ours = cost.list_pico.map_or_else(|| "no price".to_owned(), format_pico);
        let line = format!(
            "{}: charged {}, ours {ours} ({gap:?}, {:?} of {:?})",
            case.name,
            format_pico(charge),
            case.reading.model_served,
            case.requested
        );
        match (UNEXPLAINED.iter().find(|(name, _)| *name == case.name), same) {
            (Some((_, reason)), false) => left_out.push(format!("{line}: {reason}")),
            (Some(_), true) => wrong.push(format!("{line}: it is explained now; take it off the list")),
            (None, true) => right += 1,
            (None, false) => wrong.push(line),
        }
    }
    println!("{right} charges reproduced, {} not:", wrong.len());
    wrong.iter().for_each(|line| println!("  {line}"));
    println!("known to differ:");
    left_out.iter().for_each(|line| println!("  {line}"));
    let all = right + wrong.len() + left_out.len();
    println!("{right} of {all} charges within two per cent");
    assert!(wrong.is_empty() && right * 100 >= all * 97, "{}", wrong.join("\n"));
    assert!(right >= 20, "{right}");
}

/// Shows which recorded exchanges with usage have no price, by provider. Asserts only that the
/// providers of the built-in book do not lose what they have.
#[test]
fn what_is_metered_at_a_priced_provider_mostly_has_a_price() {
    let Some(folder) = corpus() else {
        println!("SKIPPED: no recorded corpus beside the repository");
        return;
    };
    let book = PriceBook::builtin().unwrap();
    let mut table: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for case in cases(&folder) {
        if case.api == Api::Unmetered || case.reading.usage.is_unknown() {
            continue;
        }
        let (cost, gap) = priced(&book, &case);
        if matches!(gap, Some(Gap::NoUsage | Gap::NoModel)) {
            continue;
        }
        let row = table.entry(case.provider.clone()).or_default();
        if gap.is_none() {
            row.0 += 1;
        } else {
            row.1 += 1;
            println!(
                "  {}: {} ({:?}, {:?} of {:?}, tier {:?})",
                case.name,
                gap.map(|gap| gap.to_string()).unwrap_or_default(),
                cost.status,
                case.reading.model_served,
                case.requested,
                case.reading.tier,
            );
        }
    }
    println!("provider: priced, not");
    for (provider, (priced, not)) in &table {
        println!("{provider:20} {priced:4} {not:4}");
    }
    let (priced, not) = table
        .iter()
        .filter(|(provider, _)| {
            ["openai", "anthropic", "openrouter", "xai", "deepseek", "mistral"].contains(&provider.as_str())
        })
        .fold((0, 0), |sum, (_, row)| (sum.0 + row.0, sum.1 + row.1));
    assert!(priced * 10 >= (priced + not) * 9, "{priced} priced, {not} not");
}
