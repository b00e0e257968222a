//! A request on its way through the layers: what each layer has found out so far.

use crate::config::{Dialect, Route};
use crate::credentials::Credential;
use crate::upstream::Origin;
use crate::usage::Api;
use bursar_domain::{Anomalies, Identity, Label, RequestId, Timestamp, TraceId};
use bursar_ledger::{Caller, Place};
use http::HeaderValue;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use std::sync::Arc;

/// A request that has a route.
#[derive(Debug)]
pub struct Call {
    /// Names the request and its record.
    pub id: RequestId,
    /// When its head had arrived.
    pub started_at: Timestamp,
    /// Method, headers and so on, as the client sent them.
    pub head: http::request::Parts,
    /// The body, still on its way, until the meter takes it.
    pub body: Option<Incoming>,
    /// The route.
    pub route: Arc<Route>,
    /// Where it goes.
    pub origin: Arc<Origin>,
    /// Its authority as a header.
    pub host: HeaderValue,
    /// What to ask for there.
    pub target: PathAndQuery,
    /// The price region.
    pub region: Option<Label>,
    /// Which API of the provider that is.
    pub api: Api,
    /// The model, where the path or the query names it.
    pub model: Option<Label>,
    /// Who it is for, once that is known.
    pub identity: Option<Arc<Identity>>,
    /// The credential that it rests on, if it brought one of ours.
    pub credential: Option<Arc<Credential>>,
    /// Where its record will go, if nothing may pass unrecorded.
    pub place: Option<Place>,
    /// The caller's trace.
    pub trace: Option<TraceId>,
    /// What else its telemetry needs to know of the caller.
    pub caller: Caller,
    /// What to look at later.
    pub anomalies: Anomalies,
}

impl Call {
    /// The API family whose error shape the client understands: that of the API it calls, where its
    /// provider offers several.
    #[must_use]
    pub fn error_dialect(&self) -> Dialect {
        match (self.route.dialect, self.api) {
            (Dialect::Gemini, Api::OpenAiChat | Api::Embeddings) => Dialect::OpenAi,
            (Dialect::Gemini | Dialect::Bedrock, Api::Messages) => Dialect::Anthropic,
            (
                Dialect::Bedrock,
                Api::OpenAiChat
                | Api::Responses
                | Api::ResponsesCompact
                | Api::ResponsesGet
                | Api::LegacyCompletions,
            ) => Dialect::OpenAi,
            (dialect, _) => dialect,
        }
    }
}
