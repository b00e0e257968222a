//! Windows of time over which a budget runs.
//!
//! Rules
//! - A calendar window begins and ends by the wall clock of its zone: a day may have 23 or 25 hours, a
//!   month is a month and never 30 days, a week begins on Monday (ISO 8601).
//! - Years and quarters begin in the first month of the fiscal year.
//! - An hour is an hour of real time that begins at a full hour of the zone's clock, so that the hour that
//!   comes twice in autumn is two windows.
//! - A rolling window is the time up to now, seen in sixty steps: what lies in a step that is partly
//!   outside still counts.
//!
//! Not here: what was spent in a window (`budget`).

use bursar_domain::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan, Zoned};
use std::fmt;

/// Steps of a rolling window.
const STEPS: i64 = 60;
/// Shortest step of a rolling window, in microseconds.
const STEP_MIN: i64 = 1_000_000;

/// A unit of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week, from Monday.
    Week,
    /// A month.
    Month,
    /// Three months, from the first of the fiscal year.
    Quarter,
    /// Twelve months, from the first of the fiscal year.
    Year,
}

impl Unit {
    /// All units with their names in configuration.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("hour", Self::Hour),
        ("day", Self::Day),
        ("week", Self::Week),
        ("month", Self::Month),
        ("quarter", Self::Quarter),
        ("year", Self::Year),
    ];
}

/// The window of a budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Window {
    /// A unit of the calendar in a zone.
    Calendar {
        /// The unit.
        unit: Unit,
        /// Whose clock on the wall.
        zone: TimeZone,
        /// First month of the fiscal year, 1 to 12.
        first_month: i8,
    },
    /// So many microseconds up to now.
    Rolling {
        /// Its length; more than zero.
        micros: i64,
    },
    /// These instants: the stretch of a contract.
    Fixed(Span),
}

/// A half-open range of instants in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// The first instant.
    pub start: i64,
    /// The first instant after it.
    pub end: i64,
}

impl Span {
    /// Whether `at` is in it.
    #[must_use]
    pub const fn contains(self, at: Timestamp) -> bool {
        self.start <= at.micros() && at.micros() < self.end
    }
}

impl Window {
    /// The window that `at` is in; of a rolling window, its step. An instant that no calendar has (beyond
    /// the year 9999) is in a window of a microsecond, alone.
    #[must_use]
    pub fn span(&self, at: Timestamp) -> Span {
        match self {
            Self::Calendar { unit, zone, first_month } => calendar(*unit, zone, *first_month, at)
                .unwrap_or(Span { start: at.micros(), end: at.micros().saturating_add(1) }),
            Self::Rolling { micros } => {
                let step = step_of(*micros);
                let start = at.micros().saturating_sub(at.micros().rem_euclid(step));
                Span { start, end: start.saturating_add(step) }
            }
            Self::Fixed(span) if at.micros() < span.start => Span { start: i64::MIN, end: span.start },
            Self::Fixed(span) if at.micros() >= span.end => Span { start: span.end, end: i64::MAX },
            Self::Fixed(span) => *span,
        }
    }

    /// The first instant whose spending matters at `now`.
    #[must_use]
    pub fn since(&self, now: Timestamp) -> Timestamp {
        match self {
            Self::Calendar { .. } => Timestamp::from_micros(self.span(now).start),
            Self::Rolling { micros } => {
                let first = Timestamp::from_micros(now.micros().saturating_sub(*micros));
                Timestamp::from_micros(self.span(first).start)
            }
            Self::Fixed(span) => Timestamp::from_micros(span.start),
        }
    }
}

/// Length of one step of a rolling window.
pub(super) fn step_of(micros: i64) -> i64 {
    micros.checked_div(STEPS).unwrap_or(STEP_MIN).max(STEP_MIN)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Calendar { unit, .. } => {
                let name = Unit::NAMES.iter().find(|(_, known)| known == unit).map_or("", |(name, _)| name);
                f.write_str(name)
            }
            Self::Rolling { micros } => {
                let seconds = micros.checked_div(1_000_000).unwrap_or(0);
                let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
                let fits = |(size, _): &&(i64, &str)| seconds.checked_rem(*size) == Some(0);
                let (size, unit) = units.iter().find(fits).copied().unwrap_or((1, "s"));
                write!(f, "rolling {}{unit}", seconds.checked_div(size).unwrap_or(0))
            }
            Self::Fixed(_) => f.write_str("contract"),
        }
    }
}

fn calendar(unit: Unit, zone: &TimeZone, first_month: i8, at: Timestamp) -> Option<Span> {
    let zoned = jiff::Timestamp::from_microsecond(at.micros()).ok()?.to_zoned(zone.clone());
    if unit == Unit::Hour {
        return hour(&zoned);
    }
    let date = zoned.date();
    let first = first_date(unit, date, first_month)?;
    let next = match unit {
        Unit::Hour | Unit::Day => first.tomorrow().ok()?,
        Unit::Week => first.checked_add(1.week()).ok()?,
        Unit::Month => first.checked_add(1.month()).ok()?,
        Unit::Quarter => first.checked_add(3.months()).ok()?,
        Unit::Year => first.checked_add(1.year()).ok()?,
    };
    Some(Span { start: midnight(first, zone)?, end: midnight(next, zone)? })
}

/// The first day of the window that `date` is in.
fn first_date(unit: Unit, date: Date, first_month: i8) -> Option<Date> {
    let months = match unit {
        Unit::Hour | Unit::Day => return Some(date),
        Unit::Week => {
            let days = i64::from(date.weekday().to_monday_zero_offset());
            return date.checked_sub(days.days()).ok();
        }
        Unit::Month => 1,
        Unit::Quarter => 3,
        Unit::Year => 12,
    };
    let since_fiscal = i64::from(date.month()).checked_sub(i64::from(first_month))?;
    date.first_of_month().checked_sub(since_fiscal.rem_euclid(months).months()).ok()
}

/// When the day begins, which is not midnight where clocks are set forward then.
fn midnight(date: Date, zone: &TimeZone) -> Option<i64> {
    Some(date.to_zoned(zone.clone()).ok()?.start_of_day().ok()?.timestamp().as_microsecond())
}

fn hour(zoned: &Zoned) -> Option<Span> {
    const HOUR: i64 = 3_600_000_000;
    // Offsets of whole seconds: the zone's clock shows a full hour where this is a multiple of one.
    let offset = i64::from(zoned.offset().seconds()).checked_mul(1_000_000)?;
    let micros = zoned.timestamp().as_microsecond();
    let into = micros.checked_add(offset)?.rem_euclid(HOUR);
    let start = micros.checked_sub(into)?;
    // The offset may have changed within the hour; the window then begins with the change.
    let first = jiff::Timestamp::from_microsecond(start).ok()?.to_zoned(zoned.time_zone().clone());
    let changed = first.offset() != zoned.offset();
    let start = if changed { last_change(zoned)?.max(start) } else { start };
    let mut end = micros.checked_sub(into)?.checked_add(HOUR)?;
    let last = zoned.timestamp().checked_add(SignedDuration::from_micros(end.checked_sub(micros)?)).ok()?;
    if last.to_zoned(zoned.time_zone().clone()).offset() != zoned.offset() {
        let next = zoned.time_zone().following(zoned.timestamp()).next();
        end = next.map_or(end, |change| change.timestamp().as_microsecond().min(end));
    }
    Some(Span { start, end })
}

fn last_change(zoned: &Zoned) -> Option<i64> {
    let after = zoned.timestamp().checked_add(SignedDuration::from_micros(1)).ok()?;
    let change = zoned.time_zone().preceding(after).next()?;
    Some(change.timestamp().as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn micros(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().unwrap().as_microsecond()
    }

    fn window(unit: Unit, zone: &str, first_month: i8) -> Window {
        Window::Calendar { unit, zone: TimeZone::get(zone).unwrap(), first_month }
    }

    fn check(unit: Unit, zone: &str, first_month: i8, at: &str, start: &str, end: &str) {
        let span = window(unit, zone, first_month).span(Timestamp::from_micros(micros(at)));
        let show = |at| jiff::Timestamp::from_microsecond(at).unwrap().to_string();
        assert_eq!((show(span.start), show(span.end)), (start.to_owned(), end.to_owned()), "{at} {zone}");
    }

    #[test]
    fn calendar_windows_begin_by_the_wall_clock_of_their_zone() {
        let at = "2026-11-22T23:30:00Z";
        check(Unit::Day, "UTC", 1, at, "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z");
        check(Unit::Day, "Europe/Paris", 1, at, "2026-11-22T23:00:00Z", "2026-11-23T23:00:00Z");
        check(Unit::Day, "Asia/Kolkata", 1, at, "2026-11-22T18:30:00Z", "2026-11-23T18:30:00Z");
        check(Unit::Week, "UTC", 1, at, "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z");
        check(Unit::Month, "UTC", 1, at, "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z");
        check(Unit::Quarter, "UTC", 1, at, "2026-10-01T00:00:00Z", "2027-01-01T00:00:00Z");
        check(Unit::Year, "UTC", 1, at, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
        check(Unit::Hour, "Asia/Kathmandu", 1, at, "2026-11-22T23:15:00Z", "2026-11-23T00:15:00Z");
    }

    #[test]
    fn fiscal_years_and_quarters_begin_in_their_month() {
        let at = "2026-03-31T12:00:00Z";
        check(Unit::Year, "UTC", 4, at, "2025-04-01T00:00:00Z", "2026-04-01T00:00:00Z");
        check(Unit::Quarter, "UTC", 2, at, "2026-02-01T00:00:00Z", "2026-05-01T00:00:00Z");
        check(Unit::Quarter, "UTC", 4, at, "2026-01-01T00:00:00Z", "2026-04-01T00:00:00Z");
        check(Unit::Year, "UTC", 10, "2026-11-01T00:00:00Z", "2026-10-01T00:00:00Z", "2027-10-01T00:00:00Z");
    }

    #[test]
    fn months_differ_and_february_knows_leap_years() {
        check(Unit::Month, "UTC", 1, "2028-02-29T01:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z");
        check(Unit::Month, "UTC", 1, "2026-01-31T23:59:59Z", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
    }

    #[test]
    fn days_on_which_clocks_change_have_23_or_25_hours() {
        let paris = "Europe/Paris";
        check(Unit::Day, paris, 1, "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
        check(Unit::Day, paris, 1, "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
        // There is no midnight on this day in São Paulo.
        let sao = "America/Sao_Paulo";
        check(Unit::Day, sao, 1, "2018-11-04T12:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z");
        // The hour that comes twice is two.
        check(Unit::Hour, paris, 1, "2026-10-25T00:30:00Z", "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z");
        check(Unit::Hour, paris, 1, "2026-10-25T01:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z");
        // Clocks that change by half an hour.
        let lord = "Australia/Lord_Howe";
        check(Unit::Hour, lord, 1, "2026-04-04T15:10:00Z", "2026-04-04T15:00:00Z", "2026-04-04T15:30:00Z");
        check(Unit::Hour, lord, 1, "2026-04-04T14:40:00Z", "2026-04-04T14:00:00Z", "2026-04-04T15:00:00Z");
    }

    #[test]
    fn a_rolling_window_moves_in_sixty_steps() {
        let day = Window::Rolling { micros: 86_400_000_000 };
        let at = Timestamp::from_micros(micros("2026-11-22T12:34:56Z"));
        let span = day.span(at);
        assert_eq!(span.end - span.start, 86_400_000_000 / 60);
        assert!(span.contains(at));
        assert!(day.since(at).micros() <= at.micros() - 86_400_000_000);
        let short = Window::Rolling { micros: 5_000_000 };
        assert_eq!(short.span(at).end - short.span(at).start, 1_000_000);
        assert_eq!((day.to_string(), short.to_string()), ("rolling 1d".into(), "rolling 5s".into()));
    }

    proptest! {
        #[test]
        fn every_instant_is_in_one_window_and_windows_leave_no_gap(
            at in 0_i64..4_000_000_000_000_000,
            unit in prop::sample::select(Unit::NAMES.map(|(_, unit)| unit).to_vec()),
            zone in prop::sample::select(vec![
                "UTC", "Europe/Paris", "Asia/Kolkata", "America/New_York", "Australia/Lord_Howe",
                "America/Sao_Paulo", "Asia/Kathmandu", "Pacific/Apia", "Africa/Casablanca",
            ]),
            first_month in 1_i8..=12,
        ) {
            let window = window(unit, zone, first_month);
            let at = Timestamp::from_micros(at);
            let span = window.span(at);
            prop_assert!(span.contains(at));
            let last = Timestamp::from_micros(span.end - 1);
            prop_assert_eq!(window.span(Timestamp::from_micros(span.start)), span);
            prop_assert_eq!(window.span(last), span);
            prop_assert_eq!(window.span(Timestamp::from_micros(span.end)).start, span.end);
        }
    }
}
