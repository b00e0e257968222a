//! The command line: what can be asked of `bursar`, and how it answers.
//!
//! Invariants
//! - Exit codes: 0 done, 1 failed, 2 wrong usage, 3 found a violation (`fault`).
//! - Results go to standard output; everything else to standard error.
//!
//! Not here: what the commands compute (`ledger::query`, `report`).

mod budget;
mod check;
mod client;
mod completions;
mod contract;
mod demo;
mod environment;
mod export;
mod fault;
mod focus;
mod grid;
mod hedge;
mod import;
mod inject;
mod key;
mod ledger;
mod man;
mod market;
mod page;
mod period;
mod place;
mod price;
mod reconcile;
mod revenue;
mod roi;
mod serve;
mod ship;
mod slips;
mod source;
mod usage;
mod version;
mod webhook;
mod whole;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;

/// What exit codes mean, for the help.
const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed; 2 wrong usage, on the command line; 3 what was examined breaks its \
                          rules: a configuration (also when `serve` reads it), a price file, imported rows, a provider's \
                          statement that is not explained.";

/// The sidecar that knows what your tokens cost and what they earn.
#[derive(Debug, Parser)]
#[command(name = "bursar", version = crate::built::LINE, about, propagate_version = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sidecar: proxy, ledger and admin API.
    Serve(ServeArgs),
    /// See a report of return from an hour of invented traffic; nothing needs to be set up.
    Demo(demo::DemoArgs),
    /// Check the configuration and report every mistake at once.
    Check(CheckArgs),
    /// Show what each team and workload used and what it cost.
    Usage(UsageArgs),
    /// Show, compare and import prices, and price past usage anew.
    #[command(subcommand)]
    Price(price::PriceCommand),
    /// Import usage, contract positions, market data and revenue from files: all rows, or none.
    #[command(subcommand)]
    Import(import::ImportCommand),
    /// Enter, list and follow contract positions.
    #[command(subcommand)]
    Contract(contract::ContractCommand),
    /// Fixings, exchange rates, indices, calendars and conversion profiles.
    #[command(subcommand)]
    Market(market::MarketCommand),
    /// What hedges did to cost.
    #[command(subcommand)]
    Hedge(hedge::HedgeCommand),
    /// Show what tokens cost and earned: return, margin and net per token by team or any other key.
    Roi(roi::RoiArgs),
    /// Close months, and show what was reported.
    #[command(subcommand)]
    Period(period::PeriodCommand),
    /// Set a provider's usage and costs against what was booked, and explain the gap.
    Reconcile(reconcile::ReconcileArgs),
    /// Import and list revenue events.
    #[command(subcommand)]
    Revenue(revenue::RevenueCommand),
    /// Write records to a file or to standard output.
    #[command(subcommand)]
    Export(ExportCommand),
    /// Show what each budget has spent, reserved and left, and change limits for a time.
    Budget(budget::BudgetArgs),
    /// Explain why a request was refused.
    Why(WhyArgs),
    /// Make and list virtual keys.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Try webhooks.
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
    /// Check and copy the ledger.
    #[command(subcommand)]
    Ledger(ledger::LedgerCommand),
    /// Put sidecars into pods of Kubernetes as they are made: a mutating admission webhook.
    Inject(inject::InjectArgs),
    /// Show what this program was built from: commit, toolchain, formats, prices.
    Version(version::VersionArgs),
    /// Write completions for a shell.
    Completions(completions::CompletionsArgs),
    /// Write manual pages.
    Man(man::ManArgs),
}

/// Which sidecar to ask.
#[derive(Debug, Args)]
pub(crate) struct AdminArgs {
    /// Base URL of the running sidecar's admin API [env: BURSAR_ADMIN] [default: where `serve` has it].
    #[arg(long)]
    admin: Option<String>,
    /// File with the admin API's bearer token [env: BURSAR_ADMIN_TOKEN_FILE].
    #[arg(long)]
    admin_token_file: Option<PathBuf>,
}

/// `bursar why`
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// The request's id, from the reply's x-bursar-request-id.
    id: String,
    #[command(flatten)]
    ask: AdminArgs,
    /// Print the whole answer as JSON.
    #[arg(long)]
    json: bool,
}

/// `bursar serve`
#[derive(Clone, Debug, Args)]
pub(crate) struct ServeArgs {
    /// Configuration file (YAML) [env: BURSAR_CONFIG]; without one, built-in routes to the public
    /// providers are served.
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// Address of the proxy [default: 127.0.0.1:4141].
    #[arg(long)]
    listen: Option<String>,
    /// Address of the admin API, health and metrics [default: 127.0.0.1:4142].
    #[arg(long)]
    admin_listen: Option<String>,
    /// Directory of the ledger [env: BURSAR_DATA_DIR] [default: ./bursar-data].
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// `bursar check`
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Configuration file to check [env: BURSAR_CONFIG].
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// Also print every setting and route with the value in force; secrets are left out.
    #[arg(long)]
    show: bool,
}

/// Where a reading command looks, and for which time.
#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    /// Start, inclusive: a date, a time (RFC 3339), or an age such as 24h or 7d.
    #[arg(long)]
    from: Option<String>,
    /// End, exclusive; written like --from.
    #[arg(long)]
    to: Option<String>,
    /// Time zone for dates and days (IANA name such as Europe/Paris).
    #[arg(long, default_value = "UTC")]
    tz: String,
    /// Base URL of a running sidecar's admin API [env: BURSAR_ADMIN] [default: the address that `serve`
    /// would use, if one answers there].
    #[arg(long, conflicts_with = "data_dir")]
    admin: Option<String>,
    /// File with the admin API's bearer token [env: BURSAR_ADMIN_TOKEN_FILE].
    #[arg(long)]
    admin_token_file: Option<PathBuf>,
    /// Read this ledger directory instead, whatever the environment says; no sidecar may be using it
    /// [env: BURSAR_DATA_DIR].
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// `bursar usage`
#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    #[command(flatten)]
    read: ReadArgs,
    /// Group by these keys: team, workload, customer, session, tag:NAME, provider, model,
    /// model_requested, route, api, tier, outcome, source, hour, day, month.
    #[arg(long, default_value = "team,workload")]
    by: String,
    /// Show how many records have which anomaly, by provider.
    #[arg(long, conflicts_with = "by")]
    anomalies: bool,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TableFormat {
    /// Columns for people.
    Table,
    /// One JSON document.
    Json,
    /// Comma-separated values with a header line.
    Csv,
}

#[derive(Debug, Subcommand)]
enum ExportCommand {
    /// Every usage record, one per line.
    Usage(ExportUsageArgs),
    /// Usage and contracts as FOCUS 1.4 (FinOps Open Cost and Usage Specification).
    Focus(focus::FocusArgs),
}

/// `bursar export usage`
#[derive(Debug, Args)]
pub(crate) struct ExportUsageArgs {
    #[command(flatten)]
    read: ReadArgs,
    /// Form of the records.
    #[arg(long, value_enum, default_value_t = RecordFormat::Jsonl)]
    format: RecordFormat,
    /// Of one month, in the days in which months are closed: reported (what was there when it was closed; in
    /// the first open month also what came late) or restated (all that is there) [default: restated].
    #[arg(long = "as", value_name = "VIEW")]
    view: Option<String>,
    /// File to write; it appears only when complete, with its checksum beside it (FILE.sha256). Without
    /// it, standard output.
    #[arg(long, short)]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RecordFormat {
    /// One JSON object per line.
    Jsonl,
    /// Comma-separated values with a header line.
    Csv,
    /// Parquet: typed columns, exact decimals, compressed with zstd.
    Parquet,
}

impl RecordFormat {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }
}

/// Runs the command line and returns the exit code.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(mut error) => {
            let arguments: Vec<String> =
                std::env::args_os().skip(1).filter_map(|argument| argument.into_string().ok()).collect();
            slips::suggest(&mut error, &Cli::command(), &arguments);
            let code = if error.use_stderr() { 2 } else { 0 };
            // A closed pipe is all that can go wrong here, and then nobody is reading.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let result = match &cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Check(args) => check::run(args),
        Command::Usage(args) => usage::run(args),
        Command::Price(command) => price::run(command),
        Command::Import(command) => import::run(command),
        Command::Contract(command) => contract::run(command),
        Command::Market(command) => market::run(command),
        Command::Hedge(command) => hedge::run(command),
        Command::Roi(args) => roi::run(args),
        Command::Period(command) => period::run(command),
        Command::Reconcile(args) => reconcile::run(args),
        Command::Revenue(command) => revenue::run(command),
        Command::Export(ExportCommand::Usage(args)) => export::run(args),
        Command::Export(ExportCommand::Focus(args)) => focus::run(args),
        Command::Budget(args) => budget::run(args),
        Command::Why(args) => budget::why(args),
        Command::Key(command) => key::run(command),
        Command::Webhook(command) => webhook::run(command),
        Command::Ledger(command) => ledger::run(command),
        Command::Inject(args) => inject::run(args),
        Command::Version(args) => version::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bursar: {error:#}");
            fault::exit_code(&error)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
