//! Whether a hedge does what it is held for: dollar offset, minimum-variance ratio, what a
//! correlation can reach, and what a basis is made of. Exact; series and regressions are in
//! `analytics`.
//!
//! Invariants
//! - A ratio that is undefined is absent, with the reason; it is never a number.
//! - Variance reduction and volatility reduction are two numbers with two names (FINANCE §5).
//!
//! Not here: whether a hedge qualifies for hedge accounting; these figures are evidence only.

use super::cost::CostReport;
use super::position::named;
use crate::exact::{Decimal, ExactError, Ratio};
use bursar_domain::{Currency, Label, Money};
use std::collections::BTreeMap;

/// Decimals of roots.
const ROOT_PLACES: u32 = 12;

/// The range in which a dollar offset or a slope passes, both ends inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassRange {
    /// Lowest ratio.
    pub lowest: Decimal,
    /// Highest ratio.
    pub highest: Decimal,
}

impl PassRange {
    /// 0.80 to 1.25.
    pub fn usual() -> Result<Self, ExactError> {
        Ok(Self { lowest: Decimal::parse("0.80")?, highest: Decimal::parse("1.25")? })
    }

    /// Whether a ratio lies inside.
    #[must_use]
    pub fn holds(self, ratio: Ratio) -> bool {
        self.lowest.ratio() <= ratio && ratio <= self.highest.ratio()
    }
}

/// A dollar-offset test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DollarOffset {
    /// −ΔHedge/ΔItem.
    Ratio {
        /// The ratio.
        ratio: Ratio,
        /// Whether it lies in the range.
        pass: bool,
    },
    /// The item did not change: the ratio is undefined.
    ItemUnchanged,
}

/// Compares what the hedge and the item gained or lost over a period, or cumulatively.
pub fn dollar_offset(hedge: Money, item: Money, range: PassRange) -> Result<DollarOffset, ExactError> {
    // Two currencies do not compare.
    hedge.checked_add(Money::zero(item.currency()))?;
    if item.pico() == 0 {
        return Ok(DollarOffset::ItemUnchanged);
    }
    let ratio = Ratio::of(hedge).over(Ratio::of(item))?.negated()?;
    Ok(DollarOffset::Ratio { ratio, pass: range.holds(ratio) })
}

/// The minimum-variance hedge ratio `ρ·σ_S/σ_F`.
pub fn minimum_variance_ratio(
    correlation: Decimal,
    spot: Decimal,
    future: Decimal,
) -> Result<Ratio, ExactError> {
    correlation.times(spot)?.over(future.ratio())
}

/// The part of the variance that the best hedge removes: ρ².
pub fn variance_reduction(correlation: Decimal) -> Result<Ratio, ExactError> {
    correlation.times(correlation)
}

/// The part of the standard deviation that it removes: `1 − √(1 − ρ²)`, 12 decimals.
pub fn volatility_reduction(variance_reduction: Ratio) -> Result<Ratio, ExactError> {
    let left = Ratio::ONE.minus(variance_reduction)?.root_down(ROOT_PLACES)?;
    Ratio::ONE.minus(left.ratio())
}

/// The variance reduction that a volatility reduction asks for: `1 − (1 − v)²`.
pub fn variance_reduction_for(volatility_reduction: Decimal) -> Result<Ratio, ExactError> {
    let left = Ratio::ONE.minus(volatility_reduction.ratio())?;
    Ratio::ONE.minus(left.times(left)?)
}

/// The correlation that a volatility reduction asks for, 12 decimals.
pub fn correlation_for(volatility_reduction: Decimal) -> Result<Decimal, ExactError> {
    variance_reduction_for(volatility_reduction)?.root_down(ROOT_PLACES)
}

named!(
    /// A source of basis between the own cost and the index.
    BasisLeg {
        /// Throughput and units.
        Unit = "unit",
        /// Quality of models.
        Quality = "quality",
        /// Mix of token classes.
        ClassMix = "token_class_mix",
        /// Place.
        Geography = "geography",
        /// Provider.
        Provider = "provider",
        /// Timing.
        Timing = "timing",
        /// Currency.
        Currency = "currency",
        /// Breaks of the index.
        IndexBreak = "index_break",
        /// Volume.
        Volume = "volume",
    }
);

/// What a basis is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasisReport {
    /// ρ² = σ_c²/(σ_c² + Σσ_k²).
    pub variance_reduction: Ratio,
    /// 1 − √(1 − ρ²).
    pub volatility_reduction: Ratio,
    /// The part of the basis variance that each leg is.
    pub parts: BTreeMap<BasisLeg, Ratio>,
}

/// Decomposes a basis of independent log legs around a common price with deviation `common`.
/// `None` when nothing moves.
pub fn basis(common: Decimal, legs: &BTreeMap<BasisLeg, Decimal>) -> Result<Option<BasisReport>, ExactError> {
    let square = |sigma: &Decimal| sigma.times(*sigma);
    let squares: Result<BTreeMap<BasisLeg, Ratio>, ExactError> =
        legs.iter().map(|(leg, sigma)| Ok((*leg, square(sigma)?))).collect();
    let squares = squares?;
    let noise = Ratio::sum(squares.values().copied())?;
    let signal = square(&common)?;
    let whole = signal.plus(noise)?;
    if whole.is_zero() {
        return Ok(None);
    }
    let mut parts = BTreeMap::new();
    for (leg, variance) in squares {
        let part = if noise.is_zero() { Ratio::ZERO } else { variance.over(noise)? };
        parts.insert(leg, part);
    }
    let variance_reduction = signal.over(whole)?;
    let volatility_reduction = volatility_reduction(variance_reduction)?;
    Ok(Some(BasisReport { variance_reduction, volatility_reduction, parts }))
}

/// The same computation under two contracts, per million tokens in one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrossBorder {
    /// Under the GPU-hour contract.
    pub gpu_hour: Ratio,
    /// Under the token contract.
    pub token: Ratio,
    /// Token − GPU-hour.
    pub basis: Ratio,
    /// Basis as part of the GPU-hour leg.
    pub relative: Ratio,
}

/// Compares a USD GPU-hour contract with a CNY token contract for the same work. `quote_per_unit`
/// is CNY per USD; the yuan price is divided by it.
pub fn cross_border(
    gpu_hour_price: Decimal,
    mtok_per_gpu_hour: Ratio,
    token_price: Decimal,
    quote_per_unit: Decimal,
) -> Result<CrossBorder, ExactError> {
    let gpu_hour = gpu_hour_price.ratio().over(mtok_per_gpu_hour)?;
    let token = token_price.over(quote_per_unit)?;
    let basis = token.minus(gpu_hour)?;
    Ok(CrossBorder { gpu_hour, token, basis, relative: basis.over(gpu_hour)? })
}

/// The exchange rate that a provider's two price lists imply; never a settlement rate.
pub fn implied_rate(quote_price: Decimal, base_price: Decimal) -> Result<Ratio, ExactError> {
    quote_price.over(base_price)
}

/// What a provider's price change would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repricing {
    /// The provider.
    pub provider: Label,
    /// Change of spot cost.
    pub spot_change: Money,
    /// The part of its units that is hedged; `None` without units.
    pub hedged_share: Option<Ratio>,
    /// What is left after the hedged share, if the index moves with the provider.
    pub margin_change: Money,
}

/// "If provider X moves by so much, cost moves by Y; hedged share Z."
pub fn repricing(
    report: &CostReport,
    provider: &Label,
    change: Decimal,
) -> Result<Option<Repricing>, ExactError> {
    let Some(coverage) = report.providers.get(provider) else { return Ok(None) };
    let currency: Currency = report.currency;
    let moved = coverage.spot.times_near(change.ratio(), ROOT_PLACES)?;
    let share =
        if coverage.volume.is_positive() { Some(coverage.covered.over_near(coverage.volume)?) } else { None };
    let open = Ratio::ONE.minus_near(share.unwrap_or(Ratio::ZERO))?;
    let spot_change = moved.money_half_even(currency)?;
    let margin = moved.times_near(open, ROOT_PLACES)?.negated()?;
    let margin_change = margin.money_half_even(currency)?;
    Ok(Some(Repricing { provider: provider.clone(), spot_change, hedged_share: share, margin_change }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hedge::cost::{Cover, Leg, Use, waterfall};
    use crate::hedge::position::Facets;
    use crate::hedge::profile::Unit;
    use bursar_domain::Timestamp;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn a_basis_is_decomposed_and_its_two_reductions_differ() {
        let legs = [(BasisLeg::Provider, "0.06"), (BasisLeg::Timing, "0.08")];
        let legs = legs.map(|(leg, sigma)| (leg, decimal(sigma))).into();
        let report = basis(decimal("0.20"), &legs).unwrap().unwrap();
        assert_eq!(report.variance_reduction, Ratio::new(4, 5).unwrap());
        assert_eq!(report.volatility_reduction.text_half_even(4).unwrap(), "0.5528");
        assert_eq!(report.parts[&BasisLeg::Timing], Ratio::new(64, 100).unwrap());
        assert_eq!(basis(Decimal::ZERO, &BTreeMap::new()).unwrap(), None);
    }

    #[test]
    fn two_borders_price_the_same_work_in_one_currency() {
        let mtok = Ratio::new(3888, 1000).unwrap();
        let view = cross_border(decimal("2.81"), mtok, decimal("5.325"), decimal("7.1")).unwrap();
        assert_eq!(view.token, Ratio::new(3, 4).unwrap());
        assert_eq!(view.gpu_hour.text_half_even(6).unwrap(), "0.722737");
        assert_eq!(view.basis.text_half_even(6).unwrap(), "0.027263");
    }

    #[test]
    fn repricing_counts_only_what_is_not_hedged() {
        let facets = Facets { provider: Some(Label::fixed("x")), ..Facets::team(Label::fixed("a")) };
        let spot = Money::parse(Currency::USD, "1000").unwrap();
        let at = Timestamp::from_micros(0);
        let uses = [Use { row: None, at, id: 0, facets, volume: decimal("100"), spot }];
        let payoff = Money::zero(Currency::USD);
        let cover = Cover::Cash { quantity: Ratio::whole(75), payoff };
        let leg = Leg::plain(Label::fixed("swap"), cover, Currency::USD);
        let report = waterfall(&uses, &[leg], Vec::new(), (Currency::USD, Unit::Mtok)).unwrap();
        let found = repricing(&report, &Label::fixed("x"), decimal("0.20")).unwrap().unwrap();
        assert_eq!(found.hedged_share, Some(Ratio::new(3, 4).unwrap()));
        assert_eq!(
            (found.spot_change.to_string(), found.margin_change.to_string()),
            ("200".into(), "-50".into())
        );
        assert_eq!(repricing(&report, &Label::fixed("y"), decimal("0.20")).unwrap(), None);
    }
}
