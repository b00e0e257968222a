//! `bursar man`: manual pages, one per command.
//!
//! Invariants
//! - The pages are written from the same definitions as `--help`, and say nothing of the day or the commit:
//!   a version's pages are the same wherever they are made.
//!
//! Not here: the definitions (`cli`), completions of shells (`completions`).

use super::Cli;
use super::fault::Fault;
use crate::built;
use anyhow::Context;
use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `bursar man`
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Directory to write every page to (bursar.1, bursar-ledger-verify.1, …); it is made if it is not there.
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    out: Option<PathBuf>,
    /// The command whose page goes to standard output, such as `ledger verify` [default: bursar itself].
    command: Vec<String>,
}

/// Writes one page, or all of them.
pub(super) fn run(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let root = root();
    if let Some(dir) = &args.out {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let count = write_all(&root, dir)?;
        eprintln!("{count} pages in {}", dir.display());
        return Ok(ExitCode::SUCCESS);
    }
    let command = named(&root, &args.command)?;
    std::io::stdout().lock().write_all(&text(command)?)?;
    Ok(ExitCode::SUCCESS)
}

/// The command line, built: commands know the words that lead to them.
fn root() -> Command {
    let mut root = Cli::command().version(built::VERSION).disable_help_subcommand(true);
    root.build();
    root
}

fn named<'c>(root: &'c Command, words: &[String]) -> Result<&'c Command, Fault> {
    words.iter().try_fold(root, |command, word| {
        let found = command.find_subcommand(word).filter(|found| !found.is_hide_set());
        found.ok_or_else(|| {
            let known: Vec<&str> = shown(command).map(Command::get_name).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Fault::Usage(format!("`{}` has no command {word:?}; its commands: {known}", words_of(command)))
        })
    })
}

/// The name of its page: that of the program is the program's own.
fn name_of(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn words_of(command: &Command) -> &str {
    command.get_bin_name().unwrap_or_else(|| command.get_name())
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|below| !below.is_hide_set())
}

/// Writes the pages of a command and of all below it; returns how many they are.
fn write_all(command: &Command, dir: &Path) -> anyhow::Result<usize> {
    let file = dir.join(format!("{}.1", name_of(command)));
    std::fs::write(&file, text(command)?).with_context(|| format!("cannot write {}", file.display()))?;
    shown(command).try_fold(1, |count, below| Ok(count + write_all(below, dir)?))
}

/// One page, in roff.
fn text(command: &Command) -> std::io::Result<Vec<u8>> {
    // Without a date; one that is empty would be left out, and what follows would stand in its place.
    let page = Man::new(command.clone()).section("1").date(" ");
    let page = page.source(format!("bursar {}", built::VERSION)).manual("Bursar");
    let mut text = Vec::new();
    page.render(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page without the marks of its fonts, and with plain hyphens.
    fn plain(command: &Command) -> String {
        let text = String::from_utf8(text(command).unwrap()).unwrap();
        ["\\fB", "\\fI", "\\fR", "\\fP"]
            .iter()
            .fold(text, |text, font| text.replace(font, ""))
            .replace("\\-", "-")
    }

    fn check(command: &Command, pages: &mut usize) {
        let page = plain(command);
        let name = name_of(command);
        let words = words_of(command);
        let head = format!(".TH {name} 1 \" \" \"bursar {}\" Bursar\n", built::VERSION);
        assert!(page.contains(&head), "{words}: {page}");
        for section in [".SH NAME\n", ".SH SYNOPSIS\n", ".SH DESCRIPTION\n", ".SH OPTIONS\n"] {
            assert_eq!(page.matches(section).count(), 1, "{words}: {section}{page}");
        }
        assert!(page.contains(&format!(".SH SYNOPSIS\n{words} ")), "{words}: {page}");
        for option in command.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(page.contains(&format!("--{option}")), "{words}: --{option}");
        }
        for below in shown(command) {
            assert!(page.contains(&format!("{name}-{}(1)", below.get_name())), "{words}: {page}");
            check(below, pages);
        }
        *pages += 1;
    }

    #[test]
    fn every_command_has_a_page_with_its_options_and_those_below_it() {
        let mut pages = 0;
        check(&root(), &mut pages);
        assert!(pages > 50, "the walk through the commands works: {pages}");
    }

    #[test]
    fn a_page_is_found_by_the_words_of_its_command_and_others_are_refused_by_name() {
        let root = root();
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words_of(named(&root, &words("ledger verify")).unwrap()), "bursar ledger verify");
        assert_eq!(words_of(named(&root, &[]).unwrap()), "bursar");
        let refused = named(&root, &words("ledger prove")).unwrap_err().to_string();
        assert!(
            refused.contains("`bursar ledger` has no command \"prove\"; its commands: verify"),
            "{refused}"
        );
        let refused = named(&root, &words("serve now")).unwrap_err().to_string();
        assert!(refused.ends_with("its commands: none"), "{refused}");
    }

    #[test]
    fn pages_do_not_tell_the_commit() {
        let page = plain(&root());
        assert!(page.contains(&format!("bursar {}", built::VERSION)) && !page.contains("dirty"), "{page}");
        assert!(page.contains(&format!(".SH VERSION\nv{}\n", built::VERSION)), "{page}");
    }
}
