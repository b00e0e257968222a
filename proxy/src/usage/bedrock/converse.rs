//! Converse and ConverseStream.
//!
//! Rules
//! - In a stream the usage is in the event `metadata`, which is the last one; without it the stream was
//!   cut.
//! - `serviceTier.type` is the tier that served the request, whatever was asked for; `performanceConfig`
//!   tells whether the latency was optimised, which has a price of its own.
//! - A prompt router says which model it chose.
//!
//! Not here: the counts (`bedrock`), framing (`aws_events`).

use super::{Counts, Replies, is_present, is_withheld};
use crate::usage::json::{Node, Scanner, Sink};
use crate::usage::shape::{Context, Gathered, Held, Progress};
use crate::usage::text::{PassedText, TextKind};
use bursar_domain::event::{Anomalies, Anomaly, Outcome};
use bursar_domain::usage::Quantity;

mod id {
    pub(super) const USAGE: u8 = 1;
    pub(super) const TIER: u8 = 2;
    pub(super) const LATENCY: u8 = 3;
    pub(super) const ROUTED: u8 = 4;
    pub(super) const STOP: u8 = 5;
    pub(super) const TOOL: u8 = 6;
    pub(super) const TOOL_TYPE: u8 = 7;
    pub(super) const TEXT: u8 = 8;
    pub(super) const REASONING: u8 = 9;
    pub(super) const CALL: u8 = 10;
    pub(super) const CALL_VALUE: u8 = 11;
}

/// A call; in a stream it is begun here and its input follows.
const TOOL: Node = Node::object(&[
    ("type", Node::scalar(id::TOOL_TYPE)),
    ("name", Node::text(id::CALL)),
    ("input", Node::whole(id::CALL_VALUE)),
])
.marked(id::TOOL);

static BLOCK: Node = Node::object(&[
    ("text", Node::text(id::TEXT)),
    ("toolUse", TOOL),
    (
        "reasoningContent",
        Node::object(&[("reasoningText", Node::object(&[("text", Node::text(id::REASONING))]))]),
    ),
]);

/// A whole reply, or the payload of any event: the names do not clash.
static REPLY: Node = Node::object(&[
    ("output", Node::object(&[("message", Node::object(&[("content", Node::array(&BLOCK))]))])),
    ("start", Node::object(&[("toolUse", TOOL)])),
    (
        "delta",
        Node::object(&[
            ("text", Node::text(id::TEXT)),
            ("toolUse", Node::object(&[("input", Node::text(id::CALL))])),
            ("reasoningContent", Node::object(&[("text", Node::text(id::REASONING))])),
        ]),
    ),
    ("stopReason", Node::scalar(id::STOP)),
    ("usage", Node::whole(id::USAGE)),
    ("serviceTier", Node::object(&[("type", Node::scalar(id::TIER))])),
    ("performanceConfig", Node::object(&[("latency", Node::scalar(id::LATENCY))])),
    (
        "trace",
        Node::object(&[("promptRouter", Node::object(&[("invokedModelId", Node::scalar(id::ROUTED))]))]),
    ),
]);

/// A reply of Converse, plain or streamed.
#[derive(Debug)]
pub(in crate::usage) struct Converse {
    scanner: Scanner,
    found: Found,
}

#[derive(Debug, Default)]
struct Found {
    usage: Held,
    tier: Held,
    latency: Held,
    routed: Held,
    intervened: bool,
    tool_calls: u64,
    tool_is_the_servers: bool,
    seen: bool,
    closed: bool,
    error: bool,
    text: PassedText,
    anomalies: Anomalies,
}

impl Sink for Found {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        match id {
            id::USAGE if raw.first() == Some(&b'{') => self.usage.raw(raw),
            id::TIER => self.tier.text(raw),
            id::LATENCY => self.latency.text(raw),
            id::ROUTED => self.routed.text(raw),
            id::STOP if is_present(raw) => {
                self.intervened = matches!(raw, b"\"guardrail_intervened\"" | b"\"content_filtered\"");
            }
            id::TOOL_TYPE => self.tool_is_the_servers = raw == b"\"server_tool_use\"",
            id::CALL_VALUE => self.text.piece(TextKind::Tool, raw),
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

    fn too_long(&mut self, id: u8) {
        if id != id::CALL_VALUE {
            self.anomalies.insert(Anomaly::MeteringCapped);
        }
    }

    fn close(&mut self, _id: u8, _at: u64, _items: u64) {
        let is_the_servers = std::mem::take(&mut self.tool_is_the_servers);
        self.tool_calls += u64::from(!is_the_servers);
    }

    fn duplicate(&mut self) {
        self.anomalies.insert(Anomaly::MalformedReply);
    }
}

impl Default for Converse {
    fn default() -> Self {
        Self { scanner: Scanner::new(&REPLY), found: Found::default() }
    }
}

impl Replies for Converse {
    fn document(&mut self, bytes: &[u8]) {
        self.scanner.feed(bytes, &mut self.found);
    }

    fn is_complete(&self) -> bool {
        self.scanner.is_complete()
    }

    fn event(&mut self, name: &[u8], payload: &[u8]) -> bool {
        self.found.seen = true;
        self.scanner.reset();
        self.scanner.feed(payload, &mut self.found);
        let is_whole = self.scanner.is_complete();
        self.found.closed |= name == b"metadata" && is_whole;
        self.found.text.settle(0);
        is_whole
    }

    fn passed(&mut self) -> &mut PassedText {
        &mut self.found.text
    }

    fn exception(&mut self) {
        self.found.error = true;
    }

    fn gather(&mut self, context: &Context<'_>) -> Gathered {
        let found = &mut self.found;
        let mut anomalies = found.anomalies;
        let mut usage = Counts::of(found.usage.bytes()).usage(&mut anomalies);
        let state = is_withheld(found.intervened, &usage).then_some(Outcome::Filtered);
        if found.seen || context.closed {
            usage.set_quantity(Quantity::ToolCalls, found.tool_calls);
        }
        let raw = if found.usage.is_empty() { Vec::new() } else { vec![found.usage.take()] };
        Gathered {
            id: None,
            model: found.routed.label(),
            tier: found.tier.label(),
            inference_geo: None,
            speed: found.latency.label(),
            usage,
            is_final: !context.stream || found.closed,
            by_model: Vec::new(),
            raw,
            charge: None,
            progress: if found.closed { Progress::Closed } else { Progress::Open },
            error: found.error,
            state,
            anomalies,
            ..Gathered::nothing()
        }
    }
}
