//! The sidecar itself, put together as `serve` does it, over in-memory connections.

use crate::{Client, Frames, Http2Client, Http2Provider, ManualClock, Provider, unhurried};
use bursar::app::{App, Prices};
use bursar::budgets::Budgets;
use bursar::config::{Config, ConfigErrors, Sources};
use bursar::credentials::refresh;
use bursar::listen::Shutdown;
use bursar::reload::{self, Applied, Newer};
use bursar::tasks;
use bursar::telemetry::{Observers, Telemetry};
use bursar::upstream::Connector;
use bursar::worker::Worker;
use bursar_domain::{Clock, Cost, UsageRecord};
use bursar_ledger::{
    Durability, Ledger, OfflineLedger, Options, Pricer, RecordRange, SimulatedDisk, StoredRecord,
};
use bursar_policies::price::PriceBook;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// 2026-11-22T12:00:00Z, where every test begins.
pub const START_MICROS: i64 = 1_795_348_800_000_000;

/// Segments of a journal whose disk is simulated: so small that there are several.
const SMALL_SEGMENT: u64 = 16 * 1024;

/// Routes to the fake providers.
const ROUTES: &str = "
builtin_routes: false
routes:
  - { prefix: /openai, upstream: 'http://provider.test', provider: openai }
  - { prefix: /anthropic, upstream: 'http://provider.test/base', provider: anthropic }
  - { prefix: /silent, upstream: 'http://provider.test', provider: openai, include_usage: false }
  - { prefix: /costly, upstream: 'http://provider.test', provider: openai, response_headers: { cost: true } }
  - { prefix: /secure, upstream: 'https://provider.test', provider: openai }
  - { prefix: /h2, upstream: 'http://h2.test', provider: openai, protocol: http2 }
  - { prefix: /gemini, upstream: 'http://provider.test', provider: gemini }
  - { prefix: /other, upstream: 'http://provider.test', provider: voyage }
";

/// Holds the ledger's writer back while it is closed.
#[derive(Clone, Debug, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn set(&self, closed: bool) {
        *self.0.0.lock().unwrap() = closed;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let closed = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(closed, |closed| *closed).unwrap());
    }
}

/// Opens the gate when a test ends, however it ends: the ledger waits for its writer.
#[derive(Debug)]
struct OpensAtEnd(Gate);

impl Drop for OpensAtEnd {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

struct GatedPrices {
    gate: Gate,
    prices: Arc<Prices>,
}

impl Pricer for GatedPrices {
    fn price(&self, record: &UsageRecord) -> Cost {
        self.gate.pass();
        Pricer::price(self.prices.as_ref(), record)
    }
}

/// A sidecar with fake providers behind it.
#[derive(Debug)]
pub struct System {
    /// First, since fields are dropped in their order: the ledger's end waits for its writer.
    gate: OpensAtEnd,
    /// The provider.
    pub provider: Provider,
    /// The provider behind `/h2`.
    pub http2_provider: Http2Provider,
    /// The server of an issuer of tokens, `issuer.test`, which publishes its keys.
    pub issuer: Provider,
    /// The wall clock.
    pub clock: Arc<ManualClock>,
    /// The parts that all workers share.
    pub app: Arc<App>,
    /// The worker.
    pub worker: Rc<Worker>,
    shutdown: watch::Sender<Shutdown>,
    dir: Rc<tempfile::TempDir>,
    setup: Setup,
}

/// How a sidecar is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The routes, in YAML.
    pub routes: String,
    /// Further settings, in YAML.
    pub settings: String,
    /// How upstreams are reached; without one, the fake providers are.
    pub connector: Option<Connector>,
    /// Most records in one group of the ledger.
    pub group_records_max: usize,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// What the issuer of tokens answers from the start on.
    pub issuer: Provider,
    /// The machine that it runs on, where another life of it follows; without one, a new one.
    pub machine: Option<Machine>,
}

/// What stays when a sidecar, or its power, goes.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The disk of the ledger's journal.
    pub disk: SimulatedDisk,
    /// Where it is.
    pub dir: Rc<tempfile::TempDir>,
}

impl Machine {
    /// One with an empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self { disk: SimulatedDisk::default(), dir: Rc::new(tempfile::tempdir().unwrap()) }
    }

    /// The ledger's directory.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.dir.path().join("ledger")
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    /// The fake providers, with further settings.
    #[must_use]
    pub fn new(settings: &str) -> Self {
        Self {
            routes: ROUTES.to_owned(),
            settings: settings.to_owned(),
            connector: None,
            group_records_max: 4096,
            env: Vec::new(),
            issuer: Provider::default(),
            machine: None,
        }
    }

    /// The settings.
    pub fn config(&self) -> Result<Config, ConfigErrors> {
        let text = format!("{}\n{}\n", self.routes, self.settings);
        let variable =
            |name: &str| self.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        Config::load(Sources { text: Some(text), env: &variable, ..Sources::none() })
    }

    /// Runs `test` against this sidecar, in paused time.
    pub fn run<Fut: Future<Output = ()>>(self, test: impl FnOnce(System) -> Fut) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            test(System::start(self)).await;
        });
    }
}

/// Runs `test` against a sidecar with further settings, in paused time.
pub fn run<Fut: Future<Output = ()>>(settings: &str, test: impl FnOnce(System) -> Fut) {
    Setup::new(settings).run(test);
}

impl System {
    /// Starts it, within a runtime of its own ([`Setup::run`]).
    #[must_use]
    pub fn start(setup: Setup) -> Self {
        let machine = setup.machine.clone().unwrap_or_default();
        let dir = Rc::clone(&machine.dir);
        let config = setup.config().unwrap_or_else(|errors| panic!("{errors}"));
        let prices = Arc::new(Prices::new(PriceBook::builtin().unwrap()));
        let clock = Arc::new(ManualClock::at(START_MICROS));
        let gate = Gate::default();
        let durability = match config.ledger.durability {
            bursar::config::Durability::Sync => Durability::Sync,
            bursar::config::Durability::Group => Durability::Group,
            bursar::config::Durability::Relaxed => Durability::Relaxed,
        };
        let budgets = Budgets::new(config.budgets.clone()).with_contracts(config.contract_budgets.clone());
        let budgets = Arc::new(budgets);
        let telemetry = Telemetry::new(&config.telemetry);
        let options = Options {
            durability,
            queue_entries_max: config.ledger.queue_entries_max,
            group_delay: config.ledger.group_delay,
            group_records_max: setup.group_records_max,
            bytes_max: config.ledger.bytes_max,
            observer: Some(Observers::new(&budgets, &telemetry)),
            ..Options::new(&machine.ledger())
        };
        let pricer = Arc::new(GatedPrices { gate: gate.clone(), prices: prices.clone() });
        let opened = match setup.machine {
            None => Ledger::open(options, clock.clone(), pricer),
            Some(_) => {
                let options = Options { segment_bytes: SMALL_SEGMENT, ..options };
                Ledger::open_simulated(&machine.disk, options, clock.clone(), pricer)
            }
        };
        let (ledger, _) = opened.unwrap();
        budgets.load(&ledger, clock.now()).unwrap();
        budgets.look_at_contracts(&ledger, &prices, clock.now()).unwrap();
        let app = App::new(config, ledger, prices, budgets, telemetry, clock.clone());
        let (provider, http2_provider) = (Provider::default(), Http2Provider::default());
        let issuer = setup.issuer.clone();
        let to_fakes = || to(&provider, &http2_provider, &issuer);
        let connector = setup.connector.clone().unwrap_or_else(to_fakes);
        let worker = Worker::new(&app, connector.clone());
        worker.start_sweeper();
        let (shutdown, ends) = watch::channel(Shutdown::No);
        tasks::start(refresh::tend(Arc::clone(&app), connector, ends));
        let gate = OpensAtEnd(gate);
        Self { provider, http2_provider, issuer, clock, app, worker, shutdown, gate, dir, setup }
    }

    /// The machine that it was put on, if the test has one.
    #[must_use]
    pub fn machine(&self) -> Option<&Machine> {
        self.setup.machine.as_ref()
    }

    /// A new connection to the sidecar.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.connect())
    }

    /// A new connection to the sidecar that speaks HTTP/2.
    pub async fn http2_client(&self) -> Http2Client {
        Http2Client::new(self.connect()).await
    }

    /// A new connection to the sidecar that speaks HTTP/2 with these settings, frame by frame.
    pub async fn frames(&self, settings: &[(u16, u32)]) -> Frames {
        Frames::client(self.connect(), settings).await
    }

    /// A new connection to the sidecar, as bytes.
    #[must_use]
    pub fn connect(&self) -> tokio::io::DuplexStream {
        self.connect_from(Ipv4Addr::LOCALHOST.into())
    }

    /// The same, from another machine.
    #[must_use]
    pub fn connect_from(&self, client: IpAddr) -> tokio::io::DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        tasks::start(Rc::clone(&self.worker).connection(theirs, client));
        ours
    }

    /// Reloads with these settings, and routes where they are told. What went wrong is told in words.
    pub fn reload(&self, routes: Option<&str>, settings: &str) -> Result<Applied, String> {
        let routes = routes.map_or_else(|| self.setup.routes.clone(), str::to_owned);
        let setup = Setup { routes, settings: settings.to_owned(), ..self.setup.clone() };
        let config = setup.config().map_err(|errors| errors.to_string())?;
        let newer = Newer { config, prices: PriceBook::builtin().unwrap() };
        reload::apply(&self.app, newer).map_err(|refused| refused.to_string())
    }

    /// From now on the ledger writes nothing.
    pub fn hold_ledger(&self) {
        self.gate.0.set(true);
    }

    /// The ledger goes on writing.
    pub fn release_ledger(&self) {
        self.gate.0.set(false);
    }

    /// Waits until everything that was handed to the ledger is booked, which a thread of its own does in real
    /// time: the paused clock stands still meanwhile, and no deadline passes.
    pub async fn settled(&self) {
        let ledger = self.app.ledger.clone();
        unhurried(tokio::task::spawn_blocking(move || ledger.checkpoint())).await.unwrap().unwrap();
    }

    /// The value of a sample on the metrics page.
    #[must_use]
    pub fn metric(&self, sample: &str) -> u64 {
        let page = self.app.metrics.page(&self.app.ledger.stats());
        let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// Ends the sidecar; what its ledger wrote stays in the directory as long as that is kept.
    pub async fn close(self) -> Rc<tempfile::TempDir> {
        let Self { provider, issuer, app, worker, shutdown, gate, dir, .. } = self;
        drop(gate);
        shutdown.send_replace(Shutdown::Now);
        worker.end_all();
        worker.settled().await;
        drop(worker);
        // Tasks of HTTP/2 streams and of upstream connections end when they see that nobody is left.
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(provider.unscripted(), 0, "the provider was asked more often than scripted");
        assert_eq!(issuer.unscripted(), 0, "the issuer was asked more often than scripted");
        app.counting.finish();
        app.ledger.clone().close().unwrap();
        drop(app);
        tokio::time::sleep(Duration::from_secs(1)).await;
        dir
    }

    /// The power goes: nothing that is under way is booked any more, and what was not synced is lost when it
    /// comes back.
    pub async fn lose_power(self) {
        let Self { app, worker, shutdown, gate, setup, .. } = self;
        setup.machine.expect("a machine").disk.power_off();
        drop(gate);
        shutdown.send_replace(Shutdown::Now);
        worker.end_all();
        worker.settled().await;
        drop(worker);
        tokio::time::sleep(Duration::from_millis(1)).await;
        app.counting.finish();
        // It says that it could not write, of which there is nobody to tell.
        let _ = app.ledger.clone().close();
        drop(app);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    /// Ends the sidecar and reads what its ledger holds.
    pub async fn records(self) -> Vec<StoredRecord> {
        let dir = self.close().await;
        let ledger = OfflineLedger::open(&dir.path().join("ledger")).unwrap();
        ledger.records(RecordRange::default()).map(Result::unwrap).collect()
    }

    /// Ends the sidecar and reads what its ledger holds, as the requests began: records whose tokens are
    /// counted come later than those that need none.
    pub async fn records_by_start(self) -> Vec<StoredRecord> {
        let mut records = self.records().await;
        records.sort_by_key(|stored| stored.record.started_at);
        records
    }

    /// Ends the sidecar and returns its only record.
    pub async fn record(self) -> UsageRecord {
        let mut records = self.records().await;
        assert_eq!(records.len(), 1, "one request leaves one record: {records:#?}");
        records.remove(0).record
    }
}

fn to(provider: &Provider, http2: &Http2Provider, issuer: &Provider) -> Connector {
    let (provider, http2, issuer) = (provider.clone(), http2.clone(), issuer.clone());
    Connector::Memory(Rc::new(move |origin| match origin.authority.host() {
        "h2.test" => Ok(http2.connect()),
        "issuer.test" => issuer.connect(),
        _ => provider.connect(),
    }))
}
