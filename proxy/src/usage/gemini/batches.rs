//! Google's batches: an operation that tells how far one is, and holds its results or names their file.
//!
//! Rules
//! - The operation of a batch whose requests came inline holds their results, in the order of the requests;
//!   that of a batch of a file names the file with them. Results stand in what the operation answers
//!   (`response`), in the output of its metadata, or in both: the first list that has any counts.
//! - A list of operations names batches and files. Results in it count when their batch is read itself,
//!   since a list does not say whose they are.
//! - An embedding does not name its model; the batch does, where it is in the same body.
//! - Names lose their collection: `batches/1` and `files/batch-1` are `1` and `batch-1`, as in paths.
//!
//! Sources: the Gemini API's reference of batches (`GenerateContentBatch`, `EmbedContentBatch`, `Operation`)
//! and the `google-genai` SDK, which reads `metadata.output`.
//!
//! Not here: what one result means (`batch`), what the numbers mean (`counts`).

use crate::usage::batch::{Results, bare_name, line_id};
use crate::usage::flavour::Flavour;
use crate::usage::json::{Node, Sink, text_of};
use crate::usage::shape::{Context, Data, Gathered, Held, Progress, Shape};
use bursar_domain::batch::BatchNames;
use bursar_domain::ids::Label;

/// What is only in operations; results have the ids of a line.
mod id {
    pub(super) const NAME: u8 = 64;
    pub(super) const MODEL: u8 = 65;
    pub(super) const FILE: u8 = 66;
    pub(super) const LIST: u8 = 67;
    pub(super) const OPERATION: u8 = 68;
}

static QUERY: Node = Node::object(&[]);
static PART: Node = Node::object(&[("text", Node::text(line_id::TEXT))]);
static CANDIDATE: Node = Node::object(&[
    ("content", Node::object(&[("parts", Node::array(&PART))])),
    (
        "groundingMetadata",
        Node::object(&[("webSearchQueries", Node::array(&QUERY).marked(line_id::QUERIES))]),
    ),
]);

/// What is wanted of one reply, generated content or an embedding.
pub(in crate::usage) const REPLY_KEYS: [(&str, Node); 6] = [
    ("responseId", Node::scalar(line_id::ID)),
    ("modelVersion", Node::scalar(line_id::MODEL)),
    ("usageMetadata", Node::whole(line_id::GOOGLE_USAGE)),
    ("tokenCount", Node::scalar(line_id::EMBEDDED_TOKENS)),
    ("embedding", Node::object(&[]).marked(line_id::EMBEDDING)),
    ("candidates", Node::array(&CANDIDATE)),
];

/// A result that stands inline.
static RESULT: Node = Node::object(&[
    ("metadata", Node::object(&[("key", Node::scalar(line_id::CUSTOM_ID))])),
    ("response", Node::object(&REPLY_KEYS)),
])
.marked(line_id::LINE);

const LIST: Node = Node::array(&RESULT).marked(id::LIST);

/// The list has a list of the same name in it; a body that leaves one out means the same.
const RESULTS: Node =
    Node::object(&[("inlinedResponses", LIST), ("inlinedEmbedContentResponses", LIST)]).or_array(&RESULT);

const OUTPUT_KEYS: [(&str, Node); 3] = [
    ("responsesFile", Node::scalar(id::FILE)),
    ("inlinedResponses", RESULTS.marked(id::LIST)),
    ("inlinedEmbedContentResponses", RESULTS.marked(id::LIST)),
];

static OPERATION: Node = Node::object(&[
    ("name", Node::scalar(id::NAME)),
    ("metadata", Node::object(&[("model", Node::scalar(id::MODEL)), ("output", Node::object(&OUTPUT_KEYS))])),
    ("response", {
        static KEYS: [(&str, Node); 4] = {
            let [file, content, embeddings] = OUTPUT_KEYS;
            [file, content, embeddings, ("output", Node::object(&OUTPUT_KEYS))]
        };
        Node::object(&KEYS)
    }),
    ("operations", Node::array(&LISTED)),
])
.marked(id::OPERATION);

/// One of a list of operations.
static LISTED: Node = Node::object(&[
    ("name", Node::scalar(id::NAME)),
    ("metadata", Node::object(&[("output", NAMED)])),
    ("response", NAMED),
])
.marked(id::OPERATION);

const NAMED: Node = Node::object(&[("responsesFile", Node::scalar(id::FILE))]);

/// Most batches of one list; Google lists at most a hundred.
const BATCHES_MAX: usize = 256;
/// Most files of one batch; it has one, which two places may name.
const FILES_MAX: usize = 4;

/// A batch as it is made or looked at, or a list of them.
#[derive(Debug)]
pub(in crate::usage) struct Operation {
    results: Results,
    name: Held,
    model: Held,
    files: Vec<Label>,
    batches: Vec<BatchNames>,
    /// Whether an earlier list had results.
    repeats: bool,
}

impl Operation {
    /// A batch of a provider with these deviations.
    pub(in crate::usage) fn new(flavour: &'static Flavour) -> Self {
        Self {
            results: Results::new(flavour),
            name: Held::default(),
            model: Held::default(),
            files: Vec::new(),
            batches: Vec::new(),
            repeats: false,
        }
    }

    /// Takes over the names of the operation that just ended.
    fn end_operation(&mut self) {
        let files = std::mem::take(&mut self.files);
        let batch = text_of(self.name.bytes()).and_then(|name| Label::lossy(bare_name(&name)));
        self.name.clear();
        if let Some(batch) = batch
            && self.batches.len() < BATCHES_MAX
        {
            self.batches.push(BatchNames { batch, files });
        }
    }

    fn add_file(&mut self, raw: &[u8]) {
        let file = text_of(raw).and_then(|name| Label::lossy(bare_name(&name)));
        if let Some(file) = file.filter(|file| !self.files.contains(file))
            && self.files.len() < FILES_MAX
        {
            self.files.push(file);
        }
    }
}

impl Sink for Operation {
    fn value(&mut self, id: u8, raw: &[u8], at: u64) {
        match id {
            id::NAME => self.name.text(raw),
            id::MODEL => self.model.text(raw),
            id::FILE => self.add_file(raw),
            _ => self.results.value(id, raw, at),
        }
    }

    fn text(&mut self, id: u8, raw: &[u8]) {
        self.results.text(id, raw);
    }

    fn open(&mut self, id: u8, at: u64) {
        match id {
            // The outer of two lists opens before there is anything in the inner one.
            id::LIST => self.repeats = self.results.has_lines(),
            id::OPERATION => {}
            _ => self.results.open(id, at),
        }
    }

    fn other_kind(&mut self, id: u8) {
        self.results.other_kind(id);
    }

    fn close(&mut self, id: u8, at: u64, items: u64) {
        match id {
            id::LIST => {}
            id::OPERATION => self.end_operation(),
            line_id::LINE if self.repeats => self.results.drop_line(),
            _ => self.results.close(id, at, items),
        }
    }

    fn too_long(&mut self, id: u8) {
        self.results.too_long(id);
    }

    fn duplicate(&mut self) {
        self.results.duplicate();
    }
}

impl Shape for Operation {
    const PLAIN: &'static Node = &OPERATION;
    const EVENT: &'static Node = &OPERATION;

    fn end_event(&mut self, _name: &[u8], _data: Data) {}

    fn error(&mut self) {
        self.results.error();
    }

    fn gather(&mut self, context: &Context<'_>) -> Gathered {
        let model = text_of(self.model.bytes())
            .and_then(|name| Label::lossy(name.strip_prefix("models/").unwrap_or(&name)));
        self.results.name_model(model.as_ref());
        let batches = std::mem::take(&mut self.batches);
        Gathered { batches, progress: Progress::Open, ..self.results.gather(context) }
    }
}
