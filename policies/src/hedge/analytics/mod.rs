//! Statistics and simulation: the only place of the rules where floats are.
//!
//! Invariants
//! - Nothing here is booked: money enters as a series and leaves as a ratio.
//! - A figure that is undefined is absent; none is NaN or infinite.
//! - The same seed gives the same figures, on any number of threads.
//!
//! Not here: exact tests of effectiveness (`effectiveness`), costs (`cost`).
#![allow(
    clippy::float_arithmetic,
    reason = "statistics of series are not money; nothing computed here is booked"
)]

mod simulate;
mod stats;

pub use simulate::{
    Curve, HedgeStudy, MONTHS, Model, PATHS_MAX, SETTLEMENT_DAY, STEPS_PER_MONTH, STEPS_PER_YEAR,
    STRIP_MONTHS, SimulateError, Simulation, Summary, simulate,
};
pub use stats::{
    Reduction, Regression, Series, SeriesError, pass_fit, pass_regression, reduction, regression,
};
