//! From totals with subsets, as OpenAI-shaped providers report them, to disjoint token classes.
//!
//! Invariants
//! - The totals shown later are the totals reported: the classes always sum to them.
//! - What was not reported stays absent; an explicit zero stays zero.
//! - A subset larger than its total is clamped and noted.
//!
//! Not here: which field is which (`openai`), Anthropic's classes, which are disjoint already
//! (`anthropic`).

use bursar_domain::event::{Anomalies, Anomaly};
use bursar_domain::usage::{TokenClass, Usage};

/// Reported token counts: two totals and their subsets, which may overlap each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// All input.
    pub input: Option<u64>,
    /// Of it, read from a cache.
    pub cached: Option<u64>,
    /// Of it, written to a cache.
    pub written: Option<u64>,
    /// Of what was written, for five minutes.
    pub written_5m: Option<u64>,
    /// Of what was written, for an hour.
    pub written_1h: Option<u64>,
    /// Of the input, audio, cached or not.
    pub audio: Option<u64>,
    /// Of the input, images, cached or not.
    pub image: Option<u64>,
    /// Of the input, video.
    pub video: Option<u64>,
    /// Of what was read from a cache, audio, where the provider tells it.
    pub cached_audio: Option<u64>,
    /// Of what was read from a cache, images, where the provider tells it.
    pub cached_image: Option<u64>,
    /// All output.
    pub output: Option<u64>,
    /// Of it, reasoning.
    pub reasoning: Option<u64>,
    /// Of it, audio.
    pub output_audio: Option<u64>,
    /// Of it, images.
    pub output_image: Option<u64>,
}

/// The disjoint classes of `reported`.
pub fn disjoint(reported: &Reported, anomalies: &mut Anomalies) -> Usage {
    let mut usage = Usage::unknown();
    input(reported, &mut usage, anomalies);
    output(reported, &mut usage, anomalies);
    usage
}

/// What is left of `total` for one subset after another; each takes at most the rest.
struct Rest(u64);

impl Rest {
    fn take(&mut self, wanted: u64) -> u64 {
        let taken = wanted.min(self.0);
        self.0 = self.0.saturating_sub(taken);
        taken
    }
}

fn input(reported: &Reported, usage: &mut Usage, anomalies: &mut Anomalies) {
    let Reported { input, cached, audio, image, video, cached_audio, cached_image, .. } = *reported;
    let total = input.unwrap_or(u64::MAX);
    let mut rest = Rest(total);
    let cached_read = cached.map(|cached| {
        if cached > total {
            anomalies.insert(Anomaly::CachedExceedsInput);
        }
        rest.take(cached)
    });
    writes(reported, cached_read.unwrap_or(0), &mut rest, usage);

    // Modalities may lie in the cached part. Where nobody tells how much of them does, what does not
    // fit beside it is inside it.
    let mut cached_text = Rest(cached_read.unwrap_or(0));
    for (count, told, fresh_class, cached_class) in [
        (video, None, TokenClass::InputVideo, TokenClass::CachedVideo),
        (image, cached_image, TokenClass::InputImage, TokenClass::CachedImage),
        (audio, cached_audio, TokenClass::InputAudio, TokenClass::CachedAudio),
    ] {
        let told = told.filter(|_| cached_read.is_some());
        let Some(count) = count.or(told) else { continue };
        let told = told.map(|told| cached_text.take(told.min(count)));
        let fresh = rest.take(count.saturating_sub(told.unwrap_or(0)));
        usage.set(fresh_class, fresh);
        let overlap = count.saturating_sub(fresh);
        let cached = told.unwrap_or_else(|| cached_text.take(overlap));
        if cached > 0 || told.is_some() {
            usage.set(cached_class, cached);
        }
        if cached < overlap {
            anomalies.insert(Anomaly::TotalMismatch);
        }
    }
    if cached_read.is_some() {
        usage.set(TokenClass::CachedRead, cached_text.0);
    }
    if input.is_some() {
        usage.set(TokenClass::InputFresh, rest.0);
    }
}

/// Written tokens. Where they do not fit beside the cached ones they were read *and* written, and
/// both are charged (OpenRouter with Gemini's explicit caching: 2,161 read and 2,161 written of 2,168).
fn writes(reported: &Reported, cached: u64, rest: &mut Rest, usage: &mut Usage) {
    let Reported { written, written_5m, written_1h, .. } = *reported;
    let split = written_5m.unwrap_or(0).saturating_add(written_1h.unwrap_or(0));
    let Some(written) = written.or((written_5m.is_some() || written_1h.is_some()).then_some(split)) else {
        return;
    };
    if written > rest.0 {
        let again = if written <= cached { written } else { written.saturating_sub(rest.0) };
        usage.set(TokenClass::CacheRewrite, again);
        usage.set(TokenClass::CacheWrite, rest.take(written.saturating_sub(again)));
        return;
    }
    rest.take(written);
    let mut unsplit = Rest(written);
    for (count, class) in [(written_1h, TokenClass::CacheWrite1h), (written_5m, TokenClass::CacheWrite5m)] {
        if let Some(count) = count {
            usage.set(class, unsplit.take(count));
        }
    }
    let is_split = written_5m.is_some() || written_1h.is_some();
    if unsplit.0 > 0 || !is_split {
        usage.set(TokenClass::CacheWrite, unsplit.0);
    }
}

/// States written tokens by lifetime, where they add to the input. The sum may be newer than its split,
/// which not every provider repeats.
pub(super) fn set_writes(
    usage: &mut Usage,
    written: Option<u64>,
    written_5m: Option<u64>,
    written_1h: Option<u64>,
    anomalies: &mut Anomalies,
) {
    let split = written_5m.unwrap_or(0).saturating_add(written_1h.unwrap_or(0));
    let is_split = written_5m.is_some() || written_1h.is_some();
    let Some(written) = written.or(is_split.then_some(split)) else { return };
    if written < split {
        anomalies.insert(Anomaly::TotalMismatch);
    }
    let mut rest = Rest(written);
    for (count, class) in [(written_1h, TokenClass::CacheWrite1h), (written_5m, TokenClass::CacheWrite5m)] {
        if let Some(count) = count {
            usage.set(class, rest.take(count));
        }
    }
    if rest.0 > 0 || !is_split {
        usage.set(TokenClass::CacheWrite, rest.0);
    }
}

fn output(reported: &Reported, usage: &mut Usage, anomalies: &mut Anomalies) {
    let Reported { output, reasoning, output_audio, output_image, .. } = *reported;
    let mut rest = Rest(output.unwrap_or(u64::MAX));
    let mut reasoned = Rest(0);
    if let Some(reasoning) = reasoning {
        if reasoning > rest.0 {
            anomalies.insert(Anomaly::ReasoningExceedsOutput);
        }
        reasoned = Rest(rest.take(reasoning));
    }
    // Audio that does not fit beside the reasoning is inside it.
    if let Some(audio) = output_audio {
        let beside = rest.take(audio);
        usage.set(TokenClass::OutputAudio, beside);
        let inside = reasoned.take(audio.saturating_sub(beside));
        if inside > 0 {
            usage.set(TokenClass::OutputReasoningAudio, inside);
        }
        if beside.saturating_add(inside) < audio {
            anomalies.insert(Anomaly::TotalMismatch);
        }
    }
    if let Some(image) = output_image {
        let taken = rest.take(image);
        usage.set(TokenClass::OutputImage, taken);
        if taken < image {
            anomalies.insert(Anomaly::TotalMismatch);
        }
    }
    if reasoning.is_some() {
        usage.set(TokenClass::OutputReasoning, reasoned.0);
    }
    if output.is_some() {
        usage.set(TokenClass::OutputText, rest.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TokenClass as C;
    use proptest::prelude::*;

    fn check(reported: Reported, expected: &[(TokenClass, u64)], noted: &[Anomaly]) {
        let mut anomalies = Anomalies::default();
        let usage = disjoint(&reported, &mut anomalies);
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(usage.tokens().collect::<Vec<_>>(), expected);
        assert_eq!(anomalies.iter().collect::<Vec<_>>(), noted);
    }

    fn of(input: u64, output: u64) -> Reported {
        Reported { input: Some(input), output: Some(output), ..Reported::default() }
    }

    #[test]
    fn subsets_are_taken_out_of_their_totals() {
        let reported = Reported {
            cached: Some(300_000),
            written: Some(200_000),
            reasoning: Some(40),
            output_audio: Some(0),
            ..of(1_000_000, 100)
        };
        let classes = [
            (C::InputFresh, 500_000),
            (C::CachedRead, 300_000),
            (C::CacheWrite, 200_000),
            (C::OutputText, 60),
            (C::OutputReasoning, 40),
            (C::OutputAudio, 0),
        ];
        check(reported, &classes, &[]);
    }

    #[test]
    fn absent_totals_leave_absent_classes() {
        check(Reported::default(), &[], &[]);
        let reported = Reported { cached: Some(5), ..Reported::default() };
        check(reported, &[(C::CachedRead, 5)], &[]);
        let reported = Reported { input: Some(0), cached: Some(0), ..Reported::default() };
        check(reported, &[(C::InputFresh, 0), (C::CachedRead, 0)], &[]);
    }

    #[test]
    fn more_cached_than_input_is_clamped_and_noted() {
        let reported = Reported { cached: Some(161), ..of(7, 1) };
        let classes = [(C::InputFresh, 0), (C::CachedRead, 7), (C::OutputText, 1)];
        check(reported, &classes, &[Anomaly::CachedExceedsInput]);
    }

    #[test]
    fn more_reasoning_than_output_is_clamped_and_noted() {
        let reported = Reported { reasoning: Some(19), ..of(1, 16) };
        let classes = [(C::InputFresh, 1), (C::OutputText, 0), (C::OutputReasoning, 16)];
        check(reported, &classes, &[Anomaly::ReasoningExceedsOutput]);
    }

    #[test]
    fn a_prompt_that_was_read_and_written_is_a_rewrite() {
        let reported = Reported { cached: Some(2_161), written: Some(2_161), ..of(2_168, 1) };
        let classes = [
            (C::InputFresh, 7),
            (C::CachedRead, 2_161),
            (C::CacheWrite, 0),
            (C::CacheRewrite, 2_161),
            (C::OutputText, 1),
        ];
        check(reported, &classes, &[]);
    }

    #[test]
    fn audio_that_does_not_fit_beside_the_cached_part_is_cached_audio() {
        let reported = Reported { cached: Some(64), audio: Some(60), ..of(96, 1) };
        let classes = [
            (C::InputFresh, 0),
            (C::InputAudio, 32),
            (C::CachedRead, 36),
            (C::CachedAudio, 28),
            (C::OutputText, 1),
        ];
        check(reported, &classes, &[]);
    }

    #[test]
    fn cached_modalities_are_told_apart_where_the_provider_tells() {
        let reported = Reported {
            cached: Some(64),
            audio: Some(60),
            image: Some(8),
            cached_audio: Some(50),
            cached_image: Some(0),
            ..of(160, 1)
        };
        let classes = [
            (C::InputFresh, 78),
            (C::InputAudio, 10),
            (C::InputImage, 8),
            (C::CachedRead, 14),
            (C::CachedAudio, 50),
            (C::CachedImage, 0),
            (C::OutputText, 1),
        ];
        check(reported, &classes, &[]);
        // More of it cached than there was: the rest is not invented.
        let reported = Reported { cached: Some(4), audio: Some(3), cached_audio: Some(9), ..of(10, 0) };
        let classes = [
            (C::InputFresh, 6),
            (C::InputAudio, 0),
            (C::CachedRead, 1),
            (C::CachedAudio, 3),
            (C::OutputText, 0),
        ];
        check(reported, &classes, &[]);
    }

    #[test]
    fn audio_that_does_not_fit_beside_the_reasoning_is_reasoning_audio() {
        let reported = Reported { reasoning: Some(3), output_audio: Some(4), ..of(1, 4) };
        let classes = [
            (C::InputFresh, 1),
            (C::OutputText, 0),
            (C::OutputReasoning, 0),
            (C::OutputAudio, 1),
            (C::OutputReasoningAudio, 3),
        ];
        check(reported, &classes, &[]);
    }

    #[test]
    fn written_tokens_are_split_by_lifetime_and_the_rest_is_unsplit() {
        let reported = Reported { written: Some(10), written_5m: Some(6), written_1h: Some(0), ..of(20, 1) };
        let classes = [
            (C::InputFresh, 10),
            (C::CacheWrite, 4),
            (C::CacheWrite5m, 6),
            (C::CacheWrite1h, 0),
            (C::OutputText, 1),
        ];
        check(reported, &classes, &[]);
    }

    fn counts() -> impl Strategy<Value = Option<u64>> {
        prop::option::of(0_u64..200)
    }

    proptest! {
        #[test]
        fn the_classes_always_sum_to_the_reported_totals(
            input in 0_u64..200, output in 0_u64..200,
            c in prop::array::uniform12(counts()),
        ) {
            let [cached, written, written_5m, written_1h, audio, image, video, reasoning, out_a, out_i, c_a, c_i] = c;
            let reported = Reported {
                cached, written, written_5m, written_1h, audio, image, video, reasoning,
                output_audio: out_a, output_image: out_i, cached_audio: c_a, cached_image: c_i,
                ..of(input, output)
            };
            let usage = disjoint(&reported, &mut Anomalies::default());
            prop_assert_eq!(usage.input_total(), Some(input));
            prop_assert_eq!(usage.output_total(), Some(output));
            prop_assert_eq!(usage.cached_read_total(), cached.map(|n| n.min(input)));
        }
    }
}
