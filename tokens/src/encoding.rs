//! The vocabularies by name. Each is unpacked when it is first needed and then stays.
//!
//! Invariants
//! - A program that never counts holds none of them.
//! - Unpacking takes some tens of milliseconds: callers do it off the request path.
//!
//! Not here: which model uses which (`models`).

use crate::merge;
use crate::split::{Rules, Splitter};
use crate::vocabulary::Vocabulary;
use std::sync::OnceLock;

/// A published vocabulary with its rules for cutting text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// GPT-4, GPT-3.5 and the embedding models.
    Cl100kBase,
    /// GPT-4o and later.
    O200kBase,
    /// The open-weight gpt-oss models: `o200k_base` with more special tokens, which a counter of
    /// ordinary text does not see.
    O200kHarmony,
}

/// Why a vocabulary cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The data in the program is damaged.
    #[error("the built-in vocabulary is damaged")]
    Damaged,
}

static CL100K: OnceLock<Result<Tokenizer, LoadError>> = OnceLock::new();
static O200K: OnceLock<Result<Tokenizer, LoadError>> = OnceLock::new();

impl Encoding {
    /// Every vocabulary.
    pub const ALL: [Self; 3] = [Self::Cl100kBase, Self::O200kBase, Self::O200kHarmony];

    /// The name that tiktoken knows it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cl100kBase => "cl100k_base",
            Self::O200kBase => "o200k_base",
            Self::O200kHarmony => "o200k_harmony",
        }
    }

    /// The vocabulary with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.name() == name)
    }

    const fn home(self) -> &'static OnceLock<Result<Tokenizer, LoadError>> {
        match self {
            Self::Cl100kBase => &CL100K,
            Self::O200kBase | Self::O200kHarmony => &O200K,
        }
    }

    /// The vocabulary, unpacked at the first call.
    ///
    /// # Errors
    /// The data in the program is damaged.
    pub fn tokenizer(self) -> Result<&'static Tokenizer, LoadError> {
        let loaded = self.home().get_or_init(|| match self {
            Self::Cl100kBase => {
                Tokenizer::unpack(include_bytes!("../vocabularies/cl100k_base.zst"), Rules::Cl100k)
            }
            Self::O200kBase | Self::O200kHarmony => {
                Tokenizer::unpack(include_bytes!("../vocabularies/o200k_base.zst"), Rules::O200k)
            }
        });
        loaded.as_ref().map_err(|error| *error)
    }

    /// The vocabulary, if it has been unpacked already.
    #[must_use]
    pub fn if_loaded(self) -> Option<&'static Tokenizer> {
        self.home().get()?.as_ref().ok()
    }

    /// The number of tokens of `text`.
    ///
    /// # Errors
    /// The data in the program is damaged.
    pub fn count(self, text: &str) -> Result<u64, LoadError> {
        Ok(self.tokenizer()?.count(text))
    }
}

/// A vocabulary ready for counting.
#[derive(Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    splitter: Splitter,
}

impl Tokenizer {
    fn unpack(data: &[u8], rules: Rules) -> Result<Self, LoadError> {
        Ok(Self { vocabulary: Vocabulary::unpack(data)?, splitter: Splitter::new(rules) })
    }

    /// The number of tokens of `text`, as `encode_ordinary` gives it.
    #[must_use]
    pub fn count(&self, text: &str) -> u64 {
        let mut count = 0;
        self.splitter.each(text, |piece| count += merge::count(piece, &self.vocabulary));
        count
    }

    /// How many tokens the vocabulary has.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.vocabulary.len()
    }

    /// The bytes of the token with this rank; empty when there is none.
    #[must_use]
    pub fn token(&self, rank: u32) -> &[u8] {
        self.vocabulary.token(rank)
    }
}
