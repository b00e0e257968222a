//! One exchange from the moment it is sent upstream until it is settled in the ledger.
//!
//! Invariants
//! - It is settled exactly once: at its end, at an error, or when it is dropped (the client left).
//! - Settling never fails a request.
//!
//! Not here: reading the usage (`usage`), writing the record (`bursar_ledger`).

mod access;
mod admission;
mod most;
mod steering;

pub(crate) use access::Seen;
pub(crate) use access::{AccessRefusal, Denied};
pub(crate) use admission::{BodyBytes, NextResponse, used_by};

use crate::app::App;
use crate::call::Call;
use crate::config::{Config, CountMode, DrainLimits, Durability, OnAbort, Route};
use crate::count::{BLOCK_BYTES, Sample, Settlement, Watch, Work};
use crate::credentials::Credential;
use crate::limits::Pass;
use crate::upstream::RequestProgress;
use crate::usage::text::{DOCUMENT_BYTES_MAX, PassedText, STREAM_BYTES_MAX};
use crate::usage::{self, Api, BatchReading, Ending, Reading, ReplyContext, ReplyMeter};
use bursar_domain::{
    Anomalies, Anomaly, BatchFacts, Cost, Identity, Label, Metering, Outcome, RequestId, Timestamp, TraceId,
    UsageRecord, UsageSource,
};
use bursar_ledger::{Caller, OpenSlot, Opening, Place, Pricer, Receipt, Wait};
use bursar_policies::budget::Asked;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::oneshot;

/// Most bytes of a request that are kept while its reply passes, in case its tokens must be counted; more
/// than is held of one that is not held whole, and as much as of one that is signed here.
const KEPT_BYTES_MAX: usize = 1024 * 1024;

/// An exchange that has not been settled yet.
#[derive(Debug)]
pub struct Exchange {
    app: Arc<App>,
    id: RequestId,
    started_at: Timestamp,
    identity: Arc<Identity>,
    credential: Option<Arc<Credential>>,
    /// The settings with the access rules that it began under, until they were asked; `None` where there is
    /// none.
    access: Option<Arc<Config>>,
    route: Arc<Route>,
    region: Option<Label>,
    api: Api,
    model_in_path: Option<Label>,
    /// Whether it cancels what was asked for before.
    cancels: bool,
    /// Whether its query names two models, so that servers may differ in which they take.
    two_models: bool,
    batch_in_path: Option<Label>,
    trace: Option<TraceId>,
    anomalies: Anomalies,
    /// What has passed of the request.
    pub request: Rc<RefCell<RequestProgress>>,
    status: Option<u16>,
    upstream_request_id: Option<Label>,
    meter: Option<Box<ReplyMeter>>,
    /// What is kept in case the tokens must be counted.
    watch: Option<Box<Watch>>,
    /// Whether text of the reply is sent to be counted while it passes, which it is for streams.
    sends_text: bool,
    /// Whether the reply was read on without a client.
    drained: bool,
    first_byte_at: Option<Timestamp>,
    bytes_out: u64,
    kept: Kept,
    /// What to tell the client of its budgets.
    warning: Option<Box<HeaderValue>>,
    /// What to tell the client of rules.
    told: Vec<(HeaderName, HeaderValue)>,
    /// What rules changed of the request.
    sent: Option<Box<steering::Sent>>,
    state: State,
}

/// What is kept for the record of an exchange until that is handed over.
#[derive(Debug, Default)]
pub struct Kept {
    /// Room in the ledger's queue.
    place: Option<Place>,
    /// Where the ledger has written down that the exchange is under way.
    slot: Option<OpenSlot>,
    /// What budgets hold for it. The ledger's writer releases that with the record.
    held: Option<Arc<Asked>>,
    /// What it has taken of its limits.
    pass: Option<Box<Pass>>,
    /// Whether its reply can be read back, and then must not count again.
    is_read_back: bool,
    /// What whoever observes the ledger is told besides.
    caller: Caller,
}

impl Kept {
    /// Room for a record and nothing else.
    #[must_use]
    pub fn in_place(place: Option<Place>) -> Self {
        Self { place, ..Self::default() }
    }

    /// What budgets hold, which the caller keeps from now on.
    pub fn take_held(&mut self) -> Option<Arc<Asked>> {
        self.held.take()
    }

    /// What was taken of limits, which the caller keeps from now on.
    pub fn take_pass(&mut self) -> Option<Box<Pass>> {
        self.pass.take()
    }

    /// Keeps what budgets hold.
    #[must_use]
    pub fn holding(self, held: Option<Arc<Asked>>) -> Self {
        Self { held, ..self }
    }

    /// Keeps what is told of the caller besides.
    #[must_use]
    pub fn called_by(self, caller: Caller) -> Self {
        Self { caller, ..self }
    }

    /// Whether there is room for the record.
    #[must_use]
    pub const fn has_place(&self) -> bool {
        self.place.is_some()
    }
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
    /// The cost; `None` where nothing is to be priced, as in the record.
    pub cost: Option<Cost>,
}

/// What there is to do with a record besides writing it.
#[derive(Debug)]
enum Also {
    /// Its usage is not told and must be counted first.
    Count(Box<Work>),
    /// It is about a batch.
    Batch(Box<BatchFacts>),
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
    pub fn new(app: &Arc<App>, call: &mut Call, request: Rc<RefCell<RequestProgress>>) -> Self {
        app.metrics.in_flight.inc();
        let config = app.config();
        let has_rules = call.credential.is_some() || !config.access.is_empty();
        Self {
            access: has_rules.then(|| Arc::clone(&config)),
            app: Arc::clone(app),
            id: call.id,
            started_at: call.started_at,
            identity: call.identity.clone().unwrap_or_else(|| Arc::new(Identity::unallocated())),
            credential: call.credential.take(),
            route: Arc::clone(&call.route),
            region: call.region.clone(),
            api: call.api,
            model_in_path: call.model.clone(),
            cancels: access::cancels(call.api, call.target.path()),
            two_models: call.api.is_session() && access::names_two_models(&call.target),
            batch_in_path: if call.api.is_batch_results() {
                usage::batch_in_path(call.target.path()).as_deref().and_then(Label::lossy)
            } else {
                None
            },
            trace: call.trace,
            anomalies: call.anomalies,
            request,
            status: None,
            upstream_request_id: None,
            meter: None,
            watch: None,
            sends_text: false,
            drained: false,
            first_byte_at: None,
            bytes_out: 0,
            kept: Kept::in_place(call.place.take()).called_by(call.caller),
            warning: None,
            told: Vec::new(),
            sent: None,
            state: State::Held,
        }
    }

    /// From here on there will be a record, also if the process is killed. There is only something to
    /// wait for in `sync` durability, and then before the request is sent.
    pub fn sent(&mut self) -> Option<Receipt> {
        self.state = State::Sent;
        if let Some(pass) = &mut self.kept.pass {
            pass.sent();
        }
        let waits = self.app.config().ledger.durability == Durability::Sync;
        let wait = if waits { Wait::Acknowledged } else { Wait::No };
        let (slot, receipt) = self.app.ledger.opening(self.opening(), wait);
        self.kept.slot = Some(slot);
        waits.then_some(receipt)
    }

    fn opening(&self) -> Opening {
        let request = self.request.borrow();
        let model = self
            .sent_model()
            .or_else(|| self.api.requested_model(request.model(), self.model_in_path.clone()));
        Opening {
            id: self.id,
            started_at: self.started_at,
            identity: Arc::clone(&self.identity),
            route: self.route.name.clone(),
            provider: self.route.provider.clone(),
            api: self.api.label(),
            model,
            region: self.region.clone(),
            stream: self.api.is_stream() || request.is_stream(),
            metering: if self.api.is_metered() { Metering::Count } else { Metering::Never },
            held_tokens: self.kept.held.as_ref().and_then(|held| held.tokens),
            held_cost: self.kept.held.as_ref().and_then(|held| held.cost),
        }
    }

    /// The model that a rule asks for instead.
    fn sent_model(&self) -> Option<Label> {
        self.sent.as_ref().and_then(|sent| sent.model.clone())
    }

    /// What to tell the client of rules, once.
    pub fn take_told(&mut self) -> Vec<(HeaderName, HeaderValue)> {
        std::mem::take(&mut self.told)
    }

    /// What to tell the client of its budgets, once.
    pub fn take_warning(&mut self) -> Option<HeaderValue> {
        self.warning.take().map(|warning| *warning)
    }

    /// Nothing was sent after all.
    pub fn withdraw(&mut self) {
        if let Some(slot) = self.kept.slot.take() {
            self.app.ledger.closing(slot);
        }
        if let Some(pass) = &mut self.kept.pass {
            pass.withdraw();
        }
        self.state = State::Held;
    }

    /// The upstream has switched protocols: the records are those of the session that begins, and
    /// so is what is kept for the first.
    pub fn leave_to_session(&mut self) -> Kept {
        self.state = State::Settled;
        std::mem::take(&mut self.kept)
    }

    /// Keeps what is `held` of the request, in case its tokens must be counted; `is_whole` when nothing
    /// follows.
    pub fn watch(&mut self, held: &[Bytes], is_whole: bool, encoding: Option<&str>) {
        if self.route.count == CountMode::Off || !Watch::knows(self.api) {
            return;
        }
        // Of a body that is held whole for the budgets no more is kept than of one that is not.
        let (mut kept, mut bytes) = (held.len(), 0_usize);
        for (at, piece) in held.iter().enumerate() {
            bytes = bytes.saturating_add(piece.len());
            if bytes > KEPT_BYTES_MAX {
                kept = at;
                break;
            }
        }
        let (first, rest) = held.split_at_checked(kept).unwrap_or((held, &[]));
        if !is_whole || !rest.is_empty() {
            let mut sample = Box::<Sample>::default();
            rest.iter().for_each(|piece| sample.feed(piece));
            self.request.borrow_mut().sample = Some(sample);
        }
        let is_whole = is_whole && rest.is_empty();
        self.watch = Some(Box::new(Watch::new(self.id, self.api, first, is_whole, encoding)));
    }

    /// Whether the reply is to be read on when its client has left.
    #[must_use]
    pub fn drains(&self) -> bool {
        self.route.on_abort == OnAbort::Drain && self.api.is_metered() && self.state == State::Sent
    }

    /// The client has left; what follows is read for its usage alone.
    pub fn begin_drain(&mut self) -> DrainLimits {
        self.drained = true;
        self.app.config().drain
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
        let mut meter = Box::new(ReplyMeter::new(&context));
        self.sends_text = context.stream_requested;
        let held_max = if self.sends_text { STREAM_BYTES_MAX } else { DOCUMENT_BYTES_MAX };
        if status >= 400 || (self.watch.is_some() && !meter.keep_text(held_max)) {
            self.watch = None;
        }
        self.meter = Some(meter);
    }

    /// A piece of the reply's body as the upstream sent it.
    pub fn body(&mut self, bytes: &[u8]) {
        self.bytes_out = self.bytes_out.saturating_add(bytes.len() as u64);
        self.kept.caller.pieces = self.kept.caller.pieces.saturating_add(1);
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
        if self.sends_text && self.watch.is_some() {
            self.send_long_text();
        }
    }

    /// Sends text that has grown long to be counted, so that little of it is held here.
    fn send_long_text(&mut self) {
        let (Some(watch), Some(meter)) = (&mut self.watch, &mut self.meter) else { return };
        let Some(text) = meter.text().filter(|text| text.held() >= BLOCK_BYTES) else { return };
        let sent = self.sent.as_ref().and_then(|sent| sent.model.clone());
        let model = sent.or_else(|| self.request.borrow().facts().model);
        watch.send(&self.app.counting, self.route.provider.as_str(), model.as_ref(), text.take());
    }

    /// Notes something to look at.
    pub fn note(&mut self, anomaly: Anomaly) {
        self.anomalies.insert(anomaly);
    }

    /// Writes the record, or has it written when its tokens are counted. There is only something to
    /// wait for in `sync` durability.
    pub fn settle(&mut self, ending: Ending) -> Option<Settling> {
        if self.state != State::Sent {
            return None;
        }
        self.state = State::Settled;
        let (record, also) = self.record(ending);
        self.dispatch(record, also)
    }

    fn dispatch(&mut self, record: Box<UsageRecord>, also: Option<Also>) -> Option<Settling> {
        let mut kept = std::mem::take(&mut self.kept);
        if let Some(pass) = &mut kept.pass {
            pass.ended();
        }
        let work = match also {
            Some(Also::Count(work)) => work,
            Some(Also::Batch(batch)) => {
                return hand_over_batch(&self.app, record, batch, kept).map(Settling::Ledger);
            }
            None => {
                return hand_over(&self.app, record, kept).map(Settling::Ledger);
            }
        };
        let mut settlement = Box::new(Settlement::new(Arc::clone(&self.app), record, *work, kept));
        let waits = self.app.config().ledger.durability == Durability::Sync;
        let receipt = waits.then(|| settlement.receipt());
        self.app.counting.settle(settlement);
        receipt.map(Settling::Counting)
    }

    /// Writes the record of a reply that is here whole and tells its figures.
    pub fn settle_with_figures(&mut self) -> (Option<Settling>, Figures) {
        self.state = State::Settled;
        let (mut record, also) = self.record(Ending::Complete);
        // What results of a batch cost, each by itself, the ledger finds out.
        let is_one = !matches!(also, Some(Also::Batch(_)));
        let cost = (is_one && may_count(&record)).then(|| self.app.prices.price(&record));
        let figures = Figures {
            input: record.usage.input_total(),
            output: record.usage.output_total(),
            source: record.usage_source,
            cost: cost.clone(),
        };
        if record.metering == Metering::Count && also.is_none() {
            // Whether any other counts, and so has a cost of its own, the ledger decides.
            record.cost = cost;
        }
        (self.dispatch(record, also), figures)
    }

    /// The record, and what there is to do besides writing it.
    fn record(&mut self, ending: Ending) -> (Box<UsageRecord>, Option<Also>) {
        let text = self.meter.as_mut().and_then(|meter| meter.text()).map(PassedText::take);
        let (record, batch) = self.read_record(ending);
        if let Some(batch) = batch {
            return (record, Some(Also::Batch(Box::new(batch))));
        }
        let text = text.unwrap_or_default();
        let watch = self.watch.take().filter(|watch| is_uncounted(&record, watch, &text));
        let work = watch.map(|watch| watch.finish(text, self.request.borrow_mut().sample.take()));
        (record, work.map(|work| Also::Count(Box::new(work))))
    }

    fn read_record(&mut self, ending: Ending) -> (Box<UsageRecord>, Option<BatchFacts>) {
        let request = self.request.borrow();
        let mut facts = request.facts();
        facts.stream |= self.api.is_stream();
        facts.model = self
            .sent_model()
            .or_else(|| self.api.requested_model(facts.model.take(), self.model_in_path.clone()));
        let ended_at = self.app.now();
        let reading = self
            .meter
            .take()
            .and_then(|mut meter| catch_unwind(AssertUnwindSafe(|| meter.finish(ending, &facts))).ok())
            .unwrap_or_else(|| unread(ending, self.status));
        self.kept.is_read_back = reading.is_read_back;
        let mut anomalies = self.anomalies;
        anomalies.extend(reading.anomalies);
        let mut outcome = reading.outcome;
        if self.drained {
            anomalies.insert(Anomaly::Drained);
            outcome = Outcome::Aborted;
        }
        // A body that was read to its end and is no JSON; calls that have none are no news.
        let has_body = request.bytes() > 0 || self.api.has_body();
        if facts.malformed && !facts.capped && has_body && request.is_read() && request.broken.is_none() {
            anomalies.insert(Anomaly::MalformedRequest);
        }
        let batch = reading.batch.and_then(|found| self.batch_facts(found));
        let record = self.app.ledger.boxed(UsageRecord {
            id: self.id,
            started_at: self.started_at,
            ended_at,
            identity: Arc::clone(&self.identity),
            route: self.route.name.clone(),
            provider: self.route.provider.clone(),
            api: self.api.label(),
            model_requested: facts.model,
            model_served: reading.model_served,
            // Anthropic's fast mode and Bedrock's optimised latency are prices of their own, whatever the
            // tier says.
            tier: reading
                .speed
                .filter(|speed| matches!(speed.as_str(), "fast" | "optimized"))
                .or(reading.tier),
            region: reading.inference_geo.or_else(|| self.region.clone()),
            // What came; what was asked for only where nothing came.
            stream: if self.status.is_some() { reading.stream } else { facts.stream },
            http_status: self.status,
            outcome,
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
        });
        (record, batch)
    }

    /// What the ledger must know of a batch.
    fn batch_facts(&self, found: BatchReading) -> Option<BatchFacts> {
        match found {
            BatchReading::Results(lines) => {
                Some(BatchFacts::Fetched { name: self.batch_in_path.clone()?, lines })
            }
            BatchReading::Names(names) if self.api.makes_batch() => {
                Some(BatchFacts::Made { batch: names.into_iter().next()?.batch })
            }
            BatchReading::Names(names) => Some(BatchFacts::Seen(names)),
        }
    }
}

/// The hold of an exchange that lasted longer is renewed, so that it does not end before its record.
const RENEW_AFTER_MICROS: u64 = 20 * 60 * 1_000_000;

/// Whether the ledger may count the usage of `record`, and so price it.
fn may_count(record: &UsageRecord) -> bool {
    match record.metering {
        Metering::Count => true,
        Metering::OncePerId => record.meter_id.is_none() || record.usage.has_tokens(),
        Metering::Never => false,
    }
}

/// Gives a record to the ledger and counts it. The receipt is only there in `sync` durability.
pub(crate) fn hand_over(app: &App, record: Box<UsageRecord>, kept: Kept) -> Option<Receipt> {
    if kept.is_read_back {
        return hand_over_batch(app, record, Box::new(BatchFacts::ReadBack), kept);
    }
    append(app, record, None, kept)
}

/// The same for a call that is counted with others: about a batch, or read back later.
fn hand_over_batch(
    app: &App,
    record: Box<UsageRecord>,
    batch: Box<BatchFacts>,
    kept: Kept,
) -> Option<Receipt> {
    append(app, record, Some(batch), kept)
}

fn append(
    app: &App,
    record: Box<UsageRecord>,
    batch: Option<Box<BatchFacts>>,
    kept: Kept,
) -> Option<Receipt> {
    let Kept { place, slot, held, pass, is_read_back: _, caller } = kept;
    if let Some(mut pass) = pass {
        pass.used(&record);
    }
    let (id, lasted) = (record.id, record.latency_us);
    if let Some(slot) = slot {
        app.ledger.closing(slot);
    }
    app.metrics.settled(&record);
    let waits = app.config().ledger.durability == Durability::Sync;
    let wait = if waits { Wait::Acknowledged } else { Wait::No };
    let receipt = match app.ledger.append_for(record, batch, caller, wait) {
        Ok(receipt) => {
            if held.is_some() && lasted >= RENEW_AFTER_MICROS {
                app.budgets.renew(id);
            }
            waits.then_some(receipt)
        }
        Err(refused) => {
            app.metrics.record_lost(&refused.to_string());
            // The provider charges for it all the same.
            let counted = may_count(&refused.record);
            app.telemetry.lost(&refused.record, counted, caller);
            if !app.budgets.is_empty() {
                app.budgets.book_lost(&used_by(app, &refused.record), counted);
            }
            None
        }
    };
    drop(place);
    // From here on the hold lasts as long as it would without anybody; the writer settles it long before.
    drop(held);
    receipt
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.settle(Ending::ClientAbort);
        // What was never sent has no record that would release its hold.
        if self.kept.held.is_some() {
            self.app.budgets.release(self.id);
        }
        self.app.metrics.in_flight.dec();
    }
}

/// What to wait for before the end of a reply is told.
#[derive(Debug)]
pub enum Settling {
    /// The ledger's answer.
    Ledger(Receipt),
    /// The count, and then the ledger's answer.
    Counting(oneshot::Receiver<Receipt>),
}

impl Future for Settling {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut *self {
                // What became of the record is counted by the ledger; here only the wait matters.
                Self::Ledger(receipt) => return Pin::new(receipt).poll(cx).map(|_| ()),
                Self::Counting(receipt) => match ready!(Pin::new(receipt).poll(cx)) {
                    Ok(receipt) => *self = Self::Ledger(receipt),
                    Err(_) => return Poll::Ready(()),
                },
            }
        }
    }
}

/// Whether the tokens of `record` count and are not, or not finally, told.
fn is_uncounted(record: &UsageRecord, watch: &Watch, text: &PassedText) -> bool {
    if record.metering != Metering::Count {
        return false;
    }
    let has_text = watch.has_sent() || !text.is_empty();
    match record.usage_source {
        UsageSource::Absent | UsageSource::ProviderPartial => {}
        UsageSource::Provider => return lacks_a_side(record, watch, has_text),
        UsageSource::Tokenizer | UsageSource::Estimate | UsageSource::Imported => return false,
    }
    match record.outcome {
        // The prompt is charged when nothing was answered yet; a reply that could not be read is no
        // such answer.
        Outcome::Aborted => has_text || !is_unreadable(record.anomalies),
        // Without text nobody knows what the reply was, or what is charged for an early failure.
        Outcome::Ok | Outcome::Incomplete | Outcome::ErrorMidstream => has_text || watch.is_input_only(),
        _ => false,
    }
}

/// Whether the provider's last word is about one side alone: Ollama leaves out a prompt that it had
/// cached, and Gemini a prompt of pictures or, once, the output.
fn lacks_a_side(record: &UsageRecord, watch: &Watch, has_text: bool) -> bool {
    match (record.usage.input_total(), record.usage.output_total()) {
        (None, Some(output)) => output > 0,
        (Some(_), None) => has_text && !watch.is_input_only(),
        _ => false,
    }
}

/// Whether a reply may have said more than was read of it.
pub(crate) fn is_unreadable(anomalies: Anomalies) -> bool {
    [Anomaly::MeteringCapped, Anomaly::MalformedReply].into_iter().any(|anomaly| anomalies.contains(anomaly))
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

/// Whether the client signed the request for AWS.
pub(crate) fn is_client_signed(headers: &http::HeaderMap) -> bool {
    let authorization =
        headers.get(http::header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    authorization.starts_with(b"AWS4-")
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
