//! The models that the body of a request names, read strictly: what could be read in two ways is not read.
//!
//! Invariants
//! - A key that means the model in any case of its letters, or twice, is an error: servers differ in which
//!   one they take.
//! - Of fallbacks, tools and inline lines of batches every model counts.
//! - Nothing of the body is kept but models' names.
//!
//! Not here: reading a body as it passes, for the meter (`usage::request`).

use bursar_domain::Label;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::io::Read;

/// Most models that one body may name.
const NAMES_MAX: usize = 100_000;

const UNREADABLE: &str = "its body cannot be read";

/// What a body says of models.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Body {
    /// Every model that it names.
    pub(super) names: Vec<Label>,
    /// Its lines, if it makes a batch.
    pub(super) lines: Lines,
}

/// The lines of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Lines {
    /// There are none in the body.
    #[default]
    Absent,
    /// Each of them names its model, and there are none elsewhere.
    Named,
    /// Some name none, or are in a file.
    Unseen,
}

/// Reads a JSON body.
pub(super) fn in_json(pieces: &[Bytes]) -> Result<Body, &'static str> {
    let read = match pieces {
        [] => return Ok(Body::default()),
        [one] => serde_json::from_slice::<Top>(one),
        pieces => serde_json::from_reader(Pieces { pieces, at: 0 }),
    };
    match read {
        Ok(Top(Ok(body))) => Ok(body),
        Ok(Top(Err(why))) => Err(why),
        Err(_) => Err(UNREADABLE),
    }
}

/// Pieces of a body, one after the other.
struct Pieces<'a> {
    pieces: &'a [Bytes],
    at: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while let Some((first, others)) = self.pieces.split_first() {
            let rest = first.get(self.at..).unwrap_or_default();
            if rest.is_empty() {
                (self.pieces, self.at) = (others, 0);
                continue;
            }
            let count = rest.len().min(buffer.len());
            if let (Some(into), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
                into.copy_from_slice(from);
            }
            self.at = self.at.saturating_add(count);
            return Ok(count);
        }
        Ok(0)
    }
}

// === JSON ===

/// The whole document: what it says, or why that is not clear.
struct Top(Result<Body, &'static str>);

/// A value where a model's name may stand.
enum Name {
    Text(Label),
    Nothing,
    Other,
}

/// A key of ours, whatever the case of its letters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Model,
    /// A list of models, or of objects that name one each.
    Several,
    Tools,
    Requests,
    File,
}

fn known(key: &str) -> Option<Known> {
    let keys = [
        ("model", Known::Model),
        ("models", Known::Several),
        ("fallbacks", Known::Several),
        ("fallback_models", Known::Several),
        ("tools", Known::Tools),
        ("requests", Known::Requests),
        ("input_file_id", Known::File),
        ("input_files", Known::File),
    ];
    keys.into_iter().find(|(known, _)| key.eq_ignore_ascii_case(known)).map(|(_, known)| known)
}

impl<'de> Deserialize<'de> for Top {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TopVisitor)
    }
}

struct TopVisitor;

impl<'de> Visitor<'de> for TopVisitor {
    type Value = Top;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Top, A::Error> {
        let mut body = Body::default();
        let (mut seen, mut trouble, mut has_file) = (Vec::new(), None, false);
        while let Some(key) = map.next_key::<String>()? {
            let Some(known) = known(&key) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if known == Known::Model && seen.contains(&known) {
                trouble = Some("it names its model twice");
            }
            seen.push(known);
            match known {
                Known::Model => match map.next_value::<Name>()? {
                    Name::Text(name) => body.names.push(name),
                    Name::Nothing => {}
                    Name::Other => trouble = Some("the name of its model is no text"),
                },
                Known::Several => body.names.extend(map.next_value::<Several>()?.0),
                Known::Tools => body.names.extend(map.next_value::<Several>()?.0),
                Known::Requests => {
                    let lines = map.next_value::<Requests>()?;
                    body.lines = if lines.all_named { Lines::Named } else { Lines::Unseen };
                    body.names.extend(lines.names);
                }
                Known::File => {
                    map.next_value::<IgnoredAny>()?;
                    has_file = true;
                }
            }
            if body.names.len() > NAMES_MAX {
                return Err(A::Error::custom("too many models"));
            }
        }
        if seen.iter().filter(|known| **known == Known::Requests).count() > 1 || has_file {
            body.lines = Lines::Unseen;
        }
        Ok(Top(trouble.map_or(Ok(body), Err)))
    }
}

/// Google's names may begin with their collection.
fn label(text: &str) -> Option<Label> {
    Label::lossy(text.strip_prefix("models/").unwrap_or(text))
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Loose::deserialize(deserializer)? {
            Loose::Text(text) => label(&text).map_or(Self::Nothing, Self::Text),
            Loose::Null => Self::Nothing,
            Loose::Object(_) | Loose::List(_) | Loose::Other => Self::Other,
        })
    }
}

/// A list of names, or of objects with a `model`; in any other shape it names nothing.
struct Several(Vec<Label>);

impl<'de> Deserialize<'de> for Several {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut names = Vec::new();
        Loose::deserialize(deserializer)?.gather(&mut names);
        Ok(Self(names))
    }
}

/// The lines of a batch that are in the request.
struct Requests {
    names: Vec<Label>,
    all_named: bool,
}

impl<'de> Deserialize<'de> for Requests {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut names = Vec::new();
        let Loose::List(items) = Loose::deserialize(deserializer)? else {
            return Ok(Self { names, all_named: false });
        };
        let mut all_named = !items.is_empty();
        for item in items {
            let before = names.len();
            item.gather(&mut names);
            all_named &= names.len() > before;
        }
        Ok(Self { names, all_named })
    }
}

/// A value of which only models' names are kept: its own text, its `model`, and those of `params` and
/// `body` in it.
enum Loose {
    Text(String),
    Null,
    /// The models that it names.
    Object(Vec<Label>),
    List(Vec<Loose>),
    Other,
}

impl Loose {
    fn gather(self, names: &mut Vec<Label>) {
        match self {
            Self::Text(text) => names.extend(label(&text)),
            Self::Object(found) => names.extend(found),
            Self::List(items) => items.into_iter().for_each(|item| item.gather(names)),
            Self::Null | Self::Other => {}
        }
    }
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor)
    }
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Loose;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Loose, E> {
        Ok(Loose::Text(text.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Loose, E> {
        Ok(Loose::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Loose, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Loose>()? {
            list.push(item);
            if list.len() > NAMES_MAX {
                return Err(A::Error::custom("too many items"));
            }
        }
        Ok(Loose::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loose, A::Error> {
        let mut names = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if ["model", "params", "body"].iter().any(|known| key.eq_ignore_ascii_case(known)) {
                let value = map.next_value::<Loose>()?;
                let is_name = key.eq_ignore_ascii_case("model");
                match value {
                    Loose::Text(text) if is_name => names.extend(label(&text)),
                    Loose::Object(found) => names.extend(found),
                    _ => {}
                }
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Loose::Object(names))
    }
}

// === forms ===

/// Reads the one field called `model` of a form (RFC 7578). Every place that looks like a boundary is taken
/// for one: what that splits too often names a model too often, and is not read.
pub(super) fn in_form(pieces: &[Bytes], boundary: &str) -> Result<Body, &'static str> {
    let whole = pieces.concat();
    let delimiter = format!("--{boundary}");
    let mut names = Vec::new();
    let mut from = 0;
    let ends: Vec<usize> = memchr::memmem::find_iter(&whole, delimiter.as_bytes()).collect();
    for end in ends.into_iter().chain([whole.len()]) {
        let part = whole.get(from..end).unwrap_or_default();
        from = end.saturating_add(delimiter.len());
        let Some((head, value)) = head_of(part) else { continue };
        if !is_model_field(head) {
            continue;
        }
        let value = std::str::from_utf8(value).map_err(|_| UNREADABLE)?;
        names.push(label(value.trim()).ok_or(UNREADABLE)?);
    }
    if names.len() > 1 {
        return Err("it names its model twice");
    }
    Ok(Body { names, lines: Lines::Absent })
}

/// A part's head and value, with either line end.
fn head_of(part: &[u8]) -> Option<(&[u8], &[u8])> {
    [&b"\r\n\r\n"[..], b"\n\n"]
        .into_iter()
        .filter_map(|blank| {
            let at = memchr::memmem::find(part, blank)?;
            Some((at, part.get(..at)?, part.get(at.saturating_add(blank.len())..)?))
        })
        .min_by_key(|(at, ..)| *at)
        .map(|(_, head, value)| (head, value))
}

/// Whether a part's head names the field `model`, in any way of writing that.
fn is_model_field(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    // Of a file its own name is not the field's.
    head.split([';', '\n']).map(str::trim).any(|parameter| {
        let Some((name, value)) = parameter.split_once('=') else { return false };
        let value = value.rsplit('\'').next().unwrap_or_default();
        let value = percent_encoding::percent_decode_str(value.trim().trim_matches('"')).decode_utf8_lossy();
        matches!(name.trim(), "name" | "name*") && value == "model"
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Read whole and in pieces of every small size.
    fn check(text: &str, expected: Result<(&[&str], Lines), &'static str>) {
        for size in [1, 3, text.len().max(1)] {
            let pieces: Vec<Bytes> = text.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
            let found = in_json(&pieces).map(|body| {
                (body.names.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>(), body.lines)
            });
            let expected =
                expected.map(|(names, lines)| (names.iter().map(|n| (*n).to_owned()).collect(), lines));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn every_model_that_may_answer_is_found() {
        check(
            r#"{"model":"a","messages":[{"content":"{\"model\":\"b\"}","model":"c"}]}"#,
            Ok((&["a"], Lines::Absent)),
        );
        check(r#"{"model":"a","models":["b","c"]}"#, Ok((&["a", "b", "c"], Lines::Absent)));
        check(r#"{"fallbacks":[{"model":"b"},"c"],"model":"a"}"#, Ok((&["b", "c", "a"], Lines::Absent)));
        check(
            r#"{"model":"a","tools":[{"type":"image_generation","model":"img"}]}"#,
            Ok((&["a", "img"], Lines::Absent)),
        );
        check(r#"{"requests":[{"model":"models/e"},{"model":"models/f"}]}"#, Ok((&["e", "f"], Lines::Named)));
        check(r#"{"input":"x"}"#, Ok((&[], Lines::Absent)));
        check(r#"{"model":null}"#, Ok((&[], Lines::Absent)));
        check("", Ok((&[], Lines::Absent)));
    }

    #[test]
    fn what_two_servers_would_read_differently_is_not_read() {
        let twice = Err("it names its model twice");
        check(r#"{"model":"a","model":"b"}"#, twice);
        check(r#"{"model":"a","Model":"b"}"#, twice);
        check(r#"{"model":"a","mod\u0065l":"b"}"#, twice);
        check(r#"{"model":["a"]}"#, Err("the name of its model is no text"));
        for text in
            [r#"{"model":"a"} {"model":"b"}"#, r#"["a"]"#, "{", r#"{"model":"a",}"#, "x", "\u{feff}{}", "1"]
        {
            check(text, Err(UNREADABLE));
        }
    }

    #[test]
    fn lines_of_a_batch_each_name_their_model_or_are_not_seen() {
        let line = r#"{"custom_id":"1","params":{"model":"a","messages":[]}}"#;
        check(&format!(r#"{{"requests":[{line},{line}]}}"#), Ok((&["a", "a"], Lines::Named)));
        let bare = r#"{"custom_id":"2","params":{}}"#;
        check(&format!(r#"{{"requests":[{line},{bare}]}}"#), Ok((&["a"], Lines::Unseen)));
        check(r#"{"requests":[]}"#, Ok((&[], Lines::Unseen)));
        check(
            r#"{"input_file_id":"f","endpoint":"/v1/chat/completions","model":"a"}"#,
            Ok((&["a"], Lines::Unseen)),
        );
        let both = format!(r#"{{"requests":[{line}],"input_file_id":"f"}}"#);
        check(&both, Ok((&["a"], Lines::Unseen)));
    }

    fn check_form(body: &str, expected: Result<&[&str], &'static str>) {
        let found = in_form(&[Bytes::copy_from_slice(body.as_bytes())], "b");
        let found =
            found.map(|body| body.names.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>());
        assert_eq!(found, expected.map(|names| names.iter().map(|n| (*n).to_owned()).collect()), "{body}");
    }

    #[test]
    fn a_form_names_its_model_once_however_the_field_is_written() {
        let file =
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\n\r\nmodel\r\n";
        let field = |name: &str, value: &str| {
            format!("--b\r\nContent-Disposition: form-data; {name}\r\n\r\n{value}\r\n")
        };
        let one = field("name=\"model\"", "a");
        check_form(&format!("{file}{one}--b--\r\n"), Ok(&["a"]));
        check_form(&format!("{file}--b--\r\n"), Ok(&[]));
        for again in ["name=model", "NAME=\"Model\"", "name*=utf-8''mod%65l", "name = \"model\""] {
            let twice = format!("{one}{}--b--", field(again, "z"));
            check_form(&twice, Err("it names its model twice"));
        }
        check_form(&format!("{}--b--", one.replace("\r\n", "\n")), Ok(&["a"]));
    }

    proptest! {
        #[test]
        fn no_body_makes_reading_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let pieces = [Bytes::from(body)];
            let _ = (in_json(&pieces), in_form(&pieces, "b"));
        }
    }
}
