//! How long reports take over a ledger that `month` made: return by team and workload with every part that
//! costs time, from the journal alone and from a ledger that is open.
//!
//! `cargo run --release -p bursar-ledger --example roi_rate -- DIR linear journal|open`
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measuring program, not a product"
)]
#![expect(clippy::disallowed_methods, reason = "measures wall time on a plain thread")]

#[path = "month.rs"]
mod month;

use bursar_ledger::OfflineLedger;
use bursar_ledger::hedge::{HedgeSource, report};
use bursar_policies::attribution::ModelName;
use std::path::Path;
use std::time::Instant;

/// How often each is done; the first time reads the disk.
const ROUNDS: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, model, how] = arguments.as_slice() else { panic!("say DIR MODEL journal|open") };
    let model = ModelName::from_name(model).expect("a model");
    if how == "journal" {
        all(&OfflineLedger::open(Path::new(dir)).unwrap(), model);
    } else {
        let ledger = month::open(Path::new(dir));
        all(&ledger, model);
        ledger.close().unwrap();
    }
}

fn all(source: &dyn HedgeSource, model: ModelName) {
    let ask = month::ask(model);
    for _ in 0..ROUNDS {
        timed("facts", || source.finance_facts().unwrap().len());
        timed("cost", || report(source, &ask.hedge).unwrap().rows.len());
        timed("return", || bursar_ledger::roi::report(source, &ask).unwrap().rows.len());
    }
}

fn timed(what: &str, work: impl FnOnce() -> usize) {
    let begin = Instant::now();
    let count = work();
    println!("{what}: {:.2} s, {count}", begin.elapsed().as_secs_f64());
}
