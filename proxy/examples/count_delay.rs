//! Measures what counting tokens does to the time between the chunks of 64 streams: a whole sidecar on
//! loopback, a provider that never tells usage, and two routes that differ in `count` alone, in turns
//! within one run.
//!
//! `cargo run --release -p bursar --example count_delay [-- BYTES]`, where BYTES is the text of a chunk:
//! 24 unless told, as models send it. With 100 each stream is long enough that blocks of it are counted
//! while it runs.
//!
//! Not here: assertions on time; no test may depend on it. The cost of a chunk alone: `count_rate`.

use anyhow::{Context, ensure};
use bursar::app::{App, Prices};
use bursar::budgets::Budgets;
use bursar::config::{Config, Sources};
use bursar::listen::{Sharing, Shutdown, Workers, bind};
use bursar::tasks;
use bursar::telemetry::Telemetry;
use bursar::upstream::TlsSetup;
use bursar_domain::SystemClock;
use bursar_ledger::{Ledger, Options};
use bursar_policies::price::PriceBook;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

const STREAMS: usize = 64;
/// Chunks of each of the places in which streams run side by side: a short stream and a long one, so that
/// streams end, and are counted, all the time.
const CHUNKS: usize = 400;
const CHUNK_GAP: Duration = Duration::from_millis(5);
/// Rounds of each route; the first pair warms up and is left out.
const ROUNDS: usize = 7;

const ROUTES: [(&str, &str); 2] = [("/off", "off"), ("/on", "auto")];

const TEXT_BYTES: usize = 24;

/// What the chunks are cut from: insides of JSON strings without escapes, in ASCII.
const TEXTS: [&str; 4] = [
    "The writer prices the record, appends a group of records to the journal, and syncs it to the disk; ",
    "if let Some(frame) = self.frames.get_mut(self.depth) { frame.items = frame.items.saturating_add(1) } ",
    "Die Rechnung vom 3. April lautet auf 1.234,56 EUR; davon entfallen 87,20 EUR auf den Zwischenspeicher ",
    "[17, 'bolt', 550e8400-e29b-41d4-a716-446655440000, true, 0.61803, 'https://example.test/a/b?c=d', null] ",
];

/// What the clients of one route saw.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Between a chunk and the next of its stream, in microseconds.
    gaps: Vec<u64>,
    /// From the provider's writing to the client's reading, in microseconds.
    delays: Vec<u64>,
}

fn main() -> anyhow::Result<()> {
    let text_bytes = match std::env::args().nth(1) {
        Some(text) => text.parse().context("the argument is the number of bytes of a chunk's text")?,
        None => TEXT_BYTES,
    };
    let dir = tempfile::tempdir()?;
    let epoch = Instant::now();
    let provider = std::net::TcpListener::bind("127.0.0.1:0")?;
    provider.set_nonblocking(true)?;
    let upstream = provider.local_addr()?;
    tasks::thread("provider".to_owned(), move || serve(provider, text_bytes, epoch))?;

    let app = app(upstream, dir.path())?;
    let listener = bind("127.0.0.1:0".parse()?, Sharing::Alone)?.listen()?;
    let sidecar = listener.local_addr()?;
    let (shutdown, state) = watch::channel(Shutdown::No);
    let workers = Workers::start(&app, &listener, &TlsSetup::load(None)?, &state)?;
    drop(listener);

    let mut seen: [Vec<Seen>; 2] = [Vec::new(), Vec::new()];
    let runtime = tasks::runtime()?;
    for round in 0..ROUNDS {
        // First the one, then the other: what drifts meets both alike.
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for at in order {
            let (Some((prefix, _)), Some(seen)) = (ROUTES.get(at), seen.get_mut(at)) else { continue };
            let local = tokio::task::LocalSet::new();
            let found = local.block_on(&runtime, streams(sidecar, prefix, epoch))?;
            if round > 0 {
                seen.push(found);
            }
        }
    }

    shutdown.send_replace(Shutdown::Now);
    workers.join();
    app.counting.finish();
    report(&seen, text_bytes);
    let page = app.metrics.page(&app.ledger.stats());
    println!("\nwhat the sidecar recorded:");
    for line in page.lines().filter(|line| line.starts_with("bursar_usage_source") || line.contains("shed")) {
        println!("  {line}");
    }
    app.ledger.clone().close()?;
    Ok(())
}

fn app(upstream: SocketAddr, dir: &std::path::Path) -> anyhow::Result<Arc<App>> {
    let mut text = "builtin_routes: false\nserver: { workers: 1 }\nroutes:\n".to_owned();
    for (prefix, count) in ROUTES {
        text.push_str(&format!(
            "  - {{ prefix: {prefix}, upstream: 'http://{upstream}', provider: openai, include_usage: false, count: {count} }}\n"
        ));
    }
    let config = Config::load(Sources { text: Some(text), env: &|_| None, ..Sources::none() })
        .map_err(|errors| anyhow::anyhow!("{errors}"))?;
    let prices = Arc::new(Prices::new(PriceBook::builtin()?));
    let clock = Arc::new(SystemClock);
    let (ledger, _) = Ledger::open(Options::new(&dir.join("ledger")), clock.clone(), prices.clone())?;
    let telemetry = Telemetry::new(&config.telemetry);
    Ok(App::new(config, ledger, prices, Arc::new(Budgets::new(Vec::new())), telemetry, clock))
}

// === the provider ===

async fn serve(listener: std::net::TcpListener, text_bytes: usize, epoch: Instant) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    while let Ok((socket, _)) = listener.accept().await {
        tasks::start(async move {
            // A client that has left ends its stream.
            drop(answer(socket, text_bytes, epoch).await);
        });
    }
}

/// Answers one request with a stream that tells no usage and when each chunk was written.
async fn answer(mut socket: TcpStream, text_bytes: usize, epoch: Instant) -> anyhow::Result<()> {
    socket.set_nodelay(true)?;
    let chunks = read_request(&mut socket).await?;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    socket.write_all(head.as_bytes()).await?;
    let mut ticks = tokio::time::interval(CHUNK_GAP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut letters = TEXTS.iter().flat_map(|text| text.chars()).cycle();
    for _ in 0..chunks {
        ticks.tick().await;
        let text: String = letters.by_ref().take(text_bytes).collect();
        let now = epoch.elapsed().as_micros();
        let event = format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}],\"sent\":{now}}}\n\n"
        );
        socket.write_all(event.as_bytes()).await?;
    }
    let end = "data: {\"id\":\"chatcmpl-1\",\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    socket.write_all(end.as_bytes()).await?;
    Ok(())
}

/// Reads a request; how many chunks it asks for.
async fn read_request(socket: &mut TcpStream) -> anyhow::Result<usize> {
    let mut request = Vec::new();
    loop {
        ensure!(socket.read_buf(&mut request).await? > 0, "the request ended early");
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, value)| value.trim().parse().ok())
            .unwrap_or(0);
        if body.len() >= length {
            let (_, asked) = head.split_once("?chunks=").context("the request names no chunks")?;
            let digits: String = asked.chars().take_while(char::is_ascii_digit).collect();
            return Ok(digits.parse()?);
        }
    }
}

// === the clients ===

/// Runs all streams of a round at once, begun evenly over one gap.
async fn streams(sidecar: SocketAddr, prefix: &'static str, epoch: Instant) -> anyhow::Result<Seen> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(STREAMS);
    for number in 0..STREAMS {
        let sender = sender.clone();
        let wait = CHUNK_GAP * u32::try_from(number)? / u32::try_from(STREAMS)?;
        tasks::start(async move {
            tokio::time::sleep(wait).await;
            let short = CHUNKS * number / STREAMS;
            for chunks in [short, CHUNKS - short] {
                drop(sender.send(stream(sidecar, prefix, chunks, epoch).await).await);
            }
        });
    }
    drop(sender);
    let mut all = Seen::default();
    while let Some(seen) = receiver.recv().await {
        let seen = seen?;
        all.gaps.extend(seen.gaps);
        all.delays.extend(seen.delays);
    }
    ensure!(all.delays.len() == STREAMS * CHUNKS, "only {} chunks arrived", all.delays.len());
    Ok(all)
}

async fn stream(sidecar: SocketAddr, prefix: &str, chunks: usize, epoch: Instant) -> anyhow::Result<Seen> {
    let mut socket = TcpStream::connect(sidecar).await.context("cannot connect to the sidecar")?;
    socket.set_nodelay(true)?;
    let body = r#"{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    let request = format!(
        "POST {prefix}/v1/chat/completions?chunks={chunks} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await?;
    let (mut seen, mut bytes, mut last) = (Seen::default(), Vec::new(), None);
    while socket.read_buf(&mut bytes).await? > 0 {
        let now = u64::try_from(epoch.elapsed().as_micros())?;
        let text = String::from_utf8_lossy(&bytes);
        let Some((whole, _)) = text.rsplit_once("\n\n") else { continue };
        for sent in whole.split("\"sent\":").skip(1) {
            let digits: String = sent.chars().take_while(char::is_ascii_digit).collect();
            seen.delays.push(now.saturating_sub(digits.parse()?));
            seen.gaps.extend(last.map(|last| now.saturating_sub(last)));
            last = Some(now);
        }
        let read = whole.len() + 2;
        bytes.drain(..read);
    }
    Ok(seen)
}

// === the report ===

fn report(seen: &[Vec<Seen>; 2], text_bytes: usize) {
    println!(
        "{STREAMS} streams at once, a chunk of {text_bytes} bytes every {CHUNK_GAP:?}, {} rounds of each",
        ROUNDS - 1
    );
    println!("{:34} {:>10} {:>10} {:>7}", "", "off", "counting", "ratio");
    let whole = |take: fn(&Seen) -> &Vec<u64>, percent: usize| {
        let [off, on] = seen.each_ref().map(|rounds| {
            quantile(rounds.iter().flat_map(|seen| take(seen).iter().copied()).collect(), percent)
        });
        (off, on)
    };
    let line = |name: &str, (off, on): (u64, u64)| {
        println!("{name:34} {off:>10} {on:>10} {:>7.3}", on as f64 / off.max(1) as f64);
    };
    line("between chunks, median, µs", whole(|seen| &seen.gaps, 50));
    line("between chunks, p99, µs", whole(|seen| &seen.gaps, 99));
    line("provider to client, median, µs", whole(|seen| &seen.delays, 50));
    line("provider to client, p99, µs", whole(|seen| &seen.delays, 99));
    // A round that the machine disturbed counts once.
    let rounds = |take: fn(&Seen) -> &Vec<u64>, percent: usize| {
        let [off, on] = seen.each_ref().map(|rounds| {
            quantile(rounds.iter().map(|seen| quantile(take(seen).clone(), percent)).collect(), 50)
        });
        (off, on)
    };
    line("between chunks, p99, median round", rounds(|seen| &seen.gaps, 99));
    line("provider to client, p99, m. round", rounds(|seen| &seen.delays, 99));
}

fn quantile(mut values: Vec<u64>, percent: usize) -> u64 {
    values.sort_unstable();
    values.get((values.len().saturating_sub(1)) * percent / 100).copied().unwrap_or(0)
}
