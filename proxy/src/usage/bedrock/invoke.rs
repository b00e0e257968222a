//! InvokeModel and InvokeModelWithResponseStream: the models' own bodies, with Bedrock's counts beside.
//!
//! Rules
//! - Bedrock counts for every family, in response headers or, in a stream, in
//!   `amazon-bedrock-invocationMetrics` of the last chunk. What a body says by itself is read for when
//!   these are missing, and for what they do not tell: lifetimes of the cache, thinking.
//! - Where the two differ, the difference is noted and Bedrock's count wins, but not over Anthropic's in a
//!   stream, or over one with passes of other models: the metrics of a stream were seen to leave out the
//!   output of tool calls (90 of 134 tokens) that the headers of the same request, not streamed, did have.
//! - A chunk of a stream carries one event of the model as base64.
//!
//! Not here: Anthropic's messages (`anthropic`), Bedrock's counts (`bedrock`), framing (`aws_events`).

use super::{Counts, Replies, base64, is_present, is_withheld};
use crate::usage::anthropic::Messages;
use crate::usage::json::{Node, Scanner, Sink};
use crate::usage::number;
use crate::usage::shape::{Context, Data, Gathered, Held, Progress, Shape};
use crate::usage::text::{PassedText, TextKind};
use crate::usage::totals::{Reported, disjoint};
use bursar_domain::event::{Anomalies, Anomaly, Outcome};
use bursar_domain::usage::{TokenClass, Usage};
use http::HeaderMap;

mod id {
    pub(super) const TYPE: u8 = 0;
    pub(super) const USAGE: u8 = 1;
    pub(super) const METRICS: u8 = 2;
    pub(super) const GUARDRAIL: u8 = 3;
    pub(super) const FINISH: u8 = 4;
    pub(super) const STREAM_USAGE: u8 = 5;
    pub(super) const IN: u8 = 6;
    pub(super) const OUT: u8 = 7;
    pub(super) const RESULT_OUT: u8 = 8;
    pub(super) const OBJECT: u8 = 9;
    pub(super) const ID: u8 = 10;
    pub(super) const MODEL: u8 = 11;
    pub(super) const TOTAL_OUT: u8 = 12;
    pub(super) const TEXT: u8 = 13;
    pub(super) const REASONING: u8 = 14;
    pub(super) const CALL: u8 = 15;
}

const TEXT: Node = Node::text(id::TEXT);
const CALL: Node = Node::text(id::CALL);
const REASONING: Node = Node::text(id::REASONING);

static TEXT_PART: Node = Node::object(&[("text", TEXT)]);

/// A block of Anthropic's, as it begins or whole.
static BLOCK: Node = Node::object(BLOCK_KEYS);

const BLOCK_KEYS: &[(&str, Node)] = &[("text", TEXT), ("thinking", REASONING), ("name", CALL)];

/// A block of Nova's.
static NOVA_BLOCK: Node =
    Node::object(&[("text", TEXT), ("toolUse", Node::object(&[("name", CALL), ("input", CALL)]))]);

static TOOL: Node = Node::object(&[("function", Node::object(&[("name", CALL), ("arguments", CALL)]))]);

static ANSWER_KEYS: [(&str, Node); 4] = [
    ("content", TEXT),
    ("reasoning_content", REASONING),
    ("reasoning", REASONING),
    ("tool_calls", Node::array(&TOOL)),
];

/// A choice of OpenAI's.
static CHOICE: Node = Node::object(&[
    ("delta", Node::object(&ANSWER_KEYS)),
    ("message", Node::object(&ANSWER_KEYS)),
    ("text", TEXT),
]);

/// Titan's results.
static RESULT: Node = Node::object(&[
    ("outputText", TEXT),
    ("tokenCount", Node::scalar(id::RESULT_OUT)),
    ("completionReason", Node::scalar(id::FINISH)),
]);

/// What is wanted from a body, or an event of it, of any family. Anthropic's are read beside this.
static BODY: Node = Node::object(&[
    ("type", Node::scalar(id::TYPE)),
    ("amazon-bedrock-invocationMetrics", Node::whole(id::METRICS)),
    ("amazon-bedrock-guardrailAction", Node::scalar(id::GUARDRAIL)),
    // Nova, and OpenAI's chat completions.
    ("usage", Node::whole(id::USAGE)),
    ("metadata", Node::object(&[("usage", Node::whole(id::STREAM_USAGE))])),
    ("object", Node::scalar(id::OBJECT)),
    ("id", Node::scalar(id::ID)),
    ("model", Node::scalar(id::MODEL)),
    // Titan.
    ("inputTextTokenCount", Node::scalar(id::IN)),
    ("totalOutputTextTokenCount", Node::scalar(id::TOTAL_OUT)),
    ("completionReason", Node::scalar(id::FINISH)),
    ("results", Node::array(&RESULT)),
    // Llama.
    ("prompt_token_count", Node::scalar(id::IN)),
    ("generation_token_count", Node::scalar(id::OUT)),
    ("stop_reason", Node::scalar(id::FINISH)),
    // The texts of all families, whose names do not clash either.
    ("content", Node::array(&BLOCK)),
    ("content_block", Node::object(BLOCK_KEYS)),
    ("delta", Node::object(&[("text", TEXT), ("thinking", REASONING), ("partial_json", CALL)])),
    ("output", Node::object(&[("message", Node::object(&[("content", Node::array(&NOVA_BLOCK))]))])),
    ("contentBlockStart", Node::object(&[("start", NOVA_DELTA)])),
    ("contentBlockDelta", Node::object(&[("delta", NOVA_DELTA)])),
    ("choices", Node::array(&CHOICE)),
    ("outputText", TEXT),
    ("generation", TEXT),
    ("outputs", Node::array(&TEXT_PART)),
    ("generations", Node::array(&TEXT_PART)),
    ("completion", TEXT),
    ("text", TEXT),
]);

const NOVA_DELTA: Node =
    Node::object(&[("text", TEXT), ("toolUse", Node::object(&[("name", CALL), ("input", CALL)]))]);

/// A reply of InvokeModel, plain or streamed.
#[derive(Debug)]
pub(in crate::usage) struct Invoke {
    scanner: Scanner,
    found: Found,
    /// The model's event in the last chunk of a stream.
    event: Vec<u8>,
    messages_scanner: Option<Scanner>,
    messages: Messages,
    headers: Counts,
    headers_raw: Vec<u8>,
    tier: Held,
    latency: Held,
}

#[derive(Debug, Default)]
struct Found {
    kind: Held,
    object: Held,
    id: Held,
    model: Held,
    usage: Held,
    metrics: Held,
    input: Option<u64>,
    output: Option<u64>,
    anthropic: bool,
    /// Nova's last event was seen.
    closed: bool,
    finished: bool,
    intervened: bool,
    error: bool,
    text: PassedText,
    anomalies: Anomalies,
}

impl Sink for Found {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        let is_object = raw.first() == Some(&b'{');
        match id {
            id::TYPE => {
                self.kind.raw(raw);
                self.anthropic |= matches!(raw, b"\"message\"" | b"\"message_start\"");
            }
            id::USAGE if is_object => self.usage.raw(raw),
            id::STREAM_USAGE if is_object => {
                self.usage.raw(raw);
                self.closed = true;
            }
            id::METRICS if is_object => self.metrics.raw(raw),
            id::GUARDRAIL => self.intervened |= raw == b"\"INTERVENED\"",
            id::FINISH => {
                self.finished |= is_present(raw);
                self.intervened |= raw == b"\"CONTENT_FILTERED\"";
            }
            id::IN => self.input = number::count(raw, &mut self.anomalies).or(self.input),
            id::OUT | id::TOTAL_OUT => {
                // Llama counts in every chunk, Titan when it has finished.
                self.finished |= id == id::TOTAL_OUT && is_present(raw);
                self.output = number::count(raw, &mut self.anomalies).or(self.output);
            }
            id::RESULT_OUT => {
                let more = number::count(raw, &mut self.anomalies);
                self.output = more.map(|more| more.saturating_add(self.output.unwrap_or(0))).or(self.output);
            }
            id::OBJECT => self.object.text(raw),
            id::ID => self.id.first_text(raw),
            id::MODEL => self.model.text(raw),
            _ => {}
        }
    }

    fn text(&mut self, id: u8, raw: &[u8]) {
        let kind = match id {
            id::TEXT => TextKind::Content,
            id::REASONING => TextKind::Reasoning,
            _ => TextKind::Tool,
        };
        self.text.piece(kind, raw);
    }

    fn too_long(&mut self, _id: u8) {
        self.anomalies.insert(Anomaly::MeteringCapped);
    }

    fn duplicate(&mut self) {
        self.anomalies.insert(Anomaly::MalformedReply);
    }
}

impl Found {
    /// What the body of another family than Anthropic says by itself.
    fn own_usage(&self, anomalies: &mut Anomalies) -> Usage {
        let counts = Counts::of(self.usage.bytes());
        if !counts.is_unknown() {
            return counts.usage(anomalies);
        }
        let openai = OpenAi::of(self.usage.bytes());
        if openai.0.input.is_some() || openai.0.output.is_some() {
            return disjoint(&openai.0, anomalies);
        }
        let mut usage = Usage::unknown();
        for (count, class) in [(self.input, TokenClass::InputFresh), (self.output, TokenClass::OutputText)] {
            if let Some(count) = count {
                usage.set(class, count);
            }
        }
        usage
    }

    fn is_openai(&self) -> bool {
        self.object.bytes().starts_with(b"\"chat.completion")
    }
}

impl Invoke {
    /// A reader for the reply with these headers.
    pub(in crate::usage) fn new(headers: &HeaderMap) -> Self {
        let (counts, headers_raw) = Counts::of_headers(headers);
        let held = |name: &str| {
            let mut held = Held::default();
            if let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) {
                held.text(serde_json::json!(value).to_string().as_bytes());
            }
            held
        };
        Self {
            scanner: Scanner::new(&BODY),
            found: Found::default(),
            event: Vec::new(),
            messages_scanner: None,
            messages: Messages::default(),
            headers: counts,
            headers_raw,
            tier: held("x-amzn-bedrock-service-tier"),
            latency: held("x-amzn-bedrock-performanceconfig-latency"),
        }
    }

    /// Bedrock's own counts, and their text.
    fn told(&mut self) -> (Counts, Vec<u8>) {
        if self.found.metrics.is_empty() {
            (std::mem::take(&mut self.headers), std::mem::take(&mut self.headers_raw))
        } else {
            (Counts::of(self.found.metrics.bytes()), self.found.metrics.take())
        }
    }

    /// Reads Anthropic's event, if this is one.
    fn message_event(&mut self) {
        if self.found.kind.is_empty() {
            return;
        }
        self.found.kind.clear();
        let scanner = self.messages_scanner.get_or_insert_with(|| Scanner::new(Messages::EVENT));
        scanner.reset();
        scanner.feed(&self.event, &mut self.messages);
        self.messages.end_event(b"", Data::Whole);
    }

    /// What a reply of another family than Anthropic's has.
    fn gather_other(&self, context: &Context<'_>) -> Gathered {
        let found = &self.found;
        let mut anomalies = Anomalies::default();
        let usage = found.own_usage(&mut anomalies);
        let named = found.is_openai();
        Gathered {
            id: found.id.label().filter(|_| named),
            model: found.model.label().filter(|_| named),
            tier: None,
            inference_geo: None,
            speed: None,
            usage,
            is_final: !context.stream || found.finished || found.closed,
            by_model: Vec::new(),
            raw: if found.usage.is_empty() { Vec::new() } else { vec![found.usage.bytes().to_vec()] },
            charge: None,
            progress: if found.finished { Progress::Finished } else { Progress::Open },
            error: false,
            state: None,
            anomalies,
            ..Gathered::nothing()
        }
    }
}

impl Replies for Invoke {
    fn document(&mut self, bytes: &[u8]) {
        self.scanner.feed(bytes, &mut self.found);
        let scanner = self.messages_scanner.get_or_insert_with(|| Scanner::new(Messages::PLAIN));
        scanner.feed(bytes, &mut self.messages);
    }

    fn is_complete(&self) -> bool {
        self.scanner.is_complete()
    }

    fn event(&mut self, name: &[u8], payload: &[u8]) -> bool {
        if name != b"chunk" {
            return true;
        }
        if !chunk_text(payload).is_some_and(|text| base64::decode(text, &mut self.event)) {
            return false;
        }
        self.scanner.reset();
        self.scanner.feed(&self.event, &mut self.found);
        let is_whole = self.scanner.is_complete();
        if is_whole {
            self.message_event();
        }
        self.found.text.settle(0);
        is_whole
    }

    fn passed(&mut self) -> &mut PassedText {
        &mut self.found.text
    }

    fn exception(&mut self) {
        self.found.error = true;
        self.messages.error();
    }

    fn gather(&mut self, context: &Context<'_>) -> Gathered {
        let is_measured = !self.found.metrics.is_empty();
        let (told, told_raw) = self.told();
        let is_anthropic = self.found.anthropic;
        let mut gathered =
            if is_anthropic { self.messages.gather(context) } else { self.gather_other(context) };
        let anomalies = &mut gathered.anomalies;
        anomalies.extend(self.found.anomalies);
        anomalies.extend(told.anomalies);
        if told.disagrees_with(&gathered.usage) {
            anomalies.insert(Anomaly::CountsDisagree);
            if !is_anthropic {
                let own = gathered.usage;
                gathered.usage = told.usage(anomalies);
                fill(&mut gathered.usage, own.get(TokenClass::InputFresh), None, None, own.output_total());
            } else if !context.stream && !anomalies.contains(Anomaly::IterationsAdded) {
                gathered.usage = told.over(&gathered.usage);
            }
        }
        if !told.is_unknown() {
            let [input, read, written, output] = told.main();
            fill(&mut gathered.usage, input, read, written, output);
            gathered.is_final = true;
        }
        if !told_raw.is_empty() {
            gathered.raw.push(told_raw);
        }
        if self.found.closed || is_measured {
            gathered.progress = Progress::Closed;
        }
        if is_withheld(self.found.intervened, &gathered.usage) {
            gathered.state = Some(Outcome::Filtered);
        }
        gathered.error |= self.found.error;
        gathered.tier = self.tier.label().or(gathered.tier);
        gathered.speed = gathered.speed.or(self.latency.label());
        gathered
    }
}

/// States what is not known yet.
fn fill(usage: &mut Usage, input: Option<u64>, read: Option<u64>, written: Option<u64>, output: Option<u64>) {
    for (known, count, class) in [
        (usage.get(TokenClass::InputFresh), input, TokenClass::InputFresh),
        (usage.cached_read_total(), read, TokenClass::CachedRead),
        (usage.cache_write_total(), written, TokenClass::CacheWrite),
        (usage.output_total(), output, TokenClass::OutputText),
    ] {
        if let (None, Some(count)) = (known, count) {
            usage.set(class, count);
        }
    }
}

/// The base64 text in a chunk's payload, `{"bytes":"…","p":"…"}`. It may be longer than the walker
/// collects, and nothing in the payload can look like its key: a quote inside a string is escaped.
fn chunk_text(payload: &[u8]) -> Option<&[u8]> {
    const KEY: &[u8] = b"\"bytes\"";
    let at = memchr::memmem::find(payload, KEY)?.checked_add(KEY.len())?;
    let value = payload.get(at..)?.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let text = value.strip_prefix(b"\"")?;
    text.get(..memchr::memchr(b'"', text)?)
}

// === OpenAI's chat completions ===

mod openai {
    pub(super) const INPUT: u8 = 0;
    pub(super) const OUTPUT: u8 = 1;
    pub(super) const CACHED: u8 = 2;
    pub(super) const REASONING: u8 = 3;
}

static OPENAI_USAGE: Node = Node::object(&[
    ("prompt_tokens", Node::scalar(openai::INPUT)),
    ("completion_tokens", Node::scalar(openai::OUTPUT)),
    ("prompt_tokens_details", Node::object(&[("cached_tokens", Node::scalar(openai::CACHED))])),
    ("completion_tokens_details", Node::object(&[("reasoning_tokens", Node::scalar(openai::REASONING))])),
]);

/// A usage object with OpenAI's names, where subsets are inside their totals.
#[derive(Debug, Default)]
struct OpenAi(Reported);

impl OpenAi {
    fn of(raw: &[u8]) -> Self {
        let mut usage = Self::default();
        Scanner::new(&OPENAI_USAGE).feed(raw, &mut usage);
        usage
    }
}

impl Sink for OpenAi {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        let count = number::count(raw, &mut Anomalies::default());
        match id {
            openai::INPUT => self.0.input = count,
            openai::OUTPUT => self.0.output = count,
            openai::CACHED => self.0.cached = count,
            _ => self.0.reasoning = count,
        }
    }
}
