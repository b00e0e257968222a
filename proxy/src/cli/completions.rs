//! `bursar completions`: what a shell needs to complete commands and options.
//!
//! Invariants
//! - The script is written from the same definitions as `--help`: there is nothing to keep in step.
//!
//! Not here: the definitions (`cli`), manual pages (`man`).

use super::Cli;
use clap::{Args, CommandFactory};
use clap_complete::{Generator, Shell};
use std::io::Write;
use std::process::ExitCode;

/// `bursar completions`
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell to write them for.
    #[arg(value_enum)]
    shell: Shell,
}

/// Writes the script to standard output.
pub(super) fn run(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    std::io::stdout().lock().write_all(&script(args.shell)?)?;
    Ok(ExitCode::SUCCESS)
}

/// The script, whole: a generator that writes into a closed pipe would end the program.
fn script(shell: Shell) -> std::io::Result<Vec<u8>> {
    let mut command = Cli::command();
    command.set_bin_name("bursar");
    command.build();
    let mut script = Vec::new();
    shell.try_generate(&command, &mut script)?;
    Ok(script)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Command, ValueEnum};

    /// Every command and option that is shown, with the words that lead to it.
    fn each(command: &Command, words: &str, see: &mut impl FnMut(&str, &str)) {
        for option in command.get_arguments().filter(|option| !option.is_hide_set()) {
            if let Some(name) = option.get_long() {
                see(words, name);
            }
        }
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            see(words, below.get_name());
            each(below, &format!("{words} {}", below.get_name()), see);
        }
    }

    #[test]
    fn every_shell_learns_every_command_and_option() {
        let mut command = Cli::command();
        command.build();
        for shell in Shell::value_variants() {
            let script = String::from_utf8(script(*shell).unwrap()).unwrap();
            let mut seen = 0;
            each(&command, "bursar", &mut |words, name| {
                assert!(script.contains(name), "{shell}: {words} {name}");
                seen += 1;
            });
            assert!(seen > 200, "the walk through the commands works: {seen}");
        }
    }

    #[test]
    fn the_script_for_bash_offers_the_options_of_a_command_below_another() {
        let script = String::from_utf8(script(Shell::Bash).unwrap()).unwrap();
        let verify = script.split("bursar__subcmd__ledger__subcmd__verify)").last().unwrap();
        let options = verify.split("opts=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        assert!(options.split(' ').any(|option| option == "--data-dir"), "{options}");
    }
}
