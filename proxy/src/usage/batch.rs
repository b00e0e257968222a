//! Batches: the object that tells how far one is, and its results, one line for each request.
//!
//! Rules
//! - The object repeats the totals of the results and never counts.
//! - Each line has the reply that the request would have had: OpenAI's of any API, xAI's inside a
//!   list, Anthropic's message, Google's generated content or embedding. A line without usage (an error,
//!   an expired request) used nothing.
//! - Of each line whatever changes its price is kept, as of a reply that comes alone: its region, its
//!   parts per model, its searches.
//! - Results are charged at the tier `batch`, whatever tier a reply names.
//! - The content of a file that is no output of a batch has no such line, and counts nothing.
//!
//! Not here: which lines were counted before and whose they are (`ledger`), framing (`lines`), Google's
//! operations (`gemini::batches`).

use super::RAW_BYTES_MAX;
use super::anthropic::read_message_usage;
use super::flavour::{Charge, Flavour};
use super::gemini::{self, Counts};
use super::json::{Node, Sink, is_present, text_of};
use super::model_name::is_search_model;
use super::number;
use super::openai::{read_breakdown, read_usage};
use super::shape::{Context, Data, Gathered, Held, Kind, Progress, Shape};
use bursar_domain::batch::{BatchLine, BatchLines, BatchNames, Kept, LOCAL_ID, sum};
use bursar_domain::event::{Anomalies, Anomaly, ModelUsage};
use bursar_domain::ids::Label;
use bursar_domain::money::Money;
use bursar_domain::usage::{Quantity, Usage};

/// Longest id of a line; a longer one is cut to its first bytes.
const LINE_ID_BYTES_MAX: usize = 256;

/// The tier of everything in a batch.
const TIER: &str = "batch";

// === the object ===

mod object_id {
    pub(super) const ID: u8 = 1;
    pub(super) const FILE: u8 = 2;
    pub(super) const ERROR: u8 = 3;
    pub(super) const BATCH: u8 = 4;
}

const KEYS: [(&str, Node); 6] = [
    ("id", Node::scalar(object_id::ID)),
    // xAI.
    ("batch_id", Node::scalar(object_id::ID)),
    ("output_file_id", Node::scalar(object_id::FILE)),
    ("error_file_id", Node::scalar(object_id::FILE)),
    // Mistral.
    ("output_file", Node::scalar(object_id::FILE)),
    ("error_file", Node::scalar(object_id::FILE)),
];

static ENTRY_KEYS: [(&str, Node); 6] = KEYS;

static ENTRY: Node = Node::object(&ENTRY_KEYS).marked(object_id::BATCH);

static OBJECT_KEYS: [(&str, Node); 8] = {
    let [id, batch_id, output, error, mistral_output, mistral_error] = KEYS;
    [
        id,
        batch_id,
        output,
        error,
        mistral_output,
        mistral_error,
        ("data", Node::array(&ENTRY)),
        ("error", Node::whole(object_id::ERROR)),
    ]
};

static OBJECT: Node = Node::object(&OBJECT_KEYS).marked(object_id::BATCH);

/// A name without its collection, which Google puts before it.
pub(super) fn bare_name(name: &str) -> &str {
    ["batches/", "files/"].into_iter().find_map(|collection| name.strip_prefix(collection)).unwrap_or(name)
}

/// Most batches of one list, and files of one batch; providers list a hundred.
const BATCHES_MAX: usize = 256;
const FILES_MAX: usize = 4;

/// A batch as it is made or looked at, or a list of them.
#[derive(Debug, Default)]
pub(super) struct BatchObject {
    id: Held,
    files: Vec<Label>,
    batches: Vec<BatchNames>,
    error: bool,
}

impl Sink for BatchObject {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        match id {
            object_id::ID => self.id.first_text(raw),
            object_id::FILE if self.files.len() < FILES_MAX => {
                self.files.extend(text_of(raw).and_then(|text| Label::lossy(bare_name(&text))));
            }
            object_id::ERROR => self.error |= is_present(raw),
            _ => {}
        }
    }

    fn close(&mut self, _id: u8, _at: u64, _items: u64) {
        let files = std::mem::take(&mut self.files);
        let batch = text_of(self.id.bytes()).and_then(|text| Label::lossy(bare_name(&text)));
        self.id.clear();
        if let Some(batch) = batch
            && self.batches.len() < BATCHES_MAX
        {
            self.batches.push(BatchNames { batch, files });
        }
    }
}

impl Shape for BatchObject {
    const PLAIN: &'static Node = &OBJECT;
    const EVENT: &'static Node = &OBJECT;

    fn end_event(&mut self, _name: &[u8], _data: Data) {}

    fn error(&mut self) {
        self.error = true;
    }

    fn gather(&mut self, _context: &Context<'_>) -> Gathered {
        let batches = std::mem::take(&mut self.batches);
        Gathered { batches, error: self.error, ..Gathered::nothing() }
    }
}

// === the results ===

/// What is wanted of a line; Google's operations use ids of their own beside these.
pub(super) mod line_id {
    pub(in crate::usage) const ID: u8 = 1;
    pub(in crate::usage) const OWN_ID: u8 = 2;
    pub(in crate::usage) const CUSTOM_ID: u8 = 3;
    pub(in crate::usage) const MODEL: u8 = 4;
    pub(in crate::usage) const OBJECT: u8 = 5;
    pub(in crate::usage) const USAGE: u8 = 6;
    pub(in crate::usage) const MESSAGE_USAGE: u8 = 7;
    pub(in crate::usage) const LINE: u8 = 8;
    pub(in crate::usage) const ERROR: u8 = 9;
    pub(in crate::usage) const ITEM_TYPE: u8 = 10;
    pub(in crate::usage) const BREAKDOWN: u8 = 11;
    pub(in crate::usage) const GOOGLE_USAGE: u8 = 12;
    pub(in crate::usage) const EMBEDDED_TOKENS: u8 = 13;
    pub(in crate::usage) const EMBEDDING: u8 = 14;
    pub(in crate::usage) const QUERIES: u8 = 15;
    pub(in crate::usage) const TEXT: u8 = 16;
    pub(in crate::usage) const ACTION: u8 = 17;
    pub(in crate::usage) const ITEM: u8 = 18;
}

/// An item of a response's output.
static ITEM: Node = Node::object(&[
    ("type", Node::scalar(line_id::ITEM_TYPE)),
    ("action", Node::object(&[("type", Node::scalar(line_id::ACTION))])),
])
.marked(line_id::ITEM);

static REPLY_KEYS: [(&str, Node); 6] = [
    ("id", Node::scalar(line_id::ID)),
    ("model", Node::scalar(line_id::MODEL)),
    ("object", Node::scalar(line_id::OBJECT)),
    ("usage", Node::whole(line_id::USAGE)),
    ("output", Node::array(&ITEM)),
    ("usage_breakdown", Node::whole(line_id::BREAKDOWN)),
];

const REPLY: Node = Node::object(&REPLY_KEYS);

/// A reply with its status around it, or Google's by itself.
static RESPONSE_KEYS: [(&str, Node); 7] = {
    let [id, model, usage, tokens, embedding, candidates] = gemini::BATCH_REPLY_KEYS;
    [("body", REPLY), id, model, usage, tokens, embedding, candidates]
};

/// One line of OpenAI's, Anthropic's or Google's results.
static LINE: Node = Node::object(&[
    ("id", Node::scalar(line_id::OWN_ID)),
    ("custom_id", Node::scalar(line_id::CUSTOM_ID)),
    ("key", Node::scalar(line_id::CUSTOM_ID)),
    ("response", Node::object(&RESPONSE_KEYS)),
    (
        "result",
        Node::object(&[(
            "message",
            Node::object(&[
                ("id", Node::scalar(line_id::ID)),
                ("model", Node::scalar(line_id::MODEL)),
                ("usage", Node::whole(line_id::MESSAGE_USAGE)),
            ]),
        )]),
    ),
]);

/// One result in xAI's list.
static RESULT: Node = Node::object(&[
    ("batch_request_id", Node::scalar(line_id::CUSTOM_ID)),
    (
        "batch_result",
        Node::object(&[(
            "response",
            Node::object(&[("chat_get_completion", REPLY), ("image_generation", REPLY), ("response", REPLY)]),
        )]),
    ),
])
.marked(line_id::LINE);

static LIST: Node =
    Node::object(&[("results", Node::array(&RESULT)), ("error", Node::whole(line_id::ERROR))]);

/// What one line says.
#[derive(Debug, Default)]
struct Line {
    id: Held,
    own_id: Held,
    custom_id: Held,
    model: Held,
    object: Held,
    usage: Held,
    message_usage: Held,
    google_usage: Held,
    embedded_tokens: Option<u64>,
    is_embedding: bool,
    has_text: bool,
    breakdown: Held,
    searches: u64,
    /// Of the item under way: whether it searched the web.
    is_search_tool: bool,
    is_other_action: bool,
    /// Whether the searches stand beside Google's usage.
    has_queries: bool,
}

/// What a line used.
struct Used {
    usage: Usage,
    by_model: Vec<ModelUsage>,
    region: Option<Label>,
    charge: Option<Money>,
}

/// The results of a batch.
#[derive(Debug)]
pub(super) struct Results {
    flavour: &'static Flavour,
    line: Line,
    lines: Box<BatchLines>,
    /// Lines that ended so far, those that used nothing included.
    ended: u64,
    /// The usage objects; none once they are more than a record shows.
    raw: Vec<Vec<u8>>,
    raw_bytes: usize,
    seen: bool,
    error: bool,
    anomalies: Anomalies,
}

impl Results {
    /// Results of a provider with these deviations.
    pub(super) fn new(flavour: &'static Flavour) -> Self {
        Self {
            flavour,
            line: Line::default(),
            lines: Box::default(),
            ended: 0,
            raw: Vec::new(),
            raw_bytes: 0,
            seen: false,
            error: false,
            anomalies: Anomalies::default(),
        }
    }

    /// Takes over what the line that just ended says.
    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let number = self.ended;
        self.ended = self.ended.saturating_add(1);
        let Some(used) = self.read(&line) else { return };
        let Used { usage, by_model, region, charge } = used;
        self.seen = true;
        let (model, id) = (line.model.name(), line.id(number));
        let (model, region) = (model.as_ref(), region.as_ref());
        let kept = self.lines.push(&BatchLine { id: &id, model, region, usage, by_model, charge });
        if kept == Kept::Full {
            self.anomalies.insert(Anomaly::MeteringCapped);
        }
        let raw = [&line.usage, &line.message_usage, &line.google_usage];
        if let Some(raw) = raw.into_iter().find(|raw| !raw.is_empty()) {
            self.keep_raw(raw.bytes());
        }
    }

    /// Forgets what the line that just ended says.
    pub(super) fn drop_line(&mut self) {
        self.line = Line::default();
    }

    /// Whether a line used something.
    pub(super) const fn has_lines(&self) -> bool {
        self.seen
    }

    /// Gives the lines without a model this one.
    pub(super) fn name_model(&mut self, model: Option<&Label>) {
        if model.is_none() || !self.lines.iter().any(|line| line.model.is_none()) {
            return;
        }
        let mut named = Box::<BatchLines>::default();
        for line in self.lines.iter() {
            let kept = named.push(&BatchLine { model: line.model.or(model), ..line });
            if kept == Kept::Full {
                self.anomalies.insert(Anomaly::MeteringCapped);
            }
        }
        self.lines = named;
    }

    fn keep_raw(&mut self, raw: &[u8]) {
        // With the commas and brackets of an array.
        self.raw_bytes = self.raw_bytes.saturating_add(raw.len()).saturating_add(1);
        if self.raw_bytes < RAW_BYTES_MAX {
            self.raw.push(raw.to_vec());
        } else {
            self.raw.clear();
        }
    }

    /// What the line used; nothing when it used nothing.
    fn read(&mut self, line: &Line) -> Option<Used> {
        if !line.message_usage.is_empty() {
            let read = read_message_usage(line.message_usage.bytes(), &mut self.anomalies);
            return Some(Used { usage: read.usage, by_model: read.by_model, region: read.geo, charge: None });
        }
        if let Some(usage) = self.read_google(line) {
            return Some(Used { usage, by_model: Vec::new(), region: None, charge: None });
        }
        if line.usage.is_empty() {
            return None;
        }
        let kind = match line.object.bytes() {
            b"\"response\"" => Kind::Response,
            b"\"list\"" => Kind::Embedding,
            _ => Kind::Completion,
        };
        let context = Context {
            flavour: self.flavour,
            kind,
            stream: false,
            closed: true,
            cached_header: None,
            input_header: None,
        };
        let read = read_usage(line.usage.bytes(), &context, &mut self.anomalies);
        let mut usage = read.usage;
        let items = Some(line.searches).filter(|searches| *searches > 0);
        let searches = read.searches.or(items).or_else(|| self.always_searches(line).then_some(1));
        if let Some(searches) = searches {
            usage.set_quantity(Quantity::WebSearchRequests, searches);
        }
        let by_model = read_breakdown(line.breakdown.bytes(), &context, &mut self.anomalies);
        Some(Used { usage, by_model, region: None, charge: read.charge })
    }

    /// Whether the line is of a chat with a model that searches for every call and does not say so.
    fn always_searches(&self, line: &Line) -> bool {
        let is_chat = self.flavour.charge == Charge::None && line.object.bytes() == b"\"chat.completion\"";
        is_chat && text_of(line.model.bytes()).is_some_and(|model| is_search_model(&model))
    }

    /// What a line with Google's reply used; nothing when it is none, or used nothing.
    fn read_google(&mut self, line: &Line) -> Option<Usage> {
        let mut counts = match line.embedded_tokens {
            _ if !line.google_usage.is_empty() => Counts::of(line.google_usage.bytes()),
            Some(input) => Counts::of_embedding(input),
            None => return None,
        };
        if line.is_embedding {
            counts = counts.without_output();
        }
        counts.answered = line.has_text;
        let mut usage = counts.usage(&mut self.anomalies);
        if line.has_queries {
            usage.set_quantity(Quantity::WebSearchRequests, line.searches);
        }
        Some(usage)
    }
}

impl Line {
    /// The reply's own id, or one that is unique in these results and marked so: what the client called the
    /// request, or for Google's replies without either the line's number.
    fn id(&self, number: u64) -> String {
        let own = [&self.id, &self.own_id].into_iter().find_map(|held| text_of(held.bytes()));
        let own = own.map(std::borrow::Cow::into_owned);
        let is_google = self.embedded_tokens.is_some() || !self.google_usage.is_empty();
        let mut id = own
            .or_else(|| text_of(self.custom_id.bytes()).map(|custom| format!("{LOCAL_ID}{custom}")))
            .or_else(|| is_google.then(|| format!("{LOCAL_ID}{LOCAL_ID}{number}")))
            .unwrap_or_default();
        let mut end = id.len().min(LINE_ID_BYTES_MAX);
        while !id.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        id.truncate(end);
        id
    }
}

impl Sink for Results {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        let is_object = raw.first() == Some(&b'{');
        match id {
            line_id::ID => self.line.id.first_text(raw),
            line_id::OWN_ID => self.line.own_id.first_text(raw),
            line_id::CUSTOM_ID => self.line.custom_id.first_text(raw),
            line_id::MODEL => self.line.model.text(raw),
            line_id::OBJECT => self.line.object.text(raw),
            line_id::USAGE if is_object => self.line.usage.raw(raw),
            line_id::MESSAGE_USAGE if is_object => self.line.message_usage.raw(raw),
            line_id::ITEM_TYPE => self.line.is_search_tool = raw == b"\"web_search_call\"",
            line_id::ACTION => self.line.is_other_action = raw != b"\"search\"",
            line_id::BREAKDOWN if is_object => self.line.breakdown.raw(raw),
            line_id::ERROR => self.error |= is_present(raw),
            line_id::GOOGLE_USAGE if is_object => self.line.google_usage.raw(raw),
            line_id::EMBEDDED_TOKENS => {
                // Google writes numbers of 64 bits as strings.
                let digits = text_of(raw).map_or(raw.into(), |text| text.into_owned().into_bytes());
                self.line.embedded_tokens = number::count(&digits, &mut self.anomalies);
                self.line.is_embedding = true;
            }
            _ => {}
        }
    }

    fn text(&mut self, _id: u8, raw: &[u8]) {
        self.line.has_text |= !raw.is_empty();
    }

    fn other_kind(&mut self, id: u8) {
        self.line.is_embedding |= id == line_id::EMBEDDING;
    }

    fn too_long(&mut self, _id: u8) {
        self.anomalies.insert(Anomaly::MeteringCapped);
    }

    fn close(&mut self, id: u8, _at: u64, items: u64) {
        match id {
            line_id::LINE => self.end_line(),
            line_id::ITEM => {
                let is_tool = std::mem::take(&mut self.line.is_search_tool);
                let is_other = std::mem::take(&mut self.line.is_other_action);
                self.line.searches = self.line.searches.saturating_add(u64::from(is_tool && !is_other));
            }
            line_id::QUERIES => {
                self.line.has_queries = true;
                self.line.searches = self.line.searches.saturating_add(items);
            }
            _ => {}
        }
    }
}

impl Shape for Results {
    const PLAIN: &'static Node = &LIST;
    const EVENT: &'static Node = &LINE;

    fn end_event(&mut self, _name: &[u8], data: Data) {
        if data == Data::Whole {
            self.end_line();
        } else {
            self.drop_line();
        }
    }

    fn error(&mut self) {
        self.error = true;
    }

    fn gather(&mut self, _context: &Context<'_>) -> Gathered {
        let sum = sum(self.lines.iter());
        Gathered {
            model: sum.model,
            tier: self.seen.then(|| Label::fixed(TIER)),
            inference_geo: sum.region,
            usage: sum.usage,
            by_model: sum.by_model,
            raw: std::mem::take(&mut self.raw),
            charge: sum.charge,
            // The body has no end of its own: whatever is there whole counts.
            progress: Progress::Finished,
            error: self.error,
            lines: self.seen.then(|| std::mem::take(&mut self.lines)),
            anomalies: self.anomalies,
            ..Gathered::nothing()
        }
    }
}
