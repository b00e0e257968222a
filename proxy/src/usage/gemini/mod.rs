//! Gemini's replies: generated content and embeddings, plain, as events and as one array of chunks.
//!
//! Rules
//! - Every chunk of a stream repeats the usage, and it goes down where an inner turn restarts the
//!   counters: the last object counts as a whole, and nothing is added or compared.
//! - Vertex sends chunks whose usage is a traffic type alone: they count nothing and tell the tier.
//! - No event ends a stream. It is complete when a candidate finished, or the prompt was blocked, and
//!   its framing says that the body ended by itself.
//! - What a prompt's filter withheld is told; a candidate that a filter stopped is a reply like any
//!   other, since its tokens are charged.
//!
//! | file | owns |
//! |---|---|
//! | `counts` | what the numbers mean |
//! | `interactions` | the Interactions API |
//! | `batches` | operations of batches, with their results |
//!
//! Not here: framing (`sse`, `elements`), the paths (`google_path`).

mod batches;
mod counts;
mod interactions;

pub(super) use batches::{Operation, REPLY_KEYS as BATCH_REPLY_KEYS};
pub(super) use counts::Counts;
pub(super) use interactions::Interactions;

use super::elements::ELEMENT;
use super::json::{Node, Scanner, Sink, is_present};
use super::number;
use super::shape::{Context, Data, Gathered, Held, Kind, Progress, Shape};
use super::text::{PassedText, TextKey, TextKind};
use bursar_domain::event::{Anomalies, Anomaly, Outcome};
use bursar_domain::usage::Quantity;
use memchr::memmem;

mod id {
    pub(super) const ID: u8 = 1;
    pub(super) const MODEL: u8 = 2;
    pub(super) const USAGE: u8 = 3;
    pub(super) const CANDIDATES: u8 = 4;
    pub(super) const FINISH: u8 = 5;
    pub(super) const CALL: u8 = 6;
    pub(super) const QUERIES: u8 = 7;
    pub(super) const BLOCKED: u8 = 8;
    pub(super) const ERROR: u8 = 9;
    pub(super) const STATISTICS: u8 = 10;
    pub(super) const PART: u8 = 11;
    pub(super) const TEXT: u8 = 12;
    pub(super) const THOUGHT: u8 = 13;
    pub(super) const ARGUMENTS: u8 = 14;
    pub(super) const CODE: u8 = 15;
}

static ANY: Node = Node::object(&[]);

static PART: Node = Node::object(&[
    ("text", Node::text(id::TEXT)),
    ("thought", Node::scalar(id::THOUGHT)),
    ("functionCall", Node::object(&[("name", Node::scalar(id::CALL)), ("args", Node::whole(id::ARGUMENTS))])),
    ("executableCode", Node::object(&[("code", Node::text(id::CODE))])),
])
.marked(id::PART);

static CANDIDATE: Node = Node::object(&[
    ("content", Node::object(&[("parts", Node::array(&PART))])),
    ("finishReason", Node::scalar(id::FINISH)),
    ("groundingMetadata", Node::object(&[("webSearchQueries", Node::array(&ANY).marked(id::QUERIES))])),
]);

/// One of the results of Vertex's `predict`, which is how older models embed there.
static PREDICTION: Node =
    Node::object(&[("embeddings", Node::object(&[("statistics", Node::whole(id::STATISTICS))]))]);

const REPLY_KEYS: [(&str, Node); 7] = [
    ("candidates", Node::array(&CANDIDATE).marked(id::CANDIDATES)),
    ("promptFeedback", Node::object(&[("blockReason", Node::scalar(id::BLOCKED))])),
    ("usageMetadata", Node::whole(id::USAGE)),
    ("modelVersion", Node::scalar(id::MODEL)),
    ("responseId", Node::scalar(id::ID)),
    ("error", Node::whole(id::ERROR)),
    ("predictions", Node::array(&PREDICTION)),
];

/// A reply, or one that Cloud Code wraps (`v1internal:generateContent`).
const WRAPPED_KEYS: &[(&str, Node)] = &{
    let [a, b, c, d, e, f, g] = REPLY_KEYS;
    [a, b, c, d, e, f, g, ("response", Node::object(&REPLY_KEYS))]
};

static REPLY: Node = Node::object(WRAPPED_KEYS);
static CHUNK: Node = Node::object(WRAPPED_KEYS).marked(ELEMENT);
static CHUNKS: Node = Node::array(&CHUNK);

/// Most statistics of predictions that are kept as sent; all are counted.
const STATISTICS_MAX: usize = 64;

/// Generated content or embeddings.
#[derive(Debug, Default)]
pub(super) struct Content {
    id: Held,
    model: Held,
    usage: Held,
    /// The last usage without counts.
    bare: Held,
    /// Input tokens of predictions.
    embedded: Option<u64>,
    statistics: Vec<Vec<u8>>,
    /// Of the chunk under way, which counts when it is whole.
    chunk_calls: u64,
    chunk_queries: Option<u64>,
    chunk_usage: bool,
    tool_calls: u64,
    searches: Option<u64>,
    finished: bool,
    blocked: bool,
    usage_is_final: bool,
    error: bool,
    seen: bool,
    /// Whether the part under way is thinking.
    thought: bool,
    /// Whether the part under way has text, and whether any that was no thinking had some.
    part_text: bool,
    answered: bool,
    text: PassedText,
    anomalies: Anomalies,
}

impl Sink for Content {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        self.seen = true;
        match id {
            id::ID => self.id.first_text(raw),
            id::MODEL => self.model.text(raw),
            id::USAGE if raw.first() != Some(&b'{') => {}
            id::USAGE if memmem::find(raw, b"TokenCount\"").is_some() => {
                self.usage.raw(raw);
                self.chunk_usage = true;
            }
            id::USAGE => self.bare.raw(raw),
            id::FINISH => self.finished |= is_told(raw),
            id::CALL => {
                self.chunk_calls += u64::from(is_present(raw));
                self.text.piece(TextKind::Tool, raw.trim_ascii());
            }
            id::ARGUMENTS => self.text.piece(TextKind::Tool, raw),
            id::THOUGHT => self.thought = raw == b"true",
            id::BLOCKED => self.blocked |= is_told(raw),
            id::ERROR => self.error |= is_present(raw),
            id::STATISTICS => self.embed(raw),
            _ => {}
        }
    }

    fn open(&mut self, _id: u8, _at: u64) {
        self.seen = true;
    }

    fn close(&mut self, id: u8, _at: u64, items: u64) {
        match id {
            id::QUERIES => {
                self.chunk_queries = Some(self.chunk_queries.unwrap_or(0).saturating_add(items));
            }
            id::PART => self.end_part(),
            _ => {}
        }
    }

    fn text(&mut self, id: u8, raw: &[u8]) {
        let kind = if id == id::CODE { TextKind::Tool } else { TextKind::Content };
        self.part_text |= !raw.is_empty();
        self.text.piece(kind, raw);
    }

    fn too_long(&mut self, id: u8) {
        // Arguments are only wanted for their text.
        if id != id::ARGUMENTS {
            self.anomalies.insert(Anomaly::MeteringCapped);
        }
    }

    fn duplicate(&mut self) {
        self.anomalies.insert(Anomaly::MalformedReply);
    }
}

/// Whether an enumeration says something: its zero says nothing.
fn is_told(raw: &[u8]) -> bool {
    is_present(raw) && raw != b"0" && !raw.ends_with(b"_UNSPECIFIED\"")
}

impl Content {
    /// The part under way is over, and what it was is known. Candidates are not told apart: each chunk
    /// tells a candidate's index behind its text, and counts of these texts are estimates anyway.
    fn end_part(&mut self) {
        let is_thought = std::mem::take(&mut self.thought);
        self.answered |= std::mem::take(&mut self.part_text) && !is_thought;
        self.text.settle_as(|key| match key.kind {
            TextKind::Content if is_thought => TextKey { kind: TextKind::Reasoning, ..key },
            _ => key,
        });
    }

    fn end_chunk(&mut self) {
        self.tool_calls = self.tool_calls.saturating_add(std::mem::take(&mut self.chunk_calls));
        // Later chunks may repeat the queries of earlier ones.
        self.searches = self.searches.max(self.chunk_queries.take());
    }

    fn embed(&mut self, raw: &[u8]) {
        let mut tokens = Tokens::default();
        Scanner::new(&STATISTICS).feed(raw, &mut tokens);
        self.anomalies.extend(tokens.anomalies);
        if let Some(count) = tokens.count {
            self.embedded = Some(self.embedded.unwrap_or(0).saturating_add(count));
            if self.statistics.len() < STATISTICS_MAX {
                self.statistics.push(raw.to_vec());
            }
        }
    }
}

impl Shape for Content {
    const PLAIN: &'static Node = &REPLY;
    const EVENT: &'static Node = &REPLY;
    const ARRAY: Option<&'static Node> = Some(&CHUNKS);
    // A chunk holds a whole picture, which may be tens of megabytes in base64.
    const EVENT_BYTES_MAX: u64 = 128 * 1024 * 1024;

    fn end_event(&mut self, name: &[u8], data: Data) {
        self.error |= name == b"error";
        if data == Data::Whole {
            self.end_chunk();
        }
        (self.chunk_calls, self.chunk_queries) = (0, None);
        if std::mem::take(&mut self.chunk_usage) {
            self.usage_is_final = self.finished || self.blocked;
        }
    }

    fn error(&mut self) {
        self.error = true;
    }

    fn passed(&mut self) -> Option<&mut PassedText> {
        Some(&mut self.text)
    }

    fn gather(&mut self, context: &Context<'_>) -> Gathered {
        let mut anomalies = self.anomalies;
        if !context.stream {
            self.end_chunk();
        }
        let bare = Counts::of(self.bare.bytes());
        let mut counts = match self.embedded {
            Some(input) if self.usage.is_empty() => Counts::of_embedding(input),
            _ => Counts::of(self.usage.bytes()),
        };
        if context.kind == Kind::Embedding {
            counts = counts.without_output();
        }
        let is_complete = self.finished || self.blocked;
        counts.answered = self.answered && is_complete;
        let mut usage = counts.usage(&mut anomalies);
        if (self.seen || context.closed) && context.kind != Kind::Embedding {
            usage.set_quantity(Quantity::ToolCalls, self.tool_calls);
        }
        if let Some(searches) = self.searches {
            usage.set_quantity(Quantity::WebSearchRequests, searches);
        }
        let mut raw = std::mem::take(&mut self.statistics);
        if !self.usage.is_empty() {
            raw = vec![self.usage.take()];
        }
        Gathered {
            id: self.id.label(),
            model: self.model.label(),
            tier: counts.tier().or_else(|| bare.tier()),
            inference_geo: None,
            speed: None,
            usage,
            is_final: if context.stream {
                self.usage_is_final
            } else {
                context.closed || self.embedded.is_none()
            },
            by_model: Vec::new(),
            raw,
            charge: None,
            progress: if is_complete { Progress::Finished } else { Progress::Open },
            error: self.error,
            state: (self.blocked && !self.error).then_some(Outcome::Filtered),
            anomalies,
            ..Gathered::nothing()
        }
    }
}

// === predictions ===

mod statistics_id {
    pub(super) const TOKENS: u8 = 1;
}

static STATISTICS: Node = Node::object(&[("token_count", Node::scalar(statistics_id::TOKENS))]);

#[derive(Debug, Default)]
struct Tokens {
    count: Option<u64>,
    anomalies: Anomalies,
}

impl Sink for Tokens {
    fn value(&mut self, _id: u8, raw: &[u8], _at: u64) {
        self.count = number::count(raw, &mut self.anomalies);
    }
}
