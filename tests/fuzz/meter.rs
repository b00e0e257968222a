//! The meter's sources, compiled alone so that an instrumented build takes a minute, and the checks
//! that the reply targets share.
//!
//! Not here: the targets.

#![allow(missing_docs, reason = "the included sources are documented for their own crate")]

#[path = "../../proxy/src/usage/mod.rs"]
pub mod usage;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use std::collections::BTreeMap;
use usage::text::TextKey;
use usage::{Api, BatchReading, Ending, Reading, ReplyContext, ReplyMeter, RequestFacts, flavour_of};

const PROVIDERS: [&str; 8] =
    ["openai", "azure", "groq", "xai", "mistral", "openrouter", "perplexity", "gemini"];

/// How a target reads its input: the first byte chooses, the rest is the body.
pub struct Setup<'a> {
    pub provider: &'static str,
    pub stream: bool,
    pub ending: Ending,
    pub body: &'a [u8],
}

impl<'a> Setup<'a> {
    pub fn of(data: &'a [u8]) -> Option<Self> {
        let (choice, body) = data.split_first()?;
        let ending = match choice >> 4 & 3 {
            0 | 1 => Ending::Complete,
            2 => Ending::UpstreamCut,
            _ => Ending::ClientAbort,
        };
        let provider = PROVIDERS[usize::from(choice & 7)];
        Some(Self { provider, stream: choice & 8 != 0, ending, body })
    }

    /// The reading and the texts that passed, each whole.
    fn read(&self, api: Api, kind: &'static str, size: usize) -> (Reading, BTreeMap<TextKey, Vec<u8>>) {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        let mut meter = ReplyMeter::new(&ReplyContext {
            flavour: flavour_of(self.provider),
            api,
            status: 200,
            headers: &headers,
            stream_requested: self.stream,
        });
        let mut texts: BTreeMap<TextKey, Vec<u8>> = BTreeMap::new();
        meter.keep_text(usize::MAX);
        for piece in self.body.chunks(size) {
            meter.feed(piece);
        }
        if let Some(passed) = meter.text() {
            passed.pieces().for_each(|(key, raw)| texts.entry(key).or_default().extend(raw));
        }
        (meter.finish(self.ending, &RequestFacts::default()), texts)
    }

    /// Any slicing gives the same reading and the same texts; counts and the raw text are bounded.
    pub fn check(&self, api: Api) {
        let kind = match (self.stream, api) {
            (false, _) => "application/json",
            (true, Api::ConverseStream | Api::InvokeStream) => "application/vnd.amazon.eventstream",
            (true, _) => "text/event-stream",
        };
        self.check_as(api, kind);
    }

    /// The same for a body of this type.
    pub fn check_as(&self, api: Api, kind: &'static str) {
        let whole = self.read(api, kind, usize::MAX);
        for size in [1, 7] {
            assert_eq!(self.read(api, kind, size), whole);
        }
        let (whole, _) = whole;
        for (_, count) in whole.usage.tokens() {
            assert!(count <= 1_000 * usage::number::COUNT_MAX);
        }
        if let Some(BatchReading::Results(lines)) = &whole.batch {
            assert!(lines.len() <= bursar_domain::batch::LINES_MAX);
        }
        if let Some(raw) = &whole.usage_raw {
            assert!(raw.len() <= usage::RAW_BYTES_MAX);
        }
    }
}
