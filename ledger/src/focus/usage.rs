//! The usage of a month as charges: an hour of one thing at one price is one row.
//!
//! Invariants
//! - Every request that counts is in a row: by token class where its cost is known by class, else whole.
//! - A row with a price per token has quantity × price = cost, exactly; what has no such price is one
//!   charge of its cost.
//! - What is billed in another currency is converted at the rate of its day; without a rate it stays in
//!   its own currency, which the row names, and no contract covers it.
//!
//! Not here: what contracts cover of it (`cover`), cells (`charge`).

use super::charge::{Charge, Hedged, Priced, Sku, Times};
use super::cover::Covered;
use super::{FocusError, FocusNotes, MonthOf, ROWS_MAX, Sink, midnight};
use crate::hedge::team_label;
use crate::query::{GroupKey, KeyValue, key_of_record};
use crate::rollup::HOUR_MICROS;
use crate::{RecordRange, StoredRecord};
use bursar_domain::money::{PICO, format_pico};
use bursar_domain::{Cost, CostStatus, Currency, Label, Money, Quantity, Timestamp, TokenClass, UsageRecord};
use bursar_policies::exact::{ExactError, Ratio};
use bursar_policies::hedge::calendar::Month;
use bursar_policies::hedge::position::ContractClass;
use bursar_policies::hedge::position::Facets;
use bursar_policies::price::ClassCosts;
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, HashMap};

/// Tokens of a published price.
const MILLION: i128 = 1_000_000;

/// What is sold, in the order of rows of one hour.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Sold {
    pub(super) provider: Label,
    pub(super) model: Option<Label>,
    pub(super) tier: Option<Label>,
    pub(super) region: Option<Label>,
    item: Item,
    currency: Currency,
    /// List and contracted price of a token in pico-units, where there is one.
    price: Option<(i128, i128)>,
    status: &'static str,
    list_known: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Item {
    /// Tokens of a class.
    Tokens(TokenClass),
    /// What is charged per call, search, page.
    Fees,
    /// All tokens of requests whose cost is not known by class.
    AllTokens,
    /// Requests of which nobody counted tokens.
    Requests,
}

impl Item {
    const fn name(self) -> &'static str {
        match self {
            Self::Tokens(class) => class.name(),
            Self::Fees => "fees",
            Self::AllTokens => "all_tokens",
            Self::Requests => "requests",
        }
    }

    /// What is metered, in words.
    fn meter(self) -> String {
        match self {
            Self::Tokens(class) => {
                let words = class.name().split('_').map(|word| {
                    let mut letters = word.chars();
                    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
                    first.into_iter().chain(letters).collect::<String>()
                });
                format!("{} Tokens", words.collect::<Vec<_>>().join(" "))
            }
            Self::Fees => "Fees".to_owned(),
            Self::AllTokens => "Tokens".to_owned(),
            Self::Requests => "Requests".to_owned(),
        }
    }

    const fn unit(self) -> &'static str {
        match self {
            Self::Tokens(_) | Self::AllTokens => "Tokens",
            Self::Fees | Self::Requests => "Requests",
        }
    }
}

/// What the requests of a row add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    /// Tokens, or requests.
    consumed: u64,
    /// Tokens that were charged.
    charged: u64,
    list: i128,
    contracted: i128,
    billed: i128,
}

impl Sums {
    fn plus(self, other: Self) -> Option<Self> {
        Some(Self {
            consumed: self.consumed.checked_add(other.consumed)?,
            charged: self.charged.checked_add(other.charged)?,
            list: self.list.checked_add(other.list)?,
            contracted: self.contracted.checked_add(other.contracted)?,
            billed: self.billed.checked_add(other.billed)?,
        })
    }
}

/// Usage of a month while it is added up.
#[derive(Default)]
struct Gathered {
    keys: Vec<Vec<KeyValue>>,
    key_numbers: HashMap<Vec<KeyValue>, u32>,
    sold: Vec<Sold>,
    sold_numbers: HashMap<Sold, u32>,
    sums: BTreeMap<(i64, u32, u32), Sums>,
}

/// One row of usage, in the reporting currency.
pub(super) struct Row<'a> {
    hour: i64,
    pub(super) key: &'a [KeyValue],
    pub(super) sold: &'a Sold,
    /// The reporting currency, or its own where there is no rate.
    pub(super) currency: Currency,
    sums: Sums,
    /// The three costs as the row's own currency has them.
    own: Sums,
    /// What contracts took of it, and what they charge for that.
    pub(super) covered: Covered,
}

impl Row<'_> {
    /// What is billed without contracts, in pico-units.
    pub(super) const fn spot(&self) -> i128 {
        self.sums.billed
    }

    /// The code of the row's currency; `reporting` is that of the reporting currency.
    fn currency_code<'r>(&'r self, reporting: &'r str) -> &'r str {
        if self.currency == self.sold.currency { self.sold.currency.code() } else { reporting }
    }

    /// What selectors of positions look at; a team that rows are not grouped by is not known.
    pub(super) fn facets(&self, by: &[GroupKey]) -> Facets {
        let team = by.iter().zip(self.key).find(|(key, _)| **key == GroupKey::Team);
        let class = match self.sold.item {
            Item::Tokens(class) => ContractClass::of(class),
            Item::Fees | Item::AllTokens | Item::Requests => None,
        };
        Facets {
            team: team_label(team.and_then(|(_, value)| value.text())),
            model: self.sold.model.clone(),
            provider: Some(self.sold.provider.clone()),
            region: self.sold.region.clone(),
            class,
        }
    }
}

impl Gathered {
    fn key(&mut self, key: Vec<KeyValue>) -> u32 {
        if let Some(number) = self.key_numbers.get(&key) {
            return *number;
        }
        let number = u32::try_from(self.keys.len()).unwrap_or(u32::MAX);
        self.keys.push(key.clone());
        self.key_numbers.insert(key, number);
        number
    }

    fn add(&mut self, (hour, key): (i64, u32), sold: Sold, sums: Sums) -> Result<(), FocusError> {
        let number = match self.sold_numbers.get(&sold) {
            Some(number) => *number,
            None => {
                let number = u32::try_from(self.sold.len()).unwrap_or(u32::MAX);
                self.sold.push(sold.clone());
                self.sold_numbers.insert(sold, number);
                number
            }
        };
        if self.sums.len() >= ROWS_MAX && !self.sums.contains_key(&(hour, key, number)) {
            return Err(FocusError::TooManyRows);
        }
        let sum = self.sums.entry((hour, key, number)).or_default();
        *sum = sum.plus(sums).ok_or(ExactError::Overflow)?;
        Ok(())
    }
}

/// `amount ÷ count`, where it leaves nothing.
fn each(amount: i128, count: u64) -> Option<i128> {
    let count = i128::from(count);
    (amount.checked_rem(count)? == 0).then(|| amount.checked_div(count))?
}

impl MonthOf<'_> {
    /// Writes the charges of the month: usage by hour, then contracts.
    pub(super) fn write(&self, sink: &mut Sink<'_>, notes: &mut FocusNotes) -> Result<(), FocusError> {
        let gathered = self.gather(notes)?;
        let mut rows = self.rows(&gathered, notes)?;
        rows.sort_by(|a, b| (a.hour, a.key, a.sold).cmp(&(b.hour, b.key, b.sold)));
        let more = self.cover(&mut rows)?;
        for row in &rows {
            sink(&self.charge(row)?.cells())?;
            notes.rows = notes.rows.saturating_add(1);
        }
        for charge in more {
            sink(&charge.cells())?;
            notes.rows = notes.rows.saturating_add(1);
        }
        Ok(())
    }

    fn gather(&self, notes: &mut FocusNotes) -> Result<Gathered, FocusError> {
        let (from, to) = (midnight(self.window.from()), midnight(self.window.until()));
        let mut gathered = Gathered::default();
        let range = RecordRange { from: Some(from), to: Some(to), after_sequence: 0 };
        for stored in self.source.read_records(range) {
            let StoredRecord { record, counted, .. } = stored?;
            if counted {
                self.add(&mut gathered, &record, notes)?;
            }
        }
        Ok(gathered)
    }

    fn add(
        &self,
        gathered: &mut Gathered,
        record: &UsageRecord,
        notes: &mut FocusNotes,
    ) -> Result<(), FocusError> {
        let hour = record.started_at.micros().div_euclid(HOUR_MICROS).saturating_mul(HOUR_MICROS);
        let by = &self.ask.hedge.by;
        let key = by.iter().map(|key| key_of_record(key, record, &TimeZone::UTC)).collect();
        let place = (hour, gathered.key(key));
        let none = Cost::unpriced(self.ask.hedge.currency);
        let cost = record.cost.as_ref().unwrap_or(&none);
        if cost.status != CostStatus::Priced {
            notes.unpriced = notes.unpriced.saturating_add(1);
        } else if cost.list_pico.is_none() {
            notes.without_list = notes.without_list.saturating_add(1);
        }
        let sold = |item: Item, price: Option<(i128, i128)>| Sold {
            provider: record.provider.clone(),
            model: record.model_served.clone().or_else(|| record.model_requested.clone()),
            tier: record.tier.clone(),
            region: record.region.clone(),
            item,
            currency: cost.currency,
            price,
            status: cost.status.name(),
            list_known: cost.list_pico.is_some(),
        };
        match self.by_class(record, cost) {
            Some(costs) => {
                let parts = TokenClass::ALL.iter().filter_map(|class| class_sums(record, &costs, *class));
                for (class, sums) in parts.collect::<Vec<_>>() {
                    let price = each(sums.list, sums.charged).zip(each(sums.contracted, sums.charged));
                    gathered.add(place, sold(Item::Tokens(class), price), sums)?;
                }
                let (contracted, list) = (costs.fees.contracted, costs.fees.list);
                let list = list.unwrap_or(contracted);
                if contracted != 0 || list != 0 {
                    let sums = Sums { consumed: 1, list, contracted, billed: contracted, charged: 0 };
                    gathered.add(place, sold(Item::Fees, None), sums)?;
                }
            }
            None => {
                let tokens = crate::roi::tokens(&record.usage).filter(|count| *count > 0);
                let billed = cost.billed_pico.unwrap_or(0);
                let contracted = cost.contracted_pico.unwrap_or(billed);
                let sums = Sums {
                    consumed: tokens.unwrap_or(1),
                    charged: 0,
                    list: cost.list_pico.unwrap_or(billed),
                    contracted,
                    billed,
                };
                let item = if tokens.is_some() { Item::AllTokens } else { Item::Requests };
                gathered.add(place, sold(item, None), sums)?;
            }
        }
        Ok(())
    }

    /// The cost by class, where it is known and is what is billed.
    fn by_class(&self, record: &UsageRecord, cost: &Cost) -> Option<ClassCosts> {
        let whole = cost.status == CostStatus::Priced && cost.billed_pico == cost.contracted_pico;
        let costs = if whole { self.source.class_costs(record)? } else { return None };
        (costs.whole == *cost).then_some(costs)
    }

    /// The rows in the reporting currency; what has no rate stays in its own, and is named.
    fn rows<'g>(&self, gathered: &'g Gathered, notes: &mut FocusNotes) -> Result<Vec<Row<'g>>, FocusError> {
        let mut rows = Vec::with_capacity(gathered.sums.len());
        for ((hour, key, sold), own) in &gathered.sums {
            let index = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
            let (key, sold) = (gathered.keys.get(index(*key)), gathered.sold.get(index(*sold)));
            let (Some(key), Some(sold)) = (key, sold) else { continue };
            let converted = self.converted(*hour, sold.currency, *own)?;
            let (currency, sums) = match converted {
                Some(sums) => (self.ask.hedge.currency, sums),
                None => {
                    let count = notes.without_rate.entry(sold.currency).or_insert(0);
                    *count = count.saturating_add(1);
                    (sold.currency, *own)
                }
            };
            let covered = Covered::default();
            rows.push(Row { hour: *hour, key, sold, currency, sums, own: *own, covered });
        }
        Ok(rows)
    }

    fn converted(&self, hour: i64, from: Currency, own: Sums) -> Result<Option<Sums>, FocusError> {
        let to = self.ask.hedge.currency;
        if from == to {
            return Ok(Some(own));
        }
        let at = jiff::Timestamp::from_microsecond(hour).map_err(|_| ExactError::Overflow)?;
        let day = at.to_zoned(TimeZone::UTC).date();
        let market = &self.state.intake.market;
        let convert = |pico: i128| -> Result<Option<i128>, ExactError> {
            let exact = Ratio::of(Money::from_pico(from, pico));
            let found = market.convert(exact, (from, to), day, None, self.ask.hedge.as_of);
            found.ok().map(|exact| Ok(exact.decimal_half_even(12)?.pico())).transpose()
        };
        let [list, contracted, billed] = [own.list, own.contracted, own.billed].map(convert);
        let (Some(list), Some(contracted), Some(billed)) = (list?, contracted?, billed?) else {
            return Ok(None);
        };
        Ok(Some(Sums { list, contracted, billed, ..own }))
    }

    /// The months and hours of charges of this month.
    pub(super) fn times(&self, charge: (Timestamp, Timestamp)) -> Result<Times, FocusError> {
        let billing = Month::of(self.window.from()).window()?;
        Ok(Times { billing: (midnight(billing.from()), midnight(billing.until())), charge })
    }

    /// The whole part of the month that is asked for.
    pub(super) fn days(&self) -> Result<Times, FocusError> {
        self.times((midnight(self.window.from()), midnight(self.window.until())))
    }

    /// A charge of this dataset.
    pub(super) fn new_charge(&self, times: Times, category: &'static str) -> Charge<'_> {
        Charge::new(times, (&self.ask.account, self.ask.hedge.currency.code()), category)
    }

    fn charge<'r>(&'r self, row: &'r Row<'_>) -> Result<Charge<'r>, FocusError> {
        let (sold, sums) = (row.sold, &row.sums);
        let hour = Timestamp::from_micros(row.hour);
        let end = Timestamp::from_micros(row.hour.saturating_add(HOUR_MICROS));
        let own_currency = sold.currency == row.currency;
        let priced = match sold.price.filter(|_| own_currency) {
            Some((list, contracted)) => Priced {
                quantity: i128::from(sums.charged).saturating_mul(MILLION),
                unit: "1000000 Tokens",
                list_price: list.saturating_mul(MILLION),
                contracted_price: contracted.saturating_mul(MILLION),
            },
            None => Priced::whole(sums.list, sums.contracted),
        };
        let billed = sums.billed.checked_sub(row.covered.displaced).ok_or(ExactError::Overflow)?;
        let effective = billed.checked_add(row.covered.charged).ok_or(ExactError::Overflow)?;
        // An amount in the currency of prices is only told where nothing of it was covered.
        let foreign = !own_currency && row.covered.by.is_empty();
        let code = sold.currency.code().to_owned();
        let pricing = foreign.then_some((code, row.own.list, row.own.contracted, row.own.billed));
        let model = sold.model.as_ref().map(Label::as_str);
        let consumed = i128::from(sums.consumed).checked_mul(PICO).ok_or(ExactError::Overflow)?;
        Ok(Charge {
            currency: row.currency_code(self.ask.hedge.currency.code()),
            description: describe(sold),
            provider: sold.provider.as_str(),
            sku: Some(sku(sold)),
            priced: Some(priced),
            consumed: Some((consumed, sold.item.unit())),
            list: sums.list,
            contracted: sums.contracted,
            billed,
            effective,
            pricing,
            applied: row.covered.applied(),
            region: sold.region.as_ref().map(Label::as_str),
            by: &self.ask.hedge.by,
            key: row.key,
            model,
            tier: sold.tier.as_ref().map(Label::as_str),
            class: Some(sold.item.name()),
            status: Some(sold.status),
            list_source: Some(if sold.list_known { "price_book" } else { "billed" }),
            spot: sums.billed,
            hedged_cost: effective,
            hedged: Hedged::default(),
            ..self.new_charge(self.times((hour, end))?, "Usage")
        })
    }
}

/// The tokens and costs of one class of a record; nothing where there are none.
fn class_sums(record: &UsageRecord, costs: &ClassCosts, class: TokenClass) -> Option<(TokenClass, Sums)> {
    let part = costs.classes.iter().find(|(of, _)| *of == class).map(|(_, part)| *part);
    let consumed = record.usage.get(class).unwrap_or(0);
    let (list, contracted) =
        part.map_or((0, 0), |part| (part.list.unwrap_or(part.contracted), part.contracted));
    if consumed == 0 && list == 0 && contracted == 0 {
        return None;
    }
    let output = matches!(ContractClass::of(class), Some(ContractClass::Output));
    let (billed, plain) = match output {
        true => (record.usage.quantity(Quantity::BilledOutputTokens), TokenClass::OutputText),
        false => (record.usage.quantity(Quantity::BilledInputTokens), TokenClass::InputFresh),
    };
    // What a provider bills instead of what was used is charged as plain input or output.
    let charged = match billed {
        Some(billed) if class == plain => billed,
        Some(_) => 0,
        None => consumed,
    };
    Some((class, Sums { consumed, charged, list, contracted, billed: contracted }))
}

fn describe(sold: &Sold) -> String {
    let model = sold.model.as_ref().map_or("an unknown model", Label::as_str);
    let tier = sold.tier.as_ref().map_or(String::new(), |tier| format!(", tier {tier}"));
    format!("{} of {model} at {}{tier}", sold.item.meter(), sold.provider)
}

/// What is sold, under names of our own: providers give none to token classes.
fn sku(sold: &Sold) -> Sku {
    let model = sold.model.as_ref().map_or("unknown", Label::as_str);
    let id = format!("{}/{model}/{}", sold.provider, sold.item.name());
    let tier = sold.tier.as_ref().map_or("standard", Label::as_str);
    let region = sold.region.as_ref().map_or(String::new(), |region| format!("[{region}]"));
    let price = sold.price.map_or("charged whole".to_owned(), |(list, _)| {
        format!("{} {} per 1000000 Tokens", format_pico(list.saturating_mul(MILLION)), sold.currency)
    });
    let (direction, cache) = match sold.item {
        Item::Tokens(class) => direction(class),
        Item::Fees | Item::AllTokens | Item::Requests => (None, None),
    };
    let details = serde_json::json!({
        "x_ModelId": model,
        "x_ServiceTier": tier,
        "x_TokenDirection": direction,
        "x_TokenCacheAction": cache,
    });
    let details = match details {
        serde_json::Value::Object(mut details) => {
            details.retain(|_, value| !value.is_null());
            Some(serde_json::Value::Object(details).to_string())
        }
        _ => None,
    };
    Sku { price_id: format!("{id}{region}/{tier}@{price}"), id, meter: sold.item.meter(), details }
}

/// Where tokens go, and what a cache does with them, in the words of the draft of FOCUS 1.5.
fn direction(class: TokenClass) -> (Option<&'static str>, Option<&'static str>) {
    use ContractClass as C;
    match ContractClass::of(class) {
        Some(C::Output) => (Some("Output"), None),
        Some(C::CachedRead) => (Some("Input"), Some("Read")),
        Some(C::CachedWrite) | None => (Some("Input"), Some("Write")),
        Some(C::Input | C::Blended) => (Some("Input"), None),
    }
}
