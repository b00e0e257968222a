//! Measures what an effective-cost report costs: a month of rolled-up usage under many positions,
//! all of the same item and all of different ones.
//!
//! `cargo run --release -p bursar-policies --example waterfall_rate`
//!
//! Not here: assertions on time; no test may depend on it.

use bursar_domain::{Currency, Label, Money, Timestamp};
use bursar_policies::exact::{Decimal, Ratio};
use bursar_policies::hedge::cost::{CostError, Cover, Leg, Use, waterfall};
use bursar_policies::hedge::position::{Facets, Selector};
use bursar_policies::hedge::profile::Unit;
use std::time::Instant;

const POSITIONS: u32 = 200;
const TEAMS: u32 = 50;
const MODELS: u32 = 40;

#[expect(clippy::disallowed_methods, reason = "a measurement of real time; there is no runtime to pause")]
fn main() -> Result<(), CostError> {
    let uses = uses();
    for (name, mixed) in [("one item", false), ("mixed selectors", true)] {
        let legs: Vec<Leg> = (0..POSITIONS).map(|number| leg(number, mixed)).collect();
        let start = Instant::now();
        let report = waterfall(&uses, &legs, Vec::new(), (Currency::USD, Unit::Mtok))?;
        println!(
            "{name}: {} cells, {} positions, {} rows: {:?}",
            uses.len(),
            report.legs.len(),
            report.rows.len(),
            start.elapsed()
        );
    }
    Ok(())
}

fn label(kind: &str, number: u32) -> Label {
    Label::lossy(&format!("{kind}-{number:03}")).unwrap_or_else(|| Label::fixed("none"))
}

/// A month of usage by team and model, with figures as they come: nothing is round.
fn uses() -> Vec<Use> {
    let one = |team: u32, model: u32| {
        let seed = i128::from(team * 7_919 + model * 104_729 + 17);
        Use {
            row: None,
            at: Timestamp::from_micros(0),
            id: 0,
            facets: Facets { model: Some(label("model", model)), ..Facets::team(label("team", team)) },
            volume: Decimal::from_pico(seed * 1_234_567_000_000 % 900_000_000_000_000_000),
            spot: Money::from_pico(Currency::USD, seed * 987_654_321_987 % 90_000_000_000_000_000),
        }
    };
    (0..TEAMS).flat_map(|team| (0..MODELS).map(move |model| one(team, model))).collect()
}

fn leg(number: u32, mixed: bool) -> Leg {
    let quantity = Ratio::whole(i128::from(number) * 1_237 + 100_003);
    let payoff = Money::from_pico(Currency::USD, i128::from(number) * 7_770_000_000_000);
    let mut leg = Leg::plain(label("position", number), Cover::Cash { quantity, payoff }, Currency::USD);
    if mixed {
        let teams = (0..TEAMS)
            .filter(|team| !(team + number).is_multiple_of(3))
            .map(|team| label("team", team))
            .collect();
        let models = (0..MODELS)
            .filter(|model| !(model * 5 + number).is_multiple_of(4))
            .map(|m| label("model", m))
            .collect();
        leg.selector = Selector { teams, models, ..Selector::default() };
    }
    leg
}
