//! Anthropic's messages: plain and streamed.
//!
//! Rules
//! - Classes are disjoint as sent: input, cache reads and cache writes add up.
//! - In a stream `message_start` knows the input, `message_delta` the rest; counts are cumulative, so
//!   the last word on each field counts and nothing is added. Some gateways send zeros for what they
//!   do not repeat, which overwrite nothing.
//! - `iterations` lists passes (compaction, advisor) that the top level leaves out although they are
//!   billed; they are added, each at its own model.
//!
//! Not here: framing (`sse`).

use super::json::{Node, Scanner, Sink, is_present};
use super::number;
use super::openai::read_charge;
use super::shape::{Context, Data, Gathered, Held, Progress, Shape};
use super::text::{PassedText, TextKind};
use super::totals::set_writes;
use bursar_domain::event::{Anomalies, Anomaly, ModelUsage};
use bursar_domain::ids::Label;
use bursar_domain::usage::{Quantity, TokenClass, Usage};

/// Most iterations that are read.
const ITERATIONS_MAX: usize = 256;

mod id {
    pub(super) const ID: u8 = 1;
    pub(super) const MODEL: u8 = 2;
    pub(super) const USAGE: u8 = 3;
    pub(super) const TYPE: u8 = 4;
    pub(super) const ERROR: u8 = 5;
    pub(super) const BLOCK_TYPE: u8 = 6;
    pub(super) const START_USAGE: u8 = 7;
    pub(super) const STOP: u8 = 8;
    pub(super) const TEXT: u8 = 9;
    pub(super) const THINKING: u8 = 10;
    pub(super) const TOOL: u8 = 11;
}

static BLOCK: Node = Node::object(BLOCK_KEYS);

const BLOCK_KEYS: &[(&str, Node)] = &[
    ("type", Node::scalar(id::BLOCK_TYPE)),
    ("text", Node::text(id::TEXT)),
    ("thinking", Node::text(id::THINKING)),
    ("name", Node::text(id::TOOL)),
];

static MESSAGE: Node = Node::object(&[
    ("id", Node::scalar(id::ID)),
    ("type", Node::scalar(id::TYPE)),
    ("model", Node::scalar(id::MODEL)),
    ("content", Node::array(&BLOCK)),
    ("usage", Node::whole(id::USAGE)),
    ("stop_reason", Node::scalar(id::STOP)),
    ("error", Node::whole(id::ERROR)),
]);

static EVENT: Node = Node::object(&[
    ("type", Node::scalar(id::TYPE)),
    (
        "delta",
        Node::object(&[
            ("stop_reason", Node::scalar(id::STOP)),
            ("text", Node::text(id::TEXT)),
            ("thinking", Node::text(id::THINKING)),
            ("partial_json", Node::text(id::TOOL)),
        ]),
    ),
    ("usage", Node::whole(id::USAGE)),
    ("content_block", Node::object(BLOCK_KEYS)),
    (
        "message",
        Node::object(&[
            ("id", Node::scalar(id::ID)),
            ("model", Node::scalar(id::MODEL)),
            ("usage", Node::whole(id::START_USAGE)),
        ]),
    ),
    ("error", Node::whole(id::ERROR)),
]);

/// A message, plain or streamed.
#[derive(Debug, Default)]
pub(super) struct Messages {
    id: Held,
    model: Held,
    kind: Held,
    start_raw: Held,
    last_raw: Held,
    merged: Merged,
    tool_calls: u64,
    stopped: bool,
    closed: bool,
    error: bool,
    seen: bool,
    /// Whether the event told nothing but its type.
    only_type: bool,
    text: PassedText,
    anomalies: Anomalies,
}

const DELTA: &[u8] = b"\"content_block_delta\"";

impl Sink for Messages {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        self.only_type &= id == id::TYPE;
        match id {
            id::ID => {
                self.seen = true;
                self.id.first_text(raw);
            }
            id::MODEL => self.model.text(raw),
            id::TYPE => self.kind.raw(raw),
            id::ERROR => self.error |= is_present(raw),
            id::BLOCK_TYPE => self.tool_calls += u64::from(raw == b"\"tool_use\""),
            id::STOP => self.stopped |= is_present(raw),
            id::START_USAGE if raw.first() == Some(&b'{') => {
                self.start_raw.raw(raw);
                self.merged.start(Counts::of(raw));
            }
            id::USAGE if raw.first() == Some(&b'{') => {
                self.last_raw.raw(raw);
                self.merged.update(Counts::of(raw));
            }
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

    fn too_long(&mut self, _id: u8) {
        self.anomalies.insert(Anomaly::MeteringCapped);
    }

    fn duplicate(&mut self) {
        self.anomalies.insert(Anomaly::MalformedReply);
    }
}

impl Shape for Messages {
    const PLAIN: &'static Node = &MESSAGE;
    const EVENT: &'static Node = &EVENT;

    fn end_event(&mut self, name: &[u8], data: Data) {
        let kind = match self.kind.bytes() {
            [b'"', kind @ .., b'"'] => kind,
            _ => name,
        };
        self.closed |= kind == b"message_stop" && data == Data::Whole;
        self.error |= kind == b"error" || name == b"error";
        self.text.settle(0);
        self.kind.clear();
        self.only_type = true;
    }

    fn is_text_alone(&self) -> bool {
        self.only_type && self.kind.bytes() == DELTA
    }

    fn again(&mut self, id: u8, raw: &[u8]) {
        self.kind.raw(DELTA);
        self.text(id, raw);
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
            self.error |= self.kind.bytes() == b"\"error\"";
        }
        if self.error {
            self.merged.drop_placeholder();
        }
        let read = self.merged.read(&mut anomalies);
        let mut usage = read.usage;
        if self.seen || context.closed {
            usage.set_quantity(Quantity::ToolCalls, self.tool_calls);
        }
        // OpenRouter tells its charge here too.
        let charge = read_charge(self.last_raw.bytes(), context.flavour.charge);
        let raw = [self.start_raw.take(), self.last_raw.take()];
        let counts = &self.merged.counts;
        Gathered {
            id: self.id.label(),
            model: self.model.name(),
            tier: counts.tier.name(),
            inference_geo: read.geo,
            speed: counts.speed.name(),
            usage,
            is_final: !context.stream || ((self.closed || self.stopped) && !self.merged.placeholder),
            by_model: read.by_model,
            raw: raw.into_iter().filter(|raw| !raw.is_empty()).collect(),
            charge,
            progress: if self.closed { Progress::Closed } else { Progress::Open },
            error: self.error,
            state: None,
            anomalies,
            ..Gathered::nothing()
        }
    }
}

// === usage objects ===

mod field {
    pub(super) const INPUT: u8 = 0;
    pub(super) const OUTPUT: u8 = 1;
    pub(super) const READ: u8 = 2;
    pub(super) const WRITTEN: u8 = 3;
    pub(super) const WRITTEN_5M: u8 = 4;
    pub(super) const WRITTEN_1H: u8 = 5;
    pub(super) const THINKING: u8 = 6;
    pub(super) const SEARCHES: u8 = 7;
    pub(super) const FETCHES: u8 = 8;
    /// Fields up to here are counts.
    pub(super) const COUNTS: usize = 9;
    pub(super) const TIER: u8 = 9;
    pub(super) const GEO: u8 = 10;
    pub(super) const SPEED: u8 = 11;
    pub(super) const ITERATION: u8 = 12;
    pub(super) const TYPE: u8 = 13;
    pub(super) const MODEL: u8 = 14;
}

const CACHE_CREATION: Node = Node::object(&[
    ("ephemeral_5m_input_tokens", Node::scalar(field::WRITTEN_5M)),
    ("ephemeral_1h_input_tokens", Node::scalar(field::WRITTEN_1H)),
]);

static USAGE: Node = Node::object(&[
    ("input_tokens", Node::scalar(field::INPUT)),
    ("output_tokens", Node::scalar(field::OUTPUT)),
    ("cache_read_input_tokens", Node::scalar(field::READ)),
    ("cache_creation_input_tokens", Node::scalar(field::WRITTEN)),
    ("cache_creation", CACHE_CREATION),
    ("output_tokens_details", Node::object(&[("thinking_tokens", Node::scalar(field::THINKING))])),
    (
        "server_tool_use",
        Node::object(&[
            ("web_search_requests", Node::scalar(field::SEARCHES)),
            ("web_fetch_requests", Node::scalar(field::FETCHES)),
        ]),
    ),
    ("service_tier", Node::scalar(field::TIER)),
    ("inference_geo", Node::scalar(field::GEO)),
    ("speed", Node::scalar(field::SPEED)),
    ("iterations", Node::array(&ITERATION)),
]);

static ITERATION: Node = Node::whole(field::ITERATION);

static ITERATION_FIELDS: Node = Node::object(&[
    ("input_tokens", Node::scalar(field::INPUT)),
    ("output_tokens", Node::scalar(field::OUTPUT)),
    ("cache_read_input_tokens", Node::scalar(field::READ)),
    ("cache_creation_input_tokens", Node::scalar(field::WRITTEN)),
    ("cache_creation", CACHE_CREATION),
    ("output_tokens_details", Node::object(&[("thinking_tokens", Node::scalar(field::THINKING))])),
    ("type", Node::scalar(field::TYPE)),
    ("model", Node::scalar(field::MODEL)),
]);

/// One usage object, or one iteration of it.
#[derive(Debug, Default)]
struct Counts {
    values: [Option<u64>; field::COUNTS],
    tier: Held,
    geo: Held,
    speed: Held,
    kind: Held,
    model: Held,
    iterations: Vec<Counts>,
    anomalies: Anomalies,
}

impl Sink for Counts {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        if let Some(slot) = self.values.get_mut(usize::from(id)) {
            *slot = number::count(raw, &mut self.anomalies);
            return;
        }
        match id {
            field::TIER => self.tier.text(raw),
            field::GEO => self.geo.text(raw),
            field::SPEED => self.speed.text(raw),
            field::TYPE => self.kind.text(raw),
            field::MODEL => self.model.text(raw),
            field::ITERATION if self.iterations.len() < ITERATIONS_MAX => {
                let mut iteration = Self::default();
                Scanner::new(&ITERATION_FIELDS).feed(raw, &mut iteration);
                self.anomalies.extend(iteration.anomalies);
                self.iterations.push(iteration);
            }
            field::ITERATION => self.anomalies.insert(Anomaly::MeteringCapped),
            _ => {}
        }
    }

    fn duplicate(&mut self) {
        self.anomalies.insert(Anomaly::MalformedReply);
    }
}

impl Counts {
    fn of(raw: &[u8]) -> Self {
        let mut counts = Self::default();
        Scanner::new(&USAGE).feed(raw, &mut counts);
        counts
    }

    fn get(&self, id: u8) -> Option<u64> {
        self.values.get(usize::from(id)).copied().flatten()
    }

    fn set(&mut self, id: u8, value: Option<u64>) {
        if let Some(slot) = self.values.get_mut(usize::from(id)) {
            *slot = value;
        }
    }

    /// All input that is told.
    fn input(&self) -> u64 {
        [field::INPUT, field::READ, field::WRITTEN]
            .iter()
            .fold(0, |sum: u64, id| sum.saturating_add(self.get(*id).unwrap_or(0)))
    }

    fn is_main(&self) -> bool {
        matches!(self.kind.bytes(), b"" | b"\"message\"")
    }

    /// The disjoint classes.
    fn usage(&self, anomalies: &mut Anomalies) -> Usage {
        let mut usage = Usage::unknown();
        for (id, class) in [(field::INPUT, TokenClass::InputFresh), (field::READ, TokenClass::CachedRead)] {
            if let Some(count) = self.get(id) {
                usage.set(class, count);
            }
        }
        let [written, short, long] =
            [field::WRITTEN, field::WRITTEN_5M, field::WRITTEN_1H].map(|id| self.get(id));
        set_writes(&mut usage, written, short, long, anomalies);
        let thinking = self.get(field::THINKING);
        if let Some(output) = self.get(field::OUTPUT) {
            let reasoning = thinking.unwrap_or(0).min(output);
            usage.set(TokenClass::OutputText, output.saturating_sub(reasoning));
            if thinking.is_some() {
                usage.set(TokenClass::OutputReasoning, reasoning);
            }
            if thinking.is_some_and(|thinking| thinking > output) {
                anomalies.insert(Anomaly::ReasoningExceedsOutput);
            }
        }
        usage
    }
}

/// Usage objects of one message, merged as they come.
#[derive(Debug, Default)]
struct Merged {
    counts: Counts,
    /// Whether the output count is `message_start`'s, which is no count of anything.
    placeholder: bool,
}

/// What usage objects say.
pub(super) struct Read {
    pub(super) usage: Usage,
    pub(super) by_model: Vec<ModelUsage>,
    pub(super) geo: Option<Label>,
}

/// Reads the usage object of one whole message.
pub(super) fn read_message_usage(raw: &[u8], anomalies: &mut Anomalies) -> Read {
    let mut merged = Merged::default();
    merged.update(Counts::of(raw));
    merged.read(anomalies)
}

impl Merged {
    fn start(&mut self, counts: Counts) {
        self.placeholder = counts.get(field::OUTPUT).is_some();
        self.counts = counts;
    }

    /// Takes the last word on each field. A zero is the last word on the input only when it leaves
    /// no less input than was known: a fully cached prompt, not a field left out.
    fn update(&mut self, mut newer: Counts) {
        let known = self.counts.input();
        let zero_counts = newer.input() >= known;
        for id in [field::INPUT, field::READ, field::WRITTEN] {
            match newer.get(id) {
                Some(0) if !zero_counts && self.counts.get(id).is_some() => {}
                None => {}
                value => self.counts.set(id, value),
            }
        }
        for id in [field::WRITTEN_5M, field::WRITTEN_1H, field::THINKING, field::SEARCHES, field::FETCHES] {
            if let Some(value) = newer.get(id)
                && (value > 0 || self.counts.get(id).is_none())
            {
                self.counts.set(id, Some(value));
            }
        }
        if let Some(output) = newer.get(field::OUTPUT)
            && (output > 0 || self.placeholder || self.counts.get(field::OUTPUT).is_none())
        {
            self.counts.set(field::OUTPUT, Some(output));
            self.placeholder = false;
        }
        for (held, newer) in [
            (&mut self.counts.tier, &newer.tier),
            (&mut self.counts.geo, &newer.geo),
            (&mut self.counts.speed, &newer.speed),
        ] {
            held.text(newer.bytes());
        }
        if !newer.iterations.is_empty() {
            self.counts.iterations = std::mem::take(&mut newer.iterations);
        }
        self.counts.anomalies.extend(newer.anomalies);
    }

    /// After an error event nothing vouches for the placeholder; a cut stream keeps it as the little
    /// that is known.
    fn drop_placeholder(&mut self) {
        if self.placeholder {
            self.counts.set(field::OUTPUT, None);
            self.placeholder = false;
        }
    }

    fn read(&self, anomalies: &mut Anomalies) -> Read {
        let counts = &self.counts;
        let mut served = counts.usage(anomalies);
        anomalies.extend(counts.anomalies);
        let mut others: Vec<ModelUsage> = Vec::new();
        let whole = counts.iterations.iter().fold(0, |sum: u64, pass| sum.saturating_add(pass.input()));
        let extra = counts.iterations.iter().any(|pass| !pass.is_main());
        // Should the top level ever cover all passes, adding them would count them twice.
        if extra && counts.input() < whole {
            anomalies.insert(Anomaly::IterationsAdded);
            for pass in counts.iterations.iter().filter(|pass| !pass.is_main()) {
                let usage = pass.usage(anomalies);
                add(&mut served, &mut others, pass.model.name(), usage);
            }
        }
        let mut usage = served;
        for other in &others {
            usage.add(&other.usage);
        }
        let mut by_model = Vec::new();
        if extra {
            by_model.push(ModelUsage { model: None, usage: served });
            by_model.append(&mut others);
        }
        for (id, quantity) in
            [(field::SEARCHES, Quantity::WebSearchRequests), (field::FETCHES, Quantity::WebFetchRequests)]
        {
            if let Some(count) = counts.get(id) {
                usage.set_quantity(quantity, count);
            }
        }
        Read { usage, by_model, geo: counts.geo.name() }
    }
}

fn add(served: &mut Usage, others: &mut Vec<ModelUsage>, model: Option<Label>, usage: Usage) {
    if model.is_none() {
        served.add(&usage);
        return;
    }
    match others.iter_mut().find(|other| other.model == model) {
        Some(other) => other.usage.add(&usage),
        None => others.push(ModelUsage { model, usage }),
    }
}
