//! `bursar ledger backup --to DIR --every SPAN`: a copy of a ledger in use that is brought up to date again and
//! again, until the signal to end and once more then.
//!
//! Invariants
//! - A round that fails is told of and tried again at the next one; only the last one decides how it ends.
//! - It begins before there is a ledger, and waits for one.
//!
//! Not here: what a round copies (`bursar_ledger::Shipper`).

use crate::config::LogFormat;
use crate::tasks;
use crate::telemetry::logging;
use anyhow::Context;
use bursar_ledger::{CopyError, Shipped, Shipper};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

const EVERY_MAX: Duration = Duration::from_secs(86_400);

/// Reads a span such as `30s`, `5m` or `1h`.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3_600)];
    let seconds = units.into_iter().find_map(|(unit, seconds)| {
        let count = text.strip_suffix(unit)?.parse::<u64>().ok()?;
        count.checked_mul(seconds)
    });
    match seconds.map(Duration::from_secs) {
        Some(span) if !span.is_zero() && span <= EVERY_MAX => Ok(span),
        _ => Err("write a whole number with s, m or h, such as 5m; 24h at most".to_owned()),
    }
}

/// Ships the ledger in `dir` to `to` every so often, until it is told to end.
pub(super) fn run(dir: &Path, to: &Path, every: Duration) -> anyhow::Result<ExitCode> {
    let level = super::environment::variable("BURSAR_LOG").unwrap_or_else(|| "info".to_owned());
    logging::start(&level, LogFormat::Auto);
    tasks::runtime()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let told_to_end = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        tracing::info!(ledger = %dir.display(), to = %to.display(), every = ?every, "shipping the ledger");
        let mut shipper = Shipper::new(dir, to);
        rounds(every, told_to_end, || tell(shipper.ship())).await;
        tracing::info!("ending: the last copy");
        match tell(shipper.ship()) {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) => Err(error).context("the last copy was not made"),
        }
    })
}

/// Runs `round` at once and every so often, until the end is told.
async fn rounds(
    every: Duration,
    end: impl Future<Output = ()>,
    mut round: impl FnMut() -> Result<(), CopyError>,
) {
    let mut end = std::pin::pin!(end);
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = &mut end => return,
            _ = ticks.tick() => {
                // It was told of; the next one goes on from there.
                let _ = round();
            }
        }
    }
}

/// Logs what a round did.
fn tell(round: Result<Option<Shipped>, CopyError>) -> Result<(), CopyError> {
    match round {
        Ok(None) => tracing::info!("there is no ledger yet"),
        Ok(Some(shipped)) => {
            if let Some((aside, why)) = &shipped.set_aside {
                let aside = aside.display();
                tracing::warn!(%aside, why, "the copy there could not be continued: it was set aside");
            }
            let (copy, last_sequence, bytes) = (shipped.path.display(), shipped.last_sequence, shipped.bytes);
            tracing::info!(%copy, last_sequence, bytes, "shipped");
        }
        Err(error) => {
            tracing::error!(error = chain(&error), "not shipped");
            return Err(error);
        }
    }
    Ok(())
}

/// What went wrong, with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn spans_are_whole_and_have_a_unit() {
        assert_eq!(span("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(span("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(span("24h"), Ok(EVERY_MAX));
        for wrong in ["", "5", "0s", "1.5m", "-1s", "25h", "5d", "5 m", "99999999999999999999h"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rounds_begin_at_once_and_come_again_until_the_end_whether_they_worked_or_not() {
        let count = Cell::new(0);
        let failed = || CopyError::TargetExists { path: "/x".into() };
        let round = || {
            count.set(count.get() + 1);
            if count.get() == 2 { Err(failed()) } else { Ok(()) }
        };
        let end = tokio::time::sleep(Duration::from_secs(1_201));
        rounds(Duration::from_secs(300), end, round).await;
        assert_eq!(count.get(), 5);
    }
}
