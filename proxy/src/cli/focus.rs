//! `bursar export focus`: usage and contracts as FOCUS 1.4.
//!
//! Not here: the rows (`ledger::focus`), options and formats (`focus`).

use super::place::{self, PlaceArgs};
use super::source::Source;
use super::whole::{self, Progress};
use crate::focus::{self, Dataset, Options};
use bursar_domain::{Clock, SystemClock};
use bursar_ledger::export::TableFormat;
use clap::{Args, ValueEnum};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// `bursar export focus`
#[derive(Debug, Args)]
pub(crate) struct FocusArgs {
    /// Which dataset.
    #[arg(long, value_enum, default_value_t = DatasetName::CostAndUsage)]
    dataset: DatasetName,
    /// Form of the rows.
    #[arg(long, value_enum, default_value_t = FocusFormat::Csv)]
    format: FocusFormat,
    /// First day, in UTC [default: the first of the month].
    #[arg(long)]
    from: Option<String>,
    /// First day outside [default: the day after --on].
    #[arg(long)]
    to: Option<String>,
    /// Custom columns to tell rows apart by: team, workload, customer, session, tag:NAME.
    #[arg(long, default_value = "team,workload")]
    by: String,
    /// Reporting currency [default: USD].
    #[arg(long)]
    currency: Option<String>,
    /// Hedge unit of the book: Mtok or MSIT [default: Mtok].
    #[arg(long)]
    unit: Option<String>,
    /// The last day that counts [default: today, and yesterday when there are contracts].
    #[arg(long)]
    on: Option<String>,
    /// With the fixings and rates that were known at this time [default: now].
    #[arg(long)]
    as_of: Option<String>,
    /// Of one month: reported (as it was closed; late facts as corrections in the first open month) or
    /// restated (with everything that is known) [default: restated].
    #[arg(long = "as", value_name = "VIEW")]
    view: Option<String>,
    /// BillingAccountId: the account as the invoice issuer knows it [default: the ledger's id].
    #[arg(long, value_name = "ID")]
    billing_account: Option<String>,
    /// File to write; it appears only when complete, with its checksum beside it (FILE.sha256). Without
    /// it, standard output.
    #[arg(long, short)]
    output: Option<PathBuf>,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DatasetName {
    /// Charges: usage by the hour and price, contracts and hedges.
    CostAndUsage,
    /// Terms of contracts with providers.
    ContractCommitment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FocusFormat {
    /// Comma-separated values with a header line.
    Csv,
    /// Parquet: typed columns, exact decimals, compressed with zstd.
    Parquet,
}

impl DatasetName {
    const fn dataset(self) -> Dataset {
        match self {
            Self::CostAndUsage => Dataset::CostAndUsage,
            Self::ContractCommitment => Dataset::ContractCommitment,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::CostAndUsage => "cost-and-usage",
            Self::ContractCommitment => "contract-commitment",
        }
    }
}

/// Writes the dataset.
pub(super) fn run(args: &FocusArgs) -> anyhow::Result<ExitCode> {
    let parquet = args.format == FocusFormat::Parquet;
    whole::export(args.output.as_deref(), parquet, |out, progress| write(args, out, progress))
}

fn write(args: &FocusArgs, out: &mut dyn Write, progress: &Progress) -> anyhow::Result<()> {
    let options = Options {
        from: args.from.clone(),
        to: args.to.clone(),
        by: Some(args.by.clone()),
        unit: args.unit.clone(),
        currency: args.currency.clone(),
        on: args.on.clone(),
        as_of: args.as_of.clone(),
        billing_account: args.billing_account.clone(),
        format: None,
        view: args.view.clone(),
    };
    let local = tokio::task::LocalSet::new();
    local.block_on(&crate::tasks::runtime()?, async {
        match place::source(&args.place).await? {
            Source::Running(client) => {
                let format = if args.format == FocusFormat::Parquet { "parquet" } else { "csv" };
                let query = place::query(&[
                    ("format", Some(format)),
                    ("from", options.from.as_deref()),
                    ("to", options.to.as_deref()),
                    ("by", options.by.as_deref()),
                    ("unit", options.unit.as_deref()),
                    ("currency", options.currency.as_deref()),
                    ("on", options.on.as_deref()),
                    ("as_of", options.as_of.as_deref()),
                    ("billing_account", options.billing_account.as_deref()),
                    ("as", options.view.as_deref()),
                ]);
                let path = format!("/api/v1/focus/{}{query}", args.dataset.name());
                client.get(&path, &mut progress.of_bytes(out)).await
            }
            Source::Offline(ledger) => {
                let format = match args.format {
                    FocusFormat::Csv => TableFormat::Csv,
                    FocusFormat::Parquet => TableFormat::PARQUET,
                };
                let account = ledger.id().to_string();
                let asked = (args.dataset.dataset(), &options, account.as_str());
                let notes = place::priced(ledger.as_ref(), |source| {
                    let seen = &mut |count| progress.rows(count);
                    Ok(focus::write(source, asked, format, SystemClock.now(), out, seen)?)
                })?;
                for note in focus::words(&notes) {
                    eprintln!("bursar: {note}");
                }
                Ok(())
            }
        }
    })
}
