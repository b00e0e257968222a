//! A stream as one JSON array: its elements are its events.
//!
//! Invariants
//! - Elements are shown to their shape as they pass and never collected.
//! - The array's end is the stream's: one that is cut is told from one that is over.
//!
//! Not here: walking JSON (`json`), what an element means (the shapes).

use super::json::Sink;
use super::shape::{Data, Shape};

/// The mark of an element; a shape's own marks are others.
pub(super) const ELEMENT: u8 = u8::MAX;

/// Shows an array to its shape, element by element.
pub(super) struct Elements<'s, S>(pub(super) &'s mut S);

impl<S: Shape> Sink for Elements<'_, S> {
    fn value(&mut self, id: u8, raw: &[u8], at: u64) {
        self.0.value(id, raw, at);
    }

    fn text(&mut self, id: u8, raw: &[u8]) {
        self.0.text(id, raw);
    }

    fn too_long(&mut self, id: u8) {
        self.0.too_long(id);
    }

    fn open(&mut self, id: u8, at: u64) {
        if id != ELEMENT {
            self.0.open(id, at);
        }
    }

    fn close(&mut self, id: u8, at: u64, items: u64) {
        if id == ELEMENT {
            self.0.end_event(b"", Data::Whole);
        } else {
            self.0.close(id, at, items);
        }
    }

    fn other_kind(&mut self, id: u8) {
        self.0.other_kind(id);
    }

    fn duplicate(&mut self) {
        self.0.duplicate();
    }
}
