//! Which touches an event has: the order in which keys are tried, one touch per session, the
//! look-back window.
//!
//! Invariants
//! - The first level that finds anything decides; levels are never mixed.
//! - A touch counts when `0 ≤ age ≤ window`, both ends inside; one after the event never does.
//!
//! Not here: finding touches by a key (the caller), credit (`model`).

use bursar_domain::{Label, RequestId, Timestamp, TraceId};
use std::collections::BTreeMap;

/// One contact of a workload with what became revenue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// The workload.
    pub workload: Label,
    /// When.
    pub at: Timestamp,
    /// Breaks ties of `at`.
    pub id: u128,
    /// The session, where known.
    pub session: Option<Label>,
}

/// What an event knows about what it came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MatchKeys {
    /// Request.
    pub request: Option<RequestId>,
    /// Trace.
    pub trace: Option<TraceId>,
    /// Session.
    pub session: Option<Label>,
    /// Customer.
    pub customer: Option<Label>,
    /// Workload.
    pub workload: Option<Label>,
    /// Tag, by name and value.
    pub tag: Option<(Label, Label)>,
}

/// One key to look touches up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// The touch of one request.
    Request(RequestId),
    /// The touches of a trace.
    Trace(TraceId),
    /// The touches of a session.
    Session(&'a Label),
    /// The touches of a customer by a workload.
    CustomerWorkload(&'a Label, &'a Label),
    /// The touches of a workload.
    Workload(&'a Label),
    /// The touches with a tag.
    Tag(&'a Label, &'a Label),
}

/// How an event was matched; the order is the order in which keys are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// By request id.
    Request,
    /// By trace id.
    Trace,
    /// By session.
    Session,
    /// By customer and workload.
    CustomerWorkload,
    /// By workload.
    Workload,
    /// By tag.
    Tag,
    /// Not at all.
    Unattributed,
}

impl Level {
    /// The name used in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Trace => "trace",
            Self::Session => "session",
            Self::CustomerWorkload => "customer_workload",
            Self::Workload => "workload",
            Self::Tag => "tag",
            Self::Unattributed => "unattributed",
        }
    }
}

impl MatchKeys {
    /// The keys that there are, in the order in which they are tried.
    pub fn in_order(&self) -> impl Iterator<Item = (Level, Key<'_>)> {
        let both = self.customer.as_ref().zip(self.workload.as_ref());
        [
            self.request.map(|id| (Level::Request, Key::Request(id))),
            self.trace.map(|id| (Level::Trace, Key::Trace(id))),
            self.session.as_ref().map(|session| (Level::Session, Key::Session(session))),
            both.map(|(c, w)| (Level::CustomerWorkload, Key::CustomerWorkload(c, w))),
            self.workload.as_ref().map(|workload| (Level::Workload, Key::Workload(workload))),
            self.tag.as_ref().map(|(name, value)| (Level::Tag, Key::Tag(name, value))),
        ]
        .into_iter()
        .flatten()
    }
}

/// Finds the touches of an event: the first key in order that has any in the window.
pub fn resolve(
    keys: &MatchKeys,
    at: Timestamp,
    window_micros: u64,
    mut look_up: impl FnMut(Key<'_>) -> Vec<Touch>,
) -> (Level, Vec<Touch>) {
    for (level, key) in keys.in_order() {
        let found = in_window(look_up(key), at, window_micros);
        if !found.is_empty() {
            return (level, collapse(found));
        }
    }
    (Level::Unattributed, Vec::new())
}

/// The touches at most `window_micros` before `at`, and none after it.
#[must_use]
pub fn in_window(mut touches: Vec<Touch>, at: Timestamp, window_micros: u64) -> Vec<Touch> {
    touches.retain(|touch| touch.at <= at && at.micros_since(touch.at) <= window_micros);
    touches
}

/// Several touches of one workload in one session become the first of them; in order of time.
#[must_use]
pub fn collapse(mut touches: Vec<Touch>) -> Vec<Touch> {
    touches.sort_by(|a, b| (a.at, a.id, &a.workload).cmp(&(b.at, b.id, &b.workload)));
    let mut seen: BTreeMap<(Label, Label), ()> = BTreeMap::new();
    touches.retain(|touch| match &touch.session {
        Some(session) => seen.insert((session.clone(), touch.workload.clone()), ()).is_none(),
        None => true,
    });
    touches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(workload: &'static str, at: i64, session: Option<&'static str>) -> Touch {
        Touch {
            workload: Label::fixed(workload),
            at: Timestamp::from_micros(at),
            id: 0,
            session: session.map(Label::fixed),
        }
    }

    #[test]
    fn the_first_level_that_finds_anything_decides() {
        let keys = MatchKeys {
            trace: TraceId::from_bits(1),
            session: Some(Label::fixed("s")),
            workload: Some(Label::fixed("w")),
            ..MatchKeys::default()
        };
        let look_up = |key: Key<'_>| match key {
            Key::Trace(_) => vec![touch("late", 200, None), touch("old", 1, None)],
            Key::Session(_) => vec![touch("w", 60, None), touch("v", 50, None)],
            _ => panic!("the session decides: {key:?}"),
        };
        let (level, touches) = resolve(&keys, Timestamp::from_micros(100), 50, look_up);
        assert_eq!(level, Level::Session, "the trace has no touch in the window");
        let names: Vec<&str> = touches.iter().map(|touch| touch.workload.as_str()).collect();
        assert_eq!(names, ["v", "w"]);
        let (level, touches) = resolve(&keys, Timestamp::from_micros(100), 50, |_| Vec::new());
        assert_eq!((level, touches.len()), (Level::Unattributed, 0));
    }

    #[test]
    fn a_customer_alone_is_no_match() {
        let keys = MatchKeys { customer: Some(Label::fixed("c")), ..MatchKeys::default() };
        let (level, _) = resolve(&keys, Timestamp::from_micros(0), 1, |key| panic!("{key:?}"));
        assert_eq!(level, Level::Unattributed);
    }

    #[test]
    fn touches_of_one_session_collapse_to_the_first() {
        let touches = vec![
            touch("a", 5, Some("s")),
            touch("a", 1, Some("s")),
            touch("a", 3, Some("t")),
            touch("b", 2, Some("s")),
            touch("a", 4, None),
            touch("a", 6, None),
        ];
        let times: Vec<i64> = collapse(touches).iter().map(|touch| touch.at.micros()).collect();
        assert_eq!(times, [1, 2, 3, 4, 6]);
    }
}
