//! From Gemini's counts to disjoint token classes.
//!
//! Rules
//! - Input is the prompt and what the provider's own tools put into it; the cached part is inside the
//!   prompt. Output is the candidates and the thoughts.
//! - Modality lists break a total down. A modality that a list leaves out is zero.
//! - Google leaves zeros out of JSON: no candidates beside a total are what the total leaves for them.
//! - Without a prompt count nothing is known of the input.
//!
//! Sources: the discovery documents of the Gemini API (`UsageMetadata`, `Usage` of interactions) and
//! of Vertex AI (`GenerateContentResponse.UsageMetadata`).
//!
//! Not here: where the objects stand in a reply (`gemini`, `interactions`).

use crate::usage::json::{Node, Scanner, Sink};
use crate::usage::number;
use crate::usage::shape::Held;
use bursar_domain::event::{Anomalies, Anomaly};
use bursar_domain::ids::Label;
use bursar_domain::usage::{TokenClass, Usage};

mod field {
    pub(super) const PROMPT: u8 = 0;
    pub(super) const TOOL_USE: u8 = 1;
    pub(super) const CACHED: u8 = 2;
    pub(super) const CANDIDATES: u8 = 3;
    pub(super) const THOUGHTS: u8 = 4;
    pub(super) const TOTAL: u8 = 5;
    /// Fields up to here are counts.
    pub(super) const COUNTS: usize = 6;
    pub(super) const TIER: u8 = 6;
    pub(super) const TRAFFIC: u8 = 7;
    pub(super) const MODALITY: u8 = 8;
    pub(super) const TOKENS: u8 = 9;
    pub(super) const PROMPT_LIST: u8 = 10;
    pub(super) const CACHED_LIST: u8 = 11;
    pub(super) const CANDIDATES_LIST: u8 = 12;
    pub(super) const PROMPT_PART: u8 = 13;
    pub(super) const CACHED_PART: u8 = 14;
    pub(super) const CANDIDATES_PART: u8 = 15;
    pub(super) const GROUNDING: u8 = 16;
    pub(super) const GROUNDING_TYPE: u8 = 17;
    pub(super) const GROUNDING_COUNT: u8 = 18;
}

const PART: &[(&str, Node)] = &[
    ("modality", Node::scalar(field::MODALITY)),
    ("tokenCount", Node::scalar(field::TOKENS)),
    ("tokens", Node::scalar(field::TOKENS)),
];

static PROMPT_PART: Node = Node::object(PART).marked(field::PROMPT_PART);
static CACHED_PART: Node = Node::object(PART).marked(field::CACHED_PART);
static CANDIDATES_PART: Node = Node::object(PART).marked(field::CANDIDATES_PART);
static GROUNDING: Node = Node::object(&[
    ("type", Node::scalar(field::GROUNDING_TYPE)),
    ("count", Node::scalar(field::GROUNDING_COUNT)),
])
.marked(field::GROUNDING);

const PROMPT_LIST: Node = Node::array(&PROMPT_PART).marked(field::PROMPT_LIST);
const CACHED_LIST: Node = Node::array(&CACHED_PART).marked(field::CACHED_LIST);
const CANDIDATES_LIST: Node = Node::array(&CANDIDATES_PART).marked(field::CANDIDATES_LIST);

/// Both APIs' names. Embeddings say `promptTokenDetails`.
static USAGE: Node = Node::object(&[
    ("promptTokenCount", Node::scalar(field::PROMPT)),
    ("toolUsePromptTokenCount", Node::scalar(field::TOOL_USE)),
    ("cachedContentTokenCount", Node::scalar(field::CACHED)),
    ("candidatesTokenCount", Node::scalar(field::CANDIDATES)),
    ("thoughtsTokenCount", Node::scalar(field::THOUGHTS)),
    ("totalTokenCount", Node::scalar(field::TOTAL)),
    ("promptTokensDetails", PROMPT_LIST),
    ("promptTokenDetails", PROMPT_LIST),
    ("cacheTokensDetails", CACHED_LIST),
    ("candidatesTokensDetails", CANDIDATES_LIST),
    ("trafficType", Node::scalar(field::TRAFFIC)),
    ("serviceTier", Node::scalar(field::TIER)),
    ("total_input_tokens", Node::scalar(field::PROMPT)),
    ("total_tool_use_tokens", Node::scalar(field::TOOL_USE)),
    ("total_cached_tokens", Node::scalar(field::CACHED)),
    ("total_output_tokens", Node::scalar(field::CANDIDATES)),
    ("total_thought_tokens", Node::scalar(field::THOUGHTS)),
    ("total_tokens", Node::scalar(field::TOTAL)),
    ("input_tokens_by_modality", PROMPT_LIST),
    ("cached_tokens_by_modality", CACHED_LIST),
    ("output_tokens_by_modality", CANDIDATES_LIST),
    ("grounding_tool_count", Node::array(&GROUNDING)),
]);

/// Tokens of the modalities that have a price of their own; text and documents are the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Parts {
    audio: u64,
    image: u64,
    video: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Modality {
    Image,
    Video,
    Audio,
    Other,
}

impl Modality {
    /// By name, or by number, which a client gets that asks for `enum-encoding=int`.
    fn of(raw: &[u8]) -> Self {
        let name = raw.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(raw);
        let is = |text: &str, number: &[u8]| name.eq_ignore_ascii_case(text.as_bytes()) || raw == number;
        match () {
            () if is("IMAGE", b"2") => Self::Image,
            () if is("VIDEO", b"3") => Self::Video,
            () if is("AUDIO", b"4") => Self::Audio,
            () => Self::Other,
        }
    }
}

impl Parts {
    fn add(&mut self, modality: Modality, tokens: u64) {
        let slot = match modality {
            Modality::Image => &mut self.image,
            Modality::Video => &mut self.video,
            Modality::Audio => &mut self.audio,
            Modality::Other => return,
        };
        *slot = slot.saturating_add(tokens);
    }
}

/// One usage object, as sent.
#[derive(Debug, Default)]
pub(in crate::usage) struct Counts {
    counts: [Option<u64>; field::COUNTS],
    prompt: Option<Parts>,
    cached: Option<Parts>,
    candidates: Option<Parts>,
    modality: Option<Modality>,
    tokens: Option<u64>,
    is_search: bool,
    grounded: u64,
    searches: Option<u64>,
    tier: Held,
    traffic: Held,
    /// Text was sent, so a total that leaves nothing for it says nothing.
    pub(in crate::usage) answered: bool,
    anomalies: Anomalies,
}

impl Sink for Counts {
    fn value(&mut self, id: u8, raw: &[u8], _at: u64) {
        if let Some(slot) = self.counts.get_mut(usize::from(id)) {
            *slot = number::count(raw, &mut self.anomalies);
            return;
        }
        match id {
            field::TIER => self.tier.raw(raw),
            field::TRAFFIC => self.traffic.raw(raw),
            field::MODALITY => self.modality = Some(Modality::of(raw)),
            field::TOKENS => self.tokens = number::count(raw, &mut self.anomalies),
            field::GROUNDING_TYPE => self.is_search = raw == b"\"google_search\"",
            field::GROUNDING_COUNT => {
                self.grounded = number::count(raw, &mut self.anomalies).unwrap_or(0);
            }
            _ => {}
        }
    }

    fn open(&mut self, id: u8, _at: u64) {
        match id {
            field::PROMPT_LIST => self.prompt = Some(Parts::default()),
            field::CACHED_LIST => self.cached = Some(Parts::default()),
            field::CANDIDATES_LIST => self.candidates = Some(Parts::default()),
            _ => {}
        }
    }

    fn close(&mut self, id: u8, _at: u64, _items: u64) {
        let list = match id {
            field::PROMPT_PART => &mut self.prompt,
            field::CACHED_PART => &mut self.cached,
            field::CANDIDATES_PART => &mut self.candidates,
            field::GROUNDING => {
                let count = std::mem::take(&mut self.grounded);
                if std::mem::take(&mut self.is_search) {
                    self.searches = Some(self.searches.unwrap_or(0).saturating_add(count));
                }
                return;
            }
            _ => return,
        };
        if let (Some(parts), Some(modality), Some(tokens)) = (list, self.modality, self.tokens) {
            parts.add(modality, tokens);
        }
        (self.modality, self.tokens) = (None, None);
    }

    fn duplicate(&mut self) {
        self.anomalies.insert(Anomaly::MalformedReply);
    }
}

/// What is left of a total for one part after another; each takes at most the rest.
struct Rest(u64);

impl Rest {
    fn take(&mut self, wanted: u64) -> u64 {
        let taken = wanted.min(self.0);
        self.0 = self.0.saturating_sub(taken);
        taken
    }
}

impl Counts {
    pub(in crate::usage) fn of(raw: &[u8]) -> Self {
        let mut counts = Self::default();
        Scanner::new(&USAGE).feed(raw, &mut counts);
        counts
    }

    /// An embedding's input, which is all it has.
    pub(in crate::usage) fn of_embedding(input: u64) -> Self {
        let mut counts = Self::default();
        counts.set(field::PROMPT, Some(input));
        counts
    }

    /// No output is no output where there is none to be had.
    pub(in crate::usage) fn without_output(mut self) -> Self {
        if self.get(field::PROMPT).is_some() {
            self.set(field::CANDIDATES, self.get(field::CANDIDATES).or(Some(0)));
        }
        self
    }

    fn get(&self, id: u8) -> Option<u64> {
        self.counts.get(usize::from(id)).copied().flatten()
    }

    fn set(&mut self, id: u8, value: Option<u64>) {
        if let Some(slot) = self.counts.get_mut(usize::from(id)) {
            *slot = value;
        }
    }

    /// Web searches, where the object counts them.
    pub(in crate::usage) fn searches(&self) -> Option<u64> {
        self.searches
    }

    /// The service tier, or on Vertex the kind of traffic. A number is the enumeration's.
    pub(in crate::usage) fn tier(&self) -> Option<Label> {
        let traffic = match self.traffic.bytes() {
            b"1" => Label::new("ON_DEMAND").ok(),
            b"2" => Label::new("PROVISIONED_THROUGHPUT").ok(),
            _ => self.traffic.label(),
        };
        let is_told = |label: &Label| !label.as_str().to_ascii_uppercase().ends_with("UNSPECIFIED");
        self.tier.label().filter(is_told).or(traffic.filter(is_told))
    }

    /// The disjoint classes.
    pub(in crate::usage) fn usage(&self, anomalies: &mut Anomalies) -> Usage {
        let mut usage = Usage::unknown();
        anomalies.extend(self.anomalies);
        self.input(&mut usage, anomalies);
        self.output(&mut usage, anomalies);
        if let (Some(total), Some(input)) = (self.get(field::TOTAL), usage.input_total())
            && total != input.saturating_add(usage.output_total().unwrap_or(0))
        {
            anomalies.insert(Anomaly::TotalMismatch);
        }
        usage
    }

    fn input(&self, usage: &mut Usage, anomalies: &mut Anomalies) {
        let Some(prompt) = self.get(field::PROMPT) else { return };
        let mut fresh = Rest(prompt);
        let mut cached = Rest(0);
        if let Some(count) = self.get(field::CACHED) {
            if count > prompt {
                anomalies.insert(Anomaly::CachedExceedsInput);
            }
            cached = Rest(fresh.take(count));
        }
        let all = self.prompt.unwrap_or_default();
        let known = self.cached.unwrap_or_default();
        for (all, known, fresh_class, cached_class) in [
            (all.video, known.video, TokenClass::InputVideo, TokenClass::CachedVideo),
            (all.image, known.image, TokenClass::InputImage, TokenClass::CachedImage),
            (all.audio, known.audio, TokenClass::InputAudio, TokenClass::CachedAudio),
        ] {
            // What does not fit beside the cached part is inside it, where no list tells.
            let all = all.max(known);
            let beside = fresh.take(all.saturating_sub(known));
            let inside = all.saturating_sub(beside);
            if self.prompt.is_some() {
                usage.set(fresh_class, beside);
            }
            let taken = cached.take(inside);
            if taken > 0 {
                usage.set(cached_class, taken);
            }
            if taken < inside {
                anomalies.insert(Anomaly::TotalMismatch);
            }
        }
        if self.get(field::CACHED).is_some() {
            usage.set(TokenClass::CachedRead, cached.0);
        }
        usage.set(TokenClass::InputFresh, fresh.0);
        if let Some(count) = self.get(field::TOOL_USE) {
            usage.set(TokenClass::InputToolUse, count);
        }
    }

    fn output(&self, usage: &mut Usage, anomalies: &mut Anomalies) {
        let thoughts = self.get(field::THOUGHTS);
        if let Some(thoughts) = thoughts {
            usage.set(TokenClass::OutputReasoning, thoughts);
        }
        let left = || self.left_of_total().filter(|left| *left > 0 || !self.answered);
        let Some(candidates) = self.get(field::CANDIDATES).or_else(left) else { return };
        let mut text = Rest(candidates);
        if let Some(Parts { audio, image, .. }) = self.candidates {
            for (count, class) in [(image, TokenClass::OutputImage), (audio, TokenClass::OutputAudio)] {
                let taken = text.take(count);
                usage.set(class, taken);
                if taken < count {
                    anomalies.insert(Anomaly::TotalMismatch);
                }
            }
        }
        usage.set(TokenClass::OutputText, text.0);
    }

    /// What the total leaves for the candidates.
    fn left_of_total(&self) -> Option<u64> {
        let (total, prompt) = (self.get(field::TOTAL)?, self.get(field::PROMPT)?);
        [self.get(field::TOOL_USE), self.get(field::THOUGHTS)]
            .iter()
            .flatten()
            .try_fold(total.checked_sub(prompt)?, |left: u64, count| left.checked_sub(*count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TokenClass as C;
    use proptest::prelude::*;

    fn check(raw: &str, expected: &[(TokenClass, u64)], noted: &[Anomaly]) {
        let mut anomalies = Anomalies::default();
        let usage = Counts::of(raw.as_bytes()).usage(&mut anomalies);
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(usage.tokens().collect::<Vec<_>>(), expected, "{raw}");
        assert_eq!(anomalies.iter().collect::<Vec<_>>(), noted, "{raw}");
    }

    #[test]
    fn tool_use_adds_to_the_prompt_and_thoughts_to_the_candidates() {
        check(
            r#"{"promptTokenCount":85,"toolUsePromptTokenCount":149,"candidatesTokenCount":122,
                "thoughtsTokenCount":87,"totalTokenCount":443}"#,
            &[(C::InputFresh, 85), (C::InputToolUse, 149), (C::OutputText, 122), (C::OutputReasoning, 87)],
            &[],
        );
        check(
            r#"{"total_input_tokens":22,"total_tool_use_tokens":129,"total_cached_tokens":0,
                "total_output_tokens":973,"total_thought_tokens":249,"total_tokens":1373}"#,
            &[
                (C::InputFresh, 22),
                (C::InputToolUse, 129),
                (C::CachedRead, 0),
                (C::OutputText, 973),
                (C::OutputReasoning, 249),
            ],
            &[],
        );
    }

    #[test]
    fn modalities_are_taken_out_of_their_totals_by_name_and_by_number() {
        let classes = [
            (C::InputFresh, 9),
            (C::InputAudio, 428),
            (C::InputImage, 0),
            (C::InputVideo, 3_682),
            (C::OutputText, 660),
            (C::OutputImage, 1_120),
            (C::OutputAudio, 0),
        ];
        for names in [["\"AUDIO\"", "\"VIDEO\"", "\"TEXT\"", "\"IMAGE\""], ["4", "3", "1", "2"]] {
            let [audio, video, text, image] = names;
            let raw = format!(
                r#"{{"promptTokenCount":4119,"candidatesTokenCount":1780,"totalTokenCount":5899,
                    "promptTokensDetails":[{{"modality":{audio},"tokenCount":428}},{{"tokenCount":3682,"modality":{video}}},
                    {{"modality":{text},"tokenCount":9}}],"candidatesTokensDetails":[{{"modality":{image},"tokenCount":1120}}]}}"#
            );
            check(&raw, &classes, &[]);
        }
    }

    #[test]
    fn a_cached_modality_is_told_by_its_list_or_by_what_does_not_fit() {
        let listed = r#"{"promptTokenCount":100,"cachedContentTokenCount":60,
            "promptTokensDetails":[{"modality":"AUDIO","tokenCount":50},{"modality":"IMAGE","tokenCount":10}],
            "cacheTokensDetails":[{"modality":"AUDIO","tokenCount":45},{"modality":"TEXT","tokenCount":15}]}"#;
        check(
            listed,
            &[
                (C::InputFresh, 25),
                (C::InputAudio, 5),
                (C::InputImage, 10),
                (C::InputVideo, 0),
                (C::CachedAudio, 45),
                (C::CachedRead, 15),
            ],
            &[],
        );
        let unlisted = r#"{"promptTokenCount":3362,"cachedContentTokenCount":2993,
            "promptTokensDetails":[{"modality":"TEXT","tokenCount":8},{"modality":"VIDEO","tokenCount":3354}]}"#;
        check(
            unlisted,
            &[
                (C::InputFresh, 0),
                (C::InputAudio, 0),
                (C::InputImage, 0),
                (C::InputVideo, 369),
                (C::CachedRead, 8),
                (C::CachedVideo, 2_985),
            ],
            &[],
        );
    }

    #[test]
    fn without_a_prompt_count_nothing_is_known_of_the_input() {
        check(
            r#"{"candidatesTokenCount":18,"thoughtsTokenCount":58,"toolUsePromptTokenCount":5}"#,
            &[(C::OutputText, 18), (C::OutputReasoning, 58)],
            &[],
        );
        check(r#"{"totalTokenCount":10}"#, &[], &[]);
        check(r#"{"trafficType":"ON_DEMAND"}"#, &[], &[]);
    }

    #[test]
    fn candidates_that_are_left_out_are_what_the_total_leaves() {
        check(
            r#"{"promptTokenCount":46,"totalTokenCount":46}"#,
            &[(C::InputFresh, 46), (C::OutputText, 0)],
            &[],
        );
        let thought = r#"{"promptTokenCount":8,"totalTokenCount":108,"thoughtsTokenCount":97}"#;
        let classes = [(C::InputFresh, 8), (C::OutputText, 3), (C::OutputReasoning, 97)];
        check(thought, &classes, &[]);
        check(r#"{"promptTokenCount":46}"#, &[(C::InputFresh, 46)], &[]);
    }

    #[test]
    fn what_does_not_add_up_is_clamped_and_told() {
        check(
            r#"{"promptTokenCount":7,"cachedContentTokenCount":9,"candidatesTokenCount":1,"totalTokenCount":8}"#,
            &[(C::InputFresh, 0), (C::CachedRead, 7), (C::OutputText, 1)],
            &[Anomaly::CachedExceedsInput],
        );
        check(
            r#"{"promptTokenCount":7,"candidatesTokenCount":1,"totalTokenCount":9}"#,
            &[(C::InputFresh, 7), (C::OutputText, 1)],
            &[Anomaly::TotalMismatch],
        );
        check(
            r#"{"promptTokenCount":"7","candidatesTokenCount":-1,"thoughtsTokenCount":1e12}"#,
            &[],
            &[Anomaly::InvalidCount, Anomaly::ImplausibleCount],
        );
    }

    #[test]
    fn the_tier_is_the_traffic_type_where_there_is_no_tier() {
        for (raw, expected) in [
            (r#"{"serviceTier":"flex","trafficType":"ON_DEMAND"}"#, Some("flex")),
            (r#"{"trafficType":"PROVISIONED_THROUGHPUT"}"#, Some("PROVISIONED_THROUGHPUT")),
            (r#"{"trafficType":1}"#, Some("ON_DEMAND")),
            (r#"{"trafficType":2}"#, Some("PROVISIONED_THROUGHPUT")),
            (r#"{"trafficType":"TRAFFIC_TYPE_UNSPECIFIED"}"#, None),
            ("{}", None),
        ] {
            let tier = Counts::of(raw.as_bytes()).tier();
            assert_eq!(tier.as_ref().map(Label::as_str), expected, "{raw}");
        }
    }

    #[test]
    fn searches_are_counted_over_all_of_their_entries() {
        let raw = br#"{"grounding_tool_count":[{"type":"google_search","count":2},{"count":3,"type":"google_maps"},{"count":1,"type":"google_search"}]}"#;
        assert_eq!(Counts::of(raw).searches(), Some(3));
        assert_eq!(Counts::of(b"{}").searches(), None);
    }

    proptest! {
        #[test]
        fn the_classes_always_sum_to_the_totals(
            prompt in 0_u64..200, candidates in 0_u64..200,
            cached in prop::option::of(0_u64..250), tool in prop::option::of(0_u64..90),
            parts in prop::option::of(prop::array::uniform3(0_u64..120)),
            kept in prop::option::of(prop::array::uniform3(0_u64..120)),
            made in prop::option::of(prop::array::uniform3(0_u64..120)),
        ) {
            let parts_of = |[audio, image, video]: [u64; 3]| Parts { audio, image, video };
            let counts = Counts {
                counts: [Some(prompt), tool, cached, Some(candidates), Some(5), None],
                prompt: parts.map(parts_of), cached: kept.map(parts_of), candidates: made.map(parts_of),
                ..Counts::default()
            };
            let usage = counts.usage(&mut Anomalies::default());
            prop_assert_eq!(usage.input_total(), Some(prompt + tool.unwrap_or(0)));
            prop_assert_eq!(usage.output_total(), Some(candidates + 5));
            prop_assert_eq!(usage.cached_read_total(), cached.map(|n| n.min(prompt)));
        }
    }
}
