//! Ollama's own reply shapes: chat, generate and embeddings; plain or one object per line.
//!
//! Rules
//! - The counts are on the object with `done: true`, which ends the reply.
//! - `prompt_eval_count` is left out when the whole prompt came from a cache: the input is then
//!   unknown, not zero.
//! - An object with `error` ends a stream that began well.
//!
//! Not here: framing (`lines`), Ollama's OpenAI-like API (`openai`).

use super::json::{Node, Sink, is_present};
use super::number;
use super::shape::{Context, Data, Gathered, Held, Kind, Progress, Shape};
use super::text::{PassedText, TextKind};
use bursar_domain::event::{Anomalies, Anomaly};
use bursar_domain::usage::{Quantity, TokenClass, Usage};

mod id {
    pub(super) const MODEL: u8 = 1;
    pub(super) const DONE: u8 = 2;
    pub(super) const INPUT: u8 = 3;
    pub(super) const OUTPUT: u8 = 4;
    pub(super) const TOOLS: u8 = 5;
    pub(super) const ERROR: u8 = 6;
    pub(super) const TEXT: u8 = 7;
    pub(super) const THINKING: u8 = 8;
    pub(super) const CALL: u8 = 9;
}

static TOOL: Node = Node::object(&[(
    "function",
    Node::object(&[("name", Node::whole(id::CALL)), ("arguments", Node::whole(id::CALL))]),
)]);

static OBJECT: Node = Node::object(&[
    ("model", Node::scalar(id::MODEL)),
    (
        "message",
        Node::object(&[
            ("content", Node::text(id::TEXT)),
            ("thinking", Node::text(id::THINKING)),
            ("tool_calls", Node::array(&TOOL).marked(id::TOOLS)),
        ]),
    ),
    ("response", Node::text(id::TEXT)),
    ("thinking", Node::text(id::THINKING)),
    ("done", Node::scalar(id::DONE)),
    ("prompt_eval_count", Node::scalar(id::INPUT)),
    ("eval_count", Node::scalar(id::OUTPUT)),
    ("error", Node::whole(id::ERROR)),
]);

/// A reply of Ollama.
#[derive(Debug, Default)]
pub(super) struct Ollama {
    model: Held,
    input: Held,
    output: Held,
    tool_calls: u64,
    done: bool,
    closed: bool,
    error: bool,
    seen: bool,
    text: PassedText,
    anomalies: Anomalies,
}

impl Sink for Ollama {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        match id {
            id::MODEL => {
                self.seen = true;
                self.model.text(raw);
            }
            id::DONE => self.done = raw == b"true",
            id::INPUT => self.input.raw(raw),
            id::OUTPUT => self.output.raw(raw),
            id::ERROR => self.error |= is_present(raw),
            id::CALL => self.text.piece(TextKind::Tool, raw),
            _ => {}
        }
    }

    fn text(&mut self, id: u8, raw: &[u8]) {
        let kind = if id == id::THINKING { TextKind::Reasoning } else { TextKind::Content };
        self.text.piece(kind, raw);
    }

    fn too_long(&mut self, id: u8) {
        if id != id::CALL {
            self.anomalies.insert(Anomaly::MeteringCapped);
        }
    }

    fn close(&mut self, _id: u8, _at: u64, items: u64) {
        self.tool_calls = self.tool_calls.saturating_add(items);
    }

    fn duplicate(&mut self) {
        self.anomalies.insert(Anomaly::MalformedReply);
    }
}

impl Ollama {
    /// The counts as an object; Ollama has none of its own for them.
    fn raw(&self) -> Vec<Vec<u8>> {
        let mut raw = Vec::new();
        for (name, value) in [("prompt_eval_count", &self.input), ("eval_count", &self.output)] {
            if !value.is_empty() {
                raw.extend_from_slice(if raw.is_empty() { b"{\"" } else { b",\"" });
                raw.extend_from_slice(name.as_bytes());
                raw.extend_from_slice(b"\":");
                raw.extend_from_slice(value.bytes());
            }
        }
        if raw.is_empty() {
            return Vec::new();
        }
        raw.push(b'}');
        vec![raw]
    }
}

impl Shape for Ollama {
    const PLAIN: &'static Node = &OBJECT;
    const EVENT: &'static Node = &OBJECT;

    fn end_event(&mut self, _name: &[u8], data: Data) {
        self.closed |= self.done && data == Data::Whole;
        self.done = false;
        self.text.settle(0);
    }

    fn passed(&mut self) -> Option<&mut PassedText> {
        Some(&mut self.text)
    }

    fn error(&mut self) {
        self.error = true;
    }

    fn gather(&mut self, context: &Context<'_>) -> Gathered {
        let mut anomalies = self.anomalies;
        let mut usage = Usage::unknown();
        if let Some(input) = number::count(self.input.bytes(), &mut anomalies) {
            usage.set(TokenClass::InputFresh, input);
        }
        let output = number::count(self.output.bytes(), &mut anomalies);
        let nothing_written = context.kind == Kind::Embedding && !self.input.is_empty();
        if let Some(output) = output.or(nothing_written.then_some(0)) {
            usage.set(TokenClass::OutputText, output);
        }
        if context.kind == Kind::Completion && self.seen {
            usage.set_quantity(Quantity::ToolCalls, self.tool_calls);
        }
        Gathered {
            model: self.model.name(),
            usage,
            is_final: !context.stream || self.closed,
            raw: self.raw(),
            progress: if self.closed { Progress::Closed } else { Progress::Open },
            error: self.error,
            anomalies,
            ..Gathered::nothing()
        }
    }
}
