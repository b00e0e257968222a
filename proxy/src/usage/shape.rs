//! What every reply shape has in common: what it offers to the meter, and the small texts it holds.
//!
//! Invariants
//! - In the steady state of a stream nothing is allocated: a text that comes again is compared, not
//!   stored again.
//!
//! Not here: the shapes (`openai`, `anthropic`, `gemini`).

use super::flavour::Flavour;
use super::json::{Node, Sink, has_figures, is_present, text_of};
use super::text::PassedText;
use bursar_domain::batch::{BatchLines, BatchNames};
use bursar_domain::event::{Anomalies, ModelUsage, Outcome};
use bursar_domain::ids::Label;
use bursar_domain::money::Money;
use bursar_domain::usage::Usage;
use smallvec::SmallVec;
use std::cell::RefCell;

/// Longest raw text that is held for a label; a longer one names nothing.
const TEXT_BYTES_MAX: usize = 4 * 1024;

/// One reply shape: a sink for the walker that knows what the values mean.
pub(super) trait Shape: Sink {
    /// What is wanted from a whole body.
    const PLAIN: &'static Node;
    /// What is wanted from the data of one event.
    const EVENT: &'static Node;
    /// What is wanted from a stream that is one array, where there is such: its elements are marked
    /// as [`super::elements::ELEMENT`].
    const ARRAY: Option<&'static Node> = None;
    /// Events larger than this are read like any other but marked.
    const EVENT_BYTES_MAX: u64 = super::EVENT_BYTES_MAX;

    /// The event called `name` is over.
    fn end_event(&mut self, name: &[u8], data: Data);

    /// Whether the event that was just read, but is not over, would change nothing but its text if it
    /// came again with another text in the same place.
    fn is_text_alone(&self) -> bool {
        false
    }

    /// Such an event came again, with the text `raw` where `id` stands for it.
    fn again(&mut self, id: u8, raw: &[u8]) {
        self.text(id, raw);
    }

    /// The stream reported an error outside an event's data.
    fn error(&mut self);

    /// The text that passed, where the shape knows text.
    fn passed(&mut self) -> Option<&mut PassedText> {
        None
    }

    /// What was found, when the reply is over.
    fn gather(&mut self, context: &Context<'_>) -> Gathered;
}

/// What the data of an event was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// `[DONE]`.
    Done,
    /// A complete JSON document.
    Whole,
    /// Nothing, or no complete document: such an event ends nothing.
    Partial,
}

/// What a shape needs to know besides the body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) flavour: &'static Flavour,
    pub(super) kind: Kind,
    /// Whether the body was a stream of events.
    pub(super) stream: bool,
    /// Whether the body was one complete document.
    pub(super) closed: bool,
    /// Cached input tokens from a header.
    pub(super) cached_header: Option<&'a [u8]>,
    /// Input tokens from a header.
    pub(super) input_header: Option<&'a [u8]>,
}

/// Which counts an OpenAI-shaped usage object holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Prompt and completion of chat or legacy completions.
    Completion,
    /// Input and output of responses.
    Response,
    /// Input only.
    Embedding,
    /// Input and an output that is images.
    Image,
    /// Input of audio, output of text.
    Transcript,
    /// Input of text, output of audio.
    Speech,
}

/// How far a stream came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Its terminal event was not seen.
    Open,
    /// No terminal event, but a choice finished: enough when the body ended by itself.
    Finished,
    /// The terminal event was seen.
    Closed,
}

/// What a shape found in a reply.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) id: Option<Label>,
    pub(super) model: Option<Label>,
    pub(super) tier: Option<Label>,
    pub(super) inference_geo: Option<Label>,
    pub(super) speed: Option<Label>,
    pub(super) usage: Usage,
    /// Whether the usage is the final one.
    pub(super) is_final: bool,
    pub(super) by_model: Vec<ModelUsage>,
    /// The usage objects as sent, in order.
    pub(super) raw: Vec<Vec<u8>>,
    pub(super) charge: Option<Money>,
    pub(super) progress: Progress,
    /// An error was reported in the body.
    pub(super) error: bool,
    /// What the provider says about its own reply.
    pub(super) state: Option<Outcome>,
    /// Whether the reply is a background one, to be fetched later; `None` where it does not say.
    pub(super) background: Option<bool>,
    /// The reply is the result of a batch, one part for each request of it.
    pub(super) lines: Option<Box<BatchLines>>,
    /// The reply is about batches: their names.
    pub(super) batches: Vec<BatchNames>,
    pub(super) anomalies: Anomalies,
}

impl Gathered {
    /// Nothing was found.
    pub(super) fn nothing() -> Self {
        Self {
            id: None,
            model: None,
            tier: None,
            inference_geo: None,
            speed: None,
            usage: Usage::unknown(),
            is_final: true,
            by_model: Vec::new(),
            raw: Vec::new(),
            charge: None,
            progress: Progress::Open,
            error: false,
            state: None,
            background: None,
            lines: None,
            batches: Vec::new(),
            anomalies: Anomalies::default(),
        }
    }
}

/// A raw JSON value that may come many times and is nearly always the same.
#[derive(Debug, Default)]
pub(super) struct Held(SmallVec<[u8; 48]>);

impl Held {
    /// Takes a JSON string that is not empty; the last one stays.
    pub(super) fn text(&mut self, raw: &[u8]) {
        if raw.first() == Some(&b'"') && is_present(raw) && raw.len() <= TEXT_BYTES_MAX {
            self.raw(raw);
        }
    }

    /// Takes a JSON string that is not empty; the first one stays.
    pub(super) fn first_text(&mut self, raw: &[u8]) {
        if self.0.is_empty() {
            self.text(raw);
        }
    }

    /// Takes any value.
    pub(super) fn raw(&mut self, raw: &[u8]) {
        if self.0.as_slice() != raw {
            self.0.clear();
            self.0.extend_from_slice(raw);
        }
    }

    /// Takes an object of figures; one without any does not replace one that has some.
    pub(super) fn figures(&mut self, raw: &[u8]) -> bool {
        let takes = has_figures(raw) || (raw.first() == Some(&b'{') && self.0.is_empty());
        if takes {
            self.raw(raw);
        }
        takes
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn label(&self) -> Option<Label> {
        text_of(&self.0).and_then(|text| Label::lossy(&text))
    }

    /// The label of a text that comes again and again, such as a model's name.
    pub(super) fn name(&self) -> Option<Label> {
        text_of(&self.0).and_then(|text| known_name(&text))
    }

    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0).into_vec()
    }
}

/// Names that are remembered per thread.
const NAMES: usize = 64;

thread_local! {
    static KNOWN_NAMES: RefCell<[Option<Label>; NAMES]> = const { RefCell::new([const { None }; NAMES]) };
}

/// The label of `text`: the same one as last time, where it is still remembered.
fn known_name(text: &str) -> Option<Label> {
    let place =
        text.bytes().fold(text.len(), |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
    KNOWN_NAMES.with_borrow_mut(|names| {
        let slot = names.get_mut(place % NAMES)?;
        if let Some(label) = slot.as_ref().filter(|label| label.as_str() == text) {
            return Some(label.clone());
        }
        *slot = Label::lossy(text);
        slot.clone()
    })
}
