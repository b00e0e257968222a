//! Fractions of 128-bit integers in lowest terms: averages, payoffs and parts before they are
//! rounded.
//!
//! Invariants
//! - The denominator is positive and the fraction in lowest terms, so equal means identical.
//! - Comparisons are exact whatever the size; sums and products that do not fit are errors.
//!
//! Not here: which results are rounded, and when (the caller; the method's name says how).

use super::{Decimal, ExactError};
use bursar_domain::money::PICO;
use bursar_domain::wide::{cmp_products, mul_div_rem};
use bursar_domain::{Currency, Money};
use std::cmp::Ordering;
use std::fmt;

/// An exact fraction.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ratio {
    numerator: i128,
    denominator: i128,
}

impl Ratio {
    /// Zero.
    pub const ZERO: Self = Self { numerator: 0, denominator: 1 };
    /// One.
    pub const ONE: Self = Self { numerator: 1, denominator: 1 };

    /// `numerator / denominator`.
    pub fn new(numerator: i128, denominator: i128) -> Result<Self, ExactError> {
        if denominator == 0 {
            return Err(ExactError::DivisionByZero);
        }
        let sign = denominator.signum();
        let divisor = gcd(numerator.unsigned_abs(), denominator.unsigned_abs());
        let divisor = i128::try_from(divisor).map_err(|_| ExactError::Overflow)?;
        let signed = divisor.checked_mul(sign).ok_or(ExactError::Overflow)?;
        Ok(Self {
            numerator: numerator.checked_div(signed).ok_or(ExactError::Overflow)?,
            denominator: denominator.checked_div(signed).ok_or(ExactError::Overflow)?,
        })
    }

    /// A whole number.
    #[must_use]
    pub const fn whole(number: i128) -> Self {
        Self { numerator: number, denominator: 1 }
    }

    /// A count of 10⁻¹².
    #[must_use]
    pub fn from_pico(pico: i128) -> Self {
        Self::new(pico, PICO).unwrap_or(Self::ZERO)
    }

    /// The amount in units of its currency.
    #[must_use]
    pub fn of(money: Money) -> Self {
        Self::from_pico(money.pico())
    }

    /// The numerator in lowest terms.
    #[must_use]
    pub const fn numerator(self) -> i128 {
        self.numerator
    }

    /// The denominator in lowest terms, positive.
    #[must_use]
    pub const fn denominator(self) -> i128 {
        self.denominator
    }

    /// Below zero.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.numerator < 0
    }

    /// Above zero.
    #[must_use]
    pub const fn is_positive(self) -> bool {
        self.numerator > 0
    }

    /// Zero.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.numerator == 0
    }

    /// `self + other`.
    pub fn plus(self, other: Self) -> Result<Self, ExactError> {
        let divisor = gcd(self.denominator.unsigned_abs(), other.denominator.unsigned_abs());
        let divisor = i128::try_from(divisor).map_err(|_| ExactError::Overflow)?;
        let left = fits(other.denominator.checked_div(divisor))?;
        let right = fits(self.denominator.checked_div(divisor))?;
        let a = fits(self.numerator.checked_mul(left))?;
        let b = fits(other.numerator.checked_mul(right))?;
        Self::new(fits(a.checked_add(b))?, fits(self.denominator.checked_mul(left))?)
    }

    /// `self − other`.
    pub fn minus(self, other: Self) -> Result<Self, ExactError> {
        self.plus(other.negated()?)
    }

    /// `−self`.
    pub fn negated(self) -> Result<Self, ExactError> {
        let numerator = fits(self.numerator.checked_neg())?;
        Ok(Self { numerator, ..self })
    }

    /// The distance from zero.
    pub fn abs(self) -> Result<Self, ExactError> {
        if self.is_negative() { self.negated() } else { Ok(self) }
    }

    /// `self · other`.
    pub fn times(self, other: Self) -> Result<Self, ExactError> {
        let left = Self::new(self.numerator, other.denominator)?;
        let right = Self::new(other.numerator, self.denominator)?;
        let numerator = fits(left.numerator.checked_mul(right.numerator))?;
        let denominator = fits(left.denominator.checked_mul(right.denominator))?;
        Ok(Self { numerator, denominator })
    }

    /// `self / other`.
    pub fn over(self, other: Self) -> Result<Self, ExactError> {
        self.times(Self::new(other.denominator, other.numerator)?)
    }

    /// `max(0, self)`.
    #[must_use]
    pub fn or_zero(self) -> Self {
        self.max(Self::ZERO)
    }

    /// The sum of `parts`.
    pub fn sum(parts: impl IntoIterator<Item = Self>) -> Result<Self, ExactError> {
        parts.into_iter().try_fold(Self::ZERO, Self::plus)
    }

    /// `self · unit` rounded half-even to an integer.
    pub fn scaled_half_even(self, unit: u128) -> Result<i128, ExactError> {
        let denominator = self.denominator.unsigned_abs();
        let (floor, remainder) =
            mul_div_rem(self.numerator.unsigned_abs(), unit, denominator).ok_or(ExactError::Overflow)?;
        let rest = fits(denominator.checked_sub(remainder))?;
        let up = match remainder.cmp(&rest) {
            Ordering::Less => false,
            Ordering::Greater => true,
            Ordering::Equal => floor & 1 == 1,
        };
        let magnitude = if up { fits(floor.checked_add(1))? } else { floor };
        let magnitude = i128::try_from(magnitude).map_err(|_| ExactError::Overflow)?;
        fits(magnitude.checked_mul(if self.is_negative() { -1 } else { 1 }))
    }

    /// `self · unit` rounded down, and what is left of it in units of one `denominator()`-th.
    pub(super) fn scaled_floor(self, unit: u128) -> Result<(i128, Self), ExactError> {
        let denominator = self.denominator.unsigned_abs();
        let (quotient, remainder) =
            mul_div_rem(self.numerator.unsigned_abs(), unit, denominator).ok_or(ExactError::Overflow)?;
        let quotient = i128::try_from(quotient).map_err(|_| ExactError::Overflow)?;
        let remainder = i128::try_from(remainder).map_err(|_| ExactError::Overflow)?;
        if !self.is_negative() {
            return Ok((quotient, Self::new(remainder, self.denominator)?));
        }
        if remainder == 0 {
            return Ok((fits(quotient.checked_neg())?, Self::ZERO));
        }
        let floor = fits(quotient.checked_neg().and_then(|q| q.checked_sub(1)))?;
        Ok((floor, Self::new(fits(self.denominator.checked_sub(remainder))?, self.denominator)?))
    }

    /// The number with `places` decimals (at most 12), rounded half-even.
    pub fn decimal_half_even(self, places: u32) -> Result<Decimal, ExactError> {
        let unit = 10_u128.checked_pow(places).ok_or(ExactError::Overflow)?;
        let up =
            12_u32.checked_sub(places).and_then(|p| 10_i128.checked_pow(p)).ok_or(ExactError::Overflow)?;
        let scaled = self.scaled_half_even(unit)?;
        fits(scaled.checked_mul(up)).map(Decimal::from_pico)
    }

    /// The number as text with exactly `places` decimals, rounded half-even: `0.80000000`.
    pub fn text_half_even(self, places: u32) -> Result<String, ExactError> {
        let unit = 10_u128.checked_pow(places).ok_or(ExactError::Overflow)?;
        let scaled = self.scaled_half_even(unit)?;
        let magnitude = scaled.unsigned_abs();
        let whole = fits(magnitude.checked_div(unit))?;
        let fraction = fits(magnitude.checked_rem(unit))?;
        let sign = if scaled < 0 { "-" } else { "" };
        if places == 0 {
            return Ok(format!("{sign}{whole}"));
        }
        Ok(format!("{sign}{whole}.{fraction:0width$}", width = places as usize))
    }

    /// The amount of money in `currency`, rounded half-even to its minor unit: the one rounding of
    /// a settlement, an allocation or a report.
    pub fn money_half_even(self, currency: Currency) -> Result<Money, ExactError> {
        let minor = currency.minor_pico();
        let per_unit = fits(PICO.checked_div(minor))?.unsigned_abs();
        let units = self.scaled_half_even(per_unit)?;
        Ok(Money::from_pico(currency, fits(units.checked_mul(minor))?))
    }

    /// The square root with `places` decimals, rounded down.
    pub fn root_down(self, places: u32) -> Result<Decimal, ExactError> {
        if self.is_negative() {
            return Err(ExactError::NegativeRoot);
        }
        let unit = 10_u128.checked_pow(places).ok_or(ExactError::Overflow)?;
        let square = fits(unit.checked_mul(unit))?;
        let (scaled, _) = mul_div_rem(self.numerator.unsigned_abs(), square, self.denominator.unsigned_abs())
            .ok_or(ExactError::Overflow)?;
        let root = i128::try_from(scaled.isqrt()).map_err(|_| ExactError::Overflow)?;
        let up =
            12_u32.checked_sub(places).and_then(|p| 10_i128.checked_pow(p)).ok_or(ExactError::Overflow)?;
        fits(root.checked_mul(up)).map(Decimal::from_pico)
    }

    /// `self · other`, exact where that fits, else rounded half-even to `places` decimals. Parts of
    /// parts of parts outgrow 128 bits; what is lost is far below what can be booked.
    pub fn times_near(self, other: Self, places: u32) -> Result<Self, ExactError> {
        if let Ok(exact) = self.times(other) {
            return Ok(exact);
        }
        let unit = 10_u128.checked_pow(places).ok_or(ExactError::Overflow)?;
        let scaled = self.scaled_half_even(unit)?;
        let product = other.scaled_half_even(scaled.unsigned_abs())?;
        let signed = fits(product.checked_mul(if scaled < 0 { -1 } else { 1 }))?;
        Self::new(signed, i128::try_from(unit).map_err(|_| ExactError::Overflow)?)
    }

    /// `self / other`, exact where that fits, else of both rounded half-even to 12 decimals.
    pub fn over_near(self, other: Self) -> Result<Self, ExactError> {
        if let Ok(exact) = self.over(other) {
            return Ok(exact);
        }
        let unit = PICO.unsigned_abs();
        Self::new(self.scaled_half_even(unit)?, other.scaled_half_even(unit)?)
    }

    /// `self + other`, exact where that fits, else of both rounded half-even to 12 decimals.
    pub fn plus_near(self, other: Self) -> Result<Self, ExactError> {
        if let Ok(exact) = self.plus(other) {
            return Ok(exact);
        }
        let unit = PICO.unsigned_abs();
        let sum = self.scaled_half_even(unit)?.checked_add(other.scaled_half_even(unit)?);
        Ok(Self::from_pico(fits(sum)?))
    }

    /// `self − other`, as [`Self::plus_near`].
    pub fn minus_near(self, other: Self) -> Result<Self, ExactError> {
        self.plus_near(other.negated()?)
    }

    /// The sum of `parts`, as [`Self::plus_near`].
    pub fn sum_near(parts: impl IntoIterator<Item = Self>) -> Result<Self, ExactError> {
        parts.into_iter().try_fold(Self::ZERO, Self::plus_near)
    }
}

impl Ord for Ratio {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_sign = self.numerator.signum().cmp(&other.numerator.signum());
        let left = (self.numerator.unsigned_abs(), other.denominator.unsigned_abs());
        let right = (other.numerator.unsigned_abs(), self.denominator.unsigned_abs());
        let by_size = cmp_products(left, right);
        by_sign.then(if self.is_negative() { by_size.reverse() } else { by_size })
    }
}

impl PartialOrd for Ratio {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.numerator, self.denominator)
    }
}

/// Whole numbers in the proportion of `parts`, exact when their common denominator fits, else
/// counts of 10⁻¹².
pub fn integer_weights(parts: &[Ratio]) -> Result<Vec<u128>, ExactError> {
    if parts.iter().any(|part| part.is_negative()) {
        return Err(ExactError::NegativeWeight);
    }
    if let Some(weights) = common_weights(parts) {
        return Ok(weights);
    }
    let unit = PICO.unsigned_abs();
    parts.iter().map(|part| part.scaled_half_even(unit).map(i128::unsigned_abs)).collect()
}

fn common_weights(parts: &[Ratio]) -> Option<Vec<u128>> {
    let mut common = 1_u128;
    for part in parts {
        let denominator = part.denominator.unsigned_abs();
        common = common.checked_div(gcd(common, denominator))?.checked_mul(denominator)?;
    }
    let mut total = 0_u128;
    let mut weights = Vec::with_capacity(parts.len());
    for part in parts {
        let factor = common.checked_div(part.denominator.unsigned_abs())?;
        let weight = part.numerator.unsigned_abs().checked_mul(factor)?;
        total = total.checked_add(weight)?;
        weights.push(weight);
    }
    Some(weights)
}

fn fits<T>(value: Option<T>) -> Result<T, ExactError> {
    value.ok_or(ExactError::Overflow)
}

/// The greatest common divisor; never zero. Most numbers are small, and 64-bit division is many
/// times faster than 128-bit division.
fn gcd(a: u128, b: u128) -> u128 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        if let (Ok(small_a), Ok(small_b)) = (u64::try_from(a), u64::try_from(b)) {
            return gcd_small(small_a, small_b).into();
        }
        (a, b) = (b, a.checked_rem(b).unwrap_or(0));
    }
    a.max(1)
}

fn gcd_small(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a.checked_rem(b).unwrap_or(0));
    }
    a.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ratio(numerator: i128, denominator: i128) -> Ratio {
        Ratio::new(numerator, denominator).unwrap()
    }

    #[test]
    fn fractions_are_kept_in_lowest_terms_with_a_positive_denominator() {
        assert_eq!(ratio(6, -4), ratio(-3, 2));
        assert_eq!(ratio(0, -7), Ratio::ZERO);
        assert_eq!(Ratio::new(1, 0), Err(ExactError::DivisionByZero));
        assert_eq!(Decimal::parse("2.2575").unwrap().ratio(), ratio(903, 400));
    }

    #[test]
    fn rounding_is_half_even_on_both_sides_of_zero() {
        for (numerator, text) in [(5, "0.00"), (15, "0.02"), (25, "0.02"), (-15, "-0.02"), (-5, "0.00")] {
            assert_eq!(ratio(numerator, 1000).text_half_even(2).unwrap(), text, "{numerator}");
        }
        assert_eq!(ratio(2, 3).text_half_even(0).unwrap(), "1");
    }

    #[test]
    fn roots_round_down_and_negatives_have_none() {
        assert_eq!(Ratio::whole(2).root_down(6).unwrap().to_string(), "1.414213");
        assert_eq!(Ratio::whole(-1).root_down(6), Err(ExactError::NegativeRoot));
    }

    #[test]
    fn near_results_are_exact_while_they_fit_and_rounded_after() {
        assert_eq!(ratio(1, 3).times_near(ratio(3, 7), 15).unwrap(), ratio(1, 7));
        let left = ratio(10_i128.pow(30) + 1, 7_i128.pow(35));
        let right = ratio(11_i128.pow(30), 3_i128.pow(65));
        assert_eq!(left.times(right), Err(ExactError::Overflow));
        let text = |ratio: Ratio| ratio.text_half_even(9).unwrap();
        let product = left.times_near(right, 12).unwrap();
        assert_eq!(text(product.over_near(right).unwrap()), text(left));
        assert_eq!(text(left.plus_near(right).unwrap().minus_near(right).unwrap()), text(left));
        let negative = left.negated().unwrap().times_near(right, 12).unwrap();
        assert_eq!(negative, product.negated().unwrap());
    }

    #[test]
    fn weights_keep_the_proportion_and_refuse_negatives() {
        assert_eq!(integer_weights(&[ratio(1, 3), ratio(1, 6), Ratio::ZERO]).unwrap(), [2, 1, 0]);
        assert_eq!(integer_weights(&[ratio(-1, 3)]), Err(ExactError::NegativeWeight));
    }

    proptest! {
        #[test]
        fn sums_and_products_follow_the_laws_of_fractions(a: i32, b in 1_i32.., c: i32, d in 1_i32..) {
            let (a, b, c, d) = (i128::from(a), i128::from(b), i128::from(c), i128::from(d));
            let (x, y) = (ratio(a, b), ratio(c, d));
            prop_assert_eq!(x.plus(y).unwrap(), ratio(a * d + c * b, b * d));
            prop_assert_eq!(x.times(y).unwrap(), ratio(a * c, b * d));
            prop_assert_eq!(x.plus(y).unwrap().minus(y).unwrap(), x);
            prop_assert_eq!(x.cmp(&y), (a * d).cmp(&(c * b)));
            if c != 0 {
                prop_assert_eq!(x.times(y).unwrap().over(y).unwrap(), x);
            }
        }
    }
}
