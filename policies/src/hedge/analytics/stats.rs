//! Variance, regression and the reductions of a hedge on the user's own series.
//!
//! Invariants
//! - Variances are sample variances (n − 1).
//! - Variance reduction and volatility reduction are different numbers with different names.
//!
//! Not here: where a series comes from.

use crate::exact::{Decimal, Ratio};
use bursar_domain::money::PICO;

/// Fewest points of a series.
const POINTS_MIN: usize = 2;

/// Why a series says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeriesError {
    /// Too few points.
    #[error("a series of {found} points says nothing: {needed} are needed")]
    TooShort {
        /// Points there.
        found: usize,
        /// Points needed.
        needed: usize,
    },
    /// Two series of different length.
    #[error("the two series have {left} and {right} points")]
    Unequal {
        /// Points of one.
        left: usize,
        /// Points of the other.
        right: usize,
    },
    /// A series that does not move.
    #[error("the series does not move, so the ratio is undefined")]
    Still,
}

/// A series of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    points: Vec<f64>,
}

impl Series {
    /// From decimals, such as monthly costs.
    #[must_use]
    pub fn of(points: &[Decimal]) -> Self {
        Self { points: points.iter().map(|point| pico_to_float(point.pico())).collect() }
    }

    /// From fractions.
    #[must_use]
    pub fn of_ratios(points: &[Ratio]) -> Self {
        let one = |point: &Ratio| int_to_float(point.numerator()) / int_to_float(point.denominator());
        Self { points: points.iter().map(one).collect() }
    }

    /// From numbers; those that are not finite are left out.
    pub(super) fn of_floats(points: impl IntoIterator<Item = f64>) -> Self {
        Self { points: points.into_iter().filter(|point| point.is_finite()).collect() }
    }

    /// How many points.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// The mean.
    pub fn mean(&self) -> Result<f64, SeriesError> {
        self.long_enough(1)?;
        Ok(self.points.iter().sum::<f64>() / count(self.points.len()))
    }

    /// The sample variance.
    pub fn variance(&self) -> Result<f64, SeriesError> {
        self.long_enough(POINTS_MIN)?;
        let mean = self.mean()?;
        let squares: f64 = self.points.iter().map(|point| (point - mean) * (point - mean)).sum();
        Ok(squares / (count(self.points.len()) - 1.0))
    }

    fn long_enough(&self, needed: usize) -> Result<(), SeriesError> {
        let found = self.points.len();
        if found < needed { Err(SeriesError::TooShort { found, needed }) } else { Ok(()) }
    }
}

/// What a hedge did to the variance and to the standard deviation of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reduction {
    /// Variance without hedge.
    pub unhedged_variance: f64,
    /// Variance with hedge.
    pub hedged_variance: f64,
    /// `1 − Var_h/Var_u`.
    pub variance: f64,
    /// `1 − sd_h/sd_u`.
    pub volatility: f64,
}

/// Compares a series with and without hedge.
pub fn reduction(unhedged: &Series, hedged: &Series) -> Result<Reduction, SeriesError> {
    let (without, with) = (unhedged.variance()?, hedged.variance()?);
    if without <= 0.0 {
        return Err(SeriesError::Still);
    }
    let left = with / without;
    Ok(Reduction {
        unhedged_variance: without,
        hedged_variance: with,
        variance: 1.0 - left,
        volatility: 1.0 - left.sqrt(),
    })
}

/// An ordinary least-squares line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Regression {
    /// Points.
    pub points: usize,
    /// Slope of y on x.
    pub slope: f64,
    /// Value at x = 0.
    pub intercept: f64,
    /// Part of the variance that the line explains.
    pub r_squared: f64,
    /// Slope by its standard error; `None` when every point is on the line.
    pub t: Option<f64>,
}

/// Regresses `y` (changes of the item) on `x` (changes of the hedge, sign reversed).
pub fn regression(x: &Series, y: &Series) -> Result<Regression, SeriesError> {
    let (left, right) = (x.len(), y.len());
    if left != right {
        return Err(SeriesError::Unequal { left, right });
    }
    x.long_enough(3)?;
    let (mean_x, mean_y) = (x.mean()?, y.mean()?);
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for (a, b) in x.points.iter().zip(&y.points) {
        xx += (a - mean_x) * (a - mean_x);
        xy += (a - mean_x) * (b - mean_y);
        yy += (b - mean_y) * (b - mean_y);
    }
    if xx <= 0.0 || yy <= 0.0 {
        return Err(SeriesError::Still);
    }
    let slope = xy / xx;
    let unexplained = (yy - slope * xy).max(0.0);
    let error = (unexplained / (count(left) - 2.0) / xx).sqrt();
    let t = slope / error;
    Ok(Regression {
        points: left,
        slope,
        intercept: mean_y - slope * mean_x,
        r_squared: (xy * xy / (xx * yy)).min(1.0),
        t: t.is_finite().then_some(t),
    })
}

/// Slope 0.80–1.25, R² ≥ 0.80, |t| ≥ 2, and at least `points_min` points (FINANCE §5).
#[must_use]
pub fn pass_regression(line: &Regression, points_min: usize) -> bool {
    line.points >= points_min && (0.80..=1.25).contains(&line.slope) && pass_fit(line)
}

/// R² ≥ 0.80 and |t| ≥ 2, whatever the slope.
#[must_use]
pub fn pass_fit(line: &Regression) -> bool {
    line.r_squared >= 0.80 && line.t.is_none_or(|t| t.abs() >= 2.0)
}

#[expect(clippy::cast_precision_loss, reason = "a statistic needs no more than 53 bits")]
fn pico_to_float(pico: i128) -> f64 {
    pico as f64 / PICO as f64
}

#[expect(clippy::cast_precision_loss, reason = "a statistic needs no more than 53 bits")]
const fn int_to_float(number: i128) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "no series has 2⁵³ points")]
pub(super) const fn count(points: usize) -> f64 {
    points as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(points: &[&str]) -> Series {
        let points: Vec<Decimal> = points.iter().map(|point| Decimal::parse(point).unwrap()).collect();
        Series::of(&points)
    }

    #[test]
    fn a_line_through_noise_is_found_and_judged() {
        let x = series(&["1", "2", "3", "4", "5", "6"]);
        let y = series(&["1.1", "1.9", "3.2", "3.9", "5.1", "5.8"]);
        let line = regression(&x, &y).unwrap();
        assert_eq!(format!("{:.6} {:.6}", line.slope, line.intercept), "0.965714 0.120000");
        assert_eq!(format!("{:.4} {:.2}", line.r_squared, line.t.unwrap()), "0.9939 25.62");
        assert!(pass_regression(&line, 6));
        assert!(!pass_regression(&line, 8), "too few points");
        let twice = series(&["2", "4", "6", "8", "10", "12"]);
        let exact = regression(&x, &twice).unwrap();
        assert_eq!(exact.t, None, "every point is on the line");
        assert!(!pass_regression(&exact, 3), "a slope of 2");
    }

    #[test]
    fn what_is_undefined_is_an_error_and_no_number() {
        let still = series(&["5", "5", "5"]);
        let moving = series(&["1", "2", "4"]);
        assert_eq!(reduction(&still, &moving), Err(SeriesError::Still));
        assert_eq!(regression(&still, &moving), Err(SeriesError::Still));
        assert_eq!(regression(&moving, &still), Err(SeriesError::Still));
        assert_eq!(series(&["1"]).variance(), Err(SeriesError::TooShort { found: 1, needed: 2 }));
        assert!(matches!(regression(&moving, &series(&["1"])), Err(SeriesError::Unequal { .. })));
        assert_eq!(series(&[]).mean(), Err(SeriesError::TooShort { found: 0, needed: 1 }));
    }

    #[test]
    fn a_perfect_hedge_removes_everything_and_a_bad_one_adds() {
        let own = series(&["1", "2", "4"]);
        let flat = series(&["2", "2", "2"]);
        let perfect = reduction(&own, &flat).unwrap();
        assert!(perfect.variance >= 1.0 && perfect.volatility >= 1.0);
        let worse = reduction(&own, &series(&["1", "3", "7"])).unwrap();
        assert!(worse.variance < 0.0 && worse.volatility < 0.0);
    }
}
