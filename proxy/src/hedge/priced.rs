//! A ledger together with the prices that tell what each token class of a record costs.
//!
//! Invariants
//! - A split is only used where it makes exactly the cost that was recorded (`ledger::hedge` compares).
//!
//! Not here: how a cost is split (`policies::price`), who asks for it (`ledger::hedge`).

use crate::app::{App, Prices};
use crate::config::{OverlayFormat, read_overlay};
use crate::usage::Api;
use bursar_domain::{Cost, StoredFact, UsageRecord};
use bursar_ledger::hedge::{HedgeSource, Reprice};
use bursar_ledger::{
    GrainRow, GroupKey, Hourly, Pricer, QueryError, ReadError, ReadFrom, RecordRange, Records, UsageQuery,
    UsageReport,
};
use bursar_policies::price::{ClassCosts, PriceBook};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A ledger, read with a price book.
pub(crate) struct Priced<'a> {
    pub(crate) ledger: &'a dyn HedgeSource,
    pub(crate) prices: &'a Prices,
}

impl App {
    /// The ledger with the prices in force, as reports on hedges read it.
    pub(crate) fn priced(&self) -> Priced<'_> {
        Priced { ledger: &self.ledger, prices: &self.prices }
    }
}

/// A price book that did not hold, for the question of what would have been.
#[derive(Debug)]
pub(crate) struct OtherPrices {
    prices: Prices,
    kept: AtomicU64,
}

impl OtherPrices {
    /// This book.
    pub(crate) fn new(book: PriceBook) -> Self {
        Self { prices: Prices::new(book), kept: AtomicU64::new(0) }
    }

    /// How many records kept their recorded cost.
    pub(crate) fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }
}

impl Reprice for OtherPrices {
    fn cost(&self, record: &UsageRecord) -> Option<Cost> {
        // Results of a batch are priced one by one when they are fetched; a record has their sum alone.
        if Api::BATCH_RESULTS.iter().any(|api| api.name() == record.api.as_str()) {
            self.kept.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Pricer::price(&self.prices, record))
    }

    fn class_costs(&self, record: &UsageRecord) -> Option<ClassCosts> {
        self.prices.class_costs(record)
    }
}

impl HedgeSource for Priced<'_> {
    fn finance_facts(&self) -> Result<Vec<Arc<StoredFact>>, ReadError> {
        self.ledger.finance_facts()
    }

    fn ask_usage(&self, query: &UsageQuery) -> Result<UsageReport, QueryError> {
        self.ledger.ask_usage(query)
    }

    fn ask_twice(
        &self,
        query: &UsageQuery,
        groupings: [Vec<GroupKey>; 2],
    ) -> Result<[UsageReport; 2], QueryError> {
        self.ledger.ask_twice(query, groupings)
    }

    fn ask_grains(
        &self,
        query: &UsageQuery,
        hourly: &Hourly<'_>,
    ) -> Result<(Vec<GrainRow>, ReadFrom), QueryError> {
        self.ledger.ask_grains(query, hourly)
    }

    fn read_records(&self, range: RecordRange) -> Records {
        self.ledger.read_records(range)
    }

    fn class_costs(&self, record: &UsageRecord) -> Option<ClassCosts> {
        self.prices.class_costs(record)
    }
}

/// The built-in book with the rows of an overlay, which win; `source` names it where the file does not.
pub(crate) fn other_book(text: &str, source: &str, format: OverlayFormat) -> Result<PriceBook, String> {
    let builtin = PriceBook::builtin().map_err(|error| error.to_string())?;
    let read = read_overlay(text, format, source).map_err(|error| error.to_string())?;
    builtin.with_overlay(read.file()).map_err(|error| error.to_string())
}
