//! `bursar serve`: puts the parts together, runs them, and ends them in order.
//!
//! Invariants
//! - What cannot work is said before anything listens.
//! - At the end: listeners, exchanges, counts, webhooks, ledger, in this order, so nothing is settled after the ledger.

use super::fault::Fault;
use super::{ServeArgs, environment};
use crate::activation::{self, Given};
use crate::admin;
use crate::app::{App, Prices};
use crate::budgets::Budgets;
use crate::config::{self, Config, ConfigErrors, Overrides, Sources, Whereabouts};
use crate::confine;
use crate::credentials::refresh;
use crate::listen::{self, Sharing, Shutdown, Workers};
use crate::reload::{self, Newer};
use crate::tasks;
use crate::telemetry::{Observers, Telemetry, lines, logging, otlp};
use crate::upstream::{Connector, TlsSetup};
use crate::webhooks;
use anyhow::Context;
use bursar_domain::{Clock, SystemClock};
use bursar_ledger::{Durability, Ledger, OpenReport, Options, Retention};
use bursar_policies::price::PriceBook;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Runs the sidecar until it is told to stop.
pub(super) fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let given = activation::take(&environment::variable)
        .map_err(|error| Fault::Usage(format!("{:#}", anyhow::Error::from(error))))?;
    let mut args = args.clone();
    let unheard = put_in_place(&mut args, &given);
    let config = configured(&args)?;
    logging::start(config.telemetry.log_level.as_str(), config.telemetry.log_format);
    confine::leave_no_dumps();
    for option in unheard {
        tracing::warn!("{option} is not heard: the socket was handed over, open already");
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let prices = Arc::new(Prices::new(load_prices(&config)?));
    let tls = TlsSetup::load(config.upstream.ca_file.as_deref())?;
    // The addresses are taken first: a start that fails for them leaves no directory behind. Nobody is
    // heard on them before the ledger is open.
    let sharing = if config.server.reuse_port { Sharing::WithPeers } else { Sharing::Alone };
    let bound = match given.proxy {
        Some(socket) => socket.bound,
        None => listen_on(config.listen, "listen", |at| listen::bind(at, sharing))?,
    };
    let admin_bound = match given.admin {
        Some(socket) => socket.bound,
        None => listen_on(config.admin.listen, "admin.listen", |at| listen::bind(at, Sharing::Alone))?,
    };
    let budgets = Budgets::new(config.budgets.clone()).with_contracts(config.contract_budgets.clone());
    let budgets = Arc::new(budgets);
    let telemetry = Telemetry::new(&config.telemetry);
    // Until its end nobody waits for whoever reads the log. However this ends, all lines are written.
    let _writing = lines::start(&telemetry.lines, logging::is_json(config.telemetry.log_format))
        .context("cannot start a thread for logs")?;
    let (ledger, report) = open_ledger(&config, &prices, Observers::new(&budgets, &telemetry))?;
    tell_of_ledger(&config, &report);
    budgets
        .load(&ledger, SystemClock.now())
        .context("cannot read from the ledger what budgets have spent, so they cannot be kept")?;
    for line in budgets.look_at_contracts(&ledger, &prices, SystemClock.now())? {
        tracing::warn!("{line}");
    }
    let listener = listen_on(config.listen, "listen", |_| bound.listen())?;
    let admin_listener = listen_on(config.admin.listen, "admin.listen", |_| admin_bound.listen())?;
    let (listening, admin_listening) = (listener.local_addr()?, admin_listener.local_addr()?);
    let app = App::new(config, ledger, prices, budgets, telemetry, Arc::new(SystemClock));
    let exporter = otlp::start(&app, &tls).context("cannot start to send telemetry (telemetry.otlp)")?;

    let telling = webhooks::start(&app, &tls).context("cannot start to send webhooks")?;

    let (shutdown, state) = watch::channel(Shutdown::No);
    // Before anything is served that a signal could break off.
    let runtime = tasks::runtime()?;
    let signals = runtime.block_on(async { Signals::catch() }).context("cannot catch signals")?;
    // Before the workers, so that the keys of issuers are asked for first.
    let for_keys = (Arc::clone(&app), tls.clone(), state.clone());
    let keys = tasks::thread("jwks".to_owned(), move || {
        refresh::tend(for_keys.0, Connector::Network(for_keys.1), for_keys.2)
    })?;
    let workers = Workers::start(&app, &listener, &tls, &state)?;
    drop(listener);
    let for_admin = (Arc::clone(&app), state.clone());
    let admin = tasks::thread("admin".to_owned(), move || async move {
        if let Err(error) = admin::serve(for_admin.0, admin_listener.into_socket(), for_admin.1).await {
            tracing::error!(%error, "the admin API ended");
        }
    })?;
    tracing::info!(proxy = %listening, admin = %admin_listening, pid = std::process::id(), "bursar serves");
    let for_reload = (Arc::clone(&app), signals.hangup, state.clone());
    let reload = tasks::thread("reload".to_owned(), move || async move {
        let read = || {
            let config = configured(&args)?;
            let prices = load_prices(&config)?;
            Ok(Newer { config, prices })
        };
        reload::watch(for_reload.0, read, for_reload.1, for_reload.2).await;
    })?;
    runtime.block_on(wait_for_signals(signals.to_end, &shutdown, workers))?;

    shutdown.send_replace(Shutdown::Now);
    if keys.join().is_err() {
        tracing::error!("reading the keys of issuers of tokens ended in a panic");
    }
    if reload.join().is_err() {
        tracing::error!("the reload of the configuration ended in a panic");
    }
    if admin.join().is_err() {
        tracing::error!("the admin API ended in a panic");
    }
    app.counting.finish();
    // While nobody else may use the ledger's directory.
    telling.end();
    let closed = app.ledger.clone().close();
    // After the last record.
    if let Some(exporter) = exporter {
        exporter.end();
    }
    closed.context("the ledger could not be closed cleanly; it will be checked at the next start")?;
    tracing::info!("bursar has ended");
    Ok(ExitCode::SUCCESS)
}

/// Makes the addresses of sockets that were handed over those of the configuration, so that they must be
/// right like others. Tells which options say otherwise and are therefore not heard.
fn put_in_place(args: &mut ServeArgs, given: &Given) -> Vec<&'static str> {
    let mut unheard = Vec::new();
    let places = [
        ("--listen", &mut args.listen, &given.proxy),
        ("--admin-listen", &mut args.admin_listen, &given.admin),
    ];
    for (option, told, socket) in places {
        let Some(socket) = socket else { continue };
        let address = socket.address.to_string();
        if told.as_ref().is_some_and(|told| *told != address) {
            unheard.push(option);
        }
        *told = Some(address);
    }
    unheard
}

/// The configuration, as the command line, the environment and the file say now.
fn configured(args: &ServeArgs) -> anyhow::Result<Config> {
    let overrides = Overrides {
        listen: args.listen.clone(),
        admin_listen: args.admin_listen.clone(),
        data_dir: args.data_dir.clone(),
    };
    Ok(load_config(args.config.as_deref(), overrides).map_err(Fault::from)?)
}

/// The signals that mean something here.
struct Signals {
    /// Terminate and interrupt.
    to_end: [Signal; 2],
    hangup: Signal,
}

impl Signals {
    /// From now on they do what they do here, and not what the system does at them.
    fn catch() -> std::io::Result<Self> {
        let to_end = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
        Ok(Self { to_end, hangup: signal(SignalKind::hangup())? })
    }
}

/// Drains at the first signal, hurries at the second, and returns when the workers have ended.
async fn wait_for_signals(
    [mut terminate, mut interrupt]: [Signal; 2],
    shutdown: &watch::Sender<Shutdown>,
    workers: Workers,
) -> anyhow::Result<()> {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // In this order: whoever has read the line finds the sidecar not ready.
    shutdown.send_replace(Shutdown::Drain);
    tracing::info!("draining: waiting for exchanges to end; signal again to end at once");
    let mut joined = tokio::task::spawn_blocking(|| workers.join());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        result = &mut joined => return result.context("waiting for the workers failed"),
    }
    tracing::warn!("second signal: ending what still runs");
    shutdown.send_replace(Shutdown::Now);
    joined.await.context("waiting for the workers failed")
}

/// A step on the way to listening on `address`, which `key` names.
fn listen_on<T>(
    address: SocketAddr,
    key: &str,
    step: impl FnOnce(SocketAddr) -> std::io::Result<T>,
) -> anyhow::Result<T> {
    step(address).with_context(|| {
        format!("cannot listen on {address} ({key}): is another process using it? choose another address")
    })
}

fn open_ledger(
    config: &Config,
    prices: &Arc<Prices>,
    observer: Arc<Observers>,
) -> anyhow::Result<(Ledger, OpenReport)> {
    let options = Options {
        durability: match config.ledger.durability {
            config::Durability::Sync => Durability::Sync,
            config::Durability::Group => Durability::Group,
            config::Durability::Relaxed => Durability::Relaxed,
        },
        queue_entries_max: config.ledger.queue_entries_max,
        group_delay: config.ledger.group_delay,
        observer: Some(observer),
        retention: config
            .ledger
            .detail_days
            .map(|days| Retention::of(Duration::from_secs(u64::from(days).saturating_mul(86_400)))),
        bytes_max: config.ledger.bytes_max,
        ..Options::new(&config.ledger.path)
    };
    let pricer: Arc<dyn bursar_ledger::Pricer> = prices.clone();
    Ok(Ledger::open(options, Arc::new(SystemClock), pricer)?)
}

fn tell_of_ledger(config: &Config, report: &OpenReport) {
    tracing::info!(
        path = %config.ledger.path.display(),
        ledger = %report.ledger,
        created = report.created,
        last_sequence = report.last_sequence,
        segments = report.segments,
        interrupted = report.interrupted,
        store = ?report.store,
        "the ledger is open"
    );
    if let Some(tail) = &report.torn_tail {
        tracing::warn!(
            ?tail,
            "the journal's end was torn by a crash and was cut: it had not been acknowledged"
        );
    }
    if report.records_missing > 0 {
        tracing::error!(
            records = report.records_missing,
            "records that had been acknowledged are missing: the disk or file system lost them"
        );
    }
}

/// Reads file, environment and command line.
pub(super) fn load_config(file: Option<&Path>, overrides: Overrides) -> Result<Config, ConfigErrors> {
    Config::load(sources(file, overrides))
}

/// Where the environment and the configuration that it names say that a sidecar is.
pub(super) fn whereabouts() -> Result<Whereabouts, ConfigErrors> {
    Config::whereabouts(sources(None, Overrides::default()))
}

fn sources(file: Option<&Path>, overrides: Overrides) -> Sources<'static> {
    Sources {
        file: file.map(Path::to_path_buf),
        text: None,
        env: &environment::variable,
        env_names: environment::names(),
        overrides,
    }
}

/// The price book with the configured overlay.
pub(super) fn load_prices(config: &Config) -> anyhow::Result<PriceBook> {
    let book = PriceBook::builtin().context("the built-in price book is damaged: this is a defect")?;
    let Some(path) = &config.prices.overlay else { return Ok(book) };
    overlaid(&book, path, config.prices.overlay_format)
        .with_context(|| format!("prices.overlay {}", path.display()))
}

/// `book` with the overlay in the file at `path`; errors are about it and leave its name to the caller.
pub(super) fn overlaid(
    book: &PriceBook,
    path: &Path,
    format: config::OverlayFormat,
) -> anyhow::Result<PriceBook> {
    let text = std::fs::read_to_string(path).context("cannot be read")?;
    let source = path.file_stem().map_or_else(|| "overlay".into(), |stem| stem.to_string_lossy());
    let read = config::read_overlay(&text, format, &source);
    let read = read.map_err(|error| Fault::Violation(error.to_string()))?;
    Ok(book.with_overlay(read.file()).map_err(|error| Fault::Violation(error.to_string()))?)
}
