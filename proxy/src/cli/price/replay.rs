//! `bursar price replay`: recorded usage under another book, beside what it was recorded at.
//!
//! Invariants
//! - The ledger is only read. A record that does not count is left out, as in every report.
//! - Amounts of two currencies are never added: each currency has its own row.
//! - Fetched results of a batch are left out, and that is said: their record has the sum of many
//!   requests, which no price above a threshold and no fee per request can be applied to.
//!
//! Not here: what a call costs (`bursar_policies::price`), the records' shape (`ledger::export`).

use super::super::source::{self, Source};
use super::{ReplayArgs, TableFormat, book, instant, write_rows};
use crate::app::note_unusable;
use crate::cli::usage::period_query;
use crate::usage::Api;
use crate::{period, report, tasks};
use anyhow::Context;
use bursar_domain::event::Anomalies;
use bursar_domain::money::{format_pico, parse_pico};
use bursar_domain::{
    Anomaly, Clock, Cost, CostStatus, Currency, Label, ModelUsage, Quantity, SystemClock, Timestamp,
    TokenClass, Usage, UsageRecord,
};
use bursar_ledger::MoneySum;
use bursar_policies::price::{Ask, PriceBook};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

/// Prints totals before and after, by provider, model and currency.
pub(super) fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let book = book(&args.book)?;
    let read = &args.read;
    let period = period::parse(
        read.from.as_deref(),
        read.to.as_deref(),
        &read.tz,
        SystemClock.now(),
        period::OPTIONS,
    )?;
    let at = args.at.as_deref().map(|text| instant(Some(text), "--at")).transpose()?;
    let mut replay = Replay { book: &book, at, rows: BTreeMap::new(), batches: 0 };
    let local = tokio::task::LocalSet::new();
    local.block_on(&tasks::runtime()?, async {
        match source::find(read).await? {
            Source::Running(client) => {
                let path = format!("/api/v1/usage/records?format=jsonl&classes=true{}", period_query(read));
                let mut lines = Lines { replay: &mut replay, rest: Vec::new() };
                client.get(&path, &mut lines).await?;
                lines.end()
            }
            Source::Offline(ledger) => {
                for stored in ledger.records(report::range(&period)) {
                    let stored = stored?;
                    if stored.counted {
                        replay.add(&Facts::of(&stored.record));
                    }
                }
                anyhow::Ok(())
            }
        }
    })?;
    if replay.batches > 0 {
        let count = replay.batches;
        writeln!(
            std::io::stderr(),
            "{count} records of batch results are left out: they hold sums of requests that were priced one by one"
        )?;
    }
    let mut out = std::io::stdout().lock();
    replay.write(args.format, &mut out)?;
    Ok(ExitCode::SUCCESS)
}

/// What a record tells about its price.
struct Facts {
    provider: String,
    api: String,
    model_served: Option<String>,
    model_requested: Option<String>,
    tier: Option<String>,
    region: Option<String>,
    at: Timestamp,
    usage: Usage,
    by_model: Vec<ModelUsage>,
    anomalies: Anomalies,
    recorded: Option<Cost>,
}

impl Facts {
    fn of(record: &UsageRecord) -> Self {
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

    /// From a line of an export with classes; `None` for a record that does not count.
    fn of_json(row: &Value) -> anyhow::Result<Option<Self>> {
        let Some(cost) = row.get("cost") else { return Ok(None) };
        let text = |key: &str| row.get(key).and_then(Value::as_str).map(str::to_owned);
        let started = text("started_at").context("a record without started_at")?;
        let started: jiff::Timestamp = started.parse().context("a record's started_at is no time")?;
        let usage = |value: &Value| {
            let classes = value.get("usage_classes");
            classes
                .map(usage_of)
                .context("a record without usage_classes: the sidecar is older than this command")
        };
        let parts = row.get("by_model").and_then(Value::as_array);
        let part = |part: &Value| {
            let model = part.get("model").and_then(Value::as_str).and_then(Label::lossy);
            anyhow::Ok(ModelUsage { model, usage: usage(part)? })
        };
        let mut anomalies = Anomalies::default();
        for name in row.get("anomalies").and_then(Value::as_array).into_iter().flatten() {
            let known = Anomaly::ALL.iter().find(|anomaly| Some(anomaly.name()) == name.as_str());
            known.into_iter().for_each(|anomaly| anomalies.insert(*anomaly));
        }
        Ok(Some(Self {
            provider: text("provider").unwrap_or_default(),
            api: text("api").unwrap_or_default(),
            model_served: text("model_served"),
            model_requested: text("model_requested"),
            tier: text("tier"),
            region: text("region"),
            at: Timestamp::from_micros(started.as_microsecond()),
            usage: usage(row)?,
            by_model: parts.into_iter().flatten().map(part).collect::<anyhow::Result<_>>()?,
            anomalies,
            recorded: Some(cost_of(cost)?),
        }))
    }
}

fn usage_of(classes: &Value) -> Usage {
    let mut usage = Usage::unknown();
    for (name, count) in classes.as_object().into_iter().flatten() {
        let Some(count) = count.as_u64() else { continue };
        if let Some(class) = TokenClass::from_name(name) {
            usage.set(class, count);
        } else if let Some(quantity) = Quantity::from_name(name) {
            usage.set_quantity(quantity, count);
        }
    }
    usage
}

fn cost_of(cost: &Value) -> anyhow::Result<Cost> {
    let text = |key: &str| cost.get(key).and_then(Value::as_str);
    let currency = Currency::parse(text("currency").unwrap_or("USD"))?;
    let amount = |key: &str| text(key).map(parse_pico).transpose();
    let status = text("status").and_then(CostStatus::from_name).context("a record's cost has no status")?;
    Ok(Cost {
        status,
        list_pico: amount("list")?,
        contracted_pico: amount("contracted")?,
        billed_pico: amount("billed")?,
        ..Cost::unpriced(currency)
    })
}

/// A replay under way.
struct Replay<'b> {
    book: &'b PriceBook,
    /// Prices of this time for all records.
    at: Option<Timestamp>,
    /// By provider, model and currency.
    rows: BTreeMap<(String, String, Currency), Row>,
    /// Records of batch results, which are left out.
    batches: u64,
}

#[derive(Default)]
struct Row {
    before: Side,
    after: Side,
}

/// One book's view of some records.
#[derive(Default)]
struct Side {
    records: u64,
    priced: u64,
    unpriced: u64,
    partly_priced: u64,
    list: MoneySum,
    billed: MoneySum,
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

impl Replay<'_> {
    fn add(&mut self, facts: &Facts) {
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
    fn totals(&self) -> BTreeMap<Currency, Row> {
        let mut totals: BTreeMap<Currency, Row> = BTreeMap::new();
        for ((_, _, currency), row) in &self.rows {
            let total = totals.entry(*currency).or_default();
            total.before.merge(&row.before);
            total.after.merge(&row.after);
        }
        totals
    }

    fn write(&self, format: TableFormat, out: &mut dyn Write) -> anyhow::Result<()> {
        if format == TableFormat::Json {
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
            writeln!(out, "{:#}", json!({ "rows": rows, "totals": totals }))?;
            return Ok(());
        }
        let titles = [
            "provider",
            "model",
            "requests",
            "list before",
            "list after",
            "billed before",
            "billed after",
            "difference",
            "currency",
            "unpriced before",
            "unpriced after",
        ];
        let named =
            self.rows.iter().map(|((provider, model, currency), row)| cells(provider, model, *currency, row));
        let totals = self.totals();
        let totals = totals.iter().map(|(currency, row)| cells("total", "", *currency, row));
        let totals: Vec<_> = if format == TableFormat::Table { totals.collect() } else { Vec::new() };
        write_rows(format, &titles, named.chain(totals), out)
    }
}

fn cells(provider: &str, model: &str, currency: Currency, row: &Row) -> Vec<String> {
    let amount = |sum: &MoneySum| sum.pico().map(format_pico).unwrap_or_default();
    let unpriced = |side: &Side| side.unpriced.saturating_add(side.partly_priced).to_string();
    vec![
        provider.to_owned(),
        model.to_owned(),
        row.before.records.max(row.after.records).to_string(),
        amount(&row.before.list),
        amount(&row.after.list),
        amount(&row.before.billed),
        amount(&row.after.billed),
        difference(row).unwrap_or_default(),
        currency.code().to_owned(),
        unpriced(&row.before),
        unpriced(&row.after),
    ]
}

/// What would have been billed more; nothing where one side is unknown.
fn difference(row: &Row) -> Option<String> {
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

/// Takes the sidecar's lines as they come.
struct Lines<'r, 'b> {
    replay: &'r mut Replay<'b>,
    rest: Vec<u8>,
}

impl Lines<'_, '_> {
    fn line(&mut self, line: &[u8]) -> anyhow::Result<()> {
        if line.is_empty() {
            return Ok(());
        }
        let row: Value = serde_json::from_slice(line).context("the sidecar's answer is no record")?;
        if let Some(facts) = Facts::of_json(&row)? {
            self.replay.add(&facts);
        }
        Ok(())
    }

    fn end(mut self) -> anyhow::Result<()> {
        let rest = std::mem::take(&mut self.rest);
        self.line(&rest)
    }
}

impl Write for Lines<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let mut line: Vec<u8> = self.rest.drain(..=end).collect();
            line.pop();
            self.line(&line).map_err(std::io::Error::other)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_batch_results_are_counted_apart_and_not_priced() {
        let book = PriceBook::builtin().unwrap();
        let mut replay = Replay { book: &book, at: None, rows: BTreeMap::new(), batches: 0 };
        for api in ["openai-chat", "batch-output", "messages-batch-results", "batch-results"] {
            let row = json!({
                "started_at": "2026-08-01T00:00:00Z",
                "provider": "openai",
                "api": api,
                "model_served": "gpt-4o-mini",
                "usage_classes": { "input_fresh": 10, "output_text": 1 },
                "cost": { "status": "unpriced" },
            });
            replay.add(&Facts::of_json(&row).unwrap().unwrap());
        }
        let records: Vec<_> = replay.rows.values().map(|row| row.after.records).collect();
        assert_eq!((replay.batches, records), (3, vec![1]));
    }
}
