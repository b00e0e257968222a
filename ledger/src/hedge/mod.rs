//! Hedges in the ledger: the book of positions and market data made from its facts, imports into it,
//! and the report that joins it with usage.
//!
//! Invariants
//! - The state is made from the facts alone, in their order; a fact that this program's checks refuse is
//!   named in every report, never dropped in silence.
//! - An import is checked whole before a row of it is written, and written as one frame.
//!
//! Not here: the rules (`policies::hedge`), files and tables (`bursar`).

mod import;
mod join;
mod report;
mod repriced;
mod usage;
mod volumes;

pub use import::{
    Draft, ERRORS_MAX, ImportError, ImportHead, Imported, Mode, RowError, RowPlan, USAGE_ROWS_MAX, plan,
};
pub(crate) use join::team_label;
pub(crate) use report::end_of;
pub use report::{
    HedgeAsk, HedgeError, HedgeReport, PositionRow, ReportRow, SpotCost, UsageGap, report, report_of,
};
pub use repriced::{Reprice, Repriced};
pub use usage::{RowWhat, UsageRow, UsageRows};
pub use volumes::{Constituents, Volumes, VolumesAsk, VolumesError, volumes};

use crate::journal::read::ReadError;
use crate::{
    GrainRow, GroupKey, Hourly, Ledger, OfflineLedger, QueryError, ReadFrom, RecordRange, Records,
    UsageQuery, UsageReport,
};
use bursar_domain::{StoredFact, UsageRecord};
use bursar_policies::hedge::intake::Intake;
use bursar_policies::price::ClassCosts;
use std::sync::Arc;

/// A ledger as reports on hedges read it.
pub trait HedgeSource: Sync {
    /// Every finance fact, in sequence.
    fn finance_facts(&self) -> Result<Vec<Arc<StoredFact>>, ReadError>;
    /// Answers a question about usage.
    fn ask_usage(&self, query: &UsageQuery) -> Result<UsageReport, QueryError>;
    /// Answers the same question with two lists of keys: at once, where records are read.
    fn ask_twice(
        &self,
        query: &UsageQuery,
        groupings: [Vec<GroupKey>; 2],
    ) -> Result<[UsageReport; 2], QueryError> {
        let [one, other] = groupings;
        Ok([self.ask_usage(&query.by(one))?, self.ask_usage(&query.by(other))?])
    }
    /// Usage by the query's keys and by day, or by hour where `hourly` says so.
    fn ask_grains(
        &self,
        query: &UsageQuery,
        hourly: &Hourly<'_>,
    ) -> Result<(Vec<GrainRow>, ReadFrom), QueryError>;
    /// The records in a range.
    fn read_records(&self, range: RecordRange) -> Records;
    /// What the classes of a record's tokens cost, by the prices that are known where the ledger is read;
    /// `None` when they do not tell.
    fn class_costs(&self, _record: &UsageRecord) -> Option<ClassCosts> {
        None
    }
}

impl HedgeSource for Ledger {
    fn finance_facts(&self) -> Result<Vec<Arc<StoredFact>>, ReadError> {
        Ok(self.facts())
    }

    fn ask_usage(&self, query: &UsageQuery) -> Result<UsageReport, QueryError> {
        self.usage(query)
    }

    fn ask_grains(
        &self,
        query: &UsageQuery,
        hourly: &Hourly<'_>,
    ) -> Result<(Vec<GrainRow>, ReadFrom), QueryError> {
        self.usage_by_grain(query, hourly)
    }

    fn read_records(&self, range: RecordRange) -> Records {
        self.records(range)
    }
}

impl HedgeSource for OfflineLedger {
    fn finance_facts(&self) -> Result<Vec<Arc<StoredFact>>, ReadError> {
        Ok(self.facts()?.into_iter().map(Arc::new).collect())
    }

    fn ask_usage(&self, query: &UsageQuery) -> Result<UsageReport, QueryError> {
        self.usage(query)
    }

    fn ask_twice(
        &self,
        query: &UsageQuery,
        groupings: [Vec<GroupKey>; 2],
    ) -> Result<[UsageReport; 2], QueryError> {
        self.usage_twice(query, groupings)
    }

    fn ask_grains(
        &self,
        query: &UsageQuery,
        hourly: &Hourly<'_>,
    ) -> Result<(Vec<GrainRow>, ReadFrom), QueryError> {
        self.usage_by_grain(query, hourly)
    }

    fn read_records(&self, range: RecordRange) -> Records {
        self.records(range)
    }
}

/// A fact that the checks of this program refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Its sequence.
    pub sequence: u64,
    /// What it is about.
    pub name: String,
    /// Why it is refused.
    pub reason: String,
}

/// What the facts add up to.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Market data, positions, events, profiles.
    pub intake: Intake,
    /// Facts that could not be taken in.
    pub unusable: Vec<Unusable>,
}

/// Takes facts in, in their order.
#[must_use]
pub fn state(facts: &[Arc<StoredFact>]) -> State {
    let mut state = State::default();
    for stored in facts {
        let fact = &stored.fact;
        if let Err(error) = state.intake.admit(fact.kind, &fact.body, fact.at) {
            state.unusable.push(Unusable {
                sequence: stored.sequence,
                name: fact.name.to_string(),
                reason: error.to_string(),
            });
        }
    }
    state
}

#[cfg(test)]
mod tests;
