//! A resumable JSON walker: fed slices of any length, it reports the values at a few wanted paths
//! and skips everything else without looking inside.
//!
//! Invariants
//! - Memory is bounded: a fixed stack of wanted containers, one buffer of at most the value limit.
//!   Unwanted subtrees cost a counter, so nesting of any depth is harmless.
//! - How the input is cut into slices never changes what is reported.
//! - A key that comes twice is reported each time, so the last one wins; the sink is told.
//!
//! The walker is lenient: it is no validator. It stops at the first structural error it meets on
//! the way, and `NaN`, leading zeros and the like pass as raw text for the reader to judge.
//!
//! Not here: what the values mean (`openai`, `anthropic`, `request`).

use memchr::{memchr2, memchr3};
use std::borrow::Cow;

/// Longest raw value that is reported; a longer one is announced as too long.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;

/// The deepest that anything wanted lies: a part of a result that an operation of Google's holds.
const DEPTH_MAX: usize = 12;
const KEY_BYTES_MAX: usize = 48;
/// Words looked at before a vectorised search is worth its start-up cost.
const NEAR_WORDS: usize = 4;

/// A place in a document: what is wanted there and below.
#[derive(Debug)]
pub struct Node {
    id: u8,
    scalar: bool,
    whole: bool,
    marks: bool,
    pauses: bool,
    passes: bool,
    /// Keys that differ from its own in the case of letters alone are told.
    hears_alike: bool,
    keys: &'static [(&'static str, Node)],
    each: Option<&'static Node>,
}

impl Node {
    const NONE: Self = Self {
        id: 0,
        scalar: false,
        whole: false,
        marks: false,
        pauses: false,
        passes: false,
        hears_alike: false,
        keys: &[],
        each: None,
    };

    /// A string, number or literal whose raw text is reported.
    pub const fn scalar(id: u8) -> Self {
        Self { id, scalar: true, ..Self::NONE }
    }

    /// A value of any kind whose raw text is reported.
    pub const fn whole(id: u8) -> Self {
        Self { id, scalar: true, whole: true, ..Self::NONE }
    }

    /// A string of any length, whose inside is shown in pieces as it passes.
    pub const fn text(id: u8) -> Self {
        Self { id, passes: true, ..Self::NONE }
    }

    /// Wants something of each element where an array stands in this place.
    pub const fn or_array(self, each: &'static Self) -> Self {
        Self { each: Some(each), ..self }
    }

    /// An object in which some keys are wanted.
    pub const fn object(keys: &'static [(&'static str, Self)]) -> Self {
        Self { keys, ..Self::NONE }
    }

    /// An array in which something of each element is wanted.
    pub const fn array(each: &'static Self) -> Self {
        Self { each: Some(each), ..Self::NONE }
    }

    /// Reports where this container opens and closes too.
    pub const fn marked(self, id: u8) -> Self {
        Self { id, marks: true, ..self }
    }

    /// Takes a checkpoint before the value of this key of the root, so that a document that begins
    /// like the last one can be taken up from there.
    pub const fn with_checkpoint(self) -> Self {
        Self { pauses: true, ..self }
    }

    /// Tells of keys that some readers would take for one of these: other cases of the same letters.
    pub const fn hearing_alike(self) -> Self {
        Self { hears_alike: true, ..self }
    }

    /// Reports a scalar in this place too (a container that may also be `null`).
    pub const fn or_scalar(self, id: u8) -> Self {
        Self { id, scalar: true, ..self }
    }
}

/// Receives what the walker finds. Offsets count from the start of the document.
pub trait Sink {
    /// The raw text of a wanted value that begins at `at`; strings keep their quotes and escapes.
    fn value(&mut self, id: u8, raw: &[u8], at: u64);
    /// A piece of the inside of a wanted text, escapes and all; pieces are cut anywhere.
    fn text(&mut self, id: u8, raw: &[u8]) {
        let _ = (id, raw);
    }
    /// A wanted value was longer than the limit and is not reported.
    fn too_long(&mut self, id: u8) {
        let _ = id;
    }
    /// A marked container opens at `at`.
    fn open(&mut self, id: u8, at: u64) {
        let _ = (id, at);
    }
    /// A marked container closes at `at` (its closing bracket) after `items` members.
    fn close(&mut self, id: u8, at: u64, items: u64) {
        let _ = (id, at, items);
    }
    /// A marked place holds a container of the other kind; it is skipped.
    fn other_kind(&mut self, id: u8) {
        let _ = id;
    }
    /// Whether a document that repeats what was read of this one so far may skip it: true when
    /// reading it again would change nothing.
    fn may_skip_prefix(&self) -> bool {
        false
    }
    /// A wanted key occurred a second time in one object.
    fn duplicate(&mut self) {}
    /// A key is a wanted one but for the case of its letters, which is no key for most readers.
    fn alike(&mut self) {}
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A value must come.
    Value,
    /// After `[`: a value or `]`.
    ValueOrEnd,
    /// After `{`: a key or `}`.
    KeyOrEnd,
    /// After a comma in an object: a key.
    Key,
    /// Inside a key.
    KeyText,
    /// After a key.
    Colon,
    /// After a member: a comma or the closing bracket.
    AfterValue,
    /// Inside a string value.
    Text,
    /// Inside a number or a literal.
    Literal,
    /// Inside an unwanted container.
    Skip,
    /// Inside a string of an unwanted container.
    SkipText,
    /// The document is closed.
    Done,
    /// A structural error was met.
    Bad,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    node: &'static Node,
    seen: u64,
    items: u32,
    object: bool,
}

static UNWANTED: Node = Node::NONE;

/// The state of the walker before a value of the root object.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoint {
    length: usize,
    target: &'static Node,
    items: u32,
    seen: u64,
}

impl Checkpoint {
    /// Bytes of the document before the value.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }
}

/// A text that passed, by its place in the document.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    /// What the shape calls it.
    pub id: u8,
    /// Its first byte.
    pub from: usize,
    /// The closing quote.
    pub until: usize,
}

/// The walker. One document at a time; `reset` starts the next one.
#[derive(Debug)]
pub struct Scanner {
    root: &'static Node,
    phase: Phase,
    target: &'static Node,
    frames: [Frame; DEPTH_MAX],
    depth: usize,
    skip_open: u8,
    skip_close: u8,
    skip_depth: u64,
    escaped: bool,
    capturing: bool,
    captured_at: u64,
    buffer: Vec<u8>,
    overflow: bool,
    key: [u8; KEY_BYTES_MAX],
    key_len: usize,
    key_escaped: bool,
    base: u64,
    trailing: bool,
    checkpoint: Option<Checkpoint>,
    /// Pieces of texts that were shown, and the last one.
    shown: u32,
    passed: Passed,
}

impl Scanner {
    /// A walker for documents of the shape of `root`.
    pub fn new(root: &'static Node) -> Self {
        Self {
            root,
            phase: Phase::Value,
            target: root,
            frames: [Frame { node: &UNWANTED, object: false, items: 0, seen: 0 }; DEPTH_MAX],
            depth: 0,
            skip_open: 0,
            skip_close: 0,
            skip_depth: 0,
            escaped: false,
            capturing: false,
            captured_at: 0,
            buffer: Vec::new(),
            overflow: false,
            key: [0; KEY_BYTES_MAX],
            key_len: 0,
            key_escaped: false,
            base: 0,
            trailing: false,
            checkpoint: None,
            shown: 0,
            passed: Passed { id: 0, from: 0, until: 0 },
        }
    }

    /// Forgets the document and starts a new one.
    pub fn reset(&mut self) {
        self.phase = Phase::Value;
        self.target = self.root;
        self.depth = 0;
        self.escaped = false;
        self.capturing = false;
        self.overflow = false;
        self.buffer.clear();
        self.key_len = 0;
        self.key_escaped = false;
        self.base = 0;
        self.trailing = false;
        self.checkpoint = None;
        self.shown = 0;
    }

    /// The text that passed, if there was one alone and it came in one piece.
    #[must_use]
    pub fn only_text(&self) -> Option<Passed> {
        (self.shown == 1).then_some(self.passed)
    }

    /// A whole document of `length` bytes came that need not be walked over.
    pub fn pass_over(&mut self, length: usize) {
        self.reset();
        self.phase = Phase::Done;
        self.base = length as u64;
    }

    /// The checkpoint of this document, if it lies in the first slice.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoint
    }

    /// Starts a document as if the bytes before `checkpoint` had been walked over already.
    pub fn resume(&mut self, checkpoint: &Checkpoint) {
        self.reset();
        if let Some(frame) = self.frames.first_mut() {
            *frame = Frame { node: self.root, object: true, items: checkpoint.items, seen: checkpoint.seen };
        }
        self.depth = 1;
        self.phase = Phase::Value;
        self.target = checkpoint.target;
        self.base = checkpoint.length as u64;
    }

    /// Whether the document is complete and well formed as far as it was looked at.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.phase == Phase::Done && !self.trailing
    }

    /// Whether a structural error was met, or something followed the document.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        self.phase == Phase::Bad || self.trailing
    }

    /// Whether nothing but white space has come yet.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.phase == Phase::Value && self.depth == 0
    }

    /// Where the wanted number or literal that the input so far ends in begins.
    #[must_use]
    pub fn open_literal(&self) -> Option<u64> {
        (self.phase == Phase::Literal && self.capturing).then_some(self.captured_at)
    }

    /// Bytes of the document so far.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.base
    }

    /// Walks on over `bytes`.
    pub fn feed<S: Sink>(&mut self, bytes: &[u8], sink: &mut S) {
        let mut at = 0;
        // Where the value being captured begins in this slice.
        let mut from = 0;
        while let Some(byte) = bytes.get(at).copied() {
            match self.phase {
                Phase::Value | Phase::ValueOrEnd => {
                    if is_space(byte) {
                        at += 1;
                    } else if byte == b']' && self.phase == Phase::ValueOrEnd {
                        self.close(at, sink);
                        at += 1;
                    } else {
                        at = self.begin(byte, bytes, at, &mut from, sink);
                    }
                }
                Phase::KeyOrEnd | Phase::Key => {
                    if byte == b'"' {
                        at = self.begin_key(bytes, at + 1, sink);
                    } else if is_space(byte) {
                        at += 1;
                    } else if byte == b'}' && self.phase == Phase::KeyOrEnd {
                        self.close(at, sink);
                        at += 1;
                    } else {
                        self.phase = Phase::Bad;
                    }
                }
                Phase::KeyText => at = self.key_text(bytes, at, sink),
                Phase::Colon => {
                    if byte == b':' {
                        self.phase = Phase::Value;
                    } else if !is_space(byte) {
                        self.phase = Phase::Bad;
                    }
                    at += 1;
                }
                Phase::AfterValue => {
                    self.after_value(byte, at, sink);
                    at += 1;
                }
                Phase::Text => at = self.text(bytes, at, from, sink),
                Phase::Literal => at = self.literal(bytes, at, from, sink),
                Phase::Skip | Phase::SkipText => at = self.skip(bytes, at, from, sink),
                Phase::Done => {
                    if bytes.get(at..).is_some_and(|rest| rest.iter().any(|b| !is_space(*b))) {
                        self.trailing = true;
                    }
                    at = bytes.len();
                }
                Phase::Bad => at = bytes.len(),
            }
        }
        if self.capturing {
            self.keep(bytes.get(from..).unwrap_or_default());
        }
        self.base = self.base.saturating_add(bytes.len() as u64);
    }

    /// Tells the walker that nothing more comes: a bare number at the top ends here.
    pub fn finish<S: Sink>(&mut self, sink: &mut S) {
        if self.phase == Phase::Literal && self.depth == 0 {
            self.end_value(&[], 0, 0, sink);
        }
    }

    fn begin<S: Sink>(&mut self, byte: u8, bytes: &[u8], at: usize, from: &mut usize, sink: &mut S) -> usize {
        let target = self.target;
        match byte {
            b'"' => {
                if target.scalar {
                    self.start_capture(at, from);
                }
                self.phase = Phase::Text;
                self.text(bytes, at + 1, *from, sink)
            }
            b'{' | b'[' => {
                let object = byte == b'{';
                let wanted = if object { !target.keys.is_empty() } else { target.each.is_some() };
                if wanted && !target.whole {
                    self.enter(target, object, at, sink);
                    return at + 1;
                }
                if target.whole {
                    self.start_capture(at, from);
                } else if target.marks {
                    sink.other_kind(target.id);
                }
                (self.skip_open, self.skip_close) = if object { (b'{', b'}') } else { (b'[', b']') };
                self.skip_depth = 1;
                self.phase = Phase::Skip;
                self.skip(bytes, at + 1, *from, sink)
            }
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' | b'N' | b'I' => {
                if target.scalar {
                    self.start_capture(at, from);
                }
                self.phase = Phase::Literal;
                self.literal(bytes, at + 1, *from, sink)
            }
            _ => {
                self.phase = Phase::Bad;
                at
            }
        }
    }

    fn enter<S: Sink>(&mut self, node: &'static Node, object: bool, at: usize, sink: &mut S) {
        if node.marks {
            sink.open(node.id, self.base.saturating_add(at as u64));
        }
        let Some(frame) = self.frames.get_mut(self.depth) else {
            self.phase = Phase::Bad;
            return;
        };
        *frame = Frame { node, object, items: 0, seen: 0 };
        self.depth += 1;
        if object {
            self.phase = Phase::KeyOrEnd;
        } else {
            self.phase = Phase::ValueOrEnd;
            self.target = node.each.unwrap_or(&UNWANTED);
        }
    }

    fn close<S: Sink>(&mut self, at: usize, sink: &mut S) {
        self.depth = self.depth.saturating_sub(1);
        if let Some(frame) = self.frames.get(self.depth)
            && frame.node.marks
        {
            sink.close(frame.node.id, self.base.saturating_add(at as u64), u64::from(frame.items));
        }
        self.value_ended();
    }

    fn value_ended(&mut self) {
        let Some(frame) = self.depth.checked_sub(1).and_then(|top| self.frames.get_mut(top)) else {
            self.phase = Phase::Done;
            return;
        };
        frame.items = frame.items.saturating_add(1);
        self.phase = Phase::AfterValue;
    }

    fn after_value<S: Sink>(&mut self, byte: u8, at: usize, sink: &mut S) {
        if is_space(byte) {
            return;
        }
        let Some(frame) = self.depth.checked_sub(1).and_then(|top| self.frames.get(top)) else {
            self.phase = Phase::Bad;
            return;
        };
        match (byte, frame.object) {
            (b',', true) => self.phase = Phase::Key,
            (b',', false) => {
                self.target = frame.node.each.unwrap_or(&UNWANTED);
                self.phase = Phase::Value;
            }
            (b'}', true) | (b']', false) => self.close(at, sink),
            _ => self.phase = Phase::Bad,
        }
    }

    fn begin_key<S: Sink>(&mut self, bytes: &[u8], at: usize, sink: &mut S) -> usize {
        self.key_len = 0;
        self.key_escaped = false;
        if let Some(end) = closing_quote(bytes, at) {
            self.name(bytes.get(at..end).unwrap_or_default(), sink);
            if bytes.get(end + 1) == Some(&b':') {
                self.phase = Phase::Value;
                if self.target.pauses && self.depth == 1 && self.base == 0 && sink.may_skip_prefix() {
                    self.take_checkpoint(end + 2);
                }
                return end + 2;
            }
            self.phase = Phase::Colon;
            return end + 1;
        }
        self.phase = Phase::KeyText;
        self.escaped = false;
        at
    }

    fn take_checkpoint(&mut self, length: usize) {
        self.checkpoint = self.frames.first().map(|frame| Checkpoint {
            length,
            target: self.target,
            items: frame.items,
            seen: frame.seen,
        });
    }

    /// A key with escapes, or one that is spread over slices: collected first.
    fn key_text<S: Sink>(&mut self, bytes: &[u8], at: usize, sink: &mut S) -> usize {
        let (end, closed) = match text_end(bytes, at, self.escaped) {
            Text::Ends { at, escapes } => {
                self.key_escaped |= escapes || self.escaped;
                self.escaped = false;
                (at, true)
            }
            Text::Open { escapes, escaped } => {
                self.key_escaped |= escapes || self.escaped;
                self.escaped = escaped;
                (bytes.len(), false)
            }
        };
        for byte in bytes.get(at..end).unwrap_or_default() {
            if let Some(slot) = self.key.get_mut(self.key_len) {
                *slot = *byte;
            }
            self.key_len = self.key_len.saturating_add(1);
        }
        if !closed {
            return end;
        }
        let key = self.key;
        // A key longer than the buffer is none of ours.
        let key = key.get(..self.key_len).unwrap_or_default();
        if self.key_escaped {
            let plain = unescape_key(key);
            self.name(&plain, sink);
        } else {
            self.name(key, sink);
        }
        self.phase = Phase::Colon;
        end + 1
    }

    fn name<S: Sink>(&mut self, key: &[u8], sink: &mut S) {
        self.target = &UNWANTED;
        let Some(frame) = self.depth.checked_sub(1).and_then(|top| self.frames.get_mut(top)) else { return };
        for (index, (name, node)) in frame.node.keys.iter().enumerate() {
            if name.as_bytes() == key {
                self.target = node;
                let bit = 1_u64.wrapping_shl(u32::try_from(index).unwrap_or(63));
                if frame.seen & bit != 0 {
                    sink.duplicate();
                }
                frame.seen |= bit;
                return;
            }
        }
        let is_alike = |(name, _): &(&str, Node)| name.as_bytes().eq_ignore_ascii_case(key);
        if frame.node.hears_alike && frame.node.keys.iter().any(is_alike) {
            sink.alike();
        }
    }

    fn text<S: Sink>(&mut self, bytes: &[u8], at: usize, from: usize, sink: &mut S) -> usize {
        if !self.escaped
            && let Some(end) = closing_quote(bytes, at)
        {
            self.show(bytes, at, end, sink);
            return self.end_text(bytes, end, from, sink);
        }
        match text_end(bytes, at, self.escaped) {
            Text::Ends { at: end, .. } => {
                self.escaped = false;
                self.show(bytes, at, end, sink);
                self.end_text(bytes, end, from, sink)
            }
            Text::Open { escaped, .. } => {
                self.escaped = escaped;
                self.show(bytes, at, bytes.len(), sink);
                bytes.len()
            }
        }
    }

    /// Shows a piece of the inside of a string, where it is wanted as it passes.
    fn show<S: Sink>(&mut self, bytes: &[u8], at: usize, end: usize, sink: &mut S) {
        if self.target.passes {
            let base = usize::try_from(self.base).unwrap_or(usize::MAX);
            self.shown = self.shown.saturating_add(1);
            self.passed =
                Passed { id: self.target.id, from: base.saturating_add(at), until: base.saturating_add(end) };
            sink.text(self.target.id, bytes.get(at..end).unwrap_or_default());
        }
    }

    fn end_text<S: Sink>(&mut self, bytes: &[u8], end: usize, from: usize, sink: &mut S) -> usize {
        self.end_value(bytes, from, end + 1, sink);
        if bytes.get(end + 1) == Some(&b',') {
            self.after_value(b',', end + 1, sink);
            return end + 2;
        }
        end + 1
    }

    fn literal<S: Sink>(&mut self, bytes: &[u8], mut at: usize, from: usize, sink: &mut S) -> usize {
        while let Some(byte) = bytes.get(at).copied() {
            match LITERALS.get(usize::from(byte)) {
                Some(InLiteral::Inside) => at += 1,
                Some(InLiteral::Ends) => {
                    self.end_value(bytes, from, at, sink);
                    if byte == b',' {
                        self.after_value(b',', at, sink);
                        return at + 1;
                    }
                    return at;
                }
                Some(InLiteral::Bad) | None => {
                    self.capturing = false;
                    self.buffer.clear();
                    self.phase = Phase::Bad;
                    return at;
                }
            }
        }
        at
    }

    /// Counts only brackets of the kind that opened the container: in a well-formed document the
    /// other kind is balanced inside, and strings are stepped over.
    fn skip<S: Sink>(&mut self, bytes: &[u8], mut at: usize, from: usize, sink: &mut S) -> usize {
        if self.phase == Phase::SkipText {
            let Some(after) = self.skip_text(bytes, at) else { return bytes.len() };
            at = after;
        }
        while let Some(next) = skip_next(bytes, at, self.skip_open, self.skip_close) {
            match bytes.get(next).copied() {
                Some(b'"') => {
                    let Some(after) = self.skip_text(bytes, next + 1) else { return bytes.len() };
                    at = after;
                }
                Some(byte) if byte == self.skip_open => {
                    self.skip_depth = self.skip_depth.saturating_add(1);
                    at = next + 1;
                }
                _ => {
                    self.skip_depth = self.skip_depth.saturating_sub(1);
                    at = next + 1;
                    if self.skip_depth == 0 {
                        self.end_value(bytes, from, at, sink);
                        return at;
                    }
                }
            }
        }
        bytes.len()
    }

    /// Steps over a string of an unwanted container; `None` when the slice ends inside it.
    fn skip_text(&mut self, bytes: &[u8], at: usize) -> Option<usize> {
        if !self.escaped
            && let Some(end) = closing_quote(bytes, at)
        {
            self.phase = Phase::Skip;
            return Some(end + 1);
        }
        match text_end(bytes, at, self.escaped) {
            Text::Ends { at, .. } => {
                self.escaped = false;
                self.phase = Phase::Skip;
                Some(at + 1)
            }
            Text::Open { escaped, .. } => {
                self.escaped = escaped;
                self.phase = Phase::SkipText;
                None
            }
        }
    }

    fn start_capture(&mut self, at: usize, from: &mut usize) {
        self.capturing = true;
        self.overflow = false;
        self.buffer.clear();
        self.captured_at = self.base.saturating_add(at as u64);
        *from = at;
    }

    fn keep(&mut self, piece: &[u8]) {
        if self.buffer.len().saturating_add(piece.len()) > VALUE_BYTES_MAX {
            self.overflow = true;
        }
        if !self.overflow {
            self.buffer.extend_from_slice(piece);
        }
    }

    fn end_value<S: Sink>(&mut self, bytes: &[u8], from: usize, end: usize, sink: &mut S) {
        if self.capturing {
            self.capturing = false;
            let piece = bytes.get(from..end).unwrap_or_default();
            let id = self.target.id;
            let begun_before = self.captured_at < self.base;
            if begun_before {
                self.keep(piece);
            }
            if self.overflow || piece.len() > VALUE_BYTES_MAX {
                sink.too_long(id);
            } else if begun_before {
                sink.value(id, &self.buffer, self.captured_at);
            } else {
                sink.value(id, piece, self.captured_at);
            }
            self.buffer.clear();
        }
        self.value_ended();
    }
}

/// What a byte is to a number or literal.
#[derive(Clone, Copy)]
enum InLiteral {
    Inside,
    Ends,
    Bad,
}

static LITERALS: [InLiteral; 256] = {
    let mut table = [InLiteral::Bad; 256];
    let mut byte = 0_u8;
    loop {
        // A constant index into a constant table: the compiler checks it.
        #[expect(clippy::indexing_slicing, reason = "evaluated while compiling")]
        if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.') {
            table[byte as usize] = InLiteral::Inside;
        } else if is_space(byte) || matches!(byte, b',' | b'}' | b']') {
            table[byte as usize] = InLiteral::Ends;
        }
        if byte == u8::MAX {
            break table;
        }
        byte += 1;
    }
};

/// The end of a string's text, where no escape comes before it.
#[inline]
fn closing_quote(bytes: &[u8], at: usize) -> Option<usize> {
    quote_or_backslash(bytes, at).filter(|found| bytes.get(*found) == Some(&b'"'))
}

/// Where the text of a string that begins at `at` ends, if it ends in `bytes`.
pub fn text_ends_at(bytes: &[u8], at: usize) -> Option<usize> {
    match text_end(bytes, at, false) {
        Text::Ends { at, .. } => Some(at),
        Text::Open { .. } => None,
    }
}

/// Where the text of a string ends.
enum Text {
    /// At the closing quote at `at`.
    Ends { at: usize, escapes: bool },
    /// Not in this slice; `escaped` when its last byte is an open backslash.
    Open { escapes: bool, escaped: bool },
}

fn text_end(bytes: &[u8], mut at: usize, escaped: bool) -> Text {
    let mut escapes = false;
    if escaped {
        if at >= bytes.len() {
            return Text::Open { escapes, escaped };
        }
        at += 1;
    }
    loop {
        let Some(found) = quote_or_backslash(bytes, at) else {
            return Text::Open { escapes, escaped: false };
        };
        if bytes.get(found) == Some(&b'"') {
            return Text::Ends { at: found, escapes };
        }
        escapes = true;
        at = found + 2;
        if at > bytes.len() {
            return Text::Open { escapes, escaped: true };
        }
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Marks the bytes of `word` that equal the byte repeated in `pattern`, exact for the lowest one.
const fn equal_bytes(word: u64, pattern: u64) -> u64 {
    let different = word ^ pattern;
    different.wrapping_sub(ONES) & !different & HIGHS
}

/// The first byte from `at` on that `equal` marks in a word, or that `far` finds further on: eight
/// bytes at a time at first, then a vectorised search.
#[inline]
fn find_near(
    bytes: &[u8],
    mut at: usize,
    equal: impl Fn(u64) -> u64,
    far: impl Fn(&[u8]) -> Option<usize>,
) -> Option<usize> {
    let rest = bytes.get(at..)?;
    let (words, _) = rest.as_chunks::<8>();
    for word in words.iter().take(NEAR_WORDS) {
        let found = equal(u64::from_le_bytes(*word));
        if found != 0 {
            return Some(at + (found.trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
    far(bytes.get(at..)?).map(|found| at + found)
}

const fn repeated(byte: u8) -> u64 {
    ONES.wrapping_mul(byte as u64)
}

fn quote_or_backslash(bytes: &[u8], at: usize) -> Option<usize> {
    const QUOTES: u64 = repeated(b'"');
    const BACKSLASHES: u64 = repeated(b'\\');
    find_near(
        bytes,
        at,
        |word| equal_bytes(word, QUOTES) | equal_bytes(word, BACKSLASHES),
        |rest| memchr2(b'"', b'\\', rest),
    )
}

fn skip_next(bytes: &[u8], at: usize, open: u8, close: u8) -> Option<usize> {
    let (quotes, opens, closes) = (repeated(b'"'), repeated(open), repeated(close));
    find_near(
        bytes,
        at,
        |word| equal_bytes(word, quotes) | equal_bytes(word, opens) | equal_bytes(word, closes),
        |rest| memchr3(b'"', open, close, rest),
    )
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

fn unescape_key(key: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(key.len() + 2);
    quoted.push(b'"');
    quoted.extend_from_slice(key);
    quoted.push(b'"');
    text_of(&quoted).map(|text| text.into_owned().into_bytes()).unwrap_or_default()
}

/// The text of a raw JSON string; `None` for anything else and for an empty string. Text that is
/// no valid JSON string is taken as it stands, as far as it is UTF-8.
pub fn text_of(raw: &[u8]) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inner.is_empty() {
        return None;
    }
    let plain = inner.iter().fold(true, |plain, byte| plain & matches!(byte, 0x20..=0x7E) & (*byte != b'\\'));
    if plain && let Ok(text) = std::str::from_utf8(inner) {
        return Some(Cow::Borrowed(text));
    }
    if let Ok(text) = serde_json::from_slice::<String>(raw) {
        return Some(Cow::Owned(text));
    }
    Some(String::from_utf8_lossy(inner))
}

/// Whether a raw value says something: not `null`, `false`, `""`, `{}` or `[]`.
pub fn is_present(raw: &[u8]) -> bool {
    !matches!(raw, b"null" | b"false" | b"\"\"" | b"{}" | b"[]" | b"")
}

/// Whether a raw value is an object with a figure in it. A later object of nulls, or an empty one, takes
/// nothing back that was told before.
#[must_use]
pub fn has_figures(raw: &[u8]) -> bool {
    raw.first() == Some(&b'{') && raw.iter().any(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests;
