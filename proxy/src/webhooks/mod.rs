//! Telling others of budgets: signed events at thresholds, when a budget begins to refuse, and when its
//! window ends.
//!
//! Invariants
//! - The request path does nothing for it: a thread of its own looks at the budgets once in a second. Only a
//!   refusal is noted, once per budget and look.
//! - An event is told once, also across restarts and reloads; whoever hears it twice can tell by its id.
//! - What happened is on disk before it is sent the first time, and until the receiver took it.
//! - Every queue and every try is bounded; one receiver holds up no other. What is given up is counted.
//! - No log line shows a secret, or more of a URL than its host.
//!
//! | File | Owns |
//! |---|---|
//! | `told.rs` | what was told already |
//! | `event.rs` | what is said |
//! | `sign.rs` | the signature |
//! | `queue.rs` | what is tried when |
//! | `send.rs` | one try |
//! | `state.rs` | the file |
//!
//! Not here: where budgets stand (`budgets::looks`), which addresses are called (`upstream::address`).

mod event;
mod queue;
mod send;
mod sign;
mod state;
mod told;

pub(crate) use send::try_once;
pub(crate) use sign::key_of;
pub use state::FILE;

use crate::app::App;
use crate::budgets::{Look, Refusal, Turns};
use crate::config::{Config, EventKind, Webhook};
use crate::failure::chain;
use crate::tasks;
use crate::upstream::{Connector, TlsSetup};
use bursar_domain::{Label, Timestamp};
use bursar_policies::budget::window::Window;
use bursar_policies::budget::{Mode, Why};
use event::{Event, Teller};
use queue::{Follows, Tried};
use send::{SendError, send};
use state::State;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use told::{Sight, What};

/// How often budgets are looked at.
const ROUND: Duration = Duration::from_secs(1);
/// What only says that events arrived is written every so many rounds.
const ROUNDS_UNSAVED_MAX: u32 = 5;
/// How long after its end a window is looked at too: its last requests are settled then.
const LATE_MICROS: i64 = 15 * 60 * 1_000_000;
/// Longest time for what was never tried at the end.
const LAST: Duration = Duration::from_secs(3);
/// A refusal that belongs to no window is told once in this time.
const DAY_MICROS: i64 = 24 * 3_600 * 1_000_000;

/// What was sent, for everybody to see.
#[derive(Debug, Default)]
pub struct Webhooks {
    delivered: AtomicU64,
    failed: AtomicU64,
    given_up: AtomicU64,
    dropped: AtomicU64,
    waiting: AtomicU64,
    changed: Notify,
}

impl Webhooks {
    /// Other settings are in force.
    pub(crate) fn configuration_changed(&self) {
        self.changed.notify_one();
    }

    /// Lines of the metrics page.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut page =
            "# HELP bursar_webhook_deliveries Tries to send events of budgets: delivered, failed and \
                        tried again, given up; and events that gave way to newer ones.\n\
                        # TYPE bursar_webhook_deliveries counter\n"
                .to_owned();
        let all = [
            ("delivered", &self.delivered),
            ("failed", &self.failed),
            ("given_up", &self.given_up),
            ("dropped", &self.dropped),
        ];
        for (result, count) in all {
            let count = count.load(Ordering::Relaxed);
            page.push_str(&format!("bursar_webhook_deliveries_total{{result=\"{result}\"}} {count}\n"));
        }
        page.push_str("# HELP bursar_webhook_waiting Events that receivers do not have yet.\n");
        page.push_str("# TYPE bursar_webhook_waiting gauge\n");
        page.push_str(&format!("bursar_webhook_waiting {}\n", self.waiting.load(Ordering::Relaxed)));
        page
    }
}

/// The thread that tells.
#[derive(Debug)]
pub struct Telling {
    end: watch::Sender<bool>,
    /// Hears when all is kept. The thread itself may be held up by the look-up of a name.
    done: std::sync::mpsc::Receiver<()>,
}

impl Telling {
    /// Tells what is new, for some seconds at most. To be called before the ledger is closed.
    pub fn end(self) {
        self.end.send_replace(true);
        if self.done.recv().is_err() {
            tracing::error!("the thread that sends webhooks ended in a panic");
        }
    }
}

/// Starts to tell whom the configuration names, now or after a reload.
///
/// # Errors
/// No thread could be started.
pub fn start(app: &Arc<App>, tls: &TlsSetup) -> std::io::Result<Telling> {
    let (sender, end) = watch::channel(false);
    let (finished, done) = std::sync::mpsc::channel();
    let (app, tls) = (Arc::clone(app), tls.clone());
    let file = app.config().ledger.path.join(FILE);
    drop(tasks::thread("webhooks".to_owned(), move || async move {
        run(app, Connector::Network(tls), file, end).await;
        // Whoever does not listen does not wait either.
        let _ = finished.send(());
    })?);
    Ok(Telling { end: sender, done })
}

/// Tells until `end` says so. What was told is kept in `file`.
pub async fn run(app: Arc<App>, connector: Connector, file: PathBuf, mut end: watch::Receiver<bool>) {
    let (sender, mut results) = mpsc::unbounded_channel();
    let mut desk: Option<Desk> = None;
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*end.borrow() {
        if app.config().webhooks.is_empty() {
            app.budgets.keep_untold(false);
            // What was told stays in the file.
            if let Some(mut desk) = desk.take() {
                desk.save(true);
            }
            tokio::select! {
                () = app.webhooks.changed.notified() => {}
                _ = end.wait_for(|end| *end) => break,
            }
            continue;
        }
        let desk = desk.get_or_insert_with(|| Desk::open(&app, &connector, &file, &sender));
        tokio::select! {
            _ = rounds.tick() => desk.round(),
            Some(result) = results.recv() => desk.hear(result),
            _ = end.wait_for(|end| *end) => break,
        }
        desk.send_due();
    }
    if let Some(desk) = &mut desk {
        desk.finish(&mut results).await;
    }
}

/// What came of a try.
#[derive(Debug)]
struct Tell {
    webhook: Label,
    host: String,
    id: String,
    sent: Result<http::StatusCode, SendError>,
}

/// Where events are made and handed out.
struct Desk {
    app: Arc<App>,
    connector: Connector,
    file: PathBuf,
    results: mpsc::UnboundedSender<Tell>,
    state: State,
    /// Webhooks that are being told something, and those that failed the last time.
    busy: HashSet<Label>,
    failing: HashSet<Label>,
    /// The settings for which names were last compared.
    config: Option<Arc<Config>>,
    /// Something is not in the file: rounds since then.
    unsaved: Option<u32>,
    /// Something happened that is not in the file.
    has_news: bool,
    cannot_save: bool,
}

impl Desk {
    fn open(
        app: &Arc<App>,
        connector: &Connector,
        file: &Path,
        results: &mpsc::UnboundedSender<Tell>,
    ) -> Self {
        let state = State::load(file).unwrap_or_else(|error| {
            let error = chain(&error);
            tracing::error!(error, "what was told by webhooks is not known: some of it is told again");
            State::default()
        });
        app.budgets.keep_untold(true);
        Self {
            app: Arc::clone(app),
            connector: connector.clone(),
            file: file.to_owned(),
            results: results.clone(),
            state,
            busy: HashSet::new(),
            failing: HashSet::new(),
            config: None,
            unsaved: None,
            has_news: false,
            cannot_save: false,
        }
    }

    /// Looks at all budgets, and keeps what is new.
    fn round(&mut self) {
        let config = Arc::clone(&self.app.config());
        self.settings_in_force(&config);
        let now = self.app.now();
        let teller = Teller { ledger: self.app.ledger.id(), now };
        let app = Arc::clone(&self.app);
        app.budgets.look(now, &mut |look| self.see(look, &config, &teller));
        for refusal in app.budgets.take_untold() {
            self.refused(&refusal, &config, &teller);
        }
        self.save(false);
    }

    /// Forgets budgets and webhooks that are there no more.
    fn settings_in_force(&mut self, config: &Arc<Config>) {
        if self.config.as_ref().is_some_and(|known| Arc::ptr_eq(known, config)) {
            return;
        }
        self.config = Some(Arc::clone(config));
        let own = config.budgets.iter().map(|budget| budget.name.as_str());
        let on_contracts = config.contract_budgets.iter().map(|budget| budget.name.as_str());
        self.state.told.retain(&own.chain(on_contracts).collect());
        let names: Vec<&str> = config.webhooks.iter().map(|webhook| webhook.name.as_str()).collect();
        let dropped = self.state.waiting.retain(&names);
        if dropped > 0 {
            tracing::warn!(
                dropped,
                "events that waited for webhooks that are configured no more were dropped"
            );
            self.app.webhooks.dropped.fetch_add(dropped as u64, Ordering::Relaxed);
        }
        self.failing.retain(|name| names.contains(&name.as_str()));
        self.unsaved.get_or_insert(0);
    }

    fn see(&mut self, look: &Look<'_>, config: &Config, teller: &Teller) {
        self.shares(look, config, teller);
        let Turns::At { start } = look.turns else { return };
        let hears_windows = config.webhooks.iter().any(|webhook| webhook.events.contains(&EventKind::Window));
        if hears_windows && look.contract.is_none() {
            let (ended, is_new) = self.state.told.turned(look.budget.name.as_str(), start);
            self.has_news |= is_new;
            if let Some(ended) = ended
                && let Some((before, standing)) = self.app.budgets.look_back(look, teller.now)
                && before == ended
            {
                let event = teller.window(&look.with(standing, ended), ended);
                self.tell(config, EventKind::Window, look, &event);
            }
        }
    }

    /// Tells which shares of a budget are spent, in its window and in the one that has just ended.
    fn shares(&mut self, look: &Look<'_>, config: &Config, teller: &Teller) {
        if let Turns::At { start } = look.turns
            && teller.now.micros().saturating_sub(start) < LATE_MICROS
            && let Some((before, standing)) = self.app.budgets.look_back(look, teller.now)
        {
            self.shares_of(&look.with(standing, before), config, teller);
        }
        self.shares_of(look, config, teller);
    }

    fn shares_of(&mut self, look: &Look<'_>, config: &Config, teller: &Teller) {
        let budget = look.budget;
        // All of it is told even where nobody said so.
        let all = (budget.thresholds.last() != Some(&100)).then_some(100);
        for percent in budget.thresholds.iter().copied().chain(all) {
            let sight = Sight {
                turns: look.turns,
                limit: look.standing.limit,
                is_so: look.has_reached(percent),
                now: teller.now.micros(),
            };
            let (window, is_new) =
                self.state.told.news(budget.name.as_str(), &What::Threshold(percent), sight);
            self.has_news |= is_new;
            if let Some(window) = window {
                let event = teller.threshold(look, percent, window);
                self.tell(config, EventKind::Threshold, look, &event);
            }
        }
    }

    fn refused(&mut self, refusal: &Refusal, config: &Config, teller: &Teller) {
        let standing = &refusal.denial.standing;
        let name = &standing.name;
        let rolls = config.budgets.iter().find(|budget| budget.name == *name).and_then(|budget| match budget
            .window
        {
            Window::Rolling { micros } => Some(micros),
            _ => None,
        });
        let turns = match (refusal.denial.why, rolls) {
            (Why::NoContract(_), _) => Turns::Rolling { micros: DAY_MICROS },
            (_, Some(micros)) => Turns::Rolling { micros },
            (_, None) => Turns::At { start: standing.span.start },
        };
        let what = What::Refusing(refusal.reason().to_owned());
        let sight = Sight { turns, limit: standing.limit, is_so: true, now: teller.now.micros() };
        let (window, is_new) = self.state.told.news(name.as_str(), &what, sight);
        self.has_news |= is_new;
        if let Some(window) = window {
            let event = teller.refusing(refusal, &what, window);
            self.put(config, EventKind::Refusing, (name, Mode::Hard), &event);
        }
    }

    fn tell(&mut self, config: &Config, kind: EventKind, look: &Look<'_>, event: &Event) {
        self.put(config, kind, (&look.budget.name, look.budget.mode), event);
    }

    /// Puts an event into the queues of those who want to hear it.
    fn put(&mut self, config: &Config, kind: EventKind, (budget, mode): (&Label, Mode), event: &Event) {
        for webhook in config.webhooks.iter().filter(|webhook| hears(webhook, kind, budget, mode)) {
            let dropped = self.state.waiting.push(&webhook.name, event);
            if dropped > 0 {
                let name = webhook.name.as_str();
                tracing::error!(
                    webhook = name,
                    dropped,
                    "too much waits for a webhook: the oldest is dropped"
                );
                self.app.webhooks.dropped.fetch_add(dropped, Ordering::Relaxed);
            }
        }
        self.has_news = true;
    }

    /// Writes what is not in the file: news at once, the rest now and then.
    fn save(&mut self, is_last: bool) {
        self.app.webhooks.waiting.store(self.state.waiting.len() as u64, Ordering::Relaxed);
        let rounds = self.unsaved.as_ref().copied();
        let is_due = self.has_news || rounds.is_some_and(|rounds| is_last || rounds >= ROUNDS_UNSAVED_MAX);
        if !is_due {
            self.unsaved = rounds.map(|rounds| rounds.saturating_add(1));
            return;
        }
        match self.state.save(&self.file) {
            Ok(()) => {
                (self.unsaved, self.has_news, self.cannot_save) = (None, false, false);
            }
            Err(error) => {
                // It is tried again in some rounds; what is sent meanwhile may be sent twice after a restart.
                (self.unsaved, self.has_news) = (Some(0), false);
                if !std::mem::replace(&mut self.cannot_save, true) {
                    let file = self.file.display();
                    tracing::error!(%error, %file, "what webhooks told cannot be kept");
                }
            }
        }
    }

    /// Sends to every webhook that is idle what is due for it.
    fn send_due(&mut self) {
        let config = Arc::clone(&self.app.config());
        let now = Instant::now();
        for webhook in &config.webhooks {
            if self.busy.contains(&webhook.name) {
                continue;
            }
            if let Some(event) = self.state.waiting.next(&webhook.name, now) {
                self.busy.insert(webhook.name.clone());
                self.start(webhook.clone(), event);
            }
        }
    }

    fn start(&self, webhook: Webhook, event: Event) {
        let (connector, results) = (self.connector.clone(), self.results.clone());
        let now: Timestamp = self.app.now();
        tasks::start(async move {
            let sent = send(&connector, &webhook, &event, now).await;
            let host = webhook.url.to_string();
            // Nobody hears it at the very end.
            let _ = results.send(Tell { webhook: webhook.name, host, id: event.id, sent });
        });
    }

    /// Takes in what came of a try.
    fn hear(&mut self, result: Tell) {
        let Tell { webhook, host, id, sent } = result;
        self.busy.remove(&webhook);
        let tried = match &sent {
            Ok(_) => Tried::Taken,
            Err(error) => error.tried(),
        };
        let follows = self.state.waiting.tried(&webhook, &id, tried, Instant::now());
        self.unsaved.get_or_insert(0);
        let name = webhook.as_str();
        let counters = &self.app.webhooks;
        match (&sent, follows) {
            (Ok(status), _) => {
                counters.delivered.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(webhook = name, host, event = id, %status, "an event was delivered");
                if self.failing.remove(&webhook) {
                    tracing::info!(webhook = name, host, "a webhook takes events again");
                }
            }
            (Err(error), Follows::GivenUp) => {
                counters.given_up.fetch_add(1, Ordering::Relaxed);
                let error = chain(error);
                tracing::error!(webhook = name, host, event = id, error, "an event is given up");
                self.failing.insert(webhook);
            }
            (Err(error), _) => {
                counters.failed.fetch_add(1, Ordering::Relaxed);
                if self.failing.insert(webhook.clone()) {
                    let error = chain(error);
                    tracing::warn!(
                        webhook = name,
                        host,
                        event = id,
                        error,
                        "a webhook fails and is tried again"
                    );
                }
            }
        }
        counters.waiting.store(self.state.waiting.len() as u64, Ordering::Relaxed);
    }

    /// A last look, and some seconds for what was never tried; the rest waits in the file.
    async fn finish(&mut self, results: &mut mpsc::UnboundedReceiver<Tell>) {
        if let Err(error) = self.app.ledger.checkpoint() {
            tracing::debug!(%error, "the last look at budgets may lack some records");
        }
        self.round();
        let last = async {
            while self.state.waiting.has_fresh() {
                self.send_due();
                match results.recv().await {
                    Some(result) => self.hear(result),
                    None => return,
                }
            }
        };
        if tokio::time::timeout(LAST, last).await.is_err() {
            tracing::warn!(
                "some events could not be delivered before the end: they are tried again at a start"
            );
        }
        self.save(true);
    }
}

/// Whether a webhook wants to hear this of a budget.
fn hears(webhook: &Webhook, kind: EventKind, budget: &Label, mode: Mode) -> bool {
    let is_named = match &webhook.budgets {
        Some(names) => names.contains(budget),
        None => mode != Mode::Shadow,
    };
    is_named && webhook.events.contains(&kind)
}
