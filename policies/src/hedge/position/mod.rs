//! Contract positions: all that FINANCE §3 says about one, checked once.
//!
//! Invariants
//! - A `Position` is consistent: its kind has the terms it needs, quantities and prices are above
//!   zero, its units and currencies belong together. [`Entry::check`] finds every mistake at once.
//! - A position never changes; a new version supersedes it, and the old one stays.
//!
//! Not here: what happened to it (`lifecycle`), what it is worth (`cost::legs`, `risk`).

mod check;
mod entry;
mod preset;

pub use check::EntryError;
pub use entry::{
    CapacityEntry, CommitmentEntry, DesignationEntry, EffectivenessEntry, Entry, FeeEntry, FxEntry,
    LimitsEntry, MarginEntry, PremiumEntry, StrikesEntry, Volumes,
};
pub use preset::{Preset, PresetError, presets};

use super::calendar::{Month, Window};
use super::commitment::Capacity;
use super::margin::LimitKind;
use super::market::{AverageDays, Fallback, IndexKey, Pair};
use super::payoff::{Shape, Side};
use super::profile::{ProfileError, Profiles, Unit, mtok_per_unit_hour};
use crate::exact::{Decimal, ExactError, Ratio};
use bursar_domain::{Currency, Label, Money, TokenClass};
use jiff::civil::Date;
use std::collections::{BTreeMap, BTreeSet};

const HOURS_PER_DAY: i128 = 24;

/// Declares a field-less enum with the names that files and reports use.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$member_doc:meta])* $member:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$member_doc])* $member,)+ }

        impl $name {
            /// Every member.
            pub const ALL: &'static [Self] = &[$(Self::$member,)+];

            /// The name used in files and reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$member => $text,)+ }
            }

            /// The member with this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$member),)+ _ => None }
            }
        }

        impl $crate::hedge::position::Named for $name {
            fn all() -> &'static [Self] {
                Self::ALL
            }

            fn text(self) -> &'static str {
                self.name()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}
pub(super) use named;

/// A choice between names that files and reports use.
pub(crate) trait Named: Copy + 'static {
    /// Every choice.
    fn all() -> &'static [Self];
    /// Its name.
    fn text(self) -> &'static str;
}

named!(
    /// The fourteen kinds of position.
    Kind {
        /// Fixed against floating price.
        SwapFixedFloat = "swap_fixed_float",
        /// Exchange future.
        Future = "future",
        /// Perpetual future.
        Perpetual = "perpetual",
        /// Price cap.
        Cap = "cap",
        /// Price floor.
        Floor = "floor",
        /// Cap and floor.
        Collar = "collar",
        /// Event contract.
        Binary = "binary",
        /// Physical delivery at a fixed price, take-or-pay.
        ForwardPhysical = "forward_physical",
        /// Commitment to units, use-it-or-lose-it.
        CommitUsage = "commit_usage",
        /// Commitment to spend.
        CommitSpend = "commit_spend",
        /// Money paid ahead.
        PrepaidCredit = "prepaid_credit",
        /// Provisioned throughput.
        ProvisionedThroughput = "provisioned_throughput",
        /// Units paid ahead, redeemed later.
        Voucher = "voucher",
        /// Currency forward.
        FxForward = "fx_forward",
    }
);

named!(
    /// When a premium is a cost.
    Recognition {
        /// In the month of the pay date.
        Paid = "paid",
        /// Over the effective window, by days.
        StraightLine = "straight_line",
    }
);

named!(
    /// What causes a fee.
    FeeEvent {
        /// The trade; a cost of the trade date's month.
        Trade = "trade",
        /// Each settled month.
        Settlement = "settlement",
        /// A roll.
        Roll = "roll",
        /// A close-out.
        CloseOut = "close_out",
    }
);

named!(
    /// How the settlement price is made.
    SettlementRule {
        /// The fixing of one day.
        Point = "point",
        /// The mean over the business days of the window.
        AverageBusiness = "average_business",
        /// The mean over all days of the window.
        AverageCalendar = "average_calendar",
        /// Marked every day.
        ContinuousMtm = "continuous_mtm",
        /// Delivered, not settled.
        Physical = "physical",
    }
);

named!(
    /// At which date's rate money of another currency is converted.
    FxRule {
        /// The settlement date.
        SettlementDate = "settlement_date",
        /// The trade date.
        TradeDate = "trade_date",
    }
);

named!(
    /// Who gets what of a hedge.
    AllocationRule {
        /// By volume.
        ProRata = "pro_rata",
        /// By time, then id.
        Fifo = "fifo",
        /// By shares that the position names.
        Designated = "designated",
    }
);

named!(
    /// The stretch of time in which a commitment must be used.
    Interval {
        /// Each hour.
        Hour = "hour",
        /// Each day.
        Day = "day",
        /// Each month.
        Month = "month",
        /// The whole window.
        Term = "term",
    }
);

named!(
    /// What usage beyond a commitment costs.
    Overage {
        /// The spot price.
        Spot = "spot",
        /// The committed price.
        ContractPrice = "contract_price",
    }
);

named!(
    /// Who carries what a commitment did not use.
    Shortfall {
        /// Nobody's: the residual.
        Residual = "residual",
        /// The team that owns the position.
        Owner = "owner",
        /// All teams by volume.
        ProRata = "pro_rata",
    }
);

named!(
    /// A token class as contracts know it.
    ContractClass {
        /// Input.
        Input = "input",
        /// Cached input read.
        CachedRead = "cached_read",
        /// Cached input written.
        CachedWrite = "cached_write",
        /// Output.
        Output = "output",
        /// A mix.
        Blended = "blended",
    }
);

/// Who the position is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Names the position through all its versions.
    pub id: Label,
    /// Counts from one.
    pub version: u32,
    /// The version that this one supersedes.
    pub supersedes: Option<u32>,
    /// The book it is kept in.
    pub book: Label,
    /// The company that holds it.
    pub legal_entity: Option<Label>,
    /// The other side.
    pub counterparty: Option<Label>,
    /// Exchange or platform.
    pub venue: Option<Label>,
    /// Symbol at the venue.
    pub symbol: Option<Label>,
    /// Contract month of a future.
    pub contract_month: Option<Month>,
    /// Clearing house.
    pub clearing: Option<Label>,
    /// Hash of the contract document.
    pub document_hash: Option<Label>,
    /// Who entered it.
    pub created_by: Option<Label>,
}

/// A premium paid (above zero) or received (below zero).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Premium {
    /// How much.
    pub amount: Money,
    /// When it is paid.
    pub pay_date: Date,
    /// When it is a cost.
    pub recognition: Recognition,
}

/// A fee for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fee {
    /// What causes it.
    pub event: FeeEvent,
    /// How much, each time.
    pub amount: Money,
}

/// How much of what at which price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Economics {
    /// Which side.
    pub side: Side,
    /// Lots, or units where the multiplier is one.
    pub quantity: Decimal,
    /// Units per lot.
    pub multiplier: Decimal,
    /// What a unit is.
    pub unit: Unit,
    /// Fixed, entry, locked or forward price per unit.
    pub fixed_price: Option<Decimal>,
    /// Strikes of options.
    pub strikes: Strikes,
    /// Smallest price step.
    pub tick: Option<Decimal>,
    /// Premium.
    pub premium: Option<Premium>,
    /// Fees.
    pub fees: Vec<Fee>,
    /// Currency of prices.
    pub price_currency: Currency,
    /// Currency in which it settles.
    pub settlement_currency: Currency,
}

/// Strikes; which are needed depends on the kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strikes {
    /// Upper strike, also of a binary.
    pub cap: Option<Decimal>,
    /// Lower strike.
    pub floor: Option<Decimal>,
}

/// What it settles against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlying {
    /// The index.
    pub index: IndexKey,
    /// Geography.
    pub geography: Option<Label>,
    /// Model class or GPU model.
    pub model_class: Option<Label>,
    /// Token class.
    pub token_class: Option<ContractClass>,
    /// Time of day of the fixing, with its zone; a note.
    pub fixing_time: Option<Label>,
    /// Decimals of the average; `None` keeps it exact.
    pub rounding_places: Option<u32>,
    /// What about missing fixings.
    pub fallback: Fallback,
}

/// When.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The day of the trade.
    pub trade_date: Date,
    /// The days that it covers.
    pub effective: Window,
    /// Quantity per month, where it is not the same each month.
    pub volumes: MonthlyVolumes,
    /// Last trading day.
    pub last_trade: Option<Date>,
    /// How the settlement price is made.
    pub settlement: SettlementRule,
}

/// How the quantity lies over the months of the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MonthlyVolumes {
    /// `quantity` in each month.
    EachMonth,
    /// `quantity` in all, by days.
    Spread,
    /// Lots by month; months not named have none.
    Profile(BTreeMap<Month, Decimal>),
}

/// How money of another currency is converted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FxTerms {
    /// The pair.
    pub pair: Pair,
    /// Whose rates; `None` takes any.
    pub source: Option<Label>,
    /// At which date.
    pub rule: FxRule,
}

/// Terms of a commitment, with FOCUS's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commitment {
    /// Category: `usage` or `spend`.
    pub category: Option<Label>,
    /// Payment model.
    pub model: Option<Label>,
    /// Stretch in which it must be used.
    pub fulfilment: Interval,
    /// Part paid at the start.
    pub upfront_percent: Decimal,
    /// When the rest is paid.
    pub payment_interval: Option<Interval>,
    /// What usage beyond costs.
    pub overage: Overage,
    /// Who carries what is unused.
    pub shortfall: Shortfall,
    /// The team that owns it.
    pub owner: Option<Label>,
    /// The last day on which it can be used.
    pub expiry: Option<Date>,
    /// Part taken off the list price of what it covers, for prepaid credit and spend commitments.
    pub benefit: Ratio,
    /// Provisioned capacity.
    pub capacity: Option<Capacity>,
}

/// Margin terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarginTerms {
    /// Initial margin of one lot.
    pub initial: Money,
    /// Maintenance as part of initial.
    pub maintenance_ratio: Decimal,
    /// Amount below which nothing is called.
    pub threshold: Option<Money>,
}

impl MarginTerms {
    /// What is really called of what is missing: nothing below the threshold.
    #[must_use]
    pub fn called(&self, missing: Money) -> Money {
        match self.threshold {
            Some(threshold) if missing.pico() < threshold.pico() => Money::zero(missing.currency()),
            _ => missing,
        }
    }
}

/// Which usage a position hedges; an empty set means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Teams.
    pub teams: BTreeSet<Label>,
    /// Models; a name that ends in `*` stands for all with that beginning.
    pub models: BTreeSet<Label>,
    /// Providers.
    pub providers: BTreeSet<Label>,
    /// Regions.
    pub regions: BTreeSet<Label>,
    /// Token classes.
    pub classes: BTreeSet<ContractClass>,
}

/// How effectiveness is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectivenessTerms {
    /// `dollar_offset` or `regression`.
    pub method: Label,
    /// Lowest ratio or slope that passes.
    pub lowest: Decimal,
    /// Highest ratio or slope that passes.
    pub highest: Decimal,
}

/// What it is held for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Designation {
    /// The hedged item.
    pub selector: Selector,
    /// The part of the item that is meant to be hedged; a target, it limits nothing.
    pub hedge_ratio: Decimal,
    /// Conversion profile from the position's unit to the book's.
    pub profile: Option<Label>,
    /// Who gets what.
    pub allocation: AllocationRule,
    /// Shares for the designated rule.
    pub shares: BTreeMap<Label, Decimal>,
    /// Place in the waterfall; the kind's default when absent.
    pub rank: Option<u16>,
    /// How effectiveness is judged.
    pub effectiveness: Option<EffectivenessTerms>,
    /// The day from which it counts; before it, gains and losses are the treasury's.
    pub designated_at: Date,
    /// The risk objective in words.
    pub objective: Option<String>,
}

/// Position limits in lots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Spot month.
    pub spot: Option<(Decimal, LimitKind)>,
    /// Any single month.
    pub single_month: Option<(Decimal, LimitKind)>,
    /// All months together.
    pub all_months: Option<(Decimal, LimitKind)>,
    /// Lots from which positions are reported to the exchange.
    pub reportable: Option<Decimal>,
}

/// All terms of a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Who it is.
    pub identity: Identity,
    /// What kind.
    pub kind: Kind,
    /// How much of what at which price.
    pub economics: Economics,
    /// What it settles against.
    pub underlying: Option<Underlying>,
    /// When.
    pub timing: Timing,
    /// Conversion of money.
    pub fx: Option<FxTerms>,
    /// Commitment.
    pub commitment: Option<Commitment>,
    /// Margin.
    pub margin: Option<MarginTerms>,
    /// What it is held for; without it gains and losses are the treasury's.
    pub designation: Option<Designation>,
    /// Position limits.
    pub limits: Limits,
}

/// A checked position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    terms: Terms,
}

/// How a kind takes part in the waterfall (FINANCE §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Units at a fixed price instead of spot: physical, committed, provisioned, vouchers.
    Units,
    /// A pool of money that pays for usage.
    Pool,
    /// Settles in cash against an index.
    Cash,
    /// Settles in cash and covers nothing: binaries.
    Uncounted,
    /// Settles against an exchange rate.
    Currency,
}

// === impl Kind ===

impl Kind {
    /// How it takes part in the waterfall.
    #[must_use]
    pub const fn group(self) -> Group {
        match self {
            Self::ForwardPhysical | Self::CommitUsage | Self::ProvisionedThroughput | Self::Voucher => {
                Group::Units
            }
            Self::CommitSpend | Self::PrepaidCredit => Group::Pool,
            Self::SwapFixedFloat
            | Self::Future
            | Self::Perpetual
            | Self::Cap
            | Self::Floor
            | Self::Collar => Group::Cash,
            Self::Binary => Group::Uncounted,
            Self::FxForward => Group::Currency,
        }
    }

    /// Its place in the waterfall unless the position names one: take-or-pay and provisioned, then
    /// prepaid and commitments, then swaps and futures, then options.
    #[must_use]
    pub const fn rank(self) -> u16 {
        match self {
            Self::ForwardPhysical | Self::ProvisionedThroughput => 100,
            Self::CommitUsage | Self::CommitSpend | Self::PrepaidCredit | Self::Voucher => 200,
            Self::SwapFixedFloat | Self::Future | Self::Perpetual | Self::FxForward => 300,
            Self::Cap | Self::Floor | Self::Collar | Self::Binary => 400,
        }
    }
}

// === impl ContractClass ===

impl ContractClass {
    /// The class under which contracts know tokens; `None` for tokens that are in the totals already.
    #[must_use]
    pub const fn of(class: TokenClass) -> Option<Self> {
        use TokenClass as C;
        Some(match class {
            C::InputFresh | C::InputAudio | C::InputImage | C::InputVideo | C::InputToolUse => Self::Input,
            C::CachedRead | C::CachedAudio | C::CachedImage | C::CachedVideo => Self::CachedRead,
            C::CacheWrite | C::CacheWrite5m | C::CacheWrite1h => Self::CachedWrite,
            C::OutputText
            | C::OutputReasoning
            | C::OutputAudio
            | C::OutputImage
            | C::OutputReasoningAudio => Self::Output,
            C::CacheRewrite => return None,
        })
    }
}

// === impl Selector ===

impl Selector {
    /// Whether usage with these facets is part of the hedged item. A facet that is not known is
    /// part of it only where the selector does not ask.
    #[must_use]
    pub fn covers(&self, facets: &Facets) -> bool {
        let holds = |set: &BTreeSet<Label>, value: Option<&Label>| {
            set.is_empty() || value.is_some_and(|value| set.contains(value))
        };
        let class = self.classes.is_empty()
            || self.classes.contains(&ContractClass::Blended)
            || facets.class.is_some_and(|class| self.classes.contains(&class));
        let model = self.models.is_empty()
            || facets.model.as_ref().is_some_and(|model| self.models.iter().any(|p| matches(p, model)));
        class
            && model
            && holds(&self.teams, Some(&facets.team))
            && holds(&self.providers, facets.provider.as_ref())
            && holds(&self.regions, facets.region.as_ref())
    }
}

fn matches(pattern: &Label, name: &Label) -> bool {
    match pattern.as_str().strip_suffix('*') {
        Some(beginning) => name.as_str().starts_with(beginning),
        None => pattern == name,
    }
}

/// What a selector looks at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Facets {
    /// Team.
    pub team: Label,
    /// Model.
    pub model: Option<Label>,
    /// Provider.
    pub provider: Option<Label>,
    /// Region.
    pub region: Option<Label>,
    /// Token class.
    pub class: Option<ContractClass>,
}

impl Facets {
    /// Usage of which only the team is known.
    #[must_use]
    pub const fn team(team: Label) -> Self {
        Self { team, model: None, provider: None, region: None, class: None }
    }
}

// === impl Position ===

impl Position {
    /// Its terms.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> &Label {
        &self.terms.identity.id
    }

    /// Its place in the waterfall.
    #[must_use]
    pub fn rank(&self) -> u16 {
        let chosen = self.terms.designation.as_ref().and_then(|designation| designation.rank);
        chosen.unwrap_or_else(|| self.terms.kind.rank())
    }

    /// Lots of one month, the part of the month that the window covers.
    pub fn lots_in(&self, month: Month) -> Result<Ratio, ExactError> {
        let Terms { economics, timing, .. } = &self.terms;
        let covered = month.window().ok().and_then(|window| window.overlap(timing.effective));
        let Some(covered) = covered else { return Ok(Ratio::ZERO) };
        match &timing.volumes {
            MonthlyVolumes::EachMonth => Ok(economics.quantity.ratio()),
            MonthlyVolumes::Spread => {
                let part = Ratio::new(covered.days().into(), timing.effective.days().into())?;
                economics.quantity.ratio().times(part)
            }
            MonthlyVolumes::Profile(lots) => Ok(lots.get(&month).map_or(Ratio::ZERO, |lots| lots.ratio())),
        }
    }

    /// Units of one month: lots times multiplier, times the hours that the window covers for
    /// provisioned units, of which every hour is bought.
    pub fn units_in(&self, month: Month) -> Result<Ratio, ExactError> {
        let units = self.lots_in(month)?.times(self.terms.economics.multiplier.ratio())?;
        if self.terms.kind != Kind::ProvisionedThroughput {
            return Ok(units);
        }
        let covered = month.window().ok().and_then(|window| window.overlap(self.terms.timing.effective));
        let days = covered.map_or(0, Window::days);
        units.times(Ratio::whole(i128::from(days).saturating_mul(HOURS_PER_DAY)))
    }

    /// Units over the whole window.
    pub fn units(&self) -> Result<Ratio, ExactError> {
        let months = self.terms.timing.effective.months();
        months.map(|month| self.units_in(month)).try_fold(Ratio::ZERO, |sum, units| sum.plus(units?))
    }

    /// Hedge units per unit of the position on a day: by its profile, or by the capacity of provisioned
    /// units.
    pub fn factor(&self, profiles: &Profiles, unit: Unit, date: Date) -> Result<Ratio, ProfileError> {
        let terms = &self.terms;
        let profile = terms.designation.as_ref().and_then(|held| held.profile.as_ref());
        match terms.commitment.as_ref().and_then(|commitment| commitment.capacity) {
            Some(capacity) if profile.is_none() && unit == Unit::Mtok => {
                mtok_per_unit_hour(capacity.tokens_per_minute)
            }
            _ => profiles.factor((terms.economics.unit, unit), profile, date),
        }
    }

    /// Whether what a period does not use is there in the next, until the term ends.
    #[must_use]
    pub fn carries_over(&self) -> bool {
        let commitment = self.terms.commitment.as_ref();
        commitment.is_some_and(|commitment| commitment.fulfilment == Interval::Term)
    }

    /// The price terms, for kinds that settle in cash.
    #[must_use]
    pub fn shape(&self) -> Option<Shape> {
        let Economics { fixed_price, strikes, .. } = &self.terms.economics;
        match self.terms.kind {
            Kind::SwapFixedFloat | Kind::Future | Kind::Perpetual | Kind::FxForward => {
                fixed_price.map(|fixed| Shape::Linear { fixed })
            }
            Kind::Cap => strikes.cap.map(|strike| Shape::Cap { strike }),
            Kind::Floor => strikes.floor.map(|strike| Shape::Floor { strike }),
            Kind::Collar => Some(Shape::Collar { cap: strikes.cap?, floor: strikes.floor? }),
            Kind::Binary => strikes.cap.map(|strike| Shape::Binary { strike }),
            Kind::ForwardPhysical
            | Kind::CommitUsage
            | Kind::CommitSpend
            | Kind::PrepaidCredit
            | Kind::ProvisionedThroughput
            | Kind::Voucher => None,
        }
    }

    /// How the average is made, for kinds that settle against one.
    #[must_use]
    pub fn average_days(&self) -> Option<AverageDays> {
        match self.terms.timing.settlement {
            SettlementRule::AverageBusiness => Some(AverageDays::Business),
            SettlementRule::AverageCalendar => Some(AverageDays::Calendar),
            SettlementRule::Point | SettlementRule::ContinuousMtm | SettlementRule::Physical => None,
        }
    }
}

#[cfg(test)]
mod tests;
