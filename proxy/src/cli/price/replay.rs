//! `bursar price replay`: recorded usage under another book, beside what it was recorded at.
//!
//! Invariant: the ledger is only read.
//!
//! Not here: the figures (`crate::prices::replay`).

use super::super::source::{self, Source};
use super::{ReplayArgs, TableFormat, book, instant, write_rows};
use crate::cli::usage::period_query;
use crate::prices::replay::{Facts, Replay, Row, Side, difference};
use crate::{period, report, tasks};
use anyhow::Context;
use bursar_domain::event::Anomalies;
use bursar_domain::money::{format_pico, parse_pico};
use bursar_domain::{
    Anomaly, Clock, Cost, CostStatus, Currency, Label, ModelUsage, Quantity, SystemClock, Timestamp,
    TokenClass, Usage,
};
use bursar_ledger::MoneySum;
use serde_json::Value;
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
    let mut replay = Replay::new(&book, at);
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
    write_replay(&replay, args.format, &mut out)?;
    Ok(ExitCode::SUCCESS)
}

fn write_replay(replay: &Replay<'_>, format: TableFormat, out: &mut dyn Write) -> anyhow::Result<()> {
    if format == TableFormat::Json {
        writeln!(out, "{:#}", replay.document())?;
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
        replay.rows.iter().map(|((provider, model, currency), row)| cells(provider, model, *currency, row));
    let totals = replay.totals();
    let totals = totals.iter().map(|(currency, row)| cells("total", "", *currency, row));
    let totals: Vec<_> = if format == TableFormat::Table { totals.collect() } else { Vec::new() };
    write_rows(format, &titles, named.chain(totals), out)
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
        if let Some(facts) = facts_of(&row)? {
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

/// From a line of an export with classes; `None` for a record that does not count.
fn facts_of(row: &Value) -> anyhow::Result<Option<Facts>> {
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
    Ok(Some(Facts {
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

#[cfg(test)]
mod tests {
    use super::*;
    use bursar_policies::price::PriceBook;
    use serde_json::json;

    #[test]
    fn records_of_batch_results_are_counted_apart_and_not_priced() {
        let book = PriceBook::builtin().unwrap();
        let mut replay = Replay::new(&book, None);
        for api in ["openai-chat", "batch-output", "messages-batch-results", "batch-results"] {
            let row = json!({
                "started_at": "2026-08-01T00:00:00Z",
                "provider": "openai",
                "api": api,
                "model_served": "gpt-4o-mini",
                "usage_classes": { "input_fresh": 10, "output_text": 1 },
                "cost": { "status": "unpriced" },
            });
            replay.add(&facts_of(&row).unwrap().unwrap());
        }
        let records: Vec<_> = replay.rows.values().map(|row| row.after.records).collect();
        assert_eq!((replay.batches, records), (3, vec![1]));
    }
}
