//! The demonstration: invented traffic of three teams through the real proxy to a provider that is not real, with
//! contracts and revenue, up to the report of return.
//!
//! Invariants
//! - Everything that could be taken for real says that it is not: the directory, the routes, a tag of every
//!   record, the names of contracts, the source of revenue.
//! - The same seed gives the same figures: time is that of the story, not of the machine, and requests follow
//!   one another.
//! - Nothing listens but on loopback, on ports that are free; no ledger but its own is opened.
//!
//! Not here: what is printed (`cli::demo`).

mod books;
mod client;
mod provider;
mod traffic;

use crate::app::{App, Prices};
use crate::budgets::Budgets;
use crate::config::{Config, Overrides, Sources};
use crate::listen::{self, Sharing, Shutdown, Workers};
use crate::roi::report::{self, Options};
use crate::tasks;
use crate::telemetry::{Observers, Telemetry};
use crate::upstream::TlsSetup;
use anyhow::{Context, bail};
use bursar_domain::{Clock, Timestamp};
use bursar_ledger::{Ledger, Options as LedgerOptions};
use bursar_policies::price::PriceBook;
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::sync::watch;

/// The first and the last day of the story, as reports are asked for them.
pub(crate) const DAYS: [&str; 2] = ["2026-03-03", "2026-03-04"];
/// 2026-03-03T09:00:00Z, where the hour begins.
const START_MICROS: i64 = 1_772_528_400_000_000;
/// The name and value of the tag of every record.
pub(crate) const TAG: (&str, &str) = ("demonstration", "true");

/// The clock of the story.
#[derive(Debug)]
struct StoryClock(AtomicI64);

impl StoryClock {
    fn set(&self, at: Timestamp) {
        self.0.store(at.micros(), Ordering::Release);
    }
}

impl Clock for StoryClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Acquire))
    }
}

/// What a demonstration came to.
#[derive(Debug)]
pub(crate) struct Story {
    /// Requests that were sent.
    pub(crate) requests: u64,
    /// The report of return by team.
    pub(crate) report: Value,
    /// Usage by team and model.
    pub(crate) usage: Value,
}

/// Plays the hour into a new ledger in `dir`.
pub(crate) fn play(dir: &Path, seed: u64, on_progress: &dyn Fn(u64, u64)) -> anyhow::Result<Story> {
    let clock = Arc::new(StoryClock(AtomicI64::new(START_MICROS)));
    let (provider, provider_listener) = loopback()?;
    let config = config(dir, provider)?;
    let book = PriceBook::builtin().context("the built-in price book is damaged: this is a defect")?;
    let prices = Arc::new(Prices::new(book));
    let budgets = Arc::new(Budgets::new(config.budgets.clone()));
    let telemetry = Telemetry::new(&config.telemetry);
    let observer = Observers::new(&budgets, &telemetry);
    let options = LedgerOptions { observer: Some(observer), ..LedgerOptions::new(dir) };
    let pricer: Arc<dyn bursar_ledger::Pricer> = prices.clone();
    let as_clock: Arc<dyn Clock> = clock.clone();
    let (ledger, _) = Ledger::open(options, Arc::clone(&as_clock), pricer)?;
    budgets.load(&ledger, clock.now())?;
    let app = App::new(config, ledger, prices, budgets, telemetry, as_clock);

    let (shutdown, state) = watch::channel(Shutdown::No);
    let listener = listen::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Sharing::Alone)?.listen()?;
    let proxy = listener.local_addr()?;
    let workers = Workers::start(&app, &listener, &TlsSetup::load(None)?, &state)?;
    drop(listener);
    let serving = tasks::thread("demonstration-provider".to_owned(), {
        let state = state.clone();
        move || provider::serve(provider_listener, state)
    })?;
    let calls = traffic::hour(seed);
    let sent = send(&calls, proxy, &clock, on_progress);
    // In this order, whatever became of the calls: nothing is left running.
    shutdown.send_replace(Shutdown::Drain);
    workers.join();
    shutdown.send_replace(Shutdown::Now);
    if serving.join().is_err() {
        bail!("the provider of the demonstration failed: this is a defect");
    }
    app.counting.finish();
    sent?;
    app.ledger.checkpoint()?;
    books::enter(&app.ledger, clock.as_ref())?;
    let story = tell(&app, &calls)?;
    app.ledger.clone().close()?;
    Ok(story)
}

fn loopback() -> anyhow::Result<(SocketAddr, TcpListener)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on loopback")?;
    listener.set_nonblocking(true)?;
    Ok((listener.local_addr()?, listener))
}

fn config(dir: &Path, provider: SocketAddr) -> anyhow::Result<Config> {
    let text = format!(
        "builtin_routes: false\n\
         server: {{ workers: 1 }}\n\
         routes:\n  \
           - {{ prefix: /demonstration/openai, upstream: 'http://{provider}', provider: openai }}\n  \
           - {{ prefix: /demonstration/anthropic, upstream: 'http://{provider}', provider: anthropic }}\n"
    );
    let overrides = Overrides { data_dir: Some(dir.to_owned()), ..Overrides::default() };
    let sources = Sources { text: Some(text), overrides, ..Sources::none() };
    Config::load(sources).map_err(|errors| anyhow::anyhow!("{errors}"))
}

fn send(
    calls: &[traffic::Call],
    proxy: SocketAddr,
    clock: &StoryClock,
    on_progress: &dyn Fn(u64, u64),
) -> anyhow::Result<()> {
    let local = tokio::task::LocalSet::new();
    local.block_on(&tasks::runtime()?, async {
        let mut client = client::Client::new(proxy);
        for (number, call) in (1_u64..).zip(calls) {
            clock.set(call.at);
            client.call(call).await.with_context(|| format!("call {number} of the demonstration"))?;
            on_progress(number, calls.len() as u64);
        }
        anyhow::Ok(())
    })
}

fn tell(app: &App, calls: &[traffic::Call]) -> anyhow::Result<Story> {
    let [from, to] = DAYS.map(str::to_owned);
    let asked = Options { from: Some(from), to: Some(to.clone()), on: Some(to), ..Options::default() };
    let now = app.now();
    let report = report::document(&app.priced(), &asked, now)?;
    let period = crate::period::Period { from: None, to: None, zone: jiff::tz::TimeZone::UTC };
    let by = vec![bursar_ledger::GroupKey::Team, bursar_ledger::GroupKey::Model];
    let ask = crate::report::UsageAsk { period, by };
    let usage = crate::report::usage(|query| app.ledger.usage(query), &ask, now)?;
    Ok(Story { requests: calls.len() as u64, report, usage })
}
