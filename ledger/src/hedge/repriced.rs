//! A ledger as it would be had other prices held: the same usage, contracts and market data.
//!
//! Invariants
//! - Only costs differ, and only of records that count; nothing is written anywhere.
//! - What the other prices do not know is unpriced there, never zero; what cannot be priced anew keeps its
//!   recorded cost.
//!
//! Not here: the other prices, and which records cannot be priced anew (the caller).

use super::HedgeSource;
use crate::journal::read::ReadError;
use crate::query::{
    GrainRow, GroupKey, Hourly, QueryError, ReadFrom, UsageQuery, UsageReport, grains_of,
    groupings_of_records, of_records,
};
use crate::{RecordRange, Records};
use bursar_domain::{Cost, StoredFact, UsageRecord};
use bursar_policies::price::ClassCosts;
use std::sync::Arc;

/// Other prices.
pub trait Reprice: Send + Sync {
    /// What a record would have cost; `None` where it keeps the recorded cost.
    fn cost(&self, record: &UsageRecord) -> Option<Cost>;
    /// What the classes of its tokens would have cost; `None` when these prices do not tell.
    fn class_costs(&self, record: &UsageRecord) -> Option<ClassCosts>;
}

/// A ledger at other prices. Usage is read record by record.
pub struct Repriced<'a> {
    source: &'a dyn HedgeSource,
    prices: Arc<dyn Reprice>,
}

impl std::fmt::Debug for Repriced<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repriced").finish_non_exhaustive()
    }
}

impl<'a> Repriced<'a> {
    /// `source` at these prices.
    #[must_use]
    pub fn new(source: &'a dyn HedgeSource, prices: Arc<dyn Reprice>) -> Self {
        Self { source, prices }
    }
}

impl HedgeSource for Repriced<'_> {
    fn finance_facts(&self) -> Result<Vec<Arc<StoredFact>>, ReadError> {
        self.source.finance_facts()
    }

    fn ask_usage(&self, query: &UsageQuery) -> Result<UsageReport, QueryError> {
        of_records(self.read_records(query.range()), query, u64::MAX)
    }

    fn ask_twice(
        &self,
        query: &UsageQuery,
        groupings: [Vec<GroupKey>; 2],
    ) -> Result<[UsageReport; 2], QueryError> {
        groupings_of_records(self.read_records(query.range()), query, groupings, u64::MAX)
    }

    fn ask_grains(
        &self,
        query: &UsageQuery,
        hourly: &Hourly<'_>,
    ) -> Result<(Vec<GrainRow>, ReadFrom), QueryError> {
        Ok((grains_of(self.read_records(query.range()), query, hourly)?, ReadFrom::Records))
    }

    fn read_records(&self, range: RecordRange) -> Records {
        self.source.read_records(range).at_prices(Arc::clone(&self.prices))
    }

    fn class_costs(&self, record: &UsageRecord) -> Option<ClassCosts> {
        match self.prices.class_costs(record) {
            Some(costs) => Some(costs),
            None => self.source.class_costs(record),
        }
    }
}
