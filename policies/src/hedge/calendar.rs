//! Days, months and business days: the time of contracts, which is dates and not instants.
//!
//! Invariants
//! - A window is half-open and never empty.
//!
//! Not here: instants and zones; who turns an instant into a day knows the fixing's zone.

use bursar_domain::Label;
use jiff::civil::{Date, Weekday};
use std::collections::BTreeSet;
use std::fmt;

/// A calendar month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    first: Date,
}

/// Why a date, month or window cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    /// The text is no day.
    #[error("{0:?} is not a day: write it as 2026-09-30")]
    NotDay(String),
    /// The text is no month.
    #[error("{0:?} is not a month: write it as 2026-09")]
    NotMonth(String),
    /// A window that ends before it begins.
    #[error("the window from {from} to {until} is empty: its end is the first day outside")]
    Empty {
        /// First day inside.
        from: Date,
        /// First day outside.
        until: Date,
    },
    /// A day outside the years that dates have.
    #[error("a day lies outside the calendar")]
    OutOfRange,
}

/// Parses a day such as `2026-09-30`.
pub fn parse_day(text: &str) -> Result<Date, CalendarError> {
    let bad = || CalendarError::NotDay(text.chars().take(40).collect());
    if text.len() != 10 {
        return Err(bad());
    }
    text.parse::<Date>().map_err(|_| bad())
}

impl Month {
    /// The month of a day.
    #[must_use]
    pub fn of(day: Date) -> Self {
        Self { first: day.first_of_month() }
    }

    /// Parses `2026-09`.
    pub fn parse(text: &str) -> Result<Self, CalendarError> {
        let bad = || CalendarError::NotMonth(text.chars().take(40).collect());
        if text.len() != 7 {
            return Err(bad());
        }
        format!("{text}-01").parse::<Date>().map(Self::of).map_err(|_| bad())
    }

    /// The first day.
    #[must_use]
    pub const fn first(self) -> Date {
        self.first
    }

    /// The month after.
    pub fn next(self) -> Result<Self, CalendarError> {
        let last = self.first.last_of_month();
        last.tomorrow().map(Self::of).map_err(|_| CalendarError::OutOfRange)
    }

    /// The days of the month.
    pub fn window(self) -> Result<Window, CalendarError> {
        Window::new(self.first, self.next()?.first)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.first.year(), self.first.month())
    }
}

/// Days from one (inside) to another (outside).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    from: Date,
    until: Date,
}

impl Window {
    /// The days `from ≤ day < until`.
    pub fn new(from: Date, until: Date) -> Result<Self, CalendarError> {
        if from < until { Ok(Self { from, until }) } else { Err(CalendarError::Empty { from, until }) }
    }

    /// First day inside.
    #[must_use]
    pub const fn from(self) -> Date {
        self.from
    }

    /// First day outside.
    #[must_use]
    pub const fn until(self) -> Date {
        self.until
    }

    /// Whether the day is inside.
    #[must_use]
    pub fn contains(self, day: Date) -> bool {
        self.from <= day && day < self.until
    }

    /// The last day inside.
    #[must_use]
    pub fn last(self) -> Date {
        self.until.yesterday().unwrap_or(self.from)
    }

    /// The days inside both.
    #[must_use]
    pub fn overlap(self, other: Self) -> Option<Self> {
        Self::new(self.from.max(other.from), self.until.min(other.until)).ok()
    }

    /// How many days.
    #[must_use]
    pub fn days(self) -> u32 {
        day_number(self.until).abs_diff(day_number(self.from))
    }

    /// Every day inside, in order.
    pub fn each_day(self) -> impl Iterator<Item = Date> {
        std::iter::successors(Some(self.from), |day| day.tomorrow().ok())
            .take_while(move |day| *day < self.until)
    }

    /// The months that it touches, in order.
    pub fn months(self) -> impl Iterator<Item = Month> {
        std::iter::successors(Some(Month::of(self.from)), |month| month.next().ok())
            .take_while(move |month| month.first() < self.until)
    }
}

/// Days since 1970-01-01.
#[must_use]
pub(super) fn day_number(day: Date) -> i32 {
    let epoch = jiff::civil::date(1970, 1, 1);
    epoch.until(day).map_or(0, |span| span.get_days())
}

/// Which days an index is fixed and a market is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    name: Label,
    weekends: Weekends,
    holidays: BTreeSet<Date>,
}

/// Whether Saturdays and Sundays are business days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weekends {
    /// Closed on Saturday and Sunday.
    Closed,
    /// Open every day, as some continuously published indices are.
    Open,
}

impl Calendar {
    /// A calendar with its holidays.
    #[must_use]
    pub const fn new(name: Label, weekends: Weekends, holidays: BTreeSet<Date>) -> Self {
        Self { name, weekends, holidays }
    }

    /// Monday to Friday without holidays.
    #[must_use]
    pub fn weekdays() -> Self {
        Self::new(Label::fixed("weekdays"), Weekends::Closed, BTreeSet::new())
    }

    /// Every day.
    #[must_use]
    pub fn daily() -> Self {
        Self::new(Label::fixed("daily"), Weekends::Open, BTreeSet::new())
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &Label {
        &self.name
    }

    /// Whether the market is open.
    #[must_use]
    pub fn is_business_day(&self, day: Date) -> bool {
        let weekend = matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday);
        let open = self.weekends == Weekends::Open || !weekend;
        open && !self.holidays.contains(&day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> Date {
        parse_day(text).unwrap()
    }

    #[test]
    fn a_month_has_its_days_and_its_business_days() {
        let window = Month::parse("2026-02").unwrap().window().unwrap();
        assert_eq!(window.days(), 28);
        assert_eq!(window.each_day().count(), 28);
        let open = window.each_day().filter(|day| Calendar::weekdays().is_business_day(*day));
        assert_eq!(open.count(), 20);
        assert_eq!(window.last(), day("2026-02-28"));
    }

    #[test]
    fn windows_are_half_open_and_never_empty() {
        let window = Window::new(day("2026-01-31"), day("2026-03-01")).unwrap();
        assert!(!window.contains(day("2026-03-01")));
        let months: Vec<String> = window.months().map(|month| month.to_string()).collect();
        assert_eq!(months, ["2026-01", "2026-02"]);
        assert!(Window::new(day("2026-01-01"), day("2026-01-01")).is_err());
        assert_eq!(window.overlap(Month::parse("2026-03").unwrap().window().unwrap()), None);
    }

    #[test]
    fn text_that_is_no_day_or_month_is_refused() {
        for text in ["2026-9-30", "2026-02-30", "30.09.2026", "2026-09-30T00:00"] {
            assert!(parse_day(text).is_err(), "{text}");
        }
        for text in ["2026-13", "2026", "202609", "2026-09-01"] {
            assert!(Month::parse(text).is_err(), "{text}");
        }
    }
}
