//! A tunnelled session from its handshake until its last part is settled in the ledger.
//!
//! Invariants
//! - Each part that is billed (a response, a turn, a transcription) has its own record; a session
//!   without one has a single record that does not count.
//! - The first record has the id of the handshake; all of them carry it as their session, unless the
//!   client named one.
//! - Whatever ends it, what is known is settled: dropping it settles it.
//! - Where a hard budget limits it, each response to come is held before it begins; a session whose next
//!   response does not fit is ended.
//!
//! Not here: reading the session (`usage::session`), moving its bytes (`tunnel`).

use crate::app::App;
use crate::call::Call;
use crate::config::{FailMode, Route};
use crate::exchange::{self, Kept, NextResponse};
use crate::ids::IdSource;
use crate::limits::Pass;
use crate::usage::{self, Api, Ending, Part, Reading, SessionMeter};
use bursar_domain::{
    Anomalies, Anomaly, Identity, Label, Metering, Outcome, RequestId, Timestamp, TraceId, UsageRecord,
};
use bursar_ledger::{Caller, Receipt};
use bursar_policies::budget::Asked;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

/// What a session needs to know of the call that opened it.
#[derive(Debug)]
pub(crate) struct Opening {
    id: RequestId,
    started_at: Timestamp,
    identity: Arc<Identity>,
    route: Arc<Route>,
    region: Option<Label>,
    api: Api,
    model: Option<Label>,
    trace: Option<TraceId>,
    caller: Caller,
    anomalies: Anomalies,
}

/// A session that is not over.
#[derive(Debug)]
pub(crate) struct Session {
    app: Arc<App>,
    ids: Rc<IdSource>,
    opening: Opening,
    status: u16,
    upstream_request_id: Option<Label>,
    meter: Option<Box<SessionMeter>>,
    /// The handshake's id, until a record has it.
    first_id: Option<RequestId>,
    /// Bytes since the last record.
    bytes_in: u64,
    bytes_out: u64,
    receipts: Vec<Receipt>,
    /// For the next record: its place, where nothing may pass unrecorded; for the first one all there is.
    kept: Kept,
    /// The hold of the next response, where budgets hold one.
    hold: Option<Hold>,
    /// What the session has taken of its limits: it is one request, and all tokens of its responses.
    pass: Option<Box<Pass>>,
    /// The next response does not fit into its budgets.
    is_spent: bool,
    is_over: bool,
}

/// What budgets hold for a response to come.
#[derive(Debug)]
struct Hold {
    id: RequestId,
    /// It lasts while this is here.
    asked: Arc<Asked>,
}

impl Opening {
    /// Takes from `call` what outlives its handshake.
    pub(crate) fn of(call: &Call) -> Self {
        let identity = call.identity.clone().unwrap_or_else(|| Arc::new(Identity::unallocated()));
        Self {
            id: call.id,
            started_at: call.started_at,
            identity: with_session(identity, call.id),
            route: Arc::clone(&call.route),
            region: call.region.clone(),
            api: call.api,
            model: call.model.clone(),
            trace: call.trace,
            caller: call.caller,
            anomalies: call.anomalies,
        }
    }
}

/// Records of one session must be found together, also when the client did not name it.
fn with_session(identity: Arc<Identity>, id: RequestId) -> Arc<Identity> {
    if identity.session.is_some() {
        return identity;
    }
    Arc::new(Identity { session: Label::new(&id.to_string()).ok(), ..Identity::clone(&identity) })
}

impl Session {
    /// The session that begins with the upstream's answer.
    pub(crate) fn new(
        app: &Arc<App>,
        ids: &Rc<IdSource>,
        opening: Opening,
        mut kept: Kept,
        answer: &http::response::Parts,
    ) -> Self {
        app.metrics.in_flight.inc();
        let flavour = usage::flavour_of(opening.route.provider.as_str());
        let hold = kept.take_held().map(|asked| Hold { id: opening.id, asked });
        let pass = kept.take_pass();
        Self {
            app: Arc::clone(app),
            ids: Rc::clone(ids),
            status: answer.status.as_u16(),
            upstream_request_id: exchange::upstream_request_id(&answer.headers),
            meter: Some(Box::new(SessionMeter::new(opening.api, flavour, opening.model.clone()))),
            first_id: Some(opening.id),
            opening,
            bytes_in: 0,
            bytes_out: 0,
            receipts: Vec::new(),
            kept,
            hold,
            pass,
            is_spent: false,
            is_over: false,
        }
    }

    /// Bytes from the client pass.
    pub(crate) fn client_says(&mut self, bytes: &[u8]) {
        self.bytes_in = self.bytes_in.saturating_add(bytes.len() as u64);
        self.read(|meter, _| meter.client_says(bytes));
    }

    /// Bytes from the upstream are about to pass. Receipts are only there in `sync` durability.
    pub(crate) fn server_says(&mut self, bytes: &[u8]) -> Vec<Receipt> {
        self.bytes_out = self.bytes_out.saturating_add(bytes.len() as u64);
        self.read(|meter, now| meter.server_says(bytes, now));
        while let Some(part) = self.meter.as_mut().and_then(|meter| meter.next_part()) {
            self.settle(part);
        }
        std::mem::take(&mut self.receipts)
    }

    /// Whether a hard budget has no room for the next response; or the ledger has none for its record, or
    /// cannot write it, and the configuration says that then nothing passes. Asked at each turn: costs a
    /// load.
    pub(crate) fn must_end(&self) -> bool {
        let is_closed = self.app.config().ledger.fail == FailMode::Closed;
        self.is_spent || (is_closed && (!self.kept.has_place() || self.app.ledger.is_troubled()))
    }

    /// The session is over: settles what is left of it.
    pub(crate) fn end(&mut self, ending: Ending) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let session_id = self.meter.as_ref().and_then(|meter| meter.session_id());
        let left = self
            .meter
            .take()
            .and_then(|meter| catch_unwind(AssertUnwindSafe(|| meter.finish(ending))).ok())
            .unwrap_or_else(|| vec![unread(ending)]);
        self.upstream_request_id = self.upstream_request_id.take().or(session_id);
        for mut part in left {
            part.started_at.get_or_insert(self.opening.started_at);
            self.settle(part);
        }
        // Nothing follows, and nobody is left to wait for receipts.
        if let Some(hold) = self.hold.take() {
            self.app.budgets.release(hold.id);
        }
        self.pass = None;
        self.kept = Kept::default();
        self.receipts.clear();
    }

    fn read(&mut self, feed: impl FnOnce(&mut SessionMeter, Timestamp)) {
        let Some(meter) = &mut self.meter else { return };
        let now = self.app.now();
        // A defect in a scanner must cost a count, not the client's connection.
        if catch_unwind(AssertUnwindSafe(|| feed(meter, now))).is_err() {
            self.meter = None;
            self.app.metrics.meter_panics.inc();
        }
    }

    fn settle(&mut self, part: Part) {
        let record = self.record(part);
        if let Some(pass) = &mut self.pass {
            pass.used(&record);
        }
        let mut kept = std::mem::take(&mut self.kept).called_by(self.opening.caller);
        let had_place = kept.has_place();
        if let Some(Hold { id, asked }) = self.hold.take() {
            // Before the record is booked, so that at no moment neither is there.
            self.app.budgets.hold_for(id, &exchange::used_by(&self.app, &record));
            kept = kept.holding(Some(asked));
            self.hold_next(&record);
        }
        self.receipts.extend(exchange::hand_over(&self.app, Box::new(record), kept));
        // The next record needs a place of its own; without one the session ends.
        if had_place {
            self.kept = Kept::in_place(self.app.ledger.reserve().ok());
        }
    }

    /// Holds the response after `last`, or ends the session.
    fn hold_next(&mut self, last: &UsageRecord) {
        if self.is_over {
            return;
        }
        let at = self.app.now();
        let id = self.ids.next(at);
        let Opening { identity, route, region, api, .. } = &self.opening;
        let next = NextResponse { id, at, identity, route, region: region.as_ref(), api: *api, last };
        match next.hold(&self.app) {
            Ok(held) => self.hold = held.map(|asked| Hold { id, asked }),
            Err(error) => {
                tracing::warn!(session = %self.opening.id, %error, "the session ends");
                if let Some(reason) = error.refusal() {
                    self.app.metrics.refused(reason);
                }
                self.is_spent = true;
            }
        }
    }

    fn record(&mut self, part: Part) -> UsageRecord {
        let Part { reading, model_requested, started_at, first_output_at } = part;
        let ended_at = self.app.now();
        let id = self.first_id.take().unwrap_or_else(|| self.ids.next(ended_at));
        let session_id = || self.meter.as_ref().and_then(|meter| meter.session_id());
        let upstream_request_id = self.upstream_request_id.clone().or_else(session_id);
        let opening = &self.opening;
        let started_at = started_at.unwrap_or(ended_at);
        let mut anomalies = opening.anomalies;
        anomalies.extend(reading.anomalies);
        UsageRecord {
            id,
            started_at,
            ended_at,
            identity: Arc::clone(&opening.identity),
            route: opening.route.name.clone(),
            provider: opening.route.provider.clone(),
            api: opening.api.label(),
            model_requested,
            model_served: reading.model_served,
            tier: reading.tier,
            region: opening.region.clone(),
            stream: true,
            http_status: Some(self.status),
            outcome: reading.outcome,
            metering: reading.metering,
            usage: reading.usage,
            usage_source: reading.usage_source,
            counted_by: None,
            by_model: reading.by_model,
            usage_raw: reading.usage_raw,
            provider_cost: reading.provider_cost,
            cost: None,
            upstream_request_id,
            meter_id: reading.meter_id,
            trace_id: opening.trace,
            latency_us: ended_at.micros_since(started_at),
            ttft_us: first_output_at.map(|at| at.micros_since(started_at)),
            bytes_in: std::mem::take(&mut self.bytes_in),
            bytes_out: std::mem::take(&mut self.bytes_out),
            anomalies,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end(Ending::ClientAbort);
        self.app.metrics.in_flight.dec();
    }
}

/// What is left of a session whose meter failed: nobody knows what it used.
fn unread(ending: Ending) -> Part {
    let mut anomalies = Anomalies::default();
    anomalies.insert(Anomaly::MeteringCapped);
    let outcome = match ending {
        Ending::Complete => Outcome::Ok,
        Ending::UpstreamCut => Outcome::ErrorMidstream,
        Ending::ClientAbort => Outcome::Aborted,
    };
    let reading = Reading { outcome, metering: Metering::Count, anomalies, ..Reading::nothing() };
    Part { reading, model_requested: None, started_at: None, first_output_at: None }
}
