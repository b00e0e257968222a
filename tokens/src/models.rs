//! What is known of a model's vocabulary, and of what it does that its text does not show.
//!
//! Sources
//! - OpenAI: tiktoken 0.14 `model.py` (`MODEL_TO_ENCODING`, `MODEL_PREFIX_TO_ENCODING`), read 2026-11.
//! - Families: own measurement of 22 kinds of text with each family's public vocabulary, as multiples
//!   of the `o200k_base` count (Claude: the public vocabulary of its older models), 2026-11. The worst
//!   kinds are Thai, Hindi, Arabic, numbers and UUIDs.
//!
//! Invariants
//! - A name is only taken for a vocabulary where the host serves that vendor's models: anybody may call
//!   a local model `gpt-4o`.
//! - What is not in the tables is [`Knowledge::Unknown`], with a range as wide as any family's.
//!
//! Not here: counting (`encoding`), prices (`policies::price`).

use crate::encoding::Encoding;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// One that serves OpenAI's models under their names.
    OpenAi,
    /// Any other.
    Other,
}

/// A family of vocabularies that cannot be loaded here. Multiples of the `o200k_base` count, in
/// hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// The median over the kinds of text: what an estimate is multiplied by.
    pub median_percent: u32,
    /// Nine of ten kinds are below this.
    pub p90_percent: u32,
    /// The worst kind.
    pub worst_percent: u32,
}

/// What is known of a model's vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// It is this one.
    Exact(Encoding),
    /// It is one of this family; counts are estimates.
    Family(&'static Family),
    /// Nothing; counts are estimates over a wide range.
    Unknown,
}

/// What is known of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its vocabulary.
    pub knowledge: Knowledge,
    /// Whether it makes output that is billed and not shown.
    pub hides_output: bool,
}

/// What an unknown vocabulary is taken for: the middle of the families, and the widest range.
pub static UNKNOWN: Family =
    Family { name: "unknown", median_percent: 110, p90_percent: 178, worst_percent: 404 };

const fn family(name: &'static str, median: u32, p90: u32, worst: u32) -> Family {
    Family { name, median_percent: median, p90_percent: p90, worst_percent: worst }
}

static CLAUDE: Family = family("claude", 110, 178, 404);
static GEMINI: Family = family("gemini", 112, 137, 180);
static LLAMA: Family = family("llama-3", 100, 117, 159);
static QWEN: Family = family("qwen-3", 112, 138, 276);
static DEEPSEEK: Family = family("deepseek", 103, 112, 169);
static MISTRAL: Family = family("mistral", 110, 139, 180);
static COMMAND: Family = family("command-r", 109, 149, 237);

/// Names that contain a word of these families, whoever serves them.
static FAMILIES: &[(&str, &Family)] = &[
    // Distilled models carry both names; their vocabulary is that of the smaller model.
    ("llama", &LLAMA),
    ("qwen", &QWEN),
    ("qwq", &QWEN),
    ("deepseek", &DEEPSEEK),
    ("claude", &CLAUDE),
    ("gemini", &GEMINI),
    ("gemma", &GEMINI),
    ("mistral", &MISTRAL),
    ("mixtral", &MISTRAL),
    ("ministral", &MISTRAL),
    ("magistral", &MISTRAL),
    ("codestral", &MISTRAL),
    ("devstral", &MISTRAL),
    ("pixtral", &MISTRAL),
    ("voxtral", &MISTRAL),
    ("command", &COMMAND),
    ("c4ai", &COMMAND),
];

/// OpenAI's models by the beginning of their names; the first that fits counts. The flag says whether
/// they think without showing it.
static OPENAI: &[(&str, Encoding, bool)] = &[
    ("gpt-5-chat", Encoding::O200kBase, false),
    ("gpt-5", Encoding::O200kBase, true),
    ("o1", Encoding::O200kBase, true),
    ("o3", Encoding::O200kBase, true),
    ("o4-mini", Encoding::O200kBase, true),
    ("codex-mini", Encoding::O200kBase, true),
    ("gpt-4o", Encoding::O200kBase, false),
    ("gpt-4.1", Encoding::O200kBase, false),
    ("gpt-4.5", Encoding::O200kBase, false),
    ("chatgpt-4o", Encoding::O200kBase, false),
    ("gpt-4", Encoding::Cl100kBase, false),
    ("gpt-3.5", Encoding::Cl100kBase, false),
    // Azure's spelling.
    ("gpt-35", Encoding::Cl100kBase, false),
    ("text-embedding-3", Encoding::Cl100kBase, false),
    ("text-embedding-ada-002", Encoding::Cl100kBase, false),
    ("davinci-002", Encoding::Cl100kBase, false),
    ("babbage-002", Encoding::Cl100kBase, false),
];

/// What is known of the model called `name`, as `host` serves it.
#[must_use]
pub fn model(name: &str, host: Host) -> Model {
    let name = name.to_ascii_lowercase();
    let last = name.rsplit('/').next().unwrap_or_default();
    let last = last.strip_prefix("ft:").unwrap_or(last);
    // Whoever serves the open weights serves their vocabulary.
    if last.starts_with("gpt-oss") {
        return Model { knowledge: Knowledge::Exact(Encoding::O200kHarmony), hides_output: true };
    }
    let openai = OPENAI.iter().find(|(prefix, _, _)| last.starts_with(prefix));
    if let Some((_, encoding, hides_output)) = openai
        && host == Host::OpenAi
    {
        return Model { knowledge: Knowledge::Exact(*encoding), hides_output: *hides_output };
    }
    let family = FAMILIES.iter().find(|(word, _)| name.contains(word));
    let knowledge = family.map_or(Knowledge::Unknown, |(_, family)| Knowledge::Family(family));
    Model { knowledge, hides_output: false }
}

impl Knowledge {
    /// The vocabulary to count with.
    #[must_use]
    pub const fn encoding(self) -> Encoding {
        match self {
            Self::Exact(encoding) => encoding,
            Self::Family(_) | Self::Unknown => Encoding::O200kBase,
        }
    }

    /// The family to scale by; `None` where counts need no scaling.
    #[must_use]
    pub const fn family(self) -> Option<&'static Family> {
        match self {
            Self::Exact(_) => None,
            Self::Family(family) => Some(family),
            Self::Unknown => Some(&UNKNOWN),
        }
    }

    /// A count with [`Self::encoding`] as this vocabulary's estimate: times the family's median, rounded
    /// to the nearest.
    #[must_use]
    pub fn scale(self, count: u64) -> u64 {
        let Some(family) = self.family() else { return count };
        let scaled = u128::from(count) * u128::from(family.median_percent);
        u64::try_from((scaled + 50) / 100).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, host: Host, expected: Knowledge, hides: bool) {
        assert_eq!(model(name, host), Model { knowledge: expected, hides_output: hides }, "{name}");
    }

    #[test]
    fn openai_models_have_their_published_vocabulary() {
        let o200k = Knowledge::Exact(Encoding::O200kBase);
        let cl100k = Knowledge::Exact(Encoding::Cl100kBase);
        check("gpt-4o-mini-2024-07-18", Host::OpenAi, o200k, false);
        check("openai/gpt-4.1", Host::OpenAi, o200k, false);
        check("ft:gpt-4o:acme::abc", Host::OpenAi, o200k, false);
        check("o3-mini", Host::OpenAi, o200k, true);
        check("gpt-5-mini", Host::OpenAi, o200k, true);
        check("gpt-4-turbo", Host::OpenAi, cl100k, false);
        check("gpt-35-turbo", Host::OpenAi, cl100k, false);
        check("text-embedding-3-small", Host::OpenAi, cl100k, false);
        check("openai/gpt-oss-120b", Host::Other, Knowledge::Exact(Encoding::O200kHarmony), true);
    }

    #[test]
    fn a_name_that_anybody_may_give_is_not_believed() {
        check("gpt-4o", Host::Other, Knowledge::Unknown, false);
        check("my-model", Host::OpenAi, Knowledge::Unknown, false);
        check("", Host::OpenAi, Knowledge::Unknown, false);
    }

    #[test]
    fn families_are_known_under_any_vendors_prefix() {
        for (name, family) in [
            ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude"),
            ("accounts/fireworks/models/llama-v3p1-8b-instruct", "llama-3"),
            ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "llama-3"),
            ("Qwen/Qwen3-8B", "qwen-3"),
            ("gemini-2.5-flash", "gemini"),
            ("mistral-small-latest", "mistral"),
            ("command-r-plus", "command-r"),
        ] {
            match model(name, Host::Other).knowledge {
                Knowledge::Family(found) => assert_eq!(found.name, family, "{name}"),
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_estimate_is_scaled_by_the_median_and_a_count_is_not() {
        assert_eq!(Knowledge::Exact(Encoding::O200kBase).scale(1_000), 1_000);
        assert_eq!(Knowledge::Family(&CLAUDE).scale(1_000), 1_100);
        assert_eq!(Knowledge::Family(&DEEPSEEK).scale(10), 10);
        assert_eq!(Knowledge::Unknown.scale(u64::MAX), u64::MAX);
    }
}
