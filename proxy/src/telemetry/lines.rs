//! Writing log lines on a thread of its own: those of the program, and one for each settled exchange.
//!
//! Invariants
//! - Whoever logs never waits for whoever reads standard error; what finds no room is counted as dropped.
//! - Lines are written whole, several at a time, in pieces that a pipe takes in one go.
//! - A line of an exchange has ids, names and figures, and nothing of its content.
//!
//! Not here: levels and the start of logging (`logging`).

use super::event::Event;
use super::logging;
use super::outbox::Outbox;
use crate::tasks;
use bursar_domain::Label;
use serde::Serialize;
use std::fmt::Write as _;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What waits to be written.
#[derive(Debug)]
pub(crate) enum Line {
    /// A line of the program.
    Text(Box<[u8]>),
    /// A settled exchange.
    Request(Arc<Event>),
}

/// Lines on their way.
pub(crate) type Lines = Outbox<Line>;

/// Most lines that wait, some hundreds of bytes each.
pub(super) const LINES_MAX: usize = 8_192;
/// Bytes that a pipe takes in one piece (`PIPE_BUF` of Linux).
const PIECE_BYTES: usize = 4_096;
/// How long lines are gathered after the first of them was written.
const GATHER: Duration = Duration::from_millis(20);
const BATCH: usize = 512;

/// The target of an exchange's line, by which its level can be set.
pub(crate) const TARGET: &str = "bursar::request";

/// The thread that writes. Its end writes what is left.
#[derive(Debug)]
pub(crate) struct Writing {
    end: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.end.send_replace(true);
        // A panic there was logged by its hook.
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Starts the thread that writes to standard error. From now on the program's own lines go there too.
pub(crate) fn start(lines: &Arc<Lines>, json: bool) -> io::Result<Writing> {
    let (sender, mut end) = watch::channel(false);
    // Not by way of `io::stderr`, whose lock others would wait for.
    let mut out = std::fs::File::from(io::stderr().as_fd().try_clone_to_owned()?);
    lines.set_read(true);
    logging::send_to(lines);
    let lines = Arc::clone(lines);
    let thread = tasks::thread("log".to_owned(), move || async move {
        loop {
            let ends = tokio::select! {
                () = lines.filled() => false,
                _ = end.wait_for(|end| *end) => true,
            };
            if ends {
                lines.set_read(false);
            }
            write_all(&lines, json, &mut out);
            if ends {
                return;
            }
            tokio::time::sleep(GATHER).await;
        }
    })?;
    Ok(Writing { end: sender, thread: Some(thread) })
}

fn write_all(lines: &Lines, json: bool, out: &mut impl io::Write) {
    let mut piece = Vec::new();
    loop {
        let batch = lines.take(BATCH);
        if batch.is_empty() {
            break;
        }
        for line in batch {
            let text = match line {
                Line::Text(text) => text,
                Line::Request(event) => request_line(&event, json).into_bytes().into(),
            };
            if piece.len().saturating_add(text.len()) > PIECE_BYTES {
                flush(&mut piece, lines, out);
            }
            piece.extend_from_slice(&text);
        }
    }
    flush(&mut piece, lines, out);
}

fn flush(piece: &mut Vec<u8>, lines: &Lines, out: &mut impl io::Write) {
    // A log that cannot be written cannot be told in the log.
    if out.write_all(piece).is_err() {
        lines.drop_entries(memchr::memchr_iter(b'\n', piece).count());
    }
    piece.clear();
}

/// The fields of an exchange's line, in their order.
#[derive(Serialize)]
struct Fields<'e> {
    timestamp: String,
    level: &'static str,
    message: &'static str,
    request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<bool>,
    route: &'e str,
    provider: &'e str,
    api: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_served: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    team: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    outcome: &'static str,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_source: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_status: Option<&'static str>,
    latency_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttft_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_request_id: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    target: &'static str,
}

fn fields(event: &Event) -> Fields<'_> {
    let cost = event.cost.as_ref();
    let billed = cost.and_then(|cost| cost.billed());
    Fields {
        timestamp: time(event.ended_at.micros()),
        level: "INFO",
        message: "request",
        request_id: event.id.to_string(),
        seq: event.sequence,
        lost: event.sequence.is_none().then_some(true),
        route: event.route.as_str(),
        provider: event.provider.as_str(),
        api: event.api.as_str(),
        model: event.model_requested.as_ref().map(Label::as_str),
        model_served: event.model_served.as_ref().map(Label::as_str),
        team: event.team.as_ref().map(Label::as_str),
        workload: event.workload.as_ref().map(Label::as_str),
        status: event.http_status,
        outcome: event.outcome.name(),
        stream: event.stream,
        input_tokens: event.usage.and_then(|usage| usage.input),
        output_tokens: event.usage.and_then(|usage| usage.output),
        usage_source: event.usage.map(|usage| usage.source.name()),
        currency: cost.filter(|_| billed.is_some()).map(|cost| cost.currency.to_string()),
        cost: billed,
        cost_status: cost.map(|cost| cost.status.name()),
        latency_ms: millis(event.latency_us),
        ttft_ms: event.ttft_us.map(millis),
        upstream_request_id: event.upstream_request_id.as_ref().map(Label::as_str),
        trace_id: event.trace_id.map(|trace| trace.to_string()),
        target: TARGET,
    }
}

/// The line of an exchange, with its end.
fn request_line(event: &Event, json: bool) -> String {
    let fields = fields(event);
    let mut line = if json { serde_json::to_string(&fields).unwrap_or_default() } else { readable(&fields) };
    line.push('\n');
    line
}

/// `time  INFO target: name=value …`
fn readable(fields: &Fields<'_>) -> String {
    let mut line = format!("{}  {} {}:", fields.timestamp, fields.level, fields.target);
    let Ok(serde_json::Value::Object(all)) = serde_json::to_value(fields) else { return line };
    for (name, value) in &all {
        if !matches!(name.as_str(), "timestamp" | "level" | "message" | "target") {
            let _ = match value {
                serde_json::Value::String(text) if !text.contains([' ', '"', '=']) => {
                    write!(line, " {name}={text}")
                }
                value => write!(line, " {name}={value}"),
            };
        }
    }
    line
}

fn time(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).map(|at| at.to_string()).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "a duration of 2^53 µs is 285 years")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::tests::record;
    use bursar_ledger::Caller;

    #[test]
    fn a_line_has_ids_names_and_figures_and_leaves_out_what_is_unknown() {
        let mut record = record();
        let event = Event::of(&record, true, Some(7), Caller::default());
        let line: serde_json::Value = serde_json::from_str(&request_line(&event, true)).unwrap();
        assert_eq!(line["request_id"], record.id.to_string());
        assert_eq!((&line["seq"], &line["status"], &line["outcome"]), (&7.into(), &200.into(), &"ok".into()));
        assert_eq!((&line["input_tokens"], &line["output_tokens"]), (&1000.into(), &500.into()));
        assert_eq!((&line["cost"], &line["currency"]), (&"0.000435".into(), &"USD".into()));
        assert_eq!(line["latency_ms"], 1500.5);
        assert_eq!((&line["target"], &line["level"]), (&TARGET.into(), &"INFO".into()));
        record.http_status = None;
        record.cost = None;
        record.usage = bursar_domain::Usage::unknown();
        let line = request_line(&Event::of(&record, true, None, Caller::default()), true);
        for name in ["status", "input_tokens", "cost", "seq"] {
            assert!(!line.contains(&format!("\"{name}\"")), "{line}");
        }
        assert!(line.contains("\"lost\":true"), "{line}");
    }

    #[test]
    fn a_readable_line_says_the_same() {
        let event = Event::of(&record(), true, Some(7), Caller::default());
        let line = request_line(&event, false);
        assert!(line.contains(" INFO bursar::request: request_id="), "{line}");
        assert!(line.contains(" model=gpt-4o-mini ") && line.contains(" cost=0.000435 "), "{line}");
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn lines_come_whole_and_in_order() {
        #[derive(Default)]
        struct Pieces(Vec<Vec<u8>>);
        impl io::Write for Pieces {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.push(bytes.to_vec());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::new(2_000);
        lines.set_read(true);
        let text = |n: u32| format!("line {n} {}\n", "x".repeat(30));
        (0..1_000).for_each(|n| lines.push(Line::Text(text(n).into_bytes().into())));
        let mut out = Pieces::default();
        write_all(&lines, true, &mut out);
        assert!(out.0.iter().all(|piece| piece.len() <= PIECE_BYTES && piece.ends_with(b"\n")));
        let all: String = (0..1_000).map(text).collect();
        assert_eq!(String::from_utf8(out.0.concat()).unwrap(), all);
    }
}
