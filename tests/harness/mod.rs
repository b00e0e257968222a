//! A whole sidecar in one process, for tests: a fake provider, a manual clock, everything in memory.
//!
//! Invariants
//! - Time is tokio's paused clock and a manual wall clock: no test waits for real time.
//! - Both sides of the proxy are in-memory streams, so tests see the exact bytes.
//!
//! | File | Owns |
//! |---|---|
//! | `system.rs` | the sidecar, put together as `serve` does it; its ledger's gate |
//! | `client.rs` | a client that decides every byte of HTTP/1.1 |
//! | `provider.rs` | a provider that plays scripts, byte for byte |
//! | `http2.rs` | a client and a provider that speak HTTP/2 |
//! | `frames.rs` | either end of HTTP/2, frame by frame |
//! | `clerk.rs` | a provider of numbered requests that writes down what it was sent |
//! | `network.rs` | what lies between: loss, delay, outages, cuts, by seed |
//! | `clock.rs` | the wall clock, and waiting without real time |
//!
//! Not here: the scenarios (`scenarios.rs`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is a failed test"
)]

pub mod clerk;
pub mod client;
pub mod clock;
pub mod frames;
pub mod http2;
pub mod network;
pub mod provider;
pub mod system;

pub use client::{Client, Reply};
pub use clock::{ManualClock, unhurried, until};
pub use frames::{FrameProvider, Frames};
pub use http2::{Http2Client, Http2Provider, Http2Reply};
pub use provider::{Provider, Received, Step, chunk};
pub use system::{Machine, Setup, System, run};
