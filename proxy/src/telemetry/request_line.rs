//! The log line of a settled exchange, as JSON or for a terminal.
//!
//! Invariants
//! - Fields are named once, in `fields`; both forms have the same ones. What is unknown is left out.
//! - A line is written straight into the piece that goes out: one is written for every request.
//!
//! Not here: what is told (`event`), when it is written (`lines`).

use super::event::Event;
use super::lines::TARGET;
use bursar_domain::Label;
use std::io::Write as _;

/// Writes lines, one after the other.
#[derive(Debug)]
pub(super) struct LineWriter {
    json: bool,
    /// The second of the last line, and its text without the `Z`.
    second: (i64, String),
}

impl LineWriter {
    /// Writes JSON, or text for people.
    pub(super) fn new(json: bool) -> Self {
        Self { json, second: (i64::MIN, String::new()) }
    }

    /// Adds the line of `event`, with its end.
    pub(super) fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        let micros = event.ended_at.micros();
        let second = micros.div_euclid(1_000_000);
        if self.second.0 != second {
            let text = jiff::Timestamp::from_second(second).map(|at| at.to_string()).unwrap_or_default();
            self.second = (second, text.trim_end_matches('Z').to_owned());
        }
        let mut form = Form { json: self.json, out };
        form.out.extend_from_slice(if self.json { b"{\"timestamp\":\"" } else { b"" });
        form.out.extend_from_slice(self.second.1.as_bytes());
        form.out.push(b'.');
        form.digits(micros.rem_euclid(1_000_000).unsigned_abs(), 6);
        form.out.push(b'Z');
        if self.json {
            form.out.push(b'"');
            form.text("level", "INFO");
            form.text("message", "request");
        } else {
            form.exactly(format_args!("  INFO {TARGET}:"));
        }
        fields(&mut form, event);
        if self.json {
            form.text("target", TARGET);
            form.out.push(b'}');
        }
        form.out.push(b'\n');
    }
}

fn fields(form: &mut Form<'_>, event: &Event) {
    form.text("request_id", std::str::from_utf8(&event.id.to_ascii()).unwrap_or_default());
    match event.sequence {
        Some(sequence) => form.count("seq", sequence),
        None => form.is("lost", true),
    }
    form.text("route", event.route.as_str());
    form.text("provider", event.provider.as_str());
    form.text("api", event.api.as_str());
    form.label("model", event.model_requested.as_ref());
    form.label("model_served", event.model_served.as_ref());
    form.label("team", event.team.as_ref());
    form.label("workload", event.workload.as_ref());
    if let Some(status) = event.http_status {
        form.count("status", status.into());
    }
    form.text("outcome", event.outcome.name());
    form.is("stream", event.stream);
    if let Some(usage) = &event.usage {
        if let Some(tokens) = usage.input {
            form.count("input_tokens", tokens);
        }
        if let Some(tokens) = usage.output {
            form.count("output_tokens", tokens);
        }
        form.text("usage_source", usage.source.name());
    }
    if let Some(cost) = &event.cost {
        if let Some(billed) = cost.billed() {
            form.text("cost", &billed);
            form.text("currency", cost.currency.code());
        }
        form.text("cost_status", cost.status.name());
    }
    form.millis("latency_ms", event.latency_us);
    if let Some(ttft) = event.ttft_us {
        form.millis("ttft_ms", ttft);
    }
    form.label("upstream_request_id", event.upstream_request_id.as_ref());
    if let Some(trace) = event.trace_id {
        form.id("trace_id", trace);
    }
}

/// One line in one of the two forms.
struct Form<'o> {
    json: bool,
    out: &'o mut Vec<u8>,
}

impl Form<'_> {
    fn exactly(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to memory cannot fail.
        let _ = self.out.write_fmt(text);
    }

    fn name(&mut self, name: &str) {
        let (before, after): (&[u8], &[u8]) = if self.json { (b",\"", b"\":") } else { (b" ", b"=") };
        self.out.extend_from_slice(before);
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(after);
    }

    /// A text without control characters: a label, or a word of ours.
    fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        let bytes = value.as_bytes();
        if memchr::memchr2(b'"', b'\\', bytes).is_some() {
            // Neither can this.
            let _ = serde_json::to_writer(&mut *self.out, value);
            return;
        }
        let is_quoted = self.json || memchr::memchr2(b' ', b'=', bytes).is_some();
        if is_quoted {
            self.out.push(b'"');
        }
        self.out.extend_from_slice(bytes);
        if is_quoted {
            self.out.push(b'"');
        }
    }

    fn label(&mut self, name: &str, value: Option<&Label>) {
        if let Some(value) = value {
            self.text(name, value.as_str());
        }
    }

    /// An id, as its letters and digits.
    fn id(&mut self, name: &str, value: impl std::fmt::Display) {
        self.name(name);
        let quote = if self.json { "\"" } else { "" };
        self.exactly(format_args!("{quote}{value}{quote}"));
    }

    fn is(&mut self, name: &str, value: bool) {
        self.name(name);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn count(&mut self, name: &str, value: u64) {
        self.name(name);
        self.whole(value);
    }

    fn whole(&mut self, value: u64) {
        // As above; it has a faster way with numbers than formatting has.
        let _ = serde_json::to_writer(&mut *self.out, &value);
    }

    /// Milliseconds, exact to the microsecond.
    fn millis(&mut self, name: &str, micros: u64) {
        self.name(name);
        self.whole(micros / 1_000);
        self.out.push(b'.');
        self.digits(micros % 1_000, 3);
    }

    /// The last `count` decimal digits of `value`.
    fn digits(&mut self, value: u64, count: u32) {
        for place in (0..count).rev() {
            let digit = value.checked_div(10_u64.saturating_pow(place)).unwrap_or(0) % 10;
            self.out.push(b'0'.saturating_add(u8::try_from(digit).unwrap_or(0)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::tests::record;
    use bursar_domain::{Identity, Timestamp};
    use bursar_ledger::Caller;

    fn line(event: &Event, json: bool) -> String {
        let mut out = Vec::new();
        LineWriter::new(json).write(event, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_has_ids_names_and_figures_and_leaves_out_what_is_unknown() {
        let mut record = record();
        let event = Event::of(&record, true, Some(7), Caller::default());
        let told: serde_json::Value = serde_json::from_str(&line(&event, true)).unwrap();
        assert_eq!(told["request_id"], record.id.to_string());
        assert_eq!((&told["seq"], &told["status"], &told["outcome"]), (&7.into(), &200.into(), &"ok".into()));
        assert_eq!((&told["input_tokens"], &told["output_tokens"]), (&1000.into(), &500.into()));
        assert_eq!((&told["cost"], &told["currency"]), (&"0.000435".into(), &"USD".into()));
        assert_eq!(told["latency_ms"], 1500.5);
        assert_eq!((&told["target"], &told["level"]), (&TARGET.into(), &"INFO".into()));
        let ended: jiff::Timestamp = told["timestamp"].as_str().unwrap().parse().unwrap();
        assert_eq!(ended.as_microsecond(), record.ended_at.micros());
        record.http_status = None;
        record.cost = None;
        record.usage = bursar_domain::Usage::unknown();
        let told = line(&Event::of(&record, true, None, Caller::default()), true);
        for name in ["status", "input_tokens", "cost", "seq"] {
            assert!(!told.contains(&format!("\"{name}\"")), "{told}");
        }
        assert!(told.contains("\"lost\":true"), "{told}");
    }

    #[test]
    fn a_line_for_people_says_the_same() {
        let event = Event::of(&record(), true, Some(7), Caller::default());
        let told = line(&event, false);
        assert!(told.contains(" INFO bursar::request: request_id="), "{told}");
        assert!(told.contains(" model=gpt-4o-mini ") && told.contains(" cost=0.000435 "), "{told}");
        assert_eq!(told.matches('\n').count(), 1);
    }

    #[test]
    fn names_that_would_break_a_line_are_escaped_in_both_forms() {
        let mut record = record();
        let name = r#"a "b" c=d\e"#;
        let team = Some(Label::new(name).unwrap());
        record.identity = Identity { team, ..Identity::clone(&record.identity) }.into();
        let event = Event::of(&record, true, Some(7), Caller::default());
        let told: serde_json::Value = serde_json::from_str(&line(&event, true)).unwrap();
        assert_eq!(told["team"], name);
        assert!(line(&event, false).contains(r#" team="a \"b\" c=d\\e" "#), "{}", line(&event, false));
    }

    #[test]
    fn each_line_has_its_own_time_in_whatever_order_they_come() {
        let mut event = Event::of(&record(), true, Some(7), Caller::default());
        let mut writer = LineWriter::new(true);
        for micros in [1_790_000_000_000_001, 1_790_000_000_999_999, 1_790_000_001_000_000, 5, -1] {
            event.ended_at = Timestamp::from_micros(micros);
            let mut out = Vec::new();
            writer.write(&event, &mut out);
            let told: serde_json::Value = serde_json::from_slice(&out).unwrap();
            let at: jiff::Timestamp = told["timestamp"].as_str().unwrap().parse().unwrap();
            assert_eq!(at.as_microsecond(), micros);
        }
    }
}
