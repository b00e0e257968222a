//! Margin and limits of exchange contracts: variation margin, initial margin, calls, price bands,
//! position limits.
//!
//! Invariants
//! - Daily variation margin telescopes: its sum is lots · multiplier · (last − entry).
//! - A call restores to initial margin, not to maintenance (FINANCE §5).
//! - Margin is cash at a clearer; nothing here enters cost.
//!
//! Not here: stress over a whole book (`risk`).

use super::payoff::Side;
use crate::exact::{Decimal, ExactError, Ratio};
use bursar_domain::{Currency, Money};

/// Daily variation margin of `lots` contracts from the entry price through `settlements`.
pub fn variation_margin(
    side: Side,
    (lots, multiplier): (Decimal, Decimal),
    entry: Decimal,
    settlements: &[Decimal],
    currency: Currency,
) -> Result<Vec<Money>, ExactError> {
    let size = lots.times(multiplier)?;
    let mut flows = Vec::with_capacity(settlements.len());
    let mut paid = Money::zero(currency);
    for settlement in settlements {
        // The day takes what the total to date says, so that rounded days do not drift from it.
        let to_date = side.signed(size.times(settlement.minus(entry)?.ratio())?)?;
        let flow = to_date.money_half_even(currency)?.checked_sub(paid)?;
        paid = paid.checked_add(flow)?;
        flows.push(flow);
    }
    Ok(flows)
}

/// How an exchange sets initial margin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarginRule {
    /// Factor on volatility.
    pub alpha: Decimal,
    /// Least part of the contract value.
    pub floor: Decimal,
    /// Largest part of the contract value.
    pub ceiling: Decimal,
    /// Maintenance margin as part of initial margin.
    pub maintenance: Decimal,
}

impl MarginRule {
    /// The published token future: 8–12 % of the value, maintenance 75 % (arXiv 2603.21690). The
    /// paper writes both the range and `max(3·σ20·√T·V, floor)`; the range bounds the formula here.
    pub fn token_future() -> Result<Self, ExactError> {
        let parse = Decimal::parse;
        Ok(Self {
            alpha: parse("3")?,
            floor: parse("0.08")?,
            ceiling: parse("0.12")?,
            maintenance: parse("0.75")?,
        })
    }

    /// The part of the value by volatility alone: `alpha · sigma · √years`, 12 decimals.
    pub fn volatility_part(self, sigma: Decimal, years: Ratio) -> Result<Decimal, ExactError> {
        let factor = self.alpha.times(sigma)?;
        factor.times(factor)?.times(years)?.root_down(12)
    }

    /// Initial and maintenance margin of `value`.
    pub fn margins(
        self,
        value: Ratio,
        sigma: Decimal,
        years: Ratio,
        currency: Currency,
    ) -> Result<Margins, ExactError> {
        let part = self.volatility_part(sigma, years)?.clamp(self.floor, self.ceiling);
        let initial = value.abs()?.times(part.ratio())?;
        Ok(Margins {
            initial: initial.money_half_even(currency)?,
            maintenance: initial.times(self.maintenance.ratio())?.money_half_even(currency)?,
        })
    }
}

/// Margin required.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Margins {
    /// To open, and what a call restores to.
    pub initial: Money,
    /// Below this the clearer calls.
    pub maintenance: Money,
}

/// One day of a margin account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarginDay {
    /// Variation margin.
    pub flow: Money,
    /// What the clearer calls; zero when nothing.
    pub call: Money,
    /// Equity after the call is met.
    pub equity: Money,
}

impl Margins {
    /// Runs a margin account: a call is made when equity is below maintenance, and restores to
    /// initial.
    pub fn run(self, start: Money, flows: &[Money]) -> Result<Vec<MarginDay>, ExactError> {
        let mut equity = start;
        let mut days = Vec::with_capacity(flows.len());
        for flow in flows {
            equity = equity.checked_add(*flow)?;
            let call = self.call(equity)?;
            equity = equity.checked_add(call)?;
            days.push(MarginDay { flow: *flow, call, equity });
        }
        Ok(days)
    }

    /// What is called at this equity.
    pub fn call(self, equity: Money) -> Result<Money, ExactError> {
        // An account of another currency is refused by the subtraction, whatever its amount.
        let short = self.initial.checked_sub(equity)?;
        let below = equity.pico() < self.maintenance.pico();
        Ok(if below { short } else { Money::zero(equity.currency()) })
    }
}

/// The price band of one day: `reference · (1 ± part)`.
pub fn price_band(reference: Decimal, part: Decimal) -> Result<(Ratio, Ratio), ExactError> {
    let width = reference.times(part)?;
    Ok((reference.ratio().minus(width)?, reference.ratio().plus(width)?))
}

/// Whether a limit may be exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// May not be exceeded.
    Limit,
    /// May be exceeded; the exchange asks questions.
    Accountability,
}

/// How much of a limit is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitStatus {
    /// Below the warning level.
    Ok,
    /// At or above the warning level.
    Warn,
    /// A hard limit is exceeded.
    LimitExceeded,
    /// An accountability level is exceeded.
    AccountabilityExceeded,
}

impl LimitStatus {
    /// The name used in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::LimitExceeded => "limit_exceeded",
            Self::AccountabilityExceeded => "accountability_exceeded",
        }
    }
}

/// Lots against a limit: the used part and what to say about it.
pub fn limit_use(
    net_lots: Decimal,
    limit: Decimal,
    kind: LimitKind,
    warn_at: Decimal,
) -> Result<(Ratio, LimitStatus), ExactError> {
    let used = net_lots.ratio().abs()?.over(limit.ratio())?;
    let status = match kind {
        LimitKind::Limit if used > Ratio::ONE => LimitStatus::LimitExceeded,
        LimitKind::Accountability if used > Ratio::ONE => LimitStatus::AccountabilityExceeded,
        _ if used >= warn_at.ratio() => LimitStatus::Warn,
        _ => LimitStatus::Ok,
    };
    Ok((used, status))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usd(text: &str) -> Money {
        Money::parse(Currency::USD, text).unwrap()
    }

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn equity_at_maintenance_is_not_called_and_a_cent_below_is() {
        let margins = Margins { initial: usd("4000"), maintenance: usd("3000") };
        assert_eq!(margins.call(usd("3000")).unwrap(), usd("0"));
        assert_eq!(margins.call(usd("2999.99")).unwrap(), usd("1000.01"));
        let euros = Money::zero(Currency::parse("EUR").unwrap());
        assert!(margins.call(euros).is_err());
    }

    #[test]
    fn at_the_limit_is_a_warning_and_above_it_depends_on_the_kind() {
        let use_of = |lots, kind| limit_use(decimal(lots), decimal("100"), kind, decimal("0.9")).unwrap().1;
        assert_eq!(use_of("89", LimitKind::Limit), LimitStatus::Ok);
        assert_eq!(use_of("-90", LimitKind::Limit), LimitStatus::Warn);
        assert_eq!(use_of("100", LimitKind::Limit), LimitStatus::Warn);
        assert_eq!(use_of("101", LimitKind::Limit), LimitStatus::LimitExceeded);
        assert_eq!(use_of("-101", LimitKind::Accountability), LimitStatus::AccountabilityExceeded);
        assert!(limit_use(decimal("1"), decimal("0"), LimitKind::Limit, decimal("0.9")).is_err());
    }
}
