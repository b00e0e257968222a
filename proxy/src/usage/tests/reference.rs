//! The reference page of what is metered: written from the code, and compared with it.
//!
//! Invariants
//! - Every API has a row; what it counts and what is counted in its place is what the code says.
//! - Every provider with a deviation has a row that names it.
//!
//! Not here: the paths themselves (`usage::api`), how each reply is read (the other tests).

use super::*;
use crate::count::Watch;
use flavour::{Audio, Charge, End, FLAVOURS, Reasoning};
use std::fmt::Write as _;
use std::path::Path;

/// API, path below any prefix, what is read of the reply.
const ROWS: [(Api, &str, &str); Api::Unmetered as usize + 1] = [
    (
        Api::OpenAiChat,
        "`POST …/chat/completions`, Writer's `…/v1/chat`, Mistral's models on Vertex",
        "`usage`; of a stream the last one that is not `null`, wherever it is. Groq's copies are one; its parts per model are kept",
    ),
    (
        Api::Responses,
        "`POST …/responses`",
        "usage of the body or of the terminal event (`completed`, `incomplete`, `failed`); server tools by their items. In the background: once per id",
    ),
    (Api::ResponsesCompact, "`POST …/responses/compact`", "like a response"),
    (
        Api::ResponsesGet,
        "`GET …/responses/{id}`, `POST …/responses/{id}/cancel`",
        "the same, once per id, at the first that has usage; never where the reply says `background: false`, since it was metered when it was made",
    ),
    (Api::ChatStoreGet, "stored chat completions", "nothing: they repeat what was counted"),
    (Api::LegacyCompletions, "`POST …/completions`", "like chat completions"),
    (
        Api::Embeddings,
        "`POST …/embeddings`, Voyage's `…/multimodalembeddings`, `…/contextualizedembeddings`",
        "input tokens",
    ),
    (Api::Moderation, "`POST …/moderations`", "nothing: free"),
    (
        Api::Messages,
        "`POST …/messages`, Claude on Vertex (`:rawPredict`, `:streamRawPredict`)",
        "start and deltas, field by field; cache lifetimes; passes of other models (`iterations`)",
    ),
    (
        Api::Realtime,
        "WebSocket on `…/realtime`",
        "each `response.done` and each transcription is a record; per-modality cache",
    ),
    (Api::Live, "WebSocket on `…BidiGenerateContent`", "each turn is a record; thoughts are added"),
    (
        Api::GenerateContent,
        "`…:generateContent`, also in Cloud Code's wrapper",
        "`usageMetadata`; prompt and tool prompt, candidates and thoughts, modalities",
    ),
    (
        Api::StreamGenerateContent,
        "`…:streamGenerateContent`, as events or one array",
        "the last `usageMetadata` as a whole; one with a traffic type alone tells the tier",
    ),
    (
        Api::EmbedContent,
        "`…:embedContent`, `…:batchEmbedContents`, `…:predict` of embedding models",
        "input tokens, where they are told",
    ),
    (Api::Interactions, "`POST …/interactions`", "usage of the interaction; in the background: once per id"),
    (
        Api::InteractionsGet,
        "`GET …/interactions/{id}`, `POST …/interactions/{id}/cancel`",
        "the same, once per id",
    ),
    (
        Api::CountTokens,
        "`…/count_tokens`, `…/input_tokens`, `…:countTokens`, `…/count-tokens`, `…/tokenize`",
        "nothing: free",
    ),
    (
        Api::Converse,
        "`…/model/{id}/converse`",
        "`usage`; cache beside the input, lifetimes; tier and latency",
    ),
    (Api::ConverseStream, "`…/model/{id}/converse-stream`", "the event `metadata`"),
    (
        Api::Invoke,
        "`…/model/{id}/invoke`",
        "the counts in the headers; what Claude, Nova, Titan, Llama and OpenAI's models say themselves",
    ),
    (
        Api::InvokeStream,
        "`…/model/{id}/invoke-with-response-stream`",
        "`amazon-bedrock-invocationMetrics` and the model's own events; a difference is noted",
    ),
    (Api::CohereChatV1, "`POST …/v1/chat` (dialect `cohere`)", "`tokens`, `billed_units`, `cached_tokens`"),
    (Api::CohereChat, "`POST …/v2/chat` (dialect `cohere`)", "the same"),
    (Api::CohereEmbed, "`POST …/embed` (dialect `cohere`)", "`billed_units`"),
    (Api::CohereClassify, "`POST …/classify` (dialect `cohere`)", "`billed_units`"),
    (
        Api::OllamaChat,
        "`POST …/api/chat` (dialect `ollama`)",
        "the object that is done; a missing `prompt_eval_count` is unknown, not zero",
    ),
    (Api::OllamaGenerate, "`POST …/api/generate` (dialect `ollama`)", "the same"),
    (Api::OllamaEmbed, "`POST …/api/embed` (dialect `ollama`)", "the same"),
    (Api::Rerank, "`POST …/rerank`", "search units or tokens, whichever is sent"),
    (
        Api::Images,
        "`POST …/images/generations`, `…/edits`, `…/variations`, OpenRouter's `…/api/v1/images`, `…:predict` of Imagen",
        "tokens where there are any, and the number of images made",
    ),
    (
        Api::Transcription,
        "`POST …/audio/transcriptions`, `…/translations`",
        "tokens, or seconds where those are billed",
    ),
    (Api::Speech, "`POST …/audio/speech`", "tokens of an event stream; sound itself tells nothing"),
    (Api::Ocr, "`POST …/v1/ocr`", "pages"),
    (
        Api::AssistantsRun,
        "`…/threads/{id}/runs[/{id}]`",
        "the run's usage, once per run; its steps are parts of it",
    ),
    (Api::BatchCreate, "`POST …/batches`, `…/batch/jobs`", "whose the batch is"),
    (Api::Batch, "`GET …/batches[/{id}]`, `…/batch/jobs[/{id}]`", "which files are whose"),
    (
        Api::BatchOutput,
        "`GET …/files/{id}/content`, Google's `GET …/files/{id}:download`",
        "each line once; another file counts nothing",
    ),
    (Api::MessagesBatchResults, "`GET …/messages/batches/{id}/results`", "each result once"),
    (Api::BatchResults, "`GET …/batches/{id}/results` (xAI)", "each result once"),
    (
        Api::GeminiBatchCreate,
        "`POST …:batchGenerateContent`, `…:asyncBatchEmbedContent`",
        "whose the batch is",
    ),
    (
        Api::GeminiBatch,
        "`GET …/batches[/{id}]` (dialect `gemini`)",
        "which files are whose; of one batch each result that it holds, once",
    ),
    (Api::Unmetered, "everything else", "nothing"),
];

const HEAD: &str = "\
# What is metered

<!-- Written from the code by `BLESS=1 cargo test -p bursar --lib reference`; changes here are lost. -->

Which API a request calls is told by its route's dialect, its method and its path, never by what a body looks \
like. *API* is the field of that name in a usage record. *Counts* says whether a reply can cost anything. \
*When silent* says what becomes of a reply that tells no usage, or breaks off before it: `text` is counted from \
what passed (`usage_source` is `tokenizer` where the model's own vocabulary is published and nothing is hidden, \
else `estimate` with the family's factor and range in `counted_by`), `input` from the request alone; elsewhere it \
stays `absent`. What a provider told is never replaced by a count.

| API | path (below any prefix) | counts | when silent | read from the reply |
|---|---|---|---|---|
";

const PROVIDERS: &str = "
## Providers that deviate

A provider that is not listed follows the API that it speaks, and its chat streams may end without `[DONE]`: one is \
then complete when a choice finished and its body ended by itself. Streams of those listed are only complete with \
it, unless the row says otherwise. *Asked*: streams of chat completions are asked for usage unless the route says \
otherwise, and the chunk that this causes is hidden from a client that did not ask.

| provider | asked | deviation |
|---|---|---|
";

const TAIL: &str = "
## Batches

Results of a batch are recorded at the tier `batch` and for whoever made the batch through this sidecar; a batch \
made elsewhere belongs to whoever fetches it first. A record of a fetch holds the sum of the results that no \
earlier record counted; when there is none left, its `metering` is `never`. Its cost is the sum of what each of \
these results costs as a request of its own: context thresholds and fees per request hold for each.

## A client that leaves

`on_abort: cut` (the default) stops the upstream, and what passed is counted. `on_abort: drain` reads on to the \
usage, for as long and as far as `abort.drain_time` and `abort.drain_bytes` allow. Both are recorded with \
the outcome `aborted`; one that was read on has the anomaly `drained`.

## When another model served

A record has the anomaly `served_model_differs` where the reply names another model than the request. A name without \
a date (or a revision such as `001`) stands for whichever of its snapshots serves, and a served name without one \
says nothing of it; of two dated names the dates must be the same. A preview in place of the stable model, or the \
stable model in place of the preview, is another model. A requested name with `latest` leaves dates, previews and \
version numbers to the provider. Vendors' prefixes and the order of words make no difference, and where the name is \
the caller's own (Azure's deployments, Bedrock's profiles, Google's endpoints) nothing is compared.

## What is not metered

- Videos (Veo's `predictLongRunning`, OpenAI's videos), music, fine-tuning, storage and caches by the hour: the \
calls pass and are recorded as `unmetered`.
- Responses over WebSocket: such an upgrade is refused with 501 and `upgrade_not_supported`; only realtime paths \
are spoken over WebSocket.
- Batches whose results go to a bucket: Vertex AI's batch predictions (Cloud Storage or BigQuery) and Bedrock's \
batch inference jobs (S3). The results never pass here; the calls that make and watch the batch are recorded as \
`unmetered` where they do. [Import](../guide/import.md) the usage, or see it as *outside* in a \
[reconciliation](../guide/reconcile.md).
- Results of a Gemini batch that only a list of batches shows count when the batch itself is read.
- An interaction of Gemini's, or a response of a provider that leaves `background` out, is counted when it is \
made in the foreground, and reading it back counts nothing more (`metering` is `once-per-id`, the record has no \
cost). One that was made elsewhere counts at the first that reads it. Where its stream broke off here and was \
counted in its place, that count stands.
- LM Studio's own API (`/api/v1/chat`) is recorded without usage; its OpenAI-like one is read.
- The calls of server tools beyond searches: no provider tells their price with the reply.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    for (api, path, read) in ROWS {
        let counts = if api.is_metered() { "yes" } else { "never" };
        let silent = match (Watch::knows(api), api) {
            (false, _) => "",
            (true, Api::Embeddings | Api::EmbedContent) => "input",
            (true, _) => "text",
        };
        let _ = writeln!(page, "| `{}` | {path} | {counts} | {silent} | {read} |", api.name());
    }
    page.push_str(PROVIDERS);
    for flavour in FLAVOURS {
        let asked = if flavour.asks_for_usage { "yes" } else { "" };
        let _ = writeln!(page, "| `{}` | {asked} | {} |", flavour.provider, deviations(flavour));
    }
    page.push_str(TAIL);
    page
}

fn deviations(flavour: &Flavour) -> String {
    // Taken apart, so that a new deviation cannot be left out.
    let Flavour {
        provider: _,
        asks_for_usage: _,
        reasoning,
        audio,
        charge,
        end,
        own_model_names,
        free_transcription,
        cached_header,
        input_header,
        tier_header,
        model_header,
        spill_header,
    } = *flavour;
    let mut said: Vec<String> = Vec::new();
    let mut say = |text: &str| said.push(text.to_owned());
    match reasoning {
        Reasoning::Inside => {}
        Reasoning::Beside => say("reasoning lies beside the completion tokens of chat"),
        Reasoning::HiddenInTotal => say("OpenAI-like chat hides thoughts in the total"),
    }
    match audio {
        Audio::Inside => {}
        Audio::Beside => say("audio lies beside the prompt tokens"),
    }
    match charge {
        Charge::None => {}
        Charge::Cost => say("tells its charge in dollars; with an own key the upstream's cost"),
        Charge::Ticks => say("tells its charge in ticks, 10¹⁰ to the dollar"),
        Charge::TotalCost => say("tells its charge in dollars, the request's fee included"),
    }
    if end == End::DoneOrFinish {
        say("may end without `[DONE]`");
    }
    if own_model_names {
        say("the requested name is the caller's own, so that another served name is no news");
    }
    if free_transcription {
        say("transcribing a session's input is free");
    }
    for (header, what) in [
        (input_header, "input tokens"),
        (cached_header, "cached tokens"),
        (tier_header, "tier"),
        (model_header, "served model"),
        (spill_header, "calls that left reserved capacity"),
    ] {
        if let Some(header) = header {
            say(&format!("{what} in the header `{header}`"));
        }
    }
    said.join("; ")
}

#[test]
fn the_published_page_is_what_the_code_does() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/metering.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, page()).unwrap();
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == page(),
        "docs/reference/metering.md is out of date: run BLESS=1 cargo test -p bursar --lib reference"
    );
}

#[test]
fn every_api_has_one_row_in_its_order() {
    for (at, (api, ..)) in ROWS.into_iter().enumerate() {
        assert_eq!(api as usize, at, "{}", api.name());
    }
}
