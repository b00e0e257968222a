//! `bursar check`: every mistake of the configuration at once.

use super::CheckArgs;
use super::fault::Fault;
use super::serve::load_config;
use crate::config::Overrides;
use std::process::ExitCode;

/// Checks the configuration; exit code 3 when it has mistakes.
pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let config = load_config(args.config.as_deref(), Overrides::default()).map_err(Fault::from)?;
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    super::serve::load_prices(&config)?;
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
