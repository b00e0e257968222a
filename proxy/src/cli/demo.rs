//! `bursar demo`: an invented hour through the real proxy, up to the report of return.
//!
//! Invariants
//! - Every answer says first that it is a demonstration.
//! - The ledger is a new one: a directory that has anything in it is refused, and one that was not asked for is
//!   removed at the end.
//!
//! Not here: the story (`demo`).

use super::TableFormat;
use super::fault::Fault;
use crate::demo::{self, DAYS, Story, TAG};
use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where a ledger is kept that is to be kept.
const KEPT: &str = "bursar-demonstration";
const NOTICE: &str = "DEMONSTRATION: invented traffic, a provider that is not real, invented contracts and revenue. \
                      None of these figures is yours.";

/// `bursar demo`
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Keep the ledger, in ./bursar-demonstration, to look into it afterwards.
    #[arg(long)]
    keep: bool,
    /// Keep the ledger in this directory, which must be new or empty.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Other figures for another number; the same for the same one.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
}

/// A directory that is removed at the end, unless it is kept.
struct Place {
    dir: PathBuf,
    is_kept: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_kept {
            // What cannot be removed is in the directory for such things, under a name that says what it is.
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// Plays the hour and prints what came of it.
pub(super) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let place = place(args)?;
    eprintln!("{NOTICE}");
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} calls") {
        bar.set_style(style);
    }
    let story = demo::play(&place.dir, args.seed, &|done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let story = story.context("the demonstration failed")?;
    let mut out = std::io::stdout().lock();
    match args.format {
        TableFormat::Json => {
            let document = json!({
                "demonstration": NOTICE, "seed": args.seed, "requests": story.requests, "roi": story.report,
                "usage": story.usage,
            });
            writeln!(out, "{document:#}")?;
        }
        TableFormat::Csv => super::roi::write(&story.report, TableFormat::Csv, &mut out)?,
        TableFormat::Table => tell(&story, &place, &mut out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(story: &Story, place: &Place, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "{NOTICE}\n")?;
    writeln!(
        out,
        "{} calls of three teams in one hour of {}, compressed; each went through the proxy and is in the ledger \
         (tag {}={}).\n",
        story.requests, DAYS[0], TAG.0, TAG.1
    )?;
    super::roi::write(&story.report, TableFormat::Table, out)?;
    writeln!(out)?;
    let [from, to] = DAYS;
    if !place.is_kept {
        writeln!(
            out,
            "The ledger is gone again. `bursar demo --keep` leaves it in ./{KEPT}, to look into it."
        )?;
    } else {
        let data = format!("--data-dir {}", place.dir.display());
        writeln!(out, "Where to look next:")?;
        for (why, command) in [
            (
                "the same by workload, under every model of attribution",
                format!("bursar roi --by team,workload --compare --from {from} --to {to} --on {to}"),
            ),
            (
                "what each model used, and from which source counts come",
                "bursar usage --by team,model,source".to_owned(),
            ),
            ("what looks wrong", "bursar usage --anomalies".to_owned()),
            ("what the contracts did", format!("bursar hedge report --from {from} --to {to} --on {to}")),
            ("each record", "bursar export usage --format jsonl".to_owned()),
            ("that nothing was changed", "bursar ledger verify".to_owned()),
        ] {
            writeln!(out, "  {command} {data}   # {why}")?;
        }
    }
    writeln!(out, "Your own traffic: `bursar serve`, and one base URL. {NOTICE}")?;
    Ok(())
}

fn place(args: &DemoArgs) -> anyhow::Result<Place> {
    let kept = args.dir.clone().or_else(|| args.keep.then(|| PathBuf::from(KEPT)));
    let Some(dir) = kept else {
        let mut random = [0_u8; 8];
        getrandom::fill(&mut random).context("cannot get random bits for a name")?;
        let dir = std::env::temp_dir().join(format!("{KEPT}-{:016x}", u64::from_le_bytes(random)));
        return Ok(Place { dir, is_kept: false });
    };
    if !is_free(&dir)? {
        let text = format!(
            "{} has something in it: a demonstration begins in a new or empty directory; name another with --dir",
            dir.display()
        );
        return Err(Fault::Usage(text).into());
    }
    Ok(Place { dir, is_kept: true })
}

fn is_free(dir: &Path) -> anyhow::Result<bool> {
    match std::fs::read_dir(dir) {
        Ok(mut inside) => Ok(inside.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(|| format!("cannot look into {}", dir.display())),
    }
}
