//! Pruning on request: what may be asked, and how the answer is told.
//!
//! Not here: the work (`ledger::retention`), pruning by the setting (`ledger::retention`).

use crate::hedge::AskError;
use crate::period;
use bursar_domain::Timestamp;
use bursar_ledger::{Ledger, PruneAsk, PruneError, PruneReport};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{self, Write};

/// What is asked for: one of the two ages.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Options {
    /// A time.
    pub(crate) before: Option<String>,
    /// Days.
    pub(crate) detail: Option<String>,
    /// Only say what would be.
    #[serde(default)]
    pub(crate) dry_run: bool,
}

impl Options {
    fn before(&self, now: Timestamp) -> Result<Timestamp, AskError> {
        let text = match (&self.before, &self.detail) {
            (Some(before), None) => before.clone(),
            (None, Some(detail)) => {
                match detail.strip_suffix('d').and_then(|days| days.parse::<u32>().ok()) {
                    Some(days) => format!("{days}d"),
                    None => {
                        return Err(AskError::Wrong(format!(
                            "detail {detail:?}: write whole days such as 90d"
                        )));
                    }
                }
            }
            _ => return Err(AskError::Wrong("say either before or detail".to_owned())),
        };
        let names = period::Names { from: "before", to: "before", tz: "tz" };
        let asked = period::parse(Some(&text), None, "UTC", now, names);
        let asked = asked.map_err(|error| AskError::Wrong(error.to_string()))?;
        asked.from.ok_or_else(|| AskError::Wrong("say either before or detail".to_owned()))
    }
}

/// Prunes and tells what was done. Blocks.
pub(crate) fn prune(ledger: &Ledger, options: &Options, now: Timestamp) -> Result<Value, AskError> {
    let ask = PruneAsk { before: options.before(now)?, dry_run: options.dry_run };
    match ledger.prune(&ask) {
        Ok(report) => Ok(document(&ask, &report)),
        Err(error @ PruneError::TooRecent { .. }) => Err(AskError::Wrong(error.to_string())),
        Err(error) => Err(AskError::Ledger(format!("{:#}", anyhow::Error::from(error)))),
    }
}

fn text(at: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.micros()).unwrap_or_default().to_string()
}

fn document(ask: &PruneAsk, report: &PruneReport) -> Value {
    json!({
        "before": text(ask.before),
        "dry_run": ask.dry_run,
        "segments": report.segments,
        "records": report.records,
        "bytes": report.bytes,
        "rolled_bytes": report.rolled_bytes,
        "until": report.until.map(text),
        "last_sequence": report.last_sequence,
        "kept": report.kept.map(|kept| kept.to_string()),
        "left_for_later": report.left_for_later,
    })
}

/// Says it for people.
pub(crate) fn write(done: &Value, out: &mut dyn Write) -> io::Result<()> {
    let number = |name: &str| done.get(name).and_then(Value::as_u64).unwrap_or(0);
    let text = |name: &str| done.get(name).and_then(Value::as_str).unwrap_or_default();
    let is_dry = done.get("dry_run").and_then(Value::as_bool).unwrap_or(false);
    if number("segments") == 0 {
        writeln!(out, "nothing to roll up before {}", text("before"))?;
    } else if is_dry {
        writeln!(
            out,
            "would roll up {} segments with {} records ({} bytes) of requests that began up to {}",
            number("segments"),
            number("records"),
            number("bytes"),
            text("until")
        )?;
    } else {
        writeln!(
            out,
            "rolled up {} segments with {} records of requests that began up to {}: {} bytes became {}",
            number("segments"),
            number("records"),
            text("until"),
            number("bytes"),
            number("rolled_bytes")
        )?;
    }
    if !text("kept").is_empty() {
        writeln!(out, "kept: {}", text("kept"))?;
    }
    if number("left_for_later") > 0 {
        let left = number("left_for_later");
        writeln!(out, "{left} files are still being read: the next pruning or start removes them")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: Option<&str>, detail: Option<&str>, expected: Result<i64, &str>) {
        let now = Timestamp::from_micros(1_790_000_000_000_000);
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let options = Options { before: owned(before), detail: owned(detail), dry_run: true };
        match (options.before(now), expected) {
            (Ok(at), Ok(micros)) => assert_eq!(at.micros(), micros),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (found, _) => panic!("{before:?} {detail:?}: {found:?}"),
        }
    }

    #[test]
    fn an_age_is_days_or_a_time_and_never_both() {
        check(None, Some("90d"), Ok(1_790_000_000_000_000 - 90 * 86_400_000_000));
        check(Some("2026-01-01"), None, Ok(1_767_225_600_000_000));
        check(Some("90d"), None, Ok(1_790_000_000_000_000 - 90 * 86_400_000_000));
        check(None, Some("90"), Err("whole days"));
        check(Some("soon"), None, Err("is no time"));
        check(None, None, Err("either before or detail"));
        check(Some("2026-01-01"), Some("90d"), Err("either before or detail"));
    }
}
