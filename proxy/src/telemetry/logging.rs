//! Logs of the process: JSON, or readable lines on a terminal, always on standard error.
//!
//! Not here: metrics (`admin::metrics`).

use crate::config::LogFormat;
use std::io::IsTerminal;
use std::sync::OnceLock;
use tracing_subscriber::EnvFilter;

/// Changes what is logged; there once logging has started.
static LEVEL: OnceLock<Box<dyn Fn(EnvFilter) + Send + Sync>> = OnceLock::new();

/// From now on logs with `level`.
pub(crate) fn set_level(level: &str) {
    if let (Some(set), Ok(filter)) = (LEVEL.get(), EnvFilter::try_new(level)) {
        set(filter);
    }
}

fn change_by<S: 'static>(handle: tracing_subscriber::reload::Handle<EnvFilter, S>) {
    let set = move |filter| {
        if let Err(error) = handle.reload(filter) {
            tracing::error!(%error, "the log level could not be changed");
        }
    };
    drop(LEVEL.set(Box::new(set)));
}

/// Starts logging with `level`, a level or a list such as `info,bursar::upstream=debug`.
pub(crate) fn start(level: &str, format: LogFormat) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Pretty => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start (in tests) keeps the first subscriber.
    let _ = if json {
        let builder = builder.json().flatten_event(true).with_filter_reloading();
        change_by(builder.reload_handle());
        builder.try_init()
    } else {
        let builder = builder.with_ansi(std::io::stderr().is_terminal()).with_filter_reloading();
        change_by(builder.reload_handle());
        builder.try_init()
    };
}
