//! Periods: what is closed stays as it was reported; what comes late is a dated correction in the
//! open period and keeps the period it is about (FINANCE §8).
//!
//! Invariants
//! - A row's period is decided when it is posted and never again.
//! - As reported, a closed period has exactly the rows it had when it was closed. As restated, every
//!   row is in the period it is about.
//!
//! Not here: rendering and manifests of exports (the ledger).

use crate::hedge::calendar::{CalendarError, Month};
use bursar_domain::Timestamp;
use std::collections::BTreeMap;

/// Which periods are closed, and since when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Periods {
    closed: BTreeMap<Month, Timestamp>,
}

/// Where a fact is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Posting {
    /// The period that reports it.
    pub period: Month,
    /// The period it is about.
    pub origin: Month,
}

/// How rows are put into periods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// As it was reported when periods were closed.
    AsReported,
    /// As it would be reported today.
    AsRestated,
}

/// Why a period cannot be closed or a fact posted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeriodError {
    /// A period can be closed once.
    #[error("{0} is closed already")]
    ClosedAlready(Month),
    /// Periods are closed in order.
    #[error("{earlier} is still open: close it before {month}")]
    OutOfOrder {
        /// The month to close.
        month: Month,
        /// The open month before it.
        earlier: Month,
    },
    /// A period is closed after the instant at which the last one was.
    #[error("{0} would be closed before an earlier period was")]
    Backwards(Month),
    /// No month follows.
    #[error(transparent)]
    Calendar(#[from] CalendarError),
}

impl Posting {
    /// Whether the fact came after its period was closed.
    #[must_use]
    pub fn is_correction(self) -> bool {
        self.period != self.origin
    }

    /// The period in which a view shows it.
    #[must_use]
    pub const fn shown_in(self, view: View) -> Month {
        match view {
            View::AsReported => self.period,
            View::AsRestated => self.origin,
        }
    }
}

impl Periods {
    /// Closes a month at an instant. The first month that is closed may be any; those after it follow
    /// without a gap.
    pub fn close(&mut self, month: Month, at: Timestamp) -> Result<(), PeriodError> {
        if self.closed.contains_key(&month) {
            return Err(PeriodError::ClosedAlready(month));
        }
        if let Some((last, closed_at)) = self.closed.last_key_value() {
            let next = last.next()?;
            if next != month {
                return Err(PeriodError::OutOfOrder { month, earlier: next });
            }
            if at < *closed_at {
                return Err(PeriodError::Backwards(month));
            }
        }
        self.closed.insert(month, at);
        Ok(())
    }

    /// Whether a month was closed at an instant.
    #[must_use]
    pub fn is_closed(&self, month: Month, at: Timestamp) -> bool {
        let first =
            self.closed.first_key_value().is_some_and(|(first, closed)| month < *first && *closed <= at);
        first || self.closed.get(&month).is_some_and(|closed| *closed <= at)
    }

    /// Where a fact about `origin` goes that became known at `known_at`: its own period while that is
    /// open, else the first one that is.
    pub fn post(&self, origin: Month, known_at: Timestamp) -> Result<Posting, PeriodError> {
        let mut period = origin;
        while self.is_closed(period, known_at) {
            period = period.next()?;
        }
        Ok(Posting { period, origin })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn month(text: &str) -> Month {
        Month::parse(text).unwrap()
    }

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn late_facts_go_to_the_open_period_and_keep_their_origin() {
        let mut periods = Periods::default();
        periods.close(month("2026-08"), at(10)).unwrap();
        periods.close(month("2026-09"), at(20)).unwrap();
        let post = |origin, known| periods.post(month(origin), at(known)).unwrap();
        assert!(!post("2026-09", 19).is_correction());
        let late = post("2026-08", 20);
        assert_eq!((late.period, late.origin), (month("2026-10"), month("2026-08")));
        assert_eq!(late.shown_in(View::AsReported), month("2026-10"));
        assert_eq!(late.shown_in(View::AsRestated), month("2026-08"));
        assert_eq!(post("2026-08", 15).period, month("2026-09"));
        assert_eq!(post("2025-01", 15).period, month("2026-09"), "before the first closed month");
    }

    #[test]
    fn periods_close_once_and_in_order() {
        let mut periods = Periods::default();
        periods.close(month("2026-08"), at(10)).unwrap();
        assert_eq!(
            periods.close(month("2026-08"), at(11)),
            Err(PeriodError::ClosedAlready(month("2026-08")))
        );
        let gap = periods.close(month("2026-10"), at(11)).unwrap_err();
        assert_eq!(gap.to_string(), "2026-09 is still open: close it before 2026-10");
        assert_eq!(periods.close(month("2026-09"), at(9)), Err(PeriodError::Backwards(month("2026-09"))));
    }
}
