//! A WebSocket session: which parts of it are billed, and what each of them used.
//!
//! Invariants
//! - A part is told once, when its usage is there or when the session ends without it.
//! - Every session has at least one part: a session in which nothing was billed has one that never
//!   counts, and one that could not be read to its end has one that says so.
//! - How the bytes of a side are cut never changes what is read.
//!
//! Not here: frames (`websocket`), the two shapes (`realtime`, `bidi`), the record of a part
//! (`crate::session`).

use super::bidi::Live;
use super::flavour::Flavour;
use super::json::{Node, Scanner, Sink};
use super::model_name::is_same_model;
use super::realtime::Realtime;
use super::shape::Held;
use super::websocket::{FrameError, Frames, Messages, Side};
use super::{Api, Ending, Reading, raw_text};
use bursar_domain::event::{Anomalies, Anomaly, Metering, Outcome};
use bursar_domain::ids::Label;
use bursar_domain::time::Timestamp;
use bursar_domain::usage::{Usage, UsageSource};
use std::collections::VecDeque;

/// Most responses of a session that are under way at once; a further one is read when it is done but
/// has no start.
pub(super) const OPEN_MAX: usize = 16;

/// Something in a session that is billed for itself: a response, a turn, a transcription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it used.
    pub reading: Reading,
    /// The model it was asked of.
    pub model_requested: Option<Label>,
    /// When it began, if that could be seen.
    pub started_at: Option<Timestamp>,
    /// When its first output came.
    pub first_output_at: Option<Timestamp>,
}

/// A part that has begun and whose usage has not come.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) id: Option<Label>,
    pub(super) started_at: Timestamp,
    pub(super) first_output_at: Option<Timestamp>,
}

/// What a shape found at the end of a message.
#[derive(Debug)]
pub(super) struct Billed {
    pub(super) id: Option<Label>,
    pub(super) model_served: Option<Label>,
    pub(super) model_requested: Option<Label>,
    /// Whether another model than the session's is billed, although nobody says which.
    pub(super) is_others: bool,
    pub(super) tier: Option<Label>,
    pub(super) outcome: Outcome,
    pub(super) usage: Usage,
    /// Whether the provider told a usage.
    pub(super) is_told: bool,
    pub(super) raw: Vec<u8>,
    pub(super) anomalies: Anomalies,
    /// What is known of its beginning.
    pub(super) open: Option<Open>,
}

/// Reads one session.
#[derive(Debug)]
pub struct SessionMeter {
    server: Frames,
    client: Frames,
    talk: Talk,
    setup: Option<Box<Setup>>,
}

/// What the server says.
#[derive(Debug)]
struct Talk {
    flavour: &'static Flavour,
    /// The model that the session was asked of.
    requested: Option<Label>,
    scanner: Scanner,
    shape: Shape,
    /// The first byte of the message being read: what does not begin like an object is none of ours
    /// (raw audio).
    first: Option<u8>,
    now: Timestamp,
    parts: VecDeque<Part>,
    told: bool,
    anomalies: Anomalies,
    is_cut: bool,
    closed_by: Option<Close>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Close {
    side: Side,
    code: Option<u16>,
}

#[derive(Debug)]
enum Shape {
    Realtime(Box<Realtime>),
    Live(Box<Live>),
}

/// What the client says first, where that names the model (Gemini).
#[derive(Debug)]
struct Setup {
    scanner: Scanner,
    model: SetupModel,
}

#[derive(Debug, Default)]
struct SetupModel(Held);

static SETUP: Node = Node::object(&[("setup", Node::object(&[("model", Node::scalar(1))]))]);

impl Sink for SetupModel {
    fn value(&mut self, _id: u8, raw: &[u8], _at: u64) {
        self.0.text(raw);
    }
}

impl SessionMeter {
    /// A meter for a session of `api` that has just begun, asked of the model `requested` as far as the
    /// handshake says.
    #[must_use]
    pub fn new(api: Api, flavour: &'static Flavour, requested: Option<Label>) -> Self {
        let (root, shape, setup) = match api {
            Api::Live => {
                let setup = Setup { scanner: Scanner::new(&SETUP), model: SetupModel::default() };
                (Live::MESSAGE, Shape::Live(Box::default()), Some(Box::new(setup)))
            }
            _ => (Realtime::MESSAGE, Shape::Realtime(Box::new(Realtime::new(flavour))), None),
        };
        let mut client = Frames::new(Side::Client);
        if setup.is_none() {
            client.hide_data();
        }
        let talk = Talk {
            flavour,
            requested,
            scanner: Scanner::new(root),
            shape,
            first: None,
            now: Timestamp::default(),
            parts: VecDeque::new(),
            told: false,
            anomalies: Anomalies::default(),
            is_cut: false,
            closed_by: None,
        };
        Self { server: Frames::new(Side::Server), client, talk, setup }
    }

    /// Reads on in what the server sends, at `now`.
    pub fn server_says(&mut self, bytes: &[u8], now: Timestamp) {
        self.talk.now = now;
        self.server.feed(bytes, &mut self.talk);
    }

    /// Reads on in what the client sends.
    pub fn client_says(&mut self, bytes: &[u8]) {
        let mut hearing = Hearing { setup: &mut self.setup, talk: &mut self.talk, is_over: false };
        self.client.feed(bytes, &mut hearing);
        if hearing.is_over {
            self.client.hide_data();
        }
    }

    /// The next part whose usage has come.
    pub fn next_part(&mut self) -> Option<Part> {
        self.talk.parts.pop_front()
    }

    /// The provider's own id of the session, once it was told.
    #[must_use]
    pub fn session_id(&self) -> Option<Label> {
        match &self.talk.shape {
            Shape::Realtime(shape) => shape.session_id(),
            Shape::Live(shape) => shape.session_id(),
        }
    }

    /// Ends the session: the parts that are left. Those that never got their usage say so.
    #[must_use]
    pub fn finish(self, ending: Ending) -> Vec<Part> {
        let mut talk = self.talk;
        let mut parts: Vec<Part> = talk.parts.drain(..).collect();
        if let Some(error) = self.server.error() {
            // Compressed messages are none that this meter reads; everything else is no WebSocket.
            talk.anomalies.insert(match error {
                FrameError::Reserved => Anomaly::MeteringCapped,
                _ => Anomaly::MalformedReply,
            });
        }
        let open = match &mut talk.shape {
            Shape::Realtime(shape) => shape.take_open(),
            Shape::Live(shape) => shape.take_open(),
        };
        let outcome = talk.cut_outcome(ending);
        for open in open {
            let reading = Reading { outcome, metering: Metering::Count, ..talk.unread() };
            parts.push(Part {
                reading: Reading { meter_id: open.id, ..reading },
                model_requested: talk.requested.clone(),
                started_at: Some(open.started_at),
                first_output_at: open.first_output_at,
            });
        }
        let is_doubtful = !talk.anomalies.is_empty();
        if is_doubtful || (parts.is_empty() && !talk.told) {
            // Something may have been billed and not be seen, or nothing was billed at all.
            let metering = if is_doubtful { Metering::Count } else { Metering::Never };
            let outcome = talk.session_outcome(ending);
            let reading = Reading { outcome, metering, ..talk.unread() };
            let model_requested = talk.requested.clone();
            parts.push(Part { reading, model_requested, started_at: None, first_output_at: None });
        }
        parts
    }
}

impl Talk {
    fn bill(&mut self, billed: Billed) {
        let Billed {
            id,
            model_served,
            model_requested,
            is_others,
            tier,
            outcome,
            usage,
            is_told,
            raw,
            open,
            ..
        } = billed;
        let mut anomalies = std::mem::take(&mut self.anomalies);
        anomalies.extend(billed.anomalies);
        let model_requested = model_requested.or_else(|| self.requested.clone().filter(|_| !is_others));
        if let (Some(requested), Some(served)) = (&model_requested, &model_served)
            && !self.flavour.own_model_names
            && !is_same_model(requested.as_str(), served.as_str())
        {
            anomalies.insert(Anomaly::ServedModelDiffers);
        }
        self.told = true;
        self.parts.push_back(Part {
            reading: Reading {
                outcome,
                metering: Metering::Count,
                usage,
                usage_source: if is_told { UsageSource::Provider } else { UsageSource::Absent },
                usage_raw: if raw.is_empty() { None } else { raw_text(&[raw]) },
                model_served,
                tier,
                meter_id: id,
                stream: true,
                anomalies,
                ..Reading::nothing()
            },
            model_requested,
            started_at: open.as_ref().map(|open| open.started_at),
            first_output_at: open.and_then(|open| open.first_output_at),
        });
    }

    /// The reading of a part whose usage never came; takes what is to be noted.
    fn unread(&mut self) -> Reading {
        let anomalies = std::mem::take(&mut self.anomalies);
        let model_served = match &self.shape {
            Shape::Realtime(shape) => shape.model(),
            Shape::Live(_) => None,
        };
        Reading { model_served, stream: true, anomalies, ..Reading::nothing() }
    }

    /// How a part ended that was under way when the session did.
    fn cut_outcome(&self, ending: Ending) -> Outcome {
        match (self.closed_by.map(|close| close.side), ending) {
            (Some(Side::Client), _) | (None, Ending::ClientAbort) => Outcome::Aborted,
            (Some(Side::Server), _) | (None, Ending::UpstreamCut | Ending::Complete) => {
                Outcome::ErrorMidstream
            }
        }
    }

    /// How the session itself ended. 1000 and 1001 are the codes of a normal end (RFC 6455 §7.4.1).
    fn session_outcome(&self, ending: Ending) -> Outcome {
        match (self.closed_by, ending) {
            (Some(Close { side: Side::Server, code: Some(code) }), _) if !matches!(code, 1000 | 1001) => {
                Outcome::Error
            }
            (Some(_), _) | (None, Ending::Complete) => Outcome::Ok,
            (None, Ending::UpstreamCut) => Outcome::ErrorMidstream,
            (None, Ending::ClientAbort) => Outcome::Aborted,
        }
    }
}

impl Messages for Talk {
    fn data(&mut self, piece: &[u8]) {
        let Self { scanner, shape, first, .. } = self;
        *first = first.or(piece.first().copied());
        if *first != Some(b'{') {
            return;
        }
        match shape {
            Shape::Realtime(shape) => scanner.feed(piece, shape.as_mut()),
            Shape::Live(shape) => scanner.feed(piece, shape.as_mut()),
        }
    }

    fn end(&mut self) {
        let is_object = self.first.take() == Some(b'{');
        let is_whole = self.scanner.is_complete() && !self.is_cut;
        if is_object && !is_whole && !self.is_cut {
            self.anomalies.insert(Anomaly::MalformedReply);
        }
        let billed = match &mut self.shape {
            Shape::Realtime(shape) => shape.end_message(is_whole, self.now),
            Shape::Live(shape) => shape.end_message(is_whole, self.now),
        };
        self.scanner.reset();
        self.is_cut = false;
        if let Some(billed) = billed {
            self.bill(billed);
        }
    }

    fn too_long(&mut self) {
        self.is_cut = true;
        self.anomalies.insert(Anomaly::MeteringCapped);
    }

    fn close(&mut self, code: Option<u16>) {
        self.closed_by.get_or_insert(Close { side: Side::Server, code });
    }
}

/// The client's messages: its first one may name the model, its close ends the session.
struct Hearing<'a> {
    setup: &'a mut Option<Box<Setup>>,
    talk: &'a mut Talk,
    is_over: bool,
}

impl Messages for Hearing<'_> {
    fn data(&mut self, piece: &[u8]) {
        if let Some(setup) = self.setup.as_mut().filter(|_| !self.is_over) {
            setup.scanner.feed(piece, &mut setup.model);
        }
    }

    fn end(&mut self) {
        self.is_over = true;
        let Some(setup) = self.setup.take() else { return };
        let name = setup.model.0.label();
        let name = name.as_ref().and_then(|name| name.as_str().rsplit('/').next()).and_then(Label::lossy);
        self.talk.requested = name.or(self.talk.requested.take());
    }

    fn too_long(&mut self) {}

    fn close(&mut self, code: Option<u16>) {
        self.talk.closed_by.get_or_insert(Close { side: Side::Client, code });
    }
}

#[cfg(test)]
mod tests;
