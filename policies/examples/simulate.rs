//! Runs the published hedge study over several seeds and measures what a run costs.
//!
//! `cargo run --release -p bursar-policies --example simulate`
//!
//! Not here: assertions on time; no test may depend on it.

use bursar_policies::hedge::analytics::{SimulateError, Simulation, simulate};
use std::time::Instant;

const SEEDS: u64 = 8;

#[expect(clippy::disallowed_methods, reason = "a measurement of real time; there is no runtime to pause")]
fn main() -> Result<(), SimulateError> {
    println!(
        "seed basis volume | volatility reduction, variance reduction, ever above double, mean/future at 3, 6, 12 months | time"
    );
    for (basis_sd, volume_sd) in [(0.0, 0.0), (0.10, 0.0), (0.20, 0.0), (0.10, 0.20)] {
        for seed in 1..=SEEDS {
            let start = Instant::now();
            let summary =
                simulate(&Simulation { volume_sd, ..Simulation::published(seed, basis_sd) }, &|_| {})?;
            let months = summary.curve.iter().filter(|point| [3, 6, 12].contains(&point.month));
            let means: Vec<String> =
                months.map(|point| format!("{:.4}", point.mean / point.future)).collect();
            println!(
                "{seed:4} {basis_sd:5} {volume_sd:6} | {:.4} {:.4} {:.4} {} | {:?}",
                summary.hedge.reduction.volatility,
                summary.hedge.reduction.variance,
                summary.ever_above_double,
                means.join(" "),
                start.elapsed()
            );
        }
    }
    Ok(())
}
