//! The proxy.
pub mod config;
