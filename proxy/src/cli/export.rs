//! `bursar export usage`: every record, to a file that appears only when complete, or to a pipe.
//!
//! Not here: where files come to be (`whole`), FOCUS (`focus`).

use super::source::{self, Source};
use super::whole::{self, Progress};
use super::{ExportUsageArgs, RecordFormat};
use crate::period::{self, Period};
use crate::report::{self, RecordsAs};
use crate::tasks;
use bursar_domain::{Clock, SystemClock};
use bursar_ledger::export::TableFormat;
use std::io::Write;
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
    whole::export(args.output.as_deref(), args.format == RecordFormat::Parquet, |out, progress| {
        write(args, &period, out, progress)
    })
}

fn write(
    args: &ExportUsageArgs,
    period: &Period,
    out: &mut dyn Write,
    progress: &Progress,
) -> anyhow::Result<()> {
    let local = tokio::task::LocalSet::new();
    local.block_on(&tasks::runtime()?, async {
        match source::find(&args.read).await? {
            Source::Running(client) => {
                let view = super::place::query(&[("as", args.view.as_deref())]).replace('?', "&");
                let path =
                    format!("/api/v1/usage/records?format={}{}{view}", args.format.name(), query(args));
                client.get(&path, &mut progress.of_bytes(out)).await
            }
            Source::Offline(ledger) => {
                let format = match args.format {
                    RecordFormat::Jsonl => RecordsAs::Jsonl,
                    RecordFormat::Csv => RecordsAs::Csv,
                    RecordFormat::Parquet => RecordsAs::Table(TableFormat::PARQUET),
                };
                let days = (args.read.from.as_deref(), args.read.to.as_deref());
                let ranges =
                    report::ranges(ledger.as_ref(), args.view.as_deref(), days, period, SystemClock.now())?;
                let records = ranges.into_iter().flat_map(|(range, last)| ledger.records(range).up_to(last));
                report::write_records(records, format, out, &mut |count| progress.rows(count))?;
                Ok(())
            }
        }
    })
}

fn query(args: &ExportUsageArgs) -> String {
    super::usage::period_query(&args.read)
}
