//! Readings of what is no chat of OpenAI's or Anthropic's kind: Cohere, Ollama, images, audio, ranking,
//! documents, assistants, batches. Each whole, in every slicing and cut at every byte.

use super::*;

const NDJSON: &str = "application/x-ndjson";
const COHERE_LINES: &str = "application/stream+json";
const FORM: &str = "application/json; charset=utf-8";

/// Has no usage object to show, but is the provider's word.
fn check_units(exchange: &Exchange, expected: &[(Q, u64)]) -> Reading {
    let reading = exchange.reading();
    let found: Vec<_> = reading.usage.quantities().collect();
    assert_eq!(found, expected);
    assert_eq!((reading.outcome, reading.metering), (Outcome::Ok, Metering::Count));
    assert_eq!(reading.usage_source, UsageSource::Provider);
    reading
}

// === Cohere ===

#[test]
fn cohere_tells_tokens_and_what_is_billed_of_them() {
    let billed = |reading: &Reading| {
        (quantity(reading, Q::BilledInputTokens), quantity(reading, Q::BilledOutputTokens))
    };
    let exchange = transcript!("cohere", "/v1/chat", JSON, "cohere-chat-v1.json");
    let reading = check(&exchange, &[(C::InputFresh, 75), (C::CachedRead, 44), (C::OutputText, 9)]);
    assert_eq!((billed(&reading), quantity(&reading, Q::ToolCalls)), ((Some(70), Some(8)), Some(0)));
    assert_eq!(text(reading.meter_id.as_ref()), Some("g-made-up"));

    let exchange = transcript!("cohere", "/v2/chat", JSON, "cohere-chat-v2.json");
    let reading = check(
        &exchange,
        &[
            (C::InputFresh, 18),
            (C::InputImage, 259),
            (C::CachedRead, 16),
            (C::OutputText, 36),
            (C::OutputReasoning, 20),
        ],
    );
    assert_eq!((billed(&reading), quantity(&reading, Q::ToolCalls)), ((Some(267), Some(52)), Some(2)));
    assert_eq!((reading.usage.input_total(), reading.model_served), (Some(293), None));
}

#[test]
fn a_cohere_stream_is_read_at_its_end_in_both_framings() {
    let exchange = transcript!("cohere", "/v2/chat", SSE, "cohere-chat-v2.sse");
    let reading = check(&exchange, &[(C::InputFresh, 100), (C::CachedRead, 1_376), (C::OutputText, 58)]);
    assert_eq!(quantity(&reading, Q::ToolCalls), Some(1));
    assert!(reading.stream);
    for content_type in [COHERE_LINES, ""] {
        let exchange = transcript!("cohere", "/v1/chat", content_type, "cohere-chat-v1.ndjson")
            .request(r#"{"stream":true}"#);
        let reading = check(&exchange, &[(C::InputFresh, 69), (C::OutputText, 16)]);
        assert_eq!(quantity(&reading, Q::BilledOutputTokens), Some(15));
        assert!(reading.stream);
    }
}

#[test]
fn a_cohere_stream_that_ends_in_an_error_keeps_what_was_used() {
    let reading = transcript!("cohere", "/v2/chat", SSE, "cohere-chat-v2-error.sse").reading();
    assert_eq!((reading.outcome, reading.metering), (Outcome::ErrorMidstream, Metering::Count));
    assert_eq!(tokens(&reading), [(C::InputFresh, 66), (C::OutputText, 2)]);
    let error = br#"{"id":"made-up","message":"model 'x' not found"}"#;
    let refused = Exchange::new("cohere", "/v2/chat", JSON, error).status(404).reading();
    assert_eq!((refused.outcome, refused.metering), (Outcome::Error, Metering::Never));
}

#[test]
fn cohere_embeddings_ranking_and_classification_tell_billed_units() {
    let exchange = transcript!("cohere", "/v2/embed", JSON, "cohere-embed.json");
    let reading = check(&exchange, &[(C::InputFresh, 7), (C::OutputText, 0)]);
    assert_eq!(quantity(&reading, Q::BilledInputTokens), Some(7));
    let exchange = transcript!("cohere", "/v1/embed", JSON, "cohere-embed-image.json");
    let reading = check_units(&exchange, &[(Q::Images, 1)]);
    assert_eq!(tokens(&reading), [(C::OutputText, 0)]);
    let exchange = transcript!("cohere", "/v2/rerank", JSON, "cohere-rerank.json");
    assert_eq!(tokens(&check_units(&exchange, &[(Q::SearchUnits, 3)])), []);
    let reading = transcript!("cohere", "/v1/classify", JSON, "cohere-classify.json").reading();
    assert_eq!((reading.outcome, reading.metering), (Outcome::Ok, Metering::Count));
    let exchange = transcript!("cohere", "/compatibility/v1/chat/completions", JSON, "openai-chat.json");
    assert_eq!(exchange.reading().usage.input_total(), Some(1_000_000));
}

// === Ollama ===

#[test]
fn ollama_counts_are_on_the_object_that_is_done() {
    let exchange = transcript!("ollama", "/api/chat", NDJSON, "ollama-chat.ndjson");
    let reading = check(&exchange, &[(C::InputFresh, 307), (C::OutputText, 308)]);
    assert_eq!(quantity(&reading, Q::ToolCalls), Some(1));
    assert_eq!(text(reading.model_served.as_ref()), Some("made-up:4b"));
    assert!(reading.stream);
    let exchange = transcript!("ollama", "/api/chat", FORM, "ollama-chat.json");
    let reading = check(&exchange, &[(C::InputFresh, 292), (C::OutputText, 143)]);
    assert_eq!(quantity(&reading, Q::ToolCalls), Some(2));
    assert!(!reading.stream);
    let exchange = transcript!("ollama", "/api/embed", JSON, "ollama-embed.json");
    check(&exchange, &[(C::InputFresh, 8), (C::OutputText, 0)]);
}

#[test]
fn lines_that_are_called_a_document_are_lines() {
    for (path, lines) in [
        ("/api/chat", transcript!("ollama", "/api/chat", NDJSON, "ollama-chat.ndjson")),
        ("/v1/chat", transcript!("cohere", "/v1/chat", COHERE_LINES, "cohere-chat-v1.ndjson")),
    ] {
        let expected = lines.whole();
        assert!(expected.stream && expected.usage.has_tokens());
        for content_type in [JSON, ""] {
            let mut renamed = Exchange::new(lines.provider, path, content_type, &lines.body).sliced();
            renamed.meter_id.clone_from(&expected.meter_id);
            assert_eq!(renamed, expected, "{path} {content_type:?}");
        }
    }
    let body =
        br#"{"model":"m","message":{"content":"a"},"done":true,"eval_count":2,"prompt_eval_count":1} {"#;
    let trailing = Exchange::new("ollama", "/api/chat", JSON, body).sliced();
    assert_eq!(anomalies(&trailing), [Anomaly::MalformedReply]);
}

#[test]
fn a_prompt_that_ollama_had_cached_is_unknown_and_not_zero() {
    let exchange = transcript!("ollama", "/api/generate", NDJSON, "ollama-generate-cached.ndjson");
    let reading = check(&exchange, &[(C::OutputText, 58)]);
    assert_eq!(reading.usage.input_total(), None);
    assert_eq!(reading.usage_raw.as_deref(), Some(r#"{"eval_count":58}"#));
}

#[test]
fn an_error_line_of_ollama_ends_its_stream() {
    let reading = transcript!("ollama", "/api/generate", NDJSON, "ollama-generate-error.ndjson").reading();
    assert_eq!((reading.outcome, reading.metering), (Outcome::ErrorMidstream, Metering::Count));
    assert_eq!(reading.usage_source, UsageSource::Absent);
    let error = br#"{"error":"model 'x' not found"}"#;
    let refused = Exchange::new("ollama", "/api/chat", "", error).status(404).reading();
    assert_eq!((refused.outcome, refused.metering), (Outcome::Error, Metering::Never));
}

#[test]
fn ollama_speaks_openai_on_openais_paths() {
    let exchange = transcript!("ollama", CHAT, SSE, "openai-chat.sse");
    assert_eq!(exchange.reading().usage.input_total(), Some(21));
}

// === images, audio, documents, ranking ===

#[test]
fn images_are_counted_and_their_tokens_are_image_tokens() {
    let exchange = transcript!("openai", "/v1/images/generations", JSON, "images.json");
    let classes = [(C::InputFresh, 10), (C::InputImage, 200), (C::OutputText, 0), (C::OutputImage, 4_160)];
    assert_eq!(quantity(&check(&exchange, &classes), Q::Images), Some(2));
    let exchange = transcript!("openai", "/v1/images/edits", SSE, "images.sse");
    let classes = [(C::InputFresh, 50), (C::InputImage, 0), (C::OutputText, 0), (C::OutputImage, 250)];
    assert_eq!(quantity(&check(&exchange, &classes), Q::Images), Some(1));
    let exchange = transcript!("openai", "/v1/images/generations", JSON, "images-dall-e.json");
    check_units(&exchange, &[(Q::Images, 3)]);
    let exchange = transcript!("xai", "/v1/images/generations", JSON, "images-xai.json");
    assert_eq!(cost(&check_units(&exchange, &[(Q::Images, 1)])).as_deref(), Some("0.07"));
    let exchange = transcript!("openrouter", "/api/v1/images", JSON, "images-openrouter.json");
    let reading = exchange.reading();
    assert_eq!((reading.usage.get(C::OutputImage), reading.usage.output_total()), (Some(1_120), Some(1_537)));
    assert_eq!((cost(&reading).as_deref(), quantity(&reading, Q::Images)), (Some("0.03422675"), Some(1)));
}

#[test]
fn imagens_predictions_are_counted_but_for_what_a_filter_kept_back() {
    let body = br#"{"predictions":[{"mimeType":"image/png","bytesBase64Encoded":"iVBORw0KGgo="},{"raiFilteredReason":"kept back"},{"bytesBase64Encoded":"iVBORw0KGgo=","mimeType":"image/png"}]}"#;
    let path = "/v1/projects/p/locations/l/publishers/google/models/imagen-3.0-generate-001:predict";
    let reading = Exchange::new("vertex", path, JSON, body).reading();
    assert_eq!((reading.metering, quantity(&reading, Q::Images)), (Metering::Count, Some(2)));
    let none = br#"{"predictions":[{"raiFilteredReason":"kept back"}]}"#;
    assert_eq!(quantity(&Exchange::new("vertex", path, JSON, none).reading(), Q::Images), Some(0));
    let embedding = "/v1/projects/p/locations/l/publishers/google/models/text-embedding-005:predict";
    assert_eq!(quantity(&Exchange::new("vertex", embedding, JSON, body).reading(), Q::Images), None);
}

#[test]
fn a_transcription_is_billed_by_tokens_or_by_seconds() {
    const PATH: &str = "/v1/audio/transcriptions";
    let exchange = transcript!("openai", PATH, JSON, "transcription-tokens.json");
    check(&exchange, &[(C::InputFresh, 10), (C::InputAudio, 37), (C::OutputText, 134)]);
    let exchange = transcript!("openai", PATH, SSE, "transcription.sse");
    check(&exchange, &[(C::InputFresh, 0), (C::InputAudio, 37), (C::OutputText, 145)]);
    let exchange = transcript!("openai", PATH, JSON, "transcription-seconds.json");
    check_units(&exchange, &[(Q::AudioMillis, 4_000)]);
    let exchange = transcript!("groq", PATH, JSON, "transcription-verbose.json");
    check_units(&exchange, &[(Q::AudioMillis, 3_250)]);
    let exchange = transcript!("mistral", PATH, JSON, "transcription-mistral.json");
    let reading = check(
        &exchange,
        &[(C::InputFresh, 5), (C::InputAudio, 375), (C::CachedRead, 0), (C::OutputText, 20)],
    );
    assert_eq!(quantity(&reading, Q::AudioMillis), Some(3_000));
    assert_eq!(text(reading.tier.as_ref()), Some("standard"));
    let error = br#"{"error":{"message":"no"},"usage":{"type":"duration","seconds":0}}"#;
    let refused = Exchange::new("openai", PATH, JSON, error).status(400).reading();
    assert_eq!((refused.outcome, refused.metering), (Outcome::Error, Metering::Never));
}

#[test]
fn sound_and_subtitles_are_made_and_tell_nothing() {
    for (path, content_type) in
        [("/v1/audio/speech", "audio/mpeg"), ("/v1/audio/transcriptions", "text/plain; charset=utf-8")]
    {
        let reading = Exchange::new("openai", path, content_type, b"{\"usage\": 17 \xff").whole();
        assert_eq!((reading.outcome, reading.metering), (Outcome::Ok, Metering::Count));
        assert_eq!((reading.usage_source, anomalies(&reading)), (UsageSource::Absent, vec![]));
        let cut = Exchange::new("openai", path, content_type, b"x").read([&b"x"[..]], Ending::UpstreamCut);
        assert_eq!((cut.outcome, cut.metering), (Outcome::ErrorMidstream, Metering::Count));
        let refused = Exchange::new("openai", path, content_type, b"x").status(500).whole();
        assert_eq!((refused.outcome, refused.metering), (Outcome::Error, Metering::Never));
    }
    let exchange = transcript!("openai", "/v1/audio/speech", SSE, "speech.sse");
    check(&exchange, &[(C::InputFresh, 14), (C::OutputText, 0), (C::OutputAudio, 101)]);
}

#[test]
fn documents_are_billed_by_the_page() {
    let exchange = transcript!("mistral", "/v1/ocr", JSON, "ocr.json");
    let reading = check_units(&exchange, &[(Q::Pages, 2)]);
    assert_eq!(text(reading.model_served.as_ref()), Some("made-up-ocr"));
}

#[test]
fn ranking_is_billed_by_tokens_or_by_search_units() {
    for (provider, exchange, input) in [
        ("voyage", transcript!("voyage", "/v1/rerank", JSON, "rerank-voyage.json"), 43),
        ("jina", transcript!("jina", "/v1/rerank", JSON, "rerank-jina.json"), 815),
        ("openrouter", transcript!("openrouter", "/api/v1/rerank", JSON, "rerank-openrouter.json"), 17),
        ("together", transcript!("together", "/v1/rerank", JSON, "rerank-together.json"), 2_966),
    ] {
        let reading = check(&exchange, &[(C::InputFresh, input), (C::OutputText, 0)]);
        assert!(reading.model_served.is_some(), "{provider}");
    }
    let exchange = transcript!("azure", "/v2/rerank", JSON, "cohere-rerank.json");
    check_units(&exchange, &[(Q::SearchUnits, 3)]);
    let body = br#"{"model":"m","results":[],"usage":{"search_units":2,"cost":0.004}}"#;
    let reading =
        check_units(&Exchange::new("openrouter", "/api/v1/rerank", JSON, body), &[(Q::SearchUnits, 2)]);
    assert_eq!(cost(&reading).as_deref(), Some("0.004"));
}

// === quirks of providers ===

#[test]
fn fireworks_tells_its_prompt_in_a_header_when_nothing_else_does() {
    let exchange = transcript!("fireworks", CHAT, SSE, "openai-chat-unasked.sse")
        .header("fireworks-prompt-tokens", "120")
        .header("fireworks-cached-prompt-tokens", "20");
    let reading = exchange.reading();
    assert_eq!(tokens(&reading), [(C::InputFresh, 100), (C::CachedRead, 20)]);
    assert_eq!((reading.outcome, reading.usage_source), (Outcome::Ok, UsageSource::ProviderPartial));
    let refused = Exchange::new("fireworks", CHAT, JSON, br#"{"error":{"message":"no"}}"#)
        .header("fireworks-prompt-tokens", "120")
        .status(400)
        .reading();
    assert_eq!((refused.metering, refused.usage.has_tokens()), (Metering::Never, false));
}

#[test]
fn azure_tells_the_served_model_in_a_header_when_the_body_does_not() {
    let path = "/openai/deployments/d/images/generations";
    let exchange = transcript!("azure", path, JSON, "images.json").header("x-ms-served-model", "gpt-image-1");
    assert_eq!(text(exchange.reading().model_served.as_ref()), Some("gpt-image-1"));
    let exchange =
        transcript!("azure", CHAT, SSE, "azure-chat.sse").header("x-ms-served-model", "something-else");
    assert_eq!(text(exchange.reading().model_served.as_ref()), Some("gpt-4.1-mini-2025-04-14"));
}

#[test]
fn writer_has_its_chat_on_a_path_of_its_own() {
    let exchange = transcript!("writer", "/v1/chat", SSE, "openai-chat.sse");
    check(
        &exchange,
        &[
            (C::InputFresh, 21),
            (C::InputAudio, 0),
            (C::CachedRead, 0),
            (C::OutputText, 7),
            (C::OutputReasoning, 0),
            (C::OutputAudio, 0),
        ],
    );
}

#[test]
fn a_copy_of_the_cached_tokens_is_no_second_cache() {
    let body = br#"{"id":"v","model":"m","choices":[],"usage":{"prompt_tokens":50,"completion_tokens":1,"total_tokens":51,"cache_read_input_tokens":40,"prompt_tokens_details":{"cached_tokens":40}}}"#;
    let exchange = Exchange::new("venice", CHAT, JSON, body);
    check(&exchange, &[(C::InputFresh, 10), (C::CachedRead, 40), (C::OutputText, 1)]);
}

// === assistants ===

#[test]
fn a_run_counts_once_per_id_and_holds_its_steps() {
    const POLL: &str = "/v1/threads/thread_1/runs/run_made_up";
    let poll = transcript!("openai", POLL, JSON, "run.json").method(Method::GET).reading();
    assert_eq!(
        tokens(&poll),
        [(C::InputFresh, 300), (C::CachedRead, 81), (C::OutputText, 89), (C::OutputReasoning, 0)]
    );
    let stream = transcript!("openai", "/v1/threads/thread_1/runs", SSE, "run.sse").reading();
    assert_eq!((stream.usage.input_total(), stream.usage.output_total()), (Some(381), Some(88)));
    assert!(stream.stream);
    let queued = transcript!("openai", "/v1/threads/runs", JSON, "run-queued.json").reading();
    assert!(!queued.usage.has_tokens());
    for reading in [poll, stream, queued] {
        assert_eq!((reading.outcome, reading.metering), (Outcome::Ok, Metering::OncePerId));
        assert_eq!(text(reading.meter_id.as_ref()), Some("run_made_up"));
        assert_eq!(text(reading.model_served.as_ref()), Some("gpt-4o-mini"));
    }
    let failed = br#"{"id":"run_1","object":"thread.run","status":"failed","model":"m","usage":{"prompt_tokens":1,"completion_tokens":0}}"#;
    let failed = Exchange::new("openai", POLL, JSON, failed).method(Method::GET).reading();
    assert_eq!((failed.outcome, failed.metering), (Outcome::Failed, Metering::OncePerId));
}

// === batches ===

fn lines(reading: &Reading) -> Vec<(String, Option<u64>, Option<u64>)> {
    let Some(BatchReading::Results(lines)) = &reading.batch else { return Vec::new() };
    lines
        .iter()
        .map(|line| (line.id.to_owned(), line.usage.input_total(), line.usage.output_total()))
        .collect()
}

fn line(id: &str, input: u64, output: u64) -> (String, Option<u64>, Option<u64>) {
    (id.to_owned(), Some(input), Some(output))
}

#[test]
fn each_line_of_a_batchs_output_is_read_by_its_own_api() {
    let path = "/v1/files/file-out/content";
    let exchange =
        transcript!("openai", path, "application/octet-stream", "batch-output.jsonl").method(Method::GET);
    let reading = exchange.reading();
    assert_eq!(
        lines(&reading),
        [line("resp_1", 18, 109), line("chatcmpl-2", 20, 5), line("batch_req_4", 7, 0)]
    );
    assert_eq!((reading.usage.input_total(), reading.usage.output_total()), (Some(45), Some(114)));
    assert_eq!((reading.outcome, reading.metering), (Outcome::Ok, Metering::Count));
    assert_eq!(text(reading.tier.as_ref()), Some("batch"));
    let parts: Vec<_> = reading.by_model.iter().map(|part| text(part.model.as_ref())).collect();
    assert_eq!(parts, [Some("made-up-nano"), Some("made-up-chat")]);
    assert_eq!((reading.meter_id.is_none(), reading.stream), (true, true));
}

#[test]
fn a_file_that_is_no_output_of_a_batch_counts_nothing_and_is_no_news() {
    let path = "/v1/files/file-in/content";
    let input = transcript!("openai", path, "", "batch-input.jsonl").method(Method::GET);
    let pdf =
        Exchange::new("openai", path, "application/pdf", b"%PDF-1.7\n{\n\xff\xfe\n").method(Method::GET);
    let empty = Exchange::new("openai", path, "", b"").method(Method::GET);
    for exchange in [input, pdf, empty] {
        let reading = exchange.reading();
        assert_eq!((reading.outcome, reading.metering), (Outcome::Ok, Metering::Never));
        assert!(reading.usage.is_unknown() && reading.batch.is_none() && reading.anomalies.is_empty());
    }
}

#[test]
fn the_results_of_an_anthropic_batch_are_messages() {
    let path = "/v1/messages/batches/msgbatch_1/results";
    let exchange = transcript!("anthropic", path, "application/x-jsonl", "messages-batch-results.jsonl")
        .method(Method::GET);
    let reading = exchange.reading();
    assert_eq!(lines(&reading), [line("msg_1", 55, 5), line("msg_2", 1, 2)]);
    assert_eq!(
        tokens(&reading),
        [
            (C::InputFresh, 21),
            (C::CachedRead, 5),
            (C::CacheWrite5m, 10),
            (C::CacheWrite1h, 20),
            (C::OutputText, 7)
        ]
    );
    assert_eq!((reading.metering, text(reading.tier.as_ref())), (Metering::Count, Some("batch")));
    assert_eq!((text(reading.model_served.as_ref()), reading.by_model.len()), (Some("made-up-claude"), 0));
}

#[test]
fn xai_lists_the_results_of_a_batch_with_their_charges() {
    let path = "/v1/batches/batch_1/results?limit=100";
    let exchange = transcript!("xai", path, JSON, "batch-results-xai.json").method(Method::GET);
    let reading = exchange.reading();
    assert_eq!(lines(&reading), [line("x-1", 204, 83), line("#2", 4, 2)]);
    assert_eq!(cost(&reading).as_deref(), Some("0.0004332"));
    assert_eq!((reading.metering, text(reading.tier.as_ref())), (Metering::Count, Some("batch")));
}

#[test]
fn a_batch_repeats_totals_that_never_count_and_names_its_files() {
    let names = |reading: Reading| match reading.batch {
        Some(BatchReading::Names(names)) => names
            .iter()
            .map(|n| (n.batch.to_string(), n.files.iter().map(ToString::to_string).collect::<Vec<_>>()))
            .collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    let files = |files: &[&str]| files.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>();
    for (method, path) in [(Method::POST, "/v1/batches"), (Method::GET, "/v1/batches/batch_made_up")] {
        let reading = transcript!("openai", path, JSON, "batch.json").method(method).whole();
        assert_eq!((reading.outcome, reading.metering), (Outcome::Ok, Metering::Never));
        assert!(reading.usage.is_unknown());
        assert_eq!(names(reading), [("batch_made_up".to_owned(), files(&["file-out", "file-err"]))]);
    }
    let list = transcript!("openai", "/v1/batches", JSON, "batches.json").method(Method::GET).whole();
    assert_eq!(names(list), [("batch_a".to_owned(), files(&["file-a"])), ("batch_b".to_owned(), files(&[]))]);
    let refused = transcript!("openai", "/v1/batches", JSON, "batch.json").status(400).whole();
    assert_eq!((refused.outcome, names(refused)), (Outcome::Error, vec![]));
}

fn operation(body: &'static [u8]) -> Exchange {
    Exchange::new("gemini", "/v1beta/batches/b-made-up", JSON, body).method(Method::GET)
}

macro_rules! operation {
    ($name:literal) => {
        transcript!("gemini", "/v1beta/batches/b-made-up", JSON, $name).method(Method::GET)
    };
}

fn names(reading: &Reading) -> Vec<(String, Vec<String>)> {
    let Some(BatchReading::Names(names)) = &reading.batch else { return Vec::new() };
    let text = ToString::to_string;
    names.iter().map(|one| (text(&one.batch), one.files.iter().map(text).collect())).collect()
}

fn models(reading: &Reading) -> Vec<Option<String>> {
    let Some(BatchReading::Results(lines)) = &reading.batch else { return Vec::new() };
    lines.iter().map(|line| line.model.map(ToString::to_string)).collect()
}

#[test]
fn results_that_a_gemini_batch_holds_are_read_once_each_though_they_stand_there_twice() {
    let reading = operation!("gemini-batch-inline.json").reading();
    assert_eq!(lines(&reading), [line("r-1", 11, 24), line("#third", 7, 3), line("##3", 6, 2)]);
    let (known, of_batch) = (Some("made-up-flash-001".to_owned()), Some("made-up-flash".to_owned()));
    assert_eq!(models(&reading), [known.clone(), known, of_batch]);
    assert_eq!(
        tokens(&reading),
        [
            (C::InputFresh, 19),
            (C::InputAudio, 0),
            (C::InputImage, 0),
            (C::InputVideo, 0),
            (C::CachedRead, 5),
            (C::OutputText, 9),
            (C::OutputReasoning, 20)
        ]
    );
    assert_eq!(quantity(&reading, Q::WebSearchRequests), Some(2));
    assert_eq!((reading.outcome, reading.metering), (Outcome::Ok, Metering::Count));
    assert_eq!(text(reading.tier.as_ref()), Some("batch"));
    assert!(anomalies(&reading).is_empty());
}

#[test]
fn a_gemini_batch_of_embeddings_names_the_model_for_its_results() {
    let reading = operation!("gemini-batch-embeddings.json").reading();
    assert_eq!(lines(&reading), [line("#a", 12, 0), line("##1", 5, 0), line("##3", 3, 0)]);
    assert_eq!(models(&reading), vec![Some("made-up-embedding".to_owned()); 3]);
    assert_eq!((reading.metering, text(reading.tier.as_ref())), (Metering::Count, Some("batch")));
}

#[test]
fn the_results_file_of_a_gemini_batch_is_read_line_by_line() {
    let path = "/download/v1beta/files/batch-f-made-up:download?alt=media";
    let exchange = transcript!("gemini", path, "application/octet-stream", "gemini-batch-file.jsonl");
    let reading = exchange.method(Method::GET).reading();
    assert_eq!(
        lines(&reading),
        [line("r-1", 11, 4), line("#third", 7, 2), line("#fourth", 3, 0), line("##4", 4, 0)]
    );
    assert_eq!(reading.usage.get(C::InputAudio), Some(6));
    assert_eq!((reading.outcome, reading.metering), (Outcome::Ok, Metering::Count));
    assert_eq!(text(reading.tier.as_ref()), Some("batch"));
}

#[test]
fn a_gemini_batch_that_has_no_results_yet_names_itself_and_its_file() {
    let owned = |names: &[(&str, &[&str])]| {
        names
            .iter()
            .map(|(batch, files)| ((*batch).to_owned(), files.iter().map(|f| (*f).to_owned()).collect()))
            .collect::<Vec<(String, Vec<String>)>>()
    };
    let create = "/v1beta/models/made-up-flash:batchGenerateContent";
    let made = transcript!("gemini", create, JSON, "gemini-batch-made.json").reading();
    assert_eq!(names(&made), owned(&[("b-made-up", &[])]));
    assert_eq!((made.outcome, made.metering), (Outcome::Ok, Metering::Never));
    let running = operation!("gemini-batch-made.json").reading();
    assert_eq!((names(&running), running.metering), (owned(&[("b-made-up", &[])]), Metering::Never));
    let file = operation!("gemini-batch-of-file.json").reading();
    assert_eq!(names(&file), owned(&[("f-made-up", &["batch-f-made-up"])]));
    assert_eq!((file.metering, file.usage.is_unknown()), (Metering::Never, true));
    let list = transcript!("gemini", "/v1beta/batches", JSON, "gemini-batches.json").method(Method::GET);
    let list = list.reading();
    assert_eq!(names(&list), owned(&[("a", &["batch-a"]), ("b", &[]), ("c", &[])]));
    assert_eq!(list.metering, Metering::Never);
    let failed = br#"{"name":"batches/x","done":true,"error":{"code":13,"message":"no"}}"#;
    let failed = operation(failed).reading();
    assert_eq!((failed.outcome, names(&failed)), (Outcome::Ok, owned(&[("x", &[])])));
    let refused = operation(br#"{"error":{"code":404,"status":"NOT_FOUND"}}"#).status(404).reading();
    assert_eq!((refused.outcome, names(&refused)), (Outcome::Error, vec![]));
}

#[test]
fn a_list_without_its_inner_name_and_a_prediction_of_numbers_as_text_are_read() {
    let body = br#"{"name":"batches/x","response":{"inlinedResponses":[{"response":{"usageMetadata":{"promptTokenCount":3,"totalTokenCount":3},"responseId":"a"}}]}}"#;
    let reading = operation(body).reading();
    assert_eq!(lines(&reading), [line("a", 3, 0)]);
    let body = br#"{"name":"batches/x","response":{"output":{"inlinedEmbedContentResponses":{"inlinedResponses":[{"response":{"tokenCount":"x","embedding":{}}}]}}}}"#;
    let reading = operation(body).reading();
    assert_eq!((lines(&reading).len(), anomalies(&reading)), (0, vec![Anomaly::InvalidCount]));
}

// === hostility ===

fn shapes() -> Vec<Exchange> {
    vec![
        transcript!("cohere", "/v2/chat", SSE, "cohere-chat-v2.sse"),
        transcript!("cohere", "/v1/chat", COHERE_LINES, "cohere-chat-v1.ndjson"),
        transcript!("cohere", "/v2/chat", JSON, "cohere-chat-v2.json"),
        transcript!("ollama", "/api/chat", NDJSON, "ollama-chat.ndjson"),
        transcript!("ollama", "/api/chat", JSON, "ollama-chat.json"),
        transcript!("openai", "/v1/images/edits", SSE, "images.sse"),
        transcript!("openai", "/v1/audio/transcriptions", SSE, "transcription.sse"),
        transcript!("openai", "/v1/threads/t/runs", SSE, "run.sse"),
        transcript!("openai", "/v1/files/f/content", "", "batch-output.jsonl").method(Method::GET),
        transcript!("anthropic", "/v1/messages/batches/b/results", "", "messages-batch-results.jsonl")
            .method(Method::GET),
        transcript!("xai", "/v1/batches/b/results", JSON, "batch-results-xai.json").method(Method::GET),
        transcript!("openai", "/v1/batches", JSON, "batches.json"),
        transcript!("voyage", "/v1/rerank", JSON, "rerank-voyage.json"),
        operation!("gemini-batch-inline.json"),
        operation!("gemini-batch-embeddings.json"),
        transcript!("gemini", "/v1beta/files/f:download", "", "gemini-batch-file.jsonl").method(Method::GET),
    ]
}

proptest! {
    #[test]
    fn any_slicing_of_any_shape_gives_the_same_reading(
        which in 0_usize..16, sizes in prop::collection::vec(1_usize..300, 1..12),
    ) {
        let exchange = shapes().swap_remove(which);
        let pieces = slices(&exchange.body, &sizes);
        prop_assert_eq!(exchange.read(pieces, Ending::Complete), exchange.whole());
    }

    #[test]
    fn damaged_shapes_are_survived_alike_in_any_slicing(
        which in 0_usize..16,
        damage in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![
            Just(b'"'), Just(b'\\'), Just(b'{'), Just(b'}'), Just(b'\n'), Just(b'9'), Just(b'-'), any::<u8>()]), 1..6),
        repeat in any::<prop::sample::Index>(),
        sizes in prop::collection::vec(1_usize..300, 1..12),
    ) {
        let mut exchange = shapes().swap_remove(which);
        for (at, byte) in damage {
            let at = at.index(exchange.body.len());
            exchange.body[at] = byte;
        }
        let from = repeat.index(exchange.body.len());
        exchange.body.extend_from_within(from..);
        let whole = exchange.whole();
        prop_assert_eq!(exchange.read(slices(&exchange.body, &sizes), Ending::Complete), whole.clone());
        prop_assert_eq!(exchange.read(exchange.body.chunks(1), Ending::Complete), whole);
    }
}

#[test]
fn a_line_of_any_size_costs_no_memory_and_the_next_one_is_read() {
    let mut body = br#"{"model":"m","message":{"content":""#.to_vec();
    body.extend(std::iter::repeat_n(b'x', 3 << 20));
    body.extend(
        b"\"},\"done\":false}\n{\"model\":\"m\",\"done\":true,\"prompt_eval_count\":3,\"eval_count\":4}\n",
    );
    let reading = Exchange::new("ollama", "/api/chat", NDJSON, &body).whole();
    assert_eq!(tokens(&reading), [(C::InputFresh, 3), (C::OutputText, 4)]);
    assert_eq!((reading.outcome, anomalies(&reading)), (Outcome::Ok, vec![Anomaly::MeteringCapped]));
}

#[test]
fn more_lines_than_any_batch_has_are_told_and_not_kept() {
    use bursar_domain::batch::LINES_MAX;
    let line = b"{\"id\":\"b\",\"response\":{\"body\":{\"model\":\"m\",\"usage\":{\"prompt_tokens\":1}}}}\n";
    let body = line.repeat(LINES_MAX + 2);
    let reading = Exchange::new("openai", "/v1/files/f/content", "", &body).method(Method::GET).whole();
    assert_eq!(lines(&reading).len(), LINES_MAX);
    assert!(reading.anomalies.contains(Anomaly::MeteringCapped));
}
