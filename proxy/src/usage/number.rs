//! Numbers as upstreams write them: exact decimals, read leniently, judged strictly.
//!
//! Invariants
//! - No floats: `6.0` and `1e3` are integers, `0.1` is a tenth.
//! - A number that cannot be a count never becomes one: negative, fractional, `NaN`, a string or
//!   2⁶³ and more is invalid; more than [`COUNT_MAX`] is implausible.
//!
//! Not here: which fields hold numbers (`openai`, `anthropic`).

use bursar_domain::event::{Anomalies, Anomaly};
use bursar_domain::money::{Currency, Money, div_half_even};

/// The largest count that is believed: no model reads or writes a hundred million tokens at once.
pub const COUNT_MAX: u64 = 100_000_000;

/// Significant digits that are kept; later ones cannot matter for money or counts.
const DIGITS_MAX: u32 = 30;

/// A decimal: `mantissa × 10^exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    negative: bool,
    mantissa: u128,
    exponent: i32,
}

impl Decimal {
    /// Reads a JSON number. `None` for anything else.
    #[must_use]
    pub fn parse(raw: &[u8]) -> Option<Self> {
        let (negative, unsigned) = match raw.split_first()? {
            (b'-', rest) => (true, rest),
            _ => (false, raw),
        };
        let mut number = Self { negative, mantissa: 0, exponent: 0 };
        let mut digits = 0_u32;
        let mut seen = false;
        let mut fraction = false;
        let mut rest = unsigned;
        while let Some((byte, after)) = rest.split_first() {
            match byte {
                b'0'..=b'9' => {
                    seen = true;
                    if digits < DIGITS_MAX {
                        let digit = u128::from(byte.wrapping_sub(b'0'));
                        number.mantissa = number.mantissa.checked_mul(10)?.checked_add(digit)?;
                        digits += u32::from(number.mantissa != 0);
                        number.exponent -= i32::from(fraction);
                    } else if !fraction {
                        number.exponent = number.exponent.checked_add(1)?;
                    }
                }
                b'.' if !fraction => fraction = true,
                b'e' | b'E' if seen => {
                    number.exponent = number.exponent.saturating_add(exponent_of(after)?);
                    return Some(number);
                }
                _ => return None,
            }
            rest = after;
        }
        seen.then_some(number)
    }

    /// The number in units of `10^-decimals`, rounded half-even. `None` when it does not fit.
    #[must_use]
    pub fn scaled(self, decimals: i32) -> Option<i128> {
        let mantissa = i128::try_from(self.mantissa).ok()?;
        let exponent = self.exponent.saturating_add(decimals);
        let power = power_of_ten(exponent.unsigned_abs());
        let magnitude = match (mantissa, exponent >= 0, power) {
            (0, _, _) => 0,
            (_, true, power) => mantissa.checked_mul(power?)?,
            (_, false, Some(power)) => div_half_even(mantissa, power).ok()?,
            (_, false, None) => 0,
        };
        if self.negative { magnitude.checked_neg() } else { Some(magnitude) }
    }

    /// The number as a whole count; `None` when it is negative, fractional or 2⁶³ and more.
    #[must_use]
    pub fn whole(self) -> Option<u64> {
        if self.mantissa == 0 {
            return Some(0);
        }
        if self.negative {
            return None;
        }
        let power = u128::try_from(power_of_ten(self.exponent.unsigned_abs())?).ok()?;
        let value = if self.exponent >= 0 {
            self.mantissa.checked_mul(power)?
        } else if self.mantissa.checked_rem(power)? == 0 {
            self.mantissa.checked_div(power)?
        } else {
            return None;
        };
        i64::try_from(value).ok().and_then(|value| u64::try_from(value).ok())
    }
}

fn exponent_of(raw: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(raw).ok()?;
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let magnitude = digits.parse::<i32>().unwrap_or(100_000);
    Some(if text.starts_with('-') { magnitude.saturating_neg() } else { magnitude })
}

fn power_of_ten(exponent: u32) -> Option<i128> {
    10_i128.checked_pow(exponent)
}

/// The count in `raw`; absent when it is `null` or not to be believed, which is then noted.
pub fn count(raw: &[u8], anomalies: &mut Anomalies) -> Option<u64> {
    if let Some(count) = plain_count(raw) {
        return Some(count);
    }
    if raw == b"null" || raw.is_empty() {
        return None;
    }
    match Decimal::parse(raw).and_then(Decimal::whole) {
        Some(count) if count <= COUNT_MAX => Some(count),
        Some(_) => {
            anomalies.insert(Anomaly::ImplausibleCount);
            None
        }
        None => {
            anomalies.insert(Anomaly::InvalidCount);
            None
        }
    }
}

/// A count as it nearly always comes: up to eight digits.
fn plain_count(raw: &[u8]) -> Option<u64> {
    if raw.is_empty() || raw.len() > 8 {
        return None;
    }
    raw.iter().try_fold(0_u64, |count, byte| {
        byte.is_ascii_digit().then(|| count * 10 + u64::from(byte.wrapping_sub(b'0')))
    })
}

/// An amount of US dollars given in units of `10^-decimals` dollars, to the pico-dollar.
pub fn dollars(raw: &[u8], decimals: i32, anomalies: &mut Anomalies) -> Option<Money> {
    if raw == b"null" || raw.is_empty() {
        return None;
    }
    let pico = Decimal::parse(raw)
        .map(|d| Decimal { exponent: d.exponent.saturating_sub(decimals), ..d })
        .and_then(|d| d.scaled(12));
    match pico {
        Some(pico) if pico >= 0 => Some(Money::from_pico(Currency::USD, pico)),
        _ => {
            anomalies.insert(Anomaly::InvalidCount);
            None
        }
    }
}

/// A length in seconds, as milliseconds. Objects and other oddities are simply no length.
pub fn millis(raw: &[u8]) -> Option<u64> {
    let value = Decimal::parse(raw)?.scaled(3)?;
    u64::try_from(value).ok().filter(|value| *value <= COUNT_MAX.saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &str, expected: Option<u64>, noted: Option<Anomaly>) {
        let mut anomalies = Anomalies::default();
        assert_eq!(count(raw.as_bytes(), &mut anomalies), expected, "{raw}");
        assert_eq!(anomalies.iter().next(), noted, "{raw}");
    }

    #[test]
    fn counts_are_whole_numbers_however_they_are_written() {
        for (raw, expected) in [
            ("0", 0),
            ("-0", 0),
            ("-0.0", 0),
            ("7", 7),
            ("6.0", 6),
            ("6.000", 6),
            ("1e3", 1_000),
            ("1E+3", 1_000),
            ("1200e-2", 12),
            ("0.5e1", 5),
            ("0e999999999", 0),
            ("007", 7),
            ("100000000", COUNT_MAX),
            ("100000000000000000000000000000000000000000e-33", 100_000_000),
        ] {
            check(raw, Some(expected), None);
        }
    }

    #[test]
    fn null_is_absent_and_not_noted() {
        check("null", None, None);
    }

    #[test]
    fn what_cannot_be_a_count_is_noted_and_absent() {
        for raw in [
            "-1",
            "1.5",
            "1e-1",
            "NaN",
            "Infinity",
            "-Infinity",
            "true",
            "false",
            "\"12\"",
            "\"\"",
            "e3",
            "1e",
            "1e+",
            "-",
            ".",
            "1.2.3",
            "0x10",
            "9223372036854775808",
            "18446744073709551616",
            "1e19",
            "1e999999999999",
            "99999999999999999999999999999999999999999999999999",
            "{}",
            "[1]",
        ] {
            check(raw, None, Some(Anomaly::InvalidCount));
        }
        for raw in ["100000001", "675947905", "9223372036854775807", "1e18", "1e9"] {
            check(raw, None, Some(Anomaly::ImplausibleCount));
        }
    }

    #[test]
    fn dollars_are_exact_to_the_pico_and_round_half_even_below() {
        for (raw, decimals, expected) in [
            ("0.00219855", 0, "0.00219855"),
            ("9e-6", 0, "0.000009"),
            ("0.0076509169000000005", 0, "0.0076509169"),
            ("0.0000000000005", 0, "0"),
            ("0.0000000000015", 0, "0.000000000002"),
            ("0.0000000000025", 0, "0.000000000002"),
            ("0.0000000000025000001", 0, "0.000000000003"),
            ("1176500", 10, "0.00011765"),
            ("0", 10, "0"),
            ("1e-400", 0, "0"),
        ] {
            let mut anomalies = Anomalies::default();
            let money = dollars(raw.as_bytes(), decimals, &mut anomalies).unwrap();
            assert_eq!(money.to_string(), expected, "{raw}");
            assert!(anomalies.is_empty(), "{raw}");
        }
    }

    #[test]
    fn a_negative_or_senseless_charge_is_refused() {
        for raw in ["-0.01", "NaN", "\"0.01\"", "1e300", "{}"] {
            let mut anomalies = Anomalies::default();
            assert_eq!(dollars(raw.as_bytes(), 0, &mut anomalies), None, "{raw}");
            assert!(anomalies.contains(Anomaly::InvalidCount), "{raw}");
        }
    }
}
