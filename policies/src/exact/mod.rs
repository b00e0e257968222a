//! Exact numbers that are not money: decimals as people write them, and fractions between them.
//!
//! Invariants
//! - No float and no silent rounding: every function that rounds says so in its name.
//! - What does not fit 128 bits is an error, never a wrap.
//! - Money is made from a fraction in one place, [`Ratio::money_half_even`], rounded once to the
//!   minor unit (FINANCE §1).
//!
//! Not here: amounts with a currency (`bursar_domain::money`), statistics (`hedge::analytics`).

mod decimal;
mod ratio;
mod share;

pub use decimal::Decimal;
pub use ratio::{Ratio, integer_weights};
pub use share::{Shares, apportion, shares, sum};

/// Why an exact number could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExactError {
    /// The exact result does not fit into 128 bits.
    #[error("the exact result is too large")]
    Overflow,
    /// A division by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// The text is not a plain decimal.
    #[error("{0:?} is not a plain decimal with at most 12 decimals")]
    NotDecimal(String),
    /// The square root of a negative number.
    #[error("a negative number has no square root")]
    NegativeRoot,
    /// A share that is negative.
    #[error("a weight cannot be negative")]
    NegativeWeight,
    /// Money that does not combine.
    #[error(transparent)]
    Money(#[from] bursar_domain::MoneyError),
}
