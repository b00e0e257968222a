//! OpenAI's reply shapes: chat and legacy completions, responses, embeddings; plain and streamed.
//!
//! Rules
//! - Totals hold their subsets: cached, written, audio inside the input; reasoning, audio inside the
//!   output. Providers' deviations are in `flavour`.
//! - In a chat stream the last usage that is not `null` counts. It need not be in the last chunk, and
//!   running totals or repeated copies are never added.
//! - In a responses stream the usage is in the terminal event.
//!
//! Not here: framing (`sse`), the arithmetic of subsets (`totals`).

use super::flavour::{Audio, Charge, End, Reasoning};
use super::json::{Node, Scanner, Sink, is_present};
use super::number;
use super::shape::{Context, Data, Gathered, Held, Kind, Progress, Shape};
use super::text::{PassedText, TextKey, TextKind};
use super::totals::{Reported, disjoint};
use bursar_domain::event::{Anomalies, Anomaly, ModelUsage, Outcome};
use bursar_domain::ids::Label;
use bursar_domain::money::Money;
use bursar_domain::usage::{Quantity, Usage};

// === chat and legacy completions, embeddings, moderations ===

mod chat_id {
    pub(super) const ID: u8 = 1;
    pub(super) const MODEL: u8 = 2;
    pub(super) const TIER: u8 = 3;
    pub(super) const USAGE: u8 = 4;
    /// Where some providers put it: Groq beside the choices, Moonshot into them.
    pub(super) const SIDE_USAGE: u8 = 5;
    pub(super) const BREAKDOWN: u8 = 6;
    pub(super) const ERROR: u8 = 7;
    pub(super) const CHOICE: u8 = 8;
    pub(super) const CHOICE_INDEX: u8 = 9;
    pub(super) const FINISH: u8 = 10;
    pub(super) const MESSAGE_TOOLS: u8 = 11;
    pub(super) const TOOL: u8 = 12;
    pub(super) const TOOL_INDEX: u8 = 13;
    pub(super) const TOOL_NAME: u8 = 14;
    pub(super) const FUNCTION_CALL: u8 = 15;
    pub(super) const CONTENT: u8 = 16;
    pub(super) const REASONING: u8 = 17;
    pub(super) const ARGUMENTS: u8 = 18;
}

static TOOL: Node = Node::object(&[
    ("index", Node::scalar(chat_id::TOOL_INDEX)),
    (
        "function",
        Node::object(&[
            ("name", Node::scalar(chat_id::TOOL_NAME)),
            ("arguments", Node::text(chat_id::ARGUMENTS)),
        ]),
    ),
])
.marked(chat_id::TOOL);

static MESSAGE_TOOL: Node = Node::object(&[(
    "function",
    Node::object(&[("name", Node::text(chat_id::ARGUMENTS)), ("arguments", Node::text(chat_id::ARGUMENTS))]),
)]);

/// A part of a content that is a list.
static CONTENT_PART: Node = Node::object(&[("text", Node::text(chat_id::CONTENT))]);

const CONTENT: Node = Node::text(chat_id::CONTENT).or_array(&CONTENT_PART);
const REASONING: Node = Node::text(chat_id::REASONING);

/// The one call of the API before tools.
const FUNCTION_CALL: Node = Node::object(&[
    ("name", Node::scalar(chat_id::FUNCTION_CALL)),
    ("arguments", Node::text(chat_id::ARGUMENTS)),
])
.marked(chat_id::FUNCTION_CALL);

static CHOICE: Node = Node::object(&[
    ("index", Node::scalar(chat_id::CHOICE_INDEX)),
    (
        "delta",
        Node::object(&[
            ("content", CONTENT),
            ("tool_calls", Node::array(&TOOL)),
            ("function_call", FUNCTION_CALL),
            ("reasoning_content", REASONING),
            ("reasoning", REASONING),
            ("refusal", CONTENT),
        ]),
    ),
    ("finish_reason", Node::scalar(chat_id::FINISH)),
    ("usage", Node::whole(chat_id::SIDE_USAGE)),
    ("text", CONTENT),
    (
        "message",
        Node::object(&[
            ("content", CONTENT),
            ("tool_calls", Node::array(&MESSAGE_TOOL).marked(chat_id::MESSAGE_TOOLS)),
            ("function_call", FUNCTION_CALL),
            ("reasoning_content", REASONING),
            ("reasoning", REASONING),
            ("refusal", CONTENT),
        ]),
    ),
])
.marked(chat_id::CHOICE);

static CHAT: Node = Node::object(&[
    ("id", Node::scalar(chat_id::ID)),
    ("choices", Node::array(&CHOICE).with_checkpoint()),
    ("model", Node::scalar(chat_id::MODEL)),
    ("usage", Node::whole(chat_id::USAGE)),
    ("service_tier", Node::scalar(chat_id::TIER)),
    ("error", Node::whole(chat_id::ERROR)),
    ("x_groq", Node::object(&[("usage", Node::whole(chat_id::SIDE_USAGE))])),
    ("usage_breakdown", Node::whole(chat_id::BREAKDOWN)),
]);

/// Choices whose tool calls are told apart; later ones share the last place.
const CHOICES_MAX: usize = 16;
/// A tool call index beyond this is not believed.
const TOOL_INDEX_MAX: u64 = 10_000;

/// Counts tool calls over many chunks: by their index where there is one, else by their names.
#[derive(Debug, Default)]
struct ToolCalls {
    indexed: [u64; CHOICES_MAX],
    unindexed: u64,
    choice: usize,
    in_choice: u64,
    index: Option<u64>,
    named: bool,
}

impl ToolCalls {
    fn end_tool(&mut self) {
        match self.index.take() {
            Some(index) if index <= TOOL_INDEX_MAX => self.in_choice = self.in_choice.max(index + 1),
            Some(_) => {}
            None => self.unindexed += u64::from(self.named),
        }
        self.named = false;
    }

    fn end_choice(&mut self) {
        if let Some(slot) = self.indexed.get_mut(self.choice.min(CHOICES_MAX - 1)) {
            *slot = (*slot).max(self.in_choice);
        }
        self.choice = 0;
        self.in_choice = 0;
    }

    fn total(&self) -> u64 {
        self.indexed.iter().sum::<u64>().saturating_add(self.unindexed)
    }
}

/// Chat completions and everything with the same outline.
#[derive(Debug, Default)]
pub(super) struct Chat {
    id: Held,
    model: Held,
    tier: Held,
    usage: Held,
    breakdown: Held,
    tools: ToolCalls,
    choices: bool,
    event_usage: bool,
    /// Whether the event so far had nothing but texts that may be read again to no effect.
    only_texts: bool,
    /// Choices that ended in this event, and the last one's number.
    ended: (u32, usize),
    /// Whether the event had something of a tool.
    had_tool: bool,
    usage_is_final: bool,
    finished: bool,
    done: bool,
    error: bool,
    text: PassedText,
    anomalies: Anomalies,
}

impl Sink for Chat {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        self.only_texts &= matches!(id, chat_id::ID | chat_id::MODEL | chat_id::TIER);
        match id {
            chat_id::ID => self.id.first_text(raw),
            chat_id::MODEL => self.model.text(raw),
            chat_id::TIER => self.tier.text(raw),
            chat_id::USAGE => self.event_usage |= self.usage.figures(raw),
            chat_id::SIDE_USAGE if !self.event_usage => self.event_usage = self.usage.figures(raw),
            chat_id::BREAKDOWN if raw.first() == Some(&b'{') => self.breakdown.raw(raw),
            chat_id::ERROR => self.error |= is_present(raw),
            chat_id::CHOICE_INDEX => self.tools.choice = small(raw).unwrap_or(0),
            chat_id::FINISH => {
                self.finished |= is_present(raw);
                self.error |= raw == b"\"error\"";
            }
            chat_id::TOOL_INDEX => {
                self.tools.index = number::count(raw, &mut Anomalies::default());
            }
            chat_id::TOOL_NAME => {
                self.tools.named |= is_present(raw);
                self.text.piece(TextKind::Tool, unquoted(raw));
            }
            chat_id::FUNCTION_CALL => self.text.piece(TextKind::Tool, unquoted(raw)),
            _ => {}
        }
    }

    fn text(&mut self, id: u8, raw: &[u8]) {
        let kind = match id {
            chat_id::CONTENT => TextKind::Content,
            chat_id::REASONING => TextKind::Reasoning,
            _ => TextKind::Tool,
        };
        self.text.piece(kind, raw);
    }

    fn too_long(&mut self, _id: u8) {
        self.anomalies.insert(Anomaly::MeteringCapped);
    }

    fn may_skip_prefix(&self) -> bool {
        self.only_texts && !self.anomalies.contains(Anomaly::MalformedReply)
    }

    fn close(&mut self, id: u8, _at: u64, items: u64) {
        match id {
            chat_id::TOOL => {
                self.had_tool = true;
                self.tools.end_tool();
            }
            chat_id::FUNCTION_CALL => {
                self.had_tool = true;
                self.tools.in_choice = self.tools.in_choice.max(1);
            }
            chat_id::MESSAGE_TOOLS => {
                self.had_tool = true;
                self.tools.in_choice = self.tools.in_choice.max(items);
            }
            chat_id::CHOICE => {
                self.choices = true;
                self.ended = (self.ended.0.saturating_add(1), self.tools.choice);
                self.text.settle(self.tools.choice);
                self.tools.end_choice();
            }
            _ => {}
        }
    }

    fn duplicate(&mut self) {
        self.anomalies.insert(Anomaly::MalformedReply);
    }
}

/// The inside of a JSON string.
fn unquoted(raw: &[u8]) -> &[u8] {
    raw.strip_prefix(b"\"").and_then(|raw| raw.strip_suffix(b"\"")).unwrap_or_default()
}

fn small(raw: &[u8]) -> Option<usize> {
    number::count(raw, &mut Anomalies::default()).and_then(|n| usize::try_from(n).ok())
}

impl Shape for Chat {
    const PLAIN: &'static Node = &CHAT;
    const EVENT: &'static Node = &CHAT;

    fn end_event(&mut self, name: &[u8], data: Data) {
        self.only_texts = true;
        self.had_tool = false;
        self.ended.0 = 0;
        self.error |= name == b"error";
        self.done |= data == Data::Done;
        if self.event_usage {
            self.event_usage = false;
            self.usage_is_final = self.finished;
        }
    }

    fn is_text_alone(&self) -> bool {
        // Tools are counted; of several choices one could not tell whose text it is.
        self.ended.0 == 1 && !self.had_tool
    }

    fn again(&mut self, id: u8, raw: &[u8]) {
        self.text(id, raw);
        self.text.settle(self.ended.1);
    }

    fn error(&mut self) {
        self.error = true;
    }

    fn passed(&mut self) -> Option<&mut PassedText> {
        Some(&mut self.text)
    }

    fn gather(&mut self, context: &Context<'_>) -> Gathered {
        let mut anomalies = self.anomalies;
        let read = read_usage(self.usage.bytes(), context, &mut anomalies);
        let mut usage = read.usage;
        let seen = self.choices || !self.usage.is_empty() || !self.model.is_empty();
        if (seen || context.closed) && context.kind == Kind::Completion {
            usage.set_quantity(Quantity::ToolCalls, self.tools.total());
        }
        if let Some(searches) = read.searches {
            usage.set_quantity(Quantity::WebSearchRequests, searches);
        }
        let finished = self.finished && (self.usage_is_final || self.usage.is_empty());
        let progress = match (self.done, context.flavour.end) {
            (true, _) => Progress::Closed,
            (false, End::DoneOrFinish) if finished => Progress::Finished,
            (false, _) => Progress::Open,
        };
        // Without a usage object all that is known is from a header, and that is the input alone.
        let ended = !context.stream || self.done || self.usage_is_final;
        let is_final = ended && !self.usage.is_empty();
        let by_model = read_breakdown(self.breakdown.bytes(), context, &mut anomalies);
        let raw = if self.usage.is_empty() { Vec::new() } else { vec![self.usage.take()] };
        Gathered {
            id: self.id.label().filter(|_| context.kind != Kind::Embedding),
            model: self.model.name(),
            tier: self.tier.name().or(read.tier),
            inference_geo: None,
            speed: None,
            usage,
            is_final,
            by_model,
            raw,
            charge: read.charge,
            progress,
            error: self.error,
            state: None,
            anomalies,
            ..Gathered::nothing()
        }
    }
}

// === responses ===

mod response_id {
    pub(super) const ID: u8 = 1;
    pub(super) const MODEL: u8 = 2;
    pub(super) const TIER: u8 = 3;
    pub(super) const USAGE: u8 = 4;
    pub(super) const STATUS: u8 = 5;
    pub(super) const BACKGROUND: u8 = 6;
    pub(super) const OUTPUT: u8 = 7;
    pub(super) const ITEM: u8 = 8;
    pub(super) const ITEM_TYPE: u8 = 9;
    pub(super) const RESPONSE_ERROR: u8 = 10;
    pub(super) const TYPE: u8 = 11;
    pub(super) const ERROR: u8 = 12;
    pub(super) const TEXT: u8 = 13;
    pub(super) const ARGUMENTS: u8 = 14;
    pub(super) const SUMMARY: u8 = 15;
    pub(super) const DELTA: u8 = 16;
    pub(super) const ACTION: u8 = 17;
    pub(super) const PASSING_ITEM: u8 = 18;
}

/// What a search tool did in an item of a response: only a search has a fee, opening a page or looking for
/// something in it has none. An item of before there were actions is a search.
const ACTION: Node = Node::object(&[("type", Node::scalar(response_id::ACTION))]);

static TEXT_PART: Node =
    Node::object(&[("text", Node::text(response_id::TEXT)), ("refusal", Node::text(response_id::TEXT))]);

static SUMMARY_PART: Node = Node::object(&[("text", Node::text(response_id::SUMMARY))]);

/// An item of a whole response; in a stream its text has passed in deltas before.
static WHOLE_ITEM: Node = Node::object(&[
    ("type", Node::scalar(response_id::ITEM_TYPE)),
    ("action", ACTION),
    ("content", Node::array(&TEXT_PART)),
    ("summary", Node::array(&SUMMARY_PART)),
    ("name", Node::text(response_id::ARGUMENTS)),
    ("arguments", Node::text(response_id::ARGUMENTS)),
    ("input", Node::text(response_id::ARGUMENTS)),
])
.marked(response_id::ITEM);

static OUTPUT_ITEM: Node =
    Node::object(&[("type", Node::scalar(response_id::ITEM_TYPE)), ("action", ACTION)])
        .marked(response_id::ITEM);

/// An item that begins or is over while the response is made.
const PASSING_ITEM: Node =
    Node::object(&[("type", Node::scalar(response_id::ITEM_TYPE)), ("action", ACTION)])
        .marked(response_id::PASSING_ITEM);

static RESPONSE: Node = Node::object(&response_keys(&WHOLE_ITEM));

/// A response object, with what is wanted of an item of its output.
const fn response_keys(item: &'static Node) -> [(&'static str, Node); 8] {
    [
        ("id", Node::scalar(response_id::ID)),
        ("model", Node::scalar(response_id::MODEL)),
        ("status", Node::scalar(response_id::STATUS)),
        ("usage", Node::whole(response_id::USAGE)),
        ("output", Node::array(item).marked(response_id::OUTPUT)),
        ("service_tier", Node::scalar(response_id::TIER)),
        ("background", Node::scalar(response_id::BACKGROUND)),
        ("error", Node::whole(response_id::RESPONSE_ERROR)),
    ]
}

static RESPONSE_EVENT: Node = Node::object(&[
    ("type", Node::scalar(response_id::TYPE)),
    ("delta", Node::text(response_id::DELTA)),
    ("item", PASSING_ITEM),
    ("response", Node::object(&response_keys(&OUTPUT_ITEM))),
    ("error", Node::whole(response_id::ERROR)),
]);

/// What kind of item is under way, or was the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Item {
    /// Whether it calls a tool of the caller's.
    is_call: bool,
    is_search_tool: bool,
    /// Whether the tool did something else than searching.
    is_other_action: bool,
}

impl Item {
    const fn is_search(self) -> bool {
        self.is_search_tool && !self.is_other_action
    }
}

/// Searches of a response that is being made: a cut stream has them in no output.
#[derive(Clone, Copy, Debug, Default)]
struct Passing {
    /// The item of the event under way.
    item: Item,
    begun: u64,
    ended: u64,
    searches: u64,
}

impl Passing {
    /// The event under way is of this kind.
    fn end_event(&mut self, kind: &[u8], data: Data) {
        let item = std::mem::take(&mut self.item);
        if data != Data::Whole || !item.is_search_tool {
            return;
        }
        match kind {
            b"response.output_item.added" => self.begun = self.begun.saturating_add(1),
            b"response.output_item.done" => {
                self.ended = self.ended.saturating_add(1);
                self.searches = self.searches.saturating_add(u64::from(item.is_search()));
            }
            _ => {}
        }
    }

    /// The searches so far. One that began and does not say yet what it does is one.
    fn searches(self) -> u64 {
        self.searches.saturating_add(self.begun.saturating_sub(self.ended))
    }
}

/// Responses, made or read.
#[derive(Debug, Default)]
pub(super) struct Responses {
    id: Held,
    model: Held,
    tier: Held,
    usage: Held,
    kind: Held,
    status: Option<Outcome>,
    terminal: Option<Outcome>,
    background: Option<bool>,
    tool_calls: u64,
    /// Of the output that was last sent whole.
    searches: u64,
    passing: Passing,
    item: Item,
    error: bool,
    response_error: bool,
    seen: bool,
    text: PassedText,
    anomalies: Anomalies,
}

impl Sink for Responses {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        match id {
            response_id::ID => {
                self.seen = true;
                self.id.first_text(raw);
            }
            response_id::MODEL => self.model.text(raw),
            response_id::TIER => self.tier.text(raw),
            response_id::USAGE => drop(self.usage.figures(raw)),
            response_id::STATUS => self.status = outcome_of_status(raw),
            response_id::BACKGROUND => match raw {
                b"true" => self.background = Some(true),
                b"false" => self.background = self.background.or(Some(false)),
                _ => {}
            },
            response_id::ITEM_TYPE => match raw {
                b"\"function_call\"" | b"\"custom_tool_call\"" => self.item.is_call = true,
                b"\"web_search_call\"" => self.item.is_search_tool = true,
                _ => {}
            },
            response_id::ACTION => self.item.is_other_action = raw != b"\"search\"",
            response_id::TYPE => self.kind.raw(raw),
            response_id::RESPONSE_ERROR => self.response_error = is_present(raw),
            response_id::ERROR => self.error |= is_present(raw),
            _ => {}
        }
    }

    fn text(&mut self, id: u8, raw: &[u8]) {
        let kind = match id {
            response_id::SUMMARY => TextKind::Reasoning,
            response_id::ARGUMENTS => TextKind::Tool,
            _ => TextKind::Content,
        };
        self.text.piece(kind, raw);
    }

    fn too_long(&mut self, _id: u8) {
        self.anomalies.insert(Anomaly::MeteringCapped);
    }

    fn open(&mut self, id: u8, _at: u64) {
        // The terminal event repeats the whole output, and so does every poll.
        match id {
            response_id::OUTPUT => (self.tool_calls, self.searches) = (0, 0),
            _ => self.item = Item::default(),
        }
    }

    fn close(&mut self, id: u8, _at: u64, _items: u64) {
        match id {
            response_id::ITEM => {
                self.tool_calls = self.tool_calls.saturating_add(u64::from(self.item.is_call));
                self.searches = self.searches.saturating_add(u64::from(self.item.is_search()));
            }
            response_id::PASSING_ITEM => self.passing.item = self.item,
            _ => {}
        }
    }

    fn duplicate(&mut self) {
        self.anomalies.insert(Anomaly::MalformedReply);
    }
}

/// What the `delta` of an event is text of; sound and pictures are none.
fn text_of_event(kind: &[u8]) -> Option<TextKind> {
    match kind {
        b"response.output_text.delta" | b"response.refusal.delta" => Some(TextKind::Content),
        b"response.reasoning_text.delta"
        | b"response.reasoning_summary_text.delta"
        | b"response.reasoning.delta" => Some(TextKind::Reasoning),
        b"response.function_call_arguments.delta"
        | b"response.custom_tool_call_input.delta"
        | b"response.mcp_call_arguments.delta"
        | b"response.code_interpreter_call_code.delta" => Some(TextKind::Tool),
        _ => None,
    }
}

fn outcome_of_status(raw: &[u8]) -> Option<Outcome> {
    match raw {
        b"\"completed\"" => Some(Outcome::Ok),
        b"\"incomplete\"" | b"\"cancelled\"" => Some(Outcome::Incomplete),
        b"\"failed\"" => Some(Outcome::Failed),
        b"\"queued\"" | b"\"in_progress\"" => Some(Outcome::Queued),
        _ => None,
    }
}

impl Shape for Responses {
    const PLAIN: &'static Node = &RESPONSE;
    const EVENT: &'static Node = &RESPONSE_EVENT;

    fn end_event(&mut self, name: &[u8], data: Data) {
        let kind = match self.kind.bytes() {
            [b'"', kind @ .., b'"'] => kind,
            _ => name,
        };
        self.passing.end_event(kind, data);
        match text_of_event(kind) {
            Some(kind) => self.text.settle_as(|key| TextKey { kind, ..key }),
            None => self.text.drop_open(),
        }
        match kind {
            b"error" => self.error = true,
            _ if data != Data::Whole => {}
            b"response.completed" | b"response.done" => self.terminal = Some(Outcome::Ok),
            b"response.incomplete" => self.terminal = Some(Outcome::Incomplete),
            b"response.failed" => self.terminal = Some(Outcome::Failed),
            _ => {}
        }
        self.error |= name == b"error";
        self.kind.clear();
    }

    fn error(&mut self) {
        self.error = true;
    }

    fn passed(&mut self) -> Option<&mut PassedText> {
        Some(&mut self.text)
    }

    fn gather(&mut self, context: &Context<'_>) -> Gathered {
        let mut anomalies = self.anomalies;
        let read = read_usage(self.usage.bytes(), context, &mut anomalies);
        let mut usage = read.usage;
        if self.seen || context.closed {
            usage.set_quantity(Quantity::ToolCalls, self.tool_calls);
            // What the provider counted is what it charges for.
            let passed =
                if self.terminal.is_some() { self.passing.searches } else { self.passing.searches() };
            let items = Some(self.searches.max(passed)).filter(|searches| *searches > 0);
            if let Some(searches) = read.searches.or(items) {
                usage.set_quantity(Quantity::WebSearchRequests, searches);
            }
        }
        let state = if context.stream { self.terminal } else { self.status };
        let raw = if self.usage.is_empty() { Vec::new() } else { vec![self.usage.take()] };
        Gathered {
            id: self.id.label(),
            model: self.model.name(),
            tier: self.tier.name().or(read.tier),
            inference_geo: None,
            speed: None,
            usage,
            is_final: !context.stream || self.terminal.is_some(),
            by_model: Vec::new(),
            raw,
            charge: read.charge,
            progress: if self.terminal.is_some() { Progress::Closed } else { Progress::Open },
            // A response object's own error goes with its status; alone it is an error body.
            error: self.error || (!context.stream && self.response_error && self.status.is_none()),
            state,
            background: self.background,
            anomalies,
            ..Gathered::nothing()
        }
    }
}

// === usage objects ===

mod field {
    pub(super) const PROMPT: u8 = 0;
    pub(super) const COMPLETION: u8 = 1;
    pub(super) const INPUT: u8 = 2;
    pub(super) const OUTPUT: u8 = 3;
    pub(super) const TOTAL: u8 = 4;
    pub(super) const CACHED: u8 = 5;
    pub(super) const CACHED_TOP: u8 = 6;
    pub(super) const CACHE_HIT: u8 = 7;
    pub(super) const NUM_CACHED: u8 = 8;
    pub(super) const CACHE_READ: u8 = 9;
    pub(super) const CACHE_WRITE: u8 = 10;
    pub(super) const CACHE_CREATION: u8 = 11;
    pub(super) const WRITE_5M: u8 = 12;
    pub(super) const WRITE_1H: u8 = 13;
    pub(super) const AUDIO: u8 = 14;
    pub(super) const IMAGE: u8 = 15;
    pub(super) const VIDEO: u8 = 16;
    pub(super) const REASONING: u8 = 17;
    pub(super) const REASONING_TOP: u8 = 18;
    pub(super) const OUTPUT_AUDIO: u8 = 19;
    pub(super) const OUTPUT_IMAGE: u8 = 20;
    pub(super) const ACCEPTED: u8 = 21;
    pub(super) const REJECTED: u8 = 22;
    pub(super) const SEARCHES: u8 = 23;
    pub(super) const SEARCH_CALLS: u8 = 24;
    pub(super) const SEARCH_UNITS: u8 = 25;
    /// Fields up to here are counts.
    pub(super) const COUNTS: usize = 26;
    pub(super) const AUDIO_SECONDS: u8 = 26;
    pub(super) const TIER: u8 = 27;
    pub(super) const COST: u8 = 28;
    pub(super) const TOTAL_COST: u8 = 29;
    pub(super) const UPSTREAM_COST: u8 = 30;
    pub(super) const OWN_KEY: u8 = 31;
    pub(super) const TICKS: u8 = 32;
    pub(super) const CONTEXT_SIZE: u8 = 33;
}

static INPUT_DETAILS: &[(&str, Node)] = &[
    ("cached_tokens", Node::scalar(field::CACHED)),
    ("cache_write_tokens", Node::scalar(field::CACHE_WRITE)),
    ("audio_tokens", Node::scalar(field::AUDIO)),
    ("image_tokens", Node::scalar(field::IMAGE)),
    ("video_tokens", Node::scalar(field::VIDEO)),
];

static OUTPUT_DETAILS: &[(&str, Node)] = &[
    ("reasoning_tokens", Node::scalar(field::REASONING)),
    ("audio_tokens", Node::scalar(field::OUTPUT_AUDIO)),
    ("image_tokens", Node::scalar(field::OUTPUT_IMAGE)),
    ("accepted_prediction_tokens", Node::scalar(field::ACCEPTED)),
    ("rejected_prediction_tokens", Node::scalar(field::REJECTED)),
];

static USAGE: Node = Node::object(&[
    ("prompt_tokens", Node::scalar(field::PROMPT)),
    ("completion_tokens", Node::scalar(field::COMPLETION)),
    ("input_tokens", Node::scalar(field::INPUT)),
    ("output_tokens", Node::scalar(field::OUTPUT)),
    ("total_tokens", Node::scalar(field::TOTAL)),
    ("prompt_tokens_details", Node::object(INPUT_DETAILS)),
    ("input_tokens_details", Node::object(INPUT_DETAILS)),
    // Assistants and transcriptions say "token".
    ("prompt_token_details", Node::object(INPUT_DETAILS)),
    ("input_token_details", Node::object(INPUT_DETAILS)),
    ("completion_tokens_details", Node::object(OUTPUT_DETAILS)),
    ("output_tokens_details", Node::object(OUTPUT_DETAILS)),
    ("cached_tokens", Node::scalar(field::CACHED_TOP)),
    ("prompt_cache_hit_tokens", Node::scalar(field::CACHE_HIT)),
    ("num_cached_tokens", Node::scalar(field::NUM_CACHED)),
    ("cache_read_input_tokens", Node::scalar(field::CACHE_READ)),
    ("cache_creation_input_tokens", Node::scalar(field::CACHE_CREATION)),
    (
        "cache_creation",
        Node::object(&[
            ("ephemeral_5m_input_tokens", Node::scalar(field::WRITE_5M)),
            ("ephemeral_1h_input_tokens", Node::scalar(field::WRITE_1H)),
        ]),
    ),
    ("reasoning_tokens", Node::scalar(field::REASONING_TOP)),
    ("prompt_audio_seconds", Node::scalar(field::AUDIO_SECONDS)),
    ("seconds", Node::scalar(field::AUDIO_SECONDS)),
    ("search_units", Node::scalar(field::SEARCH_UNITS)),
    ("service_tier", Node::scalar(field::TIER)),
    ("cost", Node::object(&[("total_cost", Node::scalar(field::TOTAL_COST))]).or_scalar(field::COST)),
    ("cost_details", Node::object(&[("upstream_inference_cost", Node::scalar(field::UPSTREAM_COST))])),
    ("is_byok", Node::scalar(field::OWN_KEY)),
    ("cost_in_usd_ticks", Node::scalar(field::TICKS)),
    ("search_context_size", Node::scalar(field::CONTEXT_SIZE)),
    ("server_tool_use_details", Node::object(&[("web_search_requests", Node::scalar(field::SEARCHES))])),
    (
        "server_side_tool_usage_details",
        Node::object(&[("web_search_calls", Node::scalar(field::SEARCH_CALLS))]),
    ),
]);

/// The numbers of one usage object, as sent.
#[derive(Debug, Default)]
struct Fields {
    counts: [Option<u64>; field::COUNTS],
    audio_millis: Option<u64>,
    tier: Held,
    cost: Option<Money>,
    total_cost: Option<Money>,
    upstream_cost: Option<Money>,
    ticks: Option<Money>,
    own_key: bool,
    /// A search context that costs more than a small one.
    context_size: Option<Quantity>,
    anomalies: Anomalies,
}

impl Sink for Fields {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        if let Some(slot) = self.counts.get_mut(usize::from(id)) {
            *slot = number::count(raw, &mut self.anomalies);
            return;
        }
        let noted = &mut self.anomalies;
        match id {
            field::AUDIO_SECONDS => self.audio_millis = number::millis(raw),
            field::TIER => self.tier.text(raw),
            field::COST => self.cost = number::dollars(raw, 0, noted),
            field::TOTAL_COST => self.total_cost = number::dollars(raw, 0, noted),
            field::UPSTREAM_COST => self.upstream_cost = number::dollars(raw, 0, noted),
            field::TICKS => self.ticks = number::dollars(raw, 10, noted),
            field::OWN_KEY => self.own_key = raw == b"true",
            field::CONTEXT_SIZE => {
                self.context_size = match raw {
                    b"\"medium\"" => Some(Quantity::MediumSearchContext),
                    b"\"high\"" => Some(Quantity::HighSearchContext),
                    _ => None,
                };
            }
            _ => {}
        }
    }

    fn duplicate(&mut self) {
        self.anomalies.insert(Anomaly::MalformedReply);
    }
}

impl Fields {
    fn of(raw: &[u8]) -> Self {
        let mut fields = Self::default();
        Scanner::new(&USAGE).feed(raw, &mut fields);
        fields
    }

    fn get(&self, id: u8) -> Option<u64> {
        self.counts.get(usize::from(id)).copied().flatten()
    }

    fn first(&self, ids: &[u8]) -> Option<u64> {
        ids.iter().find_map(|id| self.get(*id))
    }

    fn charge(&self, charge: Charge) -> Option<Money> {
        match charge {
            Charge::None => None,
            Charge::Ticks => self.ticks,
            Charge::TotalCost => self.total_cost,
            // With the customer's own key `cost` is OpenRouter's fee alone.
            Charge::Cost => match (self.own_key, self.cost, self.upstream_cost) {
                (true, Some(fee), Some(upstream)) => fee.checked_add(upstream).ok(),
                (true, None, upstream) => upstream,
                (_, cost, _) => cost,
            },
        }
    }
}

/// What one usage object says.
#[derive(Debug)]
pub(super) struct ReadUsage {
    pub(super) usage: Usage,
    /// What the provider says it charged.
    pub(super) charge: Option<Money>,
    pub(super) tier: Option<Label>,
    /// Web searches, which some providers count elsewhere too.
    pub(super) searches: Option<u64>,
}

/// Reads an OpenAI-shaped usage object; nothing of an empty text.
pub(super) fn read_usage(raw: &[u8], context: &Context<'_>, anomalies: &mut Anomalies) -> ReadUsage {
    let fields = Fields::of(raw);
    let (reported, total) = report(&fields, context, anomalies);
    let mut usage = disjoint(&reported, anomalies);
    if let Some(total) = total
        && let Some(input) = reported.input
        && total != input.saturating_add(reported.output.unwrap_or(0))
    {
        anomalies.insert(Anomaly::TotalMismatch);
    }
    for (value, quantity) in [
        (fields.get(field::ACCEPTED), Quantity::AcceptedPrediction),
        (fields.get(field::REJECTED), Quantity::RejectedPrediction),
        (fields.audio_millis, Quantity::AudioMillis),
        (fields.get(field::SEARCH_UNITS), Quantity::SearchUnits),
    ] {
        if let Some(value) = value {
            usage.set_quantity(quantity, value);
        }
    }
    if let Some(size) = fields.context_size.filter(|_| context.flavour.charge == Charge::TotalCost) {
        usage.set_quantity(size, 1);
    }
    anomalies.extend(fields.anomalies);
    ReadUsage {
        usage,
        charge: fields.charge(context.flavour.charge),
        tier: fields.tier.name(),
        searches: fields
            .get(field::SEARCHES)
            .or_else(|| fields.get(field::SEARCH_CALLS).filter(|calls| *calls > 0)),
    }
}

/// What a usage object says was charged, whatever it calls its counts.
pub(super) fn read_charge(raw: &[u8], charge: Charge) -> Option<Money> {
    if charge == Charge::None { None } else { Fields::of(raw).charge(charge) }
}

/// The reported totals and subsets by the rules of the API and the provider, and the total as sent.
fn report(fields: &Fields, context: &Context<'_>, anomalies: &mut Anomalies) -> (Reported, Option<u64>) {
    let total = fields.get(field::TOTAL);
    let (mut input, mut output) = match context.kind {
        Kind::Completion | Kind::Embedding | Kind::Transcript => {
            (fields.first(&[field::PROMPT, field::INPUT]), fields.first(&[field::COMPLETION, field::OUTPUT]))
        }
        Kind::Response | Kind::Image | Kind::Speech => {
            (fields.first(&[field::INPUT, field::PROMPT]), fields.first(&[field::OUTPUT, field::COMPLETION]))
        }
    };
    let mut reasoning = fields.first(&[field::REASONING, field::REASONING_TOP]);
    let audio = fields.get(field::AUDIO);
    match context.kind {
        Kind::Embedding => {
            input = input.or(total);
            output = output.or(input.map(|_| 0));
        }
        Kind::Completion | Kind::Transcript => {
            if context.flavour.audio == Audio::Beside {
                input = input.map(|input| input.saturating_add(audio.unwrap_or(0)));
            }
            match context.flavour.reasoning {
                Reasoning::Inside => {}
                Reasoning::Beside => {
                    output = output.map(|output| output.saturating_add(reasoning.unwrap_or(0)));
                }
                Reasoning::HiddenInTotal => {
                    let shown = input.unwrap_or(0).saturating_add(output.unwrap_or(0));
                    if let Some(hidden) = total.and_then(|total| total.checked_sub(shown)).filter(|n| *n > 0)
                    {
                        output = Some(output.unwrap_or(0).saturating_add(hidden));
                        reasoning = reasoning.or(Some(hidden));
                    }
                }
            }
        }
        Kind::Response | Kind::Image | Kind::Speech => {}
    }
    if input.is_none() && context.kind == Kind::Completion {
        input = context.input_header.and_then(|raw| number::count(raw, anomalies));
    }
    let header =
        || context.cached_header.filter(|_| input.is_some()).and_then(|raw| number::count(raw, anomalies));
    let reported = Reported {
        input,
        cached: fields
            .first(&[
                field::CACHED,
                field::CACHED_TOP,
                field::CACHE_HIT,
                field::NUM_CACHED,
                field::CACHE_READ,
            ])
            .or_else(header),
        written: fields.first(&[field::CACHE_WRITE, field::CACHE_CREATION]),
        written_5m: fields.get(field::WRITE_5M),
        written_1h: fields.get(field::WRITE_1H),
        audio,
        image: fields.get(field::IMAGE),
        video: fields.get(field::VIDEO),
        cached_audio: None,
        cached_image: None,
        output,
        reasoning,
        // What is made is audio or images, unless the details say otherwise.
        output_audio: fields
            .get(field::OUTPUT_AUDIO)
            .or_else(|| output.filter(|_| context.kind == Kind::Speech)),
        output_image: fields
            .get(field::OUTPUT_IMAGE)
            .or_else(|| output.filter(|_| context.kind == Kind::Image)),
    };
    (reported, total)
}

// === Groq's compound models ===

/// Most parts of a breakdown that are kept.
const PARTS_MAX: usize = 64;

mod part_id {
    pub(super) const MODEL: u8 = 1;
    pub(super) const USAGE: u8 = 2;
    pub(super) const PART: u8 = 3;
}

static PART: Node =
    Node::object(&[("model", Node::scalar(part_id::MODEL)), ("usage", Node::whole(part_id::USAGE))])
        .marked(part_id::PART);

static BREAKDOWN: Node = Node::object(&[("models", Node::array(&PART))]);

/// Parts of a compound model's usage, by model.
struct Parts<'a> {
    context: &'a Context<'a>,
    model: Held,
    usage: Usage,
    parts: Vec<ModelUsage>,
    anomalies: Anomalies,
}

impl Sink for Parts<'_> {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        match id {
            part_id::MODEL => self.model.text(raw),
            part_id::USAGE => self.usage = read_usage(raw, self.context, &mut self.anomalies).usage,
            _ => {}
        }
    }

    fn close(&mut self, _id: u8, _at: u64, _items: u64) {
        let model = self.model.name();
        self.model.clear();
        let usage = std::mem::take(&mut self.usage);
        if let Some(part) = self.parts.iter_mut().find(|part| part.model == model) {
            part.usage.add(&usage);
        } else if self.parts.len() < PARTS_MAX {
            self.parts.push(ModelUsage { model, usage });
        } else {
            self.anomalies.insert(Anomaly::MeteringCapped);
        }
    }
}

/// Reads the parts of a compound model's usage; none of an empty text.
pub(super) fn read_breakdown(
    raw: &[u8],
    context: &Context<'_>,
    anomalies: &mut Anomalies,
) -> Vec<ModelUsage> {
    if raw.is_empty() {
        return Vec::new();
    }
    let mut parts = Parts {
        context,
        model: Held::default(),
        usage: Usage::unknown(),
        parts: Vec::new(),
        anomalies: Anomalies::default(),
    };
    Scanner::new(&BREAKDOWN).feed(raw, &mut parts);
    anomalies.extend(parts.anomalies);
    parts.parts
}
