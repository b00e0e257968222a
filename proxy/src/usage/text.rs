//! The text of a reply as it passes, kept raw until it is counted or not needed any more.
//!
//! Invariants
//! - Nothing is kept unless it was asked for; then at most as much as was allowed, and of what does not
//!   fit only the bytes are counted. It goes nowhere but to the counter (`count`), and is dropped when the
//!   provider has told its figures.
//! - Texts that run side by side (choices; answer, reasoning, tool calls) are told apart.
//!
//! Not here: when it is needed (`count`), undoing JSON escapes (`count::unescape`).

/// Most text of a stream that is kept: a frame may hold this much before anybody can take it.
pub const STREAM_BYTES_MAX: usize = 128 * 1024;

/// Most text of a document that is kept. Its usage comes at its end, nearly always, so that nothing of
/// it is counted before.
pub const DOCUMENT_BYTES_MAX: usize = 64 * 1024;

/// What a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TextKind {
    /// The answer.
    Content,
    /// Thinking that is shown.
    Reasoning,
    /// Names and arguments of tool calls.
    Tool,
}

/// Which of the texts of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TextKey {
    /// The choice it belongs to.
    pub choice: u16,
    /// What it is.
    pub kind: TextKind,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    key: TextKey,
    end: usize,
}

/// Text that passed: pieces of JSON strings without their quotes, in order.
#[derive(Debug, Default)]
pub struct PassedText {
    /// Most bytes that are held; zero while nothing is kept.
    held_max: usize,
    raw: Vec<u8>,
    segments: Vec<Segment>,
    /// Segments from here on belong to a choice or event that is not over.
    open_from: usize,
    lost_bytes: u64,
}

impl PassedText {
    /// From now on text is kept.
    pub(super) fn keep(&mut self, held_max: usize) {
        self.held_max = held_max;
    }

    /// Takes a piece of text.
    pub(super) fn piece(&mut self, kind: TextKind, raw: &[u8]) {
        if self.held_max == 0 || raw.is_empty() {
            return;
        }
        if self.raw.len().saturating_add(raw.len()) > self.held_max {
            self.lost_bytes = self.lost_bytes.saturating_add(raw.len() as u64);
            return;
        }
        self.raw.extend_from_slice(raw);
        let key = TextKey { choice: 0, kind };
        let end = self.raw.len();
        let is_open = self.segments.len() > self.open_from;
        match self.segments.last_mut() {
            Some(last) if is_open && last.key == key => last.end = end,
            _ => self.segments.push(Segment { key, end }),
        }
    }

    /// The choice that the last pieces belong to is over and known.
    pub(super) fn settle(&mut self, choice: usize) {
        let choice = u16::try_from(choice).unwrap_or(u16::MAX);
        self.settle_as(|key| TextKey { choice, ..key });
    }

    /// The event of the last pieces is over: they are what `rename` makes of them.
    pub(super) fn settle_as(&mut self, rename: impl Fn(TextKey) -> TextKey) {
        let mut at = self.open_from;
        while let Some(segment) = self.segments.get_mut(at) {
            segment.key = rename(segment.key);
            let (key, end) = (segment.key, segment.end);
            match at.checked_sub(1).and_then(|before| self.segments.get_mut(before)) {
                Some(before) if before.key == key => {
                    before.end = end;
                    self.segments.remove(at);
                }
                _ => at += 1,
            }
        }
        self.open_from = self.segments.len();
    }

    /// The last pieces were no text of the reply.
    pub(super) fn drop_open(&mut self) {
        self.segments.truncate(self.open_from);
        self.raw.truncate(self.segments.last().map_or(0, |last| last.end));
    }

    /// Bytes that are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.raw.len()
    }

    /// Whether any text passed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty() && self.lost_bytes == 0
    }

    /// Bytes that passed while nothing more could be held.
    #[must_use]
    pub fn lost_bytes(&self) -> u64 {
        self.lost_bytes
    }

    /// What is held so far, out of the way of what follows.
    pub fn take(&mut self) -> Self {
        let taken = Self { held_max: self.held_max, ..Self::default() };
        self.open_from = 0;
        std::mem::replace(self, taken)
    }

    /// The pieces in order.
    pub fn pieces(&self) -> impl Iterator<Item = (TextKey, &[u8])> {
        let starts = std::iter::once(0).chain(self.segments.iter().map(|segment| segment.end));
        self.segments
            .iter()
            .zip(starts)
            .map(|(segment, start)| (segment.key, self.raw.get(start..segment.end).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> PassedText {
        let mut text = PassedText::default();
        text.keep(STREAM_BYTES_MAX);
        text
    }

    fn shown(text: &PassedText) -> Vec<(u16, TextKind, &str)> {
        text.pieces().map(|(key, raw)| (key.choice, key.kind, std::str::from_utf8(raw).unwrap())).collect()
    }

    #[test]
    fn texts_that_run_side_by_side_are_told_apart() {
        let mut text = kept();
        for (choice, piece) in [(0, "a"), (0, "b"), (1, "x"), (0, "c")] {
            text.piece(TextKind::Content, piece.as_bytes());
            text.settle(choice);
        }
        text.piece(TextKind::Reasoning, b"r");
        text.piece(TextKind::Content, b"d");
        text.settle(0);
        let content = TextKind::Content;
        assert_eq!(
            shown(&text),
            [
                (0, content, "ab"),
                (1, content, "x"),
                (0, content, "c"),
                (0, TextKind::Reasoning, "r"),
                (0, content, "d")
            ]
        );
    }

    #[test]
    fn what_turns_out_to_be_no_text_is_dropped() {
        let mut text = kept();
        text.piece(TextKind::Content, b"a");
        text.settle(0);
        text.piece(TextKind::Content, b"noise");
        text.drop_open();
        text.piece(TextKind::Content, b"b");
        text.settle(0);
        assert_eq!(shown(&text), [(0, TextKind::Content, "ab")]);
    }

    #[test]
    fn nothing_is_kept_unasked_and_no_more_than_the_limit() {
        let mut text = PassedText::default();
        text.piece(TextKind::Content, b"a");
        assert!(text.is_empty());
        let mut text = kept();
        for _ in 0..STREAM_BYTES_MAX / 1_000 + 10 {
            text.piece(TextKind::Content, &[b'x'; 1_000]);
        }
        assert!(text.held() <= STREAM_BYTES_MAX && text.lost_bytes() >= 9_000);
        assert!(!text.take().is_empty());
        text.piece(TextKind::Content, b"on");
        assert_eq!((text.held(), text.lost_bytes()), (2, 0));
    }
}
