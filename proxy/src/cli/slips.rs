//! Options by the names that other programs give them: what was meant is said, never guessed.
//!
//! Not here: slips of the pen, which clap finds by itself.

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What others call an option, and what it is here; the first that the command has is suggested.
const NAMES: &[(&[&str], &[&str])] = &[
    (&["port", "bind", "address", "addr", "host", "proxy-listen"], &["listen", "admin"]),
    (&["admin-port", "admin-address", "admin-bind", "metrics-port"], &["admin-listen"]),
    (&["groupby", "group-by", "group", "group_by", "dimensions"], &["by"]),
    (&["dir", "data", "datadir", "ledger", "ledger-path", "path", "db"], &["data-dir"]),
    (&["since", "start", "after", "begin"], &["from"]),
    (&["until", "end", "before", "till"], &["to"]),
    (&["timezone", "time-zone", "zone"], &["tz"]),
    (&["url", "endpoint", "server", "api"], &["admin"]),
    (&["token", "token-file", "bearer"], &["admin-token-file"]),
    (&["out", "file", "dest"], &["output"]),
    (&["json", "csv", "type", "as"], &["format"]),
    (&["conf", "configuration", "settings"], &["config"]),
    (&["date", "when", "time"], &["at"]),
];

/// Adds to an unknown option's error the option that was probably meant, unless clap found one.
pub(super) fn suggest(error: &mut clap::Error, root: &Command, arguments: &[String]) {
    if error.kind() != ErrorKind::UnknownArgument || error.get(ContextKind::SuggestedArg).is_some() {
        return;
    }
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidArg) else { return };
    if let Some(option) = meant(unknown, command_of(root, arguments)) {
        error.insert(ContextKind::SuggestedArg, ContextValue::String(format!("--{option}")));
    }
}

/// The subcommand that the arguments name.
fn command_of<'c>(root: &'c Command, arguments: &[String]) -> &'c Command {
    let mut command = root;
    for argument in arguments {
        match command.find_subcommand(argument) {
            Some(found) => command = found,
            None if command.has_subcommands() => {}
            None => break,
        }
    }
    command
}

fn meant(unknown: &str, command: &Command) -> Option<&'static str> {
    let name = unknown.trim_start_matches('-').split('=').next()?.to_lowercase();
    let (_, ours) = NAMES.iter().find(|(others, _)| others.contains(&name.as_str()))?;
    let has = |option: &&str| command.get_arguments().any(|known| known.get_long() == Some(option));
    ours.iter().copied().find(has)
}
