//! The rules of Bursar: pure functions from facts to decisions and amounts.
//!
//! Invariants
//! - Nothing here reads a clock, a file or the network, and nothing waits.
//! - Money is exact: no floats, and every operation that can overflow is checked. Statistics, which
//!   are never booked, may use floats in `hedge::analytics` alone.
//!
//! Not here: what the facts are (`bursar-domain`), where they are kept (`bursar-ledger`).
#![cfg_attr(not(test), deny(clippy::float_arithmetic, clippy::arithmetic_side_effects))]

pub mod access;
pub mod attribution;
pub mod budget;
pub mod exact;
pub mod hedge;
pub mod limit;
pub mod periods;
pub mod price;
pub mod reconcile;
pub mod roi;
pub mod rule;
