//! Where contracts and market data are: a running sidecar, or a directory that nobody uses. Reads and
//! imports go the same way from here.
//!
//! Invariants
//! - A ledger is changed by one process: the running sidecar does what it is asked, else this one does.
//!
//! Not here: what is asked and answered (`hedge`).

use super::client::{AdminClient, reason};
use super::source::{self, Chosen, Source, Told};
use crate::app::Prices;
use crate::hedge::AskError;
use crate::hedge::import::{self, File, What};
use crate::hedge::priced::Priced;
use crate::imports::{self, Asked, Input, Words};
use crate::tasks;
use anyhow::{Context, bail};
use bursar_domain::SystemClock;
use bursar_ledger::hedge::{HedgeSource, Mode};
use bursar_ledger::{Actor, Ledger, Options};
use bursar_policies::price::PriceBook;
use bytes::Bytes;
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Where a command looks.
#[derive(Debug, Args)]
pub(crate) struct PlaceArgs {
    /// Base URL of a running sidecar's admin API [env: BURSAR_ADMIN] [default: the address that `serve`
    /// would use, if one answers there].
    #[arg(long, conflicts_with = "data_dir")]
    admin: Option<String>,
    /// File with the admin API's bearer token [env: BURSAR_ADMIN_TOKEN_FILE].
    #[arg(long)]
    admin_token_file: Option<PathBuf>,
    /// Use this ledger directory instead, whatever the environment says; no sidecar may be using it
    /// [env: BURSAR_DATA_DIR].
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

impl PlaceArgs {
    pub(super) fn told(&self) -> Told<'_> {
        Told {
            admin: self.admin.as_deref(),
            token_file: self.admin_token_file.as_deref(),
            data_dir: self.data_dir.as_deref(),
        }
    }
}

/// A query of names and values, for a path.
pub(super) fn query(pairs: &[(&str, Option<&str>)]) -> String {
    let mut query = String::new();
    for (name, value) in pairs {
        if let Some(value) = value {
            query.push(if query.is_empty() { '?' } else { '&' });
            query.push_str(&format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
        }
    }
    query
}

/// A part of a path.
pub(super) fn part(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Asks a running sidecar for `path`, or answers from the directory.
pub(super) fn read(
    place: &PlaceArgs,
    path: &str,
    offline: impl FnOnce(&dyn HedgeSource) -> Result<Value, AskError>,
) -> anyhow::Result<Value> {
    read_with(place, path, None, offline)
}

/// Asks a running sidecar for `path`, with `body` where the question has one, or answers from the directory.
pub(super) fn read_with(
    place: &PlaceArgs,
    path: &str,
    body: Option<Bytes>,
    offline: impl FnOnce(&dyn HedgeSource) -> Result<Value, AskError>,
) -> anyhow::Result<Value> {
    let local = tokio::task::LocalSet::new();
    local.block_on(&tasks::runtime()?, async {
        match source::read(place.told()).await? {
            Source::Running(client) if body.is_some() => {
                let (status, answer) = client.post(path, body.unwrap_or_default()).await?;
                if !status.is_success() {
                    bail!("the sidecar answered {status}: {}", reason(&answer));
                }
                serde_json::from_slice(&answer).context("the sidecar's answer is no document")
            }
            Source::Running(client) => client.document(path).await,
            Source::Offline(ledger) => Ok(offline(&Priced { ledger: ledger.as_ref(), prices: &builtin()? })?),
        }
    })
}

/// Where to read.
pub(super) async fn source(place: &PlaceArgs) -> anyhow::Result<Source> {
    source::read(place.told()).await
}

/// Answers from a directory, with the prices that this program knows.
pub(super) fn priced<T>(
    ledger: &dyn HedgeSource,
    answer: impl FnOnce(&dyn HedgeSource) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    answer(&Priced { ledger, prices: &builtin()? })
}

/// Imports `file`, here or there, and returns what was done.
pub(super) fn import_file(place: &PlaceArgs, file: File, mode: Mode) -> anyhow::Result<Value> {
    let local = tokio::task::LocalSet::new();
    local.block_on(&tasks::runtime()?, async {
        match source::choose(place.told()).await? {
            Chosen::Running(client) => ask_import(&client, file, mode).await,
            Chosen::Dir(dir) => import_here(&dir, &file, mode),
            Chosen::Opened(dir, ledger) => {
                // It was opened for reading, which keeps it from being opened for writing.
                drop(ledger);
                import_here(&dir, &file, mode)
            }
        }
    })
}

/// Largest file of usage that is held in memory: what a running sidecar takes at once, and standard input.
const HELD_BYTES_MAX: u64 = 64 << 20;

/// What an import of usage is asked: in words, for a sidecar, and as it is meant; by which book it is priced.
pub(super) struct UsageAsk<'a> {
    pub(super) words: &'a Words<'a>,
    pub(super) asked: &'a Asked,
    pub(super) book: &'a dyn Fn() -> anyhow::Result<PriceBook>,
}

/// Imports usage, here or there, and returns what was done. Here the file is read in pieces.
pub(super) fn import_usage(
    place: &PlaceArgs,
    path: &Path,
    ask: &UsageAsk<'_>,
    mode: Mode,
) -> anyhow::Result<Value> {
    let local = tokio::task::LocalSet::new();
    local.block_on(&tasks::runtime()?, async {
        let dir = match source::choose(place.told()).await? {
            Chosen::Running(client) => {
                let text = held(
                    path,
                    "ask the running sidecar in pieces (split the file), or stop it and use --data-dir",
                )?;
                return ask_usage(&client, text, ask, mode).await;
            }
            Chosen::Dir(dir) => dir,
            Chosen::Opened(dir, ledger) => {
                // It was opened for reading, which keeps it from being opened for writing.
                drop(ledger);
                dir
            }
        };
        let text = if path == Path::new("-") { Some(held(path, "write it to a file first")?) } else { None };
        let input = match &text {
            Some(text) => Input::Text(text),
            None => {
                // Said now rather than after a ledger was made for it.
                std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
                Input::Path(path)
            }
        };
        let ledger = open_with(&dir, Prices::new((ask.book)()?))?;
        let done = imports::import(&ledger, input, ask.asked, mode, &SystemClock);
        ledger.close()?;
        Ok(imports::document(&done?))
    })
}

/// A file that is not too large to be held.
fn held(path: &Path, remedy: &str) -> anyhow::Result<String> {
    use std::io::Read;
    let cannot = || format!("cannot read {}", path.display());
    let file: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(path).with_context(cannot)?)
    };
    let mut text = String::new();
    file.take(HELD_BYTES_MAX.saturating_add(1)).read_to_string(&mut text).with_context(cannot)?;
    if text.len() as u64 > HELD_BYTES_MAX {
        bail!("{} has more than {} MiB: {remedy}", path.display(), HELD_BYTES_MAX >> 20);
    }
    Ok(text)
}

async fn ask_usage(
    client: &AdminClient,
    text: String,
    UsageAsk { words, asked, .. }: &UsageAsk<'_>,
    mode: Mode,
) -> anyhow::Result<Value> {
    let query = query(&[
        ("dry_run", (mode == Mode::DryRun).then_some("true")),
        ("file", asked.name.as_deref()),
        ("from_format", words.from_format),
        ("team", words.team),
        ("workload", words.workload),
        ("provider", words.provider),
        ("from", words.from),
        ("to", words.to),
        ("tz", words.tz),
    ]);
    ask_import_of(client, &format!("/api/v1/import/usage{query}"), text).await
}

/// Asks a running sidecar to do what `path` says, or does it in the directory.
pub(super) fn write(
    place: &PlaceArgs,
    path: &str,
    here: impl FnOnce(&Ledger, &Prices) -> anyhow::Result<Value>,
) -> anyhow::Result<Value> {
    let local = tokio::task::LocalSet::new();
    local.block_on(&tasks::runtime()?, async {
        let dir = match source::choose(place.told()).await? {
            Chosen::Running(client) => {
                let (status, body) = client.post(path, Bytes::new()).await?;
                if status.is_success() {
                    return serde_json::from_slice(&body).context("the sidecar's answer is no document");
                }
                bail!("the sidecar answered {status}: {}", reason(&body));
            }
            Chosen::Dir(dir) => dir,
            Chosen::Opened(dir, ledger) => {
                // It was opened for reading, which keeps it from being opened for writing.
                drop(ledger);
                dir
            }
        };
        if !dir.join("journal").is_dir() {
            bail!("there is no ledger in {}: check the data directory", dir.display());
        }
        let ledger = open_here(&dir)?;
        let done = here(&ledger, &builtin()?)?;
        ledger.close()?;
        Ok(done)
    })
}

/// The prices of a command without a sidecar.
fn builtin() -> anyhow::Result<Prices> {
    let book = PriceBook::builtin().context("the built-in price book is damaged: this is a defect")?;
    Ok(Prices::new(book))
}

fn open_here(dir: &Path) -> anyhow::Result<Ledger> {
    open_with(dir, builtin()?)
}

fn open_with(dir: &Path, prices: Prices) -> anyhow::Result<Ledger> {
    let opened = Ledger::open(Options::new(dir), Arc::new(SystemClock), Arc::new(prices));
    let (ledger, _) = opened.with_context(|| {
        format!("cannot open the ledger in {} (a running sidecar is asked with --admin URL)", dir.display())
    })?;
    Ok(ledger.on_behalf_of(whoever_runs_this()))
}

/// Who changes a ledger by a command: a user of this machine. Of the command only its words are told.
fn whoever_runs_this() -> Actor {
    use std::os::unix::fs::MetadataExt;
    let user = std::fs::metadata("/proc/self").map(|about| format!("user {}", about.uid()));
    let is_word = |word: &String| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let words = std::env::args_os().skip(1).map_while(|word| word.into_string().ok());
    let words: Vec<String> =
        words.take_while(|word| is_word(word) && !word.starts_with('-')).take(2).collect();
    Actor {
        who: user.unwrap_or_else(|_| "an unknown user".to_owned()),
        via: "command line".to_owned(),
        what: format!("bursar {}", words.join(" ")),
        about: None,
    }
}

async fn ask_import(client: &AdminClient, file: File, mode: Mode) -> anyhow::Result<Value> {
    let dry = (mode == Mode::DryRun).then_some("true");
    let query = query(&[("dry_run", dry), ("file", file.name.as_deref())]);
    ask_import_of(client, &format!("/api/v1/import/{}{query}", file.what.name()), file.text).await
}

async fn ask_import_of(client: &AdminClient, path: &str, text: String) -> anyhow::Result<Value> {
    let (status, body) = client.post(path, Bytes::from(text)).await?;
    if status.is_success() || status == http::StatusCode::UNPROCESSABLE_ENTITY {
        return serde_json::from_slice(&body).context("the sidecar's answer is no document");
    }
    bail!("the sidecar answered {status}: {}", reason(&body));
}

fn import_here(dir: &Path, file: &File, mode: Mode) -> anyhow::Result<Value> {
    let ledger = open_here(dir)?;
    let imported = import::import(&ledger, file, mode, &SystemClock)?;
    ledger.close()?;
    Ok(import::document(file.what, &imported))
}

/// Reads a file; `-` is standard input.
pub(super) fn file(what: What, path: &Path) -> anyhow::Result<File> {
    let cannot = || format!("cannot read {}", path.display());
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin().lock()).with_context(cannot)?
    } else {
        std::fs::read_to_string(path).with_context(cannot)?
    };
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(File { what, name, text })
}

/// Says what an import did or would do; exit code 3 when a row is bad.
pub(super) fn tell(imported: &Value, mode: Mode) -> anyhow::Result<ExitCode> {
    use super::grid::{rows, text};
    use std::io::Write;
    let errors = rows(imported, "errors");
    for error in &errors {
        eprintln!("line {}: {}", text(error.get("line")), text(error.get("problem")));
    }
    if !errors.is_empty() {
        eprintln!(
            "bursar: {} bad rows of {}; nothing was imported",
            errors.len(),
            text(imported.get("rows"))
        );
        return Ok(ExitCode::from(3));
    }
    let mut out = std::io::stdout().lock();
    let count = |name| text(imported.get(name));
    writeln!(
        out,
        "{}: {} rows, {} new, {} restated, {} there already",
        count("what"),
        count("rows"),
        count("new"),
        count("restated"),
        count("same")
    )?;
    if let Some(format) = imported.get("format").and_then(Value::as_str) {
        let detected = imported.get("format_detected").and_then(Value::as_bool).unwrap_or(false);
        let how = if detected { "detected; say another with --from-format" } else { "as said" };
        writeln!(out, "format: {format} ({how})")?;
    }
    for (reason, count) in imported.get("left").and_then(Value::as_object).into_iter().flatten() {
        writeln!(out, "left out: {count}, {reason}")?;
    }
    for (code, amount) in imported.get("their_cost").and_then(Value::as_object).into_iter().flatten() {
        let format = text(imported.get("format"));
        writeln!(out, "cost by {format}: {} {code}, kept beside ours", text(Some(amount)))?;
    }
    for change in rows(imported, "changes") {
        let declared = change.get("line").is_none_or(Value::is_null);
        if declared {
            writeln!(
                out,
                "declared {} {}, fixed on weekdays (declare it with `bursar market index` if that is wrong)",
                text(change.get("kind")),
                text(change.get("name"))
            )?;
        } else if text(change.get("change")) == "restated" {
            writeln!(out, "restates {} {}", text(change.get("kind")), text(change.get("name")))?;
        }
    }
    let applied = imported.get("applied").and_then(Value::as_bool).unwrap_or(false);
    if mode == Mode::DryRun {
        writeln!(out, "nothing was written: this was a dry run")?;
    } else if applied {
        writeln!(out, "written up to sequence {}", count("sequence"))?;
    } else {
        writeln!(out, "nothing to write")?;
    }
    Ok(ExitCode::SUCCESS)
}
