//! Where a reading command finds the ledger: a running sidecar, or a directory nobody uses.
//!
//! Invariants
//! - Nothing is guessed silently: the answer says where it came from when that was chosen for the user.
//!
//! Not here: what is read (`report`).

use super::ReadArgs;
use super::client::AdminClient;
use anyhow::{Context, bail};
use bursar_ledger::OfflineLedger;
use std::path::{Path, PathBuf};

const DEFAULT_ADMIN: &str = "http://127.0.0.1:4142";
const DEFAULT_DATA_DIR: &str = "./bursar-data";

/// Where to read.
#[derive(Debug)]
pub(super) enum Source {
    /// Ask this sidecar.
    Running(AdminClient),
    /// Read this directory.
    Offline(Box<OfflineLedger>),
}

/// Chooses by the options: `--data-dir`, `--admin`, the usual admin address if somebody listens
/// there, the usual directory.
pub(super) async fn find(args: &ReadArgs) -> anyhow::Result<Source> {
    if let Some(dir) = &args.data_dir {
        return offline(dir);
    }
    let client = |base: &str| AdminClient::new(base, args.admin_token_file.as_deref());
    if let Some(base) = &args.admin {
        return Ok(Source::Running(client(base)?));
    }
    let usual = client(DEFAULT_ADMIN)?;
    if usual.answers().await {
        return Ok(Source::Running(usual));
    }
    let dir = PathBuf::from(DEFAULT_DATA_DIR);
    if !dir.exists() {
        bail!(
            "no sidecar answers at {DEFAULT_ADMIN} and there is no {DEFAULT_DATA_DIR}: \
             name one with --admin URL, or a ledger directory with --data-dir DIR"
        );
    }
    offline(&dir)
}

fn offline(dir: &Path) -> anyhow::Result<Source> {
    let ledger = OfflineLedger::open(dir).with_context(|| {
        format!("cannot read the ledger in {} (ask a running sidecar with --admin URL)", dir.display())
    })?;
    if let Some(tail) = ledger.torn_tail() {
        eprintln!("bursar: the journal's end was torn by a crash and is left out: {tail:?}");
    }
    Ok(Source::Offline(Box::new(ledger)))
}
