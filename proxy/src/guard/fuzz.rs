//! The fuzz target of the guard's framing, run by property tests here and under `cargo fuzz`.
//!
//! What must hold for any bytes: no panic; the verdict and what passes do not depend on the cuts; little
//! is held back; what passes is a prefix of what came; nothing passes after a rejection.

use super::framing::{Http1Guard, Verdict};
use super::limits::Limits;

/// What a whole stream came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How many of its bytes passed.
    pub passed: usize,
    /// How many heads passed.
    pub heads: u32,
    /// How many of the passed bytes belong to bodies.
    pub body: usize,
    /// The verdict at its end.
    pub verdict: Verdict,
}

/// Feeds `stream` in pieces of the given sizes (repeated; none means one piece).
pub fn feed(stream: &[u8], sizes: &[usize], limits: Limits) -> Outcome {
    let mut guard = Http1Guard::new(limits);
    let mut outcome = Outcome { passed: 0, heads: 0, body: 0, verdict: Verdict::Continue };
    let mut end = 0;
    let mut sizes = sizes.iter().cycle();
    while end < stream.len() {
        end = sizes.next().map_or(stream.len(), |size| stream.len().min(end + size.max(&1)));
        let step = guard.inspect(stream.get(outcome.passed..end).unwrap_or_default());
        assert!(outcome.verdict == Verdict::Continue || (step.pass, step.verdict) == (0, outcome.verdict));
        outcome.passed += step.pass;
        outcome.heads += step.heads;
        outcome.body += step.body;
        outcome.verdict = step.verdict;
        assert!(outcome.passed <= end);
        if step.verdict == Verdict::Continue {
            assert!(end - outcome.passed < limits.head_bytes_max.max(limits.trailer_bytes_max));
        }
    }
    outcome
}

/// The first byte chooses the cuts, the rest is the stream.
pub fn fuzz_guard(data: &[u8]) {
    let Some((&seed, stream)) = data.split_first() else { return };
    let limits = Limits {
        head_bytes_max: 512,
        headers_max: 8,
        target_bytes_max: 128,
        body_of_get: seed % 2 == 1,
        body_bytes_max: 256,
        trailer_bytes_max: 128,
        trailers_max: 2,
    };
    let whole = feed(stream, &[], limits);
    let seed = usize::from(seed);
    assert_eq!(feed(stream, &[1], limits), whole);
    assert_eq!(feed(stream, &[1 + seed % 7, 1 + seed / 7, 3], limits), whole);
}

#[cfg(test)]
mod tests;
