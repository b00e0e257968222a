//! What is kept of an exchange in case its tokens must be counted.
//!
//! Invariants
//! - The request's first pieces are shared with what is sent, not copied; of a longer request small
//!   windows are kept.
//! - A reply's text goes to the pool in blocks once it is long, and is dropped there when the provider
//!   tells its figures after all.
//!
//! Not here: counting (`settle`, `texts`).

use super::pool::{Counting, Job};
use super::settle::Work;
use super::tally::{self, Precision, Tally};
use super::texts::Texts;
use crate::usage::Api;
use crate::usage::text::PassedText;
use bursar_domain::{Label, RequestId};
use bytes::Bytes;
use std::sync::{Arc, Mutex};

/// Text that a worker holds of a reply before it goes to the pool: a whole answer, nearly always.
pub const BLOCK_BYTES: usize = 32 * 1024;

const WINDOW_BYTES: usize = 256;
const STRIDE_BYTES: u64 = 16 * 1024;
const WINDOWS_MAX: usize = 256;

/// Windows of the part of a request that is not kept.
#[derive(Debug, Default)]
pub struct Sample {
    pub(super) windows: Vec<u8>,
    pub(super) bytes: u64,
}

impl Sample {
    /// Takes a look at what passes.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut at = self.bytes;
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        let mut rest = bytes;
        while !rest.is_empty() && self.windows.len() < WINDOWS_MAX * WINDOW_BYTES {
            let within = at % STRIDE_BYTES;
            let window = WINDOW_BYTES as u64;
            let (wanted, step) =
                if within < window { (true, window - within) } else { (false, STRIDE_BYTES - within) };
            let step = usize::try_from(step).unwrap_or(rest.len()).min(rest.len());
            let (now, after) = rest.split_at_checked(step).unwrap_or((rest, &[]));
            if wanted {
                self.windows.extend_from_slice(now);
            }
            at = at.saturating_add(step as u64);
            rest = after;
        }
    }

    /// The windows.
    pub(super) fn windows(&self) -> impl Iterator<Item = &[u8]> {
        self.windows.chunks(WINDOW_BYTES)
    }
}

/// What is kept of one exchange.
#[derive(Debug)]
pub struct Watch {
    id: RequestId,
    api: Api,
    request: Vec<Bytes>,
    is_whole: bool,
    encoding: Option<Box<str>>,
    texts: Option<Arc<Mutex<Texts>>>,
    lost_bytes: u64,
}

impl Watch {
    /// Keeps what is `held` of a request for `api`; `is_whole` when nothing follows.
    #[must_use]
    pub fn new(id: RequestId, api: Api, held: &[Bytes], is_whole: bool, encoding: Option<&str>) -> Self {
        Self {
            id,
            api,
            request: held.to_vec(),
            is_whole,
            encoding: encoding.map(Box::from),
            texts: None,
            lost_bytes: 0,
        }
    }

    /// Whether the tokens of this API can be counted.
    #[must_use]
    pub const fn knows(api: Api) -> bool {
        matches!(
            api,
            Api::OpenAiChat
                | Api::LegacyCompletions
                | Api::Responses
                | Api::Messages
                | Api::Embeddings
                | Api::GenerateContent
                | Api::StreamGenerateContent
                | Api::EmbedContent
                | Api::Interactions
                | Api::Converse
                | Api::ConverseStream
                | Api::Invoke
                | Api::InvokeStream
                | Api::CohereChatV1
                | Api::CohereChat
                | Api::OllamaChat
                | Api::OllamaGenerate
        )
    }

    /// Sends a block of text to be counted, with the vocabulary of the model that was asked for.
    pub fn send(&mut self, pool: &Counting, provider: &str, model: Option<&Label>, block: PassedText) {
        let known = tally::known(provider, model);
        let texts =
            self.texts.get_or_insert_with(|| Arc::new(Mutex::new(Texts::new(known.knowledge.encoding()))));
        let bytes = (block.held() as u64).saturating_add(block.lost_bytes());
        let job = Job::Block { texts: Arc::clone(texts), tally: known, block };
        if pool.send(self.id, job).is_err() {
            self.lost_bytes = self.lost_bytes.saturating_add(bytes);
        }
    }

    /// Whether text of the reply has been sent to the pool.
    #[must_use]
    pub const fn has_sent(&self) -> bool {
        self.texts.is_some()
    }

    /// Whether the API has no output to count.
    #[must_use]
    pub const fn is_input_only(&self) -> bool {
        is_input_only(self.api)
    }

    /// All there is to count, when the exchange is over.
    #[must_use]
    pub fn finish(self, last: PassedText, sample: Option<Box<Sample>>) -> Work {
        Work {
            api: self.api,
            request: self.request,
            is_whole: self.is_whole,
            encoding: self.encoding,
            sample,
            texts: self.texts,
            last,
            lost_bytes: self.lost_bytes,
        }
    }
}

/// Whether an API has no output to count.
pub(super) const fn is_input_only(api: Api) -> bool {
    matches!(api, Api::Embeddings | Api::EmbedContent)
}

impl Tally {
    /// A tally for a block, on the pool's thread.
    pub(super) fn full(model: bursar_tokens::Model) -> Self {
        Self::new(model, Precision::Full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_spread_evenly_however_the_body_is_cut() {
        let body: Vec<u8> = (0..100_000_u32).map(|n| (n / 256) as u8).collect();
        let mut whole = Sample::default();
        whole.feed(&body);
        for size in [1, 100, 1_000, 40_000] {
            let mut cut = Sample::default();
            body.chunks(size).for_each(|piece| cut.feed(piece));
            assert_eq!((cut.bytes, &cut.windows), (whole.bytes, &whole.windows));
        }
        assert_eq!(whole.windows().count(), 7);
        let mut endless = Sample::default();
        for _ in 0..100 {
            endless.feed(&[b'x'; 1 << 20]);
        }
        assert_eq!(endless.windows.len(), WINDOWS_MAX * WINDOW_BYTES);
    }
}
