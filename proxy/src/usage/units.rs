//! Replies that are billed by something else than a chat's tokens: images, transcriptions, speech,
//! ranking, documents; one document or a short stream.
//!
//! Rules
//! - A transcription is billed by tokens or by seconds, as its usage says; where it has none, its own
//!   `duration` is the length.
//! - Images are counted: by the entries of a document, by the completed ones of a stream. Of Imagen's
//!   predictions those that a filter kept back have no media type and are not charged.
//! - Ranking is billed by search units (Cohere and who hosts it) or by tokens (all others).
//!
//! Not here: the usage object (`openai`), Cohere's units (`cohere`), sound itself, which tells nothing.

use super::cohere::read_units;
use super::json::{Node, Sink, is_present};
use super::number;
use super::openai::read_usage;
use super::shape::{Context, Data, Gathered, Held, Kind, Progress, Shape};
use bursar_domain::event::{Anomalies, Anomaly};
use bursar_domain::usage::{Quantity, Usage};

mod id {
    pub(super) const MODEL: u8 = 1;
    pub(super) const USAGE: u8 = 2;
    pub(super) const UNITS: u8 = 3;
    pub(super) const PAGES: u8 = 4;
    pub(super) const DATA: u8 = 5;
    pub(super) const DURATION: u8 = 6;
    pub(super) const TYPE: u8 = 7;
    pub(super) const ERROR: u8 = 8;
    pub(super) const TIER: u8 = 9;
    pub(super) const PREDICTIONS: u8 = 10;
    pub(super) const MADE: u8 = 11;
}

static ANY: Node = Node::object(&[]);

static PREDICTION: Node = Node::object(&[("mimeType", Node::scalar(id::MADE))]);

static DOCUMENT: Node = Node::object(&[
    ("type", Node::scalar(id::TYPE)),
    ("model", Node::scalar(id::MODEL)),
    ("data", Node::array(&ANY).marked(id::DATA)),
    ("predictions", Node::array(&PREDICTION).marked(id::PREDICTIONS)),
    ("duration", Node::scalar(id::DURATION)),
    ("usage", Node::whole(id::USAGE)),
    ("meta", Node::whole(id::UNITS)),
    ("usage_info", Node::object(&[("pages_processed", Node::scalar(id::PAGES))])),
    ("service_tier", Node::scalar(id::TIER)),
    ("error", Node::whole(id::ERROR)),
]);

/// A reply with a usage object at its end.
#[derive(Debug, Default)]
pub(super) struct Units {
    model: Held,
    tier: Held,
    usage: Held,
    units: Held,
    pages: Held,
    duration: Held,
    kind: Held,
    entries: Option<u64>,
    /// Predictions that hold an image.
    made: u64,
    completed: u64,
    closed: bool,
    error: bool,
    anomalies: Anomalies,
}

impl Sink for Units {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        match id {
            id::MODEL => self.model.text(raw),
            id::TIER => self.tier.text(raw),
            id::USAGE => drop(self.usage.figures(raw)),
            id::UNITS if raw.first() == Some(&b'{') => self.units.raw(raw),
            id::PAGES => self.pages.raw(raw),
            id::DURATION => self.duration.raw(raw),
            id::TYPE => self.kind.raw(raw),
            id::ERROR => self.error |= is_present(raw),
            id::MADE => self.made += u64::from(is_present(raw)),
            _ => {}
        }
    }

    fn too_long(&mut self, _id: u8) {
        self.anomalies.insert(Anomaly::MeteringCapped);
    }

    fn close(&mut self, id: u8, _at: u64, items: u64) {
        self.entries = Some(if id == id::PREDICTIONS { self.made } else { items });
    }

    fn duplicate(&mut self) {
        self.anomalies.insert(Anomaly::MalformedReply);
    }
}

impl Units {
    /// What is billed beside tokens.
    fn quantities(&self, context: &Context<'_>, usage: &mut Usage, anomalies: &mut Anomalies) {
        if let Some(pages) = number::count(self.pages.bytes(), anomalies) {
            usage.set_quantity(Quantity::Pages, pages);
        }
        let images = if context.stream { Some(self.completed).filter(|n| *n > 0) } else { self.entries };
        if let Some(images) = images.filter(|_| context.kind == Kind::Image) {
            usage.set_quantity(Quantity::Images, images);
        }
        let unmeasured = !usage.has_tokens() && usage.quantity(Quantity::AudioMillis).is_none();
        if context.kind == Kind::Transcript
            && unmeasured
            && let Some(millis) = number::millis(self.duration.bytes())
        {
            usage.set_quantity(Quantity::AudioMillis, millis);
        }
    }
}

impl Shape for Units {
    const PLAIN: &'static Node = &DOCUMENT;
    const EVENT: &'static Node = &DOCUMENT;

    fn end_event(&mut self, name: &[u8], data: Data) {
        let kind = match self.kind.bytes() {
            [b'"', kind @ .., b'"'] => kind,
            _ => name,
        };
        match (kind, data) {
            (_, Data::Done) => self.closed = true,
            (b"error", _) => self.error = true,
            (b"image_generation.completed" | b"image_edit.completed", Data::Whole) => {
                self.completed = self.completed.saturating_add(1);
                self.closed = true;
            }
            (b"transcript.text.done" | b"speech.audio.done" | b"transcription.done", Data::Whole) => {
                self.closed = true;
            }
            _ => {}
        }
        self.error |= name == b"error";
        self.kind.clear();
    }

    fn error(&mut self) {
        self.error = true;
    }

    fn gather(&mut self, context: &Context<'_>) -> Gathered {
        let mut anomalies = self.anomalies;
        let read = read_usage(self.usage.bytes(), context, &mut anomalies);
        let mut usage = read.usage;
        usage.add(&read_units(self.units.bytes(), Kind::Response, &mut anomalies));
        self.quantities(context, &mut usage, &mut anomalies);
        let raw = [&mut self.usage, &mut self.units].map(Held::take);
        Gathered {
            model: self.model.name(),
            tier: self.tier.name().or(read.tier),
            usage,
            is_final: !context.stream || self.closed,
            raw: raw.into_iter().filter(|raw| !raw.is_empty()).collect(),
            charge: read.charge,
            progress: if self.closed { Progress::Closed } else { Progress::Open },
            error: self.error,
            anomalies,
            ..Gathered::nothing()
        }
    }
}
