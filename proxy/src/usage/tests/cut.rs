//! Every stream among the transcripts, cut at every byte (T13): what was counted until then is no more than the
//! whole, and what is not whole is told.
//!
//! Not here: what each of them tells when it is whole (the other tests), cuts of a connection
//! (`tests/broken_streams.rs`, `tests/cuts.rs`).

use super::*;

const NDJSON: &str = "application/x-ndjson";
const GEMINI: &str = "/v1beta/models/gemini-3-flash:streamGenerateContent?alt=sse";
const VERTEX: &str =
    "/v1/projects/p/locations/global/publishers/google/models/gemini-3-flash:streamGenerateContent?alt=sse";

/// How names of files begin, and whose stream it is, of which path and type. Of several the longest counts.
const STREAMS: &[(&str, &str, &str, &str)] = &[
    ("azure-chat", "azure", "/openai/deployments/d/chat/completions", SSE),
    ("cohere-chat-v1", "cohere", "/v1/chat", "application/stream+json"),
    ("cohere-chat-v2", "cohere", "/v2/chat", SSE),
    ("gemini-content", "gemini", GEMINI, SSE),
    ("gemini-interaction", "gemini", "/v1beta/interactions", SSE),
    ("gpustack-chat", "gpustack", CHAT, SSE),
    ("groq-chat", "groq", CHAT, SSE),
    ("images", "openai", "/v1/images/edits", SSE),
    ("messages", "anthropic", MESSAGES, SSE),
    ("mistral-chat", "mistral", CHAT, SSE),
    ("ollama-chat", "ollama", "/api/chat", NDJSON),
    ("ollama-generate", "ollama", "/api/generate", NDJSON),
    ("openai-chat", "openai", CHAT, SSE),
    ("openrouter-chat", "openrouter", CHAT, SSE),
    ("perplexity-chat", "perplexity", CHAT, SSE),
    ("responses", "openai", RESPONSES, SSE),
    ("run", "openai", "/v1/threads/t/runs", SSE),
    ("speech", "openai", "/v1/audio/speech", SSE),
    ("transcription", "openai", "/v1/audio/transcriptions", SSE),
    ("vertex-content", "vertex", VERTEX, SSE),
    ("vllm-chat", "vllm", CHAT, SSE),
];

/// Whose provider lowers its count on the way, so that a part may have more than the whole.
const LOWERED: &[&str] = &["gemini-content-shrinking.sse"];

#[test]
fn every_stream_among_the_transcripts_is_told_cut_wherever_it_is_cut() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/usage/transcripts");
    let mut streams = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let is_stream = name.ends_with(".sse") || name.ends_with(".ndjson");
        if !is_stream || LOWERED.contains(&name.as_str()) {
            continue;
        }
        let known = STREAMS.iter().filter(|(start, ..)| name.starts_with(start));
        let found = known.max_by_key(|(start, ..)| start.len());
        let (_, provider, path_asked, kind) = found.unwrap_or_else(|| panic!("{name}: of which API is it?"));
        let exchange = Exchange::new(provider, path_asked, kind, &std::fs::read(&path).unwrap());
        let whole = exchange.reading();
        let counts = whole.metering != Metering::Never || whole.outcome == Outcome::Error;
        assert!(counts, "{name} is read as what does not count");
        streams += 1;
    }
    assert!(streams >= 30, "{streams}");
}
