//! FOCUS 1.4 (FinOps Open Cost and Usage Specification): usage, contracts and hedges as charges that
//! finance tools know, with what they do not know in columns that begin with `x_`.
//!
//! Invariants
//! - `CostAndUsage` has the 65 columns of version 1.4, `ContractCommitment` its 30, in the order of the
//!   specification; custom columns follow.
//! - Amounts are exact to 10⁻¹² of the currency. Rounded by month to the minor unit, `x_SpotCost` sums to
//!   the report's billed cost, `EffectiveCost` to its effective and `x_HedgedCost` to its hedged cost.
//! - An hour of one price is one row: cost = unit price × quantity, exactly.
//! - A month as it was and its corrections sum to the month as it is (`restated`).
//! - What covers usage is never counted twice: the covered part leaves `BilledCost`, and what the
//!   contract charges for it is in `EffectiveCost`; the purchase is billed and not effective.
//!
//! Not here: how rows are written (`export::table`), the figures of contracts (`hedge`).

mod charge;
mod columns;
mod commitments;
mod cover;
mod restated;
mod usage;

pub use columns::{COMMITMENT_COLUMNS, CUSTOM_COLUMNS, USAGE_COLUMNS, commitment_columns, usage_columns};
pub use commitments::contract_commitments;
pub use restated::{Then, corrections};

use crate::export::{Cell, ExportError};
use crate::hedge::{HedgeAsk, HedgeError, HedgeReport, HedgeSource, State, report_of, state};
use crate::journal::read::ReadError;
use crate::query::GroupKey;
use bursar_domain::{Currency, Label, Timestamp};
use bursar_policies::exact::ExactError;
use bursar_policies::hedge::calendar::CalendarError;
use bursar_policies::hedge::cost::CostReport;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;

/// Most rows of one month.
pub const ROWS_MAX: usize = 1_000_000;
/// Most rows of one closed month that may be corrected.
pub const CHANGED_MAX: usize = 100_000;

/// What the datasets are asked for.
#[derive(Clone, Debug)]
pub struct FocusAsk {
    /// The time in days of UTC, the custom grouping, and the terms of cost; spot is what is billed.
    pub hedge: HedgeAsk,
    /// The billing account, as the invoice issuers know it.
    pub account: String,
}

/// Why there is no dataset.
#[derive(Debug, thiserror::Error)]
pub enum FocusError {
    /// Cost of contracts.
    #[error(transparent)]
    Hedge(#[from] HedgeError),
    /// The journal cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A grouping that the dataset has no column for.
    #[error(
        "{0} is no custom column of FOCUS: group by team, workload, customer, session or tag:NAME; provider, model, tier and region are columns already"
    )]
    By(String),
    /// Hours of another zone.
    #[error("FOCUS tells time in UTC: leave the zone out")]
    Zone,
    /// More rows than are kept.
    #[error("a month has more than {ROWS_MAX} rows: group by fewer keys")]
    TooManyRows,
    /// More rows of a closed month changed than are kept.
    #[error("more than {CHANGED_MAX} rows of a closed month changed: group by fewer keys")]
    TooManyCorrections,
    /// Arithmetic.
    #[error(transparent)]
    Exact(#[from] ExactError),
    /// A day.
    #[error(transparent)]
    Calendar(#[from] CalendarError),
    /// A row cannot be written.
    #[error(transparent)]
    Write(#[from] ExportError),
}

impl From<bursar_domain::MoneyError> for FocusError {
    fn from(error: bursar_domain::MoneyError) -> Self {
        Self::Exact(ExactError::Money(error))
    }
}

/// What a dataset leaves open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FocusNotes {
    /// Rows.
    pub rows: u64,
    /// Requests without a price: their rows have usage and no cost.
    pub unpriced: u64,
    /// Requests whose public price nobody knows: `ListCost` says what is billed, as FOCUS wants it.
    pub without_list: u64,
    /// Rows in currencies without a rate to the reporting currency: their `BillingCurrency` is their own.
    pub without_rate: BTreeMap<Currency, u64>,
    /// Positions without a price: what they cover and cost is not in the dataset.
    pub unpriced_positions: Vec<String>,
}

/// Takes the rows of a dataset one by one.
pub type Sink<'a> = dyn FnMut(&[Cell<'_>]) -> Result<(), ExportError> + 'a;

/// Writes the Cost and Usage dataset.
pub fn cost_and_usage(
    source: &dyn HedgeSource,
    ask: &FocusAsk,
    sink: &mut Sink<'_>,
) -> Result<FocusNotes, FocusError> {
    check(ask)?;
    let facts = source.finance_facts()?;
    let state = state(&facts);
    drop(facts);
    let report = report_of(source, &state, &ask.hedge)?;
    let unpriced = report.cost.unpriced.iter().map(ToString::to_string);
    let mut notes = FocusNotes { unpriced_positions: unpriced.collect(), ..FocusNotes::default() };
    notes.unpriced_positions.dedup();
    for (window, cost) in &report.months {
        let month = MonthOf { source, ask, state: &state, report: &report, window: *window, cost };
        month.write(sink, &mut notes)?;
    }
    Ok(notes)
}

/// One month, or the part of it that is asked for.
struct MonthOf<'a> {
    source: &'a dyn HedgeSource,
    ask: &'a FocusAsk,
    state: &'a State,
    report: &'a HedgeReport,
    window: bursar_policies::hedge::calendar::Window,
    cost: &'a CostReport,
}

fn check(ask: &FocusAsk) -> Result<(), FocusError> {
    if ask.hedge.zone != TimeZone::UTC {
        return Err(FocusError::Zone);
    }
    let known = |key: &&GroupKey| {
        matches!(
            key,
            GroupKey::Team | GroupKey::Workload | GroupKey::Customer | GroupKey::Session | GroupKey::Tag(_)
        )
    };
    match ask.hedge.by.iter().find(|key| !known(key)) {
        Some(key) => Err(FocusError::By(key.to_string())),
        None => Ok(()),
    }
}

/// The first instant of a day in UTC.
fn midnight(day: Date) -> Timestamp {
    let at = day.to_zoned(TimeZone::UTC).map(|at| at.timestamp().as_microsecond());
    Timestamp::from_micros(at.unwrap_or(0))
}

fn name_of(label: Option<&Label>) -> &str {
    label.map_or("unknown", Label::as_str)
}

#[cfg(test)]
mod tests;
