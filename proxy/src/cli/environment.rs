//! The process's environment, as commands read it.
//!
//! Invariant: an empty variable is absent, which is how many tools write "not set"; and an option of the
//! command line always wins, so nothing here is read where one was given.
//!
//! Not here: which variables are settings (`config::settings`).

/// The value of a variable, unless it is empty or no text.
#[expect(clippy::disallowed_methods, reason = "the one place that hands out the environment")]
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// The names of all variables.
pub(super) fn names() -> Vec<String> {
    std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
}
