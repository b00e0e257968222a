//! A position as a file or command writes it: the field names of FINANCE §3, nothing checked yet.
//!
//! Invariants
//! - Unknown fields are errors of the reader; numbers keep the text they were written with.
//!
//! Not here: what is allowed (`check`).

use crate::price::overlay::Decimal as Written;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A position as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Entry {
    /// Names the position.
    pub position_id: Option<String>,
    /// Counts from one; one when absent.
    pub version: Option<u32>,
    /// The version that this one supersedes.
    pub supersedes: Option<u32>,
    /// Book; `main` when absent.
    pub book: Option<String>,
    /// Company that holds it.
    pub legal_entity: Option<String>,
    /// Other side.
    pub counterparty: Option<String>,
    /// Exchange or platform.
    pub venue: Option<String>,
    /// Symbol.
    pub symbol: Option<String>,
    /// `2026-09`; also the effective window of a future when none is given.
    pub contract_month: Option<String>,
    /// Clearing house.
    pub clearing: Option<String>,
    /// Hash of the document.
    pub document_hash: Option<String>,
    /// Who entered it.
    pub created_by: Option<String>,
    /// One of the fourteen kinds.
    pub kind: Option<String>,
    /// `long`, `short`, `pay_fixed`, `receive_fixed`, `buy`, `sell`; long when absent.
    pub side: Option<String>,
    /// Lots or units.
    pub quantity: Option<Written>,
    /// Units per lot; one when absent.
    pub multiplier: Option<Written>,
    /// `Mtok`, `MSIT`, `SIT`, `GPU-h`, `PTU-h` or a currency.
    pub unit: Option<String>,
    /// Price per unit.
    pub fixed_price: Option<Written>,
    /// Strikes.
    pub strikes: StrikesEntry,
    /// Price step.
    pub tick: Option<Written>,
    /// Premium.
    pub premium: Option<PremiumEntry>,
    /// Fees.
    pub fees: Vec<FeeEntry>,
    /// Currency of prices; USD when absent.
    pub price_currency: Option<String>,
    /// Currency of settlement; that of prices when absent.
    pub settlement_currency: Option<String>,
    /// Index.
    pub index_id: Option<String>,
    /// Version of the index's method; one when absent.
    pub index_version: Option<u32>,
    /// Geography.
    pub geography: Option<String>,
    /// Model class or GPU model.
    pub model_class: Option<String>,
    /// Token class.
    pub token_class: Option<String>,
    /// Time of the fixing with its zone.
    pub fixing_time: Option<String>,
    /// Decimals of the average.
    pub rounding_places: Option<u32>,
    /// `last_published`, `interpolate` or `fail` (when absent).
    pub fallback: Option<String>,
    /// Trade date.
    pub trade_date: Option<String>,
    /// First day that it covers.
    pub effective_from: Option<String>,
    /// First day that it no longer covers.
    pub effective_until: Option<String>,
    /// Quantity per month.
    pub volumes: Option<Volumes>,
    /// Last trading day.
    pub last_trade: Option<String>,
    /// How the settlement price is made.
    pub settlement_rule: Option<String>,
    /// Conversion of money.
    pub fx: Option<FxEntry>,
    /// Commitment.
    pub commitment: Option<CommitmentEntry>,
    /// Margin.
    pub margin: Option<MarginEntry>,
    /// What it is held for.
    pub designation: Option<DesignationEntry>,
    /// Position limits.
    pub limits: Option<LimitsEntry>,
}

/// How the quantity lies over months.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Volumes {
    /// `each_month` or `spread`.
    Rule(String),
    /// Lots by month.
    Profile(BTreeMap<String, Written>),
}

/// Strikes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StrikesEntry {
    /// Upper strike, also of a binary.
    pub cap: Option<Written>,
    /// Lower strike.
    pub floor: Option<Written>,
}

/// A premium.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PremiumEntry {
    /// How much; below zero when received.
    pub amount: Written,
    /// Currency; that of settlement when absent.
    pub currency: Option<String>,
    /// Pay date; the trade date when absent.
    pub pay_date: Option<String>,
    /// `paid` (when absent) or `straight_line`.
    pub recognition: Option<String>,
}

/// A fee.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeeEntry {
    /// `trade`, `settlement`, `roll` or `close_out`.
    pub event: String,
    /// How much, each time.
    pub amount: Written,
    /// Currency; that of settlement when absent.
    pub currency: Option<String>,
}

/// Conversion of money.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FxEntry {
    /// `USD/CNY`.
    pub pair: String,
    /// Whose rates.
    pub source: Option<String>,
    /// `settlement_date` (when absent) or `trade_date`.
    pub rule: Option<String>,
}

/// A commitment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CommitmentEntry {
    /// Category.
    pub category: Option<String>,
    /// Payment model.
    pub model: Option<String>,
    /// `hour`, `day`, `month` or `term`.
    pub fulfilment_interval: Option<String>,
    /// 0 to 100.
    pub upfront_percent: Option<Written>,
    /// `month` or `term`.
    pub payment_interval: Option<String>,
    /// `spot` (when absent) or `contract_price`.
    pub overage: Option<String>,
    /// `residual` (when absent), `owner` or `pro_rata`.
    pub shortfall: Option<String>,
    /// The owning team.
    pub owner: Option<String>,
    /// Last day.
    pub expiry: Option<String>,
    /// 0 to 100, off the list price.
    pub benefit_percent: Option<Written>,
    /// Provisioned capacity.
    pub capacity: Option<CapacityEntry>,
}

/// Provisioned capacity of one unit.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapacityEntry {
    /// Weighted tokens per minute.
    pub tokens_per_minute: Written,
    /// Input tokens that an output token counts as; one when absent.
    pub output_weight: Option<Written>,
}

/// Margin.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarginEntry {
    /// Initial margin of one lot.
    pub initial: Written,
    /// Maintenance as part of initial.
    pub maintenance_ratio: Written,
    /// Currency; that of settlement when absent.
    pub currency: Option<String>,
    /// Amount below which nothing is called.
    pub threshold: Option<Written>,
}

/// What it is held for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DesignationEntry {
    /// Teams.
    pub teams: Vec<String>,
    /// Models.
    pub models: Vec<String>,
    /// Providers.
    pub providers: Vec<String>,
    /// Regions.
    pub regions: Vec<String>,
    /// Token classes.
    pub token_classes: Vec<String>,
    /// One when absent.
    pub hedge_ratio: Option<Written>,
    /// Conversion profile.
    pub conversion_profile: Option<String>,
    /// `pro_rata` (when absent), `fifo` or `designated`.
    pub allocation: Option<String>,
    /// Shares by team.
    pub shares: BTreeMap<String, Written>,
    /// Place in the waterfall.
    pub rank: Option<u16>,
    /// How effectiveness is judged.
    pub effectiveness: Option<EffectivenessEntry>,
    /// First day; the first day of the position when absent.
    pub designated_at: Option<String>,
    /// In words.
    pub objective: Option<String>,
}

/// How effectiveness is judged.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EffectivenessEntry {
    /// `dollar_offset` or `regression`.
    pub method: String,
    /// 0.80 when absent.
    pub lowest: Option<Written>,
    /// 1.25 when absent.
    pub highest: Option<Written>,
}

/// Position limits in lots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsEntry {
    /// Spot month.
    pub spot: Option<Written>,
    /// Single month.
    pub single_month: Option<Written>,
    /// All months.
    pub all_months: Option<Written>,
    /// Reportable level.
    pub reportable: Option<Written>,
    /// Limits that are accountability levels: of `spot`, `single_month`, `all_months`.
    pub accountability: Vec<String>,
}
