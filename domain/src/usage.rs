//! Usage: token counts in disjoint classes, and the other things that are billed.
//!
//! Invariants
//! - Classes are disjoint, so adding them never counts a token twice.
//! - A class that nobody reported is absent; zero means somebody said zero.
//! - Totals are computed from the classes, never stored beside them.
//!
//! Not here: what a provider's fields mean (`proxy::usage`), prices (`policies::price`).

/// Declares a field-less enum with a fixed list of members, their names and their numbers on disk.
macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$member_doc:meta])* $member:ident = $number:literal $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$member_doc])* $member = $number,)+ }

        impl $name {
            /// Every member, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$member,)+];

            /// The name used in records, reports and price books.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$member => $text,)+ }
            }

            /// The member with this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$member),)+ _ => None }
            }

            /// The number used on disk; never reused.
            #[must_use]
            pub const fn number(self) -> u8 {
                self as u8
            }

            /// The member with this number on disk.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$member),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}
pub(crate) use numbered;

numbered!(
    /// A kind of token. The classes are disjoint: a token is in exactly one of them, except
    /// `CacheRewrite`, which counts tokens that were read *and* written and is outside the total.
    TokenClass {
        /// Input that was neither cached nor of a special modality.
        InputFresh = 0 "input",
        /// Uncached audio input.
        InputAudio = 1 "input_audio",
        /// Uncached image input.
        InputImage = 2 "input_image",
        /// Uncached video input.
        InputVideo = 3 "input_video",
        /// Prompt tokens that the provider's own tools added (Gemini).
        InputToolUse = 4 "input_tool_use",
        /// Input read from a cache (text, or modality not told).
        CachedRead = 5 "cached_read",
        /// Audio input read from a cache.
        CachedAudio = 6 "cached_audio",
        /// Image input read from a cache.
        CachedImage = 7 "cached_image",
        /// Input written to a cache, lifetime not told.
        CacheWrite = 8 "cache_write",
        /// Input written to a cache for five minutes.
        CacheWrite5m = 9 "cache_write_5m",
        /// Input written to a cache for an hour.
        CacheWrite1h = 10 "cache_write_1h",
        /// Tokens billed as written although they are in the input as read already
        /// (OpenRouter with Gemini explicit caching); not part of the input total.
        CacheRewrite = 11 "cache_rewrite",
        /// Output that is neither reasoning nor of a special modality.
        OutputText = 12 "output",
        /// Reasoning (thinking) output.
        OutputReasoning = 13 "output_reasoning",
        /// Audio output.
        OutputAudio = 14 "output_audio",
        /// Image output.
        OutputImage = 15 "output_image",
        /// Output that was reported as reasoning and as audio.
        OutputReasoningAudio = 16 "output_reasoning_audio",
        /// Video input read from a cache.
        CachedVideo = 17 "cached_video",
    }
);

numbered!(
    /// A billed or reported quantity that is no token class of the totals.
    Quantity {
        /// Input tokens on the provider's bill where they differ from the real ones (Cohere).
        BilledInputTokens = 0 "billed_input_tokens",
        /// Output tokens on the provider's bill where they differ from the real ones (Cohere).
        BilledOutputTokens = 1 "billed_output_tokens",
        /// Web searches that the provider ran.
        WebSearchRequests = 2 "web_search_requests",
        /// Web pages that the provider fetched.
        WebFetchRequests = 3 "web_fetch_requests",
        /// Rerank search units.
        SearchUnits = 4 "search_units",
        /// Audio length in milliseconds (shown as `audio_seconds`).
        AudioMillis = 5 "audio_millis",
        /// Pages of a document.
        Pages = 6 "pages",
        /// Calls of the caller's tools in the reply.
        ToolCalls = 7 "tool_calls",
        /// Images made.
        Images = 8 "images",
        /// Predicted output tokens that were accepted; inside the output.
        AcceptedPrediction = 9 "accepted_prediction",
        /// Predicted output tokens that were rejected; inside the output.
        RejectedPrediction = 10 "rejected_prediction",
        /// Images of the request that are changed or built on, where each is charged (xAI).
        InputImages = 11 "input_images",
        /// Requests that searched with a context of medium size, which costs more than a small one (Perplexity).
        MediumSearchContext = 12 "medium_search_context",
        /// Requests that searched with a large context (Perplexity).
        HighSearchContext = 13 "high_search_context",
    }
);

numbered!(
    /// Where the counts come from.
    UsageSource {
        /// The provider's final figure.
        Provider = 0 "provider",
        /// The provider said something before the exchange was cut; the final figure is missing.
        ProviderPartial = 1 "provider_partial",
        /// Counted here with the served model's exact vocabulary.
        Tokenizer = 2 "tokenizer",
        /// Estimated here.
        Estimate = 3 "estimate",
        /// Nobody knows.
        Absent = 4 "absent",
        /// Another system's log says so; what that rests on is not known here.
        Imported = 5 "imported",
    }
);

const CLASSES: usize = TokenClass::ALL.len();
const QUANTITIES: usize = Quantity::ALL.len();

/// Token counts and billed quantities of one exchange, or a sum of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    tokens_known: u32,
    quantities_known: u16,
    tokens: [u64; CLASSES],
    quantities: [u64; QUANTITIES],
}

impl Usage {
    /// Nothing known.
    #[must_use]
    pub const fn unknown() -> Self {
        Self { tokens_known: 0, quantities_known: 0, tokens: [0; CLASSES], quantities: [0; QUANTITIES] }
    }

    /// Whether nothing at all is known.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        self.tokens_known == 0 && self.quantities_known == 0
    }

    /// Whether any token class is known.
    #[must_use]
    pub const fn has_tokens(&self) -> bool {
        self.tokens_known != 0
    }

    /// The count of `class`, if known.
    #[must_use]
    pub fn get(&self, class: TokenClass) -> Option<u64> {
        let known = self.tokens_known & token_bit(class.number()) != 0;
        if known { self.tokens.get(usize::from(class.number())).copied() } else { None }
    }

    /// States the count of `class`.
    pub fn set(&mut self, class: TokenClass, count: u64) {
        self.tokens_known |= token_bit(class.number());
        if let Some(slot) = self.tokens.get_mut(usize::from(class.number())) {
            *slot = count;
        }
    }

    /// The amount of `quantity`, if known.
    #[must_use]
    pub fn quantity(&self, quantity: Quantity) -> Option<u64> {
        let known = self.quantities_known & bit(quantity.number()) != 0;
        if known { self.quantities.get(usize::from(quantity.number())).copied() } else { None }
    }

    /// States the amount of `quantity`.
    pub fn set_quantity(&mut self, quantity: Quantity, amount: u64) {
        self.quantities_known |= bit(quantity.number());
        if let Some(slot) = self.quantities.get_mut(usize::from(quantity.number())) {
            *slot = amount;
        }
    }

    /// The known token classes with their counts.
    pub fn tokens(&self) -> impl Iterator<Item = (TokenClass, u64)> + '_ {
        TokenClass::ALL.iter().filter_map(|class| self.get(*class).map(|count| (*class, count)))
    }

    /// The known quantities with their amounts.
    pub fn quantities(&self) -> impl Iterator<Item = (Quantity, u64)> + '_ {
        Quantity::ALL.iter().filter_map(|q| self.quantity(*q).map(|amount| (*q, amount)))
    }

    /// All input with cache reads and writes; `None` when no input class is known.
    #[must_use]
    pub fn input_total(&self) -> Option<u64> {
        use TokenClass as C;
        self.sum(&[
            C::InputFresh,
            C::InputAudio,
            C::InputImage,
            C::InputVideo,
            C::InputToolUse,
            C::CachedRead,
            C::CachedAudio,
            C::CachedImage,
            C::CachedVideo,
            C::CacheWrite,
            C::CacheWrite5m,
            C::CacheWrite1h,
        ])
    }

    /// All output with reasoning; `None` when no output class is known.
    #[must_use]
    pub fn output_total(&self) -> Option<u64> {
        use TokenClass as C;
        self.sum(&[
            C::OutputText,
            C::OutputReasoning,
            C::OutputAudio,
            C::OutputImage,
            C::OutputReasoningAudio,
        ])
    }

    /// Input read from a cache, of every modality.
    #[must_use]
    pub fn cached_read_total(&self) -> Option<u64> {
        use TokenClass as C;
        self.sum(&[C::CachedRead, C::CachedAudio, C::CachedImage, C::CachedVideo])
    }

    /// Input written to a cache, of every lifetime.
    #[must_use]
    pub fn cache_write_total(&self) -> Option<u64> {
        use TokenClass as C;
        self.sum(&[C::CacheWrite, C::CacheWrite5m, C::CacheWrite1h, C::CacheRewrite])
    }

    /// Reasoning output, audio or not.
    #[must_use]
    pub fn output_reasoning_total(&self) -> Option<u64> {
        self.sum(&[TokenClass::OutputReasoning, TokenClass::OutputReasoningAudio])
    }

    /// Audio output, reasoning or not.
    #[must_use]
    pub fn output_audio_total(&self) -> Option<u64> {
        self.sum(&[TokenClass::OutputAudio, TokenClass::OutputReasoningAudio])
    }

    /// Audio input, cached or not.
    #[must_use]
    pub fn input_audio_total(&self) -> Option<u64> {
        self.sum(&[TokenClass::InputAudio, TokenClass::CachedAudio])
    }

    /// Image input, cached or not.
    #[must_use]
    pub fn input_image_total(&self) -> Option<u64> {
        self.sum(&[TokenClass::InputImage, TokenClass::CachedImage])
    }

    /// Video input, cached or not.
    #[must_use]
    pub fn input_video_total(&self) -> Option<u64> {
        self.sum(&[TokenClass::InputVideo, TokenClass::CachedVideo])
    }

    /// Takes back what was stated of `quantity`.
    pub fn forget_quantity(&mut self, quantity: Quantity) {
        self.quantities_known &= !bit(quantity.number());
        if let Some(slot) = self.quantities.get_mut(usize::from(quantity.number())) {
            *slot = 0;
        }
    }

    /// Adds what `other` knows; what neither knows stays unknown. Sums saturate at 2⁶⁴−1.
    pub fn add(&mut self, other: &Self) {
        // What is not known is kept as zero.
        add_known(&mut self.tokens, &other.tokens, other.tokens_known);
        add_known(&mut self.quantities, &other.quantities, other.quantities_known.into());
        self.tokens_known |= other.tokens_known;
        self.quantities_known |= other.quantities_known;
    }

    fn sum(&self, classes: &[TokenClass]) -> Option<u64> {
        classes
            .iter()
            .filter_map(|class| self.get(*class))
            .fold(None, |sum: Option<u64>, count| Some(sum.unwrap_or(0).saturating_add(count)))
    }
}

/// Adds the counts whose bits are set.
fn add_known(sums: &mut [u64], counts: &[u64], mut known: u32) {
    while known != 0 {
        let at = known.trailing_zeros() as usize;
        if let (Some(sum), Some(count)) = (sums.get_mut(at), counts.get(at)) {
            *sum = sum.saturating_add(*count);
        }
        known &= known.wrapping_sub(1);
    }
}

const fn token_bit(number: u8) -> u32 {
    1_u32.wrapping_shl(number as u32)
}

const fn bit(number: u8) -> u16 {
    1_u16.wrapping_shl(number as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unknown_is_not_zero() {
        let mut usage = Usage::unknown();
        assert_eq!(usage.input_total(), None);
        usage.set(TokenClass::InputFresh, 0);
        assert_eq!(usage.input_total(), Some(0));
        assert_eq!(usage.output_total(), None);
        assert_eq!(usage.cached_read_total(), None);
    }

    #[test]
    fn a_rewritten_cache_is_outside_the_input_total() {
        let mut usage = Usage::unknown();
        usage.set(TokenClass::InputFresh, 7);
        usage.set(TokenClass::CachedRead, 2161);
        usage.set(TokenClass::CacheRewrite, 2161);
        assert_eq!(usage.input_total(), Some(2168));
        assert_eq!(usage.cache_write_total(), Some(2161));
    }

    #[test]
    fn numbers_on_disk_and_names_are_unique_and_inverse() {
        for (index, class) in TokenClass::ALL.iter().enumerate() {
            assert_eq!(usize::from(class.number()), index);
            assert_eq!(TokenClass::from_name(class.name()), Some(*class));
            assert_eq!(TokenClass::from_number(class.number()), Some(*class));
        }
        assert_eq!(TokenClass::from_number(200), None);
    }

    fn any_usage() -> impl Strategy<Value = Usage> {
        prop::collection::vec(prop::option::of(0_u64..1_000_000), CLASSES).prop_map(|counts| {
            let mut usage = Usage::unknown();
            for (class, count) in TokenClass::ALL.iter().zip(counts) {
                if let Some(count) = count {
                    usage.set(*class, count);
                }
            }
            usage
        })
    }

    proptest! {
        #[test]
        fn totals_are_the_sum_of_disjoint_classes(usage in any_usage()) {
            let all: u64 = usage.tokens().filter(|(c, _)| *c != TokenClass::CacheRewrite).map(|(_, n)| n).sum();
            prop_assert_eq!(usage.input_total().unwrap_or(0) + usage.output_total().unwrap_or(0), all);
        }

        #[test]
        fn adding_is_commutative_and_keeps_totals(a in any_usage(), b in any_usage()) {
            let (mut ab, mut ba) = (a, b);
            ab.add(&b);
            ba.add(&a);
            prop_assert_eq!(ab, ba);
            let expected = a.input_total().unwrap_or(0) + b.input_total().unwrap_or(0);
            prop_assert_eq!(ab.input_total().unwrap_or(0), expected);
        }
    }
}
