//! The scenarios: one binary, so that the tests link once. Each module is one promise seen from outside.
//!
//! Not here: the harness (`harness/`), the whole binary (`proxy/tests/cli.rs`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is a failed test"
)]

mod access;
mod aws_signature;
mod bad_networks;
mod batches;
mod bedrock;
mod broken_streams;
mod budgets;
mod client_connections;
mod compressed;
mod contract_budgets;
mod costlier;
mod counting;
mod cuts;
mod deploy_examples;
mod dialects;
mod drain;
mod errors;
mod gates;
mod gemini;
mod http2_peers;
mod http_rules;
mod http_versions;
mod identity;
mod jwt;
mod keys;
mod ledger_modes;
mod limits;
mod metering;
mod promises;
mod read_back;
mod realtime;
mod refusals;
mod reload;
mod rules;
mod secrets_in_memory;
mod secure_defaults;
mod signers;
#[cfg(feature = "sigv4")]
mod sigv4;
mod silent_dialects;
mod simulation;
mod smuggling;
mod streaming;
mod tidy;
mod timeouts;
mod tls;
mod transcripts;
mod usage_chunk;
mod webhooks;
mod wire_defaults;
