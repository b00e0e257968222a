//! Counting requests. The expected figures are what OpenAI reports for bodies of these shapes.

use super::*;
use crate::count::tally::{Precision, known};
use crate::count::watch::Sample;
use crate::usage::text::PassedText;
use bursar_domain::Label;
use bytes::Bytes;

fn work(api: Api, body: &str) -> Work {
    Work {
        api,
        request: body.as_bytes().chunks(1_000).map(Bytes::copy_from_slice).collect(),
        is_whole: true,
        encoding: None,
        sample: None,
        texts: None,
        last: PassedText::default(),
        lost_bytes: 0,
    }
}

fn tokens(work: &Work, model: &str) -> InputTokens {
    let label = Label::new(model).unwrap();
    count(work, &Tally::new(known("openai", Some(&label)), Precision::Full), model).unwrap()
}

fn check(api: Api, model: &str, body: &str, expected: u64, exact: bool) {
    let counted = tokens(&work(api, body), model);
    assert_eq!(counted, InputTokens { tokens: expected, exact, sampled: false }, "{body}");
}

#[test]
fn plain_messages_are_counted_as_the_provider_counts_them() {
    let chat = Api::OpenAiChat;
    check(chat, "gpt-4o", r#"{"messages":[{"role":"user","content":"hi"}]}"#, 8, true);
    check(chat, "gpt-5-nano", r#"{"messages":[{"role":"user","content":"hi"}]}"#, 7, true);
    let two = r#"{"messages":[{"role":"system","content":"Be brief."},
        {"role":"user","name":"ann","content":[{"type":"text","text":"Hello, world!"}]}]}"#;
    check(chat, "gpt-4o", two, 3 + (3 + 1 + 3) + (3 + 1 + 4 + 1 + 1), true);
    check(Api::Responses, "gpt-4o", r#"{"input":"hi"}"#, 8, true);
    check(Api::Responses, "gpt-4o", r#"{"input":[{"role":"user","content":"hi"}]}"#, 8, true);
    check(Api::LegacyCompletions, "gpt-3.5-turbo-instruct", r#"{"prompt":"hello world"}"#, 2, true);
    check(Api::LegacyCompletions, "davinci-002", r#"{"prompt":[[1,2,3],[4]]}"#, 4, true);
    check(Api::Embeddings, "text-embedding-3-small", r#"{"input":["hello world","hi"]}"#, 3, true);
}

#[test]
fn what_has_no_published_formula_is_counted_and_is_an_estimate() {
    let chat = Api::OpenAiChat;
    let picture = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"hi"},
        {"type":"image_url","image_url":{"url":"https://a/b.png"}}]}]}"#;
    check(chat, "gpt-4o", picture, 8 + 765, false);
    let small = picture
        .replace("https://a/b.png", "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAQAAAAEACAIAAADTED8xAAAA");
    check(chat, "gpt-4o", &small, 8 + 255, false);
    let tool = r#"{"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":
        {"name":"f","description":"d.","parameters":{"properties":{"x":{"type":"string","description":"y"}}}}}]}"#;
    // `f:d` is 2 tokens and `x:string:y` is 3, besides what surrounds them.
    check(chat, "gpt-4o", tool, 8 + 7 + 2 + 3 + 3 + 3 + 12, false);
    let stored = r#"{"input":"hi","previous_response_id":"resp_1"}"#;
    check(Api::Responses, "gpt-4o", stored, 8, false);
    let call = r#"{"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"c"}]}]}"#;
    assert!(!tokens(&work(chat, call), "gpt-4o").exact);
    let claude = r#"{"system":"Be brief.","messages":[{"role":"user","content":"hi"}]}"#;
    assert!(!tokens(&work(Api::Messages, claude), "claude-sonnet-4-5").exact);
}

#[test]
fn a_body_that_is_no_json_counts_nothing() {
    let label = Label::new("gpt-4o").unwrap();
    let tally = Tally::new(known("openai", Some(&label)), Precision::Full);
    for body in ["", "{", "[]", "model=gpt-4o", "{\"messages\":[}"] {
        assert_eq!(count(&work(Api::OpenAiChat, body), &tally, "gpt-4o"), None, "{body}");
    }
    for body in ["{}", r#"{"messages":3}"#, r#"{"messages":[3,null,{}]}"#, r#"{"messages":[{"role":1}]}"#] {
        assert!(count(&work(Api::OpenAiChat, body), &tally, "gpt-4o").is_some(), "{body}");
    }
}

#[test]
fn a_long_body_is_sampled_near_its_count_and_its_pictures_are_left_out() {
    let text = "Money is right, traffic keeps flowing, a stranger can read the code. ".repeat(4_000);
    let body = format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}]}}"#);
    let mut long = work(Api::OpenAiChat, &body[..64 * 1024]);
    long.is_whole = false;
    let mut sample = Box::<Sample>::default();
    sample.feed(&body.as_bytes()[64 * 1024..]);
    long.sample = Some(sample);
    let (counted, whole) = (tokens(&long, "gpt-4o"), 4_000 * 15);
    assert!(counted.sampled && !counted.exact);
    assert!(counted.tokens.abs_diff(whole) < whole / 10, "{counted:?} for {whole}");

    let mut sample = Box::<Sample>::default();
    sample.feed("iVBORw0KGgo".repeat(100_000).as_bytes());
    long.sample = Some(sample);
    assert!(tokens(&long, "gpt-4o").tokens < 20_000);
}

#[test]
fn a_compressed_body_is_counted_decoded() {
    let body = br#"{"messages":[{"role":"user","content":"hi"}]}"#;
    let packed = zstd::encode_all(&body[..], 1).unwrap();
    let mut packed = Work {
        request: vec![Bytes::from(packed)],
        encoding: Some(Box::from("zstd")),
        ..work(Api::OpenAiChat, "")
    };
    assert_eq!(tokens(&packed, "gpt-4o").tokens, 8);
    packed.request = vec![Bytes::from_static(b"no zstd")];
    let label = Label::new("gpt-4o").unwrap();
    let tally = Tally::new(known("openai", Some(&label)), Precision::Full);
    assert_eq!(count(&packed, &tally, "gpt-4o"), None);
}
