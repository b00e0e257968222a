//! Money: an integer count of pico-units (10⁻¹²) of one currency.
//!
//! Invariants
//! - Two currencies never mix: every operation on two amounts checks.
//! - Overflow is an error, never a wrap.
//! - Splitting conserves: the parts always sum to the whole.
//!
//! Not here: prices per token (`rate`), exchange rates (a later fact).

use crate::wide::mul_div_rem;
use std::fmt;

/// Pico-units in one unit of currency.
pub const PICO: i128 = 1_000_000_000_000;

/// The codes of ISO 4217 (list one, 2025) and `CNH`.
const LISTED: &str = "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BOV BRL BSD BTN BWP \
    BYN BZD CAD CDF CHE CHF CHW CLF CLP CNH CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB \
    EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY \
    KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR \
    MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB \
    RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD \
    TZS UAH UGX USD USN UYI UYU UYW UZS VED VES VND VUV WST XAF XAG XAU XCD XCG XDR XOF XPD XPF XPT \
    XSU XUA YER ZAR ZMW ZWG";

/// An ISO 4217 currency code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency([u8; 3]);

/// Why an amount of money could not be made or combined.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// The two amounts are of different currencies.
    #[error("cannot combine {left} with {right}: convert one of them first")]
    CurrencyMismatch {
        /// Currency of the left operand.
        left: Currency,
        /// Currency of the right operand.
        right: Currency,
    },
    /// The result does not fit into 128 bits of pico-units.
    #[error("the amount is too large")]
    Overflow,
    /// The text is not a decimal number with at most 12 decimals.
    #[error("{0:?} is not a decimal amount with at most 12 decimals")]
    NotDecimal(String),
    /// The text is not a currency code.
    #[error("{0:?} is not a currency code of three capital letters")]
    NotCurrency(String),
}

impl Currency {
    /// The United States dollar, the currency in which providers publish prices.
    pub const USD: Self = Self(*b"USD");

    /// Parses a code of three capital letters.
    pub fn parse(code: &str) -> Result<Self, MoneyError> {
        match *code.as_bytes() {
            [a, b, c] if [a, b, c].iter().all(u8::is_ascii_uppercase) => Ok(Self([a, b, c])),
            _ => Err(MoneyError::NotCurrency(code.to_owned())),
        }
    }

    /// Whether ISO 4217 knows the code, or it is that of the offshore yuan, which ISO does not. A provider
    /// may bill in what is not listed; a contract, a fixing or a rate in it is a slip of the pen.
    #[must_use]
    pub fn is_listed(self) -> bool {
        LISTED.split(' ').any(|code| code.as_bytes() == self.0)
    }

    /// The three letters.
    #[must_use]
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XXX")
    }

    /// Decimals of the minor unit by ISO 4217 (2 for most).
    #[must_use]
    pub fn minor_decimals(self) -> u32 {
        match &self.0 {
            b"BIF" | b"CLP" | b"DJF" | b"GNF" | b"ISK" | b"JPY" | b"KMF" | b"KRW" | b"PYG" | b"RWF"
            | b"UGX" | b"VND" | b"VUV" | b"XAF" | b"XOF" | b"XPF" => 0,
            b"BHD" | b"IQD" | b"JOD" | b"KWD" | b"LYD" | b"OMR" | b"TND" => 3,
            _ => 2,
        }
    }

    /// Pico-units in one minor unit (a cent for USD).
    #[must_use]
    pub fn minor_pico(self) -> i128 {
        match self.minor_decimals() {
            0 => PICO,
            3 => PICO / 1_000,
            _ => PICO / 100,
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// An amount of money, exact to 10⁻¹² of its currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Money {
    currency: Currency,
    pico: i128,
}

impl Money {
    /// An amount given in pico-units.
    #[must_use]
    pub const fn from_pico(currency: Currency, pico: i128) -> Self {
        Self { currency, pico }
    }

    /// Nothing, in `currency`.
    #[must_use]
    pub const fn zero(currency: Currency) -> Self {
        Self { currency, pico: 0 }
    }

    /// Parses a plain decimal such as `12.5` or `-0.000003` (no exponent, at most 12 decimals).
    pub fn parse(currency: Currency, text: &str) -> Result<Self, MoneyError> {
        parse_pico(text).map(|pico| Self { currency, pico })
    }

    /// The currency.
    #[must_use]
    pub const fn currency(self) -> Currency {
        self.currency
    }

    /// The amount in pico-units.
    #[must_use]
    pub const fn pico(self) -> i128 {
        self.pico
    }

    /// `self + other`, if they are of one currency and the sum fits.
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        let pico = self.pico.checked_add(other.pico).ok_or(MoneyError::Overflow)?;
        Ok(Self { pico, ..self })
    }

    /// `self - other`, if they are of one currency and the difference fits.
    pub fn checked_sub(self, other: Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        let pico = self.pico.checked_sub(other.pico).ok_or(MoneyError::Overflow)?;
        Ok(Self { pico, ..self })
    }

    /// The amount rounded half-even to the currency's minor unit (cents for USD).
    pub fn round_to_minor(self) -> Result<Self, MoneyError> {
        let unit = self.currency.minor_pico();
        let pico = div_half_even(self.pico, unit)?.checked_mul(unit).ok_or(MoneyError::Overflow)?;
        Ok(Self { pico, ..self })
    }

    /// Shares the amount out by `weights`: [`Self::split_wide`] for small weights.
    pub fn split(self, weights: &[u64]) -> Result<(Vec<Self>, Self), MoneyError> {
        let weights: Vec<u128> = weights.iter().copied().map(u128::from).collect();
        self.split_wide(&weights)
    }

    /// Shares the amount out by `weights` in whole minor units: largest remainder, ties to the
    /// lower index, sign applied last (FINANCE §1). What is finer than a minor unit, and everything
    /// when all weights are zero, is the second value, the residual. Parts + residual = whole, always.
    pub fn split_wide(self, weights: &[u128]) -> Result<(Vec<Self>, Self), MoneyError> {
        self.split_in(self.currency.minor_pico().unsigned_abs(), weights)
    }

    /// The same in whole pico-units, for amounts that are not rounded yet: only where all weights are
    /// zero is there a residual.
    pub fn split_exact(self, weights: &[u128]) -> Result<(Vec<Self>, Self), MoneyError> {
        self.split_in(1, weights)
    }

    fn split_in(self, unit: u128, weights: &[u128]) -> Result<(Vec<Self>, Self), MoneyError> {
        let zero = Self::zero(self.currency);
        let total_weight =
            weights.iter().try_fold(0_u128, |sum, w| sum.checked_add(*w)).ok_or(MoneyError::Overflow)?;
        if total_weight == 0 {
            return Ok((vec![zero; weights.len()], self));
        }
        let units = self.pico.unsigned_abs().checked_div(unit).ok_or(MoneyError::Overflow)?;
        let mut shares = Vec::with_capacity(weights.len());
        let mut remainders = Vec::with_capacity(weights.len());
        let mut given = 0_u128;
        for (index, weight) in weights.iter().enumerate() {
            let (floor, remainder) = mul_div_rem(units, *weight, total_weight).ok_or(MoneyError::Overflow)?;
            given = given.checked_add(floor).ok_or(MoneyError::Overflow)?;
            shares.push(floor);
            remainders.push((std::cmp::Reverse(remainder), index));
        }
        remainders.sort_unstable();
        let mut left = units.checked_sub(given).ok_or(MoneyError::Overflow)?;
        for (_, index) in remainders {
            if left == 0 {
                break;
            }
            if let Some(share) = shares.get_mut(index) {
                *share = share.checked_add(1).ok_or(MoneyError::Overflow)?;
            }
            left = left.checked_sub(1).ok_or(MoneyError::Overflow)?;
        }
        let sign = self.pico.signum();
        let mut parts = Vec::with_capacity(shares.len());
        let mut residual = self;
        for share in shares {
            let pico = share
                .checked_mul(unit)
                .and_then(|p| i128::try_from(p).ok())
                .and_then(|p| p.checked_mul(sign))
                .ok_or(MoneyError::Overflow)?;
            let part = Self { pico, ..self };
            residual = residual.checked_sub(part)?;
            parts.push(part);
        }
        Ok((parts, residual))
    }

    fn same_currency(self, other: Self) -> Result<(), MoneyError> {
        if self.currency == other.currency {
            return Ok(());
        }
        Err(MoneyError::CurrencyMismatch { left: self.currency, right: other.currency })
    }
}

/// A plain decimal without exponent and without trailing zeros, at least one digit: `0.0000025`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_pico(self.pico))
    }
}

/// Formats pico-units as a plain decimal without trailing zeros.
#[must_use]
pub fn format_pico(pico: i128) -> String {
    let magnitude = pico.unsigned_abs();
    let scale = PICO.unsigned_abs();
    let whole = magnitude.checked_div(scale).unwrap_or(0);
    let fraction = magnitude.checked_rem(scale).unwrap_or(0);
    let sign = if pico < 0 { "-" } else { "" };
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    let digits = format!("{fraction:012}");
    format!("{sign}{whole}.{}", digits.trim_end_matches('0'))
}

/// Parses a plain decimal with at most 12 decimals into pico-units.
pub fn parse_pico(text: &str) -> Result<i128, MoneyError> {
    let bad = || MoneyError::NotDecimal(text.chars().take(40).collect());
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || digits.ends_with('.') {
        return Err(bad());
    }
    let significant = fraction.trim_end_matches('0');
    if significant.len() > 12 {
        return Err(bad());
    }
    let whole: i128 = whole.parse().map_err(|_| MoneyError::Overflow)?;
    let fraction: i128 = format!("{significant:0<12}").parse().map_err(|_| bad())?;
    let pico = whole.checked_mul(PICO).and_then(|w| w.checked_add(fraction)).ok_or(MoneyError::Overflow)?;
    if negative { pico.checked_neg().ok_or(MoneyError::Overflow) } else { Ok(pico) }
}

/// `numerator / denominator` rounded half-even; the denominator must be positive.
pub fn div_half_even(numerator: i128, denominator: i128) -> Result<i128, MoneyError> {
    if denominator <= 0 {
        return Err(MoneyError::Overflow);
    }
    let floor = numerator.checked_div_euclid(denominator).ok_or(MoneyError::Overflow)?;
    let remainder = numerator.checked_rem_euclid(denominator).ok_or(MoneyError::Overflow)?;
    let up = match remainder.cmp(&denominator.checked_sub(remainder).ok_or(MoneyError::Overflow)?) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => floor.rem_euclid(2) == 1,
    };
    if up { floor.checked_add(1).ok_or(MoneyError::Overflow) } else { Ok(floor) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn usd(text: &str) -> Money {
        Money::parse(Currency::USD, text).unwrap()
    }

    #[test]
    fn the_offshore_yuan_is_listed_and_a_slip_of_the_pen_is_not() {
        let is_listed = |code: &str| Currency::parse(code).unwrap().is_listed();
        for code in ["AED", "USD", "CNY", "CNH", "ZWG"] {
            assert!(is_listed(code), "{code}");
        }
        for code in ["USB", "CNX", "DOL", "XXX"] {
            assert!(!is_listed(code), "{code}");
        }
    }

    #[test]
    fn decimals_round_trip_without_exponent() {
        for text in ["0", "1", "-1", "0.0000025", "12.5", "-0.000000000001", "60999.15"] {
            assert_eq!(usd(text).to_string(), text);
        }
        assert_eq!(usd("1.500").to_string(), "1.5");
    }

    #[test]
    fn text_that_is_not_a_plain_decimal_is_refused() {
        for text in ["", "-", ".5", "5.", "1e3", "NaN", "0x1", "1,5", "+1", "0.0000000000001", "--1"] {
            assert!(Money::parse(Currency::USD, text).is_err(), "{text}");
        }
    }

    #[test]
    fn currencies_never_mix() {
        let eur = Money::from_pico(Currency::parse("EUR").unwrap(), 1);
        assert!(matches!(usd("1").checked_add(eur), Err(MoneyError::CurrencyMismatch { .. })));
    }

    #[test]
    fn halves_round_to_even() {
        for (text, rounded) in
            [("0.005", "0"), ("0.015", "0.02"), ("0.025", "0.02"), ("-0.015", "-0.02"), ("-0.005", "0")]
        {
            assert_eq!(usd(text).round_to_minor().unwrap(), usd(rounded), "{text}");
        }
    }

    #[test]
    fn equal_thirds_of_a_dollar_give_the_odd_cent_to_the_first() {
        let (parts, residual) = usd("1").split(&[1, 1, 1]).unwrap();
        assert_eq!(parts, vec![usd("0.34"), usd("0.33"), usd("0.33")]);
        assert_eq!(residual, usd("0"));
    }

    #[test]
    fn zero_weights_leave_everything_to_the_residual() {
        let (parts, residual) = usd("1.23").split(&[0, 0]).unwrap();
        assert_eq!(parts, vec![usd("0"), usd("0")]);
        assert_eq!(residual, usd("1.23"));
    }

    proptest! {
        #[test]
        fn a_split_conserves_and_never_flips_sign(pico in -10_i128.pow(24)..10_i128.pow(24), weights in prop::collection::vec(0_u64..1_000_000, 0..12)) {
            let whole = Money::from_pico(Currency::USD, pico);
            let (parts, residual) = whole.split(&weights).unwrap();
            let sum = parts.iter().try_fold(residual, |sum, part| sum.checked_add(*part)).unwrap();
            prop_assert_eq!(sum, whole);
            for part in parts {
                prop_assert!(part.pico() == 0 || part.pico().signum() == pico.signum());
            }
        }

        #[test]
        fn display_and_parse_are_inverse(pico in any::<i64>()) {
            let money = Money::from_pico(Currency::USD, i128::from(pico));
            prop_assert_eq!(Money::parse(Currency::USD, &money.to_string()).unwrap(), money);
        }
    }
}
