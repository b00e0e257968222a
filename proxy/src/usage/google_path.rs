//! Google's methods: the last segment of a path is `name:method`, and names the model too.
//!
//! Invariants
//! - Gemini's and Vertex's paths are told by their method, in any case of its letters, whatever stands before
//!   the collection.
//! - A publisher's model behind `rawPredict` speaks the publisher's own API; one that is not known
//!   here is not metered.
//!
//! Not here: every other path (`api`).

use super::api::Api;

/// The API of the method in the last of a path's last four segments; `None` where there is no known
/// method.
///
/// Methods: <https://ai.google.dev/api/all-methods> and Vertex AI's REST reference of
/// `projects.locations.publishers.models`. Anthropic's token count on Vertex is a model called
/// `count-tokens`.
pub(super) fn api_of_method([_, publisher, _, last]: [&str; 4]) -> Option<Api> {
    let (name, method) = last.rsplit_once(':')?;
    match (&*method.to_ascii_lowercase(), publisher) {
        ("generatecontent", _) => Some(Api::GenerateContent),
        ("streamgeneratecontent", _) => Some(Api::StreamGenerateContent),
        ("counttokens" | "computetokens", _) => Some(Api::CountTokens),
        ("embedcontent" | "batchembedcontents", _) => Some(Api::EmbedContent),
        ("batchgeneratecontent" | "asyncbatchembedcontent", _) => Some(Api::GeminiBatchCreate),
        ("predict", _) if is_embedding_model(name) => Some(Api::EmbedContent),
        ("predict", _) if is_image_model(name) => Some(Api::Images),
        ("rawpredict" | "streamrawpredict", "anthropic") if name == ANTHROPIC_COUNT => Some(Api::CountTokens),
        ("rawpredict" | "streamrawpredict", "anthropic") => Some(Api::Messages),
        ("rawpredict" | "streamrawpredict", "mistralai") => Some(Api::OpenAiChat),
        _ => None,
    }
}

const ANTHROPIC_COUNT: &str = "count-tokens";

/// `predict` does many things; models that embed text say so in their names.
fn is_embedding_model(name: &str) -> bool {
    name.contains("embedding")
}

/// Imagen's models. Veo's videos are made by `predictLongRunning`, fetched from an operation that tells
/// no usage, and not metered.
fn is_image_model(name: &str) -> bool {
    name.starts_with("imagen") || name == "imagegeneration"
}

/// The model that a decoded path names before a method: `gemini-2.5-flash`, and with its collection
/// where the name is the caller's own: `tunedModels/ours`, `endpoints/123`.
pub(super) fn model_of(path: &str) -> Option<String> {
    let (before, last) = path.trim_end_matches('/').rsplit_once('/')?;
    let (name, _) = last.rsplit_once(':')?;
    if name.is_empty() || name == ANTHROPIC_COUNT {
        return None;
    }
    let collection = before.rsplit('/').next()?;
    let is = |known: &str| collection.eq_ignore_ascii_case(known);
    if is("models") {
        return Some(name.to_owned());
    }
    ["tunedModels", "endpoints"].into_iter().find(|known| is(known)).map(|known| format!("{known}/{name}"))
}

#[cfg(test)]
mod tests {
    use crate::usage::api::{Api, api_of, batch_in_path, google_api_of, model_in_path};
    use http::Method;

    const GEMINI: &str = "/v1beta/models/";
    const VERTEX: &str = "/v1/projects/p/locations/us-central1/publishers/";

    fn check(path: &str, api: Api, model: Option<&str>) {
        assert_eq!(api_of(&Method::POST, path), api, "{path}");
        assert_eq!(model_in_path(path).as_deref(), model, "{path}");
    }

    #[test]
    fn every_metered_method_is_known_on_gemini_and_vertex() {
        for (method, api) in [
            ("generateContent", Api::GenerateContent),
            ("streamGenerateContent?alt=sse", Api::StreamGenerateContent),
            ("streamGenerateContent", Api::StreamGenerateContent),
            ("countTokens", Api::CountTokens),
            ("computeTokens", Api::CountTokens),
            ("embedContent", Api::EmbedContent),
            ("batchEmbedContents", Api::EmbedContent),
        ] {
            check(&format!("{GEMINI}gemini-2.5-flash:{method}"), api, Some("gemini-2.5-flash"));
            check(&format!("{VERTEX}google/models/gemini-2.5-flash:{method}"), api, Some("gemini-2.5-flash"));
        }
    }

    #[test]
    fn escapes_and_empty_segments_hide_no_method() {
        check(
            "/v1beta/models/gemini-2.5-flash%3AgenerateContent",
            Api::GenerateContent,
            Some("gemini-2.5-flash"),
        );
        check("/v1beta/models/g%2D1:%67enerateContent?key=k", Api::GenerateContent, Some("g-1"));
        check("/v1beta//models/g-1:generateContent/", Api::GenerateContent, Some("g-1"));
    }

    #[test]
    fn tuned_models_and_endpoints_keep_their_collection() {
        check("/v1beta/tunedModels/ours:generateContent", Api::GenerateContent, Some("tunedModels/ours"));
        check(
            "/v1/projects/p/locations/l/endpoints/7:streamGenerateContent",
            Api::StreamGenerateContent,
            Some("endpoints/7"),
        );
    }

    #[test]
    fn predict_is_metered_where_it_embeds_or_makes_images() {
        check(
            &format!("{VERTEX}google/models/text-embedding-005:predict"),
            Api::EmbedContent,
            Some("text-embedding-005"),
        );
        let images = format!("{VERTEX}google/models/imagen-4.0-generate-001:predict");
        check(&images, Api::Images, Some("imagen-4.0-generate-001"));
        check(
            &format!("{GEMINI}imagen-4.0-fast-generate-001:predict"),
            Api::Images,
            Some("imagen-4.0-fast-generate-001"),
        );
        check(&format!("{VERTEX}google/models/lyria-002:predict"), Api::Unmetered, Some("lyria-002"));
        check(&format!("{GEMINI}veo-3:predictLongRunning"), Api::Unmetered, Some("veo-3"));
    }

    #[test]
    fn publishers_models_speak_their_own_api() {
        let claude = format!("{VERTEX}anthropic/models/claude-sonnet-4-5@20250929");
        check(&format!("{claude}:rawPredict"), Api::Messages, Some("claude-sonnet-4-5@20250929"));
        check(&format!("{claude}:streamRawPredict"), Api::Messages, Some("claude-sonnet-4-5@20250929"));
        check(&format!("{VERTEX}anthropic/models/count-tokens:rawPredict"), Api::CountTokens, None);
        let mistral = format!("{VERTEX}mistralai/models/mistral-small-2503");
        check(&format!("{mistral}:rawPredict"), Api::OpenAiChat, Some("mistral-small-2503"));
        check(&format!("{VERTEX}ai21/models/jamba:rawPredict"), Api::Unmetered, Some("jamba"));
        check("/v1/projects/p/locations/l/endpoints/openapi/chat/completions", Api::OpenAiChat, None);
        check("/v1beta/openai/chat/completions", Api::OpenAiChat, None);
        check("/v1beta/openai/embeddings", Api::Embeddings, None);
    }

    #[test]
    fn what_stores_or_lists_is_unmetered() {
        for path in
            ["/v1beta/cachedContents", "/v1beta/models", "/v1beta/files", "/v1beta/operations/7:cancel"]
        {
            check(path, Api::Unmetered, None);
        }
        let get = api_of(&Method::GET, "/v1beta/models/gemini-2.5-flash:generateContent");
        assert_eq!(get, Api::Unmetered);
    }

    #[test]
    fn batches_are_made_read_and_their_results_downloaded() {
        for (method, path, api, name) in [
            (
                Method::POST,
                "/v1beta/models/gemini-2.5-flash:batchGenerateContent",
                Api::GeminiBatchCreate,
                None,
            ),
            (
                Method::POST,
                "/v1beta/models/gemini-embedding-001:asyncBatchEmbedContent",
                Api::GeminiBatchCreate,
                None,
            ),
            (Method::GET, "/v1beta/batches?pageSize=5", Api::GeminiBatch, None),
            (Method::GET, "/v1beta/batches/b-1", Api::GeminiBatch, Some("b-1")),
            (Method::GET, "/v1beta/files/batch-b-1:download?alt=media", Api::BatchOutput, Some("batch-b-1")),
            (
                Method::GET,
                "/download/v1beta/files/batch-b-1:download?alt=media",
                Api::BatchOutput,
                Some("batch-b-1"),
            ),
            (Method::GET, "/download/v1beta/files/batch-b-1%3Adownload", Api::BatchOutput, Some("batch-b-1")),
            (Method::GET, "/v1beta/files/batch-b-1", Api::Unmetered, Some("batch-b-1")),
            (Method::POST, "/v1beta/batches/b-1:cancel", Api::Batch, Some("b-1:cancel")),
            (Method::POST, "/v1beta/openai/batches", Api::BatchCreate, None),
            (Method::GET, "/v1beta/openai/batches/b-1", Api::Batch, Some("b-1")),
            (Method::GET, "/v1beta/openai/batches/batches/b-1", Api::Batch, Some("b-1")),
            (
                Method::GET,
                "/v1beta/openai/files/files%2Fbatch-b-1/content",
                Api::BatchOutput,
                Some("batch-b-1"),
            ),
            (
                Method::GET,
                "/v1beta/openai/files/files/batch-b-1/content",
                Api::BatchOutput,
                Some("batch-b-1"),
            ),
        ] {
            assert_eq!(google_api_of(&method, path), api, "{method} {path}");
            assert_eq!(batch_in_path(path).as_deref(), name, "{path}");
        }
    }

    #[test]
    fn interactions_are_made_read_and_cancelled() {
        for (method, path, api) in [
            (Method::POST, "/v1beta/interactions", Api::Interactions),
            (Method::POST, "/v1beta1/projects/p/locations/global/interactions", Api::Interactions),
            (Method::GET, "/v1beta/interactions/v1_abc?stream=true", Api::InteractionsGet),
            (Method::POST, "/v1beta/interactions/v1_abc/cancel", Api::InteractionsGet),
            (Method::DELETE, "/v1beta/interactions/v1_abc", Api::Unmetered),
        ] {
            assert_eq!(api_of(&method, path), api, "{method} {path}");
        }
    }
}
