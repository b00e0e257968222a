//! YAML text as a tree in which every key and value knows its line and column.
//!
//! Invariants
//! - Scalars stay the text that was written: `1.10` is not turned into a number and back.
//! - Depth is bounded, and nothing is expanded: anchors' aliases are refused.
//! - Duplicate keys are reported, all of them; the first one counts.
//!
//! Not here: which keys exist (`settings`), what values mean (`value`).

use super::error::{Fault, Wrong};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use std::borrow::Cow;

/// Deepest nesting that is read. The deepest setting is at level 4.
const DEPTH_MAX: usize = 32;

/// A place in the text; both numbers count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl Position {
    /// The first character.
    pub(super) const START: Self = Self { line: 1, column: 1 };

    fn of(marker: Marker) -> Self {
        Self { line: marker.line().max(1), column: marker.col().saturating_add(1) }
    }
}

/// A value and where it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) content: Content,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Text; `plain` when it was written without quotes.
    Scalar { text: String, plain: bool },
    /// Values in order.
    List(Vec<Node>),
    /// Keys in order, each once.
    Map(Vec<Entry>),
}

/// One key of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: Position,
    pub(super) value: Node,
}

impl Node {
    /// Text that was quoted, or came from outside a file.
    pub(super) fn text(at: Position, text: &str) -> Self {
        Self { at, content: Content::Scalar { text: text.to_owned(), plain: false } }
    }

    /// Whether nothing was written, or `null` or `~`.
    pub(super) fn is_null(&self) -> bool {
        match &self.content {
            Content::Scalar { text, plain } => {
                *plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            Content::List(_) | Content::Map(_) => false,
        }
    }

    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match &self.content {
            Content::Scalar { .. } if self.is_null() => "nothing",
            Content::Scalar { .. } => "a single value",
            Content::List(_) => "a list",
            Content::Map(_) => "a map of keys",
        }
    }
}

/// What could be read of a text.
pub(super) struct Parsed {
    /// The document; `None` when the text has none or could not be read to its end.
    pub(super) root: Option<Node>,
    /// Every mistake.
    pub(super) faults: Vec<Fault>,
}

/// Reads one document.
pub(super) fn parse(text: &str) -> Parsed {
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text.strip_prefix('\u{FEFF}').unwrap_or(text));
    while let Some(next) = parser.next_event() {
        let step = match next {
            Ok((event, span)) => builder.step(event, Position::of(span.start)),
            Err(error) => Err(not_yaml(&error)),
        };
        if let Err(fault) = step {
            builder.faults.push(*fault);
            return Parsed { root: None, faults: builder.faults };
        }
    }
    Parsed { root: builder.root, faults: builder.faults }
}

fn not_yaml(error: &saphyr_parser::ScanError) -> Box<Fault> {
    let wrong = format!("this is not YAML: {}", error.info());
    let remedy = "check indentation, quotes and brackets here and on the line above";
    stop(Position::of(*error.marker()), &wrong, remedy)
}

fn stop(at: Position, wrong: &str, remedy: &str) -> Box<Fault> {
    Box::new(Fault::at(at, Wrong::absent(wrong, remedy)))
}

/// A list or map that is still open.
enum Open {
    List { at: Position, items: Vec<Node> },
    Map { at: Position, entries: Vec<Entry>, key: Option<(String, Position)> },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    faults: Vec<Fault>,
}

impl Builder {
    fn step(&mut self, event: Event<'_>, at: Position) -> Result<(), Box<Fault>> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => self.start_document(at),
            Event::Alias(_) => {
                Err(stop(at, "aliases (`*name`) are not supported", "write the value out here"))
            }
            Event::Scalar(text, style, _, tag) => {
                check_tag(tag.as_ref(), at)?;
                self.scalar(text.into_owned(), style == ScalarStyle::Plain, at)
            }
            Event::SequenceStart(_, tag) => {
                check_tag(tag.as_ref(), at)?;
                self.enter(Open::List { at, items: Vec::new() }, at)
            }
            Event::MappingStart(_, tag) => {
                check_tag(tag.as_ref(), at)?;
                self.enter(Open::Map { at, entries: Vec::new(), key: None }, at)
            }
            Event::SequenceEnd | Event::MappingEnd => self.leave(),
        }
    }

    fn start_document(&self, at: Position) -> Result<(), Box<Fault>> {
        if self.root.is_none() {
            return Ok(());
        }
        Err(stop(at, "a second document starts here", "keep one document: remove the `---` and what follows"))
    }

    fn enter(&mut self, open: Open, at: Position) -> Result<(), Box<Fault>> {
        if let Some(Open::Map { key: None, .. }) = self.open.last() {
            return Err(stop(
                at,
                "a list or map stands where a key is expected",
                "write a plain name as the key",
            ));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(stop(at, "this is nested too deeply", "remove levels; no setting is this deep"));
        }
        self.open.push(open);
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Box<Fault>> {
        let node = match self.open.pop() {
            Some(Open::List { at, items }) => Node { at, content: Content::List(items) },
            Some(Open::Map { at, entries, .. }) => Node { at, content: Content::Map(entries) },
            None => return Ok(()),
        };
        self.value(node);
        Ok(())
    }

    fn scalar(&mut self, text: String, plain: bool, at: Position) -> Result<(), Box<Fault>> {
        if let Some(Open::Map { key: key @ None, .. }) = self.open.last_mut() {
            if text == "<<" && plain {
                return Err(stop(at, "merge keys (`<<`) are not supported", "write the keys out here"));
            }
            *key = Some((text, at));
            return Ok(());
        }
        self.value(Node { at, content: Content::Scalar { text, plain } });
        Ok(())
    }

    fn value(&mut self, node: Node) {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => {
                let Some((key, at)) = key.take() else { return };
                match entries.iter().find(|entry| entry.key == key) {
                    Some(first) => self.faults.push(duplicate(&key, at, first.at)),
                    // A value that is not there has no place of its own.
                    None if node.is_null() => entries.push(Entry { key, at, value: Node { at, ..node } }),
                    None => entries.push(Entry { key, at, value: node }),
                }
            }
        }
    }
}

fn duplicate(key: &str, at: Position, first: Position) -> Fault {
    let wrong = format!("the key {key:?} is here twice (first on line {})", first.line);
    Fault::at(at, Wrong::absent(&wrong, "keep one of them"))
}

/// Tags of YAML's own types say nothing new; any other asks for something that is not done here.
fn check_tag(tag: Option<&Cow<'_, Tag>>, at: Position) -> Result<(), Box<Fault>> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() => {
            Err(stop(at, "tags (`!name`) are not supported", "remove the tag and write the plain value"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_know_their_place_and_keep_their_text() {
        let parsed = parse("a: 1.10\nb:\n  - x\n  - {c: \"null\"}\n");
        assert!(parsed.faults.is_empty());
        let Some(Node { content: Content::Map(entries), .. }) = parsed.root else { panic!("no map") };
        assert_eq!(entries[0].value.at, Position { line: 1, column: 4 });
        assert_eq!(entries[0].value.content, Content::Scalar { text: "1.10".to_owned(), plain: true });
        assert_eq!(entries[1].at, Position { line: 2, column: 1 });
        let Content::List(items) = &entries[1].value.content else { panic!("no list") };
        assert_eq!(items[1].at, Position { line: 4, column: 5 });
    }

    #[test]
    fn what_could_expand_or_surprise_is_refused() {
        let deep = "[".repeat(40);
        for (text, want) in [
            ("a: &x 1\nb: *x\n", "aliases"),
            ("a: !secret x\n", "tags"),
            ("a: 1\n---\nb: 2\n", "second document"),
            ("? [1]\n: 2\n", "where a key is expected"),
            ("base: {}\n<<: {a: 1}\n", "merge keys"),
            (deep.as_str(), "nested too deeply"),
            ("a: [1, 2\n", "not YAML"),
        ] {
            let parsed = parse(text);
            assert!(parsed.root.is_none(), "{text}");
            let last = parsed.faults.last().map(|fault| fault.wrong.to_string()).unwrap_or_default();
            assert!(last.contains(want), "{text}: {last}");
        }
    }
}
