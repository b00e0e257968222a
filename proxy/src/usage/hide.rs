//! Hides the usage chunk from a client that did not ask for it: code that reads `choices[0]` of every
//! chunk breaks on the extra one.
//!
//! Invariants
//! - Exactly the events whose data has an empty `choices` and a `usage` that is not `null` are
//!   dropped, each with its terminating blank line. Every other byte passes unchanged.
//! - At most one incomplete event of at most [`HELD_BYTES_MAX`] is held back; a longer one passes, for
//!   it is no usage chunk.
//! - A frame without such an event passes uncopied.
//!
//! Not here: counting (`usage::ReplyMeter` reads the stream before it comes here).

use super::json::{Node, Scanner, Sink};
use super::sse::{Events, Sse};
use bytes::Bytes;
use memchr::{memchr2, memmem};

/// Most bytes of an incomplete event that are held back.
pub const HELD_BYTES_MAX: usize = 64 * 1024;

/// The filter. Use it only on a stream whose request was made to ask for usage.
#[derive(Debug, Default)]
pub struct HideUsage {
    held: Vec<Bytes>,
    held_bytes: usize,
    /// The current event is too long to be looked at and passes.
    passing: bool,
    /// The current line is empty so far.
    in_line: bool,
    /// The last byte was a CR that ended an event with this verdict: an LF belongs to it.
    after_return: Option<Verdict>,
    /// The last byte was a CR that ended a line within an event.
    line_return: bool,
    hidden: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    Drop,
}

impl HideUsage {
    /// A filter at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many usage chunks were hidden.
    #[must_use]
    pub fn hidden(&self) -> u64 {
        self.hidden
    }

    /// Takes a frame and adds what may be sent to `out`.
    pub fn push(&mut self, frame: Bytes, out: &mut Vec<Bytes>) {
        // Where the run of bytes that may be sent begins, and where the current event does.
        let (mut run, mut event, mut at) = (0, 0, 0);
        while at < frame.len() {
            let byte = frame.get(at).copied().unwrap_or_default();
            let line_feed = byte == b'\n';
            if let Some(verdict) = self.after_return.take()
                && line_feed
            {
                at += 1;
                if verdict == Verdict::Drop {
                    send(&frame, run, event, out);
                    run = at;
                }
                event = at;
                continue;
            }
            if std::mem::take(&mut self.line_return) && line_feed {
                at += 1;
                continue;
            }
            let Some(end) = frame.get(at..).and_then(|rest| memchr2(b'\n', b'\r', rest)).map(|n| at + n)
            else {
                self.in_line = true;
                break;
            };
            let blank = !self.in_line && end == at;
            let by_return = frame.get(end) == Some(&b'\r');
            self.in_line = false;
            at = end + 1;
            if !blank {
                self.line_return = by_return;
                continue;
            }
            let verdict = self.judge(frame.get(event..at).unwrap_or_default());
            if verdict == Verdict::Drop {
                self.hidden += 1;
                send(&frame, run, event, out);
                self.held.clear();
                run = at;
            } else {
                self.release(out);
            }
            self.held_bytes = 0;
            self.passing = false;
            event = at;
            self.after_return = by_return.then_some(verdict);
        }
        self.keep(&frame, run, event, out);
    }

    /// The stream is over: what is held is sent, unless it is a usage chunk that lacks only its blank
    /// line.
    pub fn finish(&mut self, out: &mut Vec<Bytes>) {
        if !self.held.is_empty() && self.judge(&[]) == Verdict::Drop {
            self.hidden += 1;
            self.held.clear();
        }
        self.release(out);
    }

    fn release(&mut self, out: &mut Vec<Bytes>) {
        out.append(&mut self.held);
        self.held_bytes = 0;
    }

    /// Sends the finished run and holds the rest of the frame back.
    fn keep(&mut self, frame: &Bytes, run: usize, event: usize, out: &mut Vec<Bytes>) {
        let rest = frame.len().saturating_sub(event);
        if self.passing || self.held_bytes.saturating_add(rest) > HELD_BYTES_MAX {
            self.passing = rest > 0 || self.passing;
            self.release(out);
            send(frame, run, frame.len(), out);
            return;
        }
        send(frame, run, event, out);
        if rest > 0 {
            self.held_bytes = self.held_bytes.saturating_add(rest);
            self.held.push(frame.slice(event..));
        }
    }

    /// The verdict on the event that ends with `last`, after what is held.
    fn judge(&self, last: &[u8]) -> Verdict {
        // The same for every slicing: an event over the limit passes even if it comes in one frame.
        if self.passing || self.held_bytes.saturating_add(last.len()) > HELD_BYTES_MAX {
            return Verdict::Pass;
        }
        if self.held.is_empty() {
            return judge(last);
        }
        let mut event = Vec::with_capacity(self.held_bytes.saturating_add(last.len()));
        for piece in &self.held {
            event.extend_from_slice(piece);
        }
        event.extend_from_slice(last);
        judge(&event)
    }
}

fn send(frame: &Bytes, from: usize, to: usize, out: &mut Vec<Bytes>) {
    if from < to && to <= frame.len() {
        out.push(frame.slice(from..to));
    }
}

mod id {
    pub(super) const CHOICES: u8 = 1;
    pub(super) const USAGE: u8 = 2;
}

static ANY: Node = Node::object(&[]);

static CHUNK: Node =
    Node::object(&[("choices", Node::array(&ANY).marked(id::CHOICES)), ("usage", Node::whole(id::USAGE))]);

#[derive(Debug, Default)]
struct Chunk {
    empty_choices: bool,
    usage: bool,
}

impl Sink for Chunk {
    fn value(&mut self, _id: u8, raw: &[u8], _at: u64) {
        self.usage = raw != b"null";
    }

    fn too_long(&mut self, _id: u8) {
        self.usage = true;
    }

    fn close(&mut self, _id: u8, _at: u64, items: u64) {
        self.empty_choices = items == 0;
    }
}

struct Reader {
    scanner: Scanner,
    chunk: Chunk,
}

impl Events for Reader {
    fn data(&mut self, piece: &[u8]) {
        self.scanner.feed(piece, &mut self.chunk);
    }
    fn end(&mut self, _name: &[u8], _has_data: bool) {}
    fn error_line(&mut self) {}
}

fn judge(event: &[u8]) -> Verdict {
    if !may_be_usage_chunk(event) {
        return Verdict::Pass;
    }
    let mut reader = Reader { scanner: Scanner::new(&CHUNK), chunk: Chunk::default() };
    Sse::default().feed(event, &mut reader);
    let Reader { scanner, chunk } = reader;
    if scanner.is_complete() && chunk.empty_choices && chunk.usage { Verdict::Drop } else { Verdict::Pass }
}

/// A cheap first look: an empty array after `"choices":` somewhere, or an escape or a second data
/// line that could hide one.
fn may_be_usage_chunk(event: &[u8]) -> bool {
    let mut rest = event;
    while let Some(found) = memmem::find(rest, b"choices\"") {
        rest = rest.get(found + 8..).unwrap_or_default();
        let mut next = rest.iter().copied().filter(|b| !b.is_ascii_whitespace());
        if next.next() == Some(b':') && next.next() == Some(b'[') && next.next() == Some(b']') {
            return true;
        }
    }
    let after_first = memmem::find(event, b"data:").and_then(|at| event.get(at + 5..)).unwrap_or_default();
    memmem::find(after_first, b"data:").is_some() || memmem::find(event, b"\\u00").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n";
    const USAGE: &str = "data: {\"id\":\"1\",\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n";
    const DONE: &str = "data: [DONE]\n\n";

    /// The rule, applied to a whole stream at once.
    fn reference(stream: &str) -> String {
        let mut out = String::new();
        let (mut event, mut line) = (String::new(), String::new());
        let mut chars = stream.chars().peekable();
        while let Some(c) = chars.next() {
            event.push(c);
            let ends = c == '\n' || c == '\r';
            if c == '\r' && chars.peek() == Some(&'\n') {
                event.push('\n');
                chars.next();
            }
            if !ends {
                line.push(c);
            } else if line.is_empty() {
                out.push_str(&shown(&event));
                event.clear();
            } else {
                line.clear();
            }
        }
        out.push_str(&shown(&event));
        out
    }

    fn shown(event: &str) -> String {
        let text = event.trim_start_matches('\u{feff}').replace("\r\n", "\n").replace('\r', "\n");
        let data: Vec<&str> = text
            .lines()
            .filter_map(|l| l.strip_prefix("data:"))
            .map(|l| l.strip_prefix(' ').unwrap_or(l))
            .collect();
        let hidden = serde_json::from_str::<serde_json::Value>(&data.join("\n")).is_ok_and(|value| {
            value.get("choices").and_then(|c| c.as_array()).is_some_and(Vec::is_empty)
                && value.get("usage").is_some_and(|usage| !usage.is_null())
        });
        if hidden { String::new() } else { event.to_owned() }
    }

    fn filter<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
        let (mut hide, mut out) = (HideUsage::new(), Vec::new());
        for piece in pieces {
            hide.push(Bytes::copy_from_slice(piece), &mut out);
        }
        hide.finish(&mut out);
        String::from_utf8(out.iter().flat_map(|b| b.to_vec()).collect()).unwrap()
    }

    fn check(stream: &str, expected: &str) {
        assert_eq!(reference(stream), expected, "reference for {stream:?}");
        for at in 0..=stream.len() {
            let (a, b) = stream.as_bytes().split_at(at);
            assert_eq!(filter([a, b]), expected, "{stream:?} cut at {at}");
        }
        for size in [1, 2, 3, 7, 17, 10_000] {
            assert_eq!(filter(stream.as_bytes().chunks(size)), expected, "{stream:?} in pieces of {size}");
        }
    }

    #[test]
    fn only_the_usage_chunk_is_dropped() {
        check(&format!("{TEXT}{USAGE}{DONE}"), &format!("{TEXT}{DONE}"));
        check(&format!("{TEXT}{DONE}"), &format!("{TEXT}{DONE}"));
    }

    #[test]
    fn every_line_end_and_spacing_is_understood() {
        for ends in ["\r\n", "\r"] {
            let (text, usage, done) =
                (TEXT.replace('\n', ends), USAGE.replace('\n', ends), DONE.replace('\n', ends));
            check(&format!("{text}{usage}{done}"), &format!("{text}{done}"));
        }
        check("data:{ \"usage\" : {} , \"choices\" : [ ] }\n\ndata: x\n\n", "data: x\n\n");
        check(": note\nevent: e\ndata: {\"choices\":\ndata: [],\"usage\":{}}\nid: 1\n\n", "");
        check("\u{feff}data: {\"choices\":[],\"usage\":{}}\n\n", "");
        check("data: {\"choices\":[],\"us\\u0061ge\":{}}\n\n", "");
    }

    #[test]
    fn chunks_that_only_look_like_usage_pass() {
        for stream in [
            "data: {\"choices\":[],\"prompt_filter_results\":[{}]}\n\n",
            "data: {\"choices\":[],\"usage\":null}\n\n",
            "data: {\"choices\":[{}],\"usage\":{}}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"choices\\\":[],\\\"usage\\\":{}\"}}]}\n\n",
            "data: {\"x\":{\"choices\":[],\"usage\":{}}}\n\n",
            "data: {\"choices\":[],\"usage\":{}\n\n",
            "\n\n\r\n: keep-alive\n\n",
        ] {
            check(stream, stream);
        }
    }

    #[test]
    fn an_unfinished_end_is_sent_unless_it_is_a_usage_chunk() {
        check(&format!("{TEXT}data: {{\"choi"), &format!("{TEXT}data: {{\"choi"));
        check(&format!("{TEXT}{}", USAGE.trim_end()), TEXT);
    }

    #[test]
    fn an_event_longer_than_the_limit_passes_at_once_and_the_next_is_judged_again() {
        let long =
            format!("data: {{\"choices\":[],\"usage\":{{\"x\":\"{}\"}}}}\n\n", "y".repeat(HELD_BYTES_MAX));
        let (mut hide, mut out) = (HideUsage::new(), Vec::new());
        for piece in long.as_bytes().chunks(1_000) {
            hide.push(Bytes::copy_from_slice(piece), &mut out);
            assert!(hide.held_bytes <= HELD_BYTES_MAX);
        }
        hide.push(Bytes::from_static(USAGE.as_bytes()), &mut out);
        hide.finish(&mut out);
        let text: Vec<u8> = out.iter().flat_map(|b| b.to_vec()).collect();
        assert!(text == long.as_bytes());
        assert_eq!(hide.hidden(), 1);
    }

    #[test]
    fn a_frame_without_a_usage_chunk_is_not_copied() {
        let frame = Bytes::from(format!("{TEXT}{TEXT}"));
        let (mut hide, mut out) = (HideUsage::new(), Vec::new());
        hide.push(frame.clone(), &mut out);
        assert_eq!(out, vec![frame.clone()]);
        assert_eq!(out.first().map(|b| b.as_ptr()), Some(frame.as_ptr()));
    }

    proptest! {
        #[test]
        fn any_slicing_gives_what_the_rule_gives(
            parts in prop::collection::vec(
                prop_oneof![
                    Just(TEXT.to_owned()), Just(USAGE.to_owned()), Just(DONE.to_owned()),
                    Just(TEXT.replace('\n', "\r\n")), Just(USAGE.replace('\n', "\r\n")), Just(USAGE.replace('\n', "\r")),
                    Just("\n".to_owned()), Just("\r".to_owned()), Just(": c\n".to_owned()), Just("data: {".to_owned()),
                ], 0..8),
            sizes in prop::collection::vec(1_usize..60, 1..20),
        ) {
            let stream = parts.concat();
            let mut rest = stream.as_bytes();
            let mut pieces = Vec::new();
            for size in sizes.iter().cycle() {
                if rest.is_empty() { break; }
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            prop_assert_eq!(filter(pieces), reference(&stream));
        }
    }
}
