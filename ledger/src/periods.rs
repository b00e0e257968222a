//! Closed periods in the ledger: what was reported when a month was closed, as facts, and the ledger as
//! it was at a sequence.
//!
//! Invariants
//! - A month is closed once and in order; what was reported then is kept byte for byte, in one frame with
//!   its manifest, and its SHA-256 tells whether it still is.
//! - The ledger up to a sequence never changes, so whatever was computed from it can be computed again.
//!
//! Not here: what is reported and what is a correction (`bursar`), the order of months
//! (`policies::periods`).

use crate::facts::{FactError, NewFact, dated};
use crate::hedge::HedgeSource;
use crate::journal::read::ReadError;
use crate::query::{
    GrainRow, GroupKey, Hourly, QueryError, ReadFrom, UsageQuery, UsageReport, grains_of,
    groupings_of_records, of_records,
};
use crate::{Ledger, RecordRange, Records};
use bursar_domain::{Clock, FactKind, Label, StoredFact, Timestamp, UsageRecord};
use bursar_policies::hedge::calendar::{CalendarError, Month};
use bursar_policies::periods::{PeriodError, Periods};
use bursar_policies::price::ClassCosts;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Bytes of a report in one fact: escaped, it still fits.
const PART_BYTES: usize = 30_000;

/// What is kept about a closed month beside its report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The month, such as `2026-09`.
    pub month: String,
    /// When it was closed (RFC 3339).
    pub closed_at: String,
    /// The last sequence of the ledger that is in the report.
    pub sequence: u64,
    /// The last day that was valued.
    pub on: String,
    /// The question, as its options say it.
    pub options: Value,
    /// Rows of the report.
    pub rows: u64,
    /// Corrections of earlier months in it.
    pub corrections: u64,
    /// Its totals.
    pub totals: Value,
    /// Bytes of the report.
    pub bytes: u64,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
    /// Facts that hold it.
    pub parts: u64,
}

/// A closed month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The month.
    pub month: Month,
    /// When it was closed.
    pub at: Timestamp,
    /// What is kept about it.
    pub manifest: Manifest,
    /// The report as it was.
    pub text: String,
}

impl Closed {
    /// Whether the report still is what was closed.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        sha256(self.text.as_bytes()) == self.manifest.sha256
    }
}

/// SHA-256, hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Why a month cannot be closed, or what was closed cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// The order of months.
    #[error(transparent)]
    Period(#[from] PeriodError),
    /// A month that is none.
    #[error(transparent)]
    Calendar(#[from] CalendarError),
    /// The facts were not recorded.
    #[error(transparent)]
    Facts(#[from] FactError),
    /// A fact about a closed month that this program cannot read.
    #[error("fact {sequence} about a closed month cannot be read: {reason}")]
    Unreadable {
        /// Its sequence.
        sequence: u64,
        /// Why.
        reason: String,
    },
    /// Not all of the report is there.
    #[error("of the report of {month}, {found} of {parts} parts are in the ledger")]
    Parts {
        /// The month.
        month: Month,
        /// How many are there.
        found: u64,
        /// How many there should be.
        parts: u64,
    },
}

#[derive(Deserialize)]
struct Part {
    part: u64,
    text: String,
}

/// The closed months among facts, in order.
pub fn closed(facts: &[Arc<StoredFact>]) -> Result<Vec<Closed>, CloseError> {
    let mut found: Vec<Closed> = Vec::new();
    let mut parts = 0_u64;
    for stored in facts.iter().filter(|stored| stored.fact.kind == FactKind::PeriodClose) {
        let body = &stored.fact.body;
        let unreadable = |error: serde_json::Error| CloseError::Unreadable {
            sequence: stored.sequence,
            reason: error.to_string(),
        };
        // The manifest comes first in its frame, its parts follow.
        if let Ok(part) = serde_json::from_str::<Part>(body) {
            if let Some(last) = found.last_mut() {
                parts = parts.saturating_add(u64::from(part.part == parts.saturating_add(1)));
                last.text.push_str(&part.text);
            }
            continue;
        }
        whole(found.last(), parts)?;
        parts = 0;
        let manifest: Manifest = serde_json::from_str(body).map_err(unreadable)?;
        let month = Month::parse(&manifest.month)?;
        found.push(Closed { month, at: stored.fact.at, manifest, text: String::new() });
    }
    whole(found.last(), parts)?;
    Ok(found)
}

fn whole(last: Option<&Closed>, found: u64) -> Result<(), CloseError> {
    match last {
        Some(last) if last.manifest.parts != found => {
            Err(CloseError::Parts { month: last.month, found, parts: last.manifest.parts })
        }
        _ => Ok(()),
    }
}

/// The order of closed months; closing `month` next is refused where it must be.
pub fn periods(closed: &[Closed]) -> Result<Periods, PeriodError> {
    let mut periods = Periods::default();
    for closed in closed {
        periods.close(closed.month, closed.at)?;
    }
    Ok(periods)
}

fn parts_of(text: &str) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let (part, after) = rest.split_at(rest.floor_char_boundary(PART_BYTES.min(rest.len())));
        parts.push(part);
        rest = after;
    }
    parts
}

impl Ledger {
    /// Closes a month with its report. `manifest` says what was asked; bytes, parts and checksum are
    /// filled in here. Returns the whole manifest. Blocks: not for an async thread.
    pub fn close_period(
        &self,
        mut manifest: Manifest,
        text: &str,
        clock: &dyn Clock,
    ) -> Result<Manifest, CloseError> {
        let _guard = self.importing();
        let month = Month::parse(&manifest.month)?;
        periods(&closed(&self.facts())?)?.close(month, clock.now())?;
        let parts = parts_of(text);
        manifest.bytes = text.len() as u64;
        manifest.parts = parts.len() as u64;
        manifest.sha256 = sha256(text.as_bytes());
        let name = |text: &str| Label::lossy(text).unwrap_or_else(|| Label::fixed("period"));
        let body = serde_json::to_string(&manifest)
            .map_err(|error| CloseError::Unreadable { sequence: 0, reason: error.to_string() })?;
        let head = NewFact { kind: FactKind::PeriodClose, name: name(&manifest.month), body: body.into() };
        let parts = (1_u64..).zip(parts).map(|(number, text)| NewFact {
            kind: FactKind::PeriodClose,
            name: name(&format!("{} part {number}", manifest.month)),
            body: json!({ "part": number, "text": text }).to_string().into(),
        });
        let facts = std::iter::once(head).chain(parts).collect();
        self.append_facts(dated(facts, clock)?)?;
        Ok(manifest)
    }
}

/// A ledger as it was when its last sequence was the given one.
pub struct UpTo<'a> {
    source: &'a dyn HedgeSource,
    sequence: u64,
}

impl std::fmt::Debug for UpTo<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpTo").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl<'a> UpTo<'a> {
    /// `source` up to `sequence`.
    #[must_use]
    pub const fn new(source: &'a dyn HedgeSource, sequence: u64) -> Self {
        Self { source, sequence }
    }
}

impl HedgeSource for UpTo<'_> {
    fn finance_facts(&self) -> Result<Vec<Arc<StoredFact>>, ReadError> {
        let mut facts = self.source.finance_facts()?;
        facts.retain(|stored| stored.sequence <= self.sequence);
        Ok(facts)
    }

    fn ask_usage(&self, query: &UsageQuery) -> Result<UsageReport, QueryError> {
        of_records(self.read_records(query.range()), query, self.sequence)
    }

    fn ask_twice(
        &self,
        query: &UsageQuery,
        groupings: [Vec<GroupKey>; 2],
    ) -> Result<[UsageReport; 2], QueryError> {
        groupings_of_records(self.read_records(query.range()), query, groupings, self.sequence)
    }

    fn ask_grains(
        &self,
        query: &UsageQuery,
        hourly: &Hourly<'_>,
    ) -> Result<(Vec<GrainRow>, ReadFrom), QueryError> {
        Ok((grains_of(self.read_records(query.range()), query, hourly)?, ReadFrom::Records))
    }

    fn read_records(&self, range: RecordRange) -> Records {
        self.source.read_records(range).up_to(self.sequence)
    }

    fn class_costs(&self, record: &UsageRecord) -> Option<ClassCosts> {
        self.source.class_costs(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_cut_at_characters_and_comes_back_whole() {
        let text = "é\"\n".repeat(40_000);
        let parts = parts_of(&text);
        assert!(parts.len() > 4 && parts.iter().all(|part| part.len() <= PART_BYTES));
        assert_eq!(parts.concat(), text);
        let longest = parts.iter().map(|part| json!({ "part": 1, "text": part }).to_string().len()).max();
        assert!(longest.unwrap() <= bursar_domain::fact::FACT_BYTES_MAX);
        assert!(parts_of("").is_empty());
    }

    #[test]
    fn the_checksum_is_sha_256() {
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), known);
    }
}
