//! Return on tokens: value against effective cost, per token and per outcome, with and without
//! hedge (FINANCE §7).
//!
//! Invariants
//! - A figure that is undefined is absent with its reason, never a number.
//! - A group's figures come from summed values, costs and tokens, never from averaged ratios.
//!
//! Not here: what is attributed (`attribution`), what it cost (`hedge::cost`).

use crate::exact::{ExactError, Ratio};
use bursar_domain::{Currency, Money};

/// A figure, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// The figure, exact.
    Of(Ratio),
    /// The cost is zero.
    ZeroCost,
    /// The cost is below zero: hedges brought more than was spent.
    NegativeCost,
    /// No tokens.
    ZeroTokens,
    /// No revenue.
    ZeroRevenue,
    /// No outcome passed.
    ZeroOutcomes,
}

impl Figure {
    /// The name of the reason; empty for a figure.
    #[must_use]
    pub const fn flag(self) -> &'static str {
        match self {
            Self::Of(_) => "",
            Self::ZeroCost => "zero_cost",
            Self::NegativeCost => "negative_cost",
            Self::ZeroTokens => "zero_tokens",
            Self::ZeroRevenue => "zero_revenue",
            Self::ZeroOutcomes => "zero_outcomes",
        }
    }

    /// The figure with `places` decimals, half-even; `None` when it is undefined.
    pub fn text(self, places: u32) -> Result<Option<String>, ExactError> {
        match self {
            Self::Of(ratio) => ratio.text_half_even(places).map(Some),
            _ => Ok(None),
        }
    }
}

/// What figures are made from; adds up over teams and periods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basis {
    /// Attributed revenue.
    pub revenue: Money,
    /// Savings.
    pub savings: Money,
    /// Cost at spot.
    pub spot: Money,
    /// Effective cost, hedges included.
    pub effective: Money,
    /// Tokens of the denominator; the report says which.
    pub tokens: u128,
}

/// Whether savings count as value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Revenue alone.
    Revenue,
    /// Revenue and savings.
    WithSavings,
}

/// Which cost is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// Without hedge.
    Spot,
    /// With hedge.
    Effective,
}

impl Basis {
    /// Nothing.
    #[must_use]
    pub const fn zero(currency: Currency) -> Self {
        let zero = Money::zero(currency);
        Self { revenue: zero, savings: zero, spot: zero, effective: zero, tokens: 0 }
    }

    /// The sum of two.
    pub fn plus(self, other: Self) -> Result<Self, ExactError> {
        let Self { revenue, savings, spot, effective, tokens } = other;
        Ok(Self {
            revenue: self.revenue.checked_add(revenue)?,
            savings: self.savings.checked_add(savings)?,
            spot: self.spot.checked_add(spot)?,
            effective: self.effective.checked_add(effective)?,
            tokens: self.tokens.checked_add(tokens).ok_or(ExactError::Overflow)?,
        })
    }

    fn cost(&self, cost: Cost) -> Money {
        match cost {
            Cost::Spot => self.spot,
            Cost::Effective => self.effective,
        }
    }

    fn value(&self, value: Value) -> Result<Money, ExactError> {
        match value {
            Value::Revenue => Ok(self.revenue),
            Value::WithSavings => Ok(self.revenue.checked_add(self.savings)?),
        }
    }

    /// Value − cost.
    pub fn net(&self, value: Value, cost: Cost) -> Result<Money, ExactError> {
        Ok(self.value(value)?.checked_sub(self.cost(cost))?)
    }

    /// (Value − cost)/cost.
    pub fn roi(&self, value: Value, cost: Cost) -> Result<Figure, ExactError> {
        roi(self.value(value)?, self.cost(cost))
    }

    /// (Value − cost) per million tokens.
    pub fn net_per_million(&self, value: Value, cost: Cost) -> Result<Figure, ExactError> {
        per_million(self.net(value, cost)?, self.tokens)
    }

    /// Cost per million tokens.
    pub fn cost_per_million(&self, cost: Cost) -> Result<Figure, ExactError> {
        per_million(self.cost(cost), self.tokens)
    }

    /// Revenue per million tokens.
    pub fn revenue_per_million(&self) -> Result<Figure, ExactError> {
        per_million(self.revenue, self.tokens)
    }

    /// (Revenue − cost)/revenue. Where more was taken back than earned there is no part of it to be kept.
    pub fn gross_margin(&self, cost: Cost) -> Result<Figure, ExactError> {
        if self.revenue.pico() <= 0 {
            return Ok(Figure::ZeroRevenue);
        }
        let net = self.net(Value::Revenue, cost)?;
        Ok(Figure::Of(Ratio::of(net).over(Ratio::of(self.revenue))?))
    }

    /// What the hedges brought: spot − effective; below zero when they cost more than they paid.
    pub fn uplift(&self) -> Result<Money, ExactError> {
        Ok(self.spot.checked_sub(self.effective)?)
    }
}

/// (Value − cost)/cost; undefined for a cost of zero or less.
pub fn roi(value: Money, cost: Money) -> Result<Figure, ExactError> {
    let net = value.checked_sub(cost)?;
    match cost.pico().signum() {
        0 => Ok(Figure::ZeroCost),
        -1 => Ok(Figure::NegativeCost),
        _ => Ok(Figure::Of(Ratio::of(net).over(Ratio::of(cost))?)),
    }
}

/// An amount per million tokens.
pub fn per_million(amount: Money, tokens: u128) -> Result<Figure, ExactError> {
    if tokens == 0 {
        return Ok(Figure::ZeroTokens);
    }
    let tokens = i128::try_from(tokens).map_err(|_| ExactError::Overflow)?;
    Ok(Figure::Of(Ratio::of(amount).times(Ratio::new(1_000_000, tokens)?)?))
}

/// Cost per outcome; failed attempts stay in the cost.
pub fn per_outcome(cost: Money, outcomes: u64) -> Result<Figure, ExactError> {
    if outcomes == 0 {
        return Ok(Figure::ZeroOutcomes);
    }
    Ok(Figure::Of(Ratio::of(cost).over(Ratio::whole(outcomes.into()))?))
}

/// How much of the truth a figure rests on; printed with every ROI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// Attributed share of revenue.
    pub attributed: Option<Ratio>,
    /// Share of cost that carries tags.
    pub tagged: Option<Ratio>,
    /// Share of tokens that were measured, not estimated.
    pub measured: Option<Ratio>,
    /// Share of requests without a price.
    pub unpriced: Option<Ratio>,
}

/// A part of a whole; `None` of nothing.
pub fn share(part: u128, whole: u128) -> Result<Option<Ratio>, ExactError> {
    if whole == 0 {
        return Ok(None);
    }
    let part = i128::try_from(part).map_err(|_| ExactError::Overflow)?;
    let whole = i128::try_from(whole).map_err(|_| ExactError::Overflow)?;
    Ratio::new(part, whole).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usd(text: &str) -> Money {
        Money::parse(Currency::USD, text).unwrap()
    }

    fn basis(revenue: &str, effective: &str, tokens: u128) -> Basis {
        let zero = usd("0");
        let (revenue, effective) = (usd(revenue), usd(effective));
        Basis { revenue, savings: zero, spot: effective, effective, tokens }
    }

    #[test]
    fn a_group_is_summed_before_it_is_divided() {
        let small = basis("30", "10", 1_000_000);
        let large = basis("100", "100", 9_000_000);
        let both = small.plus(large).unwrap();
        let roi = |basis: Basis| basis.roi(Value::Revenue, Cost::Effective).unwrap().text(4).unwrap();
        assert_eq!(roi(small).as_deref(), Some("2.0000"));
        assert_eq!(roi(large).as_deref(), Some("0.0000"));
        assert_eq!(roi(both).as_deref(), Some("0.1818"), "not the mean of 2 and 0");
    }

    #[test]
    fn what_is_undefined_says_why() {
        assert_eq!(roi(usd("1"), usd("0")).unwrap(), Figure::ZeroCost);
        assert_eq!(roi(usd("1"), usd("-1")).unwrap().flag(), "negative_cost");
        assert_eq!(per_million(usd("1"), 0).unwrap(), Figure::ZeroTokens);
        assert_eq!(per_outcome(usd("1"), 0).unwrap(), Figure::ZeroOutcomes);
        let nothing = Basis::zero(Currency::USD);
        assert_eq!(nothing.gross_margin(Cost::Spot).unwrap(), Figure::ZeroRevenue);
        assert_eq!(nothing.roi(Value::WithSavings, Cost::Spot).unwrap().text(2).unwrap(), None);
        assert_eq!(share(0, 0).unwrap(), None);
        let euros = Money::zero(Currency::parse("EUR").unwrap());
        assert!(roi(usd("1"), euros).is_err());
    }
}
