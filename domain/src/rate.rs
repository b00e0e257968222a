//! Rates: what one unit (a token, a request, a search) costs.
//!
//! Invariants
//! - A published price with at most 6 decimals per million tokens is exact: pico-units per token.
//! - A cost is rate × count in integers; no rounding happens here.
//!
//! Not here: which rate applies (`policies::price`).

use crate::money::{Currency, Money, MoneyError};

/// The price of one unit in pico-units of a currency; never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    currency: Currency,
    pico_per_unit: u64,
}

/// Why a price is not usable as a rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Prices below zero do not exist.
    #[error("a price cannot be negative")]
    Negative,
    /// The price is finer than a pico-unit per token, or larger than 18 million per token.
    #[error("{0:?} per million is not exact in units of 10^-12 per token")]
    Inexact(String),
    /// The text is no decimal number.
    #[error(transparent)]
    Money(#[from] MoneyError),
}

impl Rate {
    /// A rate of `pico` per unit.
    #[must_use]
    pub const fn from_pico(currency: Currency, pico_per_unit: u64) -> Self {
        Self { currency, pico_per_unit }
    }

    /// Parses a price per million tokens, such as `2.5`.
    pub fn per_million(currency: Currency, text: &str) -> Result<Self, RateError> {
        let pico = crate::money::parse_pico(text)?;
        if pico < 0 {
            return Err(RateError::Negative);
        }
        let inexact = || RateError::Inexact(text.to_owned());
        if pico.checked_rem(1_000_000).unwrap_or(1) != 0 {
            return Err(inexact());
        }
        let per_unit = pico.checked_div(1_000_000).and_then(|p| u64::try_from(p).ok()).ok_or_else(inexact)?;
        Ok(Self { currency, pico_per_unit: per_unit })
    }

    /// Parses a price per single unit, such as `0.01` per search.
    pub fn per_unit(currency: Currency, text: &str) -> Result<Self, RateError> {
        let pico = crate::money::parse_pico(text)?;
        if pico < 0 {
            return Err(RateError::Negative);
        }
        let per_unit = u64::try_from(pico).map_err(|_| RateError::Inexact(text.to_owned()))?;
        Ok(Self { currency, pico_per_unit: per_unit })
    }

    /// The currency.
    #[must_use]
    pub const fn currency(self) -> Currency {
        self.currency
    }

    /// Pico-units per unit.
    #[must_use]
    pub const fn pico_per_unit(self) -> u64 {
        self.pico_per_unit
    }

    /// What `count` units cost: exact.
    pub fn times(self, count: u64) -> Result<Money, MoneyError> {
        let pico =
            i128::from(self.pico_per_unit).checked_mul(i128::from(count)).ok_or(MoneyError::Overflow)?;
        Ok(Money::from_pico(self.currency, pico))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_per_million_is_exact_per_token() {
        let rate = Rate::per_million(Currency::USD, "0.15").unwrap();
        assert_eq!(rate.times(1).unwrap().to_string(), "0.00000015");
        assert_eq!(rate.times(1_000_000).unwrap().to_string(), "0.15");
        assert_eq!(Rate::per_million(Currency::USD, "0.000001").unwrap().pico_per_unit(), 1);
    }

    #[test]
    fn prices_that_cannot_be_exact_or_are_negative_are_refused() {
        assert!(matches!(Rate::per_million(Currency::USD, "0.0000001"), Err(RateError::Inexact(_))));
        assert_eq!(Rate::per_million(Currency::USD, "-1"), Err(RateError::Negative));
    }
}
