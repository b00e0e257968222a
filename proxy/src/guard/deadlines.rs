//! When a connection has kept us waiting too long. Pure: phase and times in, verdict out.
//!
//! Not here: measuring (`conn`), the task that asks (the worker's sweeper), closing (`io`).

use super::conn::{Phase, Tick};
use std::time::Duration;

/// How long each phase of a connection may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// From accept to the first byte.
    pub first_byte: Duration,
    /// From the first byte of a head, or of the HTTP/2 preface, to its last.
    pub head: Duration,
    /// Between two steps of progress in a body (see [`super::conn::BODY_PROGRESS_BYTES`]).
    pub body_idle: Duration,
    /// From the end of a response to the next request.
    pub keep_alive: Duration,
    /// From a write that the client had no room for to the next that it had.
    pub write_idle: Duration,
    /// From our half-close after a refusal to the client's close.
    pub linger: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            first_byte: Duration::from_secs(5),
            head: Duration::from_secs(5),
            body_idle: Duration::from_secs(30),
            keep_alive: Duration::from_secs(60),
            write_idle: Duration::from_secs(600),
            linger: Duration::from_secs(2),
        }
    }
}

/// Which deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Overdue {
    /// Nothing was ever sent.
    FirstByte,
    /// A head was begun and not finished.
    Head,
    /// A body stalled.
    BodyIdle,
    /// No further request came.
    KeepAlive,
    /// The client takes nothing of what is written.
    WriteIdle,
    /// The client did not close after a refusal.
    Linger,
}

impl Overdue {
    /// Its name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FirstByte => "first_byte",
            Self::Head => "head",
            Self::BodyIdle => "body_idle",
            Self::KeepAlive => "keep_alive",
            Self::WriteIdle => "write_idle",
            Self::Linger => "linger",
        }
    }
}

/// Which deadline a connection that has been waiting in `phase` since `since` has passed, if any.
#[must_use]
pub fn overdue(phase: Phase, since: Tick, now: Tick, deadlines: &Deadlines) -> Option<Overdue> {
    let (limit, overdue) = match phase {
        Phase::AwaitingFirstByte => (deadlines.first_byte, Overdue::FirstByte),
        Phase::ReadingHead => (deadlines.head, Overdue::Head),
        Phase::ReadingBody => (deadlines.body_idle, Overdue::BodyIdle),
        Phase::Idle => (deadlines.keep_alive, Overdue::KeepAlive),
        Phase::Lingering => (deadlines.linger, Overdue::Linger),
        Phase::Busy => return None,
    };
    (now.since(since) >= limit).then_some(overdue)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(phase: Phase, limit_ms: u64, expected: Overdue) {
        let deadlines = Deadlines::default();
        let since = Tick::from_millis(1_000);
        let at = |ms| overdue(phase, since, Tick::from_millis(1_000 + ms), &deadlines);
        assert_eq!(at(limit_ms - 1), None);
        assert_eq!(at(limit_ms), Some(expected));
        assert_eq!(overdue(phase, since, Tick::from_millis(0), &deadlines), None);
    }

    #[test]
    fn each_phase_is_overdue_exactly_at_its_deadline() {
        check(Phase::AwaitingFirstByte, 5_000, Overdue::FirstByte);
        check(Phase::ReadingHead, 5_000, Overdue::Head);
        check(Phase::ReadingBody, 30_000, Overdue::BodyIdle);
        check(Phase::Idle, 60_000, Overdue::KeepAlive);
        check(Phase::Lingering, 2_000, Overdue::Linger);
    }

    #[test]
    fn a_busy_connection_is_never_overdue() {
        let end = Tick::from_millis(u64::MAX);
        assert_eq!(overdue(Phase::Busy, Tick::default(), end, &Deadlines::default()), None);
    }
}
