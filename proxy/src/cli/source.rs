//! Where a reading command finds the ledger: a running sidecar, or a directory nobody uses.
//!
//! Invariants
//! - Options win over the environment, and that over the configuration: the same variables and the same
//!   file tell `serve` where to be and these commands where to look.
//! - Nothing is guessed silently: the answer says where it came from when that was chosen for the user.
//!
//! Not here: what is read (`report`).

use super::client::AdminClient;
use super::fault::Fault;
use super::{AdminArgs, ReadArgs, environment, serve};
use crate::config::Whereabouts;
use anyhow::bail;
use bursar_ledger::{DirectoryError, OfflineLedger, OpenError};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Where to read.
#[derive(Debug)]
pub(super) enum Source {
    /// Ask this sidecar.
    Running(AdminClient),
    /// Read this directory.
    Offline(Box<OfflineLedger>),
}

/// A sidecar to ask, or a directory.
#[derive(Debug)]
pub(super) enum Chosen {
    /// This sidecar.
    Running(AdminClient),
    /// This directory, which may have no ledger yet.
    Dir(PathBuf),
    /// This directory, whose ledger was opened to see whether it is free.
    Opened(PathBuf, Box<OfflineLedger>),
}

/// What the command line says about the place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    /// `--admin`
    pub(super) admin: Option<&'a str>,
    /// `--admin-token-file`
    pub(super) token_file: Option<&'a Path>,
    /// `--data-dir`
    pub(super) data_dir: Option<&'a Path>,
}

/// Where to read, by the options.
pub(super) async fn find(args: &ReadArgs) -> anyhow::Result<Source> {
    read(Told {
        admin: args.admin.as_deref(),
        token_file: args.admin_token_file.as_deref(),
        data_dir: args.data_dir.as_deref(),
    })
    .await
}

/// Where to read.
pub(super) async fn read(told: Told<'_>) -> anyhow::Result<Source> {
    match choose(told).await? {
        Chosen::Running(client) => Ok(Source::Running(client)),
        Chosen::Dir(dir) => told_offline(&dir),
        Chosen::Opened(_, ledger) => Ok(Source::Offline(Box::new(told_of_tail(*ledger)))),
    }
}

/// Chooses: `--data-dir`, `--admin`, `BURSAR_ADMIN`, then what the environment and the configuration
/// tell `serve`. A directory that they name is read unless its sidecar has it open; otherwise the admin
/// address is asked if somebody listens there, and then the directory is read.
pub(super) async fn choose(told: Told<'_>) -> anyhow::Result<Chosen> {
    if let Some(dir) = told.data_dir {
        return Ok(Chosen::Dir(dir.to_owned()));
    }
    let token_file = || {
        let variable = || environment::variable("BURSAR_ADMIN_TOKEN_FILE").map(PathBuf::from);
        told.token_file.map(Path::to_owned).or_else(variable)
    };
    if let Some(base) = told.admin {
        return Ok(Chosen::Running(AdminClient::new(base, "--admin", token_file().as_deref())?));
    }
    if let Some(base) = environment::variable("BURSAR_ADMIN") {
        let said = "environment BURSAR_ADMIN:";
        return Ok(Chosen::Running(AdminClient::new(&base, said, token_file().as_deref())?));
    }
    let found = serve::whereabouts().map_err(Fault::from)?;
    let token_file = token_file().or_else(|| found.token_file.clone());
    let client = || AdminClient::new(&base_url(&found), "admin.listen", token_file.as_deref());
    by_settings(&found, client).await
}

/// The sidecar to ask for what only a running one knows.
pub(super) fn sidecar(args: &AdminArgs) -> anyhow::Result<AdminClient> {
    let variable = || environment::variable("BURSAR_ADMIN_TOKEN_FILE").map(PathBuf::from);
    let token_file = args.admin_token_file.clone().or_else(variable);
    if let Some(base) = &args.admin {
        return AdminClient::new(base, "--admin", token_file.as_deref());
    }
    if let Some(base) = environment::variable("BURSAR_ADMIN") {
        return AdminClient::new(&base, "environment BURSAR_ADMIN:", token_file.as_deref());
    }
    let found = serve::whereabouts().map_err(Fault::from)?;
    let token_file = token_file.or(found.token_file.clone());
    AdminClient::new(&base_url(&found), "admin.listen", token_file.as_deref())
}

async fn by_settings(
    found: &Whereabouts,
    client: impl Fn() -> anyhow::Result<AdminClient>,
) -> anyhow::Result<Chosen> {
    let dir = &found.ledger;
    if found.ledger_is_told && !found.admin_is_told {
        return match OfflineLedger::open(dir) {
            Ok(ledger) => {
                eprintln!("bursar: reading the ledger in {}", dir.display());
                Ok(Chosen::Opened(dir.clone(), Box::new(ledger)))
            }
            Err(OpenError::Directory(DirectoryError::NoLedger { .. })) => Ok(Chosen::Dir(dir.clone())),
            Err(error) if is_in_use(&error) => {
                let client = client()?;
                if client.answers().await { Ok(Chosen::Running(client)) } else { Err(unreadable(error, dir)) }
            }
            Err(error) => Err(unreadable(error, dir)),
        };
    }
    if found.admin.port() != 0 {
        let client = client()?;
        if client.answers().await {
            return Ok(Chosen::Running(client));
        }
    }
    if !dir.exists() {
        bail!(
            "no sidecar answers at {} and there is no {}: name one with --admin URL, or a ledger directory \
             with --data-dir DIR",
            base_url(found),
            dir.display()
        );
    }
    Ok(Chosen::Dir(dir.clone()))
}

/// Where to ask the sidecar that these settings describe.
fn base_url(found: &Whereabouts) -> String {
    let scheme = if found.admin_has_tls { "https" } else { "http" };
    format!("{scheme}://{}", reachable(found.admin))
}

/// An address for all interfaces is asked on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn told_offline(dir: &Path) -> anyhow::Result<Source> {
    let ledger = OfflineLedger::open(dir).map_err(|error| unreadable(error, dir))?;
    Ok(Source::Offline(Box::new(told_of_tail(ledger))))
}

fn told_of_tail(ledger: OfflineLedger) -> OfflineLedger {
    if let Some(tail) = ledger.torn_tail() {
        eprintln!("bursar: the journal's end was torn by a crash and is left out: {tail:?}");
    }
    ledger
}

fn is_in_use(error: &OpenError) -> bool {
    matches!(error, OpenError::Directory(DirectoryError::InUse { .. }))
}

fn unreadable(error: OpenError, dir: &Path) -> anyhow::Error {
    anyhow::Error::new(error).context(format!(
        "cannot read the ledger in {} (ask a running sidecar with --admin URL)",
        dir.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_all_interfaces_is_asked_on_loopback() {
        for (listens, asked) in [
            ("0.0.0.0:4142", "127.0.0.1:4142"),
            ("[::]:9", "[::1]:9"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("10.0.0.7:2", "10.0.0.7:2"),
        ] {
            assert_eq!(reachable(listens.parse().unwrap()).to_string(), asked);
        }
    }
}
