//! From what was written to a position: every mistake at once, each with key, value and remedy.
//!
//! Invariants
//! - An entry with a mistake gives no position.
//!
//! Not here: mistakes that need other facts, such as an unknown index (`cost::legs`) or an
//! overlapping version (`lifecycle::Portfolio`).

use super::entry::{
    CommitmentEntry, DesignationEntry, Entry, FeeEntry, FxEntry, LimitsEntry, MarginEntry, PremiumEntry,
    Volumes,
};
use super::{
    AllocationRule, Commitment, ContractClass, Designation, Economics, EffectivenessTerms, Fee, FxRule,
    FxTerms, Group, Identity, Interval, Kind, Limits, MarginTerms, MonthlyVolumes, Named, Overage, Position,
    Premium, Recognition, Selector, SettlementRule, Shortfall, Strikes, Terms, Timing, Underlying,
};
use crate::exact::{Decimal, Ratio};
use crate::hedge::calendar::{Month, Window, parse_day};
use crate::hedge::commitment::Capacity;
use crate::hedge::margin::LimitKind;
use crate::hedge::market::{Fallback, IndexKey, Pair, UNLISTED};
use crate::hedge::payoff::Side;
use crate::hedge::profile::Unit;
use crate::price::overlay::Decimal as Written;
use bursar_domain::{Currency, Label, Money};
use jiff::civil::Date;
use std::collections::{BTreeMap, BTreeSet};

/// One mistake in an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// A term that the kind needs is not there.
    #[error("{key} is missing: {remedy}")]
    Missing {
        /// The field.
        key: String,
        /// What to write.
        remedy: String,
    },
    /// A value that cannot be.
    #[error("{key}: {value:?} {remedy}")]
    Bad {
        /// The field.
        key: String,
        /// What it says.
        value: String,
        /// What is wrong and what to write instead.
        remedy: String,
    },
    /// Two fields that contradict each other.
    #[error("{keys}: {remedy}")]
    Contradiction {
        /// The fields.
        keys: String,
        /// What is wrong and what to write instead.
        remedy: String,
    },
}

/// Collects mistakes while fields are read.
#[derive(Default)]
struct Reader {
    errors: Vec<EntryError>,
}

impl Entry {
    /// The position, or every mistake.
    pub fn check(&self) -> Result<Position, Vec<EntryError>> {
        let mut reader = Reader::default();
        let terms = reader.terms(self);
        match terms {
            Some(terms) if reader.errors.is_empty() => Ok(Position { terms }),
            _ => Err(reader.errors),
        }
    }
}

impl Reader {
    // === kinds of fields ===

    fn bad(&mut self, key: &str, value: &str, remedy: &str) {
        let value = value.chars().take(60).collect();
        self.errors.push(EntryError::Bad { key: key.to_owned(), value, remedy: remedy.to_owned() });
    }

    fn missing(&mut self, key: &str, remedy: &str) {
        self.errors.push(EntryError::Missing { key: key.to_owned(), remedy: remedy.to_owned() });
    }

    fn contradiction(&mut self, keys: &str, remedy: &str) {
        self.errors.push(EntryError::Contradiction { keys: keys.to_owned(), remedy: remedy.to_owned() });
    }

    fn label(&mut self, key: &str, text: Option<&String>) -> Option<Label> {
        let text = text?;
        Label::new(text)
            .map_err(|error| self.bad(key, text, &format!("is not usable as a name: {error}")))
            .ok()
    }

    fn labels(&mut self, key: &str, texts: &[String]) -> BTreeSet<Label> {
        texts.iter().filter_map(|text| self.label(key, Some(text))).collect()
    }

    fn decimal(&mut self, key: &str, written: Option<&Written>) -> Option<Decimal> {
        let text = written?.text();
        Decimal::parse(text)
            .map_err(|_| self.bad(key, text, "is not a plain decimal with at most 12 decimals"))
            .ok()
    }

    fn positive(&mut self, key: &str, written: Option<&Written>) -> Option<Decimal> {
        let value = self.decimal(key, written)?;
        if !value.is_positive() {
            self.bad(key, &value.to_string(), "must be above zero; the side says which way it goes");
            return None;
        }
        Some(value)
    }

    fn percent(&mut self, key: &str, written: Option<&Written>) -> Option<Decimal> {
        let value = self.decimal(key, written)?;
        if value.is_negative() || value > Decimal::whole(100) {
            self.bad(key, &value.to_string(), "must be from 0 to 100");
            return None;
        }
        Some(value)
    }

    fn day(&mut self, key: &str, text: Option<&String>) -> Option<Date> {
        let text = text?;
        parse_day(text).map_err(|_| self.bad(key, text, "is not a day such as 2026-09-30")).ok()
    }

    fn currency(&mut self, key: &str, text: Option<&String>, default: Currency) -> Currency {
        let Some(text) = text else { return default };
        match Currency::parse(text) {
            Ok(found) if found.is_listed() => return found,
            Ok(_) => self.bad(key, text, UNLISTED),
            Err(_) => self.bad(key, text, "is not a currency code of three capital letters"),
        }
        default
    }

    fn choice<T: Named>(&mut self, key: &str, text: Option<&String>) -> Option<T> {
        let text = text?;
        let found = T::all().iter().find(|choice| choice.text() == text).copied();
        if found.is_none() {
            let names: Vec<&str> = T::all().iter().map(|choice| choice.text()).collect();
            self.bad(key, text, &format!("is unknown; use one of: {}", names.join(", ")));
        }
        found
    }

    // === groups of fields ===

    fn terms(&mut self, entry: &Entry) -> Option<Terms> {
        let kind = self.choice("kind", entry.kind.as_ref());
        if entry.kind.is_none() {
            self.missing("kind", "name one of the fourteen kinds, such as swap_fixed_float");
        }
        let identity = self.identity(entry);
        let timing = self.timing(entry, kind);
        let trade_date = timing.as_ref().map(|timing| timing.trade_date);
        let first_day = timing.as_ref().map(|timing| timing.effective.from().min(timing.trade_date));
        let economics = self.economics(entry, kind, trade_date);
        let underlying = self.underlying(entry, kind);
        let fx = entry.fx.as_ref().and_then(|fx| self.fx(fx));
        let commitment = self.commitment(entry.commitment.as_ref(), kind);
        let settlement = economics.as_ref().map_or(Currency::USD, |economics| economics.settlement_currency);
        let margin = entry.margin.as_ref().and_then(|margin| self.margin(margin, settlement));
        let designation = entry.designation.as_ref().and_then(|written| self.designation(written, first_day));
        let limits = entry.limits.as_ref().map(|limits| self.limits(limits)).unwrap_or_default();
        let (kind, economics) = (kind?, economics?);
        self.agreement(kind, &economics, fx.as_ref(), commitment.as_ref());
        Some(Terms {
            identity: identity?,
            kind,
            economics,
            underlying,
            timing: timing?,
            fx,
            commitment,
            margin,
            designation,
            limits,
        })
    }

    fn identity(&mut self, entry: &Entry) -> Option<Identity> {
        let id = self.label("position_id", entry.position_id.as_ref());
        if entry.position_id.is_none() {
            self.missing("position_id", "give the position a name of its own");
        }
        let version = entry.version.unwrap_or(1);
        if version == 0 {
            self.bad("version", "0", "must count from 1");
        }
        if entry.supersedes.is_some_and(|old| old >= version) {
            self.contradiction("version, supersedes", "a version supersedes an earlier one");
        }
        let contract_month =
            entry.contract_month.as_ref().and_then(|text| self.month("contract_month", text));
        let mut label = |key, text: &Option<String>| self.label(key, text.as_ref());
        Some(Identity {
            version,
            supersedes: entry.supersedes,
            book: label("book", &entry.book).unwrap_or_else(|| Label::fixed("main")),
            legal_entity: label("legal_entity", &entry.legal_entity),
            counterparty: label("counterparty", &entry.counterparty),
            venue: label("venue", &entry.venue),
            symbol: label("symbol", &entry.symbol),
            contract_month,
            clearing: label("clearing", &entry.clearing),
            document_hash: label("document_hash", &entry.document_hash),
            created_by: label("created_by", &entry.created_by),
            id: id?,
        })
    }

    fn month(&mut self, key: &str, text: &str) -> Option<Month> {
        Month::parse(text).map_err(|_| self.bad(key, text, "is not a month such as 2026-09")).ok()
    }

    fn timing(&mut self, entry: &Entry, kind: Option<Kind>) -> Option<Timing> {
        let trade_date = self.day("trade_date", entry.trade_date.as_ref());
        if entry.trade_date.is_none() {
            self.missing("trade_date", "write the day of the trade, such as 2026-08-11");
        }
        let effective = self.effective(entry);
        let last_trade = self.day("last_trade", entry.last_trade.as_ref());
        let rule = self.choice("settlement_rule", entry.settlement_rule.as_ref());
        let default = match kind.map(Kind::group) {
            Some(Group::Units | Group::Pool) => SettlementRule::Physical,
            Some(Group::Currency) => SettlementRule::Point,
            _ if kind == Some(Kind::Perpetual) => SettlementRule::ContinuousMtm,
            _ => SettlementRule::AverageBusiness,
        };
        let settlement = rule.unwrap_or(default);
        let delivered = matches!(kind.map(Kind::group), Some(Group::Units | Group::Pool));
        if kind.is_some() && delivered != (settlement == SettlementRule::Physical) {
            let remedy = if delivered {
                "this kind is delivered: the rule is physical"
            } else {
                "this kind settles in cash: use point, average_business, average_calendar or continuous_mtm"
            };
            self.bad("settlement_rule", settlement.name(), remedy);
        }
        let effective = effective?;
        self.dates(entry, effective, trade_date, last_trade);
        let volumes = self.volumes(entry, effective, kind);
        Some(Timing { trade_date: trade_date?, effective, volumes: volumes?, last_trade, settlement })
    }

    /// Days that contradict the days that the position covers.
    fn dates(&mut self, entry: &Entry, effective: Window, trade: Option<Date>, last_trade: Option<Date>) {
        let (from, until) = (effective.from(), effective.until());
        if let Some(trade) = trade.filter(|trade| *trade >= until) {
            let remedy = format!("is after the last day that the position covers, {}", effective.last());
            self.bad("trade_date", &trade.to_string(), &remedy);
        }
        if let (Some(last), Some(trade)) = (last_trade, trade)
            && last < trade
        {
            self.bad("last_trade", &last.to_string(), &format!("is before the trade of {trade}"));
        }
        let month = entry.contract_month.as_ref().and_then(|text| Month::parse(text).ok());
        let inside = month.and_then(|month| month.window().ok()).map(|month| month.overlap(effective));
        if inside == Some(None) {
            let remedy = format!("the contract month lies outside the days from {from} until {until}");
            self.contradiction("contract_month, effective_from, effective_until", &remedy);
        }
        let expiry = entry.commitment.as_ref().and_then(|written| written.expiry.as_ref());
        let expiry = expiry.and_then(|text| parse_day(text).ok());
        if let Some(expiry) = expiry.filter(|expiry| *expiry < from || *expiry >= until) {
            let remedy = format!(
                "lies outside the days from {from} until {until}: what is left lapses on the expiry, or else \
                 on the last day"
            );
            self.bad("commitment.expiry", &expiry.to_string(), &remedy);
        }
    }

    fn effective(&mut self, entry: &Entry) -> Option<Window> {
        let from = self.day("effective_from", entry.effective_from.as_ref());
        let until = self.day("effective_until", entry.effective_until.as_ref());
        if entry.effective_from.is_none() && entry.effective_until.is_none() {
            if let Some(month) = entry.contract_month.as_ref().and_then(|text| Month::parse(text).ok()) {
                return month.window().ok();
            }
            let remedy =
                "write effective_from and effective_until (the first day outside), or contract_month";
            self.missing("effective_from", remedy);
            return None;
        }
        if entry.effective_from.is_none() {
            self.missing("effective_from", "write the first day that the position covers");
        }
        if entry.effective_until.is_none() {
            self.missing("effective_until", "write the first day that it no longer covers");
        }
        let (from, until) = (from?, until?);
        let window = Window::new(from, until);
        window.map_err(|error| self.contradiction("effective_from, effective_until", &error.to_string())).ok()
    }

    fn volumes(&mut self, entry: &Entry, effective: Window, kind: Option<Kind>) -> Option<MonthlyVolumes> {
        match &entry.volumes {
            None if effective.months().count() == 1 || kind == Some(Kind::ProvisionedThroughput) => {
                Some(MonthlyVolumes::EachMonth)
            }
            None if kind.is_some_and(|kind| kind.group() == Group::Pool || kind == Kind::Voucher) => {
                Some(MonthlyVolumes::Spread)
            }
            None => {
                let remedy = "the window has several months: write each_month, spread, or lots by month";
                self.missing("volumes", remedy);
                None
            }
            Some(Volumes::Rule(rule)) => match rule.as_str() {
                "each_month" => Some(MonthlyVolumes::EachMonth),
                "spread" => Some(MonthlyVolumes::Spread),
                other => {
                    self.bad("volumes", other, "is unknown; use each_month, spread, or lots by month");
                    None
                }
            },
            Some(Volumes::Profile(written)) => self.profile(written, effective),
        }
    }

    fn profile(&mut self, written: &BTreeMap<String, Written>, effective: Window) -> Option<MonthlyVolumes> {
        let mut lots = BTreeMap::new();
        for (text, quantity) in written {
            let key = format!("volumes.{text}");
            let month = self.month(&key, text);
            let quantity = self.decimal(&key, Some(quantity));
            if let Some(negative) = quantity.filter(|quantity| quantity.is_negative()) {
                self.bad(
                    &key,
                    &negative.to_string(),
                    "must not be negative; the side says which way it goes",
                );
            }
            let inside =
                month.and_then(|month| month.window().ok()).and_then(|month| month.overlap(effective));
            if month.is_some() && inside.is_none() {
                self.bad(&key, text, "lies outside the effective window");
            }
            if let (Some(month), Some(quantity)) = (month, quantity) {
                lots.insert(month, quantity);
            }
        }
        if written.is_empty()
            || (lots.len() == written.len() && lots.values().all(|lots| *lots == Decimal::ZERO))
        {
            let remedy = "no month has any lots, so the position covers nothing: write lots by month";
            self.contradiction("volumes", remedy);
        }
        Some(MonthlyVolumes::Profile(lots))
    }

    fn economics(
        &mut self,
        entry: &Entry,
        kind: Option<Kind>,
        trade_date: Option<Date>,
    ) -> Option<Economics> {
        let price_currency = self.currency("price_currency", entry.price_currency.as_ref(), Currency::USD);
        let settlement_currency =
            self.currency("settlement_currency", entry.settlement_currency.as_ref(), price_currency);
        let profile = matches!(entry.volumes, Some(Volumes::Profile(_)));
        let quantity = self.positive("quantity", entry.quantity.as_ref());
        if entry.quantity.is_none() && !profile {
            self.missing("quantity", "write lots or units");
        }
        let unit = entry.unit.as_ref().and_then(|text| {
            Unit::parse(text).or_else(|| {
                self.bad("unit", text, "is unknown; use Mtok, MSIT, SIT, GPU-h, PTU-h or a currency");
                None
            })
        });
        if entry.unit.is_none() {
            self.missing("unit", "write Mtok, MSIT, SIT, GPU-h, PTU-h or a currency");
        }
        let side = self.side(entry.side.as_ref());
        if let Some(kind) = kind.filter(|kind| matches!(kind.group(), Group::Units | Group::Pool))
            && side == Side::Short
        {
            let text = entry.side.as_deref().unwrap_or_default();
            self.bad("side", text, &format!("is not the side of a {kind}: whoever uses it holds it, long"));
        }
        let fixed_price = self.positive("fixed_price", entry.fixed_price.as_ref());
        let strikes = Strikes {
            cap: self.positive("strikes.cap", entry.strikes.cap.as_ref()),
            floor: self.positive("strikes.floor", entry.strikes.floor.as_ref()),
        };
        if let Some(kind) = kind {
            self.prices(kind, entry);
        }
        if let (Some(cap), Some(floor)) = (strikes.cap, strikes.floor)
            && floor > cap
        {
            self.contradiction("strikes", "the floor lies above the cap");
        }
        let premium = entry.premium.as_ref();
        let premium = premium.and_then(|p| self.premium(p, settlement_currency, trade_date));
        let fees = entry.fees.iter().filter_map(|fee| self.fee(fee, settlement_currency)).collect();
        let multiplier = self.positive("multiplier", entry.multiplier.as_ref());
        let tick = self.positive("tick", entry.tick.as_ref());
        self.on_tick(fixed_price, tick);
        Some(Economics {
            side,
            quantity: if profile { quantity.unwrap_or(Decimal::ZERO) } else { quantity? },
            multiplier: multiplier.unwrap_or(Decimal::ONE),
            unit: unit?,
            fixed_price,
            strikes,
            tick,
            premium,
            fees,
            price_currency,
            settlement_currency,
        })
    }

    fn on_tick(&mut self, price: Option<Decimal>, tick: Option<Decimal>) {
        if let (Some(price), Some(tick)) = (price, tick)
            && price.pico().checked_rem(tick.pico()) != Some(0)
        {
            let remedy = format!("is no multiple of the tick {tick}");
            self.bad("fixed_price", &price.to_string(), &remedy);
        }
    }

    fn side(&mut self, text: Option<&String>) -> Side {
        match text.map(String::as_str) {
            None | Some("long" | "pay_fixed" | "buy") => Side::Long,
            Some("short" | "receive_fixed" | "sell") => Side::Short,
            Some(other) => {
                self.bad("side", other, "is unknown; use long, short, pay_fixed, receive_fixed, buy or sell");
                Side::Long
            }
        }
    }

    /// Prices that a kind needs and those that it cannot have.
    fn prices(&mut self, kind: Kind, entry: &Entry) {
        let needs_fixed = !matches!(
            kind,
            Kind::Cap | Kind::Floor | Kind::Collar | Kind::Binary | Kind::CommitSpend | Kind::PrepaidCredit
        );
        let needs_cap = matches!(kind, Kind::Cap | Kind::Collar | Kind::Binary);
        let needs_floor = matches!(kind, Kind::Floor | Kind::Collar);
        for (key, needed, there) in [
            ("fixed_price", needs_fixed, entry.fixed_price.is_some()),
            ("strikes.cap", needs_cap, entry.strikes.cap.is_some()),
            ("strikes.floor", needs_floor, entry.strikes.floor.is_some()),
        ] {
            if needed && !there {
                self.missing(key, &format!("a {kind} has one"));
            }
            if there && !needed {
                self.contradiction(key, &format!("a {kind} has none"));
            }
        }
    }

    fn premium(&mut self, written: &PremiumEntry, settled: Currency, trade: Option<Date>) -> Option<Premium> {
        let amount = self.decimal("premium.amount", Some(&written.amount))?;
        let currency = self.currency("premium.currency", written.currency.as_ref(), settled);
        let rule = self.choice("premium.recognition", written.recognition.as_ref());
        Some(Premium {
            amount: Money::from_pico(currency, amount.pico()),
            pay_date: self.day("premium.pay_date", written.pay_date.as_ref()).or(trade)?,
            recognition: rule.unwrap_or(Recognition::Paid),
        })
    }

    fn fee(&mut self, written: &FeeEntry, settled: Currency) -> Option<Fee> {
        let event = self.choice("fees.event", Some(&written.event));
        let amount = self.decimal("fees.amount", Some(&written.amount))?;
        let currency = self.currency("fees.currency", written.currency.as_ref(), settled);
        Some(Fee { event: event?, amount: Money::from_pico(currency, amount.pico()) })
    }

    fn underlying(&mut self, entry: &Entry, kind: Option<Kind>) -> Option<Underlying> {
        let needed = matches!(kind.map(Kind::group), Some(Group::Cash | Group::Uncounted));
        if needed && entry.index_id.is_none() {
            self.missing("index_id", "name the index that it settles against");
        }
        let id = self.label("index_id", entry.index_id.as_ref())?;
        let fallback = match entry.fallback.as_deref() {
            None | Some("fail") => Fallback::Fail,
            Some("last_published") => Fallback::LastPublished,
            Some("interpolate") => Fallback::Interpolate,
            Some(other) => {
                self.bad("fallback", other, "is unknown; use last_published, interpolate or fail");
                Fallback::Fail
            }
        };
        if let Some(places) = entry.rounding_places.filter(|places| *places > 12) {
            self.bad("rounding_places", &places.to_string(), "is more than 12");
        }
        Some(Underlying {
            index: IndexKey { id, version: entry.index_version.unwrap_or(1) },
            geography: self.label("geography", entry.geography.as_ref()),
            model_class: self.label("model_class", entry.model_class.as_ref()),
            token_class: self.choice("token_class", entry.token_class.as_ref()),
            fixing_time: self.label("fixing_time", entry.fixing_time.as_ref()),
            rounding_places: entry.rounding_places,
            fallback,
        })
    }

    fn fx(&mut self, written: &FxEntry) -> Option<FxTerms> {
        let pair = Pair::parse(&written.pair)
            .map_err(|_| self.bad("fx.pair", &written.pair, "is not a pair such as USD/CNY"))
            .ok();
        let rule = self.choice("fx.rule", written.rule.as_ref());
        let source = self.label("fx.source", written.source.as_ref());
        Some(FxTerms { pair: pair?, source, rule: rule.unwrap_or(FxRule::SettlementDate) })
    }

    fn commitment(&mut self, written: Option<&CommitmentEntry>, kind: Option<Kind>) -> Option<Commitment> {
        let kind = kind?;
        if !matches!(kind.group(), Group::Units | Group::Pool) {
            if written.is_some() {
                self.contradiction("commitment", &format!("a {kind} settles in cash and commits to nothing"));
            }
            return None;
        }
        let nothing = CommitmentEntry::default();
        let written = written.unwrap_or(&nothing);
        let fulfilment = written.fulfilment_interval.as_ref();
        let fulfilment = self.choice("commitment.fulfilment_interval", fulfilment);
        let default = match kind {
            Kind::ForwardPhysical | Kind::CommitUsage | Kind::ProvisionedThroughput => Interval::Month,
            _ => Interval::Term,
        };
        let stands_long = matches!(kind.group(), Group::Pool) || kind == Kind::Voucher;
        let fulfilment = fulfilment.unwrap_or(default);
        if stands_long && fulfilment != Interval::Term {
            self.bad(
                "commitment.fulfilment_interval",
                fulfilment.name(),
                "a balance stands for the whole term",
            );
        }
        let payment = written.payment_interval.as_ref();
        let payment = self.choice("commitment.payment_interval", payment);
        let overage = self.choice("commitment.overage", written.overage.as_ref());
        let shortfall = self.choice("commitment.shortfall", written.shortfall.as_ref());
        let owner = self.label("commitment.owner", written.owner.as_ref());
        if shortfall == Some(Shortfall::Owner) && owner.is_none() {
            self.missing("commitment.owner", "the shortfall goes to the owner: name the team");
        }
        let upfront = self.percent("commitment.upfront_percent", written.upfront_percent.as_ref());
        let benefit = self.percent("commitment.benefit_percent", written.benefit_percent.as_ref());
        Some(Commitment {
            category: self.label("commitment.category", written.category.as_ref()),
            model: self.label("commitment.model", written.model.as_ref()),
            fulfilment,
            upfront_percent: upfront.unwrap_or(Decimal::ZERO),
            payment_interval: payment,
            overage: overage.unwrap_or(Overage::Spot),
            shortfall: shortfall.unwrap_or(Shortfall::Residual),
            owner,
            expiry: self.day("commitment.expiry", written.expiry.as_ref()),
            benefit: benefit
                .and_then(|percent| percent.over(Decimal::whole(100)).ok())
                .unwrap_or(Ratio::ZERO),
            capacity: self.capacity(written, kind),
        })
    }

    fn capacity(&mut self, written: &CommitmentEntry, kind: Kind) -> Option<Capacity> {
        let Some(capacity) = &written.capacity else {
            if kind == Kind::ProvisionedThroughput {
                let remedy = "write tokens_per_minute of one unit, and output_weight";
                self.missing("commitment.capacity", remedy);
            }
            return None;
        };
        let weight = self.positive("commitment.capacity.output_weight", capacity.output_weight.as_ref());
        let tpm =
            self.positive("commitment.capacity.tokens_per_minute", Some(&capacity.tokens_per_minute))?;
        let output_weight = weight.unwrap_or(Decimal::ONE);
        Some(Capacity { units: Decimal::ONE, tokens_per_minute: tpm, output_weight })
    }

    fn margin(&mut self, written: &MarginEntry, settled: Currency) -> Option<MarginTerms> {
        let currency = self.currency("margin.currency", written.currency.as_ref(), settled);
        let initial = self.positive("margin.initial", Some(&written.initial));
        let ratio = self.positive("margin.maintenance_ratio", Some(&written.maintenance_ratio));
        if let Some(over) = ratio.filter(|ratio| *ratio > Decimal::ONE) {
            self.bad("margin.maintenance_ratio", &over.to_string(), "is above 1");
        }
        let threshold = self.decimal("margin.threshold", written.threshold.as_ref());
        if let Some(negative) = threshold.filter(|threshold| threshold.is_negative()) {
            self.bad("margin.threshold", &negative.to_string(), "must not be negative");
        }
        Some(MarginTerms {
            initial: Money::from_pico(currency, initial?.pico()),
            maintenance_ratio: ratio?,
            threshold: threshold.map(|threshold| Money::from_pico(currency, threshold.pico())),
        })
    }

    fn designation(&mut self, written: &DesignationEntry, first_day: Option<Date>) -> Option<Designation> {
        let mut class_set = BTreeSet::new();
        for text in &written.token_classes {
            let class: Option<ContractClass> = self.choice("designation.token_classes", Some(text));
            class_set.extend(class);
        }
        let selector = Selector {
            teams: self.labels("designation.teams", &written.teams),
            models: self.labels("designation.models", &written.models),
            providers: self.labels("designation.providers", &written.providers),
            regions: self.labels("designation.regions", &written.regions),
            classes: class_set,
        };
        let allocation = self.choice("designation.allocation", written.allocation.as_ref());
        let allocation = allocation.unwrap_or(AllocationRule::ProRata);
        let shares = self.shares(&written.shares);
        if (allocation == AllocationRule::Designated) == shares.is_empty() {
            let remedy = "shares belong to the rule designated, and it needs at least one";
            self.contradiction("designation.allocation, designation.shares", remedy);
        }
        let hedge_ratio = self.positive("designation.hedge_ratio", written.hedge_ratio.as_ref());
        let designated_at = self.day("designation.designated_at", written.designated_at.as_ref());
        Some(Designation {
            selector,
            hedge_ratio: hedge_ratio.unwrap_or(Decimal::ONE),
            profile: self.label("designation.conversion_profile", written.conversion_profile.as_ref()),
            allocation,
            shares,
            rank: written.rank,
            effectiveness: self.effectiveness(written),
            designated_at: designated_at.or(first_day)?,
            objective: written.objective.clone(),
        })
    }

    fn shares(&mut self, written: &BTreeMap<String, Written>) -> BTreeMap<Label, Decimal> {
        let mut shares = BTreeMap::new();
        for (team, share) in written {
            let key = format!("designation.shares.{team}");
            if let (Some(team), Some(share)) =
                (self.label(&key, Some(team)), self.positive(&key, Some(share)))
            {
                shares.insert(team, share);
            }
        }
        shares
    }

    fn effectiveness(&mut self, written: &DesignationEntry) -> Option<EffectivenessTerms> {
        let written = written.effectiveness.as_ref()?;
        if !["dollar_offset", "regression"].contains(&written.method.as_str()) {
            self.bad(
                "designation.effectiveness.method",
                &written.method,
                "is unknown; use dollar_offset or regression",
            );
        }
        let lowest = self.positive("designation.effectiveness.lowest", written.lowest.as_ref());
        let highest = self.positive("designation.effectiveness.highest", written.highest.as_ref());
        let lowest = lowest.or_else(|| Decimal::parse("0.80").ok())?;
        let highest = highest.or_else(|| Decimal::parse("1.25").ok())?;
        if lowest > highest {
            let keys = "designation.effectiveness.lowest, designation.effectiveness.highest";
            self.contradiction(keys, &format!("nothing lies from {lowest} to {highest}"));
        }
        let method = self.label("designation.effectiveness.method", Some(&written.method))?;
        Some(EffectivenessTerms { method, lowest, highest })
    }

    fn limits(&mut self, written: &LimitsEntry) -> Limits {
        let names = ["spot", "single_month", "all_months"];
        for name in written.accountability.iter().filter(|name| !names.contains(&name.as_str())) {
            self.bad("limits.accountability", name, "is unknown; use spot, single_month or all_months");
        }
        let mut limit = |name: &str, value: Option<&Written>| {
            let asked = written.accountability.iter().any(|member| member == name);
            let kind = if asked { LimitKind::Accountability } else { LimitKind::Limit };
            Some((self.positive(&format!("limits.{name}"), value)?, kind))
        };
        let spot = limit("spot", written.spot.as_ref());
        let single_month = limit("single_month", written.single_month.as_ref());
        let all_months = limit("all_months", written.all_months.as_ref());
        let reportable = self.positive("limits.reportable", written.reportable.as_ref());
        Limits { spot, single_month, all_months, reportable }
    }

    /// What must hold between groups: units, currencies, pairs.
    fn agreement(
        &mut self,
        kind: Kind,
        economics: &Economics,
        fx: Option<&FxTerms>,
        commitment: Option<&Commitment>,
    ) {
        let Economics { unit, price_currency, settlement_currency, .. } = economics;
        match (kind.group(), unit.money()) {
            (Group::Pool, Some(currency)) if currency == *price_currency => {}
            (Group::Pool, _) => {
                let remedy = format!("a {kind} counts money: the unit is {price_currency}");
                self.bad("unit", &unit.to_string(), &remedy);
            }
            (Group::Currency, Some(base)) => self.forward_pair(base, *price_currency, fx),
            (Group::Currency, None) => {
                self.bad(
                    "unit",
                    &unit.to_string(),
                    "an fx_forward counts money: the unit is its base currency",
                );
            }
            (_, Some(_)) => {
                let remedy = format!("a {kind} counts Mtok, MSIT, SIT, GPU-h or PTU-h, not money");
                self.bad("unit", &unit.to_string(), &remedy);
            }
            (_, None) => {}
        }
        if kind == Kind::ProvisionedThroughput && *unit != Unit::UnitHour {
            self.bad("unit", &unit.to_string(), "provisioned throughput is bought by PTU-h");
        }
        let linked = fx.is_some_and(|fx| {
            let pair = (fx.pair.base, fx.pair.quote);
            let (a, b) = (*price_currency, *settlement_currency);
            pair == (a, b) || pair == (b, a)
        });
        if price_currency != settlement_currency && !linked {
            let keys = "price_currency, settlement_currency, fx.pair";
            let remedy = format!(
                "prices are in {price_currency} and settlement in {settlement_currency}: \
                 name the pair of these two; CNY and CNH are two currencies"
            );
            self.contradiction(keys, &remedy);
        }
        if kind == Kind::Voucher && commitment.is_some_and(|commitment| commitment.expiry.is_none()) {
            self.missing("commitment.expiry", "a voucher has a last day");
        }
    }

    fn forward_pair(&mut self, base: Currency, quote: Currency, fx: Option<&FxTerms>) {
        let matches = fx.is_some_and(|fx| fx.pair == Pair { base, quote });
        if !matches {
            let remedy = format!("an fx_forward of {base} priced in {quote} has the pair {base}/{quote}");
            self.contradiction("fx.pair", &remedy);
        }
    }
}
