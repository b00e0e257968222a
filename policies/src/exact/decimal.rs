//! Decimals with at most twelve places: quantities, prices per unit, strikes, fixings, rates.
//!
//! Invariants
//! - The value is exactly what was written.
//!
//! Not here: products and quotients (`ratio`), which need more than twelve places.

use super::{ExactError, Ratio};
use bursar_domain::money::{PICO, format_pico, parse_pico};
use std::fmt;

/// A decimal number: an integer count of 10⁻¹².
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal {
    pico: i128,
}

impl Decimal {
    /// Zero.
    pub const ZERO: Self = Self { pico: 0 };
    /// One.
    pub const ONE: Self = Self { pico: PICO };

    /// From a count of 10⁻¹².
    #[must_use]
    pub const fn from_pico(pico: i128) -> Self {
        Self { pico }
    }

    /// From a whole number.
    #[must_use]
    pub const fn whole(number: u32) -> Self {
        // 2³² · 10¹² is far below 2¹²⁷.
        Self { pico: (number as i128).saturating_mul(PICO) }
    }

    /// Parses a plain decimal such as `2.2575` or `-0.5`, without exponent.
    pub fn parse(text: &str) -> Result<Self, ExactError> {
        parse_pico(text)
            .map(Self::from_pico)
            .map_err(|_| ExactError::NotDecimal(text.chars().take(40).collect()))
    }

    /// The count of 10⁻¹².
    #[must_use]
    pub const fn pico(self) -> i128 {
        self.pico
    }

    /// Below zero.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.pico < 0
    }

    /// Above zero.
    #[must_use]
    pub const fn is_positive(self) -> bool {
        self.pico > 0
    }

    /// `self + other`.
    pub fn plus(self, other: Self) -> Result<Self, ExactError> {
        self.pico.checked_add(other.pico).map(Self::from_pico).ok_or(ExactError::Overflow)
    }

    /// `self − other`.
    pub fn minus(self, other: Self) -> Result<Self, ExactError> {
        self.pico.checked_sub(other.pico).map(Self::from_pico).ok_or(ExactError::Overflow)
    }

    /// `self · other`, exact.
    pub fn times(self, other: Self) -> Result<Ratio, ExactError> {
        self.ratio().times(other.ratio())
    }

    /// `self / other`, exact.
    pub fn over(self, other: Self) -> Result<Ratio, ExactError> {
        self.ratio().over(other.ratio())
    }

    /// The same number as a fraction.
    #[must_use]
    pub fn ratio(self) -> Ratio {
        Ratio::from_pico(self.pico)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_pico(self.pico))
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_pico(self.pico))
    }
}
