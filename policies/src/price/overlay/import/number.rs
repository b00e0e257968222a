//! Exact decimals of any size: digits and a power of ten.
//!
//! Invariants
//! - Nothing is rounded but in `to_decimals`, which says so.
//!
//! Not here: money (`bursar_domain::money`).

/// `digits × 10^exponent`, with sign. No zeros at either end; nothing for zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exact {
    negative: bool,
    digits: String,
    exponent: i32,
}

/// Longest number that is read, and largest exponent: far beyond any price.
const CHARACTERS_MAX: usize = 60;
const EXPONENT_MAX: i32 = 1_000;
/// A number with so many digits left is near enough to what was rounded.
const DIGITS_KEPT: usize = 5;
/// So many equal digits behind the last that can be billed are what binary floats leave.
const NOISE_DIGITS: usize = 6;

impl Exact {
    /// Reads `12.5`, `-3`, `1e-07`, `2.5E+3`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        if rest.len() > CHARACTERS_MAX {
            return None;
        }
        let (mantissa, power) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
        let power: i32 = power.strip_prefix('+').unwrap_or(power).parse().ok()?;
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
            Some(_) => return None,
            None => (mantissa, ""),
        };
        let digits_only = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits_only(whole) || !digits_only(fraction) || power.abs() > EXPONENT_MAX {
            return None;
        }
        let exponent = power.checked_sub(i32::try_from(fraction.len()).ok()?)?;
        Some(Self { negative, digits: format!("{whole}{fraction}"), exponent }.trimmed())
    }

    fn trimmed(mut self) -> Self {
        let tail = self.digits.len().saturating_sub(self.digits.trim_end_matches('0').len());
        self.digits = self.digits.trim_matches('0').to_owned();
        self.exponent = self.exponent.saturating_add(i32::try_from(tail).unwrap_or(0));
        if self.digits.is_empty() {
            self.exponent = 0;
            self.negative = false;
        }
        self
    }

    /// Below zero.
    pub(super) const fn is_negative(&self) -> bool {
        self.negative
    }

    /// Times `10^power`.
    pub(super) fn shifted(mut self, power: i32) -> Self {
        if !self.digits.is_empty() {
            self.exponent = self.exponent.saturating_add(power);
        }
        self
    }

    /// A plain decimal with at most so many decimals, and whether it was rounded (half-even).
    /// `None` when rounding would change more than leftover digits.
    pub(super) fn to_decimals(&self, decimals: usize) -> Option<(String, bool)> {
        let places = usize::try_from(self.exponent.checked_neg()?).unwrap_or(0);
        let Some(cut) = places.checked_sub(decimals).filter(|cut| *cut > 0) else {
            return Some((self.plain(&self.digits, self.exponent)?, false));
        };
        let (kept, rest) = self.digits.split_at_checked(self.digits.len().checked_sub(cut)?)?;
        let noise = |digit: u8| {
            let run = rest.bytes().take_while(|b| *b == digit).count();
            !kept.is_empty() && run >= NOISE_DIGITS
        };
        if kept.len() < DIGITS_KEPT && !noise(b'0') && !noise(b'9') {
            return None;
        }
        let mut number: u128 = kept.parse().ok()?;
        let half = format!("5{}", "0".repeat(rest.len().saturating_sub(1)));
        let up = match rest.cmp(&half) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal => number.checked_rem(2) == Some(1),
        };
        number = number.checked_add(u128::from(up))?;
        let exponent = self.exponent.checked_add(i32::try_from(cut).ok()?)?;
        let rounded = Self { negative: self.negative, digits: number.to_string(), exponent }.trimmed();
        Some((rounded.plain(&rounded.digits, rounded.exponent)?, true))
    }

    fn plain(&self, digits: &str, exponent: i32) -> Option<String> {
        let sign = if self.negative { "-" } else { "" };
        if digits.is_empty() {
            return Some("0".to_owned());
        }
        if exponent >= 0 {
            let zeros = usize::try_from(exponent).ok().filter(|zeros| *zeros <= CHARACTERS_MAX)?;
            return Some(format!("{sign}{digits}{}", "0".repeat(zeros)));
        }
        let places = usize::try_from(exponent.checked_neg()?).ok()?;
        let padded = format!("{digits:0>width$}", width = places.checked_add(1)?);
        let (whole, fraction) = padded.split_at_checked(padded.len().checked_sub(places)?)?;
        Some(format!("{sign}{whole}.{fraction}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn to(text: &str, shift: i32, decimals: usize) -> Option<(String, bool)> {
        Exact::parse(text).unwrap().shifted(shift).to_decimals(decimals)
    }

    #[test]
    fn numbers_keep_the_value_their_digits_say() {
        for (text, plain) in [
            ("1e-07", "0.1"),
            ("2.5e-06", "2.5"),
            ("0.00000025", "0.25"),
            ("3E-5", "30"),
            ("0", "0"),
            ("0.0", "0"),
            ("1e-12", "0.000001"),
            ("1.25e+0", "1250000"),
            ("7.5e-08", "0.075"),
        ] {
            assert_eq!(to(text, 6, 6), Some((plain.to_owned(), false)), "{text}");
        }
    }

    #[test]
    fn leftover_digits_are_rounded_half_even_and_said_so() {
        for (text, plain) in [
            ("3.0000000000000004e-07", "0.3"),
            ("2.9999999999999997e-07", "0.3"),
            ("8.333333333333334e-08", "0.083333"),
            ("1.2345675e-06", "1.234568"),
            ("1.2345665e-06", "1.234566"),
        ] {
            assert_eq!(to(text, 6, 6), Some((plain.to_owned(), true)), "{text}");
        }
    }

    #[test]
    fn what_is_finer_than_can_be_billed_is_refused() {
        for text in ["1e-13", "1.5e-12", "1.234567e-09", "1e-999"] {
            assert_eq!(to(text, 6, 6), None, "{text}");
        }
    }

    #[test]
    fn text_that_is_no_number_is_refused() {
        let long = "1".repeat(61);
        for text in ["", "-", ".5", "5.", "1e", "e5", "0x1", "1,5", "NaN", "Infinity", "1e99999", &*long] {
            assert_eq!(Exact::parse(text), None, "{text}");
        }
        assert!(Exact::parse("-0.5").unwrap().is_negative());
        assert!(!Exact::parse("-0.0").unwrap().is_negative());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_never_panics(text in "[-+0-9.eE]{0,24}", shift in -9_i32..9, decimals in 0_usize..13) {
            if let Some(exact) = Exact::parse(&text) {
                let _ = exact.shifted(shift).to_decimals(decimals);
            }
        }

        #[test]
        fn whole_pico_units_round_trip(pico in any::<u64>()) {
            let text = format!("{pico}e-12");
            let (plain, rounded) = to(&text, 0, 12).unwrap();
            prop_assert!(!rounded);
            prop_assert_eq!(bursar_domain::money::parse_pico(&plain), Ok(i128::from(pico)));
        }
    }
}
