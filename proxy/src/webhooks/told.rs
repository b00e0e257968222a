//! What was told of budgets already, so that it is told once.
//!
//! Invariants
//! - In a window of a calendar or a contract, each thing is told once; again only where the limit has
//!   changed since, and the share was not reached under the new one meanwhile.
//! - In a rolling window, each thing is told at most once in the length of the window, and a share only when
//!   it was not reached in between.
//! - An entry per budget and thing, for budgets that are there.
//!
//! Not here: where it is kept (`state`), what is said (`event`).

use crate::budgets::Turns;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// What can be told of a budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// This share of its limit is spent, in percent.
    Threshold(u8),
    /// It began to refuse, for this reason.
    Refusing(String),
    /// Its window ended.
    Window,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threshold(percent) => write!(f, "threshold:{percent}"),
            Self::Refusing(reason) => write!(f, "refusing:{reason}"),
            Self::Window => f.write_str("window"),
        }
    }
}

/// What is seen of a budget now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    /// How its window goes on.
    pub(super) turns: Turns,
    /// The limit in force.
    pub(super) limit: i128,
    /// Whether it is so now.
    pub(super) is_so: bool,
    /// The time now, in microseconds since the epoch.
    pub(super) now: i64,
}

/// All that was told.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Told(BTreeMap<String, OfBudget>);

/// What was told of one budget.
#[derive(Debug, Default, Serialize, Deserialize)]
struct OfBudget {
    /// The beginning of the window that was seen last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    window: Option<i64>,
    #[serde(default)]
    marks: Vec<Mark>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    what: What,
    /// The beginning of the window that it is about; of a rolling one, when it was told.
    window: i64,
    /// The limit in force then; as text, since JSON has no such integers.
    limit: String,
    /// Of a rolling window: it was not so meanwhile.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    again: bool,
}

impl Told {
    /// Whether this is to be told now; then it counts as told. Returns the window it is about: when that
    /// began, or of a rolling one, when it is told. The flag says whether anything is to be kept.
    pub(super) fn news(&mut self, budget: &str, what: &What, sight: Sight) -> (Option<i64>, bool) {
        let window = match sight.turns {
            Turns::At { start } => start,
            Turns::Rolling { .. } => sight.now,
        };
        let limit = || sight.limit.to_string();
        let found = self.0.get_mut(budget);
        let Some(of) = found else {
            if sight.is_so {
                let mark = Mark { what: what.clone(), window, limit: limit(), again: false };
                self.0.entry(budget.to_owned()).or_default().marks.push(mark);
            }
            return (sight.is_so.then_some(window), sight.is_so);
        };
        let Some(at) = of.marks.iter().position(|mark| mark.what == *what) else {
            if sight.is_so {
                of.marks.push(Mark { what: what.clone(), window, limit: limit(), again: false });
            }
            return (sight.is_so.then_some(window), sight.is_so);
        };
        let Some(mark) = of.marks.get_mut(at) else { return (None, false) };
        let is_fresh = match sight.turns {
            Turns::At { start } => start > mark.window,
            Turns::Rolling { micros } => {
                let is_due = sight.now >= mark.window.saturating_add(micros);
                is_due && (mark.again || !matches!(what, What::Threshold(_)))
            }
        };
        if sight.is_so {
            if is_fresh {
                *mark = Mark { what: what.clone(), window, limit: limit(), again: false };
            }
            return (is_fresh.then_some(window), is_fresh);
        }
        let is_of_now = match sight.turns {
            Turns::At { start } => start == mark.window,
            Turns::Rolling { .. } => true,
        };
        if is_of_now && mark.limit != limit() {
            of.marks.remove(at);
            return (None, true);
        }
        let changes = matches!(sight.turns, Turns::Rolling { .. }) && !mark.again;
        mark.again |= changes;
        (None, changes)
    }

    /// Notes in which window a budget is. Returns the beginning of the one before, where it is another one
    /// than the last time; the flag says whether anything is to be kept.
    pub(super) fn turned(&mut self, budget: &str, start: i64) -> (Option<i64>, bool) {
        let known = self.0.get(budget).and_then(|of| of.window);
        if known.is_some_and(|known| known >= start) {
            return (None, false);
        }
        self.0.entry(budget.to_owned()).or_default().window = Some(start);
        (known, true)
    }

    /// Forgets budgets that are not among these.
    pub(super) fn retain(&mut self, names: &HashSet<&str>) {
        self.0.retain(|name, _| names.contains(name.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;
    const SHARE: What = What::Threshold(80);

    /// Whether it is told when the window began at `start`.
    fn at(told: &mut Told, start: i64, limit: i128, is_so: bool) -> Option<i64> {
        let sight = Sight { turns: Turns::At { start }, limit, is_so, now: start + 5 };
        told.news("b", &SHARE, sight).0
    }

    fn rolling(told: &mut Told, now: i64, is_so: bool) -> Option<i64> {
        told.news("b", &SHARE, Sight { turns: Turns::Rolling { micros: HOUR }, limit: 9, is_so, now }).0
    }

    /// As it is after a restart.
    fn reread(told: &Told) -> Told {
        serde_json::from_str(&serde_json::to_string(told).unwrap()).unwrap()
    }

    #[test]
    fn a_share_is_told_once_in_a_window_and_again_in_the_next_also_after_a_restart() {
        let mut told = Told::default();
        assert_eq!(at(&mut told, 100, 10, false), None);
        assert_eq!(at(&mut told, 100, 10, true), Some(100));
        assert_eq!(at(&mut told, 100, 10, true), None);
        told = reread(&told);
        assert_eq!(at(&mut told, 100, 10, true), None);
        assert_eq!(at(&mut told, 100, 10, false), None, "a correction");
        assert_eq!(at(&mut told, 100, 10, true), None, "once is enough");
        assert_eq!(at(&mut told, 200, 10, false), None);
        assert_eq!(at(&mut told, 200, 10, true), Some(200));
        assert_eq!(at(&mut told, 100, 10, true), None, "the clock was set back");
    }

    #[test]
    fn another_limit_tells_again_only_what_was_not_reached_under_it() {
        let mut told = Told::default();
        assert_eq!(at(&mut told, 100, 10, true), Some(100));
        assert_eq!(at(&mut told, 100, 11, true), None, "it is still so");
        assert_eq!(at(&mut told, 100, 20, false), None);
        assert_eq!(at(&mut told, 100, 20, true), Some(100));
        assert_eq!(at(&mut told, 100, 20, true), None);
    }

    #[test]
    fn a_rolling_window_tells_at_most_once_in_its_length_and_only_what_was_gone_meanwhile() {
        let mut told = Told::default();
        assert_eq!(rolling(&mut told, 10, true), Some(10));
        assert_eq!(rolling(&mut told, 10 + HOUR, true), None, "it was so all the time");
        assert_eq!(rolling(&mut told, 20 + HOUR, false), None);
        told = reread(&told);
        assert_eq!(rolling(&mut told, 30 + HOUR, true), Some(30 + HOUR));
        assert_eq!(rolling(&mut told, 40 + HOUR, false), None);
        assert_eq!(rolling(&mut told, 50 + HOUR, true), None, "too soon");
        assert_eq!(rolling(&mut told, 30 + 2 * HOUR, true), Some(30 + 2 * HOUR));
        let refusing = What::Refusing("over_budget".to_owned());
        let sight = |now| Sight { turns: Turns::Rolling { micros: HOUR }, limit: 9, is_so: true, now };
        assert_eq!(told.news("b", &refusing, sight(10)).0, Some(10));
        assert_eq!(told.news("b", &refusing, sight(9 + HOUR)).0, None);
        assert_eq!(told.news("b", &refusing, sight(10 + HOUR)).0, Some(10 + HOUR));
    }

    #[test]
    fn a_window_ends_once_and_what_was_never_seen_does_not_end() {
        let mut told = Told::default();
        assert_eq!(told.turned("b", 100), (None, true));
        assert_eq!(told.turned("b", 100), (None, false));
        assert_eq!(reread(&told).turned("b", 200), (Some(100), true));
        assert_eq!(told.turned("b", 200), (Some(100), true));
        assert_eq!(told.turned("b", 100), (None, false), "the clock was set back");
    }

    #[test]
    fn budgets_that_are_gone_are_forgotten() {
        let mut told = Told::default();
        at(&mut told, 100, 10, true);
        told.retain(&HashSet::from(["c"]));
        assert!(told.0.is_empty());
    }
}
