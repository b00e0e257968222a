//! `bursar ledger`: verify, figures, backup and restore, pruning, salvage, the trial balance, who changed it.
//!
//! Invariants
//! - `verify` ends with 3 when the ledger is not what it should be, `repair` when anything is gone.
//! - `stats --alive` ends with 0 whenever a sidecar answers; `stats --ready` only when its `/readyz` says so. Neither
//!   counts against the rate of requests, as `stats` does.
//!
//! Not here: the work itself (`bursar_ledger`).

use super::fault::Fault;
use super::grid::{self, column, text};
use super::place::{self, PlaceArgs};
use super::{AdminArgs, TableFormat, serve, ship, source};
use crate::tasks;
use crate::{audit, prune, trial};
use anyhow::Context;
use bursar_domain::{Clock, SystemClock, Timestamp};
use bursar_ledger::{Repaired, Shipper, StoreCheck, Verified, VerifyError, backup, repair, restore, verify};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(super) enum LedgerCommand {
    /// Walk the whole chain and recompute every total; exits with 3 if anything is wrong.
    Verify(VerifyArgs),
    /// Show the ledger's figures in a running sidecar.
    Stats(StatsArgs),
    /// Copy the ledger, which may be in use, to a new directory; or bring a copy up to date, once or every so
    /// often.
    Backup(BackupArgs),
    /// Make a data directory from a backup.
    Restore(RestoreArgs),
    /// Roll old records up into hourly totals, and give their room back.
    Prune(PruneArgs),
    /// Add all double-entry postings up: accounts with their debit or credit; exits with 3 if they do not
    /// sum to zero.
    TrialBalance(TrialArgs),
    /// List who changed the ledger, when and by what.
    Audit(AuditArgs),
    /// Get what is whole out of a damaged ledger, into a new one; exits with 3 if anything is gone.
    Repair(RepairArgs),
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
    /// Only ask whether the sidecar serves (`/readyz`), for probes: ends with 1 while it drains, and while its
    /// ledger cannot record and `ledger.fail` is `closed`.
    #[arg(long)]
    ready: bool,
    /// Only ask whether the process answers (`/healthz`), for probes.
    #[arg(long, conflicts_with = "ready")]
    alive: bool,
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
    #[arg(required_unless_present = "to", conflicts_with = "to")]
    target: Option<PathBuf>,
    /// Bring the copy in a directory below this one up to date, which has the ledger's id as its name: only what
    /// is new is copied.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Do so again and again, such as every 5m, and a last time when told to end.
    #[arg(long, value_name = "SPAN", requires = "to", value_parser = ship::span)]
    every: Option<Duration>,
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

/// `bursar ledger prune`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("age").required(true).args(["before", "detail"]))]
pub(super) struct PruneArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Give up whole segments of records that began, and were written, before this time, at least 35 days
    /// ago: 2026-08-01, 2026-08-01T09:00:00Z, or an age such as 90d.
    #[arg(long)]
    before: Option<String>,
    /// Keep records for so many days, such as 90d; at least 35d.
    #[arg(long)]
    detail: Option<String>,
    /// Only say what would be given up.
    #[arg(long)]
    dry_run: bool,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
}

/// `bursar ledger trial-balance`
#[derive(Debug, Args)]
pub(super) struct TrialArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Usage that began, and revenue that happened, at or after this: a day such as 2026-10-01, or a time.
    /// Contracts are in it if both ends are days.
    #[arg(long)]
    from: Option<String>,
    /// And before this.
    #[arg(long)]
    to: Option<String>,
    /// Time zone of the days [default: UTC].
    #[arg(long)]
    tz: Option<String>,
    /// Currency of contracts' amounts [default: USD].
    #[arg(long)]
    currency: Option<String>,
    /// How it is printed.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
}

/// `bursar ledger audit`
#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Changes at or after this: a day, a time, or an age such as 7d.
    #[arg(long)]
    from: Option<String>,
    /// And before this.
    #[arg(long)]
    to: Option<String>,
    /// Time zone of the days [default: UTC].
    #[arg(long)]
    tz: Option<String>,
    /// Only changes of this token or user.
    #[arg(long)]
    who: Option<String>,
    /// How it is printed.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
}

/// `bursar ledger repair`
#[derive(Debug, Args)]
pub(super) struct RepairArgs {
    /// Directory of the damaged ledger, which is only read [default: where `serve` has it].
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Directory to make. It appears only when complete.
    target: PathBuf,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(command: &LedgerCommand) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match command {
        LedgerCommand::Verify(args) => verify_ledger(args, &mut out),
        LedgerCommand::Stats(args) => write_stats(args, &mut out),
        LedgerCommand::Backup(args) => {
            drop(out);
            back_up(args)
        }
        LedgerCommand::Repair(args) => {
            let dir = data_dir(args.data_dir.as_ref())?;
            let found = repair(&dir, &args.target, &SystemClock)?;
            if args.json {
                writeln!(out, "{:#}", repaired_json(&found))?;
            } else {
                write_repaired(&found, &mut out)?;
            }
            Ok(ExitCode::from(if found.has_lost() { 3 } else { 0 }))
        }
        LedgerCommand::TrialBalance(args) => write_trial(args, &mut out),
        LedgerCommand::Prune(args) => prune_ledger(args, &mut out),
        LedgerCommand::Audit(args) => write_audit(args, &mut out),
        LedgerCommand::Restore(args) => {
            let (copied, verified) = restore(&args.from, &data_dir(args.data_dir.as_ref())?)?;
            let (path, records) = (copied.path.display(), verified.records);
            writeln!(out, "verified and restored {records} records to {path}")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn write_stats(args: &StatsArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let client = source::sidecar(&args.ask)?;
    let path = match (args.ready, args.alive) {
        (true, _) => "/readyz",
        (_, true) => "/healthz",
        _ => "/api/v1/ledger/stats",
    };
    let mut body = Vec::new();
    tokio::task::LocalSet::new().block_on(&tasks::runtime()?, client.get(path, &mut body))?;
    if args.ready || args.alive {
        out.write_all(&body)?;
    } else {
        let stats: Value = serde_json::from_slice(&body).context("the sidecar's answer is no JSON")?;
        writeln!(out, "{stats:#}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn back_up(args: &BackupArgs) -> anyhow::Result<ExitCode> {
    let dir = data_dir(args.data_dir.as_ref())?;
    let (path, last_sequence, bytes) = match (&args.to, &args.target) {
        (Some(to), _) => {
            if let Some(every) = args.every {
                return ship::run(&dir, to, every);
            }
            let shipped = Shipper::new(&dir, to).ship()?;
            let shipped = shipped.with_context(|| format!("there is no ledger in {}", dir.display()))?;
            if let Some((aside, why)) = &shipped.set_aside {
                eprintln!(
                    "bursar: the copy there could not be continued ({why}): it is now {}",
                    aside.display()
                );
            }
            (shipped.path, shipped.last_sequence, shipped.bytes)
        }
        (None, Some(target)) => {
            let copied = backup(&dir, target)?;
            (copied.path, copied.last_sequence, copied.bytes)
        }
        (None, None) => anyhow::bail!("name the directory to make, or one to bring up to date with --to"),
    };
    println!("copied up to sequence {last_sequence} to {} ({bytes} bytes)", path.display());
    Ok(ExitCode::SUCCESS)
}

fn prune_ledger(args: &PruneArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let options =
        prune::Options { before: args.before.clone(), detail: args.detail.clone(), dry_run: args.dry_run };
    let dry = args.dry_run.then_some("true");
    let query = [("before", args.before.as_deref()), ("detail", args.detail.as_deref()), ("dry_run", dry)];
    let path = format!("/api/v1/ledger/prune{}", place::query(&query));
    let done =
        place::write(&args.place, &path, |ledger, _| Ok(prune::prune(ledger, &options, SystemClock.now())?))?;
    if args.json {
        writeln!(out, "{done:#}")?;
    } else {
        prune::write(&done, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_trial(args: &TrialArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let options = trial::Options {
        from: args.from.clone(),
        to: args.to.clone(),
        tz: args.tz.clone(),
        currency: args.currency.clone(),
    };
    let query = [
        ("from", args.from.as_deref()),
        ("to", args.to.as_deref()),
        ("tz", args.tz.as_deref()),
        ("currency", args.currency.as_deref()),
    ];
    let path = format!("/api/v1/ledger/trial-balance{}", place::query(&query));
    let found =
        place::read(&args.place, &path, |source| trial::document(source, &options, SystemClock.now()))?;
    let columns =
        [("Account", "account"), ("Currency", "currency"), ("Debit", "debit"), ("Credit", "credit")];
    let columns = columns.map(|(title, path)| column(title, path));
    grid::write(&found, (&grid::rows(&found, "rows"), &columns), args.format, out)?;
    if args.format == TableFormat::Table {
        for total in grid::rows(&found, "totals") {
            let part = |name| text(total.get(name));
            writeln!(out, "{}: debit {}, credit {}", part("currency"), part("debit"), part("credit"))?;
        }
        if let Some(remedy) = found.get("contracts_left_out").and_then(Value::as_str) {
            writeln!(out, "contracts are left out: {remedy}")?;
        }
        writeln!(out, "{} requests have no complete price", text(found.get("unpriced_requests")))?;
    }
    let is_balanced = found.get("balanced").and_then(Value::as_bool).unwrap_or(false);
    Ok(ExitCode::from(if is_balanced { 0 } else { 3 }))
}

fn write_audit(args: &AuditArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let AuditArgs { from, to, tz, who, .. } = args;
    let options = audit::Options { from: from.clone(), to: to.clone(), tz: tz.clone(), who: who.clone() };
    let query =
        [("from", from.as_deref()), ("to", to.as_deref()), ("tz", tz.as_deref()), ("who", who.as_deref())];
    let path = format!("/api/v1/audit{}", place::query(&query));
    let found =
        place::read(&args.place, &path, |source| audit::document(source, &options, SystemClock.now()))?;
    let columns = [
        ("Sequence", "sequence"),
        ("At", "at"),
        ("Who", "who"),
        ("Via", "via"),
        ("What", "what"),
        ("About", "about"),
        ("Names", "names"),
    ];
    let columns = columns.map(|(title, path)| column(title, path));
    grid::write(&found, (&grid::rows(&found, "rows"), &columns), args.format, out)?;
    Ok(ExitCode::SUCCESS)
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
    if found.rolled > 0 {
        writeln!(out, "{} of the usage records are kept as hourly totals only", found.rolled)?;
    }
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
        "rolled": found.rolled,
        "reservations": found.reservations,
        "open": found.open,
        "facts": found.facts,
        "hash": found.hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        "torn_tail": found.torn_tail.as_ref().map(|tail| tail.first_sequence),
        "store": store_text(&found.store),
    })
}

fn time(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| jiff::Timestamp::from_microsecond(at.micros()).unwrap_or_default().to_string())
}

fn write_repaired(found: &Repaired, out: &mut dyn Write) -> anyhow::Result<()> {
    let from = found.from.map_or_else(|| "an unknown ledger".to_owned(), |id| format!("ledger {id}"));
    writeln!(
        out,
        "{} records and {} finance facts of {from} are in {} (ledger {}), which verifies",
        found.verified.records,
        found.verified.facts,
        found.path.display(),
        found.verified.ledger
    )?;
    for broken in &found.breaks {
        let sequence = broken.sequence.map(|sequence| format!(", sequence {sequence}")).unwrap_or_default();
        writeln!(
            out,
            "the chain broke in segment {:08} at byte {}{sequence}: {}",
            broken.segment, broken.offset, broken.what
        )?;
    }
    for gap in &found.gaps {
        let last = gap.last_sequence.map_or_else(|| "the end".to_owned(), |last| last.to_string());
        let side = |at| time(at).unwrap_or_else(|| "unknown".to_owned());
        writeln!(
            out,
            "gone: sequences {} to {last}, of requests between {} and {}",
            gap.first_sequence,
            side(gap.after),
            side(gap.before)
        )?;
    }
    if found.more_gaps > 0 {
        writeln!(out, "gone: {} more ranges", found.more_gaps)?;
    }
    if found.repeated > 0 {
        writeln!(out, "{} records were there twice and are there once", found.repeated)?;
    }
    if found.count_now > 0 {
        writeln!(
            out,
            "{} records count now, because the one that counted is gone; their cost is unknown",
            found.count_now
        )?;
    }
    if !found.has_lost() {
        writeln!(out, "nothing is gone")?;
    }
    Ok(())
}

fn repaired_json(found: &Repaired) -> Value {
    let gaps = found.gaps.iter().map(|gap| {
        json!({
            "first_sequence": gap.first_sequence,
            "last_sequence": gap.last_sequence,
            "after": time(gap.after),
            "before": time(gap.before),
        })
    });
    let breaks = found.breaks.iter().map(|broken| {
        json!({
            "segment": broken.segment,
            "offset": broken.offset,
            "sequence": broken.sequence,
            "what": broken.what,
        })
    });
    json!({
        "from": found.from.map(|id| id.to_string()),
        "path": found.path.display().to_string(),
        "ledger": found.verified.ledger.to_string(),
        "records": found.verified.records,
        "facts": found.verified.facts,
        "repeated": found.repeated,
        "count_now": found.count_now,
        "lost": found.has_lost(),
        "gone": gaps.collect::<Vec<_>>(),
        "more_gone": found.more_gaps,
        "breaks": breaks.collect::<Vec<_>>(),
    })
}
