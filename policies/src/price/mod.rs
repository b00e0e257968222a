//! Prices: usage × effective-dated price book → cost.
//!
//! Invariants
//! - Unknown is never zero: what has no price leaves the cost `Unpriced` or `PartlyPriced`.
//! - A cost is a sum of rate × count in integers. Only prices per more than one unit (an hour of
//!   audio) round, half-even to a pico-unit.
//! - A cost names every row it rests on, and asking again with the same book gives the same cost.
//!
//! What prices a call
//! - The **served** model; the requested one only when nobody said what was served, or where it says
//!   more about the same model (Bedrock's geographies, OpenRouter's vendors). A name is looked up
//!   exactly, then by the patterns of the book, then without a date at its end, and then in the same
//!   order without what the provider puts around a name (`models/…`, an ARN, `@default`) and in
//!   lower case. Nothing else is tried: another version is another model. A provider is looked up as
//!   it is named.
//! - The **served** tier. `default`, `auto`, `standard`, `not_available`, `on_demand` and silence
//!   are standard; any other tier that the book does not know for the model is unpriced, never
//!   standard. Fast mode (`speed`) is the tier `fast`.
//! - The region, where the model has prices or factors by region. A row without region holds
//!   everywhere; but where a provider raises the model's price by region (a factor), a region that
//!   is not in the book leaves the cost partly priced at the price without region.
//! - The rows that hold when the call began, by date and by the hour of the day in UTC. A row without
//!   start holds from the beginning of time; before the first start there is no price.
//! - Total input, cached included, against context thresholds: at a threshold the base price,
//!   above it every class of the request at the higher one. A class that the threshold does not
//!   mention keeps its price.
//!
//! Classes without a price of their own
//! - cached reads, cache writes and tool-use prompts: plain input (a write for five minutes or an
//!   hour first as a write of unknown lifetime; that one first as a five-minute write);
//! - image and video input: plain input. OpenAI (chat models) and Anthropic bill picture tokens as
//!   text, Gemini bills video as text; models where it differs have rows of their own;
//! - cached audio: fresh audio, the safe side: never the text cache price (langwatch#7048). Cached
//!   images: fresh images, or cached text where the model has no image price; cached video: cached text;
//! - reasoning: output;
//! - audio input, audio output and image output: no price, the cost is partly priced;
//! - web searches: the price of a request that searched, if there is one, else no price;
//! - rerank units, images to change, and what a larger search context costs more: no price. Seconds, pages and images only count where the book
//!   prices them; when they are all that is known and the book does not, the call is unpriced.
//!
//! Not here: provider-sent costs and which cost bills (`ledger`), hedges and amortisation (`hedge`).

mod book;
mod bound;
mod builtin;
mod classes;
mod compile;
mod edition;
mod holding;
mod names;
pub mod overlay;
mod row;

pub use book::{ModelEntry, PriceBook};
pub use bound::BoundAsk;
pub use builtin::LineError;
pub use classes::{ClassCosts, PartCost};
pub use edition::{Edition, builtin_edition};
pub use holding::Holding;
pub use overlay::{OverlayError, OverlayErrors, OverlayFile, OverlayRow};
pub use row::{
    ANY_REGION, EVERY_TIER, Hours, Item, MILLION, Millionths, Origin, Price, PriceKind, PriceRow, STANDARD,
    Term, instant_text,
};

use bursar_domain::money::div_half_even;
use bursar_domain::{Cost, CostStatus, Currency, ModelUsage, Quantity, Timestamp, TokenClass, Usage};
use compile::{Band, RowRef, Slot, Table, Variant, band_for};
use row::minute_of_day;
use std::fmt;
use std::sync::Arc;

/// What a call must tell to be priced.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The record's provider.
    pub provider: &'a str,
    /// The model that answered.
    pub model_served: Option<&'a str>,
    /// The model that was asked for.
    pub model_requested: Option<&'a str>,
    /// The tier that was served.
    pub tier: Option<&'a str>,
    /// The price region or geography (`inference_geo`).
    pub region: Option<&'a str>,
    /// The speed mode that was served.
    pub speed: Option<&'a str>,
    /// When the call began.
    pub at: Timestamp,
    /// What was used, all models together.
    pub usage: &'a Usage,
    /// The parts per model, when there were several. They make up `usage`.
    pub by_model: &'a [ModelUsage],
}

/// Why a cost is not complete. The first reason found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// Neither the served nor the requested model is known.
    NoModel,
    /// The book has nothing of this provider.
    UnknownProvider,
    /// The book does not have the model.
    UnknownModel,
    /// The book does not have the model on this tier.
    UnknownTier,
    /// The provider raises the model's price by region, and this one is not in the book.
    UnknownRegion,
    /// The book has the model, but not for that time.
    NoPriceThen,
    /// Nobody knows what was used.
    NoUsage,
    /// Nobody knows how much input was used.
    InputUnknown,
    /// Nobody knows how much output was used.
    OutputUnknown,
    /// An item that was used has no price.
    NoPrice(Item),
    /// The parts per model do not make up the whole.
    PartsDoNotAddUp,
    /// The models of one call have prices in two currencies.
    TwoCurrencies,
    /// The amount does not fit: the counts are not real.
    TooLarge,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoModel => f.write_str("no model is known"),
            Self::UnknownProvider => f.write_str("the price book has no such provider"),
            Self::UnknownModel => f.write_str("the price book has no such model"),
            Self::UnknownTier => f.write_str("the price book has no such tier for the model"),
            Self::UnknownRegion => f.write_str("the price book has no such region for the model"),
            Self::NoPriceThen => f.write_str("the price book has no price for that time"),
            Self::NoUsage => f.write_str("nobody knows what was used"),
            Self::InputUnknown => f.write_str("nobody knows how much input was used"),
            Self::OutputUnknown => f.write_str("nobody knows how much output was used"),
            Self::NoPrice(item) => write!(f, "no price for {}", item.name()),
            Self::PartsDoNotAddUp => f.write_str("the parts per model do not make up the whole"),
            Self::TwoCurrencies => f.write_str("the models of the call have prices in two currencies"),
            Self::TooLarge => f.write_str("the amount is too large"),
        }
    }
}

/// Why rows do not make a price book.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// A line of a price file cannot be read.
    #[error("line {line}: {source}")]
    Line {
        /// Its number, from one.
        line: usize,
        /// What is wrong.
        source: LineError,
    },
    /// Two rows have one id.
    #[error("two price rows have the id {0:?}: remove one of them")]
    DuplicateId(Arc<str>),
    /// Prices of one model, tier and time in two currencies.
    #[error(
        "{first:?} and {second:?} hold together but have two currencies: give all items of the model in one"
    )]
    MixedCurrency {
        /// A row of the one currency.
        first: Arc<str>,
        /// A row of the other.
        second: Arc<str>,
    },
    /// A price times a factor does not fit.
    #[error("the price of {id:?} is too large")]
    PriceTooLarge {
        /// The row.
        id: Arc<str>,
    },
    /// More rows than can be numbered.
    #[error("the price book has more than four thousand million rows")]
    TooLarge,
}

impl PriceBook {
    /// What a call costs.
    #[must_use]
    pub fn price(&self, ask: &Ask<'_>) -> Cost {
        self.explain(ask).0
    }

    /// What a call costs, and what keeps the cost from being complete.
    #[must_use]
    pub fn explain(&self, ask: &Ask<'_>) -> (Cost, Option<Gap>) {
        let mut bill = Bill::new();
        let main = self.main_tariff(ask);
        if ask.by_model.is_empty() {
            bill.tokens(&main, ask.usage);
        }
        for part in ask.by_model {
            match &part.model {
                Some(model) => bill.tokens(&self.tariff(ask, model.as_str()), &part.usage),
                None => bill.tokens(&main, &part.usage),
            }
        }
        if !parts_add_up(ask) {
            bill.miss(Gap::PartsDoNotAddUp);
        }
        bill.fees(&main, ask.usage);
        bill.total()
    }

    /// The prices of the call's model at the time, on the tier and in the region of the call.
    fn main_tariff(&self, ask: &Ask<'_>) -> Result<Tariff<'_>, Gap> {
        let mut gap = Gap::NoModel;
        for model in names::priced_names(ask.provider, ask.model_served, ask.model_requested) {
            match self.tariff(ask, model) {
                Err(Gap::UnknownModel) => gap = Gap::UnknownModel,
                found => return found,
            }
        }
        Err(gap)
    }

    fn tariff(&self, ask: &Ask<'_>, model: &str) -> Result<Tariff<'_>, Gap> {
        let table = self.table(ask.provider, model).ok_or_else(|| {
            if self.has_provider(ask.provider) { Gap::UnknownModel } else { Gap::UnknownProvider }
        })?;
        let tier = names::served_tier(ask.provider, ask.tier, ask.speed).ok_or(Gap::UnknownTier)?;
        table.tariff(tier, names::canonical_region(ask.region), ask.at)
    }
}

/// Whether the parts per model make up the whole, as far as the whole is known.
fn parts_add_up(ask: &Ask<'_>) -> bool {
    if ask.by_model.is_empty() || !ask.usage.has_tokens() {
        return true;
    }
    let mut sum = Usage::unknown();
    for part in ask.by_model {
        sum.add(&part.usage);
    }
    let totals = |usage: &Usage| (usage.input_total().unwrap_or(0), usage.output_total().unwrap_or(0));
    totals(&sum) == totals(ask.usage)
}

/// The prices that hold for one model of one call.
#[derive(Clone, Copy)]
struct Tariff<'b> {
    table: &'b Table,
    currency: Currency,
    /// By rising threshold; not empty.
    bands: &'b [Band],
    region_known: bool,
}

impl<'b> Tariff<'b> {
    fn band(&self, usage: &Usage) -> Option<&'b Band> {
        band_for(self.bands, usage.input_total().unwrap_or(0))
    }
}

// === impl Table ===

impl Table {
    fn tariff(&self, tier: &str, region: Option<&str>, at: Timestamp) -> Result<Tariff<'_>, Gap> {
        let named = self.sold_in(region) || self.sold_in(Some(ANY_REGION));
        let region_known = region.is_none() || !self.regional || named;
        let any = region.map(|_| ANY_REGION);
        let here = region.and_then(|name| self.variant(Some(name), tier));
        let here = here.or_else(|| self.variant(Some(any?), tier));
        let variant = here.or_else(|| self.variant(None, tier));
        let sold = self.sold_in(region) || self.sold_in(None) || (any.is_some() && self.sold_in(any));
        let missing = if sold { Gap::UnknownTier } else { Gap::UnknownRegion };
        let period = variant.ok_or(missing)?.period(at).ok_or(Gap::NoPriceThen)?;
        let bands = period.bands(minute_of_day(at));
        if bands.is_empty() {
            return Err(Gap::NoPriceThen);
        }
        Ok(Tariff { table: self, currency: period.currency, bands, region_known })
    }

    fn variant(&self, region: Option<&str>, tier: &str) -> Option<&Variant> {
        self.variants.iter().find(|variant| variant.is_in(region) && variant.tier.eq_ignore_ascii_case(tier))
    }

    fn sold_in(&self, region: Option<&str>) -> bool {
        self.variants.iter().any(|variant| variant.is_in(region))
    }
}

/// The classes whose price a class takes, the first that has one.
const fn priced_as(class: TokenClass) -> &'static [TokenClass] {
    use TokenClass as C;
    match class {
        C::InputFresh => &[C::InputFresh],
        C::InputAudio => &[C::InputAudio],
        C::InputImage => &[C::InputImage, C::InputFresh],
        C::InputVideo => &[C::InputVideo, C::InputFresh],
        C::InputToolUse => &[C::InputToolUse, C::InputFresh],
        C::CachedRead => &[C::CachedRead, C::InputFresh],
        C::CachedAudio => &[C::CachedAudio, C::InputAudio],
        C::CachedImage => &[C::CachedImage, C::InputImage, C::CachedRead, C::InputFresh],
        C::CachedVideo => &[C::CachedVideo, C::CachedRead, C::InputVideo, C::InputFresh],
        C::CacheWrite => &[C::CacheWrite, C::CacheWrite5m, C::InputFresh],
        C::CacheWrite5m => &[C::CacheWrite5m, C::CacheWrite, C::InputFresh],
        C::CacheWrite1h => &[C::CacheWrite1h, C::CacheWrite, C::InputFresh],
        C::CacheRewrite => &[C::CacheRewrite, C::CacheWrite, C::CacheWrite5m, C::InputFresh],
        C::OutputText => &[C::OutputText],
        C::OutputReasoning => &[C::OutputReasoning, C::OutputText],
        C::OutputReasoningAudio => &[C::OutputReasoningAudio, C::OutputAudio],
        C::OutputAudio => &[C::OutputAudio],
        C::OutputImage => &[C::OutputImage],
    }
}

/// Which side of the bill a class is on.
const fn is_output(class: TokenClass) -> bool {
    use TokenClass as C;
    matches!(
        class,
        C::OutputText | C::OutputReasoning | C::OutputAudio | C::OutputImage | C::OutputReasoningAudio
    )
}

/// What a quantity without a price means.
enum Unpriceable {
    /// The provider charges for it: the cost is not complete.
    Charged,
    /// Another measure of what tokens measure: it matters only when it is all there is.
    Measure,
    /// Never charged.
    Free,
}

const fn unpriceable(quantity: Quantity) -> Unpriceable {
    use Quantity as Q;
    match quantity {
        Q::WebSearchRequests
        | Q::SearchUnits
        | Q::InputImages
        | Q::MediumSearchContext
        | Q::HighSearchContext => Unpriceable::Charged,
        Q::AudioMillis | Q::Pages | Q::Images => Unpriceable::Measure,
        Q::BilledInputTokens
        | Q::BilledOutputTokens
        | Q::WebFetchRequests
        | Q::ToolCalls
        | Q::AcceptedPrediction
        | Q::RejectedPrediction => Unpriceable::Free,
    }
}

/// A cost being added up.
struct Bill {
    currency: Option<Currency>,
    /// `None` once something used has no public price.
    list: Option<i128>,
    contracted: i128,
    rows: Vec<Arc<str>>,
    /// Whether anything was added.
    charged: bool,
    /// Whether any count is known that a price was found for, even when it is zero.
    known: bool,
    gap: Option<Gap>,
}

impl Bill {
    const fn new() -> Self {
        Self {
            currency: None,
            list: Some(0),
            contracted: 0,
            rows: Vec::new(),
            charged: false,
            known: false,
            gap: None,
        }
    }

    /// Notes that something has no price.
    fn miss(&mut self, gap: Gap) {
        if gap == Gap::TooLarge || self.gap.is_none() {
            self.gap = Some(gap);
        }
    }

    /// Adds the tokens of one model.
    fn tokens(&mut self, tariff: &Result<Tariff<'_>, Gap>, usage: &Usage) {
        let tariff = match tariff {
            Ok(tariff) => tariff,
            Err(gap) => return self.miss(*gap),
        };
        if *self.currency.get_or_insert(tariff.currency) != tariff.currency {
            return self.miss(Gap::TwoCurrencies);
        }
        if !tariff.region_known {
            self.miss(Gap::UnknownRegion);
        }
        let Some(band) = tariff.band(usage) else { return };
        self.sides(band, usage);
        let billed_input = usage.quantity(Quantity::BilledInputTokens);
        let billed_output = usage.quantity(Quantity::BilledOutputTokens);
        for (class, count) in usage.tokens() {
            let billed = if is_output(class) { billed_output } else { billed_input };
            if billed.is_none() {
                self.known = true;
                self.class(tariff.table, band, class, count);
            }
        }
        for (class, billed) in
            [(TokenClass::InputFresh, billed_input), (TokenClass::OutputText, billed_output)]
        {
            if let Some(count) = billed {
                self.known = true;
                self.class(tariff.table, band, class, count);
            }
        }
    }

    /// A side of the bill that the model charges for and nobody counted is not zero.
    fn sides(&mut self, band: &Band, usage: &Usage) {
        let priced = |class| band.slot(Item::Token(class)).is_some();
        let input = usage.input_total().or(usage.quantity(Quantity::BilledInputTokens));
        let output = usage.output_total().or(usage.quantity(Quantity::BilledOutputTokens));
        let no_input = priced(TokenClass::InputFresh) && input.is_none();
        let no_output = priced(TokenClass::OutputText) && output.is_none();
        match (no_input, no_output) {
            (true, true) => self.miss(Gap::NoUsage),
            (true, false) => self.miss(if output.is_none() { Gap::NoUsage } else { Gap::InputUnknown }),
            (false, true) => self.miss(if input.is_none() { Gap::NoUsage } else { Gap::OutputUnknown }),
            (false, false) => {}
        }
    }

    fn class(&mut self, table: &Table, band: &Band, class: TokenClass, count: u64) {
        if count == 0 {
            return;
        }
        match priced_as(class).iter().find_map(|class| band.slot(Item::Token(*class))) {
            Some(slot) => self.add(table, slot, count),
            None => self.miss(Gap::NoPrice(Item::Token(class))),
        }
    }

    /// Adds what is charged per call: searches, pages, the request itself.
    fn fees(&mut self, main: &Result<Tariff<'_>, Gap>, usage: &Usage) {
        let mut tariff = main.as_ref().ok().copied();
        tariff = tariff.filter(|tariff| *self.currency.get_or_insert(tariff.currency) == tariff.currency);
        let found = tariff.and_then(|tariff| tariff.band(usage).map(|band| (tariff.table, band)));
        let slot = |item| found.and_then(|(table, band)| band.slot(item).map(|slot| (table, slot)));
        if let Some((table, slot)) = slot(Item::Request) {
            self.known = true;
            self.add(table, slot, 1);
        }
        for (quantity, amount) in usage.quantities() {
            let item = Item::Quantity(quantity);
            let searched = quantity == Quantity::WebSearchRequests;
            // One price for a request with searches stands for the price of each.
            let grounded = slot(Item::GroundedRequest).filter(|_| searched && slot(item).is_none());
            match (slot(item), grounded, unpriceable(quantity)) {
                (Some((table, slot)), _, _) => {
                    self.known = true;
                    self.add(table, slot, amount);
                }
                (None, Some((table, slot)), _) => {
                    self.known = true;
                    self.add(table, slot, amount.min(1));
                }
                (None, None, Unpriceable::Charged) if amount > 0 => self.miss(Gap::NoPrice(item)),
                (None, None, Unpriceable::Measure) if amount > 0 && !self.charged => {
                    self.miss(Gap::NoPrice(item));
                }
                (None, None, _) => {}
            }
        }
    }

    fn add(&mut self, table: &Table, slot: &Slot, count: u64) {
        if count == 0 {
            return;
        }
        self.charged = true;
        let contracted = amount(slot.contracted, slot.contracted_per, count);
        match contracted.and_then(|pico| self.contracted.checked_add(pico)) {
            Some(sum) => self.contracted = sum,
            None => self.miss(Gap::TooLarge),
        }
        if slot.list_row.is_none() {
            self.list = None;
        } else if let Some(list) = self.list {
            match amount(slot.list, slot.list_per, count).and_then(|pico| list.checked_add(pico)) {
                Some(sum) => self.list = Some(sum),
                None => self.miss(Gap::TooLarge),
            }
        }
        for row in [slot.list_row, slot.contracted_row, slot.uplift_row].into_iter().flatten() {
            self.name(table, row);
        }
    }

    fn name(&mut self, table: &Table, row: RowRef) {
        let Some(id) = table.id(row) else { return };
        if !self.rows.iter().any(|named| Arc::ptr_eq(named, id)) {
            if self.rows.is_empty() {
                self.rows.reserve(6);
            }
            self.rows.push(Arc::clone(id));
        }
    }

    fn total(self) -> (Cost, Option<Gap>) {
        let nothing = !self.charged && (self.gap.is_some() || !self.known);
        let currency = self.currency.unwrap_or(Currency::USD);
        if nothing || self.gap == Some(Gap::TooLarge) {
            return (Cost::unpriced(currency), Some(self.gap.unwrap_or(Gap::NoUsage)));
        }
        let status = if self.gap.is_some() { CostStatus::PartlyPriced } else { CostStatus::Priced };
        let cost = Cost {
            status,
            currency,
            list_pico: self.list,
            contracted_pico: Some(self.contracted),
            billed_pico: Some(self.contracted),
            price_rows: self.rows,
        };
        (cost, self.gap)
    }
}

/// Price × count in pico-units; a price for several units rounds half-even.
fn amount(pico: u64, per: u32, count: u64) -> Option<i128> {
    let product = i128::from(pico).checked_mul(i128::from(count))?;
    if per == 1 { Some(product) } else { div_half_even(product, i128::from(per)).ok() }
}

#[cfg(test)]
mod provider_tests;
#[cfg(test)]
mod tests;
