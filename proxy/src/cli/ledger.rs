//! `bursar ledger`: verify, figures, backup and restore.
//!
//! Invariants
//! - `verify` ends with 3 when the ledger is not what it should be.
//!
//! Not here: the work itself (`bursar_ledger`).

use super::fault::Fault;
use super::{AdminArgs, serve, source};
use crate::tasks;
use anyhow::Context;
use bursar_ledger::{StoreCheck, Verified, VerifyError, backup, restore, verify};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(super) enum LedgerCommand {
    /// Walk the whole chain and recompute every total; exits with 3 if anything is wrong.
    Verify(VerifyArgs),
    /// Show the ledger's figures in a running sidecar.
    Stats(StatsArgs),
    /// Copy the ledger, which may be in use, to a new directory.
    Backup(BackupArgs),
    /// Make a data directory from a backup.
    Restore(RestoreArgs),
}

/// `bursar ledger verify`
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Directory of the ledger [default: where `serve` has it]; no sidecar may be using it: verify a
    /// backup instead.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

/// `bursar ledger stats`
#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    #[command(flatten)]
    ask: AdminArgs,
}

/// `bursar ledger backup`
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// Directory of the ledger [default: where `serve` has it].
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Directory to make. It appears only when complete.
    target: PathBuf,
}

/// `bursar ledger restore`
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The backup.
    from: PathBuf,
    /// Data directory to make [default: where `serve` has it].
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn run(command: &LedgerCommand) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match command {
        LedgerCommand::Verify(args) => verify_ledger(args, &mut out),
        LedgerCommand::Stats(args) => {
            let client = source::sidecar(&args.ask)?;
            let local = tokio::task::LocalSet::new();
            let stats: Value = local.block_on(&tasks::runtime()?, async {
                let mut body = Vec::new();
                client.get("/api/v1/ledger/stats", &mut body).await?;
                serde_json::from_slice(&body).context("the sidecar's answer is no JSON")
            })?;
            writeln!(out, "{stats:#}")?;
            Ok(ExitCode::SUCCESS)
        }
        LedgerCommand::Backup(args) => {
            let copied = backup(&data_dir(args.data_dir.as_ref())?, &args.target)?;
            let (path, bytes) = (copied.path.display(), copied.bytes);
            writeln!(out, "copied up to sequence {} to {path} ({bytes} bytes)", copied.last_sequence)?;
            Ok(ExitCode::SUCCESS)
        }
        LedgerCommand::Restore(args) => {
            let (copied, verified) = restore(&args.from, &data_dir(args.data_dir.as_ref())?)?;
            let (path, records) = (copied.path.display(), verified.records);
            writeln!(out, "verified and restored {records} records to {path}")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn data_dir(told: Option<&PathBuf>) -> anyhow::Result<PathBuf> {
    match told {
        Some(dir) => Ok(dir.clone()),
        None => Ok(serve::whereabouts().map_err(Fault::from)?.ledger),
    }
}

fn verify_ledger(args: &VerifyArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    match verify(&data_dir(args.data_dir.as_ref())?) {
        Ok(found) => {
            if args.json {
                writeln!(out, "{:#}", verified_json(&found))?;
            } else {
                write_verified(&found, out)?;
            }
            let is_wrong = matches!(found.store, StoreCheck::Differs { .. });
            Ok(ExitCode::from(if is_wrong { 3 } else { 0 }))
        }
        Err(VerifyError::Open(error @ bursar_ledger::OpenError::Directory(_))) => Err(error.into()),
        Err(error) => {
            let error = anyhow::Error::from(error);
            if args.json {
                writeln!(out, "{:#}", json!({ "verified": false, "error": format!("{error:#}") }))?;
            }
            eprintln!("bursar: the ledger is not what it should be: {error:#}");
            Ok(ExitCode::from(3))
        }
    }
}

fn store_text(store: &StoreCheck) -> String {
    match store {
        StoreCheck::Agrees => "agrees with the journal".to_owned(),
        StoreCheck::Behind { watermark } => {
            format!("has the journal up to sequence {watermark}; the next start adds the rest")
        }
        StoreCheck::Differs { reason } => format!("differs and will be built anew: {reason}"),
        StoreCheck::Missing => "is not there; the next start makes it".to_owned(),
    }
}

fn write_verified(found: &Verified, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "ledger {}: the chain holds", found.ledger)?;
    writeln!(
        out,
        "{} usage records, {} finance facts, {} reservations, {} of them open",
        found.records, found.facts, found.reservations, found.open
    )?;
    writeln!(out, "the embedded database {}", store_text(&found.store))?;
    if let Some(tail) = &found.torn_tail {
        writeln!(out, "the end was torn by a crash and will be cut: {tail:?}")?;
    }
    Ok(())
}

fn verified_json(found: &Verified) -> Value {
    json!({
        "verified": !matches!(found.store, StoreCheck::Differs { .. }),
        "ledger": found.ledger.to_string(),
        "records": found.records,
        "reservations": found.reservations,
        "open": found.open,
        "facts": found.facts,
        "hash": found.hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        "torn_tail": found.torn_tail.as_ref().map(|tail| tail.first_sequence),
        "store": store_text(&found.store),
    })
}
