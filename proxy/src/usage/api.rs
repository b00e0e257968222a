//! Which API a request calls: from method and path alone, never from what a body looks like.
//!
//! Invariants
//! - Every request has an API; what is not known here is `unmetered`.
//! - Empty segments, percent-encoding and other cases of letters do not hide an API: servers differ in
//!   whether case matters in a path, so a path that is known but for that is the one that it looks like.
//!
//! Not here: providers' deviations within an API (`flavour`), Google's methods (`google_path`).

use super::batch::bare_name;
use super::google_path;
use bursar_domain::Label;
use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::borrow::Cow;
use std::sync::OnceLock;

/// An API within a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Api {
    /// OpenAI chat completions.
    OpenAiChat,
    /// OpenAI responses: making one.
    Responses,
    /// OpenAI responses: compaction of a conversation, which is billed like a response.
    ResponsesCompact,
    /// OpenAI responses: reading (or cancelling) a stored one; its usage counts once per id.
    ResponsesGet,
    /// OpenAI chat completions: reading or changing stored ones; never counts.
    ChatStoreGet,
    /// OpenAI completions without messages.
    LegacyCompletions,
    /// OpenAI embeddings.
    Embeddings,
    /// OpenAI moderations; free.
    Moderation,
    /// Anthropic messages.
    Messages,
    /// OpenAI's realtime sessions over WebSocket, and those made like them (Azure, xAI).
    Realtime,
    /// Gemini's and Vertex's live sessions over WebSocket.
    Live,
    /// Gemini's generated content.
    GenerateContent,
    /// Gemini's generated content as a stream: events, or one array.
    StreamGenerateContent,
    /// Gemini's embeddings, and Vertex's predictions that are such.
    EmbedContent,
    /// Google's interactions: making one.
    Interactions,
    /// Google's interactions: reading (or cancelling) a stored one; its usage counts once per id.
    InteractionsGet,
    /// Counting tokens without a generation; free.
    CountTokens,
    /// Bedrock's Converse.
    Converse,
    /// Bedrock's ConverseStream.
    ConverseStream,
    /// Bedrock's InvokeModel.
    Invoke,
    /// Bedrock's InvokeModelWithResponseStream.
    InvokeStream,
    /// Cohere chat, version 1.
    CohereChatV1,
    /// Cohere chat, version 2.
    CohereChat,
    /// Cohere embeddings.
    CohereEmbed,
    /// Cohere classification.
    CohereClassify,
    /// Ollama's own chat.
    OllamaChat,
    /// Ollama's own completions.
    OllamaGenerate,
    /// Ollama's own embeddings.
    OllamaEmbed,
    /// Ranking documents by their relevance, of every provider.
    Rerank,
    /// Making or changing images.
    Images,
    /// Speech to text.
    Transcription,
    /// Text to speech.
    Speech,
    /// Reading documents (Mistral).
    Ocr,
    /// OpenAI assistants: starting or reading a run; its usage counts once per id.
    AssistantsRun,
    /// Making a batch; never counts, its output does.
    BatchCreate,
    /// Reading how far batches are; never counts.
    Batch,
    /// The content of a file, which may be the output of a batch: each line counts once.
    BatchOutput,
    /// The results of an Anthropic batch: each line counts once.
    MessagesBatchResults,
    /// The results of an xAI batch: each one counts once.
    BatchResults,
    /// Google's batches: making one; never counts, its results do.
    GeminiBatchCreate,
    /// Google's batches: reading how far they are, and the results that one holds, each of which counts once.
    GeminiBatch,
    /// A call that is passed through and not metered.
    Unmetered,
}

/// How many there are.
const COUNT: usize = Api::Unmetered as usize + 1;

impl Api {
    /// Every API, in their order.
    pub const ALL: [Self; COUNT] = [
        Self::OpenAiChat,
        Self::Responses,
        Self::ResponsesCompact,
        Self::ResponsesGet,
        Self::ChatStoreGet,
        Self::LegacyCompletions,
        Self::Embeddings,
        Self::Moderation,
        Self::Messages,
        Self::Realtime,
        Self::Live,
        Self::GenerateContent,
        Self::StreamGenerateContent,
        Self::EmbedContent,
        Self::Interactions,
        Self::InteractionsGet,
        Self::CountTokens,
        Self::Converse,
        Self::ConverseStream,
        Self::Invoke,
        Self::InvokeStream,
        Self::CohereChatV1,
        Self::CohereChat,
        Self::CohereEmbed,
        Self::CohereClassify,
        Self::OllamaChat,
        Self::OllamaGenerate,
        Self::OllamaEmbed,
        Self::Rerank,
        Self::Images,
        Self::Transcription,
        Self::Speech,
        Self::Ocr,
        Self::AssistantsRun,
        Self::BatchCreate,
        Self::Batch,
        Self::BatchOutput,
        Self::MessagesBatchResults,
        Self::BatchResults,
        Self::GeminiBatchCreate,
        Self::GeminiBatch,
        Self::Unmetered,
    ];

    /// The name in usage records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenAiChat => "openai-chat",
            Self::Responses => "responses",
            Self::ResponsesCompact => "responses-compact",
            Self::ResponsesGet => "responses-get",
            Self::ChatStoreGet => "chat-store-get",
            Self::LegacyCompletions => "legacy-completions",
            Self::Embeddings | Self::EmbedContent => "embeddings",
            Self::Moderation => "moderation",
            Self::Messages => "messages",
            // One name: the provider tells the shape.
            Self::Realtime | Self::Live => "realtime",
            Self::GenerateContent => "generate-content",
            Self::StreamGenerateContent => "stream-generate-content",
            Self::Interactions => "interactions",
            Self::InteractionsGet => "interactions-get",
            Self::CountTokens => "count-tokens",
            Self::Converse => "converse",
            Self::ConverseStream => "converse-stream",
            Self::Invoke => "invoke",
            Self::InvokeStream => "invoke-stream",
            Self::CohereChatV1 => "chat-v1",
            Self::CohereChat => "cohere-chat-v2",
            Self::CohereEmbed => "cohere-embed",
            Self::CohereClassify => "classify",
            Self::OllamaChat => "ollama-chat",
            Self::OllamaGenerate => "ollama-generate",
            Self::OllamaEmbed => "ollama-embed",
            Self::Rerank => "rerank",
            Self::Images => "images",
            Self::Transcription => "transcription",
            Self::Speech => "speech",
            Self::Ocr => "ocr",
            Self::AssistantsRun => "assistants-run",
            Self::BatchCreate | Self::GeminiBatchCreate => "batch-create",
            Self::Batch | Self::GeminiBatch => "batch",
            Self::BatchOutput => "batch-output",
            Self::MessagesBatchResults => "messages-batch-results",
            Self::BatchResults => "batch-results",
            Self::Unmetered => "unmetered",
        }
    }

    /// The name as a label; shared, since every record has one.
    #[must_use]
    pub fn label(self) -> Label {
        static LABELS: [OnceLock<Label>; COUNT] = [const { OnceLock::new() }; COUNT];
        let make = || Label::fixed(self.name());
        LABELS.get(self as usize).map_or_else(make, |label| label.get_or_init(make).clone())
    }

    /// Whether a reply of this API can count at all.
    #[must_use]
    pub const fn is_metered(self) -> bool {
        !matches!(
            self,
            Self::ChatStoreGet
                | Self::Moderation
                | Self::CountTokens
                | Self::BatchCreate
                | Self::GeminiBatchCreate
                | Self::Batch
                | Self::Unmetered
        )
    }

    /// Whether a request of this API always has a body.
    #[must_use]
    pub const fn has_body(self) -> bool {
        !matches!(
            self,
            Self::ResponsesGet
                | Self::ChatStoreGet
                | Self::InteractionsGet
                | Self::AssistantsRun
                | Self::Batch
                | Self::BatchOutput
                | Self::MessagesBatchResults
                | Self::BatchResults
                | Self::GeminiBatch
        )
    }

    /// The APIs whose replies hold the results of a batch.
    pub const BATCH_RESULTS: [Self; 4] =
        [Self::BatchOutput, Self::MessagesBatchResults, Self::BatchResults, Self::GeminiBatch];

    /// Whether a reply of this API holds the results of a batch.
    #[must_use]
    pub fn is_batch_results(self) -> bool {
        Self::BATCH_RESULTS.contains(&self)
    }

    /// Whether it makes a batch, which then belongs to whoever called.
    #[must_use]
    pub const fn makes_batch(self) -> bool {
        matches!(self, Self::BatchCreate | Self::GeminiBatchCreate)
    }

    /// Whether it is spoken over WebSocket.
    #[must_use]
    pub const fn is_session(self) -> bool {
        matches!(self, Self::Realtime | Self::Live)
    }

    /// Whether this API streams whatever the body asks for.
    #[must_use]
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::StreamGenerateContent | Self::ConverseStream | Self::InvokeStream)
    }

    /// The model that is asked for, by the names in the body and in the path. Google's methods and
    /// Bedrock's act on the path's, whatever the body repeats; elsewhere the body's comes first.
    #[must_use]
    pub fn requested_model(self, body: Option<Label>, path: Option<Label>) -> Option<Label> {
        match self {
            Self::GenerateContent | Self::StreamGenerateContent | Self::EmbedContent => path.or(body),
            Self::Converse | Self::ConverseStream | Self::Invoke | Self::InvokeStream => path.or(body),
            _ => body.or(path),
        }
    }

    /// Whether `stream_options.include_usage` exists in this API.
    #[must_use]
    pub const fn has_include_usage(self) -> bool {
        matches!(self, Self::OpenAiChat | Self::LegacyCompletions)
    }
}

/// The API of Cohere that `method` on `path` calls; its OpenAI-like one included.
#[must_use]
pub fn cohere_api_of(method: &Method, path: &str) -> Api {
    let path = decoded(path);
    if *method != Method::POST {
        return Api::Unmetered;
    }
    in_any_case(&path, |path| cohere_api_of_decoded(method, path))
}

fn cohere_api_of_decoded(method: &Method, path: &str) -> Api {
    match tail(path) {
        [_, _, "v1", "chat"] => Api::CohereChatV1,
        [_, _, "v2", "chat"] => Api::CohereChat,
        [_, _, "v1" | "v2", "embed"] => Api::CohereEmbed,
        [_, _, "v1" | "v2", "classify"] => Api::CohereClassify,
        [_, _, "v1", "tokenize" | "detokenize"] => Api::CountTokens,
        _ => api_of_decoded(method, path),
    }
}

/// What `api_of` says of `path` in lower case, and without the dots and spaces at the ends of segments that
/// some servers drop.
fn in_any_case(path: &str, api_of: impl Fn(&str) -> Api) -> Api {
    let mut bytes = path.bytes().zip(path.bytes().skip(1).chain([b'/']));
    let is_odd = |(byte, next): (u8, u8)| {
        byte.is_ascii_uppercase() || (matches!(byte, b'.' | b' ') && matches!(next, b'.' | b' ' | b'/'))
    };
    if !bytes.any(is_odd) {
        return api_of(path);
    }
    let plain = |segment: &str| segment.trim_end_matches(['.', ' ']).to_ascii_lowercase();
    let plain: Vec<String> = path.split('/').map(plain).collect();
    api_of(&plain.join("/"))
}

/// The API of Ollama that `method` on `path` calls; its OpenAI-like one included.
#[must_use]
pub fn ollama_api_of(method: &Method, path: &str) -> Api {
    in_any_case(&decoded(path), |path| match (*method == Method::POST, tail(path)) {
        (true, [_, _, "api", "chat"]) => Api::OllamaChat,
        (true, [_, _, "api", "generate"]) => Api::OllamaGenerate,
        (true, [_, _, "api", "embed" | "embeddings"]) => Api::OllamaEmbed,
        _ => api_of_decoded(method, path),
    })
}

/// The API of Google that `method` on `path` calls; those of others that it offers included.
#[must_use]
pub fn google_api_of(method: &Method, path: &str) -> Api {
    if *method != Method::GET || without_query(path).contains("/openai/") {
        return api_of(method, path);
    }
    let decoded = decoded(path);
    match tail(&decoded) {
        [_, _, _, "batches"] | [_, _, "batches", _] => Api::GeminiBatch,
        [_, _, "files", name] if name.ends_with(DOWNLOAD) => Api::BatchOutput,
        _ => api_of(method, path),
    }
}

/// Google's method on a file.
const DOWNLOAD: &str = ":download";

fn decoded(path: &str) -> Cow<'_, str> {
    percent_decode_str(without_query(path)).decode_utf8_lossy()
}

/// The API that `method` on `path` calls. A query in `path` is ignored.
#[must_use]
pub fn api_of(method: &Method, path: &str) -> Api {
    let path = without_query(path);
    if *method == Method::POST
        && let Some(api) = bedrock_api(path)
    {
        return api;
    }
    in_any_case(&decoded(path), |path| api_of_decoded(method, path))
}

fn api_of_decoded(method: &Method, path: &str) -> Api {
    let post = *method == Method::POST;
    let get = *method == Method::GET;
    match tail(path) {
        [_, _, "chat", "completions"] if post => Api::OpenAiChat,
        // Nobody changes or deletes the collection: whoever tries may reach who knows what.
        [_, _, "chat", "completions"] if get => Api::ChatStoreGet,
        [_, "chat", "completions", _] | ["chat", "completions", _, "messages"] => Api::ChatStoreGet,
        [_, _, _, "completions"] if post => Api::LegacyCompletions,
        [_, _, _, "embeddings"] if post => Api::Embeddings,
        // Voyage's of pictures and of whole documents.
        [_, _, "v1", "multimodalembeddings" | "contextualizedembeddings"] if post => Api::Embeddings,
        [_, _, _, "moderations"] if post => Api::Moderation,
        [_, _, _, "responses"] if post => Api::Responses,
        [_, _, "responses", "compact"] if post => Api::ResponsesCompact,
        [_, _, "responses", "input_tokens"] if post => Api::CountTokens,
        [_, _, "responses", _] if get => Api::ResponsesGet,
        [_, "responses", _, "cancel"] if post => Api::ResponsesGet,
        [_, "responses", _, "input_items"] if get => Api::ResponsesGet,
        [_, _, _, "realtime"] if get => Api::Realtime,
        [_, _, _, method] if get && is_live(method) => Api::Live,
        [_, "threads", _, "messages"] => Api::Unmetered,
        [_, _, _, "messages"] if post => Api::Messages,
        [_, _, "messages", "count_tokens"] if post => Api::CountTokens,
        [_, _, _, "interactions"] if post => Api::Interactions,
        [_, _, "interactions", _] if get => Api::InteractionsGet,
        [_, "interactions", _, "cancel"] if post => Api::InteractionsGet,
        // Writer's chat, which is OpenAI's otherwise.
        [_, _, "v1", "chat"] if post => Api::OpenAiChat,
        [_, _, _, "rerank" | "reranking"] if post => Api::Rerank,
        [_, _, "images", "generations" | "edits" | "variations"] if post => Api::Images,
        [_, "api", "v1", "images"] if post => Api::Images,
        [_, _, "audio", "transcriptions" | "translations"] if post => Api::Transcription,
        [_, _, "audio", "speech"] if post => Api::Speech,
        [_, _, "v1", "ocr"] if post => Api::Ocr,
        [_, "threads", _, "runs"] | [_, _, "threads", "runs"] if post => Api::AssistantsRun,
        ["threads", _, "runs", _] => Api::AssistantsRun,
        ["runs", ..] | [_, "runs", ..] => run_api_of(method, path),
        tail if post && let Some(api) = google_path::api_of_method(tail) => api,
        _ => batch_api_of(method, path),
    }
}

/// What is done to a run of an assistant: `threads/{thread}/runs/{run}/…`.
fn run_api_of(method: &Method, path: &str) -> Api {
    let path = path.trim_end_matches('/');
    let inside = path.split_once("/threads/").is_some();
    let acts = path.ends_with("/cancel") || path.ends_with("/submit_tool_outputs");
    if inside && acts && *method == Method::POST { Api::AssistantsRun } else { Api::Unmetered }
}

/// Batches and their files.
fn batch_api_of(method: &Method, path: &str) -> Api {
    let get = *method == Method::GET;
    match tail(path) {
        [_, "files", _, "content"] if get => Api::BatchOutput,
        ["messages", "batches", _, "results"] if get => Api::MessagesBatchResults,
        [_, "batches", _, "results"] if get => Api::BatchResults,
        [_, _, _, "batches"] | [_, _, "batch", "jobs"] if *method == Method::POST => Api::BatchCreate,
        [_, _, _, "batches"]
        | [_, _, "batches", _]
        | [_, "batches", _, "cancel"]
        | [_, _, "batch", "jobs"]
        | [_, "batch", "jobs", _]
        | ["batch", "jobs", _, "cancel"] => Api::Batch,
        _ => Api::Unmetered,
    }
}

/// Gemini's method name comes behind its service's, Vertex's alone; short-lived tokens have their own.
fn is_live(method: &str) -> bool {
    let name = method.rsplit('.').next().unwrap_or_default();
    ["BidiGenerateContent", "BidiGenerateContentConstrained"]
        .iter()
        .any(|live| name.eq_ignore_ascii_case(live))
}

/// The last four segments of a path, the last one last; empty where there are fewer.
fn tail(path: &str) -> [&str; 4] {
    let mut last = path.rsplit('/').filter(|segment| !segment.is_empty());
    let mut next = || last.next().unwrap_or_default();
    let (d, c, b, a) = (next(), next(), next(), next());
    [a, b, c, d]
}

/// The API that a path `/model/{id}/{operation}` calls.
fn bedrock_api(path: &str) -> Option<Api> {
    let (_, operation) = bedrock_model(path)?;
    let operation = percent_decode_str(operation).decode_utf8_lossy();
    match &*operation.trim_end_matches(['.', ' ']).to_ascii_lowercase() {
        "converse" => Some(Api::Converse),
        "converse-stream" => Some(Api::ConverseStream),
        "invoke" => Some(Api::Invoke),
        "invoke-with-response-stream" => Some(Api::InvokeStream),
        "count-tokens" => Some(Api::CountTokens),
        _ => None,
    }
}

/// Model and operation of a path of Bedrock's. The model may be an ARN with slashes in it, which most
/// clients escape; so this looks at the path before it is decoded.
fn bedrock_model(path: &str) -> Option<(&str, &str)> {
    let (_, rest) = split_at_segment(path, "model")?;
    let (model, operation) = rest.trim_end_matches('/').rsplit_once('/')?;
    (!model.is_empty()).then_some((model, operation))
}

/// What stands before and after the first segment called `name`, in any case of its letters.
fn split_at_segment<'p>(path: &'p str, name: &str) -> Option<(&'p str, &'p str)> {
    path.match_indices('/').find_map(|(at, _)| {
        let (before, rest) = path.split_at_checked(at)?;
        let (segment, after) = rest.strip_prefix('/')?.split_once('/')?;
        if segment.eq_ignore_ascii_case(name) { Some((before, after)) } else { None }
    })
}

/// Whether a path cancels something that was asked for before: `…/cancel`, or Google's `…:cancel`.
#[must_use]
pub fn is_cancel(path: &str) -> bool {
    let last = without_query(path).trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    last == "cancel" || last.ends_with(":cancel")
}

/// The model that a path names: Azure's deployments, Bedrock's models, and what Google's methods are
/// called on.
#[must_use]
pub fn model_in_path(path: &str) -> Option<String> {
    let path = without_query(path);
    let name = match split_at_segment(path, "deployments") {
        Some((_, rest)) => rest.split('/').find(|segment| !segment.is_empty())?,
        None => match bedrock_api(path).and_then(|_| bedrock_model(path)) {
            Some((model, _)) => model,
            None => return google_path::model_of(&percent_decode_str(path).decode_utf8_lossy()),
        },
    };
    Some(percent_decode_str(name).decode_utf8_lossy().into_owned())
}

/// `target` with another model in its path; `None` where its path names none that can be changed.
#[must_use]
pub fn with_model(target: &http::uri::PathAndQuery, model: &str) -> Option<http::uri::PathAndQuery> {
    let path = target.path();
    let model = utf8_percent_encode(model, IN_SEGMENT).to_string();
    let changed = if let Some((before, rest)) = split_at_segment(path, "deployments") {
        let (_, after) = rest.split_once('/')?;
        format!("{before}/deployments/{model}/{after}")
    } else if bedrock_api(path).is_some() {
        let (before, _) = split_at_segment(path, "model")?;
        let (_, operation) = bedrock_model(path)?;
        format!("{before}/model/{model}/{operation}")
    } else {
        let (before, last) = path.trim_end_matches('/').rsplit_once('/')?;
        let at = last.rfind(':').or_else(|| last.to_ascii_lowercase().rfind("%3a"))?;
        let (_, method) = last.split_at_checked(at)?;
        before.ends_with("/models").then(|| format!("{before}/{model}{method}"))?
    };
    let changed = match target.query() {
        Some(query) => format!("{changed}?{query}"),
        None => changed,
    };
    changed.try_into().ok()
}

/// What stands in one segment of a path as it is.
const IN_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The model that a query names: a realtime session's `model`, or Azure's `deployment`.
#[must_use]
pub fn model_in_query(query: &str) -> Option<String> {
    let (_, value) = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, value)| matches!(*name, "model" | "deployment") && !value.is_empty())?;
    Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
}

/// The model that a request's target names.
#[must_use]
pub fn model_in_target(api: Api, target: &http::uri::PathAndQuery) -> Option<String> {
    let in_query = || target.query().filter(|_| api.is_session()).and_then(model_in_query);
    model_in_path(target.path()).or_else(in_query)
}

/// The batch, or the file with its results, that a path names.
#[must_use]
pub fn batch_in_path(path: &str) -> Option<String> {
    let is_collection = |segment: &&str| matches!(*segment, "batches" | "files" | "jobs");
    let mut segments = without_query(path).split('/').filter(|segment| !segment.is_empty());
    segments.by_ref().find(is_collection)?;
    // Google's names repeat their collection, where a client puts one whole into OpenAI's path.
    let name = percent_decode_str(segments.find(|segment| !is_collection(segment))?).decode_utf8_lossy();
    let name = name.strip_suffix(DOWNLOAD).unwrap_or(&name);
    Some(bare_name(name).to_owned())
}

fn without_query(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &Method, path: &str, expected: Api) {
        assert_eq!(api_of(method, path), expected, "{method} {path}");
    }

    #[test]
    fn posts_that_generate_are_metered_under_every_providers_prefix() {
        for path in [
            "/v1/chat/completions",
            "/chat/completions",
            "/openai/v1/chat/completions",
            "/openai/deployments/a/chat/completions?api-version=1",
            "/api/paas/v4/chat/completions",
            "/v1beta/openai/chat/completions",
            "//v1//chat//completions/",
            "/v1/chat/%63ompletions",
        ] {
            check(&Method::POST, path, Api::OpenAiChat);
        }
        check(&Method::POST, "/v1/completions", Api::LegacyCompletions);
        check(&Method::POST, "/v1/embeddings", Api::Embeddings);
        check(&Method::POST, "/v1/responses", Api::Responses);
        check(&Method::POST, "/backend-api/codex/responses", Api::Responses);
        check(&Method::POST, "/v1/responses/compact", Api::ResponsesCompact);
        check(&Method::POST, "/v1/messages?beta=true", Api::Messages);
        check(&Method::POST, "/anthropic/v1/messages", Api::Messages);
    }

    #[test]
    fn reads_and_free_calls_are_told_apart() {
        check(&Method::GET, "/v1/chat/completions?limit=2", Api::ChatStoreGet);
        check(&Method::GET, "/v1/chat/completions/chatcmpl-1", Api::ChatStoreGet);
        check(&Method::POST, "/v1/chat/completions/chatcmpl-1", Api::ChatStoreGet);
        check(&Method::PUT, "/v1/chat/completions", Api::Unmetered);
        check(&Method::GET, "/v1/chat/completions/chatcmpl-1/messages", Api::ChatStoreGet);
        check(&Method::GET, "/v1/responses/resp_1?stream=true", Api::ResponsesGet);
        check(&Method::POST, "/v1/responses/resp_1/cancel", Api::ResponsesGet);
        check(&Method::POST, "/v1/responses/input_tokens", Api::CountTokens);
        check(&Method::POST, "/v1/messages/count_tokens", Api::CountTokens);
        check(&Method::POST, "/v1/moderations", Api::Moderation);
    }

    #[test]
    fn sessions_are_known_by_their_paths() {
        for path in [
            "/v1/realtime?model=gpt-realtime",
            "/openai/realtime?api-version=1&deployment=voice",
            "/openai/v1/realtime",
            "/voice-live/realtime",
        ] {
            check(&Method::GET, path, Api::Realtime);
        }
        for path in [
            "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent?key=k",
            "/ws/google.ai.generativelanguage.v1alpha.GenerativeService.BidiGenerateContentConstrained",
            "/ws/google.cloud.aiplatform.v1beta1.LlmBidiService/BidiGenerateContent",
        ] {
            check(&Method::GET, path, Api::Live);
        }
        check(&Method::POST, "/v1/realtime/sessions", Api::Unmetered);
        check(&Method::POST, "/v1/realtime", Api::Unmetered);
        check(&Method::GET, "/v1/realtime/calls", Api::Unmetered);
    }

    #[test]
    fn a_query_names_the_model_of_a_session() {
        for (query, model) in [
            ("model=gpt-realtime", Some("gpt-realtime")),
            ("api-version=2&deployment=my%20voice", Some("my voice")),
            ("intent=transcription", None),
            ("model=&x", None),
            ("", None),
        ] {
            assert_eq!(model_in_query(query).as_deref(), model, "{query}");
        }
    }

    #[test]
    fn everything_else_is_unmetered() {
        for (method, path) in [
            (Method::GET, "/v1/models"),
            (Method::POST, "/v1/threads/thread_1/messages"),
            (Method::GET, "/v1/messages"),
            (Method::GET, "/v1/embeddings"),
            (Method::POST, "/"),
            (Method::POST, ""),
        ] {
            check(&method, path, Api::Unmetered);
        }
    }

    #[test]
    fn bedrocks_operations_are_told_by_the_end_of_their_paths() {
        for (operation, api) in [
            ("converse", Api::Converse),
            ("converse-stream", Api::ConverseStream),
            ("invoke", Api::Invoke),
            ("invoke-with-response-stream", Api::InvokeStream),
            ("count-tokens", Api::CountTokens),
            ("%63onverse", Api::Converse),
            ("invoke-with-bidirectional-stream", Api::Unmetered),
            ("", Api::Unmetered),
        ] {
            for model in ["amazon.nova-micro-v1%3A0", "us.anthropic.claude-haiku-4-5-20251001-v1:0", ARN] {
                check(&Method::POST, &format!("/model/{model}/{operation}"), api);
                check(&Method::GET, &format!("/model/{model}/{operation}"), Api::Unmetered);
            }
            check(&Method::POST, &format!("/model/{operation}"), Api::Unmetered);
        }
        check(&Method::POST, "/async-invoke", Api::Unmetered);
        check(&Method::POST, "/guardrail/g/version/1/apply", Api::Unmetered);
        check(&Method::POST, "/openai/v1/responses", Api::Responses);
    }

    const ARN: &str =
        "arn%3Aaws%3Abedrock%3Aeu-west-1%3A123456789012%3Ainference-profile%2Feu.amazon.nova-lite-v1%3A0";

    #[test]
    fn bedrocks_paths_name_the_model() {
        let named = |model: &str| model_in_path(&format!("/model/{model}/converse"));
        assert_eq!(named("amazon.nova-micro-v1%3A0").as_deref(), Some("amazon.nova-micro-v1:0"));
        let arn = "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.amazon.nova-lite-v1:0";
        assert_eq!(named(ARN).as_deref(), Some(arn));
        assert_eq!(named(arn).as_deref(), Some(arn));
        assert_eq!(model_in_path("/model/x/other"), None);
        assert_eq!(model_in_path("/model/converse"), None);
    }

    #[test]
    fn images_audio_ranking_and_documents_are_metered() {
        for (path, api) in [
            ("/v1/rerank", Api::Rerank),
            ("/api/v1/rerank", Api::Rerank),
            ("/v1/images/generations", Api::Images),
            ("/v1/images/edits", Api::Images),
            ("/openai/deployments/d/images/generations?api-version=1", Api::Images),
            ("/api/v1/images", Api::Images),
            ("/v1/audio/transcriptions", Api::Transcription),
            ("/v1/audio/translations", Api::Transcription),
            ("/v1/audio/speech", Api::Speech),
            ("/v1/ocr", Api::Ocr),
            ("/v1/chat", Api::OpenAiChat),
        ] {
            check(&Method::POST, path, api);
            if api != Api::OpenAiChat {
                check(&Method::GET, path, Api::Unmetered);
            }
        }
    }

    #[test]
    fn a_run_is_told_from_its_steps_and_lists() {
        check(&Method::POST, "/v1/threads/t_1/runs", Api::AssistantsRun);
        check(&Method::POST, "/v1/threads/runs", Api::AssistantsRun);
        check(&Method::GET, "/v1/threads/t_1/runs/r_1", Api::AssistantsRun);
        check(&Method::GET, "/openai/threads/t_1/runs/r_1?api-version=2", Api::AssistantsRun);
        check(&Method::POST, "/v1/threads/t_1/runs/r_1/submit_tool_outputs", Api::AssistantsRun);
        check(&Method::POST, "/v1/threads/t_1/runs/r_1/cancel", Api::AssistantsRun);
        check(&Method::POST, "/v1/threads/t_1/runs/r_1/cancel/", Api::AssistantsRun);
        for path in
            ["/v1/threads/t_1/runs", "/v1/threads/t_1/runs/r_1/steps", "/v1/threads/t_1/runs/r_1/steps/s"]
        {
            check(&Method::GET, path, Api::Unmetered);
        }
    }

    #[test]
    fn a_batch_never_counts_and_its_output_does() {
        for path in ["/v1/batches", "/v1/batches/b_1", "/v1/messages/batches/b_1", "/v1/batch/jobs/b_1"] {
            check(&Method::GET, path, Api::Batch);
        }
        for path in ["/v1/batches", "/v1/messages/batches", "/v1/batch/jobs"] {
            check(&Method::POST, path, Api::BatchCreate);
        }
        check(&Method::POST, "/v1/batches/b_1/cancel", Api::Batch);
        check(&Method::GET, "/v1/files/file-1/content", Api::BatchOutput);
        check(&Method::GET, "/v1/messages/batches/b_1/results", Api::MessagesBatchResults);
        check(&Method::GET, "/v1/batches/b_1/results?limit=100", Api::BatchResults);
        check(&Method::POST, "/v1/files", Api::Unmetered);
        check(&Method::DELETE, "/v1/files/file-1/content", Api::Unmetered);
    }

    #[test]
    fn cohere_and_ollama_have_apis_beside_openais() {
        for (path, api) in [
            ("/v1/chat", Api::CohereChatV1),
            ("/v2/chat", Api::CohereChat),
            ("/v2/embed", Api::CohereEmbed),
            ("/v1/classify", Api::CohereClassify),
            ("/v2/rerank", Api::Rerank),
            ("/v1/tokenize", Api::CountTokens),
            ("/compatibility/v1/chat/completions", Api::OpenAiChat),
            ("/v1/connectors", Api::Unmetered),
        ] {
            assert_eq!(cohere_api_of(&Method::POST, path), api, "{path}");
        }
        for (path, api) in [
            ("/api/chat", Api::OllamaChat),
            ("/api/generate", Api::OllamaGenerate),
            ("/api/embed", Api::OllamaEmbed),
            ("/api/embeddings", Api::OllamaEmbed),
            ("/api/ch%61t", Api::OllamaChat),
            ("/v1/chat/completions", Api::OpenAiChat),
            ("/v1/embeddings", Api::Embeddings),
            ("/api/pull", Api::Unmetered),
        ] {
            assert_eq!(ollama_api_of(&Method::POST, path), api, "{path}");
        }
        assert_eq!(ollama_api_of(&Method::GET, "/api/tags"), Api::Unmetered);
    }

    #[test]
    fn a_batch_or_its_file_is_named_in_the_path() {
        for (path, name) in [
            ("/v1/files/file-1/content", Some("file-1")),
            ("/v1/messages/batches/b%5F1/results?x=1", Some("b_1")),
            ("/openai/v1/batches/b_2/results", Some("b_2")),
            ("/v1/batch/jobs/j/cancel", Some("j")),
            ("/v1/batches", None),
            ("/v1/chat/completions", None),
        ] {
            assert_eq!(batch_in_path(path).as_deref(), name, "{path}");
        }
    }

    #[test]
    fn a_model_in_a_path_can_be_another() {
        for (target, expected) in [
            (
                "/openai/deployments/dear/chat/completions?api-version=1",
                Some("/openai/deployments/m%3A1/chat/completions?api-version=1"),
            ),
            ("/model/us.amazon.nova%3A0/converse", Some("/model/m%3A1/converse")),
            ("/v1beta/models/g-pro:generateContent", Some("/v1beta/models/m%3A1:generateContent")),
            (
                "/v1beta/models/g-pro%3AgenerateContent?key=k",
                Some("/v1beta/models/m%3A1%3AgenerateContent?key=k"),
            ),
            (
                "/v1/projects/p/locations/l/publishers/anthropic/models/c@1:streamRawPredict",
                Some("/v1/projects/p/locations/l/publishers/anthropic/models/m%3A1:streamRawPredict"),
            ),
            ("/v1beta/tunedModels/ours:generateContent", None),
            ("/v1/chat/completions", None),
        ] {
            let changed = with_model(&target.parse().unwrap(), "m:1");
            assert_eq!(changed.as_ref().map(|target| target.as_str()), expected, "{target}");
        }
    }

    #[test]
    fn every_api_is_listed_once_in_its_place() {
        for (place, api) in Api::ALL.into_iter().enumerate() {
            assert_eq!(api as usize, place, "{api:?}");
        }
    }

    #[test]
    fn other_cases_of_letters_hide_neither_api_nor_model() {
        check(&Method::POST, "/V1/Chat/Completions", Api::OpenAiChat);
        check(&Method::POST, "/v1/MESSAGES", Api::Messages);
        check(&Method::GET, "/v1/Realtime", Api::Realtime);
        check(&Method::POST, "/v1/Messages/Count_Tokens", Api::CountTokens);
        check(&Method::POST, "/v1/MODELS", Api::Unmetered);
        check(&Method::POST, "/v1/chat/completions%20", Api::OpenAiChat);
        check(&Method::POST, "/v1/Chat./completions.", Api::OpenAiChat);
        check(&Method::POST, "/v1/CHAT/completions", Api::OpenAiChat);
        check(&Method::POST, "/model/dear/converse%20", Api::Converse);
        let azure = "/OpenAI/Deployments/Dear/Chat/Completions";
        check(&Method::POST, azure, Api::OpenAiChat);
        assert_eq!(model_in_path(azure).as_deref(), Some("Dear"));
        check(&Method::POST, "/Model/us.Nova/Converse-Stream", Api::ConverseStream);
        assert_eq!(model_in_path("/Model/us.Nova/Converse").as_deref(), Some("us.Nova"));
        check(&Method::POST, "/v1beta/Models/g-1:GenerateContent", Api::GenerateContent);
        assert_eq!(model_in_path("/v1beta/Models/g-1:GenerateContent").as_deref(), Some("g-1"));
        assert_eq!(cohere_api_of(&Method::POST, "/V2/Chat"), Api::CohereChat);
        assert_eq!(ollama_api_of(&Method::POST, "/API/Generate"), Api::OllamaGenerate);
        let target = "/openai/Deployments/dear/chat/completions".parse().unwrap();
        let changed = with_model(&target, "m");
        assert_eq!(changed.unwrap().as_str(), "/openai/deployments/m/chat/completions");
    }

    #[test]
    fn a_cancellation_is_told_by_the_end_of_its_path() {
        for path in ["/v1/batches/b/cancel", "/v1/batches/b/cancel/", "/v1beta/batches/b:cancel?x=1"] {
            assert!(is_cancel(path), "{path}");
        }
        for path in ["/v1/batches", "/v1/cancel/b", "/v1/batches/cancelled", ""] {
            assert!(!is_cancel(path), "{path}");
        }
    }

    #[test]
    fn a_deployment_names_the_model() {
        let path = "/openai/deployments/my%20gpt/chat/completions?api-version=1";
        assert_eq!(model_in_path(path).as_deref(), Some("my gpt"));
        assert_eq!(model_in_path("/v1/chat/completions"), None);
        assert_eq!(model_in_path("/openai/deployments"), None);
    }
}
