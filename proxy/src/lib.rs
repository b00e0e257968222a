//! The proxy.
pub mod config;
pub mod guard;
pub mod usage;
