//! Google's Interactions API: an interaction that is made or read, plain and streamed.
//!
//! Rules
//! - The usage is in the interaction, which a stream sends when it is over. Its totals are named
//!   otherwise than those of generated content and mean the same.
//! - An interaction that stopped at its token limit (`incomplete`) or for its caller's tools
//!   (`requires_action`) is a whole reply, like generated content with such a finish.
//!
//! Sources: the recorded API and the `google-genai` SDK's models of it, whose earlier version called
//! the last event `interaction.complete` and the steps `outputs`.
//!
//! Not here: what the numbers mean (`counts`).

use super::counts::Counts;
use crate::usage::json::{Node, Sink, is_present};
use crate::usage::shape::{Context, Data, Gathered, Held, Progress, Shape};
use crate::usage::text::{PassedText, TextKind};
use bursar_domain::event::{Anomalies, Anomaly, Outcome};
use bursar_domain::usage::Quantity;

mod id {
    pub(super) const ID: u8 = 1;
    pub(super) const MODEL: u8 = 2;
    pub(super) const AGENT: u8 = 3;
    pub(super) const TIER: u8 = 4;
    pub(super) const USAGE: u8 = 5;
    pub(super) const STATUS: u8 = 6;
    pub(super) const STEPS: u8 = 7;
    pub(super) const STEP_TYPE: u8 = 8;
    pub(super) const TYPE: u8 = 9;
    pub(super) const ERROR: u8 = 10;
    pub(super) const OWN_ERROR: u8 = 11;
    pub(super) const TEXT: u8 = 12;
    pub(super) const THOUGHT: u8 = 13;
    pub(super) const CALL: u8 = 14;
    pub(super) const CALL_NAME: u8 = 15;
    pub(super) const ARGUMENTS: u8 = 16;
}

/// A step of an interaction that ends a stream, in which its text has passed before.
static STEP: Node = Node::object(&[("type", Node::scalar(id::STEP_TYPE))]);

/// A step as it begins, whose text follows in deltas.
const BEGUN_KEYS: &[(&str, Node)] =
    &[("type", Node::scalar(id::STEP_TYPE)), ("name", Node::scalar(id::CALL_NAME))];

static TEXT: Node = Node::object(&[("text", Node::text(id::TEXT))]);
static THOUGHT: Node = Node::object(&[("text", Node::text(id::THOUGHT))]);

/// A step of an interaction that came as one document.
static WHOLE_STEP: Node = Node::object(&[
    ("type", Node::scalar(id::STEP_TYPE)),
    ("text", Node::text(id::TEXT)),
    ("content", Node::array(&TEXT)),
    ("summary", Node::array(&THOUGHT)),
    ("name", Node::scalar(id::CALL_NAME)),
    ("arguments", Node::whole(id::ARGUMENTS)),
]);

const DELTA: Node = Node::object(&[
    ("text", Node::text(id::TEXT)),
    ("content", Node::object(&[("text", Node::text(id::THOUGHT))])),
    ("name", Node::scalar(id::CALL_NAME)),
    ("arguments", Node::text(id::CALL)),
]);

/// An interaction, with what is wanted of its steps.
const fn interaction_keys(step: &'static Node) -> [(&'static str, Node); 9] {
    [
        ("id", Node::scalar(id::ID)),
        ("status", Node::scalar(id::STATUS)),
        ("model", Node::scalar(id::MODEL)),
        ("agent", Node::scalar(id::AGENT)),
        ("usage", Node::whole(id::USAGE)),
        ("service_tier", Node::scalar(id::TIER)),
        ("steps", Node::array(step).marked(id::STEPS)),
        ("outputs", Node::array(step).marked(id::STEPS)),
        ("error", Node::whole(id::OWN_ERROR)),
    ]
}

static INTERACTION: Node = Node::object(&interaction_keys(&WHOLE_STEP));

static EVENT: Node = Node::object(&[
    ("event_type", Node::scalar(id::TYPE)),
    ("interaction", Node::object(&interaction_keys(&STEP))),
    ("step", Node::object(BEGUN_KEYS)),
    ("content", Node::object(BEGUN_KEYS)),
    ("delta", DELTA),
    ("status", Node::scalar(id::STATUS)),
    ("error", Node::whole(id::ERROR)),
]);

/// An interaction.
#[derive(Debug, Default)]
pub(in crate::usage) struct Interactions {
    id: Held,
    model: Held,
    agent: Held,
    tier: Held,
    usage: Held,
    kind: Held,
    status: Option<Outcome>,
    /// Of the event under way, which counts when it is whole.
    event_calls: u64,
    event_repeats: bool,
    tool_calls: u64,
    closed: bool,
    error: bool,
    own_error: bool,
    seen: bool,
    text: PassedText,
    anomalies: Anomalies,
}

impl Sink for Interactions {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        self.seen = true;
        match id {
            id::ID => self.id.first_text(raw),
            id::MODEL => self.model.text(raw),
            id::AGENT => self.agent.text(raw),
            id::TIER => self.tier.text(raw),
            id::USAGE if raw.first() == Some(&b'{') => self.usage.raw(raw),
            id::STATUS => self.status = outcome_of_status(raw).or(self.status),
            id::STEP_TYPE => self.event_calls += u64::from(raw == b"\"function_call\""),
            id::TYPE => self.kind.raw(raw),
            id::ERROR => self.error |= is_present(raw),
            id::OWN_ERROR => self.own_error = is_present(raw),
            id::CALL_NAME | id::ARGUMENTS => self.text.piece(TextKind::Tool, raw),
            _ => {}
        }
    }

    fn text(&mut self, id: u8, raw: &[u8]) {
        let kind = match id {
            id::TEXT => TextKind::Content,
            id::THOUGHT => TextKind::Reasoning,
            _ => TextKind::Tool,
        };
        self.text.piece(kind, raw);
    }

    fn open(&mut self, id: u8, _at: u64) {
        if id == id::STEPS {
            // An interaction repeats all the steps that were streamed.
            (self.event_calls, self.event_repeats) = (0, true);
        }
    }

    fn too_long(&mut self, id: u8) {
        if id != id::ARGUMENTS {
            self.anomalies.insert(Anomaly::MeteringCapped);
        }
    }

    fn duplicate(&mut self) {
        self.anomalies.insert(Anomaly::MalformedReply);
    }
}

fn outcome_of_status(raw: &[u8]) -> Option<Outcome> {
    match raw {
        b"\"completed\"" | b"\"incomplete\"" | b"\"requires_action\"" | b"\"requires_continuation\"" => {
            Some(Outcome::Ok)
        }
        b"\"cancelled\"" | b"\"budget_exceeded\"" => Some(Outcome::Incomplete),
        b"\"failed\"" => Some(Outcome::Failed),
        b"\"queued\"" | b"\"in_progress\"" => Some(Outcome::Queued),
        _ => None,
    }
}

impl Interactions {
    fn end_steps(&mut self) {
        let calls = std::mem::take(&mut self.event_calls);
        let before = if std::mem::take(&mut self.event_repeats) { 0 } else { self.tool_calls };
        self.tool_calls = before.saturating_add(calls).max(self.tool_calls);
    }
}

impl Shape for Interactions {
    const PLAIN: &'static Node = &INTERACTION;
    const EVENT: &'static Node = &EVENT;

    fn end_event(&mut self, name: &[u8], data: Data) {
        let kind = match self.kind.bytes() {
            [b'"', kind @ .., b'"'] => kind,
            _ => name,
        };
        self.error |= kind == b"error" || name == b"error";
        let is_last = matches!(kind, b"interaction.completed" | b"interaction.complete");
        self.closed |= data == Data::Done || (is_last && data == Data::Whole);
        if data == Data::Whole {
            self.end_steps();
        }
        (self.event_calls, self.event_repeats) = (0, false);
        self.text.settle(0);
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
        if !context.stream {
            self.end_steps();
        }
        let counts = Counts::of(self.usage.bytes());
        let mut usage = counts.usage(&mut anomalies);
        if self.seen || context.closed {
            usage.set_quantity(Quantity::ToolCalls, self.tool_calls);
        }
        if let Some(searches) = counts.searches() {
            usage.set_quantity(Quantity::WebSearchRequests, searches);
        }
        let raw = if self.usage.is_empty() { Vec::new() } else { vec![self.usage.take()] };
        Gathered {
            id: self.id.label(),
            model: self.model.label().or_else(|| self.agent.label()),
            tier: self.tier.label().or_else(|| counts.tier()),
            inference_geo: None,
            speed: None,
            usage,
            is_final: !context.stream || self.closed,
            by_model: Vec::new(),
            raw,
            charge: None,
            progress: if self.closed { Progress::Closed } else { Progress::Open },
            // An interaction's own error goes with its status; alone it is an error body.
            error: self.error || (!context.stream && self.own_error && self.status.is_none()),
            state: self.status.filter(|_| !self.error),
            background: (!context.stream && self.status == Some(Outcome::Queued)).then_some(true),
            anomalies,
            ..Gathered::nothing()
        }
    }
}
