//! What is known about each provider, as data: its dialect, its key header, its public address.
//!
//! Invariants
//! - A provider's name here is the one in usage records, price books and routes.
//! - Every built-in route parses (a test builds them all).
//!
//! Not here: how dialects are metered (`usage`), how paths are matched (`routes`).

use super::routes::Dialect;

/// A known provider.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) name: &'static str,
    /// The dialect a route of this provider has unless it names another.
    pub(super) dialect: Dialect,
    /// Whether streams are asked for usage unless the route says otherwise: the provider sends
    /// usage in streams only when asked, and accepts the question.
    pub(super) include_usage: bool,
    /// Where the provider expects an API key.
    pub(super) key: KeyHeader,
}

/// Where a provider expects an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyHeader {
    /// `authorization: Bearer KEY`.
    Bearer,
    /// A header whose value is the key.
    Own(&'static str),
}

impl KeyHeader {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bearer => "authorization",
            Self::Own(name) => name,
        }
    }

    /// Where a provider that is not listed expects its key, by dialect.
    pub(super) fn of_dialect(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Anthropic => Self::Own("x-api-key"),
            Dialect::Gemini => Self::Own("x-goog-api-key"),
            Dialect::OpenAi | Dialect::Bedrock | Dialect::Cohere | Dialect::Ollama | Dialect::PassThrough => {
                Self::Bearer
            }
        }
    }
}

/// Request headers that can carry a client's credential for an upstream. A route that injects its
/// own secret must not forward a client's beside it.
pub const CREDENTIAL_HEADERS: &[&str] =
    &["authorization", "x-api-key", "api-key", "x-goog-api-key", "x-amz-security-token", "x-portkey-api-key"];

const fn provider(name: &'static str, dialect: Dialect) -> Provider {
    Provider { name, dialect, include_usage: false, key: KeyHeader::Bearer }
}

impl Provider {
    const fn asked_for_usage(mut self) -> Self {
        self.include_usage = true;
        self
    }

    const fn with_key(mut self, header: &'static str) -> Self {
        self.key = KeyHeader::Own(header);
        self
    }
}

/// Every known provider. Those with an API of their own that this version does not meter yet pass
/// through.
pub(super) const PROVIDERS: &[Provider] = &[
    provider("openai", Dialect::OpenAi).asked_for_usage(),
    provider("anthropic", Dialect::Anthropic).with_key("x-api-key"),
    provider("azure", Dialect::OpenAi).asked_for_usage().with_key("api-key"),
    provider("gemini", Dialect::Gemini).with_key("x-goog-api-key"),
    provider("vertex", Dialect::Gemini),
    provider("bedrock", Dialect::Bedrock),
    provider("bedrock-mantle", Dialect::Bedrock).asked_for_usage(),
    provider("mistral", Dialect::OpenAi),
    provider("cohere", Dialect::Cohere),
    provider("deepseek", Dialect::OpenAi),
    provider("xai", Dialect::OpenAi),
    provider("groq", Dialect::OpenAi),
    provider("openrouter", Dialect::OpenAi),
    provider("perplexity", Dialect::OpenAi),
    provider("together", Dialect::OpenAi),
    provider("fireworks", Dialect::OpenAi),
    provider("ollama", Dialect::Ollama),
    provider("llama.cpp", Dialect::OpenAi).asked_for_usage(),
    provider("vllm", Dialect::OpenAi).asked_for_usage(),
    provider("lmstudio", Dialect::OpenAi).asked_for_usage(),
    provider("voyage", Dialect::OpenAi),
    provider("jina", Dialect::OpenAi),
    provider("alibaba", Dialect::OpenAi),
    provider("cerebras", Dialect::OpenAi),
    provider("chatgpt-codex", Dialect::OpenAi),
    provider("crusoe", Dialect::OpenAi),
    provider("doubleword", Dialect::OpenAi),
    provider("github", Dialect::OpenAi),
    provider("github-copilot", Dialect::OpenAi),
    provider("gpustack", Dialect::OpenAi),
    provider("heroku", Dialect::OpenAi),
    provider("mistralrs", Dialect::OpenAi),
    provider("moonshot", Dialect::OpenAi),
    provider("portkey", Dialect::OpenAi).with_key("x-portkey-api-key"),
    provider("snowflake", Dialect::OpenAi),
    provider("venice", Dialect::OpenAi),
    provider("writer", Dialect::OpenAi),
    provider("zai", Dialect::OpenAi),
];

/// The provider called `name`.
pub(super) fn find(name: &str) -> Option<&'static Provider> {
    PROVIDERS.iter().find(|provider| provider.name == name)
}

/// What a built-in route does with the part of the path it matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strip {
    /// Takes it off: `/openai/v1/models` goes to `/v1/models`.
    Prefix,
    /// Leaves it: `/v1/models` goes to `/v1/models`.
    Nothing,
}

/// A route that exists without configuration.
#[derive(Debug)]
pub(super) struct BuiltIn {
    /// Path prefix; a last segment in braces stands for one segment of `[a-z0-9-]{1,63}`.
    pub(super) prefix: &'static str,
    /// Base URL; `{}` in the host is what the segment was.
    pub(super) upstream: &'static str,
    pub(super) provider: &'static str,
    /// Price region, where the prefix fixes one. A segment called `{region}` is the region itself.
    pub(super) region: Option<&'static str>,
    pub(super) strip: Strip,
}

const fn below(prefix: &'static str, upstream: &'static str, provider: &'static str) -> BuiltIn {
    BuiltIn { prefix, upstream, provider, region: None, strip: Strip::Prefix }
}

const fn bare(prefix: &'static str, upstream: &'static str, provider: &'static str) -> BuiltIn {
    BuiltIn { prefix, upstream, provider, region: None, strip: Strip::Nothing }
}

const fn vertex(prefix: &'static str, upstream: &'static str, location: &'static str) -> BuiltIn {
    BuiltIn { prefix, upstream, provider: "vertex", region: Some(location), strip: Strip::Prefix }
}

const OPENAI: &str = "https://api.openai.com";
const ANTHROPIC: &str = "https://api.anthropic.com";
const GEMINI: &str = "https://generativelanguage.googleapis.com";

/// Every built-in route. The bare paths are those that SDKs call when only their host was changed;
/// a path that two providers share (`/v1/models`, `/v1/files`) goes to OpenAI, and a client of the
/// other one uses its own prefix.
pub(super) const BUILT_IN: &[BuiltIn] = &[
    below("/openai", OPENAI, "openai"),
    below("/anthropic", ANTHROPIC, "anthropic"),
    below("/gemini", GEMINI, "gemini"),
    below("/azure/{resource}", "https://{}.openai.azure.com", "azure"),
    below("/bedrock/{region}", "https://bedrock-runtime.{}.amazonaws.com", "bedrock"),
    below("/bedrock-mantle/{region}", "https://bedrock-mantle.{}.api.aws", "bedrock-mantle"),
    below("/vertex/{region}", "https://{}-aiplatform.googleapis.com", "vertex"),
    // The locations that are no single region have host names of another form.
    vertex("/vertex/global", "https://aiplatform.googleapis.com", "global"),
    vertex("/vertex/us", "https://aiplatform.us.rep.googleapis.com", "us"),
    vertex("/vertex/eu", "https://aiplatform.eu.rep.googleapis.com", "eu"),
    below("/mistral", "https://api.mistral.ai", "mistral"),
    below("/cohere", "https://api.cohere.com", "cohere"),
    below("/deepseek", "https://api.deepseek.com", "deepseek"),
    below("/xai", "https://api.x.ai", "xai"),
    below("/groq", "https://api.groq.com", "groq"),
    below("/openrouter", "https://openrouter.ai", "openrouter"),
    below("/perplexity", "https://api.perplexity.ai", "perplexity"),
    below("/together", "https://api.together.xyz", "together"),
    below("/fireworks", "https://api.fireworks.ai", "fireworks"),
    below("/voyage", "https://api.voyageai.com", "voyage"),
    below("/jina", "https://api.jina.ai", "jina"),
    below("/alibaba", "https://dashscope-intl.aliyuncs.com", "alibaba"),
    below("/cerebras", "https://api.cerebras.ai", "cerebras"),
    below("/crusoe", "https://api.inference.crusoecloud.com", "crusoe"),
    below("/github", "https://models.github.ai", "github"),
    below("/heroku", "https://us.inference.heroku.com", "heroku"),
    below("/moonshot", "https://api.moonshot.ai", "moonshot"),
    below("/portkey", "https://api.portkey.ai", "portkey"),
    below("/venice", "https://api.venice.ai", "venice"),
    below("/writer", "https://api.writer.com", "writer"),
    below("/zai", "https://api.z.ai", "zai"),
    below("/ollama", "http://127.0.0.1:11434", "ollama"),
    below("/vllm", "http://127.0.0.1:8000", "vllm"),
    below("/lmstudio", "http://127.0.0.1:1234", "lmstudio"),
    below("/llama.cpp", "http://127.0.0.1:8080", "llama.cpp"),
    bare("/v1/chat/completions", OPENAI, "openai"),
    bare("/v1/completions", OPENAI, "openai"),
    bare("/v1/responses", OPENAI, "openai"),
    bare("/v1/embeddings", OPENAI, "openai"),
    bare("/v1/moderations", OPENAI, "openai"),
    bare("/v1/audio", OPENAI, "openai"),
    bare("/v1/realtime", OPENAI, "openai"),
    bare("/v1/images", OPENAI, "openai"),
    bare("/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent", GEMINI, "gemini"),
    bare("/v1/models", OPENAI, "openai"),
    bare("/v1/files", OPENAI, "openai"),
    bare("/v1/batches", OPENAI, "openai"),
    bare("/v1/messages", ANTHROPIC, "anthropic"),
    bare("/v1/complete", ANTHROPIC, "anthropic"),
    bare("/v1beta", GEMINI, "gemini"),
    bare("/upload/v1beta", GEMINI, "gemini"),
];
