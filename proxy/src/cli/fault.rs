//! Failures with an exit code of their own.
//!
//! Invariants
//! - 2: the command line, or a variable in the place of an option, cannot be understood; nothing was done.
//! - 3: what was examined breaks its rules: a configuration, whoever reads it, a price file, imported rows.
//! - Every other failure is 1: the command was right and could not be carried out.
//!
//! Not here: errors of configurations (`config::error`).

use crate::config::{ConfigErrors, Origin};
use crate::hedge::AskError;
use crate::period::PeriodError;
use crate::report::ByError;
use std::process::ExitCode;

/// A failure that is not just one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// What was examined breaks its rules.
    #[error("{0}")]
    Violation(String),
}

impl From<ConfigErrors> for Fault {
    /// Where all that is wrong was written on the command line, that is wrong usage.
    fn from(errors: ConfigErrors) -> Self {
        let is_option = |origin: &Origin| matches!(origin, Origin::CommandLine(_));
        if errors.iter().all(|error| is_option(&error.origin)) {
            Self::Usage(errors.to_string())
        } else {
            Self::Violation(errors.to_string())
        }
    }
}

/// The exit code that tells of `error`.
pub(super) fn exit_code(error: &anyhow::Error) -> ExitCode {
    let asked = matches!(error.downcast_ref(), Some(AskError::Wrong(_)));
    let usage = asked || error.is::<PeriodError>() || error.is::<ByError>();
    ExitCode::from(match error.downcast_ref::<Fault>() {
        Some(Fault::Violation(_)) => 3,
        Some(Fault::Usage(_)) => 2,
        None if usage => 2,
        None => 1,
    })
}
