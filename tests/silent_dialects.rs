//! Streams of every dialect that break off before their usage: what passed is counted from their text,
//! and no such figure is called the provider's.
//!
//! Not here: streams of OpenAI's and Anthropic's own APIs (`counting.rs`), what replies that are whole
//! tell (`dialects.rs`, `gemini.rs`, `bedrock.rs`).

use bursar_domain::{Label, Outcome, TokenClass, UsageRecord, UsageSource};
use bursar_tests::provider::reply;
use bursar_tests::{Setup, Step, chunk};
use bursar_tokens::{Encoding, Host, model};

const ROUTES: &str = "
builtin_routes: false
routes:
  - { prefix: /gemini, upstream: 'http://provider.test', provider: gemini }
  - { prefix: /vertex, upstream: 'http://provider.test', provider: vertex, dialect: gemini }
  - { prefix: /cohere, upstream: 'http://provider.test', provider: cohere }
  - { prefix: /ollama, upstream: 'http://provider.test', provider: ollama }
  - { prefix: /bedrock, upstream: 'http://provider.test', provider: bedrock }
";

/// Texts as models write them; together they are the reply.
const ANSWER: [&str; 3] =
    ["The quick brown fox", " jumps over the lazy dog, says \u{201c}hm\u{201d}\n", "and runs on and on"];
const THOUGHT: &str = "Let me think about foxes and about dogs first.";
const CALL: &str = r#"{"place":"Vell","days":[1,2,3]}"#;

/// What is expected of a record.
struct Expected {
    input: u64,
    visible: u64,
    reasoning: Option<u64>,
    by: &'static str,
}

/// Asks `path` and lets the reply break off behind `body`; shows the record.
fn cut(path: &str, ask: &str, kind: &str, body: Vec<u8>, check: impl FnOnce(UsageRecord)) {
    let setup = Setup { routes: ROUTES.to_owned(), ..Setup::new("") };
    setup.run(|system| async move {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
        let mut steps = vec![Step::Send(head.into_bytes())];
        // The framing is cut anywhere.
        steps.extend(body.chunks(97).map(|piece| Step::Send(chunk(piece))));
        steps.push(Step::Close);
        system.provider.script(steps);
        let mut client = system.client();
        client.post(path, &[], ask).await;
        assert!(!client.reply().await.whole);
        let record = system.record().await;
        assert_eq!(record.outcome, Outcome::ErrorMidstream);
        check(record);
    });
}

#[track_caller]
fn check(record: &UsageRecord, expected: &Expected) {
    let usage = &record.usage;
    let told =
        (usage.input_total(), usage.get(TokenClass::OutputText), usage.get(TokenClass::OutputReasoning));
    assert_eq!(told, (Some(expected.input), Some(expected.visible), expected.reasoning));
    assert_eq!(record.usage_source, UsageSource::Estimate);
    assert_eq!(record.counted_by.as_ref().map(Label::as_str), Some(expected.by));
    assert!(record.provider_cost.is_none() && record.usage_raw.is_none());
}

/// Tokens of `texts`, each for itself, as an estimate for the model.
fn tokens(name: &str, texts: &[&str]) -> u64 {
    let knowledge = model(name, Host::Other).knowledge;
    knowledge.scale(texts.iter().map(|text| Encoding::O200kBase.count(text).unwrap()).sum())
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn sse(events: impl IntoIterator<Item = String>) -> Vec<u8> {
    events.into_iter().map(|event| format!("data: {event}\r\n\r\n")).collect::<String>().into_bytes()
}

const GEMINI: &str = "x1.12 gemini (up to x1.80)";
const GEMINI_ASK: &str = r#"{"systemInstruction":{"parts":[{"text":"Be brief."}]},"contents":[{"role":"user","parts":[{"text":"hi"}]}],"generationConfig":{"temperature":0}}"#;

fn gemini_part(part: &str) -> String {
    format!(
        r#"{{"candidates":[{{"content":{{"parts":[{part}],"role":"model"}},"index":0}}],"modelVersion":"gemini-2.5-flash"}}"#
    )
}

fn gemini_chunks() -> Vec<String> {
    let mut chunks = vec![gemini_part(&format!(r#"{{"text":{},"thought":true}}"#, json(THOUGHT)))];
    chunks.extend(ANSWER.map(|text| gemini_part(&format!(r#"{{"text":{}}}"#, json(text)))));
    chunks.push(gemini_part(&format!(r#"{{"functionCall":{{"name":"tide","args":{CALL}}}}}"#)));
    chunks
}

fn gemini_expected() -> Expected {
    let name = "gemini-2.5-flash";
    Expected {
        // Two texts, and what a chat adds around a message.
        input: tokens(name, &["Be brief.", "hi", "a b c"]),
        visible: tokens(name, &[&ANSWER.concat(), &format!("\"tide\"{CALL}")]),
        reasoning: Some(tokens(name, &[THOUGHT])),
        by: "o200k_base x1.12 gemini (up to x1.80)",
    }
}

#[test]
fn events_of_gemini_and_vertex_are_counted_by_part() {
    for (path, kind) in [
        ("/gemini/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", "text/event-stream"),
        (
            "/vertex/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
            "text/event-stream",
        ),
    ] {
        cut(path, GEMINI_ASK, kind, sse(gemini_chunks()), |record| check(&record, &gemini_expected()));
    }
}

#[test]
fn an_array_of_gemini_is_counted_and_cloud_codes_wrapper_hides_nothing() {
    let path = "/gemini/v1beta/models/gemini-2.5-flash:streamGenerateContent";
    let array = format!("[{}", gemini_chunks().join(",\r\n"));
    cut(path, GEMINI_ASK, "application/json", array.into_bytes(), |record| {
        check(&record, &gemini_expected());
    });
    let wrapped = gemini_chunks().into_iter().map(|chunk| format!(r#"{{"response":{chunk}}}"#));
    let ask = format!(r#"{{"model":"gemini-2.5-flash","project":"p","request":{GEMINI_ASK}}}"#);
    cut(
        "/gemini/v1internal:streamGenerateContent?alt=sse",
        &ask,
        "text/event-stream",
        sse(wrapped),
        |record| {
            check(&record, &gemini_expected());
        },
    );
}

#[test]
fn a_running_total_of_gemini_stands_and_its_text_is_not_counted_over_it() {
    let chunk = gemini_part(&format!(r#"{{"text":{}}}"#, json(ANSWER[0]))).replace(
        r#","modelVersion""#,
        r#","usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":3,"totalTokenCount":8},"modelVersion""#,
    );
    let path = "/gemini/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse";
    cut(path, GEMINI_ASK, "text/event-stream", sse([chunk]), |record| {
        assert_eq!((record.usage.input_total(), record.usage.output_total()), (Some(5), Some(3)));
        assert_eq!((record.usage_source, record.counted_by), (UsageSource::ProviderPartial, None));
    });
}

#[test]
fn steps_of_an_interaction_are_counted_from_their_deltas() {
    let delta = |delta: String| format!(r#"{{"index":0,"delta":{delta},"event_type":"step.delta"}}"#);
    let mut events = vec![
        r#"{"interaction":{"id":"v1","status":"in_progress","model":"gemini-2.5-flash"},"event_type":"interaction.created"}"#.to_owned(),
        r#"{"index":0,"step":{"type":"thought"},"event_type":"step.start"}"#.to_owned(),
        delta(format!(r#"{{"type":"thought_summary","content":{{"type":"text","text":{}}}}}"#, json(THOUGHT))),
        delta(r#"{"type":"thought_signature","signature":"CiQBDDnWx2Ccq04K8Yfw"}"#.to_owned()),
    ];
    events.extend(ANSWER.map(|text| delta(format!(r#"{{"text":{},"type":"text"}}"#, json(text)))));
    events.push(
        r#"{"index":1,"step":{"type":"function_call","name":"tide"},"event_type":"step.start"}"#.to_owned(),
    );
    events.push(delta(format!(r#"{{"type":"arguments_delta","arguments":{}}}"#, json(CALL))));
    let ask = r#"{"model":"gemini-2.5-flash","input":"hi","system_instruction":"Be brief.","stream":true}"#;
    let name = "gemini-2.5-flash";
    let expected = Expected {
        input: tokens(name, &["Be brief.", "hi"]),
        visible: tokens(name, &[&ANSWER.concat(), &format!("\"tide\"{CALL}")]),
        reasoning: Some(tokens(name, &[THOUGHT])),
        by: "o200k_base x1.12 gemini (up to x1.80)",
    };
    cut("/gemini/v1beta/interactions", ask, "text/event-stream", sse(events), |record| {
        check(&record, &expected);
    });
}

const COMMAND: &str = "command-r-plus";
const COMMAND_BY: &str = "o200k_base x1.09 command-r (up to x2.37)";

#[test]
fn both_versions_of_coheres_stream_are_counted() {
    let delta =
        |kind: &str, message: String| format!(r#"{{"type":"{kind}","delta":{{"message":{{{message}}}}}}}"#);
    let mut events = vec![
        r#"{"type":"message-start","id":"c","delta":{"message":{"role":"assistant","content":[],"tool_plan":"","tool_calls":[]}}}"#.to_owned(),
        delta("content-delta", format!(r#""content":{{"thinking":{}}}"#, json(THOUGHT))),
    ];
    events
        .extend(ANSWER.map(|text| delta("content-delta", format!(r#""content":{{"text":{}}}"#, json(text)))));
    events.push(delta(
        "tool-call-start",
        r#""tool_calls":{"id":"t","type":"function","function":{"name":"tide","arguments":""}}"#.to_owned(),
    ));
    events.push(delta(
        "tool-call-delta",
        format!(r#""tool_calls":{{"function":{{"arguments":{}}}}}"#, json(CALL)),
    ));
    let ask = r#"{"model":"command-r-plus","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    let expected = Expected {
        input: tokens(COMMAND, &["hi", "a b c"]),
        visible: tokens(COMMAND, &[&ANSWER.concat(), &format!("tide{CALL}")]),
        reasoning: Some(tokens(COMMAND, &[THOUGHT])),
        by: COMMAND_BY,
    };
    cut("/cohere/v2/chat", ask, "text/event-stream", sse(events), |record| check(&record, &expected));

    let mut lines =
        r#"{"is_finished":false,"event_type":"stream-start","generation_id":"g"}"#.to_owned() + "\n";
    for text in ANSWER {
        lines += &format!(r#"{{"is_finished":false,"event_type":"text-generation","text":{}}}"#, json(text));
        lines.push('\n');
    }
    let ask = r#"{"model":"command-r-plus","stream":true,"preamble":"Be brief.","message":"hi"}"#;
    let expected = Expected {
        input: tokens(COMMAND, &["Be brief.", "hi"]),
        visible: tokens(COMMAND, &[&ANSWER.concat()]),
        reasoning: None,
        by: COMMAND_BY,
    };
    cut("/cohere/v1/chat", ask, "application/stream+json", lines.into_bytes(), |record| {
        check(&record, &expected);
    });
}

#[test]
fn lines_of_ollama_are_counted_as_an_estimate_for_a_model_nobody_knows() {
    let line = |message: String| {
        format!("{{\"model\":\"own:4b\",\"message\":{{\"role\":\"assistant\",{message}}},\"done\":false}}\n")
    };
    let mut lines = line(format!(r#""content":"","thinking":{}"#, json(THOUGHT)));
    lines.extend(ANSWER.map(|text| line(format!(r#""content":{}"#, json(text)))));
    lines +=
        &line(format!(r#""content":"","tool_calls":[{{"function":{{"name":"tide","arguments":{CALL}}}}}]"#));
    let ask = r#"{"model":"own:4b","messages":[{"role":"user","content":"hi"}]}"#;
    let expected = Expected {
        input: tokens("own:4b", &["hi", "a b c"]),
        visible: tokens("own:4b", &[&ANSWER.concat(), &format!("\"tide\"{CALL}")]),
        reasoning: Some(tokens("own:4b", &[THOUGHT])),
        by: "o200k_base x1.10 unknown (up to x4.04)",
    };
    cut("/ollama/api/chat", ask, "application/x-ndjson", lines.into_bytes(), |record| {
        check(&record, &expected)
    });

    let lines: String = ANSWER
        .map(|text| format!("{{\"model\":\"qwen3:8b\",\"response\":{},\"done\":false}}\n", json(text)))
        .concat();
    let ask = r#"{"model":"qwen3:8b","prompt":"hi","system":"Be brief."}"#;
    let expected = Expected {
        input: tokens("qwen3:8b", &["Be brief.", "hi"]),
        visible: tokens("qwen3:8b", &[&ANSWER.concat()]),
        reasoning: None,
        by: "o200k_base x1.12 qwen-3 (up to x2.76)",
    };
    cut("/ollama/api/generate", ask, "application/x-ndjson", lines.into_bytes(), |record| {
        check(&record, &expected);
    });
}

#[test]
fn a_prompt_that_ollama_had_cached_is_estimated_beside_what_ollama_counted() {
    Setup { routes: ROUTES.to_owned(), ..Setup::new("") }.run(|system| async move {
        let body = "{\"model\":\"m\",\"response\":\"a\",\"done\":false}\n{\"model\":\"m\",\"response\":\"\",\"done\":true,\"eval_count\":58}\n";
        system.provider.script([Step::Send(reply(
            200,
            &[("content-type", "application/x-ndjson")],
            body.as_bytes(),
        ))]);
        let mut client = system.client();
        client.post("/ollama/api/generate", &[], r#"{"model":"m","prompt":"hello world"}"#).await;
        assert_eq!(client.reply().await.text(), body);
        let record = system.record().await;
        assert_eq!((record.usage.input_total(), record.usage.output_total()), (Some(2), Some(58)));
        assert_eq!(record.usage_source, UsageSource::ProviderPartial);
        let by = record.counted_by.unwrap();
        assert_eq!(by.as_str(), "input: o200k_base x1.10 unknown (up to x4.04)");
    });
}

// === Bedrock ===

/// CRC-32 as of IEEE 802.3, bit by bit.
fn crc(bytes: &[u8]) -> [u8; 4] {
    let register = bytes.iter().fold(u32::MAX, |register, byte| {
        (0..8).fold(register ^ u32::from(*byte), |register, _| {
            (register >> 1) ^ if register & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    });
    (!register).to_be_bytes()
}

/// A message of an AWS event stream.
fn message(name: &str, payload: &str) -> Vec<u8> {
    let mut headers = Vec::new();
    for (key, value) in [(":event-type", name), (":message-type", "event")] {
        headers.push(u8::try_from(key.len()).unwrap());
        headers.extend(key.as_bytes());
        headers.push(7);
        headers.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        headers.extend(value.as_bytes());
    }
    let total = 16 + headers.len() + payload.len();
    let mut bytes = u32::try_from(total).unwrap().to_be_bytes().to_vec();
    bytes.extend(u32::try_from(headers.len()).unwrap().to_be_bytes());
    bytes.extend(crc(&bytes));
    bytes.extend(headers);
    bytes.extend(payload.as_bytes());
    bytes.extend(crc(&bytes));
    bytes
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut bits = [0; 4];
        bits[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(bits);
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// A model's own event in a chunk of InvokeModelWithResponseStream.
fn invoked(event: &str) -> Vec<u8> {
    message("chunk", &format!(r#"{{"bytes":"{}","p":"abcd"}}"#, base64(event.as_bytes())))
}

const AWS: &str = "application/vnd.amazon.eventstream";
const CLAUDE: &str = "anthropic.claude-sonnet-4-5-20250929-v1:0";
const CLAUDE_BY: &str = "o200k_base x1.10 claude (up to x4.04)";

#[test]
fn frames_of_converse_are_counted_by_block() {
    let delta = |delta: String| {
        message("contentBlockDelta", &format!(r#"{{"contentBlockIndex":0,"delta":{delta},"p":"abc"}}"#))
    };
    let mut body = message("messageStart", r#"{"role":"assistant","p":"abcdef"}"#);
    body.extend(delta(format!(r#"{{"reasoningContent":{{"text":{}}}}}"#, json(THOUGHT))));
    for text in ANSWER {
        body.extend(delta(format!(r#"{{"text":{}}}"#, json(text))));
    }
    body.extend(message(
        "contentBlockStart",
        r#"{"contentBlockIndex":1,"start":{"toolUse":{"name":"tide","toolUseId":"t"}}}"#,
    ));
    body.extend(delta(format!(r#"{{"toolUse":{{"input":{}}}}}"#, json(CALL))));
    let ask = r#"{"system":[{"text":"Be brief."}],"messages":[{"role":"user","content":[{"text":"hi"}]}],"inferenceConfig":{"maxTokens":9}}"#;
    let expected = Expected {
        input: tokens(CLAUDE, &["Be brief.", "hi", "a b c"]),
        visible: tokens(CLAUDE, &[&ANSWER.concat(), &format!("tide{CALL}")]),
        reasoning: Some(tokens(CLAUDE, &[THOUGHT])),
        by: CLAUDE_BY,
    };
    cut(&format!("/bedrock/model/{CLAUDE}/converse-stream"), ask, AWS, body, |record| {
        check(&record, &expected);
    });
}

#[test]
fn chunks_of_invoked_models_are_counted_whatever_family_they_are_of() {
    let hi = r#"{"role":"user","content":"hi"}"#;
    let chat_ask = format!(r#"{{"messages":[{hi}],"max_tokens":9}}"#);
    let chat = |delta: &str| {
        format!(
            r#"{{"object":"chat.completion.chunk","choices":[{{"index":0,"delta":{{"content":{delta}}}}}]}}"#
        )
    };
    let nova = |text: &str| {
        format!(r#"{{"contentBlockDelta":{{"delta":{{"text":{text}}},"contentBlockIndex":0}}}}"#)
    };
    type Event<'a> = &'a dyn Fn(&str) -> String;
    let cases: [(&str, &str, &[&str], Event<'_>, &str); 5] = [
        (
            "openai.gpt-4-on-bedrock",
            &chat_ask,
            &["hi", "a b c"],
            &chat,
            "o200k_base x1.10 unknown (up to x4.04)",
        ),
        (
            "amazon.nova-lite-v1:0",
            &chat_ask,
            &["hi", "a b c"],
            &nova,
            "o200k_base x1.10 unknown (up to x4.04)",
        ),
        (
            "amazon.titan-text-lite-v1",
            r#"{"inputText":"hi"}"#,
            &["hi"],
            &|text| format!(r#"{{"outputText":{text},"index":0,"completionReason":null}}"#),
            "o200k_base x1.10 unknown (up to x4.04)",
        ),
        (
            "mistral.mistral-7b-instruct-v0:2",
            r#"{"prompt":"hi"}"#,
            &["hi"],
            &|text| format!(r#"{{"outputs":[{{"text":{text},"stop_reason":null}}]}}"#),
            "o200k_base x1.10 mistral (up to x1.80)",
        ),
        (
            "cohere.command-text-v14",
            r#"{"prompt":"hi"}"#,
            &["hi"],
            &|text| format!(r#"{{"text":{text},"is_finished":false}}"#),
            COMMAND_BY,
        ),
    ];
    for (name, ask, input, event, by) in cases {
        let body = ANSWER.into_iter().flat_map(|text| invoked(&event(&json(text)))).collect();
        let expected = Expected {
            input: tokens(name, input),
            visible: tokens(name, &[&ANSWER.concat()]),
            reasoning: None,
            by,
        };
        let path = format!("/bedrock/model/{name}/invoke-with-response-stream");
        cut(&path, ask, AWS, body, |record| check(&record, &expected));
    }
}

#[test]
fn an_invoked_claude_that_is_cut_keeps_what_it_said_of_its_input() {
    let mut body = invoked(
        r#"{"type":"message_start","message":{"id":"m","model":"claude-sonnet-4-5","usage":{"input_tokens":12,"output_tokens":1}}}"#,
    );
    body.extend(invoked(&format!(
        r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"thinking_delta","thinking":{}}}}}"#,
        json(THOUGHT)
    )));
    for text in ANSWER {
        body.extend(invoked(&format!(
            r#"{{"type":"content_block_delta","index":1,"delta":{{"type":"text_delta","text":{}}}}}"#,
            json(text)
        )));
    }
    body.extend(invoked(
        r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"t","name":"tide"}}"#,
    ));
    body.extend(invoked(&format!(
        r#"{{"type":"content_block_delta","index":2,"delta":{{"type":"input_json_delta","partial_json":{}}}}}"#,
        json(CALL)
    )));
    let path = format!("/bedrock/model/{CLAUDE}/invoke-with-response-stream");
    cut(&path, r#"{"messages":[{"role":"user","content":"hi"}]}"#, AWS, body, |record| {
        let usage = &record.usage;
        assert_eq!(usage.input_total(), Some(12));
        assert_eq!(
            usage.get(TokenClass::OutputText),
            Some(tokens(CLAUDE, &[&ANSWER.concat(), &format!("tide{CALL}")]))
        );
        assert_eq!(usage.get(TokenClass::OutputReasoning), Some(tokens(CLAUDE, &[THOUGHT])));
        assert_eq!(record.usage_source, UsageSource::ProviderPartial);
        let by = format!("output: {CLAUDE_BY}");
        assert_eq!(record.counted_by.as_ref().map(Label::as_str), Some(by.as_str()));
    });
}

// === whole replies ===

/// Lets a whole reply pass that tells no usage.
fn silent(path: &str, ask: &str, body: &str, check: impl FnOnce(UsageRecord)) {
    Setup { routes: ROUTES.to_owned(), ..Setup::new("") }.run(|system| async move {
        system.provider.json(200, body);
        let mut client = system.client();
        client.post(path, &[], ask).await;
        assert_eq!(client.reply().await.text(), body);
        let record = system.record().await;
        assert_eq!(record.outcome, Outcome::Ok);
        check(record);
    });
}

#[test]
fn embeddings_of_gemini_without_usage_have_their_input_counted_alone() {
    let path = "/gemini/v1beta/models/gemini-embedding-001:batchEmbedContents";
    let ask = r#"{"requests":[{"model":"models/gemini-embedding-001","content":{"parts":[{"text":"hello world"}]}}]}"#;
    silent(path, ask, r#"{"embeddings":[{"values":[0.5]}]}"#, |record| {
        assert_eq!((record.usage.input_total(), record.usage.output_total()), (Some(2), None));
        assert_eq!(record.usage_source, UsageSource::Estimate);
    });
}

#[test]
fn a_prompt_that_gemini_did_not_count_is_estimated_and_its_output_stands() {
    let path = "/gemini/v1beta/models/gemini-2.5-flash:generateContent";
    let ask = r#"{"contents":[{"parts":[{"text":"hello world"}]}]}"#;
    let body = r#"{"candidates":[{"content":{"parts":[{"text":"ok"}]},"finishReason":"STOP"}],"usageMetadata":{"candidatesTokenCount":20,"thoughtsTokenCount":56}}"#;
    silent(path, ask, body, |record| {
        assert_eq!((record.usage.input_total(), record.usage.output_total()), (Some(2), Some(76)));
        assert_eq!(record.usage_source, UsageSource::ProviderPartial);
        assert_eq!(record.counted_by.unwrap().as_str(), format!("input: o200k_base {GEMINI}"));
    });
}

#[test]
fn documents_of_every_dialect_without_usage_are_counted() {
    let call = format!(r#"{{"functionCall":{{"name":"tide","args":{CALL}}}}}"#);
    let text = json(&ANSWER.concat());
    let gemini = format!(
        r#"{{"candidates":[{{"content":{{"parts":[{{"text":{text}}},{call}]}},"finishReason":"STOP"}}]}}"#
    );
    let interaction = format!(
        r#"{{"id":"v1","status":"completed","steps":[{{"type":"model_output","content":[{{"type":"text","text":{text}}}]}},{{"type":"function_call","name":"tide","arguments":{CALL}}}]}}"#
    );
    let cohere = format!(
        r#"{{"id":"c","finish_reason":"COMPLETE","message":{{"role":"assistant","content":[{{"type":"text","text":{text}}}],"tool_calls":[{{"id":"t","type":"function","function":{{"name":"tide","arguments":{}}}}}]}}}}"#,
        json(CALL)
    );
    let cohere_v1 = format!(
        r#"{{"generation_id":"c","finish_reason":"COMPLETE","text":{text},"tool_calls":[{{"name":"tide","parameters":{CALL}}}]}}"#
    );
    let ollama = format!(
        r#"{{"model":"m","message":{{"content":{text},"tool_calls":[{{"function":{{"name":"tide","arguments":{CALL}}}}}]}},"done":true}}"#
    );
    let converse = format!(
        r#"{{"output":{{"message":{{"content":[{{"text":{text}}},{{"toolUse":{{"name":"tide","input":{CALL}}}}}]}}}},"stopReason":"end_turn"}}"#
    );
    let invoke = format!(
        r#"{{"choices":[{{"index":0,"message":{{"content":{text},"tool_calls":[{{"function":{{"name":"tide","arguments":{}}}}}]}}}}]}}"#,
        json(CALL)
    );
    let quoted = format!("\"tide\"{CALL}");
    let plain = format!("tide{CALL}");
    for (path, name, body, call) in [
        ("/gemini/v1beta/models/m:generateContent", "m", gemini, &quoted),
        ("/gemini/v1beta/interactions", "m", interaction, &quoted),
        ("/cohere/v2/chat", "m", cohere, &plain),
        ("/cohere/v1/chat", "m", cohere_v1, &plain),
        ("/ollama/api/chat", "m", ollama, &quoted),
        ("/bedrock/model/m/converse", "m", converse, &plain),
        ("/bedrock/model/m/invoke", "m", invoke, &plain),
    ] {
        silent(path, r#"{"model":"m","messages":[],"prompt":"hi"}"#, &body, |record| {
            assert_eq!(record.usage_source, UsageSource::Estimate, "{path}");
            assert_eq!(record.usage.output_total(), Some(tokens(name, &[&ANSWER.concat(), call])), "{path}");
        });
    }
}
