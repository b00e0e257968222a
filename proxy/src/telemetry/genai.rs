//! Metrics by OpenTelemetry's GenAI conventions: names, label sets, counters and histograms, and their
//! page for Prometheus.
//!
//! Invariants
//! - What counts in the ledger counts here, and nothing else: a poll that repeats an answer does not.
//! - There are at most `series_max` label sets with models of their own. Further ones, and names that
//!   only failing requests have used, count as `other`: whoever picks model names cannot fill the memory.
//! - A class of tokens that nobody reported is absent, not zero.
//! - Once a label set is known, counting allocates nothing.
//!
//! Source: github.com/open-telemetry/semantic-conventions-genai, `docs/gen-ai/gen-ai-token-metrics.md` and
//! `gen-ai-metrics.md` (both in development); names on the page by OpenTelemetry's Prometheus mapping.
//!
//! Not here: our own metrics (`admin::metrics`), spans (`otlp::messages`).

use bursar_domain::{Label, Metering, Outcome, TokenClass, UsageRecord};
use bursar_ledger::Caller;
use foldhash::fast::RandomState;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::hash::{Hash, Hasher};

/// What replaces a model's name where there are too many.
pub(crate) const OTHER: &str = "other";

/// Upper bounds of the histograms' buckets in microseconds, as the conventions recommend.
pub(crate) const BOUNDS_US: [u64; 14] = [
    10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 640_000, 1_280_000, 2_560_000, 5_120_000, 10_240_000,
    20_480_000, 40_960_000, 81_920_000,
];

// === names ===

/// The operation that an API of ours is; `None` for calls that are none of a model.
pub(crate) fn operation(api: &str) -> Option<&'static str> {
    Some(match api {
        "openai-chat" | "responses" | "responses-compact" | "messages" | "converse" | "converse-stream"
        | "invoke" | "invoke-stream" | "chat-v1" | "cohere-chat-v2" | "ollama-chat" | "realtime"
        | "assistants-run" => "chat",
        "generate-content" | "stream-generate-content" | "interactions" => "generate_content",
        "legacy-completions" | "ollama-generate" => "text_completion",
        "embeddings" | "cohere-embed" | "ollama-embed" => "embeddings",
        "responses-get"
        | "interactions-get"
        | "batch-output"
        | "messages-batch-results"
        | "batch-results"
        | "batch" => "fetch_response",
        // The conventions have no names for these.
        "rerank" => "rerank",
        "classify" => "classify",
        "moderation" => "moderation",
        "images" => "generate_image",
        "transcription" => "transcribe",
        "speech" => "synthesize_speech",
        "ocr" => "ocr",
        _ => return None,
    })
}

/// The conventions' name of a provider of ours; others keep theirs.
pub(crate) fn provider(name: &str) -> &str {
    match name {
        "azure" => "azure.ai.openai",
        "bedrock" | "bedrock-mantle" => "aws.bedrock",
        "gemini" => "gcp.gemini",
        "vertex" => "gcp.vertex_ai",
        "mistral" => "mistral_ai",
        "moonshot" => "moonshot_ai",
        "xai" => "x_ai",
        name => name,
    }
}

/// `error.type` of an outcome; `None` when it is no error.
pub(crate) const fn error(outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Ok | Outcome::Queued => None,
        _ => Some(outcome.name()),
    }
}

/// A counter of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tokens {
    Input,
    Output,
    CacheRead,
    CacheWrite,
    Reasoning,
}

impl Tokens {
    pub(crate) const ALL: [Self; 5] =
        [Self::Input, Self::Output, Self::CacheRead, Self::CacheWrite, Self::Reasoning];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Input => "gen_ai.client.inference.usage.input_tokens",
            Self::Output => "gen_ai.client.inference.usage.output_tokens",
            Self::CacheRead => "gen_ai.client.inference.usage.cache_read.input_tokens",
            Self::CacheWrite => "gen_ai.client.inference.usage.cache_write.input_tokens",
            Self::Reasoning => "gen_ai.client.inference.usage.reasoning.output_tokens",
        }
    }

    pub(crate) const fn help(self) -> &'static str {
        match self {
            Self::Input => "Input tokens that count, cached ones too",
            Self::Output => "Output tokens that count, reasoning too",
            Self::CacheRead => "Input tokens read from a cache",
            Self::CacheWrite => "Input tokens written to a cache",
            Self::Reasoning => "Output tokens of reasoning",
        }
    }
}

/// What tokens stand for, where the provider says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Modality {
    Unknown,
    Audio,
    Image,
    Video,
}

impl Modality {
    pub(crate) const ALL: [Self; 4] = [Self::Unknown, Self::Audio, Self::Image, Self::Video];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Audio => "audio",
            Self::Image => "image",
            Self::Video => "video",
        }
    }

    const fn of(class: TokenClass) -> Self {
        use TokenClass as C;
        match class {
            C::InputAudio | C::CachedAudio | C::OutputAudio | C::OutputReasoningAudio => Self::Audio,
            C::InputImage | C::CachedImage | C::OutputImage => Self::Image,
            C::InputVideo | C::CachedVideo => Self::Video,
            // Of the rest nobody says that it is text: providers count pictures among it.
            _ => Self::Unknown,
        }
    }
}

/// The counters that a class of tokens is in.
const fn counters(class: TokenClass) -> &'static [Tokens] {
    use TokenClass as C;
    match class {
        C::InputFresh | C::InputAudio | C::InputImage | C::InputVideo | C::InputToolUse => &[Tokens::Input],
        C::CachedRead | C::CachedAudio | C::CachedImage | C::CachedVideo => {
            &[Tokens::Input, Tokens::CacheRead]
        }
        C::CacheWrite | C::CacheWrite5m | C::CacheWrite1h => &[Tokens::Input, Tokens::CacheWrite],
        C::CacheRewrite => &[Tokens::CacheWrite],
        C::OutputText | C::OutputAudio | C::OutputImage => &[Tokens::Output],
        C::OutputReasoning | C::OutputReasoningAudio => &[Tokens::Output, Tokens::Reasoning],
    }
}

// === series ===

/// The labels that all metrics of a call share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LabelSet {
    pub(crate) provider: Label,
    pub(crate) operation: &'static str,
    pub(crate) requested: Option<Label>,
    pub(crate) served: Option<Label>,
}

impl Hash for LabelSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { provider, operation, requested, served } = self;
        for text in [Some(provider), requested.as_ref(), served.as_ref()] {
            text.map(Label::as_str).hash(state);
        }
        operation.hash(state);
    }
}

/// A histogram of durations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Durations {
    /// Per bucket, not summed up; the last one is above all bounds.
    pub(crate) counts: [u64; BOUNDS_US.len() + 1],
    pub(crate) sum_us: u64,
}

impl Durations {
    /// `times` observations of `each_us`, `sum_us` together.
    fn observe(&mut self, each_us: u64, times: u64, sum_us: u64) {
        let at = BOUNDS_US.partition_point(|bound| *bound < each_us);
        if let Some(count) = self.counts.get_mut(at) {
            *count = count.saturating_add(times);
        }
        self.sum_us = self.sum_us.saturating_add(sum_us);
    }

    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// Everything counted under one label set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    tokens: [[Option<u64>; Modality::ALL.len()]; Tokens::ALL.len()],
    /// By `error.type`.
    pub(crate) durations: Vec<(Option<&'static str>, Durations)>,
    pub(crate) first_chunk: Durations,
    pub(crate) output_chunk: Durations,
}

impl Series {
    /// The counts of `tokens` by modality.
    pub(crate) fn tokens(&self, tokens: Tokens) -> impl Iterator<Item = (Modality, u64)> + '_ {
        let counts = self.tokens.get(tokens as usize).map(<[_; 4]>::as_slice).unwrap_or_default();
        Modality::ALL.into_iter().zip(counts).filter_map(|(modality, count)| Some((modality, (*count)?)))
    }

    fn add(&mut self, tokens: Tokens, modality: Modality, count: u64) {
        let slot = self.tokens.get_mut(tokens as usize).and_then(|row| row.get_mut(modality as usize));
        if let Some(slot) = slot {
            *slot = Some(slot.unwrap_or(0).saturating_add(count));
        }
    }

    fn count(&mut self, record: &UsageRecord, counted: bool, caller: Caller) {
        if counted && record.metering != Metering::Never {
            for (class, count) in record.usage.tokens() {
                for tokens in counters(class) {
                    self.add(*tokens, Modality::of(class), count);
                }
            }
        }
        let error = error(record.outcome);
        let durations = match self.durations.iter_mut().position(|(known, _)| *known == error) {
            Some(at) => self.durations.get_mut(at),
            None => {
                self.durations.push((error, Durations::default()));
                self.durations.last_mut()
            }
        };
        if let Some((_, durations)) = durations {
            durations.observe(record.latency_us, 1, record.latency_us);
        }
        let Some(ttft) = record.ttft_us.filter(|_| record.stream) else { return };
        self.first_chunk.observe(ttft, 1, ttft);
        // One reply's gaps count as so many of their mean: sum and count are exact, buckets nearly.
        let gaps = u64::from(caller.pieces.saturating_sub(1));
        let rest = record.latency_us.saturating_sub(ttft);
        if let Some(each) = rest.checked_div(gaps) {
            self.output_chunk.observe(each, gaps, rest);
        }
    }
}

/// All series.
#[derive(Debug)]
pub(crate) struct Meters {
    series: HashMap<LabelSet, Series, RandomState>,
    /// Requested models that a provider has answered for.
    models: HashSet<Label, RandomState>,
    series_max: usize,
}

impl Meters {
    pub(crate) fn new(series_max: usize) -> Self {
        Self { series: HashMap::default(), models: HashSet::default(), series_max }
    }

    /// Counts a settled exchange. One that was never sent is not counted.
    pub(crate) fn count(&mut self, record: &UsageRecord, counted: bool, caller: Caller) {
        let Some(operation) = operation(record.api.as_str()) else { return };
        if record.outcome == Outcome::Refused {
            return;
        }
        let mut set = LabelSet {
            provider: record.provider.clone(),
            operation,
            requested: record.model_requested.clone(),
            served: record.model_served.clone(),
        };
        if let Some(series) = self.series.get_mut(&set) {
            series.count(record, counted, caller);
            return;
        }
        if !self.may_add(record) {
            let other = || Label::fixed(OTHER);
            set.requested = set.requested.map(|_| other());
            set.served = set.served.map(|_| other());
        } else if let Some(model) = &set.requested {
            self.models.insert(model.clone());
        }
        self.series.entry(set).or_default().count(record, counted, caller);
    }

    /// Whether the models of `record` get a label set of their own: there is room, and a provider has
    /// answered for them. What only fails may be any text.
    fn may_add(&self, record: &UsageRecord) -> bool {
        let answered = record.http_status.is_some_and(|status| status < 400);
        let known = record.model_requested.as_ref().is_none_or(|model| self.models.contains(model));
        self.series.len() < self.series_max && (answered || known)
    }

    /// A copy of all series, in a fixed order.
    pub(crate) fn snapshot(&self) -> Vec<(LabelSet, Series)> {
        let mut all: Vec<_> = self.series.iter().map(|(set, series)| (set.clone(), series.clone())).collect();
        let key =
            |set: &LabelSet| (set.provider.clone(), set.operation, set.requested.clone(), set.served.clone());
        all.sort_by_cached_key(|(set, _)| key(set));
        all
    }
}

// === the page ===

/// The lines for Prometheus.
pub(crate) fn page(series: &[(LabelSet, Series)]) -> String {
    type Of = fn(&Series) -> &Durations;
    let mut page = String::new();
    for tokens in Tokens::ALL {
        let name = tokens.name().replace('.', "_");
        begin(&mut page, &name, tokens.help(), "counter");
        for (set, series) in series {
            for (modality, count) in series.tokens(tokens) {
                let labels = labels(set, &[("gen_ai_token_modality", modality.name())]);
                put(&mut page, format_args!("{name}_total{{{labels}}} {count}"));
            }
        }
    }
    let name = "gen_ai_client_operation_duration_seconds";
    begin(&mut page, name, "Head of the request to end of the reply", "histogram");
    for (set, series) in series {
        for (error, durations) in &series.durations {
            let error = error.map(|error| ("error_type", error));
            histogram(&mut page, name, &labels(set, error.as_slice()), durations);
        }
    }
    let more: [(&str, &str, Of); 2] = [
        (
            "gen_ai_client_operation_time_to_first_chunk_seconds",
            "Head of the request to the first piece of a streamed reply",
            |series| &series.first_chunk,
        ),
        (
            "gen_ai_client_operation_time_per_output_chunk_seconds",
            "Mean time between pieces of a streamed reply, counted once per piece",
            |series| &series.output_chunk,
        ),
    ];
    for (name, help, durations) in more {
        begin(&mut page, name, help, "histogram");
        for (set, series) in series.iter().filter(|(_, series)| durations(series).count() > 0) {
            histogram(&mut page, name, &labels(set, &[]), durations(series));
        }
    }
    page
}

fn put(page: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = page.write_fmt(line);
    page.push('\n');
}

fn begin(page: &mut String, name: &str, help: &str, kind: &str) {
    put(page, format_args!("# HELP {name} {help}."));
    put(page, format_args!("# TYPE {name} {kind}"));
    if name.ends_with("_seconds") {
        put(page, format_args!("# UNIT {name} seconds"));
    }
}

fn histogram(page: &mut String, name: &str, labels: &str, durations: &Durations) {
    let mut below = 0_u64;
    for (at, count) in durations.counts.iter().enumerate() {
        below = below.saturating_add(*count);
        let bound = BOUNDS_US.get(at).map_or_else(|| "+Inf".to_owned(), |bound| seconds(*bound));
        put(page, format_args!("{name}_bucket{{{labels},le=\"{bound}\"}} {below}"));
    }
    put(page, format_args!("{name}_sum{{{labels}}} {}", seconds(durations.sum_us)));
    put(page, format_args!("{name}_count{{{labels}}} {below}"));
}

/// Microseconds as seconds, exactly.
pub(crate) fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let text = text.trim_end_matches('0');
    if text.ends_with('.') { format!("{text}0") } else { text.to_owned() }
}

fn labels(set: &LabelSet, more: &[(&str, &str)]) -> String {
    let mut labels = String::new();
    let all = attributes(set).map(|(name, value)| (name.replace('.', "_"), value));
    let all = all.chain(more.iter().map(|(name, value)| ((*name).to_owned(), *value)));
    for (name, value) in all {
        let comma = if labels.is_empty() { "" } else { "," };
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(labels, "{comma}{name}=\"{value}\"");
    }
    labels
}

/// The attributes of a label set.
pub(crate) fn attributes(set: &LabelSet) -> impl Iterator<Item = (&'static str, &str)> {
    [
        Some(("gen_ai.operation.name", set.operation)),
        Some(("gen_ai.provider.name", provider(set.provider.as_str()))),
        set.requested.as_ref().map(|model| ("gen_ai.request.model", model.as_str())),
        set.served.as_ref().map(|model| ("gen_ai.response.model", model.as_str())),
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests;
