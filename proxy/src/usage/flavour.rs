//! How providers deviate from the API they follow: one small entry each.
//!
//! Invariants
//! - A provider that is not listed follows OpenAI's rules, except that its streams need no `[DONE]`.
//! - An entry only says what was seen or documented; the reading rules live with the API.
//!
//! Not here: the rules themselves (`openai`, `anthropic`).

/// What reasoning tokens are to `completion_tokens` in chat completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reasoning {
    /// A part of them.
    Inside,
    /// Beside them (xAI: `total = prompt + completion + reasoning`).
    Beside,
    /// Not told, but inside the total (Gemini's OpenAI endpoint: 35 + 12 of 109).
    HiddenInTotal,
}

/// What audio tokens are to `prompt_tokens` in chat completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audio {
    /// A part of them.
    Inside,
    /// Beside them (Mistral).
    Beside,
}

/// Where a provider says what it charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// Nowhere.
    None,
    /// `usage.cost` in dollars; with the customer's own key also the upstream's cost (OpenRouter).
    Cost,
    /// `usage.cost_in_usd_ticks`, of which 10¹⁰ are a dollar (xAI).
    Ticks,
    /// `usage.cost.total_cost` in dollars (Perplexity).
    TotalCost,
}

/// What ends a chat stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `data: [DONE]`, always.
    Done,
    /// `data: [DONE]`, or the end of the body after a choice finished.
    DoneOrFinish,
}

/// A provider's deviations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flavour {
    /// The provider's name.
    pub provider: &'static str,
    /// Reasoning tokens in chat completions.
    pub reasoning: Reasoning,
    /// Audio tokens in chat completions.
    pub audio: Audio,
    /// The provider's own charge.
    pub charge: Charge,
    /// The end of a chat stream.
    pub end: End,
    /// Whether a route asks for usage in streams by default: it is not sent unasked, and asking is
    /// accepted.
    pub asks_for_usage: bool,
    /// Whether the requested name is the caller's own (a deployment or a file), so that another name
    /// in the reply means nothing.
    pub own_model_names: bool,
    /// Whether transcribing the input of a realtime session costs nothing beside its responses.
    pub free_transcription: bool,
    /// A response header with the cached input tokens, where the body may lack them.
    pub cached_header: Option<&'static str>,
    /// A response header with the input tokens, where the body may lack them.
    pub input_header: Option<&'static str>,
    /// A response header with the service tier, where the body may lack it.
    pub tier_header: Option<&'static str>,
    /// A response header with the served model, where the body may lack it.
    pub model_header: Option<&'static str>,
    /// A response header that says `true` when reserved capacity was full and the call was served, and
    /// is charged, at the standard tier.
    pub spill_header: Option<&'static str>,
}

const PLAIN: Flavour = Flavour {
    provider: "",
    reasoning: Reasoning::Inside,
    audio: Audio::Inside,
    charge: Charge::None,
    end: End::Done,
    asks_for_usage: false,
    own_model_names: false,
    free_transcription: false,
    cached_header: None,
    input_header: None,
    tier_header: None,
    model_header: None,
    spill_header: None,
};

static UNLISTED: Flavour = Flavour { end: End::DoneOrFinish, ..PLAIN };

/// Every provider with deviations, and those that end their streams as OpenAI does.
pub(super) static FLAVOURS: &[Flavour] = &[
    Flavour { provider: "openai", asks_for_usage: true, ..PLAIN },
    Flavour {
        provider: "azure",
        asks_for_usage: true,
        own_model_names: true,
        tier_header: Some("azureai-processed-tier"),
        model_header: Some("x-ms-served-model"),
        spill_header: Some("x-ms-is-spilled-over"),
        ..PLAIN
    },
    Flavour { provider: "vllm", asks_for_usage: true, ..PLAIN },
    Flavour { provider: "llama.cpp", asks_for_usage: true, ..PLAIN },
    Flavour { provider: "alibaba", ..PLAIN },
    Flavour { provider: "bedrock", own_model_names: true, ..PLAIN },
    Flavour { provider: "bedrock-mantle", asks_for_usage: true, ..PLAIN },
    Flavour { provider: "cerebras", ..PLAIN },
    Flavour { provider: "crusoe", ..PLAIN },
    Flavour { provider: "deepseek", ..PLAIN },
    Flavour { provider: "doubleword", ..PLAIN },
    Flavour {
        provider: "fireworks",
        cached_header: Some("fireworks-cached-prompt-tokens"),
        input_header: Some("fireworks-prompt-tokens"),
        ..PLAIN
    },
    Flavour {
        provider: "gemini",
        reasoning: Reasoning::HiddenInTotal,
        tier_header: Some("x-gemini-service-tier"),
        ..PLAIN
    },
    Flavour { provider: "vertex", reasoning: Reasoning::HiddenInTotal, ..PLAIN },
    Flavour { provider: "github-copilot", ..PLAIN },
    Flavour { provider: "groq", ..PLAIN },
    // Since 0.3.18 (LM Studio's API changelog).
    Flavour { provider: "lmstudio", asks_for_usage: true, end: End::DoneOrFinish, ..PLAIN },
    Flavour { provider: "mistral", audio: Audio::Beside, ..PLAIN },
    Flavour { provider: "ollama", ..PLAIN },
    Flavour { provider: "openrouter", charge: Charge::Cost, ..PLAIN },
    Flavour { provider: "perplexity", charge: Charge::TotalCost, end: End::DoneOrFinish, ..PLAIN },
    Flavour { provider: "snowflake", ..PLAIN },
    Flavour { provider: "together", ..PLAIN },
    Flavour { provider: "venice", ..PLAIN },
    Flavour {
        provider: "xai",
        reasoning: Reasoning::Beside,
        charge: Charge::Ticks,
        free_transcription: true,
        ..PLAIN
    },
    Flavour { provider: "zai", ..PLAIN },
];

/// The deviations of `provider`.
#[must_use]
pub fn flavour_of(provider: &str) -> &'static Flavour {
    FLAVOURS.iter().find(|flavour| flavour.provider == provider).unwrap_or(&UNLISTED)
}
