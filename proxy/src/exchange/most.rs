//! The most that a request can use, by its API and what its body says.
//!
//! Bounds that are not exact, on purpose above what is usual:
//! - A token has at least one byte, so a body's bytes are more than its tokens.
//! - Sound sent to be written down: a second has at least 1,000 bytes (8 kbit/s) and at most 40 tokens; its
//!   text at most one token in 250 bytes.
//! - Speech: a letter takes at most 0.3 s and eight tokens.
//! - A ranked document is at least one chunk, and has one more in every 250 bytes; a hundred chunks are a
//!   unit (Cohere).
//! - A picture has at most as many tokens as an answer without a bound.
//! - A document that is read has at most 1,000 pages (Mistral's limit).
//! - A request that may search without a bound searches ten times.
//!
//! What a body only refers to (pictures by address, files, earlier responses) is in no bound.
//!
//! Not here: what that costs (`bursar_policies::price`), the decision (`admission`).

use crate::usage::{Api, RequestFacts, Searches};
use bursar_domain::{Quantity, Usage};

const SOUND_BYTES_PER_TOKEN: u64 = 25;
const SOUND_BYTES_PER_OUTPUT_TOKEN: u64 = 250;
/// What stands in a form beside the sound.
const FORM_TOKENS: u64 = 4_096;
const SPEECH_MILLIS_PER_BYTE: u64 = 300;
const SPEECH_TOKENS_PER_BYTE: u64 = 8;
const CHUNK_BYTES: u64 = 250;
const CHUNKS_PER_UNIT: u64 = 100;
const PAGES_MAX: u64 = 1_000;
const SEARCHES_MAX: u64 = 10;

/// The most that a request can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Most {
    /// Input tokens.
    pub(super) input: u64,
    /// Output tokens.
    pub(super) output: u64,
    /// What else may be billed.
    pub(super) quantities: Usage,
}

impl Most {
    /// Of a request to `api` whose body has so many `bytes`; one without a bound of its own makes at most
    /// `max_output` tokens.
    pub(super) fn of(api: Api, facts: &RequestFacts, bytes: u64, max_output: u64) -> Self {
        let choices = facts.choices.unwrap_or(1).max(1);
        let bound = match facts.max_output {
            // Beside a bound that bounds nothing, nobody knows which of them counts.
            Some(bound) if facts.is_unbounded => bound.max(max_output),
            Some(bound) => bound,
            None => max_output,
        };
        let prompts = facts.prompts.filter(|_| api == Api::LegacyCompletions).unwrap_or(1).max(1);
        let answer = bound.saturating_mul(choices).saturating_mul(prompts);
        let mut quantities = Usage::unknown();
        let (input, output) = match api {
            Api::Embeddings
            | Api::EmbedContent
            | Api::CohereEmbed
            | Api::CohereClassify
            | Api::OllamaEmbed => (bytes, 0),
            Api::Rerank => {
                // Every document has a quote or a brace at least, on either side.
                let documents = facts.documents.unwrap_or(bytes / 2);
                let chunks = documents.saturating_add(bytes / CHUNK_BYTES);
                quantities.set_quantity(Quantity::SearchUnits, chunks.div_ceil(CHUNKS_PER_UNIT).max(1));
                (bytes, 0)
            }
            Api::Images => {
                quantities.set_quantity(Quantity::Images, choices);
                if let Some(images) = facts.input_images {
                    quantities.set_quantity(Quantity::InputImages, images);
                }
                (bytes, answer)
            }
            Api::Transcription => {
                quantities.set_quantity(Quantity::AudioMillis, bytes);
                let text = max_output.max(bytes / SOUND_BYTES_PER_OUTPUT_TOKEN);
                ((bytes / SOUND_BYTES_PER_TOKEN).saturating_add(FORM_TOKENS.min(bytes)), text)
            }
            Api::Speech => {
                let millis = bytes.saturating_mul(SPEECH_MILLIS_PER_BYTE);
                quantities.set_quantity(Quantity::AudioMillis, millis);
                (bytes, bytes.saturating_mul(SPEECH_TOKENS_PER_BYTE))
            }
            Api::Ocr => {
                quantities.set_quantity(Quantity::Pages, PAGES_MAX);
                (bytes, answer)
            }
            _ => (bytes, answer),
        };
        if let Some(searches) = facts.searches {
            let count = match searches {
                Searches::AtMost(count) => count,
                Searches::Unbounded => SEARCHES_MAX,
            };
            quantities.set_quantity(Quantity::WebSearchRequests, count);
            // Where that has a price, the request may ask for it.
            quantities.set_quantity(Quantity::HighSearchContext, 1);
        }
        Self { input, output, quantities }
    }

    /// Input and output.
    pub(super) fn tokens(&self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(api: Api, facts: &RequestFacts, tokens: (u64, u64), quantity: Option<(Quantity, u64)>) {
        let most = Most::of(api, facts, 10_000, 500);
        assert_eq!((most.input, most.output), tokens, "{api:?}");
        assert_eq!(most.quantities.quantities().next(), quantity, "{api:?}");
    }

    #[test]
    fn an_answer_is_bounded_by_the_request_or_the_route_for_each_choice() {
        let facts = RequestFacts::default();
        check(Api::OpenAiChat, &facts, (10_000, 500), None);
        let bounded = RequestFacts { max_output: Some(70), choices: Some(3), ..facts.clone() };
        check(Api::OpenAiChat, &bounded, (10_000, 210), None);
        check(Api::Messages, &RequestFacts { choices: Some(0), ..facts.clone() }, (10_000, 500), None);
        let open = |max_output| RequestFacts { max_output, is_unbounded: true, ..RequestFacts::default() };
        check(Api::OpenAiChat, &open(Some(70)), (10_000, 500), None);
        check(Api::OpenAiChat, &open(Some(700)), (10_000, 700), None);
        check(Api::OpenAiChat, &open(None), (10_000, 500), None);
    }

    #[test]
    fn each_of_several_prompts_has_its_answers() {
        let facts =
            RequestFacts { max_output: Some(70), choices: Some(3), prompts: Some(4), ..Default::default() };
        check(Api::LegacyCompletions, &facts, (10_000, 840), None);
        check(Api::OpenAiChat, &facts, (10_000, 210), None);
        check(Api::LegacyCompletions, &RequestFacts { prompts: Some(0), ..facts }, (10_000, 210), None);
    }

    #[test]
    fn what_has_no_output_holds_none_whatever_its_dialect() {
        let facts = RequestFacts { max_output: Some(70), ..RequestFacts::default() };
        for api in
            [Api::Embeddings, Api::EmbedContent, Api::CohereEmbed, Api::OllamaEmbed, Api::CohereClassify]
        {
            check(api, &facts, (10_000, 0), None);
        }
        let units = |count| Some((Quantity::SearchUnits, count));
        check(Api::Rerank, &RequestFacts { documents: Some(60), ..facts.clone() }, (10_000, 0), units(1));
        check(Api::Rerank, &RequestFacts { documents: Some(161), ..facts.clone() }, (10_000, 0), units(3));
        check(Api::Rerank, &facts, (10_000, 0), units(51));
    }

    #[test]
    fn pictures_sound_and_pages_have_bounds_of_their_own() {
        let facts = RequestFacts::default();
        let four = RequestFacts { choices: Some(4), ..facts.clone() };
        check(Api::Images, &four, (10_000, 2_000), Some((Quantity::Images, 4)));
        check(Api::Transcription, &facts, (4_496, 500), Some((Quantity::AudioMillis, 10_000)));
        check(Api::Speech, &facts, (10_000, 80_000), Some((Quantity::AudioMillis, 3_000_000)));
        check(Api::Ocr, &facts, (10_000, 500), Some((Quantity::Pages, 1_000)));
    }

    #[test]
    fn searches_are_bounded_by_the_request_or_ten() {
        let searching = |searches| RequestFacts { searches: Some(searches), ..RequestFacts::default() };
        let told = |count| Some((Quantity::WebSearchRequests, count));
        check(Api::Messages, &searching(Searches::AtMost(3)), (10_000, 500), told(3));
        check(Api::Messages, &searching(Searches::Unbounded), (10_000, 500), told(10));
    }
}
