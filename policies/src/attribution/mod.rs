//! Revenue to workloads: which touches count, who gets what credit, what a refund takes back
//! (FINANCE §6).
//!
//! Invariants
//! - Attributed + unattributed = received, per currency, to the minor unit.
//! - A refund reverses the credits that were given, never a new model; after a full refund all are
//!   zero.
//! - Weights that are not rational are integers at 10⁹ before the split, by integer arithmetic, so
//!   money is the same on every machine.
//! - All models are associational: they share credit out, they do not prove a cause. Reports say so.
//!
//! Not here: ROI (`roi`), periods (`periods`), where touches are looked up (the ledger).

mod credit;
mod entry;
mod half_life;
mod markov;
mod model;
mod resolve;
mod revenue;
mod shapley;

pub use credit::{Contact, Contacts, Given, Parts, Rule, Taken, Window, credit, in_currency};
pub use entry::{Admission, EntryError, EventKey, Revenue, RevenueEntry, RevenueLog};
pub use half_life::{WEIGHT_UNIT, decay_weight};
pub use markov::{Journey, removal_effects, removal_effects_of};
pub use model::{Attribution, Credits, DEFAULT_HALF_LIFE_MICROS, Model, ModelName, attribute};
pub use resolve::{Key, Level, MatchKeys, Touch, collapse, in_window, resolve};
pub use revenue::{Booking, Kind, RevenueBook, RevenueError, RevenueEvent, ValueClass};
pub use shapley::{PLAYERS_MAX, ShapleyError, coalition_values, shapley};

/// What every attribution report says about its method.
pub const CAVEAT: &str = "Credit is shared out by a rule over observed touches. \
    It is associational and does not show that a workload caused revenue.";
