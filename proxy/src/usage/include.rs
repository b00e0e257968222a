//! Asks for usage in a stream on the client's behalf: sets `stream_options.include_usage` in a chat
//! request without collecting it.
//!
//! Invariants
//! - The length is known in advance: the streamed body grows by exactly [`BUDGET`] bytes, whatever it
//!   turns out to be. What is not used is JSON white space.
//! - Everything else passes byte for byte; frames that are not touched pass uncopied.
//! - Only a stream is asked for usage: `stream` must be `true`. A client that asked itself is left
//!   alone.
//!
//! Limit: in a streamed body `"stream_options": null` *before* `"stream": true` cannot be replaced any
//! more when `stream` is read; such a request is left alone. A body in memory has no such limit.
//!
//! Not here: hiding the chunk that then comes (`hide`).

use super::json::{Node, Scanner, Sink};
use bytes::{Bytes, BytesMut};

/// Bytes by which a streamed body grows: the length of the longest insertion.
pub const BUDGET: usize = MEMBER.len();

const MEMBER: &[u8] = br#","stream_options":{"include_usage":true}"#;
const FIRST: &[u8] = br#""include_usage":true"#;
const NEXT: &[u8] = br#","include_usage":true"#;
const OBJECT: &[u8] = br#"{"include_usage":true}"#;
static SPACES: [u8; BUDGET] = [b' '; BUDGET];

mod id {
    pub(super) const ROOT: u8 = 1;
    pub(super) const STREAM: u8 = 2;
    pub(super) const OPTIONS: u8 = 3;
    pub(super) const INCLUDE_USAGE: u8 = 4;
}

static BODY: Node = Node::object(&[
    ("stream", Node::scalar(id::STREAM)),
    (
        "stream_options",
        Node::object(&[("include_usage", Node::scalar(id::INCLUDE_USAGE))])
            .marked(id::OPTIONS)
            .or_scalar(id::OPTIONS),
    ),
])
.marked(id::ROOT);

/// A replacement of `delete` bytes at `at`.
#[derive(Clone, Copy, Debug)]
struct Edit {
    at: u64,
    delete: u64,
    insert: &'static [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Nothing is sent before the whole body was read.
    Whole,
    /// What was read has been sent.
    Streamed,
}

/// Finds where to edit.
#[derive(Debug)]
struct Spots {
    mode: Mode,
    stream: bool,
    /// Whether the client asked itself.
    asked: bool,
    has_options: bool,
    has_include: bool,
    null_at: Option<u64>,
    edits: Vec<Edit>,
    grown: usize,
    asks: bool,
    closed: bool,
}

impl Spots {
    fn new(mode: Mode) -> Self {
        Self {
            mode,
            stream: false,
            asked: false,
            has_options: false,
            has_include: false,
            null_at: None,
            edits: Vec::new(),
            grown: 0,
            asks: false,
            closed: false,
        }
    }

    fn edit(&mut self, at: u64, delete: &[u8], insert: &'static [u8]) {
        let growth = insert.len().saturating_sub(delete.len());
        if self.grown.saturating_add(growth) > BUDGET {
            return;
        }
        self.grown = self.grown.saturating_add(growth);
        self.asks = true;
        self.edits.push(Edit { at, delete: delete.len() as u64, insert });
    }

    fn left(&self) -> &'static [u8] {
        SPACES.get(self.grown..).unwrap_or_default()
    }

    fn end(&mut self, at: u64) {
        if self.stream {
            match self.null_at {
                Some(null_at) => self.edit(null_at, b"null", OBJECT),
                None if !self.has_options => self.edit(at, b"", MEMBER),
                None => {}
            }
        }
        if self.mode == Mode::Streamed {
            self.edits.push(Edit { at, delete: 0, insert: self.left() });
        }
        self.closed = true;
    }
}

impl Sink for Spots {
    fn value(&mut self, id: u8, raw: &[u8], at: u64) {
        match (id, raw) {
            (id::STREAM, _) => self.stream = raw == b"true",
            (id::OPTIONS, b"null") => {
                self.has_options = true;
                match self.mode {
                    Mode::Whole => self.null_at = Some(at),
                    Mode::Streamed if self.stream => self.edit(at, raw, OBJECT),
                    Mode::Streamed => {}
                }
            }
            (id::OPTIONS, _) => self.has_options = true,
            (id::INCLUDE_USAGE, _) => {
                self.has_include = true;
                match raw {
                    b"true" => self.asked = true,
                    b"false" => self.edit(at, raw, b"true "),
                    b"null" => self.edit(at, raw, b"true"),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn open(&mut self, id: u8, _at: u64) {
        if id == id::OPTIONS {
            self.has_options = true;
            self.has_include = false;
            self.null_at = None;
        }
    }

    fn other_kind(&mut self, id: u8) {
        self.has_options |= id == id::OPTIONS;
    }

    fn close(&mut self, id: u8, at: u64, items: u64) {
        match id {
            id::OPTIONS if !self.has_include => {
                self.edit(at, b"", if items == 0 { FIRST } else { NEXT });
            }
            id::ROOT => self.end(at),
            _ => {}
        }
    }
}

/// A body in memory that now asks for usage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The new body.
    pub frames: Vec<Bytes>,
    /// Its length in bytes.
    pub length: u64,
}

/// Makes a body in memory ask for usage; `None` when it is to be sent as it is: no stream, asked
/// already, or no JSON.
#[must_use]
pub fn include_usage(frames: &[Bytes]) -> Option<Rewritten> {
    let mut scanner = Scanner::new(&BODY);
    let mut spots = Spots::new(Mode::Whole);
    for frame in frames {
        scanner.feed(frame, &mut spots);
    }
    if !scanner.is_complete() || !spots.stream || spots.asked || !spots.asks {
        return None;
    }
    spots.edits.sort_by_key(|edit| edit.at);
    let mut out = Vec::with_capacity(frames.len() + 2);
    let mut cursor = Cursor { at: 0 };
    for edit in &spots.edits {
        cursor.copy(frames, 0, edit.at, &mut out);
        out.push(Bytes::from_static(edit.insert));
        cursor.at = edit.at.saturating_add(edit.delete);
    }
    cursor.copy(frames, 0, scanner.offset(), &mut out);
    let length = out.iter().map(|frame| frame.len() as u64).sum();
    Some(Rewritten { frames: out, length })
}

/// How far a body has been sent.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) at: u64,
}

impl Cursor {
    /// Sends the bytes up to offset `to` from `pieces`, which begin at offset `from`.
    pub(super) fn copy(&mut self, pieces: &[Bytes], from: u64, to: u64, out: &mut Vec<Bytes>) {
        let mut begin = from;
        for piece in pieces {
            let end = begin.saturating_add(piece.len() as u64);
            let (first, last) = (self.at.clamp(begin, end), to.clamp(begin, end));
            if first < last {
                let within = |offset: u64| usize::try_from(offset.saturating_sub(begin)).unwrap_or(0);
                out.push(piece.slice(within(first)..within(last)));
            }
            begin = end;
        }
        self.at = self.at.max(to);
    }
}

/// Makes a passing body ask for usage. Announce `content-length + BUDGET`.
#[derive(Debug)]
pub struct IncludeUsage {
    scanner: Scanner,
    spots: Spots,
    cursor: Cursor,
    /// The beginning of a literal that may have to be replaced.
    held: Bytes,
}

/// Longest literal that could be replaced; a longer one need not be held back.
const LITERAL_BYTES_MAX: u64 = 5;

impl Default for IncludeUsage {
    fn default() -> Self {
        Self::new()
    }
}

impl IncludeUsage {
    /// A rewriter at the start of a body.
    #[must_use]
    pub fn new() -> Self {
        Self {
            scanner: Scanner::new(&BODY),
            spots: Spots::new(Mode::Streamed),
            cursor: Cursor { at: 0 },
            held: Bytes::new(),
        }
    }

    /// Takes a frame of the body and adds what can be sent to `out`.
    pub fn push(&mut self, frame: Bytes, out: &mut Vec<Bytes>) {
        let begin = self.cursor.at;
        self.scanner.feed(&frame, &mut self.spots);
        let end = self.scanner.offset();
        let ready = match self.scanner.open_literal() {
            Some(at) if end.saturating_sub(at) <= LITERAL_BYTES_MAX => at.max(begin),
            _ => end,
        };
        let pieces = [std::mem::take(&mut self.held), frame];
        for edit in std::mem::take(&mut self.spots.edits) {
            self.cursor.copy(&pieces, begin, edit.at, out);
            if !edit.insert.is_empty() {
                out.push(Bytes::from_static(edit.insert));
            }
            self.cursor.at = self.cursor.at.max(edit.at.saturating_add(edit.delete));
        }
        self.cursor.copy(&pieces, begin, ready, out);
        let mut held = Vec::new();
        Cursor { at: self.cursor.at }.copy(&pieces, begin, end, &mut held);
        self.held = match held.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => many
                .iter()
                .fold(BytesMut::new(), |mut all, piece| {
                    all.extend_from_slice(piece);
                    all
                })
                .freeze(),
        };
    }

    /// The body is over: sends what is left, so that the announced length holds even for a body that
    /// never closed. `true` when usage was asked for on the client's behalf.
    pub fn finish(&mut self, out: &mut Vec<Bytes>) -> bool {
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            out.push(held);
        }
        if !self.spots.closed {
            self.spots.closed = true;
            out.push(Bytes::from_static(self.spots.left()));
        }
        self.injected()
    }

    /// Whether usage was asked for on the client's behalf, as far as the body was read.
    #[must_use]
    pub fn injected(&self) -> bool {
        self.spots.asks && self.spots.stream && !self.spots.asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn join(frames: &[Bytes]) -> String {
        String::from_utf8(frames.iter().flat_map(|frame| frame.to_vec()).collect()).unwrap()
    }

    fn pieces(body: &str, size: usize) -> Vec<Bytes> {
        body.as_bytes().chunks(size.max(1)).map(Bytes::copy_from_slice).collect()
    }

    fn whole(body: &str, size: usize) -> Option<String> {
        include_usage(&pieces(body, size)).map(|new| {
            let text = join(&new.frames);
            assert_eq!(new.length, text.len() as u64);
            text
        })
    }

    fn streamed(frames: Vec<Bytes>) -> (String, bool) {
        let length: usize = frames.iter().map(Bytes::len).sum();
        let (mut rewriter, mut out) = (IncludeUsage::new(), Vec::new());
        for frame in frames {
            rewriter.push(frame, &mut out);
        }
        let injected = rewriter.finish(&mut out);
        let text = join(&out);
        assert_eq!(text.len(), length + BUDGET, "{text}");
        (text, injected)
    }

    /// `expected` is the whole rewriting; the streamed one must mean the same.
    fn check(body: &str, expected: Option<&str>) {
        for size in [1, 2, 3, 7, 17, body.len()] {
            assert_eq!(whole(body, size).as_deref(), expected, "{body} in pieces of {size}");
        }
        let means = serde_json::from_str::<Value>(expected.unwrap_or(body)).unwrap();
        for at in 0..=body.len() {
            let (a, b) = body.split_at(at);
            let frames = vec![Bytes::copy_from_slice(a.as_bytes()), Bytes::copy_from_slice(b.as_bytes())];
            let (text, injected) = streamed(frames);
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), means, "{text}");
            assert_eq!(injected, expected.is_some(), "{body}");
        }
        assert_eq!(serde_json::from_str::<Value>(&streamed(pieces(body, 1)).0).unwrap(), means);
    }

    #[test]
    fn a_stream_that_did_not_ask_is_made_to_ask() {
        check(
            r#"{"model":"m","stream":true}"#,
            Some(r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#),
        );
        check(
            "{\"stream\" : true , \"messages\":[{\"content\":\"}\\\"\"}] \n}\n",
            Some(
                "{\"stream\" : true , \"messages\":[{\"content\":\"}\\\"\"}] \n,\"stream_options\":{\"include_usage\":true}}\n",
            ),
        );
    }

    #[test]
    fn options_without_the_wish_get_it() {
        check(
            r#"{"stream":true,"stream_options":{}}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        );
        check(
            r#"{"stream":true,"stream_options":{"a":[{}]},"n":1}"#,
            Some(r#"{"stream":true,"stream_options":{"a":[{}],"include_usage":true},"n":1}"#),
        );
        check(
            r#"{"stream":true,"stream_options":{"include_usage":false}}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true }}"#),
        );
        check(
            r#"{"stream":true,"stream_options":{"include_usage":null}}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        );
        check(
            r#"{"stream":true,"stream_options":null,"n":1}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true},"n":1}"#),
        );
        check(
            r#"{"stream_options":{"a":1},"stream":true}"#,
            Some(r#"{"stream_options":{"a":1,"include_usage":true},"stream":true}"#),
        );
    }

    #[test]
    fn a_client_that_asked_and_a_request_without_a_stream_are_left_alone() {
        check(r#"{"stream":true,"stream_options":{"include_usage":true}}"#, None);
        check(r#"{"stream":false}"#, None);
        check(r#"{"stream":null,"stream_options":null}"#, None);
        check(r#"{"model":"m"}"#, None);
        check("{}", None);
        check("[]", None);
        check(r#"{"metadata":{"stream":true}}"#, None);
        check(r#"{"stream":true,"stream_options":[]}"#, None);
    }

    #[test]
    fn null_options_before_the_stream_are_replaced_only_in_memory() {
        let body = r#"{"stream_options":null,"stream":true}"#;
        let expected = r#"{"stream_options":{"include_usage":true},"stream":true}"#;
        assert_eq!(whole(body, 3).as_deref(), Some(expected));
        let (text, injected) = streamed(pieces(body, 3));
        assert_eq!(text.trim_end_matches([' ', '}']), body.trim_end_matches('}'));
        assert!(!injected);
    }

    #[test]
    fn a_body_that_never_closes_is_padded_at_its_end() {
        for body in [r#"{"stream":true"#, "", "no json", r#"{"stream":true,}"#, r#"{"stream":true,"a":"#] {
            let (text, injected) = streamed(pieces(body, 2));
            assert_eq!(text, format!("{body}{}", " ".repeat(BUDGET)));
            assert!(!injected);
            assert_eq!(whole(body, 2), None);
        }
    }

    #[test]
    fn untouched_frames_are_not_copied() {
        let frame = Bytes::from(format!(r#"{{"stream":true,"x":"{}""#, "y".repeat(1_000)));
        let (mut rewriter, mut out) = (IncludeUsage::new(), Vec::new());
        rewriter.push(frame.clone(), &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(out.first().map(|b| b.as_ptr()), Some(frame.as_ptr()));
    }

    fn member() -> impl Strategy<Value = (String, Value)> {
        prop_oneof![
            Just(("stream".to_owned(), json!(true))),
            any::<bool>().prop_map(|b| ("stream".to_owned(), json!(b))),
            prop_oneof![
                Just(json!(null)),
                Just(json!({})),
                Just(json!({"include_usage": false})),
                Just(json!({"include_usage": true, "x": 1})),
                Just(json!({"include_obfuscation": false})),
            ]
            .prop_map(|v| ("stream_options".to_owned(), v)),
            "[a-z\"\\\\{}]{0,6}".prop_map(|text| ("content".to_owned(), json!([{"text": text}]))),
            Just(("n".to_owned(), json!(1))),
        ]
    }

    proptest! {
        #[test]
        fn the_rewritten_body_is_the_original_with_the_wish(
            members in prop::collection::vec(member(), 0..5),
            sizes in prop::collection::vec(1_usize..9, 1..20),
        ) {
            let original = Value::Object(members.into_iter().collect());
            let body = serde_json::to_string(&original).unwrap();
            let mut expected = original.clone();
            let streams = original.get("stream") == Some(&json!(true));
            let asked = original.pointer("/stream_options/include_usage") == Some(&json!(true));
            if streams && !asked {
                let options = expected.as_object_mut().unwrap().entry("stream_options").or_insert(json!({}));
                if options.is_null() {
                    *options = json!({});
                }
                options["include_usage"] = json!(true);
            }
            let new = whole(&body, sizes[0]);
            prop_assert_eq!(new.is_some(), streams && !asked);
            let new: Value = serde_json::from_str(&new.unwrap_or_else(|| body.clone())).unwrap();
            prop_assert_eq!(&new, &expected);

            let mut rest = body.as_bytes();
            let mut frames = Vec::new();
            for size in sizes.iter().cycle() {
                if rest.is_empty() { break; }
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                frames.push(Bytes::copy_from_slice(piece));
                rest = after;
            }
            let (text, injected) = streamed(frames);
            let text: Value = serde_json::from_str(&text).unwrap();
            if injected {
                prop_assert_eq!(&text, &expected);
            } else if streams && !asked {
                // The one thing that cannot be done while the body passes.
                prop_assert_eq!(original.get("stream_options"), Some(&Value::Null));
                prop_assert_eq!(&text, &original);
            }
        }
    }
}
