//! Other settings while the program runs: on SIGHUP, and when a file that the settings came from changes.
//!
//! Invariants
//! - Either all of a configuration takes effect or none of it: one with a mistake is named and left alone.
//! - No request notices: one that is under way ends by the settings it began with, and what budgets and
//!   limits hold for it stays held.
//! - What only a restart changes is named, and stays as it was.
//! - A file counts as changed when it looks different and has looked so for one more round, so that nobody
//!   reads half of what is being written.
//!
//! Not here: reading a configuration (`config`), what budgets carry over (`budgets::reload`).

use crate::app::App;
use crate::budgets::ReloadError;
use crate::config::Config;
use crate::listen::Shutdown;
use crate::telemetry;
use bursar_policies::price::PriceBook;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::signal::unix::Signal;
use tokio::sync::watch;

/// How often files are looked at.
const ROUND: Duration = Duration::from_secs(1);

/// A configuration and the prices that it names.
#[derive(Debug)]
pub struct Newer {
    /// The settings.
    pub config: Config,
    /// The price book with the configured overlay.
    pub prices: PriceBook,
}

/// What a reload changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Settings with another value that a restart would bring into force.
    pub needs_restart: Vec<&'static str>,
}

/// Brings other settings into force. Blocks as long as the ledger is asked what new budgets have spent.
///
/// # Errors
/// Nothing has changed then.
pub fn apply(app: &App, newer: Newer) -> Result<Applied, ReloadError> {
    let Newer { config, prices } = newer;
    let running = Arc::clone(&app.config());
    let needs_restart = running.needs_restart_for(&config);
    let config = config.without_restart(&running).with_keys_of(&running);
    // First what can fail.
    let rules = config.contract_budgets.clone();
    let contracts = app.budgets.prepare_contracts(rules, &app.ledger, &app.prices, app.now())?;
    app.budgets.replace(config.budgets.clone(), &app.ledger, app.now())?;
    app.budgets.replace_contracts(contracts, app.now());
    crate::admin::look_at_contracts(app);
    app.limits.replace(config.limits.clone());
    app.set_rules(config.rules.clone());
    app.ledger.limit_bytes(config.ledger.bytes_max);
    app.prices.set_book(prices);
    telemetry::set_level(config.telemetry.log_level.as_str());
    app.metrics.expect_providers(config.routes.providers());
    app.set_config(config);
    Ok(Applied { needs_restart })
}

/// How a file looks from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look {
    path: PathBuf,
    /// `None` while it is not there.
    state: Option<(Option<SystemTime>, u64, u64)>,
}

fn looks(app: &App) -> Vec<Look> {
    let look = |path: &PathBuf| {
        let about = std::fs::metadata(path).ok();
        let state = about.map(|about| (about.modified().ok(), about.ino(), about.len()));
        Look { path: path.clone(), state }
    };
    app.config().watched.iter().map(look).collect()
}

/// Reloads by `read`, at each `hangup` and when files change, until the process ends.
pub(crate) async fn watch(
    app: Arc<App>,
    read: impl Fn() -> anyhow::Result<Newer>,
    mut hangup: Signal,
    mut shutdown: watch::Receiver<Shutdown>,
) {
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut known = looks(&app);
    let mut before = known.clone();
    loop {
        let why = tokio::select! {
            _ = shutdown.wait_for(|state| *state != Shutdown::No) => return,
            _ = hangup.recv() => "SIGHUP",
            _ = rounds.tick() => {
                let now = looks(&app);
                let is_steady = std::mem::replace(&mut before, now.clone()) == now;
                if !is_steady || now == known {
                    continue;
                }
                "a file has changed"
            }
        };
        // Looked at before it is read: what changes meanwhile is read again.
        known = looks(&app);
        let worked = reload(&app, &read, why);
        app.metrics.reloaded(worked);
        if worked && known.len() != app.config().watched.len() {
            known = looks(&app);
        }
        before.clone_from(&known);
    }
}

fn reload(app: &App, read: impl Fn() -> anyhow::Result<Newer>, why: &str) -> bool {
    let warned = app.config().warnings.clone();
    let applied = read().and_then(|newer| Ok(apply(app, newer)?));
    match applied {
        Ok(Applied { needs_restart }) => {
            for warning in app.config().warnings.iter().filter(|warning| !warned.contains(warning)) {
                tracing::warn!("{warning}");
            }
            if !needs_restart.is_empty() {
                let settings = needs_restart.join(", ");
                tracing::warn!(settings, "these settings have changed and need a restart to take effect");
            }
            tracing::info!(why, "the configuration was reloaded");
            true
        }
        Err(error) => {
            let error = format!("{error:#}");
            tracing::error!(why, error, "the configuration was not reloaded: the one before stays in force");
            false
        }
    }
}
