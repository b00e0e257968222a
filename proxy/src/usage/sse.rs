//! Server-sent event framing (WHATWG HTML §9.2.6): lines into fields, blank lines into events.
//!
//! Invariants
//! - LF, CR LF and CR end a line alike, wherever the slices are cut; a byte order mark is skipped.
//! - The data of an event is handed on as it comes and never collected, so an event of any size
//!   costs no memory. Several data lines are joined by a line feed.
//! - A field called `error`, which is no event field, is reported: some engines write their failures
//!   that way.
//!
//! Not here: what the data means (`openai`, `anthropic`), hiding events from a client (`hide`).

use memchr::memchr2;

const NAME_BYTES_MAX: usize = 32;
const FIELD_BYTES_MAX: usize = 8;

/// Receives the events.
pub trait Events {
    /// A piece of the current event's data.
    fn data(&mut self, piece: &[u8]);
    /// The event called `name` (empty when it has none) is over. `has_data` tells whether it had a
    /// data line.
    fn end(&mut self, name: &[u8], has_data: bool);
    /// A line `error: …` that is no event field.
    fn error_line(&mut self);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// At the start of a line, or inside the name of a field.
    Field,
    /// After `data:`; one space is skipped.
    DataStart,
    /// Inside data.
    Data,
    /// After `event:`; one space is skipped.
    NameStart,
    /// Inside the event's name.
    Name,
    /// In anything else.
    Other,
}

/// The framing machine.
#[derive(Debug)]
pub struct Sse {
    line: Line,
    field: [u8; FIELD_BYTES_MAX],
    field_len: usize,
    name: [u8; NAME_BYTES_MAX],
    name_len: usize,
    has_data: bool,
    dirty: bool,
    skip_line_feed: bool,
    mark: u8,
}

impl Default for Sse {
    fn default() -> Self {
        Self {
            line: Line::Field,
            field: [0; FIELD_BYTES_MAX],
            field_len: 0,
            name: [0; NAME_BYTES_MAX],
            name_len: 0,
            has_data: false,
            dirty: false,
            skip_line_feed: false,
            mark: 0,
        }
    }
}

impl Sse {
    /// Walks on over `bytes`.
    pub fn feed<E: Events>(&mut self, bytes: &[u8], events: &mut E) {
        let mut at = 0;
        while let Some(byte) = bytes.get(at).copied() {
            if self.skip_line_feed {
                self.skip_line_feed = false;
                if byte == b'\n' {
                    at += 1;
                    continue;
                }
            }
            if self.mark < 3 {
                if byte == [0xEF, 0xBB, 0xBF].get(usize::from(self.mark)).copied().unwrap_or_default() {
                    self.mark += 1;
                    at += 1;
                    continue;
                }
                self.mark = 3;
            }
            at = match self.line {
                Line::Field if self.field_len == 0 => self.line_start(bytes, at, events),
                Line::Field => self.field(byte, at, events),
                Line::DataStart | Line::NameStart => {
                    self.line = if self.line == Line::DataStart { Line::Data } else { Line::Name };
                    at + usize::from(byte == b' ')
                }
                Line::Data | Line::Name | Line::Other => self.rest_of_line(bytes, at, events),
            };
        }
    }

    /// The stream is over: an event without its blank line counts too, since some servers leave the
    /// last one out.
    pub fn finish<E: Events>(&mut self, events: &mut E) {
        if self.line == Line::Field && self.field_len != 0 {
            self.field_named(events);
        }
        if self.dirty {
            self.end_event(events);
        }
    }

    /// The common cases at once: whole `data: ` and `event: ` prefixes.
    fn line_start<E: Events>(&mut self, bytes: &[u8], at: usize, events: &mut E) -> usize {
        let rest = bytes.get(at..).unwrap_or_default();
        if rest.starts_with(b"data: ") {
            self.start_data(events);
            self.line = Line::Data;
            return self.rest_of_line(bytes, at + 6, events);
        }
        if rest.starts_with(b"event: ") {
            self.dirty = true;
            self.name_len = 0;
            self.line = Line::Name;
            return self.rest_of_line(bytes, at + 7, events);
        }
        self.field(rest.first().copied().unwrap_or(b'\n'), at, events)
    }

    fn field<E: Events>(&mut self, byte: u8, at: usize, events: &mut E) -> usize {
        match byte {
            b'\n' | b'\r' => {
                if self.field_len == 0 {
                    if self.dirty {
                        self.end_event(events);
                    }
                } else {
                    self.field_named(events);
                }
                self.end_line(byte);
            }
            b':' => self.field_named(events),
            _ => {
                if let Some(slot) = self.field.get_mut(self.field_len) {
                    *slot = byte;
                    self.field_len += 1;
                } else {
                    self.line = Line::Other;
                    self.dirty = true;
                }
            }
        }
        at + 1
    }

    fn field_named<E: Events>(&mut self, events: &mut E) {
        self.dirty |= self.field_len != 0;
        match self.field.get(..self.field_len) {
            Some(b"data") => {
                self.start_data(events);
                self.line = Line::DataStart;
            }
            Some(b"event") => {
                self.name_len = 0;
                self.line = Line::NameStart;
            }
            Some(b"error") => {
                events.error_line();
                self.line = Line::Other;
            }
            _ => self.line = Line::Other,
        }
    }

    fn start_data<E: Events>(&mut self, events: &mut E) {
        if self.has_data {
            events.data(b"\n");
        }
        self.has_data = true;
        self.dirty = true;
    }

    fn rest_of_line<E: Events>(&mut self, bytes: &[u8], at: usize, events: &mut E) -> usize {
        let rest = bytes.get(at..).unwrap_or_default();
        let end = memchr2(b'\n', b'\r', rest);
        let piece = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        match self.line {
            Line::Data if !piece.is_empty() => events.data(piece),
            Line::Name => {
                for byte in piece {
                    if let Some(slot) = self.name.get_mut(self.name_len) {
                        *slot = *byte;
                        self.name_len += 1;
                    }
                }
            }
            _ => {}
        }
        let Some(end) = end else { return bytes.len() };
        self.end_line(rest.get(end).copied().unwrap_or(b'\n'));
        at + end + 1
    }

    fn end_line(&mut self, byte: u8) {
        self.line = Line::Field;
        self.field_len = 0;
        self.skip_line_feed = byte == b'\r';
    }

    fn end_event<E: Events>(&mut self, events: &mut E) {
        let name = self.name;
        events.end(name.get(..self.name_len).unwrap_or_default(), self.has_data);
        self.name_len = 0;
        self.has_data = false;
        self.dirty = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default, Debug, PartialEq, Eq)]
    struct Seen {
        data: Vec<u8>,
        events: Vec<(String, Option<String>)>,
        errors: usize,
    }

    impl Events for Seen {
        fn data(&mut self, piece: &[u8]) {
            self.data.extend_from_slice(piece);
        }
        fn end(&mut self, name: &[u8], has_data: bool) {
            let data = String::from_utf8_lossy(&std::mem::take(&mut self.data)).into_owned();
            self.events.push((String::from_utf8_lossy(name).into_owned(), has_data.then_some(data)));
        }
        fn error_line(&mut self) {
            self.errors += 1;
        }
    }

    fn read(pieces: &[&[u8]]) -> Seen {
        let (mut sse, mut seen) = (Sse::default(), Seen::default());
        for piece in pieces {
            sse.feed(piece, &mut seen);
        }
        sse.finish(&mut seen);
        seen
    }

    fn check(stream: &str, expected: &[(&str, Option<&str>)]) {
        let whole = read(&[stream.as_bytes()]);
        let found: Vec<_> = whole.events.iter().map(|(n, d)| (n.as_str(), d.as_deref())).collect();
        assert_eq!(found, expected, "{stream:?}");
        for at in 0..=stream.len() {
            let (a, b) = stream.as_bytes().split_at(at);
            assert_eq!(read(&[a, b]), whole, "{stream:?} cut at {at}");
        }
        let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
        assert_eq!(read(&bytes), whole, "{stream:?} byte by byte");
    }

    #[test]
    fn every_line_end_separates_lines_and_events() {
        let expected = [("", Some("a")), ("x", Some("b"))];
        check("data: a\n\nevent: x\ndata: b\n\n", &expected);
        check("data: a\r\n\r\nevent: x\r\ndata: b\r\n\r\n", &expected);
        check("data: a\r\revent: x\rdata: b\r\r", &expected);
        check("data: a\r\n\nevent: x\n\rdata: b\n\r\n", &[("", Some("a")), ("x", None), ("", Some("b"))]);
    }

    #[test]
    fn the_space_after_the_colon_is_optional_and_only_one_is_taken() {
        check(
            "data:a\n\ndata:  b\n\ndata\n\ndata:\n\n",
            &[("", Some("a")), ("", Some(" b")), ("", Some("")), ("", Some(""))],
        );
    }

    #[test]
    fn data_lines_of_one_event_are_joined_by_line_feeds() {
        check("data: {\"a\":\ndata: 1\ndata: }\n\n", &[("", Some("{\"a\":\n1\n}"))]);
    }

    #[test]
    fn comments_ids_retries_and_unknown_fields_are_no_data() {
        check(": hello\nid: 7\nretry: 10\nsomething-long: x\ndata: a\n\n: bye\n\n", &[("", Some("a"))]);
    }

    #[test]
    fn a_byte_order_mark_is_skipped_at_the_start_only() {
        check("\u{feff}data: a\n\n", &[("", Some("a"))]);
        check("data: a\n\n\u{feff}data: b\n\n", &[("", Some("a")), ("", None)]);
    }

    #[test]
    fn an_event_name_may_follow_its_data() {
        check("data: a\nevent: x\n\n", &[("x", Some("a"))]);
    }

    #[test]
    fn an_event_without_its_blank_line_counts_at_the_end() {
        check("data: a\n\ndata: b\n", &[("", Some("a")), ("", Some("b"))]);
        check("data: a\n\ndata: b", &[("", Some("a")), ("", Some("b"))]);
    }

    #[test]
    fn an_error_line_is_reported() {
        for stream in ["error: {\"code\":500}\n\n", "error\n\n", "data: a\n\nerror: x"] {
            assert_eq!(read(&[stream.as_bytes()]).errors, 1, "{stream:?}");
        }
        assert_eq!(read(&[b"errors: x\n\nerro: y\n\ndata: error: z\n\n"]).errors, 0);
    }

    proptest! {
        #[test]
        fn slicing_never_changes_the_events(
            stream in "(data: ?[a-c]{0,3}|event: [xy]|:c|error: e|e|\u{feff}|(\r\n|\r|\n)){0,24}",
            sizes in prop::collection::vec(1_usize..5, 0..40),
        ) {
            let whole = read(&[stream.as_bytes()]);
            let mut rest = stream.as_bytes();
            let mut pieces = Vec::new();
            for size in sizes {
                let (piece, after) = rest.split_at(size.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            prop_assert_eq!(read(&pieces), whole);
        }
    }
}
