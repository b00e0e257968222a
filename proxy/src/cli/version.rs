//! `bursar version`: what this program, or the running sidecar, was built from.
//!
//! Not here: the facts themselves (`built`).

use super::grid::{self, column, text};
use super::{AdminArgs, TableFormat, source};
use crate::{built, tasks};
use clap::Args;
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;

/// Letters before the values of a table.
const WIDTH: usize = 24;

/// `bursar version`
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Of the running sidecar instead of this program: after an upgrade, whether the new one serves.
    #[arg(long)]
    running: bool,
    #[command(flatten)]
    ask: AdminArgs,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
}

/// Shows the facts.
pub(super) fn run(args: &VersionArgs) -> anyhow::Result<ExitCode> {
    let told = if args.running || args.ask.admin.is_some() { asked(&args.ask)? } else { built::document() };
    let rows = rows(&told);
    let mut out = std::io::stdout().lock();
    if args.format == TableFormat::Table {
        for row in &rows {
            writeln!(out, "{:<WIDTH$}{}", text(row.get("fact")), text(row.get("value")))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let columns = [column("Fact", "fact"), column("Value", "value")];
    grid::write(&told, (&rows.iter().collect::<Vec<_>>(), &columns), args.format, &mut out)?;
    Ok(ExitCode::SUCCESS)
}

fn asked(args: &AdminArgs) -> anyhow::Result<Value> {
    let client = source::sidecar(args)?;
    tokio::task::LocalSet::new().block_on(&tasks::runtime()?, client.document("/api/v1/version"))
}

/// One row per fact; what is below a fact is named after it, as in `prices.digest`.
fn rows(told: &Value) -> Vec<Value> {
    let mut rows = Vec::new();
    for (name, value) in told.as_object().into_iter().flatten() {
        match value {
            Value::Object(parts) => {
                rows.extend(parts.iter().map(|(part, value)| row(&format!("{name}.{part}"), value)));
            }
            value => rows.push(row(name, value)),
        }
    }
    rows
}

fn row(fact: &str, value: &Value) -> Value {
    json!({ "fact": fact, "value": text(Some(value)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_within_facts_are_named_after_both() {
        let told = json!({"version": "1.2.3", "features": ["a", "b"], "prices": {"digest": "b3:00"}});
        let expected = [
            json!({"fact": "version", "value": "1.2.3"}),
            json!({"fact": "features", "value": "a; b"}),
            json!({"fact": "prices.digest", "value": "b3:00"}),
        ];
        assert_eq!(rows(&told), expected);
    }
}
