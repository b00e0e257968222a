//! A ledger together with the prices that tell what each token class of a record costs.
//!
//! Invariants
//! - A split is only used where it makes exactly the cost that was recorded (`ledger::hedge` compares).
//!
//! Not here: how a cost is split (`policies::price`), who asks for it (`ledger::hedge`).

use crate::app::{App, Prices};
use bursar_domain::{StoredFact, UsageRecord};
use bursar_ledger::hedge::HedgeSource;
use bursar_ledger::{
    GrainRow, Hourly, QueryError, ReadError, ReadFrom, RecordRange, Records, UsageQuery, UsageReport,
};
use bursar_policies::price::ClassCosts;
use std::sync::Arc;

/// A ledger that no sidecar uses, read with a price book.
pub(crate) struct Priced<'a> {
    pub(crate) ledger: &'a dyn HedgeSource,
    pub(crate) prices: Prices,
}

impl HedgeSource for Priced<'_> {
    fn finance_facts(&self) -> Result<Vec<Arc<StoredFact>>, ReadError> {
        self.ledger.finance_facts()
    }

    fn ask_usage(&self, query: &UsageQuery) -> Result<UsageReport, QueryError> {
        self.ledger.ask_usage(query)
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

impl HedgeSource for App {
    fn finance_facts(&self) -> Result<Vec<Arc<StoredFact>>, ReadError> {
        self.ledger.finance_facts()
    }

    fn ask_usage(&self, query: &UsageQuery) -> Result<UsageReport, QueryError> {
        self.ledger.ask_usage(query)
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
