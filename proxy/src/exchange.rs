//! One exchange from the moment it is sent upstream until it is settled in the ledger.
//!
//! Invariants
//! - It is settled exactly once: at its end, at an error, or when it is dropped (the client left).
//! - Settling never fails a request.
//!
//! Not here: reading the usage (`usage`), writing the record (`bursar_ledger`).

use crate::app::App;
use crate::call::Call;
use crate::config::{Durability, Route};
use crate::upstream::RequestProgress;
use crate::usage::{self, Api, Ending, Reading, ReplyContext, ReplyMeter};
use bursar_domain::{
    Anomalies, Anomaly, Cost, Identity, Label, Metering, Outcome, RequestId, Timestamp, TraceId, UsageRecord,
    UsageSource,
};
use bursar_ledger::{Pricer, Receipt, Wait};
use http::HeaderName;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

/// An exchange that has not been settled yet.
#[derive(Debug)]
pub struct Exchange {
    app: Arc<App>,
    id: RequestId,
    started_at: Timestamp,
    identity: Arc<Identity>,
    route: Arc<Route>,
    region: Option<Label>,
    api: Api,
    model_in_path: Option<Label>,
    trace: Option<TraceId>,
    anomalies: Anomalies,
    /// What has passed of the request.
    pub request: Rc<RefCell<RequestProgress>>,
    status: Option<u16>,
    upstream_request_id: Option<Label>,
    meter: Option<Box<ReplyMeter>>,
    first_byte_at: Option<Timestamp>,
    bytes_out: u64,
    state: State,
}

/// What a settled exchange used and cost, for the reply's headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Input tokens.
    pub input: Option<u64>,
    /// Output tokens.
    pub output: Option<u64>,
    /// Where the counts come from.
    pub source: UsageSource,
    /// The cost.
    pub cost: Cost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing has been sent upstream: dropping it leaves no record.
    Held,
    /// It is with the upstream: dropping it settles it.
    Sent,
    /// It has its record.
    Settled,
}

impl Exchange {
    /// Starts the exchange of `call`.
    #[must_use]
    pub fn new(app: &Arc<App>, call: &Call, request: Rc<RefCell<RequestProgress>>) -> Self {
        app.metrics.in_flight.inc();
        Self {
            app: Arc::clone(app),
            id: call.id,
            started_at: call.started_at,
            identity: call.identity.clone().unwrap_or_else(|| Arc::new(Identity::unallocated())),
            route: Arc::clone(&call.route),
            region: call.region.clone(),
            api: call.api,
            model_in_path: call.model.clone(),
            trace: call.trace,
            anomalies: call.anomalies,
            request,
            status: None,
            upstream_request_id: None,
            meter: None,
            first_byte_at: None,
            bytes_out: 0,
            state: State::Held,
        }
    }

    /// From here on there will be a record.
    pub fn sent(&mut self) {
        self.state = State::Sent;
    }

    /// The upstream has switched protocols: the records are those of the session that begins.
    pub fn leave_to_session(&mut self) {
        self.state = State::Settled;
    }

    /// The head of the reply is here: choose how to read the rest.
    pub fn head(&mut self, status: u16, headers: &http::HeaderMap) {
        self.status = Some(status);
        self.upstream_request_id = upstream_request_id(headers);
        let context = ReplyContext {
            flavour: usage::flavour_of(self.route.provider.as_str()),
            api: self.api,
            status,
            headers,
            stream_requested: self.api.is_stream() || self.request.borrow().is_stream(),
        };
        self.meter = Some(Box::new(ReplyMeter::new(&context)));
    }

    /// A piece of the reply's body as the upstream sent it.
    pub fn body(&mut self, bytes: &[u8]) {
        self.bytes_out = self.bytes_out.saturating_add(bytes.len() as u64);
        if self.first_byte_at.is_none() {
            self.first_byte_at = Some(self.app.now());
        }
        let Some(meter) = &mut self.meter else { return };
        // A defect in a scanner must cost a count, not the client's connection.
        if catch_unwind(AssertUnwindSafe(|| meter.feed(bytes))).is_err() {
            self.meter = None;
            self.anomalies.insert(Anomaly::MeteringCapped);
            self.app.metrics.meter_panics.inc();
        }
    }

    /// Notes something to look at.
    pub fn note(&mut self, anomaly: Anomaly) {
        self.anomalies.insert(anomaly);
    }

    /// Writes the record. The receipt is only there in `sync` durability.
    pub fn settle(&mut self, ending: Ending) -> Option<Receipt> {
        if self.state != State::Sent {
            return None;
        }
        self.state = State::Settled;
        let record = self.record(ending);
        hand_over(&self.app, record)
    }

    /// Writes the record of a reply that is here whole and tells its figures.
    pub fn settle_with_figures(&mut self) -> (Option<Receipt>, Figures) {
        self.state = State::Settled;
        let mut record = self.record(Ending::Complete);
        let cost = self.app.prices.price(&record);
        let figures = Figures {
            input: record.usage.input_total(),
            output: record.usage.output_total(),
            source: record.usage_source,
            cost: cost.clone(),
        };
        if record.metering == Metering::Count {
            // Whether any other counts, and so has a cost of its own, the ledger decides.
            record.cost = Some(cost);
        }
        (hand_over(&self.app, record), figures)
    }

    fn record(&mut self, ending: Ending) -> UsageRecord {
        let request = self.request.borrow();
        let mut facts = request.facts();
        facts.stream |= self.api.is_stream();
        facts.model = self.api.requested_model(facts.model.take(), self.model_in_path.clone());
        let ended_at = self.app.now();
        let reading = self
            .meter
            .take()
            .and_then(|mut meter| catch_unwind(AssertUnwindSafe(|| meter.finish(ending, &facts))).ok())
            .unwrap_or_else(|| unread(ending, self.status));
        let mut anomalies = self.anomalies;
        anomalies.extend(reading.anomalies);
        // A body that was read to its end and is no JSON; calls that have none are no news.
        let has_body = request.bytes() > 0
            || !matches!(self.api, Api::ResponsesGet | Api::ChatStoreGet | Api::InteractionsGet);
        if facts.malformed && !facts.capped && has_body && request.is_read() && request.broken.is_none() {
            anomalies.insert(Anomaly::MalformedRequest);
        }
        UsageRecord {
            id: self.id,
            started_at: self.started_at,
            ended_at,
            identity: Arc::clone(&self.identity),
            route: self.route.name.clone(),
            provider: self.route.provider.clone(),
            api: self.api.label(),
            model_requested: facts.model,
            model_served: reading.model_served,
            // Anthropic's fast mode is a price of its own, whatever the tier says.
            tier: reading.speed.filter(|speed| speed.as_str() == "fast").or(reading.tier),
            region: reading.inference_geo.or_else(|| self.region.clone()),
            // What came; what was asked for only where nothing came.
            stream: if self.status.is_some() { reading.stream } else { facts.stream },
            http_status: self.status,
            outcome: reading.outcome,
            metering: reading.metering,
            usage: reading.usage,
            usage_source: reading.usage_source,
            counted_by: None,
            by_model: reading.by_model,
            usage_raw: reading.usage_raw,
            provider_cost: reading.provider_cost,
            cost: None,
            upstream_request_id: self.upstream_request_id.take(),
            meter_id: reading.meter_id,
            trace_id: self.trace,
            latency_us: ended_at.micros_since(self.started_at),
            ttft_us: self.first_byte_at.map(|at| at.micros_since(self.started_at)),
            bytes_in: request.bytes(),
            bytes_out: self.bytes_out,
            anomalies,
        }
    }
}

/// Gives a record to the ledger and counts it. The receipt is only there in `sync` durability.
pub(crate) fn hand_over(app: &App, record: UsageRecord) -> Option<Receipt> {
    app.metrics.settled(&record);
    let waits = app.config.ledger.durability == Durability::Sync;
    let wait = if waits { Wait::Acknowledged } else { Wait::No };
    match app.ledger.append(app.ledger.boxed(record), wait) {
        Ok(receipt) => waits.then_some(receipt),
        Err(refused) => {
            app.metrics.record_lost(&refused.to_string());
            None
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.settle(Ending::ClientAbort);
        self.app.metrics.in_flight.dec();
    }
}

/// The reading of an exchange whose reply never came or could not be read.
fn unread(ending: Ending, status: Option<u16>) -> Reading {
    let outcome = match (ending, status) {
        (Ending::ClientAbort, _) => Outcome::Aborted,
        (_, Some(status)) if status < 400 => Outcome::ErrorMidstream,
        _ => Outcome::Error,
    };
    let metering = if status.is_some_and(|s| s < 400) { Metering::Count } else { Metering::Never };
    Reading { outcome, metering, ..Reading::nothing() }
}

/// The upstream's own id of the request, by the header names of the providers.
pub(crate) fn upstream_request_id(headers: &http::HeaderMap) -> Option<Label> {
    static NAMES: [HeaderName; 5] = [
        HeaderName::from_static("x-request-id"),
        HeaderName::from_static("request-id"),
        HeaderName::from_static("apim-request-id"),
        HeaderName::from_static("x-amzn-requestid"),
        HeaderName::from_static("x-generation-id"),
    ];
    let value = NAMES.iter().find_map(|name| headers.get(name))?;
    Label::lossy(value.to_str().ok()?)
}
