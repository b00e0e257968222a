//! What the meter reads from a request body: the model, whether it streams, the output it may make.
//!
//! Invariants
//! - The body is read as it passes and never collected.
//! - Forms (`multipart`) are read like JSON: sound and pictures are sent that way.
//! - A damaged body leaves the facts that were read, and says so.
//!
//! Not here: changing the body (`include`), the API (`api`).

use super::decode::Decoder;
use super::json::{Node, Scanner, Sink};
use super::multipart::{Form, boundary_of};
use super::number;
use super::shape::Held;
use bursar_domain::event::Anomalies;
use bursar_domain::ids::Label;

/// What a request body says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// The model that is asked for.
    pub model: Option<Label>,
    /// Whether a stream is asked for.
    pub stream: bool,
    /// Whether usage in the stream is asked for.
    pub include_usage: bool,
    /// The service tier that is asked for.
    pub service_tier: Option<Label>,
    /// Most output tokens, if the request sets a bound.
    pub max_output: Option<u64>,
    /// Whether the reply is to be made in the background and fetched later.
    pub background: bool,
    /// How many choices are asked for.
    pub choices: Option<u64>,
    /// The body was no complete JSON document.
    pub malformed: bool,
    /// A key that matters came twice; the last one was taken, as most servers do.
    pub duplicate_key: bool,
    /// The body's encoding could not be read, or not to its end.
    pub capped: bool,
    /// Bytes of the body after decoding.
    pub decoded_bytes: u64,
}

mod id {
    pub(super) const MODEL: u8 = 0;
    pub(super) const STREAM: u8 = 1;
    pub(super) const INCLUDE_USAGE: u8 = 2;
    pub(super) const TIER: u8 = 3;
    pub(super) const MAX_TOKENS: u8 = 4;
    pub(super) const MAX_COMPLETION: u8 = 5;
    pub(super) const MAX_OUTPUT: u8 = 6;
    pub(super) const BACKGROUND: u8 = 7;
    pub(super) const CHOICES: u8 = 8;
}

/// Google's place for the bounds of a generation; its JSON takes either spelling of a name.
const GENERATION: Node = Node::object(&[
    ("maxOutputTokens", Node::scalar(id::MAX_OUTPUT)),
    ("max_output_tokens", Node::scalar(id::MAX_OUTPUT)),
    ("candidateCount", Node::scalar(id::CHOICES)),
    ("candidate_count", Node::scalar(id::CHOICES)),
]);

static REQUEST: Node = Node::object(&[
    ("model", Node::scalar(id::MODEL)),
    ("stream", Node::scalar(id::STREAM)),
    ("stream_options", Node::object(&[("include_usage", Node::scalar(id::INCLUDE_USAGE))])),
    ("service_tier", Node::scalar(id::TIER)),
    ("max_tokens", Node::scalar(id::MAX_TOKENS)),
    ("max_completion_tokens", Node::scalar(id::MAX_COMPLETION)),
    ("max_output_tokens", Node::scalar(id::MAX_OUTPUT)),
    ("background", Node::scalar(id::BACKGROUND)),
    ("n", Node::scalar(id::CHOICES)),
    ("generationConfig", GENERATION),
    ("generation_config", GENERATION),
    ("serviceTier", Node::scalar(id::TIER)),
]);

#[derive(Debug, Default)]
struct Found {
    model: Held,
    tier: Held,
    stream: bool,
    include_usage: bool,
    background: bool,
    max_tokens: Option<u64>,
    max_completion: Option<u64>,
    max_output: Option<u64>,
    choices: Option<u64>,
    duplicate_key: bool,
}

impl Sink for Found {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        let truth = raw == b"true";
        let count = || number::count(raw, &mut Anomalies::default());
        match id {
            id::MODEL => {
                self.model.clear();
                self.model.text(raw);
            }
            id::TIER => self.tier.text(raw),
            id::STREAM => self.stream = truth,
            id::INCLUDE_USAGE => self.include_usage = truth,
            id::BACKGROUND => self.background = truth,
            id::MAX_TOKENS => self.max_tokens = count(),
            id::MAX_COMPLETION => self.max_completion = count(),
            id::MAX_OUTPUT => self.max_output = count(),
            id::CHOICES => self.choices = count(),
            _ => {}
        }
    }

    fn duplicate(&mut self) {
        self.duplicate_key = true;
    }
}

/// Reads a request body as it passes.
#[derive(Debug)]
pub struct RequestScan {
    scanner: Scanner,
    found: Found,
    /// The body is a form.
    form: Option<Box<Form>>,
    form_bytes: u64,
    decoder: Option<Decoder>,
    capped: bool,
}

impl RequestScan {
    /// A reader for a body with this `content-encoding`.
    #[must_use]
    pub fn new(content_encoding: Option<&str>) -> Self {
        let decoder = content_encoding.map_or(Ok(None), Decoder::new);
        let capped = decoder.is_err();
        let decoder = decoder.ok().flatten();
        Self {
            scanner: Scanner::new(&REQUEST),
            found: Found::default(),
            form: None,
            form_bytes: 0,
            decoder,
            capped,
        }
    }

    /// The same for a body of this `content-type`, which may be that of a form.
    #[must_use]
    pub fn with_type(self, content_type: Option<&str>) -> Self {
        let form = content_type.and_then(boundary_of).map(|boundary| Box::new(Form::new(boundary)));
        Self { form, ..self }
    }

    /// Reads on.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.capped {
            return;
        }
        let Self { scanner, found, form, form_bytes, decoder, capped } = self;
        let mut read = |piece: &[u8]| match form {
            None => scanner.feed(piece, found),
            Some(form) => {
                *form_bytes = form_bytes.saturating_add(piece.len() as u64);
                form.feed(piece);
            }
        };
        match decoder {
            None => read(bytes),
            Some(decoder) => {
                decoder.feed(bytes, read);
                *capped = decoder.is_stopped();
            }
        }
    }

    /// Whether a stream is asked for, as far as the body was read.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.found.stream || self.form.as_ref().is_some_and(|form| form.is_stream())
    }

    /// Whether usage in the stream is asked for, as far as the body was read.
    #[must_use]
    pub const fn asks_for_usage(&self) -> bool {
        self.found.include_usage
    }

    /// The model that is asked for, as far as the body was read.
    #[must_use]
    pub fn model(&self) -> Option<Label> {
        match &self.form {
            Some(form) => form.model().and_then(Label::lossy),
            None => self.found.model.name(),
        }
    }

    /// The facts so far, as if the body ended here.
    #[must_use]
    pub fn facts(&self) -> RequestFacts {
        let Self { scanner, found, capped, .. } = self;
        if let Some(form) = &self.form {
            return RequestFacts {
                model: form.model().and_then(Label::lossy),
                stream: form.is_stream(),
                malformed: !form.is_complete(),
                capped: *capped,
                decoded_bytes: self.form_bytes,
                ..RequestFacts::default()
            };
        }
        RequestFacts {
            model: found.model.name(),
            stream: found.stream,
            include_usage: found.include_usage,
            service_tier: found.tier.name(),
            max_output: found.max_completion.or(found.max_output).or(found.max_tokens),
            background: found.background,
            choices: found.choices,
            malformed: !scanner.is_complete(),
            duplicate_key: found.duplicate_key,
            capped: *capped,
            decoded_bytes: scanner.offset(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(encoding: Option<&str>, body: &[u8], size: usize) -> RequestFacts {
        let mut scan = RequestScan::new(encoding);
        for piece in body.chunks(size) {
            scan.feed(piece);
        }
        scan.facts()
    }

    fn check(body: &str, expected: &RequestFacts) {
        let expected = RequestFacts { decoded_bytes: body.len() as u64, ..expected.clone() };
        for size in [1, 2, 3, 7, 17, body.len().max(1)] {
            assert_eq!(scan(None, body.as_bytes(), size), expected, "{body} in pieces of {size}");
        }
    }

    fn model(name: &str) -> RequestFacts {
        RequestFacts { model: Label::new(name).ok(), ..RequestFacts::default() }
    }

    #[test]
    fn the_facts_are_read_wherever_they_stand() {
        check(
            r#"{"messages":[{"role":"user","content":"{\"model\":\"no\"} \\"}],"model":"gpt-4o","n":2,
                "stream":true,"stream_options":{"include_usage":true},"service_tier":"flex",
                "max_tokens":9,"max_completion_tokens":7}"#,
            &RequestFacts {
                stream: true,
                include_usage: true,
                service_tier: Label::new("flex").ok(),
                max_output: Some(7),
                choices: Some(2),
                ..model("gpt-4o")
            },
        );
        check(
            r#"{"background":true,"max_output_tokens":1e3,"model":"a\/b","metadata":{"model":"x","stream":true}}"#,
            &RequestFacts { background: true, max_output: Some(1_000), ..model("a/b") },
        );
        check(r#"{"model":null,"stream":null,"max_tokens":null}"#, &RequestFacts::default());
        check(
            r#"{"contents":[],"generationConfig":{"maxOutputTokens":64,"candidateCount":3},"serviceTier":"flex"}"#,
            &RequestFacts {
                max_output: Some(64),
                choices: Some(3),
                service_tier: Label::new("flex").ok(),
                ..RequestFacts::default()
            },
        );
        check(
            r#"{"model":"g","generation_config":{"max_output_tokens":65}}"#,
            &RequestFacts { max_output: Some(65), ..model("g") },
        );
    }

    #[test]
    fn the_last_of_two_models_counts_and_the_repetition_is_told() {
        check(r#"{"model":"cheap","model":"dear"}"#, &RequestFacts { duplicate_key: true, ..model("dear") });
        check(
            r#"{"model":"cheap","mod\u0065l":"dear"}"#,
            &RequestFacts { duplicate_key: true, ..model("dear") },
        );
    }

    #[test]
    fn a_damaged_body_keeps_what_was_read() {
        let malformed = RequestFacts { malformed: true, ..model("m") };
        check(r#"{"model":"m""#, &malformed);
        check(r#"{"model":"m",}"#, &malformed);
        check(r#"{"model":"m"} x"#, &malformed);
        check(r#"{"model":"m","stream" true}"#, &malformed);
        check("", &RequestFacts { malformed: true, ..RequestFacts::default() });
        check("model=m", &RequestFacts { malformed: true, ..RequestFacts::default() });
    }

    #[test]
    fn deep_nesting_and_large_bodies_cost_no_memory() {
        let mut body = br#"{"model":"m","x":"#.to_vec();
        body.extend(std::iter::repeat_n(b'[', 200_000));
        body.extend(std::iter::repeat_n(b']', 200_000));
        body.extend(br#","n":3}"#);
        let facts = scan(None, &body, 4_096);
        assert_eq!((facts.choices, facts.malformed), (Some(3), false));
    }

    #[test]
    fn a_form_names_its_model_and_asks_for_a_stream() {
        let body =
            b"--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n{\"model\":\"no\"}\r\n--b\r\n\
            Content-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--b\r\n\
            Content-Disposition: form-data; name=\"stream\"\r\n\r\ntrue\r\n--b--\r\n";
        for size in [1, 7, body.len()] {
            let mut scan = RequestScan::new(None).with_type(Some("multipart/form-data; boundary=b"));
            for piece in body.chunks(size) {
                scan.feed(piece);
            }
            assert!(scan.is_stream());
            let decoded_bytes = body.len() as u64;
            assert_eq!(scan.facts(), RequestFacts { stream: true, decoded_bytes, ..model("whisper-1") });
        }
        let cut = RequestScan::new(None).with_type(Some("multipart/form-data; boundary=b")).facts();
        assert!(cut.malformed);
    }

    #[test]
    fn an_encoded_body_is_read_decoded() {
        let body = br#"{"model":"m","stream":true}"#;
        let encoded = zstd::encode_all(&body[..], 1).unwrap();
        let facts = scan(Some("zstd"), &encoded, 5);
        assert_eq!((facts.stream, facts.malformed, facts.decoded_bytes), (true, false, body.len() as u64));
        let facts = scan(Some("zstd"), b"no zstd at all here", 5);
        assert!(facts.capped && facts.malformed);
        assert!(scan(Some("lzw"), body, 5).capped);
    }
}
