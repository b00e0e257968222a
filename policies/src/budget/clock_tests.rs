//! Budgets and a clock that jumps: ten thousand steps over days on which clocks change, leap days, ends of
//! months and years, forth and back.
//!
//! The reference knows calendars by a table of its own, made by going through all hours once; it shares
//! nothing with `window`.

use super::model_tests::budget;
use super::window::{Unit, Window};
use super::*;
use bursar_domain::{RequestId, Timestamp};
use jiff::tz::TimeZone;
use jiff::{Timestamp as Instant, ToSpan};
use std::collections::BTreeMap;

const MINUTE: i64 = 60_000_000;
const STEPS: usize = 10_000;

/// A stream of numbers that is the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Where a window of this zone begins, told from the wall clock's date alone.
fn name_of(at: i64, unit: Unit, zone: &TimeZone) -> String {
    let zoned = Instant::from_microsecond(at).unwrap().to_zoned(zone.clone());
    match unit {
        Unit::Day => zoned.date().to_string(),
        Unit::Week => {
            let back = i64::from(zoned.date().weekday().to_monday_zero_offset());
            zoned.date().checked_sub(back.days()).unwrap().to_string()
        }
        Unit::Month => format!("{}-{}", zoned.year(), zoned.month()),
        Unit::Year => zoned.year().to_string(),
        Unit::Hour | Unit::Quarter => unreachable!("not asked here"),
    }
}

/// The windows that an instant is in, one of each rule, as numbers.
#[derive(Default)]
struct Windows {
    known: BTreeMap<String, usize>,
}

impl Windows {
    fn of(&mut self, at: i64, rules: &[(Unit, TimeZone)]) -> Vec<usize> {
        let number = |(unit, zone): &(Unit, TimeZone)| {
            let name = format!("{unit:?} {zone:?} {}", name_of(at, *unit, zone));
            let next = self.known.len();
            *self.known.entry(name).or_insert(next)
        };
        rules.iter().map(number).collect()
    }
}

struct Request {
    id: RequestId,
    began: i64,
    tokens: u64,
    windows: Vec<usize>,
}

/// Minutes by which the clock moves: mostly forth, an hour or a day back at times, half a year rarely.
fn jump(random: &mut Numbers) -> i64 {
    match random.below(1_000) {
        0..=599 => i64::try_from(random.below(90)).unwrap(),
        600..=749 => 60,
        750..=849 => -60,
        850..=889 => 24 * 60,
        890..=929 => -24 * 60,
        930..=934 => 183 * 24 * 60,
        935..=939 => -183 * 24 * 60,
        _ => 0,
    }
}

#[test]
fn in_ten_thousand_steps_of_a_jumping_clock_no_window_turns_early_late_or_twice() {
    let zones = ["UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"];
    let units = [Unit::Day, Unit::Week, Unit::Month, Unit::Year];
    let mut rules = Vec::new();
    for zone in zones.map(|zone| TimeZone::get(zone).unwrap()) {
        rules.extend(units.map(|unit| (unit, zone.clone())));
    }
    let budgets = rules.iter().enumerate().map(|(number, (unit, zone))| {
        let window = Window::Calendar { unit: *unit, zone: zone.clone(), first_month: 1 };
        budget(&number.to_string(), window, i128::from(u64::MAX))
    });
    let book = Book::new(budgets.collect());
    let numbers: Vec<u32> = (0..).take(rules.len()).collect();
    let mut accounts = Accounts::new(&book);
    let (mut windows, mut random) = (Windows::default(), Numbers(1));
    let mut spent: BTreeMap<usize, i128> = BTreeMap::new();
    // Shortly before the end of a leap year's February.
    let start: Instant = "2028-02-28T20:00:00Z".parse().unwrap();
    let (mut wall, mut steady) = (start.as_microsecond(), 0_u64);
    let mut held: Vec<Request> = Vec::new();
    for step in 0..STEPS {
        wall += jump(&mut random) * MINUTE;
        // An hour of the steady clock, after which a hold ends, is longer than a request takes here.
        steady += 1_000_000;
        let at = Timestamp::from_micros(wall);
        let here = windows.of(wall, &rules);
        let id = RequestId::from_bits(step as u128 + 1);
        let tokens = 1 + random.below(50);
        let asked = Asked { tokens: Some(tokens), ..Asked::default() };
        let admitted = accounts.admit(&book, &numbers, id, &asked, at, Moment { wall: at, steady });
        assert!(matches!(admitted, Admission::Pass { .. }), "{admitted:?}");
        held.push(Request { id, began: wall, tokens, windows: here.clone() });
        // Requests end in any order, long after the clock has moved on.
        while held.len() > 20 || (random.below(3) == 0 && !held.is_empty()) {
            let one = held.swap_remove(usize::try_from(random.below(held.len() as u64)).unwrap());
            let used = Asked { tokens: Some(one.tokens / 2), ..Asked::default() };
            accounts.settle(&book, &numbers, one.id, &used, Timestamp::from_micros(one.began));
            for window in one.windows {
                *spent.entry(window).or_default() += i128::from(one.tokens / 2);
            }
        }
        for (number, window) in (0..).zip(&here) {
            let standing = accounts.standing(&book, number, at).unwrap();
            let place = usize::try_from(number).unwrap();
            let reserved: i128 = held
                .iter()
                .filter(|one| one.windows[place] == *window)
                .map(|one| i128::from(one.tokens))
                .sum();
            let expected = (spent.get(window).copied().unwrap_or(0), reserved);
            assert_eq!(
                (standing.settled, standing.held),
                expected,
                "step {step}, {:?}, {at:?}",
                rules[place]
            );
        }
    }
    assert_eq!(accounts.holds(), held.len(), "no hold ended by the clock on the wall");
}
