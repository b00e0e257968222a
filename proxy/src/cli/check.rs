//! `bursar check`: every mistake of the configuration at once.

use super::CheckArgs;
use super::serve::load_config;
use crate::config::Overrides;
use std::process::ExitCode;

/// Checks the configuration; exit code 3 when it has mistakes.
pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let config = match load_config(args.config.as_deref(), Overrides::default()) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return Ok(ExitCode::from(3));
        }
    };
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    if let Err(error) = super::serve::load_prices(&config) {
        eprintln!("{error:#}");
        return Ok(ExitCode::from(3));
    }
    if args.show {
        for setting in config.effective() {
            println!("{}: {}  # {}", setting.path, setting.value, setting.origin);
        }
    }
    let file =
        config.file.as_ref().map_or_else(|| "no file, defaults".to_owned(), |f| f.display().to_string());
    eprintln!("configuration is right ({file})");
    Ok(ExitCode::SUCCESS)
}
