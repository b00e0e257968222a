//! Sending spans, log records and metrics to OpenTelemetry collectors, on a thread of its own.
//!
//! Invariants
//! - Nobody waits for a collector: what finds no room in the outbox, and what was tried often enough, is
//!   dropped and counted.
//! - Each kind is sent by itself, so a collector that is slow with one holds up no other.
//! - At the end what waits is sent, for a bounded time.
//!
//! | File | Owns |
//! |---|---|
//! | `messages.rs` | what is said |
//! | `wire.rs` | its bytes |
//! | `client.rs` | the connection |
//! | `page.rs` | our own metrics, read back from their page |

mod client;
mod messages;
mod page;
mod wire;

use super::event::Event;
use super::outbox::Outbox;
use super::target;
use crate::admin;
use crate::app::App;
use crate::config::{Batches, Target};
use crate::process;
use crate::tasks;
use crate::upstream::{Connector, TlsSetup, TlsSetupError};
use client::{Channel, ExportError};
use messages::About;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often a message is sent at most, and how long to wait before the second time; then twice as long.
const TRIES_MAX: u32 = 4;
const WAIT: Duration = Duration::from_millis(500);
/// Longest time for what waits at the end.
const LAST: Duration = Duration::from_secs(3);

/// Why telemetry cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A collector's certificates cannot be used.
    #[error("cannot set up TLS to a collector (OTEL_EXPORTER_OTLP_CERTIFICATE)")]
    Tls(#[from] TlsSetupError),
    /// No thread could be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

/// The thread that sends.
#[derive(Debug)]
pub struct Exporter {
    end: watch::Sender<bool>,
    thread: std::thread::JoinHandle<()>,
}

impl Exporter {
    /// Sends what waits, for some seconds at most. To be called after the last exchange was settled.
    pub fn end(self) {
        self.end.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("the thread that sends telemetry ended in a panic");
        }
    }
}

/// Starts to send what the configuration says, if anything.
///
/// # Errors
/// Certificates that cannot be used; a thread that cannot be started.
pub fn start(app: &Arc<App>, tls: &TlsSetup) -> Result<Option<Exporter>, StartError> {
    let Some(config) = app.config().telemetry.otlp.clone() else { return Ok(None) };
    let tls_to = |target: &Target| match &target.certificate {
        Some(path) => TlsSetup::load(Some(path)),
        None => Ok(tls.clone()),
    };
    let with_tls = |target: &Option<Target>| {
        target.as_ref().map(|target| Ok::<_, TlsSetupError>((target.clone(), tls_to(target)?))).transpose()
    };
    let (traces, metrics, logs) =
        (with_tls(&config.traces)?, with_tls(&config.metrics)?, with_tls(&config.logs)?);
    app.telemetry.spans.set_read(traces.is_some());
    app.telemetry.logs.set_read(logs.is_some());
    let about = Arc::new(About { resource: target::resource(app), started_at: app.now() });
    let (sender, end) = watch::channel(false);
    let app = Arc::clone(app);
    let thread = tasks::thread("otlp".to_owned(), move || async move {
        let channel = |target: Option<(Target, TlsSetup)>, method: &str| {
            target.map(|(target, tls)| Channel::new(target, method, Connector::Network(tls)))
        };
        let telemetry = &app.telemetry;
        let traces = Stream {
            name: "traces",
            channel: channel(traces, "/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
            outbox: &telemetry.spans,
            batches: config.spans,
            end: end.clone(),
            health: Health::default(),
        };
        let logs = Stream {
            name: "logs",
            channel: channel(logs, "/opentelemetry.proto.collector.logs.v1.LogsService/Export"),
            outbox: &telemetry.logs,
            batches: config.log_records,
            end: end.clone(),
            health: Health::default(),
        };
        let metrics = channel(metrics, "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export");
        tokio::join!(
            traces.run(|events| about.spans(events)),
            logs.run(|events| about.logs(events)),
            send_metrics(&app, metrics, &about, config.metric_interval, end),
        );
    });
    Ok(Some(Exporter { end: sender, thread: thread.map_err(StartError::Thread)? }))
}

/// Says once when a collector stops taking, and once when it takes again.
#[derive(Debug, Default)]
struct Health {
    fails: bool,
}

impl Health {
    fn note(&mut self, signal: &str, collector: &str, failed: Option<&ExportError>) {
        match (failed, self.fails) {
            (Some(error), false) => {
                let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
                tracing::warn!(signal, collector, %error, source, "telemetry cannot be sent and is dropped");
            }
            (None, true) => tracing::info!(signal, collector, "telemetry is sent again"),
            (Some(_), true) | (None, false) => {}
        }
        self.fails = failed.is_some();
    }
}

/// Spans or log records on their way.
struct Stream<'a> {
    name: &'static str,
    channel: Option<Channel>,
    outbox: &'a Outbox<Arc<Event>>,
    batches: Batches,
    end: watch::Receiver<bool>,
    health: Health,
}

impl Stream<'_> {
    async fn run(mut self, encode: impl Fn(&[Arc<Event>]) -> Vec<u8>) {
        let Some(mut channel) = self.channel.take() else { return };
        while !*self.end.borrow() {
            let outbox = self.outbox;
            tokio::select! {
                () = outbox.filled() => {}
                _ = self.end.wait_for(|end| *end) => break,
            }
            tokio::select! {
                () = tokio::time::sleep(self.batches.delay) => {}
                _ = self.end.wait_for(|end| *end) => break,
            }
            while !*self.end.borrow() && self.outbox.len() > 0 {
                let batch = self.outbox.take(self.batches.items_max);
                self.send(&mut channel, &encode(&batch), batch.len()).await;
            }
        }
        self.outbox.set_read(false);
        let last = async {
            while self.outbox.len() > 0 {
                let batch = self.outbox.take(self.batches.items_max);
                self.send(&mut channel, &encode(&batch), batch.len()).await;
            }
        };
        // What is under way when the time is over is lost with the rest.
        if tokio::time::timeout(LAST, last).await.is_err() {
            tracing::warn!(signal = self.name, "some telemetry could not be sent before the end");
        }
    }

    async fn send(&mut self, channel: &mut Channel, message: &[u8], items: usize) {
        let time = self.batches.export_time;
        let sent = match tokio::time::timeout(time, self.tries(channel, message)).await {
            Ok(sent) => sent,
            Err(_) => {
                channel.disconnect();
                Err(ExportError::TimedOut(time))
            }
        };
        self.health.note(self.name, &channel.authority(), sent.as_ref().err());
        self.outbox.drop_entries(sent.unwrap_or(items).min(items));
    }

    async fn tries(&mut self, channel: &mut Channel, message: &[u8]) -> Result<usize, ExportError> {
        let (mut tries, mut wait) = (1_u32, WAIT);
        loop {
            let sent = channel.export(message.to_vec()).await;
            match &sent {
                Err(error) if error.may_pass_later() && tries < TRIES_MAX && !*self.end.borrow() => {}
                _ => return sent,
            }
            tries = tries.saturating_add(1);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // One more time then, and no more.
                _ = self.end.wait_for(|end| *end) => {}
            }
            wait = wait.saturating_mul(2);
        }
    }
}

/// Sends all metrics, again and again. What did not arrive is in the next message too.
async fn send_metrics(
    app: &App,
    channel: Option<Channel>,
    about: &About,
    every: Duration,
    mut end: watch::Receiver<bool>,
) {
    let Some(mut channel) = channel else { return };
    let mut health = Health::default();
    loop {
        let is_last = tokio::select! {
            () = tokio::time::sleep(every) => false,
            _ = end.wait_for(|end| *end) => true,
        };
        let own =
            [admin::rule_metrics(app), app.telemetry.own_page(), process::page(app.started_at())].concat();
        let own = app.metrics.page_with(&app.ledger.stats(), &own);
        let message = about.metrics(&app.telemetry.snapshot(), &page::families(&own), app.now());
        let export = channel.export(message);
        let sent = if is_last {
            tokio::time::timeout(LAST, export).await.unwrap_or(Err(ExportError::TimedOut(LAST)))
        } else {
            export.await
        };
        health.note("metrics", &channel.authority(), sent.as_ref().err());
        if !matches!(sent, Ok(0)) {
            app.telemetry.metrics_lost();
        }
        if is_last {
            return;
        }
    }
}
