//! What the meter reads from a form (`multipart/form-data`, RFC 7578): the model, whether a stream is
//! asked for, and how many pictures. Sound and pictures are sent that way.
//!
//! Invariants
//! - The body is read as it passes; of each part only its head and the first bytes of a small value
//!   are kept, so a file of any size costs no memory.
//! - How the body is cut into slices never changes what is found.
//!
//! Not here: JSON bodies (`request`).

use memchr::memchr;

const BOUNDARY_BYTES_MAX: usize = 70;
const LINE_BYTES_MAX: usize = 512;
const VALUE_BYTES_MAX: usize = 256;

/// The boundary that a content type names, if it is one of a form.
#[must_use]
pub fn boundary_of(content_type: &str) -> Option<&str> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"'))
    })?;
    (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()).then_some(boundary)
}

/// A field of a form that the meter wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The model's name.
    Model,
    /// Whether a stream is asked for.
    Stream,
    /// How many pictures are asked for.
    Choices,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before the first part.
    Preamble,
    /// In the head of a part; the field it turned out to be, if any.
    Head(Option<Field>),
    /// In the value of a part.
    Value(Option<Field>),
    /// After the last part.
    Epilogue,
}

/// Reads a form, line by line; a line longer than any of ours is not looked at.
#[derive(Debug)]
pub struct Form {
    delimiter: Vec<u8>,
    place: Place,
    line: Vec<u8>,
    line_length: usize,
    value: Vec<u8>,
    value_lines: u32,
    model: Option<String>,
    stream: bool,
    choices: Option<u64>,
    two_readings: bool,
}

impl Form {
    /// A reader for a form with this boundary.
    #[must_use]
    pub fn new(boundary: &str) -> Self {
        Self {
            delimiter: [b"--", boundary.as_bytes()].concat(),
            place: Place::Preamble,
            line: Vec::new(),
            line_length: 0,
            value: Vec::new(),
            value_lines: 0,
            model: None,
            stream: false,
            choices: None,
            two_readings: false,
        }
    }

    /// Reads on.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(end) = memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(end);
            self.keep(line);
            self.end_line();
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.keep(bytes);
    }

    /// The model, as far as the form was read.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        let last = match self.place {
            // The last delimiter may lack its line end.
            Place::Value(Some(Field::Model)) if self.is_delimiter() && self.value_lines == 1 => {
                std::str::from_utf8(&self.value).ok().filter(|value| !value.is_empty())
            }
            _ => None,
        };
        last.or(self.model.as_deref())
    }

    /// Whether a stream is asked for, as far as the form was read.
    #[must_use]
    pub const fn is_stream(&self) -> bool {
        self.stream
    }

    /// How many pictures are asked for, as far as the form was read.
    #[must_use]
    pub const fn choices(&self) -> Option<u64> {
        self.choices
    }

    /// Whether it names two models, or one that is too long to be read: servers differ in which they take.
    #[must_use]
    pub const fn has_two_readings(&self) -> bool {
        self.two_readings
    }

    /// Whether the last delimiter was seen, which may lack its line end.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.place == Place::Epilogue || (self.is_delimiter() && self.line.ends_with(b"--"))
    }

    fn keep(&mut self, piece: &[u8]) {
        let room = LINE_BYTES_MAX.saturating_sub(self.line.len());
        self.line.extend_from_slice(piece.get(..room.min(piece.len())).unwrap_or_default());
        self.line_length = self.line_length.saturating_add(piece.len());
    }

    fn is_delimiter(&self) -> bool {
        self.line_length <= LINE_BYTES_MAX && self.line.starts_with(&self.delimiter)
    }

    fn end_line(&mut self) {
        if self.is_delimiter() {
            self.end_part();
            let after = self.line.get(self.delimiter.len()..).unwrap_or_default();
            self.place = if after.starts_with(b"--") { Place::Epilogue } else { Place::Head(None) };
        } else {
            self.place = match self.place {
                Place::Head(field) if matches!(self.line.as_slice(), b"" | b"\r") => Place::Value(field),
                Place::Head(field) => Place::Head(field_of(&self.line).or(field)),
                Place::Value(Some(field)) => {
                    self.add_value();
                    Place::Value(Some(field))
                }
                other => other,
            };
        }
        self.line.clear();
        self.line_length = 0;
    }

    /// A value ends with the line end before the delimiter, so all of ours have one line.
    fn add_value(&mut self) {
        self.value_lines = self.value_lines.saturating_add(1);
        if self.value_lines == 1 && self.line_length <= VALUE_BYTES_MAX {
            self.value.extend_from_slice(self.line.trim_ascii());
        }
    }

    fn end_part(&mut self) {
        let value = std::mem::take(&mut self.value);
        let whole = std::mem::take(&mut self.value_lines) == 1;
        let Place::Value(Some(field)) = self.place else { return };
        match field {
            Field::Model if whole && !value.is_empty() => {
                let model = String::from_utf8_lossy(&value).into_owned();
                self.two_readings |= self.model.as_ref().is_some_and(|other| *other != model);
                self.model = Some(model);
            }
            Field::Stream => self.stream = value.eq_ignore_ascii_case(b"true") || value == b"1",
            Field::Choices => {
                let choices = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
                self.choices = self.choices.max(choices);
            }
            Field::Model => self.two_readings = true,
        }
    }
}

/// The field that a `content-disposition` line names.
fn field_of(line: &[u8]) -> Option<Field> {
    let line = std::str::from_utf8(line).ok()?;
    let (name, value) = line.split_once(':')?;
    if !name.trim().eq_ignore_ascii_case("content-disposition") {
        return None;
    }
    let mut parameters = value.split(';').filter_map(|parameter| parameter.split_once('='));
    let (_, field) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("name"))?;
    match field.trim().trim_matches('"') {
        "model" => Some(Field::Model),
        "stream" => Some(Field::Stream),
        "n" => Some(Field::Choices),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &[u8], model: Option<&str>, stream: bool, complete: bool) {
        for size in [1, 2, 3, 7, 64, body.len().max(1)] {
            let mut form = Form::new("xx--y");
            for piece in body.chunks(size) {
                form.feed(piece);
            }
            assert_eq!(
                (form.model(), form.is_stream(), form.is_complete()),
                (model, stream, complete),
                "{size}"
            );
        }
    }

    #[test]
    fn the_model_is_found_before_and_after_a_file() {
        let file = "--xx--y\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\n\
                    Content-Type: audio/wav\r\n\r\n\n\r\nname=\"model\"\r\n--xx-\r\n\r\n\r\n";
        let model = "--xx--y\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n";
        let stream = "--xx--y\r\nContent-Disposition: form-data; name=stream\r\n\r\nTrue\r\n";
        let end = "--xx--y--\r\n";
        check([file, model, stream, end].concat().as_bytes(), Some("whisper-1"), true, true);
        check([model, file, end].concat().as_bytes(), Some("whisper-1"), false, true);
        check([file, model].concat().as_bytes(), None, false, false);
        check([model, "--xx--y--"].concat().as_bytes(), Some("whisper-1"), false, true);
        check(file.as_bytes(), None, false, false);
        check(b"", None, false, false);
    }

    #[test]
    fn a_file_of_one_long_line_costs_no_memory() {
        let mut form = Form::new("b");
        form.feed(b"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n");
        for _ in 0..1_000 {
            form.feed(&[b'a'; 4_096]);
        }
        assert!(form.line.capacity() <= 2 * LINE_BYTES_MAX);
        form.feed(b"\r\n--b--\r\n");
        assert_eq!((form.model(), form.is_complete()), (None, true));
    }

    #[test]
    fn two_models_that_differ_or_one_too_long_to_read_are_told() {
        let field = |head: &str, value: &str| {
            format!("--b\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n")
        };
        let one = field("name=\"model\"", "m");
        for (other, expected) in [
            (one.clone(), false),
            (field("name=model", "dear"), true),
            (field("NAME=\"model\"", "dear"), true),
            (field("name=\"model\"", &"x".repeat(300)), true),
            (field("name=\"model\"", "a\r\nb"), true),
            (field("name=\"other\"", "dear"), false),
        ] {
            let mut form = Form::new("b");
            form.feed(format!("{one}{other}--b--\r\n").as_bytes());
            assert_eq!(form.has_two_readings(), expected, "{other}");
        }
    }

    #[test]
    fn a_boundary_is_one_of_a_form() {
        for (content_type, boundary) in [
            ("multipart/form-data; boundary=abc", Some("abc")),
            ("Multipart/Form-Data; charset=utf-8; BOUNDARY=\"a b\"", Some("a b")),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
            ("multipart/mixed; boundary=abc", None),
            ("application/json", None),
        ] {
            assert_eq!(boundary_of(content_type), boundary, "{content_type}");
        }
    }
}
