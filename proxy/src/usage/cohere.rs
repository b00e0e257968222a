//! Cohere's own reply shapes: chat of both versions (plain, events, lines), embeddings, ranking,
//! classification.
//!
//! Rules
//! - `tokens` are what the model read and wrote; `billed_units` are what is charged, and differ: the
//!   chat template is not billed. Both are kept.
//! - `tokens.image_tokens` lie beside `tokens.input_tokens`; `cached_tokens` and reasoning are parts.
//! - Embeddings, ranking and classification tell billed units only.
//! - A stream ends with `message-end` (version 2) or `stream-end` (version 1).
//!
//! Not here: framing (`sse`, `lines`), ranking by other providers (`units`).

use super::json::{Node, Scanner, Sink, is_present};
use super::number;
use super::shape::{Context, Data, Gathered, Held, Kind, Progress, Shape};
use super::text::{PassedText, TextKind};
use super::totals::{Reported, disjoint};
use bursar_domain::event::{Anomalies, Anomaly, Outcome};
use bursar_domain::usage::{Quantity, TokenClass, Usage};

mod id {
    pub(super) const ID: u8 = 1;
    pub(super) const USAGE: u8 = 2;
    pub(super) const TYPE: u8 = 3;
    pub(super) const FINISH: u8 = 4;
    pub(super) const TOOLS: u8 = 5;
    pub(super) const MODEL: u8 = 6;
    pub(super) const ERROR: u8 = 7;
    pub(super) const TEXT: u8 = 8;
    pub(super) const THINKING: u8 = 9;
    pub(super) const CALL: u8 = 10;
    pub(super) const CALL_VALUE: u8 = 11;
}

const FUNCTION: Node = Node::object(&[("name", Node::text(id::CALL)), ("arguments", Node::text(id::CALL))]);

/// A call of version 2, or of version 1.
static TOOL: Node = Node::object(&[
    ("function", FUNCTION),
    ("name", Node::text(id::CALL)),
    ("parameters", Node::whole(id::CALL_VALUE)),
]);
/// `null`, when there are none, and then nothing is counted.
const TOOLS: Node = Node::array(&TOOL).marked(id::TOOLS);

static ANY: Node = Node::object(&[]);
/// The calls that the end of a stream repeats.
const REPEATED_TOOLS: Node = Node::array(&ANY).marked(id::TOOLS);

static CONTENT: Node =
    Node::object(&[("text", Node::text(id::TEXT)), ("thinking", Node::text(id::THINKING))]);

static WHOLE: Node = Node::object(&[
    ("id", Node::scalar(id::ID)),
    ("generation_id", Node::scalar(id::ID)),
    ("model", Node::scalar(id::MODEL)),
    (
        "message",
        Node::object(&[
            ("tool_calls", TOOLS),
            ("content", Node::array(&CONTENT)),
            ("tool_plan", Node::text(id::TEXT)),
        ]),
    ),
    ("text", Node::text(id::TEXT)),
    ("tool_calls", TOOLS),
    ("finish_reason", Node::scalar(id::FINISH)),
    ("usage", Node::whole(id::USAGE)),
    ("meta", Node::whole(id::USAGE)),
    ("error", Node::whole(id::ERROR)),
]);

static EVENT: Node = Node::object(&[
    ("type", Node::scalar(id::TYPE)),
    ("event_type", Node::scalar(id::TYPE)),
    ("id", Node::scalar(id::ID)),
    ("generation_id", Node::scalar(id::ID)),
    // Version 2.
    (
        "delta",
        Node::object(&[
            (
                "message",
                Node::object(&[
                    (
                        "content",
                        Node::object(&[
                            ("text", Node::text(id::TEXT)),
                            ("thinking", Node::text(id::THINKING)),
                        ]),
                    ),
                    ("tool_plan", Node::text(id::TEXT)),
                    ("tool_calls", Node::object(&[("function", FUNCTION)])),
                ]),
            ),
            ("finish_reason", Node::scalar(id::FINISH)),
            ("usage", Node::whole(id::USAGE)),
            ("error", Node::whole(id::ERROR)),
        ]),
    ),
    // Version 1: the end repeats the whole reply.
    ("text", Node::text(id::TEXT)),
    (
        "tool_call_delta",
        Node::object(&[("name", Node::text(id::CALL)), ("parameters", Node::text(id::CALL))]),
    ),
    ("finish_reason", Node::scalar(id::FINISH)),
    (
        "response",
        Node::object(&[
            ("meta", Node::whole(id::USAGE)),
            ("tool_calls", REPEATED_TOOLS),
            ("finish_reason", Node::scalar(id::FINISH)),
        ]),
    ),
    ("error", Node::whole(id::ERROR)),
]);

/// A reply of Cohere.
#[derive(Debug, Default)]
pub(super) struct Cohere {
    id: Held,
    model: Held,
    kind: Held,
    finish: Held,
    usage: Held,
    tool_calls: u64,
    closed: bool,
    error: bool,
    seen: bool,
    text: PassedText,
    anomalies: Anomalies,
}

impl Sink for Cohere {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        match id {
            id::ID => {
                self.seen = true;
                self.id.first_text(raw);
            }
            id::MODEL => self.model.text(raw),
            id::TYPE => self.kind.raw(raw),
            id::FINISH => self.finish.text(raw),
            id::USAGE => drop(self.usage.figures(raw)),
            id::ERROR => self.error |= is_present(raw),
            id::CALL_VALUE => self.text.piece(TextKind::Tool, raw),
            _ => {}
        }
    }

    fn text(&mut self, id: u8, raw: &[u8]) {
        let kind = match id {
            id::TEXT => TextKind::Content,
            id::THINKING => TextKind::Reasoning,
            _ => TextKind::Tool,
        };
        self.text.piece(kind, raw);
    }

    fn too_long(&mut self, id: u8) {
        if id != id::CALL_VALUE {
            self.anomalies.insert(Anomaly::MeteringCapped);
        }
    }

    fn close(&mut self, _id: u8, _at: u64, items: u64) {
        self.tool_calls = self.tool_calls.max(items);
    }

    fn duplicate(&mut self) {
        self.anomalies.insert(Anomaly::MalformedReply);
    }
}

impl Cohere {
    /// What the reply says of its own end.
    fn state(&self) -> Option<Outcome> {
        match self.finish.bytes() {
            b"\"ERROR_TOXIC\"" => Some(Outcome::Filtered),
            b"\"ERROR\"" | b"\"error\"" | b"\"TIMEOUT\"" => Some(Outcome::Failed),
            _ => None,
        }
    }
}

impl Shape for Cohere {
    const PLAIN: &'static Node = &WHOLE;
    const EVENT: &'static Node = &EVENT;

    fn end_event(&mut self, name: &[u8], data: Data) {
        let kind = match self.kind.bytes() {
            [b'"', kind @ .., b'"'] => kind,
            _ => name,
        };
        match kind {
            b"message-end" | b"stream-end" => self.closed |= data == Data::Whole,
            b"tool-call-start" => self.tool_calls = self.tool_calls.saturating_add(1),
            b"error" => self.error = true,
            _ => {}
        }
        self.error |= name == b"error";
        // Version 1 says the text of a plan again when its calls are whole.
        if kind == b"tool-calls-generation" {
            self.text.drop_open();
        } else {
            self.text.settle(0);
        }
        self.kind.clear();
    }

    fn passed(&mut self) -> Option<&mut PassedText> {
        Some(&mut self.text)
    }

    fn error(&mut self) {
        self.error = true;
    }

    fn gather(&mut self, context: &Context<'_>) -> Gathered {
        let mut anomalies = self.anomalies;
        let mut usage = read_units(self.usage.bytes(), context.kind, &mut anomalies);
        if context.kind == Kind::Completion && (self.seen || context.closed) {
            usage.set_quantity(Quantity::ToolCalls, self.tool_calls);
        }
        let state = self.state();
        let raw = if self.usage.is_empty() { Vec::new() } else { vec![self.usage.take()] };
        Gathered {
            id: self.id.label().filter(|_| context.kind == Kind::Completion),
            model: self.model.name(),
            usage,
            is_final: !context.stream || self.closed,
            raw,
            progress: if self.closed { Progress::Closed } else { Progress::Open },
            error: self.error,
            state: if context.stream && state == Some(Outcome::Failed) {
                Some(Outcome::ErrorMidstream)
            } else {
                state
            },
            anomalies,
            ..Gathered::nothing()
        }
    }
}

// === units ===

mod field {
    pub(super) const INPUT: u8 = 0;
    pub(super) const OUTPUT: u8 = 1;
    pub(super) const REASONING: u8 = 2;
    pub(super) const IMAGE: u8 = 3;
    pub(super) const CACHED: u8 = 4;
    pub(super) const BILLED_INPUT: u8 = 5;
    pub(super) const BILLED_OUTPUT: u8 = 6;
    pub(super) const BILLED_IMAGE: u8 = 7;
    pub(super) const SEARCH_UNITS: u8 = 8;
    pub(super) const IMAGES: u8 = 9;
    pub(super) const COUNTS: usize = 10;
}

static UNITS: Node = Node::object(&[
    (
        "tokens",
        Node::object(&[
            ("input_tokens", Node::scalar(field::INPUT)),
            ("output_tokens", Node::scalar(field::OUTPUT)),
            ("reasoning_tokens", Node::scalar(field::REASONING)),
            ("image_tokens", Node::scalar(field::IMAGE)),
        ]),
    ),
    (
        "billed_units",
        Node::object(&[
            ("input_tokens", Node::scalar(field::BILLED_INPUT)),
            ("output_tokens", Node::scalar(field::BILLED_OUTPUT)),
            ("image_tokens", Node::scalar(field::BILLED_IMAGE)),
            ("search_units", Node::scalar(field::SEARCH_UNITS)),
            ("images", Node::scalar(field::IMAGES)),
        ]),
    ),
    ("cached_tokens", Node::scalar(field::CACHED)),
]);

#[derive(Debug, Default)]
struct Units {
    counts: [Option<u64>; field::COUNTS],
    anomalies: Anomalies,
}

impl Sink for Units {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        if let Some(slot) = self.counts.get_mut(usize::from(id)) {
            *slot = number::count(raw, &mut self.anomalies);
        }
    }

    fn duplicate(&mut self) {
        self.anomalies.insert(Anomaly::MalformedReply);
    }
}

impl Units {
    fn get(&self, id: u8) -> Option<u64> {
        self.counts.get(usize::from(id)).copied().flatten()
    }
}

/// What a `usage` or `meta` object of Cohere says; nothing of an empty text.
pub(super) fn read_units(raw: &[u8], kind: Kind, anomalies: &mut Anomalies) -> Usage {
    let mut units = Units::default();
    Scanner::new(&UNITS).feed(raw, &mut units);
    anomalies.extend(units.anomalies);
    // Where no tokens are told, those that are billed are all that is known.
    let text = units.get(field::INPUT).or(units.get(field::BILLED_INPUT));
    let image = units.get(field::IMAGE).or(units.get(field::BILLED_IMAGE).filter(|count| *count > 0));
    let reported = Reported {
        input: match (text, image) {
            (None, None) => None,
            (text, image) => Some(text.unwrap_or(0).saturating_add(image.unwrap_or(0))),
        },
        cached: units.get(field::CACHED),
        image,
        output: units.get(field::OUTPUT).or(units.get(field::BILLED_OUTPUT)),
        reasoning: units.get(field::REASONING),
        ..Reported::default()
    };
    let mut usage = disjoint(&reported, anomalies);
    let is_embedding = kind == Kind::Embedding && units.get(field::SEARCH_UNITS).is_none();
    if is_embedding && !raw.is_empty() && reported.output.is_none() {
        usage.set(TokenClass::OutputText, 0);
    }
    for (id, quantity) in [
        (field::BILLED_INPUT, Quantity::BilledInputTokens),
        (field::BILLED_OUTPUT, Quantity::BilledOutputTokens),
        (field::SEARCH_UNITS, Quantity::SearchUnits),
        (field::IMAGES, Quantity::Images),
    ] {
        if let Some(count) = units.get(id) {
            usage.set_quantity(quantity, count);
        }
    }
    usage
}
