//! Metering: what a request asked for and what its reply used, read from the bytes that pass.
//!
//! Everything here is a state machine fed with slices of any length: no I/O, no clock, no async.
//!
//! | file | owns |
//! |---|---|
//! | `api` | which API a method and path call |
//! | `flavour` | how providers deviate from it |
//! | `request`, `multipart`, `include`, `hide`, `steer` | facts of a request; asking for usage, and hiding the answer; asking for another model |
//! | `openai`, `anthropic`, `gemini`, `bedrock`, `cohere`, `ollama`, `units`, `runs`, `shape` | the reply shapes and what their numbers mean |
//! | `batch` | batches: what is made later and fetched often |
//! | `text` | the text that passed, for when nobody tells what it cost |
//! | `totals`, `number`, `model_name` | disjoint classes; exact numbers; sameness of model names |
//! | `session`, `realtime`, `bidi` | the parts of a WebSocket session, and its two shapes |
//! | `websocket`, `aws_events` | framing messages |
//! | `json`, `sse`, `elements`, `lines`, `decode` | walking JSON, framing events and lines, undoing content encodings |
//!
//! Invariants
//! - How a body is cut into frames never changes a reading.
//! - Memory is bounded whatever an upstream sends, and nothing is allocated per chunk of a stream.
//! - Nothing panics; unknown is never zero; every doubt is an [`Anomaly`].
//!
//! Not here: forwarding, prices, estimates for replies without usage.

pub mod api;
pub mod aws_events;
pub mod decode;
pub mod flavour;
pub mod hide;
pub mod include;
pub mod json;
pub mod lines;
pub mod model_name;
pub mod multipart;
pub mod number;
pub mod request;
pub mod session;
pub mod sse;
pub mod steer;
pub mod text;
pub mod totals;
pub mod websocket;

mod alike;
mod anthropic;
mod batch;
mod bedrock;
mod bidi;
mod cohere;
mod elements;
mod gemini;
mod google_path;
mod ollama;
mod openai;
mod realtime;
mod runs;
mod shape;
mod units;

pub use api::{
    Api, api_of, batch_in_path, cohere_api_of, google_api_of, model_in_path, model_in_target, ollama_api_of,
};
pub use flavour::{Flavour, flavour_of};
pub use hide::HideUsage;
pub use include::IncludeUsage;
pub use request::{RequestFacts, RequestScan, Searches};
pub use session::{Part, SessionMeter};

use alike::{Frame, Prefix};
use anthropic::Messages;
use batch::{BatchObject, Results};
use bedrock::{Converse, Invoke};
use bursar_domain::batch::{BatchLines, BatchNames};
use bursar_domain::event::{Anomalies, Anomaly, Metering, ModelUsage, Outcome, ProviderCost};
use bursar_domain::ids::Label;
use bursar_domain::usage::{Quantity, Usage, UsageSource};
use cohere::Cohere;
use decode::Decoder;
use elements::Elements;
use gemini::{Content, Interactions, Operation};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use json::Scanner;
use lines::Lines;
use ollama::Ollama;
use openai::{Chat, Responses};
use runs::Run;
use shape::{Context, Data, Gathered, Kind, Progress, Shape};
use sse::{Events, Sse};
use std::sync::Arc;
use text::PassedText;
use units::Units;

/// Events larger than this are read like any other but marked: no provider sends such.
pub const EVENT_BYTES_MAX: u64 = 1024 * 1024;

/// Longest raw usage text that is kept.
pub const RAW_BYTES_MAX: usize = 8 * 1024;

/// How a reply's body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, as its framing says.
    Complete,
    /// The upstream's connection failed or closed early.
    UpstreamCut,
    /// The client went away.
    ClientAbort,
}

/// What is known of a reply when its head has arrived.
#[derive(Clone, Copy, Debug)]
pub struct ReplyContext<'a> {
    /// The provider's deviations.
    pub flavour: &'static Flavour,
    /// The API that was called.
    pub api: Api,
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// Whether the request asked for a stream; used where the reply does not say what it is.
    pub stream_requested: bool,
}

/// What a reply used, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// How the exchange ended.
    pub outcome: Outcome,
    /// Whether it counts.
    pub metering: Metering,
    /// What was used.
    pub usage: Usage,
    /// Where the counts come from.
    pub usage_source: UsageSource,
    /// Parts per model, when the provider gives them.
    pub by_model: Vec<ModelUsage>,
    /// The provider's usage object as sent; several as a JSON array. At most 8 KiB; a careless
    /// provider's may be no valid JSON.
    pub usage_raw: Option<Arc<str>>,
    /// What the provider says it charged.
    pub provider_cost: Option<ProviderCost>,
    /// The model that answered.
    pub model_served: Option<Label>,
    /// The service tier that was charged.
    pub tier: Option<Label>,
    /// Where Anthropic ran the model, which changes the price.
    pub inference_geo: Option<Label>,
    /// Anthropic's speed mode, or Bedrock's latency mode, which changes the price.
    pub speed: Option<Label>,
    /// The reply's own id, for the once-per-id rule; `None` for what never counts.
    pub meter_id: Option<Label>,
    /// Whether the reply counts now and can be read back, where it will not say that it was metered.
    pub is_read_back: bool,
    /// Whether the body was a stream of events.
    pub stream: bool,
    /// What the reply says of a batch.
    pub batch: Option<BatchReading>,
    /// What to look at.
    pub anomalies: Anomalies,
}

/// What a reply says of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchReading {
    /// The names of one or many.
    Names(Vec<BatchNames>),
    /// The results of one.
    Results(Box<BatchLines>),
}

impl Reading {
    /// The reading of a reply that says nothing.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            outcome: Outcome::Ok,
            metering: Metering::Never,
            usage: Usage::unknown(),
            usage_source: UsageSource::Absent,
            by_model: Vec::new(),
            usage_raw: None,
            provider_cost: None,
            model_served: None,
            tier: None,
            inference_geo: None,
            speed: None,
            meter_id: None,
            is_read_back: false,
            stream: false,
            batch: None,
            anomalies: Anomalies::default(),
        }
    }
}

/// Reads one reply.
#[derive(Debug)]
pub struct ReplyMeter {
    flavour: &'static Flavour,
    api: Api,
    status: u16,
    decoder: Option<Decoder>,
    capped: bool,
    cached_header: Option<Vec<u8>>,
    input_header: Option<Vec<u8>>,
    tier_header: Option<Label>,
    model_header: Option<Label>,
    /// Reserved capacity was full: the standard tier served, whatever the reply calls it.
    is_spilled: bool,
    body: Body,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each exchange, which is boxed as a whole")]
enum Body {
    /// Not read at all.
    Ignored,
    Chat(Reader<Chat>),
    Responses(Reader<Responses>),
    Messages(Reader<Messages>),
    Content(Reader<Content>),
    Interactions(Reader<Interactions>),
    Converse(Box<bedrock::Reader<Converse>>),
    Invoke(Box<bedrock::Reader<Invoke>>),
    // The rarer ones are boxed, so that they do not make room for themselves in every exchange.
    Cohere(Box<Reader<Cohere>>),
    Ollama(Box<Reader<Ollama>>),
    Units(Box<Reader<Units>>),
    Run(Box<Reader<Run>>),
    Batch(Box<Reader<BatchObject>>),
    Results(Box<Reader<Results>>),
    Operation(Box<Reader<Operation>>),
}

impl ReplyMeter {
    /// A meter for the reply with this head.
    #[must_use]
    pub fn new(context: &ReplyContext<'_>) -> Self {
        let text = |name: &http::HeaderName| context.headers.get(name).and_then(|value| value.to_str().ok());
        let body = Body::of(context, text(&CONTENT_TYPE));
        let decoder = text(&CONTENT_ENCODING).map_or(Ok(None), Decoder::new);
        let header = |name: Option<&str>| name.and_then(|name| context.headers.get(name));
        let label = |name| header(name).and_then(|value| value.to_str().ok()).and_then(Label::lossy);
        let bytes = |name| header(name).map(|value| value.as_bytes().to_vec());
        Self {
            flavour: context.flavour,
            api: context.api,
            status: context.status,
            capped: decoder.is_err(),
            decoder: decoder.ok().flatten(),
            cached_header: bytes(context.flavour.cached_header),
            // An error is no reason to pay.
            input_header: bytes(context.flavour.input_header.filter(|_| context.status < 400)),
            tier_header: label(context.flavour.tier_header),
            model_header: label(context.flavour.model_header),
            is_spilled: header(context.flavour.spill_header).is_some_and(|value| value == "true"),
            body,
        }
    }

    /// Reads on: a frame of the body as the upstream sent it.
    pub fn feed(&mut self, frame: &[u8]) {
        if self.capped {
            return;
        }
        let Self { decoder, body, capped, .. } = self;
        match decoder {
            None => body.feed(frame),
            Some(decoder) => {
                decoder.feed(frame, |piece| body.feed(piece));
                *capped = decoder.is_stopped();
            }
        }
    }

    /// Keeps the text that passes from now on, at most so many bytes; `false` where the API's text is
    /// not known.
    pub fn keep_text(&mut self, held_max: usize) -> bool {
        self.body.passed().map(|text| text.keep(held_max)).is_some()
    }

    /// The text that passed, where the API's text is known.
    pub fn text(&mut self) -> Option<&mut PassedText> {
        self.body.passed()
    }

    /// The reading, when the body has ended. Once only.
    #[must_use]
    pub fn finish(&mut self, ending: Ending, request: &RequestFacts) -> Reading {
        let kind = match self.api {
            Api::Embeddings
            | Api::EmbedContent
            | Api::Moderation
            | Api::Rerank
            | Api::CohereEmbed
            | Api::CohereClassify
            | Api::OllamaEmbed => Kind::Embedding,
            Api::Images => Kind::Image,
            Api::Transcription => Kind::Transcript,
            Api::Speech => Kind::Speech,
            Api::Responses | Api::ResponsesCompact | Api::ResponsesGet => Kind::Response,
            _ => Kind::Completion,
        };
        let cached_header = self.cached_header.take();
        let input_header = self.input_header.take();
        let mut context = Context {
            flavour: self.flavour,
            kind,
            stream: false,
            closed: false,
            cached_header: cached_header.as_deref(),
            input_header: input_header.as_deref(),
        };
        let read = match &mut self.body {
            Body::Ignored => None,
            Body::Chat(reader) => Some(reader.finish(&mut context)),
            Body::Responses(reader) => Some(reader.finish(&mut context)),
            Body::Messages(reader) => Some(reader.finish(&mut context)),
            Body::Content(reader) => Some(reader.finish(&mut context)),
            Body::Interactions(reader) => Some(reader.finish(&mut context)),
            Body::Converse(reader) => Some(reader.finish(&mut context)),
            Body::Invoke(reader) => Some(reader.finish(&mut context)),
            Body::Cohere(reader) => Some(reader.finish(&mut context)),
            Body::Ollama(reader) => Some(reader.finish(&mut context)),
            Body::Units(reader) => Some(reader.finish(&mut context)),
            Body::Run(reader) => Some(reader.finish(&mut context)),
            Body::Batch(reader) => Some(reader.finish(&mut context)),
            Body::Results(reader) => Some(reader.finish(&mut context)),
            Body::Operation(reader) => Some(reader.finish(&mut context)),
        };
        let Some((gathered, document)) = read else { return self.unread(ending) };
        self.conclude(gathered, document, ending, request)
    }

    fn unread(&self, ending: Ending) -> Reading {
        let outcome = match ending {
            _ if self.status >= 400 => Outcome::Error,
            Ending::Complete => Outcome::Ok,
            Ending::UpstreamCut => Outcome::ErrorMidstream,
            Ending::ClientAbort => Outcome::Aborted,
        };
        // Sound or plain text says nothing of what it used, but it was made and paid; what refuses a
        // session was not.
        let metering = match outcome {
            Outcome::Error => Metering::Never,
            _ if matches!(self.api, Api::Realtime | Api::Live) => Metering::Never,
            _ if self.api.is_metered() && !self.api.is_batch_results() => Metering::Count,
            _ => Metering::Never,
        };
        Reading { outcome, metering, model_served: self.model_header.clone(), ..Reading::nothing() }
    }

    fn conclude(
        &mut self,
        found: Gathered,
        document: Document,
        ending: Ending,
        request: &RequestFacts,
    ) -> Reading {
        let mut anomalies = found.anomalies;
        anomalies.extend(document.anomalies);
        if self.api == Api::BatchOutput && found.lines.is_none() {
            // Any other file; it need not be JSON.
            anomalies = Anomalies::default();
        }
        if self.capped {
            anomalies.insert(Anomaly::MeteringCapped);
        }
        let outcome = self.outcome(&found, document, ending);
        if outcome == Outcome::Ok && !self.capped && !document.is_closed && !document.stream {
            anomalies.insert(Anomaly::MalformedReply);
        }
        if let (Some(requested), Some(served)) = (&request.model, &found.model)
            && !self.flavour.own_model_names
            && !model_name::is_same_model(requested.as_str(), served.as_str())
        {
            anomalies.insert(Anomaly::ServedModelDiffers);
        }
        let metering = self.metering(&found, outcome, request);
        let is_read_back = self.is_read_back(&found, metering, request);
        let counts = self.api.is_metered();
        let mut usage = if counts { found.usage } else { Usage::unknown() };
        if self.status >= 400 {
            // There is no reply in which the model could have called anything.
            usage.forget_quantity(Quantity::ToolCalls);
        }
        let answers = metering == Metering::Count && self.status < 400;
        // xAI charges for each image that it is given; no reply says how many those were.
        if self.api == Api::Images
            && self.flavour.charge == flavour::Charge::Ticks
            && answers
            && let Some(images) = request.input_images
        {
            usage.set_quantity(Quantity::InputImages, images);
        }
        if answers && self.always_searches(&found) {
            usage.set_quantity(Quantity::WebSearchRequests, 1);
        }
        Reading {
            outcome,
            metering,
            usage,
            usage_source: match (tells_use(&usage), found.is_final) {
                (false, _) => UsageSource::Absent,
                (true, true) => UsageSource::Provider,
                (true, false) => UsageSource::ProviderPartial,
            },
            by_model: found.by_model,
            usage_raw: raw_text(&found.raw),
            provider_cost: found.charge.map(|amount| ProviderCost { amount }),
            model_served: found.model.or_else(|| self.model_header.take()),
            tier: match self.is_spilled {
                true => Some(Label::fixed("default")),
                false => found.tier.or_else(|| self.tier_header.take()),
            },
            inference_geo: found.inference_geo,
            speed: found.speed,
            is_read_back,
            meter_id: found.id.filter(|_| metering != Metering::Never),
            stream: document.stream,
            batch: match found.lines {
                Some(lines) => Some(BatchReading::Results(lines)),
                None if found.batches.is_empty() || outcome != Outcome::Ok => None,
                None => Some(BatchReading::Names(found.batches)),
            },
            anomalies,
        }
    }

    fn outcome(&self, found: &Gathered, document: Document, ending: Ending) -> Outcome {
        if self.status >= 400 {
            return Outcome::Error;
        }
        let closed = if document.stream {
            found.progress == Progress::Closed
                || (found.progress == Progress::Finished && ending == Ending::Complete)
        } else {
            document.is_closed
        };
        match found.state {
            Some(state) if closed => return state,
            _ => {}
        }
        match ending {
            _ if found.error && document.stream => Outcome::ErrorMidstream,
            _ if found.error => Outcome::Error,
            _ if closed => Outcome::Ok,
            Ending::ClientAbort => Outcome::Aborted,
            Ending::UpstreamCut => Outcome::ErrorMidstream,
            // The body ended by itself: as an event stream it lacks its end, as a document it was none.
            Ending::Complete if document.stream => Outcome::ErrorMidstream,
            Ending::Complete => Outcome::Ok,
        }
    }

    /// Whether the model searches the web for each call, which has a fee, and tells nothing of that: OpenAI's
    /// search models in chat completions always do before they answer
    /// (<https://platform.openai.com/docs/guides/tools-web-search>).
    fn always_searches(&self, found: &Gathered) -> bool {
        let told = found.usage.quantity(Quantity::WebSearchRequests).is_some();
        // Who tells its charge or counts searches does so for these models too.
        let is_silent = self.api == Api::OpenAiChat && self.flavour.charge == flavour::Charge::None && !told;
        let model = found.model.as_ref().or(self.model_header.as_ref());
        is_silent && model.is_some_and(|model| model_name::is_search_model(model.as_str()))
    }

    /// Whether the reply counts now and again tells its usage when it is read back, without saying that it
    /// was not made in the background.
    fn is_read_back(&self, found: &Gathered, metering: Metering, request: &RequestFacts) -> bool {
        let is_silent = match self.api {
            Api::Responses => found.background.is_none(),
            Api::Interactions => true,
            _ => false,
        };
        is_silent && metering == Metering::Count && !request.is_unstored && found.id.is_some()
    }

    fn metering(&self, found: &Gathered, outcome: Outcome, request: &RequestFacts) -> Metering {
        let has_tokens = found.usage.has_tokens();
        match self.api {
            api if !api.is_metered() => Metering::Never,
            _ if outcome == Outcome::Error && !has_tokens => Metering::Never,
            // It was metered when it was made.
            Api::ResponsesGet if found.background == Some(false) => Metering::Never,
            Api::ResponsesGet | Api::InteractionsGet if found.id.is_some() && has_tokens => {
                Metering::OncePerId
            }
            Api::ResponsesGet | Api::InteractionsGet => Metering::Never,
            Api::Responses | Api::Interactions if found.background == Some(true) || request.background => {
                Metering::OncePerId
            }
            Api::AssistantsRun if found.id.is_some() => Metering::OncePerId,
            api if api.is_batch_results() && found.lines.is_none() => Metering::Never,
            _ => Metering::Count,
        }
    }
}

impl Body {
    fn of(context: &ReplyContext<'_>, content_type: Option<&str>) -> Self {
        let api = context.api;
        let framing = Framing::of(content_type, context.stream_requested, api);
        match api {
            Api::Unmetered | Api::CountTokens | Api::ChatStoreGet => Self::Ignored,
            // The refusal of a session; one that began is read by a `SessionMeter`.
            Api::Realtime | Api::Live => Self::Ignored,
            Api::Speech | Api::Transcription if is_opaque(content_type) => Self::Ignored,
            Api::OpenAiChat | Api::LegacyCompletions | Api::Embeddings | Api::Moderation => {
                Self::Chat(Reader::new(framing))
            }
            Api::Responses | Api::ResponsesCompact | Api::ResponsesGet => {
                Self::Responses(Reader::new(framing))
            }
            Api::Messages => Self::Messages(Reader::new(framing)),
            Api::GenerateContent | Api::StreamGenerateContent | Api::EmbedContent => {
                Self::Content(Reader::new(framing))
            }
            Api::Interactions | Api::InteractionsGet => Self::Interactions(Reader::new(framing)),
            Api::Converse | Api::ConverseStream => {
                Self::Converse(Box::new(bedrock::Reader::new(framing, Converse::default())))
            }
            Api::Invoke | Api::InvokeStream => {
                Self::Invoke(Box::new(bedrock::Reader::new(framing, Invoke::new(context.headers))))
            }
            Api::CohereChatV1 | Api::CohereChat | Api::CohereEmbed | Api::CohereClassify => {
                Self::Cohere(Box::new(Reader::new(framing)))
            }
            Api::OllamaChat | Api::OllamaGenerate | Api::OllamaEmbed => {
                Self::Ollama(Box::new(Reader::new(framing)))
            }
            Api::Rerank | Api::Images | Api::Transcription | Api::Speech | Api::Ocr => {
                Self::Units(Box::new(Reader::new(framing)))
            }
            Api::AssistantsRun => Self::Run(Box::new(Reader::new(framing))),
            Api::Batch | Api::BatchCreate => Self::Batch(Box::new(Reader::new(framing))),
            Api::BatchOutput | Api::MessagesBatchResults | Api::BatchResults => {
                Self::Results(Box::new(Reader::with(framing, Results::new(context.flavour))))
            }
            Api::GeminiBatchCreate | Api::GeminiBatch => {
                Self::Operation(Box::new(Reader::with(framing, Operation::new(context.flavour))))
            }
        }
    }

    fn passed(&mut self) -> Option<&mut PassedText> {
        match self {
            Self::Ignored | Self::Batch(_) | Self::Results(_) | Self::Operation(_) => None,
            Self::Chat(reader) => reader.events.shape.passed(),
            Self::Responses(reader) => reader.events.shape.passed(),
            Self::Messages(reader) => reader.events.shape.passed(),
            Self::Content(reader) => reader.events.shape.passed(),
            Self::Interactions(reader) => reader.events.shape.passed(),
            Self::Converse(reader) => Some(reader.passed()),
            Self::Invoke(reader) => Some(reader.passed()),
            Self::Cohere(reader) => reader.events.shape.passed(),
            Self::Ollama(reader) => reader.events.shape.passed(),
            Self::Units(reader) => reader.events.shape.passed(),
            Self::Run(reader) => reader.events.shape.passed(),
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        match self {
            Self::Ignored => {}
            Self::Chat(reader) => reader.feed(bytes),
            Self::Responses(reader) => reader.feed(bytes),
            Self::Messages(reader) => reader.feed(bytes),
            Self::Content(reader) => reader.feed(bytes),
            Self::Interactions(reader) => reader.feed(bytes),
            Self::Converse(reader) => reader.feed(bytes),
            Self::Invoke(reader) => reader.feed(bytes),
            Self::Cohere(reader) => reader.feed(bytes),
            Self::Ollama(reader) => reader.feed(bytes),
            Self::Units(reader) => reader.feed(bytes),
            Self::Run(reader) => reader.feed(bytes),
            Self::Batch(reader) => reader.feed(bytes),
            Self::Results(reader) => reader.feed(bytes),
            Self::Operation(reader) => reader.feed(bytes),
        }
    }
}

/// Whether a reading says what was used; calls of the caller's own tools are no use.
fn tells_use(usage: &Usage) -> bool {
    usage.has_tokens() || usage.quantities().any(|(quantity, _)| quantity != Quantity::ToolCalls)
}

/// The usage objects as one text, if it is short enough. What reads it judges whether it is JSON.
fn raw_text(objects: &[Vec<u8>]) -> Option<Arc<str>> {
    let joined;
    let text = match objects {
        [] => return None,
        [one] => one.as_slice(),
        many => {
            joined = [b"[".as_slice(), &many.join(&b','), b"]"].concat();
            joined.as_slice()
        }
    };
    if text.len() > RAW_BYTES_MAX {
        return None;
    }
    std::str::from_utf8(text).ok().map(Arc::from)
}

// === framing ===

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// One JSON document.
    Document,
    /// One JSON document, or several that are called one, each beginning on a line of its own.
    Documents,
    /// Server-sent events.
    Events,
    /// One JSON array, whose elements are events.
    Elements,
    /// AWS's own event stream.
    AwsEvents,
    /// One JSON document on each line.
    Lines,
    /// Told by the first byte: a brace or bracket opens a document; else what was asked for.
    Untold { stream_requested: bool },
}

impl Framing {
    fn of(content_type: Option<&str>, stream_requested: bool, api: Api) -> Self {
        if matches!(api, Api::BatchOutput | Api::MessagesBatchResults) {
            // Sent as whatever type a file has.
            return Self::Lines;
        }
        let kind = media_type(content_type);
        let is = |types: &[&str]| types.iter().any(|one| kind.eq_ignore_ascii_case(one));
        let has_lines = matches!(api, Api::OllamaChat | Api::OllamaGenerate | Api::CohereChatV1);
        if is(&["text/event-stream"]) {
            Self::Events
        } else if is(&["application/x-ndjson", "application/stream+json", "application/x-jsonl"]) {
            Self::Lines
        } else if is(&["application/json"]) {
            if has_lines { Self::Documents } else { Self::Document }
        } else if kind.eq_ignore_ascii_case("application/vnd.amazon.eventstream") {
            Self::AwsEvents
        } else if stream_requested && has_lines {
            Self::Lines
        } else if has_lines {
            // Ollama streams unless it is asked not to.
            Self::Documents
        } else {
            Self::Untold { stream_requested }
        }
    }
}

impl Framing {
    /// The framing of a body that is said to have this one and begins with `first`: types are wrong
    /// behind gateways that name them anew. No document begins like a field of an event, and no event
    /// like a document; lines and documents may look alike.
    fn seen(self, first: u8, has_array: bool) -> Self {
        let document = if first == b'[' && has_array { Self::Elements } else { Self::Document };
        match (self, first) {
            (Self::Events, b'{' | b'[') => document,
            // `data`, `event`, `id`, `retry`, or a comment.
            (Self::Document | Self::Documents, b'd' | b'e' | b'i' | b'r' | b':') => Self::Events,
            (Self::Document, _) => document,
            (Self::Untold { .. }, b'{' | b'[') => document,
            (Self::Untold { stream_requested: true }, _) => Self::Events,
            (Self::Untold { .. }, _) => Self::Document,
            (told, _) => told,
        }
    }
}

/// Whether there is nothing in `bytes` but JSON's white space.
fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
}

fn media_type(content_type: Option<&str>) -> &str {
    content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim()
}

/// Whether a body of this type is sound, subtitles or plain text.
fn is_opaque(content_type: Option<&str>) -> bool {
    let kind = media_type(content_type).to_ascii_lowercase();
    !(kind.is_empty() || kind == "text/event-stream" || kind.contains("json"))
}

/// How the body as a document went.
#[derive(Clone, Copy, Debug)]
struct Document {
    stream: bool,
    /// Whether the JSON document or array was complete.
    is_closed: bool,
    anomalies: Anomalies,
}

/// Walks a body in its framing and shows it to its shape.
#[derive(Debug)]
struct Reader<S> {
    framing: Framing,
    /// Whether anything of the body has come.
    has_begun: bool,
    /// Whether nothing but white space has come since the last line end.
    is_line_start: bool,
    sse: Sse,
    lines: Lines,
    events: EventReader<S>,
}

/// Walks the data of events, or a whole document.
#[derive(Debug)]
struct EventReader<S> {
    scanner: Scanner,
    shape: S,
    /// The first bytes of the event's data, to know `[DONE]`.
    head: [u8; DONE.len()],
    event_bytes: u64,
    prefix: Prefix,
    frame: Frame,
    anomalies: Anomalies,
}

const DONE: &[u8; 6] = b"[DONE]";

impl<S: Shape + Default> Reader<S> {
    fn new(framing: Framing) -> Self {
        Self::with(framing, S::default())
    }
}

impl<S: Shape> Reader<S> {
    fn with(framing: Framing, shape: S) -> Self {
        Self {
            framing,
            has_begun: false,
            is_line_start: false,
            sse: Sse::default(),
            lines: Lines::default(),
            events: EventReader {
                scanner: Scanner::new(S::EVENT),
                shape,
                head: [0; DONE.len()],
                event_bytes: 0,
                prefix: Prefix::default(),
                frame: Frame::default(),
                anomalies: Anomalies::default(),
            },
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let bytes = if self.has_begun { bytes } else { self.begin(bytes) };
        let EventReader { scanner, shape, .. } = &mut self.events;
        match self.framing {
            Framing::Events => self.sse.feed(bytes, &mut self.events),
            Framing::Lines => self.lines.feed(bytes, &mut self.events),
            Framing::Elements => scanner.feed(bytes, &mut Elements(shape)),
            Framing::Documents => self.documents(bytes),
            Framing::Document | Framing::AwsEvents | Framing::Untold { .. } => scanner.feed(bytes, shape),
        }
    }

    /// Decides the framing by the first byte of the body. What is left of `bytes`: white space before it
    /// is no part of it, nor is a byte order mark.
    fn begin<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let is_nothing = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, 0xEF | 0xBB | 0xBF);
        let at = bytes.iter().position(|byte| !is_nothing(byte)).unwrap_or(bytes.len());
        let bytes = bytes.get(at..).unwrap_or_default();
        let Some(first) = bytes.first() else { return bytes };
        self.has_begun = true;
        self.framing = self.framing.seen(*first, S::ARRAY.is_some());
        let root = match (self.framing, S::ARRAY) {
            (Framing::Elements, Some(array)) => array,
            (Framing::Document | Framing::Documents, _) => S::PLAIN,
            _ => S::EVENT,
        };
        self.events.scanner = Scanner::new(root);
        bytes
    }

    /// Reads a document; another one on a line behind it makes lines of both.
    fn documents(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let EventReader { scanner, shape, .. } = &mut self.events;
            if self.is_line_start && scanner.is_complete() && !is_blank(bytes) {
                shape.end_event(b"", Data::Whole);
                self.events.scanner = Scanner::new(S::EVENT);
                self.framing = Framing::Lines;
                return self.lines.feed(bytes, &mut self.events);
            }
            let end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at.saturating_add(1));
            let (line, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
            scanner.feed(line, shape);
            self.is_line_start = line.ends_with(b"\n") || (self.is_line_start && is_blank(line));
            bytes = rest;
        }
    }

    fn finish(&mut self, context: &mut Context<'_>) -> (Gathered, Document) {
        let elements = self.framing == Framing::Elements;
        match self.framing {
            Framing::Events => self.sse.finish(&mut self.events),
            Framing::Lines => self.lines.finish(&mut self.events),
            Framing::Document
            | Framing::Documents
            | Framing::AwsEvents
            | Framing::Elements
            | Framing::Untold { .. } => {}
        }
        if elements && self.events.scanner.is_malformed() {
            self.events.anomalies.insert(Anomaly::MalformedReply);
        }
        let events = matches!(self.framing, Framing::Events | Framing::Lines);
        let stream = events || elements;
        let is_closed = !events && self.events.scanner.is_complete();
        (context.stream, context.closed) = (stream, is_closed);
        let document = Document { stream, is_closed, anomalies: self.events.anomalies };
        let mut gathered = self.events.shape.gather(context);
        if elements {
            gathered.progress = if is_closed { Progress::Closed } else { Progress::Open };
        }
        (gathered, document)
    }
}

impl<S: Shape> Events for EventReader<S> {
    fn data(&mut self, piece: &[u8]) {
        let known = usize::try_from(self.event_bytes).unwrap_or(usize::MAX);
        if known < DONE.len() {
            for (slot, byte) in self.head.iter_mut().skip(known).zip(piece) {
                *slot = *byte;
            }
        }
        self.event_bytes = self.event_bytes.saturating_add(piece.len() as u64);
        let Self { scanner, shape, prefix, frame, .. } = self;
        if known > 0 {
            scanner.feed(piece, shape);
            return;
        }
        if let Some((id, text)) = frame.of(piece) {
            shape.again(id, text);
            scanner.pass_over(piece.len());
            return;
        }
        if let Some(checkpoint) = prefix.of(piece) {
            scanner.resume(checkpoint);
            scanner.feed(piece.get(checkpoint.length()..).unwrap_or_default(), shape);
        } else {
            scanner.feed(piece, shape);
            prefix.learn(piece, scanner.checkpoint());
        }
        frame.learn(piece, scanner, shape.is_text_alone());
    }

    fn end(&mut self, name: &[u8], has_data: bool) {
        let data = if &self.head == DONE && self.event_bytes >= DONE.len() as u64 {
            Data::Done
        } else if has_data && self.scanner.is_complete() {
            Data::Whole
        } else {
            Data::Partial
        };
        if data == Data::Partial && self.scanner.is_malformed() {
            self.anomalies.insert(Anomaly::MalformedReply);
        }
        if self.event_bytes > S::EVENT_BYTES_MAX {
            self.anomalies.insert(Anomaly::MeteringCapped);
        }
        self.shape.end_event(name, data);
        self.scanner.reset();
        self.head = [0; DONE.len()];
        self.event_bytes = 0;
    }

    fn error_line(&mut self) {
        self.shape.error();
    }
}

#[cfg(test)]
mod tests;
