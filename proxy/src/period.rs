//! `--from`, `--to` and `--tz`: from what people write to a half-open range of instants.
//!
//! Not here: calendar buckets of a report (`ledger::query`).

use bursar_domain::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// A half-open range; an open end is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Period {
    /// Inclusive start.
    pub from: Option<Timestamp>,
    /// Exclusive end.
    pub to: Option<Timestamp>,
    /// The zone in which dates were read and days are reported.
    pub zone: TimeZone,
}

/// How the caller wrote what is asked for, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// The start.
    pub from: &'static str,
    /// The end.
    pub to: &'static str,
    /// The zone.
    pub tz: &'static str,
}

/// Options of a command.
pub const OPTIONS: Names = Names { from: "--from", to: "--to", tz: "--tz" };
/// Parameters of a query.
pub const PARAMETERS: Names = Names { from: "from", to: "to", tz: "tz" };

/// A time that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeriodError {
    /// Neither a date, a time nor an age.
    #[error(
        "{option} {text:?} is no time: write 2026-11-01, 2026-11-01T09:00, 2026-11-01T09:00:00Z, or an age such as 24h or 7d"
    )]
    NotATime {
        /// What the caller called it.
        option: &'static str,
        /// What was written.
        text: String,
    },
    /// No IANA zone.
    #[error("{option} {text:?} is no IANA time zone: write a name such as Europe/Paris or UTC")]
    NotAZone {
        /// What the caller called it.
        option: &'static str,
        /// What was written.
        text: String,
    },
    /// From and to leave nothing between them.
    #[error("{} is not before {}: the period is empty", .0.from, .0.to)]
    Empty(Names),
}

/// Understands what the caller wrote under `names`; `now` is what ages are counted from.
pub fn parse(
    from: Option<&str>,
    to: Option<&str>,
    zone: &str,
    now: Timestamp,
    names: Names,
) -> Result<Period, PeriodError> {
    let zone =
        TimeZone::get(zone).map_err(|_| PeriodError::NotAZone { option: names.tz, text: zone.to_owned() })?;
    let read = |option: &'static str, text: Option<&str>| {
        text.map(|text| {
            instant(text.trim(), &zone, now)
                .ok_or_else(|| PeriodError::NotATime { option, text: text.to_owned() })
        })
        .transpose()
    };
    let (from, to) = (read(names.from, from)?, read(names.to, to)?);
    if let (Some(from), Some(to)) = (from, to)
        && from >= to
    {
        return Err(PeriodError::Empty(names));
    }
    Ok(Period { from, to, zone })
}

fn instant(text: &str, zone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
    if text == "now" {
        return Some(now);
    }
    if let Some(micros) = age_micros(text) {
        return Some(Timestamp::from_micros(now.micros().saturating_sub(micros)));
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp::from_micros(at.as_microsecond()));
    }
    // A date alone is its midnight.
    let at = text.parse::<DateTime>().ok()?.to_zoned(zone.clone()).ok()?.timestamp();
    Some(Timestamp::from_micros(at.as_microsecond()))
}

/// A time to come: a date in UTC, a time, or how long from `now`.
pub(crate) fn moment(text: &str, now: Timestamp) -> Option<Timestamp> {
    match age_micros(text) {
        Some(micros) => now.micros().checked_add(micros).map(Timestamp::from_micros),
        None => instant(text, &TimeZone::UTC, now),
    }
}

/// An age: digits and one of m, h, d, w.
fn age_micros(text: &str) -> Option<i64> {
    let unit = text.chars().last()?;
    let seconds = match unit {
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return None,
    };
    let count: i64 = text.strip_suffix(unit)?.parse().ok().filter(|count| *count >= 0)?;
    count.checked_mul(seconds)?.checked_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22T12:00:00Z
    const NOW: Timestamp = Timestamp::from_micros(1_795_348_800_000_000);

    fn from(text: &str, zone: &str) -> Result<Option<Timestamp>, PeriodError> {
        parse(Some(text), None, zone, NOW, OPTIONS).map(|p| p.from)
    }

    fn check(text: &str, zone: &str, expected: &str) {
        let expected: jiff::Timestamp = expected.parse().unwrap();
        let expected = Timestamp::from_micros(expected.as_microsecond());
        assert_eq!(from(text, zone).unwrap(), Some(expected), "{text} {zone}");
    }

    #[test]
    fn dates_are_midnight_in_the_zone() {
        check("2026-11-01", "UTC", "2026-11-01T00:00:00Z");
        check("2026-11-01", "Europe/Paris", "2026-10-31T23:00:00Z");
        check("2026-11-01T09:30", "Asia/Kolkata", "2026-11-01T04:00:00Z");
        check("2026-11-01T09:30:00+02:00", "UTC", "2026-11-01T07:30:00Z");
    }

    #[test]
    fn ages_count_back_from_now() {
        check("24h", "UTC", "2026-11-21T12:00:00Z");
        check("7d", "Europe/Paris", "2026-11-15T12:00:00Z");
        check("now", "UTC", "2026-11-22T12:00:00Z");
    }

    #[test]
    fn what_is_no_time_names_the_option_and_the_text() {
        for text in ["", "yesterday", "2026-13-01", "-5d", "7x", "99999999999999999999d"] {
            let error = from(text, "UTC").unwrap_err();
            assert_eq!(error, PeriodError::NotATime { option: "--from", text: text.to_owned() });
        }
        let not_a_zone = PeriodError::NotAZone { option: "--tz", text: "Mars/Base".to_owned() };
        assert_eq!(from("7d", "Mars/Base"), Err(not_a_zone));
    }

    #[test]
    fn an_empty_period_is_refused() {
        let result = parse(Some("2026-11-02"), Some("2026-11-02"), "UTC", NOW, OPTIONS);
        assert_eq!(result, Err(PeriodError::Empty(OPTIONS)));
    }

    #[test]
    fn messages_name_what_the_caller_wrote() {
        let told = |from, to, tz, names| parse(from, to, tz, NOW, names).unwrap_err().to_string();
        for (names, dashes) in [(OPTIONS, "--"), (PARAMETERS, "")] {
            assert!(told(Some("x"), None, "UTC", names).starts_with(&format!("{dashes}from \"x\"")));
            assert!(told(None, Some("x"), "UTC", names).starts_with(&format!("{dashes}to \"x\"")));
            assert!(told(None, None, "x", names).starts_with(&format!("{dashes}tz \"x\"")));
            let empty = told(Some("1h"), Some("2h"), "UTC", names);
            assert!(empty.starts_with(&format!("{dashes}from is not before {dashes}to")), "{empty}");
        }
    }
}
