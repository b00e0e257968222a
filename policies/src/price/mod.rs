//! Prices: usage × effective-dated price book → cost.
//!
//! Invariants
//! - Unknown is never zero: what has no price leaves the cost `Unpriced` or `PartlyPriced`.
//! - A cost is a sum of rate × count in integers. Only prices per more than one unit (an hour of
//!   audio) round, half-even to a pico-unit.
//! - A cost names every row it rests on, and asking again with the same book gives the same cost.
//!
//! What prices a call
//! - The **served** model; the requested one only when nobody said what was served. A name is
//!   looked up exactly, then by the patterns of the book, then without a date at its end. Nothing
//!   else is tried: another version is another model. A provider is looked up as it is named.
//! - The **served** tier. `default`, `auto`, `standard`, `not_available`, `on_demand` and silence
//!   are standard; any other tier that the book does not know for the model is unpriced, never
//!   standard. Fast mode (`speed`) is the tier `fast`.
//! - The region, where the model has prices or factors by region. A row without region holds
//!   everywhere; but where a provider raises the model's price by region (a factor), a region that
//!   is not in the book leaves the cost partly priced at the price without region.
//! - The rows that hold when the call began. A row without start holds from the beginning of time;
//!   before the first start there is no price.
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
//!   images: fresh images, or cached text where the model has no image price;
//! - reasoning: output;
//! - audio input, audio output and image output: no price, the cost is partly priced;
//! - web searches and rerank units: no price. Seconds, pages and images only count where the book
//!   prices them; when they are all that is known and the book does not, the call is unpriced.
//!
//! Not here: provider-sent costs and which cost bills (`ledger`), hedges and amortisation (`hedge`).

mod builtin;
mod compile;
mod names;
pub mod overlay;
mod row;

pub use builtin::LineError;
pub use overlay::{OverlayError, OverlayErrors, OverlayFile, OverlayRow};
pub use row::{EVERY_TIER, Item, MILLION, Millionths, Origin, Price, PriceKind, PriceRow, STANDARD, Term};

use bursar_domain::money::div_half_even;
use bursar_domain::{Cost, CostStatus, Currency, ModelUsage, Quantity, Timestamp, TokenClass, Usage};
use compile::{Band, Period, RowRef, Slot, Table, Tables, Variant};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Other names of models: (provider, name) → the model whose rows hold.
type Names = BTreeMap<(Arc<str>, Arc<str>), Arc<str>>;

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
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// A set of price rows, ready to price calls. Cheap to ask, not to build: share one.
#[derive(Clone, Debug, Default)]
pub struct PriceBook {
    /// By id.
    rows: Vec<PriceRow>,
    names: Names,
    tables: Tables,
}

impl PriceBook {
    /// The book without a row: everything is unpriced.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// The public prices that are compiled in.
    pub fn builtin() -> Result<Self, BookError> {
        let (rows, names) = builtin::read()?;
        Self::new(rows, names)
    }

    /// A book of `rows`, in any order.
    pub fn from_rows(rows: Vec<PriceRow>) -> Result<Self, BookError> {
        Self::new(rows, Names::new())
    }

    /// This book with the rows of an overlay file, which win.
    pub fn with_overlay(&self, file: &OverlayFile) -> Result<Self, OverlayErrors> {
        let mut rows = self.rows.clone();
        rows.extend(overlay::rows(file)?);
        Self::new(rows, self.names.clone()).map_err(OverlayErrors::from)
    }

    fn new(mut rows: Vec<PriceRow>, names: Names) -> Result<Self, BookError> {
        rows.sort_by(|a, b| a.id.cmp(&b.id));
        let twins = rows.iter().zip(rows.iter().skip(1)).find(|(a, b)| a.id == b.id);
        if let Some((twin, _)) = twins {
            return Err(BookError::DuplicateId(Arc::clone(&twin.id)));
        }
        rows.shrink_to_fit();
        let tables = compile::compile(&rows, &names)?;
        Ok(Self { rows, names, tables })
    }

    /// All rows, by id.
    #[must_use]
    pub fn rows(&self) -> &[PriceRow] {
        &self.rows
    }

    /// The row with this id.
    #[must_use]
    pub fn row(&self, id: &str) -> Option<&PriceRow> {
        let at = self.rows.binary_search_by(|row| (*row.id).cmp(id)).ok()?;
        self.rows.get(at)
    }

    /// What a call costs.
    #[must_use]
    pub fn price(&self, ask: &Ask<'_>) -> Cost {
        self.explain(ask).0
    }

    /// What a call costs, and what keeps the cost from being complete.
    #[must_use]
    pub fn explain(&self, ask: &Ask<'_>) -> (Cost, Option<Gap>) {
        let mut bill = Bill::new(self);
        let main = self.tariff(ask, ask.model_served.or(ask.model_requested));
        if ask.by_model.is_empty() {
            bill.tokens(&main, ask.usage);
        }
        for part in ask.by_model {
            match &part.model {
                Some(model) => bill.tokens(&self.tariff(ask, Some(model.as_str())), &part.usage),
                None => bill.tokens(&main, &part.usage),
            }
        }
        if !parts_add_up(ask) {
            bill.miss(Gap::PartsDoNotAddUp);
        }
        bill.fees(&main, ask.usage);
        bill.total()
    }

    /// The prices of `model` at the time, on the tier and in the region of the call.
    fn tariff(&self, ask: &Ask<'_>, model: Option<&str>) -> Result<Tariff<'_>, Gap> {
        let model = model.ok_or(Gap::NoModel)?;
        let provider = self.tables.providers.get(ask.provider).ok_or(Gap::UnknownProvider)?;
        let table =
            provider.table(model).and_then(|at| self.tables.tables.get(at)).ok_or(Gap::UnknownModel)?;
        let tier = names::served_tier(ask.tier, ask.speed).ok_or(Gap::UnknownTier)?;
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
    period: &'b Period,
    region_known: bool,
}

// === impl Table ===

impl Table {
    fn tariff(&self, tier: &str, region: Option<&str>, at: Timestamp) -> Result<Tariff<'_>, Gap> {
        let region_known = region.is_none() || !self.regional || self.sold_in(region);
        let here = region.and_then(|name| self.variant(Some(name), tier));
        let variant = here.or_else(|| self.variant(None, tier));
        let sold = self.sold_in(region) || self.sold_in(None);
        let missing = if sold { Gap::UnknownTier } else { Gap::UnknownRegion };
        let periods = &variant.ok_or(missing)?.periods;
        let number = periods.partition_point(|period| period.from <= at).checked_sub(1);
        let period = number.and_then(|number| periods.get(number)).filter(|period| !period.bands.is_empty());
        Ok(Tariff { period: period.ok_or(Gap::NoPriceThen)?, region_known })
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
        Q::WebSearchRequests | Q::SearchUnits => Unpriceable::Charged,
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
struct Bill<'b> {
    book: &'b PriceBook,
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

impl<'b> Bill<'b> {
    const fn new(book: &'b PriceBook) -> Self {
        Self {
            book,
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
    fn tokens(&mut self, tariff: &Result<Tariff<'b>, Gap>, usage: &Usage) {
        let tariff = match tariff {
            Ok(tariff) => tariff,
            Err(gap) => return self.miss(gap.clone()),
        };
        if *self.currency.get_or_insert(tariff.period.currency) != tariff.period.currency {
            return self.miss(Gap::TwoCurrencies);
        }
        if !tariff.region_known {
            self.miss(Gap::UnknownRegion);
        }
        let Some(band) = tariff.period.band(usage.input_total().unwrap_or(0)) else { return };
        self.sides(band, usage);
        let billed_input = usage.quantity(Quantity::BilledInputTokens);
        let billed_output = usage.quantity(Quantity::BilledOutputTokens);
        for (class, count) in usage.tokens() {
            let billed = if is_output(class) { billed_output } else { billed_input };
            if billed.is_none() {
                self.known = true;
                self.class(band, class, count);
            }
        }
        for (class, billed) in
            [(TokenClass::InputFresh, billed_input), (TokenClass::OutputText, billed_output)]
        {
            if let Some(count) = billed {
                self.known = true;
                self.class(band, class, count);
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

    fn class(&mut self, band: &'b Band, class: TokenClass, count: u64) {
        if count == 0 {
            return;
        }
        match priced_as(class).iter().find_map(|class| band.slot(Item::Token(*class))) {
            Some(slot) => self.add(slot, count),
            None => self.miss(Gap::NoPrice(Item::Token(class))),
        }
    }

    /// Adds what is charged per call: searches, pages, the request itself.
    fn fees(&mut self, main: &Result<Tariff<'b>, Gap>, usage: &Usage) {
        let tariff =
            main.as_ref().ok().filter(|tariff| Some(tariff.period.currency) == self.currency_or(tariff));
        let band = tariff.and_then(|tariff| tariff.period.band(usage.input_total().unwrap_or(0)));
        if let Some(slot) = band.and_then(|band| band.slot(Item::Request)) {
            self.known = true;
            self.add(slot, 1);
        }
        for (quantity, amount) in usage.quantities() {
            let item = Item::Quantity(quantity);
            match (band.and_then(|band| band.slot(item)), unpriceable(quantity)) {
                (Some(slot), _) => {
                    self.known = true;
                    self.add(slot, amount);
                }
                (None, Unpriceable::Charged) if amount > 0 => self.miss(Gap::NoPrice(item)),
                (None, Unpriceable::Measure) if amount > 0 && !self.charged => self.miss(Gap::NoPrice(item)),
                (None, _) => {}
            }
        }
    }

    /// The currency of the bill; that of `tariff` when nothing has one yet.
    fn currency_or(&mut self, tariff: &Tariff<'_>) -> Option<Currency> {
        Some(*self.currency.get_or_insert(tariff.period.currency))
    }

    fn add(&mut self, slot: &Slot, count: u64) {
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
            self.name(row);
        }
    }

    fn name(&mut self, row: RowRef) {
        let Some(row) = self.book.rows.get(row.index()) else { return };
        if !self.rows.iter().any(|id| Arc::ptr_eq(id, &row.id)) {
            if self.rows.is_empty() {
                self.rows.reserve(6);
            }
            self.rows.push(Arc::clone(&row.id));
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
mod tests;
