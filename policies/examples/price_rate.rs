//! Measures what pricing costs: time to load the built-in book, time per call, memory of the book.
//!
//! `cargo run --release -p bursar-policies --example price_rate`
//!
//! Not here: assertions on time; no test may depend on it.

use bursar_domain::{Timestamp, TokenClass, Usage};
use bursar_policies::price::{Ask, BookError, PriceBook};
use std::hint::black_box;
use std::time::{Duration, Instant};

const CALLS: u32 = 1_000_000;
const LOADS: u32 = 20;

fn main() -> Result<(), BookError> {
    let before = resident_kib();
    let book = PriceBook::builtin()?;
    let (Some(before), Some(after)) = (before, resident_kib()) else { return Ok(()) };
    println!(
        "resident memory grew by {} KiB (text included) before the first call",
        after.saturating_sub(before)
    );
    let loads = timed(|| (0..LOADS).for_each(|_| drop(black_box(PriceBook::builtin()))));
    println!("load: {:?}", loads / LOADS);
    for (provider, model, tier, region) in [
        ("openai", "gpt-4o-mini-2024-07-18", None, None),
        ("openai", "gpt-5.6-sol-2026-08-01", Some("flex"), Some("eu")),
        ("anthropic", "claude-sonnet-4-5-20250929", Some("standard"), Some("not_available")),
        ("openrouter", "anthropic/claude-4.5-haiku-20251001", None, None),
        ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", None, Some("us-east-1")),
        ("openai", "unknown-model", None, None),
    ] {
        let usage = usage();
        let ask = Ask {
            provider,
            model_served: Some(model),
            model_requested: None,
            tier,
            region,
            speed: None,
            at: Timestamp::from_micros(1_793_491_200_000_000),
            usage: &usage,
            by_model: &[],
        };
        let calls = timed(|| (0..CALLS).for_each(|_| drop(black_box(book.price(black_box(&ask))))));
        println!("{provider}/{model}: {:?} per call, {:?}", calls / CALLS, book.price(&ask).status);
    }
    if let Some(after) = resident_kib() {
        println!("resident memory grew by {} KiB in all", after.saturating_sub(before));
    }
    // Asks for every model there is.
    let usage = usage();
    for model in book.models() {
        let ask = Ask {
            provider: &model.provider,
            model_served: Some(&model.model),
            model_requested: None,
            tier: None,
            region: None,
            speed: None,
            at: Timestamp::from_micros(1_793_491_200_000_000),
            usage: &usage,
            by_model: &[],
        };
        black_box(book.price(&ask));
    }
    if let Some(after) = resident_kib() {
        println!(
            "resident memory grew by {} KiB with a table for each of the models",
            after.saturating_sub(before)
        );
    }
    println!("rows: {}", book.rows().count());
    Ok(())
}

/// A Claude-like call with every cache class.
fn usage() -> Usage {
    let mut usage = Usage::unknown();
    for (class, count) in [
        (TokenClass::InputFresh, 1_234),
        (TokenClass::CachedRead, 20_000),
        (TokenClass::CacheWrite5m, 900),
        (TokenClass::CacheWrite1h, 100),
        (TokenClass::OutputText, 456),
        (TokenClass::OutputReasoning, 789),
    ] {
        usage.set(class, count);
    }
    usage
}

#[expect(clippy::disallowed_methods, reason = "a measurement of real time; there is no runtime to pause")]
fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Resident memory of this process, where the system tells.
fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}
