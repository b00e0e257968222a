//! `bursar key`: making, hashing and listing virtual keys.
//!
//! Invariants
//! - A key is printed once, when it is made, on standard output alone; it is never read from an argument.
//! - A list shows no hashes.
//!
//! Not here: what a key is (`credentials::keys`).

use super::TableFormat;
use super::fault::Fault;
use super::grid::{self, column};
use super::serve::load_config;
use crate::config::{Overrides, read_secret_text};
use crate::credentials::admin::{Scope, TokenHash, new_token};
use crate::credentials::keys::{KeyId, NewKey, Pepper, PresentedKey};
use crate::credentials::listed::listed;
use anyhow::{Context, bail};
use bursar_domain::{Clock, Label, SystemClock};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key. Standard output gets the key, once; standard error what belongs into the configuration.
    New(NewArgs),
    /// Read a key from standard input and print what belongs into the configuration.
    Hash(HashArgs),
    /// List the keys of a configuration: what each is for, and whether it is valid now.
    List(ListArgs),
    /// Make a token for the admin API. Standard output gets the token, once; standard error what belongs
    /// into the configuration.
    Token(TokenArgs),
}

/// `bursar key token`
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// Its name, which audit facts tell.
    #[arg(long, default_value = "NAME")]
    name: String,
    /// What it is for; may be said several times.
    #[arg(long = "scope", value_enum, required = true)]
    scopes: Vec<TokenScope>,
    /// Print one JSON document with token and hash instead.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenScope {
    /// Reading.
    Read,
    /// Bringing in usage, market data, contracts and revenue.
    Ingest,
    /// Everything.
    Admin,
}

impl TokenScope {
    const fn name(self) -> &'static str {
        match self {
            Self::Read => Scope::Read.name(),
            Self::Ingest => Scope::Ingest.name(),
            Self::Admin => Scope::Admin.name(),
        }
    }
}

/// `bursar key new`
#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// The id of a key that gets a new secret (rotation) [default: a new one].
    #[arg(long)]
    id: Option<String>,
    /// File with the pepper, as identity.key_pepper_file names it.
    #[arg(long)]
    pepper_file: Option<PathBuf>,
    /// Print one JSON document with key, id and hash instead.
    #[arg(long)]
    json: bool,
}

/// `bursar key hash`
#[derive(Debug, Args)]
pub(crate) struct HashArgs {
    /// File with the pepper, as identity.key_pepper_file names it.
    #[arg(long)]
    pepper_file: Option<PathBuf>,
}

/// `bursar key list`
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Configuration file [env: BURSAR_CONFIG].
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    format: TableFormat,
}

/// Longest input of `key hash`.
const INPUT_BYTES_MAX: u64 = 1_024;

pub(super) fn run(command: &KeyCommand) -> anyhow::Result<ExitCode> {
    match command {
        KeyCommand::New(args) => new(args),
        KeyCommand::Hash(args) => hash(args),
        KeyCommand::List(args) => list(args),
        KeyCommand::Token(args) => token(args),
    }
}

fn token(args: &TokenArgs) -> anyhow::Result<ExitCode> {
    let Ok(name) = Label::new(&args.name) else {
        bail!(Fault::Usage("--name: write up to 256 bytes of visible characters".to_owned()))
    };
    let token = new_token().context("the system has no random numbers")?;
    let hash = TokenHash::of(token.as_bytes()).to_string();
    let scopes: Vec<&str> = args.scopes.iter().map(|scope| scope.name()).collect();
    let mut out = std::io::stdout().lock();
    if args.json {
        let document = json!({ "token": token, "name": name.as_str(), "scopes": scopes, "hash": hash });
        writeln!(out, "{document:#}")?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "{token}")?;
    eprintln!("# The line above is the token; it is shown once. Under admin.tokens in the configuration:");
    eprintln!("  - {{ name: {:?}, scopes: [{}], hash: '{hash}' }}", name.as_str(), scopes.join(", "));
    Ok(ExitCode::SUCCESS)
}

fn new(args: &NewArgs) -> anyhow::Result<ExitCode> {
    let id = match &args.id {
        None => None,
        Some(text) => match KeyId::parse(text) {
            Some(id) => Some(id),
            None => bail!(Fault::Usage("--id: write the 16 hexadecimal digits of an id".to_owned())),
        },
    };
    let pepper = pepper(args.pepper_file.as_deref())?;
    let new = NewKey::make(id).context("the system has no random numbers")?;
    let Some(key) = PresentedKey::parse(new.expose().as_bytes()) else { bail!("no key could be made") };
    let (id, hash) = (key.id(), key.hash(&pepper));
    let mut out = std::io::stdout().lock();
    if args.json {
        let document = json!({ "key": new.expose(), "id": id.as_str(), "hash": hash.to_string() });
        writeln!(out, "{document:#}")?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "{}", new.expose())?;
    eprintln!("# The line above is the key; it is shown once. Under keys in the configuration:");
    eprintln!("  - {{ name: NAME, id: {id}, hash: '{hash}', team: TEAM }}");
    Ok(ExitCode::SUCCESS)
}

fn hash(args: &HashArgs) -> anyhow::Result<ExitCode> {
    let pepper = pepper(args.pepper_file.as_deref())?;
    let mut text = String::new();
    let input = std::io::stdin().lock().take(INPUT_BYTES_MAX).read_to_string(&mut text);
    input.context("cannot read a key from standard input")?;
    let Some(key) = PresentedKey::parse(text.trim().as_bytes()) else {
        bail!("standard input holds no key: a key is bursar_, 16 hexadecimal digits, _, and 64 of them");
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "id: {}\nhash: '{}'", key.id(), key.hash(&pepper))?;
    Ok(ExitCode::SUCCESS)
}

fn pepper(file: Option<&Path>) -> anyhow::Result<Pepper> {
    let Some(file) = file else { return Ok(Pepper::default()) };
    let text = read_secret_text(file);
    let text = text.map_err(|what| anyhow::anyhow!("--pepper-file {}: {what}", file.display()))?;
    match text.expose().trim() {
        "" => bail!("--pepper-file {}: the file is empty", file.display()),
        text => Ok(Pepper::new(text)),
    }
}

fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let config = load_config(args.config.as_deref(), Overrides::default()).map_err(Fault::from)?;
    let now = SystemClock.now();
    let rows: Vec<Value> = config.keys.iter().map(|key| listed(key, now)).collect();
    let mut out = std::io::stdout().lock();
    if rows.is_empty() && args.format == TableFormat::Table {
        writeln!(out, "no keys are configured")?;
        return Ok(ExitCode::SUCCESS);
    }
    let columns = [
        ("Key", "name"),
        ("Id", "id"),
        ("State", "state"),
        ("Team", "team"),
        ("Workload", "workload"),
        ("Customer", "customer"),
        ("Routes", "routes"),
        ("Models", "models"),
        ("Providers", "providers"),
        ("From", "not_before"),
        ("Expires", "expires"),
        ("Former secret until", "previous_expires"),
    ]
    .map(|(title, path)| column(title, path));
    let document = json!({ "keys": rows });
    grid::write(&document, (&grid::rows(&document, "keys"), &columns), args.format, &mut out)?;
    Ok(ExitCode::SUCCESS)
}
