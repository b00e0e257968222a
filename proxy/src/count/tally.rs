//! With what a text is counted: the vocabulary of the model, another one, or none.
//!
//! Not here: what is known of models (`bursar_tokens::models`).

use bursar_domain::Label;
use bursar_tokens::{Encoding, Host, Model, Tokenizer, model, rough};

/// How closely to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precision {
    /// With a vocabulary.
    Full,
    /// Without one, in a pass: there is no time.
    Rough,
}

/// Counts texts for one model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    pub(super) model: Model,
    tokenizer: Option<&'static Tokenizer>,
}

/// Providers that serve OpenAI's models under OpenAI's names.
const OPENAI_HOSTS: [&str; 4] = ["openai", "azure", "openrouter", "github-copilot"];

/// What is known of the model `name` at `provider`.
pub(super) fn known(provider: &str, name: Option<&Label>) -> Model {
    let host = if OPENAI_HOSTS.contains(&provider) { Host::OpenAi } else { Host::Other };
    model(name.map(Label::as_str).unwrap_or_default(), host)
}

impl Tally {
    pub(super) fn new(model: Model, precision: Precision) -> Self {
        let tokenizer = match precision {
            Precision::Full => match model.knowledge.encoding().tokenizer() {
                Ok(tokenizer) => Some(tokenizer),
                Err(error) => {
                    tracing::error!(%error, "tokens are estimated");
                    None
                }
            },
            Precision::Rough => None,
        };
        Self { model, tokenizer }
    }

    pub(super) fn tokenizer(&self) -> Option<&'static Tokenizer> {
        self.tokenizer
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.model.knowledge.encoding()
    }

    /// Whether counts are those of the model's own vocabulary.
    pub(super) fn is_exact(&self) -> bool {
        self.tokenizer.is_some() && self.model.knowledge.family().is_none()
    }

    /// Tokens of `text` in [`Self::encoding`]: not yet scaled to the model's family.
    pub(super) fn count(&self, text: &str) -> u64 {
        self.tokenizer.map_or_else(|| rough(text), |tokenizer| tokenizer.count(text))
    }

    /// What counted: a vocabulary, the family's factor and how far it may be off.
    pub(super) fn name(&self, is_sampled: bool) -> String {
        let mut name = match self.tokenizer {
            Some(_) => self.encoding().name().to_owned(),
            None => "rough".to_owned(),
        };
        if let Some(family) = self.model.knowledge.family() {
            let hundredths = |percent: u32| format!("{}.{:02}", percent / 100, percent % 100);
            let (median, worst) = (hundredths(family.median_percent), hundredths(family.worst_percent));
            name.push_str(&format!(" x{median} {} (up to x{worst})", family.name));
        }
        if is_sampled {
            name.push_str(" sampled");
        }
        name
    }
}
