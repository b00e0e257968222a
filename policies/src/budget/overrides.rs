//! Temporary changes of budgets' limits.
//!
//! Invariants
//! - A change holds until its end and never after it, by the clock that chooses windows.
//! - Of several that set a limit the one that was made last counts; what others add comes on top.
//!
//! Not here: where changes are kept (`bursar-ledger`), who may make them (`bursar`).

use bursar_domain::{RequestId, Timestamp};

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// So much more.
    Add(i128),
    /// So much in all.
    Limit(i128),
}

/// A change of one budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// Names it.
    pub id: RequestId,
    /// What is changed, in the budget's measure; not below zero.
    pub change: Change,
    /// From when on it no longer holds.
    pub until: Timestamp,
}

/// The limit that `overrides`, in the order in which they were made, leave of `limit` at an instant.
#[must_use]
pub fn limit_at(limit: i128, overrides: &[Override], at: Timestamp) -> i128 {
    let mut base = limit;
    let mut added = 0_i128;
    for change in overrides.iter().filter(|change| at < change.until) {
        match change.change {
            Change::Add(more) => added = added.saturating_add(more),
            Change::Limit(limit) => base = limit,
        }
    }
    base.saturating_add(added)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(change: Change, until: i64) -> Override {
        Override { id: RequestId::from_bits(1), change, until: Timestamp::from_micros(until) }
    }

    #[test]
    fn what_is_added_comes_on_top_of_the_last_limit_until_it_ends() {
        let overrides = [
            over(Change::Add(5), 100),
            over(Change::Limit(50), 200),
            over(Change::Limit(20), 150),
            over(Change::Add(1), 300),
        ];
        let at = |micros| limit_at(10, &overrides, Timestamp::from_micros(micros));
        assert_eq!([at(99), at(100), at(149), at(150), at(200), at(300)], [26, 21, 21, 51, 11, 10]);
        assert_eq!(limit_at(7, &[], Timestamp::from_micros(0)), 7);
        assert_eq!(limit_at(i128::MAX, &overrides, Timestamp::from_micros(0)), 26);
    }
}
