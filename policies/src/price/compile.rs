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
//! - Then a row of the asked region before one for any named region, and that before one without.
//! - Then the one with the latest start. Thresholds older than the base price end with it.
//! - Of two with one start, the one for this part of the day.
//!
//! Not here: which rows a model has (`book`), what a call costs (`mod`).

use super::BookError;
use super::row::{
    ANY_REGION, EVERY_TIER, Hours, Item, Millionths, Origin, Price, PriceKind, PriceRow, STANDARD, Term,
};
use bursar_domain::{Currency, Timestamp};
use std::collections::BTreeSet;
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

/// Prices from one minute of every day (UTC) to the next face.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Face {
    minute: u16,
    /// By rising threshold, the first from zero; empty where nothing has a price.
    bands: Box<[Band]>,
}

/// Prices from one instant to the next period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Period {
    pub(super) from: Timestamp,
    pub(super) currency: Currency,
    /// By minute of the day, the first from midnight.
    faces: Box<[Face]>,
}

impl Period {
    /// The prices at a minute of the day; empty where nothing has a price.
    pub(super) fn bands(&self, minute: u16) -> &[Band] {
        let number = self.faces.partition_point(|face| face.minute <= minute).checked_sub(1);
        number.and_then(|number| self.faces.get(number)).map_or(&[], |face| &face.bands)
    }

    /// The parts of the day in order: first minute, first minute of the next, prices.
    pub(super) fn faces(&self) -> impl Iterator<Item = (u16, u16, &[Band])> {
        let nexts = self.faces.iter().skip(1).map(|face| face.minute).chain([0]);
        self.faces.iter().zip(nexts).map(|(face, next)| (face.minute, next, &*face.bands))
    }

    fn has_prices(&self) -> bool {
        self.faces.iter().any(|face| !face.bands.is_empty())
    }
}

/// The prices for a request with `input` tokens: above a threshold, not at it.
pub(super) fn band_for(bands: &[Band], input: u64) -> Option<&Band> {
    bands.iter().rev().find(|band| band.above < input || band.above == 0)
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
    /// Ids of the rows.
    ids: Box<[Arc<str>]>,
}

impl Variant {
    /// The period that holds at `at`.
    pub(super) fn period(&self, at: Timestamp) -> Option<&Period> {
        let number = self.periods.partition_point(|period| period.from <= at).checked_sub(1)?;
        self.periods.get(number)
    }
}

impl Table {
    /// The id of a row.
    pub(super) fn id(&self, row: RowRef) -> Option<&Arc<str>> {
        self.ids.get(row.index())
    }
}

/// A row with its weight: a higher layer wins.
#[derive(Clone, Copy)]
struct Ranked<'a> {
    layer: u8,
    at: RowRef,
    row: &'a PriceRow,
}

/// The rows of one model, each with its layer.
#[derive(Debug, Default)]
pub(super) struct Sheet {
    rows: Vec<(u8, PriceRow)>,
}

impl Sheet {
    /// Adds rows that hold for the model; overlay rows are of the layer `overlay`.
    pub(super) fn add(&mut self, rows: impl IntoIterator<Item = PriceRow>, overlay: u8) {
        let layer = |row: &PriceRow| if row.origin == Origin::Overlay { overlay } else { 0 };
        self.rows.extend(rows.into_iter().map(|row| (layer(&row), row)));
    }

    /// Whether a row of the built-in book is there.
    pub(super) fn has_builtin(&self) -> bool {
        self.rows.iter().any(|(_, row)| row.origin == Origin::Builtin)
    }

    /// The rows.
    pub(super) fn into_rows(self) -> Vec<PriceRow> {
        self.rows.into_iter().map(|(_, row)| row).collect()
    }

    /// The table of the rows; `None` when no row is a price.
    pub(super) fn compile(&self) -> Result<Option<Table>, BookError> {
        let mut ranked = Vec::with_capacity(self.rows.len());
        for (index, (layer, row)) in self.rows.iter().enumerate() {
            let at = RowRef::new(index).ok_or(BookError::TooLarge)?;
            ranked.push(Ranked { layer: *layer, at, row });
        }
        let ids = self.rows.iter().map(|(_, row)| Arc::clone(&row.id)).collect();
        let table = RankedSheet { rows: ranked }.table(ids)?;
        Ok(Some(table).filter(|table| !table.variants.is_empty()))
    }
}

// === from the rows of a model to its table ===

struct RankedSheet<'a> {
    rows: Vec<Ranked<'a>>,
}

impl<'a> RankedSheet<'a> {
    fn table(&self, ids: Box<[Arc<str>]>) -> Result<Table, BookError> {
        let prices = || self.rows.iter().map(|ranked| ranked.row).filter(|row| row.price().is_some());
        let tiers: BTreeSet<&str> = prices().map(|row| &*row.tier).collect();
        let regions: BTreeSet<&Arc<str>> = self.rows.iter().filter_map(|r| r.row.region.as_ref()).collect();
        let mut variants = Vec::new();
        for region in std::iter::once(None).chain(regions.iter().map(|region| Some(Arc::clone(region)))) {
            for tier in &tiers {
                let view = View { sheet: self, region: region.as_deref(), tier };
                let periods = view.periods()?;
                if periods.iter().any(Period::has_prices) {
                    variants.push(Variant { region: region.clone(), tier: Arc::from(*tier), periods });
                }
            }
        }
        let regional = self.rows.iter().any(|ranked| matches!(ranked.row.term, Term::Uplift(_)));
        Ok(Table { variants: variants.into(), regional, ids })
    }
}

/// The rows of a model as one region and tier see them.
struct View<'s, 'a> {
    sheet: &'s RankedSheet<'a>,
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
            let same = |last: &Period| last.faces == period.faces;
            if !periods.last().is_some_and(same) {
                periods.push(period);
            }
        }
        Ok(periods.into())
    }

    fn period(&self, from: Timestamp) -> Result<Period, BookError> {
        let active: Vec<Ranked<'a>> =
            self.sheet.rows.iter().copied().filter(|r| self.sees(r.row, from)).collect();
        let hours = active.iter().filter_map(|ranked| ranked.row.hours);
        let minutes: BTreeSet<u16> = hours.flat_map(Hours::edges).chain([0]).collect();
        let mut faces: Vec<Face> = Vec::new();
        let mut witness: Option<Chosen<'a>> = None;
        for minute in minutes {
            let now = active.iter().copied().filter(|r| r.row.hours.is_none_or(|hours| hours.holds(minute)));
            let bands = self.bands(&now.collect::<Vec<_>>(), &mut witness)?;
            if faces.last().is_none_or(|last| last.bands != bands) {
                faces.push(Face { minute, bands });
            }
        }
        let currency = witness.map_or(Currency::USD, |chosen| chosen.price.rate.currency());
        Ok(Period { from, currency, faces: faces.into() })
    }

    /// What the rows say at one time of the day. All of them have the currency of `witness`.
    fn bands(
        &self,
        active: &[Ranked<'a>],
        witness: &mut Option<Chosen<'a>>,
    ) -> Result<Box<[Band]>, BookError> {
        // Fees borrowed from the standard tier alone do not make the tier known at that time.
        let own = active.iter().any(|ranked| ranked.row.price().is_some() && *ranked.row.tier == *self.tier);
        let picks = if own { self.picks(active) } else { Vec::new() };
        one_currency(&picks, witness)?;
        let (uplift, discount) = (self.uplift(active), discount(active));
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
        Ok(bands.into())
    }

    fn sees(&self, row: &PriceRow, at: Timestamp) -> bool {
        let region = match (&row.region, self.region) {
            (None, _) => true,
            (Some(theirs), Some(ours)) => **theirs == *ours || &**theirs == ANY_REGION,
            (Some(_), None) => false,
        };
        let fee = row.price().is_some_and(|(item, _, _)| !item.is_token());
        let tier = *row.tier == *self.tier || &*row.tier == EVERY_TIER || (fee && &*row.tier == STANDARD);
        region && tier && row.in_window(at)
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
            let place = row.region.as_deref().map(|region| region != ANY_REGION);
            (chosen.ranked.layer, *row.tier == *self.tier, place)
        };
        let start = |chosen: &Chosen<'a>| chosen.ranked.row.from.unwrap_or(BEGINNING);
        let best = rows.iter().map(|(_, chosen)| rank(chosen)).max();
        rows.retain(|(_, chosen)| Some(rank(chosen)) == best);
        let base = rows.iter().filter(|(above, _)| *above == 0).map(|(_, chosen)| start(chosen)).max();
        rows.retain(|(_, chosen)| base.is_none_or(|base| start(chosen) >= base));
        // Rows of one start: one for this part of the day before one for all day.
        let by_clock = |chosen: &Chosen<'a>| (start(chosen), chosen.ranked.row.hours.is_some());
        rows.sort_by_key(|(above, chosen)| (*above, std::cmp::Reverse(by_clock(chosen))));
        rows.dedup_by_key(|(above, _)| *above);
        rows
    }

    fn uplift(&self, active: &[Ranked<'a>]) -> Factor {
        let factors = active.iter().filter_map(|ranked| match ranked.row.term {
            Term::Uplift(factor) if ranked.row.region.is_some() => Some((ranked, factor)),
            _ => None,
        });
        let latest = factors.max_by_key(|(ranked, _)| {
            let exact = ranked.row.region.as_deref() != Some(ANY_REGION);
            (ranked.layer, exact, ranked.row.from)
        });
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

/// Sees to it that all picks have the currency of `witness`, the first of them if there is none yet.
fn one_currency<'a>(picks: &[Pick<'a>], witness: &mut Option<Chosen<'a>>) -> Result<(), BookError> {
    for (_, chosen) in picks.iter().flat_map(|pick| pick.list.iter().chain(&pick.contracted)) {
        let first = witness.get_or_insert(*chosen);
        if first.price.rate.currency() != chosen.price.rate.currency() {
            return Err(BookError::MixedCurrency {
                first: Arc::clone(&first.ranked.row.id),
                second: Arc::clone(&chosen.ranked.row.id),
            });
        }
    }
    Ok(())
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
