//! Runs of OpenAI's assistants: started, polled or streamed.
//!
//! Rules
//! - The run's own usage counts, and it holds its steps': a stream sends one for each step and their
//!   sum with the run.
//! - It is `null` until the run has ended, and is repeated by every poll: once per id.
//!
//! Not here: framing (`sse`), the usage object (`openai`).

use super::json::{Node, Sink, is_present};
use super::openai::read_usage;
use super::shape::{Context, Data, Gathered, Held, Progress, Shape};
use bursar_domain::event::{Anomalies, Anomaly, Outcome};

mod id {
    pub(super) const ID: u8 = 1;
    pub(super) const OBJECT: u8 = 2;
    pub(super) const MODEL: u8 = 3;
    pub(super) const STATUS: u8 = 4;
    pub(super) const USAGE: u8 = 5;
    pub(super) const ERROR: u8 = 6;
}

static RUN: Node = Node::object(&[
    ("id", Node::scalar(id::ID)),
    ("object", Node::scalar(id::OBJECT)),
    ("model", Node::scalar(id::MODEL)),
    ("status", Node::scalar(id::STATUS)),
    ("usage", Node::whole(id::USAGE)),
    ("error", Node::whole(id::ERROR)),
]);

/// One object of a stream, or the whole of a poll.
#[derive(Debug, Default)]
struct Object {
    id: Held,
    kind: Held,
    model: Held,
    usage: Held,
    status: Option<Outcome>,
}

/// A run of an assistant.
#[derive(Debug, Default)]
pub(super) struct Run {
    current: Object,
    run: Object,
    done: bool,
    error: bool,
    anomalies: Anomalies,
}

impl Sink for Run {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        match id {
            id::ID => self.current.id.text(raw),
            id::OBJECT => self.current.kind.raw(raw),
            id::MODEL => self.current.model.text(raw),
            id::USAGE => drop(self.current.usage.figures(raw)),
            id::STATUS => self.current.status = outcome_of(raw),
            id::ERROR => self.error |= is_present(raw),
            _ => {}
        }
    }

    fn too_long(&mut self, _id: u8) {
        self.anomalies.insert(Anomaly::MeteringCapped);
    }

    fn duplicate(&mut self) {
        self.anomalies.insert(Anomaly::MalformedReply);
    }
}

/// What a run's status says of it; one that goes on says nothing.
fn outcome_of(status: &[u8]) -> Option<Outcome> {
    match status {
        b"\"failed\"" => Some(Outcome::Failed),
        b"\"incomplete\"" | b"\"cancelled\"" | b"\"expired\"" => Some(Outcome::Incomplete),
        _ => None,
    }
}

impl Run {
    /// Takes over what the object that just ended says, if it is the run.
    fn adopt(&mut self) {
        let current = std::mem::take(&mut self.current);
        if current.kind.bytes() != b"\"thread.run\"" {
            return;
        }
        let run = &mut self.run;
        for (held, newer) in
            [(&mut run.id, &current.id), (&mut run.model, &current.model), (&mut run.usage, &current.usage)]
        {
            if !newer.is_empty() {
                held.raw(newer.bytes());
            }
        }
        run.status = current.status;
    }
}

impl Shape for Run {
    const PLAIN: &'static Node = &RUN;
    const EVENT: &'static Node = &RUN;

    fn end_event(&mut self, name: &[u8], data: Data) {
        self.done |= data == Data::Done;
        self.error |= name == b"error";
        if data == Data::Whole {
            self.adopt();
        } else {
            self.current = Object::default();
        }
    }

    fn error(&mut self) {
        self.error = true;
    }

    fn gather(&mut self, context: &Context<'_>) -> Gathered {
        if !context.stream {
            self.adopt();
        }
        let mut anomalies = self.anomalies;
        let read = read_usage(self.run.usage.bytes(), context, &mut anomalies);
        let raw = if self.run.usage.is_empty() { Vec::new() } else { vec![self.run.usage.take()] };
        Gathered {
            id: self.run.id.label(),
            model: self.run.model.name(),
            usage: read.usage,
            raw,
            progress: if self.done { Progress::Closed } else { Progress::Open },
            error: self.error,
            state: self.run.status,
            anomalies,
            ..Gathered::nothing()
        }
    }
}
