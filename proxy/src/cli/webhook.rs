//! `bursar webhook`: trying webhooks.
//!
//! Invariant: of a webhook's URL only scheme, host and port are printed, of its secret nothing.
//!
//! Not here: when events are sent (`crate::webhooks`).

use super::fault::Fault;
use super::serve::load_config;
use crate::config::{Config, Overrides, Webhook};
use crate::failure::chain;
use crate::tasks;
use crate::upstream::{Connector, TlsSetup};
use crate::webhooks::try_once;
use anyhow::bail;
use bursar_domain::{Clock, SystemClock};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum WebhookCommand {
    /// Send a signed test event to each webhook of a configuration, once, and say what came of it.
    Test(TestArgs),
}

/// `bursar webhook test`
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Names of the webhooks [default: all].
    names: Vec<String>,
    /// Configuration file [env: BURSAR_CONFIG].
    #[arg(long, short)]
    config: Option<PathBuf>,
}

pub(super) fn run(command: &WebhookCommand) -> anyhow::Result<ExitCode> {
    match command {
        WebhookCommand::Test(args) => test(args),
    }
}

fn test(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let config = load_config(args.config.as_deref(), Overrides::default()).map_err(Fault::from)?;
    let chosen = chosen(&config, &args.names)?;
    let connector = Connector::Network(TlsSetup::load(config.upstream.ca_file.as_deref())?);
    let all_taken = tasks::runtime().map(|runtime| {
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let mut all_taken = true;
            for webhook in chosen {
                all_taken &= try_one(&connector, webhook).await;
            }
            all_taken
        })
    })?;
    if !all_taken {
        bail!("not every webhook took the test event");
    }
    Ok(ExitCode::SUCCESS)
}

fn chosen<'c>(config: &'c Config, names: &[String]) -> anyhow::Result<Vec<&'c Webhook>> {
    if config.webhooks.is_empty() {
        bail!("there is no webhook in the configuration: add one under webhooks");
    }
    let find = |name: &String| {
        let found = config.webhooks.iter().find(|webhook| webhook.name.as_str() == name);
        let known: Vec<&str> = config.webhooks.iter().map(|webhook| webhook.name.as_str()).collect();
        let unknown =
            || Fault::Usage(format!("there is no webhook {name:?}; there are: {}", known.join(", ")));
        Ok(found.ok_or_else(unknown)?)
    };
    if names.is_empty() { Ok(config.webhooks.iter().collect()) } else { names.iter().map(find).collect() }
}

/// Whether the receiver took the event.
async fn try_one(connector: &Connector, webhook: &Webhook) -> bool {
    match try_once(connector, webhook, SystemClock.now()).await {
        Ok(status) => {
            println!("{} ({}): taken, {status}", webhook.name, webhook.url);
            true
        }
        Err(error) => {
            println!("{} ({}): {}", webhook.name, webhook.url, chain(&error));
            false
        }
    }
}
