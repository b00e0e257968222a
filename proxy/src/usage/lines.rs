//! Framing of newline-delimited JSON: one document on each line.
//!
//! Invariants
//! - How the input is cut into slices never changes what is reported.
//! - A line is handed on as it comes and never collected, so a line of any size costs no memory.
//! - A blank line is no document; the last line needs no line end.
//!
//! Not here: what the documents mean (`cohere`, `ollama`, `batch`).

use super::sse::Events;
use memchr::memchr;

/// The framing machine.
#[derive(Debug, Default)]
pub struct Lines {
    /// Whether the line so far is more than white space.
    has_data: bool,
    /// Lines that ended so far.
    count: u64,
}

impl Lines {
    /// Walks on over `bytes`.
    pub fn feed<E: Events>(&mut self, mut bytes: &[u8], events: &mut E) {
        while let Some(end) = memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(end);
            self.piece(line, events);
            self.end(events);
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.piece(bytes, events);
    }

    /// Nothing more comes: a line without its end counts too.
    pub fn finish<E: Events>(&mut self, events: &mut E) {
        self.end(events);
    }

    /// How many lines were documents so far.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    fn piece<E: Events>(&mut self, mut piece: &[u8], events: &mut E) {
        if !self.has_data {
            // White space before a document is no part of it, wherever it is cut.
            piece = piece.trim_ascii_start();
        }
        if !piece.is_empty() {
            self.has_data = true;
            events.data(piece);
        }
    }

    fn end<E: Events>(&mut self, events: &mut E) {
        if std::mem::take(&mut self.has_data) {
            self.count = self.count.saturating_add(1);
            events.end(b"", true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default, Debug, PartialEq, Eq)]
    struct Seen {
        line: Vec<u8>,
        lines: Vec<String>,
    }

    impl Events for Seen {
        fn data(&mut self, piece: &[u8]) {
            self.line.extend_from_slice(piece);
        }
        fn end(&mut self, _name: &[u8], _has_data: bool) {
            let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
            self.lines.push(line);
        }
        fn error_line(&mut self) {}
    }

    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let (mut lines, mut seen) = (Lines::default(), Seen::default());
        for piece in pieces {
            lines.feed(piece, &mut seen);
        }
        lines.finish(&mut seen);
        assert_eq!(lines.count(), seen.lines.len() as u64);
        seen.lines
    }

    fn check(body: &str, expected: &[&str]) {
        assert_eq!(read([body.as_bytes()]), expected, "{body:?}");
        for at in 0..=body.len() {
            let (a, b) = body.as_bytes().split_at(at);
            assert_eq!(read([a, b]), expected, "{body:?} cut at {at}");
        }
    }

    #[test]
    fn each_line_is_a_document() {
        check("{}\n[1]\n", &["{}", "[1]"]);
        check("{\"a\":\n1}\n", &["{\"a\":", "1}"]);
    }

    #[test]
    fn blank_lines_and_a_missing_last_line_end_change_nothing() {
        check("\n \r\n{}\r\n\r\n\t{}", &["{}\r", "{}"]);
        check("", &[]);
        check("  \n\n ", &[]);
    }

    proptest! {
        #[test]
        fn slicing_never_changes_the_lines(
            body in "(\\{\\}|a| |\t|\r?\n){0,24}",
            sizes in prop::collection::vec(1_usize..5, 0..40),
        ) {
            let mut rest = body.as_bytes();
            let mut pieces = Vec::new();
            for size in sizes {
                let (piece, after) = rest.split_at(size.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            prop_assert_eq!(read(pieces), read([body.as_bytes()]));
        }
    }
}
