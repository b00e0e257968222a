//! Market data, profiles and events as a file or command writes them; nothing checked yet.
//!
//! Invariants
//! - Unknown fields are errors of the reader; numbers keep the text they were written with.
//!
//! Not here: positions (`position::entry`), what is allowed (`intake`).

use crate::price::overlay::Decimal as Written;
use serde::Deserialize;

/// A fixing of an index.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FixingEntry {
    /// Name of the index.
    pub index: String,
    /// Version of its method; one when absent.
    pub version: Option<u32>,
    /// The day it is for.
    pub date: String,
    /// Its value.
    pub value: Written,
    /// Its currency; the index's when absent.
    pub currency: Option<String>,
    /// Who published it; `unnamed` when absent.
    pub source: Option<String>,
    /// How it was made, as it is to be kept; nothing follows from it.
    pub provenance: Option<serde_json::Value>,
}

/// An exchange rate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateEntry {
    /// `USD/CNY`: CNY per USD.
    pub pair: String,
    /// The fixing date.
    pub date: String,
    /// The rate.
    pub rate: Written,
    /// Who published it; `unnamed` when absent.
    pub source: Option<String>,
}

/// An index.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexEntry {
    /// Its name.
    pub index: String,
    /// Version of its method; one when absent.
    pub version: Option<u32>,
    /// Currency of its values.
    pub currency: String,
    /// When it is fixed: `weekdays` (when absent), `daily`, or a calendar that was entered.
    pub calendar: Option<String>,
    /// The last day on which it is published.
    pub last: Option<String>,
    /// How its values are made; another method is another version.
    pub method: Option<String>,
}

/// A calendar.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalendarEntry {
    /// Its name.
    pub calendar: String,
    /// `closed` (when absent) or `open`.
    pub weekends: Option<String>,
    /// Days on which the market is closed.
    #[serde(default)]
    pub holidays: Vec<String>,
}

/// A conversion profile: throughput, provisioned throughput or quality, by the fields it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProfileEntry {
    /// Its name.
    pub profile: String,
    /// First day on which it holds.
    pub from: String,
    /// GPU-hours to tokens: tokens per second of one GPU.
    pub tokens_per_second: Option<Written>,
    /// The part of the time it works.
    pub utilisation: Option<Written>,
    /// Provisioned unit hours to tokens: weighted tokens per minute of one unit.
    pub tokens_per_minute: Option<Written>,
    /// Tokens to standard tokens: the model's score …
    pub score: Option<Written>,
    /// … and that of the reference model.
    pub reference: Option<Written>,
    /// The model; of a quality profile, the models whose usage it converts (`claude-*`).
    pub model: Option<String>,
    /// Its version.
    pub model_version: Option<String>,
    /// GPU model.
    pub gpu: Option<String>,
    /// Number format.
    pub precision: Option<String>,
    /// Inference engine.
    pub engine: Option<String>,
    /// Mix of prompt and output lengths.
    pub length_mix: Option<String>,
    /// Who measured it.
    pub source: Option<String>,
}

/// Something that happened to a position.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventEntry {
    /// The position.
    pub position_id: String,
    /// Names the event; made from what happened and its day or month when absent.
    pub event_id: Option<String>,
    /// `trade`, `fix`, `variation_margin`, `funding`, `settle`, `roll`, `close`, `cancel`, `correct`.
    pub event: String,
    /// The day on which it counts.
    pub date: String,
    /// Of `fix`: the value that the counterparty sent.
    pub value: Option<Written>,
    /// Of `variation_margin`, `funding`, `settle`: received (above zero) or paid.
    pub amount: Option<Written>,
    /// Currency of `amount`; that of settlement when absent.
    pub currency: Option<String>,
    /// Of `settle`: the month.
    pub month: Option<String>,
    /// Of `roll`: the position it is rolled into.
    pub into: Option<String>,
    /// Of `close`: the part that is closed; all when absent.
    pub part: Option<Written>,
    /// Of `close`: price of the closing trade per unit; of an option, its premium.
    pub price: Option<Written>,
    /// Of `close`: `expected` (when absent) or `gone`: whether the hedged purchases still come.
    pub purchases: Option<String>,
    /// Of `correct`: the event that was wrong.
    pub of: Option<String>,
    /// Of `correct`: what holds instead; nothing when absent.
    pub instead: Option<Box<EventEntry>>,
}
