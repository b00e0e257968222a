//! Recorded usage under another book, beside what it was recorded at.
//!
//! Invariants
//! - A record that does not count is left out, as in every report.
//! - Amounts of two currencies are never added: each currency has its own row.
//! - Fetched results of a batch are left out, and counted apart: their record has the sum of many requests,
//!   which no price above a threshold and no fee per request can be applied to.
//!
//! Not here: what a call costs (`bursar_policies::price`), the records' shape (`ledger::export`).

use crate::app::note_unusable;
use crate::usage::Api;
use bursar_domain::event::Anomalies;
use bursar_domain::money::format_pico;
use bursar_domain::{Cost, CostStatus, Currency, Label, ModelUsage, Timestamp, Usage, UsageRecord};
use bursar_ledger::MoneySum;
use bursar_policies::price::{Ask, PriceBook};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a record tells about its price.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) provider: String,
    pub(crate) api: String,
    pub(crate) model_served: Option<String>,
    pub(crate) model_requested: Option<String>,
    pub(crate) tier: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) at: Timestamp,
    pub(crate) usage: Usage,
    pub(crate) by_model: Vec<ModelUsage>,
    pub(crate) anomalies: Anomalies,
    pub(crate) recorded: Option<Cost>,
}

impl Facts {
    pub(crate) fn of(record: &UsageRecord) -> Self {
        let text = |label: &Option<Label>| label.as_ref().map(|label| label.as_str().to_owned());
        Self {
            provider: record.provider.as_str().to_owned(),
            api: record.api.as_str().to_owned(),
            model_served: text(&record.model_served),
            model_requested: text(&record.model_requested),
            tier: text(&record.tier),
            region: text(&record.region),
            at: record.started_at,
            usage: record.usage,
            by_model: record.by_model.clone(),
            anomalies: record.anomalies,
            recorded: record.cost.clone(),
        }
    }
}

/// A replay under way.
#[derive(Debug)]
pub(crate) struct Replay<'b> {
    book: &'b PriceBook,
    /// Prices of this time for all records.
    at: Option<Timestamp>,
    /// By provider, model and currency.
    pub(crate) rows: BTreeMap<(String, String, Currency), Row>,
    /// Records of batch results, which are left out.
    pub(crate) batches: u64,
}

/// A group under both books.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) before: Side,
    pub(crate) after: Side,
}

/// One book's view of some records.
#[derive(Debug, Default)]
pub(crate) struct Side {
    pub(crate) records: u64,
    priced: u64,
    pub(crate) unpriced: u64,
    pub(crate) partly_priced: u64,
    pub(crate) list: MoneySum,
    pub(crate) billed: MoneySum,
}

impl Side {
    fn add(&mut self, cost: &Cost) {
        self.records = self.records.saturating_add(1);
        let count = match cost.status {
            CostStatus::Priced => &mut self.priced,
            CostStatus::Unpriced => &mut self.unpriced,
            CostStatus::PartlyPriced => &mut self.partly_priced,
        };
        *count = count.saturating_add(1);
        for (sum, amount) in [(&mut self.list, cost.list_pico), (&mut self.billed, cost.billed_pico)] {
            if let Some(pico) = amount {
                sum.add(pico);
            }
        }
    }

    fn merge(&mut self, other: &Self) {
        let Self { records, priced, unpriced, partly_priced, list, billed } = other;
        self.records = self.records.saturating_add(*records);
        self.priced = self.priced.saturating_add(*priced);
        self.unpriced = self.unpriced.saturating_add(*unpriced);
        self.partly_priced = self.partly_priced.saturating_add(*partly_priced);
        self.list.merge(list);
        self.billed.merge(billed);
    }

    fn json(&self) -> Value {
        json!({
            "requests": self.records,
            "priced": self.priced,
            "unpriced": self.unpriced,
            "partly_priced": self.partly_priced,
            "list": self.list.pico().map(format_pico),
            "billed": self.billed.pico().map(format_pico),
        })
    }
}

impl<'b> Replay<'b> {
    /// Nothing is added yet; each record has the prices of its own time, or all those of `at`.
    pub(crate) const fn new(book: &'b PriceBook, at: Option<Timestamp>) -> Self {
        Self { book, at, rows: BTreeMap::new(), batches: 0 }
    }

    /// Adds a record that counts.
    pub(crate) fn add(&mut self, facts: &Facts) {
        if Api::BATCH_RESULTS.iter().any(|api| api.name() == facts.api) {
            self.batches = self.batches.saturating_add(1);
            return;
        }
        let mut after = self.book.price(&Ask {
            provider: &facts.provider,
            model_served: facts.model_served.as_deref(),
            model_requested: facts.model_requested.as_deref(),
            tier: facts.tier.as_deref(),
            region: facts.region.as_deref(),
            speed: None,
            at: self.at.unwrap_or(facts.at),
            usage: &facts.usage,
            by_model: &facts.by_model,
        });
        note_unusable(&mut after, facts.anomalies);
        let model = facts.model_served.as_ref().or(facts.model_requested.as_ref());
        let model = model.cloned().unwrap_or_else(|| "unknown".to_owned());
        let unpriced = || Cost::unpriced(after.currency);
        let before = facts.recorded.clone().unwrap_or_else(unpriced);
        let key = |currency| (facts.provider.clone(), model.clone(), currency);
        self.rows.entry(key(before.currency)).or_default().before.add(&before);
        self.rows.entry(key(after.currency)).or_default().after.add(&after);
    }

    /// Totals by currency.
    pub(crate) fn totals(&self) -> BTreeMap<Currency, Row> {
        let mut totals: BTreeMap<Currency, Row> = BTreeMap::new();
        for ((_, _, currency), row) in &self.rows {
            let total = totals.entry(*currency).or_default();
            total.before.merge(&row.before);
            total.after.merge(&row.after);
        }
        totals
    }

    /// Both sides as a document.
    pub(crate) fn document(&self) -> Value {
        let row = |((provider, model, currency), row): (&(String, String, Currency), &Row)| {
            let mut object = row_json(*currency, row);
            if let Value::Object(object) = &mut object {
                object.insert("provider".to_owned(), provider.clone().into());
                object.insert("model".to_owned(), model.clone().into());
            }
            object
        };
        let rows: Vec<Value> = self.rows.iter().map(row).collect();
        let totals: Vec<Value> =
            self.totals().iter().map(|(currency, row)| row_json(*currency, row)).collect();
        json!({ "rows": rows, "totals": totals })
    }
}

/// What would have been billed more; nothing where one side is unknown.
pub(crate) fn difference(row: &Row) -> Option<String> {
    let (before, after) = (row.before.billed.pico()?, row.after.billed.pico()?);
    after.checked_sub(before).map(format_pico)
}

fn row_json(currency: Currency, row: &Row) -> Value {
    json!({
        "currency": currency.code(),
        "before": row.before.json(),
        "after": row.after.json(),
        "difference": difference(row),
    })
}
