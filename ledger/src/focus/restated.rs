//! What is different between a month of Cost and Usage as it was and as it is now: the corrections of a
//! closed month, as charges of the open one.
//!
//! Invariants
//! - A correction has `ChargeClass` `Correction`, the charge period that it is about, and the billing period
//!   of the month that is open.
//! - The rows of the month as it was and its corrections sum to the month as it is now, measure by measure.
//!   What is the same is not repeated; a row that says something else now is taken back whole and written anew.
//! - Memory grows by 16 bytes a row, and by whole rows only for those that changed.
//!
//! Not here: the rows (`usage`, `cover`), which months are closed (`periods`).

use super::columns::{CUSTOM_COLUMNS, USAGE_COLUMNS};
use super::cover::{applied_costs, elements};
use super::{CHANGED_MAX, FocusAsk, FocusError, Sink, cost_and_usage};
use crate::export::{Cell, ExportError};
use crate::hedge::HedgeSource;
use bursar_domain::{MoneyError, Timestamp};
use std::collections::{BTreeMap, HashMap};

/// Columns that are summed; every other one says what a row is about. Prices of a unit are no sums.
const MEASURES: [&str; 15] = [
    "BilledCost",
    "CommitmentDiscountQuantity",
    "ConsumedQuantity",
    "ContractedCost",
    "EffectiveCost",
    "ListCost",
    "PricingCurrencyEffectiveCost",
    "PricingQuantity",
    "x_SpotCost",
    "x_HedgedCost",
    "x_HedgePayoff",
    "x_HedgePremium",
    "x_HedgeFees",
    "x_HedgeFx",
    "x_HedgeResidual",
];

/// A ledger as it was at one time, and the question as it was asked then.
#[derive(Clone, Copy)]
pub struct Then<'a> {
    /// The ledger.
    pub source: &'a dyn HedgeSource,
    /// The question: the month, and what was known.
    pub ask: &'a FocusAsk,
}

impl std::fmt::Debug for Then<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Then").field("ask", &self.ask).finish_non_exhaustive()
    }
}

/// What changed about one row: its cells, the measures by their columns, and what contracts were applied with.
struct Change {
    cells: Vec<Cell<'static>>,
    measures: BTreeMap<usize, i128>,
    applied: BTreeMap<String, i128>,
}

/// Rows that were taken back or are new, summed by what they are about.
type Changed = BTreeMap<Vec<String>, Change>;

/// Writes what became different between `was` and `is`, billed in the period `billing`; returns the rows.
pub fn corrections(
    (was, is): (Then<'_>, Then<'_>),
    billing: (Timestamp, Timestamp),
    sink: &mut Sink<'_>,
) -> Result<u64, FocusError> {
    let columns = Columns::new();
    // How often each row was there; what is the same in both is crossed out.
    let mut before: HashMap<u128, u32> = HashMap::new();
    each(was, &mut |cells| {
        let times = before.entry(digest(cells)).or_default();
        *times = times.saturating_add(1);
        Ok(())
    })?;
    let mut changed = Changed::new();
    each(is, &mut |cells| match before.get_mut(&digest(cells)) {
        Some(times) if *times > 0 => {
            *times = times.saturating_sub(1);
            Ok(())
        }
        _ => columns.add(&mut changed, cells, Sign::Written),
    })?;
    before.retain(|_, times| *times > 0);
    if !before.is_empty() {
        each(was, &mut |cells| match before.get_mut(&digest(cells)) {
            Some(times) if *times > 0 => {
                *times = times.saturating_sub(1);
                columns.add(&mut changed, cells, Sign::TakenBack)
            }
            _ => Ok(()),
        })?;
    }
    let mut rows = 0_u64;
    for Change { mut cells, measures, applied } in changed.into_values() {
        if measures.values().chain(applied.values()).all(|measure| *measure == 0) {
            continue;
        }
        if let Some(cell) = cells.get_mut(columns.applied).filter(|_| !applied.is_empty()) {
            *cell = Cell::owned(elements(applied.iter().map(|(id, cost)| (id.as_str(), *cost))));
        }
        for (place, measure) in measures {
            if let Some(cell) = cells.get_mut(place) {
                *cell = Cell::Decimal(measure);
            }
        }
        for (place, cell) in [
            (columns.class, Cell::Text("Correction".into())),
            (columns.billing_start, Cell::Instant(billing.0)),
            (columns.billing_end, Cell::Instant(billing.1)),
        ] {
            if let Some(found) = cells.get_mut(place) {
                *found = cell;
            }
        }
        sink(&cells)?;
        rows = rows.saturating_add(1);
    }
    Ok(rows)
}

/// Every row of a month at a time.
fn each(
    then: Then<'_>,
    take: &mut dyn FnMut(&[Cell<'_>]) -> Result<(), FocusError>,
) -> Result<(), FocusError> {
    let mut failure = None;
    let mut sink = |cells: &[Cell<'_>]| {
        take(cells).map_err(|error| {
            failure = Some(error);
            ExportError::Shape("a correction".to_owned())
        })
    };
    let done = cost_and_usage(then.source, then.ask, &mut sink);
    match (failure, done) {
        (Some(error), _) | (None, Err(error)) => Err(error),
        (None, Ok(_)) => Ok(()),
    }
}

/// Whether a row counts or is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Written,
    TakenBack,
}

/// Where columns stand.
struct Columns {
    measures: Vec<usize>,
    applied: usize,
    class: usize,
    billing_start: usize,
    billing_end: usize,
}

impl Columns {
    fn new() -> Self {
        let names = || USAGE_COLUMNS.iter().chain(&CUSTOM_COLUMNS).map(|(name, ..)| *name);
        let place = |wanted: &str| names().position(|name| name == wanted).unwrap_or(usize::MAX);
        Self {
            measures: MEASURES.iter().map(|name| place(name)).collect(),
            applied: place("ContractApplied"),
            class: place("ChargeClass"),
            billing_start: place("BillingPeriodStart"),
            billing_end: place("BillingPeriodEnd"),
        }
    }

    /// Adds a row to what changed.
    fn add(&self, changed: &mut Changed, cells: &[Cell<'_>], sign: Sign) -> Result<(), FocusError> {
        let key: Vec<String> = cells
            .iter()
            .enumerate()
            .filter(|(place, _)| !self.measures.contains(place) && *place != self.applied)
            .map(|(_, cell)| format!("{cell:?}"))
            .collect();
        if changed.len() >= CHANGED_MAX && !changed.contains_key(&key) {
            return Err(FocusError::TooManyCorrections);
        }
        let change = changed.entry(key).or_insert_with(|| Change {
            cells: cells.iter().map(owned).collect(),
            measures: BTreeMap::new(),
            applied: BTreeMap::new(),
        });
        let add = |sum: &mut i128, amount: i128| -> Result<(), MoneyError> {
            let both = match sign {
                Sign::Written => sum.checked_add(amount),
                Sign::TakenBack => sum.checked_sub(amount),
            };
            *sum = both.ok_or(MoneyError::Overflow)?;
            Ok(())
        };
        if let Some(Cell::Text(text)) = cells.get(self.applied) {
            let parts = applied_costs(text).ok_or(ExportError::Shape("ContractApplied".to_owned()))?;
            for (id, cost) in parts {
                add(change.applied.entry(id).or_default(), cost)?;
            }
        }
        for place in &self.measures {
            let Some(Cell::Decimal(amount)) = cells.get(*place) else { continue };
            add(change.measures.entry(*place).or_default(), *amount)?;
        }
        Ok(())
    }
}

fn owned(cell: &Cell<'_>) -> Cell<'static> {
    match cell {
        Cell::Null => Cell::Null,
        Cell::Text(text) => Cell::owned(text.clone().into_owned()),
        Cell::Count(count) => Cell::Count(*count),
        Cell::Flag(flag) => Cell::Flag(*flag),
        Cell::Instant(at) => Cell::Instant(*at),
        Cell::Decimal(value) => Cell::Decimal(*value),
    }
}

/// 128 bits of a row's checksum.
fn digest(cells: &[Cell<'_>]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    for cell in cells {
        hasher.update(format!("{cell:?}\0").as_bytes());
    }
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(hasher.finalize().as_bytes()).for_each(|(to, from)| *to = *from);
    u128::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measure_is_a_column_and_what_is_not_summed_says_what_a_row_is_about() {
        let columns = Columns::new();
        assert!(columns.measures.iter().all(|place| *place < usize::MAX));
        assert!(columns.class < usize::MAX && columns.billing_start < columns.class);
        assert_eq!(columns.billing_end.saturating_add(1), columns.billing_start);
    }

    #[test]
    fn what_contracts_were_applied_with_is_summed_contract_by_contract() {
        let columns = Columns::new();
        let row = |parts: &[(&str, i128)]| {
            let mut cells = vec![Cell::Null; USAGE_COLUMNS.len() + CUSTOM_COLUMNS.len()];
            cells[columns.applied] = Cell::owned(elements(parts.iter().copied()));
            cells
        };
        let (one, two) = (1_000_000_000_000, 2_500_000_000_000);
        let mut changed = Changed::new();
        columns.add(&mut changed, &row(&[("=a\"},", two), ("b", one)]), Sign::Written).unwrap();
        columns.add(&mut changed, &row(&[("=a\"},", one)]), Sign::TakenBack).unwrap();
        let applied: Vec<BTreeMap<String, i128>> =
            changed.into_values().map(|change| change.applied).collect();
        assert_eq!(applied, [BTreeMap::from([("=a\"},".to_owned(), two - one), ("b".to_owned(), one)])]);
    }

    #[test]
    fn a_row_that_grew_is_its_difference_and_one_that_went_is_taken_back() {
        let columns = Columns::new();
        let row = |team: &'static str, billed: i128| {
            let mut cells = vec![Cell::Null; USAGE_COLUMNS.len() + CUSTOM_COLUMNS.len()];
            cells[USAGE_COLUMNS.len()] = Cell::text(Some(team));
            cells[columns.measures[0]] = Cell::Decimal(billed);
            cells
        };
        let mut changed = Changed::new();
        for (cells, sign) in [
            (row("a", 7), Sign::Written),
            (row("b", 3), Sign::Written),
            (row("a", 5), Sign::TakenBack),
            (row("c", 4), Sign::TakenBack),
        ] {
            columns.add(&mut changed, &cells, sign).unwrap();
        }
        let sums: Vec<i128> = changed.values().map(|change| change.measures[&columns.measures[0]]).collect();
        assert_eq!(sums, [2, 3, -4]);
        assert_ne!(digest(&row("a", 7)), digest(&row("a", 5)));
    }
}
