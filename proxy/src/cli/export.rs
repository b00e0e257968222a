//! `bursar export usage`: every record, to a file that appears only when complete, or to a pipe.

use super::source::{self, Source};
use super::{ExportUsageArgs, RecordFormat};
use crate::period::{self, Period};
use crate::report::{self, RecordsAs};
use crate::tasks;
use anyhow::Context;
use bursar_domain::{Clock, SystemClock};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

/// Writes the records.
pub(super) fn run(args: &ExportUsageArgs) -> anyhow::Result<ExitCode> {
    let read = &args.read;
    let period = period::parse(
        read.from.as_deref(),
        read.to.as_deref(),
        &read.tz,
        SystemClock.now(),
        period::OPTIONS,
    )?;
    let written = match &args.output {
        None => {
            let mut out = BufWriter::new(std::io::stdout().lock());
            write(args, &period, &mut out)?;
            out.flush()?;
            None
        }
        Some(path) => Some(write_file(args, &period, path)?),
    };
    if let Some(bytes) = written {
        eprintln!("bursar: {bytes} bytes written");
    }
    Ok(ExitCode::SUCCESS)
}

fn write_file(args: &ExportUsageArgs, period: &Period, path: &Path) -> anyhow::Result<u64> {
    whole_file(path, |out| write(args, period, out))
}

/// Writes beside the file and renames it into place, so that nobody reads half an export.
pub(super) fn whole_file(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?;
    let mut partial = std::ffi::OsString::from(".");
    partial.push(name);
    partial.push(".partial");
    let partial = path.with_file_name(partial);
    let result = (|| {
        let file = std::fs::File::create(&partial)?;
        let mut out = BufWriter::new(file);
        write(&mut out)?;
        out.flush()?;
        out.get_ref().sync_all()?;
        let bytes = out.get_ref().metadata()?.len();
        std::fs::rename(&partial, path)?;
        anyhow::Ok(bytes)
    })();
    if result.is_err() {
        // What is there is not whole; if it cannot be removed its name still says so.
        let _ = std::fs::remove_file(&partial);
    }
    result.with_context(|| format!("cannot write {}", path.display()))
}

fn write(args: &ExportUsageArgs, period: &Period, out: &mut dyn Write) -> anyhow::Result<()> {
    let local = tokio::task::LocalSet::new();
    local.block_on(&tasks::runtime()?, async {
        match source::find(&args.read).await? {
            Source::Running(client) => {
                let path = format!("/api/v1/usage/records?format={}{}", args.format.name(), query(args));
                client.get(&path, out).await
            }
            Source::Offline(ledger) => {
                let format = match args.format {
                    RecordFormat::Jsonl => RecordsAs::Jsonl,
                    RecordFormat::Csv => RecordsAs::Csv,
                };
                let records = ledger.records(report::range(period));
                Ok(report::write_records(records, format, out)?)
            }
        }
    })
}

fn query(args: &ExportUsageArgs) -> String {
    super::usage::period_query(&args.read)
}
