//! Logs of the process: JSON, or readable lines on a terminal, always on standard error.
//!
//! Invariants
//! - Once a thread writes them ([`super::lines`]), whoever logs does not wait for whoever reads.
//! - A panic is logged by its place. What it says is not shown unless it stands in the program's own text:
//!   a message about a piece of text may quote it.
//!
//! Not here: metrics (`admin::metrics`), the line of each request (`lines`).

use super::lines::{Line, Lines};
use crate::config::LogFormat;
use std::any::Any;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, OnceLock};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Changes what is logged; there once logging has started.
static LEVEL: OnceLock<Box<dyn Fn(EnvFilter) + Send + Sync>> = OnceLock::new();

/// Where lines go while a thread writes them.
static LINES: OnceLock<Arc<Lines>> = OnceLock::new();

/// Libraries whose most detailed levels show heads and bytes of messages: they log no more than `debug`.
const TALKATIVE: [&str; 8] =
    ["h2", "hyper", "hyper_util", "rustls", "aws_sigv4", "aws_smithy_runtime_api", "axum", "tower"];

/// From now on logs with `level`.
pub(crate) fn set_level(level: &str) {
    if let (Some(set), Some(filter)) = (LEVEL.get(), filter(level)) {
        set(filter);
    }
}

fn filter(level: &str) -> Option<EnvFilter> {
    let mut filter = EnvFilter::try_new(level).ok()?;
    if filter.max_level_hint() == Some(tracing::level_filters::LevelFilter::TRACE) {
        for library in TALKATIVE {
            filter = filter.add_directive(format!("{library}=debug").parse().ok()?);
        }
    }
    Some(filter)
}

fn change_by<S: 'static>(handle: tracing_subscriber::reload::Handle<EnvFilter, S>) {
    let set = move |filter| {
        if let Err(error) = handle.reload(filter) {
            tracing::error!(%error, "the log level could not be changed");
        }
    };
    drop(LEVEL.set(Box::new(set)));
}

/// Whether lines are JSON.
pub(crate) fn is_json(format: LogFormat) -> bool {
    match format {
        LogFormat::Json => true,
        LogFormat::Pretty => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    }
}

/// Starts logging with `level`, a level or a list such as `info,bursar::upstream=debug`.
pub(crate) fn start(level: &str, format: LogFormat) {
    let filter = filter(level).unwrap_or_else(|| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(ToLines);
    // A second start (in tests) keeps the first subscriber.
    let _ = if is_json(format) {
        let builder = builder.json().flatten_event(true).with_filter_reloading();
        change_by(builder.reload_handle());
        builder.try_init()
    } else {
        let builder = builder.with_ansi(std::io::stderr().is_terminal()).with_filter_reloading();
        change_by(builder.reload_handle());
        builder.try_init()
    };
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or_default();
        tracing::error!(place, thread, message = said(panic.payload()), "a defect: this code panicked");
    }));
}

/// What a panic says, if that may be shown.
fn said(payload: &(dyn Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("(not shown: it may quote a message)")
}

/// From now on lines go to `lines` while somebody writes them.
pub(crate) fn send_to(lines: &Arc<Lines>) {
    drop(LINES.set(Arc::clone(lines)));
}

/// Writes one line per event: to the thread that writes them, or to standard error.
#[derive(Clone, Copy, Debug)]
struct ToLines;

impl MakeWriter<'_> for ToLines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

impl Write for ToLines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match LINES.get().filter(|lines| lines.is_read()) {
            Some(lines) => lines.push(Line::Text(bytes.into())),
            None => std::io::stderr().write_all(bytes)?,
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
    use std::panic::catch_unwind;

    #[test]
    fn a_panic_shows_its_own_text_and_nothing_that_may_quote_a_message() {
        let fixed = catch_unwind(|| panic!("a fixed text")).unwrap_err();
        assert_eq!(said(&*fixed), "a fixed text");
        let text = "canary é".to_owned();
        let quoting = catch_unwind(|| text[..8].len()).unwrap_err();
        let said = said(&*quoting);
        assert!(!said.contains("canary") && said.starts_with("(not shown"), "{said}");
    }

    #[test]
    fn the_most_detailed_level_leaves_libraries_that_show_messages_at_debug() {
        let shown = filter("trace").unwrap().to_string();
        assert!(shown.contains("h2=debug") && shown.contains("hyper=debug"), "{shown}");
        assert!(!filter("debug").unwrap().to_string().contains("h2"));
    }
}
