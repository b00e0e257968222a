//! Hedged positions: from spot cost to what it really cost (FINANCE §3–5).
//!
//! Invariants
//! - Σ rows + residual = book, for every component and in total; it is checked on every run.
//! - Booked money is integers and exact fractions, rounded once. Floats live in `analytics` alone,
//!   and nothing that is computed there is booked.
//! - What cannot be priced is listed with its reason; it is never a zero.
//!
//! Not here: files, storage and commands; usage itself and its spot price (`price`).

pub mod analytics;
pub mod calendar;
pub mod commitment;
pub mod compose;
pub mod cost;
pub mod effectiveness;
pub mod intake;
pub mod lifecycle;
pub mod margin;
pub mod market;
pub mod payoff;
pub mod position;
pub mod profile;
pub mod risk;
