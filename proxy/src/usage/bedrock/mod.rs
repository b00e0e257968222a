//! Amazon Bedrock's own APIs: the two framings of a reply, and Bedrock's names for counts.
//!
//! Rules (AWS API reference: Converse, ConverseStream, InvokeModel, `TokenUsage`)
//! - Cache reads and writes add to the input; they are not inside it.
//! - Each cache number has two names, of which one is read.
//! - Errors in a stream are messages of the types `exception` and `error`, under status 200.
//!
//! | file | owns |
//! |---|---|
//! | `converse` | Converse and ConverseStream |
//! | `invoke` | InvokeModel and InvokeModelWithResponseStream, whose bodies are the models' own |
//! | `base64` | the models' bytes in a stream |
//!
//! Not here: framing (`aws_events`), Mantle, which speaks OpenAI's and Anthropic's APIs.

mod base64;
mod converse;
mod invoke;

pub(super) use converse::Converse;
pub(super) use invoke::Invoke;

use super::aws_events::{AwsEvents, Message, Messages};
use super::json::{Node, Scanner, Sink, is_present};
use super::number;
use super::shape::{Context, Gathered, Held};
use super::text::PassedText;
use super::totals::set_writes;
use super::{Document, Framing};
use bursar_domain::event::{Anomalies, Anomaly};
use bursar_domain::usage::{TokenClass, Usage};

/// One of Bedrock's reply shapes.
pub(super) trait Replies {
    /// Reads on in a reply that is one document.
    fn document(&mut self, bytes: &[u8]);
    /// Whether that document is complete.
    fn is_complete(&self) -> bool;
    /// Reads the payload of an event; `false` when it is no JSON.
    fn event(&mut self, name: &[u8], payload: &[u8]) -> bool;
    /// The stream reported an error.
    fn exception(&mut self);
    /// The text that passed.
    fn passed(&mut self) -> &mut PassedText;
    /// What was found, when the reply is over.
    fn gather(&mut self, context: &Context<'_>) -> Gathered;
}

/// Reads a reply in its framing.
#[derive(Debug)]
pub(super) struct Reader<R> {
    /// What the reply is said to be.
    told: Option<Kind>,
    framing: Option<Kind>,
    events: AwsEvents,
    read: Read<R>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Document,
    Events,
}

#[derive(Debug)]
struct Read<R> {
    replies: R,
    anomalies: Anomalies,
}

impl<R: Replies> Messages for Read<R> {
    fn message(&mut self, message: &Message<'_>) {
        if !message.has_sound_headers() {
            self.anomalies.insert(Anomaly::MalformedReply);
        }
        if matches!(message.text(b":message-type"), Some(b"exception" | b"error")) {
            self.replies.exception();
            return;
        }
        let name = message.text(b":event-type").unwrap_or_default();
        if !self.replies.event(name, message.payload) {
            self.anomalies.insert(Anomaly::MalformedReply);
        }
    }
}

impl<R: Replies> Reader<R> {
    pub(super) fn new(framing: Framing, replies: R) -> Self {
        let told = (framing == Framing::AwsEvents).then_some(Kind::Events);
        let read = Read { replies, anomalies: Anomalies::default() };
        Self { told, framing: None, events: AwsEvents::default(), read }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let Some(first) = bytes.first() else { return };
        // No message is so long that its length would not begin with a zero, and no document begins so. What
        // is neither is taken for what it is said to be.
        let seen = match first {
            0 => Kind::Events,
            b'{' | b'[' => Kind::Document,
            _ => self.told.unwrap_or(Kind::Document),
        };
        match *self.framing.get_or_insert(seen) {
            Kind::Document => self.read.replies.document(bytes),
            Kind::Events => self.events.feed(bytes, &mut self.read),
        }
    }

    pub(super) fn passed(&mut self) -> &mut PassedText {
        self.read.replies.passed()
    }

    pub(super) fn finish(&mut self, context: &mut Context<'_>) -> (Gathered, Document) {
        let stream = self.framing.or(self.told) == Some(Kind::Events);
        let mut anomalies = self.read.anomalies;
        if self.events.is_damaged() {
            anomalies.insert(Anomaly::MalformedReply);
        }
        if self.events.passed_over() {
            anomalies.insert(Anomaly::MeteringCapped);
        }
        let is_closed = !stream && self.read.replies.is_complete();
        (context.stream, context.closed) = (stream, is_closed);
        (self.read.replies.gather(context), Document { stream, is_closed, anomalies })
    }
}

/// Whether a guardrail or the model's own filter let nothing of the reply through: it intervened, and
/// no output was counted. One that only masked parts of the text leaves an ordinary reply.
fn is_withheld(intervened: bool, usage: &Usage) -> bool {
    intervened && usage.output_total().unwrap_or(0) == 0
}

// === counts ===

mod field {
    pub(super) const INPUT: u8 = 0;
    pub(super) const OUTPUT: u8 = 1;
    pub(super) const TOTAL: u8 = 2;
    pub(super) const READ: u8 = 3;
    pub(super) const WRITTEN: u8 = 4;
    /// The second name of the same number.
    pub(super) const READ_AGAIN: u8 = 5;
    pub(super) const WRITTEN_AGAIN: u8 = 6;
    pub(super) const DETAIL_TOKENS: u8 = 7;
    /// Fields up to here are counts.
    pub(super) const COUNTS: usize = 8;
    pub(super) const DETAIL: u8 = 8;
    pub(super) const DETAIL_LIFETIME: u8 = 9;
}

static DETAIL: Node = Node::object(&[
    ("ttl", Node::scalar(field::DETAIL_LIFETIME)),
    ("inputTokens", Node::scalar(field::DETAIL_TOKENS)),
])
.marked(field::DETAIL);

/// Converse's and Nova's usage, and the metrics of an invocation, which differ in names only.
static USAGE: Node = Node::object(&[
    ("inputTokens", Node::scalar(field::INPUT)),
    ("inputTokenCount", Node::scalar(field::INPUT)),
    ("outputTokens", Node::scalar(field::OUTPUT)),
    ("outputTokenCount", Node::scalar(field::OUTPUT)),
    ("totalTokens", Node::scalar(field::TOTAL)),
    ("cacheReadInputTokens", Node::scalar(field::READ)),
    ("cacheReadInputTokenCount", Node::scalar(field::READ_AGAIN)),
    ("cacheWriteInputTokens", Node::scalar(field::WRITTEN)),
    ("cacheWriteInputTokenCount", Node::scalar(field::WRITTEN_AGAIN)),
    ("cacheDetails", Node::array(&DETAIL)),
]);

/// The response headers that count, for all families of models.
const COUNT_HEADERS: [(&str, u8); 4] = [
    ("x-amzn-bedrock-input-token-count", field::INPUT),
    ("x-amzn-bedrock-output-token-count", field::OUTPUT),
    ("x-amzn-bedrock-cache-read-input-token-count", field::READ),
    ("x-amzn-bedrock-cache-write-input-token-count", field::WRITTEN),
];

/// Bedrock's counts: the input without the cache.
#[derive(Debug, Default)]
struct Counts {
    values: [Option<u64>; field::COUNTS],
    written_5m: Option<u64>,
    written_1h: Option<u64>,
    lifetime: Held,
    anomalies: Anomalies,
}

impl Sink for Counts {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        if let Some(slot) = self.values.get_mut(usize::from(id)) {
            *slot = number::count(raw, &mut self.anomalies);
        } else if id == field::DETAIL_LIFETIME {
            self.lifetime.text(raw);
        }
    }

    fn close(&mut self, _id: u8, _at: u64, _items: u64) {
        let tokens = self.values.get_mut(usize::from(field::DETAIL_TOKENS)).and_then(Option::take);
        let slot = match self.lifetime.bytes() {
            b"\"5m\"" => Some(&mut self.written_5m),
            b"\"1h\"" => Some(&mut self.written_1h),
            _ => None,
        };
        if let (Some(slot), Some(tokens)) = (slot, tokens) {
            *slot = Some(slot.unwrap_or(0).saturating_add(tokens));
        }
        self.lifetime.clear();
    }

    fn duplicate(&mut self) {
        self.anomalies.insert(Anomaly::MalformedReply);
    }
}

impl Counts {
    /// Reads a usage object.
    fn of(raw: &[u8]) -> Self {
        let mut counts = Self::default();
        Scanner::new(&USAGE).feed(raw, &mut counts);
        for (name, again) in [(field::READ, field::READ_AGAIN), (field::WRITTEN, field::WRITTEN_AGAIN)] {
            match (counts.get(name), counts.get(again)) {
                (None, second) => counts.set(name, second),
                (Some(first), Some(second)) if first != second => {
                    counts.anomalies.insert(Anomaly::CountsDisagree);
                }
                _ => {}
            }
        }
        counts
    }

    /// Reads response headers, and shows those that count as JSON.
    fn of_headers(headers: &http::HeaderMap) -> (Self, Vec<u8>) {
        let (mut counts, mut shown) = (Self::default(), serde_json::Map::new());
        for (name, field) in COUNT_HEADERS {
            let Some(value) = headers.get(name) else { continue };
            let count = number::count(value.as_bytes(), &mut counts.anomalies);
            counts.set(field, count);
            if let Ok(text) = value.to_str() {
                shown.insert(name.to_owned(), text.into());
            }
        }
        let shown = if shown.is_empty() { Vec::new() } else { serde_json::json!(shown).to_string().into() };
        (counts, shown)
    }

    fn get(&self, id: u8) -> Option<u64> {
        self.values.get(usize::from(id)).copied().flatten()
    }

    fn set(&mut self, id: u8, value: Option<u64>) {
        if let Some(slot) = self.values.get_mut(usize::from(id)) {
            *slot = value;
        }
    }

    /// Input, cache reads, cache writes, output.
    fn main(&self) -> [Option<u64>; 4] {
        [field::INPUT, field::READ, field::WRITTEN, field::OUTPUT].map(|id| self.get(id))
    }

    fn is_unknown(&self) -> bool {
        self.main().iter().all(Option::is_none)
    }

    /// The disjoint classes.
    fn usage(&self, anomalies: &mut Anomalies) -> Usage {
        anomalies.extend(self.anomalies);
        let mut usage = Usage::unknown();
        for (id, class) in [
            (field::INPUT, TokenClass::InputFresh),
            (field::READ, TokenClass::CachedRead),
            (field::OUTPUT, TokenClass::OutputText),
        ] {
            if let Some(count) = self.get(id) {
                usage.set(class, count);
            }
        }
        set_writes(&mut usage, self.get(field::WRITTEN), self.written_5m, self.written_1h, anomalies);
        if let (Some(total), Some(input)) = (self.get(field::TOTAL), usage.input_total())
            && total != input.saturating_add(usage.output_total().unwrap_or(0))
        {
            anomalies.insert(Anomaly::TotalMismatch);
        }
        usage
    }

    /// `usage` with these numbers in place of its own; what they do not tell stays, thinking as far as it
    /// fits.
    fn over(&self, usage: &Usage) -> Usage {
        let [input, read, written, output] = self.main();
        let other = |told: Option<u64>, known: Option<u64>| told.filter(|_| told != known);
        let input = other(input, usage.get(TokenClass::InputFresh));
        let read = other(read, usage.cached_read_total());
        let written = other(written, usage.cache_write_total());
        let output = other(output, usage.output_total());
        let mut over = Usage::unknown();
        for (class, count) in usage.tokens() {
            let told = match class {
                TokenClass::InputFresh => input,
                TokenClass::CachedRead => read,
                TokenClass::CacheWrite | TokenClass::CacheWrite5m | TokenClass::CacheWrite1h => written,
                TokenClass::OutputText => output,
                _ => None,
            };
            if told.is_none() {
                over.set(class, count);
            }
        }
        for (quantity, amount) in usage.quantities() {
            over.set_quantity(quantity, amount);
        }
        for (told, class) in [
            (input, TokenClass::InputFresh),
            (read, TokenClass::CachedRead),
            (written, TokenClass::CacheWrite),
        ] {
            if let Some(told) = told {
                over.set(class, told);
            }
        }
        if let Some(output) = output {
            let thinking = usage.get(TokenClass::OutputReasoning).map(|thinking| thinking.min(output));
            over.set(TokenClass::OutputText, output.saturating_sub(thinking.unwrap_or(0)));
            if let Some(thinking) = thinking {
                over.set(TokenClass::OutputReasoning, thinking);
            }
        }
        over
    }

    /// Whether a number that is in both is not the same.
    fn disagrees_with(&self, usage: &Usage) -> bool {
        let known = [
            usage.get(TokenClass::InputFresh),
            usage.cached_read_total(),
            usage.cache_write_total(),
            usage.output_total(),
        ];
        let pairs = self.main().into_iter().zip(known);
        pairs.into_iter().any(|pair| matches!(pair, (Some(one), Some(other)) if one != other))
    }
}

#[cfg(test)]
mod tests;
