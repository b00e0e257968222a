//! The running program: what all workers share.
//!
//! Not here: the path of a request (`stack`), sockets (`listen`), commands (`cli`).

use crate::admin::metrics::Metrics;
use crate::budgets::Budgets;
use crate::clients::Clients;
use crate::config::Config;
use crate::count::Counting;
use crate::credentials::refusals::{Refusals, Refused};
use crate::failure::Failure;
use crate::guard::Limits;
use crate::layers::room::BodyRoom;
use crate::limits::Limiter;
use crate::rules::RuleBook;
use crate::telemetry::Telemetry;
use crate::webhooks::Webhooks;
use arc_swap::{ArcSwap, Guard};
use bursar_domain::event::Anomalies;
use bursar_domain::{Anomaly, Clock, Cost, CostStatus, Label, Timestamp, UsageRecord};
use bursar_ledger::{Health, Ledger};
use bursar_policies::price::{Ask, ClassCosts, PriceBook};
use bursar_policies::rule::Rule;
use std::sync::Arc;

/// What every worker and the admin API share.
#[derive(Debug)]
pub struct App {
    /// The ledger.
    pub ledger: Ledger,
    /// What things cost.
    pub prices: Arc<Prices>,
    /// What may be spent, and what was.
    pub budgets: Arc<Budgets>,
    /// How much may pass at a time.
    pub limits: Arc<Limiter>,
    /// What was refused lately for its credential, its identity or its access.
    pub refusals: Refusals,
    /// What is asked of each request, and what they did.
    rules: ArcSwap<RuleBook>,
    /// Counters.
    pub metrics: Metrics,
    /// What is told of settled exchanges.
    pub telemetry: Arc<Telemetry>,
    /// What was sent to those who are told of budgets.
    pub webhooks: Webhooks,
    /// What a request may be, as the guard wants it.
    pub guard_limits: Limits,
    /// The threads that count tokens.
    pub counting: Counting,
    /// Room for bodies that budgets must know whole.
    pub body_room: BodyRoom,
    /// Who has connections open.
    pub(crate) clients: Clients,
    /// The settings in force, whole: a reload puts others in their place.
    config: ArcSwap<Config>,
    clock: Arc<dyn Clock>,
    started_at: Timestamp,
}

impl App {
    /// Puts the parts together. `budgets` and `telemetry` observe `ledger`; the former knows what was spent.
    #[must_use]
    pub fn new(
        config: Config,
        ledger: Ledger,
        prices: Arc<Prices>,
        budgets: Arc<Budgets>,
        telemetry: Arc<Telemetry>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let limits = &config.server.limits;
        let guard_limits = Limits {
            head_bytes_max: limits.head_bytes,
            headers_max: limits.headers,
            target_bytes_max: limits.target_bytes,
            body_bytes_max: limits.body_bytes as u64,
            ..Limits::default()
        };
        let counting = Counting::new(config.counting.threads, config.counting.queue_entries_max);
        let limits = Arc::new(Limiter::new(config.limits.clone()));
        let rules = RuleBook::new(config.rules.clone());
        let body_room = BodyRoom::new(config.reserve_body_bytes);
        let metrics = Metrics::new();
        metrics.expect_providers(config.routes.providers());
        Arc::new(Self {
            config: ArcSwap::from_pointee(config),
            ledger,
            prices,
            budgets,
            limits,
            refusals: Refusals::default(),
            rules: ArcSwap::from_pointee(rules),
            metrics,
            telemetry,
            webhooks: Webhooks::default(),
            guard_limits,
            counting,
            body_room,
            clients: Clients::default(),
            started_at: clock.now(),
            clock,
        })
    }

    /// The settings in force. Whoever decides several things by them asks once.
    #[must_use]
    pub fn config(&self) -> Guard<Arc<Config>> {
        self.config.load()
    }

    /// From now on these settings are in force. Only [`crate::reload`] knows what else changes with them.
    pub(crate) fn set_config(&self, config: Config) {
        self.config.store(Arc::new(config));
        self.webhooks.configuration_changed();
    }

    /// Remembers a refusal for `why`, where nothing else does.
    pub(crate) fn remember(&self, failure: &Failure, reason: &'static str) {
        let (Some(standing), Some(id)) = (failure.kind.standing(), failure.request) else { return };
        let (rule, message) = (failure.kind.rule().cloned(), failure.kind.to_string());
        self.refusals.remember(standing, Refused { id, at: self.now(), rule, reason, message });
    }

    /// The rules in force. Whoever decides several things by them asks once.
    #[must_use]
    pub fn rules(&self) -> Guard<Arc<RuleBook>> {
        self.rules.load()
    }

    /// From now on these rules are in force.
    pub(crate) fn set_rules(&self, rules: Vec<Rule>) {
        let book = self.rules().followed_by(rules);
        self.rules.store(Arc::new(book));
    }

    /// Why the ledger takes no records now, if it does not.
    #[must_use]
    pub fn ledger_trouble(&self) -> Option<String> {
        match self.ledger.stats().health {
            Health::Healthy => None,
            Health::Degraded(reason) => Some(reason),
        }
    }

    /// When this process started, by the wall clock of then.
    #[must_use]
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// The wall clock.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// The price book, as the ledger asks it.
#[derive(Debug)]
pub struct Prices(ArcSwap<PriceBook>);

impl Prices {
    /// Wraps a book.
    #[must_use]
    pub fn new(book: PriceBook) -> Self {
        Self(ArcSwap::from_pointee(book))
    }

    /// The book in force.
    #[must_use]
    pub fn book(&self) -> Guard<Arc<PriceBook>> {
        self.0.load()
    }

    /// From now on this book prices.
    pub(crate) fn set_book(&self, book: PriceBook) {
        self.0.store(Arc::new(book));
    }
}

impl Prices {
    /// What the classes of a record's tokens cost by this book.
    pub(crate) fn class_costs(&self, record: &UsageRecord) -> Option<ClassCosts> {
        self.book().by_class(&ask(record))
    }
}

/// What a record tells about its price.
fn ask(record: &UsageRecord) -> Ask<'_> {
    Ask {
        provider: record.provider.as_str(),
        model_served: record.model_served.as_ref().map(Label::as_str),
        model_requested: record.model_requested.as_ref().map(Label::as_str),
        tier: record.tier.as_ref().map(Label::as_str),
        region: record.region.as_ref().map(Label::as_str),
        speed: None,
        at: record.started_at,
        usage: &record.usage,
        by_model: &record.by_model,
    }
}

impl bursar_ledger::Pricer for Prices {
    fn price(&self, record: &UsageRecord) -> Cost {
        let mut cost = self.book().price(&ask(record));
        note_unusable(&mut cost, record.anomalies);
        cost
    }
}

/// A count that could not be used is a part without a price.
pub(crate) fn note_unusable(cost: &mut Cost, anomalies: Anomalies) {
    let unusable = [Anomaly::InvalidCount, Anomaly::ImplausibleCount];
    if cost.status == CostStatus::Priced && unusable.iter().any(|a| anomalies.contains(*a)) {
        cost.status = CostStatus::PartlyPriced;
    }
}
