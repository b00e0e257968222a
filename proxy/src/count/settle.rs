//! Filling a record with what was counted, and handing it to the ledger.
//!
//! Rules
//! - A side that the provider told stays. Of a partial figure the output is at least what passed, where
//!   that can be counted exactly or the figure is a placeholder.
//! - `tokenizer` is only said when every side was counted with the served model's vocabulary, in plain
//!   text, whole. Anything else is an `estimate`. A record with a partial figure of the provider stays
//!   `provider_partial`. `counted_by` says with what the missing side was counted.
//!
//! Not here: threads (`pool`), how texts become tokens (`request`, `texts`).

use super::request::{self, InputTokens};
use super::tally::{self, Precision, Tally};
use super::texts::{OutputTokens, Texts};
use super::watch::{Sample, is_input_only};
use crate::app::App;
use crate::exchange::{self, Kept};
use crate::usage::Api;
use crate::usage::text::PassedText;
use bursar_domain::{Label, RequestId, TokenClass, UsageRecord, UsageSource};
use bursar_ledger::Receipt;
use bytes::Bytes;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// What `counted_by` begins with where the provider told the other side.
const INPUT_ONLY: &str = "input: ";
const OUTPUT_ONLY: &str = "output: ";

/// The input and the output tokens of `record`, each where it was counted here.
pub(crate) fn counted_here(record: &UsageRecord) -> [Option<u64>; 2] {
    let Some(by) = record.counted_by.as_ref().map(Label::as_str) else { return [None, None] };
    let input = record.usage.input_total().filter(|_| !by.starts_with(OUTPUT_ONLY));
    let output = record.usage.output_total().filter(|_| !by.starts_with(INPUT_ONLY));
    [input, output]
}

/// All there is to count of an exchange.
#[derive(Debug)]
pub struct Work {
    pub(super) api: Api,
    pub(super) request: Vec<Bytes>,
    pub(super) is_whole: bool,
    pub(super) encoding: Option<Box<str>>,
    pub(super) sample: Option<Box<Sample>>,
    pub(super) texts: Option<Arc<Mutex<Texts>>>,
    pub(super) last: PassedText,
    pub(super) lost_bytes: u64,
}

/// A record that waits for its counts.
#[derive(Debug)]
pub struct Settlement {
    app: Arc<App>,
    record: Box<UsageRecord>,
    work: Work,
    kept: Kept,
    /// Who waits for the ledger's receipt.
    waits: Option<oneshot::Sender<Receipt>>,
}

impl Settlement {
    /// `record` is complete but for what `work` will tell.
    #[must_use]
    pub fn new(app: Arc<App>, record: Box<UsageRecord>, work: Work, kept: Kept) -> Self {
        Self { app, record, work, kept, waits: None }
    }

    /// Where the ledger's receipt will be told.
    pub fn receipt(&mut self) -> oneshot::Receiver<Receipt> {
        let (sender, receiver) = oneshot::channel();
        self.waits = Some(sender);
        receiver
    }

    pub(super) fn id(&self) -> RequestId {
        self.record.id
    }

    /// Counts and settles.
    pub(super) fn run(self) {
        self.with(Precision::Full);
    }

    /// Estimates and settles, in microseconds.
    pub(super) fn run_roughly(self) {
        self.app.metrics.counts_shed.inc();
        self.with(Precision::Rough);
    }

    fn with(self, precision: Precision) {
        let Self { app, mut record, work, kept, waits } = self;
        // A defect must cost a figure, not the record.
        let filled = catch_unwind(AssertUnwindSafe(|| {
            let mut filled = record.clone();
            work.fill(&mut filled, precision);
            filled
        }));
        match filled {
            Ok(filled) => record = filled,
            Err(_) => drop(app.metrics.meter_panics.inc()),
        }
        let receipt = exchange::hand_over(&app, record, kept);
        if let (Some(waits), Some(receipt)) = (waits, receipt) {
            drop(waits.send(receipt));
        }
    }
}

impl Work {
    fn fill(self, record: &mut UsageRecord, precision: Precision) {
        let name = record.model_served.as_ref().or(record.model_requested.as_ref());
        let mut model = tally::known(record.provider.as_str(), name);
        if let Some(requested) = &record.model_requested
            && model.knowledge == bursar_tokens::Knowledge::Unknown
        {
            // A server may answer under a path or an alias; what was asked for may be known.
            model = tally::known(record.provider.as_str(), Some(requested));
        }
        let tally = Tally::new(model, precision);
        let input = match record.usage.input_total() {
            Some(_) => None,
            None => self.input(&tally, name.map(Label::as_str).unwrap_or_default()),
        };
        let output = (!self.has_output(record, &tally)).then(|| self.output(&tally));
        let scale = |tokens| tally.model.knowledge.scale(tokens);
        let (mut exact, mut sampled) =
            (tally.is_exact() && !exchange::is_unreadable(record.anomalies), false);
        if let Some(input) = input {
            record.usage.set(TokenClass::InputFresh, scale(input.tokens));
            exact &= input.exact;
            sampled |= input.sampled;
        }
        if let Some(output) = output {
            set_output(record, scale(output.visible), scale(output.reasoning));
            exact &= output.exact && !tally.model.hides_output;
            sampled |= output.sampled;
        }
        if input.is_none() && output.is_none() {
            return;
        }
        record.usage_source = match record.usage_source {
            // The provider told the other side.
            UsageSource::Provider | UsageSource::ProviderPartial => UsageSource::ProviderPartial,
            _ if exact => UsageSource::Tokenizer,
            _ => UsageSource::Estimate,
        };
        let side = match (input, output) {
            (None, Some(_)) => OUTPUT_ONLY,
            (Some(_), None) if record.usage_source == UsageSource::ProviderPartial => INPUT_ONLY,
            _ => "",
        };
        record.counted_by = Label::lossy(&[side, &tally.name(sampled)].concat());
    }

    /// Whether there is no output to count, or it was told. A running total stands too, unless the
    /// model's own vocabulary can say more; Anthropic's first figure is none but a placeholder.
    fn has_output(&self, record: &UsageRecord, tally: &Tally) -> bool {
        let told = record.usage.output_total();
        let is_running = !matches!(self.api, Api::Messages | Api::Invoke | Api::InvokeStream);
        is_input_only(self.api)
            || (told.is_some() && record.usage_source == UsageSource::Provider)
            || (is_running && !tally.is_exact() && told.is_some_and(|tokens| tokens > 0))
    }

    fn input(&self, tally: &Tally, model: &str) -> Option<InputTokens> {
        request::count(self, tally, model)
    }

    fn output(&self, tally: &Tally) -> OutputTokens {
        let mut fresh;
        let mut shared;
        let (texts, is_same) = match &self.texts {
            None => {
                fresh = Texts::new(tally.encoding());
                (&mut fresh, true)
            }
            Some(texts) => {
                shared = texts.lock().unwrap_or_else(PoisonError::into_inner);
                // Long texts were begun with the vocabulary of the model that was asked for.
                let is_same = shared.encoding() == tally.encoding();
                (&mut *shared, is_same)
            }
        };
        texts.push(&self.last, tally);
        texts.lose(self.lost_bytes);
        let total = texts.total();
        OutputTokens { exact: total.exact && is_same, ..total }
    }
}

/// States the output; a provider's partial figure stays where it is higher.
fn set_output(record: &mut UsageRecord, visible: u64, reasoning: u64) {
    let usage = &mut record.usage;
    let told = usage.output_total().unwrap_or(0);
    if told > visible.saturating_add(reasoning) {
        return;
    }
    if reasoning > 0 || usage.get(TokenClass::OutputReasoning).is_some() {
        usage.set(TokenClass::OutputReasoning, reasoning);
    }
    usage.set(TokenClass::OutputText, visible);
}
