//! Gemini's live sessions (`BidiGenerateContent`), on the Gemini API and on Vertex: what the server's
//! messages bill.
//!
//! Rules
//! - Each `usageMetadata` with counts bills one turn; turns are added.
//! - The Gemini API calls the output `responseTokenCount`, Vertex `candidatesTokenCount`.
//! - Thoughts stand beside both, and outside `totalTokenCount`; they are output. Prompt tokens of
//!   built-in tools stand beside the prompt; they are input.
//! - Lists of modalities may not add up to their total. A modality that a list leaves out has none.
//!
//! Not here: framing (`websocket`), the client's setup message and the end of a session (`session`).

use super::json::{Node, Scanner, Sink, is_present};
use super::number;
use super::session::{Billed, Open};
use super::shape::Held;
use super::totals::{Reported, disjoint};
use bursar_domain::event::{Anomalies, Anomaly, Outcome};
use bursar_domain::ids::Label;
use bursar_domain::time::Timestamp;
use bursar_domain::usage::{Quantity, TokenClass, Usage};

mod id {
    pub(super) const SESSION_ID: u8 = 1;
    pub(super) const ROLE: u8 = 2;
    pub(super) const TURN: u8 = 3;
    pub(super) const CALLS: u8 = 4;
    pub(super) const USAGE: u8 = 5;
    pub(super) const CALL_ID: u8 = 6;
}

static CALL: Node = Node::object(&[("id", Node::scalar(id::CALL_ID))]);

static MESSAGE: Node = Node::object(&[
    (
        "serverContent",
        Node::object(&[("modelTurn", Node::object(&[("role", Node::scalar(id::ROLE))]).marked(id::TURN))]),
    ),
    ("usageMetadata", Node::whole(id::USAGE)),
    ("toolCall", Node::object(&[("functionCalls", Node::array(&CALL).marked(id::CALLS))])),
    ("setupComplete", Node::object(&[("sessionId", Node::scalar(id::SESSION_ID))])),
]);

/// A session as its server tells it.
#[derive(Debug, Default)]
pub(super) struct Live {
    session_id: Held,
    open: Option<Open>,
    tool_calls: u64,
    message: Message,
}

/// The message being read.
#[derive(Debug, Default)]
struct Message {
    usage: Held,
    has_output: bool,
    tool_calls: u64,
    anomalies: Anomalies,
}

impl Sink for Live {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        match id {
            id::SESSION_ID => self.session_id.text(raw),
            id::USAGE if raw.first() == Some(&b'{') && is_present(raw) => self.message.usage.raw(raw),
            _ => {}
        }
    }

    fn too_long(&mut self, _id: u8) {
        self.message.anomalies.insert(Anomaly::MeteringCapped);
    }

    fn open(&mut self, id: u8, _at: u64) {
        self.message.has_output |= matches!(id, id::TURN | id::CALLS);
    }

    fn close(&mut self, id: u8, _at: u64, items: u64) {
        if id == id::CALLS {
            self.message.tool_calls = items;
        }
    }

    fn duplicate(&mut self) {
        self.message.anomalies.insert(Anomaly::MalformedReply);
    }
}

impl Live {
    pub(super) const MESSAGE: &'static Node = &MESSAGE;

    pub(super) fn session_id(&self) -> Option<Label> {
        self.session_id.label()
    }

    pub(super) fn take_open(&mut self) -> Vec<Open> {
        self.open.take().into_iter().collect()
    }

    /// The message is over; one that is not whole says nothing.
    pub(super) fn end_message(&mut self, is_whole: bool, now: Timestamp) -> Option<Billed> {
        let message = &mut self.message;
        let anomalies = std::mem::take(&mut message.anomalies);
        let has_output = std::mem::take(&mut message.has_output);
        let calls = std::mem::take(&mut message.tool_calls);
        let raw = message.usage.take();
        if !is_whole {
            return None;
        }
        self.tool_calls = self.tool_calls.saturating_add(calls);
        if has_output && self.open.is_none() {
            self.open = Some(Open { id: None, started_at: now, first_output_at: None });
        }
        if raw.is_empty() { None } else { self.turn(raw, anomalies) }
    }

    fn turn(&mut self, raw: Vec<u8>, mut anomalies: Anomalies) -> Option<Billed> {
        let mut fields = Fields::default();
        Scanner::new(&USAGE).feed(&raw, &mut fields);
        let mut usage = fields.usage(&mut anomalies);
        if !usage.has_tokens() {
            return None;
        }
        usage.set_quantity(Quantity::ToolCalls, std::mem::take(&mut self.tool_calls));
        Some(Billed {
            id: None,
            model_served: None,
            model_requested: None,
            is_others: false,
            tier: fields.tier.label(),
            outcome: Outcome::Ok,
            usage,
            is_told: true,
            raw,
            anomalies,
            open: self.open.take(),
        })
    }
}

// === usage objects ===

mod field {
    pub(super) const PROMPT: u8 = 0;
    pub(super) const TOOL_USE: u8 = 1;
    pub(super) const RESPONSE: u8 = 2;
    pub(super) const CANDIDATES: u8 = 3;
    pub(super) const THOUGHTS: u8 = 4;
    pub(super) const TOTAL: u8 = 5;
    pub(super) const CACHED: u8 = 6;
    /// Fields up to here are counts.
    pub(super) const COUNTS: usize = 7;
    pub(super) const TIER: u8 = 7;
    pub(super) const MODALITY: u8 = 8;
    pub(super) const TOKENS: u8 = 9;
    pub(super) const PROMPT_LIST: u8 = 10;
    pub(super) const CACHED_LIST: u8 = 11;
    pub(super) const OUTPUT_LIST: u8 = 12;
    pub(super) const ENTRY: u8 = 13;
}

static ENTRY: Node =
    Node::object(&[("modality", Node::scalar(field::MODALITY)), ("tokenCount", Node::scalar(field::TOKENS))])
        .marked(field::ENTRY);

const fn list(id: u8) -> Node {
    Node::array(&ENTRY).marked(id)
}

static USAGE: Node = Node::object(&[
    ("promptTokenCount", Node::scalar(field::PROMPT)),
    ("toolUsePromptTokenCount", Node::scalar(field::TOOL_USE)),
    ("responseTokenCount", Node::scalar(field::RESPONSE)),
    ("candidatesTokenCount", Node::scalar(field::CANDIDATES)),
    ("thoughtsTokenCount", Node::scalar(field::THOUGHTS)),
    ("totalTokenCount", Node::scalar(field::TOTAL)),
    ("cachedContentTokenCount", Node::scalar(field::CACHED)),
    ("promptTokensDetails", list(field::PROMPT_LIST)),
    ("cacheTokensDetails", list(field::CACHED_LIST)),
    ("responseTokensDetails", list(field::OUTPUT_LIST)),
    ("candidatesTokensDetails", list(field::OUTPUT_LIST)),
    ("trafficType", Node::scalar(field::TIER)),
]);

/// Tokens by modality, where a list was sent.
#[derive(Clone, Copy, Debug, Default)]
struct Modalities {
    audio: u64,
    image: u64,
    video: u64,
}

/// The numbers of one usage object, as sent.
#[derive(Debug, Default)]
struct Fields {
    counts: [Option<u64>; field::COUNTS],
    tier: Held,
    prompt: Option<Modalities>,
    cached: Option<Modalities>,
    output: Option<Modalities>,
    list: Modalities,
    modality: Held,
    tokens: Option<u64>,
    anomalies: Anomalies,
}

impl Sink for Fields {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        if let Some(slot) = self.counts.get_mut(usize::from(id)) {
            *slot = number::count(raw, &mut self.anomalies);
            return;
        }
        match id {
            field::TIER => self.tier.text(raw),
            field::MODALITY => self.modality.raw(raw),
            field::TOKENS => self.tokens = number::count(raw, &mut self.anomalies),
            _ => {}
        }
    }

    fn open(&mut self, id: u8, _at: u64) {
        if id != field::ENTRY {
            self.list = Modalities::default();
        }
    }

    fn close(&mut self, id: u8, _at: u64, _items: u64) {
        match id {
            field::ENTRY => self.end_entry(),
            field::PROMPT_LIST => self.prompt = Some(self.list),
            field::CACHED_LIST => self.cached = Some(self.list),
            _ => self.output = Some(self.list),
        }
    }

    fn duplicate(&mut self) {
        self.anomalies.insert(Anomaly::MalformedReply);
    }
}

impl Fields {
    fn end_entry(&mut self) {
        // An entry without a count says zero.
        let tokens = self.tokens.take().unwrap_or(0);
        let slot = match self.modality.bytes() {
            b"\"AUDIO\"" => &mut self.list.audio,
            b"\"IMAGE\"" => &mut self.list.image,
            b"\"VIDEO\"" => &mut self.list.video,
            _ => return self.modality.clear(),
        };
        *slot = slot.saturating_add(tokens);
        self.modality.clear();
    }

    fn get(&self, id: u8) -> Option<u64> {
        self.counts.get(usize::from(id)).copied().flatten()
    }

    fn usage(&self, anomalies: &mut Anomalies) -> Usage {
        let said = self.get(field::RESPONSE).or_else(|| self.get(field::CANDIDATES));
        let thoughts = self.get(field::THOUGHTS);
        let reported = Reported {
            input: self.get(field::PROMPT),
            cached: self.get(field::CACHED),
            audio: self.prompt.map(|list| list.audio),
            image: self.prompt.map(|list| list.image),
            video: self.prompt.map(|list| list.video),
            cached_audio: self.cached.map(|list| list.audio),
            cached_image: self.cached.map(|list| list.image),
            output: said.map(|said| said.saturating_add(thoughts.unwrap_or(0))).or(thoughts),
            reasoning: thoughts,
            output_audio: self.output.map(|list| list.audio),
            output_image: self.output.map(|list| list.image),
            ..Reported::default()
        };
        let mut usage = disjoint(&reported, anomalies);
        let tool_use = self.get(field::TOOL_USE);
        if let Some(tool_use) = tool_use {
            usage.set(TokenClass::InputToolUse, tool_use);
        }
        let parts = [reported.input, tool_use, said];
        let sum = parts.iter().flatten().fold(0, |sum: u64, count| sum.saturating_add(*count));
        if let Some(total) = self.get(field::TOTAL)
            && total != sum
            && total != sum.saturating_add(thoughts.unwrap_or(0))
        {
            anomalies.insert(Anomaly::TotalMismatch);
        }
        anomalies.extend(self.anomalies);
        usage
    }
}
