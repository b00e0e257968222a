//! Whether details are kept for as long as budgets need them: at a start their windows are counted anew.
//!
//! Not here: counting (`budgets`), pruning (`ledger::retention`).

use bursar_policies::budget::Budget;
use bursar_policies::budget::window::{Unit, Window};
use jiff::tz::TimeZone;

const DAY_MICROS: i64 = 86_400_000_000;

/// The retention and what is wrong with it, when a budget needs single records for longer.
pub(super) fn too_short(detail_days: Option<u32>, budgets: &[Budget]) -> Option<(u32, String)> {
    let days = detail_days?;
    let needed = |budget: &Budget| days_needed(budget).filter(|needed| *needed > i64::from(days));
    let (budget, needed) = budgets.iter().find_map(|budget| Some((budget, needed(budget)?)))?;
    let what = format!(
        "is shorter than what budget {} counts anew at a start ({needed} days of single records)",
        budget.name
    );
    Some((days, what))
}

/// For how many days a budget needs single records; `None` when hourly totals can tell.
fn days_needed(budget: &Budget) -> Option<i64> {
    let scope = &budget.scope;
    let by_totals = scope.customer.is_none() && scope.tags.is_empty() && scope.model.is_none();
    match &budget.window {
        Window::Rolling { micros } => {
            let days = micros.div_euclid(DAY_MICROS).saturating_add(1);
            // A long one is counted by the hour, if totals have its keys.
            (!by_totals || days <= 2).then_some(days)
        }
        // What a contract has left is told by the book of positions, which rollups and facts make.
        Window::Fixed(_) => None,
        Window::Calendar { zone, .. } if by_totals && has_whole_hours(zone) => None,
        Window::Calendar { unit, .. } => Some(match unit {
            Unit::Hour | Unit::Day => 2,
            Unit::Week => 7,
            Unit::Month => 31,
            Unit::Quarter => 92,
            Unit::Year => 366,
        }),
    }
}

/// Whether the zone's days begin at whole hours of UTC, in winter and in summer.
fn has_whole_hours(zone: &TimeZone) -> bool {
    [1_767_225_600, 1_782_864_000].into_iter().all(|second| {
        let at = jiff::Timestamp::from_second(second).unwrap_or_default();
        zone.to_offset(at).seconds().rem_euclid(3_600) == 0
    })
}
