//! `bursar check`: every mistake of the configuration at once.

use super::CheckArgs;
use super::fault::Fault;
use super::serve::load_config;
use crate::config::{Config, Overrides};
use bursar_domain::{Clock, SystemClock};
use bursar_ledger::OfflineLedger;
use bursar_ledger::hedge::{HedgeSource, state};
use bursar_policies::budget::contract::Drawable;
use std::process::ExitCode;
use std::sync::Arc;

/// Checks the configuration; exit code 3 when it has mistakes.
pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let config = load_config(args.config.as_deref(), Overrides::default()).map_err(Fault::from)?;
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    super::serve::load_prices(&config)?;
    for warning in contract_warnings(&config) {
        eprintln!("warning: {warning}");
    }
    if args.show {
        for setting in config.effective() {
            println!("{}: {}  # {}", setting.path, setting.value, setting.origin);
        }
        let configured = config.routes.configured_count();
        for (number, route) in config.routes.iter().enumerate() {
            let origin = if number < configured { "configured" } else { "built in" };
            println!("routes[{number}]: {}  # {origin}", route.shown());
        }
    }
    let file =
        config.file.as_ref().map_or_else(|| "no file, defaults".to_owned(), |f| f.display().to_string());
    eprintln!("configuration is right ({file})");
    Ok(ExitCode::SUCCESS)
}

/// What is to be said of contracts that budgets name: of those that the ledger has, if it can be read now.
fn contract_warnings(config: &Config) -> Vec<String> {
    if config.contract_budgets.is_empty() {
        return Vec::new();
    }
    let dir = config.ledger.path.display();
    let facts = OfflineLedger::open(&config.ledger.path)
        .map_err(|error| error.to_string())
        .and_then(|ledger| ledger.finance_facts().map_err(|error| error.to_string()));
    let facts = match facts {
        Ok(facts) => facts,
        Err(error) => {
            return vec![format!(
                "contracts that budgets name cannot be looked up in the ledger {dir} now ({error}): \
                 see `bursar budget` when the sidecar runs"
            )];
        }
    };
    let (intake, now) = (Arc::new(state(&facts).intake), SystemClock.now());
    let rules = config.contract_budgets.iter();
    let said = rules.filter_map(|rule| {
        let found = Drawable::find(&intake, &rule.contract, now).and_then(|found| found.stretch(now));
        let absent = found.err()?;
        let (name, contract) = (rule.name.as_str(), rule.contract.as_str());
        Some(format!("budget {name:?}: the contract {contract:?} {absent} (ledger {dir})"))
    });
    said.collect()
}
