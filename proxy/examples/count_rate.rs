//! Measures what counting tokens costs: the vocabularies, and a chunk of 64 streams with and without.
//!
//! `cargo run --release -p bursar --example count_rate`
//!
//! Not here: assertions on time; no test may depend on it.

use bursar::usage::text::STREAM_BYTES_MAX;
use bursar::usage::{Api, ReplyContext, ReplyMeter, flavour_of};
use bursar_tokens::Encoding;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use std::hint::black_box;
use std::time::{Duration, Instant};

const STREAMS: usize = 64;
const CHUNKS: usize = 2_000;
const ROUNDS: usize = 5;

fn main() {
    for encoding in [Encoding::O200kBase, Encoding::Cl100kBase] {
        let time = timed(|| _ = black_box(encoding.count("hello")));
        println!("{}: unpacked in {time:?}", encoding.name());
    }
    println!("memory: {} KiB", resident_kib());
    let prose = "The writer prices the record, appends a group of records to the journal and syncs it. ";
    let code = "    if let Some(frame) = self.frames.get_mut(self.depth) { frame.items += 1; }\n";
    rate("prose", prose);
    rate("code", code);
    rate("json", "{\"id\":\"chatcmpl-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"}}]},");
    rate("chinese", "记账员为每条记录定价，将其追加到日志中，然后等待磁盘。");
    rate("numbers", "550e8400-e29b-41d4-a716-446655440000,");
    rate("one letter", "a");
    rate("spaces", " ");
    let mut best = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        for (best, keeps) in best.iter_mut().zip([false, true]) {
            *best = (*best).min(streams(keeps));
        }
    }
    println!("{STREAMS} streams: {:?} a chunk without counting, {:?} with", best[0], best[1]);
}

fn rate(name: &str, unit: &str) {
    let text = unit.repeat(1_000_000 / unit.len());
    let time = timed(|| _ = black_box(Encoding::O200kBase.count(&text)));
    println!("{name}: {:.1} MB/s", text.len() as f64 / 1e6 / time.as_secs_f64());
}

/// The time of one chunk when 64 streams take turns.
fn streams(keeps: bool) -> Duration {
    let chunk = b"data: {\"id\":\"chatcmpl-Abcdefghijklmnopqrstuvwxyz12\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\"finish_reason\":null}],\"usage\":null}\n\n";
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    let mut meters: Vec<ReplyMeter> = (0..STREAMS)
        .map(|_| {
            let mut meter = ReplyMeter::new(&ReplyContext {
                flavour: flavour_of("openai"),
                api: Api::OpenAiChat,
                status: 200,
                headers: &headers,
                stream_requested: true,
            });
            if keeps {
                meter.keep_text(STREAM_BYTES_MAX);
            }
            meter
        })
        .collect();
    let time = timed(|| {
        for _ in 0..CHUNKS {
            for meter in &mut meters {
                meter.feed(black_box(chunk));
            }
        }
    });
    time / u32::try_from(STREAMS * CHUNKS).unwrap_or(u32::MAX)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}
