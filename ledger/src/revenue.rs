//! Revenue events in the ledger: imports, and the events that its facts are.
//!
//! Invariants
//! - An event counts once by source and id; the same again is counted as there, another is refused.
//! - All events of an import are one frame of the journal, or none is written.
//! - An import looks at new facts only: what is there is kept by name, not read again.
//!
//! Not here: what an event may say (`policies::attribution`), who gets what (`roi`).

use crate::facts::{FACTS_PER_IMPORT_MAX, FactError, FactQueue, dated, lock};
use crate::hedge::{ImportError, ImportHead, Imported, Mode, RowError, RowPlan, Unusable};
use crate::{Ledger, hedge};
use bursar_domain::{Clock, FactKind, Label, StoredFact};
use bursar_policies::attribution::{Admission, EntryError, Revenue, RevenueEntry, RevenueError, RevenueLog};
use bursar_policies::hedge::calendar::Month;
use bursar_policies::hedge::market::Added;
use jiff::tz::TimeZone;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What imports of revenue remember between them.
#[derive(Debug, Default)]
pub(crate) struct KnownRevenue {
    log: RevenueLog,
    /// Facts that are in the log, of those at hand.
    facts: usize,
}

impl KnownRevenue {
    fn catch_up(&mut self, queue: &FactQueue) {
        for stored in queue.since(self.facts) {
            self.facts = self.facts.saturating_add(1);
            if stored.fact.kind == FactKind::Revenue
                && let Ok(revenue) = read(&stored)
            {
                // One that is refused was written by another program; reports name it.
                let _ = self.log.admit(&revenue, &stored.fact.body);
            }
        }
    }
}

/// What an import of revenue did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevenueImported {
    /// Rows, news and errors.
    pub imported: Imported,
    /// Whether a row has the name of an event that says something else.
    pub conflict: bool,
}

/// The event of a fact.
fn read(stored: &StoredFact) -> Result<Revenue, EntryError> {
    RevenueEntry::read(&stored.fact.body)?.check()
}

/// The revenue events among facts, with their sequences, and those that this program cannot read.
#[must_use]
pub fn revenue_events(facts: &[Arc<StoredFact>]) -> (Vec<(u64, Revenue)>, Vec<Unusable>) {
    let (mut events, mut unusable) = (Vec::new(), Vec::new());
    for stored in facts.iter().filter(|stored| stored.fact.kind == FactKind::Revenue) {
        match read(stored) {
            Ok(revenue) => events.push((stored.sequence, revenue)),
            Err(error) => unusable.push(Unusable {
                sequence: stored.sequence,
                name: stored.fact.name.to_string(),
                reason: error.to_string(),
            }),
        }
    }
    (events, unusable)
}

/// The months, in a zone, that the revenue events among facts are about.
#[must_use]
pub fn revenue_months(facts: &[Arc<StoredFact>], zone: &TimeZone) -> BTreeSet<Month> {
    let (events, _) = revenue_events(facts);
    let day = |revenue: &Revenue| {
        let at = jiff::Timestamp::from_microsecond(revenue.event.at.micros()).unwrap_or_default();
        at.to_zoned(zone.clone()).date()
    };
    events.iter().map(|(_, revenue)| Month::of(day(revenue))).collect()
}

fn name_of(revenue: &Revenue) -> Label {
    let (source, id) = revenue.key();
    Label::lossy(&format!("{source} {id}")).unwrap_or(id)
}

/// In which order events are taken in: what others refer to comes first, what takes back last.
fn turn(revenue: &Revenue) -> u8 {
    match (revenue.event.refers_to.is_some(), revenue.takes_back()) {
        (false, _) => 0,
        (true, false) => 1,
        (true, true) => 2,
    }
}

impl Ledger {
    /// Writes revenue events, each with the line it comes from, if none is bad and `mode` says so. The
    /// order of the lines does not matter. Blocks: not for an async thread.
    pub fn import_revenue(
        &self,
        mut events: Vec<(u64, Revenue)>,
        head: &ImportHead,
        mode: Mode,
        clock: &dyn Clock,
    ) -> Result<RevenueImported, ImportError> {
        let _guard = self.importing();
        if events.len() >= FACTS_PER_IMPORT_MAX {
            return Err(FactError::TooMany.into());
        }
        let queue = &self.inner.shared.facts;
        let mut known = lock(&queue.revenue);
        known.catch_up(queue);
        let mut found = RevenueImported::default();
        found.imported.rows = events.len() as u64;
        events.sort_by_key(|(_, revenue)| turn(revenue));
        let admitted = admit_all(&mut known.log, &events, &mut found);
        let write =
            mode == Mode::Apply && found.imported.errors.is_empty() && !found.imported.writes.is_empty();
        let written =
            if write { self.write_revenue(&found.imported, head, clock).map(Some) } else { Ok(None) };
        match written {
            Ok(Some(sequence)) => found.imported.written = Some(sequence),
            // What was not written is not there.
            not_written => {
                admitted.into_iter().rev().for_each(|revenue| known.log.retract(revenue));
                not_written?;
            }
        }
        Ok(found)
    }

    fn write_revenue(
        &self,
        imported: &Imported,
        head: &ImportHead,
        clock: &dyn Clock,
    ) -> Result<u64, ImportError> {
        Ok(self.append_facts(dated(imported.facts(head), clock)?)?)
    }
}

/// Takes events in; those that are new, in order.
fn admit_all<'a>(
    log: &mut RevenueLog,
    events: &'a [(u64, Revenue)],
    found: &mut RevenueImported,
) -> Vec<&'a Revenue> {
    let mut admitted = Vec::new();
    for (line, revenue) in events {
        let body: Arc<str> = revenue.body().into();
        match log.admit(revenue, &body) {
            Ok(Admission::New) => {
                admitted.push(revenue);
                let (line, kind, added) = (Some(*line), FactKind::Revenue, Added::New);
                found.imported.writes.push(RowPlan { line, kind, name: name_of(revenue), added, body });
            }
            Ok(Admission::Same) => found.imported.same = found.imported.same.saturating_add(1),
            Err(error) => {
                found.conflict |= matches!(error, RevenueError::Changed(_));
                if found.imported.errors.len() < hedge::ERRORS_MAX {
                    found.imported.errors.push(RowError { line: *line, problem: error.to_string() });
                }
            }
        }
    }
    found.imported.errors.sort_by_key(|error| error.line);
    admitted
}

#[cfg(test)]
mod tests;
