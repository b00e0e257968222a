//! From rows to tables: everything about one model in the order in which a call asks for it.
//!
//! Invariants
//! - The result depends on the rows and not on their order.
//! - All prices of one model, tier and time have one currency.
//!
//! Which row holds for an item at a time
//! - Overlay before built-in; an overlay row that names exactly this model before one that names
//!   the model it is a dated or other name of.
//! - Then a row of the asked tier before the standard tier's. Tokens never take the standard
//!   tier's price; fees per call do unless the tier has its own, because providers publish one fee
//!   for all tiers.
//! - Then a row of the asked region before one without region.
//! - Then the one with the latest start. Thresholds older than the base price end with it.
//!
//! Not here: which table a call means and what it costs (`mod`).

use super::row::{EVERY_TIER, Item, Millionths, Origin, Price, PriceKind, PriceRow, STANDARD, Term};
use super::{BookError, Names, names};
use bursar_domain::{Currency, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;

const BEGINNING: Timestamp = Timestamp::from_micros(i64::MIN);

/// A row by its place in the book, counted from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowRef(NonZeroU32);

impl RowRef {
    fn new(index: usize) -> Option<Self> {
        let number = u32::try_from(index).ok()?.checked_add(1)?;
        NonZeroU32::new(number).map(Self)
    }

    /// The place, counted from zero.
    pub(super) fn index(self) -> usize {
        usize::try_from(self.0.get().saturating_sub(1)).unwrap_or(usize::MAX)
    }
}

/// What one item costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) item: Item,
    /// Public price in pico-units for `list_per` units; meaningless without `list_row`.
    pub(super) list: u64,
    pub(super) list_per: u32,
    /// Negotiated price in pico-units for `contracted_per` units.
    pub(super) contracted: u64,
    pub(super) contracted_per: u32,
    /// The row of the public price.
    pub(super) list_row: Option<RowRef>,
    /// The row of the negotiated price or discount, where there is one.
    pub(super) contracted_row: Option<RowRef>,
    /// The row of the regional factor, where one was used.
    pub(super) uplift_row: Option<RowRef>,
}

/// Prices for requests whose input is larger than `above`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Band {
    pub(super) above: u64,
    pub(super) slots: Box<[Slot]>,
}

impl Band {
    /// What `item` costs.
    pub(super) fn slot(&self, item: Item) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.item == item)
    }
}

/// Prices from one instant to the next period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Period {
    pub(super) from: Timestamp,
    pub(super) currency: Currency,
    /// By rising threshold, the first from zero; empty where nothing has a price.
    pub(super) bands: Box<[Band]>,
}

impl Period {
    /// The prices for a request with `input` tokens: above a threshold, not at it.
    pub(super) fn band(&self, input: u64) -> Option<&Band> {
        self.bands.iter().rev().find(|band| band.above < input || band.above == 0)
    }
}

/// The history of one model on one tier in one region.
#[derive(Clone, Debug)]
pub(super) struct Variant {
    pub(super) region: Option<Arc<str>>,
    pub(super) tier: Arc<str>,
    pub(super) periods: Box<[Period]>,
}

impl Variant {
    /// Whether it is the variant of `region`; `None` is the one without region.
    pub(super) fn is_in(&self, region: Option<&str>) -> bool {
        match (self.region.as_deref(), region) {
            (Some(ours), Some(theirs)) => ours.eq_ignore_ascii_case(theirs),
            (ours, theirs) => ours.is_none() && theirs.is_none(),
        }
    }
}

/// Everything about one model.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) variants: Box<[Variant]>,
    /// Whether the provider raises the model's price by region.
    pub(super) regional: bool,
}

/// The models of one provider.
#[derive(Clone, Debug, Default)]
pub(super) struct Provider {
    names: HashMap<Arc<str>, usize>,
    /// Beginnings of names, longest first.
    beginnings: Vec<(Arc<str>, usize)>,
}

impl Provider {
    /// The table of `model`: by its name, by a pattern, by its name without a date.
    pub(super) fn table(&self, model: &str) -> Option<usize> {
        if let Some(table) = self.names.get(model) {
            return Some(*table);
        }
        let pattern = self.beginnings.iter().find(|(beginning, _)| model.starts_with(&**beginning));
        let stem = || names::without_date(model).and_then(|stem| self.names.get(stem).copied());
        pattern.map(|(_, table)| *table).or_else(stem)
    }
}

/// All tables of a book.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    pub(super) tables: Vec<Table>,
    pub(super) providers: HashMap<Arc<str>, Provider>,
}

/// Compiles `rows`; `names` gives other names of models.
pub(super) fn compile(rows: &[PriceRow], names: &Names) -> Result<Tables, BookError> {
    let groups = Groups::new(rows, names)?;
    let mut compiled = Tables::default();
    let mut numbers: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (provider, model) in groups.by_model.keys() {
        let table = groups.sheet(provider, model).table()?;
        if table.variants.is_empty() {
            continue;
        }
        let number = compiled.tables.len();
        numbers.insert((*provider, *model), number);
        compiled.tables.push(table);
        compiled.name(provider, model, number);
    }
    for ((provider, name), model) in names {
        if numbers.contains_key(&(&**provider, &**name)) {
            continue;
        }
        // An overlay may have given a table of its own to the undated form of this very name.
        let undated = names::without_date(name).filter(|stem| {
            names.get(&(Arc::clone(provider), Arc::from(*stem))).is_some_and(|canonical| canonical == model)
        });
        let own = undated.and_then(|stem| numbers.get(&(&**provider, stem)));
        if let Some(number) = own.or_else(|| numbers.get(&(&**provider, &**model))) {
            compiled.name(provider, name, *number);
        }
    }
    for provider in compiled.providers.values_mut() {
        provider.beginnings.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    }
    Ok(compiled)
}

impl Tables {
    fn name(&mut self, provider: &str, name: &str, table: usize) {
        if !self.providers.contains_key(provider) {
            self.providers.insert(Arc::from(provider), Provider::default());
        }
        let Some(provider) = self.providers.get_mut(provider) else { return };
        match name.strip_suffix('*') {
            Some(beginning) => provider.beginnings.push((Arc::from(beginning), table)),
            None => {
                provider.names.insert(Arc::from(name), table);
            }
        }
    }
}

// === which rows make up a model ===

/// A row with its weight: a higher layer wins.
#[derive(Clone, Copy)]
struct Ranked<'a> {
    layer: u8,
    at: RowRef,
    row: &'a PriceRow,
}

struct Groups<'a> {
    by_model: BTreeMap<(&'a str, &'a str), Vec<Ranked<'a>>>,
    /// Discounts on patterns, which hold for all models they match.
    discounts: Vec<Ranked<'a>>,
    names: &'a Names,
}

impl<'a> Groups<'a> {
    fn new(rows: &'a [PriceRow], names: &'a Names) -> Result<Self, BookError> {
        let mut by_model: BTreeMap<(&str, &str), Vec<Ranked<'_>>> = BTreeMap::new();
        let mut discounts = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            let at = RowRef::new(index).ok_or(BookError::TooLarge)?;
            let ranked = Ranked { layer: 0, at, row };
            if matches!(row.term, Term::Discount(_)) && row.model.ends_with('*') {
                discounts.push(ranked);
            } else {
                by_model.entry((&row.provider, &row.model)).or_default().push(ranked);
            }
        }
        Ok(Self { by_model, discounts, names })
    }

    /// All rows that can hold for `model`.
    fn sheet(&self, provider: &'a str, model: &'a str) -> Sheet<'a> {
        let own = self.by_model.get(&(provider, model)).map_or(&[][..], Vec::as_slice);
        let base = if own.iter().any(|ranked| ranked.row.origin == Origin::Builtin) {
            None
        } else {
            self.base(provider, model)
        };
        let layered = |rows: &[Ranked<'a>], overlay: u8| {
            let layer = move |row: &PriceRow| if row.origin == Origin::Overlay { overlay } else { 0 };
            rows.iter().map(move |r| Ranked { layer: layer(r.row), ..*r }).collect::<Vec<_>>()
        };
        let mut rows = layered(own, 2);
        rows.extend(layered(base.unwrap_or(&[]), 1));
        let matching = |ranked: &&Ranked<'a>| {
            let beginning = ranked.row.model.strip_suffix('*').unwrap_or(&ranked.row.model);
            &*ranked.row.provider == provider && model.starts_with(beginning)
        };
        rows.extend(self.discounts.iter().filter(matching).copied());
        Sheet { rows }
    }

    /// The rows of the model that `model` is another name of.
    fn base(&self, provider: &'a str, model: &'a str) -> Option<&[Ranked<'a>]> {
        let other_name = |name: &str| self.names.get(&(Arc::from(provider), Arc::from(name)));
        if let Some(canonical) = other_name(model) {
            return self.by_model.get(&(provider, &**canonical)).map(Vec::as_slice);
        }
        let stem = names::without_date(model)?;
        let rows = self.by_model.get(&(provider, stem));
        rows.or_else(|| self.by_model.get(&(provider, &**other_name(stem)?))).map(Vec::as_slice)
    }
}

// === from the rows of a model to its table ===

struct Sheet<'a> {
    rows: Vec<Ranked<'a>>,
}

impl<'a> Sheet<'a> {
    fn table(&self) -> Result<Table, BookError> {
        let prices = || self.rows.iter().map(|ranked| ranked.row).filter(|row| row.price().is_some());
        let tiers: BTreeSet<&str> = prices().map(|row| &*row.tier).collect();
        let regions: BTreeSet<&Arc<str>> = self.rows.iter().filter_map(|r| r.row.region.as_ref()).collect();
        let mut variants = Vec::new();
        for region in std::iter::once(None).chain(regions.iter().map(|region| Some(Arc::clone(region)))) {
            for tier in &tiers {
                let view = View { sheet: self, region: region.as_deref(), tier };
                let periods = view.periods()?;
                if periods.iter().any(|period| !period.bands.is_empty()) {
                    variants.push(Variant { region: region.clone(), tier: Arc::from(*tier), periods });
                }
            }
        }
        let regional = self.rows.iter().any(|ranked| matches!(ranked.row.term, Term::Uplift(_)));
        Ok(Table { variants: variants.into(), regional })
    }
}

/// The rows of a model as one region and tier see them.
struct View<'s, 'a> {
    sheet: &'s Sheet<'a>,
    region: Option<&'s str>,
    tier: &'s str,
}

/// The row that holds for an item, for each threshold from the lowest.
type Choice<'a> = Vec<(u64, Chosen<'a>)>;

#[derive(Clone, Copy)]
struct Chosen<'a> {
    ranked: Ranked<'a>,
    item: Item,
    price: Price,
}

/// What holds for one item.
struct Pick<'a> {
    item: Item,
    list: Choice<'a>,
    contracted: Choice<'a>,
}

/// A factor and the row that says so.
type Factor = Option<(Millionths, RowRef)>;

impl<'a> View<'_, 'a> {
    fn periods(&self) -> Result<Box<[Period]>, BookError> {
        let edges = self.sheet.rows.iter().flat_map(|ranked| [ranked.row.from, ranked.row.until]).flatten();
        let starts: BTreeSet<Timestamp> = edges.chain([BEGINNING]).collect();
        let mut periods: Vec<Period> = Vec::new();
        for from in starts {
            let period = self.period(from)?;
            let same = |last: &Period| last.bands == period.bands;
            if !periods.last().is_some_and(same) {
                periods.push(period);
            }
        }
        Ok(periods.into())
    }

    fn period(&self, from: Timestamp) -> Result<Period, BookError> {
        let active: Vec<Ranked<'a>> =
            self.sheet.rows.iter().copied().filter(|r| self.sees(r.row, from)).collect();
        // Fees borrowed from the standard tier alone do not make the tier known at that time.
        let own = active.iter().any(|ranked| ranked.row.price().is_some() && *ranked.row.tier == *self.tier);
        let picks = if own { self.picks(&active) } else { Vec::new() };
        let currency = one_currency(&picks)?;
        let (uplift, discount) = (self.uplift(&active), discount(&active));
        let thresholds: BTreeSet<u64> = picks
            .iter()
            .flat_map(|pick| pick.list.iter().chain(&pick.contracted).map(|(above, _)| *above))
            .chain((!picks.is_empty()).then_some(0))
            .collect();
        let mut bands = Vec::new();
        for above in thresholds {
            let slots = picks.iter().map(|pick| slot(pick, above, uplift, discount));
            let slots: Result<Vec<Option<Slot>>, BookError> = slots.collect();
            bands.push(Band { above, slots: slots?.into_iter().flatten().collect() });
        }
        Ok(Period { from, currency, bands: bands.into() })
    }

    fn sees(&self, row: &PriceRow, at: Timestamp) -> bool {
        let region = match (&row.region, self.region) {
            (None, _) => true,
            (Some(theirs), Some(ours)) => **theirs == *ours,
            (Some(_), None) => false,
        };
        let fee = row.price().is_some_and(|(item, _, _)| !item.is_token());
        let tier = *row.tier == *self.tier || &*row.tier == EVERY_TIER || (fee && &*row.tier == STANDARD);
        region && tier && row.holds(at)
    }

    fn picks(&self, active: &[Ranked<'a>]) -> Vec<Pick<'a>> {
        let priced = active.iter().filter_map(|ranked| {
            let (item, above, price) = ranked.row.price()?;
            Some((above, Chosen { ranked: *ranked, item, price }))
        });
        let priced: Vec<(u64, Chosen<'a>)> = priced.collect();
        let items: BTreeSet<Item> = priced.iter().map(|(_, chosen)| chosen.item).collect();
        let choice = |item, kind| {
            let wanted =
                |(_, chosen): &&(u64, Chosen<'a>)| chosen.item == item && chosen.ranked.row.kind == kind;
            self.choose(priced.iter().filter(wanted).copied().collect())
        };
        let pick = |item| Pick {
            item,
            list: choice(item, PriceKind::List),
            contracted: choice(item, PriceKind::Contracted),
        };
        items.into_iter().map(pick).collect()
    }

    /// Of the rows for one item, those that hold.
    fn choose(&self, mut rows: Choice<'a>) -> Choice<'a> {
        let rank = |chosen: &Chosen<'a>| {
            let row = chosen.ranked.row;
            (chosen.ranked.layer, *row.tier == *self.tier, row.region.is_some())
        };
        let start = |chosen: &Chosen<'a>| chosen.ranked.row.from.unwrap_or(BEGINNING);
        let best = rows.iter().map(|(_, chosen)| rank(chosen)).max();
        rows.retain(|(_, chosen)| Some(rank(chosen)) == best);
        let base = rows.iter().filter(|(above, _)| *above == 0).map(|(_, chosen)| start(chosen)).max();
        rows.retain(|(_, chosen)| base.is_none_or(|base| start(chosen) >= base));
        rows.sort_by_key(|(above, chosen)| (*above, std::cmp::Reverse(start(chosen))));
        rows.dedup_by_key(|(above, _)| *above);
        rows
    }

    fn uplift(&self, active: &[Ranked<'a>]) -> Factor {
        let factors = active.iter().filter_map(|ranked| match ranked.row.term {
            Term::Uplift(factor) if ranked.row.region.is_some() => Some((ranked, factor)),
            _ => None,
        });
        let latest = factors.max_by_key(|(ranked, _)| (ranked.layer, ranked.row.from));
        latest.map(|(ranked, factor)| (factor, ranked.at))
    }
}

/// The discount that holds: on the most exact model name, then tier, then region, then the latest.
fn discount(active: &[Ranked<'_>]) -> Factor {
    let discounts = active.iter().filter_map(|ranked| match ranked.row.term {
        Term::Discount(part) => Some((ranked, part)),
        _ => None,
    });
    let best = discounts.max_by_key(|(ranked, _)| {
        let row = ranked.row;
        (ranked.layer, row.model.len(), &*row.tier != EVERY_TIER, row.region.is_some(), row.from)
    });
    best.map(|(ranked, part)| (part.complement(), ranked.at))
}

/// The one currency of all picks; USD when there are none.
fn one_currency(picks: &[Pick<'_>]) -> Result<Currency, BookError> {
    let mut chosen = picks.iter().flat_map(|pick| pick.list.iter().chain(&pick.contracted)).map(|(_, c)| c);
    let Some(first) = chosen.next() else { return Ok(Currency::USD) };
    let currency = first.price.rate.currency();
    match chosen.find(|other| other.price.rate.currency() != currency) {
        None => Ok(currency),
        Some(other) => Err(BookError::MixedCurrency {
            first: Arc::clone(&first.ranked.row.id),
            second: Arc::clone(&other.ranked.row.id),
        }),
    }
}

/// What an item costs above a threshold; thresholds that it does not know leave its price as it is.
fn slot(pick: &Pick<'_>, above: u64, uplift: Factor, discount: Factor) -> Result<Option<Slot>, BookError> {
    let (list, contracted) = (at_threshold(&pick.list, above), at_threshold(&pick.contracted, above));
    let raised = |chosen: &Chosen<'_>| {
        let uplift = uplift.filter(|_| chosen.item.is_token() && chosen.ranked.row.region.is_none());
        times(chosen.price.rate.pico_per_unit(), uplift, &chosen.ranked)
            .map(|pico| (pico, uplift.map(|(_, at)| at)))
    };
    let list_price = list.as_ref().map(raised).transpose()?;
    let contracted_price = contracted.as_ref().map(raised).transpose()?;
    let list_part = list.zip(list_price);
    let contracted_part = contracted.zip(contracted_price);
    let Some((basis, (pico, uplift_row))) = contracted_part.or(list_part) else { return Ok(None) };
    let discount = discount.filter(|_| contracted.is_none());
    Ok(Some(Slot {
        item: pick.item,
        list: list_price.map_or(0, |(pico, _)| pico),
        list_per: list.map_or(1, |chosen| chosen.price.per),
        contracted: times(pico, discount, &basis.ranked)?,
        contracted_per: basis.price.per,
        list_row: list.map(|chosen| chosen.ranked.at),
        contracted_row: contracted.map(|chosen| chosen.ranked.at).or(discount.map(|(_, at)| at)),
        uplift_row: list_price.and_then(|(_, at)| at).or(uplift_row),
    }))
}

fn at_threshold<'a>(choice: &Choice<'a>, above: u64) -> Option<Chosen<'a>> {
    choice.iter().rev().find(|(from, _)| *from <= above).map(|(_, chosen)| *chosen)
}

fn times(pico: u64, factor: Factor, ranked: &Ranked<'_>) -> Result<u64, BookError> {
    let Some((factor, _)) = factor else { return Ok(pico) };
    factor.times(pico).ok_or_else(|| BookError::PriceTooLarge { id: Arc::clone(&ranked.row.id) })
}
