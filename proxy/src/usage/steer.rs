//! Changes what a request asks for: its model and the bound of its output, in a body that is held whole.
//!
//! Invariants
//! - Everything else passes byte for byte; frames that are not touched are not copied.
//! - A bound that is lower already stays; every other one, under any name, becomes the new one. Where none
//!   is there that the API heeds, one is added.
//! - A body that cannot be changed for certain is not changed at all.
//!
//! Not here: when to change something (`exchange::steering`), models in paths (`api`).

use super::include::Cursor;
use super::json::{Node, Scanner, Sink};
use super::{Api, number};
use bursar_domain::event::Anomalies;
use bytes::Bytes;
use serde_json::Value;

/// What to change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The model to ask for.
    pub model: Option<&'a str>,
    /// The most output tokens.
    pub max_output: Option<u64>,
    /// Whether a bound that is added is `max_completion_tokens`, as OpenAI's newer models want it.
    pub completion_tokens: bool,
}

/// Why a body cannot be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unchangeable {
    /// It is no complete JSON object.
    NotJson,
    /// Nobody knows how this API is told a bound that is not there yet.
    NoBound,
}

mod id {
    pub(super) const ROOT: u8 = 1;
    pub(super) const MODEL: u8 = 2;
    pub(super) const MAX_TOKENS: u8 = 3;
    pub(super) const MAX_COMPLETION_TOKENS: u8 = 4;
    pub(super) const MAX_OUTPUT_TOKENS: u8 = 5;
    /// Of families behind InvokeModel, and of llama.cpp.
    pub(super) const OTHER: u8 = 6;
    pub(super) const NUM_PREDICT: u8 = 7;
    pub(super) const GENERATION_TOKENS: u8 = 8;
    pub(super) const INFERENCE_TOKENS: u8 = 9;
    pub(super) const OPTIONS: u8 = 10;
    pub(super) const GENERATION: u8 = 11;
    pub(super) const GENERATION_SNAKE: u8 = 12;
    pub(super) const INFERENCE: u8 = 13;
}

const GENERATION: Node = Node::object(&[
    ("maxOutputTokens", Node::scalar(id::GENERATION_TOKENS)),
    ("max_output_tokens", Node::scalar(id::GENERATION_TOKENS)),
]);

/// The names of `request`, each where it stands there.
static BODY: Node = Node::object(&[
    ("model", Node::scalar(id::MODEL)),
    ("max_tokens", Node::scalar(id::MAX_TOKENS)),
    ("max_completion_tokens", Node::scalar(id::MAX_COMPLETION_TOKENS)),
    ("max_output_tokens", Node::scalar(id::MAX_OUTPUT_TOKENS)),
    ("max_new_tokens", Node::scalar(id::OTHER)),
    ("max_tokens_to_sample", Node::scalar(id::OTHER)),
    ("max_gen_len", Node::scalar(id::OTHER)),
    ("maxTokens", Node::scalar(id::OTHER)),
    ("n_predict", Node::scalar(id::OTHER)),
    ("options", Node::object(&[("num_predict", Node::scalar(id::NUM_PREDICT))]).marked(id::OPTIONS)),
    ("generationConfig", GENERATION.marked(id::GENERATION)),
    ("generation_config", GENERATION.marked(id::GENERATION_SNAKE)),
    (
        "inferenceConfig",
        Node::object(&[
            ("maxTokens", Node::scalar(id::INFERENCE_TOKENS)),
            ("max_new_tokens", Node::scalar(id::INFERENCE_TOKENS)),
        ])
        .marked(id::INFERENCE),
    ),
    ("textGenerationConfig", Node::object(&[("maxTokenCount", Node::scalar(id::OTHER))])),
    (
        "parameters",
        Node::object(&[
            ("max_new_tokens", Node::scalar(id::OTHER)),
            ("maxOutputTokens", Node::scalar(id::OTHER)),
            ("max_tokens", Node::scalar(id::OTHER)),
        ]),
    ),
    (
        "additionalModelRequestFields",
        Node::object(&[
            ("max_tokens", Node::scalar(id::OTHER)),
            ("max_new_tokens", Node::scalar(id::OTHER)),
            ("max_gen_len", Node::scalar(id::OTHER)),
            ("maxTokens", Node::scalar(id::OTHER)),
        ]),
    ),
])
.marked(id::ROOT);

/// Where a bound goes that is not there yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// What tells that the API's own bound is there.
    own: &'static [u8],
    /// The object that it goes into, and its name; `None` for the document itself.
    within: Option<(&'static [u8], &'static str)>,
    /// Its name.
    name: &'static str,
}

/// Where `api` takes its bound from; `None` where it makes no output that could be bounded.
fn place_of(api: Api, completion_tokens: bool) -> Option<Result<Place, Unchangeable>> {
    let root = |own, name| Some(Ok(Place { own, within: None, name }));
    match api {
        Api::OpenAiChat => {
            let name = if completion_tokens { "max_completion_tokens" } else { "max_tokens" };
            root(&[id::MAX_TOKENS, id::MAX_COMPLETION_TOKENS], name)
        }
        Api::LegacyCompletions | Api::Messages | Api::CohereChat | Api::CohereChatV1 => {
            root(&[id::MAX_TOKENS], "max_tokens")
        }
        Api::Responses => root(&[id::MAX_OUTPUT_TOKENS], "max_output_tokens"),
        Api::GenerateContent | Api::StreamGenerateContent => Some(Ok(Place {
            own: &[id::GENERATION_TOKENS],
            within: Some((&[id::GENERATION, id::GENERATION_SNAKE], "generationConfig")),
            name: "maxOutputTokens",
        })),
        Api::Interactions => Some(Ok(Place {
            own: &[id::GENERATION_TOKENS],
            within: Some((&[id::GENERATION, id::GENERATION_SNAKE], "generation_config")),
            name: "max_output_tokens",
        })),
        Api::Converse | Api::ConverseStream => Some(Ok(Place {
            own: &[id::INFERENCE_TOKENS],
            within: Some((&[id::INFERENCE], "inferenceConfig")),
            name: "maxTokens",
        })),
        Api::OllamaChat | Api::OllamaGenerate => Some(Ok(Place {
            own: &[id::NUM_PREDICT],
            within: Some((&[id::OPTIONS], "options")),
            name: "num_predict",
        })),
        Api::Invoke | Api::InvokeStream | Api::ResponsesCompact | Api::AssistantsRun => {
            Some(Err(Unchangeable::NoBound))
        }
        _ => None,
    }
}

/// Whether a bound of output means anything to `api`.
#[must_use]
pub fn has_output(api: Api) -> bool {
    place_of(api, false).is_some()
}

#[derive(Debug)]
struct Edit {
    at: u64,
    delete: u64,
    insert: Bytes,
}

#[derive(Debug)]
struct Found<'a> {
    wanted: Wanted<'a>,
    /// Ids of bounds that are there.
    bounds: u32,
    has_model: bool,
    /// The last container of each kind: where it closes, and whether it is empty.
    closed: [Option<(u64, bool)>; 16],
    /// A wanted value that was too long to see, or a container where a value belongs.
    opaque: bool,
    edits: Vec<Edit>,
}

impl Found<'_> {
    fn replace(&mut self, at: u64, raw: &[u8], insert: String) {
        self.edits.push(Edit { at, delete: raw.len() as u64, insert: Bytes::from(insert) });
    }

    fn has(&self, id: u8) -> bool {
        self.bounds & 1_u32.wrapping_shl(u32::from(id)) != 0
    }

    fn close_of(&self, id: u8) -> Option<(u64, bool)> {
        self.closed.get(usize::from(id)).copied().flatten()
    }

    fn insert(&mut self, (at, is_empty): (u64, bool), member: String) {
        let comma = if is_empty { "" } else { "," };
        self.edits.push(Edit { at, delete: 0, insert: Bytes::from(format!("{comma}{member}")) });
    }
}

impl Sink for Found<'_> {
    fn value(&mut self, id: u8, raw: &[u8], at: u64) {
        if id == id::MODEL {
            self.has_model = true;
            if let Some(model) = self.wanted.model {
                self.replace(at, raw, quoted(model));
            }
            return;
        }
        self.bounds |= 1_u32.wrapping_shl(u32::from(id));
        let Some(most) = self.wanted.max_output else { return };
        let is_lower = number::count(raw, &mut Anomalies::default()).is_some_and(|count| count <= most);
        if !is_lower {
            self.replace(at, raw, most.to_string());
        }
    }

    fn too_long(&mut self, _id: u8) {
        self.opaque = true;
    }

    fn close(&mut self, id: u8, at: u64, items: u64) {
        if let Some(place) = self.closed.get_mut(usize::from(id)) {
            *place = Some((at, items == 0));
        }
    }

    fn other_kind(&mut self, _id: u8) {
        self.opaque = true;
    }
}

fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

/// The body with what is wanted; the same frames where nothing is to be changed.
pub fn steer(frames: &[Bytes], api: Api, wanted: &Wanted<'_>) -> Result<Vec<Bytes>, Unchangeable> {
    let mut scanner = Scanner::new(&BODY);
    let mut found = Found {
        wanted: *wanted,
        bounds: 0,
        has_model: false,
        closed: [None; 16],
        opaque: false,
        edits: Vec::new(),
    };
    for frame in frames {
        scanner.feed(frame, &mut found);
    }
    let root = found.close_of(id::ROOT);
    let Some(root) = root.filter(|_| scanner.is_complete() && !found.opaque) else {
        return Err(Unchangeable::NotJson);
    };
    let mut added = Vec::new();
    if let Some(model) = wanted.model
        && !found.has_model
    {
        added.push(format!("\"model\":{}", quoted(model)));
    }
    if let Some(most) = wanted.max_output
        && let Some(place) = place_of(api, wanted.completion_tokens)
    {
        match place {
            Ok(place) => add_bound(&mut found, &place, most, &mut added),
            Err(_) if found.bounds != 0 => {}
            Err(error) => return Err(error),
        }
    }
    if !added.is_empty() {
        found.insert(root, added.join(","));
    }
    Ok(apply(frames, scanner.offset(), found.edits))
}

fn add_bound(found: &mut Found<'_>, place: &Place, most: u64, added: &mut Vec<String>) {
    if place.own.iter().any(|id| found.has(*id)) {
        return;
    }
    let member = format!("{}:{most}", quoted(place.name));
    match place.within {
        None => added.push(member),
        Some((containers, name)) => match containers.iter().find_map(|id| found.close_of(*id)) {
            Some(close) => found.insert(close, member),
            None => added.push(format!("{}:{{{member}}}", quoted(name))),
        },
    }
}

fn apply(frames: &[Bytes], length: u64, mut edits: Vec<Edit>) -> Vec<Bytes> {
    if edits.is_empty() {
        return frames.to_vec();
    }
    edits.sort_by_key(|edit| edit.at);
    let mut out = Vec::with_capacity(frames.len().saturating_add(2));
    let mut cursor = Cursor { at: 0 };
    for Edit { at, delete, insert } in edits {
        cursor.copy(frames, 0, at, &mut out);
        out.push(insert);
        cursor.at = cursor.at.max(at.saturating_add(delete));
    }
    cursor.copy(frames, 0, length, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::RequestScan;
    use proptest::prelude::*;
    use serde_json::json;

    fn join(frames: &[Bytes]) -> String {
        String::from_utf8(frames.concat()).unwrap()
    }

    fn wanted(model: Option<&'static str>, max_output: Option<u64>) -> Wanted<'static> {
        Wanted { model, max_output, completion_tokens: false }
    }

    fn check(api: Api, wanted: Wanted<'_>, body: &str, expected: Result<&str, Unchangeable>) {
        for size in [1, 3, 7, body.len().max(1)] {
            let frames: Vec<Bytes> = body.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
            let found = steer(&frames, api, &wanted).map(|frames| join(&frames));
            assert_eq!(found.as_deref().map_err(|error| *error), expected, "{body} in pieces of {size}");
        }
    }

    #[test]
    fn a_model_is_replaced_wherever_it_stands_and_added_where_there_is_none() {
        let mini = || wanted(Some("gpt-4o-mini"), None);
        check(
            Api::OpenAiChat,
            mini(),
            "{ \"messages\":[{\"model\":\"no\"}], \"model\" : \"gpt-4o\" ,\"n\":1 }\n",
            Ok("{ \"messages\":[{\"model\":\"no\"}], \"model\" : \"gpt-4o-mini\" ,\"n\":1 }\n"),
        );
        check(
            Api::OpenAiChat,
            mini(),
            r#"{"model":"a","mod\u0065l":"b"}"#,
            Ok(r#"{"model":"gpt-4o-mini","mod\u0065l":"gpt-4o-mini"}"#),
        );
        check(Api::OpenAiChat, mini(), r#"{"model":null}"#, Ok(r#"{"model":"gpt-4o-mini"}"#));
        check(Api::OpenAiChat, mini(), "{}", Ok(r#"{"model":"gpt-4o-mini"}"#));
        check(Api::OpenAiChat, mini(), r#"{"n":1}"#, Ok(r#"{"n":1,"model":"gpt-4o-mini"}"#));
        check(Api::Messages, wanted(Some("a\"b"), None), r#"{"model":"x"}"#, Ok(r#"{"model":"a\"b"}"#));
        check(Api::OpenAiChat, mini(), "[]", Err(Unchangeable::NotJson));
        check(Api::OpenAiChat, mini(), r#"{"model":"a""#, Err(Unchangeable::NotJson));
        check(Api::OpenAiChat, mini(), r#"{"model":"a"} x"#, Err(Unchangeable::NotJson));
        check(Api::OpenAiChat, mini(), "", Err(Unchangeable::NotJson));
    }

    #[test]
    fn bounds_are_lowered_under_every_name_and_lower_ones_stay() {
        let cap = || wanted(None, Some(500));
        let chat = |body, expected| check(Api::OpenAiChat, cap(), body, Ok(expected));
        chat(r#"{"max_tokens":900,"stop":[]}"#, r#"{"max_tokens":500,"stop":[]}"#);
        chat(r#"{"max_tokens":300}"#, r#"{"max_tokens":300}"#);
        chat(r#"{"max_tokens":3e2}"#, r#"{"max_tokens":3e2}"#);
        chat(
            r#"{"max_tokens":300,"max_completion_tokens":1e9}"#,
            r#"{"max_tokens":300,"max_completion_tokens":500}"#,
        );
        chat(r#"{"max_tokens":null}"#, r#"{"max_tokens":500}"#);
        chat(r#"{"max_tokens":-1}"#, r#"{"max_tokens":500}"#);
        chat(r#"{"max_tokens":"many"}"#, r#"{"max_tokens":500}"#);
        chat(r#"{"max_tokens":1.5}"#, r#"{"max_tokens":500}"#);
        chat(r#"{"maxTokens":7}"#, r#"{"maxTokens":7,"max_tokens":500}"#);
        check(Api::Invoke, cap(), r#"{"max_gen_len":501}"#, Ok(r#"{"max_gen_len":500}"#));
        check(Api::Invoke, cap(), r#"{"prompt":""}"#, Err(Unchangeable::NoBound));
    }

    #[test]
    fn a_bound_is_added_where_each_api_takes_it_from() {
        let cap = || wanted(None, Some(9));
        let newer = Wanted { completion_tokens: true, ..cap() };
        check(Api::OpenAiChat, newer, r#"{"a":1}"#, Ok(r#"{"a":1,"max_completion_tokens":9}"#));
        check(Api::OpenAiChat, cap(), r#"{"a":1}"#, Ok(r#"{"a":1,"max_tokens":9}"#));
        check(Api::Responses, cap(), r#"{"a":1}"#, Ok(r#"{"a":1,"max_output_tokens":9}"#));
        let google = r#"{"contents":[],"generationConfig":{"maxOutputTokens":9}}"#;
        check(Api::GenerateContent, cap(), r#"{"contents":[]}"#, Ok(google));
        check(
            Api::GenerateContent,
            cap(),
            r#"{"generation_config":{"temperature":1},"contents":[]}"#,
            Ok(r#"{"generation_config":{"temperature":1,"maxOutputTokens":9},"contents":[]}"#),
        );
        check(
            Api::StreamGenerateContent,
            cap(),
            r#"{"generationConfig":{}}"#,
            Ok(r#"{"generationConfig":{"maxOutputTokens":9}}"#),
        );
        check(
            Api::Interactions,
            cap(),
            r#"{"a":1}"#,
            Ok(r#"{"a":1,"generation_config":{"max_output_tokens":9}}"#),
        );
        check(Api::Converse, cap(), r#"{"a":1}"#, Ok(r#"{"a":1,"inferenceConfig":{"maxTokens":9}}"#));
        check(
            Api::OllamaChat,
            cap(),
            r#"{"options":{"seed":1}}"#,
            Ok(r#"{"options":{"seed":1,"num_predict":9}}"#),
        );
        check(Api::Embeddings, cap(), r#"{"input":"x"}"#, Ok(r#"{"input":"x"}"#));
        let both = wanted(Some("m"), Some(9));
        check(Api::Messages, both, r#"{"a":1}"#, Ok(r#"{"a":1,"model":"m","max_tokens":9}"#));
    }

    #[test]
    fn untouched_frames_are_not_copied() {
        let text = Bytes::from(format!(r#"{{"x":"{}","#, "y".repeat(1_000)));
        let end = Bytes::from_static(br#""model":"a"}"#);
        let frames = steer(&[text.clone(), end], Api::OpenAiChat, &wanted(Some("b"), None)).unwrap();
        assert_eq!(frames[0].as_ptr(), text.as_ptr());
    }

    fn member() -> impl Strategy<Value = (String, serde_json::Value)> {
        let names =
            ["model", "max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict", "a\"b"];
        let value = prop_oneof![
            Just(json!(null)),
            (0_u64..2_000).prop_map(|n| json!(n)),
            "[a-z\"\\\\{}]{0,5}".prop_map(|text| json!(text)),
        ];
        (prop::sample::select(names.to_vec()).prop_map(str::to_owned), value)
    }

    proptest! {
        #[test]
        fn what_is_read_of_the_new_body_is_what_was_wanted_and_the_rest_is_as_it_was(
            members in prop::collection::vec(member(), 0..6),
            size in 1_usize..20,
        ) {
            let original = serde_json::Value::Object(members.into_iter().collect());
            let body = serde_json::to_string(&original).unwrap();
            let frames: Vec<Bytes> = body.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
            let new = steer(&frames, Api::OpenAiChat, &wanted(Some("m"), Some(700))).unwrap();
            let text = join(&new);
            let mut scan = RequestScan::new(None);
            scan.feed(text.as_bytes());
            let facts = scan.facts();
            prop_assert_eq!(facts.model.as_ref().map(|model| model.as_str()), Some("m"));
            prop_assert!(facts.max_output.is_some_and(|most| most <= 700));
            let new: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(new.get("a\"b"), original.get("a\"b"));
        }
    }
}
