//! OpenAI's realtime sessions, and those made like them (Azure, xAI): what the server's events bill.
//!
//! Rules
//! - `response.done` bills its response, and with it the whole conversation again; responses are added.
//! - xAI puts the usage beside the response, whose own `usage` is `{}`; the seconds it bills are in
//!   `billable_audio_seconds`.
//!   A response that is said to be done once more is not billed again.
//! - `conversation.item.input_audio_transcription.completed` bills another model, by tokens or by
//!   seconds. Which model that is, the session says; else it is unknown, and not the session's own.
//! - The cached part is told per modality, and each modality has its own price.
//!
//! Not here: framing (`websocket`), when a session ends (`session`).

use super::flavour::Flavour;
use super::json::{Node, Scanner, Sink, is_present};
use super::number;
use super::session::{Billed, OPEN_MAX, Open};
use super::shape::Held;
use super::totals::{Reported, disjoint};
use bursar_domain::event::{Anomalies, Anomaly, Outcome};
use bursar_domain::ids::Label;
use bursar_domain::time::Timestamp;
use bursar_domain::usage::{Quantity, Usage};

mod id {
    pub(super) const TYPE: u8 = 1;
    pub(super) const SESSION_ID: u8 = 2;
    pub(super) const SESSION_MODEL: u8 = 3;
    pub(super) const TRANSCRIPTION: u8 = 4;
    pub(super) const TRANSCRIPTION_MODEL: u8 = 5;
    pub(super) const RESPONSE_ID: u8 = 6;
    pub(super) const STATUS: u8 = 7;
    pub(super) const RESPONSE_USAGE: u8 = 8;
    pub(super) const OUTPUT: u8 = 9;
    pub(super) const ITEM_TYPE: u8 = 10;
    pub(super) const USAGE: u8 = 11;
    pub(super) const ITEM_ID: u8 = 12;
    pub(super) const OF_RESPONSE: u8 = 13;
}

const TRANSCRIPTION: Node =
    Node::object(&[("model", Node::scalar(id::TRANSCRIPTION_MODEL))]).or_scalar(id::TRANSCRIPTION);

static ITEM: Node = Node::object(&[("type", Node::scalar(id::ITEM_TYPE))]);

static MESSAGE: Node = Node::object(&[
    ("type", Node::scalar(id::TYPE)),
    (
        "session",
        Node::object(&[
            ("id", Node::scalar(id::SESSION_ID)),
            ("model", Node::scalar(id::SESSION_MODEL)),
            ("audio", Node::object(&[("input", Node::object(&[("transcription", TRANSCRIPTION)]))])),
            ("input_audio_transcription", TRANSCRIPTION),
        ]),
    ),
    (
        "response",
        Node::object(&[
            ("id", Node::scalar(id::RESPONSE_ID)),
            ("status", Node::scalar(id::STATUS)),
            ("usage", Node::whole(id::RESPONSE_USAGE)),
            ("output", Node::array(&ITEM).marked(id::OUTPUT)),
        ]),
    ),
    ("response_id", Node::scalar(id::OF_RESPONSE)),
    ("item_id", Node::scalar(id::ITEM_ID)),
    ("usage", Node::whole(id::USAGE)),
]);

/// A session as its server tells it.
#[derive(Debug)]
pub(super) struct Realtime {
    flavour: &'static Flavour,
    session_id: Held,
    model: Held,
    transcription_model: Held,
    /// The response that was done last.
    last_done: Held,
    open: Vec<Open>,
    event: Event,
}

/// The event being read. Its type may come last.
#[derive(Debug, Default)]
struct Event {
    kind: Held,
    session_id: Held,
    model: Held,
    transcription: Transcription,
    transcription_model: Held,
    response: Held,
    of_response: Held,
    item: Held,
    status: Option<Outcome>,
    usage: Held,
    response_usage: Held,
    tool_calls: u64,
    anomalies: Anomalies,
}

/// What a session event says about transcription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Transcription {
    #[default]
    NotTold,
    Off,
    On,
}

impl Sink for Realtime {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        let event = &mut self.event;
        match id {
            id::TYPE => event.kind.raw(raw),
            id::SESSION_ID => event.session_id.text(raw),
            id::SESSION_MODEL => event.model.text(raw),
            id::TRANSCRIPTION if event.transcription == Transcription::NotTold => {
                event.transcription = Transcription::Off;
            }
            id::TRANSCRIPTION_MODEL => {
                event.transcription = Transcription::On;
                event.transcription_model.text(raw);
            }
            id::RESPONSE_ID => event.response.text(raw),
            id::OF_RESPONSE => event.of_response.text(raw),
            id::ITEM_ID => event.item.text(raw),
            id::STATUS => event.status = outcome_of(raw),
            id::USAGE if raw.first() == Some(&b'{') && is_present(raw) => event.usage.raw(raw),
            id::RESPONSE_USAGE if raw.first() == Some(&b'{') && is_present(raw) => {
                event.response_usage.raw(raw);
            }
            id::ITEM_TYPE => event.tool_calls += u64::from(raw == b"\"function_call\""),
            _ => {}
        }
    }

    fn too_long(&mut self, _id: u8) {
        self.event.anomalies.insert(Anomaly::MeteringCapped);
    }

    fn open(&mut self, id: u8, _at: u64) {
        if id == id::OUTPUT {
            self.event.tool_calls = 0;
        }
    }

    fn duplicate(&mut self) {
        self.event.anomalies.insert(Anomaly::MalformedReply);
    }
}

fn outcome_of(status: &[u8]) -> Option<Outcome> {
    match status {
        b"\"completed\"" => Some(Outcome::Ok),
        b"\"incomplete\"" | b"\"cancelled\"" => Some(Outcome::Incomplete),
        b"\"failed\"" => Some(Outcome::Failed),
        _ => None,
    }
}

impl Realtime {
    pub(super) const MESSAGE: &'static Node = &MESSAGE;

    pub(super) fn new(flavour: &'static Flavour) -> Self {
        Self {
            flavour,
            session_id: Held::default(),
            model: Held::default(),
            transcription_model: Held::default(),
            last_done: Held::default(),
            open: Vec::new(),
            event: Event::default(),
        }
    }

    pub(super) fn session_id(&self) -> Option<Label> {
        self.session_id.label()
    }

    pub(super) fn model(&self) -> Option<Label> {
        self.model.label()
    }

    pub(super) fn take_open(&mut self) -> Vec<Open> {
        std::mem::take(&mut self.open)
    }

    /// The event is over; one that is not whole says nothing.
    pub(super) fn end_message(&mut self, is_whole: bool, now: Timestamp) -> Option<Billed> {
        let billed = if is_whole { self.end_event(now) } else { None };
        self.event.clear();
        billed
    }

    fn end_event(&mut self, now: Timestamp) -> Option<Billed> {
        let [b'"', kind @ .., b'"'] = self.event.kind.bytes() else { return None };
        match kind {
            b"session.created"
            | b"session.updated"
            | b"transcription_session.created"
            | b"transcription_session.updated" => self.session(),
            b"response.created" => self.response_begins(now),
            b"response.done" => return self.response_ends(),
            b"conversation.item.input_audio_transcription.completed" => return self.transcription(),
            _ if kind.starts_with(b"response.") && kind.ends_with(b".delta") => self.output(now),
            _ => {}
        }
        None
    }

    fn session(&mut self) {
        let event = &mut self.event;
        if !event.session_id.is_empty() {
            self.session_id.raw(event.session_id.bytes());
        }
        if !event.model.is_empty() {
            self.model.raw(event.model.bytes());
        }
        match event.transcription {
            Transcription::NotTold => {}
            Transcription::Off => self.transcription_model.clear(),
            Transcription::On => self.transcription_model.raw(event.transcription_model.bytes()),
        }
    }

    fn response_begins(&mut self, now: Timestamp) {
        let id = self.event.response.label();
        let is_known = self.open.iter().any(|open| open.id == id);
        if self.open.len() < OPEN_MAX && !is_known {
            self.open.push(Open { id, started_at: now, first_output_at: None });
        }
    }

    fn output(&mut self, now: Timestamp) {
        if self.open.iter().all(|open| open.first_output_at.is_some()) {
            return;
        }
        let id = self.event.of_response.label();
        if let Some(open) = self.open.iter_mut().find(|open| open.id == id) {
            open.first_output_at.get_or_insert(now);
        }
    }

    fn response_ends(&mut self) -> Option<Billed> {
        let event = &mut self.event;
        if !event.response.is_empty() && event.response.bytes() == self.last_done.bytes() {
            return None;
        }
        self.last_done.raw(event.response.bytes());
        let id = event.response.label();
        let open = self.open.iter().position(|open| open.id == id).map(|at| self.open.remove(at));
        let mut anomalies = event.anomalies;
        let raw =
            if event.response_usage.is_empty() { event.usage.take() } else { event.response_usage.take() };
        let read = read_usage(&raw, &mut anomalies);
        let mut usage = read.usage;
        usage.set_quantity(Quantity::ToolCalls, event.tool_calls);
        Some(Billed {
            id,
            model_served: self.model.label(),
            model_requested: None,
            is_others: false,
            tier: None,
            outcome: event.status.unwrap_or(Outcome::Ok),
            usage,
            is_told: read.is_told,
            raw,
            anomalies,
            open,
        })
    }

    fn transcription(&mut self) -> Option<Billed> {
        let event = &mut self.event;
        if event.usage.is_empty() && self.flavour.free_transcription {
            return None;
        }
        let mut anomalies = event.anomalies;
        let raw = event.usage.take();
        let read = read_usage(&raw, &mut anomalies);
        let model = self.transcription_model.label();
        Some(Billed {
            id: event.item.label(),
            model_served: model.clone(),
            // In a session that only transcribes, its model is the one.
            is_others: model.is_none() && !self.model.is_empty(),
            model_requested: model,
            tier: None,
            outcome: Outcome::Ok,
            usage: read.usage,
            is_told: read.is_told,
            raw,
            anomalies,
            open: None,
        })
    }
}

impl Event {
    fn clear(&mut self) {
        let Self {
            kind,
            session_id,
            model,
            transcription,
            transcription_model,
            response,
            of_response,
            item,
            status,
            usage,
            response_usage,
            tool_calls,
            anomalies,
        } = self;
        for held in
            [kind, session_id, model, transcription_model, response, of_response, item, usage, response_usage]
        {
            held.clear();
        }
        (*transcription, *status, *tool_calls) = (Transcription::NotTold, None, 0);
        *anomalies = Anomalies::default();
    }
}

// === usage objects ===

mod field {
    pub(super) const INPUT: u8 = 0;
    pub(super) const OUTPUT: u8 = 1;
    pub(super) const TOTAL: u8 = 2;
    pub(super) const CACHED: u8 = 3;
    pub(super) const AUDIO: u8 = 4;
    pub(super) const IMAGE: u8 = 5;
    pub(super) const CACHED_TEXT: u8 = 6;
    pub(super) const CACHED_AUDIO: u8 = 7;
    pub(super) const CACHED_IMAGE: u8 = 8;
    pub(super) const OUTPUT_AUDIO: u8 = 9;
    pub(super) const OUTPUT_IMAGE: u8 = 10;
    pub(super) const REASONING: u8 = 11;
    /// Fields up to here are counts.
    pub(super) const COUNTS: usize = 12;
    pub(super) const SECONDS: u8 = 12;
}

static INPUT_DETAILS: &[(&str, Node)] = &[
    ("cached_tokens", Node::scalar(field::CACHED)),
    ("audio_tokens", Node::scalar(field::AUDIO)),
    ("image_tokens", Node::scalar(field::IMAGE)),
    (
        "cached_tokens_details",
        Node::object(&[
            ("text_tokens", Node::scalar(field::CACHED_TEXT)),
            ("audio_tokens", Node::scalar(field::CACHED_AUDIO)),
            ("image_tokens", Node::scalar(field::CACHED_IMAGE)),
        ]),
    ),
];

static OUTPUT_DETAILS: &[(&str, Node)] = &[
    ("audio_tokens", Node::scalar(field::OUTPUT_AUDIO)),
    ("image_tokens", Node::scalar(field::OUTPUT_IMAGE)),
    ("reasoning_tokens", Node::scalar(field::REASONING)),
];

static USAGE: Node = Node::object(&[
    ("input_tokens", Node::scalar(field::INPUT)),
    ("output_tokens", Node::scalar(field::OUTPUT)),
    ("total_tokens", Node::scalar(field::TOTAL)),
    ("input_token_details", Node::object(INPUT_DETAILS)),
    ("input_tokens_details", Node::object(INPUT_DETAILS)),
    ("output_token_details", Node::object(OUTPUT_DETAILS)),
    ("output_tokens_details", Node::object(OUTPUT_DETAILS)),
    ("seconds", Node::scalar(field::SECONDS)),
    ("billable_audio_seconds", Node::scalar(field::SECONDS)),
]);

/// The numbers of one usage object, as sent.
#[derive(Debug, Default)]
struct Fields {
    counts: [Option<u64>; field::COUNTS],
    audio_millis: Option<u64>,
    anomalies: Anomalies,
}

impl Sink for Fields {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        if let Some(slot) = self.counts.get_mut(usize::from(id)) {
            *slot = number::count(raw, &mut self.anomalies);
        } else if id == field::SECONDS {
            self.audio_millis = number::millis(raw);
        }
    }

    fn duplicate(&mut self) {
        self.anomalies.insert(Anomaly::MalformedReply);
    }
}

#[derive(Debug)]
struct ReadUsage {
    usage: Usage,
    /// Whether anything was told.
    is_told: bool,
}

fn read_usage(raw: &[u8], anomalies: &mut Anomalies) -> ReadUsage {
    let mut fields = Fields::default();
    Scanner::new(&USAGE).feed(raw, &mut fields);
    let get = |id: u8| fields.counts.get(usize::from(id)).copied().flatten();
    let told = [field::CACHED_TEXT, field::CACHED_AUDIO, field::CACHED_IMAGE].map(get);
    let sum = told.iter().flatten().fold(0, |sum: u64, count| sum.saturating_add(*count));
    let reported = Reported {
        input: get(field::INPUT),
        cached: get(field::CACHED).or(told.iter().any(Option::is_some).then_some(sum)),
        audio: get(field::AUDIO),
        image: get(field::IMAGE),
        cached_audio: get(field::CACHED_AUDIO),
        cached_image: get(field::CACHED_IMAGE),
        output: get(field::OUTPUT),
        reasoning: get(field::REASONING),
        output_audio: get(field::OUTPUT_AUDIO),
        output_image: get(field::OUTPUT_IMAGE),
        ..Reported::default()
    };
    let mut usage = disjoint(&reported, anomalies);
    if let (Some(total), Some(input)) = (get(field::TOTAL), reported.input)
        && total != input.saturating_add(reported.output.unwrap_or(0))
    {
        anomalies.insert(Anomaly::TotalMismatch);
    }
    if let Some(millis) = fields.audio_millis {
        usage.set_quantity(Quantity::AudioMillis, millis);
    }
    anomalies.extend(fields.anomalies);
    ReadUsage { is_told: !usage.is_unknown(), usage }
}
