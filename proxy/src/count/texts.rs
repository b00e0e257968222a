//! The texts of one reply, each counted by itself as its pieces arrive.
//!
//! Invariants
//! - A piece continues its own text only: choices, reasoning and tool calls never run together.
//! - More texts than [`TEXTS_MAX`] share the last one, and the figure is no count any more.
//!
//! Not here: where pieces come from (`usage::text`).

use super::tally::Tally;
use super::unescape::Unescape;
use crate::usage::text::{PassedText, TextKey, TextKind};
use bursar_tokens::{Encoding, StreamCounter, rough};

const TEXTS_MAX: usize = 64;

/// The texts of a reply.
#[derive(Debug)]
pub(super) struct Texts {
    encoding: Encoding,
    all: Vec<Text>,
    bytes: u64,
    lost_bytes: u64,
    shared: bool,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Text {
    key: TextKey,
    unescape: Unescape,
    counter: Counter,
}

#[derive(Debug)]
enum Counter {
    Vocabulary(Box<StreamCounter>),
    Rough(u64),
}

/// Tokens of a reply's texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OutputTokens {
    /// Of answers and tool calls.
    pub(super) visible: u64,
    /// Of reasoning that was shown.
    pub(super) reasoning: u64,
    /// Whether they are the count of plain answers and nothing else.
    pub(super) exact: bool,
    /// Whether a part was too much to be counted.
    pub(super) sampled: bool,
}

impl Texts {
    pub(super) fn new(encoding: Encoding) -> Self {
        Self { encoding, all: Vec::new(), bytes: 0, lost_bytes: 0, shared: false, scratch: Vec::new() }
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Takes the next block of text.
    pub(super) fn push(&mut self, block: &PassedText, tally: &Tally) {
        self.lost_bytes = self.lost_bytes.saturating_add(block.lost_bytes());
        for (key, raw) in block.pieces() {
            self.bytes = self.bytes.saturating_add(raw.len() as u64);
            let mut scratch = std::mem::take(&mut self.scratch);
            scratch.clear();
            if let Some(text) = self.text(key, tally) {
                text.unescape.push(raw, &mut scratch);
                match &mut text.counter {
                    Counter::Vocabulary(counter) => counter.push_bytes(&scratch),
                    Counter::Rough(count) => *count += rough(&String::from_utf8_lossy(&scratch)),
                }
            }
            self.scratch = scratch;
        }
    }

    /// Notes text that passed without being kept.
    pub(super) fn lose(&mut self, bytes: u64) {
        self.lost_bytes = self.lost_bytes.saturating_add(bytes);
    }

    fn text(&mut self, key: TextKey, tally: &Tally) -> Option<&mut Text> {
        let at = match self.all.iter().position(|text| text.key == key) {
            Some(at) => at,
            None if self.all.len() >= TEXTS_MAX => {
                self.shared = true;
                self.all.len() - 1
            }
            None => {
                let counter = match tally.tokenizer() {
                    Some(tokenizer) => Counter::Vocabulary(Box::new(StreamCounter::new(tokenizer))),
                    None => Counter::Rough(0),
                };
                self.all.push(Text { key, unescape: Unescape::default(), counter });
                self.all.len() - 1
            }
        };
        self.all.get_mut(at)
    }

    /// The tokens so far. What was lost is taken to be as dense as the rest.
    pub(super) fn total(&self) -> OutputTokens {
        let mut total = OutputTokens {
            exact: !self.shared && self.lost_bytes == 0,
            sampled: self.lost_bytes > 0,
            ..OutputTokens::default()
        };
        for text in &self.all {
            let (tokens, exact) = match &text.counter {
                Counter::Vocabulary(counter) => {
                    let counted = counter.so_far();
                    (counted.tokens, counted.exact)
                }
                Counter::Rough(tokens) => (*tokens, false),
            };
            match text.key.kind {
                TextKind::Content | TextKind::Tool => total.visible = total.visible.saturating_add(tokens),
                TextKind::Reasoning => total.reasoning = total.reasoning.saturating_add(tokens),
            }
            // How tool calls and reasoning are written for the model is not published.
            total.exact &= exact && text.key.kind == TextKind::Content;
        }
        let lost = match self.bytes {
            0 => self.lost_bytes / 4,
            bytes => scale(total.visible.saturating_add(total.reasoning), self.lost_bytes, bytes),
        };
        total.visible = total.visible.saturating_add(lost);
        total
    }
}

/// `tokens × whole / part`, rounded up.
pub(super) fn scale(tokens: u64, whole: u64, part: u64) -> u64 {
    let scaled = (u128::from(tokens) * u128::from(whole)).div_ceil(u128::from(part.max(1)));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}
