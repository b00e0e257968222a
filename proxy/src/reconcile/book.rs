//! Both sides of a reconciliation, cell by cell, and the document that tells of it.
//!
//! Invariants
//! - Memory grows by cells (days × models × projects), not by records or rows.
//! - Worths are made at one list of prices for both sides, so they differ by tokens alone.
//! - The parts of all cells are summed; nothing is netted between cells before it is explained.
//!
//! Not here: the parts of a gap (`bursar_policies::reconcile`).

use super::{Line, Provider, Statement, model_key};
use bursar_domain::money::{PICO, format_pico, parse_pico};
use bursar_domain::{CostStatus, Currency, Timestamp, TokenClass, Usage, UsageRecord, UsageSource};
use bursar_policies::price::{Ask, PriceBook};
use bursar_policies::reconcile::{self, Ours, Parts, Share, Theirs, TooLarge};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Most cells of one reconciliation.
const CELLS_MAX: usize = 1_000_000;
/// Tokens of each class by which the price of one is found: below every threshold of context.
const PROBE: u64 = 100;

/// What a cell is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    day: Option<Date>,
    model: Option<String>,
    project: Option<String>,
}

/// By what lines and records are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The day.
    Day,
    /// The model.
    Model,
    /// The project, workspace or account.
    Project,
}

impl Side {
    /// Understands `day,model,project`.
    pub(crate) fn parse(text: &str) -> Option<Vec<Self>> {
        text.split(',')
            .map(|name| match name.trim() {
                "day" => Some(Self::Day),
                "model" => Some(Self::Model),
                "project" => Some(Self::Project),
                _ => None,
            })
            .collect()
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Model => "model",
            Self::Project => "project",
        }
    }
}

/// Usage at one tier and region.
type Tiered = BTreeMap<(Option<String>, Option<String>), Usage>;

#[derive(Default)]
struct Cell {
    /// The model as the file names it, and as the records do.
    named: (Option<String>, Option<String>),
    cost: Option<i128>,
    rounding: i128,
    requests: Option<u64>,
    theirs: Option<Tiered>,
    ours: Ours,
    priced: Tiered,
    unpriced: Tiered,
}

impl Cell {
    /// The model as our records name it, else as the file does.
    fn name(&self) -> Option<&str> {
        self.named.1.as_deref().or(self.named.0.as_deref())
    }
}

/// Why there is no reconciliation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BookError {
    /// Costs in two currencies.
    #[error("costs are in {0} and in {1}: reconcile one currency at a time")]
    Currencies(String, String),
    /// Costs twice.
    #[error("two kinds of files tell costs ({0} and {1}): they would count twice, give one of them")]
    CostsTwice(&'static str, &'static str),
    /// Records in another currency.
    #[error(
        "{records} records of {provider} are priced in another currency than the file's {currency}: \
             reconcile a statement in their currency"
    )]
    OurCurrency { records: u64, provider: &'static str, currency: String },
    /// Too many cells.
    #[error(
        "there are more than {CELLS_MAX} days, models and projects: narrow the time with --from and --to"
    )]
    TooMany,
    /// Amounts beyond all measure.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// No tolerance.
    #[error("--tolerance {0:?} is neither an amount such as 1.50 nor a share such as 1%")]
    Tolerance(String),
    /// An amount of nothing.
    #[error("--tolerance in money needs a file with costs: give a share such as 1%")]
    NoCosts,
}

/// What is set against each other.
pub(crate) struct Books<'a> {
    provider: Provider,
    by: Vec<Side>,
    project_tag: String,
    /// Names of the file, and the model of ours that each means.
    names: BTreeMap<String, String>,
    prices: &'a PriceBook,
    currency: Option<Currency>,
    cells: BTreeMap<Key, Cell>,
    kinds: Vec<Value>,
    cost_kind: Option<&'static str>,
    /// A file counts the tokens, and one the requests, of everything: what it leaves out is none.
    counts_tokens: bool,
    counts_requests: bool,
    notes: Vec<String>,
    from: Option<Date>,
    to: Option<Date>,
    outside_time: u64,
    other_currency: u64,
    records: u64,
}

impl<'a> Books<'a> {
    /// Nothing yet, for the days from `from` up to and without `to`.
    pub(crate) fn new(
        provider: Provider,
        by: Vec<Side>,
        (from, to): (Option<Date>, Option<Date>),
        prices: &'a PriceBook,
    ) -> Self {
        Self {
            provider,
            by,
            project_tag: "openai_project".to_owned(),
            names: BTreeMap::new(),
            prices,
            currency: None,
            cells: BTreeMap::new(),
            kinds: Vec::new(),
            cost_kind: None,
            counts_tokens: false,
            counts_requests: false,
            notes: Vec::new(),
            from,
            to,
            outside_time: 0,
            other_currency: 0,
            records: 0,
        }
    }

    /// The tag of our records that names the project.
    pub(crate) fn project_tag(&mut self, tag: &str) {
        tag.clone_into(&mut self.project_tag);
    }

    /// States that the file's `theirs` is our model `ours`.
    pub(crate) fn means(&mut self, theirs: &str, ours: &str) {
        self.names.insert(theirs.trim().to_lowercase(), ours.trim().to_owned());
    }

    /// The days of the statements, where none were asked for: from the first to the last.
    pub(crate) fn days(&self) -> (Option<Date>, Option<Date>) {
        (self.from, self.to)
    }

    fn key(&self, day: Date, model: Option<&str>, project: Option<&str>) -> Key {
        let has = |side| self.by.contains(&side);
        Key {
            day: has(Side::Day).then_some(day),
            model: model.filter(|_| has(Side::Model)).map(model_key::key),
            project: project.filter(|_| has(Side::Project)).map(str::to_owned),
        }
    }

    fn cell(&mut self, key: Key) -> Result<&mut Cell, BookError> {
        if self.cells.len() >= CELLS_MAX && !self.cells.contains_key(&key) {
            return Err(BookError::TooMany);
        }
        Ok(self.cells.entry(key).or_default())
    }

    fn is_within(&self, day: Date) -> bool {
        self.from.is_none_or(|from| from <= day) && self.to.is_none_or(|to| day < to)
    }

    /// Takes all statements. Where no days were asked for, theirs are.
    pub(crate) fn take(&mut self, statements: &[(String, Statement)]) -> Result<(), BookError> {
        for (file, statement) in statements {
            let kind = statement.kind;
            if kind.tells_costs()
                && let Some(before) =
                    self.cost_kind.replace(kind.name()).filter(|before| *before != kind.name())
            {
                return Err(BookError::CostsTwice(before, kind.name()));
            }
            self.counts_tokens |= kind.counts_tokens();
            self.counts_requests |= kind.counts_requests();
            self.kinds.push(json!({
                "file": file, "format": kind.name(), "expects": kind.expects(), "rows": statement.rows,
                "lines": statement.lines.len(),
            }));
        }
        let days = || statements.iter().flat_map(|(_, statement)| &statement.lines).map(|line| line.day);
        self.from = self.from.or_else(|| days().min());
        self.to = self.to.or_else(|| days().max().and_then(|last| last.tomorrow().ok()));
        let lines = || statements.iter().flat_map(|(_, statement)| &statement.lines);
        let charged = || lines().filter(|line| line.cost.is_some());
        let decides = |line: &&Line| self.cost_kind.is_none() || line.cost.is_some();
        let has_model = lines().filter(decides).any(|line| line.model.is_some());
        let has_project = lines().filter(decides).any(|line| line.project.is_some());
        let about = if charged().next().is_some() { "costs" } else { "counts" };
        if !has_model {
            self.drop_side(Side::Model, about);
        }
        if !has_project {
            self.drop_side(Side::Project, about);
        }
        for line in lines() {
            self.take_line(line)?;
        }
        Ok(())
    }

    /// What the statements do not tell apart cannot be set against each other.
    fn drop_side(&mut self, side: Side, about: &str) {
        if self.by.contains(&side) {
            self.by.retain(|kept| *kept != side);
            let name = side.name();
            self.notes
                .push(format!("the files do not tell their {about} by {name}, so {name}s stand together"));
        }
    }

    fn take_line(&mut self, line: &Line) -> Result<(), BookError> {
        if !self.is_within(line.day) {
            self.outside_time = self.outside_time.saturating_add(1);
            return Ok(());
        }
        if let Some((currency, _)) = line.cost {
            let first = *self.currency.get_or_insert(currency);
            if first != currency {
                return Err(BookError::Currencies(first.code().to_owned(), currency.code().to_owned()));
            }
        }
        let told = line.model.as_deref();
        let meant = told.and_then(|name| self.names.get(&name.to_lowercase()).cloned());
        let model = meant.as_deref().or(told);
        let key = self.key(line.day, model, line.project.as_deref());
        let cell = self.cell(key)?;
        if cell.named.0.is_none() {
            cell.named.0 = model.map(str::to_owned);
        }
        if let Some((_, pico)) = line.cost {
            cell.cost = Some(cell.cost.unwrap_or(0).checked_add(pico).ok_or(TooLarge)?);
            cell.rounding = cell.rounding.checked_add(line.rounding).ok_or(TooLarge)?;
        }
        if let Some(requests) = line.requests {
            cell.requests = Some(cell.requests.unwrap_or(0).saturating_add(requests));
        }
        if let Some(usage) = &line.usage {
            let tiers = cell.theirs.get_or_insert_default();
            tiers.entry((line.tier.clone(), None)).or_default().add(usage);
        }
        Ok(())
    }

    /// Takes a record of ours that counts.
    pub(crate) fn record(&mut self, record: &UsageRecord) -> Result<(), BookError> {
        if record.provider.as_str() != self.provider.in_records() {
            return Ok(());
        }
        let Ok(at) = jiff::Timestamp::from_microsecond(record.started_at.micros()) else { return Ok(()) };
        let day = at.to_zoned(TimeZone::UTC).date();
        if !self.is_within(day) {
            return Ok(());
        }
        let cost = record.cost.as_ref();
        let billed = cost.and_then(|cost| cost.billed_pico).unwrap_or(0);
        let currency = self.currency.unwrap_or(Currency::USD);
        if cost.is_some_and(|cost| cost.billed_pico.is_some() && cost.currency != currency) {
            self.other_currency = self.other_currency.saturating_add(1);
            return Ok(());
        }
        self.records = self.records.saturating_add(1);
        let model =
            record.model_served.as_ref().or(record.model_requested.as_ref()).map(|name| name.as_str());
        let project = record.identity.tags.get(&self.project_tag).map(|name| name.as_str().to_owned());
        let key = self.key(day, model, project.as_deref());
        let cell = self.cell(key)?;
        if cell.named.1.is_none() {
            cell.named.1 = model.map(str::to_owned);
        }
        let tokens = [record.usage.input_total(), record.usage.output_total()];
        let tokens = tokens.into_iter().flatten().fold(0, u64::saturating_add);
        let is_priced = cost.is_some_and(|cost| cost.status == CostStatus::Priced);
        let is_unknown = record.usage.is_unknown();
        let estimates = [UsageSource::Tokenizer, UsageSource::Estimate, UsageSource::ProviderPartial];
        add(&mut cell.ours.all, tokens, billed)?;
        if is_unknown {
            cell.ours.unknown = cell.ours.unknown.saturating_add(1);
        } else if !is_priced {
            add(&mut cell.ours.unpriced, tokens, billed)?;
        } else if estimates.contains(&record.usage_source) {
            add(&mut cell.ours.estimated, tokens, billed)?;
        }
        let tier = record.tier.as_ref().map(|name| name.as_str().to_owned());
        let region = record.region.as_ref().map(|name| name.as_str().to_owned());
        let tiers = if is_priced { &mut cell.priced } else { &mut cell.unpriced };
        tiers.entry((tier, region)).or_default().add(&record.usage);
        Ok(())
    }

    /// The cells explained, as a document.
    pub(crate) fn document(self, tolerance: &str, as_of: Timestamp) -> Result<Value, BookError> {
        let currency = self.currency.unwrap_or(Currency::USD);
        if self.other_currency > 0 {
            return Err(BookError::OurCurrency {
                records: self.other_currency,
                provider: self.provider.in_records(),
                currency: currency.code().to_owned(),
            });
        }
        let mut rows = Vec::new();
        let mut total = Total::default();
        // In the order of the names that are shown.
        let shown =
            |(key, cell): &(&Key, &Cell)| (key.day, cell.name().map(str::to_owned), key.project.clone());
        let mut cells: Vec<(&Key, &Cell)> = self.cells.iter().collect();
        cells.sort_by_cached_key(shown);
        for (key, cell) in cells {
            let (theirs, ours) = self.sides(key, cell);
            let money = reconcile::money(&theirs, &ours)?;
            let tokens = reconcile::tokens(&theirs, &ours)?;
            total.add(&theirs, &ours, money.as_ref(), tokens.as_ref()).ok_or(TooLarge)?;
            rows.push(row(key, cell, &self.by, (&theirs, &ours), (money.as_ref(), tokens.as_ref())));
        }
        let passes = total.passes(tolerance)?;
        let unexplained = total.unexplained();
        Ok(json!({
            "provider": self.provider.in_records(),
            "period": { "from": self.from.map(|day| day.to_string()), "to": self.to.map(|day| day.to_string()), "tz": "UTC" },
            "currency": currency.code(),
            "by": self.by.iter().map(|side| side.name()).collect::<Vec<_>>(),
            "files": self.kinds,
            "records": self.records,
            "lines_outside_period": self.outside_time,
            "notes": self.notes,
            "rows": rows,
            "total": total.document(),
            "unexplained": unexplained,
            "tolerance": tolerance,
            "within_tolerance": passes,
            "as_of": crate::report::rfc3339(as_of),
        }))
    }

    /// Both sides of a cell with their worths.
    fn sides(&self, key: &Key, cell: &Cell) -> (Theirs, Ours) {
        let model = || cell.name();
        let day = key.day.or(self.from);
        let worth = |tiers: &Tiered| -> Option<i128> {
            tiers.iter().try_fold(0_i128, |sum, ((tier, region), usage)| {
                let at = (day?, model()?, tier.as_deref(), region.as_deref());
                sum.checked_add(self.worth(at, usage)?)
            })
        };
        // A tier that the price book does not know there is charged like the usual one, for this purpose.
        let region = cell.priced.keys().find_map(|(_, region)| region.clone());
        let none = Tiered::new();
        let told = cell.theirs.as_ref().or_else(|| self.counts_tokens.then_some(&none));
        let placed = told.map(|tiers| {
            tiers
                .iter()
                .map(|((tier, _), usage)| ((tier.clone(), region.clone()), *usage))
                .collect::<Tiered>()
        });
        let theirs_worth = placed.as_ref().and_then(worth);
        let tokens = told.map(|tiers| {
            let of = |usage: &Usage| [usage.input_total(), usage.output_total()];
            tiers.values().flat_map(of).flatten().fold(0, u64::saturating_add)
        });
        let theirs = Theirs {
            // A statement of costs that leaves a cell out charges nothing for it.
            cost: cell.cost.or_else(|| self.cost_kind.map(|_| 0)),
            requests: cell.requests.or_else(|| self.counts_requests.then_some(0)),
            tokens,
            worth: theirs_worth,
            rounding: cell.rounding,
        };
        let ours = Ours {
            worth: theirs_worth.and_then(|_| worth(&cell.priced)),
            worth_unpriced: if cell.unpriced.is_empty() { None } else { worth(&cell.unpriced) },
            ..cell.ours
        };
        (theirs, ours)
    }

    /// What tokens are worth, each class by its price below every threshold.
    fn worth(
        &self,
        (day, model, tier, region): (Date, &str, Option<&str>, Option<&str>),
        usage: &Usage,
    ) -> Option<i128> {
        let at = day.at(12, 0, 0, 0).to_zoned(TimeZone::UTC).ok()?.timestamp();
        let mut probe = Usage::unknown();
        usage.tokens().filter(|(_, count)| *count > 0).for_each(|(class, _)| probe.set(class, PROBE));
        if !probe.has_tokens() {
            return Some(0);
        }
        let ask = |tier| Ask {
            provider: self.provider.in_records(),
            model_served: Some(model),
            model_requested: None,
            tier,
            region,
            speed: None,
            at: Timestamp::from_micros(at.as_microsecond()),
            usage: &probe,
            by_model: &[],
        };
        let costs = self.prices.by_class(&ask(tier)).or_else(|| self.prices.by_class(&ask(None)))?;
        let rate = |class: TokenClass| {
            costs.classes.iter().find(|(priced, _)| *priced == class).map_or(0, |(_, part)| part.contracted)
        };
        usage.tokens().try_fold(0_i128, |sum, (class, count)| {
            let part = rate(class).checked_mul(i128::from(count))?.checked_div(i128::from(PROBE))?;
            sum.checked_add(part)
        })
    }
}

fn add(share: &mut Share, tokens: u64, billed: i128) -> Result<(), TooLarge> {
    share.requests = share.requests.saturating_add(1);
    share.tokens = share.tokens.saturating_add(tokens);
    share.billed = share.billed.checked_add(billed).ok_or(TooLarge)?;
    Ok(())
}

// === the document ===

fn row(
    key: &Key,
    cell: &Cell,
    by: &[Side],
    (theirs, ours): (&Theirs, &Ours),
    (money, tokens): (Option<&Parts>, Option<&Parts>),
) -> Value {
    let mut row = Map::new();
    for side in by {
        let value = match side {
            Side::Day => key.day.map(|day| day.to_string()),
            Side::Model => cell.name().map(str::to_owned),
            Side::Project => key.project.clone(),
        };
        row.insert(side.name().to_owned(), value.into());
    }
    figures(&mut row, (theirs, ours), (money, tokens));
    Value::Object(row)
}

fn figures(
    row: &mut Map<String, Value>,
    (theirs, ours): (&Theirs, &Ours),
    (money, tokens): (Option<&Parts>, Option<&Parts>),
) {
    row.insert(
        "theirs".to_owned(),
        json!({ "cost": theirs.cost.map(format_pico), "requests": theirs.requests, "tokens": theirs.tokens }),
    );
    row.insert(
        "ours".to_owned(),
        json!({
            "billed": format_pico(ours.all.billed), "requests": ours.all.requests, "tokens": ours.all.tokens,
            "estimated": ours.estimated.requests, "unpriced": ours.unpriced.requests, "unknown": ours.unknown,
        }),
    );
    let parts = |parts: Option<&Parts>, text: fn(i128) -> Value| match parts {
        None => Value::Null,
        Some(parts) => {
            let mut named: Map<String, Value> =
                parts.named().iter().map(|(name, part)| ((*name).to_owned(), text(*part))).collect();
            named.insert("gap".to_owned(), parts.sum().map_or(Value::Null, text));
            Value::Object(named)
        }
    };
    row.insert("money".to_owned(), parts(money, |pico| format_pico(pico).into()));
    row.insert(
        "tokens".to_owned(),
        parts(tokens, |count| i64::try_from(count).map_or_else(|_| count.to_string().into(), Value::from)),
    );
}

/// All cells together.
#[derive(Default)]
struct Total {
    theirs: Theirs,
    ours: Ours,
    money: Option<Parts>,
    tokens: Option<Parts>,
    /// Unexplained of each cell without its sign: what one day lacks another does not make good.
    unexplained: (i128, i128),
}

impl Total {
    fn add(
        &mut self,
        theirs: &Theirs,
        ours: &Ours,
        money: Option<&Parts>,
        tokens: Option<&Parts>,
    ) -> Option<()> {
        let sum = |sum: &mut Option<Parts>, parts: Option<&Parts>| -> Option<i128> {
            let Some(parts) = parts else { return Some(0) };
            *sum = Some(sum.unwrap_or_default().plus(parts)?);
            parts.unexplained.checked_abs()
        };
        self.unexplained.0 = self.unexplained.0.checked_add(sum(&mut self.money, money)?)?;
        self.unexplained.1 = self.unexplained.1.checked_add(sum(&mut self.tokens, tokens)?)?;
        if let Some(cost) = theirs.cost {
            self.theirs.cost = Some(self.theirs.cost.unwrap_or(0).checked_add(cost)?);
        }
        if let Some(requests) = theirs.requests {
            self.theirs.requests = Some(self.theirs.requests.unwrap_or(0).saturating_add(requests));
        }
        if let Some(tokens) = theirs.tokens {
            self.theirs.tokens = Some(self.theirs.tokens.unwrap_or(0).saturating_add(tokens));
        }
        for (sum, share) in [
            (&mut self.ours.all, ours.all),
            (&mut self.ours.estimated, ours.estimated),
            (&mut self.ours.unpriced, ours.unpriced),
        ] {
            sum.requests = sum.requests.saturating_add(share.requests);
            sum.tokens = sum.tokens.saturating_add(share.tokens);
            sum.billed = sum.billed.checked_add(share.billed)?;
        }
        self.ours.unknown = self.ours.unknown.saturating_add(ours.unknown);
        Some(())
    }

    fn document(&self) -> Value {
        let mut row = Map::new();
        figures(&mut row, (&self.theirs, &self.ours), (self.money.as_ref(), self.tokens.as_ref()));
        Value::Object(row)
    }

    fn unexplained(&self) -> Value {
        json!({
            "money": self.money.map(|_| format_pico(self.unexplained.0)),
            "tokens": self.tokens.map(|_| self.unexplained.1.to_string()),
        })
    }

    /// Whether what is not explained is within the tolerance: a share of the provider's figures, in money
    /// where it tells costs, else in tokens; or an amount.
    fn passes(&self, tolerance: &str) -> Result<bool, BookError> {
        let wrong = || BookError::Tolerance(tolerance.chars().take(40).collect());
        let text = tolerance.trim();
        let (number, is_share) = text.strip_suffix('%').map_or((text, false), |share| (share.trim(), true));
        let number = parse_pico(number).ok().filter(|number| *number >= 0).ok_or_else(wrong)?;
        if !is_share {
            return if self.money.is_some() {
                Ok(self.unexplained.0 <= number)
            } else {
                Err(BookError::NoCosts)
            };
        }
        let (left, whole) = match (self.theirs.cost, self.theirs.tokens) {
            (Some(cost), _) => (self.unexplained.0, cost.checked_abs().ok_or(TooLarge)?),
            (None, tokens) => (self.unexplained.1, tokens.unwrap_or(0).into()),
        };
        // whole × number ÷ 100, rounded down.
        let hundred = PICO.checked_mul(100).ok_or(TooLarge)?;
        let (whole, number) = (whole.unsigned_abs(), number.unsigned_abs());
        let allowed = bursar_domain::wide::Wide::product(whole, number).div_rem(hundred.unsigned_abs());
        let (allowed, _) = allowed.ok_or(TooLarge)?;
        Ok(left.unsigned_abs() <= allowed)
    }
}
