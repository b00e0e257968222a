//! Compressed replies are metered on the side; the client gets the bytes that the upstream sent.

use crate::transcripts::{CHAT, CHAT_REPLY, CHAT_STREAM, EVENTS};
use bursar_domain::{Anomaly, Outcome, UsageSource};
use bursar_tests::{Step, chunk, run};
use std::io::Write;
use std::rc::Rc;
use tokio::sync::Notify;

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstandard(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// Brotli without compressing: one uncompressed meta-block of at most 64 KiB, then the empty last one
/// (RFC 7932 §9.1, §9.2).
fn brotli(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len() - 1).unwrap();
    assert!(length < 1 << 16);
    // Bit by bit from the lowest: window 16 (0), not last (0), four nibbles (00), length, uncompressed (1).
    let header = (length << 4) | (1 << 20);
    let mut out = header.to_le_bytes()[..3].to_vec();
    out.extend_from_slice(bytes);
    out.push(0b11);
    out
}

type Encode = fn(&[u8]) -> Vec<u8>;

const ENCODINGS: [(&str, Encode); 4] =
    [("gzip", gzip), ("deflate", deflate), ("zstd", zstandard), ("br", brotli)];

#[test]
fn a_compressed_document_passes_unchanged_and_is_metered() {
    for (name, encode) in ENCODINGS {
        run("", |system| async move {
            let bytes = encode(CHAT_REPLY.as_bytes());
            system.provider.reply(
                200,
                &[("content-type", "application/json"), ("content-encoding", name)],
                &bytes,
            );
            let mut client = system.client();
            client.post("/openai/v1/chat/completions", &[("accept-encoding", name)], CHAT).await;
            let reply = client.reply().await;
            assert_eq!(reply.body, bytes, "{name}");
            assert_eq!(reply.header("content-encoding"), Some(name));
            assert_eq!(reply.header("content-length"), Some(bytes.len().to_string().as_str()));
            assert_eq!(system.provider.request().header("accept-encoding"), Some(name));
            let record = system.record().await;
            assert_eq!(record.usage.input_total(), Some(1000), "{name}");
            assert_eq!(record.usage.output_total(), Some(500), "{name}");
            assert_eq!(record.bytes_out, bytes.len() as u64, "{name}");
        });
    }
}

#[test]
fn a_compressed_stream_passes_as_it_comes_and_is_metered() {
    for (name, encode) in ENCODINGS {
        run("", |system| async move {
            let bytes = encode(EVENTS.concat().as_bytes());
            let (first, rest) = bytes.split_at(bytes.len() / 2);
            let go_on = Rc::new(Notify::new());
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: {name}\r\ntransfer-encoding: chunked\r\n\r\n"
            );
            system.provider.script([
                Step::Send(head.into_bytes()),
                Step::Send(chunk(first)),
                Step::Until(go_on.clone()),
                Step::Send(chunk(rest)),
                Step::Send(b"0\r\n\r\n".to_vec()),
            ]);
            let mut client = system.client();
            client.post("/silent/v1/chat/completions", &[("accept-encoding", name)], CHAT_STREAM).await;
            let head = client.head().await.unwrap();
            let early = client.raw(first.len()).await;
            assert!(early.windows(first.len()).any(|w| w == first), "{name}: the first half is here");
            go_on.notify_one();
            drop(head);
            assert!(client.sees("0\r\n\r\n").await);
            let record = system.record().await;
            assert_eq!((record.outcome, record.usage_source), (Outcome::Ok, UsageSource::Provider), "{name}");
            assert_eq!(record.usage.output_total(), Some(500), "{name}");
        });
    }
}

#[test]
fn a_reply_that_is_not_what_its_encoding_says_passes_unchanged_and_is_marked() {
    for (name, _) in ENCODINGS {
        run("", |system| async move {
            system.provider.reply(
                200,
                &[("content-type", "application/json"), ("content-encoding", name)],
                b"\xffnot compressed at all",
            );
            let mut client = system.client();
            client.post("/openai/v1/chat/completions", &[], CHAT).await;
            assert_eq!(client.reply().await.body, b"\xffnot compressed at all");
            let record = system.record().await;
            assert_eq!(record.usage_source, UsageSource::Absent, "{name}");
            assert!(record.anomalies.contains(Anomaly::MeteringCapped), "{name}: {:?}", record.anomalies);
        });
    }
}

#[test]
fn a_bomb_passes_untouched_and_metering_gives_up_on_it() {
    run("", |system| async move {
        let bomb = zstd::encode_all(std::io::Read::take(std::io::repeat(b' '), 96 << 20), 1).unwrap();
        let length = bomb.len();
        system.provider.reply(
            200,
            &[("content-type", "application/json"), ("content-encoding", "zstd")],
            &bomb,
        );
        let mut client = system.client();
        client.post("/openai/v1/chat/completions", &[], CHAT).await;
        let reply = client.reply().await;
        assert_eq!((reply.body.len(), reply.whole), (length, true));
        let record = system.record().await;
        assert_eq!((record.http_status, record.usage_source), (Some(200), UsageSource::Absent));
        assert!(record.anomalies.contains(Anomaly::MeteringCapped));
    });
}
