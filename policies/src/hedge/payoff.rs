//! What a contract pays: one formula per kind (FINANCE §4), exact until it is settled.
//!
//! Invariants
//! - A payoff is seen from the holder: above zero it lowers the cost of the hedged item.
//! - Side flips the sign of every payoff; a premium is not part of it.
//!
//! Not here: quantities, averages and currencies (`market`, `cost::legs`), who gets it (`cost`).

use crate::exact::{Decimal, ExactError, Ratio};

/// Which side of the contract the holder is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Gains when the price rises: buyer, payer of the fixed price, holder of the option.
    Long,
    /// Gains when the price falls: seller, receiver of the fixed price, writer of the option.
    Short,
}

impl Side {
    /// `value` as the holder sees it.
    pub fn signed(self, value: Ratio) -> Result<Ratio, ExactError> {
        match self {
            Self::Long => Ok(value),
            Self::Short => value.negated(),
        }
    }
}

/// The price terms of a contract that settles in cash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Swap, future, perpetual, currency forward: the difference to a fixed price.
    Linear {
        /// Fixed price, entry price or forward rate.
        fixed: Decimal,
    },
    /// Pays above the strike.
    Cap {
        /// Strike.
        strike: Decimal,
    },
    /// Pays below the strike.
    Floor {
        /// Strike.
        strike: Decimal,
    },
    /// A cap bought and a floor sold.
    Collar {
        /// Strike of the cap.
        cap: Decimal,
        /// Strike of the floor.
        floor: Decimal,
    },
    /// Pays one unit of currency per contract when the price is above the strike.
    Binary {
        /// Strike; at the strike it pays nothing.
        strike: Decimal,
    },
}

impl Shape {
    /// The payoff of one unit, long, at the settlement price.
    pub fn per_unit(self, settle: Ratio) -> Result<Ratio, ExactError> {
        match self {
            Self::Linear { fixed } => settle.minus(fixed.ratio()),
            Self::Cap { strike } => Ok(settle.minus(strike.ratio())?.or_zero()),
            Self::Floor { strike } => Ok(strike.ratio().minus(settle)?.or_zero()),
            Self::Collar { cap, floor } => {
                let above = settle.minus(cap.ratio())?.or_zero();
                above.minus(floor.ratio().minus(settle)?.or_zero())
            }
            Self::Binary { strike } => Ok(if settle > strike.ratio() { Ratio::ONE } else { Ratio::ZERO }),
        }
    }

    /// The payoff of `quantity` units at the settlement price, exact.
    pub fn payoff(self, side: Side, quantity: Ratio, settle: Ratio) -> Result<Ratio, ExactError> {
        side.signed(quantity.times(self.per_unit(settle)?)?)
    }
}

/// The payoff when the settlement price is an average of `fixings`: exact.
pub fn mean(fixings: &[Decimal]) -> Result<Ratio, ExactError> {
    let count = i128::try_from(fixings.len()).map_err(|_| ExactError::Overflow)?;
    Ratio::sum(fixings.iter().map(|fixing| fixing.ratio()))?.over(Ratio::whole(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[track_caller]
    fn check(shape: Shape, side: Side, settle: &str, payoff: &str) {
        let paid = shape.payoff(side, Ratio::whole(100), decimal(settle).ratio()).unwrap();
        assert_eq!(paid.text_half_even(2).unwrap(), payoff, "{shape:?} at {settle}");
    }

    #[test]
    fn linear_contracts_pay_the_difference_and_sides_mirror() {
        let swap = Shape::Linear { fixed: decimal("2.10") };
        check(swap, Side::Long, "2.25", "15.00");
        check(swap, Side::Short, "2.25", "-15.00");
        check(swap, Side::Long, "2.10", "0.00");
    }

    #[test]
    fn options_pay_on_their_side_of_the_strike_only() {
        let cap = Shape::Cap { strike: decimal("2.20") };
        check(cap, Side::Long, "2.75", "55.00");
        check(cap, Side::Long, "2.20", "0.00");
        check(cap, Side::Short, "2.75", "-55.00");
        let floor = Shape::Floor { strike: decimal("1.80") };
        check(floor, Side::Long, "1.50", "30.00");
        check(floor, Side::Long, "1.80", "0.00");
        let collar = Shape::Collar { cap: decimal("2.20"), floor: decimal("1.80") };
        check(collar, Side::Long, "2.75", "55.00");
        check(collar, Side::Long, "2.00", "0.00");
        check(collar, Side::Long, "1.50", "-30.00");
    }

    #[test]
    fn a_binary_pays_one_above_its_strike_and_nothing_at_it() {
        let binary = Shape::Binary { strike: decimal("2.75") };
        check(binary, Side::Long, "2.7500000001", "100.00");
        check(binary, Side::Long, "2.75", "0.00");
    }

    #[test]
    fn an_average_of_nothing_is_no_price() {
        assert_eq!(mean(&[]), Err(ExactError::DivisionByZero));
    }
}
