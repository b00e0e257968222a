//! Cutting text into pre-tokens, by hand-written rules that equal the published patterns.
//!
//! The patterns (`tiktoken_ext/openai_public.py`, tiktoken 0.14), tried in this order at each place:
//! - `cl100k_base`: contraction, `[^\r\n\p{L}\p{N}]?\p{L}+`, `\p{N}{1,3}`,
//!   ` ?[^\s\p{L}\p{N}]+[\r\n]*`, `\s*[\r\n]+`, `\s+(?!\S)`, `\s+`
//! - `o200k_base`: `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+` with an
//!   optional contraction, the same with `+` and `*` exchanged, then as above but for
//!   ` ?[^\s\p{L}\p{N}]+[\r\n/]*`
//!
//! Invariants
//! - A pre-token is never empty, so the text is used up; each of its characters is looked at a
//!   bounded number of times.
//! - No rule looks back, so text may be cut where [`is_cut`] says so and its parts split alone.
//!
//! Not here: tokens (`merge`).

use crate::classes::{Class, Classes};

/// Which pattern applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    Cl100k,
    O200k,
}

/// Cuts texts by one pattern.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Splitter {
    rules: Rules,
    classes: &'static Classes,
}

impl Splitter {
    pub(crate) fn new(rules: Rules) -> Self {
        Self { rules, classes: Classes::get() }
    }

    /// Calls `each` for every pre-token of `text`.
    pub(crate) fn each(self, text: &str, mut each: impl FnMut(&[u8])) {
        let here = Text { text, classes: self.classes };
        let mut at = 0;
        while at < text.len() {
            let end = match self.rules {
                Rules::Cl100k => here.cl100k(at),
                Rules::O200k => here.o200k(at),
            };
            // Progress is made whatever happens.
            let end = end.max(at + 1).min(text.len());
            each(text.as_bytes().get(at..end).unwrap_or_default());
            at = end;
        }
    }
}

/// A place in a text: what stands there, and where the next character begins.
#[derive(Clone, Copy)]
struct Place {
    class: Class,
    next: usize,
}

#[derive(Clone, Copy)]
struct Text<'a> {
    text: &'a str,
    classes: &'static Classes,
}

impl Text<'_> {
    fn byte(self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    fn place(self, at: usize) -> Option<Place> {
        if let Some(class) = self.classes.of_ascii(self.byte(at)?) {
            return Some(Place { class, next: at + 1 });
        }
        let c = self.text.get(at..)?.chars().next()?;
        Some(Place { class: self.classes.of(c), next: at + c.len_utf8() })
    }

    /// Where the run of wanted characters that begins at `at` ends.
    fn run(self, mut at: usize, wanted: impl Fn(Class) -> bool) -> usize {
        while let Some(place) = self.place(at).filter(|place| wanted(place.class)) {
            at = place.next;
        }
        at
    }

    fn cl100k(self, at: usize) -> usize {
        self.contraction(at)
            .or_else(|| self.word(at))
            .or_else(|| self.number(at))
            .or_else(|| self.symbols(at, false))
            .unwrap_or_else(|| self.white(at))
    }

    fn o200k(self, at: usize) -> usize {
        self.cased_word(at)
            .or_else(|| self.number(at))
            .or_else(|| self.symbols(at, true))
            .unwrap_or_else(|| self.white(at))
    }

    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)`; the long s folds to s.
    fn contraction(self, at: usize) -> Option<usize> {
        if self.byte(at)? != b'\'' {
            return None;
        }
        let first = self.byte(at + 1)?.to_ascii_lowercase();
        let second = self.byte(at + 2).unwrap_or(0).to_ascii_lowercase();
        match (first, second) {
            (b's' | b't' | b'm' | b'd', _) => Some(at + 2),
            (b'r' | b'v', b'e') | (b'l', b'l') => Some(at + 3),
            _ if self.text.get(at + 1..).is_some_and(|rest| rest.starts_with('ſ')) => Some(at + 3),
            _ => None,
        }
    }

    /// `[^\r\n\p{L}\p{N}]?`, where it takes something.
    fn prefix(self, at: usize) -> Option<usize> {
        let place = self.place(at)?;
        let taken = !place.class.is_letter() && !matches!(place.class, Class::Newline | Class::Number);
        taken.then_some(place.next)
    }

    /// `[^\r\n\p{L}\p{N}]?\p{L}+`
    fn word(self, at: usize) -> Option<usize> {
        let start = self.prefix(at).unwrap_or(at);
        let end = self.run(start, Class::is_letter);
        (end > start).then_some(end)
    }

    /// Both kinds of words of `o200k_base`: those that end in small letters come first.
    fn cased_word(self, at: usize) -> Option<usize> {
        let starts = [self.prefix(at), Some(at)];
        let starts = || starts.iter().flatten();
        let end = starts()
            .find_map(|start| self.small_ending(*start))
            .or_else(|| starts().find_map(|start| self.capitals(*start)))?;
        Some(self.contraction(end).unwrap_or(end))
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`
    fn small_ending(self, start: usize) -> Option<usize> {
        let mut at = start;
        // After the last character that may belong to either part: what backtracking comes to.
        let mut either = None;
        while let Some(place) = self.place(at) {
            match place.class {
                Class::Upper => {}
                Class::Letter | Class::Mark => either = Some(place.next),
                _ => break,
            }
            at = place.next;
        }
        let end = self.run(at, |class| matches!(class, Class::Lower | Class::Letter | Class::Mark));
        if end > at { Some(end) } else { either }
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*`, where the rule above failed: then
    /// there are capitals only.
    fn capitals(self, start: usize) -> Option<usize> {
        let end = self.run(start, |class| class == Class::Upper);
        (end > start).then_some(end)
    }

    /// `\p{N}{1,3}`
    fn number(self, at: usize) -> Option<usize> {
        let mut end = at;
        for _ in 0..3 {
            match self.place(end) {
                Some(place) if place.class == Class::Number => end = place.next,
                _ => break,
            }
        }
        (end > at).then_some(end)
    }

    /// ` ?[^\s\p{L}\p{N}]+[\r\n]*`, with a slash among the last ones for `o200k_base`.
    fn symbols(self, at: usize, slash: bool) -> Option<usize> {
        let start = if self.byte(at) == Some(b' ') { at + 1 } else { at };
        let mut end = self.run(start, |class| matches!(class, Class::Other | Class::Mark));
        if end == start {
            return None;
        }
        while let Some(b'\r' | b'\n') | Some(b'/') = self.byte(end).filter(|b| *b != b'/' || slash) {
            end += 1;
        }
        Some(end)
    }

    /// `\s*[\r\n]+|\s+(?!\S)|\s+`
    fn white(self, at: usize) -> usize {
        let (mut end, mut last, mut newline) = (at, at, None);
        while let Some(place) = self.place(end).filter(|place| place.class.is_white()) {
            last = end;
            end = place.next;
            if place.class == Class::Newline {
                newline = Some(end);
            }
        }
        match newline {
            Some(newline) => newline,
            None if end == self.text.len() || last == at => end,
            None => last,
        }
    }
}

/// Whether every pattern ends a pre-token between `before` and `after`, wherever they stand: text may
/// be cut there and both parts counted alone.
pub(crate) fn is_cut(before: char, after: char) -> bool {
    let classes = Classes::get();
    let (left, right) = (classes.of(before), classes.of(after));
    match (left, right) {
        // Only white space goes on into white space, and symbols into newlines.
        (Class::Space | Class::Newline, Class::Space) => false,
        (_, Class::Space) => true,
        (Class::Number, right) => right != Class::Number,
        (left, Class::Newline | Class::Number) if left.is_letter() => true,
        // An apostrophe may begin a contraction.
        (left, Class::Other) if left.is_letter() => after != '\'',
        // A slash may follow the newlines after symbols.
        (Class::Newline, right) => right != Class::Newline && after != '/',
        _ => false,
    }
}

/// The last place in `text`, at or after byte `from`, where it may be cut.
pub(crate) fn last_cut(text: &str, from: usize) -> Option<usize> {
    let mut after: Option<(usize, char)> = None;
    for (at, c) in text.char_indices().rev() {
        if let Some((place, next)) = after {
            if place < from {
                return None;
            }
            if is_cut(c, next) {
                return Some(place);
            }
        }
        after = Some((at, c));
    }
    None
}
