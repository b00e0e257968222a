//! Simulation of a token price and of a hedge of it: the published jump-diffusion with a provider
//! basis (FINANCE §5), seeded.
//!
//! The log price follows `dX = κ(θ_t − X)dt + σdW + J dN`, `θ_t = θ0 + βt + γ sin(2πt)`. The own
//! price is the index times a basis whose log is an AR(1) with a half-life of one month. A strip of
//! twelve monthly contracts is bought at the start at the model's futures prices, each settles on
//! day 15 of its month, and the own cost of a month is the mean of its days. What is compared is the
//! cost of the year, over paths.
//!
//! Invariants
//! - The same seed gives the same figures on any number of threads: each pair of paths has its own
//!   generator, and results are combined in the order of paths.
//! - Paths come in mirrored pairs, which keeps the means close to the model's.
//!
//! Not here: charts and progress bars (the caller); the user's own series (`stats`).

use super::stats::{Reduction, Series, SeriesError, count, reduction};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::Rng;
use std::f64::consts::{LN_2, TAU};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Trading days of a year.
pub const STEPS_PER_YEAR: usize = 252;
/// Trading days of a month.
pub const STEPS_PER_MONTH: usize = 21;
/// Months that the price is followed.
pub const MONTHS: usize = 36;
/// Months of the strip.
pub const STRIP_MONTHS: usize = 12;
/// The trading day of its month on which a contract settles.
pub const SETTLEMENT_DAY: usize = 15;
/// Most paths of a run.
pub const PATHS_MAX: usize = 1_000_000;

/// Largest deviation of the basis or of the volume.
const DEVIATION_MAX: f64 = 10.0;
/// Points of the integral of a futures price.
const INTEGRAL_POINTS: u32 = 2_000;
/// Pairs between two reports of progress.
const PROGRESS_EVERY: usize = 64;

/// Parameters of the price.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    /// Price at the start.
    pub start: f64,
    /// Speed of mean reversion κ.
    pub kappa: f64,
    /// Long-run log price θ0.
    pub theta: f64,
    /// Its drift per year β.
    pub beta: f64,
    /// Amplitude of the season γ.
    pub gamma: f64,
    /// Volatility σ.
    pub sigma: f64,
    /// Jumps per year λ.
    pub jumps: f64,
    /// Mean of a jump.
    pub jump_mean: f64,
    /// Deviation of a jump.
    pub jump_sd: f64,
}

impl Model {
    /// The published parameters (arXiv 2603.21690).
    #[must_use]
    pub const fn published() -> Self {
        Self {
            start: 2.0,
            kappa: 2.5,
            theta: LN_2,
            beta: -0.35,
            gamma: 0.08,
            sigma: 0.40,
            jumps: 3.0,
            jump_mean: 0.10,
            jump_sd: 0.25,
        }
    }

    fn level(&self, years: f64) -> f64 {
        self.theta + self.beta * years + self.gamma * (TAU * years).sin()
    }

    /// The futures price for a maturity: the expectation of the price, in closed form but for one
    /// integral over time.
    #[must_use]
    pub fn future(&self, years: f64) -> f64 {
        let step = years / f64::from(INTEGRAL_POINTS);
        let mut mean = (-self.kappa * years).exp() * self.start.ln();
        let mut jumps = 0.0;
        for point in 0..INTEGRAL_POINTS {
            let at = (f64::from(point) + 0.5) * step;
            mean += self.kappa * (-self.kappa * (years - at)).exp() * self.level(at) * step;
            let left = (-self.kappa * at).exp();
            let size = left * self.jump_mean + left * left * self.jump_sd * self.jump_sd / 2.0;
            jumps += self.jumps * (size.exp() - 1.0) * step;
        }
        let spread = 1.0 - (-2.0 * self.kappa * years).exp();
        (mean + self.sigma * self.sigma / (4.0 * self.kappa) * spread + jumps).exp()
    }

    fn usable(&self) -> bool {
        let Self { start, kappa, theta, beta, gamma, sigma, jumps, jump_mean, jump_sd } = *self;
        let finite = [theta, beta, gamma, jump_mean].iter().all(|value| value.is_finite());
        let positive = [start, kappa].iter().all(|value| value.is_finite() && *value > 0.0);
        let scale = [sigma, jumps, jump_sd].iter().all(|value| (0.0..=100.0).contains(value));
        finite && positive && scale
    }
}

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Simulation {
    /// The price.
    pub model: Model,
    /// Paths; an odd number is rounded up.
    pub paths: usize,
    /// Seed.
    pub seed: u64,
    /// Stationary deviation of the log basis.
    pub basis_sd: f64,
    /// Deviation of the year's volume around what was hedged, independent of the price.
    pub volume_sd: f64,
    /// Threads.
    pub threads: usize,
}

impl Simulation {
    /// The published study with 10,000 paths.
    #[must_use]
    pub const fn published(seed: u64, basis_sd: f64) -> Self {
        Self { model: Model::published(), paths: 10_000, seed, basis_sd, volume_sd: 0.0, threads: 2 }
    }
}

/// Why nothing is simulated.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum SimulateError {
    /// Too few or too many paths.
    #[error("{0} paths: ask for 2 to {PATHS_MAX}")]
    Paths(usize),
    /// A deviation that cannot be.
    #[error("{name}: {value:?} is not usable: write a number from 0 to {DEVIATION_MAX}, such as 0.10")]
    Deviation {
        /// Which.
        name: &'static str,
        /// What it is.
        value: f64,
    },
    /// A parameter that makes no price.
    #[error("a parameter is not usable: all must be finite, rates and deviations not negative")]
    Parameters,
    /// A worker thread ended early.
    #[error("a worker of the simulation ended early")]
    Worker,
    /// The figures do not move or are too few.
    #[error(transparent)]
    Series(#[from] SeriesError),
}

/// The price at one horizon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Curve {
    /// Months from the start.
    pub month: usize,
    /// Mean over paths.
    pub mean: f64,
    /// The model's futures price.
    pub future: f64,
    /// 5 % of the paths are below.
    pub low: f64,
    /// Half of the paths are below.
    pub median: f64,
    /// 5 % of the paths are above.
    pub high: f64,
}

/// The cost of the year with and without hedge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HedgeStudy {
    /// Mean cost without hedge.
    pub unhedged_mean: f64,
    /// Mean cost with hedge.
    pub hedged_mean: f64,
    /// Variance and volatility reduction.
    pub reduction: Reduction,
}

/// What a simulation found.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Paths simulated.
    pub paths: usize,
    /// The hedge.
    pub hedge: HedgeStudy,
    /// The price at the end of each month.
    pub curve: Vec<Curve>,
    /// Share of paths that were ever above twice the start.
    pub ever_above_double: f64,
}

/// Runs a simulation; `progress` is told how many paths are done.
pub fn simulate(
    simulation: &Simulation,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Summary, SimulateError> {
    if !(2..=PATHS_MAX).contains(&simulation.paths) {
        return Err(SimulateError::Paths(simulation.paths));
    }
    for (name, value) in [("basis", simulation.basis_sd), ("volume", simulation.volume_sd)] {
        if !(0.0..=DEVIATION_MAX).contains(&value) {
            return Err(SimulateError::Deviation { name, value });
        }
    }
    if !simulation.model.usable() {
        return Err(SimulateError::Parameters);
    }
    let study = Study::new(simulation);
    let pairs = simulation.paths.div_ceil(2);
    let threads = simulation.threads.clamp(1, 64);
    let each = pairs.div_ceil(threads).max(1);
    let done = AtomicUsize::new(0);
    let parts: Result<Vec<Vec<Path>>, SimulateError> = std::thread::scope(|scope| {
        let starts = (0..pairs).step_by(each);
        let work = |from: usize| {
            let (study, done) = (&study, &done);
            scope.spawn(move || study.run(from..pairs.min(from.saturating_add(each)), done, progress))
        };
        let workers: Vec<_> = starts.map(work).collect();
        workers.into_iter().map(|worker| worker.join().map_err(|_| SimulateError::Worker)).collect()
    });
    study.summary(&parts?.concat())
}

/// What one path came to.
#[derive(Clone)]
struct Path {
    unhedged: f64,
    hedged: f64,
    above: bool,
    month_ends: Vec<f64>,
}

/// Constants of a run.
struct Study<'a> {
    simulation: &'a Simulation,
    decay: f64,
    half_decay: f64,
    noise: f64,
    no_jump: f64,
    basis_decay: f64,
    basis_noise: f64,
    /// Level of each step, at its middle.
    levels: Vec<f64>,
    /// Futures price of each month of the strip.
    strip: Vec<f64>,
}

impl<'a> Study<'a> {
    fn new(simulation: &'a Simulation) -> Self {
        let model = &simulation.model;
        let step = 1.0 / count(STEPS_PER_YEAR);
        let steps = MONTHS.saturating_mul(STEPS_PER_MONTH);
        let strip = (0..STRIP_MONTHS).map(|month| {
            let day = month.saturating_mul(STEPS_PER_MONTH).saturating_add(SETTLEMENT_DAY);
            model.future(count(day) * step)
        });
        let basis_decay = 0.5_f64.powf(1.0 / count(STEPS_PER_MONTH));
        Self {
            simulation,
            decay: (-model.kappa * step).exp(),
            half_decay: (-model.kappa * step / 2.0).exp(),
            noise: model.sigma * ((1.0 - (-2.0 * model.kappa * step).exp()) / (2.0 * model.kappa)).sqrt(),
            no_jump: (-model.jumps * step).exp(),
            basis_decay,
            basis_noise: simulation.basis_sd * (1.0 - basis_decay * basis_decay).sqrt(),
            levels: (0..steps).map(|index| model.level((count(index) + 0.5) * step)).collect(),
            strip: strip.collect(),
        }
    }

    fn run(
        &self,
        pairs: std::ops::Range<usize>,
        done: &AtomicUsize,
        progress: &(dyn Fn(usize) + Sync),
    ) -> Vec<Path> {
        let mut paths = Vec::with_capacity(pairs.len().saturating_mul(2));
        for pair in pairs {
            paths.extend(self.pair(pair));
            let before = done.fetch_add(1, Ordering::Relaxed);
            if before.is_multiple_of(PROGRESS_EVERY) {
                progress(before.saturating_mul(2));
            }
        }
        paths
    }

    /// Two paths from the same draws, one mirrored.
    fn pair(&self, pair: usize) -> [Path; 2] {
        let Simulation { model, seed, basis_sd, volume_sd, .. } = self.simulation;
        let mut draws = Draws::new(*seed, pair);
        let (first, volume) = draws.normals();
        let mut basis = basis_sd * first;
        let mut walks = [1.0, -1.0].map(|sign| Walk::new(model.start, 1.0 + sign * volume_sd * volume));
        for (index, level) in self.levels.iter().enumerate() {
            let (shock, basis_shock) = draws.normals();
            basis = self.basis_decay * basis + self.basis_noise * basis_shock;
            for (walk, sign) in walks.iter_mut().zip([1.0, -1.0]) {
                walk.log = level + (walk.log - level) * self.decay + sign * self.noise * shock;
            }
            for _ in 0..draws.jumps(self.no_jump) {
                let (size, _) = draws.normals();
                for (walk, sign) in walks.iter_mut().zip([1.0, -1.0]) {
                    walk.log += self.half_decay * (model.jump_mean + sign * model.jump_sd * size);
                }
            }
            for (walk, sign) in walks.iter_mut().zip([1.0, -1.0]) {
                walk.step(index, sign * basis, &self.strip, 2.0 * model.start);
            }
        }
        walks.map(|walk| walk.path)
    }

    fn summary(&self, paths: &[Path]) -> Result<Summary, SimulateError> {
        let unhedged = Series::of_floats(paths.iter().map(|path| path.unhedged));
        let hedged = Series::of_floats(paths.iter().map(|path| path.hedged));
        let above = paths.iter().filter(|path| path.above).count();
        let hedge = HedgeStudy {
            unhedged_mean: unhedged.mean()?,
            hedged_mean: hedged.mean()?,
            reduction: reduction(&unhedged, &hedged)?,
        };
        let curve = (0..MONTHS).map(|month| self.month(paths, month)).collect::<Result<_, _>>()?;
        Ok(Summary { paths: paths.len(), hedge, curve, ever_above_double: count(above) / count(paths.len()) })
    }

    fn month(&self, paths: &[Path], month: usize) -> Result<Curve, SimulateError> {
        let prices = paths.iter().filter_map(|path| path.month_ends.get(month).copied());
        let mut prices: Vec<f64> = prices.filter(|price| price.is_finite()).collect();
        prices.sort_unstable_by(f64::total_cmp);
        let quantile = |percent: usize| {
            let last = prices.len().saturating_sub(1);
            let rank = last.saturating_mul(percent).div_euclid(100);
            prices.get(rank).copied().ok_or(SeriesError::TooShort { found: 0, needed: 1 })
        };
        let (low, median, high) = (quantile(5)?, quantile(50)?, quantile(95)?);
        let ends = month.saturating_add(1);
        let years = count(ends.saturating_mul(STEPS_PER_MONTH)) / count(STEPS_PER_YEAR);
        let future = self.simulation.model.future(years);
        let mean = Series::of_floats(prices).mean()?;
        Ok(Curve { month: ends, mean, future, low, median, high })
    }
}

/// One path on its way.
struct Walk {
    log: f64,
    volume: f64,
    month_cost: f64,
    path: Path,
}

impl Walk {
    fn new(start: f64, volume: f64) -> Self {
        let path = Path { unhedged: 0.0, hedged: 0.0, above: false, month_ends: Vec::with_capacity(MONTHS) };
        Self { log: start.ln(), volume, month_cost: 0.0, path }
    }

    fn step(&mut self, index: usize, basis: f64, strip: &[f64], double: f64) {
        let price = self.log.exp();
        self.path.above |= price > double;
        let day = index.rem_euclid(STEPS_PER_MONTH).saturating_add(1);
        if let Some(fixed) = strip.get(index.div_euclid(STEPS_PER_MONTH)) {
            self.month_cost += price * basis.exp();
            if day == SETTLEMENT_DAY {
                self.path.hedged -= price - fixed;
            }
            if day == STEPS_PER_MONTH {
                let cost = self.month_cost / count(STEPS_PER_MONTH) * self.volume;
                self.path.unhedged += cost;
                self.path.hedged += cost;
                self.month_cost = 0.0;
            }
        }
        if day == STEPS_PER_MONTH {
            self.path.month_ends.push(price);
        }
    }
}

/// Draws of one pair of paths.
struct Draws {
    generator: Pcg64Mcg,
}

impl Draws {
    fn new(seed: u64, pair: usize) -> Self {
        let pair = u128::try_from(pair).unwrap_or(u128::MAX);
        // Odd multipliers spread neighbouring seeds and pairs over the whole state.
        let state = u128::from(seed)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)
            .wrapping_add(pair.wrapping_mul(0xD134_2543_DE82_EF95_A409_3822_299F_31D1));
        let mut generator = Pcg64Mcg::new(state);
        for _ in 0..4 {
            generator.next_u64();
        }
        Self { generator }
    }

    /// Above 0 and below 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a float exactly")]
    fn uniform(&mut self) -> f64 {
        const BITS_53: f64 = 9_007_199_254_740_992.0;
        ((self.generator.next_u64() >> 11) as f64 + 0.5) / BITS_53
    }

    /// Two independent standard normals (Box and Muller).
    fn normals(&mut self) -> (f64, f64) {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        let (sine, cosine) = (TAU * self.uniform()).sin_cos();
        (radius * cosine, radius * sine)
    }

    /// A Poisson count by multiplying uniforms (Knuth); the mean is far below one.
    fn jumps(&mut self, none: f64) -> u32 {
        const JUMPS_MAX: u32 = 100;
        let mut product = self.uniform();
        let mut jumps = 0_u32;
        while product > none && jumps < JUMPS_MAX {
            product *= self.uniform();
            jumps = jumps.saturating_add(1);
        }
        jumps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet(_: usize) {}

    fn run(basis_sd: f64, volume_sd: f64) -> Summary {
        simulate(&Simulation { volume_sd, ..Simulation::published(1, basis_sd) }, &quiet).unwrap()
    }

    #[test]
    fn the_published_claim_holds_at_a_basis_of_a_tenth_and_not_at_a_fifth() {
        let at_tenth = run(0.10, 0.0).hedge.reduction.volatility;
        assert!((at_tenth - 0.731).abs() <= 0.015, "{at_tenth}");
        assert!((0.62..=0.78).contains(&at_tenth));
        let at_fifth = run(0.20, 0.0).hedge.reduction.volatility;
        assert!(!(0.62..=0.78).contains(&at_fifth), "{at_fifth}");
        let without = run(0.0, 0.0);
        assert!((without.hedge.reduction.volatility - 0.906).abs() <= 0.015, "{:?}", without.hedge);
        assert!((0.135..=0.160).contains(&without.ever_above_double), "{}", without.ever_above_double);
        let with_volume = run(0.10, 0.20).hedge.reduction.volatility;
        assert!((with_volume - 0.25).abs() <= 0.03, "{with_volume}");
    }

    #[test]
    fn futures_are_the_means_of_the_paths() {
        let summary = run(0.0, 0.0);
        for (month, price) in [(3, "2.1823"), (6, "2.1709"), (12, "1.8141")] {
            let point = summary.curve[month - 1];
            assert_eq!(point.month, month);
            assert_eq!(format!("{:.4}", point.future), price);
            assert!((point.mean / point.future - 1.0).abs() <= 0.005, "{point:?}");
            assert!(point.low < point.median && point.median < point.high);
        }
    }

    #[test]
    fn a_seed_gives_the_same_figures_on_any_number_of_threads() {
        let of = |threads, seed| {
            let simulation = Simulation { paths: 301, threads, ..Simulation::published(seed, 0.10) };
            simulate(&simulation, &quiet).unwrap()
        };
        let one = of(1, 7);
        assert_eq!(one.paths, 302);
        assert_eq!(one, of(3, 7));
        assert_ne!(one, of(1, 8));
    }

    #[test]
    fn what_makes_no_price_is_refused() {
        let base = Simulation::published(1, 0.1);
        let refuse = |simulation| simulate(&simulation, &quiet).unwrap_err();
        assert_eq!(refuse(Simulation { paths: 1, ..base }), SimulateError::Paths(1));
        let told = |basis_sd: f64| refuse(Simulation { basis_sd, ..base }).to_string();
        for (value, text) in [(f64::NAN, "basis: NaN"), (-0.1, "basis: -0.1"), (11.0, "basis: 11.0")] {
            assert!(told(value).starts_with(text), "{}", told(value));
        }
        let model = Model { kappa: 0.0, ..base.model };
        assert_eq!(refuse(Simulation { model, ..base }), SimulateError::Parameters);
    }
}
