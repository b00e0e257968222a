//! The Bursar sidecar: a proxy that meters LLM traffic, and the people's side of it.
//!
//! Start at `stack`: the request path as one list. Not here: the ledger, prices, nouns; they are
//! crates of their own.

pub mod activation;
pub mod admin;
pub mod app;
mod audit;
pub mod aws;
pub mod budgets;
mod built;
mod call;
pub mod cli;
mod clients;
pub mod config;
mod confine;
pub mod count;
pub mod credentials;
mod demo;
mod exchange;
mod failure;
mod focus;
pub mod guard;
mod hedge;
pub mod http;
mod idle_timer;
mod ids;
mod imports;
mod inject;
pub mod layers;
pub mod limits;
pub mod listen;
mod overrides;
pub mod period;
mod prices;
mod process;
mod prune;
mod reconcile;
pub mod reload;
mod reply;
pub mod report;
mod roi;
pub mod rules;
mod session;
mod stack;
mod streams;
pub mod tasks;
pub mod telemetry;
mod trial;
mod tunnel;
pub mod upstream;
pub mod usage;
pub mod webhooks;
pub mod worker;
