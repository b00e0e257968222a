//! `bursar inject`: the admission webhook that puts sidecars into pods.
//!
//! Invariants
//! - What cannot work is said before anything listens.
//! - Reviews are taken in plain HTTP on loopback only, and only when it was asked for. Metrics are always
//!   plain: they name no pod.
//! - It needs no rights in the cluster: it answers, and asks nobody.
//!
//! Not here: what becomes of a pod, and the listeners (`crate::inject`).

use super::environment;
use super::fault::Fault;
use crate::config::{Config, LogFormat, Overrides, Sources};
use crate::inject::{Certificates, Injector, Listeners, Settings, Told, serve};
use crate::listen::{self, Sharing};
use crate::tasks;
use crate::telemetry::logging;
use anyhow::Context;
use clap::Args;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Largest file of settings.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// `bursar inject`
#[derive(Clone, Debug, Args)]
pub(crate) struct InjectArgs {
    /// Address of the webhook.
    #[arg(long, default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// Address of /metrics (and of /healthz and /readyz), in plain HTTP; without it there are no metrics.
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
    /// PEM file with the certificate, and those that vouch for it; read again when it changes.
    #[arg(long, value_name = "FILE", default_value = "/run/secrets/bursar-inject/tls.crt")]
    tls_cert: PathBuf,
    /// PEM file with the key of the certificate; read again when it changes.
    #[arg(long, value_name = "FILE", default_value = "/run/secrets/bursar-inject/tls.key")]
    tls_key: PathBuf,
    /// Speak plain HTTP, without a certificate; on loopback only, to try it.
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key"])]
    insecure_http: bool,
    /// Image of the sidecars; wins over `image` in the file.
    #[arg(long)]
    image: Option<String>,
    /// File (YAML) that says what sidecars are like: ConfigMap, Secret, volume, resources, base URLs and so on
    /// (docs/guide/injection.md lists its keys).
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Answers reviews until it is told to stop.
pub(super) fn run(args: &InjectArgs) -> anyhow::Result<ExitCode> {
    let settings = settings(args)?;
    let certificates = certificates(args)?;
    let level = environment::variable("BURSAR_LOG").unwrap_or_else(|| "info".to_owned());
    logging::start(&level, LogFormat::Auto);
    for doubt in doubts(&settings) {
        tracing::warn!("a sidecar would not start with these settings (env): {doubt}");
    }
    let reviews = listener(args.listen, "--listen")?;
    let metrics = args.metrics_listen.map(|address| listener(address, "--metrics-listen")).transpose()?;
    tokio::task::LocalSet::new().block_on(&tasks::runtime()?, async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (end, ending) = watch::channel(false);
        let has_tls = certificates.is_some();
        let listeners = Listeners {
            reviews: TcpListener::from_std(reviews)?,
            metrics: metrics.map(TcpListener::from_std).transpose()?,
        };
        let address = listeners.reviews.local_addr()?;
        let metrics = listeners.metrics.as_ref().map(TcpListener::local_addr).transpose()?;
        let metrics = metrics.map(tracing::field::display);
        let pid = std::process::id();
        tracing::info!(listen = %address, tls = has_tls, metrics, pid, "bursar injects");
        let serving = serve(Injector::new(settings, certificates, ending), listeners);
        let told_to_end = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("ending: finishing answers under way");
            end.send_replace(true);
        };
        tokio::join!(serving, told_to_end);
        tracing::info!("bursar has ended");
        Ok(ExitCode::SUCCESS)
    })
}

/// A socket that listens on `address`, as `option` has it.
fn listener(address: SocketAddr, option: &str) -> anyhow::Result<std::net::TcpListener> {
    let cannot = || format!("cannot listen on {address} ({option}): is another process using it?");
    let bound = listen::bind(address, Sharing::Alone).and_then(listen::Bound::listen).with_context(cannot)?;
    Ok(bound.into_socket())
}

/// What the command line and its file say.
fn settings(args: &InjectArgs) -> anyhow::Result<Settings> {
    let file = args.config.as_deref().map(text_of).transpose()?;
    let has_file = file.is_some();
    Ok(Settings::read(Told { image: args.image.clone(), file }).map_err(|errors| {
        let said = errors.to_string();
        if has_file { Fault::Violation(said) } else { Fault::Usage(said) }
    })?)
}

fn text_of(path: &Path) -> anyhow::Result<String> {
    use std::io::Read;
    let cannot = || format!("cannot read {} (--config)", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).with_context(cannot)?;
    file.take(FILE_BYTES_MAX.saturating_add(1)).read_to_string(&mut text).with_context(cannot)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        anyhow::bail!("{} has more than {FILE_BYTES_MAX} bytes: is it the right file?", path.display());
    }
    Ok(text)
}

fn certificates(args: &InjectArgs) -> anyhow::Result<Option<Certificates>> {
    if !args.insecure_http {
        return Ok(Some(Certificates::open(&args.tls_cert, &args.tls_key)?));
    }
    if args.listen.ip().to_canonical().is_loopback() {
        return Ok(None);
    }
    let said = format!(
        "--insecure-http: {} is not a loopback address; listen on 127.0.0.1, or give a certificate with --tls-cert \
         and --tls-key",
        args.listen
    );
    Err(Fault::Usage(said).into())
}

/// What a sidecar's own configuration would say to the settings.
fn doubts(settings: &Settings) -> Vec<String> {
    let variables = settings.variables_to_check();
    let found = Config::load(Sources {
        file: None,
        text: None,
        env: &|name| variables.get(name).cloned(),
        env_names: variables.keys().cloned().collect(),
        overrides: Overrides::default(),
    });
    match found {
        Ok(config) => config.warnings,
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}
