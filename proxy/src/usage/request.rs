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
    /// The region that is asked for (Anthropic's `inference_geo`).
    pub geo: Option<Label>,
    /// The speed that is asked for: Anthropic's `fast`, Bedrock's `optimized`.
    pub speed: Option<Label>,
    /// Most output tokens, if the request sets a bound; of several the highest.
    pub max_output: Option<u64>,
    /// One of the bounds bounds nothing: it is below zero, or no number.
    pub is_unbounded: bool,
    /// Prompts that are each answered by themselves, where there is a list of them.
    pub prompts: Option<u64>,
    /// Searches that the provider may run, where it may: as many as the request allows.
    pub searches: Option<Searches>,
    /// Images that are to be changed or built on; of those in JSON.
    pub input_images: Option<u64>,
    /// Documents that are to be ranked.
    pub documents: Option<u64>,
    /// Whether other models are named, one of which may answer.
    pub has_fallbacks: bool,
    /// Whether the reply is to be made in the background and fetched later.
    pub background: bool,
    /// Whether the reply is not to be kept, so that nobody can read it back.
    pub is_unstored: bool,
    /// How many choices (or pictures) are asked for; of several figures the highest.
    pub choices: Option<u64>,
    /// The body was no complete JSON document.
    pub malformed: bool,
    /// A key that matters came twice; the last one was taken, as most servers do.
    pub duplicate_key: bool,
    /// Servers may read something else in it, and take another price for that: a model, tier, speed or region
    /// that comes twice and differs, or is too long to be read; a key in another case of its letters.
    pub two_readings: bool,
    /// The body's encoding could not be read, or not to its end.
    pub capped: bool,
    /// Bytes of the body after decoding.
    pub decoded_bytes: u64,
}

/// How many searches a request allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Searches {
    /// So many.
    AtMost(u64),
    /// It does not say.
    Unbounded,
}

mod id {
    pub(super) const MODEL: u8 = 0;
    pub(super) const STREAM: u8 = 1;
    pub(super) const INCLUDE_USAGE: u8 = 2;
    pub(super) const TIER: u8 = 3;
    pub(super) const MAX_OUTPUT: u8 = 6;
    pub(super) const BACKGROUND: u8 = 7;
    pub(super) const CHOICES: u8 = 8;
    pub(super) const SPEED: u8 = 9;
    pub(super) const GEO: u8 = 10;
    pub(super) const TOOL: u8 = 11;
    pub(super) const USES: u8 = 12;
    pub(super) const SEARCH: u8 = 13;
    pub(super) const DOCUMENTS: u8 = 14;
    pub(super) const FALLBACK: u8 = 15;
    pub(super) const STORE: u8 = 16;
    pub(super) const IMAGE: u8 = 17;
    pub(super) const IMAGES: u8 = 18;
    pub(super) const PROMPT: u8 = 19;
    pub(super) const PROMPTS: u8 = 20;
}

/// An object whose presence is told, whatever is in it.
const SEARCH: Node = Node::object(&[]).marked(id::SEARCH);
/// A tool; some of them search the web.
static TOOL: Node = Node::object(&[
    ("type", Node::scalar(id::TOOL)),
    ("max_uses", Node::scalar(id::USES)),
    ("googleSearch", SEARCH),
    ("google_search", SEARCH),
    ("googleSearchRetrieval", SEARCH),
    ("google_search_retrieval", SEARCH),
    ("enterpriseWebSearch", SEARCH),
]);
/// OpenRouter's plugins.
static PLUGIN: Node =
    Node::object(&[("id", Node::scalar(id::TOOL)), ("max_results", Node::scalar(id::USES))]);
static DOCUMENT: Node = Node::object(&[]);
static FALLBACK: Node = Node::scalar(id::FALLBACK);

/// Google's place for the bounds of a generation; its JSON takes either spelling of a name.
const GENERATION: Node = Node::object(&[
    ("maxOutputTokens", Node::scalar(id::MAX_OUTPUT)),
    ("max_output_tokens", Node::scalar(id::MAX_OUTPUT)),
    ("candidateCount", Node::scalar(id::CHOICES)),
    ("candidate_count", Node::scalar(id::CHOICES)),
])
.hearing_alike();

/// A prompt of a list: a text, or the list of its tokens.
static PROMPT: Node = Node::text(id::PROMPT).or_array(&DOCUMENT).marked(id::PROMPT);

/// Where a bound stands by the names of the APIs: OpenAI's three, Anthropic's, Google's, Bedrock's
/// (Converse, and the bodies of each family behind InvokeModel), Ollama's, llama.cpp's and vLLM's.
static REQUEST: Node = Node::object(&[
    ("model", Node::scalar(id::MODEL)),
    ("stream", Node::scalar(id::STREAM)),
    ("stream_options", Node::object(&[("include_usage", Node::scalar(id::INCLUDE_USAGE))])),
    ("service_tier", Node::scalar(id::TIER)),
    ("serviceTier", Node::object(&[("type", Node::scalar(id::TIER))]).or_scalar(id::TIER)),
    ("max_tokens", Node::scalar(id::MAX_OUTPUT)),
    ("max_completion_tokens", Node::scalar(id::MAX_OUTPUT)),
    ("max_output_tokens", Node::scalar(id::MAX_OUTPUT)),
    ("max_new_tokens", Node::scalar(id::MAX_OUTPUT)),
    ("max_tokens_to_sample", Node::scalar(id::MAX_OUTPUT)),
    ("max_gen_len", Node::scalar(id::MAX_OUTPUT)),
    ("maxTokens", Node::scalar(id::MAX_OUTPUT)),
    ("n_predict", Node::scalar(id::MAX_OUTPUT)),
    ("options", Node::object(&[("num_predict", Node::scalar(id::MAX_OUTPUT))]).hearing_alike()),
    ("generationConfig", GENERATION),
    ("generation_config", GENERATION),
    (
        "inferenceConfig",
        Node::object(&[
            ("maxTokens", Node::scalar(id::MAX_OUTPUT)),
            ("max_new_tokens", Node::scalar(id::MAX_OUTPUT)),
        ])
        .hearing_alike(),
    ),
    (
        "textGenerationConfig",
        Node::object(&[("maxTokenCount", Node::scalar(id::MAX_OUTPUT))]).hearing_alike(),
    ),
    (
        "parameters",
        Node::object(&[
            ("max_new_tokens", Node::scalar(id::MAX_OUTPUT)),
            ("maxOutputTokens", Node::scalar(id::MAX_OUTPUT)),
            ("max_tokens", Node::scalar(id::MAX_OUTPUT)),
            ("sampleCount", Node::scalar(id::CHOICES)),
            ("candidateCount", Node::scalar(id::CHOICES)),
        ])
        .hearing_alike(),
    ),
    // Converse passes these on to the model as they are.
    (
        "additionalModelRequestFields",
        Node::object(&[
            ("max_tokens", Node::scalar(id::MAX_OUTPUT)),
            ("max_new_tokens", Node::scalar(id::MAX_OUTPUT)),
            ("max_gen_len", Node::scalar(id::MAX_OUTPUT)),
            ("maxTokens", Node::scalar(id::MAX_OUTPUT)),
        ])
        .hearing_alike(),
    ),
    ("prompt", Node::array(&PROMPT).marked(id::PROMPTS)),
    ("background", Node::scalar(id::BACKGROUND)),
    ("store", Node::scalar(id::STORE)),
    ("image", Node::text(id::IMAGE).marked(id::IMAGE)),
    ("images", Node::array(&DOCUMENT).marked(id::IMAGES)),
    ("n", Node::scalar(id::CHOICES)),
    ("best_of", Node::scalar(id::CHOICES)),
    ("num_generations", Node::scalar(id::CHOICES)),
    ("speed", Node::scalar(id::SPEED)),
    ("performanceConfig", Node::object(&[("latency", Node::scalar(id::SPEED))])),
    ("inference_geo", Node::scalar(id::GEO)),
    ("tools", Node::array(&TOOL)),
    ("plugins", Node::array(&PLUGIN)),
    ("web_search_options", SEARCH),
    ("search_parameters", SEARCH),
    ("documents", Node::array(&DOCUMENT).marked(id::DOCUMENTS)),
    ("models", Node::array(&FALLBACK)),
])
.hearing_alike();

#[derive(Debug, Default)]
struct Found {
    model: Held,
    tier: Held,
    stream: bool,
    include_usage: bool,
    background: bool,
    is_unstored: bool,
    speed: Held,
    geo: Held,
    max_output: Option<u64>,
    is_unbounded: bool,
    choices: Option<u64>,
    /// Whether the list of prompts holds more than the tokens of one.
    has_prompts: bool,
    prompts: Option<u64>,
    searches: bool,
    uses: Option<u64>,
    documents: Option<u64>,
    image: bool,
    images: Option<u64>,
    has_fallbacks: bool,
    duplicate_key: bool,
    two_readings: bool,
}

impl Found {
    /// Takes a bound. Servers differ in which of two they take.
    fn bound(&mut self, raw: &[u8]) {
        let bound = bound(raw);
        self.max_output = self.max_output.max(bound);
        self.is_unbounded |= bound.is_none() && raw != b"null";
    }

    /// Keeps a text that decides the price, of which the last one counts.
    fn decisive(held: &mut Held, two_readings: &mut bool, raw: &[u8]) {
        *two_readings |= !held.is_empty() && held.bytes() != raw;
        held.text(raw);
    }
}

/// A bound as it is written; one that is too large to be believed is one all the same. Below zero it
/// means that there is none.
fn bound(raw: &[u8]) -> Option<u64> {
    let is_number = raw.first().is_some_and(u8::is_ascii_digit);
    number::count(raw, &mut Anomalies::default()).or_else(|| is_number.then_some(number::COUNT_MAX))
}

impl Sink for Found {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        let truth = raw == b"true";
        match id {
            id::MODEL => {
                self.two_readings |= !self.model.is_empty() && self.model.bytes() != raw;
                self.model.clear();
                self.model.text(raw);
            }
            id::TIER => Self::decisive(&mut self.tier, &mut self.two_readings, raw),
            id::STREAM => self.stream = truth,
            id::INCLUDE_USAGE => self.include_usage = truth,
            id::BACKGROUND => self.background = truth,
            id::STORE => self.is_unstored = raw == b"false",
            id::MAX_OUTPUT => self.bound(raw),
            id::CHOICES => self.choices = self.choices.max(bound(raw)),
            id::SPEED => Self::decisive(&mut self.speed, &mut self.two_readings, raw),
            id::GEO => Self::decisive(&mut self.geo, &mut self.two_readings, raw),
            id::TOOL => {
                self.searches |= raw.starts_with(b"\"web_search") || raw == b"\"web\"";
            }
            id::USES => self.uses = self.uses.max(bound(raw)),
            id::FALLBACK => self.has_fallbacks = true,
            _ => {}
        }
    }

    fn too_long(&mut self, id: u8) {
        match id {
            id::MAX_OUTPUT => self.max_output = Some(number::COUNT_MAX),
            id::CHOICES => self.choices = Some(number::COUNT_MAX),
            id::USES => self.uses = Some(number::COUNT_MAX),
            id::MODEL | id::TIER | id::SPEED | id::GEO => self.two_readings = true,
            _ => {}
        }
    }

    fn open(&mut self, id: u8, _at: u64) {
        self.searches |= id == id::SEARCH;
        self.has_prompts |= id == id::PROMPT;
    }

    fn other_kind(&mut self, id: u8) {
        self.searches |= id == id::SEARCH;
        self.image |= id == id::IMAGE;
        self.has_prompts |= id == id::PROMPT;
    }

    fn text(&mut self, id: u8, raw: &[u8]) {
        self.image |= id == id::IMAGE && !raw.is_empty();
        self.has_prompts |= id == id::PROMPT;
    }

    fn close(&mut self, id: u8, _at: u64, items: u64) {
        match id {
            id::DOCUMENTS => self.documents = self.documents.max(Some(items)),
            id::IMAGES => self.images = self.images.max(Some(items)),
            id::PROMPTS => self.prompts = self.prompts.max(Some(items)),
            _ => {}
        }
    }

    fn duplicate(&mut self) {
        self.duplicate_key = true;
    }

    fn alike(&mut self) {
        self.two_readings = true;
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
                choices: form.choices(),
                two_readings: form.has_two_readings(),
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
            geo: found.geo.name(),
            speed: found.speed.name(),
            max_output: found.max_output,
            is_unbounded: found.is_unbounded,
            prompts: found.prompts.filter(|_| found.has_prompts),
            searches: found.searches.then(|| found.uses.map_or(Searches::Unbounded, Searches::AtMost)),
            documents: found.documents,
            has_fallbacks: found.has_fallbacks,
            background: found.background,
            is_unstored: found.is_unstored,
            input_images: found.images.or(found.image.then_some(1)),
            choices: found.choices,
            malformed: !scanner.is_complete(),
            duplicate_key: found.duplicate_key,
            two_readings: found.two_readings,
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
                max_output: Some(9),
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

    /// The output bound of a body.
    fn check_bound(body: &str, max_output: Option<u64>, choices: Option<u64>) {
        check(body, &RequestFacts { max_output, choices, ..RequestFacts::default() });
    }

    #[test]
    fn the_highest_bound_counts_wherever_an_api_puts_it() {
        check_bound(r#"{"max_tokens":5,"max_completion_tokens":900,"max_output_tokens":7}"#, Some(900), None);
        check_bound(r#"{"max_tokens":100000,"max_completion_tokens":1}"#, Some(100_000), None);
        check_bound(r#"{"inferenceConfig":{"maxTokens":512,"temperature":1}}"#, Some(512), None);
        check_bound(r#"{"inferenceConfig":{"max_new_tokens":513}}"#, Some(513), None);
        check_bound(r#"{"textGenerationConfig":{"maxTokenCount":64}}"#, Some(64), None);
        check_bound(r#"{"prompt":"x","max_gen_len":65}"#, Some(65), None);
        check_bound(r#"{"prompt":"x","max_tokens_to_sample":66}"#, Some(66), None);
        check_bound(r#"{"options":{"num_ctx":9,"num_predict":67}}"#, Some(67), None);
        let body = r#"{"options":{"num_predict":-1}}"#;
        check(body, &RequestFacts { is_unbounded: true, ..RequestFacts::default() });
        check_bound(r#"{"n_predict":68,"n":2,"best_of":5}"#, Some(68), Some(5));
        check_bound(r#"{"instances":[{}],"parameters":{"sampleCount":4}}"#, None, Some(4));
        check_bound(r#"{"max_tokens":1e12}"#, Some(number::COUNT_MAX), None);
    }

    #[test]
    fn what_changes_the_price_is_read() {
        let facts = RequestFacts::default();
        check(
            r#"{"speed":"fast","inference_geo":"us","service_tier":"auto"}"#,
            &RequestFacts {
                speed: Label::new("fast").ok(),
                geo: Label::new("us").ok(),
                service_tier: Label::new("auto").ok(),
                ..facts.clone()
            },
        );
        check(
            r#"{"performanceConfig":{"latency":"optimized"},"serviceTier":{"type":"priority"}}"#,
            &RequestFacts {
                speed: Label::new("optimized").ok(),
                service_tier: Label::new("priority").ok(),
                ..facts.clone()
            },
        );
        check(
            r#"{"models":["a","b"],"documents":["x",{"text":"y"},"z"]}"#,
            &RequestFacts { has_fallbacks: true, documents: Some(3), ..facts.clone() },
        );
        let searches = |body: &str, searches| check(body, &RequestFacts { searches, ..facts.clone() });
        searches(
            r#"{"tools":[{"type":"function","function":{"name":"web"}},{"type":"web_search_20250305","max_uses":5}]}"#,
            Some(Searches::AtMost(5)),
        );
        searches(r#"{"tools":[{"type":"web_search"}]}"#, Some(Searches::Unbounded));
        searches(r#"{"plugins":[{"id":"web"}]}"#, Some(Searches::Unbounded));
        searches(r#"{"tools":[{"type":"web_fetch_20250910","max_uses":5}]}"#, None);
        searches(r#"{"tools":[{"googleSearch":{}}]}"#, Some(Searches::Unbounded));
        searches(r#"{"web_search_options":{}}"#, Some(Searches::Unbounded));
        searches(r#"{"web_search_options":null,"tools":[{"type":"function","max_uses":3}]}"#, None);
    }

    #[test]
    fn the_last_of_two_models_counts_and_the_repetition_is_told() {
        let twice = RequestFacts { duplicate_key: true, two_readings: true, ..model("dear") };
        check(r#"{"model":"cheap","model":"dear"}"#, &twice);
        check(r#"{"model":"cheap","mod\u0065l":"dear"}"#, &twice);
        let same = RequestFacts { duplicate_key: true, ..model("dear") };
        check(r#"{"model":"dear","model":"dear"}"#, &same);
    }

    #[test]
    fn what_decides_the_price_and_has_two_readings_says_so() {
        let two = |body: &str| scan(None, body.as_bytes(), 5).two_readings;
        for body in [
            r#"{"service_tier":"flex","service_tier":"priority"}"#,
            r#"{"service_tier":"flex","serviceTier":"priority"}"#,
            r#"{"serviceTier":{"type":"flex"},"service_tier":"priority"}"#,
            r#"{"speed":"fast","speed":"slow"}"#,
            r#"{"inference_geo":"us","inference_geo":"global"}"#,
            r#"{"model":"cheap","MODEL":"dear"}"#,
            r#"{"Model":"dear"}"#,
            r#"{"max_tokens":1,"Max_Tokens":9}"#,
            r#"{"generationConfig":{"MaxOutputTokens":9}}"#,
            r#"{"options":{"NUM_PREDICT":9}}"#,
        ] {
            assert!(two(body), "{body}");
        }
        for body in [
            r#"{"service_tier":"flex","service_tier":"flex"}"#,
            r#"{"messages":[{"Model":"x","role":"user"}],"metadata":{"Model":"x"}}"#,
            r#"{"model":"a","Temperature":1,"stream":true,"stream":false}"#,
        ] {
            assert!(!two(body), "{body}");
        }
        let long = format!(r#"{{"model":"{}"}}"#, "x".repeat(70_000));
        assert!(two(&long));
    }

    #[test]
    fn a_bound_that_bounds_nothing_is_told() {
        let facts = |body: &str| scan(None, body.as_bytes(), 3);
        for (body, bound, unbounded) in [
            (r#"{"max_tokens":5,"n_predict":-1}"#, Some(5), true),
            (r#"{"max_tokens":"100000"}"#, None, true),
            (r#"{"max_tokens":null,"max_completion_tokens":7}"#, Some(7), false),
            (
                r#"{"additionalModelRequestFields":{"max_tokens":8},"inferenceConfig":{"maxTokens":1}}"#,
                Some(8),
                false,
            ),
            (r#"{"parameters":{"maxOutputTokens":9,"candidateCount":2}}"#, Some(9), false),
        ] {
            let found = facts(body);
            assert_eq!((found.max_output, found.is_unbounded), (bound, unbounded), "{body}");
        }
        let long = format!(r#"{{"max_tokens":1000.{}}}"#, "0".repeat(70_000));
        assert_eq!(scan(None, long.as_bytes(), 4_096).max_output, Some(number::COUNT_MAX));
    }

    #[test]
    fn prompts_of_a_list_are_counted_and_tokens_of_one_are_not() {
        for (body, prompts) in [
            (r#"{"prompt":"a"}"#, None),
            (r#"{"prompt":["a","","c"]}"#, Some(3)),
            (r#"{"prompt":[1,2,3,4]}"#, None),
            (r#"{"prompt":[[1,2],[3]]}"#, Some(2)),
            (r#"{"prompt":[]}"#, None),
            (r#"{"prompt":{"id":"p"}}"#, None),
        ] {
            assert_eq!(scan(None, body.as_bytes(), 2).prompts, prompts, "{body}");
        }
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
