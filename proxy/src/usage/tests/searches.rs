//! What counts as a web search, which has a fee: of what a search tool did, of a stream that was cut, and of models
//! that search for every call.

use super::*;

const RESPONSES: &str = "/v1/responses";
const CHAT: &str = "/v1/chat/completions";

/// A response with these items in its output.
fn response(items: &str) -> String {
    format!(
        r#"{{"id":"resp_1","object":"response","status":"completed","model":"made-up","output":[{items}],"usage":{{"input_tokens":9,"output_tokens":3,"total_tokens":12}}}}"#
    )
}

const SEARCH: &str = r#"{"id":"ws_1","type":"web_search_call","status":"completed","action":{"type":"search","query":"a","sources":[{"type":"url"}]}}"#;
const OPEN: &str = r#"{"action":{"url":"https://example.org","type":"open_page"},"id":"ws_2","type":"web_search_call","status":"completed"}"#;
const FIND: &str = r#"{"id":"ws_3","type":"web_search_call","status":"completed","action":{"type":"find_in_page","pattern":"b"}}"#;
const OLD: &str = r#"{"id":"ws_4","type":"web_search_call","status":"completed"}"#;
const MESSAGE: &str =
    r#"{"id":"msg_1","type":"message","content":[{"type":"output_text","text":"web_search_call"}]}"#;

fn searches(reading: &Reading) -> Option<u64> {
    quantity(reading, Q::WebSearchRequests)
}

fn check_items(items: &[&str], expected: Option<u64>) {
    let body = response(&items.join(","));
    let reading = Exchange::new("openai", RESPONSES, JSON, body.as_bytes()).reading();
    assert_eq!(searches(&reading), expected, "{items:?}");
    let line = format!("{{\"id\":\"q\",\"response\":{{\"status_code\":200,\"body\":{body}}}}}\n");
    let file = Exchange::new("openai", "/v1/files/f/content", "", line.as_bytes()).method(Method::GET);
    assert_eq!(searches(&file.reading()), expected, "in a batch: {items:?}");
}

#[test]
fn only_what_searched_is_a_search_and_not_what_opened_or_looked_through_a_page() {
    check_items(&[], None);
    check_items(&[MESSAGE], None);
    check_items(&[SEARCH, MESSAGE], Some(1));
    check_items(&[SEARCH, OPEN, FIND, SEARCH, OPEN, MESSAGE], Some(2));
    check_items(&[OPEN, FIND, MESSAGE], None);
    check_items(&[OLD, OPEN, MESSAGE], Some(1));
}

fn event(kind: &str, item: &str) -> String {
    format!("event: {kind}\ndata: {{\"type\":\"{kind}\",\"output_index\":0,\"item\":{item}}}\n\n")
}

fn begun(item: &str) -> String {
    let (id, _) = item.split_once("\"status\"").unwrap();
    let id = id.replace(r#""action":{"url":"https://example.org","type":"open_page"},"#, "");
    event("response.output_item.added", &format!("{id}\"status\":\"in_progress\"}}"))
}

fn ended(item: &str) -> String {
    event("response.output_item.done", item)
}

const CREATED: &str = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"model\":\"made-up\",\"status\":\"in_progress\",\"output\":[]}}\n\n";

fn check_cut(events: &[String], expected: Option<u64>) {
    let body = format!("{CREATED}{}", events.concat());
    let exchange = Exchange::new("openai", RESPONSES, SSE, body.as_bytes());
    for ending in [Ending::UpstreamCut, Ending::ClientAbort] {
        let reading = exchange.read([body.as_bytes()], ending);
        assert_eq!(searches(&reading), expected, "{body}");
        let source = if expected.is_some() { UsageSource::ProviderPartial } else { UsageSource::Absent };
        assert_eq!((reading.usage_source, reading.metering), (source, Metering::Count));
        let pieces = exchange.read(body.as_bytes().chunks(3), ending);
        assert_eq!(pieces, reading);
    }
}

#[test]
fn a_cut_stream_keeps_the_searches_that_passed() {
    check_cut(&[], None);
    check_cut(&[begun(SEARCH), ended(SEARCH)], Some(1));
    check_cut(&[begun(SEARCH), ended(SEARCH), begun(OPEN), ended(OPEN)], Some(1));
    // It searches, or has not said yet what it does.
    check_cut(&[begun(SEARCH), ended(SEARCH), begun(SEARCH)], Some(2));
    check_cut(&[begun(MESSAGE.replace("\"content\"", "\"status\":1,\"content\"").as_str())], None);
}

#[test]
fn a_whole_stream_counts_each_search_once_though_its_end_repeats_them() {
    let passed = [begun(SEARCH), ended(SEARCH), begun(OPEN), ended(OPEN)].concat();
    for (output, expected) in [(format!("{SEARCH},{OPEN},{MESSAGE}"), 1), (String::new(), 1)] {
        let last = response(&output);
        let body = format!(
            "{CREATED}{passed}event: response.completed\ndata: {{\"type\":\"response.completed\",\"response\":{last}}}\n\n"
        );
        let reading = Exchange::new("openai", RESPONSES, SSE, body.as_bytes()).sliced();
        assert_eq!((searches(&reading), reading.outcome), (Some(expected), Outcome::Ok));
    }
}

#[test]
fn what_the_provider_counted_goes_before_what_its_items_say() {
    let body = response(&format!("{SEARCH},{OPEN}")).replace(
        "\"total_tokens\":12",
        "\"total_tokens\":12,\"server_side_tool_usage_details\":{\"web_search_calls\":2}",
    );
    assert_eq!(searches(&Exchange::new("xai", RESPONSES, JSON, body.as_bytes()).reading()), Some(2));
}

/// A chat completion of `model`.
fn chat(provider: &'static str, model: &str) -> Exchange {
    let body = format!(
        r#"{{"id":"c","object":"chat.completion","model":"{model}","choices":[{{"index":0,"message":{{"content":"x"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}}}"#
    );
    Exchange::new(provider, CHAT, JSON, body.as_bytes())
}

#[test]
fn a_chat_with_a_model_that_always_searches_is_one_search() {
    for model in ["gpt-4o-search-preview", "gpt-4o-mini-search-preview-2025-03-11", "gpt-5-search-api"] {
        assert_eq!(searches(&chat("openai", model).whole()), Some(1), "{model}");
        // It counts and charges searches itself.
        assert_eq!(searches(&chat("openrouter", &format!("openai/{model}")).whole()), None, "{model}");
        assert_eq!(searches(&chat("openai", model).status(500).whole()), None, "{model}");
    }
    for model in ["gpt-4o-mini-2024-07-18", "my-search-preview", "gpt-4o-audio-preview"] {
        assert_eq!(searches(&chat("openai", model).whole()), None, "{model}");
    }
    let line = String::from_utf8(chat("openai", "gpt-4o-search-preview").body).unwrap();
    let line = format!("{{\"id\":\"q\",\"response\":{{\"status_code\":200,\"body\":{line}}}}}\n");
    let file = Exchange::new("openai", "/v1/files/f/content", "", line.as_bytes()).method(Method::GET);
    assert_eq!(searches(&file.reading()), Some(1));
}

#[test]
fn a_stream_of_a_model_that_always_searches_has_its_search_though_it_was_cut() {
    let body = b"data: {\"id\":\"c\",\"model\":\"gpt-4o-search-preview-2025-03-11\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";
    let reading = Exchange::new("openai", CHAT, SSE, body).read([body.as_slice()], Ending::ClientAbort);
    assert_eq!((searches(&reading), reading.usage.has_tokens()), (Some(1), false));
}

#[test]
fn an_error_says_nothing_of_tool_calls() {
    let body = br#"{"error":{"message":"no","type":"invalid_request_error"}}"#;
    for (provider, path) in [("openai", CHAT), ("openai", RESPONSES), ("anthropic", "/v1/messages")] {
        let reading = Exchange::new(provider, path, JSON, body).status(400).whole();
        assert_eq!((quantity(&reading, Q::ToolCalls), reading.outcome), (None, Outcome::Error), "{path}");
    }
}

#[test]
fn the_size_of_perplexitys_search_context_is_told_where_it_costs_more() {
    let ask = |provider, size: &str| {
        let body = format!(
            r#"{{"id":"p","model":"sonar","choices":[{{"index":0,"message":{{"content":"x"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":8,"completion_tokens":4,"total_tokens":12,"search_context_size":"{size}"}}}}"#
        );
        let reading = Exchange::new(provider, CHAT, JSON, body.as_bytes()).reading();
        [Q::MediumSearchContext, Q::HighSearchContext].map(|size| quantity(&reading, size))
    };
    assert_eq!(ask("perplexity", "low"), [None, None]);
    assert_eq!(ask("perplexity", "medium"), [Some(1), None]);
    assert_eq!(ask("perplexity", "high"), [None, Some(1)]);
    assert_eq!(ask("openai", "high"), [None, None]);
}

#[test]
fn xai_charges_for_each_image_that_it_is_given() {
    let body = br#"{"data":[{"url":"u"}],"usage":{"cost_in_usd_ticks":700000000}}"#;
    let ask = |provider, request: &'static str| {
        let exchange = Exchange::new(provider, "/v1/images/edits", JSON, body).request(request);
        quantity(&exchange.reading(), Q::InputImages)
    };
    assert_eq!(ask("xai", r#"{"model":"m","images":[{"url":"a"},{"url":"b"}]}"#), Some(2));
    assert_eq!(ask("xai", r#"{"model":"m","image":{"url":"a"}}"#), Some(1));
    assert_eq!(ask("xai", r#"{"model":"m","image":"a"}"#), Some(1));
    assert_eq!(ask("xai", r#"{"model":"m","image":null}"#), None);
    assert_eq!(ask("openai", r#"{"model":"m","image":"a"}"#), None);
}
